"""GrowNet against least squares, additivity, an ordinary regression, and bad input."""

import pytest
import torch

from lib import runtime
from lib.runtime import NonFiniteLoss
from lib.trainers import GrowNet, Logistic, Softmax, SquaredError, stage_objective
from lib.trainers import grownet as module


def regression(runs=2, n=64, d=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(runs, n, d, generator=random)
    return x, torch.sin(x[..., 0]) + 0.5 * x[..., 1] ** 2


def small(**changes):
    return GrowNet(**({"hidden": 4, "stages": 3, "epochs_per_stage": 2, "batch_size": 16} | changes))


def test_value_by_hand_stage_objective():
    """One positive sample at logit 0: G = -1/2, H = 1/4; for alpha f = 1: 1/4 - 1 = -3/4."""
    one = torch.ones(1, 1)
    assert stage_objective(one, -0.5 * one, 0.25 * one, torch.tensor(1.0)).item() == -0.75


def test_limit_weighted_least_squares():
    """Its gradient by f is that of sum H (-G/H - alpha f)^2, for any alpha."""
    random = torch.Generator().manual_seed(0)
    f, gradient = torch.randn(2, 9, 3, generator=random, dtype=torch.float64).requires_grad_(True), None
    scores = torch.randn(9, 3, generator=random, dtype=torch.float64)
    y = torch.randint(3, (9,), generator=random)
    gradient, curvature = Softmax(3).gradient(scores, y), Softmax(3).curvature(scores)
    alpha = torch.tensor(0.7, dtype=torch.float64)
    ours = stage_objective(f[0], gradient, curvature, alpha)
    squares = (curvature * (-gradient / curvature - alpha * f[0]) ** 2).sum(-1).mean()
    (a,), (b,) = (torch.autograd.grad(value, f) for value in (ours, squares))
    torch.testing.assert_close(a, b)


def test_limit_one_stage_is_a_regression():
    """Squared error, one stage, alpha 1: the same updates as a network fitted to y - mean(y) by mean squared error."""
    x, y = regression(runs=1)
    grown = small(stages=1, epochs_per_stage=3).fit(x, y, SquaredError(), [5])
    draw, order = [runtime.generator(5, stream=2)], [runtime.generator(5, stream=1)]
    learner = module._initial(draw, 5, 4, 1, False, torch.device("cpu"))
    adam = torch.optim.Adam(list(learner.values()), 0.005)
    target = (y - y.mean())[0]
    for _ in range(3):
        for rows in torch.randperm(64, generator=order[0]).split(16):
            _, f = module._forward(learner, x[:, rows], None)
            adam.zero_grad()
            torch.nn.functional.mse_loss(f[0, :, 0], target[rows]).backward()
            adam.step()
    _, f = module._forward(learner, x, None)
    torch.testing.assert_close(grown.scores(x), (f + y.mean()).detach(), rtol=1e-4, atol=1e-5)


def test_invariance_additive_without_correction():
    """F_k - F_{k-1} = alpha f_k, and earlier learners stay as they were."""
    x, y = regression()
    grown = small(corrective_epochs=0, boost_rate=0.5).fit(x, y, SquaredError(), [0, 1])
    staged = grown.staged(x)
    first, second = grown.stages[0].learners[0], grown.stages[1].learners[0]
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])
    below, _ = module._forward(first, x, None, frozen=True)
    _, f = module._forward(grown.stages[1].learners[1], x, below, frozen=True)
    torch.testing.assert_close(staged[1] - staged[0], 0.5 * f)
    assert (grown.boost_rates == 0.5).all()


def test_invariance_runs_do_not_see_one_another():
    x, y = regression(runs=3)
    together = small().fit(x, (y > 0).float(), Logistic(), [0, 1, 2]).scores(x)
    alone = small().fit(x[1:2], (y[1:2] > 0).float(), Logistic(), [1]).scores(x[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_invariance_orders_agree_for_squared_error():
    """There the curvature is 1: Newton and gradient targets are the same."""
    x, y = regression()
    first, second = (small(order=order).fit(x, y, SquaredError(), [0, 1]).scores(x) for order in (1, 2))
    torch.testing.assert_close(first, second)


def test_limit_corrective_step_moves_everything():
    x, y = regression()
    grown = small(corrective_epochs=1).fit(x, y, SquaredError(), [0, 1])
    before, after = grown.stages[0].learners[0], grown.stages[1].learners[0]
    assert not torch.equal(before["in.w"], after["in.w"])
    assert (grown.boost_rates[0] == 1).all()
    assert (grown.boost_rates[1] != 1).all()
    # The features of the learner before carry a gradient: its last hidden layer reaches the loss by two ways.
    below, _ = module._forward(before | {"in.w": before["in.w"].requires_grad_(True)}, x, None, frozen=True)
    _, f = module._forward(grown.stages[1].learners[1], x, below, frozen=True)
    assert torch.autograd.grad(f.sum(), before["in.w"])[0].abs().sum() > 0


def test_degenerate():
    x, y = regression()
    with pytest.raises(ValueError, match="order"):
        GrowNet(order=3)
    with pytest.raises(ValueError, match="hidden unit"):
        GrowNet(stages=0)
    with pytest.raises(ValueError, match="R seeds"):
        small().fit(x, y, SquaredError(), [0])
    with pytest.raises(NonFiniteLoss):
        small().fit(x * torch.nan, y, SquaredError(), [0, 1])
    # Confidently wrong labels: the curvature underflows, the objective stays finite.
    wrong = torch.full((4, 1), -200.0)
    value = stage_objective(
        wrong, Logistic().gradient(wrong, torch.ones(4)), Logistic().curvature(wrong), torch.tensor(1.0)
    )
    assert value.isfinite()


def test_dtype_device():
    x, y = regression()
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        grown = small().fit(x.to(device), y.to(device), SquaredError(), [0, 1])
        assert grown.scores(x.to(device)).device.type == device
        assert grown.staged(x.to(device)).shape == (3, 2, 64, 1)
        assert grown.train_loss.shape == grown.boost_rates.shape == (3, 2)
