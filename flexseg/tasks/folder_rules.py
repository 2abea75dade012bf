"""Rules of how images pair with labels, guessed from the names of files.

A file is paired with the file whose name and folders are the same but for some words (``images/a/1.jpg`` and
``masks/a/1_mask.png``). Every such rule that a sample of the files obeys is suggested.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


def words_in(text: str) -> set[str]:
    """The words of a text, in lower case; ``labelIds`` has two."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)}


LABEL_WORDS = words_in(
    "label labels mask masks annot annots annotation annotations ann anno gt groundtruth truth "
    "ground seg segmentation segmentations semantic sem target targets lbl lab l"
)
IMAGE_WORDS = words_in("image images img imgs jpegimages rgb frame frames photo photos input inputs raw left sat")
OTHER_WORDS = words_in(
    "depth disparity instance instances panoptic flow edge edges color colour colors colours conf "
    "confidence invalid vis overlay preview normals"
)
"""What lies beside labels and is none, or only a picture of them."""
SPLIT = r"(?i:training|trainval|train|validation|valid|val|testing|test|dev|eval)"
SAMPLE, NEAR, CANDIDATES, TRIED, LOOKED_AT = 300, 40, 60, 3000, 3
"""Files that suggest rules, others of the same id and of a kind that are considered for each, rules that are tried, the
files that they are tried on, and pairs of a rule that are looked into."""


class Picture(NamedTuple):
    """A file that is a picture, going by its ending: its folders below the root, its stem and its ending."""

    folders: tuple[str, ...]
    stem: str
    ending: str

    @property
    def path(self) -> str:
        return "/".join((*self.folders, self.stem + self.ending))


class Step(NamedTuple):
    """A folder on the way to a file: the text ``before`` and ``after`` a field, or a fixed name without ``field``."""

    before: str
    field: str = ""
    after: str = ""

    def bind(self, name: str) -> str | None:
        """The value of the field in a folder's ``name``, the empty text if it has none; None if it does not match."""
        if not self.field:
            return "" if name == self.before else None
        end = len(name) - len(self.after)
        fits = name.startswith(self.before) and name.endswith(self.after) and end > len(self.before)
        return name[len(self.before) : end] if fits else None

    def __str__(self) -> str:
        return f"{self.before}{{{self.field}}}{self.after}" if self.field else self.before


@dataclass(frozen=True)
class Side:
    """The form of all images, or of all labels: folders, then ``before`` + id + ``after`` + an ending (empty: any)."""

    steps: tuple[Step, ...]
    before: str = ""
    after: str = ""
    ending: str = ""

    def bind(self, picture: Picture) -> dict[str, str] | None:
        """The fields of a picture of this form, ``id`` included; None if it is of another."""
        end = len(picture.stem) - len(self.after)
        named = picture.stem.startswith(self.before) and picture.stem.endswith(self.after) and end > len(self.before)
        if not named or len(picture.folders) != len(self.steps) or self.ending not in ("", picture.ending):
            return None
        fields = {"id": picture.stem[len(self.before) : end]}
        for step, name in zip(self.steps, picture.folders, strict=True):
            value = step.bind(name)
            if value is None:
                return None
            if step.field:
                fields[step.field] = value
        return fields

    def stem(self, fields: dict[str, str]) -> str:
        """The path that these fields make, without its ending."""
        folders = [
            f"{step.before}{fields[step.field]}{step.after}" if step.field else step.before for step in self.steps
        ]
        return "/".join((*folders, f"{self.before}{fields['id']}{self.after}"))

    def template(self, ending: str) -> str:
        """The path as a template of :mod:`flexseg.data.sets`."""
        return "/".join((*map(str, self.steps), f"{self.before}{{id}}{self.after}{ending}"))

    @property
    def words(self) -> set[str]:
        """The words in what is fixed, in lower case."""
        fixed = [text for step in self.steps for text in (step.before, step.after)]
        return words_in(" ".join((*fixed, self.before, self.after)))


Endings = dict[str, list[str]]
"""The endings that each path without its ending has, PNG first."""


def endings_of(pictures: Iterable[Picture]) -> Endings:
    found: Endings = {}
    for picture in sorted(pictures, key=lambda each: (each.ending.lower() != ".png", each.ending)):
        found.setdefault(picture.path.removesuffix(picture.ending), []).append(picture.ending)
    return found


_Cut = tuple[Picture, str, str]
"""A file, and what stands before and after the id in its name."""


class Rule(NamedTuple):
    """How images pair with labels."""

    image: Side
    label: Side


def spread(items: list, count: int) -> list:
    """At most ``count`` items, evenly spread."""
    if len(items) <= count:
        return items
    return [items[place * len(items) // count] for place in range(count)]


def apply_rule(rule: Rule, pictures: Iterable[Picture], there: Endings) -> Iterator[tuple[Picture, str]]:
    """The images that have a label by this rule, and its path."""
    for picture in pictures:
        fields = rule.image.bind(picture)
        if fields is None:
            continue
        stem = rule.label.stem(fields)
        for ending in there.get(stem, ()):
            if rule.label.ending in ("", ending) and stem + ending != picture.path:
                yield picture, stem + ending
                break


def suggest_rules(pictures: list[Picture]) -> list[Rule]:
    """The rules that a sample of the files obeys, in both directions, the most frequent ones."""
    befores, afters = _affixes(pictures)
    by_core = defaultdict(list)
    for picture in pictures:
        for before, core, after in _cut(picture, befores, afters):
            by_core[core].append((picture, before, after))
    counts: Counter[Rule] = Counter()
    for one in spread(pictures, SAMPLE):
        for before, core, after in _cut(one, befores, afters):
            close = dict[tuple[str, str], int]()
            for other, its_before, its_after in _choose_near(one, by_core[core]):
                if (before and before == its_before) or _share_word(after, its_after):
                    continue  # what both names have is part of the id
                steps = _align(one.folders, other.folders)
                far = sum(not step.field for side in steps for step in side)
                if far > close.setdefault((its_before, its_after), far):
                    continue  # a file of the same name in another city
                flat = not far and (before, after) == (its_before, its_after)
                endings = (one.ending, other.ending) if flat else ("", "")
                ours = Side(steps[0], before, after, endings[0])
                counts[Rule(ours, Side(steps[1], its_before, its_after, endings[1]))] += 1
    return [rule for rule, _ in counts.most_common(CANDIDATES)]


def _choose_near(one: Picture, others: list[_Cut]) -> list[_Cut]:
    """The partners that a file may have, the nearest first: some of every kind, by the folders in which they differ.

    So the many files of the same name in other sequences do not hide the one in the folder of the labels.
    """
    kinds = defaultdict[tuple[int, ...], list[_Cut]](list)
    for each in others:
        folders = each[0].folders
        if each[0] == one or _differ_in_split(one.folders, folders):
            continue
        same = len(folders) == len(one.folders)
        kind = (
            tuple(place for place, name in enumerate(one.folders) if name != folders[place])
            if same
            else (-len(folders),)
        )
        if len(kinds[kind]) < NEAR:
            kinds[kind].append(each)
    found = [each for kind in kinds.values() for each in kind]
    return sorted(found, key=lambda each: -len(set(each[0].folders) & set(one.folders)))


def _differ_in_split(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    one, other = ({_affix(name)[0].lower() for name in folders} - {""} for folders in (ours, theirs))
    return bool(one and other and not one & other)


def _share_word(one: str, other: str) -> bool:
    """Whether two ends of stems begin with the same word."""
    first = [re.match(r"[_\-. ]?[^_\-. ]*", text) for text in (one, other)]
    return bool(one and other and first[0] and first[1] and first[0][0] == first[1][0])


def _affixes(pictures: list[Picture]) -> tuple[set[str], set[str]]:
    """Beginnings and ends that many stems of a folder share, or that are known words."""
    totals = Counter(picture.folders for picture in pictures)
    counts: tuple[Counter, Counter] = (Counter(), Counter())
    for picture in pictures:
        for place, affix in ((0, _beginning(picture.stem)), *((1, end) for end in _ends(picture.stem))):
            if affix:
                counts[place][picture.folders, affix] += 1
    found: tuple[set[str], set[str]] = (set(), set())
    for place in (0, 1):
        everywhere: Counter[str] = Counter()
        for (_, affix), count in counts[place].items():
            everywhere[affix] += count
        for (folders, affix), count in counts[place].items():
            frequent = everywhere[affix] > 1 and count >= 0.15 * totals[folders]
            if frequent or words_in(affix) & (LABEL_WORDS | IMAGE_WORDS):
                found[place].add(affix)
    return found


def _beginning(stem: str) -> str:
    found = re.match(r"[A-Za-z]+(?:[_\-. ]|(?=\d))(?=.)", stem)
    return found[0] if found else ""


def _ends(stem: str) -> list[str]:
    """The last one, two and three words of a stem, where they hold a letter and something is left before them."""
    places = [found.start() for found in re.finditer(r"[_\-. ]|(?<=\d)(?=[A-Za-z])", stem) if found.start()]
    return [stem[place:] for place in places[-3:] if re.search("[A-Za-z]", stem[place:])]


def _cut(picture: Picture, befores: set[str], afters: set[str]) -> Iterator[tuple[str, str, str]]:
    """All ways to take a stem for the id with something before and after it."""
    stem = picture.stem
    for before in {"", _beginning(stem)} & (befores | {""}):
        for after in {"", *_ends(stem)} & (afters | {""}):
            if len(before) + len(after) < len(stem):
                yield before, stem[len(before) : len(stem) - len(after)], after


def _align(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The folders of two files as steps: what both have, in order, is a field; the rest are fixed names."""
    table = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i in reversed(range(len(ours))):
        for j in reversed(range(len(theirs))):
            match = _match(ours[i], theirs[j])
            table[i][j] = max(table[i + 1][j], table[i][j + 1], table[i + 1][j + 1] + match)
    i = j = 0
    one, other = list[Step](), list[Step]()
    while i < len(ours) or j < len(theirs):
        if i < len(ours) and j < len(theirs) and (match := _match(ours[i], theirs[j])) and (
            table[i][j] == table[i + 1][j + 1] + match
        ):  # fmt: skip
            name = f"f{len(one)}_{len(other)}"
            parts = (("", ""), ("", "")) if match == 2 else (_affix(ours[i])[1:], _affix(theirs[j])[1:])
            one.append(Step(parts[0][0], name, parts[0][1]))
            other.append(Step(parts[1][0], name, parts[1][1]))
            i, j = i + 1, j + 1
        elif i < len(ours) and table[i][j] == table[i + 1][j]:
            one.append(Step(ours[i]))
            i += 1
        else:
            other.append(Step(theirs[j]))
            j += 1
    return tuple(one), tuple(other)


def _match(ours: str, theirs: str) -> int:
    """2 for the same name, 1 for names that say the same split (``train_images``, ``trainannot``), else 0."""
    if ours == theirs:
        return 2
    one, other = _affix(ours)[0], _affix(theirs)[0]
    return int(bool(one) and one == other)


def _affix(name: str) -> tuple[str, str, str]:
    """(the split that a name says, what is before it, what behind it); the split is empty if it says none."""
    if found := re.fullmatch(rf"({SPLIT})(.*)", name):
        return found[1], "", found[2]
    if found := re.fullmatch(rf"(.*[\W_])({SPLIT})", name):
        return found[2], found[1], ""
    return "", "", ""
