"""Trunks: what turns images into logits and features, built by mmseg from a benchmark file.

Importing this package imports torch only. mmseg (seconds) comes with the first trunk that is built, or with the modules
that register our heads in its registry.
"""

from flexseg.models.build import build_segmentor
from flexseg.models.description import ModelError
from flexseg.models.segmentor import Auxiliary, Output, Segmentor, channels_last

__all__ = ["Auxiliary", "ModelError", "Output", "Segmentor", "build_segmentor", "channels_last"]
