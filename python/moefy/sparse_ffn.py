"""MoE blocks of stock models made trainable: the same function, computed as one dense FFN whose hidden
activations are masked by the routing, with a straight-through gradient for the choice of experts."""

import torch
from torch.nn import functional

from .errors import UsageError

# Hosts whose MoE blocks have one gate matrix and their experts in two tensors, in memory.
TRAINABLE_HOSTS = ("qwen2-moe", "qwen3-moe", "mixtral", "glm4-moe", "dots1", "solar-open", "exaone-moe")
# Width of the sigmoid that stands for a choice in the backward pass, in deviations of the scores.
SOFTNESS = 0.5


def moe_blocks(model):
    """The MoE blocks of a stock model: modules with `gate.weight` [experts, hidden] and experts as
    two tensors, gate_up_proj [experts, 2 width, hidden] and down_proj [experts, hidden, width]."""
    blocks = []
    for name, module in model.named_modules():
        gate, experts = getattr(module, "gate", None), getattr(module, "experts", None)
        if isinstance(getattr(gate, "weight", None), torch.nn.Parameter) and all(
                isinstance(getattr(experts, part, None), torch.nn.Parameter)
                for part in ("gate_up_proj", "down_proj")):
            blocks.append((name, module))
    return blocks


def require_trainable(folder, host):
    """UsageError unless models of a host have such blocks."""
    if host not in TRAINABLE_HOSTS:
        raise UsageError(f"{folder}: models of host {host} cannot be trained here, only those of"
                         f" {', '.join(TRAINABLE_HOSTS)}; convert to one of them")


class SparseFfn:
    """Puts itself between a block's gate and experts while it is entered."""

    def __init__(self, block):
        self.gate, self.experts = block.gate, block.experts
        self.top_k = None
        self._scores = None
        self._route, self._compute = self.gate.forward, self.experts.forward

    def __enter__(self):
        self.gate.forward, self.experts.forward = self.route, self.compute
        return self

    def __exit__(self, *_):
        self.gate.forward, self.experts.forward = self._route, self._compute

    def route(self, hidden, *args, **kwargs):
        # The stock weights are 1 within a thousandth by design; their own gradient says nothing.
        flat = hidden.reshape(-1, hidden.shape[-1])
        self._scores = functional.linear(flat, self.gate.weight.to(flat.dtype)).float()
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            return self._route(hidden.float(), *args, **kwargs)

    def choice(self, indices, weights):
        """[tokens, experts]: the stock weights of the chosen experts forward, a sigmoid of the
        distance to the threshold between chosen and others backward."""
        scores = self._scores
        hard = torch.zeros_like(scores).scatter(1, indices, weights.float())
        count = indices.shape[1]
        if count == scores.shape[1]:
            return hard
        with torch.no_grad():
            best = scores.topk(count + 1, dim=1).values
            threshold = best[:, count - 1: count + 1].mean(1, keepdim=True)
            width = SOFTNESS * scores.std(1, keepdim=True) + 1e-12
            size = weights.float().mean()
        soft = torch.sigmoid((scores - threshold) / width)
        return hard + size * (soft - soft.detach())

    def compute(self, hidden, indices, weights, *_, **__):
        gate_up, down = self.experts.gate_up_proj, self.experts.down_proj
        experts, double, width = gate_up.shape
        flat = hidden.reshape(-1, width)
        # The gates of all experts, then their ups: long rows, which elementwise steps run through faster.
        rows = gate_up.view(experts, 2, -1, width).transpose(0, 1).reshape(-1, width)
        gate, up = functional.linear(flat, rows).chunk(2, dim=1)
        mask = self.choice(indices.reshape(flat.shape[0], -1),
                           weights.reshape(flat.shape[0], -1)).to(gate.dtype)
        mask = mask[:, :, None].expand(-1, -1, double // 2).reshape(gate.shape)
        inner = self.experts.act_fn(gate) * up * mask
        out = functional.linear(inner, down.permute(1, 0, 2).reshape(width, -1))
        return out.view_as(hidden)


def expert_matrices(block):
    """The matrices of a block's experts, always-on ones too (not the scalar gate that some hosts have for
    them), each with a function that views a tensor of its shape as stacked matrices [count, rows,
    columns]: the gate, up or down matrix of each expert."""
    experts = block.experts
    hidden, width = experts.down_proj.shape[1:]
    found = [(experts.gate_up_proj, lambda t: t.view(-1, width, hidden)), (experts.down_proj, lambda t: t)]
    for name in ("shared_experts", "shared_expert"):
        for part, matrix in getattr(block, name, torch.nn.Module()).named_parameters():
            found.append((matrix, _shared_as_stack(part == "down_proj.weight", hidden, width)))
    return found


def _shared_as_stack(down, hidden, width):
    """As expert_matrices says, for a matrix whose neurons are those of several always-on experts, if they
    are as wide as the others, else of one."""

    def as_stack(tensor):
        neurons = tensor.numel() // hidden
        size = width if neurons % width == 0 else neurons
        return (tensor.view(hidden, -1, size).transpose(0, 1) if down
                else tensor.view(-1, size, hidden))

    return as_stack
