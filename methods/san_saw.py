"""SAN-SAW: early features are normalised class by class, and channels of different classes are decorrelated.

Peng et al., *Semantic-Aware Domain Generalized Segmentation*, CVPR 2022. A SAN (``flexseg/components/san.py``),
which has a classifier of its own, ends each of two early stages and stays in the evaluated model. SAW groups the
channels behind it by that classifier's weights (``flexseg/components/saw.py``). With y = SAN(x), at stages 1 and 2,

    L = CE + 0.1 Σ CE(classifier(x)) + 0.1 Σ smoothL1(y, target(x, labels)) + 0.1 Σ L_SAW(y)

Published: ResNet's layer1 and layer2 (256 and 512 channels at strides 4 and 8); the classes road, sky, building,
sidewalk and vegetation; 5 clusters for the region masks; relax 2. As in the released implementation (MIT,
leolyj/SAN-SAW), the gradient goes through the target too, IN runs over the whole masked map, SAW's covariances are not
centred and its scales carry no gradient.

Here: a UNet's encoder.1 and encoder.2 are at strides 4 and 8, so they take the place of layer1 and layer2; with 16 base
channels they have 32 and 64 channels, so that SAW, which sums over ⌊C / 5⌋ groups, has 6 and 12 in place of 51 and 102,
and weighs that much less beside the other terms. Region masks are clustered image by image instead of over the batch,
so that a prediction depends on its own image alone, by Lloyd's algorithm from fixed starts. Void pixels are left out
of smoothL1, and images without any label of SAW.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flexseg.classes import IGNORE
from flexseg.components.losses import mean_over_valid
from flexseg.components.norms import stages_with_batch_norm
from flexseg.components.san import Seen, SemanticNormalisation, watch_normalisation
from flexseg.components.saw import channel_groups, group_whitening_losses
from flexseg.errors import RunError
from flexseg.method import Batch, Method, cross_entropy, option, require_at_least
from flexseg.models import Segmentor


class SanSaw(Method):
    name = "san_saw"
    title = "SAN-SAW"
    paper = "Peng et al., Semantic-Aware Domain Generalized Segmentation, CVPR 2022"
    needs = ("batch_norm",)

    @dataclass(frozen=True)
    class Options:
        stages: int = option(2, "stages behind the stem that end in SAN")
        classes: tuple[int, ...] = option((0, 10, 2, 1, 8), "the selected classes, as trainIds")
        clusters: int = option(5, "k of the region masks' k-means, of which the lowest is left out")
        relax: float = option(2.0, "SAW bears a sum of the number of pairs over this; 0: of nothing")
        classifier_weight: float = option(0.1, "weight of the stages' classifiers' cross entropy")
        san_weight: float = option(0.1, "weight of the distance to the class-wise normalised target")
        saw_weight: float = option(0.1, "weight of L_SAW")

        def __post_init__(self) -> None:
            require_at_least(self, stages=1, clusters=2)
            for name in ("relax", "classifier_weight", "san_weight", "saw_weight"):
                if not 0 <= getattr(self, name) < float("inf"):
                    raise ValueError(f"{name} must be a number from 0, not {getattr(self, name)}")
            if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
                raise ValueError(f"classes names two or more different trainIds, not {list(self.classes)}")
            if not set(self.classes) <= set(range(IGNORE)):
                raise ValueError(f"classes holds trainIds, not {list(self.classes)}")

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        backbone = model.backbone
        if beyond := [train_id for train_id in self.options.classes if train_id >= model.num_classes]:
            raise RunError(
                f"{self.name}: classes names {beyond}, and the benchmark's trainIds end at {model.num_classes - 1}"
            )
        stages = list(stages_with_batch_norm(backbone).items())[1 : self.options.stages + 1]
        if len(stages) < self.options.stages:
            raise RunError(f"{self.name} needs {self.options.stages} stages with BatchNorm behind the first")
        for path, norms in stages:
            last: Any = backbone.get_submodule(norms[-1])
            stage = backbone.get_submodule(path)
            if not isinstance(stage, torch.nn.Sequential):
                raise RunError(f"{self.name} needs stages that are chains, which {path} of this backbone is not")
            san = SemanticNormalisation(
                last.num_features, self.options.classes, self.options.clusters, model.num_classes
            )
            stage.add_module("san", san)
        return model

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        with watch_normalisation(model.backbone) as seen:
            terms = super().forward(model, batch)
        classified = sum(cross_entropy(stage.logits, batch.labels) for stage in seen)
        normalised = sum(_distance(stage, batch.labels) for stage in seen)
        whitened = sum(self._whitening(stage, batch.labels) for stage in seen)
        return terms | {
            "classifiers": self.options.classifier_weight * classified,
            "san": self.options.san_weight * normalised,
            "saw": self.options.saw_weight * whitened,
        }

    def _whitening(self, stage: Seen, labels: Tensor) -> Tensor:
        """The mean of L_SAW over images; those without a label add nothing. labels: (B, H, W)."""
        channels, scales = channel_groups(stage.module.classifier.weight.flatten(1), stage.module.classes)
        losses = group_whitening_losses(stage.behind, channels, scales, self.options.relax)
        return (losses * (labels != IGNORE).flatten(1).any(dim=1)).mean()


def _distance(stage: Seen, labels: Tensor) -> Tensor:
    """smoothL1(y, target), the mean over channels and over pixels that are not void at the features' resolution."""
    small = functional.interpolate(labels[:, None].float(), stage.before.shape[2:], mode="nearest")[:, 0].long()
    target = stage.module.target(stage.before, small)
    distances = functional.smooth_l1_loss(stage.behind.float(), target, reduction="none").mean(dim=1)
    return mean_over_valid(distances * (small != IGNORE), small)
