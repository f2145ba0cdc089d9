"""Windows of words: what they hold, how they are split."""

import pytest
import torch

from lib.data import next_words
from lib.data.docstrings import docstrings
from lib.data.text import CLS, UNK, Vocabulary, words

SIZES = (300, 100, 200)


def test_value_by_hand_windows_are_the_text():
    """Consecutive windows of one docstring, read off the text itself."""
    split = next_words(0, 200, SIZES, window=3)
    entry = int(split.test.index[0])
    vocabulary = Vocabulary([one.text for one in docstrings()], 200)
    numbers = [CLS] * 3 + [vocabulary.number.get(word, UNK) for word in words(docstrings()[entry].text)]
    expected = [(numbers[i - 3 : i], numbers[i]) for i in range(3, len(numbers)) if numbers[i] != UNK]
    own = split.test.index == entry
    found = list(zip(split.test.x[own].tolist(), split.test.y[own].tolist(), strict=True))
    assert len(found) > 0
    assert found == expected[: len(found)]


def test_invariance_of_parts():
    split = next_words(0, 200, SIZES)
    assert [len(part) for part in (split.train, split.val, split.test)] == list(SIZES)
    assert split.train.x.shape == (300, 4)
    texts = [set(part.index.tolist()) for part in (split.train, split.val, split.test)]
    assert not texts[0] & texts[1]
    assert not texts[2] & (texts[0] | texts[1])
    assert split.classes == 200
    for part in (split.train, split.test):
        assert part.y.min() > UNK
        assert part.y.max() < 200
    again, other = next_words(0, 200, SIZES), next_words(1, 200, SIZES)
    assert torch.equal(split.train.x, again.train.x)
    assert not torch.equal(split.train.index, other.train.index)


def test_degenerate_sizes():
    with pytest.raises(ValueError, match="do not hold"):
        next_words(0, 50, (100_000, 100_000, 1))
    for sizes, window in (((0, 1, 1), 4), ((1, 1, 1), 0)):
        with pytest.raises(ValueError, match="at least 1"):
            next_words(0, 50, sizes, window)
