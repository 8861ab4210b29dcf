// micro_cycles: from where it is made to the end of its block; the barriers' count begins there too.
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

