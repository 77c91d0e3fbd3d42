"""How much each FFN neuron matters for the loss on text, by cluster of texts (LLaMA-MoE, EMNLP 2024).

For token t and neuron j with hidden activation h (or the gate's pre-activation) and the summed
cross-entropy L of its batch, q_tj is dL/dh (feature-grad) or h dL/dh (feature-change, the first-order
change of the loss without the neuron). sample: v_j = 1/T sum_t K(q_tj); total: v_j = 1/T K(sum_t q_tj),
with K plain, absolute (l1) or squared (l2). T counts the tokens that have a next one to predict."""

import numpy as np
import torch

from .choices import IMPORTANCE_KERNELS, IMPORTANCE_LEVELS, IMPORTANCE_TYPES
from .errors import InputError, UsageError
from .ffn_inputs import owner_of
from .models import predicts_next_tokens
from .options import choice


def kinds_of(importance):
    """(type, level, kernel) as they are spelt here; None for None. TypeError and ValueError for anything
    else."""
    if importance is None:
        return None
    expected = ("importance is None, or a type, a level and a kernel such as"
                f" ('{IMPORTANCE_TYPES[0]}', '{IMPORTANCE_LEVELS[0]}', '{IMPORTANCE_KERNELS[0]}')")
    if not isinstance(importance, (tuple, list)) or not all(isinstance(name, str) for name in importance):
        raise TypeError(f"{expected}, not {importance!r}")
    if len(importance) != 3:
        raise ValueError(f"{expected}, not {importance!r}")
    found = []
    for name, names in zip(importance, (IMPORTANCE_TYPES, IMPORTANCE_LEVELS, IMPORTANCE_KERNELS)):
        try:
            found.append(choice(names, name))
        except ValueError:
            raise ValueError(f"importance: '{name}' is none of {', '.join(names)}") from None
    return tuple(found)


def require_next_tokens(model):
    """UsageError unless a live model is a causal language model."""
    if not predicts_next_tokens(model.config) or model.get_output_embeddings() is None:
        raise UsageError("importance needs a causal language model, whose loss it looks at;"
                         f" {type(model).__name__} is none")


def kernel_of(name):
    """K, for arrays and tensors."""
    return {"l1": abs, "l2": lambda values: values * values, "plain": lambda values: values}[name]


def values_of_tokens(kind, hidden, gradient):
    """q of each token, [tokens, neurons]."""
    return gradient if kind == "feature-grad" else hidden * gradient


class ImportanceSums:
    """Sums over tokens by cluster and layer, in fp64: {"up": …, "gate": …} of [C, n] a layer."""

    def __init__(self, model, layers, clusters, kind, level, kernel):
        self.model, self.kind, self.level, self.kernel = model, kind, level, kernel_of(kernel)
        self.layers = {layer["index"]: layer for layer in layers}
        self.tokens = np.zeros(clusters, np.int64)
        self.sums = {index: {part: np.zeros((clusters, layer["num_neurons"]))
                             for part in self.parts(layer)}
                     for index, layer in self.layers.items()}
        self._seen = {}
        self._hooks = []
        for index, layer in self.layers.items():
            down = owner_of(model, layer, "down")
            self._hooks.append(down.register_forward_pre_hook(self._keep_input(index)))
            if "gate" in layer["roles"]:
                gate = owner_of(model, layer, "gate")
                self._hooks.append(gate.register_forward_hook(self._keep_output(index)))
        # Gradients of activations alone: something at the bottom has to want one.
        model.requires_grad_(False)
        self._hooks.append(model.get_input_embeddings().register_forward_hook(
            lambda module, arguments, output: output.requires_grad_(True)))

    @staticmethod
    def parts(layer):
        return ("up", "gate") if "gate" in layer["roles"] else ("up",)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()

    def _keep_input(self, index):
        def hook(module, arguments):
            arguments[0].retain_grad()
            self._seen[index, "up"] = arguments[0]
        return hook

    def _keep_output(self, index):
        def hook(module, arguments, output):
            output.retain_grad()
            self._seen[index, "gate"] = output
        return hook

    def add(self, batch, clusters, device):
        """One batch; clusters: that of each of its sequences."""
        self._seen = {}
        fields = batch.arguments(self.model, device)
        logits = self.model(**fields, use_cache=False).logits[:, :-1].float()
        mask = batch.mask.to(device)
        wanted = mask[:, 1:] & mask[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits[wanted], fields["input_ids"][:, 1:][wanted], reduction="sum")
        loss.backward()
        for sequence, cluster in enumerate(clusters):
            self.tokens[cluster] += int(wanted[sequence].sum())
            for (index, part), values in self._seen.items():
                self._add_sequence(index, part, values, batch.mask, sequence, cluster)
        self._seen = {}

    def _add_sequence(self, index, part, values, mask, sequence, cluster):
        # Some families flatten the batch before the FFN. Of a fused gate and up, the gate comes first.
        width = self.layers[index]["num_neurons"]
        rows = mask[sequence].to(values.device)
        hidden = values.detach().view(*mask.shape, -1)[sequence][rows][:, :width].float()
        gradient = values.grad.view(*mask.shape, -1)[sequence][rows][:, :width].float()
        found = values_of_tokens(self.kind, hidden, gradient)
        if not torch.isfinite(found).all():
            raise InputError(f"layer {index}: the gradient of the loss is NaN or infinite")
        if self.level == "sample":
            found = self.kernel(found)
        self.sums[index][part][cluster] += found.sum(0).double().cpu().numpy()

    def vectors(self, index, part):
        """v [C, n] of a layer; collective sums must have been taken before."""
        sums = self.sums[index][part]
        if self.level == "total":
            sums = self.kernel(sums)
        return sums / np.maximum(self.tokens, 1)[:, None]

    def flat(self):
        """All sums and counts as one fp64 array, and back."""
        return np.concatenate([self.tokens.astype(np.float64),
                               *(part.ravel() for layer in self.sums.values()
                                 for part in layer.values())])

    def take(self, flat):
        self.tokens = flat[: len(self.tokens)].round().astype(np.int64)
        place = len(self.tokens)
        for layer in self.sums.values():
            for part in layer.values():
                part[...] = flat[place: place + part.size].reshape(part.shape)
                place += part.size
