"""The data of a benchmark: render its domains, index its data sets, and open the results."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flexseg.benchmark import Benchmark, Domain, Part, Size, World, WorldDomain, fingerprint
from flexseg.benchmark.schedule import Resize
from flexseg.classes import CITYSCAPES, ClassSet
from flexseg.console import progress_bar
from flexseg.data.index import INDEX_NAME, Index, read_index, write_index
from flexseg.errors import UserError, did_you_mean
from flexseg.files import disk_errors, file_stem, replacing


def domain_folder(results: Path, benchmark: Benchmark, domain: str) -> Path:
    """The folder of a domain; for a data set it holds only the index and the images that the reports show."""
    return results / benchmark.name / "data" / domain


def sets_folder(results: Path) -> Path:
    """The folder of the journals of checked data sets, shared by all benchmarks."""
    return results / "datasets"


def make_dataset(benchmark: Benchmark, domain: str, results: Path, workers: int = 1) -> None:
    """Write the index of a domain into ``results/<benchmark>/data/<domain>``; render it there first if it is ours.

    Raises:
        UserError: the benchmark has no such domain; the data set is missing, incomplete or damaged.
    """
    if domain not in benchmark.domains:
        hint = did_you_mean(domain, benchmark.domains)
        raise UserError(
            f"benchmark {benchmark.name} has no domain {domain!r}{hint}; it has {', '.join(benchmark.domains)}"
        )
    settings, folder = benchmark.domains[domain], domain_folder(results, benchmark, domain)
    name = fingerprint(benchmark.domain_definition(domain))
    with disk_errors(folder):
        if settings.rendered:
            assert benchmark.world is not None
            (folder / INDEX_NAME).unlink(missing_ok=True)  # else it would vouch for half a domain
            render_domain(settings, folder, benchmark.world, domain)
        dataset, located = set_of(benchmark, domain), locate_domain(benchmark, domain, results)
        cache = None if settings.rendered else sets_folder(results)  # what was just rendered is in no journal
        index = build_index(settings, located, name, cache, workers, domain, dataset, benchmark.class_set)
        # What lies on disk is Cityscapes' classes where the suite renders, and can be shown as it is.
        if settings.has("test") and not (settings.rendered and benchmark.class_set.is_default):
            _write_examples(index, folder / "shown", benchmark.predictions, benchmark.protocol.size_of(domain))
        write_index(folder, index)  # last, as it shows that the domain is complete


def render_domain(settings: WorldDomain, root: Path, world: World, name: str) -> None:
    """Render all images of a domain below ``root``, as ``world`` says; what was there before is removed."""
    from flexseg.world.write import write_domain

    for folder in ("leftImg8bit", "gtFine"):
        remove_folder(root / folder, root)
    counts = {split: part.expected or 0 for split, part in settings.parts.items()}
    with progress_bar(f"rendering {name}", sum(counts.values())) as advance:
        for split, count in counts.items():
            write_domain(
                root,
                settings.world,
                split,
                count,
                height=world.height,
                width=world.width,
                version=world.version,
                misalignment=settings.misalignment,
                progress=lambda _: advance(1),
            )


def remove_folder(folder: Path, domain: Path) -> None:
    """Remove a folder of rendered images, which must be in its ``domain``'s (:func:`require_own`)."""
    require_own(folder, domain)
    if folder.exists():
        shutil.rmtree(folder)


def require_own(folder: Path, domain: Path) -> None:
    """Check that a folder whose content is replaced lies in the folder of its ``domain``.

    Nothing is removed behind a link: a domain's folder may have been replaced by one to somebody's data set.

    Raises:
        UserError: it lies somewhere else, or is a link.
    """
    for place in (domain, folder):
        if place.is_symlink():
            raise UserError(f"{place} is a link: nothing is removed or written behind it. Remove the link")
    if not folder.resolve().is_relative_to(domain.resolve()) or folder.resolve() == domain.resolve():
        raise UserError(f"{folder} is not in {domain}: nothing is removed there")


def build_index(
    settings: Domain,
    located: Any,
    fingerprint: str,
    cache: Path | None = None,
    workers: int = 1,
    name: str = "",
    dataset: Any = None,
    classes: ClassSet = CITYSCAPES,
) -> Index:
    """Build the index of a domain without writing it; every pair is read and checked.

    Args:
        located: where the data are (:class:`flexseg.data.layouts.Located`). cache: the folder of the journals.
        dataset: what describes them, by default the suite's file of that name. classes: what the labels become.

    Raises:
        UserError: the data are incomplete or damaged.
    """
    import pandas as pd

    from flexseg.data.indexing import index_set, select
    from flexseg.data.plausible import check_content
    from flexseg.data.sets import load_set

    dataset = dataset or load_set(settings.dataset)
    listings = {split: list_domain_pairs(dataset, located, part, settings) for split, part in settings.parts.items()}
    tables, notes, seen, label_map = [], list[str](), set[str](), settings.label_map
    for listing in listings.values():
        seen.update(pair.id for pair in listing.pairs)
        seen.update(listing.unlabelled)
    if problem := unknown_skips(settings, seen):
        if not takes_part(settings):
            raise UserError(problem)
        notes.append(f"{dataset.title}: {problem}")
    with progress_bar(
        f"checking {name or settings.dataset}", sum(len(each.pairs) for each in listings.values())
    ) as advance:
        for split, part in settings.parts.items():
            pairs = listings[split].pairs
            found = index_set(dataset, located, part.split, cache, label_map, pairs, workers, advance, classes)
            chosen = select(found, split, settings.conditions, settings.skip)
            said = listings[split].notes(listings[split].unlabelled, settings.skip)
            said += check_content(dataset, part.split, chosen, classes)
            notes += [f"{dataset.title}, {part.split}: {note}" for note in said]
            tables.append(chosen)
    notes = list(dict.fromkeys(notes))  # two parts may be of one split
    print(*notes, sep="\n", end="\n" if notes else "")
    used_map, encoding = dataset.map_of(located.layout, label_map), dataset.encoding_of(located.layout)
    mapping = dataset.load_map(used_map, classes)
    return Index(located.root, fingerprint, pd.concat(tables), used_map, encoding, tuple(notes), mapping)


def unknown_skips(settings: Domain, there: Collection[str]) -> str:
    """Say which names of a domain's ``skip:`` are none of ``there``, the ids in all of its splits.

    Such a name is a mistake, unless the domain :func:`takes_part` of the set.
    """
    unknown = [name for name in settings.skip if name not in there]
    if not unknown:
        return ""
    which = ", ".join(part.split for part in settings.parts.values())
    hint = did_you_mean(unknown[0], there)
    return f"skip names {len(unknown)} images that are not in {settings.dataset}, {which}: first {unknown[0]!r}{hint}"


def takes_part(settings: Domain) -> bool:
    """Whether ``expected:`` says that only a part of the set is used, so that images may not be there."""
    return any(part.expected for part in settings.parts.values())


def list_domain_pairs(dataset: Any, located: Any, part: Part, settings: Domain) -> Any:
    """List what a domain takes of a set (:class:`flexseg.data.layouts.Inventory`), and check that it is whole.

    Images without a label are no fault if they are skipped, known as bad, allowed (``unlabelled``), or if the number of
    pairs is the one that the benchmark expects.

    Raises:
        UserError: there are more or fewer pairs than there should be, or labels are missing.
    """
    from flexseg.data.layouts import require_whole, take_inventory

    found = take_inventory(dataset, located, part.split)
    without = found.without({*settings.skip, *dataset.known_bad}, part)
    require_whole(dataset, located, part.split, found, without)
    expected = part.expected or dataset.split(part.split).images
    if expected is not None and expected not in found.numbers(without, settings.skip):
        use_it = f"say `expected: {len(found.pairs)}` beside the split if this is what you want to use"
        raise UserError(
            f"{located.root} holds {len(found.pairs)} of the {expected} images of {dataset.title}, {part.split}"
            + "".join(f"; {note}" for note in found.notes(without, settings.skip))
            + f": {dataset.remedy(f'unpack its archives again, or {use_it}')}"
        )
    return found


def _write_examples(index: Index, folder: Path, count: int, size: Size) -> None:
    """Write the test images whose predictions are kept, and their labels as trainIds, for the reports."""
    from PIL import Image

    from flexseg.data.pool import open_pool, spread
    from flexseg.engine.inference import prepare_image, prepare_label

    pool = open_pool([(index, "test")], memory=0)
    require_own(folder, folder.parent)
    written = set()
    for place in spread(len(pool), count):
        image, label = pool.images[place], pool.labels[place]
        if size.labels:
            image, label = prepare_image(image, size), prepare_label(label, size)
        for ending, pixels in (("png", image), ("label.png", label)):
            path = folder / f"{file_stem(pool.ids[place])}.{ending}"
            with replacing(path) as temporary:
                Image.fromarray(pixels).save(temporary, format="png")
            written.add(path)
    for path in set(folder.glob("*.png")) - written:  # last, so that a full disk takes nothing away
        path.unlink()


def set_of(benchmark: Benchmark, domain: str) -> Any:
    """What describes a domain's data set (:class:`flexseg.data.sets.DataSet`): the suite's file, or one of one's own.

    Raises:
        UserError: there is none, or it is wrong.
    """
    from flexseg.data.sets import load_set

    return load_set(benchmark.domains[domain].dataset, benchmark.datasets)


def locate_domain(benchmark: Benchmark, domain: str, results: Path) -> Any:
    """Find a domain's images and their layout (:class:`flexseg.data.layouts.Located`).

    Raises:
        UserError: a data set is missing or not as it should be; says where it was looked for and what to do.
    """
    from flexseg.data.layouts import Located, locate
    from flexseg.data.places import data_root

    settings, dataset = benchmark.domains[domain], set_of(benchmark, domain)
    if settings.rendered:
        return Located(domain_folder(results, benchmark, domain), dataset.layouts[0])
    return locate(dataset, data_root(benchmark.data_root), settings.root)


def open_index(benchmark: Benchmark, domain: str, results: Path) -> Index:
    """Read the index of a domain and check that it belongs to the benchmark's definition of it."""
    name = fingerprint(benchmark.domain_definition(domain))
    dataset, located = set_of(benchmark, domain), locate_domain(benchmark, domain, results)

    def load(label_map: str) -> Any:
        return dataset.load_map(label_map, benchmark.class_set)

    return read_index(domain_folder(results, benchmark, domain), name, located.root, load)


def require_indices(benchmark: Benchmark, results: Path) -> None:
    """Make the indices of the targets that have none of their present definition."""
    for target in benchmark.targets:
        try:
            open_index(benchmark, target, results)
        except UserError:  # if more than the index is missing, make_dataset says so
            make_dataset(benchmark, target, results)


def training_pool(
    benchmark: Benchmark, indices: Mapping[str, Index], seed: int, resize: Resize | None, results: Path
) -> Any:
    """Open the training images of these domains as one :class:`flexseg.data.pool.Pool`, in order.

    If a benchmark uses only part of a data set, the run's seed draws the images.

    Args:
        indices: by domain. resize: of every training image, or None to leave them as they are.
    """
    from flexseg.data.frames import cache_folder
    from flexseg.data.pool import open_pool
    from flexseg.data.sampling import subset

    parts: list[Any] = []
    for domain, index in indices.items():
        settings = benchmark.domains[domain]
        wanted = settings.parts["train"].images
        if wanted is None:
            parts.append((index, "train"))
        else:  # by the folder's name, so that parts of one folder are nested across domains
            name = settings.root or settings.dataset
            parts.append((index, "train", subset(len(index.split("train")), wanted, seed, name)))
    sizes = [training_size(benchmark, domain, resize) for domain in indices]
    frames = cache_folder(results)
    return open_pool(parts, resize=sizes, frames=frames if frames.is_dir() else None)


def training_size(benchmark: Benchmark, domain: str, resize: Resize | None) -> Resize | None:
    """How a domain's training images are resized: as it says itself, or as the schedule does."""
    return benchmark.domains[domain].resize or resize


def cache_frames(benchmark: Benchmark, results: Path, workers: int) -> list[str]:
    """Decode all training images of the benchmark's rows at training size into the cache; return lines to print.

    A domain without an index of its present definition is made first.

    Raises:
        UserError: the data are missing or damaged, or the disk has no room for the frames.
    """
    from flexseg.data.frames import cache_folder, frames_of, measure_need, write_frames

    frames = []
    for domain in sorted(benchmark.training_domains):
        try:
            index = open_index(benchmark, domain, results)
        except UserError:  # if more than the index is missing, make_dataset says so
            make_dataset(benchmark, domain, results, workers)
            index = open_index(benchmark, domain, results)
        for size in {
            training_size(benchmark, domain, benchmark.training_of(row).resize) for row in benchmark.trained_rows
        }:
            frames += frames_of(index, "train", size)
    folder = cache_folder(results)
    need = measure_need(frames, folder)
    with progress_bar("caching frames", need.frames) as advance, disk_errors(folder):
        written = write_frames(frames, folder, workers, advance)
    return [str(need), f"{written:,} frames written; trainings find them by themselves"]
