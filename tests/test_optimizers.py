"""Update rules and schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import pytest

import gpubp
from gpubp.errors import UsageError
from gpubp.experiments.recipe import Recipe
from gpubp.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Optimizer, Schedule
from tests.conftest import backend_by_name, small_data, small_net
from tests.networks import EVERY_OPTIMIZER


def step(optimizer, w, g, slots, count=1, decay=True):
    return optimizer.rule(w, g, slots, optimizer.coefficients(optimizer.lr, count, decay=decay))


def test_momentum_and_nesterov_by_hand():
    w, g, v = np.array([1.0]), np.array([2.0]), np.array([4.0])
    new, (velocity,) = step(SGD(lr=0.1, momentum=0.5), w, g, (v,))
    assert (new[0], velocity[0]) == pytest.approx((1 - 0.1 * 4, 4))
    new, (velocity,) = step(SGD(lr=0.1, momentum=0.5, nesterov=True), w, g, (v,))
    assert (new[0], velocity[0]) == pytest.approx((1 - 0.1 * (2 + 0.5 * 4), 4))


def test_adams_first_step_is_the_learning_rate_whatever_the_gradient():
    for g in (1e-3, 5.0, -1e4):
        new, _ = step(Adam(lr=0.01), np.zeros(1), np.array([g]), (np.zeros(1), np.zeros(1)))
        assert new[0] == pytest.approx(-0.01 * math.copysign(1, g), rel=1e-4)


def test_adamw_decays_apart_from_the_gradient_and_adam_through_it():
    w, g, slots = np.array([2.0]), np.zeros(1), (np.zeros(1), np.zeros(1))
    assert step(AdamW(lr=0.1, weight_decay=0.5), w, g, slots)[0][0] == pytest.approx(2 - 0.1 * 0.5 * 2)
    assert step(Adam(lr=0.1, weight_decay=0.5), w, g, slots)[0][0] == pytest.approx(1.9)


def settings_of(cls):
    return {setting.name for setting in fields(cls)}


@pytest.mark.parametrize("cls", [cls for cls in OPTIMIZERS.values() if "weight_decay" in settings_of(cls)])
def test_biases_do_not_decay(cls):
    optimizer = cls(lr=0.1, weight_decay=0.5)
    slots = tuple(np.zeros(1) for _ in optimizer.slots)
    assert step(optimizer, np.array([3.0]), np.zeros(1), slots, decay=False)[0][0] == 3.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(lr=0),
        lambda: SGD(lr=float("nan")),
        lambda: SGD(lr=0.1, momentum=1.0),
        lambda: SGD(lr=0.1, nesterov=True),
        lambda: SGD(lr=0.1, weight_decay=-1),
        lambda: Adam(beta1=1.0),
        lambda: Adam(epsilon=0),
        lambda: Schedule("linear"),
        lambda: Schedule(warmup=-1),
        lambda: Schedule("step", every=0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(UsageError):
        make()


def factors(schedule, epochs=10, steps=4):
    return schedule.factors(0, epochs * steps, steps, epochs)


def test_schedules():
    assert (factors(Schedule()) == 1).all()
    halves = factors(Schedule("step", factor=0.5, every=2))
    assert halves[[0, 7, 8, 16]].tolist() == [1, 1, 0.5, 0.25]
    np.testing.assert_allclose(factors(Schedule("exponential", factor=0.9))[4::4], 0.9 ** np.arange(1, 10))
    cosine = factors(Schedule("cosine", final=0.1))
    assert cosine[0] == 1
    assert cosine[20] == pytest.approx(0.55)
    assert 0.1 < cosine[-1] < 0.11
    warm = factors(Schedule(warmup=2))
    np.testing.assert_allclose(warm[:9], [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1])


def test_a_schedule_does_not_depend_on_how_a_run_is_cut():
    schedule = Schedule("cosine", warmup=1)
    cut = np.concatenate([schedule.factors(i, 3, 4, 10) for i in range(0, 39, 3)])
    np.testing.assert_array_equal(cut, factors(schedule)[:39])


@pytest.mark.parametrize("cls", OPTIMIZERS.values())
def test_a_recipe_and_the_package_offer_every_optimizer(cls):
    assert settings_of(cls) <= settings_of(Recipe)
    assert Recipe(optimizer=cls.kind).build_optimizer() == cls()
    (field,) = (field for field in fields(Recipe) if field.name == "optimizer")
    assert cls.kind in field.metadata["help"].replace(",", "").split()
    assert getattr(gpubp, cls.__name__) is cls


@dataclass(frozen=True)
class SignSGD(Optimizer):
    """W ← W − η sign(g), which no kernel knows."""

    lr: float = 0.01

    kind: ClassVar[str] = "sign_sgd"

    def coefficients(self, lr, step, *, decay):
        return (lr,)

    def rule(self, parameter, gradient, slots, c):
        return parameter - c[0] * np.sign(gradient), ()


@pytest.mark.parametrize("name", ["numba", "numba, composed", "cupy", "cupy, composed", "cupy, units"])
def test_an_optimizer_that_the_kernels_do_not_have_is_refused_by_name(name, rng):
    settings = {"optimizer": SignSGD(), "backend": backend_by_name(name), "verify": "off", "epochs": 1}
    with pytest.raises(UsageError, match=r"'sign_sgd' is not in the kernels.*numpy"):
        gpubp.fit(small_net((12, 9, 4), dtype="float32"), *small_data(rng), **settings)


def test_numpy_trains_with_any_optimizer_and_verifies_those_it_has_a_bound_of(rng):
    settings = {"epochs": 3, "optimizer": SignSGD(), "backend": "numpy"}
    net, (x, y) = small_net(), small_data(rng)
    history = gpubp.fit(net, x, y, verify="off", **settings)
    assert history["loss"][-1] < history["loss"][0]
    with pytest.raises(UsageError, match=r"no bound is known for optimizer 'sign_sgd'"):
        gpubp.fit(net, x, y, verify="first", **settings)


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER, ids=repr)
def test_the_coefficients_of_many_steps_are_those_of_each(optimizer, decay):
    rates = np.random.default_rng(0).random(50)
    one_by_one = [optimizer.coefficients(lr, 7 + s, decay=decay) for s, lr in enumerate(rates.tolist())]
    np.testing.assert_array_equal(optimizer.coefficients_of(rates, 7, decay=decay), one_by_one)
