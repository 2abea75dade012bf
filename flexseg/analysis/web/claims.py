"""The section of the page that holds the claims: the verdicts, the picture and the table, as HTML."""

from __future__ import annotations

import base64
from html import escape

from flexseg.analysis.figures.claims import claims_plate
from flexseg.analysis.figures.plate import render
from flexseg.analysis.stats.claims import standing, verdicts
from flexseg.analysis.stats.formats import Table
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.claims import claims_table_of, provenance


def claims_section(scores: Scores) -> str:
    """The section, or nothing for a benchmark that makes no claims."""
    if scores.benchmark.claimed is None:
        return ""
    found = standing(scores.records)
    plate, table = claims_plate(scores, found), claims_table_of(scores, found)
    picture = ""
    if not plate.empty:
        data = base64.b64encode(render(plate, "svg")).decode()
        picture = (
            '<figure class="scroll" role="region" aria-label="Picture of the claims" tabindex="0">'
            f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(plate.heading)}"></figure>'
            f'<p class="note">{escape(plate.caption)}</p>'
        )
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in provenance(found))
    return f"""
<section id="claims" aria-labelledby="claims-title">
  <h2 id="claims-title">Claims</h2>
  {"".join(f"<p>{escape(each)}</p>" for each in verdicts(found))}
  {picture}
  <div class="scroll" role="region" aria-label="Claims and verdicts" tabindex="0">{_table(table)}</div>
  <p class="note">{escape(table.caption)}</p>
  <details>
    <summary>Where the repository’s runs come from</summary>
    <dl class="pairs">{facts}</dl>
  </details>
</section>
"""


def _table(table: Table) -> str:
    groups = "".join(
        f'<th scope="colgroup" colspan="{width}">{escape(title)}</th>' if title else f'<td colspan="{width}"></td>'
        for title, width in table.groups()
    )
    heads = "".join(f'<th scope="col">{escape(column.title)}</th>' for column in table.columns)
    lines = []
    for title, rows in table.sections():
        lines.append(f'<tr><th scope="colgroup" colspan="{len(table.columns)}"><em>{escape(title)}</em></th></tr>')
        for row in rows:
            texts = [f"<strong>{escape(c.text)}</strong>" if c.bold else escape(c.text) for c in row.cells]
            lines.append(f'<tr><th scope="row">{texts[0]}</th>{"".join(f"<td>{text}</td>" for text in texts[1:])}</tr>')
    head = f"<tr>{groups}</tr><tr>{heads}</tr>"
    return f'<table class="plain wide"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table>'
