"""Publishing a row and reading it again: nothing is lost, nothing private goes out, nothing hostile comes in."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flexseg.analysis.stats.formats import difference_text, mean_text
from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.benchmark import Run, load_benchmark, select_rows
from flexseg.benchmark.blocks import Part, SetDomain
from flexseg.cli import main
from flexseg.errors import UserError
from flexseg.files import write_json
from flexseg.tasks import publication, publish
from flexseg.tasks.jobs import evaluate_row, load_trained
from flexseg.tasks.private import Private
from flexseg.tasks.publication import MANIFEST, read_publication
from flexseg.tasks.publish import Terms, publish_row

SEEDS = [0, 1]


@pytest.fixture(scope="session")
def workplace(root: Path, smoke_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose smoke benchmark, of two seeds and four iterations, has been run. Read only."""
    here = tmp_path_factory.mktemp("workplace")
    for folder in ("benchmarks", "methods"):
        shutil.copytree(root / folder, here / folder, ignore=shutil.ignore_patterns("__pycache__"))
    content = yaml.safe_load((root / "benchmarks/smoke.yaml").read_text())
    content["training"] |= {"iterations": 4, "batch_size": 1, "warmup": 1, "log_every": 1, "checkpoint_every": 4}
    content |= {"seeds": SEEDS, "data_root": str(here / "secret-data")}
    content["rows"]["flexseg"] |= {"dim": 8, "kernels": [3, 5]}
    del content["rows"]["flexseg"]["title"]
    child = {"extends": "smoke", "title": "Child", "rows": {"flexseg": {"title": "FLEX-Seg | small"}}}
    for name, each in {"smoke": content, "child": child | {"runs": "smoke"}}.items():
        (here / "benchmarks" / f"{name}.yaml").write_text(yaml.safe_dump(each, sort_keys=False))
        (here / "results" / name).mkdir(parents=True)
        (here / "results" / name / "data").symlink_to(smoke_data / "smoke" / "data")
    before = Path.cwd()
    os.chdir(here)
    try:
        from flexseg.tasks.jobs import train_run

        benchmark = load_benchmark("smoke")
        for row in benchmark.rows:
            for seed in SEEDS:
                train_run(Run(benchmark, row, seed))
            evaluate_row(benchmark, row, Path("results"))
        evaluate_row(load_benchmark("child"), "flexseg", Path("results"))
    finally:
        os.chdir(before)
    return here


@pytest.fixture
def here(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workplace, in which the commands are started."""
    folder = tmp_path / "checkout"
    shutil.copytree(workplace, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def published(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The publication of the row ``flexseg``. Read only."""
    output = tmp_path_factory.mktemp("publications") / "flexseg"
    before = Path.cwd()
    os.chdir(workplace)
    try:
        publish_row("smoke", "flexseg", output, terms=Terms("CC-BY-4.0", ("Ada Author", "B. Beta")))
    finally:
        os.chdir(before)
    return output


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    """A publication to be spoilt."""
    return Path(shutil.copytree(published, tmp_path / "copy"))


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def front_matter(folder: Path) -> tuple[Any, str]:
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


# Writing


def test_what_was_published_is_read_again(published: Path, workplace: Path) -> None:
    found = read_publication(published)
    assert (found.benchmark, found.row, found.title, found.seeds) == ("smoke", "flexseg", "flexseg", SEEDS)
    assert found.protocol == "smoke-v1"
    for seed, run in found.runs.items():
        original = workplace / "results/smoke/flexseg" / f"seed-{seed}"
        assert run.weights.read_bytes() == (original / "model.safetensors").read_bytes()
        assert list(run.records) == ["adverse", "night", "clear_city", "mixed", "places"]
        for target, path in run.records.items():
            assert path.read_bytes() == (original / "evaluation" / f"{target}.parquet").read_bytes()
        assert run.record == json.loads((original / "run.json").read_text())
        assert run.config.read_bytes() == (original / "config.json").read_bytes()
        assert run.log.read_bytes() == (original / "train.jsonl").read_bytes()
    links = [
        path for path in published.rglob("*") if path.is_symlink() or (path.stat().st_nlink > 1 and path.is_file())
    ]
    assert links == []


def test_the_published_benchmark_defines_the_same_runs_and_loads_them(published: Path, workplace: Path) -> None:
    """Its own YAML and method file are enough, in a folder without the suite's."""
    there = load_benchmark("smoke", published / "benchmarks")
    assert list(there.rows) == ["flexseg"]
    assert there.methods == published / "methods"
    assert "extends" not in (published / "benchmarks/smoke.yaml").read_text().split("\n", 1)[1]
    run = Run(select_rows(there, "default", "flexseg"), "flexseg", 1, place=published / "seed-1")
    run.require_trained()
    assert load_trained(run)


def test_the_numbers_are_those_of_the_reports(
    published: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.chdir(workplace)
    scores = Scores(load_records(load_benchmark("smoke"), Path("results")))
    facts = read_publication(published).facts
    assert list(facts.scores) == list(scores.columns)
    for column, score in facts.scores.items():
        mean, difference = scores.mean("flexseg", column), scores.against("flexseg", "dginstyle")[column]
        values = [mean.value, mean.half, difference.value, difference.low, difference.high]
        shown = [score.mean, score.half_width, score.difference, score.low, score.high]
        assert shown == pytest.approx(values, abs=1e-4)
    front, text = front_matter(published)
    (model,) = front["model-index"]
    values = [result["metrics"][0]["value"] for result in model["results"]]
    assert values == [round(facts.scores[target].mean, 2) for target in facts.targets]
    found = scores.against("flexseg", "dginstyle")["Avg5"]
    shown = f"**{difference_text(found)}**" if found.shown else difference_text(found)
    means = [mean_text(scores.mean(row, "Avg5")) for row in ("flexseg", "dginstyle")]
    assert f"| Avg5 | {means[0]} | {means[1]} | {shown} |" in text
    assert "| Target | mIoU | DGInStyle data (baseline) | Δ |" in text
    assert (front["license"], front["library_name"]) == ("cc-by-4.0", "flexseg")


def test_the_card_says_how_it_was_made_and_cites_the_paper(published: Path) -> None:
    _, text = front_matter(published)
    record = read_publication(published).runs[0].record
    for expected in (
        record["library"], record["versions"]["torch"], *record["data"].values(), "Ada Author and B. Beta",
        "@article{kim2026need,", "These weights: CC-BY-4.0", "as the suite's", "Protocol `smoke-v1`",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_manifest_is_checked_by_sha256sum(published: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", MANIFEST], cwd=published, check=True)
    listed = {line.split("  ", 1)[1] for line in (published / MANIFEST).read_text().splitlines()}
    every = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert listed == every - {MANIFEST}


def test_the_commands_of_the_card_work_in_the_folder(copy: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    _, text = front_matter(copy)
    commands = [line.split("#")[0].split() for line in text.splitlines() if line.startswith("flexseg ")]
    assert [command[1] for command in commands] == ["predict", "export"]
    shutil.copyfile(root / "docs/world.png", "my_photo.jpg")
    for command in commands:
        assert call(*command[1:]) == 0
    assert (copy.parent / "predictions" / "my_photo_trainIds.png").is_file()
    assert (copy.parent / "export" / "flexseg_seed0.pth").is_file()


def test_the_crate_is_one(published: Path) -> None:
    """What RO-Crate 1.1 requires: descriptor, root, every file once, and no reference that leads nowhere."""
    crate = json.loads((published / "ro-crate-metadata.json").read_text())
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"]), "an @id stands twice"
    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    assert (descriptor["@type"], descriptor["about"]) == ("CreativeWork", {"@id": "./"})
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert root["@type"] == "Dataset"
    assert {"name", "description", "datePublished", "license"} <= root.keys()
    parts = [part["@id"] for part in root["hasPart"]]
    every = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert sorted(parts) == sorted(every - {MANIFEST, "ro-crate-metadata.json"})
    for name in parts:
        assert entities[name]["@type"] == "File"
        assert int(entities[name]["contentSize"]) == (published / name).stat().st_size

    def references(value: Any) -> list[str]:
        if isinstance(value, list):
            return [each for item in value for each in references(item)]
        if isinstance(value, dict):
            return [value["@id"]] if set(value) == {"@id"} else references(list(value.values()))
        return []

    used = references([{key: each for key, each in entity.items() if key != "@id"} for entity in crate["@graph"]])
    assert set(used) - entities.keys() == {"https://w3id.org/ro/crate/1.1"}
    assert all(set(entity) >= {"@id", "@type"} for entity in crate["@graph"])


def test_a_benchmark_that_evaluates_the_runs_of_another_is_published_with_both(here: Path) -> None:
    found = read_publication(publish_row("child", "flexseg", here / "out", seeds="1"))
    assert (found.benchmark, found.facts.benchmark.trained_as, found.seeds) == ("child", "smoke", [1])
    assert (
        found.runs[1].records["night"].read_bytes()
        == (here / "results/child/flexseg/seed-1/evaluation/night.parquet").read_bytes()
    )
    assert sorted(path.name for path in (here / "out/benchmarks").iterdir()) == ["child.yaml", "smoke.yaml"]
    assert front_matter(here / "out")[1].startswith("\n# FLEX-Seg \\| small: Child\n")


def test_the_commands_of_the_docs_work(here: Path, root: Path) -> None:
    text = (root / "docs/sharing.md").read_text().replace("streetworld", "smoke")
    commands = [
        shlex.split(line) for line in text.splitlines() if line.startswith(("flexseg publish", "flexseg schema"))
    ]
    assert len(commands) == 6
    (here / "flexseg/data/sets").mkdir(parents=True)
    (here / "flexseg/data/label_maps").mkdir()
    for command in commands:
        assert call(*command[1:]) == 0, command
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})
    assert read_publication(here / "published/baseline").row == "dginstyle"
    assert (here / "benchmarks/schema.json").read_text() == (root / "benchmarks/schema.json").read_text()


# Nothing private


def test_nothing_tells_where_it_was_made(published: Path, workplace: Path) -> None:
    words = {str(workplace), str(Path.home()), "secret-data", f"{getpass.getuser()}@{socket.gethostname()}"}
    for path in published.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert [word for word in words if word.encode() in content] == [], path


def test_paths_in_a_record_become_relative_or_are_left_out(here: Path) -> None:
    path = here / "results/smoke/flexseg/seed-0/run.json"
    record = json.loads(path.read_text())
    home = str(Path.home())
    record |= {
        "log": f"{here}/results/log.txt", "folder": str(here), "weights_from": f"{home}/private/net.pth",
        "note": "read from /srv/data/set and https://example.org/a/b, 1/2 of it", "host": socket.gethostname(),
        "nothing": "",
    }  # fmt: skip
    write_json(path, record)
    found = read_publication(publish_row("smoke", "flexseg", here / "out")).runs[0].record
    assert found["log"] == "results/log.txt"
    assert (found["folder"], found["host"], found["nothing"]) == (".", "(left out)", "")
    assert found["weights_from"] == "(left out)"
    assert found["note"] == "read from (left out) and https://example.org/a/b, 1/2 of it"


def test_a_definition_with_a_path_of_this_machine_is_refused(here: Path) -> None:
    definition = {"model": {"weights": {"file": f"{here}/weights/x.pth"}}, "training": {"crop": [1, 2]}}
    with pytest.raises(UserError, match=r"config\.json: the run is defined with .* model\.weights\.file = "):
        Private().tidy_record({"definition": definition}, Path("config.json"))
    named = {"definition": {"method": socket.gethostname(), "row": getpass.getuser()}}
    assert Private().tidy_record(named, Path("config.json")) == named, "words that a run and a machine have in common"
    fine = {"definition": {"model": {"weights": {"file": "x.pth", "url": "https://example.org/a/b.pth"}}}}
    assert Private().tidy_record(fine, Path("config.json")) == fine


def test_a_path_in_a_comment_of_a_method_is_found(here: Path) -> None:
    path = here / "methods/flexseg.py"
    path.write_text(path.read_text() + f"\n# tried on {here}/results\n")
    with pytest.raises(UserError, match=r"methods/flexseg\.py, line \d+, would be published with"):
        publish_row("smoke", "flexseg", here / "out")
    assert sorted(each.name for each in here.iterdir()) == ["benchmarks", "methods", "results"], "half a folder is left"


def test_a_data_set_of_ones_own_goes_along_unless_it_names_a_place_of_this_machine(here: Path) -> None:
    """As a benchmark would name it for a domain that is not used here: its file is part of the run's definition."""
    benchmark = select_rows(load_benchmark("smoke"), "default", "flexseg")
    domain = SetDomain(dataset="mine", test=Part(split="test"))
    benchmark = benchmark.model_copy(update={"domains": benchmark.domains | {"mine": domain}})
    benchmark = benchmark.with_datasets(here / "datasets")
    (here / "datasets").mkdir()
    content = {"title": "Mine", "folders": ["mine"], "label_map": "", "splits": {"test": {}}}
    content["layouts"] = [{"name": "mine", "image": "images/{id}.png", "label": "labels/{id}.png"}]
    for number, (folder, message) in enumerate({"mine": "", "/data/mine": "with /data/mine, a place"}.items()):
        (here / "datasets/mine.yaml").write_text(yaml.safe_dump(content | {"folders": [folder]}))
        output = here / f"out-{number}"
        output.mkdir()
        with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
            publish._write_sources(output, benchmark, "flexseg", Path("benchmarks"))
        assert (output / "datasets/mine.yaml").is_file() is not bool(message)


# What is not published


def test_unfinished_runs_are_refused_with_the_command_that_finishes_them(here: Path) -> None:
    run = here / "results/smoke/flexseg/seed-1"
    shutil.move(run / "evaluation/night.parquet", here / "night.parquet")
    with pytest.raises(UserError, match=r"target night: not evaluated.*`flexseg evaluate smoke flexseg`"):
        publish_row("smoke", "flexseg", here / "out")
    (run / "run.json").unlink()
    with pytest.raises(UserError, match=r"missing: not run.*`flexseg train smoke flexseg 1`.*--seeds"):
        publish_row("smoke", "flexseg", here / "out")
    assert not (here / "out").exists()
    assert read_publication(publish_row("smoke", "flexseg", here / "out", seeds="0")).seeds == [0]


def test_stale_runs_and_records_are_refused(here: Path) -> None:
    path = here / "benchmarks/smoke.yaml"
    text = path.read_text()
    path.write_text(text.replace("predictions: 1", "predictions: 2"))
    with pytest.raises(UserError, match=r"records of other settings of the evaluation.*flexseg evaluate smoke"):
        publish_row("smoke", "flexseg", here / "out")
    path.write_text(text.replace("dim: 8", "dim: 16"))
    with pytest.raises(UserError, match=r"stale.*`flexseg train smoke flexseg 0 --supersede`"):
        publish_row("smoke", "flexseg", here / "out")


def test_damaged_weights_are_refused(here: Path) -> None:
    path = here / "results/smoke/flexseg/seed-0/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        publish_row("smoke", "flexseg", here / "out")


def test_a_folder_that_is_in_use_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = here / "out" / "mine.txt"
    mine.parent.mkdir()
    assert call("publish", "smoke", "flexseg", "--output", "out", "--licence", "MIT") == 0, "an empty folder is free"
    assert capsys.readouterr().out == "out\n"
    assert call("publish", "smoke", "flexseg", "--output", "out") == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert call("publish", "smoke", "dginstyle", "--output", "out", "--overwrite") == 2
    assert "is the publication of smoke flexseg" in " ".join(capsys.readouterr().err.split())
    before = (here / "out" / "README.md").read_text()
    assert call("publish", "smoke", "flexseg", "--output", "out", "--overwrite", "--author", "Ada") == 0
    assert "Authors: Ada" in (here / "out/README.md").read_text()
    assert "Authors" not in before
    shutil.rmtree(here / "out")
    mine.parent.mkdir()
    mine.write_text("mine")
    assert call("publish", "smoke", "flexseg", "--output", "out", "--overwrite") == 2
    assert "is no publication" in capsys.readouterr().err
    assert [path.name for path in (here / "out").iterdir()] == ["mine.txt"]
    assert sorted(each.name for each in here.iterdir()) == ["benchmarks", "methods", "out", "results"]


def test_an_interruption_leaves_nothing_and_keeps_the_old(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_row("smoke", "flexseg", here / "out")
    before = (here / "out" / MANIFEST).read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(publish, "make_crate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish_row("smoke", "flexseg", here / "out", overwrite=True)
    assert (here / "out" / MANIFEST).read_bytes() == before
    assert sorted(each.name for each in here.iterdir()) == ["benchmarks", "methods", "out", "results"]


def test_a_long_log_is_thinned_evenly(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "LOG_LINES", 3)
    lines = (here / "results/smoke/flexseg/seed-0/train.jsonl").read_text().splitlines()
    assert len(lines) == 4
    found = read_publication(publish_row("smoke", "flexseg", here / "out")).runs[0].log.read_text().splitlines()
    assert found == [lines[0], lines[2], lines[3]]


# Hostile folders


def seal(folder: Path) -> None:
    """Write the manifest anew, as who means harm would."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in paths]
    (folder / MANIFEST).write_text("".join(lines))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change keys of a JSON file, and the manifest with it."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))
        seal(folder)

    return change


def add(name: str, content: bytes = b"x", sealed: bool = True) -> Callable[[Path], None]:
    def put(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        if sealed:
            seal(folder)

    return put


def relink(folder: Path) -> None:
    path = folder / "seed-0/model.safetensors"
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def exchange(folder: Path) -> None:
    shutil.copyfile(folder / "seed-0/evaluation/night.parquet", folder / "seed-0/evaluation/adverse.parquet")
    seal(folder)


def manifest_line(text: str) -> Callable[[Path], None]:
    def append(folder: Path) -> None:
        (folder / MANIFEST).write_text((folder / MANIFEST).read_text() + text)

    return append


def remove(name: str, sealed: bool = False) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if sealed:
            seal(folder)

    return do


DEEP = b"[" * 100_000 + b"]" * 100_000
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (remove(MANIFEST), "is no publication"),
    "no facts": (remove("publication.json", True), "is no publication"),
    "missing file": (remove("seed-1/evaluation/night.parquet"), "is missing, but manifest-sha256.txt names it"),
    "missing seed": (remove("seed-1", True), "the publication is incomplete"),
    "missing method": (remove("methods/flexseg.py", True), "the publication is incomplete"),
    "altered weights": (lambda folder: flip(folder / "seed-0/model.safetensors"), "is damaged: its SHA-256"),
    "altered card": (lambda folder: flip(folder / "README.md"), "is damaged: its SHA-256"),
    "altered weights, sealed": (
        lambda folder: (flip(folder / "seed-0/model.safetensors"), seal(folder))[1],
        r"model\.safetensors",
    ),
    "extra file": (add("seed-0/notes.txt", sealed=False), "is not in manifest-sha256.txt"),
    "pickle": (add("seed-0/model.pth"), "may hold pickled objects"),
    "numpy pickle": (add("seed-0/data.npy"), "may hold pickled objects"),
    "other kind": (add("run.sh"), "a publication has no such files"),
    "bytecode": (add("methods/__pycache__/flexseg.pyc"), "a publication has no such files"),
    "odd name": (add("a b.json"), "of such a name"),
    "link": (relink, "is a link"),
    "folder link": (lambda folder: (folder / "more").symlink_to("/"), "is a link"),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe.json"), "neither a file nor a folder"),
    "outside": (manifest_line(f"{'0' * 64}  ../outside.json\n"), "with a file below this folder"),
    "absolute": (manifest_line(f"{'0' * 64}  /etc/passwd\n"), "with a file below this folder"),
    "hidden": (manifest_line(f"{'0' * 64}  .ssh/config\n"), "with a file below this folder"),
    "twice": (manifest_line(f"{'0' * 64}  README.md\n"), "is named twice"),
    "control characters": (manifest_line("\x1b[31mred\n"), r"x1b"),
    "no text": (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"), "is no plain text"),
    "huge JSON": (add("publication.json", b" " * (9 << 20)), "more than the 8,388,608"),
    "huge YAML": (add("benchmarks/smoke.yaml", b"#" * (2 << 20)), "more than the 1,048,576"),
    "deep JSON": (add("publication.json", DEEP), "too deeply nested"),
    "no JSON": (add("seed-0/run.json", b"{"), "is damaged"),
    "other format": (edit("publication.json", format="zip"), "its format is not"),
    "newer": (edit("publication.json", version=2, suite="2031.1.0"), r"version 2.*release 2031\.1\.0"),
    "unknown key": (edit("publication.json", extra=1), "extra"),
    "odd row": (edit("publication.json", row={"name": "../x", "title": "", "method": "flexseg"}), r"row\.name"),
    "other seeds": (edit("publication.json", seeds=[0, 7]), "seed-7"),
    "seeds twice": (edit("publication.json", seeds=[0, 0]), "named twice"),
    "other run": (edit("seed-0/run.json", fingerprint="0" * 16), "is of another run"),
    "other definition": (edit("seed-0/config.json", definition={}), "is of another run"),
    "unfinished": (edit("seed-0/run.json", status="failed"), "no record of a finished run"),
    "other evaluation": (edit("publication.json", evaluation="0" * 16), "another evaluation"),
    "other protocol": (edit("publication.json", protocol="mine"), "another protocol"),
    "exchanged records": (exchange, "another target"),
    "no records": (add("seed-0/evaluation/night.parquet"), "cannot be read as records"),
    "other benchmark": (add("benchmarks/smoke.yaml", b"rows: {a: {}}"), "is no benchmark of the row"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_damaged_folder_is_one_clear_error(copy: Path, kind: str) -> None:
    spoil, message = HOSTILE[kind]
    spoil(copy)
    with pytest.raises(UserError, match=message) as found:
        read_publication(copy)
    assert len(str(found.value)) < 500
    assert "\x1b" not in str(found.value)


def test_a_folder_that_is_none_and_too_many_files(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is no folder"):
        read_publication(copy / "README.md")
    monkeypatch.setattr(publication, "MOST_FILES", 5)
    with pytest.raises(UserError, match="more than 5 files"):
        read_publication(copy)


def test_what_hubs_and_version_control_add_does_not_matter(copy: Path) -> None:
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs")
    (copy / ".cache").mkdir()
    (copy / ".cache" / "x.pkl").write_bytes(b"x")
    assert read_publication(copy).seeds == SEEDS


def test_nothing_of_a_publication_is_executed(copy: Path) -> None:
    path = copy / "methods/flexseg.py"
    path.write_text("raise SystemExit('executed')\n")
    seal(copy)
    assert read_publication(copy).methods == [path]
