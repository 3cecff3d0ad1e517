"""The C engine is the NumPy model.

What is trained in NumPy is evaluated and used through run.c, so the two must be one model: the same
logits at every position of every configuration.  Within C more holds: the bits of a result depend
neither on how tokens are spread over calls and sequences nor on threads, so that a text can be
reproduced whatever company its prompt is in.  A caller's mistake is refused in one line.
"""
import os
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest
import sampler
from helpers import (
    LETTERS,
    SMALL,
    bits,
    constant,
    feed,
    in_double,
    random_config,
    random_weights,
    refused,
)

import train
from minitron import Engine
from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.data import tasks
from minitron.data.config import Config
from minitron.engine.engine import BATCH, ffi, library
from minitron.engine.model_file import Vocabulary, model_bytes, read_model
from minitron.measure import evaluate
from minitron.model import transformer as model
from minitron.model.config import ModelConfig

# only where it was never built: a library that is stale or broken has to fail
pytestmark = pytest.mark.skipif(not any(ROOT.glob("build/libminitron.*")),
                                reason="the engine is not built: run make")

LENGTH = 64             # tokens of the longest text, where there are many
SAMPLINGS = [           # temperature, top_k, top_p, min_p
    (1.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.0), (1.6, 3, 1.0, 0.0), (1.0, 1, 1.0, 0.0),
    (1.3, 0, 0.8, 0.0), (1.0, 0, 1e-6, 0.0),
    (2.0, 0, 1.0, 0.3), (1.0, 0, 1.0, 1.0), (1.5, 5, 0.9, 0.05), (1e-3, 0, 1.0, 0.0),
    (50.0, 7, 0.99, 0.0),
]


# ------------------------------------------------------------------------------------------------
# The same model

@pytest.mark.parametrize("seed", range(220))        # of which 204 are wider than three channels
def test_logits_are_those_of_numpy_in_double(build, seed):
    # float32 in C against float64 in NumPy: NumPy's own float32 is as far off.  In a stream of up
    # to three channels these can all pass near 0 together, where a norm magnifies rounding errors.
    rng, config = np.random.default_rng(seed), random_config(seed)
    engine, p = build(config, seed)
    tokens = rng.integers(0, config.vocab, (rng.integers(1, 5), rng.integers(1, LENGTH)))
    positions = rng.integers(0, 10**5, tokens.shape) if seed % 2 else None
    expected = model.logits(in_double(config, p), config, tokens, positions)
    tolerance = 1e-5 if config.dim > 3 else 2e-4
    assert np.max(abs(engine.logits(tokens, positions) - expected)) < tolerance * max(
        1, np.max(abs(expected)))


@pytest.mark.parametrize("settings", [
    {"dim": 4}, {"dim": 16}, {"dim": 64}, {"task": "parity", "dim": 32, "length": 8},
    {"task": "text", "dim": 16, "length": 48, "variant": "bytes"},
    {"dim": 24, "positions": "random", "layers": 3}, {"dim": 32, "attention": "linear"},
], ids=str)
def test_logits_of_a_trained_model_are_numpys(tmp_path, settings):
    """To 2e-5 of the largest: README's promise.  The worst of 29 models of ten tasks, dim 4 to
    128, was 6.5e-6, and 2e-6 on average.  NumPy's float32 is as far from float64."""
    config = Config(steps=40, batch=32, test_items=60, **settings).resolve()
    train.train(config, tmp_path / "model.bin", quiet=True, threads=1)
    problems = evaluate.problems(tasks.load(config), config, config.length, "test", 60)
    arguments = problems.inputs, problems.targets >= 0, problems.positions
    expected = evaluate.numpy_scorer(read_model(tmp_path / "model.bin")[1], config)(*arguments)
    with Engine(tmp_path / "model.bin", 1) as engine:
        found = evaluate.engine_scorer(engine)(*arguments)
    assert expected.dtype == found.dtype == np.float32 and len(found) > 10
    assert np.max(abs(found - expected)) < 2e-5 * np.max(abs(expected))


@pytest.mark.parametrize("seed", range(30))
def test_bits_do_not_depend_on_batch_or_calls(build, seed):
    rng, config = np.random.default_rng(seed), random_config(seed)
    engine, _ = build(config, seed)
    lengths = rng.integers(1, 60, 5)
    texts = [rng.integers(0, config.vocab, length) for length in lengths]
    positions = [rng.integers(0, 1000, length) if seed % 2 else np.arange(length)
                 for length in lengths]
    alone = [feed(engine, [text], [ids], [0] * len(text), len(text), len(text))[0] for text,
             ids in zip(texts, positions)]

    ordered = np.repeat(np.arange(5), lengths)
    shuffled = rng.permutation(ordered)
    for order, calls in [(ordered, 1), (shuffled, 1), (shuffled, 7), (shuffled, 50)]:
        together = feed(engine, texts, positions, order, calls, max(lengths) + seed)
        for one, other in zip(alone, together):
            assert np.array_equal(bits(one), bits(other))


def test_bits_do_not_depend_on_threads(build):
    config = ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn_dim=128,
                         vocab=9000).resolve()
    work = re.search(r"THREAD_WORK = 1 << (\d+)", (ROOT / "run.c").read_text(encoding="utf-8"))
    # the head passes it even for one token
    assert config.vocab * config.dim > 2 ** int(work[1])
    tokens = np.random.default_rng(0).integers(0, config.vocab, (2, 210))
    wanted = np.zeros(tokens.shape, bool)
    wanted[:, ::30] = True
    long = np.arange(900)[None]         # much attention, whose heads threads share
    results = []
    for threads in (1, 2, 3):
        engine, _ = build(config, threads=threads)
        results.append(
            [engine.logits(tokens, wanted=wanted), engine.logits([[5]]),
             engine.logits(long, wanted=long % 30 == 0)])
    for result in results[1:]:
        assert all(np.array_equal(bits(one), bits(other)) for one, other in zip(results[0], result))


@pytest.mark.parametrize("seed", range(4))
def test_long_texts(build, seed):
    """Several chunks (see run.c), with borders that fall anywhere: still NumPy's logits, and still
    the same bits."""
    rng, config = np.random.default_rng(seed), random_config(seed + 20)
    length = 3 * constant("CHUNK") + 101
    texts = [rng.integers(0, config.vocab, length), rng.integers(0, config.vocab, 7)]
    positions = [np.arange(length), np.arange(7)]
    engine, p = build(config, seed, context=length)
    expected = model.logits(in_double(config, p), config, texts[0][None])[0]
    ordered, middle = np.repeat([1, 0], [7, length]), np.repeat([0, 1, 0], [500, 7, length - 500])
    results = [feed(engine, texts, positions, order, calls, length) for order,
               calls in [(ordered, 1), (middle, 1), (middle, 3)]]
    tolerance = 1e-5 if config.dim > 3 else 2e-4
    assert np.max(abs(results[0][0] - expected)) < tolerance * max(1, np.max(abs(expected)))
    for result in results[1:]:
        assert all(np.array_equal(bits(one), bits(other)) for one, other in zip(results[0], result))


def test_wanted_chooses_rows(build):
    rng = np.random.default_rng(0)
    engine, _ = build(SMALL)
    tokens = rng.integers(0, SMALL.vocab, (BATCH // 30, 40))        # more than a batch
    everything = engine.logits(tokens)
    for share in (0, 0.1, 0.5, 1):
        wanted = rng.random(tokens.shape) < share
        assert np.array_equal(bits(engine.logits(tokens, wanted=wanted)), bits(everything[wanted]))


@pytest.mark.parametrize("batch, time", [(1, 1), (3, 700), (7, 513), (700, 3), (1100, 1), (33, 64)])
def test_many_sequences(build, batch, time):
    """Logits of whole sequences are those of each alone, bit for bit, whatever batches and threads
    they are spread over."""
    rng = np.random.default_rng(0)
    tokens, positions = rng.integers(0, SMALL.vocab, (batch, time)), rng.integers(
        0, 900, (batch, time))
    wanted = rng.random(tokens.shape) < 0.3
    engines = [build(SMALL, threads=threads)[0] for threads in (1, 2, 3)]
    everything = engines[0].logits(tokens, positions)
    for row in {0, batch // 2, batch - 1}:
        engines[0].reset(1, time)
        assert np.array_equal(bits(engines[0].forward(tokens[row], positions=positions[row])),
                              bits(everything[row]))
    for engine in engines:
        assert np.array_equal(bits(engine.logits(tokens, positions)), bits(everything))
        assert np.array_equal(bits(engine.logits(tokens, positions, wanted)),
                              bits(everything[wanted]))
        # one of many is refused, and the engine stays usable
        for place in {0, batch - 1}:
            bad = tokens.copy()
            bad[place, -1] = 8
            refused("token 8 is not in the vocabulary", engine.logits, bad, positions)
        assert np.array_equal(bits(engine.logits(tokens[:1], positions[:1])), bits(everything[:1]))


# ------------------------------------------------------------------------------------------------
# Generation

def follow(next_logits, choose, prompt, steps, context, eos):
    """Generation spelled out: every token from the logits of the whole text before it, no cache."""
    text, generated = list(prompt), []
    while len(generated) < steps and len(text) <= context:
        token = choose(next_logits(text))
        if token == eos:
            break
        text.append(token)
        generated.append(token)
    return generated


@pytest.mark.parametrize("seed", range(20))
def test_greedy_text_is_numpys(build, seed):
    rng, config = np.random.default_rng(seed), random_config(seed)
    eos = int(rng.integers(config.vocab)) if seed % 2 else None
    engine, p = build(config, seed, context=20, eos=eos)
    double = in_double(config, p)
    prompt, steps = list(map(int, rng.integers(0, config.vocab, rng.integers(1, 9)))), int(
        rng.integers(1, 20))
    expected = follow(lambda text: model.logits(double, config, [text])[0, -1], np.argmax, prompt,
                      steps, 20, eos)
    assert engine.generate_tokens([prompt], steps, temperature=0) == [expected]


@pytest.mark.parametrize("seed", [0, 1, 2, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_sampled_text_is_that_of_the_python_sampler(letters, sampling, seed):
    # run.c holds the settings in float32; the mirror gets the same numbers
    temperature, top_k, top_p, min_p = (float(np.float32(x)) for x in sampling)
    state = seed

    def choose(logits):
        nonlocal state
        token, state = sampler.sample(logits, temperature, top_k, top_p, min_p, state)
        return token

    expected = follow(lambda text: letters.logits([text])[0, -1], choose, [3, 1], 20, 12, None)
    assert len(expected) == 11
    assert letters.generate_tokens([[3, 1]], None, *sampling, seed=seed) == [expected]


def draw(engine, row, sampling, state):
    how = ffi.new("mt_sampling *", sampling)
    return engine.sample(np.asarray(row, np.float32), how, state)


@pytest.mark.parametrize("sampling, kept", list(zip(SAMPLINGS, [8, 8, 3, 1, 5, 1, 7, 1, 5, 1, 7])))
@pytest.mark.parametrize("streams", ["one seed", "consecutive seeds"])
def test_samples_follow_the_softmax_of_what_is_kept(letters, sampling, kept, streams):
    row = np.array([0.5, -1.0, 2.0, 1.2, 0.0, 0.9, -0.3, 1.7])
    probability = np.exp((row - row.max()) / sampling[0])
    # kept: counted by hand for each of SAMPLINGS
    probability[np.argsort(-row)[kept:]] = 0
    probability /= probability.sum()
    n = 10000
    state = ffi.new("uint64_t *", 12345)
    seeds = [state] * n if streams == "one seed" else [ffi.new("uint64_t *", seed)
                                                       for seed in range(n)]
    counts = np.bincount([draw(letters, row, sampling, seed) for seed in seeds], minlength=8)
    assert not counts[probability == 0].any()
    expected = n * probability[probability > 0]
    deviation = np.sum((counts[probability > 0] - expected) ** 2 / expected)
    # chi-square with kept - 1 degrees of freedom: mean kept - 1, variance twice that; the streams
    # are fixed, so is the outcome
    assert deviation <= kept - 1 + 4 * (2 * (kept - 1)) ** 0.5


def test_equal_logits_go_by_id(letters):
    seeds = [ffi.new("uint64_t *", seed) for seed in range(300)]
    row = [1, 2, 2, 1, 2, 0, 0, 0]
    assert draw(letters, row, (0, 0, 1, 0), seeds[0]) == 1
    for sampling, likeliest in [((1, 1, 1, 0), {1}), ((1, 2, 1, 0), {1, 2}),
                                ((1, 4, 1, 0), {0, 1, 2, 4}), ((1, 0, 1e-6, 0), {1}),
                                ((1, 0, 1, 1), {1, 2, 4})]:
        assert {draw(letters, row, sampling, seed) for seed in seeds} == likeliest
    assert {draw(letters, [0] * 8, (1, 3, 1, 0), seed) for seed in seeds} == {0, 1, 2}


def test_greedy_draws_nothing_and_sampling_once(letters):
    state = ffi.new("uint64_t *", 7)
    draw(letters, [0] * 8, (0, 0, 1, 0), state)
    assert state[0] == 7
    draw(letters, [0] * 8, (1, 0, 1, 0), state)
    assert state[0] == sampler.draw(7)[0]


def test_a_list_gives_what_each_prompt_gives_alone(build):
    engine, _ = build(SMALL, pieces=LETTERS, context=20, bos=0, eos=5)
    prompts = ["abc", "", "h", "gfgfgfgfgfgfgfgfgfgf", "b" * 19, "dcba", "h"]
    for how in [{"temperature": 0}, {"seed": 3}, {"temperature": 1.5, "seed": 2**64 - 3},
                {"steps": 4, "top_k": 4}]:
        seed = how.pop("seed", 0)
        together = engine.generate(prompts, seed=seed, **how)
        assert together == [engine.generate(prompt, seed=(seed + i) % 2**64, **how) for i,
                            prompt in enumerate(prompts)]
        assert len(set(map(len, together))) > 2             # they do end at different times
    assert engine.generate([]) == []


def test_generation_ends(build):
    """At the number of steps, at the end token, and when the context is full: the last token needs
    no room in it."""
    endless, _ = build(SMALL, pieces=LETTERS, context=30)
    text = endless.generate("ab", seed=1)
    assert len(text) == 30 - 2 + 1
    assert len(endless.generate("a" * 30)) == 1
    for steps in (0, 1, 5, 28, 29):
        assert endless.generate("ab", steps, seed=1) == text[:steps]
    assert endless.generate("ab", 10**12, seed=1) == text
    # of all letters the one that comes latest
    last = max(text, key=text.index)
    assert text.index(last) > 3
    ending, _ = build(SMALL, pieces=LETTERS, context=30, eos=LETTERS.index(last.encode()))
    assert ending.generate("ab", seed=1) == text[:text.index(last)]


def test_empty_prompt_is_bos(build):
    with_bos, _ = build(SMALL, pieces=LETTERS, bos=6)
    assert with_bos.generate("", seed=1) == with_bos.generate("g", seed=1)
    assert with_bos.generate(["", "ab"], seed=1) == with_bos.generate(["g", "ab"], seed=1)
    without, _ = build(SMALL, pieces=LETTERS)
    for prompts in ("", ["ab", ""]):
        with pytest.raises(MinitronError, match="needs a prompt"):
            without.generate(prompts)


def test_text_begins_with_bos_if_each_row_of_training_did(build):
    engine, _ = build(SMALL, pieces=LETTERS, bos=6, begins_with_bos=True)
    plain, _ = build(SMALL, pieces=LETTERS, bos=6)
    tokens = {"ab": [6, 0, 1], "gab": [6, 0, 1], "": [6], "g": [6], "abg": [6, 0, 1, 6],
              b"ab": [6, 0, 1]}
    for text, prompt in tokens.items():
        assert engine.prompt_tokens(text) == prompt
        expected = plain.decode(plain.generate_tokens([prompt], seed=1)[0])
        if isinstance(text, str):
            expected = expected.decode()
        assert engine.generate(text, seed=1) == expected
        assert engine.generate([text], seed=1) == [expected]
        assert type(expected)().join(engine.stream(text, seed=1)) == expected
        for tail in ("cd", "g"):            # nothing is put before a continuation
            [found], [expected_scores] = engine.logprobs([text], [tail]), plain.logprobs(
                [prompt], [tail])
            assert np.array_equal(bits(found), bits(expected_scores)) and len(found) == len(tail)
    # tokens are taken as they are
    assert engine.generate_tokens([[0, 1]], seed=1) == plain.generate_tokens([[0, 1]], seed=1)
    assert engine.encode("ab") == [0, 1]
    assert engine.prompt_tokens("a" * 63) == [6] + [0] * 63
    refused("65 tokens is longer than the model's context of 64", engine.generate, "a" * 64)


def test_a_model_with_positions_of_its_own_wants_them_given(build):
    engine, _ = build(SMALL, pieces=LETTERS, own_positions=True)
    plain, _ = build(SMALL, pieces=LETTERS)
    tokens, ids = [[1, 2, 3]], [[0, 1, 2]]
    engine.reset(1, 4)
    for call in (lambda: engine.generate("ab"), lambda: list(engine.stream("ab")),
                 lambda: engine.logprobs(["a"], ["b"]), lambda: engine.logits(tokens),
                 lambda: engine.attention(tokens, 0, 0)):
        refused("trained with positions of its own: give positions, or use python -m minitron eval",
                call)
    engine.reset(1, 4)
    refused("positions of its own", engine.forward, [1])
    refused("positions of its own", engine.score, [1], [2])
    assert engine.length() == 0
    assert np.array_equal(bits(engine.forward([1], positions=[0])), bits(plain.logits([[1]])[0]))
    assert np.array_equal(bits(engine.logits(tokens, ids)), bits(plain.logits(tokens)))
    assert np.array_equal(bits(engine.attention(tokens, 1, 0, ids)),
                          bits(plain.attention(tokens, 1, 0)))


def test_str_gives_str_and_bytes_bytes(build):
    engine, _ = build(SMALL,
                      pieces=[b"a", b"b", b"\xc3\xa9", b"\xff", b"\xe6\x97\xa5", b"\x00", b"",
                              b"h"])
    assert isinstance(engine.generate("a"), str) and isinstance(engine.generate(b"a"), bytes)
    assert engine.generate(b"a").decode(errors="replace") == engine.generate("a")


# ------------------------------------------------------------------------------------------------
# Tokenizer

def longest_match(pieces, text):
    tokens = []
    while text:
        piece = max((piece for piece in pieces if piece and text.startswith(piece)), key=len)
        tokens.append(pieces.index(piece))
        text = text[len(piece):]
    return tokens


def test_encode_takes_the_longest_piece(build):
    pieces = [b"", b"abc", b"a", b"ab", b"b", b"c", b"", b"abcabcab", b"\x00", b"\xff\xfe",
              b"x" * 256, b"x", b"bca",
              "\u00e9".encode(), "\u65e5".encode(), "\u65e5\u672c".encode()]
    engine, _ = build(ModelConfig(dim=4, layers=1, vocab=len(pieces)).resolve(), pieces=pieces)
    assert engine.encode("abcab") == [1, 3]
    assert engine.encode("\u65e5\u65e5\u672c\u00e9") == [14, 15, 13]
    assert engine.encode(b"x" * 513) == [10, 10, 11]
    rng = np.random.default_rng(0)
    for length in list(range(20)) * 10:
        text = b"".join(pieces[i] for i in rng.integers(0, len(pieces), length))
        assert engine.encode(text) == longest_match(pieces, text)
        assert engine.decode(engine.encode(text)) == text
    # where 0xff 0xfe is a piece, 0xff alone is not
    with pytest.raises(MinitronError, match="byte 1, 0xff"):
        engine.encode(b"a\xff")


def test_every_byte_round_trips(build):
    engine, _ = build(ModelConfig(dim=4, layers=1, vocab=300).resolve())
    text = bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))
    assert engine.decode(engine.encode(text)) == text
    assert engine.encode(b"\x01\x02") == [256 + 2]              # piece 258 is these two bytes


# ------------------------------------------------------------------------------------------------
# What is refused

@pytest.mark.parametrize("text, byte", [
    ("abXc", "byte 2, 'X'"), ("a\n", "byte 1, 0x0a"), ("\u00e9", "byte 0, 0xc3"),
    (b"\x00", "byte 0, 0x00"),
])
def test_character_outside_the_vocabulary(letters, text, byte):
    for function in (letters.encode, letters.generate):
        refused(f"the text's {byte}, is not in the model's vocabulary", function, text)


@pytest.mark.parametrize("token", [-1, 8, 2**31 - 1, -2**31, 2**31, 2**32, 2**32 + 1, -2**40])
def test_token_outside_the_vocabulary(letters, token):
    # 2^32 + 1 must not become token 1 on its way into an int32
    letters.reset(1, 4)
    for function, argument in [(letters.forward, [token]), (letters.forward, np.array([token])),
                               (letters.logits, [[0, token]]),
                               (letters.generate_tokens, [[0, token]]),
                               (letters.decode, [0, token])]:
        refused(str(token), function, argument)


@pytest.mark.parametrize("position", [-1, -2**31, 2**31, 2**32])
def test_position_out_of_range(letters, position):
    letters.reset(1, 4)
    refused(str(position), letters.forward, [0, 1], positions=np.array([0, position]))
    refused(str(position), letters.logits, [[0, 1]], positions=[[0, position]])


@pytest.mark.parametrize("sequence", [-1, 2, 2**31 - 1, 2**32])
def test_sequence_that_does_not_exist(letters, sequence):
    letters.reset(2, 4)
    refused(f"sequence {sequence}", letters.forward, [0, 1], np.array([0, sequence]))


def test_more_tokens_than_fit(letters):
    refused("13 tokens is longer than the model's context of 12", letters.generate, "a" * 13)
    refused("13 tokens is longer than the model's context of 12", letters.generate, ["a", "a" * 13])
    letters.reset(2, 4)
    refused("sequence 1 is longer than the context of 4 tokens", letters.forward, [0] * 6,
            [0, 1, 1, 1, 1, 1])
    for sequences, context in [(0, 1), (1, 0), (-1, 4), (4, -1)]:
        refused(f"sequences is {sequences} and context is {context}, but both must be at least 1",
                letters.reset, sequences, context)
    refused("no memory", letters.reset, 2**31 - 1, 2**31 - 1)
    # the failed reset has left no room at all
    refused("no sequences: call reset", letters.forward, [0])


@pytest.mark.parametrize("tokens", [[], [[]], [1, 2], [[[1]]], [[1, 2], [3]]])
def test_logits_of_a_wrong_shape(letters, tokens):
    refused(None, letters.logits, tokens)


@pytest.mark.parametrize("values", [[0.5], [np.nan], ["a"], [None]])
def test_what_is_not_a_whole_number(letters, values):
    letters.reset(1, 4)
    refused("whole number", letters.forward, values)
    refused("whole number", letters.forward, [0], positions=values)
    refused("whole number", letters.forward, [0], sequences=values)
    refused("whole number", letters.decode, values)


@pytest.mark.parametrize("name", ["sequences", "positions", "wanted"])
@pytest.mark.parametrize("values", [[], [0], [0, 0, 0], [[0, 0], [0, 0]]])
def test_arguments_of_another_length(letters, name, values):
    letters.reset(1, 4)
    refused("give one each", letters.forward, [0, 1], **{name: values})


def test_positions_of_another_shape(letters):
    refused(None, letters.logits, [[0, 1, 2]], positions=[[0, 1]])


@pytest.mark.parametrize("wanted", [[0, 256], [0, 0.5], [0, 1]])
def test_wanted_is_true_where_python_says_so(letters, wanted):
    # as bytes, 256 and 0.5 would be 0, and the row that is given back never written
    letters.reset(1, 4)
    expected = letters.forward([1, 2])[1:]
    letters.reset(1, 4)
    assert np.array_equal(bits(letters.forward([1, 2], wanted=wanted)), bits(expected))


@pytest.mark.parametrize("setting", [
    {"temperature": -1}, {"temperature": np.nan}, {"temperature": np.inf}, {"top_k": -1},
    {"top_p": 0}, {"top_p": -1},
    {"top_p": 1.01}, {"top_p": np.nan}, {"min_p": -0.1}, {"min_p": 1.1}, {"min_p": np.nan},
])
def test_sampling_out_of_range(letters, setting):
    refused("out of range", letters.generate, "a", **setting)


def test_steps_cannot_be_negative(letters):
    refused("steps", letters.generate, "ab", steps=-1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite(letters, value):
    for temperature in (0, 1):
        refused("the logit of token 5 is not finite", draw, letters, [0, 1, 2, 3, 4, value, 6, 7],
                (temperature, 0, 1, 0),
                ffi.new("uint64_t *"))


def test_weights_that_overflow(tmp_path):
    p = random_weights(SMALL, 0)
    p.embed[:] *= 1e38
    p.norm_f[:] *= 1e38
    (tmp_path / "model.bin").write_bytes(
        model_bytes(SMALL, p, Vocabulary(LETTERS, 9, None, None, 1.0), {}))
    with Engine(tmp_path / "model.bin") as engine:
        refused("not finite: the model's weights have overflowed", engine.generate, "a")


def test_failed_forward_changes_nothing(letters):
    expected = feed(letters, [[1, 2, 3, 4], [5, 6, 7]], [range(4), range(3)], [0, 0, 0, 0, 1, 1, 1],
                    1, 4)
    letters.reset(2, 4)
    first = letters.forward([1, 2, 5], [0, 0, 1])
    for tokens, sequences, positions in [
        ([3, 8], [0, 0], [2, 3]), ([6, 3, -1], [1, 0, 0], [1, 2, 3]), ([3, 6], [0, 2], [2, 1]),
        ([3, 6], [0, 1], [2, -1]),
        ([3, 4, 0], [0, 0, 0], [2, 3, 4]),                      # the last one finds sequence 0 full
    ]:
        refused(None, letters.forward, tokens, sequences, positions)
    then = letters.forward([3, 6, 4, 7], [0, 1, 0, 1])
    assert np.array_equal(bits(expected[0]), bits(np.stack([first[0], first[1], then[0], then[2]])))
    assert np.array_equal(bits(expected[1]), bits(np.stack([first[2], then[1], then[3]])))


def test_closed_engine(letters):
    letters.close()
    letters.close()                                             # twice does no harm
    for function, argument in [(letters.encode, "a"), (letters.decode, [0]),
                               (letters.generate, "a"), (letters.forward, [0]),
                               (letters.logits, [[0]]), (letters.generate_tokens, [[0]])]:
        refused("closed", function, argument)
    refused("closed", letters.reset, 1, 1)
    refused("closed", draw, letters, [0] * 8, (1, 0, 1, 0), ffi.new("uint64_t *"))


def test_files_are_closed(build, tmp_path):
    """A system gives the lowest free number to a file, so that one left open shows in the next."""
    def free():
        number = os.open(os.devnull, os.O_RDONLY)
        os.close(number)
        return number

    before = free()
    engine, _ = build(SMALL)
    assert free() == before
    whole = (tmp_path / "0.bin").read_bytes()
    # refused by size, after the header, after the checksum
    for content in (b"", whole[:300], whole[:-1] + b"?"):
        (tmp_path / "damaged.bin").write_bytes(content)
        refused("damaged.bin: ", Engine, tmp_path / "damaged.bin")
        assert free() == before
    for name in ("no-such-file", "."):
        refused(None, Engine, tmp_path / name)
        assert free() == before


def test_engine_that_did_not_open(tmp_path):
    engine = Engine.__new__(Engine)
    refused("no-such-file: No such file", engine.__init__, tmp_path / "no-such-file")
    refused("closed", engine.encode, "a")
    engine.close()


# ------------------------------------------------------------------------------------------------
# The library

def test_engines_in_two_threads(build):
    """Calls release Python's lock: each thread's engine is alone with its state."""
    engines = [build(SMALL, seed, context=40, threads=2)[0] for seed in range(2)]
    expected = [engine.generate_tokens([[0, 1, 2]] * 4) for engine in engines]
    assert expected[0] != expected[1]
    found = [[], []]

    def work(i):
        for _ in range(30):
            found[i].append(engines[i].generate_tokens([[0, 1, 2]] * 4))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[expected[0]] * 30, [expected[1]] * 30]


def api():
    return (ROOT / "run.c").read_text(encoding="utf-8").split("// API-BEGIN")[1].partition("\n")[
        2].split("// API-END")[0]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_declarations_are_the_definitions(compiler):
    """The block that cffi reads is a C header of its own; in run.c, nothing is public that it lacks
    or says otherwise."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wmissing-prototypes", "-Wno-unknown-pragmas",
             "-Werror", "-fsyntax-only"]
    subprocess.run([compiler, *flags, "-DMINITRON_LIB", ROOT / "run.c"], check=True)
    subprocess.run([compiler, *flags, "-x", "c", "-"], input="#include <stdint.h>\n" + api(),
                   text=True, check=True)


def test_the_library_has_all_that_is_declared():
    declared = set(re.findall(r"\b(mt_\w+)\(", re.sub(r"//.*", "", api())))
    assert {"mt_abi", "mt_open", "mt_forward", "mt_sample", "mt_piece"} <= declared
    for name in declared:
        assert ffi.typeof(getattr(library(), name)).kind == "function"
    assert library().mt_abi() == library().MT_ABI == int(re.search(r"MT_ABI = (\d+)", api())[1])
