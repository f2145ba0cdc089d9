"""Hessian-vector products, power iteration and Lanczos against explicit Hessians."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.metrics import Extremes, extreme_eigenvalues, flatten, functional_loss, hvp, top_eigenvalue, unflatten


def quadratic(matrix):
    """L(p) = 0.5 p' A p, whose Hessian is A everywhere."""
    return lambda params: 0.5 * flatten(params) @ matrix @ flatten(params)


def network(seed=0, dtype=torch.float64):
    """A tanh MLP of 317 parameters with data; tanh, so that the Hessian has a negative part everywhere."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(9, 22), nn.Tanh(), nn.Linear(22, 4), nn.Linear(4, 1)).to(dtype)
    x, y = torch.randn(40, 9, dtype=dtype), torch.randn(40, 1, dtype=dtype)
    params = {name: value.detach() for name, value in model.named_parameters()}
    return functional_loss(model, nn.functional.mse_loss, x, y), params


def explicit_hessian(loss, params):
    return torch.func.hessian(lambda vector: loss(unflatten(vector, params)))(flatten(params))


def test_value_by_hand_products_and_eigenvalues():
    # L = 0.5 (9 a^2 + b^2): H = diag(9, 1); H (1, 2) = (9, 2)
    loss = quadratic(torch.diag(torch.tensor([9.0, 1.0])))
    params = {"a": torch.tensor([1.0]), "b": torch.tensor([-3.0])}
    product = hvp(loss, params, {"a": torch.tensor([1.0]), "b": torch.tensor([2.0])})
    assert product["a"].item() == 9.0
    assert product["b"].item() == 2.0
    value, vector = top_eigenvalue(loss, params)
    assert value.item() == pytest.approx(9.0, rel=1e-6)
    assert abs(vector["a"].item()) == pytest.approx(1.0, rel=1e-6)
    # f = w1 w2 x, loss 0.5 (f - 1)^2 at w = (1, 2), x = 1: H = [[4, 3], [3, 1]], eigenvalues (5 +- sqrt 45) / 2
    saddle = {"w": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    ends = extreme_eigenvalues(lambda p: 0.5 * (p["w"][0] * p["w"][1] - 1) ** 2, saddle)
    assert ends.lambda_max.item() == pytest.approx((5 + 45**0.5) / 2, rel=1e-12)
    assert ends.lambda_min.item() == pytest.approx((5 - 45**0.5) / 2, rel=1e-12)


def test_parity_lanczos_and_power_iteration_with_numpy_eigvalsh():
    loss, params = network()
    assert flatten(params).numel() == 317
    hessian = explicit_hessian(loss, params)
    spectrum = np.linalg.eigvalsh(hessian.numpy())
    assert spectrum[0] < -1e-3 * spectrum[-1]  # the ratio below is not trivial
    ends = extreme_eigenvalues(loss, params, iterations=40)
    assert ends.lambda_max.item() == pytest.approx(spectrum[-1], rel=1e-6)
    assert (ends.lambda_min / ends.lambda_max).abs().item() == pytest.approx(abs(spectrum[0] / spectrum[-1]), rel=1e-3)
    value, vector = top_eigenvalue(loss, params, iterations=200)
    assert value.item() == pytest.approx(spectrum[-1], rel=1e-6)
    v = flatten(vector)
    torch.testing.assert_close(hessian @ v, value * v, atol=1e-4, rtol=0)
    w = {name: torch.randn_like(p) for name, p in params.items()}
    torch.testing.assert_close(flatten(hvp(loss, params, w)), hessian @ flatten(w))


def test_parity_with_scipy_lanczos():
    from scipy.sparse.linalg import LinearOperator, eigsh

    loss, params = network(seed=3)

    def product(v):
        return flatten(hvp(loss, params, unflatten(torch.from_numpy(v.ravel()), params))).numpy()

    size = flatten(params).numel()
    peer = eigsh(LinearOperator((size, size), matvec=product, dtype=np.float64), k=1, which="LA")[0][0]
    assert extreme_eigenvalues(loss, params, iterations=40).lambda_max.item() == pytest.approx(peer, rel=1e-6)


def test_limit_as_many_steps_as_parameters_is_exact_and_fewer_stay_inside():
    torch.manual_seed(1)
    a = torch.randn(12, 12, dtype=torch.float64)
    spectrum = torch.linalg.eigvalsh(a + a.T)
    params = {"p": torch.randn(12, dtype=torch.float64)}
    full = extreme_eigenvalues(quadratic(a + a.T), params, iterations=99)
    assert full.lambda_min.item() == pytest.approx(spectrum[0].item(), rel=1e-10)
    assert full.lambda_max.item() == pytest.approx(spectrum[-1].item(), rel=1e-10)
    part = extreme_eigenvalues(quadratic(a + a.T), params, iterations=4)
    assert spectrum[0] < part.lambda_min < part.lambda_max < spectrum[-1]


def test_limit_residual_bounds_the_distance_to_the_spectrum():
    loss, params = network(seed=2)
    spectrum = torch.linalg.eigvalsh(explicit_hessian(loss, params))
    residuals = []
    for iterations in (3, 6, 12, 24):
        ends = extreme_eigenvalues(loss, params, iterations=iterations)
        for value in (ends.lambda_min, ends.lambda_max):
            assert (spectrum - value).abs().min() <= ends.residual + 1e-12
        residuals.append(ends.residual.item())
    assert residuals[-1] < 1e-2 * residuals[0]


def test_invariance_to_the_order_and_grouping_of_parameters():
    loss, params = network(seed=4)
    turned = dict(reversed(params.items()))
    first, second = (extreme_eigenvalues(loss, p, iterations=60) for p in (params, turned))
    torch.testing.assert_close(first.lambda_max, second.lambda_max, rtol=1e-8, atol=0)
    torch.testing.assert_close(first.lambda_min, second.lambda_min, rtol=1e-4, atol=0)


def test_invariance_vmap_gives_what_single_calls_give():
    loss, params = network()
    stacked = {name: torch.stack([p, 0.5 * p, 2 * p]) for name, p in params.items()}
    together = torch.func.vmap(lambda p: extreme_eigenvalues(loss, p, iterations=15))(stacked)
    powers, _ = torch.func.vmap(lambda p: top_eigenvalue(loss, p, iterations=15))(stacked)
    for i in range(3):
        one = {name: p[i] for name, p in stacked.items()}
        for whole, single in zip(together, extreme_eigenvalues(loss, one, iterations=15), strict=True):
            torch.testing.assert_close(whole[i], single, rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(powers[i], top_eigenvalue(loss, one, iterations=15)[0])


def test_gradcheck_hvp_is_the_derivative_of_the_gradient():
    loss, params = network(seed=5)
    v = {name: torch.randn_like(p) for name, p in params.items()}
    step = 1e-6
    ahead, behind = (
        torch.func.grad(loss)({name: p + sign * step * v[name] for name, p in params.items()}) for sign in (1, -1)
    )
    numeric = (flatten(ahead) - flatten(behind)) / (2 * step)
    torch.testing.assert_close(flatten(hvp(loss, params, v)), numeric, rtol=1e-6, atol=1e-8)


def test_degenerate_early_breakdown_keeps_both_ends():
    # the start vector lies in the plane of two eigenvectors: the Krylov space ends after two steps
    loss = quadratic(torch.diag(torch.tensor([9.0, 5.0, 1.0, -2.0], dtype=torch.float64)))
    params = {"p": torch.zeros(4, dtype=torch.float64)}
    start = {"p": torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)}
    ends = extreme_eigenvalues(loss, params, iterations=4, start=start)
    assert ends.lambda_min.item() == pytest.approx(5.0)  # no spurious zero
    assert ends.lambda_max.item() == pytest.approx(9.0)
    assert ends.residual.item() == pytest.approx(0.0, abs=1e-10)


def test_degenerate_one_parameter_and_zero_hessian():
    one = extreme_eigenvalues(lambda p: 1.5 * (p["w"] ** 2).sum(), {"w": torch.tensor([2.0])})
    assert one == Extremes(torch.tensor(3.0), torch.tensor(3.0), torch.tensor(0.0))
    flat = {"w": torch.ones(5)}
    assert extreme_eigenvalues(lambda p: p["w"].sum() ** 1, flat).lambda_max.item() == 0.0
    value, vector = top_eigenvalue(lambda p: p["w"].sum() ** 1, flat)
    assert value.item() == 0.0
    assert flatten(vector).norm().item() == pytest.approx(1.0)


def test_degenerate_nan_loss_gives_nan_and_leaves_the_other_points_alone():
    loss = lambda p: (p["w"].log() ** 2).sum()  # noqa: E731
    points = {"w": torch.tensor([[1.0, 2.0], [-1.0, 2.0]], dtype=torch.float64)}
    ends = torch.func.vmap(lambda p: extreme_eigenvalues(loss, p))(points)
    assert ends.lambda_max.isnan().tolist() == [False, True]
    assert ends.lambda_max[0].item() == pytest.approx(2.0, rel=1e-10)  # d2/dw2 of log^2 at 1: 2 (1 - log w) / w^2
    assert top_eigenvalue(loss, {"w": points["w"][1]})[0].isnan()


def test_degenerate_bad_arguments():
    with pytest.raises(ValueError, match="iterations"):
        top_eigenvalue(lambda p: p["w"].sum(), {"w": torch.ones(1)}, iterations=0)
    with pytest.raises(ValueError, match="iterations"):
        extreme_eigenvalues(lambda p: p["w"].sum(), {"w": torch.ones(1)}, iterations=0)
    with pytest.raises(ValueError, match="3 entries for 2"):
        unflatten(torch.ones(3), {"w": torch.ones(2)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device_results_keep_those_of_the_parameters(dtype):
    loss, params = network(dtype=dtype)
    ends = extreme_eigenvalues(loss, params, iterations=5)
    assert {value.dtype for value in ends} == {dtype}
    value, vector = top_eigenvalue(loss, params, iterations=2)
    assert value.dtype == dtype
    assert {name: v.shape for name, v in vector.items()} == {name: p.shape for name, p in params.items()}
    meta = unflatten(torch.empty(317, device="meta", dtype=dtype), params)
    assert next(iter(meta.values())).device.type == "meta"
