// output: what is done to one row of the output layer (BP1), its cost, and whether it was a hit.
#ifndef GPUBP_OUTPUT_CUH
#define GPUBP_OUTPUT_CUH
#include "functions.cuh"

// δ = a − y and this lane's part of −Σ y ln a = Σ y (ln Σ e^z − z), shifted by the largest z.
template <int LANES = WARP, class Z, class A, class Y, class Delta, class Count>
__device__ inline real softmax_cross_entropy(const Exponents& of, const Z& z, const A& a, const Y& y, const Delta& delta,
                                             Count count) {
    const real log_total = log(of.total);
    real cost = 0;
    each<LANES>(count, [&](int n) {
        delta[n] = a[n] - y[n];
        cost += y[n] * (log_total - (z[n] - of.largest));
    });
    return cost;
}

// δ = a − y and this lane's part of −Σ y ln a + (1−y) ln(1−a) = Σ max(z, 0) − zy + ln(1 + e^-|z|).
template <int LANES = WARP, class Z, class A, class Y, class Delta, class Count>
__device__ inline real sigmoid_cross_entropy(const Z& z, const A& a, const Y& y, const Delta& delta, Count count) {
    real cost = 0;
    each<LANES>(count, [&](int n) {
        delta[n] = a[n] - y[n];
        cost += (z[n] > 0 ? z[n] : real(0)) - z[n] * y[n] + log1p(exp(-fabs(z[n])));
    });
    return cost;
}

// ∂C/∂a of one element, and its C added to the cost; probabilities are clipped to [ε, 1 − ε], but NaN stays.
__device__ inline real loss_gradient(int loss, real a, real y, real& cost) {
    const real difference = a - y;
    if (loss == QUADRATIC) {
        cost += real(0.5) * difference * difference;
        return difference;
    }
    if (loss == SQUARED_ERROR) {
        cost += difference * difference;
        return 2 * difference;
    }
    const real floor = PROBABILITY_FLOOR, p = a < floor ? floor : a > 1 - floor ? 1 - floor : a;
    const bool inside = p == a;
    if (loss == CROSS_ENTROPY) {
        cost -= y * log(p);
        return inside ? -y / p : real(0);
    }
    cost -= y * log(p) + (1 - y) * log1p(-p);
    return inside ? (p - y) / (p * (1 - p)) : real(0);
}

// δ by the loss's gradient and the activation's pull-back, and this lane's part of the cost.
template <int LANES = WARP, class A, class Y, class Delta, class Count>
__device__ inline real unmatched(const A& a, const Y& y, int activation, int loss, const Delta& delta, Count count) {
    real cost = 0;
    each<LANES>(count, [&](int n) {
        delta[n] = loss_gradient(loss, a[n], y[n], cost);
        if (activation != SOFTMAX) delta[n] *= slope(activation, a[n]);
    });
    if (activation == SOFTMAX) row_softmax_pull_back<LANES>(delta, a, count);
    return cost;
}

// Whether the first largest output is where the first largest target is; with one output, the side of ½.
template <int LANES = WARP, class A, class Y> __device__ inline bool is_hit(const A& a, const Y& y, int count) {
    if (count == 1) return (a[0] > real(0.5)) == (y[0] > real(0.5));
    return lanes_argmax<LANES>(a, count) == lanes_argmax<LANES>(y, count);
}
// With one number in each lane both are found side by side: the first of the lanes that have the largest.
template <int LANES = WARP, class A, class Y> __device__ inline bool is_hit(const A& a, const Y& y, OneEach count) {
    if (count == 1) return (a[0] > real(0.5)) == (y[0] > real(0.5));
    const bool mine = lane<LANES>() < count;
    const real output = mine ? a[lane<LANES>()] : -1 / real(0), target = mine ? y[lane<LANES>()] : -1 / real(0);
    real largest = output, largest_target = target;
#pragma unroll
    for (int mask = LANES / 2; mask; mask /= 2) {
        const real other = __shfl_xor_sync(~0u, largest, mask), other_target = __shfl_xor_sync(~0u, largest_target, mask);
        largest = other > largest ? other : largest;
        largest_target = other_target > largest_target ? other_target : largest_target;
    }
    const unsigned row = ~0u >> (WARP - LANES) << (threadIdx.x - lane<LANES>());
    return __ffs(__ballot_sync(~0u, output == largest) & row) == __ffs(__ballot_sync(~0u, target == largest_target) & row);
}

// δ = weight ∇ₐC ⊙ σ'(z) of one row for one of the losses; returns its cost, in every lane, without the weight.
template <int LANES = WARP, class Z, class A, class Y, class Delta, class Count>
__device__ inline real row_delta(const Exponents& of, const Z& z, const A& a, const Y& y, real weight, int activation, int loss,
                                 const Delta& delta, Count count) {
    real cost;
    if (loss == CROSS_ENTROPY && activation == SOFTMAX)
        cost = softmax_cross_entropy<LANES>(of, z, a, y, delta, count);
    else if (loss == BINARY_CROSS_ENTROPY && activation == SIGMOID)
        cost = sigmoid_cross_entropy<LANES>(z, a, y, delta, count);
    else
        cost = unmatched<LANES>(a, y, activation, loss, delta, count);
    each<LANES>(count, [&](int n) { delta[n] *= weight; });
    return lanes_sum<LANES>(cost);
}

// The same with a = σ(z) before it.
template <int LANES = WARP, class Z, class A, class Y, class Delta, class Count>
__device__ inline real row_output(const Z& z, const A& a, const Y& y, real weight, int activation, int loss, const Delta& delta,
                                  Count count) {
    Exponents of{};
    if (activation == SOFTMAX)
        of = row_softmax<LANES>(z, a, count);
    else
        each<LANES>(count, [&](int n) { a[n] = apply(activation, z[n]); });
    return row_delta<LANES>(of, z, a, y, weight, activation, loss, delta, count);
}

#endif
