"""ResNets for small images: sizes as published, skips that do what they say."""

import pytest
import torch
from torch import nn

from lib.models import ResNet


def test_value_by_hand_depth_and_parameters():
    # He et al., table 6: ResNet-20 has 0.27 M parameters, ResNet-56 0.85 M (with identity shortcuts; 1x1 adds ~2,700)
    for depth, millions in ((20, 0.27), (56, 0.85)):
        model = ResNet(depth)
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
        on_path = [m for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
        assert len(on_path) + 1 == depth  # and the linear head


def test_limit_zero_last_scale_makes_a_block_the_identity_only_with_skips():
    x = torch.randn(4, 8, 6, 6).relu()
    for skips in (True, False):
        block = ResNet(8, width=8, channels=1, skips=skips).eval().blocks[0]
        nn.init.zeros_(block.norm2.weight)
        torch.testing.assert_close(block(x), x if skips else torch.zeros_like(x))


def test_value_by_hand_shapes_for_any_image_size():
    model = ResNet(8, width=4, classes=7, channels=2)
    assert model(torch.randn(3, 2, 28, 28)).shape == (3, 7)
    assert model(torch.randn(3, 2, 9, 9)).shape == (3, 7)


@pytest.mark.parametrize("depth", [2, 9, 24])
def test_degenerate_depth(depth):
    with pytest.raises(ValueError, match="6n"):
        ResNet(depth)
