// micro_cluster: what things between the blocks of a cluster cost; as in micro.cu, behind the headers of units.cu.

extern "C" __global__ void OF_CLUSTERS __launch_bounds__(THREADS, 1) cluster_barriers(
    unsigned long long* arrived, real* memory, long long count, long long* cycles) {
    const Cycles timed(cycles);
    for (long long i = 0; i < count; ++i) cluster_barrier();
}

// Every thread writes four numbers into the shared memory of the next block before each barrier, and reads what it got.
extern "C" __global__ void OF_CLUSTERS __launch_bounds__(THREADS, 1) exchanges(
    unsigned long long* arrived, real* memory, long long count, long long* cycles) {
    SHARED_MEMORY(shared);
    auto* own = reinterpret_cast<Vector<real, 4>*>(shared + HEAD_BYTES) + threadIdx.y * WARP + threadIdx.x;
    Vector<real, 4> numbers{};
    const int next = (blockIdx.x + 1) % CLUSTER;
    cluster_begins();
    const Cycles timed(cycles);
    for (long long i = 0; i < count; ++i) {
        put(own + i % 2 * THREADS, next, numbers);  // in turns, as a block may be one barrier ahead
        cluster_barrier();
        numbers = own[i % 2 * THREADS];
    }
    if (threadIdx.x == 0 && threadIdx.y == 0) memory[blockIdx.x] = numbers.x[0];
}
