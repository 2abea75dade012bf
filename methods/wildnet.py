"""WildNet with wild := source: every image is also passed in the styles of another one, at each early stage.

WildNet (Lee et al., *WildNet: Learning Domain Generalized Semantic Segmentation from the Wild*, CVPR 2022), written
from its formulas and what its code says of them (``network/cel.py``, ``network/deepv3.py``, ``train.py``). Behind the
stem and the first two stages the map of an image takes the channel statistics (μ_w, σ_w) of a wild image there,
x' = σ_w (x − μ)/σ + μ_w, each time on top of the one before. With p, p' the predictions and z, z' the projected
features of a pixel, of unit length, plain and stylised,

    L = CE(p) + λ_CEL · [ℓ(z, z') + ℓ(z, q)] + λ_SEL · CE(p') + λ_SCR · KL(p‖p') / C
    ℓ(z, z⁺) = −log( exp(⟨z, z⁺⟩/τ) / (exp(⟨z, z⁺⟩/τ) + Σ_j exp(⟨z, z'_j⟩/τ)) )

where the anchors are plain pixels, the z'_j the stylised pixels of other classes in the same image, and q the wild
content nearest to z', sought in a queue. C = 19 classes: the code takes the divergence's mean over pixels, void ones
too, and over classes. Published: λ = (0.1, 1.0, 10.0), τ = 0.07, a grid of 64² pixels per image, 16² contents of each
wild image, a queue of 393,216 contents (1,536 images'), a projection of 256 → 256 → 256 with a ReLU. The auxiliary head
has all three terms but the content's, with its weight of 0.4.

**Substituted**: the published wild images are ImageNet's. Here they are other training images: the style is that of
another image of the batch, the contents are those of the latest batches. This is what the table of MRFP (CVPR 2024)
reports as ImageNet replaced by source. A single image in a batch keeps its style.

**Scaled**: the grids, the queue and the projection.

**Left out**: the queue begins with random directions; here it begins empty, and ℓ(z, q) is left out until the first
batch has joined it. In the code pixels of the anchor's own class stand in the denominator with e^{−1/τ}, a millionth.

No gradient passes through the wild styles and contents, all others do. The stem is passed once; from there on both
views are one batch of twice the size, so that BatchNorm's statistics, also those it keeps, are those of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexseg.classes import IGNORE
from flexseg.components.boundary import downsample_label
from flexseg.components.consistency import kullback_leibler
from flexseg.components.losses import mean_over_valid, negative_log_likelihood
from flexseg.components.recent import Recent
from flexseg.components.style import changed_outputs, channel_statistics, early_stages, stylise
from flexseg.method import (
    Batch,
    Method,
    auxiliary_losses,
    label_log_probabilities,
    option,
    require_at_least,
    weight_terms,
)
from flexseg.models import Segmentor


def on_grid(features: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels of (B, D, h, w) on a grid of ``size``, or all of a smaller map: (B, P, D)."""
    size = (min(size[0], features.shape[2]), min(size[1], features.shape[3]))
    return functional.interpolate(features, size, mode="nearest").flatten(2).mT


def content_loss(plain: Tensor, stylised: Tensor, classes: Tensor, wild: Tensor, temperature: float) -> Tensor:
    """ℓ(z, z') + ℓ(z, q), the mean over an image's valid pixels and then over images: a float32 scalar.

    Args:
        plain, stylised: z and z', (B, P, D) float32 of unit length. classes: (B, P) with 255 void.
        wild: the queue, (Q, D) of unit length; with Q = 0 the second term is left out.
    """
    valid = classes != IGNORE
    negative = (classes[:, :, None] != classes[:, None, :]) & valid[:, None, :]
    scores = plain @ stylised.mT / temperature
    rest = scores.masked_fill(~negative, float("-inf")).logsumexp(dim=2)
    own = [scores.diagonal(dim1=1, dim2=2)]
    if len(wild):
        # In parts: all similarities at once would take gigabytes at the published sizes.
        lines = stylised.detach().flatten(0, 1)
        nearest = torch.cat([(part @ wild.T).argmax(dim=1) for part in lines.split(1024)])
        own.append((plain * wild[nearest].view_as(plain)).sum(dim=2) / temperature)
    losses = torch.stack([functional.softplus(rest - each) for each in own]).sum(dim=0)
    return (torch.where(valid, losses, 0.0).sum(dim=1) / valid.sum(dim=1).clamp_min(1)).mean()


class ContentExtension(nn.Module):
    """The projection, and the queue of ``images`` wild images' contents, a buffer.

    Args:
        channels: of the features. grid, wild_grid: (height, width) of an image's pixels and of its contents.
    """

    def __init__(
        self,
        channels: int,
        dim: int,
        images: int,
        grid: tuple[int, int],
        wild_grid: tuple[int, int],
        temperature: float,
    ) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, dim))
        self.queue = Recent(images * wild_grid[0] * wild_grid[1], dim)
        self.grid, self.wild_grid, self.temperature = grid, wild_grid, temperature

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The content loss of a batch, whose plain contents then join the queue. A collective.

        Args:
            features: (2B, D, h, w), plain and stylised. labels: (B, H, W).
        """
        lines = on_grid(features, self.grid)
        size = (min(self.grid[0], features.shape[2]), min(self.grid[1], features.shape[3]))
        classes = downsample_label(labels, size).flatten(1)
        with torch.autocast(features.device.type, enabled=False):
            plain, stylised = functional.normalize(self.projection(lines.float()), dim=2).chunk(2)
            loss = content_loss(plain, stylised, classes, self.queue.filled(), self.temperature)
            if self.training:
                with torch.no_grad():
                    contents = on_grid(features[: len(labels)], self.wild_grid).flatten(0, 1)
                    self.queue.push(functional.normalize(self.projection(contents.float()), dim=1))
        return loss


class WildNet(Method):
    name = "wildnet"
    title = "WildNet (wild = source)"
    paper = "Lee et al., WildNet: Learning Domain Generalized Semantic Segmentation from the Wild, CVPR 2022"

    @dataclass(frozen=True)
    class Options:
        lambda_cel: float = option(0.1, "λ_CEL, the weight of content extension")
        lambda_sel: float = option(1.0, "λ_SEL, the weight of the stylised view's cross entropy")
        lambda_scr: float = option(10.0, "λ_SCR, the weight of the consistency of both views")
        temperature: float = option(0.07, "τ of content extension")
        places: int = option(3, "stages, the stem among them, behind which styles are exchanged")
        queue: int = option(192, "images whose contents the queue holds; published are 1,536", origin="scaled")
        grid: tuple[int, int] = option((8, 16), "pixels of an image, its height and width", origin="scaled")
        wild_grid: tuple[int, int] = option((4, 8), "contents of a wild image, likewise", origin="scaled")
        dim: int = option(32, "length of a projected feature", origin="scaled")

        def __post_init__(self) -> None:
            require_at_least(self, places=1, queue=1, dim=1)
            if self.temperature <= 0 or min(self.lambda_cel, self.lambda_sel, self.lambda_scr) < 0:
                raise ValueError(f"the temperature must be positive and no weight negative: {self}")
            if min(*self.grid, *self.wild_grid) < 1:
                raise ValueError(f"grid and wild_grid count pixels: {list(self.grid)}, {list(self.wild_grid)}")

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        self._places = early_stages(model.backbone)[: self.options.places]
        knobs = self.options
        self._content = ContentExtension(
            model.feature_channels, knobs.dim, knobs.queue, knobs.grid, knobs.wild_grid, knobs.temperature
        )
        return self._content

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        size, labels = len(batch.images), batch.labels
        turn = batch.rotation(self.setup.seed)

        def exchange(features: Tensor) -> Tensor:
            plain, viewed = features[:size], features[-size:]  # the same at the first place, where there is one view
            mean, std = channel_statistics(plain.detach())
            return torch.cat([plain, stylise(viewed, mean.roll(-turn, 0), std.roll(-turn, 0))])

        with changed_outputs(model.backbone, dict.fromkeys(self._places, exchange)):
            output = model(batch.images)
        options, weights = self.options, {"sel": self.options.lambda_sel, "scr": self.options.lambda_scr}
        log_p, log_q = label_log_probabilities(output, labels).chunk(2)
        plain = output._replace(logits=output.logits[:size], features=output.features[:size])
        terms = self.supervise(batch, plain, log_p)
        terms["cel"] = options.lambda_cel * self._content(output.features, labels)
        terms |= {name: weights[name] * value for name, value in _of_views(log_p, log_q, labels).items()}
        terms = weight_terms(terms, output)
        of_plain = tuple(part._replace(logits=part.logits[:size]) for part in output.auxiliary)
        terms |= auxiliary_losses(output._replace(auxiliary=of_plain), labels)
        for part in output.auxiliary:
            log_p, log_q = label_log_probabilities(output._replace(logits=part.logits), labels).chunk(2)
            for name, value in _of_views(log_p, log_q, labels).items():
                terms[name] = terms[name] + part.weight * weights[name] * value
        return terms


def _of_views(log_p: Tensor, log_q: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """CE(p') and KL(p‖p') / C of log-probabilities (B, H, W, C), each a mean over pixels; 0 for a batch of void."""
    labelled = (labels != IGNORE).any()
    return {
        "sel": mean_over_valid(negative_log_likelihood(log_q, labels), labels),
        "scr": labelled * kullback_leibler(log_p, log_q).mean() / log_p.shape[-1],
    }
