"""RFRBoost: the sandwiched problem against brute force, heads against scikit-learn, line searches, and bad input."""

import numpy as np
import pytest
import torch

from lib.trainers import Logistic, RFRBoost, Softmax, SquaredError, ridge, sandwiched_least_squares, swim_features

LOSSES = {"regression": SquaredError(), "binary": Logistic(), "classes": Softmax(3)}


def data(kind, runs=2, n=50, d=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(runs, n, d, generator=random)
    score = torch.sin(2 * x[..., 0]) + x[..., 1] * x[..., 2]
    if kind == "regression":
        return x, score
    return x, (score > 0).long() if kind == "binary" else (score > -0.5).long() + (score > 0.5).long()


def sandwich(seed=0, n=30, big=4, p=5, d=2):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in ((n, d), (big, d), (n, p))]


def small(**changes):
    return RFRBoost(**({"n_layers": 2, "hidden_dim": 6, "n_features": 8, "l2": 1e-2} | changes))


def test_value_by_hand_scalar():
    """r = (1, 2), W = 1, F = (1, 1): the mean 1.5; with lambda = 1/2 it is 1.5 / (1 + 1/2) = 1."""
    r, one = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    assert sandwiched_least_squares(r, one[:1], one, 0.0).item() == pytest.approx(1.5)
    assert sandwiched_least_squares(r, one[:1], one, 0.5).item() == pytest.approx(1.0)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_parity_kronecker(penalty):
    r, head, inputs = (part.numpy() for part in sandwich())
    left = np.kron(head @ head.T, inputs.T @ inputs) / 30 + penalty * np.eye(20)
    flat = np.linalg.solve(left, (inputs.T @ r @ head.T / 30).flatten(order="F"))
    ours = sandwiched_least_squares(*sandwich(), penalty)
    np.testing.assert_allclose(ours.numpy(), flat.reshape(5, 4, order="F"), rtol=1e-8, atol=1e-10)


def test_gradcheck_sandwich_is_stationary():
    r, head, inputs = sandwich()
    delta = sandwiched_least_squares(r, head, inputs, 0.1).requires_grad_(True)
    objective = (r - inputs @ delta @ head).square().sum(1).mean() + 0.1 * delta.square().sum()
    (slope,) = torch.autograd.grad(objective, delta)
    assert slope.abs().max() < 1e-12


def test_limit_sandwich_is_ridge():
    """One output, one dimension, W = 1: ridge regression with alpha = N lambda."""
    linear = pytest.importorskip("sklearn.linear_model")
    r, _, inputs = sandwich(d=1)
    ours = sandwiched_least_squares(r, torch.ones(1, 1, dtype=torch.float64), inputs, 0.2)[:, 0]
    peer = linear.Ridge(alpha=30 * 0.2, fit_intercept=False).fit(inputs.numpy(), r[:, 0].numpy())
    np.testing.assert_allclose(ours.numpy(), peer.coef_)


def test_invariance_sandwich_batched():
    cases = [sandwich(seed) for seed in range(3)]
    together = sandwiched_least_squares(*(torch.stack(parts) for parts in zip(*cases, strict=True)), 0.1)
    alone = torch.stack([sandwiched_least_squares(*case, 0.1) for case in cases])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("columns", [5, 60])
def test_parity_ridge(columns):
    """Narrow and wide (dual) against scikit-learn with alpha = N lambda."""
    linear = pytest.importorskip("sklearn.linear_model")
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 40, columns, generator=random, dtype=torch.float64)
    y = torch.randn(1, 40, 2, generator=random, dtype=torch.float64) + 3
    delta, intercept = ridge(x, y, torch.tensor(0.1))
    peer = linear.Ridge(alpha=40 * 0.1).fit(x[0].numpy(), y[0].numpy())
    np.testing.assert_allclose(delta[0].T.numpy(), peer.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(intercept[0, 0].numpy(), peer.intercept_, rtol=1e-6)


def test_parity_logistic_head():
    """Without layers and on the input itself: scikit-learn's logistic regression with C = 1 / (2 N lambda)."""
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = data("classes")
    net = small(n_layers=0, upscale="identity", head_iterations=300).fit(x, y, Softmax(3), [0, 1])
    peer = linear.LogisticRegression(C=1 / (2 * 50 * 1e-2), tol=1e-10, max_iter=1000).fit(
        x[0].double().numpy(), y[0].numpy()
    )
    ours = net.staged(x)[0, 0].softmax(-1)
    np.testing.assert_allclose(ours.numpy(), peer.predict_proba(x[0].double().numpy()), atol=1e-4)


@pytest.mark.parametrize("kind", LOSSES)
def test_limit_line_search_never_raises_the_loss(kind):
    """With the head held fixed, before normalisation, every block lowers the training loss."""
    x, y = data(kind)
    net = small().fit(x, y, LOSSES[kind], [0, 1])
    y = y.double() if kind == "regression" else y
    phis = net.representations(x)
    for layer, block in enumerate(net.blocks):
        weight, bias = net.heads[layer]
        before = LOSSES[kind].value(phis[layer] @ weight + bias, y).mean(-1)
        moved = phis[layer + 1] * block.deviation + block.mean
        assert (LOSSES[kind].value(moved @ weight + bias, y).mean(-1) <= before + 1e-12).all()
    assert (net.train_loss[-1] < net.train_loss[0]).all()


def test_limit_representation_is_normalised():
    x, y = data("classes")
    net = small().fit(x, y, Softmax(3), [0, 1])
    for phi in net.representations(x)[1:]:
        torch.testing.assert_close(phi.mean(1), torch.zeros_like(phi.mean(1)), atol=1e-10, rtol=0)
        torch.testing.assert_close(phi.var(1, correction=0), torch.ones_like(phi.mean(1)), atol=1e-2, rtol=0)


def test_value_by_hand_swim_features():
    """A pair that was drawn lies at -c and +c of its feature."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0], [1.0]])
    weights, bias = swim_features(x, y, 3, random)
    outputs = x @ weights + bias
    torch.testing.assert_close(outputs.abs(), torch.full((2, 3), 0.5, dtype=torch.float64))
    torch.testing.assert_close(weights.abs()[0], torch.full((3,), 0.5, dtype=torch.float64))
    assert (weights[1] == 0).all()


@pytest.mark.parametrize("variant", ["gradient", "greedy"])
def test_invariance_runs_do_not_see_one_another(variant):
    x, y = data("regression", runs=3)
    together = small(variant=variant, l2=[1e-3, 1e-2, 1e-1]).fit(x, y, SquaredError(), [4, 5, 6]).staged(x)
    alone = small(variant=variant).fit(x[1:2], y[1:2], SquaredError(), [5]).staged(x[1:2])
    torch.testing.assert_close(together[:, 1:2], alone, rtol=1e-6, atol=1e-8)


def test_invariance_rotation_keeps_the_norm():
    from lib.trainers import rfrboost

    q = rfrboost._rotation(7, [torch.Generator().manual_seed(0)], torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(q[0] @ q[0].T, torch.eye(7, dtype=torch.float64))


def test_degenerate():
    x, y = data("classes")
    with pytest.raises(ValueError, match="greedy"):
        small(variant="greedy").fit(x, y, Softmax(3), [0, 1])
    with pytest.raises(ValueError, match="variant"):
        RFRBoost(variant="lazy")
    with pytest.raises(ValueError, match="R seeds"):
        small().fit(x, y, Softmax(3), [0])
    # One label only: no steep pair, nothing to learn, and no division by zero.
    net = small().fit(x, torch.zeros_like(y), Softmax(3), [0, 1])
    assert net.staged(x).isfinite().all()
    # No penalty and a head without rank: the least solution.
    r, head, inputs = sandwich()
    delta = sandwiched_least_squares(r, head * torch.tensor([1.0, 0.0]), inputs, 0.0)
    assert delta.isfinite().all()


def test_dtype_device():
    x, y = data("classes")
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        scores = small().fit(x.to(device), y.to(device), Softmax(3), [0, 1]).staged(x.to(device))
        assert (scores.dtype, scores.device.type, scores.shape) == (torch.float64, device, (3, 2, 50, 3))
