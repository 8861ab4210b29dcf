// units: any number of training steps of a network with one hidden layer in one launch, with one barrier a step.
//
// Each block owns UNITS hidden units: their rows of W₁ and b₁, and their columns of W₂, lie in its shared memory from
// the first step to the last, with what the optimizer remembers of them. A block computes its units' a₁ for all of the
// batch and their part of z₂ = Σ a₁ W₂ᵀ + b₂, which it leaves in memory. After the barrier all blocks add up the parts,
// each for itself and in the same order, so that all have the same δ₂ and b₂; the rest needs no other block. UNITS is a
// -D option, so that no more is compiled than is launched.
#include "grid.cuh"
#include "launch.cuh"
#include "output.cuh"
#include "rules.cuh"
#include "tile.cuh"

// ``parts`` (2, blocks, B, n_out) takes turns, as a block may be one step ahead of another that still reads.
struct Launch : Run {
    index_t weights1, weights2;  // their places in the memory
    Global<real> parts;
    int n_in, n_hidden, n_out, activation, output_activation;
    int more_room;

    __device__ index_t bias1() const { return weights1 + index_t(n_hidden) * n_in; }
    __device__ index_t bias2() const { return weights2 + index_t(n_out) * n_hidden; }
};
static_assert(sizeof(Launch) == UNITS_LAUNCH, "the launch is as it is packed");
extern "C" { CONSTANT Launch launch; }

// Rows of a batch by a block's units, and units by inputs; few columns, so that groups share the terms.
using Forward = Shape<UNITS == 2 || REAL_BITS == 64 ? 4 : 8, UNITS == 8 ? 2 : 1, UNITS == 2 ? 32 : 16, 4>;
using Gradient = Shape<UNITS, REAL_BITS == 32 ? 2 : 1, 1>;

// Shared memory, in numbers: after HEAD_BYTES the tiles' panels, a block's part of a batch and what it owns. What
// tiles read comes first, where it is aligned.
struct Room {
    static constexpr int PANELS = panels_of<Gradient, Columns, Columns>;
    static_assert(PANELS >= panels_of<Forward, Rows, Rows>, "the gradient's panels are the largest");
    static_assert(PANELS >= sums_of<Forward> && PANELS >= sums_of<Gradient>, "they have room for the sums");
    __device__ real* panels() const {
        SHARED_MEMORY(shared);
        return reinterpret_cast<real*>(shared + HEAD_BYTES);
    }
    __device__ int own() const { return UNITS * (launch.n_in + 1 + launch.n_out) + launch.n_out; }
    __device__ int copies() const { return 1 + launch.slots; }
    // a₁ and δ₁ (B, UNITS).
    __device__ real* a1() const { return panels() + PANELS; }
    __device__ real* delta1() const { return a1() + UNITS * launch.batch; }
    // W₁ (UNITS, n_in), b₁ (UNITS), W₂ (n_out, UNITS), b₂ (n_out), and the same again for each slot.
    __device__ real* weights1() const { return delta1() + UNITS * launch.batch; }
    __device__ real* bias1() const { return weights1() + UNITS * launch.n_in; }
    __device__ real* weights2() const { return bias1() + UNITS; }
    __device__ real* bias2() const { return weights2() + UNITS * launch.n_out; }
    // z₂, a₂ and δ₂ (B, n_out), the rows' costs and hits (B).
    __device__ real* z2() const { return weights1() + copies() * own(); }
    __device__ real* a2() const { return z2() + launch.n_out * launch.batch; }
    __device__ real* delta2() const { return a2() + launch.n_out * launch.batch; }
    __device__ real* costs() const { return delta2() + launch.n_out * launch.batch; }
    __device__ real* hits() const { return costs() + launch.batch; }
};

struct Block {
    Room room;
    int first_unit, units;  // units may be fewer in the last block
    int thread;

    __device__ Block() : first_unit(blockIdx.x * UNITS), thread(threadIdx.y * WARP + threadIdx.x) {
        units = launch.n_hidden - first_unit < UNITS ? launch.n_hidden - first_unit : UNITS;
    }

    // body(place in shared memory, place of the parameter in memory) for every number that this block owns.
    template <class Body> __device__ void each_own(const Body& body) const {
        real* own = room.weights1();
        for (int e = thread; e < units * launch.n_in; e += THREADS)
            body(own + e, launch.weights1 + index_t(first_unit) * launch.n_in + e);
        for (int h = thread; h < units; h += THREADS) body(room.bias1() + h, launch.bias1() + first_unit + h);
        for (int e = thread; e < UNITS * launch.n_out; e += THREADS)
            if (e % UNITS < units)
                body(room.weights2() + e, launch.weights2 + index_t(e / UNITS) * launch.n_hidden + first_unit + e % UNITS);
        for (int o = thread; o < launch.n_out; o += THREADS) body(room.bias2() + o, launch.bias2() + o);
    }

    __device__ __noinline__ void load() const {
        for (int copy = 0; copy < room.copies(); ++copy)
            each_own([&](real* own, index_t place) { own[copy * room.own()] = launch.memory[copy * launch.parameters + place]; });
        __syncthreads();  // all is there
    }

    // The parameters go back to memory; b₂, which all blocks have, from the first.
    __device__ __noinline__ void store() const {
        for (int copy = 0; copy < room.copies(); ++copy)
            each_own([&](real* own, index_t place) {
                if (blockIdx.x == 0 || own < room.bias2())
                    launch.memory[copy * launch.parameters + place] = own[copy * room.own()];
            });
    }

    // One element of a parameter by its gradient, or its gradient into memory.
    __device__ __noinline__ void update(real* own, index_t place, const real* c, real gradient) const {
        if (launch.mode == GRADIENTS)
            launch.memory[launch.gradient + place] = gradient;
        else
            step(launch.rule, launch.slots, *own, gradient, own[room.own()], own[2 * room.own()], c);
    }

    // a₁ = σ(x W₁ᵀ + b₁) of this block's units.
    __device__ __noinline__ void forward(const index_t* order, int rows) const {
        const real* bias = room.bias1();
        real* a1 = room.a1();
        const int activation = launch.activation;
        const auto out = [=](index_t b, index_t h, real sum) { a1[b * UNITS + h] = apply(activation, sum + bias[h]); };
        const Rows x{launch.numbers, launch.n_in, order, launch.bytes}, w{room.weights1(), launch.n_in};
        for (int b = 0; b < rows; b += Forward::ROWS)
            tile<Forward>(x, w, out, b, 0, rows, units, launch.n_in, room.panels());
        __syncthreads();  // a₁ is there
    }

    // This block's part of z₂, into memory.
    __device__ __noinline__ void put_part(real* part, int rows) const {
        for (int e = thread; e < rows * launch.n_out; e += THREADS) {
            const real *a = room.a1() + e / launch.n_out * UNITS, *w = room.weights2() + e % launch.n_out * UNITS;
            real sum = 0;
            for (int h = 0; h < units; ++h) sum += a[h] * w[h];
            part[e] = sum;
        }
    }

    // z₂ of all blocks' parts, a₂, δ₂, and each row's cost and hit; a thread a row.
    __device__ __noinline__ void output(const real* parts, const index_t* order, int rows) const {
        const int outputs = rows * launch.n_out, part = launch.batch * launch.n_out;
        for (int e = thread; e < outputs; e += THREADS) {
            real sum = 0;
            for (int block = 0; block < gridDim.x; ++block) sum += parts[index_t(block) * part + e];
            room.z2()[e] = sum + room.bias2()[e % launch.n_out];
        }
        __syncthreads();  // z₂ is there
        for (int b = thread; b < rows; b += THREADS) {
            const index_t sample = order[b];
            const real *z = room.z2() + b * launch.n_out, *y = launch.targets + sample * launch.n_out;
            const real weight = launch.sample_weight[sample];
            real *a = room.a2() + b * launch.n_out, *delta = room.delta2() + b * launch.n_out;
            if (launch.output_activation == SOFTMAX)
                row_softmax<1>(z, a, launch.n_out);
            else
                for (int o = 0; o < launch.n_out; ++o) a[o] = apply(launch.output_activation, z[o]);
            const real cost = row_output<1>(z, a, y, weight / rows, launch.output_activation, launch.loss, delta, launch.n_out);
            room.costs()[b] = weight * cost;
            room.hits()[b] = is_hit<1>(a, y, launch.n_out);
        }
        __syncthreads();  // δ₂ is there
    }

    // δ₁ = (δ₂ W₂) ⊙ σ'(z₁).
    __device__ __noinline__ void back(int rows) const {
        for (int e = thread; e < rows * UNITS; e += THREADS) {
            const real* delta = room.delta2() + e / UNITS * launch.n_out;
            const int h = e % UNITS;
            real sum = 0;
            if (h < units)
                for (int o = 0; o < launch.n_out; ++o) sum += delta[o] * room.weights2()[o * UNITS + h];
            room.delta1()[e] = sum * slope(launch.activation, room.a1()[e]);
        }
        __syncthreads();  // δ₁ is there, and W₂ may change
    }

    // Σ_b δ₂[b, o] a₁[b, h] and Σ_b δ₂[b, o], a warp each; the lanes' sums are added as a tree.
    __device__ __noinline__ void output_gradient(const real* c, int rows) const {
        for (int e = threadIdx.y; e < launch.n_out * (UNITS + 1); e += ROW_BLOCK) {
            const int o = e / (UNITS + 1), h = e % (UNITS + 1);
            const bool bias = h == UNITS;
            if (!bias && h >= units) continue;
            real sum = 0;
            for (int b = threadIdx.x; b < rows; b += WARP)
                sum += room.delta2()[b * launch.n_out + o] * (bias ? real(1) : room.a1()[b * UNITS + h]);
            sum = lanes_sum(sum);
            if (threadIdx.x > 0) continue;
            if (bias)
                update(room.bias2() + o, launch.bias2() + o, c + COEFFICIENTS, sum);
            else
                update(room.weights2() + o * UNITS + h, launch.weights2 + index_t(o) * launch.n_hidden + first_unit + h, c, sum);
        }
    }

    // δ₁ᵀ x and δ₁ᵀ 1.
    __device__ __noinline__ void hidden_gradient(const index_t* order, const real* c, int rows) const {
        const auto out = [=](index_t h, index_t i, real sum) {
            if (i == launch.n_in)
                update(room.bias1() + h, launch.bias1() + first_unit + h, c + COEFFICIENTS, sum);
            else
                update(room.weights1() + h * launch.n_in + i, launch.weights1 + (first_unit + h) * launch.n_in + i, c, sum);
        };
        // Of x, row n_in is all 1: its gradient is the bias's.
        const Columns delta{room.delta1(), UNITS}, x{launch.numbers, launch.n_in, order, launch.bytes};
        for (int i = 0; i < launch.n_in + 1; i += Gradient::COLUMNS)
            tile<Gradient>(delta, x, out, 0, i, units, launch.n_in + 1, rows, room.panels());
    }

    // The step's cost and hits, by the first warp of the first block; the lanes' sums are added as a tree.
    __device__ __noinline__ void sum(index_t step, int rows) const {
        if (blockIdx.x > 0 || threadIdx.y > 0) return;
        double cost = 0, hits = 0;
        for (int b = threadIdx.x; b < rows; b += WARP) cost += room.costs()[b], hits += room.hits()[b];
        for (int mask = WARP / 2; mask; mask /= 2) {
            cost += __shfl_xor_sync(~0u, cost, mask);
            hits += __shfl_xor_sync(~0u, hits, mask);
        }
        if (threadIdx.x == 0) launch.costs[step] = cost, launch.hits[step] = index_t(hits);
    }

    __device__ void steps() const {
        load();
        for (index_t step = 0; step < launch.steps; ++step) {
            const index_t first = step * launch.batch, rest = launch.samples - first;
            const int rows = rest < launch.batch ? rest : launch.batch;
            const index_t* order = launch.order + first;
            const real* c = launch.coefficients + 2 * step * COEFFICIENTS;
            const index_t part = index_t(launch.batch) * launch.n_out;
            real* parts = launch.parts + step % 2 * gridDim.x * part;
            forward(order, rows);
            put_part(parts + blockIdx.x * part, rows);
            // While the others arrive: the lines of the next batch's inputs, dealt to all threads of the grid.
            grid_barrier(launch.arrived, passed(), [&] { ask_for(first + rows); });
            output(parts, order, rows);
            back(rows);
            output_gradient(c, rows);
            hidden_gradient(order, c, rows);
            sum(step, rows);
            __syncthreads();  // all of this step has been read, and the parameters are the next one's
        }
        store();
    }

    // Prefetches the inputs of the batch that begins at ``first`` of the order.
    __device__ __noinline__ void ask_for(index_t first) const {
        const index_t line = 128, size = launch.n_in * (launch.bytes ? 1 : sizeof(real)), lines = (size + line - 1) / line;
        const index_t stop = (first + launch.batch < launch.samples ? first + launch.batch : launch.samples) - first;
        const unsigned char* bytes = launch.bytes;
        const auto* inputs = bytes ? bytes : reinterpret_cast<const unsigned char*>(static_cast<const real*>(launch.numbers));
        for (index_t e = index_t(blockIdx.x) * THREADS + thread; e < stop * lines; e += index_t(gridDim.x) * THREADS)
            prefetch(inputs + launch.order[first + e / lines] * size + e % lines * line);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) units() {
    if (threadIdx.x == 0 && threadIdx.y == 0) passed() = 0;
    Block().steps();
}
