"""The page that a sweep leaves: settings, best first, what each varied field did, and how every trial went."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.backends.threads import counted
from gpubp.experiments.folder import RECIPE
from gpubp.reports import page
from gpubp.reports.plot import SERIES, Axis, Curve, plot
from gpubp.sweeps import folder as kept
from gpubp.sweeps.result import Point, Sweep
from gpubp.sweeps.space import LOG_FROM, Range, fields_of_recipe, shown, told
from gpubp.sweeps.trial import DONE, FAILED, Outcome

if TYPE_CHECKING:
    from markupsafe import Markup

POINTS_SHOWN = 200  # settings in the table
EARLY = {"halving": "by successive halving", "median": "where below the median"}
CURVES_SHOWN = 300  # trials whose curves are drawn


def write_report(path: str | os.PathLike, sweep: Sweep) -> Path:
    """Write the page, as :func:`gpubp.reports.page.write` does."""
    winner = sweep.folder / kept.WINNER / RECIPE
    context = {
        "title": f"{sweep.plan.recipe.name}: {len(sweep.trials)} trials",
        "written": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "lead": _lead(sweep),
        "notes": _notes(sweep),
        "facts": _facts(sweep),
        "measure": sweep.measure,
        "heads": ["", *_names(sweep), sweep.measure, "±", "lowest – highest", "loss", "trials"],
        "numbers": [0, *range(len(sweep.plan.axes) + 1, len(sweep.plan.axes) + 6)],
        "points": [
            _row(sweep, place, point) for place, point in enumerate(sweep.points[:POINTS_SHOWN], start=1)
        ],
        "left_out": max(0, len(sweep.points) - POINTS_SHOWN),
        "several": len(sweep.trials) > len(sweep.points),
        "found": _found(sweep),
        "curves": _curves(sweep),
        "ensemble": _ensemble(sweep),
        "members": len(sweep.members),
        "trials": [_trial(sweep, outcome) for outcome in sweep.trials],
        "marks": ["bad" if outcome.state == FAILED else "" for outcome in sweep.trials],
        "recipe": winner.read_text(encoding="utf-8") if sweep.best is not None and winner.exists() else "",
        "repeat": f"gpubp train {winner}",
        "made": [
            ("Sweep", _about(sweep)),
            ("Machine and versions", [(k, str(v)) for k, v in sweep.machine.items()]),
        ],
    }
    return page.write(path, "sweep.html", **context)


def _score(sweep: Sweep, score: float | None) -> str:
    if score is None:
        return "–"
    return f"{abs(score):.4f}" if sweep.measure.endswith("accuracy") else f"{abs(score):.4g}"


def _lead(sweep: Sweep) -> str:
    fields = " and ".join(filter(None, [", ".join(_names(sweep)[:-1]), *_names(sweep)[-1:]]))
    varied = f"Varied: {fields}" if fields else "The recipe as it is"
    seeds, folds = sweep.plan.seeds, sweep.plan.folds
    times = [f"{seeds} seeds"] * (seeds > 1) + [f"{folds} folds"] * bool(folds)
    each = f", each with {' and '.join(times)}" if times else ""
    return f"{varied}{each}. Recipe: {sweep.plan.recipe.title or sweep.plan.recipe.name}."


def _names(sweep: Sweep) -> list[str]:
    return [axis.field.replace("_", " ") for axis in sweep.plan.axes]


def _facts(sweep: Sweep) -> list[tuple[str, str, str]]:
    states = Counter(outcome.state for outcome in sweep.trials)
    facts = []
    if sweep.best is not None:
        facts.append((f"best settings, {sweep.measure}", _score(sweep, sweep.points[0].mean), "good"))
    if sweep.test_accuracy is not None:
        facts.append(("its test accuracy", f"{sweep.test_accuracy:.4f}", ""))
    if sweep.ensemble_accuracies and sweep.ensemble_accuracies[0][1] is not None:
        facts.append(
            (f"ensemble of {len(sweep.members)}, test", f"{sweep.ensemble_accuracies[0][1]:.4f}", "")
        )
    facts.append(("trials", ", ".join(f"{count} {state}" for state, count in states.items()) or "none", ""))
    if sweep.network_epochs:
        facts.append(("network-epochs a second", f"{sweep.rate:.3g}", ""))
    checked = [o for o in sweep.trials if o.state != FAILED]
    if checked and all("verification ok" in outcome.verification for outcome in checked):
        facts.append(("verification", "ok, of each trial", "good"))
    return facts


def _notes(sweep: Sweep) -> list[str]:
    notes = []
    if sweep.lacking:
        notes.append(f"{sweep.lacking}.")
    if sweep.stopped != "done":
        notes.append(
            "The sweep was interrupted; what follows is what there was by then. The same command goes on."
        )
    elif sweep.best is None:
        notes.append("No setting has all its trials trained to their end, so none was chosen.")
    if sweep.best is not None and sweep.best.warnings:
        notes += [f"Of the best trial: {text}." for text in sweep.best.warnings]
    for failed in sweep.failures[:10]:
        notes.append(f"{failed} failed: {failed.error}"[:600])
    if len(sweep.failures) > 10:
        notes.append(f"{len(sweep.failures) - 10} more trials failed.")
    return [f"{note[0].upper()}{note[1:]}" for note in notes]


def _row(sweep: Sweep, place: int, point: Point) -> list[str]:
    spread = "" if point.deviation is None else f"± {_score(sweep, point.deviation)}"
    scores = sorted(point.scores, reverse=True)
    ends = f"{_score(sweep, scores[-1])} – {_score(sweep, scores[0])}" if len(scores) > 1 else ""
    loss = f"{point.loss:.4g}" if np.isfinite(point.loss) else "–"
    ended = sum(outcome.state == DONE for outcome in point.trials)
    of_all = str(ended) if point.whole else f"{ended} of {sweep.plan.each}"
    values = [shown(value) for value in point.settings.values()]
    return [str(place), *values, _score(sweep, point.mean if scores else None), spread, ends, loss, of_all]


def _found(sweep: Sweep) -> list[tuple[Markup, str]]:
    """A chart for each field that was varied, those first whose values differ most, and what is to be seen."""
    ended = [point for point in sweep.points if point.scores]
    found = []
    for axis in sweep.plan.axes:
        met = {point.settings[axis.field] for point in ended}
        given = list(met) if isinstance(axis.values, Range) else [v for v in axis.values if v in met]
        if len(given) < 2:
            continue
        number = fields_of_recipe()[axis.field] in (int, float)
        if number:
            given.sort()
        places = {value: value if number else place for place, value in enumerate(given)}
        groups = {value: [p.mean for p in ended if p.settings[axis.field] == value] for value in given}
        means = {value: float(np.mean(scores)) for value, scores in groups.items()}
        best = max(means, key=lambda value: means[value])
        spread = max(means.values()) - min(means.values())
        log = number and min(given) > 0 and max(given) >= LOG_FROM * min(given)
        name = axis.field.replace("_", " ")
        dots = [(places[p.settings[axis.field]], abs(p.mean)) for p in ended]
        curves = [Curve([x for x, _ in dots], [y for _, y in dots], SERIES[0], "each setting", points=True)]
        repeated = len(given) < len(ended)
        if repeated:
            line = [(places[value], abs(means[value])) for value in given]
            curves.append(Curve([x for x, _ in line], [y for _, y in line], SERIES[1], "mean of a value"))
        across = Axis(name, log=log)
        if not number:
            across = Axis(name, names=tuple(map(shown, given)), limits=(-0.5, len(given) - 0.5))
        drawn = plot(curves, across, Axis(sweep.measure), f"{sweep.measure} by {name}; best at {shown(best)}")
        said = f"{name}: best at {shown(best)}, {_score(sweep, means[best])}"
        said += " in the mean over all that else was varied" if repeated and len(sweep.plan.axes) > 1 else ""
        said += f"; the values differ by up to {_score(sweep, spread)}."
        found.append((spread, drawn, said + _edge(best, given, number)))
    found.sort(key=lambda entry: -entry[0])
    return [(drawn, said) for _, drawn, said in found]


def _edge(best: Any, given: Sequence[Any], number: bool) -> str:
    """A word where the best value is the last that was tried."""
    if not number or best not in (given[0], given[-1]):
        return ""
    beyond = "smaller" if best == given[0] else "larger"
    return f" That is the end of what was tried: {beyond} values may be better still."


def _curves(sweep: Sweep) -> Markup | None:
    """The course of every trial, the best one on top."""
    name = "validation_accuracy" if sweep.measure.endswith("accuracy") else "validation_loss"
    run = [o for o in sweep.trials if o.curves.get(name) and o.curves[name][0] is not None]
    if not run:
        return None
    ranked = sorted(run, key=lambda o: -(o.score if o.score is not None else -np.inf))[:CURVES_SHOWN]
    chosen = {outcome.number for outcome in sweep.points[0].trials} if sweep.best is not None else set()
    drawn = [o for o in ranked if o.number not in chosen] + [o for o in ranked if o.number in chosen]
    curves, named = [], set()
    for outcome in drawn:
        is_best = outcome.number in chosen
        legend = ("best settings" if is_best else "others") if is_best not in named else ""
        named.add(is_best)
        y = [np.nan if value is None else value for value in outcome.curves[name]]
        colour, width = (SERIES[1], 1.8) if is_best else (SERIES[0], 0.6)
        curves.append(Curve(range(1, len(y) + 1), y, colour, legend, width))
    return plot(
        curves, Axis("epoch", integer=True), Axis(sweep.measure), f"{sweep.measure} of {len(drawn)} trials"
    )


def _ensemble(sweep: Sweep) -> list[tuple[str, str, str]]:
    called = {outcome.number: str(outcome) for outcome in sweep.trials}
    names = [f"ensemble of {len(sweep.members)}", *(called[number] for number in sweep.members)]
    cells = [["–" if a is None else f"{a:.4f}" for a in pair] for pair in sweep.ensemble_accuracies]
    return [(name, held, test) for name, (held, test) in zip(names, cells, strict=False)]


def _trial(sweep: Sweep, outcome: Outcome) -> list[str]:
    loss = "–" if outcome.validation_loss is None else f"{outcome.validation_loss:.4g}"
    accuracy = "–" if outcome.validation_accuracy is None else f"{outcome.validation_accuracy:.4f}"
    return [
        str(outcome.number + 1),
        told(outcome.settings) or "the recipe",
        str(outcome.seed),
        str(outcome.fold or "–"),
        accuracy,
        loss,
        str(outcome.epochs),
        f"{outcome.seconds:.1f} s",
        (outcome.weights or "–").removeprefix("sha256 ")[:12],
        outcome.state,
    ]


def _about(sweep: Sweep) -> list[tuple[str, str]]:
    plan, run = sweep.plan, sweep.run
    rows = [
        ("vary", "; ".join(plan.vary)),
        ("search", plan.search),
        ("seeds", f"{plan.seeds}, from {plan.recipe.seed}"),
        ("folds", str(plan.folds or "")),
        ("held out", "" if plan.folds else f"{plan.recipe.held_out:g} of the training data"),
        ("stopped early", EARLY.get(plan.stop_early or "", "")),
        ("backend", run.backend + (f", {counted(run.threads)} a trial" if run.threads else "")),
        ("at a time", str(sweep.jobs)),
        ("plans", "; ".join(dict.fromkeys(o.plan for o in sweep.trials if o.plan))[:2000]),
        ("data", sweep.data),
        ("folder", str(sweep.folder)),
    ]
    return [row for row in rows if row[1]]
