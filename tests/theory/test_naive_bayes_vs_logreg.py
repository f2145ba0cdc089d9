"""Gaussian naive Bayes against scikit-learn, pooled statistics, the limit at the Bayes rule, sample sizes by hand."""

import math

import pytest
import torch

from lib.data.gaussian_classes import constant_gap, growing_gap
from lib.theory.naive_bayes_vs_logreg import GaussianNBHead, LogisticHead, logistic_h_consistency, samples_to_asymptote


def sample(classes: int = 3, n: int = 4, m: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(classes, (m,), generator=generator)
    scale = torch.tensor([0.5, 1.0, 2.0, 7.0], dtype=torch.float64)[:n]
    return y[:, None] + scale * torch.randn(m, n, generator=generator, dtype=torch.float64) + 50, y


def test_parity_with_scikit_learn() -> None:
    naive_bayes = pytest.importorskip("sklearn.naive_bayes")
    x, y = sample()
    for smoothing in (1e-9, 0.1):
        peer = naive_bayes.GaussianNB(var_smoothing=smoothing).fit(x.numpy(), y.numpy())
        ours = GaussianNBHead(3, smoothing=smoothing).update(x, y).log_proba(x)
        torch.testing.assert_close(ours, torch.from_numpy(peer.predict_log_proba(x.numpy())), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_parity_logistic_with_scikit_learn(c: float, standardise: bool) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = sample()
    given = (x - x.mean(0)) / (x.std(0, correction=0) if standardise else 1)
    peer = linear.LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(given.numpy(), y.numpy())
    head = LogisticHead(c, standardise).fit(x, y)
    scores = x @ head.weight[:-1] + head.weight[-1]
    expected = torch.from_numpy(peer.decision_function(given.numpy()))
    torch.testing.assert_close(scores - scores.mean(1, keepdim=True), expected, rtol=0, atol=2e-3)
    assert torch.equal(head.predict(x), scores.argmax(1))


def test_value_by_hand_shared_variance() -> None:
    """Means 0.5 and 4.5, variance 1/4 in both: log odds at x are (4.5 - 0.5) (x - 2.5) / (1/4)."""
    x, y = torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])
    head = GaussianNBHead(2, "shared", 0.0).update(x, y)
    at = torch.tensor([[2.5], [2.6]], dtype=torch.float64)
    log_p = head.log_proba(at)
    assert (log_p[:, 1] - log_p[:, 0]).tolist() == pytest.approx([0, 16 * 0.1])


def test_invariance_two_halves_are_the_whole() -> None:
    x, y = sample()
    for var in ("per_class", "shared"):
        whole = GaussianNBHead(3, var).update(x, y)
        parts = GaussianNBHead(3, var).update(x[:20], y[:20]).update(x[20:21], y[20:21]).update(x[21:], y[21:])
        torch.testing.assert_close(parts.log_proba(x), whole.log_proba(x))


def test_limit_shared_variance_is_linear() -> None:
    """Differences of log-probabilities are affine in x, as those of logistic regression."""
    x, y = sample()
    log_p = GaussianNBHead(3, "shared").update(x, y).log_proba(x)
    odds = log_p[:, 1:] - log_p[:, :1]
    design = torch.cat([x, torch.ones(len(x), 1)], 1)
    fitted = design @ torch.linalg.lstsq(design, odds).solution
    torch.testing.assert_close(fitted, odds, rtol=1e-6, atol=1e-6)


def test_limit_one_sample_a_class_is_the_nearest_mean() -> None:
    """Without any within-class variance every feature has the same smoothed one."""
    x = torch.tensor([[0.0, 0.0], [3.0, 1.0], [-2.0, 4.0]])
    at = torch.randn(30, 2, generator=torch.Generator().manual_seed(1)) * 3
    head = GaussianNBHead(3, "shared").update(x, torch.arange(3))
    assert torch.equal(head.predict(at), torch.cdist(at, x).argmin(1))


@pytest.mark.parametrize("world", ["growing", "constant"])
def test_limit_bayes_rule(world: str) -> None:
    """On independent Gaussians of equal variance the head tends to the Bayes rule."""
    generator = torch.Generator().manual_seed(2)
    mixture = growing_gap(8) if world == "growing" else constant_gap(8, generator)
    x, y = mixture.draw(20_000, generator)
    new, true = mixture.draw(4_000, generator)
    ours = (GaussianNBHead(5, "shared").update(x, y).predict(new) != true).double().mean()
    assert abs(ours - (mixture.bayes(new) != true).double().mean()) < 0.005


def test_parity_bayes_rule_with_the_density() -> None:
    """The closed form of the correlated Bayes rule against torch's multivariate normal."""
    generator = torch.Generator().manual_seed(3)
    mixture = growing_gap(6, correlation=0.6)
    x, _ = mixture.draw(50, generator)
    r, s = mixture.correlation, mixture.deviation
    covariance = s[:, None] * ((1 - r) * torch.eye(6) + r) * s
    density = torch.distributions.MultivariateNormal(mixture.means, covariance)
    assert torch.equal(mixture.bayes(x), density.log_prob(x[:, None]).argmax(1))
    big, y = growing_gap(6, correlation=0.6).draw(40_000, generator)
    centred = ((big - mixture.means[y]) / s).T
    assert torch.corrcoef(centred).fill_diagonal_(0.6).sub(0.6).abs().max() < 0.01


def test_value_by_hand_gaps() -> None:
    growing = growing_gap(4, 3)
    assert growing.means[:, 0].tolist() == [-1, 1, 2]
    assert growing.deviation.tolist() == [2, 2, 1, 1]
    distances = [torch.pdist(constant_gap(n, torch.Generator().manual_seed(0)).means).mean() for n in (64, 1024)]
    assert all(3.0 < distance < 3.4 for distance in distances)
    for wrong in ({"n": 1}, {"n": 4, "classes": 1}, {"n": 4, "correlation": 1.0}):
        with pytest.raises(ValueError, match="need two"):
            growing_gap(**wrong)


def test_value_by_hand_samples_to_asymptote() -> None:
    """The error halves from 0.4 at 10 to 0.2 at 40: it is 0.3 half-way in log m, at 20."""
    curve = {10: 0.4, 40: 0.2, 160: 0.1}
    assert samples_to_asymptote(curve.__getitem__, list(curve), 0.25) == pytest.approx(20)
    assert samples_to_asymptote(curve.__getitem__, list(curve), 0.5) == 10
    assert samples_to_asymptote(curve.__getitem__, list(curve), 0.0) == math.inf
    asked = []
    samples_to_asymptote(lambda m: asked.append(m) or curve[m], list(curve), 0.16, 0.05)
    assert asked == [10, 40]  # it stops there
    with pytest.raises(ValueError, match="rising"):
        samples_to_asymptote(curve.__getitem__, [40, 10], 0.1)


def test_limit_pinsker() -> None:
    """Psi(b) >= b^2 / 2, with equality of the second derivative at 0, and log 2 at 1."""
    b = torch.linspace(0, 1, 101, dtype=torch.float64)
    psi = logistic_h_consistency(b)
    assert (psi >= b.square() / 2 - 1e-15).all()
    assert (psi[1] / b[1] ** 2).item() == pytest.approx(0.5, abs=1e-4)
    assert psi[-1].item() == pytest.approx(math.log(2))


def test_degenerate() -> None:
    x, y = sample()
    head = GaussianNBHead(4).update(x, y)  # nobody in class 3
    assert (head.log_proba(x)[:, 3] == -torch.inf).all()
    assert head.log_proba(x).exp().sum(1).allclose(torch.ones(len(x), dtype=torch.float64))
    assert head.log_proba(x * torch.nan).isnan().any()
    assert head.update(x[:0], y[:0]).count.sum() == len(x)
    for call in (
        lambda: GaussianNBHead(1),
        lambda: GaussianNBHead(2, "full"),
        lambda: GaussianNBHead(2).log_proba(x),
        lambda: GaussianNBHead(2).update(x, y),
        lambda: LogisticHead(0.0),
        lambda: LogisticHead().fit(x, torch.zeros_like(y)),
    ):
        with pytest.raises(ValueError, match=r"need|no samples"):
            call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(dtype: torch.dtype) -> None:
    x, y = sample()
    assert GaussianNBHead(3).update(x.to(dtype), y).log_proba(x.to(dtype)).dtype == torch.float64
