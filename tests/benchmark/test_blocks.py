"""Data sets in benchmark files, protocols with sizes and windows, recipes, and benchmarks that extend each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flexseg.benchmark import Benchmark, SetDomain, WorldDomain, fingerprint, load_benchmark
from flexseg.benchmark.reading import read_content
from flexseg.errors import UserError

Content = dict[str, Any]
Write = Callable[..., Benchmark]
ROOT = Path(__file__).parents[2]
METHOD = ROOT / "methods" / "dginstyle.py"


@pytest.fixture
def write(tmp_path: Path, smoke_content: Callable[[], Content]) -> Write:
    """``write(name, **keys)``: smoke with these top-level keys changed, loaded under that name."""

    def written(name: str = "mine", **keys: Any) -> Benchmark:
        content = smoke_content() | keys
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_benchmark(name, tmp_path)

    return written


@pytest.fixture
def extend(tmp_path: Path) -> Callable[..., Benchmark]:
    """``extend(name, **keys)``: a file of just these keys, loaded."""

    def written(name: str, **keys: Any) -> Benchmark:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(keys))
        return load_benchmark(name, tmp_path)

    return written


def with_set(content: Content, **keys: Any) -> Content:
    return content["domains"] | {"night": {"dataset": "dark_zurich", "test": "val", **keys}}


def test_a_data_set_is_a_domain_and_a_split_may_be_part_of_it(write: Write, smoke_content: Any) -> None:
    domains = with_set(smoke_content()) | {"gta5": {"dataset": "gta5", "train": {"split": "all", "images": 7}}}
    benchmark = write(domains=domains, source="gta5")
    night, gta5 = benchmark.domains["night"], benchmark.domains["gta5"]
    assert isinstance(night, SetDomain)
    assert isinstance(gta5, SetDomain)
    assert isinstance(benchmark.domains["mixed"], WorldDomain)
    assert (night.has("test"), night.has("train"), night.size("test")) == (True, False, None)
    assert (gta5.size("train"), gta5.size("test")) == (7, 0)


def test_where_a_data_set_lies_is_no_part_of_its_definition_and_what_is_taken_of_it_is(
    write: Write, smoke_content: Any
) -> None:
    content = smoke_content()
    plain = write(domains=with_set(content))
    moved = write(domains=with_set(content, root="elsewhere"), data_root="/data")
    assert moved.domain_definition("night") == plain.domain_definition("night")
    for keys in ({"skip": ["x"]}, {"label_map": "other"}, {"conditions": ["night"]}, {"test": "train"}):
        other = write(domains=with_set(content, **keys))
        assert other.domain_definition("night") != plain.domain_definition("night"), keys


@pytest.mark.parametrize(
    ("domain", "place"),
    [
        ({"dataset": "dark_zurich", "tset": "val"}, "domains.night.tset: unknown key (did you mean 'test'?)"),
        ({"dataset": "dark_zurich", "test": {"split": "val", "image": 3}}, "domains.night.test.image: unknown key"),
        ({"dataset": "dark_zurich", "test": {"split": "val", "images": 0}}, "domains.night.test.images"),
        ({"dataset": "dark_zurich"}, "domains.night.test: a target without images"),
        ({"world": "night", "tset": 4}, "domains.night.tset: unknown key (did you mean 'test'?)"),
        ({"world": "night", "test": 4, "skip": ["x"]}, "domains.night.skip: unknown key"),
        ({"dataset": "dark_zurich", "test": "val", "misalignment": 1}, "domains.night.misalignment: unknown key"),
    ],
)
def test_mistakes_in_a_domain_are_named(write: Write, smoke_content: Any, domain: Content, place: str) -> None:
    with pytest.raises(UserError) as error:
        write(domains=smoke_content()["domains"] | {"night": domain})
    assert place in str(error.value)


def test_rendered_domains_need_the_world(write: Write) -> None:
    with pytest.raises(UserError, match=r"domains\.source: the street world renders it, so `world:`"):
        write(world=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inference": "slide"}, "slide needs a window and a stride"),
        ({"inference": "slide", "window": [32, 32], "stride": [32, 48]}, "larger than the window"),
        ({"window": [32, 32]}, "belong to inference: slide"),
        ({"size": {"fit": [512, 1024], "height": 3}}, "two rules for one size"),
        ({"size": {"crop": [512, 512]}}, "crop needs labels: true"),
        ({"classes": "camvid12"}, "no class set is named 'camvid12' (did you mean 'camvid11'?)"),
        ({"sizes": {"nigth": {"height": 30}}}, "'nigth' is no target (did you mean 'night'?)"),
    ],
)
def test_mistakes_in_a_protocol(write: Write, smoke_content: Any, change: Content, message: str) -> None:
    with pytest.raises(UserError) as error:
        write(protocol=smoke_content()["protocol"] | change)
    assert message in str(error.value)


def test_a_target_may_have_a_size_of_its_own(write: Write, smoke_content: Any) -> None:
    sizes = {"size": {"fit": [512, 1024]}, "sizes": {"night": {"height": 30}}}
    protocol = write(protocol=smoke_content()["protocol"] | sizes).protocol
    assert (protocol.size_of("night").height, protocol.size_of("mixed").fit) == (30, (512, 1024))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"momentum": 0.9}, "momentum belongs to optimizer: sgd"),
        ({"accumulate": 3}, "3 parts of a batch of 4 are not even"),
        ({"sampling": {"kind": "rare_classes", "temprature": 1}}, "training.sampling.temprature: unknown key (did you"),
        ({"sampling": {"kind": "rarest"}}, "training.sampling"),
        ({"sampling": {"kind": "rare_classes", "temperature": 0}}, "training.sampling.temperature"),
        ({"feature_distance": {"classes": ["cars"]}}, "there is no class 'cars' (did you mean 'car'?)"),
        ({"feature_distance": {"classes": []}}, "classes: name a class"),
        ({"feature_distance": {"weight": -1}}, "training.feature_distance.weight"),
        ({"feature_distance": {"cell_share": 0.5}}, "training.feature_distance.cell_share"),
        ({"mix": [0, 0]}, "mix: source and generated images cannot both have the share 0"),
        ({"mix": [1, -1]}, "training.mix.1"),
    ],
)
def test_mistakes_in_a_recipe(write: Write, smoke_content: Any, change: Content, message: str) -> None:
    with pytest.raises(UserError) as error:
        write(training=smoke_content()["training"] | change)
    assert message in str(error.value)


def test_what_a_recipe_leaves_out_is_no_part_of_the_definition(write: Write, smoke_content: Any) -> None:
    definition = write().run_definition("dginstyle", 0)["training"]
    assert not {"resize", "optimizer", "momentum", "accumulate", "mix", "sampling", "photometric"} & definition.keys()
    changed = write(training=smoke_content()["training"] | {"mix": [1, 1]}).run_definition("dginstyle", 0)
    assert changed["training"]["mix"] == [1, 1]


def test_a_benchmark_extends_another_key_by_key(write: Write, extend: Callable[..., Benchmark]) -> None:
    base = write("base")
    found = extend("more", extends="base", title="More", rows={"extra": {"method": "dginstyle", "title": "Extra"}})
    assert (found.title, list(found.rows)) == ("More", [*base.rows, "extra"])
    assert found.training == base.training
    assert found.run_definition("dginstyle", 0)["benchmark"] == "more"


BASE: Content = {
    "title": "Base",
    "seeds": [0, 1],
    "model": {
        "backbone": {"type": "UNet", "base_channels": 8, "norm_cfg": {"type": "BN", "eps": 0.1}},
        "decode_head": {"type": "FCNHead", "in_channels": 8},
    },
    "domains": {"a": {"world": "source", "train": 3}, "b": {"dataset": "acdc", "test": "val"}},
    "training": {"iterations": 9, "sampling": {"kind": "rare_classes", "min_pixels": 30}},
    "rows": {
        "plain": {"method": "dginstyle", "training": {"iterations": 5}},
        "full": {"method": "flexseg", "gap": False},
    },
}


@pytest.mark.parametrize(
    ("key", "change", "wanted"),
    [
        ("title", "Mine", "Mine"),
        ("seeds", [7], [7]),
        ("training", {"iterations": 2}, BASE["training"] | {"iterations": 2}),
        ("training", {"sampling": {"min_pixels": 1}}, {
            "iterations": 9, "sampling": {"kind": "rare_classes", "min_pixels": 1}}),
        ("training", {"sampling": {"kind": "class_uniform"}}, {"iterations": 9, "sampling": {"kind": "class_uniform"}}),
        ("training", {"sampling": None}, {"iterations": 9}),
        ("training", {"mix": None}, BASE["training"] | {"mix": None}),
        ("training", None, "<gone>"),
        (
            "model",
            {"backbone": {"base_channels": 4, "norm_cfg": {"eps": 0.2}}},
            BASE["model"] | {"backbone": {"type": "UNet", "base_channels": 4, "norm_cfg": {"type": "BN", "eps": 0.2}}},
        ),
        ("model", {"backbone": {"type": "UNet", "depth": 2}}, BASE["model"] | {
            "backbone": BASE["model"]["backbone"] | {"depth": 2}}),
        ("model", {"backbone": {"type": "MiT", "depth": 2}}, BASE["model"] | {"backbone": {"type": "MiT", "depth": 2}}),
        ("model", {"detectron2": {"MODEL": {}}}, {"detectron2": {"MODEL": {}}}),
        ("domains", {"a": {"train": 4}}, BASE["domains"] | {"a": {"world": "source", "train": 4}}),
        ("domains", {"a": {"dataset": "gta5"}, "b": None}, {"a": {"dataset": "gta5"}}),
        ("rows", {"full": {"ube": False}}, BASE["rows"] | {"full": {"method": "flexseg", "gap": False, "ube": False}}),
        ("rows", {"full": {"gap": None}}, BASE["rows"] | {"full": {"method": "flexseg"}}),
        ("rows", {"full": {"extends": "plain"}}, BASE["rows"] | {"full": {"extends": "plain"}}),
        ("rows", {"plain": {"training": {"mix": None}}}, BASE["rows"] | {
            "plain": {"method": "dginstyle", "training": {"iterations": 5, "mix": None}}}),
        ("rows", {"type": {"method": "x"}}, BASE["rows"] | {"type": {"method": "x"}}),
    ],
)  # fmt: skip
def test_what_a_benchmark_says_is_merged_into_what_it_extends(
    tmp_path: Path, key: str, change: Any, wanted: Any
) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"extends": "base", key: change}))
    found = read_content("more", tmp_path)
    assert found.pop("extends") == "base"
    assert found.pop(key, "<gone>") == wanted
    assert found == {name: value for name, value in BASE.items() if name != key}


def test_a_trunk_of_detectron2_is_merged_with_one_and_replaced_by_others(tmp_path: Path) -> None:
    trunk = {"detectron2": {"MODEL": {"FPN": {"NORM": "BN", "OUT_CHANNELS": 8}}}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"model": trunk}))
    merged = {"detectron2": {"MODEL": {"FPN": {"NORM": "GN", "OUT_CHANNELS": 8}}}}
    changes = (({"detectron2": {"MODEL": {"FPN": {"NORM": "GN"}}}}, merged), (BASE["model"], BASE["model"]))
    for change, wanted in changes:
        (tmp_path / "more.yaml").write_text(yaml.safe_dump({"extends": "base", "model": change}))
        assert read_content("more", tmp_path)["model"] == wanted


def test_another_protocol_has_another_id(write: Write, extend: Callable[..., Benchmark]) -> None:
    base = write("base")
    assert (
        extend("same", extends="base", protocol={"boundary_band": base.protocol.boundary_band}).protocol
        == base.protocol
    )
    found = extend("wider", extends="base", protocol={"id": "wider-v1", "boundary_band": 4}).protocol
    assert found == base.protocol.model_copy(update={"id": "wider-v1", "boundary_band": 4})
    with pytest.raises(
        UserError, match=r"wider\.yaml: protocol differs from that of base and so needs an id of its own"
    ):
        extend("wider", extends="base", protocol={"boundary_band": 4})


def test_a_benchmark_is_not_named_as_a_folder_of_the_suite(write: Write) -> None:
    with pytest.raises(UserError, match="results/frames/ or reports/frames/ is a folder of the suite"):
        write("frames")


def test_circles_of_extension_are_named(extend: Callable[..., Benchmark], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    with pytest.raises(UserError, match="b → a → b"):
        extend("b", extends="a")


def test_evaluating_the_runs_of_another_benchmark_defines_the_same_runs(
    write: Write, extend: Callable[..., Benchmark]
) -> None:
    base = write("base")
    averages = {"Avg2": None, "Avg3": None, "Avg5": None, "Mean": ["night"]}
    other = extend("other", extends="base", runs="base", targets=["night"], averages=averages)
    assert list(other.averages) == ["Mean"]
    assert fingerprint(other.run_definition("flexseg", 0)) == fingerprint(base.run_definition("flexseg", 0))
    assert other.evaluation_definition() != base.evaluation_definition()
