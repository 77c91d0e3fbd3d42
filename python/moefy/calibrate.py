"""`moefy calibrate`: experts, routers and refitted down projections from what a model computes on
real text, layer by layer. The model runs here; everything is decided in C++ (`_moefy`)."""

import json
import time

import numpy as np
import torch

from . import score_scale
from .errors import UsageError
from .ffn_switch import FfnSwitch, ffn_module_name
from .models import LayerRunner, load_model, load_tokenizer
from .progress import Progress
from .sampling import SAMPLED_LENGTH, sample_text
from .texts import choose_sequences, digest_of_tokens, read_text, to_sequences

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
    parser.add_argument("--active", type=float, default=MAP_OPTIONS["active"],
                        metavar="SHARE",
                        help="share of the neurons that run for a token (default 0.5)")
    parser.add_argument("--shared", default=MAP_OPTIONS["shared"], metavar="S",
                        help="always-on experts among them (default auto)")
    parser.add_argument("--tokens", type=int, default=8192, metavar="N",
                        help="calibration tokens (default 8192)")
    parser.add_argument("--sampled", type=int, default=4096, metavar="N",
                        help="tokens more, beside --text, that the model writes by itself (default"
                             " 4096): the fits are short of data, and these cover domains that the"
                             " text does not")
    parser.add_argument("--length", type=int, default=512, metavar="N",
                        help="tokens a sequence of text (default 512)")
    parser.add_argument("--refit", type=float, default=MAP_OPTIONS["refit"],
                        metavar="LAMBDA",
                        help="ridge of the refitted down projections; 0 keeps the dense ones"
                             " (default 0.2)")
    parser.add_argument("--score-scale", metavar="MAP.h5",
                        help="make no map, but measure for this one what `convert --score-scale"
                             " calibrated` multiplies the routed experts by, and keep it there (or"
                             " in -o)")
    parser.add_argument("--device", default="cpu", help="where the model runs (default cpu)")


def calibration_sequences(args, model, tokenizer, progress):
    """(arrays of token ids, one a sequence; what identifies them)."""
    sequences, sampled = [], args.tokens
    if args.text:
        sampled = args.sampled
        by_text = [to_sequences(tokenizer, read_text(path), args.length, path)
                   for path in args.text]
        sequences += list(choose_sequences(by_text, args.tokens, args.seed))
    if sampled > 0:
        length = min(args.length, SAMPLED_LENGTH)
        sequences += list(sample_text(model, tokenizer, sampled, length, args.seed, progress))
    return sequences, {"tokens": sum(map(len, sequences)),
                       "sampled": sampled,
                       "digest": digest_of_tokens(sequences)}


def shared_count(text):
    if text == "auto":
        return -1
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--shared '{text}' is neither auto nor a number") from None


def check(args):
    if not args.output and not args.score_scale:
        raise UsageError("calibrate needs -o MAP.h5, the map to make")
    if args.score_scale:
        for name, default in MAP_OPTIONS.items():
            if getattr(args, name) != default:
                raise UsageError(f"--{name} says what map is made; --score-scale measures one")
    for name, least in (("tokens", 1), ("length", 2), ("sampled", 0)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name} {getattr(args, name)} is below {least}")


def prepare(args):
    """Model, layers, token sequences, what identifies them, and a factory of progress bars."""
    import _moefy

    torch.set_num_threads(args.threads)
    progress = Progress.factory(args)
    layers = _moefy.ffn_layers(args.model, args.architecture or "")
    tokenizer = load_tokenizer(args.model)
    model = load_model(args.model).to(args.device)
    sequences, identity = calibration_sequences(args, model, tokenizer, progress)
    return model, layers, sequences, identity, progress


def run(args, out):
    import _moefy

    check(args)
    if args.score_scale:
        return score_scale.run(args, out, prepare)
    begin = time.monotonic()
    model, layers, sequences, identity, progress = prepare(args)
    calibrator = _moefy.Calibrator(
        args.model, args.output, args.granularity, args.active, shared_count(args.shared), 1.0,
        args.refit, 4, args.seed, json.dumps(identity), args.architecture or "", args.threads,
        args.force, out.warning)
    if calibrator.already_done:
        out.info(f"{args.output}: already done")
        return
    counts = calibrator.counts
    out.info(f"{counts['experts']} routed experts, {counts['shared']} shared, top-{counts['top_k']};"
             f" {identity['tokens']} tokens in {len(sequences)} sequences")
    if any(map(calibrator.finished, range(calibrator.num_layers))):
        done = sum(map(calibrator.finished, range(calibrator.num_layers)))
        out.info(f"resuming: {done} of {calibrator.num_layers} layers were finished before")
    errors = fit_layers(calibrator, model, layers, sequences, args.device,
                        progress("calibrate", len(layers), "layers"))
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


def fit_layers(calibrator, model, layers, sequences, device, bar):
    """Every layer on the inputs it will see after conversion. Returns the layers' output errors."""
    names = [ffn_module_name(model, layer) for layer in layers]
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
