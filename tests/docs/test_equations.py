"""docs/equations.md: every line it quotes is there, and what it calls an error is one."""

from __future__ import annotations

import ast
import math
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from gpubp import Network, reference
from gpubp.data import builtin
from gpubp.data.inputs import Scaling
from gpubp.explain import microscope
from gpubp.functions import ACTIVATIONS, LOSSES, sigmoid, softmax
from gpubp.optimizers import SGD
from tests import ROOT
from tests.conftest import small_net

DOCS = ROOT / "docs"
PAGE = (DOCS / "equations.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"\[`(\w+)\.([\w.]+)`\]\(([\w./]+)\):\s`([^`]+)`", PAGE)


def names_of(node: ast.stmt) -> list[str | None]:
    """The name that a definition or an assignment gives, or the names."""
    targets = [*getattr(node, "targets", []), getattr(node, "target", None)]
    return [getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)]


def source_of(path: Path, name: str) -> str:
    """The source of a function, class or assignment, by its dotted name in the file."""
    text = path.read_text(encoding="utf-8")
    body: list = ast.parse(text).body
    for part in name.split("."):
        (node,) = (n for n in body if part in names_of(n))
        body = getattr(node, "body", [])
    return ast.get_source_segment(text, node) or ""


@pytest.mark.parametrize(("module", "name", "link", "line"), sorted(set(QUOTED)))
def test_a_quoted_line_is_in_the_function_it_is_quoted_from(module, name, link, line):
    path = (DOCS / link).resolve()
    assert path.stem == module
    lines = [" ".join(part.split()) for part in source_of(path, name).splitlines()]
    assert line in lines


def test_every_row_about_an_equation_quotes_a_line():
    rows = [row for row in PAGE.splitlines() if row.count("|") >= 4 and not row.startswith(("| |", "|---"))]
    rows = [row for row in rows if not row.startswith("| equation |") and "the same line's" not in row]
    assert len(rows) > 40
    assert [row for row in rows if "](../gpubp/" not in row] == []


def test_what_has_a_tick_has_a_test():
    ticked = {number.replace(".", "_") for number in re.findall(r"\*\*(\d{3}\.\d+)\*\* ✓", PAGE)}
    tested = {m[1] for name in dir(sys.modules[__name__]) if (m := re.match(r"test_(\d{3}_\d+)_", name))}
    assert ticked == tested
    assert len(ticked) > 30


# A net of three inputs, four hidden units and two outputs, as columns, which is how the texts have it.

QUADRATIC = LOSSES["quadratic"]


@pytest.fixture
def net():
    return small_net((3, 4, 2), hidden="sigmoid", output="sigmoid", seed=5)


@pytest.fixture
def columns(net, rng):
    """x, y, and z and a of both layers, each (n, 1), and the trace they come from."""
    x, y = rng.standard_normal((1, 3)), np.array([[1.0, 0.0]])
    whole = reference.trace(net.parameters, net.activations, QUADRATIC, x, y)
    return x.T, y.T, [z.T for z in whole.z], [a.T for a in whole.a], whole


def slope(z):
    return sigmoid(z) * (1 - sigmoid(z))


def numeric(function, at, h=1e-6):
    """The derivative of an array by each element of ``at``, by central differences; its shape, then at's."""
    at = np.asarray(at, float)
    found = []
    for i in np.ndindex(at.shape):
        e = np.zeros_like(at)
        e[i] = h
        found.append((np.asarray(function(at + e)) - np.asarray(function(at - e))) / (2 * h))
    return np.stack(found, axis=-1).reshape(*np.shape(found[0]), *at.shape)


def test_000_1_its_delta_is_no_derivative_by_z_or_b(net, columns):
    _, y, z, a, whole = columns
    its = a[2] - y
    w2, b2 = net.parameters[1]
    by_z = numeric(lambda v: 0.5 * ((sigmoid(v) - y) ** 2).sum(), z[1])
    by_b = numeric(lambda b: 0.5 * ((sigmoid(w2 @ a[1] + b[:, None]) - y) ** 2).sum(), b2)
    np.testing.assert_allclose(its * slope(z[1]), by_z, rtol=1e-7)
    np.testing.assert_allclose(whole.gradients[1][1], by_b, rtol=1e-7)
    assert (np.abs(its) > 3 * np.abs(by_z)).all()
    by_w = (its * slope(z[1])) @ a[1].T
    np.testing.assert_allclose(by_w, whole.gradients[1][0], rtol=1e-12)  # (3) is right


def test_000_2_neither_form_of_5_can_be_computed_in_its_order(net, columns):
    x, y, z, a, whole = columns
    delta, w2 = a[2] - y, net.parameters[1][0]
    with pytest.raises(ValueError, match="mismatch"):
        (slope(z[0]) @ x.T) @ delta
    with pytest.raises(ValueError, match="mismatch"):
        ((delta * slope(z[1])) @ x.T) @ w2
    right = ((w2.T @ (delta * slope(z[1]))) * slope(z[0])) @ x.T
    np.testing.assert_allclose(right, whole.gradients[0][0], rtol=1e-12)


def test_000_3_the_slopes_multiply_the_rows_of_w(net, columns):
    _, _, z, a, _ = columns
    w2, b2 = net.parameters[1]
    jacobian = numeric(lambda v: sigmoid(w2 @ v + b2), a[1][:, 0])
    np.testing.assert_allclose(np.diagflat(slope(z[1])) @ w2, jacobian, rtol=1e-7)
    with pytest.raises(ValueError, match="mismatch"):
        w2 @ slope(z[1])


def test_000_4_without_the_half_the_gradient_is_twice_itself(columns):
    _, y, z, _, _ = columns
    v = y - sigmoid(z[1])
    half = numeric(lambda z: 0.5 * ((y - sigmoid(z)) ** 2).sum(), z[1])
    np.testing.assert_allclose(2 * v * -slope(z[1]), 2 * half, rtol=1e-7)


def test_000_5_z_of_a_layer_by_w_has_three_indices(net, columns):
    a1 = columns[3][1][:, 0]
    w2 = net.parameters[1][0]
    by_w = numeric(lambda w: w @ a1, w2)
    assert by_w.shape == (2, 2, 4)
    np.testing.assert_allclose(by_w, np.eye(2)[:, :, None] * a1, atol=1e-9)


def test_000_6_a_product_is_the_hadamard_product_summed_over_rows(net, columns):
    a1 = columns[3][1][:, 0]
    w2 = net.parameters[1][0]
    np.testing.assert_allclose((w2 * a1).sum(axis=1), w2 @ a1, rtol=1e-12)
    assert (w2 * a1).shape != (w2 @ a1).shape


def test_001_1_every_delta_is_twice_that_of_the_quadratic_cost(net, rng):
    x, y = rng.standard_normal((5, 3)), np.eye(2)[rng.integers(0, 2, 5)]
    traces = [
        reference.trace(net.parameters, net.activations, LOSSES[name], x, y)
        for name in ("squared_error", "quadratic")
    ]
    for double, single in zip(traces[0].delta, traces[1].delta, strict=True):
        np.testing.assert_allclose(double, 2 * single, rtol=1e-12)
    z, a = traces[0].z[-1], traces[0].a[-1]
    np.testing.assert_allclose(traces[0].delta[-1], -2 * (y - a) * slope(z), rtol=1e-12)  # its (2)


def test_001_2_right_over_wrong_is_no_accuracy():
    labels = np.arange(10) % 2
    guesses = np.where(np.arange(10) == 3, 0, labels)
    right, wrong = int((guesses == labels).sum()), int((guesses != labels).sum())
    assert right / wrong == 9
    assert (guesses == labels).mean() == 0.9
    with pytest.raises(ZeroDivisionError):
        len(labels) / int((labels != labels).sum())  # all right


def cuts(n, size):
    """The mini-batches of 001's generator, as numbers of samples."""
    i, found = 0, []
    for i in range(n // size - 1):
        found.append(len(range(n)[i * size : (i + 1) * size]))
    return [*found, len(range(n)[(i + 1) * size :])]


def test_001_3_samples_are_lost_where_they_make_fewer_than_two_batches():
    assert sum(cuts(16, 8)) == 16
    assert cuts(15, 8) == [7]
    assert cuts(8, 8) == [0]
    assert cuts(5, 8) == [0]


def test_001_4_the_last_batch_is_larger_than_what_it_is_divided_by():
    found = cuts(700, 8)
    assert sum(found) == 700
    assert found[-1] == 12
    assert found[-1] / 8 == 1.5


PRINTED = """\
Step:  0, (a, b): (4.0, 4.0)     Error: 200.0
Step:  1, (a, b): (1.6, 1.6)     Error: 32.0
Step:  2, (a, b): (0.64, 0.64)   Error: 5.12
Step:  3, (a, b): (0.26, 0.26)   Error: 0.8192
Step:  4, (a, b): (0.1, 0.1)     Error: 0.13107
Step:  5, (a, b): (0.041, 0.041) Error: 0.020972
Step:  6, (a, b): (0.016, 0.016) Error: 0.0033554
"""


def test_001_5_the_printed_table_has_points_after_and_errors_before_each_step():
    lines = []
    for i, step in enumerate(microscope.descent(0.3, 7, (10, 10))):
        point = f"({step.to[0]:>1.2}, {step.to[1]:>1.2})"
        lines.append(f"Step: {i:>2}, (a, b): {point:<14} Error: {step.value:>3.5}")
    assert "\n".join(lines) + "\n" == PRINTED
    assert microscope.descent(0.3)[1].value == pytest.approx(32)  # of (4, 4)


def test_001_6_seven_errors_are_divided_by_six():
    errors = [step.value for step in microscope.descent(0.3)]
    assert len(errors) == 7
    assert sum(errors) / 6 == pytest.approx(39.68, abs=0.005)
    assert sum(errors) / 7 == pytest.approx(34.01, abs=0.005)


def test_001_7_a_conditional_binds_to_the_last_of_a_pair():
    def g(alone):
        return "gradient", "error" if not alone else "value"

    assert g(True) == ("gradient", "value")


def test_001_8_sigmoids_do_not_sum_to_1():
    z = np.array([[1.0, 2.0]])
    assert sigmoid(z).sum() == pytest.approx(1.61, abs=0.01)
    assert softmax(z).sum() == pytest.approx(1)


def test_001_9_the_outer_product_is_delta_a(net, columns):
    _, _, _, a, whole = columns
    delta = whole.delta[1].T
    np.testing.assert_allclose(delta @ a[1].T, whole.gradients[1][0], rtol=1e-12)
    with pytest.raises(ValueError, match="mismatch"):
        a[1] @ delta


def test_001_13_numpy_has_no_object():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not hasattr(np, "object")


def its_sigmoid(z):
    return 1 / (1 + np.exp(z))


Z = np.array([-3.0, -0.5, 0.2, 2.0])


def test_002_1_its_sigmoid_falls():
    np.testing.assert_allclose(its_sigmoid(Z), sigmoid(-Z), rtol=1e-12)
    assert (np.diff(its_sigmoid(Z)) < 0).all()


def test_002_2_its_slope_has_the_wrong_sign_for_its_sigmoid(rng):
    claimed = its_sigmoid(Z) * (1 - its_sigmoid(Z))
    np.testing.assert_allclose(np.diag(numeric(its_sigmoid, Z)), -claimed, rtol=1e-7)
    # Below three falling sigmoids and the output's σ', the gradients of the layers alternate in sign.
    weights = [rng.standard_normal((3, 3)) for _ in range(3)]
    x, y = rng.standard_normal(3), rng.standard_normal(3)

    def cost(ws):
        a = x
        for w in ws:
            a = its_sigmoid(w @ a)
        return ((a - y) ** 2).sum()

    a = [x]
    for w in weights:
        a.append(its_sigmoid(w @ a[-1]))
    claimed, back = [], 2 * (a[-1] - y)
    for i in (2, 1, 0):
        delta = back * a[i + 1] * (1 - a[i + 1])
        claimed.insert(0, np.outer(delta, a[i]))
        back = weights[i].T @ delta
    for i, sign in enumerate((-1, 1, -1)):
        true = numeric(lambda w, i=i: cost([*weights[:i], w, *weights[i + 1 :]]), weights[i])
        np.testing.assert_allclose(claimed[i], sign * true, rtol=1e-5, atol=1e-9)


def test_002_3_the_jacobian_is_of_the_outputs_and_not_of_the_logits():
    true = numeric(lambda z: softmax(z[None, :])[0], Z)
    s = softmax(Z[None, :])[0]
    np.testing.assert_allclose(np.diag(s) - np.outer(s, s), true, atol=1e-9)
    its = np.diag(Z) - np.outer(Z, Z)
    assert np.abs(its - true).max() > 1


def test_002_4_its_cost_and_derivative_are_of_two_different_costs():
    y, z = np.array([0.98, 0.01, 0.01]), np.array([0.3, -0.4, 0.1])
    a = softmax(z[None, :])[0]
    true = numeric(lambda a: -(y * np.log(a)).sum(), a)
    its = -y / a + (1 - y) / (1 - a)
    binary = numeric(lambda a: -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum(), a)
    np.testing.assert_allclose(its, binary, rtol=1e-7)
    jacobian = np.diag(a) - np.outer(a, a)
    np.testing.assert_allclose(jacobian @ true, a - y, atol=1e-7)
    assert np.abs(jacobian @ its - (a - y)).max() > 0.05


def test_002_5_plus_the_gradient_climbs(net, rng):
    x, y = rng.standard_normal((5, 3)), np.eye(2)[rng.integers(0, 2, 5)]
    cost, grads = reference.backpropagate(net.parameters, net.activations, QUADRATIC, x, y)

    def after(sign):
        moved = [(w, b + sign * 0.1 * g) for (w, b), (_, g) in zip(net.parameters, grads, strict=True)]
        return reference.backpropagate(moved, net.activations, QUADRATIC, x, y)[0]

    assert after(-1) < cost < after(1)


def test_002_6_a_flower_by_itself_loses_its_size():
    flower = builtin.iris().train.inputs[:1]
    alone = [(f - f.mean()) / f.std(ddof=1) for f in (flower, 2 * flower)]
    np.testing.assert_allclose(alone[0], alone[1], rtol=1e-12)
    scaling = Scaling.of(builtin.iris().train.inputs)
    by_column = [(f - scaling.shift) / scaling.scale for f in (flower, 2 * flower)]
    assert np.abs(by_column[0] - by_column[1]).min() > 0.1


def test_002_9_np_dot_of_two_vectors_is_one_number():
    gradient, slopes = np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.2])
    assert np.dot(gradient, slopes).shape == ()
    assert (gradient * slopes).shape == (3,)


def test_002_10_clipped_logits_tie():
    clipped = np.exp(np.clip([600.0, 700.0], -500, 500))
    assert (clipped / clipped.sum()).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(softmax(np.array([[600.0, 700.0]])), [[np.exp(-100), 1]])


def test_002_11_a_quotient_of_exponentials_overflows():
    with pytest.raises(OverflowError):
        (math.exp(710) - math.exp(-710)) / (math.exp(710) + math.exp(-710))
    assert ACTIVATIONS["tanh"].apply(np.array([710.0])) == 1


def test_002_12_the_loss_has_a_floor():
    y = np.array([[0.98, 0.01, 0.01]])
    assert LOSSES["cross_entropy"].cost(y, y)[0] == pytest.approx(0.112, abs=5e-4)


def test_002_15_units_that_start_alike_stay_alike(rng):
    net = small_net((4, 5, 3), hidden="sigmoid")
    parameters = [(np.zeros_like(w), np.zeros_like(b)) for w, b in net.parameters]
    x, y = rng.standard_normal((20, 4)), np.eye(3)[rng.integers(0, 3, 20)]
    for _ in range(50):
        _, grads = reference.backpropagate(parameters, net.activations, LOSSES["cross_entropy"], x, y)
        parameters = [(w - g, b - h) for (w, b), (g, h) in zip(parameters, grads, strict=True)]
    hidden = parameters[0][0]
    assert np.abs(hidden).max() > 0
    np.testing.assert_allclose(hidden, np.tile(hidden[:1], (5, 1)), atol=1e-12)


def test_002_16_the_gradient_of_w_has_its_shape(net, columns):
    for (weights, _), (gradient, _) in zip(net.parameters, columns[4].gradients, strict=True):
        assert gradient.shape == weights.shape


def test_002_20_one_over_n_lets_less_through_than_one_over_its_root(rng):
    x, y = rng.standard_normal((50, 4)), np.eye(3)[rng.integers(0, 3, 50)]
    reached = {}
    for init in ("normal_1_over_n", "lecun"):
        net = Network([4, 50, 20, 10, 3], hidden="sigmoid", init=init, dtype="float64")
        whole = reference.trace(net.parameters, net.activations, LOSSES["cross_entropy"], x, y)
        reached[init] = np.abs(whole.delta[0]).mean(), whole.z[-1].std(axis=0).mean()
    assert reached["normal_1_over_n"][0] < reached["lecun"][0] / 10
    assert reached["normal_1_over_n"][1] < reached["lecun"][1] / 10


def test_003_1_a_neuron_sums_over_those_before_it(net, columns):
    x, _, _, a, _ = columns
    w, b = net.parameters[0]
    j = 2
    z = sum(w[j, k] * x[k, 0] for k in range(3)) + b[j]
    assert a[1][j, 0] == pytest.approx(sigmoid(np.array(z)).item())
    assert a[1][j, 0] != pytest.approx(sigmoid(np.array(w[j, 0] * x[0, 0] + b[j])).item())


def test_003_2_the_slope_of_a_sigmoid_is_a_quarter_at_most():
    z = np.linspace(-20, 20, 4001)
    assert slope(z).max() == 0.25
    for saturated in (sigmoid(z) < 0.01, sigmoid(z) > 0.99):
        assert slope(z)[saturated].max() < 0.01


def test_003_3_no_input_no_gradient(net, rng):
    x, y = rng.standard_normal((5, 3)), np.eye(2)[rng.integers(0, 2, 5)]
    x[:, 1] = 0
    gradient = reference.backpropagate(net.parameters, net.activations, QUADRATIC, x, y)[1][0][0]
    assert (gradient[:, 1] == 0).all()
    assert (gradient[:, [0, 2]] != 0).all()


def test_003_4_softmax_takes_its_jacobian(rng):
    z, y = rng.standard_normal(4), np.eye(4)[0]
    a = softmax(z[None, :])
    true = numeric(lambda z: 0.5 * ((softmax(z[None, :])[0] - y) ** 2).sum(), z)
    np.testing.assert_allclose(ACTIVATIONS["softmax"].pull_back(a - y, a)[0], true, atol=1e-9)
    diagonal = ((a - y) * a * (1 - a))[0]
    assert np.abs(diagonal - true).max() > 0.01


@pytest.mark.parametrize(("loss", "delta"), [("quadratic", 4.5e-5), ("binary_cross_entropy", 0.99995)])
def test_003_5_a_saturated_output_learns_by_the_matched_cost(loss, delta):
    found = saturated_and_wrong(loss)
    assert found == pytest.approx(delta, rel=0.01)


def test_003_6_a_small_delta_does_not_mean_right():
    assert saturated_and_wrong("quadratic") < 1e-4
    assert QUADRATIC.cost(sigmoid(np.array([[10.0]])), np.array([[0.0]]))[0] > 0.49


def saturated_and_wrong(loss):
    """δ of one sigmoid at z = 10 whose target is 0."""
    a, y = sigmoid(np.array([[10.0]])), np.array([[0.0]])
    return reference.output_delta(a, y, np.ones(1), ACTIVATIONS["sigmoid"], LOSSES[loss]).item()


def test_gradient_descent_is_the_rule_of_sgd():
    point, rule = np.array([10.0, 10.0]), SGD(lr=0.3)
    for step in microscope.descent(0.3):
        assert step.at == tuple(point)
        point, _ = rule.rule(point, 2 * point, (), rule.coefficients(0.3, 1, decay=False))
