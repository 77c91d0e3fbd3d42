"""`python -m moefy COMMAND …`: the commands of moefy that need a live PyTorch model."""

import argparse
import functools
import importlib
import os
import sys
import traceback

from . import interrupts, options
from .devices import require_device
from .errors import MoefyError, UsageError
from .help import command_help
from .output import LEVELS, Output
from .ranks import launched_rank, ranks_on_this_host, under_torchrun

# The module of each command that has its run(args, out). Its name in commands/ has DESCRIPTION, USAGE,
# EXAMPLE, RARE_OPTIONS, add_options(parser) and problems(args), what is wrong with the options as texts;
# those that share their work under torchrun say DATA_PARALLEL, the others work on rank 0.
COMMANDS = {"record": "recording", "calibrate": "calibrate", "recover": "recover",
            "evaluate": "evaluate"}

REASONS = {1: "differs", 2: "usage", 3: "input data", 4: "file system", 5: "communication",
           6: "device", 70: "internal error", 75: "interrupted"}


class HelpPage(argparse.Action):
    """Prints page() and ends."""

    def __init__(self, option_strings, dest, page, **settings):
        super().__init__(option_strings, dest, nargs=0, **settings)
        self.page = page

    def __call__(self, parser, *_):
        if launched_rank() == 0:
            print(self.page())
        parser.exit()


class Parser(argparse.ArgumentParser):
    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message):
        raise UsageError(f"{message}; see {self.prog} --help")


def default_threads():
    return max(1, len(os.sched_getaffinity(0)) // ranks_on_this_host())


def add_common_options(command, parallel):
    """Options of every command; `parallel`: it shares its work under torchrun."""
    command.add_argument("--threads", type=int, default=default_threads(),
                         metavar="N", help="default: the CPUs that this process may use, shared"
                                           " with the other ranks of this host")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    command.add_argument("--architecture", metavar="FILE",
                         help="description of a model family that is not built in")
    command.add_argument("--config", metavar="FILE",
                         help="JSON file of options; the command line wins")
    command.add_argument("--preset", default="default", metavar="NAME",
                         help="named set of options (default default)")
    command.add_argument("--dump-config", action="store_true",
                         help="print the resolved options as JSON and stop")
    command.add_argument("--force", action="store_true",
                         help="replace what is there, start anew")
    command.add_argument("--json", action="store_true", help="results as JSON lines")
    command.add_argument("--quiet", action="store_true", help="no progress, no remarks")
    command.add_argument("--log", metavar="FILE", help="log of every rank: FILE, FILE.1, …")
    command.add_argument("--log-level", choices=LEVELS, default="info", help="screen (default info)")
    if parallel:
        command.add_argument("--timeout", type=options.duration, default="10m", metavar="TIME",
                             help="silence of a peer after which the job ends (default 10m)")


def make_parser():
    """The parser of all commands, and those of each of them by name."""
    parser = Parser(prog="moefy", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f".commands.{name}", __package__)
        command = commands.add_parser(name, help=module.DESCRIPTION, add_help=False)
        module.add_options(command)
        parallel = getattr(module, "DATA_PARALLEL", False)
        add_common_options(command, parallel)
        for option, everything in (("--help", False), ("--help-all", True)):
            short = () if everything else ("-h",)
            command.add_argument(*short, option, action=HelpPage, help="all options",
                                 page=functools.partial(command_help, name, module, command, everything))
        command.set_defaults(problems=module.problems, parallel=parallel)
    return parser, commands.choices


def parse(arguments):
    """The options of the command line, those of --config beside them; None after --dump-config.
    UsageError with everything that is unknown or missing."""
    parser, commands = make_parser()
    if not arguments or arguments[0] not in commands:
        return parser.parse_args(arguments)
    command = commands[arguments[0]]
    problems = options.take_stored(arguments[0], command, arguments)
    required = options.take_required(command)
    bad_values = options.collect_bad_values(command)
    try:
        args, unknown = parser.parse_known_args(arguments)
    except UsageError as error:
        raise UsageError("\n".join([*problems, *bad_values, str(error)])) from None
    problems += options.problems(command, args, [] if args.dump_config else required, unknown)
    problems += bad_values + options.too_small(args, threads=1, seed=0)
    if not args.dump_config:
        problems += args.problems(args)
    if problems:
        raise UsageError("\n".join(problems))
    args.resolved = options.dump(command, args)
    if args.dump_config:
        if launched_rank() == 0:
            print(args.resolved)
        return None
    return args


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
    out = None
    try:
        args = parse(sys.argv[1:] if arguments is None else arguments)
        if args is None:
            return 0
        if launched_rank() != 0 and not (args.parallel and under_torchrun()):
            return 0
        options.require_other_places(args)
        options.require_folders(args)
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        out = Output(args)
        out.log("info", f"moefy {args.command} {args.resolved}")
        require_device(args.device, ranks_on_this_host() if args.parallel else 1)
        return importlib.import_module(f".{COMMANDS[args.command]}", __package__).run(args, out) or 0
    except Exception as error:
        if out:
            out.log("error", error)
        # A signal may have turned into this one on its way through a library.
        return say_interrupted() if interrupts.arrived() else say_error(error)


def say_error(error):
    """Says what went wrong; the exit code."""
    if isinstance(error, MoefyError):
        return say_exit(error.code, error)
    if isinstance(error, ImportError):
        return say_exit(2, f"Python module '{error.name}' is missing ({error}); launch/setup"
                           " installs everything, launch/build builds moefy's own")
    if isinstance(error, OSError) and error.strerror:
        return say_exit(4, f"{error.filename or 'file system'}: {error.strerror}")
    if isinstance(error, MemoryError):
        return say_exit(70, "out of memory")
    if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which need not be imported here
        return say_exit(6, f"{str(error).splitlines()[0]} --device cpu needs no GPU")
    code = getattr(error, "code", None)
    if type(error).__module__ == "_moefy" and isinstance(code, int):
        return say_exit(code, error)  # moefy's C++ side has no class to import before it is needed
    traceback.print_exception(error)
    return say_exit(70, f"{type(error).__name__}: {error}")
