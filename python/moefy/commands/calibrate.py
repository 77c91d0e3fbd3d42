"""Command line of `moefy calibrate`."""

from .. import options
from ..devices import device_name

# Options that say what map is made, and their defaults: --score-scale has a map.
MAP_OPTIONS = {"granularity": 64, "active": 0.5, "shared": "auto", "refit": 0.2}
DESCRIPTION = "experts, routers and down projections fitted to what a model computes on text"
USAGE = "MODEL -o MAP.h5 [--text FILE…]"
EXAMPLE = "moefy calibrate MODEL -o map.h5 --active 0.5 --text book.txt notes.html"
RARE_OPTIONS = {"sampled", "length", "score-scale"}  # only on --help-all


def add_options(parser):
    parser.add_argument("model", metavar="MODEL", help="directory of the dense model")
    parser.add_argument("-o", "--output", metavar="MAP.h5", help="map to make")
    parser.add_argument("--text", nargs="+", default=[], metavar="FILE",
                        help="texts (plain, .html, .jsonl) or folders of them, as many domains as"
                             " possible; none: sampled from the model itself")
    parser.add_argument("--granularity", type=int, default=MAP_OPTIONS["granularity"],
                        metavar="G",
                        help="experts and shared experts together (default 64): finer ones come"
                             " closer to the dense model, coarser ones run faster")
    parser.add_argument("--active", type=options.number, default=MAP_OPTIONS["active"],
                        metavar="SHARE",
                        help="share of the neurons that run for a token (default 0.5)")
    parser.add_argument("--shared", type=options.auto_or_number, default=MAP_OPTIONS["shared"], metavar="S",
                        help="always-on experts among them (default auto)")
    parser.add_argument("--tokens", type=int, default=8192, metavar="N",
                        help="calibration tokens (default 8192)")
    parser.add_argument("--sampled", type=int, default=4096, metavar="N",
                        help="tokens more, beside --text, that the model writes by itself (default"
                             " 4096): the fits are short of data, and these cover domains that the"
                             " text does not")
    parser.add_argument("--length", type=int, default=512, metavar="N",
                        help="tokens a sequence of text (default 512)")
    parser.add_argument("--refit", type=options.number, default=MAP_OPTIONS["refit"],
                        metavar="LAMBDA",
                        help="ridge of the refitted down projections; 0 keeps the dense ones"
                             " (default 0.2)")
    parser.add_argument("--score-scale", metavar="MAP.h5",
                        help="make no map, but measure for this one what `convert --score-scale"
                             " calibrated` multiplies the routed experts by, and keep it there (or"
                             " in -o)")
    parser.add_argument("--device", type=device_name, default="cpu",
                        help="where the model runs and, in a build for GPUs, everything is fitted: cpu"
                             " (default), cuda, cuda:1, …")


def problems(args):
    import _moefy

    lines = [*options.too_small(args, tokens=1, length=2, sampled=0), *options.missing_texts(args),
             *options.folders_in_place_of(args.output),
             *_moefy.calibrate_problems(args.granularity, args.active, options.number_or_auto(args.shared),
                                        args.refit)]
    if args.score_scale:
        lines += [f"--{name} says what map is made; --score-scale measures one"
                  for name, default in MAP_OPTIONS.items() if getattr(args, name) != default]
    elif not args.output:
        lines.append("calibrate needs -o MAP.h5, the map to make")
    return lines
