"""One instruction set for all sums, so that a seed gives the same weights on every x86-64 machine with AVX2.

ATen, oneDNN, the BLAS libraries, numpy and OpenCV choose their kernels by the processor, and wider vectors add numbers
in another order. Each is held to AVX2 by an environment variable that it reads when it is loaded, so they are set
before any of them is imported. Variables that users have set themselves stay. Imports none of these libraries.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

NATIVE = "FLEXSEG_NATIVE_KERNELS"
"""Where this variable is set, every library takes the fastest kernels that the processor has."""
HELD = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # the one mode that gives equal sums on processors of all makers
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
    "OPENCV_IPP": "disabled",
}
"""The variables and their values."""
_ours: set[str] = set()


def hold_kernels() -> bool:
    """Hold the numeric libraries that this process will load to AVX2; returns whether they are.

    Nothing is done on other processors, or where ``FLEXSEG_NATIVE_KERNELS`` is set.
    """
    if os.environ.get(NATIVE) or "avx2" not in processor_flags():
        return False
    for name, value in HELD.items():
        if name not in os.environ:
            if name == "NPY_DISABLE_CPU_FEATURES" and "avx512f" not in processor_flags():
                continue  # numpy warns of features that are not there
            os.environ[name] = value
            _ours.add(name)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # it warns that IPP is disabled
    return True


def release_kernels() -> None:
    """Undo :func:`hold_kernels`, for this process and those that it starts; before the libraries are loaded."""
    for name in _ours:
        os.environ.pop(name, None)
    _ours.clear()
    os.environ[NATIVE] = "1"


def are_held() -> bool:
    """Whether every variable has the value that holds the libraries."""
    wanted = {name: value for name, value in HELD.items() if name != "NPY_DISABLE_CPU_FEATURES"}
    return all(os.environ.get(name) == value for name, value in wanted.items())


def processor_flags() -> frozenset[str]:
    """The instruction sets of an x86-64 processor as Linux names them; empty elsewhere."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^flags\s*:(.*)", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


INSTRUCTION_SETS = ("sse4_2", "avx2", "avx512f", "amx_tile")
"""Instruction sets of x86-64 by their age, as Linux names them."""
