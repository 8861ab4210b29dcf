// output: what is done to one row of the output layer (BP1), its cost, and whether it was a hit.
#ifndef GPUBP_OUTPUT_CUH
#define GPUBP_OUTPUT_CUH
#include "functions.cuh"

// δ = a − y and this lane's part of −Σ y ln a = Σ y (ln Σ e^z − z), shifted by the largest z.
template <int LANES = WARP>
__device__ inline real softmax_cross_entropy(const real* z, const real* a, const real* y, real* delta,
                                             index_t n_count) {
    const real largest = row_max<LANES>(z, n_count);
    real total = 0, cost = 0;
    for (index_t n = lane<LANES>(); n < n_count; n += LANES) total += exp(z[n] - largest);
    const real log_total = log(lanes_sum<LANES>(total));
    for (index_t n = lane<LANES>(); n < n_count; n += LANES) {
        delta[n] = a[n] - y[n];
        cost += y[n] * (log_total - (z[n] - largest));
    }
    return cost;
}

// δ = a − y and this lane's part of −Σ y ln a + (1−y) ln(1−a) = Σ max(z, 0) − zy + ln(1 + e^-|z|).
template <int LANES = WARP>
__device__ inline real sigmoid_cross_entropy(const real* z, const real* a, const real* y, real* delta,
                                             index_t n_count) {
    real cost = 0;
    for (index_t n = lane<LANES>(); n < n_count; n += LANES) {
        delta[n] = a[n] - y[n];
        cost += (z[n] > 0 ? z[n] : real(0)) - z[n] * y[n] + log1p(exp(-fabs(z[n])));
    }
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
template <int LANES = WARP>
__device__ inline real unmatched(const real* a, const real* y, int activation, int loss, real* delta,
                                 index_t n_count) {
    real cost = 0;
    for (index_t n = lane<LANES>(); n < n_count; n += LANES) {
        delta[n] = loss_gradient(loss, a[n], y[n], cost);
        if (activation != SOFTMAX) delta[n] *= slope(activation, a[n]);
    }
    if (activation == SOFTMAX) row_softmax_pull_back<LANES>(delta, a, n_count);
    return cost;
}

// Whether the first largest output is where the first largest target is; with one output, the side of ½.
template <int LANES = WARP>
__device__ inline bool is_hit(const real* a, const real* y, index_t n_count) {
    if (n_count == 1) return (a[0] > real(0.5)) == (y[0] > real(0.5));
    return lanes_argmax<LANES>(a, n_count) == lanes_argmax<LANES>(y, n_count);
}

// δ = weight ∇ₐC ⊙ σ'(z) of one row for one of the losses; returns its cost, in every lane, without the weight.
template <int LANES = WARP>
__device__ inline real row_output(const real* z, const real* a, const real* y, real weight, int activation, int loss,
                                  real* delta, index_t n_count) {
    real cost;
    if (loss == CROSS_ENTROPY && activation == SOFTMAX)
        cost = softmax_cross_entropy<LANES>(z, a, y, delta, n_count);
    else if (loss == BINARY_CROSS_ENTROPY && activation == SIGMOID)
        cost = sigmoid_cross_entropy<LANES>(z, a, y, delta, n_count);
    else
        cost = unmatched<LANES>(a, y, activation, loss, delta, n_count);
    for (index_t n = lane<LANES>(); n < n_count; n += LANES) delta[n] *= weight;
    return lanes_sum<LANES>(cost);
}

#endif
