"""The base draw: its frequencies against its probabilities, the ratio of the sources, and subsets of a domain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency, chisquare

from flexseg.benchmark.schedule import ClassUniform, RareClasses, RareSubset, Separate
from flexseg.components.has import HardnessSampler
from flexseg.components.rcs import class_frequencies, class_probabilities
from flexseg.data.draws import Purpose, generator
from flexseg.data.sampling import NO_CLASS, Drawing, base_drawing, subset
from flexseg.errors import UserError

ORIGINS = np.repeat([0, 1], [30, 10]).astype(np.int8)
PIXELS = np.random.default_rng(0).integers(0, 60, (40, 19)) * (np.random.default_rng(1).random((40, 19)) < 0.3)
PIXELS[:, 18] = 0  # a class that no image shows
RARE = RareClasses(kind="rare_classes", temperature=0.05, min_pixels=20)
EVEN = ClassUniform(kind="class_uniform", share=0.5)
CHOSEN = RareSubset(kind="rare_subset", images=8, temperature=0.05, min_pixels=20)
DGINSTYLE = Separate(kind="separate", source=CHOSEN)
WAYS = pytest.mark.parametrize(
    "sampling",
    [None, RARE, EVEN, CHOSEN, DGINSTYLE, Separate(kind="separate", source=RARE, generated=EVEN)],
    ids=["uniform", "rare classes", "class uniform", "rare subset", "subset of the source", "a rule for each kind"],
)
MIXES = pytest.mark.parametrize("mix", [None, (1.0, 1.0), (1.0, 3.0)], ids=["all alike", "1:1", "1:3"])
DRAWS = 4000


def drawn(drawing: Drawing, seed: int = 0) -> np.ndarray:
    """(DRAWS, 2): images and classes, as a run draws them."""
    return np.array(
        [drawing.draw(generator(seed, Purpose.CHOOSE, i, slot)) for i in range(DRAWS // 8) for slot in range(8)]
    )


def test_without_a_recipe_all_images_are_drawn_equally_as_before() -> None:
    images, classes = drawn(base_drawing(ORIGINS, PIXELS)).T
    expected = [generator(0, Purpose.CHOOSE, i, slot).integers(40) for i in range(DRAWS // 8) for slot in range(8)]
    assert images.tolist() == expected
    assert set(classes.tolist()) == {NO_CLASS}


@WAYS
@MIXES
def test_frequencies_are_the_probabilities(
    sampling: RareClasses | ClassUniform | None, mix: tuple[float, float] | None
) -> None:
    drawing = base_drawing(ORIGINS, PIXELS, mix, sampling)
    assert drawing.probabilities.sum() == pytest.approx(1)
    counts = np.bincount(drawn(drawing)[:, 0], minlength=40)
    possible = drawing.probabilities > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible], drawing.probabilities[possible] * DRAWS).pvalue > 0.001


@WAYS
@pytest.mark.parametrize("mix", [(1.0, 1.0), (1.0, 3.0)])
def test_both_sources_are_drawn_in_the_ratio(
    sampling: RareClasses | ClassUniform | None, mix: tuple[float, float]
) -> None:
    generated = int(ORIGINS[drawn(base_drawing(ORIGINS, PIXELS, mix, sampling))[:, 0]].sum())
    share = mix[1] / sum(mix)
    assert binomtest(generated, DRAWS, share).pvalue > 0.001
    assert binomtest(generated, DRAWS, 10 / 40).pvalue < 1e-9, "the ratio of the pool's sizes must be distinguishable"


@WAYS
def test_what_hardness_does_not_draw_keeps_the_ratio(sampling: RareClasses | ClassUniform | None) -> None:
    """HAS with a threshold that never lets hardness draw: its other branch is the base draw."""
    drawing = base_drawing(ORIGINS, PIXELS, (1.0, 3.0), sampling)
    sampler = HardnessSampler(40, 0, 10**9, midpoint=1e6)

    def base(i: int, slot: int) -> int:
        return drawing.draw(generator(0, Purpose.CHOOSE, i, slot))[0]

    images = np.concatenate([sampler.choose(i, range(8), base) for i in range(DRAWS // 8)])
    np.testing.assert_array_equal(images, drawn(drawing)[:, 0])
    assert binomtest(int(ORIGINS[images].sum()), DRAWS, 0.75).pvalue > 0.001


@pytest.mark.parametrize("mix", [None, (1.0, 1.0)])
def test_rare_classes_are_drawn_by_the_formula_and_from_images_with_enough_of_them(
    mix: tuple[float, float] | None,
) -> None:
    images, classes = drawn(base_drawing(ORIGINS, PIXELS, mix, RARE)).T
    assert (PIXELS[images, classes] > RARE.min_pixels).all()
    for kind in [slice(None)] if mix is None else [ORIGINS == 0, ORIGINS == 1]:
        pixels = PIXELS[kind]
        p = class_probabilities(class_frequencies(pixels), RARE.temperature, (pixels > RARE.min_pixels).any(axis=0))
        among = classes if mix is None else classes[kind[images]]
        counts = np.bincount(among, minlength=19)
        assert chisquare(counts[p > 0], p[p > 0] * len(among)).pvalue > 0.001


def test_half_of_the_class_uniform_draws_are_for_equally_likely_classes() -> None:
    images, classes = drawn(base_drawing(ORIGINS, PIXELS, None, EVEN)).T
    wanted = classes != NO_CLASS
    assert binomtest(int(wanted.sum()), DRAWS, 0.5).pvalue > 0.001
    assert (PIXELS[images[wanted], classes[wanted]] > 0).all()
    counts = np.bincount(classes[wanted], minlength=19)
    assert counts[18] == 0
    assert chisquare(counts[:18]).pvalue > 0.001


def test_a_run_on_one_kind_alone_ignores_the_ratio() -> None:
    one = np.zeros(40, dtype=np.int8)
    assert base_drawing(one, PIXELS, (1.0, 3.0)).probabilities.tolist() == pytest.approx([1 / 40] * 40)


@WAYS
@pytest.mark.parametrize("mix", [(0.0, 1.0), (2.0, 0.0)])
def test_a_kind_of_share_zero_is_never_drawn(
    sampling: RareClasses | ClassUniform | None, mix: tuple[float, float]
) -> None:
    drawing, kind = base_drawing(ORIGINS, PIXELS, mix, sampling), int(mix[0] == 0)
    assert set(ORIGINS[drawn(drawing)[:, 0]]) == {kind}
    assert drawing.probabilities[kind != ORIGINS].sum() == 0
    assert drawing.probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize(("origin", "mix", "kind"), [(0, (0.0, 1.0), "source"), (1, (1.0, 0.0), "generated")])
def test_nothing_can_be_drawn(origin: int, mix: tuple[float, float], kind: str) -> None:
    with pytest.raises(UserError, match=rf"training\.mix: .* draws no {kind} image, and this run has no others"):
        base_drawing(np.full(40, origin, dtype=np.int8), PIXELS, mix)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [(RareClasses(kind="rare_classes", min_pixels=3000), "more than 3000 pixels"), (EVEN, "shows any class")],
)
def test_no_image_has_enough_of_any_class(sampling: RareClasses | ClassUniform, message: str) -> None:
    with pytest.raises(UserError, match=message):
        base_drawing(ORIGINS, np.zeros_like(PIXELS), (1.0, 1.0), sampling)


def test_subsets_follow_the_seed_and_the_domain_and_grow() -> None:
    places = subset(100, 30, 0, "generated")
    assert places.tolist() == sorted(set(places.tolist()))
    assert len(places) == 30
    assert 0 <= places.min() <= places.max() < 100
    np.testing.assert_array_equal(places, subset(100, 30, 0, "generated"))
    assert (places != subset(100, 30, 1, "generated")).any()
    assert (places != subset(100, 30, 0, "gta5")).any()
    assert set(places) < set(subset(100, 60, 0, "generated"))
    assert subset(100, 100, 0, "generated").tolist() == list(range(100))
    taken = np.bincount(np.concatenate([subset(100, 30, seed, "g") for seed in range(400)]), minlength=100)
    assert np.abs(taken - 120).max() < 5 * np.sqrt(400 * 0.3 * 0.7)
    with pytest.raises(UserError, match="'gta5' has 100 images, 101 are asked for"):
        subset(100, 101, 0, "gta5")


def test_subsets_never_change() -> None:
    """Recorded once: another machine must take the same images."""
    assert subset(1000, 4, 3, "generated").tolist() == [157, 330, 493, 992]


@WAYS
@MIXES
def test_an_image_and_its_class_are_drawn_by_the_joint_probabilities(sampling, mix) -> None:
    drawing = base_drawing(ORIGINS, PIXELS, mix, sampling)
    images, classes = drawn(drawing).T
    counts = np.zeros_like(drawing.joint)
    np.add.at(counts, (images, classes), 1)  # a class of −1 is the last column
    possible = drawing.joint > 0
    assert counts[~possible].sum() == 0
    some = drawing.joint * DRAWS > 5
    expected = np.append(drawing.joint[some], 1 - drawing.joint[some].sum())
    found = np.append(counts[some], DRAWS - counts[some].sum())
    kept = expected > 0
    assert chisquare(found[kept], expected[kept] / expected[kept].sum() * DRAWS).pvalue > 0.001


@WAYS
def test_a_class_for_an_image_that_was_chosen_otherwise(sampling) -> None:
    drawing = base_drawing(ORIGINS, PIXELS, None, sampling)
    rng = np.random.default_rng(0)
    for image in (0, 7, 33):
        found = np.array([drawing.class_for(image, rng) for _ in range(500)])
        weights = drawing.joint[image]
        if not weights[:-1].any():
            assert set(found) == {NO_CLASS}
            continue
        counts = np.bincount(np.where(found < 0, 19, found), minlength=20)
        assert chisquare(counts[weights > 0], weights[weights > 0] / weights.sum() * 500).pvalue > 0.001
        assert counts[weights == 0].sum() == 0


def test_the_subset_is_that_of_drawing_until_there_are_enough() -> None:
    """Against DGInStyle's loop, which draws a class, then an image, and passes over one that it has."""
    sampler_images = [np.flatnonzero(column > 20) for column in PIXELS.T]
    p = class_probabilities(class_frequencies(PIXELS), 0.05, [len(images) > 0 for images in sampler_images])
    rng = np.random.default_rng(0)
    rounds, slow, fast = 1500, np.zeros((40, 19)), np.zeros((40, 19))
    for seed in range(rounds):
        found: dict[int, int] = {}
        while len(found) < 8:
            drawn_class = int(rng.choice(19, p=p))
            found.setdefault(int(rng.choice(sampler_images[drawn_class])), drawn_class)
        for image, its_class in found.items():
            slow[image, its_class] += 1
        drawing = base_drawing(ORIGINS, PIXELS, None, CHOSEN.model_copy(update={"seed": seed}))
        fast[tuple(np.argwhere(drawing.joint).T)] += 1
    assert slow.sum() == fast.sum() == 8 * rounds
    often = slow + fast > 20
    both = np.stack([slow[often], fast[often]])
    assert chi2_contingency(both).pvalue > 0.001


def test_every_run_shares_the_subset_and_joined_lists_are_drawn_by_their_lengths() -> None:
    drawing = base_drawing(ORIGINS, PIXELS, None, DGINSTYLE)
    assert np.count_nonzero(drawing.probabilities[:30]) == 8
    np.testing.assert_allclose(drawing.probabilities[drawing.probabilities > 0], 1 / 18)
    assert (drawing.joint[:30, -1] == 0).all()
    assert (drawing.joint[30:, :-1] == 0).all(), "a generated image is cropped for no class"
    again = base_drawing(ORIGINS, PIXELS, None, DGINSTYLE)
    np.testing.assert_array_equal(drawing.joint, again.joint)
    ratio = base_drawing(ORIGINS, PIXELS, (1.0, 1.0), DGINSTYLE)
    assert ratio.probabilities[:30].sum() == pytest.approx(0.5)


def test_a_subset_larger_than_what_shows_a_class_is_refused() -> None:
    rule = Separate(kind="separate", source=CHOSEN.model_copy(update={"images": 31}))
    with pytest.raises(UserError, match=r"training\.sampling\.source\.images: only \d+ of 30 images show enough"):
        base_drawing(ORIGINS, PIXELS, None, rule)
    few = CHOSEN.model_copy(update={"min_pixels": 3000})
    with pytest.raises(UserError, match=r"training\.sampling: none of 40 training images has more than 3000"):
        base_drawing(ORIGINS, PIXELS, None, few)
