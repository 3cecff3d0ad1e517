"""Stopping between two steps, never within one."""
import signal
import threading


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
