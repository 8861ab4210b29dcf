// tile: one block's part of C = A B, through shared memory; every product of the epoch kernel is made of these.
#ifndef GPUBP_TILE_CUH
#define GPUBP_TILE_CUH
#include "functions.cuh"

// THREADS threads in GROUPS, each ROWS_OF_THREADS above each other and with M × N sums a thread. Each group sums all of
// the tile, over its share of the terms.
template <int M_, int N_, int ROWS_OF_THREADS, int GROUPS_ = 1> struct Shape {
    static constexpr int M = M_, N = N_, GROUPS = GROUPS_, OF_A_GROUP = THREADS / GROUPS;
    static constexpr int COLUMNS_OF_THREADS = OF_A_GROUP / ROWS_OF_THREADS;
    static constexpr int ROWS = M * ROWS_OF_THREADS, COLUMNS = N * COLUMNS_OF_THREADS;
    // From one term's numbers to the next; a multiple of 16 bytes, so that a thread's M or N are read as vectors.
    static constexpr int A_PITCH = ROWS + 4, B_PITCH = COLUMNS + 4;
};

// count numbers that lie beside each other, aligned so that one instruction reads them.
template <int COUNT> struct alignas(COUNT * sizeof(real) < 16 ? COUNT * sizeof(real) : 16) Numbers { real x[COUNT]; };

// One side of a product, element (row, term). In memory its terms lie beside each other, or its rows; lines of these
// are ``pitch`` apart, in the order given if one is. Inputs may be bytes that stand for i/255.
template <bool ALONG_TERMS_> struct Operand {
    static constexpr bool ALONG_TERMS = ALONG_TERMS_;
    const real* numbers;
    index_t pitch;
    const index_t* order = nullptr;
    const unsigned char* bytes = nullptr;  // in place of the numbers
    index_t ones = -1;                     // a row that is all 1, beside those in memory

    __device__ real operator()(index_t row, index_t term) const {
        if (row == ones) return 1;
        const index_t line = ALONG_TERMS ? row : term, place = ALONG_TERMS ? term : row;
        const index_t at = (order ? order[line] : line) * pitch + place;
        if (!bytes) return numbers[at];
        // i/255 rounded correctly, without a division: the remainder of a first quotient mends it.
        const real x = bytes[at], quotient = x * (1 / real(255));
        return fma(fma(-quotient, real(255), x), 1 / real(255), quotient);
    }
};
using Rows = Operand<true>;
using Columns = Operand<false>;

// This thread's share of a panel of an operand: LENGTH rows (or columns) by DEPTH terms, on its way to shared memory.
template <int LENGTH, bool ALONG_TERMS> struct Panel {
    static constexpr int COUNT = (LENGTH * DEPTH + THREADS - 1) / THREADS;
    real held[COUNT];

    __device__ static int number(int thread, int i) { return thread + i * THREADS; }
    __device__ static int term(int e) { return ALONG_TERMS ? e % DEPTH : e / LENGTH; }
    __device__ static int row(int e) { return ALONG_TERMS ? e / DEPTH : e % LENGTH; }

    // Numbers outside of the operand are 0.
    template <class Operand>
    __device__ void fetch(const Operand& operand, int thread, index_t first, index_t rows, index_t begin, index_t terms) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const int e = number(thread, i);
            const index_t r = first + row(e), k = begin + term(e);
            held[i] = e < LENGTH * DEPTH && r < rows && k < terms ? operand(r, k) : real(0);
        }
    }
    __device__ void put(real* shared, int thread, int pitch) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            if (const int e = number(thread, i); e < LENGTH * DEPTH) shared[term(e) * pitch + row(e)] = held[i];
    }
};

// out(m, n, Σ_k a(m, k) b(n, k)) for the elements of the tile that begins at (m0, n0). Terms are summed in their order,
// by each group its own, and the groups' sums in theirs. The next panels are fetched while sums are taken.
template <class S, class A, class B, class Out>
__device__ void tile(const A& a, const B& b, const Out& out, index_t m0, index_t n0, index_t m_count, index_t n_count,
                     index_t k_count, real* shared) {
    real *as = shared, *bs = shared + DEPTH * S::A_PITCH;
    const int thread = threadIdx.y * WARP + threadIdx.x, group = thread / S::OF_A_GROUP, of_group = thread % S::OF_A_GROUP;
    const int top = of_group / S::COLUMNS_OF_THREADS * S::M, left = of_group % S::COLUMNS_OF_THREADS * S::N;
    Panel<S::ROWS, A::ALONG_TERMS> a_panel;
    Panel<S::COLUMNS, B::ALONG_TERMS> b_panel;
    real sums[S::M][S::N] = {};
    a_panel.fetch(a, thread, m0, m_count, 0, k_count);
    b_panel.fetch(b, thread, n0, n_count, 0, k_count);
    for (index_t k0 = 0; k0 < k_count; k0 += DEPTH) {
        __syncthreads();  // all have taken their sums from the panels before
        a_panel.put(as, thread, S::A_PITCH);
        b_panel.put(bs, thread, S::B_PITCH);
        __syncthreads();  // all panels are there
        if (k0 + DEPTH < k_count) {
            a_panel.fetch(a, thread, m0, m_count, k0 + DEPTH, k_count);
            b_panel.fetch(b, thread, n0, n_count, k0 + DEPTH, k_count);
        }
#pragma unroll
        for (int j = 0; j < DEPTH / S::GROUPS; ++j) {
            const int k = j * S::GROUPS + group;
            const auto& a_k = *reinterpret_cast<const Numbers<S::M>*>(as + k * S::A_PITCH + top);
            const auto& b_k = *reinterpret_cast<const Numbers<S::N>*>(bs + k * S::B_PITCH + left);
#pragma unroll
            for (int m = 0; m < S::M; ++m)
#pragma unroll
                for (int n = 0; n < S::N; ++n) sums[m][n] += a_k.x[m] * b_k.x[n];
        }
    }
    if constexpr (S::GROUPS > 1) __syncthreads();  // all panels have been read: the groups' sums take their place
#pragma unroll
    for (int m = 0; m < S::M; ++m)
#pragma unroll
        for (int n = 0; n < S::N; ++n) {
            const index_t row = m0 + top + m, column = n0 + left + n;
            if constexpr (S::GROUPS > 1)
                shared[((m * S::N + n) * S::GROUPS + group) * S::OF_A_GROUP + of_group] = sums[m][n];
            else if (row < m_count && column < n_count)
                out(row, column, sums[m][n]);
        }
    if constexpr (S::GROUPS > 1) {
        __syncthreads();  // all groups' sums are there
        for (int e = group; e < S::M * S::N; e += S::GROUPS) {
            const index_t row = m0 + top + e / S::N, column = n0 + left + e % S::N;
            real sum = shared[e * S::GROUPS * S::OF_A_GROUP + of_group];
            for (int g = 1; g < S::GROUPS; ++g) sum += shared[(e * S::GROUPS + g) * S::OF_A_GROUP + of_group];
            if (row < m_count && column < n_count) out(row, column, sum);
        }
    }
}

#endif
