// grid: a barrier of the whole grid without a header, for launches all of whose blocks are resident, and shared memory.
#ifndef GPUBP_GRID_CUH
#define GPUBP_GRID_CUH
#include "functions.cuh"

#ifdef CUDA_ON_HOST
template <class Meanwhile>
inline void grid_barrier(unsigned long long*, const Meanwhile& meanwhile, unsigned line = __builtin_LINE()) {
    meanwhile();
    grid_barrier_on_host(line);
}
inline void grid_barrier(unsigned long long*, unsigned line = __builtin_LINE()) { grid_barrier_on_host(line); }
inline void prefetch(const void*) {}
#define SHARED_MEMORY(name) unsigned char* name = static_cast<unsigned char*>(shared_memory_on_host())
#define ASSUME_SHARED(pointer)
#else
// All threads of the grid meet, and each block runs ``meanwhile`` once it has arrived. The counter only grows: from 0 at
// the launch by one a block and barrier. What the blocks wrote before is visible to all after: release and acquire at
// GPU scope, made the whole block's by its barriers.
template <class Meanwhile> __device__ inline void grid_barrier(unsigned long long* arrived, const Meanwhile& meanwhile) {
    unsigned long long before = 0, now;
    __syncthreads();
    const bool first = threadIdx.x == 0 && threadIdx.y == 0;
    if (first) asm volatile("atom.add.acq_rel.gpu.global.u64 %0, [%1], 1;" : "=l"(before) : "l"(arrived) : "memory");
    meanwhile();
    if (first) {
        const unsigned long long all = (before / gridDim.x + 1) * gridDim.x;
        do
            asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(arrived) : "memory");
        while (now < all);
    }
    __syncthreads();
}
__device__ inline void grid_barrier(unsigned long long* arrived) {
    grid_barrier(arrived, [] {});
}
// Asks for the memory at this address, so that it is in the second-level cache when it is read.
__device__ inline void prefetch(const void* address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }
#define SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
// Without it, what a function is given a pointer to may be any memory, and is read by slower instructions.
#define ASSUME_SHARED(pointer) __builtin_assume(__isShared(pointer))
#endif

#endif
