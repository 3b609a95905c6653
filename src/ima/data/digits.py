"""Handwritten digits, 8x8: real, small, and shipped with scikit-learn, so nothing to fetch.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49 (its test set of 1797 images).
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ima.data.base import Part, Splits
from ima.data.find import check_size
from ima.data.split import stratified
from ima.extras import need

SOURCE = (
    "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, "
    "https://doi.org/10.24432/C50P49"
)
SUMMARY = "1797 handwritten digits of 8x8 gray pixels, ten classes, for trying things out."
WHERE = "Nothing to get: scikit-learn, which is installed with ima, brings it along."

TEST, VAL = 540, 360


def load(path: str | Path | None = None, *, size: int | None = None, seed: int = 0) -> Splits:
    """Load the digits, split by `seed` with classes in proportion: 897 / 360 / 540.

    Samples are (1, 8, 8), float32 in [0, 1] (stored counts 0 to 16 divided by 16). Raises
    `ValueError` for a path, or for a size other than 8.
    """
    if path is not None:
        raise ValueError(
            f"data set 'digits' got the path {str(path)!r}, but comes with scikit-learn; "
            "leave data.path out, or load your own files as data set 'arrays'"
        )
    check_size("digits", size, 8)
    need("data")
    # Here and not above: importing scikit-learn takes a second that other data sets need not pay.
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs]

    shipped = cast("Any", load_digits())
    counts: NDArray[np.float32] = np.asarray(shipped.images, dtype=np.float32)[:, None]
    targets: NDArray[np.int64] = np.asarray(shipped.target, dtype=np.int64)

    test = stratified(targets, TEST, seed)
    rest = np.flatnonzero(~test)
    held_out = stratified(targets[rest], VAL, seed)

    def part(chosen: NDArray[np.intp]) -> Part:
        return Part(torch.as_tensor(counts[chosen] / 16), torch.as_tensor(targets[chosen]))

    return Splits(
        name="digits",
        train=part(rest[~held_out]),
        val=part(rest[held_out]),
        test=part(np.flatnonzero(test)),
        classes=tuple(str(digit) for digit in range(10)),
        note=(
            f"Random split with seed {seed}, classes in proportion. Images do not "
            "name their writers: one writer's digits can be in training and in test."
        ),
    )
