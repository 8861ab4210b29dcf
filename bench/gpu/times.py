"""The part of bench.gpu that times epochs: gpubp's plans and every other library, in turn, round after round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

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
FIRST = ("784-128-10", "mnist", "mnist-mlp32", "mnist-nielsen", BIG)  # of the nets, by worth


def times(run: Run, part: Part) -> None:
    """Milliseconds an epoch of each net, from the same parameters over the same batches."""
    entrants = []
    for peer in peers(run.host):
        graph = run.host and peer.options.get("step") == "graph"
        if reason := peer.missing() or ("needs a GPU" if graph else None):
            part.skipped.append(f"{peer.title}: {reason}")
        else:
            options = {"threads": machine.cores(), "cupy": run.cupy}
            entrants.append(Entrant(peer, run.new_worker(peer.name), options, ITEM_SECONDS))
    if run.host:
        part.skipped.append("times by events: there are none on the host, where the clock's are taken")
    places = {name: place for place, name in enumerate(FIRST)}
    nets = sorted([*run.extras, *run.recipes], key=lambda loaded: places.get(loaded.net.name, len(FIRST)))
    reports: list[NetReport] = []
    try:
        entrants = start(run, part, entrants)
        part.tables.append(CLOCKS)
        for number, loaded in enumerate(nets):
            whole, left = run.part_end, run.left()
            run.part_end -= max(0.0, left - 2 * left / (len(nets) - number))  # twice its share at most
            reports.append(NetReport(loaded.net, loaded.count, NUMBA))
            plan = _one_net(run, part, reports[-1], loaded, entrants, run.folder / f"times-{number}")
            run.part_end = whole
            net = results.net_dict(reports[-1])
            above, below = f"{net['name']}: {shown.about(net)}", [*shown.wrong(net), *shown.notes(net)]
            part.tables.append(text_of(terminal.net_table(net), [above], below))
            run.keep(part, {**net, "plan_of_auto": plan})
        part.tables.extend([] if run.host else conclusions(reports))
    finally:
        for entrant in entrants:
            entrant.worker.close()


def start(run: Run, part: Part, entrants: Sequence[Entrant]) -> list[Entrant]:
    """Have all processes import and find their device, at the same time; those that are ready."""
    begun, ready = [], []
    for entrant in entrants:
        what, entrant.worker.until = f"{entrant.peer.title}, hello", run.part_end
        with part.item(what):
            run.begin(part, what)
            entrant.worker.send("hello", module=entrant.peer.module, options=entrant.options)
            begun.append(entrant)
    end = time.perf_counter() + HELLO_SECONDS
    for entrant in begun:
        with part.item(entrant.peer.title):
            seconds = entrant.worker.receive(end - time.perf_counter())["seconds"]
            entrant.started = {"total": sum(seconds.values()), **seconds}
            ready.append(entrant)
        if entrant not in ready:
            entrant.worker.close()
    return ready


def _one_net(
    run: Run, part: Part, report: NetReport, loaded: Loaded, entrants: Sequence[Entrant], folder: Path
) -> str | None:
    """Measure a net; what goes wrong in it stays in it. The plan that gpubp makes of it if left the choice."""
    name, plan = loaded.net.name, None
    with part.item(name):
        folder.mkdir()
        answer = run.attempt(part, f"{name}, auto", "plan_of_auto", net=loaded.net)
        plan = answer["plan"] if answer else None
        report.notes.append(f"left the choice, gpubp takes: {plan or 'unknown'}")
        for entrant in entrants:
            entrant.worker.until = run.part_end
        rounds = Rounds(run.sizes.rounds, run.sizes.seconds_a_round, SECONDS_A_PEER, pause=0.0, events=True)
        say = lambda line: run.say(f"{part.name}: {line}")  # noqa: E731
        measure.measure(report, entrants, folder, loaded.train, rounds, say)
    for row in report.rows:
        lines = {FAILED: part.failures, LEFT_OUT: part.skipped, CUT_SHORT: part.cut}.get(row.status)
        if lines is not None:
            lines.append(f"{name}: {row.title}: {row.notes[-1]}")
        elif row.same_result == DIFFERS and row.peer.startswith(OURS):
            part.failures.append(f"{name}: {row.title} {row.notes[-1]}")
    if fastest := best(report, ours=True):
        report.baseline = fastest.peer
    return plan


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
