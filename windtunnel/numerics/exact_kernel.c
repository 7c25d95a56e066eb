/* Matrix product with a tensor core's accumulator, bit for bit. The model is in accumulators.py; the
 * pure PyTorch twin, which must give the same bits, is in exact_torch.py.
 *
 * Operands come as exact FP32 values. Their exponents are kept beside them (int16): element exponents as
 * the format defines them (that of the subnormals for subnormals), ZERO for zeros, SPECIAL for
 * infinities and NaN. B is packed in panels of W columns: panel, k, column.
 *
 * A vector path handles a panel at a time in FP32; lanes whose exponents come near FP32's limits, and
 * infinities and NaN, take a scalar path in double. Compile with -ffp-contract=off. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define W 32
#define ZERO (-8000)
#define NO_PRODUCT (-4000)
#define SPECIAL 16000
#define REGISTER_SPECIAL 8000

enum { TRUNCATE = 0, NEAREST = 1, FP16 = 2 };

typedef struct {
    int64_t rows, columns, depth;      /* of the product */
    int32_t fraction_bits, terms, zero_exponent, register_bits, rounding, promotion;
} wt_problem;

/* Element (batch, i, j) lies at batch * batch_stride + i * row_stride + j * column_stride. factors, contiguous,
 * are powers of two that the tensor core applies to the elements, or NULL. */
typedef struct {
    const float *values, *factors;
    int64_t batch_stride, row_stride, column_stride;
    int32_t lowest_exponent; /* of the format: that of its subnormals */
} wt_operand;

static inline float from_bits(int32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline int32_t to_bits(float x) { int32_t bits; memcpy(&bits, &x, 4); return bits; }

/* The register nearest to (or below) a double that holds the exact sum. */
static float fit(double v, const wt_problem *p) {
    if (v == 0) return 0.0f;
    if (isnan(v)) return from_bits(0x7fffffff);
    if (isinf(v)) return (float)v;
    int lowest = p->rounding == FP16 ? -14 : -126, bits = p->rounding == FP16 ? 10 : p->register_bits;
    int e;
    frexp(v, &e);
    e = e - 1 < lowest ? lowest : e - 1;
    double units = ldexp(v, bits - e);
    v = ldexp(p->rounding == TRUNCATE ? trunc(units) : rint(units), e - bits);
    if (p->rounding == FP16 && fabs(v) > 65504.0) return (float)copysign(INFINITY, v);
    return (float)v + 0.0f;
}

static int register_exponent(float c, const wt_problem *p) {
    int32_t field = (to_bits(c) >> 23) & 0xff;
    if (field == 0xff) return REGISTER_SPECIAL;
    if (c == 0) return p->zero_exponent;
    int lowest = p->rounding == FP16 ? -14 : -126;
    return field - 127 < lowest ? lowest : field - 127;
}

static float scalar_chunk(const float *a, const int16_t *ea, const float *b, const int16_t *eb, int n, float c,
                          const wt_problem *p) {
    int e = register_exponent(c, p);
    int special = e == REGISTER_SPECIAL;
    double total = c;
    for (int k = 0; k < n; k++) {
        int product = ea[k] + eb[k * W];
        special |= product > NO_PRODUCT && product >= REGISTER_SPECIAL / 2;
        if (product > NO_PRODUCT && product > e) e = product;
        total += (double)a[k] * (double)b[k * W];
    }
    if (special) return isnan(total) ? from_bits(0x7fffffff) : (float)total;
    double sum = trunc(ldexp((double)c, p->fraction_bits - e));
    for (int k = 0; k < n; k++)
        sum += trunc(ldexp((double)a[k] * (double)b[k * W], p->fraction_bits - e));
    return fit(ldexp(sum, e - p->fraction_bits), p);
}

/* Adds n truncated products per lane; the caller keeps n * 2^(fraction_bits + 2) within an int32. */
static inline void add_group(const float *restrict a, const float *restrict b, int n, const float *restrict scale,
                             int32_t *restrict sum) {
    int32_t s[W];
    for (int j = 0; j < W; j++) s[j] = 0;
    for (int k = 0; k < n; k++) {
        float x = a[k];
        for (int j = 0; j < W; j++) s[j] += (int32_t)(x * b[k * W + j] * scale[j]);
    }
    for (int j = 0; j < W; j++) sum[j] = s[j];
}

static inline void panel_chunk(const float *restrict a, const int16_t *restrict ea, const float *restrict b,
                               const int16_t *restrict eb, int n, float *restrict c, const wt_problem *p) {
    const int F = p->fraction_bits;
    const int group = 1 << (31 - F - 2);
    int16_t highest[W];
    for (int j = 0; j < W; j++) highest[j] = 2 * ZERO;
    for (int k = 0; k < n; k++) {
        int16_t x = ea[k];
        for (int j = 0; j < W; j++) {
            int16_t e = (int16_t)(x + eb[k * W + j]);
            highest[j] = e > highest[j] ? e : highest[j];
        }
    }
    int32_t exponent[W], slow[W];
    const int lowest = p->rounding == FP16 ? -14 : -126;
    int any_slow = 0;
    for (int j = 0; j < W; j++) {
        int32_t bits = to_bits(c[j]) & 0x7fffffff, field = bits >> 23;
        int32_t e = field - 127 > lowest ? field - 127 : lowest;
        e = bits == 0 ? p->zero_exponent : e;
        e = highest[j] > e ? highest[j] : e;
        int32_t idle = (bits == 0) & (highest[j] <= NO_PRODUCT);
        slow[j] = (!idle) & ((e > 120) | (e < F - 126));
        any_slow |= slow[j];
        e = e < F - 126 ? F - 126 : e;
        exponent[j] = e > 120 ? 120 : e;
    }
    float start[W], scale[W];
    for (int j = 0; j < W; j++) {
        start[j] = c[j];
        scale[j] = from_bits((F - exponent[j] + 127) << 23);
    }
    if (F <= 15 && n < 64 && p->rounding != FP16) { /* the sum fits 24 bits: stay in FP32 */
        int32_t sum[W];
        add_group(a, b, n, scale, sum);
        const int dropped = 23 - p->register_bits;
        for (int j = 0; j < W; j++) {
            float total = (float)(sum[j] + (int32_t)(c[j] * scale[j])) * from_bits((exponent[j] - F + 127) << 23);
            int32_t bits = to_bits(total);
            if (p->rounding == NEAREST && dropped)
                bits += ((bits >> dropped) & 1) + (1 << (dropped - 1)) - 1;
            c[j] = from_bits(bits & -(1 << dropped));
        }
    } else if (n <= group / 2 && p->rounding == TRUNCATE && p->register_bits == 23) { /* it fits an int32 */
        int32_t sum[W];
        add_group(a, b, n, scale, sum);
        for (int j = 0; j < W; j++) {
            int32_t total = sum[j] + (int32_t)(c[j] * scale[j]);
            float nearest = (float)total;
            int32_t back = (int32_t)nearest;
            int32_t away = total < 0 ? back < total : back > total; /* rounded away from zero: one step back */
            c[j] = from_bits(to_bits(nearest) - away) * from_bits((exponent[j] - F + 127) << 23);
        }
    } else {
        double total[W];
        for (int j = 0; j < W; j++) total[j] = (double)(int32_t)(c[j] * scale[j]);
        for (int k = 0; k < n; k += group) {
            int32_t sum[W];
            add_group(a + k, b + k * W, n - k < group ? n - k : group, scale, sum);
            for (int j = 0; j < W; j++) total[j] += (double)sum[j];
        }
        const int dropped = 52 - p->register_bits;
        const int64_t keep = -((int64_t)1 << dropped), half = ((int64_t)1 << (dropped - 1)) - 1;
        for (int j = 0; j < W; j++) total[j] *= (double)from_bits((exponent[j] - F + 127) << 23);
        if (p->rounding == TRUNCATE)
            for (int j = 0; j < W; j++) {
                int64_t bits;
                memcpy(&bits, &total[j], 8);
                bits &= keep;
                double kept;
                memcpy(&kept, &bits, 8);
                c[j] = (float)kept;
            }
        else if (p->rounding == NEAREST)
            for (int j = 0; j < W; j++) {
                int64_t bits;
                memcpy(&bits, &total[j], 8);
                bits = (bits + ((bits >> dropped) & 1) + half) & keep;
                double kept;
                memcpy(&kept, &bits, 8);
                c[j] = (float)kept;
            }
        else
            for (int j = 0; j < W; j++) c[j] = fit(total[j], p);
    }
    for (int j = 0; j < W; j++) c[j] += 0.0f; /* no minus zero */
    if (any_slow)
        for (int j = 0; j < W; j++)
            if (slow[j]) c[j] = scalar_chunk(a, ea, b + j, eb + j, n, start[j], p);
}

/* Sums of rows [0, rows) of one product. out[rows, columns] starts as C and ends as the product. */
static void rows_of_product(const wt_problem *p, const float *a, const int16_t *ea, const float *b, const int16_t *eb,
                            const float *a_scale, const float *b_scale, float *out) {
    const int64_t columns = p->columns;
    const int64_t slab = p->promotion ? p->promotion : 256 / p->terms * p->terms + (p->terms > 256 ? p->terms : 0);
    const int64_t slabs = (p->depth + slab - 1) / slab;
    for (int64_t first_column = 0; first_column < columns; first_column += W)
        for (int64_t s = 0; s < slabs; s++) {
            const int64_t first = s * slab, last = first + slab < p->depth ? first + slab : p->depth;
            const int width = (int)(columns - first_column < W ? columns - first_column : W);
            const float *bp = b + first_column * p->depth;
            const int16_t *ebp = eb + first_column * p->depth;
            for (int64_t m = 0; m < p->rows; m++) {
                float c[W] = {0}, *destination = out + m * columns + first_column;
                if (!p->promotion) memcpy(c, destination, (size_t)width * sizeof *c);
                for (int64_t k = first; k < last; k += p->terms) {
                    int n = (int)(last - k < p->terms ? last - k : p->terms);
                    panel_chunk(a + m * p->depth + k, ea + m * p->depth + k, bp + k * W, ebp + k * W, n, c, p);
                }
                if (!p->promotion)
                    memcpy(destination, c, (size_t)width * sizeof *c);
                else if (a_scale == NULL)
                    for (int j = 0; j < width; j++) destination[j] += c[j];
                else {
                    const float row = a_scale[m * slabs + s], *column = b_scale + s * columns + first_column;
                    for (int j = 0; j < width; j++) destination[j] = fmaf(row * column[j], c[j], destination[j]);
                }
            }
        }
}

static inline int16_t exponent_of(float x, int lowest) {
    int32_t field = (to_bits(x) >> 23) & 0xff;
    int32_t e = field - 127 < lowest ? lowest : field - 127;
    e = x == 0 ? ZERO : e;
    return (int16_t)(field == 0xff ? SPECIAL : e);
}

/* A power-of-two factor shifts value and exponent alike. */
static inline float scaled(float x, float factor, int16_t *e) {
    float y = x * factor;
    if (*e > NO_PRODUCT && *e < SPECIAL) *e = (int16_t)(*e + ilogbf(factor));
    if (!isfinite(y)) *e = SPECIAL;
    return y;
}

static void pack_rows(const wt_operand *x, int64_t first, int64_t rows, int64_t depth, float *v, int16_t *e) {
    for (int64_t i = 0; i < rows; i++) {
        const float *line = x->values + (first + i) * x->row_stride;
        for (int64_t k = 0; k < depth; k++) {
            v[i * depth + k] = line[k * x->column_stride];
            e[i * depth + k] = exponent_of(v[i * depth + k], x->lowest_exponent);
        }
        if (x->factors)
            for (int64_t k = 0; k < depth; k++)
                v[i * depth + k] = scaled(v[i * depth + k], x->factors[(first + i) * depth + k], e + i * depth + k);
    }
}

static void pack_panels(const wt_operand *x, int64_t depth, int64_t columns, float *v, int16_t *e) {
    for (int64_t first = 0; first < columns; first += W) {
        float *panel = v + first * depth;
        const int64_t width = columns - first < W ? columns - first : W;
        if (width < W) memset(panel, 0, (size_t)(depth * W) * sizeof *panel);
        if (x->column_stride == 1)
            for (int64_t k = 0; k < depth; k++)
                memcpy(panel + k * W, x->values + k * x->row_stride + first, (size_t)width * sizeof *panel);
        else
            for (int64_t j = 0; j < width; j++)
                for (int64_t k = 0; k < depth; k++)
                    panel[k * W + j] = x->values[k * x->row_stride + (first + j) * x->column_stride];
        for (int64_t i = 0; i < depth * W; i++)
            e[first * depth + i] = exponent_of(panel[i], x->lowest_exponent);
        if (x->factors)
            for (int64_t k = 0; k < depth; k++)
                for (int64_t j = 0; j < width; j++)
                    panel[k * W + j] =
                        scaled(panel[k * W + j], x->factors[k * columns + first + j], e + first * depth + k * W + j);
    }
}

/* batch products a[rows, depth] b[depth, columns], of which this call does rows first_row and on.
 * out[batch, all rows, columns] starts as C and ends as the product. With promotion, a_scale [rows, slabs] and
 * b_scale [slabs, columns] multiply each slab's sum; both NULL means 1. Returns 0, or -1 without memory. */
int wt_exact_matmul(const wt_problem *p, int64_t batch, int64_t first_row, int64_t all_rows, const wt_operand *a,
                    const wt_operand *b, const float *a_scale, const float *b_scale, float *out) {
    const size_t left = (size_t)(p->rows * p->depth), right = (size_t)((p->columns + W - 1) / W * W * p->depth);
    float *values = malloc((left + right) * sizeof *values);
    int16_t *exponents = malloc((left + right) * sizeof *exponents);
    const int64_t slabs = p->promotion ? (p->depth + p->promotion - 1) / p->promotion : 0;
    int failed = !values || !exponents;
    fenv_t environment;
    fegetenv(&environment);
    fesetenv(FE_DFL_ENV); /* a caller may have subnormals flushed to zero */
    for (int64_t i = 0; i < batch && !failed; i++) {
        wt_operand x = *a, y = *b;
        x.values += i * a->batch_stride;
        y.values += i * b->batch_stride;
        pack_rows(&x, first_row, p->rows, p->depth, values, exponents);
        pack_panels(&y, p->depth, p->columns, values + left, exponents + left);
        rows_of_product(p, values, exponents, values + left, exponents + left,
                        a_scale ? a_scale + first_row * slabs : NULL, b_scale,
                        out + (i * all_rows + first_row) * p->columns);
    }
    fesetenv(&environment);
    free(values);
    free(exponents);
    return failed ? -1 : 0;
}
