"""The figure of the claims, as the reports take it."""

from __future__ import annotations

from functools import partial

from flexseg.analysis.figures import plots
from flexseg.analysis.figures.plate import Plate, empty_plate
from flexseg.analysis.frames import frame_standing
from flexseg.analysis.stats.claims import Standing
from flexseg.analysis.stats.scores import Scores


def claims_plate(scores: Scores, found: Standing) -> Plate:
    """The picture of the claims."""
    name, heading = "claims", "Claims: measured, published, and what would matter"
    if not found.sides:
        return empty_plate(name, heading, "Neither the repository nor these results have a run that a claim needs.")
    caption = (
        "The contrast of each claim, signed so that the claimed direction is to the right. Dot: mean over the common "
        "seeds; bar: 95 % interval over seeds and test images, not adjusted; filled: reproduced or refuted, after "
        "Holm. Grey: from no effect to the smallest one of interest; a bar to the right of zero shows the claim, one "
        "to the left of the grey's end refutes it. Diamond: the published size, on other data. An arrow with a "
        "number: off the scale."
    )
    return Plate(name, heading, caption, partial(plots.plot_claims, frame_standing(scores, found)))
