"""Training that goes nowhere is told, with its reason and remedy; training that is fine, or may yet be, is not."""

from __future__ import annotations

import json
import signal
import warnings
from functools import cache

import numpy as np
import pytest
from sklearn import datasets

import gpubp
from gpubp import MLPClassifier, MLPRegressor
from gpubp.data.samples import Samples
from gpubp.errors import TrainingWarning
from gpubp.functions import LOSSES
from gpubp.network import Network
from gpubp.optimizers import SGD, Adam, AdamW
from gpubp.training import trouble
from gpubp.training.budget import Budget
from gpubp.training.history import Epoch
from gpubp.training.loop import Loop
from gpubp.training.progress import BarProgress, PlainProgress, Progress
from gpubp.training.stopping import EarlyStopping
from gpubp.training.trouble import Lookout, constant_cost
from tests import param
from tests.networks import problem_of, samples_of

SCALE, LOWER, INIT = "scale the inputs (--standardize", "lower the learning rate", "use another init"
QUADRATIC = {"output": "sigmoid", "loss": "quadratic"}
BINARY = {"output": "sigmoid", "loss": "binary_cross_entropy"}
REGRESSION = {"output": "identity", "loss": "quadratic"}


@cache
def data_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets: those of scikit-learn, standardised but for "raw" ones; regression's are (N, outputs)."""
    name, _, how = name.partition(", ")
    rng = np.random.default_rng(0)
    if name == "mnist":
        train = gpubp.load_data("mnist-sample").train.take(np.arange(1500))
        return (train.inputs.astype(np.float32) if how else train.inputs), train.targets
    if name == "waves":
        x = rng.uniform(-1, 1, (500, 3))
        return x, np.c_[np.sin(3 * x[:, 0]), x[:, 1] * x[:, 2]]
    if name == "rare":
        return datasets.make_classification(1000, weights=[0.95], class_sep=2, random_state=0)
    if name == "moons":
        return datasets.make_moons(400, noise=0.1, random_state=0)
    if name == "friedman":
        x, y = datasets.make_friedman1(400, random_state=0)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    values = name in ("diabetes", "friedman")
    if how:
        return x, y.astype(float)[:, None] if values else y
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    return x, ((y - y.mean()) / y.std())[:, None] if values else y


def fitted(data, hidden="relu", widths=(32,), *, output="softmax", init="auto", seed=0, net=None, **settings):
    x, y = data_of(data) if isinstance(data, str) else data
    n_out = y.shape[1] if y.ndim == 2 else int(y.max()) + 1
    net = net or Network([x.shape[1], *widths, n_out], hidden=hidden, output=output, init=init, seed=seed)
    settings = {"backend": "numpy", "verify": "off", "epochs": 6, "batch_size": 64, "seed": seed, **settings}
    if settings.get("loss") == "binary_cross_entropy" and y.ndim == 1 and n_out > 1:
        y = np.eye(n_out)[y]
    return gpubp.fit(net, x, y, **settings)


def dead_net() -> Network:
    """A network whose ReLUs are all off from the start, for any image."""
    net = Network([784, 16, 10])
    net.parameters[0] = net.parameters[0][0], np.full(16, -100, np.float32)
    return net


# What goes nowhere, with what must be said of it: the reasons, and what helps.
NOWHERE = {
    "raw pixels kill ReLUs": (
        {"data": "mnist, raw"},
        ("the inputs are not scaled, but go from 0 to 255", "layer 1 (relu) is off for every sample"),
        (SCALE, LOWER),
    ),
    "and those of two layers": (
        {"data": "mnist, raw", "widths": (32, 32)},
        ("the inputs are not scaled", "(relu) is off"),
        (SCALE,),
    ),
    "raw columns kill ReLUs": (
        {"data": "wine, raw", "epochs": 20},
        ("the inputs are not scaled, but go from 0.13 to 1680", "layer 1 (relu) is off"),
        (SCALE,),
    ),
    "raw pixels saturate tanh": (
        {"data": "mnist, raw", "hidden": "tanh", "widths": (64, 64), "epochs": 8, "seed": 2},
        ("the inputs are not scaled", "layer 1 (tanh) is saturated"),
        (SCALE,),
    ),
    "raw columns saturate sigmoids": (
        {"data": "wine, raw", "hidden": "sigmoid", "epochs": 30},
        ("the inputs are not scaled", "layer 1 (sigmoid) is saturated"),
        (SCALE,),
    ),
    "saturated outputs of a loss that does not mind": (
        {"data": "mnist", "hidden": "sigmoid", **BINARY, "optimizer": SGD(100.0)},
        ("of layer 1 (sigmoid) is saturated",),
        (LOWER,),
    ),
    "a learning rate that kills ReLUs": (
        {"data": "mnist", "optimizer": SGD(5.0)},
        ("of layer 1 (relu) is off",),
        (f"{LOWER} (5)",),
    ),
    "a loss that rose and stayed": (
        {
            "data": "mnist",
            "optimizer": SGD(0.3, momentum=0.97),
            "hidden": "tanh",
            "widths": (32, 32),
            "epochs": 8,
        },
        ("training goes the wrong way: the loss rose from",),
        (f"{LOWER} (0.3)",),
    ),
    "saturated hidden sigmoids": (
        {"data": "mnist", "hidden": "sigmoid", "optimizer": SGD(100.0)},
        ("of layer 1 (sigmoid) is saturated",),
        (f"{LOWER} (100)",),
    ),
    "saturated outputs": (
        {"data": "digits", **QUADRATIC, "optimizer": SGD(50.0)},
        ("of the output layer (sigmoid) is saturated, where the loss quadratic has hardly a gradient",),
        (f"{LOWER} (50)", "use loss cross_entropy with output softmax"),
    ),
    "large weights, sigmoids": (
        {"data": "mnist", "hidden": "sigmoid", "widths": (512,), "init": "normal", **QUADRATIC},
        (
            "the weights of layer 1 were large from the start",
            "1 (sigmoid) is saturated",
            "of the output layer",
        ),
        (INIT,),
    ),
    "large weights, ReLUs": (
        {"data": "mnist", "widths": (256, 256), "init": "normal"},
        ("the weights of layer 1 were large from the start",),
        (INIT,),
    ),
    "an error that fades": (
        {"data": "mnist", "hidden": "sigmoid", "widths": (30,) * 6},
        ("of the error at the outputs gets back to layer 1",),
        ("take fewer layers, or tanh or relu", INIT, "train for more epochs"),
    ),
    "large targets": (
        {"data": "diabetes, raw", **REGRESSION, "optimizer": Adam(), "epochs": 20},
        ("the targets are not scaled, but go from",),
        ("scale the targets to mean 0 and deviation 1",),
    ),
    "large targets kill ReLUs": (
        {"data": "diabetes, raw", **REGRESSION, "widths": (32, 32), "optimizer": Adam(1.0), "epochs": 60},
        ("the targets are not scaled",),
        ("scale the targets",),
    ),
    "inputs that are all the same": (
        {"data": (np.ones((300, 5)), np.arange(300) % 3)},
        ("the inputs hardly differ from sample to sample",),
        (SCALE,),
    ),
    "tiny inputs": (
        {"data": (data_of("digits")[0] * 1e-6, data_of("digits")[1]), "optimizer": SGD(0.01)},
        ("the inputs hardly differ",),
        (SCALE,),
    ),
    "too much weight decay": (
        {"data": "mnist", "optimizer": SGD(0.1, weight_decay=1.0)},
        ("the weights of layer 1 shrank to nothing",),
        ("lower the weight decay (1)",),
    ),
    "a learning rate far too low": (
        {"data": "mnist", "optimizer": SGD(1e-6)},
        (),
        ("train for more epochs", "raise the learning rate (1e-06)"),
    ),
}


@pytest.mark.parametrize("name", NOWHERE)
def test_training_that_goes_nowhere_says_why_and_what_helps(name):
    settings, reasons, remedies = NOWHERE[name]
    with pytest.warns(TrainingWarning) as warned:
        history = fitted(**settings)
    (said,) = history.warnings
    assert [str(w.message) for w in warned] == [said]
    assert warned[0].filename == __file__
    assert "\n" not in said
    why, what = said.split(". What helps: ")
    assert why.startswith("training goes ")
    assert all(reason in why for reason in reasons), why
    assert all(remedy in what for remedy in remedies), what
    assert (SCALE in what) == (SCALE in remedies)
    assert not (SCALE in what and INIT in what)
    assert ("of the output layer" in why) == any("of the output layer" in reason for reason in reasons)


@pytest.mark.parametrize("seed", range(6))
def test_a_loss_that_stays_is_told_even_where_luck_put_it_below_that_of_one_answer(seed):
    with pytest.warns(TrainingWarning, match="goes nowhere: in 20 epochs the loss has stayed at") as warned:
        history = fitted("iris", optimizer=SGD(1e-9), epochs=20, widths=(8,), seed=seed)
    assert len(warned) == 1
    assert "raise the learning rate (1e-09)" in history.warnings[0]
    assert "lower the learning rate" not in history.warnings[0]


def test_a_loss_that_stays_where_it_was_learned_is_no_trouble():
    settings = {"optimizer": SGD(0.1), "epochs": 150, "widths": (8,)}
    net = Network([4, 8, 3], hidden="relu", output="softmax", seed=0)
    assert not fitted("iris", net=net, **settings).warnings
    again = fitted("iris", net=net, **settings | {"optimizer": SGD(1e-9), "epochs": 5})
    assert np.ptp(again["loss"]) < 1e-6
    assert not again.warnings


OPTIMIZERS = {
    "sgd": SGD(0.1),
    "momentum": SGD(0.03, momentum=0.9),
    "adam": Adam(0.003),
    "adamw": AdamW(0.003, weight_decay=0.01),
}
CLASSES = ("iris", "wine", "breast_cancer", "digits", "moons", "mnist", "rare")
VALUES = ("diabetes", "friedman", "waves")
TASKS = [
    *((data, "softmax", "cross_entropy") for data in CLASSES),
    *((data, "sigmoid", "binary_cross_entropy") for data in CLASSES),
    *((data, "sigmoid", "quadratic") for data in CLASSES),
    *((data, "identity", loss) for data in VALUES for loss in ("quadratic", "squared_error")),
]
ACTIVATIONS = ("relu", "tanh", "leaky_relu", "lecun_tanh", "sigmoid")
FINE = [
    (task, optimizer, hidden, depth, seed)
    for task in TASKS
    for optimizer in OPTIMIZERS
    for hidden in ACTIVATIONS
    for depth in (1, 2)
    for seed in (0, 1)
    if hidden != "sigmoid" or depth == 1  # deeper ones need more epochs before they learn
]


@pytest.mark.parametrize(
    ("task", "optimizer", "hidden", "depth", "seed"),
    [param(*case, always=number % 31 == 0) for number, case in enumerate(FINE)],
)
def test_training_that_is_fine_says_nothing(task, optimizer, hidden, depth, seed):
    data, output, loss = task
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = {"optimizer": OPTIMIZERS[optimizer], "batch_size": 16, "epochs": 15, "backend": "numba"}
        history = fitted(data, hidden, (24,) * depth, output=output, loss=loss, seed=seed, **chosen)
    assert history.warnings == []
    assert history["loss"][-1] < history["loss"][0]


def samples_with(y, weight=None):
    weight = np.ones(len(y)) if weight is None else weight
    return Samples(np.zeros((len(y), 1)), np.asarray(y, float), np.asarray(weight, float))


@pytest.mark.parametrize("rows", [3, 1 << 13])
@pytest.mark.parametrize("loss", LOSSES)
def test_no_answer_costs_less_than_the_best_constant_one(loss, rows, rng, monkeypatch):
    monkeypatch.setattr(trouble, "_ROWS", rows)
    y, weight = rng.dirichlet(np.ones(4), 40), rng.uniform(0, 2, 40) * (rng.random(40) < 0.7)
    cost = LOSSES[loss].cost
    least = constant_cost(samples_with(y, weight), LOSSES[loss])
    mean = weight @ y / weight.sum()
    assert least == pytest.approx((weight * cost(mean[None], y)).sum() / 40, rel=1e-12)
    for _ in range(50):
        other = mean * np.exp(rng.normal(0, 0.1, 4))
        other = other / other.sum() if loss == "cross_entropy" else np.minimum(other, 0.999)
        assert (weight * cost(other[None], y)).sum() / 40 > least


def test_the_best_constant_cost_is_entropy_or_variance(rng):
    y = np.eye(3)[[0, 0, 0, 1, 1, 2]]
    shares = np.array([3, 2, 1]) / 6
    entropy = -(shares * np.log(shares)).sum()
    both = entropy - ((1 - shares) * np.log(1 - shares)).sum()
    assert constant_cost(samples_with(y), LOSSES["cross_entropy"]) == pytest.approx(entropy, rel=1e-12)
    assert constant_cost(samples_with(y), LOSSES["binary_cross_entropy"]) == pytest.approx(both, rel=1e-12)
    far = 1e6 + rng.normal(size=(1000, 2))  # squares of such numbers would cancel
    halved = far.var(axis=0).sum() / 2
    assert constant_cost(samples_with(far), LOSSES["quadratic"]) == pytest.approx(halved, rel=1e-8)
    assert constant_cost(samples_with(far), LOSSES["squared_error"]) == pytest.approx(2 * halved, rel=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
def test_where_one_answer_is_right_there_is_nothing_to_learn(loss):
    y = np.tile([0.0, 1.0], (20, 1))
    weight = np.ones(20)
    y[3], weight[3] = (1.0, 0.0), 0.0
    assert constant_cost(samples_with(y, weight), LOSSES[loss]) == np.inf


@pytest.mark.parametrize("data", [(data_of("digits")[0], np.zeros(1797, int)), "digits"])
def test_a_single_class_or_a_short_run_says_nothing_uncertain(data):
    slow = (
        {"optimizer": SGD(1e-4), **QUADRATIC}
        if data == "digits"
        else {"output": "sigmoid", "loss": "quadratic"}
    )
    assert fitted(data, "sigmoid", epochs=2, **slow).warnings == []


@pytest.mark.filterwarnings("ignore::gpubp.errors.TrainingWarning")
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_short_run_says_what_is_certain(epochs):
    (said,) = fitted("mnist", net=dead_net(), epochs=epochs).warnings
    assert "all of layer 1 (relu) is off" in said


class Told(Progress):
    """Keeps what is told while a run goes on, with the epoch by then."""

    def __init__(self):
        self.now, self.warnings = 0, []

    def epoch(self, epoch):
        self.now = epoch.epoch

    def warning(self, message):
        self.warnings.append((self.now, message))


@pytest.mark.filterwarnings("ignore::gpubp.errors.TrainingWarning")
def test_what_is_certain_is_told_at_once_and_once(monkeypatch):
    monkeypatch.setattr(trouble, "SIGNALS", Budget(np.inf, 1))  # however slow the machine is
    told = Told()
    history = fitted("mnist", net=dead_net(), epochs=40, progress=told)
    assert told.warnings == [(3, history.warnings[0])]
    assert history.to_dict()["warnings"] == history.warnings


def rare(share=0.05, tells=False, n=1000):
    """Inputs that tell nothing of a rare class, or all."""
    rng = np.random.default_rng(5)
    y = (np.arange(n) % round(1 / share) == 0).astype(np.int64)
    x = rng.standard_normal((n, 3)) + (3 * y[:, None] if tells else 0)
    return x, y


RARE = {"widths": (8,), "batch_size": 16, "epochs": 10}


@pytest.mark.filterwarnings("ignore::gpubp.errors.TrainingWarning")
@pytest.mark.parametrize("more", [{}, {"optimizer": Adam(0.01)}, {"epochs": 20, "optimizer": SGD(0.01)}])
def test_a_network_that_gives_every_sample_the_commonest_class_says_so(more):
    history = fitted(rare(), **RARE | more)
    (said,) = history.warnings
    assert history.epochs[-1].accuracy == 0.95
    assert said.startswith("every sample gets the same class, that of 95% of them. What helps: ") or (
        said.startswith("training goes nowhere")
    )


def test_a_rare_class_that_is_learned_is_no_trouble():
    for share in (0.05, 0.2):
        history = fitted(rare(share, tells=True), **RARE, optimizer=Adam(0.01))
        assert history.epochs[-1].accuracy > 0.96
        assert history.warnings == []


@pytest.mark.parametrize(("held", "trouble"), [(0.11, False), (1.7, True), (None, True)])
def test_an_epoch_of_one_step_is_judged_by_where_it_ends(held, trouble):
    """The training loss is that of before the step; what is evaluated after it may be right already."""
    x, y = rare(0.5, tells=True, n=48)
    net = Network([3, 8, 2], seed=0)
    problem = problem_of(net, samples_of(net, x, y), batch=48)
    epochs = [Epoch(i, 2.0 - 0.05 * i, 0.5, held, 0.9, 0.1, 0.001) for i in (1, 2, 3)]
    told = Lookout(problem, classification=True).at_end(epochs, lambda: net.parameters, cut=False)
    assert bool(told) == trouble


@pytest.mark.parametrize("kind", [PlainProgress, BarProgress])
def test_progress_tells_it_in_one_line(kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with kind() as shown:
        shown.warning("[all] of it " * 30)
    assert f"warning: {'[all] of it ' * 30}".rstrip() in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::gpubp.errors.TrainingWarning")
@pytest.mark.parametrize("name", ["saturated outputs", "an error that fades", "a learning rate far too low"])
def test_what_is_not_certain_is_told_at_the_end(name):
    told = Told()
    assert len(fitted(**NOWHERE[name][0], progress=told).warnings) == 1
    assert told.warnings == []


def test_a_plateau_before_learning_is_no_trouble():
    bits = ((np.arange(512)[:, None] >> np.arange(9)) & 1).astype(float)
    slow = {"optimizer": SGD(0.02, momentum=0.9), "init": "normal", "backend": "numba", **QUADRATIC}
    history = fitted((bits, np.arange(512) & 1), "sigmoid", (3, 3), epochs=600, seed=2, **slow)
    losses, constant = np.array(history["loss"]), 0.25
    assert (losses > 0.98 * constant).sum() > 100
    assert losses[-1] < 0.1 * constant
    assert history.warnings == []


@pytest.mark.filterwarnings("ignore::gpubp.errors.TrainingWarning")
def test_looking_out_changes_no_bit(monkeypatch):
    results = []
    for looks in (True, False):
        if not looks:
            monkeypatch.setattr(Loop, "_look_out", lambda *_: None)
            monkeypatch.setattr(Loop, "_look_back", lambda *_: None)
        net = Network([784, 16, 10])
        history = fitted("mnist, raw", net=net)
        figures = history["loss"], history["accuracy"]
        results.append(
            (bool(history.warnings), figures, [p.tobytes() for pair in net.parameters for p in pair])
        )
    (warned, *ours), (silent, *theirs) = results
    assert (warned, silent) == (True, False)
    assert ours == theirs


def looks_of(monkeypatch, **settings) -> int:
    """How often the network itself was looked at in a run."""
    looks, look = [], Lookout._case
    monkeypatch.setattr(Lookout, "_case", lambda *given: looks.append(1) or look(*given))
    fitted(**settings)
    return len(looks)


def test_a_network_that_learns_is_never_looked_at(monkeypatch):
    assert looks_of(monkeypatch, data="digits", epochs=30) == 0


def test_what_is_on_its_way_is_no_trouble():
    history = fitted("iris", "tanh", (100,), optimizer=SGD(0.001), batch_size=32, epochs=4)
    assert history["loss"][-1] > np.log(3)  # what one answer for all costs
    assert history.warnings == []


@pytest.mark.filterwarnings("ignore::gpubp.errors.TrainingWarning")
def test_one_that_does_not_is_looked_at_seldom(monkeypatch):
    slow = {"data": "moons", "hidden": "sigmoid", "optimizer": SGD(1e-6), **QUADRATIC, "widths": (3,)}
    assert 10 < looks_of(monkeypatch, epochs=500, batch_size=400, **slow) < 90


@pytest.mark.filterwarnings("ignore::gpubp.errors.TrainingWarning")
def test_samples_without_weight_do_not_count():
    y = data_of("digits")[1]
    weight = (y < 2).astype(float)
    assert (
        fitted("digits", sample_weight=weight, epochs=20).warnings == []
    )  # though it never learns the others
    x = np.where(weight[:, None] > 0, data_of("digits")[0], 1e6)
    slow = {"optimizer": SGD(1e-6), **QUADRATIC}
    (said,) = fitted((x, y), "sigmoid", sample_weight=weight, **slow).warnings
    assert "inputs" not in said


@pytest.mark.filterwarnings("ignore::gpubp.errors.TrainingWarning")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_sparse_inputs_are_looked_at_too(backend):
    from scipy import sparse

    x, y = data_of("mnist, raw")
    (said,) = fitted((sparse.csr_array(x), y), backend=backend).warnings
    assert "the inputs are not scaled, but go from 0 to 255" in said


@pytest.mark.filterwarnings("ignore::gpubp.errors.TrainingWarning")
@pytest.mark.parametrize("how", ["callback", "early stopping", "resume", "single output"])
def test_every_kind_of_run_is_looked_at(how, tmp_path):
    x, y = data_of("mnist, raw")
    settings = {
        "callback": {"callbacks": [lambda epoch, network: epoch.epoch == 4]},
        "early stopping": {"validation": (x[:200], y[:200]), "early_stopping": EarlyStopping(2)},
        "resume": {"resume": tmp_path / "checkpoint.npz"},
        "single output": {"output": "sigmoid", "loss": "binary_cross_entropy"},
    }[how]
    if how == "resume":
        fitted("mnist, raw", epochs=2, save_to=tmp_path / "checkpoint.npz")
    if how == "single output":
        y = (y < 5).astype(float)[:, None]
    history = fitted((x, y), epochs=9, **settings)
    assert len(history.warnings) == 1
    assert SCALE in history.warnings[0]
    assert history.stopped == (how if how in ("callback", "early stopping") else "done")


def test_a_run_cut_short_says_nothing_uncertain(monkeypatch):
    monkeypatch.setattr(Loop, "_next_chunk", lambda self: 1)

    def stop(epoch, network):
        if epoch.epoch == 4:
            signal.raise_signal(signal.SIGINT)

    slow = {"optimizer": SGD(1e-6), "callbacks": [stop], **QUADRATIC}
    history = fitted("digits", "sigmoid", epochs=50, **slow)
    assert history.stopped == "interrupted"
    assert history.warnings == []


def test_estimators_warn_at_the_line_that_called():
    x, y = data_of("mnist, raw")
    with pytest.warns(TrainingWarning, match="StandardScaler, or inputs / 255, in Python") as warned:
        MLPClassifier((16,), solver="sgd", learning_rate_init=0.1, random_state=0).fit(x, y)
    assert {w.filename for w in warned} == {__file__}
    x, y = data_of("diabetes, raw")
    with pytest.warns(TrainingWarning, match="scale the targets"):
        MLPRegressor((16,), max_iter=20, random_state=0).fit(x, y[:, 0])


RAW = ("--backend", "numpy", "--threads", 1, "--epochs", 12, "--batch-size", 8, "--layers", "784-4-10")


@pytest.fixture
def raw_csv(run):
    x, y = data_of("mnist, raw")
    head = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    np.savetxt("train.csv", np.c_[y, x][:600], fmt="%d", delimiter=",", header=head, comments="")


def test_the_command_says_so_while_it_trains_and_at_its_end(run, raw_csv):
    code, out, err = run("train", "--data", "train.csv", *RAW, "--folder", "run", "--json", "result.json")
    assert code == 0, err
    with open("result.json") as file:
        (said,) = json.load(file)["splits"][0]["warnings"]
    lines = err.splitlines()
    told = [i for i, line in enumerate(lines) if line == f"warning: {said}"]
    assert len(told) == 2
    assert any(line.startswith("epoch 12/12") for line in lines[told[0] : told[1]])
    assert "TrainingWarning" not in out + err
    assert SCALE in said
    with open("run/report.html", encoding="utf-8") as file:
        assert '<p class="note">Training goes nowhere: ' in file.read()
    code, _, err = run("train", "--data", "train.csv", *RAW, "--standardize", "--lr", 0.01, "-q")
    assert (code, err) == (0, "")


def test_the_command_says_of_which_split(run, raw_csv):
    code, _, err = run("train", "--data", "train.csv", *RAW, "--splits", 2, "-q", "--no-report")
    assert code == 0, err
    heads = [line.split(": ")[:3] for line in err.splitlines()]
    assert heads == [["warning", f"split {split}", "training goes nowhere"] for split in (1, 2)]


def test_much_dropout_is_the_first_remedy():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 10)), rng.integers(0, 3, 200)
    for dropout, first in (([0, 0.9], True), ([0, 0.1], False)):
        network = Network([10, 20, 3], seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            how = {"optimizer": SGD(1e-6), "epochs": 6, "backend": "numpy", "dropout": dropout}
            (said,) = gpubp.fit(network, x, y, **how).warnings
        assert ("What helps: lower the dropout (0.9), or" in said) == first
