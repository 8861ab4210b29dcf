"""``python -m bench.deformed.readme RESULTS``: the table of bench/README.md, from a folder of committed results."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from bench import RESULTS, ROOT
from bench.deformed.report import FORMAT, about, table
from bench.readme import between
from gpubp.benchmark.terminal import exit_code
from gpubp.errors import DataError
from gpubp.support.files import write_text

BEGIN, END = "<!-- deformed:begin -->", "<!-- deformed:end -->"
README = ROOT / "bench" / "README.md"
WIDTH = 138


def shown_of(text: str) -> str | None:
    """The name of the results that a README's table is of, None while it has none."""
    found = re.search(rf"{BEGIN}\n`results/([^`]+)`", text)
    return found[1] if found else None


def updated(text: str, name: str) -> str:
    """The README's text with the table of these results.

    Raises:
        DataError: they are missing or of another kind, or the README has no place for them.
    """
    content = read(RESULTS / name)
    lines = [
        line
        for said in about(content)
        for line in wrap(said, WIDTH, initial_indent="- ", subsequent_indent="  ")
    ]
    return between(text, BEGIN, "\n".join([f"`results/{name}`:", "", table(content), "", *lines]), END)


def read(folder: Path) -> dict[str, Any]:
    """The content of a folder's results.json.

    Raises:
        DataError: it cannot be read, or is of another kind.
    """
    try:
        content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder / 'results.json'}: {error}") from error
    if content.get("format") != FORMAT:
        raise DataError(f"{folder} holds {content.get('format')!r}, not {FORMAT!r}")
    return content


def run(argv: Sequence[str] | None) -> int:
    """Write the README anew; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.deformed.readme", description=__doc__)
    parser.add_argument("results", type=Path, help="a folder in bench/results, or its name")
    name = parser.parse_args(argv).results.name
    write_text(README, updated(README.read_text(encoding="utf-8"), name))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return exit_code(lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
