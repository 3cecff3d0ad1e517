"""All that the library gives beside logits: scores, attention weights, sequences, and
generation for many prompts.

Each is held against another way to compute the same: NumPy in float64, the plainest ops of
ops.py, or a Python loop over forward() and sampler.py.  The results of a loop must come out bit
for bit, whatever the threads and the company a prompt is in.
"""
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import sampler
from helpers import (
    LETTERS,
    SMALL,
    bits,
    constant,
    in_double,
    random_config,
    random_weights,
    refused,
)

from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError
from minitron.model import ops
from minitron.model import transformer as model
from minitron.model.config import ModelConfig
from minitron.model.params import Params

pytestmark = pytest.mark.skipif(not any(ROOT.glob("build/libminitron.*")),
                                reason="the engine is not built: run make")

WINDOW = constant("WINDOW")             # 2 * WINDOW prompts and more are split among threads
BAD_SHAPES = [[], [0], [0, 0, 0], [[0, 0], [0, 0]]]


def tolerance(config):
    """Of float32; in a stream of up to three channels these can all pass near 0, where a norm
    magnifies rounding errors."""
    return 1e-5 if config.dim > 3 else 2e-4


def log_softmax(p, config, tokens, positions=None):
    """log p (B, T, V) of NumPy in float64"""
    logits = model.logits(in_double(config, p), config, tokens, positions)
    z = logits - logits.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def close(found, expected, config, scale=1):
    return np.max(abs(found - expected), initial=0) < tolerance(config) * max(
        scale, np.max(abs(expected), initial=0))


# ------------------------------------------------------------------------------------------------
# Scores

@pytest.mark.parametrize("seed", range(40))
def test_score_is_numpys_log_softmax(build, seed):
    rng, config = np.random.default_rng(seed), random_config(seed)
    engine, p = build(config, seed)
    shape = B, T = rng.integers(1, 5), rng.integers(1, 40)
    tokens, targets = rng.integers(0, config.vocab, shape), rng.integers(-1, config.vocab, shape)
    positions = rng.integers(0, 1000, shape) if seed % 2 else None
    expected = np.take_along_axis(log_softmax(p, config, tokens, positions), targets[..., None],
                                  axis=2)[..., 0]

    engine.reset(B, T)
    sequences = np.repeat(np.arange(B)[None], T, axis=0)        # a token of each sequence in turn
    turned = None if positions is None else positions.T.ravel()
    found = engine.score(tokens.T.ravel(), targets.T.ravel(), sequences.ravel(), turned).reshape(
        T, B).T
    assert np.array_equal(np.isnan(found), targets < 0)
    assert close(found[targets >= 0], expected[targets >= 0], config)
    assert [engine.length(b) for b in range(B)] == [T] * B


@pytest.mark.parametrize("vocab", [2, 15, 17, 48, 67, 9001])
def test_score_of_long_texts(build, vocab):
    """More tokens than a chunk; of the largest vocabulary, more rows than are scored at a time."""
    config = ModelConfig(dim=16, layers=1, heads=2, vocab=vocab).resolve()
    engine, p = build(config, context=600)
    T = 250 if vocab > 1000 else constant("CHUNK") // 2 + 20
    tokens, targets = np.random.default_rng(0).integers(0, vocab, (2, 2, T))
    targets[:, ::5] = -1
    expected = np.take_along_axis(log_softmax(p, config, tokens), targets[..., None], axis=2)[
        ..., 0]
    engine.reset(2, T)
    found = engine.score(tokens.ravel(), targets.ravel(), np.repeat([0, 1], T)).reshape(2, T)
    assert np.array_equal(np.isnan(found), targets < 0)
    assert close(found[targets >= 0], expected[targets >= 0], config)


def test_score_goes_on_where_forward_stopped(letters):
    letters.reset(1, 5)
    together = letters.score([1, 2, 3, 4, 5], [2, 3, 4, 5, 6])
    letters.reset(1, 5)
    letters.forward([1, 2])
    assert np.array_equal(bits(letters.score([3, 4], [4, 5])), bits(together[2:4]))
    assert np.array_equal(bits(letters.score([5], [6])), bits(together[4:]))


def test_score_refuses(letters):
    letters.reset(1, 4)
    for target in (8, 2**31 - 1, 2**31, 2**40):
        refused(str(target), letters.score, [0, 1], [0, target])
    refused("token 8", letters.score, [0, 8], [0, 1])
    refused("sequence 1", letters.score, [0, 1], [0, 1], [0, 1])
    refused("longer than the context of 4", letters.score, [0] * 5, [0] * 5)
    for values in BAD_SHAPES:
        refused("give one each", letters.score, [0, 1], values)
        refused("give one each", letters.score, [0, 1], [0, 1], values)
        refused("give one each", letters.score, [0, 1], [0, 1], None, values)
    assert letters.length() == 0
    letters.close()
    refused("closed", letters.score, [0], [0])


def test_logprobs(build):
    engine, p = build(SMALL, pieces=LETTERS, bos=6)
    prompts, tails = ["abc", "", "h", [6], "gg", ""], ["de", "fa", "", [1, 2, 3], "h", ""]
    found = engine.logprobs(prompts, tails)
    assert [len(one) for one in found] == [2, 2, 0, 3, 1, 0]
    for prompt, tail, one in zip(prompts, tails, found):
        head = engine.tokens_of(prompt) or [6]
        text = np.array([head + engine.tokens_of(tail)])
        expected = log_softmax(p, SMALL, text)[0, np.arange(len(head) - 1, text.size - 1),
                                               text[0, len(head):]]
        assert one.dtype == np.float32 and close(one, expected, SMALL)
    assert engine.logprobs([], []) == []


def test_logprobs_refuses(letters):
    refused("1 prompts and 2 continuations", letters.logprobs, ["a"], ["b", "c"])
    refused("needs a prompt", letters.logprobs, [""], ["a"])
    refused("'X'", letters.logprobs, ["a"], ["bX"])
    refused("longer than the model's context of 12", letters.logprobs, ["a" * 13], ["b"])
    refused("token 8", letters.logprobs, ["a"], [[8, 1]])
    refused("8", letters.logprobs, ["a"], [[1, 8]])


@pytest.mark.parametrize("tail", [
    [-1], [1, -5], [0.5], [1, 0.5], [2**70],
])
def test_logprobs_refuses_what_is_no_token(letters, tail):
    """The last token of a continuation is only a target, and no less a token for that."""
    refused(None, letters.logprobs, ["a"], [tail])


# ------------------------------------------------------------------------------------------------
# Attention weights

def attention_weights(p, config, tokens, layer, positions=None):
    """Attention weights (B, H, T, T) of a layer, or linear attention's scores, by ops.py"""
    (B, T), K = tokens.shape, config.head_dim
    positions = np.arange(T)[None] if positions is None else positions
    cis = ops.rope_table(positions, K, config.rope_theta, np.float64)[:, :, None]
    attention = {"softmax": ops.attention_forward,
                 "linear": ops.linear_attention_forward}[config.attention]
    x = p.embed[tokens]
    for l in range(layer + 1):
        n = ops.rmsnorm_forward(x, p.norm1[l], config.norm_eps)[0]
        u = (n @ p.wqkv[l].T).reshape(B, T, -1, K)
        q, k, v = np.split(u, [config.heads, config.heads + config.kv_heads], axis=2)
        if config.qk_norm:
            q = ops.rmsnorm_forward(q, p.norm_q[l], config.norm_eps)[0]
            k = ops.rmsnorm_forward(k, p.norm_k[l], config.norm_eps)[0]
        y, (*_, weights) = attention(ops.rope_forward(q, cis)[0], ops.rope_forward(k, cis)[0], v)
        x = x + y.reshape(B, T, -1) @ p.wo[l].T
        if config.ffn_dim:
            n = ops.rmsnorm_forward(x, p.norm2[l], config.norm_eps)[0]
            gate, up = n @ p.w13[l, :config.ffn_dim].T, n @ p.w13[l, config.ffn_dim:].T
            x = x + ops.swiglu_forward(gate, up)[0] @ p.w2[l].T
    return weights.reshape(B, config.heads, T, T)


@pytest.mark.parametrize("seed", range(60))
def test_attention_is_that_of_plain_ops(build, seed):
    rng, config = np.random.default_rng(seed), random_config(seed)
    engine, p = build(config, seed, context=200)
    tokens = rng.integers(0, config.vocab, (rng.integers(1, 4), [1, 3, 7, 20, 70, 150][seed % 6]))
    positions = np.sort(rng.integers(0, 300, tokens.shape)) if seed % 2 else None
    layer = rng.integers(config.layers)
    expected = attention_weights(in_double(config, p), config, tokens, layer, positions)
    for head in range(config.heads):
        found = engine.attention(tokens, int(layer), head, positions)
        assert close(found, expected[:, head], config, scale=0.1)
        assert not found[:, np.triu(np.ones(found.shape[1:], bool), 1)].any()
        assert config.attention == "linear" or np.max(abs(found.sum(axis=2) - 1)) < 1e-5


def test_attention_of_a_text_longer_than_a_chunk(build):
    engine, p = build(SMALL, context=2000)
    tokens = np.random.default_rng(0).integers(0, SMALL.vocab, (2, constant("CHUNK") // 2 + 50))
    expected = attention_weights(in_double(SMALL, p), SMALL, tokens, 1)[:, 3]
    found = engine.attention(tokens, 1, 3)
    assert np.max(abs(found - expected)) < 1e-5 and np.max(abs(found.sum(axis=2) - 1)) < 1e-5


def test_attention_refuses(letters):
    for layer, head in [(-1, 0), (2, 0), (0, -1), (0, 4), (2**31 - 1, 0), (0, -2**31)]:
        refused(f"layer {layer}, head {head} does not exist: the model has 2 layers of 4 heads",
                letters.attention, [[1, 2]], layer, head)
    for tokens in ([], [[]], [1, 2], [[[1]]]):
        refused("give \\(B, T\\)", letters.attention, tokens, 0, 0)
    refused("token 8", letters.attention, [[8]], 0, 0)
    refused("give one each", letters.attention, [[1, 2]], 0, 0, [[0]])
    assert letters.attention([[1]], 0, 0).tolist() == [[[1]]]


# ------------------------------------------------------------------------------------------------
# Sequences

@pytest.mark.parametrize("seed", range(20))
def test_another_continuation_after_rewind(build, seed):
    rng, config = np.random.default_rng(seed), random_config(seed)
    engine, _ = build(config, seed, context=100)
    texts = rng.integers(0, config.vocab, (3, 90))
    length = int(rng.integers(0, 10))
    fresh = []
    for tail in texts[1:]:
        engine.reset(1, 100)
        fresh.append(engine.forward(np.concatenate([texts[0, :length], tail]))[length:])

    engine.reset(2, 200)                # in other company, in other room
    engine.forward(texts[1], np.ones(90, int))
    engine.forward(texts[0])
    for tail, expected in zip(texts[1:], fresh):
        engine.rewind(length)
        assert (engine.length(), engine.length(1)) == (length, 90)
        assert np.array_equal(bits(engine.forward(tail)), bits(expected))


def test_lengths_and_what_rewind_refuses(letters):
    letters.reset(2, 4)
    letters.forward([1, 2, 3], [1, 1, 0])
    assert [letters.length(s) for s in (-1, 0, 1, 2, 2**31 - 1)] == [-1, 1, 2, -1, -1]
    for length, sequence in [(3, 1), (2, 0), (-1, 0), (2**31 - 1, 1), (-2**31, 1)]:
        refused(f"sequence {sequence} has {sequence + 1} tokens, it cannot be rewound to {length}",
                letters.rewind, length, sequence)
    for sequence in (-1, 2, 2**31 - 1):
        refused(f"sequence {sequence} does not exist: mt_reset made 2", letters.rewind, 0, sequence)
    assert [letters.length(s) for s in (0, 1)] == [1, 2]
    letters.rewind(2, 1)                # to what it is
    letters.rewind(0, 1)
    assert [letters.length(s) for s in (0, 1)] == [1, 0]
    letters.reset(2, 4)
    assert [letters.length(s) for s in (0, 1)] == [0, 0]


def test_room_that_no_machine_has(letters):
    """Where memory is refused the engine has no room at all, and it is as before once it gets
    some."""
    before = letters.logits([[1, 2, 3]])
    refused("no memory for 2147483647 sequences of 2147483647 tokens", letters.reset, 2**31 - 1,
            2**31 - 1)
    assert letters.length() == -1
    refused("no sequences: call reset", letters.score, [1], [1])
    refused("no sequences: call reset", letters.rewind, 0)
    assert np.array_equal(bits(letters.logits([[1, 2, 3]])), bits(before))


@pytest.mark.parametrize("call", [
    lambda e: e.reset(2**40, 1), lambda e: e.rewind(2**40), lambda e: e.length(
        2**40), lambda e: e.attention([[1]], 2**40, 0),
])
def test_numbers_of_more_than_32_bits(letters, call):
    letters.reset(1, 4)
    with pytest.raises((MinitronError, OverflowError)):
        call(letters)


# ------------------------------------------------------------------------------------------------
# Generation

def one_by_one(engine, prompt, steps, sampling, seed, ends):
    """Generation spelled out: a loop over forward() and sampler.sample()."""
    engine.reset(1, engine.config["context"])
    row, text, state = engine.forward(prompt)[-1], [], seed % 2**64
    while len(text) < steps:
        token, state = sampler.sample(row, *sampling, state)
        if token in ends:
            break
        text.append(token)
        if engine.length() == engine.config["context"]:
            break
        row = engine.forward([token])[0]
    return text


@pytest.mark.parametrize("seed, count",
                         [(0, 1), (1, 5), (2, 2 * WINDOW - 1), (3, 2 * WINDOW), (4, 5 * WINDOW),
                          (5, 60), (6, 80)])
def test_lists_are_what_a_loop_gives(build, seed, count):
    rng, config, context = np.random.default_rng(seed), random_config(seed + 100), 20
    eos = int(rng.integers(config.vocab)) if seed % 2 else None
    prompts = [rng.integers(0, config.vocab, rng.integers(1, context + 1)).tolist()
               for _ in range(count)]
    stop = np.where(rng.random(count) < 0.5, rng.integers(0, config.vocab, count),
                    -1).tolist() if seed > 1 else None
    engines = [build(config, seed, context=context, eos=eos, threads=threads)[0]
               for threads in (1, 2, 3)]
    for steps, sampling in [(None, (0, 0, 1, 0)), (None, (1.2, 0, 0.95, 0)), (7, (0.8, 5, 1, 0)),
                            (1, (1, 0, 1, 0.01)),
                            (0, (1, 0, 1, 0))]:
        first = 2**64 - 3 if steps is None else 10 * seed
        expected = [one_by_one(engines[0], prompt, context + 1 if steps is None else steps,
                               sampling, first + i,
                               {eos, -1 if stop is None else stop[i]}) for i,
                               prompt in enumerate(prompts)]
        for engine in engines:
            assert engine.generate_tokens(prompts, steps, *sampling, seed=first,
                                          stop=stop) == expected


def test_a_large_model_gives_what_a_loop_gives(build):
    """Its weights do not fit the caches, so that threads share the products instead of the
    prompts."""
    config = ModelConfig(dim=320, layers=1, heads=5, kv_heads=5, head_dim=64, ffn_dim=64,
                         vocab=12001).resolve()
    engines = [build(config, context=12, threads=threads)[0] for threads in (1, 2)]
    prompts = [[i, 2 * i][:1 + i % 2] for i in range(5 * WINDOW + 5)]
    texts = [engine.generate_tokens(prompts, 2, temperature=0.5) for engine in engines]
    assert texts[0] == texts[1]
    for i in (0, 1, 59, 64):
        assert texts[0][i] == one_by_one(engines[1], prompts[i], 2, (0.5, 0, 1, 0), i, {})


def test_a_full_context(build):
    """A text may have one token more than the context holds: the last one is not looked at any
    more."""
    engine, _ = build(SMALL, pieces=LETTERS, context=9, threads=2)
    prompts = ["a" * length for length in range(1, 10)] * 4
    texts = engine.generate(prompts, seed=1)
    assert [len(text) for text in texts] == [10 - len(prompt) for prompt in prompts]
    assert engine.generate(prompts, 3, seed=1) == [text[:3] for text in texts]


def test_stop(build):
    engine, _ = build(SMALL, pieces=LETTERS, context=30, eos=7)
    texts = engine.generate(["ab"] * 6, seed=5)
    stops = [None, "a", b"b", "c", "h", None]
    expected = [text.partition(stop.decode() if isinstance(stop, bytes) else stop)[0] if stop
                else text
                for text, stop in zip(texts, stops)]
    assert expected != texts
    assert engine.generate(["ab"] * 6, seed=5, stop=stops) == expected
    assert engine.generate(["ab"] * 6, seed=5,
                           stop="c") == [text.partition("c")[0] for text in texts]
    assert engine.generate("ab", seed=5, stop="c") == texts[0].partition("c")[0]
    assert engine.generate("ab", seed=5, stop=[None]) == texts[0]
    assert engine.generate([], stop="a") == [] == engine.generate([], stop=[])
    assert engine.generate_tokens([]) == []
    for stop in ("", "ab", b"aa"):
        refused("give a piece of the vocabulary", engine.generate, "ab", stop=stop)
    refused("'X'", engine.generate, "ab", stop="X")
    refused("1 stop tokens for 2 prompts", engine.generate, ["ab", "c"], stop=["a"])


def test_an_overflow_in_a_list(build):
    """One prompt of many fails, in whatever thread: the call fails, in one line, and the engine
    stays usable."""
    config = replace(SMALL, tied=False)
    p = random_weights(config, 0)
    p.embed[7] = 3e38
    for threads in (1, 3):
        engine, _ = build(config, threads=threads, p=p)
        expected = engine.generate_tokens([[1]] * 40, 1)
        for prompts in ([[7]], [[7]] + [[1]] * 40, [[1]] * 40 + [[7]],
                        [[1]] * 20 + [[2, 7]] + [[1]] * 20):
            refused("not finite: the model's weights have overflowed", engine.generate_tokens,
                    prompts, 1)
        refused("token 8 is not in the vocabulary", engine.generate_tokens, [[1]] * 40 + [[8]], 1)
        assert engine.generate_tokens([[1]] * 40, 1) == expected


# ------------------------------------------------------------------------------------------------
# Streams

@pytest.mark.parametrize("named", [
    {}, {"temperature": 0},
    {"temperature": 1.4, "top_k": 5, "top_p": 0.9, "min_p": 0.01, "seed": 3},
    {"steps": 0}, {"steps": 1}, {"steps": 6, "seed": 2**64 - 1}, {"steps": 10**9},
])
def test_a_stream_joined_is_what_generate_gives(build, named):
    engine, _ = build(SMALL, pieces=LETTERS, context=20, bos=2, eos=5)
    for prompt in ("abc", "", "a" * 20):
        pieces = list(engine.stream(prompt, **named))
        assert "".join(pieces) == engine.generate(prompt, **named) and all(
            len(piece) == 1 for piece in pieces)
        assert b"".join(engine.stream(prompt.encode(), **named)) == engine.generate(
            prompt.encode(), **named)


def script(build, text):
    """An engine that says `text` (no byte twice, none of them 0) to its first byte and then ends:
    each byte leads to the next."""
    assert len({*text, 0}) == len(text) + 1
    config = ModelConfig(dim=256, layers=1, heads=1, kv_heads=1, head_dim=2, ffn_dim=0, vocab=256,
                         tied=False).resolve()
    p = Params(config)
    p.norm1[:] = p.norm_f[:] = 1
    p.embed[:] = np.eye(256)
    p.head[list(text[1:] + b"\0"), list(text)] = 1
    return build(config, eos=0, p=p)[0]


@pytest.mark.parametrize("text, pieces", [
    # characters arrive whole
    ("a\u00e9b\u65e5\U0001f600c".encode(), ["\u00e9", "b", "\u65e5", "\U0001f600", "c"]),
    # what is cut off comes at the end
    (b"a\xe6\x97", ["\ufffd"]), (b"ab\xf0\x9f\x98", ["b", "\ufffd"]),
    (b"a\xe6bc", ["\ufffdb", "c"]), (b"a\xffb", ["\ufffd", "b"]),
    (b"a\x97\x98", ["\ufffd", "\ufffd"]), (b"a", []),
])
def test_streams_of_bytes(build, text, pieces):
    engine = script(build, text)
    assert list(engine.stream("a", temperature=0)) == pieces
    assert engine.generate("a", temperature=0) == "".join(pieces) == text[1:].decode(
        errors="replace")
    assert list(engine.stream(b"a", temperature=0)) == [bytes([byte]) for byte in text[1:]]
    for steps in range(len(text) + 2):          # a limit too may fall into a character
        assert "".join(engine.stream("a", steps, temperature=0)) == text[1:1 + steps].decode(
            errors="replace")


def test_an_abandoned_stream(letters):
    expected, logits = letters.generate("ab", seed=1), letters.logits([[1, 2]])
    stream = letters.stream("ab", seed=1)
    assert next(stream) + next(stream) == expected[:2]
    stream.close()
    assert np.array_equal(bits(letters.logits([[1, 2]])), bits(logits))
    started, unused = letters.stream("ab", seed=1), letters.stream("h")
    next(started)
    del started, unused
    assert letters.generate("ab", seed=1) == expected == "".join(letters.stream("ab", seed=1))


def test_stream_refuses(letters):
    refused("longer than the model's context of 12", list, letters.stream("a" * 13))
    refused("needs a prompt", list, letters.stream(""))
    refused("'X'", list, letters.stream("X"))
    refused("out of range", list, letters.stream("a", temperature=-1))
    letters.close()
    refused("closed", list, letters.stream("a"))


def test_stream_refuses_negative_steps(letters):
    refused("steps", list, letters.stream("a", -1))


# ------------------------------------------------------------------------------------------------
# Threads of Python

def test_engines_side_by_side(build):
    """Each is alone with its state, even where they do different things in calls that overlap."""
    tokens = np.random.default_rng(0).integers(0, SMALL.vocab, (4, 60))
    jobs = [lambda e: e.logits(tokens).tobytes(),
            lambda e: e.generate_tokens([[0, 1]] * 30, seed=3),
            lambda e: e.attention(tokens, 1, 2).tobytes()]
    engines = [build(SMALL, seed, threads=threads)[0] for seed, threads in [(0, 1), (1, 2), (2, 1)]]
    expected = [job(engine) for job, engine in zip(jobs, engines)]
    found = [[] for _ in jobs]

    def work(i):
        for _ in range(10):
            found[i].append(jobs[i](engines[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[result] * 10 for result in expected]


def test_calls_release_pythons_lock(build):
    """Python switches threads only where one lets go of the lock, so what the other counts it has
    counted during the call."""
    engine, _ = build(ModelConfig(dim=64, layers=2, heads=2, vocab=64).resolve(), context=2000)
    tokens, wanted = np.zeros(1000, np.int32), np.zeros(1000, bool)
    count, ready, done, interval = 0, threading.Event(), threading.Event(), sys.getswitchinterval()

    def work():
        nonlocal count
        while not done.is_set():
            count += 1
            ready.set()
            time.sleep(1e-4)

    thread = threading.Thread(target=work)
    sys.setswitchinterval(100)
    try:
        thread.start()
        ready.wait()
        counted = 0
        # calls, since on a busy machine the other thread may not get a turn during one
        for _ in range(20):
            engine.reset(3, 1000)
            before = count
            engine.forward(tokens, wanted=wanted)
            counted += count - before
        assert counted > 3
    finally:
        sys.setswitchinterval(interval)
        done.set()
        thread.join()


# ------------------------------------------------------------------------------------------------
# Numbers of other kinds, and what is none

def test_numpys_whole_numbers_are_fine(letters):
    expected = letters.generate("abc", steps=3, temperature=2, seed=5)
    for kind in (np.int32, np.int64, np.uint64):
        assert letters.generate("abc", steps=kind(3), temperature=2, seed=kind(5)) == expected
        assert "".join(
            letters.stream("abc", steps=kind(3), temperature=2, seed=kind(5))) == expected
    assert letters.generate("abc", steps=3, temperature=2, seed=2**64 + 5) == expected


@pytest.mark.parametrize("named",
                         [{"steps": 2.5}, {"steps": 2.0}, {"steps": "3"}, {"seed": 0.5},
                          {"seed": None}])
def test_other_numbers_are_refused(letters, named):
    refused("is not a whole number", letters.generate, "a", **named)
    refused("is not a whole number", lambda: list(letters.stream("a", **named)))


def test_arguments_that_are_missing_or_of_another_shape(letters):
    letters.reset(1, 4)
    refused("the targets are object", letters.score, [1], None)
    refused("not one text", letters.logprobs, "ab", "cd")
    refused("give one each", letters.attention, [[1, 2]], 0, 0, positions=[0, 1])


@pytest.mark.parametrize("threads", [1, 2])
def test_what_evaluates_forgets_the_sequences(build, threads):
    engine, _ = build(SMALL, pieces=LETTERS, threads=threads)
    for evaluate in (lambda: engine.logits(np.zeros((64, 64), int)),
                     lambda: engine.generate(["a"] * 40, steps=2)):
        engine.reset(3, 7)
        engine.forward([1, 2, 3], [2, 2, 2])
        evaluate()
        assert engine.length(2) != 3


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc's loader what it does")
def test_the_library_is_not_unloaded_at_the_end(tmp_path):
    """OpenMP's threads may still be waiting in it then.  A loader that tells nothing, such as
    musl's, leaves no file."""
    environment = os.environ | {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(tmp_path / "loader")}
    script = "from minitron.engine.engine import library; library()"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment)
    told = "".join(path.read_text(errors="replace") for path in tmp_path.glob("loader.*"))
    assert done.returncode == 0 and not re.search(r"libminitron.*destroying", told)
