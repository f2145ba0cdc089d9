"""Curvature of a loss without ever forming its Hessian: products, power iteration, Lanczos.

Everything here takes a *functional* loss ``loss_of_params(params) -> scalar`` with ``params`` a dictionary of tensors,
so that one function serves a network, a block of it, or a toy.  Iteration counts are fixed and no step depends on data
in Python, hence all of it works under `torch.func.vmap`, over seeds or over points of a plane::

    def one(params, x, y):
        return extreme_eigenvalues(lambda p: loss(functional_call(model, p, (x,)), y), params)

    lambda_min, lambda_max, residual = torch.func.vmap(one)(stacked_params, xs, ys)

A Hessian-vector product (Pearlmutter 1994) is the gradient of gradient times vector: two backward passes, of which the
iterations here repeat only the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "Extremes",
    "extreme_eigenvalues",
    "flatten",
    "functional_loss",
    "hvp",
    "hvp_operator",
    "top_eigenvalue",
    "unflatten",
]

Params = Mapping[str, Tensor]
LossOfParams = Callable[[dict[str, Tensor]], Tensor]


class Extremes(NamedTuple):
    """Smallest and largest eigenvalue (scalars), and a bound on the distance of both to an eigenvalue of H."""

    lambda_min: Tensor
    lambda_max: Tensor
    residual: Tensor


def functional_loss(model: nn.Module, loss: Callable[..., Tensor], *data: Any) -> LossOfParams:
    """The loss of `model` as a function of its parameters alone: ``params -> loss(model(x; params), y)``.

    Args:
        model: gives architecture and buffers; its own parameters are not used.
        loss: ``loss(output, *targets) -> scalar``.
        data: the input, then what `loss` takes after the output.
    """
    inputs, *targets = data

    def loss_of_params(params: dict[str, Tensor]) -> Tensor:
        return loss(torch.func.functional_call(model, params, (inputs,)), *targets)

    return loss_of_params


def flatten(params: Params) -> Tensor:
    """All parameters as one vector of shape (P,), in the order of the mapping."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, like: Params) -> dict[str, Tensor]:
    """The inverse of `flatten`: pieces of `vector` with the names and shapes of `like`.

    Raises:
        ValueError: the number of entries differs.
    """
    sizes = [value.numel() for value in like.values()]
    if vector.numel() != sum(sizes):
        raise ValueError(f"a vector of {vector.numel()} entries for {sum(sizes)} parameters")
    pieces = torch.split(vector, sizes)
    return {name: piece.reshape(value.shape) for (name, value), piece in zip(like.items(), pieces, strict=True)}


def hvp_operator(loss_of_params: LossOfParams, params: Params) -> Callable[[Params], dict[str, Tensor]]:
    """The map v -> H v at fixed `params`; the gradient is recorded once, each product is a backward pass through it."""
    product: Any = torch.func.vjp(torch.func.grad(loss_of_params), dict(params))[1]

    def apply(vector: Params) -> dict[str, Tensor]:
        result: dict[str, Tensor] = product({name: vector[name] for name in params})[0]
        return result

    return apply


def hvp(loss_of_params: LossOfParams, params: Params, vector: Params) -> dict[str, Tensor]:
    """Hessian-vector product H v at `params`; `vector` has the names and shapes of `params`."""
    return hvp_operator(loss_of_params, params)(vector)


def _start(params: Params, start: Params | None, seed: int) -> Tensor:
    """Unit start vector: `start`, or Gaussian from `seed` (numpy's generator, so that it is a constant under vmap)."""
    if start is not None:
        vector = flatten({name: start[name] for name in params})
    else:
        one = next(iter(params.values()))
        size = sum(value.numel() for value in params.values())
        vector = torch.from_numpy(np.random.default_rng(seed).standard_normal(size)).to(one.device, one.dtype)
    unit: Tensor = vector / vector.norm()
    return unit


def top_eigenvalue(
    loss_of_params: LossOfParams, params: Params, iterations: int = 50, start: Params | None = None, seed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""The eigenvalue of largest magnitude and its unit eigenvector, by power iteration.

    :math:`v \leftarrow H v / \lVert H v \rVert`; the value is the Rayleigh quotient :math:`v^\top H v` of the last
    iterate but one, so that `iterations` products are spent.  Its error shrinks by
    :math:`(\lambda_2/\lambda_1)^2` each time.  The sign is kept: where the Hessian is more negative than positive, the
    value is negative; `extreme_eigenvalues` separates the two ends and converges faster.

    Args:
        loss_of_params: scalar loss of a parameter dictionary.
        params: where to take the Hessian; every floating dtype, float64 for more than about five digits.
        iterations: number of Hessian-vector products, at least 1.
        start: start vector (default: Gaussian from `seed`), e.g. the eigenvector of a nearby point.
        seed: of the start vector.

    Returns:
        The eigenvalue (scalar tensor) and its eigenvector, a dictionary like `params`.  A zero Hessian gives 0; a
        gradient that is not finite gives NaN.

    Raises:
        ValueError: `iterations` below 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations: {iterations}, at least 1 is needed")
    vector = _start(params, start, seed)
    value, apply = vector.new_zeros(()), hvp_operator(loss_of_params, params)
    for _ in range(iterations):
        product = flatten(apply(unflatten(vector, params)))
        value, norm = vector @ product, product.norm()
        vector = torch.where(norm > 0, product / norm.clamp_min(torch.finfo(norm.dtype).tiny), vector)
    return value, unflatten(vector, params)


def extreme_eigenvalues(
    loss_of_params: LossOfParams, params: Params, iterations: int = 30, start: Params | None = None, seed: int = 0
) -> Extremes:
    r"""Both ends of the spectrum of the Hessian by Lanczos with full reorthogonalisation.

    With :math:`Q_k` an orthonormal basis of the Krylov space of the start vector, the extreme eigenvalues of the
    tridiagonal :math:`T_k = Q_k^\top H Q_k` approach those of H from inside (so that :math:`\lambda_{\max}` is never
    over-estimated, up to rounding).  A Ritz pair :math:`(\mu, s)` of :math:`T_k` lies within :math:`|\beta_k s_k|` of
    an eigenvalue of H; the larger of the two bounds is returned as `residual`.

    Args:
        loss_of_params: scalar loss of a parameter dictionary.
        params: where to take the Hessian.
        iterations: number of Hessian-vector products k, cut to the number of parameters (then the result is exact).
        start: start vector (default: Gaussian from `seed`).
        seed: of the start vector.

    Returns:
        `Extremes` of scalar tensors.  A gradient that is not finite gives NaN (other points of a vmap are untouched).

    Raises:
        ValueError: `iterations` below 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations: {iterations}, at least 1 is needed")
    q = _start(params, start, seed)
    alive = torch.ones((), dtype=torch.bool, device=q.device)
    apply = hvp_operator(loss_of_params, params)
    alphas, betas = list[Tensor](), list[Tensor]()
    steps = min(iterations, q.numel())
    for step in range(steps):
        w = flatten(apply(unflatten(q, params)))
        if step == 0:
            basis = w.new_zeros(steps, q.numel())  # from w: under vmap the start may be the same for all, w never is
        basis[step] = q
        # After a breakdown (the Krylov space is exhausted) q is zero.  The empty rows of T then hold the first Rayleigh
        # quotient, which lies between the ends of the spectrum that was found.
        alphas.append(torch.where(alive, q @ w, alphas[0] if step else q @ w))
        span = basis[: step + 1]
        for _ in range(2):  # once is not enough in floating point, twice is
            w = w - (span @ w) @ span
        beta = w.norm()
        scale = torch.stack([*(alpha.abs() for alpha in alphas), *betas]).amax()
        alive = alive & ~(beta <= 10 * torch.finfo(beta.dtype).eps * scale)  # a NaN stays alive and shows in the result
        betas.append(torch.where(alive, beta, torch.zeros_like(beta)))
        q = torch.where(alive, w / beta.clamp_min(torch.finfo(beta.dtype).tiny), torch.zeros_like(w))
    tridiagonal = torch.diag(torch.stack(alphas))
    if len(alphas) > 1:
        off = torch.diag(torch.stack(betas[:-1]), 1)
        tridiagonal = tridiagonal + off + off.transpose(-1, -2)
    finite = tridiagonal.isfinite().all()
    ritz, vectors = torch.linalg.eigh(torch.where(finite, tridiagonal, torch.zeros_like(tridiagonal)))
    residual = betas[-1] * torch.maximum(vectors[-1, 0].abs(), vectors[-1, -1].abs())
    nan = torch.full_like(ritz[0], torch.nan)
    return Extremes(*(torch.where(finite, value, nan) for value in (ritz[0], ritz[-1], residual)))
