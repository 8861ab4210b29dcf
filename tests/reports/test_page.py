"""The frame that all pages share: charts that follow the theme, and files written whole or not at all."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from gpubp.errors import GpubpError
from gpubp.reports import page as pages
from gpubp.reports.charts import Line, lines, picture
from tests.browser import opened, problems

X = np.arange(1, 11)
CHART = {"x_label": "epoch", "y_label": "loss"}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page with two charts and a picture, from a template that stands for any other."""
    import jinja2

    text = (
        '{% extends "base.html" %}{% block main %}<p>A <a href="#x">link</a>, <span class="good">good</span>, '
        '<span class="bad">bad</span>, <span class="quiet">quiet</span></p><div class="charts">'
        '{% for chart in charts %}<figure>{{ chart }}</figure>{% endfor %}</div><img alt="noise" src="{{ image }}">'
        "{% endblock %}"
    )
    package = jinja2.PackageLoader("gpubp.reports")
    both = jinja2.ChoiceLoader([package, jinja2.DictLoader({"test.html": text})])
    monkeypatch.setattr(jinja2, "PackageLoader", lambda _: both)
    charts = [
        lines([Line("training", X, 1 / X), Line("validation", X, 2 / X)], alt=f"loss {i}", **CHART)
        for i in range(2)
    ]
    noise = picture(np.arange(784, dtype=np.uint8).reshape(28, 28))
    return pages.write(tmp_path / "page.html", "test.html", title="Tom & Jerry's", charts=charts, image=noise)


def test_a_page_reads_well_on_every_screen_and_in_either_theme(page, tmp_path):
    assert problems(page, tmp_path / "shots") == []
    assert len(list((tmp_path / "shots").glob("*.png"))) == 4


def test_what_a_reader_stumbles_over_is_found(page):
    text = page.read_text()
    text = text.replace("<main>", '<main><div style="width:2000px">wide</div><p style="color:#888">x</p>')
    text = text.replace('src="data:', 'src="http://127.0.0.1:9/')
    page.write_text(text)
    found = "\n".join(problems(page))
    for word in ("wide on a screen", "faint text: x", "loads http", "'noise' does not show"):
        assert word in found


def test_the_title_is_text_and_not_markup(page):
    with opened(page) as driver:
        assert driver.find_element("tag name", "h1").text == "Tom & Jerry's"
        assert driver.title == "Tom & Jerry's"


def test_a_chart_takes_its_colours_and_its_font_from_the_page():
    svg = lines([Line("a", X, X), Line("b", X, X)], alt="a & b", **CHART)
    assert "var(--series-1)" in svg
    assert "var(--series-2)" in svg
    assert not re.findall(r"(?:fill|stroke): ?#0000", svg)
    assert set(re.findall(r"font-family: ([^;\"]*)", svg)) == {"inherit"}
    assert 'aria-label="a &amp; b"' in svg


def test_a_chart_repeats_bit_by_bit_and_charts_share_no_ids():
    first = lines([Line("a", X, X)], alt="one", **CHART)
    assert first == lines([Line("a", X, X)], alt="one", **CHART)
    other = lines([Line("a", X, X)], alt="two", **CHART)
    named = re.compile(r'<clipPath id="([^"]*)"')
    assert named.findall(first)
    assert not set(named.findall(first)) & set(named.findall(other))


def test_a_single_point_shows():
    assert "<use" in lines([Line("a", [1], [0.5])], alt="one", **CHART)


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    folder = tmp_path / "file"
    folder.write_text("in the way")
    with pytest.raises(GpubpError, match=r"cannot write .*page\.html"):
        pages.write(folder / "page.html", "base.html", title="x")


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("jinja2", lambda: pages.render("base.html", title="x")),
        ("matplotlib", lambda: lines([Line("a", X, X)], alt="one", **CHART)),
    ],
)
def test_a_missing_library_is_one_line_that_names_it(module, make, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(GpubpError, match=f"pip install {module}"):
        make()
