"""The rule that compares two rankings of the same thing."""

import numpy as np
import pytest

from lib import claims, stats


def arrays(noise_method, noise_baseline):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(10, 4))
    return y + noise_method * rng.normal(size=y.shape), y + noise_baseline * rng.normal(size=y.shape), y


def test_value_by_hand_of_the_gain():
    y = [[1.0, 2.0], [3.0, 4.0]]
    outcome = claims.evaluate(claims.spearman_gain_above(y, [[4.0, 3.0], [2.0, 1.0]], y))
    assert outcome.effect == pytest.approx(2.0)  # rho 1 against rho -1
    assert outcome.n == 2


def test_parity_effect_is_the_difference_of_two_pooled_correlations():
    method, baseline, y = arrays(0.3, 1.0)
    outcome = claims.evaluate(claims.spearman_gain_above(method, baseline, y))
    rho = [stats.spearman(x.ravel(), y.ravel()) for x in (method, baseline)]
    assert outcome.effect == pytest.approx(rho[0] - rho[1])
    assert outcome.low < outcome.effect < outcome.high


@pytest.mark.parametrize(("noises", "holds"), [((0.1, 3.0), True), ((3.0, 0.1), False), ((0.3, 0.3), None)])
def test_limit_clear_gain_clear_loss_and_neither(noises, holds):
    assert claims.evaluate(claims.spearman_gain_above(*arrays(*noises))).holds is holds


def test_degenerate_shapes_and_values():
    method, baseline, y = arrays(1.0, 1.0)
    with pytest.raises(ValueError, match="units, k"):
        claims.spearman_gain_above(method, baseline[:5], y)
    with pytest.raises(ValueError, match="units, k"):
        claims.spearman_gain_above(method[0], baseline[0], y[0])
    method[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        claims.spearman_gain_above(method, baseline, y)
