"""The page in a real browser: it loads, reacts, computes what Python computes, and runs nothing that users wrote."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student

from flexseg.analysis.stats.formats import difference_text, mean_text, number
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.web import write_page
from flexseg.benchmark import Benchmark
from flexseg.classes import CLASS_NAMES

Built = tuple[Benchmark, Path]
Builder = Callable[..., Built]
Page = Any
Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def made(scores: Scores, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of ten rows with one run of each kind of trouble."""
    output = tmp_path_factory.mktemp("page") / "index.html"
    write_page(scores, output)
    return output


@pytest.fixture
def opened(browser: Any, patience: float) -> Iterator[Opener]:
    """Opens a file as a page; in the end no page may have said anything on its console or asked for anything else."""
    contexts, said = [], []

    def open_page(path: Path, fragment: str = "", **settings: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * patience)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("data:", path.as_uri())) else said.append(request.url),
        )
        page.goto(path.as_uri() + fragment)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture
def page(opened: Opener, made: Path) -> Page:
    return opened(made)


def cell(page: Page, row: str, column: int) -> str:
    text: str = page.locator(f'tr[data-key="{row}"] .cell').nth(column).inner_text()
    return re.sub(r"\s+", " ", text.replace("±", " ± ").replace("[", " [")).strip()


def shown_rows(page: Page) -> list[str]:
    rows: list[str] = page.locator("#table tbody tr").evaluate_all("rows => rows.map(row => row.dataset.key)")
    return rows


def order(scores: Scores, column: str) -> list[str]:
    """Rows by falling mIoU, those without a value last."""
    values = {row: scores.mean(row, column).value for row in scores.benchmark.rows}
    return sorted(values, key=lambda row: -values[row] if np.isfinite(values[row]) else np.inf)


def test_forty_rows_are_shown_on_a_narrow_screen_too(forty: Built, opened: Opener, tmp_path: Path) -> None:
    write_page(Scores(load_records(*forty)), tmp_path / "forty.html")
    assert len(shown_rows(opened(tmp_path / "forty.html"))) == 40
    page = opened(tmp_path / "forty.html", viewport={"width": 390, "height": 844})
    assert len(shown_rows(page)) == 40
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_cells_are_the_means_of_the_tables(page: Page, scores: Scores) -> None:
    for row in scores.benchmark.rows:
        for place, column in enumerate(scores.columns):
            mean = scores.mean(row, column)
            assert cell(page, row, place).split(" n=")[0] == mean_text(mean), (row, column)
            assert ("n=" in cell(page, row, place)) == (0 < mean.n < 3)
    assert "seed 2 failed: non-finite loss at iteration 371" in page.locator("#table").inner_text()


def test_a_heading_sorts_by_click_and_by_key(page: Page, scores: Scores) -> None:
    night = scores.columns.index("night")
    heading = page.locator(f'#table [data-sort="{night}"]')
    heading.click()
    expected = order(scores, "night")
    assert shown_rows(page) == expected
    assert page.locator("#table th[aria-sort=descending]").inner_text().startswith("Night")
    assert page.evaluate("document.activeElement.dataset.sort") == str(night)
    page.keyboard.press("Enter")
    finite = [row for row in expected if scores.mean(row, "night").n]
    assert shown_rows(page)[: len(finite)] == finite[::-1]
    page.keyboard.press("Enter")
    assert shown_rows(page) == [*scores.benchmark.rows]
    page.select_option("#quantity", "interior error")
    page.locator(f'#table [data-sort="{night}"]').click()
    assert page.locator("#table th[aria-sort=ascending]").count() == 1  # the best first, which here is the lowest
    assert shown_rows(page)[0] == min(finite, key=lambda row: scores.mean(row, "night", "interior error").value)


def test_the_filter_narrows_table_and_plots(page: Page) -> None:
    page.fill("#filter", "TUNED aligned")
    assert shown_rows(page) == ["flexseg_tuned_aligned"]
    assert page.locator("#count").inner_text() == "1 of 10 rows"
    assert page.locator("#plot-means .mean").count() == 1
    page.fill("#filter", "nothing like it")
    assert page.locator("#table tbody").inner_text() == "No row matches the filter."
    page.fill("#filter", "")
    assert len(shown_rows(page)) == 10


def test_metric_and_columns_change_the_numbers(page: Page, scores: Scores) -> None:
    assert page.locator("#table thead .groups .published").inner_text().startswith("published on other data")
    published = page.locator('tr[data-key="dginstyle"] td.published').all_inner_texts()
    assert published == ["34.81", "54.25", "46.47"]
    page.select_option("#quantity", "boundary error")
    assert cell(page, "source_only", 1) == mean_text(scores.mean("source_only", "night", "boundary error"))
    assert "Lower is better" in page.locator("#table caption").inner_text()
    assert page.locator("#table .published").count() == 0  # published numbers are mIoU
    page.select_option("#view", "conditions/adverse")
    assert cell(page, "source_only", 2) == mean_text(scores.condition_mean("source_only", "adverse", "rain"))
    assert page.locator("#quantity").is_disabled()
    page.select_option("#view", "classes/adverse")
    means = scores.class_means("source_only", "adverse")
    assert [cell(page, "source_only", index) for index in range(19)] == [mean_text(mean) for mean in means]


def test_differences_are_the_resampled_ones_or_say_that_they_are_not(page: Page, scores: Scores) -> None:
    page.check("input[value=differences]")
    against = scores.against("source_only", scores.benchmark.reference)
    for place, column in enumerate(scores.columns):
        assert cell(page, "source_only", place) == difference_text(against[column])
    assert cell(page, "dginstyle", 0) == "reference"
    bold = page.locator('tr[data-key="source_only"] .cell strong').count()
    assert bold == sum(difference.shown for difference in against.values())
    page.select_option("#quantity", "interior error")
    other = scores.against("flexseg", scores.benchmark.reference, "interior error")["mixed"]
    assert cell(page, "flexseg", scores.columns.index("mixed")) == difference_text(other)
    page.select_option("#quantity", "mIoU")
    page.select_option("#reference", str(list(scores.benchmark.rows).index("flexseg")))
    assert "t-interval over the common seeds alone, computed in this page" in page.locator("caption").first.inner_text()
    pairs = scores.per_seed("source_only", "mixed") - scores.per_seed("flexseg", "mixed")
    half = student.ppf(0.975, 2) * pairs.std(ddof=1) / np.sqrt(3)
    low, high = number(pairs.mean() - half), number(pairs.mean() + half)
    assert (
        cell(page, "source_only", scores.columns.index("mixed")) == f"{number(pairs.mean(), sign=True)} [{low}, {high}]"
    )


def test_arrow_keys_walk_over_the_cells(page: Page) -> None:
    page.locator(".cell").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate("[document.activeElement.dataset.row, document.activeElement.dataset.column]") == ["2", "1"]
    assert page.locator(".cell[tabindex='0']").count() == 1


def test_a_cell_opens_its_runs(page: Page, scores: Scores) -> None:
    night = scores.columns.index("night")
    page.locator('tr[data-key="flexseg_tuned"] .cell').nth(night).click()
    values = scores.per_seed("flexseg_tuned", "night")
    page.locator("#run .seeds strong").first.wait_for()
    tabs = page.locator("#run .seeds strong").all_inner_texts()
    assert tabs == [number(values[0], 2), number(values[1], 2), "stale"]
    body = page.locator("#run-body").inner_text()
    assert "results/streetworld/flexseg_tuned/seed-0" in body
    assert "0123456789abcdef0123456789abcdef01234567" in body
    assert re.search(r"Time\s+38.0 s\s+Images per second\s+250.0\s+Peak memory\s+1144 MiB\s+Parameters\s+912345", body)
    options = page.locator("#run .options tr").all_inner_texts()
    assert any(line.startswith("boundary_kernel") and line.endswith("set") and "default 7" in line for line in options)
    assert any(line.startswith("momentum") and line.endswith("assumed") for line in options)
    page.locator("#run .seeds a").nth(2).click()
    assert page.locator("#run .warning").inner_text().startswith("stale: other settings")
    assert page.url.endswith("#run=flexseg_tuned/2")
    page.keyboard.press("Escape")
    page.wait_for_selector("#run", state="hidden")
    # The browser tells of the closing in an event of its own, a moment after the dialog is gone.
    page.wait_for_function("!location.href.includes('#')")
    page.wait_for_function(f"document.activeElement.dataset.column === '{night}'")


def test_an_address_opens_a_run(opened: Opener, made: Path) -> None:
    page = opened(made, "#run=flexseg_tuned_aligned/2")
    assert page.locator("#run .warning").inner_text() == "failed: non-finite loss at iteration 371"
    assert opened(made, "#run=flexseg_tuned_aligned/7").locator("#run").is_hidden()
    assert opened(made, "#run=%E0%A4%A/0").locator("#run").is_hidden()


def split(page: Page) -> int:
    return int(page.locator("#handle").get_attribute("aria-valuenow"))


def test_the_slider_moves_by_pointer_and_by_key(page: Page) -> None:
    stage = page.locator("#stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    page.mouse.up()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)  # no longer held
    assert split(page) == 25
    clip = page.locator("#canvas-right").evaluate("canvas => getComputedStyle(canvas).clipPath")
    assert float(re.findall(r"[\d.]+(?=%)", clip)[-1]) == pytest.approx(25, abs=0.5)
    page.locator("#handle").focus()
    for key in ("ArrowRight", "ArrowRight", "PageUp", "ArrowLeft"):
        page.keyboard.press(key)
    assert split(page) == 37
    page.keyboard.press("End")
    assert split(page) == 100
    page.keyboard.press("Home")
    assert split(page) == 0


def pixels(page: Page, canvas: str) -> np.ndarray:
    script = """canvas => [canvas.width, canvas.height,
        ...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
    width, height, *values = page.locator(canvas).evaluate(script)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def test_the_viewer_paints_classes_and_errors(page: Page, scores: Scores) -> None:
    page.select_option("#viewer-target", "1")
    page.select_option("#layer-right", "truth")
    top = scores.records.results / "streetworld"

    def ids(path: Path) -> np.ndarray:
        with Image.open(path) as opened:
            return np.asarray(opened)

    truth = ids(top / "data" / "night" / "night_0000_label.png")
    prediction = ids(top / "dginstyle" / "seed-0" / "predictions" / "night" / "night_0000.png")
    void = truth == 255
    page.locator("#title-right:text-is('truth')").wait_for()
    right = pixels(page, "#canvas-right")
    np.testing.assert_array_equal(right[truth == 0], np.broadcast_to([128, 64, 128], right[truth == 0].shape))
    assert (right[void] == 0).all()
    page.check("input[value=errors]")
    page.locator("#legend li:nth-child(3):last-child").wait_for()
    left = pixels(page, "#canvas-left")
    wrong = (left == [213, 94, 0]).all(-1)
    np.testing.assert_array_equal(wrong, (prediction != truth) & ~void)
    share = 100 * wrong.sum() / (~void).sum()
    assert page.locator("#title-left").inner_text().endswith(f"seed 0 · {number(share)} % wrong")
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    readout = page.locator("#readout").inner_text()
    assert readout.startswith(f"truth: {CLASS_NAMES[truth[0, 0]]}")
    assert readout.endswith(f"seed 0: {CLASS_NAMES[prediction[0, 0]]}")


def test_plots_tell_seeds_and_intervals_on_focus(page: Page, scores: Scores) -> None:
    page.locator("#plot-means .dot").first.focus()
    mean = scores.mean("source_only", "Avg5")
    tip = page.locator("#tooltip").inner_text()
    assert tip.startswith("Source only\n")
    assert f"Avg5: {number(mean.value, 2)} ± {number(mean.half, 2)} (n = 3)" in tip
    assert f"seed 1: {number(float(scores.per_seed('source_only', 'Avg5')[1]), 2)}" in tip
    page.keyboard.press("Escape")
    assert page.locator("#tooltip").is_hidden()
    page.locator("#plot-differences .dot").first.hover()
    assert (
        difference_text(scores.against("source_only", "dginstyle")["Avg5"], 2) in page.locator("#tooltip").inner_text()
    )
    assert page.locator("#plot-curves polyline").count() == 2
    page.check("#curve-0")
    assert page.locator("#plot-curves polyline").count() == 3
    page.locator("#plot-curves svg").focus()
    page.keyboard.press("ArrowRight")
    assert re.search(r"loss at \d+: [\d.]+\nseed 0: ", page.locator("#tooltip").inner_text())


def test_colours_follow_the_system_and_the_button(opened: Opener, made: Path) -> None:
    page = opened(made, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) == "rgb(255, 255, 255)" != dark
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "light"  # remembered


@pytest.mark.parametrize("fragment", ["", "#run=flexseg_tuned/0"])
def test_on_a_phone_only_the_table_scrolls_sideways(opened: Opener, made: Path, fragment: str) -> None:
    page = opened(made, fragment, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    if not fragment:
        page.locator("summary").first.click()
    wide = """[...document.querySelectorAll("body *")].filter(node => !node.closest(".scroll, svg, .skip")
        && node.getBoundingClientRect().right > 391).map(node => node.outerHTML.slice(0, 90))"""
    assert page.evaluate(wide) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    if fragment:
        assert page.evaluate("document.getElementById('run').scrollWidth <= 390")
        return
    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#stage").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + 20)
    assert split(page) == 75
    first = page.locator("#table tbody th").first
    before = first.bounding_box()["x"]
    page.locator(".scroll").first.evaluate("node => node.scrollLeft = 200")
    assert page.locator(".scroll").first.evaluate("node => node.scrollLeft") == 200
    assert first.bounding_box()["x"] == pytest.approx(before, abs=1)


def test_a_long_reason_stays_in_its_plot(builder: Builder, opened: Opener, tmp_path: Path) -> None:
    """What keeps a row from being run can be a whole command; all of it is shown to who points at it."""
    benchmark, results = builder(["dginstyle", "flexseg"], [0], 8, incidents=False)
    folder = results / benchmark.name / "flexseg" / "seed-0"
    shutil.rmtree(folder)
    folder.mkdir()
    failure = {"status": "failed", "reason": " ".join(["no wheel"] * 90), "traceback": "…"}
    (folder / "failure.json").write_text(json.dumps(failure))
    write_page(Scores(load_records(benchmark, results)), tmp_path / "long.html")
    page = opened(tmp_path / "long.html")
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    shown = page.locator("#plot-means text[role=img]")
    assert shown.text_content().startswith("failed: no wheel")
    assert shown.bounding_box()["x"] + shown.bounding_box()["width"] <= 1280
    shown.focus()
    assert page.locator("#tooltip").inner_text().count("no wheel") == 90


def test_on_a_phone_the_picture_of_the_claims_scrolls_by_itself(
    builder: Builder, opened: Opener, tmp_path: Path
) -> None:
    claim = {"text": "It gains.", "place": "table", "family": "all", "row": "flexseg", "reference": "dginstyle"}
    claim |= {"target": "Avg5", "smallest": 1, "seeds": 6}
    claims = {"families": {"all": "Does it?"}, "claims": {"gain": claim}}
    built = builder(["dginstyle", "flexseg"], [0, 1], 8, incidents=False, claims=claims)
    write_page(Scores(load_records(*built)), tmp_path / "claims.html")
    page = opened(tmp_path / "claims.html", viewport={"width": 390, "height": 844})
    assert page.locator("#claims img").bounding_box()["width"] > 390
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_hostile_names_do_nothing(hostile: tuple[Built, str], opened: Opener, tmp_path: Path) -> None:
    built, name = hostile
    write_page(Scores(load_records(*built), replicates=200), tmp_path / "hostile.html")
    page = opened(tmp_path / "hostile.html", "#run=flexseg/0")
    assert page.locator("#run-title").inner_text() == name
    options = " ".join(page.locator("#run .options").inner_text().split())
    assert options.count(" ".join(name.split())) == 2
    page.keyboard.press("Escape")
    page.check("input[value=differences]")
    page.check("input[value=errors]")
    page.locator("#plot-means .dot").first.hover()
    assert page.locator("#tooltip strong").inner_text() == name
    assert page.locator("h1").inner_text() == name
    assert page.title().startswith(name)
    assert page.evaluate("[typeof window.broken, document.images.length, document.scripts.length]") == [
        "undefined",
        0,
        3,
    ]


def test_the_methods_text_can_be_copied(page: Page) -> None:
    page.click("#copy")
    page.locator("#copied:not(:empty)").wait_for()
    selected = page.evaluate("getSelection().toString()")
    assert "means over 3 seeds" in selected or page.locator("#copied").inner_text() == "Copied."


def test_the_citations_unfold_and_can_be_copied(page: Page) -> None:
    assert not page.locator("#bibtex").is_visible()
    page.click("#cite summary")
    page.click("#copy-bibtex")
    page.locator("#copied-bibtex:not(:empty)").wait_for()
    selected = page.evaluate("getSelection().toString()")
    assert "@misc{flexsegbench," in selected or page.locator("#copied-bibtex").inner_text() == "Copied."
    assert page.locator("#copied").inner_text() == ""
