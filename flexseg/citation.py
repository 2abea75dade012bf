"""How to cite the suite and the papers of its methods, from one file: ``CITATION.cff``, which code hosts read too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from unicodedata import normalize

from flexseg.shipped import home
from flexseg.yaml_files import read_yaml

FILE = home() / "CITATION.cff"
"""The one at the top of the repository, or what an installed copy has of it."""


@dataclass(frozen=True)
class Work:
    """Something to cite.

    Attributes:
        key: of its BibTeX entry. kind: of that entry.
        text: one line for people.
        fields: of the entry, in their order; ``author`` and ``title`` among them.
        known_by: other words for it, such as the number of its preprint.
    """

    key: str
    kind: str
    text: str
    fields: Mapping[str, str] = field(default_factory=dict)
    known_by: tuple[str, ...] = ()

    @property
    def bibtex(self) -> str:
        """The BibTeX entry."""
        width = max(map(len, self.fields))
        lines = [f"  {name:{width}} = {{{_escape(value, name)}}}," for name, value in self.fields.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])


def suite() -> Work:
    """This suite, in its version."""
    return _read()[0]


def cite_methods(papers: Iterable[str]) -> list[Work]:
    """The works behind methods, each once, from what their files say as ``paper`` (``Choi et al., Title, CVPR 2021``).

    One whose preprint or abbreviation ``CITATION.cff`` names is cited as there. A text of another form becomes an
    entry with that text as its note: nothing is guessed.
    """
    found = dict[str, Work]()
    for text in papers:
        for part in filter(None, (each.strip() for each in text.split("; "))):
            work = next((each for each in _read()[1:] if _is_about(part, each)), None) or _parse(part)
            found.setdefault(work.key, work)
    return list(found.values())


def _is_about(text: str, work: Work) -> bool:
    return any(word in text for word in work.known_by)


@lru_cache
def _read() -> tuple[Work, ...]:
    content = read_yaml(FILE)
    return (_software(content), *(_article(each) for each in content.get("references", [])))


def _software(content: Mapping[str, Any]) -> Work:
    year = str(content["date-released"])[:4]
    authors = _names(content["authors"])
    fields = {
        "author": " and ".join(authors),
        "title": str(content["title"]),
        "year": year,
        "version": str(content["version"]),
        "note": str(content["abstract"]).rstrip("."),
    }
    text = f"{', '.join(authors)}: {content['title']}, version {content['version']}, {year}"
    return Work("flexsegbench", "misc", text, fields)


def _article(content: Mapping[str, Any]) -> Work:
    authors, year, title = _names(content["authors"]), str(content["year"]), str(content["title"])
    ids = [each["value"] for each in content.get("identifiers", [])]
    fields = {
        "author": " and ".join(authors),
        "title": title,
        "journal": str(content.get("journal", "")),
        "volume": str(content.get("volume", "")),
        "number": str(content.get("issue", "")),
        "pages": "--".join(str(content[end]) for end in ("start", "end") if end in content),
        "year": year,
        "doi": str(content.get("doi", "")),
    }
    family = content["authors"][0].get("family-names", "work")
    words = [each for each in re.findall(r"\w+", title.lower()) if len(each) > 3]
    where = f"{fields['journal']} {fields['volume']}".strip()
    text = f"{', '.join(authors)}: {title}. {where}{', ' if where else ''}{year}"
    known = [each.replace("arXiv:", "arXiv ") for each in map(str, ids)]
    if short := str(content.get("abbreviation", "")):
        known.append(f"{family} et al., {short}, ")
    key = _key(family, year, words[0] if words else "")
    return Work(key, "article", text, {name: value for name, value in fields.items() if value}, tuple(known))


def _names(authors: Iterable[Mapping[str, str]]) -> list[str]:
    """The names in BibTeX's order; an author of one name in braces of its own, as it is no person's."""
    return [
        f"{each['given-names']} {each['family-names']}" if "family-names" in each else each["name"] for each in authors
    ]


_PAPER = re.compile(
    r"(?P<author>[^,]+?(?: et al\.| & [^,]+)), (?P<title>.+), (?P<venue>[^,]+?) (?P<year>\d{4})(?: \(.*\))?"
)


def _parse(text: str) -> Work:
    found = _PAPER.fullmatch(text)
    if found is None:
        return Work(_key(text, "", ""), "misc", text, {"note": text})
    names = found["author"].removesuffix(" et al.").split(" & ")
    author = " and ".join([*names, *(["others"] if found["author"].endswith(" et al.") else [])])
    fields = {"author": author, "title": found["title"], "booktitle": found["venue"], "year": found["year"]}
    words = [each for each in re.findall(r"\w+", found["title"].lower()) if len(each) > 3]
    return Work(_key(names[0], found["year"], words[0] if words else ""), "inproceedings", text, fields)


def _key(author: str, year: str, word: str) -> str:
    plain = [re.sub(r"[^a-z0-9]", "", normalize("NFKD", each).lower()) for each in (author, word)]
    return f"{plain[0][:40] or 'work'}{year}{plain[1]}"


def _escape(value: str, name: str) -> str:
    """A value inside braces; those of a title keep its capitals."""
    plain = re.sub(r"([&%$#_])", r"\\\1", value.replace("\\", "").replace("{", "").replace("}", ""))
    return f"{{{plain}}}" if name in ("title", "author") and (" and " not in plain and "," not in plain) else plain
