"""`ima train CONFIG`: train one method."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def train(
    config: str | None = None,
    /,
    *overrides: str,
    resume: Path | None = None,
    out: Path | None = None,
    init: Path | None = None,
    device: str = "auto",
    devices: int = 1,
    time_budget: str | None = None,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train one method on one data set, or continue a run.

    Parameters
    ----------
    config:
        A YAML file, or the name of a config of the library (see `ima list configs`).
    overrides:
        Changes to the config, such as `method.delta=0.2 train.epochs=20`.
    resume:
        The folder of a run to continue, in place of a config. No setting can change; only the names
        of what is your own may be repeated, see --trust.
    out:
        The new run's folder. Default: `runs/NAME-METHOD-seedS`.
    init:
        Weights to start from: a .safetensors or .pt file. No code in it is run.
    device:
        cpu, cuda, mps or auto.
    devices:
        How many devices. With `torchrun`, that decides.
    time_budget:
        Such as 540s, 9m or 1h30m. Stop in time, with exit code 75, so that the run can continue.
        Each call trains at least one batch, or does one validation.
    trust:
        Run the code of what the config in a run's folder names as module:name. Without it such a
        run is refused, unless you repeat the same name: network.name=module:name, likewise
        method.name, data.name and task.name.

    """
    from ima.budget import OUT_OF_TIME, Budget, OutOfTime

    budget = None if time_budget is None else Budget.parse(time_budget)
    from ima.cli.progress import watch
    from ima.files import folder_name
    from ima.training.config import load_config, warnings
    from ima.training.loop import fit
    from ima.training.picking import picked
    from ima.training.run import Run, leads
    from ima.training.same import unknown_origin
    from ima.training.trust import AGAIN

    if resume is not None and config is not None and "=" in config:
        config, overrides = None, (config, *overrides)
    if (config is None) == (resume is None):
        raise ValueError("give either a config or --resume RUN, as in `ima train digits`")
    if resume is not None:
        said = [word.partition("=")[::2] for word in overrides]
        if any(key not in AGAIN for key, _ in said) or out is not None or init is not None:
            raise ValueError("--resume continues a run as it was; it takes no other settings")
        run = Run.open(resume, trust=trust or {name for _, name in said})
    else:
        assert config is not None
        loaded = load_config(config, overrides, trust)
        name = folder_name(f"{loaded.name}-{loaded.method.name}-seed{loaded.train.seed}")
        run = Run.planned(Path("runs") / name if out is None else out, loaded)
    loaded = run.config()
    if leads():
        for warning in [*warnings(loaded), *unknown_origin(run)]:
            print(f"note: {warning}")
        print(f"{loaded.method.name} on {loaded.data.name}: {run.folder}")
    watcher = watch(loaded.train.epochs)
    try:
        fit(
            run,
            watcher=watcher,
            init=init,
            device=device,
            devices=devices,
            budget=budget,
            tell=lambda note: print(f"data: {note}", flush=True),
        )
    except KeyboardInterrupt:
        if run.begun:
            print(f"\nstopped; continue with `ima train --resume {run.folder}`")
        else:
            print("\nstopped before the run began; give the same command again")
        raise
    except OutOfTime as stop:
        if leads():
            print(f"ima: {stop}", file=sys.stderr)
        sys.exit(OUT_OF_TIME)
    finally:
        watcher.close()
    if not leads():
        return
    rows = run.epochs()
    if loaded.train.stop is not None and len(rows) < loaded.train.epochs:
        print(f"margins stand still: ended after {len(rows)} of {loaded.train.epochs} epochs")
    best, told = run.picked(), picked(run)
    for which, row in (("best", best), ("last", rows[-1])):
        print(
            f"{which}: epoch {int(row['epoch']) + 1}, validation clean {row['val_accuracy']:.1%}, "
            f"PGD-10 at {loaded.evaluate.middle:g}: {row['val_pgd']:.1%}"
        )
    print(f"best: picked by {told['picked']}")
    if "radius" in rows[-1]:
        print(f"radius: {rows[-1]['radius']:.3g}, at which {rows[-1]['kept']:.0%} is kept")
    if "held_clean" in rows[-1]:
        print(
            f"held out: quality without noise {rows[-1]['held_clean']:.1%}, "
            f"{100 * rows[-1]['clean_cost']:.1f} points below its best"
        )
    print(f"next: ima evaluate {run.folder}")
