/* Convolutions whose time follows the spikes, the neurons behind them, and neurons behind anything else.
 *
 * Every output pixel gathers: of the spikes under its window it adds up rows of weights, one row an output channel each,
 * in registers. Spikes of a row of pixels stand in one list, sorted by pixel and channel, so that those under a row of
 * the window stand together, and the place of a spike in the list's numbering is also the place of its weights. All
 * steps of a pixel are taken at once: the potential never leaves the registers, and what drives the neurons is written
 * nowhere. Pictures are channels-last, with one byte a spike.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

/* A vector is what the processor has, or sums that should stay in registers are written to memory and read back. */
#if defined(__AVX512BW__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { WIDEST = 8, COPIED = 32, TOGETHER = 4, BLOCK = 512, CODE_BITS = 24, CODE = (1 << CODE_BITS) - 1 };
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t flags __attribute__((vector_size(4 * LANES)));
typedef uint32_t loose_codes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
#define INLINE static inline __attribute__((always_inline))

/* Must match snn/events.py. `wide` is `filters` rounded up to whole vectors; weights lie as [blocks of filters]
 * [rows * columns * channels + 1][filters of the block], blocks as wide as they can be, the last row of each all zeros.
 * Without `spikes` the drive is the result. */
typedef struct {
    int64_t steps, batch, height, width, channels, pool, rows, columns, stride_y, stride_x, pad_y, pad_x;
    int64_t out_height, out_width, filters, wide, bands, threads;
    const uint8_t *input; /* [steps, batch, height, width, channels] */
    const float *weight, *bias;
    float *v;        /* [batch, out_height, out_width, wide], before the first step, and then after the last */
    uint8_t *spikes; /* [steps, batch, out_height, out_width, filters] */
    float *drive;    /* the same */
} convolution;

/* Lists of spikes of as many rows of pixels as a window is high, those under one window, and one row of results. */
typedef struct {
    uint32_t *starts, *codes, *window; /* [rows][steps][padded width + 1], [rows][steps][capacity], [rows * capacity] */
    int64_t padded, capacity;
    uint8_t *spikes; /* [steps][out_width][wide] */
    float *drive;    /* the same */
    float unit[256]; /* what a count of spikes is worth once it is averaged */
#if defined(__AVX2__) && !defined(__AVX512BW__)
    uint64_t order[256]; /* the places of the bits of a byte that are set, one in each byte from the lowest on */
#endif
} scratch;

/* Append the channels of a pixel that are not zero, numbered from `base`. Of a window of `pool` by `pool` pixels, in lines
 * `line` apart, those that are not zero everywhere, and above the number how many spikes there are. Nothing branches on
 * the data, which nobody could foresee. */
INLINE int64_t listed(const scratch *s, const uint8_t *pixel, int64_t line, int64_t channels, uint32_t base,
                      uint32_t *list, const int64_t pool) {
    uint32_t *next = list;
    (void)s;
#ifdef __AVX512BW__
    const __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t c = 0; c < channels; c += 64) {
        const int64_t left = channels - c < 64 ? channels - c : 64;
        const __mmask64 there = left == 64 ? ~0ULL : (1ULL << left) - 1;
        __m512i all = _mm512_maskz_loadu_epi8(there, pixel + c);
        for (int64_t y = 0; y < pool; y++)
            for (int64_t x = y == 0; x < pool; x++)
                all = _mm512_add_epi8(all, _mm512_maskz_loadu_epi8(there, pixel + y * line + x * channels + c));
        const uint64_t active = _mm512_test_epi8_mask(all, all);
        __m128i counts[4];
        _mm512_storeu_si512(counts, all);
        for (int64_t i = 0; i < left; i += LANES) {
            const __mmask16 mask = (__mmask16)(active >> i);
            __m512i code = _mm512_add_epi32(order, _mm512_set1_epi32((int)(base + c + i)));
            if (pool > 1) {
                const __m512i count = _mm512_cvtepu8_epi32(counts[i / LANES]);
                code = _mm512_or_si512(code, _mm512_slli_epi32(count, CODE_BITS));
            }
            _mm512_storeu_si512(next, _mm512_maskz_compress_epi32(mask, code)); /* the list has room behind it */
            next += __builtin_popcount(mask);
        }
    }
#elif defined(__AVX2__)
    const uint64_t ones = 0x0101010101010101u, low = 0x7f * ones, diagonal = 0x0102040810204080u;
    for (int64_t c = 0; c < channels; c += 8) {
        const int64_t left = channels - c < 8 ? channels - c : 8;
        uint64_t all = 0;
        for (int64_t y = 0; y < pool; y++)
            for (int64_t x = 0; x < pool; x++) {
                uint64_t some = 0; /* counts of at most 64 do not carry into each other */
                memcpy(&some, pixel + y * line + x * channels + c, left == 8 ? 8 : (size_t)left);
                all += some;
            }
        const uint64_t active = (all + low) >> 7 & ones;
        const uint32_t mask = (uint32_t)(active * diagonal >> 56); /* the bits side by side */
        const __m128i places = _mm_cvtsi64_si128((long long)s->order[mask]);
        __m256i code = _mm256_add_epi32(_mm256_cvtepu8_epi32(places), _mm256_set1_epi32((int)(base + c)));
        if (pool > 1) {
            const __m128i counts = _mm_shuffle_epi8(_mm_cvtsi64_si128((long long)all), places);
            code = _mm256_or_si256(code, _mm256_slli_epi32(_mm256_cvtepu8_epi32(counts), CODE_BITS));
        }
        _mm256_storeu_si256((__m256i *)next, code); /* the list has room behind it */
        next += __builtin_popcount(mask);
    }
#else
    for (int64_t c = 0; c < channels; c++) {
        uint32_t count = pixel[c];
        for (int64_t y = 0; y < pool; y++)
            for (int64_t x = y == 0; x < pool; x++) count += pixel[y * line + x * channels + c];
        *next = (base + (uint32_t)c) | (pool > 1 ? count << CODE_BITS : 0);
        next += count != 0;
    }
#endif
    return next - list;
}

/* List row y, counted from the top of the padding, of one image at all steps. */
static void list_row(const convolution *l, const scratch *s, int64_t image, int64_t y) {
    const int64_t slot = y % l->rows * l->steps, width = l->width / l->pool;
    const int inside = y >= l->pad_y && y < l->pad_y + l->height / l->pool;
    for (int64_t t = 0; t < l->steps; t++) {
        uint32_t *starts = s->starts + (slot + t) * (s->padded + 1);
        if (!inside) {
            memset(starts, 0, (s->padded + 1) * sizeof *starts);
            continue;
        }
        uint32_t *codes = s->codes + (slot + t) * s->capacity, n = 0;
        const int64_t line = l->width * l->channels;
        const uint8_t *row = l->input + ((t * l->batch + image) * l->height + (y - l->pad_y) * l->pool) * line;
        for (int64_t x = 0; x < l->pad_x; x++) starts[x] = 0;
        for (int64_t x = 0; x < width; x++, row += l->pool * l->channels) {
            const uint32_t base = (uint32_t)((x + l->pad_x) * l->channels);
            starts[x + l->pad_x] = n;
            n += l->pool == 1   ? listed(s, row, line, l->channels, base, codes + n, 1)
                 : l->pool == 2 ? listed(s, row, line, l->channels, base, codes + n, 2)
                                : listed(s, row, line, l->channels, base, codes + n, l->pool);
        }
        for (int64_t x = l->pad_x + width; x <= s->padded; x++) starts[x] = n;
    }
}

INLINE vec worth(loose weight, float count, const int counts) {
    const vec w = weight;
    return counts ? w * count : w;
}

/* Copy the list of one row of a window, adding `shift` to the numbers. Reads and writes past the end. */
INLINE uint32_t *copied(uint32_t *to, const uint32_t *from, const uint32_t *end, uint32_t shift) {
    const int64_t n = end - from;
    for (int64_t i = 0; i < n; i += COPIED)
#pragma GCC unroll 8
        for (int64_t j = i; j < i + COPIED; j += LANES)
            *(loose_codes *)(to + j) = *(const loose_codes *)(from + j) + shift;
    return to + n;
}

/* Add what the listed spikes are worth, some at a time: the end of a loop costs more than additions of zeros. Two sums in
 * turns, where there are registers, so that neither waits for itself. */
INLINE void gather(vec *a, vec *b, const uint32_t *code, const uint32_t *end, const float *weight, const float *unit,
                   const int nb, const int counts) {
    for (; code < end; code += TOGETHER)
#pragma GCC unroll 8
        for (int i = 0; i < TOGETHER; i++) {
            const uint32_t place = counts ? code[i] & CODE : code[i];
            const loose *row = (const loose *)(weight + (int64_t)place * (nb * LANES));
            const float count = counts ? unit[code[i] >> CODE_BITS] : 1;
            vec *sum = i % 2 ? b : a;
#pragma GCC unroll 8
            for (int k = 0; k < nb; k++) sum[k] += worth(row[k], count, counts);
        }
}

/* One pixel, `nb` vectors of filters from `filter` on, all steps. Returns how many spikes it sent. */
INLINE int64_t pixel(const convolution *l, const scratch *s, const float *weight, float *v, int64_t top, int64_t x,
                     int64_t filter, const int nb, const int counts, const int fire) {
    vec potential[WIDEST], bias[WIDEST];
    flags fired = {0};
#pragma GCC unroll 8
    for (int k = 0; k < nb; k++) {
        bias[k] = ((const loose *)(l->bias + filter))[k];
        if (fire) potential[k] = ((const loose *)(v + filter))[k];
    }
    const int64_t first = x * l->stride_x;
    for (int64_t t = 0; t < l->steps; t++) {
        vec a[WIDEST], b[WIDEST];
#pragma GCC unroll 8
        for (int k = 0; k < nb; k++) a[k] = bias[k], b[k] = (vec){0};
        uint32_t *end = s->window;
        for (int64_t r = 0; r < l->rows; r++) {
            const int64_t slot = (top + r) % l->rows * l->steps + t;
            const uint32_t *starts = s->starts + slot * (s->padded + 1) + first, *list = s->codes + slot * s->capacity;
            const int64_t shift = r * l->columns * l->channels - first * l->channels;
            end = copied(end, list + starts[0], list + starts[l->columns], (uint32_t)shift);
        }
        for (int i = 0; i < TOGETHER; i++) end[i] = (uint32_t)(l->rows * l->columns * l->channels);
        gather(a, nb < WIDEST ? b : a, s->window, end, weight, s->unit, nb, counts);
        const int64_t to = (t * l->out_width + x) * l->wide + filter;
#pragma GCC unroll 8
        for (int k = 0; k < nb; k++) {
            const vec drive = nb < WIDEST ? a[k] + b[k] : a[k];
            if (fire) {
                const vec u = potential[k] + drive;
                const flags over = u >= 1.0f;
                potential[k] = u - (vec)(over & (flags)((vec){0} + 1.0f));
                ((bytes *)(s->spikes + to))[k] = __builtin_convertvector(over & 1, bytes);
                fired -= over;
            } else {
                ((loose *)(s->drive + to))[k] = drive;
            }
        }
    }
    int64_t count = 0;
    for (int k = 0; fire && k < LANES; k++) count += fired[k];
#pragma GCC unroll 8
    for (int k = 0; fire && k < nb; k++) ((loose *)(v + filter))[k] = potential[k];
    return count;
}

typedef int64_t line(const convolution *l, const scratch *s, const float *weight, float *v, int64_t top,
                     int64_t filter);
#define LINE(name, nb, counts, fire)                                                                            \
    static int64_t name(const convolution *l, const scratch *s, const float *weight, float *v, int64_t top,     \
                        int64_t filter) {                                                                       \
        int64_t count = 0;                                                                                      \
        for (int64_t x = 0; x < l->out_width; x++)                                                              \
            count += pixel(l, s, weight, v + x * l->wide, top, x, filter, nb, counts, fire);                    \
        return count;                                                                                           \
    }
#define LINES(nb) \
    LINE(line##nb##00, nb, 0, 0) LINE(line##nb##01, nb, 0, 1) LINE(line##nb##10, nb, 1, 0) LINE(line##nb##11, nb, 1, 1)
LINES(1) LINES(2) LINES(4) LINES(8)
#define OF(nb) {{line##nb##00, line##nb##01}, {line##nb##10, line##nb##11}}
static line *const LINE_OF[4][2][2] = {OF(1), OF(2), OF(4), OF(8)};

static void put_row(const convolution *l, const scratch *s, int64_t image, int64_t y) {
    const int64_t size = l->spikes ? 1 : sizeof(float), chunk = l->wide == l->filters ? l->out_width : 1;
    const char *from = l->spikes ? (const char *)s->spikes : (const char *)s->drive;
    char *const result = l->spikes ? (char *)l->spikes : (char *)l->drive;
    for (int64_t t = 0; t < l->steps; t++) {
        const int64_t first = ((t * l->batch + image) * l->out_height + y) * l->out_width;
        for (int64_t x = 0; x < l->out_width; x += chunk, from += chunk * l->wide * size)
            memcpy(result + (first + x) * l->filters * size, from, chunk * l->filters * size);
    }
}

/* Rows [y, stop) of the results of one image. */
static int64_t run_band(const convolution *l, const scratch *s, int64_t image, int64_t y, int64_t stop) {
    int64_t count = 0, next = 0;
    for (; y < stop; y++) {
        const int64_t top = y * l->stride_y;
        for (next = next > top ? next : top; next < top + l->rows; next++) list_row(l, s, image, next);
        float *v = l->v ? l->v + (image * l->out_height + y) * l->out_width * l->wide : NULL;
        const float *weight = l->weight;
        for (int64_t filter = 0; filter < l->wide;) {
            int size = 3;
            while ((LANES << size) > l->wide - filter) size--;
            count += LINE_OF[size][l->pool > 1][l->spikes != NULL](l, s, weight, v, top, filter);
            filter += LANES << size;
            weight += (l->rows * l->columns * l->channels + 1) * (LANES << size);
        }
        put_row(l, s, image, y);
    }
    return count;
}

static void *allocated(int64_t size) {
    void *memory = aligned_alloc(64, (size_t)(size + 63) / 64 * 64 + 64);
    if (memory == NULL) abort();
    return memory;
}

static scratch prepared(const convolution *l) {
    scratch s = {0};
    const int64_t lists = l->rows * l->steps, width = l->width / l->pool, out = l->steps * l->out_width * l->wide;
    s.padded = width + 2 * l->pad_x;
    s.capacity = width * l->channels + COPIED;
    s.starts = allocated(lists * (s.padded + 1) * sizeof(uint32_t));
    s.codes = allocated(lists * s.capacity * sizeof(uint32_t));
    s.window = allocated((l->rows * s.capacity + COPIED) * sizeof(uint32_t));
    s.spikes = allocated(l->spikes ? out : 1);
    s.drive = allocated(l->spikes ? 1 : out * (int64_t)sizeof(float));
    for (int i = 0; i < 256; i++) s.unit[i] = (float)i / (float)(l->pool * l->pool);
#if defined(__AVX2__) && !defined(__AVX512BW__)
    for (uint32_t mask = 0; mask < 256; mask++)
        for (uint32_t place = 0, found = 0; place < 8; place++)
            if (mask >> place & 1) s.order[mask] |= (uint64_t)place << 8 * found++;
#endif
    return s;
}

/* How many filters stand side by side in memory. */
int64_t lanes(void) { return LANES; }

/* Returns how many spikes the neurons sent. */
int64_t convolve(const convolution *l) {
    int64_t count = 0;
#pragma omp parallel num_threads(l->threads) if (l->threads > 1) reduction(+ : count)
    {
        const scratch s = prepared(l);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < l->batch * l->bands; i++) {
            const int64_t band = i % l->bands, rows = l->out_height;
            count += run_band(l, &s, i / l->bands, band * rows / l->bands, (band + 1) * rows / l->bands);
        }
        free(s.starts), free(s.codes), free(s.window), free(s.spikes), free(s.drive);
    }
    return count;
}

/* Must match snn/events.py. One step is `neurons` values; steps of the drive lie `stride` apart, 0 for a constant. */
typedef struct {
    int64_t steps, neurons, stride, channels, threads;
    const float *drive, *current; /* current: [channels], or NULL; channels vary fastest */
    float *v;
    uint8_t *spikes;
} neurons;

static int64_t fire_block(const neurons *l, int64_t first, int64_t n) {
    float v[BLOCK], current[BLOCK] = {0};
    int64_t count = 0;
    memcpy(v, l->v + first, n * sizeof(float));
    for (int64_t i = 0; l->current && i < n; i++) current[i] = l->current[(first + i) % l->channels];
    for (int64_t t = 0; t < l->steps; t++) {
        const float *drive = l->drive + t * l->stride + first;
        uint8_t *spikes = l->spikes + t * l->neurons + first;
        int32_t fired = 0;
        for (int64_t i = 0; i < n; i++) {
            const float u = v[i] + drive[i] + current[i], s = u >= 1.0f ? 1.0f : 0.0f;
            v[i] = u - s;
            spikes[i] = (uint8_t)(u >= 1.0f);
            fired += u >= 1.0f;
        }
        count += fired;
    }
    memcpy(l->v + first, v, n * sizeof(float));
    return count;
}

/* Returns how many spikes the neurons sent. */
int64_t fire(const neurons *l) {
    int64_t count = 0;
#pragma omp parallel for num_threads(l->threads) if (l->threads > 1) reduction(+ : count) schedule(static)
    for (int64_t first = 0; first < l->neurons; first += BLOCK)
        count += fire_block(l, first, l->neurons - first < BLOCK ? l->neurons - first : BLOCK);
    return count;
}

/* Must match snn/events.py: what is left of pictures of bytes when windows of `pool` by `pool` pixels are averaged. */
typedef struct {
    int64_t pictures, height, width, channels, pool, threads;
    const uint8_t *spikes; /* [pictures, height, width, channels] */
    float *values;         /* [pictures, height / pool, width / pool, channels] */
} averages;

/* One row of averages: the lines of its windows are added first, which needs no look at where a pixel begins. */
static void average_row(const averages *l, const uint8_t *rows, uint8_t *restrict sums, float *restrict values) {
    const int64_t line = l->width * l->channels, width = l->width / l->pool;
    const float share = (float)(l->pool * l->pool);
    memcpy(sums, rows, line);
    for (int64_t y = 1; y < l->pool; y++)
        for (int64_t i = 0; i < line; i++) sums[i] = (uint8_t)(sums[i] + rows[y * line + i]);
    for (int64_t x = 0; x < width; x++, values += l->channels, sums += l->pool * l->channels)
        for (int64_t c = 0; c < l->channels; c++) {
            uint32_t sum = sums[c];
            for (int64_t i = 1; i < l->pool; i++) sum += sums[i * l->channels + c];
            values[c] = (float)sum / share;
        }
}

void average(const averages *l) {
    const int64_t height = l->height / l->pool, width = l->width / l->pool, line = l->width * l->channels;
#pragma omp parallel num_threads(l->threads) if (l->threads > 1)
    {
        uint8_t *sums = allocated(line);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < l->pictures * height; i++) {
            const uint8_t *rows = l->spikes + (i / height * l->height + i % height * l->pool) * line;
            float *values = l->values + i * width * l->channels;
            if (l->pool > 1) average_row(l, rows, sums, values);
            else
                for (int64_t j = 0; j < line; j++) values[j] = (float)rows[j];
        }
        free(sums);
    }
}
