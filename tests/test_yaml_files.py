"""The reader of YAML: plain values, and one error with its place for what PyYAML would let pass."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from flexseg.errors import UserError
from flexseg.yaml_files import MAX_BYTES, MAX_DEPTH, format_yaml, parse_yaml, read_yaml

ROOT = Path(__file__).parents[1]


def refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ["line 3, column 1", "'a' stands twice", "line 1"]),
        ("rows:\n  x: {m: 1}\n  x: {m: 2}\n", ["line 3, column 3", "'x' stands twice"]),
        ("1: x\n", ["line 1", "'1'", "a number", "quotes"]),
        ("no: x\n", ["'no'", "a truth value", "quotes"]),
        ("~: x\n", ["nothing at all"]),
        ("? [a, b]\n: x\n", ["a key is one word"]),
        ("a: [1, 2\nb: 3\n", ["not valid YAML", "line 2"]),
        ("a: !!python/object/apply:os.system [echo]\n", ["line 1", "python/object/apply:os.system"]),
        ("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), ["nested more than"]),
        ("[" * 100_000, ["nested more than"]),
        ("a: &a [*a]\n", ["an anchor that holds itself"]),
        ("a: 1\x07\n", ["not valid YAML"]),
        ("a: " + "9" * 5000 + "\n", ["not valid YAML"]),
        ("title: Caf\xe9\n".encode("latin-1"), ["line 1, column 11", "0xe9", "UTF-8"]),
        ("a: 1\n".encode("utf-16"), ["line 1, column 1", "0xff", "UTF-8"]),
        (b"#" * (MAX_BYTES + 1), ["more than 1 MiB"]),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    message = refusal(tmp_path / "x.yaml", content)
    assert all(word in message for word in words), message


def test_aliases_may_not_expand_without_end(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "aliases written out" in refusal(tmp_path / "x.yaml", "\n".join(levels))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(UserError, match="no file"):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("00002", "00002"),
        ("0x1F", "0x1F"),
        ("2013-05-27", "2013-05-27"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0", 0),
        ("-7", -7),
        ("1e-3", 0.001),
        ("0.5", 0.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("true", True),
        ("off", False),
        ("~", None),
        ("", None),
        ("nominal", "nominal"),
    ],
)
def test_plain_words(word: str, value: object) -> None:
    found = parse_yaml(f"a: {word}\n")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.yaml")), ids=lambda path: path.stem)
def test_our_files_mean_what_yaml_1_1_says(path: Path) -> None:
    """So the definitions of runs, and with them their fingerprints, are those of PyYAML's own reader."""
    assert read_yaml(path) == yaml.safe_load(path.read_text())


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
@example(["1e3", "00002", "no", "2013-05-27", "<<", "~", ".inf", "\ud7ff"])
@example({"\x85": "\u2028", "a\u2029 b": ["\x85 ", " \x85\n"]})
def test_what_was_written_is_read(value: object) -> None:
    assert parse_yaml(format_yaml(value)) == value
