"""Data sets: a table of loaders, and what every loaded data set looks like."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ima.data import arrays, cifar10, covid_ct, digits, folder, plane, svhn
from ima.data.base import DataRow, Part, Splits
from ima.data.indexed import Indexed
from ima.data.own import load_own
from ima.imported import find_row

__all__ = ["DATASETS", "DataRow", "Indexed", "Part", "Splits", "find_loader", "load"]

DATASETS = {
    row.name: row
    for row in (
        DataRow(
            module.__name__.rpartition(".")[2],
            module.load,
            module.SOURCE,
            module.SUMMARY,
            module.WHERE,
        )
        for module in (digits, arrays, covid_ct, cifar10, svhn, folder, plane)
    )
}


def find_loader(name: str) -> Callable[..., Splits]:
    """What reads the data set of this name, or the one that a function at `module:name` gives.

    Raises ValueError for a name that is neither, naming the nearest, and for what cannot be
    imported.
    """
    loaders = {row.name: row.load for row in DATASETS.values()}
    return find_row("data set", name, loaders, partial(partial, load_own, name))


def load(
    name: str, *, path: str | Path | None = None, size: int | None = None, seed: int = 0
) -> Splits:
    """Load the data set `name` of `DATASETS`, or what the function `module:name` gives.

    `path` is its folder or file; without one, the folder named by the environment variable
    IMA_DATA, else ./data, is searched for the data set's usual names. `size` is the side of the
    images in pixels, for data sets that are resized. `seed` decides what the data set itself does
    not: which samples go to which part. A function of your own is given those of the three that it
    names; what it returns: see `ima.data.own`.

    Raises `ValueError` for an unknown name, a negative seed, a size below 1 and for damaged or
    unfit files, `FileNotFoundError` when there are none.
    """
    loader = find_loader(name)
    if seed < 0:
        raise ValueError(f"the seed is {seed}, expected 0 or more")
    if size is not None and size < 1:
        raise ValueError(f"the size is {size}, expected at least 1 pixel")
    return loader(path, size=size, seed=seed)
