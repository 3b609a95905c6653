"""Data sets: a table of loaders, and what every loaded data set looks like."""

import difflib
from pathlib import Path

from ima.data import arrays, cifar10, covid_ct, digits, folder, plane, svhn
from ima.data.base import DataRow, Part, Splits
from ima.data.indexed import Indexed

__all__ = ["DATASETS", "DataRow", "Indexed", "Part", "Splits", "load"]

DATASETS: dict[str, DataRow] = {
    "digits": DataRow("digits", digits.load, digits.SOURCE, digits.SUMMARY, digits.WHERE),
    "arrays": DataRow("arrays", arrays.load, arrays.SOURCE, arrays.SUMMARY, arrays.WHERE),
    "covid_ct": DataRow(
        "covid_ct", covid_ct.load, covid_ct.SOURCE, covid_ct.SUMMARY, covid_ct.WHERE
    ),
    "cifar10": DataRow("cifar10", cifar10.load, cifar10.SOURCE, cifar10.SUMMARY, cifar10.WHERE),
    "svhn": DataRow("svhn", svhn.load, svhn.SOURCE, svhn.SUMMARY, svhn.WHERE),
    "folder": DataRow("folder", folder.load, folder.SOURCE, folder.SUMMARY, folder.WHERE),
    "plane": DataRow("plane", plane.load, plane.SOURCE, plane.SUMMARY, plane.WHERE),
}


def load(
    name: str, *, path: str | Path | None = None, size: int | None = None, seed: int = 0
) -> Splits:
    """Load the data set `name` of `DATASETS`.

    `path` is its folder or file; without one, the folder named by the environment variable
    IMA_DATA, else ./data, is searched for the data set's usual names. `size` is the side of the
    images in pixels, for data sets that are resized. `seed` decides what the data set itself does
    not: which samples go to which part.

    Raises `ValueError` for an unknown name, a negative seed, a size below 1 and for damaged or
    unfit files, `FileNotFoundError` when there are none.
    """
    if name not in DATASETS:
        nearest = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown data set {name!r}; did you mean {nearest!r}? There are: {', '.join(DATASETS)}"
        )
    if seed < 0:
        raise ValueError(f"the seed is {seed}, expected 0 or more")
    if size is not None and size < 1:
        raise ValueError(f"the size is {size}, expected at least 1 pixel")
    return DATASETS[name].load(path, size=size, seed=seed)
