"""Benchmark files: what is right, what each mistake says, and what a fingerprint depends on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flexseg.benchmark import Benchmark, benchmark_names, fingerprint, load_benchmark
from flexseg.errors import UserError

ROOT = Path(__file__).parents[2]
Content = dict[str, Any]


@pytest.fixture
def load(tmp_path: Path, smoke_content: Callable[[], Content]) -> Callable[..., Benchmark]:
    """``load(edit)``: the smoke benchmark after ``edit(content)`` changed its YAML."""

    def loaded(edit: Callable[[Content], Any] = lambda content: None) -> Benchmark:
        content = smoke_content()
        edit(content)
        (tmp_path / "edited.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_benchmark("edited", tmp_path)

    return loaded


def put(*keys: str, value: Any) -> Callable[[Content], None]:
    """An edit that sets ``content[keys[0]][keys[1]]…``."""

    def edit(content: Content) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return edit


def drop(*keys: str) -> Callable[[Content], None]:
    """An edit that removes a key."""

    def edit(content: Content) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return edit


def test_the_benchmarks_are_the_default_and_the_smoke_test() -> None:
    assert {"smoke", "streetworld"} <= set(benchmark_names(ROOT / "benchmarks"))


def test_reading_benchmarks_imports_no_torch() -> None:
    code = (
        "import sys; from flexseg.benchmark import load_benchmark, fingerprint; import flexseg.cli; "
        "b = load_benchmark('smoke'); fingerprint(b.domain_definition('source')); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'mmseg', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0, "flexseg.benchmark or flexseg.cli imports torch, mmseg or numpy"


def test_unknown_benchmark_names_the_nearest_and_all() -> None:
    with pytest.raises(UserError, match=r"no benchmark is named 'smok'.*did you mean 'smoke'.*streetworld"):
        load_benchmark("smok", ROOT / "benchmarks")


def test_no_benchmarks_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="top folder of the repository"):
        load_benchmark("smoke", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "not valid YAML"),
        ("- 1\n- 2\n", "is a mapping of keys, this is list"),
        ("", "is a mapping of keys, this is NoneType"),
    ],
)
def test_no_mapping(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_benchmark("odd", tmp_path)


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        (("titel",), "titel: unknown key (did you mean 'title'?)"),
        (("world", "heigth"), "world.heigth: unknown key (did you mean 'height'?)"),
        (("domains", "source", "trian"), "domains.source.trian: unknown key (did you mean 'train'?)"),
        (("protocol", "boundary_widht"), "protocol.boundary_widht: unknown key (did you mean 'boundary_band'?)"),
        (("training", "iteration"), "training.iteration: unknown key (did you mean 'iterations'?)"),
        (("ablation", "pannels"), "ablation.pannels: unknown key (did you mean 'panels'?)"),
    ],
)
def test_unknown_key_is_named_with_its_place_and_the_nearest(
    load: Callable[..., Benchmark], keys: tuple[str, ...], hint: str
) -> None:
    with pytest.raises(UserError) as error:
        load(put(*keys, value=1))
    assert hint in str(error.value)
    assert "edited.yaml" in str(error.value)


def test_unknown_key_in_tuning(load: Callable[..., Benchmark]) -> None:
    tuning = {"row": "flexseg", "seeds": [9], "grid": {"alpha": [1.0]}, "gird": {}}
    with pytest.raises(UserError, match=r"tuning\.gird: unknown key \(did you mean 'grid'\?\)"):
        load(put("tuning", value=tuning))


@pytest.mark.parametrize(
    ("keys", "value", "place"),
    [
        (("training", "iterations"), "many", "training.iterations"),
        (("training", "iterations"), 0, "training.iterations"),
        (("training", "learning_rate"), -1.0, "training.learning_rate"),
        (("training", "crop"), [32], "training.crop"),
        (("training", "crop"), 32, "training.crop"),
        (("training", "ema"), 1.0, "training.ema"),
        (("training", "scale"), [1.5, 0.75], "training"),
        (("training", "warmup"), 12, "training"),
        (("seeds",), "zero", "seeds"),
        (("seeds",), [], "seeds"),
        (("seeds",), [1, 1], "a seed is named twice"),
        (("world", "height"), 8, "world.height"),
        (("protocol", "label_map"), "ade20k", "protocol.label_map"),
        (("protocol", "inference"), "sliding", "protocol.inference"),
        (("domains", "source"), 3, "domains.source"),
        (("rows",), {}, "rows"),
        (("rows", "dginstyle"), "plain", "rows.dginstyle"),
        (("targets",), [], "targets"),
        (("model",), "UNet", "model"),
    ],
)
def test_wrong_value_is_named_with_its_place(
    load: Callable[..., Benchmark], keys: tuple[str, ...], value: Any, place: str
) -> None:
    with pytest.raises(UserError) as error:
        load(put(*keys, value=value))
    assert place in str(error.value)


@pytest.mark.parametrize("key", ["title", "training", "rows", "seeds", "protocol", "studies", "reference"])
def test_missing_key_is_named(load: Callable[..., Benchmark], key: str) -> None:
    with pytest.raises(UserError, match=f"{key}: Field required"):
        load(drop(key))


def test_every_mistake_is_listed_at_once(load: Callable[..., Benchmark]) -> None:
    def edit(content: Content) -> None:
        content["training"]["iterations"] = "many"
        content["world"]["width"] = -4

    with pytest.raises(UserError) as error:
        load(edit)
    assert "training.iterations" in str(error.value)
    assert "world.width" in str(error.value)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("domains", "night", "test"), 0, "domains.night.test: a target without images"),
        (("domains", "source", "train"), 0, "domains.source.train: the source domain needs training images"),
        (("source",), "sauce", "source: no domain is named 'sauce' (did you mean 'source'?)"),
        (("generated",), "generate", "generated: no domain is named 'generate' (did you mean 'generated'?)"),
        (("targets",), ["nigth"], "targets: no domain is named 'nigth' (did you mean 'night'?)"),
        (("averages", "Avg2"), ["night", "source"], "averages.Avg2: 'source' is no target"),
        (("rows", "flexseg", "generated"), "gen", "rows.flexseg.generated: no domain is named 'gen'"),
        (("rows", "more"), {"extends": "flexsge"}, "rows.more.extends: no row is named 'flexsge' (did you mean"),
        (("rows", "more"), {"title": "More"}, "rows.more: give a method, or the row that it extends"),
        (("studies", "default"), ["dginstlye"], "studies.default: no row is named 'dginstlye' (did you mean"),
        (("studies",), {"other": ["flexseg"]}, "one study must be named 'default'"),
        (("reference",), "dgin", "reference: no row is named 'dgin'"),
        (("ablation", "none"), "nothing", "ablation: no row is named 'nothing'"),
        (("ablation", "aligned"), {"flexseg": "flexseg_aligned"}, "ablation: no row is named 'flexseg_aligned'"),
    ],
)
def test_unknown_reference_is_named(
    load: Callable[..., Benchmark], keys: tuple[str, ...], value: Any, message: str
) -> None:
    with pytest.raises(UserError) as error:
        load(put(*keys, value=value))
    assert message in str(error.value)


def test_tuning_may_not_look_at_a_seed_of_the_benchmark(load: Callable[..., Benchmark]) -> None:
    tuning = {"row": "flexseg", "seeds": [7, 0], "grid": {"alpha": [1.0, 2.0]}}
    with pytest.raises(UserError, match=r"tuning\.seeds: settings may not be chosen on a seed of the benchmark"):
        load(put("tuning", value=tuning))
    assert load(put("tuning", value=tuning | {"seeds": [7]})).tuning is not None
    with pytest.raises(UserError, match=r"tuning\.row: no row is named 'flex'"):
        load(put("tuning", value=tuning | {"seeds": [7], "row": "flex"}))


def test_tuning_trials_are_the_product_of_the_grid(load: Callable[..., Benchmark]) -> None:
    from flexseg.tasks.tune import trials

    grid = {"alpha": [1.0, 2.0, 3.0], "rings": ["label", "feature"]}
    found = trials(load(put("tuning", value={"row": "flexseg", "seeds": [7], "grid": grid})))
    assert len(found) == 6
    assert {(options["alpha"], options["rings"]) for options in found.values()} == {
        (alpha, rings) for alpha in grid["alpha"] for rings in grid["rings"]
    }
    with pytest.raises(UserError, match="no tuning block"):
        trials(load())


def test_extends_fills_in_what_is_not_said(load: Callable[..., Benchmark]) -> None:
    def edit(content: Content) -> None:
        content["domains"]["other"] = {"world": "generated", "train": 4}
        content["rows"] |= {
            "a": {"extends": "flexseg", "alpha": 2.0, "gap": False, "generated": "other", "tuned": True},
            "b": {"extends": "a", "title": "B", "gap": True},
            "c": {"extends": "b", "method": "dginstyle"},
        }

    benchmark = load(edit)
    b = benchmark.row("b")
    assert (b.method, b.title, b.generated, b.tuned, b.extends) == ("flexseg", "B", "other", True, "")
    assert b.options == {"alpha": 2.0, "gap": True}
    assert benchmark.row("a").options == {"alpha": 2.0, "gap": False}
    assert benchmark.row("a").title == "a", "a title is never inherited"
    assert benchmark.row("c").method == "dginstyle"
    assert benchmark.row("c").title == "c"
    assert benchmark.row("flexseg").options == {}


@pytest.mark.parametrize("circle", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_rows_that_extend_each_other_in_a_circle(load: Callable[..., Benchmark], circle: list[str]) -> None:
    def edit(content: Content) -> None:
        for name, base in zip(circle, [*circle[1:], circle[0]], strict=True):
            content["rows"][name] = {"extends": base}

    with pytest.raises(UserError, match="in a circle: a → "):
        load(edit)


def test_options_are_passed_as_written(load: Callable[..., Benchmark]) -> None:
    options = {"alpha": 1.5, "kernels": [3, 5], "has": False, "rings": "label", "unheard_of": {"x": 1}}
    row = load(put("rows", "flexseg", value={"method": "flexseg", "title": "F"} | options)).row("flexseg")
    assert row.options == options
    assert set(row.options).isdisjoint({"method", "extends", "title", "generated", "tuned"})


def name_of(benchmark: Benchmark, row: str = "flexseg", seed: int = 0, methods: Path = ROOT / "methods") -> str:
    return fingerprint(benchmark.with_methods(methods).run_definition(row, seed))


@pytest.mark.parametrize(
    "edit",
    [
        put("rows", "flexseg", "alpha", value=2.0),
        put("rows", "flexseg", "gap", value=True),
        put("rows", "flexseg", "method", value="boundary_policy"),
        put("training", "iterations", value=13),
        put("training", "learning_rate", value=0.0031),
        put("training", "crop", value=[32, 48]),
        put("training", "scale", value=[1.0, 1.0]),
        put("training", "ema", value=0.0),
        put("model", "backbone", "base_channels", value=8),
        put("model", "decode_head", "channels", value=16),
        put("world", "height", value=64),
        put("world", "version", value=2),
        put("domains", "source", "train", value=13),
        put("domains", "source", "val", value=5),
        put("domains", "generated", "misalignment", value=0.5),
        put("domains", "generated", "world", value="source"),
    ],
)
def test_fingerprint_changes_with_all_that_decides_the_weights(
    load: Callable[..., Benchmark], edit: Callable[[Content], None]
) -> None:
    assert name_of(load(edit)) != name_of(load())


def test_fingerprint_changes_with_seed_row_method_file_and_generated_domain(
    load: Callable[..., Benchmark], tmp_path: Path
) -> None:
    benchmark = load()
    plain = name_of(benchmark)
    assert name_of(benchmark, seed=1) != plain
    assert name_of(benchmark, row="dginstyle") != plain
    copy = tmp_path / "methods"
    copy.mkdir()
    content = (ROOT / "methods" / "flexseg.py").read_bytes()
    (copy / "flexseg.py").write_bytes(content)
    assert name_of(benchmark, methods=copy) == plain, "the folder's name must not matter"
    (copy / "flexseg.py").write_bytes(content + b"\n# A comment.\n")
    assert name_of(benchmark, methods=copy) == plain, "it trains as before"
    (copy / "flexseg.py").write_bytes(content + b"\nODD = 1\n")
    assert name_of(benchmark, methods=copy) != plain

    def aligned(content: Content) -> None:
        content["domains"]["aligned"] = content["domains"]["generated"] | {"misalignment": 0.0}
        content["rows"]["flexseg"]["generated"] = "aligned"

    assert name_of(load(aligned)) != plain


@pytest.mark.parametrize(
    "edit",
    [
        put("title", value="Another title"),
        put("description", value="Other words"),
        put("seeds", value=[0, 1, 2]),
        put("rows", "more", value={"extends": "flexseg", "alpha": 1.0}),
        put("rows", "dginstyle", "title", value="Baseline"),
        put("rows", "flexseg", "title", value="Ours"),
        put("rows", "flexseg", "tuned", value=True),
        put("domains", "source", "title", value="The source"),
        put("domains", "night", "test", value=7),
        put("domains", "night", "analogue_of", value="Dark Zurich"),
        put("protocol", "boundary_band", value=3),
        put("predictions", value=2),
        put("published", value=[]),
        put("reference", value="flexseg"),
        put("averages", value={"Avg5": ["night"]}),
    ],
)
def test_fingerprint_ignores_what_cannot_change_the_weights(
    load: Callable[..., Benchmark], edit: Callable[[Content], None]
) -> None:
    assert name_of(load(edit)) == name_of(load())


def test_a_row_that_extends_has_the_fingerprint_of_what_it_resolves_to(load: Callable[..., Benchmark]) -> None:
    extended = load(put("rows", "more", value={"extends": "flexseg", "alpha": 1.0}))
    written = load(put("rows", "more", value={"method": "flexseg", "alpha": 1.0}))
    assert name_of(extended, "more") == name_of(written, "more")


def test_evaluation_definition_changes_with_protocol_and_targets_only(load: Callable[..., Benchmark]) -> None:
    def name(edit: Callable[[Content], None] = lambda content: None) -> str:
        return fingerprint(load(edit).evaluation_definition())

    assert name(put("protocol", "boundary_band", value=3)) != name()
    assert name(put("domains", "night", "test", value=7)) != name()
    assert name(put("predictions", value=2)) != name()
    assert name(put("training", "iterations", value=20)) == name()
    assert name(put("domains", "source", "train", value=20)) == name()


def test_negative_seed_in_the_file(load: Callable[..., Benchmark]) -> None:
    with pytest.raises(UserError, match="seeds"):
        load(put("seeds", value=[-1]))


def test_check_names_every_wrong_option(load: Callable[..., Benchmark]) -> None:
    from flexseg.tasks.check import check_benchmark

    def edit(content: Content) -> None:
        content["rows"]["flexseg"]["alhpa"] = 1.0
        content["rows"]["dginstyle"]["alpha"] = 1.0

    with pytest.raises(UserError) as error:
        check_benchmark(load(edit).with_methods(ROOT / "methods"))
    assert "rows.flexseg: methods/flexseg.py has no option 'alhpa' (did you mean 'alpha'?)" in str(error.value)
    assert "rows.dginstyle: methods/dginstyle.py has no option 'alpha'" in str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("rows", "flexseg", "method", value="flexsge"), "no method is named 'flexsge'.*did you mean 'flexseg'"),
        (put("rows", "flexseg", "gap", value="perhaps"), "rows.flexseg: .*gap"),
        (put("rows", "flexseg", "rings", value="square"), "rows.flexseg: .*rings"),
        (put("world", "version", value=999), "version 999 of the street world"),
        (
            put("domains", "night", "world", value="nigth"),
            "domains.night.world: the street world has no domain 'nigth'",
        ),
        (put("model", "backbone", "type", value="UNett"), "UNett"),
        (put("model", "backbone", "base_chanels", value=4), "base_chanels"),
        (
            put("training", "crop", value=[32, 48]),
            "training.crop: the trunk of row dginstyle takes multiples of 32 pixels only",
        ),
    ],
)
def test_check_refuses_before_any_work(
    load: Callable[..., Benchmark], edit: Callable[[Content], None], message: str
) -> None:
    from flexseg.tasks.check import check_benchmark

    with pytest.raises(UserError, match=message):
        check_benchmark(load(edit).with_methods(ROOT / "methods"))
