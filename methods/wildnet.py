"""WildNet with wild := source: every image is also passed in the styles of another one, at each early stage.

WildNet (Lee et al., *WildNet: Learning Domain Generalized Semantic Segmentation from the Wild*, CVPR 2022), written
from its formulas alone. Behind the stem and the first two stages the map of an image takes the channel statistics
(μ_w, σ_w) of a wild image there, x' = σ_w (x − μ)/σ + μ_w, each time on top of the one before. With p, p' the
predictions and z, z' the projected features of a pixel, of unit length, plain and stylised,

    L = CE(p) + λ_CEL · [ℓ(z', z) + ℓ(z', q)] + λ_SEL · CE(p') + λ_SCR · KL(p‖p')
    ℓ(z', z⁺) = −log( exp(⟨z', z⁺⟩/τ) / (exp(⟨z', z⁺⟩/τ) + Σ_j exp(⟨z', z_j⟩/τ)) )

where q, the wild content nearest to z, is sought in a queue. Published: λ = (0.1, 1.0, 10.0), τ = 0.07, 64² pixels per
image, a queue of 393,216 contents: 96 images'.

**Substituted**: the published wild images are ImageNet's. Here they are other training images: the style is that of
another image of the batch, the contents are those of the latest batches. This is what the table of MRFP (CVPR 2024)
reports as ImageNet replaced by source. A single image in a batch keeps its style.

**Scaled**: 64 pixels per image instead of 4,096, and 32 projected channels.

**Assumed**: z is a linear projection of what the head classifies; the z_j are the plain features of the batch's sampled
pixels of other classes; the queue is searched before the batch joins it, and while it is empty ℓ(z', q) is left out; no
gradient passes through the wild styles and contents, all others do; the divergence is a mean over valid pixels; the
auxiliary heads see the plain view. The stem is passed once; from there on both views are one batch of twice the size,
so that BatchNorm's statistics, also those it keeps, are those of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexseg.classes import IGNORE
from flexseg.components.boundary import downsample_label
from flexseg.components.consistency import kullback_leibler, where_valid
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


def sample_pixels(labels: Tensor, count: int) -> Tensor:
    """``count`` random pixels of each of (B, h, w) labels, valid ones first: flat indices into B·h·w, (B·count,).

    Draws from torch's global generator. All pixels of smaller maps.
    """
    valid = (labels != IGNORE).flatten(1)
    draws = torch.rand(valid.shape, device=labels.device) + valid
    chosen = draws.topk(min(count, valid.shape[1]), dim=1).indices
    return (chosen + valid.shape[1] * torch.arange(len(labels), device=labels.device)[:, None]).flatten()


def content_loss(stylised: Tensor, plain: Tensor, classes: Tensor, wild: Tensor, temperature: float) -> Tensor:
    """The mean over valid pixels of ℓ(z', z) + ℓ(z', q): a float32 scalar, 0 without a valid pixel.

    Args:
        stylised, plain: z' and z, (N, D) float32 of unit length. classes: (N,) with 255 void.
        wild: the queue, (Q, D) of unit length; with Q = 0 the second term is left out.
    """
    valid = classes != IGNORE
    negative = (classes[:, None] != classes) & valid
    similar = (stylised @ plain.T / temperature).masked_fill(~negative, float("-inf"))
    negatives = similar.logsumexp(dim=1)
    positives = [plain]
    if len(wild):
        # In parts: all similarities at once would take gigabytes at the published sizes.
        nearest = [(part @ wild.T).argmax(dim=1) for part in plain.detach().split(1024)]
        positives.append(wild[torch.cat(nearest)])
    total = torch.zeros((), device=stylised.device)
    for positive in positives:
        losses = functional.softplus(negatives - (stylised * positive).sum(dim=1) / temperature)
        total = total + torch.where(valid, losses, 0.0).sum() / valid.sum().clamp_min(1)
    return total


class ContentExtension(nn.Module):
    """The projection, and the queue of ``images`` · ``samples`` contents, a buffer."""

    def __init__(self, channels: int, dim: int, images: int, samples: int, temperature: float) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, dim)
        self.queue = Recent(images * samples, dim)
        self.samples, self.temperature = samples, temperature

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The content loss of a batch, whose plain contents then join the queue. A collective.

        Args:
            features: (2B, D, h, w), plain and stylised. labels: (B, H, W).
        """
        classes = downsample_label(labels, features.shape[-2:])
        pixels = sample_pixels(classes, self.samples)
        lines = features.permute(0, 2, 3, 1).flatten(0, 2)
        lines = lines.index_select(0, torch.cat([pixels, pixels + classes.numel()]))
        with torch.autocast(features.device.type, enabled=False):
            plain, stylised = functional.normalize(self.projection(lines.float()), dim=1).chunk(2)
            wild = self.queue.filled()
            loss = content_loss(stylised, plain, classes.flatten()[pixels], wild, self.temperature)
        if self.training:
            self.queue.push(plain)
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
        queue: int = option(96, "images whose contents the queue holds")
        samples: int = option(64, "pixels of an image that enter content extension", origin="scaled")
        dim: int = option(32, "length of a projected feature", origin="scaled")

        def __post_init__(self) -> None:
            require_at_least(self, places=1, queue=1, samples=1, dim=1)
            if self.temperature <= 0 or min(self.lambda_cel, self.lambda_sel, self.lambda_scr) < 0:
                raise ValueError(f"the temperature must be positive and no weight negative: {self}")

    def build_training_modules(self, model: Segmentor) -> nn.Module | None:
        self._places = early_stages(model.backbone)[: self.options.places]
        knobs = self.options
        self._content = ContentExtension(
            model.feature_channels, knobs.dim, knobs.queue, knobs.samples, knobs.temperature
        )
        return self._content

    def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
        size, labels = len(batch.images), batch.labels
        wild = self._wild(batch).to(batch.images.device)

        def exchange(features: Tensor) -> Tensor:
            plain, viewed = features[:size], features[-size:]  # the same at the first place, where there is one view
            mean, std = channel_statistics(plain.detach())
            return torch.cat([plain, stylise(viewed, mean[wild], std[wild])])

        with changed_outputs(model.backbone, dict.fromkeys(self._places, exchange)):
            output = model(batch.images)
        log_p, log_q = label_log_probabilities(output, labels).chunk(2)
        divergence = where_valid(kullback_leibler(log_p, log_q), labels)
        plain = output._replace(logits=output.logits[:size], features=output.features[:size])
        terms = self.supervise(batch, plain, log_p) | {
            "cel": self.options.lambda_cel * self._content(output.features, labels),
            "sel": self.options.lambda_sel * mean_over_valid(negative_log_likelihood(log_q, labels), labels),
            "scr": self.options.lambda_scr * mean_over_valid(divergence, labels),
        }
        of_plain = tuple(part._replace(logits=part.logits[:size]) for part in output.auxiliary)
        return weight_terms(terms, output) | auxiliary_losses(output._replace(auxiliary=of_plain), labels)

    def _wild(self, batch: Batch) -> Tensor:
        """The place in the batch of each image's wild image, (B,): another one, by a random rotation of the batch."""
        size = len(batch.images)
        turn = int(batch.generators(self.setup.seed)[0].integers(1, size)) if size > 1 else 0
        return (torch.arange(size) + turn) % size
