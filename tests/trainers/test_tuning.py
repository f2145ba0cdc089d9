"""Equal tuning: the settings, the choice on validation data, and that final seeds see nothing of it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lib.data import digits
from lib.losses.registry import LossEntry, Range, registered_losses
from lib.trainers import SGD, Method, train_paired
from lib.trainers.tuning import balanced_accuracy, halton, trials, tune_and_train

LR = Range(0.01, 1.0, log=True)
ENTRIES = {entry.name: entry for entry in registered_losses()}


def network(head):
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), head(16, 10))


def split(seed):
    return digits(seed, sizes=(100, 60, 80))


def rare(seed):
    """The same sizes; in the training part the last five classes have five samples each, drawn again and again."""
    whole = split(seed)
    rows = whole.train.y.argsort(stable=True)
    common, tail = (
        rows[whole.train.y[rows] < 5],
        torch.cat([(whole.train.y == k).nonzero()[:5, 0] for k in range(5, 10)]),
    )
    again = torch.cat([common, tail, tail, common])[:100]
    return replace(whole, train=whole.train[again])


def run(entry, tasks=None, **settings):
    defaults = {"count": 3, "lr": LR, "tuning_seeds": [7], "seeds": [1, 2], "epochs": 4, "batch_size": 20}
    tasks = tasks or {"digits": split, "rare": rare}
    return tune_and_train(entry, network, tasks, optimiser=SGD(momentum=0.9), device="cpu", **{**defaults, **settings})


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


@pytest.mark.parametrize("name", ["Cross-entropy", "Label smoothing", "Logit adjustment"])
def test_choice_has_the_best_validation_score_and_final_seeds_do_not_matter(name):
    found, other = run(ENTRIES[name]), run(ENTRIES[name], seeds=[2, 3])
    for task, one in found.items():
        assert one.scores.shape == (3,)
        assert one.best == int(one.scores.argmax())
        assert one.output.shape == (2, 80, 10)
        torch.testing.assert_close(other[task].scores, one.scores)
        torch.testing.assert_close(other[task].output[0], one.output[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["Poly-1", "Logit adjustment"])
def test_limit_one_task_at_a_time(name):
    """Tasks that train as one stack do not feel each other: settings and class counts are each run's own."""
    entry, tasks = ENTRIES[name], {"digits": split, "rare": rare}
    together = run(entry, tasks)
    data = {task: tasks[task](1) for task in tasks}
    for index, (task, one) in enumerate(together.items()):
        counts = data[task].train.y.bincount(minlength=10).clamp(min=1).float()
        method = Method("x", entry.bind(counts), one.trial.hyper, lr=one.trial.lr)
        alone = train_paired(
            lambda: network(nn.Linear),
            [method],
            lambda _, own=data[task]: (own.train.x, own.train.y),
            seeds=[1 * len(tasks) + index],
            optimiser=SGD(momentum=0.9),
            epochs=4,
            batch_size=20,
            device="cpu",
            vectorised=False,
        )
        torch.testing.assert_close(alone.logits("x", data[task].test.x)[0], one.output[0], rtol=1e-3, atol=1e-3)


def test_invariance_test_data_do_not_enter_the_choice():
    def hidden(seed):
        whole = split(seed)
        return replace(whole, test=whole.test[torch.zeros(80, dtype=torch.long)])

    entry = ENTRIES["Label smoothing"]
    first, second = (run(entry, {"x": data}, seeds=[1])["x"].scores for data in (split, hidden))
    torch.testing.assert_close(first, second)


def test_limit_one_setting_is_the_default():
    found = run(ENTRIES["Poly-1"], count=1)["digits"]
    assert found.best == 0
    assert dict(found.trial.hyper) == dict(ENTRIES["Poly-1"].defaults)


def test_degenerate():
    with pytest.raises(ValueError, match="0 settings"):
        trials(ENTRIES["Poly-1"], 0, LR)
    diverging = run(ENTRIES["Cross-entropy"], lr=Range(1e6, 1e8, log=True))["digits"]  # stopped, not raised
    assert diverging.scores.isfinite().all()
