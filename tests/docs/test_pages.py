"""What the pages of docs/ say, done; and the examples."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from gpubp.cli import app
from tests import ROOT, param

PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in that language, those within lists outdented."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=named)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    pytest.importorskip("pandas")  # one page's data are a frame
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}  # dataclasses look their module up
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)


COMMANDS = {
    line.strip()
    for page in PAGES
    for code in blocks(page, "sh")
    for line in code.splitlines()
    if line.startswith("gpubp")
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "command", [param(command, always=command.startswith("gpubp explain")) for command in sorted(COMMANDS)]
)
def test_the_commands_of_the_pages_run(run, command):
    code, out, err = run(*shlex.split(command, comments=True)[1:])
    assert code == 0, out + err


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=named)
def test_the_files_links_and_commands_that_a_page_names_are_there(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`((?:gpubp|kernels|tests|bench|docs|examples)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), name
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    for word in re.findall(r"`gpubp ([a-z]+)", text):
        assert word in commands, f"gpubp {word}"


@pytest.mark.parametrize(
    "example", [param(path, always=path.stem != "compare_backends") for path in EXAMPLES], ids=named
)
def test_an_example_runs(example, capsys):
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out
