"""LegendreTron (arXiv 2301.11695): the link between scores and probabilities is learnt, and with it a proper loss.

A linear scorer gives s = V x + b in R^(C-1), the last class being the reference.  The inverse link is

    p = u(t),  t = (v_B o ... o v_1)(s),  u(t)_k = exp(t_k) / (1 + sum_j exp(t_j)),  p_C = 1 - sum_k p_k,

where each v_b is the gradient of a strongly convex function, a potential learnt together with V and b.  u is
the softmax over the logits (t, 0), itself the gradient of log(1 + sum_j exp(t_j)).  Every v_b is a bijection of
R^(C-1) and u one onto the open simplex, so the loss -log p_y is a proper composite loss whatever has been learnt:
its conditional risk has its minimum where p is the true distribution.

Unlike the authors' code, the shifts and scales within the potentials are set from a batch of Gaussian scores of
the deviation that an untrained scorer gives, not from the first batch of data, and the quadratic part of each potential
starts at the identity, not at a random multiple of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import jacrev, vmap

from lib.losses.registry import register_loss
from lib.models.icnn import GradientMap

__all__ = ["LegendreLink", "LegendreTron", "legendre_loss", "scores_for"]

CALIBRATION = 256
"""Gaussian scores that set shifts and scales before training."""
UNTRAINED = 3**-0.5
"""Deviation of the scores of a fresh `nn.Linear` on standardised inputs."""
RADIUS, DAMPING = 5.0, 1e-4
"""How far `scores_for` moves a logit in one step, and what it adds to the curvature of the softmax."""


class LegendreLink(nn.Module):
    """The inverse link: scores to logits (t, 0), whose softmax is the prediction.

    Args:
        n_blocks: gradient maps in a row; 0 is the identity, and the link softmax.
        dim: C - 1, scores.
        dim_hidden: units a layer of each potential, even.
        depth: layers of each potential.

    Shape:
        (N, C-1) -> (N, C), the last column 0.

    Raises:
        ValueError: n_blocks negative, or sizes that `lib.models.ICNN` refuses.
    """

    def __init__(self, n_blocks: int = 2, dim: int = 1, dim_hidden: int = 2, depth: int = 4) -> None:
        super().__init__()
        if n_blocks < 0:
            raise ValueError(f"n_blocks must not be negative, got {n_blocks}")
        self.blocks = nn.ModuleList(GradientMap(dim, dim_hidden, depth) for _ in range(n_blocks))
        self.calibrate(UNTRAINED * torch.randn(CALIBRATION, dim))

    @torch.no_grad()
    def calibrate(self, scores: Tensor) -> None:
        """Set shifts and scales of all potentials from a batch of scores (N, C-1)."""
        for block in self.blocks:
            assert isinstance(block, GradientMap)
            block.icnn.calibrate(scores)
            scores = block(scores)

    def forward(self, scores: Tensor) -> Tensor:
        """Logits, shape (N, C)."""
        for block in self.blocks:
            scores = block(scores)
        return F.pad(scores, (0, 1))


class LegendreTron(nn.Module):
    """A linear scorer under a learnt link; its logits go into cross-entropy, which is then a proper loss of the scores.

    Args:
        in_dim: input features.
        classes: C >= 2.
        n_blocks: of the link; 0 is multinomial logistic regression with a reference class.
        dim_hidden: of the link.
        depth: of the link.

    Shape:
        (N, in_dim) -> (N, C).

    Raises:
        ValueError: fewer than two classes, or an argument that `LegendreLink` refuses.
    """

    def __init__(self, in_dim: int, classes: int, n_blocks: int = 2, dim_hidden: int = 2, depth: int = 4) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes: at least 2, got {classes}")
        self.scorer = nn.Linear(in_dim, classes - 1)
        self.link = LegendreLink(n_blocks, classes - 1, dim_hidden, depth)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (t, 0), shape (N, C)."""
        return self.link(self.scorer(x))  # type: ignore[no-any-return]


def legendre_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The learnt loss of a batch, ``mean -log p_y``, from the logits (t, 0) of a `LegendreLink`.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).

    Returns:
        Scalar: cross-entropy of the logits, a proper composite loss of the scores.  NaN for no samples.
    """
    return F.cross_entropy(logits, y)


@torch.no_grad()
def scores_for(link: nn.Module, p: Tensor, steps: int = 100, tolerance: float = 1e-10) -> Tensor:
    """Scores that minimise the conditional risk ``E_{y ~ p} -log q_y``, q = softmax(link(s)), from s = 0.

    Newton's direction in the logits t, taken back to the scores: with J the Jacobian of t(s) and H that of the softmax,
    ``d = J^-1 (H + damping)^-1 (q - p)``.  It descends wherever q differs from p; it is cut to at most 5 in each logit,
    then halved until the risk of the row falls, so the only place to stop is the minimum.  What that is, is not used.

    Args:
        link: from scores (N, C-1) to logits (N, C) with a last column of 0, e.g. a `LegendreLink`; float64 is advised.
        p: distributions with positive entries, shape (N, C).
        steps: at most.
        tolerance: largest entry of ``|q - p|`` at which the search ends.

    Returns:
        Shape (N, C-1), the dtype of p; where `steps` were too few, the best found.
    """
    s = torch.zeros_like(p[:, :-1])
    slopes = vmap(jacrev(lambda row: link(row.unsqueeze(0))[0, :-1]))

    def risk(s: Tensor) -> Tensor:
        logits: Tensor = link(s)
        return -(p * logits.log_softmax(-1)).sum(-1, keepdim=True)

    for _ in range(steps):
        q = link(s).softmax(-1)
        miss = (q - p)[:, :-1]
        if miss.abs().max() < tolerance:
            break
        q = q[:, :-1]
        curvature = torch.diag_embed(q + DAMPING) - q[:, :, None] * q[:, None, :]
        in_logits = torch.linalg.solve(curvature, miss)
        in_logits *= (RADIUS / in_logits.abs().amax(-1, keepdim=True)).clamp(max=1)
        direction = torch.linalg.solve(slopes(s), in_logits)
        size, before = torch.ones_like(s[:, :1]), risk(s)
        for _ in range(30):
            worse = ~(risk(s - size * direction) <= before * (1 + 1e-12))  # up to rounding
            if not worse.any():
                break
            size = torch.where(worse, size / 2, size)
        s = s - size * direction
    return s


register_loss("LegendreTron", legendre_loss, chapter="legendretron", head=LegendreTron)
