// micro: what single things cost on the device. A kernel does its thing ``count`` times, in blocks of THREADS, with
// ``memory`` for 2²⁰ numbers, and leaves the cycles that the first thread of the grid counted. bench/gpu/micro.py lists
// them; what comes before this text are the headers of epoch.cu.

// From where it is made to the end of its block; the barriers' count begins there too.
struct Cycles {
    const bool first;
    long long *out, start;
    __device__ explicit Cycles(long long* out) : first(threadIdx.x == 0 && threadIdx.y == 0), out(out) {
        if (first) passed() = 0;
        start = clock64();
    }
    __device__ ~Cycles() {
        if (first && blockIdx.x == 0) *out = clock64() - start;
    }
};

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
