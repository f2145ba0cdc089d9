import os

import pytest
import torch

from lib.data import teacher_labels, word_labels
from lib.losses.macro_auc import macro_auc

SIZES = (300, 100, 2000)


def test_value_by_hand_rates_are_exact_in_every_part():
    split = teacher_labels(0, [0.5, 0.1, 0.001], SIZES)
    for part, size in zip((split.train, split.val, split.test), SIZES, strict=True):
        assert part.x.shape == (size, 20)
        assert part.y.sum(0).tolist() == [size // 2, size // 10, max(1, round(size / 1000))]
    assert split.test.index[0] == 400


def test_limit_without_noise_a_linear_score_is_perfect():
    split = teacher_labels(3, [0.3], SIZES, features=3, noise=0.0)
    x, y = split.test.x.double(), split.test.y
    w = torch.linalg.lstsq(x, y.double() - y.double().mean()).solution
    assert macro_auc(x @ w, y) > 0.995


def test_invariance_seed_decides_and_rarer_labels_are_nested():
    first, again = (teacher_labels(5, [0.5, 0.2], SIZES) for _ in range(2))
    assert torch.equal(first.test.x, again.test.x)
    assert torch.equal(first.train.y, again.train.y)
    rarer = teacher_labels(5, [0.1, 0.05], SIZES)
    assert torch.equal(rarer.train.x, first.train.x)
    assert (rarer.train.y <= first.train.y).all()
    assert not torch.equal(teacher_labels(6, [0.5, 0.2], SIZES).train.x, first.train.x)


def test_value_by_hand_words_of_docstrings():
    split = word_labels("docstrings", 0, range(3), features=8)
    sizes = [len(part) for part in (split.train, split.val, split.test)]
    assert sizes == [1318, 660, 1318]
    positives = sum(part.y.sum(0) for part in (split.train, split.val, split.test))
    assert positives.tolist() == [198, 156, 106]  # name, x, kw
    assert split.train.x.mean(0).abs().max() < 1e-5
    assert (split.train.x.std(0) - 1).abs().max() < 0.01
    rows = torch.cat([split.train.index, split.val.index, split.test.index])
    assert len(rows.unique()) == 3296


@pytest.mark.skipif("COMPANION_DATA" not in os.environ, reason="needs the texts of AG News")
def test_value_by_hand_words_of_the_news():
    split = word_labels("ag-news", 0, range(4), features=8)
    assert split.train.y.shape == (3040, 4)
    assert split.train.y.sum() > 0


def test_degenerate_arguments():
    with pytest.raises(ValueError, match="rates"):
        teacher_labels(0, [0.0], SIZES)
    with pytest.raises(ValueError, match="source"):
        word_labels("novels", 0, [0])
    with pytest.raises(ValueError, match="rank"):
        word_labels("docstrings", 0, [10**6])
    with pytest.raises(ValueError, match="shares"):
        word_labels("docstrings", 0, [0], (0.5, 0.5, 0.5))
