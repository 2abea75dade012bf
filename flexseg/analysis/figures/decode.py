"""Reading the pictures that reports show: PNG files, of which some may be damaged or something else."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image

BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def read_png(path: Path, *, labels: bool) -> Image.Image | None:
    """The picture at ``path``: RGB, or with ``labels`` ids in one channel (mode L).

    None where a report cannot show it: it is missing, no regular file, no PNG, damaged, of more pixels than Pillow
    takes for a picture, or labels are not 8 bits of ids.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as picture:
                if not labels:
                    return picture.convert("RGB")
                if picture.mode not in ("L", "P"):
                    return None
                return Image.frombytes("L", picture.size, picture.tobytes())
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, *BOMBS):
        return None
