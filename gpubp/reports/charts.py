"""Charts as SVG that takes its colours from the page, so that one picture serves light and dark.

Matplotlib draws in placeholder colours; each becomes a CSS variable of ``base.html``. Text stays text.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpubp.support.optional import need

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

INK, FAINT = "#000001", "#000002"  # text and axes; grid
SERIES = tuple(f"#0000{10 + i:02d}" for i in range(1, 7))  # six colours that differ in either theme
_VARIABLES = {INK: "--ink", FAINT: "--faint", **{c: f"--series-{i}" for i, c in enumerate(SERIES, start=1)}}

_INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
SIZE = (4.4, 2.9)  # inches: drawn for a phone's width, so that text is still read there


def chart(draw: Callable[[Axes], object], alt: str, *, size: tuple[float, float] = SIZE) -> Markup:
    """Return what ``draw`` puts on Matplotlib axes as inline SVG; ``alt`` says it in words for who cannot see it.

    Draw in ``INK``, ``FAINT`` and ``SERIES`` only: other colours do not follow the theme.

    Raises:
        GpubpError: Matplotlib is not installed.
    """
    from markupsafe import Markup, escape

    matplotlib = need("matplotlib")
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": alt,  # ids differ between the charts of a page and repeat from run to run
        "font.size": 9,
        "axes.prop_cycle": matplotlib.cycler(color=SERIES),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.6,
        **dict.fromkeys(_INKED, INK),
    }
    with matplotlib.rc_context(style):
        figure = need("matplotlib.figure").Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue().partition("<svg ")[2]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    return Markup(f'<svg role="img" aria-label="{escape(alt)}" {svg}')


def picture(pixels: np.ndarray) -> str:
    """A (h, w) or (h, w, 3) uint8 picture as a data URI, for an ``<img src>``."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
