/* All steps of a layer of spiking neurons in one pass over memory, forward and backward.
 *
 * The equations are those of snn/cells. One block of neurons is taken through all steps while its state stays in the
 * first-level cache. The forward pass keeps nothing: the backward pass runs the block's steps once more from the drive,
 * into a scratch that stays in the cache too, and then back through time. So memory sees, per neuron and step, one read
 * and one write on the way forth, two reads and one write on the way back.
 *
 * Compiled once for each combination of KIND, HARD, RESTING, BF16 and SURROGATE, so that the loops have no branches.
 * Contraction to fused multiply-add must be off: spikes are those of the step functions bit for bit.
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
 * coming in (zeros). Rows are the neurons of one step; those of the drive may be further apart, or all the same. */
typedef struct {
    int64_t steps, neurons, block, drive_stride, period, threads;
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

/* Rows of one block of neurons; for the backward pass also what happened in each step. */
typedef struct {
    float *theta, *v, *current, *adapted, *rest;
    float *grad_v, *grad_current, *grad_adapted, *grad_u, *grad_decay, *derivative;
    float *u, *raised, *held; /* [steps][block] */
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

static const value ONE =
#if BF16
    0x3f80;
#else
    1.0f;
#endif

static void load(float *to, const float *from, int64_t first, int64_t n) {
    if (from) memcpy(to, from + first, n * sizeof(float));
    else memset(to, 0, n * sizeof(float));
}

static void store(float *to, const float *from, int64_t first, int64_t n) {
    if (to) memcpy(to + first, from, n * sizeof(float));
}

static float *divide(scratch *s, int64_t steps, int64_t block) {
    float **rows[] = {&s->theta,  &s->v,            &s->current,      &s->adapted, &s->rest,       &s->derivative,
                      &s->grad_v, &s->grad_current, &s->grad_adapted, &s->grad_u,  &s->grad_decay};
    const int64_t count = sizeof rows / sizeof *rows;
    float *memory = aligned_alloc(64, (size_t)((count + 3 * steps) * block) * sizeof(float));
    if (memory == NULL) abort();
    for (int64_t i = 0; i < count; i++) *rows[i] = memory + i * block;
    s->u = memory + count * block;
    s->raised = s->u + steps * block;
    s->held = s->raised + steps * block;
    return memory;
}

static void begin(const layer *l, const scratch *s, int64_t first, int64_t n) {
    int64_t k = first % l->period;
    for (int64_t j = 0; j < n; j++) {
        s->theta[j] = l->threshold[k];
        if (++k == l->period) k = 0;
    }
    load(s->v, l->v0, first, n);
    if (KIND == CURRENT) load(s->current, l->current0, first, n);
    if (KIND == ADAPTIVE) load(s->adapted, l->adapted0, first, n);
    if (RESTING) load(s->rest, l->rest0, first, n);
}

/* One step of n neurons. The forward pass wants the spikes, the backward pass (spikes NULL) what led to them. Choices
 * are products with 0 and 1, which are exact: branches would cost the vectors. */
static inline void step(const layer *l, const scratch *s, const value *restrict drive, value *restrict spikes, int64_t n,
                        float *restrict u_row, float *restrict raised_row, float *restrict held_row) {
    float *restrict v = s->v, *restrict current = s->current, *restrict adapted = s->adapted, *restrict rest = s->rest;
    const float *restrict theta = s->theta;
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
        if (spikes) spikes[j] = BF16 ? (fired > 0.0f ? ONE : 0) : fired;
        else u_row[j] = u;
        if (!spikes && KIND == ADAPTIVE) raised_row[j] = raised;
    }
}

static void forward_block(const layer *l, const scratch *s, int64_t first, int64_t n) {
    begin(l, s, first, n);
    for (int64_t t = 0; t < l->steps; t++)
        step(l, s, l->drive + t * l->drive_stride + first, l->spikes + t * l->neurons + first, n, NULL, NULL, NULL);
    store(l->v, s->v, first, n);
    if (KIND == CURRENT) store(l->current, s->current, first, n);
    if (KIND == ADAPTIVE) store(l->adapted, s->adapted, first, n);
    if (RESTING) store(l->rest, s->rest, first, n);
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

/* One step back: the gradients of the state after the step become those of the state before it. */
static inline void back(const layer *l, const scratch *s, const value *restrict grad_spikes, value *restrict grad_drive,
                        int64_t n, const float *restrict u_row, const float *restrict raised,
                        const float *restrict held_row) {
    float *restrict gv = s->grad_v, *restrict gc = s->grad_current, *restrict ga = s->grad_adapted;
    float *restrict gu_row = s->grad_u;
    const float *restrict theta = s->theta;
    const float alpha = l->decay, beta = l->synaptic_decay, kappa = l->adaptation, rho = l->adaptation_decay;
    const float attached = l->attached, slope = l->slope;
    for (int64_t j = 0; j < n; j++) {
        const float u = u_row[j], d = u - raised[j], open = RESTING ? 1.0f - held_row[j] : 1.0f;
        const float silent = d >= 0.0f ? 1.0f - open : 1.0f; /* 1 - s */
        float gs = (grad_spikes ? get(grad_spikes[j]) : 0.0f) - attached * (HARD ? u : theta[j]) * gv[j];
        if (KIND == ADAPTIVE) gs += ga[j];
        const float gd = open * (gs * derivative(d, slope));
        const float gu = (HARD ? silent * gv[j] : gv[j]) + gd;
        if (KIND == ADAPTIVE) ga[j] = rho * ga[j] - kappa * gd;
        gv[j] = RESTING ? (open * alpha + (1.0f - open)) * gu : alpha * gu;
        float gx = open * gu;
        gu_row[j] = gx;
        if (KIND == CURRENT) {
            gx += gc[j];
            gc[j] = beta * gx;
        }
        grad_drive[j] = rounded(gx);
    }
}

/* d loss / d decay of one step: the gradient of the potential times the potential that was there before. */
static void back_decay(const layer *l, const scratch *s, int64_t t, int64_t first, int64_t n) {
    const int64_t before = (t - 1) * l->block;
    for (int64_t j = 0; j < n; j++) {
        float v = l->v0 ? l->v0[first + j] : 0.0f;
        if (t > 0) {
            const float u = s->u[before + j], raised = KIND == ADAPTIVE ? s->raised[before + j] : s->theta[j];
            const float fired = u >= raised ? (RESTING ? 1.0f - s->held[before + j] : 1.0f) : 0.0f;
            v = HARD ? u * (1.0f - fired) : u - s->theta[j] * fired;
        }
        s->grad_decay[j] += s->grad_u[j] * v;
    }
}

static void backward_block(const layer *l, const scratch *s, int64_t first, int64_t n) {
    begin(l, s, first, n);
    for (int64_t t = 0; t < l->steps; t++) {
        const int64_t row = t * l->block;
        step(l, s, l->drive + t * l->drive_stride + first, NULL, n, s->u + row, s->raised + row, s->held + row);
    }
    load(s->grad_v, l->grad_v, first, n);
    if (KIND == CURRENT) load(s->grad_current, l->grad_current, first, n);
    if (KIND == ADAPTIVE) load(s->grad_adapted, l->grad_adapted, first, n);
    memset(s->grad_decay, 0, n * sizeof(float));
    for (int64_t t = l->steps - 1; t >= 0; t--) {
        const int64_t row = t * l->block, index = t * l->neurons + first;
        back(l, s, l->grad_spikes ? l->grad_spikes + index : NULL, l->grad_drive + index, n, s->u + row,
             KIND == ADAPTIVE ? s->raised + row : s->theta, s->held + row);
        if (l->grad_decay) back_decay(l, s, t, first, n);
    }
    store(l->grad_v0, s->grad_v, first, n);
    if (KIND == CURRENT) store(l->grad_current0, s->grad_current, first, n);
    if (KIND == ADAPTIVE) store(l->grad_adapted0, s->grad_adapted, first, n);
    if (l->grad_decay) {
        double sum = 0;
        for (int64_t j = 0; j < n; j++) sum += s->grad_decay[j];
        l->grad_decay[first / l->block] = sum;
    }
}

#define OVER_BLOCKS(name, run)                                                              \
    void name(const layer *l) {                                                             \
        const int64_t blocks = (l->neurons + l->block - 1) / l->block;                      \
        _Pragma("omp parallel num_threads(l->threads) if (l->threads > 1)") {               \
            scratch s;                                                                      \
            float *memory = divide(&s, l->steps, l->block);                                 \
            _Pragma("omp for schedule(static)") for (int64_t b = 0; b < blocks; b++) {      \
                const int64_t first = b * l->block, left = l->neurons - first;              \
                run(l, &s, first, left < l->block ? left : l->block);                       \
            }                                                                               \
            free(memory);                                                                   \
        }                                                                                   \
    }

OVER_BLOCKS(scan_forward, forward_block)
OVER_BLOCKS(scan_backward, backward_block)
