"""Checking benchmarks before any work: every benchmark here, and rows that cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexseg.benchmark import Benchmark, Row, benchmark_names, load_benchmark, select_rows

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", benchmark_names(ROOT / "benchmarks"))
def test_every_benchmark_here_loads_and_its_rows_are_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flexseg.tasks.check import check_benchmark

    monkeypatch.setattr("flexseg.tasks.needs.memory_there", lambda: 10**12)  # as on a machine that it is meant for
    benchmark = load_benchmark(name, ROOT / "benchmarks")
    lines = check_benchmark(benchmark)
    assert lines[-1].startswith(f"{name}: {len(benchmark.rows)} rows")
    others = [line for line in lines[:-1] if "will be shown as not run" not in line]  # waits for an optional package
    assert others == [], "a method file is broken"
    for study in benchmark.studies:
        assert list(select_rows(benchmark, study).rows) == benchmark.studies[study]


def test_check_goes_on_when_a_method_file_is_broken(smoke: Benchmark, tmp_path: Path) -> None:
    from flexseg.tasks.check import check_benchmark

    (tmp_path / "dginstyle.py").write_bytes((ROOT / "methods" / "dginstyle.py").read_bytes())
    (tmp_path / "flexseg.py").write_text("class FlexSeg(:\n")
    lines = check_benchmark(smoke.with_methods(tmp_path))
    assert "row flexseg will be shown as failed" in lines[0]
    assert "flexseg.py, line 1" in lines[0]
    assert "ready" in lines[-1]


def test_check_goes_on_where_a_package_is_missing(smoke: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows share a trunk that needs one; the trunk is tried once, and both rows have their line."""
    import flexseg.models
    from flexseg.errors import MissingExtra
    from flexseg.tasks.check import check_benchmark

    built = []

    def build(config: dict, pretrained: bool = True) -> object:
        built.append(config)
        if "detectron2" in config:
            raise MissingExtra("pip install nothing")
        return original(config, pretrained)

    original = flexseg.models.build_segmentor
    monkeypatch.setattr(flexseg.models, "build_segmentor", build)
    own = {name: Row(method="dginstyle", title=name, model={"detectron2": {}}) for name in ("one", "two")}
    lines = check_benchmark(smoke.model_copy(update={"rows": smoke.rows | own}))
    assert lines[:-1] == [f"row {name} will be shown as not run: pip install nothing" for name in ("one", "two")]
    assert len(built) == 2


def test_check_builds_every_methods_model(smoke: Benchmark, tmp_path: Path) -> None:
    """A method that cannot build its model costs its own row alone, and is named before any work."""
    from flexseg.tasks.check import check_benchmark

    for name in ("dginstyle", "flexseg"):
        (tmp_path / f"{name}.py").write_bytes((ROOT / "methods" / f"{name}.py").read_bytes())
    (tmp_path / "odd.py").write_text(
        "from flexseg.method import Method\n\n\nclass Odd(Method):\n    name = 'odd'\n    title = 'Odd'\n\n"
        "    def build_model(self, config):\n"
        "        return super().build_model({**config, 'decode_head': {**config['decode_head'], 'channells': 2}})\n"
    )
    benchmark = smoke.model_copy(update={"rows": smoke.rows | {"odd": Row(method="odd", title="Odd")}})
    lines = check_benchmark(benchmark.with_methods(tmp_path))
    assert len(lines) == 2
    assert lines[0].startswith("row odd will be shown as failed: decode_head: FCNHead takes no 'channells'")
