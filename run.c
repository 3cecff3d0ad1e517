/* run.c: runs the model files that minitron trains.

   One file, C11 and libm, nothing else.  Part 3 is the model of minitron/model/transformer.py with
   the same names, to be read beside it; the tests hold the two equal at every position.

   CONTENTS                                                                              lines
       1  What this is, and the file format                                                 80
       2  The API: functions that another program, or Python, may call                     110
       3  The model, in plain form                                                         330
       4  Tokenizer and sampler                                                            120
          ------------------ you may stop here; the rest may be skipped ------------------
       5  Loader: no byte of a model file is trusted                                       325
       6  Fast loops: tuned twins of plain loops of part 3                                 280
       7  Many sequences: caches, scores, attention weights, generation for many prompts   275
       8  Command line                                                                     470

       cc -O3 -march=native -ffp-contract=off run.c -o run -lm       (make adds threads if it can)
       cc ... -DMINITRON_LIB -shared -fPIC run.c -o libminitron.so -lm       the library, no main
       cc ... -DSLOW run.c -o run -lm          part 3 exactly as it is written, without part 6

   Unlike NumPy's forward it has a key/value cache: a token's keys and values do not depend on later
   tokens, so they are kept, and a new token costs one pass through the weights.  And each output of
   a matrix product is one sum over k = 0, 1, 2 ... of fused multiply-adds, which are written out.
   So its bits do not depend on the batch, the calls or the threads; nor on the compiler, if the
   processor has such instructions and with -ffp-contract=off.

   Dimension key, as in minitron/model/ops.py: B sequences, T time (tokens in flight), D dim,
   H heads, G key/value heads, K head width, F feed-forward width, L layers, V vocabulary; and here
   S, the slots that the cache has for each sequence.

   FILE FORMAT, version 1.  Little-endian.  Four blocks, each begins at a multiple of 64 bytes; the
   bytes in gaps are ignored:

       header      256 bytes:
             0  8 bytes   "minitron"
             8  u32       version, 1
            12  u32       dtype of the matrices, 0 = float32, 1 = int8
            16  u32 x 8   layers, dim, heads, kv_heads, head_dim, ffn_dim (0: none), vocab, context
            48  u32       flags: 1 tied head, 2 norms on queries and keys, 4 linear attention,
                          8 rows begin with bos, 16 own positions, which the engine cannot count
            52  u32       bos, the token that stands for an empty prompt, or 2^32-1 for none
            56  u32       eos, the token at which generation stops, or 2^32-1 for none
            60  f32 x 3   rope_theta (0: no positions), norm_eps, temperature (advised)
            72  u64 x 4   bytes of the tokenizer, provenance and tensor blocks and of the file
           104  u32 x 2   the fewest and the most tokens of a prompt in training, or 0 and 0
           112            zeros
           240  u64 x 2   checksum
       tokenizer   u32 kind (1: longest match), u32 count (= vocab), then each token's piece: u32
                   length (0 to 256), bytes.  An empty piece cannot be written in a prompt; no two
                   other pieces are equal.
       provenance  JSON in printable ASCII: task, configuration and key of the training run, and
                   "example", a prompt to try, without quotes and backslashes.
       tensors     each begins at a multiple of 64 bytes from the block's start; a matrix is (out,
                   in), norms are float32:
                   embed (V, D), norm1 (L, D), wqkv (L, (H+2G)K, D), wo (L, D, HK)
                   norm_q (L, K), norm_k (L, K)                    with flag 2
                   norm2 (L, D), w13 (L, 2F, D), w2 (L, D, F)      with F > 0
                   norm_f (D), head (V, D)                         head without flag 1
                   wqkv is queries over keys over values, w13 is gate over up.
                   With dtype 1 a matrix (L, out, in) is two tensors: int8 q (L, out, in), then
                   float32 scale (L, out, ceil(in/64)), and w[i][k] = q[i][k] * scale[i][k/64].
       limits      layers <= 2^12; dim, ffn_dim, heads * head_dim <= 2^16; 2 <= vocab <= 2^20;
                   context <= 2^20; head_dim even; kv_heads divides heads; rope_theta <= 1e12;
                   0 < norm_eps <= 1; temperature <= 100

   Query head h uses key/value head h / (H/G).  Queries and keys are normalized (flag 2), then
   rotated, then queries are multiplied by K^-0.5.  Rotary positions rotate the channel pairs
   (2j, 2j+1) of a head by position * theta^(-2j/K).  Linear attention leaves out softmax.  The
   checksum is explained at add_words. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// ------------------------------------------------------------------------------------------------
// 2  The API

// API-BEGIN   (Python's cffi reads from here to API-END, so no second declaration can drift)

typedef struct mt_engine mt_engine;     // a model and its caches, for one thread at a time

typedef struct {                        // the header of the model file
    int32_t layers, dim, heads, kv_heads, head_dim, ffn_dim, vocab, context;
    int32_t tied, qk_norm, linear;      // 0 or 1
    int32_t bos, eos;                   // token ids, or -1 for none
    int32_t int8;                       // 1: matrices of int8
    int32_t begins_with_bos;            // 1: so did every training row
    int32_t own_positions;              // 1: they are not 0, 1, 2 ...: they must be given
    int32_t prompt_min, prompt_max;     // tokens of a prompt in training, or 0 and 0
    float rope_theta, norm_eps, temperature;
} mt_config;

typedef struct {                        // how to choose the next token, see mt_sample
    float temperature;                  // 0: the most likely token; else logits are divided by it
    int32_t top_k;                      // keep the k most likely tokens; 0: all
    float top_p;                        // keep the fewest with this probability together; 1: all
    float min_p;                        // keep those with this fraction of the best's probability
} mt_sampling;

// A status, which functions return; mt_error then gives the reason in one line.
enum { MT_OK = 0, MT_USAGE = 1, MT_FILE = 2, MT_MEMORY = 3, MT_RUN = 4 };

// Raised whenever this block changes: mt_abi of an older library returns another number.
enum { MT_ABI = 4 };
int32_t mt_abi(void);

// Load a model from a file, or from memory (which is copied).  Close it also after a failure.
int32_t mt_open(const char *path, mt_engine **engine);
int32_t mt_load(const void *bytes, uint64_t size, mt_engine **engine);
void mt_close(mt_engine *engine);

// Another engine on the same weights, to work beside this one on another thread.  It may be used
// until `engine` is closed, and must be closed as well.
int32_t mt_fork(mt_engine *engine, mt_engine **fork);

const char *mt_error(const mt_engine *engine);          // NULL: there was no memory for an engine
const mt_config *mt_get_config(const mt_engine *engine);
const char *mt_get_provenance(const mt_engine *engine, uint64_t *size);  // JSON, not 0-terminated
uint64_t mt_parameters(const mt_engine *engine);

// Threads that may share a large product; at most 256.  Fewer at once, more from the next mt_reset
// on.  OpenMP cannot start any in a process that fork() made: set 1 there.  No effect on bits.
// Weights of fewer than MT_SMALL bytes stay in the caches: then it is faster to give each thread a
// fork and sequences of its own.
enum { MT_SMALL = 1 << 24 };
void mt_set_threads(mt_engine *engine, int32_t threads);

// Make room for `sequences` empty sequences of up to `context` tokens.  Takes 8*L*G*K bytes per
// token (K and context rounded up to 16), 4*K + 24*threads bytes per token of one sequence, and
// working space for 240 tokens.  mt_score takes 960*V bytes more.
int32_t mt_reset(mt_engine *engine, int32_t sequences, int32_t context);

// Tokens in a sequence, -1 if there is no such sequence; and forget all but the first `length`.
int32_t mt_length(const mt_engine *engine, int32_t sequence);
int32_t mt_rewind(mt_engine *engine, int32_t sequence, int32_t length);

// Append `count` tokens to their sequences and compute the logits after each.
//   tokens     (count)
//   sequences  (count) each token's sequence; NULL: all in sequence 0
//   positions  (count) ids for the rotary positions, >= 0; NULL: 0, 1, 2 ... in each sequence
//   wanted     (count) nonzero where logits are wanted; NULL: everywhere
//   logits     (number wanted, V); NULL: none
// After a failure no sequence has changed.  Results do not depend on how tokens are divided among
// calls and sequences.
int32_t mt_forward(mt_engine *engine, int32_t count, const int32_t *tokens,
                   const int32_t *sequences, const int32_t *positions, const uint8_t *wanted,
                   float *logits);

// The same for log-probabilities, in nats: logprobs[i] = log p(targets[i] | tokens up to i), where
// targets[i] >= 0.  MT_RUN if one is not finite; the tokens are appended all the same.
int32_t mt_score(mt_engine *engine, int32_t count, const int32_t *tokens,
                 const int32_t *sequences, const int32_t *positions, const int32_t *targets,
                 float *logprobs);

// The same for the attention weights (count, context of mt_reset) of one head: how much token i
// takes from each slot of its sequence, 0 for later slots.  With linear attention they are the
// scores, which need not add up to 1.
int32_t mt_attention(mt_engine *engine, int32_t count, const int32_t *tokens,
                     const int32_t *sequences, const int32_t *positions, int32_t layer,
                     int32_t head, float *weights);

// Choose a token from logits (V).  *random is the sampler's whole state, and any value is a seed;
// a draw advances it, at temperature 0 there is none.
int32_t mt_sample(mt_engine *engine, const float *logits, const mt_sampling *sampling,
                  uint64_t *random, int32_t *token);

// Generate a text after each of `count` prompts.  Sequences that existed are lost.
//   prompts    the prompts' tokens, one prompt after the other; lengths (count), at least 1 each
//   most       tokens per text, at most; it also ends at eos, at stop, and in a full context
//   stop       (count) a token that ends this prompt's text, -1 for none; NULL: none.  Neither it
//              nor eos is part of the text
//   random     (count) sampler states
//   tokens     (count, most) the texts, and generated (count) their lengths
int32_t mt_generate(mt_engine *engine, int32_t count, const int32_t *prompts,
                    const int32_t *lengths, int32_t most, const int32_t *stop,
                    const mt_sampling *sampling, uint64_t *random, int32_t *tokens,
                    int32_t *generated);

// Text to tokens, everywhere the longest piece that fits.  tokens has room for `size`.
int32_t mt_encode(mt_engine *engine, const char *text, int64_t size, int32_t *tokens,
                  int64_t *count);
// A token's bytes, not 0-terminated; NULL: no such token
const char *mt_piece(const mt_engine *engine, int32_t token, int32_t *size);

// API-END

// ------------------------------------------------------------------------------------------------
// 3  The model, in plain form.  Part 5 reads the file and checks it, part 7 checks the calls.

// These suit the vector registers, see part 6.
#if defined(__AVX512F__) && !defined(SLOW)
enum { TILE = 64, NARROW = 32, ROWS = 6 };
#else
enum { TILE = 32, NARROW = 24, ROWS = 3 };
#endif

enum {
    GROUP = 64,             // int8 weights of a row that share a scale
    CHUNK = 240,            // tokens that go through the layers together
    LANES = 16              // cached keys and values are padded to a multiple of this
};

typedef struct {            // weights (layers, outs, ins), packed: see tile_at
    float *floats;          // float32
    int8_t *quants;         // int8: a weight is quants * scales
    float *scales;          // (layers, outs, groups), packed as well
    size_t layers, outs, ins, groups;
} matrix;

typedef struct {            // pointers into mt_engine's bytes
    matrix embed;           // (V, D)
    float *norm1;           // (L, D)
    matrix wqkv;            // (L, (H+2G)K, D)
    matrix wo;              // (L, D, HK)
    float *norm_q, *norm_k; // (L, K)
    float *norm2;           // (L, D)
    matrix w13;             // (L, 2F, D)
    matrix w2;              // (L, D, F)
    float *norm_f;          // (D)
    matrix head;            // (V, D), the same as embed if tied
} params;

typedef struct { const char *bytes; int32_t size, token; } piece;       // a token's bytes

struct mt_engine {
    char error[512];
    mt_config config;
    size_t L, D, H, G, K, F, V;     // see the dimension key
    params p;
    uint64_t parameters;
    uint8_t *bytes;         // the model file, its matrices packed in place
    const char *provenance;
    uint64_t provenance_size;
    piece *pieces;          // (V) by token id
    piece *sorted;          // (V) by their bytes, for the search of mt_encode
    int32_t longest;        // bytes of the longest piece
    double *weight;         // (V) scratch of mt_sample
    int32_t *order;         // (V) scratch of mt_sample
    int32_t threads;
    int is_fork;            // model and tokenizer belong to another engine
    // made by mt_reset, in one block of memory that begins at `length`
    size_t B, S, team;      // sequences, slots of each, room for threads
    size_t *length;         // (B) tokens in each sequence
    size_t context;         // which is the limit for them; S is rounded up from it
    float *keys;            // (L, B, G, S, K), packed
    float *values;          // (L, B, G, K, S), packed
    float *x, *n;           // (CHUNK, D) residual stream; its norm
    float *u;               // (CHUNK, max((H+2G)K, 2F))
    float *y;               // (CHUNK, max(HK, F))
    float *scores;          // (team, ROWS, S)
    float *cis;             // (S + 1, K) rope_table: of positions < rotated, and of one beyond S
    size_t rotated;         // a context may be longer than any sequence will be: see rope_row
    float *watched;         // where the weights of mt_attention's head go; NULL: nowhere
    size_t watched_head;    // layer * H + head
};

typedef struct {            // the tokens in flight, and each one's place in the cache
    size_t count, token[CHUNK], sequence[CHUNK], slot[CHUNK], position[CHUNK];
} chunk;

// Store why a call failed, as printf would print it.  -> status
static int32_t fail(mt_engine *e, int32_t status, const char *format, ...);

// Where w[i][k] of a matrix (outs, ins) is stored.  It is packed in tiles: TILE rows make a tile,
// which is stored column by column; the last one may have fewer rows.  Part 6 says why.  TILE = 2:
//
//     w[0]  a0 a1 a2          a0 b0 a1 b1 a2 b2   c0 c1 c2
//     w[1]  b0 b1 b2    ->    \____ tile 0 ____/  \tile 1/
//     w[2]  c0 c1 c2
static inline size_t tile_at(size_t outs, size_t ins, size_t i, size_t k) {
    const size_t first = i / TILE * TILE, rows = outs - first < TILE ? outs - first : TILE;
    return first * ins + k * rows + i - first;
}

// w[i][k] of layer l
static inline float weight(const matrix *m, size_t l, size_t i, size_t k) {
    const size_t at = l * m->outs * m->ins + tile_at(m->outs, m->ins, i, k);
    if (m->floats) return m->floats[at];
    const size_t group = tile_at(m->outs, m->groups, i, k / GROUP);
    return m->quants[at] * m->scales[l * m->outs * m->groups + group];
}

static inline size_t round_up(size_t size) { return (size + LANES - 1) / LANES * LANES; }

// Channel k of the key, or of the value, of head g of sequence b's token in slot s
static inline float *key(const mt_engine *e, size_t l, size_t b, size_t g, size_t s, size_t k) {
    const size_t head = (l * e->B + b) * e->G + g;
    return e->keys + head * e->S * e->K + tile_at(e->S, e->K, s, k);
}

static inline float *value(const mt_engine *e, size_t l, size_t b, size_t g, size_t s, size_t k) {
    const size_t head = (l * e->B + b) * e->G + g, channels = round_up(e->K);
    return e->values + head * channels * e->S + tile_at(channels, e->S, k, s);
}

// a * b + c, rounded once where the processor can, and then by every compiler in every loop
#if defined(FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
static inline float fma1(float a, float b, float c) { return fmaf(a, b, c); }
#else
static inline float fma1(float a, float b, float c) { return a * b + c; }
#endif

#ifndef SLOW        // then part 6 has a tuned twin of each of these:
static inline float exponential(float x);
static float sum_of_squares(const float *x, size_t D);
static float softmax(float *scores, size_t slots);
static void linear_forward(mt_engine *e, float *y, const float *x, const matrix *m, size_t l,
                           size_t T, int add);
static void keep(mt_engine *e, size_t l, const chunk *c, size_t t, const float *k, const float *v);
static void attention_forward(mt_engine *e, float *y, const float *u, size_t l, const chunk *c);
#else
static float exponential(float x) { return expf(x); }

static float sum_of_squares(const float *x, size_t D) {
    float sum = 0;
    for (size_t d = 0; d < D; d++) sum += x[d] * x[d];
    return sum;
}

// scores (slots) -> e^(score - the largest), not divided by their sum yet.  -> the sum
static float softmax(float *scores, size_t slots) {
    float most = scores[0], sum = 0;
    for (size_t s = 1; s < slots; s++) most = scores[s] > most ? scores[s] : most;
    for (size_t s = 0; s < slots; s++) sum += scores[s] = exponential(scores[s] - most);
    return sum;
}

// y (T, outs) = x (T, ins) @ w.T, or with `add` y += x @ w.T; w is layer l of m
static void linear_forward(mt_engine *e, float *y, const float *x, const matrix *m, size_t l,
                           size_t T, int add) {
    (void)e;                // its fast twin asks e for threads
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < m->outs; i++) {
            float sum = add ? y[t * m->outs + i] : 0;
            for (size_t k = 0; k < m->ins; k++) sum += x[t * m->ins + k] * weight(m, l, i, k);
            y[t * m->outs + i] = sum;
        }
}

// Put keys and values (G, K) of token t of the chunk into the cache.
static void keep(mt_engine *e, size_t l, const chunk *c, size_t t, const float *k, const float *v) {
    const size_t b = c->sequence[t], s = c->slot[t], K = e->K;
    for (size_t g = 0; g < e->G; g++)
        for (size_t i = 0; i < K; i++) {
            *key(e, l, b, g, s, i) = k[g * K + i];
            *value(e, l, b, g, s, i) = v[g * K + i];
        }
}

// y (T, HK) = softmax(q @ k.T) @ v, each token over its own sequence up to itself.  q (T, HK) are
// the first columns of u (T, (H+2G)K); k and v come from the cache.
static void attention_forward(mt_engine *e, float *y, const float *u, size_t l, const chunk *c) {
    const size_t T = c->count, H = e->H, G = e->G, K = e->K;
    float *score = e->scores;                                           // (S)
    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < H; h++) {
            const size_t b = c->sequence[t], slots = c->slot[t] + 1, g = h / (H / G);
            const float *q = u + t * (H + 2 * G) * K + h * K;           // (K)
            float *mean = y + (t * H + h) * K;                          // (K)

            // how well does each earlier token fit the query?
            for (size_t s = 0; s < slots; s++) {
                score[s] = 0;
                for (size_t k = 0; k < K; k++) score[s] += q[k] * *key(e, l, b, g, s, k);
            }
            const float sum = e->config.linear ? 1 : softmax(score, slots);

            // the mean of their values, weighted by that
            for (size_t k = 0; k < K; k++) {
                mean[k] = 0;
                for (size_t s = 0; s < slots; s++) mean[k] += score[s] * *value(e, l, b, g, s, k);
                mean[k] /= sum;
            }
            if (!e->watched || l * H + h != e->watched_head) continue;
            for (size_t s = 0; s < e->context; s++)
                e->watched[t * e->context + s] = s < slots ? score[s] / sum : 0;
        }
}
#endif

// x (T, D) = rows of w, one per token
static void embedding_forward(float *x, const chunk *c, const matrix *w) {
    for (size_t t = 0; t < c->count; t++)
        for (size_t d = 0; d < w->ins; d++) x[t * w->ins + d] = weight(w, 0, c->token[t], d);
}

// y (N, D) = w * x / sqrt(mean(x^2) + eps) of each row; y may be x
static void rmsnorm_forward(float *y, const float *x, const float *w, size_t N, size_t D, float eps)
{
    for (; N > 0; N--, x += D, y += D) {
        const float mean = sum_of_squares(x, D) / (float)D;
        const float r = 1 / sqrtf(mean + eps) + 0 * mean;       // + 0 * mean: NaN if it overflows
        for (size_t d = 0; d < D; d++) y[d] = w[d] * (r * x[d]);
    }
}

// cis (count, K) = cosines, then sines, of the K/2 rotary angles of positions first, first + 1 ...
static void rope_table(const mt_engine *e, float *cis, size_t first, size_t count) {
    const size_t half = e->K / 2;
    for (size_t j = 0; j < half && e->config.rope_theta > 0; j++) {
        const double theta = e->config.rope_theta;
        const double frequency = pow(theta, -2.0 * (double)j / (double)e->K);
        for (size_t i = 0; i < count; i++) {
            cis[i * e->K + j] = (float)cos((double)(first + i) * frequency);
            cis[i * e->K + half + j] = (float)sin((double)(first + i) * frequency);
        }
    }
}

// The table's row (K) for a position.  Rows are made when they are needed, up to twice as many; one
// beyond S is rare, so it is computed at each use.
static const float *rope_row(mt_engine *e, size_t position) {
    const size_t row = position < e->S ? position : e->S;
    if (row == e->S) rope_table(e, e->cis + row * e->K, position, 1);
    else if (row >= e->rotated) {
        const size_t rows = 2 * row + LANES < e->S ? 2 * row + LANES : e->S;
        rope_table(e, e->cis + e->rotated * e->K, e->rotated, rows - e->rotated);
        e->rotated = rows;
    }
    return e->cis + row * e->K;
}

// Rotate the channel pairs (2j, 2j+1) of each of `heads` heads x (heads, K), in place.
static void rope_forward(float *x, const float *cis, size_t heads, size_t K) {
    const float *cosine = cis, *sine = cis + K / 2;
    for (; heads > 0; heads--, x += K)
        for (size_t j = 0; j < K / 2; j++) {
            const float a = x[2 * j], b = x[2 * j + 1];
            x[2 * j] = fma1(a, cosine[j], -b * sine[j]);
            x[2 * j + 1] = fma1(a, sine[j], b * cosine[j]);
        }
}

// y (T, F) = silu(gate) * up, silu(z) = z / (1 + e^-z).  u (T, 2F) is gate, then up.
static void swiglu_forward(float *y, const float *u, size_t T, size_t F) {
    for (size_t t = 0; t < T; t++)
        for (size_t f = 0; f < F; f++) {
            const float gate = u[2 * t * F + f], up = u[(2 * t + 1) * F + f];
            y[t * F + f] = gate / (1 + exponential(-gate)) * up;
        }
}

// Layer l: x (T, D) plus what attention brings from the past, plus what the feed-forward adds.
static void block_forward(mt_engine *e, size_t l, float *x, const chunk *c) {
    const size_t T = c->count, D = e->D, H = e->H, G = e->G, K = e->K, F = e->F;
    const float eps = e->config.norm_eps, scale = (float)pow((double)K, -0.5);
    const params *p = &e->p;
    float *n = e->n, *u = e->u, *y = e->y;

    // queries, keys and values of all heads, in one product
    rmsnorm_forward(n, x, p->norm1 + l * D, T, D, eps);                 // (T, D)
    linear_forward(e, u, n, &p->wqkv, l, T, 0);                         // (T, (H+2G)K)
    for (size_t t = 0; t < T; t++) {
        float *q = u + t * (H + 2 * G) * K, *k = q + H * K, *v = k + G * K;
        if (e->config.qk_norm) {
            rmsnorm_forward(q, q, p->norm_q + l * K, H, K, eps);        // (H, K), each head
            rmsnorm_forward(k, k, p->norm_k + l * K, G, K, eps);        // (G, K)
        }
        if (e->config.rope_theta > 0) {
            const float *cis = rope_row(e, c->position[t]);
            rope_forward(q, cis, H, K);
            rope_forward(k, cis, G, K);
        }
        for (size_t i = 0; i < H * K; i++) q[i] *= scale;
        keep(e, l, c, t, k, v);
    }

    // attention, the only place where tokens meet
    attention_forward(e, y, u, l, c);                                   // (T, HK)
    linear_forward(e, x, y, &p->wo, l, T, 1);                           // x += y @ wo.T
    if (F == 0) return;

    // feed-forward, each token for itself
    rmsnorm_forward(n, x, p->norm2 + l * D, T, D, eps);                 // (T, D)
    linear_forward(e, u, n, &p->w13, l, T, 0);                          // (T, 2F)
    swiglu_forward(y, u, T, F);                                         // (T, F)
    linear_forward(e, x, y, &p->w2, l, T, 1);                           // x += y @ w2.T
}

// Logits (number wanted, V) of the tokens of a chunk.  Only the wanted rows meet the head.  -> rows
static size_t model_forward(mt_engine *e, const chunk *c, const uint8_t *wanted, float *logits) {
    const size_t D = e->D;
    size_t rows = 0;
    float *x = e->x, *n = e->n;
    embedding_forward(x, c, &e->p.embed);                               // (T, D)
    for (size_t l = 0; l < e->L; l++) block_forward(e, l, x, c);
    for (size_t t = 0; t < c->count && logits; t++)
        if (!wanted || wanted[t])
            rmsnorm_forward(n + rows++ * D, x + t * D, e->p.norm_f, 1, D, e->config.norm_eps);
    if (rows) linear_forward(e, logits, n, &e->p.head, 0, rows, 0);     // (rows, V)
    return rows;
}

static int32_t check_tokens(mt_engine *e, int32_t count, const int32_t *tokens,
                            const int32_t *sequences, const int32_t *positions);

int32_t mt_forward(mt_engine *e, int32_t count, const int32_t *tokens, const int32_t *sequences,
                   const int32_t *positions, const uint8_t *wanted, float *logits) {
    chunk c;
    const int32_t status = check_tokens(e, count, tokens, sequences, positions);
    for (int32_t i = 0; i < count && !status;) {
        const uint8_t *wanted_here = wanted ? wanted + i : NULL;
        for (c.count = 0; c.count < CHUNK && i < count; c.count++, i++) {
            const size_t t = c.count, b = sequences ? (size_t)sequences[i] : 0;
            c.token[t] = (size_t)tokens[i];
            c.sequence[t] = b;
            c.slot[t] = e->length[b]++;
            c.position[t] = positions ? (size_t)positions[i] : c.slot[t];
        }
        const size_t rows = model_forward(e, &c, wanted_here, logits);
        if (logits) logits += rows * e->V;
        if (e->watched) e->watched += c.count * e->context;
    }
    return status;
}

// ------------------------------------------------------------------------------------------------
// 4  Tokenizer and sampler

static int compare_pieces(const void *left, const void *right) {
    const piece *a = left, *b = right;
    const int order = memcmp(a->bytes, b->bytes, (size_t)(a->size < b->size ? a->size : b->size));
    return order ? order : a->size - b->size;
}

// The token whose piece is exactly these bytes, or -1
static int32_t find_piece(const mt_engine *e, const char *bytes, int32_t size) {
    const piece wanted = {bytes, size, 0};
    const piece *same = bsearch(&wanted, e->sorted, e->V, sizeof(piece), compare_pieces);
    return same ? same->token : -1;
}

int32_t mt_encode(mt_engine *e, const char *text, int64_t size, int32_t *tokens, int64_t *count) {
    *count = 0;
    for (int64_t i = 0; i < size;) {
        int32_t length = size - i < e->longest ? (int32_t)(size - i) : e->longest, token = -1;
        for (; length > 0 && token < 0; length--) token = find_piece(e, text + i, length);
        if (token < 0) {
            const unsigned char byte = (unsigned char)text[i];
            char quoted[8];
            snprintf(quoted, sizeof quoted, byte > ' ' && byte < 127 ? "'%c'" : "0x%02x", byte);
            return fail(e, MT_USAGE, "the text's byte %lld, %s, is not in the model's vocabulary",
                        (long long)i, quoted);
        }
        tokens[(*count)++] = token;
        i += length + 1;                // the loop has stepped past the length that fitted
    }
    return MT_OK;
}

const char *mt_piece(const mt_engine *e, int32_t token, int32_t *size) {
    if (token < 0 || token >= e->config.vocab) return NULL;
    *size = e->pieces[token].size;
    return e->pieces[token].bytes;
}

// The sampler computes in double, one operation at a time in a fixed order.  minitron/sampler.py
// does the same, and from equal logits and seeds both choose equal tokens.

// Uniform in [0, 1), by SplitMix64 (Steele, Lea & Flood 2014): a counter, and a hash of it
static double draw(uint64_t *random) {
    uint64_t z = *random += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

// Whether token a is more likely than b, or as likely with the lower id
static int is_before(int32_t a, int32_t b, const double *weight) {
    return weight[a] > weight[b] || (weight[a] == weight[b] && a < b);
}

// Restore the heap below `root`: the first token is on top.
static void sift(int32_t *heap, int32_t size, int32_t root, const double *weight) {
    for (int32_t child; (child = 2 * root + 1) < size; root = child) {
        if (child + 1 < size && is_before(heap[child + 1], heap[child], weight)) child++;
        const int32_t a = heap[root], b = heap[child];
        if (is_before(a, b, weight)) return;
        heap[root] = b;
        heap[child] = a;
    }
}

// Choose a token.  -> status, MT_RUN if a logit is not finite
static int32_t choose(mt_engine *e, const float *logits, const mt_sampling *how, uint64_t *random,
                      int32_t *token) {
    const int32_t V = e->config.vocab;
    int32_t best = 0;
    float nonsense = 0;                 // stays 0, or becomes NaN
    for (int32_t i = 0; i < V; i++) {
        nonsense += logits[i] * 0;
        if (logits[i] > logits[best]) best = i;
    }
    for (int32_t i = 0; nonsense != 0; i++)
        if (!isfinite(logits[i]))
            return fail(e, MT_RUN, "the logit of token %d is not finite: the model's weights have "
                        "overflowed", i);
    *token = best;
    if (how->temperature == 0) return MT_OK;

    // probabilities up to a common factor: the most likely token has 1
    double *weight = e->weight, total = 0, kept = 0;
    int32_t *heap = e->order;
    for (int32_t i = 0; i < V; i++) {
        const double difference = logits[i] - (double)logits[best];
        total += weight[i] = exp(difference / how->temperature);
        heap[i] = i;
    }

    // from the most likely token down, until top-k, top-p or min-p ends it; they gather after the
    // shrinking heap
    int32_t size = V;
    for (int32_t root = V / 2 - 1; root >= 0; root--) sift(heap, V, root, weight);
    while (size && (how->top_k == 0 || V - size < how->top_k) &&
           kept < how->top_p * total && weight[heap[0]] >= how->min_p) {
        const int32_t top = heap[0];
        kept += weight[top];
        heap[0] = heap[--size];
        heap[size] = top;
        sift(heap, size, 0, weight);
    }

    // one of them, by its share
    const double target = draw(random) * kept;
    double sum = 0;
    for (int32_t i = V - 1; i >= size; i--) {
        sum += weight[heap[i]];
        *token = heap[i];
        if (sum > target) break;
    }
    return MT_OK;
}

// ------------------------------------------------------------------------------------------------
// You may stop here.  This was a language model; the rest makes it safe, fast and usable.
// ------------------------------------------------------------------------------------------------

// ------------------------------------------------------------------------------------------------
// 5  Loader.  No byte of a model file is trusted: every size is computed in 64 bits from the header
//    and compared with the file before any pointer is formed.  Loading takes the file's size in
//    memory, 44 bytes per token of the vocabulary, and room for one tile.

enum { HEADER = 256, MAX_PIECE = 256 };         // bytes

// For gcc and clang; PRINTF lets them check formats and arguments.
#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#define PREFETCH(address) __builtin_prefetch(address)
#define PRINTF(n) __attribute__((format(printf, n, n + 1)))
#else
#define INLINE static inline
#define PREFETCH(address) (void)(address)
#define PRINTF(n)
#endif

PRINTF(3) static int32_t fail(mt_engine *e, int32_t status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(e->error, sizeof e->error, format, arguments);
    va_end(arguments);
    return status;
}

const char *mt_error(const mt_engine *e) { return e ? e->error : "out of memory"; }

static uint32_t read_u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static uint64_t read_u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static float read_f32(const uint8_t *p) { float v; memcpy(&v, p, 4); return v; }
static uint64_t align64(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

typedef struct { uint64_t tokenizer, provenance, tensors, file; } sizes;    // in bytes

typedef struct {            // walks over the tensor block in the file's order
    uint8_t *base;          // NULL: it only counts
    uint64_t bytes, parameters, tile;           // tile: bytes of the largest
    int int8;
} cursor;

static void *place(cursor *at, uint64_t bytes) {
    void *here = at->base ? at->base + at->bytes : NULL;
    at->bytes += align64(bytes);
    return here;
}

static float *place_norm(cursor *at, size_t layers, size_t size) {
    const uint64_t numbers = (uint64_t)layers * size;
    at->parameters += numbers;
    return place(at, 4 * numbers);
}

static matrix place_matrix(cursor *at, size_t layers, size_t outs, size_t ins) {
    matrix m = {.layers = layers, .outs = outs, .ins = ins, .groups = (ins + GROUP - 1) / GROUP};
    const uint64_t rows = (uint64_t)layers * outs, row = at->int8 ? ins + 4 * m.groups : 4 * ins;
    const uint64_t tile = (outs < TILE ? outs : TILE) * row;
    at->parameters += rows * ins;
    if (tile > at->tile) at->tile = tile;
    if (at->int8) m.quants = place(at, rows * ins);
    if (at->int8) m.scales = place(at, 4 * rows * m.groups);
    else m.floats = place(at, 4 * rows * ins);
    return m;
}

// Where the tensors are in their block.  Within the limits of read_header every size is below 2^49
// bytes, so no sum or product here can wrap.
static void place_tensors(mt_engine *e, cursor *at) {
    const size_t L = e->L, D = e->D, F = e->F, K = e->K, HK = e->H * K, GK = e->G * K;
    const size_t channels = e->config.qk_norm ? K : 0;
    params *p = &e->p;
    p->embed = place_matrix(at, 1, e->V, D);
    p->norm1 = place_norm(at, L, D);
    p->wqkv = place_matrix(at, L, HK + 2 * GK, D);
    p->wo = place_matrix(at, L, D, HK);
    p->norm_q = place_norm(at, L, channels);
    p->norm_k = place_norm(at, L, channels);
    p->norm2 = place_norm(at, L, F ? D : 0);
    p->w13 = place_matrix(at, L, 2 * F, D);
    p->w2 = place_matrix(at, L, D, F);
    p->norm_f = place_norm(at, 1, D);
    p->head = e->config.tied ? p->embed : place_matrix(at, 1, e->V, D);
}

// The numbers of the header (256 bytes) -> e->config
static int32_t read_numbers(mt_engine *e, const uint8_t *p) {
    mt_config *c = &e->config;
    int32_t flags = 0;
    const struct { const char *name; int32_t *value; uint32_t low, high; } whole[] = {
        {"dtype", &c->int8, 0, 1},             {"layers", &c->layers, 1, 1 << 12},
        {"dim", &c->dim, 1, 1 << 16},          {"heads", &c->heads, 1, 1 << 16},
        {"kv_heads", &c->kv_heads, 1, 1 << 16}, {"head_dim", &c->head_dim, 2, 1 << 16},
        {"ffn_dim", &c->ffn_dim, 0, 1 << 16},  {"vocab", &c->vocab, 2, 1 << 20},
        {"context", &c->context, 1, 1 << 20},  {"flags", &flags, 0, 31},
        {"bos", &c->bos, 0, 0},                {"eos", &c->eos, 0, 0},     // high: below vocab
    };
    const struct { const char *name; float *value, low, high; } real[] = {
        {"rope_theta", &c->rope_theta, 0, 1e12f}, {"norm_eps", &c->norm_eps, 0x1p-149f, 1},
        {"temperature", &c->temperature, 0, 100},
    };
    for (int i = 0; i < 12; i++) {
        const uint32_t v = read_u32(p + 12 + 4 * i), is_token = i >= 10, none = UINT32_MAX;
        const uint32_t high = is_token ? (uint32_t)c->vocab - 1 : whole[i].high;
        if ((v < whole[i].low || v > high) && !(is_token && v == none))
            return fail(e, MT_FILE, "the header's %s is %u, but must be %u to %u: the file is "
                        "damaged", whole[i].name, v, whole[i].low, high);
        *whole[i].value = v == none ? -1 : (int32_t)v;
    }
    for (int i = 0; i < 3; i++) {
        const float v = *real[i].value = read_f32(p + 60 + 4 * i);
        if (!(v >= real[i].low && v <= real[i].high))           // a NaN too
            return fail(e, MT_FILE, "the header's %s is %g, but must be %g to %g: the file is "
                        "damaged", real[i].name, v, real[i].low,
                        real[i].high);
    }
    if (c->heads % c->kv_heads || c->head_dim % 2 || (int64_t)c->heads * c->head_dim > 1 << 16)
        return fail(e, MT_FILE, "%d heads of width %d do not fit together with %d key/value heads: "
                    "the file is damaged", c->heads, c->head_dim, c->kv_heads);
    const uint32_t fewest = read_u32(p + 104), most = read_u32(p + 108);
    if (fewest > most || most > 1 << 20 || (most && !fewest))
        return fail(e, MT_FILE, "the header's prompts have %u to %u tokens: the file is damaged",
                    fewest, most);
    c->prompt_min = (int32_t)fewest, c->prompt_max = (int32_t)most;
    c->tied = flags & 1;
    c->qk_norm = flags >> 1 & 1;
    c->linear = flags >> 2 & 1;
    c->begins_with_bos = flags >> 3 & 1;
    c->own_positions = flags >> 4 & 1;
    e->L = (size_t)c->layers, e->D = (size_t)c->dim, e->F = (size_t)c->ffn_dim;
    e->H = (size_t)c->heads, e->G = (size_t)c->kv_heads, e->K = (size_t)c->head_dim;
    e->V = (size_t)c->vocab;
    return MT_OK;
}

// The header (256 bytes, or all there are) and the file's true size -> e->config, block sizes
static int32_t read_header(mt_engine *e, const uint8_t *p, uint64_t size, sizes *block) {
    const unsigned long long bytes = size;
    if (size < HEADER)
        return fail(e, MT_FILE, "the file is %llu bytes, shorter than a header", bytes);
    if (memcmp(p, "minitron", 8)) return fail(e, MT_FILE, "this is not a minitron model file");
    if (read_u32(p + 8) != 1)
        return fail(e, MT_FILE, "the file's version is %u, but this engine reads version 1: "
                    "train again, or use a matching run.c", read_u32(p + 8));
    if (read_numbers(e, p)) return MT_FILE;
    for (int i = 112; i < 240; i++)
        if (p[i]) return fail(e, MT_FILE, "byte %d of the header is %u, but must be 0", i, p[i]);

    *block = (sizes){read_u64(p + 72), read_u64(p + 80), read_u64(p + 88), read_u64(p + 96)};
    if (block->file != size)
        return fail(e, MT_FILE, "the file is %llu bytes, but its header says %llu: it was cut "
                    "short or added to", bytes, (unsigned long long)block->file);
    cursor at = {.int8 = e->config.int8};
    place_tensors(e, &at);
    e->parameters = at.parameters;
    if (block->tokenizer > size || block->provenance > size || block->tensors != at.bytes ||
        HEADER + align64(block->tokenizer) + align64(block->provenance) + block->tensors != size)
        return fail(e, MT_FILE, "the blocks of the file do not add up to its %llu bytes", bytes);
    return MT_OK;
}

static int32_t read_tokenizer(mt_engine *e, const uint8_t *p, uint64_t size) {
    const uint8_t *end = p + size;
    const int32_t vocab = e->config.vocab;
    if (size < 8 || read_u32(p) != 1 || read_u32(p + 4) != (uint32_t)vocab)
        return fail(e, MT_FILE, "the tokenizer block does not begin with kind 1 and the "
                    "vocabulary's size, %d", vocab);
    p += 8;
    for (int32_t token = 0; token < vocab; token++) {
        if (end - p < 4 || read_u32(p) > MAX_PIECE || end - p - 4 < (int64_t)read_u32(p))
            return fail(e, MT_FILE, "the tokenizer block ends or goes wrong at piece %d of %d",
                        token, vocab);
        const int32_t length = (int32_t)read_u32(p);
        e->pieces[token] = e->sorted[token] = (piece){(const char *)p + 4, length, token};
        if (length > e->longest) e->longest = length;
        p += 4 + length;
    }
    if (p != end) return fail(e, MT_FILE, "the tokenizer block continues after its last piece");
    qsort(e->sorted, e->V, sizeof(piece), compare_pieces);
    for (const piece *a = e->sorted, *b = a + 1; b < e->sorted + vocab; a++, b++)
        if (b->size && compare_pieces(a, b) == 0)
            return fail(e, MT_FILE, "the tokenizer's pieces %d and %d are equal", a->token,
                        b->token);
    return MT_OK;
}

// Pack matrices (layers, outs, ins) of numbers of `size` bytes, in place: see tile_at.  In squares
// of 16 columns, which fit the first cache.
static inline void pack(void *numbers, uint8_t *spare, const matrix *m, size_t ins, size_t size) {
    for (size_t first = 0, rows; first < m->layers * m->outs && numbers; first += rows) {
        uint8_t *tile = (uint8_t *)numbers + first * ins * size;
        rows = m->outs - first % m->outs < TILE ? m->outs - first % m->outs : TILE;
        memcpy(spare, tile, rows * ins * size);
        for (size_t k0 = 0; k0 < ins; k0 += 16)
            for (size_t i = 0; i < rows; i++)
                for (size_t k = k0; k < ins && k < k0 + 16; k++)
                    memcpy(tile + (k * rows + i) * size, spare + (i * ins + k) * size, size);
    }
}

static void pack_matrix(const matrix *m, uint8_t *spare) {
    pack(m->floats, spare, m, m->ins, 4);
    pack(m->quants, spare, m, m->ins, 1);
    pack(m->scales, spare, m, m->groups, 4);
}

static int32_t new_scratch(mt_engine *e) {    // of mt_sample
    e->weight = malloc(e->V * sizeof(double));
    e->order = malloc(e->V * sizeof(int32_t));
    return e->weight && e->order ? MT_OK : MT_MEMORY;
}

// e->bytes holds a file with a good header; its other words add up to a and b.
static int32_t load(mt_engine *e, const sizes *s, uint64_t a, uint64_t b) {
    uint8_t *p = e->bytes;
    if (a != read_u64(p + 240) || b != read_u64(p + 248))
        return fail(e, MT_FILE, "the checksum is wrong: the file is damaged");
    e->provenance = (const char *)p + HEADER + align64(s->tokenizer);
    e->provenance_size = s->provenance;
    for (uint64_t i = 0; i < s->provenance; i++)
        if (e->provenance[i] < ' ' || e->provenance[i] > '~')
            return fail(e, MT_FILE, "byte %llu of the provenance block is not printable ASCII",
                        (unsigned long long)i);

    cursor at = {.base = p + s->file - s->tensors, .int8 = e->config.int8};
    place_tensors(e, &at);
    uint8_t *spare = malloc((size_t)at.tile);
    e->pieces = malloc(e->V * sizeof(piece));
    e->sorted = malloc(e->V * sizeof(piece));
    int32_t status = new_scratch(e);
    if (status || !spare || !e->pieces || !e->sorted)
        status = fail(e, MT_MEMORY, "no memory for a model of %llu bytes",
                      (unsigned long long)s->file);
    if (!status) status = read_tokenizer(e, p + HEADER, s->tokenizer);
    const matrix *all[] = {&e->p.embed, &e->p.wqkv, &e->p.wo, &e->p.w13, &e->p.w2, &e->p.head};
    for (int i = 0; i < 6 - e->config.tied && !status; i++) pack_matrix(all[i], spare);
    free(spare);
    return status;
}

// Read `size` bytes of a file, or else from place `at` of memory.  -> whether there are as many
static int take(FILE *file, const uint8_t *memory, uint64_t at, uint8_t *to, uint64_t size) {
    if (file) return fread(to, 1, (size_t)size, file) == size;
    if (size) memcpy(to, memory + at, (size_t)size);            // if 0, memory may be NULL
    return 1;
}

// The checksum of u64 words: a is their sum, b the sum of all values that a takes on the way, both
// modulo 2^64 (Fletcher 1982).  Changing one word always changes a, swapping words nearly always b.
// The file's own leaves out the words that hold it, 30 and 31.
static void add_words(const uint8_t *p, uint64_t size, uint64_t *a, uint64_t *b) {
    for (uint64_t i = 0; i + 8 <= size; i += 8) *b += *a += read_u64(p + i);
}

// Read a model of `size` bytes.  Memory is asked for only once the header makes sense of the size.
static int32_t read_model(mt_engine *e, FILE *file, const uint8_t *memory, uint64_t size) {
    uint8_t first[HEADER] = {0};
    sizes s = {0};
    uint64_t a = 0, b = 0, part = size < HEADER ? size : HEADER, at = part;
    int good = take(file, memory, 0, first, part);
    if (good) {
        if (read_header(e, first, size, &s)) return MT_FILE;
        // a fast loop reads up to a tile too far
        if (size < SIZE_MAX / 2) e->bytes = aligned_alloc(64, (size_t)size + 4 * TILE);
        if (!e->bytes)
            return fail(e, MT_MEMORY, "no memory for %llu bytes", (unsigned long long)size);
        memcpy(e->bytes, first, HEADER);
        memset(e->bytes + size, 0, 4 * TILE);
        add_words(first, HEADER - 16, &a, &b);
    }
    for (; good && at < size; at += part) {
        part = size - at < 1 << 18 ? size - at : 1 << 18;
        good = take(file, memory, at, e->bytes + at, part);
        if (good) add_words(e->bytes + at, part, &a, &b);       // while they are in the cache
    }
    if (good) return load(e, &s, a, b);
    return fail(e, MT_FILE, "reading stopped early: %s",
                ferror(file) ? strerror(errno) : "the file has become shorter");
}

// A new engine, of a file or of `size` bytes
static int32_t open_model(const char *path, const void *bytes, uint64_t size, mt_engine **engine) {
    mt_engine *e = *engine = calloc(1, sizeof *e);
    FILE *file = NULL;
    struct stat about;
    int32_t status = MT_OK;
    if (!e) return MT_MEMORY;
    e->threads = 1;
    if (path && stat(path, &about)) status = fail(e, MT_FILE, "%s", strerror(errno));
    else if (path && !S_ISREG(about.st_mode)) status = fail(e, MT_FILE, "not a regular file");
    else if (path && !(file = fopen(path, "rb"))) status = fail(e, MT_FILE, "%s", strerror(errno));
    if (!status) status = read_model(e, file, bytes, path ? (uint64_t)about.st_size : size);
    if (file) fclose(file);
    if (!status) return MT_OK;

    e->config = (mt_config){0};     // a model without tokens, which every other function refuses
    e->V = 0, e->longest = 0, e->provenance_size = 0;
    char reason[sizeof e->error];
    memcpy(reason, e->error, sizeof reason);
    return path ? fail(e, status, "%.200s: %.300s", path, reason) : status;
}

int32_t mt_open(const char *path, mt_engine **engine) { return open_model(path, NULL, 0, engine); }

int32_t mt_load(const void *bytes, uint64_t size, mt_engine **engine) {
    return open_model(NULL, bytes, size, engine);
}

void mt_close(mt_engine *e) {
    if (!e) return;
    void *own[] = {e->length, e->weight, e->order}, *shared[] = {e->bytes, e->pieces, e->sorted};
    for (int i = 0; i < 3; i++) free(own[i]);
    for (int i = 0; i < 3 && !e->is_fork; i++) free(shared[i]);
    free(e);
}

int32_t mt_abi(void) { return MT_ABI; }
const mt_config *mt_get_config(const mt_engine *e) { return &e->config; }
uint64_t mt_parameters(const mt_engine *e) { return e->parameters; }

const char *mt_get_provenance(const mt_engine *e, uint64_t *size) {
    *size = e->provenance_size;
    return e->provenance;
}

// ------------------------------------------------------------------------------------------------
// 6  Fast loops
//
// Nearly all time goes into sums over k of x[k] * w[i][k].  Each addition has to wait for the one
// before, and a compiler must not reorder them; but sums of different i do not wait for each other.
// So TILE of them lie side by side, for each k: outputs of a matrix, slots of keys, channels of
// values.  One tile:
//
//                  i = 0   1   2  ...  TILE-1
//     x[0]    *    w00 w10 w20  ...              one row: a few vector registers, read once for
//     x[1]    *    w01 w11 w21  ...              ROWS tokens
//     x[2]    *    w02 w12 w22  ...
//                   |   |   |
//                  y0  y1  y2   ...              ROWS * TILE sums, which stay in registers
//
// They fill 24 of AVX-512's 32 registers, 12 of AVX2's 16, 24 of NEON's 32.  6 rows, not 4: 1.22
// times in scoring at dim 128; 7 would leave no room for the weights.

#ifndef SLOW
enum {
    AHEAD = 4096,           // bytes that are asked for before they are needed
    THREAD_WORK = 1 << 18   // multiply-adds that are worth starting threads
};

typedef struct {            // `width` <= TILE rows of a matrix: column k begins k * step further on
    const float *floats;    // or, for int8:
    const int8_t *quants;
    const float *scales;    // its column k / GROUP
    size_t step, width;
} tile;

// The first `width` of `lanes` floats.  By way of a copy, so that sums need no address and stay in
// registers.
INLINE void load_lanes(float *to, const float *from, size_t lanes, size_t width) {
    float copy[TILE];
    if (width < lanes) from = memcpy(copy, from, width * sizeof *from);
    for (size_t j = 0; j < lanes; j++) to[j] = from[j];
}

INLINE void store_lanes(float *to, const float *from, size_t lanes, size_t width) {
    float copy[TILE], *at = width < lanes ? copy : to;
    for (size_t j = 0; j < lanes; j++) at[j] = from[j];
    if (width < lanes) memcpy(to, copy, width * sizeof *to);
}

// sum (rows, TILE) += x (rows, ins) @ w (ins, lanes), where w is floats or quants.  For one row,
// memory is the limit: asking ahead brings 1.05 times in decoding at dim 128.
INLINE void accumulate(float (*restrict sum)[TILE], const float *restrict x, size_t x_step,
                       const float *restrict floats, const int8_t *restrict quants, size_t step,
                       size_t ins, size_t rows, size_t lanes, int int8) {
    for (size_t k = 0; k < ins; k++) {
        for (size_t j = 0; j < lanes && rows == 1; j += int8 ? lanes : 16)
            PREFETCH((int8 ? (const char *)quants : (const char *)floats) + AHEAD + 4 * j);
        for (size_t t = 0; t < rows; t++)
            for (size_t j = 0; j < lanes; j++) {
                const float w = int8 ? quants[j] : floats[j];
                sum[t][j] = fma1(x[t * x_step + k], w, sum[t][j]);
            }
        if (int8) quants += step;
        else floats += step;
    }
}

// y (rows, width) = x (rows, ins) @ w.  Called with constants for rows, lanes and int8, so that the
// sums stay in registers and the loops over j become vector instructions.  Lanes beyond `width`
// compute numbers that are not read, from any bytes after the tile.
INLINE void rows_times_tile(float *y, size_t y_step, const float *x, size_t x_step, const tile *w,
                            size_t ins, int add, size_t rows, size_t lanes, int int8) {
    const float *floats = w->floats, *scales = w->scales;
    const int8_t *quants = w->quants;
    const size_t step = w->step, width = w->width;
    float sum[ROWS][TILE], part[ROWS][TILE];
    for (size_t t = 0; t < rows; t++) {
        for (size_t j = 0; j < lanes; j++) sum[t][j] = 0;
        if (add) load_lanes(sum[t], y + t * y_step, lanes, width);
    }
    if (!int8) accumulate(sum, x, x_step, floats, NULL, step, ins, rows, lanes, 0);
    for (size_t first = 0; first < ins && int8; first += GROUP, scales += step) {
        const size_t n = ins - first < GROUP ? ins - first : GROUP;
        for (size_t t = 0; t < rows; t++)
            for (size_t j = 0; j < lanes; j++) part[t][j] = 0;
        accumulate(part, x + first, x_step, NULL, quants + first * step, step, n, rows, lanes, 1);
        for (size_t t = 0; t < rows; t++)
            for (size_t j = 0; j < lanes; j++) sum[t][j] = fma1(part[t][j], scales[j], sum[t][j]);
    }
    for (size_t t = 0; t < rows; t++) store_lanes(y + t * y_step, sum[t], lanes, width);
}

// y (T, width) = x (T, ins) @ w, added to y with `add`.  Rows of y and x are *_step apart.
static void product(float *y, size_t y_step, const float *x, size_t x_step, const tile *w, size_t T,
                    size_t ins, int add) {
#define TIMES(rows, lanes, int8) \
    rows_times_tile(y, y_step, x, x_step, w, ins, add, rows, lanes, int8)
#define STEP(rows) \
    for (; T >= rows; T -= rows, y += rows * y_step, x += rows * x_step) \
        if (w->quants && w->width > NARROW) TIMES(rows, TILE, 1); \
        else if (w->quants) TIMES(rows, NARROW, 1); \
        else if (w->width > NARROW) TIMES(rows, TILE, 0); \
        else TIMES(rows, NARROW, 0);
    STEP(ROWS)
    STEP(1)
#undef STEP
#undef TIMES
}

static void multiply_tile(float *y, const float *x, const matrix *m, size_t l, size_t T, int add,
                          size_t first) {
    const size_t width = m->outs - first < TILE ? m->outs - first : TILE, at = l * m->outs + first;
    tile w = {.step = width, .width = width};
    if (m->floats) w.floats = m->floats + at * m->ins;
    else w.quants = m->quants + at * m->ins, w.scales = m->scales + at * m->groups;
    product(y + first, m->outs, x, m->ins, &w, T, m->ins, add);
}

// Whether threads should share a piece of work of that many multiply-adds
static int is_shared(const mt_engine *e, size_t work) { return e->team > 1 && work > THREAD_WORK; }

static void linear_forward(mt_engine *e, float *y, const float *x, const matrix *m, size_t l,
                           size_t T, int add) {
    if (is_shared(e, T * m->outs * m->ins)) {
        #pragma omp parallel for num_threads((int)e->team)
        for (size_t i = 0; i < m->outs; i += TILE) multiply_tile(y, x, m, l, T, add, i);
    } else
        for (size_t i = 0; i < m->outs; i += TILE) multiply_tile(y, x, m, l, T, add, i);
}

// The sum of 16 numbers, by halves: 4 steps that wait for each other, not 15
static inline float total(float *part) {
    for (int j = 0; j < 8; j++) part[j] += part[j + 8];
    for (int j = 0; j < 4; j++) part[j] += part[j + 4];
    return part[0] + part[2] + (part[1] + part[3]);
}

static float sum_of_squares(const float *x, size_t D) {
    float part[LANES] = {0};
    size_t d = 0;
    for (; d + LANES <= D; d += LANES)
        for (size_t j = 0; j < LANES; j++) part[j] = fma1(x[d + j], x[d + j], part[j]);
    for (size_t j = 0; d + j < D; j++) part[j] = fma1(x[d + j], x[d + j], part[j]);
    return total(part);
}

// e^x = 2^n * e^r with n = round(x / ln 2), |r| <= ln(2) / 2, and the polynomial for e^r of Cephes
// (Moshier 1984).  Unlike expf it has no branch and no call, so a loop over it becomes vector
// instructions: 1.51 times in scoring at dim 128.
static inline float exponential(float x) {
    const float magic = 12582912;               // 1.5 * 2^23: adding it leaves n in the last bits
    const float limited = x > 88 ? 88 : x < -87 ? -87 : x;
    const float shifted = fma1(limited, 1.44269504f, magic), n = shifted - magic;
    float r = fma1(n, -0.693359375f, limited), p = 1.9875691500e-4f, power;
    r = fma1(n, 2.12194440e-4f, r);
    p = fma1(p, r, 1.3981999507e-3f);
    p = fma1(p, r, 8.3334519073e-3f);
    p = fma1(p, r, 4.1665795894e-2f);
    p = fma1(p, r, 1.6666665459e-1f);
    p = fma1(p, r, 5.0000001201e-1f);
    p = fma1(p, r * r, r) + 1;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + 0x3f800000;           // 2^n
    memcpy(&power, &bits, 4);
    return x < -87 ? 0 : p * power;
}

// The largest score.  Pads the row with -inf to a multiple of LANES, for which it needs room.
static inline float largest(float *scores, size_t slots) {
    const size_t padded = round_up(slots);
    float top[LANES];
    for (size_t s = slots; s < padded; s++) scores[s] = -HUGE_VALF;
    for (size_t j = 0; j < LANES; j++) top[j] = scores[j];
    for (size_t s = LANES; s < padded; s += LANES)
        for (size_t j = 0; j < LANES; j++) top[j] = scores[s + j] > top[j] ? scores[s + j] : top[j];
    for (size_t j = 0; j < 8; j++) top[j] = top[j + 8] > top[j] ? top[j + 8] : top[j];
    for (size_t j = 0; j < 4; j++) top[j] = top[j + 4] > top[j] ? top[j + 4] : top[j];
    for (size_t j = 1; j < 4; j++) top[0] = top[j] > top[0] ? top[j] : top[0];
    return top[0];
}

// Padded scores -> e^(score - most).  -> their sum, by way of LANES partial sums
static inline float exponentials(float *scores, size_t slots, float most) {
    float part[LANES] = {0};
    for (size_t s = 0; s < slots; s += LANES)
        for (size_t j = 0; j < LANES; j++)
            part[j] += scores[s + j] = exponential(scores[s + j] - most);
    return total(part);
}

static float softmax(float *scores, size_t slots) {
    return exponentials(scores, slots, largest(scores, slots));
}

// The tile of a cache matrix (outs, ins) that begins at row `first`, of which `used` rows matter
static tile cache_tile(const float *floats, size_t outs, size_t ins, size_t first, size_t used) {
    const size_t step = outs - first < TILE ? outs - first : TILE;
    return (tile){.floats = floats + first * ins, .step = step,
                  .width = used - first < step ? used - first : step};
}

// Pointers move along the tiles of the cache, as tile_at says.
static void keep(mt_engine *e, size_t l, const chunk *c, size_t t, const float *k, const float *v) {
    const size_t K = e->K, b = c->sequence[t], s = c->slot[t], rest = e->S - s / TILE * TILE;
    const size_t step = rest < TILE ? rest : TILE;
    for (size_t g = 0; g < e->G; g++, k += K, v += K) {
        float *keys = key(e, l, b, g, s, 0);
        for (size_t i = 0; i < K; i++) keys[i * step] = k[i];
        for (size_t i = 0; i < K; i += TILE) {
            float *values = value(e, l, b, g, s, i);
            const size_t n = K - i < TILE ? K - i : TILE;
            for (size_t j = 0; j < n; j++) values[j] = v[i + j];
        }
    }
}

// Attention of head h for `count` <= ROWS tokens that follow each other in one sequence, from token
// t of the chunk on.  scores (ROWS, S) is scratch.
static void attend(mt_engine *e, float *y, const float *u, size_t l, const chunk *c, size_t h,
                   size_t t, size_t count, float *scores) {
    const size_t K = e->K, HK = e->H * K, QKV = HK + 2 * e->G * K, S = e->S;
    const size_t b = c->sequence[t], g = h / (e->H / e->G);
    const size_t slots = c->slot[t] + 1, all = slots + count - 1;       // of the first and the last
    const float *keys = key(e, l, b, g, 0, 0), *values = value(e, l, b, g, 0, 0);
    float top[ROWS], sum[ROWS];
    y += t * HK + h * K;
    for (size_t first = 0; first < all; first += TILE) {
        const tile w = cache_tile(keys, S, K, first, all);
        product(scores + first, S, u + t * QKV + h * K, QKV, &w, count, K, 0);
    }
    // softmax in two steps for all rows, so that none waits for another: 1.03 times at dim 64
    for (size_t i = 0; i < count; i++)
        top[i] = e->config.linear ? 0 : largest(scores + i * S, slots + i);
    for (size_t i = 0; i < count; i++)
        sum[i] = e->config.linear ? 1 : exponentials(scores + i * S, slots + i, top[i]);

    for (size_t first = 0; first < K; first += TILE) {
        const tile w = cache_tile(values, round_up(K), S, first, K);
        product(y + first, HK, scores, S, &w, count, slots, 0);
        for (size_t i = 1; i < count; i++)      // the slots that only later tokens see, in order
            for (size_t s = slots; s < slots + i; s++)
                for (size_t k = 0; k < w.width; k++) {
                    float *to = y + i * HK + first + k;
                    *to = fma1(scores[i * S + s], w.floats[s * w.step + k], *to);
                }
    }
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < K; k++) y[i * HK + k] /= sum[i];

    if (!e->watched || l * e->H + h != e->watched_head) return;
    for (size_t i = 0; i < count; i++)
        for (size_t s = 0; s < e->context; s++)
            e->watched[(t + i) * e->context + s] = s < slots + i ? scores[i * S + s] / sum[i] : 0;
}

// Heads h0 to h1 - 1 for all tokens, in runs of one sequence
static void attend_heads(mt_engine *e, float *y, const float *u, size_t l, const chunk *c,
                         size_t h0, size_t h1, int thread) {
    float *scores = e->scores + (size_t)thread * ROWS * e->S;
    for (size_t t = 0, end; t < c->count; t = end) {
        for (end = t + 1; end < c->count && end < t + ROWS && c->sequence[end] == c->sequence[t];)
            end++;
        for (size_t h = h0; h < h1; h++) attend(e, y, u, l, c, h, t, end - t, scores);
    }
}

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

static void attention_forward(mt_engine *e, float *y, const float *u, size_t l, const chunk *c) {
    const size_t H = e->H;
    if (is_shared(e, c->count * H * e->K * c->slot[c->count - 1])) {
        #pragma omp parallel for num_threads((int)e->team)
        for (size_t h = 0; h < H; h++) attend_heads(e, y, u, l, c, h, h + 1, omp_get_thread_num());
    } else attend_heads(e, y, u, l, c, 0, H, 0);
}
#endif

// ------------------------------------------------------------------------------------------------
// 7  Many sequences

enum { MAX_THREADS = 256 };

void mt_set_threads(mt_engine *e, int32_t threads) {
    e->threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    if (e->team > (size_t)e->threads) e->team = (size_t)e->threads;
}

int32_t mt_fork(mt_engine *e, mt_engine **fork) {
    mt_engine *copy = *fork = malloc(sizeof *copy);
    if (!copy) return MT_MEMORY;
    *copy = *e;
    copy->threads = copy->is_fork = 1;
    copy->B = 0;
    copy->length = NULL, copy->weight = NULL, copy->order = NULL;
    if (!e->V) return fail(copy, MT_USAGE, "no model is loaded");
    return new_scratch(copy) ? fail(copy, MT_MEMORY, "no memory for another engine") : MT_OK;
}

// floats, or NULL if they are too many.  In double, sizes cannot wrap, and are exact up to 2^53.
static float *new_floats(double count) {
    if (count > fmin(0x1p50, (double)(SIZE_MAX / 8))) return NULL;
    return aligned_alloc(64, (size_t)align64(4 * (uint64_t)count) + 4 * TILE);
}

// One block of memory for all that sequences need.  A fast loop may read beyond a part's end.
static int32_t new_caches(mt_engine *e, size_t B, size_t context, size_t team) {
    const size_t S = round_up(context), QKV = (e->H + 2 * e->G) * e->K, HK = e->H * e->K;
    const double heads = (double)(e->L * e->G) * (double)B, slots = (double)S;
    float *length = NULL;
    const struct { float **start; double floats; } parts[] = {
        {&length, (double)B * sizeof *e->length / sizeof(float)},
        {&e->keys, heads * slots * (double)e->K},
        {&e->values, heads * slots * (double)round_up(e->K)},
        {&e->x, (double)(CHUNK * e->D)}, {&e->n, (double)(CHUNK * e->D)},
        {&e->u, (double)(CHUNK * (QKV > 2 * e->F ? QKV : 2 * e->F))},
        {&e->y, (double)(CHUNK * (HK > e->F ? HK : e->F))},
        {&e->scores, (double)(team * ROWS) * slots}, {&e->cis, (slots + 1) * (double)e->K},
    };
    const int number = sizeof parts / sizeof *parts;
    double all = 0;
    for (int i = 0; i < number; i++) all += LANES * ceil(parts[i].floats / LANES);
    free(e->length);
    e->length = NULL;
    e->B = 0;
    float *block = new_floats(all);
    if (!block) return MT_MEMORY;
    for (int i = 0; i < number; i++) {
        *parts[i].start = block;
        block += round_up((size_t)parts[i].floats);
    }
    e->length = (void *)length;
    e->B = B, e->S = S, e->context = context, e->team = team;
    e->rotated = 0;
    return MT_OK;
}

int32_t mt_reset(mt_engine *e, int32_t sequences, int32_t context) {
    if (!e->V) return fail(e, MT_USAGE, "no model is loaded");
    if (sequences < 1 || context < 1)
        return fail(e, MT_USAGE, "sequences is %d and context is %d, but both must be at least 1",
                    sequences, context);
    const size_t B = (size_t)sequences, S = (size_t)context, team = (size_t)e->threads;
    if ((B != e->B || S != e->context || team != e->team) && new_caches(e, B, S, team))
        return fail(e, MT_MEMORY, "no memory for %d sequences of %d tokens: ask for fewer",
                    sequences, context);
    memset(e->length, 0, B * sizeof *e->length);
    return MT_OK;
}

int32_t mt_length(const mt_engine *e, int32_t sequence) {
    return sequence < 0 || (size_t)sequence >= e->B ? -1 : (int32_t)e->length[sequence];
}

static int32_t fail_sequence(mt_engine *e, int32_t sequence) {
    return fail(e, MT_USAGE, "sequence %d does not exist: mt_reset made %d", sequence, (int)e->B);
}

int32_t mt_rewind(mt_engine *e, int32_t sequence, int32_t length) {
    const int32_t now = mt_length(e, sequence);
    if (now < 0) return fail_sequence(e, sequence);
    if (length < 0 || length > now)
        return fail(e, MT_USAGE, "sequence %d has %d tokens, it cannot be rewound to %d", sequence,
                    now, length);
    e->length[sequence] = (size_t)length;
    return MT_OK;
}

// Check all tokens before any is run.  Counts them into their sequences and out again.
static int32_t check_tokens(mt_engine *e, int32_t count, const int32_t *tokens,
                            const int32_t *sequences, const int32_t *positions) {
    if (count < 0) return fail(e, MT_USAGE, "count is %d, but must be at least 0", count);
    if (e->config.own_positions && !positions)
        return fail(e, MT_USAGE, "this model was trained with positions of its own: give "
                    "positions, or use python -m minitron eval");
    int32_t status = MT_OK, i = 0;
    for (; i < count && !status; i++) {
        const int32_t b = sequences ? sequences[i] : 0, vocab = e->config.vocab;
        if (tokens[i] < 0 || tokens[i] >= vocab)
            status = fail(e, MT_USAGE, "token %d is not in the vocabulary of %d", tokens[i], vocab);
        else if (mt_length(e, b) < 0)
            status = fail_sequence(e, b);
        else if (positions && positions[i] < 0)
            status = fail(e, MT_USAGE, "position %d is negative", positions[i]);
        else if (e->length[b] == e->context)
            status = fail(e, MT_RUN, "sequence %d is longer than the context of %d tokens", b,
                          (int)e->context);
        else
            e->length[b]++;
    }
    for (int32_t j = 0; j < i - (status != MT_OK); j++) e->length[sequences ? sequences[j] : 0]--;
    return status;
}

// log p(target) from logits (V), which it overwrites, and a few floats after them
static float log_probability(float *logits, size_t V, int32_t target) {
    float most = logits[0], own = logits[target];
    for (size_t i = 1; i < V; i++) most = logits[i] > most ? logits[i] : most;
    return own - most - logf(softmax(logits, V));
}

int32_t mt_score(mt_engine *e, int32_t count, const int32_t *tokens, const int32_t *sequences,
                 const int32_t *positions, const int32_t *targets, float *logprobs) {
    const int32_t vocab = e->config.vocab;
    for (int32_t i = 0; i < count; i++)
        if (targets[i] >= vocab)
            return fail(e, MT_USAGE, "token %d is not in the vocabulary of %d", targets[i], vocab);
    int32_t status = check_tokens(e, count, tokens, sequences, positions);
    if (status) return status;

    const size_t V = e->V;
    float *logits = new_floats(CHUNK * (double)V);
    if (!logits) return fail(e, MT_MEMORY, "no memory for %d rows of %d logits", CHUNK, vocab);
    for (int32_t start = 0; start < count; start += CHUNK) {
        const int32_t n = count - start < CHUNK ? count - start : CHUNK;
        uint8_t wanted[CHUNK];
        size_t row = 0;
        for (int32_t i = 0; i < n; i++) row += wanted[i] = targets[start + i] >= 0;
        mt_forward(e, n, tokens + start, sequences ? sequences + start : NULL,
                   positions ? positions + start : NULL, wanted, logits);
        for (int32_t i = n - 1; i >= 0; i--) {          // backwards, see log_probability
            if (!wanted[i]) continue;
            const float p = log_probability(logits + --row * V, V, targets[start + i]);
            logprobs[start + i] = p;
            if (!isfinite(p))
                status = fail(e, MT_RUN, "a log-probability is not finite: the model's weights "
                              "have overflowed");
        }
    }
    free(logits);
    return status;
}

int32_t mt_attention(mt_engine *e, int32_t count, const int32_t *tokens, const int32_t *sequences,
                     const int32_t *positions, int32_t layer, int32_t head, float *weights) {
    const mt_config *c = &e->config;
    if (layer < 0 || layer >= c->layers || head < 0 || head >= c->heads)
        return fail(e, MT_USAGE, "layer %d, head %d does not exist: the model has %d layers of %d "
                    "heads", layer, head, c->layers, c->heads);
    e->watched = weights;
    e->watched_head = (size_t)layer * e->H + (size_t)head;
    const int32_t status = mt_forward(e, count, tokens, sequences, positions, NULL, NULL);
    e->watched = NULL;
    return status;
}

static int32_t check_sampling(mt_engine *e, const mt_sampling *how) {
    if (!e->V) return fail(e, MT_USAGE, "no model is loaded");
    if (how->temperature >= 0 && how->temperature < HUGE_VALF && how->top_k >= 0 &&
        how->top_p > 0 && how->top_p <= 1 && how->min_p >= 0 && how->min_p <= 1)
        return MT_OK;
    return fail(e, MT_USAGE, "temperature %g, top-k %d, top-p %g or min-p %g is out of range",
                how->temperature, how->top_k, how->top_p, how->min_p);
}

int32_t mt_sample(mt_engine *e, const float *logits, const mt_sampling *how, uint64_t *random,
                  int32_t *token) {
    const int32_t status = check_sampling(e, how);
    return status ? status : choose(e, logits, how, random, token);
}

// Generation for many prompts.  A window of sequences is kept busy: when one ends, the next prompt
// takes its place, so that ROWS tokens at a time always have work.  12 of them, not 60:
// 1.14 times at dim 128, as keys and values stay in the caches.

enum { WINDOW = 12 };           // sequences of a small model; for a large one, 5 times as many

typedef struct {
    int32_t count, most;        // these are arguments of mt_generate
    const int32_t *prompts, *lengths, *stop;
    const mt_sampling *how;
    uint64_t *random;
    int32_t *tokens, *generated;
    int32_t next;               // the next prompt to begin; its tokens are the next in `prompts`
    int32_t sequences;          // that are kept going
    int32_t *job;               // (sequences) the prompt that each works on, -1 for none
    int32_t *feed, *sequence;   // (sequences * room) the tokens that go in next
    uint8_t *wanted;
    float *logits;              // (sequences, V)
} generation;

// The tokens of the next step: one for each busy sequence, a prompt for each free one.  -> how many
static int32_t gather(mt_engine *e, generation *g) {
    int32_t n = 0;
    for (int32_t s = 0; s < g->sequences; s++) {
        const int32_t begin = n, job = g->job[s];
        if (job >= 0) {
            g->feed[n++] = g->tokens[(int64_t)job * g->most + g->generated[job] - 1];
        } else if (g->next < g->count) {
            e->length[s] = 0;
            for (int32_t i = 0; i < g->lengths[g->next]; i++) g->feed[n++] = *g->prompts++;
            g->job[s] = g->next++;
        }
        for (int32_t i = begin; i < n; i++) g->sequence[i] = s, g->wanted[i] = i == n - 1;
    }
    return n;
}

// Choose a token for each busy sequence.
static int32_t advance(mt_engine *e, generation *g) {
    const float *logits = g->logits;
    for (int32_t s = 0; s < g->sequences; s++) {
        const int32_t job = g->job[s];
        if (job < 0) continue;
        int32_t token;
        if (choose(e, logits, g->how, &g->random[job], &token)) return MT_RUN;
        const int ended = token == e->config.eos || (g->stop && token == g->stop[job]);
        if (!ended) g->tokens[(int64_t)job * g->most + g->generated[job]++] = token;
        if (ended || g->generated[job] == g->most || e->length[s] == e->context) g->job[s] = -1;
        logits += e->V;
    }
    return MT_OK;
}

int32_t mt_generate(mt_engine *e, int32_t count, const int32_t *prompts, const int32_t *lengths,
                    int32_t most, const int32_t *stop, const mt_sampling *how, uint64_t *random,
                    int32_t *tokens, int32_t *generated) {
    const int32_t context = e->config.context;
    int32_t longest = 0, status = check_sampling(e, how);
    if (!status && (count < 0 || most < 0))
        status = fail(e, MT_USAGE, "count is %d and most is %d, but both must be at least 0", count,
                      most);
    for (int32_t i = 0; i < count && !status; i++) {
        if (lengths[i] < 1 || lengths[i] > context)
            status = fail(e, MT_USAGE, "prompt %d has %d tokens, but must have 1 to %d, the "
                          "model's context", i, lengths[i], context);
        if (lengths[i] > longest) longest = lengths[i];
        generated[i] = 0;
    }
    if (status || count < 1 || most == 0) return status;

    const int is_small = e->parameters * (e->config.int8 ? 1 : 4) < MT_SMALL;
    const int32_t window = is_small ? WINDOW : 5 * WINDOW, n = count < window ? count : window;
    const int32_t room = most < context - longest ? longest + most : context;
    if ((status = mt_reset(e, n, room))) return status;
    const size_t S = (size_t)n, feed = S * (size_t)room;
    generation g = {
        .count = count, .most = most, .prompts = prompts, .lengths = lengths, .stop = stop,
        .how = how, .random = random, .tokens = tokens, .generated = generated, .sequences = n,
        .job = malloc(S * sizeof(int32_t)), .feed = malloc(feed * sizeof(int32_t)),
        .sequence = malloc(feed * sizeof(int32_t)), .wanted = malloc(feed),
        .logits = new_floats(n * (double)e->V),
    };
    if (!g.job || !g.feed || !g.sequence || !g.wanted || !g.logits)
        status = fail(e, MT_MEMORY, "no memory for %d prompts at a time", n);
    for (int32_t s = 0; s < n && !status; s++) g.job[s] = -1;
    for (int32_t fed; !status && (fed = gather(e, &g)) > 0;) {
        status = mt_forward(e, fed, g.feed, g.sequence, NULL, g.wanted, g.logits);
        if (!status) status = advance(e, &g);
    }
    void *all[] = {g.job, g.feed, g.sequence, g.wanted, g.logits};
    for (int i = 0; i < 5; i++) free(all[i]);
    return status;
}

// ------------------------------------------------------------------------------------------------
// 8  Command line.  The exit code is the API's status.

#ifndef MINITRON_LIB

static const char USAGE[] =
    "usage: run MODEL [-i PROMPT] [options]\n\n"
    "instead of generating text:\n"
    "  --score FILE         nll and perplexity per token, and bits per byte, of a text\n"
    "  --logprobs           log-probability of each token of the prompt, as JSON lines\n"
    "  --attention L,H      attention in layer L, head H (both from 0), as JSON lines\n"
    "  --info               describe the model\n"
    "  -h                   this text\n\n"
    "  -i TEXT   prompt; - reads it from standard input, as does a pipe without -i\n"
    "  -f FILE   prompt from a file\n"
    "  -n N      tokens to generate at most (default: until the end token or a full context)\n"
    "  -t T      temperature, 0 for the most likely token (default: the model file's)\n"
    "  -k K      sample from the K most likely tokens only\n"
    "  -p P      sample from the fewest tokens that together have probability P\n"
    "  -m P      sample from tokens at least P times as likely as the most likely one\n"
    "  -s SEED   of the sampler (0)\n"
    "  -j N      threads (1)\n\n"
    "  ./run model.bin                                  in a terminal: asks for prompts\n"
    "  ./run model.bin -i \"123+456=\"\n"
    "  ./run model.bin -t 0.8 -n 200 -s 7 < /dev/null\n"
    "  echo \"123+456=\" | ./run model.bin\n"
    "  ./run model.bin --score test.txt -j 2\n\n"
    "If the model has no newline token, a text from a file or standard input loses its last one,\n"
    "and --score takes each line as a text of its own.\n"
    "exit codes: 0 fine, 1 usage, 2 bad model file, 3 no memory, 4 failed while running\n";

typedef enum { GENERATE, SCORE, LOGPROBS, ATTENTION, INFO, HELP } action;

typedef struct {
    action what;
    const char *model, *prompt, *file;      // file: of the prompt, or the text of --score
    double steps, threads, top_k, temperature, top_p, min_p;    // as given; steps 0: no limit
    mt_sampling sampling;
    int layer, head;
    uint64_t seed;
} options;

// Print a line on standard error.  -> status
PRINTF(2) static int complain(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("run: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return status;
}

// Each of these returns 1, or 0 after a complaint.

static int read_number(const char *flag, const char *text, double low, double high, int whole,
                       double *value) {
    char *end;
    errno = 0;
    *value = strtod(text, &end);
    if (end != text && *end == 0 && errno == 0 && *value >= low && *value <= high &&
        (!whole || *value == floor(*value))) return 1;
    return complain(0, "%s %s: give a%s number from %.10g to %.10g", flag, text,
                    whole ? " whole" : "", low, high);
}

static int read_seed(const char *text, uint64_t *seed) {
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == 0 && errno == 0) return 1;
    return complain(0, "-s %s: give a whole number from 0 to 18446744073709551615", text);
}

static int read_head(const char *text, options *o) {    // "3,1": layer 3, head 1
    char rest;
    if (strspn(text, "0123456789,") == strlen(text) && strlen(text) < 16 &&
        sscanf(text, "%9d,%9d%c", &o->layer, &o->head, &rest) == 2) return 1;
    return complain(0, "--attention %s: give a layer and a head, both from 0, such as 0,0", text);
}

// A prompt, or the file of a text
static int set_text(const char *flag, const char *value, const char **text, const options *o) {
    if (o->prompt || o->file)
        return complain(0, "%s %s: there is a text already, %s: give one", flag, value,
                        o->prompt ? o->prompt : o->file);
    *text = value;
    return 1;
}

static int read_option(const char *flag, const char *value, options *o) {
    const struct { char letter; int whole; double low, high, *number; } numbers[] = {
        {'n', 1, 1, 1 << 30, &o->steps},      {'j', 1, 1, MAX_THREADS, &o->threads},
        {'k', 1, 0, 1 << 30, &o->top_k},      {'t', 0, 0, 1e6, &o->temperature},
        {'p', 0, 1e-6, 1, &o->top_p},         {'m', 0, 0, 1, &o->min_p},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (flag[1] == numbers[i].letter)
            return read_number(flag, value, numbers[i].low, numbers[i].high, numbers[i].whole,
                               numbers[i].number);
    if (flag[1] == 'i') return set_text(flag, value, &o->prompt, o);
    if (flag[1] == 's') return read_seed(value, &o->seed);
    if (!strcmp(flag, "--attention")) return read_head(value, o);
    return set_text(flag, value, &o->file, o);              // -f or --score
}

static int read_options(int argc, char **argv, options *o) {
    static const struct { const char *flag; action what; int has_value; } actions[] = {
        {"--score", SCORE, 1}, {"--logprobs", LOGPROBS, 0}, {"--attention", ATTENTION, 1},
        {"--info", INFO, 0}, {"-h", HELP, 0}, {"--help", HELP, 0},
    };
    *o = (options){.threads = 1, .temperature = -1, .top_p = 1};
    const char *first = NULL;                   // the first action's flag
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i];
        int has_value = strlen(flag) == 2 && strchr("ifntkpmsj", flag[1]), is_flag = has_value;
        for (size_t a = 0; a < sizeof actions / sizeof *actions; a++) {
            if (strcmp(flag, actions[a].flag)) continue;
            if (first && o->what != actions[a].what && actions[a].what != HELP)
                return complain(0, "%s and %s are two things to do: choose one", first, flag);
            o->what = actions[a].what;
            has_value = actions[a].has_value;
            first = flag;
            is_flag = 1;
        }
        if (o->what == HELP) return 1;
        if (flag[0] != '-' && o->model)
            return complain(0, "%s: one model at a time (the first is %s)", flag, o->model);
        if (flag[0] != '-') o->model = flag;
        else if (!is_flag) return complain(0, "%s: unknown option; ./run -h lists them", flag);
        else if (has_value && i + 1 == argc) return complain(0, "%s: its value is missing", flag);
        else if (has_value && !read_option(flag, argv[++i], o)) return 0;
    }
    return o->model ? 1 : complain(0, "which model?  e.g. ./run model.bin; ./run -h says more");
}

// All of a stream, or NULL.
static char *read_all(FILE *stream, int64_t *size) {
    size_t room = 1 << 16, used = 0;
    char *text = malloc(room);
    while (text) {
        used += fread(text + used, 1, room - used, stream);
        if (used < room) break;
        char *larger = realloc(text, room *= 2);
        if (!larger) free(text);
        text = larger;
    }
    if (text && ferror(stream)) { free(text); return NULL; }
    *size = (int64_t)used;
    return text;
}

// The text of -i, -f, --score or standard input, freshly allocated.  -> MT_OK, or after a complaint
// the exit code
static int read_text(mt_engine *e, const options *o, char **text, int64_t *size) {
    const char *name = o->file ? o->file : o->prompt ? o->prompt : isatty(STDIN_FILENO) ? "" : "-";
    if (!o->file && strcmp(name, "-")) {
        *size = (int64_t)strlen(name);
        *text = malloc((size_t)*size + 1);
        if (!*text) return complain(MT_MEMORY, "no memory for the prompt");
        memcpy(*text, name, (size_t)*size);
        return MT_OK;
    }
    FILE *stream = strcmp(name, "-") ? fopen(name, "rb") : stdin;
    if (stream) *text = read_all(stream, size);
    int reason = errno;
    if (stream && stream != stdin) fclose(stream);
    if (!*text)
        return complain(reason == ENOMEM ? MT_MEMORY : MT_USAGE, "%s: %s",
                        stream == stdin ? "standard input" : name, strerror(reason));
    if (*size && (*text)[*size - 1] == '\n' && find_piece(e, "\n", 1) < 0) --*size;
    return MT_OK;
}

static int print_info(const mt_engine *e, const char *path) {
    const mt_config *c = &e->config;
    const char *type = c->int8 ? "int8" : "float32";
    printf("%s: %llu parameters, %s\n", path, (unsigned long long)e->parameters, type);
    printf("dim %d, layers %d, heads %d of width %d, key/value heads %d, ffn %d, ", c->dim,
           c->layers, c->heads, c->head_dim, c->kv_heads, c->ffn_dim);
    printf("vocabulary %d, context %d tokens\n", c->vocab, c->context);
    printf("%s attention, rope theta %g, norm eps %g, %s head%s\n",
           c->linear ? "linear" : "softmax", c->rope_theta, c->norm_eps,
           c->tied ? "tied" : "untied", c->qk_norm ? ", norms on queries and keys" : "");
    printf("temperature %g unless -t is given\n", c->temperature);
    fwrite(e->provenance, 1, e->provenance_size, stdout);
    putchar('\n');
    return MT_OK;
}

// A text's tokens, freshly allocated: as training showed them, with bos in front if every row began
// with it; an empty text is bos.  -> status
static int32_t encode(mt_engine *e, const char *text, int64_t size, int32_t **tokens,
                      int64_t *count) {
    const int32_t bos = e->config.bos;
    *tokens = malloc(((size_t)size + 1) * sizeof **tokens);
    if (!*tokens) return fail(e, MT_MEMORY, "no memory for a text of %lld bytes", (long long)size);
    const int32_t status = mt_encode(e, text, size, *tokens, count);
    if (status || bos < 0) return status;
    if (*count == 0 || (e->config.begins_with_bos && **tokens != bos)) {
        memmove(*tokens + 1, *tokens, (size_t)*count * sizeof **tokens);
        **tokens = bos;
        ++*count;
    }
    return MT_OK;
}

// The same for a prompt of at least one token.  If it is only `scored`, the last one may lie beyond
// the context.
static int32_t encode_prompt(mt_engine *e, const char *text, int64_t size, int scored,
                             int32_t **tokens, int64_t *count) {
    const int32_t context = e->config.context;
    int32_t status = encode(e, text, size, tokens, count);
    if (status) return status;
    if (*count == 0)
        return fail(e, MT_USAGE, "this model needs a prompt: give one with -i (--info shows an "
                    "example)");
    if (*count - scored > context)
        return fail(e, MT_RUN, "the prompt is %lld tokens, the model's context %d: shorten it",
                    (long long)*count, context);
    return MT_OK;
}

// Tell a user at a terminal that training showed no prompt with this number of tokens.
static void check_prompt(const mt_engine *e, int64_t count) {
    const mt_config *c = &e->config;
    if (c->prompt_max && (count < c->prompt_min || count > c->prompt_max) && isatty(STDERR_FILENO))
        fprintf(stderr, "note: the prompt has %lld tokens; training showed prompts of %d to %d\n",
                (long long)count, c->prompt_min, c->prompt_max);
}

// Print a text and what follows it, token by token.
static int32_t generate(mt_engine *e, const options *o, const char *text, int64_t size) {
    int64_t count;
    double left = 0;
    uint64_t random = o->seed;
    int32_t token, length = 0, *tokens = NULL;
    float *logits = new_floats((double)e->V);
    int32_t status = logits ? encode_prompt(e, text, size, 0, &tokens, &count)
                            : fail(e, MT_MEMORY, "no memory for logits");
    if (!status) status = mt_reset(e, 1, e->config.context);
    if (!status) status = mt_forward(e, (int32_t)count - 1, tokens, NULL, NULL, NULL, NULL);
    if (!status) status = mt_forward(e, 1, tokens + count - 1, NULL, NULL, NULL, logits);
    if (!status) check_prompt(e, count);
    if (!status) fwrite(text, 1, (size_t)size, stdout);
    for (int step = 0; !status && (o->steps == 0 || step < o->steps); step++) {
        status = mt_sample(e, logits, &o->sampling, &random, &token);
        if (status || token == e->config.eos) break;
        const char *bytes = mt_piece(e, token, &length);
        fwrite(bytes, 1, (size_t)length, stdout);
        fflush(stdout);
        if (e->length[0] == e->context) {
            left = o->steps - step - 1;
            break;
        }
        status = mt_forward(e, 1, &token, NULL, NULL, NULL, logits);
    }
    if (!status) putchar('\n');
    if (!status && left > 0)
        fprintf(stderr, "note: the context of %d tokens is full; %.0f of -n %.0f are left\n",
                e->config.context, left, o->steps);
    free(tokens);
    free(logits);
    return status;
}

// A prompt to try, if the file names one: provenance has it without quotes and backslashes.
static void print_example(const mt_engine *e) {
    static const char NAME[] = "\"example\": \"";
    const size_t length = sizeof NAME - 1;
    for (const char *at = e->provenance, *end = at + e->provenance_size; at + length < end; at++)
        if (!memcmp(at, NAME, length)) {
            const char *text = at + length, *quote = memchr(text, '"', (size_t)(end - text));
            if (quote) printf(", such as %.*s", (int)(quote - text), text);
            return;
        }
}

// Prompts from a terminal, until its end of input
static int32_t converse(mt_engine *e, const options *o) {
    char *line = NULL;
    size_t room = 0;
    printf("Type a prompt");
    print_example(e);
    puts("; Ctrl-D ends.");
    for (;;) {
        fputs("> ", stdout);
        fflush(stdout);
        ssize_t size = getline(&line, &room, stdin);
        if (size < 0) break;
        if (line[size - 1] == '\n') size--;
        if (generate(e, o, line, size)) complain(0, "%s", mt_error(e));
    }
    putchar('\n');
    free(line);
    return MT_OK;
}

// Whether bytes are whole characters of UTF-8
static int is_utf8(const char *bytes, int32_t size) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    for (int32_t i = 0; i < size;) {
        const unsigned char lead = (unsigned char)bytes[i++];
        const int more = lead < 0x80 ? 0 : lead >> 5 == 6 ? 1 : lead >> 4 == 14 ? 2
                       : lead >> 3 == 30 ? 3 : 4;
        if (more > 3 || more > size - i) return 0;
        uint32_t point = lead & (more ? 0x3fu >> more : 0x7fu);
        for (int k = 0; k < more; k++) {
            const unsigned char byte = (unsigned char)bytes[i++];
            if (byte >> 6 != 2) return 0;
            point = point << 6 | (byte & 0x3f);
        }
        if (point < least[more] || point >> 11 == 27 || point > 0x10ffff) return 0;  // surrogates
    }
    return 1;
}

// {"token": 65, "text": "A" without the closing brace; "bytes": [195] for a part of a character
static void print_token(const mt_engine *e, int32_t token) {
    int32_t size = 0;
    const char *bytes = mt_piece(e, token, &size);
    const int is_text = is_utf8(bytes, size);
    printf("{\"token\": %d, \"%s\": %c", token, is_text ? "text" : "bytes", is_text ? '"' : '[');
    for (int32_t i = 0; i < size; i++) {
        const unsigned char byte = (unsigned char)bytes[i];
        if (!is_text) printf("%s%d", i ? ", " : "", byte);
        else if (byte < ' ' || byte == 127 || byte == '"' || byte == '\\') printf("\\u%04x", byte);
        else putchar(byte);
    }
    putchar(is_text ? '"' : ']');
}

// Text, then a number, or null if it is not finite
static void print_number(const char *text, float x) {
    if (isfinite(x)) printf("%s%.6g", text, x);
    else printf("%snull", text);
}

// A JSON line for each token of a text: its log-probability given those before it, or the attention
// that it pays to each of them
static int32_t look_into(mt_engine *e, const options *o, const char *text, int64_t size) {
    const int attention = o->what == ATTENTION;
    int64_t count = 0;
    int32_t *tokens = NULL, status = encode_prompt(e, text, size, !attention, &tokens, &count);
    const int32_t n = (int32_t)count;
    float *values = new_floats((double)count * (attention ? (double)count : 1));
    if (!status) status = mt_reset(e, 1, n);
    if (!status && !values) status = fail(e, MT_MEMORY, "no memory for %d tokens", n);
    if (!status && attention)
        status = mt_attention(e, n, tokens, NULL, NULL, o->layer, o->head, values);
    if (!status && !attention) {
        values[0] = NAN;                                        // nothing comes before it
        status = mt_score(e, n - 1, tokens, NULL, NULL, tokens + 1, values + 1);
    }
    for (int64_t t = 0; t < count && !status; t++) {
        print_token(e, tokens[t]);
        if (!attention) print_number(", \"logprob\": ", values[t]);
        for (int64_t s = 0; s <= t && attention; s++)
            print_number(s ? ", " : ", \"attention\": [", values[t * count + s]);
        puts(attention ? "]}" : "}");
    }
    free(tokens);
    free(values);
    return status;
}

typedef struct { double nll, square, bytes; int64_t tokens; } score;        // sums over the tokens

// Score tokens[1..count-1], each given those before it, in windows of the model's context.
static int32_t score_tokens(mt_engine *e, const int32_t *tokens, int64_t count, score *sum) {
    const int32_t context = count < e->config.context ? (int32_t)count : e->config.context;
    float *logprobs = new_floats(context);
    int32_t size = 0, status = MT_OK;
    if (!logprobs) status = fail(e, MT_MEMORY, "no memory for %d tokens", context);
    for (int64_t start = 0; start + 1 < count && !status; start += context) {
        int32_t n = count - 1 - start < context ? (int32_t)(count - 1 - start) : context;
        status = mt_reset(e, 1, context);
        const int32_t *from = tokens + start;
        if (!status) status = mt_score(e, n, from, NULL, NULL, from + 1, logprobs);
        for (int32_t i = 0; i < n && !status; i++) {
            sum->nll -= logprobs[i];
            sum->square += logprobs[i] * (double)logprobs[i];
            mt_piece(e, from[i + 1], &size);
            sum->bytes += size;
        }
        sum->tokens += n;
    }
    free(logprobs);
    return status;
}

// How well the model predicts a text, or each of its lines where the model knows no newline
static int32_t score_text(mt_engine *e, const char *text, int64_t size) {
    const int lines = find_piece(e, "\n", 1) < 0;
    score sum = {0};
    int32_t status = MT_OK;
    int64_t line = 0;
    for (int64_t start = 0, end; start < size && !status; start = end + 1, line++) {
        for (end = start; end < size && !(lines && text[end] == '\n');) end++;
        int32_t *tokens = NULL;
        int64_t count;
        status = encode(e, text + start, end - start, &tokens, &count);
        if (!status) status = score_tokens(e, tokens, count, &sum);
        free(tokens);
    }
    if (!status && sum.tokens == 0)
        status = fail(e, MT_USAGE, "there is nothing to score: give a text of two tokens or more");
    if (status && lines && line > 1) {
        char reason[sizeof e->error];
        memcpy(reason, e->error, sizeof reason);
        return fail(e, status, "line %lld: %s", (long long)line, reason);
    }
    if (status) return status;
    const double n = (double)sum.tokens, mean = sum.nll / n, bits = n / log(2) / sum.bytes;
    const double variance = sum.square / n - mean * mean;
    const double error = sqrt((variance > 0 ? variance : 0) / n);
    const double values[] = {mean, exp(mean), mean * bits};
    const double errors[] = {error, exp(mean) * error, error * bits};
    const char *names[] = {"nll", "perplexity", "bits per byte"};
    printf("%lld token%s", (long long)sum.tokens, n > 1 ? "s" : "");
    for (int i = 0; i < 3; i++) {
        printf("%s %s %.*f", i ? "," : ":", names[i], i == 1 ? 4 : 5, values[i]);
        if (n > 1) printf(" +- %.*f", i == 1 ? 4 : 5, errors[i]);       // one has no spread
    }
    putchar('\n');
    return MT_OK;
}

// Whether all that was printed has arrived, e.g. on a disk that is not full.
static int finish_output(int status) {
    if ((fflush(stdout) || ferror(stdout)) && !status)
        return complain(MT_RUN, "standard output cannot be written");
    return status;
}

static int act(mt_engine *e, const options *o) {
    if (o->what == INFO) return print_info(e, o->model);
    char *text = NULL;
    int64_t size = 0;
    int32_t status = MT_OK;
    const int asks = o->what == GENERATE && !o->prompt && !o->file && isatty(STDIN_FILENO);
    if (!asks && (status = read_text(e, o, &text, &size))) return status;      // it has complained
    if (o->what == SCORE) status = score_text(e, text, size);
    else if (o->what != GENERATE) status = look_into(e, o, text, size);
    else status = asks ? converse(e, o) : generate(e, o, text, size);
    free(text);
    return status ? complain(status, "%s", mt_error(e)) : MT_OK;
}

int main(int argc, char **argv) {
    options o;
    if (!read_options(argc, argv, &o)) return MT_USAGE;
    if (o.what == HELP) {
        fputs(USAGE, stdout);
        return finish_output(MT_OK);
    }
    mt_engine *e;
    int status = mt_open(o.model, &e);
    if (status) complain(status, "%s", mt_error(e));
    else {
        mt_set_threads(e, (int32_t)o.threads);
        o.sampling = (mt_sampling){
            .temperature = o.temperature < 0 ? e->config.temperature : (float)o.temperature,
            .top_k = (int32_t)o.top_k, .top_p = (float)o.top_p, .min_p = (float)o.min_p,
        };
        status = act(e, &o);
    }
    mt_close(e);
    return finish_output(status);
}

#endif
