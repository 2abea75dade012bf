"""What the benchmark says of its data and protocol, in words: for all products alike, rendered or lying on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flexseg.analysis.stats.scores import Scores
from flexseg.benchmark.blocks import Part, Size
from flexseg.classes import Grouping, scored_classes
from flexseg.data.sets import load_set


def class_set(scores: Scores) -> Grouping:
    """The classes that the protocol scores."""
    return scored_classes(scores.benchmark.class_set, scores.benchmark.protocol.classes)


def class_places(scores: Scores) -> list[int]:
    """The ``train_id`` of each scored class, rising: where its numbers stand among all classes."""
    return list(class_set(scores).names)


def class_names(scores: Scores) -> list[str]:
    """The names of the scored classes, in the order of :func:`class_places`."""
    return list(class_set(scores).names.values())


def class_colours(scores: Scores) -> list[tuple[str, tuple[int, int, int]]]:
    """(name, colour) of each scored class, for legends."""
    scored = class_set(scores)
    return [(name, scored.colours[place]) for place, name in scored.names.items()]


def unseen_text(scores: Scores) -> str:
    """Whether training saw the targets, in words that go on a sentence, with the rows that it did in."""
    benchmark = scores.benchmark
    rows = [row for row in benchmark.rows if benchmark.targets_trained_on(row)]
    if not rows:
        return "training never saw a target"
    titles = ", ".join(f"“{benchmark.row(row).title}”" for row in rows)
    return f"training never saw a target, except in {titles}, with training images from a target's own data set"


def tested_images(scores: Scores, target: str) -> int | None:
    """How many test images a target has: as the file says, else as the records do; None before any run."""
    size = scores.benchmark.domains[target].size("test")
    return size if size is not None else scores.images(target) or None


def train_images(scores: Scores, name: str) -> int | None:
    """How many training images a run has of a domain: as the file says, else as its index does; None without one."""
    size = scores.benchmark.domains[name].size("train")
    if size is not None:
        return size
    path = data_folder(scores, name) / "index.parquet"
    try:
        splits = pq.read_table(path, columns=["split"], use_threads=False)["split"].to_pylist()
    except (OSError, pa.ArrowException):
        return None
    return sum(split == "train" for split in splits) or None


def data_notes(scores: Scores) -> list[str]:
    """What the indices of the domains say of their data: images without a label, files that are not used, and so on."""
    notes = dict[str, None]()
    for name in scores.benchmark.domains:
        try:
            metadata = pq.read_schema(data_folder(scores, name) / "index.parquet").metadata or {}
            found = json.loads(metadata.get(b"notes", b"[]"))
        except (OSError, ValueError, pa.ArrowException):  # whoever opens the index says so
            continue
        notes |= dict.fromkeys(map(str, found)) if isinstance(found, list) else {}
    return list(notes)


def data_folder(scores: Scores, name: str) -> Path:
    """Where the index of a domain lies, and what is shown of it."""
    return scores.records.results / scores.benchmark.name / "data" / name


def title(scores: Scores, name: str) -> str:
    """How a domain is called."""
    return scores.benchmark.domains[name].title or name


def target_title(scores: Scores, column: str) -> str:
    """The heading of a target or average."""
    domain = scores.benchmark.domains.get(column)
    return (domain.title if domain and column in scores.benchmark.targets else "") or column


def strength(scores: Scores, row: str) -> float | None:
    """How strongly the generated images of a row are misaligned; None where nobody knows, as on real data."""
    domain = scores.benchmark.domains[scores.benchmark.generated_of(row)]
    return domain.misalignment


def training_text(scores: Scores) -> str:
    """``800 source and 350 generated images``; of data sets their titles, and which part is taken of them."""
    benchmark = scores.benchmark
    names = list(dict.fromkeys((benchmark.source, benchmark.generated)))
    kinds = {benchmark.generated: "generated", benchmark.source: "source"}
    parts = []
    for name in names:
        domain, count = benchmark.domains[name], train_images(scores, name)
        if domain.rendered:
            parts.append(f"{count} {kinds[name]}")
        else:
            parts.append(f"{title(scores, name)}{_part_text(domain.parts['train'], count)}")
    text = " and ".join(parts)
    return f"{text} images" if benchmark.domains[names[-1]].rendered else text


def _part_text(part: Part, count: int | None) -> str:
    drawn = ", drawn by the run's seed" if part.images else ""
    return f" ({f'{count} images, ' if count else ''}split {part.split}{drawn})"


def images_text(scores: Scores, target: str) -> str:
    """``200 images``, as far as known."""
    count = tested_images(scores, target)
    return f"{count} images" if count else "images not counted"


def sizes_text(scores: Scores) -> str:
    """The size at which test images are shown to the network; targets that share one are named together."""
    world, protocol = scores.benchmark.world, scores.benchmark.protocol
    if protocol.size is None and not protocol.sizes and world is not None and not _sets(scores):
        return f"{world.height} × {world.width} px"
    return _by_value(scores, lambda target: _size_text(protocol.size_of(target)))


def _size_text(size: Size) -> str:
    words = []
    if size.fit:
        words.append(f"to fit {size.fit[0]} × {size.fit[1]} px")
    if size.height:
        words.append(f"{size.height} px high")
    if size.crop:
        words.append(f"cut or filled up to {size.crop[0]} × {size.crop[1]} px")
    return (", ".join(words) or "as they are") + (", labels likewise" if size.labels else "")


def inference_text(scores: Scores) -> str:
    """``whole image``, or the windows."""
    protocol = scores.benchmark.protocol
    if protocol.window is None or protocol.stride is None:
        return f"{protocol.inference} image"
    window, stride = ("{} × {}".format(*each) for each in (protocol.window, protocol.stride))
    return f"windows of {window} px, stride {stride}"


def label_maps_text(scores: Scores) -> str:
    """By which map each target's labels came to the classes, as its records say, else the benchmark file."""
    return _by_value(scores, lambda target: _label_map(scores, target))


def _label_map(scores: Scores, target: str) -> str:
    for run in scores.records.finished():
        if target in run.targets and run.targets[target].label_map:
            return run.targets[target].label_map
    domain = scores.benchmark.domains[target]
    described = load_set(domain.dataset, scores.benchmark.datasets)
    return domain.label_map or described.label_map or scores.benchmark.class_set.id


def protocol_text(scores: Scores) -> str:
    """Size, inference, classes, label maps, checkpoint and boundary band, in one line."""
    protocol = scores.benchmark.protocol
    parts = [f"{sizes_text(scores)}, {inference_text(scores)}"]
    if protocol.classes:
        parts.append(f"{len(class_places(scores))} classes ({protocol.classes})")
    elif not scores.benchmark.class_set.is_default:
        parts.append(f"{len(class_places(scores))} classes ({scores.benchmark.class_set.id})")
    parts.append(f"labels {label_maps_text(scores)}")
    parts.append(f"checkpoint: {protocol.checkpoint}, boundary band {protocol.boundary_band} px")
    return "; ".join(parts) if _sets(scores) else ", ".join(parts)


def _sets(scores: Scores) -> bool:
    return not all(scores.benchmark.domains[target].rendered for target in scores.benchmark.targets)


def _by_value(scores: Scores, describe: Callable[[str], str]) -> str:
    """``A, B this; C that``; just ``this`` where all targets have it."""
    found: dict[str, list[str]] = {}
    for target in scores.benchmark.targets:
        found.setdefault(describe(target), []).append(target_title(scores, target))
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{', '.join(titles)} {text}" for text, titles in found.items())
