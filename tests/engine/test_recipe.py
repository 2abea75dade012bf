"""The recipe that all rows share: crops for a class, colours, the feature distance, accumulation, ids that are none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import builders
import numpy as np
import pytest
import torch
from builders import RARE, RECIPE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor

from flexseg.benchmark import Benchmark, Training
from flexseg.benchmark.schedule import FeatureDistance
from flexseg.classes import TRAIN_ID
from flexseg.components.fd import class_cells
from flexseg.data.crops import RETRIES, choose_crop, prepare
from flexseg.data.photometric import jitter_and_blur, photometric_distortion
from flexseg.data.pool import Pool
from flexseg.data.sampling import NO_CLASS
from flexseg.engine.batches import Job, assemble
from flexseg.engine.recipe import FeatureAnchor
from flexseg.engine.train import Trainer, build_learner, launch_fabric
from flexseg.errors import RunError
from flexseg.method import Batch, Method, Setup
from flexseg.models import Output, build_segmentor

MakeTrainer = Callable[..., Trainer]
GROUPS = {"type": "GN", "num_groups": 2}
EVEN = {"kind": "class_uniform", "share": 1.0}
WHOLE = RECIPE | {"max_class_share": 0.9, "momentum": 0.9, "accumulate": 2}


def schedule(crop: tuple[int, int] = (32, 64), **changes: Any) -> Training:
    return Training(**({"iterations": 20, "batch_size": 4, "crop": crop, "learning_rate": 0.01} | changes))


def blocks(seed: int, count: int, size: tuple[int, int] = (32, 64), ids: Any = range(19)) -> Pool:
    """``count`` images, of which the last quarter are generated; labels are blocks of 8 pixels of these ids."""
    rng = np.random.default_rng(seed)
    cells = [rng.choice(list(ids), (size[0] // 8, size[1] // 8)).astype(np.uint8) for _ in range(count)]
    labels = [each.repeat(8, 0).repeat(8, 1) for each in cells]
    images = [
        np.repeat((label * 13)[..., None], 3, 2) ^ rng.integers(0, 8, (*size, 3), dtype=np.uint8) for label in labels
    ]
    origins = (np.arange(count) >= count - count // 4).astype(np.int8)
    return Pool.of(images, labels, [f"image-{i}" for i in range(count)], [""] * count, origins)


@pytest.fixture(scope="module")
def make_job(smoke: Benchmark) -> Callable[..., Job]:
    """``make_job(method, pool, options={}, groups=False, **training)``: on the smoke trunk without dropout."""

    def make(
        name: str, pool: Pool, options: Mapping[str, Any] | None = None, groups: bool = False, **training: Any
    ) -> Job:
        head = smoke.model["decode_head"] | {"dropout_ratio": 0.0}
        norm = {"norm_cfg": GROUPS} if groups else {}
        model = {"backbone": smoke.model["backbone"] | norm, "decode_head": head | norm}
        return builders.make_job(smoke, name, pool, options, training=schedule(**training), model=model)

    return make


def test_rare_classes_are_cropped_again_until_they_show_enough() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[:6, :6] = 12
    found = {NO_CLASS: 0, 12: 0}
    for wanted in found:
        for seed in range(200):
            training = schedule((20, 20), sampling=RARE)
            window, cut = choose_crop(label, wanted, training, np.random.default_rng(seed), training.sampling)
            np.testing.assert_array_equal(window.cut_label(label), cut)
            found[wanted] += (cut == 12).sum() > RARE["min_crop_pixels"]
    alone = found[NO_CLASS] / 200
    again = 1 - (1 - alone) ** (1 + RETRIES)
    assert 0.01 < alone < 0.2
    assert abs(found[12] / 200 - again) < 4 * np.sqrt(again * (1 - again) / 200)


def test_class_uniform_crops_hold_a_pixel_of_the_class_wherever_it_is() -> None:
    training = schedule((16, 16), sampling=EVEN, scale=(0.5, 2.0))
    for seed in range(100):
        rng = np.random.default_rng(seed)
        label = np.zeros((60, 90), np.uint8)
        label[rng.integers(60), rng.integers(90)] = 17
        assert (choose_crop(label, 17, training, rng, training.sampling)[1] == 17).any()
    assert choose_crop(np.zeros((60, 90), np.uint8), 17, training, rng, training.sampling)[1].shape == (16, 16), (
        "lost by a resize"
    )


def test_no_class_fills_a_crop_where_another_is_found() -> None:
    label = np.full((60, 60), 10, np.uint8)
    label[40:] = 0
    label[:, :5] = 255
    shares = {}
    for limit in (None, 0.75):
        cuts = [
            choose_crop(label, NO_CLASS, schedule((20, 20), max_class_share=limit), np.random.default_rng(seed), None)[
                1
            ]
            for seed in range(200)
        ]
        largest = [np.bincount(cut[cut != 255], minlength=19).max() / (cut != 255).sum() for cut in cuts]
        shares[limit] = np.mean([share >= 0.75 for share in largest])
    assert shares[None] > 0.6
    assert shares[0.75] == pytest.approx(shares[None] ** (1 + RETRIES), abs=0.1)


@pytest.mark.parametrize("changes", [{}, WHOLE, {"photometric": "jitter_blur", "sampling": EVEN, "scale": (0.5, 2.0)}])
def test_a_slot_depends_on_its_address_alone(changes: dict[str, Any], make_job: Callable[..., Job]) -> None:
    job = make_job("dginstyle", blocks(0, 16, (48, 96)), **changes)
    _, method = build_learner(job)
    whole = assemble(job, method, 5, range(4))
    parts = [assemble(job, method, 5, part) for part in (range(2, 4), range(2))]
    for name in ("slots", "indices", "images", "labels"):
        joined = np.concatenate([np.asarray(getattr(part, name)) for part in reversed(parts)])
        np.testing.assert_array_equal(getattr(whole, name), joined)


@pytest.mark.parametrize("row", [("dginstyle", {}), ("flexseg", {"has_midpoint": 1e6, "gap": False})])
@pytest.mark.parametrize("sampling", [None, RARE, EVEN])
def test_both_sources_reach_the_batches_in_the_ratio(
    row: tuple[str, dict[str, Any]], sampling: dict[str, Any] | None, make_job: Callable[..., Job]
) -> None:
    """What arrives, recognised by its pixels; HAS here never draws by hardness, so its other branch is seen."""
    pool = blocks(1, 40, (16, 16))
    for image, origin in zip(pool.images, pool.origins, strict=True):
        image[:] = 200 if origin else 50
    job = make_job(row[0], pool, row[1], crop=(16, 16), mix=(1.0, 1.0), sampling=sampling)
    _, method = build_learner(job)
    arrived = [assemble(job, method, i, range(8)).images[:, 0, 8, 8] for i in range(50)]
    generated = int((torch.cat(arrived) > 0).sum())
    assert binomtest(generated, 400, 0.5).pvalue > 0.001
    assert binomtest(generated, 400, 0.25).pvalue < 1e-9


@settings(max_examples=40)
@given(ids=st.sets(st.integers(0, 255), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_no_id_that_is_no_class_reaches_a_loss(ids: set[int], seed: int, make_job: Callable[..., Job]) -> None:
    pool = blocks(seed, 4, (16, 16), ids)
    job = make_job("dginstyle", pool, crop=(16, 16), scale=(0.9, 2.0))
    method = job.method(job.options, Setup(0, 20, pool.origins, pool.class_pixels))
    shown = {int(each) for label in pool.labels for each in np.unique(label)}
    wrong = shown - {*range(19), 255}
    for i in range(8):
        reached = set()
        with contextlib.suppress(RunError):
            reached = set(assemble(job, method, i, range(4)).labels.unique().tolist())
        assert reached <= {*range(19), 255}
    if not wrong:
        assert reached
    if not shown - wrong:
        with pytest.raises(RunError, match=r"the label of image-\d holds \["):
            assemble(job, method, 0, range(4))


def test_accumulated_parts_are_one_big_batch(make_job: Callable[..., Job]) -> None:
    """Without norms that look at a batch, and without void."""
    ends = []
    for parts in (None, 2, 4):
        job = make_job("dginstyle", blocks(2, 16), groups=True, accumulate=parts, optimizer="sgd", momentum=0.9)
        trainer = Trainer(job, launch_fabric("1"))
        start = torch.cat([p.detach().flatten().clone() for p in trainer.learner.parameters()])
        losses = [float(trainer.step(i)[2].detach()) for i in range(3)]
        ends.append((losses, torch.cat([p.detach().flatten() for p in trainer.learner.parameters()]) - start))
    for losses, moved in ends[1:]:
        assert losses == pytest.approx(ends[0][0], rel=1e-4)
        assert float((moved - ends[0][1]).norm() / ends[0][1].norm()) < 1e-3


def test_hardness_sees_every_image_of_an_accumulated_batch(make_job: Callable[..., Job]) -> None:
    states = []
    for parts in (None, 4):
        options = {"gap": False, "ube": False, "has_hardness": "debiased"}  # their statistics are those of a part
        job = make_job("flexseg", blocks(3, 16), options, groups=True, accumulate=parts)
        trainer = Trainer(job, launch_fabric("1"))
        trainer.step(0)
        states.append(trainer.method.state())
    np.testing.assert_array_equal(states[0]["visits"], states[1]["visits"])
    np.testing.assert_allclose(states[0]["average"], states[1]["average"], rtol=1e-4)
    assert states[0]["visits"].any()


def test_a_share_that_cannot_be_cut(make_job: Callable[..., Job]) -> None:
    job = make_job("dginstyle", blocks(0, 8), batch_size=6, accumulate=6)
    object.__setattr__(job.training, "accumulate", 4)
    with pytest.raises(RunError, match="share of 6 images cannot be accumulated over 4"):
        Trainer(job, launch_fabric("1"))


DISTANCE = {"weight": 0.5, "classes": ["car", "person"], "cell_share": 0.75, "stage": 0}


def test_the_feature_distance_grows_from_nothing_and_is_of_things(make_job: Callable[..., Job]) -> None:
    pool = blocks(4, 16, ids=[0, 10, 11, 13])
    job = make_job("dginstyle", pool, groups=True, feature_distance=DISTANCE)
    trainer = Trainer(job, launch_fabric("1"))
    plain = Trainer(make_job("dginstyle", pool, groups=True), launch_fabric("1"))
    terms = [trainer.step(i)[1] for i in range(3)]
    assert terms[0].keys() == {"ce", "fd"}
    assert terms[0]["fd"] == 0, "the encoder is still the frozen one"
    assert terms[0]["ce"] == plain.step(0)[1]["ce"]
    assert terms[1]["fd"] > 0
    batch = trainer.batch(2)
    anchor = trainer.learner.anchor
    assert anchor is not None
    cells = class_cells(batch.labels, (32, 64), [13, 11], 0.75)
    assert float(anchor.cells) == pytest.approx(float(cells.float().mean()))
    assert not any("anchor" in name for name in trainer.learner.state_dict())
    assert len(list(trainer.learner.parameters())) == len(list(plain.learner.parameters()))


def test_the_frozen_encoder_follows_the_learner_and_is_not_watched_by_the_method(make_job: Callable[..., Job]) -> None:
    learner, _ = build_learner(make_job("robustnet", blocks(0, 8), feature_distance=DISTANCE))
    assert learner.anchor is not None
    learner.double()
    values = learner.anchor.encoder.state_dict().values()
    assert {value.dtype for value in values if value.is_floating_point()} == {torch.float64}
    assert any(module._forward_hooks for module in learner.model.backbone.modules()), "ISW watches its layers"
    assert not any(module._forward_hooks for module in learner.anchor.encoder.modules())


@pytest.mark.parametrize("name", ["ibn_net", "shade", "blindnet", "wildnet", "mrfp", "robustnet", "flexseg"])
def test_every_kind_of_pass_has_a_feature_distance(name: str, make_job: Callable[..., Job]) -> None:
    """Methods that pass the model twice, change maps on the way or hook the backbone.

    IBN-Net moves norms and ReLUs of the backbone: the frozen copy, of equal weights, must say the same at first.
    """
    trainer = Trainer(make_job(name, blocks(5, 16, ids=[11, 13]), feature_distance=DISTANCE), launch_fabric("1"))
    first, second = (trainer.step(i)[1] for i in range(2))
    assert torch.isfinite(first["fd"])
    assert first["fd"] == 0 or name != "ibn_net"
    assert second["fd"] > 0


@pytest.fixture
def measure(smoke: Benchmark) -> Callable[..., tuple[FeatureAnchor, float, Tensor, Tensor]]:
    """``measure(labels, stage=-1, **settings)``: the anchor, L_FD, F and F_0 once the trunk's ``stage`` has moved."""

    def run(labels: Tensor, stage: int = -1, **settings: Any) -> tuple[FeatureAnchor, float, Tensor, Tensor]:
        torch.manual_seed(0)
        backbone: Any = build_segmentor(smoke.model).backbone
        anchor = FeatureAnchor(backbone, FeatureDistance(stage=stage, **settings))
        with torch.no_grad():
            backbone.encoder[stage][-1].convs[0].bn.bias.add_(0.5)
        images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
        seen: list[Tensor] = []

        def terms() -> dict[str, Tensor]:
            maps = images
            for part in backbone.encoder:
                maps = part(maps)
                seen.append(maps)
            backbone(images)
            return {}

        batch = Batch(0, np.arange(2), np.arange(2), images, labels)
        loss = anchor.forward(backbone, batch, terms)["fd"]
        return anchor, float(loss.detach()), seen[stage], anchor.encoder(images)

    return run


CAR = torch.full((2, 64, 96), TRAIN_ID["car"])


def test_the_feature_distance_is_the_weighted_mean_norm(measure: Any) -> None:
    anchor, loss, moved, frozen = measure(CAR, weight=2.0)
    assert loss == pytest.approx(float(2.0 * torch.linalg.vector_norm(moved.detach() - frozen, dim=1).mean()), rel=1e-3)
    assert loss > 0.1
    assert float(anchor.cells) == 1


@pytest.mark.parametrize(
    ("name", "settings", "cells"),
    [
        ("car", {}, 1),
        ("traffic sign", {}, 1),  # the published code counts signs among the things
        ("road", {}, 0),
        ("void", {}, 0),
        ("road", {"classes": ["road"], "stage": 1}, 1),
        ("car", {"classes": ["road"], "stage": 1}, 0),
    ],
)
def test_the_feature_distance_looks_at_its_classes_alone(
    name: str, settings: dict[str, Any], cells: int, measure: Any
) -> None:
    anchor, loss, _, _ = measure(torch.full_like(CAR, (TRAIN_ID | {"void": 255})[name]), **settings)
    assert float(anchor.cells) == cells
    assert (loss > 0) == bool(cells)


@pytest.mark.parametrize(("share", "cells"), [(0.75, 1), (0.99, 0)])
def test_how_much_of_a_cell_must_be_one_thing(share: float, cells: int, measure: Any) -> None:
    labels = CAR.clone()
    labels[:, ::10] = 0  # about a tenth of each cell is road
    assert float(measure(labels, cell_share=share)[0].cells) == cells


def test_a_stage_that_is_not_there(make_job: Callable[..., Job]) -> None:
    with pytest.raises(RunError, match=r"stage 5 is not among the 5 stages of this benchmark's UNet"):
        build_learner(make_job("dginstyle", blocks(5, 8), feature_distance={"stage": 5}))


def test_two_feature_distances_are_one_too_many(make_job: Callable[..., Job]) -> None:
    class Own(Method):
        def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
            return super().losses(batch, output) | {"fd": output.logits.sum()}

    job = replace(make_job("dginstyle", blocks(5, 16), feature_distance=DISTANCE), method=Own)
    with pytest.raises(RunError, match="keep one of them"):
        Trainer(job, launch_fabric("1")).step(0)


@pytest.mark.parametrize("change", [photometric_distortion, jitter_and_blur])
def test_colours_change_alone_and_by_their_generator(change: Any) -> None:
    image = blocks(6, 4).images[0]
    before = image.copy()
    results = [change(image, np.random.default_rng(seed)) for seed in range(20)]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(results[3], change(image, np.random.default_rng(3)))
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in results)
    assert len({each.tobytes() for each in results}) > 10
    grey = np.full((8, 8, 3), 90, np.uint8)
    flat = [change(grey, np.random.default_rng(seed)) for seed in range(20)]
    assert all(np.ptp(each) <= 1 for each in flat), "grey has no colour to change, and nothing to blur"


def test_jitter_leaves_half_of_the_images_to_the_blur() -> None:
    """Flat images show the jitter alone; its values lie within the published ranges."""
    grey, colour = np.full((4, 4, 3), 90, np.uint8), np.full((4, 4, 3), (160, 100, 40), np.uint8)
    levels = np.array([jitter_and_blur(grey, np.random.default_rng(seed))[0, 0, 0] for seed in range(400)], dtype=int)
    assert binomtest(int((levels == 90).sum()), 400, 0.5).pvalue > 0.001  # few jitters round to nothing
    assert 54 <= levels.min() < 60, "brightness by 0.6 to 1.4"
    assert 120 < levels.max() <= 126
    tints = np.array([jitter_and_blur(colour, np.random.default_rng(seed))[0, 0] for seed in range(400)], dtype=int)
    spread = np.ptp(tints, axis=1) / tints.max(axis=1)
    assert spread.min() < 0.6, "less colour"
    assert spread.max() > 0.85, "more colour"
    assert (tints[:, 0] >= tints[:, 2]).all(), "a tenth of a turn does not carry orange to blue"
    assert (tints[:, 1] > tints[:, 0]).any() or (tints[:, 1] < tints[:, 2]).any(), "the hue turns"
    edge = np.zeros((16, 16, 3), np.uint8)
    edge[:, 8:] = 200
    widths = [len(np.unique(jitter_and_blur(edge, np.random.default_rng(seed))[8, :, 0])) for seed in range(40)]
    assert max(widths) > 3, "the edge is blurred"


def test_colours_are_changed_after_the_crop_and_labels_are_not() -> None:
    pool = blocks(7, 4)
    training = schedule((16, 24), photometric="mmseg")
    plain = schedule((16, 24))
    different = 0
    for seed in range(20):
        image, label = prepare(pool.images[0], pool.labels[0], NO_CLASS, training, np.random.default_rng(seed))
        cropped, same = prepare(pool.images[0], pool.labels[0], NO_CLASS, plain, np.random.default_rng(seed))
        np.testing.assert_array_equal(label, same)
        different += not np.array_equal(image, cropped)
    assert different > 10
