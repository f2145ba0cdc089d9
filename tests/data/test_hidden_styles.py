import os

import pytest
import torch

from lib.data import digits, image_split
from lib.data.hidden_styles import hidden_styles, restyle


def test_value_by_hand_thickening():
    """Not turned: the neighbours of one bright pixel get the share, the others stay dark."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    thick = restyle(x, 0.0, 0.25)[0, 0]
    assert thick[2, 2] == pytest.approx(1.0, abs=1e-5)
    assert thick[1:4, 1:4].sum() == pytest.approx(1 + 8 * 0.25, abs=1e-4)
    assert thick.sum() == pytest.approx(3.0, abs=1e-4)


def test_limit_nothing_changed():
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(restyle(x, 0.0, 0.0), x, atol=1e-5, rtol=0)
    assert not torch.allclose(restyle(x, 15.0, 0.0), x, atol=0.05)


def test_invariance_split_is_that_of_the_digits():
    """Half of each part is restyled; the others are the digits, up to the common shift and scale."""
    made, plain = hidden_styles("digits", 3, (300, 100, 200)), digits(3, (300, 100, 200), standardise=False)
    assert made.split.classes == 10
    for key in ("train", "val", "test"):
        ours, theirs = getattr(made.split, key), getattr(plain, key)
        assert torch.equal(ours.y, theirs.y)
        assert torch.equal(ours.index, theirs.index)
        style = made.style[key]
        assert 0.35 < style.double().mean() < 0.65
        assert torch.equal(made.sub_class(key) // 2, ours.y)
        assert torch.equal(made.sub_class(key) % 2, style)
        for value, same in ((0, True), (1, False)):
            pair = torch.stack([ours.x[style == value].flatten(), theirs.x[style == value].flatten()])
            assert (torch.corrcoef(pair)[0, 1] > 0.9999) == same
    assert made.split.train.x.mean().item() == pytest.approx(0, abs=1e-5)
    assert made.split.train.x.std().item() == pytest.approx(1, abs=1e-5)


def test_invariance_seed():
    first, again, other = (hidden_styles("digits", seed, (60, 30, 30)) for seed in (1, 1, 2))
    assert torch.equal(first.split.test.x, again.split.test.x)
    assert not torch.equal(first.style["train"], other.style["train"])


def test_degenerate():
    with pytest.raises(ValueError, match="share"):
        restyle(torch.zeros(1, 1, 8, 8), 15.0, 1.5)
    with pytest.raises(ValueError, match="side"):
        restyle(torch.zeros(1, 64))
    with pytest.raises(ValueError, match="cannot take"):
        hidden_styles("digits", 0, (1700, 100, 100))


@pytest.mark.skipif("COMPANION_DATA" not in os.environ, reason="no mirror of real data")
def test_parity_downloaded_set():
    made, plain = (f("fashion-mnist", 0, (200, 100, 100)) for f in (hidden_styles, image_split))
    upright = made.style["test"] == 0
    pair = torch.stack([made.split.test.x[upright].flatten(), plain.test.x[upright].flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.9999
