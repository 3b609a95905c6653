"""An image within a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray


def png(image: NDArray[np.uint8]) -> str:
    """An image (H, W) or (H, W, 3) as a data URI."""
    from PIL import Image

    out = io.BytesIO()
    # Gray images need a third of the bytes.
    gray = image.ndim == 3 and bool((image == image[..., :1]).all())
    Image.fromarray(image[..., 0] if gray else image).save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
