"""gpubp bench: what it measures and says, the page, the comparison of two runs, and the README's table."""

from __future__ import annotations

import copy
import csv
import json
import re
import sys
from itertools import pairwise, permutations
from pathlib import Path
from unittest.mock import Mock

import pytest
from rich.console import Console

from bench import RESULTS, readme
from gpubp.benchmark import compare, measure, nets, peers, results, shown, terminal, work
from gpubp.benchmark.nets import Net
from gpubp.benchmark.peers import Peer
from gpubp.benchmark.results import NetReport, Row
from gpubp.errors import DataError, UsageError
from gpubp.experiments.recipe import load_recipe, recipe_names
from gpubp.reports import benchmark as page
from tests import browser

BY_NAME = {peer.name: peer for peer in peers.PEERS}
THREE_RUNS = [results.read(RESULTS / f"2026-11-22-all-nets-{number}") for number in (1, 2, 3)]

WRONG = """
from gpubp import backends
from gpubp.benchmark.peers.plan import PlanTrainer

class Wrong(PlanTrainer):
    def __init__(self, *arguments):
        super().__init__(backends.get("numpy"), *arguments)
        right = self.plan.gradients

        def gradients(order):
            cost, pairs = right(order)
            pairs[0][0][0, 0] += 1e-3
            return cost, pairs

        self.plan.gradients = gradients

def build(net, data, parameters, options):
    return Wrong(net, data, parameters)
"""


def bench(run, *options):
    """gpubp bench of iris on one backend, unless the options say otherwise: what it takes is processes."""
    return run("bench", "iris", "--backends", "numpy", "--peers", "none", "--rounds", 1, *options)


def test_a_run_and_one_compared_with_it(run, tmp_path):
    options = ("--peers", "numpy", "--rounds", 3, "--threads", 1)
    code, out, _ = bench(run, "--backends", "numba,numpy", *options, "--out", "one")
    assert code == 0, out
    assert "of bound" in out
    assert sorted(p.name for p in Path("one").iterdir()) == ["report.html", "results.csv", "results.json"]
    content = results.read(Path("one"))
    assert content["peaks"]["threads"] == content["settings"]["threads"] == 1
    (net,) = content["nets"]
    assert (net["name"], net["recipe"], net["samples"]) == ("iris", "iris", 105)
    assert net["notes"] == ["plain SGD here; the recipe trains with a cosine schedule"]
    rows = {row["peer"]: row for row in net["peers"]}
    assert list(rows) == ["gpubp-numba", "gpubp-numpy", "numpy"]
    for row in rows.values():
        assert row["gflop_per_s"] == pytest.approx(row["gflop"] / row["epoch_ms"]["median"] * 1e3)
        assert row["start_s"]["total"] >= row["start_s"]["import"] > 0
        assert row["memory_mb"]["peak"] >= row["memory_mb"]["first_epoch"] > 0
        assert (row["verification"] is None) == (row["peer"] == "numpy")
        if found := row["verification"]:
            assert (found["ok"], found["steps"], found["wrong"]) == (True, 2, [])
            assert 0 < found["part_of_bound"] <= 1
            assert {"tensors", "worst", "seconds"} <= set(found)
    assert rows["numpy"]["same_result"] == results.SAME
    with open("one/results.csv") as file:
        agreements = [line["agreement"].split(" ")[0] for line in csv.DictReader(file)]
    assert agreements == ["worst", "worst", "same"]

    text = Path("one/report.html").read_text()
    for said in ("worst error at", "same result", "gpubp numba", "NumPy, by hand", "GFLOP/s"):
        assert said in text
    assert str(tmp_path) not in text
    code, out, _ = bench(run, *options, "--compare", "one/results.json", "--json", "two.json")
    assert "compared with the run of" in out
    comparison = json.loads(Path("two.json").read_text())["comparison"]
    assert [row["peer"] for row in comparison["rows"]] == ["gpubp-numpy", "numpy"]
    assert code == (1 if comparison["regressions"] else 0)
    (folder,) = Path("gpubp-bench").iterdir()
    assert "Since " in (folder / "report.html").read_text()


def test_json_alone_on_stdout(run):
    code, out, err = bench(run, "--json", "-")
    assert code == 0
    assert json.loads(out)["nets"][0]["name"] == "iris"
    assert "gpubp numpy" in err


def test_a_backend_beyond_its_bounds_is_told(run, tmp_path, monkeypatch):
    (tmp_path / "wrong_peer.py").write_text(WRONG)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    wrong = Peer("gpubp-numpy", "gpubp numpy", "wrong_peer", (), "numpy")
    monkeypatch.setattr(peers, "PEERS", (BY_NAME["gpubp-numba"], wrong, BY_NAME["numpy"]))
    code, out, _ = bench(run, "--out", "out")
    assert code == 3
    assert "gpubp numpy: beyond its bound: FAIL ∂C/∂W1" in out
    (row,) = results.read(Path("out"))["nets"][0]["peers"]
    assert row["verification"]["ok"] is False
    text = Path("out/report.html").read_text()
    assert "WRONG: " in text
    assert "FAIL ∂C/∂W1" in text


def test_ctrl_c_keeps_what_there_is(run, monkeypatch):
    monkeypatch.setattr(measure.Entrant, "round", Mock(side_effect=KeyboardInterrupt))
    code, _, err = bench(run, "--out", "out")
    assert code == 130
    assert "what was measured has been written" in err
    content = results.read(Path("out"))
    assert content["interrupted"] is True
    assert content["nets"][0]["peers"][0]["first_epoch_s"] > 0
    assert "The run was interrupted" in Path("out/report.html").read_text()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--backends", "cuda"], 2, "unknown backend 'cuda'"),
        (["--peers", "pytorch"], 2, "unknown peer 'pytorch': did you mean 'torch'"),
        (["--rounds", "0"], 2, "--rounds must be 1 or more"),
        (["no-recipe"], 2, "no-recipe"),
        (["--compare", "none.json"], 5, "cannot read none.json"),
        (["--out", "file"], 1, "cannot write"),
    ],
)
def test_wrong_options(run, tmp_path, options, code, message):
    (tmp_path / "file").write_text("in the way")
    found, _, err = bench(run, *options)
    assert found == code
    assert message in err.strip().splitlines()[-1]
    assert not (tmp_path / "gpubp-bench").exists()


def test_what_is_named_and_not_there(run, monkeypatch):
    absent = Peer("absent", "Absent", "absent", ("no_such_package",))
    monkeypatch.setattr(peers, "PEERS", (*peers.PEERS, absent))
    monkeypatch.setattr("gpubp.backends.cuda.backend.why_unavailable", lambda: "there is no GPU")
    advice = 'no_such_package not installed; try: python -m pip install "gpubp[bench]"'
    assert run("bench", "iris", "--peers", "absent")[::2] == (1, f"error: peer absent: {advice}\n")
    message = "error: backend 'cupy' cannot run here: there is no GPU\n"
    assert run("bench", "iris", "--backends", "cupy")[::2] == (4, message)


def test_recipes_make_nets():
    for recipe in map(load_recipe, recipe_names()):
        net, notes = nets.of_recipe(recipe)
        assert (net.layers, net.batch, net.loss) == (recipe.layers, recipe.batch_size, recipe.loss)
        plain = recipe.schedule == "constant" and recipe.optimizer == "sgd" and not recipe.momentum
        assert bool(notes) != plain
        assert all(peer.refuses(net) is None for peer in peers.PEERS)
    recipe = load_recipe("digits")
    assert nets.of_recipe(recipe)[1] == ["plain SGD here; the recipe trains with momentum"]
    changed = {"hidden": ("tanh",), "optimizer": "adam", "dtype": "float64"}
    tanh, _ = nets.of_recipe(recipe.overridden(changed))
    assert BY_NAME["gpubp-numba"].refuses(tanh) is None
    assert "this net has tanh, softmax and cross_entropy" in str(BY_NAME["torch"].refuses(tanh))
    with pytest.raises(UsageError, match="one activation for all hidden layers"):
        nets.of_recipe(recipe.overridden({"layers": (64, 9, 9, 10), "hidden": ("relu", "tanh")}))


def test_work_by_hand():
    net = Net("tiny", (3, 2, 4), "relu", "softmax", "cross_entropy", 0.1, 5, "none")
    found = work.of_epoch(net, 10)  # two steps
    products = 2 * 10 * (2 * 3 * 2 + 3 * 2 * 4)  # forward and gradient of both layers, δ W of the second
    assert found.flops == products + 2 * 2 * net.parameters
    rows = 2 * 10 * (3 + 2) + 2 * 10 * (2 + 4) + 10 * (4 + 2 * 2) + 2 * 10 * 4
    weights = 2 * (3 * 8 + 4 * 12)  # a step: read forward, read and written by the update, read backward
    assert found.moved == 4 * (rows + weights)
    half = work.of_epoch(net, 10, 0.5)
    assert found.flops - half.flops == 2 * 10 * 2 * 1.5 * 2


@pytest.mark.exhaustive
def test_peaks_are_measured():
    found = measure.measure_peaks(1)
    assert found["threads"] == 1
    assert found["gflop_per_s"] > 1
    assert found["gb_per_s"] > 0.5


def ours(rows):
    return [row for row in rows if row["peer"].startswith("gpubp")]


def judged(old, new):
    return ours(compare.compare(old, new)["rows"])


def slowed(run, factor):
    """The run, had gpubp taken ``factor`` times as long."""
    run = copy.deepcopy(run)
    for row in ours(row for net in run["nets"] for row in net["peers"]):
        row["rounds_ms"] = [ms * factor for ms in row["rounds_ms"]]
    return run


def test_the_rule_on_three_runs_of_the_same_code():
    pairs = list(permutations(THREE_RUNS, 2))
    rows = [row for old, new in pairs for row in judged(old, new)]
    assert len(rows) == 72
    assert not [row for row in rows if row["verdict"] == compare.SLOWER]
    found = {}
    for factor in (1.3, 1.5, 2):
        planted = [row for old, new in pairs for row in judged(old, slowed(new, factor))]
        found[factor] = sum(row["verdict"] == compare.SLOWER for row in planted)
    assert found == {1.3: 39, 1.5: 60, 2: 71}  # as bench/README.md says


def test_the_rule():
    quiet, beside = [1.0, 1.1, 1.05], [0.5, 0.55, 0.52]
    slower, risen = [2 * x for x in quiet], [2 * x for x in beside]
    judge = compare.judge
    assert judge([quiet, slower], [beside, risen]) == compare.SLOWER
    assert judge([slower, quiet], [risen, beside]) == compare.FASTER
    assert judge([quiet, slower], [beside, beside]) == compare.SAME  # all else became slower, too
    assert judge([quiet, [1.0, 2.0, 2.1]], [beside, [0.5, 1.0, 1.1]]) == compare.SAME  # one round as before
    assert judge([[1.0] * 3, [1.09] * 3], [[1.0] * 3, [1.09] * 3]) == compare.SAME  # by too little
    assert judge([quiet[:2], slower[:2]], [beside[:2], slower[:2]]) == compare.FEW_ROUNDS
    assert judge([quiet, slower], None) == compare.NO_YARDSTICK


def test_a_regression_is_told_and_ends_with_1(tmp_path, capsys, monkeypatch):
    def compared(*names):
        monkeypatch.setattr(sys, "argv", ["compare", *(str(tmp_path / f"{name}.json") for name in names)])
        return terminal.exit_code(compare.main), capsys.readouterr().out

    for name, content in (("old", THREE_RUNS[0]), ("new", slowed(THREE_RUNS[0], 2))):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    code, said = compared("old", "new")
    assert code == 1
    assert "SLOWER beyond the noise: gpubp numba on digits, +100% in time and +100% beside" in said
    code, said = compared("old", "old")
    assert code == 0
    assert "no regression: 12 gpubp times judged" in said
    assert compared("old")[0] == 2


def test_other_machines_versions_and_nets():
    old, new = copy.deepcopy(THREE_RUNS[0]), slowed(THREE_RUNS[0], 2)
    new["machine"]["packages"]["jax"] = "99.0"
    for row in (row for net in new["nets"] for row in net["peers"] if row["peer"] == "jax"):
        row["version"] = "99.0"
    new["nets"][0]["samples"] = 5
    new["nets"][1]["peers"][0] |= {"rounds_ms": [], "status": "failed"}
    found = compare.compare(old, new)
    assert f"other versions: jax {old['machine']['packages']['jax']} → 99.0" in found["warnings"]
    assert "784-32-10: samples changed since, so it is not compared" in found["warnings"]
    assert "784-30-10: gpubp numba has no times now (failed)" in found["warnings"]
    assert found["regressions"] == 10
    assert all("jax" not in row["yardstick"] for row in found["rows"])
    for change in ({"settings": {"threads": 4}}, {"machine": {**new["machine"], "cpu": "another"}}):
        elsewhere = compare.compare(old, {**new, **change})
        assert elsewhere["regressions"] == 0
        assert "none is judged" in elsewhere["warnings"][0]
        assert {row["verdict"] for row in judged(old, {**new, **change})} == {compare.ELSEWHERE}
    nothing = compare.compare({**old, "nets": []}, new)
    assert nothing["conclusions"] == ["no net and peer was measured in both runs"]


def changed(**fields):
    return json.dumps({**THREE_RUNS[0], **fields})


WITHOUT_ROUNDS = copy.deepcopy(THREE_RUNS[0]["nets"])
del WITHOUT_ROUNDS[0]["peers"][0]["rounds_ms"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(format_version=2), "format version 2, and this gpubp reads 1; upgrade gpubp"),
        (changed(format="gpubp-bench-gpu"), "it is 'gpubp-bench-gpu', not 'gpubp-bench-cpu'"),
        (changed()[:2000], "is not JSON, or is incomplete"),
        ("\ud800", "is not JSON"),  # nor is it text
        ("[1, 2]", "it does not say what it is"),
        (changed(nets=WITHOUT_ROUNDS), "is damaged: KeyError: 'rounds_ms'"),
        (changed(nets=None), "is damaged"),
    ],
)
def test_files_that_cannot_be_compared_with(tmp_path, text, message):
    path = tmp_path / "old.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(DataError, match=re.escape(message)):
        results.read(path)


def full_content():
    """A run of a few nets with all that a page can show."""
    content = copy.deepcopy(results.read(RESULTS / "2026-11-22-all-peers"))
    content["peaks"] = {"threads": 2, "gflop_per_s": 400.0, "gb_per_s": 35.0}
    verified = {"ok": True, "tensors": 11, "part_of_bound": 0.3, "worst": "W1", "wrong": []}
    for net in content["nets"]:
        shape = Net(**{key: net[key] for key in Net.__dataclass_fields__ if key in net})
        for row in net["peers"]:
            numba, time = row["peer"] == "gpubp-numba", row["epoch_ms"]
            todo = work.of_epoch(shape, net["samples"], 0.19 if numba else 1.0)
            row["flop_per_byte"] = todo.intensity
            row["gflop_per_s"] = todo.flops / time["median"] / 1e6 if time else None
            row["verification"] = verified if numba else None
    content["comparison"] = compare.compare(THREE_RUNS[0], slowed(THREE_RUNS[2], 2))
    return content


TABLES = """
return [...document.querySelectorAll('table')].map(table => {
  const box = table.parentElement;
  box.scrollLeft = 1e6;
  return [table.getBoundingClientRect().right <= box.getBoundingClientRect().right + 1, box.scrollLeft];
});
"""


@pytest.mark.exhaustive
def test_the_page_reads_well_everywhere(tmp_path, monkeypatch):
    """Its tables can be read to their last column: on 1,200 pixels as they are, on a phone by scrolling each."""
    browser.require()
    path = page.write(tmp_path / "bench.html", full_content())
    assert browser.problems(path) == []
    monkeypatch.setitem(browser.VIEWS, "desk", (1200, 900))
    for view in browser.VIEWS:
        tables = browser.opened(path, view).execute_script(TABLES)
        assert len(tables) == 5  # of the comparison, three nets and the machine
        assert all(whole for whole, _ in tables)
        assert any(scrolled for _, scrolled in tables) == (view == "phone")


def test_the_page_says_what_the_file_holds(tmp_path):
    content = full_content()
    content["nets"] = content["nets"][:1]
    text = page.write(tmp_path / "bench.html", content).read_text()
    assert text.count("<svg") == 3  # warm, cold and roofline
    refused = "scikit-learn has no squared error of sigmoids"
    for said in ("worst error at 0.3 of its bound", "SLOWER beyond the noise", "AMD EPYC", refused):
        assert said in text


@pytest.mark.parametrize(
    "folder",
    [
        path
        for path in sorted(RESULTS.iterdir())
        if not re.search("scaling|startup|deformed|many|ranks", path.name)
    ],
    ids=lambda path: path.name,
)
def test_results_written_before_are_read(folder, tmp_path):
    content = results.read(folder)
    assert compare.compare(content, content)["regressions"] == 0
    if "small" in folder.name:
        text = page.write(tmp_path / "bench.html", content).read_text()
        assert "roofline at" not in text  # whose peaks were not measured
        assert all(net["name"] in text for net in content["nets"])


def test_a_busy_machine_is_told(tmp_path):
    content = full_content() | {"nets": []}
    assert shown.busy(content["machine"]) is None
    content["machine"]["load_average_before"] = 5.0
    said = "he machine was busy in the minute before this began: a load of 5.0 on 2 cores"
    assert said in str(shown.busy(content["machine"]))
    assert said in page.write(tmp_path / "bench.html", content).read_text()


def test_labels_of_the_roofline_do_not_meet():
    heights = page._apart([9.0, 1.0, 1.01, 1.02, 300.0, 0.5], (0.4, 400.0))
    gaps = [high / low for low, high in pairwise(sorted(heights))]
    assert min(gaps) > 1.3
    assert sorted(heights) == [heights[i] for i in (5, 1, 2, 3, 0, 4)]


def test_the_table_fits_a_terminal(capsys):
    times, same = {"rounds": [0.1, 0.2, 0.3], "first_epoch_s": 1.0, "start_s": {"total": 2.0}}, results.SAME
    row = Row("torch", "gpubp numba (fit, verified)", **times, loss=1.0, same_result=same)
    base = Row("gpubp-numba", "gpubp numba", rounds=[0.05, 0.051, 0.052])
    net = Net("n", (784, 9, 10), "relu", "softmax", "cross_entropy", 0.1, 5, "d")
    content = results.net_dict(NetReport(net, 10, "gpubp-numba", [row, base]))
    terminal.print_net(content, Console(width=80))
    said = capsys.readouterr().out
    assert "200 (100–300)" in said
    assert "4.00 (1.92–6.00)" not in said  # ratios are of the same round
    assert "3.92 (2.00–5.77)" in said
    assert "3.0" in said
    assert max(map(len, said.splitlines()[:-2])) <= 80


def test_the_readme_has_the_table_of_the_committed_results():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.updated(text) == text, "run: python -m bench.readme"
    with pytest.raises(DataError, match=r"README\.md has no"):
        readme.updated(text.replace(readme.END, ""))
