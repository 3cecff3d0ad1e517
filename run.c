/* run.c: runs the model files that minitron trains.

   One file, C11 and libm, no other dependency.  Read it from top to bottom: the file format, the API, the loader, the
   mathematics, the forward pass, the tokenizer, the sampler, the command line.  minitron/model.py is the same model in
   NumPy, with the same names; the tests hold the two equal at every position.

       cc -O3 -march=native -ffp-contract=off run.c -o run -lm      the program; make does this, with threads where it can
       cc ... -DMINITRON_LIB -shared -fPIC run.c -o libminitron.so -lm       the library, without main
       cc -DSLOW ...                                          each fast loop replaced by its plain twin beside it

   Two ideas that NumPy's forward does not have:
   - the key/value cache: a token's keys and values depend on no later token, so they are kept, and a new token
     costs one pass through the weights instead of a pass for the whole text;
   - panels: nearly all time goes into sums over k of x[k] * w[i][k].  Stored as panels, PANEL outputs i side by side (64 with
     AVX-512, else 32), these are independent sums that a compiler keeps in vector registers (see tile).  Weights, keys and
     values all lie so.

   Each output is one sum, over k = 0, 1, 2 ..., by fused multiply-adds that are written out.  So its bits depend on nothing else:
   not on the batch it is in, not on calls or threads; nor, built for a processor with such instructions and -ffp-contract=off,
   on the compiler.

   Dimension key, as in minitron/ops.py: B sequences, T time, D dim, H heads, G key/value heads, K head width,
   F feed-forward width, L layers, V vocabulary, and here S slots of a sequence's cache.

   FILE FORMAT, version 1.  Little-endian.  Four blocks, each begun at a multiple of 64 bytes; what lies in gaps is ignored:

       header      256 bytes:
             0  8 bytes   "minitron"
             8  u32       version, 1
            12  u32       dtype of the matrices, 0 = float32, 1 = int8
            16  u32 x 8   layers, dim, heads, kv_heads, head_dim, ffn_dim (0: attention only), vocab, context
            48  u32       flags: 1 tied head, 2 norms on queries and keys, 4 linear attention
            52  u32       bos, the token that stands for an empty prompt, or 2^32-1 for none
            56  u32       eos, the token at which generation stops, or 2^32-1 for none
            60  f32 x 3   rope_theta (0: no positions), norm_eps, temperature (recommended for sampling)
            72  u64 x 4   bytes of the tokenizer block, of the provenance block, of the tensor block, of the whole file
           104            zeros
           240  u64 x 2   checksum
       tokenizer   u32 kind (1: longest match), u32 count (= vocab), and a piece a token: u32 length (0..256), bytes.
                   An empty piece cannot be written in a prompt; no two others are equal.
       provenance  JSON in printable ASCII: the task, the configuration and the key of the run that made the file.
       tensors     each begun at a multiple of 64 bytes from the block's start, a matrix as (out, in), norms as float32:
                   embed (V, D), norm1 (L, D), wqkv (L, (H+2G)K, D) is queries over keys over values, wo (L, D, HK),
                   norm_q (L, K), norm_k (L, K)                        with flag 2
                   norm2 (L, D), w13 (L, 2F, D), w2 (L, D, F)          with F > 0; w13 is gate over up
                   norm_f (D), head (V, D)                             head without flag 1
                   With dtype 1 a matrix (L, out, in) is two tensors: int8 q (L, out, in), then float32 scale
                   (L, out, ceil(in/64)), and means w[i][k] = q[i][k] * scale[i][k/64].  A last group may be shorter than 64.

       limits      layers <= 2^12; dim, ffn_dim, heads * head_dim <= 2^16; 2 <= vocab <= 2^20; context <= 2^20; head_dim even;
                   kv_heads divides heads; rope_theta <= 1e12, 0 < norm_eps <= 1, temperature <= 100

   Query head h uses key/value head h / (H/G).  Queries and keys are normed (flag 2), then turned, queries then times K^-0.5.
   Rotary positions turn the channel pairs (2j, 2j+1) of a head by position * theta^(-2j/K).  Linear attention leaves out softmax.
   Checksum: the file as u64 words without words 30 and 31;  a = sum of words, b = sum of all values that a took on the way,
   both modulo 2^64 (Fletcher 1982).  A change of one word always changes a, an exchange of words nearly always b.

   A file is untrusted.  Every size is computed in 64 bits from the header and compared with the file before any pointer
   is formed.  Loading takes the file's size in memory, 44 bytes a piece, and room for one panel; mt_reset what it says it takes.
*/
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
#include <time.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

// API-BEGIN  (Python's cffi reads from here to API-END, so that there is no second declaration that could drift)

typedef struct mt_engine mt_engine;     // a model with its caches; one thread at a time may use it

typedef struct {                        // what the header says
    int32_t layers, dim, heads, kv_heads, head_dim, ffn_dim, vocab, context;
    int32_t tied, qk_norm, linear;      // 0 or 1
    int32_t bos, eos;                   // token ids, or -1 for none
    int32_t int8;                       // 1: matrices of int8
    float rope_theta, norm_eps, temperature;
} mt_config;

typedef struct {                        // how to choose the next token, see mt_sample
    float temperature;                  // 0: the likeliest; else logits are divided by it
    int32_t top_k;                      // keep the k likeliest; 0: all
    float top_p;                        // keep the fewest that together have this probability; 1: all
    float min_p;                        // keep those at least this fraction as likely as the likeliest; 0: all
} mt_sampling;

// Every function that returns int32_t status returns one of these; mt_error then says why, in one line.
enum { MT_OK = 0, MT_USAGE = 1, MT_FILE = 2, MT_MEMORY = 3, MT_RUN = 4 };

// Raised whenever a declaration in this block changes: a library built before that answers mt_abi with another number.
enum { MT_ABI = 2 };
int32_t mt_abi(void);

// Load a model from a file, or from memory (which is copied).  On failure *engine still has to be closed; mt_error tells why.
int32_t mt_open(const char *path, mt_engine **engine);
int32_t mt_load(const void *bytes, uint64_t size, mt_engine **engine);
void mt_close(mt_engine *engine);
const char *mt_error(const mt_engine *engine);                  // NULL, where there was no memory for an engine, is fine
const mt_config *mt_get_config(const mt_engine *engine);
const char *mt_get_provenance(const mt_engine *engine, uint64_t *size);     // JSON, not 0-terminated
uint64_t mt_parameters(const mt_engine *engine);

// Threads that large calls may use from the next mt_reset on, 256 at the most; small calls stay on one.  No effect on any bit.
void mt_set_threads(mt_engine *engine, int32_t threads);

// Make room for `sequences` empty sequences of up to `context` tokens: 8*L*G*K bytes a token (K and context rounded up to 16),
// (4*K + 24*threads) bytes a token of one sequence, and working space for 240 tokens.  mt_score takes 960*V bytes more;
// mt_logits and mt_generate take all this for each thread.
int32_t mt_reset(mt_engine *engine, int32_t sequences, int32_t context);

// Tokens in a sequence, -1 if there is no such sequence; and forget all but the first `length` of them.
int32_t mt_length(const mt_engine *engine, int32_t sequence);
int32_t mt_rewind(mt_engine *engine, int32_t sequence, int32_t length);

// Append `count` tokens to their sequences and compute the logits that follow each.
//   tokens     (count)
//   sequences  (count) each token's sequence; NULL: all to sequence 0
//   positions  (count) ids for the rotary positions, >= 0; NULL: 0, 1, 2 ... within each sequence
//   wanted     (count) nonzero where logits are wanted; NULL: everywhere
//   logits     (number wanted, V), may be NULL for none
// On failure no sequence has changed.  Results do not depend on how tokens are spread over calls and sequences.
int32_t mt_forward(mt_engine *engine, int32_t count, const int32_t *tokens, const int32_t *sequences,
                   const int32_t *positions, const uint8_t *wanted, float *logits);

// The same for log-probabilities, in nats: logprobs[i] = log p(targets[i] | tokens up to i), where targets[i] >= 0.  MT_RUN where
// one is not finite, with the tokens appended all the same.
int32_t mt_score(mt_engine *engine, int32_t count, const int32_t *tokens, const int32_t *sequences,
                 const int32_t *positions, const int32_t *targets, float *logprobs);

// The same for attention weights (count, context of mt_reset) of one head: how much token i takes from each slot of its sequence,
// 0 for slots behind it.  With linear attention they are the scores, which need not add up to 1.
int32_t mt_attention(mt_engine *engine, int32_t count, const int32_t *tokens, const int32_t *sequences,
                     const int32_t *positions, int32_t layer, int32_t head, float *weights);

// Logits of `count` whole sequences of `time` tokens (less than 2^21) from their beginnings; arguments as above, (count, time)
// each.  The fastest way to evaluate a model.  What sequences there were is lost.
int32_t mt_logits(mt_engine *engine, int32_t count, int32_t time, const int32_t *tokens, const int32_t *positions,
                  const uint8_t *wanted, float *logits);

// Choose a token from logits (V).  *random is the sampler's whole state, any value: a seed; it moves on
// by one draw, at temperature 0 by none.
int32_t mt_sample(mt_engine *engine, const float *logits, const mt_sampling *sampling, uint64_t *random, int32_t *token);

// What follows each of `count` prompts.  What sequences there were is lost.
//   prompts    the prompts' tokens, one after the other; lengths (count) of each, at least 1
//   most       tokens to generate for one prompt at the most; each also ends at eos, at stop, and where the context is full
//   stop       (count) a token that ends this prompt's text, -1 for none; NULL: none.  Neither it nor eos is in the result
//   random     (count) sampler states
//   tokens     (count, most) what is generated, and generated (count) how many
int32_t mt_generate(mt_engine *engine, int32_t count, const int32_t *prompts, const int32_t *lengths, int32_t most,
                    const int32_t *stop, const mt_sampling *sampling, uint64_t *random, int32_t *tokens, int32_t *generated);

// Text to tokens, at each place the longest piece that fits.  *count is set to the number; tokens has room for `size`.
int32_t mt_encode(mt_engine *engine, const char *text, int64_t size, int32_t *tokens, int64_t *count);
const char *mt_piece(const mt_engine *engine, int32_t token, int32_t *size);    // not 0-terminated; NULL: no such token

// API-END

// Widths that suit the vector registers: tile keeps TILE * PANEL sums in them (24 of AVX-512's 32, 12 of AVX2's 16, 24 of
// NEON's 32).  6 tokens, not 4: 1.22 times in scoring at dim 128; 7 would not fit beside the weights.
#ifdef SLOW
enum { PANEL = 32, TILE = 1 };
#elif defined(__AVX512F__)
enum { PANEL = 64, MIDDLE = 48, NARROW = 32, TILE = 6 };
#else
enum { PANEL = 32, MIDDLE = 24, NARROW = 24, TILE = 3 };
#endif

enum {
    HEADER = 256,           // bytes
    GROUP = 64,             // int8 weights of a row that share a scale
    AHEAD = 1024,           // floats that are asked for before they are needed
    LANES = 16,             // partial sums where a sum runs over what lies side by side
    CHUNK = 240,            // tokens that go through the layers together, a multiple of TILE
    BATCH = 1024,           // tokens of whole sequences that a thread works on in mt_logits
    WINDOW = 12,            // sequences of a small model that a thread keeps going in mt_generate
    SMALL_MODEL = 1 << 24,  // bytes of weights
    MAX_PIECE = 256,        // bytes
    MAX_THREADS = 256,
    THREAD_WORK = 1 << 18   // multiply-adds below which starting threads costs more than they bring
};

typedef struct {
    const char *bytes;
    int32_t size, token;
} piece;

typedef struct {            // (layers, outs, ins), each layer's matrix packed into panels
    float *floats;          // dtype 0
    int8_t *quants;         // dtype 1
    float *scales;          // dtype 1: (layers, outs, groups), packed into panels as well
    size_t layers, outs, ins, groups;
} matrix;

typedef struct {            // pointers into engine->bytes
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
} tensors;

typedef struct {            // the tokens under way: which, of which sequence, at which place in its cache, at which position
    int count;
    const int32_t *token;
    int32_t sequence[CHUNK], slot[CHUNK], position[CHUNK];
} chunk;

struct mt_engine {
    char error[512];
    mt_config config;
    uint64_t parameters;
    int32_t threads;
    uint8_t *bytes;         // the file, its matrices packed in place
    tensors w;
    const char *provenance;
    uint64_t provenance_size;
    piece *pieces;          // (V) by token id
    piece *sorted;          // (V) by their bytes, for the search of mt_encode
    double *weight;         // (V) for mt_sample
    int32_t *order;         // (V) for mt_sample
    int32_t longest;        // bytes of the longest piece
    // what mt_reset makes
    int32_t sequences, context, team;       // team: threads that there is room for
    int32_t *length;        // (B) tokens in each sequence
    float *keys;            // (L, B, G, S, K) as panels of slots: [K][slots], so that scores are a product
    float *values;          // (L, B, G, K, S) as panels of channels: [S][channels]
    float *x, *n;           // (CHUNK, D) residual stream; its norm
    float *u;               // (CHUNK, max((H+2G)K, 2F))
    float *y;               // (CHUNK, max(HK, F))
    float *scores;          // (team, TILE, S)
    float *turns;           // (S + 1, K) cosines, then sines, of rotary positions; the last for one that is beyond the context
    // where mt_attention wants weights
    float *watched;         // NULL for nowhere
    int32_t watched_layer, watched_head;
};

// ---------------------------------------------------------------------------------------------------------------------
// Errors

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static int32_t fail(mt_engine *e, int32_t status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(e->error, sizeof e->error, format, arguments);
    va_end(arguments);
    return status;
}

const char *mt_error(const mt_engine *e) { return e ? e->error : "out of memory"; }

// ---------------------------------------------------------------------------------------------------------------------
// Loader.  Nothing is believed before it is checked.

static uint32_t read_u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static uint64_t read_u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static float read_f32(const uint8_t *p) { float v; memcpy(&v, p, 4); return v; }
static uint64_t align64(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

typedef struct {            // bytes of each block, as the header gives them
    uint64_t tokenizer, provenance, tensors, file;
} sizes;

typedef struct {            // walks over the tensor block in the file's order
    uint8_t *base;          // NULL: only counts
    uint64_t bytes, parameters;
    int int8;
} cursor;

static void *place(cursor *at, uint64_t bytes)
{
    void *here = at->base ? at->base + at->bytes : NULL;
    at->bytes += align64(bytes);
    return here;
}

static float *place_norm(cursor *at, uint64_t layers, uint64_t size)
{
    at->parameters += layers * size;
    return place(at, 4 * layers * size);
}

static matrix place_matrix(cursor *at, uint64_t layers, uint64_t outs, uint64_t ins)
{
    matrix m = {.layers = layers, .outs = outs, .ins = ins, .groups = (ins + GROUP - 1) / GROUP};
    at->parameters += layers * outs * ins;
    if (at->int8) m.quants = place(at, layers * outs * ins);
    if (at->int8) m.scales = place(at, 4 * layers * outs * m.groups);
    else m.floats = place(at, 4 * layers * outs * ins);
    return m;
}

// Where the tensors lie in their block.  With the limits of read_header every size is below 2^49 bytes, so that no sum or product
// here can wrap.
static void place_tensors(const mt_config *c, cursor *at, tensors *w)
{
    uint64_t L = (uint64_t)c->layers, D = (uint64_t)c->dim, F = (uint64_t)c->ffn_dim, V = (uint64_t)c->vocab;
    uint64_t K = (uint64_t)c->head_dim, HK = (uint64_t)c->heads * K, GK = (uint64_t)c->kv_heads * K;
    w->embed = place_matrix(at, 1, V, D);
    w->norm1 = place_norm(at, L, D);
    w->wqkv = place_matrix(at, L, HK + 2 * GK, D);
    w->wo = place_matrix(at, L, D, HK);
    w->norm_q = place_norm(at, L, c->qk_norm ? K : 0);
    w->norm_k = place_norm(at, L, c->qk_norm ? K : 0);
    w->norm2 = place_norm(at, L, F ? D : 0);
    w->w13 = place_matrix(at, L, 2 * F, D);
    w->w2 = place_matrix(at, L, D, F);
    w->norm_f = place_norm(at, 1, D);
    w->head = c->tied ? w->embed : place_matrix(at, 1, V, D);
}

static int32_t check_range(mt_engine *e, const char *name, uint32_t value, uint32_t low, uint32_t high)
{
    if (value >= low && value <= high) return MT_OK;
    return fail(e, MT_FILE, "the header's %s is %u, but has to be %u to %u: the file is damaged", name, (unsigned)value,
                (unsigned)low, (unsigned)high);
}

// The header (256 bytes, or all there are) and the file's true size -> e->config and the sizes of the blocks.
static int32_t read_header(mt_engine *e, const uint8_t *p, uint64_t size, sizes *block)
{
    if (size < HEADER) return fail(e, MT_FILE, "the file is %llu bytes, shorter than a header", (unsigned long long)size);
    if (memcmp(p, "minitron", 8)) return fail(e, MT_FILE, "this is not a minitron model file");
    if (read_u32(p + 8) != 1)
        return fail(e, MT_FILE, "the file's version is %u, this engine reads 1: train again, or use a matching run.c",
                    (unsigned)read_u32(p + 8));
    if (read_u32(p + 12) > 1)
        return fail(e, MT_FILE, "dtype %u is unknown: 0 is float32, 1 int8", (unsigned)read_u32(p + 12));

    mt_config *c = &e->config;
    struct { const char *name; int32_t *value; uint32_t low, high; } fields[] = {
        {"layers", &c->layers, 1, 1 << 12}, {"dim", &c->dim, 1, 1 << 16},
        {"heads", &c->heads, 1, 1 << 16},   {"kv_heads", &c->kv_heads, 1, 1 << 16},
        {"head_dim", &c->head_dim, 2, 1 << 16}, {"ffn_dim", &c->ffn_dim, 0, 1 << 16},
        {"vocab", &c->vocab, 2, 1 << 20},   {"context", &c->context, 1, 1 << 20},
    };
    for (int i = 0; i < 8; i++) {
        uint32_t value = read_u32(p + 16 + 4 * i);
        if (check_range(e, fields[i].name, value, fields[i].low, fields[i].high)) return MT_FILE;
        *fields[i].value = (int32_t)value;
    }
    if (c->heads % c->kv_heads || c->head_dim % 2 || (int64_t)c->heads * c->head_dim > 1 << 16)
        return fail(e, MT_FILE, "%d heads of width %d on %d key/value heads do not fit together: the file is damaged", c->heads,
                    c->head_dim, c->kv_heads);

    uint32_t flags = read_u32(p + 48), bos = read_u32(p + 52), eos = read_u32(p + 56);
    if (check_range(e, "flags", flags, 0, 7)) return MT_FILE;
    if (bos != UINT32_MAX && check_range(e, "bos", bos, 0, (uint32_t)c->vocab - 1)) return MT_FILE;
    if (eos != UINT32_MAX && check_range(e, "eos", eos, 0, (uint32_t)c->vocab - 1)) return MT_FILE;
    c->int8 = read_u32(p + 12) == 1;
    c->tied = flags & 1;
    c->qk_norm = flags >> 1 & 1;
    c->linear = flags >> 2 & 1;
    c->bos = bos == UINT32_MAX ? -1 : (int32_t)bos;
    c->eos = eos == UINT32_MAX ? -1 : (int32_t)eos;
    c->rope_theta = read_f32(p + 60);
    c->norm_eps = read_f32(p + 64);
    c->temperature = read_f32(p + 68);
    if (!(c->rope_theta >= 0 && c->rope_theta <= 1e12f && c->norm_eps > 0 && c->norm_eps <= 1 && c->temperature >= 0 &&
          c->temperature <= 100))           // written so that a NaN fails
        return fail(e, MT_FILE, "rope_theta %g, norm_eps %g or temperature %g is out of range: the file is damaged",
                    (double)c->rope_theta, (double)c->norm_eps, (double)c->temperature);
    for (int i = 104; i < 240; i++)
        if (p[i]) return fail(e, MT_FILE, "byte %d of the header is %u, but has to be 0", i, p[i]);

    *block = (sizes){read_u64(p + 72), read_u64(p + 80), read_u64(p + 88), read_u64(p + 96)};
    if (block->file != size)
        return fail(e, MT_FILE, "the file is %llu bytes, its header says %llu: it was cut short or added to",
                    (unsigned long long)size, (unsigned long long)block->file);
    cursor at = {.int8 = c->int8};
    place_tensors(c, &at, &e->w);
    e->parameters = at.parameters;
    if (block->tokenizer > size || block->provenance > size || block->tensors != at.bytes ||
        HEADER + align64(block->tokenizer) + align64(block->provenance) + block->tensors != size)
        return fail(e, MT_FILE, "the blocks of the file do not add up to its %llu bytes", (unsigned long long)size);
    return MT_OK;
}

static int compare_pieces(const void *left, const void *right)
{
    const piece *a = left, *b = right;
    int order = memcmp(a->bytes, b->bytes, (size_t)(a->size < b->size ? a->size : b->size));
    return order ? order : a->size - b->size;
}

static int32_t read_tokenizer(mt_engine *e, const uint8_t *p, uint64_t size)
{
    const uint8_t *end = p + size;
    int32_t vocab = e->config.vocab;
    if (size < 8 || read_u32(p) != 1 || read_u32(p + 4) != (uint32_t)vocab)
        return fail(e, MT_FILE, "the tokenizer block does not begin with kind 1 and the vocabulary's size, %d", vocab);
    p += 8;
    for (int32_t token = 0; token < vocab; token++) {
        if (end - p < 4 || read_u32(p) > MAX_PIECE || (uint64_t)(end - p) < 4 + (uint64_t)read_u32(p))
            return fail(e, MT_FILE, "the tokenizer block ends or goes wrong at piece %d of %d", token, vocab);
        int32_t length = (int32_t)read_u32(p);
        e->pieces[token] = e->sorted[token] = (piece){(const char *)p + 4, length, token};
        if (length > e->longest) e->longest = length;
        p += 4 + length;
    }
    if (p != end) return fail(e, MT_FILE, "the tokenizer block goes on after its last piece");
    qsort(e->sorted, (size_t)vocab, sizeof(piece), compare_pieces);
    for (int32_t i = 1; i < vocab; i++)
        if (e->sorted[i].size && compare_pieces(&e->sorted[i - 1], &e->sorted[i]) == 0)
            return fail(e, MT_FILE, "the tokenizer's pieces %d and %d are equal", e->sorted[i - 1].token, e->sorted[i].token);
    return MT_OK;
}

// to (columns, rows) = transpose of from (rows, columns), in squares that fit the first cache
static inline void transpose(uint8_t *to, const uint8_t *from, size_t rows, size_t columns, size_t size)
{
    for (size_t k0 = 0; k0 < columns; k0 += 16)
        for (size_t i = 0; i < rows; i++)
            for (size_t k = k0; k < columns && k < k0 + 16; k++)
                memcpy(to + (k * rows + i) * size, from + (i * columns + k) * size, size);
}

// Pack matrices (layers, outs, ins) into panels, in place: every PANEL rows, or as many as are left, are transposed.
static void pack(void *matrices, uint8_t *spare, size_t layers, size_t outs, size_t ins, size_t size)
{
    for (size_t l = 0; l < layers; l++)
        for (size_t first = 0; first < outs; first += PANEL) {
            size_t rows = outs - first < PANEL ? outs - first : PANEL;
            uint8_t *panel = (uint8_t *)matrices + (l * outs + first) * ins * size;
            memcpy(spare, panel, rows * ins * size);
            if (size == 1) transpose(panel, spare, rows, ins, 1);
            else transpose(panel, spare, rows, ins, 4);
        }
}

static void pack_matrix(const matrix *m, uint8_t *spare)
{
    if (m->quants) pack(m->quants, spare, m->layers, m->outs, m->ins, 1);
    if (m->scales) pack(m->scales, spare, m->layers, m->outs, m->groups, 4);
    else pack(m->floats, spare, m->layers, m->outs, m->ins, 4);
}

// Bytes of the largest panel
static size_t largest_panel(const tensors *w)
{
    const matrix *all[] = {&w->embed, &w->wqkv, &w->wo, &w->w13, &w->w2};
    size_t most = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const matrix *m = all[i];
        size_t bytes = (m->outs < PANEL ? m->outs : PANEL) * (m->quants ? m->ins + 4 * m->groups : 4 * m->ins);
        if (bytes > most) most = bytes;
    }
    return most;
}

// e->bytes holds a file whose header is fine and whose words behind the header add up to a and b.
static int32_t load(mt_engine *e, const sizes *s, uint64_t a, uint64_t b)
{
    uint8_t *p = e->bytes, *tensor_block = p + s->file - s->tensors;
    if (a != read_u64(p + 240) || b != read_u64(p + 248))
        return fail(e, MT_FILE, "the checksum is wrong: the file is damaged, copy or train it again");

    e->provenance = (const char *)p + HEADER + align64(s->tokenizer);
    e->provenance_size = s->provenance;
    for (uint64_t i = 0; i < s->provenance; i++)
        if (e->provenance[i] < ' ' || e->provenance[i] > '~')
            return fail(e, MT_FILE, "byte %llu of the provenance block is not printable ASCII", (unsigned long long)i);

    cursor at = {.base = tensor_block, .int8 = e->config.int8};
    place_tensors(&e->config, &at, &e->w);
    const size_t V = (size_t)e->config.vocab;
    uint8_t *spare = malloc(largest_panel(&e->w));
    e->pieces = malloc(V * sizeof(piece));
    e->sorted = malloc(V * sizeof(piece));
    e->weight = malloc(V * sizeof(double));
    e->order = malloc(V * sizeof(int32_t));
    int32_t status = MT_OK;
    if (!spare || !e->pieces || !e->sorted || !e->weight || !e->order)
        status = fail(e, MT_MEMORY, "no memory for a model of %llu bytes", (unsigned long long)s->file);
    if (!status) status = read_tokenizer(e, p + HEADER, s->tokenizer);
    const matrix *all[] = {&e->w.embed, &e->w.wqkv, &e->w.wo, &e->w.w13, &e->w.w2, &e->w.head};
    for (int i = 0; i < 6 - e->config.tied && !status; i++) pack_matrix(all[i], spare);
    free(spare);
    return status;
}

// Where the bytes of a model come from: a file, or else memory
typedef struct {
    FILE *file;
    const uint8_t *memory;
} source;

static int32_t take(mt_engine *e, source *from, uint8_t *to, uint64_t size)
{
    if (!from->file && size) {
        memcpy(to, from->memory, size);
        from->memory += size;
    }
    if (!from->file) return MT_OK;
    if (fread(to, 1, size, from->file) == size) return MT_OK;
    return fail(e, MT_FILE, "reading stopped early: %s", ferror(from->file) ? strerror(errno) : "the file has become shorter");
}

static void add_words(const uint8_t *p, uint64_t size, uint64_t *a, uint64_t *b)
{
    for (uint64_t i = 0; i + 8 <= size; i += 8) *b += *a += read_u64(p + i);
}

// Read a model of `size` bytes.  A size is believed, and memory asked for, only when the header makes sense.
static int32_t read_model(mt_engine *e, source *from, uint64_t size)
{
    uint8_t first[HEADER] = {0};
    sizes s = {0};
    uint64_t a = 0, b = 0;
    int32_t status = take(e, from, first, size < HEADER ? size : HEADER);
    if (!status) status = read_header(e, first, size, &s);
    if (status) return status;
    e->bytes = size < SIZE_MAX / 2 ? aligned_alloc(64, size + 4 * PANEL) : NULL;    // tile reads up to a panel too far
    if (!e->bytes) return fail(e, MT_MEMORY, "no memory for %llu bytes", (unsigned long long)size);
    memcpy(e->bytes, first, HEADER);
    memset(e->bytes + size, 0, 4 * PANEL);

    add_words(first, HEADER - 16, &a, &b);
    for (uint64_t start = HEADER, part = 1 << 18; start < size; start += part) {
        if (part > size - start) part = size - start;
        if (take(e, from, e->bytes + start, part)) return MT_FILE;
        add_words(e->bytes + start, part, &a, &b);      // while they still are in the cache
    }
    return load(e, &s, a, b);
}

static mt_engine *new_engine(void)
{
    mt_engine *e = calloc(1, sizeof *e);
    if (e) e->threads = 1;
    return e;
}

// After a failure: a model without tokens, which every other function refuses.
static void clear_model(mt_engine *e)
{
    e->config = (mt_config){0};
    e->longest = 0;
    e->provenance_size = 0;
}

int32_t mt_load(const void *bytes, uint64_t size, mt_engine **engine)
{
    mt_engine *e = *engine = new_engine();
    if (!e) return MT_MEMORY;
    int32_t status = read_model(e, &(source){.memory = bytes}, size);
    if (status) clear_model(e);
    return status;
}

int32_t mt_open(const char *path, mt_engine **engine)
{
    mt_engine *e = *engine = new_engine();
    if (!e) return MT_MEMORY;
    struct stat about;
    source from = {0};
    int32_t status = MT_OK;
    if (stat(path, &about)) status = fail(e, MT_FILE, "%s", strerror(errno));
    else if (!S_ISREG(about.st_mode)) status = fail(e, MT_FILE, "not a regular file");
    else if (!(from.file = fopen(path, "rb"))) status = fail(e, MT_FILE, "%s", strerror(errno));
    if (!status) status = read_model(e, &from, (uint64_t)about.st_size);
    if (from.file) fclose(from.file);
    if (status) {                   // say which file
        clear_model(e);
        char reason[sizeof e->error];
        memcpy(reason, e->error, sizeof reason);
        fail(e, status, "%.200s: %.300s", path, reason);
    }
    return status;
}

static void free_caches(mt_engine *e)
{
    void *all[] = {e->length, e->keys, e->values, e->x, e->n, e->u, e->y, e->scores, e->turns};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    e->length = NULL;
    e->keys = e->values = e->x = e->n = e->u = e->y = e->scores = e->turns = NULL;
    e->sequences = e->context = e->team = 0;
}

void mt_close(mt_engine *e)
{
    if (!e) return;
    free_caches(e);
    void *all[] = {e->bytes, e->pieces, e->sorted, e->weight, e->order, e};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

int32_t mt_abi(void) { return MT_ABI; }
const mt_config *mt_get_config(const mt_engine *e) { return &e->config; }
uint64_t mt_parameters(const mt_engine *e) { return e->parameters; }
const char *mt_get_provenance(const mt_engine *e, uint64_t *size)
{
    *size = e->provenance_size;
    return e->provenance;
}
void mt_set_threads(mt_engine *e, int32_t threads)
{
    e->threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
}

// floats, or NULL where the product of the sizes or the memory is too large
static float *new_floats(uint64_t a, uint64_t b, uint64_t c)
{
    const uint64_t most = SIZE_MAX / 8;      // half of what fits, so that rounding up cannot wrap
    if ((a && b > most / a) || (c && a * b > most / c)) return NULL;
    return aligned_alloc(64, align64(a * b * c * 4 + 4 * PANEL));
}

static size_t round_up(size_t size) { return (size + LANES - 1) / LANES * LANES; }

// turns (count, K) = cosines, then sines, of the K/2 rotary angles of positions first, first + 1 ...
static void fill_turns(const mt_config *c, float *turns, int32_t first, int32_t count)
{
    const int K = c->head_dim;
    for (int j = 0; j < K / 2 && c->rope_theta > 0; j++) {
        const double frequency = pow((double)c->rope_theta, -2.0 * j / K);
        for (int32_t i = 0; i < count; i++) {
            turns[(size_t)i * (size_t)K + (size_t)j] = (float)cos(((double)first + i) * frequency);
            turns[(size_t)i * (size_t)K + (size_t)(j + K / 2)] = (float)sin(((double)first + i) * frequency);
        }
    }
}

int32_t mt_reset(mt_engine *e, int32_t sequences, int32_t context)
{
    const mt_config *c = &e->config;
    if (!c->vocab) return fail(e, MT_USAGE, "no model is loaded");
    if (sequences < 1 || context < 1)
        return fail(e, MT_USAGE, "room for %d sequences of %d tokens makes no sense", sequences, context);
    if (sequences != e->sequences || context != e->context || e->threads != e->team) {
        const uint64_t D = (uint64_t)c->dim, F = (uint64_t)c->ffn_dim, K = (uint64_t)c->head_dim, S = (uint64_t)context;
        const uint64_t HK = (uint64_t)c->heads * K, qkv = e->w.wqkv.outs;
        const uint64_t rows = (uint64_t)c->layers * (uint64_t)sequences * (uint64_t)c->kv_heads;
        free_caches(e);
        e->length = malloc((size_t)sequences * sizeof(int32_t));
        e->keys = new_floats(rows, K, round_up(S));
        e->values = new_floats(rows, round_up(K), S);
        e->x = new_floats(CHUNK, D, 1);
        e->n = new_floats(CHUNK, D, 1);
        e->u = new_floats(CHUNK, qkv > 2 * F ? qkv : 2 * F, 1);
        e->y = new_floats(CHUNK, HK > F ? HK : F, 1);
        e->scores = new_floats((uint64_t)e->threads, TILE, round_up(S));
        e->turns = new_floats(S + 1, K, 1);
        if (!e->length || !e->keys || !e->values || !e->x || !e->n || !e->u || !e->y || !e->scores || !e->turns) {
            free_caches(e);
            return fail(e, MT_MEMORY, "no memory for %d sequences of %d tokens: ask for fewer", sequences, context);
        }
        fill_turns(c, e->turns, 0, context);
        e->sequences = sequences;
        e->context = context;
        e->team = e->threads;
    }
    memset(e->length, 0, (size_t)sequences * sizeof(int32_t));
    return MT_OK;
}

int32_t mt_length(const mt_engine *e, int32_t sequence)
{
    return sequence < 0 || sequence >= e->sequences ? -1 : e->length[sequence];
}

int32_t mt_rewind(mt_engine *e, int32_t sequence, int32_t length)
{
    int32_t now = mt_length(e, sequence);
    if (now < 0) return fail(e, MT_USAGE, "sequence %d does not exist: mt_reset made %d", sequence, e->sequences);
    if (length < 0 || length > now)
        return fail(e, MT_USAGE, "sequence %d has %d tokens, it cannot be rewound to %d", sequence, now, length);
    e->length[sequence] = length;
    return MT_OK;
}

// ---------------------------------------------------------------------------------------------------------------------
// Mathematics.  -DSLOW compiles the plain twin of each fast loop; a test holds the two together.

// a * b + c, rounded once where the processor can, and then in every compiler and in every copy of a loop
#if defined(FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
static inline float fma1(float a, float b, float c) { return fmaf(a, b, c); }
#else
static inline float fma1(float a, float b, float c) { return a * b + c; }
#endif

#ifdef SLOW
// y (T, width) = x (T, ins) @ panel (ins, width), added to y with `add`.  Rows of y, x and panel lie *_step apart.
static void product(float *y, size_t y_step, const float *x, size_t x_step, const float *panel, size_t step, int T, int width,
                    int ins, int add)
{
    for (int t = 0; t < T; t++)
        for (int j = 0; j < width; j++) {
            float sum = add ? y[(size_t)t * y_step + (size_t)j] : 0;
            for (int k = 0; k < ins; k++) sum += x[(size_t)t * x_step + (size_t)k] * panel[(size_t)k * step + (size_t)j];
            y[(size_t)t * y_step + (size_t)j] = sum;
        }
}

// The same for int8, panel (ins, width) and scales (groups, width)
static void product8(float *y, size_t y_step, const float *x, size_t x_step, const int8_t *panel, const float *scales,
                     size_t step, int T, int width, int ins, int add)
{
    for (int t = 0; t < T; t++)
        for (int j = 0; j < width; j++) {
            float sum = add ? y[(size_t)t * y_step + (size_t)j] : 0;
            for (size_t k = 0; k < (size_t)ins; k++)
                sum += x[(size_t)t * x_step + k] * ((float)panel[k * step + (size_t)j] * scales[k / GROUP * step + (size_t)j]);
            y[(size_t)t * y_step + (size_t)j] = sum;
        }
}
#else
#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define INLINE static inline
#define PREFETCH(address) (void)(address)
#endif

// The `width` floats that are there of `lanes`.  By way of a copy, so that sums never need an address and stay in registers.
INLINE void load_lanes(float *to, const float *from, int lanes, int width)
{
    if (width == lanes) {
        for (int j = 0; j < lanes; j++) to[j] = from[j];
    } else {
        float copy[PANEL];
        memcpy(copy, from, (size_t)width * sizeof(float));
        for (int j = 0; j < lanes; j++) to[j] = copy[j];
    }
}

INLINE void store_lanes(float *to, const float *from, int lanes, int width)
{
    if (width == lanes) {
        for (int j = 0; j < lanes; j++) to[j] = from[j];
    } else {
        float copy[PANEL];
        for (int j = 0; j < lanes; j++) copy[j] = from[j];
        memcpy(to, copy, (size_t)width * sizeof(float));
    }
}

// `tokens` rows of x times `lanes` columns of a panel.  Called with constants for both, so that the sums stay in registers and
// the loops over j become vector instructions without any change to the order of a sum.  Lanes beyond `width` compute what nobody
// reads, from whatever follows the panel.
INLINE void tile(float *y, size_t y_step, const float *x, size_t x_step, const float *panel, size_t step, int tokens, int lanes,
                 int width, int ins, int add)
{
    float sum[TILE][PANEL];
    for (int t = 0; t < tokens; t++) {
        for (int j = 0; j < lanes; j++) sum[t][j] = 0;
        if (add) load_lanes(sum[t], y + (size_t)t * y_step, lanes, width);
    }
    for (size_t k = 0; k < (size_t)ins; k++)
        for (int t = 0; t < tokens; t++)
            for (int j = 0; j < lanes; j++)
                sum[t][j] = fma1(x[(size_t)t * x_step + k], panel[k * step + (size_t)j], sum[t][j]);
    for (int t = 0; t < tokens; t++) store_lanes(y + (size_t)t * y_step, sum[t], lanes, width);
}

// The same for one token, in a form that gcc 12 and clang 14 keep in registers; with tokens = 1 above they would not (1.22 times
// in decoding at dim 128).  What is AHEAD is asked for early (1.05 times there, where weights come from the third cache).
INLINE void tile1(float *y, const float *x, const float *panel, size_t step, int lanes, int width, int ins, int add)
{
    float sum[PANEL];
    for (int j = 0; j < lanes; j++) sum[j] = 0;
    if (add) load_lanes(sum, y, lanes, width);
    for (int k = 0; k < ins; k++, panel += step) {
        for (int j = 0; j < lanes; j += 16) PREFETCH(panel + j + AHEAD);
#pragma clang loop unroll(full)
        for (int j = 0; j < lanes; j++) sum[j] = fma1(x[k], panel[j], sum[j]);
    }
    store_lanes(y, sum, lanes, width);
}

// Both for int8: a group's sum, over whole numbers times x, is scaled when it is complete.  `restrict`, since a pointer to bytes
// might point anywhere, into the sums as well, and then these could not stay in registers.
INLINE void tile8(float *restrict y, size_t y_step, const float *restrict x, size_t x_step, const int8_t *restrict panel,
                  const float *restrict scales, size_t step, int tokens, int lanes, int width, int ins, int add)
{
    float sum[TILE][PANEL], part[TILE][PANEL];
    for (int t = 0; t < tokens; t++) {
        for (int j = 0; j < lanes; j++) sum[t][j] = 0;
        if (add) load_lanes(sum[t], y + (size_t)t * y_step, lanes, width);
    }
    for (size_t first = 0, last; first < (size_t)ins; first = last, scales += step) {
        last = (size_t)ins - first < GROUP ? (size_t)ins : first + GROUP;
        for (int t = 0; t < tokens; t++)
            for (int j = 0; j < lanes; j++) part[t][j] = 0;
        for (size_t k = first; k < last; k++)
            for (int t = 0; t < tokens; t++)
                for (int j = 0; j < lanes; j++)
                    part[t][j] = fma1(x[(size_t)t * x_step + k], (float)panel[k * step + (size_t)j], part[t][j]);
        for (int t = 0; t < tokens; t++)
            for (int j = 0; j < lanes; j++) sum[t][j] = fma1(part[t][j], scales[j], sum[t][j]);
    }
    for (int t = 0; t < tokens; t++) store_lanes(y + (size_t)t * y_step, sum[t], lanes, width);
}

INLINE void tile8_1(float *restrict y, const float *restrict x, const int8_t *restrict panel, const float *restrict scales,
                    size_t step, int lanes, int width, int ins, int add)
{
    float sum[PANEL], part[PANEL];
    for (int j = 0; j < lanes; j++) sum[j] = 0;
    if (add) load_lanes(sum, y, lanes, width);
    for (int first = 0, last; first < ins; first = last, scales += step) {
        last = ins - first < GROUP ? ins : first + GROUP;
        for (int j = 0; j < lanes; j++) part[j] = 0;
        for (int k = first; k < last; k++, panel += step) {
            PREFETCH(panel + 4 * AHEAD);
            for (int j = 0; j < lanes; j++) part[j] = fma1(x[k], (float)panel[j], part[j]);
        }
        for (int j = 0; j < lanes; j++) sum[j] = fma1(part[j], scales[j], sum[j]);
    }
    store_lanes(y, sum, lanes, width);
}

// y (T, width) = x (T, ins) @ panel (ins, width), added to y with `add`.  Rows of y, x and panel lie *_step apart.
static void product(float *y, size_t y_step, const float *x, size_t x_step, const float *panel, size_t step, int T, int width,
                    int ins, int add)
{
#define TILES(which, ...) \
    if (width > MIDDLE) which(__VA_ARGS__, PANEL, width, ins, add); \
    else if (width > NARROW) which(__VA_ARGS__, MIDDLE, width, ins, add); \
    else which(__VA_ARGS__, NARROW, width, ins, add)

    for (; T >= TILE; T -= TILE, y += TILE * y_step, x += TILE * x_step) { TILES(tile, y, y_step, x, x_step, panel, step, TILE); }
    for (; T > 0; T--, y += y_step, x += x_step) { TILES(tile1, y, x, panel, step); }
#undef TILES
}

// The same for int8, panel (ins, width) and scales (groups, width)
static void product8(float *y, size_t y_step, const float *x, size_t x_step, const int8_t *panel, const float *scales,
                     size_t step, int T, int width, int ins, int add)
{
#define TILES(which, ...) \
    if (width > NARROW) which(__VA_ARGS__, PANEL, width, ins, add); \
    else which(__VA_ARGS__, NARROW, width, ins, add)

    for (; T >= TILE; T -= TILE, y += TILE * y_step, x += TILE * x_step) {
        TILES(tile8, y, y_step, x, x_step, panel, scales, step, TILE);
    }
    for (; T > 0; T--, y += y_step, x += x_step) { TILES(tile8_1, y, x, panel, scales, step); }
#undef TILES
}
#endif

static void multiply_panel(float *y, const float *x, const matrix *m, size_t layer, int T, int add, int panel)
{
    const size_t first = (size_t)panel * PANEL, width = m->outs - first < PANEL ? m->outs - first : PANEL;
    const size_t at = layer * m->outs + first;
    if (m->quants)
        product8(y + first, m->outs, x, m->ins, m->quants + at * m->ins, m->scales + at * m->groups, width, T, (int)width,
                 (int)m->ins, add);
    else product(y + first, m->outs, x, m->ins, m->floats + at * m->ins, width, T, (int)width, (int)m->ins, add);
}

// Whether all threads should share a piece of work of so many multiply-adds
static int shared(const mt_engine *e, double work) { return e->team > 1 && work > THREAD_WORK; }

// y (T, outs) = x (T, ins) @ w.T, with `add` added to y; w is one layer's matrix of m
static void multiply(const mt_engine *e, float *y, const float *x, const matrix *m, size_t layer, int T, int add)
{
    const int panels = (int)((m->outs + PANEL - 1) / PANEL);
    if (shared(e, (double)T * (double)m->outs * (double)m->ins)) {
        #pragma omp parallel for num_threads(e->team)
        for (int i = 0; i < panels; i++) multiply_panel(y, x, m, layer, T, add, i);
    } else
        for (int i = 0; i < panels; i++) multiply_panel(y, x, m, layer, T, add, i);
}

// The sum, and the largest, of LANES = 16 numbers, which they overwrite: by halves, in 4 steps that wait for each other, not 15
static inline float total(float *part)
{
    for (int j = 0; j < 8; j++) part[j] += part[j + 8];
    for (int j = 0; j < 4; j++) part[j] += part[j + 4];
    return part[0] + part[2] + (part[1] + part[3]);
}

static inline float largest(float *part)
{
    for (int j = 0; j < 8; j++) part[j] = part[j + 8] > part[j] ? part[j + 8] : part[j];
    for (int j = 0; j < 4; j++) part[j] = part[j + 4] > part[j] ? part[j + 4] : part[j];
    for (int j = 0; j < 2; j++) part[j] = part[j + 2] > part[j] ? part[j + 2] : part[j];
    return part[1] > part[0] ? part[1] : part[0];
}

// y (D) = w * x / sqrt(mean(x^2) + eps); y may be x.  LANES partial sums, so that they vectorise.
static void rmsnorm(float *y, const float *x, const float *w, size_t D, float eps)
{
    float part[LANES] = {0};
    size_t d = 0;
    for (; d + LANES <= D; d += LANES)
        for (size_t j = 0; j < LANES; j++) part[j] = fma1(x[d + j], x[d + j], part[j]);
    for (size_t j = 0; d + j < D; j++) part[j] = fma1(x[d + j], x[d + j], part[j]);
    const float mean = total(part) / (float)D, r = 1 / sqrtf(mean + eps) + 0 * mean;     // + 0 * mean: NaN where it overflows
    for (d = 0; d < D; d++) y[d] = w[d] * (r * x[d]);
}

// Turn the K/2 channel pairs of one head.
static void rotate(float *x, const float *turn, size_t K)
{
    const float *cosine = turn, *sine = turn + K / 2;
    for (size_t j = 0; j < K / 2; j++) {
        float a = x[2 * j], b = x[2 * j + 1];
        x[2 * j] = fma1(a, cosine[j], -b * sine[j]);
        x[2 * j + 1] = fma1(a, sine[j], b * cosine[j]);
    }
}

#ifdef SLOW
static float exponential(float x) { return expf(x); }
#else
// e^x = 2^n * e^r with n = round(x / ln 2), |r| <= ln(2) / 2, and the polynomial for e^r of Cephes (Moshier 1984).  Unlike
// expf it has no branch and no call, so a loop over it becomes vector instructions (1.51 times in scoring at dim 128).
static inline float exponential(float x)
{
    const float magic = 12582912;               // 1.5 * 2^23: adding it leaves n in the last bits
    float limited = x > 88 ? 88 : x < -87 ? -87 : x, shifted = fma1(limited, 1.44269504f, magic), n = shifted - magic;
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
#endif

// Row i of scores (count), slots + i long -> e^(score - max), and its sum.  In steps for all rows, so that none waits for
// another.  A row is padded to LANES with -inf, for which it needs the room.
static void softmax_rows(float *scores, size_t step, int slots, int count, float *sums)
{
    float most[TILE];
    for (int i = 0; i < count; i++) {
        float *row = scores + (size_t)i * step, top[LANES];
        const int n = slots + i, padded = (int)round_up((size_t)n);
        for (int s = n; s < padded; s++) row[s] = -HUGE_VALF;
        for (int j = 0; j < LANES; j++) top[j] = row[j];
        for (int s = LANES; s < padded; s += LANES)
            for (int j = 0; j < LANES; j++) top[j] = row[s + j] > top[j] ? row[s + j] : top[j];
        most[i] = largest(top);
    }
    for (int i = 0; i < count; i++) {
        float *row = scores + (size_t)i * step, part[LANES] = {0};
        const int padded = (int)round_up((size_t)(slots + i));
        for (int s = 0; s < padded; s += LANES)
            for (int j = 0; j < LANES; j++) part[j] += row[s + j] = exponential(row[s + j] - most[i]);
        sums[i] = total(part);
    }
}

static float softmax(float *scores, int slots)
{
    float sum;
    softmax_rows(scores, 0, slots, 1, &sum);
    return sum;
}

// One layer's keys or values of one sequence and head begin here; `size` is what they take, of either.
static size_t cache_row(const mt_engine *e, size_t layer, int32_t sequence, int g, size_t size)
{
    return ((layer * (size_t)e->sequences + (size_t)sequence) * (size_t)e->config.kv_heads + (size_t)g) * size;
}

// Columns that lie side by side in the panel that begins at `first`, of `all` columns, rounded up
static size_t panel_width(size_t all, size_t first) { return round_up(all) - first < PANEL ? round_up(all) - first : PANEL; }

// Keys and values (K) of token t and head g, into their panels of the cache
static void keep(mt_engine *e, size_t layer, const chunk *c, int t, int g, const float *key, const float *value)
{
    const size_t K = (size_t)e->config.head_dim, S = (size_t)e->context, slot = (size_t)c->slot[t], first = slot / PANEL * PANEL;
    float *keys = e->keys + cache_row(e, layer, c->sequence[t], g, round_up(S) * K) + first * K + slot % PANEL;
    float *values = e->values + cache_row(e, layer, c->sequence[t], g, S * round_up(K));
    for (size_t k = 0; k < K; k++) keys[k * panel_width(S, first)] = key[k];
    for (size_t k = 0; k < K; k += PANEL) {
        const size_t width = panel_width(K, k), n = K - k < width ? K - k : width;
        for (size_t j = 0; j < n; j++) values[k * S + slot * width + j] = value[k + j];
    }
}

// Attention of head h for `count` <= TILE tokens that follow each other in one sequence, the first of them number t of the
// chunk: y (count, HK) = softmax(q . keys) @ values, each token over the slots up to its own.  scores (TILE, S) is scratch.
static void attend(mt_engine *e, size_t layer, const chunk *c, int h, int t, int count, float *scores)
{
    const size_t K = (size_t)e->config.head_dim, HK = e->w.wo.ins, S = (size_t)e->context, Sp = round_up(S);
    const int g = h / (e->config.heads / e->config.kv_heads), slots = c->slot[t] + 1, most = slots + count - 1;
    const float *keys = e->keys + cache_row(e, layer, c->sequence[t], g, Sp * K);
    const float *values = e->values + cache_row(e, layer, c->sequence[t], g, S * round_up(K));
    const float *q = e->u + (size_t)t * e->w.wqkv.outs + (size_t)h * K;
    float *y = e->y + (size_t)t * HK + (size_t)h * K;

    for (int first = 0; first < most; first += PANEL)
        product(scores + first, Sp, q, e->w.wqkv.outs, keys + (size_t)first * K, panel_width(S, (size_t)first), count,
                most - first < PANEL ? most - first : PANEL, (int)K, 0);

    float sum[TILE];
    for (int i = 0; i < count; i++) sum[i] = 1;
    if (!e->config.linear) softmax_rows(scores, Sp, slots, count, sum);

    for (size_t first = 0; first < K; first += PANEL) {
        const size_t step = panel_width(K, first);
        const int width = (int)(K - first < step ? K - first : step);
        const float *panel = values + first * S;
        product(y + first, HK, scores, Sp, panel, step, count, width, slots, 0);
        for (int i = 1; i < count; i++)         // what the later ones see beyond, in the same order
            for (int s = slots; s < slots + i; s++)
                for (int k = 0; k < width; k++) {
                    float *to = y + (size_t)i * HK + first + (size_t)k;
                    *to = fma1(scores[(size_t)i * Sp + (size_t)s], panel[(size_t)s * step + (size_t)k], *to);
                }
    }
    for (int i = 0; i < count; i++)
        for (size_t k = 0; k < K; k++) y[(size_t)i * HK + k] /= sum[i];

    if (!e->watched || layer != (size_t)e->watched_layer || h != e->watched_head) return;
    for (int i = 0; i < count; i++)
        for (int s = 0; s < slots + i; s++)
            e->watched[(size_t)(t + i) * S + (size_t)s] = scores[(size_t)i * Sp + (size_t)s] / sum[i];
}

// attend for heads h0..h1-1 and all tokens, in runs of one sequence.  A run's heads follow each other, as they do in the cache.
static void attend_all(mt_engine *e, size_t layer, const chunk *c, int h0, int h1, int thread)
{
    float *scores = e->scores + (size_t)thread * TILE * round_up((size_t)e->context);
    for (int t = 0, end; t < c->count; t = end) {
        for (end = t + 1; end < c->count && end < t + TILE && c->sequence[end] == c->sequence[t];) end++;
        for (int h = h0; h < h1; h++) attend(e, layer, c, h, t, end - t, scores);
    }
}

// x (D) = a row of embed, which lies as one column of its panel
static void look_up(float *x, const matrix *m, size_t token)
{
    const size_t D = m->ins, first = token / PANEL * PANEL, step = m->outs - first < PANEL ? m->outs - first : PANEL;
    for (size_t d = 0; d < D; d++) {
        const size_t at = first * D + d * step + token - first, group = first * m->groups + d / GROUP * step + token - first;
        x[d] = m->quants ? (float)m->quants[at] * m->scales[group] : m->floats[at];
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The forward pass of up to CHUNK tokens, a straight line: model_forward and block_forward of minitron/model.py.

static void forward_chunk(mt_engine *e, const chunk *c)
{
    const mt_config *o = &e->config;
    const int T = c->count, H = o->heads, G = o->kv_heads, rotary = o->rope_theta > 0;
    const size_t D = (size_t)o->dim, F = (size_t)o->ffn_dim, K = (size_t)o->head_dim, HK = e->w.wo.ins, qkv = e->w.wqkv.outs;
    const float scale = (float)pow(o->head_dim, -0.5);
    float *x = e->x, *n = e->n, *u = e->u, *y = e->y;

    for (int t = 0; t < T; t++) look_up(x + (size_t)t * D, &e->w.embed, (size_t)c->token[t]);

    for (size_t l = 0; l < (size_t)o->layers; l++) {
        // queries, keys and values of all tokens in one product
        for (size_t t = 0; t < (size_t)T; t++) rmsnorm(n + t * D, x + t * D, e->w.norm1 + l * D, D, o->norm_eps);
        multiply(e, u, n, &e->w.wqkv, l, T, 0);

        // norm and turn queries and keys; keep keys and values in the cache
        for (int t = 0; t < T; t++) {
            float *q = u + (size_t)t * qkv, *k = q + HK, *v = k + (size_t)G * K;
            const int known = c->position[t] < e->context;
            float *turn = e->turns + (size_t)(known ? c->position[t] : e->context) * K;
            if (!known) fill_turns(o, turn, c->position[t], 1);     // rare, so done anew in each layer
            for (int h = 0; h < H + G; h++) {           // the keys' heads follow the queries'
                float *head = q + (size_t)h * K;
                if (o->qk_norm) rmsnorm(head, head, (h < H ? e->w.norm_q : e->w.norm_k) + l * K, K, o->norm_eps);
                if (rotary) rotate(head, turn, K);
            }
            for (size_t i = 0; i < HK; i++) q[i] *= scale;
            for (int g = 0; g < G; g++) keep(e, l, c, t, g, k + (size_t)g * K, v + (size_t)g * K);
        }

        // attention: each token looks at its own sequence up to itself
        if (shared(e, (double)T * (double)HK * (double)c->slot[T - 1])) {
            #pragma omp parallel for num_threads(e->team)
            for (int h = 0; h < H; h++) attend_all(e, l, c, h, h + 1, omp_get_thread_num());
        } else attend_all(e, l, c, 0, H, 0);
        multiply(e, x, y, &e->w.wo, l, T, 1);
        if (!F) continue;

        // feed-forward: silu(gate) * up
        for (size_t t = 0; t < (size_t)T; t++) rmsnorm(n + t * D, x + t * D, e->w.norm2 + l * D, D, o->norm_eps);
        multiply(e, u, n, &e->w.w13, l, T, 0);
        for (size_t t = 0; t < (size_t)T; t++)
            for (size_t f = 0; f < F; f++) {
                const float gate = u[2 * t * F + f], up = u[(2 * t + 1) * F + f];
                y[t * F + f] = gate / (1 + exponential(-gate)) * up;
            }
        multiply(e, x, y, &e->w.w2, l, T, 1);
    }
}

// Check all tokens before any is run.  Counts them into their sequences and out again.
static int32_t check_tokens(mt_engine *e, int32_t count, const int32_t *tokens, const int32_t *sequences,
                            const int32_t *positions)
{
    int32_t status = count < 0 ? fail(e, MT_USAGE, "%d tokens make no sense", count) : MT_OK, i = 0;
    for (; i < count && !status; i++) {
        int32_t s = sequences ? sequences[i] : 0;
        if (tokens[i] < 0 || tokens[i] >= e->config.vocab)
            status = fail(e, MT_USAGE, "token %d is not in the vocabulary of %d", tokens[i], e->config.vocab);
        else if (s < 0 || s >= e->sequences)
            status = fail(e, MT_USAGE, "sequence %d does not exist: mt_reset made %d", s, e->sequences);
        else if (positions && positions[i] < 0)
            status = fail(e, MT_USAGE, "position %d is negative", positions[i]);
        else if (e->length[s] == e->context)
            status = fail(e, MT_RUN, "sequence %d is longer than the context of %d tokens", s, e->context);
        else
            e->length[s]++;
    }
    for (int32_t j = 0; j < i - (status != MT_OK); j++) e->length[sequences ? sequences[j] : 0]--;
    return status;
}

// The next tokens, from number `start` of `count` checked ones, taken through all layers
static void forward_next(mt_engine *e, chunk *c, int32_t start, int32_t count, const int32_t *tokens, const int32_t *sequences,
                         const int32_t *positions)
{
    c->count = count - start < CHUNK ? count - start : CHUNK;
    c->token = tokens + start;
    for (int t = 0; t < c->count; t++) {
        c->sequence[t] = sequences ? sequences[start + t] : 0;
        c->slot[t] = e->length[c->sequence[t]]++;
        c->position[t] = positions ? positions[start + t] : c->slot[t];
    }
    forward_chunk(e, c);
}

// Norm of token t of the chunk, as row `row` of e->n, which meets the head
static void finish_row(mt_engine *e, int t, int row)
{
    const size_t D = (size_t)e->config.dim;
    rmsnorm(e->n + (size_t)row * D, e->x + (size_t)t * D, e->w.norm_f, D, e->config.norm_eps);
}

int32_t mt_forward(mt_engine *e, int32_t count, const int32_t *tokens, const int32_t *sequences, const int32_t *positions,
                   const uint8_t *wanted, float *logits)
{
    chunk c;
    int32_t status = check_tokens(e, count, tokens, sequences, positions);
    for (int32_t start = 0; start < count && !status; start += CHUNK) {
        forward_next(e, &c, start, count, tokens, sequences, positions);
        int rows = 0;                   // only the rows that somebody wants meet the head
        for (int t = 0; t < c.count && logits; t++)
            if (!wanted || wanted[start + t]) finish_row(e, t, rows++);
        if (rows) multiply(e, logits, e->n, &e->w.head, 0, rows, 0);
        if (logits) logits += (size_t)rows * (size_t)e->config.vocab;
        if (e->watched) e->watched += (size_t)c.count * (size_t)e->context;
    }
    return status;
}

// log p(target) from logits (V), which it overwrites, and a few floats behind them
static float log_probability(float *logits, int32_t V, int32_t target)
{
    float most = logits[0], own = logits[target];
    for (int32_t i = 1; i < V; i++) most = logits[i] > most ? logits[i] : most;
    return own - most - logf(softmax(logits, V));
}

int32_t mt_score(mt_engine *e, int32_t count, const int32_t *tokens, const int32_t *sequences, const int32_t *positions,
                 const int32_t *targets, float *logprobs)
{
    const int32_t V = e->config.vocab;
    for (int32_t i = 0; i < count; i++)
        if (targets[i] >= V) return fail(e, MT_USAGE, "token %d is not in the vocabulary of %d", targets[i], V);
    int32_t status = check_tokens(e, count, tokens, sequences, positions);
    if (status) return status;

    float *logits = new_floats(CHUNK, (uint64_t)V, 1);
    if (!logits) return fail(e, MT_MEMORY, "no memory for %d rows of %d logits", CHUNK, V);
    chunk c;
    for (int32_t start = 0; start < count; start += CHUNK) {
        forward_next(e, &c, start, count, tokens, sequences, positions);
        int rows = 0, row[CHUNK];
        for (int t = 0; t < c.count; t++)
            if (targets[start + t] >= 0) row[rows] = t, finish_row(e, t, rows++);
        if (rows) multiply(e, logits, e->n, &e->w.head, 0, rows, 0);
        for (int i = rows - 1; i >= 0; i--) {           // backwards, see log_probability
            const int32_t at = start + row[i];
            logprobs[at] = log_probability(logits + (size_t)i * (size_t)V, V, targets[at]);
            if (!isfinite(logprobs[at]))
                status = fail(e, MT_RUN, "a log-probability is not finite: the model's weights have overflowed");
        }
    }
    free(logits);
    return status;
}

int32_t mt_attention(mt_engine *e, int32_t count, const int32_t *tokens, const int32_t *sequences, const int32_t *positions,
                     int32_t layer, int32_t head, float *weights)
{
    if (layer < 0 || layer >= e->config.layers || head < 0 || head >= e->config.heads)
        return fail(e, MT_USAGE, "layer %d, head %d does not exist: the model has %d layers of %d heads", layer, head,
                    e->config.layers, e->config.heads);
    int32_t status = check_tokens(e, count, tokens, sequences, positions);
    if (status) return status;
    memset(weights, 0, (size_t)count * (size_t)e->context * sizeof(float));
    e->watched = weights;
    e->watched_layer = layer;
    e->watched_head = head;
    status = mt_forward(e, count, tokens, sequences, positions, NULL, NULL);
    e->watched = NULL;
    return status;
}

// ---------------------------------------------------------------------------------------------------------------------
// Many sequences at once.  Of a small model each thread runs a copy that shares only the weights, with few sequences at a
// time, so that keys and values stay in its caches, and waits for nobody (1.15 times in scoring, 1.43 in generating on 2 threads
// at dim 128).  A large one would have to be read from memory by each of them, so there threads share its products.

// Weights that each token meets: their number, and their bytes
static double weights_of(const mt_engine *e, double *bytes)
{
    const matrix *all[] = {&e->w.wqkv, &e->w.wo, &e->w.w13, &e->w.w2, &e->w.head};
    double number = 0;
    *bytes = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const matrix *m = all[i];
        number += (double)m->layers * (double)m->outs * (double)m->ins;
        *bytes += (double)m->layers * (double)m->outs * (double)(m->quants ? m->ins + 4 * m->groups : 4 * m->ins);
    }
    return number;
}

static int is_small(const mt_engine *e)
{
    double bytes;
    weights_of(e, &bytes);
    return bytes < SMALL_MODEL;
}

typedef int32_t work_on(mt_engine *e, void *task);

static int32_t run_copy(mt_engine *e, work_on *work, void *task)
{
    int32_t status = MT_MEMORY;
    const size_t V = (size_t)e->config.vocab;
    mt_engine *copy = malloc(sizeof *copy);
    double *weight = malloc(V * sizeof(double));
    int32_t *order = malloc(V * sizeof(int32_t));
    if (copy && weight && order) {
        #pragma omp critical        // e->error may be written to meanwhile
        *copy = *e;                 // which has no caches any more, see run_copies
        copy->threads = 1;
        copy->weight = weight;
        copy->order = order;
        status = work(copy, task);
        free_caches(copy);
    }
    if (status) {
        #pragma omp critical
        fail(e, status, "%s", copy && weight && order ? copy->error : "no memory for another thread");
    }
    free(copy);
    free(weight);
    free(order);
    return status;
}

// Do what `work` finds to do in `task`, until nothing is left: on all threads if the model is small.
static int32_t run_copies(mt_engine *e, work_on *work, void *task)
{
    int32_t status = MT_OK;
    if (e->threads == 1 || !is_small(e)) return work(e, task);
    free_caches(e);                     // the copies have their own
    #pragma omp parallel for num_threads(e->threads) schedule(static, 1) reduction(max : status)
    for (int i = 0; i < e->threads; i++) {
        const int32_t mine = run_copy(e, work, task);
        if (mine > status) status = mine;
    }
    return status;
}

// The next number below `count`, or -1
static int32_t take_next(int64_t *next, int32_t count)
{
    int64_t mine;
    #pragma omp atomic capture
    mine = (*next)++;
    return mine < count ? (int32_t)mine : -1;
}

typedef struct {                // what mt_logits is to do
    int64_t next;
    int32_t batches, count, time, sequences;            // sequences: of a batch
    const int32_t *tokens, *positions;
    const uint8_t *wanted;
    float *logits;
} reading;

static int32_t read_some(mt_engine *e, void *task)
{
    reading *r = task;
    int32_t *sequence = malloc((size_t)r->sequences * (size_t)r->time * sizeof(int32_t));
    int32_t status = sequence ? MT_OK : fail(e, MT_MEMORY, "no memory for %d sequences at a time", r->sequences);
    for (int32_t i = 0; i < r->sequences * r->time && !status; i++) sequence[i] = i / r->time;
    size_t rows = 0, at = 0;                    // rows of logits before token `at`
    for (int32_t batch; !status && (batch = take_next(&r->next, r->batches)) >= 0;) {
        const int32_t first = batch * r->sequences, n = r->count - first < r->sequences ? r->count - first : r->sequences;
        const size_t start = (size_t)first * (size_t)r->time;
        for (; at < start; at++) rows += !r->wanted || r->wanted[at];
        status = mt_reset(e, r->sequences, r->time);
        if (!status)
            status = mt_forward(e, n * r->time, r->tokens + start, sequence, r->positions ? r->positions + start : NULL,
                                r->wanted ? r->wanted + start : NULL,
                                r->logits ? r->logits + rows * (size_t)e->config.vocab : NULL);
    }
    free(sequence);
    return status;
}

int32_t mt_logits(mt_engine *e, int32_t count, int32_t time, const int32_t *tokens, const int32_t *positions,
                  const uint8_t *wanted, float *logits)
{
    if (count < 1 || time < 1 || time > INT32_MAX / BATCH)
        return fail(e, MT_USAGE, "%d sequences of %d tokens make no sense", count, time);
    reading r = {.count = count, .time = time, .tokens = tokens, .positions = positions, .wanted = wanted, .logits = logits};
    r.sequences = time < BATCH ? BATCH / time : 1;
    if (r.sequences > count) r.sequences = count;
    r.batches = (count - 1) / r.sequences + 1;
    return r.batches > 1 ? run_copies(e, read_some, &r) : read_some(e, &r);
}

// ---------------------------------------------------------------------------------------------------------------------
// Tokenizer

// The token whose piece is exactly these bytes, or -1.
static int32_t find_piece(const mt_engine *e, const char *bytes, int32_t size)
{
    piece wanted = {bytes, size, 0};
    const piece *found = bsearch(&wanted, e->sorted, (size_t)e->config.vocab, sizeof(piece), compare_pieces);
    return found ? found->token : -1;
}

int32_t mt_encode(mt_engine *e, const char *text, int64_t size, int32_t *tokens, int64_t *count)
{
    *count = 0;
    for (int64_t i = 0; i < size;) {
        int32_t length = size - i < e->longest ? (int32_t)(size - i) : e->longest, token = -1;
        for (; length > 0 && token < 0; length--) token = find_piece(e, text + i, length);
        if (token < 0) {
            unsigned char byte = (unsigned char)text[i];
            if (byte > ' ' && byte < 127)
                return fail(e, MT_USAGE, "the text's byte %lld, '%c', is not in the model's vocabulary", (long long)i, byte);
            return fail(e, MT_USAGE, "the text's byte %lld, 0x%02x, is not in the model's vocabulary", (long long)i, byte);
        }
        tokens[(*count)++] = token;
        i += length + 1;                // the loop has stepped past the length that fitted
    }
    return MT_OK;
}

const char *mt_piece(const mt_engine *e, int32_t token, int32_t *size)
{
    if (token < 0 || token >= e->config.vocab) return NULL;
    *size = e->pieces[token].size;
    return e->pieces[token].bytes;
}

// ---------------------------------------------------------------------------------------------------------------------
// Sampler.  In double, one operation at a time and in a fixed order: minitron/sampler.py does the same in Python, and
// from equal logits and seeds both choose equal tokens.

// SplitMix64 (Steele, Lea & Flood 2014): a counter, and a hash of it.  -> uniform in [0, 1)
static double draw(uint64_t *random)
{
    uint64_t z = *random += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

// Restore the heap below `root`: the likeliest token on top, of equals the one with the lower id.
static void sift(int32_t *heap, int32_t size, int32_t root, const double *weight)
{
    for (int32_t child; (child = 2 * root + 1) < size; root = child) {
        int32_t right = child + 1;
        if (right < size && (weight[heap[right]] > weight[heap[child]] ||
                             (weight[heap[right]] == weight[heap[child]] && heap[right] < heap[child])))
            child = right;
        int32_t a = heap[root], b = heap[child];
        if (weight[a] > weight[b] || (weight[a] == weight[b] && a < b)) return;
        heap[root] = b;
        heap[child] = a;
    }
}

// -> a token, or ~i where logit i is not finite; weight and heap (V) are scratch
static int32_t choose(const float *logits, int32_t V, const mt_sampling *how, uint64_t *random, double *weight, int32_t *heap)
{
    int32_t best = 0;
    float nonsense = 0;                 // stays 0, or becomes NaN
    for (int32_t i = 0; i < V; i++) {
        nonsense += logits[i] * 0;
        if (logits[i] > logits[best]) best = i;
    }
    for (int32_t i = 0; nonsense != 0; i++)
        if (!isfinite(logits[i])) return ~i;
    if (how->temperature == 0) return best;

    // probability up to a common factor, 1 for the best
    for (int32_t i = 0; i < V; i++) {
        weight[i] = exp(((double)logits[i] - (double)logits[best]) / (double)how->temperature);
        heap[i] = i;
    }
    double total = 0;
    for (int32_t i = 0; i < V; i++) total += weight[i];

    // take tokens from the likeliest down until top-k, top-p or min-p says stop; they gather behind the shrinking heap
    int32_t size = V, token = best;
    double kept = 0;
    for (int32_t root = V / 2 - 1; root >= 0; root--) sift(heap, V, root, weight);
    while (size && (how->top_k == 0 || V - size < how->top_k) && kept < (double)how->top_p * total &&
           weight[heap[0]] >= (double)how->min_p) {
        int32_t taken = heap[0];
        kept += weight[taken];
        heap[0] = heap[--size];
        heap[size] = taken;
        sift(heap, size, 0, weight);
    }

    double target = draw(random) * kept, sum = 0;
    for (int32_t i = V - 1; i >= size; i--) {
        sum += weight[heap[i]];
        token = heap[i];
        if (sum > target) break;
    }
    return token;
}

static int32_t check_sampling(mt_engine *e, const mt_sampling *how)
{
    if (!e->config.vocab) return fail(e, MT_USAGE, "no model is loaded");
    if (how->temperature >= 0 && how->temperature < HUGE_VALF && how->top_k >= 0 && how->top_p > 0 && how->top_p <= 1 &&
        how->min_p >= 0 && how->min_p <= 1)
        return MT_OK;
    return fail(e, MT_USAGE, "temperature %g, top-k %d, top-p %g or min-p %g is out of range", (double)how->temperature,
                how->top_k, (double)how->top_p, (double)how->min_p);
}

static int32_t fail_logit(mt_engine *e, int32_t i)
{
    return fail(e, MT_RUN, "the logit of token %d is not finite: the model's weights have overflowed", i);
}

int32_t mt_sample(mt_engine *e, const float *logits, const mt_sampling *how, uint64_t *random, int32_t *token)
{
    int32_t status = check_sampling(e, how);
    if (status) return status;
    *token = choose(logits, e->config.vocab, how, random, e->weight, e->order);
    return *token < 0 ? fail_logit(e, ~*token) : MT_OK;
}

// ---------------------------------------------------------------------------------------------------------------------
// Generation for many prompts.  A window of sequences is kept going: when one ends, the next prompt takes its place, so that
// there is always work for whole tiles.  12 of them, not 60: 1.14 times at dim 128, as keys and values stay in the caches.

typedef struct {                // the task, and what is left of it
    int64_t next;
    int32_t count, most, room;
    int32_t sequences;          // that one engine keeps going
    const int32_t *prompts, *lengths, *stop;
    int64_t *starts;            // (count) where each prompt begins in prompts
    const mt_sampling *how;
    uint64_t *random;
    int32_t *tokens, *generated;
} generation;

typedef struct {                // one engine's part in it
    int32_t sequences;
    int32_t *job;               // (sequences) the prompt that each works on, -1 for none
    int32_t *feed, *sequence;   // (sequences * room) tokens that go in next
    uint8_t *wanted;
    float *logits;              // (sequences, V)
} window;

// The tokens of the next step: one for each sequence under way, a whole prompt for each that is free.  -> how many
static int32_t gather(mt_engine *e, generation *g, window *w)
{
    int32_t n = 0;
    for (int32_t s = 0; s < w->sequences; s++) {
        const int32_t begin = n, job = w->job[s];
        if (job >= 0) {
            w->feed[n++] = g->tokens[(size_t)job * (size_t)g->most + (size_t)g->generated[job] - 1];
        } else if ((w->job[s] = take_next(&g->next, g->count)) >= 0) {
            e->length[s] = 0;
            for (int32_t i = 0; i < g->lengths[w->job[s]]; i++) w->feed[n++] = g->prompts[g->starts[w->job[s]] + i];
        }
        for (int32_t i = begin; i < n; i++) w->sequence[i] = s, w->wanted[i] = i == n - 1;
    }
    return n;
}

// Choose a token for each sequence under way.
static int32_t advance(mt_engine *e, generation *g, window *w)
{
    const size_t V = (size_t)e->config.vocab;
    const float *logits = w->logits;
    for (int32_t s = 0; s < w->sequences; s++) {
        const int32_t job = w->job[s];
        if (job < 0) continue;
        const int32_t token = choose(logits, (int32_t)V, g->how, &g->random[job], e->weight, e->order);
        if (token < 0) return fail_logit(e, ~token);
        const int ended = token == e->config.eos || (g->stop && token == g->stop[job]);
        if (!ended) g->tokens[(size_t)job * (size_t)g->most + (size_t)g->generated[job]++] = token;
        if (ended || g->generated[job] == g->most || e->length[s] == e->context) w->job[s] = -1;
        logits += V;
    }
    return MT_OK;
}

// Work on prompts until none is left.
static int32_t generate_some(mt_engine *e, void *task)
{
    generation *g = task;
    const int32_t sequences = g->sequences;
    window w = {.sequences = sequences};
    int32_t status = mt_reset(e, sequences, g->room);
    if (status) return status;
    const size_t S = (size_t)sequences, feed = S * (size_t)g->room;
    w.job = malloc(S * sizeof(int32_t));
    w.feed = malloc(feed * sizeof(int32_t));
    w.sequence = malloc(feed * sizeof(int32_t));
    w.wanted = malloc(feed);
    w.logits = new_floats(S, (uint64_t)e->config.vocab, 1);
    if (!w.job || !w.feed || !w.sequence || !w.wanted || !w.logits)
        status = fail(e, MT_MEMORY, "no memory for %d prompts at a time", sequences);
    for (int32_t s = 0; s < sequences && !status; s++) w.job[s] = -1;
    for (int32_t n; !status && (n = gather(e, g, &w)) > 0;) {
        status = mt_forward(e, n, w.feed, w.sequence, NULL, w.wanted, w.logits);
        if (!status) status = advance(e, g, &w);
    }
    void *all[] = {w.job, w.feed, w.sequence, w.wanted, w.logits};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    return status;
}

int32_t mt_generate(mt_engine *e, int32_t count, const int32_t *prompts, const int32_t *lengths, int32_t most,
                    const int32_t *stop, const mt_sampling *how, uint64_t *random, int32_t *tokens, int32_t *generated)
{
    const int32_t context = e->config.context;
    int32_t longest = 0, status = check_sampling(e, how);
    for (int32_t i = 0; i < count && !status; i++) {
        if (lengths[i] < 1 || lengths[i] > context)
            status = fail(e, MT_USAGE, "prompt %d has %d tokens: give 1 to %d, the model's context", i, lengths[i], context);
        if (lengths[i] > longest) longest = lengths[i];
        generated[i] = 0;
    }
    if (!status && count < 0) status = fail(e, MT_USAGE, "%d prompts make no sense", count);
    if (!status && most < 0) status = fail(e, MT_USAGE, "%d tokens to generate: give a number from 0 on", most);
    if (status || count < 1 || most == 0) return status;

    generation g = {.count = count, .most = most, .room = most < context - longest ? longest + most : context, .prompts = prompts,
                    .lengths = lengths, .stop = stop, .how = how, .random = random, .tokens = tokens, .generated = generated};
    g.starts = malloc((size_t)count * sizeof *g.starts);
    if (!g.starts) return fail(e, MT_MEMORY, "no memory for %d prompts", count);
    g.starts[0] = 0;
    for (int32_t i = 1; i < count; i++) g.starts[i] = g.starts[i - 1] + lengths[i - 1];

    const int32_t most_at_once = is_small(e) ? WINDOW : 5 * WINDOW;
    g.sequences = count < most_at_once ? count : most_at_once;
    status = count > most_at_once ? run_copies(e, generate_some, &g) : generate_some(e, &g);
    free(g.starts);
    return status;
}

// ---------------------------------------------------------------------------------------------------------------------
// Command line.  Exit codes: 0 fine, 1 usage, 2 bad file, 3 no memory, 4 failed while running.

#ifndef MINITRON_LIB

static const char USAGE[] =
    "usage: run MODEL [-i PROMPT] [options]\n"
    "\n"
    "what to do, if not to generate text:\n"
    "  --score FILE         how well the model predicts a text: nll and perplexity a token, bits a byte\n"
    "  --logprobs           log-probability of each token of the prompt, as JSON lines\n"
    "  --attention L,H      what each token of the prompt looks at in layer L, head H (from 0), as JSON lines\n"
    "  --bench              tokens and bytes a second, reading a prompt and generating\n"
    "  --info               say what the model is\n"
    "  -h                   this text\n"
    "\n"
    "  -i TEXT   prompt; - reads it from standard input\n"
    "  -f FILE   prompt from a file\n"
    "  -n N      tokens to generate at the most (until the model's end token or its context is full)\n"
    "  -t T      temperature, 0 for the likeliest token each time (what the model file recommends)\n"
    "  -k K      sample from the K likeliest tokens only\n"
    "  -p P      sample from the fewest tokens that together have probability P\n"
    "  -m P      sample from tokens at least P times as likely as the likeliest\n"
    "  -s SEED   of the sampler (0)\n"
    "  -j N      threads (1)\n"
    "\n"
    "  ./run model.bin                                  in a terminal: asks for prompts, line by line\n"
    "  ./run model.bin -i \"123+456=\"\n"
    "  ./run model.bin -t 0.8 -n 200 -s 7 < /dev/null\n"
    "  echo \"123+456=\" | ./run model.bin -i -\n"
    "  ./run model.bin --score test.txt -j 2\n"
    "\n"
    "A text from a file or standard input loses its last newline, if the model has no such token; --score then takes each\n"
    "line as a text of its own.\n"
    "exit codes: 0 fine, 1 usage, 2 bad model file, 3 no memory, 4 failed while running\n";

typedef enum { GENERATE, SCORE, LOGPROBS, ATTENTION, BENCH, INFO, HELP } action;

typedef struct {
    action what;
    const char *model, *prompt, *file;      // file: of the prompt, or the text of --score
    mt_sampling sampling;
    int has_temperature, threads, steps;    // steps 0: no limit
    int layer, head;
    uint64_t seed;
} options;

static int complain(int status, const char *reason)
{
    fprintf(stderr, "run: %s\n", reason);
    return status;
}

// The number in `text` between low and high, or a complaint on standard error and 0.
static int read_number(const char *flag, const char *text, double low, double high, int whole, double *value)
{
    char *end;
    errno = 0;
    *value = strtod(text, &end);
    if (end != text && *end == 0 && errno == 0 && *value >= low && *value <= high && (!whole || *value == floor(*value)))
        return 1;
    fprintf(stderr, "run: %s %s: give a%s number from %.10g to %.10g\n", flag, text, whole ? " whole" : "", low, high);
    return 0;
}

static int read_seed(const char *text, uint64_t *seed)
{
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == 0 && errno == 0) return 1;
    fprintf(stderr, "run: -s %s: give a whole number from 0 to %llu\n", text, (unsigned long long)UINT64_MAX);
    return 0;
}

// "3,1" -> layer 3, head 1
static int read_head(const char *text, options *o)
{
    char rest;
    if (strspn(text, "0123456789,") == strlen(text) && strlen(text) < 16 &&
        sscanf(text, "%9d,%9d%c", &o->layer, &o->head, &rest) == 2) return 1;
    fprintf(stderr, "run: --attention %s: give a layer and a head, both from 0, such as 0,0\n", text);
    return 0;
}

// A prompt, or the file of a text.  -> 1, or 0 after a complaint if there is one already
static int set_text(const char *flag, const char *value, const char **text, const options *o)
{
    if (!o->prompt && !o->file) { *text = value; return 1; }
    fprintf(stderr, "run: %s %s: there is a text already, %s: give one\n", flag, value, o->prompt ? o->prompt : o->file);
    return 0;
}

// -> 1, or 0 after a complaint
static int read_options(int argc, char **argv, options *o)
{
    static const struct { const char *flag; action what; int has_value; } actions[] = {
        {"--score", SCORE, 1}, {"--logprobs", LOGPROBS, 0}, {"--attention", ATTENTION, 1}, {"--bench", BENCH, 0},
        {"--info", INFO, 0}, {"-h", HELP, 0}, {"--help", HELP, 0},
    };
    *o = (options){.sampling = {.top_p = 1}, .threads = 1};
    const char *chosen = NULL;                  // the action's flag
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        double number = 0;
        int good = 1, has_value = strlen(flag) == 2 && strchr("ifntkpmsj", flag[1]), known = has_value;
        for (size_t a = 0; a < sizeof actions / sizeof *actions; a++) {
            if (strcmp(flag, actions[a].flag)) continue;
            if (chosen && o->what != actions[a].what && actions[a].what != HELP) {
                fprintf(stderr, "run: %s and %s are two things to do: choose one\n", chosen, flag);
                return 0;
            }
            o->what = actions[a].what;
            has_value = actions[a].has_value;
            chosen = flag;
            known = 1;
        }
        if (o->what == HELP) return 1;
        if (flag[0] != '-') {
            if (o->model) { fprintf(stderr, "run: %s: one model at a time (the first is %s)\n", flag, o->model); return 0; }
            o->model = flag;
            continue;
        }
        if (!known) { fprintf(stderr, "run: %s: no such option; ./run -h lists them\n", flag); return 0; }
        if (!has_value) continue;
        if (!value) { fprintf(stderr, "run: %s: its value is missing\n", flag); return 0; }
        i++;
        if (!strcmp(flag, "--attention")) {
            if (!read_head(value, o)) return 0;
            continue;
        }
        switch (flag[1]) {
        case 'i': good = set_text(flag, value, &o->prompt, o); break;
        case 'f': case '-': good = set_text(flag, value, &o->file, o); break;      // case '-': --score
        case 'n': good = read_number(flag, value, 1, 1 << 30, 1, &number); o->steps = (int)number; break;
        case 'k': good = read_number(flag, value, 0, 1 << 30, 1, &number); o->sampling.top_k = (int32_t)number; break;
        case 'j': good = read_number(flag, value, 1, MAX_THREADS, 1, &number); o->threads = (int)number; break;
        case 't': good = read_number(flag, value, 0, 1e6, 0, &number); o->sampling.temperature = (float)number;
                  o->has_temperature = 1; break;
        case 'p': good = read_number(flag, value, 1e-6, 1, 0, &number); o->sampling.top_p = (float)number; break;
        case 'm': good = read_number(flag, value, 0, 1, 0, &number); o->sampling.min_p = (float)number; break;
        case 's': good = read_seed(value, &o->seed); break;
        }
        if (!good) return 0;
    }
    if (!o->model) { fprintf(stderr, "run: which model?  e.g. ./run model.bin; ./run -h says more\n"); return 0; }
    return 1;
}

// All of a stream, or NULL.
static char *read_all(FILE *stream, int64_t *size)
{
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

// The text of -i, -f, --score or standard input, freshly allocated.  -> MT_OK or the exit code after a complaint
static int read_text(mt_engine *e, const options *o, char **text, int64_t *size)
{
    const char *name = o->file ? o->file : o->prompt ? o->prompt : "";
    *text = NULL;
    *size = 0;
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
    if (!*text) {
        fprintf(stderr, "run: %s: %s\n", stream == stdin ? "standard input" : name, strerror(reason));
        return reason == ENOMEM ? MT_MEMORY : MT_USAGE;
    }
    if (*size && (*text)[*size - 1] == '\n' && find_piece(e, "\n", 1) < 0) --*size;
    return MT_OK;
}

static int print_info(const mt_engine *e, const char *path)
{
    const mt_config *c = &e->config;
    printf("%s: %llu parameters, %s\n", path, (unsigned long long)e->parameters, c->int8 ? "int8" : "float32");
    printf("dim %d, layers %d, heads %d of width %d, key/value heads %d, ffn %d, vocabulary %d, context %d tokens\n", c->dim,
           c->layers, c->heads, c->head_dim, c->kv_heads, c->ffn_dim, c->vocab, c->context);
    printf("%s attention, rope theta %g, norm eps %g, %s head%s\n", c->linear ? "linear" : "softmax", (double)c->rope_theta,
           (double)c->norm_eps, c->tied ? "tied" : "untied", c->qk_norm ? ", norms on queries and keys" : "");
    printf("temperature %g unless -t is given\n", (double)c->temperature);
    fwrite(e->provenance, 1, e->provenance_size, stdout);
    putchar('\n');
    return MT_OK;
}

// A text's tokens, freshly allocated, with bos in front where it is `always` wanted or the text is empty.  -> status
static int32_t encode(mt_engine *e, const char *text, int64_t size, int always, int32_t **tokens, int64_t *count)
{
    *tokens = malloc(((size_t)size + 1) * sizeof **tokens);
    if (!*tokens) return fail(e, MT_MEMORY, "no memory for a text of %lld bytes", (long long)size);
    const int begin = e->config.bos >= 0 && (always || size == 0);
    if (begin) **tokens = e->config.bos;
    int32_t status = mt_encode(e, text, size, *tokens + begin, count);
    *count += begin;
    return status;
}

// The same for a prompt of at least one token, whose last one need not go through the model if it is only `scored`
static int32_t encode_prompt(mt_engine *e, const char *text, int64_t size, int scored, int32_t **tokens, int64_t *count)
{
    const int32_t context = e->config.context;
    int32_t status = encode(e, text, size, scored, tokens, count);
    if (status) return status;
    if (*count == 0) return fail(e, MT_USAGE, "this model needs a prompt: give one with -i (--info shows an example)");
    if (*count - scored > context)
        return fail(e, MT_RUN, "the prompt is %lld tokens, the model's context %d: shorten it", (long long)*count, context);
    return MT_OK;
}

// Print a text and what follows it, token by token.
static int32_t generate(mt_engine *e, const options *o, const char *text, int64_t size)
{
    int64_t count;
    uint64_t random = o->seed;
    int32_t token, length = 0, *tokens = NULL;
    float *logits = new_floats(2, (uint64_t)e->config.vocab, 1);
    int32_t status = logits ? encode_prompt(e, text, size, 0, &tokens, &count) : fail(e, MT_MEMORY, "no memory for logits");
    if (!status) status = mt_reset(e, 1, e->config.context);
    if (!status) status = mt_forward(e, (int32_t)count - 1, tokens, NULL, NULL, NULL, NULL);
    if (!status) status = mt_forward(e, 1, tokens + count - 1, NULL, NULL, NULL, logits);
    if (!status) fwrite(text, 1, (size_t)size, stdout);
    for (int step = 0; !status && (o->steps == 0 || step < o->steps); step++) {
        status = mt_sample(e, logits, &o->sampling, &random, &token);
        if (status || token == e->config.eos) break;
        const char *bytes = mt_piece(e, token, &length);
        fwrite(bytes, 1, (size_t)length, stdout);
        fflush(stdout);
        if (e->length[0] == e->context) break;
        status = mt_forward(e, 1, &token, NULL, NULL, NULL, logits);
    }
    if (!status) putchar('\n');
    free(tokens);
    free(logits);
    return status;
}

// Prompts from a terminal, until it says that there are no more
static int32_t converse(mt_engine *e, const options *o)
{
    char *line = NULL;
    size_t room = 0;
    for (;;) {
        fputs("> ", stdout);
        fflush(stdout);
        ssize_t size = getline(&line, &room, stdin);
        if (size < 0) break;
        if (line[size - 1] == '\n') size--;
        if (generate(e, o, line, size)) complain(0, mt_error(e));
    }
    putchar('\n');
    free(line);
    return MT_OK;
}

// {"token": 65, "text": "A" without the closing brace.  A byte of the text is a character, as in Latin-1: a piece may be no
// whole character of UTF-8.
static void print_token(const mt_engine *e, int32_t token)
{
    int32_t size = 0;
    const char *bytes = mt_piece(e, token, &size);
    printf("{\"token\": %d, \"text\": \"", token);
    for (int32_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte < ' ' || byte > '~' || byte == '"' || byte == '\\') printf("\\u%04x", byte);
        else putchar(byte);
    }
    putchar('"');
}

// A finite number, or null
static void print_number(double number)
{
    if (number - number == 0) printf("%.6g", number);
    else printf("null");
}

// A JSON line for each token of a text: its log-probability given those before it, or what it looks at
static int32_t look_into(mt_engine *e, const options *o, const char *text, int64_t size)
{
    int64_t count = 0;
    int32_t *tokens = NULL, status = encode_prompt(e, text, size, o->what == LOGPROBS, &tokens, &count);
    if (!status) status = mt_reset(e, 1, (int32_t)count);
    const size_t S = (size_t)count;
    float *values = new_floats((uint64_t)count, o->what == ATTENTION ? S : 1, 1);
    if (!status && !values) status = fail(e, MT_MEMORY, "no memory for %lld tokens", (long long)count);
    if (!status && o->what == ATTENTION)
        status = mt_attention(e, (int32_t)count, tokens, NULL, NULL, o->layer, o->head, values);
    if (!status && o->what == LOGPROBS) {
        values[0] = NAN;                        // nothing comes before it
        if (count > 1) status = mt_score(e, (int32_t)count - 1, tokens, NULL, NULL, tokens + 1, values + 1);
    }
    for (size_t t = 0; t < (size_t)count && !status; t++) {
        print_token(e, tokens[t]);
        printf(o->what == ATTENTION ? ", \"attention\": [" : ", \"logprob\": ");
        if (o->what == LOGPROBS) print_number((double)values[t]);
        for (size_t s = 0; s <= t && o->what == ATTENTION; s++) {
            if (s) printf(", ");
            print_number((double)values[t * S + s]);
        }
        puts(o->what == ATTENTION ? "]}" : "}");
    }
    free(tokens);
    free(values);
    return status;
}

typedef struct {
    double nll, square, bytes;              // sums over the tokens
    int64_t tokens;
} score;

// Score tokens[1..count-1], each given those before it, in windows of the model's context.
static int32_t score_tokens(mt_engine *e, const int32_t *tokens, int64_t count, score *sum)
{
    const int32_t context = count < e->config.context ? (int32_t)count : e->config.context;
    float *logprobs = new_floats((uint64_t)context, 1, 1);
    int32_t status = logprobs ? MT_OK : fail(e, MT_MEMORY, "no memory for %d tokens", context), size = 0;
    for (int64_t start = 0; start + 1 < count && !status; start += context) {
        int32_t n = count - 1 - start < context ? (int32_t)(count - 1 - start) : context;
        status = mt_reset(e, 1, context);
        if (!status) status = mt_score(e, n, tokens + start, NULL, NULL, tokens + start + 1, logprobs);
        for (int32_t i = 0; i < n && !status; i++) {
            sum->nll -= (double)logprobs[i];
            sum->square += (double)logprobs[i] * (double)logprobs[i];
            mt_piece(e, tokens[start + i + 1], &size);
            sum->bytes += size;
        }
        sum->tokens += n;
    }
    free(logprobs);
    return status;
}

// How well the model predicts a text, or each of its lines where the model knows no newline
static int32_t score_text(mt_engine *e, const char *text, int64_t size)
{
    const int lines = find_piece(e, "\n", 1) < 0;
    score sum = {0};
    int32_t status = MT_OK;
    for (int64_t start = 0, end; start < size && !status; start = end + 1) {
        for (end = start; end < size && !(lines && text[end] == '\n');) end++;
        int32_t *tokens = NULL;
        int64_t count;
        status = encode(e, text + start, end - start, 1, &tokens, &count);
        if (!status) status = score_tokens(e, tokens, count, &sum);
        free(tokens);
    }
    if (!status && sum.tokens == 0) status = fail(e, MT_USAGE, "there is nothing to score: give a text of two tokens or more");
    if (status) return status;
    const double n = (double)sum.tokens, mean = sum.nll / n, variance = sum.square / n - mean * mean;
    const double error = sqrt((variance > 0 ? variance : 0) / n);
    printf("%lld tokens: nll %.5f +- %.5f, perplexity %.4f +- %.4f, bits a byte %.5f +- %.5f\n", (long long)sum.tokens,
           mean, error, exp(mean), exp(mean) * error, sum.nll / log(2) / sum.bytes, error * n / log(2) / sum.bytes);
    return MT_OK;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

enum { BENCH_TOKENS = 512 };     // at the most, of a prompt and of a text in bench

// Read a text `step` tokens at a time, again and again for a second.  -> tokens a second
static double time_forward(mt_engine *e, int32_t count, int32_t step, const int32_t *tokens, float *logits)
{
    const double start = seconds();
    double done = 0, passed = 0;
    uint8_t wanted[BENCH_TOKENS] = {0};
    wanted[step - 1] = 1;
    for (; passed < 1; passed = seconds() - start, done += count) {
        mt_rewind(e, 0, 0);
        for (int32_t t = 0; t < count; t += step) mt_forward(e, step, tokens + t, NULL, NULL, wanted, logits);
    }
    return done / passed;
}

static int32_t bench(mt_engine *e)
{
    const mt_config *c = &e->config;
    const int32_t count = c->context < BENCH_TOKENS ? c->context : BENCH_TOKENS;
    float *logits = new_floats((uint64_t)c->vocab, 1, 1);
    int32_t tokens[BENCH_TOKENS], status = logits ? mt_reset(e, 1, c->context) : fail(e, MT_MEMORY, "no memory for logits");
    for (int32_t i = 0; i < count; i++) tokens[i] = i * 7 % c->vocab;
    if (!status) {
        double bytes, number = weights_of(e, &bytes);
        double prefill = time_forward(e, count, count, tokens, logits), decode = time_forward(e, count, 1, tokens, logits);
        uint64_t hash = 14695981039346656037u;                  // FNV-1a, of the last logits' bits
        for (size_t i = 0; i < 4 * (size_t)c->vocab; i++) hash = (hash ^ ((uint8_t *)logits)[i]) * 1099511628211u;
        printf("prefill: %.0f tokens a second, %.1f GFLOP/s (%d at a time)\n", prefill, 2e-9 * prefill * number, count);
        printf("decode:  %.0f tokens a second, %.1f GB/s\n", decode, 1e-9 * decode * bytes);
        printf("logits:  %016llx\n", (unsigned long long)hash);
    }
    free(logits);
    return status;
}

// Whether all that was printed has arrived, e.g. on a disk that is not full.
static int finish_output(int status)
{
    if ((fflush(stdout) || ferror(stdout)) && !status) return complain(MT_RUN, "standard output cannot be written");
    return status;
}

static int act(mt_engine *e, const options *o)
{
    if (o->what == INFO) return print_info(e, o->model);
    char *text = NULL;
    int64_t size = 0;
    int32_t status = MT_OK;
    const int asks = o->what == GENERATE && !o->prompt && !o->file && isatty(STDIN_FILENO);
    if (o->what != BENCH && !asks) {
        status = read_text(e, o, &text, &size);
        if (status) return status;              // it has complained
    }
    switch (o->what) {
    case BENCH: status = bench(e); break;
    case SCORE: status = score_text(e, text, size); break;
    case GENERATE: status = asks ? converse(e, o) : generate(e, o, text, size); break;
    default: status = look_into(e, o, text, size);
    }
    free(text);
    return status ? complain(status, mt_error(e)) : MT_OK;
}

int main(int argc, char **argv)
{
    options o;
    if (!read_options(argc, argv, &o)) return MT_USAGE;
    if (o.what == HELP) {
        fputs(USAGE, stdout);
        return finish_output(MT_OK);
    }
    mt_engine *e;
    int status = mt_open(o.model, &e);
    if (status) complain(status, mt_error(e));
    else {
        mt_set_threads(e, o.threads);
        if (!o.has_temperature) o.sampling.temperature = e->config.temperature;
        status = act(e, &o);
    }
    mt_close(e);
    return finish_output(status);
}

#endif
