"""Hostile benchmark files: nothing is executed, nothing written or removed outside, and each is ready or one error."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexseg.benchmark import load_benchmark
from flexseg.errors import UserError
from flexseg.tasks.check import check_benchmark
from flexseg.yaml_files import format_yaml, read_yaml

ROOT = Path(__file__).parents[2]
CONTENT = read_yaml(ROOT / "benchmarks" / "smoke.yaml")
DANGEROUS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.remove", "os.rename", "shutil.rmtree",
             "os.rmdir", "socket.connect", "pickle.find_class", "os.symlink", "os.link", "os.chmod")  # fmt: skip
seen: list[str] = []
watching: list[Path] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching:
        return
    if event in DANGEROUS and not (event == "os.remove" and str(arguments[0]).startswith(str(watching[0]))):
        seen.append(f"{event} {arguments!r:.200}")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.append(f"open {arguments!r:.200}")


sys.addaudithook(_audit)

TEXTS = (
    "os.system", "../../../x", "/etc/passwd", "x;touch PWNED", "$(touch PWNED)", "a\\b", "{x}", "$\\frac$", "[/red]",
    "\u202e", "x" * 5000, "a\nb", "\x1b[2J", "", " ", "*", "nan", "subprocess.getoutput", "builtins.exec", "Pretrained",
)  # fmt: skip
NUMBERS = (0, -1, 10**30, 1e300, float("inf"), float("nan"), 10**12, 0.5)
OTHERS: tuple[Any, ...] = (
    None, True, [], {}, [[[]]], {"type": "os.system", "command": "touch PWNED"}, {"_scope_": "x"}, [1] * 1000,
    {"a": {"b": {"c": 1}}},
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value of nested mappings and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    where = content
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    return content


def hostile() -> list[tuple[str, dict[str, Any]]]:
    """Every place of the smoke benchmark's file with values that take turns."""
    values = (*TEXTS, *NUMBERS, *OTHERS)
    found = []
    for number, path in enumerate(places(CONTENT)):
        for step in range(4):
            value = values[(7 * number + 11 * step) % len(values)]
            found.append((".".join(map(str, path)) + f" = {value!r:.40}", changed(path, value)))
    return found


def outcome(content: Any, folder: Path) -> str:
    """``ready`` or the error of a file with this content; anything else is raised."""
    path = folder / "benchmarks" / "hostile.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(format_yaml(content), encoding="utf-8", errors="surrogatepass")
    seen.clear()
    watching.append(folder)
    try:
        benchmark = load_benchmark("hostile", folder / "benchmarks").with_methods(ROOT / "methods")
        check_benchmark(benchmark, folder / "results")
    except UserError as error:
        return str(error)
    finally:
        watching.clear()
    return "ready"


def test_hostile_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    files, ready = hostile(), 0
    for name, content in files:
        found = outcome(content, tmp_path)
        assert not seen, (name, seen)
        ready += found == "ready"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmarks"]
    assert len(files) >= 200
    with capsys.disabled():
        print(f"\n{len(files)} hostile files: {len(files) - ready} refused in one message, {ready} harmless and ready")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.sampled_from([*places(CONTENT)]), text=st.text() | st.sampled_from(TEXTS))
def test_any_text_in_any_place(place: tuple[Any, ...], text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    outcome(changed(place, text), folder)
    assert not seen
    assert [path.name for path in folder.iterdir()] == ["benchmarks"]
