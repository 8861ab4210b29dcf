// random: random numbers as a function of what they are for, the same bits on every backend; and dropout's masks of them.
//
// What a counter's words are, and where elements lie, is told in gpubp/randomness/philox.py: of 128 elements in a row,
// element e has number e / 16 of counter e % 16, and numbers are halves of words, the low one before the high one.
#ifndef GPUBP_RANDOM_CUH
#define GPUBP_RANDOM_CUH
#include "functions.cuh"

struct Words { unsigned x[4]; };

// Philox 4x32-10: four random words of a counter, under a key of two.
__device__ inline Words philox(Words of, unsigned key0, unsigned key1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned long long first = 0xD2511F53ull * of.x[0], second = 0xCD9E8D57ull * of.x[2];
        of = {unsigned(second >> 32) ^ of.x[1] ^ key0, unsigned(second), unsigned(first >> 32) ^ of.x[3] ^ key1, unsigned(first)};
        key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
    return of;
}

// What one layer's inputs are multiplied by in one step: numbers below ``dropped`` make 0, and all others the factor.
struct Mask {
    unsigned long long key;
    unsigned purpose, step, dropped;
    real factor;

    // body(e, m) for elements of a sample, with what each is multiplied by: the eight of every counter of this thread's.
    template <class Body>
    __device__ void each(index_t sample, int count, int first, int between, const Body& body) const {
        for (int c = first; first_of(c) < count; c += between) {
            const Words words = draw(sample, c);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const int e = first_of(c) + 16 * j;
                if (e < count) body(e, of(half(words.x[j / 2], j % 2)));
            }
        }
    }

    // What one element is multiplied by. Each draws a whole counter: it is for those who have few of a counter's.
    __device__ real at(index_t sample, int e) const {
        const Words words = draw(sample, e / 128 * 16 + e % 16);
        const int number = e / 16 % 8;
        const unsigned low = number & 2 ? words.x[1] : words.x[0], high = number & 2 ? words.x[3] : words.x[2];
        return of(half(number & 4 ? high : low, number & 1));
    }

  private:
    static __device__ int first_of(int counter) { return counter / 16 * 128 + counter % 16; }
    static __device__ unsigned half(unsigned word, int high) { return high ? word >> 16 : word & 0xFFFF; }
    __device__ Words draw(index_t sample, int counter) const {
        return philox({unsigned(counter), unsigned(sample), step, purpose}, unsigned(key), unsigned(key >> 32));
    }
    __device__ real of(unsigned number) const { return number < dropped ? real(0) : factor; }
};

#endif
