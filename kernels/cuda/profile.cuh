// profile: with -DPROFILE, the cycles that the first thread of the grid spends in each phase of its steps.
#ifndef GPUBP_PROFILE_CUH
#define GPUBP_PROFILE_CUH
#include "functions.cuh"

// COUNT phases, of which each is ended by the number of its own; begin() is called where the first begins.
#ifdef PROFILE
constexpr int MOST_PHASES = 16;
__device__ unsigned long long phase_cycles[MOST_PHASES];

template <int COUNT> struct Profile {
    static_assert(COUNT <= MOST_PHASES, "more phases than are kept");
    unsigned long long cycles[COUNT] = {};
    long long last = 0;
    __device__ void begin() { last = clock64(); }
    __device__ void ended(int phase) {
        const long long now = clock64();
        cycles[phase] += now - last;
        last = now;
    }
    // What has passed since this clock is of that phase, and not of the one that goes on.
    __device__ long long clock() const { return clock64(); }
    __device__ void apart(int phase, long long since) {
        const long long passed = clock64() - since;
        cycles[phase] += passed, last += passed;
    }
    __device__ void keep() const {
        if (blockIdx.x == 0 && threadIdx.x == 0 && threadIdx.y == 0)
            for (int phase = 0; phase < COUNT; ++phase) phase_cycles[phase] += cycles[phase];
    }
};

// What has been counted since it was last asked for.
template <int COUNT> __device__ void hand_over(unsigned long long* cycles) {
    if (threadIdx.x > 0) return;
    for (int phase = 0; phase < COUNT; ++phase) {
        cycles[phase] = phase_cycles[phase];
        phase_cycles[phase] = 0;
    }
}
#else
template <int COUNT> struct Profile {
    __device__ void begin() {}
    __device__ void ended(int) {}
    __device__ long long clock() const { return 0; }
    __device__ void apart(int, long long) {}
    __device__ void keep() const {}
};
#endif

#endif
