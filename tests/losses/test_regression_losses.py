"""Losses of regression: hand values, torch and scikit-learn as peers, limits into one another, constant minimisers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from sklearn.metrics import mean_pinball_loss

from lib.losses.registry import LossEntry, registered_losses
from lib.losses.regression import huber_loss, log_cosh_loss, poisson_loss, pseudo_huber_loss, quantile_loss
from lib.models import MLP
from lib.trainers import Adam, Method, train_paired

ENTRIES = [entry for entry in registered_losses("regression") if entry.chapter is None]
OWN = (huber_loss, log_cosh_loss, quantile_loss, pseudo_huber_loss, poisson_loss)


def pairs(seed: int = 0, n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, generator=generator, dtype=torch.float64).mul(3).unbind()


def test_value_by_hand() -> None:
    output, y = torch.zeros(2), torch.tensor([0.5, -3.0])
    assert huber_loss(output, y).item() == pytest.approx((0.125 + 2.5) / 2)
    assert huber_loss(output, y, 2.0).item() == pytest.approx((0.125 + 4.0) / 2)
    assert quantile_loss(output, y, 0.9).item() == pytest.approx((0.45 + 0.3) / 2)
    assert log_cosh_loss(output, y).item() == pytest.approx((math.log(math.cosh(0.5)) + math.log(math.cosh(3))) / 2)
    assert pseudo_huber_loss(output, y, 4.0).item() == pytest.approx((16 * (math.sqrt(1 + 1 / 64) - 1) + 4) / 2)
    assert poisson_loss(torch.tensor([0.0]), torch.tensor([3.0])).item() == 1.0


@pytest.mark.parametrize("delta", [0.3, 1.0, 5.0])
def test_parity_with_torch(delta: float) -> None:
    output, y = pairs()
    torch.testing.assert_close(huber_loss(output, y, delta), F.huber_loss(output, y, delta=delta))
    torch.testing.assert_close(huber_loss(output, y, delta) / delta, F.smooth_l1_loss(output, y, beta=delta))
    torch.testing.assert_close(poisson_loss(output, y.abs()), F.poisson_nll_loss(output, y.abs()))


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_parity_with_scikit_learn(q: float) -> None:
    output, y = pairs()
    assert quantile_loss(output, y, q).item() == pytest.approx(mean_pinball_loss(y, output, alpha=q))


def test_limit_into_one_another() -> None:
    """Huber and pseudo-Huber lie between half MSE and MAE; quantile 1/2 is half MAE; log-cosh has both ends."""
    output, y = pairs()
    mse, mae = F.mse_loss(output, y), F.l1_loss(output, y)
    torch.testing.assert_close(huber_loss(output, y, 1e6), mse / 2)
    torch.testing.assert_close(huber_loss(output, y, 1e-9) / 1e-9, mae, rtol=1e-6, atol=0)
    torch.testing.assert_close(pseudo_huber_loss(output, y, 1e5), mse / 2, rtol=1e-6, atol=0)
    torch.testing.assert_close(pseudo_huber_loss(output, y, 1e-9) / 1e-9, mae, rtol=1e-6, atol=0)
    torch.testing.assert_close(quantile_loss(output, y, 0.5), mae / 2)
    near, far = y + 1e-4 * (output - y), y + 1e6 * (output - y)
    torch.testing.assert_close(log_cosh_loss(near, y), F.mse_loss(near, y) / 2, rtol=1e-6, atol=0)
    torch.testing.assert_close(log_cosh_loss(far, y), F.l1_loss(far, y) - math.log(2))


def test_limit_constant_minimisers() -> None:
    """The best constant is mean, median, quantile, zero of the clipped or tanh residual, log of the mean."""
    y = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 1.0, 101))

    def best(loss, low=0.0, high=10.0):  # type: ignore[no-untyped-def]
        found = minimize_scalar(
            lambda c: loss(torch.full_like(y, c), y).item(),
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-9},
        )
        return found.x

    assert best(F.mse_loss) == pytest.approx(y.mean().item(), rel=1e-6)
    assert best(F.l1_loss) == pytest.approx(y.median().item(), rel=1e-6)
    assert best(quantile_loss) == pytest.approx(np.quantile(y, 0.9), rel=1e-6)
    assert best(poisson_loss, -5.0, 5.0) == pytest.approx(y.mean().log().item(), rel=1e-6)
    assert (y - best(huber_loss)).clamp(-1, 1).mean().item() == pytest.approx(0, abs=1e-6)
    assert (y - best(log_cosh_loss)).tanh().mean().item() == pytest.approx(0, abs=1e-6)
    assert y.median().item() < best(huber_loss) < y.mean().item()


@pytest.mark.parametrize("loss", OWN, ids=lambda loss: loss.__name__)
def test_gradcheck(loss) -> None:  # type: ignore[no-untyped-def]
    output, y = pairs(n=7)
    assert torch.autograd.gradcheck(lambda z: loss(z / 3, y), (output.requires_grad_(),))


@pytest.mark.parametrize("loss", OWN, ids=lambda loss: loss.__name__)
def test_degenerate(loss) -> None:  # type: ignore[no-untyped-def]
    one, empty = torch.zeros(1), torch.empty(0)
    assert loss(torch.tensor([torch.nan]), one).isnan()
    assert loss(empty, empty).isnan()
    with pytest.raises(ValueError, match="one shape"):
        loss(torch.zeros(4, 1), torch.zeros(4))
    if loss is not poisson_loss:
        assert loss(torch.tensor([1e6]), one).isfinite()
        z = torch.zeros(3, requires_grad=True)
        loss(z, torch.zeros(3)).backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()


@pytest.mark.parametrize("loss", OWN, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_device(loss, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    output, y = (part.to(dtype) for part in pairs())
    value = loss(output / 3, y)
    assert value.dtype == dtype
    assert value.device == output.device


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_invariance_entries_train_as_a_stack(entry: LossEntry) -> None:
    """Defaults and the ends of every range, two seeds: the loss falls, is finite, and a mean over the batch."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 4, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + 0.1 * torch.randn(32, 1, generator=generator)
    settings = [dict(entry.defaults)]
    settings += [{**entry.defaults, key: wide.at(end)} for key, wide in entry.tunable.items() for end in (0.0, 1.0)]
    methods = [Method(str(k), entry.function, hyper) for k, hyper in enumerate(settings)]
    options = {"seeds": [0, 1], "epochs": 15, "batch_size": 32, "optimiser": Adam(lr=0.01), "device": "cpu"}
    trained = train_paired(lambda: MLP([4, 8, 1]), methods, (x, y), **options)
    for history in trained.history.values():
        assert torch.isfinite(history).all()
        assert (history[:, -1] < history[:, 0]).all()
    output = torch.randn(32, 1, generator=generator)
    thrice = entry.function(torch.cat([output] * 3), torch.cat([y] * 3), **entry.defaults)
    torch.testing.assert_close(thrice, entry.function(output, y, **entry.defaults))
