"""Stock models: loading, and running them layer by layer."""

import inspect
import json
import pathlib

import torch

from .errors import InputError, MoefyError, UsageError


def native(call, *arguments):
    """call(*arguments) of moefy's C++ side, whose errors become ours."""
    import _moefy

    try:
        return call(*arguments)
    except _moefy.Error as error:
        raise MoefyError(str(error), code=error.code) from None


def model_directory(model):
    """Where a model lies, given as a directory or by its name in the Hugging Face cache."""
    if pathlib.Path(model).is_dir():
        return str(model)
    import _moefy

    return str(native(_moefy.model_directory, str(model)))


def ffn_layers(model, architecture="", selection=""):
    """The FFN layers of a checkpoint, all or those that --layers chooses."""
    import _moefy

    return native(_moefy.ffn_layers, model, architecture, selection)


def identity_of(model, architecture="", layers=""):
    """What a file about a checkpoint says of it: architecture, model_type, source_fingerprint,
    layer_fingerprints; of all layers or those that --layers chooses."""
    import _moefy

    found = native(_moefy.identity, model, architecture, layers)
    return {"model_type": read_config(model).get("model_type", ""), **found}


def read_config(model):
    """config.json of a model as it stands there."""
    path = pathlib.Path(model_directory(model)) / "config.json"
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None


def longest_sequence(model):
    """Tokens a sequence may have; None: the config names no limit."""
    config = read_config(model)
    return config.get("max_position_embeddings") or config.get("n_positions")


def predicts_next_tokens(config):
    """Whether models of a transformers config compute each token's logits from the tokens before it alone,
    as far as the config can tell. Families of encoders do so only where they are set up as decoders."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return not config.is_encoder_decoder and (not encoder or getattr(config, "is_decoder", False))


def require_causal(model, what, as_saved=False):
    """UsageError naming `what` unless a checkpoint is a causal language model, and as_saved: in the class
    that it names itself."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found = saved_class(model)
    known = {"AutoModelForCausalLM", *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    if not predicts_next_tokens(stock_config(model)) or (as_saved and found not in known):
        raise UsageError(f"{what} needs a causal language model, and {model} holds a {found}")


def saved_class(model):
    """Name of the transformers class that config.json names, AutoModelForCausalLM if it names none."""
    return (read_config(model).get("architectures") or ["AutoModelForCausalLM"])[0]


def load_tokenizer(model):
    """The tokenizer of a model."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_directory(model), local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{model}: no usable tokenizer: {first_line(error)}") from None


def load_model(model, dtype=torch.float32, **edits):
    """A causal language model in a stock class, with fields of its config edited. InputError if
    anything is missing, unexpected or newly initialised."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, model, dtype, edits)


def load_as_saved(model, dtype=torch.float32):
    """A model of any kind in the stock class that its config.json names. Errors as load_model."""
    import transformers

    name = saved_class(model)
    stock_class = getattr(transformers, name, None)
    if stock_class is None:
        raise InputError(f"{model}: transformers {transformers.__version__} has no class {name}")
    return _load(stock_class, model, dtype, {})


def stock_config(model):
    """The transformers config of a checkpoint. InputError."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model_directory(model), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{model}: transformers cannot load its config: {first_line(error)}") from None


def without_weights(model):
    """The stock causal language model of a checkpoint on the meta device: its modules alone. InputError."""
    from transformers import AutoModelForCausalLM

    config = stock_config(model)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError) as error:
        raise InputError(f"{model}: transformers cannot load it: {first_line(error)}") from None


def _load(stock_class, model, dtype, edits):
    folder = model_directory(model)
    config = stock_config(model)
    try:
        for name, value in edits.items():
            setattr(config, name, value)
        loaded, report = stock_class.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True, local_files_only=True,
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

    The model's own forward pass makes what each layer is called with (positions, masks), once for
    batches of a shape; the layers themselves are then called directly, so that every family works as
    transformers implements it."""

    def __init__(self, model, layer_names, device="cpu"):
        """layer_names: the decoder layers' module names, in order of execution."""
        self.model = model
        self.names = layer_names
        self.device = device
        self._arguments = {}  # [sequences, length] -> one (args, kwargs) a layer
        takes = inspect.signature(model.forward).parameters
        self._fewest_logits = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def begin(self, ids):
        """[B, T, hidden_size]: what the first decoder layer is given for token ids [B, T]."""
        first, self._arguments[tuple(ids.shape)] = self._watch(ids)
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
                self.model(input_ids=torch.as_tensor(ids).to(self.device), use_cache=False,
                           **self._fewest_logits)
        finally:
            for layer, forward in zip(layers, originals):
                layer.forward = forward
        if len(arguments) != len(layers):
            raise InputError(f"{len(arguments)} of {len(layers)} decoder layers were run")
        return seen["first"].float(), arguments

    def run(self, index, hidden):
        """The output of decoder layer `index` for hidden states [B, T, hidden_size], in their shape."""
        args, kwargs = self._arguments[tuple(hidden.shape[:2])][index]
        layer = self.model.get_submodule(self.names[index])
        with torch.no_grad():
            out = layer(hidden, *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out
