"""An optimizer for the matrices of experts: Muon (Jordan et al., 2024). An update is about the orthogonal
matrix nearest to the momentum, scaled as Liu et al. (2025) do so that Adam's learning rates fit."""

import torch

MOMENTUM = 0.9
# Of the polynomial that Muon iterates; it takes singular values to about 1 quickly rather than exactly.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ROOT_MEAN_SQUARE = 0.2  # of an update at learning rate 1, as of Adam's


def orthogonal(stack):
    """[count, rows, columns] in fp32: of each matrix, about the orthogonal one nearest to it; 0 of 0.

    The iteration X <- (a + b XXᵀ + c (XXᵀ)²) X is done on XXᵀ alone, which is small where matrices are
    narrow, as those of experts are; what it multiplies X with is gathered and applied once."""
    if stack.shape[1] > stack.shape[2]:
        return orthogonal(stack.transpose(1, 2)).transpose(1, 2)
    a, b, c = COEFFICIENTS
    gram = stack @ stack.transpose(1, 2)
    squares = gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-30)[:, None, None]
    gram /= squares
    factor = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device) / squares.sqrt()
    for _ in range(ITERATIONS):
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=1, dim2=2).add_(a)
        factor = step @ factor
        gram = step @ gram @ step
    return factor @ stack


class OrthogonalUpdates:
    """Muon with Nesterov momentum. Parameters without a gradient are left alone."""

    def __init__(self, parameters, as_stack):
        """as_stack: for each parameter, a function that views a tensor of its shape as matrices [count,
        rows, columns], each of which is updated by itself."""
        self.parameters, self.as_stack = parameters, as_stack
        self.momentum = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, rate):
        for parameter, momentum, as_stack in zip(self.parameters, self.momentum, self.as_stack):
            if parameter.grad is None:
                continue
            momentum.mul_(MOMENTUM).add_(parameter.grad)
            update = orthogonal(as_stack(torch.add(parameter.grad, momentum, alpha=MOMENTUM)))
            scale = ROOT_MEAN_SQUARE * max(update.shape[1:]) ** 0.5
            as_stack(parameter).sub_(update, alpha=rate * scale)

    def state_dict(self):
        return {"momentum": [momentum.cpu() for momentum in self.momentum]}

    def load_state_dict(self, state):
        for momentum, value in zip(self.momentum, state["momentum"]):
            momentum.copy_(value)
