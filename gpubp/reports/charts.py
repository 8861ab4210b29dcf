"""Charts as SVG that takes its colours from the page, so that one picture serves light and dark.

Matplotlib draws in placeholder colours; each becomes a CSS variable of ``base.html``. Text stays text. A training run
does not wait for it: the page of a run has its curves from ``plot.py``.
"""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
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
    """A uint8 picture, (h, w), (h, w, 3) or with opacity (h, w, 4), as a data URI of a PNG, for an ``<img src>``.

    Small pictures of few colours: without the filters that Pillow would choose they are smaller, and done sooner than
    Pillow is imported.
    """
    height, width = pixels.shape[:2]
    colours = {1: 0, 3: 2, 4: 6}[pixels.size // (height * width)]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)))  # each begins with its filter: 0, none
    header = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 3)), (b"IEND", b"")):
        file += (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )
    return "data:image/png;base64," + base64.b64encode(file).decode()
