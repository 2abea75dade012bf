"""JSON Schemas of the files that people write, for editors: benchmarks, claims, data sets, label maps.

They are made from what reads the files (:class:`~flexseg.benchmark.schema.Benchmark`,
:class:`~flexseg.data.sets.DataSet`), with the words of their docstrings, so that an editor completes and explains the
keys. They say what a key may hold, not what only the whole file can tell (that a row named somewhere exists): this
remains with ``flexseg check``.

A benchmark that ``extends`` another one says what differs, at any depth. For such a file nothing is required, and
``null``, which removes what is inherited, is allowed for every key of a mapping; a list replaces the inherited one and
must be complete.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import BeforeValidatorFunctionSchema

from flexseg.benchmark.claims import FEWEST, Claim, Claims
from flexseg.benchmark.schema import Benchmark
from flexseg.benchmark.values import PATTERN
from flexseg.classes import TRAIN_ID, VOID
from flexseg.data import sets
from flexseg.data.label_maps import MAPS
from flexseg.data.sets import SETS, DataSet

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
IN_PART = " in part"
"""Ending of the definitions for files that extend another one."""
NULL: Schema = {"type": "null"}

WORDS = {
    "title": "What the reports call it.",
    "description": "What is measured, in a few sentences, for the reports.",
    "world": "The version of the street world, and the size of its images. Needed where a domain is rendered.",
    "domains": "The images, by name: rendered (`world`) or a data set on disk (`dataset`).",
    "source": "The domain whose labelled images every row trains on.",
    "generated": "The domain of the generated images, for the rows whose methods use them.",
    "targets": "The domains that every row is tested on, in the order of the tables. Training never sees them.",
    "averages": "Columns that are the mean of several targets, by name.",
    "model": "The trunk that every row trains: `backbone` and `decode_head` of mmsegmentation, or `detectron2`.",
    "seeds": "The seeds of the runs of every row: the replicates of all statistics.",
    "rows": "The rows of the tables, by name: a method with its options.",
    "studies": "Which rows run together, by name; `default` is what runs unless another study is asked for.",
    "claims": "The file beside this one that says what the rows are to show: the claims of a study, before its runs.",
    "reference": "The row that all others are compared with.",
    "published": "Files of published numbers in flexseg/analysis/published that belong beside these.",
    "published_trunk": "The trunk of those published numbers that are shown.",
    "predictions": "How many predicted images of every target are kept of each run.",
}
"""What the docstring of a benchmark leaves to its field's name."""


READ_AS = {"_as_list": "string", "_read_id": "integer"}
"""What a validator of the readers takes beside the type of its field."""


class _AsRead(GenerateJsonSchema):
    """Pydantic's schemas, which also allow what validators turn into the type of a field."""

    def function_before_schema(self, schema: BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        found = super().function_before_schema(schema)
        also = READ_AS.get(getattr(schema["function"]["function"], "__name__", ""))
        return {"anyOf": [found, {"type": also}]} if also else found


def benchmark_schema() -> Schema:
    """The schema of ``benchmarks/*.yaml``, as they are written: before they are merged into what they extend."""
    schema = Benchmark.model_json_schema(schema_generator=_AsRead)
    parts: dict[str, Schema] = schema.pop("$defs")
    parts["Benchmark"] = schema
    del schema["properties"]["name"]
    schema["required"].remove("name")
    _write_as_read(parts)
    described = {name: _described(part) for name, part in parts.items()}
    for key, words in WORDS.items():
        described["Benchmark"]["properties"][key]["description"] = words
    relaxed = {f"{name}{IN_PART}": _in_part(part) for name, part in described.items()}
    described["Row"]["properties"]["training"] = {"$ref": f"#/$defs/Training{IN_PART}"}
    relaxed[f"Row{IN_PART}"]["properties"]["training"] = _or_null({"$ref": f"#/$defs/Training{IN_PART}"})
    extends = {"properties": {"extends": {"type": "string", "minLength": 1}}, "required": ["extends"]}
    whole, part = ({"$ref": f"#/$defs/{name}"} for name in ("Benchmark", f"Benchmark{IN_PART}"))
    return _document("a benchmark of FLEX-Seg Bench", "benchmark") | {
        "if": extends,
        "then": part,
        "else": whole,
        "$defs": described | _reached(relaxed, part),
    }


def claims_schema() -> Schema:
    """The schema of ``benchmarks/claims.yaml`` and ``benchmarks/*.claims.yaml``."""
    schema = Claims.model_json_schema(schema_generator=_AsRead)
    parts: dict[str, Schema] = schema.pop("$defs")
    words, _, listed = inspect.cleandoc(Claim.__doc__ or "").partition("Attributes:\n")
    fields = parts["Claim"]["properties"]
    for match in re.finditer(r"^    (\w+): ((?:.|\n(?!    \w+: ))+)", listed, re.MULTILINE):
        fields[match[1]]["description"] = " ".join(match[2].split()).replace("``", "`")
    parts["Claim"]["description"] = words.strip()
    fields["seeds"]["minimum"] = FEWEST
    name: Schema = {"pattern": f"^{PATTERN.pattern}$"}
    for key in ("families", "claims"):
        schema["properties"][key]["propertyNames"] = name
    described = {name: _described(part) for name, part in parts.items()}
    return _document("claims for benchmarks of FLEX-Seg Bench", "claims") | _described(schema) | {"$defs": described}


def dataset_schema() -> Schema:
    """The schema of ``flexseg/data/sets/*.yaml``."""
    schema = DataSet.model_json_schema(schema_generator=_AsRead)
    parts: dict[str, Schema] = schema.pop("$defs")
    del schema["properties"]["name"], schema["properties"]["file"]
    schema["required"].remove("name")
    for name, words in _field_docstrings(sets).items():
        for key, about in words.items():
            if key in (fields := (parts.get(name) or schema)["properties"]):
                fields[key]["description"] = about
    schema["properties"]["label_maps"]["additionalProperties"] = _label_map({"type": "string"})
    described = {name: _described(part) for name, part in parts.items()}
    return _document("a data set of FLEX-Seg Bench", "dataset") | _described(schema) | {"$defs": described}


def _field_docstrings(module: ModuleType) -> dict[str, dict[str, str]]:
    """The strings that stand below the fields of a module's classes, by class and field.

    Pydantic could find them itself (``use_attribute_docstrings``), at a price for every start of every command.
    """
    found: dict[str, dict[str, str]] = {}
    for each in ast.parse(inspect.getsource(module)).body:
        if not isinstance(each, ast.ClassDef):
            continue
        for field, below in pairwise(each.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                words = ast.literal_eval(below.value)
                found.setdefault(each.name, {})[field.target.id] = words
    return found


def label_map_schema() -> Schema:
    """The schema of ``flexseg/data/label_maps/*.yaml``."""
    return _document("a label map of FLEX-Seg Bench", "label-map") | _label_map({"enum": [*TRAIN_ID, VOID]})


def _label_map(class_name: Schema) -> Schema:
    """A label map to classes of these names; the maps of a data set of one's own may name any."""
    channel = {"type": "integer", "minimum": 0, "maximum": 255}
    entry = {
        "description": "Name of the id, the class that it counts as, and its colour where labels are colours.",
        "type": "array",
        "minItems": 2,
        "maxItems": 3,
        "prefixItems": [
            {"type": "string", "description": "What the data set calls it."},
            class_name | {"description": "The class that it counts as, or void."},
            {"type": "array", "items": channel, "minItems": 3, "maxItems": 3, "description": "Red, green, blue."},
        ],
    }
    return {
        "description": "Which class each id of a data set is.",
        "type": "object",
        "additionalProperties": False,
        "required": ["source", "classes"],
        "properties": {
            "source": {"type": "string", "minLength": 1, "description": "Where the map comes from."},
            "base": {
                "description": "The map whose ids are taken first.",
                "enum": sorted(path.stem for path in MAPS.glob("*.yaml")),
            },
            "others": {"const": "void", "description": "Ids beyond the table are void; without this, an error."},
            "classes": {
                "description": "What each id of the data set is; −1 to 255.",
                "type": "object",
                "patternProperties": {r"^(-1|[0-9]{1,3})$": entry},
                "additionalProperties": False,
            },
        },
    }


SCHEMAS: dict[str, tuple[Callable[[], Schema], Path]] = {
    "benchmark": (benchmark_schema, Path("benchmarks/schema.json")),
    "claims": (claims_schema, Path("benchmarks/claims.schema.json")),
    "dataset": (dataset_schema, SETS / "schema.json"),
    "label-map": (label_map_schema, MAPS / "schema.json"),
}
"""What makes each schema, and where the repository keeps it, beside the files that it describes."""


def format_schema(kind: str) -> str:
    """A schema of :data:`SCHEMAS` as the text of its file; the same code gives the same bytes."""
    return json.dumps(SCHEMAS[kind][0](), indent=1, ensure_ascii=False) + "\n"


def _document(title: str, kind: str) -> Schema:
    return {"$schema": DIALECT, "title": title, "$comment": f"Written by `flexseg schema {kind}`: do not edit."}


def _write_as_read(parts: dict[str, Schema]) -> None:
    """Allow what the readers accept beyond the types of the fields, and bound names as they are bounded."""
    name: Schema = {"pattern": f"^{PATTERN.pattern}$"}
    for part, keys in (("Benchmark", ("domains", "rows", "studies")), ("Ablation", ("dials",))):
        for key in keys:
            parts[part]["properties"][key]["propertyNames"] = name
    # `train: val` is short for `train: {split: val}`.
    words = parts["Part"].pop("description")
    parts["Part"] = {"description": words, "anyOf": [{"type": "string"}, parts["Part"]]}
    # Domains are told apart by this key alone.
    kind = parts["Benchmark"]["properties"]["domains"]
    world, on_disk = ({"$ref": f"#/$defs/{each}"} for each in ("WorldDomain", "SetDomain"))
    kind["additionalProperties"] = {"if": {"required": ["dataset"]}, "then": on_disk, "else": world}


def _described(schema: Schema) -> Schema:
    """A schema with tidy words: a class's docstring, whose sentences about a key go to that key as well."""
    found = _plain(schema)
    for each in (found, *found.get("anyOf", [])):
        text = found.get("description", "")
        for key, value in each.get("properties", {}).items():
            if "description" not in value and (about := _sentences(text, key)):
                value["description"] = about
    return found


def _plain(value: Any) -> Any:
    """Without pydantic's titles, which only repeat the keys, and with docstrings as plain text."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    plain: dict[str, Any] = {}
    for key, each in value.items():
        if key == "properties":
            plain[key] = {name: _plain(schema) for name, schema in each.items()}
        elif key == "description" and isinstance(each, str):
            text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", each).replace("``", "`")
            plain[key] = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
        elif key == "oneOf":  # told apart by what a schema cannot say; of what is wrong, `anyOf` shows the nearest
            plain["anyOf"] = _plain(each)
        elif key not in ("title", "discriminator"):
            plain[key] = _plain(each)
    return plain


def _sentences(text: str, key: str) -> str:
    """The parts of a docstring, between full stops and semicolons, that name a key."""
    parts = re.split(r"(?<=[.;])\s+(?![^(]*\))", text)
    return " ".join(part.rstrip(";") for part in parts if f"`{key}`" in part)


def _in_part(schema: Schema) -> Schema:
    """The same for a file that extends another: nothing is required, and null removes what is inherited."""
    if reference := schema.get("$ref"):
        return schema | {"$ref": f"{reference}{IN_PART}"}
    relaxed = {key: value for key, value in schema.items() if key not in ("required", "minProperties", "if")}
    for key in ("anyOf", "allOf"):
        if key in relaxed:
            relaxed[key] = [_in_part(each) for each in relaxed[key]]
    if "if" in schema:  # which of the two it is, may be inherited
        relaxed |= {"anyOf": [_in_part(relaxed.pop(key)) for key in ("then", "else")]}
    if "properties" in relaxed:
        relaxed["properties"] = {name: _or_null(_in_part(each)) for name, each in relaxed["properties"].items()}
    if isinstance(relaxed.get("additionalProperties"), dict):
        relaxed["additionalProperties"] = _or_null(_in_part(relaxed["additionalProperties"]))
    return relaxed


def _or_null(schema: Schema) -> Schema:
    words = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in words}
    choices = rest["anyOf"] if set(rest) == {"anyOf"} else [rest]
    return words | {"anyOf": choices if NULL in choices else [*choices, NULL]}


def _reached(parts: dict[str, Schema], start: Schema) -> dict[str, Schema]:
    """The definitions that are referred to from ``start``, directly or not, in their order."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        names = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(waiting.pop()))) & parts.keys() - found
        found |= names
        waiting += [parts[name] for name in names]
    return {name: part for name, part in parts.items() if name in found}
