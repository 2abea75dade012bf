"""Networks and predictions from elsewhere, as the evaluation takes them.

A checkpoint of mmsegmentation comes with its configuration; an exported network (TorchScript, ONNX) takes images as the
suite normalises them; predictions are label maps, named after the images. No pickled object is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from flexseg.benchmark import Run
from flexseg.classes import CITYSCAPES, ClassSet, Grouping
from flexseg.console import printable
from flexseg.data.images import decode_ids
from flexseg.data.index import Index
from flexseg.data.transforms import MEAN, STD
from flexseg.errors import MissingExtra, RunError, UserError, did_you_mean
from flexseg.files import file_stem

NAMED = 5
"""How many files a message names."""
ONNX = "pip install --no-deps -r requirements-onnx.lock, or pip install 'flexseg[onnx]'"


class ForeignNetwork(nn.Module):
    """A network from elsewhere behind the interface of the evaluation: ``predict`` gives logits of the suite's classes.

    Args:
        compute: makes logits (B, K, h, w) of images (B, 3, H, W) in its own normalisation.
        mean, std, bgr: that normalisation, in values from 0 to 255, and whether it takes blue first.
        groups: for each of the suite's classes, the network's that count as it; None if they are the same.
        divisor: images are padded to a multiple of this.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        compute: Callable[[Tensor], Tensor],
        *,
        mean: Sequence[float] = tuple(MEAN.tolist()),
        std: Sequence[float] = tuple(STD.tolist()),
        bgr: bool = False,
        groups: Sequence[Sequence[int]] | None = None,
        classes: int = 0,
        divisor: int = 1,
    ) -> None:
        super().__init__()
        self.compute = compute
        self.groups, self.classes, self.divisor, self.bgr = groups, classes, divisor, bgr
        ours = np.array([MEAN, STD], dtype=np.float64)
        theirs = np.array([mean, std], dtype=np.float64)[:, :: -1 if bgr else 1]  # in the order of ours
        self.same = bool(np.allclose(ours, theirs, rtol=0, atol=1e-3))
        scale, shift = ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32).view(1, 3, 1, 1))

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W) as the suite normalises them, at their size.

        Raises:
            RunError: the network gives something else than one map of its classes.
        """
        height, width = images.shape[2:]
        if not self.same:
            images = images * self.scale + self.shift
        if self.bgr:
            images = images.flip(1)
        below, right = -height % self.divisor, -width % self.divisor
        padded = pad(images, (0, right, 0, below), mode="replicate") if below or right else images
        logits = self.compute(padded)
        if isinstance(logits, tuple | list) and len(logits) == 1:
            logits = logits[0]
        if not isinstance(logits, Tensor) or logits.ndim != 4 or len(logits) != len(images):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise RunError(f"the network gives {found} instead of logits (B, C, h, w)")
        if self.groups is None and logits.shape[1] != self.classes:
            raise RunError(f"the network tells {logits.shape[1]} classes apart, and the benchmark {self.classes}")
        logits = logits.float()
        if logits.shape[2:] != padded.shape[2:]:
            logits = interpolate(logits, padded.shape[2:], mode="bilinear", align_corners=False)
        logits = logits[:, :, :height, :width]
        return logits if self.groups is None else self._merge(logits)

    def _merge(self, logits: Tensor) -> Tensor:
        """The logarithm of the sum of its members' probabilities for each class; very small where there is none."""
        log_p = logits.log_softmax(dim=1)
        least = torch.full_like(log_p[:, :1], -1e4)
        parts = [
            log_p[:, list(group)].logsumexp(dim=1, keepdim=True) if group else least for group in self.groups or ()
        ]
        return torch.cat(parts, dim=1)


def load_foreign(run: Run) -> ForeignNetwork:
    """Load the network of a row from elsewhere, in eval mode, on the CPU.

    Raises:
        RunError: its files are missing, hold other classes, or cannot be read; says which and why.
    """
    foreign, classes = run.foreign, run.benchmark.class_set
    assert foreign is not None
    if foreign.missing:
        raise RunError(foreign.missing)
    if foreign.kind == "checkpoint":
        assert foreign.config is not None
        return _load_mmseg(foreign.path, foreign.config, classes).eval()
    if foreign.path.suffix.lower() == ".onnx":
        return ForeignNetwork(_load_onnx(foreign.path), classes=len(classes)).eval()
    return ForeignNetwork(_load_torchscript(foreign.path), classes=len(classes)).eval()


def _load_mmseg(path: Path, config: Path, classes: ClassSet) -> ForeignNetwork:
    from mmengine.model import revert_sync_batchnorm

    from flexseg.models import daformer, deeplab, hrda  # noqa: F401  (register their heads)
    from flexseg.models.description import describe_error
    from flexseg.models.mmseg_config import import_trusted, read_config, take_weights
    from flexseg.models.registry import MODELS, building
    from flexseg.models.segmentor import size_divisor
    from flexseg.models.weights import read_checkpoint

    content = read_config(config)
    model = dict(content["model"])
    if content.get("custom_imports"):
        import_trusted(content["custom_imports"].get("imports", []), str(config))
    tensors, meta = read_checkpoint(path)
    take_weights(model)
    preprocessor = model.pop("data_preprocessor", None) or content.get("data_preprocessor") or {}
    try:
        with building():
            net: Any = revert_sync_batchnorm(MODELS.build(model | {"test_cfg": {"mode": "whole"}, "train_cfg": {}}))
    except Exception as error:
        raise RunError(f"{config}: its model cannot be built: {describe_error(error)}") from error
    known = tensors.keys()
    tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    own = net.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    missing = [key for key in own if key not in tensors and key not in counters]
    other = [key for key in own if key in tensors and tensors[key].shape != own[key].shape]
    further = [key for key in tensors if key not in own and not key.startswith(("data_preprocessor.", "teacher."))]
    if missing or other or further:
        parts = {"lacks": missing, "has in another size": other, "has beyond it": further}
        found = "; ".join(f"it {what} {len(keys)} ({', '.join(keys[:3])})" for what, keys in parts.items() if keys)
        raise RunError(f"{path} does not hold the weights of the model in {config}, of {len(known)} tensors: {found}")
    net.load_state_dict(tensors, strict=False)
    net.eval()
    heads: Any = net.decode_head
    head: Any = heads[-1] if isinstance(heads, nn.ModuleList) else heads
    groups = groups_of(_class_names(meta, content), int(head.num_classes), classes, path)

    def compute(images: Tensor) -> Tensor:
        shape = tuple(images.shape[2:])
        metas = [{"img_shape": shape, "ori_shape": shape, "pad_shape": shape, "padding_size": [0, 0, 0, 0]}] * len(
            images
        )
        return net.encode_decode(images, metas)

    made = ForeignNetwork(
        compute,
        # mmseg's own defaults: images as OpenCV decodes them, blue first, and not normalised.
        mean=preprocessor.get("mean") or [0.0] * 3,
        std=preprocessor.get("std") or [1.0] * 3,
        bgr=not preprocessor.get("bgr_to_rgb") and not preprocessor.get("rgb_to_bgr"),
        groups=groups,
        classes=len(classes),
        divisor=size_divisor(net.backbone),
    )
    made.net = net  # so that it moves to a device with it
    return made


def _class_names(meta: Mapping[str, Any], content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes that a checkpoint was trained on, as it or its configuration says; none if neither."""
    described = meta.get("dataset_meta") if isinstance(meta.get("dataset_meta"), Mapping) else {}
    places = (described.get("classes"), meta.get("CLASSES"), (content.get("metainfo") or {}).get("classes"))  # type: ignore[union-attr]
    for names in places:
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def groups_of(names: Sequence[str], count: int, classes: ClassSet, path: Path) -> list[list[int]] | None:
    """Which of a network's classes count as each of the suite's; None if they are the same ones in the same order.

    Classes are told by their names. Without names, as many as the suite's are taken to be these, and 19 to be
    Cityscapes'.

    Raises:
        RunError: they cannot be told, or a class of the suite is none of the network's.
    """
    if not names:
        if count == len(classes):
            return None
        if count != len(CITYSCAPES):
            raise RunError(
                f"{path} tells {count} classes apart and does not name them, and the benchmark has {len(classes)} "
                f"({classes.id}): name them in the checkpoint's meta or as metainfo in its configuration"
            )
        names = CITYSCAPES.names
    if len(names) != count:
        raise RunError(f"{path} names {len(names)} classes, and its head has {count}")
    if tuple(names) == classes.names:
        return None
    if unknown := [name for name in names if name not in classes.ids]:
        hint = did_you_mean(unknown[0], classes.ids)
        raise RunError(
            f"{path} was trained on other classes: {', '.join(unknown[:NAMED])} of its {count} are none of "
            f"{classes.id}{hint}. A benchmark may say what they count as, under `takes:` or `void:` of its classes"
        )
    groups = [
        [place for place, name in enumerate(names) if classes.ids[name] == wanted] for wanted in range(len(classes))
    ]
    if lacking := [name for name, group in zip(classes.names, groups, strict=True) if not group]:
        raise RunError(f"{path} was trained on other classes: nothing of it counts as {', '.join(lacking[:NAMED])}")
    return groups


def _load_torchscript(path: Path) -> Callable[[Tensor], Any]:
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"{path} cannot be read as TorchScript ({reason}): export the network with torch.jit.trace, save it with "
            "torch.jit.save, or as ONNX; a checkpoint of mmseg's needs its `config`"
        ) from error


def _load_onnx(path: Path) -> Callable[[Tensor], Any]:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra(f"{path} needs onnxruntime, which is not installed: {ONNX}") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds of errors
        raise RunError(f"{path} cannot be read as ONNX ({' '.join(str(error).split())[:200]})") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise RunError(f"{path} takes {len(inputs)} inputs, and an image is one")

    def compute(images: Tensor) -> Tensor:
        try:
            found = session.run(None, {inputs[0].name: images.float().cpu().contiguous().numpy()})
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{path} cannot take images of {tuple(images.shape)}: {reason}") from error
        return torch.from_numpy(found[0]).to(images.device)

    return compute


def find_predictions(folder: Path, target: str, index: Index) -> dict[str, Path]:
    """The label map of every test image of a target: image id → file; empty if the folder has nothing of the target.

    They are in ``<folder>/<target>/``, or in the folder itself if it has no folders, named after the image's id or its
    file, as PNG.

    Raises:
        RunError: some images have none; names the first.
    """
    own = folder / target
    place = own if own.is_dir() else folder if not any(path.is_dir() for path in folder.iterdir()) else None
    if place is None:
        return {}
    there = {path.relative_to(place).as_posix(): path for path in place.rglob("*.png")}
    rows = index.split("test")
    found, missing = {}, []
    for row in rows.itertuples():
        name = str(row.id)
        forms = (f"{name}.png", f"{file_stem(name)}.png", f"{Path(row.image).stem}.png")
        path = next((there[form] for form in forms if form in there), None)
        if path is None:
            missing.append(name)
        else:
            found[name] = path
    if missing:
        example = f"{missing[0]}.png"
        near = did_you_mean(example, there)
        shown = ", ".join(printable(name) for name in missing[:NAMED])
        raise RunError(
            f"{place} has no prediction of {len(missing)} of {len(rows)} images of {target}: {shown}"
            f"{', …' if len(missing) > NAMED else ''}. Name each file after its image's id, such as {example}{near}"
        )
    return found


def read_prediction(path: Path, shape: tuple[int, int], scored: Grouping) -> np.ndarray:
    """Read a predicted label map: (H, W) uint8 of trainIds, merged as the protocol scores them.

    Raises:
        RunError: it is no such picture, has another size than its label, or an id that is no class.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror})") from error
    try:
        label = decode_ids(path, content)
    except UserError as error:
        raise RunError(str(error)) from error
    if label.shape != shape:
        raise RunError(
            f"{path} is {label.shape[0]}×{label.shape[1]} pixels, and its label {shape[0]}×{shape[1]}: a prediction is "
            "compared at the size of the label"
        )
    count = len(scored.classes)
    if (label >= count).any():
        wrong = np.unique(label[label >= count])
        raise RunError(
            f"{path} holds the id {', '.join(map(str, wrong[:NAMED]))}: a prediction holds the trainIds 0 to "
            f"{count - 1} of {scored.classes.id}, void not among them"
        )
    return np.asarray(scored.merge, dtype=np.uint8)[label]
