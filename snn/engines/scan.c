/* All steps of a layer of spiking neurons in one pass over memory, forward and backward.
 *
 * The equations are those of snn/cells. One block of neurons is taken through all steps while its state stays in the
 * first-level cache. The forward pass keeps nothing: the backward pass runs the block's steps once more from the drive,
 * into a scratch that stays in the cache too, and then back through time. So memory sees, per neuron and step, one read
 * and one write on the way forth, two reads and one write on the way back; average pooling behind the neurons is done
 * on the way, and shrinks what is written forth and read back.
 *
 * Compiled once for each combination of KIND, HARD, RESTING, LEARNED, BF16, SURROGATE and POOL, so that the loops have
 * no branches. Contraction to fused multiply-add must be off: spikes are those of the step functions bit for bit.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PLAIN, CURRENT, ADAPTIVE };
enum { ARCTAN, FAST_SIGMOID, TRIANGLE, SIGMOID, SUPERSPIKE, GAUSSIAN };

#if BF16
typedef uint16_t value; /* of the drive, the spikes and their gradients; everything else is fp32 */
#else
typedef float value;
#endif

/* Must match snn/engines/native.py. A NULL: no state to start from (zeros), a result nobody wants, or no gradient
 * coming in (zeros). The neurons of one step lie in lines of `line`; POOL lines at a time and POOL groups of `channels`
 * along a line are pooled, to neurons / POOL / POOL values. Without pooling (POOL 1) the step is one line of anything.
 * Steps of the drive may be further apart than their neurons, or all the same. */
typedef struct {
    int64_t steps, neurons, line, channels, block, drive_stride, period, threads;
    float decay, synaptic_decay, adaptation, adaptation_decay, refractory, attached, slope, unused;
    const float *threshold; /* of neuron i: threshold[i % period] */
    const value *drive;
    const float *v0, *current0, *adapted0, *rest0;
    value *spikes;
    float *v, *current, *adapted, *rest;
    const value *grad_spikes;
    const float *grad_v, *grad_current, *grad_adapted;
    value *grad_drive;
    float *grad_v0, *grad_current0, *grad_adapted0;
    double *grad_decay; /* one for each block, to be summed in their order whatever the number of threads */
} layer;

/* The neurons one thread takes through time: n in each of POOL lines. */
typedef struct {
    int64_t first, n, pooled; /* of the first neuron; of its pooled value */
} block;

/* Rows of one block, [POOL][n], `wide` [n] and `narrow` [n / POOL]; what happened in each step for the backward pass. */
typedef struct {
    float *theta, *v, *current, *adapted, *rest;
    float *grad_v, *grad_current, *grad_adapted, *grad_u, *grad_decay, *wide, *narrow;
    float *u, *raised, *held; /* [steps][POOL][n] */
} scratch;

static inline float get(value v) {
#if BF16
    const uint32_t bits = (uint32_t)v << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
#else
    return v;
#endif
}

static inline value rounded(float x) { /* to the nearest, ties to even */
#if BF16
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint16_t half = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    return x != x ? 0x7fc0 : half;
#else
    return x;
#endif
}

#if POOL == 1
typedef value wire; /* what a step hands to, or takes from, its surroundings: memory, or the pooling in `wide` */
static inline float taken(wire x) { return get(x); }
#define ONE (BF16 ? 0x3f80 : 1)
#else
typedef float wire;
static inline float taken(wire x) { return x; }
#define ONE 1
#endif

static void load(float *to, const float *from, const layer *l, block b) {
    for (int r = 0; r < POOL; r++, to += b.n) {
        if (from) memcpy(to, from + b.first + r * l->line, b.n * sizeof(float));
        else memset(to, 0, b.n * sizeof(float));
    }
}

static void store(float *to, const float *from, const layer *l, block b) {
    for (int r = 0; to && r < POOL; r++) memcpy(to + b.first + r * l->line, from + r * b.n, b.n * sizeof(float));
}

/* Ask for what the next block will need from this row: the rows of one block are far apart, and no hardware sees it. */
static inline void expect(const value *row, int64_t n) {
    for (const char *p = (const char *)(row + n), *end = (const char *)(row + 2 * n); p < end; p += 64)
        __builtin_prefetch(p, 0, 2);
}

static float *divide(scratch *s, const layer *l) {
    float **rows[] = {&s->theta,  &s->v,            &s->current,      &s->adapted, &s->rest,      &s->wide,
                      &s->grad_v, &s->grad_current, &s->grad_adapted, &s->grad_u,  &s->grad_decay,
                      &s->narrow};
    const int64_t count = sizeof rows / sizeof *rows, size = (POOL * l->block + 15) / 16 * 16;
    float *memory = aligned_alloc(64, (size_t)((count + 3 * l->steps) * size) * sizeof(float));
    if (memory == NULL) abort();
    for (int64_t i = 0; i < count; i++) *rows[i] = memory + i * size;
    s->u = memory + count * size;
    s->raised = s->u + l->steps * size;
    s->held = s->raised + l->steps * size;
    return memory;
}

static void begin(const layer *l, const scratch *s, block b) {
    for (int r = 0; r < POOL; r++) {
        int64_t k = (b.first + r * l->line) % l->period;
        for (int64_t j = 0; j < b.n; j++) {
            s->theta[r * b.n + j] = l->threshold[k];
            if (++k == l->period) k = 0;
        }
    }
    load(s->v, l->v0, l, b);
    if (KIND == CURRENT) load(s->current, l->current0, l, b);
    if (KIND == ADAPTIVE) load(s->adapted, l->adapted0, l, b);
    if (RESTING) load(s->rest, l->rest0, l, b);
}

/* One step of n neurons, from `at` in their block. The forward pass wants the spikes, the backward pass (spikes NULL)
 * what led to them. Choices are products with 0 and 1, which are exact: branches would cost the vectors. */
static inline void step(const layer *l, const scratch *s, int64_t at, int64_t n, const value *restrict drive,
                        wire *restrict spikes, float *restrict u_row, float *restrict raised_row,
                        float *restrict held_row) {
    float *restrict v = s->v + at, *restrict current = s->current + at, *restrict adapted = s->adapted + at;
    float *restrict rest = s->rest + at;
    const float *restrict theta = s->theta + at;
    const float alpha = l->decay, beta = l->synaptic_decay, kappa = l->adaptation, rho = l->adaptation_decay;
    const float refractory = l->refractory;
    for (int64_t j = 0; j < n; j++) {
        float x = get(drive[j]);
        if (KIND == CURRENT) current[j] = x = beta * current[j] + x;
        float u = alpha * v[j] + x;
        const float raised = KIND == ADAPTIVE ? theta[j] + kappa * adapted[j] : theta[j];
        float fired = u >= raised ? 1.0f : 0.0f;
        if (RESTING) {
            const float held = rest[j] > 0.0f ? 1.0f : 0.0f;
            u = (1.0f - held) * u + held * v[j];
            fired *= 1.0f - held;
            rest[j] = fired * refractory + held * (rest[j] - 1.0f);
            if (!spikes) held_row[j] = held;
        }
        v[j] = HARD ? u * (1.0f - fired) : u - theta[j] * fired;
        if (KIND == ADAPTIVE) adapted[j] = rho * adapted[j] + fired;
        if (spikes) spikes[j] = POOL > 1 ? spikes[j] + (wire)fired : fired > 0.0f ? ONE : 0;
        else u_row[j] = u;
        if (!spikes && KIND == ADAPTIVE) raised_row[j] = raised;
    }
}

typedef float lanes __attribute__((vector_size(64), aligned(4), may_alias));

/* Along a line, POOL pixels of `channels` become one, or one becomes POOL. count: of the fewer. */
static inline void add_pixels(const float *wide, float *narrow, int64_t count, int64_t channels) {
    for (int64_t w = 0; w < count; w++, narrow += channels)
        for (int i = 0; i < POOL; i++, wide += channels) {
            int64_t c = 0;
            for (; c + 16 <= channels; c += 16) {
                lanes sum = *(const lanes *)(wide + c);
                if (i) sum += *(const lanes *)(narrow + c);
                *(lanes *)(narrow + c) = sum;
            }
            for (; c < channels; c++) narrow[c] = (i ? narrow[c] : 0) + wide[c];
        }
}

static inline void repeat_pixels(const float *narrow, float *wide, int64_t count, int64_t channels) {
    for (int64_t w = 0; w < count; w++, narrow += channels)
        for (int i = 0; i < POOL; i++, wide += channels) {
            int64_t c = 0;
            for (; c + 16 <= channels; c += 16) *(lanes *)(wide + c) = *(const lanes *)(narrow + c);
            for (; c < channels; c++) wide[c] = narrow[c];
        }
}

/* Sums of the spikes of POOL lines, in `wide`, become means of POOL x POOL. */
static inline void pool(const scratch *s, value *restrict out, int64_t n, int64_t channels) {
    float *restrict narrow = s->narrow;
    add_pixels(s->wide, narrow, n / POOL / channels, channels);
    for (int64_t j = 0; j < n / POOL; j++) out[j] = rounded(narrow[j] / (POOL * POOL));
}

/* The way back of `pool`; what is left in `wide` holds for all POOL lines. */
static inline void unpool(const scratch *s, const value *restrict in, int64_t n, int64_t channels) {
    float *restrict narrow = s->narrow;
    for (int64_t j = 0; j < n / POOL; j++) narrow[j] = get(in[j]) / (POOL * POOL);
    repeat_pixels(narrow, s->wide, n / POOL / channels, channels);
}

static void forward_block(const layer *l, const scratch *s, block b) {
    begin(l, s, b);
    for (int64_t t = 0; t < l->steps; t++) {
        value *out = l->spikes + t * (l->neurons / POOL / POOL) + b.pooled;
        if (POOL > 1) memset(s->wide, 0, b.n * sizeof(float));
        for (int r = 0; r < POOL; r++) {
            const value *drive = l->drive + t * l->drive_stride + b.first + r * l->line;
            expect(drive, b.n);
            step(l, s, r * b.n, b.n, drive, POOL == 1 ? (wire *)out : (wire *)s->wide, NULL, NULL, NULL);
        }
        expect(out, b.n / POOL);
        if (POOL > 1) pool(s, out, b.n, l->channels);
    }
    store(l->v, s->v, l, b);
    if (KIND == CURRENT) store(l->current, s->current, l, b);
    if (KIND == ADAPTIVE) store(l->adapted, s->adapted, l, b);
    if (RESTING) store(l->rest, s->rest, l, b);
}

/* exp(-x) for x >= 0 without a call, so that loops of it become vectors: 2^-n exp(-r). */
static inline float decaying(float x) {
    uint32_t bits, largest = 0x42ae0000; /* 87: as whole numbers, or the compiler makes a branch of it */
    memcpy(&bits, &x, 4);
    bits = bits < largest ? bits : largest;
    memcpy(&x, &bits, 4);
    const int32_t n = (int32_t)(x * 1.44269504f + 0.5f);
    const float r = ((float)n * 0.693359375f - x) - (float)n * 2.12194440e-4f;
    const float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.6666667e-1f + r * (4.1666668e-2f + r * (8.3333340e-3f +
                    r * 1.3888889e-3f)))));
    const uint32_t power = (uint32_t)(127 - n) << 23;
    float scale;
    memcpy(&scale, &power, 4);
    return p * scale;
}

/* The surrogate's derivative at d = u - theta; the formulas stand in snn/cells/surrogates.py. */
static inline float derivative(float d, float k) {
    const float m = fabsf(d);
    switch (SURROGATE) {
    case ARCTAN: return 0.5f * k / (1.0f + (1.57079633f * k * d) * (1.57079633f * k * d));
    case FAST_SIGMOID: return 0.5f * k / ((1.0f + k * m) * (1.0f + k * m));
    case TRIANGLE: return k * (1.0f - k * m > 0.0f ? 1.0f - k * m : 0.0f);
    case SIGMOID: return k * decaying(k * m) / ((1.0f + decaying(k * m)) * (1.0f + decaying(k * m)));
    case SUPERSPIKE: return 1.0f / ((1.0f + k * m) * (1.0f + k * m));
    default: return 0.39894228f * k * decaying(0.5f * (k * d) * (k * d));
    }
}

/* One step back of n neurons: the gradients of the state after the step become those of the state before it. */
static inline void back(const layer *l, const scratch *s, int64_t at, int64_t n, const wire *restrict grad_spikes,
                        value *restrict grad_drive, const float *restrict u_row, const float *restrict raised,
                        const float *restrict held_row) {
    float *restrict gv = s->grad_v + at, *restrict gc = s->grad_current + at, *restrict ga = s->grad_adapted + at;
    float *restrict gu_row = s->grad_u + at;
    const float *restrict theta = s->theta + at;
    const float alpha = l->decay, beta = l->synaptic_decay, kappa = l->adaptation, rho = l->adaptation_decay;
    const float attached = l->attached, slope = l->slope;
    for (int64_t j = 0; j < n; j++) {
        const float u = u_row[j], d = u - raised[j], open = RESTING ? 1.0f - held_row[j] : 1.0f;
        const float silent = d >= 0.0f ? 1.0f - open : 1.0f; /* 1 - s */
        float gs = (grad_spikes ? taken(grad_spikes[j]) : 0.0f) - attached * (HARD ? u : theta[j]) * gv[j];
        if (KIND == ADAPTIVE) gs += ga[j];
        const float gd = open * (gs * derivative(d, slope));
        const float gu = (HARD ? silent * gv[j] : gv[j]) + gd;
        if (KIND == ADAPTIVE) ga[j] = rho * ga[j] - kappa * gd;
        gv[j] = RESTING ? (open * alpha + (1.0f - open)) * gu : alpha * gu;
        float gx = open * gu;
        if (LEARNED) gu_row[j] = gx;
        if (KIND == CURRENT) {
            gx += gc[j];
            gc[j] = beta * gx;
        }
        grad_drive[j] = rounded(gx);
    }
}

/* d loss / d decay of one step: the gradient of the potential times the potential v that was there before, which
 * the first step found in s->v and every other one can tell from what happened in the step before it. */
static void back_decay(const scratch *s, int64_t t, int64_t n) {
    const int64_t before = (t - 1) * n;
    for (int64_t j = 0; j < n; j++) {
        float v = s->v[j];
        if (t > 0) {
            const float u = s->u[before + j], raised = KIND == ADAPTIVE ? s->raised[before + j] : s->theta[j];
            const float fired = u >= raised ? (RESTING ? 1.0f - s->held[before + j] : 1.0f) : 0.0f;
            v = HARD ? u * (1.0f - fired) : u - s->theta[j] * fired;
        }
        s->grad_decay[j] += s->grad_u[j] * v;
    }
}

static void backward_block(const layer *l, const scratch *s, block b) {
    const int64_t all = POOL * b.n;
    begin(l, s, b);
    for (int64_t t = 0; t < l->steps; t++)
        for (int r = 0; r < POOL; r++) {
            const int64_t row = t * all + r * b.n;
            const value *drive = l->drive + t * l->drive_stride + b.first + r * l->line;
            expect(drive, b.n);
            step(l, s, r * b.n, b.n, drive, NULL, s->u + row, s->raised + row, s->held + row);
        }
    load(s->v, l->v0, l, b);
    load(s->grad_v, l->grad_v, l, b);
    if (KIND == CURRENT) load(s->grad_current, l->grad_current, l, b);
    if (KIND == ADAPTIVE) load(s->grad_adapted, l->grad_adapted, l, b);
    memset(s->grad_decay, 0, all * sizeof(float));
    for (int64_t t = l->steps - 1; t >= 0; t--) {
        const value *in = l->grad_spikes ? l->grad_spikes + t * (l->neurons / POOL / POOL) + b.pooled : NULL;
        if (in) expect(in, b.n / POOL);
        if (in && POOL > 1) unpool(s, in, b.n, l->channels);
        for (int r = 0; r < POOL; r++) {
            const int64_t row = t * all + r * b.n;
            value *out = l->grad_drive + t * l->neurons + b.first + r * l->line;
            const wire *grad_spikes = POOL == 1 || !in ? (const wire *)in : (const wire *)s->wide;
            expect(out, b.n);
            back(l, s, r * b.n, b.n, grad_spikes, out, s->u + row,
                 KIND == ADAPTIVE ? s->raised + row : s->theta + r * b.n, s->held + row);
        }
        if (LEARNED) back_decay(s, t, all);
    }
    store(l->grad_v0, s->grad_v, l, b);
    if (KIND == CURRENT) store(l->grad_current0, s->grad_current, l, b);
    if (KIND == ADAPTIVE) store(l->grad_adapted0, s->grad_adapted, l, b);
}

static double total(const scratch *s, int64_t n) {
    double sum = 0;
    for (int64_t j = 0; j < n; j++) sum += s->grad_decay[j];
    return sum;
}

/* Blocks never cross the end of a line; `per_line` of them make one. */
static block numbered(const layer *l, int64_t index, int64_t per_line) {
    const int64_t lines = index / per_line, along = index % per_line * l->block, left = l->line - along;
    const block b = {lines * POOL * l->line + along, left < l->block ? left : l->block,
                     (lines * l->line + along) / POOL};
    return b;
}

#define OVER_BLOCKS(name, run, after)                                                         \
    void name(const layer *l) {                                                               \
        const int64_t per_line = (l->line + l->block - 1) / l->block;                         \
        const int64_t blocks = l->neurons / l->line / POOL * per_line;                        \
        _Pragma("omp parallel num_threads(l->threads) if (l->threads > 1)") {                 \
            scratch s;                                                                        \
            float *memory = divide(&s, l);                                                    \
            _Pragma("omp for schedule(static)") for (int64_t i = 0; i < blocks; i++) {        \
                const block b = numbered(l, i, per_line);                                     \
                run(l, &s, b);                                                                \
                after;                                                                        \
            }                                                                                 \
            free(memory);                                                                     \
        }                                                                                     \
    }

OVER_BLOCKS(scan_forward, forward_block, (void)0)
OVER_BLOCKS(scan_backward, backward_block, if (LEARNED) l->grad_decay[i] = total(&s, POOL * b.n))
