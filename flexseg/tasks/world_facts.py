"""Facts about the street world's labels: how thin boundaries are, and which labels of generated images are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from flexseg.classes import CLASS_NAMES, IGNORE
from flexseg.console import progress_bar

STRENGTHS = (0.0, 0.5, 1.0, 2.0)
RINGS = {"1 px": 3, "2 px": 5, "3–4 px": 9, "5–8 px": 17}
"""Distances to the label's nearest boundary, by the smallest kernel that reaches it."""
BEYOND = "> 8 px"
STRIDE = 4
"""Of the features on which GAP's rings are drawn in the paper."""


def boundary_shares(version: int, size: tuple[int, int], images: int, domain: str = "source") -> pd.DataFrame:
    """How much of a domain's labels its boundaries take, in percent of the pixels that have a label.

    One row each for UBE's boundary at kernels 3, 5 and 7 (``label``: also the union of GAP's rings drawn at label
    size), and for the union of rings 3/5/7 on the label reduced by :data:`STRIDE` (``features``).

    Raises:
        UserError: there is no such version.
    """
    import torch

    from flexseg.components.boundary import downsample_label, label_boundary
    from flexseg.world import render

    height, width = size
    marked: dict[tuple[str, int], int] = {}
    valid = {"label": 0, "features": 0}
    for index in range(images):
        label = torch.from_numpy(render(domain, "train", index, version=version, height=height, width=width).label)[
            None
        ]
        reduced = downsample_label(label, (height // STRIDE, width // STRIDE))
        for name, each, kernels in (("label", label, (3, 5, 7)), ("features", reduced, (7,))):
            valid[name] += int((each != IGNORE).sum())
            for kernel in kernels:
                count = int(label_boundary(each, kernel).sum())
                marked[name, kernel] = marked.get((name, kernel), 0) + count
    return pd.DataFrame(
        [
            {"drawn_on": name, "kernel": kernel, "share": 100 * count / valid[name]}
            for (name, kernel), count in marked.items()
        ]
    )


def wrong_labels(
    version: int, size: tuple[int, int], images: int, strengths: Sequence[float] = STRENGTHS
) -> pd.DataFrame:
    """Which labels of the generated domain are wrong: the class that is painted is not the label's.

    Columns: ``strength``; ``by`` (``all``, ``ring`` of distance to the label's boundary, or ``class`` of the label);
    ``name``; ``pixels``, the group's share of the labelled pixels, and ``wrong``, the share of it that is wrong, both
    in percent. Distances are of the chessboard.

    Raises:
        UserError: there is no such version.
    """
    import torch

    from flexseg.components.boundary import granularity
    from flexseg.world import render

    rings, classes = [*RINGS, BEYOND], list(CLASS_NAMES)
    records = []
    with progress_bar("rendering", len(strengths) * images) as advance:
        for strength in strengths:
            counts = np.zeros((2, len(rings), len(classes)), np.int64)
            for index in range(images):
                frame = render(
                    "generated",
                    "train",
                    index,
                    version=version,
                    height=size[0],
                    width=size[1],
                    misalignment=strength,
                )
                ring = granularity(torch.from_numpy(frame.label)[None], tuple(RINGS.values()))[0].numpy()
                group = (ring % len(rings)).astype(np.int64) * len(classes) + frame.label
                known = frame.label != IGNORE
                for k, pixels in enumerate((known, known & (frame.painted != frame.label))):
                    found = np.bincount(group[pixels], minlength=counts[0].size)
                    counts[k] += found.reshape(counts[0].shape)
                advance(1)
            groups = [("all", "all", counts.sum((1, 2)))]
            groups += [("ring", name, counts[:, i].sum(1)) for i, name in enumerate(rings)]
            groups += [("class", name, counts[:, :, i].sum(1)) for i, name in enumerate(classes)]
            total = counts[0].sum()
            records += [
                {
                    "strength": strength,
                    "by": by,
                    "name": name,
                    "pixels": 100 * all_ / total,
                    "wrong": 100 * wrong / all_ if all_ else float("nan"),
                }
                for by, name, (all_, wrong) in groups
            ]
    return pd.DataFrame(records)


def show_boundaries(version: int, size: tuple[int, int], images: int, console: Console) -> None:
    """Print :func:`boundary_shares`."""
    table = Table(title=f"Boundaries of the source, version {version}, {size[0]}×{size[1]}, {images} images")
    table.add_column("drawn on")
    table.add_column("kernel", justify="right")
    table.add_column("% of pixels", justify="right")
    for row in boundary_shares(version, size, images).itertuples():
        drawn = "the label" if row.drawn_on == "label" else f"the label at stride {STRIDE}"
        table.add_row(drawn, str(row.kernel), f"{row.share:.1f}")
    console.print(table)


def show_misalignment(version: int, size: tuple[int, int], images: int, console: Console, output: Path | None) -> None:
    """Print :func:`wrong_labels`, a column for each strength, and write it as CSV to ``output``."""
    from flexseg.files import replacing

    facts = wrong_labels(version, size, images)
    where = f"version {version}, {size[0]}×{size[1]}, {images} images"
    table = Table(title=f"Wrong labels in percent, by strength; {where}")
    table.add_column("ring, class")
    table.add_column("% of pixels", justify="right")
    strengths = sorted(set(facts["strength"]))
    for strength in strengths:
        table.add_column(f"at {strength:g}", justify="right")
    for _, group in facts.groupby(["by", "name"], sort=False):
        values = [f"{value:.1f}" for value in group.sort_values("strength")["wrong"]]
        table.add_row(group["name"].iloc[0], f"{group['pixels'].iloc[0]:.1f}", *values)
    console.print(table)
    if output is not None:
        with replacing(output) as temporary:
            facts.to_csv(temporary, index=False, float_format="%.3f")
        console.print(str(output))
