"""GBNN: the weld, truncation, scikit-learn's network, the joint objective, and bad input."""

import math

import pytest
import torch

from lib.trainers import GBNN, Logistic, Softmax, SquaredError, train_jointly
from lib.trainers import gbnn as module

LOSSES = {"regression": SquaredError(), "binary": Logistic(), "classes": Softmax(3)}


def data(kind, runs=2, n=60, d=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(runs, n, d, generator=random)
    score = torch.sin(2 * x[..., 0]) + x[..., 1] * x[..., 2]
    if kind == "regression":
        return x, score
    return x, (score > 0).long() if kind == "binary" else (score > -0.5).long() + (score > 0.5).long()


@pytest.fixture(scope="module", params=LOSSES)
def fitted(request):
    x, y = data(request.param)
    loss = LOSSES[request.param]
    return x, y, loss, GBNN(8, 2, eta=0.5, max_iter=15).fit(x, y, loss, [0, 1])


def test_limit_weld_is_the_sum(fitted):
    x, _, _, boosted = fitted
    torch.testing.assert_close(boosted.to_single_network()(x), boosted.staged(x)[-1], atol=1e-10, rtol=0)


def test_limit_truncation_is_the_stage(fitted):
    x, _, _, boosted = fitted
    for blocks in (1, 3):
        torch.testing.assert_close(boosted.to_single_network(blocks)(x), boosted.staged(x)[blocks], atol=1e-10, rtol=0)
    with pytest.raises(ValueError, match="1 to 4"):
        boosted.to_single_network(0)


def test_invariance_training_loss_is_that_of_the_stages(fitted):
    x, y, loss, boosted = fitted
    y = y.double() if isinstance(loss, SquaredError) else y
    staged = torch.stack([loss.value(scores, y).mean(-1) for scores in boosted.staged(x)])
    torch.testing.assert_close(boosted.train_loss, staged)
    assert (boosted.train_loss[-1] < boosted.train_loss[0]).all()


def test_parity_sklearn_predicts_the_same():
    """The welded weights, put into scikit-learn's network, give the same predictions."""
    neural = pytest.importorskip("sklearn.neural_network")
    x, y = data("regression")
    net = GBNN(6, 2, eta=0.5, max_iter=15).fit(x, y, SquaredError(), [0, 1]).to_single_network()
    peer = neural.MLPRegressor(hidden_layer_sizes=(6,), activation="logistic", max_iter=1, solver="adam")
    with pytest.warns(Warning, match="Maximum iterations"):
        peer.fit(x[1].numpy(), y[1].numpy())
    peer.coefs_ = [net.inner[1].numpy(), net.outer[1].numpy()]
    peer.intercepts_ = [net.inner_bias[1, 0].numpy(), net.outer_bias[1, 0].numpy()]
    ours = net(x)[1, :, 0]
    torch.testing.assert_close(torch.from_numpy(peer.predict(x[1].double().numpy())), ours)


def test_parity_sklearn_fits_as_well():
    """One unit, one block, regression: the same minimum as scikit-learn's L-BFGS on y - mean(y)."""
    neural = pytest.importorskip("sklearn.neural_network")
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 80, 3, generator=random)
    y = torch.tanh(x @ torch.tensor([1.0, -0.5, 0.2])) * 1.5
    boosted = GBNN(1, 1, subsample=1.0, max_iter=400, decay=1e-2).fit(x, y, SquaredError(), [0])
    target = (y - y.mean())[0].double().numpy()
    peer = neural.MLPRegressor(
        hidden_layer_sizes=(1,), activation="logistic", solver="lbfgs", alpha=1e-2, max_iter=2000, tol=1e-12,
        random_state=0,
    ).fit(x[0].double().numpy(), target)  # fmt: skip
    theirs = torch.from_numpy(peer.predict(x[0].double().numpy())) + y.double().mean()
    torch.testing.assert_close(boosted.staged(x)[-1, 0, :, 0], theirs, atol=2e-3, rtol=0)


def test_value_by_hand_start():
    """Three of four ones: mean of the signs 1/2, half the log-odds 0.5 log 3 = 0.549306; in logits twice that."""
    x = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0))
    boosted = GBNN(1, max_iter=2, subsample=1.0).fit(x, torch.tensor([[1, 1, 1, 0]]), Logistic(), [0])
    assert boosted.start.item() == pytest.approx(0.549306, abs=1e-6)
    assert boosted.staged(x)[0, 0, 0, 0].item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("kind", [None, *LOSSES])
def test_gradcheck_objective(kind):
    """The gradient by hand is autograd's."""
    x, y = data(kind or "regression", n=9)
    loss = None if kind is None else LOSSES[kind]
    outputs = 2 if loss is None else loss.outputs
    if loss is None:
        y = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(1)).double()
    y = y.double() if kind == "regression" else y
    fit = module._Fit(x.double(), y, 3, outputs, torch.tensor([[0.1], [0.3]], dtype=torch.float64), loss)
    draw = [torch.Generator().manual_seed(seed) for seed in range(2)]
    flat = module._initial(draw, 4, 3, outputs).requires_grad_(True)
    value, gradient = fit(flat)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), flat)[0], gradient.detach())


def test_invariance_runs_do_not_see_one_another():
    x, y = data("classes", runs=3)
    together = GBNN(4, 2, eta=[0.1, 0.5, 1.0], max_iter=10).fit(x, y, Softmax(3), [3, 4, 5])
    alone = GBNN(4, 2, eta=0.5, max_iter=10).fit(x[1:2], y[1:2], Softmax(3), [4])
    torch.testing.assert_close(together.staged(x)[:, 1:2], alone.staged(x[1:2]))


def test_limit_joint_training_beats_its_start():
    x, y = data("classes")
    few, many = (train_jointly(x, y, Softmax(3), [0, 1], 5, [1e-4, 1e-4], steps)(x) for steps in (1, 60))
    assert (Softmax(3).value(many, y).mean(-1) < 0.5 * Softmax(3).value(few, y).mean(-1)).all()


def test_degenerate():
    x, y = data("binary")
    for settings in ({"num_nn_step": 0}, {"total_nn": 1, "num_nn_step": 2}, {"subsample": 0.0}):
        with pytest.raises(ValueError, match=r"num_nn_step|share"):
            GBNN(**settings)
    with pytest.raises(ValueError, match="R seeds"):
        GBNN(2).fit(x, y, Logistic(), [0])
    # Separable, full Newton steps: certain of everything, and still numbers.
    sure = GBNN(20, 2, eta=1.0, subsample=1.0, max_iter=20).fit(x, (x[..., 0] > 0).long(), Logistic(), [0, 1])
    assert sure.staged(x).isfinite().all()


def test_dtype_device():
    x, y = data("regression")
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        boosted = GBNN(2, max_iter=5).fit(x.to(device), y.to(device), SquaredError(), [0, 1])
        out = boosted.to_single_network()(x.to(device))
        assert (out.dtype, out.device.type, out.shape) == (torch.float64, device, (2, 60, 1))
        off = boosted.to_single_network()(x.to(device), keep=torch.zeros(2, device=device))
        torch.testing.assert_close(off, boosted.to_single_network().outer_bias.expand(2, 60, 1))
