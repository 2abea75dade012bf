"""The page: what it holds is what was measured, nothing in it can run, and trouble is shown as such."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student

from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables import content, origins
from flexseg.analysis.web import page, pictures, text, write_page
from flexseg.analysis.web.payload import numbers, payload
from flexseg.benchmark import Benchmark, select_rows
from flexseg.citation import Work, suite

Built = tuple[Benchmark, Path]
Builder = Callable[..., Built]
ASSETS = Path(page.__file__).parent / "assets"
SCRIPT = """
import sys
from pathlib import Path
import flexseg.analysis.stats.records as records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.web import write_page
from flexseg.benchmark import load_benchmark, select_rows
records.code_digest = lambda *_: "today"
top = Path(sys.argv[1])
benchmark = select_rows(load_benchmark("streetworld", top / "benchmarks"), rows=sys.argv[3])
write_page(Scores(records.load_records(benchmark, top / "results")), Path(sys.argv[2]))
assert "torch" not in sys.modules, "the page imports torch"
"""


class Elements(HTMLParser):
    """Tags in order, and the text of each script."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.tags[-1] if self.tags else "", data))


def scores_of(built: Built, rows: str = "") -> Scores:
    benchmark, results = built
    chosen = select_rows(benchmark, rows=rows) if rows else benchmark
    return Scores(load_records(chosen, results), replicates=200)


def data_of(content: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', content, re.DOTALL)
    assert match
    found: dict[str, Any] = json.loads(match[1])
    return found


@pytest.fixture(scope="module")
def data(scores: Scores) -> dict[str, Any]:
    return payload(scores)


def test_numbers_are_those_of_the_scores(scores: Scores, data: dict[str, Any]) -> None:
    benchmark = scores.benchmark
    for place, row in enumerate(benchmark.rows):
        for column, name in enumerate(scores.columns):
            for quantity in ("mIoU", "interior error", "negative log-likelihood"):
                expected = scores.per_seed(row, name, quantity)
                found = [np.nan if value is None else value for value in data["values"][quantity][place][column]]
                np.testing.assert_allclose(found, expected, rtol=1e-5)
        if row == benchmark.reference:
            assert data["differences"]["mIoU"][place] == []
            continue
        for column, name in enumerate(scores.columns):
            value, low, high, p, n, shown = data["differences"]["mIoU"][place][column]
            expected_difference = scores.against(row, benchmark.reference)[name]
            assert (n, shown) == (expected_difference.n, expected_difference.shown)
            assert [value, low] == numbers([expected_difference.value, expected_difference.low])
            assert high == numbers([expected_difference.high])[0]
            wanted = expected_difference.p if name in benchmark.averages else expected_difference.p_holm
            assert p == numbers([wanted])[0]
    assert data["quantiles"][1:] == [round(float(student.ppf(0.975, f)), 6) for f in (1, 2)]


def test_classes_and_conditions_are_those_of_the_scores(scores: Scores, data: dict[str, Any]) -> None:
    slices = {each["key"]: each for each in data["slices"]}
    assert set(slices) == {
        f"{kind}/{target}" for kind in ("classes", "conditions") for target in scores.benchmark.targets
    }
    row = list(scores.benchmark.rows).index("flexseg_tuned")
    classes = slices["classes/adverse"]["values"][row]
    for values, mean in zip(classes, scores.class_means("flexseg_tuned", "adverse"), strict=True):
        kept = [value for value in values if value is not None]
        assert (np.mean(kept) if kept else np.nan) == pytest.approx(mean.value, rel=1e-5, nan_ok=True)
    found = slices["conditions/adverse"]
    assert [column["title"] for column in found["columns"]] == ["fog", "night", "rain", "snow"]
    for place, column in enumerate(found["columns"]):
        mean = scores.condition_mean("flexseg_tuned", "adverse", column["title"])
        kept = [value for value in found["values"][row][place] if value is not None]
        assert np.mean(kept) == pytest.approx(mean.value, rel=1e-5)


def test_every_run_stands_in_the_page_with_its_reason(scores: Scores, data: dict[str, Any]) -> None:
    rows = {row["key"]: row for row in data["rows"]}
    broken = rows["flexseg_tuned_aligned"]["runs"]
    assert [run["status"] for run in broken] == ["missing", "finished", "failed"]
    assert broken[2]["reason"] == "failed: non-finite loss at iteration 371"
    assert rows["flexseg"]["runs"][2]["absent"] == ["night: not evaluated"]
    assert rows["flexseg_tuned"]["runs"][2]["status"] == "stale"
    assert rows["flexseg_no_gap"]["otherCode"] == ["feedfacefeedface"]
    fine = rows["flexseg"]["runs"][0]
    assert fine["folder"] == "results/streetworld/flexseg/seed-0"
    assert fine["commit"].startswith("0123456789ab")
    options = {name: rest for name, *rest in data["options"][fine["options"]]}
    assert options["momentum"] == ["0.99", "0.99", "assumed", "of the prototypes; the first update copies the mean"]
    content = page.render(scores)
    assert "seed 2 failed: non-finite loss at iteration 371" in content
    assert "<dt>† code feedfacefeedface</dt>" in content
    assert "which are in the numbers: flexseg_no_gap (seed 2)" in content


def test_training_curves_are_thinned_and_keep_their_ends(builder: Builder) -> None:
    built = builder(["dginstyle", "flexseg"], [0, 1], 8, incidents=False, predictions=0)
    folder = built[1] / "streetworld" / "flexseg" / "seed-0"
    lines = [{"iteration": step, "loss": 1 / step, "loss/ce": None, "note": "text"} for step in range(1, 1000)]
    (folder / "train.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + '\n{"iteration": 10')
    (folder.parent / "seed-1" / "train.jsonl").unlink()
    curves = payload(scores_of(built))["curves"]
    run, missing = curves["rows"][1]
    assert len(run["iterations"]) == 60
    assert (run["iterations"][0], run["iterations"][-1]) == (1, 999)
    assert run["terms"]["loss"][-1] == pytest.approx(1 / 999, rel=1e-5)
    assert "note" not in curves["terms"]
    assert missing == {"iterations": [], "terms": {}}


def test_same_bytes_in_two_processes_and_no_torch(small: Built, tmp_path: Path) -> None:
    benchmark, results = small
    rows = "dginstyle,flexseg_tuned"
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(results.parent), str(tmp_path / "other.html"), rows]
    subprocess.run(command, check=True)
    write_page(Scores(load_records(select_rows(benchmark, rows=rows), results)), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "other.html").read_bytes()


def test_the_policy_lets_only_the_own_style_and_scripts_run(scores: Scores) -> None:
    content = page.render(scores)
    elements = Elements(content)
    policy = next(each["content"] for tag, each in elements.attributes if each.get("http-equiv"))
    assert policy is not None
    for kind, pattern in (
        ("style", r"<style>(.*?)</style>"),
        ("script", r"<script(?: type=\"module\")?>(.*?)</script>"),
    ):
        own = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()
               for each in re.findall(pattern, content, re.DOTALL)]  # fmt: skip
        assert len(own) == {"style": 1, "script": 2}[kind]
        sources = " ".join(f"'sha256-{digest}'" for digest in own)
        assert f"{kind}-src {sources};" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert not [each for _, each in elements.attributes for name in each if name.startswith("on") or name == "style"]
    assert set(re.findall(r"https?://[^\s\"']+", content)) == {"http://www.w3.org/2000/svg"}


def test_scripts_never_parse_data_as_html() -> None:
    for path in ASSETS.glob("*.js"):
        code = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", code), (
            path
        )
        assert "</script" not in code, path
        assert "<!--" not in code, path
    assert {path.name for path in ASSETS.glob("*.js")} == {*page.SCRIPTS, "theme.js"}


def test_every_asset_is_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["flexseg"]
    package = Path(page.__file__).parents[2]
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    assert {*ASSETS.iterdir()} <= installed


def test_names_from_files_are_text_and_nothing_else(hostile: tuple[Built, str]) -> None:
    built, name = hostile
    content = page.render(scores_of(built))
    elements = Elements(content)
    assert elements.tags.count("script") == 3
    assert elements.tags.count("img") == 0
    found = data_of(content)
    assert found["title"] == name
    assert found["rows"][1]["title"] == name
    assert found["rows"][1]["runs"][1]["reason"] == "failed: " + " ".join(name.split())
    assert any(column["title"] == name for column in found["columns"])
    assert ("h1", name) in elements.texts


def test_safe_json_comes_back_and_cannot_leave_its_script() -> None:
    value = {"</script><!--": ["]]>&amp;", "ü\u2028\u2029"]}
    written = page.safe_json(value)
    assert json.loads(written) == value
    assert not re.search("[<>&\u2028\u2029]", written)
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.safe_json(float("nan"))


def test_the_page_holds_what_to_cite_as_text(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = Work("k", "misc", "a <b> & c", {"note": "</pre><script>x</script>"})
    monkeypatch.setattr(content, "cite_methods", lambda papers: [hostile])
    whole = page.render(scores)
    (shown,) = re.findall(r'<pre id="bibtex"[^>]*>(.*?)</pre>', whole, re.DOTALL)
    assert html.unescape(shown) == f"{suite().bibtex}\n\n{hostile.bibtex}"
    assert "methods shown: a &lt;b&gt; &amp; c." in whole


def test_methods_text_says_what_was_run(scores: Scores) -> None:
    benchmark, training = scores.benchmark, scores.benchmark.training
    data_text, train, evaluation, provenance = text.methods_text(scores)
    assert f"{benchmark.domains['source'].train} images of the source" in data_text
    images = benchmark.domains["night"].test
    assert f"We test on 5 unseen target domains: Adverse ({images} images), Night ({images} images)" in data_text
    assert "“Generated (aligned)” instead (strength 0)" in data_text
    assert f"for {training.iterations} iterations with AdamW (learning rate {training.learning_rate:g}" in train
    assert f"warm-up over {training.warmup} iterations" in train
    assert f"batch {training.batch_size}, crops of 64 × 128 pixels, flipped" in train
    assert "UNet, FCNHead, 0.91 M parameters" in train
    assert f"moving average of the weights (decay {training.ema:g})" in train
    assert "means over 3 seeds with 95 % t-intervals" in evaluation
    assert "200 bootstrap replicates" in evaluation
    assert "Holm-adjusted over the 5 targets" in evaluation
    assert provenance.startswith("27 of 30 runs finished (not in the numbers:")
    assert "commit 0123456789ab. Machine: Example CPU @ 2.50GHz, 2 cores, Linux x86_64; device cpu" in provenance


def test_methods_text_follows_the_benchmark(scores: Scores) -> None:
    changed = scores.benchmark.training.model_copy(update={"ema": 0.0, "flip": False, "warmup": 0, "scale": (0.5, 2.0)})
    benchmark = scores.benchmark.model_copy(update={"training": changed, "seeds": [0]})
    records = scores.records.__class__(benchmark, scores.records.results, scores.records.runs)
    _, train, evaluation, _ = text.methods_text(Scores(records))
    assert "scaled by 0.5–2, without flips. We evaluate the weights after" in train
    assert "warm-up" not in train
    assert evaluation.endswith("a single seed, so no interval can be given.")


def test_assumed_values_name_the_rows_that_deviate(builder: Builder) -> None:
    built = builder(["dginstyle", "flexseg", "flexseg_tuned"], [0], 8, incidents=False, predictions=0)
    found = {each.name: each for each in origins.find_assumed(scores_of(built))}
    assert found["boundary_kernel"].text() == "7; 3 in flexseg_tuned"
    assert found["momentum"].text() == "0.99"
    assert "alpha" not in found


def test_one_row_alone_and_nothing_finished(builder: Builder) -> None:
    built = builder(["dginstyle"], [0], 8, incidents=False, predictions=1)
    alone = data_of(page.render(scores_of(built)))
    assert alone["differences"]["mIoU"] == [[]]
    assert len(alone["pictures"]["targets"]) == 5
    shutil.rmtree(built[1] / "streetworld" / "dginstyle")
    nothing = page.render(scores_of(built))
    assert "No run of these rows was finished." in nothing
    assert [each["name"] for each in data_of(nothing)["quantities"]] == ["mIoU"]
    assert data_of(nothing)["pictures"]["targets"] == []
    assert text.facts(scores_of(built))[3] == ("Commit", "–")


def test_forty_rows_stay_small(forty: Built) -> None:
    content = page.render(scores_of(forty))
    assert len(data_of(content)["rows"]) == 40
    assert len(content) < 6_000_000


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_enough_contrast(theme: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 : 1 for text; 1.4.11: 3 : 1 for what a plot is read by."""
    blocks = re.findall(r":root(\[data-theme=\"dark\"\])? \{(.*?)\n\}", (ASSETS / "page.css").read_text(), re.DOTALL)
    rules = next(body for dark, body in blocks if bool(dark) == (theme == "dark"))
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", rules))

    def luminance(name: str) -> float:
        parts = np.array([int(colours[name][at : at + 2], 16) / 255 for at in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for text_colour in ("ink", "muted", "accent", "warn-ink"):
        for ground in ("paper", "soft", "hover"):
            assert contrast(text_colour, ground) >= 4.5, (text_colour, ground)
    assert contrast("warn-ink", "warn-ground") >= 4.5
    for mark in ("dot", *[f"series-{index}" for index in range(7)]):
        assert contrast(mark, "paper") >= 3, mark


def unpacked(packed: str, height: int, width: int) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(height, width)


def test_pictures_hold_the_ids_of_palette_and_grey_maps(builder: Builder) -> None:
    benchmark, results = builder(["dginstyle", "flexseg_tuned"], [0, 1], 8, incidents=False, predictions=2)
    top = results / benchmark.name
    shutil.rmtree(top / "dginstyle" / "seed-0" / "predictions")
    path = top / "flexseg_tuned" / "seed-0" / "predictions" / "night" / "night_0001.png"
    with Image.open(path) as opened:
        ids = np.asarray(opened)
    indexed = Image.fromarray(ids, mode="P")
    indexed.putpalette([0] * 768)
    indexed.save(path)
    found = payload(scores_of((benchmark, results)))["pictures"]
    # Seed 0 of the baseline has none left: its first finished seed that has any stands in.
    assert found["seeds"] == {"dginstyle": 1, "flexseg_tuned": 0}
    night = next(target for target in found["targets"] if target["key"] == "night")
    entry = night["images"][1]
    np.testing.assert_array_equal(unpacked(entry["predictions"]["flexseg_tuned"], *ids.shape), ids)
    with Image.open(top / "data" / "night" / "night_0001_label.png") as opened:
        np.testing.assert_array_equal(unpacked(entry["truth"], *ids.shape), np.asarray(opened))
    with Image.open(io.BytesIO(base64.b64decode(entry["image"].split(",")[1]))) as embedded:
        assert embedded.size == (entry["width"], entry["height"]) == ids.shape[::-1]


def test_pictures_are_scaled_and_kept_within_their_budget(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    built = builder(["dginstyle", "flexseg_tuned"], [0], 8, incidents=False, predictions=2)
    monkeypatch.setattr(pictures, "MOST_WIDTH", 32)
    found = payload(scores_of(built))["pictures"]
    entry = found["targets"][0]["images"][0]
    assert (entry["width"], entry["height"]) == (32, 16)
    assert entry["image"].startswith("data:image/jpeg;base64,")
    assert unpacked(entry["truth"], 16, 32).max() <= 255
    assert found["leftOut"] == 0
    size = len(entry["image"]) + len(entry["truth"]) + sum(map(len, entry["predictions"].values()))
    monkeypatch.setattr(pictures, "BUDGET", 6 * size)
    limited = payload(scores_of(built))["pictures"]
    kept = [len(target["images"]) for target in limited["targets"]]
    assert sum(kept) + limited["leftOut"] == 10
    assert len(kept) == 5  # some of every target
    assert limited["leftOut"] > 0


def test_damaged_pictures_are_left_out(builder: Builder) -> None:
    built = builder(["dginstyle", "flexseg_tuned"], [0], 8, incidents=False, predictions=1)
    top = built[1] / "streetworld"
    (top / "flexseg_tuned" / "seed-0" / "predictions" / "night" / "night_0000.png").write_bytes(b"no picture")
    (top / "data" / "mixed" / "mixed_0000_label.png").unlink()
    (top / "data" / "places" / "index.parquet").write_bytes(b"no table")
    found = {target["key"]: target["images"] for target in payload(scores_of(built))["pictures"]["targets"]}
    assert set(found) == {"adverse", "night", "clear_city"}
    assert list(found["night"][0]["predictions"]) == ["dginstyle"]
