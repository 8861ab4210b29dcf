"""Imports run one way, as the contracts in pyproject.toml say, and the textbook stands alone at the root of gpubp."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests import ROOT


def test_imports_run_one_way(tmp_path):
    pytest.importorskip("importlinter")
    for source, target in (("gpubp", "gpubp"), ("kernels", "gpubp/kernels")):
        shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    lint = "from importlinter.cli import lint_imports_command as lint; lint()"
    command, env = [sys.executable, "-c", lint, "--no-cache"], {**os.environ, "PYTHONPATH": str(tmp_path)}
    checked = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "3 kept, 0 broken" in checked.stdout


def test_nothing_that_is_installed_imports_what_is_not():
    for path in (*(ROOT / "gpubp").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(from|import) (tests|bench)", text, re.MULTILINE), path


def test_the_textbook_stands_alone_at_the_root():
    modules = {path.stem for path in (ROOT / "gpubp").glob("*.py")} - {"__init__", "__main__", "errors"}
    assert modules == {"reference", "functions", "model", "network", "ensemble", "optimizers"}
