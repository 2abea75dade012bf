"""A trunk's description, checked against mmseg's registry: a mistake is one clear error before anything is built."""

from __future__ import annotations

import difflib
import inspect
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from flexseg.classes import IGNORE
from flexseg.errors import UserError
from flexseg.sources import PACKAGE

HEADS = ("decode_head", "auxiliary_head", "hrda.attention")
"""Where heads are described."""
COUNTS = ("num_classes", "out_channels")
FIXED = {"ignore_index": IGNORE, "sampler": None}
"""Options of a head that the suite decides, beside the :data:`COUNTS` of classes: a file may only repeat them."""


TRUST = "FLEXSEG_TRUST"
"""The environment's variable that names packages which files may import, separated by commas."""


def trusted_packages() -> set[str]:
    """The packages that the user trusts to be imported by files, and the suite's own."""
    return {"flexseg"} | {name.strip() for name in os.environ.get(TRUST, "").split(",") if name.strip()}


class ModelError(UserError, ValueError):
    """A trunk's description that cannot be built. The message names the part, the key and what to do."""


def check_part(where: str, part: dict[str, Any], num_classes: int) -> None:
    """Check a part's type and keywords against the registry, and fill in what the suite decides."""
    from flexseg.models.registry import MODELS

    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise ModelError(f"{where} needs a `type`, the name of a class of mmseg's registry, but is {part!r}")
    name = part["type"]
    is_head = where.startswith(HEADS)
    known = {key: cls for key, cls in MODELS.module_dict.items() if _fits(where, cls)}
    cls = MODELS.module_dict.get(name)
    if cls is None:
        raise ModelError(f"{where}: there is no {name!r} in mmseg's registry{suggest(name, known)}")
    if name not in known:
        raise ModelError(f"{where}: {name} cannot be used as {'a head' if is_head else 'this'}{suggest(name, known)}")

    keywords = _keywords(cls)
    for key, value in part.items():
        if key != "type" and key not in keywords:
            raise ModelError(f"{where}: {name} takes no {key!r}{suggest(key, keywords)}")
        # Some of mmseg's classes insist on tuples, others on lists, and YAML has only lists: follow the default.
        if isinstance(value, list) and isinstance(keywords.get(key), tuple):
            part[key] = tuple(value)
    if is_head:
        for key, value in (FIXED | dict.fromkeys(COUNTS, num_classes)).items():
            if part.get(key, value) != value:
                raise ModelError(f"{where}: {key} is {value!r} here, not {part[key]!r}: leave it out")
        _check_loss(where, part.get("loss_decode"))
        part["num_classes"] = num_classes
        part.setdefault("norm_cfg", {"type": "BN", "requires_grad": True})


def _check_loss(where: str, loss: Any) -> None:
    """The methods compute the losses. A file only weighs an auxiliary head's cross-entropy, in mmseg's words."""
    if loss is None:
        return
    allowed = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}
    if where.startswith("auxiliary_head"):
        allowed["loss_weight"] = loss.get("loss_weight", 1.0) if isinstance(loss, dict) else 1.0
    for key, value in loss.items() if isinstance(loss, dict) else (("loss_decode", loss),):
        if key not in allowed or value != allowed[key]:
            raise ModelError(
                f"{where}: loss_decode with {key}: {value!r} would not be used, the method computes the loss. Only an "
                f"auxiliary head may say `loss_decode: {{type: CrossEntropyLoss, loss_weight: ...}}`."
            )


def check_names(config: Mapping[str, Any]) -> None:
    """Refuse, at every depth, what could reach beyond the registry: dotted types, scopes, and files of weights."""
    for where, value in walk(config):
        key = where.rpartition(".")[2]
        if key == "type" and not (isinstance(value, str) and value.isidentifier()):
            raise ModelError(f"{where} is the plain name of a registered class, not {value!r}")
        if key.startswith("_"):
            raise ModelError(f"{where}: keys that begin with an underscore are mmengine's own: leave it out")
        loads = (
            ("pretrained" in key or "checkpoint" in key) and value and not (key == "use_checkpoint" and value is True)
        )
        if loads or (key == "type" and value == "Pretrained"):
            raise ModelError(
                f"{where}: {value!r} would load weights unchecked. Name them beside the backbone instead, as "
                f"`weights: {{file: ..., sha256: ...}}`"
            )


def list_parts(described: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, description) of every part; a list of auxiliary heads is taken apart, of ``hrda`` there is its head."""
    for where, part in described.items():
        if where == "auxiliary_head" and isinstance(part, list):
            yield from ((f"{where}.{i}", head) for i, head in enumerate(part))
        elif where == "hrda":
            yield f"{where}.attention", part["attention"]
        elif where != "type":
            yield where, part


def walk(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted place, value) of everything in nested mappings and lists."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    for key, item in inner:
        place = f"{where}.{key}" if where else str(key)
        yield place, item
        yield from walk(item, place)


def to_plain(value: Any) -> Any:
    """A deep copy in plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _keywords(cls: Any) -> dict[str, Any]:
    """All keywords with defaults that a class's constructor takes, following ``**kwargs`` up to its base classes."""
    keywords: dict[str, Any] = {}
    for base in inspect.getmro(cls) if inspect.isclass(cls) else (cls,):
        if inspect.isclass(base) and "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__ if inspect.isclass(base) else base).parameters.values()
        for p in parameters:
            if p.name != "self" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                keywords.setdefault(p.name, p.default)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return keywords


def _fits(where: str, cls: Any) -> bool:
    """Whether a registered class can be this part: by its base, or by where mmseg or this room keeps it."""
    from flexseg.models.registry import BaseDecodeHead

    if where.startswith(HEADS):
        return inspect.isclass(cls) and issubclass(cls, BaseDecodeHead)
    homes = [f"mmseg.models.{where}s.", "flexseg.models.", f"{PACKAGE}.", *(f"{name}." for name in trusted_packages())]
    inside = inspect.isclass(cls) and f"{cls.__module__}.".startswith(tuple(homes))
    return inside and not issubclass(cls, BaseDecodeHead)


def suggest(name: str, known: Iterable[str]) -> str:
    """«: did you mean …?», or all that is known where nothing is near."""
    names = {key.lower(): key for key in known}
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    close += [key for key in names if key not in close and (key in name.lower() or name.lower() in key)]
    if not close:
        return f"; known are {', '.join(sorted(names.values()))}"
    return f": did you mean {' or '.join(names[key] for key in close[:4])}?"


def describe_error(error: Exception) -> str:
    """An exception in one line; a bare ``assert`` is quoted from its source."""
    if str(error):
        return " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at `{frames[-1].line}`" if frames else type(error).__name__


def name_of(module: nn.Module | None) -> str:
    """The name of a module's class."""
    return type(module).__name__
