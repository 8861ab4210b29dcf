"""What is said of names that are not known, and of settings that differ."""

from __future__ import annotations

import pytest

from gpubp.support.hints import apart, did_you_mean


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (1, 2, "1, not 2"),
        ("sgd", None, "'sgd', not None"),
        ([6554 / 65536], [0.5], "[0.100006], not [0.5]"),
        (
            {"a": 1, "b": (2, 0.1)},
            {"a": 1, "b": (3, 0.1), "c": 4},
            "{'b': (2, 0.1), 'c': None}, not {'b': (3, 0.1), 'c': 4}",
        ),
        (None, {"alpha": 34.0}, "None, not {'alpha': 34.0}"),
    ],
)
def test_settings_that_differ_are_told_where_they_do(one, other, says):
    assert apart(one, other) == says


def test_the_nearest_name_is_the_one_that_was_meant():
    assert did_you_mean("moment", ["momentum", "lr"]) == "did you mean 'momentum'? "
    assert did_you_mean("x", ["momentum", "lr"]) == ""
