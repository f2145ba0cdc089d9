"""Losses of boosting against autograd, hand values and their constants; steps against their definitions."""

import math

import pytest
import torch

from lib.trainers import Logistic, Softmax, SquaredError, line_search, newton_step

LOSSES = [SquaredError(), Logistic(), Logistic(scale=2.0), Softmax(4)]


def case(loss, n=7, seed=0):
    random = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(n, loss.outputs, generator=random, dtype=torch.float64)
    if isinstance(loss, SquaredError):
        return scores, torch.randn(n, generator=random, dtype=torch.float64)
    return scores, torch.randint(max(2, loss.outputs), (n,), generator=random)


def test_value_by_hand_logistic():
    """p = 1/2 at logit 0: loss log 2, gradient -1/2, curvature 1/4 for y = 1; with half the logit, -1 and 1."""
    zero, one = torch.zeros(1, 1), torch.ones(1)
    assert Logistic().value(zero, one).item() == pytest.approx(math.log(2))
    assert Logistic().gradient(zero, one).item() == pytest.approx(-0.5)
    assert Logistic().curvature(zero).item() == pytest.approx(0.25)
    assert Logistic(2.0).gradient(zero, one).item() == pytest.approx(-1)
    assert Logistic(2.0).curvature(zero).item() == pytest.approx(1)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_gradcheck_derivatives(loss):
    scores, y = case(loss)
    scores.requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss.value(scores, y).sum(), scores)
    torch.testing.assert_close(loss.gradient(scores, y), gradient)
    hessian = torch.stack([torch.func.hessian(lambda f, t=t: loss.value(f[None], t[None])[0])(f)
                           for f, t in zip(scores.detach(), y, strict=True)])  # fmt: skip
    torch.testing.assert_close(loss.curvature(scores).detach(), hessian.diagonal(dim1=1, dim2=2))
    direction = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bend = torch.einsum("nk,nkl,nl->n", direction, hessian, direction)
    torch.testing.assert_close(loss.along(scores, direction).detach(), bend)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_limit_start_is_stationary(loss):
    """At the best constant the mean gradient is zero."""
    _, y = case(loss, n=400)
    start = loss.start(y).double().expand(len(y), loss.outputs)
    torch.testing.assert_close(
        loss.gradient(start, y).mean(0), torch.zeros(loss.outputs, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_limit_two_classes_are_logistic():
    """Softmax over (0, F) is the logistic loss of F."""
    scores, y = case(Logistic())
    both = torch.cat([torch.zeros_like(scores), scores], 1)
    torch.testing.assert_close(Softmax(2).value(both, y), Logistic().value(scores, y))
    torch.testing.assert_close(Softmax(2).gradient(both, y)[:, 1:], Logistic().gradient(scores, y))


def test_invariance_stack_is_each_run():
    loss = Softmax(3)
    cases = [case(loss, seed=seed) for seed in range(3)]
    scores, y = (torch.stack(column) for column in zip(*cases, strict=True))
    direction = torch.sin(7 * scores)
    together = newton_step(loss, scores, y, direction)
    alone = [newton_step(loss, f, t, d) for f, t, d in zip(scores, y, direction, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))
    torch.testing.assert_close(loss.start(y), torch.stack([loss.start(t) for t in y]))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_value_by_hand_newton_step(loss):
    """-phi'(0) / phi''(0) of the loss along the direction, by autograd; the diagonal is exact for one output."""
    scores, y = case(loss)
    direction = -loss.gradient(scores, y) + 0.1

    def along(rho):
        return loss.value(scores + rho * direction, y).sum()

    zero = torch.zeros((), dtype=torch.float64)
    expected = -torch.func.grad(along)(zero) / torch.func.hessian(along)(zero)
    step = newton_step(loss, scores, y, direction)
    torch.testing.assert_close(step, expected)
    diagonal = newton_step(loss, scores, y, direction, diagonal=True)
    if loss.outputs == 1:
        torch.testing.assert_close(diagonal, step)


def test_value_by_hand_diagonal_step():
    """Two classes at p = 1/2, direction (1, -1), y = 0: slope -1, curvature 1, of the diagonal alone 1/2."""
    zero, direction = torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])
    assert newton_step(Softmax(2), zero, torch.tensor([0]), direction).item() == pytest.approx(1)
    assert newton_step(Softmax(2), zero, torch.tensor([0]), direction, diagonal=True).item() == pytest.approx(2)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_limit_line_search_is_stationary(loss):
    scores, y = case(loss, n=50)
    direction = torch.cos(3 * scores) + 0.5 * loss.gradient(scores, y).neg()
    length = torch.tensor(line_search(loss, scores, y, direction, ridge=1e-3), dtype=torch.float64)

    def objective(rho):
        return loss.value(scores + rho * direction, y).mean() + 1e-3 * rho**2

    assert abs(torch.func.grad(objective)(length).item()) < 1e-8
    assert objective(length) <= objective(torch.zeros((), dtype=torch.float64))


def test_degenerate():
    loss = Logistic()
    zero = torch.zeros(3, 1)
    assert newton_step(loss, zero, torch.ones(3), zero).item() == 0
    assert line_search(loss, zero, torch.ones(3), zero) == 0
    huge = torch.tensor([[1e4], [-1e4]])
    assert loss.value(huge, torch.tensor([1.0, 1.0])).tolist() == [0, 1e4]
    assert loss.curvature(huge).tolist() == [[0], [0]]
    with pytest.raises(ValueError, match="finite"):
        line_search(loss, zero * math.nan, torch.ones(3), zero)
    assert Softmax(3).start(torch.tensor([0, 0, 1])).isfinite().all()  # a class without samples


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(dtype):
    for loss in LOSSES:
        scores, y = case(loss)
        scores = scores.to(dtype)
        y = y.to(dtype) if isinstance(loss, SquaredError) else y
        for value in (loss.value(scores, y), loss.gradient(scores, y), loss.curvature(scores)):
            assert value.dtype == dtype
