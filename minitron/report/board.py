"""What a sweep shows while it goes on: one bar for all of it, and on a terminal the phase diagram as it fills."""
import os
import shutil
import sys
import time

from tqdm import tqdm

from . import phase
from . import text as report


class Board:
    """costs {key: seconds that its cell should take}; records: those that are there already"""

    def __init__(self, costs, records):
        self.costs, self.records = costs, list(records)
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.began, self.spent, self.cells, self.learnt, self.drawn = time.monotonic(), 0.0, 0, 0, 0
        if self.live and costs:
            self.draw()             # the first cell may take long

    def ended(self, record):
        """After each cell."""
        self.records.append(record)
        self.cells += 1
        self.learnt += (phase.way(record) or 0) >= phase.LEARNT
        self.spent += self.costs.get(record["key"], 0.0)
        if self.live:
            self.draw()
        else:
            came = phase.way(record)
            print(f"{self.bar()}   {record['key']} {record['status']}" + ("" if came is None else f" {came:.0%} of the way"),
                  file=sys.stderr, flush=True)

    def bar(self):
        """tqdm's, over the work that the cells ask for, since they are very different"""
        total = sum(self.costs.values())
        elapsed = time.monotonic() - self.began
        bar = tqdm.format_meter(min(self.spent, total), total, elapsed, ncols=48, ascii=not can_write("\u2588"),
                                bar_format="{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}")
        return bar + f", {self.cells} of {len(self.costs)} cells, {self.learnt} learnt"

    def draw(self):
        """Over what was drawn before.  Where the diagram does not fit into the window, only the bar."""
        columns, rows = shutil.get_terminal_size()
        lines, plain = (list(report.lines(self.records, colour=colour, judged=False)) for colour in (report.can_colour(), False))
        if len(plain) + 2 > rows or max(map(len, plain), default=0) > columns:
            lines = []
        lines.append(self.bar()[:columns - 1])          # a line that is broken in two would not be drawn over
        up = f"\x1b[{self.drawn}F\x1b[J" if self.drawn else ""
        sys.stderr.write(up + "\n".join(lines) + "\n")
        sys.stderr.flush()
        self.drawn = len(lines)


def can_write(text):
    try:
        text.encode(sys.stderr.encoding)
    except UnicodeEncodeError:
        return False
    return True
