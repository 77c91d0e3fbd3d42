"""FFN modules of a model's decoder layers, replaced while the layers run one at a time."""

import torch

from .errors import InputError, UsageError
from .models import without_weights


class FfnSwitch:
    """Stands in for the FFN module of a decoder layer."""

    def __init__(self, module):
        self.module = module
        self.inputs = None
        self.outputs = None  # None: zeros
        self._forward = module.forward
        module.forward = self

    def __call__(self, hidden_states, *args, **kwargs):
        self.inputs = hidden_states
        if self.outputs is None:
            return torch.zeros_like(hidden_states)
        return self.outputs.reshape(hidden_states.shape).to(hidden_states)

    def compute(self, hidden_states):
        """What the module itself makes of its input."""
        return self._forward(hidden_states)

    def restore(self):
        self.module.forward = self._forward


def behind_layer(runner, index, switch, streams, residuals, outputs):
    """What a layer makes of `streams` where its FFN puts out `outputs`; residuals: where it puts out zeros.
    Most layers add the one to the other. One that is seen to, to the last bit, need not run again."""
    behind, adds = [], False
    for stream, residual, output in zip(streams, residuals, outputs):
        total = residual + output.reshape(residual.shape).to(residual)
        if not adds:
            switch.outputs = output
            run = runner.run(index, stream)
            adds = torch.equal(run, total) and not torch.equal(run, residual)
            total = run
        behind.append(total)
    switch.outputs = None
    return behind


def ffn_module_names(folder, layers):
    """ffn_module_name of each layer of a checkpoint, whose weights are not read."""
    model = without_weights(folder)
    return [ffn_module_name(model, layer) for layer in layers]


def ffn_module_name(model, layer):
    """The module that computes the FFN and nothing else: what all FFN tensors of the layer share."""
    owners = [tensor.rsplit(".", 2)[0] for tensor in layer["tensors"]]
    name = owners[0]
    if any(owner != name for owner in owners):
        raise UsageError(f"layer {layer['index']}: its FFN tensors lie in several modules"
                         f" ({', '.join(sorted(set(owners)))}); calibrate works for families whose"
                         " FFN is a module of its own")
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise InputError(f"{name}: transformers has no such module in this model") from None
    tensors = {f"{name}.{parameter}" for parameter, _ in module.named_parameters()}
    if tensors != set(layer["tensors"]):
        raise UsageError(f"{name}: holds more than the FFN ({', '.join(sorted(tensors))}); calibrate"
                         " works for families whose FFN is a module of its own")
    return name
