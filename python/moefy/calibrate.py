"""`moefy calibrate`: experts, routers and refitted down projections from what a model computes on
real text, layer by layer. The model runs here; everything is decided in C++ (`_moefy`)."""

import json
import time

import numpy as np
import torch

from . import options, score_scale
from .calibration_text import CalibrationText
from .devices import device_name
from .ffn_switch import FfnSwitch, ffn_module_name
from .models import LayerRunner, load_model, native
from .progress import Progress

# Options that say what map is made, and their defaults: --score-scale has a map.
MAP_OPTIONS = {"granularity": 32, "active": 0.5, "shared": "auto", "refit": 0.2}
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
                        help="experts and shared experts together (default 32)")
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
                        help="where the model runs: cpu (default), cuda, cuda:1, …")


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


def run(args, out):
    import _moefy

    torch.set_num_threads(args.threads)
    if args.score_scale:
        return score_scale.run(args, out)
    begin = time.monotonic()
    progress = Progress.factory(args)
    layers = native(_moefy.ffn_layers, args.model, args.architecture or "")
    text = CalibrationText(args)
    identity = text.identity
    calibrator = _moefy.Calibrator(
        args.model, args.output, args.granularity, args.active, options.number_or_auto(args.shared), 1.0,
        args.refit, 4, args.seed, json.dumps(identity), args.architecture or "", args.threads,
        args.force, out.warning)
    if calibrator.already_done:
        out.info(f"{args.output}: already done")
        return
    model = load_model(args.model).to(args.device)
    names = [ffn_module_name(model, layer) for layer in layers]
    sequences = text.sequences(model, progress, calibrator.sampled, calibrator.keep_sampled)
    counts = calibrator.counts
    out.info(f"{counts['experts']} routed experts, {counts['shared']} shared, top-{counts['top_k']};"
             f" {identity['tokens']} tokens in {len(sequences)} sequences")
    if any(map(calibrator.finished, range(calibrator.num_layers))):
        done = sum(map(calibrator.finished, range(calibrator.num_layers)))
        out.info(f"resuming: {done} of {calibrator.num_layers} layers were finished before")
    errors = fit_layers(calibrator, model, names, sequences, args.device,
                        progress("calibrate", len(names), "layers"))
    calibrator.finish()
    seconds = time.monotonic() - begin
    out.result({"map": args.output, **counts, **identity, "output_error": float(np.mean(errors)),
                "seconds": round(seconds, 2)},
               f"{args.output}: {len(layers)} layers, mean relative error of their outputs"
               f" {np.mean(errors):.4f}, {seconds:.1f} s\n"
               f"next: moefy convert {args.model} {args.output} -o OUT"
               + (" --use-refit" if args.refit > 0 else ""))


def converted_outputs(calibrator, index, inputs, errors):
    """What the converted FFN makes of each sequence's inputs, fitting it first if need be."""
    outputs = torch.empty(sum(map(len, inputs)), inputs[0].shape[1])
    if calibrator.finished(index):
        calibrator.apply(torch.cat(inputs), outputs)
    else:
        errors.append(calibrator.fit()["output_error"])
        calibrator.apply_to_added(outputs)
    return outputs.split([len(rows) for rows in inputs])


def fit_layers(calibrator, model, names, sequences, device, bar):
    """Every layer on the inputs it will see after conversion. names: of the layers' FFN modules. Returns
    the layers' output errors."""
    runner = LayerRunner(model, [name.rsplit(".", 1)[0] for name in names], device)
    streams = [runner.begin(ids) for ids in sequences]
    errors = []
    for index, name in enumerate(names):
        switch = FfnSwitch(model.get_submodule(name))
        try:
            calibrator.begin(index)
            inputs = []
            for stream in streams:
                residual = runner.run(index, stream)
                inputs.append(switch.inputs[0].float().cpu().contiguous())
                if not calibrator.finished(index):
                    calibrator.add(inputs[-1], residual.float().cpu().contiguous())
            for number, outputs in enumerate(converted_outputs(calibrator, index, inputs, errors)):
                switch.outputs = outputs
                streams[number] = runner.run(index, streams[number])
            switch.outputs = None
        finally:
            switch.restore()
        bar.advance(name)
    bar.finish()
    return errors or [0.0]
