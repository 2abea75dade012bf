"""BlindNet: two styles of an image must agree in the covariances of early features and, per pixel, in late ones.

Ahn et al., *Style Blind Domain Generalized Semantic Segmentation via Covariance Alignment and Semantic Consistence
Contrastive Learning*, CVPR 2024. As in RobustNet the ends of early stages are standardised by instance normalisation
without γ and β. With an image x, a photometric change x' of it, the standardised features f and f' (C × HW), Σ as in
RobustNet and the cross covariance Σ(x, x') = f f'ᵀ / (HW − 1) + 1e-5 I,

    L = ½ (CE(x) + CE(x')) + w₁ · MSE(Σ(x), Σ(x')) + w₂ · MSE(diag Σ(x, x'), 1) + w₃ · L_CWCL + w₄ · L_SDCL.

L_CWCL and L_SDCL are InfoNCE losses (``flexseg/components/contrast.py``) of projected pixels of x', whose positive is
the same pixel of x. *Class-wise*: anchors are equally many pixels, half of them predicted wrongly, of each class of an
image; negatives are the image's pixels of its other classes in x. *Semantic disentanglement*: anchors are pixels that
are right in x and wrong in x'; negatives are pixels of x' whose label is the class that the anchor is taken for. In all
four terms x gets no gradient. They are means over layers or maps.

Published, also by the authors' code: w = (0.2, 0.2, 0.3, 0.3), τ = 0.07, 15 classes × 50 views, 20 negatives, at most
1000 anchors times the images of a batch; the covariances of a ResNet's stem, layer1 and layer2; auxiliary heads see x
alone; projections of two layers to 256 channels. Three maps are contrasted, of up to 192 × 192 pixels: the backbone's
last, the decoder's input and what the classifier sees. The decoder's input is DeepLabv3+'s own and is left out. On this
suite's images the backbone's last map has eight pixels, so by default the classifier's map alone is contrasted, in
fewer views.

Here: where an image has fewer than 15 classes, the authors fill up with random pixels as classes of their own; that
contrasts pixels of one class with each other and is left out. The change is that of RobustNet's code, on which
the authors' builds.
The views pass one after the other, as published, so that BatchNorm normalises each by its own statistics, not by those
of a mixture that evaluation never sees; its running statistics average over both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexseg.classes import IGNORE
from flexseg.components.boundary import downsample_label
from flexseg.components.contrast import (
    class_wise_contrast,
    sample_disentangled,
    sample_views,
    semantic_disentangled_contrast,
)
from flexseg.components.norms import Standardisation, covariances, put_at_stage_ends
from flexseg.data.photometric import photometric_view
from flexseg.method import (
    Batch,
    Method,
    auxiliary_losses,
    label_log_probabilities,
    option,
    require_at_least,
    weight_terms,
)
from flexseg.models import Output, Segmentor

Level = Literal["backbone", "head"]


class _Projection(nn.Sequential):
    """Features (N, C) to points of unit length (N, ``dim``), float32."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, dim))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(super().forward(x).float(), dim=1)


@dataclass
class _Pass:
    """One view's output, its ``standardised`` features of the early stages, and the ``maps`` that are contrasted."""

    output: Output
    standardised: list[Tensor]
    maps: dict[Level, Tensor]


def covariance_losses(plain: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
    """MSE(Σ(x), Σ(x')) and MSE(diag Σ(x, x'), 1), means over images: two float32 scalars.

    Args:
        plain, changed: (B, C, H, W) standardised features of both views; ``plain`` gets no gradient.
    """
    with torch.autocast(changed.device.type, enabled=False):
        f, g = plain.detach().float(), changed.float()
        diagonal = (f * g).sum(dim=(2, 3)) / (f[0, 0].numel() - 1) + 1e-5
        return functional.mse_loss(covariances(g), covariances(f)), (diagonal - 1).square().mean()


class BlindNet(Method):
    name = "blindnet"
    title = "BlindNet"
    paper = "Ahn et al., Style Blind Domain Generalized Semantic Segmentation, CVPR 2024"
    needs = ("batch_norm",)

    @dataclass(frozen=True)
    class Options:
        covariance: float = option(0.2, "w₁, the weight of the alignment of covariances")
        cross_covariance: float = option(0.2, "w₂, the weight of the alignment of cross covariances")
        class_wise: float = option(0.3, "w₃, the weight of L_CWCL")
        disentangled: float = option(0.3, "w₄, the weight of L_SDCL")
        temperature: float = option(0.07, "τ of both contrasts")
        stages: int = option(3, "early stages that are standardised, as published for ResNet", origin="assumed")
        levels: tuple[Level, ...] = option(
            ("head",), "maps that are contrasted: what the classifier sees, the backbone's last", origin="scaled"
        )
        dim: int = option(256, "length of a projected feature")
        max_classes: int = option(15, "most classes of an image in L_CWCL")
        views: int = option(10, "pixels of a class in L_CWCL; published: 50", origin="scaled")
        negatives: int = option(20, "pixels of the wrong class in L_SDCL")
        max_anchors: int = option(128, "most anchors in L_SDCL, an image; published: 1000", origin="scaled")
        strength: float = option(0.8, "of the change's jitter of brightness, contrast and saturation")
        hue: float = option(0.3, "of a turn, the most by which the change turns the hue")
        blur: tuple[float, float] = option((0.15, 1.3), "range of σ of the change's blur, in pixels")

        def __post_init__(self) -> None:
            require_at_least(self, stages=1, dim=1, max_classes=2, views=1, negatives=1, max_anchors=1)
            if not (0 <= self.strength <= 1 and 0 <= self.hue <= 1 and 0 <= self.blur[0] <= self.blur[1]):
                raise ValueError(f"strength and hue must be between 0 and 1, blur a range from 0 on: {self}")
            if self.temperature <= 0:
                raise ValueError(f"temperature must be positive, not {self.temperature}")
            if not self.levels or len(set(self.levels)) < len(self.levels):
                raise ValueError(f"levels names one or more maps, each once, not {self.levels}")

    def build_model(self, config: Mapping[str, Any]) -> Segmentor:
        model = super().build_model(config)
        put_at_stage_ends(model.backbone, self.options.stages, Standardisation)
        return model

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        channels = {"head": model.feature_channels}
        if "backbone" in self.options.levels:
            channels["backbone"] = _last_channels(model)
        self._projections = nn.ModuleDict(
            {level: _Projection(channels[level], self.options.dim) for level in self.options.levels}
        )
        return self._projections

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        plain, changed = _run(model, batch.images), _run(model, self._changed(batch))
        # Nothing is learnt from a batch of void, although two of the terms need no label.
        labelled = (batch.labels != IGNORE).any().float()
        pairs = [covariance_losses(f, g) for f, g in zip(plain.standardised, changed.standardised, strict=True)]
        covariance, cross = (labelled * torch.stack(losses).mean() for losses in zip(*pairs, strict=True))
        contrasts = [self._contrasts(level, plain, changed, batch.labels) for level in self.options.levels]
        class_wise, disentangled = (torch.stack(losses).mean() for losses in zip(*contrasts, strict=True))
        both = [
            self.supervise(batch, view.output, label_log_probabilities(view.output, batch.labels))
            for view in (plain, changed)
        ]
        terms = {name: (term + both[1][name]) / 2 for name, term in both[0].items()} | {
            "covariance": self.options.covariance * covariance,
            "cross_covariance": self.options.cross_covariance * cross,
            "class_wise": self.options.class_wise * class_wise,
            "disentangled": self.options.disentangled * disentangled,
        }
        return weight_terms(terms, plain.output) | auxiliary_losses(plain.output, batch.labels)

    def _changed(self, batch: Batch) -> Tensor:
        """The photometric view of the batch's images, (B, 3, H, W); drawn by iteration and slot."""
        draws = batch.generators(self.setup.seed)
        return photometric_view(batch.images, draws, self.options.strength, self.options.hue, self.options.blur)

    def _contrasts(self, level: Level, plain: _Pass, changed: _Pass, labels: Tensor) -> tuple[Tensor, Tensor]:
        """L_CWCL and L_SDCL of one map. Only the pixels that they need are projected."""
        options, size = self.options, changed.maps[level].shape[2:]
        true = downsample_label(labels, size).flatten(1)
        first, second = (
            # argmax would be three times slower, as the classes are not last.
            downsample_label(view.output.logits.max(dim=1).indices, size).flatten(1)
            for view in (plain, changed)
        )
        views = sample_views(true, first, self.setup.num_classes, options.views, options.max_classes)
        present = (views >= 0).all(dim=2)
        starts = torch.arange(len(true), device=true.device)[:, None, None] * true.shape[1]
        chosen = (views + starts)[present].flatten()
        anchors, group, negatives = sample_disentangled(
            true, first, second, self.setup.num_classes, options.negatives, options.max_anchors
        )
        with torch.no_grad():
            keys, positives = self._project(level, plain, chosen, anchors)
        queries, anchored, apart = self._project(level, changed, chosen, anchors, negatives.flatten())
        queries, keys = (_fill_slots(points, present, options.views) for points in (queries, keys))
        class_wise = class_wise_contrast(queries, keys, present, options.temperature)
        apart = apart.view(*negatives.shape, options.dim)
        disentangled = semantic_disentangled_contrast(anchored, positives, apart, group, options.temperature)
        return class_wise, disentangled

    def _project(self, level: Level, view: _Pass, *places: Tensor) -> tuple[Tensor, ...]:
        """The projections (n, ``dim``) of a view's pixels at each of these lists of places (n,) in B · h · w."""
        lines = view.maps[level].permute(0, 2, 3, 1).flatten(0, 2).index_select(0, torch.cat(places))
        return self._projections[level](lines).split([len(each) for each in places])


def _fill_slots(points: Tensor, present: Tensor, views: int) -> Tensor:
    """Put points (n · V, D) into the n slots of (B, S) that hold a class: (B, S, V, D), zero elsewhere."""
    slots = points.new_zeros(*present.shape, views, points.shape[1])
    return slots.index_put((present,), points.view(-1, views, points.shape[1]))


def _last(maps: Any) -> Tensor:
    """The last map of a backbone's body: its smallest, of several of one size the widest."""
    maps = maps.values() if isinstance(maps, Mapping) else maps  # detectron2's backbones give them by name
    return min(maps, key=lambda each: (each.shape[2] * each.shape[3], -each.shape[1]))


@torch.no_grad()
def _last_channels(model: Segmentor) -> int:
    """The channels of the backbone's last map, found by a pass in eval mode, which changes nothing."""
    weight = next(model.backbone.parameters())
    side = -(-64 // model.size_divisor) * model.size_divisor
    training = model.training
    model.eval()
    maps = model.backbone(weight.new_zeros(1, 3, side, side))
    model.train(training)
    return _last(maps).shape[1]


def _run(model: Segmentor, images: Tensor) -> _Pass:
    """Pass one view of a batch and keep what the terms need."""
    standardised: list[Tensor] = []
    backbone: list[Tensor] = []
    layers = [module for module in model.backbone.modules() if isinstance(module, Standardisation)]
    with _watch(layers, standardised.append), _watch([model.backbone], lambda maps: backbone.append(_last(maps))):
        output = model(images)
    return _Pass(output, standardised, {"backbone": backbone[0], "head": output.features})


@contextmanager
def _watch(modules: list[Any], see: Any) -> Iterator[None]:
    """Call ``see`` with every output of the modules; a tensor is copied, as the ReLU behind it works in place."""

    def hook(_: nn.Module, __: Any, given: Any) -> None:
        see(given.clone() if isinstance(given, Tensor) else given)

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(hook).remove)
        yield
