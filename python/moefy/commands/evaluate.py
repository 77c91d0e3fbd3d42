"""Command line of `moefy evaluate`."""

import importlib.util
import pathlib

from .. import options
from ..devices import device_name
from ..names import repeated

DESCRIPTION = "perplexity, agreement and speed of converted models beside the dense one"
USAGE = "MODEL OUT… --text FILE…"
EXAMPLE = "moefy evaluate MODEL OUT --text other.txt --top-k 4,8"
RARE_OPTIONS = set()  # only on --help-all
PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def add_options(parser):
    parser.add_argument("model", metavar="MODEL", help="directory of the dense model")
    parser.add_argument("outputs", nargs="*", metavar="OUT", help="converted directories")
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE",
                        help="texts (plain, .html, .jsonl) or folders; one figure each")
    parser.add_argument("--top-k", type=options.list_of_counts, default="", metavar="K,K,…",
                        help="also with these numbers of routed experts, where editable")
    parser.add_argument("--sequences", type=int, default=16, metavar="N",
                        help="sequences of each text, drawn with --seed (default 16)")
    parser.add_argument("--length", type=int, default=512, metavar="N",
                        help="tokens a sequence (default 512)")
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu (default), cuda, cuda:1, …")
    parser.add_argument("--no-verify", action="store_true",
                        help="do not look whether the converted models were made from this dense one")
    parser.add_argument("-o", "--output", metavar="FILE.json", help="results as JSON")
    parser.add_argument("--plot", metavar="FILE",
                        help="perplexity against active parameters (.png, .svg or .pdf)")
    parser.add_argument("--tasks", metavar="A,B,…",
                        help="tasks of lm-evaluation-harness, with each model as it is stored")


def missing_packages(args):
    """What an option needs besides, before hours of work rather than after."""
    lines = []
    for option, wanted, module, package in (("--plot", args.plot, "matplotlib", "matplotlib"),
                                            ("--tasks", args.tasks, "lm_eval", "lm-eval")):
        if wanted and importlib.util.find_spec(module) is None:
            name = "lm-evaluation-harness" if module == "lm_eval" else module
            lines.append(f"{option} needs {name}, which is not installed: pip install {package}")
    return lines


def problems(args):
    lines = [*options.too_small(args, sequences=1, length=2), *options.missing_texts(args),
             *options.folders_in_place_of(args.output, args.plot), *missing_packages(args)]
    lines += [f"{path} is given twice" for path in [*repeated(args.text or []), *repeated(args.outputs)]]
    for path in (args.output, args.plot):
        if path and pathlib.Path(path).is_file() and not args.force:
            lines.append(f"{path} exists; --force replaces it")
    if args.plot and pathlib.Path(args.plot).suffix not in PLOT_SUFFIXES:
        lines.append(f"--plot {args.plot}: its name must end in {', '.join(PLOT_SUFFIXES)}")
    return lines
