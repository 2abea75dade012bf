"""Configurations of mmsegmentation, read as data: what a file of mmseg's zoo says, without running code of anybody's.

mmengine executes a configuration, which is Python. So a file, and every file that it names as ``_base_``, is looked
through first: it may assign literals, ``dict(…)``, ``list(…)``, ``tuple(…)``, arithmetic and its own names, as those of
mmseg do, and nothing else. Modules that it would import (``custom_imports``) are only imported where the user trusts
them (:func:`import_trusted`).
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexseg.models.description import TRUST, ModelError, describe_error, to_plain, trusted_packages

CALLS = frozenset(
    {
        "dict",
        "list",
        "tuple",
        "set",
        "range",
        "int",
        "float",
        "str",
        "len",
        "min",
        "max",
        "sum",
        "sorted",
        "enumerate",
        "zip",
    }
)
METHODS = frozenset({"update", "items", "keys", "values", "copy", "append", "extend", "pop", "get"})
"""Methods of lists and mappings that a file may call on its own variables."""
NODES = (
    ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete, ast.Name, ast.Constant, ast.Dict,
    ast.List, ast.Tuple, ast.Set, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp,
    ast.Subscript, ast.Slice, ast.Starred, ast.ListComp, ast.DictComp, ast.comprehension, ast.JoinedStr,
    ast.FormattedValue, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
)  # fmt: skip
DEEPEST = 10
"""How many files may be each other's ``_base_``."""
LARGEST = 1 << 20
"""Bytes of a configuration."""


def read_config(path: Path) -> dict[str, Any]:
    """The variables of an mmseg configuration, with those of its bases.

    Raises:
        ModelError: there is no such file, it does more than assign values, or it describes no model.
    """
    check_source(path)
    from mmengine.config import Config

    try:
        found = Config.fromfile(str(path), import_custom_modules=False, lazy_import=False)
        content = to_plain(found.to_dict())
    except Exception as error:  # whatever is wrong in a file that is executed
        raise ModelError(f"{path} cannot be read as an mmseg configuration: {describe_error(error)}") from error
    if not isinstance(content.get("model"), Mapping):
        raise ModelError(f"{path} describes no model: it has no variable `model`")
    return content


def check_source(path: Path, depth: int = 0) -> None:
    """Refuse a configuration that does more than assign values, or whose bases do.

    Raises:
        ModelError: names the file and the line.
    """
    if depth > DEEPEST:
        raise ModelError(f"{path}: configurations are each other's _base_ over more than {DEEPEST} files")
    if path.suffix in (".json", ".yaml", ".yml"):
        return
    try:
        content = path.read_bytes()
        if len(content) > LARGEST:
            raise ModelError(f"{path} has {len(content):,} bytes: that is no configuration")
        tree = ast.parse(content)
    except OSError as error:
        raise ModelError(f"the mmseg configuration {path} cannot be read ({error.strerror})") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ModelError(f"{path} is no Python: {describe_error(error)}") from error
    assigned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if problem := _mistake(node, assigned):
            raise ModelError(
                f"{path}, line {getattr(node, 'lineno', '?')}: {problem}. A configuration is read as data: it may "
                "assign values and dict(…), as mmseg's own do, and nothing else"
            )
    for base in _bases(tree, path):
        if "::" not in base:  # of an installed package
            check_source(path.parent / base, depth + 1)


def _mistake(node: ast.AST, assigned: set[str]) -> str:
    if isinstance(node, ast.Attribute):
        if node.attr in METHODS and isinstance(node.value, ast.Name) and node.value.id in assigned:
            return ""
        root: ast.AST = node
        while isinstance(root, ast.Attribute):
            root = root.value
        known = isinstance(root, ast.Name) and root.id == "_base_" and not node.attr.startswith("__")
        return "" if known else f"it looks up the attribute {node.attr!r}"
    if not isinstance(node, NODES):
        return f"it has a statement of the kind {type(node).__name__}"
    if isinstance(node, ast.Call) and not (
        (isinstance(node.func, ast.Name) and node.func.id in CALLS - assigned)
        or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS)
    ):
        return f"it calls {ast.unparse(node.func)}"
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in CALLS | assigned | {"_base_"}:
        return f"it uses {node.id!r}, which it does not define"
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in CALLS:
        return f"it gives {node.id!r} another meaning"
    return ""


def _bases(tree: ast.Module, path: Path) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "_base_" for t in node.targets):
            try:
                found = ast.literal_eval(node.value)
            except ValueError as error:
                raise ModelError(
                    f"{path}, line {node.lineno}: _base_ names files, not {ast.unparse(node.value)}"
                ) from error
            return [found] if isinstance(found, str) else [str(each) for each in found]
    return []


def expand(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trunk's description with the parts of the mmseg configuration that it names as ``config``, if it does.

    Modules that either of them names as ``custom_imports`` are imported, if they are trusted.

    Raises:
        ModelError: the configuration is wrong, or starts from weights of which the description says nothing.
    """
    own = dict(config)
    imports = own.pop("custom_imports", None)
    path = own.pop("config", None)
    own.pop("config_digest", None)  # what a run's definition says of the file
    if imports is not None:
        import_trusted(imports, "model.custom_imports")
    if path is None:
        return own
    if not isinstance(path, str):
        raise ModelError(f"config is the path of an mmseg configuration, not {path!r}")
    place = Path(path).expanduser()
    if both := [key for key in ("backbone", "neck", "decode_head", "auxiliary_head") if key in own]:
        raise ModelError(f"config describes the whole trunk, so {', '.join(both)} beside it would be a second one")
    content = read_config(place)
    if content.get("custom_imports"):
        import_trusted(content["custom_imports"].get("imports", []), str(place))
    weights = take_weights(content["model"])
    if weights and "weights" not in own:
        raise ModelError(
            f"{place} starts from the weights {weights[0]!r}: name their file as `weights: {{file: ..., sha256: ...}}` "
            "beside `config`, or say `weights: null` to start from fresh ones"
        )
    return trunk_of(content, place) | own


def trunk_of(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The trunk that a configuration describes, in the words of a benchmark file.

    Its preprocessor, losses, schedule and test settings are left out, as the suite has its own; heads get the
    benchmark's classes; batch statistics over devices (SyncBN) become those of one device. An auxiliary head keeps the
    weight of its loss.

    Raises:
        ModelError: it is no ``EncoderDecoder``.
    """
    model = dict(content["model"])
    kind = model.get("type")
    if kind != "EncoderDecoder":
        raise ModelError(f"{path}: a trunk is an EncoderDecoder, not {kind!r}")
    trunk = {
        key: to_plain(model[key]) for key in ("backbone", "neck", "decode_head", "auxiliary_head") if model.get(key)
    }
    for key, part in list(trunk.items()):
        heads = part if isinstance(part, list) else [part]
        for head in heads:
            _adapt(head, key)
    return trunk


def take_weights(value: Any) -> list[str]:
    """Take the trained weights out of a description, at every depth and in place; return what they were."""
    found: list[str] = []
    if isinstance(value, dict):
        init = value.get("init_cfg")
        if isinstance(init, Mapping) and init.get("type") == "Pretrained":
            found.append(str(value.pop("init_cfg").get("checkpoint")))
        if loaded := value.pop("pretrained", None):
            found.append(str(loaded))
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found += take_weights(item)
    return found


def _adapt(part: dict[str, Any], key: str) -> None:
    """Take out of a part's description what the suite decides."""
    if key in ("decode_head", "auxiliary_head"):
        loss = part.pop("loss_decode", None)
        weight = loss.get("loss_weight", 1.0) if isinstance(loss, Mapping) else 1.0
        for name in ("num_classes", "out_channels", "ignore_index", "sampler"):
            part.pop(name, None)
        if key == "auxiliary_head":
            part["loss_decode"] = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": weight}
    without_sync(part)


def without_sync(value: Any) -> None:
    """Replace SyncBN by BN wherever a description names it, in place."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        if isinstance(item, dict) and item.get("type") == "SyncBN":
            item["type"] = "BN"
        without_sync(item)


def import_trusted(modules: Any, where: str) -> list[str]:
    """Import the modules that a file names, if the user trusts their packages; return the packages.

    Args:
        modules: names such as ``my_package.my_backbone``. where: the file or key that names them.

    Raises:
        ModelError: they are not trusted, are no names, or cannot be imported.
    """
    names = [modules] if isinstance(modules, str) else modules
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and _is_module(name) for name in names):
        raise ModelError(
            f"{where}: custom_imports lists names of modules, such as my_package.my_backbone, not {names!r}"
        )
    trusted = trusted_packages()
    packages = [name.partition(".")[0] for name in names]
    if unknown := sorted({package for package in packages if package not in trusted}):
        raise ModelError(
            f"{where} asks to import {', '.join(names)}, which runs their code. If you trust it, say so in the "
            f"environment: {TRUST}={','.join(sorted({*trusted, *unknown} - {'flexseg'}))}"
        )
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ModelError(f"{where}: {name} cannot be imported: {describe_error(error)}") from error
    return packages


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))
