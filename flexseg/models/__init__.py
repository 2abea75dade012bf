"""Trunks: what turns images into logits and features, built by mmseg from a benchmark file.

Importing this package imports torch only. mmseg (seconds) comes with the first trunk that is built, or with
``flexseg.models.DAFormerHead``; either registers our heads in mmseg's registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexseg.models.build import build_segmentor
from flexseg.models.description import ModelError
from flexseg.models.segmentor import Auxiliary, Output, Segmentor, channels_last

if TYPE_CHECKING:
    from flexseg.models.daformer import DAFormerHead

__all__ = ["Auxiliary", "DAFormerHead", "ModelError", "Output", "Segmentor", "build_segmentor", "channels_last"]


def __getattr__(name: str) -> object:
    if name == "DAFormerHead":
        from flexseg.models.daformer import DAFormerHead

        return DAFormerHead
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
