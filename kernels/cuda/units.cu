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
    int n_in, n_hidden, n_out, activation, output_activation;
    real* parts;

    __device__ index_t bias1() const { return weights1 + index_t(n_hidden) * n_in; }
    __device__ index_t bias2() const { return weights2 + index_t(n_out) * n_hidden; }
};

// Rows of a batch by a block's units, and units by inputs; few columns, so that groups share the terms.
using Forward = Shape<UNITS == 2 || REAL_BITS == 64 ? 4 : 8, UNITS == 8 ? 2 : 1, UNITS == 2 ? 32 : 16, 4>;
using Gradient = Shape<UNITS, REAL_BITS == 32 ? 2 : 1, 1>;

// Shared memory, in numbers: after LAUNCH_BYTES the tiles' panels, a block's part of a batch and what it owns. What
// tiles read comes first, where it is aligned.
struct Room {
    static constexpr int PANELS = panels_of<Gradient, Columns, Columns>;
    static_assert(PANELS >= panels_of<Forward, Rows, Rows>, "the gradient's panels are the largest");
    static_assert(PANELS >= sums_of<Forward> && PANELS >= sums_of<Gradient>, "they have room for the sums");
    const Launch& run;
    real* shared;
    __device__ real* panels() const {
        real* const panels = shared;
        ASSUME_SHARED(panels);
        return panels;
    }
    __device__ int own() const { return UNITS * (run.n_in + 1 + run.n_out) + run.n_out; }
    __device__ int copies() const { return 1 + run.slots; }
    // a₁ and δ₁ (B, UNITS).
    __device__ real* a1() const { return panels() + PANELS; }
    __device__ real* delta1() const { return a1() + UNITS * run.batch; }
    // W₁ (UNITS, n_in), b₁ (UNITS), W₂ (n_out, UNITS), b₂ (n_out), and the same again for each slot.
    __device__ real* weights1() const { return delta1() + UNITS * run.batch; }
    __device__ real* bias1() const { return weights1() + UNITS * run.n_in; }
    __device__ real* weights2() const { return bias1() + UNITS; }
    __device__ real* bias2() const { return weights2() + UNITS * run.n_out; }
    // z₂, a₂ and δ₂ (B, n_out), the rows' costs and hits (B).
    __device__ real* z2() const { return weights1() + copies() * own(); }
    __device__ real* a2() const { return z2() + run.n_out * run.batch; }
    __device__ real* delta2() const { return a2() + run.n_out * run.batch; }
    __device__ real* costs() const { return delta2() + run.n_out * run.batch; }
    __device__ real* hits() const { return costs() + run.batch; }
};

struct Block {
    const Launch& run;
    Room room;
    int first_unit, units;  // units may be fewer in the last block
    int thread;

    __device__ Block(const Launch& run, real* shared)
        : run(run), room{run, shared}, first_unit(blockIdx.x * UNITS), thread(threadIdx.y * WARP + threadIdx.x) {
        units = run.n_hidden - first_unit < UNITS ? run.n_hidden - first_unit : UNITS;
    }

    // body(place in shared memory, place of the parameter in memory) for every number that this block owns.
    template <class Body> __device__ void each_own(const Body& body) const {
        real* own = room.weights1();
        for (int e = thread; e < units * run.n_in; e += THREADS)
            body(own + e, run.weights1 + index_t(first_unit) * run.n_in + e);
        for (int h = thread; h < units; h += THREADS) body(room.bias1() + h, run.bias1() + first_unit + h);
        for (int e = thread; e < UNITS * run.n_out; e += THREADS)
            if (e % UNITS < units)
                body(room.weights2() + e, run.weights2 + index_t(e / UNITS) * run.n_hidden + first_unit + e % UNITS);
        for (int o = thread; o < run.n_out; o += THREADS) body(room.bias2() + o, run.bias2() + o);
    }

    __device__ __noinline__ void load() const {
        for (int copy = 0; copy < room.copies(); ++copy)
            each_own([&](real* own, index_t place) { own[copy * room.own()] = run.memory[copy * run.parameters + place]; });
        __syncthreads();  // all is there
    }

    // The parameters go back to memory; b₂, which all blocks have, from the first.
    __device__ __noinline__ void store() const {
        for (int copy = 0; copy < room.copies(); ++copy)
            each_own([&](real* own, index_t place) {
                if (blockIdx.x == 0 || own < room.bias2())
                    run.memory[copy * run.parameters + place] = own[copy * room.own()];
            });
    }

    // One element of a parameter by its gradient, or its gradient into memory.
    __device__ __noinline__ void update(real* own, index_t place, const real* c, real gradient) const {
        if (run.mode == GRADIENTS)
            run.memory[run.gradient + place] = gradient;
        else
            step(run.rule, run.slots, *own, gradient, own[room.own()], own[2 * room.own()], c);
    }

    // a₁ = σ(x W₁ᵀ + b₁) of this block's units.
    __device__ __noinline__ void forward(const index_t* order, int rows) const {
        const real* bias = room.bias1();
        real* a1 = room.a1();
        const int activation = run.activation;
        const auto out = [=](index_t b, index_t h, real sum) { a1[b * UNITS + h] = apply(activation, sum + bias[h]); };
        const Rows x{run.numbers, run.n_in, order, run.bytes}, w{room.weights1(), run.n_in};
        for (int b = 0; b < rows; b += Forward::ROWS)
            tile<Forward>(x, w, out, b, 0, rows, units, run.n_in, room.panels());
        __syncthreads();  // a₁ is there
    }

    // This block's part of z₂, into memory.
    __device__ __noinline__ void put_part(real* part, int rows) const {
        for (int e = thread; e < rows * run.n_out; e += THREADS) {
            const real *a = room.a1() + e / run.n_out * UNITS, *w = room.weights2() + e % run.n_out * UNITS;
            real sum = 0;
            for (int h = 0; h < units; ++h) sum += a[h] * w[h];
            part[e] = sum;
        }
    }

    // z₂ of all blocks' parts, a₂, δ₂, and each row's cost and hit; a thread a row.
    __device__ __noinline__ void output(const real* parts, const index_t* order, int rows) const {
        const int outputs = rows * run.n_out, part = run.batch * run.n_out;
        for (int e = thread; e < outputs; e += THREADS) {
            real sum = 0;
            for (int block = 0; block < gridDim.x; ++block) sum += parts[index_t(block) * part + e];
            room.z2()[e] = sum + room.bias2()[e % run.n_out];
        }
        __syncthreads();  // z₂ is there
        for (int b = thread; b < rows; b += THREADS) {
            const index_t sample = order[b];
            const real *z = room.z2() + b * run.n_out, *y = run.targets + sample * run.n_out;
            const real weight = run.sample_weight[sample];
            real *a = room.a2() + b * run.n_out, *delta = room.delta2() + b * run.n_out;
            if (run.output_activation == SOFTMAX)
                row_softmax<1>(z, a, run.n_out);
            else
                for (int o = 0; o < run.n_out; ++o) a[o] = apply(run.output_activation, z[o]);
            const real cost = row_output<1>(z, a, y, weight / rows, run.output_activation, run.loss, delta, run.n_out);
            room.costs()[b] = weight * cost;
            room.hits()[b] = is_hit<1>(a, y, run.n_out);
        }
        __syncthreads();  // δ₂ is there
    }

    // δ₁ = (δ₂ W₂) ⊙ σ'(z₁).
    __device__ __noinline__ void back(int rows) const {
        for (int e = thread; e < rows * UNITS; e += THREADS) {
            const real* delta = room.delta2() + e / UNITS * run.n_out;
            const int h = e % UNITS;
            real sum = 0;
            if (h < units)
                for (int o = 0; o < run.n_out; ++o) sum += delta[o] * room.weights2()[o * UNITS + h];
            room.delta1()[e] = sum * slope(run.activation, room.a1()[e]);
        }
        __syncthreads();  // δ₁ is there, and W₂ may change
    }

    // Σ_b δ₂[b, o] a₁[b, h] and Σ_b δ₂[b, o], a warp each; the lanes' sums are added as a tree.
    __device__ __noinline__ void output_gradient(const real* c, int rows) const {
        for (int e = threadIdx.y; e < run.n_out * (UNITS + 1); e += ROW_BLOCK) {
            const int o = e / (UNITS + 1), h = e % (UNITS + 1);
            const bool bias = h == UNITS;
            if (!bias && h >= units) continue;
            real sum = 0;
            for (int b = threadIdx.x; b < rows; b += WARP)
                sum += room.delta2()[b * run.n_out + o] * (bias ? real(1) : room.a1()[b * UNITS + h]);
            sum = lanes_sum(sum);
            if (threadIdx.x > 0) continue;
            if (bias)
                update(room.bias2() + o, run.bias2() + o, c + COEFFICIENTS, sum);
            else
                update(room.weights2() + o * UNITS + h, run.weights2 + index_t(o) * run.n_hidden + first_unit + h, c, sum);
        }
    }

    // δ₁ᵀ x and δ₁ᵀ 1.
    __device__ __noinline__ void hidden_gradient(const index_t* order, const real* c, int rows) const {
        const auto out = [=](index_t h, index_t i, real sum) {
            if (i == run.n_in)
                update(room.bias1() + h, run.bias1() + first_unit + h, c + COEFFICIENTS, sum);
            else
                update(room.weights1() + h * run.n_in + i, run.weights1 + (first_unit + h) * run.n_in + i, c, sum);
        };
        // Of x, row n_in is all 1: its gradient is the bias's.
        const Columns delta{room.delta1(), UNITS}, x{run.numbers, run.n_in, order, run.bytes};
        for (int i = 0; i < run.n_in + 1; i += Gradient::COLUMNS)
            tile<Gradient>(delta, x, out, 0, i, units, run.n_in + 1, rows, room.panels());
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
        if (threadIdx.x == 0) run.costs[step] = cost, run.hits[step] = index_t(hits);
    }

    __device__ void steps() const {
        load();
        for (index_t step = 0; step * run.batch < run.samples; ++step) {
            const index_t first = step * run.batch, rest = run.samples - first;
            const int rows = rest < run.batch ? rest : run.batch;
            const index_t* order = run.order + first;
            const real* c = run.coefficients + 2 * step * COEFFICIENTS;
            const index_t part = index_t(run.batch) * run.n_out;
            real* parts = run.parts + step % 2 * gridDim.x * part;
            forward(order, rows);
            put_part(parts + blockIdx.x * part, rows);
            // While the others arrive: the lines of the next batch's inputs, dealt to all threads of the grid.
            grid_barrier(run.arrived, [&] { ask_for(first + rows); });
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
        const index_t line = 128, size = run.n_in * (run.bytes ? 1 : sizeof(real)), lines = (size + line - 1) / line;
        const index_t stop = (first + run.batch < run.samples ? first + run.batch : run.samples) - first;
        const char* inputs = run.bytes ? (const char*)run.bytes : (const char*)run.numbers;
        for (index_t e = index_t(blockIdx.x) * THREADS + thread; e < stop * lines; e += index_t(gridDim.x) * THREADS)
            prefetch(inputs + run.order[first + e / lines] * size + e % lines * line);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) units(
    real* memory, index_t parameters, index_t gradient, const real* numbers, const unsigned char* bytes, int as_bytes,
    const real* targets, const real* sample_weight, const index_t* order, index_t samples, int batch,
    const real* coefficients, int mode, int loss, int rule, int slots, double* costs, index_t* hits,
    unsigned long long* arrived, index_t weights1, index_t weights2, int n_in, int n_hidden, int n_out, int activation,
    int output_activation, real* parts) {
    SHARED_MEMORY(shared);
    static_assert(sizeof(Launch) <= LAUNCH_BYTES, "LAUNCH_BYTES is too small");
    Launch& run = *reinterpret_cast<Launch*>(shared);
    if (threadIdx.x == 0 && threadIdx.y == 0)
        run = Launch{{memory, parameters, gradient, numbers, as_bytes ? bytes : nullptr, targets, sample_weight, order,
                      samples, batch, coefficients, mode, loss, rule, slots, costs, hits, arrived},
                     weights1, weights2, n_in, n_hidden, n_out, activation, output_activation, parts};
    __syncthreads();  // the launch is there
    Block(run, reinterpret_cast<real*>(shared + LAUNCH_BYTES)).steps();
}
