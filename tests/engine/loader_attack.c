/* loader_attack.c: run.c's loader against hostile files, in one process and so fast enough for
sanitizers.

   usage: loader_attack MODEL...        prints "N refused, N accepted", or the attack that
   succeeded, with exit code 1

   Every attack loads a changed file.  As it is, a changed file has to be refused.  With its
   checksum repaired it may be accepted, and is then used: nothing may crash, whatever the file
   says.  The sanitizers watch every access; this file counts every allocation, so that none may be
   lost, and none be larger than the file can justify.  It also stands between run.c and the files,
   to make opening and reading fail. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t allocated;              // bytes since it was last set to 0
static int64_t living;                  // allocations that have not been freed
// fails when it is counted down to 0; at or below 0 from the start: never
static int64_t failing;

static int allocate(uint64_t size)
{
    // which no attack needs, and sanitizers call an error
    if (size > UINT64_C(1) << 28) return 0;
    allocated += size;
    if (failing > 0 && --failing == 0) return 0;
    living++;
    return 1;
}

static void *counted_malloc(size_t size) { return allocate(size) ? malloc(size) : NULL; }

static void *counted_calloc(size_t count, size_t size)
{
    return allocate(count * size) ? calloc(count, size) : NULL;
}

static void *counted_aligned_alloc(size_t align, size_t size)
{
    return allocate(size) ? aligned_alloc(align, size) : NULL;
}

static void counted_free(void *memory) { living -= memory != NULL; free(memory); }

static uint64_t readable = UINT64_MAX;  // bytes until a file ends early
static int broken;                      // what the end then is: 0 a file that was cut, 1 an error
static int locked;                      // no file can be opened

static FILE *watched_fopen(const char *path, const char *mode)
{
    if (!locked) return fopen(path, mode);
    errno = EACCES;
    return NULL;
}

static size_t watched_fread(void *to, size_t size, size_t count, FILE *file)
{
    uint64_t bytes = size * count < readable ? size * count : readable;
    readable -= bytes;
    return fread(to, 1, bytes, file) / size;
}

static int watched_ferror(FILE *file) { errno = broken ? EIO : 0; return broken || ferror(file); }

#define malloc counted_malloc
#define calloc counted_calloc
#define aligned_alloc counted_aligned_alloc
#define free counted_free
#define fopen watched_fopen
#define fread watched_fread
#undef ferror
#define ferror watched_ferror
#define MINITRON_LIB
#include "../../run.c"
#undef malloc
#undef calloc
#undef aligned_alloc
#undef free
#undef fopen
#undef fread
#undef ferror

static long refused, accepted;
static char attack[100];                // what is being tried
// where results go that nobody needs, so that the compiler cannot leave out the reads
static volatile uint64_t sink;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            printf("%s: line %d: not %s\n", attack, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

static void check_message(const char *message)
{
    CHECK(*message && !strchr(message, '\n'));
}

enum { MANY = CHUNK + 3, FEW = 7, PROMPTS = 2 * WINDOW + 1, MOST = 4 };

// `count` prompts of 1 to 3 tokens, as far as the context has room.  -> status
static int32_t continue_prompts(mt_engine *e, int32_t count)
{
    const mt_config *c = mt_get_config(e);
    const mt_sampling how = {1, 0, 1, 0};
    int32_t prompts[3 * PROMPTS] = {0}, lengths[PROMPTS] = {0}, stop[PROMPTS] = {0};
    int32_t tokens[PROMPTS * MOST], generated[PROMPTS], total_length = 0;
    uint64_t random[PROMPTS];
    for (int32_t i = 0; i < count; i++) {
        lengths[i] = 1 + (c->context < 3 ? 0 : i % 3);
        total_length += lengths[i];
        stop[i] = i % 4 - 1;
        random[i] = (uint64_t)i;
    }
    for (int32_t i = 0; i < total_length; i++) prompts[i] = i % c->vocab;
    int32_t status = mt_generate(e, count, prompts, lengths, MOST, stop, &how, random, tokens,
                                 generated);
    for (int32_t i = 0; i < count && status == MT_OK; i++) {
        CHECK(generated[i] >= 0 && generated[i] <= MOST &&
              lengths[i] + generated[i] <= c->context + 1);
        for (int j = 0; j < generated[i]; j++) {
            int32_t token = tokens[i * MOST + j];
            CHECK(token >= 0 && token < c->vocab && token != c->eos && token != stop[i]);
        }
    }
    return status;
}

// A fork beside its engine: equal bits for equal tokens, where they are `finite`.  -> status
static int32_t use_fork(mt_engine *e, int finite)
{
    const size_t V = (size_t)e->config.vocab;
    const int32_t tokens[] = {0, 1, 0};
    mt_engine *both[] = {e, NULL};
    int32_t status = mt_fork(e, &both[1]);
    float *logits = calloc(2 * 3 * V, sizeof *logits);
    for (size_t i = 0; i < 2 && !status; i++) {
        status = mt_reset(both[i], 1, 3);
        if (!status) status = mt_forward(both[i], 3, tokens, NULL, NULL, NULL, logits + i * 3 * V);
        if (!status) CHECK(mt_length(both[i], 0) == 3);
    }
    if (!status && finite) CHECK(!memcmp(logits, logits + 3 * V, 3 * V * sizeof *logits));
    for (size_t i = 0; i < 2 && !status; i++) status = continue_prompts(both[i], 1);
    const char *reason = mt_error(both[1]);
    // the fork's, or its own
    if (status && *reason) snprintf(e->error, sizeof e->error, "%s", reason);
    mt_close(both[1]);
    free(logits);
    return status;
}

static void use_text(mt_engine *e)
{
    char text[40];
    int32_t encoded[sizeof text], length;
    uint64_t random = 1, size_of_provenance, sum = 0;
    int64_t count;
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)(draw(&random) * 256 - 128);
    for (int64_t size = 0; size <= (int64_t)sizeof text; size++) {
        int32_t status = mt_encode(e, text, size, encoded, &count);
        CHECK(count <= size && (status == MT_OK || status == MT_USAGE));
    }
    const char *provenance = mt_get_provenance(e, &size_of_provenance);
    for (uint64_t i = 0; i < size_of_provenance; i++) sum += (uint64_t)provenance[i];
    for (int32_t token = -1; token <= e->config.vocab; token++) {
        const char *bytes = mt_piece(e, token, &length);
        CHECK((bytes == NULL) == (token < 0 || token == e->config.vocab));
        for (int i = 0; bytes && i < length; i++) sum += (uint64_t)bytes[i];
    }
    sink = sum;
}

// MT_RUN: weights that overflow
static int is_result(int32_t status) { return status == MT_OK || status == MT_RUN; }

// All that a program may do with a model that was accepted, with MANY tokens or FEW.
static void use(mt_engine *e, int many)
{
    const mt_config *c = mt_get_config(e);
    const int32_t count = many ? MANY : FEW;
    static int32_t tokens[MANY], sequences[MANY], positions[MANY], targets[MANY], zeros[MANY];
    static float logprobs[MANY];
    int32_t token;
    for (int i = 0; i < count; i++) {
        tokens[i] = i * 7 % c->vocab;
        sequences[i] = i % 2;
        positions[i] = i == 5 ? INT32_MAX : i;
        targets[i] = i % 3 ? i % c->vocab : -1;
    }
    mt_set_threads(e, 2);
    float *logits = malloc((size_t)count * (size_t)c->vocab * sizeof *logits);
    float *weights = malloc((size_t)count * (size_t)count * sizeof *weights);
    CHECK(mt_reset(e, 2, count) == MT_OK && mt_length(e, 1) == 0 && mt_length(e, 2) == -1);
    CHECK(mt_forward(e, count, tokens, sequences, positions, NULL, logits) == MT_OK);
    if (c->own_positions) {     // such a model wants them; then it is used as any other
        CHECK(mt_forward(e, 1, tokens, NULL, NULL, NULL, logits) == MT_USAGE);
        CHECK(mt_score(e, 1, tokens, NULL, NULL, targets, logprobs) == MT_USAGE);
        CHECK(mt_attention(e, 1, tokens, NULL, NULL, 0, 0, weights) == MT_USAGE);
        CHECK(continue_prompts(e, 1) == MT_USAGE);
        CHECK(mt_reset(e, 2, count) == MT_OK);
        CHECK(mt_forward(e, count, tokens, sequences, positions, NULL, logits) == MT_OK);
        e->config.own_positions = 0;
    }
    CHECK(mt_length(e, 0) + mt_length(e, 1) == count);
    CHECK(mt_rewind(e, 0, mt_length(e, 0) + 1) == MT_USAGE && mt_rewind(e, 0, 1) == MT_OK &&
          mt_rewind(e, 1, 0) == MT_OK);
    CHECK(is_result(mt_score(e, count - 1, tokens, zeros, positions, targets, logprobs)) &&
          mt_length(e, 0) == count);
    CHECK(mt_score(e, 1, tokens, NULL, positions, targets, logprobs) == MT_RUN &&
          mt_length(e, 0) == count);
    CHECK(mt_rewind(e, 0, 0) == MT_OK);
    CHECK(mt_attention(e, count, tokens, NULL, positions, c->layers - 1, c->heads - 1,
                       weights) == MT_OK);
    const int32_t wrong[][2] = {{c->layers, 0}, {-1, 0}, {0, c->heads}, {0, -1}};
    for (int i = 0; i < 4; i++) {
        const int32_t layer = wrong[i][0], head = wrong[i][1];
        CHECK(mt_attention(e, 1, tokens, NULL, positions, layer, head, weights) == MT_USAGE);
    }
    for (int i = 0; i < count; i++)
        for (int j = i + 1; j < count; j++) CHECK(weights[i * count + j] == 0);

    const mt_sampling how[] = {{0, 0, 1, 0}, {1, 0, 1, 0}, {0.5f, 3, 0.9f, 0.01f}};
    uint64_t random = 1;
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        int32_t status = mt_sample(e, logits, &how[i], &random, &token);
        CHECK(status == MT_RUN || (status == MT_OK && token >= 0 && token < c->vocab));
    }
    free(logits);
    free(weights);
    if (c->own_positions) {                 // the engine cannot count them
        CHECK(continue_prompts(e, 1) == MT_USAGE);
    } else {
        CHECK(is_result(continue_prompts(e, 1)));
        CHECK(!many || is_result(continue_prompts(e, PROMPTS)));
        CHECK(is_result(use_fork(e, many)));
    }
    use_text(e);
}

// After a failure every function refuses, or has nothing to give.
static void use_refused(mt_engine *e)
{
    const mt_sampling how = {0, 0, 1, 0};
    const float logit = 0;
    const char *nothing = "";
    int32_t zero = 0, one = 1, size;
    uint64_t random = 0, length;
    int64_t count;
    float result;
    CHECK(mt_reset(e, 1, 1) == MT_USAGE && mt_length(e, 0) == -1 && mt_rewind(e, 0, 0) == MT_USAGE);
    CHECK(mt_forward(e, 1, &zero, NULL, NULL, NULL, NULL) == MT_USAGE);
    CHECK(mt_score(e, 1, &zero, NULL, NULL, &zero, &result) == MT_USAGE);
    CHECK(mt_attention(e, 1, &zero, NULL, NULL, 0, 0, &result) == MT_USAGE);
    CHECK(mt_sample(e, &logit, &how, &random, &zero) == MT_USAGE);
    CHECK(mt_generate(e, 1, &zero, &one, 1, NULL, &how, &random, &zero, &size) == MT_USAGE);
    mt_engine *fork;
    CHECK(mt_fork(e, &fork) == MT_USAGE && *mt_error(fork));
    mt_close(fork);
    CHECK(mt_encode(e, nothing, 0, &zero, &count) == MT_OK &&
          mt_encode(e, "a", 1, &zero, &count) == MT_USAGE);
    CHECK(mt_piece(e, 0, &size) == NULL);
    mt_get_provenance(e, &length);
    CHECK(length == 0);
}

// what may happen to a file, and with how many tokens it is then used
enum { REFUSED, EITHER, MANY_TOKENS };

// Load a copy of exactly this size, so that the sanitizer sees the first byte read beyond it.
static void try_file(const uint8_t *bytes, uint64_t size, int how)
{
    uint8_t *copy = malloc(size);
    memcpy(copy, bytes, size);
    allocated = 0;
    mt_engine *e;
    int32_t status = mt_load(copy, size, &e);
    free(copy);

    CHECK(status == MT_FILE || (how != REFUSED && status == MT_OK));
    CHECK(allocated < size + (1 << 20));
    if (status) {
        check_message(mt_error(e));
        use_refused(e);
        refused++;
    } else {
        // the file, some bytes per token, and one tile
        const uint64_t token = 2 * sizeof(piece) + sizeof(double) + sizeof(int32_t);
        cursor at = {.int8 = e->config.int8};
        const params p = e->p;
        place_tensors(e, &at);
        e->p = p;
        CHECK(at.tile <= at.bytes);
        CHECK(allocated <= sizeof *e + size + 4 * TILE + token * (
            uint64_t)e->config.vocab + at.tile);
        use(e, how == MANY_TOKENS);
        accepted++;
    }
    mt_close(e);
    CHECK(living == 0);
}

static void repair(uint8_t *bytes, uint64_t size)
{
    uint64_t a = 0, b = 0, word;
    for (uint64_t at = 0; at < size; at += 8) {
        memcpy(&word, bytes + at, 8);
        if (at == 240 || at == 248) continue;
        a += word;
        b += a;
    }
    memcpy(bytes + 240, &a, 8);
    memcpy(bytes + 248, &b, 8);
}

static void cut_and_grow(const uint8_t *model, uint64_t size)
{
    uint8_t *bytes = calloc(size + 128, 1);
    for (uint64_t length = 0; length < size + 128; length++) {
        if (length == size) continue;
        snprintf(attack, sizeof attack, "%llu bytes", (unsigned long long)length);
        memcpy(bytes, model, size);
        try_file(bytes, length, REFUSED);
        if (length < HEADER || length % 8) continue;
        memcpy(bytes + 96, &length, 8);         // now the header agrees with the size
        repair(bytes, length);
        try_file(bytes, length, REFUSED);
    }
    free(bytes);
}

static void turn_every_bit(const uint8_t *model, uint64_t size)
{
    uint8_t *bytes = malloc(size);
    uint64_t tensors_start = size - read_u64(model + 88);
    for (uint64_t bit = 0; bit < 8 * tensors_start; bit++) {
        snprintf(attack, sizeof attack, "bit %llu of byte %llu", (unsigned long long)bit % 8,
                 (unsigned long long)bit / 8);
        memcpy(bytes, model, size);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        try_file(bytes, size, REFUSED);
        repair(bytes, size);
        try_file(bytes, size, EITHER);
    }
    free(bytes);
}

// All pairs of `count` fields of `width` bytes from byte `start` on, each with all pairs of values.
static void set_pairs(const uint8_t *model, uint64_t size, int start, int width, int count,
                      const uint64_t *values, int number)
{
    uint8_t *bytes = malloc(size);
    for (int pair = 0; pair < count * count; pair++)
        for (int choice = 0; choice < number * number; choice++) {
            int one = start + pair / count * width, other = start + pair % count * width;
            uint64_t v = values[choice / number], w = values[choice % number];
            snprintf(attack, sizeof attack, "byte %d: %llu, byte %d: %llu", one,
                     (unsigned long long)v, other,
                     (unsigned long long)w);
            memcpy(bytes, model, size);
            memcpy(bytes + one, &v, (size_t)width);     // little-endian, as the file is
            memcpy(bytes + other, &w, (size_t)width);
            repair(bytes, size);
            try_file(bytes, size, EITHER);
        }
    free(bytes);
}

// A size that the header confirms and no memory can hold; only the header is there to be read.
static void claim_sizes(const uint8_t *model, uint64_t size)
{
    uint8_t bytes[HEADER];
    memcpy(bytes, model, HEADER);
    for (int bit = 28; bit < 64; bit++) {
        mt_engine *e;
        uint64_t tokenizer = (uint64_t)1 << bit, all = size - align64(
            read_u64(model + 72)) + tokenizer;
        snprintf(attack, sizeof attack, "a tokenizer block of 2^%d bytes", bit);
        memcpy(bytes + 72, &tokenizer, 8);
        memcpy(bytes + 96, &all, 8);
        CHECK(mt_load(bytes, all, &e) == MT_MEMORY);
        check_message(mt_error(e));
        use_refused(e);
        mt_close(e);
        CHECK(living == 0);
    }
}

// All that asks for memory, after loading.  -> the first status that is not MT_OK
static int32_t ask_for_memory(mt_engine *e)
{
    int32_t token = 0;
    float logprob;
    mt_set_threads(e, 2);
    int32_t status = mt_reset(e, 2, 9);
    if (!status) status = mt_score(e, 1, &token, NULL, NULL, &token, &logprob);
    if (!status) status = continue_prompts(e, 1);
    if (!status) status = continue_prompts(e, PROMPTS);
    if (!status) status = use_fork(e, 0);
    return status;
}

// Let each allocation in turn fail, of loading from a file or from memory and then of all that asks
// for more.
static void run_out_of_memory(const char *path, const uint8_t *model, uint64_t size)
{
    for (int from_memory = 0; from_memory < 2; from_memory++)
        for (int64_t nth = 1, succeeded = 0; !succeeded; nth++) {
            snprintf(attack, sizeof attack, "allocation %lld", (long long)nth);
            int32_t token = 0;
            mt_engine *e;
            failing = nth;
            int32_t status = from_memory ? mt_load(model, size, &e) : mt_open(path,
                    &e), loaded = status == MT_OK;
            if (loaded) status = ask_for_memory(e);
            succeeded = failing > 0;            // it has not come to the nth
            failing = 0;
            CHECK(status == (succeeded ? MT_OK : MT_MEMORY));
            CHECK((e == NULL) == (nth == 1));
            if (status) check_message(mt_error(e));
            if (status && loaded) {             // it can be asked for again
                CHECK(mt_length(e, 0) == -1 || mt_length(e, 0) <= 9);
                CHECK(continue_prompts(e, 1) == MT_OK && mt_reset(e, 1, 1) == MT_OK);
                CHECK(mt_forward(e, 1, &token, NULL, NULL, NULL, NULL) == MT_OK);
            } else if (status && e) use_refused(e);
            mt_close(e);
            CHECK(living == 0);
        }
}

// Calls with wrong arguments are refused, and change nothing.
static void refuse_calls(const uint8_t *model, uint64_t size)
{
    const mt_sampling good = {0, 0, 1, 0};
    const mt_sampling bad[] = {{-1, 0, 1, 0}, {HUGE_VALF, 0, 1, 0}, {NAN, 0, 1, 0}, {1, -1, 1, 0},
                               {1, 0, 0, 0}, {1, 0, 2, 0},
                               {1, 0, 1, -1}, {1, 0, 1, 2}};
    const int32_t wrong[][3] = {{-1, 0, 0}, {INT32_MAX, 0, 0}, {0, -1, 0}, {0, 2, 0},
                                {0, 0, -1}}, none = -1;
    const float logits[256] = {0};
    int32_t token = 0, length = 1, generated = -1;
    uint64_t random = 0;
    float logprob = 1;
    mt_engine *e;
    snprintf(attack, sizeof attack, "calls");
    CHECK(mt_load(NULL, 0, &e) == MT_FILE);
    mt_close(e);
    CHECK(mt_load(model, size, &e) == MT_OK && mt_reset(e, 2, 4) == MT_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const int32_t tokens[] = {0, wrong[i][0], 0}, sequences[] = {1, wrong[i][1],
                1}, positions[] = {0, wrong[i][2], 0};
        CHECK(mt_forward(e, 3, tokens, sequences, positions, NULL, NULL) == MT_USAGE);
        CHECK(mt_length(e, 0) == 0 && mt_length(e, 1) == 0);
    }
    CHECK(mt_score(e, 1, &token, NULL, NULL, &e->config.vocab, &logprob) == MT_USAGE &&
          mt_length(e, 0) == 0);
    CHECK(mt_score(e, 1, &token, NULL, NULL, &none, &logprob) == MT_OK && logprob == 1 &&
          mt_length(e, 0) == 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(mt_sample(e, logits, &bad[i], &random, &token) == MT_USAGE);
        CHECK(mt_generate(e, 1, &token, &length, 1, NULL, &bad[i], &random, &token,
                          &generated) == MT_USAGE);
    }
    CHECK(random == 0 && token == 0);
    CHECK(mt_generate(e, 1, &token, &length, -1, NULL, &good, &random, &token,
                      &generated) == MT_USAGE);
    CHECK(mt_generate(e, 1, &token, &length, 0, NULL, &good, &random, &token,
                      &generated) == MT_OK && generated == 0);
    CHECK(mt_generate(e, 0, &token, &length, 1, NULL, &good, &random, &token, &generated) == MT_OK);
    CHECK(mt_generate(e, -1, &token, &length, 1, NULL, &good, &random, &token,
                      &generated) == MT_USAGE);
    CHECK(mt_forward(e, -1, &token, NULL, NULL, NULL, NULL) == MT_USAGE);
    CHECK(mt_attention(e, -1, &token, NULL, NULL, 0, 0, &logprob) == MT_USAGE && logprob == 1);
    static const int32_t tokens[4 * CHUNK + 1];
    static const uint8_t wanted[4 * CHUNK + 1] = {1};
    float *row = malloc(sizeof *row * (size_t)e->config.vocab);
    CHECK(mt_reset(e, 1, 4 * CHUNK + 1) == MT_OK);
    CHECK(mt_forward(e, 4 * CHUNK + 1, tokens, NULL, NULL, NULL, NULL) == MT_OK);      // no logits
    CHECK(mt_rewind(e, 0, 0) == MT_OK);
    CHECK(mt_forward(e, 4 * CHUNK + 1, tokens, NULL, NULL, wanted, row) == MT_OK);     // one row
    CHECK(mt_length(e, 0) == 4 * CHUNK + 1);
    CHECK(mt_reset(e, 2, 4) == MT_OK && mt_forward(e, 1, &token, NULL, NULL, NULL, NULL) == MT_OK);
    free(row);
    for (length = 0; length < 20; length += 10)
        CHECK(mt_generate(e, 1, &token, &length, 1, NULL, &good, &random, &token,
                          &generated) == MT_USAGE);
    CHECK(mt_length(e, 0) == 1);                // none of them has reset the engine
    CHECK(continue_prompts(e, PROMPTS) == MT_OK && use_fork(e, 1) == MT_OK);    // on one thread
    // as if it were large, which only decides how many prompts run at once
    e->parameters = MT_SMALL;
    mt_set_threads(e, 2);
    CHECK(continue_prompts(e, PROMPTS) == MT_OK && use_fork(e, 1) == MT_OK);
    mt_close(e);
    CHECK(living == 0);
}

// Weights of any bits, and weights so large that sums overflow
static void change_weights(const uint8_t *model, uint64_t size)
{
    uint8_t *bytes = malloc(size);
    uint64_t start = size - read_u64(model + 88), random = 0;
    for (int time = 0; time < 20; time++) {
        snprintf(attack, sizeof attack, "weights %d", time);
        memcpy(bytes, model, size);
        for (uint64_t at = start; at < size; at += 4) {
            float weight = read_f32(bytes + at) * 1000;
            uint32_t bits = (uint32_t)(draw(&random) * 0x1p32);
            memcpy(bytes + at, time ? (void *)&bits : (void *)&weight, 4);
        }
        repair(bytes, size);
        const long before = accepted;
        try_file(bytes, size, EITHER);
        CHECK(accepted == before + 1);
    }
    free(bytes);
}

// A failed mt_reset leaves no room at all, and only a new one helps.
static void refuse_room(const uint8_t *model, uint64_t size)
{
    const int32_t bad[][2] = {{0, 1}, {1, 0}, {-1, 5}, {INT32_MAX, INT32_MAX}, {1, INT32_MAX},
                              {INT32_MAX, 1}};
    int32_t token = 0;
    mt_engine *e;
    snprintf(attack, sizeof attack, "room");
    CHECK(mt_load(model, size, &e) == MT_OK);
    mt_set_threads(e, INT32_MAX);
    CHECK(e->threads == MAX_THREADS);
    mt_set_threads(e, INT32_MIN);
    CHECK(e->threads == 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mt_set_threads(e, 1 + (int32_t)i % 2);
        CHECK(mt_reset(e, 1, 2) == MT_OK && mt_reset(e, 1, 2) == MT_OK &&
              mt_reset(e, 1, 3) == MT_OK);
        mt_set_threads(e, 3);
        CHECK(mt_reset(e, 1, 3) == MT_OK && e->team == 3);
        const int usage = bad[i][0] < 1 || bad[i][1] < 1;
        CHECK(mt_reset(e, bad[i][0], bad[i][1]) == (usage ? MT_USAGE : MT_MEMORY));
        check_message(mt_error(e));
        CHECK(mt_length(e, 0) == (usage ? 0 : -1) && mt_length(e, -1) == -1 &&
              mt_rewind(e, 0, -1) == MT_USAGE);
        CHECK(mt_forward(e, 1, &token, NULL, NULL, NULL, NULL) == (usage ? MT_OK : MT_USAGE));
    }
    mt_close(e);
    mt_close(NULL);
    CHECK(!new_floats(0x1p80) && !new_floats(0x1p90) && !new_floats(0x1p50 + 1) &&
          !new_floats(0x1p40));
    float *none = new_floats(0);
    CHECK(none);
    counted_free(none);
    CHECK(living == 0);
}

static void expect_no_file(const char *path, const char *reason)
{
    mt_engine *e;
    snprintf(attack, sizeof attack, "%s", reason);
    CHECK(mt_open(path, &e) == MT_FILE && strstr(mt_error(e), path) && strstr(mt_error(e), reason));
    check_message(mt_error(e));
    use_refused(e);
    mt_close(e);
    CHECK(living == 0);
}

// A file that cannot be opened, or that ends or fails between its size being asked and its last
// byte being read.
static void fail_to_read(const char *path, uint64_t size)
{
    expect_no_file("/nowhere/at/all", strerror(ENOENT));
    expect_no_file("/", "not a regular file");
    locked = 1;
    expect_no_file(path, strerror(EACCES));
    locked = 0;
    for (uint64_t end = 0; end < size; end += 37)
        for (broken = 0; broken < 2; broken++) {
            readable = end;
            expect_no_file(path,
                           end < HEADER ? "" : broken ? strerror(
                               EIO) : "the file has become shorter");
        }
    readable = UINT64_MAX;
    broken = 0;
}

int main(int argc, char **argv)
{
    const uint64_t numbers[] = {0, 1, 1 << 15, 1 << 16, INT32_MAX, UINT32_MAX};
    for (int i = 1; i < argc; i++) {
        uint8_t *model = malloc(1 << 20);
        FILE *file = fopen(argv[i], "rb");
        uint64_t size = file ? fread(model, 1, 1 << 20, file) : 0;
        if (file) fclose(file);
        // sizes that end within a field, that together with another fill both blocks, and that wrap
        // when they are rounded up
        const uint64_t blocks = size - read_u64(model + 88) - HEADER;
        const uint64_t extents[] = {0, 1, 7, 8, 9, 12, 63, 64, blocks, blocks + 64, size - 64, size,
                                    (uint64_t)1 << 63,
                                    UINT64_MAX - 63, UINT64_MAX};
        long before = accepted;
        try_file(model, size, MANY_TOKENS);
        CHECK(accepted == before + 1);          // the file itself

        cut_and_grow(model, size);
        turn_every_bit(model, size);
        // version ... temperature
        set_pairs(model, size, 8, 4, 16, numbers, sizeof numbers / sizeof *numbers);
        // the sizes of the blocks and the file
        set_pairs(model, size, 72, 8, 4, extents, sizeof extents / sizeof *extents);
        claim_sizes(model, size);
        run_out_of_memory(argv[i], model, size);
        refuse_room(model, size);
        refuse_calls(model, size);
        change_weights(model, size);
        fail_to_read(argv[i], size);
        free(model);
    }
    printf("%ld refused, %ld accepted\n", refused, accepted);
    return 0;
}
