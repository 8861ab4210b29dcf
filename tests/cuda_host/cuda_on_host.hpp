// Runs CUDA kernels on the host, for correctness only. Every CUDA thread is a fiber of one OS thread that runs to its
// next barrier or shuffle. Blocks run one after the other; those of a cooperative launch, beside each other. One of them
// is late, and in each block one warp: they go on only when nothing else can, and still read what is used again too
// early. The order of blocks, and of threads between two barriers, is random but seeded; shared memory starts every block as NaN, with guards around what
// a launch asks for; barriers that not all threads reach, or that they meet at different places, are reported.
// Not covered: memory fences, bank conflicts, time; what one lane reads of another's writes without a barrier, as each
// lane here goes on to the next shuffle before another begins; subnormals as 0, which CuPy's options make them; and how
// tensor cores round their sums, which is by cutting off.
// Needs an ELF system, for the section that holds static shared memory, with ucontext.
#pragma once

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <math.h>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <ucontext.h>
#include <vector>

#define CUDA_ON_HOST
using std::max;
using std::min;

struct uint3 { unsigned x, y, z; };

extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

namespace cuda_host {

struct Barrier { unsigned size = 0, arrived = 0, generation = 0, line = 0; };

struct Warp {
    Barrier barrier;
    unsigned fragments[32][6];  // of a and b, of a product on tensor cores
    uint64_t slots[2][32];  // two sets in turn: a lane may be one shuffle ahead of its slowest neighbour
};

struct Block {
    static constexpr size_t GUARD = 64;  // bytes on both sides of shared memory, where no kernel may write
    static constexpr unsigned char GUARD_BYTE = 0x7F;
    uint3 index{};
    Barrier barrier;
    std::vector<Warp> warps;
    bool late = false;
    const Warp* late_warp = nullptr;
    std::vector<unsigned char> memory;
    size_t shared = 0;  // bytes

    unsigned char* base() {
        return reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(memory.data()) + GUARD + 63) & ~uintptr_t(63));
    }
    void prepare(uint3 where, unsigned threads, size_t bytes) {
        index = where, barrier = {threads}, shared = bytes;
        warps.assign((threads + 31) / 32, Warp{});
        memory.assign(bytes + 2 * GUARD + 64, GUARD_BYTE);
        std::memset(base(), 0xFF, bytes);
    }
    bool guarded() {
        const auto intact = [](unsigned char byte) { return byte == GUARD_BYTE; };
        return std::all_of(memory.data(), base(), intact) &&
               std::all_of(base() + shared, memory.data() + memory.size(), intact);
    }
};

struct Copy { void* shared; const void* global; int bytes, inside; };

struct Fiber {
    uint3 index{};
    unsigned lane = 0, generation = 0;
    Block* block = nullptr;
    Warp* warp = nullptr;
    const Barrier* waits_for = nullptr;
    std::vector<std::vector<Copy>> copies;  // asynchronous ones that are not there yet: groups, and those of the next
    bool started = false, done = false;
    ucontext_t context;
    jmp_buf state;
    std::unique_ptr<char[]> stack{new char[STACK]};
    static constexpr size_t STACK = 64 << 10;

    bool late() const { return block->late || warp == block->late_warp; }
    bool blocked() const { return waits_for && waits_for->generation == generation; }
};

inline uint3 grid_size, block_size;
inline std::map<const void*, Barrier> counters;      // where blocks meet, by the counter in memory
inline std::map<unsigned, Barrier> cluster_barriers;  // by the cluster
inline std::vector<Block> blocks;                    // those that run beside each other
inline std::vector<std::unique_ptr<Fiber>> fibers;  // kept from launch to launch, for speed
inline Fiber* current;
inline jmp_buf scheduler;
inline std::function<void()> body;
inline bool progress;
inline std::string failure;

inline unsigned threads() { return block_size.x * block_size.y * block_size.z; }

inline void yield_to_scheduler() {
    if (!_setjmp(current->state)) _longjmp(scheduler, 1);
}

inline void fiber_main() {
    for (;;) {
        body();
        current->done = progress = true;
        yield_to_scheduler();
    }
}

__attribute__((noinline)) inline void resume(Fiber* fiber) {
    current = fiber;
    if (_setjmp(scheduler)) return;
    if (fiber->started) _longjmp(fiber->state, 1);
    fiber->started = true;
    getcontext(&fiber->context);
    fiber->context.uc_stack = {fiber->stack.get(), 0, Fiber::STACK};
    makecontext(&fiber->context, fiber_main, 0);
    setcontext(&fiber->context);
}

inline void wait(Barrier& barrier, unsigned line) {
    if (barrier.arrived && barrier.line != line)
        failure = "threads meet at the different barriers of lines " + std::to_string(barrier.line) + " and " +
                  std::to_string(line);
    barrier.line = line;
    current->waits_for = &barrier;
    current->generation = barrier.generation;
    progress = true;
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        ++barrier.generation;
    }
    yield_to_scheduler();
}

template <class T> T shuffle(T value, unsigned source, unsigned line) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    auto& slots = current->warp->slots[current->warp->barrier.generation % 2];
    std::memcpy(&slots[current->lane], &value, sizeof value);
    wait(current->warp->barrier, line);
    std::memcpy(&value, &slots[source % 32], sizeof value);
    return value;
}

inline void prepare_thread(Fiber& fiber, unsigned t, Block& block) {
    fiber.index = {t % block_size.x, t / block_size.x % block_size.y, t / (block_size.x * block_size.y)};
    fiber.lane = t % 32;
    fiber.block = &block;
    fiber.warp = &block.warps[t / 32];
    ++fiber.warp->barrier.size;
    fiber.waits_for = nullptr;
    fiber.copies.assign(1, {});
    fiber.done = false;
    fiber.copies.assign(1, {});
}

#ifndef CLUSTER
#define CLUSTER 1
#endif

// The block of the current one's cluster that has this rank.
inline Block& of_rank(unsigned rank) {
    const unsigned wanted = current->block->index.x / CLUSTER * CLUSTER + rank;
    for (Block& block : blocks)
        if (block.index.x == wanted) return block;
    failure = "there is no block of this rank";
    return *current->block;
}

constexpr long STATIC_GUARDS = 2 * 4096;  // bytes before and after static shared memory, see fake_cupy.py

// Runs the blocks of these numbers beside each other.
inline void run_blocks(const std::vector<size_t>& numbers, unsigned threads, size_t shared, std::mt19937& random) {
    if (__start_cuda_shared) {
        std::memset(__start_cuda_shared, 0xFF, __stop_cuda_shared - __start_cuda_shared);
        if (numbers.size() > 1 && __stop_cuda_shared - __start_cuda_shared > STATIC_GUARDS)
            failure = "blocks beside each other would share what is __shared__ static";
    }
    const unsigned all = numbers.size() * threads;
    blocks.resize(numbers.size());
    counters.clear(), cluster_barriers.clear();
    while (fibers.size() < all) fibers.push_back(std::make_unique<Fiber>());
    std::vector<Fiber*> alive;
    for (size_t k = 0; k < numbers.size(); ++k) {
        const size_t i = numbers[k];
        blocks[k].prepare({unsigned(i % grid_size.x), unsigned(i / grid_size.x % grid_size.y),
                           unsigned(i / grid_size.x / grid_size.y)}, threads, shared);
        blocks[k].late_warp = &blocks[k].warps[random() % blocks[k].warps.size()];
        for (unsigned t = 0; t < threads; ++t) {
            prepare_thread(*fibers[alive.size()], t, blocks[k]);
            alive.push_back(fibers[alive.size()].get());
        }
    }
    const size_t late = random() % blocks.size();
    for (size_t k = 0; k < blocks.size(); ++k) blocks[k].late = blocks.size() > 1 && k == late;
    bool starved = false;  // nothing can go on that is not late
    while (!alive.empty() && failure.empty()) {
        progress = false;
        std::shuffle(alive.begin(), alive.end(), random);
        for (Fiber* fiber : alive)
            if (!fiber->blocked() && failure.empty() && (starved || !fiber->late())) resume(fiber);
        std::erase_if(alive, [](Fiber* fiber) { return fiber->done; });
        const bool was_starved = starved;
        starved = !progress;
        if (!progress && was_starved && !alive.empty() && failure.empty())
            failure = std::to_string(alive.size()) + " of " + std::to_string(all) +
                      " threads wait at a barrier that the others never reach: line " +
                      std::to_string(alive.front()->waits_for->line);
    }
    for (Block& block : blocks)
        if (failure.empty() && !block.guarded()) failure = "a kernel wrote outside of its shared memory";
}

// Runs one kernel; the result is null, or what went wrong.
inline const char* launch(uint3 grid, uint3 block, size_t shared, bool cooperative, unsigned seed,
                          std::function<void()> kernel) {
    const unsigned threads = block.x * block.y * block.z;
    grid_size = grid, block_size = block, body = std::move(kernel);
    std::mt19937 random(seed);
    std::vector<size_t> order(size_t(grid.x) * grid.y * grid.z);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    failure.clear();
    const size_t together = cooperative ? order.size() : 1;
    for (size_t i = 0; i < order.size() && failure.empty(); i += together)
        run_blocks({order.begin() + i, order.begin() + i + together}, threads, shared, random);
    if (failure.empty()) return nullptr;
    fibers.clear();  // some are stuck inside the kernel
    return failure.c_str();
}

}  // namespace cuda_host

#define threadIdx (cuda_host::current->index)
#define blockIdx (cuda_host::current->block->index)
#define blockDim (cuda_host::block_size)
#define gridDim (cuda_host::grid_size)
// The cycles that a GPU counts: here, how often they were asked for.
inline long long clock64() {
    static long long asked = 0;
    return ++asked;
}

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("cuda_shared")))

inline void __syncthreads(unsigned line = __builtin_LINE()) { cuda_host::wait(cuda_host::current->block->barrier, line); }
inline void __syncwarp(unsigned = ~0u, unsigned line = __builtin_LINE()) {
    cuda_host::wait(cuda_host::current->warp->barrier, line);
}
template <class T> T __shfl_xor_sync(unsigned, T value, unsigned mask, unsigned line = __builtin_LINE()) {
    return cuda_host::shuffle(value, cuda_host::current->lane ^ mask, line);
}
inline void blocks_meet_on_host(const void* counter, unsigned count, unsigned line) {
    const cuda_host::Barrier all{count * cuda_host::threads()};
    cuda_host::wait(cuda_host::counters.try_emplace(counter, all).first->second, line);
}
inline void cluster_barrier_on_host(unsigned line) {
    const cuda_host::Barrier all{CLUSTER * cuda_host::threads()};
    cuda_host::wait(cuda_host::cluster_barriers.try_emplace(blockIdx.x / CLUSTER, all).first->second, line);
}
// The place in the shared memory of the block of this rank that ``place`` is in one's own.
template <class T> T* of_rank_on_host(T* place, unsigned rank) {
    const auto offset = reinterpret_cast<unsigned char*>(place) - cuda_host::current->block->base();
    return reinterpret_cast<T*>(cuda_host::of_rank(rank).base() + offset);
}
inline void __trap() { cuda_host::failure = "the kernel stopped itself"; }
inline void* shared_memory_on_host() { return cuda_host::current->block->base(); }

inline unsigned __ballot_sync(unsigned, bool value, unsigned line = __builtin_LINE()) {
    unsigned found = 0;
    const auto& slots = cuda_host::current->warp->slots[cuda_host::current->warp->barrier.generation % 2];
    cuda_host::shuffle(unsigned(value), 0, line);
    for (unsigned lane = 0; lane < 32; ++lane) found |= unsigned(slots[lane] & 1) << lane;
    return found;
}
inline int __ffs(unsigned bits) { return __builtin_ffs(bits); }

inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t bytes = uint64_t(y) << 32 | x;
    unsigned found = 0;
    for (int k = 0; k < 4; ++k) found |= unsigned(bytes >> 8 * (selector >> 4 * k & 7) & 255) << 8 * k;
    return found;
}
inline float __fdividef(float x, float y) { return x / y; }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Asynchronous copies are made as late as they can be, when they are waited for; until then there is NaN.
inline void copy_async_on_host(void* shared, const void* global, int bytes, int inside) {
    if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes)
        cuda_host::failure = "an asynchronous copy of " + std::to_string(bytes) + " bytes is not aligned";
    std::memset(shared, 0xFF, bytes);
    cuda_host::current->copies.back().push_back({shared, global, bytes, inside});
}
inline void commit_on_host() { cuda_host::current->copies.emplace_back(); }
inline void wait_on_host(size_t groups) {
    auto& copies = cuda_host::current->copies;
    while (copies.size() - 1 > groups) {
        for (const cuda_host::Copy& copy : copies.front()) {
            std::memset(copy.shared, 0, copy.bytes);
            std::memcpy(copy.shared, copy.global, copy.inside);
        }
        copies.erase(copies.begin());
    }
}

// Tensor cores, by the fragments of PTX's mma.m16n8k8 for TF32.
inline unsigned to_tf32(float x) {  // to nearest, ties away from 0; the 13 bits below become 0
    return std::isfinite(x) ? (__float_as_uint(x) + 0x1000u) & ~0x1FFFu : __float_as_uint(x);
}
inline void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], unsigned line = __builtin_LINE()) {
    cuda_host::Warp& warp = *cuda_host::current->warp;
    const unsigned lane = cuda_host::current->lane;
    std::copy(a, a + 4, warp.fragments[lane]);
    std::copy(b, b + 2, warp.fragments[lane] + 4);
    cuda_host::wait(warp.barrier, line);
    for (int i = 0; i < 4; ++i)
        for (unsigned k = 0; k < 8; ++k) {
            const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            const unsigned a_bits = warp.fragments[row % 8 * 4 + k % 4][row / 8 + k / 4 * 2];
            const unsigned b_bits = warp.fragments[column * 4 + k % 4][4 + k / 4];
            c[i] += __uint_as_float(a_bits) * __uint_as_float(b_bits);
        }
    cuda_host::wait(warp.barrier, line);
}
