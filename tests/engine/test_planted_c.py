"""As test_planted.py for run.c: each bug below, planted in a copy of it, makes the test fail that
is named with it.

The tests are called in this process, as it takes long to start others: a bug that writes outside of
its arrays has no place here.
"""
import pytest
import test_engine
import test_int8
import test_library
from helpers import LETTERS, SMALL

from minitron.base.environment import ROOT
from minitron.base.errors import MinitronError

pytestmark = pytest.mark.skipif(not any(ROOT.glob("build/libminitron.*")),
                                reason="the engine is not built: run make")


def lists(build, letters):
    test_library.test_lists_are_what_a_loop_gives(build, 4, 40)


def int8(build, letters):
    test_int8.test_logits_are_those_of_numpy_on_the_dequantised_weights(build, 41)


def logits(build, letters):
    test_engine.test_logits_are_those_of_numpy_in_double(build, 2)


def bits(build, letters):
    test_engine.test_bits_do_not_depend_on_batch_or_calls(build, 0)


def wanted(build, letters):
    test_engine.test_wanted_chooses_rows(build)


def failed_forward(build, letters):
    test_engine.test_failed_forward_changes_nothing(letters)


def attention(build, letters):
    test_library.test_attention_is_that_of_plain_ops(build, 16)


def long_attention(build, letters):
    test_library.test_attention_of_a_text_longer_than_a_chunk(build)


def score(build, letters):
    test_library.test_score_is_numpys_log_softmax(build, 0)


def long_scores(build, letters):
    test_library.test_score_of_long_texts(build, 2)


def rewind(build, letters):
    test_library.test_another_continuation_after_rewind(build, 0)


def full_context(build, letters):
    test_library.test_a_full_context(build)


# (the bug, the test that must fail, text in run.c, its replacement)
PLANTED = [
    ("a token sees the one after it", logits,
     "largest(scores + i * S, slots + i)", "largest(scores + i * S, slots + i + 1)"),
    ("a run's later tokens see too little", bits,
     "for (size_t s = slots; s < slots + i; s++)\n                for",
     "for (size_t s = slots; s + 1 < slots + i; s++)\n                for"),
    ("padding is not masked", logits, "scores[s] = -HUGE_VALF;", "scores[s] = 0;"),
    ("scales of the first group only", int8, "first += GROUP, scales += step)", "first += GROUP)"),
    ("a group's sum begins with that of the one before", int8,
     "part[t][j] = 0;", "part[t][j] = first ? part[t][j] : 0;"),
    ("embedding's scales a place off", int8,
     "m->groups, i, k / GROUP)", "m->groups, i, (k + 1) / GROUP)"),
    ("keys in the first tile only", attention,
     "float *keys = key(e, l, b, g, s, 0);", "float *keys = key(e, l, b, g, s % TILE, 0);"),
    ("pairs rotated the other way", logits,
     "fma1(a, cosine[j], -b * sine[j])", "fma1(a, cosine[j], b * sine[j])"),
    ("another key head", attention, "g = h / (e->H / e->G)", "g = h % e->G"),
    ("rewind changes nothing", rewind, "    e->length[sequence] = (size_t)length;\n", ""),
    ("another prompt's stop token", lists, "token == g->stop[job]", "token == g->stop[s]"),
    ("stop token in the text", lists, "if (!ended) g->tokens",
     "if (token != e->config.eos) g->tokens"),
    ("another prompt's sampler", lists, "&g->random[job]", "&g->random[s]"),
    ("the prompt before not forgotten", lists, "            e->length[s] = 0;\n", ""),
    ("the context is full too early", full_context,
     "|| e->length[s] == e->context)", "|| e->length[s] + 1 == e->context)"),
    ("rows one too early", logits,
     "n + rows++ * D, x + t * D,", "n + rows++ * D, x + (t - (t > 0)) * D,"),
    ("a chunk's logits over those before", wanted, "if (logits) logits += ", "if (0) logits += "),
    ("a chunk's attention over that before", long_attention,
     "if (e->watched) e->watched += ", "if (0) e->watched += "),
    ("targets one token off", score, "V, targets[start + i]);",
     "V, targets[start + (int32_t)row]);"),
    ("rows overwritten before they are scored", long_scores,
     "for (int32_t i = n - 1; i >= 0; i--) {          // backwards, see log_probability\n"
     "            if (!wanted[i]) continue;\n"
     "            const float p = log_probability(logits + --row * V,",
     "row = 0;\n        for (int32_t i = 0; i < n; i++) {\n"
     "            if (!wanted[i]) continue;\n"
     "            const float p = log_probability(logits + row++ * V,"),
    ("a failed call adds tokens", failed_forward,
     "j < i - (status != MT_OK)", "j < i - 2 * (status != MT_OK)"),
]


def test_run_c_as_it_is_passes(built, build):
    """Otherwise the failures below would tell nothing."""
    built("cc", "-O0")
    for test in {bug[1] for bug in PLANTED}:
        test(build, build(SMALL, pieces=LETTERS, context=12)[0])


@pytest.mark.parametrize(("test", "old", "new"), [bug[1:] for bug in PLANTED],
                         ids=[bug[0] for bug in PLANTED])
def test_planted_bug_is_caught(built, build, tmp_path, test, old, new):
    text = (ROOT / "run.c").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (tmp_path / "run.c").write_text(text.replace(old, new), encoding="utf-8")
    built("cc", "-O0", source=tmp_path / "run.c")
    letters = build(SMALL, pieces=LETTERS, context=12)[0]
    with pytest.raises((AssertionError, MinitronError, pytest.fail.Exception)):
        test(build, letters)
