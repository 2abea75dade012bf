"""Products of a benchmark on data sets: published numbers of the same data, sizes, label maps, classes, pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from PIL import Image

from flexseg.analysis import write_report, write_tables
from flexseg.analysis.figures.panels import MOST_WIDTH, draw_grid, palette, read_picture, shown_images
from flexseg.analysis.stats.domains import inference_text, label_maps_text, sizes_text, train_images, training_text
from flexseg.analysis.stats.formats import to_markdown
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.content import provenance
from flexseg.analysis.tables.published import published_table
from flexseg.analysis.tables.write import comparison_table, factorial_table, per_class_table
from flexseg.analysis.web.payload import payload
from flexseg.analysis.web.text import methods_text
from flexseg.benchmark import Benchmark, load_benchmark, select_rows
from flexseg.classes import CITYSCAPES, CLASSES
from flexseg.errors import UserError

ROOT = Path(__file__).parents[2]
ROWS = "dginstyle,flexseg,has_linear,has_iterations,shade"
Made = tuple[Benchmark, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, run_writer: Callable[..., None]) -> Made:
    """The paper's benchmark with two seeds of synthetic records on 4 images a target, one of them shown."""
    top = tmp_path_factory.mktemp("sets")
    methods = top / "methods"
    methods.mkdir()
    benchmark = select_rows(load_benchmark("gta5_daformer", ROOT / "benchmarks"), rows=ROWS, seeds="0,1").with_methods(
        methods
    )
    for row in benchmark.rows:
        (methods / f"{benchmark.row(row).method}.py").write_text(f'"""{row}"""\n')
    results = top / "results"
    for row in benchmark.rows:
        for seed in benchmark.seeds:
            run = results / benchmark.name / row / f"seed-{seed}"
            run_writer(benchmark, row, seed, run, 4)
            for target in benchmark.targets:
                write_picture(run / "predictions" / target / f"{target}_0000.png", (6, 12), row == "flexseg")
    for target in benchmark.targets:
        write_index(results / benchmark.name / "data" / target, [f"{target}_{i:04d}" for i in range(4)], "test")
    write_index(results / benchmark.name / "data" / "gta5", ["00001", "00002", "00003"], "train")
    for target, size in {"mapillary": (8, 6), "acdc": (6, 12)}.items():
        shown = results / benchmark.name / "data" / target / "shown"
        shown.mkdir()
        Image.new("RGB", size[::-1], (10, 20, 30)).save(shown / f"{target}_0000.png")
        write_picture(shown / f"{target}_0000.label.png", size, 1)
    return benchmark, results


def write_picture(path: Path, size: tuple[int, int], value: int) -> None:
    """A label map of one train id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


def write_index(folder: Path, ids: list[str], split: str) -> None:
    """An index of images that lie elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": i, "image": f"gone/{i}.jpg", "label": f"gone/{i}.png", "split": split, "condition": "fog"} for i in ids
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "index.parquet")


def test_published_numbers_of_the_same_data_stand_beside_target_by_target(made: Made) -> None:
    table = comparison_table(Scores(load_records(*made), replicates=20))
    published = [place for place, column in enumerate(table.columns) if column.group == "published"]
    titles = [table.columns[place].title for place in published]
    assert titles == ["ACDC", "DZ", "CS", "BDD", "MV", "Avg2", "Avg3", "Avg5"]
    beside = {row.cells[0].text: [row.cells[place].text for place in published] for row in table.rows}
    assert beside["DGInStyle data (baseline)"] == [
        "44.04",
        "25.58",
        "55.31",
        "50.82",
        "56.62",
        "34.81",
        "54.25",
        "46.47",
    ]
    assert beside["FLEX-Seg"][0] == "46.56"
    assert beside["FLEX-Seg (HAS decays linearly)"] == [*["–"] * 5, "36.28", "–", "–"]
    assert set(beside["FLEX-Seg (t of HAS in iterations, m = 50)"]) == {"–"}, "another setting than the published one"
    assert beside["SHADE, GTA5 alone"][2:5] == ["52.65", "47.89", "54.66"]
    assert "on other data" not in to_markdown(table)


def test_published_beside_measured_names_trunk_and_source(made: Made) -> None:
    scores = Scores(load_records(*made), replicates=20)
    text = to_markdown(published_table(scores))
    assert "HRDA-DG (SHADE, RCS, FD) (HRDA, MiT-B5)" in text
    assert "2304.13615" in text
    assert text.count("2511.22948") == 1, "each paper once, with all that is said of its numbers"
    assert text.count("FLEXSeg_project") == text.count("mean of the three targets") == 1


def test_words_on_sizes_windows_label_maps_and_images(made: Made) -> None:
    scores = Scores(load_records(*made), replicates=20)
    assert sizes_text(scores) == "ACDC, DZ to fit 540 × 960 px; CS, BDD, MV to fit 512 × 1024 px"
    assert inference_text(scores) == "windows of 512 × 512 px, stride 256 × 256"
    assert "ACDC, DZ, BDD train_ids" in label_maps_text(scores)
    assert "MV mapillary_daformer" in label_maps_text(scores)
    assert train_images(scores, "gta5") == 3, "counted in the index, as the file says `all`"
    expected = "GTA5 (3 images, split all) and DGInStyle images (10000 images, split all, drawn by the run's seed)"
    assert training_text(scores) == expected
    data, training, *_ = methods_text(scores)
    assert "ACDC (4 images)" in data
    assert "from the ImageNet weights mit_b5_20220624-658746d9.pth" in training
    assert "source images by uniform draws from 6000 that rare class sampling chose (T = 0.01)" in training


def test_a_benchmark_without_a_factorial_study_names_none(made: Made) -> None:
    benchmark, results = made
    bare = benchmark.model_copy(update={"studies": {"default": list(benchmark.rows)}})
    assert "study=" not in to_markdown(factorial_table(Scores(load_records(bare, results), replicates=20)))


def test_all_products_are_written_and_pictures_keep_their_ratio(made: Made, tmp_path: Path) -> None:
    benchmark, results = made
    assert all(path.is_file() for path in write_tables(benchmark, results))
    for kind, name in (("comparison", "a.pdf"), ("ablation", "b.pdf"), ("page", "c.html"), ("summary", "d.md")):
        write_report(benchmark, kind, results, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    assert "gta5-daformer-v1" in (tmp_path / "d.md").read_text()
    data = results / benchmark.name / "data"
    (shown,) = shown_images(data / "mapillary").values()
    assert shown.image.is_file()
    assert shown.condition == "fog"
    assert len(shown_images(data / "cityscapes")) == 4, "nothing was copied: the index's own paths"


def test_pictures_of_a_grid_stand_whole_in_the_middle_of_their_boxes() -> None:
    tall, wide = np.full((100, 75, 3), 9, np.uint8), np.full((50, 200, 3), 9, np.uint8)
    axes = Figure().subplots()
    draw_grid(axes, [[tall, wide, None]], ["a", "b", "c"], ["row"], ratio=2.0)
    sheet = np.asarray(axes.images[0].get_array())
    covered = [np.argwhere(sheet[:, left : left + 200, 3] > 0) for left in (0, 204, 408)]
    assert sheet.shape == (100, 3 * 200 + 2 * 4, 4)
    assert (covered[0].min(0).tolist(), covered[0].max(0).tolist()) == ([0, 62], [99, 136])
    assert (covered[1].min(0).tolist(), covered[1].max(0).tolist()) == ([25, 0], [74, 199])
    assert len(covered[2]) == 0
    assert [text.get_text() for text in axes.texts] == ["not available"]


def test_classes_are_those_of_the_class_set(made: Made) -> None:
    benchmark, results = made
    protocol = benchmark.protocol.model_copy(update={"classes": "camvid11"})
    scores = Scores(load_records(benchmark.model_copy(update={"protocol": protocol}), results), replicates=20)
    table = per_class_table(scores)
    assert [column.title for column in table.columns][1:4] == ["road", "pavement", "building"]
    assert len(table.columns) == 12
    whole = scores.class_average("dginstyle")
    assert table.rows[0].cells[4].text == f"{whole[4]:.1f}", "fence, train id 4, is the fourth class"
    classes = payload(scores)["classes"]
    assert [classes[place]["name"] for place in (2, 3)] == ["building", "building"]
    assert [each["shown"] for each in classes].count(True) == 11


def test_records_of_two_label_maps_share_no_table(made: Made, tmp_path: Path) -> None:
    benchmark, results = made
    path = results / benchmark.name / "flexseg" / "seed-0" / "evaluation" / "mapillary.parquet"
    table = pq.read_table(path)
    try:
        changed = table.replace_schema_metadata({**table.schema.metadata, b"target_label_map": b"mapillary_openseg"})
        pq.write_table(changed, path)
        with pytest.raises(UserError, match="label map"):
            load_records(benchmark, results)
    finally:
        pq.write_table(table, path)


def test_runs_of_another_benchmark_are_read_where_each_part_lies(made: Made, tmp_path: Path) -> None:
    benchmark, results = made
    other = benchmark.model_copy(update={"name": "elsewhere", "runs": benchmark.name})
    run = load_records(other, results).runs["flexseg", 0]
    assert run.status == "finished"
    assert set(run.absent.values()) == {"not evaluated"}
    assert run.folder == results / "gta5_daformer" / "flexseg" / "seed-0"
    assert run.evaluated == results / "elsewhere" / "flexseg" / "seed-0"


def test_pictures_of_many_megapixels_are_narrowed_for_the_reports(tmp_path: Path) -> None:
    wide = np.zeros((60, 2 * MOST_WIDTH), np.uint8)
    wide[:, MOST_WIDTH:] = 10
    Image.fromarray(wide).save(tmp_path / "wide.png")
    found, colours = read_picture(tmp_path / "wide.png", palette(CITYSCAPES)), [each.colour for each in CLASSES]
    assert found is not None
    assert found.shape == (30, MOST_WIDTH, 3)
    assert {tuple(colour) for colour in found.reshape(-1, 3).tolist()} == {colours[0], colours[10]}, "no mixture"
    Image.fromarray(wide[:, :80]).convert("RGB").save(tmp_path / "narrow.png")
    narrow = read_picture(tmp_path / "narrow.png")
    assert narrow is not None
    assert narrow.shape == (60, 80, 3)


def test_what_is_not_used_of_the_data_is_said(made: Made) -> None:
    benchmark, results = made
    scores = Scores(load_records(benchmark, results))
    assert "Data" not in dict(provenance(scores))
    path = results / benchmark.name / "data" / "mapillary" / "index.parquet"
    content, table, note = path.read_bytes(), pq.read_table(path), "Mapillary, val: 1 image has no label"
    pq.write_table(table.replace_schema_metadata({"notes": json.dumps([note])}), path)
    assert dict(provenance(scores))["Data"] == note
    path.write_bytes(content)
