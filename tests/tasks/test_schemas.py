"""The JSON Schemas for editors: they are those of today's readers, take every shipped file, and refuse a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from flexseg.benchmark import benchmark_names
from flexseg.benchmark.claims import is_claims_file
from flexseg.cli import main
from flexseg.tasks.schemas import (
    SCHEMAS,
    WORDS,
    benchmark_schema,
    claims_schema,
    dataset_schema,
    format_schema,
    label_map_schema,
)
from flexseg.yaml_files import read_yaml

ROOT = Path(__file__).parents[2]
FOLDERS = {"benchmark": "benchmarks", "dataset": "flexseg/data/sets", "label-map": "flexseg/data/label_maps"}
FILES = [
    ("claims" if is_claims_file(path) else kind, path)
    for kind, folder in FOLDERS.items()
    for path in sorted((ROOT / folder).glob("*.yaml"))
]
VALIDATORS = {
    kind: Draft202012Validator(make())
    for kind, make in (
        ("benchmark", benchmark_schema),
        ("claims", claims_schema),
        ("dataset", dataset_schema),
        ("label-map", label_map_schema),
    )
}


def content_of(path: Path) -> Any:
    """A file as JSON has it, where keys are text."""
    return json.loads(json.dumps(read_yaml(path, numbered=True)))


def wrong_places(kind: str, content: Any) -> list[str]:
    """Where a file is wrong, by the innermost of each mistake."""
    places = []
    for error in VALIDATORS[kind].iter_errors(content):
        while error.context:
            error = max(error.context, key=lambda each: len(each.absolute_path))
        places.append("/".join(map(str, error.absolute_path)) + f": {error.message}")
    return places


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_repository_ships_what_the_command_writes(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / SCHEMAS[kind][1]
    assert path.read_text(encoding="utf-8") == format_schema(kind), (
        f"the files have other keys now: flexseg schema {kind} --output {path.relative_to(ROOT)}"
    )
    main_ends_well("schema", kind)
    assert capsys.readouterr().out == format_schema(kind)
    Draft202012Validator.check_schema(json.loads(format_schema(kind)))


def main_ends_well(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert not stop.value.code


@pytest.mark.parametrize(("kind", "path"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_every_shipped_file_is_valid_and_names_its_schema(kind: str, path: Path) -> None:
    assert wrong_places(kind, content_of(path)) == []
    first = path.read_text(encoding="utf-8").splitlines()[0]
    schema = Path(SCHEMAS[kind][1]).name
    assert first == f"# yaml-language-server: $schema={schema}"
    assert (path.parent / schema).is_file()


def test_a_schema_is_no_benchmark() -> None:
    assert benchmark_names(ROOT / "benchmarks") == sorted(path.stem for kind, path in FILES if kind == "benchmark")


def changed(content: Any, place: str, value: Any) -> Any:
    """A copy in which the value at a dotted place is another."""
    copy = json.loads(json.dumps(content))
    *way, last = place.split(".")
    inner = copy
    for key in way:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return copy


WRONG = [
    ("smoke", "titel", "x"),
    ("smoke", "name", "smoke"),
    ("smoke", "protocol.inferense", "whole"),
    ("smoke", "protocol.inference", "windows"),
    ("smoke", "training.iterations", "many"),
    ("smoke", "training.sampling", {"kind": "rare_classes", "temprature": 0.1}),
    ("smoke", "domains.source.trian", 4),
    ("smoke", "domains.night", None),
    ("smoke", "rows.my row", {"method": "flexseg"}),
    ("smoke", "rows.flexseg.training", {"iteratons": 3}),
    ("gta5_daformer", "domains.cityscapes.test", {"splits": "val"}),
    ("gta5_hrda", "titel", "x"),
    ("gta5_hrda", "protocol.inferense", "slide"),
    ("gta5_hrda", "training.sampling.source.temprature", 1),
    ("gta5_hrda", "domains.aldm.resise", [1, 2]),
    ("gta5_hrda", "rows.shade.training", {"iteratons": 3}),
]


@pytest.mark.parametrize(("name", "place", "value"), WRONG)
def test_a_wrong_key_or_value_is_found_in_whole_files_and_in_those_that_extend(
    name: str, place: str, value: Any
) -> None:
    content = content_of(ROOT / "benchmarks" / f"{name}.yaml")
    assert wrong_places("benchmark", changed(content, place, value))


RIGHT = [
    ("smoke", "rows.flexseg.an_option_of_the_method", [1, "x"]),
    ("smoke", "rows.longer", {"extends": "flexseg", "training": {"iterations": 24}}),
    ("gta5_daformer", "domains.cityscapes.test", "val"),
    ("gta5_daformer", "domains.cityscapes.skip", [17, "00018"]),
    ("gta5_hrda", "domains.aldm", None),
    ("gta5_hrda", "rows.shade", None),
    ("gta5_hrda", "protocol.window", None),
    ("gta5_hrda", "training.crop", [512, 512]),
]


@pytest.mark.parametrize(("name", "place", "value"), RIGHT)
def test_what_the_reader_takes_is_right(name: str, place: str, value: Any) -> None:
    content = content_of(ROOT / "benchmarks" / f"{name}.yaml")
    assert wrong_places("benchmark", changed(content, place, value)) == []


@pytest.mark.parametrize("key", ["title", "targets", "protocol", "rows"])
def test_a_key_is_required_unless_it_may_be_inherited(key: str) -> None:
    content = content_of(ROOT / "benchmarks" / "smoke.yaml")
    del content[key]
    assert wrong_places("benchmark", content) == [f": '{key}' is a required property"]
    assert wrong_places("benchmark", content | {"extends": "streetworld"}) == []
    assert wrong_places("benchmark", content | {"extends": ""}) == [f": '{key}' is a required property"]


@pytest.mark.parametrize(("kind", "key"), [("dataset", "folders"), ("label-map", "source")])
def test_other_files_are_checked_too(kind: str, key: str) -> None:
    content = content_of(next(path for each, path in FILES if each == kind and path.stem in ("gta5", "camvid32")))
    assert wrong_places(kind, content | {"wrong": 1})
    del content[key]
    assert wrong_places(kind, content) == [f": '{key}' is a required property"]


def test_a_data_set_is_explained_and_written_as_it_is_read() -> None:
    schema = dataset_schema()
    assert schema["properties"]["folders"]["description"].startswith("Folders where the set is looked for")
    assert schema["$defs"]["Layout"]["properties"]["label"]["description"].startswith("Alternatives: ")
    content = content_of(ROOT / "flexseg/data/sets/cityscapes.yaml")
    for written, wrong in (("{id}.png", False), (["{id}.png", "{id}_labels.png"], False), (7, True), ([7], True)):
        content["layouts"][0]["label"] = written
        assert bool(wrong_places("dataset", content)) is wrong


def test_every_key_of_a_benchmark_is_explained() -> None:
    properties = benchmark_schema()["$defs"]["Benchmark"]["properties"]
    assert WORDS.keys() <= properties.keys()
    referred = {"world", "protocol", "training", "ablation", "tuning"}  # by the words of what they refer to
    assert [key for key, value in properties.items() if "description" not in value and key not in referred] == []
    assert properties["runs"]["description"] == (
        "`extends` names the benchmark that it is merged into (`reading`), and `runs` the one whose trained runs it "
        "evaluates, without training any."
    )
