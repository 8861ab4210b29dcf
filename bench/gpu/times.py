"""The part of bench.gpu that times epochs: gpubp's plans and every other library, in turn, round after round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu.nets import BIG, peers
from bench.gpu.report import Part, text_of
from bench.gpu.run import ITEM_SECONDS, Loaded, Run
from gpubp.benchmark import measure, results, shown, terminal
from gpubp.benchmark.measure import Entrant, Rounds
from gpubp.benchmark.peers import NUMBA, OURS, PRODUCTS
from gpubp.benchmark.results import CUT_SHORT, DIFFERS, FAILED, LEFT_OUT, TOLERANCES, NetReport, Row, Spread
from gpubp.support import machine

HELLO_SECONDS = 90.0  # for all peers beside each other: importing a library from a cold disk takes its time
SECONDS_A_PEER = 6.0  # for the rounds of one peer on one net; FEWEST_ROUNDS are made in any case
CLOCKS = (
    "  ms by events of the device, or by the clock; × is by events where both have them, else by the clock"
)
WORTH = ("784-128-10", "mnist", "mnist-mlp32", "mnist-nielsen", BIG)  # of the nets, in this order
SHARES = 1.5  # of the time that is left for the nets, which one may take at most


def call(run: Run, part: Part) -> None:
    """Have all processes import and find their device, at the same time, while other parts are at work."""
    for peer in peers(run.host, run.second):
        graph = run.host and peer.options.get("step") == "graph"
        if reason := peer.missing() or ("needs a GPU" if graph else None):
            part.skipped.append(f"{peer.title}: {reason}")
            continue
        options = {"threads": machine.cores(), "cupy": run.cupy}
        entrant = Entrant(peer, run.new_worker(peer.name), options, ITEM_SECONDS)
        what = f"{peer.title}, hello"
        with part.item(what):
            run.begin(part, what)
            entrant.worker.send("hello", module=peer.module, options=entrant.options)
            run.entrants.append(entrant)


def answered(run: Run, part: Part) -> list[Entrant]:
    """Those of the processes that are ready; the time of the others is up HELLO_SECONDS from now."""
    ready, end = [], time.perf_counter() + HELLO_SECONDS
    for entrant in run.entrants:
        entrant.worker.until = run.part_end
        with part.item(entrant.peer.title):
            seconds = entrant.worker.receive(end - time.perf_counter())["seconds"]
            entrant.started = {"total": sum(seconds.values()), **seconds}
            ready.append(entrant)
        if entrant not in ready:
            entrant.worker.close()
    return ready


def times(run: Run, part: Part) -> None:
    """Milliseconds an epoch of each net, from the same parameters over the same batches."""
    if run.host:
        part.skipped.append("times by events: there are none on the host, where the clock's are taken")
    places = {name: place for place, name in enumerate(WORTH)}
    chosen = [*run.recipes, *run.extras] if run.second else run.extras
    nets = sorted(chosen, key=lambda loaded: places.get(loaded.net.name, len(WORTH)))
    reports: list[NetReport] = []
    try:
        entrants = answered(run, part)
        part.tables.append(CLOCKS)
        for number, loaded in enumerate(nets):
            whole, left = run.part_end, run.left()
            run.part_end -= max(0.0, left - SHARES * left / (len(nets) - number))
            baseline = entrants[0].peer.name if entrants else ""
            reports.append(NetReport(loaded.net, loaded.count, baseline))
            _one_net(run, part, reports[-1], loaded, entrants, run.folder / f"times-{number}")
            run.part_end = whole
        part.tables.extend([] if run.host else conclusions(reports))
    finally:
        for entrant in run.entrants:
            entrant.worker.close()


def _one_net(
    run: Run, part: Part, report: NetReport, loaded: Loaded, entrants: Sequence[Entrant], folder: Path
) -> None:
    """Measure a net; what goes wrong in it stays in it, and what is known of it is written after each round."""
    name, result = loaded.net.name, dict[str, Any]()
    part.results.append(result)

    def say(line: str) -> None:
        run.say(f"{part.name}: {line}")
        result.update(results.net_dict(report))
        run.save()

    with part.item(name):
        folder.mkdir()
        answer = run.attempt(part, f"{name}, auto", "plan_of_auto", net=loaded.net)
        plan = result["plan_of_auto"] = answer["plan"] if answer else None
        report.notes.append(f"left the choice, gpubp takes: {plan or 'unknown'}")
        for entrant in entrants:
            entrant.worker.until = run.part_end
        rounds = Rounds(run.sizes.rounds, run.sizes.seconds_a_round, SECONDS_A_PEER, pause=0.0, events=True)
        measure.measure(report, entrants, folder, loaded.train, rounds, say)
    with part.item(f"{name}, what came of it"):
        _conclude(run, part, report, result)


def _conclude(run: Run, part: Part, report: NetReport, result: dict[str, Any]) -> None:
    """What went wrong in a net, gpubp's fastest plan as what all are compared with, and the table."""
    name = report.net.name
    for row in report.rows:
        lines = {FAILED: part.failures, LEFT_OUT: part.skipped, CUT_SHORT: part.cut}.get(row.status)
        if lines is not None:
            lines.append(f"{name}: {row.title}: {row.notes[-1]}")
        elif row.same_result == DIFFERS and row.peer.startswith(OURS):
            part.failures.append(f"{name}: {row.title} {row.notes[-1]}")
    if fastest := best(report, ours=True):
        report.baseline = fastest.peer
    result.update(results.net_dict(report))
    above, below = f"{name}: {shown.about(result)}", [*shown.wrong(result), *shown.notes(result)]
    part.tables.append(text_of(terminal.net_table(result), [above], below))
    run.save()


def best(report: NetReport, *, ours: bool, precision: str = "float32") -> Row | None:
    """The fastest on the GPU in that precision, of gpubp's plans or of the other libraries."""
    rows = [row for row in report.rows if row.peer not in (NUMBA, PRODUCTS)]
    return results.fastest((row for row in rows if row.peer.startswith(OURS) == ours), precision)


def conclusions(reports: Sequence[NetReport]) -> list[str]:
    """The fastest other library of each net and precision, and how far gpubp is from the products alone."""
    lines = []
    for report in reports:
        pairs = [
            (best(report, ours=False, precision=p), best(report, ours=True, precision=p)) for p in TOLERANCES
        ]
        for row, over in [*pairs, (best(report, ours=True), report.row(PRODUCTS))]:
            ratio = Spread.of(results.ratios(row, over)) if row else None
            if row and over and ratio:
                lines.append(
                    f"  {report.net.name}: {row.title} takes {ratio.median:.2f} × the time "
                    f"({ratio.min:.2f} … {ratio.max:.2f}) of {over.title}"
                )
    return lines
