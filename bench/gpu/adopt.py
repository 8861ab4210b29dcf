"""``python -m bench.gpu.adopt RESULTS``: what a run on a GPU measured becomes what gpubp's plans are chosen by.

A result with a ``cost`` is the number of that name in costs.toml; where the composed plan begins to be faster than the
fused one, the times tell.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import tomli_w

from bench import ROOT
from bench.gpu.report import FORMAT, FORMAT_VERSION
from bench.gpu.run import sources
from gpubp.backends.cuda import costs
from gpubp.benchmark.results import DIFFERS, OK
from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.support.files import write_text

COSTS = ROOT / "gpubp" / "backends" / "cuda" / costs.FILE


def read(path: Path) -> dict[str, Any]:
    """A run's results, from its results.json or the folder of that.

    Raises:
        DataError: they are none.
        UsageError: they say nothing of this code on a GPU.
    """
    path = path / "results.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = content["format"], content["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no results of bench.gpu: {error}") from error
    if kind != (FORMAT, FORMAT_VERSION):
        raise DataError(f"{path}: no results of bench.gpu: {kind[0]} {kind[1]}")
    if content["host"]:
        raise UsageError(f"{path} is of a run on the host build, which says nothing of a GPU")
    if content["sources"] != sources():
        raise UsageError(
            f"{path} is of other sources, {content['sources']}; these are {sources()}: measure them"
        )
    return content


def measured(content: dict[str, Any]) -> dict[str, float]:
    """The numbers that the run tells, by their names."""
    results = {part["part"]: part["results"] for part in content["parts"]}
    of_kernels = [result for result in results.get("micro", []) if "cost" in result]
    found = {result["cost"]: result["cycles"] for result in of_kernels}
    if work := composed_work(results.get("times", []), costs.VALUES["composed_work"]):
        found["composed_work"] = work
    return found


def composed_work(nets: Sequence[dict[str, Any]], present: float) -> int | None:
    """The multiply-adds of a step from which on the composed plan is faster than the fused one; None if not known.

    It is between the largest step that the fused plan does faster and the smallest that the composed plan does.
    """
    fused: list[int] = []
    composed: list[int] = []
    for net in nets:
        times = {
            row["peer"]: row["epoch_ms"]["median"]
            for row in net["peers"]
            if row["status"] == OK and row["same_result"] != DIFFERS and row["epoch_ms"]
        }
        if {"gpubp-fused", "gpubp-composed"} <= times.keys():
            work = min(net["batch"], net["samples"]) * sum(a * b for a, b in pairwise(net["layers"]))
            (fused if times["gpubp-fused"] <= times["gpubp-composed"] else composed).append(work)
    if fused and composed:
        return round(math.sqrt(max(fused) * min(composed))) if max(fused) < min(composed) else None
    if fused and max(fused) > present:
        return max(fused)
    return min(composed) - 1 if composed and min(composed) <= present else None


def adopted(content: dict[str, Any], present: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The content of costs.toml with what was measured, and a line for each number.

    Raises:
        UsageError: nothing was measured, or what is no cost or cannot be.
    """
    found, of_each = measured(content), dict(costs.entries(present))
    if not found:
        raise UsageError("no number that plans are chosen by was measured")
    device = content["machine"]["device"].get("name")
    for name, value in found.items():
        if name not in of_each:
            raise UsageError(f"{costs.FILE} has no {name!r}")
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} cannot be {value:g}")
    lines = []
    for name, entry in of_each.items():
        before = f"{entry['value']:g} {entry['unit']}, {entry['how']}"
        if name in found:
            value = found[name]
            value = value if isinstance(value, int) else float(f"{value:.4g}")
            entry |= {"value": value, "how": "measured", "device": device}
            entry |= {"date": content["date"], "sources": content["sources"]}
            lines.append(f"{name}: {value:g} {entry['unit']}; it was {before}")
        else:
            lines.append(f"{name}: stays {before}")
    return present, lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.adopt", description="Choose plans by what was measured."
    )
    parser.add_argument("results", type=Path, help="results.json of a run of bench.gpu, or its folder")
    args = parser.parse_args(argv)
    try:
        content, lines = adopted(read(args.results), costs.read())
        write_text(COSTS, tomli_w.dumps(content))
    except GpubpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(*lines, f"written into {COSTS.relative_to(ROOT)}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
