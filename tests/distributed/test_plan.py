"""Training by several ranks: the same bits on any number of them, and every step held to the reference."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

import gpubp
from gpubp.data.samples import Samples
from gpubp.distributed.plan import DistributedPlan
from gpubp.distributed.ranks import Alone
from gpubp.errors import GpubpError, UsageError
from gpubp.optimizers import SGD, Adam, AdamW
from gpubp.randomness.settings import Deform
from gpubp.support import machine
from gpubp.verification.report import VerificationError
from gpubp.verification.steps import check_cut, check_evaluation, check_step
from tests import param
from tests.conftest import backend_by_name, small_net
from tests.distributed import ThreadRanks, on_ranks
from tests.networks import EVERY_OPTIMIZER, problem_of, samples_of

KINDS = [
    "numpy",
    "numpy, composed",
    "numba",
    "numba, composed",
    "cupy, composed",
    "cupy, fused",
    "cupy, units",
]
RANKS = [1, 2, 4, 8]


def digest(arrays):
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def of_state(state):
    return digest([*state.parameters, *(slot for slots in state.slots for slot in slots)])


def images(rng, n=75, classes=4):
    """Small images, a third of whose pixels are not 0."""
    x = rng.integers(1, 256, (n, 6, 6), np.uint8) * (rng.random((n, 6, 6)) < 0.35)
    return x.astype(np.uint8), rng.integers(0, classes, n)


def problem(net, rng, batch=24, weighted=False, **rules):
    """75 samples in batches of 24, the last of which has fewer samples than there are parts."""
    x, y = images(rng)
    weight = rng.random(len(y)) + 0.5 if weighted else None
    return problem_of(net, samples_of(net, x.reshape(len(x), -1), y, weight), batch=batch, **rules)


def trained(kind, given, size, parts, epochs=2):
    """The state of each rank, with what its steps told."""

    def work(ranks):
        backend = backend_by_name(kind)
        with backend.limits():
            plan = DistributedPlan(backend, given, ranks, parts)
            steps = -(-len(given.samples) // given.batch_size)
            stats = [plan.run(np.arange(len(given.samples)), np.full(steps, 0.1)) for _ in range(epochs)]
        told = [array for each in stats for array in (each.costs, each.hits)]
        watched = plan.evaluate(plan.upload(given.samples))
        return of_state(plan.state()), digest(told), digest([watched.costs, watched.hits])

    found = on_ranks(size, work)
    for each in found:
        if isinstance(each, Exception):
            raise each
    assert len(set(found)) == 1  # on all ranks the same
    return found[0]


def net_of(dtype="float32", sizes=(36, 12, 9, 4)):
    return small_net(sizes, hidden="relu", dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", param("float64", always=False)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_on_any_number_of_ranks(kind, dtype, rng):
    sizes = (36, 12, 4) if "units" in kind else (36, 12, 9, 4)
    backend_by_name(kind)  # or skip
    given = problem(
        net_of(dtype, sizes), rng, optimizer=SGD(0.1, momentum=0.9, weight_decay=0.01), weighted=True
    )
    one, *others = (trained(kind, given, size, parts=8) for size in RANKS)
    assert others == [one] * len(others)


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=str)
@pytest.mark.parametrize("kind", ["numba", "numpy"])
def test_every_optimizer(kind, optimizer, rng):
    given = problem(net_of(), rng, optimizer=optimizer)
    assert trained(kind, given, 1, parts=4) == trained(kind, given, 4, parts=4)


@pytest.mark.parametrize("kind", ["numba", "numpy", "cupy, composed"])
@pytest.mark.parametrize("chance", ["dropout", "deform"])
def test_chance_goes_by_the_sample_and_not_by_the_rank(kind, chance, rng):
    x, y = images(rng)
    backend_by_name(kind)
    how = {"dropout": [0.2, 0.5, 0.3]} if chance == "dropout" else {"deform": Deform(alpha=3, sigma=2)}

    def work(ranks):
        net = net_of()
        gpubp.fit(
            net, x, y, epochs=2, batch_size=24, backend=backend_by_name(kind), verify="step", distributed=ranks,
            parts=4, **how,
        )  # fmt: skip
        return digest([p for pair in net.parameters for p in pair])

    found = [on_ranks(size, work) for size in (1, 2, 4)]
    assert {each for ranks in found for each in ranks} == {found[0][0]}


@pytest.mark.parametrize("kind", ["numba", "numpy"])
def test_sparse_inputs(kind, rng):
    x, y = images(rng)
    rows = csr_array(x.reshape(len(x), -1).astype(np.float32))
    net = net_of()
    given = problem_of(net, samples_of(net, rows, y), batch=24)
    assert trained(kind, given, 1, parts=4) == trained(kind, given, 4, parts=4)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_within_the_bound_of_the_whole_mini_batch(kind, size, rng):
    sizes = (36, 12, 4) if "units" in kind else (36, 12, 9, 4)
    backend_by_name(kind)
    given = problem(net_of(sizes=sizes), rng, optimizer=Adam(0.01))

    def work(ranks):
        plan = DistributedPlan(backend_by_name(kind), given, ranks)
        checks = []
        for first in range(0, 75, 24):
            checks += check_step(plan, np.arange(first, min(first + 24, 75)), 0.01).checks
        return checks + check_cut(plan) + check_evaluation(plan, given.samples)

    for checks in on_ranks(size, work):
        assert not isinstance(checks, Exception), checks
        assert len(checks) > 20
        assert all(check.ok for check in checks)


def test_several_ranks_walk_the_path_of_one(rng):
    """To rounding: after two epochs by SGD the parameters are those of the plan alone, and so is what it tells."""
    given = problem(net_of("float64"), rng, optimizer=SGD(0.1))
    order, rates = np.arange(75), np.full(4, 0.1)
    alone = backend_by_name("numba").plan(given)
    expected = alone.run(order, rates)

    def work(ranks):
        plan = DistributedPlan(backend_by_name("numba"), given, ranks)
        return plan.run(order, rates), plan.state().parameters

    for stats, parameters in on_ranks(3, work):
        np.testing.assert_allclose(stats.costs, expected.costs, rtol=1e-12)
        assert stats.hits.tolist() == expected.hits.tolist()
        for ours, theirs in zip(parameters, alone.state().parameters, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)


def test_a_step_sends_the_least_there_is(rng):
    """Of L parameters each of N ranks sends (N − 1)/N as gradients, and its piece of the new ones to N − 1."""
    given = problem(net_of(), rng)

    def work(ranks):
        plan = DistributedPlan(backend_by_name("numba"), given, ranks)
        before = ranks.traffic.sent
        plan.run(np.arange(24), np.array([0.1]))
        return ranks.traffic.sent - before, len(plan.share.parameters)

    for sent, length in on_ranks(4, work):
        told = 2 * 8 * 3  # cost and hits, to three others
        assert sent == pytest.approx(2 * 3 / 4 * length * 4 + told, abs=2 * 4 * 16 * 3)


FAULTS = {
    "a gradient 1% too large": lambda plan: scaled(plan, 1.01),
    "a rank that gives nothing": lambda plan: scaled(plan, 0.0),
    "another rank's samples": lambda plan: setattr(plan, "_own", range(1)),
    "an update of another piece": lambda plan: updating(plan, slice(0, plan._piece.start)),
    "no update": lambda plan: updating(plan, None),
}


def scaled(plan, factor):
    """Sum the gradient wrongly on this rank."""
    right = plan.share.sum_gradient

    def wrong(order, whole):
        stats = right(order, whole)
        plan.share.gradient[:] *= np.float32(factor)
        return stats

    plan.share.sum_gradient = wrong


def updating(plan, piece):
    """Update another piece on this rank, or none."""
    right = plan.share.update
    plan.share.update = lambda first, stop, lr: piece and right(piece.start, piece.stop, lr)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["numba", "numpy"])
def test_a_fault_on_one_rank_is_found_on_all(kind, fault, rng, monkeypatch):
    x, y = images(rng)
    made = DistributedPlan.__init__

    def faulty(plan, backend, given, ranks, parts):
        made(plan, backend, given, ranks, parts)
        if ranks.rank == 1:
            FAULTS[fault](plan)

    monkeypatch.setattr(DistributedPlan, "__init__", faulty)
    kwargs = {"epochs": 1, "batch_size": 24, "backend": backend_by_name(kind)}
    found = on_ranks(2, lambda ranks: gpubp.fit(net_of(), x, y, distributed=ranks, **kwargs))
    assert [type(error) for error in found] == [VerificationError] * 2


class Lossy(ThreadRanks):
    """A network that once changes a number on its way to the last rank."""

    exchanges = 0

    def _spread(self, vector, cuts):
        super()._spread(vector, cuts)
        self.exchanges += 1
        if self.rank == self.size - 1 and self.exchanges == LAST_OF_EPOCH:
            vector[0] += 1


# Of 75 samples in batches of 24: two steps and a gradient warm up, between two states with their slot, and four follow.
LAST_OF_EPOCH = 1 + 1 + 2 + 4


def test_parameters_that_come_apart_stop_the_run(rng):
    x, y = images(rng)
    kwargs = {"epochs": 3, "batch_size": 24, "backend": "numpy", "verify": "off"}
    for error in on_ranks(3, lambda ranks: gpubp.fit(net_of(), x, y, distributed=ranks, **kwargs), Lossy):
        assert isinstance(error, GpubpError)
        assert "after epoch 1 the parameters of rank 2 are not those of rank 0" in str(error)


@pytest.mark.parametrize(
    ("different", "named"),
    [
        ({"epochs": 3}, "they differ in epochs: 2 on rank 0, and 3 on rank 1"),
        ({"seed": 5}, "they differ in seed"),
        ({"optimizer": AdamW()}, "they differ in optimizer"),
        ({"loss": "quadratic"}, "they differ in loss"),
        ({"dropout": 0.5}, "they differ in dropout"),
        ({"verify": "step"}, "they differ in verify"),
        ({"parts": 4}, "they differ in parts"),
        ({"plan": "composed"}, "they differ in plan"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_ranks_that_are_told_different_things_are_refused(different, named, rng, no_clipping_warning):
    x, y = images(rng)

    def work(ranks):
        own = different if ranks.rank else {}
        kwargs = {"epochs": 2, "optimizer": SGD(0.1), "parts": 2, **own}
        backend = gpubp.backends.get("numpy", plan=kwargs.pop("plan", "auto"))
        gpubp.fit(net_of(), x, y, batch_size=24, backend=backend, distributed=ranks, **kwargs)

    for error in on_ranks(2, work):
        assert isinstance(error, UsageError), error
        assert named in str(error)


@pytest.mark.parametrize("what", ["data", "network", "validation", "parameters", "version"])
def test_ranks_that_have_different_things_are_refused(what, rng, monkeypatch):
    x, y = images(rng)
    if what == "version":
        monkeypatch.setattr(machine, "packages", lambda: {"numpy": threading.current_thread().name})

    def work(ranks):
        other = ranks.rank == 1
        inputs, held, net = x.copy(), x[:20].copy(), net_of()
        if other and what == "data":
            inputs[70, 3, 3] ^= 1
        if other and what == "validation":
            held[0, 0, 0] ^= 1
        if other and what == "network":
            net = net_of(sizes=(36, 12, 9, 5))
        if other and what == "parameters":
            net.parameters[1][0][0, 0] += 1
        kwargs = {"backend": "numpy", "validation": (held, y[:20]), "distributed": ranks}
        gpubp.fit(net, inputs, y, epochs=1, batch_size=24, **kwargs)

    named = {"validation": "validation data", "version": "versions"}.get(what, what)
    for error in on_ranks(2, work):
        assert isinstance(error, UsageError), error
        assert f"they differ in {named}" in str(error)


@pytest.mark.parametrize(("parts", "size"), [(3, 1), (6, 2), (0, 1), (4, 8), (True, 1), (2.0, 1)])
def test_parts_that_cannot_be_shared_are_refused(parts, size, rng):
    given = problem(net_of(), rng)

    def work(ranks):
        with pytest.raises(UsageError, match="parts"):
            DistributedPlan(backend_by_name("numpy"), given, ranks, parts)

    assert on_ranks(size, work) == [None] * size


def test_a_rule_of_ones_own_is_refused(rng):
    class Whole(SGD):
        def rule(self, parameter, gradient, slots, c):
            return parameter - c.lr * gradient / np.linalg.norm(gradient), ()

    given = problem(net_of(), rng, optimizer=Whole(0.1))
    with pytest.raises(UsageError, match="Whole"):
        DistributedPlan(backend_by_name("numpy"), given, Alone(), 2)


def fitted(ranks, x, y, **kwargs):
    net = net_of()
    how = {"batch_size": 24, "optimizer": Adam(0.01), "dropout": 0.1, "parts": 4, "backend": "numba"}
    history = gpubp.fit(net, x, y, distributed=ranks, **(how | kwargs))
    return digest([p for pair in net.parameters for p in pair]), history


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 2), (2, 1)])
def test_a_checkpoint_is_resumed_on_another_number_of_ranks(before, after, rng, tmp_path):
    x, y = images(rng)
    whole, _ = fitted(Alone(), x, y, epochs=4)
    path = tmp_path / "checkpoint.npz"
    on_ranks(before, lambda ranks: fitted(ranks, x, y, epochs=2, save_to=path if ranks.rank == 0 else None))
    found = on_ranks(after, lambda ranks: fitted(ranks, x, y, epochs=4, resume=path))
    assert [weights for weights, _ in found] == [whole] * after
    assert [history.resumed_epochs for _, history in found] == [2] * after


def test_validation_stopping_and_callbacks_are_one_for_all(rng):
    x, y = images(rng)
    kwargs = {"epochs": 60, "validation": (x[:30], y[:30][::-1]), "early_stopping": 3}
    alone, history = fitted(Alone(), x, y, **kwargs)
    assert history.stopped == "early stopping"
    for weights, theirs in on_ranks(4, lambda ranks: fitted(ranks, x, y, **kwargs)):
        assert weights == alone
        assert theirs["validation_loss"] == history["validation_loss"]
        assert theirs.best_epoch == history.best_epoch

    def stops(ranks):
        callback = lambda epoch, network: ranks.rank == 2 and epoch.epoch == 2  # noqa: E731
        return fitted(ranks, x, y, epochs=9, callbacks=[callback])[1]

    assert [(h.stopped, len(h)) for h in on_ranks(4, stops)] == [("callback", 2)] * 4


def test_what_was_distributed_is_told(rng):
    x, y = images(rng)
    for _, history in on_ranks(2, lambda ranks: fitted(ranks, x, y, epochs=2)):
        told = history.distribution
        assert (told.ranks, told.hosts, told.parts) == (2, 1, 4)
        assert told.sent > 0
        assert 0 < told.exchanges <= 1
        assert "2 ranks on 1 host, each mini-batch in 4 parts" in told.summary()
        assert history.to_dict()["distribution"]["ranks"] == 2
    assert fitted(Alone(), x, y, epochs=1)[1].distribution.sent == 0
    assert fitted(Alone(), x, y, epochs=1, parts=None)[1].distribution is None


@pytest.mark.skipif(gpubp.backends.most_threads() < 2, reason="there is but one core")
def test_ranks_may_have_different_numbers_of_threads(rng):
    x, y = images(rng)
    alone, _ = fitted(Alone(), x, y, epochs=2, batch_size=75)

    def work(ranks):
        return fitted(
            ranks, x, y, epochs=2, batch_size=75, backend=gpubp.backends.get("numba", threads=1 + ranks.rank)
        )

    assert [weights for weights, _ in on_ranks(2, work)] == [alone] * 2


def test_a_disagreement_about_verification_ends_all(rng, monkeypatch):
    """Of ranks that have not the same samples in memory any more, which nobody has compared since the start."""
    x, y = images(rng)
    compared = DistributedPlan.evaluate

    def spoilt(plan, samples):
        if plan.ranks.rank == 1:
            plan.problem.samples.inputs[:] = 0
        return compared(plan, samples)

    monkeypatch.setattr(DistributedPlan, "evaluate", spoilt)
    kwargs = {"epochs": 2, "verify": "step", "validation": (x, y)}
    found = on_ranks(2, lambda ranks: fitted(ranks, x.copy(), y, **kwargs))
    assert [type(error) for error in found] == [VerificationError] * 2
    assert all("verification failed" in str(error) and "∂C/∂W1" in str(error) for error in found)


def test_the_loss_is_nan_on_all_if_it_is_on_one(rng, monkeypatch):
    x, y = images(rng)
    made = DistributedPlan.__init__

    def faulty(plan, backend, given, ranks, parts):
        made(plan, backend, given, ranks, parts)
        if ranks.rank == 1:
            scaled(plan, np.nan)

    monkeypatch.setattr(DistributedPlan, "__init__", faulty)
    kwargs = {"epochs": 2, "verify": "off"}
    for error in on_ranks(2, lambda ranks: fitted(ranks, x, y, **kwargs)):
        assert isinstance(error, GpubpError)
        assert "the loss is nan after epoch 1" in str(error)


def test_a_disk_that_is_full_on_the_first_ends_all(rng, tmp_path):
    x, y = images(rng)
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "checkpoint.npz"
    found = on_ranks(
        4, lambda ranks: fitted(ranks, x, y, epochs=2, save_to=path if ranks.rank == 0 else None)
    )
    assert len({str(error) for error in found}) == 1
    assert all(isinstance(error, GpubpError) and str(path) in str(error) for error in found)


def test_an_empty_part_takes_no_part(rng):
    """Of 3 samples in 8 parts five have none; the gradient is still that of the three."""
    given = problem(net_of("float64"), rng)
    plan = DistributedPlan(backend_by_name("numba"), given, None, 8)
    alone = backend_by_name("numba").plan(given)
    few = np.arange(3)
    (cost, ours), (expected, theirs) = plan.gradients(few), alone.gradients(few)
    assert cost == pytest.approx(expected, rel=1e-12)
    for a, b in zip((g for pair in ours for g in pair), (g for pair in theirs for g in pair), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)


def test_samples_of_a_part_are_taken_where_they_are(rng):
    """Evaluation: each rank keeps its own parts of what is watched."""
    given = problem(net_of(), rng)

    def work(ranks):
        plan = DistributedPlan(backend_by_name("numpy"), given, ranks, 8)
        n, parts = plan.upload(given.samples)
        return n, sum(len(part) for part in parts if isinstance(part, Samples))

    found = on_ranks(4, work)
    assert [n for n, _ in found] == [75] * 4
    assert sum(own for _, own in found) == 75
    assert max(own for _, own in found) <= 20


def test_problems_keep_their_batch(rng):
    given = problem(net_of(), rng)
    plan = DistributedPlan(backend_by_name("numba"), given, None, 8)
    assert (plan.batch_size, plan.local.batch_size) == (24, 3)
    assert replace(given, batch_size=3).batch_size == plan.local.problem.batch_size
