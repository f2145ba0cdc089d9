"""Tables as tasks: parts, scores, baselines and standardisation."""

import numpy as np
import pytest
import torch

from lib.trainers import (
    Logistic,
    Softmax,
    SquaredError,
    area_under_curve,
    hist_gbdt,
    mean_loss,
    mlp,
    table_error,
    table_task,
    z_scores,
)

SIZES = (120, 60, 60)


def test_parts_are_those_of_the_table():
    task = table_task("parity", [3, 4], SIZES)
    x, y = task.train
    assert x.shape == (2, 120, 64)
    assert y.shape == (2, 120)
    assert task.loss == Logistic()
    assert set(y.unique().tolist()) == {0, 1}
    digits = table_task("digits", [3, 4], SIZES)
    assert digits.loss == Softmax(10)
    torch.testing.assert_close(digits.train[0], x)
    torch.testing.assert_close(digits.train[1] % 2, y)
    assert table_task("diabetes", [3], SIZES).loss == SquaredError()
    with pytest.raises(ValueError, match="parity"):
        table_task("titanic", [0], SIZES)


def test_value_by_hand_scores():
    """Three of four signs right; squares 1, 1, 4, 0 around the target."""
    task = table_task("parity", [0], (100, 4, 4))
    y = torch.tensor([[1, 0, 1, 0]])
    task = type(task)(task.name, (0,), task.loss, task.train, task.val, (task.test[0], y))
    scores = torch.tensor([[[2.0], [-1.0], [-0.5], [-3.0]]])
    assert table_error(task, scores).tolist() == [0.25]
    assert area_under_curve(task, scores).tolist() == [1.0]
    expected = [np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0)), np.log1p(np.exp(0.5)), np.log1p(np.exp(-3.0))]
    assert mean_loss(task, scores)[0] == pytest.approx(np.mean(expected), rel=1e-6)
    line = type(task)("line", (0,), SquaredError(), task.train, task.val, (task.test[0], torch.zeros(1, 4)))
    values = torch.tensor([[[1.0], [-1.0], [2.0], [0.0]]])
    assert table_error(line, values)[0] == pytest.approx(1.5**0.5)
    assert mean_loss(line, values)[0] == pytest.approx(0.75)


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "diabetes"])
def test_baselines_beat_the_constant(name):
    sizes = (100, 30, 48) if name == "wine" else SIZES
    task = table_task(name, [0, 1], sizes)
    constant = task.loss.start(task.train[1].float() if task.regression else task.train[1])
    reference = mean_loss(task, constant.expand(2, len(task.test[1][0]), task.loss.outputs))
    for scores, chosen in (hist_gbdt(task, 20), mlp(task, [16], 10)):
        assert scores.shape == (2, sizes[2], task.loss.outputs)
        assert (mean_loss(task, scores) < reference).all()
        assert chosen.shape == (2,)


def test_invariance_hist_gbdt_is_the_model_stopped_there():
    """With as many iterations as were chosen, the last scores are those that were returned."""
    task = table_task("wine", [0], (100, 30, 48))
    scores, chosen = hist_gbdt(task, 15)
    again, last = hist_gbdt(task, int(chosen[0]))
    assert last[0] == chosen[0]
    torch.testing.assert_close(scores, again)


def test_z_scores():
    values = np.array([[[1.0, 2.0], [10.0, 10.0]], [[3.0, 4.0], [30.0, 50.0]]])
    standard = z_scores(values)
    np.testing.assert_allclose(standard.mean((0, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(standard.std((0, 2)), 1)
    np.testing.assert_allclose(z_scores(3 * values - 7), standard)
    with pytest.raises(ValueError, match="same"):
        z_scores(np.ones((2, 1, 3)))
    with pytest.raises(ValueError, match="methods"):
        z_scores(np.ones((2, 3)))
