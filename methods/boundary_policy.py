"""The fixed boundary policies: how the loss of pixels at a class boundary changes, whatever the model predicts.

FLEX-Seg (Kim et al., AAAI 2026) compares four of them as its motivation: *ignore* (W = 0), *reduce* (W < 1), *clip*
(min(τ, L)) and *enhance* (W > 1). Enhancing by the mean weight of uncertainty boundary emphasis, 1 + α/2 = 2.5, is the
control that separates emphasis from uncertainty.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from flexseg.components.boundary import label_boundary
from flexseg.components.ube import clipped_cross_entropy, constant_weights, weighted_cross_entropy
from flexseg.method import Batch, Method, option
from flexseg.models import Output


class BoundaryPolicy(Method):
    name = "boundary_policy"
    title = "Fixed boundary policy"
    paper = "Kim et al., FLEX-Seg, AAAI 2026 (motivation)"

    @dataclass(frozen=True)
    class Options:
        policy: Literal["ignore", "reduce", "clip", "enhance"] = option("enhance", "what happens at the boundary")
        weight: float = option(2.5, "W of `reduce` and `enhance`", origin="assumed")
        limit: float = option(1.0, "τ of `clip`, in nats", origin="assumed")
        kernel: int = option(7, "a pixel is on the boundary if its k×k window holds another class", origin="assumed")

        def __post_init__(self) -> None:
            allowed = {"reduce": (0.0, 1.0), "enhance": (1.0, float("inf"))}.get(self.policy)
            if allowed and not allowed[0] < self.weight < allowed[1]:
                raise ValueError(
                    f"{self.policy} takes a weight between {allowed[0]} and {allowed[1]}, not {self.weight}"
                )

    def supervise(self, batch: Batch, output: Output, log_p: Tensor) -> dict[str, Tensor]:
        boundary = label_boundary(batch.labels, self.options.kernel)
        if self.options.policy == "clip":
            return {"ce": clipped_cross_entropy(log_p, batch.labels, boundary, self.options.limit)}
        weight = 0.0 if self.options.policy == "ignore" else self.options.weight
        return {"ce": weighted_cross_entropy(log_p, batch.labels, constant_weights(boundary, weight))}
