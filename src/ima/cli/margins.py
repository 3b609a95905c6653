"""`ima margins RUN`: what the margins of a trained run say about its training samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def margins(
    run: Path,
    /,
    *,
    samples: int = 200,
    seed: int = 0,
    device: str = "auto",
    model: str | None = None,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Draw the margins of a run, and measure how true they are.

    Parameters
    ----------
    run:
        The run's folder.
    samples:
        How many training samples, at most, are searched for their smallest noise.
    seed:
        Seed for the choice of samples, and for the attacks' random starts.
    device:
        cpu, cuda, mps or auto.
    model:
        Repeats the run's network, if its config names it as module:function.
    trust:
        Run the code of a network that the run's config names as module:function.

    """
    from ima.files import read_arrays
    from ima.report.margins_page import atlas_images, write_margins
    from ima.report.series import margin_history
    from ima.training.measuring import measure_margins
    from ima.training.origin import provenance_of
    from ima.training.run import Run
    from ima.training.trust import said_again

    opened = Run.open(run, trust=trust or said_again(run, model))
    estimates = measure_margins(opened, samples=samples, seed=seed, device=device)
    folder = opened.margins_folder
    atlas = read_arrays(folder / "atlas.npz")
    images = atlas_images(atlas["id"].tolist(), atlas["image"])
    history, note = margin_history(opened.read_margins()), opened.config().note
    made = provenance_of(opened, f"ima margins RUN --samples {samples} --seed {seed}")
    print(write_margins(folder, estimates, history, images, note, made))
    print(f"{folder / 'margins.md'}: the page with its pictures")
