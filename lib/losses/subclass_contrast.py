r"""Subclass-balancing contrastive learning, SBCL (Hou, Zhang, Wang, Zhou 2023, arXiv:2306.15925).

Classes are split into subclasses about as large as the rarest class (`lib.trainers.subclass_assign`).  For 2N unit
vectors z (two views of each sample), with s_ij = z_i . z_j and A(i) everything but i::

    L_i = -1/|M_i| sum_{j in M_i} log ( exp(s_ij/tau1) / sum_{a in A(i)} exp(s_ia/tau1) )
          - beta 1/|P_i| sum_{j in P_i} log ( exp(s_ij/tau2) / sum_{a in D_i} exp(s_ia/tau2) )

M_i are the views of the same subclass; P_i those of the same class but another subclass, and the other view of i; D_i
those outside the subclass, and the other view of i.  tau2 depends on the class, by how concentrated its features are.
The first term is the supervised contrastive loss of the subclasses; with one subclass a class and beta = 0, that of the
classes.

Choices: the second denominator is the one of the official code (its default training rule), which drops the own
subclass but for the other view; the official factor tau1 / 0.07 of the first term is `base_temperature`.

Also here: k-positive contrastive learning, KCL (Kang et al. 2021), SupCon with at most k positives of the class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lib.losses.supcon import supcon_anchor_loss

__all__ = ["SBCLLoss", "kcl_loss", "sbcl_loss"]

Number = float | Tensor


def sbcl_loss(
    features: Tensor,
    labels: Tensor,
    subclasses: Tensor,
    tau1: Number = 0.1,
    tau2: Number | None = None,
    beta: Number = 0.25,
    base_temperature: Number | None = None,
) -> Tensor:
    """SBCL of a batch with two views of each sample; works under `torch.func.vmap`.

    Args:
        features: shape (B, 2, d), normalised here.
        labels: classes, shape (B,), compared for equality.
        subclasses: shape (B,), likewise; samples of one subclass must share their class.
        tau1: temperature of the first term.
        tau2: of the second, for all or of each sample's class (B,); None: tau1.
        beta: weight of the second term; 0 leaves SupCon of the subclasses.
        base_temperature: the first term is multiplied by tau1 / base_temperature (official code: 0.07); None: by 1.

    Returns:
        Scalar, mean over the 2B anchors; 0 for an empty batch, NaN for a NaN feature.

    Raises:
        ValueError: shapes do not fit.
    """
    s, same_class, other_view, others = _pairs(features, labels)
    if not len(s):
        return features.sum()
    both = subclasses.repeat(2)
    same = (both[:, None] == both).to(s) * others
    first = supcon_anchor_loss(s / tau1, same, others)
    if base_temperature is not None:
        first = first * (tau1 / base_temperature)
    second_tau = tau1 if tau2 is None else tau2
    if isinstance(second_tau, Tensor) and second_tau.ndim == 1:
        second_tau = second_tau.repeat(2)[:, None]
    # M_i and P_i, D_i overlap in the other view of i only.
    outside = others * (1 - same) + other_view
    second = supcon_anchor_loss(s / second_tau, same_class * outside, outside)
    return (first + beta * second).mean()


def kcl_loss(features: Tensor, labels: Tensor, priority: Tensor, tau: Number = 0.1, k: int = 6) -> Tensor:
    """SupCon with the other view and at most k further positives of the class for each anchor.

    Args:
        features: shape (B, 2, d), normalised here.
        labels: shape (B,).
        priority: random numbers in [0, 1), shape (B,), from which each anchor's choice follows (so that it works under
            `torch.func.vmap`); draw new ones from time to time.
        tau: temperature.
        k: positives besides the other view; from the batch size on it is SupCon.

    Returns:
        Scalar, as `sbcl_loss`.

    Raises:
        ValueError: shapes do not fit, or k below 0.
    """
    if k < 0:
        raise ValueError(f"k: at least 0, got {k}")
    s, same_class, other_view, others = _pairs(features, labels)
    if not len(s):
        return features.sum()
    further = same_class * (1 - other_view)
    u = torch.cat([priority, (priority + 0.381966) % 1])
    draw = torch.where(further > 0, (137.0 * u[:, None] + 61.0 * u) % 1, torch.inf)
    if k == 0:
        chosen = torch.zeros_like(further)
    else:
        last = draw.sort(-1).values[:, min(k, draw.shape[-1]) - 1 : min(k, draw.shape[-1])]
        chosen = further * (draw <= last)
    return supcon_anchor_loss(s / tau, chosen + other_view, others).mean()


def _pairs(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cosines (2B, 2B), views in turn, and three masks: same class, the other view, and everything but oneself."""
    if features.ndim != 3 or features.shape[1] != 2 or labels.shape != features.shape[:1]:
        shapes = f"{tuple(features.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"expected features (B, 2, d) and labels (B,), got {shapes}")
    z = normalize(features.transpose(0, 1).flatten(0, 1), dim=-1)
    s, y = z @ z.T, labels.repeat(2)
    eye = torch.eye(len(z), dtype=s.dtype, device=s.device)
    others = 1 - eye
    return s, (y[:, None] == y).to(s) * others, eye.roll(len(labels), 0), others


class SBCLLoss(nn.Module):
    """`sbcl_loss` as a module.

    Args:
        tau1: temperature.
        beta: weight of the second term.
        base_temperature: see `sbcl_loss`.

    Raises:
        ValueError: tau1 not positive, or beta negative.
    """

    def __init__(self, tau1: float = 0.1, beta: float = 0.25, base_temperature: float | None = None) -> None:
        super().__init__()
        if not tau1 > 0 or not beta >= 0:
            raise ValueError(f"tau1 above 0 and beta at least 0, got {tau1} and {beta}")
        self.tau1, self.beta, self.base_temperature = tau1, beta, base_temperature

    def forward(self, features: Tensor, labels: Tensor, subclasses: Tensor, tau2: Tensor | None = None) -> Tensor:
        """Loss of features (B, 2, d) with classes, subclasses and temperatures (B,): a scalar."""
        return sbcl_loss(features, labels, subclasses, self.tau1, tau2, self.beta, self.base_temperature)
