"""Where the inputs of a stock model's FFN layers can be seen."""

import torch

from .errors import InputError


def input_module(model, layer):
    """The module that is called with the input of an FFN layer, in every family."""
    return owner_of(model, layer, "up")


def owner_of(model, layer, role):
    """The module that holds the tensor of a role. layer: as `_moefy.ffn_layers` describes it."""
    tensor = layer["tensors"][layer["roles"].index(role)]
    module, parameter = live_tensor(model, tensor)
    if parameter is None or layer["hidden_size"] not in parameter.shape:
        raise InputError(f"layer {layer['index']}: this model has no module '{tensor.rsplit('.', 1)[0]}' with"
                         f" weights of {layer['hidden_size']} columns; was it changed after loading?")
    return module


def live_tensor(model, tensor):
    """(module, its parameter) that hold a tensor of the model's checkpoint; (None, None): there is none."""
    name, _, parameter_name = tensor.rpartition(".")
    # A checkpoint may be named as the model with its head or as the one without.
    prefix = getattr(model, "base_model_prefix", "") + "."
    for candidate in (name, prefix + name, name.removeprefix(prefix)):
        try:
            module = model.get_submodule(candidate)
        except AttributeError:
            continue
        parameter = getattr(module, parameter_name, None)
        return (module, parameter) if isinstance(parameter, torch.Tensor) else (None, None)
    return None, None


class InputWatcher:
    """Hands the FFN inputs of every layer to `receive(layer index, rows [tokens, hidden_size])`
    while the model runs. rows are those of `mask`, in the order of the sequences."""

    def __init__(self, model, layers, receive):
        self.receive = receive
        self.mask = None  # bool [batch, length]: real tokens, set before each forward pass
        self._layers = layers
        self._seen = set()
        self._hooks = [input_module(model, layer).register_forward_pre_hook(self._hook(layer))
                       for layer in layers]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()

    def _hook(self, layer):
        index, width = layer["index"], layer["hidden_size"]

        def look(module, arguments):
            if self.mask is None:
                return
            if index in self._seen:
                raise InputError(f"layer {index} ran twice for one batch")
            self._seen.add(index)
            # Some families flatten the batch before the FFN.
            inputs = arguments[0].detach().reshape(-1, width)
            if inputs.shape[0] != self.mask.numel():
                raise InputError(f"layer {index} saw {inputs.shape[0]} tokens of a batch of"
                                 f" {self.mask.numel()}")
            self.receive(index, inputs[self.mask.reshape(-1).to(inputs.device)])

        return look

    def run(self, call, mask):
        """call() runs the model on one batch whose real tokens are mask [batch, length]."""
        self.mask, self._seen = mask, set()
        try:
            call()
        finally:
            self.mask = None
        for layer in self._layers:
            if layer["index"] not in self._seen:
                raise InputError(f"layer {layer['index']} was not run by this model")
