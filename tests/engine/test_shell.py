"""./run, the program: the same model as Engine, and a citizen of the shell.

It prints the bytes that Engine generates.  Whatever is wrong, it says so in one line
on standard error, prints nothing on standard output, and exits with the code that `./run -h`
documents: 1 usage, 2 bad model file, 4 failed while running.
"""
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minitron import Engine
from minitron.engine.model_file import FLOAT32, INT8, Vocabulary, write_model
from minitron.model.config import ModelConfig
from minitron.model.params import Params

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "run"
BUILT = RUN.exists() and any(ROOT.glob("build/libminitron.*"))
pytestmark = pytest.mark.skipif(not BUILT, reason="the engine is not built: run make")
USAGE, BAD_FILE, FAILED = 1, 2, 4
LETTERS = [bytes([byte]) for byte in b"abcdefgh"]


def write(path, pieces, context=24, bos=None, eos=None, dtype=FLOAT32, provenance=None, **about):
    """A model file with these pieces and random weights, so small that its texts vary."""
    config = ModelConfig(dim=16, layers=1, heads=2, vocab=len(pieces)).resolve()
    p = Params(config)
    p.flat[:] = np.random.default_rng(0).standard_normal(p.flat.size) / 2
    write_model(path, config, p, Vocabulary(pieces, context, bos, eos, 0.75, **about),
                provenance or {"task": "none", "note": "untrained"}, dtype)
    return path


@pytest.fixture
def model(tmp_path):
    return write(tmp_path / "model.bin", LETTERS)


def run(*arguments, stdin=b"", stdout=subprocess.PIPE):
    """The finished process.  The time limit is there to turn a hang into a failure."""
    return subprocess.run([RUN, *map(str, arguments)], input=stdin, stdout=stdout,
                          stderr=subprocess.PIPE, timeout=60)


def printed(*arguments, stdin=b""):
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def complains(code, *arguments, stdin=b""):
    """It exits with this code after one line on standard error and nothing on standard output.  ->
    that line"""
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.startswith(b"run: ") and done.stderr.endswith(b"\n") and done.stderr.count(
        b"\n") == 1
    return done.stderr.decode()


# ------------------------------------------------------------------------------------------------
# What it prints

@pytest.mark.parametrize("flags, named", [
    ("-n 5", {"steps": 5}), ("-n 1", {"steps": 1}), ("-t 0", {"temperature": 0}),
    ("-t 2.5", {"temperature": 2.5}),
    ("-k 2", {"top_k": 2}), ("-p 0.5", {"top_p": 0.5}), ("-m 0.3", {"min_p": 0.3}),
    ("-s 1", {"seed": 1}), ("-s 18446744073709551615", {"seed": 2**64 - 1}),
    ("-t 1.5 -k 5 -p 0.9 -m 0.01 -s 3 -n 9",
     {"temperature": 1.5, "top_k": 5, "top_p": 0.9, "min_p": 0.01, "seed": 3, "steps": 9}),
])
def test_flags_are_those_of_generate(model, flags, named):
    with Engine(model) as engine:
        expected = engine.generate(b"abc", **named)
        assert expected != engine.generate(b"abc")      # the flag makes a difference
    assert printed(model, "-i", "abc", *flags.split()) == b"abc" + expected + b"\n"
    assert printed(*flags.split(), "-i", "abc", model) == b"abc" + expected + b"\n"


def test_without_flags_and_with_threads(model):
    with Engine(model) as engine:
        # at the temperature that the file recommends, with seed 0
        expected = b"abc" + engine.generate(b"abc") + b"\n"
        assert expected != b"abc" + engine.generate(b"abc", temperature=1) + b"\n"
    assert printed(model, "-i", "abc") == expected
    assert printed(model, "-i", "abc", "-j", "2") == expected


def test_prompts_from_files_and_standard_input(tmp_path, model):
    expected = printed(model, "-i", "abc")
    # the last newline is dropped, as this model has none
    for content in (b"abc", b"abc\n"):
        (tmp_path / "prompt").write_bytes(content)
        assert printed(model, "-f", tmp_path / "prompt") == expected
        assert printed(model, "-i", "-", stdin=content) == expected
    with_newline = write(tmp_path / "newline.bin", [*LETTERS[:7], b"\n"])
    with Engine(with_newline) as engine:
        expected = b"abc\n" + engine.generate(b"abc\n") + b"\n"
    assert printed(with_newline, "-i", "-", stdin=b"abc\n") == expected


def test_empty_prompt_is_bos(tmp_path):
    model = write(tmp_path / "bos.bin", LETTERS, bos=3)
    with Engine(model) as engine:
        expected = engine.generate(b"") + b"\n"
    assert printed(model) == printed(model, "-i", "") == printed(model, "-i", "-") == printed(
        model, "-f", os.devnull) == expected


def test_it_stops_at_the_end_token(tmp_path, model):
    text = printed(model, "-i", "abc", "-t", "0")[:-1]
    last = max(text[3:], key=text[3:].index)        # of all letters the one that comes latest
    ending = write(tmp_path / "eos.bin", LETTERS, eos=b"abcdefgh".index(last))
    assert printed(ending, "-i", "abc", "-t", "0") == text[:text.index(last, 3)] + b"\n"


def test_bytes_pass_through(tmp_path):
    model = write(tmp_path / "bytes.bin", [bytes([byte]) for byte in range(256)], context=600)
    prompt = np.random.default_rng(0).permutation(np.arange(256, dtype=np.uint8)).tobytes()
    (tmp_path / "prompt").write_bytes(prompt)
    with Engine(model) as engine:
        expected = engine.generate(prompt, temperature=1)
    assert len(set(expected)) > 50
    assert printed(model, "-t", "1", "-f", tmp_path / "prompt") == prompt + expected + b"\n"
    assert printed(model, "-t", "1", "-i", "-", stdin=prompt) == prompt + expected + b"\n"


def test_utf8_characters_pass_through(tmp_path):
    model = write(tmp_path / "utf8.bin", [c.encode() for c in "a\u00e9\u65e5\u672c\U0001f600"])
    with Engine(model) as engine:
        expected = engine.generate("\u65e5a\U0001f600")
    assert printed(model, "-i",
                   "\u65e5a\U0001f600").decode() == "\u65e5a\U0001f600" + expected + "\n"


def test_info(model):
    text = printed(model, "--info").decode()
    with Engine(model) as engine:
        assert f"{engine.parameters} parameters" in text
        for said in ("dim 16, layers 1, heads 2 of width 16, key/value heads 2, ffn 48, "
                     "vocabulary 8, context 24 tokens",
                     "softmax attention, rope theta 10000, norm eps 1e-05, tied head",
                     "temperature 0.75"):
            assert said in text
    assert text.splitlines()[-1] == '{"note": "untrained", "task": "none"}'


def test_int8(tmp_path):
    model = write(tmp_path / "int8.bin", LETTERS, dtype=INT8)
    with Engine(model) as engine:
        assert printed(model, "--info").startswith(
            f"{model}: {engine.parameters} parameters, int8\n".encode())
        assert printed(model, "-i", "abc") == b"abc" + engine.generate(b"abc") + b"\n"
    assert b"parameters, float32\n" in printed(write(tmp_path / "float32.bin", LETTERS), "--info")


def test_help(model):
    text = printed("-h")
    assert text.startswith(b"usage: run MODEL") and text == printed("--help") == printed(
        model, "-n", "3", "-h")
    for flag in ("-i", "-f", "-n", "-t", "-k", "-p", "-m", "-s", "-j", "-h",
                 "--score", "--logprobs", "--attention", "--info"):
        assert f"\n  {flag} ".encode() in text


# ------------------------------------------------------------------------------------------------
# Scores, log-probabilities, attention, speed

def scores(line):
    """The numbers of --score's line -> tokens, [nll, perplexity, bits per byte], [their standard
    errors]"""
    number = r"([\d.]+)"
    found = re.fullmatch(
        rf"{number} tokens: nll {number} \+- {number}, perplexity {number} \+- {number}, "
                         rf"bits per byte {number} \+- {number}\n", line.decode())
    tokens, *numbers = map(float, found.groups())
    return int(tokens), numbers[::2], numbers[1::2]


def score(engine, texts):
    """The same by hand: each text, a list of tokens, in windows of the context that begin where the
    last one ended."""
    context, logprobs, size = engine.config["context"], [], 0
    for text in texts:
        for start in range(0, len(text) - 1, context):
            window, targets = text[start:start + context], text[start + 1:start + 1 + context]
            logits = engine.logits([window[:len(targets)]])[0].astype(np.float64)
            chosen = logits[np.arange(len(targets)), targets]
            logprobs.append(
                chosen - logits.max(axis=1) - np.log(
                    np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)))
            size += len(engine.decode(targets))
    nll = -np.concatenate(logprobs)
    mean, error = nll.mean(), nll.std() / len(nll) ** 0.5
    bits = len(nll) / size / np.log(2)
    return len(nll), [mean, np.exp(mean), mean * bits], [error, np.exp(mean) * error, error * bits]


def scored_alike(line, engine, texts):
    found, expected = scores(line), score(engine, texts)
    assert found[0] == expected[0]
    # four or five digits are printed
    np.testing.assert_allclose(found[1:], expected[1:], rtol=2e-5, atol=6e-5)


WORDS = [b"a", b"b", b"ab", "\u00e9".encode(), b"\xe6", b"\x97", b"\xa5", b"\n"]


@pytest.mark.parametrize("bos, begins", [(None, False), (3, False), (3, True)])
@pytest.mark.parametrize("length", [3, 23, 24, 25, 26, 49, 300])
def test_score(tmp_path, bos, begins, length):
    """A text of a model that knows newlines is one text, whatever lines it has.

    bos stands before it if it did in training, and is not scored.
    """
    model = write(tmp_path / "model.bin", WORDS, bos=bos, begins_with_bos=begins)
    with Engine(model) as engine:
        tokens = engine.encode(
            engine.decode(np.random.default_rng(length).integers(0, 8, 2 * length)))[:length]
        (tmp_path / "text").write_bytes(engine.decode(tokens))
        line = printed(model, "--score", tmp_path / "text")
        scored_alike(line, engine, [[bos] * (begins and tokens[0] != bos) + tokens])
        assert printed(model, "--score", "-", "-j", "2", stdin=engine.decode(tokens)) == line


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("dtype", [FLOAT32, INT8])
def test_score_of_lines(tmp_path, begins, dtype):
    """Where the model knows no newline each line is a text; an empty one is none."""
    model = write(tmp_path / "model.bin", LETTERS, bos=7, dtype=dtype, begins_with_bos=begins)
    lines = [b"abc", b"", b"h", b"", b"", b"deadbeef" * 7, b"ga"]
    (tmp_path / "text").write_bytes(b"\n".join(lines))
    with Engine(model) as engine:
        line = printed(model, "--score", tmp_path / "text")
        scored_alike(line, engine,
                     [[7] * (begins and text[:1] != b"h") + engine.encode(text) for text in lines])
    (tmp_path / "text").write_bytes(b"\n" + b"\n".join(lines) + b"\n\n")
    assert printed(model, "--score", tmp_path / "text") == line


def test_score_of_nothing(tmp_path, model):
    for stdin in (b"", b"\n", b"\n\n\n", b"a", b"a\nb\n"):
        assert "nothing to score" in complains(USAGE, model, "--score", "-", stdin=stdin)
    with_bos = write(tmp_path / "bos.bin", LETTERS, bos=0, begins_with_bos=True)
    for stdin in (b"", b"\n\n", b"a"):
        assert "nothing to score" in complains(USAGE, with_bos, "--score", "-", stdin=stdin)
    line = printed(with_bos, "--score", "-", stdin=b"b").decode()
    assert re.fullmatch(r"1 token: nll \S+, perplexity \S+, bits per byte \S+\n", line)


def test_score_names_the_line_that_it_cannot_score(model):
    complaint = complains(USAGE, model, "--score", "-", stdin=b"abc\n\nabX\n")
    assert complaint.startswith("run: line 3: ")


def test_score_refuses(tmp_path, model):
    (tmp_path / "text").write_bytes(b"abcX")
    assert "'X', is not in the model's vocabulary" in complains(
        USAGE, model, "--score", tmp_path / "text")
    assert "no-such-file: No such file" in complains(USAGE, model, "--score",
                                                     tmp_path / "no-such-file")
    assert "directory" in complains(USAGE, model, "--score", tmp_path)


@pytest.mark.parametrize("flags", [
    "--score one -f two", "-f one --score two", "-f one -f two", "-i a -i b",
    "--score one --score two", "-f one -i b",
    "--score one -i b", "-i a --score two", "-i a -f two",
])
def test_two_texts(model, flags):
    _, first, flag, second = flags.split()
    reason = f"{flag} {second}: there is a text already, {first}: give one"
    assert complains(USAGE, model, *flags.split()) == f"run: {reason}\n"


@pytest.mark.parametrize("flags", [["--score", "-"], ["--logprobs", "-i", "-"]],
                         ids=lambda flags: flags[0])
def test_score_of_weights_that_overflow(tmp_path, flags):
    """It fails, as generation does (test_model_whose_weights_overflow), and does not print nan, nor
    the null of a first token."""
    config = ModelConfig(dim=2, layers=1, vocab=2).resolve()
    p = Params(config)
    p.flat[:] = 3e38
    write_model(tmp_path / "model.bin", config, p, Vocabulary([b"a", b"b"], 9, None, None, 1.0), {})
    assert "overflowed" in complains(FAILED, tmp_path / "model.bin", *flags, stdin=b"abab")


def json_lines(*arguments, stdin=b""):
    """The printed objects: one per line, in UTF-8 and strict JSON"""
    lines = printed(*arguments, stdin=stdin).decode().split("\n")[:-1]
    return [json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
            for line in lines]


def bytes_of(line):
    """A token's bytes, as they are printed: as text, or as numbers where they are not one"""
    return line["text"].encode() if "text" in line else bytes(line["bytes"])


@pytest.mark.parametrize("begins", [False, True])
def test_logprobs(tmp_path, begins):
    pieces = [bytes([byte]) for byte in range(256)] + ["\u00e9".encode(), "\u65e5".encode()]
    model = write(tmp_path / "model.bin", pieces, context=300, bos=97, begins_with_bos=begins)
    text = bytes(range(256)) + '\u65e5\u00e9"\\'.encode()
    with Engine(model) as engine:
        tokens = [97] * begins + engine.encode(text)
        expected = engine.logprobs([tokens[:1]], [tokens[1:]])[0]
        lines = json_lines(model, "--logprobs", "-i", "-", stdin=text)
        assert [line["token"] for line in lines] == tokens
        assert [bytes_of(line) for line in lines] == [engine.decode([token]) for token in tokens]
        parts = [line["bytes"] for line in lines if "bytes" in line]
        assert parts == [[byte] for byte in range(128, 256)]
        assert lines[0]["logprob"] is None and all(len(line) == 3 for line in lines)
        # six digits are printed
        np.testing.assert_allclose([line["logprob"] for line in lines[1:]], expected, rtol=6e-6)


@pytest.mark.parametrize("piece", [
    b"\xc3", b"\xa9", b"\xc3\xa9", b"\xc0\xaf", b"\xe0\x9f\xbf", b"\xe0\xa0\x80",
    b"\xed\xa0\x80", b"\xed\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf0\x90\x80\x80",
    b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80", b"\xf4\x8f\xbf\xbf", b"a\xe6\x97",
    b"\x7f", b"\x1b[0m",
])
def test_whole_characters_are_text_and_others_bytes(tmp_path, piece):
    """As Python's decoder has it"""
    model = write(tmp_path / "model.bin", [b"a", piece])
    [line] = json_lines(model, "--logprobs", "-i", "-", stdin=piece)
    try:
        expected = {"text": piece.decode()}
    except UnicodeDecodeError:
        expected = {"bytes": list(piece)}
    assert line == {"token": 1, **expected, "logprob": None}


def test_logprobs_of_one_token(tmp_path, model):
    assert json_lines(model, "--logprobs", "-i",
                      "c") == [{"token": 2, "text": "c", "logprob": None}]
    with_bos = write(tmp_path / "bos.bin", WORDS, bos=2, begins_with_bos=True)
    assert json_lines(with_bos, "--logprobs") == [{"token": 2, "text": "ab", "logprob": None}]
    assert len(json_lines(with_bos, "--logprobs", "-i", "ab\u00e9")) == 2
    assert len(json_lines(with_bos, "--logprobs", "-i", "\u00e9")) == 2
    assert "needs a prompt" in complains(USAGE, model, "--logprobs")
    # the last one is only predicted
    assert len(json_lines(model, "--logprobs", "-i", "a" * 25)) == 25
    assert "26 tokens, the model's context 24" in complains(FAILED, model, "--logprobs", "-i",
                                                            "a" * 26)
    assert "'X'" in complains(USAGE, model, "--logprobs", "-i", "abX")


@pytest.mark.parametrize("dtype", [FLOAT32, INT8])
def test_attention(tmp_path, dtype):
    model = write(tmp_path / "model.bin", LETTERS, bos=5, dtype=dtype)
    # bos for an empty prompt
    assert json_lines(model, "--attention", "0,0") == [{"token": 5, "text": "f", "attention": [1]}]
    with Engine(model) as engine:
        tokens = engine.encode("abcdefghhgfedcba")
        for head in (0, 1):
            lines = json_lines(model, "--attention", f"0,{head}", "-i", "abcdefghhgfedcba", "-j",
                               head + 1)
            assert [(line["token"], line["text"])
                    for line in lines] == [(token, "abcdefgh"[token]) for token in tokens]
            expected = engine.attention([tokens], 0, head)[0]
            assert [len(line["attention"]) for line in lines] == list(range(1, len(tokens) + 1))
            for line, row in zip(lines, expected):
                np.testing.assert_allclose(line["attention"], row[:len(line["attention"])],
                                           rtol=6e-6)


@pytest.mark.parametrize("value",
                         ["x", "", "1", "1,", ",1", "1,2,3", "-1,0", "0,-1", "0, 0", "0,0x",
                          "1.0,0", "99999999999,0"])
def test_attention_of_what_is_no_head(model, value):
    line = complains(USAGE, model, "-i", "a", "--attention", value)
    assert line.startswith(f"run: --attention {value}: give a layer and a head, both from 0")


@pytest.mark.parametrize("value", ["99,0", "0,99", "1,0", "0,2", "9999999,9999999"])
def test_attention_of_a_head_that_is_not_there(model, value):
    layer, head = value.split(",")
    assert f"layer {layer}, head {head} does not exist" in complains(
        USAGE, model, "-i", "abc", "--attention", value)


# ------------------------------------------------------------------------------------------------
# In a terminal

def converse(model, *flags, typed):
    """Exit code, standard output and standard error of ./run in a terminal where somebody types"""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen([RUN, model, *flags], stdin=slave, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        os.write(master, typed)
        said, complaints = process.communicate(timeout=60)
    finally:
        os.close(master)
        os.close(slave)
    return process.returncode, said, complaints


END = b"\x04"           # Ctrl-D at the beginning of a line: there is no more


HELLO = b"Type a prompt; Ctrl-D ends.\n> "


def test_a_terminal_is_asked_for_prompts(model):
    answers = [printed(model, "-i", prompt, "-n", "5") for prompt in ("abc", "h")]
    code, said, complaints = converse(model, "-n", "5", typed=b"abc\nabX\n\nh\nabc\n" + END)
    assert code == 0
    assert said == HELLO + answers[0] + b"> > > " + answers[1] + b"> " + answers[0] + b"> \n"
    bad, empty = complaints.decode().splitlines()
    assert bad.startswith("run: ") and "'X'" in bad and empty.startswith(
        "run: ") and "needs a prompt" in empty
    assert converse(model, typed=END) == (0, HELLO + b"\n", b"")


@pytest.mark.parametrize("provenance, hint", [
    ({"example": "12+34="}, b", such as 12+34="), ({"task": "example"}, b""), ({"example": 3}, b""),
    ({"example": ""}, b", such as "), ({"a": '"example": "x'}, b""), ("example", b""),
])
def test_a_terminal_is_shown_the_example_of_the_file(tmp_path, provenance, hint):
    model = write(tmp_path / "model.bin", LETTERS, provenance=provenance)
    hello = b"Type a prompt" + hint + b"; Ctrl-D ends.\n> \n"
    assert converse(model, typed=END) == (0, hello, b"")


def test_a_terminal_of_a_model_with_bos(tmp_path):
    model = write(tmp_path / "model.bin", [c.encode() for c in "a\u00e9\u65e5\u672c\U0001f600"],
                  bos=0)
    code, said, complaints = converse(model, typed="\n\u65e5a\U0001f600\n".encode() + END)
    assert (code, complaints) == (0, b"")
    assert said == HELLO + printed(model) + b"> " + printed(
        model, "-i", "\u65e5a\U0001f600") + b"> \n"


def test_a_terminal_is_not_asked_where_the_prompt_is_given(tmp_path, model):
    (tmp_path / "prompt").write_bytes(b"abc")
    expected = printed(model, "-i", "abc")
    for flags in (["-i", "abc"], ["-f", tmp_path / "prompt"]):
        assert converse(model, *flags, typed=b"") == (0, expected, b"")
    assert converse(model, "-i", "-", typed=b"abc\n" + END) == (0, expected, b"")


# ------------------------------------------------------------------------------------------------
# What it refuses

@pytest.mark.parametrize("flags", [
    # unknown, and without a value
    "-x", "--inf", "-", "--", "-ia", "-i", "-f", "-n", "-t", "-k", "-p", "-m", "-s", "-j",
    "--score", "--attention", "--scor", "--score=x", "--benc", "--logprob",
    "-n 0", "-n -1", "-n 1.5", "-n 2x", "-n 1e99", "-t abc", "-t nan", "-t inf", "-t -1", "-t 1,5",
    "-t 1e999",
    "-k -1", "-k 1.5", "-k 1e12", "-p 0", "-p 1.1", "-p nan", "-m -0.1", "-m 2", "-m nan", "-j 0",
    "-j 1.5", "-j 9999",
    "-s -1", "-s 1.5", "-s x", "-s 99999999999999999999", "-s 18446744073709551616",
])
def test_bad_flag(model, flags):
    assert complains(USAGE, model, "-i", "a", *flags.split()).startswith(f"run: {flags}: ")


@pytest.mark.parametrize("arguments, said", [
    (["-i", "a", "other.bin"], "one model"), (["-f", "no-such-file"], "no-such-file"),
    (["-f", "."], "directory"), (["-i", "abX"], "byte 2, 'X'"),
    (["-i", "ab\u00e9"], "byte 2, 0xc3"), ([], "needs a prompt"),
    (["-i", ""], "needs a prompt"), (["-i", "-"], "needs a prompt"),
    (["-f", os.devnull], "needs a prompt"),
])
def test_bad_prompt(model, arguments, said):
    assert said in complains(USAGE, model, *arguments)


@pytest.mark.parametrize("flags", ["-t", "-p", "-n", "-s", "-k"])
def test_empty_number(model, flags):
    complains(USAGE, model, "-i", "a", flags, "")


@pytest.mark.parametrize("flags", [
    "--info --logprobs", "--logprobs --info", "--logprobs --attention 0,0",
    "--score prompt --logprobs", "--attention 0,0 --score a",
])
def test_two_things_to_do(model, flags):
    first, second = (word for word in flags.split() if word.startswith("--"))
    line = complains(USAGE, model, *flags.split())
    assert line.startswith(f"run: {first} and {second} are two things to do")


def test_no_model():
    assert "which model" in complains(USAGE)
    assert "which model" in complains(USAGE, "-i", "a")


def test_prompt_longer_than_the_context(model):
    assert len(printed(model, "-i", "a" * 24)) == 24 + 1 + 1
    assert "25 tokens, the model's context 24" in complains(FAILED, model, "-i", "a" * 25)


@pytest.mark.parametrize("change, said", [
    (lambda content: b"", "0 bytes"), (lambda content: content[:100], "100 bytes"),
    (lambda content: content[:-64], "cut short"),
    (lambda content: content[:-1], "cut short"), (lambda content: content + b"\n", "added"),
    (lambda content: content[:-1] + b"?", "checksum"),
    (lambda content: b"a text file\n" * 50, "not a minitron model"),
    (lambda content: content[:8] + b"\2" + content[9:], "version is 2"),
])
def test_damaged_model(model, change, said):
    model.write_bytes(change(model.read_bytes()))
    line = complains(BAD_FILE, model, "-i", "a")
    assert said in line and str(model) in line
    complains(BAD_FILE, model, "--info")


def test_model_that_is_no_file(tmp_path, model):
    for path in (tmp_path / "no-such-file.bin", tmp_path, os.devnull):
        assert str(path) in complains(BAD_FILE, path, "-i", "a")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # open for both, so that neither side waits for the other
    end = os.open(fifo, os.O_RDWR)
    try:
        os.write(end, model.read_bytes())
        assert str(fifo) in complains(BAD_FILE, fifo, "-i", "a")
    finally:
        os.close(end)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("flags", ["-i abc", "--info", "-h"])
def test_output_that_cannot_be_written(model, flags):
    with open("/dev/full", "wb") as full:
        done = run(model, *flags.split(), stdout=full)
    assert done.returncode == FAILED
    assert done.stderr == b"run: standard output cannot be written\n"


def test_model_whose_weights_overflow(tmp_path):
    config = ModelConfig(dim=2, layers=1, vocab=2).resolve()
    p = Params(config)
    p.flat[:] = 3e38
    write_model(tmp_path / "model.bin", config, p, Vocabulary([b"a", b"b"], 9, None, None, 1.0), {})
    done = run(tmp_path / "model.bin", "-i", "a")
    assert done.returncode == FAILED and done.stderr.count(
        b"\n") == 1 and b"overflowed" in done.stderr


# ------------------------------------------------------------------------------------------------
# How a model must be asked

def test_a_pipe_is_a_prompt(model):
    assert printed(model, stdin=b"abc\n") == printed(model, "-i", "abc")
    assert printed(model, "-i", "h", stdin=b"abc\n") == printed(model, "-i", "h")
    assert "needs a prompt" in complains(USAGE, model, stdin=b"")


@pytest.mark.parametrize("begins, prompt, starts", [
    (False, "ab", "ab"), (True, "ab", "fab"), (True, "fab", "fab"), (True, "", "f"),
    (False, "", "f"),
])
def test_rows_begin_with_bos_as_in_training(tmp_path, begins, prompt, starts):
    """A text gets bos in front if every row of training had it, and not twice."""
    plain = write(tmp_path / "plain.bin", LETTERS)
    model = write(tmp_path / "bos.bin", LETTERS, bos=5, begins_with_bos=begins)
    expected = printed(plain, "-i", starts, "-t", "0", "-n", "9")[len(starts):]
    assert printed(model, "-i", prompt, "-t", "0", "-n", "9")[len(prompt):] == expected
    with Engine(model) as engine:
        assert engine.generate(prompt, 9, temperature=0) + "\n" == expected.decode()


@pytest.mark.parametrize("flags", [["-i", "ab"], ["--logprobs", "-i", "ab"], ["--score", "-"],
                                   ["--attention", "0,0", "-i", "ab"]], ids=lambda flags: flags[0])
def test_positions_of_its_own_are_refused(tmp_path, flags):
    model = write(tmp_path / "model.bin", LETTERS, own_positions=True)
    assert "python -m minitron eval" in complains(USAGE, model, *flags, stdin=b"abab")


@pytest.mark.parametrize("prompt, note", [
    ("abc", ""), ("abcd", ""), ("ab", "2 tokens"), ("abcde", "5 tokens"),
])
def test_a_prompt_of_an_untrained_length_is_noted_on_a_terminal(tmp_path, prompt, note):
    model = write(tmp_path / "model.bin", LETTERS, prompt_min=3, prompt_max=4)
    master, slave = pty.openpty()
    try:
        said = subprocess.run([RUN, model, "-n", "2", "-i", prompt], stdout=subprocess.PIPE,
                              stderr=slave, timeout=60).stdout
        os.write(slave, b".")
        complaints = os.read(master, 1000)[:-1].decode()
    finally:
        os.close(master)
        os.close(slave)
    lines = [f"note: the prompt has {note}; training showed prompts of 3 to 4"] * bool(note)
    assert complaints.splitlines() == lines
    assert said == printed(model, "-n", "2", "-i", prompt), "and not beside a pipe"


def test_a_full_context_is_noted_where_more_was_asked_for(model):
    def note(steps):
        return run(model, "-i", "a" * 20, "-t", "1", "-n", steps).stderr.decode().strip()

    assert note("4") == note("5") == ""
    assert note("6") == "note: the context of 24 tokens is full; 1 of -n 6 are left"


def test_memory_is_in_proportion_to_the_tokens_and_not_to_the_context(tmp_path):
    """A file of three kilobytes with a context of a million once took half a gigabyte."""
    config = ModelConfig(dim=2, layers=1, heads=1, head_dim=128, ffn_dim=0, vocab=2).resolve()
    path = tmp_path / "model.bin"
    p = Params(config)
    p.flat[:] = 0.5
    write_model(path, config, p, Vocabulary([b"a", b"b"], 2**20, None, None, 0), {})
    code = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    done = subprocess.run([sys.executable, "-c", code, ROOT / "run", path, "-i", "a", "-n", "9"],
                          capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) * (1 if sys.platform != "darwin" else 1 / 1024) < 30_000
