// hidden_delta (BP2), after the product: δ[b, n] = (δ_next W_next)[b, n] σ'(z[b, n]).
#include "functions.cuh"

// δ holds the product, (B, n). A warp a row and a column tile; for softmax, which takes its Jacobian product, a row.
extern "C" __global__ void hidden_delta(real* delta_bn, const real* a_bn, int activation, index_t b_count,
                                        index_t n_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    real* delta = delta_bn + b * n_count;
    const real* a = a_bn + b * n_count;
    if (activation == SOFTMAX)
        row_softmax_pull_back(delta, a, n_count);
    else
        for (index_t n = blockIdx.y * WARP + threadIdx.x; n < n_count; n += gridDim.y * WARP)
            delta[n] *= slope(activation, a[n]);
}
