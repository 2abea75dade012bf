"""What the report of the claims says: verdicts, picture, table, power, and where the evidence comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flexseg.analysis.figures.claims import claims_plate
from flexseg.analysis.figures.plate import Plate
from flexseg.analysis.report.pdf import (
    Item,
    figure_item,
    make_section,
    pairs_item,
    table_item,
    text_item,
    write_document,
)
from flexseg.analysis.stats.claims import REFERENCE, Standing, standing, verdicts
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables import content
from flexseg.analysis.tables.claims import HOW_CLAIMS, RULE, claim_power_table, claims_table_of, provenance
from flexseg.analysis.tables.origins import plural
from flexseg.errors import UserError


def make_claims(scores: Scores, output: Path) -> None:
    """Write the report to ``output``. UserError: the benchmark makes no claims."""
    if scores.benchmark.claimed is None:
        raise UserError(
            f"benchmark {scores.benchmark.name} makes no claims: name a file of them in benchmarks/"
            f"{scores.benchmark.name}.yaml with the key `claims` (docs/reports.md)"
        )
    found = standing(scores.records)
    plate = claims_plate(scores, found)
    write_document(compose_claims(scores, found, plate), [] if plate.empty else [plate], output)


def compose_claims(scores: Scores, found: Standing, plate: Plate) -> dict[str, Any]:
    """The report as ``report.typ`` reads it."""
    benchmark = scores.benchmark.whole
    assert benchmark.claimed is not None, "asked for the claims of a benchmark without any"
    power = claim_power_table(scores, found)
    items: list[Item] = [table_item(scores, claims_table_of(scores, found))]
    titles = dict.fromkeys(row for claim in benchmark.claimed.claims.values() for row in claim.rows)
    sections = [
        make_section("claims", "Claims and verdicts", items),
        make_section("power", "What these seeds can show", [table_item(scores, power)]),
        make_section("rules", "How claims are judged", [text_item(f"{HOW_CLAIMS} {RULE}"), text_item(SEEDS)]),
        make_section("rows", "Rows of the claims", [pairs_item((row, benchmark.row(row).title) for row in titles)]),
        make_section("evidence", f"Where {REFERENCE} come from", [pairs_item(provenance(found))]),
        make_section("runs", "Where these runs come from", [pairs_item(content.provenance(scores))]),
        make_section("cite", "How to cite", [text_item(content.citations(scores))]),
    ]
    return {
        "title": f"{benchmark.title}: claims report",
        "kind": "claims",
        "subject": f"Protocol {benchmark.protocol.id}",
        "front": {
            "asked": [f"Which of {plural(len(found.reference), 'claim')}, written down before the runs, hold?"],
            "measured": [content.describe(scores)],
            "answers": [[each] for each in verdicts(found)],
            "shown": None if plate.empty else figure_item(plate),
            "sure": [
                [
                    "A verdict is given once a claim has all its seeds. Rules: ",
                    {"ref": "section-rules"},
                    "; power: ",
                    {"ref": "section-power"},
                    ".",
                ],
            ],
        },
        "sections": sections,
    }


SEEDS = (
    "A claim says before its runs how many seeds it is judged with. If seeds are added since it was left undecided, "
    "it is looked at twice, which makes a wrong verdict somewhat more likely than the level says. Seeds for 80 % "
    "power are those that would show the smallest effect of interest at the variance seen."
)
