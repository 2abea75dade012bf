"""What Python files say, not what they look like: digests that comments, docstrings and layout do not change."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGE = "flexseg_methods"
"""The package as whose modules the files of a folder of methods are imported."""


def source_digest(path: Path) -> str:
    """SHA-256 of the syntax tree of a Python file, without docstrings; of its bytes where it cannot be parsed.

    The same for every version of Python that parses it. A missing file has the digest ``missing``.
    """
    try:
        state = path.stat()
    except OSError:
        return "missing"
    return _digest(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _digest(path: Path, *_: int) -> str:
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return hashlib.sha256(content).hexdigest()
    total = hashlib.sha256()
    for part in _walk(tree):
        total.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return total.hexdigest()


def _walk(value: Any) -> Iterator[str]:
    """The types and fields of nodes, depth first; fields that are empty are left out, as newer Pythons have more."""
    if isinstance(value, ast.AST):
        yield type(value).__name__
        for name in value._fields:
            field = getattr(value, name, None)
            if name == "body" and isinstance(field, list) and _has_docstring(value):
                field = field[1:]
            if field is None and not isinstance(value, ast.Constant):
                continue
            if field != [] and name not in ("kind", "type_comment"):
                yield name
                yield from _walk(field)
        yield ")"
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)
        yield "]"
    else:
        yield repr(value)


def _has_docstring(node: ast.AST) -> bool:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return False
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def source_files(path: Path) -> list[Path]:
    """A method's file, and the files beside it that it imports, directly or through each other; the file itself first.

    Imports are read from the text (``from ._shared import …``, ``from .flexseg import FlexSeg``), not executed.
    """
    found, waiting = [path], [path]
    while waiting:
        for name in _imports_beside(waiting.pop()):
            other = path.parent / f"{name}.py"
            if other.is_file() and other not in found:
                found.append(other)
                waiting.append(other)
    return [path, *sorted(found[1:])]


def config_files(path: Path) -> list[Path]:
    """A configuration of mmseg's, and the files that it names as ``_base_``, directly or through each other."""
    found, waiting = [path], [path]
    while waiting and len(found) < 100:
        place = waiting.pop()
        try:
            tree = ast.parse(place.read_bytes())
            named = next((n.value for n in tree.body if isinstance(n, ast.Assign) and _names_base(n)), None)
            bases = ast.literal_eval(named) if named is not None else []
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # whoever reads it says so
            continue
        for base in [bases] if isinstance(bases, str) else bases:
            other = place.parent / str(base)
            if other not in found:
                found.append(other)
                waiting.append(other)
    return found


def _names_base(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "_base_" for target in node.targets)


def _imports_beside(path: Path) -> list[str]:
    """The names of the modules in a file's own folder that it imports."""
    try:
        state = path.stat()
        return _read_imports(path, state.st_mtime_ns, state.st_size)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # whoever imports it says so
        return []


@lru_cache(maxsize=1024)
def _read_imports(path: Path, *_: int) -> list[str]:
    names = dict[str, None]()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            absolute = node.level == 0 and (node.module or "").partition(".")[0] == PACKAGE
            module = (node.module or "").removeprefix(PACKAGE).strip(".") if absolute else node.module or ""
            if node.level == 1 or absolute:
                names |= dict.fromkeys([module.partition(".")[0]] if module else [each.name for each in node.names])
        elif isinstance(node, ast.Import):
            parts = (each.name.split(".") for each in node.names)
            names |= dict.fromkeys(part[1] for part in parts if part[0] == PACKAGE and len(part) > 1)
    return list(names)


def files_digest(paths: Iterable[Path]) -> str:
    """One digest of several files by their names and :func:`source_digest`; of a single one that digest itself."""
    listed = list(paths)
    if len(listed) == 1:
        return source_digest(listed[0])
    total = hashlib.sha256()
    for path in listed:
        total.update(f"{path.name}\0{source_digest(path)}\0".encode())
    return total.hexdigest()


def paper_of(path: Path) -> str:
    """What the class of a method's file says as ``paper``, read from the text; empty where it says nothing."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    for node in (each for cls in tree.body if isinstance(cls, ast.ClassDef) for each in cls.body):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "paper" for target in targets):
            value = getattr(node, "value", None)
            return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
    return ""
