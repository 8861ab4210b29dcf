"""The page that a training run leaves: what it learned, how, what it still gets wrong, and whether it was verified."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from gpubp.experiments.run import Result
from gpubp.reports import learning, page, pictures, tested


def write_report(path: str | os.PathLike, result: Result, folder: Path) -> Path:
    """Write the page of a run whose model and recipe are in ``folder``, as :func:`gpubp.reports.page.write` does."""
    checks = result.histories[-1].verification.checks
    recipe = [(key.replace("_", " "), _shown(value)) for key, value in result.recipe.to_dict().items()]
    content = {
        "title": result.recipe.name or "training",
        "lead": result.recipe.title,
        "written": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "failure": result.failure,
        "notes": _notes(result, folder),
        "facts": _facts(result),
        "curves": learning.curves(result),
        "signals": learning.signals(result),
        "deformed": pictures.deformed(result),
        "test": tested.results(result),
        "weights": pictures.weights(result),
        "verifications": [history.verification for history in result.histories],
        "checks": [(c.name, f"{c.got:.9g}", f"{c.expected:.9g}", f"{c.severity:.2g}") for c in checks],
        "marks": ["" if check.ok else "bad" for check in checks],
        "made": [("Recipe", recipe), ("Machine and versions", _machine(result))],
        "repeat": f"gpubp train {folder / 'recipe.toml'}",
    }
    return page.write(path, "training.html", **content)


def _facts(result: Result) -> list[tuple[str, str, str]]:
    """(name, value, CSS class) of what a reader wants first."""
    history, facts = result.histories[-1], []
    if result.accuracy is not None:
        name, mark = "test accuracy" + (", mean" if len(result.accuracies) > 1 else ""), ""
        if result.reached is not None and result.stopped not in ("interrupted", "failed"):
            name += f"; {'reached' if result.reached else 'did not reach'} {result.recipe.reach:.4g}"
            mark = "good" if result.reached else "bad"
        facts.append((name, f"{result.accuracy:.4f}", mark))
    elif history.epochs and history.epochs[-1].validation_loss is not None:
        facts.append(("validation loss", f"{history.epochs[-1].validation_loss:.4g}", ""))
    done, wanted = len(history), result.recipe.epochs
    epochs = f"{done} of {wanted}" if done < wanted else str(done)
    splits = f" on {len(result.histories)} splits" if len(result.histories) > 1 else ""
    seconds = sum(epoch.seconds for h in result.histories for epoch in h.epochs)
    return [
        *facts,
        ("epochs", epochs + splits, ""),
        ("training time", f"{seconds:.3g} s", ""),
        ("parameters", f"{sum(w.size + b.size for w, b in result.network.parameters):,}", ""),
        ("backend", history.backend, ""),
        *([("ranks", str(history.distribution.ranks), "")] if history.distribution else []),
        _verdict(result),
    ]


def _verdict(result: Result) -> tuple[str, str, str]:
    reports = [history.verification for history in result.histories]
    if not any(report.checks for report in reports):
        return "verification", "off", ""
    if not all(report.ok for report in reports):
        return "verification", "FAILED", "bad"
    steps = sum(report.steps for report in reports)
    return "verification", f"ok, {steps} step{'s' if steps != 1 else ''}", "good"


def _notes(result: Result, folder: Path) -> list[str]:
    """Remarks on what is out of the ordinary with this run."""
    history, splits = result.histories[-1], len(result.histories)
    notes = [f"{text[0].upper()}{text[1:]}." for text in result.warnings]
    if splits > 1:
        each = ", ".join("–" if a is None else f"{a:.2%}" for a in result.accuracies)
        notes.append(
            f"The network was trained {splits} times, on {splits} different splits into training and test data. The "
            f"curves show each, and the test results cover all of them ({each}); signals, weights and model are "
            "the last one's."
        )
    if resumed := history.resumed_epochs:
        notes.append(f"The first {resumed} epochs were trained before, by the run that this one continues.")
    if result.stopped == "early stopping":
        notes.append(
            f"Stopped early, after epoch {len(history)}: for {result.recipe.patience} epochs the validation loss had "
            f"not fallen below that of epoch {history.best_epoch}, whose weights the model has."
        )
    if result.stopped == "interrupted":
        told = f"Interrupted after {len(history)} whole epochs; everything here shows what there was by then."
        go_on = f" It goes on with: gpubp train --resume {folder / 'checkpoint.npz'}"
        notes.append(told + (go_on if result.recipe.splits == 1 else ""))
    if result.lacking:
        notes.append(f"Drawn again later: {result.lacking}.")
    return notes


def _machine(result: Result) -> list[tuple[str, str]]:
    history = result.histories[-1]
    rows = [
        ("network", repr(result.network)),
        ("backend", f"{history.backend}: {history.why_backend}" if history.why_backend else history.backend),
        ("plan", history.plan),
        ("device", history.device),
        ("processor", f"{result.processor}, {result.cores} core{'s' if result.cores > 1 else ''}"),
        ("ranks", _ranks(result)),
        ("data", result.data.summary if result.data else ""),
        ("from", result.data.source if result.data else ""),
        ("time", f"{result.seconds:.2f} s in all"),
    ]
    return [row for row in rows if row[1]] + list(result.versions.items())


def _ranks(result: Result) -> str:
    """How several processes trained the last split; of one that cut no mini-batch there is nothing to say."""
    distribution = result.histories[-1].distribution
    return "" if distribution is None else distribution.summary()


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_shown(inner)}" for key, inner in value.items())
    if isinstance(value, tuple):
        return ("-" if all(isinstance(part, int) for part in value) else ", ").join(map(str, value))
    return str(value)
