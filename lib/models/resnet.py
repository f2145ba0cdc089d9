"""Residual networks for small images (He et al. 2015, arXiv:1512.03385, Section 4.2), with or without their skips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ResNet"]


class _Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation; the input is added before the last activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        # Where the shape changes the skip is a 1x1 convolution (option B of the paper), else the identity.
        self.shortcut: nn.Module = nn.Identity()
        if skips and (stride != 1 or inputs != outputs):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(out + self.shortcut(x) if self.skips else out)


class ResNet(nn.Module):
    """ResNet of depth 6n+2 in three stages of n blocks, widths w, 2w, 4w, the image halved between stages.

    Args:
        depth: number of layers with weights on the longest path, 6n+2: 8, 14, 20, ..., 56, 110.
        width: channels of the first stage.
        classes: outputs.
        channels: of the images.
        skips: whether blocks add their input; without, the same layers in a plain chain ("noshort").

    Shape:
        (N, channels, H, W) -> (N, classes).

    Raises:
        ValueError: `depth` is not 6n+2 with n at least 1.
    """

    def __init__(
        self, depth: int = 20, width: int = 16, classes: int = 10, channels: int = 3, skips: bool = True
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth: {depth} is not 6n+2 (8, 14, 20, ...)")
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        layers: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            for block in range(blocks):
                outputs, stride = width * 2**stage, 2 if stage and not block else 1
                layers.append(_Block(inputs, outputs, stride, skips))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (N, classes)."""
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))  # type: ignore[no-any-return]
