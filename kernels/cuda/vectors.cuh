// vectors: numbers that lie beside each other, and sums of many of them over the lanes of a warp.
#ifndef GPUBP_VECTORS_CUH
#define GPUBP_VECTORS_CUH
#include "functions.cuh"

// COUNT elements beside each other, read and written at once, by up to 16 bytes at a time.
template <class T, int COUNT> struct alignas(COUNT * sizeof(T) < 16 ? COUNT * sizeof(T) : 16) Vector { T x[COUNT]; };

template <int COUNT, class T> __device__ inline Vector<T, COUNT> read(const T* place) {
    return *reinterpret_cast<const Vector<T, COUNT>*>(place);
}
template <int COUNT, class T> __device__ inline void write(T* place, const Vector<T, COUNT>& value) {
    *reinterpret_cast<Vector<T, COUNT>*>(place) = value;
}

// The four bytes of a word as numbers, the lowest first.
__device__ inline Vector<real, 4> of_bytes(unsigned word) {
    Vector<real, 4> numbers;
#pragma unroll
    for (int k = 0; k < 4; ++k) numbers.x[k] = of_255(byte_of(word, k));
    return numbers;
}

// Lanes whose numbers differ in the bits MASK, 2 MASK, … MOST only have COUNT sums each; of their totals each lane keeps
// its share, in their order. Halves change sides, from the highest bit on: of two lanes that differ in it one keeps the
// first half and one the second. A tree of fixed shape, with far fewer shuffles than one for every total.
template <int MASK, int MOST, int COUNT>
__device__ inline Vector<real, COUNT * MASK / (2 * MOST)> shared_out(const real (&sums)[COUNT]) {
    constexpr int HALF = COUNT / 2;
    const bool second = threadIdx.x & MOST;
    real kept[HALF];
#pragma unroll
    for (int n = 0; n < HALF; ++n) {
        const real mine = second ? sums[HALF + n] : sums[n], theirs = second ? sums[n] : sums[HALF + n];
        kept[n] = mine + __shfl_xor_sync(~0u, theirs, MOST);
    }
    if constexpr (MASK == MOST) {
        Vector<real, HALF> out;
#pragma unroll
        for (int n = 0; n < HALF; ++n) out.x[n] = kept[n];
        return out;
    } else {
        return shared_out<MASK, MOST / 2>(kept);
    }
}

#endif
