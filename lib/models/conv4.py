"""Four blocks of convolution, the usual small encoder for few-shot and metric learning on 28x28 images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Conv4"]


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, group normalisation, ReLU and 2x2 max-pooling, then a linear map.

    After Vinyals et al. (2016, arXiv 1606.04080, Sec. 4.1.1), with group instead of batch normalisation, so that
    a sample's embedding does not depend on its batch and stacks of networks can train under `torch.func.vmap`.

    Args:
        channels: of the images.
        width: channels of each block, a multiple of 8 (groups of 8).
        dim: of the embedding.
        size: of the images, at least 16 a side.

    Shape:
        (B, channels, size, size) -> (B, dim)

    Raises:
        ValueError: width or size that does not fit.
    """

    def __init__(self, channels: int = 1, width: int = 64, dim: int = 64, size: int = 28) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ValueError(f"width: a multiple of 8, got {width}")
        if size < 16:
            raise ValueError(f"size: at least 16 pixels for four poolings, got {size}")
        inputs = [channels, width, width, width]
        self.convolutions = nn.ModuleList(nn.Conv2d(n, width, 3, padding=1) for n in inputs)
        self.norms = nn.ModuleList(nn.GroupNorm(width // 8, width) for _ in inputs)
        self.head = nn.Linear(width * (size // 16) ** 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings, not normalised."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = torch.nn.functional.max_pool2d(torch.relu(norm(convolution(x))), 2)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]
