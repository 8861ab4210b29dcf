// grid: a barrier of blocks or the whole grid without a header, for launches all of whose blocks are resident, and
// shared memory.
#ifndef GPUBP_GRID_CUH
#define GPUBP_GRID_CUH
#include "functions.cuh"

#ifdef CUDA_ON_HOST
template <class Meanwhile>
inline void barrier_of(unsigned long long* arrived, unsigned long long&, unsigned blocks, const Meanwhile& meanwhile,
                       unsigned line = __builtin_LINE()) {
    meanwhile();
    blocks_meet_on_host(arrived, blocks, line);
}
inline void grid_barrier(unsigned long long* arrived, unsigned long long&, unsigned line = __builtin_LINE()) {
    blocks_meet_on_host(arrived, gridDim.x, line);
}
inline void prefetch(const void*) {}
#define SHARED_MEMORY(name) unsigned char* name = static_cast<unsigned char*>(shared_memory_on_host())
#define ASSUME_SHARED(pointer)
#define ASSUME_GLOBAL(pointer)
#define CONSTANT
#else
// All threads of these blocks meet, and each block runs ``meanwhile`` once it has arrived. The blocks are those that meet
// at this counter, which only grows: from 0 at the launch by one a block and barrier. ``passed`` is how far it has to be
// by now, of which the first thread keeps count in the block's shared memory, so that arriving waits for no answer. What
// the blocks wrote before is visible to all after: by one fence as they arrive, one when all have, and the blocks' own
// barriers; polls between need none. After MOST_POLLS, if there is such a number, one that would spin for ever stops the kernel.
template <class Meanwhile>
__device__ inline void barrier_of(unsigned long long* arrived, unsigned long long& passed, unsigned blocks,
                                  const Meanwhile& meanwhile) {
    __syncthreads();
    const bool first = threadIdx.x == 0 && threadIdx.y == 0;
    if (first && blocks > 1) asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(arrived) : "memory");
    meanwhile();
    if (first && blocks > 1) {
        const unsigned long long all = passed += blocks;
        unsigned long long now;
        long long polls = 0;
        do {
            asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrived) : "memory");
            if (MOST_POLLS && ++polls > MOST_POLLS) __trap();
        } while (now < all);
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
    }
    __syncthreads();
}
__device__ inline void grid_barrier(unsigned long long* arrived, unsigned long long& passed) {
    barrier_of(arrived, passed, gridDim.x, [] {});
}
// Asks for the memory at this address, so that it is in the second-level cache when it is read.
__device__ inline void prefetch(const void* address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }
// A block's shared memory, of which the first HEAD_BYTES are the barriers' count.
#define SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
// Without it, what a function is given a pointer to may be any memory, and is read by slower instructions.
#define ASSUME_SHARED(pointer) __builtin_assume(__isShared(pointer))
#define ASSUME_GLOBAL(pointer) __builtin_assume(__isGlobal(pointer))
#define CONSTANT __constant__
#endif

// How far the grid's barrier has to be, in HEAD_BYTES of shared memory; its first thread sets and reads it.
__device__ inline unsigned long long& passed() {
    SHARED_MEMORY(shared);
    return *reinterpret_cast<unsigned long long*>(shared);
}

#endif
