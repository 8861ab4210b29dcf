// deform: out[b, :] = the image source[order[b], :] deformed, bytes to numbers, the same bits on every backend.
//
// What is computed is told in gpubp/randomness/deform.py: all of it in whole numbers, but for one product, which is
// rounded once. Four kernels follow each other, for as many images as there is working memory for: each sample's random
// stream, its noise smoothed along y, that smoothed along x, and the pixels. A warp an image and a column tile.
#include "functions.cuh"
#include "random.cuh"

constexpr int NOISE_FROM = 16;  // byte of a stream, before which are the words of the matrix
constexpr int ONE_BITS = 14, ONE = 1 << ONE_BITS;  // 1 in fixed point
constexpr int ANGLES = 256;
constexpr int CLASSES = 256;  // that can have limits of their own

// The streams, (B, 4 counters) words: of eight counters the first two words of each, and then the last two of each.
extern "C" __global__ void deform_draw(const index_t* order_b, unsigned long long key, int purpose, index_t step,
                                       unsigned* stream_bw, index_t b_count, index_t c_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    unsigned* stream = stream_bw + b * 4 * c_count;
    for (index_t c = blockIdx.y * WARP + threadIdx.x; c < c_count; c += gridDim.y * WARP) {
        const Words counter{unsigned(c), unsigned(order_b[b]), unsigned(step), unsigned(purpose)};
        const Words words = philox(counter, unsigned(key), unsigned(key >> 32));
        unsigned* first = stream + c / 8 * 32 + c % 8 * 2;
        first[0] = words.x[0], first[1] = words.x[1];
        first[16] = words.x[2], first[17] = words.x[3];
    }
}

// Σ_k weight[k] number(k), which 32 bits hold.
template <class Number> __device__ inline int smoothed(const int* weight_k, int k_count, const Number& number) {
    int sum = 0;
    for (int k = 0; k < k_count; ++k) sum += weight_k[k] * number(k);
    return sum;
}

// Noise smoothed along y, (B, rows of the grid, columns of the noise), where a column is one of x or of y, in turn.
extern "C" __global__ void deform_down(const unsigned* stream_bw, index_t word_count, const int* weight_k, int k_count,
                                       int column_count, int* down_bn, index_t b_count, index_t n_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    const unsigned char* noise = reinterpret_cast<const unsigned char*>(stream_bw + b * word_count) + NOISE_FROM;
    int* down = down_bn + b * n_count;
    for (index_t n = blockIdx.y * WARP + threadIdx.x; n < n_count; n += gridDim.y * WARP)
        down[n] = smoothed(weight_k, k_count, [&](int k) { return (noise[n + k * column_count] | 1) - 128; });
}

// And along x, to (B, rows of the grid, columns of the grid), of x and of y in turn; down has ``column_count``.
extern "C" __global__ void deform_across(const int* down_bm, const int* weight_k, int k_count, int column_count,
                                         int grid_columns, int* sum_bn, index_t b_count, index_t n_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    const int* down = down_bm + b * (n_count / grid_columns) * column_count;
    int* sum = sum_bn + b * n_count;
    for (int n = blockIdx.y * WARP + threadIdx.x; n < n_count; n += gridDim.y * WARP) {
        const int* row = down + n / grid_columns * column_count + n % grid_columns;
        sum[n] = smoothed(weight_k, k_count, [&](int k) { return row[2 * k]; });
    }
}

// How an image is turned, scaled and sheared, in fixed point.
struct Matrix { int xx, xy, yx, yy; };

// A part of ``most`` by which 16 bits say, to either side.
__device__ inline int part_of(int most, unsigned word) {
    return ((2 * int(word >> 16) + 1 - 65536) * most + 32768) >> 16;
}

// By the first words of a stream; ``turns`` has the cosine and the sine of each angle.
__device__ inline Matrix matrix_of(const unsigned* words, const int* turns, int scaling, int shear) {
    const int *turn = turns + 2 * (words[0] >> 24), cosine = turn[0], sine = turn[1];
    const int x = ONE + part_of(scaling, words[1]), y = ONE + part_of(scaling, words[2]), s = part_of(shear, words[3]);
    const auto rounded = [](int number) { return (number + ONE / 2) >> ONE_BITS; };
    return {rounded(cosine * x), rounded(cosine * s - sine * y), rounded(sine * x), rounded(sine * s + cosine * y)};
}

// A sum at a pixel: there are some for each, or for every second one, between which it is a quarter of a step off.
__device__ inline int sum_at(const int* sum, int grid_columns, int spacing, int row, int column) {
    const auto at = [&](int r, int c) { return sum[r * grid_columns + 2 * c]; };
    if (spacing == 1) return at(row, column);
    const int r = row / 2 + 1, far_r = r - 1 + row % 2 * 2, c = column / 2 + 1, far_c = c - 1 + column % 2 * 2;
    return 3 * (3 * at(r, c) + at(r, far_c)) + 3 * at(far_r, c) + at(far_r, far_c);
}

// sum · scale, rounded once to a whole number, ties to even: in the low bits of a float from 2^23 on.
__device__ inline int scaled(int sum, float scale) {
    return int(__float_as_uint(fmaf(float(sum), scale, 12582912.0f)) - 0x4B400000u);
}

// The images, (S, n) to (B, n). spacing: of the sums; 0 without a field. limit: which of the turns a class has.
extern "C" __global__ void deform_pixels(const unsigned char* source_si, const index_t* order_b,
                                         const unsigned* stream_bw, index_t word_count, const index_t* class_s,
                                         int by_class, const int* limit_c, const int* turn_la, int scaling, int shear,
                                         const int* sum_bn, index_t n_count, int grid_columns, int spacing, float scale,
                                         int w, real* out_bi, index_t b_count, index_t i_count) {
    const index_t b = index_t(blockIdx.x) * blockDim.y + threadIdx.y;
    if (b >= b_count) return;
    const unsigned char* image = source_si + order_b[b] * i_count;
    const index_t label = by_class ? class_s[order_b[b]] : 0;
    const int limit = by_class && label < CLASSES ? limit_c[label] : 0;
    const Matrix m = matrix_of(stream_bw + b * word_count, turn_la + limit * 2 * ANGLES, scaling, shear);
    const int* sum = sum_bn + b * n_count;
    real* out = out_bi + b * i_count;
    const int h = i_count / w;
    const auto pixel = [&](int y, int x) {
        return unsigned(y) < unsigned(h) && unsigned(x) < unsigned(w) ? image[y * w + x] : 0;
    };
    for (int i = blockIdx.y * WARP + threadIdx.x; i < i_count; i += gridDim.y * WARP) {
        const int row = i / w, column = i % w, y = 2 * row - h + 1, x = 2 * column - w + 1;
        int from_x = 128 * (w - 1) + ((m.xx * x + m.xy * y + 64) >> 7);  // in 1/256 pixel
        int from_y = 128 * (h - 1) + ((m.yx * x + m.yy * y + 64) >> 7);
        if (spacing) {
            from_x += scaled(sum_at(sum, grid_columns, spacing, row, column), scale);
            from_y += scaled(sum_at(sum + 1, grid_columns, spacing, row, column), scale);
        }
        const int left = from_x >> 8, top = from_y >> 8, fx = from_x & 255, fy = from_y & 255;
        const int above = pixel(top, left) * (256 - fx) + pixel(top, left + 1) * fx;
        const int below = pixel(top + 1, left) * (256 - fx) + pixel(top + 1, left + 1) * fx;
        out[i] = of_byte((above * (256 - fy) + below * fy + 32768) >> 16);
    }
}
