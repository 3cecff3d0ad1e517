/* encode.c: a text.  Its tokens have to stand for the text again, and at each place no longer piece
may fit. */
#include "fuzz.h"

// Pieces that begin or contain each other, the longest one of 256 bytes, bytes above 127, and a
// piece of no bytes.
static const char *const PIECES[] = {
    "", "a", "b", "ab", "aba", "abab", "ababc", "bab", "c", "cc", "ccc", "cccccccc", "\n", " ",
    " a", "\xff", "\xff\xfe",
    "\xc3\xa4", "\x80", "x\xffy", "abc" "abc" "abc", "aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaab",
};
// and 256 times a, and a byte 0
enum { COUNT = sizeof PIECES / sizeof *PIECES, VOCAB = COUNT + 2 };

static uint8_t *put_piece(uint8_t *to, const void *bytes, uint32_t size)
{
    memcpy(to, &size, 4);
    memcpy(to + 4, bytes, size);
    return to + 4 + size;
}

static mt_engine *make_engine(void)
{
    static uint8_t model[1 << 13];
    const uint32_t kind[] = {1, VOCAB}, none = UINT32_MAX;
    const uint32_t fixed[] = {1, 0, 1, 1, 1, 1, 2, 0, VOCAB, 8, 1, none, none};
    const float eps = 1;
    char long_piece[MAX_PIECE];
    memcpy(model, "minitron", 8);
    memcpy(model + 8, fixed, sizeof fixed);
    memcpy(model + 64, &eps, 4);
    uint8_t *p = model + HEADER;
    memcpy(p, kind, 8);
    p += 8;
    for (int i = 0; i < COUNT; i++) p = put_piece(p, PIECES[i], (uint32_t)strlen(PIECES[i]));
    memset(long_piece, 'a', sizeof long_piece);
    p = put_piece(p, long_piece, sizeof long_piece);
    p = put_piece(p, "", 1);
    const uint64_t tokenizer = (uint64_t)(p - model) - HEADER, tensors = align64(
        4 * VOCAB) + 4 * 64;
    write_u64(model + 72, tokenizer);
    write_u64(model + 88, tensors);
    write_u64(model + 96, HEADER + align64(tokenizer) + tensors);
    repair_checksum(model, read_u64(model + 96));
    mt_engine *e;
    if (mt_load(model, read_u64(model + 96), &e)) fprintf(stderr, "%s\n", mt_error(e)), abort();
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mt_engine *e;
    if (!e) e = make_engine();
    int64_t count = -1, at = 0;
    const char *text = (const char *)data;
    int32_t *tokens = malloc((size + 1) * sizeof *tokens), length = 0;
    const int32_t status = mt_encode(e, text, (int64_t)size, tokens, &count);
    CHECK((status == MT_OK || status == MT_USAGE) && count >= 0 && count <= (int64_t)size);
    for (int64_t i = 0; i < count; i++, at += length) {
        const char *bytes = mt_piece(e, tokens[i], &length);
        CHECK(bytes && length > 0 && at + length <= (int64_t)size &&
              !memcmp(bytes, text + at, (size_t)length));
        for (int32_t token = 0, other; token < VOCAB; token++) {
            bytes = mt_piece(e, token, &other);
            CHECK(other <= length || at + other > (int64_t)size ||
                  memcmp(bytes, text + at, (size_t)other));
        }
    }
    // it stops early only where no piece fits
    CHECK((status == MT_OK) == (at == (int64_t)size));
    for (int32_t token = 0; status && token < VOCAB; token++) {
        const char *bytes = mt_piece(e, token, &length);
        CHECK(!length || at + length > (int64_t)size || memcmp(bytes, text + at, (size_t)length));
    }
    free(tokens);
    return 0;
}
