"""Image files decoded to arrays, once: what was decoded is kept in the cache."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ima.data.cache import Arrays, cached
from ima.data.folders import ImageFile

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile as Opened

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
    left away. Raises `ValueError`, naming the file, for one that cannot be decoded, that holds
    several pictures (pages, frames) or more than 8 bits a channel.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file.read()), formats=FORMATS) as image:
            _refuse(image)
            # A palette's transparency, if any, would make the direct way warn. The colours are
            # equal.
            whole = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
        if gray:
            whole = whole.convert("L")
        small = whole if side is None else whole.resize((side, side), Image.Resampling.LANCZOS)
    except Exception as error:  # Pillow's formats raise whatever comes, down to SyntaxError
        raise ValueError(
            f"{file.shown} cannot be decoded ({error}); expected one undamaged picture of 8 bits a "
            "channel: fetch or save it again"
        ) from error
    told = f"{whole.width}x{whole.height}".encode() + whole.tobytes()
    pixels = np.asarray(small)
    channels_first = pixels[None] if gray else np.moveaxis(pixels, -1, 0)
    return channels_first, hashlib.blake2b(told, digest_size=16).hexdigest()


def _refuse(image: "Opened") -> None:
    """Raise ValueError for an opened image of which Pillow would leave something away."""
    if _deep(image):
        raise ValueError("it holds more than 8 bits a channel")
    # What stands beside a phone's JPEG (MPO) are previews, no further pictures.
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if count > 1:
        raise ValueError(f"it holds {count} pictures, each of which needs a file of its own")


def _deep(image: "Opened") -> bool:
    """Whether a channel is stored in more than 8 bits; of colours Pillow gives the upper 8."""
    if image.mode.startswith(("I", "F")):
        return True
    # How the file is read: "RGB;16B", or for PPM a mode and the largest value.
    forms = [tile[3] for tile in image.tile]
    if image.format == "PPM":
        told = [each for form in forms for each in (form if isinstance(form, tuple) else (form,))]
        return any(isinstance(number, int) and number > 255 for number in told)
    # BMP's 16 bits are those of all channels together.
    return image.format != "BMP" and any(";16" in str(form) for form in forms)


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
