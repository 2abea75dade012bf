"""What the figures show: rings, agreement of outlines, dials, prototypes and moments of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from flexseg.analysis.figures.boundary import agreement_figure, ring_figure
from flexseg.analysis.figures.canvas import Canvas, Page, Sheet
from flexseg.analysis.figures.observations import geometry, prototype_figure, read_observations, uncertainty_figure
from flexseg.analysis.figures.studies import axis_of, dial_figure
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.benchmark import Benchmark, load_benchmark, select_rows
from flexseg.benchmark.ablation import Dial
from flexseg.errors import UserError

Built = tuple[Benchmark, Path]
ROWS = "dginstyle,flexseg_tuned,dginstyle_aligned,flexseg_tuned_aligned"


@pytest.fixture(scope="module")
def scores(small: Built) -> Scores:
    benchmark, results = small
    return Scores(load_records(select_rows(benchmark, rows=ROWS), results), replicates=50)


def with_dial(scores: Scores, dial: Dial) -> Scores:
    """The same records with one dial, ``strength``."""
    ablation = scores.benchmark.ablation.model_copy(update={"dials": {"strength": dial}})
    benchmark = scores.benchmark.model_copy(update={"ablation": ablation})
    return Scores(scores.records.__class__(benchmark, scores.records.results, scores.records.runs), 50)


def drawn(axis) -> list[float]:
    """The y values of all marks on ``axis``, without caps, bars and the zero line."""
    return [float(y) for line in axis.lines if line.get_marker() in "osD" for y in line.get_ydata()]


def test_rings_show_the_errors_and_paired_differences_of_the_scores(scores: Scores) -> None:
    page = Page("", "", 1)
    ring_figure(page, scores)
    above, below = page.figure.axes[0], page.figure.axes[5]
    names = ["thin-boundary", "medium-boundary", "thick-boundary", "deep-interior"]
    expected = [scores.mean(row, "adverse", f"{name} error").value for row in ("dginstyle", "flexseg_tuned")
                for name in names]  # fmt: skip
    assert drawn(above) == pytest.approx(expected)
    paired = [scores.against("flexseg_tuned", "dginstyle", f"{name} error")["adverse"].value for name in names]
    assert drawn(below) == pytest.approx(paired)
    assert "thin 1 px, medium 2 px, thick 3 px, interior beyond 3 px" in page.legend_text


def test_agreement_has_iou_and_f1_at_every_width(scores: Scores) -> None:
    page = Page("", "", 1)
    agreement_figure(page, scores)
    for line, name in ((0, "IoU"), (2, "F1")):
        expected = [scores.mean(row, "night", f"boundary {name} ({width} px)").value
                    for row in ("dginstyle", "flexseg_tuned") for width in (1, 2, 4)]  # fmt: skip
        assert drawn(page.figure.axes[5 * line + 1]) == pytest.approx(expected)


DIAL = Dial(
    title="By strength", x=[0, 1, 2, 3],
    series={
        "Base": ["dginstyle_aligned", "dginstyle", "flexseg_tuned", "flexseg"],
        "Full": ["flexseg_tuned_aligned", "flexseg_tuned", None, None],
    },
)  # fmt: skip


def test_a_dial_has_gaps_where_rows_were_not_run_and_says_how_to_run_them(scores: Scores) -> None:
    page = Page("", "", 1)
    dialled = with_dial(scores, DIAL)
    dial_figure(page, dialled, "strength")
    values = np.array(drawn(page.figure.axes[2]))  # Avg5: two series of four
    expected = [scores.mean(row, "Avg5").value for row in ("dginstyle_aligned", "dginstyle", "flexseg_tuned")]
    assert values[:3] == pytest.approx(expected)
    assert np.isnan(values[[3, 6, 7]]).all()
    paired = [
        scores.against("flexseg_tuned_aligned", "dginstyle_aligned"),
        scores.against("flexseg_tuned", "dginstyle"),
    ]
    assert drawn(page.figure.axes[5]) == pytest.approx([each["Avg5"].value for each in paired])
    assert "Gaps: flexseg not run or not finished (--config study=strength)" in page.legend_text


def test_a_series_that_was_not_run_at_all_is_not_in_the_legend(scores: Scores) -> None:
    page = Page("", "", 1)
    dial = DIAL.model_copy(update={"series": DIAL.series | {"Absent": ["tuned_gap", "tuned_ube", None, "tuned_has"]}})
    dial_figure(page, with_dial(scores, dial), "strength")
    (legend,) = page.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Base", "Full"]


def test_a_dial_of_two_values_is_not_drawn(scores: Scores) -> None:
    page = Page("", "", 1)
    dial = Dial(title="By name", x=["a", "b"], series={"Base": ["dginstyle", "flexseg"]})
    dial_figure(page, with_dial(scores, dial), "strength")
    assert page.empty == "Fewer than 3 of its values were run: --config study=strength"


def test_dial_axes() -> None:
    def dial(*values: float | str) -> Dial:
        return Dial(title="", x=list(values), series={"a": [None] * len(values)})

    assert axis_of(dial(0, 0.5, 2))[1:] == (["0", "0.5", "2"], False)
    assert axis_of(dial(100, 400, 1600))[1:] == (["100", "400", "1600"], True)
    places, ticks, log = axis_of(dial("sigmoid", "linear", 3))
    assert (places.tolist(), ticks, log) == ([0, 1, 2], ["sigmoid", "linear", "3"], False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [0, 1, 2]}, "series.Base: 2 rows for 3 values of x"),
        ({"x": [1, 1]}, "x: a value is named twice"),
        ({"series": {"Base": ["dginstyle", "flexseg_tund"]}}, "no row is named 'flexseg_tund'"),
        ({"titel": "x"}, "unknown key"),
    ],
)
def test_a_wrong_dial_is_one_clear_error(builder, change: dict, message: str) -> None:
    _, results = builder(["dginstyle", "flexseg"], [0], 4, incidents=False)
    path = results.parent / "benchmarks" / "streetworld.yaml"
    content = yaml.safe_load(path.read_text())
    dial = {"title": "T", "x": [0, 1], "series": {"Base": ["dginstyle", "flexseg"]}}
    content["ablation"]["dials"] = {"default": dial | change}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message):
        load_benchmark("streetworld", path.parent)
    content["ablation"]["dials"] = {"strenght": dial}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="a dial is named as the study that runs its rows"):
        load_benchmark("streetworld", path.parent)


def test_geometry_orders_by_class_leaves_out_the_unseen_and_projects_onto_most_variance() -> None:
    prototypes = np.zeros((2, 3, 3), np.float32)
    prototypes[:, 0] = [[1, 0, 0], [0.8, 0.6, 0]]
    prototypes[:, 1] = [[0, 0, 1], [0, 0, 1]]
    updates = np.array([[5, 1, 0], [1, 0, 0]])  # class 1 has only its thinnest, class 2 nothing
    shape = geometry(prototypes, updates)
    assert shape is not None
    assert shape.classes.tolist() == [0, 0, 1]
    assert shape.granularities.tolist() == [0, 1, 0]
    assert shape.within == pytest.approx(0.8)
    assert shape.between == pytest.approx(0.0)
    assert np.allclose(np.diag(shape.similarity), 1)
    assert sum(shape.explained) == pytest.approx(1.0)
    distances = np.linalg.norm(shape.plane[:, None] - shape.plane, axis=-1)  # three points lie in one plane
    assert distances[0, 1] == pytest.approx(np.sqrt(0.4))
    assert distances[0, 2] == pytest.approx(np.sqrt(2))
    assert geometry(prototypes, np.eye(2, 3)) is None


def observe(folder: Path, iteration: int, parts: tuple[str, ...]) -> None:
    """Synthetic observations of two images with the arrays named in ``parts``."""
    rng = np.random.default_rng(iteration)
    label = rng.integers(0, 19, (2, 8, 16)).astype(np.uint8)
    unit = rng.normal(size=(3, 19, 8)).astype(np.float32)
    arrays = {
        "image": rng.integers(0, 255, (2, 8, 16, 3)).astype(np.uint8), "label": label, "prediction": label,
        "entropy": rng.random((2, 8, 16)).astype(np.float16) * 960 / iteration,
        "weight": rng.random((2, 8, 16)).astype(np.float16),
        "prototypes": unit / np.linalg.norm(unit, axis=-1, keepdims=True), "updates": np.ones((3, 19), np.int64),
    }  # fmt: skip
    (folder / "observations").mkdir(exist_ok=True)
    kept = {name: array for name, array in arrays.items() if name in parts}
    save_file(kept, folder / "observations" / f"{iteration:06d}.safetensors")


def test_observations_are_drawn_as_far_as_there_are_any(builder) -> None:
    benchmark, results = builder(["dginstyle", "flexseg", "flexseg_tuned"], [0, 1], 4, incidents=False)
    home = results / benchmark.name
    pictures = ("image", "label", "prediction", "entropy")
    for iteration in (240, 960):
        observe(home / "flexseg" / "seed-1", iteration, (*pictures, "weight", "prototypes", "updates"))
        observe(home / "flexseg_tuned" / "seed-0", iteration, pictures)
    (home / "flexseg" / "seed-1" / "observations" / "000480.safetensors").write_bytes(b"damaged")
    assert list(read_observations(home / "flexseg" / "seed-1")) == [240, 960]
    scores = Scores(load_records(benchmark, results), replicates=20)

    def page(draw, row: str, canvas: type[Canvas] = Page) -> Canvas:
        made = Page("", "", 1) if canvas is Page else Sheet(504, 0.6)
        draw(made, scores, row)
        return made

    assert "at iteration 960, seed 1: 57 of 57 were ever updated" in page(prototype_figure, "flexseg").legend_text
    assert page(prototype_figure, "flexseg_tuned").empty.endswith("no finished run left prototypes to look at.")
    assert page(uncertainty_figure, "dginstyle").empty.endswith(
        "no finished run left predictions and entropies to look at."
    )
    whole, part = page(uncertainty_figure, "flexseg"), page(uncertainty_figure, "flexseg_tuned", Sheet)
    # two images, each with truth, two moments of prediction and entropy; the weight only where it was kept
    assert [len(each.figure.axes[0].images) for each in (whole, part)] == [2 * (2 + 2 * 3), 2 * (2 + 2 * 2)]
    scale = whole.figure.axes[1].get_ylim()
    assert scale == pytest.approx((0, float(np.float16(0.999) * 4)), rel=0.1), "one scale for all moments"
