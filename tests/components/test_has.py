"""HAS: the threshold, the draws and the hardness against the equations and against chance."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from flexseg.components.has import LEVEL_DECAY, HardnessSampler, progress_unit, rank_correlation, uniform_threshold


def sampler(n: int = 10, seed: int = 0, iterations: int = 1000, **kwargs) -> HardnessSampler:
    """With the first loss copied, unless told: then a single update sets the hardness."""
    return HardnessSampler(n, seed, iterations, **{"hardness": "copied"} | kwargs)


def slow_choice(s: HardnessSampler, iteration: int, slot: int) -> int:
    """The draw of one slot, written from the equations, given the same two random numbers."""
    r, u = s._uniforms(iteration, slot)
    t = 100 * iteration / s.iterations
    if r > 1 / (1 + math.exp(0.05 * (t - 50))):
        seen = [h for h, known in zip(s.hardness, s.seen, strict=True) if known]
        mean = sum(seen) / len(seen) if seen else 0.0
        h = [h if known else mean for h, known in zip(s.hardness, s.seen, strict=True)]
        e = [math.exp(v / s.temperature) for v in h]
        passed = 0.0
        for i, v in enumerate(e):
            passed += v / sum(e)
            if u < passed:
                return i
        return len(e) - 1
    return int(u * len(s.hardness))


def test_numpy_only() -> None:
    code = "import sys, flexseg.components.has; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threshold_falls_from_092_over_050_to_008() -> None:
    assert np.round(uniform_threshold([0, 50, 100]), 2).tolist() == [0.92, 0.50, 0.08]
    for t in np.linspace(-20, 120, 29):
        assert uniform_threshold(t) == pytest.approx(1 / (1 + math.exp(0.05 * (t - 50))))
    assert uniform_threshold(np.zeros((2, 3))).shape == (2, 3)


def test_a_steep_threshold_does_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert uniform_threshold([0.0, 1e6, 2e6], midpoint=1e6).tolist() == [1.0, 0.5, 0.0]


def test_linear_and_none() -> None:
    assert uniform_threshold([0, 25, 50, 100, 150], "linear").tolist() == [1.0, 0.75, 0.5, 0.0, 0.0]
    assert uniform_threshold([0, 50, 100], "none").tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="schedule"):
        uniform_threshold(0.0, "cosine")


def test_the_unit_of_time() -> None:
    assert [progress_unit(i, 200) for i in (0, 100, 200)] == [0.0, 50.0, 100.0]
    assert progress_unit(150, 200, "iteration") == 150.0
    assert progress_unit(150, 200, "epoch", images_per_step=8, images=400) == 3.0
    with pytest.raises(ValueError, match="unit"):
        progress_unit(0, 1, "hour")


@pytest.mark.parametrize("unit", ["percent", "iteration", "epoch"])
def test_the_midpoint_is_half_of_the_training_unless_told(unit: str) -> None:
    s = sampler(40, iterations=600, unit=unit, images_per_step=4)
    assert s.threshold(300) == pytest.approx(0.5)
    told = sampler(40, iterations=600, unit=unit, images_per_step=4, midpoint=s.time(150))
    assert told.threshold(150) == pytest.approx(0.5)
    assert s.threshold(0) > 0.5 > s.threshold(599)


@settings(derandomize=True, max_examples=40)
@given(st.integers(0, 2**63), st.integers(0, 1000), st.lists(st.integers(0, 500), max_size=6), st.data())
def test_draws_against_the_equations(seed: int, iteration: int, slots: list[int], data: st.DataObject) -> None:
    s = sampler(12, seed, temperature=data.draw(st.sampled_from([0.3, 1.0, 5.0])))
    losses = data.draw(st.lists(st.floats(0, 20), max_size=12))
    s.update(np.arange(len(losses)), losses)
    drawn = s.choose(iteration, slots)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == [slow_choice(s, iteration, slot) for slot in slots]


def test_a_draw_depends_on_seed_iteration_slot_and_hardness_alone() -> None:
    a, b = sampler(50, 3), sampler(50, 3)
    for s in (a, b):
        s.update(np.arange(50), np.linspace(0, 4, 50))
    whole = a.choose(600, range(16))
    for _ in range(5):
        b.choose(7, range(9))  # draws leave no trace
    np.random.default_rng(0).random(3)
    split = np.concatenate([b.choose(600, range(8, 16)), b.choose(600, range(8))])
    assert split.tolist() == np.concatenate([whole[8:], whole[:8]]).tolist()
    assert b.choose(600, [5, 2, 5]).tolist() == whole[[5, 2, 5]].tolist()
    many = {
        tuple(sampler(10**6, seed).choose(i, [slot]).tolist()) for seed in (0, 1) for i in (0, 1) for slot in (0, 1)
    }
    assert len(many) == 8  # each of the three matters


def test_the_very_numbers_of_one_seed() -> None:
    # A change of numpy or of this file that moved the draws would make old runs irreproducible.
    assert sampler(1000, 7).choose(5, range(6)).tolist() == [146, 911, 83, 778, 104, 673]


def frequencies(s: HardnessSampler, iteration: int, draws: int) -> np.ndarray:
    return np.bincount(s.choose(iteration, range(draws)), minlength=len(s.hardness))


@pytest.mark.parametrize("iteration", [0, 500, 1000])
def test_frequencies_follow_the_mixture(iteration: int) -> None:
    s = sampler(8, 1)
    s.update(np.arange(7), [0.1, 3.0, 1.0, 0.5, 2.0, 2.5, 0.0])  # image 7 stays unseen
    threshold = float(uniform_threshold(iteration / 10))
    expected = threshold / 8 + (1 - threshold) * s.probabilities()
    draws = 6000
    assert chisquare(frequencies(s, iteration, draws), expected * draws).pvalue > 0.01
    wrong = threshold * s.probabilities() + (1 - threshold) / 8
    if iteration != 500:
        assert chisquare(frequencies(s, iteration, draws), wrong * draws).pvalue < 1e-6


def test_schedule_none_always_draws_by_hardness() -> None:
    s = sampler(4, 1, schedule="none")
    s.update([2], [0.0])
    s.update([0, 1, 3], [-1000.0, -1000.0, -1000.0])
    assert set(s.choose(0, range(200)).tolist()) == {2}


def test_neighbouring_slots_and_iterations_are_independent() -> None:
    s = sampler(2, 5)
    by_slot = np.array([s.choose(i, range(2)) for i in range(2000)])
    pairs = Counter(map(tuple, by_slot.tolist()))
    assert chisquare([pairs[a, b] for a in (0, 1) for b in (0, 1)]).pvalue > 0.01
    follow = Counter(zip(by_slot[:-1, 0].tolist(), by_slot[1:, 0].tolist(), strict=True))
    assert chisquare([follow[a, b] for a in (0, 1) for b in (0, 1)]).pvalue > 0.01


def test_hardness_is_a_moving_average_that_begins_with_the_first_loss() -> None:
    s = sampler(3, decay=0.9)
    s.update([1], [2.0])
    assert s.hardness.tolist() == [0.0, 2.0, 0.0]
    assert s.seen.tolist() == [False, True, False]
    s.update([1, 2], [4.0, 7.0])
    np.testing.assert_allclose(s.hardness, [0.0, 0.9 * 2 + 0.1 * 4, 7.0])


def test_a_debiased_average_weighs_all_visits_in_their_proportion() -> None:
    s = sampler(2, decay=0.8, hardness="debiased")
    losses = [5.0, 2.0, 1.0, 4.0]
    for number, loss in enumerate(losses, 1):
        s.update([1], [loss])
        weights = [0.8 ** (number - 1 - j) for j in range(number)]
        expected = sum(w * x for w, x in zip(weights, losses, strict=False)) / sum(weights)
        assert s.hardness[1] == pytest.approx(expected)
    assert s.hardness[0] == 0


def test_relative_hardness_is_that_of_the_loss_less_the_running_mean() -> None:
    s = sampler(6, decay=0.9, hardness="relative")
    g = np.random.default_rng(0)
    level = weight = 0.0
    visits: dict[int, list[float]] = {}
    for _ in range(30):
        index, loss = g.choice(6, 3, replace=False), g.random(3) * 4
        s.update(index, loss)
        level = LEVEL_DECAY * level + (1 - LEVEL_DECAY) * loss.mean()
        weight = LEVEL_DECAY * weight + (1 - LEVEL_DECAY)
        for i, value in zip(index.tolist(), loss.tolist(), strict=True):
            visits.setdefault(i, []).append(value - level / weight)
    for i, values in visits.items():
        weights = [0.9 ** (len(values) - 1 - j) for j in range(len(values))]
        assert s.hardness[i] == pytest.approx(np.average(values, weights=weights))


def simulate(hardness: str, images: int = 300, visits: int = 6, batch: int = 4) -> tuple[HardnessSampler, np.ndarray]:
    """Training whose losses fall with time, of images of different difficulty, a few visits each."""
    g = np.random.default_rng(3)
    difficulty = g.normal(0, 0.3, images)
    s = sampler(images, hardness=hardness)
    steps = images * visits // batch
    for step in range(steps):
        index = g.choice(images, batch, replace=False)
        common = 2.5 * math.exp(-4 * step / steps) + 0.5
        s.update(index, common + difficulty[index] + g.normal(0, 0.1, batch))
    return s, difficulty


def test_relative_hardness_is_difficulty_and_not_age() -> None:
    found = {name: simulate(name) for name in ("copied", "debiased", "relative")}
    age = {name: s.age_correlation() for name, (s, _) in found.items()}
    difficulty = {name: rank_correlation(s.hardness[s.seen], d[s.seen]) for name, (s, d) in found.items()}
    assert age["copied"] > 0.5
    assert abs(age["relative"]) < 0.15 < age["debiased"] < age["copied"]
    assert difficulty["copied"] < difficulty["debiased"] < difficulty["relative"]
    assert difficulty["relative"] > 0.9


def test_whether_hardness_foretells_the_loss() -> None:
    s, _ = simulate("relative")
    assert s.loss_correlation() > 0.6
    assert s.seen.sum() > 290
    assert math.isnan(sampler(4).loss_correlation())
    s = sampler(5)
    s.update(np.arange(5), [1.0, 2.0, 3.0, 4.0, 5.0])
    assert math.isnan(s.loss_correlation()), "an image's first loss was not foretold"
    s.update(np.arange(5), [5.0, 4.0, 3.0, 2.0, 1.0])
    assert s.loss_correlation() == pytest.approx(-1)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-1e3, 1e3)), min_size=3, max_size=30))
def test_rank_correlation_is_scipys(pairs: list[tuple[int, float]]) -> None:
    from scipy.stats import spearmanr

    a, b = zip(*pairs, strict=True)
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)
    else:
        assert math.isnan(rank_correlation(a, b))


def test_the_recipes_draw_stays_in_force_under_hard_draws() -> None:
    base = np.array([0.5, 0.3, 0.2, 0.0])
    s = sampler(4, schedule="none")
    s.update(np.arange(4), [0.0, 1.0, 2.0, 50.0])
    expected = base[:3] * np.exp([0.0, 1.0, 2.0])
    expected = np.append(expected / expected.sum(), 0.0)
    np.testing.assert_allclose(s.probabilities(base), expected)
    drawn = np.bincount(s.choose(2, range(100_000), base=base), minlength=4)
    assert drawn[3] == 0, "what the recipe never draws, hardness does not either"
    assert chisquare(drawn[:3], expected[:3] * 100_000).pvalue > 0.01
    assert chisquare(drawn[:3], base[:3] * 100_000).pvalue < 1e-6
    np.testing.assert_allclose(sampler(4).probabilities(base), base)
    assert sampler(4, 3, schedule="none").choose(0, range(5000), base=base).max() == 2


def test_the_control_is_as_uneven_and_looks_at_no_loss_of_its_own() -> None:
    kinds = np.array([0] * 20 + [1] * 9 + [2])
    own, control = sampler(30, 1), sampler(30, 1, exchanged=kinds)
    losses = np.random.default_rng(0).random(30) * 5
    for s in (own, control):
        s.update(np.arange(29), losses[:29])
    assert control.effective_sample_size() == pytest.approx(own.effective_sample_size())
    p, q = own.probabilities(), control.probabilities()
    for kind in (0, 1):
        np.testing.assert_allclose(np.sort(p[kinds == kind]), np.sort(q[kinds == kind]))
    assert q[29] == pytest.approx(p[29]), "alone of its kind"
    before = control.probabilities()
    control.update([4], [99.0])  # changes the chance of one other image, up to the sum
    ratio = control.probabilities() / before
    assert np.isclose(ratio, ratio[4]).sum() >= 28
    assert ratio.argmax() != 4


def test_an_image_twice_in_a_batch_counts_with_its_mean_in_any_order() -> None:
    g = np.random.default_rng(0)
    index, loss = g.integers(0, 4, 40), g.random(40) * 10.0 ** g.integers(-8, 8, 40)
    reference = sampler(4)
    reference.update(index, loss)
    for i in range(4):
        assert reference.hardness[i] == pytest.approx(loss[index == i].mean())
    for _ in range(10):
        order = g.permutation(40)
        s = sampler(4)
        s.update(index[order], loss[order])
        assert s.hardness.tobytes() == reference.hardness.tobytes()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_unseen_images_count_with_the_mean_of_the_seen(temperature: float) -> None:
    s = sampler(4, temperature=temperature)
    assert s.probabilities().tolist() == [0.25] * 4
    s.update([0, 1], [1.0, 3.0])
    e = np.exp(np.array([1.0, 3.0, 2.0, 2.0]) / temperature)
    np.testing.assert_allclose(s.probabilities(), e / e.sum())


def test_effective_sample_size() -> None:
    s = sampler(5)
    assert s.effective_sample_size() == pytest.approx(5)
    s.update(range(5), [3.3] * 5)
    assert s.effective_sample_size() == pytest.approx(5)
    s.update(range(5), [1e5, 0, 0, 0, 0])
    assert s.effective_sample_size() == pytest.approx(1)
    s = sampler(2)
    s.update([0, 1], [0.0, math.log(3)])  # P = 1/4, 3/4
    assert s.effective_sample_size() == pytest.approx(1 / (1 / 16 + 9 / 16))


def test_extreme_losses_stay_finite() -> None:
    s = sampler(3)
    s.update([0, 1], [1e300, -1e300])
    assert s.probabilities().tolist() == [1.0, 0.0, 0.0]
    assert s.choose(999, range(50)).max() < 3


def test_one_image() -> None:
    assert sampler(1).choose(3, range(4)).tolist() == [0] * 4
    assert sampler(1).choose(3, []).tolist() == []


def test_state_comes_back_exactly() -> None:
    a = sampler(6)
    a.update([0, 3, 5], [0.1, 1 / 3, 2e-17])
    a.update([3, 4], [1 / 7, 5.0])
    state = a.state()
    b = sampler(6)
    b.load(state)
    assert b.hardness.tobytes() == a.hardness.tobytes()
    assert b.seen.tobytes() == a.seen.tobytes()
    a.update([0], [9.0])  # the state is a copy, on both ways
    assert state["average"][0] == b.hardness[0] == 0.1
    b.update([0], [9.0])
    assert state["average"][0] == 0.1
    assert b.choose(900, range(30)).tolist() == a.choose(900, range(30)).tolist()
    with pytest.raises(ValueError, match="images"):
        sampler(5).load(state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_losses_that_are_not_finite_are_named_and_change_nothing(bad: float) -> None:
    s = sampler(9)
    with pytest.raises(ValueError, match=r"not finite: \[2, 7\]"):
        s.update([7, 4, 2, 7], [bad, 1.0, bad, bad])
    assert not s.seen.any()
    assert not s.hardness.any()


@pytest.mark.parametrize(("index", "loss"), [([-1], [1.0]), ([9], [1.0]), ([1, 2], [1.0]), ([[1]], [[1.0]])])
def test_wrong_updates_are_refused(index: list, loss: list) -> None:
    s = sampler(9)
    with pytest.raises(ValueError, match="indices"):
        s.update(index, loss)
    assert not s.seen.any()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"n": 0},
        {"iterations": 0},
        {"seed": -1},
        {"temperature": 0.0},
        {"decay": 1.0},
        {"unit": "x"},
        {"schedule": "x"},
        {"hardness": "x"},
        {"images_per_step": 0},
    ],
)
def test_wrong_settings_are_refused(kwargs: dict) -> None:
    with pytest.raises(ValueError, match=r"."):
        sampler(**kwargs)


def test_negative_addresses_are_refused() -> None:
    for iteration, slots in ((-1, [0]), (0, [-1])):
        with pytest.raises(ValueError, match="negative"):
            sampler().choose(iteration, slots)


def test_another_base_draw_takes_the_place_of_the_uniform_one_alone() -> None:
    s = sampler(50, 3)
    s.update(np.arange(50), np.linspace(0, 3, 50))
    asked: list[tuple[int, int]] = []

    def base(iteration: int, slot: int) -> int:
        asked.append((iteration, slot))
        return 7

    slots = range(10, 410)
    plain, mixed = s.choose(500, slots), s.choose(500, slots, base)
    by_base = np.isin(slots, [slot for _, slot in asked])
    assert {iteration for iteration, _ in asked} == {500}
    assert 150 < by_base.sum() < 250, "half way, half of the draws are not by hardness"
    assert (mixed[by_base] == 7).all()
    np.testing.assert_array_equal(mixed[~by_base], plain[~by_base])
