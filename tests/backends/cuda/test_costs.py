"""The numbers that the cupy backend's plans are chosen by, as costs.toml has them."""

import re

from gpubp.backends.cuda import backend, costs, epoch, units

COUNTED = {
    "barrier": 2048, "composed_work": 2_000_000_000, "most_parts": 32,
    "tiles.float32.1": 24, "tiles.float32.2": 24, "tiles.float32.4": 46, "tiles.float32.8": 81,
    "tiles.float64.1": 24, "tiles.float64.2": 24, "tiles.float64.4": 36,
    "tiles.tensor cores.1": 24, "tiles.tensor cores.2": 24, "tiles.tensor cores.4": 30,
}  # fmt: skip


def test_every_number_says_what_it_is_and_how_it_is_known():
    found = dict(costs.entries(costs.read()))
    assert set(found) == set(COUNTED)
    for name, entry in found.items():
        assert entry["value"] > 0
        assert entry["unit"]
        assert entry["what"]
        if entry["how"] == "counted":
            assert entry["value"] == COUNTED[name]
        else:
            assert entry["how"] == "measured"
            assert entry["device"]
            assert re.match(r"\d{4}-\d\d-\d\d", entry["date"])
            assert entry["sources"]


def test_what_plans_take_is_what_the_file_has():
    values = {name: entry["value"] for name, entry in costs.entries(costs.read())}
    assert values == costs.VALUES
    assert values["composed_work"] == backend.COMPOSED_WORK
    assert units.MOST_PARTS == backend.MOST_PARTS == values["most_parts"]
    assert int(values["barrier"] * 8) == epoch.ROW_WEIGHTS  # 64 multiply-adds a cycle, of 8 rows
    for kind, tiles in epoch.TILES.items():
        assert {code: cycles for code, (_, _, cycles) in tiles.items()} == {
            int(name.rpartition(".")[2]): value
            for name, value in values.items()
            if name.startswith(f"tiles.{kind}.")
        }
