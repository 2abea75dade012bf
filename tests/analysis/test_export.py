"""Figures on their own: the same bytes twice, a column wide, with captions; and the summary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from flexseg.analysis.figures.export import export_figures
from flexseg.analysis.figures.plate import empty_plate
from flexseg.analysis.figures.plates import Plate, all_plates, render
from flexseg.analysis.report.summary import write_summary
from flexseg.analysis.stats.formats import escape_markdown
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.content import citations
from flexseg.benchmark import Benchmark, select_rows

Built = tuple[Benchmark, Path]


@pytest.fixture(scope="module")
def scores(small: Built) -> Scores:
    benchmark, results = small
    rows = "source_only,dginstyle,flexseg_tuned,dginstyle_aligned,flexseg_tuned_aligned"
    return Scores(load_records(select_rows(benchmark, rows=rows).selected_as(""), results), replicates=50)


def test_every_format_is_the_same_twice_and_tells_no_date(scores: Scores, tmp_path: Path) -> None:
    first, second = (export_figures(scores, tmp_path / name / "figures" / "captions.md") for name in ("a", "b"))
    names = [path.relative_to(tmp_path / "a").as_posix() for path in first]
    assert {"figures/differences.pdf", "figures/differences.svg", "figures/differences.png"} < set(names)
    assert {"figures/boundary_rings.svg", "figures/panels_1.png", "figures/misalignment.pdf"} < set(names)
    for one, other in zip(first, second, strict=True):
        content = one.read_bytes()
        assert content == other.read_bytes(), one.name
        assert b"CreationDate" not in content
        assert b"dc:date" not in content
        if one.suffix == ".pdf":
            assert b"FontFile2" in content, "fonts are embedded"
            assert b"/Type3" not in content.replace(b" ", b"")
        if one.suffix == ".png":
            with Image.open(one) as image:
                assert image.width == pytest.approx(7.0 * 300, abs=1), one.name
    captions = first[-1].read_text()
    assert first[-1].name == "captions.md"
    assert "Paired difference in mIoU to “DGInStyle data (baseline)”" in captions
    assert "no finished run left prototypes to look at" in captions
    assert not (tmp_path / "a" / "figures" / "prototypes_flexseg_tuned.pdf").exists()


def test_captions_are_known_without_drawing(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr("flexseg.analysis.figures.style.Figure", refuse)
    plates = all_plates(scores)
    assert all(plate.caption for plate in plates if not plate.empty)
    assert len({plate.name for plate in plates}) == len(plates)
    assert [plate.name for plate in plates][:2] == ["differences", "miou"]


def test_nothing_lies_outside_of_a_figure(scores: Scores) -> None:
    for plate in all_plates(scores):
        if plate.empty:
            continue
        figure = plate.draw()
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) > -0.03, plate.name
        assert box.x1 < width + 0.03, plate.name
        assert box.y1 < height + 0.03, plate.name


def test_a_figure_that_went_empty_is_removed(scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "figures" / "gone.png"
    stale.parent.mkdir()
    stale.touch()
    plate = empty_plate("gone", "Gone", "Its rows were not run.")
    monkeypatch.setattr("flexseg.analysis.figures.export.all_plates", lambda scores: [plate])
    paths = export_figures(scores, tmp_path / "figures" / "captions.md")
    assert [path.name for path in paths] == ["captions.md"]
    assert not stale.exists()
    assert "Not drawn. Its rows were not run." in paths[0].read_text()
    with pytest.raises(ValueError, match=r"no figure gone: Its rows were not run"):
        plate.draw()


def test_a_plate_of_plain_matplotlib_is_rendered_as_it_is() -> None:
    plate = Plate("a", "A", "Caption.", lambda: Figure(figsize=(2, 1)))
    assert render(plate, "pdf").startswith(b"%PDF")
    assert b"<svg" in render(plate, "svg")


def test_summary_says_the_verdict_and_its_links_are_relative(scores: Scores, tmp_path: Path) -> None:
    output = scores.records.results.parent / "reports" / "summary.md"
    write_summary(scores, output)
    text = output.read_text()
    assert "- **Does it help on unseen domains?** “FLEX-Seg (tuned)” against" in text
    assert "| Source only" in text
    links = dict(re.findall(r"\[([^\]]+)\]\(([^)]+)\)", text))
    assert links["Comparison report"] == "comparison.pdf"
    assert links["Tables as CSV, Markdown and LaTeX"] == "../results/streetworld/tables/"
    assert links["Paired differences to the reference row"] == "figures/differences.png"
    assert str(tmp_path.anchor + "tmp") not in text
    assert "of 15 (5 rows × 3 seeds)" in text
    assert "Not in the numbers:" in text
    assert text.rstrip().splitlines()[-3:] == ["## How to cite", "", escape_markdown(citations(scores))]
