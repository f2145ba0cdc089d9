"""Recorded functions: the same values as the function, for new tensors of the same shapes."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad_and_value, vmap

from lib.trainers import _trace


def stacked(weights, x, y):
    def loss(weight, x, y):
        return F.cross_entropy(torch.relu(F.linear(x, weight)), y)

    grads, losses = vmap(grad_and_value(loss))(weights, x, y)
    return grads.flatten(1), losses


def example(seed):
    generator = torch.Generator().manual_seed(seed)
    weights, x = (torch.randn(4, *shape, generator=generator, dtype=torch.float64) for shape in ((3, 5), (6, 5)))
    return weights, x, torch.randint(0, 3, (4, 6), generator=generator)


def test_parity_with_the_function():
    recorded = _trace.record(stacked, example(0))
    assert recorded is not stacked
    for seed in (0, 1, 2):
        for ours, theirs in zip(recorded(*example(seed)), stacked(*example(seed)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_limit_nothing_superfluous_is_left():
    graph = _trace.record(stacked, example(0)).__self__.graph
    assert not [node for node in graph.nodes if node.op == "call_function" and _trace._changes_nothing(node)]


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_parity_formulas_with_torch(scale):
    logits = scale * torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[0, 1] = -torch.inf
    logits.requires_grad_()
    weight = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    reference = logits.log_softmax(-1)
    ours = _trace._log_softmax(logits.detach(), -1, False)
    torch.testing.assert_close(ours, reference.detach(), rtol=1e-12, atol=1e-12)
    finite = torch.where(reference.isinf(), 0.0, reference)
    (expected,) = torch.autograd.grad((finite * weight).sum(), reference, retain_graph=True)
    (backward,) = torch.autograd.grad(reference, logits, expected)
    ours = _trace._log_softmax_backward(expected, reference.detach(), -1, torch.float64)
    torch.testing.assert_close(ours, backward, rtol=1e-12, atol=1e-12)


def test_invariance_functions_that_write_in_place():
    """A factor of one makes a copy; it may not be taken out where somebody writes to that copy."""

    def shifted(x):
        copy = torch.ops.aten.mul.Scalar(x, 1).view(2, 3)
        copy.add_(1)
        return copy, x

    x = torch.zeros(2, 3)
    out, same = _trace.record(shifted, (x.clone(),))(x)
    assert out.tolist() == [[1.0] * 3] * 2
    assert same.tolist() == [[0.0] * 3] * 2


def test_degenerate_what_cannot_be_recorded_is_returned():
    def by_value(x):
        return (x if x.sum().item() > 0 else -x,)

    assert _trace.record(by_value, (torch.ones(2),)) is by_value
