"""What an exported configuration needs, besides mmseg's own classes and our heads, to predict as the suite does.

Importing this module registers both classes with mmseg; a configuration that uses one names it in ``custom_imports``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from torch import Tensor

from flexseg.benchmark.blocks import Size
from flexseg.engine.inference import label_size, prepare_image
from flexseg.models.registry import MODELS, EncoderDecoder
from flexseg.models.segmentor import Segmentor, parts_of


@MODELS.register_module()
class PaddedEncoderDecoder(EncoderDecoder):
    """An ``EncoderDecoder`` for backbones that only take multiples of some number of pixels, such as mmseg's UNet.

    Every image or window is extended by its own border to the next multiple, and the logits are cut back. The
    padding of mmseg's preprocessor uses a constant and comes before the division into windows.
    """

    def encode_decode(self, inputs: Tensor, batch_img_metas: Any) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W)."""
        return Segmentor(**parts_of(self)).train(self.training).predict(inputs)


@TRANSFORMS.register_module()
class ProtocolSize(BaseTransform):
    """Bring an image to a protocol's size that mmcv's transforms cannot express.

    Args:
        **size: the keys of :class:`flexseg.benchmark.blocks.Size`. With ``labels`` the prediction gets the size at
            which the protocol compares it with the labels, not the image's.
    """

    def __init__(self, **size: Any) -> None:
        self.size = Size(**size)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``img``, ``img_shape`` and ``ori_shape``, the size of the prediction."""
        results["ori_shape"] = label_size(self.size, *results["img"].shape[:2])
        results["img"] = prepare_image(results["img"], self.size)
        results["img_shape"] = results["img"].shape[:2]
        return results

    def __repr__(self) -> str:
        keys: Mapping[str, Any] = self.size.model_dump(exclude_defaults=True)
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in keys.items())})"
