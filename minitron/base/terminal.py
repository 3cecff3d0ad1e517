"""A run and its terminal: the bar that shows progress, and the signals that stop a run between two steps."""
import signal
import sys
import threading

from tqdm import tqdm


class Progress:
    """A context manager around the training loop."""

    def __init__(self, start, steps, quiet=False):
        self.steps = steps
        self.live = sys.stderr.isatty() and not quiet
        self.quiet = quiet
        self.exact = None
        self.bar = tqdm(total=steps, initial=start, unit="step", disable=not self.live, dynamic_ncols=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def step(self, loss, token):
        """After each step; the bar redraws itself ten times a second at the most."""
        self.bar.update()
        if self.live and self.bar.n % 10 == 0:
            exact = "" if self.exact is None else f", held-out exact {self.exact:.1%}"
            self.bar.set_postfix_str(f"loss {loss:.4f}, token {token:.1%}{exact}", refresh=False)

    def evaluated(self, point):
        """After each evaluation; point: an entry of the curve."""
        self.exact = point["exact"]
        if not self.live and not self.quiet:
            held_out = "" if point["nll"] is None else f"   held-out: nll {point['nll']:.4f}, exact {point['exact']:.1%}"
            print(f"step {point['step']:>6} of {self.steps}   loss {point['loss']:.4f}{held_out}", file=sys.stderr, flush=True)


class Interrupted(Exception):
    """A signal asked the run to stop; it is saved."""


class StopOnSignal:
    """While entered, the first Ctrl-C or SIGTERM only sets `requested`; a second one is obeyed at once."""

    def __init__(self):
        self.requested = False
        self.before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():      # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.request)
        return self

    def __exit__(self, *exception):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def request(self, number, frame):
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
