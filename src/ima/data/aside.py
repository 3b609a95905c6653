"""Files beside the images: told, and refused where they are images too, by what is in them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ima.data.folders import ImageFile, is_hidden

PROBED = 1000
"""So many files of one suffix are looked into."""

FEW = 3

APPLE = b"\x00\x05\x16\x07"
"""The first bytes of what macOS writes beside a file, `._a.png` beside `a.png`."""

# Formats with a beginning of their own, so that a text does not pass for one.
OPENED = (
    *("AVIF", "BMP", "DDS", "DIB", "EPS", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG"),
    *("PPM", "PSD", "QOI", "SGI", "SUN", "TIFF", "WEBP"),
)

KINDS = {
    ".dcm": "DICOM, which is not read: export it as PNG",
    ".dicom": "DICOM, which is not read: export it as PNG",
    ".ima": "DICOM, which is not read: export it as PNG",
    ".heic": "HEIF, which is not read: save it as PNG",
    ".heif": "HEIF, which is not read: save it as PNG",
    ".nii": "NIfTI, which is not read: put volumes into an .npz, see data set 'arrays'",
    ".mha": "MetaImage, which is not read: put volumes into an .npz, see data set 'arrays'",
    ".nrrd": "NRRD, which is not read: put volumes into an .npz, see data set 'arrays'",
    ".npy": "arrays, which are not read: put them into an .npz, see data set 'arrays'",
    ".svg": "drawings, which are not read: save them as PNG",
    ".pdf": "documents, which are not read: save their pictures as PNG",
}
"""What holds pictures that are not read, by its suffix, and what to do."""


def told(root: Path, files: Sequence[ImageFile]) -> str:
    """What is left out beside the images of `root`, in a sentence; "" for nothing.

    files: those without a suffix of an image, and hidden ones, which are not told. Raises
    ValueError where some of them are images nevertheless.
    """
    shown = [file for file in files if not is_hidden(file.name)]
    kinds: dict[tuple[bool, str], list[ImageFile]] = {}
    for file in files:
        hidden = is_hidden(file.name)
        # There may be one of these beside every image.
        if not (hidden and _starts(file).startswith(APPLE)):
            kinds.setdefault((hidden, _suffix(file.name)), []).append(file)
    images = [
        f"{file.shown} ({form})"
        for same in kinds.values()
        for file in same[:PROBED]
        if (form := _form(file)) is not None
    ]
    if images:
        more = f" and {len(images) - FEW} more" if len(images) > FEW else ""
        raise ValueError(
            f"{root} holds images whose names do not end as those of images that are read, or are "
            f"those of hidden files: {', '.join(images[:FEW])}{more}. They would be left out: give "
            "them their usual ending (.png, .jpg, .tif, ...) and no dot in front, save them as "
            "PNG, or move them away"
        )
    counts = Counter(_kind(file) for file in shown)
    if not counts:
        return ""
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    are = "file beside the images was" if len(shown) == 1 else "files beside the images were"
    return f"{len(shown)} {are} left out: {listed}."


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _kind(file: ImageFile) -> str:
    """What a file is, for counting: its suffix and, where that is known, what to do."""
    suffix = _suffix(file.name)
    words = KINDS.get(suffix) or (KINDS[".dcm"] if _starts(file)[128:132] == b"DICM" else "")
    return f"{suffix or 'without an ending'}{f' ({words})' if words else ''}"


def _starts(file: ImageFile) -> bytes:
    try:
        with file.opened() as stream:
            return stream.read(132)
    except Exception:  # whatever a damaged archive raises: it is not an image that is read
        return b""


def _form(file: ImageFile) -> str | None:
    """The format of an image, None for what is none; only its head is read."""
    from PIL import Image

    try:
        # Of its size: it is told either way.
        with warnings.catch_warnings(), file.opened() as stream:
            warnings.simplefilter("ignore")
            with Image.open(stream, formats=OPENED) as image:
                return image.format
    except Image.DecompressionBombError:
        return "an image of very many pixels"
    except Exception:  # Pillow's formats raise whatever comes
        return None
