"""Where the runs behind a comparison's table come from, and whether their times can be compared."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ima.evaluation.results import Results
from ima.training.compare import Candidate, RunPlan, unique
from ima.training.picking import picked
from ima.training.run import PLACE, Run, environment
from ima.training.settings import Config


def made_by(
    plans: Sequence[RunPlan],
    config: Config,
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    given: str | None = None,
) -> str:
    """Command, seeds, commit and machine of the runs behind a table, in one paragraph.

    overrides: of the command, such as `train.epochs=20`; given: the config as the command named
    it, of which a path's last part is shown; its own name if None.
    """
    runs = unique(run for p in plans for c in p.candidates for run in c.runs)
    name = config.name if given is None else PurePath(given).name
    words = [shlex.quote(name), *map(shlex.quote, overrides), "--seeds", *map(str, seeds)]
    unless = ", unless named above" if any(p.row.differs for p in plans) else ""
    picked = "epochs and tuned options" if any(p.tuned for p in plans) else "epochs"
    return (
        f"Made by `ima compare {' '.join(words)}`: "
        f"{len(runs)} run{'s' if len(runs) > 1 else ''} at {_made_at(runs)}. "
        f"{_samples(runs)}All methods share "
        f"{_network(config)}, {_optimizer(config)}, {_loop(config)}, {_augmentation(config)} and "
        f"the data's order{unless}; "
        f"{picked} were picked on the validation part. Images lie in 0 to 1, and noise is measured "
        f"in {config.norm} over all values of an image."
    )


def about_data(plans: Sequence[RunPlan]) -> list[str]:
    """What the data sets of the runs say of themselves, a line each."""
    runs = unique(run for p in plans for run in p.chosen().runs)
    notes = [str(one.get("data", "")) for run in runs for one in _all(run.environment())]
    return [note for note in dict.fromkeys(notes) if note]


def epochs_picked(plans: Sequence[RunPlan]) -> list[str]:
    """By what validation picked the rows' epochs, in one sentence; none where no run tells."""
    found: dict[str, list[str]] = {}
    for one in plans:
        for words in dict.fromkeys(picked(run).get("picked") for run in one.chosen().runs):
            if words is not None:
                found.setdefault(words, []).append(one.label)
    told = [
        words if len(found) == 1 else f"{words} ({', '.join(dict.fromkeys(labels))})"
        for words, labels in found.items()
    ]
    return [f"Validation picked the epochs by {'; by '.join(told)}."] if told else []


def provenance_of(run: Run, command: str) -> str:
    """The same for one run, and for what `command`, such as `ima margins RUN`, makes of it now."""
    trained = dict.fromkeys(str(one.get("command")) for one in _all(run.environment()))
    whose = " and ".join(f"`{words}`" for words in trained)
    seed = run.config().train.seed
    now = environment("")["commit"]
    return (
        f"Made by `{command}` at commit {now}, of the run that {whose} made, seed {seed}: "
        f"{_made_at([run])}."
    )


def _made_at(runs: Sequence[Run]) -> str:
    return made_at([one for run in runs for one in _all(run.environment())])


def made_at(found: Sequence[Mapping[str, Any]]) -> str:
    """Commit, versions and machine of some environments, each as often as it differs."""

    def each(key: str) -> str:
        return " and ".join(dict.fromkeys(str(one.get(key)) for one in found)) or "unknown"

    return (
        f"commit {each('commit')}, ima {each('ima')}, torch {each('torch')}, Python "
        f"{each('python')}, {each('device')} with {each('cores')} cores"
    )


def _samples(runs: Sequence[Run]) -> str:
    found = [run.environment().get("samples") or {} for run in runs]
    sizes = dict.fromkeys((s["train"], s["val"]) for s in found if {"train", "val"} <= s.keys())
    said = [f"{train} training and {val} validation samples" for train, val in sizes]
    return f"{' or '.join(said)}. " if said else ""


def _network(config: Config) -> str:
    options = ", ".join(f"{key} {value}" for key, value in config.network.options.items())
    return f"the network {config.network.name}{f' ({options})' if options else ''}"


def _optimizer(config: Config) -> str:
    """The optimiser with all that it does, such as `adam (lr 0.002, cosine)`."""
    given = config.optimizer
    falls = {
        "constant": "constant",
        "cosine": "cosine",
        "steps": f"times {given.gamma:g} after epochs {', '.join(map(str, given.milestones))}",
    }
    parts = [f"lr {given.lr:g}", falls[given.schedule]]
    parts += [f"momentum {given.momentum:g}"] if given.name == "sgd" else []
    parts += [f"weight decay {given.weight_decay:g}"]
    return f"{given.name} ({', '.join(parts)})"


def _loop(config: Config) -> str:
    """Epochs and batches, and what a config seldom sets."""
    given = config.train
    first = f" (the first {given.standard_epochs} without noise)" if given.standard_epochs else ""
    parts = [f"{given.epochs} epochs{first}", f"batches of {given.batch_size}"]
    parts += [f"averaged weights (decay {given.ema:g})"] if given.ema is not None else []
    parts += [f"precision {given.precision}"] if given.precision != "32-true" else []
    return ", ".join(parts)


def _augmentation(config: Config) -> str:
    changes = config.data.augment
    return f"random {' and '.join(changes)}" if changes else "no augmentation"


def recipes(plans: Sequence[RunPlan]) -> list[str]:
    """Where rows leave the shared recipe, a line each."""
    lines = [
        f"{p.row.label}: {', '.join(f'{key} {_plain(v)}' for key, v in p.row.differs.items())}"
        for p in plans
        if p.row.differs
    ]
    return list(dict.fromkeys(lines))


def attack_lines(results: Iterable[Results]) -> list[str]:
    """What the attacks did, or the parts that ran, a line each."""
    told = [(a, r.settings.attacks.get(a)) for r in results for a in r.attacks]
    lines = [f"{attack}: {words}." for attack, words in told if words]
    return list(dict.fromkeys(lines))


def seconds(candidate: Candidate) -> list[float]:
    """How long the method's own epochs took, over all seeds; empty where a run does not know."""
    found: list[float] = []
    for run in candidate.runs:
        first = run.config().train.standard_epochs
        rows = [row for row in run.epochs() if row["epoch"] >= first]
        if not all("seconds" in row for row in rows):
            return []
        found += [row["seconds"] for row in rows]
    return found


def comparable(plans: Sequence[RunPlan]) -> str | None:
    """Where and how the shown runs were timed, in a sentence; None if not all in the same way."""
    runs = unique(run for p in plans for run in p.chosen().runs)
    found = [one for run in runs for one in _all(run.environment())]
    if not found or not all(run.environment() for run in runs):
        return None
    if len({tuple(str(one.get(key)) for key in PLACE) for one in found}) > 1:
        return None
    jobs = sorted({int(one.get("jobs") or 1) for one in found})
    together = "one run at a time" if jobs == [1] else f"up to {jobs[-1]} runs at a time"
    one = found[0]
    threads = "all threads" if one.get("threads") is None else f"OMP_NUM_THREADS {one['threads']}"
    processor = f" ({one['processor']})" if one.get("processor") else ""
    return f"{one['device']}{processor}, {one['cores']} cores, {threads}, {together}."


def untimed(plans: Sequence[RunPlan]) -> list[str]:
    """A remark on why times are not shown, where they are known but cannot be compared."""
    if comparable(plans) is not None or not all(seconds(p.chosen()) for p in plans):
        return []
    return ["No times are shown: the runs were made on different machines or numbers of threads."]


def _all(environment: dict[str, Any]) -> list[dict[str, Any]]:
    """The environments that a run was made in."""
    return [environment, *environment.get("resumed", ())] if environment else []


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
