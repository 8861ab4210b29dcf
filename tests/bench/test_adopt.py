"""What a run on a GPU measured, taken over into what plans are chosen by."""

from __future__ import annotations

import copy
import json
import tomllib

import pytest

from bench.gpu import adopt
from bench.gpu.micro import KERNELS
from bench.gpu.run import sources
from gpubp.backends.cuda import costs


def net(fused, composed, layers=(784, 128, 10), batch=100, **changes):
    rows = [
        {
            "peer": f"gpubp-{plan}",
            "status": "ok",
            "same_result": "same",
            "epoch_ms": {"median": ms},
            **changes,
        }
        for plan, ms in (("fused", fused), ("composed", composed))
    ]
    return {"layers": list(layers), "batch": batch, "samples": 60_000, "peers": rows}


def results(**changes):
    micro = [
        {"what": "barrier of 16 blocks", "cycles": 900.0},
        {"what": "barrier of 132 blocks", "cycles": 1234.5678, "cost": "barrier"},
        {"what": "a tile", "cycles": 47.5, "cost": "tiles.float32.64x64"},
    ]
    parts = [{"part": "device", "results": []}, {"part": "micro", "results": micro}]
    machine = {"device": {"name": "NVIDIA H100"}}
    content = {"format": "gpubp-bench-gpu", "format_version": 1, "host": False, "sources": sources()}
    return content | {"date": "2026-12-01T10:00:00", "machine": machine, "parts": parts} | changes


@pytest.fixture
def take(tmp_path, monkeypatch, capsys):
    """take(results): the exit code, the content of costs.toml afterwards, and what is said."""
    target = tmp_path / "costs.toml"
    monkeypatch.setattr(adopt, "COSTS", target)
    monkeypatch.setattr(adopt, "ROOT", tmp_path)
    before = {name: dict(entry, how="counted") for name, entry in costs.entries(costs.read())}
    monkeypatch.setattr(costs, "VALUES", {name: entry["value"] for name, entry in before.items()})

    def run(content, folder=False):
        path = tmp_path / "results.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        code = adopt.main([str(tmp_path if folder else path)])
        said = capsys.readouterr()
        return code, tomllib.loads(target.read_text()) if target.exists() else None, said.out + said.err

    return run


@pytest.mark.parametrize("folder", [False, True])
def test_what_was_measured_is_written_and_all_else_stays(take, folder):
    code, written, said = take(results(), folder)
    assert code == 0
    found, present = dict(costs.entries(written)), dict(costs.entries(costs.read()))
    measured = {
        "how": "measured",
        "device": "NVIDIA H100",
        "date": "2026-12-01T10:00:00",
        "sources": sources(),
    }
    assert found["barrier"] == present["barrier"] | {"value": 1235.0} | measured
    assert found["tiles.float32.64x64"] == present["tiles.float32.64x64"] | {"value": 47.5} | measured
    del found["barrier"], found["tiles.float32.64x64"], present["barrier"], present["tiles.float32.64x64"]
    assert found == present
    assert "barrier: 1235 cycles; it was" in said
    assert "most_parts: stays" in said
    assert "written into costs.toml" in said


def test_no_run_of_the_host_and_of_other_sources_is_taken(take):
    refused = {
        "of a run on the host build": (results(host=True), 2),
        "of other sources, abc": (results(sources="abc"), 2),
        "no results of bench.gpu: gpubp-bench-cpu 1": (results(format="gpubp-bench-cpu"), 5),
        "no results of bench.gpu: gpubp-bench-gpu 2": (results(format_version=2), 5),
        "no results of bench.gpu: ": ("{", 5),
        "no number that plans are chosen by was measured": (results(parts=[]), 2),
    }
    for said_of, (content, exit_code) in refused.items():
        code, written, said = take(content)
        assert (code, written) == (exit_code, None)
        assert said.startswith("error: ")
        assert said_of in said


@pytest.mark.parametrize(
    ("changes", "said_of"),
    [({"cost": "bariers"}, "costs.toml has no 'bariers'"), ({"cycles": 0.0}, "barrier cannot be 0")],
)
def test_a_number_that_cannot_be_is_not_taken(take, changes, said_of):
    content = results()
    content["parts"][1]["results"][1] |= changes
    code, written, said = take(content)
    assert (code, written) == (2, None)
    assert said_of in said


WORK = {(784, 128, 10): 100 * (784 * 128 + 1280), (784, 2048, 10): 100 * (784 * 2048 + 20480)}


@pytest.mark.parametrize(
    ("nets", "present", "expected"),
    [
        ([(1.0, 2.0), (4.0, 3.0)], 2e9, "between"),
        ([(1.0, 2.0), (3.0, 4.0)], 2e9, None),  # less than where it is now
        ([(1.0, 2.0), (3.0, 4.0)], 1e6, "above"),
        ([(2.0, 1.0), (4.0, 3.0)], 2e9, "below"),
        ([(2.0, 1.0), (4.0, 3.0)], 1e6, None),
        ([(2.0, 1.0), (3.0, 4.0)], 2e9, None),  # these say nothing that is simple
        ([], 2e9, None),
    ],
)
def test_where_the_composed_plan_begins_is_between_what_either_does_faster(nets, present, expected):
    small, large = WORK.values()
    times = [net(*ms, layers) for ms, layers in zip(nets, WORK, strict=False)]
    found = adopt.composed_work(times, present)
    if expected == "between":
        assert small < found < large
        assert found**2 == pytest.approx(small * large)
    else:
        assert found == {"above": large, "below": small - 1, None: None}[expected]


def test_times_of_what_failed_or_differs_say_nothing(take):
    times = [net(1.0, 2.0), net(4.0, 3.0, (784, 2048, 10))]
    parts = [{"part": "times", "results": times}]
    assert take(results(parts=parts))[1]["composed_work"]["how"] == "measured"
    for change in ({"status": "failed"}, {"same_result": "differs"}, {"epoch_ms": None}):
        wrong = copy.deepcopy(parts)
        for one in wrong[0]["results"]:
            one["peers"][0] |= change
        code, _, said = take(results(parts=wrong))
        assert code == 2
        assert "was measured" in said


def test_every_cost_of_a_kernel_is_there():
    assert {kernel.cost for kernel in KERNELS if kernel.cost} <= costs.VALUES.keys()
