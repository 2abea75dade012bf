"""Plain training in which a fixed share of the draws are generated images: the control of hardness-aware sampling.

HAS draws hard images more often, and where generated images are the harder ones it also changes how much of each kind
is seen. This method changes that share alone: with probability ``share`` a slot of the batch is filled from the
generated images, otherwise from the source; of each kind uniformly, or as the benchmark's recipe draws within it.
"""

from dataclasses import dataclass, replace
from typing import Any

from flexseg.method import Method, Setup, option


class GeneratedShare(Method):
    name = "generated_share"
    title = "Fixed share of generated images"
    paper = "a control of this suite"

    @dataclass(frozen=True)
    class Options:
        share: float = option(0.5, "probability that a draw is a generated image")

        def __post_init__(self) -> None:
            if not 0.0 <= self.share <= 1.0:
                raise ValueError(f"share is a probability between 0 and 1, not {self.share}")

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, replace(setup, mix=(1 - options.share, options.share)))
