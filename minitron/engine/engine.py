"""The C engine from Python.

    from minitron import Engine
    with Engine("model.bin") as engine:
        engine.generate("123+456=")

`make` builds the library; its declarations are read from run.c, between API-BEGIN and API-END, so
that no copy can drift. Calls release Python's lock, so that engines in several threads run side by
side; one engine is for one thread at a time.
"""
import codecs
import copy
import itertools
import operator
import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache

import numpy as np
from cffi import FFI

from ..base.environment import ROOT, available_cpus
from ..base.errors import MinitronError
from .model_file import parse_provenance

GROUP = 64          # texts that logprobs scores at a time
BATCH = 512         # tokens of whole sequences that logits works on at a time
FEW = 12            # prompts that are not worth another thread, as many as run.c keeps in flight
ffi = FFI()


class EngineMissing(MinitronError):
    """The library is not there: no C compiler was at hand, or make has not run yet."""


@lru_cache(maxsize=1)
def library():
    """The loaded library.  Raises EngineMissing."""
    try:
        source = (ROOT / "run.c").read_text(encoding="utf-8")
    except OSError as error:
        raise EngineMissing(f"{error.filename} cannot be read ({error.strerror}): "
                            "work in a clone of the repository") from None
    ffi.cdef(source.split("// API-BEGIN")[1].partition("\n")[2].split("// API-END")[0],
             override=True)
    for suffix in (".so", ".dylib"):
        path = ROOT / "build" / f"libminitron{suffix}"
        if path.exists():
            break
    else:
        raise EngineMissing("the C engine is not built: install a C compiler and run make")
    try:
        # Never to be unloaded: at its end Python would close the library, and OpenMP's with it,
        # under the feet of threads that still wait for work there.  One run in eight ended with a
        # segmentation fault on two busy cores.
        lib = ffi.dlopen(str(path), ffi.RTLD_NOW | getattr(ffi, "RTLD_NODELETE", 0))
        abi = lib.mt_abi()
    except (OSError, AttributeError) as error:
        raise EngineMissing(f"{path} cannot be used ({error}): run make clean all") from None
    if abi != lib.MT_ABI:
        raise EngineMissing(f"{path} was built from another run.c: run make")
    return lib


class Engine:
    """A model file, loaded and ready

    Raises MinitronError with mt_error's text, EngineMissing without the library.
    """

    def __init__(self, path, threads=None):
        self.lib = library()
        self.forks = []             # engines on the same weights, one per thread: see workers
        self.pool = None            # the threads of all forks but the first
        handle = ffi.new("mt_engine **")
        status = self.lib.mt_open(os.fsencode(path), handle)
        # so that one that is never closed is freed all the same
        self.handle = ffi.gc(handle[0], self.lib.mt_close)
        try:
            self.check(status)
            size = ffi.new("uint64_t *")
            provenance = self.lib.mt_get_provenance(self.handle, size)
            self.provenance = parse_provenance(ffi.buffer(provenance, size[0])[:])
        except (MinitronError, ValueError) as error:
            self.close()
            if isinstance(error, MinitronError):
                raise
            raise MinitronError(f"{path}: {error}") from None
        self.threads = available_cpus() if threads is None else threads
        self.lib.mt_set_threads(self.handle, self.threads)
        config = self.lib.mt_get_config(self.handle)
        self.config = {name: getattr(config, name) for name, _ in ffi.typeof("mt_config").fields}
        self.parameters = self.lib.mt_parameters(self.handle)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Free the model's memory; the engine cannot be used any more."""
        if self.pool:
            self.pool.shutdown()
            self.pool = None
        for fork in self.forks:
            fork.close()
        self.forks = []
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
        """str or bytes -> token ids.  Raises MinitronError where the vocabulary lacks a
        character."""
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
                raise MinitronError(
                    f"token {token} is not in the vocabulary of {self.config['vocab']}")
            pieces.append(ffi.buffer(piece, size[0])[:])
        return b"".join(pieces)

    def reset(self, sequences, context):
        """Make room for that many empty sequences of up to `context` tokens."""
        self.check(self.lib.mt_reset(self.opened(), sequences, context))

    def length(self, sequence=0):
        """Tokens that a sequence holds, -1 if there is no such sequence"""
        return self.lib.mt_length(self.opened(), sequence)

    def rewind(self, length, sequence=0):
        """Forget all but a sequence's first `length` tokens, so that another continuation can
        follow them."""
        self.check(self.lib.mt_rewind(self.opened(), sequence, length))

    def forward(self, tokens, sequences=None, positions=None, wanted=None):
        """Append tokens to their sequences -> logits (number wanted, V) after each.

        All arguments are (n,), see run.c's mt_forward.
        """
        tokens, sequences, positions = self.arrays(tokens, sequences, positions)
        wanted = None if wanted is None else flags(wanted, tokens)
        logits = self.empty_logits(tokens, wanted)
        self.forward_into(logits, tokens, sequences, positions, wanted)
        return logits

    def empty_logits(self, tokens, wanted):
        """An array for the logits (number wanted, V) of as many tokens"""
        rows = tokens.size if wanted is None else np.count_nonzero(wanted)
        return np.empty((rows, self.config["vocab"]), np.float32)

    def forward_into(self, logits, tokens, sequences, positions, wanted):
        """mt_forward of arrays of the right kind"""
        self.check(self.lib.mt_forward(
            self.opened(), tokens.size, pointer("int32_t[]", tokens),
            pointer("int32_t[]", sequences), pointer("int32_t[]", positions),
            pointer("uint8_t[]", wanted), pointer("float[]", logits)))

    def workers(self, tasks):
        """Engines for that many tasks: forks, one per thread, if the model is small, else this one

        The weights of a small model stay in the caches.  A large one would have to be read from
        memory by each fork, so there threads share its products.
        """
        size = self.parameters * (1 if self.config["int8"] else 4)
        count = min(self.threads, tasks)
        if count < 2 or size >= self.lib.MT_SMALL:
            return [self]
        self.reset(1, 1)            # the forks have caches of their own
        while len(self.forks) < count:
            self.forks.append(self.fork())
        self.pool = self.pool or ThreadPoolExecutor(self.threads - 1)
        return self.forks[:count]

    def in_parallel(self, work, engines, tasks):
        """work(engine, task) for each task: an engine per thread, the first on this one"""
        tasks = iter(tasks)         # of a list or a range, whose next() is atomic

        def run(engine):
            for task in tasks:
                work(engine, task)

        others = [self.pool.submit(run, engine) for engine in engines[1:]]
        try:
            run(engines[0])
        finally:
            wait(others)
        for other in others:
            other.result()          # raises its error

    def fork(self):
        """An Engine on the same weights, for another thread; it must not outlive this one."""
        handle, fork = ffi.new("mt_engine **"), copy.copy(self)
        status = self.lib.mt_fork(self.opened(), handle)
        fork.handle, fork.forks = ffi.gc(handle[0], self.lib.mt_close), []
        fork.pool = None
        fork.check(status)
        return fork

    def score(self, tokens, targets, sequences=None, positions=None):
        """Append tokens to their sequences -> log p(target) (n,) of what follows each, in nats; NaN
        for a negative target."""
        targets = integers("target", targets)
        tokens, sequences, positions, targets = self.arrays(tokens, sequences, positions, targets)
        logprobs = np.full(tokens.size, np.nan, np.float32)
        self.check(self.lib.mt_score(
            self.opened(), tokens.size, pointer("int32_t[]", tokens),
            pointer("int32_t[]", sequences), pointer("int32_t[]", positions),
            pointer("int32_t[]", targets), pointer("float[]", logprobs)))
        return logprobs

    def logprobs(self, prompts, continuations):
        """log p of each token of each continuation, given its prompt and the tokens before: a list
        of arrays, in nats.

        prompts and continuations: lists, of text or of lists of tokens.  An empty prompt stands for
        the model's bos token.
        """
        if isinstance(prompts, (str, bytes)) or isinstance(continuations, (str, bytes)):
            raise MinitronError("give a list of prompts and a list of continuations, not one text")
        if len(prompts) != len(continuations):
            raise MinitronError(f"{len(prompts)} prompts and {len(continuations)} continuations: "
                                "give as many of both")
        prompts = [self.prompt_tokens(prompt) for prompt in prompts]
        tails = [self.tokens_of(tail) for tail in continuations]
        results = []
        for start in range(0, len(prompts), GROUP):
            results += self.logprobs_of_tokens(prompts[start:start + GROUP],
                                               tails[start:start + GROUP])
        return results

    def logprobs_of_tokens(self, prompts, tails):
        """logprobs of lists of token ids, all at once"""
        texts = [prompt + tail for prompt, tail in zip(prompts, tails)]
        # the last token need not go through the model
        sizes = [len(text) - 1 for text in texts]
        tokens = integers("token", [token for text in texts for token in text])
        if tokens.min() < 0:
            raise MinitronError(
                f"token {tokens.min()} is not in the vocabulary of {self.config['vocab']}")
        targets = []                # nothing is scored within a prompt
        for prompt, text in zip(prompts, texts):
            targets += [-1] * (len(prompt) - 1) + text[len(prompt):]
        self.reset(len(texts), max(1, *sizes))
        scores = self.score([token for text in texts for token in text[:-1]], targets,
                            np.repeat(np.arange(len(texts)), sizes))
        rows = np.split(scores, np.cumsum(sizes)[:-1])
        return [row[len(prompt) - 1:] for row, prompt in zip(rows, prompts)]

    def attention(self, tokens, layer, head, positions=None):
        """Attention weights (B, T, T) of one head on whole sequences, tokens (B, T): row t is what
        token t looks at.

        With linear attention they are the scores, which need not add up to 1.
        """
        tokens, positions = whole_sequences(tokens, positions)
        batch, time = tokens.shape
        sequences = np.repeat(np.arange(batch, dtype=np.int32), time)
        weights = np.empty((batch, time, time), np.float32)
        self.reset(batch, time)
        self.check(self.lib.mt_attention(
            self.opened(), tokens.size, pointer("int32_t[]", tokens),
            pointer("int32_t[]", sequences), pointer("int32_t[]", positions), layer, head,
            pointer("float[]", weights)))
        return weights

    @staticmethod
    def arrays(tokens, *others):
        """int32 arrays of equal shape, None where None is given.  Raises MinitronError."""
        arrays = [integers("token", tokens)]
        for name, values in zip(("sequence", "position", "target"), others):
            arrays.append(None if values is None else integers(name, values))
            if values is not None and arrays[-1].shape != arrays[0].shape:
                raise MinitronError(
                    f"{arrays[-1].size} values for {arrays[0].size} tokens: give one each")
        return arrays

    def logits(self, tokens, positions=None, wanted=None):
        """Logits of whole sequences from their beginning.

        tokens, positions (B, T) -> (B, T, V); with wanted (B, T) bool -> (number wanted, V), in
        order
        """
        tokens, positions = whole_sequences(tokens, positions)
        batch, time = tokens.shape
        wanted = None if wanted is None else flags(wanted, tokens)
        logits = self.empty_logits(tokens, wanted)
        row = np.arange(batch + 1) * time               # of logits, at which each sequence begins
        if wanted is not None:
            row[1:] = np.cumsum(np.count_nonzero(wanted, axis=1))
        together = min(batch, max(1, BATCH // time))
        sequences = np.repeat(np.arange(together, dtype=np.int32), time)

        def read(engine, start):
            end = min(batch, start + together)
            engine.reset(together, time)
            engine.forward_into(logits[row[start]:row[end]], tokens[start:end], sequences,
                                None if positions is None else positions[start:end],
                                None if wanted is None else wanted[start:end])

        starts = range(0, batch, together)
        self.in_parallel(read, self.workers(len(starts)), starts)
        return logits.reshape(batch, time, -1) if wanted is None else logits

    def tokens_of(self, text):
        """Text or a list of token ids -> list of token ids"""
        return self.encode(text) if isinstance(text, (str, bytes)) else list(text)

    def prompt_tokens(self, prompt):
        """The same, with bos for an empty prompt.  Raises MinitronError where that is impossible or
        the context is too short."""
        bos, context = self.config["bos"], self.config["context"]
        tokens = self.tokens_of(prompt) or ([bos] if bos >= 0 else [])
        if not tokens:
            raise MinitronError("this model needs a prompt, and one is empty")
        if len(tokens) > context:
            raise MinitronError(f"a prompt of {len(tokens)} tokens is longer than the model's "
                                f"context of {context}: shorten it")
        return tokens

    def generate(self, prompts, steps=None, temperature=None, top_k=0, top_p=1.0, min_p=0.0, seed=0,
                 stop=None):
        """The text after a prompt, or after each of a list, up to the end token or `steps` tokens:
        str for str, bytes for bytes.

        temperature None is the one that the file advises; 0 takes the most likely token each time.
        Prompt i of a list is sampled with seed + i, so that its text does not depend on the others.
        stop: a piece of the vocabulary, or a list with one for each prompt, that ends a text as the
        end token does.
        """
        many = [prompts] if isinstance(prompts, (str, bytes)) else list(prompts)
        if stop is not None:
            stops = [stop] * len(many) if isinstance(stop, (str, bytes)) else stop
            stop = [-1 if one is None else self.single_token(one) for one in stops]
        generated = self.generate_tokens(many, steps, temperature, top_k, top_p, min_p, seed, stop)
        texts = [self.decode(tokens) for tokens in generated]
        texts = [text.decode(errors="replace") if isinstance(prompt, str) else text for text,
                 prompt in zip(texts, many)]
        return texts[0] if isinstance(prompts, (str, bytes)) else texts

    def generate_tokens(self, prompts, steps=None, temperature=None, top_k=0, top_p=1.0, min_p=0.0,
                        seed=0, stop=None):
        """generate, from lists of token ids to lists of token ids; stop: a token id for each
        prompt, -1 for none"""
        if not prompts:
            return []
        prompts = [self.prompt_tokens(prompt) for prompt in prompts]
        steps, seed = check_steps(steps), whole("seed", seed)
        most = self.config["context"] + 1 - min(map(len, prompts))  # one more than it holds
        most = most if steps is None else min(steps, most)
        how = self.sampling(temperature, top_k, top_p, min_p)
        random = np.array([(seed + i) % 2**64 for i in range(len(prompts))], np.uint64)
        stop = None if stop is None else integers("token", stop)
        if stop is not None and stop.shape != (len(prompts),):
            raise MinitronError(
                f"{stop.size} stop tokens for {len(prompts)} prompts: give one each")
        texts = [None] * len(prompts)

        def write(engine, part):
            texts[part] = engine.generate_some(prompts[part], most, how, random[part].copy(),
                                               None if stop is None else stop[part].copy())

        engines = self.workers(len(prompts) // FEW)
        parts = [slice(i, None, len(engines)) for i in range(len(engines))]
        self.in_parallel(write, engines, parts)
        return texts

    def generate_some(self, prompts, most, how, random, stop):
        """mt_generate -> lists of token ids.  how: mt_sampling *, random, stop: arrays (B,)"""
        count = len(prompts)
        flat = integers("token", np.concatenate(prompts))
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        tokens, generated = np.empty((count, most), np.int32), np.empty(count, np.int32)
        self.check(self.lib.mt_generate(
            self.opened(), count, pointer("int32_t[]", flat), pointer("int32_t[]", lengths), most,
            pointer("int32_t[]", stop), how, pointer("uint64_t[]", random),
            pointer("int32_t[]", tokens), pointer("int32_t[]", generated)))
        return [row[:length].tolist() for row, length in zip(tokens, generated)]

    def stream(self, prompt, steps=None, temperature=None, top_k=0, top_p=1.0, min_p=0.0, seed=0):
        """The text after a prompt, piece by piece as it comes: an iterator of str for str, of bytes
        for bytes.

        A character that is spread over several tokens comes when it is complete.  The engine does
        nothing else meanwhile.
        """
        steps, seed = check_steps(steps), whole("seed", seed)
        how = self.sampling(temperature, top_k, top_p, min_p)
        state = ffi.new("uint64_t *", seed % 2**64)
        utf8 = codecs.getincrementaldecoder("utf-8")("replace") if isinstance(prompt, str) else None
        tokens, context = self.prompt_tokens(prompt), self.config["context"]
        self.reset(1, context)
        row = self.forward(tokens, wanted=np.arange(len(tokens)) == len(tokens) - 1)[0]
        for step in itertools.count():
            if step == steps:
                break
            token = self.sample(row, how, state)
            if token == self.config["eos"]:
                break
            piece = self.decode([token])
            text = piece if utf8 is None else utf8.decode(piece)
            if text:
                yield text
            if self.length() == context:
                break
            row = self.forward([token])[0]
        if utf8 is not None and utf8.getstate()[0]:
            yield utf8.decode(b"", final=True)

    def single_token(self, text):
        tokens = self.encode(text)
        if len(tokens) != 1:
            raise MinitronError(
                f"stop {text!r} is {len(tokens)} tokens: give a piece of the vocabulary")
        return tokens[0]

    def sampling(self, temperature, top_k, top_p, min_p):
        """mt_sampling *.  Raises MinitronError if a value is not a number."""
        temperature = self.config["temperature"] if temperature is None else temperature
        try:
            return ffi.new("mt_sampling *",
                           {"temperature": temperature, "top_k": top_k, "top_p": top_p,
                            "min_p": min_p})
        except (TypeError, OverflowError) as error:
            raise MinitronError(f"temperature {temperature}, top_k {top_k}, top_p {top_p} or min_p "
                                f"{min_p}: {error}") from None

    def sample(self, row, how, state):
        """One token from logits (V,); how: mt_sampling *, state: uint64_t *, which moves on."""
        token, row = ffi.new("int32_t *"), np.ascontiguousarray(row, np.float32)
        if row.shape != (self.config["vocab"],):
            raise MinitronError(f"logits of shape {row.shape}: give one for each of the "
                                f"{self.config['vocab']} tokens")
        self.check(self.lib.mt_sample(self.opened(), pointer("float[]", row), how, state, token))
        return token[0]


def whole_sequences(tokens, positions):
    """int32 arrays (B, T) of both, None for no positions.  Raises MinitronError."""
    tokens = integers("token", tokens)
    if tokens.ndim != 2 or tokens.size == 0:
        raise MinitronError(f"tokens of shape {tokens.shape}: give (B, T), neither of them 0")
    if positions is not None:
        positions = integers("position", positions)
        if positions.shape != tokens.shape:
            raise MinitronError(f"positions of shape {positions.shape} for tokens of shape "
                                f"{tokens.shape}: give one each")
    return tokens, positions


def whole(name, value):
    """An integer, NumPy's included, as a Python int.  Raises MinitronError."""
    try:
        return operator.index(value)
    except TypeError:
        raise MinitronError(f"{name} {value!r} is not a whole number") from None


def check_steps(steps):
    """Steps as an int, None for no limit.  Raises MinitronError."""
    if steps is not None and (steps := whole("steps", steps)) < 0:
        raise MinitronError(
            f"steps {steps} is negative: give the number of tokens to generate at the most")
    return steps


def integers(name, values):
    """int32 array of any values.  Raises MinitronError unless they are whole numbers of 32 bits."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise MinitronError(
            f"the {name}s are in rows of different lengths: give rows of one length") from None
    if array.size == 0:
        array = array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise MinitronError(f"the {name}s are {array.dtype}, not whole numbers")
    for value in (array.min(initial=0), array.max(initial=0)):
        if not -2**31 <= value < 2**31:
            raise MinitronError(f"{name} {value} does not exist: it has more than 32 bits")
    return np.ascontiguousarray(array, np.int32)


def flags(values, tokens):
    """bool array, one value for each token.  Raises MinitronError."""
    array = np.ascontiguousarray(values, bool)
    if array.shape != tokens.shape:
        raise MinitronError(f"{array.size} values for {tokens.size} tokens: give one each")
    return array


def pointer(ctype, array):
    return ffi.NULL if array is None else ffi.from_buffer(ctype, array)
