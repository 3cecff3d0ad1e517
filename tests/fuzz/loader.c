/* loader.c: a model file.  It is loaded, and where that succeeds, used a little. */
#include "fuzz.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed)
{
    return mutate_model(data, size, most, seed);
}

static volatile uint64_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mt_engine *e;
    const int32_t status = mt_load(data, size, &e);
    CHECK(status == MT_OK || status == MT_FILE);
    if (status) CHECK(*mt_error(e) && !strchr(mt_error(e), '\n'));
    else if (mt_reset(e, 2, 5) == MT_OK) {
        const mt_sampling how = {0.5f, 3, 0.9f, 0.01f};
        const int32_t last = e->config.vocab - 1, tokens[] = {0, last, 1, last};
        const int32_t sequences[] = {0, 1, 1, 1}, positions[] = {0, 0, 1, 2};
        float *logits = malloc(4 * sizeof *logits * (size_t)e->config.vocab);
        int32_t token;
        uint64_t random = 0;
        CHECK(mt_forward(e, 4, tokens, sequences, positions, NULL, logits) == MT_OK);
        const int refused = mt_forward(e, 1, tokens, NULL, NULL, NULL, NULL) == MT_USAGE;
        CHECK(refused == e->config.own_positions);
        if (mt_sample(e, logits, &how, &random, &token) == MT_OK)
            CHECK(token >= 0 && token <= last);
        free(logits);
    }
    sink = read_all_texts(e);
    mt_close(e);
    return 0;
}
