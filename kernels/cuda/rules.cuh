// The optimizers' rules on one element of a parameter, in place; the numbers are Optimizer.coefficients, in order.
#ifndef GPUBP_RULES_CUH
#define GPUBP_RULES_CUH
#include "functions.cuh"

// W ← W − η (g + λ W).
__device__ inline void step_sgd(real& parameter, real gradient, real lr, real decay) {
    parameter -= lr * (gradient + decay * parameter);
}

// v ← μ v + g + λ W, W ← W − η v; Nesterov's form steps along g + λ W + μ v.
__device__ inline void step_momentum(real& parameter, real gradient, real& velocity, real lr, real momentum,
                                     real decay, real nesterov) {
    const real direction = gradient + decay * parameter;
    velocity = momentum * velocity + direction;
    parameter -= lr * (nesterov != 0 ? direction + momentum * velocity : velocity);
}

// g ← g + λ W, m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², W ← W − rate m / (√v correction + ε) − ηλ W; of the two
// decays, λ and ηλ, one is 0.
__device__ inline void step_adam(real& parameter, real gradient, real& first, real& second, real rate, real beta1,
                                 real one_minus_beta1, real beta2, real one_minus_beta2, real epsilon,
                                 real correction, real decay, real decoupled) {
    gradient += decay * parameter;
    first = beta1 * first + one_minus_beta1 * gradient;
    second = beta2 * second + one_minus_beta2 * (gradient * gradient);
    parameter -= rate * (first / (sqrt(second) * correction + epsilon)) + decoupled * parameter;
}

// The rule on one parameter; what it remembers of it, in so many slots, lies ``slot`` and 2 ``slot`` numbers further on.
__device__ inline void step(int rule, int slots, real* parameter, index_t slot, real gradient, const real* c) {
    real *slot1 = parameter + slot, *slot2 = slot1 + slot;
    if (rule == ADAM)
        step_adam(*parameter, gradient, *slot1, *slot2, c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8]);
    else if (slots > 0)
        step_momentum(*parameter, gradient, *slot1, c[0], c[1], c[2], c[3]);
    else
        step_sgd(*parameter, gradient, c[0], c[2]);
}

#endif
