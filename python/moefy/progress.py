"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing with --quiet."""

import sys
import time

from . import interrupts


class Progress:
    LINE_SECONDS = 10.0  # between plain lines

    def __init__(self, title, total, unit, quiet=False):
        self.title, self.total, self.unit = title, total, unit
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()
        self.begin = time.monotonic()
        self.told = self.begin
        self.done = 0

    @staticmethod
    def factory(args):
        """A function that makes the progress of one piece of work."""
        return lambda title, total, unit: Progress(title, total, unit, quiet=args.quiet)

    def advance(self, what=""):
        interrupts.check()
        self.done += 1
        now = time.monotonic()
        if self.quiet or (not self.terminal and now - self.told < self.LINE_SECONDS):
            return
        self.told = now
        elapsed = max(now - self.begin, 1e-9)
        left = elapsed / self.done * (self.total - self.done)
        text = (f"{self.title}: {self.done}/{self.total} {self.unit},"
                f" {self.done / elapsed:.2f} {self.unit}/s, {left:.0f} s left")
        if self.terminal:
            filled = round(20 * self.done / max(1, self.total))
            print(f"\r\033[K[{'#' * filled}{'.' * (20 - filled)}] {text} {what}", end="",
                  file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def finish(self):
        if not self.quiet and self.terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
