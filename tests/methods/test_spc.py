"""SPC: projection and losses written out in loops, where they sit, and bases that follow their own domain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from builders import AUXILIARY, HEAD, assert_finite_gradients, make_batch, mit, module_of, resnet, set_up, unet
from torch import Tensor

from flexseg.errors import RunError
from flexseg.method import Setup, parse_options

module = module_of("spc")
TRUNKS = {
    "unet": unet(),
    "resnet": resnet() | {"auxiliary_head": AUXILIARY},
    "mit": mit() | {"decode_head": HEAD | {"in_channels": 64}},
}
DOORS = {"unet": ("encoder.1", "encoder.2"), "resnet": ("layer1", "layer2"), "mit": ("layers.1.0", "layers.2.0")}


def ready(trunk: str = "unet", *, origins: tuple[int, ...] = (0, 1, 0), iterations: int = 100, **options: Any) -> Any:
    method = module.SPC(parse_options(module.SPC, options), Setup(0, iterations, np.array(origins, dtype=np.int8)))
    model, modules = set_up(method, TRUNKS[trunk])
    assert modules is None
    return method, model


def shaped(projection: Any) -> Any:
    """The projection with two bases that are in use."""
    draw = torch.Generator().manual_seed(3)
    projection.mean.copy_(torch.randn(projection.mean.shape, generator=draw))
    projection.deviation.copy_(torch.rand(projection.mean.shape, generator=draw) + 0.5)
    projection.updates.fill_(1)
    return projection


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_a_map_is_projected_as_the_equations_say() -> None:
    """Equations 1 to 7 for one image at a time, d_m as a mean over channels."""
    projection = shaped(module.StyleProjection(3, 0.9))
    mean, deviation = projection.mean.double().numpy(), projection.deviation.double().numpy()
    x = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 + 1
    projection.domains = torch.tensor([1, 0, 1, 1])
    found = projection(x)
    own = []
    for image, got in zip(x.double().numpy(), found, strict=True):
        mu, sigma = image.mean(axis=(1, 2)), image.std(axis=(1, 2))
        own.append((mu, sigma))
        d = [sum((mu[c] - mean[m, c]) ** 2 + (sigma[c] - deviation[m, c]) ** 2 for c in range(3)) / 3 for m in (0, 1)]
        weights = [math.exp(1 / (1 + each)) for each in d]
        weights = [each / sum(weights) for each in weights]
        target_mean = weights[0] * mean[0] + weights[1] * mean[1]
        target_deviation = weights[0] * deviation[0] + weights[1] * deviation[1]
        expected = (image - mu[:, None, None]) / sigma[:, None, None] * target_deviation[:, None, None]
        np.testing.assert_allclose(got, expected + target_mean[:, None, None], rtol=1e-4, atol=1e-5)
    latest = np.mean([own[image][0] for image in (0, 2, 3)], axis=0), own[1][1]
    np.testing.assert_allclose(projection.mean[1], 0.9 * mean[1] + 0.1 * latest[0], rtol=1e-5)
    np.testing.assert_allclose(projection.deviation[0], 0.9 * deviation[0] + 0.1 * latest[1], rtol=1e-5)
    assert projection.updates.tolist() == [2, 2]


def test_a_domain_without_an_image_keeps_its_base_and_a_new_one_is_left_out() -> None:
    projection = module.StyleProjection(3, 0.9)
    x = torch.randn(2, 3, 4, 4)
    projection.domains = torch.zeros(2, dtype=torch.int64)
    before = projection.mean[1].clone()
    projection(x)
    assert projection.updates.tolist() == [1, 0]
    assert torch.equal(projection.mean[1], before)
    projection.eval()
    mean, std = projection(x).mean(dim=(2, 3)), projection(x).std(dim=(2, 3), correction=0)
    torch.testing.assert_close(mean, projection.mean[:1].expand(2, 3), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, projection.deviation[:1].expand(2, 3), rtol=1e-4, atol=1e-5)
    assert projection.updates.tolist() == [1, 0], "nothing is learnt in eval mode"
    projection.train().domains = None
    projection(x)
    assert projection.updates.tolist() == [1, 0], "nor from images of no domain"


def test_statistics_carry_no_gradient() -> None:
    projection = shaped(module.StyleProjection(2, 0.9)).eval()
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    projection(x)[0, 0, 0, 0].backward()
    assert x.grad is not None
    assert torch.count_nonzero(x.grad) == 1


def clusters_of(seed: int = 0, channels: int = 6) -> Any:
    torch.manual_seed(seed)
    made = module.SemanticClusters(channels)
    made.updates.fill_(1)
    made.updates[4, 1] = 0  # never seen: left out, as class 4 is known from the other domain
    return made


def test_logits_are_the_normed_cosines_of_the_nearest_prototypes() -> None:
    clusters = clusters_of()
    embeddings: list[Tensor] = []
    clusters.embeddings.register_forward_hook(lambda *call: embeddings.append(call[2]))
    logits = clusters(torch.randn(2, 6, 3, 4)).detach().numpy()
    pixels, prototypes = embeddings[0].detach().numpy(), clusters.prototypes.numpy()
    np.testing.assert_allclose(np.linalg.norm(pixels, axis=3), 1, rtol=1e-5)
    for image, row, column in np.ndindex(2, 3, 4):
        cosines = [
            max(float(pixels[image, row, column] @ prototypes[c, m]) for m in range(1 if c == 4 else 2))
            for c in range(19)
        ]
        expected = (np.array(cosines) - np.mean(cosines)) / np.sqrt(np.var(cosines) + 1e-5)
        np.testing.assert_allclose(logits[image, :, row, column], expected, rtol=1e-3, atol=1e-4)


def test_the_losses_are_those_of_equations_11_and_12() -> None:
    clusters = clusters_of()
    draw = torch.Generator().manual_seed(1)
    embeddings = torch.nn.functional.normalize(torch.randn(3, 4, 5, 6, generator=draw), dim=3).requires_grad_()
    labels = torch.randint(0, 6, (3, 4, 5), generator=draw)
    labels[:, 0] = 255
    domains = [0, 1, 0]
    found = clusters.losses(embeddings, labels, torch.tensor(domains), 0.1)
    (found.variance + found.discrimination).backward()
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    prototypes = clusters.prototypes.double().numpy()
    pixels = embeddings.detach().double().numpy()
    variance: Any = 0.0
    discrimination: Any = 0.0
    present, updates = 0, clusters.updates.numpy().copy()
    moved = prototypes.copy()
    for c in range(6):
        for m in range(2):
            members = [
                pixels[place] for place in np.ndindex(3, 4, 5) if domains[place[0]] == m and int(labels[place]) == c
            ]
            if not members:
                continue
            present += 1
            updates[c, m] += 1
            variance += np.mean([(1 - e @ prototypes[c, m]) ** 2 for e in members])
            center = unit(np.mean(members, axis=0))
            used = [(k, n) for k in range(19) for n in range(2) if (k, n) != (4, 1)]
            negative = sum(math.exp(center @ prototypes[k, n] / 0.1) for k, n in used if k != c)
            positives = [math.exp(center @ prototypes[k, n] / 0.1) for k, n in used if k == c]
            discrimination += np.mean([-math.log(each / (each + negative)) for each in positives])
            moved[c, m] = unit(0.8 * prototypes[c, m] + 0.2 * center)
    assert float(found.variance.detach()) == pytest.approx(variance / 38, rel=1e-4)
    assert float(found.discrimination.detach()) == pytest.approx(discrimination / 38, rel=1e-4)
    clusters.learn(found.sums, found.counts, 0.8)
    np.testing.assert_allclose(clusters.prototypes, moved, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(clusters.updates, updates)
    assert 6 < present < 12, "some classes must be absent, and of one domain alone"


@pytest.mark.parametrize("trunk", TRUNKS)
def test_it_sits_on_the_way_into_the_second_and_third_stage(trunk: str) -> None:
    """The maps that leave a stage for the head are not projected."""
    method, model = ready(trunk)
    doors = [path for path, part in model.backbone.named_modules() if isinstance(part, module.StyleProjection)]
    assert doors == [f"{path}.style" for path in DOORS[trunk]]
    assert isinstance(model.classifier, module.SemanticClusters)
    terms = method.forward(model, make_batch(3))
    assert terms.keys() == {"ce", "variance", "discrimination"} | ({"auxiliary"} if trunk == "resnet" else set())
    sum(terms.values()).backward()
    assert_finite_gradients(model)
    plain = [path for path in DOORS[trunk] if path != "layer1"]  # the stem gives no map of its own
    watched: dict[str, Tensor] = {}
    for path in plain:
        projection = model.backbone.get_submodule(f"{path}.style")
        projection.register_forward_pre_hook(lambda _, inputs, path=path: watched.update({path: inputs[0]}))
    maps = model.backbone(make_batch(3).images)
    if trunk != "unet":  # whose maps are the decoder's
        assert any(torch.equal(watched[plain[-1]], each) for each in maps)


def test_a_step_weighs_its_terms_and_moves_the_prototypes_as_far_as_a_short_run_must() -> None:
    method, model = ready(iterations=400, beta=2.0, gamma=0.5)
    clusters = model.classifier
    before = clusters.prototypes.clone()
    batch = make_batch(3, block=16)
    seen: list[Tensor] = []
    handle = clusters.embeddings.register_forward_hook(lambda *call: seen.append(call[2]))
    terms = method.forward(model, batch)
    handle.remove()
    _, other = ready(iterations=400)
    other.classifier.prototypes.copy_(before)
    labels = batch.labels[:, ::2, ::2]
    assert seen[0].shape[1:3] == labels.shape[1:]
    found = other.classifier.losses(seen[0], labels, torch.tensor([0, 1, 0]), 0.1)
    torch.testing.assert_close(terms["variance"], 2 * found.variance)
    torch.testing.assert_close(terms["discrimination"], 0.5 * found.discrimination)
    other.classifier.learn(found.sums, found.counts, 0.999**100)  # 40,000 / 400 published steps are one of these
    torch.testing.assert_close(clusters.prototypes, other.classifier.prototypes)
    assert not torch.equal(clusters.prototypes, before)


def test_predicting_changes_nothing() -> None:
    method, model = ready()
    method.forward(model, make_batch(3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.eval()
    with torch.inference_mode():
        first, second = (model.predict(make_batch(1, seed=5).images) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_too_few_stages_are_refused() -> None:
    with pytest.raises(RunError, match="spc projects behind 5 stages and needs one more"):
        ready(places=5)
