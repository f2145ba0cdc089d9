import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.metrics import map_at_r, mean_similarities, recall_at_k, retrieval_scores


def batch(n=60, d=8, classes=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, d, generator=generator, dtype=dtype)
    return centres[labels] + torch.randn(n, d, generator=generator, dtype=dtype), labels


def by_angle(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def written_out(x, labels, k):
    """Rank with Python's sort, score by the definitions."""
    unit = x / x.norm(dim=1, keepdim=True)
    found, precision = [], []
    for q in range(len(x)):
        others = [i for i in range(len(x)) if i != q]
        ranked = sorted(others, key=lambda i: -float(unit[q] @ unit[i]))
        hits = [bool(labels[i] == labels[q]) for i in ranked]
        r = sum(hits)
        if r:
            found.append(any(hits[:k]))
            precision.append(sum(sum(hits[: i + 1]) / (i + 1) for i in range(r) if hits[i]) / r)
    return sum(found) / len(found), sum(precision) / len(precision)


def test_value_by_hand():
    """Angles 0, 11, 100 | 20, 90 degrees, so R = 2 in the first class and 1 in the second."""
    x, labels = by_angle(0, 11, 100, 20, 90), torch.tensor([0, 0, 0, 1, 1])
    scores = retrieval_scores(x, labels, ks=(1, 2, 4))
    # Rankings, + for a hit. 0: 11+ 20 90 100+; 11: 20 0+ 90 100+; 100: 90 20 11+ 0+; 20: 11 0 90+ 100; 90: 100 20+ 11 0
    assert scores.recall == pytest.approx({1: 1 / 5, 2: 3 / 5, 4: 1.0})
    assert scores.map_at_r == pytest.approx((1 / 2 + (1 / 2) / 2 + 0 + 0 + 0) / 5)
    assert scores.queries == 5


def test_value_by_hand_mean_similarities():
    x, labels = by_angle(0, 60, 90, 180), torch.tensor([4, 4, 2, 2])
    low, high = math.cos(math.radians(30)), math.cos(math.radians(120))
    expected = [[(0 - 1) / 2, (low + high) / 2, (0 + low) / 2, (-1 + high) / 2], [0.5, 0.5, 0, 0]]
    torch.testing.assert_close(mean_similarities(x, labels), torch.tensor(expected, dtype=torch.float64))
    assert mean_similarities(x, torch.tensor([0, 0, 0, 1])).isnan().tolist() == [[False] * 4, [False] * 3 + [True]]
    assert mean_similarities(x, labels * 0)[0].isnan().all()


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(1, 5), st.integers(1, 5), st.integers(1, 12), st.integers(1, 50), st.integers())
def test_value_by_hand_written_out(n, d, classes, k, block, seed):
    x, labels = batch(n, d + 1, classes, seed % 2**32)
    if n > 1 and any((labels == label).sum() > 1 for label in labels):
        recall, mean_precision = written_out(x, labels, k)
        scores = retrieval_scores(x, labels, ks=(k,), block_size=block)
        assert scores.recall[k] == pytest.approx(recall)
        assert scores.map_at_r == pytest.approx(mean_precision)


def test_parity_pytorch_metric_learning():
    calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    x, labels = batch(200, 16, 12, dtype=torch.float32)
    peer = calculator.AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=inference.CustomKNN(distances.CosineSimilarity()),
    ).get_accuracy(x, labels)
    assert recall_at_k(x, labels) == pytest.approx(peer["precision_at_1"])
    assert map_at_r(x, labels) == pytest.approx(peer["mean_average_precision_at_r"])


def test_parity_gallery():
    """A gallery of its own: queries in no gallery, nothing left out."""
    x, labels = batch()
    twice = retrieval_scores(x, labels, gallery=x, gallery_labels=labels)
    assert twice.recall[1] == 1  # every query finds itself
    far = retrieval_scores(x[:20], labels[:20], (3,), x[20:], labels[20:])
    s = torch.nn.functional.cosine_similarity(x[:20, None], x[None, 20:], dim=2)
    nearest = labels[20:][s.argsort(1, descending=True)[:, :3]]
    assert far.recall[3] == pytest.approx((nearest == labels[:20, None]).any(1).double().mean().item())


def test_limit_perfect_and_hopeless():
    x, labels = by_angle(0, 1, 2, 120, 121, 122, 240, 241, 242), torch.arange(9) // 3
    assert retrieval_scores(x, labels).map_at_r == retrieval_scores(x, labels).recall[1] == 1
    assert retrieval_scores(x, torch.arange(9) % 3).recall[1] == 0


def test_limit_chance():
    """Random vectors: Recall@1 is the share of the own class among the others."""
    x = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3000) % 10
    assert recall_at_k(x, labels) == pytest.approx(299 / 2999, abs=4 * math.sqrt(0.1 * 0.9 / 3000))


def test_invariance():
    x, labels = batch()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    expected = retrieval_scores(x, labels, (1, 5))
    length = torch.linspace(0.1, 9, len(x), dtype=x.dtype)[:, None]
    for other, names, block in ((x[order], labels[order], 1024), (x * length, labels, 7), (x, 9 - labels, 1)):
        scores = retrieval_scores(other, names, (1, 5), block_size=block)
        assert scores.recall == pytest.approx(expected.recall)
        assert scores.map_at_r == pytest.approx(expected.map_at_r)


def test_degenerate_queries_without_answer_are_left_out():
    x, labels = by_angle(0, 1, 50), torch.tensor([0, 0, 1])
    assert retrieval_scores(x, labels).queries == 2
    assert recall_at_k(x, labels, k=10) == 1
    with pytest.raises(ValueError, match="no query"):
        retrieval_scores(x, torch.arange(3))
    with pytest.raises(ValueError, match="no query"):
        retrieval_scores(x[:0], labels[:0])


def test_degenerate_errors():
    x, labels = batch()
    with pytest.raises(ValueError, match="expected embeddings"):
        retrieval_scores(x, labels[1:])
    with pytest.raises(ValueError, match="None"):
        retrieval_scores(x, labels, gallery=x)
    with pytest.raises(ValueError, match="ks"):
        retrieval_scores(x, labels, ks=(0,))
    x[3] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        retrieval_scores(x, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_device(dtype):
    x, labels = batch(dtype=torch.float64)
    exact = retrieval_scores(x.to(dtype).double(), labels)
    scores = retrieval_scores(x.to(dtype), labels)
    assert scores.map_at_r == pytest.approx(exact.map_at_r, abs=1e-9)
    assert recall_at_k(x.to(dtype), labels) == scores.recall[1]
    assert math.isnan(retrieval_scores(x, labels, with_map=False).map_at_r)
