"""`ima harden WEIGHTS`: from a trained network to a hardened one."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

NOTHING_BETTER = 3
"""Exit code where nothing better was found, and no weights were written."""


def harden(
    weights: Path,
    /,
    *,
    model: str,
    data: str,
    time_budget: str,
    bounds: tuple[float, float] | None = None,
    clean_drop: float | None = None,
    held_out: str | None = None,
    out: Path | None = None,
    task: str | None = None,
    norm: str = "2",
    channels: int | None = None,
    num_classes: int | None = None,
    ignore_label: int | None = None,
    regions: bool | None = None,
    cases: str | None = None,
    device: str = "auto",
    seed: int = 0,
) -> None:
    """Make a trained network harder to fool, and say whether it worked.

    Exit code 3: nothing better was found. Then there is a page, and no weights are written.

    Parameters
    ----------
    weights:
        The network's weights, .safetensors or .pt, in any usual layout; no code in it is run.
    model:
        module:function that builds the network (or module:name of the network itself), or a name of
        `ima list networks`.
    data:
        module:function that returns the data set of (x, y) to train on, or a name of `ima list
        data`, whose training part is used.
    time_budget:
        How long all may take, such as 540s, 30m or 1h30m. At least one batch is trained.
    bounds:
        Lowest and highest value of the inputs, such as 0 1. Default: no bounds; 0 1 for data by
        name.
    clean_drop:
        How much accuracy without noise (for segmentation, Dice) may fall, such as 0.01. Default:
        no limit.
    held_out:
        module:function that returns samples that the network was not trained on, to decide by.
        Default: one sample in five of --data, 500 at most; where the network was trained on them,
        it looks better before than it is.
    out:
        The folder for weights and page. Default: WEIGHTS-hardened beside the weights.
    task:
        A name of `ima list tasks` (with several findings a sample: multilabel), or module:name of a
        task of your own. Default: what the network's answer shows.
    norm:
        Of the noise: 2 or linf.
    channels:
        The number of input channels to build the network with. Default: the data's.
    num_classes:
        The number of classes to build it with. If you give neither number, a module:function is
        called without arguments, or with both numbers for data by name.
    ignore_label:
        For segmentation: pixels with this label do not count.
    regions:
        For segmentation: each channel is a region through a sigmoid (--regions), or a class through
        softmax (--no-regions). Default: what the masks show.
    cases:
        The case (patient) of each sample of --held-out, or of --data without it: module:name of a
        list or of a function that returns one, a key of the data's dicts, or a place in its tuples.
        Samples of one case are held out together. Default: the data's attribute `cases`.
    device:
        cpu, cuda, mps or auto.
    seed:
        Seed of the split, of the batches' order and of the noise.

    """
    # First, before there are other names.
    given = dict(locals())
    from ima.budget import Budget

    # Before the imports below, so that what they take counts too.
    budget = Budget.parse(time_budget)
    from ima.training.harden_file import harden_file
    from ima.training.hardening import STATE
    from ima.training.lock import Lock

    folder = weights.with_name(f"{weights.name}-hardened") if out is None else out
    page = folder / "report.html"
    if page.exists():
        raise FileExistsError(f"{folder} already holds a hardening; name another folder with --out")
    words = {name: given[name] for name in given if name not in ("weights", "out", "time_budget")}

    def tell(line: str) -> None:
        print(line, flush=True)

    try:
        with Lock(folder, "harden") as lock:
            found, written = harden_file(
                weights, folder, budget=budget, tell=tell, ready=lock.take, **words
            )
            found.to_html(page)
            (folder / STATE).unlink(missing_ok=True)
    finally:
        # What was refused leaves no folder; one that holds anything stays.
        with suppress(OSError):
            folder.rmdir()
    print(found.said)
    print(page)
    if written is None:
        sys.exit(NOTHING_BETTER)
    print(written)
