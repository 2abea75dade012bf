"""mmseg's model registry, imported and used without its noise.

mmseg registers its classes by importing all of ``mmseg.models``: no part of it can be had alone, because each
submodule first runs that package. So the few seconds are paid once, here, and only where a trunk is built.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from unittest.mock import patch

with warnings.catch_warnings():
    # Said on every import where mmcv has no compiled operators; none of our trunks needs them.
    warnings.filterwarnings("ignore", message=".*MultiScaleDeformableAttention")
    import mmseg.models  # noqa: F401  (fills the registry)
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.runner.checkpoint import CheckpointLoader
    from mmseg.models.backbones import UNet
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.models.decode_heads.sep_aspp_head import DepthwiseSeparableASPPModule
    from mmseg.models.segmentors import EncoderDecoder
    from mmseg.registry import MODELS

from flexseg.errors import UserError

# mmseg's `with_cp` does not say which of torch's two kinds of checkpointing it wants, and torch warns of that.
warnings.filterwarnings("ignore", message="torch.utils.checkpoint: the use_reentrant parameter")

__all__ = ["MODELS", "BaseDecodeHead", "DepthwiseSeparableASPPModule", "EncoderDecoder", "UNet", "building"]


@contextmanager
def building() -> Iterator[None]:
    """Surroundings in which mmseg's classes can be built quietly, of registered parts alone.

    The scope lets mmcv find what only mmseg registers (UNet's ``InterpConv``). mmengine's logger and mmseg's warnings
    are held back: ``init_weights`` otherwise prints a line for every parameter, each head a remark on a loss that we
    do not use.

    mmengine takes a name that nothing is registered under for that of any Python object (``os.system``), imports and
    calls it, and its loader of checkpoints unpickles. A benchmark file must run no code, so neither works in here,
    however deep in a description it is asked for.
    """
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            DefaultScope.overwrite_default_scope("mmseg"),
            patch("mmengine.registry.registry.get_object_from_string", lambda name: None),
            patch.object(CheckpointLoader, "load_checkpoint", _refuse_checkpoint),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message=".*avg_non_ignore")
            yield
    finally:
        logger.setLevel(level)


def _refuse_checkpoint(filename: Any, *_: Any, **__: Any) -> NoReturn:
    raise UserError(
        f"{filename!r} would be loaded unchecked. Name weights beside the backbone instead, as "
        "`weights: {file: ..., sha256: ...}`"
    )
