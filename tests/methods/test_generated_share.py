"""A fixed share of generated images: the share is kept, draws are uniform within each kind and depend on no state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flexseg.errors import UserError
from flexseg.method import Method, Setup, parse_options
from flexseg.method_files import load_method

METHODS = Path(__file__).parents[2] / "methods"
ORIGINS = np.repeat([0, 1], [30, 10]).astype(np.int8)


def sampler(share: float, seed: int = 0) -> Method:
    method = load_method("generated_share", METHODS)
    return method(parse_options(method, {"share": share}), Setup(seed, 1000, ORIGINS))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.45, 1.0])
def test_the_share_is_kept_and_each_kind_is_drawn_evenly(share: float) -> None:
    method = sampler(share)
    drawn = np.concatenate([method.choose(iteration, range(8)) for iteration in range(1000)])
    assert ORIGINS[drawn].mean() == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / 8000) + 1e-12)
    for origin, size in ((0, 30), (1, 10)):
        counts = np.bincount(drawn[ORIGINS[drawn] == origin], minlength=40)[np.equal(ORIGINS, origin)]
        expected = counts.sum() / size
        assert np.square(counts - expected).sum() <= (size - 1 + 5 * np.sqrt(2 * size)) * max(expected, 1e-12)


def test_draws_depend_on_seed_iteration_and_slot_alone() -> None:
    whole = sampler(0.45).choose(7, range(8))
    parts = np.concatenate([sampler(0.45).choose(7, range(4, 8)), sampler(0.45).choose(7, range(4))])
    np.testing.assert_array_equal(np.roll(parts, 4), whole)
    assert (sampler(0.45, seed=1).choose(7, range(8)) != whole).any()


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_no_probability(share: float) -> None:
    method = load_method("generated_share", METHODS)
    with pytest.raises(UserError, match="probability between 0 and 1"):
        parse_options(method, {"share": share})
