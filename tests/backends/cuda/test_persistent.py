"""The persistent epoch kernel, run on the host: any network, any number of blocks, and what it must refuse."""

from dataclasses import replace
from itertools import chain, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpubp
from gpubp import backends
from gpubp.backends.cuda.units import PLANS, lay_out
from gpubp.backends.numpy import ReferenceBackend
from gpubp.data.samples import Samples
from gpubp.errors import UsageError
from gpubp.experiments.recipe import load_recipe
from gpubp.experiments.run import run_recipe
from gpubp.functions import ACTIVATIONS, LOSSES
from gpubp.kernels import cuda
from gpubp.kernels.cuda import UNITS_OF_A_CLUSTER
from gpubp.network import Network
from gpubp.verification.report import VerificationError
from tests import examples, fewer, param
from tests.conftest import small_data, small_net
from tests.cuda_host import cuda_backend, fake_cupy, host_backend, missing_compiler, why_no_cuda
from tests.networks import EVERY_OPTIMIZER, random_problem

needs_compiler = pytest.mark.skipif(missing_compiler is not None, reason=str(missing_compiler))
pytestmark = pytest.mark.skipif(why_no_cuda is not None, reason=str(why_no_cuda))


@pytest.fixture
def blocks(monkeypatch):
    """blocks(n): let the device hold n blocks."""
    return lambda n: monkeypatch.setattr(fake_cupy, "multiprocessors", n)


def make_plan(backend, *shape, **options):
    return backend.plan(random_problem(*shape, **options))


def train(plan, steps=4):
    order = np.random.default_rng(1).permutation(len(plan.samples))[: steps * plan.batch_size]
    return plan.run(order, np.full(-(-len(order) // plan.batch_size), 0.05)), plan.state()


def assert_agrees(ours, theirs, bound=1e-11):
    np.testing.assert_allclose(ours[0].costs, theirs[0].costs, rtol=min(bound, 1e-11))
    np.testing.assert_array_equal(ours[0].hits, theirs[0].hits)
    for got, right in zip(ours[1].parameters, theirs[1].parameters, strict=True):
        np.testing.assert_allclose(got, right, rtol=0, atol=bound)


def both(steps=4, plan="fused", **options):
    """The result of training in float64, and NumPy's."""
    pair = cuda_backend(plan), ReferenceBackend()
    return [train(make_plan(backend, **options), steps) for backend in pair]


every_plan = pytest.mark.parametrize("plan", ["composed", "fused", "units", "cluster"])
one_hidden = pytest.mark.parametrize("plan", ["units", "cluster"])


@every_plan
def test_predictions_gradients_and_evaluation_agree_with_numpy(plan):
    ours, theirs = (make_plan(backend, (20, 23, 10)) for backend in (cuda_backend(plan), ReferenceBackend()))
    rows = np.random.default_rng(2).random((1100, 20))  # more than were trained on
    np.testing.assert_allclose(ours.predict(rows), theirs.predict(rows), rtol=1e-12)
    order = np.arange(32)[::-1].copy()
    (cost, gradients), (expected_cost, expected) = ours.gradients(order), theirs.gradients(order)
    assert cost == pytest.approx(expected_cost, rel=1e-13)
    for got, right in zip(chain(*gradients), chain(*expected), strict=True):
        np.testing.assert_allclose(got, right, rtol=0, atol=1e-14)
    samples = Samples(rows, np.eye(10)[np.arange(1100) % 10], np.ones(1100))
    got, right = (plan.evaluate(plan.upload(samples)) for plan in (ours, theirs))
    assert got.mean_cost == pytest.approx(right.mean_cost, rel=1e-12)
    assert got.accuracy == right.accuracy


@every_plan
def test_state_is_restored_bitwise(plan):
    plan = make_plan(cuda_backend(plan), (20, 23, 10))
    state, expected = train(plan)[1], train(plan)
    plan.load_state(state)
    assert_agrees(train(plan), expected, bound=0)


# Layers that blocks share by tiles and by rows, in every order; more rows than blocks; ten layers.
NETS = [(20, 10), (20, 37, 10), (200, 150, 3), (30, 150, 130, 7), (5, 150, 3, 150, 2), (6,) * 10 + (2,)]


@pytest.mark.parametrize("sizes", NETS, ids=lambda sizes: "-".join(map(str, sizes)))
@pytest.mark.parametrize("most", [param(1, always=False), 2, param(5, always=False)])
def test_any_network_on_any_number_of_blocks(sizes, most, blocks):
    blocks(most)
    assert_agrees(*both(sizes=sizes))


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((600, 30, 3), {}),  # of which the next layer, shared by rows, adds up the parts
        ((1030, 17, 1030), {"batch": 7}),  # the next, shared by tiles, after a barrier
        ((600, 35), {"output": "softmax", "loss": "cross_entropy"}),  # and the output, of more than a warp
        ((600, 30, 5), {"hidden": "softmax"}),
        ((601, 30, 5), {"hidden": "tanh", "as_bytes": False}),  # lines that are not aligned
    ],
    ids=str,
)
def test_blocks_share_the_terms_where_there_are_few_tiles(sizes, options, blocks):
    blocks(7)
    assert make_plan(host_backend("fused"), sizes, **options)._shared_products(32).layers[0]["splits"] > 1
    assert_agrees(*both(sizes=sizes, **options))


@pytest.mark.parametrize("plan", ["fused", "units", param("cluster", always=False)])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_loss(activation, loss, plan):
    """Outputs that are no probabilities have gradients so steep under some losses that further steps are chaos."""
    hidden = "tanh" if activation == "softmax" and plan != "fused" else activation
    sizes = (20, 150, 9, 4) if plan == "fused" else (20, 11, 4)
    assert_agrees(*both(1, plan, sizes=sizes, hidden=hidden, output=activation, loss=loss))


@pytest.mark.parametrize("plan", ["fused", "units", "cluster"])
@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
def test_every_optimizer(optimizer, as_bytes, plan):
    options = {"sizes": (20, 23, 10), "optimizer": optimizer, "as_bytes": as_bytes}
    assert_agrees(*both(plan=plan, **options), bound=1e-9)


@examples(12, 30)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 7, 16, 31, 33, 64, 65, 130]), min_size=2, max_size=5),
    batch=st.sampled_from([1, 2, 8, 9, 17, 64, 130]),
    most=st.integers(1, 6),
)
def test_shapes_at_and_beside_every_tile(sizes, batch, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_cupy, "multiprocessors", most)
        options = {"output": "sigmoid", "loss": "binary_cross_entropy"}
        assert_agrees(*both(sizes=tuple(sizes), batch=batch, **options))


# Hidden units that fill their clusters and not, for 4, 8 and 16 of one, in batches of one row, of fewer rows than a
# cluster has blocks, that deal their rows evenly and not, and of more rows than a block takes at once; lines of inputs
# that are aligned to 16, to 4 and to no bytes; slices that no inputs are left for; few or many inputs and outputs.
HIDDEN = product([(20, n, 10) for n in (1, 2, 5, 6, 9, 12, 23, 24)], (1, 32, 130))
WIDE = [
    ((1, 3, 1), 32),
    ((600, 7, 3), 32),
    ((261, 24, 40), 32),
    ((144, 5, 4), 3),
    ((32, 48, 3), 20),
    ((32, 17, 3), 150),
]
OF_UNITS = [
    param((sizes, batch), always=sizes[1] in (5, 7, 23, 48) or sizes[0] > 100)
    for sizes, batch in [*HIDDEN, *WIDE]
]


@pytest.mark.parametrize("net", OF_UNITS, ids=str)
@pytest.mark.parametrize("as_bytes", [True, False])
@one_hidden
def test_units_of_one_hidden_layer(net, as_bytes, plan):
    sizes, batch = net
    options = {"output": "sigmoid", "loss": "binary_cross_entropy", "count": max(130, batch + 7)}
    assert_agrees(*both(plan=plan, sizes=sizes, batch=batch, as_bytes=as_bytes, **options))


def test_more_blocks_than_are_added_up_at_once(blocks):
    blocks(18)
    assert_agrees(*both(plan="units", sizes=(9, 71, 3), hidden="sigmoid"))


@needs_compiler
def test_a_launch_of_too_few_blocks_stops_itself(monkeypatch):
    """As CuPy warns only, and makes a grid smaller, where not all of it is resident."""
    plan = make_plan(host_backend("units"), (9, 12, 3))
    plan._grid = replace(plan._grid, clusters=2)
    with pytest.raises(AssertionError, match="stopped itself"):
        train(plan)


@needs_compiler
@pytest.mark.parametrize("held_as_bytes", [True, False])
@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize("as_bytes", [True, False])
@one_hidden
def test_what_is_held_of_the_inputs_goes_by_the_room_there_is(
    plan, as_bytes, buffers, held_as_bytes, monkeypatch
):
    """Two batches or one, as numbers or as bytes."""
    if held_as_bytes and not as_bytes:
        pytest.skip("there are no bytes")
    kind = PLANS[plan]
    sizes = (640, 9, 10) if plan == "units" else (5000, 9, 10)
    problem = random_problem(sizes, as_bytes=as_bytes)
    grid = lay_out(problem, UNITS_OF_A_CLUSTER[0], kind.cluster, buffers, held_as_bytes)
    monkeypatch.setattr(fake_cupy, "shared_memory", grid.shared)
    assert kind.deal(host_backend(plan), problem) == grid
    assert_agrees(*both(plan=plan, sizes=sizes, as_bytes=as_bytes))


@needs_compiler
@pytest.mark.parametrize("dtype", [param("float32", always=False), "float64"])
@pytest.mark.parametrize(
    ("plan", "sizes", "dropout"),
    [
        ("composed", (20, 23, 10), 0),
        ("fused", (30, 150, 130, 7), 0),
        ("fused", (30, 150, 130, 7), [0.2, 0.5, 0.5]),
        ("units", (30, 23, 7), 0),
        ("cluster", (150, 23, 7), 0),
        ("cluster", (150, 23, 7), 0.5),
    ],
)
def test_bits_do_not_depend_on_the_schedule(plan, sizes, dropout, dtype):
    options = {"dtype": dtype, "dropout": dropout}
    results = [train(make_plan(host_backend(plan), sizes, **options)) for _ in range(3)]
    for other in results[1:]:
        assert_agrees(other, results[0], bound=0)


@needs_compiler
@pytest.mark.parametrize("dropout", [0, 0.5])
@every_plan
def test_an_epoch_allocates_nothing_and_waits_only_at_its_ends(plan, dropout):
    made = make_plan(host_backend(plan), (20, 23, 10), dropout=dropout)
    before = fake_cupy.counts.copy()
    made.run(np.arange(130), np.full(5, 0.05))
    counts = fake_cupy.counts - before
    launches = counts.pop("launches")
    assert launches > 1 if plan == "composed" else launches == 1
    # The order, for whole epochs coefficients, the barrier's counter and the launch too; costs and hits.
    assert counts == {"uploads": 1 if plan == "composed" else 4, "downloads": 2}


# Dropout -----------------------------------------------------------------------------------------------------


# Of inputs and of each hidden layer; layers that blocks share by rows, by tiles and in parts, and all in turn; lines
# that are aligned and not; more blocks than rows.
DROPPED = [
    ((20, 10), {"dropout": [0.3]}),
    ((20, 37, 10), {"dropout": 0.5}),
    ((20, 37, 10), {"dropout": [0.2, 0.0]}),
    ((21, 150, 3), {"dropout": [0.2, 0.5]}),
    ((600, 30, 5), {"dropout": [0.8, 0.5], "hidden": "softmax"}),
    ((5, 150, 3, 150, 2), {"dropout": [0.2, 0.5, 0.1, 0.3]}),
    ((30, 150, 130, 7), {"dropout": [0.5, 0.5], "hidden": "relu"}),
    ((300, 9, 260, 4), {"dropout": [0.1, 0.9, 0.0], "hidden": ["softmax", "sigmoid"], "batch": 130}),
]


@pytest.mark.parametrize(("sizes", "options"), DROPPED, ids=str)
@pytest.mark.parametrize("as_bytes", [True, param(False, always=False)])
@pytest.mark.parametrize("most", [param(1, always=False), 2, param(5, always=False)])
def test_dropout_in_any_network(sizes, options, as_bytes, most, blocks):
    blocks(most)
    assert_agrees(*both(sizes=sizes, as_bytes=as_bytes, **options))


# Hidden units that fill their clusters and not; batches whose rows fill their blocks and not.
@pytest.mark.parametrize(
    ("sizes", "batch"),
    [((20, 23, 10), 32), ((30, 5, 4), 3), ((33, 9, 10), 130), param((20, 48, 1), 44, always=False)],
    ids=str,
)
@pytest.mark.parametrize("as_bytes", [True, param(False, always=False)])
@one_hidden
def test_dropout_of_units(plan, as_bytes, sizes, batch):
    options = {"output": "sigmoid", "loss": "binary_cross_entropy", "dropout": 0.3}
    assert_agrees(*both(plan=plan, sizes=sizes, batch=batch, as_bytes=as_bytes, **options))


@every_plan
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_is_verified(plan, dtype, rng):
    """Evaluation, which has none, too."""
    several = plan in ("composed", "fused")
    sizes, rates = ((12, 40, 33, 4), [0.2, 0.5, 0.3]) if several else ((12, 20, 4), 0.5)
    network, data, backend = small_net(sizes, dtype=dtype), small_data(rng, 60), cuda_backend(plan)
    report = gpubp.verify(network, *data, dropout=rates, backend=backend)
    assert report.ok, report
    options = {"batch_size": 16, "epochs": 2, "verify": "step", "dropout": rates}
    assert gpubp.fit(network, *data, backend=backend, **options).verification.ok


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["tf32", "3xtf32"])
def test_dropout_in_every_precision_is_held_to_its_bound(precision):
    network, inputs, labels = wide_problem()
    options = {"batch_size": 70, "epochs": 1, "verify": "step", "dropout": [0.2, 0.5, 0.5]}
    history = gpubp.fit(network, inputs, labels, backend=cuda_backend("fused", precision), **options)
    assert history.verification.ok


@needs_compiler
@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("if (mask.dropped)", "if (false)"),
        ("pull_back.mask = mask_of(i)", "pull_back.mask = mask_of(i - 1)"),
        ("unsigned(launch.step + now().number)", "unsigned(launch.step)"),
        ("drop(i + 1, b, 0, 1, [&](int n) { return a[n]; });", ""),
        ("mask_of(i).each(order()[b]", "mask_of(i).each(order()[0]"),
        ("draw(sample, c)", "draw(sample + 1, c)"),
    ],
)
def test_a_wrong_mask_of_the_fused_plan_is_caught(line, instead, rng, monkeypatch):
    assert not verified_with(line, instead, "fused", (12, 40, 33, 4), [0.2, 0.5, 0.3], rng, monkeypatch).ok


@needs_compiler
@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("sum *= at<real>(launch.pull1)[e];", "sum *= slope(launch.activation, a1[e]);"),
        ("a1[e] *= m;", ""),
        ("first_unit() + e % UNITS);", "e % UNITS);"),
        ("unsigned(launch.step + step)", "unsigned(launch.step)"),
        ("draw(step + 1);", ""),
        ("mask.at(order[e / UNITS]", "mask.at(order[0]"),
    ],
)
@one_hidden
def test_a_wrong_mask_of_units_is_caught(plan, line, instead, rng, monkeypatch):
    assert not verified_with(line, instead, plan, (12, 20, 4), 0.5, rng, monkeypatch).ok


def verified_with(line, instead, plan, sizes, rates, rng, monkeypatch):
    """The report on a plan of whose source a line is another."""
    whole = cuda.source
    assert line in whole(cuda.EPOCH if plan == "fused" else cuda.UNITS)
    monkeypatch.setattr(cuda, "source", lambda files=cuda.OPERATIONS: whole(files).replace(line, instead))
    return gpubp.verify(small_net(sizes), *small_data(rng, 60), dropout=rates, backend=host_backend(plan))


@needs_compiler
def test_dropout_in_the_plan_that_has_it():
    def described(rates, plan="auto", sizes=(20, 24, 10)):
        return make_plan(host_backend(plan), sizes, dropout=rates).describe()

    assert described(0.5).startswith("units plan")
    assert described(0.5, sizes=(65, 24, 10)).startswith("cluster plan")
    assert described(0.5, sizes=(20, 24, 9, 10)).startswith("fused plan")
    of_inputs = [0.2, 0.5]
    assert "; chosen since the units plan does not fit: it cannot drop inputs" in described(of_inputs)
    for plan in ("units", "cluster"):
        why = f"the {plan} plan does not fit: it cannot drop inputs; choose the fused plan"
        with pytest.raises(UsageError, match=why):
            described(of_inputs, plan)


@pytest.mark.exhaustive
@pytest.mark.parametrize("plan", ["fused", "units"])
@pytest.mark.parametrize(("recipe", "accuracy"), [("mnist-sample", 0.5), ("parity", 0.4)])
def test_a_recipe_trains_through_the_kernels_and_is_verified(recipe, accuracy, plan, blocks):
    blocks(16 if plan == "units" else 3)
    short = load_recipe(recipe).overridden({"epochs": 1 if recipe == "mnist-sample" else 20})
    result = run_recipe(short, backend=cuda_backend(plan), verify="step", quiet=True)
    history = result.histories[0]
    assert history.verification.ok
    assert history.verification.steps > 0
    assert history.plan.startswith(f"{plan} plan, whole epochs in one launch")
    assert history["accuracy"][-1] > accuracy


# Precisions of products --------------------------------------------------------------------------------------


def wide_problem():
    """Layers whose products are shared by tiles, of every shape."""
    rng = np.random.default_rng(6)
    network = Network((140, 150, 130, 7), hidden="tanh", dtype="float32", seed=3)
    return network, rng.standard_normal((150, 140)).astype(np.float32), rng.integers(0, 7, 150)


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["float32", "tf32", "3xtf32"])
def test_every_precision_is_held_to_its_bound(precision):
    network, inputs, labels = wide_problem()
    options = {"batch_size": 70, "epochs": 2, "verify": "step"}
    history = gpubp.fit(network, inputs, labels, backend=cuda_backend("fused", precision), **options)
    assert history.verification.ok
    assert f"products in {precision}" in history.device


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [("float32", 0, 1e-6), ("3xtf32", 0, 3e-6), ("tf32", 1e-4, 2e-3)],  # 2⁻²² of each factor; 2⁻¹¹
)
def test_precisions_are_as_far_from_the_truth_as_their_names_say(precision, least, most):
    network, inputs, labels = wide_problem()
    exact = gpubp.gradients(network, inputs, labels, backend="numpy")[1]  # but for float32's own 1e-7
    found = gpubp.gradients(network, inputs, labels, backend=cuda_backend("fused", precision))[1]
    pairs = [(got, right) for (got, _), (right, _) in zip(found, exact, strict=True)]
    error = max(np.linalg.norm(got - right) / np.linalg.norm(right) for got, right in pairs)
    assert least <= error < most


@pytest.mark.exhaustive
def test_products_in_tf32_do_not_pass_for_float32():
    network, inputs, labels = wide_problem()

    class Pretender(type(cuda_backend())):
        def plan(self, problem):
            plan = super().plan(problem)
            plan.products = "float32"
            return plan

    backend = cuda_backend("fused", "tf32")
    backend.__class__ = Pretender
    with pytest.raises(VerificationError):
        gpubp.fit(network, inputs, labels, batch_size=70, epochs=1, backend=backend, verify="first")


def test_a_precision_is_refused_where_it_is_not():
    with pytest.raises(UsageError, match="precision tf32 is for float32 networks, not float64"):
        make_plan(cuda_backend("fused", "tf32"))
    for plan in ("composed", "units", "cluster"):
        with pytest.raises(UsageError, match=f"only the fused plan has precision 3xtf32, not '{plan}'"):
            make_plan(cuda_backend(plan, "3xtf32"), dtype=np.float32)
    with pytest.raises(UsageError, match="no precision 'half': choose from float32, tf32, 3xtf32"):
        cuda_backend("fused", "half")
    with pytest.raises(UsageError, match="the numba backend has no precision 'tf32': choose from float32"):
        backends.get("numba", precision="tf32")


def test_a_net_of_ten_layers_is_held_to_its_bounds(rng):
    network = small_net((12, *[9] * 9, 4))
    options = {"batch_size": 16, "epochs": fewer(1, 3), "verify": "step"}
    report = gpubp.fit(network, *small_data(rng, 60), backend=cuda_backend("fused"), **options).verification
    assert report.ok
    assert report.steps == 4 * options["epochs"]


@needs_compiler
def test_the_plan_is_chosen_by_size_and_can_be_forced(monkeypatch):
    def kind(plan="auto", sizes=(20, 37, 10), **options):
        return make_plan(host_backend(plan), sizes, **options).describe().split()[0]

    assert kind(sizes=(20, 24, 10)) == "units"
    assert kind(sizes=(65, 24, 10)) == "cluster"
    assert kind(sizes=(64, 24, 10)) == "units"
    assert kind(sizes=(20, 49, 10)) == "fused"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_cupy, "multiprocessors", 132)
        patch.setattr(fake_cupy, "blocks_of_clusters", 7)
        assert kind(sizes=(20, 512, 10)) == "units"
        assert (
            kind(sizes=(200, 512, 10)) == "fused"
        )  # which takes an estimated third less than one block for all inputs
        assert kind(sizes=(20, 513, 10)) == "fused"  # more than 32 blocks of 16
        patch.setattr(fake_cupy, "blocks_of_clusters", 128)
        assert "16 clusters of 8 blocks own 8 hidden" in make_plan(host_backend(), (784, 128, 10)).describe()
        patch.setattr(fake_cupy, "blocks_of_clusters", 127)
        assert "8 clusters of 8 blocks own 16 hidden" in make_plan(host_backend(), (784, 128, 10)).describe()
        patch.setitem(fake_cupy._properties, "major", 8)
        assert (
            "32 blocks own 4 hidden" in make_plan(host_backend("units"), (784, 128, 10), batch=20).describe()
        )
        with pytest.raises(
            UsageError, match=r"cluster plan does not fit: clusters .* compute capability 9\.0"
        ):
            kind("cluster")
    for sizes, options, reason in [
        ((20, 49, 10), {}, "49 hidden units are more than the 48 that 3 multiprocessors can own"),
        ((20, 8, 8, 10), {}, "one hidden layer, not 2"),
        ((20, 24, 10), {"hidden": "softmax"}, "cannot be softmax"),
        ((20, 24, 10), {"batch": 2000, "count": 2000}, "bytes of shared memory, and there are 232,448"),
    ]:
        assert kind(sizes=sizes, **options) == "fused"
        with pytest.raises(UsageError, match=f"the units plan does not fit: .*{reason}; choose the fused"):
            kind("units", sizes, **options)
    assert "; chosen for the one hidden layer" in make_plan(host_backend(), (20, 24, 10)).describe()
    why = make_plan(host_backend(), (20, 49, 10)).describe()
    assert "; chosen since the units plan does not fit: 49 hidden" in why
    why = make_plan(host_backend(), (65, 49, 10)).describe()
    assert (
        "; chosen since the cluster plan does not fit: 49 hidden units are more than the 48 that 3 clus"
        in why
    )
    monkeypatch.setattr("gpubp.backends.cuda.backend.COMPOSED_WORK", 32 * (20 * 49 + 49 * 10))
    assert kind(sizes=(20, 49, 10)) == "fused"
    monkeypatch.setattr("gpubp.backends.cuda.backend.COMPOSED_WORK", 32 * (20 * 49 + 49 * 10) - 1)
    assert kind(sizes=(20, 49, 10)) == "composed"
    assert "; chosen for steps of 47,040 multiply-adds" in make_plan(host_backend(), (20, 49, 10)).describe()
    assert kind("fused") == "fused"
    assert kind("composed", (20, 24, 10)) == "composed"
    with pytest.raises(
        UsageError, match="no plan 'quick': choose from auto, composed, fused, units, cluster"
    ):
        host_backend("quick")
