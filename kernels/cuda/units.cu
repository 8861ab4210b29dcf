// units: any number of training steps of a network with one hidden layer in one launch.
//
// A cluster of CLUSTER blocks owns UNITS hidden units, and each of its blocks a slice of the inputs. Of W₁ (units by
// inputs) a block so has one rectangle, in its shared memory from the first step to the last, with what the optimizer
// remembers of it; b₁, W₂'s columns of the units and b₂ are in every block of the cluster, all of which change them
// alike. What lies in a block's shared memory, for CLUSTER = 4, and what a step does with it:
//
//                       its inputs           1. z₁ of all rows over its inputs: each row's sums go to the block that
//                 x  ┌───┬▓▓▓┬───┬───┐          finishes the row
//      rows of       │   │▓▓▓│   │   │       2. a₁ of its rows (a quarter of the batch), and their part of z₂ over the
//      the batch     │   │▓▓▓│   │   │          cluster's units, left in memory; it waits for the same rows' parts of
//                    └───┴▓▓▓┴───┴───┘          the other clusters
//                W₁  ┌───┬▓▓▓┬───┬───┐       3. z₂, a₂, cost and δ₂ of its rows; δ₁ of its rows, for all blocks
//      its units     └───┴▓▓▓┴───┴───┘       4. the gradient of its rectangle over all rows, and the update
//
// So a step has two barriers of the cluster, behind 1 and 3, and in 2 a wait for blocks of the same rank, not for the
// grid; with one cluster, for none. While a block waits, it makes the next batch ready: its slice's numbers are
// converted once a step, and used twice. Every sum has a fixed order. UNITS and CLUSTER are -D options, so that no more
// is compiled than is launched; with CLUSTER = 1 blocks know of no clusters, and any GPU has these.
//
// With -DDROPOUT, a₁ is dropped (random.cuh): a block draws the next step's mask while it waits in 2, keeps of a₁ only what
// is left of it, and m σ'(z₁) for the way back. Inputs are not dropped here: every cluster would have to draw all of them.
#include "async.cuh"
#include "cluster.cuh"
#include "grid.cuh"
#include "launch.cuh"
#include "output.cuh"
#include "profile.cuh"
#include "random.cuh"
#include "rules.cuh"
#include "vectors.cuh"

// ``parts`` (2, CLUSTER, share, n_out, clusters and up to three more) takes turns, as a block may be one step ahead of
// another that still reads. Below: sizes, and where in shared memory, in bytes, a block has what; units.py lays it out.
struct Launch : Run {
    index_t weights1, weights2;  // their places in the memory
    Global<real> parts;
    int n_in, n_hidden, n_out, activation, output_activation;
    int slice;    // inputs of a block, a multiple of 16: the last may have fewer, or none, and then weights that are 0
    int share_log2;  // of the rows of a batch that a block finishes: dividing by them is a shift
    int input_parts_log2;  // of the parts into which warps share out a block's inputs, if it has few rows
    int x_pitch;  // of a row's inputs, in numbers or bytes; beyond the slice they are 0
    int buffers;  // batches of inputs that are held: 1 or 2
    int as_bytes;  // whether inputs are held as bytes, and converted as they are used
    int own;      // W₁ (UNITS, slice), b₁ (UNITS), W₂ (n_out, UNITS), b₂ (n_out), and as many for each slot,
    int copy;     // from one to the next
    int x;        // (buffers, B, x_pitch)
    int raw;      // bytes (B, x_pitch) that are to be converted
    int z1;       // the blocks' and their warps' sums (parts of the inputs, CLUSTER, share, UNITS)
    int a1;       // (share, UNITS)
    int delta1;   // (B, UNITS), from all blocks
    int delta2, y;            // (share + 1, n_out): the last row is for lanes that have none
    int z2, a2;               // likewise, if there are more outputs than lanes
    int row_weight, row_costs, row_hits;  // (share + 1)
    int gradient2;            // the blocks' sums for W₂ and b₂ (CLUSTER, n_out, UNITS + 1)
    int scores;               // the blocks' costs and hits (CLUSTER, 2), in the cluster's first block
    int step_coefficients;    // of the step (2, COEFFICIENTS)
    int orders;               // samples of four steps (4, B)
    int more_room;            // for a multiple of eight bytes
#if DROPOUT
    unsigned long long key;
    index_t step;                 // updates made before
    Global<const real> factors;   // that what is kept of each layer's inputs is multiplied by
    int dropped1;                 // of 65,536 random numbers, how many drop one of a₁
    int mask1, pull1;             // m, of the step that comes, and m σ'(z₁) (share, UNITS)
    int last_room;                // for a multiple of eight bytes
#endif

    __device__ int share() const { return 1 << share_log2; }
};
static_assert(sizeof(Launch) == UNITS_LAUNCH, "the launch is as it is packed");
extern "C" { CONSTANT Launch launch; }

constexpr int ROWS_AT_ONCE = THREADS / OUTPUT_LANES;  // of the output: OUTPUT_LANES lanes a row

template <class T> __device__ inline T* at(int place) {
    SHARED_MEMORY(shared);
    return reinterpret_cast<T*>(shared + place);
}
__device__ inline int thread() { return threadIdx.y * WARP + threadIdx.x; }
__device__ inline int rank() { return blockIdx.x % CLUSTER; }
__device__ inline int cluster() { return blockIdx.x / CLUSTER; }
__device__ inline int clusters() { return gridDim.x / CLUSTER; }
__device__ inline int first_unit() { return cluster() * UNITS; }
__device__ inline int units_here() { return min(launch.n_hidden - first_unit(), UNITS); }
__device__ inline int first_input() { return rank() * launch.slice; }
__device__ inline int inputs_here() { return max(min(launch.n_in - first_input(), launch.slice), 0); }
__device__ inline int rows_of(int step) { return min(launch.samples - index_t(step) * launch.batch, index_t(launch.batch)); }
__device__ inline int rows_here(int rows) { return max(min(rows - rank() * launch.share(), launch.share()), 0); }

__device__ inline int parts_pitch() { return (clusters() + 3) / 4 * 4; }  // what is beyond the clusters stays 0

// What a block owns.
__device__ inline real* weights1() { return at<real>(launch.own); }
__device__ inline real* bias1() { return weights1() + UNITS * launch.slice; }
__device__ inline real* weights2() { return bias1() + UNITS; }
__device__ inline real* bias2() { return weights2() + UNITS * launch.n_out; }

// body(place among what the block owns, place of the parameter in memory) for its W₁; and for what all blocks of a
// cluster have, and b₂ all blocks.
template <class Body> __device__ inline void each_weight1(const Body& body) {
#pragma unroll 1
    for (int u = threadIdx.y; u < units_here(); u += ROW_BLOCK)
#pragma unroll 1
        for (int i = threadIdx.x; i < inputs_here(); i += WARP)
            body(weights1() + u * launch.slice + i,
                 launch.weights1 + index_t(first_unit() + u) * launch.n_in + first_input() + i);
}
template <class Body> __device__ inline void each_other(const Body& body) {
    const index_t bias1_place = launch.weights1 + index_t(launch.n_hidden) * launch.n_in + first_unit();
    const index_t bias2_place = launch.weights2 + index_t(launch.n_out) * launch.n_hidden;
#pragma unroll 1
    for (int u = thread(); u < units_here(); u += THREADS) body(bias1() + u, bias1_place + u);
#pragma unroll 1
    for (int e = thread(); e < UNITS * launch.n_out; e += THREADS)
        if (e % UNITS < units_here())
            body(weights2() + e, launch.weights2 + index_t(e / UNITS) * launch.n_hidden + first_unit() + e % UNITS);
#pragma unroll 1
    for (int o = thread(); o < launch.n_out; o += THREADS) body(bias2() + o, bias2_place + o);
}

__device__ __noinline__ void load() {
    real* own = at<real>(launch.own);
    const int numbers = launch.copy * (1 + launch.slots), words = (launch.own - launch.x) / 4;
#pragma unroll 1
    for (int e = thread(); e < numbers; e += THREADS) own[e] = 0;  // units and inputs that are not there
#pragma unroll 1
    for (int e = thread(); e < words; e += THREADS) at<unsigned>(launch.x)[e] = 0;
    __syncthreads();  // all is 0
    for (int slot = 0; slot <= launch.slots; ++slot) {
        const auto get = [&](real* own, index_t place) {
            own[slot * launch.copy] = launch.memory[slot * launch.parameters + place];
        };
        each_weight1(get);
        each_other(get);
    }
}

// The parameters go back to memory; those that several blocks have, from the first of them.
__device__ __noinline__ void store() {
    for (int slot = 0; slot < 1 + launch.slots; ++slot) {
        const auto set = [&](const real* own, index_t place) {
            launch.memory[slot * launch.parameters + place] = own[slot * launch.copy];
        };
        each_weight1(set);
        if (rank() == 0)
            each_other([&](const real* own, index_t place) {
                if (cluster() == 0 || own < bias2()) set(own, place);
            });
    }
}

// Inputs on their way ------------------------------------------------------------------------------------------

// n / d of so few that the nearest reciprocal is near enough.
__device__ inline int few_over(int n, float of_d) { return (n + 0.5f) * of_d; }

// body(row, first input) for this thread's pieces of PIECE bytes of the slice of these rows; the next ones are so many rows
// and pieces on.
template <int PIECE, class T, class Body> __device__ inline void each_piece(int rows, const Body& body) {
    constexpr int WIDE = PIECE / sizeof(T);
    const int pieces = inputs_here() / WIDE;
    if (pieces == 0) return;
    const float of_pieces = __fdividef(1, pieces);
    const int more_rows = few_over(THREADS, of_pieces), more_pieces = THREADS - more_rows * pieces;
    int row = few_over(thread(), of_pieces), piece = thread() - row * pieces;
#pragma unroll 1
    while (row < rows) {
        body(row, piece * WIDE);
        row += more_rows, piece += more_pieces;
        if (piece >= pieces) ++row, piece -= pieces;
    }
}

// The bytes of the widest pieces that every row of inputs of type T has aligned.
template <class T> __device__ inline int widest_piece() {
    const int line = launch.n_in * sizeof(T);
    return line % 16 == 0 ? 16 : line % 4 == 0 && sizeof(T) < 4 ? 4 : sizeof(T);
}

__device__ inline unsigned char* raw() { return at<unsigned char>(launch.raw); }
template <class Held> __device__ inline Held* held(int step) {
    return at<Held>(launch.x) + (step & (launch.buffers - 1)) * launch.batch * launch.x_pitch;
}

// The batch's samples, of a step that is three at most behind the last that was asked for.
__device__ inline index_t* order_of(int step) { return at<index_t>(launch.orders) + step % 4 * launch.batch; }
__device__ __noinline__ void fetch_order(int step) {
    if (step < launch.steps)
#pragma unroll 1
        for (int b = thread(); b < rows_of(step); b += THREADS)
            copy_async<8>(order_of(step) + b, launch.order + index_t(step) * launch.batch + b, 8);
}

// Asks for the slice of a step's inputs, as bytes to be converted or as they are held.
template <int PIECE, class T, class Held> __device__ inline void ask_for(int step) {
    const T* inputs;
    if constexpr (sizeof(T) == 1)
        inputs = launch.bytes;
    else
        inputs = launch.numbers;
    const index_t* order = order_of(step);
    T* const to = sizeof(T) == sizeof(Held) ? reinterpret_cast<T*>(held<Held>(step)) : reinterpret_cast<T*>(raw());
    each_piece<PIECE, T>(rows_of(step), [&](int row, int i) {
        const T* from = inputs + order[row] * launch.n_in + first_input() + i;
        if constexpr (PIECE < 4)
            to[row * launch.x_pitch + i] = *from;
        else
            copy_async<PIECE>(to + row * launch.x_pitch + i, from, PIECE);
    });
}

// This thread's pieces of the bytes that it asked for become numbers.
template <int PIECE, class Held> __device__ inline void convert(int step) {
    Held* const to = held<Held>(step);
    each_piece<PIECE, unsigned char>(rows_of(step), [&](int row, int i) {
        if constexpr (PIECE < 4) {
            to[row * launch.x_pitch + i] = of_byte(raw()[row * launch.x_pitch + i]);
        } else {
            const auto words = read<PIECE / 4>(reinterpret_cast<const unsigned*>(raw() + row * launch.x_pitch + i));
#pragma unroll
            for (int n = 0; n < PIECE / 4; ++n) write(to + row * launch.x_pitch + i + 4 * n, of_bytes(words.x[n]));
        }
    });
}

// Begins to fetch a step's inputs; there may be no such step.
template <class T, class Held> __device__ __noinline__ void fetch(int step) {
    if (step >= launch.steps) return;
    switch (widest_piece<T>()) {
        case 16: ask_for<16, T, Held>(step); break;
        case 4: ask_for<sizeof(T) < 4 ? 4 : sizeof(T), T, Held>(step); break;
        default: ask_for<sizeof(T), T, Held>(step);
    }
}

// Bytes that this thread fetched, and has waited for, become numbers, where they are to be held as such.
template <class T, class Held> __device__ __noinline__ void settle(int step) {
    if constexpr (sizeof(T) != sizeof(Held)) {
        if (step >= launch.steps) return;
        switch (widest_piece<T>()) {
            case 16: convert<16, Held>(step); break;
            case 4: convert<4, Held>(step); break;
            default: convert<1, Held>(step);
        }
    }
}

__device__ inline Vector<real, 4> four(const real* x) { return read<4>(x); }
__device__ inline Vector<real, 4> four(const unsigned char* x) {
    return of_bytes(*reinterpret_cast<const unsigned*>(x));
}

// The step -----------------------------------------------------------------------------------------------------

// z₁ over this block's inputs, of all rows. A thread has M rows × UNITS units and every fourth four of its warp's inputs:
// eight rows × four fours meet all banks, and the weights are the same for all rows. Four neighbours add up what they
// have, and each sends a quarter of it to the blocks that finish these rows.
template <class Held> __device__ __noinline__ void forward(int step, int rows) {
    constexpr int M = 32 / UNITS, KEPT = 8;
    const int parts = 1 << launch.input_parts_log2, part = threadIdx.y & (parts - 1);
    const int block = threadIdx.y >> launch.input_parts_log2;
    const int q = threadIdx.x % 4, row0 = block * (WARP / 4) + threadIdx.x / 4;
    const int between = ROW_BLOCK * (WARP / 4) >> launch.input_parts_log2;
    const int first = 16 * part + 4 * q, end = inputs_here();
    const real* w = weights1();
#pragma unroll 1
    for (int top = 0; top < rows; top += M * between) {
        const Held* x[M];
        real sums[M * UNITS] = {};
#pragma unroll
        for (int m = 0; m < M; ++m) x[m] = held<Held>(step) + min(top + m * between + row0, rows - 1) * launch.x_pitch;
#pragma unroll 1
        for (int i = first; i < end; i += 16 * parts) {
            Vector<real, 4> xs[M];
#pragma unroll
            for (int m = 0; m < M; ++m) xs[m] = four(x[m] + i);
#pragma unroll
            for (int u = 0; u < UNITS; ++u) {
                const auto ws = read<4>(w + u * launch.slice + i);
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int k = 0; k < 4; ++k) sums[m * UNITS + u] += xs[m].x[k] * ws.x[k];
            }
        }
        const auto kept = shared_out<1, 2>(sums);
#pragma unroll
        for (int n = 0; n < KEPT; n += 4) {
            const int row = top + (KEPT * q + n) / UNITS * between + row0, u = (KEPT * q + n) % UNITS;
            if (row >= rows) continue;
            const int place = (part * CLUSTER + rank()) * launch.share() + (row & (launch.share() - 1));
            put(reinterpret_cast<Vector<real, 4>*>(at<real>(launch.z1) + place * UNITS + u), row >> launch.share_log2,
                Vector<real, 4>{kept.x[n], kept.x[n + 1], kept.x[n + 2], kept.x[n + 3]});
        }
    }
}

#if DROPOUT
// The mask of a₁ for this block's rows of a step; there may be no such step.
__device__ __noinline__ void draw(int step) {
    if (step >= launch.steps) return;
    const Mask mask{launch.key, 1, unsigned(launch.step + step), unsigned(launch.dropped1), launch.factors[1]};
    const index_t* order = order_of(step) + rank() * launch.share();
    const int numbers = rows_here(rows_of(step)) * UNITS;
#pragma unroll 1
    for (int e = thread(); e < numbers; e += THREADS)
        at<real>(launch.mask1)[e] = mask.at(order[e / UNITS], first_unit() + e % UNITS);
}
#endif

// a₁ of this block's rows, or what dropout leaves of it.
__device__ __noinline__ void activate(int mine) {
    const real* z1 = at<real>(launch.z1);
    real* a1 = at<real>(launch.a1);
    const int parts = 1 << launch.input_parts_log2;
#pragma unroll 1
    for (int e = thread(); e < mine * UNITS; e += THREADS) {
        real z = bias1()[e % UNITS];
#pragma unroll 1
        for (int part = 0; part < parts; ++part)
#pragma unroll
            for (int r = 0; r < CLUSTER; ++r) z += z1[(part * CLUSTER + r) * launch.share() * UNITS + e];
        a1[e] = e % UNITS < units_here() ? apply(launch.activation, z) : real(0);
#if DROPOUT
        const real m = at<real>(launch.mask1)[e];
        at<real>(launch.pull1)[e] = m * slope(launch.activation, a1[e]);
        a1[e] *= m;
#endif
    }
    __syncthreads();  // a₁ is there
}

// body(row, output) for this block's rows, OUTPUT_LANES a row; each output is one thread's, here and in output().
template <class Body> __device__ inline void each_output(int mine, const Body& body) {
#pragma unroll 1
    for (int row = thread() / OUTPUT_LANES; row < mine; row += ROWS_AT_ONCE)
#pragma unroll 1
        for (int o = thread() % OUTPUT_LANES; o < launch.n_out; o += OUTPUT_LANES) body(row, o);
}

// These rows' part of z₂, over this cluster's units, into memory.
__device__ __noinline__ void put_part(real* parts, int mine) {
    each_output(mine, [&](int row, int o) {
        const auto a = read<UNITS>(at<real>(launch.a1) + row * UNITS), w = read<UNITS>(weights2() + o * UNITS);
        real sum = 0;
#pragma unroll
        for (int u = 0; u < UNITS; ++u) sum += a.x[u] * w.x[u];
        parts[(row * launch.n_out + o) * parts_pitch() + cluster()] = sum;
    });
}

// Asks for what output() and the updates of this step are to read: its rows' targets and weights, and the coefficients.
__device__ __noinline__ void get_ready(int step, int mine) {
    const index_t* order = order_of(step) + rank() * launch.share();
    each_output(mine, [&](int row, int o) {
        copy_async<sizeof(real)>(at<real>(launch.y) + row * launch.n_out + o,
                                 launch.targets + order[row] * launch.n_out + o, sizeof(real));
    });
#pragma unroll 1
    for (int row = thread(); row < mine; row += THREADS)
        copy_async<sizeof(real)>(at<real>(launch.row_weight) + row, launch.sample_weight + order[row], sizeof(real));
    const real* coefficients = launch.coefficients + index_t(step) * 2 * COEFFICIENTS;
#pragma unroll 1
    for (int k = thread(); k < 2 * COEFFICIENTS; k += THREADS)
        copy_async<sizeof(real)>(at<real>(launch.step_coefficients) + k, coefficients + k, sizeof(real));
}

// a₂, δ₂, cost and hit of one row, by OUTPUT_LANES lanes.
template <class Row, class Y, class Count>
__device__ inline void output_of_row(const Row& z, const Y& y, const Row& a, const Row& delta, Count n_out, int row, int rows) {
    const real weight = at<real>(launch.row_weight)[row];
    const real cost = row_output<OUTPUT_LANES>(z, a, y, weight / rows, launch.output_activation, launch.loss, delta, n_out);
    const bool hit = is_hit<OUTPUT_LANES>(a, y, n_out);  // in lane 0, which itself wrote the only one of one output
    if (thread() % OUTPUT_LANES > 0 || row == launch.share()) return;
    at<real>(launch.row_costs)[row] = weight * cost;
    at<real>(launch.row_hits)[row] = hit;
}

// z₂ of all clusters' parts, and what comes of it; where a row has no more outputs than lanes, in registers.
__device__ __noinline__ void output(const real* parts, int mine, int rows) {
    const int lane = thread() % OUTPUT_LANES;
#pragma unroll 1
    for (int top = 0; top < mine; top += ROWS_AT_ONCE) {
        const bool is_row = top + thread() / OUTPUT_LANES < mine;  // the others' shuffles count all the same
        const int row = is_row ? top + thread() / OUTPUT_LANES : launch.share(), place = row * launch.n_out;
        const auto z2 = [&](int o) {
            real sum = bias2()[o];
            const real* of = parts + (place + o) * parts_pitch();
#pragma unroll 1
            for (int c = 0; c < clusters(); c += 16) {  // which are asked for together
                Vector<real, 4> found[4] = {};
#pragma unroll
                for (int k = 0; k < 4; ++k)
                    if (c + 4 * k < clusters()) found[k] = read<4>(of + c + 4 * k);
#pragma unroll
                for (int k = 0; k < 16; ++k) sum += found[k / 4].x[k % 4];
            }
            return sum;
        };
        const real* y = at<real>(launch.y) + place;
        real* delta = at<real>(launch.delta2) + place;
        if (launch.n_out > OUTPUT_LANES) {
            real *z = at<real>(launch.z2) + place, *a = at<real>(launch.a2) + place;
            if (is_row) each<OUTPUT_LANES>(launch.n_out, [&](int o) { z[o] = z2(o); });
            output_of_row(z, y, a, delta, is_row ? launch.n_out : 0, row, rows);
        } else {
            const bool is_output = is_row && lane < launch.n_out;
            real z_of_lane = 0, y_of_lane = 0, a_of_lane = 0, delta_of_lane = 0;
            if (is_output) z_of_lane = z2(lane), y_of_lane = y[lane];
            const InLanes z{z_of_lane}, ys{y_of_lane}, a{a_of_lane}, deltas{delta_of_lane};
            output_of_row(z, ys, a, deltas, OneEach{launch.n_out}, row, rows);
            if (is_output) delta[lane] = delta_of_lane;
        }
    }
    __syncthreads();  // δ₂ is there
}

// δ₁ = (δ₂ W₂) ⊙ σ'(z₁) of this block's rows, by one half of its warps; by the other, over these rows, Σ δ₂[b, o] a₁[b, u]
// and Σ δ₂[b, o], and by its last warp their cost and hits. All of it goes to all blocks of the cluster, or to the first.
__device__ __noinline__ void back(int mine) {
    constexpr int HALF = THREADS / 2;
    const real *a1 = at<real>(launch.a1), *delta2 = at<real>(launch.delta2);
    const int n_out = launch.n_out, numbers = n_out * (UNITS + 1);
    if (thread() < HALF) {
#pragma unroll 1
        for (int e = thread(); e < mine * UNITS; e += HALF) {
            const real *delta = delta2 + e / UNITS * n_out, *w = weights2() + e % UNITS;
            real sum = 0;
#pragma unroll 4
            for (int o = 0; o < n_out; ++o) sum += delta[o] * w[o * UNITS];
#if DROPOUT
            sum *= at<real>(launch.pull1)[e];
#else
            sum *= slope(launch.activation, a1[e]);
#endif
#pragma unroll
            for (int r = 0; r < CLUSTER; ++r) put(at<real>(launch.delta1) + rank() * launch.share() * UNITS + e, r, sum);
        }
    } else if (thread() < THREADS - WARP) {
#pragma unroll 1
        for (int e = thread() - HALF; e < numbers; e += HALF - WARP) {
            const int o = e / (UNITS + 1), u = e % (UNITS + 1);
            const real *of_unit = a1 + u, *delta = delta2 + o;
            real sum = 0;
#pragma unroll 4
            for (int b = 0; b < mine; ++b) sum += delta[b * n_out] * (u < UNITS ? of_unit[b * UNITS] : real(1));
#pragma unroll
            for (int r = 0; r < CLUSTER; ++r) put(at<real>(launch.gradient2) + rank() * numbers + e, r, sum);
        }
    } else if (cluster() == 0) {
        Vector<double, 2> sums{0, 0};
#pragma unroll 1
        for (int b = threadIdx.x; b < mine; b += WARP)
            sums.x[0] += at<real>(launch.row_costs)[b], sums.x[1] += at<real>(launch.row_hits)[b];
        sums.x[0] = lanes_sum(sums.x[0]), sums.x[1] = lanes_sum(sums.x[1]);
        if (threadIdx.x == 0) put(at<Vector<double, 2>>(launch.scores) + rank(), 0, sums);
    }
}

// Numbers beside each other of what this block owns, by their gradient; or the gradient into memory, where place() is
// theirs, if it is what is asked for and so many of them are ``there``.
template <int COUNT, class Place>
__device__ inline void update(real* own, int there, const Vector<real, COUNT>& gradient, const real* c, const Place& place) {
    if (launch.mode == GRADIENTS) {
        real* const to = launch.memory + launch.gradient + place();
        for (int n = 0; n < COUNT; ++n)
            if (n < there) to[n] = gradient.x[n];
        return;
    }
    auto parameter = read<COUNT>(own);
    if (launch.slots > 0) {
        auto slot1 = read<COUNT>(own + launch.copy), slot2 = slot1;  // at a rule with one slot, nothing looks at two
        if (launch.slots > 1) slot2 = read<COUNT>(own + 2 * launch.copy);
        for (int n = 0; n < COUNT; ++n)
            step(launch.rule, launch.slots, parameter.x[n], gradient.x[n], slot1.x[n], slot2.x[n], c);
        write(own + launch.copy, slot1);
        if (launch.slots > 1) write(own + 2 * launch.copy, slot2);
    } else {
        const auto& sgd = *reinterpret_cast<const SGDCoefficients*>(c);
        for (int n = 0; n < COUNT; ++n) step_sgd(parameter.x[n], gradient.x[n], sgd);
    }
    write(own, parameter);
}

// δ₁ᵀ x over all rows, and W₁'s update. A thread takes UNITS units × four inputs, and every row; or if there are too few
// inputs for that, every eighth row: then a warp takes 16 inputs, and eight lanes add up what they have and update an
// eighth of it each. These lanes' rows meet all banks, and all lanes of other four inputs read the same δ₁.
template <int GROUPS, class Held> __device__ inline void gradient_by_groups(int step, int rows) {
    constexpr int FOURS = WARP / GROUPS, KEPT = UNITS * 4 / GROUPS, AT_ONCE = KEPT < 4 ? KEPT : 4;
    const int group = threadIdx.x / FOURS;
    const Held* x = held<Held>(step);
    const real* delta1 = at<real>(launch.delta1);
#pragma unroll 1
    for (int first = threadIdx.y * FOURS * 4; first < inputs_here(); first += ROW_BLOCK * FOURS * 4) {
        const int i = first + threadIdx.x % FOURS * 4;
        if (GROUPS == 1 && i >= inputs_here()) continue;  // no lane waits for another
        real sums[UNITS * 4] = {};
#pragma unroll 2
        for (int b = group; b < rows; b += GROUPS) {
            const auto xs = four(x + b * launch.x_pitch + i);
            const auto deltas = read<UNITS>(delta1 + b * UNITS);
#pragma unroll
            for (int u = 0; u < UNITS; ++u)
#pragma unroll
                for (int k = 0; k < 4; ++k) sums[u * 4 + k] += deltas.x[u] * xs.x[k];
        }
        Vector<real, KEPT> kept;
        if constexpr (GROUPS == 1)
            for (int n = 0; n < KEPT; ++n) kept.x[n] = sums[n];
        else
            kept = shared_out<FOURS, WARP / 2>(sums);
#pragma unroll
        for (int n = 0; n < KEPT; n += AT_ONCE) {
            Vector<real, AT_ONCE> gradient;
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) gradient.x[k] = kept.x[n + k];
            const int u = (group * KEPT + n) / 4, place = i + (group * KEPT + n) % 4;
            update(weights1() + u * launch.slice + place, u < units_here() ? inputs_here() - place : 0, gradient,
                   at<real>(launch.step_coefficients),
                   [&] { return launch.weights1 + index_t(first_unit() + u) * launch.n_in + first_input() + place; });
        }
    }
}
template <class Held> __device__ __noinline__ void hidden_gradient(int step, int rows) {
    gradient_by_groups<8, Held>(step, rows);
}
template <class Held> __device__ __noinline__ void hidden_gradient_of_many(int step, int rows) {
    gradient_by_groups<1, Held>(step, rows);
}

// What all blocks of the cluster have is updated by each for itself, by the same sums: b₁ by the first warp, and W₂ and b₂
// by the others. And the step's cost and hits, by the first block.
__device__ __noinline__ void other_gradients(int step_number, int rows) {
    const int n_out = launch.n_out, numbers = n_out * (UNITS + 1);
    const real* c = at<real>(launch.step_coefficients);
    const bool first = rank() == 0;
    if (threadIdx.y == 0) {
        constexpr int GROUPS = WARP / 4, KEPT = UNITS < GROUPS ? 1 : UNITS / GROUPS;
        const real* delta1 = at<real>(launch.delta1);
        real sums[UNITS < GROUPS ? GROUPS : UNITS] = {};
#pragma unroll 1
        for (int b = threadIdx.x; b < rows; b += WARP) {
            const auto deltas = read<UNITS>(delta1 + b * UNITS);
#pragma unroll
            for (int u = 0; u < UNITS; ++u) sums[u] += deltas.x[u];
        }
        const auto kept = shared_out<4, WARP / 2>(sums);  // by four lanes alike
#pragma unroll
        for (int n = 0; n < KEPT; ++n) {
            const int u = threadIdx.x / 4 * KEPT + n;
            const Vector<real, 1> sum{lanes_sum<4>(kept.x[n])};
            if (threadIdx.x % 4 == 0 && u < UNITS)
                update(bias1() + u, first && u < units_here(), sum, c + COEFFICIENTS, [&] {
                    return launch.weights1 + index_t(launch.n_hidden) * launch.n_in + first_unit() + u;
                });
        }
    } else {
#pragma unroll 1
        for (int e = thread() - WARP; e < numbers; e += THREADS - WARP) {
            const int o = e / (UNITS + 1), u = e % (UNITS + 1);
            const bool bias = u == UNITS;
            const real* gradient2 = at<real>(launch.gradient2) + e;
            Vector<real, 1> sum{0};
#pragma unroll
            for (int r = 0; r < CLUSTER; ++r) sum.x[0] += gradient2[r * numbers];
            update(bias ? bias2() + o : weights2() + o * UNITS + u, bias ? blockIdx.x == 0 : first && u < units_here(), sum,
                   bias ? c + COEFFICIENTS : c, [&] {
                       return launch.weights2 + (bias ? index_t(n_out) * launch.n_hidden + o
                                                      : index_t(o) * launch.n_hidden + first_unit() + u);
                   });
        }
    }
    if (blockIdx.x > 0 || thread() > 0) return;
    double cost = 0, hits = 0;
    for (int r = 0; r < CLUSTER; ++r) cost += at<double>(launch.scores)[2 * r], hits += at<double>(launch.scores)[2 * r + 1];
    launch.costs[step_number] = cost, launch.hits[step_number] = index_t(hits);
}

// What a block's threads have asked for is there, for all of them.
__device__ inline void come() {
    commit();
    wait<0>();
    __syncthreads();
}

enum Phase {
    FORWARD, SUMS_MEET, ACTIVATE, CLUSTERS_MEET, OUTPUT, BACK, DELTAS_MEET, OTHER_GRADIENTS, HIDDEN_GRADIENT, NEXT, PHASES
};

template <class T, class Held> __device__ inline void steps() {
    constexpr bool CONVERTS = sizeof(T) != sizeof(Held);  // and then is one step more ahead, with bytes
    const bool ahead = launch.buffers > 1;
    Profile<PHASES> profile;
    load();
    for (int step = 0; step < 3; ++step) fetch_order(step);
    come();
    fetch<T, Held>(0);
    come();
    settle<T, Held>(0);
    if (CONVERTS) fetch<T, Held>(1);
#if DROPOUT
    draw(0);
#endif
    come();
    cluster_begins();
    profile.begin();
    for (int step = 0; step < launch.steps; ++step) {
        const int rows = rows_of(step), mine = rows_here(rows);
        real* parts = launch.parts + (step % 2 * CLUSTER + rank()) * index_t(launch.share() * launch.n_out * parts_pitch());
        forward<Held>(step, rows);
        profile.ended(FORWARD);
        cluster_barrier();  // all blocks' sums are there
        profile.ended(SUMS_MEET);
        activate(mine);
        put_part(parts, mine);
        profile.ended(ACTIVATE);
        const auto next = [&] {  // while the other clusters arrive
            get_ready(step, mine);
            commit();
#if DROPOUT
            draw(step + 1);
#endif
            if (ahead) settle<T, Held>(step + 1);
            wait<0>();
            if (ahead) fetch<T, Held>(step + 1 + CONVERTS);
            fetch_order(step + 3);
        };
        barrier_of(launch.arrived + rank() * COUNTER_DISTANCE, passed(), clusters(), next);
        profile.ended(CLUSTERS_MEET);
        output(parts, mine, rows);
        profile.ended(OUTPUT);
        back(mine);
        profile.ended(BACK);
        cluster_barrier();  // δ₁ of all rows is there, and all sums over rows
        profile.ended(DELTAS_MEET);
        other_gradients(step, rows);
        profile.ended(OTHER_GRADIENTS);
        if (launch.slice > THREADS)
            hidden_gradient_of_many<Held>(step, rows);
        else
            hidden_gradient<Held>(step, rows);
        profile.ended(HIDDEN_GRADIENT);
        come();  // all of this step has been read, and parameters and what was fetched are the next one's
        if (!ahead) {
            settle<T, Held>(step + 1);
            fetch<T, Held>(step + 1 + CONVERTS);
            come();
        }
        profile.ended(NEXT);
    }
    profile.keep();
    store();
}

extern "C" __global__ void OF_CLUSTERS __launch_bounds__(THREADS, 1) units() {
    if (clusters() * UNITS < launch.n_hidden) __trap();  // a smaller grid would leave units untrained
    if (thread() == 0) passed() = 0;
    if (!launch.bytes.pointer)
        steps<real, real>();
    else if (launch.as_bytes)
        steps<unsigned char, unsigned char>();
    else
        steps<unsigned char, real>();
}
