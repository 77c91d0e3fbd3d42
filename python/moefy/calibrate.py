"""`moefy calibrate`: experts, routers and refitted down projections from what a model computes on
real text, layer by layer. The model runs here; everything is decided in C++ (`_moefy`)."""

import json
import time

import numpy as np
import torch

from . import options, score_scale
from .calibration_text import CalibrationText
from .devices import fitting_backend, return_freed_memory
from .ffn_switch import FfnSwitch, behind_layer, ffn_module_names
from .memory import keep_freed_memory
from .models import LayerRunner, load_model, native
from .progress import Progress
from .texts import in_batches


def run(args, out):
    import _moefy

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    if args.score_scale:
        return score_scale.run(args, out)
    begin = time.monotonic()
    progress = Progress.factory(args)
    layers = native(_moefy.ffn_layers, args.model, args.architecture or "")
    text = CalibrationText(args)
    identity = text.identity
    backend, device, why = fitting_backend(args.device)
    calibrator = _moefy.Calibrator(
        args.model, args.output, args.granularity, args.active, options.number_or_auto(args.shared), 1.0,
        args.refit, 4, args.seed, json.dumps(identity), args.architecture or "", args.threads,
        args.force, out.warning, backend, device)
    if calibrator.already_done:
        out.info(f"{args.output}: already done")
        return
    out.info(f"model: {args.device}; experts, routers and refits: {calibrator.backend_name}{why}")
    names = ffn_module_names(args.model, layers)
    sequences = text.sequences(progress, calibrator.sampled, calibrator.keep_sampled)
    model = load_model(args.model).to(args.device)
    counts = calibrator.counts
    out.info(f"{counts['experts']} routed experts, {counts['shared']} shared, top-{counts['top_k']};"
             f" {identity['tokens']} tokens in {len(sequences)} sequences")
    if any(map(calibrator.finished, range(calibrator.num_layers))):
        done = sum(map(calibrator.finished, range(calibrator.num_layers)))
        out.info(f"resuming: {done} of {calibrator.num_layers} layers were finished before")
    errors = fit_layers(calibrator, model, names, in_batches(sequences), args.device,
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
    """What the converted FFN makes of each batch's inputs, fitting it first if need be."""
    outputs = torch.empty(sum(map(len, inputs)), inputs[0].shape[1])
    if calibrator.finished(index):
        calibrator.apply(torch.cat(inputs), outputs)
    else:
        errors.append(calibrator.fit()["output_error"])
        calibrator.apply_to_added(outputs)
    return outputs.split([len(rows) for rows in inputs])


def rows_of(states):
    """Hidden states [B, T, hidden_size], or as a family has them, as the rows that C++ reads."""
    return states.reshape(-1, states.shape[-1]).float().cpu().contiguous()


def fit_layers(calibrator, model, names, batches, device, bar):
    """Every layer on the inputs it will see after conversion. names: of the layers' FFN modules; batches:
    token ids [B, T] each. Returns the layers' output errors."""
    runner = LayerRunner(model, [name.rsplit(".", 1)[0] for name in names], device)
    streams = [runner.begin(ids) for ids in batches]
    errors = []
    for index, name in enumerate(names):
        switch = FfnSwitch(model.get_submodule(name))
        try:
            calibrator.begin(index)
            inputs, residuals = [], []
            for stream in streams:
                residuals.append(runner.run(index, stream))
                inputs.append(rows_of(switch.inputs))
                if not calibrator.finished(index):
                    calibrator.add(inputs[-1], rows_of(residuals[-1]))
            return_freed_memory(device)
            outputs = converted_outputs(calibrator, index, inputs, errors)
            streams = behind_layer(runner, index, switch, streams, residuals, outputs)
        finally:
            switch.restore()
        bar.advance(name)
    bar.finish()
    return errors or [0.0]
