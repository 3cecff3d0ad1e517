"""Phrases that the prose does not use, since they are not idiomatic English, each with a remedy.

Prose is Markdown outside of code, and comments, docstrings and string literals of Python and C.
"""
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = next(up for up in Path(__file__).resolve().parents if (up / "run.c").exists())
# The files and folders that are checked
PATHS = ("README.md", "docs", "minitron", "tasks", "train.py", "bench", "run.c")

COUNTED = ("nats?|bits?|bytes|GFLOPs?|FLOPs?|tokens|seconds|ms|ns|milliseconds|microseconds|"
           "perplexity|seeds|lines?|sequences|weights|evaluations|exponentials|products|"
           "replacements|problems|numbers|sums")
UNIT = ("token|byte|step|weight|parameter|element|cell|core|run|row|line|second|thread|worker|"
        "file|setting|sequence|layer|head")
SENTENCE = r"(?:(?<=[.!?:])\s+|(?<=\x02)\s*|(?<=\n)\s*(?:[-*]\s+|\d+\.\s+)?)"
STATEMENT = r"(?:(?!\n\s*\n)[^?.!\x02])*(?:\.|\x02)(?=\s|\x02|$)"      # not a question
PARTICIPLE = "kept|left|missing|known|there|asked|wanted|gained|learnt|measured"
PHRASES = {
    r"(?<!there\s)\b(?:is|are|was|were) no\b(?! (?:longer|more|less|worse|better)\b)": "is not a",
    rf"\b(?:{COUNTED}) an? (?:{UNIT})\b": "per",
    r"\bbehind\b": "after, below, beyond",
    r"\bby heart\b": "memorise",
    r"\bso many\b|\bas many as there are\b": "give the number",
    r"\b(?:go|goes|going|gone|went) on\b": "resume, continue",
    rf"\bwhat (?:is|are|was|were) (?:{PARTICIPLE})\b": "name the thing",
    rf"{SENTENCE}(?-i:What)\b{STATEMENT}": "begin with a concrete subject",
    r"\bmakes? no sense\b|\bno number\b|\bno business of\b|\bis nobody's\b": "give the rule",
    r"\bthere (?:is|are) none of\b|\bthat there (?:is|are)\b": "has no ..., the settings swept",
    r"\bof the way (?:from|that|to)\b": "normalized score",
    r"\b(?:the|its|their) likeliest\b": "most likely",
    r"\bof one's own\b|\bunless told\b": "your own, by default",
}


def prose(path):
    """The file's text, line by line: code is \\x00, and strings begin and end with \\x02."""
    text = path.read_text(encoding="utf-8")
    return {".md": markdown, ".py": python, ".c": c}[path.suffix](text)


def blank(text):
    return re.sub(r"\S", "\x00", text)


def markdown(text):
    """Without blocks of code, whether fenced or indented, and without `code` in a line."""
    block = re.compile(r"^```.*?^```$|^ {4,}\S[^\n]*$", re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`]*`", lambda m: blank(m[0]), block.sub(lambda m: blank(m[0]), text))


def python(text):
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None)}
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return only([[starts[row - 1] + column for row, column in (token.start, token.end)]
                 for token in tokens if token.type in kinds], text)


def c(text):
    """Comments and string literals; a quote within a comment, or // within a string, is neither."""
    comment, string, character = r"//[^\n]*|/\*.*?\*/", r'"(?:\\.|[^"\\\n])*"', r"'(?:\\.|[^'\n])+'"
    literal = re.compile(f"{comment}|{string}|{character}", re.DOTALL)
    return only([m.span() for m in literal.finditer(text) if m[0][0] != "'"], text)


def only(spans, text):
    """The text with everything outside of these spans blank"""
    pieces, at = [], 0
    for start, end in spans:
        pieces += [blank(text[at:start]), unquoted(text[start:end])]
        at = end
    return "".join(pieces) + blank(text[at:])


def unquoted(span):
    """A comment without its signs, or a string with \\x02 for its quotes"""
    if span.startswith(("#", "//", "/*")):
        signs = re.compile(r"^(\s*)(?:#|//|/\*|\*(?!/))|\*/$", re.MULTILINE)
        return signs.sub(lambda m: " " * len(m[0]), span)
    quotes = re.compile(r"^\w*(?:\"\"\"|'''|\"|')|(?:\"\"\"|'''|\"|')$")
    return quotes.sub(lambda m: "\x02" * len(m[0]), span)


def complaints(text):
    """-> (line number, phrase, remedy) in order"""
    for phrase, remedy in PHRASES.items():
        for m in re.finditer(phrase.replace(" ", r"\s+"), text, re.IGNORECASE):
            margin = len(m[0]) - len(m[0].lstrip())
            line = 1 + text[:m.start() + margin].count("\n")
            yield line, " ".join(m[0].strip("\x02 \n").split())[:60], remedy


def files(paths=PATHS):
    """Each file that is checked; of folders, those whose prose can be told from code."""
    for path in map(ROOT.joinpath, paths):
        yield from (path.rglob("*.*") if path.is_dir() else [path])


CHECKED = sorted(path for path in files() if path.suffix in (".md", ".py", ".c"))


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_phrase_to_avoid(path):
    name = path.relative_to(ROOT)
    assert not [f'{name}:{line}: "{phrase}"; write: {remedy}'
                for line, phrase, remedy in sorted(complaints(prose(path)))]


BAD = (
    "The value is\nno file.",
    "It costs 3 nats a token.",
    "It stands behind the norm.",
    "Facts learnt by heart.",
    "There are so many.",
    "The run goes\non.",
    "It says what is kept of a run.",
    "What is kept of it says little.",
    "It makes no sense.",
    "None of the bits that there are.",
    "A share of the way from 0 to 1.",
    "It takes the likeliest token.",
    "All, unless told otherwise.",
)
GOOD = (
    "What is a token? It is an index.",
    "There is no verdict.",
    "It costs 3 nats per token, and is no longer slow.",
    "The weights of a layer give a token a score.",
    "It depends on what the task asks.",
)
FORMS = {           # a sentence as the prose of each kind of file, on its second line
    ".md": lambda sentence: f"# Title\n{sentence}\n",
    ".py": lambda sentence: '"""Title."""\nx = """' + sentence + '"""\n',
    ".c": lambda sentence: "int x;\n// " + sentence.replace("\n", "\n// ") + "\n",
}


@pytest.mark.parametrize("suffix", FORMS)
def test_each_phrase_is_found_in_its_line(tmp_path, suffix):
    path, remedies = tmp_path / f"sample{suffix}", set()
    for sentence in BAD:
        path.write_text(FORMS[suffix](sentence), encoding="utf-8")
        lines = list(complaints(prose(path)))
        assert {line for line, _, _ in lines} == {2}, sentence
        remedies |= {remedy for _, _, remedy in lines}
    assert remedies == set(PHRASES.values())
    for sentence in GOOD:
        path.write_text(FORMS[suffix](sentence), encoding="utf-8")
        assert not list(complaints(prose(path))), sentence


def test_code_is_not_prose(tmp_path):
    samples = {".md": "```text\nis no\n```\n\n    is no\n\nIt says `is no`.\n",
               ".py": "behind = 1  # a name\n", ".c": "int behind; // a name\n"}
    for suffix, text in samples.items():
        path = tmp_path / f"sample{suffix}"
        path.write_text(text, encoding="utf-8")
        assert not list(complaints(prose(path))) and len(prose(path)) == len(text)
