"""L-BFGS of a stack against SciPy, closed forms, and each row alone."""

import numpy as np
import pytest
import torch

from lib.trainers import lbfgs_stack


def quadratics(rows=3, n=6, seed=0):
    """0.5 x'Ax - b'x with condition numbers up to 100."""
    random = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(rows, n, n, generator=random, dtype=torch.float64))[0]
    a = basis @ torch.diag_embed(torch.logspace(0, 2, n, dtype=torch.float64).expand(rows, n)) @ basis.mT
    b = torch.randn(rows, n, generator=random, dtype=torch.float64)

    def objective(x):
        ax = torch.einsum("rij,rj->ri", a, x)
        return (0.5 * x * ax - b * x).sum(1), ax - b

    return objective, torch.linalg.solve(a, b)


def test_value_by_hand_quadratic():
    objective, solution = quadratics()
    x, value = lbfgs_stack(objective, torch.zeros_like(solution), 60)
    torch.testing.assert_close(x, solution, atol=1e-7, rtol=0)
    torch.testing.assert_close(value, objective(solution)[0])


def test_parity_rosenbrock_with_scipy():
    scipy = pytest.importorskip("scipy.optimize")

    def objective(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            value = (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)
            return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    start = torch.tensor([[-1.2, 1.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    ours, value = lbfgs_stack(objective, start, 300)
    for row, begin in zip(ours, start, strict=True):
        theirs = scipy.minimize(scipy.rosen, begin.numpy(), jac=scipy.rosen_der, method="L-BFGS-B", tol=1e-12)
        np.testing.assert_allclose(row.numpy(), theirs.x, atol=1e-3)
    assert (value < 1e-6).all()


def test_invariance_rows_do_not_see_one_another():
    objective, solution = quadratics(rows=2)
    start = torch.ones_like(solution)
    together = lbfgs_stack(objective, start, 7)[0]

    def second(x):
        value, gradient = objective(torch.cat([x, x]))
        return value[1:], gradient[1:]

    torch.testing.assert_close(lbfgs_stack(second, start[1:], 7)[0], together[1:])


def test_degenerate():
    objective, solution = quadratics()
    # At the minimum nothing moves far, and a value never rises.
    x, value = lbfgs_stack(objective, solution, 5)
    torch.testing.assert_close(x, solution, atol=1e-8, rtol=0)
    assert (value <= objective(solution)[0] + 1e-12).all()
    with pytest.raises(ValueError, match="iteration"):
        lbfgs_stack(objective, solution, 0)
    with pytest.raises(ValueError, match="finite"):
        lbfgs_stack(objective, solution * torch.nan)
    one = lbfgs_stack(objective, torch.zeros_like(solution), 60, memory=1)[1]
    torch.testing.assert_close(one, objective(solution)[0], atol=1e-3, rtol=0)


def test_dtype_device():
    objective, solution = quadratics()

    def single(x):
        value, gradient = objective(x.double())
        return value.float(), gradient.float()

    x, value = lbfgs_stack(single, torch.zeros_like(solution).float(), 40)
    assert x.dtype == value.dtype == torch.float32
    torch.testing.assert_close(x, solution.float(), atol=1e-3, rtol=0)
