"""The command: what its options mean, the rounds, and the report."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from bench import RESULTS, python_path
from bench.ranks.model import LINKS, Link, Step
from gpubp.benchmark import process, results, shown, terminal
from gpubp.benchmark.results import Spread, numbered
from gpubp.errors import GpubpError
from gpubp.support import machine
from gpubp.support.files import folder_to_fill, write_text
from gpubp.support.records import as_text

FORMAT, FORMAT_VERSION = "gpubp-bench-ranks", 1
RANKS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 22, 1 << 24)  # bytes of a vector that is exchanged


class Net(NamedTuple):
    """A network that is measured, in batches of so many, on so many samples an epoch."""

    layers: tuple[int, ...]
    batch: int
    samples: int

    @property
    def name(self) -> str:
        return "-".join(map(str, self.layers))


class Way(NamedTuple):
    """A way to train it: on so many ranks of so many threads, or by the plan alone."""

    name: str
    ranks: int
    threads: int
    parts: int | None = None
    plain: bool = False


MEASURED = (Net((784, 512, 512, 10), 256, 60_000), Net((784, 128, 10), 128, 60_000))
MODELLED = (Net((784, 128, 10), 128, 0), Net((841, 2500, 2000, 1500, 1000, 500, 10), 256, 0))
FIRST = "1 process, 2 threads"
WAYS = (
    Way(FIRST, 1, 2, plain=True),
    Way("2 ranks, 1 thread each", 2, 1),
    Way("1 process, 1 thread", 1, 1, plain=True),
    Way("1 process, 2 threads, 8 parts", 1, 2, parts=8),
    Way("2 ranks, 1 thread each, 8 parts", 2, 1, parts=8),
)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.ranks",
        description="Two ranks of one thread beside one process of two threads, and a model of up to 64 ranks.",
    )
    option = parser.add_argument
    option(
        "--rounds", type=int, default=5, help="in each of which every way is measured in turn (%(default)s)"
    )
    option("--epochs", type=int, default=2, help="of a round, after steps that warm up (%(default)s)")
    option("--quick", action="store_true", help="a round on few samples, and a small network in the model")
    option("--out", type=Path, help="folder for results.json and README.md (bench/results/DATE-ranks)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Measure what the options mean; the exit code."""
    launcher = mpiexec()
    if launcher is None:
        raise GpubpError('there is no mpiexec: python -m pip install -e ".[mpi]"')
    origin = results.origin()
    new = numbered(RESULTS / f"{origin['date'][:10]}-ranks")
    with (
        folder_to_fill(args.out, new) as out,
        tempfile.TemporaryDirectory(prefix="gpubp-bench-") as temporary,
    ):
        console = terminal.console()
        terminal.print_lines([f"warning: {busy}"] if (busy := shown.busy(origin["machine"])) else [], console)
        asked = _Launcher(launcher, Path(temporary))
        nets = [net._replace(samples=20 * net.batch) for net in MEASURED] if args.quick else MEASURED
        rounds = 1 if args.quick else args.rounds
        rows = [row for net in nets for row in _rounds(asked, net, rounds, args.epochs)]
        terminal.say("the exchange between two ranks")
        exchange = asked(2, kind="link", sizes=SIZES)["seconds"]
        modelled = []
        for net in MODELLED[:1] if args.quick else MODELLED:
            terminal.say(f"{net.name}: the share of each of up to {RANKS[-1]} ranks")
            found = asked(1, kind="shares", layers=net.layers, batch=net.batch, of=RANKS)
            modelled.append({"layers": net.layers, "batch": net.batch, **found})
        origin["machine"]["load_average_after"] = machine.load_average()
        settings = {"rounds": rounds, "epochs": args.epochs}
        told = {"format": FORMAT, "version": FORMAT_VERSION, **origin, "settings": settings}
        told |= {"rows": rows, "exchange": exchange, "model": modelled}
        told = json.loads(json.dumps(told))  # with the keys that a reader of the file has
        write_text(out / "results.json", as_text(told))
        text = report(told)
        write_text(out / "README.md", text)
        Console().print(text, markup=False, highlight=False)
        terminal.print_lines([f"results.json and README.md are in {os.path.relpath(out)}"], console)
    return 0


def mpiexec() -> str | None:
    """The launcher beside this Python, as a wheel brings it, or else the system's; None without one."""
    return shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


class _Launcher:
    """Has a task done by a worker, or by as many as there are ranks."""

    def __init__(self, mpiexec: str, folder: Path) -> None:
        self._mpiexec, self._answer = mpiexec, folder / "answer.json"

    def __call__(self, ranks: int, threads: int = 1, **task: Any) -> dict[str, Any]:
        """The answer of rank 0. Raises GpubpError, with what they said, if they failed."""
        env = {**process.environment(threads), "PYTHONPATH": python_path()}
        text = json.dumps({**task, "distributed": ranks > 1})
        command = process.module_command("bench.ranks.worker", text, str(self._answer))
        if ranks > 1:
            command = [self._mpiexec, "-n", str(ranks), *command]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise GpubpError(f"{ranks} ranks ended with code {done.returncode}: {done.stderr[-2000:]}")
        return json.loads(self._answer.read_text())


def _rounds(asked: _Launcher, net: Net, rounds: int, epochs: int) -> list[dict[str, Any]]:
    """Seconds an epoch of each way in each round."""
    rows = []
    for number in range(1, rounds + 1):
        for way in WAYS:
            how: dict[str, Any] = {"parts": way.parts, "plain": way.plain, "count": epochs}
            of_net = {"layers": net.layers, "batch": net.batch, "samples": net.samples}
            found = asked(way.ranks, way.threads, kind="epochs", **of_net, **how)
            seconds, exchanges = (sum(found[name]) / epochs for name in ("seconds", "exchanges"))
            terminal.say(f"{net.name}, round {number}: {way.name}, {seconds * 1e3:.0f} ms an epoch")
            about = {
                "net": net.name,
                "batch": net.batch,
                "samples": net.samples,
                "way": way.name,
                "round": number,
            }
            rows.append({**about, "seconds": seconds, "exchanges": exchanges, "steps": found["steps"]})
    return rows


def link_of(exchange: dict[str, float]) -> Link:
    """The link between two ranks, through which the times of the least and the largest vector go."""
    least, most = min(map(int, exchange)), max(map(int, exchange))
    one, other = exchange[str(least)], exchange[str(most)]
    bandwidth = (most - least) / max(other - one, 1e-9)
    return Link("memory of this machine", max(one - least / bandwidth, 0.0) / 2, bandwidth)


def report(told: dict[str, Any]) -> str:
    """The report as Markdown."""
    facts, settings = told["machine"], told["settings"]
    samples = told["rows"][0]["samples"]
    lines = [
        "# One network on several ranks",
        "",
        f"`python -m bench.ranks`, {told['date'][:10]}, {facts['cpu']}, {facts['cores']} cores: milliseconds an epoch "
        f"of {samples:,} images, median (least – most) of {settings['rounds']} rounds of {settings['epochs']} "
        f"epochs, in turn; and how many times the time of {FIRST}, round by round.",
        "",
    ]
    for net in dict.fromkeys(row["net"] for row in told["rows"]):
        rows = [row for row in told["rows"] if row["net"] == net]
        lines += [
            f"| {net}, batch {rows[0]['batch']} | ms an epoch | times | of that, exchanges |",
            "|---|---|---|---|",
        ]
        first = {row["round"]: row["seconds"] for row in rows if row["way"] == FIRST}
        for way in dict.fromkeys(row["way"] for row in rows):
            own = [row for row in rows if row["way"] == way]
            ms = _told([row["seconds"] * 1e3 for row in own], ".0f")
            times = (
                "" if way == FIRST else _told([row["seconds"] / first[row["round"]] for row in own], ".2f")
            )
            share = sum(row["exchanges"] for row in own) / sum(row["seconds"] for row in own)
            lines.append(f"| {way} | {ms} | {times} | {f'{share:.0%}' if 'ranks' in way else ''} |")
        lines.append("")
    here = link_of(told["exchange"])
    lines += [
        f"An exchange both ways between two ranks on this machine: {2 * here.latency * 1e6:.0f} µs and "
        f"{here.bandwidth / 1e9:.1f} GB/s of the vector.",
        "",
        "## A model of more ranks",
        "",
        "No such cluster was there. A step of N ranks is what one core of this machine takes for the gradient of B/N "
        "samples and for the update of 1/N of the parameters, both measured, and two exchanges in which each rank "
        "sends a message of 1/N of the parameters to every other, one after the other, computed from a network's "
        "latency and bandwidth, which are assumed. The mini-batch stays as large as it is. Times as fast as one rank:",
        "",
    ]
    for found in told["model"]:
        step = Step(
            {int(n): s for n, s in found["gradients"].items()},
            {int(n): s for n, s in found["updates"].items()},
            found["size"],
        )
        name = "-".join(map(str, found["layers"]))
        lines += [
            f"| {name}, batch {found['batch']}, {step.size / 1e6:.1f} MB | "
            + " | ".join(f"{n}" for n in RANKS)
            + " |",
            "|---" * (len(RANKS) + 1) + "|",
            "| a rank's share of a step, ms | "
            + " | ".join(f"{(step.gradients[n] + step.updates[n]) * 1e3:.3g}" for n in RANKS)
            + " |",
        ]
        for link in LINKS:
            told_of = f"{link.name}: {link.latency * 1e6:.0f} µs, {link.bandwidth / 1e9:.3g} GB/s"
            lines.append(f"| {told_of} | " + " | ".join(f"{step.speedup(n, link):.3g}" for n in RANKS) + " |")
        lines.append("")
    return "\n".join(lines)


def _told(values: Sequence[float], form: str) -> str:
    spread = Spread.of(values)
    assert spread is not None
    return spread.told(form)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return terminal.exit_code(lambda: run(arguments(argv)))
