"""`moefy calibrate --score-scale`: the factor of each layer's routed experts that keeps the weight of
its FFN against the residual stream (LLaMA-MoE's output scale), measured in one pass over the layers."""

import json
import time

import torch
from torch.nn import functional

from .calibration_text import CalibrationText
from .errors import InputError, UsageError
from .ffn_inputs import owner_of
from .ffn_switch import FfnSwitch, behind_layer, ffn_module_names
from .models import LayerRunner, load_model, native
from .progress import Progress
from .texts import in_batches

LEAST_LENGTH = 1e-12


class Gap:
    """Sums of |residual stream| and |FFN output| over tokens; their ratio."""

    def __init__(self):
        self.residual = self.output = 0.0

    def add(self, residual, output):
        self.residual += residual.abs().sum(dtype=torch.float64).item()
        self.output += output.abs().sum(dtype=torch.float64).item()

    def ratio(self):
        return self.residual / self.output if self.output > 0 else float("inf")


def scale_between(dense, experts):
    """The factor of the experts' output that restores the dense ratio of residual and output."""
    return experts.ratio() / dense.ratio()


class Routing:
    """A layer of a map: which neurons are on for a token, and how often."""

    def __init__(self, layer, top_k):
        self.top_k = top_k
        self.weight = torch.from_numpy(layer["weight"])
        self.output = torch.from_numpy(layer["output"])
        self.bias = torch.tensor(layer["bias"])
        self.member = torch.zeros(len(layer["experts"]), layer["num_neurons"])
        for expert, neurons in enumerate(layer["experts"]):
            self.member[expert, neurons] = 1
        self.always = torch.zeros(layer["num_neurons"])
        # Neurons of several always-on experts count as often as these hold them.
        self.always.index_add_(0, torch.tensor(layer["shared"], dtype=torch.int64),
                               torch.ones(len(layer["shared"])))

    def scores(self, inputs):
        """[tokens, experts]"""
        if not self.output.numel():
            scores = inputs @ self.weight.T
            return scores + self.bias if self.bias.numel() else scores
        unit = inputs / inputs.norm(dim=1, keepdim=True).clamp_min(LEAST_LENGTH)
        return torch.tanh(unit @ self.weight.T) @ self.output.T

    def counts(self, inputs, scale):
        """[tokens, neurons]: how often each neuron's output counts, routed experts times scale."""
        order = torch.sort(self.scores(inputs), dim=1, descending=True, stable=True).indices
        chosen = functional.one_hot(order[:, :self.top_k], len(self.member)).sum(1)
        return scale * (chosen.to(self.member) @ self.member) + self.always


class MaskedFfn:
    """An FFN module whose hidden activations are multiplied on their way into the down projection."""

    def __init__(self, switch, down):
        self._switch, self._down = switch, down

    def compute(self, inputs, counts):
        def multiply(module, arguments):
            hidden = arguments[0]
            return (hidden * counts.reshape(hidden.shape).to(hidden), *arguments[1:])

        hook = self._down.register_forward_pre_hook(multiply)
        try:
            return self._switch.compute(inputs)
        finally:
            hook.remove()


def measure(model, layers, names, routing_of_layer, top_k, batches, device, bar):
    """Scales of the layers in `routing_of_layer` (layer index -> Routing fields), in order. Hidden
    states of the dense and of the converted model are carried from layer to layer, each scale
    installed before the next layer is looked at. names: of the layers' FFN modules; batches: token ids
    [B, T] each."""
    runner = LayerRunner(model, [name.rsplit(".", 1)[0] for name in names], device)
    dense = [runner.begin(ids) for ids in batches]
    converted = list(dense)
    scales = []
    for index, (layer, name) in enumerate(zip(layers, names)):
        switch = FfnSwitch(model.get_submodule(name))
        try:
            dense, dense_gap = run_layer(runner, index, switch, dense, switch.compute)
            if layer["index"] not in routing_of_layer:
                converted, _ = run_layer(runner, index, switch, converted, switch.compute)
                continue
            routing = Routing(routing_of_layer[layer["index"]], top_k)
            masked = MaskedFfn(switch, owner_of(model, layer, "down"))
            converted, scale = scaled_layer(runner, index, switch, converted, routing, masked,
                                            dense_gap)
        finally:
            switch.restore()
        if not (scale > 0 and scale < float("inf")):
            raise InputError(f"layer {layer['index']} ({name}): its FFN, dense or routed, puts out"
                             " nothing on this text; there is no scale to measure")
        scales.append(scale)
        bar.advance(name)
    bar.finish()
    return scales


def run_layer(runner, index, switch, streams, compute):
    """(streams behind the layer, its Gap), its FFN computed by `compute`."""
    gap, residuals, outputs = Gap(), [], []
    for stream in streams:
        residuals.append(runner.run(index, stream))
        with torch.no_grad():
            outputs.append(compute(switch.inputs))
        gap.add(residuals[-1], outputs[-1])
    return behind_layer(runner, index, switch, streams, residuals, outputs), gap


def scaled_layer(runner, index, switch, streams, routing, masked, dense_gap):
    """(streams behind the converted layer with its scale, the scale)."""

    def with_scale(scale):
        def compute(inputs):
            flat = inputs.reshape(-1, inputs.shape[-1])
            counts = routing.counts(flat.float().cpu(), scale)
            return masked.compute(inputs, counts.to(inputs.device))

        return compute

    _, gap = run_layer(runner, index, switch, streams, with_scale(1.0))
    scale = scale_between(dense_gap, gap)
    behind, _ = run_layer(runner, index, switch, streams, with_scale(scale))
    return behind, scale


def run(args, out):
    """The command. Everything that speaks against it is said before the model runs."""
    import _moefy

    begin = time.monotonic()
    scales = _moefy.ScoreScales(args.model, args.score_scale, args.architecture or "")
    routing = scales.layers
    counts = {len(layer["experts"]) for layer in routing.values()}
    top_k = scales.top_k or max(counts)
    if top_k > min(counts):
        raise UsageError(f"{args.score_scale}: top-k {top_k}, and a layer has {min(counts)} experts")
    layers = native(_moefy.ffn_layers, args.model, args.architecture or "")
    text = CalibrationText(args)
    progress = Progress.factory(args)
    names = ffn_module_names(args.model, layers)
    sequences, identity = text.sequences(progress), text.identity
    model = load_model(args.model).to(args.device)
    found = measure(model, layers, names, routing, top_k, in_batches(sequences), args.device,
                    progress("score scale", len(routing), "layers"))
    output = args.output or args.score_scale
    scales.write(output, found, json.dumps({"top-k": top_k, **identity}))
    seconds = time.monotonic() - begin
    out.result({"map": str(output), "top_k": top_k, "scales": found, **identity,
                "seconds": round(seconds, 2)},
               f"{output}: score scales of {len(found)} layers from {min(found):.3f} to"
               f" {max(found):.3f} with top-{top_k}, {seconds:.1f} s\n"
               f"next: moefy convert {args.model} {output} -o OUT --score-scale calibrated")
