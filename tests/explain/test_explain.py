"""The microscope: what it computes, what it says of it, and ``gpubp explain``."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

import gpubp
from gpubp import Network, reference
from gpubp.data.samples import Samples
from gpubp.errors import GpubpError
from gpubp.experiments.parts import load_parts
from gpubp.experiments.recipe import load_recipe
from gpubp.explain import microscope, words
from gpubp.explain.terminal import bar
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.optimizers import SGD, Adam, AdamW
from gpubp.randomness.deform import Deformation
from tests import param
from tests.browser import opened, problems
from tests.conftest import small_data, small_net
from tests.networks import EVERY_OPTIMIZER, assert_same, samples_of


def look(name="parity", batch_size=None, **changes):
    """The walk of a recipe's new network over its first mini-batch."""
    recipe = load_recipe(name).overridden(changes)
    network = microscope.in_float64(recipe.network(recipe.seed))
    train = load_parts(recipe, recipe.seed, None, True).train
    samples = samples_of(network, train.inputs, train.targets, loss=recipe.loss)
    order = microscope.first_order(len(samples), batch_size or recipe.batch_size, recipe.seed)
    return walk(network, samples.take(order), recipe.loss, recipe.build_optimizer())


def walk(network, samples, loss, *how):
    return microscope.walk(network, samples, LOSSES[loss], *how)


def some_samples(net, rng, n=6, loss="quadratic"):
    x, y = small_data(rng, n, net.sizes[0], net.sizes[-1])
    return samples_of(net, x, y, loss=loss)


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
def test_a_walk_takes_the_step_that_training_takes(optimizer, rng):
    net = small_net()
    x, y = small_data(rng, 10)
    step = walk(net, samples_of(net, x, y), "cross_entropy", optimizer)
    gpubp.fit(net, x, y, optimizer=optimizer, batch_size=10, epochs=1, backend="numpy", verify="off")
    for layer, (weights, bias) in zip(step.layers, net.parameters, strict=True):
        np.testing.assert_allclose(layer.updated[0], weights, rtol=1e-12)
        np.testing.assert_allclose(layer.updated[1], bias, rtol=1e-12, atol=1e-15)
    assert optimizer.formula in words.rule(step)
    assert "W ← W − η" in words.rule(step)


def test_the_first_mini_batch_is_the_one_training_takes_first(rng):
    x, y = small_data(rng, 16)
    net, optimizer = small_net(), SGD(lr=0.3)
    samples = samples_of(net, x, y)
    first = samples.take(microscope.first_order(16, 8, seed=4))
    middle = small_net()
    middle.parameters = [layer.updated for layer in walk(net, first, "cross_entropy", optimizer).layers]
    rest = samples.take(np.random.default_rng(4).permutation(16)[8:])
    after = walk(middle, rest, "cross_entropy", optimizer)
    settings = {"batch_size": 8, "epochs": 1, "backend": "numpy", "verify": "off", "seed": 4}
    gpubp.fit(net, x, y, loss="cross_entropy", optimizer=optimizer, **settings)
    for layer, (weights, _) in zip(after.layers, net.parameters, strict=True):
        np.testing.assert_allclose(layer.updated[0], weights, rtol=1e-12)


def test_looking_changes_nothing(rng):
    net = small_net()
    walk(net, some_samples(net, rng), "quadratic", SGD())
    assert_same(net, small_net())


def test_a_followed_weight_is_the_mean_of_its_products_and_moves_by_the_rule():
    step = look(lr=0.25)
    for layer in step.layers:
        found = layer.followed
        assert found.products.mean() == pytest.approx(found.gradient, rel=1e-12)
        assert abs(found.gradient) == np.abs(layer.gradients[0]).max()
        assert found.after == pytest.approx(found.before - 0.25 * found.gradient, rel=1e-12)


def test_the_cost_after_the_step_and_the_foretold_change_are_those_of_the_new_parameters():
    step = look(lr=1e-4)
    activations, samples = step.network.activations, step.samples
    updated = [layer.updated for layer in step.layers], activations, step.loss
    assert step.cost_after == reference.backpropagate(*updated, samples.inputs, samples.targets)[0]
    change = step.cost_after - step.cost
    assert change == pytest.approx(step.predicted, rel=1e-3)  # so short a step hardly bends


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_every_gradient_agrees_with_the_cost_or_is_at_a_kink(output, loss, rng):
    net = small_net((5, 6, 4, 3), hidden=("relu", "tanh"), output=output)
    if LOSSES[loss].probabilities:
        net.parameters[-1] = (net.parameters[-1][0] * 0.1, np.full(3, 0.4))
    step = walk(net, some_samples(net, rng, loss=loss), loss, SGD())
    found = step.differences
    assert len(found) >= 15
    assert all(d.agrees for d in found if not d.kink)
    assert sum(d.kink for d in found) <= 3
    assert words.verdict(step).startswith(f"All {sum(not d.kink for d in found)} agree")


@pytest.mark.parametrize("name", ["parity", "iris", "digits", "mnist-sample"])
def test_the_recipes_gradients_agree_to_many_digits(name):
    found = [d for d in look(name).differences if not d.kink]
    assert all(d.agrees for d in found)
    assert np.median([d.digits for d in found]) >= 8
    assert max(d.expected for d in found) < 1e-9


def test_a_walk_with_dropout_is_the_step_that_training_takes_and_says_what_is_dropped(ok):
    """Central differences with the masks of that step, and the numbers that are left."""
    recipe = load_recipe("parity").overridden(
        {"dropout": (0.1, 0.4), "layers": (10, 12, 2), "hidden": ("tanh",)}
    )
    parts, network = load_parts(recipe, recipe.seed, None, True), recipe.network(recipe.seed)
    step = microscope.first_step(network, parts.train, recipe)
    assert all(d.agrees for d in step.differences)
    first, second = step.layers
    np.testing.assert_array_equal(first.a_prev, step.samples.inputs * first.mask)
    np.testing.assert_array_equal(second.a_prev, first.a * second.mask)
    assert set(np.unique(second.mask)) == {0, 65536 / (65536 - 26214)}
    network = microscope.in_float64(network)
    how = {
        "optimizer": recipe.build_optimizer(),
        "batch_size": recipe.batch_size,
        "loss": recipe.loss,
        "epochs": 1,
    }
    one = parts.train.inputs[: recipe.batch_size], parts.train.targets[: recipe.batch_size]
    few = microscope.first_step(
        network, dataclasses.replace(parts.train, inputs=one[0], targets=one[1]), recipe
    )
    gpubp.fit(network, *one, dropout=recipe.dropout, seed=recipe.seed, backend="numpy", **how)
    for layer, (weights, _) in zip(few.layers, network.parameters, strict=True):
        np.testing.assert_allclose(layer.updated[0], weights, rtol=1e-9)
    told = ok("explain", "parity", "--dropout", "0.1,0.4", "--layers", "10-12-2", "--hidden", "tanh")
    assert (
        f"Dropout takes away {(second.mask == 0).sum():,} of the {second.mask.size:,} numbers of a1"
        in " ".join(told.split())
    )
    assert "a1 ⊙ m1" in told
    assert "δ2 W2 ⊙ m1" in told
    for formula in ("z = (a_prev ⊙ m) Wᵀ + b", "(δ_next W_next) ⊙ m ⊙ σ'(z)", "∂C/∂W = δᵀ (a_prev ⊙ m) / B"):
        assert formula in told
    plain = ok("explain", "parity")
    assert "Dropout" not in plain
    assert "∂C/∂W = δᵀ a_prev / B" in plain
    assert "⊙ m" not in plain


def test_a_walk_has_the_images_that_the_step_deforms(ok, run):
    recipe = load_recipe("mnist-sample").overridden(
        {"deform": {"rotation": 20.0, "rotation_by_class": {1: 3.0}}}
    )
    parts, network = load_parts(recipe, recipe.seed, None, True), recipe.network(recipe.seed)
    step = microscope.first_step(network, parts.train, recipe, (28, 28))
    order = microscope.first_order(len(parts.train), recipe.batch_size, recipe.seed)
    assert all(d.agrees or d.kink for d in step.differences)
    made, plain = np.rint(step.samples.inputs * 255), parts.train.inputs[order]
    labels = parts.train.targets[order]
    assert (made != plain).any(axis=1).mean() > 0.9
    deformation = Deformation.of(recipe.deform, parts.train.inputs, (28, 28), recipe.seed)
    np.testing.assert_array_equal(made, deformation.images(plain, order, 0, labels))
    told = " ".join(ok("explain", "mnist-sample", "--deform-rotation", 20).split())
    assert "Its images are as that step deforms them (rotation ±20°)." in told
    assert "deforms" not in ok("explain", "mnist-sample")
    code, _, err = run("explain", "digits", "--deform-rotation", 20)
    assert code == 2
    assert "only images of bytes are deformed" in err


@pytest.mark.parametrize("factor", [1 + 1e-6, 2.0, -1.0])
def test_a_wrong_gradient_is_found(factor, rng):
    net = small_net((5, 6, 3), output="sigmoid")
    samples, loss = some_samples(net, rng), LOSSES["quadratic"]
    whole = reference.trace(net.parameters, net.activations, loss, samples.inputs, samples.targets)
    wrong = dataclasses.replace(whole, gradients=[(w * factor, b) for w, b in whole.gradients])
    found = microscope.central_differences(net, samples, loss, wrong, [None] * 2)
    for d in (d for layer in found for d in layer):
        assert (d.agrees, d.verdict == "DISAGREE") == (d.name[0] == "b", d.name[0] == "W"), d
    step = walk(net, samples, "quadratic", SGD())
    pairs = zip(step.layers, found, strict=True)
    layers = [dataclasses.replace(layer, differences=differences) for layer, differences in pairs]
    told = words.verdict(dataclasses.replace(step, layers=layers))
    assert "W1" in told
    assert "do not agree with the cost" in told


def test_a_kink_is_told_and_not_called_wrong():
    net = Network([1, 1, 1], hidden="relu", output="identity", dtype="float64")
    net.parameters = [(np.array([[1.0]]), np.zeros(1)), (np.array([[1.0]]), np.zeros(1))]
    samples = Samples(np.array([[0.0]]), np.array([[1.0]]), np.ones(1))  # z = 0: ReLU's corner
    step = walk(net, samples, "quadratic", SGD())
    (bias,) = [d for d in step.differences if d.name == "b1[0]"]
    assert bias.kink
    assert bias.verdict == "a kink within ±2h"
    assert bias.difference == pytest.approx(-0.5, rel=1e-4)  # half way between the slopes 0 and -1
    assert "switch within ±2h" in words.verdict(step)


def test_a_clipped_probability_is_a_kink():
    net = Network([1, 1], output="identity", dtype="float64")
    net.parameters = [(np.array([[1.0]]), np.zeros(1))]
    samples = Samples(np.array([[1.0]]), np.array([[1.0]]), np.ones(1))  # a = 1, where the clip begins
    step = walk(net, samples, "binary_cross_entropy", SGD())
    assert all(d.kink for d in step.differences)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "softmax"])
@pytest.mark.parametrize("z", [-0.7, 0.4])
def test_the_words_for_a_slope_are_its_formula(name, z):
    a = ACTIVATIONS[name].apply(np.array([[z]]))
    said = eval(as_python(ACTIVATIONS[name].slope_formula), {"a": a.item(), "z": z})
    assert ACTIVATIONS[name].slope(a).item() == pytest.approx(said, rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_the_words_for_a_cost_gradient_are_its_formula(name):
    said = eval(as_python(microscope.COST_GRADIENTS[name]), {"a": 0.3, "y": 0.8})
    assert LOSSES[name].gradient(np.array([[0.3]]), np.array([[0.8]])).item() == pytest.approx(said)


def as_python(formula):
    for text, python in (("−", "-"), ("²", "**2"), ("⅔ ", "2/3*"), ("a (", "a*("), ("2 (", "2*(")):
        formula = formula.replace(text, python)
    return re.sub(r"\|([^|]+)\|", r"abs(\1)", formula)


@pytest.mark.parametrize(
    ("output", "loss", "form", "says"),
    [
        ("softmax", "cross_entropy", "matched", "δ = a − y"),
        ("sigmoid", "binary_cross_entropy", "matched", "δ = a − y"),
        ("sigmoid", "quadratic", "hadamard", "∇ₐC = a − y for quadratic and σ'(z) = a (1 − a)"),
        ("softmax", "quadratic", "jacobian", "Jacobian"),
        ("identity", "squared_error", "hadamard", "nothing saturates"),
    ],
)
def test_which_form_bp1_takes(output, loss, form, says, rng):
    net = small_net((4, 5, 3), output=output)
    step = walk(net, some_samples(net, rng, loss=loss), loss, SGD())
    assert step.output_form == form
    assert says in words.output_delta(step)


def test_the_error_of_a_deep_net_of_sigmoids_fades_on_its_way_back():
    step = look("mnist-sample", layers=(784, 30, 30, 30, 30, 10), hidden=("sigmoid",))
    sizes = [layer.signal.mean_delta for layer in step.layers]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 100
    assert step.slowest.number == 1
    for layer in step.layers[:-1]:
        assert layer.kept <= 0.25
        ratio = sizes[layer.number - 1] / sizes[layer.number]
        assert layer.carried * layer.kept == pytest.approx(ratio, rel=1e-9)
    told = words.signal(step)[0]
    assert re.search(r"Layer 1 learns slowest: its mean \|δ\| is 1/1\d\d of the output layer's", told)
    assert "a sigmoid's slope is at most ¼" in told


def test_dead_relus_are_counted(rng):
    net = small_net((4, 6, 3), hidden="relu")
    net.parameters[0] = (net.parameters[0][0], np.array([-99.0, -99, 0, 0, 0, 99]))
    told = words.signal(walk(net, some_samples(net, rng, 40), "quadratic", SGD()))
    assert any("2 of its 6 units are so for every sample: their weights do not move" in t for t in told)


def test_outputs_that_are_wrong_and_saturated_are_told(rng):
    net = small_net((4, 2), output="sigmoid")
    net.parameters = [(np.zeros((2, 4)), np.array([20.0, 20.0]))]
    step = walk(net, some_samples(net, rng), "quadratic", SGD())
    assert microscope.wrong_and_saturated(step) == 0.5  # of two outputs at 1, one should be 0
    assert any(t.startswith("50.0% of the outputs are wrong") for t in words.signal(step))
    matched = walk(net, some_samples(net, rng), "binary_cross_entropy", SGD())
    assert microscope.wrong_and_saturated(matched) is None


@pytest.mark.parametrize(
    ("lr", "factor", "says"),
    [
        (0.3, 0.4, "they shrink"),
        (0.5, 0.0, "arrive at once"),
        (0.75, -0.5, "change sign each time, and shrink"),
        (1.0, -1.0, "change sign for ever"),
        (1.1, -1.2, "η is too large"),
    ],
)
def test_descent_multiplies_by_one_minus_two_eta(lr, factor, says):
    steps = microscope.descent(lr, 5, (10, -4))
    assert steps[-1].to == pytest.approx((10 * factor**5, -4 * factor**5), abs=1e-12)
    assert says in words.descending(lr)


@pytest.mark.parametrize(
    ("optimizer", "says"),
    [
        (SGD(), "W ← W − η g, plain"),
        (SGD(momentum=0.9), "v ← 0.9 v + g, then W ← W − η v; its velocity was 0 before"),
        (SGD(momentum=0.9, nesterov=True), "W ← W − η (g + 0.9 v)"),
        (Adam(), "m ← 0.9 m + 0.1 g"),
        (AdamW(), "weight decay 0.01"),
    ],
)
def test_the_rule_is_told_as_it_is_set(optimizer, says, rng):
    net = small_net()
    assert says in words.rule(walk(net, some_samples(net, rng), "quadratic", optimizer))


def test_a_cost_that_is_no_number_is_refused(rng):
    net = small_net((4, 3), output="identity")
    net.parameters = [(np.full((3, 4), np.inf), np.zeros(3))]
    with pytest.raises(GpubpError, match="the cost of this mini-batch is"):
        walk(net, some_samples(net, rng), "quadratic", SGD())


@pytest.mark.parametrize(("share", "length"), [(1, 24), (0.5, 12), (1e-9, 1), (0, 0)])
def test_a_bar_is_as_long_as_its_share_and_never_hides_a_rest(share, length):
    assert len(bar(share)) == length


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.0, "0"), (1.0, "1"), (-0.25, "-0.2500"), (123.456, "123.46"), (0.00123, "1.2e-3"), (-4e5, "-4.0e5")],
)
def test_a_number_takes_seven_columns(x, text):
    assert words.number(x) == text
    assert len(text) <= 7


HEADINGS = ("Forward", "BP1", "BP2", "BP3 and BP4", "The update", "Where the signal", "Gradient descent by")


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("iris", "--batch-size", "5"),
        ("mnist-sample", "--layers", "784-30-30-30-30-10", "--hidden", "sigmoid"),
        ("digits", "--layers", "64-10", "--optimizer", "adam"),
    ],
)
def test_on_a_terminal_it_keeps_to_80_columns_in_order_and_without_colour(run, args, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = run("explain", *args)
    assert (code, err) == (0, "")
    assert max(cell_len(line) for line in out.splitlines()) <= 80
    assert "\x1b" not in out
    found = re.findall(r"^(\d)  (.*?)(?:[:,].*)?\n─+$", out, re.MULTILINE)
    assert [int(n) for n, _ in found] == list(range(1, 8))
    for (_, text), heading in zip(found, HEADINGS, strict=True):
        assert text.startswith(heading)
    assert list(tmp_path.iterdir()) == []


def test_a_small_net_is_shown_in_full(run):
    _, out, _ = run("explain")
    step = look()
    for layer in step.layers:
        for values in (*layer.parameters, layer.z[0], layer.a[0], layer.delta[0], *layer.gradients):
            for x in np.ravel(values):
                assert words.number(float(x)) in out
    assert f"{step.cost:.6g}" in out
    assert f"{step.cost_after:.6g}" in out


def test_json_says_the_same(ok):
    found = json.loads(ok("explain", "--sample", 3, "--json", "-"))
    step = look()
    assert found["cost"] == step.cost
    assert found["output_delta"] == "hadamard"
    assert found["layers"][1]["delta"] == step.layers[1].delta[3].tolist()
    assert all(d["agrees"] for layer in found["layers"] for d in layer["differences"])


def test_a_trained_network_can_be_looked_at(ok):
    new, trained = (ok("explain", "iris", *epochs, "--json", "-") for epochs in ((), ("--epochs", 60)))
    costs = [json.loads(text)["cost"] for text in (new, trained)]
    assert costs[1] < costs[0] / 4
    options = ("--epochs", 60, "--splits", 1, "--backend", "numpy", "-q", "--no-report")
    ok("train", "iris", *options, "--folder", "run")
    ok("export", "run/model.npz", "m.safetensors")
    for model in ("run/model.npz", "m.safetensors"):
        found = json.loads(ok("explain", "iris", "--model", model, "--json", "-"))
        assert found["cost"] == pytest.approx(costs[1], rel=1e-4)


def test_a_warm_up_shortens_the_first_step_and_what_is_held_out_is_not_in_the_mini_batch(ok):
    found = json.loads(ok("explain", "--warmup", 1, "--json", "-"))
    assert found["learning_rate"] == pytest.approx(0.3 / math.ceil(700 / 8))
    found = json.loads(ok("explain", "--validation-fraction", 0.5, "--batch-size", 700, "--json", "-"))
    assert found["batch_size"] == 350


def test_descent_alone(ok):
    out = ok("explain", "--descent")
    assert "(0.04096, 0.04096)" in out
    assert "0.0033554" in out
    found = json.loads(ok("explain", "--descent", "--lr", 1.1, "--json", "-"))
    assert found["learning_rate"] == 1.1
    assert found["steps"][-1]["value"] > found["steps"][0]["value"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--sample", 8), 2, "--sample counts from 0 to 7"),
        (("--sample", -1), 2, "--sample counts from 0 to 7"),
        (("--descent", "--epochs", 3), 2, "--descent shows"),
        (("parity", "--descent"), 2, "--descent shows"),
        (("--descent", "--lr", 0), 2, "learning rate must be positive"),
        (("--batch-size", 0), 2, "batch_size"),
        (("--model", "m.npz", "--layers", "10-2"), 2, "leave out --layers"),
        (("--model", "m.npz"), 5, "there is no file m.npz"),
        (("partiy",), 2, "did you mean 'parity'"),
        (("--html", "."), 1, "it is a folder"),
        (("--html", "file/page.html"), 1, "cannot write"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_its_exit_code(run, tmp_path, args, code, says):
    (tmp_path / "file").write_text("in the way")
    found, out, err = run("explain", *args)
    assert (found, out, err.strip().count("\n")) == (code, "", 0)
    assert says in err


@pytest.mark.parametrize("name", ["parity", param("digits", always=False)])
def test_the_page_reads_well_and_says_what_the_terminal_says(run, name, tmp_path):
    assert run("explain", name, "--html", "step.html")[:2] == (0, "written to step.html\n")
    page = Path("step.html")
    assert problems(page, tmp_path / "shots") == []
    shown = " ".join(opened(page).find_element("tag name", "main").text.split())
    _, out, _ = run("explain", name)
    told = " ".join(out.split())
    step = look(name)
    sentences = (words.output_delta(step), words.verdict(step), words.update(step), *words.signal(step))
    for sentence in (*sentences, *(d.name for d in step.differences), "0.01638"):  # the end of the descent
        assert " ".join(sentence.split()) in shown
        assert " ".join(sentence.split()) in told
