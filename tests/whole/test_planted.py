"""The tests see what they are there to see: each bug below, planted in a copy of the source, is caught by the test named with it.

Most of them still train, only worse, so nobody would notice them otherwise.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# (what is wrong, file in minitron/, text, its replacement, the test that must fail)
PLANTED = [
    ("1% error in dw", "ops.py",
     "return dy @ w, dy.T @ x", "return dy @ w, 1.01 * (dy.T @ x)", "test_ops.py::test_gradient[linear-grouped]"),
    ("repeated token counted once", "ops.py",
     "dw[seen] = np.add.reduceat(dx[order], starts, axis=0)", "dw[tokens] = dx", "test_ops.py::test_gradient[embedding-blocks]"),
    ("repeated token counted once, small vocabulary", "ops.py",
     "return one_hot @ dx", "return dx[one_hot.argmax(axis=1)] * one_hot.any(axis=1, keepdims=True)",
     "test_ops.py::test_gradient[embedding-grouped]"),
    ("1/D twice in rmsnorm", "ops.py",
     "ones(D, dy.dtype) * (-1 / D)", "ones(D, dy.dtype) * (-1 / D**2)", "test_ops.py::test_gradient[norm_linear-wide]"),
    ("gain forgotten in dw", "ops.py",
     "    dscaled *= gain\n", "", "test_ops.py::test_gradient[norm_linear-grouped]"),
    ("only one matrix of the stack", "ops.py",
     "dn = dn.sum(axis=0)", "dn = dn[0].copy()", "test_ops.py::test_gradient[norm_linear_stacked-grouped]"),
    ("head norm over all heads", "ops.py",
     "r = 1 / np.sqrt((x * x) @ spread.T * (1 / K) + eps)",
     "r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) + 0 * (x @ spread.T)",
     "test_ops.py::test_op_equals_slow[head_norm-grouped]"),
    ("rope turned on, not back", "ops.py",
     "rope_forward(dy, c_rope.conj())", "rope_forward(dy, c_rope)", "test_ops.py::test_gradient[rope-grouped]"),
    ("rope's slowest pair too slow", "ops.py",
     "-np.arange(0, head_dim, 2) / head_dim)", "-np.arange(0, head_dim, 2) / (head_dim - 1))",
     "test_model.py::test_equals_automatic_differentiation[20]"),
    ("no 1/sqrt(K)", "transformer.py",
     "np.tile(cis * config.head_dim**-0.5, config.heads)", "np.tile(cis, config.heads)",
     "test_model.py::test_equals_automatic_differentiation[20]"),
    ("no 1/sqrt(K) on the way back", "transformer.py",
     'rope_backward(dq, c["rope_q"])', 'rope_backward(dq, c["rope_q"] * config.head_dim**0.5)',
     "test_model.py::test_gradient_is_the_derivative[20]"),
    ("attention in float64", "ops.py",
     "np.empty((B, T, H), q.dtype)", "np.empty((B, T, H))", "test_ops.py::test_float32_stays_float32[attention-grouped]"),
    ("softmax mask off by one", "ops.py",
     "    mask = past(start, stop, s.dtype)\n", "    mask = np.tril(np.ones((stop, stop), s.dtype), 1)[start:]\n",
     "test_model.py::test_no_token_sees_the_future[20]"),
    ("linear mask off by one", "ops.py",
     "    s *= past(0, T, q.dtype)", "    s *= np.tril(np.ones((T, T), q.dtype), 1)",
     "test_model.py::test_no_token_sees_the_future[18]"),
    ("large scores not shifted", "ops.py",
     "        s -= s.max(axis=-1, keepdims=True)\n", "", "test_ops.py::test_attention_equals_slow[5-all above]"),
    ("small scores not shifted", "ops.py",
     "-SAFE < s.min() and s.max() < SAFE", "s.max() < SAFE", "test_ops.py::test_attention_equals_slow[5-all below]"),
    ("the future in a row's maximum", "ops.py",
     "        s[..., mask == 0] = -np.inf\n", "", "test_ops.py::test_attention_equals_slow[65-one key]"),
    ("NaN taken for safe", "ops.py",
     "-SAFE < s.min() and s.max() < SAFE", "not (s.min() <= -SAFE or s.max() >= SAFE)",
     "test_ops.py::test_nan_among_large_numbers_stays_nan"),
    ("sum over blocks keeps the last only", "ops.py",
     "total[:len(s)] += product", "total[:len(s)] = product", "test_ops.py::test_gradient[attention-blocks]"),
    ("heads that share not summed", "ops.py",
     "product = product.sum(axis=3) if s.shape[3] > 1 else product[:, :, :, 0]", "product = product[:, :, :, 0]",
     "test_ops.py::test_gradient[attention-grouped]"),
    ("sum(da * a) lost", "ops.py",
     "    right[..., K, :] = 1\n", "    right[..., K, :] = 0\n", "test_ops.py::test_gradient[attention-grouped]"),
    ("sum(da * a) added", "ops.py",
     "row_sums *= -inverse", "row_sums *= inverse", "test_ops.py::test_gradient[attention-grouped]"),
    ("(1 - s) lost in silu'", "ops.py",
     "np.subtract(dy, dup, out=dgate)", "np.copyto(dgate, dy)", "test_ops.py::test_gradient[swiglu-grouped]"),
    ("gate and up swapped", "ops.py",
     "gate, up = u\n", "up, gate = u\n", "test_ops.py::test_gradient[swiglu-grouped]"),
    ("backward writes into its cache", "ops.py",
     "dlogits = e * (dloss / total)[:, None]", "dlogits = np.multiply(e, (dloss / total)[:, None], out=e)",
     "test_ops.py::test_nothing_is_changed_and_backward_repeats[cross_entropy-grouped]"),
    ("a shared array may be written to", "ops.py",
     "        array.flags.writeable = False\n", "", "test_ops.py::test_shared_arrays_are_shared_and_read_only"),
    ("residual lost on the way back", "transformer.py",
     "dr += dx     ", "pass         ", "test_model.py::test_gradient_is_the_derivative[20]"),
    ("residual around attention lost on the way back", "transformer.py",
     "        dr += dx\n", "", "test_model.py::test_gradient_is_the_derivative[20]"),
    ("keys not turned back", "transformer.py",
     '    dk = rope_backward(dk, c["rope_k"])\n', "", "test_model.py::test_gradient_is_the_derivative[20]"),
    ("the table's gradient not added to the embedding's", "transformer.py",
     "        g.embed += dembed\n", "        pass\n", "test_model.py::test_looked_up_and_computed_first_layer_are_the_same[20]"),
    ("dx of the scored rows not scattered", "transformer.py",
     'dx, dy = (scatter_rows(d, c["rows"], batch * time) for d in (dx, dy))',
     'dx, dy = np.zeros((batch * time, dx.shape[1]), dx.dtype), scatter_rows(dy, c["rows"], batch * time)',
     "test_model.py::test_rows_that_are_not_scored_are_left_out[18-7]"),
    ("scored rows scattered to the front", "transformer.py",
     "    out[rows] = x\n", "    out[:len(x)] = x\n", "test_model.py::test_gradient_is_the_derivative[20]"),
    ("tied gradients not added", "transformer.py",
     "g.embed += dhead", "g.embed[:] = dhead", "test_model.py::test_gradient_is_the_derivative[18]"),
    ("gradients added up over calls", "transformer.py",
     "dx, g.norm_f[:], dhead = norm_linear_backward(dlogits, c_head)",
     "dx, dgain, dhead = norm_linear_backward(dlogits, c_head); g.norm_f += dgain",
     "test_model.py::test_gradient_is_assigned_whatever_was_there[18]"),
    ("decay on norms", "params.py",
     '0 if name.startswith("norm") else 1', "1", "test_optim.py::test_100_steps_equal_a_second_adamw[0]"),
    ("bias correction dropped", "optim.py",
     "scale1, scale2 = 1 / (1 - beta1**step)", "scale1, scale2 = 1.0", "test_optim.py::test_100_steps_equal_a_second_adamw[0]"),
    ("decay in the moments as well", "optim.py",
     "t = g - m\n", "t = g + decay * p - m\n",
     "test_optim.py::test_100_steps_equal_a_second_adamw[0]"),
    ("peak one step late", "optim.py",
     "peak * step / warmup", "peak * (step - 1) / warmup", "test_optim.py::test_learning_rate[100-10]"),
    ("each shard's own mean", "parallel.py",
     "1 / scored, positions)", "1 / max(int((pieces[shard][1] >= 0).sum()), 1), positions)",
     "test_optim.py::test_shards_add_up_to_the_batch[5-3]"),
    ("a shard forgotten", "parallel.py",
     "total, *others = ", "total, _, *others = ", "test_optim.py::test_shards_add_up_to_the_batch[5-3]"),
    ("last piece of a vector left out", "parallel.py",
     "for i in range(count)]", "for i in range(max(count - 1, 1))]", "test_optim.py::test_pieces_cover_a_vector_once"),
    ("shards write into one buffer", "parallel.py",
     "[Params(config) for _ in range(config.shards)]", "[Params(config)] * config.shards",
     "test_optim.py::test_bits_do_not_depend_on_threads"),
    ("each shard with the last shard's positions", "parallel.py",
     "for array in (inputs, targets, positions)",
     "for array in (inputs, targets, None if positions is None else positions[::-1])",
     "test_hidden.py::test_gradient_with_positions_does_not_depend_on_shards[2]"),
    ("p(right) counted once in the Brier score", "evaluate.py",
     "- 2 * np.exp(hit) + 1", "- np.exp(hit) + 1", "test_instruments.py::test_metrics_by_hand"),
    ("generation is given the right answers", "evaluate.py",
     "inputs[:, t + 1:t + 2] = answers[:, t:t + 1]", "pass",
     "test_instruments.py::test_greedy_follows_its_own_errors"),
    ("a fifth for a tenth", "evaluate.py",
     "rank > count - count // 10", "rank > count - count // 5",
     "test_instruments.py::test_in_context_gain_is_the_last_tenth_less_the_first"),
    ("no insertions", "evaluate.py",
     "np.minimum(previous[:, j + 1], d[:, j]) + 1", "previous[:, j + 1] + 1",
     "test_instruments.py::test_levenshtein_equals_its_recursion"),
    ("induction looks at what was before", "measure/heads.py",
     "pattern[:, :, 1:] = tokens[:, :, None] == tokens[:, None, :-1]",
     "pattern[:, :, :-1] = tokens[:, :, None] == tokens[:, None, 1:]", "test_hidden.py::test_patterns_by_hand"),
    ("half a turn a step counted twice", "hidden.py",
     "if len(table) % 2:", "if True:", "test_hidden.py::test_fourier_is_that_of_the_whole_spectrum[58]"),
    ("all keys for every block of queries", "flops.py",
     "(stop - start) * stop", "(stop - start) * time", "test_hidden.py::test_executed_flops_are_those_of_all_products[0-66]"),
    ("ids in any order", "positions.py",
     "np.sort(rng.different(batch, config.position_range, time), axis=1)", "rng.different(batch, config.position_range, time)",
     "test_hidden.py::test_random_positions_are_sorted_draws"),
]


@pytest.fixture
def source(tmp_path):
    """A copy of what the tests above need."""
    for folder in ("minitron", "tasks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    ignored = shutil.ignore_patterns("__pycache__", "fuzz", "conftest.py")
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=ignored)
    for name in ("pyproject.toml", "train.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def path_of(source, test):
    """"test_ops.py::test_gradient" with its folder in front"""
    [path] = (source / "tests").rglob(test.partition("::")[0])
    return str(path) + test[len(path.name):]


def run_tests(source, tests):
    """pytest's exit code, 0 where all passed, 1 where one failed (others: it could not run them), and what it printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(path_of(source, test) for test in tests)]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_the_copy_as_it_is_passes(source):
    """Otherwise the failures below would tell nothing."""
    code, output = run_tests(source, sorted({test for *_, test in PLANTED}))
    assert code == 0, output


@pytest.mark.parametrize(("file", "old", "new", "test"), [bug[1:] for bug in PLANTED], ids=[bug[0] for bug in PLANTED])
def test_planted_bug_is_caught(source, file, old, new, test):
    [path] = (source / "minitron").rglob(file)
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    code, output = run_tests(source, [test])
    assert code == 1 and "1 failed" in output, output
