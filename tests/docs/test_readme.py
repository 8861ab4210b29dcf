"""What the README says, done."""

from __future__ import annotations

import re

from gpubp.experiments.recipe import load_recipe, recipe_names
from tests import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_two_commands_are_there():
    assert "python -m pip install . && gpubp train" in README
    assert 'python -m pip install -e ".[test]" && python -m pytest' in README


def test_its_python_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["history"]["validation_accuracy"][-1] > 0.9
    assert names["report"].ok
    assert (tmp_path / "model.npz").exists()
    assert "verification ok" in capsys.readouterr().out


def test_its_table_of_recipes_is_the_packages():
    rows = re.findall(r"^\| `([\w-]+)`.*?\| ([\d.]+) \|$", README, re.MULTILINE)
    assert sorted(name for name, _ in rows) == recipe_names()
    for name, reach in rows:
        assert float(reach) == load_recipe(name).reach
