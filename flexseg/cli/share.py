"""``flexseg schema``: what leaves this checkout, for editors and for other people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flexseg.errors import UserError, did_you_mean
from flexseg.files import replacing


def schema(
    kind: Annotated[
        str, typer.Argument(metavar="[benchmark|dataset|label-map]", help="The kind of file.")
    ] = "benchmark",
    output: Annotated[Path | None, typer.Option(help="The file to write; by default the terminal.")] = None,
) -> None:
    """Write the JSON Schema of benchmark files, data sets or label maps, for editors that complete and check YAML."""
    from flexseg.tasks.schemas import SCHEMAS, format_schema

    if kind not in SCHEMAS:
        raise UserError(f"there is no schema of {kind!r}{did_you_mean(kind, SCHEMAS)}: choose {', '.join(SCHEMAS)}")
    if output is None:
        print(format_schema(kind), end="")
        return
    with replacing(output) as temporary:
        temporary.write_text(format_schema(kind), encoding="utf-8")
    print(output)
