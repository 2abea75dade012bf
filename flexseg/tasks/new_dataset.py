"""``flexseg new-dataset``: describe a folder of images and labels as a data set of one's own.

It looks at the folder and writes ``datasets/<name>.yaml``, complete but for what only a person knows: the class that
each id counts as. The folder itself is only read.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from flexseg.benchmark.values import check_name
from flexseg.console import printable, progress_bar
from flexseg.data.label_maps import TODO
from flexseg.data.layouts import Inventory, Located, locate, take_inventory
from flexseg.data.places import data_root
from flexseg.data.sets import SETS, DataSet
from flexseg.errors import UserError
from flexseg.files import replacing
from flexseg.tasks.folder_labels import Content, Convention, examine_labels, recognise, split_colour
from flexseg.tasks.folder_layout import Arrangement, find_arrangement, is_text
from flexseg.yaml_files import parse_yaml

GUIDE = "docs/own_data.md"


@dataclass(frozen=True)
class Found:
    """What was found in a folder, and the file that describes it.

    ``inventories`` are by split; ``examined`` is how many of the ``pairs`` were decoded.
    """

    path: Path
    folder: Path
    arrangement: Arrangement
    inventories: dict[str, Inventory]
    content: Content
    convention: Convention
    examined: int

    @property
    def pairs(self) -> int:
        """The number of pairs; an image of two splits counts once."""
        return len({pair.image for found in self.inventories.values() for pair in found.pairs})

    @property
    def open(self) -> int:
        """How many ids wait for their class."""
        if self.convention.label_map:
            return 0
        return sum(self.convention.names.get(value, ("", TODO))[1] == TODO for value in self.content.ids)


def describe_folder(folder: Path, name: str, images: int, datasets: Path) -> Found:
    """Look at ``folder`` and write ``datasets/<name>.yaml``.

    Args:
        name: of the data set; by default made from the folder's. images: how many pairs are decoded, 0 for all.

    Raises:
        UserError: the name cannot be used or is taken, the folder is none, or what it holds cannot be read as pairs of
            images and labels. Nothing is written then.
    """
    folder = Path(os.path.abspath(folder.expanduser()))  # links stay: the name that people know
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}: give the folder that holds the images and labels")
    if not is_text(str(folder)):
        raise UserError(
            f"{printable(str(folder))} has a name that is not UTF-8, which no YAML file can hold: rename it"
        )
    path = _check_name(name or _make_name(folder.name), datasets, given=bool(name))
    if datasets.absolute().resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{datasets}/ lies in {folder}, in which nothing is written: give the folder of the images itself"
        )
    arrangement = find_arrangement(folder)
    dataset = _read(path, {"label_map": "train_ids"} | _describe_files(path.stem, folder, arrangement, {}))
    located = locate(dataset, data_root(), str(folder))
    inventories = _take_inventories(dataset, located)
    pairs = sorted({pair.image: pair for found in inventories.values() for pair in found.pairs}.values())
    chosen = pairs if images == 0 else [pairs[place * len(pairs) // images] for place in range(images)]
    chosen = list(dict.fromkeys(chosen))
    with progress_bar("decoding images and labels", len(chosen)) as advance:
        content = examine_labels(chosen, advance)
    convention = recognise(content, [*arrangement.labels, folder.name])
    found = Found(path, folder, arrangement, inventories, content, convention, len(chosen))
    text = _write_text(found)
    _read(path, parse_yaml(text, numbered=True))  # before anything is written
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return found


def _make_name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:80]


def _check_name(name: str, datasets: Path, given: bool) -> Path:
    """The file of a data set of this name, which does not exist yet."""
    another = "choose another one with --name" if given else "give one with --name"
    try:
        check_name(name)
    except ValueError as error:
        raise UserError(f"{error}: {another}") from error
    if (SETS / f"{name}.yaml").is_file():
        raise UserError(f"{name!r} is a data set that the suite knows: {another}, or use that one (docs/data.md)")
    path = datasets / f"{name}.yaml"
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists and is not overwritten: {another}, or remove that file first")
    if not (datasets.parent / "benchmarks").is_dir():
        raise UserError(f"{datasets.parent / 'benchmarks'} is no folder: call this in the top folder of the repository")
    return path


def _read(path: Path, content: dict[str, Any]) -> DataSet:
    try:
        return DataSet.model_validate({"name": path.stem} | content)
    except ValidationError as error:
        raise UserError(f"this folder cannot be described: {error.errors()[0]['msg']}") from error


def _place(folder: Path) -> str:
    """Where the set is, for its file: below the data root if it lies there, so that the file also serves elsewhere."""
    root = data_root()
    if root and folder.is_relative_to(root) and folder != root:
        return folder.relative_to(root).as_posix()
    return str(folder)


def _describe_files(name: str, folder: Path, found: Arrangement, counts: dict[str, int]) -> dict[str, Any]:
    """The keys of a data set's file about its files; ``counts`` are the pairs of each split, once they are known."""
    layout: dict[str, Any] = {"name": "as found", "image": found.image, "label": found.labels}
    layout |= {"id": found.id} if found.id != "{id}" else {}
    layout |= {"fields": found.fields} if found.fields else {}
    layout |= {"besides": found.besides} if found.besides else {}
    splits: dict[str, dict[str, Any]] = {each: {} for each in found.splits or found.lists or ["all"]}
    for split, file in found.lists.items():
        splits[split] = {"listing": {"file": file}}
    for split, count in counts.items():
        splits[split] = {"images": count} | splits[split]
    return {
        "title": name.replace("_", " ").capitalize(),
        "folders": [_place(folder)],
        "layouts": [layout],
        "splits": splits,
    }


def _take_inventories(dataset: DataSet, located: Located) -> dict[str, Inventory]:
    """What each split holds; splits without a pair are left out."""
    found = {split: take_inventory(dataset, located, split) for split in dataset.splits}
    for inventory in found.values():
        if inventory.unread:
            place, reason = next(iter(inventory.unread.items()))
            raise UserError(f"{place} cannot be read ({reason}): change that, or move it away")
    return {split: inventory for split, inventory in found.items() if inventory.pairs}


def _quote(value: Any) -> str:
    """A text, list or mapping as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(key)}: {_quote(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_quote, value)) + "]"
    return value if isinstance(value, str) and _is_plain(value) else json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z/][\w/.-]*(?: [\w/.-]+)*", text) is not None and parse_yaml(text) == text


def _write_text(found: Found) -> str:
    """The file of the data set."""
    content, convention, name = found.content, found.convention, found.path.stem
    counts = {split: len(inventory.pairs) for split, inventory in found.inventories.items()}
    keys = _describe_files(name, found.folder, found.arrangement, counts)
    keys["splits"] = {split: keys["splits"][split] for split in counts}
    layout = keys["layouts"][0]
    lines = [
        f"# As `flexseg new-dataset` found it: {_count(found.pairs, 'pair')}, of which {found.examined} were decoded.",
        f"# What is missing are the classes: each {TODO} below. {GUIDE} explains every key.",
        f"title: {_quote(keys['title'])}",
        f"folders: {_quote(keys['folders'])}",
        f"label_map: {convention.label_map or name}",
        f"encoding: {content.encoding}",
        "layouts:",
        *(
            f"  {'-' if place == 0 else ' '} {key}: {_quote(value)}"
            for place, (key, value) in enumerate(layout.items())
        ),
        "splits:",
        *(f"  {_quote(split)}: {_quote(keys['splits'][split])}" for split in counts),
    ]
    if convention.label_map:
        return "\n".join([*lines[:4], f"# {convention.text}: the suite's own map.", *lines[4:]]) + "\n"
    lines += [
        "label_maps:",
        f"  {name}:",
        f"    source: {_quote(f'the labels in {found.folder.name}, as they were found')}",
        *(["    # " + convention.text] if convention.text else []),
        "    classes:",
        "      # id: [its name, the class of the benchmark that it counts as, or void]     share of pixels, labels",
        *_describe_ids(content, convention),
    ]
    return "\n".join(lines) + "\n"


def _describe_ids(content: Content, convention: Convention) -> list[str]:
    """A line for each id or colour, in order; colours, the most frequent first, get ids from 0 on."""
    order = content.ids
    if content.encoding == "colours":
        order = sorted(order, key=lambda value: -content.pixels[value])
    lines = []
    for place, value in enumerate(order):
        number = place if content.encoding == "colours" else value
        title, class_name = convention.names.get(value, (f"id {number}", TODO))
        shown = [_quote(title), _quote(class_name)]
        if content.encoding == "colours":
            shown.append(_quote(list(split_colour(value))))
        colour = f", palette {content.palette[value]}" if value in content.palette else ""
        note = f"# {_percent(content.share(value))}, in {content.images[value]} of {content.labels}{colour}"
        lines.append(f"      {f'{number}: [' + ', '.join(shown) + ']':36}{note}")
    return lines


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 0.0001 else "under 0.01%"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def print_found(found: Found, console: Console) -> None:
    """Print what was found as a table, and what to do next."""
    content, arrangement = found.content, found.arrangement
    table = Table(title=printable(f"{found.path.stem}: {found.folder}"), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    sizes = content.sizes.most_common()
    shown = ", ".join(f"{width}×{height} ({count})" for (height, width), count in sizes[:4])
    shown += f", {len(sizes) - 4} others" if len(sizes) > 4 else ""
    for heading, text in (
        ("images", arrangement.image),
        ("labels", " or ".join(arrangement.labels)),
        ("splits", ", ".join(f"{split} {len(each.pairs):,}" for split, each in found.inventories.items())),
        ("conditions", ", ".join(arrangement.conditions)),
        ("width × height", shown),
        ("encoding", _describe_encoding(content)),
        ("convention", found.convention.text),
        ("decoded", f"{found.examined:,} of {_count(found.pairs, 'pair')}"),
        (
            "not used",
            "\n".join(_describe_unused(found)) or "nothing: every image has its label, and every label its image",
        ),
        ("note", "\n".join(content.notes)),
    ):
        if text:
            table.add_row(heading, printable(text, breaks=True))
    console.print(table)
    _print_shares(found, console)
    for line in _next_steps(found):
        console.print(printable(line), soft_wrap=True)


def _describe_encoding(content: Content) -> str:
    kind = {"index": "8-bit ids", "colours": "colours", "red16": "16 bits, ids in the red channel"}[content.encoding]
    kind += " with a palette" if content.palette else ""
    what = "colours" if content.encoding == "colours" else "ids"
    return f"{kind}; {len(content.ids)} different {what}"


def _describe_unused(found: Found) -> list[str]:
    lines = list[str]()
    for split, inventory in found.inventories.items():
        for note in inventory.notes(list(inventory.unlabelled)):
            lines.append(f"{split}: {note}" if len(found.inventories) > 1 else note)
    if empty := [split for split in found.arrangement.splits if split not in found.inventories]:
        lines.append(f"{', '.join(empty)}: without labels")
    return lines


def _print_shares(found: Found, console: Console) -> None:
    """The ids with their shares, the most frequent first."""
    content = found.content
    order = sorted(content.ids, key=lambda value: -content.pixels[value])
    table = Table(title="share of the pixels", title_justify="left")
    for heading in ("colour" if content.encoding == "colours" else "id", "share", "in labels"):
        table.add_column(heading, justify="right")
    for value in order[:30]:
        name = str(split_colour(value)) if content.encoding == "colours" else str(value)
        table.add_row(name, _percent(content.share(value)), f"{content.images[value]} of {content.labels}")
    if len(order) > 30:
        table.add_row(f"… {len(order) - 30} more", "", "")
    console.print(table)


def _next_steps(found: Found) -> list[str]:
    name = found.path.stem
    lacking = Counter({split: len(each.unlabelled) for split, each in found.inventories.items() if each.unlabelled})
    splits = list(found.inventories)
    split = next((each for word in ("test", "val") for each in splits if word in each.lower()), splits[0])
    part = f"{{split: {split}, unlabelled: {lacking[split]}}}" if lacking[split] else split
    lines = [f"{found.path} is written. What to do next:"]
    if found.open:
        lines.append(
            f"  1. fill in its {_count(found.open, TODO)}: say which class of your benchmark each id is, or void"
        )
    else:
        lines.append(f"  1. see that the classes in {found.path} are right")
    lines += [
        f"  2. name it in a file in benchmarks/ ({GUIDE} has a complete one):",
        f"       domains: {{mine: {{dataset: {name}, title: My photographs, test: {part}}}}}",
        "  3. flexseg doctor NAME --full, which decodes and checks every pair",
        "  4. snakemake --cores all --config benchmark=NAME",
    ]
    return lines
