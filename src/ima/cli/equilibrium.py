"""`ima equilibrium`: decision regions, margins and distances in the plane, in a picture."""

from __future__ import annotations

from pathlib import Path


def equilibrium(
    *overrides: str,
    out: Path | None = None,
    seed: int = 0,
    jobs: int = 1,
    device: str = "auto",
) -> None:
    """Draw where margins settle, on points whose true boundary is known, and measure how well.

    Parameters
    ----------
    overrides:
        Changes to the config, such as `train.epochs=20`.
    out:
        The folder for runs, table and picture. Default: `runs/equilibrium`.
    seed:
        Seed of the training.
    jobs:
        How many runs at a time; they share the cores.
    device:
        cpu, cuda, mps or auto; for the training.

    """
    from ima.report.equilibrium import write_equilibrium
    from ima.report.portrait import Portrait
    from ima.training.compare import make_runs, plan_runs
    from ima.training.config import load_config
    from ima.training.equilibrium import check_plane, measure_run, plane_origin

    for name, value, least in (("jobs", jobs, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"--{name} is {value}; expected at least {least}")
    config = load_config("equilibrium", overrides)
    check_plane(config)
    folder = Path("runs") / config.name if out is None else out
    plans = plan_runs(config, [seed], folder)
    make_runs(plans, jobs=jobs, device=device)
    runs = [(p.title(), p.chosen().runs[0]) for p in plans]
    portraits = [Portrait.read(title, measure_run(run)) for title, run in runs]
    made = plane_origin([run for _, run in runs], overrides)
    print("\n" + write_equilibrium(folder, portraits, config.note, [made]))
    print(f"{folder / 'equilibrium.md'}: the table with its picture")
