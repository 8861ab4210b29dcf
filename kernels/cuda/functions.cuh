// What is done to one element and what a warp does to one row. REAL, the codes and the constants are -D options.
#ifndef GPUBP_FUNCTIONS_CUH
#define GPUBP_FUNCTIONS_CUH

typedef REAL real;
typedef long long index_t;  // B n and n_out n_in may exceed 2^31

// i/255 rounded correctly, without a division: 1/255 as the sum of two numbers is near enough for all 256.
__device__ inline real of_255(real i) {
    constexpr real near = 1 / real(255);
#if REAL_BITS == 32
    constexpr real rest = (1 - near * 255.0) / 255;
#else
    constexpr real rest = near * 0x1p-56;  // 1/255 has one bit in every eight
#endif
    return fma(i, near, i * rest);
}

// Byte ``k`` of a word as a number, which is not converted, for which a multiprocessor has few units: in the last bits of a
// float of 2^23, it is that much more.
__device__ inline real byte_of(unsigned word, int k) {
#if REAL_BITS == 32
    return __uint_as_float(__byte_perm(word, 0x4B000000u, 0x7540 + k)) - 8388608;
#else
    return word >> 8 * k & 255;
#endif
}

__device__ inline real of_byte(unsigned i) { return of_255(byte_of(i, 0)); }

// a = σ(z), of every activation but softmax.
__device__ inline real apply(int activation, real z) {
    switch (activation) {
        case SIGMOID: {
            const real e = exp(-fabs(z));  // e^-|z| never overflows
            return (z >= 0 ? real(1) : e) / (1 + e);
        }
        case TANH: return tanh(z);
        case LECUN_TANH: return real(LECUN_SCALE) * tanh(real(LECUN_RATE) * z);
        case RELU: return z <= 0 ? real(0) : z;  // so that NaN goes through
        case LEAKY_RELU: return z > 0 ? z : real(LEAKY_SLOPE) * z;
        default: return z;
    }
}

// σ'(z) as a function of a = σ(z), of every activation but softmax.
__device__ inline real slope(int activation, real a) {
    switch (activation) {
        case SIGMOID: return a * (1 - a);
        case TANH: return 1 - a * a;
        case LECUN_TANH: return real(LECUN_RATE) * (real(LECUN_SCALE) - a * (a / real(LECUN_SCALE)));
        case RELU: return a > 0 ? real(1) : real(0);
        case LEAKY_RELU: return a > 0 ? real(1) : real(LEAKY_SLOPE);
        default: return real(1);
    }
}

// A row is the work of LANES neighbours in a warp, by default all of it; which of them this thread is. It is a pointer to
// its numbers, or anything else that has row[n] in lane n % LANES. All functions here touch column n only in that lane, so
// none needs a barrier: a shuffle is none for memory.
template <int LANES> __device__ inline int lane() { return threadIdx.x % LANES; }

// A row that has no more numbers than lanes, in each lane's register; and their number, which spares all loops.
struct InLanes {
    real& mine;
    __device__ real& operator[](int) const { return mine; }
};
struct OneEach {
    int count;
    __device__ operator int() const { return count; }
};

// body(n) for each column of this lane's, or all but the first.
template <int LANES, class Body> __device__ inline void each_after(OneEach, const Body&) {}
template <int LANES, class Body> __device__ inline void each_after(int count, const Body& body) {
#pragma unroll 1
    for (int n = lane<LANES>() + LANES; n < count; n += LANES) body(n);
}
template <int LANES, class Count, class Body> __device__ inline void each(Count count, const Body& body) {
    if (lane<LANES>() < count) body(lane<LANES>());
    each_after<LANES>(count, body);
}

// The sum over the lanes, in every lane: a tree of fixed shape, and commuting makes all lanes' bits agree.
template <int LANES = WARP, class T = real> __device__ inline T lanes_sum(T value) {
    for (int mask = LANES / 2; mask; mask /= 2) value += __shfl_xor_sync(~0u, value, mask);
    return value;
}

template <int LANES = WARP> __device__ inline real lanes_max(real value) {
    for (int mask = LANES / 2; mask; mask /= 2) {
        const real other = __shfl_xor_sync(~0u, value, mask);
        value = other > value ? other : value;
    }
    return value;
}

// The index of the first of the largest of row[n], in every lane.
template <int LANES = WARP, class Row> __device__ inline int lanes_argmax(const Row& row, int count) {
    int at = lane<LANES>();
    real largest = at < count ? row[at] : -1 / real(0);  // another lane's column may not be there yet
    each_after<LANES>(count, [&](int n) {
        if (row[n] > largest) largest = row[n], at = n;
    });
    for (int mask = LANES / 2; mask; mask /= 2) {
        const real other = __shfl_xor_sync(~0u, largest, mask);
        const int other_at = __shfl_xor_sync(~0u, at, mask);
        if (other > largest || (other == largest && other_at < at)) largest = other, at = other_at;
    }
    return at;
}
// max_n row[n], in every lane.
template <int LANES = WARP, class Row, class Count> __device__ inline real row_max(const Row& row, Count count) {
    real largest = lane<LANES>() < count ? row[lane<LANES>()] : -1 / real(0);
    each_after<LANES>(count, [&](int n) { largest = row[n] > largest ? row[n] : largest; });
    return lanes_max<LANES>(largest);
}

// max z and Σ_n e^(z[n] - max z) of one row, in every lane.
struct Exponents { real largest, total; };

template <int LANES = WARP, class Z, class Count> __device__ inline Exponents row_exponents(const Z& z, Count count) {
    Exponents of{row_max<LANES>(z, count), 0};
    each<LANES>(count, [&](int n) { of.total += exp(z[n] - of.largest); });
    of.total = lanes_sum<LANES>(of.total);
    return of;
}

// a[n] = e^(z[n] - max z) / Σ_m e^(z[m] - max z) of one row; a and z may be one row.
template <int LANES = WARP, class Z, class A, class Count>
__device__ inline Exponents row_softmax(const Z& z, const A& a, Count count) {
    Exponents of{row_max<LANES>(z, count), 0};
    each<LANES>(count, [&](int n) {
        a[n] = exp(z[n] - of.largest);
        of.total += a[n];
    });
    of.total = lanes_sum<LANES>(of.total);
    each<LANES>(count, [&](int n) { a[n] /= of.total; });
    return of;
}

// ∂C/∂z[n] = a[n] (g[n] - Σ_m g[m] a[m]) of one row, in place of g: the product with softmax's Jacobian.
template <int LANES = WARP, class G, class A, class Count>
__device__ inline void row_softmax_pull_back(const G& g, const A& a, Count count) {
    real mean = 0;
    each<LANES>(count, [&](int n) { mean += g[n] * a[n]; });
    mean = lanes_sum<LANES>(mean);
    each<LANES>(count, [&](int n) { g[n] = a[n] * (g[n] - mean); });
}

#endif
