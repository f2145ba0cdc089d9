import pytest
import torch

from lib import runtime
from lib.data import SphereSample, excess_risk, sphere_sample, unit_images


@pytest.mark.parametrize("d", [1, 2, 4])
def test_value_by_hand_bayes_error_and_labels(d):
    sample = sphere_sample(20_000, d, runtime.generator(3), 0.2)
    assert torch.minimum(sample.eta, 1 - sample.eta).mean().item() == pytest.approx(0.2, abs=0.005)
    assert (sample.eta > 0.5).double().mean().item() == pytest.approx(0.55, abs=0.02)
    wrong = (sample.y > 0) != (sample.eta > 0.5)
    assert wrong.double().mean().item() == pytest.approx(0.2, abs=0.01)
    assert set(sample.y.tolist()) == {-1.0, 1.0}


def test_invariance_unit_vectors_without_negative_coordinates():
    sample = sphere_sample(500, 3, runtime.generator(0))
    assert sample.x.shape == (500, 4)
    assert (sample.x >= 0).all()
    torch.testing.assert_close(sample.x.norm(dim=1), torch.ones(500).double())
    again = sphere_sample(500, 3, runtime.generator(0))
    assert torch.equal(sample.y, again.y)


def test_limit_uniform_on_the_quarter_circle():
    angle = torch.atan2(*sphere_sample(20_000, 1, runtime.generator(1)).x.T) / (torch.pi / 2)
    counts = torch.histc(angle, 10, 0, 1) / 20_000
    assert (counts - 0.1).abs().max() < 0.01


def test_degenerate_arguments():
    for d, error in ((0, 0.1), (2, 0.0), (2, 0.5)):
        with pytest.raises(ValueError, match="need d"):
            sphere_sample(5, d, runtime.generator(0), error)
    assert sphere_sample(0, 2, runtime.generator(0)).x.shape == (0, 3)


def test_value_by_hand_excess_risk():
    """Right, wrong by 0.8 - 0.2, and wrong by 0.7 - 0.3: (0 + 0.6 + 0.4) / 3."""
    eta = torch.tensor([0.9, 0.8, 0.3])
    sample = SphereSample(torch.zeros(3, 2), torch.ones(3), eta)
    assert excess_risk(torch.tensor([2.0, 0.0, 1.0]), sample) == pytest.approx(1 / 3)
    assert excess_risk(eta - 0.5, sample) == 0


def test_value_by_hand_digits():
    sample = unit_images("digits")
    assert sample.x.shape == (357, 64)
    assert (sample.y == 1).sum() == 183
    assert (sample.x >= 0).all()
    torch.testing.assert_close(sample.x.norm(dim=1), torch.ones(357).double())
    assert excess_risk(sample.y, sample) == 0
    with pytest.raises(ValueError, match="names"):
        unit_images("letters")
