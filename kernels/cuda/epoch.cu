// epoch: any number of training steps of any network in one launch; all blocks of the grid are resident together.
//
// A step goes through phases: each layer's forward, the output's δ, each hidden layer's δ, and all gradients with
// their updates. Blocks share a phase by tiles of its product, and then meet at a barrier of the whole grid before
// the next; or, where the weights are few, by rows of the batch: a block then needs no other's rows until the
// gradients, and only its own threads meet. Where a product has few tiles and many terms, blocks share these too: each
// leaves its part of z, and what comes next by rows adds them up. δ carries the factor w/B from the output on, so that
// a sum of products is the gradient. Every sum has a fixed order, which depends on nothing but the tiles' shapes and
// the number of parts.
//
// A step has a barrier of the grid before its first forward, which reads the weights that others changed; before each
// phase that is shared by tiles, or follows one that is; and before the gradients, or the sum of the costs where there
// are none. With one hidden layer and few outputs these are three: before forward, before what is done by rows, and
// before the gradients.
//
// With -DDROPOUT, what goes into some layers is dropped (random.cuh): they take it from memory of its own, since
// σ'(z) needs a hidden layer's activations whole. It is written by rows: with the activations, whose z is then kept
// apart as if it were in parts; and the inputs at the beginning of a step, before its first barrier. On the way back
// the mask is drawn anew.
#include "grid.cuh"
#include "launch.cuh"
#include "output.cuh"
#include "profile.cuh"
#include "product.cuh"
#include "random.cuh"
#include "rules.cuh"

// Of a layer: where the memory has what, and how its products are shared. a, z and δ have lines of ``pitch``.
struct Layer {
    int n_in, n_out, pitch, activation, by_rows, splits, forward_shape, back_shape, gradient_shape;
    index_t weights, z, a, delta;
#if DROPOUT
    index_t taken;  // what goes into the layer, in lines of ``taken_pitch``, where some of it is dropped
    int taken_pitch, dropped;
#endif

    __device__ index_t biases() const { return weights + index_t(n_in) * n_out; }
};
static_assert(sizeof(Layer) == LAYER_BYTES, "shared memory has room for the layers");

struct Launch : Run {
    Global<const index_t> layers;  // LAYER_FIELDS a layer, as LAYER in __init__.py has them
    index_t layer_count, row_cost, row_hit;
    Global<real> outputs;
#if DROPOUT
    unsigned long long key;
    index_t step;  // updates made before
    Global<const real> factors;  // that what is kept of each layer's inputs is multiplied by
#endif

    __device__ Layer read_layer(int i) const {
        const index_t* const of = layers + index_t(i) * LAYER_FIELDS;
        return {int(of[LAYER_N_IN]), int(of[LAYER_N_OUT]), int(of[LAYER_PITCH]), int(of[LAYER_ACTIVATION]),
                int(of[LAYER_BY_ROWS]), int(of[LAYER_SPLITS]), int(of[LAYER_FORWARD_SHAPE]),
                int(of[LAYER_BACK_SHAPE]), int(of[LAYER_GRADIENT_SHAPE]), of[LAYER_WEIGHTS], of[LAYER_Z], of[LAYER_A],
                of[LAYER_DELTA],
#if DROPOUT
                of[LAYER_TAKEN], int(of[LAYER_TAKEN_PITCH]), int(of[LAYER_DROPPED]),
#endif
        };
    }
    __device__ int last() const { return layer_count - 1; }
};
static_assert(sizeof(Launch) == EPOCH_LAUNCH, "the launch is as it is packed");
extern "C" { CONSTANT Launch launch; }

// Shared memory has the layers after what products take: so they are near, and no registers hold them while a tile, which
// needs all there are, is computed.
__device__ inline Layer& layer(int i) { return reinterpret_cast<Layer*>(product_memory<unsigned char>() + PRODUCT_BYTES)[i]; }

// And of the step, where it begins in the order, which it is and how many rows it has, after the barrier's count.
struct Now { index_t first; int number, rows; };
__device__ inline Now& now() {
    SHARED_MEMORY(shared);
    return reinterpret_cast<Now*>(shared)[1];
}
static_assert(2 * sizeof(Now) <= HEAD_BYTES, "there is room for both");

// Whether some of what goes into layer i is dropped in this launch, and which, in this step.
#if DROPOUT
__device__ inline bool is_dropped(int i) { return layer(i).dropped; }
__device__ inline Mask mask_of(int i) {
    return {launch.key, unsigned(i), unsigned(launch.step + now().number), unsigned(layer(i).dropped), launch.factors[i]};
}
#else
constexpr bool is_dropped(int) { return false; }
#endif

// The tiles by their code. Of as many rows as a block takes at a time, narrow and wide; and for lines that are not aligned.
#define ROW_SHAPES(DO) \
    DO(0, Shape<4, 4, 2, 16, 32, 2>) \
    DO(1, Shape<4, 4, 2, 4, 8, 3>) \
    DO(2, Shape<4, 4, 2, 16, 32, 2, false>) \
    DO(3, Shape<4, 4, 2, 4, 8, 3, false>)
// For lines that are not aligned, and then the others from small to large.
#if REAL_BITS == 64  // larger ones would not fit the registers
#define TILE_SHAPES(DO) \
    DO(4, Shape<8, 4, 4, 8, 16, 3, false>) \
    DO(5, Shape<4, 4, 4, 16, 32, 3>) \
    DO(6, Shape<8, 4, 4, 8, 16, 3>) \
    DO(7, Shape<8, 4, 8, 4, 16, 2>)
#elif PRECISION == FLOAT32
#define TILE_SHAPES(DO) \
    DO(4, Shape<8, 4, 4, 8, 16, 3, false>) \
    DO(5, Shape<4, 4, 4, 16, 32, 3>) \
    DO(6, Shape<8, 4, 4, 8, 16, 3>) \
    DO(7, Shape<8, 8, 8, 4, 8, 3>) \
    DO(8, Shape<8, 8, 16, 2, 8, 2>)
#else
#define TILE_SHAPES(DO) \
    DO(4, TensorShape<1, 1, 2, 16, 3, false>) \
    DO(5, TensorShape<1, 1, 1, 16, 2>) \
    DO(6, TensorShape<1, 1, 2, 16, 3>) \
    DO(7, TensorShape<1, 4, 4, 8, 3>)
#endif

#define OF_SHAPE(CODE, ...) static_assert(__VA_ARGS__::ROWS == ROW_BLOCK, "a block's rows are a tile's");
ROW_SHAPES(OF_SHAPE)
#undef OF_SHAPE

// How many tiles of a shape beside each other a product has, and how many in all.
struct Tiles { int across, count; };
__device__ inline Tiles tiles_of(int shape, const Product& product) {
    const auto tiles = [&](int rows, int columns) {
        const int across = ceil_div(product.n_count, columns);
        return Tiles{across, across * ceil_div(product.m_count, rows) * product.splits};
    };
    switch (shape) {
        default:
#define OF_SHAPE(CODE, ...) case CODE: { using S = __VA_ARGS__; return tiles(S::ROWS, S::COLUMNS); }
        ROW_SHAPES(OF_SHAPE) TILE_SHAPES(OF_SHAPE)
#undef OF_SHAPE
    }
}

template <class A, class B>
__device__ inline Sums tile_of(int shape, const A& a, const B& b, const Product& product, int number) {
#define OF_SHAPE(CODE, ...) case CODE: return tile<__VA_ARGS__>(a, b, product, number);
    if constexpr (A::ALONG_TERMS) switch (shape) { ROW_SHAPES(OF_SHAPE) }  // a gradient's terms are the batch's rows
    switch (shape) { default: TILE_SHAPES(OF_SHAPE) }
#undef OF_SHAPE
}

// Epilogue: out(m, n, sums, before) for the sums of a tile that are inside, VECTOR columns at a time, of which some may
// be outside. What ``out`` needs of the memory, ``before(m, n)``, is asked for before any of it is waited for.
template <class Out> __device__ inline void epilogue(const Product& product, const Sums& of, const Out& out) {
    constexpr int AHEAD = 2;
    const int across = of.columns / VECTOR, count = of.rows * across;
    for (int e0 = threadIdx.y * WARP + threadIdx.x; e0 < count; e0 += AHEAD * THREADS) {
        decltype(out.before(0, 0)) before[AHEAD];
        bool inside[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const int e = e0 + i * THREADS, m = of.m0 + e / across, n = of.n0 + e % across * VECTOR;
            inside[i] = e < count && m < product.m_count && n < product.n_count;
            if (inside[i]) before[i] = out.before(m, n);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            if (!inside[i]) continue;
            const int e = e0 + i * THREADS, row = e / across, column = e % across * VECTOR;
            const real* place = product_memory() + row * of.pitch + column;
            Wide sum = *reinterpret_cast<const Wide*>(place);
            for (int p = 1; p < of.parts; ++p) {
                place += of.rows * of.pitch;
                add(sum, *reinterpret_cast<const Wide*>(place));
            }
            out(of.m0 + row, of.n0 + column, sum, before[i]);
        }
    }
}

// Which of what is dealt from block ``dealt`` on, one after the other, is this block's first.
__device__ inline int first_of(int dealt) { return (blockIdx.x + gridDim.x - dealt % gridDim.x) % gridDim.x; }

// A product, as blocks share it: by its tiles' parts, dealt from block ``dealt`` on; or by rows, of which a block takes
// all columns. compute(number) takes the sums of a part, and out_of(split) is what is done to them. Returns how many
// parts there are.
template <class Compute, class OutOf>
__device__ inline int share(bool by_rows, int shape, const Product& product, int dealt, const Compute& compute,
                            const OutOf& out_of) {
    const Tiles tiles = tiles_of(shape, product);
    const int run = by_rows ? tiles.across : 1;  // parts one after the other that one block takes
    for (int i = first_of(dealt) * run; i < tiles.count; i += (i + 1) % run ? 1 : (int(gridDim.x) - 1) * run + 1)
        epilogue(product, compute(i), out_of(i % product.splits));
    return tiles.count;
}

// z = sum + b and a = σ(z); or the sum alone, as a part of z for what comes next by rows.
struct Forward {
    const real* bias;  // or null
    real* to;
    int n_out, pitch, activation;
    __device__ Wide before(index_t, int o) const {
        Wide of{};
#pragma unroll
        for (int v = 0; v < VECTOR; ++v)
            if (bias && o + v < n_out) of.x[v] = bias[o + v];
        return of;
    }
    __device__ void operator()(index_t b, int o, Wide sum, const Wide& biases) const {
        if (bias)
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) sum.x[v] = apply(activation, sum.x[v] + biases.x[v]);
        *reinterpret_cast<Wide*>(to + b * pitch + o) = sum;
    }
};

// δ = sum ⊙ σ'(z), or of softmax the sum; with dropout (sum ⊙ m) ⊙ σ'(z).
struct PullBack {
    const real* a;
    real* delta;
    int pitch, activation;
#if DROPOUT
    const index_t* order;
    Mask mask;
#endif
    __device__ Wide before(index_t b, int j) const { return *reinterpret_cast<const Wide*>(a + b * pitch + j); }
    __device__ void operator()(index_t b, int j, Wide sum, const Wide& a) const {
#if DROPOUT
        if (mask.dropped)
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) sum.x[v] *= mask.at(order[b], j + v);
#endif
        if (activation != SOFTMAX)
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) sum.x[v] *= slope(activation, a.x[v]);
        *reinterpret_cast<Wide*>(delta + b * pitch + j) = sum;
    }
};

// COUNT parameters beside each other, with the optimizer's slots.
template <int COUNT> struct Parameters {
    Numbers<COUNT> value, slot1, slot2;

    static __device__ Numbers<COUNT>* at(index_t place) { return reinterpret_cast<Numbers<COUNT>*>(launch.memory + place); }

    __device__ void read(index_t place) {
        if (launch.mode == GRADIENTS) return;
        value = *at(place);
        if (launch.slots > 0) slot1 = *at(launch.parameters + place);
        if (launch.slots > 1) slot2 = *at(2 * launch.parameters + place);
    }
    // By their gradient and a step's coefficients; or the gradient into memory.
    __device__ void update(index_t place, const Numbers<COUNT>& gradient, const real* c) {
        if (launch.mode == GRADIENTS) {
            *at(launch.gradient + place) = gradient;
            return;
        }
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            ::step(launch.rule, launch.slots, value.x[i], gradient.x[i], slot1.x[i], slot2.x[i], c);
        *at(place) = value;
        if (launch.slots > 0) *at(launch.parameters + place) = slot1;
        if (launch.slots > 1) *at(2 * launch.parameters + place) = slot2;
    }
};

// W by its gradient; by vectors, where all are aligned and inside.
struct UpdateWeights {
    index_t weights;
    int n_in;
    bool aligned;
    real c[COEFFICIENTS];

    __device__ UpdateWeights(const Layer& layer, const real* coefficients) : weights(layer.weights), n_in(layer.n_in) {
        aligned = (layer.weights | layer.n_in | launch.parameters | launch.gradient) % VECTOR == 0;
#pragma unroll
        for (int i = 0; i < COEFFICIENTS; ++i) c[i] = coefficients[i];
    }
    __device__ Parameters<VECTOR> before(index_t o, int j) const {
        Parameters<VECTOR> of;
        if (aligned) of.read(weights + o * n_in + j);
        return of;
    }
    __device__ void operator()(index_t o, int j, const Wide& sum, Parameters<VECTOR> of) const {
        const index_t place = weights + o * n_in + j;
        if (aligned) {
            of.update(place, sum, c);
            return;
        }
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) {
            if (j + v >= n_in) break;
            Parameters<1> one;
            one.read(place + v);
            one.update(place + v, {sum.x[v]}, c);
        }
    }
};

enum Phase { FORWARD, OUTPUT, BACK, UPDATES, BLOCKS_MEET, PHASES };

// A step, as each thread goes through it. All of it is inlined.
struct Step {
    Profile<PHASES>& profile;
    bool by_rows = false;  // how the phase before was shared: all weights are needed, and the rows' costs have been read

    static __device__ const index_t* order() { return launch.order + now().first; }
    // The weights' of this step, and then the biases'.
    static __device__ const real* coefficients() { return launch.coefficients + 2 * index_t(now().number) * COEFFICIENTS; }

    __device__ void take() {
        profile.begin();
        if (is_dropped(0)) inputs();
        for (int i = 0; i < launch.layer_count; ++i) forward(i);
        profile.ended(FORWARD);
        output();
        profile.ended(OUTPUT);
        if (launch.mode == TRAIN || launch.mode == GRADIENTS) {
            for (int i = launch.last(); i > 0; --i) back(i);
            profile.ended(BACK);
            gradients();
        } else {
            meet(false);
            sum(0);
        }
        profile.ended(UPDATES);
    }

    // What comes next reads what other threads wrote: of this block, or of the grid.
    __device__ void meet(bool next_by_rows) {
        const long long arrived = profile.clock();
        if (by_rows && next_by_rows)
            __syncthreads();
        else
            grid_barrier(launch.arrived, passed());
        profile.apart(BLOCKS_MEET, arrived);
        by_rows = next_by_rows;
    }

    // body(b) for each of this block's rows, one a warp.
    template <class Body> __device__ void each_row(const Body& body) const {
        for (index_t b0 = index_t(blockIdx.x) * ROW_BLOCK; b0 < now().rows; b0 += index_t(gridDim.x) * ROW_BLOCK)
            if (b0 + threadIdx.y < now().rows) body(b0 + threadIdx.y);
    }

    // What goes into a layer, where it is not the data as it lies.
    struct Taken { real* lines; int pitch; };
#if DROPOUT
    static __device__ Taken taken(int i) {
        const Layer& of = layer(i);
        if (!of.dropped) return {launch.memory + layer(i - 1).a, layer(i - 1).pitch};
        // Of a step's inputs, which are written while other blocks may still read those of the step before.
        const index_t other = i == 0 && now().number % 2 ? index_t(launch.batch) * of.taken_pitch : 0;
        return {launch.memory + of.taken + other, of.taken_pitch};
    }

    // The first layer's inputs, ready in memory: gathered, and some of them dropped. All warps of the grid share them, of
    // a row what 32 counters make.
    static __device__ void inputs() {
        constexpr int AT_ONCE = 8 * WARP;
        const int n_in = layer(0).n_in, pieces = ceil_div(n_in, AT_ONCE), all = now().rows * pieces;
        for (int i = threadIdx.y * gridDim.x + blockIdx.x; i < all; i += ROW_BLOCK * gridDim.x) {
            const index_t b = i / pieces, first = order()[b] * n_in;
            const int piece = i % pieces;
            if (launch.bytes)
                drop(0, b, piece, pieces, [&](int n) { return of_byte(launch.bytes[first + n]); });
            else
                drop(0, b, piece, pieces, [&](int n) { return launch.numbers[first + n]; });
        }
    }

    // What goes into layer i of input(n), the inputs of row b, or of one of the pieces that warps share them in.
    template <class Input> static __device__ void drop(int i, index_t b, int piece, int pieces, const Input& input) {
        real* const to = taken(i).lines + b * layer(i).taken_pitch;
        ASSUME_GLOBAL(to);
        mask_of(i).each(order()[b], layer(i).n_in, piece * WARP + threadIdx.x, pieces * WARP,
                        [&](int n, real m) { to[n] = input(n) * m; });
    }
#else
    static __device__ Taken taken(int i) { return {launch.memory + layer(i - 1).a, layer(i - 1).pitch}; }
    static __device__ void inputs() {}
#endif

    // A tile of the product of what goes into layer i with another operand: the batch's samples, gathered as they are
    // copied, or the activations of the layer before, or what dropout left of either.
    template <class Other>
    __device__ Sums tile_of_inputs(int i, int n_in, int shape, const Other& other, const Product& product,
                                   int number) const {
        constexpr bool ALONG_TERMS = Other::ALONG_TERMS;
        if (i > 0 || is_dropped(0)) {
            const Taken of = taken(i);
            const Operand<ALONG_TERMS, real> a_prev{of.lines, nullptr, of.pitch};
            return tile_with(shape, a_prev, other, product, number);
        } else if (launch.bytes) {
            const Operand<ALONG_TERMS, Byte> bytes{launch.bytes, order(), n_in};
            return tile_with(shape, bytes, other, product, number);
        } else {
            const Operand<ALONG_TERMS, real> numbers{launch.numbers, order(), n_in};
            return tile_with(shape, numbers, other, product, number);
        }
    }
    template <class Inputs, class Other>
    static __device__ Sums tile_with(int shape, const Inputs& inputs, const Other& other, const Product& product, int number) {
        if constexpr (Inputs::ALONG_TERMS)
            return tile_of(shape, inputs, other, product, number);
        else
            return tile_of(shape, other, inputs, product, number);
    }

    // z = a_prev Wᵀ + b, a = σ(z). Where it is not shared by tiles alone, z is kept apart, in parts.
    __device__ void forward(int i) {
        const Layer& of = layer(i);
        const bool last = i == launch.last();
        const bool in_parts = last || of.splits > 1 || of.activation == SOFTMAX || is_dropped(i + 1);
        const Rows<> w{launch.memory + of.weights, nullptr, of.n_in};
        const Product z{now().rows, of.n_out, of.n_in, of.splits};
        meet(of.by_rows);
        share(by_rows, of.forward_shape, z, 0,
              [&](int number) { return tile_of_inputs(i, of.n_in, of.forward_shape, w, z, number); },
              [&](int split) {
                  const real* bias = launch.memory + of.biases();
                  real* to = launch.memory + (in_parts ? of.z + split * part_of_z(of) : of.a);
                  return Forward{in_parts ? nullptr : bias, to, of.n_out, of.pitch, of.activation};
              });
        if (in_parts && !last) activate_rows(i);
    }

    __device__ index_t part_of_z(const Layer& of) const { return index_t(now().rows) * of.pitch; }

    // z of COUNT columns from n on, of the row that begins at ``place``: the parts in their order, of which some are asked
    // for before any is waited for, and then the bias.
    template <int COUNT> __device__ Numbers<COUNT> z_of(const Layer& of, index_t place, index_t n) const {
        constexpr int AT_ONCE = 8;
        const real *z = launch.memory + of.z + place + n, *bias = launch.memory + of.biases() + n;
        Numbers<COUNT> sum{}, parts[AT_ONCE]{};
        for (int first = 0; first < of.splits; first += AT_ONCE) {
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i)
                if (first + i < of.splits) parts[i] = *reinterpret_cast<const Numbers<COUNT>*>(z + (first + i) * part_of_z(of));
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i)
                if (first + i < of.splits) add(sum, parts[i]);
        }
#pragma unroll
        for (int v = 0; v < COUNT; ++v)
            if (n + v < of.n_out) sum.x[v] += bias[v];
        return sum;
    }

    // a of a hidden layer whose z is in parts, and what the next layer takes of it.
    __device__ void activate_rows(int i) {
        meet(true);
        each_row([&](index_t b) {
            const Layer& of = layer(i);
            real* a = launch.memory + of.a + b * of.pitch;
            activate_row(of, b, a);
#if DROPOUT
            if (!is_dropped(i + 1)) return;
            __syncwarp();  // all of the row is there
            drop(i + 1, b, 0, 1, [&](int n) { return a[n]; });
#endif
        });
    }

    __device__ void activate_row(const Layer& of, index_t b, real* a) const {
        if (of.activation == SOFTMAX) {
            for (index_t n = threadIdx.x; n < of.n_out; n += WARP) a[n] = z_of<1>(of, b * of.pitch, n).x[0];
            row_softmax(a, a, of.n_out);
            return;
        }
        for (int n = threadIdx.x * VECTOR; n < of.n_out; n += WARP * VECTOR) {
            Wide some = z_of<VECTOR>(of, b * of.pitch, n);
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) some.x[v] = apply(of.activation, some.x[v]);
            *reinterpret_cast<Wide*>(a + n) = some;
        }
    }

    // δ of the output layer, with each row's cost and hit; the outputs too, where they are asked for.
    __device__ void output() {
        const Layer& of = layer(launch.last());
        meet(true);
        each_row([&](index_t b) {
            const index_t sample = order()[b], place = b * of.pitch;
            const real *y = launch.targets + sample * of.n_out, weight = launch.sample_weight[sample];
            real *a = launch.memory + of.a + place, *delta = launch.memory + of.delta + place;
            if (of.n_out > WARP) {
                real* z = launch.memory + of.z + place;
                for (index_t n = threadIdx.x; n < of.n_out; n += WARP) z[n] = z_of<1>(of, place, n).x[0];
                output_of_row(of, of.n_out, b, weight, z, y, a, delta);
            } else {
                const bool mine = threadIdx.x < of.n_out;
                real z_of_lane = mine ? z_of<1>(of, place, threadIdx.x).x[0] : 0, y_of_lane = mine ? y[threadIdx.x] : 0;
                real a_of_lane = 0, delta_of_lane = 0;
                output_of_row(of, OneEach{of.n_out}, b, weight, InLanes{z_of_lane}, InLanes{y_of_lane}, InLanes{a_of_lane},
                              InLanes{delta_of_lane});
                if (mine) delta[threadIdx.x] = delta_of_lane;
            }
        });
    }

    template <class Count, class Row, class Y>
    __device__ void output_of_row(const Layer& of, Count n_out, index_t b, real weight, const Row& z, const Y& y, const Row& a,
                                  const Row& delta) const {
        const real cost = row_output(z, a, y, weight / now().rows, of.activation, launch.loss, delta, n_out);
        const bool hit = is_hit(a, y, n_out);  // in lane 0, which itself wrote the only one of one output
        if (threadIdx.x == 0) launch.memory[launch.row_cost + b] = weight * cost, launch.memory[launch.row_hit + b] = hit;
        if (launch.mode == PREDICT) each<WARP>(n_out, [&](int n) { launch.outputs[(now().first + b) * of.n_out + n] = a[n]; });
    }

    // δ of layer i − 1: (δ W) ⊙ σ'(z), or with dropout ((δ W) ⊙ m) ⊙ σ'(z).
    __device__ void back(int i) {
        const Layer &of = layer(i), &to = layer(i - 1);
        const Rows<> delta_next{launch.memory + of.delta, nullptr, of.pitch};
        const Columns<> w{launch.memory + of.weights, nullptr, of.n_in};
        meet(of.by_rows);
        const Product delta{now().rows, of.n_in, of.n_out, 1};
        share(by_rows, of.back_shape, delta, 0,
              [&](int number) { return tile_of(of.back_shape, delta_next, w, delta, number); },
              [&](int) {
                  PullBack pull_back{launch.memory + to.a, launch.memory + to.delta, to.pitch, to.activation};
#if DROPOUT
                  pull_back.order = order(), pull_back.mask = mask_of(i);
#endif
                  return pull_back;
              });
        if (to.activation != SOFTMAX) return;
        meet(true);
        each_row([&](index_t b) {
            row_softmax_pull_back(launch.memory + to.delta + b * to.pitch, launch.memory + to.a + b * to.pitch, to.n_out);
        });
    }

    // ∂C/∂W = δᵀ a_prev and ∂C/∂b = δᵀ 1 of all layers, each used for its update at once; and the step's cost, which
    // is dealt to a block as they are.
    __device__ void gradients() {
        meet(false);
        int dealt = 0;
        for (int i = 0; i < launch.layer_count; ++i) {
            const Layer& of = layer(i);
            const Columns<> delta{launch.memory + of.delta, nullptr, of.pitch};
            const Product gradient{of.n_out, of.n_in, now().rows, 1};
            dealt += share(false, of.gradient_shape, gradient, dealt,
                           [&](int number) { return tile_of_inputs(i, of.n_in, of.gradient_shape, delta, gradient, number); },
                           [&](int) { return UpdateWeights(of, coefficients()); });
            dealt += bias_gradients(of, dealt);
        }
        sum(dealt);
    }

    // A block takes WARP biases, of which each warp adds every ROW_BLOCK-th row. Returns for how many blocks there are.
    __device__ int bias_gradients(const Layer& of, int dealt) const {
        const int count = ceil_div(of.n_out, WARP);
        real* const parts = product_memory();
        for (int i = first_of(dealt); i < count; i += gridDim.x) {
            const int o = i * WARP + threadIdx.x;
            const real* delta = launch.memory + of.delta + o;
            real part = 0;
            if (o < of.n_out)
                for (int b = threadIdx.y; b < now().rows; b += ROW_BLOCK) part += delta[index_t(b) * of.pitch];
            __syncthreads();  // what was here before has been read
            parts[threadIdx.y * WARP + threadIdx.x] = part;
            __syncthreads();  // all parts are there
            if (threadIdx.y > 0 || o >= of.n_out) continue;
            for (int warp = 1; warp < ROW_BLOCK; ++warp) part += parts[warp * WARP + threadIdx.x];
            Parameters<1> bias;
            bias.read(of.biases() + o);
            bias.update(of.biases() + o, {part}, coefficients() + COEFFICIENTS);
        }
        return count;
    }

    // The step's cost and hits, by one block; each thread takes every THREADS-th row, then lanes and warps are added.
    __device__ void sum(int dealt) const {
        if (blockIdx.x != dealt % gridDim.x) return;
        double cost = 0, hits = 0;
        for (int b = threadIdx.y * WARP + threadIdx.x; b < now().rows; b += THREADS)
            cost += launch.memory[launch.row_cost + b], hits += launch.memory[launch.row_hit + b];
        double* const parts = product_memory<double>();
        cost = lanes_sum(cost), hits = lanes_sum(hits);
        __syncthreads();  // what was here before has been read
        if (threadIdx.x == 0) parts[threadIdx.y] = cost, parts[ROW_BLOCK + threadIdx.y] = hits;
        __syncthreads();  // all parts are there
        if (threadIdx.x > 0 || threadIdx.y > 0) return;
        for (int warp = 1; warp < ROW_BLOCK; ++warp) cost += parts[warp], hits += parts[ROW_BLOCK + warp];
        launch.costs[now().number] = cost, launch.hits[now().number] = index_t(hits);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) epoch() {
    const int thread = threadIdx.y * WARP + threadIdx.x;
    Profile<PHASES> profile;
    if (thread == 0) passed() = 0;
    for (int i = thread; i < launch.layer_count; i += THREADS) layer(i) = launch.read_layer(i);
    for (int number = 0; number < launch.steps; ++number) {
        const index_t first = index_t(number) * launch.batch;
        __syncthreads();  // the layers are there, and of the step before all has been read
        if (thread == 0) now() = {first, number, int(least<index_t>(launch.batch, launch.samples - first))};
        __syncthreads();  // what this step is is there
        Step{profile}.take();
    }
    profile.keep();
}
