"""Damaged results: the run is shown as unreadable with the reason, and everything else is reported as without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flexseg.analysis import KINDS, write_report, write_tables
from flexseg.analysis.stats.compare import compare
from flexseg.analysis.stats.progress import standings
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.web.payload import payload
from flexseg.benchmark import Benchmark

Built = tuple[Benchmark, Path]
Damage = Callable[[Path], None]
ROWS = ["dginstyle", "flexseg", "flexseg_no_gap"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, build_results: Callable[..., Built]) -> Built:
    """Three rows × two seeds, all well."""
    return build_results(tmp_path_factory.mktemp("whole"), ROWS, [0, 1], 3, incidents=False, predictions=1)


@pytest.fixture(scope="module")
def copied(whole: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(whole[1], tmp_path_factory.mktemp("copied") / "results"))


@pytest.fixture
def results(whole: Built, copied: Path) -> Iterator[Path]:
    """A copy of the results, to be damaged; the damage is undone afterwards."""
    yield copied
    for row in ROWS:
        folder = copied / whole[0].name / row
        shutil.rmtree(folder)
        shutil.copytree(whole[1] / whole[0].name / row, folder)


def content(name: str, text: bytes) -> Damage:
    return lambda folder: _write(folder / name, text)


def _write(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)


def change(**values: Any) -> Damage:
    """Change values of ``run.json``; one that is a function is called with the value."""

    def damage(folder: Path) -> None:
        path = folder / "run.json"
        info = json.loads(path.read_text())
        for key, value in values.items():
            info[key] = value(info.get(key)) if callable(value) else value
        path.write_text(json.dumps(info))

    return damage


def without(key: str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "run.json"
        info = json.loads(path.read_text())
        del info[key]
        path.write_text(json.dumps(info))

    return damage


def raw(key: str, text: str) -> Damage:
    """Put a text that is no JSON value of ours in the place of a value."""

    def damage(folder: Path) -> None:
        path = folder / "run.json"
        info = json.loads(path.read_text()) | {key: "@"}
        path.write_text(json.dumps(info).replace('"@"', text))

    return damage


def replaced_by_folder(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir(parents=True)

    return damage


def table(edit: Callable[[pa.Table], pa.Table]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "evaluation" / "night.parquet"
        pq.write_table(edit(pq.read_table(path)), path)

    return damage


def records(edit: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "evaluation" / "night.parquet"
        path.write_bytes(edit(path.read_bytes()))

    return damage


def picture(edit: Callable[[Path], None]) -> Damage:
    return lambda folder: edit(next((folder / "predictions" / "night").iterdir()))


def column(name: str, values: Any) -> Damage:
    return table(lambda found: found.set_column(found.schema.get_field_index(name), name, values(found[name])))


def lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


NUMBERS = ("train_seconds", "train_cpu_seconds", "images_per_second", "peak_memory_bytes", "parameters", "step_flops")
NUMBERS += ("inference_flops", "inference_seconds", "trained_parameters")
ODD = ([], "text", None, 7, {"a": [1]}, [{"a": 1}])
RECORD: dict[str, Damage] = {
    "run.json list": content("run.json", b"[]"),
    "run.json text": content("run.json", b'"finished"'),
    "run.json null": content("run.json", b"null"),
    "run.json number": content("run.json", b"7"),
    "run.json empty": content("run.json", b""),
    "run.json truncated": lambda folder: _write(folder / "run.json", (folder / "run.json").read_bytes()[:90]),
    "run.json deep": content("run.json", b"[" * 100_000),
    "run.json deep value": raw("options", "[" * 50_000 + "]" * 50_000),
    "run.json not utf-8": content("run.json", b"\xff\xfe{}"),
    "run.json folder": replaced_by_folder("run.json"),
    "run.json bare": content("run.json", b"{}"),
    "run.json zeros": lambda folder: _write(folder / "run.json", bytes(500)),
    "status": change(status=["finished"]),
    "unknown status": change(status="perhaps"),
    "definition gone": without("definition"),
    "fingerprint gone": without("fingerprint"),
    "fingerprint number": change(fingerprint=5),
    "options list": change(options=[1]),
    "options of numbers": change(options={"gap": 1}),
    "option help": change(options={"gap": {"value": 1, "help": ["x"]}}),
    "shows text": change(shows="all"),
    "shows numbers": change(shows=[1, 2]),
    "git": change(git="main"),
    "git commit": change(git={"commit": 5, "dirty": "perhaps"}),
    "versions": change(versions=["torch"]),
    "versions numbers": change(versions={"torch": 2.9}),
    "machine": change(machine="laptop"),
    "cores": change(machine={"cores": -2, "processor": ["x"]}),
    "device": change(device=5),
    "started": change(started="yesterday"),
    "finished": change(finished=[1]),
    "library": change(library=5),
    "library files": change(library_files="all"),
    "library file numbers": change(library_files=[1]),
    "data": change(data=[1]),
    **{f"{key} NaN": raw(key, "NaN") for key in NUMBERS},
    **{f"{key} infinite": raw(key, "-Infinity") for key in NUMBERS},
    **{f"{key} huge": raw(key, "1e400") for key in NUMBERS},
    **{f"{key} digits": raw(key, "9" * 400) for key in NUMBERS},
    **{f"{key} text": change(**{key: "many"}) for key in NUMBERS},
    **{f"{key} negative": change(**{key: -3}) for key in NUMBERS},
    **{f"{key} true": change(**{key: True}) for key in NUMBERS[:1]},
}
"""Damages of ``run.json`` after which the run must be named as one that cannot be used."""
HARMLESS: dict[str, Damage] = {
    **{f"no {key}": without(key) for key in (*NUMBERS, "options", "shows", "git", "versions", "machine", "device")},
    **{f"no {key}": without(key) for key in ("started", "finished", "library", "data")},
    "odd values": change(options=lambda known: known | {"rings": {"value": {"a": [None]}, "help": None}}),
    "shows that are none": change(shows=[{}, {"kind": "curves"}, {"kind": "maps", "name": "../x", "heading": 1}]),
    "config.json list": content("config.json", b"[]"),
    "failure.json list": content("failure.json", b"[]"),
    "failure.json of a finished run": content("failure.json", b'{"status": "failed", "reason": ["x"]}'),
    **{f"log {n}": content("train.jsonl", text) for n, text in enumerate((
        b"", b"\0" * 300, b"\xff\xfe", b"[1]\nnull\n7\n", b'{"iteration": "x", "loss": 1}\n', b"[" * 100_000,
        b'{"iteration": 1e400, "loss": 1}\n', b'{"iteration": 5, "loss": NaN}\n', b'{"iteration": 5, "loss": "x"}\n',
        b'{"iteration": ' + b"9" * 300 + b', "loss": ' + b"9" * 300 + b"}\n", b'{"iteration": -5, "loss": 1e308}\n',
        b'{"iteration": 3, "loss": ' + b"9" * 5000 + b"}\n", b'{"gap": 17}     \n{"iteration": 3, "loss": 1}\n',
    ))},
    "log folder": replaced_by_folder("train.jsonl"),
    "picture text": picture(lambda path: _write(path, b"no picture")),
    "picture empty": picture(lambda path: _write(path, b"")),
    "picture EPS": picture(lambda path: _write(path, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")),
    "picture small": picture(lambda path: Image.new("L", (3, 2)).save(path)),
    "picture RGB": picture(lambda path: Image.new("RGB", (9, 9)).save(path)),
    "picture ids": picture(lambda path: Image.new("L", (192, 96), 200).save(path)),
    "picture gone": picture(lambda path: path.unlink()),
    "picture folder": picture(lambda path: (path.unlink(), path.mkdir())[0]),
    "predictions file": lambda folder: (shutil.rmtree(folder / "predictions"), (folder / "predictions").touch())[0],
    "observations text": content("observations/000001.safetensors", b"no tensors"),
    "observations huge header": content("observations/000001.safetensors", b"\xff" * 64),
    "observations name": content("observations/x.safetensors", b""),
    "observations folder": replaced_by_folder("observations/000001.safetensors"),
    "checkpoint": content("checkpoint.safetensors", b"\0" * 99),
}  # fmt: skip
"""Damages that cost what they hold and nothing else: the run's numbers are still good."""
TARGET: dict[str, Damage] = {
    "records truncated": records(lambda found: found[:-200]),
    "records zeros": records(lambda found: found[:400] + bytes(4000) + found[4400:]),
    "records empty": records(lambda _: b""),
    "records text": records(lambda _: b"PAR1 no table PAR1"),
    "records folder": replaced_by_folder("evaluation/night.parquet"),
    "no column": table(lambda found: found.drop_columns(["confusion"])),
    "no rows": table(lambda found: found.slice(0, 0)),
    "text for counts": column("pixels", lambda found: pa.array(["x"] * len(found))),
    "fewer counts": column("confusion", lambda found: lists(np.ones((len(found), 4), np.int32))),
    "null counts": column("pixels", lambda found: pa.array([None] * len(found), pa.int64())),
    "null images": column("image", lambda found: pa.array([None] * len(found), pa.string())),
    "null conditions": column("condition", lambda found: pa.array([None] * len(found), pa.string())),
    "numbers for images": column("image", lambda found: pa.array(range(len(found)))),
    "negative counts": column("confusion", lambda found: lists(np.full((len(found), 361), -5, np.int32))),
    "NaN": column("nll_sum", lambda found: pa.array([float("nan")] * len(found))),
    "infinite": column("nll_sum", lambda found: pa.array([float("inf")] * len(found))),
    "images twice": table(lambda found: pa.concat_tables([found, found])),
    "metadata of another run": table(lambda found: found.replace_schema_metadata(
        dict(found.schema.metadata) | {b"fingerprint": b"\xff\xfe"})),
}  # fmt: skip
"""Damages of one target's records: the other targets' numbers are still good."""


def every_number(scores: Scores) -> dict[str, dict[str, Any]]:
    return {row: {column: scores.mean(row, column) for column in scores.columns} for row in ROWS}


@pytest.fixture(scope="module")
def numbers(whole: Built) -> dict[str, dict[str, Any]]:
    """The numbers of the undamaged results."""
    return every_number(Scores(load_records(*whole), replicates=10))


EVERY = RECORD | HARMLESS | TARGET


@pytest.mark.parametrize("name", RECORD)
def test_a_damaged_record_is_named(name: str, whole: Built, results: Path) -> None:
    """From here on the run is like any that has failed."""
    benchmark = whole[0]
    RECORD[name](results / benchmark.name / "flexseg" / "seed-0")
    found = load_records(benchmark, results)
    assert [run.status for run in found.runs.values()].count("failed") == 1
    (note,) = found.notes("flexseg")
    assert note.startswith("seed 0 failed: ")
    assert "run.json" in note or "status" in note
    assert [each.state for each in standings(benchmark, results, now=0.0)].count("failed") == 1


@pytest.mark.parametrize("name", HARMLESS | TARGET)
def test_a_damage_costs_no_more_than_it_must(
    name: str, whole: Built, results: Path, numbers: dict[str, dict[str, Any]]
) -> None:
    benchmark = whole[0]
    EVERY[name](results / benchmark.name / "flexseg" / "seed-0")
    scores = Scores(load_records(benchmark, results), replicates=10)
    notes = scores.records.notes("flexseg")
    assert scores.records.runs["flexseg", 0].status == "finished"
    if name in TARGET:
        assert len(notes) == 1
        assert notes[0].startswith(("seed 0 target night: records ", "seed 0 target night: not evaluated"))
    else:
        assert notes == []
    json.dumps(payload(scores), allow_nan=False)
    standings(benchmark, results, now=0.0)
    compare(scores, *ROWS[:2], "mIoU", "target")
    after = every_number(scores)
    assert [after[row] for row in ("dginstyle", "flexseg_no_gap")] == [
        numbers[row] for row in ("dginstyle", "flexseg_no_gap")
    ]
    kept = [column for column in numbers["flexseg"] if column not in ("night", "Avg2", "Avg5")]
    assert [after["flexseg"][column] for column in kept] == [numbers["flexseg"][column] for column in kept]


SAMPLE = ("run.json deep", "train_seconds NaN", "options list", "records zeros", "no column", "log 1", "log 9",
          "picture EPS", "picture small", "picture folder", "observations text", "no shows")  # fmt: skip


def test_every_report_is_written_over_damaged_results(whole: Built, results: Path, tmp_path: Path) -> None:
    """All of these damages at once, each on a run or a file of its own, as they would not all meet."""
    benchmark, _ = whole
    for place, name in enumerate(SAMPLE):
        row, seed = ROWS[place % 3], place % 2
        EVERY[name](results / benchmark.name / row / f"seed-{seed}")
    write_tables(benchmark, results)
    for kind in KINDS:
        output = tmp_path / "reports" / f"{kind}.out"
        write_report(benchmark, kind, results, output)
        assert output.stat().st_size > 0
    assert len(EVERY) >= 120
