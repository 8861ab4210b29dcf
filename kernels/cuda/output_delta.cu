// output_delta (BP1): δ[b, :] = w[b] (∇ₐC ⊙ σ'(z))[b, :], with the cost of each row and whether it was a hit.
#include "output.cuh"

// δ (B, n), and cost and hit (B,), for one of the losses: a warp a row.
extern "C" __global__ void output_delta(const real* z_bn, const real* a_bn, const real* y_bn, const real* weight_b,
                                        int activation, int loss, real* delta_bn, real* cost_b,
                                        unsigned char* hit_b, index_t b_count, index_t n_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    const real *z = z_bn + b * n_count, *a = a_bn + b * n_count, *y = y_bn + b * n_count;
    const real cost = row_output(z, a, y, weight_b[b], activation, loss, delta_bn + b * n_count, n_count);
    const bool hit = is_hit(a, y, n_count);
    if (threadIdx.x == 0) {
        cost_b[b] = weight_b[b] * cost;
        hit_b[b] = hit;
    }
}
