// update: the optimizer's rule on one parameter, flat, in place; a thread an element.
#include "rules.cuh"

// c0 … c8 are the coefficients in their order; a slot that the rule has not is not read.
extern "C" __global__ void update(real* parameter_i, const real* gradient_i, real* slot1_i, real* slot2_i, index_t i_count,
                                  int rule, int slots, real c0, real c1, real c2, real c3, real c4, real c5, real c6,
                                  real c7, real c8) {
    const index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= i_count) return;
    const real c[COEFFICIENTS] = {c0, c1, c2, c3, c4, c5, c6, c7, c8};
    step(rule, slots, parameter_i[i], gradient_i[i], slot1_i[i], slot2_i[i], c);
}
