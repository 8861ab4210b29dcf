"""Self-contained HTML pages: one file with its style and pictures, no network, light and dark, phone and desktop.

A page is a Jinja template in ``templates/`` that extends ``base.html``; its charts come from ``charts.py`` or, where
no time is to be lost, ``plot.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gpubp
from gpubp.support.files import write_text
from gpubp.support.optional import need


def render(template: str, **context: Any) -> str:
    """The page that ``template`` makes of ``context``; an undefined name in it is an error, not a gap."""
    jinja2 = need("jinja2")
    settings = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    loader, undefined = jinja2.PackageLoader("gpubp.reports"), jinja2.StrictUndefined
    environment = jinja2.Environment(loader=loader, undefined=undefined, **settings)
    return environment.get_template(template).render(version=gpubp.__version__, **context)


def write(path: str | os.PathLike, template: str, **context: Any) -> Path:
    """Render a page into ``path``, whole or not at all.

    Raises:
        GpubpError: the folder cannot be written or is full, or a library is missing.
    """
    return write_text(path, render(template, **context), durable=False)
