"""What in a benchmark file could only be a mistake or an attack is refused when it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexseg.benchmark import load_benchmark, select_rows
from flexseg.benchmark.reading import RENAMED
from flexseg.benchmark.values import PATTERN, check_name
from flexseg.errors import UserError
from flexseg.yaml_files import format_yaml

Content = dict[str, Any]
Smoke = Callable[[], Content]
NAMES = [
    "x;touch PWNED",
    "../up",
    "/tmp/up",
    "my row",
    "flexseg+hrda",
    "$(touch x)",
    "c++ (x",
    "-x",
    ".",
    "",
    "a" * 200,
]
NAMES += ["x\ny", "x{y}", "caf\xe9", "a/b", "a\\b", "x'y", "0x", "..", "x.y"]


def load(folder: Path, content: Content, name: str = "mine") -> Any:
    (folder / f"{name}.yaml").write_text(format_yaml(content), encoding="utf-8")
    return load_benchmark(name, folder)


def put(content: Content, place: str, value: Any) -> Content:
    *path, last = place.split(".")
    where = content
    for key in path:
        where = where.setdefault(key, {})
    where[last] = value
    return content


def rename_row(content: Content, name: str) -> None:
    content["rows"][name] = content["rows"].pop("flexseg")
    content["studies"] = {"default": ["dginstyle", name]}
    content["ablation"] |= {"full": [name], "panels": ["dginstyle", name], "aligned": {}, "dials": {}}


def rename_target(content: Content, name: str) -> None:
    content["domains"][name] = content["domains"].pop(content["targets"][0])
    content["targets"][0] = name
    content["averages"] = {}


RENAMINGS: dict[str, Callable[[Content, str], Any]] = {
    "row": rename_row,
    "target": rename_target,
    "domain": lambda content, name: content["domains"].update({name: content["domains"]["night"]}),
    "study": lambda content, name: content["studies"].update({name: ["dginstyle"]}),
    "runs": lambda content, name: content.update(runs=name or "."),
    "extends": lambda content, name: content.update(extends=name or "."),
    "method": lambda content, name: content["rows"]["flexseg"].update(method=name or "."),
    "published": lambda content, name: content.update(published=[name]),
    "world": lambda content, name: content["domains"]["night"].update(world=name),
    "dataset": lambda content, name: content["domains"].update(more={"dataset": name, "test": "val"}),
    "label map": lambda content, name: content["domains"].update(
        more={"dataset": "cityscapes", "label_map": name or ".", "test": "val"}
    ),
}


@pytest.mark.parametrize("kind", RENAMINGS)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_a_shell_or_a_file_system_could_misread(
    kind: str, name: str, smoke_content: Smoke, tmp_path: Path
) -> None:
    content = smoke_content()
    RENAMINGS[kind](content, name)
    with pytest.raises(UserError, match=r"mine\.yaml|benchmark is given by its name"):
        load(tmp_path, content)


@pytest.mark.parametrize("name", ["../mine", "benchmarks/mine.yaml", "mine.yaml", "x;y", ""])
def test_a_benchmark_is_given_by_its_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="given by its name"):
        load_benchmark(name, tmp_path / "benchmarks")


@pytest.mark.parametrize("rows", ["../outside", "x;touch PWNED", "dginstyle,$(x)"])
def test_selected_rows_are_rows_or_methods(rows: str, smoke_content: Smoke, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "outside.py").write_text("raise SystemExit")
    benchmark = load(tmp_path / "b", smoke_content()).with_methods(tmp_path / "methods")
    with pytest.raises(UserError, match=r"no row is named|cannot be a name"):
        select_rows(benchmark, rows=rows)


@given(st.text())
def test_a_name_means_the_same_to_everybody(text: str) -> None:
    try:
        name = check_name(text)
    except ValueError:
        return
    assert PATTERN.fullmatch(name)
    assert Path("results", name).parent == Path("results")
    assert name == name.strip()
    assert not set(name) & set(" \t\n;&|<>$`'\"\\(){}[]*?!#~%=:/,.")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("training.learning_rate", 1e300, "no training survives such a rate"),
        ("training.learning_rate", float("inf"), "finite number"),
        ("training.learning_rate", float("nan"), "finite number"),
        ("training.weight_decay", float("inf"), "finite number"),
        ("training.crop", [10**9, 10**9], "no image has so many pixels"),
        ("training.crop", [0, 0], "greater than 0"),
        ("training.iterations", 10**12, "no training takes so many steps"),
        ("training.batch_size", 10**9, "no step takes so many images"),
        ("training.scale", [0.5, 1e9], "would fill the memory"),
        ("training.log_every", 10**30, "no training takes so many steps"),
        ("domains.night.test", 10**12, "six digits"),
        ("domains.night.misalignment", float("inf"), "finite number"),
        ("world.height", 10**9, "no image has so many pixels"),
        ("seeds", [10**30], "not every random generator"),
        ("seeds", list(range(2000)), "at most 1000"),
        ("seeds", [1, 1], "twice"),
        ("predictions", 10**9, "a picture of every run"),
        ("protocol.boundary_band", 10**9, "a boundary is not so wide"),
        ("protocol.calibration_bins", 10**9, "a bin would hold nothing"),
        ("rows.flexseg.lambda_gap", float("nan"), "lambda_gap: nan is no finite number"),
        ("rows.flexseg.kernels", [3, 10**40], r"kernels.1: the number is beyond"),
        ("rows.flexseg.model", {"backbone": {"type": "UNet", "channels": float("inf")}}, "model.backbone.channels"),
        ("model.backbone.base_channels", 10**40, "model.backbone.base_channels"),
        ("title", "x" * 500, "500 characters"),
        ("title", "a\x1b[31mb", "cannot be printed"),
        ("rows.flexseg.title", "a\nb", "cannot be printed"),
        ("description", "x" * 20_000, "20,000 characters"),
    ],
)
def test_numbers_and_texts_have_bounds(
    place: str, value: Any, words: str, smoke_content: Smoke, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, put(smoke_content(), place, value))
    message = str(caught.value)
    assert words in message
    assert place.split(".")[0] in message
    assert len(message) < 1000


def test_the_bounds_of_rows_are_those_of_the_schedule(smoke_content: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.flexseg\.training: learning_rate: .*no training survives"):
        load(tmp_path, put(smoke_content(), "rows.flexseg.training", {"learning_rate": 1e300}))


def test_a_long_list_of_mistakes_is_cut(smoke_content: Smoke, tmp_path: Path) -> None:
    content = smoke_content()
    content["training"] |= {f"key{number}": 0 for number in range(500)}
    with pytest.raises(UserError, match="and 480 more"):
        load(tmp_path, content)


@pytest.mark.parametrize("value", [5, ["smoke"], {"a": 1}, True])
def test_extends_names_one_benchmark(value: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="extends: name one benchmark"):
        load(tmp_path, {"extends": value})


def test_long_chains_of_extension(smoke_content: Smoke, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"b{number}.yaml").write_text(f"extends: b{number + 1}\n")
    with pytest.raises(UserError, match="extend each other over more than 20 files"):
        load_benchmark("b0", tmp_path)
    content = smoke_content()
    content["rows"] |= {f"r{number}": {"extends": f"r{number + 1}"} for number in range(900)}
    content["rows"]["r900"] = {"method": "dginstyle"}
    with pytest.raises(UserError, match="over 20 steps"):
        load(tmp_path, content)


@pytest.mark.parametrize("old", RENAMED)
def test_former_names_of_keys_are_still_read(old: str, smoke_content: Smoke, tmp_path: Path) -> None:
    content = smoke_content()
    new, value = RENAMED[old], 3 if old == "boundary_width" else [1, 3]
    before = load(tmp_path, put(content, f"protocol.{new}", value))
    del content["protocol"][new]
    assert load(tmp_path, put(content, f"protocol.{old}", value)) == before
    with pytest.raises(UserError, match=f"{new} stands there twice"):
        load(tmp_path, put(content, f"protocol.{new}", value))
