"""./run, the program: the same model as Engine, and a citizen of the shell.

What it prints is what Engine generates, byte for byte.  Whatever is wrong, it says so in one line on standard error, prints
nothing on standard output, and exits with the code that `./run -h` documents: 1 usage, 2 bad model file, 4 failed while running.
"""
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minitron import Engine
from minitron.config import ModelConfig
from minitron.export import Vocabulary, write_model
from minitron.params import Params

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "run"
BUILT = RUN.exists() and any(ROOT.glob("build/libminitron.*"))
pytestmark = pytest.mark.skipif(not BUILT, reason="the engine is not built: run make")
USAGE, BAD_FILE, FAILED = 1, 2, 4
LETTERS = [bytes([byte]) for byte in b"abcdefgh"]


def write(path, pieces, context=24, bos=None, eos=None):
    """A model file with these pieces and random weights, so small that its texts vary."""
    config = ModelConfig(dim=16, layers=1, heads=2, vocab=len(pieces)).resolve()
    p = Params(config)
    p.flat[:] = np.random.default_rng(0).standard_normal(p.flat.size) / 2
    write_model(path, config, p, Vocabulary(pieces, context, bos, eos, 0.75), {"task": "none", "note": "untrained"})
    return path


@pytest.fixture
def model(tmp_path):
    return write(tmp_path / "model.bin", LETTERS)


def run(*arguments, stdin=b"", stdout=subprocess.PIPE):
    """The finished process.  The time limit is there to turn a hang into a failure."""
    return subprocess.run([RUN, *map(str, arguments)], input=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=60)


def printed(*arguments, stdin=b""):
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def complains(code, *arguments, stdin=b""):
    """It exits with this code after one line on standard error and nothing on standard output.  -> that line"""
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.startswith(b"run: ") and done.stderr.endswith(b"\n") and done.stderr.count(b"\n") == 1
    return done.stderr.decode()


# ---------------------------------------------------------------------------------------------------------------------
# What it prints

@pytest.mark.parametrize("flags, named", [
    ("-n 5", {"steps": 5}), ("-n 1", {"steps": 1}), ("-t 0", {"temperature": 0}), ("-t 2.5", {"temperature": 2.5}),
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
        expected = b"abc" + engine.generate(b"abc") + b"\n"     # at the temperature that the file recommends, with seed 0
        assert expected != b"abc" + engine.generate(b"abc", temperature=1) + b"\n"
    assert printed(model, "-i", "abc") == expected
    assert printed(model, "-i", "abc", "-j", "2") == expected


def test_prompts_from_files_and_standard_input(tmp_path, model):
    expected = printed(model, "-i", "abc")
    for content in (b"abc", b"abc\n"):              # the last newline is dropped, as this model has none
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
    assert printed(model) == printed(model, "-i", "") == printed(model, "-i", "-") == printed(model, "-f", os.devnull) == expected


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
    assert printed(model, "-i", "\u65e5a\U0001f600").decode() == "\u65e5a\U0001f600" + expected + "\n"


def test_info(model):
    text = printed(model, "--info").decode()
    with Engine(model) as engine:
        assert f"{engine.parameters} parameters" in text
        for said in ("dim 16, layers 1, heads 2 of width 8, key/value heads 2, ffn 48, vocabulary 8, context 24 tokens",
                     "softmax attention, rope theta 10000, norm eps 1e-05, tied head", "temperature 0.75"):
            assert said in text
    assert text.splitlines()[-1] == '{"note": "untrained", "task": "none"}'


def test_help(model):
    text = printed("-h")
    assert text.startswith(b"usage: run MODEL") and text == printed("--help") == printed(model, "-n", "3", "-h")
    for flag in ("-i", "-f", "-n", "-t", "-k", "-p", "-m", "-s", "-j", "--info", "-h"):
        assert f"\n  {flag} ".encode() in text


# ---------------------------------------------------------------------------------------------------------------------
# What it refuses

@pytest.mark.parametrize("flags", [
    "-x", "--inf", "-", "--", "-ia", "-i", "-f", "-n", "-t", "-k", "-p", "-m", "-s", "-j",      # unknown, and without a value
    "-n 0", "-n -1", "-n 1.5", "-n 2x", "-n 1e99", "-t abc", "-t nan", "-t inf", "-t -1", "-t 1,5", "-t 1e999",
    "-k -1", "-k 1.5", "-k 1e12", "-p 0", "-p 1.1", "-p nan", "-m -0.1", "-m 2", "-m nan", "-j 0", "-j 1.5", "-j 9999",
    "-s -1", "-s 1.5", "-s x", "-s 99999999999999999999", "-s 18446744073709551616",
])
def test_bad_flag(model, flags):
    assert complains(USAGE, model, "-i", "a", *flags.split()).startswith(f"run: {flags}: ")


@pytest.mark.parametrize("arguments, said", [
    (["-i", "a", "other.bin"], "one model"), (["-i", "a", "-f", "prompt"], "-f prompt: there is a text already, a"),
    (["-f", "no-such-file"], "no-such-file"),
    (["-f", "."], "directory"), (["-i", "abX"], "byte 2, 'X'"), (["-i", "ab\u00e9"], "byte 2, 0xc3"), ([], "needs a prompt"),
    (["-i", ""], "needs a prompt"), (["-i", "-"], "needs a prompt"), (["-f", os.devnull], "needs a prompt"),
])
def test_bad_prompt(model, arguments, said):
    assert said in complains(USAGE, model, *arguments)


@pytest.mark.parametrize("flags", ["-t", "-p", "-n", "-s", "-k"])
def test_empty_number(model, flags):
    complains(USAGE, model, "-i", "a", flags, "")


def test_no_model():
    assert "which model" in complains(USAGE)
    assert "which model" in complains(USAGE, "-i", "a")


def test_prompt_longer_than_the_context(model):
    assert len(printed(model, "-i", "a" * 24)) == 24 + 1 + 1
    assert "25 tokens, the model's context 24" in complains(FAILED, model, "-i", "a" * 25)


@pytest.mark.parametrize("change, said", [
    (lambda content: b"", "0 bytes"), (lambda content: content[:100], "100 bytes"), (lambda content: content[:-64], "cut short"),
    (lambda content: content[:-1], "cut short"), (lambda content: content + b"\n", "added"),
    (lambda content: content[:-1] + b"?", "checksum"), (lambda content: b"a text file\n" * 50, "not a minitron model"),
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
    end = os.open(fifo, os.O_RDWR)                  # open for both, so that neither side waits for the other
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
    assert done.returncode == FAILED and done.stderr.count(b"\n") == 1 and b"overflowed" in done.stderr
