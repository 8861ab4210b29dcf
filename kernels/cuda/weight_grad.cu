// weight_grad (BP4, BP3), before the product: scaled[b, o] = δ[b, o] / B and ∂C/∂b[o] = Σ_b δ[b, o] / B.
#include "functions.cuh"

// (B, n) to (B, n) and (n,). A block takes WARP columns; SUM_ROWS threads share a column and sum every SUM_ROWS-th row.
// The product scaledᵀ a_prev is then ∂C/∂W with no second pass over it.
extern "C" __global__ void weight_grad(const real* delta_bo, real* scaled_bo, real* grad_bias_o, index_t b_count,
                                       index_t o_count) {
    __shared__ real partial[SUM_ROWS][WARP];
    const index_t o = index_t(blockIdx.x) * WARP + threadIdx.x;
    const real size = b_count;
    real sum = 0;
    if (o < o_count)
        for (index_t b = threadIdx.y; b < b_count; b += SUM_ROWS) {
            const real delta = delta_bo[b * o_count + o];
            scaled_bo[b * o_count + o] = delta / size;
            sum += delta;
        }
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && o < o_count) {
        for (int k = 1; k < SUM_ROWS; ++k) sum += partial[k][threadIdx.x];
        grad_bias_o[o] = sum / size;
    }
}
