"""The Decathlon's own files: a task's folder or .tar, its cases, and what can be wrong there."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ima.files import read_json
from ima.nnunet.environment import INSTALL

ENDING = ".nii.gz"
HEADER = "dataset.json"
_PARTS = ("imagesTr", "labelsTr")
"""The folders of the labelled cases; the Decathlon keeps the labels of the others to itself."""

_CHUNK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class CaseSource:
    """A task on disk: its folder, how errors name it, and what dataset.json says."""

    folder: Path
    shown: str
    header: Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A labelled case: its name, its image and its labels."""

    name: str
    image: Path
    label: Path


@contextmanager
def at_source(path: Path, name: str) -> Generator[CaseSource]:
    """The task `name` in a folder or a .tar, which is unpacked for as long as this is open.

    A folder may be the task's own or one that holds it. Of a .tar the task's regular files are
    taken alone. Raises `FileNotFoundError` where the task is not there, `ValueError` for an archive
    that is damaged or would write outside its folder.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {str(path)!r}; expected the folder or .tar of {name}")
    if path.is_dir():
        yield _read(path / name if (path / name).is_dir() else path, str(path), name)
        return
    with tempfile.TemporaryDirectory(prefix="ima-msd-") as unpacked:
        _unpack(path, Path(unpacked), name)
        yield _read(Path(unpacked) / name, str(path), name)


def cases(source: CaseSource, *, channels: int) -> dict[str, Case]:
    """The labelled cases that dataset.json lists, by name.

    Raises `ValueError` for a list that is none, or names a case twice, `FileNotFoundError` where
    files are missing.
    """
    listed = source.header.get("training")
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{source.shown}: `training` in {HEADER} lists no cases")
    found: dict[str, Case] = {}
    missing: list[str] = []
    for entry in listed:
        name = _name(entry, source)
        if name in found:
            raise ValueError(f"{source.shown}: `training` in {HEADER} lists {name} twice")
        files = [source.folder / part / f"{name}{ENDING}" for part in _PARTS]
        missing += [f"{file.parent.name}/{file.name}" for file in files if not file.is_file()]
        found[name] = Case(name, *files)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise FileNotFoundError(
            f"{source.shown} lacks {', '.join(missing[:3])}{more}, which {HEADER} lists; the copy "
            "is not whole: get it again"
        )
    return found


def copy_case(case: Case, images: Path, labels: Path, channels: int, classes: int) -> None:
    """Check a case, and copy it in nnU-Net's form: NAME_0000.nii.gz, NAME_0001.nii.gz, ...

    Files are copied byte by byte, unless one holds several channels. Raises `ValueError` for files
    that cannot be read, labels other than 0, 1, ..., classes - 1, and shapes that differ. Values
    that are not finite nobody sees: SimpleITK, by which nnU-Net reads too, makes them 0.
    """
    sitk = _sitk()
    image, label = _volume(case.image), _volume(case.label)
    shape = sitk.GetArrayViewFromImage(image).shape
    several = channels > 1
    if len(shape) != 3 + several or (several and shape[0] != channels):
        expected = f"four axes, {channels} channels among them" if several else "three axes"
        raise ValueError(f"{case.image} has the shape {shape}; expected {expected}")
    if (came := sitk.GetArrayViewFromImage(label).shape) != shape[several:]:
        raise ValueError(
            f"{case.label} has the shape {came}, but its image {shape[several:]}; expected equal "
            "shapes"
        )
    values = np.unique(sitk.GetArrayViewFromImage(label))
    if not np.isin(values, range(classes)).all():
        raise ValueError(
            f"{case.label} holds the labels {', '.join(f'{v:g}' for v in values[:10])}; expected "
            f"only 0 to {classes - 1}"
        )
    shutil.copyfile(case.label, labels / case.label.name)
    if not several:
        shutil.copyfile(case.image, images / f"{case.name}_0000{ENDING}")
        return
    for channel in range(channels):
        one = images / f"{case.name}_{channel:04d}{ENDING}"
        sitk.WriteImage(image[..., channel], str(one), useCompression=True)


def _sitk() -> Any:
    try:
        return import_module("SimpleITK")
    except ImportError as error:
        raise ImportError(
            f"SimpleITK, which comes with nnU-Net, is not installed: {INSTALL}"
        ) from error


def _volume(file: Path) -> Any:
    """The file as SimpleITK reads it, once it is known to be whole."""
    damaged = f"{file} cannot be read as NIfTI; it is damaged or no NIfTI: get it again"
    try:
        # SimpleITK fills what a shortened file lacks with zeros, and says nothing.
        with gzip.open(file) as content:
            while content.read(_CHUNK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{damaged} ({error})") from error
    try:
        return _sitk().ReadImage(str(file))
    except RuntimeError as error:
        raise ValueError(damaged) from error


def _name(entry: Any, source: CaseSource) -> str:
    """A case's name from an entry of dataset.json."""
    files = [entry.get("image"), entry.get("label")] if isinstance(entry, dict) else []
    names = {
        PurePosixPath(file).name.removesuffix(ENDING) for file in files if isinstance(file, str)
    }
    ends = all(isinstance(file, str) and file.endswith(ENDING) for file in files)
    if not files or not ends or len(names) != 1 or not _NAME.fullmatch(name := names.pop()):
        raise ValueError(
            f"{source.shown}: `training` in {HEADER} lists {entry!r}; expected the image and the "
            f"label of one case, such as ./imagesTr/heart_001{ENDING} and ./labelsTr/heart_001"
            f"{ENDING}"
        )
    return name


def _read(folder: Path, shown: str, name: str) -> CaseSource:
    file = folder / HEADER
    if not file.is_file():
        raise FileNotFoundError(
            f"{shown} holds no {HEADER} of {name}; expected the task's folder with {HEADER}, "
            f"{' and '.join(_PARTS)}"
        )
    return CaseSource(folder, shown, read_json(file, shown=f"{shown}: {HEADER}"))


def _unpack(archive: Path, target: Path, name: str) -> None:
    """The task's header, images and labels out of a .tar, each a regular file."""
    found = False
    tops: set[str] = set()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                # Copies made on a Mac hold a "._" companion of every file.
                if member.isdir() or not parts or parts[-1].startswith("._"):
                    continue
                if PurePosixPath(member.name).is_absolute() or ".." in parts:
                    raise ValueError(
                        f"{archive} holds {member.name!r}, a file outside its own folder; it is no "
                        "archive of the Decathlon's, and nothing of it was kept"
                    )
                tops.add(parts[0])
                if parts[0] != name:
                    continue
                if not member.isfile():
                    raise ValueError(
                        f"{archive} holds {member.name!r}, which is a link or a device; expected "
                        "regular files only, and nothing of it was kept"
                    )
                if parts[1:] == (HEADER,) or (len(parts) == 3 and parts[1] in _PARTS):
                    tar.extract(member, target, filter="data")
                    found = True
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(
            f"{archive} is no .tar, or a damaged one ({error}); get it again"
        ) from error
    if not found:
        raise FileNotFoundError(
            f"{archive} holds no {name}, but {', '.join(sorted(tops)) or 'nothing'}"
        )
