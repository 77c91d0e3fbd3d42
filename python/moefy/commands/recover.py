"""Command line of `moefy recover`."""

from .. import options
from ..devices import device_name

DESCRIPTION = "distil the dense model into a converted one: quality back for some minutes of training"
USAGE = "OUT -o OUT2 --teacher MODEL --text FILE…"
EXAMPLE = "moefy recover OUT --teacher MODEL --text book.txt -o OUT2 --minutes 6"
RARE_OPTIONS = {"steps", "length", "batch", "sampled", "rate", "router-rate", "precision"}  # only on --help-all
DATA_PARALLEL = True


def add_options(parser):
    parser.add_argument("model", metavar="OUT", help="directory made by moefy convert")
    parser.add_argument("--teacher", required=True, metavar="MODEL",
                        help="the dense model it was made from")
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE",
                        help="texts (plain, .html, .jsonl) or folders of them, as many domains as"
                             " possible")
    parser.add_argument("-o", "--output", required=True, metavar="OUT2",
                        help="directory for the trained model, of the same layout")
    parser.add_argument("--minutes", type=options.number, default=6.0, metavar="M",
                        help="training time (default 6)")
    parser.add_argument("--steps", type=int, default=0, metavar="N",
                        help="so many steps instead, whatever time they take")
    parser.add_argument("--length", type=int, default=128, metavar="N",
                        help="tokens a sequence (default 128)")
    parser.add_argument("--batch", type=int, default=4, metavar="N",
                        help="sequences a step and rank (default 4)")
    parser.add_argument("--sampled", type=int, default=16384, metavar="N",
                        help="tokens that the dense model writes first, within the time; half of what"
                             " is learned from is of these (default 16384; 0: only the texts)")
    parser.add_argument("--rate", type=options.number, default=3e-4, metavar="LR",
                        help="learning rate of the FFN weights (default 3e-4)")
    parser.add_argument("--router-rate", type=options.number, default=1e-3, metavar="LR",
                        help="of a router, times the deviation of its weights (default 1e-3)")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"),
                        help="of the products; weights stay fp32 (default auto: bf16 where the"
                             " processor multiplies it)")
    parser.add_argument("--device", type=device_name, default="cpu", help="cpu (default), cuda, cuda:1, …")
    parser.add_argument("--no-verify", action="store_true",
                        help="do not look whether the teacher's weights are those that OUT was made from")


def problems(args):
    return [*options.not_above_zero(args, "minutes", "rate", "router_rate"),
            *options.too_small(args, steps=0, length=2, batch=1, sampled=0),
            *options.missing_texts(args), *options.folders_of_something_else(args.output)]
