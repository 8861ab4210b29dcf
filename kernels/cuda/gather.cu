// gather: out[b, i] = source[order[b], i], and for bytes out[b, i] = source[order[b], i] / 255.
#include "functions.cuh"

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
