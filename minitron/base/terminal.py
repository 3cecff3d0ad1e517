"""A run and its terminal: a progress bar, and signals that stop a run between two steps."""
import signal
import sys
import threading

from tqdm import tqdm

# At 60 columns its last figure is still there.
BAR = "{percentage:3.0f}%|{bar:8}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"


class Progress:
    """A context manager around the training loop: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, start, steps, quiet=False):
        self.steps = steps
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self.exact = None               # exact match at the last evaluation
        self.bar = tqdm(total=steps, initial=start, unit="step", disable=not self.live,
                        dynamic_ncols=True, bar_format=BAR)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def show_step(self, loss, token):
        """Call after each step.      loss in nats per token, token: share predicted right"""
        self.bar.update()               # which redraws at most ten times per second
        if self.live and self.bar.n % 10 == 0:
            share = f"token {token:.1%}" if self.exact is None else f"exact {self.exact:.1%}"
            self.bar.set_postfix_str(f"{share}, loss {loss:.4f}", refresh=False)

    def show_evaluation(self, point):
        """Call after each evaluation.      point: of the learning curve"""
        self.exact = point["exact"]
        if self.live or self.quiet:
            return
        line = f"step {point['step']:>6} of {self.steps}   loss {point['loss']:.4f}"
        if point["nll"] is not None:
            line += f"   held-out: nll {point['nll']:.4f}, exact {point['exact']:.1%}"
        print(line, file=sys.stderr, flush=True)


def bar_of_lengths(lengths):
    """Go through the lengths that are measured after training, with a bar on a terminal."""
    return tqdm(lengths, "measuring", leave=False, unit="length", dynamic_ncols=True,
                disable=not sys.stderr.isatty())


class Interrupted(Exception):
    """A signal stopped the run, after it was saved."""


class StopOnSignal:
    """A context manager: the first Ctrl-C or SIGTERM sets `requested`, the second interrupts."""

    def __init__(self):
        self.requested = False
        self.old_handlers = {}

    def __enter__(self):
        # Python sets handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.old_handlers[number] = signal.signal(number, self.request)
        return self

    def __exit__(self, *exception):
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)

    def request(self, number, frame):
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
