r"""The symmetric softmax loss of CLIP (Radford et al. 2021, arXiv:2103.00020), the baseline of image-text chapters.

For B pairs of L2-normalised embeddings x_i, y_i and t = exp(t')::

    L = -(1/2B) sum_i [ log softmax_j(t x_i.y_j)_i + log softmax_j(t y_i.x_j)_i ]

Every image has to single out its text among the B of the batch, and every text its image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses._streaming import DENSE, unit, weighted_log_sum_exp

__all__ = ["CLIPLoss", "clip_loss"]


def clip_loss(
    x: Tensor, y: Tensor, log_t: float | Tensor, max_t: float = 100.0, block_size: int | None = None
) -> Tensor:
    """Softmax loss over both directions.

    Args:
        x: image embeddings, (B, d); normalised here.
        y: text embeddings, (B, d); y[i] belongs to x[i].
        log_t: logarithm t' of the inverse temperature, a number or shape ().
        max_t: cap on the inverse temperature (CLIP: 100), beyond which it gets no gradient.
        block_size: images at once; None: the plain formula up to 512 pairs, above them streamed in blocks, with memory
            linear in the batch (first derivatives only; float32 at least).

    Returns:
        Scalar; NaN for an empty batch or where an embedding is NaN, 0 for one pair.

    Raises:
        ValueError: x and y are not both (B, d), or block_size below 1.
    """
    check_pairs(x, y)
    t = torch.as_tensor(log_t, dtype=x.dtype, device=x.device).clamp(max=math.log(max_t)).exp()
    if block_size is not None or len(x) ** 2 > DENSE:
        with torch.autocast(x.device.type, enabled=False):
            x, y = unit(x), unit(y)
            half = x.new_full((len(x),), 0.5 / len(x))
            total = weighted_log_sum_exp(x, y, {"all": half}, scale=t.to(x.dtype), columns=half, block=block_size)
            return total - t.to(x.dtype) * (x * y).sum() / len(x)
    s = (t * F.normalize(x, dim=-1)) @ F.normalize(y, dim=-1).mT
    place = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(s, place) + F.cross_entropy(s.mT, place)) / 2


class CLIPLoss(nn.Module):
    """`clip_loss` with its learnable temperature.

    Args:
        t_init: inverse temperature at the start, 1 / 0.07.
        max_t: see `clip_loss`.
        block_size: see `clip_loss`.

    Raises:
        ValueError: t_init or max_t not above 0.
    """

    def __init__(self, t_init: float = 14.2857, max_t: float = 100.0, block_size: int | None = None) -> None:
        super().__init__()
        if not (t_init > 0 and max_t > 0):
            raise ValueError(f"t_init and max_t must be above 0, got {t_init} and {max_t}")
        self.log_t = nn.Parameter(torch.tensor(math.log(t_init)))
        self.max_t, self.block_size = max_t, block_size

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss of B pairs (B, d), (B, d); see `clip_loss`."""
        return clip_loss(x, y, self.log_t, self.max_t, self.block_size)

    def extra_repr(self) -> str:
        """Settings, for ``repr``."""
        return f"max_t={self.max_t:g}"


def check_pairs(x: Tensor, y: Tensor) -> None:
    """Refuse what is not a batch of pairs.

    Raises:
        ValueError: x and y are not both (B, d).
    """
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"expected pairs of embeddings, both (B, d); got {tuple(x.shape)} and {tuple(y.shape)}")
