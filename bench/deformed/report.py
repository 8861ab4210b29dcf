"""Results of a run: the JSON and CSV of them, a table in Markdown and one on the terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.deformed.peers import DEFORM, NOT_THE_SAME, PEERS, PLAIN
from gpubp.benchmark import results, shown, terminal
from gpubp.benchmark.peers import OURS
from gpubp.benchmark.results import (
    FAILED,
    NOT_COMPARABLE,
    NetReport,
    Row,
    Spread,
    csv_text,
    fastest,
    write_files,
)
from gpubp.benchmark.shown import number
from gpubp.support.files import write_text

FORMAT, FORMAT_VERSION = "gpubp-bench-deformed", 1
ALIKE = 0.1  # parts by which the means of two peers' images may be apart
COLUMNS = (
    "peer", "version", "status", "rounds", "first_epoch_s", "median_ms", "min_ms", "max_ms", "ratio", "ratio_min",
    "ratio_max", "part", "displacement", "change", "ink", "notes",
)  # fmt: skip
HEADINGS = (
    "", "ms an epoch (least–most)", "× gpubp (least–most)", "first epoch, s", "moved, pixels", "changed",
)  # fmt: skip

Content = dict[str, Any]


@dataclass
class Report:
    """A run. images: what each peer that deforms images makes of them, as ``bench.deformed.tasks`` answers."""

    date: str
    commit: dict[str, Any] | None
    machine: dict[str, Any]
    settings: dict[str, Any]
    missing: dict[str, str]
    net: NetReport
    images: dict[str, dict[str, float]] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        """Whether a peer failed, or gpubp is beyond the reference's bounds."""
        wrong = [row for row in self.net.rows if row.verification and not row.verification["ok"]]
        return any(row.status == FAILED for row in self.net.rows) or bool(wrong)


def compare_images(report: Report) -> None:
    """Say so of each peer whose images are not deformed as the baseline's are."""
    expected = report.images.get(report.net.baseline, {})
    for row in report.net.rows:
        found = report.images.get(row.peer, expected)
        off = [
            f"{name} {found[name]:.3g}, not {x:.3g}"
            for name, x in expected.items()
            if not alike(found[name], x)
        ]
        if off:
            row.notes.append(f"its images are deformed otherwise: {'; '.join(off)}")


def alike(found: float, expected: float) -> bool:
    return abs(found - expected) <= ALIKE * abs(expected)


def shares(report: NetReport) -> dict[str, Content]:
    """The part of an epoch that deforming takes: in each round, what is left if the images stay as they are."""
    found = {}
    for name, plain in PLAIN.items():
        by_round = [1 - ratio for ratio in results.ratios(*_rows(report, plain, name))]
        if spread := Spread.of(by_round):
            found[name] = {**asdict(spread), "rounds": by_round}
    return found


def _rows(report: NetReport, plain: str, name: str) -> tuple[Row, Row | None]:
    return report.row(plain) or Row(plain, plain), report.row(name)


def to_dict(report: Report) -> Content:
    """The JSON, as bench/README.md documents it."""
    parts = {peer.name: peer.options.get("part") for peer in PEERS}
    net = results.net_dict(report.net)
    best = fastest(row for row in report.net.rows if row.peer not in (*NOT_THE_SAME, OURS))
    net["fastest_peer"] = best.peer if best else None
    for row in net["peers"]:
        row |= {"part": parts.get(row["peer"]), "images": report.images.get(row["peer"])}
    fields = {name: value for name, value in vars(report).items() if name not in ("net", "images")}
    return {
        "format": FORMAT, "format_version": FORMAT_VERSION, **fields, "deform": DEFORM.to_dict(), "net": net,
        "share_of_deforming": shares(report.net),
    }  # fmt: skip


def to_csv(content: Content) -> str:
    """One line a peer of the JSON; empty where there is no number."""
    lines = []
    for row in content["net"]["peers"]:
        time, ratio = row["epoch_ms"] or {}, row["ratio"] or {}
        spreads = {f"{name}_ms": value for name, value in time.items()}
        spreads |= {f"ratio_{name}": value for name, value in ratio.items()}
        counts = {
            "rounds": len(row["rounds_ms"]),
            "ratio": ratio.get("median"),
            "notes": "; ".join(row["notes"]),
        }
        lines.append({**row, **(row["images"] or {}), **spreads, **counts})
    return csv_text(COLUMNS, lines)


def cells(content: Content) -> list[dict[str, Any]]:
    """The table's rows by heading, the fastest first."""
    by_title = {row["title"]: row for row in content["net"]["peers"]}
    made = []
    for line in shown.peers(content["net"]):
        row = by_title[line[""].text]
        images = row["images"] or {}
        made.append(
            {
                **line,
                "× gpubp (least–most)": line["times (least–most)"],
                "moved, pixels": number(images.get("displacement"), "{:.2f}".format),
                "changed": number(images.get("change"), "{:.3f}".format),
            }
        )
    return made


def table(content: Content) -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" + "|--:" * (len(HEADINGS) - 1) + "|"]
    for line in cells(content):
        shown_cells = (line[name] for name in HEADINGS)
        lines.append(
            f"| {' | '.join(one.text + (f' ({one.detail})' if one.detail else '') for one in shown_cells)} |"
        )
    return "\n".join(lines)


def about(content: Content) -> list[str]:
    """In lines, on what machine the table was measured, and what is to be said of single rows."""
    facts, net = content["machine"], content["net"]
    load = [facts.get(f"load_average_{when}", "unknown") for when in ("before", "after")]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    rounds = f"{content['settings']['rounds']} rounds, {content['settings']['threads']} threads"
    computer = f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}"
    return [
        f"{shown.about(net)}.",
        f"{rounds}; {computer}; load {load[0]} before, {load[1]} after; {facts['python']}, {packages}.",
        *([f"{busy[0].upper()}{busy[1:]}."] if (busy := shown.busy(facts)) else []),
        *said_of_shares(content),
        *(f"{row['title']}: {agreement(row)}." for row in net["peers"] if results.agrees(row) is not None),
        *(f"{line}." for line in [*shown.wrong(net), *shown.notes(net)]),
        *(f"Left out: {names}, {why}." for names, why in shown.missing(content["missing"]).items()),
        *(["The run was interrupted."] if content["interrupted"] else []),
    ]


def agreement(row: Content) -> str:
    """How a peer agrees with the reference, and where there is one with the other's results."""
    alone = row["same_result"] == NOT_COMPARABLE
    return results.agreement({**row, "same_result": None} if alone else row)


def said_of_shares(content: Content) -> list[str]:
    titles = {row["peer"]: row["title"] for row in content["net"]["peers"]}
    return [
        f"Deforming is {share['median']:.0%} of an epoch of {titles[name]} "
        f"({share['min']:.0%} to {share['max']:.0%})."
        for name, share in content["share_of_deforming"].items()
    ]


def to_markdown(content: Content) -> str:
    """A page: the table, and what is to be said of it."""
    lines = [f"- {line}" for line in about(content)]
    title = f"# Training on deformed images, {content['date'][:10]}"
    return "\n".join([title, "", table(content), "", *lines, ""])


def show(content: Content, console: Console) -> None:
    """The table on the terminal, and what is to be said of it."""
    console.print(terminal.table({name: name for name in HEADINGS}, cells(content)))
    terminal.print_lines([*about(content), shown.verdict(content["net"]), ""], console)


def write(folder: Path, report: Report) -> Content:
    """results.json, results.csv and README.md into ``folder``; the content of the first."""
    content = to_dict(report)
    write_files(folder, content, to_csv(content))
    write_text(folder / "README.md", to_markdown(content))
    return content
