"""Imports run one way, as the contracts in pyproject.toml say, and the textbook stands alone at the root of gpubp."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests import ROOT


def test_imports_run_one_way(tmp_path):
    pytest.importorskip("importlinter")
    shutil.copytree(ROOT / "gpubp", tmp_path / "gpubp", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "kernels", tmp_path / "gpubp/kernels", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as lint; lint()",
        "--no-cache",
    ]
    checked = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "3 kept, 0 broken" in checked.stdout


def test_nothing_that_is_installed_imports_what_is_not():
    for path in (*(ROOT / "gpubp").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not line.strip().startswith(
                ("from tests", "import tests", "from bench", "import bench")
            ), path


def test_the_textbook_stands_alone_at_the_root():
    modules = {path.stem for path in (ROOT / "gpubp").glob("*.py")} - {"__init__", "__main__", "errors"}
    assert modules == {"reference", "functions", "network", "optimizers"}
