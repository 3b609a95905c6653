"""Image files decoded to arrays, once: what was decoded is kept in the cache."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ima.data import stored
from ima.data.cache import Arrays, cache, cache_root, in_cache
from ima.data.folders import ImageFile
from ima.extras import need
from ima.memory import check_memory, human_size

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile as Opened

# Formats that hold pictures as shown on a screen. Pillow's others can start helper programs.
FORMATS = (*("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "TGA"),)

VERSION = 2
"""Of how files are decoded: what an older one has kept is decoded again."""

MOST_PIXELS = 89_478_485
"""Of one picture, as Pillow has it: 256 MB of red, green and blue."""

LARGE = 1 << 22
"""Pictures of more pixels are decoded one at a time."""

ONE_AT_A_TIME = Lock()

STRIP = 256
"""Rows of which a fingerprint is made at a time."""

# An image (C, H, W) and a fingerprint of it before resizing.
Decoded = tuple[NDArray[np.uint8], str]

Pictures: TypeAlias = NDArray[np.uint8] | stored.Stored
"""Decoded images (N, C, H, W), in memory or in a file."""

_AT_ONCE = 256
"""So many files are decoded ahead."""


def pictures(
    name: str,
    files: Sequence[ImageFile],
    root: Path,
    side: int | None,
    decoder: Callable[[ImageFile], Decoded],
) -> tuple[Pictures, list[str]]:
    """The images (N, C, H, W), and one fingerprint each, of the files of data set `name` in `root`.

    `decoder` is called for each file unless the cache has them all. C is 1 when all images are gray
    (equal in all channels), whatever their files' modes. `side` is that of the resized images, None
    for images as they are.

    Images that need more than `IN_MEMORY` stay in a file of the cache folder.
    Raises `ValueError` when the decoded images differ in size, OSError where the folder has no room
    for those.
    """
    key = f"{name}-{side or 'own'}-{_key(files, root)}"
    file = cache_root() / f"{key}.images"
    if (kept := stored.opened(file, len(files))) is not None:
        return kept
    arrays = in_cache(key, fits=lambda found: _fits(found, len(files), side))
    if arrays is None:
        first, _ = decoder(files[0])
        need = len(files) * first.nbytes
        large = need > stored.IN_MEMORY
        check_memory(
            str(root),
            need,
            sum(one.size for one in files),
            advice=f"{files[0].shown} has {_size(first.shape)} pixels (width x height), and there "
            f"are {len(files)}: resize all with data.size, such as data.size=64"
            + ", or name another cache folder, IMA_CACHE"
            * large,
            folder=file.parent if large else None,
        )
        if large:
            stored.write(file, _decoded_files(files, root, decoder))
            if (kept := stored.opened(file, len(files))) is not None:
                return kept
            raise ValueError(f"{file} was taken away while it was in use; start again")
        arrays = _decode_all(files, root, decoder)
        cache(key, arrays)
    return arrays["images"], [str(text) for text in arrays["prints"]]


def decode(file: ImageFile, side: int | None, *, gray: bool) -> Decoded:
    """The image, (1, H, W) if `gray`, else (3, H, W), and a fingerprint of it before resizing.

    It is resized to `side` x `side` with Lanczos, not keeping the aspect ratio; transparency is
    left away. Raises `ValueError`, naming the file, for one that cannot be decoded, that holds
    several pictures (pages, frames) or more than 8 bits a channel.
    """
    need("data")
    from PIL import Image, UnidentifiedImageError

    raw = b""
    try:
        raw = file.read()
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            _refuse(image)
            large = image.width * image.height > LARGE
            with ONE_AT_A_TIME if large else nullcontext():
                return _decoded(image, side, gray=gray)
    except Exception as error:  # Pillow's formats raise whatever comes, down to SyntaxError
        why = error
        if isinstance(error, UnidentifiedImageError):
            # Pillow names a buffer in memory.
            why = "it holds no picture of a format that is read" if raw else "it is empty"
        raise ValueError(
            f"{file.shown} cannot be decoded ({why}); expected one undamaged picture of 8 bits a "
            "channel: fetch or save it again"
        ) from error


def _decoded(image: "Opened", side: int | None, *, gray: bool) -> Decoded:
    from PIL import Image

    upright = _upright(image)
    # A palette's transparency, if any, would make the direct way warn. The colours are equal.
    whole = upright.convert("RGBA") if upright.mode == "P" else upright
    whole = whole if whole.mode == "RGB" else whole.convert("RGB")
    if gray:
        whole = whole.convert("L")
    small = whole if side is None else whole.resize((side, side), Image.Resampling.LANCZOS)
    told = hashlib.blake2b(f"{whole.width}x{whole.height}".encode(), digest_size=16)
    for top in range(0, whole.height, STRIP):
        strip = (0, top, whole.width, min(top + STRIP, whole.height))
        told.update(whole.crop(strip).tobytes())
    pixels = np.asarray(small)
    channels_first = pixels[None] if gray else np.moveaxis(pixels, -1, 0)
    return channels_first, told.hexdigest()


def _upright(image: "Opened") -> "Opened":
    """The picture as it is meant to be seen: cameras note how they were held."""
    from PIL import ImageOps

    # First: a TIFF is turned, and its note taken away, while it is loaded.
    image.load()
    with suppress(Exception):  # a damaged note says nothing
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _refuse(image: "Opened") -> None:
    """Raise ValueError for an opened image of which Pillow would leave something away."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(
            f"it has {image.width}x{image.height} pixels, which would take "
            f"{human_size(3 * image.width * image.height)}; expected at most {MOST_PIXELS} pixels"
        )
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
    if image.format in BITS:
        return BITS[image.format](cast("io.BytesIO", image.fp).getvalue())
    # BMP's 16 bits are those of all channels together.
    return image.format != "BMP" and any(";16" in str(form) for form in forms)


def _deep_jpeg2000(raw: bytes) -> bool:
    """Whether its codestream has more than 8 bits: one byte a channel, its highest bit the sign."""
    at = raw.find(b"\xff\x4f\xff\x51")
    channels = int.from_bytes(raw[at + 40 : at + 42], "big")
    return at < 0 or any((bits & 0x7F) > 7 for bits in raw[at + 42 : at + 42 + 3 * channels : 3])


def _deep_avif(raw: bytes) -> bool:
    """Whether a bit of its configuration says that there are 10 or 12."""
    at = raw.find(b"av1C")
    return at < 0 or bool(raw[at + 6] & 0x40)


BITS: dict[str | None, Callable[[bytes], bool]] = {
    "JPEG2000": _deep_jpeg2000,
    "AVIF": _deep_avif,
}
"""Formats of whose deeper pictures Pillow gives 8 bits without a word."""


def _key(files: Sequence[ImageFile], root: Path) -> str:
    need("data")
    # Pillow's version counts too: resizing may be rounded differently.
    from PIL import __version__

    told = [str(VERSION), __version__, str(root.absolute())]
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

    images, prints, channels = np.empty(0, dtype=np.uint8), list[str](), 1
    for at, (image, fingerprint, own) in enumerate(_decoded_files(files, root, decoder)):
        if at == 0:
            images = np.empty((len(files), *image.shape), dtype=np.uint8)
        images[at], channels = image, max(channels, own)
        prints.append(fingerprint)
    return {"images": np.ascontiguousarray(images[:, :channels]), "prints": np.array(prints)}


def _decoded_files(
    files: Sequence[ImageFile], root: Path, decoder: Callable[[ImageFile], Decoded]
) -> Iterator[tuple[NDArray[np.uint8], str, int]]:
    """Every image in its order, its fingerprint, and its channels: 1 where all are equal."""
    from PIL import Image

    Image.init()  # once and here: loading the formats is not made for several threads
    shape: tuple[int, ...] = ()
    # Threads, because Pillow decodes and resizes outside Python's lock; the order stays.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for start in range(0, len(files), _AT_ONCE):
                some = files[start : start + _AT_ONCE]
                for file, (image, fingerprint) in zip(some, pool.map(decoder, some), strict=True):
                    shape = shape or image.shape
                    if image.shape != shape:
                        raise ValueError(
                            f"the images of {root} differ in size: {files[0].shown} has "
                            f"{_size(shape)} pixels (width x height), {file.shown} "
                            f"{_size(image.shape)}; resize all with data.size, such as data.size=64"
                        )
                    gray = bool((image == image[:1]).all())
                    yield image, fingerprint, 1 if gray else len(image)
        except BaseException:
            # What was not begun would only take time and memory.
            pool.shutdown(cancel_futures=True)
            raise


def _size(shape: Sequence[int]) -> str:
    return f"{shape[2]}x{shape[1]}"
