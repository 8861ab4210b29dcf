"""Results of a run of bench.startup: the JSON and CSV of them, a table in Markdown and one on the terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.startup.measure import Measured
from bench.startup.trials import BEFORE, TITLES
from gpubp.benchmark import shown, terminal
from gpubp.benchmark.peers import OURS
from gpubp.benchmark.results import FAILED, Row, Spread, csv_text, ratios, write_files
from gpubp.benchmark.shown import NAME, Cell, number, spread, times
from gpubp.support.files import write_text

FORMAT, FORMAT_VERSION = "gpubp-bench-startup", 1
COLUMNS = (
    "row", "peer", "status", "rounds", "median_s", "min_s", "max_s", "ratio", "ratio_min", "ratio_max", "accuracy",
    "to_reach", "found", "reached", "notes",
)  # fmt: skip


@dataclass
class Report:
    """A run. interpreters: facts of those that gpubp runs in. missing: peers that are not installed, and why."""

    date: str
    commit: dict[str, Any] | None
    machine: dict[str, Any]
    settings: dict[str, Any]
    interpreters: dict[str, dict[str, Any]]
    missing: dict[str, str]
    measured: list[Measured] = field(default_factory=list)
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        return any(one.status == FAILED for one in self.measured)


def to_dict(report: Report) -> dict[str, Any]:
    """The JSON, as bench/README.md documents it."""
    fields = {name: value for name, value in vars(report).items() if name != "measured"}
    rows = [line_dict(one, line) for one in report.measured for line in one.lines]
    return {"format": FORMAT, "format_version": FORMAT_VERSION, **fields, "rows": rows}


def line_dict(one: Measured, line: str) -> dict[str, Any]:
    """A line of a trial for JSON."""
    rows, goal = sorted(one.lines[line], key=lambda row: list(TITLES).index(row.peer)), one.trial.lines[line]
    own = next((row for row in rows if row.peer == OURS), None)
    found = goal.found(rows) if goal else None
    before = goal.found(rows, BEFORE) if goal else None
    other = goal.other(rows) if goal else None
    return {
        "row": line,
        "title": one.trial.title,
        "status": one.status,
        "notes": one.notes,
        "to_reach": str(goal) if goal else None,
        "beside": other.peer if other else None,
        "found": found,
        "found_in_words": goal.said(found) if goal and found is not None else None,
        "found_before": before,
        "reached": goal.reached(found) if goal and found is not None else None,
        "peers": [_peer_dict(row, own, one.accuracies.get(row.peer, [])) for row in rows],
    }


def _peer_dict(row: Row, own: Row | None, accuracies: list[float]) -> dict[str, Any]:
    by_round = ratios(row, own)
    time, ratio = Spread.of(row.rounds), Spread.of(by_round)
    return {
        "peer": row.peer,
        "title": row.title,
        "seconds": asdict(time) if time else None,
        "rounds_s": row.rounds,
        "ratio": asdict(ratio) if ratio else None,
        "round_ratios": by_round,
        "accuracies": accuracies,
    }


def to_csv(content: dict[str, Any]) -> str:
    """One line a row and peer of the JSON, and one for a row without any; empty where there is no number."""
    lines = []
    for row in content["rows"]:
        lines += [] if row["peers"] else [{**row, "notes": "; ".join(row["notes"])}]
        for peer in row["peers"]:
            time, ratio = peer["seconds"] or {}, peer["ratio"] or {}
            spreads = {f"{name}_s": value for name, value in time.items()}
            spreads |= {f"ratio_{name}": value for name, value in ratio.items()}
            counts = {"rounds": len(peer["rounds_s"]), "ratio": ratio.get("median")}
            counts["notes"] = "; ".join(row["notes"])
            accuracy = peer["accuracies"][-1] if peer["accuracies"] else None
            lines.append({**row, **peer, **spreads, **counts, "accuracy": accuracy})
    return csv_text(COLUMNS, lines)


def to_markdown(content: dict[str, Any]) -> str:
    """A page: the table, what was measured where, and what is to be said of single rows."""
    timed = {peer["peer"] for row in content["rows"] for peer in row["peers"]}
    peers = [name for name in TITLES if name in timed]
    before = ["found before"] if BEFORE in timed else []
    head = ["", *(TITLES[name] for name in peers), "to reach", *before, "found", "reached"]
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in content["rows"]:
        by_name = {peer["peer"]: peer for peer in row["peers"]}
        reached = {None: "", True: "yes", False: "no"}[row["reached"]]
        found = [number(row[name], seconds).text for name in ("found_before", "found")[0 if before else 1 :]]
        cells = [
            row["row"],
            *(_cell(by_name.get(name)) for name in peers),
            row["to_reach"] or "",
            *found,
            reached,
        ]
        table.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [f"# From the command to the result, {content['date'][:10]}", "", *about(content), "", *table, ""]
    )


def _cell(peer: dict[str, Any] | None) -> str:
    """Seconds, and how many times as long as gpubp."""
    if peer is None:
        return ""
    time, ratio = spread(peer["seconds"], seconds), peer["ratio"]
    told = f", × {times(ratio['median'])}" if peer["peer"] != OURS and ratio else ""
    return f"{time.text} ({time.detail}){told}"


def about(content: dict[str, Any]) -> list[str]:
    """In lines, how to read the table, on what machine it was measured, and what is to be said of single rows."""
    facts, rounds = content["machine"], content["settings"]
    load = [facts.get(f"load_average_{when}", "unknown") for when in ("before", "after")]
    others = {name: version for name, version in facts["packages"].items() if name != OURS}
    lines = [
        "Seconds of whole processes on the CPU, run in turn: the median of the rounds, in brackets the least and the "
        "most, and how many times as long as gpubp.",
        f"Rounds: {rounds['rounds']}; where nothing was compiled before, {rounds['first_rounds']}. "
        f"Threads: {rounds['threads'] or 'as each library chooses'}.",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}; load {load[0]} before, {load[1]} after.",
        *([f"{busy[0].upper()}{busy[1:]}."] if (busy := shown.busy(facts)) else []),
        *(f"{TITLES[name]}: {_versions(its)}." for name, its in content["interpreters"].items()),
        f"The other libraries: {_versions({**facts, 'packages': others})}.",
        *(f"Left out: {names}, {why}." for names, why in shown.missing(content["missing"]).items()),
        *(line for row in content["rows"] for line in _remarks(row)),
        *(["The run was interrupted."] if content["interrupted"] else []),
    ]
    return [f"- {line}" for line in lines]


def _remarks(row: dict[str, Any]) -> list[str]:
    """The accuracies of a row, and what else is to be said of it."""
    found = [accuracy for peer in row["peers"] for accuracy in peer["accuracies"]]
    said = [f"test accuracies from {min(found):.4f} to {max(found):.4f}"] if found else []
    return [f"{row['row']}: {remark}." for remark in (*said, *row["notes"])]


def _versions(facts: dict[str, Any]) -> str:
    commit = facts.get("commit")
    of = f"commit {commit['id'][:12]}{', with changes' if commit['changed'] else ''}; " if commit else ""
    python = facts["python"] if facts["python"][0].isalpha() else f"Python {facts['python']}"
    return f"{of}{python}, " + ", ".join(f"{name} {version}" for name, version in facts["packages"].items())


def seconds(value: float) -> str:
    """0.0123, 0.123, 1.23, 12.3."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def show(row: dict[str, Any], console: Console) -> None:
    """A row on the terminal."""
    console.print(f"{row['row']}: {row['title']}", highlight=False, markup=False)
    columns = {name: name for name in ("", "s (least–most)", "× gpubp (least–most)", "accuracy")}
    cells = [
        {
            "": Cell(peer["title"], NAME),
            "s (least–most)": spread(peer["seconds"], seconds),
            "× gpubp (least–most)": spread(peer["ratio"], times) if peer["peer"] != OURS else Cell("1"),
            "accuracy": Cell(f"{peer['accuracies'][-1]:.4f}" if peer["accuracies"] else ""),
        }
        for peer in row["peers"]
    ]
    console.print(terminal.table(columns, cells))
    terminal.print_lines([*row["notes"], *verdict(row), ""], console)


def verdict(row: dict[str, Any]) -> list[str]:
    """What was found, beside what is to be reached."""
    if row["found"] is None:
        return [f"to reach: {row['to_reach']}; not measured"] if row["to_reach"] else []
    reached = "reached" if row["reached"] else "NOT REACHED"
    return [f"{row['found_in_words']}; to reach: {row['to_reach']}: {reached}"]


def write(folder: Path, report: Report) -> dict[str, Any]:
    """results.json, results.csv and README.md into ``folder``; the content of the first."""
    content = to_dict(report)
    write_files(folder, content, to_csv(content))
    write_text(folder / "README.md", to_markdown(content))
    return content
