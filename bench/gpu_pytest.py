"""A pytest plugin for machines that have pytest and not much else: tests of what is not installed are skipped."""

from __future__ import annotations

import sys
from collections.abc import Generator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

from gpubp.benchmark.process import OURS


class Settings:
    """Takes anything, and decorates a test with nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, test: Any) -> Any:
        return test

    @classmethod
    def register_profile(cls, *_: Any, **__: Any) -> None:
        """Keeps no profile."""

    load_profile = register_profile


class Anything(ModuleType):
    """Whatever is asked of it, it is that."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    __or__ = __call__


def stand_in() -> None:
    """Take Hypothesis's place."""
    hypothesis = Anything("hypothesis")
    skipped = pytest.mark.skip(reason="Hypothesis is not installed")
    vars(hypothesis).update(settings=Settings, given=lambda *_, **__: skipped)
    for name in ("hypothesis", "hypothesis.strategies", "hypothesis.extra", "hypothesis.extra.numpy"):
        sys.modules[name] = hypothesis


def absent(error: BaseException | None) -> str | None:
    """The package that is not installed, if that is the error or what it was raised from."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return None if error.name.partition(".")[0] in OURS else error.name
        error = error.__cause__
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test, with the reason, when it or its fixture comes to import what is not installed."""
    try:
        return (yield)
    except Exception as error:
        if name := absent(error):
            pytest.skip(f"{name} is not installed")
        raise


pytest_runtest_setup = pytest_runtest_call


if find_spec("hypothesis") is None:
    stand_in()
