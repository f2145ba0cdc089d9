r"""Loss-landscape slices with filter-normalised directions (Li et al. 2017, arXiv:1712.09913).

.. math::
    d_{i,j} \leftarrow \frac{d_{i,j}}{\lVert d_{i,j} \rVert} \lVert \theta_{i,j} \rVert, \qquad
    f(\alpha, \beta) = L(\theta^* + \alpha d_1 + \beta d_2)

with :math:`d` Gaussian, :math:`i` a layer and :math:`j` one of its filters: the pieces of a weight along its first
axis, rows of a linear layer or kernels of a convolution (Section 4 of the paper).  Biases and the parameters of
normalisation layers get direction zero.  All functions take a functional loss ``loss_of_params(params) -> scalar``
(`functional_loss` of `lib.metrics` makes one of a module) and work under `torch.func.vmap` over stacked networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from lib.metrics.curvature import Extremes, LossOfParams, Params, extreme_eigenvalues, flatten, unflatten

__all__ = [
    "CurvatureMap",
    "Slice",
    "Trajectory",
    "curvature_ratio_map",
    "filter_normalized_direction",
    "flatness",
    "gaussian_direction",
    "loss_slice",
    "normalise_direction",
    "trajectory_pca",
    "variance_share",
]

Normalise = Literal["filter", "layer", "none"]


class Slice(NamedTuple):
    """Coordinates (G,) and losses (G,), or (G, G) with the first axis along `d1`."""

    coordinates: Tensor
    losses: Tensor


class CurvatureMap(NamedTuple):
    """Coordinates (G,), and at each point (G, G) of the plane both ends of the Hessian's spectrum and their ratio."""

    coordinates: Tensor
    lambda_min: Tensor
    lambda_max: Tensor
    ratio: Tensor


class Trajectory(NamedTuple):
    """PCA of a path: unit directions, coordinates (n, 2) of its checkpoints, share (2,) of the variance on each."""

    d1: dict[str, Tensor]
    d2: dict[str, Tensor]
    coordinates: Tensor
    share: Tensor


def _params(network: Params | nn.Module) -> dict[str, Tensor]:
    if isinstance(network, nn.Module):
        return {name: value.detach() for name, value in network.named_parameters()}
    return dict(network)


def gaussian_direction(network: Params | nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Standard normal entries for every weight (two axes or more), zeros for biases and normalisation parameters.

    The numbers depend on generator and shapes alone, so two networks of one architecture can be given the same draw.
    Seed the generator differently from the network's initialisation: one seed gives both the same random numbers, and
    the direction is then correlated with the initial weights.
    """
    direction = {}
    for name, value in _params(network).items():
        if value.dim() > 1:
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype, device=generator.device)
            direction[name] = noise.to(value.device)
        else:
            direction[name] = torch.zeros_like(value)
    return direction


def normalise_direction(
    network: Params | nn.Module, direction: Params, normalise: Normalise = "filter"
) -> dict[str, Tensor]:
    """Give a direction the norms of the network (equation above); vectors (biases) keep the direction that they have.

    Args:
        network: module or parameters theta.
        direction: same names and shapes.
        normalise: ``filter``, one norm a filter; ``layer``, one norm a weight tensor; ``none``, unchanged.

    Returns:
        The direction; zero where the filter (layer) of the network is zero.

    Raises:
        ValueError: unknown `normalise`.
    """
    if normalise not in get_args(Normalise):
        raise ValueError(f"normalise: {normalise!r}, allowed: {', '.join(get_args(Normalise))}")
    scaled = {}
    for name, theta in _params(network).items():
        d = direction[name]
        if normalise != "none" and theta.dim() > 1:
            axes = tuple(range(1 if normalise == "filter" else 0, theta.dim()))
            norms = [torch.linalg.vector_norm(value, dim=axes, keepdim=True) for value in (theta, d)]
            d = d * (norms[0] / norms[1].clamp_min(torch.finfo(d.dtype).tiny))
        scaled[name] = d
    return scaled


def filter_normalized_direction(
    network: Params | nn.Module, generator: torch.Generator, normalise: Normalise = "filter"
) -> dict[str, Tensor]:
    """A random direction with the network's norm in every filter: `gaussian_direction`, then `normalise_direction`."""
    return normalise_direction(network, gaussian_direction(network, generator), normalise)


def _coordinates(grid: int, span: float, like: Tensor) -> Tensor:
    """`grid` points from -span to span; the middle one of an odd number is exactly 0, and so is a single one."""
    if grid < 1:
        raise ValueError(f"grid: {grid}, at least one point is needed")
    steps = torch.arange(1 - grid, grid, 2, dtype=like.dtype, device=like.device)
    return span * steps / max(grid - 1, 1)


def _point(params: Params, d1: Params, d2: Params | None, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    return {name: theta + a * d1[name] + (0 if d2 is None else b * d2[name]) for name, theta in params.items()}


def _plane(params: Params, d2: Params | None, grid: int, span: float) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of an axis, and those of all points of the line or plane (flat)."""
    axis = _coordinates(grid, span, next(iter(params.values())))
    if d2 is None:
        return axis, axis, torch.zeros_like(axis)
    a, b = torch.meshgrid(axis, axis, indexing="ij")
    return axis, a.reshape(-1), b.reshape(-1)


def loss_slice(
    loss_of_params: LossOfParams,
    params: Params,
    d1: Params,
    d2: Params | None = None,
    grid: int = 25,
    span: float = 1.0,
    chunk: int | None = 32,
) -> Slice:
    """The loss along a line ``L(theta + a d1)``, or on a plane ``L(theta + a d1 + b d2)``, a and b in [-span, span].

    Args:
        loss_of_params: scalar loss of a parameter dictionary.
        params: the point theta in the middle.
        d1: first direction, names and shapes of `params`.
        d2: second direction of a plane.
        grid: points an axis; an odd number contains theta itself.
        span: half the length of an axis, in units of the directions.
        chunk: how many points are evaluated as one batch (memory: that many copies of the parameters and activations).

    Returns:
        `Slice`; a loss that is not finite stays at its place.

    Raises:
        ValueError: `grid` below 1.
    """
    axis, a, b = _plane(params, d2, grid, span)
    with torch.no_grad():
        losses = torch.func.vmap(
            lambda a, b: loss_of_params(_point(params, d1, d2, a, b)), chunk_size=chunk, randomness="same"
        )(a, b)
    return Slice(axis, losses if d2 is None else losses.reshape(grid, grid))


def flatness(
    loss_of_params: LossOfParams,
    params: Params,
    directions: Sequence[Params],
    radius: float = 0.5,
    chunk: int | None = 16,
) -> Tensor:
    r"""Mean rise of the loss at distance r: :math:`\frac1{2K}\sum_k \sum_\pm L(\theta \pm r d_k) - L(\theta)`.

    Small is flat.  Comparable between networks where the directions carry the network's norms.

    Args:
        loss_of_params: scalar loss of a parameter dictionary.
        params: the minimiser theta.
        directions: K of them.
        radius: r, in units of the directions.
        chunk: how many directions are evaluated as one batch.

    Raises:
        ValueError: no direction.
    """
    if not directions:
        raise ValueError("directions: none given")
    stacked = {name: torch.stack([d[name] for d in directions]) for name in params}
    radii = _coordinates(2, radius, next(iter(params.values())))

    def rise(direction: Params, r: Tensor) -> Tensor:
        return loss_of_params(_point(params, direction, None, r, r))

    with torch.no_grad():
        both = torch.func.vmap(rise, in_dims=(None, 0), randomness="same")
        ends = torch.func.vmap(both, in_dims=(0, None), chunk_size=chunk, randomness="same")(stacked, radii)
        mean: Tensor = ends.mean()
        return mean - loss_of_params(dict(params))


def curvature_ratio_map(
    loss_of_params: LossOfParams,
    params: Params,
    d1: Params,
    d2: Params,
    grid: int = 3,
    span: float = 1.0,
    iterations: int = 30,
    chunk: int | None = None,
) -> CurvatureMap:
    r"""Non-convexity across a plane: :math:`|\lambda_{\min}/\lambda_{\max}|` of the *full* Hessian (Section 6).

    The two-dimensional picture can only hide negative curvature, never invent it: principal curvatures of the slice are
    weighted means of those of the full surface.  Near 0 the loss is close to convex at that point.

    Args:
        loss_of_params: scalar loss of a parameter dictionary.
        params: the point in the middle.
        d1: first direction.
        d2: second direction.
        grid: points an axis.
        span: half the length of an axis.
        iterations: Lanczos steps a point (see `extreme_eigenvalues`).
        chunk: points that are evaluated as one batch (None: all).

    Returns:
        `CurvatureMap`; NaN where the gradient is not finite or the Hessian is zero.
    """
    axis, a, b = _plane(params, d2, grid, span)

    def at(a: Tensor, b: Tensor) -> Extremes:
        return extreme_eigenvalues(loss_of_params, _point(params, d1, d2, a, b), iterations)

    ends = torch.func.vmap(at, chunk_size=chunk)(a, b)
    low, high = ends.lambda_min.reshape(grid, grid), ends.lambda_max.reshape(grid, grid)
    return CurvatureMap(axis, low, high, (low / high).abs())


def _path(checkpoints: Sequence[Params]) -> Tensor:
    """Displacements from the last checkpoint, centred: (n, P)."""
    if len(checkpoints) < 3:
        raise ValueError(f"a plane needs at least 3 checkpoints, got {len(checkpoints)}")
    path = torch.stack([flatten(checkpoint) for checkpoint in checkpoints])
    path = path - path[-1]
    return path - path.mean(dim=0)


def trajectory_pca(checkpoints: Sequence[Params]) -> Trajectory:
    r"""The plane that holds most of an optimisation path: PCA of :math:`\theta_i - \theta_n` (Section 7).

    Args:
        checkpoints: parameters along the path, in order; the last is the origin of the coordinates.

    Returns:
        `Trajectory`; each direction points so that the path starts on its positive side.  Shares are NaN where the path
        does not move.

    Raises:
        ValueError: fewer than 3 checkpoints.
    """
    path = _path(checkpoints)
    _, singular, directions = torch.linalg.svd(path, full_matrices=False)
    coordinates = (path - path[-1]) @ directions[:2].T
    sign = torch.where(coordinates[0] < 0, -1.0, 1.0).to(path.dtype)
    share = singular.square() / singular.square().sum()
    first, second = (unflatten(sign[k] * directions[k], checkpoints[-1]) for k in (0, 1))
    return Trajectory(first, second, coordinates * sign, share[:2])


def variance_share(checkpoints: Sequence[Params], directions: Sequence[Params]) -> Tensor:
    """Share of a path's variance inside the span of the given directions (a scalar in [0, 1]), e.g. of a random plane.

    Raises:
        ValueError: fewer than 3 checkpoints.
    """
    path = _path(checkpoints)
    names = list(checkpoints[-1])
    basis = torch.linalg.qr(torch.stack([flatten({name: d[name] for name in names}) for d in directions], dim=1)).Q
    inside: Tensor = (path @ basis).square().sum()
    return inside / path.square().sum()
