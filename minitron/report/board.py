"""The progress of a sweep: one bar for all of it and, on a terminal, the phase diagram so far."""
import os
import shutil
import sys
import time

from tqdm import tqdm

from ..measure import learnt
from ..sweep.ledger import is_finished
from . import text

BLOCK = "\u2588"            # of a bar, where the terminal can print it


class Board:
    """costs {key: seconds that its cell should take}; records: those that the ledger has already"""

    def __init__(self, costs, records):
        self.costs, self.records = costs, list(records)
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.start, self.spent, self.cells, self.learnt = time.monotonic(), 0.0, 0, 0
        self.height = 0             # lines drawn last
        if self.live and costs:
            self.draw()             # the first cell may take long

    def ended(self, record):
        """After each cell: redraw, or print a line where that is impossible; say why one failed."""
        self.records.append(record)
        self.cells += 1
        self.learnt += learnt.has_learnt(record) is True
        self.spent += self.costs.get(record["key"], 0.0)
        failure = "" if is_finished(record) else f"{record['key']}: {record['reason']}"
        if self.live:
            self.draw(failure)
            return
        score = learnt.score(record)
        score_text = "" if score is None else f", score {score:.2f}"
        line = f"{self.bar()}   {record['key']} {record['status']}{score_text}"
        print(line, *filter(None, [failure]), sep="\n", file=sys.stderr, flush=True)

    def bar(self):
        """tqdm's bar, over estimated seconds of work: cells differ too much to be counted"""
        total = sum(self.costs.values())
        elapsed = time.monotonic() - self.start
        bar = tqdm.format_meter(min(self.spent, total), total, elapsed, ncols=48,
                                ascii=not can_print(BLOCK),
                                bar_format="{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}")
        return f"{bar}, {self.cells} of {len(self.costs)} cells, {self.learnt} learnt"

    def draw(self, message=""):
        """Draw over the last drawing; only the bar where the diagram does not fit the window.

        message: a line that stays above the drawing
        """
        columns, rows = shutil.get_terminal_size()
        lines, plain = (list(text.lines(self.records, colour=colour, with_verdicts=False))
                        for colour in (text.can_colour(), False))
        if len(plain) + 2 > rows or max(map(len, plain), default=0) > columns:
            lines = []
        lines.append(self.bar()[:columns - 1])      # a wrapped line could not be drawn over
        erase = f"\x1b[{self.height}F\x1b[J" if self.height else ""
        sys.stderr.write(erase + "\n".join([*filter(None, [message]), *lines]) + "\n")
        sys.stderr.flush()
        self.height = len(lines)


def can_print(text):
    """Whether standard error has these characters"""
    try:
        text.encode(sys.stderr.encoding)
    except UnicodeEncodeError:
        return False
    return True
