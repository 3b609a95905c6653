"""The paper's three data sets for segmentation, and how it trains and tests on them.

Source: Ma & Liang, IMA training, 3.5 and Tables 6 to 8.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperTask:
    """One of the paper's three data sets, and how the paper trains and tests on it.

    split: cases for training, validation and test; labels: of the classes, background first;
    batch_size; eps, delta: largest margin and its growth, L2, in z-scored units; sat: radii of SAT;
    levels: of the noise in the tables.
    """

    name: str
    number: int
    split: tuple[int, int, int]
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    batch_size: int
    eps: float
    delta: float
    sat: tuple[float, ...]
    levels: tuple[float, ...]

    @property
    def title(self) -> str:
        """The name without the number."""
        return self.name.split("_", 1)[1]

    def dataset(self, number: int | None = None) -> str:
        """The name of the data set in nnU-Net, whose number can be another."""
        return f"Dataset{self.number if number is None else number:03d}_{self.title}"


PAPER_TASKS: dict[str, PaperTask] = {
    row.name: row
    for row in (
        PaperTask(
            "Task02_Heart",
            2,
            (16, 1, 3),
            ("MRI",),
            ("background", "left atrium"),
            40,
            20.0,
            5.0,
            (5.0, 15.0, 25.0),
            (5.0, 10.0, 15.0),
        ),
        PaperTask(
            "Task04_Hippocampus",
            4,
            (208, 17, 35),
            ("MRI",),
            ("background", "Anterior", "Posterior"),
            366,
            15.0,
            2.0,
            (5.0, 10.0, 15.0),
            (2.0, 6.0, 10.0),
        ),
        PaperTask(
            "Task05_Prostate",
            5,
            (25, 2, 5),
            ("T2", "ADC"),
            ("background", "PZ", "TZ"),
            32,
            40.0,
            10.0,
            (10.0, 20.0, 40.0),
            (10.0, 20.0, 40.0),
        ),
    )
}
"""The data sets of the paper's Tables 6, 7 and 8."""


def by_dataset(dataset: str) -> PaperTask | None:
    """The task behind one of nnU-Net's data sets, such as `Dataset004_Hippocampus`, if any."""
    title = dataset.partition("_")[2].casefold()
    return next((task for task in PAPER_TASKS.values() if task.title.casefold() == title), None)
