"""The PDF reports: their content and its order; ``report.typ`` beside this file is their design.

The answer comes first, then the evidence. Python writes texts, tables and figures as data; Typst sets them in this
process, with the fonts of its wheel and of matplotlib, and opens no connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import typst

from flexseg.analysis.figures.plates import Plate, ablation_plates, comparison_plates, render
from flexseg.analysis.stats.formats import Table
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.verdict import verdict
from flexseg.analysis.tables import content
from flexseg.analysis.tables.common import how
from flexseg.analysis.tables.content import Kind
from flexseg.analysis.tables.cost import cost_table, origins_table
from flexseg.analysis.tables.metrics import metrics_table, power_table
from flexseg.analysis.tables.published import published_table
from flexseg.analysis.tables.write import ablation_table, comparison_table, factorial_table
from flexseg.errors import UserError
from flexseg.files import replacing

TEMPLATE = Path(__file__).with_name("report.typ")
Item = dict[str, Any]
"""What the template sets: a paragraph, pairs, a table or a figure (its key ``type``)."""
Section = dict[str, Any]
"""A key for references, a heading, and items."""
Prose = list[str | dict[str, str]]
"""Strings and references (``{"ref": "table-power"}``), which the template joins."""


def make_report(scores: Scores, kind: Kind, output: Path) -> None:
    """Write the report of ``kind`` to ``output``. UserError: the template does not compile."""
    write_document(*compose(scores, kind), output)


def write_document(document: dict[str, Any], plates: list[Plate], output: Path) -> None:
    """Write the PDF of ``document`` with these figures to ``output``. UserError: the template does not compile."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for plate in plates:
            (folder / f"{plate.name}.pdf").write_bytes(render(plate, "pdf"))
        pdf = typeset(document, folder)
    with replacing(output) as temporary:
        temporary.write_bytes(pdf)


def typeset(document: dict[str, Any], folder: Path) -> bytes:
    """The PDF of ``document``, whose figures are in ``folder``; the same inputs give the same bytes."""
    (folder / "report.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    main = folder / TEMPLATE.name
    main.write_bytes(TEMPLATE.read_bytes())
    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    try:
        return typst.compile(main, root=folder, font_paths=[fonts], ignore_system_fonts=True, timestamp=0)
    except typst.TypstError as error:
        raise UserError(f"the report's template cannot be set ({TEMPLATE}): {error.diagnostic or error}") from None


def compose(scores: Scores, kind: Kind) -> tuple[dict[str, Any], list[Plate]]:
    """What the report of ``kind`` says, as ``report.typ`` reads it, and the figures to render for it."""
    benchmark = scores.benchmark
    plates = comparison_plates(scores) if kind == "comparison" else ablation_plates(scores)
    missing = [(plate.heading, plate.empty) for plate in plates if plate.empty]
    drawn = [plate for plate in plates if not plate.empty and not _continues(plate)]
    first = [plate for plate in plates[:1] if plate in drawn]
    compose_body = _comparison if kind == "comparison" else _ablation
    runs = [
        pairs_item(content.provenance(scores)),
        text_item("Runs that are not in the numbers, or that other code made:"),
        pairs_item(content.incidents(scores)),
    ]
    sections = [
        *compose_body(scores, [plate for plate in drawn if plate not in first]),
        make_section("runs", "Where the numbers come from", runs),
        make_section("assumptions", "Assumed: what the papers leave open", [pairs_item(content.assumptions(scores))]),
    ]
    for section in sections:
        empty = [item for item in section["items"] if item["type"] == "table" and not item["rows"]]
        missing += [(item["heading"], "There is nothing to tabulate.") for item in empty]
        section["items"] = [item for item in section["items"] if item not in empty]
    sections.append(_elsewhere(scores, missing, [plate.heading for plate in plates if _continues(plate)]))
    sections.append(make_section("cite", "How to cite", [text_item(content.citations(scores))]))
    document = {
        "title": f"{benchmark.title}: {kind} report",
        "kind": kind,
        "subject": f"Protocol {benchmark.protocol.id}",
        "front": _front(scores, kind, first, sections),
        "sections": [section for section in sections if section["items"]],
    }
    return document, drawn


def _front(scores: Scores, kind: Kind, first: list[Plate], sections: list[Section]) -> dict[str, Any]:
    """The first page; it refers to its figure and to the table of the report's kind, where there are these."""
    tables = [item["name"] for section in sections for item in section["items"] if item["type"] == "table"]
    shown = [*[f"figure-{plate.name}" for plate in first], *[f"table-{name}" for name in tables if name == kind]]
    labels = [part for label in shown for part in (" and ", {"ref": label})][1:]
    where: Prose = ["Shown in ", *labels, "; all findings: "] if shown else ["All findings: "]
    return {
        "asked": [content.question(scores, kind)],
        "measured": [content.describe(scores)],
        "answers": [*[[each] for each in content.answers(scores, kind)], [*where, {"ref": "section-findings"}, "."]],
        "shown": figure_item(first[0]) if first else None,
        "sure": [[content.certainty(scores), " Runs that are not in the numbers: ", {"ref": "section-runs"}, "."]],
    }


def _comparison(scores: Scores, plates: list[Plate]) -> list[Section]:
    by_target = [plate for plate in plates if plate.name == "miou"]
    return [
        *_findings(scores),
        make_section(
            "scores", "Scores by target", [table_item(scores, comparison_table(scores)), *map(figure_item, by_target)]
        ),
        make_section("details", "In detail", [figure_item(plate) for plate in plates if plate not in by_target]),
        make_section("quantities", "Other quantities", [table_item(scores, metrics_table(scores))]),
        make_section(
            "cost", "Cost and settings", [table_item(scores, each(scores)) for each in (cost_table, origins_table)]
        ),
        make_section("published", "Published numbers", _published(scores)),
        *_statistics(scores),
    ]


def _ablation(scores: Scores, plates: list[Plate]) -> list[Section]:
    factorial = [plate for plate in plates if plate.name.startswith("factorial_")]
    tables = [ablation_table(scores), *([factorial_table(scores)] if factorial else [])]
    shown = [*[table_item(scores, table) for table in tables], *map(figure_item, factorial)]
    return [
        *_findings(scores),
        *_statistics(scores),
        make_section("components", "Components and controls", shown),
        make_section("details", "In detail", [figure_item(plate) for plate in plates if plate not in factorial]),
        make_section("published", "Published numbers", _published(scores)),
    ]


def _findings(scores: Scores) -> list[Section]:
    return [
        make_section("findings", "Findings in full", [pairs_item(verdict(scores))]),
        make_section("protocol", "Protocol", [pairs_item(content.protocol(scores))]),
    ]


def _statistics(scores: Scores) -> list[Section]:
    return [
        make_section("power", "What these seeds can show", [table_item(scores, power_table(scores))]),
        make_section("intervals", "How intervals are made", [text_item(how(scores))]),
    ]


def _elsewhere(scores: Scores, missing: list[tuple[str, str]], continued: list[str]) -> Section:
    """What this report leaves to the page and to the tables, and what could not be shown at all."""
    text = (
        "This report holds what its question needs. The results page (index.html, beside this file) has every row, "
        f"target, class, condition and picture, and results/{scores.benchmark.name}/tables has every number as CSV, "
        "Markdown and LaTeX, the boundaries of every row on every target among them."
    )
    if continued:
        text += f" On the page only: {'; '.join(continued)}."
    items = [text_item(text)]
    if missing:
        items += [text_item("There was nothing to show for the following."), pairs_item(missing)]
    return make_section("elsewhere", "Not in this report", items)


def _continues(plate: Plate) -> bool:
    """Whether a figure is a later one of a series, as its heading says (``(2 of 3)``): the page has them all."""
    found = re.search(r"\((\d+) of \d+\)$", plate.heading)
    return found is not None and int(found[1]) > 1


def make_section(key: str, heading: str, items: list[Item]) -> Section:
    return {"key": key, "heading": heading, "items": items}


def text_item(text: str) -> Item:
    return {"type": "text", "text": [text]}


def pairs_item(pairs: Iterable[tuple[str, str]]) -> Item:
    return {"type": "pairs", "pairs": [list(pair) for pair in pairs]}


def figure_item(plate: Plate) -> Item:
    return {
        "type": "figure", "name": plate.name, "heading": plate.heading,
        "caption": [plate.caption.removeprefix(f"{plate.heading}. ")],
        "file": f"{plate.name}.pdf",
    }  # fmt: skip


def table_item(scores: Scores, table: Table) -> Item:
    """A table as data; its caption refers to the report's one explanation of intervals."""
    title = table.title.removeprefix(f"{scores.benchmark.title}: ")
    heading = title[:1].upper() + title[1:]
    before, how_made, after = table.caption.removeprefix(f"{heading}. ").partition(how(scores))
    caption: Prose = (
        [before, "Cells and intervals: ", {"ref": "section-intervals"}, f".{after}"] if how_made else [before]
    )
    return asdict(table) | {"type": "table", "heading": heading, "caption": caption}


def _published(scores: Scores) -> list[Item]:
    table = published_table(scores)
    return [table_item(scores, table)] if table.rows else []
