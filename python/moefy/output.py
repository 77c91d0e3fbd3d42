"""What a command says: results on stdout, all else on stderr, and everything in a log file."""

import json
import math
import socket
import sys
import time

from .errors import IoError
from .ranks import launched_rank

LEVELS = ("debug", "info", "warning", "error")


def json_text(value, **settings):
    """JSON of a value, numbers in it that are not finite as null."""
    return json.dumps(_finite(value), allow_nan=False, **settings)


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Output:
    """Results as people's text or, with --json, as JSON lines. Of several ranks only the first speaks;
    each has a log file of its own, FILE, FILE.1, …, whatever --quiet and --log-level say."""

    def __init__(self, args):
        self.json = args.json
        self.rank = launched_rank()
        shown = LEVELS.index(args.log_level)
        args.quiet = self.quiet = args.quiet or self.rank > 0 or shown > LEVELS.index("info")
        self.warns = self.rank == 0 and shown <= LEVELS.index("warning")
        self.log_file = self._open(args.log) if args.log else None

    def info(self, text):
        self.log("info", text)
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warning(self, text):
        self.log("warning", text)
        if self.warns:
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def result(self, fields, text):
        self.log("info", text)
        if self.rank == 0:
            print(json_text(fields) if self.json else text, flush=True)

    def log(self, level, text):
        """To the log file alone."""
        if self.log_file:
            now = time.time()
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            print(f"{stamp}.{int(now * 1000) % 1000:03} rank {self.rank} {socket.gethostname()} {level} {text}",
                  file=self.log_file, flush=True)

    def _open(self, path):
        if self.rank > 0:
            path += f".{self.rank}"
        try:
            return open(path, "w", encoding="utf-8")
        except OSError as error:
            raise IoError(f"{path}: cannot open the log file: {error.strerror}") from None
