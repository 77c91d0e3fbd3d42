"""Command line of `moefy record`."""

from .. import options
from ..choices import (DEFAULT_TOKENS, DTYPES, IMPORTANCE_KERNELS, IMPORTANCE_LEVELS,
                       IMPORTANCE_TYPES)
from ..devices import device_name

DESCRIPTION = "FFN inputs of a model on text, for `split`, `route` and their methods"
USAGE = "MODEL -o REC.h5 --text FILE…"
EXAMPLE = "moefy record MODEL -o rec.h5 --text book.txt notes.html"
RARE_OPTIONS = {"batch-size", "importance-type", "importance-level", "importance-kernel"}  # only on --help-all
DATA_PARALLEL = True


def add_options(parser):
    parser.add_argument("model", metavar="MODEL", help="directory or name of the dense model")
    parser.add_argument("-o", "--output", required=True, metavar="REC.h5",
                        help="recordings to make")
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE",
                        help="texts (plain, .html, .jsonl) or folders of them; equal shares of each")
    parser.add_argument("--max-tokens", type=int, default=DEFAULT_TOKENS, metavar="N",
                        help=f"default {DEFAULT_TOKENS}")
    parser.add_argument("--length", type=int, default=512, metavar="N",
                        help="tokens a sequence (default 512)")
    parser.add_argument("--layers", default="", metavar="LIST",
                        help="such as 0-3,7 or encoder.0-5 (default all)")
    parser.add_argument("--dtype", default="float16", choices=DTYPES,
                        help="of the recorded values (default float16)")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N",
                        help="sequences that run together (default 4)")
    parser.add_argument("--clusters", type=int, default=0, metavar="C",
                        help="divide the texts into so many clusters (split --method gradient needs"
                             " one an expert)")
    parser.add_argument("--importance", action="store_true",
                        help="also how much each neuron matters for the loss, by cluster")
    parser.add_argument("--importance-type", default=IMPORTANCE_TYPES[0], choices=IMPORTANCE_TYPES,
                        help=f"default {IMPORTANCE_TYPES[0]}")
    parser.add_argument("--importance-level", default=IMPORTANCE_LEVELS[0], choices=IMPORTANCE_LEVELS,
                        help=f"default {IMPORTANCE_LEVELS[0]}")
    parser.add_argument("--importance-kernel", default=IMPORTANCE_KERNELS[0], choices=IMPORTANCE_KERNELS,
                        help=f"default {IMPORTANCE_KERNELS[0]}")
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu (default), cuda, cuda:1, …")


def problems(args):
    return [*options.too_small(args, max_tokens=1, length=2, batch_size=1, clusters=0),
            *options.missing_texts(args), *options.folders_in_place_of(args.output)]
