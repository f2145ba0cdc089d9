"""The list of losses: every entry trains, and tuning stays within what the loss accepts."""

import pytest
import torch
import torch.nn.functional as F

from lib.losses import registry
from lib.losses.registry import LossEntry, Range, register_loss, registered_losses
from lib.losses.textbook import brier_loss, focal_loss, label_smoothing_loss
from lib.trainers import Method, train_paired

ENTRIES = registered_losses("classification")
COUNTS = torch.tensor([9.0, 6.0, 3.0])


def sample(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes, 9, 6 and 3 samples."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat_interleave(COUNTS.long())
    return torch.randn(len(y), 5, generator=generator) + 2 * F.one_hot(y, 5), y


def network(entry: LossEntry) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), (entry.head or torch.nn.Linear)(8, 3))


def test_names_of_entries() -> None:
    names = [entry.name for entry in ENTRIES]
    assert {"Cross-entropy", "Label smoothing", "Poly-1", "Dual focal", "Focal", "Brier"} <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_trains_as_a_stack(entry: LossEntry) -> None:
    """Defaults and both ends of every range, two seeds in one stack: the loss falls and stays finite."""
    loss = entry.bind(COUNTS)
    settings = [dict(entry.defaults)]
    settings += [{**entry.defaults, key: wide.at(end)} for key, wide in entry.tunable.items() for end in (0.0, 1.0)]
    methods = [Method(str(k), loss, hyper) for k, hyper in enumerate(settings)]
    trained = train_paired(lambda: network(entry), methods, sample, seeds=[0, 1], epochs=20, batch_size=18)
    for name in trained.parameters:
        history = trained.history[name]
        assert torch.isfinite(history).all()
        assert (history[:, -1] < history[:, 0]).all(), f"{entry.name} {settings[int(name)]}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_is_a_mean_over_the_batch(entry: LossEntry) -> None:
    torch.manual_seed(0)
    x, y = sample(0)
    output = network(entry).eval()(x)
    loss = entry.bind(COUNTS)
    once = loss(output, y, **entry.defaults)
    assert once.shape == ()
    torch.testing.assert_close(loss(torch.cat([output] * 3), torch.cat([y] * 3), **entry.defaults), once)


def test_value_by_hand_range() -> None:
    assert Range(1.0, 3.0).at(0.25) == 1.5
    assert Range(0.01, 1.0, log=True).at(0.5) == pytest.approx(0.1)
    for wrong in [(1.0, 1.0, False), (2.0, 1.0, False), (0.0, 1.0, True)]:
        with pytest.raises(ValueError, match="not a range"):
            Range(*wrong)


def test_degenerate_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    with pytest.raises(ValueError, match="registered twice"):
        register_loss("Poly-1", brier_loss)
    with pytest.raises(ValueError, match="without a default"):
        register_loss("New", focal_loss, tunable={"gamma": Range(0, 1)})
    for call in (lambda: register_loss("New", brier_loss, task="ranking"), lambda: registered_losses("ranking")):
        with pytest.raises(ValueError, match="task"):
            call()


def test_parity_of_textbook_losses_with_torch() -> None:
    torch.manual_seed(1)
    logits, y = torch.randn(20, 4, dtype=torch.float64), torch.randint(4, (20,))
    torch.testing.assert_close(label_smoothing_loss(logits, y, 0.3), F.cross_entropy(logits, y, label_smoothing=0.3))
    torch.testing.assert_close(focal_loss(logits, y, 0.0), F.cross_entropy(logits, y))
    p, one_hot = logits.softmax(-1), F.one_hot(y, 4)
    torch.testing.assert_close(brier_loss(logits, y), (p - one_hot).square().sum(-1).mean())
    p_y = p.gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(focal_loss(logits, y, 2.0), (-((1 - p_y) ** 2) * p_y.log()).mean())


@pytest.mark.parametrize("loss", [label_smoothing_loss, focal_loss, brier_loss])
def test_gradcheck_of_textbook_losses(loss: object) -> None:
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(2))
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.autograd.gradcheck(lambda z: loss(z, y), (logits,))  # type: ignore[operator]
