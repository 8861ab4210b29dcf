// Runs CUDA kernels on the host, for correctness only. Every CUDA thread is a fiber of one OS thread that runs to its
// next barrier or shuffle; blocks run one after the other. The order of blocks, and of threads between two barriers,
// is random but seeded; shared memory starts every block as NaN; barriers that not all threads reach are reported.
// Needs an ELF system, for the section that holds shared memory, with ucontext.
#pragma once

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <functional>
#include <math.h>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <ucontext.h>
#include <vector>

struct uint3 { unsigned x, y, z; };

extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

namespace cuda_host {

struct Barrier { unsigned size = 0, arrived = 0, generation = 0, line = 0; };

struct Warp {
    Barrier barrier;
    uint64_t slots[2][32];  // two sets in turn: a lane may be one shuffle ahead of its slowest neighbour
};

struct Fiber {
    uint3 index{};
    unsigned lane = 0, generation = 0;
    Warp* warp = nullptr;
    const Barrier* waits_for = nullptr;
    bool started = false, done = false;
    ucontext_t context;
    jmp_buf state;
    std::unique_ptr<char[]> stack{new char[STACK]};
    static constexpr size_t STACK = 64 << 10;

    bool blocked() const { return waits_for && waits_for->generation == generation; }
};

inline uint3 grid_size, block_size, block_index;
inline Barrier block_barrier;
inline std::vector<Warp> warps;
inline std::vector<std::unique_ptr<Fiber>> fibers;  // kept from launch to launch, for speed
inline Fiber* current;
inline jmp_buf scheduler;
inline std::function<void()> body;
inline bool progress;
inline std::string failure;

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
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        ++barrier.generation;
        progress = true;
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

inline void prepare_block(unsigned threads) {
    if (__start_cuda_shared) std::memset(__start_cuda_shared, 0xFF, __stop_cuda_shared - __start_cuda_shared);
    block_barrier = {threads};
    warps.assign((threads + 31) / 32, Warp{});
    for (unsigned t = 0; t < threads; ++t) {
        Fiber& fiber = *fibers[t];
        fiber.index = {t % block_size.x, t / block_size.x % block_size.y, t / (block_size.x * block_size.y)};
        fiber.lane = t % 32;
        fiber.warp = &warps[t / 32];
        ++fiber.warp->barrier.size;
        fiber.waits_for = nullptr;
        fiber.done = false;
    }
}

inline void run_block(unsigned threads, std::mt19937& random) {
    prepare_block(threads);
    std::vector<Fiber*> alive;
    for (unsigned t = 0; t < threads; ++t) alive.push_back(fibers[t].get());
    while (!alive.empty() && failure.empty()) {
        progress = false;
        std::shuffle(alive.begin(), alive.end(), random);
        for (Fiber* fiber : alive)
            if (!fiber->blocked() && failure.empty()) resume(fiber);
        std::erase_if(alive, [](Fiber* fiber) { return fiber->done; });
        if (!progress && failure.empty())
            failure = std::to_string(alive.size()) + " of " + std::to_string(threads) +
                      " threads wait at a barrier that the others never reach";
    }
}

// Runs one kernel; the result is null, or what went wrong.
inline const char* launch(uint3 grid, uint3 block, unsigned seed, std::function<void()> kernel) {
    const unsigned threads = block.x * block.y * block.z;
    grid_size = grid, block_size = block, body = std::move(kernel);
    while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
    std::mt19937 random(seed);
    std::vector<size_t> order(size_t(grid.x) * grid.y * grid.z);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    failure.clear();
    for (size_t i : order) {
        block_index = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
        run_block(threads, random);
        if (failure.empty()) continue;
        fibers.clear();  // some are stuck inside the kernel
        return failure.c_str();
    }
    return nullptr;
}

}  // namespace cuda_host

#define threadIdx (cuda_host::current->index)
#define blockIdx (cuda_host::block_index)
#define blockDim (cuda_host::block_size)
#define gridDim (cuda_host::grid_size)
#define __global__
#define __device__
#define __shared__ static __attribute__((section("cuda_shared")))

inline void __syncthreads(unsigned line = __builtin_LINE()) { cuda_host::wait(cuda_host::block_barrier, line); }
inline void __syncwarp(unsigned = ~0u, unsigned line = __builtin_LINE()) {
    cuda_host::wait(cuda_host::current->warp->barrier, line);
}
template <class T> T __shfl_xor_sync(unsigned, T value, unsigned mask, unsigned line = __builtin_LINE()) {
    return cuda_host::shuffle(value, cuda_host::current->lane ^ mask, line);
}
