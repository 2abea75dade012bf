"""DAFormer's two training strategies that need no target: rare class sampling and the thing-class feature distance.

Hoyer et al., *DAFormer*, CVPR 2022; without a target domain as in their HRDA for domain generalization (TPAMI 2024).

    RCS: draw class c with P(c) = softmax((1 − f_c) / T), f_c its share of the training pixels, then one of the images
    with enough pixels of it.    FD: L = L_CE + λ · mean over thing cells of ‖F − F_0‖₂, F the encoder's deepest map,
    F_0 that of the encoder as it was before training, a cell being a thing's if 75 % of its pixels are of one.

Published: T = 0.01, at least 3000 pixels of a 1914 × 1052 image, λ = 0.005. The published code counts traffic lights
and signs among the things.

**The frozen encoder.** Published, the trunk starts from ImageNet weights, and FD keeps it from forgetting what it knows
of things. The trunks here start from random weights. With ``encoder: initial`` the definition is the same, but there
is nothing to remember: FD then holds the features of things near those of a random network, and can only be a
regulariser. The published FD needs ImageNet weights for this benchmark's backbone, given by path and checksum. Where
the frozen encoder's BatchNorms have no statistics yet, they use the batch's, so that L_FD starts at 0.

**Scaled.** 3000 pixels are a share of 0.0015 of the published image; this share is what is asked of any image here. A
cell is as large as the map's stride: 32 pixels are 4 % of the height at which published images are trained (720), and
half of a 64-pixel image, where hardly a cell is of one thing. ``stage`` chooses a shallower map.

**Left out.** The published sampler crops again, up to 10 times, until the crop holds half of the pixels asked for. A
method here sees samples once they are cropped. Where the crop is the whole image nothing is lost; elsewhere a crop may
miss the class for which its image was drawn. A benchmark whose rows all train as published has both strategies, with
this part, in its recipe (``training.sampling`` and ``training.feature_distance``); this row is for the others.

**Substituted.** The union of all training images takes the place of the source: both strategies need labels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from flexseg.benchmark.schedule import THINGS
from flexseg.classes import TRAIN_ID
from flexseg.components.fd import FrozenEncoder, class_cells, feature_distance, watch_encoder, with_weights
from flexseg.components.rcs import RareClassSampler
from flexseg.data.draws import Purpose, generator
from flexseg.errors import RunError, did_you_mean
from flexseg.method import Batch, Method, Setup, option
from flexseg.models import Segmentor


class DAFormer(Method):
    name = "daformer"
    title = "DAFormer (RCS, FD)"
    paper = "Hoyer et al., DAFormer: Improving Network Architectures and Training Strategies, CVPR 2022"

    @dataclass(frozen=True)
    class Options:
        rcs: bool = option(True, "rare class sampling")
        fd: bool = option(True, "thing-class feature distance")
        temperature: float = option(0.01, "T of P(c); the smaller, the more often rare classes are drawn")
        min_share: float = option(0.0015, "share of an image that its drawn class must exceed", origin="scaled")
        weight: float = option(0.005, "λ, the weight of L_FD")
        classes: tuple[str, ...] = option(THINGS, "classes on which the distance is measured")
        cell_share: float = option(0.75, "share of a cell's pixels that must be of one class")
        stage: int = option(-1, "the encoder's stage whose map is compared, from 0; -1 is the deepest")
        encoder: str = option(
            "initial",
            "weights of the frozen encoder: `initial` are the trunk's own before training, which are random here, so "
            "that there is nothing to remember; or a safetensors file with weights of the backbone (ImageNet)",
            origin="own",
        )
        encoder_sha256: str = option("", "SHA-256 of that file", origin="own")

        def __post_init__(self) -> None:
            if not self.temperature > 0:
                raise ValueError(f"temperature must be positive, not {self.temperature}")
            if not 0 <= self.min_share < 1:
                raise ValueError(f"min_share lies between 0 and 1, not {self.min_share}")
            if not self.weight >= 0:
                raise ValueError(f"weight must not be negative, not {self.weight}")
            if not 0.5 < self.cell_share <= 1:
                raise ValueError(f"cell_share lies above 0.5, up to 1, not {self.cell_share}")
            for name in self.classes:
                if name not in TRAIN_ID:
                    raise ValueError(f"classes: there is no class {name!r}{did_you_mean(name, TRAIN_ID)}")
            if not self.classes:
                raise ValueError("classes must name a class; to have no distance say fd: false")
            if (self.encoder == "initial") != (not self.encoder_sha256):
                raise ValueError("encoder_sha256 goes with a file as encoder: give both, or neither")

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self._encoder: FrozenEncoder | None = None
        self._sampler: RareClassSampler | None = None
        if options.rcs and len(setup.class_pixels):
            try:
                self._sampler = RareClassSampler(
                    setup.class_pixels, temperature=options.temperature, min_share=options.min_share
                )
            except ValueError as error:
                raise RunError(f"daformer cannot sample rare classes from these training images: {error}") from error
        self._cells: Tensor | None = None

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        if not self.options.fd:
            return None
        backbone = model.backbone
        if self.options.encoder != "initial":
            backbone = with_weights(backbone, Path(self.options.encoder), self.options.encoder_sha256)
        self._encoder = FrozenEncoder(backbone, self.options.stage)
        return self._encoder

    def choose(self, iteration: int, slots: Sequence[int]) -> np.ndarray:
        if self._sampler is None:
            return super().choose(iteration, slots)
        draws = [self._sampler.draw(generator(self.setup.seed, Purpose.CHOOSE, iteration, slot)) for slot in slots]
        return np.array([image for _, image in draws], dtype=np.int64)

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        if self._encoder is None:
            return super().forward(model, batch)
        with watch_encoder(model.backbone, self.options.stage) as seen:
            terms = super().forward(model, batch)
        features, classes = seen[0], [TRAIN_ID[name] for name in self.options.classes]
        cells = class_cells(batch.labels, features.shape[-2:], classes, self.options.cell_share)
        self._cells = cells
        return terms | {"fd": self.options.weight * feature_distance(features, self._encoder(batch.images), cells)}

    def log(self) -> dict[str, float]:
        values: dict[str, float] = {}
        if self._cells is not None:
            values["fd/cells"] = float(self._cells.float().mean())
        if self._sampler is not None:
            values["rcs/classes"] = float(np.count_nonzero(self._sampler.probabilities))
        return values
