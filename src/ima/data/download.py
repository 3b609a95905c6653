"""Fetching public data sets from where their authors keep them, checked against known checksums."""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ima.data.find import data_root, row_of
from ima.files import unwritable, whole

TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 20

# Told the file, the bytes so far, and the bytes in all if known.
DownloadReport = Callable[[Path, int, int | None], None]


@dataclass(frozen=True)
class Original:
    """One published file: its address and its MD5 checksum, as published or widely known."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class DownloadRow:
    """A row of the table: the files, and the data set of `DATASETS` that loads them.

    `folder` is where below `data_root()` they go, if not into the folder of the row's name.
    """

    name: str
    files: tuple[Original, ...]
    loader: str
    folder: str | None = None


TORONTO = "https://www.cs.toronto.edu/~kriz/"
STANFORD = "http://ufldl.stanford.edu/housenumbers/"
ZENODO = "https://zenodo.org/records/10519652/files/"

DOWNLOADS: dict[str, DownloadRow] = {
    row.name: row
    for row in (
        DownloadRow(
            "cifar10",
            (Original(TORONTO + "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),),
            "cifar10",
        ),
        DownloadRow(
            "svhn",
            (
                Original(STANFORD + "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
                Original(STANFORD + "test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
            ),
            "svhn",
        ),
        DownloadRow(
            "pneumoniamnist",
            (Original(ZENODO + "pneumoniamnist.npz", "28209eda62fecd6e6a2d98b1501bb15f"),),
            "arrays",
            folder="medmnist",  # where the experiment `pneumonia` looks
        ),
    )
}


def fetch(
    name: str,
    folder: str | Path | None = None,
    *,
    report: DownloadReport | None = None,
) -> list[Path]:
    """Download the files of data set `name` of `DOWNLOADS` into `folder`; their paths.

    Without `folder` it is the row's in IMA_DATA, else in ./data. Files that are there with the
    right checksum are kept as they are. A file appears whole and checked, or not at all; `report`
    is called while it comes. A folder that was made for files of which none came is removed.

    Raises `ValueError` for an unknown name, a file with another checksum (there already, or as
    downloaded), `OSError` when a file cannot be had, or not be written; all say what to do.
    """
    row = row_of(DOWNLOADS, name, "download")
    usual = data_root() / (row.folder or name)
    target = usual if folder is None else Path(folder).expanduser()
    new = _absent(target)
    if not new and not target.is_dir():
        raise ValueError(f"{target} is a file; expected a folder to download to")
    # All that are there are looked at before the first is fetched.
    wanted = [(original, target / original.name) for original in row.files]
    absent = [(original, file) for original, file in wanted if not _present(file, original)]
    try:
        for original, file in absent:
            _download(original, file, report)
    except BaseException:
        # Empty, they would be taken for the data set, or stand in the way of another place.
        for place in new:
            with suppress(OSError):
                place.rmdir()
        raise
    return [file for _, file in wanted]


def _absent(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist, deepest first."""
    try:
        return [place for place in (folder, *folder.parents) if not place.exists()]
    except OSError as error:
        raise unwritable(folder, error) from error


def _present(file: Path, original: Original) -> bool:
    if not file.exists():
        return False
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, partial(hashlib.md5, usedforsecurity=False))
    if digest.hexdigest() != original.md5:
        raise ValueError(
            f"{file} is there, but is not the published file: its MD5 is {digest.hexdigest()}, "
            f"expected {original.md5}. Move it away, or name another folder"
        )
    return True


def _download(original: Original, file: Path, report: DownloadReport | None) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    done = 0
    with whole(file) as part:
        # Errors of writing are not those of fetching.
        with part.open("wb") as out, closing(_pieces(original, file)) as pieces:
            for piece, total in pieces:
                out.write(piece)
                digest.update(piece)
                done += len(piece)
                if report is not None:
                    report(file, done, total)
        if digest.hexdigest() != original.md5:
            told = f"came with MD5 {digest.hexdigest()}, expected {original.md5}; it was not kept"
            raise ValueError(_by_hand(original, file, told))


def _pieces(original: Original, file: Path) -> Generator[tuple[bytes, int | None], None, None]:
    """The bytes as they come, each time with the number of them all if it is known."""
    done, total = 0, None
    try:
        with urllib.request.urlopen(original.url, timeout=TIMEOUT) as answer:
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            while piece := answer.read(_CHUNK):
                done += len(piece)
                yield piece, total
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise OSError(_by_hand(original, file, f"could not be fetched ({error})")) from error
    if total is not None and done < total:
        told = f"was cut off after {done} of {total} bytes"
        raise OSError(_by_hand(original, file, told))


def _by_hand(original: Original, file: Path, told: str) -> str:
    return (
        f"{original.url} {told}. Try again later, or fetch it by hand, with a browser or from a "
        f"machine with network, and put it at {file.absolute()} (MD5 {original.md5})"
    )
