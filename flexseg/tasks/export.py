"""Export a trained run to mmsegmentation: a configuration and a checkpoint, for ``mmseg.apis``.

A trunk can be exported if mmseg's registry can build it, with our registered heads if need be: that of every method
that changes the training alone. Methods that change the network itself cannot be written as a configuration and are
refused: blindnet, fada, ibn_net, iternorm, lora, mrfp, rein, robustnet, san_saw, set_tokens, soma, spc,
switchable_whitening; likewise detectron2's trunks.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flexseg.benchmark import Benchmark, Protocol, Run, Size
from flexseg.benchmark.identity import RunDirectory
from flexseg.benchmark.schedule import Fit
from flexseg.classes import CITYSCAPES, IGNORE, ClassSet
from flexseg.errors import UserError, did_you_mean
from flexseg.files import DiskError, disk_errors, read_json, replacing
from flexseg.tasks.jobs import load_trained

WIDTH = 110
"""Columns of a configuration's lines, where they can be broken."""
TOLERANCE = 1e-4
"""How much the exported network's logits may differ from the suite's, relative to the largest: rounding."""


def parse_run(words: Sequence[str], load: Callable[[str, str], Benchmark], results: Path) -> tuple[Run, list[str]]:
    """The run that the first words name, ``BENCHMARK ROW SEED`` or a run's directory, and the remaining words.

    Args:
        load: loads a benchmark by its name, for a row.

    Raises:
        UserError: they name no run, or the directory holds no finished run.
    """
    place = Path(words[0]) if words else Path()
    if words and place.is_dir():
        directory = RunDirectory(place)
        if not (directory.record.is_file() and directory.weights.is_file()):
            raise UserError(
                f"{place} holds no finished run: a run's directory is results/<benchmark>/<row>/seed-<n>, with "
                f"{directory.record.name} and {directory.weights.name}"
            )
        known = read_json(directory.record)["definition"]
        benchmark = load(known["benchmark"], known["row"])
        return Run(benchmark, known["row"], known["seed"], results, place), list(words[1:])
    if len(words) < 3 or not words[2].isdecimal():
        raise UserError(
            f"{' '.join(words) or 'nothing'} names no run: give benchmark, row and seed (streetworld flexseg 0), or a "
            "run's directory (results/streetworld/flexseg/seed-0)"
        )
    return Run(load(words[0], words[1]), words[1], int(words[2]), results), list(words[3:])


def check_target(benchmark: Benchmark, target: str) -> None:
    """Check that ``target`` is a target of the benchmark, or empty.

    Raises:
        UserError: it is not; suggests the nearest one.
    """
    if target and target not in benchmark.targets:
        hint = did_you_mean(target, benchmark.targets)
        raise UserError(f"{benchmark.name} has no target {target!r}{hint}. Targets: {', '.join(benchmark.targets)}")


def at_training_scale(run: Run, target: str = "") -> Protocol:
    """The protocol for images that are none of the benchmark's: shown at the scale at which the run was trained.

    A network trained on small images mistakes large ones. Where the protocol gives its test images (those of
    ``target``) no size, because they have that of the training images, others are brought to it: to the height of the
    street world's images, or to the size to which the training images were resized.
    """
    benchmark = run.benchmark
    protocol, rule = benchmark.protocol, benchmark.protocol.size_of(target)
    if rule.fit is not None or rule.height is not None:
        return protocol
    resize = benchmark.domains[benchmark.source].resize or benchmark.training_of(run.row).resize
    if isinstance(resize, Fit):
        size = Size(fit=resize.fit)
    elif resize is not None:
        size = Size(height=resize[0])
    elif benchmark.world is not None and benchmark.domains[benchmark.source].rendered:
        size = Size(height=benchmark.world.height)
    else:
        return protocol
    return protocol.model_copy(update={"size": size, "sizes": None})


def describe_scale(size: Size) -> str:
    """In words, how large images are shown to a network."""
    if size.fit is not None:
        return f"as large as fits into {size.fit[0]}×{size.fit[1]} pixels"
    return "in their own size" if size.height is None else f"{size.height} pixels high"


def export_run(run: Run, output: Path, *, target: str = "") -> tuple[Path, Path]:
    """Write a run's mmseg configuration and checkpoint into ``output``; return their paths.

    ``mmseg.apis.init_model`` loads them, and ``inference_model`` predicts what the suite does, apart from classes whose
    logits tie within rounding. Before anything is written, the exported network is compared with the trained one.

    Args:
        target: use the size of this target's test images in the pipeline; by default that of all targets.

    Raises:
        UserError: the run is not finished, there is no such target, or mmseg cannot build this trunk.
    """
    import torch

    run.require_trained()
    benchmark, method = run.benchmark, run.benchmark.row(run.row).method
    check_target(benchmark, target)
    model = load_trained(run)
    description = mmseg_description(benchmark.model_of(run.row), model, method)
    config = mmseg_config(description, at_training_scale(run, target), target, benchmark.class_set)
    check_same(model, config["model"], method)
    name = f"{run.row}_seed{run.seed}"
    paths = output / f"{name}{'_' if target else ''}{target}.py", output / f"{name}.pth"
    facts = {"benchmark": benchmark.trained_as, "row": run.row, "seed": run.seed, "fingerprint": run.fingerprint}
    checkpoint = {
        "meta": {"dataset_meta": config["metainfo"], "flexseg": facts},
        "state_dict": {key: value.contiguous().clone() for key, value in model.state_dict().items()},
    }
    with disk_errors(output):
        with replacing(paths[1]) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # its writer says no more of a full disk
                raise DiskError(f"{paths[1]}: cannot be written whole: is the disk full?") from error
        with replacing(paths[0]) as temporary:
            heading = _format_heading(benchmark, facts, target, paths)
            temporary.write_text(heading + python_source(config), encoding="utf-8")
    return paths


def mmseg_description(trunk: Mapping[str, Any], model: Any, method: str) -> dict[str, Any]:
    """Describe a trunk of a benchmark file as a ``model`` of mmseg, without preprocessor and test settings.

    Raises:
        UserError: it is one of detectron2's.
    """
    from flexseg.models.build import describe
    from flexseg.models.detectron2 import Detectron2Segmentor

    if isinstance(model, Detectron2Segmentor):
        raise UserError(f"{method}: the trunk is one of detectron2's, which mmseg cannot build: it cannot be exported")
    description = describe(trunk)
    if description["type"] == "EncoderDecoder" and model.size_divisor > 1:
        description["type"] = "PaddedEncoderDecoder"
    return description


def mmseg_config(
    description: Mapping[str, Any], protocol: Protocol, target: str = "", classes: ClassSet = CITYSCAPES
) -> dict[str, Any]:
    """The variables of an mmseg configuration, in their order: imports, model, test pipeline, classes."""
    from flexseg.data.transforms import MEAN, STD

    sliding = {"mode": "slide", "crop_size": protocol.window, "stride": protocol.stride}
    preprocessor = {
        "type": "SegDataPreProcessor",
        "mean": [round(float(value), 3) for value in MEAN],
        "std": [round(float(value), 3) for value in STD],
        "bgr_to_rgb": True,
        "pad_val": 0,
        "seg_pad_val": IGNORE,
    }
    model = {
        "type": description["type"],
        "data_preprocessor": preprocessor,
        **{key: value for key, value in description.items() if key != "type"},
        "train_cfg": {},
        "test_cfg": sliding if protocol.inference == "slide" else {"mode": "whole"},
    }
    # As the suite decodes: Pillow, which differs from OpenCV where an image is transparent or unusual.
    load = {"type": "LoadImageFromFile", "imdecode_backend": "pillow"}
    pipeline = [load, *_resize_transforms(protocol.size_of(target)), {"type": "PackSegInputs"}]
    imports = _imports([model, *pipeline])
    return {
        "default_scope": "mmseg",
        **({"custom_imports": {"imports": imports}} if imports else {}),
        "model": model,
        "test_pipeline": pipeline,
        "metainfo": {
            "classes": [each.name for each in classes.classes],
            "palette": [list(each.colour) for each in classes.classes],
        },
    }


def _resize_transforms(size: Size) -> list[dict[str, Any]]:
    """The transforms that bring a test image to its size: mmcv's if it has one that does the same."""
    changes = size.model_dump(exclude_defaults=True)
    if set(changes) == {"fit"}:
        return [{"type": "Resize", "scale": changes["fit"][::-1], "keep_ratio": True}]
    return [{"type": "ProtocolSize", **changes}] if set(changes) - {"labels"} else []


def _imports(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The modules of ours that register what ``parts`` name."""
    from mmseg.registry import TRANSFORMS

    from flexseg.models.description import walk
    from flexseg.models.registry import MODELS
    from flexseg.tasks import mmseg_parts  # noqa: F401  (registers its classes)

    named = {value for where, value in walk(parts) if where.rpartition(".")[2] == "type"}
    found = [MODELS.module_dict.get(name) or TRANSFORMS.module_dict.get(name) for name in named]
    return sorted({cls.__module__ for cls in found if cls is not None and cls.__module__.startswith("flexseg.")})


def check_same(model: Any, description: Mapping[str, Any], method: str) -> None:
    """Check that mmseg's model of ``description``, given the weights of ``model``, computes what ``model`` does.

    Modules are compared by name and type, then the logits of one small image of noise.

    Raises:
        UserError: it does not; names the first modules that differ, or the distance.
    """
    import copy

    import torch

    from flexseg.models.registry import MODELS, building

    with building():
        theirs: Any = MODELS.build(copy.deepcopy(dict(description)))
    ours, built = _modules(model), _modules(theirs)
    other = [name for name in built | ours if ours.get(name) is not built.get(name)]
    if other:
        listed = [
            f"{name} is {_type_name(ours.get(name))} instead of {_type_name(built.get(name))}" for name in other[:3]
        ]
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise UserError(
            f"{method} changes the network itself ({'; '.join(listed)}{more}), which an mmseg configuration cannot "
            "express: only rows whose method trains the benchmark's trunk as it is can be exported"
        )
    theirs.load_state_dict(model.state_dict())
    image = torch.randn(1, 3, 129, 193, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = model.eval().predict(image)
        found = theirs.eval().encode_decode(image, [{"img_shape": image.shape[2:]}])
    distance = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
    if not distance <= TOLERANCE:
        raise UserError(
            f"{method}: mmseg's model of this trunk gives other logits (by {distance:.2g} of the largest): the method "
            "changes what the network computes, so the run cannot be exported"
        )


def _modules(model: Any) -> dict[str, type]:
    """The types of a model's modules by name, without the model itself and mmseg's preprocessor."""
    found = {name: type(module) for name, module in model.named_modules()}
    return {name: kind for name, kind in found.items() if name and name.partition(".")[0] != "data_preprocessor"}


def _type_name(cls: type | None) -> str:
    return "missing" if cls is None else cls.__name__


def _format_heading(benchmark: Benchmark, facts: Mapping[str, Any], target: str, paths: tuple[Path, Path]) -> str:
    protocol = benchmark.protocol
    lines = [
        f"{benchmark.row(facts['row']).title}, seed {facts['seed']}, of the benchmark {facts['benchmark']} (run "
        f"{facts['fingerprint']}).",
        f"Written by `flexseg export` for the protocol {protocol.id}{f', target {target}' if target else ''}.",
        "",
        "    from mmseg.apis import inference_model, init_model",
        f"    model = init_model({paths[0].name!r}, {paths[1].name!r}, device='cpu')",
        "    train_ids = inference_model(model, 'image.png').pred_sem_seg.data[0]  # (H, W)",
    ]
    if protocol.sizes and not target:
        lines += ["", f"Test images of {', '.join(protocol.sizes)} have a size of their own: export with --target."]
    if protocol.classes:
        lines += ["", f"The suite then merges the classes to those of {protocol.classes}."]
    return "\n".join(f"# {line}".rstrip() for line in lines) + "\n\n"


def python_source(variables: Mapping[str, Any]) -> str:
    """Assignments in the style of mmseg's configurations: ``dict(key=value)``, one entry per line if it is long."""
    return "\n".join(f"{name} = {_format_value(value, len(name) + 3)}\n" for name, value in variables.items())


def _format_value(value: Any, column: int = 0, indent: int = 0) -> str:
    """``value`` as Python, on one line if it fits after ``column``."""
    if not isinstance(value, Mapping | list | tuple):
        return repr(value)
    if isinstance(value, Mapping):
        named = all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
        opening, closing = ("dict(", ")") if named else ("{", "}")
        entries = [(f"{key}=" if named else f"{key!r}: ", item) for key, item in value.items()]
    else:
        opening, closing = "[]" if isinstance(value, list) else "()"
        entries = [("", item) for item in value]
    flat = ", ".join(lead + _format_value(item, -(10**6)) for lead, item in entries)
    if isinstance(value, tuple) and len(value) == 1:
        flat += ","
    if column + len(opening) + len(flat) + len(closing) <= WIDTH:
        return opening + flat + closing
    inner = indent + 4
    lines = [f"{' ' * inner}{lead}{_format_value(item, inner + len(lead) + 1, inner)}," for lead, item in entries]
    return "\n".join([opening, *lines, " " * indent + closing])
