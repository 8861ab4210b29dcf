// epoch: any number of training steps of any network in one launch; all blocks of the grid are resident together.
//
// A step goes through phases: each layer's forward, the output's δ, each hidden layer's δ, and all gradients with
// their updates. Blocks share a phase by tiles of its product, and then meet at a barrier of the whole grid before
// the next; or, where the weights are few, by rows of the batch: a block then needs no other's rows until the
// gradients, and only its own threads meet. δ carries the factor w/B from the output on, so that a sum of products is
// the gradient. Every sum has a fixed order, which depends on nothing but the tiles' shapes.
#include "grid.cuh"
#include "launch.cuh"
#include "output.cuh"
#include "rules.cuh"
#include "tile.cuh"

struct Launch : Run {
    Global<const index_t> layers;  // where in the memory each layer has what (LAYER_FIELDS a layer)
    index_t layer_count, row_cost, row_hit;
    Global<real> outputs;

    __device__ index_t layer(index_t i, int field) const { return layers[i * LAYER_FIELDS + field]; }
    __device__ index_t last() const { return layer_count - 1; }
};
static_assert(sizeof(Launch) == EPOCH_LAUNCH, "the launch is as it is packed");
extern "C" { CONSTANT Launch launch; }

// Shared memory: HEAD_BYTES, and the panels of two operands.
__device__ inline real* panels() {
    SHARED_MEMORY(shared);
    return reinterpret_cast<real*>(shared + HEAD_BYTES);
}

__device__ inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// All tiles of a product, dealt to the blocks of the grid from block ``first`` on; returns how many there are.
template <class S, class A, class B, class Out>
__device__ int deal_tiles(const A& a, const B& b, const Out& out, int m_count, int n_count, int k_count,
                                       int first, real* shared) {
    const int across = ceil_div(n_count, S::COLUMNS), count = across * ceil_div(m_count, S::ROWS);
    for (int i = (blockIdx.x + gridDim.x - first % gridDim.x) % gridDim.x; i < count; i += gridDim.x)
        tile<S>(a, b, out, i / across * S::ROWS, i % across * S::COLUMNS, m_count, n_count, k_count, shared);
    return count;
}

template <class A, class B, class Out>
__device__ int product(int shape, const A& a, const B& b, const Out& out, int m_count, int n_count, int k_count,
                       int first, real* shared) {
#define DEAL(...) deal_tiles<__VA_ARGS__>(a, b, out, m_count, n_count, k_count, first, shared)
    switch (shape) {
#if PRECISION != FLOAT32
        case 4: return DEAL(TensorShape<1, 4, 4>);
        case 2: return DEAL(TensorShape<1, 1, 2>);
        default: return DEAL(TensorShape<1, 1, 1>);
#else
#if REAL_BITS == 32  // doubles would not fit the registers
        case 8: return DEAL(Shape<8, 4, 16>);
        case 4: return DEAL(Shape<4, 4, 16>);
#else
        case 4: return DEAL(Shape<4, 2, 16>);
#endif
        case 2: return DEAL(Shape<4, 4, 8, 4>);  // groups, so that each thread uses what it reads more often
        default: return DEAL(Shape<2, 2, 8, 4>);
#endif
    }
#undef DEAL
}

// A product of this block's rows: ROW_BLOCK at a time, one a warp.
template <class A, class B, class Out>
__device__ void product_of_rows(const A& a, const B& b, const Out& out, int m_count, int n_count,
                                             int k_count, real* shared) {
    using S = Shape<1, 1, ROW_BLOCK>;
    for (int m0 = blockIdx.x * ROW_BLOCK; m0 < m_count; m0 += gridDim.x * ROW_BLOCK)
        for (int n0 = 0; n0 < n_count; n0 += S::COLUMNS)
            tile<S>(a, b, out, m0, n0, m_count, n_count, k_count, shared);
}

// What is done to one element of a product, as functions of their own: a tile has up to 32 elements a thread.
__device__ __noinline__ real activated(int activation, real z) { return apply(activation, z); }
__device__ __noinline__ real pulled_back(int activation, real a, real delta) { return delta * slope(activation, a); }

// A step, as each thread goes through it.
struct Step {
    index_t number, rows;
    const index_t* order;
    bool by_rows;  // how the phase before was shared

    // The first phase waits for the grid: it needs all of the weights, and the rows' costs have been read.
    __device__ explicit Step(index_t number)
        : number(number), order(launch.order + number * launch.batch), by_rows(false) {
        const index_t rest = launch.samples - number * launch.batch;
        rows = rest < launch.batch ? rest : launch.batch;
    }

    __device__ __noinline__ void take() {
        for (index_t i = 0; i < launch.layer_count; ++i) forward(i);
        output();
        if (launch.mode == TRAIN || launch.mode == GRADIENTS) {
            for (index_t i = launch.last(); i > 0; --i) back(i);
            gradients();
        } else {
            meet(false);
        }
        sum();
    }

    // What comes next reads what other threads wrote: of this block, or of the grid.
    __device__ void meet(bool next_by_rows) {
        if (by_rows && next_by_rows)
            __syncthreads();
        else
            grid_barrier(launch.arrived, passed());
        by_rows = next_by_rows;
    }

    // body(b) for each of this block's rows, one a warp.
    template <class Body> __device__ void each_row(const Body& body) const {
        for (index_t b0 = index_t(blockIdx.x) * ROW_BLOCK; b0 < rows; b0 += index_t(gridDim.x) * ROW_BLOCK)
            if (b0 + threadIdx.y < rows) body(b0 + threadIdx.y);
    }

    // What goes into layer i: the batch's samples, gathered as they are read, or the activations of the layer before.
    template <bool ALONG_TERMS> __device__ Operand<ALONG_TERMS> inputs_of(index_t i) const {
        const int n_in = launch.layer(i, LAYER_N_IN);
        if (i == 0) return {launch.numbers, n_in, order, launch.bytes};
        return {launch.memory + launch.layer(i - 1, LAYER_A), n_in};
    }

    // z = a_prev Wᵀ + b, a = σ(z); the output layer's z is kept apart.
    __device__ __noinline__ void forward(index_t i) {
        const int n_in = launch.layer(i, LAYER_N_IN), n_out = launch.layer(i, LAYER_N_OUT);
        const int activation = launch.layer(i, LAYER_ACTIVATION);
        const bool last = i == launch.last(), apply_now = !last && activation != SOFTMAX;
        const real *weights = launch.memory + launch.layer(i, LAYER_WEIGHTS), *bias = weights + index_t(n_in) * n_out;
        real* target = launch.memory + launch.layer(i, last ? LAYER_Z : LAYER_A);
        const auto out = [=](index_t b, index_t o, real sum) {
            const real z = sum + bias[o];
            target[b * n_out + o] = apply_now ? activated(activation, z) : z;
        };
        meet(launch.layer(i, LAYER_BY_ROWS));
        const auto a_prev = inputs_of<true>(i);
        const Rows w{weights, n_in};
        if (by_rows)
            product_of_rows(a_prev, w, out, rows, n_out, n_in, panels());
        else
            product(launch.layer(i, LAYER_FORWARD_SHAPE), a_prev, w, out, rows, n_out, n_in, 0, panels());
        if (activation != SOFTMAX || last) return;
        meet(true);
        each_row([&](index_t b) { row_softmax(target + b * n_out, target + b * n_out, n_out); });
    }

    // δ of the output layer, with each row's cost and hit; the outputs too, where they are asked for.
    __device__ __noinline__ void output() {
        const index_t i = launch.last(), n_out = launch.layer(i, LAYER_N_OUT);
        const int activation = launch.layer(i, LAYER_ACTIVATION);
        meet(true);
        each_row([&](index_t b) {
            const index_t sample = order[b], place = b * n_out;
            const real *z = launch.memory + launch.layer(i, LAYER_Z) + place, *y = launch.targets + sample * n_out;
            const real weight = launch.sample_weight[sample];
            real *a = launch.memory + launch.layer(i, LAYER_A) + place, *delta = launch.memory + launch.layer(i, LAYER_DELTA) + place;
            if (activation == SOFTMAX)
                row_softmax(z, a, n_out);
            else
                for (index_t n = threadIdx.x; n < n_out; n += WARP) a[n] = apply(activation, z[n]);
            const real cost = row_output(z, a, y, weight / rows, activation, launch.loss, delta, n_out);
            const bool hit = is_hit(a, y, n_out);  // in lane 0, which itself wrote the only one of one output
            if (threadIdx.x == 0) launch.memory[launch.row_cost + b] = weight * cost, launch.memory[launch.row_hit + b] = hit;
            if (launch.mode == PREDICT)
                for (index_t n = threadIdx.x; n < n_out; n += WARP) launch.outputs[number * launch.batch * n_out + place + n] = a[n];
        });
    }

    // δ of layer i − 1: (δ W) ⊙ σ'(z).
    __device__ __noinline__ void back(index_t i) {
        const int n = launch.layer(i, LAYER_N_IN), n_out = launch.layer(i, LAYER_N_OUT);
        const int activation = launch.layer(i - 1, LAYER_ACTIVATION);
        const real* a = launch.memory + launch.layer(i - 1, LAYER_A);
        real* delta = launch.memory + launch.layer(i - 1, LAYER_DELTA);
        const auto out = [=](index_t b, index_t j, real sum) {
            const index_t place = b * n + j;
            delta[place] = activation == SOFTMAX ? sum : pulled_back(activation, a[place], sum);
        };
        const Rows delta_next{launch.memory + launch.layer(i, LAYER_DELTA), n_out};
        const Columns w{launch.memory + launch.layer(i, LAYER_WEIGHTS), n};
        meet(launch.layer(i, LAYER_BY_ROWS));
        if (by_rows)
            product_of_rows(delta_next, w, out, rows, n, n_out, panels());
        else
            product(launch.layer(i, LAYER_BACK_SHAPE), delta_next, w, out, rows, n, n_out, 0, panels());
        if (activation != SOFTMAX) return;
        meet(true);
        each_row([&](index_t b) { row_softmax_pull_back(delta + b * n, a + b * n, n); });
    }

    // ∂C/∂W = δᵀ a_prev and ∂C/∂b = δᵀ 1 of all layers, each element used for its update at once.
    __device__ __noinline__ void gradients() {
        meet(false);
        int dealt = 0;
        for (index_t i = 0; i < launch.layer_count; ++i) {
            const int n_in = launch.layer(i, LAYER_N_IN), n_out = launch.layer(i, LAYER_N_OUT);
            const index_t weights = launch.layer(i, LAYER_WEIGHTS), biases = weights + index_t(n_in) * n_out;
            const real* coefficients = launch.coefficients + 2 * number * COEFFICIENTS;
            const auto out = [=](index_t o, index_t j, real sum) {
                if (j == n_in)
                    update(biases + o, coefficients + COEFFICIENTS, sum);
                else
                    update(weights + o * n_in + j, coefficients, sum);
            };
            const Columns delta{launch.memory + launch.layer(i, LAYER_DELTA), n_out};
            const auto a_prev = inputs_of<false>(i);  // of which row n_in is all 1: its gradient is the bias's
            dealt += product(launch.layer(i, LAYER_GRADIENT_SHAPE), delta, a_prev, out, n_out, n_in + 1, rows, dealt, panels());
        }
    }

    // One element of a parameter, at ``place`` of the memory, by its gradient.
    static __device__ __noinline__ void update(index_t place, const real* c, real gradient) {
        if (launch.mode == GRADIENTS)
            launch.memory[launch.gradient + place] = gradient;
        else
            ::step(launch.rule, launch.slots, launch.memory[place], gradient, launch.memory[launch.parameters + place],
                   launch.memory[2 * launch.parameters + place], c);
    }

    // The step's cost and hits, by the last block; each thread takes every THREADS-th row, then halves are added.
    __device__ __noinline__ void sum() const {
        if (blockIdx.x != gridDim.x - 1) return;
        const int thread = threadIdx.y * WARP + threadIdx.x;
        struct Part { double cost, hits; };
        Part* parts = reinterpret_cast<Part*>(panels());
        Part part{};
        for (index_t b = thread; b < rows; b += THREADS) {
            part.cost += launch.memory[launch.row_cost + b];
            part.hits += launch.memory[launch.row_hit + b];
        }
        __syncthreads();  // the panels of the last tile have been read
        parts[thread] = part;
        for (int half = THREADS / 2; half; half /= 2) {
            __syncthreads();
            if (thread < half) {
                parts[thread].cost += parts[thread + half].cost;
                parts[thread].hits += parts[thread + half].hits;
            }
        }
        if (thread == 0) launch.costs[number] = parts[0].cost, launch.hits[number] = index_t(parts[0].hits);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) epoch() {
    if (threadIdx.x == 0 && threadIdx.y == 0) passed() = 0;
    for (index_t number = 0; number < launch.steps; ++number) Step(number).take();
}
