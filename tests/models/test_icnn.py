import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.functional import jacobian
from torch.func import functional_call, grad, stack_module_state, vmap

from lib import runtime
from lib.models import ICNN, GradientMap


def build(kind, *args, seed=0, dtype=torch.float64):
    """A module with parameters far from their initial values."""
    with runtime.isolated(seed):
        module = kind(*args).to(dtype)
        for parameter in module.parameters():
            parameter.data += 0.5 * torch.randn_like(parameter)
    return module


def points(n, dim, seed=1, scale=2.0):
    return scale * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_value_by_hand_one_layer():
    """K = 1, two units with W = (1, -1), b = 0, P = softplus(0) / 2 = log(2) / 2, X = 3, scale 1.001; s = 0 and 1."""
    net = ICNN(1, 2, 1).double()
    net.first.weight.data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    net.first.bias.data.zero_()
    net.last.weight.data.zero_()
    net.last_skip.weight.data.fill_(3.0)
    at = net(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    assert at[0].item() == pytest.approx(1.001 * math.log(2) ** 2)
    two = math.log1p(math.e) + math.log1p(1 / math.e)
    assert at[1].item() == pytest.approx(1.001 * (math.log(2) / 2 * two + 3))


@pytest.mark.parametrize(("dim", "hidden", "depth"), [(1, 2, 1), (3, 4, 2), (9, 2, 4)])
def test_invariance_convex(dim, hidden, depth):
    """No chord lies below the function, for any parameters."""
    for seed in range(5):
        net = build(ICNN, dim, hidden, depth, seed=seed)
        a, b = points(1000, dim, 2), points(1000, dim, 3)
        share = torch.linspace(0, 1, 1000, dtype=torch.float64)[:, None]
        chord = share[:, 0] * net(a) + (1 - share[:, 0]) * net(b)
        assert (chord - net(share * a + (1 - share) * b)).min() > -1e-9


def test_parity_gradient_map_and_autograd():
    block, s = build(GradientMap, 4, 4, 3), points(20, 4).requires_grad_()
    (expected,) = torch.autograd.grad(block.potential(s).sum(), s)
    torch.testing.assert_close(block(s), expected)
    per_sample = vmap(grad(lambda row: block.potential(row[None])[0]))(s)
    torch.testing.assert_close(block(s), per_sample)


def test_parity_gradients_of_parameters_in_both_worlds():
    """Second derivatives through `torch.func` and autograd agree, and a stack of runs does what each does alone."""
    blocks, s = [build(GradientMap, 3, 4, 2, seed=k) for k in range(3)], points(8, 3)
    blocks = [torch.nn.Sequential(block) for block in blocks]
    parameters, buffers = stack_module_state(blocks)
    loss = lambda own, x: functional_call(blocks[0], own, (x,)).square().sum()  # noqa: E731
    stacked = vmap(grad(loss), in_dims=(0, None))(parameters, s)
    assert not buffers
    for row, block in enumerate(blocks):
        named = dict(block.named_parameters())
        alone = torch.autograd.grad(block(s).square().sum(), list(named.values()), allow_unused=True)
        for name, expected in zip(named, alone, strict=True):
            wanted = torch.zeros_like(named[name]) if expected is None else expected
            torch.testing.assert_close(stacked[name][row], wanted)


def test_invariance_strongly_monotone():
    """(v(a) - v(b)) . (a - b) >= softplus(w0) |a - b|^2 for 10,000 random pairs."""
    for seed in range(3):
        block = build(GradientMap, 5, 4, 2, seed=seed)
        a, b = points(10_000, 5, 2), points(10_000, 5, 3)
        with torch.no_grad():
            along = ((block(a) - block(b)) * (a - b)).sum(-1)
            assert (along >= F.softplus(block.w0) * (a - b).square().sum(-1) * (1 - 1e-9)).all()


def test_invariance_jacobian_is_symmetric_and_positive():
    block = build(GradientMap, 4, 2, 4)
    for s in points(5, 4):
        slope = jacobian(lambda row: block(row[None])[0], s)
        assert (slope - slope.T).abs().max() < 1e-10
        assert torch.linalg.eigvalsh(slope).min() >= F.softplus(block.w0).item() * (1 - 1e-9)


def test_limit_identity():
    """Without the network, and with softplus(w0) = 1, the map is the identity."""
    block, s = build(GradientMap, 4, 2, 2), points(10, 4)
    block.w1.data.fill_(-60.0)
    block.w0.data.fill_(math.log(math.e - 1))
    torch.testing.assert_close(block(s), s)


def test_invariance_calibrated_units():
    """After calibration each unit is standardised on that batch, before its activation."""
    net, s = build(ICNN, 3, 4, 3), points(500, 3)
    net.calibrate(s)
    z = F.softplus(net.first(s))
    unit = net.norms[0](net.carry[0](z) + net.skip[0](s))
    torch.testing.assert_close(unit.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(unit.std(0, correction=0), torch.ones(2, dtype=torch.float64), atol=0.02, rtol=0)


def test_gradcheck():
    block = build(GradientMap, 3, 2, 2)
    assert torch.autograd.gradcheck(block, (points(4, 3).requires_grad_(),))


def test_degenerate():
    assert GradientMap(3)(torch.zeros(0, 3)).shape == (0, 3)
    assert GradientMap(3)(torch.full((1, 3), 1e4)).isfinite().all()
    out = GradientMap(2)(torch.tensor([[torch.nan, 0.0], [1.0, 1.0]]))
    assert out.isnan().any(dim=1).tolist() == [True, False]
    for wrong in ((0, 2, 1), (2, 3, 1), (2, 2, 0)):
        with pytest.raises(ValueError, match="hidden even"):
            ICNN(*wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dtype_device(dtype):
    exact = build(GradientMap, 3, 4, 2)
    s = points(6, 3)
    same = build(GradientMap, 3, 4, 2).to(dtype)(s.to(dtype))
    assert same.dtype == dtype
    torch.testing.assert_close(same.double(), exact(s), rtol=0, atol=100 * torch.finfo(dtype).eps)
