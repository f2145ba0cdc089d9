"""A small convolutional network for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CNN"]


class CNN(nn.Module):
    """Two 3x3 convolutions, each with ReLU and 2x2 max pooling, then one hidden layer; torch's default initialisation.

    No dropout and no batch normalisation, so that it trains under `torch.func.vmap` as it does alone.

    Args:
        size: height and width of the images in pixels, at least 4.
        channels: of the images.
        width: channels of the first convolution; the second has twice as many.
        hidden: units of the hidden layer.
        classes: outputs.

    Shape:
        (N, channels, size, size) or (N, channels * size * size) -> (N, classes).

    Raises:
        ValueError: images of fewer than 4 pixels a side.
    """

    def __init__(
        self, size: int = 28, channels: int = 1, width: int = 16, hidden: int = 128, classes: int = 10
    ) -> None:
        super().__init__()
        if size < 4:
            raise ValueError(f"size: at least 4 pixels, got {size}")
        self.shape = (channels, size, size)
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(2 * width * (size // 4) ** 2, hidden)
        self.last = nn.Linear(hidden, classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees, shape (N, hidden)."""
        return torch.relu(self.hidden(self.convolutions(x.view(-1, *self.shape))))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, classes)."""
        return self.last(self.features(x))  # type: ignore[no-any-return]
