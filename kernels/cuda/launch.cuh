// launch: what all threads and steps of a kernel that stays for whole epochs have in common.
#ifndef GPUBP_LAUNCH_CUH
#define GPUBP_LAUNCH_CUH
#include "functions.cuh"
#include "grid.cuh"

// A pointer to the device's memory that lies in memory itself, and so might be to any: it is read as what it is.
template <class T> struct Global {
    T* pointer;
    __device__ operator T*() const {
        T* const known = pointer;
        ASSUME_GLOBAL(known);
        return known;
    }
};

// memory holds the parameters, W and then b of each layer, then as many numbers for each of the optimizer's slots, and
// the gradient. Inputs are bytes or numbers. costs and hits are (steps,); coefficients are (steps, 2, COEFFICIENTS): the
// weights' and the biases'.
//
// A kernel's Launch begins with it, and is the one symbol ``launch`` of the module, in constant memory: no thread keeps
// it in registers or looks it up elsewhere. Its fields are those of LAUNCHES in __init__.py, in that order.
struct Run {
    Global<real> memory;
    index_t parameters, gradient;
    Global<const real> numbers;
    Global<const unsigned char> bytes;  // in place of the numbers, or null
    Global<const real> targets, sample_weight;
    Global<const index_t> order;
    index_t samples, steps;
    Global<const real> coefficients;
    Global<double> costs;
    Global<index_t> hits;
    Global<unsigned long long> arrived;
    int batch, mode, loss, rule, slots;
    int room;  // for a multiple of eight bytes
};

#endif
