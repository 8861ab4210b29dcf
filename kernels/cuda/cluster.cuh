// cluster: CLUSTER blocks beside each other that reach each other's shared memory (compute capability 9.0 and newer).
#ifndef GPUBP_CLUSTER_CUH
#define GPUBP_CLUSTER_CUH
#include "vectors.cuh"

#ifdef CUDA_ON_HOST
#define OF_CLUSTERS
inline void cluster_barrier(unsigned line = __builtin_LINE()) { cluster_barrier_on_host(line); }
template <class T> inline void put(T* place, int rank, const T& value) { *of_rank_on_host(place, rank) = value; }
#elif CLUSTER == 1
#define OF_CLUSTERS
#define cluster_barrier() __syncthreads()
template <class T> __device__ inline void put(T* place, int, const T& value) { *place = value; }
#else
#define OF_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
// All threads of the cluster meet; what they wrote into each other's shared memory is there after.
__device__ inline void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// Writes to the place in the shared memory of the block of that rank that this place is in one's own.
template <class T> __device__ inline void put(T* place, int rank, const T& value) {
    unsigned there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(unsigned(__cvta_generic_to_shared(place))), "r"(rank));
    if constexpr (sizeof(T) % 16 == 0) {
        const uint4* bits = reinterpret_cast<const uint4*>(&value);
#pragma unroll
        for (int i = 0; i < sizeof(T) / 16; ++i)
            asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(there + 16 * i), "r"(bits[i].x),
                         "r"(bits[i].y), "r"(bits[i].z), "r"(bits[i].w) : "memory");
    } else if constexpr (sizeof(T) == 8) {
        const auto bits = *reinterpret_cast<const unsigned long long*>(&value);
        asm volatile("st.shared::cluster.u64 [%0], %1;" ::"r"(there), "l"(bits) : "memory");
    } else {
        static_assert(sizeof(T) == 4, "4 or 8 bytes, or 16 and more");
        const auto bits = *reinterpret_cast<const unsigned*>(&value);
        asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(there), "r"(bits) : "memory");
    }
}
#endif

// No block of a cluster is written into before it has begun.
__device__ inline void cluster_begins() { cluster_barrier(); }

#endif
