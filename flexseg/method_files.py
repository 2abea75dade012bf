"""Finding methods: one file under ``methods/`` is one method, and a broken file is an error that names its line.

The files of a folder are modules of one package, so that a method can build on another (``from .flexseg import
FlexSeg``) and several can share a helper, whose name begins with an underscore (``from ._views import two_views``).
What a method imports from its folder is part of its digest (:func:`flexseg.sources.source_files`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from flexseg.benchmark import Row
from flexseg.composition import on_top
from flexseg.errors import MissingExtra, UserError, did_you_mean
from flexseg.method import HOOKS, NEEDS, Method, checker, parse_options
from flexseg.shows import mistake_in
from flexseg.sources import PACKAGE

ALIVE = 77
"""The exit code of a child process that has survived an import."""


def load_method(name: str, folder: Path = Path("methods")) -> type[Method]:
    """Import ``methods/<name>.py`` and return its method class.

    Raises:
        UserError: no such file, an error while importing it (with the line), or a class that breaks the contract.
    """
    path = folder / f"{name}.py"
    if not (name.isidentifier() and path.is_file()):
        known = method_names(folder)
        hint = did_you_mean(name, known)
        raise UserError(f"no method is named {name!r}{hint}: {path} does not exist. Methods: {', '.join(known)}")
    _enter(folder)
    module_name = f"{PACKAGE}.{name}"
    try:
        module = importlib.import_module(module_name)
    except MissingExtra:
        raise
    except (Exception, SystemExit) as error:
        place = _place_in(folder, path, error)
        raise UserError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
    classes = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Method)]
    classes = [cls for cls in classes if cls.__module__ == module_name]
    if len(classes) != 1:
        raise UserError(f"{path} must define one subclass of flexseg.method.Method, it defines {len(classes)}")
    _check_contract(classes[0], name, path)
    return classes[0]


def _enter(folder: Path) -> None:
    """Make the folder the package from which methods are imported; forget its modules if any of its files changed.

    A file that is as it was is not executed twice, or what it registers with mmseg would be there twice.
    """
    folder = folder.resolve()
    state = tuple(sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in folder.glob("*.py")))
    package = sys.modules.get(PACKAGE)
    if package is not None and (list(package.__path__), vars(package).get("state")) == ([str(folder)], state):
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    vars(package)["state"] = state
    sys.modules[PACKAGE] = package
    importlib.invalidate_caches()


def load_row(row: Row, folder: Path = Path("methods")) -> tuple[type[Method], Any]:
    """The method of a row, on top of the one that ``base`` names, and its checked options.

    Raises:
        UserError: a file or an option is wrong, or the method cannot stand on the other.
    """
    method = load_method(row.method, folder)
    if row.base:
        method = on_top(method, load_method(row.base, folder))
    return method, parse_options(method, row.options)


def _place_in(folder: Path, path: Path, error: BaseException) -> str:
    """The file in the folder and its line where an import failed: ``path``, or a file that it imports."""
    if isinstance(error, SyntaxError) and error.lineno and error.filename:
        where = [(Path(error.filename), error.lineno)]
    else:
        where = [(Path(frame.filename), frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(place, line) for place, line in where if place.parent == folder.resolve()]
    if not own:
        return str(path)
    last = folder / own[-1][0].name
    return f"{last}, line {own[-1][1]}" + (f", which {path.name} imports," if last != path else "")


def ends_the_process(name: str, folder: Path) -> str:
    """Say how a method's file ends the process that imports it, as ``os._exit`` or a crash in compiled code does.

    Empty where it does not; other errors are :func:`load_method`'s. The file is imported in a child process, which
    needs ``fork``: elsewhere nothing is found out.
    """
    if not hasattr(os, "fork"):
        return ""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            with contextlib.suppress(BaseException):
                load_method(name, folder)
        finally:
            os._exit(ALIVE)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == ALIVE:
        return ""
    how = f"signal {-status}" if status < 0 else f"exit code {status}"
    return f"{folder / name}.py ends the process that imports it ({how})"


def _check_contract(method: type[Method], name: str, path: Path) -> None:
    if method.name != name:
        raise UserError(f"{path}: the method's name is {method.name!r}, it must be the file's: name = {name!r}")
    if not method.title:
        raise UserError(f"{path}: give the method a title")
    if not dataclasses.is_dataclass(method.Options):
        raise UserError(f"{path}: Options must be a dataclass")
    if not checker(method.Options).pydantic_complete:
        raise UserError(f"{path}: a field of Options has a type that the file does not define")
    for need in method.needs:
        if need not in NEEDS:
            raise UserError(f"{path}: needs {need!r} is unknown; known: {', '.join(NEEDS)}")
    if not set(method.data) <= {"source", "generated"} or not method.data:
        raise UserError(f"{path}: data must name 'source', 'generated' or both, not {method.data!r}")
    if not isinstance(method.shows, tuple):
        raise UserError(f"{path}: shows must be a tuple of Curves, Maps and Vectors, not {method.shows!r}")
    for number, show in enumerate(method.shows):
        mistake = mistake_in(show)
        if not mistake and show.name in [other.name for other in method.shows[:number]]:
            mistake = f"has two figures named {show.name!r}"
        if mistake:
            raise UserError(f"{path}: shows {mistake}")
    for attribute, value in vars(method).items():
        if callable(value) and not attribute.startswith("_") and attribute not in (*HOOKS, "Options"):
            hint = did_you_mean(attribute, HOOKS)
            raise UserError(
                f"{path}: {attribute!r} is not a hook{hint}. The hooks are {', '.join(HOOKS)}; start the name of the "
                "method's own helpers with an underscore"
            )


def method_names(folder: Path = Path("methods")) -> list[str]:
    """The methods in ``folder``, one per file; files whose names begin with an underscore are helpers."""
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
