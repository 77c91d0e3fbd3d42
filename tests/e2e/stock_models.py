"""Converted models in stock transformers, compared in fp32 with the dense ones they were made from."""

import torch
import transformers
from safetensors.torch import load_file

from tiny_models import output_of

# Weights of deviation 0.3 make logits of about one; summation order alone moves them this much.
SAME = 2e-5
# As stored, weights are 1 + O(2^-10) of the router's spread.
CLOSE = 2e-2


def load(folder, **settings):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **settings)
    problems = {key: value for key, value in report.items() if value}
    assert not problems, problems
    # Some classes ignore tensors that they do not expect without reporting them.
    in_file = sum(tensor.numel() for file in folder.glob("*.safetensors") for tensor in load_file(file).values())
    assert in_file == sum(tensor.numel() for tensor in unique_tensors(model))
    return model.eval()


def unique_tensors(model):
    """Parameters and saved buffers, tied ones once."""
    return {tensor.data_ptr() or id(tensor): tensor for tensor in model.state_dict().values()}.values()


def difference(a, b):
    return float((output_of(a) - output_of(b)).abs().max())


def scale_of(*models):
    """The largest logit, at least 1: what tolerances are relative to."""
    return max(1.0, *(float(output_of(model).abs().max()) for model in models))


def count_ffn(mlp, counts, always, router, top_k):
    """Lets a gated dense FFN count each neuron as often as the experts that `router` [experts, hidden]
    chooses for a token have it, counts [experts, neurons], and the always-on ones, always [neurons]."""
    times = {}

    def see(_, arguments):
        chosen = (arguments[0] @ router.T).topk(top_k, dim=-1).indices
        times["neurons"] = counts[chosen].sum(-2) + always

    mlp.register_forward_pre_hook(see)
    mlp.down_proj.register_forward_pre_hook(lambda _, arguments: (arguments[0] * times["neurons"],))


def mask_ffn(mlp, labels, router, top_k, bias=0):
    """Lets a gated dense FFN compute only the experts that `router` chooses for each token.

    labels [neurons]: the expert of each, -1 for those that are always on. router [experts, hidden],
    bias [experts]: their scores."""
    chosen = {}

    def see(_, arguments):
        chosen["experts"] = (arguments[0] @ router.T + bias).topk(top_k, dim=-1).indices

    def mask(_, arguments):
        experts = chosen["experts"]
        on = (labels[None, None, :, None] == experts[:, :, None, :]).any(-1) | (labels == -1)
        return (arguments[0] * on,)

    mlp.register_forward_pre_hook(see)
    mlp.down_proj.register_forward_pre_hook(mask)
