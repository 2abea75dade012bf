"""The one reader of YAML: benchmark files, data sets and label maps.

PyYAML builds the values; what it lets pass is refused here with line and column: a key that stands twice, a key that is
no text, anchors that expand without end, and files too large or too deep to be written by people. Only plain values are
built, so a file can run no code.

Plain words become text, ``null``, ``true`` or ``false`` (also ``yes``, ``no``, ``on``, ``off``, as in YAML 1.1), whole
numbers or decimal ones. Ids of images often look like numbers, so what begins with needless zeros (``00002``), dates
and numbers to other bases than ten stay text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from flexseg.errors import UserError

MAX_BYTES = 1 << 20
"""The size of a file; the largest of ours has 30 kB."""
MAX_DEPTH = 30
"""How deep mappings and lists may be nested; ours reach 6."""
MAX_VALUES = 100_000
"""How many values a file may hold when every alias is written out."""

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser, where PyYAML was built with it


class _Loader(_Base):
    """PyYAML's safe loader with the plain words of the module's docstring."""


class _Dumper(yaml.SafeDumper):
    """A writer that puts text in quotes where this reader would take it for something else."""


_WHOLE = "0|[1-9][0-9]*"
_PLAIN = (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", rf"[-+]?(?:{_WHOLE})", "-+0123456789"),
    ("float", rf"[-+]?(?:(?:{_WHOLE})?\.[0-9]+|(?:{_WHOLE})\.?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", "<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
)
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _expression, _first in _PLAIN:
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_expression})$"), list(_first))


_BREAKS = re.compile("[\x85\u2028\u2029]")


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """In double quotes, where they are escaped, if it has Unicode's line breaks: elsewhere PyYAML folds them."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _BREAKS.search(text) else None)


_Dumper.add_representer(str, _represent_text)


class _Refused(Exception):
    """Something that this reader refuses, at a mark of PyYAML's."""

    def __init__(self, message: str, mark: Any) -> None:
        super().__init__(message)
        self.mark = mark


def read_yaml(path: Path, *, numbered: bool = False) -> Any:
    """Read a YAML file into plain dicts, lists, texts, numbers, booleans and ``None``.

    Args:
        numbered: keys may be whole numbers, as the ids in a label map are.

    Raises:
        UserError: it cannot be read, is not UTF-8 or no YAML, or holds what the module's docstring refuses; names line
            and column.
    """
    text = _read_text(path)
    try:
        return parse_yaml(text, numbered=numbered)
    except (yaml.MarkedYAMLError, _Refused) as error:
        mark = error.mark if isinstance(error, _Refused) else error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = str(error) if isinstance(error, _Refused) else f"is not valid YAML: {error.problem or error.context}"
        raise UserError(f"{path}{place}: {reason}") from error
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML forbids, a number that Python refuses
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def parse_yaml(text: str, *, numbered: bool = False) -> Any:
    """Read YAML from a text, as :func:`read_yaml` does; what is wrong is raised as it is found."""
    _check_depth(text)
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check_nodes(root, numbered)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def format_yaml(value: Any) -> str:
    """YAML of plain values, in their order, which :func:`parse_yaml` reads as these values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path} is no file")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} has more than {MAX_BYTES // 2**20} MiB: this is no file that people write")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): see that it may be") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise UserError(
            f"{path}, line {line}, column {column}: the byte 0x{content[error.start]:02x} is not UTF-8. "
            "Save the file as UTF-8"
        ) from error


def _check_depth(text: str) -> None:
    """Refuse what is nested too deep, before anything is built: building it would take a call for each level."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _Refused(f"mappings and lists are nested more than {MAX_DEPTH} deep", event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_nodes(root: yaml.Node, numbered: bool) -> None:
    """Check the keys of every mapping and the size that aliases expand to."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise _Refused("an anchor that holds itself", node.start_mark)
        open_nodes.add(id(node))
        total = 1
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, numbered)
            total += sum(measure(value) for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(measure(value) for value in node.value)
        open_nodes.remove(id(node))
        if total > MAX_VALUES:
            raise _Refused(f"the file holds more than {MAX_VALUES:,} values, aliases written out", node.start_mark)
        sizes[id(node)] = total
        return total

    measure(root)


def _check_keys(node: yaml.MappingNode, numbered: bool) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        kind = key.tag.rpartition(":")[2] if isinstance(key, yaml.ScalarNode) else "collection"
        if kind == "collection":
            raise _Refused("a key is one word, not a list or a mapping", key.start_mark)
        if kind not in ("str", "merge") and not (numbered and kind == "int"):
            read = {"bool": "a truth value", "null": "nothing at all"}.get(kind, "a number")
            raise _Refused(f"YAML reads the key {key.value!r} as {read}: put it in quotes", key.start_mark)
        if key.value in seen:
            raise _Refused(f"the key {key.value!r} stands twice, first in line {seen[key.value]}", key.start_mark)
        seen[key.value] = key.start_mark.line + 1
