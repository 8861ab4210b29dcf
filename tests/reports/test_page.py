"""The frame that all pages share, and charts that follow its theme."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from gpubp.reports import page
from gpubp.reports.charts import chart, picture
from tests.browser import opened, problems

X = np.arange(1, 11)
TEMPLATE = """
{% extends "base.html" %}{% block main %}<p>A <a href="#x">link</a>, <span class="good">good</span>,
<span class="bad">bad</span>, <span class="quiet">quiet</span></p><div class="charts">
{% for chart in charts %}<figure>{{ chart }}</figure>{% endfor %}</div><img alt="noise" src="{{ image }}">
{% endblock %}"""


def lines(alt: str):
    return chart(lambda axes: axes.plot(X, np.stack([1 / X, 2 / X], axis=1)), alt)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A page with two charts and a picture, from a template that stands for any other."""
    import jinja2

    package = jinja2.PackageLoader("gpubp.reports")
    both = jinja2.ChoiceLoader([package, jinja2.DictLoader({"test.html": TEMPLATE})])
    monkeypatch.setattr(jinja2, "PackageLoader", lambda _: both)
    noise = picture(np.arange(784, dtype=np.uint8).reshape(28, 28))
    given = {"title": "Tom & Jerry's", "charts": [lines("one"), lines("two")], "image": noise}
    return page.write(tmp_path / "page.html", "test.html", **given)


def test_a_page_reads_well_on_every_screen_and_in_either_theme(written, tmp_path):
    assert problems(written, tmp_path / "shots") == []
    assert len(list((tmp_path / "shots").glob("*.png"))) == 4
    driver = opened(written)
    assert driver.find_element("tag name", "h1").text == "Tom & Jerry's"  # text, and no markup
    assert driver.title == "Tom & Jerry's"
    text = written.read_text()
    text = text.replace("<main>", '<main><div style="width:2000px">wide</div><p style="color:#888">x</p>')
    written.write_text(text.replace('src="data:', 'src="http://127.0.0.1:9/'))
    found = "\n".join(problems(written))
    for word in ("wide on a screen", "faint text: x", "loads http", "'noise' does not show"):
        assert word in found


def test_a_chart_takes_its_colours_and_its_font_from_the_page():
    svg = lines("a & b")
    assert "var(--series-1)" in svg
    assert "var(--series-2)" in svg
    assert not re.findall(r"(?:fill|stroke): ?#0000", svg)
    assert set(re.findall(r"font-family: ([^;\"]*)", svg)) == {"inherit"}
    assert 'aria-label="a &amp; b"' in svg


def test_a_chart_repeats_bit_by_bit_and_charts_share_no_ids():
    named = re.compile(r'<clipPath id="([^"]*)"')
    assert lines("one") == lines("one")
    assert named.findall(lines("one"))
    assert not set(named.findall(lines("one"))) & set(named.findall(lines("two")))


@pytest.mark.parametrize("shape", [(1, 1), (28, 28), (3, 70), (5, 4, 3), (9, 2, 4)])
def test_a_picture_is_read_back_as_it_was(rng, shape):
    pixels = rng.integers(0, 256, (*shape[::-1],), dtype=np.uint8).T  # not contiguous
    kind, _, text = picture(pixels).partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.mode == {2: "L", 3: {3: "RGB", 4: "RGBA"}.get(shape[-1])}[len(shape)]
        np.testing.assert_array_equal(np.asarray(image), pixels)
