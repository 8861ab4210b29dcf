"""Changes between two runs, and what of them is more than noise.

The rule. A machine is seldom as fast twice: in three runs of the same code on one machine (bench/results, all-nets-1
to -3) whole runs differ by up to 1.7 times, far beyond the range of their own rounds. So gpubp is held against the
libraries measured beside it, which a slower machine slows as well: in each round, its time over the geometric mean of
theirs, those of the same version in both runs. gpubp has become slower where both its time and its time beside the
others (a) are longer in every round than in any round before, and (b) have risen by more than 10% in the median.
If rounds were exchangeable, (a) alone would come by chance once in 20 for 3 and 3 rounds, once in 252 for 5 and 5.
bench/README.md says what the rule finds in those three runs.
"""

from __future__ import annotations

import sys
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

from gpubp.benchmark import results, terminal
from gpubp.benchmark.peers import OURS
from gpubp.errors import UsageError

LEAST_CHANGE = 0.1
FEWEST_ROUNDS = 3  # with fewer, nothing is known of the noise

SLOWER, FASTER, SAME, YARDSTICK = "SLOWER", "faster", "within the noise", "yardstick"
NO_YARDSTICK, FEW_ROUNDS, ELSEWHERE = "no library beside it", "too few rounds", "other machine"
_NET_FIELDS = ("layers", "hidden", "output", "loss", "lr", "batch", "data", "init", "samples")


def compare(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Compare every net and peer that both runs measured; both as :func:`results.read` gives them.

    Returns:
        ``old_date``, ``old_commit``; ``warnings``, lines; ``rows``, one a net and peer; ``regressions``, how many of
        them are gpubp's and slower beyond the noise; ``conclusions``, lines.
    """
    elsewhere = _changed(_place(old), _place(new))
    warnings = [
        f"{what} {then} then, {now} now: times cannot be compared, and none is judged"
        for what, then, now in elsewhere
    ]
    then, now = ({what: run["machine"].get(what) for what in ("system", "python")} for run in (old, new))
    warnings += [f"{what} was {before}, and is {after}" for what, before, after in _changed(then, now)]
    if versions := _changed(old["machine"]["packages"], new["machine"]["packages"]):
        said = ", ".join(f"{name} {before} → {after}" for name, before, after in versions)
        warnings.append(f"other versions: {said}")
    rows: list[dict[str, Any]] = []
    nets = {net["name"]: net for net in old["nets"]}
    for net in new["nets"]:
        before = nets.get(net["name"])
        if before is None:
            continue
        if changed := [name for name in _NET_FIELDS if before.get(name) != net.get(name)]:
            warnings.append(f"{net['name']}: {', '.join(changed)} changed since, so it is not compared")
            continue
        warnings += _vanished(before, net)
        rows += _net_rows(before, net, judged=not elsewhere)
    slower = [row for row in rows if row["verdict"] == SLOWER]
    return {
        "old_date": old["date"],
        "old_commit": old.get("commit"),
        "warnings": warnings,
        "rows": rows,
        "regressions": len(slower),
        "conclusions": _conclusions(rows, slower),
    }


def _place(run: dict[str, Any]) -> dict[str, Any]:
    """Everything that times depend on, besides the code."""
    facts = {what: run["machine"].get(what) for what in ("cpu", "cores")}
    return {**facts, "threads": run["settings"]["threads"]}


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Values that both have and that differ, with what they were and are."""
    return [(name, old[name], new[name]) for name in new if old.get(name, new[name]) != new[name]]


def _vanished(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    measured = {row["peer"]: row for row in new["peers"]}
    return [
        f"{new['name']}: {row['title']} has no times now ({measured[row['peer']]['status']})"
        for row in old["peers"]
        if row["rounds_ms"] and row["peer"] in measured and not measured[row["peer"]]["rounds_ms"]
    ]


def _net_rows(old: dict[str, Any], new: dict[str, Any], *, judged: bool) -> list[dict[str, Any]]:
    then, now = ({row["peer"]: row for row in net["peers"] if row["rounds_ms"]} for net in (old, new))
    common = [peer for peer in now if peer in then]
    yardstick = [
        peer
        for peer in common
        if not peer.startswith(OURS)
        and then[peer]["version"] == now[peer]["version"]
        and results.DIFFERS not in (then[peer]["same_result"], now[peer]["same_result"])
    ]
    rows = []
    for peer in common:
        both, ours = (then[peer], now[peer]), peer.startswith(OURS)
        rounds = [row["rounds_ms"] for row in both]
        beside = [_beside(run, peer, yardstick) for run in (then, now)] if ours and yardstick else None
        shown = old["baseline"] == new["baseline"] != peer  # of the baseline itself it is 1
        ratios = [median(row["round_ratios"]) if row["round_ratios"] and shown else None for row in both]
        verdict = YARDSTICK if peer in yardstick else ""
        if ours:
            verdict = judge(rounds, beside) if judged else ELSEWHERE
        rows.append(
            {
                "net": new["name"],
                "peer": peer,
                "title": now[peer]["title"],
                "old_ms": median(rounds[0]),
                "new_ms": median(rounds[1]),
                "time_change": _change(rounds),
                "old_ratio": ratios[0],
                "new_ratio": ratios[1],
                "ratio_change": ratios[1] / ratios[0] if ratios[0] and ratios[1] else None,
                "yardstick": yardstick if ours else [],
                "yardstick_change": _change(beside) if beside else None,
                "verdict": verdict,
            }
        )
    return rows


def _change(runs: list[list[float]]) -> float:
    before, after = runs
    return median(after) / median(before)


def _beside(rows: dict[str, dict[str, Any]], peer: str, yardstick: list[str]) -> list[float]:
    """In each round, the peer's time over the geometric mean of the yardstick's."""
    times = zip(*(rows[name]["rounds_ms"] for name in (peer, *yardstick)), strict=False)
    return [ours / exp(sum(map(log, others)) / len(others)) for ours, *others in times]


def judge(rounds: list[list[float]], beside: list[list[float]] | None) -> str:
    """The verdict on gpubp by the rule above: its times in the rounds of both runs, and those over the yardstick's."""
    if min(map(len, rounds)) < FEWEST_ROUNDS:
        return FEW_ROUNDS
    if beside is None:
        return NO_YARDSTICK
    if all(_risen(before, after) for before, after in (rounds, beside)):
        return SLOWER
    if all(_risen(after, before) for before, after in (rounds, beside)):
        return FASTER
    return SAME


def _risen(before: list[float], after: list[float]) -> bool:
    return min(after) > max(before) and median(after) > (1 + LEAST_CHANGE) * median(before)


def _conclusions(rows: list[dict[str, Any]], slower: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"SLOWER beyond the noise: {row['title']} on {row['net']}, {row['time_change'] - 1:+.0%} in time and "
        f"{row['yardstick_change'] - 1:+.0%} beside {', '.join(row['yardstick'])}"
        for row in slower
    ]
    if not rows:
        return ["no net and peer was measured in both runs"]
    if any(row["verdict"] == NO_YARDSTICK for row in rows):
        lines.append(
            "not judged where no other library of the same version was measured in both runs: a slower machine would "
            "look the same"
        )
    judged = sum(row["verdict"] in (SLOWER, FASTER, SAME) for row in rows)
    if not judged:
        return lines or [f"nothing could be judged: that takes {FEWEST_ROUNDS} rounds in both runs"]
    return lines or [f"no regression: {judged} gpubp times judged"]


def main() -> int:
    """``python -m gpubp.benchmark.compare OLD.json NEW.json``: the exit code, 1 for a regression."""
    if len(sys.argv) != 3:
        raise UsageError("give two files: python -m gpubp.benchmark.compare OLD.json NEW.json")
    found = compare(*(results.read(Path(path)) for path in sys.argv[1:]))
    terminal.print_comparison(found, terminal.console())
    return 1 if found["regressions"] else 0


if __name__ == "__main__":
    sys.exit(terminal.exit_code(main))
