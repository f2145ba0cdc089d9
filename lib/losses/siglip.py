r"""Sigmoid loss for language-image pre-training (Zhai, Mustafa, Kolesnikov, Beyer 2023, arXiv:2303.15343, section 3.2).

For B pairs of L2-normalised embeddings x_i, y_i, with t = exp(t') and b learnable, z_ij = 1 if i = j else -1::

    l_ij = t x_i.y_j + b
    L    = -(1/B) sum_i sum_j log sigmoid(z_ij l_ij)

Each of the B^2 pairs is a binary decision of its own: no term knows of any other.  The sum is divided by B, not by B^2.
With b = -10 and t = 10 a random pair starts at l = -10, so that the B(B - 1) negatives cost next to nothing at first.

The loss is a sum over blocks of pairs (section 3.3): devices that hold some images need only see the texts go by, a
block at a time.  `block_size` computes it so; value and gradient are those of the whole.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lib.losses._blockwise import softplus
from lib.losses._pair_decisions import softplus_sum
from lib.losses._streaming import DENSE, unit
from lib.losses.clip import check_pairs

__all__ = ["SigLIPLoss", "negative_weights", "siglip_loss"]


def siglip_loss(
    x: Tensor,
    y: Tensor,
    log_t: float | Tensor,
    bias: float | Tensor,
    weights: Tensor | None = None,
    block_size: int | None = None,
) -> Tensor:
    """Sigmoid loss of all pairs of a batch.

    Args:
        x: image embeddings, (B, d); normalised here.
        y: text embeddings, (B, d); y[i] belongs to x[i], every other pair is a negative.
        log_t: logarithm t' of the inverse temperature, a number or shape ().
        bias: b, a number or shape ().
        weights: of the pairs, (B, B), constants; 0 leaves a pair out (see `negative_weights`).
        block_size: pairs are decided in blocks of so many rows; None: the plain formula up to 512 pairs and with
            `weights`, else streamed, with memory linear in the batch (first derivatives only; float32 at least).

    Returns:
        Scalar; NaN for an empty batch or where an embedding is NaN.

    Raises:
        ValueError: x and y are not both (B, d), weights not (B, B), or block_size below 1.
    """
    check_pairs(x, y)
    size = len(x)
    if weights is not None and weights.shape != (size, size):
        raise ValueError(f"weights: expected {(size, size)}, got {tuple(weights.shape)}")
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size: at least 1, got {block_size}")
    if weights is None and (block_size is not None or size**2 > DENSE):
        with torch.autocast(x.device.type, enabled=False):
            x, y = unit(x), unit(y)
            scale = torch.as_tensor(log_t, dtype=x.dtype, device=x.device).exp()
            matched = scale * (x * y).sum() + size * torch.as_tensor(bias, dtype=x.dtype, device=x.device)
            return (softplus_sum(x, y, scale, bias, block=block_size) - matched) / size
    x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
    t = torch.as_tensor(log_t, dtype=x.dtype, device=x.device).exp()
    if weights is None:
        logits = (t * x) @ y.mT + bias
        return (softplus(logits).sum() - logits.diagonal().sum()) / size
    place = torch.arange(size, device=x.device)
    total = x.new_zeros(())
    for start in range(0, size, block_size or max(size, 1)):
        block = slice(start, start + (block_size or size))
        z = 2 * (place[:, None] == place[block]).to(x.dtype) - 1
        terms = -F.logsigmoid(z * (t * x @ y[block].mT + bias))
        total = total + (weights[:, block] * terms).sum()
    return total / size


class SigLIPLoss(nn.Module):
    """`siglip_loss` with its learnable temperature and bias.

    Args:
        t_init: inverse temperature at the start.
        b_init: bias at the start.
        block_size: texts at a time; default all.

    Raises:
        ValueError: t_init not above 0, or block_size below 1.
    """

    def __init__(self, t_init: float = 10.0, b_init: float = -10.0, block_size: int | None = None) -> None:
        super().__init__()
        if not t_init > 0 or (block_size is not None and block_size < 1):
            raise ValueError(f"t_init above 0, block_size at least 1; got {t_init}, {block_size}")
        self.log_t = nn.Parameter(torch.tensor(math.log(t_init)))
        self.bias = nn.Parameter(torch.tensor(float(b_init)))
        self.block_size = block_size

    def forward(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """Loss of B pairs (B, d), (B, d); see `siglip_loss`."""
        return siglip_loss(x, y, self.log_t, self.bias, weights, self.block_size)

    def extra_repr(self) -> str:
        """Settings, for ``repr``."""
        return f"block_size={self.block_size}"


def negative_weights(
    x: Tensor, y: Tensor, keep: int, which: str = "hard", generator: Generator | None = None
) -> Tensor:
    """Weights that keep all positives and of each image's negatives only some (the paper's study of their ratio).

    Args:
        x: image embeddings, (B, d).
        y: text embeddings, (B, d).
        keep: negatives kept for each image, from 0 to B - 1; fewer where the batch holds fewer.
        which: "hard", the most similar; "easy", the least similar; "random".
        generator: for "random", on the device of x.

    Returns:
        (B, B) of zeros and ones in the type of x.

    Raises:
        ValueError: x and y are not both (B, d), a negative keep, or another word.
    """
    check_pairs(x, y)
    if which not in ("hard", "easy", "random") or keep < 0:
        raise ValueError(f"keep not negative, which: hard, easy or random; got {keep}, {which!r}")
    size = len(x)
    eye = torch.eye(size, dtype=x.dtype, device=x.device)
    if which == "random":
        order = torch.rand(size, size, generator=generator, device=x.device, dtype=x.dtype)
    else:
        s = F.normalize(x.detach(), dim=-1) @ F.normalize(y.detach(), dim=-1).mT
        order = s if which == "hard" else -s
    # Numbers of order lie in [-1, 1], so that the positives come last, and are added whatever is kept.
    kept = (order - 4 * eye).topk(min(keep, max(size - 1, 0)), dim=1).indices
    return eye.scatter(1, kept, 1.0)
