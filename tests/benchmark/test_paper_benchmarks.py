"""The paper's benchmark files: they load, hang together, and stand beside published numbers that somebody read."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from flexseg.analysis.stats.published import FOLDER, load_published
from flexseg.benchmark import Benchmark, SetDomain, Size, load_benchmark
from flexseg.data.sets import load_set
from flexseg.method_files import load_row

ROOT = Path(__file__).parents[2]
NAMES = ("gta5_daformer", "gta5_hrda", "gta5_resnet50", "gta5_resnet101")


@pytest.fixture(scope="module")
def benchmarks() -> dict[str, Benchmark]:
    return {name: load_benchmark(name, ROOT / "benchmarks") for name in NAMES}


def test_they_train_on_gta5_and_test_on_the_five_real_sets(benchmarks: dict[str, Benchmark]) -> None:
    for benchmark in benchmarks.values():
        assert benchmark.world is None
        domains = {name: domain for name, domain in benchmark.domains.items() if isinstance(domain, SetDomain)}
        assert domains.keys() == benchmark.domains.keys()
        assert domains[benchmark.source].dataset == "gta5"
        assert [domains[target].title for target in benchmark.targets] == ["ACDC", "DZ", "CS", "BDD", "MV"]
        assert {average: len(of) for average, of in benchmark.averages.items()} == {"Avg2": 2, "Avg3": 3, "Avg5": 5}
        assert domains["mapillary"].label_map == "mapillary_daformer"
        for domain in domains.values():
            known = load_set(domain.dataset)
            assert {part.split for part in domain.parts.values()} <= known.splits.keys()
            assert domain.label_map in ("", known.label_map, *known.other_label_maps)


def test_every_row_is_a_method_with_known_options(benchmarks: dict[str, Benchmark]) -> None:
    for benchmark in benchmarks.values():
        for name in benchmark.rows:
            row = benchmark.row(name)
            load_row(row, ROOT / "methods")
            benchmark.training_of(name)


def test_protocols_differ_and_sizes_are_those_of_the_papers(benchmarks: dict[str, Benchmark]) -> None:
    ids = {benchmark.protocol.id for benchmark in benchmarks.values()}
    assert ids == {"gta5-daformer-v1", "gta5-hrda-v1", "gta5-resnet-v1", "gta5-resnet101-v1"}
    daformer, hrda, resnet = (benchmarks[name].protocol for name in ("gta5_daformer", "gta5_hrda", "gta5_resnet50"))
    assert [daformer.size_of(target) for target in ("acdc", "dark_zurich")] == [Size(fit=(540, 960))] * 2
    assert {daformer.size_of(target) for target in ("cityscapes", "bdd100k", "mapillary")} == {Size(fit=(512, 1024))}
    assert hrda.size_of("acdc") == Size(fit=(1080, 1920))
    assert hrda.size_of("mapillary") == Size(fit=(1024, 2048))
    assert (hrda.inference, hrda.window, hrda.stride) == ("slide", (1024, 1024), (512, 512))
    assert resnet.inference == "whole"
    assert resnet.size_of("mapillary") == Size(height=1536, crop=(1536, 1536), labels=True)
    assert resnet.size_of("cityscapes") == Size()


def test_recipes_are_those_of_the_papers(benchmarks: dict[str, Benchmark]) -> None:
    daformer, hrda, resnet = (benchmarks[name].training for name in ("gta5_daformer", "gta5_hrda", "gta5_resnet50"))
    assert (daformer.crop, hrda.crop) == ((512, 512), (1024, 1024))
    assert (daformer.resize(1052, 1914), hrda.resize(1052, 1914)) == ((704, 1280), (1407, 2560))
    assert (daformer.learning_rate, daformer.head_learning_rate_factor, daformer.warmup) == (6e-5, 10, 1500)
    subset, rare = daformer.sampling.source, hrda.sampling.source
    assert (subset.kind, subset.images, subset.min_pixels, subset.min_crop_pixels) == ("rare_subset", 6000, 3000, 1500)
    assert (rare.kind, rare.temperature, rare.min_pixels, rare.min_crop_pixels) == ("rare_classes", 0.01, 3000, 6000)
    assert daformer.sampling.generated is hrda.sampling.generated is daformer.mix is hrda.mix is None
    assert resnet.decay_all
    assert (resnet.batch_size, resnet.crop, resnet.optimizer, resnet.momentum) == (16, (768, 768), "sgd", 0.9)
    assert (resnet.learning_rate, resnet.weight_decay, resnet.power, resnet.scale) == (0.01, 5e-4, 0.9, (0.5, 2.0))


@pytest.mark.parametrize(
    ("name", "base", "wanted"),
    [
        ("gta5_hrda", "gta5_daformer", {"model.hrda", "training.resize", "training.crop", "training.sampling"}),
        ("gta5_resnet101", "gta5_resnet50", {"model.backbone", "model.decode_head", "model.weights"}),
    ],
)
def test_a_second_trunk_trains_as_the_first_but_for_what_its_paper_changed(
    benchmarks: dict[str, Benchmark], name: str, base: str, wanted: set[str]
) -> None:
    ours, theirs = benchmarks[name].model_dump(), benchmarks[base].model_dump()
    assert wanted == {
        f"{block}.{key}"
        for block in ("model", "training")
        for key in ours[block].keys() | theirs[block].keys()
        if ours[block].get(key) != theirs[block].get(key)
    }
    assert ours["domains"].keys() == theirs["domains"].keys()
    changed = {row for row in ours["rows"] if ours["rows"][row] != theirs["rows"][row]}
    if name == "gta5_resnet101":
        assert changed == {"shade"}
    else:  # SHADE is a part of that experiment, and a crop has four times the pixels
        on_shade = {row for row in changed if "shade" in (ours["rows"][row]["method"], ours["rows"][row]["base"])}
        assert changed - on_shade == {"one_to_one", "rare_classes"}
        of_factorial = benchmarks[name].studies["factorial"]
        factorial = [benchmarks[name].row(row) for row in of_factorial]
        assert all("shade" in (row.method, row.base) for row in factorial)


def test_studies_ask_what_the_paper_asks(benchmarks: dict[str, Benchmark]) -> None:
    for name in ("gta5_daformer", "gta5_hrda"):
        benchmark = benchmarks[name]
        rows = [benchmark.row(row) for row in benchmark.studies["factorial"]]
        switches = {(row.method, *sorted(row.options)) for row in rows}
        assert len({row.base for row in rows if row.method == "flexseg"}) == 1
        assert len(switches) == len(benchmark.studies["factorial"]) == 8
        volumes = [row for row in benchmark.ablation.dials["volume"].series["Baseline"] if row]
        images = [benchmark.domains[benchmark.generated_of(row)].size("train") for row in volumes]
        assert images[1:] == [2500, 5000, 10000, 15000]
        assert benchmark.row(volumes[0]).method == "source_only"
        assert {benchmark.row(row).options["policy"] for row in benchmark.studies["boundary"][1:5]} == {
            "ignore", "reduce", "clip", "enhance"
        }  # fmt: skip
        schedules = {benchmark.row(row).options.get("has_schedule") for row in benchmark.studies["decay"]}
        assert schedules == {None, "linear", "none"}
        assert benchmark.row("has_iterations").options == {"has_unit": "iteration", "has_midpoint": 50}
        assert benchmark.row("has_iterations_half").options == {"has_unit": "iteration"}
        assert benchmark.domains[benchmark.row("flexseg_aldm").generated].root == "aldm"
        for dial, spec in benchmark.ablation.dials.items():
            assert set(spec.rows) <= set(benchmark.studies[dial])
    assert benchmarks["gta5_hrda"].rows.keys() == benchmarks["gta5_daformer"].rows.keys()


def test_published_rows_are_found_under_their_names_and_trunk(benchmarks: dict[str, Benchmark]) -> None:
    for benchmark in benchmarks.values():
        numbers = [number for name in benchmark.published for number in load_published(name)]
        assert any(number.trunk == benchmark.published_trunk for number in numbers)
        for name in benchmark.rows:
            wanted = benchmark.row(name).published
            assert not wanted or any(number.method == wanted for number in numbers), (benchmark.name, name)
    resnet = benchmarks["gta5_resnet50"]
    assert all(resnet.row(row).published for row in resnet.studies["default"])


READ = {
    ("mrfp_cvpr2024", "Source only", "CS"): 34.66,
    ("mrfp_cvpr2024", "MRFP+", "MV"): 44.93,
    ("mrfp_cvpr2024", "SAN-SAW", "BDD"): 37.34,
    ("hrda_readme", "DAFormer-DG (SHADE, RCS, FD)", "CS"): 52.65,
    ("hrda_readme", "HRDA-DG (SHADE, RCS, FD)", "MV"): 61.16,
    ("hrda_readme", "RobustNet (ISW)", "BDD"): 33.36,
    ("vfmseg_table", "WildNet", "MV"): 47.08,
    ("vfmseg_table", "TLDR", "CS"): 47.58,
    ("flexseg_aaai2026", "FLEX-Seg", "DZ"): 29.51,
    ("spc_cvpr2023", "SPC", "BDD"): 40.46,
    ("spc_cvpr2023", "Source only (RobustNet's)", "MV"): 28.18,
    ("pdaf_iccv2025", "PDAF", "MV"): 49.45,
    ("pdaf_iccv2025", "AdvStyle", "CS"): 39.62,
    ("pdaf_iccv2025", "BlindNet", "BDD"): 41.32,
    ("scsd_readme", "SCSD", "ACDC night"): 15.06,
    ("famix_readme", "FAMix (released model)", "ACDC fog"): 44.30,
    ("tldr_readme", "TLDR (released model)", "CS"): 46.97,
    ("tqdm_eccv2024", "tqdm", "BDD"): 59.18,
    ("tqdm_eccv2024", "Rein", "MV"): 66.10,
    ("mfuser_cvpr2025", "CLOUDS", "MV"): 67.00,
    ("mfuser_cvpr2025", "MFuser", "BDD"): 63.13,
    ("sbgen_neurips2025", "DIDEX", "BDD"): 54.3,
    ("vireo_neurips2025", "Vireo", "CS"): 70.69,
    ("rein_readme", "Rein (released model)", "BDD"): 60.0,
    ("soma_readme", "SoMA", "Avg3"): 68.27,
    ("vltseg_reimplementation", "VLTSeg (re-implemented)", "ACDC"): 62.34,
}
REMEMBERED = {"FSDR", "PASTA", "SW", "ReVT", "IELDG", "MGFC"}
"""Methods of which no number for GTA5 was read in a source; those that are known by heart do not count."""


def test_published_numbers_are_those_that_were_read() -> None:
    for (name, method, target), value in READ.items():
        found = {number.miou for number in load_published(name) if (number.method, number.target) == (method, target)}
        assert value in found, (name, method, target)
    files = sorted(path.stem for path in FOLDER.glob("*.csv"))
    assert set(files) == {name for name, _, _ in READ}
    for name in files:
        with (FOLDER / f"{name}.csv").open(newline="") as file:
            records = list(csv.DictReader(file))
        assert not REMEMBERED & {record["method"] for record in records}
        assert all(record[key].strip() for record in records for key in ("reference", "evidence", "protocol", "trunk"))
        keys = [(record["table"], record["method"], record["trunk"], record["target"]) for record in records]
        assert len(set(keys)) == len(keys), f"{name}: a number stands twice"


def test_the_files_of_a_benchmark_do_not_contradict_each_other(benchmarks: dict[str, Benchmark]) -> None:
    """The tables merge what has one name and trunk, so two files must not give it two numbers."""
    named = {name for benchmark in benchmarks.values() for name in benchmark.published}
    assert named == {path.stem for path in FOLDER.glob("*.csv")}, "every file is taken up by a benchmark"
    for benchmark in benchmarks.values():
        found: dict[tuple[str, str, str, str], float] = {}
        for number in (number for name in benchmark.published for number in load_published(name)):
            key = number.table, number.method, number.trunk, number.target
            assert found.setdefault(key, number.miou) == number.miou, (benchmark.name, key)


def test_a_row_has_only_numbers_of_its_trunk(benchmarks: dict[str, Benchmark]) -> None:
    """SAN-SAW's public code is DeepLabV2-like, so its numbers stand beside none of our DeepLabV3+ rows."""
    for name in ("gta5_resnet50", "gta5_resnet101"):
        benchmark = benchmarks[name]
        numbers = [number for file in benchmark.published for number in load_published(file)]
        trunks = {number.trunk for number in numbers if number.method == "SAN-SAW"}
        assert trunks
        assert all(trunk.startswith("DeepLabV2-like") for trunk in trunks)
        assert benchmark.published_trunk not in trunks


def test_weights_name_the_file_its_checksum_and_its_licence(benchmarks: dict[str, Benchmark]) -> None:
    for benchmark in benchmarks.values():
        weights = benchmark.model["weights"]
        assert Path(weights["file"]).stem.endswith(f"-{weights['sha256']}"), "the file's name carries its digits"
        assert weights["url"].startswith(("https://download.openmmlab.com/", "https://download.pytorch.org/models/"))
        assert weights["url"].endswith(weights["file"])
        assert weights["licence"]
