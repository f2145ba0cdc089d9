r"""Saddle points of the tail classes' losses, and what SAM does at them (Rangwani et al. 2022, arXiv:2212.13827).

With L_k(w) the mean training loss of class k and H_k its Hessian, ``|lambda_min / lambda_max|`` of H_k says how much of
a saddle w is for that class.  SAM's gradient at w, linearised, and its part along a unit eigenvector v of the Hessian,
H v = lambda v, are::

    g_SAM = grad L(w + rho g / |g|) = (I + rho H / |g|) g + O(rho^2),     v . g_SAM = (1 + rho lambda / |g|) v . g

exact on a quadratic.  The paper bounds the second moment of v . g_SAM from below by that of v . g and a factor in which
rho multiplies lambda_min, and concludes that a large rho escapes faster.  The factor above begins at 1 and falls: with
``u = rho |lambda| / |g|`` it is 1 - u, a *shrunken* step for u < 2, towards the saddle for u > 1, and larger in size
than the plain one only for u > 2.

The training itself is `lib.trainers.train_deferred` with `lib.optim.sam_gradient`, the loss `lib.losses.vs_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.metrics.curvature import extreme_eigenvalues, functional_loss
from lib.optim.sam import sam_gradient

__all__ = ["ClassCurvature", "class_curvature", "descend_saddle", "escape_factor"]


class ClassCurvature(NamedTuple):
    """What the loss of each class looks like at the end of S runs; every field has shape (S, K).

    Attributes:
        lambda_min: smallest Hessian eigenvalue.
        lambda_max: largest.
        gradient_norm: length of the gradient of the class's loss.
        loss: mean training loss of the class.
    """

    lambda_min: Tensor
    lambda_max: Tensor
    gradient_norm: Tensor
    loss: Tensor

    def ratio(self) -> Tensor:
        """``|lambda_min / lambda_max|``; 0 where no eigenvalue is negative."""
        return self.lambda_min.clamp(max=0).abs() / self.lambda_max.abs()


def class_curvature(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    parameters: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    classes: Sequence[int],
    steps: int = 30,
) -> ClassCurvature:
    """Extreme Hessian eigenvalues of the loss of single classes, by Lanczos, for all runs at once.

    Args:
        network: gives the architecture.
        loss: ``loss(output, y)``, a mean.
        parameters: of S trained runs, each tensor (S, ...).
        x: training inputs, shape (S, N, ...).
        y: their labels, shape (N,): the same positions hold the same classes in every run.
        classes: K classes to look at.
        steps: Lanczos iterations.

    Raises:
        ValueError: a class without a sample.
    """
    found = []
    for k in classes:
        rows = torch.nonzero(y == k).flatten()
        if len(rows) == 0:
            raise ValueError(f"no sample of class {k}")

        def of_one(w: dict[str, Tensor], x: Tensor, label: Tensor) -> tuple[Tensor, ...]:
            of_class = functional_loss(network, loss, x, label)
            ends = extreme_eigenvalues(of_class, w, steps)
            grads, value = torch.func.grad_and_value(of_class)(w)
            norm = torch.cat([grad.flatten() for grad in grads.values()]).norm()
            return ends.lambda_min, ends.lambda_max, norm, value

        home = next(iter(parameters.values())).device
        inputs, label = x[:, rows].to(home), y[rows].to(home)
        found.append(torch.func.vmap(of_one, in_dims=(0, 0, None))(dict(parameters), inputs, label))
    return ClassCurvature(*(torch.stack(column, dim=1).cpu() for column in zip(*found, strict=True)))


def escape_factor(eigenvalue: Tensor, gradient_norm: Tensor, rho: float | Tensor) -> Tensor:
    """``1 + rho lambda / |g|``: SAM's component along an eigenvector over that of the plain gradient.

    Args:
        eigenvalue: lambda, any shape.
        gradient_norm: of the plain gradient, above 0, broadcastable.
        rho: radius, at least 0.

    >>> escape_factor(torch.tensor(-0.1), torch.tensor(1.0), 0.5).item()
    0.949999988079071
    """
    return 1 + rho * eigenvalue / gradient_norm


def descend_saddle(curvatures: Tensor, start: Tensor, rho: float | Tensor, lr: float, steps: int) -> Tensor:
    """Path of w <- w - lr g_SAM(w) on the quadratic 1/2 sum_i curvatures_i w_i^2; rho = 0 is gradient descent.

    Args:
        curvatures: shape (P,); negative ones make a saddle at 0.
        start: shape (P,).
        rho: radius.
        lr: learning rate.
        steps: T.

    Returns:
        Shape (T + 1, P), the start first.
    """

    def quadratic(at: dict[str, Tensor]) -> Tensor:
        return 0.5 * (curvatures * at["w"] ** 2).sum()

    path = [start]
    for _ in range(steps):
        path.append(path[-1] - lr * sam_gradient(quadratic, {"w": path[-1]}, rho)[0]["w"])
    return torch.stack(path)
