"""The optimizer of recover: Muon on stacks of matrices."""

import numpy as np
import pytest
import torch

from moefy.orthogonal_updates import MOMENTUM, ROOT_MEAN_SQUARE, OrthogonalUpdates, orthogonal


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_iteration(matrix):
    """Muon's iteration as it is published, on one matrix with no more rows than columns."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(3, 5, 8), (2, 6, 6), (1, 1, 4)])
def test_it_is_the_published_iteration(shape):
    stack = random(*shape).double()
    for found, matrix in zip(orthogonal(stack).numpy(), stack.numpy(), strict=True):
        np.testing.assert_allclose(found, plain_iteration(matrix), rtol=1e-9)


def test_it_is_near_the_orthogonal_factor_whatever_the_scale():
    stack = random(4, 16, 48)
    left, _, right = torch.linalg.svd(stack, full_matrices=False)
    found, nearest = orthogonal(stack), left @ right
    cosine = (found * nearest).sum((1, 2)) / found.norm(dim=(1, 2)) / nearest.norm(dim=(1, 2))
    assert cosine.min() > 0.95
    assert 0.5 < torch.linalg.svdvals(found).min() and torch.linalg.svdvals(found).max() < 1.3
    torch.testing.assert_close(orthogonal(1e-12 * stack), found, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(orthogonal(stack.transpose(1, 2)).transpose(1, 2), found)
    assert orthogonal(torch.zeros(2, 3, 4)).count_nonzero() == 0


def test_a_step_has_the_size_of_adams_and_keeps_matrices_apart():
    value, gradient = random(4, 8, 32), random(4, 8, 32, seed=1)
    gradient[2] = 0
    parameter = torch.nn.Parameter(value.clone())
    still = torch.nn.Parameter(value.clone())
    updates = OrthogonalUpdates([parameter, still], [lambda t: t, lambda t: t])
    parameter.grad = gradient
    updates.step(0.01)
    step = (parameter.detach() - value) / 0.01
    assert torch.equal(still, value)  # it has no gradient
    assert step[2].count_nonzero() == 0
    sizes = step.square().mean((1, 2)).sqrt()[[0, 1, 3]]
    torch.testing.assert_close(sizes, torch.full((3,), ROOT_MEAN_SQUARE), rtol=0.2, atol=0)
    expected = -ROOT_MEAN_SQUARE * 32 ** 0.5 * orthogonal(gradient)
    torch.testing.assert_close(step, expected, rtol=1e-3, atol=1e-3)
    before = parameter.detach().clone()
    parameter.grad = torch.zeros_like(gradient)
    updates.step(0.01)  # the momentum goes on
    torch.testing.assert_close((parameter.detach() - before) / 0.01, expected, rtol=1e-3, atol=1e-3)
    assert 0 < MOMENTUM < 1


def test_matrices_of_experts_are_views_of_their_tensors():
    from moefy.sparse_ffn import expert_matrices

    class Experts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_up_proj = torch.nn.Parameter(random(3, 4, 6))  # [experts, 2 width, hidden]
            self.down_proj = torch.nn.Parameter(random(3, 6, 2))

    class Shared(torch.nn.Module):
        def __init__(self, neurons):
            super().__init__()
            self.up_proj = torch.nn.Linear(6, neurons, bias=False)
            self.down_proj = torch.nn.Linear(neurons, 6, bias=False)

    class Block(torch.nn.Module):
        def __init__(self, neurons):
            super().__init__()
            self.experts, self.shared_expert = Experts(), Shared(neurons)

    block = Block(4)
    gate_up, down, up, shared_down = ((matrix, as_stack(matrix.data))
                                      for matrix, as_stack in expert_matrices(block))
    assert torch.equal(gate_up[1][2], block.experts.gate_up_proj[1, :2])  # the gates of expert 1
    assert torch.equal(gate_up[1][3], block.experts.gate_up_proj[1, 2:])
    assert torch.equal(down[1], block.experts.down_proj)
    assert torch.equal(up[1][1], block.shared_expert.up_proj.weight[2:])
    assert torch.equal(shared_down[1][1], block.shared_expert.down_proj.weight[:, 2:])
    for matrix, stack in (gate_up, down, up, shared_down):
        stack.zero_()
        assert matrix.count_nonzero() == 0
    # Always-on neurons that are no multiple of an expert's are one matrix.
    *_, (_, up), (_, down) = expert_matrices(Block(3))
    assert up(torch.zeros(3, 6)).shape == (1, 3, 6) and down(torch.zeros(6, 3)).shape == (1, 6, 3)
