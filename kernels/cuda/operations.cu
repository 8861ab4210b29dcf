// The operations of backpropagation one by one, around cuBLAS's products.
#include "functions.cuh"
#include "output.cuh"
#include "random.cuh"
#include "rules.cuh"

// gather: out[b, i] = source[order[b], i], and for bytes out[b, i] = source[order[b], i] / 255.

// Rows of numbers or bytes, (S, n) to (B, n): a warp a row and a column tile.
template <class T, class Number>
__device__ inline void gather_rows(const T* source, const index_t* order, real* out, index_t b_count, index_t i_count,
                                   const Number& number) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    const T* row = source + order[b] * i_count;
    for (index_t i = blockIdx.y * WARP + threadIdx.x; i < i_count; i += gridDim.y * WARP) out[b * i_count + i] = number(row[i]);
}

extern "C" __global__ void gather(const real* source_si, const index_t* order_b, real* out_bi, index_t b_count,
                                  index_t i_count) {
    gather_rows(source_si, order_b, out_bi, b_count, i_count, [](real x) { return x; });
}

extern "C" __global__ void gather_bytes(const unsigned char* source_si, const index_t* order_b, real* out_bi,
                                        index_t b_count, index_t i_count) {
    gather_rows(source_si, order_b, out_bi, b_count, i_count, of_byte);
}

// drop: out[b, i] = a[b, i] m[b, i], with dropout's mask of one layer's inputs in one step.

// (B, n), of the samples ``order``; a and out may be one buffer. A warp a row and counters beside each other.
extern "C" __global__ void drop(const real* a_bi, const index_t* order_b, unsigned long long key, int purpose, index_t step,
                                int dropped, real factor, real* out_bi, index_t b_count, index_t i_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    const Mask mask{key, unsigned(purpose), unsigned(step), unsigned(dropped), factor};
    const real* a = a_bi + b * i_count;
    real* out = out_bi + b * i_count;
    mask.each(order_b[b], i_count, blockIdx.y * WARP + threadIdx.x, gridDim.y * WARP,
              [&](int i, real m) { out[i] = a[i] * m; });
}

// forward, after the product: z[b, o] = (a_prev Wᵀ)[b, o] + bias[o], a[b, :] = σ(z[b, :]).

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

// output_delta (BP1): δ[b, :] = w[b] (∇ₐC ⊙ σ'(z))[b, :], with the cost of each row and whether it was a hit.

// δ (B, n), and cost and hit (B,), for one of the losses: a warp a row.
extern "C" __global__ void output_delta(const real* z_bn, const real* a_bn, const real* y_bn, const real* weight_b,
                                        int activation, int loss, real* delta_bn, real* cost_b,
                                        unsigned char* hit_b, index_t b_count, index_t n_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    const real *z = z_bn + b * n_count, *a = a_bn + b * n_count, *y = y_bn + b * n_count;
    Exponents of{};
    if (activation == SOFTMAX) of = row_exponents(z, n_count);
    const real cost = row_delta(of, z, a, y, weight_b[b], activation, loss, delta_bn + b * n_count, n_count);
    const bool hit = is_hit(a, y, n_count);
    if (threadIdx.x == 0) {
        cost_b[b] = weight_b[b] * cost;
        hit_b[b] = hit;
    }
}

// hidden_delta (BP2), after the product: δ[b, n] = (δ_next W_next)[b, n] σ'(z[b, n]).

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

// weight_grad (BP4, BP3), before the product: scaled[b, o] = δ[b, o] / B and ∂C/∂b[o] = Σ_b δ[b, o] / B.

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

// update: the optimizer's rule on one parameter, flat, in place; a thread an element.

// c0 … c8 are the coefficients in their order; a slot that the rule has not is not read.
extern "C" __global__ void update(real* parameter_i, const real* gradient_i, real* slot1_i, real* slot2_i, index_t i_count,
                                  int rule, int slots, real c0, real c1, real c2, real c3, real c4, real c5, real c6,
                                  real c7, real c8) {
    const index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= i_count) return;
    const real c[COEFFICIENTS] = {c0, c1, c2, c3, c4, c5, c6, c7, c8};
    step(rule, slots, parameter_i[i], gradient_i[i], slot1_i[i], slot2_i[i], c);
}
