// product: one block's tile of C = A Bᵀ, C[m, n] = Σ_k a[m, k] b[n, k]; every product of the epoch kernel is made of
// these. What a, b and k are is the caller's: samples and units, say, with the inputs as terms.
//
//        panel of B, COLUMNS × TERMS             global memory
//                   ┌──────────────┐               │  copied asynchronously, STAGES − 1 panels ahead
//                   │      ▒▒      │               ▼
//                   └──────────────┘             shared memory: panels of both, as they lie in memory
//      panel of A   tile, ROWS × COLUMNS           │  read by vectors, VECTOR terms of M rows and N columns at a time
//         ┌───┐     ┌──────────────┐               ▼
//         │   │     │              │             registers: M × N sums of each thread
//         │▒▒▒│     │      ▓▓      │               │  added up over the groups, through shared memory
//         │   │     │              │               ▼
//         └───┘     └──────────────┘             epilogue: the caller's, VECTOR columns a thread
//
// (In the words of others: ROWS, COLUMNS and TERMS are BM, BN and BK; M and N are TM and TN.)
//
// A block has only THREADS threads, as registers allow no more, and a tile of M × N sums a thread would be large: so
// the threads are GROUPS, each of which has all of the tile and takes every GROUPS-th vector of the terms. A thread
// has many sums even in a small tile, and needs fewer reads of shared memory for each.
//
// Loops, from the outside: panels, since shared memory holds few; a group's vectors of terms, two to a round, of which
// the compiler reads the next while the last are multiplied; the terms of a vector; rows; columns. A sum thus adds a
// group's terms in their order, and then groups in theirs: this depends on nothing but the tile's shape.
#ifndef GPUBP_PRODUCT_CUH
#define GPUBP_PRODUCT_CUH
#include "async.cuh"
#include "functions.cuh"
#include "grid.cuh"
#include "vectors.cuh"

// Numbers beside each other are read as a vector if they are copied as a whole, ``const auto x = *place``; the members of
// a reference are read one at a time.
template <int COUNT> using Numbers = Vector<real, COUNT>;
constexpr int VECTOR = 16 / sizeof(real);
using Wide = Numbers<VECTOR>;  // as many as are read at once

template <int COUNT> __device__ inline void add(Numbers<COUNT>& sum, const Numbers<COUNT> more) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) sum.x[i] += more.x[i];
}

constexpr __host__ __device__ int ceil_div(int a, int b) { return (a + b - 1) / b; }
template <class T> constexpr __host__ __device__ T least(T a, T b) { return b < a ? b : a; }

// Shared memory: HEAD_BYTES, and PRODUCT_BYTES for a tile's panels, and then for its sums.
template <class T = real> __device__ inline T* product_memory() {
    SHARED_MEMORY(shared);
    return reinterpret_cast<T*>(shared + HEAD_BYTES);
}

// One side of a product: lines of ``pitch`` elements, one for each row with its terms beside each other (Rows), or one
// for each term (Columns); in the order given, if one is. Elements are numbers, or bytes that stand for i/255.
template <bool ALONG_TERMS_, class Element_> struct Operand {
    static constexpr bool ALONG_TERMS = ALONG_TERMS_;
    using Element = Element_;
    const Element* lines;
    const index_t* order;
    int pitch;
};
template <class Element = real> using Rows = Operand<true, Element>;
template <class Element = real> using Columns = Operand<false, Element>;
using Byte = unsigned char;

// Panels of an operand, LENGTH rows (or columns) by TERMS, and this thread's share of them: COUNT pieces of
// PIECE elements, at the same place of lines that are STEP apart. As numbers they are used where they were copied to;
// bytes each thread turns into numbers when its own are there, for all to use.
//
// A row beyond the last is some other row, of whose sums nothing is kept; a term beyond the last is 0.
template <class S, int LENGTH, class Operand> struct Panel {
    using Element = typename Operand::Element;
    static constexpr bool ALONG_TERMS = Operand::ALONG_TERMS, AS_BYTES = sizeof(Element) == 1;
    static constexpr int PLACES = ALONG_TERMS ? S::TERMS : LENGTH, LINES = ALONG_TERMS ? LENGTH : S::TERMS;
    static constexpr int PIECE = AS_BYTES ? 4 : VECTOR, PIECES = PLACES / PIECE;
    static constexpr int STEP = THREADS / PIECES, COUNT = LINES < STEP ? 1 : LINES / STEP;
    static constexpr bool FOR_ALL = LINES >= STEP;  // every thread has a piece
    static_assert(THREADS % PIECES == 0 && (LINES < STEP || LINES % STEP == 0), "no piece is left over");

    // Lines of shared memory have so many places more that reads of a vector's terms of eight rows meet all banks.
    static constexpr int PITCH = PLACES + (ALONG_TERMS ? VECTOR : S::PADDING), SIZE = PITCH * LINES;
    static constexpr __device__ int at(int row, int term) { return ALONG_TERMS ? row * PITCH + term : term * PITCH + row; }

    // In shared memory: the stages, of which those of bytes are smaller and end as two panels of numbers in turn.
    static constexpr int COPIED_PITCH = AS_BYTES ? PLACES : PITCH, COPIED = COPIED_PITCH * LINES;
    static constexpr int BYTES = S::STAGES * COPIED * sizeof(Element) + (AS_BYTES ? 2 * SIZE * sizeof(real) : 0);
    static_assert(COPIED * sizeof(Element) % 16 == 0, "stages and panels are aligned");

    const Operand operand;
    const int row_count, term_count;  // where rows and terms end
    const int first;                  // row
    const int line, place;            // of this thread's first piece, in the panel
    Element* const stages;
    real* const numbers;
    unsigned found[COUNT];  // the pieces' lines in memory

    __device__ Panel(const Operand& operand, unsigned char* room, int thread, int first, int row_count, int begin, int end)
        : operand(operand), row_count(row_count), term_count(end), first(first), line(thread / PIECES),
          place(thread % PIECES * PIECE), stages(reinterpret_cast<Element*>(room)),
          numbers(reinterpret_cast<real*>(room) + S::STAGES * COPIED * sizeof(Element) / sizeof(real)) {
        find(ALONG_TERMS ? first : begin);
    }

    // Looks up lines: rows, which a tile's panels have in common, once; terms for one panel ahead of its copies.
    __device__ void find(int begin) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) found[i] = least(begin + line + i * STEP, (ALONG_TERMS ? row_count : term_count) - 1);
        const index_t* const order = operand.order;
        if (!order) return;
        ASSUME_GLOBAL(order);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) found[i] = order[found[i]];
    }

    // Asks for the panel of the terms from ``begin`` on.
    __device__ void copy(int stage, int begin) {
        if (!FOR_ALL && line >= LINES) return;
        const int at = (ALONG_TERMS ? begin : first) + place;
        const int rest = (ALONG_TERMS ? term_count : row_count) - at, inside = rest < 0 ? 0 : least(rest, PIECE);
        Element* to = stages + stage * COPIED + line * COPIED_PITCH + place;
        const Element* from = operand.lines + at;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const bool none = !ALONG_TERMS && begin + line + i * STEP >= term_count;
            const Element* piece = from + size_t(found[i]) * unsigned(operand.pitch);
            copy_piece(to + i * STEP * COPIED_PITCH, piece, none ? 0 : inside);
        }
        if (!ALONG_TERMS) find(begin + S::TERMS);
    }

    static __device__ void copy_piece(Element* to, const Element* from, int inside) {
        if constexpr (S::ALIGNED) {
            copy_async<PIECE * sizeof(Element)>(to, from, inside * sizeof(Element));
        } else {
#pragma unroll
            for (int e = 0; e < PIECE; ++e)
                if constexpr (AS_BYTES)
                    to[e] = e < inside ? from[e] : 0;  // there is no asynchronous copy of one byte
                else
                    copy_async<sizeof(Element)>(to + e, from + e, e < inside ? sizeof(Element) : 0);
        }
    }

    // The panel that has been copied, as numbers; of bytes, ``parity`` is that of the panel's number.
    __device__ const real* ready(int stage, int parity) const {
        if constexpr (!AS_BYTES) {
            return stages + stage * COPIED;
        } else {
            real* const panel = numbers + parity * SIZE;
            if (!FOR_ALL && line >= LINES) return panel;
            const Byte* from = stages + stage * COPIED + line * COPIED_PITCH + place;
#pragma unroll
            for (int i = 0; i < COUNT; ++i) {
                const unsigned bytes = *reinterpret_cast<const unsigned*>(from + i * STEP * COPIED_PITCH);
                Numbers<PIECE> piece;
#pragma unroll
                for (int e = 0; e < PIECE; ++e) piece.x[e] = of_byte(bytes >> 8 * e & 255);
                *reinterpret_cast<Numbers<PIECE>*>(panel + (line + i * STEP) * PITCH + place) = piece;
            }
            return panel;
        }
    }
};

// THREADS threads in GROUPS, each ROWS_OF_THREADS above each other and with M × N sums a thread; in STAGES panels.
// ALIGNED ones are for operands whose lines all begin at a multiple of four elements.
template <int M, int N, int ROWS_OF_THREADS, int GROUPS_, int VECTORS, int STAGES_, bool ALIGNED_ = true> struct Shape {
    static constexpr bool ALIGNED = ALIGNED_;
    static constexpr int GROUPS = GROUPS_, TERMS = VECTORS * VECTOR, STAGES = STAGES_;
    static constexpr int OF_A_GROUP = THREADS / GROUPS, COLUMNS_OF_THREADS = OF_A_GROUP / ROWS_OF_THREADS;
    static constexpr int ROWS = M * ROWS_OF_THREADS, COLUMNS = N * COLUMNS_OF_THREADS;
    static constexpr int PADDING = 0;                            // of lines of a term
    static constexpr int PITCH = COLUMNS + COLUMNS_OF_THREADS;  // of sums
    static constexpr int PARTS = GROUPS > 1 ? GROUPS / 2 : 1;
    static_assert(VECTORS % GROUPS == 0, "groups have as many vectors");

    // COUNT rows of a panel in one of ALONG threads: where lines are rows, those that are ALONG apart, so that
    // neighbours read neighbouring lines; else as many beside each other as are read at once.
    template <class P, int COUNT, int ALONG> struct Fragment {
        static constexpr int WIDE = P::ALONG_TERMS ? 1 : COUNT < VECTOR ? COUNT : VECTOR;
        static constexpr __device__ int row(int i) { return i / WIDE * ALONG * WIDE + i % WIDE; }
        real x[COUNT][VECTOR];

        // VECTOR terms of the rows from ``panel`` on.
        __device__ void read(const real* panel) {
            if constexpr (P::ALONG_TERMS) {
#pragma unroll
                for (int i = 0; i < COUNT; ++i) {
                    const auto terms = *reinterpret_cast<const Wide*>(panel + P::at(row(i), 0));
#pragma unroll
                    for (int v = 0; v < VECTOR; ++v) x[i][v] = terms.x[v];
                }
            } else {
#pragma unroll
                for (int v = 0; v < VECTOR; ++v)
#pragma unroll
                    for (int i = 0; i < COUNT; i += WIDE) {
                        const auto rows = *reinterpret_cast<const Numbers<WIDE>*>(panel + P::at(row(i), v));
#pragma unroll
                        for (int j = 0; j < WIDE; ++j) x[i + j][v] = rows.x[j];
                    }
            }
        }
    };

    template <class A, class B> struct OfThread {
        using OfA = Fragment<A, M, ROWS_OF_THREADS>;
        using OfB = Fragment<B, N, COLUMNS_OF_THREADS>;
        const int group, top, left;
        real held[M][N] = {};

        __device__ explicit OfThread(int thread)
            : group(thread / OF_A_GROUP), top(thread % OF_A_GROUP / COLUMNS_OF_THREADS * OfA::WIDE),
              left(thread % COLUMNS_OF_THREADS * OfB::WIDE) {}

        // Adds the products of a panel's terms.
        __device__ void add(const real* a_panel, const real* b_panel) {
            a_panel += A::at(top, group * VECTOR), b_panel += B::at(left, group * VECTOR);
#pragma unroll 2
            for (int k = 0; k < TERMS; k += GROUPS * VECTOR) {
                OfA a;
                OfB b;
                a.read(a_panel + A::at(0, k));
                b.read(b_panel + B::at(0, k));
#pragma unroll
                for (int v = 0; v < VECTOR; ++v)
#pragma unroll
                    for (int m = 0; m < M; ++m)
#pragma unroll
                        for (int n = 0; n < N; ++n) held[m][n] += a.x[m][v] * b.x[n][v];
            }
        }

        // Puts them into a tile, or adds them to what is there.
        template <bool ADD> __device__ void put(real* tile) const {
            tile += top * PITCH + left;
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < N; n += OfB::WIDE) {
                    auto* place = reinterpret_cast<Numbers<OfB::WIDE>*>(tile + OfA::row(m) * PITCH + OfB::row(n));
                    Numbers<OfB::WIDE> some{};
                    if (ADD) some = *place;
#pragma unroll
                    for (int j = 0; j < OfB::WIDE; ++j) some.x[j] += held[m][n + j];
                    *place = some;
                }
        }

        // The upper half of the groups puts its sums, and the lower adds its own to them.
        __device__ void put_all(real* tiles) const {
            if (GROUPS == 1) {
                put<false>(tiles);
                return;
            }
            if (group >= PARTS) put<false>(tiles + (group - PARTS) * ROWS * PITCH);
            __syncthreads();  // the upper half's are there
            if (group < PARTS) put<true>(tiles + group * ROWS * PITCH);
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

// Warps, WARPS_DOWN above each other, each with M × N blocks of 16 × 8 sums on tensor cores.
template <int M, int N, int WARPS_DOWN, int VECTORS, int STAGES_, bool ALIGNED_ = true> struct TensorShape {
    static constexpr bool ALIGNED = ALIGNED_;
    static constexpr int WARPS_ACROSS = THREADS / WARP / WARPS_DOWN, TERMS = VECTORS * VECTOR, STAGES = STAGES_;
    static constexpr int ROWS = 16 * M * WARPS_DOWN, COLUMNS = 8 * N * WARPS_ACROSS;
    static constexpr int PADDING = 8, PITCH = COLUMNS + 8, PARTS = 1;  // eight rows by four terms meet all banks

    // COUNT numbers as tensor cores take them; for 3xTF32 with what rounding left, again rounded.
    template <int COUNT> struct Fragment {
        unsigned high[COUNT], low[COUNT];
        __device__ void set(int i, float x) {
            high[i] = to_tf32(x);
            if (PRECISION == TF32X3) low[i] = to_tf32(x - __uint_as_float(high[i]));
        }
    };

    template <class A, class B> struct OfThread {
        const int row, column, top, left;  // of the lane in a fragment; of the warp in the tile
        float held[M][N][4] = {};

        __device__ explicit OfThread(int thread)
            : row(thread % WARP / 4), column(thread % 4), top(thread / WARP / WARPS_ACROSS * 16 * M),
              left(thread / WARP % WARPS_ACROSS * 8 * N) {}

        __device__ void add(const real* as, const real* bs) {
            as += A::at(top + row, column), bs += B::at(left + row, column);
#pragma unroll
            for (int j = 0; j < TERMS / 8; ++j) {
                const int k = 8 * j;
                Fragment<4> a[M];
                Fragment<2> b[N];
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        a[m].set(i, as[A::at(m * 16 + i % 2 * 8, k + i / 2 * 4)]);
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i) b[n].set(i, bs[B::at(n * 8, k + i * 4)]);
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

        __device__ void put_all(real* tile) const {
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        real* place = tile + (top + m * 16 + row + i * 8) * PITCH + left + n * 8 + column * 2;
                        *reinterpret_cast<Numbers<2>*>(place) = {held[m][n][2 * i], held[m][n][2 * i + 1]};
                    }
        }
    };
};
#endif

// An (m_count, n_count) product of k_count terms, in tiles one row after the other; each in ``splits`` parts, which
// have about as many panels of the terms.
struct Product { int m_count, n_count, k_count, splits; };

// Where the sums of a tile are: those of C from (m0, n0) on, in ``parts`` to be added up.
struct Sums { int m0, n0, rows, columns, pitch, parts; };

// The sums of one part of a tile, in shared memory. A function of its own, as its registers are then its own, and
// nothing is kept in them from tile to tile; it is given values, since a reference would have to be to local memory.
template <class S, class A, class B> __device__ __noinline__ Sums tile(A a, B b, Product product, int number) {
    using PanelA = Panel<S, S::ROWS, A>;
    using PanelB = Panel<S, S::COLUMNS, B>;
    static_assert(PanelA::BYTES + PanelB::BYTES <= PRODUCT_BYTES, "shared memory has room for the panels");
    static_assert(S::PARTS * S::ROWS * S::PITCH * sizeof(real) <= PRODUCT_BYTES, "and for the sums");
    constexpr int AHEAD = S::STAGES - 1;  // panels
    const int thread = threadIdx.y * WARP + threadIdx.x;
    ASSUME_GLOBAL(a.lines);
    ASSUME_GLOBAL(b.lines);
    unsigned char* const room = product_memory<unsigned char>();
    const int across = ceil_div(product.n_count, S::COLUMNS), panels = ceil_div(product.k_count, S::TERMS);
    const int split = number % product.splits, place = number / product.splits;
    const int m0 = place / across * S::ROWS, n0 = place % across * S::COLUMNS;
    const int begin = split * panels / product.splits * S::TERMS;
    const int end = least((split + 1) * panels / product.splits * S::TERMS, product.k_count);
    PanelA a_panel(a, room, thread, m0, product.m_count, begin, end);
    PanelB b_panel(b, room + PanelA::BYTES, thread, n0, product.n_count, begin, end);
    typename S::template OfThread<PanelA, PanelB> sums(thread);
    const auto copy = [&](int stage, int k) {
        if (k < end) a_panel.copy(stage, k), b_panel.copy(stage, k);
        commit();  // of nothing too, so that groups are counted as panels
    };
    __syncthreads();  // the sums before have been read
#pragma unroll
    for (int ahead = 0; ahead < AHEAD; ++ahead) copy(ahead, begin + ahead * S::TERMS);
    int stage = 0, parity = 0;
    for (int k0 = begin; k0 < end; k0 += S::TERMS) {
        wait<AHEAD - 1>();  // this thread's share of the panels is there
        const real *as = a_panel.ready(stage, parity), *bs = b_panel.ready(stage, parity);
        __syncthreads();  // all shares are; and all have taken their sums from the panels before
        copy(stage ? stage - 1 : AHEAD, k0 + AHEAD * S::TERMS);
        sums.add(as, bs);
        stage = stage == AHEAD ? 0 : stage + 1, parity = !parity;
    }
    __syncthreads();  // all panels have been read: the sums take their place
    sums.put_all(product_memory());
    __syncthreads();  // all sums are there
    return {m0, n0, S::ROWS, S::COLUMNS, S::PITCH, S::PARTS};
}

#endif
