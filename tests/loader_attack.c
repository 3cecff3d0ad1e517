/* loader_attack.c: run.c's loader against hostile files, in one process and so fast enough for sanitizers.

   usage: loader_attack MODEL...        prints "N refused, N accepted", or the attack that succeeded, with exit code 1

   Every attack loads a changed file.  As it is, a changed file has to be refused.  With its checksum repaired it may be accepted,
   and is then used: nothing may crash, whatever the file says.  The sanitizers watch every access; this file counts
   every allocation, so that none may be lost, and none be larger than the file can justify. */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t allocated;              // bytes since it was last set to 0
static int64_t living;                  // allocations that have not been freed
static int64_t failing;                 // fails when it is counted down to 0; at or below 0 from the start: never

static int allocate(uint64_t size)
{
    allocated += size;
    if (failing > 0 && --failing == 0) return 0;
    living++;
    return 1;
}

static void *counted_malloc(size_t size) { return allocate(size) ? malloc(size) : NULL; }
static void *counted_calloc(size_t count, size_t size) { return allocate(count * size) ? calloc(count, size) : NULL; }
static void *counted_aligned_alloc(size_t align, size_t size) { return allocate(size) ? aligned_alloc(align, size) : NULL; }
static void counted_free(void *memory) { living -= memory != NULL; free(memory); }

#define malloc counted_malloc
#define calloc counted_calloc
#define aligned_alloc counted_aligned_alloc
#define free counted_free
#define MINITRON_LIB
#include "../run.c"
#undef malloc
#undef calloc
#undef aligned_alloc
#undef free

static long refused, accepted;
static char attack[100];                // what is being tried
static volatile uint64_t sink;          // where results go that nobody needs, so that the compiler cannot leave out the reads

#define CHECK(condition) \
    do { if (!(condition)) { printf("%s: line %d: not %s\n", attack, __LINE__, #condition); exit(1); } } while (0)

static void check_message(const char *message)
{
    CHECK(*message && !strchr(message, '\n'));
}

// All that a program may do with a model that was accepted.
static void use(mt_engine *e)
{
    enum { COUNT = CHUNK + 3 };
    const mt_config *c = mt_get_config(e);
    int32_t tokens[COUNT], sequences[COUNT], positions[COUNT], token, length;
    int64_t count;
    for (int i = 0; i < COUNT; i++) {
        tokens[i] = i * 7 % c->vocab;
        sequences[i] = i % 2;
        positions[i] = i == 5 ? INT32_MAX : i;
    }
    float *logits = malloc((size_t)COUNT * (size_t)c->vocab * sizeof *logits);
    CHECK(mt_reset(e, 2, COUNT) == MT_OK);
    CHECK(mt_forward(e, COUNT, tokens, sequences, positions, NULL, logits) == MT_OK);

    const mt_sampling how[] = {{0, 0, 1, 0}, {1, 0, 1, 0}, {0.5f, 3, 0.9f, 0.01f}};
    uint64_t random = 1;
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        int32_t status = mt_sample(e, logits, &how[i], &random, &token);
        CHECK(status == MT_RUN || (status == MT_OK && token >= 0 && token < c->vocab));
    }
    free(logits);

    char text[40];
    int32_t encoded[sizeof text];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)(draw(&random) * 256 - 128);
    for (int64_t size = 0; size <= (int64_t)sizeof text; size++) {
        int32_t status = mt_encode(e, text, size, encoded, &count);
        CHECK(count <= size && (status == MT_OK || status == MT_USAGE));
    }
    uint64_t sum = strlen(mt_get_provenance(e));
    for (token = -1; token <= c->vocab; token++) {
        const char *bytes = mt_piece(e, token, &length);
        CHECK((bytes == NULL) == (token < 0 || token == c->vocab));
        for (int i = 0; bytes && i < length; i++) sum += (uint64_t)bytes[i];
    }
    sink = sum;
}

// Load a copy of exactly this size, so that the sanitizer sees the first byte read beyond it.
static void try_file(const uint8_t *bytes, uint64_t size, int may_be_accepted)
{
    uint8_t *copy = malloc(size);
    memcpy(copy, bytes, size);
    allocated = 0;
    mt_engine *e = new_engine();
    int32_t status = load(e, copy, size);
    free(copy);

    CHECK(status == MT_FILE || (may_be_accepted && status == MT_OK));
    // the blocks, 44 bytes a token and 4 a channel of a head, all of them bounded by the file's size
    const mt_config *c = mt_get_config(e);
    CHECK(allocated <= sizeof *e + size + 44 * (uint64_t)c->vocab + 4 * (uint64_t)c->head_dim);
    if (status) {
        check_message(mt_error(e));
        refused++;
    } else {
        use(e);
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
        try_file(bytes, length, 0);
        if (length < HEADER || length % 8) continue;
        memcpy(bytes + 96, &length, 8);         // now the header agrees with the size
        repair(bytes, length);
        try_file(bytes, length, 0);
    }
    free(bytes);
}

static void turn_every_bit(const uint8_t *model, uint64_t size)
{
    uint8_t *bytes = malloc(size);
    uint64_t tensors_start = size - read_u64(model + 88);
    for (uint64_t bit = 0; bit < 8 * tensors_start; bit++) {
        snprintf(attack, sizeof attack, "bit %llu of byte %llu", (unsigned long long)bit % 8, (unsigned long long)bit / 8);
        memcpy(bytes, model, size);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        try_file(bytes, size, 0);
        repair(bytes, size);
        try_file(bytes, size, 1);
    }
    free(bytes);
}

// All pairs of `count` fields of `width` bytes from byte `start` on, each with all pairs of values.
static void set_pairs(const uint8_t *model, uint64_t size, int start, int width, int count, const uint64_t *values, int number)
{
    uint8_t *bytes = malloc(size);
    for (int pair = 0; pair < count * count; pair++)
        for (int choice = 0; choice < number * number; choice++) {
            int one = start + pair / count * width, other = start + pair % count * width;
            uint64_t v = values[choice / number], w = values[choice % number];
            snprintf(attack, sizeof attack, "byte %d: %llu, byte %d: %llu", one, (unsigned long long)v, other,
                     (unsigned long long)w);
            memcpy(bytes, model, size);
            memcpy(bytes + one, &v, (size_t)width);     // little-endian, as the file is
            memcpy(bytes + other, &w, (size_t)width);
            repair(bytes, size);
            try_file(bytes, size, 1);
        }
    free(bytes);
}

// Let each allocation in turn fail, of loading from a file or from memory and then making room.
static void run_out_of_memory(const char *path, const uint8_t *model, uint64_t size)
{
    for (int from_memory = 0; from_memory < 2; from_memory++)
        for (int64_t nth = 1, succeeded = 0; !succeeded; nth++) {
            snprintf(attack, sizeof attack, "allocation %lld", (long long)nth);
            int32_t token = 0;
            mt_engine *e;
            failing = nth;
            int32_t status = from_memory ? mt_load(model, size, &e) : mt_open(path, &e), loaded = status == MT_OK;
            if (loaded) status = mt_reset(e, 2, 9);
            succeeded = failing > 0;            // it has not come to the nth
            failing = 0;
            CHECK(status == (succeeded ? MT_OK : MT_MEMORY));
            CHECK((e == NULL) == (nth == 1));
            if (status) check_message(mt_error(e));
            if (status && loaded) {             // without room, nothing but to ask for it again
                CHECK(mt_forward(e, 1, &token, NULL, NULL, NULL, NULL) == MT_USAGE);
                CHECK(mt_reset(e, 2, 9) == MT_OK && mt_forward(e, 1, &token, NULL, NULL, NULL, NULL) == MT_OK);
            }
            mt_close(e);
            CHECK(living == 0);
        }
}

int main(int argc, char **argv)
{
    const uint64_t numbers[] = {0, 1, 1 << 15, 1 << 16, INT32_MAX, UINT32_MAX};
    for (int i = 1; i < argc; i++) {
        uint8_t *model = malloc(1 << 20);
        FILE *file = fopen(argv[i], "rb");
        uint64_t size = file ? fread(model, 1, 1 << 20, file) : 0;
        if (file) fclose(file);
        // sizes that end within a field, that together with another fill both blocks, and that wrap when they are rounded up
        const uint64_t blocks = size - read_u64(model + 88) - HEADER;
        const uint64_t extents[] = {0, 1, 7, 8, 9, 12, 63, 64, blocks, blocks + 64, size - 64, size, (uint64_t)1 << 63,
                                    UINT64_MAX - 63, UINT64_MAX};
        long before = accepted;
        try_file(model, size, 1);
        CHECK(accepted == before + 1);          // the file itself

        cut_and_grow(model, size);
        turn_every_bit(model, size);
        set_pairs(model, size, 16, 4, 11, numbers, sizeof numbers / sizeof *numbers);     // layers ... context, flags, bos, eos
        set_pairs(model, size, 72, 8, 4, extents, sizeof extents / sizeof *extents);      // the sizes of the blocks and the file
        run_out_of_memory(argv[i], model, size);
        free(model);
    }
    printf("%ld refused, %ld accepted\n", refused, accepted);
    return 0;
}
