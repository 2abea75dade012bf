"""Rehearse a benchmark in miniature: its real file, rendered data in its data sets' formats, its whole workflow.

``flexseg rehearse gta5_daformer`` shows on any machine, without a download, that everything works that the real run
needs: the layouts and label encodings, the trunk and its weights, the recipe, the methods, sliding windows, tables and
reports. It lists what was made smaller. The numbers mean nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flexseg.benchmark import Benchmark, load_benchmark, select_rows
from flexseg.benchmark.reading import read_content
from flexseg.data.places import VARIABLE
from flexseg.errors import UserError
from flexseg.files import file_digest
from flexseg.yaml_files import format_yaml

Content = dict[str, Any]
MEANING = (
    "A rehearsal: rendered stand-ins instead of the data sets, small sizes, a few steps, random weights. It shows "
    "that the benchmark runs. Its numbers mean nothing."
)
STAND_INS: dict[str, tuple[str, list[tuple[int, int]]]] = {
    "gta5": ("source", [(1052, 1914)]),
    "synthia": ("source", [(760, 1280)]),
    "generated": ("generated", [(720, 1280)]),
    "acdc": ("adverse", [(1080, 1920)]),
    "dark_zurich": ("night", [(1080, 1920)]),
    "cityscapes": ("clear_city", [(1024, 2048)]),
    "bdd100k": ("mixed", [(720, 1280)]),
    "mapillary": ("places", [(2448, 3264), (2988, 1681), (1537, 2049)]),
}
"""The street world's domain that stands in for a data set, and (height, width) of its images, some of them odd."""
ANY_STAND_IN = ("clear_city", [(1080, 1920)])


@dataclass(frozen=True)
class Settings:
    """How small a rehearsal is: sizes divided by ``shrink``, steps per training, images per split, another MiT."""

    shrink: int = 4
    iterations: int = 4
    frames: int = 3
    trunk: str = ""


@dataclass(frozen=True)
class Change:
    """A key of the benchmark file whose value differs in the rehearsal."""

    key: str
    before: Any
    after: Any


def rehearse(
    name: str,
    folder: Path,
    settings: Settings,
    study: str,
    rows: str,
    cores: int,
    benchmarks: Path,
    methods: Path,
    console: Console,
) -> int:
    """Rehearse ``benchmarks/<name>.yaml`` in ``folder`` and return the exit code of its workflow.

    Raises:
        UserError: the benchmark evaluates another one's runs, uses a data set of one's own, or the smaller trunk does
            not fit it.
    """
    top = Path.cwd()
    content = read_content(name, benchmarks)
    if content.get("runs"):
        raise UserError(f"benchmark {name} only evaluates the runs of {content['runs']!r}: rehearse that one")
    for domain in content["domains"].values():
        if (benchmarks.parent / "datasets" / f"{domain.get('dataset')}.yaml").is_file():
            raise UserError(
                f"benchmark {name} uses {domain['dataset']}, a data set of one's own, for which no stand-in can be "
                "rendered: run the benchmark itself, with few `iterations:`"
            )
    small, changes = shrink(content, settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(small, folder / "weights", changes)
    (folder / "benchmarks").mkdir(exist_ok=True)
    (folder / "benchmarks" / f"{name}.yaml").write_text(format_yaml(small), encoding="utf-8")
    if not (folder / "methods").exists():
        (folder / "methods").symlink_to(methods.absolute())
    benchmark = load_benchmark(name, folder / "benchmarks")
    _print_changes(changes, console)
    write_data(benchmark, folder / "data", settings, console)
    workflow = ["--snakefile", str(top / "Snakefile"), "--directory", str(folder.absolute())]
    command = [sys.executable, "-P", "-m", "snakemake", *workflow]
    command += ["--cores", str(cores), "--config", f"benchmark={name}", f"study={study}"]
    command += [f"rows={rows}"] if rows else []
    done = subprocess.run(command, env=_environment(folder.absolute()), check=False)
    where = folder / "reports" / name / select_rows(benchmark, study, rows).selection
    console.print(f"rehearsed in {folder}; its reports, whose numbers mean nothing, are in {where}", markup=False)
    return done.returncode


def _environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    data = {VARIABLE: str(folder / "data"), "FLEXSEG_WEIGHTS": str(folder / "weights")}
    return os.environ | {"PATH": path} | data


def _print_changes(changes: list[Change], console: Console) -> None:
    table = Table(title="Different from the real benchmark", title_justify="left")
    for heading in ("key", "benchmark", "rehearsal"):
        table.add_column(heading, overflow="fold")
    for change in changes:
        before = "the default" if change.before is None else change.before
        table.add_row(change.key, _shorten(before), _shorten(change.after))
    console.print(table)


def _shorten(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def shrink(content: Content, settings: Settings) -> tuple[Content, list[Change]]:
    """Shrink a benchmark file's content, in which what it extends is merged already; return it and the changes."""
    small, changes = deepcopy(content), []
    for key in ("extends", "data_root", "tuning"):
        small.pop(key, None)

    def put(where: Content, key: str, value: Any, path: str) -> None:
        if where.get(key) != value:
            changes.append(Change(f"{path}{key}", where.get(key), value))
            where[key] = value

    def divide(where: Content, keys: Iterable[str], path: str) -> None:
        for key in keys:
            if (value := where.get(key)) and not isinstance(value, dict):
                sides = [max(side // settings.shrink, 1) for side in (value if isinstance(value, list) else [value])]
                put(where, key, sides if isinstance(value, list) else sides[0], path)

    put(small, "title", f"Rehearsal of {small['title']}", "")
    put(small, "description", MEANING, "")
    put(small, "seeds", small["seeds"][:1], "")
    put(small, "predictions", 1, "")
    put(small, "published", [], "")
    for where, path in _blocks(small, "training"):
        _shrink_training(where, path, settings, put)
        divide(where, ("crop", "resize"), path)
        if isinstance(where.get("resize"), dict):
            divide(where["resize"], ("fit",), f"{path}resize.")
    for where, path in _sizes(small["protocol"]):
        divide(where, ("fit", "height", "crop", "window", "stride"), path)
    for where, path in _blocks(small, "model"):
        divide(where.get("hrda", {}), ("detail", "stride"), f"{path}hrda.")
        if settings.trunk:
            _replace_trunk(where, path, settings.trunk, put)
    for domain, keys in small["domains"].items():
        divide(keys, ("resize",), f"domains.{domain}.")
        for split in ("train", "val", "test"):
            _shrink_split(keys, split, f"domains.{domain}.", settings, put)
    return small, changes


def _blocks(content: Content, key: str) -> Iterator[tuple[Content, str]]:
    """The benchmark's own block ``key`` and those of its rows, with their paths."""
    yield content[key], f"{key}."
    for name, row in content["rows"].items():
        if key in row:
            yield row[key], f"rows.{name}.{key}."


def _sizes(protocol: Content) -> Iterator[tuple[Content, str]]:
    yield protocol, "protocol."
    if "size" in protocol:
        yield protocol["size"], "protocol.size."
    for target, size in protocol.get("sizes", {}).items():
        yield size, f"protocol.sizes.{target}."


Put = Callable[[Content, str, Any, str], None]


def _shrink_training(training: Content, path: str, settings: Settings, put: Put) -> None:
    if "iterations" in training:
        put(training, "iterations", settings.iterations, path)
    if path == "training.":
        put(training, "warmup", 1, path)
        put(training, "log_every", 1, path)
        put(training, "checkpoint_every", 2, path)
        put(training, "batch_size", min(training["batch_size"], 2), path)
    rule = training.get("sampling") or {}
    for kind in ("", "source", "generated"):
        where, place = (rule.get(kind) or {}, f"{path}sampling.{kind}.") if kind else (rule, f"{path}sampling.")
        for key in ("min_pixels", "min_crop_pixels"):
            if where.get(key):
                put(where, key, max(where[key] // settings.shrink**2, 1), place)
        if where.get("images"):
            put(where, "images", min(where["images"], max(settings.frames - 1, 1)), place)


def _shrink_split(domain: Content, split: str, path: str, settings: Settings, put: Put) -> None:
    part = domain.get(split)
    if not part:
        return
    if "world" in domain:
        put(domain, split, min(part, settings.frames), path)
        return
    named: Content = {"split": part} if isinstance(part, str) else dict(part)
    if named.get("images"):
        named["images"] = min(named["images"], max(settings.frames - 1, 1))
    rendered = settings.frames * max(len(domain.get("conditions", [])), 1)  # images are rendered per condition
    put(domain, split, named | {"expected": rendered}, path)


def _replace_trunk(model: Content, path: str, trunk: str, put: Put) -> None:
    from flexseg.models.names import MIT  # imports torch

    if trunk not in MIT:
        raise UserError(f"there is no MiT {trunk!r}: choose {', '.join(MIT)}")
    backbone, head = model.get("backbone", {}), model.get("decode_head", {})
    if backbone.get("type") != "MixVisionTransformer":
        raise UserError(f"{path}backbone is a {backbone.get('type')}, which no MiT can replace: leave --trunk out")
    width, depths = MIT[trunk]
    put(backbone, "embed_dims", width, f"{path}backbone.")
    put(backbone, "num_layers", list(depths), f"{path}backbone.")
    widths = [width * heads for heads in backbone["num_heads"]]
    put(head, "in_channels", widths, f"{path}decode_head.")
    if "hrda" in model:
        put(model["hrda"]["attention"], "in_channels", widths, f"{path}hrda.attention.")


def write_weights(content: Content, folder: Path, changes: list[Change]) -> None:
    """Write random weights wherever the benchmark names pretrained ones, and put their checksum into ``content``."""
    import torch

    from flexseg.models import build_segmentor

    for model, path in _blocks(content, "model"):
        named = model.get("weights")
        if not named:
            continue
        file = folder / Path(named["file"]).name
        if not file.is_file():
            torch.manual_seed(0)
            trunk = build_segmentor({key: value for key, value in model.items() if key != "weights"})
            folder.mkdir(parents=True, exist_ok=True)
            torch.save({"state_dict": trunk.backbone.state_dict()}, file)
        digest = file_digest(file)
        changes.append(Change(f"{path}weights.sha256", named["sha256"], f"{digest[:8]}… (random weights)"))
        model["weights"] = {"file": file.name, "sha256": digest, "licence": "none: random weights"}


def write_data(benchmark: Benchmark, root: Path, settings: Settings, console: Console) -> None:
    """Render every data set of the benchmark below ``root``, in its official layout and encoding."""
    from flexseg.data.sets import load_set
    from flexseg.world.official import write_official

    written: set[tuple[str, str]] = set()
    for domain in benchmark.domains.values():
        if domain.rendered:
            continue
        dataset = load_set(domain.dataset)
        look, sizes = STAND_INS.get(domain.dataset, ANY_STAND_IN)
        sizes = [(height // settings.shrink, width // settings.shrink) for height, width in sizes]
        home = root / (domain.root or dataset.folders[0])
        for part in domain.parts.values():
            if (str(home), part.split) not in written:
                written.add((str(home), part.split))
                write_official(
                    dataset, home, part.split, settings.frames, sizes=sizes, domain=look, label_map=domain.label_map
                )
    console.print(f"rendered {len(written)} splits of data sets below {root}", markup=False)
