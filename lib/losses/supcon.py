"""Supervised contrastive loss (Khosla et al., NeurIPS 2020, arXiv 2004.11362), with its two places for the average.

N = B V unit vectors z, V views of each of B samples; A(i) is everything but i itself, P(i) what shares the label of i
in A(i), and s_ij = z_i . z_j / tau::

    L_out = sum_i -1/|P(i)| sum_{p in P(i)} (s_ip - log sum_{a in A(i)} exp s_ia)                  (Eq. 2)
    L_in  = sum_i -log( 1/|P(i)| sum_{p in P(i)} exp s_ip / sum_{a in A(i)} exp s_ia )             (Eq. 3)

By Jensen's inequality L_in <= L_out.  With every sample a class of its own and two views both are the NT-Xent loss of
SimCLR (arXiv 2002.05709).  The denominator holds the positives too.

Choices: the mean over anchors instead of the sum, times tau / base_temperature as in the authors' code; an anchor
without positives (possible with one view only) does not count; a zero vector has similarity 0; float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.losses._blockwise import Number, log_sum_exp
from lib.losses._labelled import streamed_labelled
from lib.losses._streaming import DENSE, unit

__all__ = ["SupConLoss", "positive_gradient_norm", "supcon_anchor_loss", "supcon_loss"]


def supcon_loss(
    features: Tensor,
    labels: Tensor | None = None,
    temperature: Number = 0.07,
    base_temperature: Number = 0.07,
    mode: str = "out",
    block_size: int | None = None,
) -> Tensor:
    """Supervised contrastive loss of a batch with several views of each sample.

    Args:
        features: shape (B, V, d); normalised here.
        labels: shape (B,), compared for equality; None: every sample is a class of its own.
        temperature: tau > 0; a number, or a tensor of shape ().
        base_temperature: the loss is multiplied by temperature / base_temperature.
        mode: "out" averages over positives outside the logarithm, "in" inside.
        block_size: anchors at once; None: the plain formula up to 512 vectors, above them streamed in blocks, with
            memory linear in the batch (first derivatives only).

    Returns:
        Scalar, mean over anchors that have a positive; 0 (with gradient 0) if there are none.  NaN in the features
        gives NaN.

    Raises:
        ValueError: shapes do not fit, a temperature or block size that is not positive, or an unknown mode.
    """
    if mode not in ("out", "in"):
        raise ValueError(f"mode: 'out' or 'in', got {mode!r}")
    if features.ndim != 3 or (labels is not None and labels.shape != features.shape[:1]):
        given = None if labels is None else tuple(labels.shape)
        raise ValueError(f"expected features (B, V, d) and labels (B,), got {tuple(features.shape)} and {given}")
    if isinstance(temperature, (int, float)) and not temperature > 0:
        raise ValueError(f"temperature: above 0, got {temperature}")
    samples, views, _ = features.shape
    with torch.autocast(features.device.type, enabled=False):
        z = unit(features.flatten(0, 1))
        if len(z) == 0:
            return z.sum()
        y = torch.arange(samples, device=z.device) if labels is None else labels
        y = y.repeat_interleave(views)
        if block_size is not None or len(z) ** 2 > DENSE:
            loss = streamed_labelled(z, z, y, y, 1 / temperature, mode, own=True, block=block_size)
            return loss * (temperature / base_temperature)
        others = 1 - torch.eye(len(z), dtype=z.dtype, device=z.device)
        positive = (y[:, None] == y).to(z.dtype) * others
        loss = supcon_anchor_loss((z / temperature) @ z.T, positive, others, mode)
        anchors = positive.amax(1).sum().clamp(min=1)
        return loss.sum() / anchors * (temperature / base_temperature)


def supcon_anchor_loss(s: Tensor, positive: Tensor, others: Tensor, mode: str = "out") -> Tensor:
    """The loss of each anchor, from its similarities over the temperature.

    Args:
        s: similarities s_ia, shape (..., anchors, M).
        positive: 1 where a is in P(i), else 0; shape and dtype of s.
        others: 1 where a is in A(i), else 0; shape and dtype of s.
        mode: "out" or "in".

    Returns:
        Shape (..., anchors); 0 for an anchor without positives.

    Raises:
        ValueError: unknown mode.
    """
    count = positive.sum(-1)
    denominator = log_sum_exp(s, 1 - others)
    if mode == "out":
        matched = (s * positive).sum(-1) / count.clamp(min=1)
    elif mode == "in":
        matched = log_sum_exp(s, 1 - positive) - count.clamp(min=1).log()
    else:
        raise ValueError(f"mode: 'out' or 'in', got {mode!r}")
    return (denominator - matched) * (count > 0)


def positive_gradient_norm(
    s: Tensor, positive: Tensor, others: Tensor, temperature: Number, length: Tensor, mode: str = "out"
) -> Tensor:
    """Norm of what each positive adds to the gradient with respect to the anchor's unnormalised vector w.

    The closed form of Section 3.2.3 and its supplement: ``|P_ip - X_ip| sqrt(1 - cos^2) / (tau |w|)`` with
    P_ip the softmax of s over A(i), and X_ip = 1 / |P(i)| for "out" or the softmax over P(i) for "in".

    Args:
        s: similarities s_ia = cos / tau, shape (..., anchors, M).
        positive: as in `supcon_anchor_loss`.
        others: as in `supcon_anchor_loss`.
        temperature: tau.
        length: |w|, shape (..., anchors).
        mode: "out" or "in".

    Returns:
        Shape of s; 0 where there is no positive.
    """
    share = torch.exp(s - log_sum_exp(s, 1 - others)[..., None])
    if mode == "out":
        wanted = 1 / positive.sum(-1, keepdim=True).clamp(min=1)
    else:
        wanted = torch.exp(s - log_sum_exp(s, 1 - positive)[..., None])
    cosine = s * temperature
    sine = ((1 - cosine) * (1 + cosine)).clamp(min=0).sqrt()
    return positive * (share - wanted).abs() * sine / (temperature * length[..., None])


class SupConLoss(nn.Module):
    """`supcon_loss` as a module.

    Args:
        temperature: tau.
        base_temperature: see `supcon_loss`; pass the same value as `temperature` for the bare formula.
        mode: "out" or "in".
        block_size: see `supcon_loss`.

    Raises:
        ValueError: a temperature that is not positive, or an unknown mode.

    >>> z = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    >>> round(SupConLoss(1.0, 1.0)(z, torch.tensor([0, 0, 1, 1])).item(), 6)
    0.551445
    """

    def __init__(
        self,
        temperature: float = 0.07,
        base_temperature: float = 0.07,
        mode: str = "out",
        block_size: int | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0 or not base_temperature > 0:
            raise ValueError(f"temperatures: above 0, got {temperature} and {base_temperature}")
        if mode not in ("out", "in"):
            raise ValueError(f"mode: 'out' or 'in', got {mode!r}")
        self.temperature, self.base_temperature, self.mode = temperature, base_temperature, mode
        self.block_size = block_size

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Loss of features (B, V, d) with labels (B,): a scalar."""
        return supcon_loss(features, labels, self.temperature, self.base_temperature, self.mode, self.block_size)

    def extra_repr(self) -> str:
        """Shown by `print`."""
        return f"temperature={self.temperature}, base_temperature={self.base_temperature}, mode={self.mode!r}"
