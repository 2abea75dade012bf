"""The published numbers: all there, consistent with their own averages, found for the rows that correspond."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from flexseg.analysis.stats import published
from flexseg.errors import UserError

AVERAGES = {"Avg2": ("ACDC", "DZ"), "Avg3": ("CS", "BDD", "MV"), "Avg5": ("ACDC", "DZ", "CS", "BDD", "MV")}


def rows() -> dict[tuple[str, str, str], dict[str, float]]:
    """mIoU by target of each (table, method, trunk)."""
    found: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for number in published.load_published("flexseg_aaai2026"):
        key = number.table, number.method, number.trunk
        assert number.target not in found[key]
        found[key][number.target] = number.miou
    return found


def test_averages_are_those_of_the_targets() -> None:
    main = {key: values for key, values in rows().items() if key[0] == "main"}
    assert len(main) == 4
    for key, values in main.items():
        for average, members in AVERAGES.items():
            mean = sum(values[member] for member in members) / len(members)
            assert values[average] == pytest.approx(mean, abs=0.0100001), (key, average)


def test_avg5_of_the_ablation_follows_from_avg2_and_avg3() -> None:
    ablation = {key: values for key, values in rows().items() if key[0] == "ablation"}
    assert len(ablation) == 5
    for key, values in ablation.items():
        assert values["Avg5"] == pytest.approx((2 * values["Avg2"] + 3 * values["Avg3"]) / 5, abs=0.0100001), key


def test_the_same_cell_has_the_same_number_in_both_tables() -> None:
    found = rows()
    for method in ("DGInStyle", "FLEX-Seg"):
        main, ablation = (found[table, method, "DAFormer, MiT-B5"] for table in ("main", "ablation"))
        assert {name: main[name] for name in AVERAGES} == ablation


def test_every_number_says_where_it_is_from() -> None:
    for number in published.load_published("flexseg_aaai2026"):
        assert "2511.22948" in number.reference
        assert "FLEXSeg_project" in number.evidence or "Paper-Notes" in number.evidence
        assert "not read" in number.evidence
        assert number.protocol


def test_unknown_file_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv.*flexseg_aaai2026"):
        published.load_published("nowhere")


def test_columns_that_are_not_fixed_are_switches(tmp_path: Path) -> None:
    fixed = "table,method,trunk,source,target,miou,reference,evidence,protocol"
    (tmp_path / "own.csv").write_text(f"{fixed},mixup,anneal\nmain,M,T,S,CS,40.0,R,E,P,1,0\nmain,N,T,S,CS,39,R,E,P,,\n")
    first, second = published.load_published("own", tmp_path)
    assert (first.switches, first.miou) == ({"mixup": True, "anneal": False}, 40.0)
    assert second.switches == {}
