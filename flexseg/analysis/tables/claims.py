"""The table of a benchmark's claims, published beside measured, and the power with which each was judged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple

from flexseg.analysis.stats.claims import Judged, Part, Standing, standing
from flexseg.analysis.stats.formats import DASH, Cell, Column, Row, Table, difference_text, make_row, number
from flexseg.analysis.stats.paired import WANTED
from flexseg.analysis.stats.published import remark
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.common import TableFiles
from flexseg.analysis.tables.origins import plural
from flexseg.benchmark import Benchmark
from flexseg.benchmark.claims import Term

EFFECT = 1.0
"""Points of mIoU for which the power of every contrast is given."""
RULE = (
    "A claim is reproduced if the difference is shown to lie in the claimed direction, and refuted if it is shown to "
    "be smaller than the smallest effect of interest: one-sided tests at 2.5 %, which agree with the 95 % intervals, "
    "each after Holm over the claims under one heading. Otherwise it is undecided, also until it has all its seeds. "
    "The best of several must beat each, and one that it is shown not to beat refutes it."
)
HOW_CLAIMS = (
    "Differences are in points, paired by seed and test image, with 95 % intervals from their own variance over "
    "seeds and that over test images (t, with Satterthwaite's degrees of freedom)."
)
MARKS = {"reproduced": "✓", "refuted": "✗", "undecided": "?"}


def claims_table(scores: Scores) -> Table:
    """One line a claim: its text and place, the published size, what was measured, and the verdict."""
    return claims_table_of(scores, standing(scores.records))


def claims_table_of(scores: Scores, found: Standing) -> Table:
    """:func:`claims_table`, of claims that were judged before."""
    benchmark, sides = scores.benchmark.whole, found.sides
    assert benchmark.claimed is not None, "asked for the claims of a benchmark without any"
    columns = [Column("Claim", "l"), Column("Where", "l"), Column("Published")]
    for side in sides:
        columns += [Column("Measured", group=side), Column("n", group=side), Column("Verdict", "l", group=side)]
    rows = []
    for place, each in enumerate(next(iter(sides.values()), found.reference)):
        against = each.weakest.against
        cells: list[str | Cell] = [_text(benchmark, each), each.claim.place]
        cells.append(published_text(each.claim.published_for(against)))
        for judged in sides.values():
            cells += _measured(judged[place], against)
        rows.append(make_row(*cells, section=benchmark.claimed.families[each.claim.family]))
    caption = (
        f"The claims, as they were written down before their runs, and what was measured. {HOW_CLAIMS} {RULE} Of a "
        f"claim with several contrasts, the one that speaks least for it is shown. {remark(benchmark)}"
    )
    return Table("claims", f"{benchmark.title}: claims", caption, columns, rows, wide=True)


def _text(benchmark: Benchmark, judged: Judged) -> str:
    text, several = judged.claim.text, len(judged.parts)
    if several == 1:
        return text
    return f"{text} (Of {several} contrasts, the weakest: against “{benchmark.row(judged.weakest.against).title}”.)"


def _measured(judged: Judged, against: str) -> list[str | Cell]:
    part = next(part for part in judged.parts if part.against == against)
    if not part.paired.n:
        return [DASH, "0", DASH]
    verdict = Cell(verdict_text(judged), bold=judged.verdict != "undecided")
    return [difference_text(part.paired.difference(), 2), str(part.paired.n), verdict]


def verdict_text(judged: Judged) -> str:
    """``✓ reproduced``, with what the verdict alone does not say in brackets."""
    return f"{MARKS[judged.verdict]} {judged.verdict}" + (f" ({judged.remark})" if judged.remark else "")


def published_text(value: float | None) -> str:
    """``+2.11``; a dash for none."""
    return number(math.nan if value is None else value, 2, sign=True)


def claim_power_table(scores: Scores, found: Standing) -> Table:
    """For each contrast: its spread over seeds, the power that its seeds have, and the seeds that it would take."""
    benchmark, rows = scores.benchmark.whole, []
    assert benchmark.claimed is not None, "asked for the claims of a benchmark without any"
    for place, _ in enumerate(found.reference):
        both = (found.reference[place], found.here[place])
        judged = max(both, key=lambda each: each.n)  # of equal ones the first, the repository's
        for part in judged.parts:
            section = benchmark.claimed.families[judged.claim.family]
            rows.append(_power_row(benchmark, judged, part, section))
    columns = [Column("Claim", "l"), Column("n"), Column("paired sd"), Column("image sd"), Column("df")]
    columns += [Column(f"power (%) for {EFFECT:g}"), Column("smallest at 80 %"), Column("of interest")]
    columns += [Column("power (%)"), Column("seeds for 80 %")]
    caption = (
        "What each contrast could show, in points, one-sided at 2.5 % and before Holm. Paired sd: of the difference "
        "on one seed. Image sd: the share of the standard error that more seeds do not make smaller. Power is with "
        "the seeds that the claim asks for, for one point and for the smallest effect of interest; it is also the "
        "power to refute a claim whose effect is nothing. A dash for the seeds: more than 200, or none, as the test "
        "images are too few."
    )
    return Table("claim_power", f"{benchmark.title}: power of the claims", caption, columns, rows, wide=True)


def _power_row(benchmark: Benchmark, judged: Judged, part: Part, section: str) -> Row:
    text, paired, planned = judged.claim.text, part.paired, judged.claim.seeds
    if len(judged.parts) > 1:
        text += f" (against {benchmark.row(part.against).title})"
    unknown = paired.n < 2
    return make_row(
        text,
        str(paired.n),
        number(paired.sd, 2),
        DASH if unknown else number(math.sqrt(paired.shared), 2),
        number(paired.freedom, 1),
        number(100 * paired.power(EFFECT, planned), 0),
        number(paired.detectable(WANTED), 2),
        number(part.smallest, 2),
        number(100 * paired.power(part.smallest, planned), 0),
        str(paired.seeds_needed(part.smallest) or DASH),
        section=section,
    )


def contrast_text(terms: list[Term]) -> str:
    """The terms of a contrast as data: ``+1*flexseg@Avg5[mIoU] -1*dginstyle@Avg5[mIoU]``."""
    return " ".join(f"{weight:+g}*{row}@{target}[{measure}]" for weight, row, target, measure in map(astuple, terms))


def _records(scores: Scores) -> Iterator[dict[str, object]]:
    for side, judged in standing(scores.records).sides.items():
        for each in judged:
            for part in each.parts:
                paired, claim = part.paired, each.claim
                yield {
                    "evidence": side, "claim": each.name, "family": claim.family, "text": claim.text,
                    "place": claim.place, "against": part.against,
                    "contrast": contrast_text(claim.contrasts[part.against]), "direction": claim.direction,
                    "rule": claim.rule, "published": part.published, "smallest": part.smallest,
                    "value": paired.value, "low": paired.low, "high": paired.high, "n": paired.n,
                    "seeds": claim.seeds, "sd": paired.sd, "p": part.p, "p_holm": each.p_holm,
                    "p_refuted": part.p_refuted, "p_refuted_holm": each.refuted_holm, "verdict": each.verdict,
                    "remark": each.remark, "power_1": paired.power(EFFECT, claim.seeds),
                    "power_smallest": paired.power(part.smallest, claim.seeds), "detectable": paired.detectable(),
                    "seeds_needed": paired.seeds_needed(part.smallest),
                }  # fmt: skip


def provenance(found: Standing) -> list[tuple[str, str]]:
    """Where the repository's runs come from: (what, which, with the number of runs), and which runs were left out."""
    runs = found.runs
    facts = [
        ("Runs", f"{len(runs)} in the reference file" if runs else "none in the reference file"),
        ("Days", f"{min(days)} to {max(days)}" if (days := [r.made.date for r in runs if r.made.date]) else "–"),
        ("Machines", _counted(run.made.processor for run in runs)),
        ("Instruction sets", _counted(run.made.kernels for run in runs)),
        ("Code", _counted(run.made.code for run in runs)),
        ("PyTorch", _counted(run.made.torch for run in runs)),
    ]
    other = [f"{row} ({', '.join(changed)})" for row, changed in found.other.items()]
    return [*facts, *([("Left out, as defined otherwise", "; ".join(other))] if other else [])]


def _counted(values: Iterable[str]) -> str:
    counts = Counter(value or "not recorded" for value in values)
    return "; ".join(f"{value} ({plural(count, 'run')})" for value, count in counts.most_common()) or "–"


CLAIM_TABLES: dict[str, TableFiles] = {
    "claims": (
        claims_table,
        [
            "evidence", "family", "claim", "text", "place", "against", "contrast", "direction", "rule", "published",
            "smallest", "value", "low", "high", "n", "seeds", "sd", "p", "p_holm", "p_refuted", "p_refuted_holm",
            "verdict", "remark", "power_1", "power_smallest", "detectable", "seeds_needed",
        ],
        _records,
    ),
}  # fmt: skip
"""The table of a benchmark that makes claims: how it is made for people, and its CSV."""
