"""One instruction set for all sums: the variables are set before the libraries are loaded, and users' own stay."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flexseg import kernels

CODE = """
import json, sys, types
from flexseg.cli.commands import app
assert not {"torch", "numpy", "cv2"} & set(sys.modules), "the variables would come too late"
def train_run(*_, **__):
    from flexseg.engine.ledger import kernels_in_use
    print(json.dumps(kernels_in_use()))
sys.modules["flexseg.tasks.jobs"] = types.SimpleNamespace(Resources=lambda *_: None, train_run=train_run)
app(["train", "smoke", "dginstyle", "0", *sys.argv[1:]])
"""


def used(root: Path, *options: str, **variables: str) -> dict[str, object]:
    environment = {name: value for name, value in os.environ.items() if name not in (*kernels.HELD, kernels.NATIVE)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, *options],
        env=environment | variables, cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


needs_avx2 = pytest.mark.skipif("avx2" not in kernels.processor_flags(), reason="the processor has no AVX2")


@needs_avx2
def test_kernels_are_held_by_default(root: Path) -> None:
    found = used(root)
    assert found["held"] is True
    assert (found["torch"], found["onednn"]) == ("AVX2", "AVX2")
    assert found["numpy"] != "X86_V4"


@needs_avx2
def test_native_kernels_by_option_or_variable(root: Path) -> None:
    for found in (used(root, "--native-kernels"), used(root, FLEXSEG_NATIVE_KERNELS="1")):
        assert found["held"] is False
        assert found["onednn"] == "native"


@needs_avx2
def test_a_users_own_choice_stays(root: Path) -> None:
    found = used(root, ONEDNN_MAX_CPU_ISA="SSE41")
    assert (found["held"], found["onednn"]) == (False, "SSE41")


def test_other_processors_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "processor_flags", lambda: frozenset({"sse4_2"}))
    monkeypatch.delenv(kernels.NATIVE)
    before = dict(os.environ)
    assert kernels.hold_kernels() is False
    assert dict(os.environ) == before


def test_no_square_root_of_mkl(root: Path) -> None:
    """``torch.sqrt`` is MKL's, which rounds otherwise on processors of other makers, in every mode."""
    files = [*(root / "flexseg" / "components").glob("*.py"), *(root / "methods").glob("*.py")]
    found = [path.name for path in files if re.search(r"(?<!math)(?<!np)\.(sqrt|log2)\b", path.read_text())]
    assert found == [], "use pow(0.5), or log(x) / log(2)"
