"""Options that make no sense are refused before any work, by the name of the method's file and of what is wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from builders import METHODS

from flexseg.errors import UserError
from flexseg.method import parse_options
from flexseg.method_files import load_method

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("advstyle", {"gamma": 0.0}, "gamma must be a number above 0"),
    ("advstyle", {"gamma": float("nan")}, "gamma must be a number above 0"),
    ("blindnet", {"views": 0}, "views"),
    ("blindnet", {"levels": []}, "levels"),
    ("blindnet", {"levels": ["head", "head"]}, "levels"),
    ("blindnet", {"levels": ["neck"]}, "levels"),
    ("blindnet", {"temperature": 0.0}, "temperature"),
    ("boundary_policy", {"policy": "reduce", "weight": 1.5}, "reduce takes a weight between 0.0 and 1.0"),
    ("boundary_policy", {"policy": "reduce", "weight": 0.0}, "reduce takes a weight between 0.0 and 1.0"),
    ("boundary_policy", {"policy": "enhance", "weight": 0.5}, "enhance takes a weight between 1.0 and inf"),
    ("boundary_policy", {"policy": "reward"}, "policy"),
    ("boundary_policy", {"weight": "much"}, "weight"),
    ("detectron2_fpn", {"depth": 20}, "depth is 18, 34, 50, 101 or 152, not 20"),
    ("detectron2_fpn", {"width": 0}, "width must be at least 1, not 0"),
    ("detectron2_fpn", {"branch": 48}, "branch is a multiple of GroupNorm's 32 groups, not 48"),
    ("detectron2_fpn", {"breadth": 3}, "no option 'breadth'"),
    ("fada", {"tokens": 0}, "tokens must be at least 1"),
    ("fada", {"rank": 0}, "rank must be at least 1"),
    ("fada", {"normalised": "nothing"}, "normalised"),
    ("flexseg", {"alpha": "strong"}, "alpha"),
    ("flexseg", {"gap": "perhaps"}, "gap"),
    ("flexseg", {"kernels": "3,5"}, "kernels"),
    ("flexseg", {"rings": "square"}, "rings"),
    ("flexseg", {"dim": 1.5}, "dim"),
    ("ibn_net", {"variant": "a", "stages": 0}, "stages must be at least 1, not 0"),
    ("ibn_net", {"variant": "b", "stages": 0}, "stages must be at least 1, not 0"),
    ("iternorm", {"stages": 0}, "stages must be at least 1, not 0"),
    ("lora", {"rank": 0}, "rank must be at least 1"),
    ("lora", {"projections": []}, "projections"),
    ("lora", {"projections": ["q", "q"]}, "projections"),
    ("lora", {"projections": "z"}, "projections"),
    ("mrfp", {"probability": 1.5}, "probability"),
    ("mrfp", {"deviation": -1}, "deviation"),
    ("mrfp", {"depth": 0}, "depth"),
    ("mrfp", {"width": 0}, "width"),
    ("mrfp", {"np_stages": 0}, "np_stages"),
    ("pasta", {"alpha": -1.0}, "must not be negative"),
    ("pasta", {"beta": -0.1}, "must not be negative"),
    ("pasta", {"k": 0.0}, "must not be negative"),
    ("randaugment", {"magnitude": 11}, "magnitude lie between 0 and 10"),
    ("randaugment", {"operations": -1}, "operations must not be negative"),
    ("randaugment", {"blur": -1.0}, "blur and noise must not be negative"),
    ("rein", {"tokens": 1}, "tokens must be at least 2"),
    ("rein", {"rank": 0}, "rank must be at least 1"),
    ("rein", {"tokens": "many"}, "tokens"),
    ("revt", {"part_at": 1.1}, "part_at must be between 0 and 1"),
    ("revt", {"part_at": float("nan")}, "part_at must be between 0 and 1"),
    ("revt", {"statistics": 0}, "statistics must be at least 1"),
    ("revt", {"pictures": 0}, "pictures must be at least 1"),
    ("revt", {"beta": 0.0}, "beta and sigma must be positive"),
    ("revt", {"sigma": 0.0}, "beta and sigma must be positive"),
    ("revt", {"filtered": 1.5}, "filtered must be between 0 and 1"),
    ("revt", {"augmentations": ["sepia"]}, "augmentations"),
    ("robustnet", {"stages": 0}, "stages must be at least 1, not 0"),
    ("san_saw", {"stages": 0}, "stages must be at least 1, not 0"),
    ("san_saw", {"clusters": 1}, "clusters must be at least 2, not 1"),
    ("san_saw", {"saw_weight": -1}, "saw_weight must be a number from 0"),
    ("san_saw", {"classes": [3]}, "classes names two or more different trainIds"),
    ("san_saw", {"classes": [3, 3]}, "classes names two or more different trainIds"),
    ("san_saw", {"classes": [3, 255]}, "classes holds trainIds, not"),
    ("set_tokens", {"tokens": 1}, "tokens must be at least 2"),
    ("set_tokens", {"rank": 0}, "rank must be at least 1"),
    ("set_tokens", {"add": "phase"}, "add"),
    ("shade", {"weight": -1}, "weight must not be negative"),
    ("shade", {"concentration": 0}, "concentration positive"),
    ("shade", {"bases": 0}, "bases must be from 1 to remembered = 256"),
    ("shade", {"bases": 300}, "bases must be from 1 to remembered = 256"),
    ("shade", {"every": 0}, "every must be above 0 and at most 1"),
    ("shade", {"every": 2}, "every must be above 0 and at most 1"),
    ("shade", {"lambda": 1}, "no option 'lambda'"),
    ("spc", {"places": 0}, "places must be at least 1, not 0"),
    ("spc", {"momentum": 1.0}, "lie from 0 to below 1"),
    ("spc", {"style_momentum": -0.1}, "lie from 0 to below 1"),
    ("spc", {"temperature": 0.0}, "temperature must be positive"),
    ("spc", {"beta": -1.0}, "no weight negative"),
    ("switchable_whitening", {"stages": 0}, "stages must be at least 1, not 0"),
    ("tldr", {"generalisation": [-1.0]}, "no weight must be negative"),
    ("tldr", {"original": float("nan")}, "no weight must be negative"),
    ("tldr", {"threshold": -0.1}, "threshold must not be negative"),
    ("wildnet", {"places": 0}, "places"),
    ("wildnet", {"queue": 0}, "queue"),
    ("wildnet", {"grid": [0, 4]}, "grid and wild_grid count pixels"),
    ("wildnet", {"dim": 0}, "dim"),
    ("wildnet", {"temperature": 0}, "temperature must be positive"),
    ("wildnet", {"lambda_sel": -1}, "no weight negative"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG)
def test_options_that_make_no_sense_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_options(load_method(name, METHODS), options)
    assert re.search(rf"methods/{name}\.py.*{message}", str(refusal.value))
