"""Progress before the loss shows it: scores of heads, norms and spectra; FLOPs; a training's curve.

On cases made by hand where the truth is known, and against second ways to count.
"""
import dataclasses

import numpy as np
import pytest
from helpers import in_double, random_config, random_params
from training_helpers import TINY, records, run, signal_at

import train
from minitron.base.environment import ROOT
from minitron.base.rng import Random
from minitron.base.terminal import Interrupted
from minitron.data import tasks
from minitron.data.config import Config
from minitron.data.positions import position_ids
from minitron.engine import model_file as export
from minitron.measure import evaluate, heads, hidden, record
from minitron.model import transformer as model
from minitron.model.config import ModelConfig
from minitron.model.flops import forward_flops, train_flops
from minitron.model.optim import learning_rate
from minitron.model.params import Params, init
from minitron.model.transformer import loss_and_gradients
from minitron.training.parallel import Workers
from minitron.training.run import HELD_OUT_TOKENS

needs_engine = pytest.mark.skipif(
    not any(ROOT.glob("build/libminitron.*")), reason="the engine is not built: run make")


# ---- heads ---------------------------------------------------------------------------------------


def test_patterns_by_hand():
    tokens = np.array([[0, 1, 0, 2, 1, 1]])
    previous = np.argwhere(heads.previous_token_pattern(tokens)[0]).tolist()
    assert previous == [[t, t - 1] for t in range(1, 6)]
    # after the 0 of place 0; after the 1 of place 1, twice; after that of place 4: the query itself
    induction = np.argwhere(heads.induction_pattern(tokens)[0]).tolist()
    assert induction == [[2, 1], [4, 2], [5, 2], [5, 5]]


def looking(places):
    """Attention (1, 1, 1, T, T) of one head that looks from t at places[t] alone"""
    return np.eye(len(places))[places][None, None, None]


def test_perfect_heads_have_the_score_that_one_can_work_out():
    """A previous-token head misses the first row, which has nothing before it; an induction head
    the first of three periods.
    """
    tokens = np.tile(np.arange(5), 3)[None]
    previous = looking([0, *range(14)])
    induction = looking([*range(5), *range(1, 11)])
    assert heads.head_scores(previous, tokens) == {"previous": [[14 / 15]], "induction": [[0]]}
    assert heads.head_scores(induction, tokens) == {"previous": [[0]], "induction": [[10 / 15]]}
    previous[..., 0, :] = 0                     # as linear attention may
    assert heads.head_scores(-previous, tokens)["previous"] == [[1]]


def test_heads_are_told_apart():
    """Weights of 2 layers, 3 rows and 4 heads, one of which looks back: its score is in place"""
    tokens = np.random.RandomState(0).randint(0, 9, (3, 6))
    weights = np.zeros((2, 3, 4, 6, 6)) + np.eye(6)
    weights[1, :, 2] = np.eye(6, k=-1)
    expected = np.zeros((2, 4))
    expected[1, 2] = 1
    assert heads.head_scores(weights, tokens)["previous"].tolist() == expected.tolist()


def test_linear_attention_counts_by_size():
    """Half of it on the token before, of either sign"""
    weights = np.array([[0.0, 0, 0], [1, -1, 0], [0, -3, 3]])[None, None, None]
    assert heads.head_scores(weights, np.arange(3)[None])["previous"] == [[0.5]]


def test_shares_of_nothing_are_zero():
    """Attention of linear heads may vanish, and so may what differs between the rows of a table."""
    assert heads.head_scores(np.zeros((1, 1, 1, 3, 3)), np.arange(3)[None])["induction"] == [[0]]
    assert hidden.fourier(np.ones((8, 3))) == 0 == hidden.fourier(np.zeros((1, 3)))


def test_repeated_rows_are_repeated():
    rows = heads.repeated(Random(1), 50, 7, 3, 4)
    assert rows.shape == (4, 21)
    assert (rows[:, :7] == rows[:, 7:14]).all() and (rows[:, :7] == rows[:, 14:]).all()
    assert len({tuple(row) for row in rows.tolist()}) == 4 and rows.min() >= 0 and rows.max() < 50


@needs_engine
@pytest.mark.parametrize("seed", range(40))
def test_attention_weights_are_those_of_run_c(build, seed):
    config, r = random_config(seed), np.random.RandomState(seed)
    engine, p = build(config, seed)
    tokens = r.randint(0, config.vocab, (2, r.choice([1, 7, 20, 70])))
    positions = np.cumsum(r.randint(0, 4, tokens.shape), axis=1) if seed % 2 else None
    weights = heads.attention_weights(in_double(config, p), config, tokens, positions)
    assert weights.shape == (config.layers, 2, config.heads, tokens.shape[1], tokens.shape[1])
    assert not np.triu(weights, 1).any()
    scale = 1 if config.attention == "softmax" else max(1, np.max(abs(weights)))
    tolerance = 1e-5 if config.dim > 3 else 2e-4        # as in test_engine.py
    for layer, head in np.ndindex(config.layers, config.heads):
        found = engine.attention(tokens, layer, head, positions)
        assert np.max(abs(found - weights[layer, :, head])) < tolerance * scale
    if config.attention == "softmax":
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-12)


def test_large_scores_do_not_overflow_attention_weights():
    config = ModelConfig(dim=8, layers=1, heads=2, head_dim=4, vocab=5, qk_norm=False).resolve()
    p = random_params(config, 0)
    p.wqkv[:] *= 1e3
    weights = heads.attention_weights(p, config, np.arange(5)[None])
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-12)


def test_plain_is_plain():
    """A cache of plain attention ends with its weights as one array, whatever level trains."""
    config = ModelConfig(dim=8, layers=1, heads=2, head_dim=4, vocab=5).resolve()
    p, tokens = random_params(config, 0), np.arange(5)[None]
    for plain in (True, False):
        _, (_, [c_block], *_) = model.model_forward(
            p, dataclasses.replace(config, plain=plain), tokens, np.arange(5))
        assert isinstance(c_block["attention"][-1], np.ndarray) == plain


SYMBOLS, WIDE = 16, 32


def induction_model():
    """Two layers of attention alone that are an induction head.

    The stream: which token it is, which came before it, and a 1.  Rotary frequencies are
    10^(-3j/4), j = 0..15.  Layer 0 has queries and keys from the 1 alone, on the fast pairs 0 to 2;
    a key is rotated one step further, so that it fits the query after it best.  It writes the token
    that it reads into the second part of the stream.  Layer 1 looks for a place whose second part
    is the present token, on the channels from 16 on, whose pairs rotate by less than 1e-5 per step.
    """
    config = ModelConfig(dim=2 * SYMBOLS + 1, layers=2, heads=1, head_dim=WIDE, ffn_dim=0,
                         rope_theta=1e12, qk_norm=False, vocab=SYMBOLS).resolve()
    p = Params(config, np.float64)
    for name, tensor in p.tensors().items():
        if name.startswith("norm"):
            tensor[...] = 1
    channels = np.eye(2 * SYMBOLS + 1)
    token, before, one = channels[:SYMBOLS], channels[SYMBOLS:-1], channels[-1]
    p.embed[:] = token + one
    q, k, v = (p.wqkv[:, start:start + WIDE] for start in (0, WIDE, 2 * WIDE))
    turn = np.exp(1j * 10 ** (-0.75 * np.arange(3)))
    for pair in range(3):
        q[0, 2 * pair] = 10 * one
        k[0, 2 * pair], k[0, 2 * pair + 1] = 10 * turn[pair].real * one, 10 * turn[pair].imag * one
    v[0, :SYMBOLS] = token
    undo_norm = (2 / 33) ** 0.5                                     # of a stream with two ones
    p.wo[0, SYMBOLS:-1, :SYMBOLS] = np.eye(SYMBOLS) * undo_norm
    q[1, SYMBOLS:], k[1, SYMBOLS:] = 10 * token, 10 * before
    return config, p


def test_an_induction_head_made_by_hand_is_found():
    """Its one flaw is the first row's: nothing comes before it, so it looks at itself and takes its
    own token for the one before it.  Queries with that token then find place 0 too: in the second
    of three periods half of their attention goes there, a third in the last.
    """
    config, p = induction_model()
    r = np.random.RandomState(0)
    tokens = np.array([np.tile(r.permutation(SYMBOLS)[:8], 3) for _ in range(4)])
    scores = heads.head_scores(heads.attention_weights(p, config, tokens), tokens)
    assert scores["previous"][0, 0] == pytest.approx(23 / 24, abs=1e-9)
    expected = (16 - 1 / 2 - 1 / 3) / 24
    assert scores["induction"][1, 0] == pytest.approx(expected, abs=1e-4)   # its pairs rotate a bit
    assert scores["induction"][0, 0] < 0.01 and scores["previous"][1, 0] < 0.2


# ---- hidden progress -----------------------------------------------------------------------------


def test_norm_and_distance_of_known_vectors():
    config = ModelConfig(
        dim=4, layers=1, heads=1, head_dim=2, ffn_dim=0, vocab=2, qk_norm=False).resolve()
    p = Params(config)
    p.embed[0, 1], p.wo[0, 3, 1] = 3, -4
    assert hidden.norm(p) == 5 and hidden.distance(p, p.flat.copy()) == 0
    start = p.flat.copy()
    p.norm_f[:2] += [5, 12]
    assert hidden.distance(p, start) == 13


@pytest.mark.parametrize("p", [59, 60])
@pytest.mark.parametrize("frequencies", [(1, 7, 20), (3, 4, 29), (2, 10, 30)])
def test_fourier_of_three_sines_is_one(p, frequencies):
    """30 is the last frequency of 60 hours, half a turn per step; of 59 hours it is 29's mirror."""
    r, hours = np.random.RandomState(0), np.arange(p)[:, None]
    table = 5 + sum(r.randn(6) * np.cos(2 * np.pi * f * hours / p + r.randn(6))
                    for f in frequencies)
    assert hidden.fourier(table) == pytest.approx(1, abs=1e-12)
    assert hidden.fourier(table, top=2) < 0.99
    assert hidden.fourier(table.astype(np.float32)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("p", [7, 58, 59, 64])
def test_fourier_is_that_of_the_whole_spectrum(p):
    """Each frequency and its mirror image, p less it, are one; all but the mean add up to the
    variance.
    """
    table = np.random.RandomState(p).randn(p, 3)
    power = (abs(np.fft.fft(table, axis=0)) ** 2).sum(axis=1)
    pairs = [sum({f: power[f], p - f: power[p - f]}.values()) for f in range(1, p // 2 + 1)]
    assert sum(pairs) == pytest.approx(p * ((table - table.mean(axis=0)) ** 2).sum(), rel=1e-12)
    for top in (1, 2, 3):
        share = sum(sorted(pairs)[-top:]) / sum(pairs)
        assert hidden.fourier(table, top) == pytest.approx(share, rel=1e-12)


def test_fourier_of_random_rows_is_what_the_largest_of_many_have():
    """The power of each of the n frequencies is exponentially distributed, and of n shares of a
    whole like these the i-th largest has (1/i + ... + 1/n) / n on average.
    """
    p, top, n = 59, 5, 29
    expected = sum(sum(1 / j for j in range(i, n + 1)) for i in range(1, top + 1)) / n
    r = np.random.RandomState(0)
    found = [hidden.fourier(r.randn(p, 1), top) for _ in range(400)]
    assert top / n < expected < 0.6
    assert np.mean(found) == pytest.approx(expected, abs=5 * np.std(found) / 20)


# ---- FLOPs ---------------------------------------------------------------------------------------


def plain_forward(p, c, tokens):
    """One sequence, token by token, with a cache of keys and values

    -> logits (T, V), FLOPs of each token's products
    """
    logits, flops, K, share = [], [], c.head_dim, c.heads // c.kv_heads
    kept = [([], []) for _ in range(c.layers)]

    def product(w, x):
        flops[-1] += 2 * w.size
        return w @ x

    def norm(x, gain):
        return gain * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + c.norm_eps)

    def turned(x, t):
        theta = c.rope_theta ** (-np.arange(0, K, 2) / K) if c.rope_theta else np.zeros(K // 2)
        return (np.ascontiguousarray(x).view(complex) * np.exp(1j * t * theta)).view(float)

    for t, token in enumerate(tokens):
        flops.append(0)
        x = p.embed[token].copy()
        for l in range(c.layers):
            heads = product(p.wqkv[l], norm(x, p.norm1[l])).reshape(-1, K)
            q, k, v = np.split(heads, [c.heads, c.heads + c.kv_heads])
            if c.qk_norm:
                q, k = norm(q, p.norm_q[l]), norm(k, p.norm_k[l])
            for old, new in zip(kept[l], (turned(k, t), v)):
                old.append(new)
            keys, values = (np.array(old) for old in kept[l])
            y = []
            for h, query in enumerate(turned(q, t)):
                a = product(keys[:, h // share], query) * K**-0.5
                if c.attention == "softmax":
                    a = np.exp(a - a.max()) / np.exp(a - a.max()).sum()
                y.append(product(values[:, h // share].T, a))
            x += product(p.wo[l], np.concatenate(y))
            if c.ffn_dim:
                gate, up = product(p.w13[l], norm(x, p.norm2[l])).reshape(2, -1)
                x += product(p.w2[l], gate / (1 + np.exp(-gate)) * up)
        logits.append(product(p.embed if c.tied else p.head, norm(x, p.norm_f)))
    return np.array(logits), flops


@pytest.mark.parametrize("seed", range(25))
def test_forward_flops_are_those_of_a_plain_forward(seed):
    """Which is the model, logit by logit; and token by token is as much work as all at once."""
    config, time = random_config(seed), 6
    tokens = np.random.RandomState(seed).randint(0, config.vocab, time)
    p = random_params(config, seed)
    logits, flops = plain_forward(p, config, tokens)
    expected = model.logits(p, config, tokens[None])[0]
    np.testing.assert_allclose(logits, expected, rtol=1e-7, atol=1e-9)
    assert [forward_flops(config, 1, 1, 1, past=t) for t in range(time)] == flops
    assert forward_flops(config, 1, time, time) == sum(flops)
    assert forward_flops(config, 1, 4, 4, past=2) == sum(flops[2:])
    head = 2 * config.vocab * config.dim
    assert forward_flops(config, 3, time, 5) == 3 * (sum(flops) - time * head) + 5 * head
    targets = np.full((3, time), -1)
    targets[1, 1:] = 0
    expected = 3 * forward_flops(config, 3, time, 5)
    assert train_flops(config, np.zeros((3, time), int), targets) == expected


@pytest.mark.parametrize("seed", range(8))
def test_train_flops_are_those_of_all_products(monkeypatch, seed):
    """Counted at each product of one forward and backward of the plain ops.

    One token a sequence, so that no key is in the future; all rows scored; a larger vocabulary than
    there are tokens.  So nothing of the model is saved.
    """
    flops = []

    class Counted(np.ndarray):
        def __matmul__(self, other):
            result = np.asarray(self) @ np.asarray(other)
            flops.append(2 * result.size * self.shape[-1])
            return result.view(Counted)

        def __rmatmul__(self, other):
            return other.view(Counted) @ self

    config = dataclasses.replace(random_config(seed), plain=True, vocab=9)
    p = random_params(config, seed)
    for name, tensor in p.tensors().items():
        setattr(p, name, tensor.view(Counted))
    inputs, targets = np.zeros((7, 1), int), np.arange(7)[:, None]
    loss_and_gradients(p, Params(config, np.float64), config, inputs, targets, 1.0)
    assert sum(flops) == train_flops(config, inputs, targets)


# ---- a training's curve --------------------------------------------------------------------------

PLACED = [{"positions": "coupled"}, {"positions": "random"},
          {"positions": "random", "task": "parity", "length": 6}]


@pytest.mark.parametrize("options", PLACED)
def test_training_with_positions_is_deterministic_and_resumes_exactly(
        tmp_path, monkeypatch, options):
    config = dataclasses.replace(TINY, **options)
    whole = run(tmp_path, config, "whole.bin")
    assert run(tmp_path, config, "again.bin") == whole
    plain = run(tmp_path, dataclasses.replace(config, positions="plain"), "plain.bin")
    assert (export.parse_model(plain)[1].flat != export.parse_model(whole)[1].flat).any()
    signal_at(monkeypatch, 3, 12)
    for resume in (False, True):
        with pytest.raises(Interrupted):
            run(tmp_path, config, "stopped.bin", resume)
    assert run(tmp_path, config, "stopped.bin", resume=True) == whole
    uninterrupted, *_, resumed = records(tmp_path)
    assert {name for name in resumed if resumed[name] != uninterrupted[name]} <= {"seconds"}


@pytest.mark.parametrize("most", [7, 40])
def test_random_positions_are_sorted_draws(most):
    """Of `most` ids, none twice, each as likely as any other."""
    config = Config(length=1, positions="random", position_range=most).resolve()
    ids = position_ids(tasks.load(config), config, Random(1), 1, (4000, 6))
    assert ids.shape == (4000, 6) and (np.diff(ids, axis=1) > 0).all()
    assert ids.min() >= 0 and ids.max() < most
    share = np.bincount(ids.ravel(), minlength=most) / 4000
    assert share == pytest.approx(6 / most, abs=5 * 0.5 / 4000**0.5)       # five deviations
    assert (ids == position_ids(tasks.load(config), config, Random(1), 1, (4000, 6))).all()


def test_coupled_positions_are_the_tasks_own():
    """123+456=0579: digits of equal weight share an id; the last token, END, is never an input."""
    config = Config(length=3, positions="coupled").resolve()
    ids = position_ids(tasks.load(config), config, Random(1), 3, (2, 12))
    assert ids.tolist() == [[3, 2, 1, 0, 3, 2, 1, 5, 4, 3, 2, 1]] * 2
    plain = dataclasses.replace(config, positions="plain")
    assert position_ids(tasks.load(config), plain, Random(1), 3, (2, 12)) is None


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_gradient_with_positions_does_not_depend_on_shards(shards):
    """Each shard has its own rows' positions; in float64 a row with another's would show."""
    r = np.random.RandomState(0)
    config = Config(dim=18, layers=2, heads=3, kv_heads=1, shards=shards).resolve()
    p, whole = random_params(config, 0), Params(config, np.float64)
    inputs, targets = r.randint(0, config.vocab, (2, 5, 6))
    positions = np.cumsum(r.randint(1, 9, (5, 6)), axis=1)
    expected, _ = loss_and_gradients(p, whole, config, inputs, targets, 1 / 30, positions)
    with Workers(config) as workers:
        workers.gradients = [Params(config, np.float64) for _ in range(shards)]
        loss, _, g = workers.gradient(p, inputs, targets, positions)
    assert loss == pytest.approx(expected, rel=1e-13)
    tolerance = 1e-14 * np.abs(whole.flat).max()
    np.testing.assert_allclose(g.flat, whole.flat, rtol=1e-12, atol=tolerance)


@pytest.mark.parametrize("options, watched", [
    ({"task": "markov", "length": 12, "positions": "random"}, {"previous", "induction"}),
    ({"task": "mqar", "length": 20, "heads": 2, "layers": 2}, {"previous", "induction"}),
    ({"task": "modular", "length": 11}, {"fourier"}), ({"task": "parity", "length": 8}, set()),
])
def test_curve_shows_what_the_task_is_watched_with(tmp_path, options, watched):
    """Its last point is that of the model that was written."""
    config = dataclasses.replace(TINY, **options).resolve()
    _, p, *_ = export.parse_model(run(tmp_path, config))
    [entry] = records(tmp_path)
    for point in entry["curve"]:
        common = {"step", "loss", "n", "nll", "token", "exact", "norm", "distance"}
        assert point.keys() == common | watched
    last, task = entry["curve"][-1], tasks.load(config)
    norms, moved = ([point[name] for point in entry["curve"]] for name in ("norm", "distance"))
    assert last["norm"] == hidden.norm(p)
    assert last["distance"] == hidden.distance(p, init(config).flat)
    assert 0 < moved[0] < moved[-1] and len(set(norms)) == 4
    if "fourier" in watched:
        assert last["fourier"] == hidden.fourier(p.embed[:11])
    if "previous" in watched:
        limit = HELD_OUT_TOKENS // task.width
        rows = evaluate.problems(task, config, config.length, "valid", limit)
        ids = None if rows.positions is None else rows.positions[:heads.ROWS]
        tokens = rows.inputs[:heads.ROWS]
        weights = heads.attention_weights(p, config, tokens, ids)
        scores = heads.head_scores(weights, tokens, rows.targets[:heads.ROWS] >= 0)
        for name, score in scores.items():
            assert last[name] == score.round(4).tolist()
        assert np.shape(last["previous"]) == (config.layers, config.heads)


def test_held_out_split_without_a_problem_is_watched_too(tmp_path):
    config = dataclasses.replace(
        TINY, task="induction", length=4, options="segment=2,symbols=4", test_items=5)
    run(tmp_path, config)
    [entry] = records(tmp_path)
    assert all((point["n"] == 0) == ("previous" not in point) for point in entry["curve"])
    assert entry["curve"][0]["n"] == 0 and entry["curve"][0]["nll"] is None


def test_reached_is_the_first_evaluation_that_shows_it():
    curve = [{"step": step, "exact": exact, "nll": nll} for step, exact, nll in [
        (10, None, None), (20, 0.2, 1.0), (30, 0.5, 0.99), (40, 0.4, 0.3), (50, 0.99, 0.1),
        (60, 1.0, 0.05)]]
    steps = record.first_steps_to(curve)
    assert steps == {"exact 0.5": 30, "exact 0.99": 50, "nll 1": 30, "nll 0.1": 60}
    assert record.first_steps_to(curve[:2]) == record.first_steps_to([]) == dict.fromkeys(steps)


@pytest.mark.parametrize("floor, last", [(1, 2.0), (0.1, 0.2), (0, 0)])
def test_learning_rate_ends_at_its_floor(tmp_path, monkeypatch, floor, last):
    rates = [learning_rate(step, 20, 2.0, 5, floor) for step in range(1, 21)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0], rel=1e-15)
    assert rates[-1] == pytest.approx(last, abs=1e-15) and min(rates[4:]) == rates[-1]
    used, original = [], train.adamw

    def adamw(*arguments):
        used.append(arguments[6])
        original(*arguments)

    monkeypatch.setattr(train, "adamw", adamw)
    run(tmp_path, dataclasses.replace(TINY, lr=2.0, warmup=5, lr_floor=floor))
    assert used == rates and (floor < 1 or set(used[4:]) == {2.0})
