"""The classes and the sets into which they are merged."""

from __future__ import annotations

import pytest

from flexseg.classes import CAMVID, CITYSCAPES, CLASS_NAMES, GROUPINGS, NUM_CLASSES, Grouping, scored_classes


@pytest.mark.parametrize("classes", [*GROUPINGS.values(), scored_classes(CITYSCAPES)], ids=lambda each: each.id)
def test_a_grouping_merges_each_class_once(classes: Grouping) -> None:
    assert len(classes.merge) == NUM_CLASSES
    assert all(classes.merge[place] == place for place in classes.merge), "a class goes by its own id or by another's"
    assert list(classes.names) == list(classes.members) == sorted(set(classes.merge))
    for representative, members in classes.members.items():
        assert [place for place in range(NUM_CLASSES) if classes.merge[place] == representative] == list(members)


def test_cityscapes19_merges_nothing() -> None:
    classes = scored_classes(CITYSCAPES, "cityscapes19")
    assert classes.merge == tuple(range(NUM_CLASSES))
    assert tuple(classes.names.values()) == CLASS_NAMES
    assert not classes.coarser


def test_camvid11() -> None:
    classes = scored_classes(CITYSCAPES, "camvid11")
    assert classes == CAMVID
    assert classes.merge == (0, 1, 2, 2, 4, 5, 7, 7, 8, 8, 10, 11, 18, 13, 13, 13, 13, 18, 18)
    assert classes.names == {
        0: "road",
        1: "pavement",
        2: "building",
        4: "fence",
        5: "pole",
        7: "sign or symbol",
        8: "tree",
        10: "sky",
        11: "pedestrian",
        13: "car",
        18: "bicyclist",
    }
    assert classes.coarser


@pytest.mark.parametrize("change", [{"pole": ()}, {"pole": ("pole", "sky")}, {"pole": ("pole", "pillar")}])
def test_a_grouping_that_leaves_out_or_repeats_a_class(change: dict[str, tuple[str, ...]]) -> None:
    groups = {name: (name,) for name in CLASS_NAMES} | change
    with pytest.raises(ValueError, match="exactly one group"):
        Grouping("wrong", groups)
