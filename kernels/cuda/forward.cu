// forward, after the product: z[b, o] = (a_prev Wᵀ)[b, o] + bias[o], a[b, :] = σ(z[b, :]).
#include "functions.cuh"

// z holds the product, (B, n); z and a may be one buffer. A warp a row and a column tile; for softmax, a row.
extern "C" __global__ void forward(real* z_bo, const real* bias_o, int activation, real* a_bo, index_t b_count,
                                   index_t o_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    real *z = z_bo + b * o_count, *a = a_bo + b * o_count;
    for (index_t o = blockIdx.y * WARP + threadIdx.x; o < o_count; o += gridDim.y * WARP) {
        z[o] += bias_o[o];
        if (activation != SOFTMAX) a[o] = apply(activation, z[o]);
    }
    if (activation == SOFTMAX) row_softmax(z, a, o_count);
}
