"""Each bug below, planted in a copy of the source, is caught by the test named with it.

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
     "dw = dy.T @ x", "dw = 1.01 * (dy.T @ x)", "test_ops.py::test_gradient[ops-linear-grouped]"),
    ("repeated token counted once", "ops.py",
     "np.add.at(dw, tokens, dx)", "dw[tokens] += dx",
     "test_ops.py::test_gradient[ops-embedding-blocks]"),
    ("rows not taken get a gradient", "ops.py",
     "dx = np.zeros((N, dy.shape[1]), dy.dtype)", "dx = np.ones((N, dy.shape[1]), dy.dtype)",
     "test_ops.py::test_gradient[ops-rows-grouped]"),
    ("1/D twice in rmsnorm", "ops.py",
     "n * np.mean(dn * n, axis=-1, keepdims=True))",
     "n * np.mean(dn * n, axis=-1, keepdims=True) / len(gain))",
     "test_ops.py::test_gradient[ops-rmsnorm-wide]"),
    ("gain forgotten in dx", "ops.py",
     "    dn = gain * dy\n", "    dn = dy\n", "test_ops.py::test_gradient[ops-rmsnorm-grouped]"),
    ("gain's gradient without the norm", "ops.py",
     "np.sum((dy * n).reshape", "np.sum(dy.reshape",
     "test_ops.py::test_gradient[ops-rmsnorm_heads-wide]"),
    ("norm over all heads", "ops.py",
     "mean = np.mean(x * x, axis=-1, keepdims=True)",
     "mean = np.mean(x * x, axis=tuple(range(1, x.ndim)), keepdims=True)",
     "test_model.py::test_equals_automatic_differentiation[20-plain]"),
    ("norm of an overflow is 0", "ops.py",
     "** -0.5 + 0 * mean", "** -0.5",
     "test_ops.py::test_norm_of_an_overflow_is_not_finite[minitron.model.ops]"),
    ("fast norm of an overflow is 0", "fast.py",
     "eps) + 0 * mean", "eps)",
     "test_ops.py::test_norm_of_an_overflow_is_not_finite[minitron.model.fast]"),
    ("rotation repeated, not undone", "ops.py",
     "rope_forward(dy, cis.conj())", "rope_forward(dy, cis)",
     "test_ops.py::test_gradient[ops-rope-grouped]"),
    ("rope's slowest pair too slow", "ops.py",
     "np.arange(0, head_dim, 2) / head_dim", "np.arange(0, head_dim, 2) / (head_dim - 1)",
     "test_model.py::test_equals_automatic_differentiation[20-plain]"),
    ("no 1/sqrt(K)", "ops.py",
     "s = queries @ transpose(keys) * K**-0.5", "s = queries @ transpose(keys)",
     "test_model.py::test_equals_automatic_differentiation[20-plain]"),
    ("no 1/sqrt(K) in the gradient", "ops.py",
     "keepdims=True)) * K**-0.5", "keepdims=True))",
     "test_ops.py::test_gradient[ops-attention-grouped]"),
    ("linear attention: no 1/sqrt(K)", "ops.py",
     "np.tril(queries @ transpose(keys)) * K**-0.5", "np.tril(queries @ transpose(keys))",
     "test_model.py::test_equals_automatic_differentiation[18-plain]"),
    ("attention in float64", "ops.py",
     "return e / e.sum(axis=-1, keepdims=True)",
     "return e / e.sum(axis=-1, keepdims=True, dtype=float)",
     "test_ops.py::test_float32_stays_float32[ops-attention-grouped]"),
    ("softmax mask off by one", "ops.py",
     "np.tri(S, T, T - S, dtype=bool)", "np.tri(S, T, T - S + 1, dtype=bool)",
     "test_model.py::test_no_token_sees_the_future[20-plain]"),
    ("linear mask off by one", "ops.py",
     "a = np.tril(queries @ transpose(keys)) ", "a = np.tril(queries @ transpose(keys), 1) ",
     "test_model.py::test_no_token_sees_the_future[18-plain]"),
    ("linear mask lost in the gradient", "ops.py",
     "ds = np.tril(dout @ transpose(values))", "ds = (dout @ transpose(values))",
     "test_ops.py::test_gradient[ops-linear_attention-grouped]"),
    ("sum(da * a) lost", "ops.py",
     "ds = a * (da - np.sum(da * a, axis=-1, keepdims=True))", "ds = a * (da)",
     "test_ops.py::test_gradient[ops-attention-grouped]"),
    ("heads that share not summed", "ops.py",
     "dk = (transpose(ds) @ queries).sum(axis=2, keepdims=True)           # R queries",
     "dk = (transpose(ds) @ queries)[:, :, :1]           # R queries",
     "test_ops.py::test_gradient[ops-attention-grouped]"),
    ("(1 - s) lost in silu'", "ops.py",
     "(s + silu * (1 - s))", "(s + silu)", "test_ops.py::test_gradient[ops-swiglu-grouped]"),
    ("gate and up swapped", "ops.py",
     "    dgate = dy * up * (s", "    dgate = dy * gate * (s",
     "test_ops.py::test_gradient[ops-swiglu-grouped]"),
    ("large logits not shifted", "ops.py",
     "z = logits - logits.max(axis=-1, keepdims=True)", "z = logits",
     "test_ops.py::test_large_numbers_do_not_overflow[minitron.model.ops]"),
    ("backward writes into its cache", "ops.py",
     "    p = np.exp(log_p)\n", "    p = np.exp(log_p, out=log_p)\n",
     "test_ops.py::test_nothing_is_changed_and_backward_repeats[ops-cross_entropy-grouped]"),
    ("repeated token counted once, by product", "fast.py",
     "return one_hot @ dx",
     "return dx[one_hot.argmax(axis=1)] * one_hot.any(axis=1, keepdims=True)",
     "test_ops.py::test_gradient[fast-embedding-grouped]"),
    ("1/D twice in the fast rmsnorm", "fast.py",
     "mean = product @ gain * (1 / len(gain))", "mean = product @ gain * (1 / len(gain)**2)",
     "test_ops.py::test_gradient[fast-rmsnorm-wide]"),
    ("no 1/sqrt(K) in the fast gradient", "fast.py",
     "values_t = np.multiply(transpose(by_head(v, G)), K**-0.5,",
     "values_t = np.multiply(transpose(by_head(v, G)), 1,",
     "test_ops.py::test_gradient[fast-attention-grouped]"),
    ("fast softmax mask off by one", "fast.py",
     "np.tri(stop - start, stop, start, dtype)", "np.tri(stop - start, stop, start + 1, dtype)",
     "test_model.py::test_no_token_sees_the_future[20-fast]"),
    ("large scores not shifted", "fast.py",
     "total.max() < SAFE", "total.max() > 0",
     "test_fast.py::test_attention_equals_text[1-all above]"),
    ("small scores not shifted", "fast.py",
     "1 / SAFE < total.min()", "0 <= total.min()",
     "test_fast.py::test_attention_equals_text[5-all below]"),
    ("NaN taken for safe", "fast.py",
     "(1 / SAFE < total.min() and total.max() < SAFE)",
     "not (total.min() <= 1 / SAFE or total.max() >= SAFE)",
     "test_fast.py::test_attention_equals_text[97-one key]"),
    ("sum over blocks keeps the last only", "fast.py",
     "total[..., :x.shape[-2], :] += x", "total[..., :x.shape[-2], :] = x",
     "test_ops.py::test_gradient[fast-attention-blocks]"),
    ("heads that share not summed by the drop-in", "fast.py",
     "x[:, :, 0] if x.shape[2] == 1 else x.sum(axis=2)", "x[:, :, 0]",
     "test_ops.py::test_gradient[fast-attention-grouped]"),
    ("sum(da * a) added", "fast.py",
     "ds -= sums", "ds += sums", "test_ops.py::test_gradient[fast-attention-grouped]"),
    ("(1 - s) lost in the fast silu'", "fast.py",
     "dgate = dy - dup", "dgate = dy.copy()", "test_ops.py::test_gradient[fast-swiglu-grouped]"),
    ("fast backward writes into its cache", "fast.py",
     "dlogits = e * (dloss / total)[:, None]",
     "dlogits = np.multiply(e, (dloss / total)[:, None], out=e)",
     "test_ops.py::test_nothing_is_changed_and_backward_repeats[fast-cross_entropy-grouped]"),
    ("a shared array may be written to", "fast.py",
     "    array = np.ones(size, dtype)\n    array.flags.writeable = False\n",
     "    array = np.ones(size, dtype)\n",
     "test_fast.py::test_shared_arrays_are_shared_and_read_only"),
    ("residual around the feed-forward lost on the way back", "transformer.py",
     "        dx = dx + dx_norm\n", "        dx = dx_norm\n",
     "test_model.py::test_gradient_is_the_derivative[20-fast]"),
    ("residual around attention lost on the way back", "transformer.py",
     "return dx + dx_norm", "return dx_norm",
     "test_model.py::test_gradient_is_the_derivative[20-fast]"),
    ("up's part of the gradient lost", "transformer.py",
     "dh_gate + dh_up", "dh_gate", "test_model.py::test_gradient_is_the_derivative[20-fast]"),
    ("keys not rotated back", "transformer.py",
     '    dk = op.rope_backward(dk, c["rope_k"])\n', "",
     "test_model.py::test_gradient_is_the_derivative[20-fast]"),
    ("gradient of the embedding's rows lost in the first layer", "transformer.py",
     '        dx = op.embedding_backward(dx, c["places_x"]) ',
     '        dx = 0 * op.embedding_backward(dx, c["places_x"]) ',
     "test_model.py::test_first_layer_by_token_and_by_row_are_the_same[20-fast]"),
    ("dx of the scored rows lost", "transformer.py",
     'dx = op.rows_backward(dx, c["rows_x"])', 'dx = 0 * op.rows_backward(dx, c["rows_x"])',
     "test_model.py::test_rows_that_are_not_scored_are_left_out[18-7-fast]"),
    ("scored rows scattered to the front", "ops.py",
     "    dx[rows] = dy\n", "    dx[:len(dy)] = dy\n",
     "test_model.py::test_gradient_is_the_derivative[20-fast]"),
    ("tied gradients not added", "transformer.py",
     "g.embed += dhead", "g.embed[:] = dhead",
     "test_model.py::test_gradient_is_the_derivative[18-fast]"),
    ("gradients added up over calls", "transformer.py",
     "dx, g.norm_f[:] = op.rmsnorm_backward(dh, c_norm)",
     "dx, dgain = op.rmsnorm_backward(dh, c_norm); g.norm_f += dgain",
     "test_model.py::test_gradient_is_assigned_whatever_was_there[18-fast]"),
    ("--plain trains with the drop-ins", "transformer.py",
     "return ops if config.plain else fast", "return fast", "test_hidden.py::test_plain_is_plain"),
    ("decay on norms", "params.py",
     '0 if name.startswith("norm") else 1', "1",
     "test_optim.py::test_100_steps_equal_a_second_adamw[0]"),
    ("bias correction dropped", "optim.py",
     "m_hat = m / (1 - beta1**step)", "m_hat = m",
     "test_optim.py::test_100_steps_equal_a_second_adamw[0]"),
    ("decay in the moments as well", "optim.py",
     "(1 - beta1) * (g - m)", "(1 - beta1) * (g + decay * p - m)",
     "test_optim.py::test_100_steps_equal_a_second_adamw[0]"),
    ("peak one step late", "optim.py",
     "peak * step / warmup", "peak * (step - 1) / warmup",
     "test_optim.py::test_learning_rate[100-10]"),
    ("a run resumed on another NumPy without a word", "checkpoint.py",
     "before[-1] != here and not anyway", "before[-1] != here and anyway",
     "test_train.py::test_resume_with_other_numerics_is_refused_unless_anyway[change0]"),
    ("path of the data in the key", "data/config.py",
     '        values.pop("data", None)\n', "",
     "test_config.py::test_the_key_has_the_data_and_not_its_path"),
    ("number of another type in the key", "model/config.py",
     "return float(value) + 0.0", "return value",
     "test_config.py::test_equal_values_are_one[lr-1.0-others1]"),
    ("metric that is not finite taken for a number", "run.py",
     "if bad := record.nonfinite_names(metrics):", "if False:",
     "test_diverged.py::test_a_metric_of_the_test[place0]"),
    ("each shard's own mean", "parallel.py",
     "1 / scored, positions)", "1 / max(int((pieces[shard][1] >= 0).sum()), 1), positions)",
     "test_optim.py::test_shards_add_up_to_the_batch[5-3]"),
    ("BLAS keeps its threads", "blas.py",
     "            set_threads(1)\n", "            pass\n",
     "test_blas.py::test_the_last_of_several_runs_restores_the_threads"),
    ("a run that ends gives its threads back while another runs", "blas.py",
     "            if users == 0:", "            if users >= 0:",
     "test_blas.py::test_the_last_of_several_runs_restores_the_threads"),
    ("a shard forgotten", "parallel.py",
     "total, *others = ", "total, _, *others = ",
     "test_optim.py::test_shards_add_up_to_the_batch[5-3]"),
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
    ("the largest of logits that are not finite is an answer", "evaluate.py",
     "logits[~np.isfinite(logits).all(axis=1)] = np.nan", "pass",
     "test_instruments.py::test_logits_that_are_not_finite_have_no_answer[minus inf]"),
    ("edits of the columns that rows share", "evaluate.py",
     "if (scored != answer).any():", "if False:",
     "test_instruments.py::"
     "test_edit_is_undefined_where_rows_have_their_answers_in_different_columns"),
    ("groups merged by int()", "contract.py",
     'not in "biu"', 'not in "biuf"',
     "test_own_task.py::test_a_group_is_a_whole_number"),
    ("a ledger's escapes reach the terminal", "commands/report.py",
     "map(printable, records.values())", "records.values()",
     "test_report.py::test_a_terminal_obeys_no_ledger[escape]"),
    ("induction looks at what was before", "measure/heads.py",
     "pattern[:, :, 1:] = tokens[:, :, None] == tokens[:, None, :-1]",
     "pattern[:, :, :-1] = tokens[:, :, None] == tokens[:, None, 1:]",
     "test_hidden.py::test_patterns_by_hand"),
    ("half a turn a step counted twice", "hidden.py",
     "if len(table) % 2 == 0:", "if False:",
     "test_hidden.py::test_fourier_is_that_of_the_whole_spectrum[58]"),
    ("a record under another cell's key", "sweep.py",
     'if result["key"] != key:', "if False:",
     "test_failures.py::test_a_record_of_another_key_is_refused"),
    ("a record kept that cannot be read back", "sweep.py",
     "if complaint is not None:", "if False:",
     "test_failures.py::test_any_exception_in_a_cell_is_a_record_and_the_sweep_goes_on"),
    ("a ledger says which data is opened", "sweep.py",
     'record | {"config": dataclasses.asdict(configs[key])}', "record",
     "test_failures.py::test_a_ledger_does_not_say_which_files_are_opened"),
    ("a worker with another NumPy", "cells.py",
     "    if here != there:", "    if False:",
     "test_failures.py::test_a_worker_with_other_software_is_refused[NumPy]"),
    ("a worker with another task", "cells.py",
     "repr(tasks.load(config).version), repr(version)", "version, version",
     "test_failures.py::test_a_machine_with_another_task_or_without_the_data_is_refused"),
    ("attention counted in full", "flops.py",
     "time * (time + 1) // 2", "time * time",
     "test_hidden.py::test_forward_flops_are_those_of_a_plain_forward[0]"),
    ("ids in any order", "positions.py",
     "np.sort(rng.different(batch, config.position_range, time), axis=1)",
     "rng.different(batch, config.position_range, time)",
     "test_hidden.py::test_random_positions_are_sorted_draws"),
    ("a prompt ends at the first label alone", "training/run.py",
     "if answer.dtype == bool:", "if True:",
     "test_export.py::test_lengths_of_prompts[settings5-2-13]"),
    ("rows begin with bos where there is one", "training/run.py",
     "begins &= bool(", "begins |= bool(",
     "test_export.py::test_rows_begin_with_bos_if_all_of_them_do[settings1-False]"),
    ("NaN is measured", "loaded_model.py",
     "if not np.isfinite(numbers).all():", "if False:",
     "test_eval_and_heads.py::test_a_model_that_has_overflowed_is_not_measured[eval-nan-False]"),
    ("another task file is run", "loaded_model.py",
     "if hashlib.sha256(content).hexdigest()[:12] not in version.split():", "if False:",
     "test_eval_and_heads.py::test_a_task_file_is_run_only_if_it_is_that_of_the_training"),
]


@pytest.fixture
def source(tmp_path):
    """A copy of what the tests above need."""
    for folder in ("minitron", "tasks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    ignored = shutil.ignore_patterns("__pycache__", "fuzz", "conftest.py")
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=ignored)
    for name in ("pyproject.toml", "train.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def path_of(source, test):
    """"test_ops.py::test_gradient" with its folder in front"""
    [path] = (source / "tests").rglob(test.partition("::")[0])
    return f"{path}{test.removeprefix(path.name)}"


def run_tests(source, tests):
    """pytest's exit code, 0 if all passed, 1 if one failed, others if none ran; and its output"""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [path_of(source, test) for test in tests]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_the_copy_as_it_is_passes(source):
    """Otherwise the failures below would tell nothing."""
    code, output = run_tests(source, sorted({test for *_, test in PLANTED}))
    assert code == 0, output


@pytest.mark.parametrize(
    ("file", "old", "new", "test"), [bug[1:] for bug in PLANTED], ids=[bug[0] for bug in PLANTED])
def test_planted_bug_is_caught(source, file, old, new, test):
    [path] = (source / "minitron").rglob(file)
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    code, output = run_tests(source, [test])
    assert code == 1 and "1 failed" in output, output
