"""Image files decoded to arrays, once: what was decoded is kept in the cache."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ima.data.cache import Arrays, cached
from ima.data.folders import ImageFile

# Formats that hold pictures as shown on a screen. Pillow's others can start helper programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")

# An image (C, H, W) and a fingerprint of it before resizing.
Decoded = tuple[NDArray[np.uint8], str]


def pictures(
    name: str,
    files: Sequence[ImageFile],
    root: Path,
    side: int | None,
    decoder: Callable[[ImageFile], Decoded],
) -> tuple[NDArray[np.uint8], list[str]]:
    """The images (N, C, H, W), and one fingerprint each, of the files of data set `name` in `root`.

    `decoder` is called for each file unless the cache has them all. C is 1 when all images are gray
    (equal in all channels), whatever their files' modes. `side` is that of the resized images, None
    for images as they are.

    Raises `ValueError` when the decoded images differ in size.
    """
    arrays = cached(
        f"{name}-{side or 'own'}-{_key(files, root)}",
        lambda: _decode_all(files, root, decoder),
        fits=lambda stored: _fits(stored, len(files), side),
    )
    return arrays["images"], [str(text) for text in arrays["prints"]]


def decode(file: ImageFile, side: int | None, *, gray: bool) -> Decoded:
    """The image, (1, H, W) if `gray`, else (3, H, W), and a fingerprint of it before resizing.

    It is resized to `side` x `side` with Lanczos, not keeping the aspect ratio; transparency is
    left away. Raises `ValueError`, naming the file, for one that cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file.read()), formats=FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} holds more than 8 bits a channel")
            # A palette's transparency, if any, would make the direct way warn. The colours are
            # equal.
            whole = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
        if gray:
            whole = whole.convert("L")
        small = whole if side is None else whole.resize((side, side), Image.Resampling.LANCZOS)
    except Exception as error:  # Pillow's formats raise whatever comes, down to SyntaxError
        raise ValueError(
            f"{file.shown} cannot be decoded ({error}); expected an undamaged image of 8 bits a "
            "channel: fetch or save it again"
        ) from error
    told = f"{whole.width}x{whole.height}".encode() + whole.tobytes()
    pixels = np.asarray(small)
    channels_first = pixels[None] if gray else np.moveaxis(pixels, -1, 0)
    return channels_first, hashlib.blake2b(told, digest_size=16).hexdigest()


def _key(files: Sequence[ImageFile], root: Path) -> str:
    # Pillow's version counts too: resizing may be rounded differently.
    from PIL import __version__

    told = [__version__, str(root.absolute())]
    told += [f"{file.label}/{file.name}/{file.stamp}" for file in files]
    return hashlib.blake2b("\n".join(told).encode(), digest_size=12).hexdigest()


def _fits(stored: Arrays, count: int, side: int | None) -> bool:
    if set(stored) != {"images", "prints"}:
        return False
    images, prints = stored["images"], stored["prints"]
    return (
        images.ndim == 4
        and len(images) == count
        and (side is None or images.shape[2:] == (side, side))
        and images.dtype == np.uint8
        and prints.shape == (count,)
        and prints.dtype.kind == "U"
    )


def _decode_all(
    files: Sequence[ImageFile], root: Path, decoder: Callable[[ImageFile], Decoded]
) -> Arrays:
    from PIL import Image

    Image.init()  # once and here: loading the formats is not made for several threads
    images: list[NDArray[np.uint8]] = []
    prints: list[str] = []
    # Threads, because Pillow decodes and resizes outside Python's lock; the order stays.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for file, (image, fingerprint) in zip(files, pool.map(decoder, files), strict=True):
            if images and image.shape != images[0].shape:
                raise ValueError(
                    f"the images of {root} differ in size: {files[0].shown} has "
                    f"{_size(images[0])} pixels (width x height), {file.shown} {_size(image)}; "
                    "resize all with data.size, such as data.size=64"
                )
            images.append(image)
            prints.append(fingerprint)
    stacked = np.stack(images)
    if bool((stacked == stacked[:, :1]).all()):
        stacked = np.ascontiguousarray(stacked[:, :1])
    return {"images": stacked, "prints": np.array(prints)}


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
