// async: copies from the device's memory to shared memory that no thread waits for until it asks for them.
//
// A thread's copies since its last commit() are a group. After wait<N>() all groups but the last N are there, for the
// thread that asked for them; for others, after a barrier as well.
#ifndef GPUBP_ASYNC_CUH
#define GPUBP_ASYNC_CUH

#ifdef CUDA_ON_HOST
template <int BYTES> inline void copy_async(void* shared, const void* global, int inside) {
    copy_async_on_host(shared, global, BYTES, inside);
}
inline void commit() { commit_on_host(); }
template <int GROUPS> inline void wait() { wait_on_host(GROUPS); }
#elif __CUDA_ARCH__ >= 800
// BYTES is 4, 8 or 16, to which both addresses are aligned. Of them ``inside``, a multiple of four, come from memory; the
// others become 0. Sixteen go past the first-level cache, of which they would be no use to anyone.
template <int BYTES> __device__ inline void copy_async(void* shared, const void* global, int inside) {
    const unsigned at = __cvta_generic_to_shared(shared);
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(inside) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(global), "n"(BYTES), "r"(inside) : "memory");
}
__device__ inline void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int GROUPS> __device__ inline void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory"); }
#else
// GPUs before sm_80 copy at once.
template <int BYTES> __device__ inline void copy_async(void* shared, const void* global, int inside) {
    struct alignas(4) Part { unsigned x; };
    Part* to = static_cast<Part*>(shared);
#pragma unroll
    for (int i = 0; i < BYTES / 4; ++i) to[i].x = 4 * i < inside ? static_cast<const Part*>(global)[i].x : 0;
}
__device__ inline void commit() {}
template <int GROUPS> __device__ inline void wait() {}
#endif

#endif
