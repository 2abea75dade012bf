"""Whether the labels of a set are like that set's. Damage shows when a file is decoded, other ids show only here."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flexseg.classes import CITYSCAPES, IGNORE, ClassSet
from flexseg.data.layouts import name_some
from flexseg.data.sets import DataSet
from flexseg.errors import UserError


def check_content(dataset: DataSet, split: str, table: pd.DataFrame, classes: ClassSet = CITYSCAPES) -> list[str]:
    """Compare the classes of a split's labels with what the set's file calls plausible; return remarks, a line each.

    Args:
        table: the images, with ``height``, ``width`` and ``class_pixels``, (C,) pixels of each trainId.
        classes: whose trainIds these are. What the suite's files say of Cityscapes' classes is looked for in the
            classes that take them, and not where nobody does.

    Raises:
        UserError: no pixel is labelled, a class that every larger part has is nowhere, or too much is void; or a file
            of one's own names a class that does not exist.
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
    if not (classes.is_default or dataset.file):
        most = 1.0  # other classes leave other pixels void
    remarks = list[str]()
    for places, kind in (
        (labelled == 0, "labels are void throughout"),
        ((void > most) & (labelled > 0), f"labels are void in more than {most:.0%} of their pixels"),
        (table["sha256"].duplicated().to_numpy(), "images are copies of others"),
    ):
        if names := table["id"].to_numpy()[places].tolist():
            remarks.append(f"{len(names)} of {len(table)} {kind}: {name_some(names)}")
    shares = counts.sum(0) / labelled.sum()
    if dataset.file and (unknown := {*plausible.classes, *plausible.shares} - set(classes.ids)):
        raise UserError(f"{dataset.file}: plausible: {classes.id} has no class {', '.join(sorted(unknown))}")
    places_of = {name: place for name, place in classes.ids.items() if place != IGNORE}
    missing = [name for name in plausible.classes if name in places_of and not shares[places_of[name]]]
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
        if name not in classes.names:
            continue
        share = shares[places_of[name]]
        if not low <= share <= high:
            remarks.append(f"{name} has {share:.1%} of the labelled pixels, {low:.1%} to {high:.1%} are usual")
    return remarks
