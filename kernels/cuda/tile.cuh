// tile: one block's part of C = A B, through shared memory; every product of the epoch kernel is made of these.
#ifndef GPUBP_TILE_CUH
#define GPUBP_TILE_CUH
#include "functions.cuh"

// count numbers that lie beside each other, aligned so that one instruction reads them.
template <int COUNT> struct alignas(COUNT * sizeof(real) < 16 ? COUNT * sizeof(real) : 16) Numbers { real x[COUNT]; };

// THREADS threads in GROUPS, each ROWS_OF_THREADS above each other and with M × N sums a thread. Each group sums all of
// the tile, over its share of the terms.
template <int M, int N, int ROWS_OF_THREADS, int GROUPS = 1> struct Shape {
    static constexpr int OF_A_GROUP = THREADS / GROUPS, COLUMNS_OF_THREADS = OF_A_GROUP / ROWS_OF_THREADS;
    static constexpr int ROWS = M * ROWS_OF_THREADS, COLUMNS = N * COLUMNS_OF_THREADS;
    static constexpr int SUMS = GROUPS > 1 ? THREADS * M * N : 0;  // numbers of shared memory, beside the panels' none
    // From one term's numbers to the next; a multiple of 16 bytes, so that a thread's M or N are read as vectors.
    static constexpr int A_PITCH = ROWS + 4, B_PITCH = COLUMNS + 4;

    struct Sums {
        const int group, of_group, top, left;
        real held[M][N] = {};

        __device__ explicit Sums(int thread)
            : group(thread / OF_A_GROUP), of_group(thread % OF_A_GROUP), top(of_group / COLUMNS_OF_THREADS * M),
              left(of_group % COLUMNS_OF_THREADS * N) {}

        // Adds the products of DEPTH terms, which lie in shared memory.
        __device__ void add(const real* as, const real* bs) {
#pragma unroll
            for (int j = 0; j < DEPTH / GROUPS; ++j) {
                const int k = j * GROUPS + group;
                const auto& a_k = *reinterpret_cast<const Numbers<M>*>(as + k * A_PITCH + top);
                const auto& b_k = *reinterpret_cast<const Numbers<N>*>(bs + k * B_PITCH + left);
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int n = 0; n < N; ++n) held[m][n] += a_k.x[m] * b_k.x[n];
            }
        }

        // put(row, column, sum) for each of the tile.
        template <class Put> __device__ void finish(const Put& put, real* shared) {
            if constexpr (GROUPS > 1) __syncthreads();  // all panels have been read: the groups' sums take their place
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < N; ++n)
                    if constexpr (GROUPS > 1)
                        shared[((m * N + n) * GROUPS + group) * OF_A_GROUP + of_group] = held[m][n];
                    else
                        put(top + m, left + n, held[m][n]);
            if constexpr (GROUPS > 1) {
                __syncthreads();  // all groups' sums are there
                for (int e = group; e < M * N; e += GROUPS) {
                    real sum = shared[e * GROUPS * OF_A_GROUP + of_group];
                    for (int g = 1; g < GROUPS; ++g) sum += shared[(e * GROUPS + g) * OF_A_GROUP + of_group];
                    put(top + e / N, left + e % N, sum);
                }
            }
        }
    };
};

#if PRECISION != FLOAT32
#ifndef CUDA_ON_HOST
// x to the nearest number of 11 significant bits, as tensor cores read them.
__device__ inline unsigned to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}
// c += a b, 16 × 8 sums of 8 terms; a warp's lanes hold the fragments as PTX has them for mma.m16n8k8.
__device__ inline void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// COUNT numbers as tensor cores take them; for 3xTF32 with what rounding left, again rounded.
template <int COUNT> struct Fragment {
    unsigned high[COUNT], low[COUNT];
    __device__ void set(int i, float x) {
        high[i] = to_tf32(x);
        if (PRECISION == TF32X3) low[i] = to_tf32(x - __uint_as_float(high[i]));
    }
};

// Warps, WARPS_DOWN above each other, each with M × N blocks of 16 × 8 sums on tensor cores.
template <int M, int N, int WARPS_DOWN> struct TensorShape {
    static constexpr int WARPS_ACROSS = THREADS / WARP / WARPS_DOWN;
    static constexpr int ROWS = 16 * M * WARPS_DOWN, COLUMNS = 8 * N * WARPS_ACROSS, SUMS = 0;
    static constexpr int A_PITCH = ROWS + 8, B_PITCH = COLUMNS + 8;  // so that a warp's lanes meet all banks

    struct Sums {
        const int row, column, top, left;  // of the lane in a fragment; of the warp in the tile
        float held[M][N][4] = {};

        __device__ explicit Sums(int thread)
            : row(thread % WARP / 4), column(thread % 4), top(thread / WARP / WARPS_ACROSS * 16 * M),
              left(thread / WARP % WARPS_ACROSS * 8 * N) {}

        __device__ void add(const real* as, const real* bs) {
#pragma unroll
            for (int j = 0; j < DEPTH / 8; ++j) {
                const int k = 8 * j;
                Fragment<4> a[M];
                Fragment<2> b[N];
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        a[m].set(i, as[(k + column + i / 2 * 4) * A_PITCH + top + m * 16 + row + i % 2 * 8]);
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i) b[n].set(i, bs[(k + column + i * 4) * B_PITCH + left + n * 8 + row]);
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int n = 0; n < N; ++n) {
                        if (PRECISION == TF32X3) {  // the small products first
                            mma(held[m][n], a[m].low, b[n].high);
                            mma(held[m][n], a[m].high, b[n].low);
                        }
                        mma(held[m][n], a[m].high, b[n].high);
                    }
            }
        }

        template <class Put> __device__ void finish(const Put& put, real*) {
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        put(top + m * 16 + row + i / 2 * 8, left + n * 8 + column * 2 + i % 2, held[m][n][i]);
        }
    };
};
#endif

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

// out(m, n, Σ_k a(m, k) b(n, k)) for the elements of the tile that begins at (m0, n0), in an order of the terms that
// depends on nothing but the shape. The next panels are fetched while sums are taken.
template <class S, class A, class B, class Out>
__device__ void tile(const A& a, const B& b, const Out& out, index_t m0, index_t n0, index_t m_count, index_t n_count,
                     index_t k_count, real* shared) {
    real *as = shared, *bs = shared + DEPTH * S::A_PITCH;
    const int thread = threadIdx.y * WARP + threadIdx.x;
    Panel<S::ROWS, A::ALONG_TERMS> a_panel;
    Panel<S::COLUMNS, B::ALONG_TERMS> b_panel;
    typename S::Sums sums(thread);
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
        sums.add(as, bs);
    }
    const auto put = [&](int m, int n, real sum) {
        const index_t row = m0 + m, column = n0 + n;
        if (row < m_count && column < n_count) out(row, column, sum);
    };
    sums.finish(put, shared);
}

#endif
