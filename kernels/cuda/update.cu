// update: the rules of SGD and Adam on one parameter, flat, in place; a thread an element.
#include "rules.cuh"

extern "C" __global__ void sgd(real* parameter_i, const real* gradient_i, index_t i_count, real lr, real /*momentum*/,
                               real decay, real /*nesterov*/) {
    const index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= i_count) return;
    step_sgd(parameter_i[i], gradient_i[i], lr, decay);
}

extern "C" __global__ void sgd_momentum(real* parameter_i, const real* gradient_i, real* velocity_i, index_t i_count,
                                        real lr, real momentum, real decay, real nesterov) {
    const index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= i_count) return;
    step_momentum(parameter_i[i], gradient_i[i], velocity_i[i], lr, momentum, decay, nesterov);
}

extern "C" __global__ void adam(real* parameter_i, const real* gradient_i, real* first_i, real* second_i,
                                index_t i_count, real rate, real beta1, real one_minus_beta1, real beta2,
                                real one_minus_beta2, real epsilon, real correction, real decay, real decoupled) {
    const index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= i_count) return;
    step_adam(parameter_i[i], gradient_i[i], first_i[i], second_i[i], rate, beta1, one_minus_beta1, beta2,
              one_minus_beta2, epsilon, correction, decay, decoupled);
}
