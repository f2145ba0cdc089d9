"""Coverage and precision: counts by hand, the area under the curve against brute force, ties."""

import pytest
import torch

from lib.metrics.selective import coverage_at, risk_coverage, threshold_at

SCORE = torch.tensor([0.9, 0.2, 0.7, 0.4, 0.6])
RIGHT = torch.tensor([True, False, True, True, False])


def test_value_by_hand() -> None:
    """From the top: right, right, wrong, right, wrong."""
    curve = risk_coverage(SCORE, RIGHT)
    assert curve.coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert curve.precision.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 4, 3 / 5])
    assert threshold_at(SCORE, RIGHT, 0.7) == pytest.approx(0.4)
    assert coverage_at(SCORE, RIGHT, 0.7) == pytest.approx(0.8)
    assert coverage_at(SCORE, RIGHT, 1.0) == pytest.approx(0.4)


def test_parity_with_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    score, right = torch.rand(40, generator=generator).mul(10).round(), torch.rand(40, generator=generator) < 0.6
    curve = risk_coverage(score, right)
    assert curve.threshold.tolist() == sorted(set(score.tolist()), reverse=True)
    for t, coverage, precision in zip(*curve, strict=True):
        kept = score >= t
        assert coverage.item() == pytest.approx(kept.double().mean().item())
        assert precision.item() == pytest.approx(right[kept].double().mean().item())


def test_limit_oracle_and_none() -> None:
    """Scores that know the truth cover every right answer at precision 1; no precision at all covers everything."""
    assert coverage_at(RIGHT.double(), RIGHT, 1.0) == pytest.approx(0.6)
    assert coverage_at(SCORE, RIGHT, 0.0) == 1.0


def test_invariance_to_monotone_scores() -> None:
    for level in (0.6, 0.75, 1.0):
        assert coverage_at(SCORE.exp() * 3, RIGHT, level) == coverage_at(SCORE, RIGHT, level)


def test_degenerate() -> None:
    assert coverage_at(SCORE, torch.zeros(5), 0.5) == 0.0
    assert threshold_at(SCORE, torch.zeros(5), 0.5) == torch.inf
    assert coverage_at(torch.ones(5), RIGHT, 0.6) == 1.0  # one threshold for equal scores
    for score in (SCORE[:0], SCORE * torch.nan):
        with pytest.raises(ValueError, match="need scores"):
            risk_coverage(score, RIGHT[: len(score)])
