"""Class-wise curvature against explicit Hessians, and SAM's step at a saddle in closed form."""

import math

import pytest
import torch
import torch.nn.functional as F

from lib.metrics import explicit_hessian, functional_loss
from lib.models import MLP
from lib.optim import SAM, sam_gradient
from lib.trainers import ClassCurvature, class_curvature, descend_saddle, escape_factor


def runs(count=3, dtype=torch.float64):
    """Untrained networks with 5*8+8 + 8*3+3 = 75 parameters, their stacked weights, and data."""
    torch.manual_seed(0)
    networks = [MLP([5, 8, 3], activation="tanh").to(dtype) for _ in range(count)]
    stacked = {
        key: torch.stack([dict(n.named_parameters())[key].detach() for n in networks])
        for key, _ in networks[0].named_parameters()
    }
    y = torch.tensor([0] * 6 + [1] * 3 + [2])
    return networks[0], stacked, torch.randn(count, len(y), 5, dtype=dtype), y


def test_value_by_hand_escape_factor():
    """Curvatures (1, -0.1) at (0.3, 4): g = (0.3, -0.4), |g| = 1/2, so 1 - 0.5 * 0.1 / 0.5 = 0.9 at rho = 0.5."""
    a, w = torch.tensor([1.0, -0.1], dtype=torch.float64), torch.tensor([0.3, 4.0], dtype=torch.float64)
    g_sam = sam_gradient(lambda p: 0.5 * (a * p["w"] ** 2).sum(), {"w": w}, 0.5)[0]["w"]
    assert (g_sam[1] / (a[1] * w[1])).item() == pytest.approx(0.9)
    assert escape_factor(a[1], (a * w).norm(), 0.5).item() == pytest.approx(0.9)


def test_value_by_hand_sizes_along_the_negative_direction():
    """u = rho |lambda| / |g|: shrunken below 2, turned round above 1, longer above 2."""
    factor = escape_factor(torch.tensor(-1.0), torch.tensor(1.0), torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0]))
    torch.testing.assert_close(factor, torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0, -2.0]))


def test_limit_rho_zero_is_gradient_descent():
    """(1 - lr lambda)^t in closed form, so |y| passes 0.1 from 0.001 after log(100) / log(1.01) = 463 steps."""
    a, start = torch.tensor([1.0, -0.1], dtype=torch.float64), torch.tensor([1.0, 1e-3], dtype=torch.float64)
    path = descend_saddle(a, start, 0.0, lr=0.1, steps=470)
    t = torch.arange(471, dtype=torch.float64)
    torch.testing.assert_close(path[:, 0], 0.9**t)
    torch.testing.assert_close(path[:, 1], 1e-3 * 1.01**t)
    assert int((path[:, 1] > 0.1).nonzero()[0]) == math.ceil(math.log(100) / math.log(1.01))


def test_parity_saddle_with_the_optimiser():
    a, start = torch.tensor([1.0, -0.1], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    weight = torch.nn.Parameter(start.clone())
    optimiser = SAM([weight], torch.optim.SGD, rho=0.3, lr=0.1)
    for _ in range(20):
        optimiser.step(lambda: (optimiser.zero_grad(), (0.5 * (a * weight**2).sum()).backward()))
    torch.testing.assert_close(descend_saddle(a, start, 0.3, 0.1, 20)[-1], weight.detach())


def test_invariance_escape_factor_in_a_rotated_saddle():
    """Along *every* eigenvector of a random symmetric matrix, not only along coordinate axes."""
    torch.manual_seed(1)
    h = torch.randn(6, 6, dtype=torch.float64)
    h = h + h.T
    w, rho = torch.randn(6, dtype=torch.float64), 0.7
    values, vectors = torch.linalg.eigh(h)
    g = h @ w
    g_sam = sam_gradient(lambda p: 0.5 * p["w"] @ h @ p["w"], {"w": w}, rho)[0]["w"]
    torch.testing.assert_close(vectors.T @ g_sam, escape_factor(values, g.norm(), rho) * (vectors.T @ g))


def test_parity_class_curvature_with_explicit_hessians():
    network, weights, x, y = runs()
    found = class_curvature(network, F.cross_entropy, weights, x, y, [0, 2], steps=60)
    for run in range(3):
        own = {key: value[run] for key, value in weights.items()}
        for column, k in enumerate([0, 2]):
            rows = y == k
            loss = functional_loss(network, F.cross_entropy, x[run, rows], y[rows])
            eigenvalues = torch.linalg.eigvalsh(explicit_hessian(loss, own))
            torch.testing.assert_close(found.lambda_min[run, column], eigenvalues[0], rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(found.lambda_max[run, column], eigenvalues[-1], rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(found.loss[run, column], loss(own))
            norm = torch.cat([g.flatten() for g in torch.func.grad(loss)(own).values()]).norm()
            torch.testing.assert_close(found.gradient_norm[run, column], norm)


def test_invariance_ratio_does_not_see_a_class_weight():
    """The weight of a class in the training loss scales both ends of its spectrum alike."""
    network, weights, x, y = runs()
    once = class_curvature(network, F.cross_entropy, weights, x, y, [1])
    thrice = class_curvature(network, lambda z, y: 3 * F.cross_entropy(z, y), weights, x, y, [1])
    torch.testing.assert_close(thrice.lambda_min, 3 * once.lambda_min)
    torch.testing.assert_close(thrice.ratio(), once.ratio())


def test_degenerate():
    network, weights, x, y = runs()
    with pytest.raises(ValueError, match="class 7"):
        class_curvature(network, F.cross_entropy, weights, x, y, [7])
    zeros = torch.zeros(1, 1)
    convex = ClassCurvature(torch.full((1, 1), 0.5), torch.ones(1, 1), zeros, zeros)
    assert convex.ratio().item() == 0  # no negative eigenvalue, no saddle
    still = descend_saddle(torch.tensor([1.0, -1.0]), torch.zeros(2), 0.5, 0.1, 3)
    assert torch.equal(still, torch.zeros(4, 2))  # at the saddle itself nothing moves


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(dtype):
    network, weights, x, y = runs(dtype=dtype)
    found = class_curvature(network, F.cross_entropy, weights, x, y, [0], steps=10)
    assert {value.dtype for value in found} == {dtype}
    assert found.ratio().shape == (3, 1)
