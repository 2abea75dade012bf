"""The pages of the site that are not files of ``docs/``: two of the root's, and the API reference, a page per room."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Extension
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ROOMS = ("benchmark", "components", "models", "data", "world", "engine", "analysis", "tasks")
GROUND = (
    "classes", "errors", "files", "console", "provenance", "shows", "yaml_files", "tensor_files", "kernels",
    "sources", "citation",
)  # fmt: skip
CONTRACT = ("method", "method_files")
INTRODUCTION = """# API reference

Made from the docstrings, one page for each room of the library. [The architecture](../architecture.md) says what each
room is for and which may import which. Names that begin with an underscore are not listed.

"""
# A role of reStructuredText, which editors and IDEs understand in docstrings, as it comes out of Markdown.
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):<code>(~?)([\w.]+)</code>")
REST_TABLE = re.compile(r"^(=+) +=+\n(.*?)^=+ +=+$", re.DOTALL | re.MULTILINE)


class RestTables(Extension):
    """Turns the two-column tables of reStructuredText in docstrings into those of Markdown."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called with every object whose docstring has been read."""
        if obj.docstring is not None:
            obj.docstring.value = REST_TABLE.sub(markdown_table, obj.docstring.value)


def markdown_table(match: re.Match[str]) -> str:
    """The rows of a table that :data:`REST_TABLE` found; a line without a first cell continues the one before."""
    width, rows = len(match.group(1)), []
    for line in match.group(2).splitlines():
        first, second = line[:width].strip(), line[width:].strip()
        if first:
            rows.append(f"| {first} | {second}")
        else:
            rows[-1] += f" {second}"
    return "\n".join(["| | |", "| :-- | :-- |", *(f"{row} |" for row in rows)])


def modules_of(room: str) -> list[str]:
    """The dotted names of a room's public modules, the room itself first."""
    folder = ROOT / "flexseg" / room
    paths = sorted(folder.rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path.name))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    names = [name.removesuffix(".__init__") for name in names]
    return [name for name in names if not name.rsplit(".", 1)[-1].startswith("_")]


def api_page(title: str, modules: list[str]) -> str:
    """Markdown that asks mkdocstrings for these modules."""
    return f"# {title}\n\n" + "\n".join(f"::: {name}\n" for name in modules)


def on_files(files: Files, config: Any) -> Files:
    """Add CONTRIBUTING.md, CHANGELOG.md and the API reference to what is rendered."""
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    pages = {room: (f"`flexseg.{room}`", modules_of(room)) for room in ROOMS}
    pages["method"] = ("`flexseg.method`", [f"flexseg.{name}" for name in CONTRACT])
    pages["ground"] = (", ".join(GROUND), [f"flexseg.{name}" for name in GROUND])
    for page, (title, modules) in pages.items():
        files.append(File.generated(config, f"api/{page}.md", content=api_page(title, modules)))
    listed = "\n".join(f"- [{title}]({page}.md)" for page, (title, _) in pages.items())
    files.append(File.generated(config, "api/index.md", content=INTRODUCTION + listed + "\n"))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links to files of the root to the site's copies of them."""
    return re.sub(r"\]\(\.\./(CONTRIBUTING|CHANGELOG)\.md", r"](\1.md", markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Turn the roles of docstrings into links where the name has a page, and into code where it has none."""

    def link(match: re.Match[str]) -> str:
        short, name = match.groups()
        shown = name.rsplit(".", 1)[-1] if short else name
        return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'

    return ROLE.sub(link, html)
