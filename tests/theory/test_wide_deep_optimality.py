import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lib.metrics.tangent_kernel import empirical_ntk
from lib.theory import (
    DeepNTK,
    KernelTable,
    activation,
    classify_activation,
    half_square_distances,
    hermite_coefficients,
    kernel_machine,
    moments,
    relu_ntk,
    singular_activation,
)

XI = torch.tensor([0.05, 0.2, 0.5, 0.8, 0.99], dtype=torch.float64)
NEAREST = torch.tensor([0, 0, 0.5, 0.5], dtype=torch.float64)
MAJORITY = torch.tensor([0.3, 0, 0.2, 0.5], dtype=torch.float64)


# --- by hand ------------------------------------------------------------------


def test_value_by_hand_activation_for_two_dimensions():
    """phi = z / sqrt 2 + (z^3 - 3 z) / sqrt 12, k(1/2) = 1/4 + 1/16, k'(1/2) = 1/2 + 3/8."""
    c = singular_activation(2)
    z = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(activation(c)(z), z / 2**0.5 + (z**3 - 3 * z) / 12**0.5)
    ntk = DeepNTK(c.square(), 1)
    half = torch.tensor([0.5], dtype=torch.float64)
    assert ntk.dual(half).item() == pytest.approx(0.3125)
    assert ntk(half).item() == pytest.approx(0.3125 + 0.5 * 0.875)
    assert DeepNTK(c.square(), 0)(half).item() == 0.5


@pytest.mark.parametrize("d", range(1, 11))
def test_value_by_hand_order(d):
    c = singular_activation(d)
    found = moments(c)
    assert c.square().sum().item() == pytest.approx(1, abs=1e-12)
    assert found.order == pytest.approx(d / 2, abs=1e-12)
    assert found.mean == 0
    assert found.growth == pytest.approx(2 if d > 1 else 5 - 4 * found.slope**2, abs=1e-12)
    if d == 1:
        assert found.slope**4 * (5 - 4 * found.slope**2) == pytest.approx(1, abs=1e-12)


def test_value_by_hand_classes():
    assert classify_activation(NEAREST.sqrt()) == "nn"
    assert classify_activation(MAJORITY.sqrt()) == "majority"
    for d in range(1, 6):
        assert classify_activation(singular_activation(d)) == "singular"
        assert classify_activation(activation(singular_activation(d))) == "singular"


def test_value_by_hand_relu():
    """At right angles S_1 = 1/pi and k' = 1/2, so K_1(0) = 1/pi; on the diagonal K_L(1) = L + 1."""
    xi = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert relu_ntk(xi, 1).tolist() == pytest.approx([1 / math.pi, 2.0])
    assert relu_ntk(xi, 7)[1].item() == pytest.approx(8.0)


# --- parity -------------------------------------------------------------------


@pytest.mark.parametrize("c", [singular_activation(1), singular_activation(3), NEAREST.sqrt(), MAJORITY.sqrt()])
def test_parity_dual_is_a_gaussian_expectation(c):
    """k(xi) = E phi(u) phi(v) and k'(xi) = E phi'(u) phi'(v), u and v normal with correlation xi, by quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(30)
    u = torch.from_numpy(points).requires_grad_()
    mass = torch.from_numpy(np.outer(weights, weights) / weights.sum() ** 2)
    phi = activation(c)
    for xi in (0.2, 0.7):
        v = (xi * u.detach()[:, None] + math.sqrt(1 - xi**2) * u.detach()[None]).requires_grad_()
        slopes = [torch.autograd.grad(phi(z).sum(), z)[0] for z in (u, v)]
        at = torch.tensor(xi, dtype=torch.float64)
        ntk = DeepNTK(c.square(), 1)
        torch.testing.assert_close((mass * phi(u)[:, None] * phi(v)).sum(), ntk.dual(at))
        torch.testing.assert_close((mass * slopes[0][:, None] * slopes[1]).sum(), ntk.slope(at))


class Wide(nn.Module):
    """Hidden layers of one width in the parametrisation of the theory."""

    def __init__(self, inputs, width, depth, phi):
        super().__init__()
        sizes = [inputs] + depth * [width]
        self.layers = nn.ParameterList(torch.randn(b, a) for a, b in pairwise(sizes))
        self.last = nn.Parameter(torch.randn(width))
        self.width, self.phi = width, phi

    def forward(self, x):
        scale = 1.0
        for layer in self.layers:
            x, scale = self.phi(scale * x @ layer.T), self.width**-0.5
        return scale * x @ self.last[:, None]


MILD = torch.tensor([0, 0.8, 0.2], dtype=torch.float64)  # a quadratic; the cubic has too heavy tails for depth 2
NETWORKS = {
    "relu": (lambda z: 2**0.5 * torch.relu(z), lambda xi: relu_ntk(xi, 2), 2, 1024),
    "quadratic": (activation(MILD.sqrt()), DeepNTK(MILD, 2), 2, 1024),
    "cubic": (activation(singular_activation(2)), DeepNTK(singular_activation(2).square(), 1), 1, 20_000),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_parity_with_networks_of_finite_width(name):
    """The gradients of wide random networks: within 5 % of the diagonal of the recursion, averaged over eight draws."""
    phi, exact, depth, width = NETWORKS[name]
    x = torch.eye(3)[:2]
    x = torch.cat([x, x.sum(0, keepdim=True) / 2**0.5])
    torch.manual_seed(0)
    kernels = []
    for _ in range(8):
        net = Wide(3, width, depth, phi)
        kernels.append(empirical_ntk(net, dict(net.named_parameters()), x).detach().double())
    expected = exact((x @ x.T).double().clamp(max=1))
    assert ((torch.stack(kernels).mean(0) - expected).abs() / expected.max()).max() < 0.05


def test_parity_hermite_coefficients():
    c = singular_activation(4)
    torch.testing.assert_close(hermite_coefficients(activation(c), 5), torch.cat([c, torch.zeros(2).double()]))
    # E[sqrt(2) relu] = 1 / sqrt pi, and its first coefficient is E phi' = 1 / sqrt 2
    relu = hermite_coefficients(lambda z: 2**0.5 * torch.relu(z), 1, nodes=200)
    assert relu.tolist() == pytest.approx([1 / math.pi**0.5, 0.5**0.5], abs=2e-3)


# --- limits -------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_limit_functional_equation(d):
    c = singular_activation(d).square()
    ntk = DeepNTK(c, 60)
    torch.testing.assert_close(ntk.limit(ntk.dual(XI)), c[1] * ntk.limit(XI), rtol=1e-6, atol=0)


def test_limit_scaled_ntk_tends_to_psi():
    ntk, xi = DeepNTK(singular_activation(2).square(), 5000), XI[1:4]
    torch.testing.assert_close(ntk.scaled(xi), ntk.limit(xi), rtol=0.02, atol=0)
    early = DeepNTK(singular_activation(2).square(), 5)
    torch.testing.assert_close(early.scaled(xi) * 6 * 0.5**5, early(xi))


@pytest.mark.parametrize("d", [1, 2, 4])
def test_limit_singular_order(d):
    gap = torch.logspace(-6, -3, 50, dtype=torch.float64)
    psi = DeepNTK(singular_activation(d).square(), 60).limit(1 - gap)
    slope = np.polyfit(gap.log().numpy(), psi.log().numpy(), 1)[0]
    assert slope == pytest.approx(-d / 2, abs=0.001)


def test_limit_deep_kernels_become_nearest_neighbour_and_majority():
    near = DeepNTK(NEAREST, 40).log(torch.tensor([0.990, 0.991], dtype=torch.float64))
    assert near[1] - near[0] > 1e6  # log of the ratio
    far = DeepNTK(MAJORITY, 60)(XI)
    torch.testing.assert_close(far, far[:1].expand(5), rtol=1e-3, atol=0)
    assert DeepNTK(MAJORITY, 60)(torch.ones(1).double()) > 1e9 * far[0]


def test_limit_kernel_machine_interpolates_and_diagonal_gram_is_a_vote():
    x = torch.nn.functional.normalize(torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    y = torch.where(torch.arange(20) % 3 == 0, 1.0, -1.0).double()
    u = half_square_distances(x, x)
    gram = u**-0.25
    torch.testing.assert_close(kernel_machine(gram, gram, y), y, atol=1e-4, rtol=0)
    both = kernel_machine(torch.eye(20).double(), gram, torch.stack([y, -y], dim=1), jitter=0.0)
    torch.testing.assert_close(both, torch.stack([gram @ y, -gram @ y], dim=1))


def test_limit_rank_of_shallow_kernels():
    """For d = 2 the kernel is an odd polynomial of degree 3^L: it spans the harmonics of odd degree, 3 + 7, then 55."""
    x = torch.nn.functional.normalize(torch.randn(120, 3, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    for depth, rank in ((0, 3), (1, 10), (2, 55)):
        values = torch.linalg.eigvalsh(DeepNTK(singular_activation(2).square(), depth)((x @ x.T).clamp(-1, 1)))
        assert (values > 1e-9 * values.mean()).sum() == rank


# --- invariances --------------------------------------------------------------


@pytest.mark.parametrize("squares", [singular_activation(2).square(), NEAREST, MAJORITY])
def test_invariance_logarithms(squares):
    for depth in (0, 1, 4):
        ntk = DeepNTK(squares, depth)
        torch.testing.assert_close(ntk.log(XI).exp(), ntk(XI))


@pytest.mark.parametrize("kernel", [DeepNTK(singular_activation(2).square(), 60).limit, lambda xi: relu_ntk(xi, 3)])
def test_invariance_table(kernel):
    """Below xi = 1e-4 the kernel of d = 2 vanishes with xi, which a table over 1 - xi does not resolve."""
    u = torch.logspace(-6, -1e-4, 1000, dtype=torch.float64)
    torch.testing.assert_close(KernelTable(kernel)(u.log()), kernel(1 - u), rtol=1e-6, atol=1e-7)
    ends = torch.tensor([1e-13, 1.0], dtype=torch.float64)
    torch.testing.assert_close(KernelTable(kernel)(ends.log()), kernel(1 - ends), rtol=1e-6, atol=1e-7)


def test_invariance_signs_of_coefficients():
    c = singular_activation(3)
    assert moments(c * torch.tensor([1, -1, 1, -1])).order == moments(c).order
    assert classify_activation(-c) == "singular"


# --- degenerate input ---------------------------------------------------------


def test_degenerate_ends_of_the_interval():
    ntk = DeepNTK(singular_activation(2).square(), 10)
    ends = ntk(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0.0, sum(2.0**k for k in range(11))])
    assert ntk.log(torch.zeros(1).double()).item() == -math.inf
    rounded = DeepNTK(MAJORITY.float(), 60)(torch.ones(1).double())  # squares that sum to 1 + 3e-9
    assert rounded.item() == pytest.approx((1.9**61 - 1) / 0.9, rel=1e-3)
    assert ntk(torch.zeros(0).double()).shape == (0,)
    assert ntk(torch.tensor([math.nan])).isnan().all()
    assert half_square_distances(torch.eye(2).double(), torch.eye(2).double()).diagonal().tolist() == [1e-13, 1e-13]


def test_degenerate_arguments():
    with pytest.raises(ValueError, match="at least 1"):
        singular_activation(0)
    with pytest.raises(ValueError, match="B' = 1"):
        classify_activation(lambda z: z)
    with pytest.raises(ValueError, match="sum to 1"):
        classify_activation(torch.relu)
    with pytest.raises(ValueError, match="sum to 1"):
        moments(torch.ones(3))
    for squares, depth in ((torch.tensor([0.5, -0.5, 1.0]), 1), (torch.tensor([0.5]), 1), (NEAREST, -1)):
        with pytest.raises(ValueError, match="c_k"):
            DeepNTK(squares, depth)
    for squares in (NEAREST, MAJORITY):
        with pytest.raises(ValueError, match="A = 0"):
            DeepNTK(squares, 5).limit(XI)
    assert math.isnan(moments(NEAREST.sqrt()).order)
    with pytest.raises(RuntimeError, match="positive"):
        kernel_machine(-torch.eye(2), torch.eye(2), torch.ones(2))


# --- dtypes and devices -------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 10])
def test_dtype_device(depth):
    ntk = DeepNTK(singular_activation(2).square(), depth)
    for function in (ntk, ntk.log, ntk.limit, ntk.scaled, lambda xi: relu_ntk(xi, depth)):
        single = function(XI.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), function(XI), rtol=2e-4, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dtype_device_cuda():
    ntk = DeepNTK(singular_activation(2).square(), 10)
    torch.testing.assert_close(ntk(XI.cuda()).cpu(), ntk(XI))
