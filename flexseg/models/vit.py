"""A frozen vision transformer as an mmseg backbone: the trunk of methods that adapt a foundation model.

The transformer itself comes from the ``transformers`` library, which is an optional extra and is imported only when
such a trunk is built; its weights come from a local safetensors file or folder. Nothing is ever downloaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from flexseg.errors import MissingExtra, did_you_mean
from flexseg.files import file_digest
from flexseg.models.description import ModelError
from flexseg.models.registry import MODELS
from flexseg.models.weights import check_digest, read_tensors

RANDOM = "random"
"""What ``weights`` must say for an untrained trunk."""
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
"""Files of weights that are not read."""


class _Family(NamedTuple):
    config: str
    model: str
    arguments: Mapping[str, Any]
    example: str
    """A repository of the Hugging Face hub with such weights, for the recipe."""


FAMILIES = {
    "dinov2": _Family("Dinov2Config", "Dinov2Model", {}, "facebook/dinov2-base"),
    "vit": _Family("ViTConfig", "ViTModel", {"add_pooling_layer": False}, "google/vit-base-patch16-224-in21k"),
}


@MODELS.register_module()
class FrozenViT(nn.Module):
    """A plain vision transformer that is never trained, as a pyramid of maps.

    1. The image is enlarged bilinearly by ``scale`` and on to the next multiple of the patch size in height and width.
       Enlarging, unlike padding, keeps the maps aligned with the image and adds no border.
    2. Patches are embedded; the pretrained position embeddings are interpolated to their grid.
    3. After each block, ``adapter`` may change the patches' tokens: a method's trainable module that is called with
       (tokens (B, N, C), number of the block). The class token passes by.
    4. The tokens after the blocks ``out_indices``, through the transformer's own last LayerNorm if ``final_norm``,
       become maps, and each is resized bilinearly to its stride in ``strides`` (of the image as it was given).

    All of the transformer is in eval mode and without gradients of its own, whatever mode the model is in; only what a
    method adds is trained.

    Args:
        weights: a folder that holds ``config.json`` and ``model.safetensors`` as the ``transformers`` library saves
            them, or a safetensors file with the same names, relative to the working directory; or ``random``, for
            tests: a frozen random trunk has learnt nothing.
        sha256: of the safetensors file, checked where given and otherwise printed.
        family: ``dinov2`` (Oquab et al., *DINOv2*, TMLR 2024) or ``vit`` (Dosovitskiy et al., ICLR 2021).
        config: fields of the library's configuration class (``hidden_size``, ``num_hidden_layers``, …) where no folder
            gives them; beside a folder they must agree with it.
        out_indices: blocks, counted from 0, that give the maps; by default the ends of as many equal parts of the
            transformer as there are strides, or of four.
        strides: of each map; None leaves every map on the grid of patches.
        scale: how much images are enlarged first, from 1 on: small images have few patches.
        final_norm: normalise each map's tokens with the transformer's last LayerNorm.

    Raises:
        MissingExtra: the ``transformers`` library or the weights are not there; the message is the recipe.
        ModelError: weights of another size or checksum, missing tensors, a damaged file, a wrong description.
    """

    is_frozen_vit: ClassVar[bool] = True
    """What methods that adapt such a trunk ask for; see ``flexseg.method.NEEDS``."""

    adapter: nn.Module | None

    def __init__(
        self,
        weights: str,
        sha256: str = "",
        family: str = "dinov2",
        config: Mapping[str, Any] | None = None,
        out_indices: Sequence[int] | None = None,
        strides: Sequence[float] | None = (4, 8, 16, 32),
        scale: float = 1.0,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        if family not in FAMILIES:
            raise _error(f"family {family!r} is unknown{did_you_mean(family, FAMILIES)}: {', '.join(FAMILIES)}")
        if scale < 1:
            raise _error(f"scale is a factor from 1 on, not {scale}")
        library = _transformers()
        with _quietly(library):
            self.transformer, self.weights_sha256 = _load(library, FAMILIES[family], family, weights, sha256, config)
        self.transformer.requires_grad_(False)
        settings = self.transformer.config
        self.patch_size, self.embed_dims = int(settings.patch_size), int(settings.hidden_size)
        blocks = len(self.blocks)
        count = len(strides) if strides else 4
        ends = tuple(-(-(i + 1) * blocks // count) - 1 for i in range(count))
        self.out_indices = tuple(ends if out_indices is None else out_indices)
        self.strides = None if strides is None else tuple(strides)
        self.scale, self.final_norm = scale, final_norm
        if not self.out_indices or not all(0 <= i < blocks for i in self.out_indices):
            raise _error(f"out_indices {list(self.out_indices)} are not blocks: there are {blocks}, counted from 0")
        if self.strides is not None and (len(self.strides) != len(self.out_indices) or min(self.strides) <= 0):
            raise _error(
                f"strides {list(self.strides)} are not one positive number for each of {len(self.out_indices)} maps"
            )
        del self.blocks[max(self.out_indices) + 1 :]  # behind the last map: never run
        self.adapter = None
        self.train()

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's blocks up to the last map's, (B, N, C) to (B, N, C) each."""
        return self.transformer.layers if hasattr(self.transformer, "layers") else self.transformer.encoder.layer

    def train(self, mode: bool = True) -> FrozenViT:
        """Set the mode of what a method added; the transformer stays in eval mode."""
        super().train(mode)
        self.transformer.eval()
        return self

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image of ``height`` × ``width`` pixels."""
        rows, columns = (-(-round(side * self.scale) // self.patch_size) for side in (height, width))
        return max(rows, 1), max(columns, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps, (B, C, ⌈H / stride⌉, ⌈W / stride⌉) each, of (B, 3, H, W) normalised images."""
        size = images.shape[2:]
        rows, columns = self.grid(*size)
        wanted = (rows * self.patch_size, columns * self.patch_size)
        if tuple(size) != wanted:
            images = interpolate(images, wanted, mode="bilinear", align_corners=False)
        tokens = self._embed(images)
        extra = tokens.shape[1] - rows * columns
        maps: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if self.adapter is not None:
                tokens = torch.cat([tokens[:, :extra], self.adapter(tokens[:, extra:], number)], dim=1)
            if number in self.out_indices:
                patches = self.transformer.layernorm(tokens) if self.final_norm else tokens
                maps[number] = patches[:, extra:].mT.unflatten(2, (rows, columns))
        found = [maps[number] for number in self.out_indices]
        if self.strides is None:
            return tuple(found)
        return tuple(
            _resize(x, [-(-side // stride) for side in size]) for x, stride in zip(found, self.strides, strict=True)
        )

    def _embed(self, images: Tensor) -> Tensor:
        """Class token and patches with positions, (B, 1 + N, C), as the library computes them."""
        embeddings = self.transformer.embeddings
        if self.transformer.config.model_type == "vit":
            return embeddings(images, interpolate_pos_encoding=True)
        return embeddings(images)


def _resize(x: Tensor, size: Sequence[float]) -> Tensor:
    whole = tuple(int(side) for side in size)
    return x if tuple(x.shape[2:]) == whole else interpolate(x, whole, mode="bilinear", align_corners=False)


def _error(text: str) -> ModelError:
    return ModelError(f"backbone FrozenViT: {text}")


def _transformers() -> ModuleType:
    """The library.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(
            f"the backbone FrozenViT needs the transformers library, which cannot be imported ({error}). Install it, "
            "without anything that would exchange torch, by `pip install --no-deps -r requirements-foundation.lock` in "
            "this environment; docs/foundation.md says more"
        ) from error
    return transformers


@contextmanager
def _quietly(library: ModuleType) -> Iterator[None]:
    """Without the library's progress bars and reports: what is wrong with weights is said in our own errors."""
    logging = library.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _load(
    library: ModuleType, family: _Family, name: str, weights: str, sha256: str, config: Mapping[str, Any] | None
) -> tuple[Any, str]:
    """The transformer in float32 and the SHA-256 of its weights' file, empty for random ones."""
    fields = dict(config or {})
    known = getattr(library, family.config)().to_dict()
    for key in fields:
        if key not in known:
            raise _error(f"config has no field {key!r}{did_you_mean(key, known)}")
    cls = getattr(library, family.model)
    if weights == RANDOM:
        if sha256:
            raise _error("random weights have no sha256: leave it out")
        return cls(_config(library, family, fields), **family.arguments), ""
    file = _find(weights, family)
    if Path(weights).is_dir():
        fields = _folder_config(Path(weights), name, fields)
    digest = check_digest(file, sha256) if sha256 else file_digest(file)
    if not sha256:
        print(f"{file}: sha256 {digest} (name it in the benchmark file to have it checked)", file=sys.stderr)
    settings = _config(library, family, fields)
    model, found = cls.from_pretrained(
        None,
        config=settings,
        state_dict=read_tensors(file),
        local_files_only=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # else its error would not say which
        output_loading_info=True,
        **family.arguments,
    )
    other = [f"{key} is {tuple(ours)}, not {tuple(wanted)}" for key, ours, wanted in sorted(found["mismatched_keys"])]
    if other:
        raise _error(f"{file} holds a transformer of another size than config says: {'; '.join(other[:3])}")
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise _error(f"{file} lacks {len(missing)} tensors of a {family.model}, among them {', '.join(missing[:3])}")
    # What a classifier or a pooling layer adds is not needed; blocks that the config does not have are a mistake.
    blocks = sorted(key for key in found["unexpected_keys"] if "layer." in key or "layers." in key)
    if blocks:
        raise _error(f"{file} holds blocks that config does not have: {', '.join(blocks[:3])}")
    return model, digest


def _config(library: ModuleType, family: _Family, fields: Mapping[str, Any]) -> Any:
    for key in ("attn_implementation", "auto_map"):
        if key in fields:
            raise _error(f"config.{key} could fetch code from elsewhere: leave it out")
    try:
        settings = getattr(library, family.config)(**fields)
    except Exception as error:  # the library validates with exceptions of its own
        raise _error(f"config is refused by {family.config}: {' '.join(str(error).split())}") from error
    for key in ("patch_size", "image_size"):
        if not isinstance(getattr(settings, key), int):
            raise _error(f"config.{key} is one whole number here, for both sides, not {getattr(settings, key)!r}")
    return settings


def _find(weights: str, family: _Family) -> Path:
    """The safetensors file that ``weights`` names.

    Raises:
        MissingExtra: there is none. ModelError: it is of another kind.
    """
    if not isinstance(weights, str) or not weights:
        raise _error(f"weights is a folder or a safetensors file, or the word {RANDOM!r}, not {weights!r}")
    path = Path(weights)
    file = path if path.is_file() or path.suffix in (".safetensors", *PICKLED) else path / "model.safetensors"
    if file.suffix != ".safetensors":
        raise _error(f"{path} is no safetensors file. Others are refused, as reading them could run code: convert it")
    if not file.is_file():
        folder = file.parent
        raise MissingExtra(
            f"the backbone FrozenViT needs pretrained weights, and {file} does not exist. Nothing is downloaded here: "
            "put the weights there yourself (config.json and model.safetensors), for instance with `hf download "
            f"{family.example} config.json model.safetensors --local-dir {folder}` where there is a network, and mind "
            "their licence; docs/foundation.md says more"
        )
    return file


def _folder_config(folder: Path, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that lies beside the weights, which ``fields`` may repeat but not change."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _error(
            f"{path} cannot be read ({error}): a folder of weights holds one, as the library saves it"
        ) from error
    if content.get("model_type") != name:
        raise _error(f"{path} describes a model of the type {content.get('model_type')!r}, not of the family {name!r}")
    for key, value in fields.items():
        if content.get(key, value) != value:
            raise _error(f"config.{key} is {value!r}, but {path} says {content[key]!r}: leave it out")
    return content | dict(fields)
