"""Plain training in which a fixed share of the draws are generated images: the control of hardness-aware sampling.

HAS draws hard images more often, and where generated images are the harder ones it also changes how much of each kind
is seen. This method changes that share alone: with probability ``share`` a slot of the batch is filled uniformly from
the generated images, otherwise uniformly from the source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexseg.data.draws import Purpose, generator
from flexseg.method import Method, option


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

    def choose(self, iteration: int, slots: Sequence[int]) -> np.ndarray:
        generated = self.setup.origins > 0
        chosen = []
        for slot in slots:
            draws = generator(self.setup.seed, Purpose.CHOOSE, iteration, slot)
            places = np.flatnonzero(generated == (draws.random() < self.options.share))
            chosen.append(places[draws.integers(len(places))])
        return np.array(chosen, dtype=np.int64)
