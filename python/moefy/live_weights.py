"""Whether a live model computes with the FFN weights of a checkpoint."""

import pathlib

import torch

from .errors import InputError
from .ffn_inputs import live_tensor
from .trained_output import tensors_of


def require_weights_of(model, checkpoint, layers):
    """InputError naming the first FFN tensor of `layers` in which a live model and the checkpoint differ.
    Reads them one by one. A model may have been loaded in another dtype than the checkpoint's; weights that
    are not in memory (offloaded ones) cannot be looked at."""
    from safetensors import safe_open

    files, seen = tensors_of(checkpoint), set()
    for layer in layers:
        for tensor in layer["tensors"]:
            if tensor in seen:  # several roles may lie in one
                continue
            seen.add(tensor)
            _, live = live_tensor(model, tensor)
            if live is not None and live.is_meta:
                continue
            with safe_open(pathlib.Path(checkpoint) / files[tensor][0], "pt") as file:
                stored = file.get_tensor(tensor)
            if live is None or not same_values(live.detach(), stored):
                raise InputError(f"tensor '{tensor}' of this model is not that of {checkpoint}: the"
                                 " recordings would be labelled with another model; save it and name"
                                 " that folder as checkpoint")


def same_values(live, stored):
    """Whether `live` is `stored`, perhaps rounded to the dtype of a live model (now or when it was
    loaded)."""
    if live.shape != stored.shape or not live.is_floating_point():
        return False
    stored = stored.to(live.device)
    return any(torch.equal(stored.to(rounding).to(live.dtype), live)
               for rounding in (live.dtype, torch.bfloat16, torch.float16))
