"""Equal tuning: the settings, the choice on validation data, and that final seeds see nothing of it."""

import pytest
import torch
from torch import nn

from lib.data import digits
from lib.losses.registry import LossEntry, Range, registered_losses
from lib.trainers import SGD
from lib.trainers.tuning import balanced_accuracy, halton, trials, tune_and_train

LR = Range(0.01, 1.0, log=True)
ENTRIES = {entry.name: entry for entry in registered_losses()}


def network(head):
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), head(16, 10))


def split(seed):
    return digits(seed, sizes=(100, 60, 80))


def run(entry, **settings):
    defaults = {"count": 3, "lr": LR, "tuning_seeds": [7], "seeds": [1, 2], "steps": 20, "batch_size": 20}
    return tune_and_train(entry, network, split, optimiser=SGD(momentum=0.9), device="cpu", **{**defaults, **settings})


def test_value_by_hand_halton_and_balanced_accuracy():
    assert [halton(k, 2) for k in range(1, 8)] == [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]
    assert [halton(k, 3) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1 / 9])
    output = torch.eye(3)[torch.tensor([0, 0, 0, 1])]
    assert balanced_accuracy(output, torch.tensor([0, 0, 1, 1])) == pytest.approx((1 + 0.5) / 2)


def test_value_by_hand_settings():
    entry = LossEntry("x", nn.functional.mse_loss, defaults={"a": 2.0, "b": 1.0}, tunable={"a": Range(0.0, 3.0)})
    first, second, third = trials(entry, 3, LR)
    assert first.lr == pytest.approx(0.1)
    assert dict(first.hyper) == {"a": 2.0, "b": 1.0}
    assert second.lr == pytest.approx(0.01 * 100**0.25)
    assert dict(second.hyper) == {"a": pytest.approx(1.0), "b": 1.0}
    assert dict(third.hyper) == {"a": pytest.approx(2.0), "b": 1.0}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_invariance_all_settings_lie_in_their_ranges(entry):
    for trial in trials(entry, 9, LR):
        assert LR.low <= trial.lr <= LR.high
        assert set(trial.hyper) == set(entry.defaults)
        assert all(wide.low <= trial.hyper[name] <= wide.high for name, wide in entry.tunable.items()) or (
            trial.hyper == entry.defaults
        )


def test_choice_has_the_best_validation_score_and_final_seeds_do_not_matter():
    entry = ENTRIES["Cross-entropy"]
    found = run(entry)
    assert found.scores.shape == (3,)
    assert found.best == int(found.scores.argmax())
    assert found.output.shape == (2, 80, 10)
    other = run(entry, seeds=[2, 3])
    assert other.best == found.best
    torch.testing.assert_close(other.scores, found.scores)
    torch.testing.assert_close(other.output[0], found.output[1], rtol=1e-4, atol=1e-4)


def test_invariance_test_data_do_not_enter_the_choice():
    def hidden(seed):
        whole = split(seed)
        return type(whole)(whole.train, whole.val, whole.test[torch.zeros(80, dtype=torch.long)], whole.classes)

    entry = ENTRIES["Label smoothing"]
    common = {"count": 2, "lr": LR, "tuning_seeds": [7], "seeds": [1], "steps": 10, "batch_size": 20}
    pair = [
        tune_and_train(entry, network, data, optimiser=SGD(), device="cpu", **common).scores for data in (split, hidden)
    ]
    torch.testing.assert_close(*pair)


def test_limit_one_setting_is_the_default():
    found = run(ENTRIES["Poly-1"], count=1)
    assert found.best == 0
    assert dict(found.tried[0].hyper) == dict(ENTRIES["Poly-1"].defaults)


def test_degenerate():
    with pytest.raises(ValueError, match="0 settings"):
        trials(ENTRIES["Poly-1"], 0, LR)
    diverging = run(ENTRIES["Cross-entropy"], lr=Range(1e6, 1e8, log=True))  # stopped, not raised
    assert diverging.scores.isfinite().all()
