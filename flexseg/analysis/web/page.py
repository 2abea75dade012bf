"""Putting the page together: template, style, scripts and data in one file that may run nothing else.

Every text of a benchmark or a run enters either escaped by :func:`html.escape` or as JSON without ``<``, ``>`` and
``&``, which the scripts set with ``textContent``. The content security policy lists the hashes of the page's own style
and scripts; nothing else runs, and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from flexseg.analysis.stats.formats import write_text
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.verdict import power_statement, verdict
from flexseg.analysis.tables.content import analogues, citations, incidents, works
from flexseg.analysis.tables.origins import find_assumed, row_changes, value_text
from flexseg.analysis.web.claims import claims_section
from flexseg.analysis.web.payload import payload
from flexseg.analysis.web.text import facts, methods_text, summary

SCRIPTS = ("dom.js", "model.js", "table.js", "plots.js", "curves.js", "viewer.js", "runs.js", "app.js")
"""The parts of the page's one module, in the order in which they are joined."""


def write_page(scores: Scores, output: Path) -> None:
    """Write the page of a benchmark to ``output``; the same inputs give the same bytes."""
    write_text(output, render(scores))


def render(scores: Scores) -> str:
    """The whole page as HTML."""
    style, theme = _asset("page.css"), _asset("theme.js")
    script = "\n".join(_asset(name) for name in SCRIPTS)
    parts = {
        "policy": _policy(style, [theme, script]),
        "style": style,
        "theme": theme,
        "script": script,
        "data": safe_json(payload(scores)),
        "title": escape(scores.benchmark.title),
        "description": escape(" ".join(scores.benchmark.description.split())),
        "summary": escape(summary(scores)),
        "analogues": f'<p class="warning">{escape(about)}</p>' if (about := analogues(scores)) else "",
        "verdict": _definitions(verdict(scores)),
        "facts": _definitions(facts(scores)),
        "power": escape(power_statement(scores)),
        "claims": claims_section(scores),
        "incidents": _definitions(incidents(scores)),
        "methods": "\n".join(f"<p>{escape(text)}</p>" for text in methods_text(scores)),
        "citations": escape(citations(scores)),
        "bibtex": escape("\n\n".join(work.bibtex for work in works(scores))),
        "settings": _settings(scores),
        "assumed": _assumed(scores),
    }
    # One pass, so that a placeholder inside a user's text stays that text.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("template.html"))


def safe_json(value: Any) -> str:
    """``value`` as JSON that cannot end, or open a comment in, the script element that holds it.

    ``<``, ``>`` and ``&`` become escapes, and so does everything beyond ASCII, U+2028 and U+2029 included.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return files("flexseg.analysis.web").joinpath("assets", name).read_text(encoding="utf-8")


def _policy(style: str, scripts: list[str]) -> str:
    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; img-src data:; style-src {source(style)}; "
        f"script-src {' '.join(source(script) for script in scripts)}; base-uri 'none'; form-action 'none'"
    )


def _definitions(pairs: list[tuple[str, str]]) -> str:
    return "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in pairs)


def _settings(scores: Scores) -> str:
    """The rows as the benchmark file writes them: method, training data, options and changes of the training."""
    benchmark = scores.benchmark
    lines = []
    for name in benchmark.rows:
        row = benchmark.row(name)
        options = [f"{key}: {value_text(value)}" for key, value in row.options.items()] + row_changes(benchmark, name)
        generated = benchmark.generated_of(name)
        seen = [run for run in scores.records.finished(name) if generated in (run.info.get("data") or {})]
        images = (benchmark.domains[generated].title or generated) if seen or row.foreign is None else "–"
        if scores.records.finished(name) and not seen:
            images = "–"
        cells = [row.method or "(from elsewhere)", images, ", ".join(options) or "defaults"]
        texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        key = f"<code>{escape(name)}</code>"
        lines.append(f'<tr><th scope="row">{escape(row.title)}<br>{key}</th>{texts}</tr>')
    return "\n".join(lines)


def _assumed(scores: Scores) -> str:
    lines = [
        f'<tr><th scope="row"><code>{escape(each.name)}</code></th><td>{escape(each.method)}</td>'
        f"<td>{escape(each.text())}</td><td>{escape(each.explanation)}</td></tr>"
        for each in find_assumed(scores)
    ]
    none = '<tr><td colspan="4">No finished run has an option that is marked as assumed.</td></tr>'
    return "\n".join(lines) or none
