"""The C engine from Python.

    from minitron import Engine
    with Engine("model.bin") as engine:
        engine.generate("123+456=")

`make` builds the library; its declarations are read from run.c, between API-BEGIN and API-END, so that no copy can drift.
Calls release Python's lock, so that engines in several threads run side by side; one engine is for one thread at a time.
"""
import os
from functools import lru_cache

import numpy as np
from cffi import FFI

from .environment import ROOT, available_cpus
from .errors import MinitronError
from .export import parse_provenance

ffi = FFI()


class EngineMissing(MinitronError):
    """The library is not there: no C compiler was at hand, or make has not run yet."""


@lru_cache(maxsize=1)
def library():
    """The loaded library.  Raises EngineMissing."""
    try:
        source = (ROOT / "run.c").read_text(encoding="utf-8")
    except OSError as error:
        raise EngineMissing(f"{error.filename} cannot be read ({error.strerror}): work in a clone of the repository") from None
    ffi.cdef(source.split("// API-BEGIN")[1].partition("\n")[2].split("// API-END")[0], override=True)
    for suffix in (".so", ".dylib"):
        path = ROOT / "build" / f"libminitron{suffix}"
        if path.exists():
            break
    else:
        raise EngineMissing("the C engine is not built: install a C compiler and run make")
    try:
        lib = ffi.dlopen(str(path))
        abi = lib.mt_abi()
    except (OSError, AttributeError) as error:
        raise EngineMissing(f"{path} cannot be used ({error}): run make clean all") from None
    if abi != lib.MT_ABI:
        raise EngineMissing(f"{path} was built from another run.c: run make")
    return lib


class Engine:
    """A model file, loaded and ready.      Raises MinitronError with mt_error's text, EngineMissing without the library."""

    def __init__(self, path, threads=None):
        self.lib = library()
        handle = ffi.new("mt_engine **")
        status = self.lib.mt_open(os.fsencode(path), handle)
        self.handle = ffi.gc(handle[0], self.lib.mt_close)      # so that one that is never closed is freed all the same
        try:
            self.check(status)
            self.provenance = parse_provenance(ffi.string(self.lib.mt_get_provenance(self.handle)))
        except (MinitronError, ValueError) as error:
            self.close()
            raise error if isinstance(error, MinitronError) else MinitronError(f"{path}: {error}") from None
        self.lib.mt_set_threads(self.handle, available_cpus() if threads is None else threads)
        config = self.lib.mt_get_config(self.handle)
        self.config = {name: getattr(config, name) for name, _ in ffi.typeof("mt_config").fields}
        self.parameters = self.lib.mt_parameters(self.handle)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Free the model's memory.  The engine is of no more use then."""
        if self.handle != ffi.NULL:
            ffi.release(self.handle)
            self.handle = ffi.NULL

    def error(self):
        return ffi.string(self.lib.mt_error(self.handle)).decode(errors="replace")

    def check(self, status):
        if status:
            raise MinitronError(self.error())

    def opened(self):
        """The handle.  Raises MinitronError after close()."""
        if self.handle == ffi.NULL:
            raise MinitronError("this engine is closed: open the model again")
        return self.handle

    def encode(self, text):
        """str or bytes -> token ids.  Raises MinitronError where the vocabulary lacks a character."""
        content = text.encode() if isinstance(text, str) else bytes(text)
        tokens, count = ffi.new("int32_t[]", max(1, len(content))), ffi.new("int64_t *")
        self.check(self.lib.mt_encode(self.opened(), content, len(content), tokens, count))
        return list(tokens[0:count[0]])

    def decode(self, tokens):
        """Token ids -> bytes."""
        size, pieces = ffi.new("int32_t *"), []
        for token in integers("token", tokens).tolist():
            piece = self.lib.mt_piece(self.opened(), token, size)
            if piece == ffi.NULL:
                raise MinitronError(f"token {token} is not in the vocabulary of {self.config['vocab']}")
            pieces.append(ffi.buffer(piece, size[0])[:])
        return b"".join(pieces)

    def reset(self, sequences, context):
        """Make room for that many empty sequences of up to `context` tokens."""
        self.check(self.lib.mt_reset(self.opened(), sequences, context))

    def forward(self, tokens, sequences=None, positions=None, wanted=None):
        """Append tokens to their sequences -> logits (number wanted, V).      All arguments (n,), see run.c's mt_forward."""
        tokens = integers("token", tokens)
        sequences = None if sequences is None else integers("sequence", sequences)
        positions = None if positions is None else integers("position", positions)
        wanted = None if wanted is None else np.asarray(wanted, bool).astype(np.uint8)
        for array in (sequences, positions, wanted):
            if array is not None and array.shape != tokens.shape:
                raise MinitronError(f"{array.size} values for {tokens.size} tokens: give one each")
        rows = tokens.size if wanted is None else np.count_nonzero(wanted)
        logits = np.empty((rows, self.config["vocab"]), np.float32)
        self.check(self.lib.mt_forward(
            self.opened(), tokens.size, pointer("int32_t[]", tokens), pointer("int32_t[]", sequences),
            pointer("int32_t[]", positions), pointer("uint8_t[]", wanted), pointer("float[]", logits)))
        return logits

    def logits(self, tokens, positions=None, wanted=None):
        """Logits of whole sequences from their beginning.

        tokens, positions (B, T) -> (B, T, V); with wanted (B, T) bool -> (number wanted, V), in order
        """
        tokens = integers("token", tokens)
        if tokens.ndim != 2 or tokens.size == 0:
            raise MinitronError(f"tokens of shape {tokens.shape}: give (B, T), neither of them 0")
        batch, time = tokens.shape
        if positions is not None:
            positions = integers("position", positions)
            if positions.shape != tokens.shape:
                raise MinitronError(f"positions of shape {positions.shape} for tokens of shape {tokens.shape}: give one each")
            positions = positions.ravel()
        self.reset(batch, time)
        sequences = np.repeat(np.arange(batch), time)
        rows = self.forward(tokens.ravel(), sequences, positions, None if wanted is None else np.ravel(wanted))
        return rows.reshape(batch, time, -1) if wanted is None else rows

    def generate(self, prompts, steps=None, temperature=None, top_k=0, top_p=1.0, min_p=0.0, seed=0):
        """What follows a prompt, or each of a list, up to the end token or `steps` tokens: str for str, bytes for bytes.

        temperature None is what the file recommends, 0 the likeliest token each time.  Prompt i of a list is sampled
        with seed + i, so that its text does not depend on the company it is in.
        """
        many = [prompts] if isinstance(prompts, (str, bytes)) else list(prompts)
        encoded = [self.encode(prompt) for prompt in many]
        generated = self.generate_tokens(encoded, steps, temperature, top_k, top_p, min_p, seed)
        texts = [self.decode(tokens) for tokens in generated]
        texts = [text.decode(errors="replace") if isinstance(prompt, str) else text for text, prompt in zip(texts, many)]
        return texts[0] if isinstance(prompts, (str, bytes)) else texts

    def generate_tokens(self, prompts, steps=None, temperature=None, top_k=0, top_p=1.0, min_p=0.0, seed=0):
        """generate, from lists of token ids to lists of token ids."""
        if not prompts:
            return []
        bos, eos, context = self.config["bos"], self.config["eos"], self.config["context"]
        if bos < 0 and not all(prompts):
            raise MinitronError("this model needs a prompt, and one is empty")
        prompts = [list(prompt) or [bos] for prompt in prompts]
        longest = max(map(len, prompts))
        if longest > context:
            raise MinitronError(f"a prompt of {longest} tokens is longer than the model's context of {context}: shorten it")
        steps = context if steps is None else steps
        if steps < 0:
            raise MinitronError(f"steps {steps} is negative: give the number of tokens to generate at the most")
        temperature = self.config["temperature"] if temperature is None else temperature
        try:
            how = ffi.new("mt_sampling *", {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p})
        except (TypeError, OverflowError) as error:
            raise MinitronError(f"temperature {temperature}, top_k {top_k}, top_p {top_p} or min_p {min_p}: {error}") from None
        states = [ffi.new("uint64_t *", (seed + i) % 2**64) for i in range(len(prompts))]

        self.reset(len(prompts), min(context, longest + steps))
        rows = self.forward(
            np.concatenate(prompts), np.repeat(np.arange(len(prompts)), [len(prompt) for prompt in prompts]),
            wanted=np.concatenate([np.arange(len(prompt)) == len(prompt) - 1 for prompt in prompts]))
        generated = [[] for _ in prompts]
        active = list(range(len(prompts))) if steps > 0 else []
        while active:
            going, chosen = [], []
            for i, row in zip(active, rows):
                token = self.sample(row, how, states[i])
                if token == eos:
                    continue
                generated[i].append(token)
                if len(generated[i]) < steps and len(prompts[i]) + len(generated[i]) <= context:
                    going.append(i)
                    chosen.append(token)
            if going:
                rows = self.forward(chosen, going)
            active = going
        return generated

    def sample(self, row, how, state):
        """One token from logits (V,); how: mt_sampling *, state: uint64_t *, which moves on."""
        token, row = ffi.new("int32_t *"), np.ascontiguousarray(row, np.float32)
        if row.shape != (self.config["vocab"],):
            raise MinitronError(f"logits of shape {row.shape}: give one for each of the {self.config['vocab']} tokens")
        self.check(self.lib.mt_sample(self.opened(), pointer("float[]", row), how, state, token))
        return token[0]


def integers(name, values):
    """int32 array of what may be anything.  Raises MinitronError where a value is not a whole number of 32 bits."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise MinitronError(f"the {name}s are in rows of different lengths: give rows of one length") from None
    if array.size == 0:
        array = array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise MinitronError(f"the {name}s are {array.dtype}, not whole numbers")
    for value in (array.min(initial=0), array.max(initial=0)):
        if not -2**31 <= value < 2**31:
            raise MinitronError(f"{name} {value} does not exist: it has more than 32 bits")
    return np.ascontiguousarray(array, np.int32)


def pointer(ctype, array):
    return ffi.NULL if array is None else ffi.from_buffer(ctype, array)
