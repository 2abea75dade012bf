"""Whether the labels of a set are like that set's. Damage shows when a file is decoded, other ids show only here."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flexseg.classes import TRAIN_ID
from flexseg.data.layouts import name_some
from flexseg.data.sets import DataSet
from flexseg.errors import UserError


def check_content(dataset: DataSet, split: str, table: pd.DataFrame) -> list[str]:
    """Compare the classes of a split's labels with what the set's file calls plausible; return remarks, a line each.

    Args:
        table: the images, with ``height``, ``width`` and ``class_pixels``, (19,) pixels of each trainId.

    Raises:
        UserError: no pixel is labelled, a class that every larger part has is nowhere, or too much is void.
    """
    place, plausible = f"{dataset.title}, {split}", dataset.plausible
    counts = np.stack(table["class_pixels"].tolist()).astype(np.int64)
    labelled, every = counts.sum(1), int((table["height"] * table["width"]).sum())
    if not labelled.any():
        raise UserError(
            f"{place}: all {len(table)} labels are void throughout, so nothing can be learnt from them or measured on "
            "them. Are these the dummy labels of a test split whose own are not public, or labels of another kind?"
        )
    void, most = 1 - labelled / (table["height"] * table["width"]).to_numpy(), plausible.void
    remarks = list[str]()
    for places, kind in (
        (labelled == 0, "labels are void throughout"),
        ((void > most) & (labelled > 0), f"labels are void in more than {most:.0%} of their pixels"),
        (table["sha256"].duplicated().to_numpy(), "images are copies of others"),
    ):
        if names := table["id"].to_numpy()[places].tolist():
            remarks.append(f"{len(names)} of {len(table)} {kind}: {name_some(names)}")
    shares = counts.sum(0) / labelled.sum()
    missing = [name for name in plausible.classes if not shares[TRAIN_ID[name]]]
    what = [f"{', '.join(missing)} occur nowhere"] if missing else []
    if (all_void := 1 - labelled.sum() / every) > most:
        what.append(f"{all_void:.0%} of the pixels are void, and at most {most:.0%} are plausible")
    if len(table) < plausible.images:
        return remarks + (what if len(table) > 1 else [])
    if what:
        raise UserError(
            f"{place}: in {len(table)} labels {' and '.join(what)}. These are not the labels as they were released: "
            "were they converted in place, to trainIds perhaps? Unpack them again"
        )
    for name, (low, high) in plausible.shares.items():
        share = shares[TRAIN_ID[name]]
        if not low <= share <= high:
            remarks.append(f"{name} has {share:.1%} of the labelled pixels, {low:.1%} to {high:.1%} are usual")
    return remarks
