// update: the rules of SGD and Adam on one parameter, flat, in place; a thread an element.
#include "functions.cuh"

// W ← W − η (g + λ W).
extern "C" __global__ void sgd(real* parameter_i, const real* gradient_i, index_t i_count, real lr, real decay) {
    const index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= i_count) return;
    parameter_i[i] -= lr * (gradient_i[i] + decay * parameter_i[i]);
}

// v ← μ v + g + λ W, W ← W − η v; Nesterov's form steps along g + λ W + μ v.
extern "C" __global__ void sgd_momentum(real* parameter_i, const real* gradient_i, real* velocity_i, index_t i_count,
                                        real lr, real momentum, real decay, real nesterov) {
    const index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= i_count) return;
    const real direction = gradient_i[i] + decay * parameter_i[i];
    const real velocity = momentum * velocity_i[i] + direction;
    velocity_i[i] = velocity;
    parameter_i[i] -= lr * (nesterov != 0 ? direction + momentum * velocity : velocity);
}

// g ← g + λ W, m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², W ← W − rate m / (√v correction + ε) − ηλ W; of the two
// decays, λ and ηλ, one is 0.
extern "C" __global__ void adam(real* parameter_i, const real* gradient_i, real* first_i, real* second_i,
                                index_t i_count, real rate, real beta1, real one_minus_beta1, real beta2,
                                real one_minus_beta2, real epsilon, real correction, real decay, real decoupled) {
    const index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= i_count) return;
    const real gradient = gradient_i[i] + decay * parameter_i[i];
    const real first = beta1 * first_i[i] + one_minus_beta1 * gradient;
    const real second = beta2 * second_i[i] + one_minus_beta2 * (gradient * gradient);
    first_i[i] = first;
    second_i[i] = second;
    parameter_i[i] -= rate * (first / (sqrt(second) * correction + epsilon)) + decoupled * parameter_i[i];
}
