"""Pages opened in headless Chromium, as a reader would: on a phone and on a desk, light and dark.

Needs Chromium and its driver (Debian: chromium, chromium-driver); without them :func:`require` skips the test.
"""

from __future__ import annotations

import atexit
import base64
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

VIEWS = {"phone": (390, 844), "desk": (1280, 900)}
_DRIVER = shutil.which("chromedriver")
_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

# Texts whose contrast with what is behind them is below WCAG 2.1's 4.5 (3 for large text); transparent layers are
# looked through, and SVG text is painted by its fill.
_FAINT_TEXT = """
const parse = c => { const v = (c.match(/[\\d.]+/g) || []).map(Number);
                     return c.startsWith('color(srgb') ? [v[0]*255, v[1]*255, v[2]*255, v[3] ?? 1]
                                                       : [v[0], v[1], v[2], v[3] ?? 1]; };
const luminance = c => { const [r, g, b] = c.map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126*r + 0.7152*g + 0.0722*b; };
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
const behind = e => { if (!e) return [255, 255, 255];
    const c = parse(getComputedStyle(e).backgroundColor);
    return c[3] === 1 ? c.slice(0, 3) : over(c, behind(e.parentElement)); };
const faint = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
  if (!text || !e.getClientRects().length || ['STYLE', 'SCRIPT'].includes(e.tagName)) continue;
  const s = getComputedStyle(e), back = behind(e);
  const front = over(parse(e instanceof SVGElement ? s.fill : s.color), back);
  const [a, b] = [luminance(front), luminance(back)];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const large = parseFloat(s.fontSize) >= 24 || (parseFloat(s.fontSize) >= 18.6 && s.fontWeight >= 600);
  if (contrast < (large ? 3 : 4.5)) faint.push(text.slice(0, 40) + ' at ' + contrast.toFixed(2));
}
return faint;
"""


FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)


def require() -> None:
    """Skip the test where there is no browser."""
    if _DRIVER is None or _BROWSER is None:
        pytest.skip("no Chromium with its driver here (Debian: apt-get install chromium chromium-driver)")


@cache
def _driver() -> Any:
    """Selenium's driver of one Chromium, which all tests share."""
    from selenium import webdriver

    require()
    options = webdriver.ChromeOptions()
    options.binary_location = _BROWSER
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=_DRIVER))
    atexit.register(driver.quit)
    return driver


def opened(page: Path, view: str = "desk", *, dark: bool = False) -> Any:
    """The Selenium driver with ``page`` open, as wide as ``view`` and in the theme asked for."""
    driver, (width, height) = _driver(), VIEWS[view]
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": view == "phone"}
    theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
    for log in ("browser", "performance"):
        driver.get_log(log)  # of the page before
    driver.get(page.resolve().as_uri())
    return driver


def problems(page: Path, shots: Path | None = None) -> list[str]:
    """What a reader would stumble over on ``page`` in each view and theme; empty if nothing.

    That is: errors of the console, anything loaded from elsewhere, a page wider than the screen, pictures that do
    not load, text of too little contrast. With ``shots``, a folder, each view is kept there as a PNG of all the page.
    """
    found = []
    for view, dark in ((view, dark) for view in VIEWS for dark in (False, True)):
        where = f"{view}, {'dark' if dark else 'light'}"
        driver = opened(page, view, dark=dark)
        told = [entry["message"] for entry in driver.get_log("browser")]
        told += [f"loads {url}" for url in _loaded(driver) if not url.startswith(("data:", "file:"))]
        root = "document.documentElement"
        wide, screen = driver.execute_script(f"return [{root}.scrollWidth, {root}.clientWidth]")
        if wide > screen:
            told.append(f"the page is {wide} px wide on a screen of {screen}")
        broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
        told += [f"the picture {alt!r} does not show" for alt in driver.execute_script(broken)]
        told += [f"faint text: {text}" for text in driver.execute_script(_FAINT_TEXT)]
        found += [f"{where}: {text}" for text in told]
        if shots is not None:
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
            shots.mkdir(parents=True, exist_ok=True)
            name = f"{page.stem}-{where.replace(', ', '-')}.png"
            (shots / name).write_bytes(base64.b64decode(shot["data"]))
    return found


def _loaded(driver: Any) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
