// launch: what all threads and steps of a kernel that stays for whole epochs have in common.
#ifndef GPUBP_LAUNCH_CUH
#define GPUBP_LAUNCH_CUH
#include "functions.cuh"

// memory holds the parameters, W and then b of each layer, then as many numbers for each of the optimizer's slots, and
// the gradient. Inputs are bytes or numbers. costs and hits are (steps,); coefficients are (steps, 2, COEFFICIENTS): the
// weights' and the biases'. A launch lies in shared memory, once a block, in the first LAUNCH_BYTES.
struct Run {
    real* memory;
    index_t parameters, gradient;
    const real* numbers;
    const unsigned char* bytes;  // in place of the numbers, or null
    const real *targets, *sample_weight;
    const index_t* order;
    index_t samples;
    int batch;
    const real* coefficients;
    int mode, loss, rule, slots;
    double* costs;
    index_t* hits;
    unsigned long long* arrived;
};

#endif
