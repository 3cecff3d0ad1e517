/* run.c: runs the model files that minitron trains.

   One file, C11 and libm, no other dependency.  Read it from top to bottom: the file format, the API, the loader, the
   mathematics, the forward pass, the tokenizer, the sampler, the command line.  minitron/model.py is the same model in
   NumPy, with the same names; the tests hold the two equal at every position.

       cc -O3 -march=native run.c -o run -lm                  the program; make does this, with threads where it can
       cc -DMINITRON_LIB -shared -fPIC run.c -o libminitron.so -lm       the library, without main

   The one idea that C adds to NumPy's forward is the key/value cache: what a token's keys and values are depends on no later
   token, so they are kept, and a new token costs one pass through the weights instead of a pass for the whole text.

   Dimension key, as in minitron/ops.py: B sequences, T time, D dim, H heads, G key/value heads, K head width,
   F feed-forward width, L layers, V vocabulary, and here S slots of a sequence's cache.

   FILE FORMAT, version 1.  Little-endian.  Four blocks, each begun at a multiple of 64 bytes; what lies in gaps is ignored:

       header      256 bytes:
             0  8 bytes   "minitron"
             8  u32       version, 1
            12  u32       dtype, 0 = float32
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
       tensors     float32, each tensor begun at a multiple of 64 bytes from the block's start, a matrix as (out, in):
                   embed (V, D), norm1 (L, D), wqkv (L, (H+2G)K, D), wo (L, D, HK),
                   norm_q (L, K), norm_k (L, K)                        with flag 2
                   norm2 (L, D), w13 (L, 2F, D), w2 (L, D, F)          with F > 0; w13 is gate over up
                   norm_f (D), head (V, D)                             head without flag 1

   Rotary positions turn the channel pairs (2j, 2j+1) of a head by position * theta^(-2j/K).
   Checksum: the file as u64 words without words 30 and 31;  a = sum of words, b = sum of all values that a took on the way,
   both modulo 2^64 (Fletcher 1982).  A change of one word always changes a, an exchange of words nearly always b.

   A file is untrusted.  Every size is computed in 64 bits from the header and compared with the file before any pointer
   is formed.  Loading takes at most twice the file's size in memory and 44 bytes a token, mt_reset what it says it takes.
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

// API-BEGIN  (Python's cffi reads from here to API-END, so that there is no second declaration that could drift)

typedef struct mt_engine mt_engine;     // a model with its caches; one thread at a time may use it

typedef struct {                        // what the header says
    int32_t layers, dim, heads, kv_heads, head_dim, ffn_dim, vocab, context;
    int32_t tied, qk_norm, linear;      // 0 or 1
    int32_t bos, eos;                   // token ids, or -1 for none
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
enum { MT_ABI = 1 };
int32_t mt_abi(void);

// Load a model from a file, or from memory (which is copied).  On failure *engine still has to be closed; mt_error tells why.
int32_t mt_open(const char *path, mt_engine **engine);
int32_t mt_load(const void *bytes, uint64_t size, mt_engine **engine);
void mt_close(mt_engine *engine);
const char *mt_error(const mt_engine *engine);                  // NULL, where there was no memory for an engine, is fine
const mt_config *mt_get_config(const mt_engine *engine);
const char *mt_get_provenance(const mt_engine *engine);         // JSON; NULL, if loading has failed
uint64_t mt_parameters(const mt_engine *engine);

// Threads that large products may use, 256 at the most; small ones stay on one.  No effect on any bit of the results.
void mt_set_threads(mt_engine *engine, int32_t threads);

// Make room for `sequences` empty sequences of up to `context` tokens: 8*L*G*K bytes a token, 256 bytes a token of one
// sequence, and buffers for 64 tokens.
int32_t mt_reset(mt_engine *engine, int32_t sequences, int32_t context);

// Append `count` tokens to their sequences and compute the logits that follow each.
//   tokens     (count)
//   sequences  (count) each token's sequence; NULL: all to sequence 0
//   positions  (count) ids for the rotary positions, >= 0; NULL: 0, 1, 2 ... within each sequence
//   wanted     (count) nonzero where logits are wanted; NULL: everywhere
//   logits     (number wanted, V), may be NULL for none
// On failure no sequence has changed.  Results do not depend on how tokens are spread over calls and sequences.
int32_t mt_forward(mt_engine *engine, int32_t count, const int32_t *tokens, const int32_t *sequences,
                   const int32_t *positions, const uint8_t *wanted, float *logits);

// Choose a token from logits (V).  *random is the sampler's whole state, any value: a seed; it moves on
// by one draw, at temperature 0 by none.
int32_t mt_sample(mt_engine *engine, const float *logits, const mt_sampling *sampling, uint64_t *random, int32_t *token);

// Text to tokens, at each place the longest piece that fits.  *count is set to the number; tokens has room for `size`.
int32_t mt_encode(mt_engine *engine, const char *text, int64_t size, int32_t *tokens, int64_t *count);
const char *mt_piece(const mt_engine *engine, int32_t token, int32_t *size);    // not 0-terminated; NULL: no such token

// API-END

enum {
    HEADER = 256,           // bytes
    PANEL = 32,             // outputs of a matrix that lie side by side, see pack
    TILE = 4,               // tokens that share one pass over a panel
    CHUNK = 64,             // tokens that go through the layers together
    MAX_PIECE = 256,        // bytes
    MAX_THREADS = 256,
    THREAD_WORK = 1 << 19   // multiply-adds below which starting threads costs more than they bring
};

typedef struct {
    const char *bytes;
    int32_t size, token;
} piece;

typedef struct {            // pointers into engine->weights; matrices are packed into panels
    float *embed;           // (V, D)
    float *norm1;           // (L, D)
    float *wqkv;            // (L, (H+2G)K, D)
    float *wo;              // (L, D, HK)
    float *norm_q, *norm_k; // (L, K)
    float *norm2;           // (L, D)
    float *w13;             // (L, 2F, D)
    float *w2;              // (L, D, F)
    float *norm_f;          // (D)
    float *head;            // (V, D), the same as embed if tied
} tensors;

struct mt_engine {
    char error[512];
    mt_config config;
    uint64_t parameters;
    int32_t threads;
    float *weights;         // the tensor block, packed
    tensors w;
    double *frequency;      // (K/2) of the rotary positions
    char *text;             // the tokenizer block, which the pieces point into, and the provenance with a 0 behind it
    const char *provenance;
    piece *pieces;          // (V) by token id
    piece *sorted;          // (V) by their bytes, for the search of mt_encode
    double *weight;         // (V) for mt_sample
    int32_t *order;         // (V) for mt_sample
    int32_t longest;        // bytes of the longest piece
    // what mt_reset makes
    int32_t sequences, context;
    int32_t *length;        // (B) tokens in each sequence
    float *keys;            // (L, B, G, K, S): one channel of all slots side by side, so that scores vectorise over slots
    float *values;          // (L, B, G, S, K)
    float *x, *n;           // (CHUNK, D) residual stream; its norm
    float *u;               // (CHUNK, max((H+2G)K, 2F))
    float *y;               // (CHUNK, max(HK, F))
    float *scores;          // (CHUNK, S)
    float *cosine, *sine;   // (CHUNK, K/2)
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

// Where the tensors lie in their block, in the file's order: fills w with pointers from `base` on (NULL: none yet), counts
// parameters, returns the block's bytes.  With the limits of read_header every size is below 2^46 floats, so that no sum or
// product here can wrap.
static uint64_t place_tensors(const mt_config *c, float *base, tensors *w, uint64_t *parameters)
{
    uint64_t L = (uint64_t)c->layers, D = (uint64_t)c->dim, F = (uint64_t)c->ffn_dim, V = (uint64_t)c->vocab;
    uint64_t K = (uint64_t)c->head_dim, HK = (uint64_t)c->heads * K, GK = (uint64_t)c->kv_heads * K;
    struct { float **tensor; uint64_t size; } list[] = {
        {&w->embed, V * D},
        {&w->norm1, L * D},
        {&w->wqkv, L * (HK + 2 * GK) * D},
        {&w->wo, L * D * HK},
        {&w->norm_q, c->qk_norm ? L * K : 0},
        {&w->norm_k, c->qk_norm ? L * K : 0},
        {&w->norm2, F ? L * D : 0},
        {&w->w13, L * 2 * F * D},
        {&w->w2, L * D * F},
        {&w->norm_f, D},
        {&w->head, c->tied ? 0 : V * D},
    };
    uint64_t floats = 0;
    *parameters = 0;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        *list[i].tensor = base ? base + floats : NULL;
        *parameters += list[i].size;
        floats += (list[i].size + 15) / 16 * 16;
    }
    if (c->tied) w->head = w->embed;
    return 4 * floats;
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
    if (read_u32(p + 12) != 0) return fail(e, MT_FILE, "dtype %u is unknown: 0 is float32", (unsigned)read_u32(p + 12));

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
    tensors none;
    if (block->tokenizer > size || block->provenance > size || block->tensors != place_tensors(c, NULL, &none, &e->parameters) ||
        HEADER + align64(block->tokenizer) + align64(block->provenance) + block->tensors != size)
        return fail(e, MT_FILE, "the blocks of the file do not add up to its %llu bytes", (unsigned long long)size);
    return MT_OK;
}

static int32_t check_checksum(mt_engine *e, const uint8_t *p, uint64_t size)
{
    uint64_t a = 0, b = 0;
    for (uint64_t i = 0; i < size / 8; i++) {       // size is a multiple of 64: read_header has seen to it
        if (i == 30 || i == 31) continue;
        a += read_u64(p + 8 * i);
        b += a;
    }
    if (a == read_u64(p + 240) && b == read_u64(p + 248)) return MT_OK;
    return fail(e, MT_FILE, "the checksum is wrong: the file is damaged, copy or train it again");
}

static int compare_pieces(const void *left, const void *right)
{
    const piece *a = left, *b = right;
    int order = memcmp(a->bytes, b->bytes, (size_t)(a->size < b->size ? a->size : b->size));
    return order ? order : a->size - b->size;
}

static int32_t read_tokenizer(mt_engine *e, uint64_t size)
{
    const uint8_t *p = (const uint8_t *)e->text, *end = p + size;
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

// A matrix (outs, ins) as panels of PANEL rows, each panel transposed to [ins][PANEL].  A product then walks through
// memory once, in order, with PANEL sums side by side that the compiler keeps in vector registers; rows would have given it
// sums along a row, which it may not vectorise, since that would change their order.  The last panel may be narrower.
static void pack(float *to, const float *from, uint64_t outs, uint64_t ins)
{
    for (uint64_t first = 0; first < outs; first += PANEL) {
        uint64_t width = outs - first < PANEL ? outs - first : PANEL;
        for (uint64_t k = 0; k < ins; k++)
            for (uint64_t j = 0; j < width; j++)
                to[first * ins + k * width + j] = from[(first + j) * ins + k];
    }
}

// Pack the matrices of all layers; the others stay as they were copied.
static void pack_tensor(mt_engine *e, const float *block, float *tensor, int32_t layers, size_t outs, size_t ins)
{
    const float *from = block + (tensor - e->weights);      // the same place in the file
    for (size_t l = 0; l < (size_t)layers; l++) pack(tensor + l * outs * ins, from + l * outs * ins, outs, ins);
}

static int32_t load(mt_engine *e, const uint8_t *bytes, uint64_t size)
{
    sizes s;
    int32_t status = read_header(e, bytes, size, &s);
    if (!status) status = check_checksum(e, bytes, size);
    if (status) return status;

    const mt_config *c = &e->config;
    const size_t V = (size_t)c->vocab, D = (size_t)c->dim, F = (size_t)c->ffn_dim, K = (size_t)c->head_dim;
    const size_t HK = (size_t)c->heads * K, GK = (size_t)c->kv_heads * K;
    e->text = malloc(s.tokenizer + s.provenance + 1);
    e->pieces = malloc(V * sizeof(piece));
    e->sorted = malloc(V * sizeof(piece));
    e->weight = malloc(V * sizeof(double));
    e->order = malloc(V * sizeof(int32_t));
    e->frequency = malloc(K / 2 * sizeof(double));
    e->weights = aligned_alloc(64, s.tensors);
    if (!e->text || !e->pieces || !e->sorted || !e->weight || !e->order || !e->frequency || !e->weights)
        return fail(e, MT_MEMORY, "no memory for a model of %llu bytes", (unsigned long long)size);

    char *provenance = e->text + s.tokenizer;
    memcpy(e->text, bytes + HEADER, s.tokenizer);
    memcpy(provenance, bytes + HEADER + align64(s.tokenizer), s.provenance);
    provenance[s.provenance] = 0;
    e->provenance = provenance;
    for (uint64_t i = 0; i < s.provenance; i++)
        if (provenance[i] < ' ' || provenance[i] > '~')
            return fail(e, MT_FILE, "byte %llu of the provenance block is not printable ASCII", (unsigned long long)i);
    if (read_tokenizer(e, s.tokenizer)) return MT_FILE;

    const float *block = (const float *)(const void *)(bytes + size - s.tensors);
    memcpy(e->weights, block, s.tensors);
    place_tensors(c, e->weights, &e->w, &e->parameters);
    pack_tensor(e, block, e->w.embed, 1, V, D);
    pack_tensor(e, block, e->w.wqkv, c->layers, HK + 2 * GK, D);
    pack_tensor(e, block, e->w.wo, c->layers, D, HK);
    pack_tensor(e, block, e->w.w13, c->layers, 2 * F, D);
    pack_tensor(e, block, e->w.w2, c->layers, D, F);
    if (!c->tied) pack_tensor(e, block, e->w.head, 1, V, D);
    for (size_t j = 0; j < K / 2; j++)
        e->frequency[j] = pow((double)c->rope_theta, -2.0 * (double)j / (double)K);     // not used where theta is 0
    return MT_OK;
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
}

int32_t mt_load(const void *bytes, uint64_t size, mt_engine **engine)
{
    mt_engine *e = *engine = new_engine();
    if (!e) return MT_MEMORY;
    void *copy = size < SIZE_MAX / 2 ? aligned_alloc(64, align64(size + 1)) : NULL;      // floats may not lie just anywhere
    if (!copy) return fail(e, MT_MEMORY, "no memory for %llu bytes", (unsigned long long)size);
    if (size) memcpy(copy, bytes, size);
    int32_t status = load(e, copy, size);
    free(copy);
    if (status) clear_model(e);
    return status;
}

// The bytes of a file whose header makes sense, freshly allocated: a size is believed, and memory asked for, only then.
static int32_t read_file(mt_engine *e, FILE *file, uint64_t size, uint8_t **bytes)
{
    uint8_t first[HEADER] = {0};
    sizes unused;
    size_t got = fread(first, 1, HEADER, file);
    int32_t status = read_header(e, first, got < HEADER ? got : size, &unused);
    if (status) return status;
    *bytes = aligned_alloc(64, size);
    if (!*bytes) return fail(e, MT_MEMORY, "no memory for %llu bytes", (unsigned long long)size);
    memcpy(*bytes, first, HEADER);
    if (fread(*bytes + HEADER, 1, size - HEADER, file) == size - HEADER) return MT_OK;
    return fail(e, MT_FILE, "reading stopped early: %s", ferror(file) ? strerror(errno) : "the file has become shorter");
}

int32_t mt_open(const char *path, mt_engine **engine)
{
    mt_engine *e = *engine = new_engine();
    if (!e) return MT_MEMORY;
    struct stat about;
    FILE *file = NULL;
    uint8_t *bytes = NULL;
    int32_t status = MT_OK;
    if (stat(path, &about)) status = fail(e, MT_FILE, "%s", strerror(errno));
    else if (!S_ISREG(about.st_mode)) status = fail(e, MT_FILE, "not a regular file");
    else if (!(file = fopen(path, "rb"))) status = fail(e, MT_FILE, "%s", strerror(errno));
    if (!status) status = read_file(e, file, (uint64_t)about.st_size, &bytes);
    if (file) fclose(file);
    if (!status) status = load(e, bytes, (uint64_t)about.st_size);
    free(bytes);
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
    void *all[] = {e->length, e->keys, e->values, e->x, e->n, e->u, e->y, e->scores, e->cosine, e->sine};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    e->length = NULL;
    e->keys = e->values = e->x = e->n = e->u = e->y = e->scores = e->cosine = e->sine = NULL;
    e->sequences = e->context = 0;
}

void mt_close(mt_engine *e)
{
    if (!e) return;
    free_caches(e);
    void *all[] = {e->weights, e->frequency, e->text, e->pieces, e->sorted, e->weight, e->order, e};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

int32_t mt_abi(void) { return MT_ABI; }
const mt_config *mt_get_config(const mt_engine *e) { return &e->config; }
const char *mt_get_provenance(const mt_engine *e) { return e->provenance; }
uint64_t mt_parameters(const mt_engine *e) { return e->parameters; }
void mt_set_threads(mt_engine *e, int32_t threads)
{
    e->threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
}

// floats, or NULL where the product of the sizes or the memory is too large
static float *new_floats(uint64_t a, uint64_t b, uint64_t c)
{
    const uint64_t most = SIZE_MAX / 8;      // half of what fits, so that rounding up cannot wrap
    if ((a && b > most / a) || (c && a * b > most / c)) return NULL;
    return aligned_alloc(64, align64(a * b * c * 4 + 1));
}

int32_t mt_reset(mt_engine *e, int32_t sequences, int32_t context)
{
    const mt_config *c = &e->config;
    if (!c->vocab) return fail(e, MT_USAGE, "no model is loaded");
    if (sequences < 1 || context < 1)
        return fail(e, MT_USAGE, "room for %d sequences of %d tokens makes no sense", sequences, context);
    if (sequences != e->sequences || context != e->context) {
        uint64_t D = (uint64_t)c->dim, F = (uint64_t)c->ffn_dim, K = (uint64_t)c->head_dim, S = (uint64_t)context;
        uint64_t HK = (uint64_t)c->heads * K, GK = (uint64_t)c->kv_heads * K, rows = (uint64_t)c->layers * (uint64_t)sequences;
        free_caches(e);
        e->length = malloc((size_t)sequences * sizeof(int32_t));
        e->keys = new_floats(rows, GK, S);
        e->values = new_floats(rows, GK, S);
        e->x = new_floats(CHUNK, D, 1);
        e->n = new_floats(CHUNK, D, 1);
        e->u = new_floats(CHUNK, HK + 2 * GK > 2 * F ? HK + 2 * GK : 2 * F, 1);
        e->y = new_floats(CHUNK, HK > F ? HK : F, 1);
        e->scores = new_floats(CHUNK, S, 1);
        e->cosine = new_floats(CHUNK, (uint64_t)c->head_dim / 2, 1);
        e->sine = new_floats(CHUNK, (uint64_t)c->head_dim / 2, 1);
        if (!e->length || !e->keys || !e->values || !e->x || !e->n || !e->u || !e->y || !e->scores || !e->cosine || !e->sine) {
            free_caches(e);
            return fail(e, MT_MEMORY, "no memory for %d sequences of %d tokens: ask for fewer", sequences, context);
        }
        e->sequences = sequences;
        e->context = context;
    }
    memset(e->length, 0, (size_t)sequences * sizeof(int32_t));
    return MT_OK;
}

// ---------------------------------------------------------------------------------------------------------------------
// Mathematics

// `tokens` (1..TILE) rows of x times one panel.  Called with constants, so that the compiler unrolls it.  Each sum goes
// over k in the same order whatever the tile, which is why results do not depend on the batch.  That a multiply-add is
// fused in all of the copies or in none is up to the compiler; the tests hold it to that.
static inline void multiply_tile(float *y, const float *x, const float *panel, int tokens, size_t width, size_t outs, size_t ins)
{
    float sum[TILE][PANEL] = {{0}};
    for (size_t k = 0; k < ins; k++)
        for (int t = 0; t < tokens; t++)
            for (size_t j = 0; j < width; j++)
                sum[t][j] += x[(size_t)t * ins + k] * panel[k * width + j];
    for (int t = 0; t < tokens; t++) memcpy(y + (size_t)t * outs, sum[t], width * sizeof(float));
}

// y (T, outs) = x (T, ins) @ w.T, with w (outs, ins) packed into panels
static void multiply(const mt_engine *e, float *y, const float *x, const float *w, int T, size_t outs, size_t ins)
{
    int panels = (int)((outs + PANEL - 1) / PANEL);
    const double work = (double)T * (double)outs * (double)ins;
    #pragma omp parallel for num_threads(e->threads) if (e->threads > 1 && work > THREAD_WORK)
    for (int i = 0; i < panels; i++) {
        size_t first = (size_t)i * PANEL, width = outs - first < PANEL ? outs - first : PANEL;
        const float *panel = w + first * ins;
        int t = 0;
        for (; t + TILE <= T; t += TILE) {
            float *to = y + (size_t)t * outs + first;
            const float *from = x + (size_t)t * ins;
            if (width == PANEL) multiply_tile(to, from, panel, TILE, PANEL, outs, ins);
            else multiply_tile(to, from, panel, TILE, width, outs, ins);
        }
        for (; t < T; t++) {
            float *to = y + (size_t)t * outs + first;
            const float *from = x + (size_t)t * ins;
            if (width == PANEL) multiply_tile(to, from, panel, 1, PANEL, outs, ins);
            else multiply_tile(to, from, panel, 1, width, outs, ins);
        }
    }
    (void)e, (void)work;            // unused where there is no OpenMP
}

// y (D) = w * x / sqrt(mean(x^2) + eps); y may be x
static void rmsnorm(float *y, const float *x, const float *w, int D, float eps)
{
    double square = 0;
    for (int d = 0; d < D; d++) square += (double)x[d] * (double)x[d];
    float r = (float)(1 / sqrt(square / D + (double)eps));
    for (int d = 0; d < D; d++) y[d] = w[d] * (r * x[d]);
}

// Turn the K/2 channel pairs of one head.
static void rotate(float *x, const float *cosine, const float *sine, int K)
{
    for (int j = 0; j < K / 2; j++) {
        float a = x[2 * j], b = x[2 * j + 1];
        x[2 * j] = a * cosine[j] - b * sine[j];
        x[2 * j + 1] = a * sine[j] + b * cosine[j];
    }
}

static void softmax(float *x, int size)
{
    float top = x[0], sum = 0;
    for (int i = 1; i < size; i++) top = x[i] > top ? x[i] : top;
    for (int i = 0; i < size; i++) sum += x[i] = expf(x[i] - top);
    for (int i = 0; i < size; i++) x[i] /= sum;
}

// One head of one token: y (K) = softmax(q . keys / sqrt(K)) @ values over the slots 0..slots-1.
// q (K), keys (K, S), values (S, K), scores (S) scratch
static void attend(float *y, const float *q, const float *keys, const float *values, float *scores, int slots, int K, int S,
                   int linear)
{
    float scale = (float)pow(K, -0.5);
    memset(scores, 0, (size_t)slots * sizeof(float));
    for (int k = 0; k < K; k++) {
        float channel = q[k] * scale;
        for (int s = 0; s < slots; s++) scores[s] += channel * keys[(size_t)k * (size_t)S + (size_t)s];
    }
    if (!linear) softmax(scores, slots);
    memset(y, 0, (size_t)K * sizeof(float));
    for (int s = 0; s < slots; s++)
        for (int k = 0; k < K; k++) y[k] += scores[s] * values[(size_t)s * (size_t)K + (size_t)k];
}

// ---------------------------------------------------------------------------------------------------------------------
// The forward pass of up to CHUNK tokens, a straight line: model_forward and block_forward of minitron/model.py.
// tokens, sequences, slots, positions (T): which token, of which sequence, at which place in its cache, at which position.

static void forward_chunk(mt_engine *e, int T, const int32_t *tokens, const int32_t *sequences, const int32_t *slots,
                          const int32_t *positions)
{
    const mt_config *c = &e->config;
    const int D = c->dim, H = c->heads, G = c->kv_heads, K = c->head_dim, F = c->ffn_dim, V = c->vocab, S = e->context;
    const size_t qkv = (size_t)(H + 2 * G) * (size_t)K, HK = (size_t)H * (size_t)K, SK = (size_t)S * (size_t)K;
    const size_t DD = (size_t)D, FF = (size_t)F;
    float *x = e->x, *n = e->n, *u = e->u, *y = e->y;

    // embedding: row `token` of embed lies as one column of its panel
    for (int t = 0; t < T; t++) {
        int first = tokens[t] / PANEL * PANEL, width = V - first < PANEL ? V - first : PANEL;
        const float *panel = e->w.embed + (size_t)first * DD;
        for (int d = 0; d < D; d++) x[t * D + d] = panel[d * width + tokens[t] - first];
    }
    for (int t = 0; t < T && c->rope_theta > 0; t++)
        for (int j = 0; j < K / 2; j++) {
            e->cosine[t * (K / 2) + j] = (float)cos((double)positions[t] * e->frequency[j]);
            e->sine[t * (K / 2) + j] = (float)sin((double)positions[t] * e->frequency[j]);
        }

    for (size_t l = 0; l < (size_t)c->layers; l++) {
        // queries, keys and values of all tokens in one product
        for (int t = 0; t < T; t++) rmsnorm(n + t * D, x + t * D, e->w.norm1 + l * DD, D, c->norm_eps);
        multiply(e, u, n, e->w.wqkv + l * qkv * DD, T, qkv, DD);

        // norm and turn queries and keys; keep keys and values in the cache
        for (int t = 0; t < T; t++) {
            float *q = u + (size_t)t * qkv, *k = q + HK, *v = k + G * K;
            for (int h = 0; h < H + G; h++) {           // the keys' heads follow the queries'
                float *head = q + h * K;
                const float *w = h < H ? e->w.norm_q : e->w.norm_k;
                if (c->qk_norm) rmsnorm(head, head, w + l * (size_t)K, K, c->norm_eps);
                if (c->rope_theta > 0) rotate(head, e->cosine + t * (K / 2), e->sine + t * (K / 2), K);
            }
            for (int g = 0; g < G; g++) {
                size_t row = (l * (size_t)e->sequences + (size_t)sequences[t]) * (size_t)G + (size_t)g;
                for (int i = 0; i < K; i++) e->keys[row * SK + (size_t)i * (size_t)S + (size_t)slots[t]] = k[g * K + i];
                memcpy(e->values + row * SK + (size_t)slots[t] * (size_t)K, v + g * K, (size_t)K * sizeof(float));
            }
        }

        // attention: each token looks at its own sequence up to itself
        const double work = (double)T * (double)HK * (double)slots[T - 1];
        #pragma omp parallel for num_threads(e->threads) if (e->threads > 1 && work > THREAD_WORK)
        for (int t = 0; t < T; t++)
            for (int h = 0; h < H; h++) {
                size_t row = (l * (size_t)e->sequences + (size_t)sequences[t]) * (size_t)G + (size_t)(h / (H / G));
                attend(y + (size_t)t * HK + h * K, u + (size_t)t * qkv + h * K, e->keys + row * SK, e->values + row * SK,
                       e->scores + (size_t)t * (size_t)S, slots[t] + 1, K, S, c->linear);
            }
        (void)work;
        multiply(e, n, y, e->w.wo + l * DD * HK, T, DD, HK);
        for (int i = 0; i < T * D; i++) x[i] += n[i];
        if (!F) continue;

        // feed-forward: silu(gate) * up
        for (int t = 0; t < T; t++) rmsnorm(n + t * D, x + t * D, e->w.norm2 + l * DD, D, c->norm_eps);
        multiply(e, u, n, e->w.w13 + l * 2 * FF * DD, T, 2 * FF, DD);
        for (int t = 0; t < T; t++)
            for (int f = 0; f < F; f++) {
                float gate = u[(size_t)t * 2 * FF + (size_t)f], up = u[((size_t)t * 2 + 1) * FF + (size_t)f];
                y[(size_t)t * FF + (size_t)f] = gate / (1 + expf(-gate)) * up;
            }
        multiply(e, n, y, e->w.w2 + l * DD * FF, T, DD, FF);
        for (int i = 0; i < T * D; i++) x[i] += n[i];
    }
}

// Check all tokens before any is run.  Counts them into their sequences and out again.
static int32_t check_tokens(mt_engine *e, int32_t count, const int32_t *tokens, const int32_t *sequences,
                            const int32_t *positions)
{
    int32_t status = MT_OK, i = 0;
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

int32_t mt_forward(mt_engine *e, int32_t count, const int32_t *tokens, const int32_t *sequences, const int32_t *positions,
                   const uint8_t *wanted, float *logits)
{
    int32_t status = check_tokens(e, count, tokens, sequences, positions);
    if (status) return status;
    const size_t D = (size_t)e->config.dim, V = (size_t)e->config.vocab;
    for (int32_t start = 0; start < count; start += CHUNK) {
        int T = count - start < CHUNK ? count - start : CHUNK;
        int32_t sequence[CHUNK], slot[CHUNK], position[CHUNK];
        for (int t = 0; t < T; t++) {
            sequence[t] = sequences ? sequences[start + t] : 0;
            slot[t] = e->length[sequence[t]]++;
            position[t] = positions ? positions[start + t] : slot[t];
        }
        forward_chunk(e, T, tokens + start, sequence, slot, position);

        int rows = 0;                   // only the rows that somebody wants meet the head
        for (int t = 0; t < T && logits; t++)
            if (!wanted || wanted[start + t])
                rmsnorm(e->n + (size_t)rows++ * D, e->x + (size_t)t * D, e->w.norm_f, e->config.dim, e->config.norm_eps);
        if (rows) multiply(e, logits, e->n, e->w.head, rows, V, D);
        if (logits) logits += (size_t)rows * V;
    }
    return MT_OK;
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
                return fail(e, MT_USAGE, "the prompt's byte %lld, '%c', is not in the model's vocabulary", (long long)i, byte);
            return fail(e, MT_USAGE, "the prompt's byte %lld, 0x%02x, is not in the model's vocabulary", (long long)i, byte);
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

int32_t mt_sample(mt_engine *e, const float *logits, const mt_sampling *how, uint64_t *random, int32_t *token)
{
    int32_t V = e->config.vocab, best = 0;
    if (!V) return fail(e, MT_USAGE, "no model is loaded");
    if (!(how->temperature >= 0 && how->temperature < HUGE_VALF && how->top_k >= 0 && how->top_p > 0 && how->top_p <= 1 &&
          how->min_p >= 0 && how->min_p <= 1))
        return fail(e, MT_USAGE, "temperature %g, top-k %d, top-p %g or min-p %g is out of range", (double)how->temperature,
                    how->top_k, (double)how->top_p, (double)how->min_p);
    for (int32_t i = 0; i < V; i++) {
        if (!isfinite(logits[i]))
            return fail(e, MT_RUN, "the logit of token %d is not finite: the model's weights have overflowed", i);
        if (logits[i] > logits[best]) best = i;
    }
    *token = best;
    if (how->temperature == 0) return MT_OK;

    double *weight = e->weight;         // probability up to a common factor, 1 for the best
    int32_t *heap = e->order;
    for (int32_t i = 0; i < V; i++) {
        weight[i] = exp(((double)logits[i] - (double)logits[best]) / (double)how->temperature);
        heap[i] = i;
    }
    double total = 0;
    for (int32_t i = 0; i < V; i++) total += weight[i];

    // take tokens from the likeliest down until top-k, top-p or min-p says stop; they gather behind the shrinking heap
    int32_t size = V;
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
        *token = heap[i];
        if (sum > target) break;
    }
    return MT_OK;
}

// ---------------------------------------------------------------------------------------------------------------------
// Command line.  Exit codes: 0 fine, 1 usage, 2 bad file, 3 no memory, 4 failed while running.

#ifndef MINITRON_LIB

static const char USAGE[] =
    "usage: run MODEL [-i PROMPT] [options]\n"
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
    "  --info    say what the model is, and stop\n"
    "  -h        this text\n"
    "\n"
    "  ./run model.bin -i \"123+456=\"\n"
    "  ./run model.bin -t 0.8 -n 200 -s 7 < /dev/null\n"
    "  echo \"123+456=\" | ./run model.bin -i -\n"
    "\n"
    "A prompt that comes from a file or standard input loses its last newline, if the model has no such token.\n"
    "exit codes: 0 fine, 1 usage, 2 bad model file, 3 no memory, 4 failed while running\n";

typedef struct {
    const char *model, *prompt, *file;
    mt_sampling sampling;
    int has_temperature, info, help, threads, steps;    // steps 0: no limit
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

// -> 1, or 0 after a complaint
static int read_options(int argc, char **argv, options *o)
{
    *o = (options){.sampling = {.top_p = 1}, .threads = 1};
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        double number = 0;
        int good = 1;
        if (!strcmp(flag, "--info")) { o->info = 1; continue; }
        if (!strcmp(flag, "-h") || !strcmp(flag, "--help")) { o->help = 1; return 1; }
        if (flag[0] != '-') {
            if (o->model) { fprintf(stderr, "run: %s: one model at a time (the first is %s)\n", flag, o->model); return 0; }
            o->model = flag;
            continue;
        }
        if (strlen(flag) != 2 || !strchr("ifntkpmsj", flag[1])) {
            fprintf(stderr, "run: %s: no such option; ./run -h lists them\n", flag);
            return 0;
        }
        if (!value) { fprintf(stderr, "run: %s: its value is missing\n", flag); return 0; }
        i++;
        switch (flag[1]) {
        case 'i': o->prompt = value; break;
        case 'f': o->file = value; break;
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
    if (o->prompt && o->file) { fprintf(stderr, "run: -i and -f are both prompts: give one\n"); return 0; }
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

// The prompt's bytes, freshly allocated.  -> MT_OK or the exit code after a complaint
static int read_prompt(mt_engine *e, const options *o, char **text, int64_t *size)
{
    const char *name = o->file ? o->file : "standard input";
    *size = 0;
    *text = NULL;
    if (o->file || (o->prompt && !strcmp(o->prompt, "-"))) {
        FILE *stream = o->file ? fopen(o->file, "rb") : stdin;
        if (stream) *text = read_all(stream, size);
        int reason = errno;
        if (stream && stream != stdin) fclose(stream);
        if (!*text) { fprintf(stderr, "run: %s: %s\n", name, strerror(reason)); return reason == ENOMEM ? MT_MEMORY : MT_USAGE; }
        if (*size && (*text)[*size - 1] == '\n' && find_piece(e, "\n", 1) < 0) --*size;
    } else {
        *size = o->prompt ? (int64_t)strlen(o->prompt) : 0;
        *text = malloc((size_t)*size + 1);
        if (!*text) return complain(MT_MEMORY, "no memory for the prompt");
        if (*size) memcpy(*text, o->prompt, (size_t)*size);
    }
    return MT_OK;
}

static void print_info(const mt_engine *e, const char *path)
{
    const mt_config *c = &e->config;
    printf("%s: %llu parameters, float32\n", path, (unsigned long long)e->parameters);
    printf("dim %d, layers %d, heads %d of width %d, key/value heads %d, ffn %d, vocabulary %d, context %d tokens\n", c->dim,
           c->layers, c->heads, c->head_dim, c->kv_heads, c->ffn_dim, c->vocab, c->context);
    printf("%s attention, rope theta %g, norm eps %g, %s head%s\n", c->linear ? "linear" : "softmax", (double)c->rope_theta,
           (double)c->norm_eps, c->tied ? "tied" : "untied", c->qk_norm ? ", norms on queries and keys" : "");
    printf("temperature %g unless -t is given\n%s\n", (double)c->temperature, e->provenance);
}

// Print the prompt and what follows it, token by token.
static int generate(mt_engine *e, const options *o, const char *text, int64_t size)
{
    const mt_config *c = &e->config;
    int64_t count = 0;
    uint64_t random = o->seed;
    int32_t token = c->bos, length = 0;
    int32_t *tokens = malloc(((size_t)size + 1) * sizeof *tokens);
    float *logits = malloc((size_t)c->vocab * sizeof *logits);
    uint8_t *wanted = calloc((size_t)size + 1, 1);
    int status = !tokens || !logits || !wanted ? fail(e, MT_MEMORY, "no memory for the prompt") : MT_OK;

    if (!status) status = mt_encode(e, text, size, tokens, &count);
    if (!status && count == 0 && c->bos < 0)
        status = fail(e, MT_USAGE, "this model needs a prompt: give one with -i (--info shows an example)");
    if (!status && count == 0) tokens[count++] = token;
    if (!status && count > c->context)
        status = fail(e, MT_RUN, "the prompt is %lld tokens, the model's context %d: shorten it", (long long)count, c->context);
    if (!status) status = mt_reset(e, 1, c->context);
    if (!status) {
        wanted[count - 1] = 1;
        status = mt_forward(e, (int32_t)count, tokens, NULL, NULL, wanted, logits);
        fwrite(text, 1, (size_t)size, stdout);
    }
    for (int step = 0; !status && (o->steps == 0 || step < o->steps); step++) {
        status = mt_sample(e, logits, &o->sampling, &random, &token);
        if (status || token == c->eos) break;
        const char *bytes = mt_piece(e, token, &length);
        fwrite(bytes, 1, (size_t)length, stdout);
        fflush(stdout);
        if (e->length[0] == e->context) break;
        status = mt_forward(e, 1, &token, NULL, NULL, NULL, logits);
    }
    if (status) complain(status, mt_error(e));
    else putchar('\n');
    free(tokens);
    free(logits);
    free(wanted);
    return status;
}

// Whether all that was printed has arrived, e.g. on a disk that is not full.
static int finish(int status)
{
    if ((fflush(stdout) || ferror(stdout)) && !status) return complain(MT_RUN, "standard output cannot be written");
    return status;
}

int main(int argc, char **argv)
{
    options o;
    if (!read_options(argc, argv, &o)) return MT_USAGE;
    if (o.help) {
        fputs(USAGE, stdout);
        return finish(MT_OK);
    }
    mt_engine *e;
    char *text = NULL;
    int64_t size;
    int status = mt_open(o.model, &e);
    if (status) {
        complain(status, mt_error(e));
    } else if (o.info) {
        print_info(e, o.model);
    } else {
        mt_set_threads(e, o.threads);
        if (!o.has_temperature) o.sampling.temperature = e->config.temperature;
        status = read_prompt(e, &o, &text, &size);
        if (!status) status = generate(e, &o, text, size);
    }
    free(text);
    mt_close(e);
    return finish(status);
}

#endif
