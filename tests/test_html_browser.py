"""The page of `ima report` in a browser: nothing cut off, wide or narrow, and nothing to load."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import compared, config, full, results, run
from small_segmentations import arrays, evaluated, three
from small_segmentations import results as segmentation_results

from ima.report.html import write_report, write_sources
from ima.report.sources import Source

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH; on Debian: apt-get install chromium"
)

# Opens all that is folded, then measures, and tells the page around it, which is dumped.
MEASURE = """
document.querySelectorAll("details").forEach(one => one.open = true);
const found = {wide: document.scrollingElement.scrollWidth, room: innerWidth, out: [], broken: 0};
const name = one => one.tagName + "." + one.getAttribute("class") + ": "
  + (one.textContent || "").trim().slice(0, 40);
for (const one of document.body.querySelectorAll("*")) {
  const box = one.getBoundingClientRect();
  if (one.closest(".hidden, .skip") || box.width === 0) continue;
  if (one instanceof SVGElement) {
    const card = one.closest("svg").getBoundingClientRect();
    if (one.tagName === "text" && (box.left < card.left - 1 || box.right > card.right + 1
        || box.top < card.top - 1 || box.bottom > card.bottom + 1))
      found.out.push("in a figure, " + name(one));
    continue;
  }
  const scrolls = one.closest(".scroll, pre");
  if (scrolls && scrolls !== one) continue;
  const holder = one.parentElement.getBoundingClientRect();
  if (box.left < holder.left - 1 || box.right > holder.right + 1 || box.right > innerWidth + 1)
    found.out.push(name(one));
  const inline = getComputedStyle(one).display === "inline";
  if (!scrolls && !inline && one.scrollWidth > one.clientWidth + 1)
    found.out.push("holds too much, " + name(one));
}
for (const image of document.images) found.broken += image.naturalWidth === 0;
parent.postMessage(JSON.stringify(found), "*");
"""

# A window is never narrower than 500 pixels, a frame is.
AROUND = """<!doctype html><script>
addEventListener("message", event => document.getElementById("found").textContent = event.data);
</script><pre id="found"></pre><iframe src="copy.html" width="%d" height="900" style="border:0">
</iframe>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of one network, of several, and of many with long names; of segmentation too."""
    home = tmp_path_factory.mktemp("pages")
    long = home / "long"
    for number in range(9):
        method = f"package.with.a_long_name:{'ExtraordinarilyRobust' * 2}{number}"
        found = results(10, 9, {0.1 * step: 9 - step for step in range(1, 8)})
        run(long / f"m{number}" / "seed0", config(method), found)
    made = {
        "one": full(home / "run"),
        "many": compared(home / "runs"),
        "long": long,
        "segmented": evaluated(home / "segmented"),
        "segmented side by side": three(home / "side"),
    }
    for name, source in made.items():
        write_report([source], home / f"{name}.html")
    write_sources(home / "segmented long.html", _long_names())
    return {name: home / f"{name}.html" for name in (*made, "segmented long")}


def _long_names() -> list[Source]:
    """Four segmentation networks, and classes and cases with names that nothing can break."""
    classes = tuple("Aorta" * 9 + str(number) for number in range(2))
    return [
        Source(
            "ExtraordinarilyRobust" * 3 + str(number),
            {"results": segmentation_results(classes=classes, data="Dataset123_" + "Thorax" * 9)},
            overlays={
                **arrays(),
                "classes": np.array(classes),
                "case": np.array(["case" * 15 + str(i) for i in arrays()["case"]]),
            },
        )
        for number in range(4)
    ]


def browse(page: Path, folder: Path, *options: str) -> tuple[str, str]:
    """What the browser prints, and what it logs."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
        "--window-size=1400,900", *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def measured(page: Path, folder: Path, width: int) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    policy = re.search(r"<meta http-equiv=[^>]*>", text)
    assert policy is not None
    copy = folder / "copy.html"
    # The page's own policy forbids the measuring script too.
    script = f"<script>{MEASURE}</script></body>"
    copy.write_text(text.replace(policy[0], "").replace("</body>", script), encoding="utf-8")
    around = folder / "around.html"
    around.write_text(AROUND % width, encoding="utf-8")
    printed, _ = browse(around, folder, "--virtual-time-budget=3000", "--dump-dom")
    found = re.search(r'<pre id="found">(.*?)</pre>', printed, re.DOTALL)
    assert found is not None, printed[-500:]
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize(
    "name", ["one", "many", "long", "segmented", "segmented side by side", "segmented long"]
)
def test_nothing_is_cut_off(pages: dict[str, Path], tmp_path: Path, name: str, width: int) -> None:
    found = measured(pages[name], tmp_path, width)
    assert found["room"] == width
    assert found["wide"] <= width
    assert found["out"] == []
    assert found["broken"] == 0


def test_the_measuring_finds_what_is_cut_off(pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["one"].read_text(encoding="utf-8")
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(text.replace("overflow-x: auto", "overflow-x: visible"), encoding="utf-8")
    found = measured(spoilt, tmp_path, 400)
    assert found["wide"] > 400 or found["out"]


def test_the_browser_has_nothing_to_complain_about(pages: dict[str, Path], tmp_path: Path) -> None:
    for page in pages.values():
        printed, logged = browse(page, tmp_path, "--dump-dom")
        assert "</html>" in printed
        assert "CONSOLE" not in logged, logged[-2000:]


def test_the_policy_stops_what_a_page_must_not_do(pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["one"].read_text(encoding="utf-8")
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(text.replace("</main>", "<script>1</script></main>"), encoding="utf-8")
    _, logged = browse(spoilt, tmp_path, "--dump-dom")
    assert "CONSOLE" in logged and "Content Security Policy" in logged


def test_it_is_dark_where_dark_is_wanted_and_so_are_its_figures(
    pages: dict[str, Path], tmp_path: Path
) -> None:
    shares: list[float] = []
    bright: list[float] = []
    for options in ((), ("--force-dark-mode",)):
        shot = tmp_path / f"shot{len(shares)}.png"
        browse(pages["one"], tmp_path, f"--screenshot={shot}", *options)
        gray = np.asarray(Image.open(shot).convert("L"))
        assert gray.shape[1] == 1400
        shares.append(float((gray < 60).mean()))
        bright.append(float((gray > 200).mean()))
    light, dark = shares
    assert light < 0.1 < bright[0]
    assert 0.5 < dark < 0.97  # not all: text and lines
    # A chart on a light card would be a tenth of what is seen.
    assert bright[1] < 0.05


def test_print_opens_what_is_folded(pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["one"].read_text(encoding="utf-8")
    folded = tmp_path / "folded.html"
    folded.write_text(text.replace("details::details-content", "nothing"), encoding="utf-8")
    opened = tmp_path / "opened.html"
    opened.write_text(text.replace("<details>", "<details open>"), encoding="utf-8")
    sheets: list[int] = []
    for page in (pages["one"], folded, opened):
        out = tmp_path / f"{page.stem}.pdf"
        browse(page, tmp_path, f"--print-to-pdf={out}", "--no-pdf-header-footer")
        sheets.append(len(re.findall(rb"/Type\s*/Page\b", out.read_bytes())))
    printed, without, whole = sheets
    assert 0 < without < printed == whole
