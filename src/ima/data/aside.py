"""Files beside the images: told, and refused where they are images too, by what is in them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ima.data.folders import SUFFIXES, ImageFile, is_hidden
from ima.data.pictures import FORMATS
from ima.extras import need

PROBED = 1000
"""So many files of one suffix are looked into."""

_FEW = 3

# Formats with a beginning of their own, so that a text does not pass for one.
OPENED = (
    *("AVIF", "BMP", "DDS", "DIB", "EPS", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG"),
    *("PPM", "PSD", "QOI", "SGI", "SUN", "TIFF", "WEBP"),
)

APPLE_DOUBLE = b"\0\5\x16\7"
"""How files begin that macOS puts beside others, under their names."""

NOT_READ = {
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


def describe_aside(
    root: Path, files: Sequence[ImageFile], within: Sequence[tuple[str, ...]] = ()
) -> str:
    """What is left out beside the images of `root`, in a sentence; "" for nothing.

    files: those without a suffix of an image, and hidden ones, which are not told; within: the
    paths, in parts, of images in hidden folders. Raises ValueError where some of `files` are images
    nevertheless.
    """
    hidden = [file for file in files if is_hidden(file.name)]
    files = [file for file in files if not is_hidden(file.name)]
    kinds: dict[str, list[ImageFile]] = {}
    for file in files:
        kinds.setdefault(_suffix(file.name), []).append(file)
    _refuse(
        root,
        [(file, _form(file, OPENED)) for same in kinds.values() for file in same[:PROBED]],
        "whose names do not end as those of images that are read",
        "give them their usual ending (.png, .jpg, .tif, ...), save them as PNG, or move them away",
    )
    _refuse(
        root,
        [(file, _hidden_form(file)) for file in hidden],
        "whose names are those of hidden files",
        "give them usual names, without a dot at the beginning, or move them away",
    )
    counts = Counter(_kind(file) for file in files)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    are = "file beside the images was" if len(files) == 1 else "files beside the images were"
    beside = f"{len(files)} {are} left out: {listed}." if counts else ""
    folders = sorted({"/".join(parts[:-1]) for parts in within})
    more = f" and {len(folders) - _FEW} more" if len(folders) > _FEW else ""
    were = "image in a hidden folder was" if len(within) == 1 else "images in hidden folders were"
    inside = f"{len(within)} {were} left out: {', '.join(folders[:_FEW])}{more}." if within else ""
    return f"{beside} {inside}".strip()


def _refuse(
    root: Path, found: Sequence[tuple[ImageFile, str | None]], what: str, advice: str
) -> None:
    """Raise ValueError where some of the files have the format of an image."""
    images = [f"{file.shown} ({form})" for file, form in found if form is not None]
    if images:
        more = f" and {len(images) - _FEW} more" if len(images) > _FEW else ""
        raise ValueError(
            f"{root} holds images {what}: {', '.join(images[:_FEW])}{more}. "
            f"They would be left out: {advice}"
        )


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _kind(file: ImageFile) -> str:
    """What a file is, for counting: its suffix and, where that is known, what to do."""
    suffix = _suffix(file.name)
    words = NOT_READ.get(suffix) or (NOT_READ[".dcm"] if _starts(file)[128:132] == b"DICM" else "")
    return f"{suffix or 'without an ending'}{f' ({words})' if words else ''}"


def _starts(file: ImageFile) -> bytes:
    try:
        with file.opened() as stream:
            return stream.read(132)
    except Exception:  # whatever a damaged archive raises: it is not an image that is read
        return b""


def _hidden_form(file: ImageFile) -> str | None:
    """The format of a hidden image; None for what is none, as what macOS keeps beside a file."""
    if _starts(file).startswith(APPLE_DOUBLE):
        return None
    # Formats without a beginning too, where the name says so.
    return _form(file, (*OPENED, *FORMATS) if _suffix(file.name) in SUFFIXES else OPENED)


def _form(file: ImageFile, formats: Sequence[str]) -> str | None:
    """The format of an image, None for what is none; only its head is read."""
    need("data")
    from PIL import Image

    try:
        # Of its size: it is told either way.
        with warnings.catch_warnings(), file.opened() as stream:
            warnings.simplefilter("ignore")
            with Image.open(stream, formats=[*formats]) as image:
                return image.format
    except Image.DecompressionBombError:
        return "an image of very many pixels"
    except Exception:  # Pillow's formats raise whatever comes
        return None
