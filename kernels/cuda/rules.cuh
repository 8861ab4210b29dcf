// The optimizers' rules on one element of a parameter, in place.
#ifndef GPUBP_RULES_CUH
#define GPUBP_RULES_CUH
#include "functions.cuh"

// The numbers of a step, as kernels/__init__.py has them.
struct SGDCoefficients { real lr, momentum, decay, nesterov; };
struct AdamCoefficients { real rate, beta1, rest1, beta2, rest2, epsilon, correction, decay, decoupled; };

// W ← W − η (g + λ W).
__device__ inline void step_sgd(real& parameter, real gradient, const SGDCoefficients& c) {
    parameter -= c.lr * (gradient + c.decay * parameter);
}

// v ← μ v + g + λ W, W ← W − η v; Nesterov's form steps along g + λ W + μ v.
__device__ inline void step_momentum(real& parameter, real gradient, real& velocity, const SGDCoefficients& c) {
    const real direction = gradient + c.decay * parameter;
    velocity = c.momentum * velocity + direction;
    parameter -= c.lr * (c.nesterov != 0 ? direction + c.momentum * velocity : velocity);
}

// g ← g + λ W, m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², W ← W − rate m / (√v correction + ε) − ηλ W.
__device__ inline void step_adam(real& parameter, real gradient, real& first, real& second, const AdamCoefficients& c) {
    gradient += c.decay * parameter;
    first = c.beta1 * first + c.rest1 * gradient;
    second = c.beta2 * second + c.rest2 * (gradient * gradient);
    parameter -= c.rate * (first / (sqrt(second) * c.correction + c.epsilon)) + c.decoupled * parameter;
}

// The rule on one parameter and its slots.
__device__ inline void step(int rule, int slots, real& parameter, real gradient, real& slot1, real& slot2, const real* c) {
    if (rule == ADAM)
        step_adam(parameter, gradient, slot1, slot2, *reinterpret_cast<const AdamCoefficients*>(c));
    else if (slots > 0)
        step_momentum(parameter, gradient, slot1, *reinterpret_cast<const SGDCoefficients*>(c));
    else
        step_sgd(parameter, gradient, *reinterpret_cast<const SGDCoefficients*>(c));
}

#endif
