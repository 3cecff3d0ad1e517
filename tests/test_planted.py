"""The tests see what they are there to see: each bug below, planted in a copy of the source, is caught by the test named with it.

Most of them still train, only worse, so nobody would notice them otherwise.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# (what is wrong, file in minitron/, text, its replacement, the test that must fail)
PLANTED = [
    ("1% error in dw", "ops.py",
     "return dy @ w, dy.T @ x", "return dy @ w, 1.01 * (dy.T @ x)", "test_ops.py::test_gradient[linear-grouped]"),
    ("repeated token counted once", "ops.py",
     "dw[seen] = np.add.reduceat(dx[order], starts, axis=0)", "dw[tokens] = dx", "test_ops.py::test_gradient[embedding-grouped]"),
    ("1/D twice in rmsnorm", "ops.py",
     "n * np.mean(dn * n, axis=-1, keepdims=True))", "n * np.mean(dn * n, axis=-1, keepdims=True) / len(w))",
     "test_ops.py::test_gradient[rmsnorm-wide]"),
    ("rope turned on, not back", "ops.py",
     "rope_forward(dy, c_rope.conj())", "rope_forward(dy, c_rope)", "test_ops.py::test_gradient[rope-grouped]"),
    ("rope's slowest pair too slow", "ops.py",
     "-np.arange(0, head_dim, 2) / head_dim)", "-np.arange(0, head_dim, 2) / (head_dim - 1))",
     "test_model.py::test_equals_automatic_differentiation[20]"),
    ("no 1/sqrt(K) on the way back", "ops.py",
     "    ds *= K**-0.5\n", "", "test_ops.py::test_gradient[attention-grouped]"),
    ("attention in float64", "ops.py",
     "grouped = group_queries(q * K**-0.5, ", "grouped = group_queries(q / np.array([K], float) ** 0.5, ",
     "test_ops.py::test_float32_stays_float32[attention-grouped]"),
    ("softmax mask off by one", "ops.py",
     "-np.inf, dtype), 1)", "-np.inf, dtype), 2)", "test_model.py::test_no_token_sees_the_future[20]"),
    ("linear mask off by one", "ops.py",
     "    s *= np.tril(np.ones((T, T), q.dtype))", "    s *= np.tril(np.ones((T, T), q.dtype), 1)",
     "test_model.py::test_no_token_sees_the_future[18]"),
    ("(1 - s) lost in silu'", "ops.py",
     "(s + silu * (1 - s))", "(s + silu)", "test_ops.py::test_gradient[swiglu-grouped]"),
    ("gate and up swapped", "ops.py",
     "gate, up = np.split", "up, gate = np.split", "test_ops.py::test_gradient[swiglu-grouped]"),
    ("backward writes into its cache", "ops.py",
     "dlogits = probability * dloss", "dlogits = np.multiply(probability, dloss, out=probability)",
     "test_ops.py::test_nothing_is_changed_and_backward_repeats[cross_entropy-grouped]"),
    ("residual lost on the way back", "model.py",
     "dx = dx + dr     ", "dx = dr     ", "test_model.py::test_gradient_is_the_derivative[20]"),
    ("keys not turned back", "model.py",
     '        dk = rope_backward(dk, c["rope"])\n', "", "test_model.py::test_gradient_is_the_derivative[20]"),
    ("tied gradients not added", "model.py",
     "g.embed += dhead", "g.embed[:] = dhead", "test_model.py::test_gradient_is_the_derivative[18]"),
    ("gradients added up over calls", "model.py",
     "g.norm_f[:] = rmsnorm_backward(dn, c_norm_f)", "dw = rmsnorm_backward(dn, c_norm_f); g.norm_f += dw",
     "test_model.py::test_gradient_is_assigned_whatever_was_there[18]"),
    ("decay on norms", "params.py",
     '0 if name.startswith("norm") else 1', "1", "test_optim.py::test_100_steps_equal_a_second_adamw[0]"),
    ("bias correction dropped", "optim.py",
     "m / (1 - beta1**step)", "m", "test_optim.py::test_100_steps_equal_a_second_adamw[0]"),
    ("decay in the moments as well", "optim.py",
     "m += (1 - beta1) * (g - m)", "m += (1 - beta1) * (g + decay * p - m)",
     "test_optim.py::test_100_steps_equal_a_second_adamw[0]"),
    ("peak one step late", "optim.py",
     "peak * step / warmup", "peak * (step - 1) / warmup", "test_optim.py::test_learning_rate[100-10]"),
    ("each shard's own mean", "parallel.py",
     "1 / scored)", "1 / max(int((pieces[shard][1] >= 0).sum()), 1))", "test_optim.py::test_shards_add_up_to_the_batch[5-3]"),
    ("a shard forgotten", "parallel.py",
     "self.gradients[1:]", "self.gradients[2:]", "test_optim.py::test_shards_add_up_to_the_batch[5-3]"),
    ("shards write into one buffer", "parallel.py",
     "[Params(config) for _ in range(config.shards)]", "[Params(config)] * config.shards",
     "test_optim.py::test_bits_do_not_depend_on_threads"),
]


@pytest.fixture
def source(tmp_path):
    """A copy of what the tests above need."""
    for folder in ("minitron", "tasks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/helpers.py", "tests/test_ops.py", "tests/test_model.py", "tests/test_optim.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run_tests(source, tests):
    """pytest's exit code, 0 where all passed, 1 where one failed (others: it could not run them), and what it printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests)]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_the_copy_as_it_is_passes(source):
    """Otherwise the failures below would tell nothing."""
    code, output = run_tests(source, sorted({test for *_, test in PLANTED}))
    assert code == 0, output


@pytest.mark.parametrize(("file", "old", "new", "test"), [bug[1:] for bug in PLANTED], ids=[bug[0] for bug in PLANTED])
def test_planted_bug_is_caught(source, file, old, new, test):
    path = source / "minitron" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    code, output = run_tests(source, [test])
    assert code == 1 and "1 failed" in output, output
