// What is done to one element and what a warp does to one row. REAL, the codes and the constants are -D options.
#ifndef GPUBP_FUNCTIONS_CUH
#define GPUBP_FUNCTIONS_CUH

typedef REAL real;
typedef long long index_t;  // B n and n_out n_in may exceed 2^31

// i/255 rounded correctly, without a division: the remainder of a first quotient mends it. Nor is i converted, for
// which a multiprocessor has few units: in the last bits of a float of 2^23, it is that much more.
__device__ inline real of_byte(unsigned i) {
#if REAL_BITS == 32
    const real x = __uint_as_float(0x4B000000u | i) - 8388608;
#else
    const real x = i;
#endif
    const real quotient = x * (1 / real(255));
    return fma(fma(quotient, real(-255), x), 1 / real(255), quotient);
}

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

// A row is the work of LANES neighbours in a warp, by default all of it; which of them this thread is.
template <int LANES>
__device__ inline index_t lane() { return threadIdx.x % LANES; }

// The sum over the lanes, in every lane: a tree of fixed shape, and commuting makes all lanes' bits agree.
template <int LANES = WARP>
__device__ inline real lanes_sum(real value) {
    for (int mask = LANES / 2; mask; mask /= 2) value += __shfl_xor_sync(~0u, value, mask);
    return value;
}

template <int LANES = WARP>
__device__ inline real lanes_max(real value) {
    for (int mask = LANES / 2; mask; mask /= 2) {
        const real other = __shfl_xor_sync(~0u, value, mask);
        value = other > value ? other : value;
    }
    return value;
}

// The index of the first of the largest of row[n], in every lane.
template <int LANES = WARP>
__device__ inline index_t lanes_argmax(const real* row, index_t n_count) {
    index_t at = lane<LANES>();
    real largest = at < n_count ? row[at] : -1 / real(0);  // another lane's column may not be there yet
    for (index_t n = at + LANES; n < n_count; n += LANES)
        if (row[n] > largest) largest = row[n], at = n;
    for (int mask = LANES / 2; mask; mask /= 2) {
        const real other = __shfl_xor_sync(~0u, largest, mask);
        const index_t other_at = __shfl_xor_sync(~0u, at, mask);
        if (other > largest || (other == largest && other_at < at)) largest = other, at = other_at;
    }
    return at;
}

// max_n row[n], in every lane. All functions here touch column n only in lane n % LANES, so none needs a barrier: a
// shuffle is none for memory.
template <int LANES = WARP>
__device__ inline real row_max(const real* row, index_t n_count) {
    real largest = lane<LANES>() < n_count ? row[lane<LANES>()] : -1 / real(0);
    for (index_t n = lane<LANES>() + LANES; n < n_count; n += LANES) largest = row[n] > largest ? row[n] : largest;
    return lanes_max<LANES>(largest);
}

// a[n] = e^(z[n] - max z) / Σ_m e^(z[m] - max z) of one row; a and z may be one row.
template <int LANES = WARP>
__device__ inline void row_softmax(const real* z, real* a, index_t n_count) {
    const real largest = row_max<LANES>(z, n_count);
    real total = 0;
    for (index_t n = lane<LANES>(); n < n_count; n += LANES) {
        a[n] = exp(z[n] - largest);
        total += a[n];
    }
    total = lanes_sum<LANES>(total);
    for (index_t n = lane<LANES>(); n < n_count; n += LANES) a[n] /= total;
}

// ∂C/∂z[n] = a[n] (g[n] - Σ_m g[m] a[m]) of one row, in place of g: the product with softmax's Jacobian.
template <int LANES = WARP>
__device__ inline void row_softmax_pull_back(real* g, const real* a, index_t n_count) {
    real mean = 0;
    for (index_t n = lane<LANES>(); n < n_count; n += LANES) mean += g[n] * a[n];
    mean = lanes_sum<LANES>(mean);
    for (index_t n = lane<LANES>(); n < n_count; n += LANES) g[n] = a[n] * (g[n] - mean);
}

#endif
