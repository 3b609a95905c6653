"""Whether samples are known to be of one case, on which every interval depends."""

from __future__ import annotations

from collections.abc import Sequence

from ima.evaluation.results import CLEAN, Results
from ima.evaluation.segmentation_results import SegmentationResults

OWN = (
    "Every sample is taken for a case of its own; where several are from one patient, the "
    "intervals are too narrow."
)


def cases_of(results: Results | SegmentationResults) -> int | None:
    """How many cases the samples are from; None where nobody said."""
    if isinstance(results, SegmentationResults):
        return len(results.cases) if results.knows_cases else None
    names = {row.case for row in results.of(CLEAN)}
    return None if not names or "" in names else len(names)


def told_cases(results: Sequence[Results | SegmentationResults]) -> str:
    """The sentence beside intervals."""
    counts = [cases_of(one) for one in results]
    if not counts or None in counts:
        return OWN
    numbers = " or ".join(map(str, dict.fromkeys(counts)))
    return f"Intervals are over {numbers} cases, as the samples of one are alike."
