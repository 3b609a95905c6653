"""Attack a segmentation network and leave the rows, and slices for pictures, in a folder.

What is finished stays there under way, so that the same call continues after a stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ima.attacks.inputs import Bounds
from ima.budget import Budget
from ima.evaluation.naming import Names
from ima.evaluation.noise import WHITE_NOISE
from ima.evaluation.overlays import Overlays
from ima.evaluation.remarks import said_beside
from ima.evaluation.segment_attacks import find_segment_attack
from ima.evaluation.segmentation_results import OVERLAYS, WORST, SegmentationResults
from ima.evaluation.segments import evaluate_segmentation
from ima.norms import Norm
from ima.tasks import Segmentation

ATTACKS = ("pgd-100", "ifgsm-10", "ensemble-100", "noise-100")
"""Where none are asked for."""


@dataclass(frozen=True)
class Sheet:
    """Where an evaluation goes, and what it is called there.

    path: of the rows; slices for pictures lie beside it, and so does what is under way. label: of
    the network on pages; digest: of the data, so that slices of other data are not taken for these.
    """

    path: Path
    label: str
    digest: str

    @property
    def record(self) -> Path:
        """The finished batches of an evaluation under way."""
        return self.path.with_suffix(".part")


@said_beside()
def attack_segmentation(
    sheet: Sheet,
    model: nn.Module,
    data: Any,
    eps: Sequence[float],
    attacks: Sequence[str],
    *,
    task: Segmentation,
    norm: Norm | float | str = 2,
    bounds: Bounds = None,
    batch_size: int = 16,
    seed: int = 0,
    names: Names | None = None,
    classes: Sequence[str] | None = None,
    settings: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> SegmentationResults:
    """The rows, written to `sheet.path`; white noise comes by itself.

    settings: of the results, besides those that are known here. Other arguments, and what is
    raised, as of `evaluate_segmentation`. The record of what was under way stays; delete it when
    done.
    """
    attacks = list(dict.fromkeys(attacks))
    aimed = [name for name in attacks if find_segment_attack(name)[0].amplitude is None]
    strongest = WORST if len(aimed) > 1 else next(iter(aimed), "")
    overlays = Overlays(strongest, sheet.record, sheet.digest, ignore_label=task.ignore_label)

    def after_batch(done: int, total: int) -> None:
        overlays.save()
        if progress is not None:
            progress(done, total)

    found = evaluate_segmentation(
        model,
        data,
        eps,
        [*attacks, *(name for name in WHITE_NOISE if name not in attacks)],
        task=task,
        norm=norm,
        bounds=bounds,
        batch_size=batch_size,
        seed=seed,
        names=names,
        classes=classes,
        keep=overlays.keep,
        progress=after_batch,
        partial=sheet.record,
        budget=budget,
    )
    own = {} if settings is None else dict(settings)
    # What is said of the network comes first, and goes before what was counted here.
    found = replace(found, settings={**own, **found.settings, **own})
    overlays.write(sheet.path.with_name(OVERLAYS), found.classes, sheet.label)
    # Written last: it says that all is done.
    found.to_csv(sheet.path)
    return found
