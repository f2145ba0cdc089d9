"""Decoupled contrastive learning (Yeh et al., ECCV 2022, arXiv 2110.06848): no positive in the denominator.

Two views z^(1), z^(2) of N samples, normalised; anchor z_i^(k), positive the other view of i, s = z . z' / tau::

    L_DC  = -s(z_i^(1), z_i^(2)) + log U_ik,   U_ik = sum_{l in {1, 2}} sum_{j != i} exp s(z_i^(k), z_j^(l))
    L_DCW = -w_i s(z_i^(1), z_i^(2)) + log U_ik
    w_i   = 2 - exp(c_i / sigma) / mean_j exp(c_j / sigma),   c_i = z_i^(1) . z_i^(2),   no gradient

InfoNCE keeps the positive in the sum, and all its gradients carry the factor 1 - softmax(positive): easy positives
switch off the negatives too.  L_InfoNCE = log(1 + exp L_DC) per anchor.

Choices: mean over both views and the batch; float32 at least; above 512 vectors the similarities are streamed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.losses._blockwise import Number
from lib.losses._streaming import unit, weighted_log_sum_exp

__all__ = ["DCLLoss", "DCLWLoss", "dcl_loss", "dcl_weights"]

Weights = Callable[[Tensor, Tensor], Tensor]
"""``weights(z1, z2) -> (N,)`` of the positives, from unit vectors."""


def dcl_loss(
    z1: Tensor, z2: Tensor, temperature: Number = 0.1, weights: Weights | None = None, block_size: int | None = None
) -> Tensor:
    """Decoupled contrastive loss of two views.

    Args:
        z1: embeddings of the first view, (N, d); normalised here.
        z2: of the second view, (N, d).
        temperature: tau > 0; a tensor of shape () gets a gradient.
        weights: of the positives, taken as constants; None: all 1.
        block_size: anchors at once; None: the plain formula for small batches, streamed above.

    Returns:
        Scalar, the mean over 2N anchors.

    Raises:
        ValueError: shapes differ, fewer than two samples (U is empty), or a temperature or block size not above 0.
    """
    if z1.ndim != 2 or z1.shape != z2.shape or len(z1) < 2:
        raise ValueError(f"expected two views (N, d) with N >= 2, got {tuple(z1.shape)} and {tuple(z2.shape)}")
    if isinstance(temperature, (int, float)) and not temperature > 0:
        raise ValueError(f"temperature: above 0, got {temperature}")
    with torch.autocast(z1.device.type, enabled=False):
        first, second = unit(z1), unit(z2)
        z = torch.cat([first, second])
        share = z.new_full((len(z),), 1 / len(z))
        terms = weighted_log_sum_exp(z, z, {"unpaired": share}, scale=1 / temperature, block=block_size)
        matched = (first * second).sum(1)
        if weights is not None:
            matched = matched * weights(first.detach(), second.detach())
        return terms - matched.mean() / temperature


def dcl_weights(z1: Tensor, z2: Tensor, sigma: float = 0.5) -> Tensor:
    """w of DCLW: below 1 for positives that are alike already, above for those that are not; its mean is 1.

    Args:
        z1: unit vectors, (N, d).
        z2: unit vectors, (N, d).
        sigma: concentration of the von Mises-Fisher weights, > 0; w tends to 1 for large sigma.

    Returns:
        Shape (N,).
    """
    return 2 - len(z1) * torch.softmax((z1 * z2).sum(1) / sigma, 0)


class DCLLoss(nn.Module):
    """`dcl_loss` as a module.

    Args:
        temperature: tau.
        weight_fn: weights of the positives from unit vectors; None: all 1.
        block_size: see `dcl_loss`.

    Raises:
        ValueError: a temperature that is not positive.

    >>> z = torch.eye(2)
    >>> round(DCLLoss(1.0)(z, z).item(), 6)
    -0.306853
    """

    def __init__(
        self, temperature: float = 0.1, weight_fn: Weights | None = None, block_size: int | None = None
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature: above 0, got {temperature}")
        self.temperature, self.weight_fn, self.block_size = temperature, weight_fn, block_size

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Loss of two views (N, d), (N, d): a scalar."""
        return dcl_loss(z1, z2, self.temperature, self.weight_fn, self.block_size)

    def extra_repr(self) -> str:
        """Shown by `print`."""
        return f"temperature={self.temperature}, block_size={self.block_size}"


class DCLWLoss(DCLLoss):
    """DCL with the weights of `dcl_weights`.

    Args:
        temperature: tau.
        sigma: see `dcl_weights`.
        block_size: see `dcl_loss`.

    Raises:
        ValueError: a temperature or sigma that is not positive.
    """

    def __init__(self, temperature: float = 0.1, sigma: float = 0.5, block_size: int | None = None) -> None:
        if not sigma > 0:
            raise ValueError(f"sigma: above 0, got {sigma}")
        super().__init__(temperature, lambda z1, z2: dcl_weights(z1, z2, sigma), block_size)
