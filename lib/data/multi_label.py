"""Multi-label tasks whose labels are rare to a degree that one can choose: linear teachers, and words of real texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lib import runtime
from lib.data.offline import Part, Split

__all__ = ["teacher_labels", "word_labels"]


def teacher_labels(
    seed: int, rates: Sequence[float] | Tensor, sizes: tuple[int, int, int], features: int = 20, noise: float = 1.0
) -> Split:
    r"""Gaussian inputs, and for each label a random direction: positive are those furthest along it, up to noise.

    With :math:`x \sim N(0, I_d)` and :math:`|v_k| = 1`, label k is given to the :math:`\tau_k` N samples of a part
    that have the largest :math:`v_k \cdot x + \sigma e`, e standard normal.  So every part has exactly
    ``round(rate * N)`` positives, at least one, and the best score of any model is :math:`v_k \cdot x`.

    Args:
        seed: of everything; the same seed has the same inputs, directions and noise at all rates.
        rates: tau_k in (0, 1), shape (K,).
        sizes: of training, validation and test part.
        features: d.
        noise: sigma.

    Returns:
        Parts with x float32 (N, d) and y int64 (N, K), 0 or 1.

    Raises:
        ValueError: a rate outside (0, 1).
    """
    tau = torch.as_tensor(rates, dtype=torch.float64)
    if tau.ndim != 1 or not ((tau > 0) & (tau < 1)).all():
        raise ValueError(f"rates: (K,) within (0, 1), got {tau.tolist()}")
    draw = runtime.generator(seed)
    direction = torch.randn(features, len(tau), generator=draw, dtype=torch.float64)
    direction = direction / direction.norm(dim=0)
    parts, start = [], 0
    for size in sizes:
        x = torch.randn(size, features, generator=draw, dtype=torch.float64)
        latent = x @ direction + noise * torch.randn(size, len(tau), generator=draw, dtype=torch.float64)
        place = latent.argsort(0, descending=True).argsort(0)
        y = place < (tau * size).round().clamp(min=1)
        parts.append(Part(x.float(), y.long(), torch.arange(start, start + size)))
        start += size
    train, val, test = parts
    return Split(train, val, test, classes=len(tau))


def word_labels(
    source: str,
    seed: int,
    labels: Sequence[int],
    sizes: tuple[float, float, float] = (0.4, 0.2, 0.4),
    features: int = 64,
) -> Split:
    """Real texts: which frequent words stand in one part of a text is to be told from the rest of it.

    "docstrings" asks for names of parameters, given the text of the docstring; "ag-news" for words among the first
    six of a news text (its title, mostly), given all words after them.  Inputs are tf-idf weights, reduced by a
    truncated singular value decomposition and standardised, all fitted on the training part.

    Args:
        source: "docstrings" (3,296 texts) or "ag-news" (7,600; see `lib.data.ag_news`).
        seed: of the split.
        labels: ranks of the words by frequency, 0 for the most frequent.
        sizes: shares of training, validation and test part.
        features: dimensions kept.

    Returns:
        Parts with x float32 (N, features) and y int64 (N, K); a rare label may be without positives in a part.

    Raises:
        ValueError: an unknown source, shares above 1, or a rank beyond the words there are.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    asked, texts = _texts(source)
    count = Counter(word for words in asked for word in words)
    often = sorted(count, key=lambda word: (-count[word], word))
    if max(labels) >= len(often):
        raise ValueError(f"{source} has {len(often)} words, asked for rank {max(labels)}")
    if sum(sizes) > 1 + 1e-9:
        raise ValueError(f"shares sum to {sum(sizes):g}, more than 1")
    y = torch.tensor([[often[k] in words for k in labels] for words in asked]).long()
    order = torch.randperm(len(texts), generator=runtime.generator(seed)).numpy()
    ends = np.rint(np.cumsum([0.0, *sizes]) * len(texts)).astype(int)
    rows = [np.sort(order[a:b]) for a, b in pairwise(ends)]
    words = TfidfVectorizer(sublinear_tf=True, min_df=3)
    corpus = np.array(texts, dtype=object)
    axes = TruncatedSVD(features, random_state=0).fit(words.fit_transform(corpus[rows[0]]))
    dense = [axes.transform(words.transform(corpus[part])) for part in rows]
    mean, deviation = dense[0].mean(axis=0), dense[0].std(axis=0)
    parts = []
    for part, x in zip(rows, dense, strict=True):
        index = torch.from_numpy(part)
        parts.append(Part(torch.from_numpy(((x - mean) / deviation).astype(np.float32)), y[index], index))
    train, val, test = parts
    return Split(train, val, test, classes=len(labels))


def _texts(source: str) -> tuple[list[set[str]], list[str]]:
    """What is asked for in each text, and the rest of the text."""
    if source == "docstrings":
        from lib.data.docstrings import docstrings

        known = [entry for entry in docstrings() if entry.parameters]
        return [set(entry.parameters) for entry in known], [entry.text for entry in known]
    if source == "ag-news":
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        from lib.data.ag_news import ag_news

        split = [text.lower().replace(".", " ").split() for text, _ in ag_news()]
        asked = [{w for w in words[:6] if w.isalpha() and len(w) > 2} - ENGLISH_STOP_WORDS for words in split]
        return asked, [" ".join(words[6:]) for words in split]
    raise ValueError(f"source: docstrings or ag-news, got {source!r}")
