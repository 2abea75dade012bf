"""What frames and figures show: intervals, rings, agreement of outlines, dials, training, and what methods declare."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from safetensors.numpy import save_file

import flexseg.analysis
from flexseg.analysis import (
    frame_classes,
    frame_contrasts,
    frame_differences,
    frame_factorial,
    frame_means,
    frame_outlines,
    frame_rings,
    frame_scores,
    frame_training,
    load_scores,
    plot_classes,
    plot_conditions,
    plot_dial,
    plot_differences,
    plot_factorial,
    plot_miou,
    plot_outlines,
    plot_rings,
    plot_training,
)
from flexseg.analysis.figures.marks import axis_of, off_scale
from flexseg.analysis.figures.observations import geometry, read_observations
from flexseg.analysis.figures.plates import Plate, ablation_plates
from flexseg.analysis.stats.effects import all_cells
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


def marks(axes: Axes) -> list[PathCollection]:
    """What seaborn drew as dots: first the filled ones, then the hollow ones."""
    return [each for each in axes.collections if isinstance(each, PathCollection)]


def dots(axes: Axes) -> np.ndarray:
    """The (x, y) of all dots on ``axes``, filled and hollow."""
    return np.concatenate([np.asarray(each.get_offsets()) for each in marks(axes)])


def heights(axes: Axes) -> list[float]:
    return sorted(dots(axes)[:, 1].tolist())


def plate(scores: Scores, name: str) -> Plate:
    return next(each for each in ablation_plates(scores) if each.name == name)


def test_the_example_of_the_package_runs(small: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("results", "benchmarks", "methods"):
        (tmp_path / name).symlink_to(small[1].parent / name)
    found = doctest.testmod(flexseg.analysis)
    assert (found.failed, found.attempted > 10) == (0, True)
    assert (tmp_path / "differences.pdf").stat().st_size > 1000


def test_scores_of_a_folder_and_what_is_wrong_with_it(small: Built) -> None:
    home = small[1].parent
    found = load_scores(home / "results/streetworld", benchmarks=home / "benchmarks", rows=ROWS, replicates=20)
    assert list(found.benchmark.rows) == ROWS.split(",")
    with pytest.raises(UserError, match=r"no results folder .*streetwrld.*did you mean 'streetworld'"):
        load_scores(home / "results/streetwrld", benchmarks=home / "benchmarks")
    with pytest.raises(UserError, match="no study is named 'defalt'"):
        load_scores(home / "results/streetworld", benchmarks=home / "benchmarks", study="defalt")


def test_neither_seaborn_nor_pandas_start_with_the_package(root: Path) -> None:
    program = (
        "import sys, flexseg.analysis, flexseg.analysis.stats.progress, flexseg.cli\n"
        "assert not {'seaborn', 'pandas', 'matplotlib', 'torch'} & set(sys.modules)\n"
        "flexseg.analysis.frame_means\nassert 'seaborn' not in sys.modules\n"
        "flexseg.analysis.plot_miou\nassert 'seaborn' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)


def test_frames_have_a_line_per_observation_with_the_numbers_of_the_tables(scores: Scores) -> None:
    seeds = frame_scores(scores).set_index(["row", "target", "seed"])["value"].sort_index()
    means = frame_means(scores).set_index(["row", "target"]).sort_index()
    assert len(seeds) == 4 * 8 * 3
    assert means.loc[("dginstyle", "Avg5"), "value"] == pytest.approx(seeds.loc[("dginstyle", "Avg5")].mean())
    assert means["reference"].groupby("row").first().to_dict()["dginstyle"]
    found = frame_differences(scores, reference="dginstyle_aligned").set_index(["row", "target"])
    expected = scores.against("dginstyle", "dginstyle_aligned")["night"]
    line = found.loc[("dginstyle", "night")]
    assert (line["value"], line["low"], line["shown"]) == (expected.value, expected.low, expected.shown)
    assert "dginstyle_aligned" not in found.index.get_level_values("row")
    training = frame_training(scores, ["flexseg_tuned"])
    assert set(training["quantity"]) >= {"loss", "loss/ce", "has/threshold"}
    assert training.groupby("quantity")["seed"].nunique()["loss"] == 2  # the third is stale


def test_differences_are_filled_where_shown_and_far_rows_are_printed_at_the_edge(small: Built) -> None:
    scores = Scores(load_records(*small), replicates=50)
    frame = frame_differences(scores)
    figure = plot_differences(frame)
    axes, part = figure.axes[-1], frame[frame["target"] == "Avg5"].reset_index(drop=True)
    drawn = part[part["row"] != "source_only"]
    assert sorted(dots(axes)[:, 0]) == pytest.approx(sorted(drawn["value"]))
    filled, hollow = marks(axes)
    assert len(filled.get_offsets()) == drawn["shown"].sum()
    assert np.allclose(hollow.get_facecolor()[:, :3], 1)
    assert any(text.get_text().startswith("◂ −") for text in axes.texts)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(part["title"])


def test_given_axes_take_one_facet(scores: Scores) -> None:
    axes = Figure().subplots()
    frame = frame_means(scores)
    with pytest.raises(ValueError, match=r"ax takes one target, and the frame holds Adverse, .*: filter it"):
        plot_miou(frame, ax=axes)
    assert plot_miou(frame[frame["target"] == "Avg5"], ax=axes) is axes.figure
    assert axes.get_xlabel() == "mIoU (%)"
    rings = frame_rings(scores)
    with pytest.raises(ValueError, match="one target and one measure"):
        plot_rings(rings, ax=axes)
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_rings(rings[:0])
    with pytest.raises(ValueError, match="value must be one of"):
        plot_classes(scores, ax=axes, value="mIoU")


def test_rings_show_the_errors_and_paired_differences_of_the_scores(scores: Scores) -> None:
    figure = plot_rings(scores)
    above, below = figure.axes[0], figure.axes[5]
    names = ["thin-boundary", "medium-boundary", "thick-boundary", "deep-interior"]
    expected = [scores.mean(row, "adverse", f"{name} error").value for row in ("dginstyle", "flexseg_tuned")
                for name in names]  # fmt: skip
    assert heights(above) == pytest.approx(sorted(expected))
    paired = [scores.against("flexseg_tuned", "dginstyle", f"{name} error")["adverse"].value for name in names]
    assert heights(below) == pytest.approx(sorted(paired))
    caption = plate(scores, "boundary_rings").caption
    assert "thin 1 px, medium 2 px, thick 3 px, interior beyond 3 px" in caption


def test_agreement_has_iou_and_f1_at_every_width(scores: Scores) -> None:
    figure = plot_outlines(frame_outlines(scores))
    for line, name in ((0, "IoU"), (2, "F1")):
        expected = [scores.mean(row, "night", f"boundary {name} ({width} px)").value
                    for row in ("dginstyle", "flexseg_tuned") for width in (1, 2, 4)]  # fmt: skip
        assert heights(figure.axes[5 * line + 1]) == pytest.approx(sorted(expected))


def test_heat_maps_hold_every_row_class_and_condition(scores: Scores) -> None:
    for figure, columns in ((plot_classes(scores), 19), (plot_conditions(scores), 10)):
        texts = [text.get_text() for text in figure.axes[0].texts if text.get_text()[:1].isdigit()]
        assert len(texts) == 4 * columns
        below = [text.get_text() for text in figure.axes[1].texts]
        assert below.count("0.0") >= columns, "the reference differs from itself by nothing"


def test_a_cell_without_a_number_has_a_dash(scores: Scores) -> None:
    frame = frame_classes(scores)
    frame.loc[frame["row"] == "dginstyle_aligned", "value"] = np.nan
    assert [text.get_text() for text in plot_classes(frame).axes[0].texts].count("–") == 19


DIAL = Dial(
    title="By strength", x=[0, 1, 2, 3],
    series={
        "Base": ["dginstyle_aligned", "dginstyle", "flexseg_tuned", "flexseg"],
        "Full": ["flexseg_tuned_aligned", "flexseg_tuned", None, None],
    },
)  # fmt: skip


def test_a_dial_has_gaps_where_rows_were_not_run_and_says_how_to_run_them(scores: Scores) -> None:
    dialled = with_dial(scores, DIAL)
    figure = plot_dial(dialled, "strength")
    rows = ("dginstyle_aligned", "dginstyle", "flexseg_tuned", "flexseg_tuned_aligned", "flexseg_tuned")
    assert heights(figure.axes[2]) == pytest.approx(sorted(scores.mean(row, "Avg5").value for row in rows))
    paired = [
        scores.against("flexseg_tuned_aligned", "dginstyle_aligned"),
        scores.against("flexseg_tuned", "dginstyle"),
    ]
    assert heights(figure.axes[5]) == pytest.approx(sorted(each["Avg5"].value for each in paired))
    assert [label.get_text() for label in figure.axes[3].get_xticklabels()] == ["0", "1", "2", "3"]
    assert "Gaps: flexseg not run or not finished (--config study=strength)" in plate(dialled, "dial_strength").caption
    with pytest.raises(UserError, match=r"no dial 'strenth' .did you mean 'strength'"):
        plot_dial(dialled, "strenth")


def test_a_series_that_was_not_run_at_all_is_not_in_the_legend(scores: Scores) -> None:
    dial = DIAL.model_copy(update={"series": DIAL.series | {"Absent": ["tuned_gap", "tuned_ube", None, "tuned_has"]}})
    (legend,) = plot_dial(with_dial(scores, dial), "strength").legends
    assert [text.get_text() for text in legend.get_texts()] == ["Base", "Full"]


def test_a_dial_of_two_values_is_not_drawn(scores: Scores) -> None:
    dial = Dial(title="By name", x=["a", "b"], series={"Base": ["dginstyle", "flexseg"]})
    found = plate(with_dial(scores, dial), "dial_strength")
    assert found.empty == "Fewer than 3 of its values were run: --config study=strength"


def test_dial_axes() -> None:
    assert axis_of([0, 0.5, 2])[1:] == (["0", "0.5", "2"], False)
    assert axis_of([100, 400, 1600])[1:] == (["100", "400", "1600"], True)
    places, ticks, log = axis_of(["sigmoid", "linear", 3])
    assert (list(places.values()), ticks, log) == ([0, 1, 2], ["sigmoid", "linear", "3"], False)


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
    with pytest.raises(UserError, match="a dial has the name of the study that runs its rows"):
        load_benchmark("streetworld", path.parent)


def test_a_complete_factorial_gets_its_effects(builder) -> None:
    rows = {"dginstyle": {"method": "dginstyle"}, "full": {"method": "flexseg", "title": "Full"}}
    for cell in all_cells(3)[1:-1]:
        off = {name: False for name, on in zip(("gap", "ube", "has"), cell, strict=True) if not on}
        rows["no_" + "_".join(off)] = {"extends": "full", **off}
    ablation = {"components": {"GAP": "gap", "UBE": "ube", "HAS": "has"}, "full": ["full"], "none": "dginstyle",
                "panels": ["dginstyle", "full"]}  # fmt: skip
    benchmark, results = builder(list(rows), [0, 1], 4, incidents=False, rows=rows, ablation=ablation,
                                 studies={"default": list(rows)}, tuning=None)  # fmt: skip
    scores = Scores(load_records(benchmark, results), replicates=20)
    effects = list(frame_factorial(scores, "full")["title"].unique())
    assert effects[::3] == ["GAP", "GAP × UBE", "GAP × UBE × HAS"]
    axes = plot_factorial(scores).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == effects
    fewer = benchmark.model_copy(update={"rows": {n: row for n, row in benchmark.rows.items() if n != "no_gap"}})
    without = plate(Scores(load_records(fewer, results), replicates=20), "factorial_full")
    assert without.empty == "The factorial is not complete. Not run"  # the benchmark has no study for it


def test_contrasts_say_what_is_compared(scores: Scores) -> None:
    titles = frame_contrasts(scores)["title"].unique().tolist()
    assert "FLEX-Seg (tuned) − baseline" in titles
    assert "cost of misalignment for FLEX-Seg (tuned)" in titles
    assert not any("this row" in title for title in titles)


def test_only_what_dwarfs_the_others_is_off_scale() -> None:
    assert off_scale([-7.6, 0.3, 1.2, 2.0]) == [True, False, False, False]
    assert off_scale([-7.6, 9.0, 1.2, 2.0, 0.1, np.nan]) == [True, True, False, False, False, False]
    assert off_scale([-3.0, 0.3, 1.2, 2.0]) == [False] * 4
    assert off_scale([5.0]) == [False]


def test_geometry_orders_by_class_leaves_out_the_unseen_and_projects_onto_most_variance() -> None:
    vectors = np.zeros((2, 3, 3), np.float32)
    vectors[:, 0] = [[1, 0, 0], [0.8, 0.6, 0]]
    vectors[:, 1] = [[0, 0, 1], [0, 0, 1]]
    counts = np.array([[5, 1, 0], [1, 0, 0]])  # class 1 has only its first group, class 2 nothing
    shape = geometry(vectors, counts)
    assert shape is not None
    assert shape.classes.tolist() == [0, 0, 1]
    assert shape.groups.tolist() == [0, 1, 0]
    assert shape.within == pytest.approx(0.8)
    assert shape.between == pytest.approx(0.0)
    assert np.allclose(np.diag(shape.similarity), 1)
    assert sum(shape.explained) == pytest.approx(1.0)
    distances = np.linalg.norm(shape.plane[:, None] - shape.plane, axis=-1)  # three points lie in one plane
    assert distances[0, 1] == pytest.approx(np.sqrt(0.4))
    assert distances[0, 2] == pytest.approx(np.sqrt(2))
    assert geometry(vectors, np.eye(2, 3)) is None


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


def test_what_methods_declare_is_drawn_as_far_as_it_was_observed(builder) -> None:
    benchmark, results = builder(["dginstyle", "flexseg", "flexseg_tuned"], [0, 1], 4, incidents=False)
    home = results / benchmark.name
    pictures = ("image", "label", "prediction", "entropy")
    for iteration in (240, 960):
        observe(home / "flexseg" / "seed-1", iteration, (*pictures, "weight", "prototypes", "updates"))
        observe(home / "flexseg_tuned" / "seed-0", iteration, pictures)
    (home / "flexseg" / "seed-1" / "observations" / "000480.safetensors").write_bytes(b"damaged")
    assert list(read_observations(home / "flexseg" / "seed-1")) == [240, 960]
    scores = Scores(load_records(benchmark, results), replicates=20)
    plates = {each.name: each for each in ablation_plates(scores)}
    assert not [name for name in plates if name.endswith("_dginstyle")], "it declares nothing"
    assert "At iteration 960, seed 1: 57 of 57 were ever updated" in plates["prototypes_flexseg"].caption
    assert plates["prototypes_flexseg_tuned"].empty.endswith("no finished run left prototypes to look at.")
    whole, part = (plates[f"uncertainty_{row}_1"].draw() for row in ("flexseg", "flexseg_tuned"))
    # two images, a line each for prediction and entropy; for the weight only where it was observed
    assert [len(each.axes[0].get_yticks()) for each in (whole, part)] == [2 * 3, 2 * 2]
    assert [axes.get_ylabel() for axes in whole.axes[1:]] == ["entropy (nats)", "weight"]
    top = whole.axes[1].get_ylim()[1]
    assert top == pytest.approx(float(np.float16(0.999) * 4), rel=0.1), "one scale for all moments"
    titles = [axes.get_title() for axes in plates["has"].draw().axes]
    assert titles == ["threshold", "effective sample size", "share of generated\ndata"]


def test_rows_keep_their_colours_when_others_are_left_out(scores: Scores) -> None:
    frame = frame_training(scores, ["dginstyle", "flexseg_tuned"])
    both = plot_training(frame, {"loss": "loss"}).axes[0].lines
    alone = plot_training(frame[frame["row"] == "flexseg_tuned"], {"loss": "loss"}).axes[0].lines
    assert both[1].get_color() == alone[0].get_color()
    with pytest.raises(ValueError, match="none of the quantities"):
        plot_training(frame, {"los": "loss"})
