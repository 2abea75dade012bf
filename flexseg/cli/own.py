"""``flexseg new-dataset``: describe a folder of one's own images and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flexseg.cli.folders import DATASETS
from flexseg.console import terminal


def new_dataset(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of images and labels; it is only read.")],
    name: Annotated[str, typer.Option(help="What benchmark files call it; by default the folder's name.")] = "",
    images: Annotated[int, typer.Option(min=0, help="How many pairs to decode, evenly spread; 0 for all.")] = 200,
) -> None:
    """Look at a folder of images and labels and write datasets/NAME.yaml, which describes it to benchmarks."""
    from flexseg.tasks.new_dataset import describe_folder, print_found

    print_found(describe_folder(folder, name, images, DATASETS), terminal())
