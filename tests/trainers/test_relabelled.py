"""Targets made on the way: against `train_views`, and what `relabel` is called with."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lib.models import MLP, Stages
from lib.runtime import NonFiniteLoss
from lib.trainers import Adam, ViewMethod, train_relabelled, train_views


def blobs(seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(42) % 3
    return torch.randn(3, 4, generator=generator)[y] + torch.randn(42, 4, generator=generator), y


def network():
    return Stages(MLP([4, 8]), MLP([8, 3]))


def noisy(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def loss(outputs, y, scale):
    return scale * cross_entropy(outputs[1].flatten(0, 1), y.repeat(2))


METHODS = [ViewMethod("a", loss, {"scale": 1.0}, lr=0.01), ViewMethod("b", loss, {"scale": 2.0}, lr=0.003)]
SETTINGS = {"seeds": [3, 1], "optimiser": Adam(), "batch_size": 10, "device": "cpu"}


def keep(name, seed, epoch, features, y):
    return y


def test_limit_labels_that_stay_are_train_views():
    ours = train_relabelled(network, METHODS, blobs, noisy, keep, every=2, epochs=5, **SETTINGS)
    theirs = train_views(network, METHODS, blobs, noisy, steps=5 * 4, **SETTINGS)
    x = torch.stack([blobs(seed)[0] for seed in (3, 1)])
    for name in ("a", "b"):
        torch.testing.assert_close(ours.history[name], theirs.history[name])
        torch.testing.assert_close(ours.outputs(name, x, 1), theirs.outputs(name, x, 1))


def test_invariance_relabel_sees_its_own_run():
    """Called for every run every second epoch, with the features of that run by then; its answer takes effect."""
    calls = []

    def swap(name, seed, epoch, features, y):
        calls.append((name, seed, epoch, features.clone()))
        return (y + (epoch >= 2)) % 3 if name == "a" else y

    def clean(x):
        return 2 * x

    ours = train_relabelled(network, METHODS, blobs, noisy, swap, clean=clean, stage=0, every=2, epochs=5, **SETTINGS)
    plain = train_relabelled(network, METHODS, blobs, noisy, keep, every=2, epochs=5, **SETTINGS)
    assert [call[:3] for call in calls] == [(n, s, e) for e in (0, 2, 4) for n in "ab" for s in (3, 1)]
    assert calls[0][3].shape == (42, 8)
    first = [call[3] for call in calls if call[2] == 0]
    torch.testing.assert_close(first[0], first[2])  # methods start alike
    half = train_relabelled(network, METHODS, blobs, noisy, keep, every=2, epochs=2, **SETTINGS)
    x = torch.stack([clean(blobs(seed)[0]) for seed in (3, 1)])
    torch.testing.assert_close(
        torch.stack([call[3] for call in calls if call[:3:2] == ("a", 2)]), half.outputs("a", x, 0)
    )
    differ = (ours.history["a"] != plain.history["a"]).all(0)
    assert differ.nonzero()[0].item() == 2 * 4
    assert torch.equal(ours.history["b"], plain.history["b"])


def test_degenerate():
    with pytest.raises(ValueError, match="unique"):
        train_relabelled(network, [METHODS[0]] * 2, blobs, noisy, keep, **SETTINGS)
    with pytest.raises(ValueError, match="period"):
        train_relabelled(network, METHODS, blobs, noisy, keep, every=0, **SETTINGS)
    with pytest.raises(ValueError, match="target branch"):
        train_relabelled(network, [ViewMethod("m", loss, {"scale": 1.0}, momentum=0.9)], blobs, noisy, keep, **SETTINGS)
    with pytest.raises(ValueError, match="statistics"):
        train_relabelled(lambda: nn.BatchNorm1d(4), METHODS, blobs, noisy, keep, **SETTINGS)
    broken = [ViewMethod("nan", loss, {"scale": float("nan")})]
    with pytest.raises(NonFiniteLoss):
        train_relabelled(network, broken, blobs, noisy, keep, epochs=1, **SETTINGS)
