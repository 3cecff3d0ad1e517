/* fuzz.h: run.c, and what its fuzz targets share: checks, a repaired checksum, and a mutator of
model files.

   A mutation that leaves the checksum or the sizes wrong is refused before it can show anything, so
   most are repaired. */
#define _POSIX_C_SOURCE 200809L
#define MINITRON_LIB
#include "../../run.c"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "line %d: not %s\n", __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

// libFuzzer calls the first two, and offers the third.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

static inline void write_u64(uint8_t *p, uint64_t value) { memcpy(p, &value, 8); }

static inline void repair_checksum(uint8_t *p, uint64_t size)
{
    uint64_t a = 0, b = 0;
    add_words(p, HEADER - 16, &a, &b);
    add_words(p + HEADER, size - HEADER, &a, &b);
    write_u64(p + HEADER - 16, a);
    write_u64(p + HEADER - 8, b);
}

// Sizes of the blocks that go with the dimensions and the file; whatever the others do not need is
// provenance.
static inline void repair_sizes(uint8_t *p, uint64_t size)
{
    mt_engine *e = calloc(1, sizeof *e);
    sizes s = {0};
    write_u64(p + 96, size);
    read_header(e, p, size, &s);
    if (e->parameters) {                        // the dimensions are within their limits
        cursor at = {.int8 = e->config.int8};
        place_tensors(e, &at);
        const uint64_t tokenizer = read_u64(p + 72) % size, others = HEADER + align64(
            tokenizer) + at.bytes;
        write_u64(p + 72, tokenizer);
        write_u64(p + 88, at.bytes);
        if (others <= size && align64(read_u64(p + 80)) != size - others)
            write_u64(p + 80, size - others);
    }
    mt_close(e);
}

// Mutate a model file, and repair what libFuzzer cannot guess, most of the time.  -> its new size
static inline size_t mutate_model(uint8_t *data, size_t size, size_t most, unsigned int seed)
{
    size = LLVMFuzzerMutate(data, size, most);
    if (size < HEADER || seed % 16 == 0) return size;
    if (seed / 16 % 2) {
        size -= size % 64;
        repair_sizes(data, size);
    }
    repair_checksum(data, size);
    return size;
}

// Fill the provenance and all pieces into one sum, so that each byte is read.
static inline uint64_t read_all_texts(const mt_engine *e)
{
    uint64_t size, sum = 0;
    int32_t length;
    const char *text = mt_get_provenance(e, &size);
    for (uint64_t i = 0; i < size; i++) sum += (uint64_t)text[i];
    for (int32_t token = 0; (text = mt_piece(e, token, &length)); token++)
        for (int32_t i = 0; i < length; i++) sum += (uint64_t)text[i];
    return sum;
}
