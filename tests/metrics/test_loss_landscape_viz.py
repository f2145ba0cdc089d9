"""Filter-normalised directions, slices, curvature maps and PCA planes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lib.metrics import (
    curvature_ratio_map,
    filter_normalized_direction,
    flatness,
    flatten,
    functional_loss,
    gaussian_direction,
    loss_slice,
    normalise_direction,
    trajectory_pca,
    variance_share,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    x, y = torch.randn(50, 8), torch.randint(4, (50,))
    params = {name: value.detach() for name, value in model.named_parameters()}
    return model, params, functional_loss(model, nn.functional.cross_entropy, x, y)


def rescaled(params, c):
    """The same function: first layer (bias too) times c, second weights divided by c; c of shape () or (16,)."""
    c = torch.as_tensor(c)
    rows = c.expand(16)[:, None]
    return {
        "0.weight": params["0.weight"] * rows,
        "0.bias": params["0.bias"] * c,
        "2.weight": params["2.weight"] / rows.T,
        "2.bias": params["2.bias"],
    }


def bowl(params):
    """L = 0.5 (9 a^2 + b^2) of a 1x1 weight a and a 1x1 weight b."""
    return 0.5 * (9 * params["a"] ** 2 + params["b"] ** 2).sum()


ORIGIN = {"a": torch.zeros(1, 1), "b": torch.zeros(1, 1)}
E1 = {"a": torch.ones(1, 1), "b": torch.zeros(1, 1)}
E2 = {"a": torch.zeros(1, 1), "b": torch.ones(1, 1)}


def test_value_by_hand_slices_of_a_quadratic():
    line = loss_slice(bowl, ORIGIN, E1, grid=5, span=1.0)
    assert line.coordinates.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert line.losses.tolist() == [4.5, 1.125, 0.0, 1.125, 4.5]
    plane = loss_slice(bowl, ORIGIN, E1, E2, grid=3, span=1.0)
    assert plane.losses.tolist() == [[5.0, 4.5, 5.0], [0.5, 0.0, 0.5], [5.0, 4.5, 5.0]]  # first axis along d1
    # on the points +-0.5 of both axes: (1.125 + 1.125 + 0.125 + 0.125) / 4
    assert flatness(bowl, ORIGIN, [E1, E2], radius=0.5).item() == 0.625


def test_value_by_hand_filter_norms():
    theta = {"w": torch.tensor([[3.0, 4.0], [0.0, 1.0]]), "b": torch.tensor([7.0, 7.0])}
    raw = {"w": torch.tensor([[0.0, 2.0], [1.0, 0.0]]), "b": torch.tensor([0.0, 0.0])}
    assert normalise_direction(theta, raw)["w"].tolist() == [[0.0, 5.0], [1.0, 0.0]]
    layer = math.sqrt(26 / 5)  # ||theta|| = sqrt 26, ||d|| = sqrt 5
    torch.testing.assert_close(normalise_direction(theta, raw, "layer")["w"], layer * raw["w"])
    assert normalise_direction(theta, raw, "none")["w"].equal(raw["w"])


def test_value_by_hand_curvature_ratio():
    # 0.5 (9 a^2 - 3 b^2): ratio 1/3 everywhere
    saddle = lambda p: 0.5 * (9 * p["a"] ** 2 - 3 * p["b"] ** 2).sum()  # noqa: E731
    found = curvature_ratio_map(saddle, ORIGIN, E1, E2, grid=3)
    torch.testing.assert_close(found.ratio, torch.full((3, 3), 1 / 3))
    torch.testing.assert_close(found.lambda_min, torch.full((3, 3), -3.0))


def test_parity_slice_with_a_plain_loop():
    _, params, loss = network()
    d1, d2 = (filter_normalized_direction(params, generator(seed)) for seed in (1, 2))
    plane = loss_slice(loss, params, d1, d2, grid=4, span=0.7, chunk=5)
    for i, a in enumerate(plane.coordinates):
        for j, b in enumerate(plane.coordinates):
            moved = {name: p + a * d1[name] + b * d2[name] for name, p in params.items()}
            torch.testing.assert_close(plane.losses[i, j], loss(moved))


def test_parity_pca_with_scikit_learn():
    from sklearn.decomposition import PCA

    torch.manual_seed(0)
    steps = torch.randn(12, 30, dtype=torch.float64).cumsum(0)
    path = [{"w": row.reshape(5, 6)} for row in steps]
    found = trajectory_pca(path)
    peer = PCA(2).fit((steps - steps[-1]).numpy())
    np.testing.assert_allclose(found.share.numpy(), peer.explained_variance_ratio_, rtol=1e-10)
    np.testing.assert_allclose(np.abs(flatten(found.d1).numpy()), np.abs(peer.components_[0]), rtol=1e-8)
    centred = found.coordinates - found.coordinates.mean(0)
    np.testing.assert_allclose(np.abs(centred.numpy()), np.abs(peer.transform((steps - steps[-1]).numpy())), rtol=1e-8)
    # the plane's own variance share, measured by projection
    assert variance_share(path, [found.d1, found.d2]).item() == pytest.approx(found.share.sum().item(), rel=1e-10)


def test_limit_the_middle_of_a_slice_is_the_loss_itself():
    _, params, loss = network()
    d1, d2 = (filter_normalized_direction(params, generator(seed)) for seed in (1, 2))
    for grid in (1, 3, 21, 25):
        line = loss_slice(loss, params, d1, grid=grid)
        assert line.coordinates[grid // 2].item() == 0.0
        torch.testing.assert_close(line.losses[grid // 2], loss(params), rtol=1e-6, atol=0)
        plane = loss_slice(loss, params, d1, d2, grid=grid)
        torch.testing.assert_close(plane.losses[grid // 2, grid // 2], loss(params), rtol=1e-6, atol=0)


def test_limit_a_straight_path_is_one_dimensional_and_a_random_plane_sees_little():
    d = torch.randn(400, 25, generator=generator())
    path = [{"w": t * d} for t in torch.linspace(0, 1, 20)]
    found = trajectory_pca(path)
    assert found.share[0].item() == pytest.approx(1.0, abs=1e-5)
    assert found.coordinates[-1].tolist() == [0.0, 0.0]
    assert found.coordinates[0, 0] > 0
    plane = [gaussian_direction(path[0], generator(seed)) for seed in (5, 6)]
    assert variance_share(path, plane).item() < 0.01  # about 2 / 10,000


@pytest.mark.parametrize("normalise", ["filter", "layer"])
def test_invariance_of_slices_to_rescaled_layers(normalise):
    _, params, loss = network()
    for c in (4.0, 0.3):
        other = rescaled(params, c)
        torch.testing.assert_close(loss(params), loss(other))
        lines = [
            loss_slice(loss, p, filter_normalized_direction(p, generator(7), normalise)).losses for p in (params, other)
        ]
        torch.testing.assert_close(*lines, rtol=1e-5, atol=0)
        raw = [
            loss_slice(loss, p, filter_normalized_direction(p, generator(7), "none")).losses for p in (params, other)
        ]
        assert ((raw[0] - raw[1]).abs() / raw[0]).max() > 0.1


def test_invariance_ends_where_single_neurons_are_rescaled():
    # the rows of the next layer lose their norms by different factors, so no row norm can undo it
    _, params, loss = network()
    other = rescaled(params, 4.0 ** torch.linspace(-1, 1, 16))
    torch.testing.assert_close(loss(params), loss(other))
    lines = [loss_slice(loss, p, filter_normalized_direction(p, generator(7))).losses for p in (params, other)]
    assert ((lines[0] - lines[1]).abs() / lines[0]).max() > 0.02


def test_invariance_norms_equal_those_of_the_network_also_for_convolutions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1, bias=False), nn.Linear(8, 4))
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight)
    d = filter_normalized_direction(model, generator())
    params = dict(model.named_parameters())
    assert d.keys() == params.keys()
    for name, value in params.items():
        if value.dim() > 1:
            theirs, ours = (t.flatten(1).norm(dim=1) for t in (value, d[name]))
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
        else:
            assert not d[name].any()  # biases and batch norm stay where they are
    whole = filter_normalized_direction(model, generator(), "layer")
    torch.testing.assert_close(whole["0.weight"].norm(), params["0.weight"].norm())


def test_invariance_seed_gives_the_same_draw_to_networks_of_one_shape():
    first, second = (network(seed)[1] for seed in (0, 1))
    one, two = (gaussian_direction(p, generator(3)) for p in (first, second))
    assert all(one[name].equal(two[name]) for name in one)


def test_invariance_vmap_over_stacked_networks():
    _, params, loss = network()
    d = gaussian_direction(params, generator())
    stacked = {name: torch.stack([p, 2 * p]) for name, p in params.items()}

    def one(p):
        return loss_slice(loss, p, normalise_direction(p, d), grid=5).losses

    together = torch.func.vmap(one)(stacked)
    for i in range(2):
        torch.testing.assert_close(together[i], one({name: p[i] for name, p in stacked.items()}))
    paths = {name: torch.randn(2, 6, *p.shape, generator=generator(1)) for name, p in params.items()}
    shares = torch.func.vmap(lambda c: trajectory_pca([{k: v[i] for k, v in c.items()} for i in range(6)]).share)(paths)
    torch.testing.assert_close(
        shares[1], trajectory_pca([{k: v[1, i] for k, v in paths.items()} for i in range(6)]).share
    )


def test_degenerate_zero_filter_has_direction_zero():
    theta = {"w": torch.tensor([[0.0, 0.0], [1.0, 1.0]])}
    d = filter_normalized_direction(theta, generator())
    assert d["w"][0].tolist() == [0.0, 0.0]
    assert d["w"].isfinite().all()
    assert normalise_direction(theta, {"w": torch.zeros(2, 2)})["w"].isfinite().all()


def test_degenerate_nan_loss_stays_at_its_point():
    loss = lambda p: p["w"].log().sum()  # noqa: E731
    line = loss_slice(loss, {"w": torch.ones(1, 1)}, {"w": torch.full((1, 1), 2.0)}, grid=3)
    assert line.losses.isnan().tolist() == [True, False, False]
    found = curvature_ratio_map(
        lambda p: (p["w"].log() ** 2).sum(),
        {"w": torch.ones(1, 2)},
        {"w": torch.full((1, 2), 2.0)},
        {"w": torch.zeros(1, 2)},
        grid=3,
    )
    assert found.ratio.isnan()[0].all()
    assert found.ratio[1:].isfinite().all()


def test_degenerate_bad_arguments():
    _, params, loss = network()
    d = filter_normalized_direction(params, generator())
    with pytest.raises(ValueError, match="grid: 0"):
        loss_slice(loss, params, d, grid=0)
    with pytest.raises(ValueError, match="filter, layer, none"):
        filter_normalized_direction(params, generator(), "norm")
    with pytest.raises(ValueError, match="at least 3"):
        trajectory_pca([params, params])
    with pytest.raises(ValueError, match="none given"):
        flatness(loss, params, [])
    assert trajectory_pca([params] * 3).share.isnan().all()  # a path that does not move


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device_follow_the_network(dtype):
    model, _, _ = network()
    model = model.to(dtype)
    d = filter_normalized_direction(model, generator())
    assert {v.dtype for v in d.values()} == {dtype}
    line = loss_slice(lambda p: sum(v.sum() for v in p.values()), dict(model.named_parameters()), d, grid=3)
    assert line.losses.dtype == line.coordinates.dtype == dtype
    assert not line.losses.requires_grad
