/* Current scaling and rounding to a narrow format in two passes over memory. The definition, which must
 * give the same bits, is the PyTorch code in scaling.py and casts.py. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t rows, columns, tile_rows, tile_columns;
    float largest, smallest_normal, magic; /* of the format; magic is 1.5 * 2^(23 - mantissa bits) */
    float floor;                           /* least amax */
    int32_t power_of_two, inverse_from_amax;
} wt_quantiser;

static inline int32_t to_bits(float x) { int32_t bits; memcpy(&bits, &x, 4); return bits; }
static inline float from_bits(int32_t bits) { float x; memcpy(&x, &bits, 4); return x; }

/* Largest magnitude as a bit pattern: integer order is the order of magnitudes, with NaN on top. */
static inline int32_t segment_amax(const float *restrict x, int64_t n, int32_t amax) {
    for (int64_t j = 0; j < n; j++) {
        int32_t bits = to_bits(x[j]) & 0x7fffffff;
        amax = bits > amax ? bits : amax;
    }
    return amax;
}

static float multiplier_of(float amax, const wt_quantiser *q, float *scale) {
    if (amax < q->floor) amax = q->floor;
    float m = q->largest / amax;
    if (m > 3.40282346638528859812e38f) m = 3.40282346638528859812e38f;
    if (q->power_of_two && !isnan(m)) m = from_bits(to_bits(m) & 0x7f800000);
    if (amax == 0) m = 1.0f;
    *scale = q->inverse_from_amax ? amax / q->largest : 1.0f / m;
    return m;
}

static inline void round_segment(const float *restrict x, float *restrict out, int64_t n, float m,
                                 const wt_quantiser *q) {
    const float largest = q->largest, smallest = q->smallest_normal, magic = q->magic;
    for (int64_t j = 0; j < n; j++) {
        float v = x[j] * m;
        float c = v > largest ? largest : v;
        c = c < -largest ? -largest : c;
        float unit = from_bits(to_bits(c) & 0x7f800000);
        unit = (unit < smallest ? smallest : unit) * magic;
        float r = (c + unit) - unit;
        out[j] = from_bits((to_bits(r) & 0x7fffffff) | (to_bits(v) & (int32_t)0x80000000));
    }
}

/* scale: [ceil(rows / tile_rows), ceil(columns / tile_columns)]. Returns 0, or -1 without memory. */
int wt_quantise(const wt_quantiser *q, const float *x, float *out, float *scale) {
    const int64_t tiles = (q->columns + q->tile_columns - 1) / q->tile_columns;
    int32_t *amax = malloc((size_t)(tiles ? tiles : 1) * sizeof *amax);
    float *multiplier = malloc((size_t)(tiles ? tiles : 1) * sizeof *multiplier);
    if (!amax || !multiplier) { free(amax); free(multiplier); return -1; }
    for (int64_t top = 0; top < q->rows; top += q->tile_rows) {
        const int64_t bottom = top + q->tile_rows < q->rows ? top + q->tile_rows : q->rows;
        memset(amax, 0, (size_t)tiles * sizeof *amax);
        for (int64_t i = top; i < bottom; i++)
            for (int64_t t = 0; t < tiles; t++) {
                const int64_t first = t * q->tile_columns, left = q->columns - first;
                const int64_t n = left < q->tile_columns ? left : q->tile_columns;
                amax[t] = segment_amax(x + i * q->columns + first, n, amax[t]);
            }
        for (int64_t t = 0; t < tiles; t++)
            multiplier[t] = multiplier_of(from_bits(amax[t]), q, scale + top / q->tile_rows * tiles + t);
        for (int64_t i = top; i < bottom; i++)
            for (int64_t t = 0; t < tiles; t++) {
                const int64_t first = t * q->tile_columns, left = q->columns - first;
                const int64_t n = left < q->tile_columns ? left : q->tile_columns;
                round_segment(x + i * q->columns + first, out + i * q->columns + first, n, multiplier[t], q);
            }
    }
    free(amax);
    free(multiplier);
    return 0;
}
