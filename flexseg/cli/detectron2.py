"""``flexseg install-detectron2``, which `make detectron2` calls."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flexseg.console import printable


def install_detectron2(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A checkout, an unpacked archive, a .zip or .tar.gz, or the address of one."
        ),
    ] = "",
    sha256: Annotated[
        str, typer.Option(help="Take another commit than the pinned one: the SHA-256 of its Python files.")
    ] = "",
) -> None:
    """Install the plain Python files of detectron2: no compiler, and nothing of it is run."""
    from flexseg.tasks.detectron2 import install_detectron2 as install

    version = install(source, sha256)
    print(printable(f"detectron2 {version} is installed in {sys.prefix}"))
    print("Rows that were shown as not run for it: flexseg status BENCHMARK --retry, then snakemake again")
