/* generate.c: a model file, then calls.  Each call is a byte that chooses it, and the bytes of its
   arguments, which may be nonsense: it then has to be refused, and nothing may have changed. */
#include "fuzz.h"

enum { SEQUENCES = 3, CONTEXT = 7, MOST_TOKENS = 8, PROMPTS = 2 * WINDOW };

typedef struct {
    const uint8_t *next, *end;
} script;

static uint8_t next_byte(script *s) { return s->next < s->end ? *s->next++ : 0; }

// Mostly 0 to 15, sometimes far out
static int32_t next_number(script *s)
{
    static const int32_t far[] = {-1, INT32_MAX, INT32_MIN, 1 << 20};
    const uint8_t byte = next_byte(s);
    return byte < 0xf0 ? byte % 16 : far[byte % 4];
}

static float next_float(script *s)
{
    static const float numbers[] = {0, 1, 0.5f, 1e-6f, -1, 1e30f, NAN, HUGE_VALF};
    return numbers[next_byte(s) % 8];
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed)
{
    const uint64_t model = size < HEADER ? 0 : read_u64(data + 96);
    if (model < HEADER || model > size || model > most) return mutate_model(data, size, most, seed);
    if (seed % 4) return model + LLVMFuzzerMutate(data + model, size - model, most - model);
    // not longer, to leave the rest where it is
    const size_t now = mutate_model(data, model, model, seed / 4);
    return now < model ? now : size;
}

static void check_status(const mt_engine *e, int32_t status)
{
    CHECK(status == MT_OK || status == MT_USAGE || status == MT_RUN);
    if (status) CHECK(*mt_error(e) && !strchr(mt_error(e), '\n'));
}

// mt_forward, mt_score or mt_attention, on tokens of any kind
static void call_forward(mt_engine *e, script *s, int what)
{
    int32_t tokens[MOST_TOKENS], sequences[MOST_TOKENS], positions[MOST_TOKENS],
            targets[MOST_TOKENS], before[SEQUENCES];
    uint8_t wanted[MOST_TOKENS];
    float logprobs[MOST_TOKENS], weights[MOST_TOKENS * CONTEXT];
    const uint8_t given = next_byte(s);
    const int32_t count = next_byte(s) % (MOST_TOKENS + 1);
    for (int i = 0; i < count; i++) {
        tokens[i] = next_number(s);
        sequences[i] = given & 1 ? next_number(s) : i % SEQUENCES;
        positions[i] = given & 2 ? next_number(s) : i;
        targets[i] = given & 4 ? next_number(s) : -1;
        wanted[i] = given & 8 ? next_byte(s) & 1 : 1;
    }
    for (int i = 0; i < SEQUENCES; i++) before[i] = mt_length(e, i);
    const int32_t *which = given & 16 ? NULL : sequences, *where = given & 32 ? NULL : positions;
    float *logits = malloc(MOST_TOKENS * sizeof *logits * (size_t)e->config.vocab);
    int32_t status, sum = 0;
    if (what == 0) status = mt_forward(e, count, tokens, which, where, given & 64 ? NULL : wanted,
                                       given & 128 ? NULL : logits);
    else if (what == 1) status = mt_score(e, count, tokens, which, where, targets, logprobs);
    else status = mt_attention(e, count, tokens, which, where, next_number(s), next_number(s),
                               weights);
    check_status(e, status);
    for (int i = 0; i < SEQUENCES; i++) {
        CHECK(mt_length(e, i) <= CONTEXT && mt_length(e, i) >= before[i]);
        sum += mt_length(e, i) - before[i];
    }
    // mt_score has then appended the tokens
    const int overflow = what == 1 && status == MT_RUN;
    CHECK(sum == (status ? 0 : count) || (overflow && sum == count));
    free(logits);
}

static void call_generate(mt_engine *e, script *s)
{
    int32_t prompts[3 * PROMPTS], lengths[PROMPTS], stop[PROMPTS], tokens[PROMPTS * 4],
            generated[PROMPTS];
    uint64_t random[PROMPTS];
    const uint8_t given = next_byte(s);
    const int32_t count = given & 1 ? PROMPTS : next_byte(s) % 4, most = next_byte(s) % 5;
    const mt_sampling how = {next_float(s), next_number(s), next_float(s), next_float(s)};
    for (int i = 0; i < count; i++) {
        lengths[i] = given & 2 ? next_number(s) % 4 : 1;
        random[i] = next_byte(s);
        stop[i] = next_number(s);
    }
    for (int i = 0; i < 3 * count; i++) prompts[i] = given & 4 ? next_number(
        s) : i % e->config.vocab;
    const int32_t *stops = given & 8 ? NULL : stop;
    const int32_t status = mt_generate(e, count, prompts, lengths, most, stops, &how, random,
                                       tokens, generated);
    check_status(e, status);
    for (int i = 0; i < count && !status && most; i++) {
        CHECK(generated[i] >= 0 && generated[i] <= most);
        for (int j = 0; j < generated[i]; j++) {
            const int32_t token = tokens[i * most + j];
            CHECK(token >= 0 && token < e->config.vocab);
        }
    }
    CHECK(mt_reset(e, SEQUENCES, CONTEXT) == MT_OK);
}

// Whole sequences, on a fork
static void call_fork(mt_engine *e, script *s)
{
    const int32_t count = next_byte(s) % 3, time = next_byte(s) % 4;
    const uint8_t given = next_byte(s);
    int32_t tokens[6], sequences[6], positions[6];
    uint8_t wanted[6];
    mt_engine *fork;
    CHECK(mt_fork(e, &fork) == MT_OK);
    for (int i = 0; i < count * time; i++) {
        tokens[i] = next_number(s);
        sequences[i] = i / time;
        positions[i] = given & 2 ? next_number(s) : i;
        wanted[i] = given >> 3 & (uint8_t)(1 << i % 3) ? 1 : 0;
    }
    float *logits = malloc(6 * sizeof *logits * (size_t)e->config.vocab);
    int32_t status = mt_reset(fork, count, time);
    check_status(fork, status);
    if (!status)
        status = mt_forward(fork, count * time, tokens, sequences, given & 1 ? NULL : positions,
                            given & 4 ? NULL : wanted, logits);
    check_status(fork, status);
    free(logits);
    mt_close(fork);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint64_t claimed = size < HEADER ? size : read_u64(
        data + 96), model = claimed < size ? claimed : size;
    script s = {data + model, data + size};
    mt_engine *e;
    const int32_t status = mt_load(data, model, &e);
    CHECK(status == MT_OK || status == MT_FILE);
    if (!status) mt_set_threads(e, next_byte(&s) % 3);
    if (!status) CHECK(mt_reset(e, SEQUENCES, CONTEXT) == MT_OK);
    for (int calls = 0; !status && s.next < s.end && calls < 20; calls++) {
        const uint8_t call = next_byte(&s) % 7;
        if (call < 3) call_forward(e, &s, call);
        else if (call == 3) call_generate(e, &s);
        else if (call == 4) check_status(e, mt_rewind(e, next_number(&s), next_number(&s)));
        else if (call == 5) call_fork(e, &s);
        else check_status(e, mt_reset(e, SEQUENCES, CONTEXT));
    }
    mt_close(e);
    return 0;
}
