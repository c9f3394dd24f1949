/* All steps of leaky integrate-and-fire neurons in the whole numbers of Loihi 2, in one pass over memory.
 *
 * The equations are those of arithmetic.py (`lif`). One block of neurons is taken through all steps while its state stays
 * in the first-level cache. Sums wrap as 32-bit registers do: they are made of unsigned numbers, and compared as signed
 * ones. Nothing branches on the data, so that the loops become vectors.
 */
#include <stdint.h>
#include <string.h>

enum { BLOCK = 512, ALIGNED_BITS = 6, DECAY_BITS = 12, HALF = 1 << 23 };
#define INLINE static inline __attribute__((always_inline))

/* Must match native.py. One step is `neurons` values in any order of axes; steps of the drive lie `stride` apart, 0 for a
 * constant. Biases repeat after `period` neurons. What is NULL is not wanted. */
typedef struct {
    int64_t steps, neurons, stride, period, threads;
    int32_t keep_u, keep_v, threshold, back, hard, refractory, whole; /* whole: the drive is int32, else float */
    const void *drive;
    const int32_t *bias;
    int32_t *u, *v, *rest;     /* before the first step, and then after the last; rest: only where refractory > 0 */
    uint8_t *spikes;           /* [steps, neurons] */
    int32_t *count;            /* [neurons] of their spikes */
    int32_t *every_u, *every_v; /* [steps, neurons], or NULL */
} neurons;

typedef struct {
    int64_t largest_u, largest_v, wrapped, clipped;
} extremes;

typedef struct {
    int32_t u[BLOCK], v[BLOCK], rest[BLOCK], bias[BLOCK], count[BLOCK];
    uint32_t most_u[BLOCK], most_v[BLOCK], wrapped[BLOCK], clipped[BLOCK];
} block;

INLINE uint32_t magnitude(int32_t x) { return x < 0 ? 0u - (uint32_t)x : (uint32_t)x; }

/* x keep / 4096, cut off towards zero: the product's upper and lower bits apart, or it would not fit into 32. */
INLINE int32_t decayed(int32_t x, uint32_t keep) {
    const uint32_t m = magnitude(x), left = (m >> DECAY_BITS) * keep + (((m & 4095) * keep) >> DECAY_BITS);
    return (int32_t)(x < 0 ? 0u - left : left);
}

INLINE void step(const neurons *l, block *restrict b, const void *drive, int64_t n, uint8_t *restrict spikes,
                 const int current, const int leak, const int resting, const int whole) {
    const float *restrict numbers = drive;
    const int32_t *restrict ints = drive;
    const uint32_t keep_u = (uint32_t)l->keep_u, keep_v = (uint32_t)l->keep_v;
    const int32_t threshold = l->threshold, back = l->back, stays = l->hard ? 0 : -1, refractory = l->refractory;
    for (int64_t i = 0; i < n; i++) {
        const int32_t a = whole ? ints[i] : (int32_t)numbers[i];
        uint32_t sum = (uint32_t)a << ALIGNED_BITS;
        if (current) sum += (uint32_t)decayed(b->u[i], keep_u);
        int32_t u = (int32_t)sum;
        const int32_t above = u > HALF, below = u <= -HALF;
        u = (int32_t)((uint32_t)u - ((uint32_t)above << 24) + ((uint32_t)below << 24));
        b->u[i] = u;
        b->wrapped[i] += (uint32_t)(above | below);
        const int32_t kept = leak ? decayed(b->v[i], keep_v) : b->v[i];
        const int32_t to_be = (int32_t)((uint32_t)kept + (uint32_t)u + (uint32_t)b->bias[i]);
        int32_t v = to_be < HALF - 1 ? to_be : HALF - 1;
        v = v > 1 - HALF ? v : 1 - HALF;
        int32_t open = -1;
        if (resting) {
            open = b->rest[i] > 0 ? 0 : -1;
            v = (v & open) | (b->v[i] & ~open);
        }
        b->clipped[i] += (uint32_t)((v != to_be) & (open & 1));
        const int32_t fired = (v > threshold ? -1 : 0) & open;
        if (resting) b->rest[i] = (fired & refractory) | (~fired & ((b->rest[i] - 1) & ~open));
        v = (int32_t)((uint32_t)(v & (~fired | stays)) - (uint32_t)(fired & back));
        b->v[i] = v;
        b->count[i] -= fired;
        spikes[i] = (uint8_t)(fired & 1);
        const uint32_t mu = magnitude(u), mv = magnitude(v);
        b->most_u[i] = b->most_u[i] > mu ? b->most_u[i] : mu;
        b->most_v[i] = b->most_v[i] > mv ? b->most_v[i] : mv;
    }
}

INLINE extremes through(const neurons *l, int64_t first, int64_t n, const int current, const int leak,
                        const int resting, const int whole) {
    block b;
    memset(&b, 0, sizeof b);
    memcpy(b.u, l->u + first, n * 4);
    memcpy(b.v, l->v + first, n * 4);
    if (resting) memcpy(b.rest, l->rest + first, n * 4);
    for (int64_t i = 0; i < n; i++) b.bias[i] = l->bias[(first + i) % l->period];
    for (int64_t t = 0; t < l->steps; t++) {
        const char *drive = (const char *)l->drive + (t * l->stride + first) * 4;
        step(l, &b, drive, n, l->spikes + t * l->neurons + first, current, leak, resting, whole);
        if (l->every_u) memcpy(l->every_u + t * l->neurons + first, b.u, n * 4);
        if (l->every_v) memcpy(l->every_v + t * l->neurons + first, b.v, n * 4);
    }
    memcpy(l->u + first, b.u, n * 4);
    memcpy(l->v + first, b.v, n * 4);
    if (resting) memcpy(l->rest + first, b.rest, n * 4);
    memcpy(l->count + first, b.count, n * 4);
    extremes found = {0};
    for (int64_t i = 0; i < n; i++) {
        found.largest_u = found.largest_u > b.most_u[i] ? found.largest_u : b.most_u[i];
        found.largest_v = found.largest_v > b.most_v[i] ? found.largest_v : b.most_v[i];
        found.wrapped += b.wrapped[i];
        found.clipped += b.clipped[i];
    }
    return found;
}

typedef extremes run(const neurons *l, int64_t first, int64_t n);
#define RUN(c, k, r, w) \
    static extremes run##c##k##r##w(const neurons *l, int64_t first, int64_t n) { return through(l, first, n, c, k, r, w); }
#define BOTH(c, k, r) RUN(c, k, r, 0) RUN(c, k, r, 1)
BOTH(0, 0, 0) BOTH(0, 0, 1) BOTH(0, 1, 0) BOTH(0, 1, 1) BOTH(1, 0, 0) BOTH(1, 0, 1) BOTH(1, 1, 0) BOTH(1, 1, 1)
#define OF(c, k) {{run##c##k##00, run##c##k##01}, {run##c##k##10, run##c##k##11}}
static run *const RUN_OF[2][2][2][2] = {{OF(0, 0), OF(0, 1)}, {OF(1, 0), OF(1, 1)}};

void lif(const neurons *l, extremes *found) {
    run *const one = RUN_OF[l->keep_u != 0][l->keep_v != 4096][l->rest != NULL][l->whole];
    int64_t largest_u = 0, largest_v = 0, wrapped = 0, clipped = 0;
#pragma omp parallel for num_threads(l->threads) if (l->threads > 1) schedule(static) \
    reduction(max : largest_u, largest_v) reduction(+ : wrapped, clipped)
    for (int64_t first = 0; first < l->neurons; first += BLOCK) {
        const extremes of = one(l, first, l->neurons - first < BLOCK ? l->neurons - first : BLOCK);
        largest_u = largest_u > of.largest_u ? largest_u : of.largest_u;
        largest_v = largest_v > of.largest_v ? largest_v : of.largest_v;
        wrapped += of.wrapped;
        clipped += of.clipped;
    }
    *found = (extremes){largest_u, largest_v, wrapped, clipped};
}
