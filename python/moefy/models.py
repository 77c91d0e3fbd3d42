"""Stock models: loading, and running them layer by layer."""

import json
import pathlib

import torch

from .errors import InputError, UsageError


def load_tokenizer(model):
    """The tokenizer of a model directory."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{model}: no usable tokenizer: {first_line(error)}") from None


def load_model(model, dtype=torch.float32, **edits):
    """A causal language model in a stock class, with fields of its config edited. InputError if
    anything is missing, unexpected or newly initialised."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = pathlib.Path(model)
    if not folder.is_dir():
        raise UsageError(f"{model}: no such model directory")
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True)
        for name, value in edits.items():
            setattr(config, name, value)
        loaded, report = AutoModelForCausalLM.from_pretrained(
            model, config=config, dtype=dtype, output_loading_info=True, local_files_only=True,
            trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, json.JSONDecodeError) as error:
        raise InputError(f"{model}: transformers cannot load it: {first_line(error)}") from None
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report.get(kind):
            names = sorted(map(str, report[kind]))
            raise InputError(f"{model}: {kind.replace('_', ' ')}: {', '.join(names[:3])}"
                             + (f" and {len(names) - 3} more" if len(names) > 3 else ""))
    return loaded.eval()


def first_line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class LayerRunner:
    """Runs the decoder layers of a stock model one at a time.

    The model's own forward pass makes what each layer is called with (positions, masks), once a
    sequence length; the layers themselves are then called directly, so that every family works as
    transformers implements it."""

    def __init__(self, model, layer_names, device="cpu"):
        """layer_names: the decoder layers' module names, in order of execution."""
        self.model = model
        self.names = layer_names
        self.device = device
        self._arguments = {}  # sequence length -> one (args, kwargs) a layer

    def begin(self, ids):
        """[T, hidden_size]: what the first decoder layer is given for token ids [T]."""
        length = len(ids)
        first, arguments = self._watch(ids)
        self._arguments[length] = arguments
        return first

    def _watch(self, ids):
        """One forward pass in which the decoder layers only hand their input on."""
        seen = {}
        arguments = []
        originals = []

        def watcher(index):
            def forward(hidden_states, *args, **kwargs):
                if index == 0:
                    seen["first"] = hidden_states
                arguments.append((args, dict(kwargs)))
                return hidden_states

            return forward

        layers = [self.model.get_submodule(name) for name in self.names]
        try:
            for index, layer in enumerate(layers):
                originals.append(layer.forward)
                layer.forward = watcher(index)
            with torch.no_grad():
                self.model(input_ids=torch.as_tensor(ids)[None].to(self.device), use_cache=False)
        finally:
            for layer, forward in zip(layers, originals):
                layer.forward = forward
        if len(arguments) != len(layers):
            raise InputError(f"{len(arguments)} of {len(layers)} decoder layers were run")
        return seen["first"][0].float(), arguments

    def run(self, index, hidden):
        """The output [T, hidden_size] of decoder layer `index` for one sequence."""
        args, kwargs = self._arguments[len(hidden)][index]
        layer = self.model.get_submodule(self.names[index])
        with torch.no_grad():
            out = layer(hidden[None], *args, **kwargs)
        return (out[0] if isinstance(out, tuple) else out)[0]
