"""How a folder of images and labels is arranged: what is an image, what its label, and which splits there are.

Names decide: a file is paired with the file whose name and folders are the same but for some words (``images/a/1.jpg``
and ``masks/a/1_mask.png``). Every such rule that a sample of the files obeys is tried on all of them, and the one that
pairs most images wins. What is an image and what a label is seen in the files themselves.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from flexseg.data.images import decode_raw, read_file
from flexseg.data.templates import PICTURES
from flexseg.errors import UserError
from flexseg.tasks.folder_labels import MOST_COLOURS, count_runs
from flexseg.tasks.folder_rules import (
    IMAGE_WORDS,
    LABEL_WORDS,
    LOOKED_AT,
    OTHER_WORDS,
    SPLIT,
    TRIED,
    Picture,
    Rule,
    Side,
    Step,
    apply_rule,
    endings_of,
    spread,
    suggest_rules,
)


@dataclass(frozen=True)
class Arrangement:
    """What was found: the form of images and labels, and everything that a data set's file says about it.

    ``image`` and ``labels`` are templates, ``fields`` regular expressions, ``splits`` the names of the splits (none:
    the images are not divided), ``lists`` the files that divide them instead.
    """

    image: str
    labels: list[str]
    id: str = "{id}"
    fields: dict[str, str] = field(default_factory=dict)
    besides: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    lists: dict[str, str] = field(default_factory=dict)
    conditions: list[str] = field(default_factory=list)


def find_arrangement(root: Path) -> Arrangement:
    """Find out how the images and labels below ``root`` are arranged. Nothing is written there.

    Raises:
        UserError: there is no picture, none has a label, or a name cannot be written in a template.
    """
    pictures, others = _list_pictures(root)
    if not pictures:
        packed = [name for name in others if name.lower().endswith((".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"))]
        hint = f". Unpack {packed[0]} first" if packed else ""
        raise UserError(f"{root} holds no picture (looked for {', '.join(PICTURES)}){hint}")
    rules, suggested = _rank_rules(root, pictures)
    if not rules:
        kinds = Counter("/".join(picture.folders) or "." for picture in pictures)
        listed = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(5))
        raise UserError(
            f"{root} holds {len(pictures)} pictures, but none can be paired with a label. They lie in {listed}. A "
            "label is a PNG whose folders and name are those of its image but for a word: images/1.jpg with "
            "labels/1.png, train/1.jpg with train_masks/1.png, 1.jpg with 1_mask.png"
        )
    return _describe(root, rules[0], suggested, pictures, others)


def _list_pictures(root: Path) -> tuple[list[Picture], list[str]]:
    """All pictures below a folder, and the paths of all other files; links are followed, but not in circles."""
    pictures, others, seen = list[Picture](), list[str](), set[str]()

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): change that, or move it away") from error

    for folder, below, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith(".") and is_text(name))
        folders = Path(folder).relative_to(root).parts
        for name in sorted(name for name in names if not name.startswith(".") and is_text(name)):
            stem, ending = os.path.splitext(name)
            if ending.lower() in PICTURES:
                pictures.append(Picture(folders, stem, ending))
            else:
                others.append("/".join((*folders, name)))
    return pictures, others


def is_text(name: str) -> bool:
    """Whether a name is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


READ = (".png", ".jpg", ".jpeg", ".jfif", ".webp")
"""The endings of images that can be decoded."""
RANKED = ("grey16", "other", "colours", "red16", "bits", "index")
"""What may be a label, the likeliest last."""


Look = tuple[str, tuple[int, ...]]


def _rank_rules(root: Path, pictures: list[Picture]) -> tuple[list[Rule], list[Rule]]:
    """The rules that pair images with labels, the best first; and all that pair anything."""
    there, seen = endings_of(pictures), dict[str, Look]()
    found, tried, suggested = [], spread(pictures, TRIED), suggest_rules(pictures)
    for rule in suggested:
        pairs = list(apply_rule(rule, tried, there))
        looked = [
            (_look(root, image.path, seen), _look(root, label, seen)) for image, label in spread(pairs, LOOKED_AT)
        ]
        fits = sum(
            image == "image" and label in RANKED and size == its_size for (image, size), (label, its_size) in looked
        )
        words, known = _judge_words(rule), 2 * fits >= len(looked)
        if pairs and (known or words > 1):
            rank = max((RANKED.index(label) for _, (label, _) in looked if label in RANKED), default=0)
            fixed = sum(not step.field for side in rule for step in side.steps)
            fixed += sum(bool(text) for side in rule for text in (side.before, side.after))
            found.append(((known, words >= 0, len(pairs), words, rank, -fixed), rule))
    return [rule for _, rule in sorted(found, key=lambda each: each[0], reverse=True)], suggested


def _look(root: Path, path: str, seen: dict[str, Look]) -> Look:
    """Whether a file is an ``image``, a label (its encoding), or ``broken``; and its size."""
    if path not in seen:
        try:
            raw = decode_raw(root / path, read_file(root / path))
            kind, size = str(raw.encoding), raw.pixels.shape[:2]
            if kind == "colours" and len(count_runs(raw.pixels)[0]) > min(MOST_COLOURS, size[0] * size[1] / 8):
                kind = "image"
            seen[path] = kind, size
        except UserError:
            seen[path] = "broken", ()
    return seen[path]


def _judge_words(rule: Rule) -> float:
    """How much a rule's words say that its second side is the labels."""
    image, label = rule.image.words - rule.label.words, rule.label.words - rule.image.words
    score = 2.0 * bool(label & LABEL_WORDS) + bool(image & IMAGE_WORDS) + 0.5 * ("train" in label and "ids" in label)
    return score - 3 * bool(label & OTHER_WORDS) - 2 * bool(image & (LABEL_WORDS | OTHER_WORDS) - IMAGE_WORDS)


def _describe(root: Path, best: Rule, suggested: list[Rule], pictures: list[Picture], others: list[str]) -> Arrangement:
    """The best rule as templates, its fields named after what they hold."""
    there = endings_of(pictures)
    pairs = list(apply_rule(best, pictures, there))
    bound = [fields for picture, _ in pairs if (fields := best.image.bind(picture))]
    values = {name: sorted({fields[name] for fields in bound}) for name in bound[0] if name != "id"}
    names, fixed = _name_fields(values)
    image, label = (_rename(side, names, fixed) for side in best)
    splits = values.get(next((old for old, new in names.items() if new == "split"), ""), [])
    conditions = values.get(next((old for old, new in names.items() if new == "condition"), ""), [])
    own = {picture.ending for picture, _ in pairs}
    if foreign := sorted(each for each in own if each.lower() not in READ):
        raise UserError(
            f"{root}: its images are {', '.join(foreign)} files, which are not read: write them anew as PNG, "
            "for instance `Image.open(path).convert('RGB').save(new_path)` with Pillow"
        )
    endings = sorted(own - ({best.label.ending} if best.label.ending and own - {best.label.ending} else set()))
    fields = {}
    if len(endings) > 1:
        fields["type"] = "|".join(ending[1:] for ending in endings)
    ending = endings[0] if len(endings) == 1 else ".{type}"
    labels = sorted({os.path.splitext(path)[1] for _, path in pairs}, key=lambda each: (each.lower() != ".png", each))
    besides = _find_others(suggested, best, names, fixed)
    forbidden = [side for side in (label, *besides) if side.steps == image.steps]
    guard = "".join(f"(?!{re.escape(side.before)})" for side in forbidden if side.before and not image.before)
    tail = "".join(f"(?<!{re.escape(side.after)})" for side in forbidden if side.after and not image.after)
    if guard or tail:
        fields["id"] = f"{guard}[^/]+{tail}"
    more = [new for old, new in names.items() if new != "split"]
    _refuse_braces(root, [image, label])
    arrangement = Arrangement(
        image.template(ending),
        [label.template(each) for each in labels],
        "-".join(f"{{{name}}}" for name in (*more, "id")) if more else "{id}",
        fields,
        [side.template(".png") for side in besides],
        splits,
        {},
        conditions,
    )
    if splits or more:
        return arrangement
    return replace(arrangement, lists=_find_lists(root, others, {picture.stem for picture, _ in pairs}))


def _name_fields(values: dict[str, list[str]]) -> tuple[dict[str, str], dict[str, str]]:
    """The new name of each field that varies or says the split, and the value of each that is the same everywhere."""
    names, fixed = dict[str, str](), dict[str, str]()
    split = next((name for name, found in values.items() if all(_is_split(each) for each in found)), None)
    for name, found in values.items():
        if name == split:
            names[name] = "split"
        elif len(found) == 1:
            fixed[name] = found[0]
        elif len(found) <= 8 and "condition" not in names.values():
            names[name] = "condition"
        else:
            names[name] = "folder" if "folder" not in names.values() else f"folder{len(names)}"
    return names, fixed


def _is_split(name: str) -> bool:
    return re.fullmatch(rf"{SPLIT}[\W\d_]*(?i:set|data|split)?", name) is not None


def _rename(side: Side, names: dict[str, str], fixed: dict[str, str]) -> Side:
    steps = tuple(
        Step(f"{step.before}{fixed[step.field]}{step.after}")
        if step.field in fixed
        else step._replace(field=names[step.field])
        if step.field
        else step
        for step in side.steps
    )
    return replace(side, steps=steps)


def _find_others(rules: list[Rule], best: Rule, names: dict[str, str], fixed: dict[str, str]) -> list[Side]:
    """The forms of further files that belong to the same images, such as pictures of the labels."""
    near = [rule.label for rule in rules if rule.image == best.image and rule.label != best.label]
    folders = (best.label.steps, best.image.steps)
    return list(
        dict.fromkeys(_rename(side, names, fixed) for side in near if side.steps in folders and not side.ending)
    )


def _refuse_braces(root: Path, sides: list[Side]) -> None:
    for side in sides:
        texts = (*(step.before + step.after for step in side.steps), side.before, side.after)
        if wrong := [text for text in texts if "{" in text or "}" in text]:
            raise UserError(
                f"{root}: the name {wrong[0]!r} holds a brace, which a data set's file cannot write: rename it"
            )


def _find_lists(root: Path, others: list[str], stems: set[str]) -> dict[str, str]:
    """Text files that name the images of a split, by its name: those all of whose names are images with a label."""
    found = dict[str, str]()
    for path in sorted(others, key=lambda each: (each.count("/"), each)):
        name, ending = os.path.splitext(path.rpartition("/")[2])
        if ending != ".txt" or not re.fullmatch(SPLIT, name) or name in found:
            continue
        try:
            lines = (root / path).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        listed = {Path(line.strip()).name for line in lines if line.strip()}
        if listed and all(each in stems or os.path.splitext(each)[0] in stems for each in listed):
            found[name] = path
    return found
