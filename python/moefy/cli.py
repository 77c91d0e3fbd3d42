"""`python -m moefy COMMAND …`: the commands of moefy that need a live PyTorch model."""

import argparse
import importlib
import json
import os
import sys
import traceback

from . import interrupts
from .errors import MoefyError, UsageError
from .ranks import launched_rank, ranks_on_this_host, under_torchrun

# One module a command, with DESCRIPTION, add_options(parser) and run(args, out); those that share
# their work under torchrun say DATA_PARALLEL, the others work on rank 0.
COMMANDS = {"record": "recording", "calibrate": "calibrate", "recover": "recover",
            "evaluate": "evaluate"}

REASONS = {1: "differs", 2: "usage", 3: "invalid input", 4: "file system", 5: "communication",
           6: "device", 70: "internal error", 75: "interrupted"}


class Output:
    """Results on stdout (people's text, or JSON lines with --json), all else on stderr. Of several
    ranks only the first speaks."""

    def __init__(self, args):
        self.json = args.json
        self.speaks = launched_rank() == 0
        args.quiet = self.quiet = args.quiet or not self.speaks

    def info(self, text):
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warning(self, text):
        if self.speaks:
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def result(self, fields, text):
        if self.speaks:
            print(json.dumps(fields) if self.json else text, flush=True)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message}; see {self.prog} --help")


def default_threads():
    return max(1, len(os.sched_getaffinity(0)) // ranks_on_this_host())


def make_parser():
    parser = Parser(prog="moefy", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, place in COMMANDS.items():
        module = importlib.import_module(f".{place}", __package__)
        command = commands.add_parser(name, help=module.DESCRIPTION,
                                      description=module.DESCRIPTION)
        module.add_options(command)
        command.add_argument("--help-all", action="help", help="the same as --help")
        command.add_argument("--threads", type=int, default=default_threads(),
                             metavar="N", help="default: the CPUs that this process may use, shared"
                                               " with the other ranks of this host")
        command.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
        command.add_argument("--architecture", metavar="FILE",
                             help="description of a model family that is not built in")
        command.add_argument("--force", action="store_true",
                             help="replace what is there, start anew")
        command.add_argument("--json", action="store_true", help="results as JSON lines")
        command.add_argument("--quiet", action="store_true", help="no progress, no remarks")
        command.set_defaults(run=module.run, parallel=getattr(module, "DATA_PARALLEL", False))
    return parser


def say_exit(code, message=None):
    if launched_rank() != 0:
        return code
    if message:
        print(f"moefy: {message}", file=sys.stderr)
    print(f"moefy: exit {code} ({REASONS.get(code, 'error')})", file=sys.stderr, flush=True)
    return code


def say_interrupted():
    return say_exit(75, "interrupted; the same command resumes")


def main(arguments=None):
    interrupts.listen()
    try:
        code = run_command(arguments)
        interrupts.close()
        return code
    except KeyboardInterrupt:
        interrupts.ignore()
        return say_interrupted()


def run_command(arguments):
    """The exit code of the command that the arguments name."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin at barriers make a shared machine many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        args = make_parser().parse_args(arguments)
        if args.threads < 1:
            raise UsageError(f"--threads {args.threads} is below 1")
        if args.seed < 0:
            raise UsageError(f"--seed {args.seed} is negative")
        if launched_rank() != 0 and not (args.parallel and under_torchrun()):
            return 0
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        return args.run(args, Output(args)) or 0
    except Exception as error:
        # A signal may have turned into this one on its way through a library.
        return say_interrupted() if interrupts.arrived() else say_error(error)


def say_error(error):
    """Says what went wrong; the exit code."""
    if isinstance(error, MoefyError):
        return say_exit(error.code, error)
    if isinstance(error, ImportError):
        return say_exit(2, f"Python module '{error.name}' is missing ({error}); launch/setup"
                           " installs everything, launch/build builds moefy's own")
    code = getattr(error, "code", None)
    if type(error).__module__ == "_moefy" and isinstance(code, int):
        return say_exit(code, error)  # moefy's C++ side has no class to import before it is needed
    traceback.print_exception(error)
    return say_exit(70, f"{type(error).__name__}: {error}")
