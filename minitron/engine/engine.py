"""The C engine from Python.

    from minitron import Engine
    with Engine("model.bin") as engine:
        engine.generate("123+456=")

`make` builds the library; its declarations are read from run.c, between API-BEGIN and API-END, so
that no copy can drift.  Calls release Python's lock, so that engines in several threads run side
by side.  One engine does one thing at a time: a call that would disturb another one is refused.
"""
import codecs
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from functools import lru_cache
from threading import get_ident

import numpy as np
from cffi import FFI

from ..base.environment import ROOT, available_cpus
from ..base.errors import MinitronError
from . import threads as thread_limits
from .arguments import (
    INT32,
    TEXT,
    as_array,
    each,
    each_flag,
    int32,
    integers,
    listed,
    path_bytes,
    real,
    shown,
    text_bytes,
    token_list,
    token_rows,
    whole,
)
from .build import EngineMissing, library_path
from .model_file import parse_provenance

GROUP = 64          # texts that logprobs scores at a time
BATCH = 512         # tokens of whole sequences that logits works on at a time
FEW = 12            # prompts that are not worth another thread, as many as run.c keeps in flight
ffi = FFI()


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
    path = library_path()
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

    A call that goes wrong raises MinitronError, EngineMissing without the library.
    """

    def __init__(self, path, threads=None):
        self.handle, self.gone = ffi.NULL, "this engine is closed: open the model again"
        self.forks = []             # handles on the same weights, one per thread: see workers
        self.pool = None            # the threads of all forks but the first
        self.lock = threading.Lock()        # held by the call that is at work
        self.user = None            # who may continue the sequences: see claim
        self.lib = library()
        if threads is None:
            threads = min(available_cpus(), thread_limits.MOST_THREADS)
        self.threads = whole("threads", threads, 1, thread_limits.MOST_THREADS)
        self.shared = thread_limits.threads_for_products(self.threads)
        self.tried = None           # the thread for which that many others were tried out
        handle = self.new_handle(self.lib.mt_open, path_bytes(path))
        size = ffi.new("uint64_t *")
        provenance = self.lib.mt_get_provenance(handle, size)
        try:
            self.provenance = parse_provenance(ffi.buffer(provenance, size[0])[:])
        except ValueError as error:
            raise MinitronError(f"{path}: {error}") from None
        self.lib.mt_set_threads(handle, self.shared)
        config = self.lib.mt_get_config(handle)
        self.config = {name: getattr(config, name) for name, _ in ffi.typeof("mt_config").fields}
        self.parameters = self.lib.mt_parameters(handle)
        self.handle = handle
        thread_limits.engines.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __reduce__(self):           # also of copy.copy and copy.deepcopy
        raise MinitronError("an engine cannot be copied or pickled: open the model file again")

    def close(self):
        """The engine cannot be used any more; its memory is freed, at the latest with the last call
        that another thread is still in.
        """
        pool, self.pool = self.pool, None
        if pool:
            pool.shutdown()
        self.forks, self.handle = [], ffi.NULL

    def new_handle(self, function, argument):
        """The mt_engine * of mt_open or mt_fork, which is closed when nothing refers to it"""
        handle = ffi.new("mt_engine **")
        status = function(argument, handle)
        handle = ffi.gc(handle[0], self.lib.mt_close)
        self.check(status, handle)
        return handle

    def check(self, status, handle=None):
        """Raises MinitronError with mt_error's text unless the status is MT_OK."""
        if status:
            reason = ffi.string(self.lib.mt_error(self.handle if handle is None else handle))
            raise MinitronError(" ".join(reason.decode(errors="replace").splitlines()))

    def opened(self):
        """The handle.  Raises MinitronError after close()."""
        handle = self.handle
        if handle == ffi.NULL:
            raise MinitronError(self.gone)
        return handle

    # ---- one thing at a time ---------------------------------------------------------------------

    @contextmanager
    def at_work(self, user=None, claims=True):
        """The time of a call: no other is at work, and the sequences are the user's -> the handle

        Raises MinitronError at once instead of waiting: what waits for a stream may do so for ever.
        """
        if not self.lock.acquire(blocking=False):
            raise MinitronError("this engine is busy on another thread: open another")
        try:
            handle = self.opened()
            if claims:
                self.claim(user)
            if self.shared > 1 and self.tried != get_ident():
                thread_limits.try_threads(self.shared)
                self.tried = get_ident()
            yield handle
        finally:
            self.lock.release()

    def claim(self, user):
        """Let the user continue the sequences; None: whatever they hold is lost.

        A user is a thread that has called reset(), by its number, or a stream, an object.  Raises
        MinitronError if they are another's.
        """
        if type(self.user) is object and self.user is not user:
            raise MinitronError("this engine is busy with a stream: exhaust it, close() it, or "
                                "open another")
        if user is not None and self.user is None:
            raise MinitronError("this engine has no sequences: call reset(), also after generate, "
                                "stream, logits, logprobs and attention")
        if user is not None and self.user != user:
            raise MinitronError("this engine is busy with the sequences of another thread: "
                                "open another")
        self.user = user

    def forget_threads(self):
        """In a process that has just been forked: the parent's other threads are not here."""
        handles = [self.handle, *self.forks]
        if self.lock.locked() and self.handle != ffi.NULL:      # by one of them, amid its work
            for handle in handles:
                ffi.gc(handle, None)
            self.gone = "this engine was at work when the process forked: open the model again"
            self.handle, self.forks = ffi.NULL, []
        if self.handle != ffi.NULL:
            self.lib.mt_set_threads(self.handle, 1)
        self.lock, self.pool, self.shared = threading.Lock(), None, 1

    # ---- tokens ----------------------------------------------------------------------------------

    def encode(self, text):
        """str or bytes -> token ids.  Raises MinitronError where the vocabulary lacks a
        character."""
        handle, content = self.opened(), text_bytes(text)
        tokens, count = ffi.new("int32_t[]", max(1, len(content))), ffi.new("int64_t *")
        self.check(self.lib.mt_encode(handle, content, len(content), tokens, count), handle)
        return list(tokens[0:count[0]])

    def decode(self, tokens):
        """Token ids -> bytes."""
        handle, size, pieces = self.opened(), ffi.new("int32_t *"), []
        for token in token_list(tokens).tolist():
            piece = self.lib.mt_piece(handle, token, size)
            if piece == ffi.NULL:
                raise MinitronError(
                    f"token {token} is not in the vocabulary of {self.config['vocab']}")
            pieces.append(ffi.buffer(piece, size[0])[:])
        return b"".join(pieces)

    def tokens_of(self, text):
        """Text or a list of token ids -> list of token ids"""
        return self.encode(text) if isinstance(text, TEXT) else listed("tokens", text)

    def prompt_tokens(self, prompt):
        """The tokens of a prompt as generate and logprobs give it to the model

        Text begins with bos if each row of training did, and an empty prompt is bos.  Raises
        MinitronError where that is impossible or the context is too short.
        """
        bos, context = self.config["bos"], self.config["context"]
        tokens = self.tokens_of(prompt)
        lacks_bos = isinstance(prompt, TEXT) and tokens[:1] != [bos]
        if bos >= 0 and (not tokens or lacks_bos and self.config["begins_with_bos"]):
            tokens = [bos, *tokens]
        if not tokens:
            raise MinitronError("this model needs a prompt, and one is empty")
        if len(tokens) > context:
            raise MinitronError(f"a prompt of {len(tokens)} tokens is longer than the model's "
                                f"context of {context}: shorten it")
        return tokens

    def single_token(self, text):
        tokens = self.encode(text)
        if len(tokens) != 1:
            raise MinitronError(f"stop {shown(text)} is {len(tokens)} tokens: give a piece of the "
                                "vocabulary")
        return tokens[0]

    # ---- sequences -------------------------------------------------------------------------------

    def reset(self, sequences, context):
        """Make room for that many empty sequences of up to `context` tokens, for this thread."""
        sequences, context = int32("sequences", sequences), int32("context", context)
        with self.at_work() as handle:
            self.make_room(handle, sequences, context)
            self.user = get_ident()

    def make_room(self, handle, sequences, context):
        self.check(self.lib.mt_reset(handle, sequences, context), handle)

    def length(self, sequence=0):
        """Tokens that a sequence holds, -1 if there is no such sequence"""
        sequence = int32("sequence", sequence)
        if self.user is None:
            self.opened()
            return -1
        with self.at_work(get_ident()) as handle:
            return self.lib.mt_length(handle, sequence)

    def rewind(self, length, sequence=0):
        """Forget all but a sequence's first `length` tokens, so that another continuation can
        follow them."""
        length, sequence = int32("length", length), int32("sequence", sequence)
        with self.at_work(get_ident()) as handle:
            self.check(self.lib.mt_rewind(handle, sequence, length), handle)

    def forward(self, tokens, sequences=None, positions=None, wanted=None):
        """Append tokens to their sequences -> logits (number wanted, V) after each.

        All arguments are (n,), see run.c's mt_forward.
        """
        tokens = token_list(tokens)
        sequences = each("sequence", sequences, tokens)
        positions = each("position", positions, tokens)
        wanted = each_flag("wanted value", wanted, tokens)
        logits = self.empty_logits(tokens, wanted)
        with self.at_work(get_ident()) as handle:
            self.forward_into(handle, logits, tokens, sequences, positions, wanted)
        return logits

    def empty_logits(self, tokens, wanted):
        """An array for the logits (number wanted, V) of as many tokens"""
        rows = tokens.size if wanted is None else np.count_nonzero(wanted)
        return np.empty((rows, self.config["vocab"]), np.float32)

    def forward_into(self, handle, logits, tokens, sequences, positions, wanted):
        """mt_forward of arrays of the right kind"""
        self.check(self.lib.mt_forward(
            handle, tokens.size, pointer("int32_t[]", tokens),
            pointer("int32_t[]", sequences), pointer("int32_t[]", positions),
            pointer("uint8_t[]", wanted), pointer("float[]", logits)), handle)

    def score(self, tokens, targets, sequences=None, positions=None):
        """Append tokens to their sequences -> log p(target) (n,) of what follows each, in nats; NaN
        for a negative target."""
        tokens, targets = token_list(tokens), integers("target", targets)
        targets = each("target", targets, tokens)
        sequences = each("sequence", sequences, tokens)
        positions = each("position", positions, tokens)
        with self.at_work(get_ident()) as handle:
            return self.score_arrays(handle, tokens, targets, sequences, positions)

    def score_arrays(self, handle, tokens, targets, sequences, positions):
        """mt_score of arrays of the right kind"""
        logprobs = np.full(tokens.size, np.nan, np.float32)
        self.check(self.lib.mt_score(
            handle, tokens.size, pointer("int32_t[]", tokens),
            pointer("int32_t[]", sequences), pointer("int32_t[]", positions),
            pointer("int32_t[]", targets), pointer("float[]", logprobs)), handle)
        return logprobs

    # ---- whole sequences -------------------------------------------------------------------------

    def logits(self, tokens, positions=None, wanted=None):
        """Logits of whole sequences from their beginning.

        tokens, positions (B, T) -> (B, T, V); with wanted (B, T) bool -> (number wanted, V), in
        order
        """
        tokens = token_rows(tokens)
        positions = each("position", positions, tokens)
        wanted = each_flag("wanted value", wanted, tokens)
        batch, time = tokens.shape
        logits = self.empty_logits(tokens, wanted)
        row = np.arange(batch + 1) * time               # of logits, at which each sequence begins
        if wanted is not None:
            row[1:] = np.cumsum(np.count_nonzero(wanted, axis=1))
        together = min(batch, max(1, BATCH // time))
        sequences = np.repeat(np.arange(together, dtype=np.int32), time)

        def read(handle, start):
            end = min(batch, start + together)
            self.make_room(handle, together, time)
            self.forward_into(handle, logits[row[start]:row[end]], tokens[start:end], sequences,
                              None if positions is None else positions[start:end],
                              None if wanted is None else wanted[start:end])

        starts = range(0, batch, together)
        with self.at_work() as handle:
            self.in_parallel(read, self.workers(handle, len(starts)), starts)
        return logits.reshape(batch, time, -1) if wanted is None else logits

    def attention(self, tokens, layer, head, positions=None):
        """Attention weights (B, T, T) of one head on whole sequences, tokens (B, T): row t is what
        token t looks at.

        With linear attention they are the scores, which need not add up to 1.
        """
        tokens = token_rows(tokens)
        positions = each("position", positions, tokens)
        layer, head = int32("layer", layer), int32("head", head)
        batch, time = tokens.shape
        sequences = np.repeat(np.arange(batch, dtype=np.int32), time)
        weights = np.empty((batch, time, time), np.float32)
        with self.at_work() as handle:
            self.make_room(handle, batch, time)
            self.check(self.lib.mt_attention(
                handle, tokens.size, pointer("int32_t[]", tokens),
                pointer("int32_t[]", sequences), pointer("int32_t[]", positions), layer, head,
                pointer("float[]", weights)), handle)
        return weights

    def logprobs(self, prompts, continuations):
        """log p of each token of each continuation, given its prompt and the tokens before: a list
        of arrays, in nats.

        prompts and continuations: lists, of text or of lists of tokens; of a prompt see
        prompt_tokens.
        """
        prompts, tails = listed("prompts", prompts), listed("continuations", continuations)
        if len(prompts) != len(tails):
            raise MinitronError(f"{len(prompts)} prompts and {len(tails)} continuations: "
                                "give as many of both")
        prompts = [self.prompt_tokens(prompt) for prompt in prompts]
        tails = [self.tokens_of(tail) for tail in tails]
        results = []
        with self.at_work() as handle:
            for start in range(0, len(prompts), GROUP):
                results += self.logprobs_of_tokens(handle, prompts[start:start + GROUP],
                                                   tails[start:start + GROUP])
        return results

    def logprobs_of_tokens(self, handle, prompts, tails):
        """logprobs of lists of token ids, all at once"""
        texts = [prompt + tail for prompt, tail in zip(prompts, tails)]
        tokens = token_list([token for text in texts for token in text])
        if tokens.min() < 0:
            raise MinitronError(
                f"token {tokens.min()} is not in the vocabulary of {self.config['vocab']}")
        targets = []                # nothing is scored within a prompt
        for prompt, text in zip(prompts, texts):
            targets += [-1] * (len(prompt) - 1) + text[len(prompt):]
        # the last token need not go through the model
        sizes = [len(text) - 1 for text in texts]
        tokens = integers("token", [token for text in texts for token in text[:-1]])
        self.make_room(handle, len(texts), max(1, *sizes))
        scores = self.score_arrays(handle, tokens, integers("target", targets),
                                   np.repeat(np.arange(len(texts), dtype=np.int32), sizes), None)
        rows = np.split(scores, np.cumsum(sizes)[:-1])
        return [row[len(prompt) - 1:] for row, prompt in zip(rows, prompts)]

    # ---- generation ------------------------------------------------------------------------------

    def generate(self, prompts, steps=None, temperature=None, top_k=0, top_p=1.0, min_p=0.0, seed=0,
                 stop=None):
        """The text after a prompt, or after each of a list, up to the end token or `steps` tokens:
        str for str, bytes for bytes.

        temperature None is the one that the file advises; 0 takes the most likely token each time.
        Prompt i of a list is sampled with seed + i, so that its text does not depend on the others.
        stop: a piece of the vocabulary, or a list with one for each prompt, that ends a text as the
        end token does.
        """
        many = [prompts] if isinstance(prompts, TEXT) else listed("prompts", prompts)
        if stop is not None:
            stops = [stop] * len(many) if isinstance(stop, TEXT) else listed("stop", stop)
            stop = [-1 if one is None else self.single_token(one) for one in stops]
        generated = self.generate_tokens(many, steps, temperature, top_k, top_p, min_p, seed, stop)
        texts = [self.decode(tokens) for tokens in generated]
        texts = [text.decode(errors="replace") if isinstance(prompt, str) else text for text,
                 prompt in zip(texts, many)]
        return texts[0] if isinstance(prompts, TEXT) else texts

    def generate_tokens(self, prompts, steps=None, temperature=None, top_k=0, top_p=1.0, min_p=0.0,
                        seed=0, stop=None):
        """generate, from lists of token ids to lists of token ids; stop: a token id for each
        prompt, -1 for none"""
        prompts = [self.prompt_tokens(prompt) for prompt in listed("prompts", prompts)]
        steps, seed = limit(steps), whole("seed", seed)
        how = self.sampling(temperature, top_k, top_p, min_p)
        stop = None if stop is None else integers("stop token", stop)
        if stop is not None and stop.shape != (len(prompts),):
            raise MinitronError(
                f"{stop.size} stop tokens for {len(prompts)} prompts: give one each")
        if not prompts:
            return []
        most = self.config["context"] + 1 - min(map(len, prompts))  # one more than it holds
        most = most if steps is None else min(steps, most)
        random = np.array([(seed + i) % 2**64 for i in range(len(prompts))], np.uint64)
        texts = [None] * len(prompts)

        def write(handle, part):
            texts[part] = self.generate_some(handle, prompts[part], most, how, random[part].copy(),
                                             None if stop is None else stop[part].copy())

        with self.at_work() as handle:
            handles = self.workers(handle, len(prompts) // FEW)
            parts = [slice(i, None, len(handles)) for i in range(len(handles))]
            self.in_parallel(write, handles, parts)
        return texts

    def generate_some(self, handle, prompts, most, how, random, stop):
        """mt_generate -> lists of token ids.  how: mt_sampling *, random, stop: arrays (B,)"""
        count = len(prompts)
        flat = token_list([token for prompt in prompts for token in prompt])
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        tokens, generated = np.empty((count, most), np.int32), np.empty(count, np.int32)
        self.check(self.lib.mt_generate(
            handle, count, pointer("int32_t[]", flat), pointer("int32_t[]", lengths), most,
            pointer("int32_t[]", stop), how, pointer("uint64_t[]", random),
            pointer("int32_t[]", tokens), pointer("int32_t[]", generated)), handle)
        return [row[:length].tolist() for row, length in zip(tokens, generated)]

    def stream(self, prompt, steps=None, temperature=None, top_k=0, top_p=1.0, min_p=0.0, seed=0):
        """The text after a prompt, piece by piece as it comes: an iterator of str for str, of bytes
        for bytes.

        A character that is spread over several tokens comes when it is complete.  The engine is
        busy until the iterator is exhausted, closed or deleted.
        """
        utf8 = codecs.getincrementaldecoder("utf-8")("replace") if isinstance(prompt, str) else None
        steps, state = limit(steps), ffi.new("uint64_t *", whole("seed", seed) % 2**64)
        how = self.sampling(temperature, top_k, top_p, min_p)
        with closing(self.stream_tokens(self.prompt_tokens(prompt), steps, how, state)) as tokens:
            for token in tokens:
                piece = self.decode([token])
                text = piece if utf8 is None else utf8.decode(piece)
                if text:
                    yield text
        if utf8 is not None and utf8.getstate()[0]:
            yield utf8.decode(b"", final=True)

    def stream_tokens(self, prompt, steps, how, state):
        """The tokens after a prompt of token ids, one by one"""
        me, context = object(), self.config["context"]
        tokens, row = token_list(prompt), np.empty((1, self.config["vocab"]), np.float32)
        wanted = np.arange(len(tokens)) == len(tokens) - 1
        try:
            with self.at_work() as handle:
                self.user = me
                self.make_room(handle, 1, context)
                self.forward_into(handle, row, tokens, None, None, wanted)
            for step in itertools.count():
                if step == steps:
                    break
                with self.at_work(me) as handle:
                    token = self.sample_row(handle, row[0], how, state)
                if token == self.config["eos"]:
                    break
                yield token
                if len(tokens) + step == context:
                    break
                with self.at_work(me) as handle:
                    self.forward_into(handle, row, np.array([token], np.int32), None, None, None)
        finally:
            if self.user is me:
                self.user = None

    def sampling(self, temperature, top_k, top_p, min_p):
        """mt_sampling *.  Raises MinitronError if a value is not a number."""
        temperature = self.config["temperature"] if temperature is None else temperature
        return ffi.new("mt_sampling *", {
            "temperature": real("temperature", temperature, 0, 1e6),
            "top_k": whole("top_k", top_k, 0, INT32[1]),
            "top_p": real("top_p", top_p, 0, 1), "min_p": real("min_p", min_p, 0, 1)})

    def sample(self, row, how, state):
        """One token from logits (V,); how: mt_sampling *, state: uint64_t *, which moves on."""
        row = as_array("logit", row)
        if row.shape != (self.config["vocab"],) or row.dtype.kind not in "iuf":
            raise MinitronError(f"logits of shape {row.shape}, {row.dtype}: give one for each of "
                                f"the {self.config['vocab']} tokens")
        for name, value, kind in (("how", how, "mt_sampling *"), ("state", state, "uint64_t *")):
            if not isinstance(value, ffi.CData) or ffi.typeof(value) is not ffi.typeof(kind):
                raise MinitronError(f"{name} {shown(value)} is not a {kind} of cffi")
        with self.at_work(claims=False) as handle:
            return self.sample_row(handle, np.ascontiguousarray(row, np.float32), how, state)

    def sample_row(self, handle, row, how, state):
        """mt_sample of an array of the right kind"""
        token = ffi.new("int32_t *")
        self.check(self.lib.mt_sample(handle, pointer("float[]", row), how, state, token), handle)
        return token[0]

    # ---- threads ---------------------------------------------------------------------------------

    def workers(self, handle, tasks):
        """Handles for that many tasks: forks, one per thread, if the model is small, else this one

        The weights of a small model stay in the caches.  A large one would have to be read from
        memory by each fork, so there threads share its products.
        """
        size = self.parameters * (1 if self.config["int8"] else 4)
        count = min(self.threads, tasks)
        if count < 2 or size >= self.lib.MT_SMALL:
            return [handle]
        self.make_room(handle, 1, 1)            # the forks have caches of their own
        while len(self.forks) < count:
            self.forks.append(self.new_handle(self.lib.mt_fork, handle))
        self.pool = self.pool or ThreadPoolExecutor(self.threads - 1)
        return self.forks[:count]

    def in_parallel(self, work, handles, tasks):
        """work(handle, task) for each task: a handle per thread, the first on this one"""
        tasks = iter(tasks)         # of a list or a range, whose next() is atomic

        def run(handle):
            for task in tasks:
                work(handle, task)

        try:
            others = [self.pool.submit(run, handle) for handle in handles[1:]]
        except RuntimeError as error:           # some may have begun
            self.pool.shutdown()
            self.pool = None
            raise thread_limits.cannot_start(len(handles), error) from None
        try:
            run(handles[0])
        finally:
            wait(others)
        for other in others:
            other.result()          # raises its error


def limit(steps):
    """Tokens to generate at most, None for no limit.  Raises MinitronError."""
    return None if steps is None else whole("steps", steps, 0)


def pointer(ctype, array):
    return ffi.NULL if array is None else ffi.from_buffer(ctype, array)
