"""Predict the next word of a docstring from the words before it: a small task with many classes.

A sample is a window of word numbers and the word that follows.  Docstrings, not windows, are split into parts, so that
no sentence of the test part has been seen in training.  The words are those of `lib.data.text`, the texts those of
`lib.data.docstrings`: about 177,000 running words.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from lib import runtime
from lib.data.docstrings import docstrings
from lib.data.offline import Part, Split
from lib.data.text import CLS, UNK, Vocabulary, words

__all__ = ["next_words"]


@cache
def _numbered(vocabulary: int) -> tuple[Tensor, ...]:
    """Every docstring as word numbers, in the order of the snapshot."""
    texts = [entry.text for entry in docstrings()]
    number = Vocabulary(texts, vocabulary).number
    return tuple(torch.tensor([number.get(word, UNK) for word in words(text)], dtype=torch.int64) for text in texts)


def next_words(
    seed: int, vocabulary: int = 600, sizes: tuple[int, int, int] = (6000, 2000, 4000), window: int = 4
) -> Split:
    """Windows of words with the word that follows.

    Args:
        seed: of the split: which docstrings belong to which part, and in which order.
        vocabulary: number of classes: the most frequent words, and the four special tokens of `lib.data.text`, which
            are never a target.
        sizes: windows of the (train, val, test) parts; each part takes whole docstrings until it has enough, and the
            rest of its last docstring belongs to no part.
        window: words before the target; a text begins as if after that many `CLS`, and rare words are `UNK`.

    Returns:
        Parts with x (N, window) int64; `index` is the position of the docstring in the corpus.

    Raises:
        ValueError: a size or window below 1, or more windows than the corpus has.
    """
    if min(sizes) < 1 or window < 1:
        raise ValueError(f"sizes and window: at least 1, got {sizes}, {window}")
    rows = _numbered(vocabulary)
    order = iter(torch.randperm(len(rows), generator=runtime.generator(seed)).tolist())
    parts = []
    for size in sizes:
        x, y, index, found = list[Tensor](), list[Tensor](), list[Tensor](), 0
        while found < size:
            text = next(order, None)
            if text is None:
                raise ValueError(f"the docstrings do not hold {sum(sizes)} windows with a vocabulary of {vocabulary}")
            padded = torch.cat([torch.full((window,), CLS), rows[text]])
            known = torch.nonzero(rows[text] != UNK).flatten()
            x.append(padded.unfold(0, window, 1)[known])
            y.append(rows[text][known])
            index.append(torch.full((len(known),), text))
            found += len(known)
        parts.append(Part(torch.cat(x)[:size], torch.cat(y)[:size], torch.cat(index)[:size]))
    train, val, test = parts
    return Split(train, val, test, classes=vocabulary)
