"""Circle loss (Sun et al., CVPR 2020, arXiv 2002.10857), and the unified loss that it re-weights.

For one anchor with similarities s_p^i to its positives and s_n^j to its negatives::

    L = log(1 + sum_j exp(gamma alpha_n^j (s_n^j - Delta_n)) * sum_i exp(-gamma alpha_p^i (s_p^i - Delta_p)))   (Eq. 6)
    alpha_p^i = [O_p - s_p^i]_+,  alpha_n^j = [s_n^j - O_n]_+,  taken as constants in the gradient              (Eq. 5)
    O_p = 1 + m,  O_n = -m,  Delta_p = 1 - m,  Delta_n = m

With all alpha = 1 and one margin it is the unified loss (Eq. 1), AM-Softmax or CosFace with class labels::

    L_uni = log(1 + sum_ij exp(gamma (s_n^j - s_p^i + m)))

An anchor without a positive or without a negative has L = log(1 + 0) = 0 and does not count in the mean.

Choices: similarities and sums are float32 at least (under bf16 and autocast too); the mean runs over anchors that have
a positive and a negative; a zero vector is similar to nothing (s = 0).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lib.losses._blockwise import Exponent, Number, log_sum_exp, softplus, streamed_pair_loss

__all__ = [
    "CircleClassifier",
    "CircleLoss",
    "UnifiedClassifier",
    "UnifiedLoss",
    "circle_class_loss",
    "circle_loss",
    "circle_pair_loss",
    "unified_class_loss",
    "unified_loss",
    "unified_pair_loss",
]

DENSE = 256
"""Up to this batch size the plain formula is used unless the caller names a block size."""


def circle_exponent(t: Tensor, m: Number, gamma: Number) -> tuple[Tensor, Tensor]:
    """gamma alpha (t - m) with alpha = [t + m]_+ held fixed, and its derivative.

    With t = s_n for a negative and t = 1 - s_p for a positive, the distances from
    the ideal, alpha_n (s_n - Delta_n) and -alpha_p (s_p - Delta_p) are alike.
    """
    slope = gamma * (t + m).clamp(min=0).detach()
    return slope * (t - m), slope


def unified_exponent(t: Tensor, m: Number, gamma: Number) -> tuple[Tensor, Number]:
    """gamma (t - (1 - m) / 2) and gamma: a negative and a positive together give gamma (s_n - s_p + m)."""
    return gamma * (t - (1 - m) / 2), gamma


def _anchor_loss(
    exponent: Exponent, s: Tensor, positive: Tensor, negative: Tensor | None, m: Number, gamma: Number
) -> Tensor:
    p = positive.to(s.dtype)
    n = 1 - p if negative is None else negative.to(s.dtype)
    f, _ = exponent(p + (1 - 2 * p) * s, m, gamma)  # t without `torch.where`, which is slow on a CPU
    return softplus(log_sum_exp(f, 1 - n) + log_sum_exp(f, 1 - p))


def circle_loss(
    s: Tensor, positive: Tensor, negative: Tensor | None = None, m: Number = 0.25, gamma: Number = 256.0
) -> Tensor:
    """Circle loss of every anchor, from its similarities (Eq. 6).

    Args:
        s: similarities, shape (..., anchors, others).
        positive: boolean mask of the same shape.
        negative: boolean mask of the same shape; None: all that are not positive.
        m: relaxation margin in (0, 1); the boundary is a circle of radius sqrt(2) m around (s_n, s_p) = (0, 1).
        gamma: scale > 0.

    Returns:
        Shape (..., anchors); 0 for an anchor without positives or without negatives.
    """
    return _anchor_loss(circle_exponent, s, positive, negative, m, gamma)


def unified_loss(
    s: Tensor, positive: Tensor, negative: Tensor | None = None, m: Number = 0.25, gamma: Number = 80.0
) -> Tensor:
    """Unified loss of every anchor, from its similarities (Eq. 1); arguments as in `circle_loss`."""
    return _anchor_loss(unified_exponent, s, positive, negative, m, gamma)


def _unit(x: Tensor) -> Tensor:
    return normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)


def _check(embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        shapes = f"{tuple(embeddings.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"expected embeddings of shape (N, d) and labels of shape (N,), got {shapes}")


def _pair_loss(
    exponent: Exponent, embeddings: Tensor, labels: Tensor, m: Number, gamma: Number, block: int | None
) -> Tensor:
    _check(embeddings, labels)
    if block is not None and block < 1:
        raise ValueError(f"block_size must be positive, got {block}")
    with torch.autocast(embeddings.device.type, enabled=False):
        x = _unit(embeddings)
        if len(x) == 0:
            return x.sum()
        if block is not None or len(x) > DENSE:
            return streamed_pair_loss(x, labels, exponent, m, gamma, block)
        same = labels[:, None] == labels
        positive = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        anchors = (positive.any(-1) & ~same.all(-1)).sum()
        return _anchor_loss(exponent, x @ x.T, positive, ~same, m, gamma).sum() / anchors.clamp(min=1)


def circle_pair_loss(
    embeddings: Tensor, labels: Tensor, m: Number = 0.25, gamma: Number = 256.0, block_size: int | None = None
) -> Tensor:
    """Circle loss with pair-wise labels: every sample is an anchor, same label makes a positive pair.

    Args:
        embeddings: shape (N, d); normalised here.
        labels: shape (N,), compared for equality.
        m: relaxation margin; the paper takes 0.25 for faces and re-identification, 0.4 for retrieval.
        gamma: scale; the paper takes 256 for faces, 128 for re-identification, 80 for retrieval.
        block_size: anchors handled at once by the streamed evaluation, whose memory is O(N d + N block_size) and which
            has no second derivative; None: the plain formula up to 256 samples, streamed above.

    Returns:
        Scalar, mean over anchors that have a positive and a negative; 0 (with gradient 0) if there are none.
        NaN in the embeddings gives NaN.

    Raises:
        ValueError: shapes do not fit, or the block size is not positive.
    """
    return _pair_loss(circle_exponent, embeddings, labels, m, gamma, block_size)


def unified_pair_loss(
    embeddings: Tensor, labels: Tensor, m: Number = 0.25, gamma: Number = 80.0, block_size: int | None = None
) -> Tensor:
    """Unified loss (Eq. 1) with pair-wise labels; arguments, result and errors as in `circle_pair_loss`."""
    return _pair_loss(unified_exponent, embeddings, labels, m, gamma, block_size)


def _class_loss(
    exponent: Exponent, embeddings: Tensor, labels: Tensor, weight: Tensor, m: Number, gamma: Number
) -> Tensor:
    _check(embeddings, labels)
    with torch.autocast(embeddings.device.type, enabled=False):
        s = _unit(embeddings) @ _unit(weight).T
        positive = torch.zeros_like(s, dtype=torch.bool).scatter(-1, labels[:, None], True)
        return _anchor_loss(exponent, s, positive, None, m, gamma).sum() / max(1, len(labels))


def circle_class_loss(
    embeddings: Tensor, labels: Tensor, weight: Tensor, m: Number = 0.25, gamma: Number = 256.0
) -> Tensor:
    """Circle loss with class-level labels: similarity to the own class vector against those to the other classes.

    Args:
        embeddings: shape (N, d); normalised here.
        labels: shape (N,), integers in [0, C).
        weight: class vectors, shape (C, d); normalised here.
        m: relaxation margin.
        gamma: scale.

    Returns:
        Scalar, mean over the batch (0 for an empty one).

    Raises:
        ValueError: shapes do not fit.
        RuntimeError: a label out of range.
    """
    return _class_loss(circle_exponent, embeddings, labels, weight, m, gamma)


def unified_class_loss(
    embeddings: Tensor, labels: Tensor, weight: Tensor, m: Number = 0.25, gamma: Number = 80.0
) -> Tensor:
    """Unified loss with class-level labels, which is AM-Softmax or CosFace (Eq. 2); see `circle_class_loss`."""
    return _class_loss(unified_exponent, embeddings, labels, weight, m, gamma)


class CircleLoss(nn.Module):
    """Circle loss for pair-wise labels as a module; see `circle_pair_loss` (m=0.4, gamma=80 suit retrieval)."""

    formula = staticmethod(circle_pair_loss)

    def __init__(self, m: float = 0.25, gamma: float = 256.0, block_size: int | None = None) -> None:
        super().__init__()
        self.m, self.gamma, self.block_size = m, gamma, block_size

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of embeddings (N, d) with labels (N,): a scalar."""
        return self.formula(embeddings, labels, self.m, self.gamma, self.block_size)

    def extra_repr(self) -> str:
        """Shown by `print`."""
        return f"m={self.m}, gamma={self.gamma}"


class UnifiedLoss(CircleLoss):
    """Unified loss for pair-wise labels as a module; see `unified_pair_loss`."""

    formula = staticmethod(unified_pair_loss)


class CircleClassifier(nn.Module):
    """Class vectors with the circle loss; the class-label form (see `circle_class_loss`).

    Args:
        in_dim: dimension d of the embeddings.
        n_classes: number of classes C.
        m: relaxation margin.
        gamma: scale.
    """

    formula = staticmethod(circle_class_loss)

    def __init__(self, in_dim: int, n_classes: int, m: float = 0.25, gamma: float = 256.0) -> None:
        super().__init__()
        self.m, self.gamma = m, gamma
        self.weight = nn.Parameter(torch.randn(n_classes, in_dim))  # only its direction matters: uniform on the sphere

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of embeddings (N, d) with integer labels (N,): a scalar."""
        return self.formula(embeddings, labels, self.weight, self.m, self.gamma)

    def similarity(self, embeddings: Tensor) -> Tensor:
        """Cosine similarity to every class, shape (N, C); its argmax is the predicted class."""
        return _unit(embeddings) @ _unit(self.weight).T

    def extra_repr(self) -> str:
        """Shown by `print`."""
        return f"in_dim={self.weight.shape[1]}, n_classes={self.weight.shape[0]}, m={self.m}, gamma={self.gamma}"


class UnifiedClassifier(CircleClassifier):
    """Class vectors with the unified loss: AM-Softmax or CosFace; see `unified_class_loss`."""

    formula = staticmethod(unified_class_loss)
