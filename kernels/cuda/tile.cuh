// tile: one block's part of C = A B, through shared memory; every product of the epoch kernel is made of these.
#ifndef GPUBP_TILE_CUH
#define GPUBP_TILE_CUH
#include "functions.cuh"
#include "grid.cuh"

// COUNT numbers that lie beside each other, aligned for reads of 16 bytes. One is read as a vector if it is copied as a
// whole, ``const auto x = *place``; the members of a reference are read one at a time.
template <int COUNT> struct alignas(COUNT * sizeof(real) < 16 ? COUNT * sizeof(real) : 16) Numbers { real x[COUNT]; };

// THREADS threads in GROUPS, each ROWS_OF_THREADS above each other and with M × N sums a thread. Each group sums all of
// the tile, over its share of the terms.
template <int M, int N, int ROWS_OF_THREADS, int GROUPS_ = 1> struct Shape {
    static constexpr int GROUPS = GROUPS_;
    static constexpr int OF_A_GROUP = THREADS / GROUPS, COLUMNS_OF_THREADS = OF_A_GROUP / ROWS_OF_THREADS;
    static constexpr int ROWS = M * ROWS_OF_THREADS, COLUMNS = N * COLUMNS_OF_THREADS;
    // Panels have the numbers of a term beside each other, so that a thread's M or N are read as vectors, and so many
    // more: a multiple of 16 bytes, which leaves two pieces of a warp to a bank when lines are turned on their way.
    static constexpr bool AS_THEY_LIE = false;
    static constexpr int PADDING = 4;

    struct Sums {
        const int group, of_group, top, left;
        Numbers<N> held[M] = {};

        __device__ explicit Sums(unsigned thread)
            : group(thread / OF_A_GROUP), of_group(thread % OF_A_GROUP), top(of_group / COLUMNS_OF_THREADS * M),
              left(of_group % COLUMNS_OF_THREADS * N) {}

        // Adds the products of DEPTH terms, which lie in shared memory as the panels A and B have them.
        template <class A, class B> __device__ void add(const real* as, const real* bs) {
            as += A::at(top, group), bs += B::at(left, group);
#pragma unroll
            for (int k = 0; k < DEPTH; k += GROUPS) {
                const auto a_k = *reinterpret_cast<const Numbers<M>*>(as + A::at(0, k));
                const auto b_k = *reinterpret_cast<const Numbers<N>*>(bs + B::at(0, k));
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int n = 0; n < N; ++n) held[m].x[n] += a_k.x[m] * b_k.x[n];
            }
        }

        // Puts them into the group's tile.
        __device__ void put(real* tile) const {
            tile += group * ROWS * COLUMNS;
#pragma unroll
            for (int m = 0; m < M; ++m) *reinterpret_cast<Numbers<N>*>(tile + (top + m) * COLUMNS + left) = held[m];
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
    static constexpr int ROWS = 16 * M * WARPS_DOWN, COLUMNS = 8 * N * WARPS_ACROSS, GROUPS = 1;
    // Numbers are read one at a time, so panels may have them either way; 8 rows by 4 terms of a warp meet all banks.
    static constexpr bool AS_THEY_LIE = true;
    static constexpr int PADDING = 8;

    struct Sums {
        const int row, column, top, left;  // of the lane in a fragment; of the warp in the tile
        float held[M][N][4] = {};

        __device__ explicit Sums(unsigned thread)
            : row(thread % WARP / 4), column(thread % 4), top(thread / WARP / WARPS_ACROSS * 16 * M),
              left(thread / WARP % WARPS_ACROSS * 8 * N) {}

        template <class A, class B> __device__ void add(const real* as, const real* bs) {
            as += A::at(top + row, column), bs += B::at(left + row, column);
#pragma unroll
            for (int j = 0; j < DEPTH / 8; ++j) {
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

        __device__ void put(real* tile) const {
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        real* place = tile + (top + m * 16 + row + i * 8) * COLUMNS + left + n * 8 + column * 2;
                        *reinterpret_cast<Numbers<2>*>(place) = {held[m][n][2 * i], held[m][n][2 * i + 1]};
                    }
        }
    };
};
#endif

// One side of a product: numbers in lines of ``pitch``, one for each row with its terms beside each other (Rows), or one
// for each term (Columns); in the order given, if one is. Inputs may be bytes that stand for i/255. Beyond the end of a
// line, terms are 0 and rows are 1: what is asked of one more row than there are is the sum over the terms.
template <bool ALONG_TERMS_> struct Operand {
    static constexpr bool ALONG_TERMS = ALONG_TERMS_;
    const real* numbers;
    int pitch;
    const index_t* order = nullptr;
    const unsigned char* bytes = nullptr;  // in place of the numbers
};
using Rows = Operand<true>;
using Columns = Operand<false>;

// A panel of an operand, LENGTH rows (or columns) by DEPTH terms, and this thread's share on its way to shared memory:
// COUNT pieces of WIDE numbers of a line, at the same place of lines that are STEP apart.
//
// All pieces are asked for without a branch, and nothing waits for any before put(): numbers stay as they lie in memory,
// bytes too; places outside are moved inside, and mended in put(); and the lines are looked up in the order one panel
// before they are read, or where they are rows, which all panels of a tile have in common, once.
template <class S, int LENGTH, class Operand> struct Panel {
    static constexpr bool ALONG_TERMS = Operand::ALONG_TERMS, AS_IT_LIES = S::AS_THEY_LIE || !ALONG_TERMS;
    static constexpr int PLACES = ALONG_TERMS ? DEPTH : LENGTH, LINES = ALONG_TERMS ? LENGTH : DEPTH;
    static constexpr int SIXTEEN_BYTES = 16 / sizeof(real), WIDE = PLACES < SIXTEEN_BYTES ? PLACES : SIXTEEN_BYTES;
    static constexpr int PIECES = PLACES / WIDE, STEP = THREADS / PIECES, COUNT = LINES < STEP ? 1 : LINES / STEP;
    static constexpr bool FOR_ALL = LINES >= STEP;  // every thread has a piece
    static_assert(THREADS % PIECES == 0 && (LINES < STEP || LINES % STEP == 0), "no piece is left over");

    // In shared memory: from a line to the next if it is as it lies, else from a place; and all of it.
    static constexpr int PITCH = ALONG_TERMS && AS_IT_LIES ? DEPTH + 4 : LENGTH + S::PADDING;
    static constexpr int SIZE = PITCH * (ALONG_TERMS && AS_IT_LIES ? LENGTH : DEPTH);
    static constexpr __device__ int at(int row, int term) {
        return ALONG_TERMS && AS_IT_LIES ? row * PITCH + term : term * PITCH + row;
    }

    union Piece {
        Numbers<WIDE> numbers;
        unsigned bytes[WIDE];  // all in the first, or where lines are not aligned, one in each
    };
    const void* const source;
    const index_t* const order;
    const int pitch, first, lines;       // places of a line; the panel's first row; how many lines there are
    const int line, place;               // of this thread's first piece, in the panel
    const bool as_bytes, mine, aligned;  // whether this thread has a piece; whether one can be read at once
    unsigned found[COUNT];               // the pieces' lines in memory
    Piece held[COUNT];

    __device__ Panel(const Operand& operand, unsigned thread, int first, int rows, int terms)
        : source(operand.bytes ? (const void*)operand.bytes : operand.numbers), order(operand.order), pitch(operand.pitch),
          first(first), lines(ALONG_TERMS ? rows : terms), line(thread / PIECES), place(thread % PIECES * WIDE),
          as_bytes(operand.bytes), mine(FOR_ALL || line < LINES),
          aligned((reinterpret_cast<size_t>(source) / (as_bytes ? 1 : sizeof(real)) | pitch) % WIDE == 0) {
        find(ALONG_TERMS ? first : 0);
    }

    __device__ void find(int begin) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const int wanted = begin + line + i * STEP, last = lines - 1;
            found[i] = wanted < last ? wanted : last;
        }
        if (!order) return;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) found[i] = order[found[i]];
    }

    // Asks for the numbers of the terms from ``begin`` on.
    __device__ void fetch(int begin) {
        if (!mine) return;
        const int at = (ALONG_TERMS ? begin : first) + place;
        if (as_bytes)
            ask(static_cast<const unsigned char*>(source), at);
        else
            ask(static_cast<const real*>(source), at);
        if (!ALONG_TERMS) find(begin + DEPTH);
    }

    template <class T> __device__ void ask(const T* from, int at) {
        if (aligned) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i)
                take(held[i], from + (begin_of(i) + unsigned(at + WIDE <= pitch ? at : 0)));
        } else {
#pragma unroll
            for (int n = 0; n < WIDE; ++n)
#pragma unroll
                for (int i = 0; i < COUNT; ++i)
                    take(held[i], n, from[begin_of(i) + unsigned(at + n < pitch ? at + n : 0)]);
        }
    }
    __device__ size_t begin_of(int i) const { return size_t(found[i]) * unsigned(pitch); }
    static __device__ void take(Piece& piece, const real* at) { piece.numbers = *reinterpret_cast<const Numbers<WIDE>*>(at); }
    static __device__ void take(Piece& piece, const unsigned char* at) {
        if (WIDE == 4)
            piece.bytes[0] = *reinterpret_cast<const unsigned*>(at);
        else
            piece.bytes[0] = *reinterpret_cast<const unsigned short*>(at);
    }
    static __device__ void take(Piece& piece, int n, real number) { piece.numbers.x[n] = number; }
    static __device__ void take(Piece& piece, int n, unsigned char byte) { piece.bytes[n] = byte; }

    // What was asked for, from ``begin`` on, into shared memory.
    __device__ void put(real* shared, int begin) {
        if (!mine) return;
        if (as_bytes) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i) {
                const Piece piece = held[i];
#pragma unroll
                for (int n = 0; n < WIDE; ++n)
                    held[i].numbers.x[n] = of_byte((aligned ? piece.bytes[0] >> 8 * n : piece.bytes[n]) & 255);
            }
        }
        mend(begin);
        shared += ALONG_TERMS ? at(line, place) : at(place, line);
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            if constexpr (AS_IT_LIES) {
                *reinterpret_cast<Numbers<WIDE>*>(shared + i * STEP * PITCH) = held[i].numbers;
            } else {
#pragma unroll
                for (int n = 0; n < WIDE; ++n) shared[i * STEP + n * PITCH] = held[i].numbers.x[n];
            }
    }

    // Sets what is outside, of which there is something only at an end of the lines or terms.
    __device__ void mend(int begin) {
        const int inside = pitch - ((ALONG_TERMS ? begin : first) + place), terms = lines - begin - line;
        if (inside >= WIDE && (ALONG_TERMS || terms > (COUNT - 1) * STEP)) return;
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
#pragma unroll
            for (int n = 0; n < WIDE; ++n) {
                if (n >= inside) held[i].numbers.x[n] = ALONG_TERMS ? 0 : 1;
                if (!ALONG_TERMS && i * STEP >= terms) held[i].numbers.x[n] = 0;
            }
    }
};

// Numbers of shared memory that a tile takes: for its panels, and then for its sums.
template <class S, class A, class B>
constexpr int panels_of = Panel<S, S::ROWS, A>::SIZE + Panel<S, S::COLUMNS, B>::SIZE;
template <class S> constexpr int sums_of = S::GROUPS * S::ROWS * S::COLUMNS;

// out(m, n, Σ_k a(m, k) b(n, k)) for the elements of the tile that begins at (m0, n0), in an order of the terms that
// depends on nothing but the shape. The next panels are on their way while sums are taken. These go through shared memory
// so that neighbours among the threads write neighbours of a row, and ``out`` is compiled once. A function of its own,
// as its registers are then its own, and nothing is kept in them from tile to tile.
template <class S, class A, class B, class Out>
__device__ __noinline__ void tile(const A& a, const B& b, const Out& out, int m0, int n0, int m_count, int n_count,
                                  int k_count, real* shared) {
    ASSUME_SHARED(shared);
    using PanelA = Panel<S, S::ROWS, A>;
    using PanelB = Panel<S, S::COLUMNS, B>;
    real *as = shared, *bs = shared + PanelA::SIZE;
    const unsigned thread = threadIdx.y * WARP + threadIdx.x;
    PanelA a_panel(a, thread, m0, m_count, k_count);
    PanelB b_panel(b, thread, n0, n_count, k_count);
    typename S::Sums sums(thread);
    a_panel.fetch(0);
    b_panel.fetch(0);
    for (int k0 = 0; k0 < k_count; k0 += DEPTH) {
        __syncthreads();  // all have taken their sums from the panels before
        a_panel.put(as, k0);
        b_panel.put(bs, k0);
        __syncthreads();  // all panels are there
        if (k0 + DEPTH < k_count) {
            a_panel.fetch(k0 + DEPTH);
            b_panel.fetch(k0 + DEPTH);
        }
        sums.template add<PanelA, PanelB>(as, bs);
    }
    __syncthreads();  // all panels have been read: the sums take their place
    sums.put(shared);
    __syncthreads();  // all sums are there
    for (unsigned e = thread; e < S::ROWS * S::COLUMNS; e += THREADS) {
        const int row = m0 + e / S::COLUMNS, column = n0 + e % S::COLUMNS;
        real sum = shared[e];
        for (int g = 1; g < S::GROUPS; ++g) sum += shared[g * S::ROWS * S::COLUMNS + e];
        if (row < m_count && column < n_count) out(row, column, sum);
    }
}

#endif
