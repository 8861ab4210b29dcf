// gather: out[b, i] = source[order[b], i], and for bytes out[b, i] = table[source[order[b], i]].
#include "functions.cuh"

// Rows of floats, (S, n) to (B, n): a warp a row and a column tile.
extern "C" __global__ void gather(const real* source_si, const index_t* order_b, real* out_bi, index_t b_count,
                                  index_t i_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    const real* row = source_si + order_b[b] * i_count;
    for (index_t i = blockIdx.y * WARP + threadIdx.x; i < i_count; i += gridDim.y * WARP)
        out_bi[b * i_count + i] = row[i];
}

// Rows of bytes through a table of 256 floats, (S, n) to (B, n).
extern "C" __global__ void gather_bytes(const unsigned char* source_si, const index_t* order_b, const real* table,
                                        real* out_bi, index_t b_count, index_t i_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    const unsigned char* row = source_si + order_b[b] * i_count;
    for (index_t i = blockIdx.y * WARP + threadIdx.x; i < i_count; i += gridDim.y * WARP)
        out_bi[b * i_count + i] = table[row[i]];
}
