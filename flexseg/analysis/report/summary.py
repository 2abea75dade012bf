"""The result on one short page of Markdown, for a code host: verdict, main tables, links, provenance."""

from __future__ import annotations

import os
from pathlib import Path

from flexseg.analysis.stats.domains import protocol_text
from flexseg.analysis.stats.formats import escape_markdown, to_markdown, write_text
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.verdict import power_statement, verdict
from flexseg.analysis.tables.claims import claims_table
from flexseg.analysis.tables.content import citations, describe, provenance
from flexseg.analysis.tables.metrics import metrics_table
from flexseg.analysis.tables.origins import seeds_a_row
from flexseg.analysis.tables.write import ablation_table, comparison_table
from flexseg.benchmark.identity import tables_folder

FIGURE = "figures/differences.png"


def write_summary(scores: Scores, output: Path) -> None:
    """Write the summary to ``output``.

    Links are relative to its folder, which also holds reports, figures and the page; tables are under ``results``.
    """
    benchmark, folder = scores.benchmark, output.parent
    lines = [
        f"# {escape_markdown(benchmark.title)}: summary",
        "",
        escape_markdown(describe(scores)),
        "",
        "## What was found",
        "",
    ]
    lines += ["Differences in mIoU points with 95 % interval.", ""]
    for question, answer in verdict(scores):
        lines += [f"- **{question}** {escape_markdown(answer)}"]
    lines += ["", f"Power: {escape_markdown(power_statement(scores))}", ""]
    if len(benchmark.rows) > 1:
        lines += [f"![Paired differences to the reference row]({FIGURE})", ""]
    claims = [claims_table(scores)] if benchmark.claimed else []
    for table in (*claims, comparison_table(scores), ablation_table(scores), metrics_table(scores)):
        lines += [to_markdown(table)]
    lines += ["## More", ""]
    tables = Path(os.path.relpath(tables_folder(benchmark, scores.records.results), folder)).as_posix()
    links = {
        "Comparison report": "comparison.pdf",
        "Ablation report": "ablation.pdf",
        **({"Claims report": "claims.pdf"} if benchmark.claimed else {}),
        "Results page": "index.html",
        "Every figure alone, with captions": "figures/captions.md",
        "Tables as CSV, Markdown and LaTeX": f"{tables}/",
    }
    lines += [f"- [{title}]({target})" for title, target in links.items()]
    write_text(output, "\n".join([*lines, "", *_provenance(scores)]) + "\n")


def _provenance(scores: Scores) -> list[str]:
    benchmark, finished = scores.benchmark, len(scores.records.finished())
    seeds = [len(benchmark.planned_seeds(row)) for row in benchmark.rows]
    facts = {
        "Runs": f"{finished} finished of {sum(seeds)} ({len(seeds)} rows × {seeds_a_row(benchmark)})",
        **dict(provenance(scores)),
    }
    lines = ["## Where it comes from", ""]
    name = benchmark.protocol.id
    shown = escape_markdown(name) if "`" in name else f"`{name}`"
    lines += [f"- Protocol: {shown}: {escape_markdown(protocol_text(scores))}"]
    lines += [f"- {name}: {escape_markdown(text) or '–'}" for name, text in facts.items()]
    notes = [escape_markdown(f"{row}: {note}") for row, note in scores.records.all_notes()]
    if notes:
        lines += ["", "Not in the numbers:", "", *[f"- {note}" for note in notes]]
    return [*lines, "", "## How to cite", "", escape_markdown(citations(scores))]
