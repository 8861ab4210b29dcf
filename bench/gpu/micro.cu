// micro: what single things cost on the device. A kernel does its thing ``count`` times, in blocks of THREADS, with
// ``memory`` for 2²⁰ numbers, and leaves the cycles that the first thread of the grid counted. bench/gpu/micro.py lists
// them; what comes before this text are the headers of epoch.cu, and micro_cycles.cuh.

extern "C" __global__ void nothing(unsigned long long* unused) {}

extern "C" __global__ void __launch_bounds__(THREADS, 1) barriers(
    unsigned long long* arrived, real* memory, long long count, long long* cycles) {
    const Cycles timed(cycles);
    for (long long i = 0; i < count; ++i) grid_barrier(arrived, passed());
}

// Every thread writes a number before each barrier, which the barrier then makes visible to all.
extern "C" __global__ void __launch_bounds__(THREADS, 1) barriers_and_stores(
    unsigned long long* arrived, real* memory, long long count, long long* cycles) {
    const Cycles timed(cycles);
    real* const own = memory + blockIdx.x * THREADS + threadIdx.y * WARP + threadIdx.x;
    for (long long i = 0; i < count; ++i) {
        *own = real(i);
        grid_barrier(arrived, passed());
    }
}
