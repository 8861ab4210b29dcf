"""The numbers that the cupy backend's plans are chosen by, as costs.toml has them."""

import re

from gpubp.backends.cuda import backend, costs, epoch, units

COUNTED = {
    "barrier": 2048, "composed_work": 2_000_000_000, "most_parts": 32, "unshared_inputs": 64, "tile": 2000,
    "tiles.float32.16x16": 8, "tiles.float32.32x32": 20, "tiles.float32.64x64": 55, "tiles.float32.128x64": 95,
    "tiles.float64.16x16": 16, "tiles.float64.32x32": 40, "tiles.float64.64x32": 71,
    "tiles.tensor cores.16x64": 26, "tiles.tensor cores.32x32": 26, "tiles.tensor cores.64x64": 50,
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
    assert values["most_parts"] == units.MOST_PARTS
    assert values["unshared_inputs"] == backend.UNSHARED_INPUTS
    assert (values["barrier"], values["tile"]) == (epoch.BARRIER_CYCLES, epoch.TILE_CYCLES)
    assert int(values["barrier"] * 8) == epoch.ROW_WEIGHTS  # 64 multiply-adds a cycle, of 8 rows
    tiles = {
        f"tiles.{kind}.{16 * rows}x{16 * columns}": cycles
        for kind, of_kind in epoch.TILES.items()
        for rows, columns, cycles in of_kind.values()
    }
    assert tiles == {name: value for name, value in values.items() if name.startswith("tiles.")}
