"""An encoder with one vector a class, for losses that compare samples with classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

__all__ = ["ClassVectors"]


class ClassVectors(nn.Module):
    """The embedding z, followed by its cosine similarity to every class vector.

    Both in one output, so that one network serves losses on embeddings (the first `dim` columns) and on classes.

    Args:
        encoder: (B, ...) -> (B, dim).
        dim: of the embedding.
        classes: number C of classes; their vectors start uniformly distributed on the sphere.

    Shape:
        (B, ...) -> (B, dim + C)
    """

    def __init__(self, encoder: nn.Module, dim: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.weight = nn.Parameter(torch.randn(classes, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Embedding and cosines."""
        z = self.encoder(x)
        return torch.cat([z, normalize(z, dim=-1) @ normalize(self.weight, dim=-1).T], dim=-1)
