"""WildNet: the content loss against loops, the exchange of styles by hand, the queue, and what is sampled."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from builders import AUXILIARY, assert_finite_gradients, make_batch, make_method, module_of, resnet, set_up, unet
from torch import Tensor
from torch.nn import functional

from flexseg.components.style import changed_outputs, channel_statistics, early_stages
from flexseg.method import Batch, cross_entropy, upsample
from flexseg.models import Segmentor

module = module_of("wildnet")
TRUNKS = {"unet": unet(), "resnet": resnet(type="ResNet") | {"auxiliary_head": AUXILIARY}}


def ready(trunk: str = "unet", **options: Any) -> tuple[Any, Segmentor, Any]:
    method = make_method("wildnet", options, iterations=20)
    model, modules = set_up(method, TRUNKS[trunk])
    with torch.no_grad():
        for head in (model.decode_head, *model.auxiliary_heads()):
            head.conv_seg.weight *= 50  # fresh heads predict about the same everywhere
    return method, model, modules


def batch_of(size: int = 3, iteration: int = 0) -> Batch:
    batch = make_batch(size, iteration=iteration)
    return batch._replace(images=batch.images * (1 + torch.arange(size)[:, None, None, None]))


def unit(seed: int, *shape: int) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def slow_content_loss(plain: Tensor, stylised: Tensor, classes: list[list[int]], wild: Tensor, t: float) -> float:
    """Anchors are plain pixels; negatives stylised ones of other classes, of the same image (network/cel.py)."""
    means = []
    for z, view, labels in zip(plain, stylised, classes, strict=True):
        terms = []
        for i, c in enumerate(labels):
            if c == 255:
                continue
            rest = sum(math.exp(float(z[i] @ view[j]) / t) for j, other in enumerate(labels) if other not in (c, 255))
            nearest = [max(wild, key=lambda q, own=view[i]: float(own @ q))] if len(wild) else []
            for positive in [view[i], *nearest]:
                own = math.exp(float(z[i] @ positive) / t)
                terms.append(-math.log(own / (own + rest)))
        means.append(sum(terms) / max(sum(c != 255 for c in labels), 1))
    return sum(means) / len(means)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wild", [0, 1, 7])
def test_content_loss_against_loops(seed: int, wild: int) -> None:
    plain, stylised = unit(seed, 2, 9, 5), unit(seed + 100, 2, 9, 5)
    classes = torch.randint(0, 4, (2, 9), generator=torch.Generator().manual_seed(seed))
    classes[classes == 3] = 255
    contents = unit(seed + 200, wild, 5)
    loss = module.content_loss(plain, stylised, classes, contents, 0.2)
    assert float(loss) == pytest.approx(slow_content_loss(plain, stylised, classes.tolist(), contents, 0.2), rel=1e-4)
    leaves = [each.double().requires_grad_() for each in (plain, stylised)]
    assert torch.autograd.gradcheck(lambda z, w: module.content_loss(z, w, classes, contents.double(), 0.2), leaves)


@pytest.mark.parametrize("only", [3, 255])
def test_one_class_or_none_costs_nothing_and_has_a_finite_gradient(only: int) -> None:
    plain, stylised = unit(0, 1, 6, 5).requires_grad_(), unit(1, 1, 6, 5).requires_grad_()
    loss = module.content_loss(plain, stylised, torch.full((1, 6), only), unit(2, 4, 5), 0.07)
    assert float(loss.detach()) == 0
    loss.backward()
    for leaf in (stylised, plain):
        assert torch.isfinite(leaf.grad).all()


def test_pixels_lie_on_a_grid() -> None:
    x = torch.arange(2 * 8 * 12).float().view(2, 1, 8, 12)
    assert module.on_grid(x, (2, 3))[0, :, 0].tolist() == [0.0, 4.0, 8.0, 48.0, 52.0, 56.0]
    assert module.on_grid(x, (64, 64)).shape == (2, 96, 1), "no pixel twice"


@pytest.mark.parametrize("trunk", TRUNKS)
def test_all_terms_by_hand(trunk: str) -> None:
    """Against a trunk whose stages are changed with the styles of a roll of the batch, one after the other."""
    method, model, content = ready(trunk, dim=6, grid=(3, 4), wild_grid=(2, 2), queue=4)
    batch = batch_of()
    turn = batch.rotation(0)
    assert turn in (1, 2)

    def exchange(x: Tensor) -> Tensor:
        plain, view = (x, x) if len(x) == 3 else x.chunk(2)
        style = [s.roll(-turn, dims=0)[..., None, None] for s in channel_statistics(plain)]
        mean, std = (s[..., None, None] for s in channel_statistics(view))
        return torch.cat([plain, (view - mean) / std * style[1] + style[0]])

    expected_places = {"unet": ("encoder.0", "encoder.1", "encoder.2"), "resnet": ("maxpool", "layer1", "layer2")}
    assert expected_places[trunk] == early_stages(model.backbone)[:3]
    with changed_outputs(model.backbone, dict.fromkeys(expected_places[trunk], exchange)):
        output = model(batch.images)
    cel = content(output.features, batch.labels)
    content.queue.pushed.zero_()
    terms = method.forward(model, batch)
    plain, stylised = output.logits.chunk(2)
    log_p, log_q = (upsample(x, (64, 128)).log_softmax(dim=1) for x in (plain, stylised))
    divergence = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    expected = {
        "ce": cross_entropy(plain, batch.labels),
        "cel": 0.1 * cel,
        "sel": cross_entropy(stylised, batch.labels),
        "scr": 10 * divergence.mean() / 19,
    }
    if trunk == "resnet":
        aux_plain, aux_view = output.auxiliary[0][1].chunk(2)
        expected["auxiliary"] = 0.4 * cross_entropy(aux_plain, batch.labels)
        expected["sel"] = expected["sel"] + 0.4 * cross_entropy(aux_view, batch.labels)
        log_p, log_q = (upsample(x, (64, 128)).log_softmax(dim=1) for x in (aux_plain, aux_view))
        apart = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
        expected["scr"] = expected["scr"] + 0.4 * 10 * apart.mean() / 19
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
        assert float(value.detach()) > 1e-4, name
    assert len(model(batch.images).logits) == 3, "something stayed in the model"


def test_one_image_alone_keeps_its_style() -> None:
    method, model, _ = ready()
    terms = method.forward(model, batch_of(size=1))
    assert abs(float(terms["scr"].detach())) < 1e-4
    torch.testing.assert_close(terms["sel"], terms["ce"], rtol=1e-4, atol=1e-4)


def test_the_wild_image_is_another_and_keyed() -> None:
    batch = batch_of(size=5)
    turns = [batch._replace(iteration=iteration).rotation(0) for iteration in range(40)]
    assert set(turns) == {1, 2, 3, 4}
    assert turns == [batch._replace(iteration=iteration).rotation(0) for iteration in range(40)]
    assert turns != [batch._replace(iteration=iteration).rotation(1) for iteration in range(40)]
    assert batch_of(size=1).rotation(0) == 0


def test_the_queue_is_searched_before_the_batch_joins_it() -> None:
    _, _, content = ready(dim=6, grid=(2, 2), wild_grid=(2, 2), queue=5)
    features, labels = torch.randn(6, 8, 8, 8), torch.arange(3 * 64).view(3, 8, 8) % 5
    features[3:] = features[:3]  # the nearest wild content of each pixel is then itself, and both terms are the same
    alone, losses = [], []
    for _ in range(3):
        losses.append(float(content(features, labels).detach()))
        alone.append(len(content.queue))
    assert alone == [12, 20, 20]
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5), "the second term joins with the second batch"
    contents = functional.normalize(content.projection(module.on_grid(features[:3], (2, 2)).flatten(0, 1)), dim=1)
    assert all(float((content.queue.filled() - row.detach()).abs().sum(dim=1).min()) < 1e-5 for row in contents)


def test_the_queue_rests_in_eval_mode() -> None:
    _, _, content = ready(dim=6, queue=5)
    content.eval()(torch.randn(6, 8, 8, 8), torch.zeros(3, 8, 8, dtype=torch.int64))
    assert len(content.queue) == 0


def test_styles_and_queue_carry_no_gradient_and_all_else_does() -> None:
    """The style of one image does not learn from the view of another that wears it."""
    method, model, content = ready(dim=6, grid=(3, 4), queue=4)
    for iteration in range(2):
        terms = method.forward(model, batch_of(iteration=iteration))
    torch.stack(list(terms.values())).sum().backward()
    assert_finite_gradients(model, content)
    assert content.projection[0].weight.grad.abs().max() > 0

    batch = batch_of(size=2)  # of two images, each is the other's wild one
    images = batch.images.requires_grad_()
    model.zero_grad()
    model.eval()  # where BatchNorm lets no image touch another
    only_first = batch.labels.clone()
    only_first[1] = 255
    method.forward(model, batch._replace(labels=only_first))["sel"].backward()
    assert images.grad[0].abs().max() > 0
    assert images.grad[1].abs().max() == 0
