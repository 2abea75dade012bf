"""DAFormer's strategies in the engine's hands: each alone, both, draws, the frozen encoder and clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flexseg.classes import TRAIN_ID
from flexseg.components.rcs import RareClassSampler
from flexseg.errors import RunError, UserError
from flexseg.files import file_digest
from flexseg.method import Batch, Method, Setup, cross_entropy, parse_options
from flexseg.method_files import load_method
from flexseg.models import Segmentor, build_segmentor

METHODS = Path(__file__).parents[2] / "methods"
TRUNK = {
    "backbone": {"type": "UNet", "base_channels": 4, "strides": [2, 1, 1, 1, 1]},
    "decode_head": {
        "type": "FCNHead",
        "in_channels": 4,
        "in_index": 4,
        "channels": 8,
        "num_convs": 1,
        "concat_input": False,
        "dropout_ratio": 0.0,
    },
}
PIXELS = np.zeros((40, 19), dtype=np.int64)
PIXELS[:, 0], PIXELS[::2, 13], PIXELS[:3, 18] = 8000, 500, 60
PIXELS[3, 18] = 5  # too few to be drawn as a bicycle
CAR = torch.full((2, 64, 96), TRAIN_ID["car"])


def make(pixels: np.ndarray = PIXELS, seed: int = 0, **options: Any) -> Method:
    method = load_method("daformer", METHODS)
    return method(parse_options(method, options), Setup(seed, 100, np.zeros(len(pixels), np.int8), pixels))


def built(seed: int = 0, **options: Any) -> tuple[Method, Segmentor, nn.Module | None]:
    method = make(**options)
    torch.manual_seed(seed)
    model = build_segmentor(TRUNK)
    return method, model, method.build_training_modules(model)


def batch(labels: Tensor) -> Batch:
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    return Batch(0, np.arange(2), np.arange(2), images, labels)


def test_images_are_drawn_as_the_sampler_says() -> None:
    drawn = np.concatenate([make(temperature=0.5).choose(iteration, range(8)) for iteration in range(500)])
    expected = RareClassSampler(PIXELS, temperature=0.5).image_probabilities(40)
    np.testing.assert_allclose(np.bincount(drawn, minlength=40) / 4000, expected, atol=0.02)
    assert expected[:3].min() > 2 * expected[3]


def test_draws_depend_on_seed_iteration_and_slot_alone() -> None:
    whole = make().choose(7, range(8))
    parts = np.concatenate([make().choose(7, range(4, 8)), make().choose(7, range(4))])
    np.testing.assert_array_equal(np.roll(parts, 4), whole)
    others = [make().choose(8, range(8)), make().choose(7, range(8, 16)), make(seed=1).choose(7, range(8))]
    assert all((other != whole).any() for other in others)


def test_without_rcs_draws_are_those_of_plain_training() -> None:
    setup = Setup(0, 100, np.zeros(40, np.int8), PIXELS)
    plain = load_method("dginstyle", METHODS)
    expected = plain(parse_options(plain, {}), setup).choose(7, range(8))
    np.testing.assert_array_equal(make(rcs=False).choose(7, range(8)), expected)
    assert (make(rcs=True).choose(7, range(8)) != expected).any()


def test_fd_is_zero_at_the_start_and_measures_once_the_encoder_moves() -> None:
    method, model, modules = built(weight=2.0)
    assert modules is not None
    assert list(modules.parameters()) == []
    given = batch(CAR)
    terms = method.forward(model, given)
    assert terms.keys() == {"ce", "fd"}
    assert float(terms["fd"].detach()) < 1e-4
    frozen = modules(given.images)
    with torch.no_grad():
        model.backbone.encoder[-1][-1].convs[0].bn.bias.add_(0.5)  # type: ignore[index, union-attr]
    moved = _deepest(model, given.images)
    expected = 2.0 * torch.linalg.vector_norm(moved - frozen, dim=1).mean()
    value = method.forward(model, given)["fd"]
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    assert float(value.detach()) > 0.1
    value.backward()
    assert all(p.grad is not None for p in model.backbone.encoder.parameters())  # type: ignore[union-attr]
    assert method.log()["fd/cells"] == 1


def _deepest(model: Segmentor, images: Tensor) -> Tensor:
    for stage in model.backbone.encoder:  # type: ignore[union-attr]
        images = stage(images)
    return images


@pytest.mark.parametrize("labels", [torch.zeros_like(CAR), torch.full_like(CAR, 255)], ids=["stuff", "void"])
def test_fd_looks_at_things_alone(labels: Tensor) -> None:
    method, model, _ = built()
    with torch.no_grad():
        model.backbone.encoder[-1][-1].convs[0].bn.bias.add_(0.5)  # type: ignore[index, union-attr]
    assert float(method.forward(model, batch(CAR))["fd"]) > 0
    assert float(method.forward(model, batch(labels))["fd"]) == 0


def test_which_classes_and_which_stage() -> None:
    method, model, _ = built(classes=["road"], stage=1)
    with torch.no_grad():
        model.backbone.encoder[1][-1].convs[0].bn.bias.add_(0.5)  # type: ignore[index, union-attr]
    assert float(method.forward(model, batch(CAR))["fd"]) == 0
    assert float(method.forward(model, batch(torch.zeros_like(CAR)))["fd"]) > 0
    sign = torch.full_like(CAR, TRAIN_ID["traffic sign"])
    method, model, _ = built()
    method.forward(model, batch(sign))
    assert method.log()["fd/cells"] == 1, "the published code counts signs among the things"


def test_how_much_of_a_cell_must_be_one_thing() -> None:
    labels = CAR.clone()
    labels[:, ::10] = 0  # about a tenth of each cell is road
    for share, expected in ((0.75, 1), (0.99, 0)):
        method, model, _ = built(cell_share=share)
        method.forward(model, batch(labels))
        assert method.log()["fd/cells"] == expected


def test_each_strategy_alone() -> None:
    method, model, modules = built(fd=False)
    given = batch(CAR)
    assert modules is None
    terms = method.forward(model, given)
    assert terms.keys() == {"ce"}
    torch.testing.assert_close(terms["ce"], cross_entropy(model(given.images).logits, given.labels))
    assert method.log() == {"rcs/classes": 3}
    method, model, modules = built(rcs=False)
    assert modules is not None
    assert "fd" in method.forward(model, given)
    assert method.log().keys() == {"fd/cells"}


def test_an_encoder_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "imagenet.safetensors"
    torch.manual_seed(5)
    save_file(build_segmentor(TRUNK).backbone.state_dict(), path)
    method, model, modules = built(encoder=str(path), encoder_sha256=file_digest(path))
    _, _, initial = built()
    assert modules is not None
    assert initial is not None
    images = batch(CAR).images
    assert not torch.allclose(modules(images), initial(images))
    assert float(method.forward(model, batch(CAR))["fd"]) > 0
    with pytest.raises(RunError, match="SHA-256"):
        built(encoder=str(path), encoder_sha256="f" * 64)
    with pytest.raises(RunError, match="no weights at"):
        built(encoder=str(tmp_path / "no.safetensors"), encoder_sha256="f" * 64)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"classes": ["cars"]}, "no class 'cars' .did you mean 'car'"),
        ({"classes": []}, "must name a class"),
        ({"temperature": 0}, "temperature"),
        ({"min_share": 1}, "min_share"),
        ({"weight": -1}, "weight"),
        ({"cell_share": 0.5}, "cell_share"),
        ({"encoder": "x.safetensors"}, "give both"),
        ({"encoder_sha256": "f" * 64}, "give both"),
    ],
)
def test_wrong_options(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        make(**options)


def test_images_without_labels_and_stages_that_are_not_there() -> None:
    with pytest.raises(RunError, match=r"daformer cannot sample rare classes .*: no class can be drawn"):
        make(pixels=np.zeros((4, 19), dtype=np.int64))
    with pytest.raises(RunError, match=r"stage 5 is not among the 5 stages of this benchmark's UNet"):
        built(stage=5)
