"""Options of a config by trial, for who wants to tune after all: a study of Optuna in a folder.

study.log    the journal of the study, which several processes write to
trial-N/     the run of a trial

A trial is a run, judged every epoch by what picks the method's epochs, and ended where it is worse
than the median of the others. One that was stopped is continued by whoever comes next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ima.budget import Budget
from ima.extras import need
from ima.plain_yaml import parse as parse_yaml
from ima.training.config import check_stop
from ima.training.config_errors import ConfigError
from ima.training.lock import Lock
from ima.training.loop import fit
from ima.training.picking import rule
from ima.training.run import Run
from ima.training.settings import Config

STUDY = "study.log"


@dataclass(frozen=True)
class Span:
    """What values an option may take: of a list, or from low to high.

    key: such as `method.eps`; values: of a list; log: whether low values are tried as often as high
    ones.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @staticmethod
    def parse(text: str) -> Span:
        """What a person writes: key=0.1:3, key=1e-4:0.1:log, or key=2,5,10.

        Raises ConfigError for anything else.
        """
        key, _, said = text.partition("=")
        number = r"([-+.\deE]+)"
        if match := re.fullmatch(rf"{number}:{number}(:log)?", said):
            low, high = (parse_yaml(_pointed(part)) for part in match.groups()[:2])
            kinds = all(isinstance(end, int | float) for end in (low, high))
            if kinds and low < high and not (match[3] and low <= 0):
                return Span(key, (), low, high, bool(match[3]))
        elif len(values := said.split(",")) > 1 and all(values):
            return Span(key, tuple(map(parse_yaml, values)))
        raise ConfigError(
            f"{text!r} says no values to try; expected such as method.eps=0.1:3, "
            "optimizer.lr=1e-4:0.1:log or method.steps=2,5,10"
        )

    def ends(self) -> tuple[Any, ...]:
        """The values that all others lie between, or all."""
        return self.values or (self.low, self.high)

    def ask(self, trial: Any) -> Any:
        """The value that a trial of Optuna takes."""
        if self.values:
            return trial.suggest_categorical(self.key, self.values)
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        suggest = trial.suggest_int if whole else trial.suggest_float
        return suggest(self.key, self.low, self.high, log=self.log)


def _pointed(number: str) -> str:
    """YAML takes 1e-4 for a word."""
    return re.sub(r"^([-+]?\d+)(?=[eE])", r"\1.0", number)


class Pruned(Exception):  # noqa: N818  # it is no error
    """The trial is worse than others."""


class Judge:
    """Tells a study of every epoch of a trial; the watcher of a run."""

    def __init__(self, trial: Any, run: Run, known: Collection[int]) -> None:
        self.trial, self.run, self.known = trial, run, set(known)

    def batch(self, epoch: int, done: int, total: int, sums: Mapping[str, Any]) -> None:
        """Nothing: a batch is not judged."""

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Tell its score; Pruned where the trial is not worth going on."""
        config = self.run.config()
        # With those that were saved, and not told before a stop.
        for one in self.run.epochs():
            number = int(one["epoch"])
            if number >= config.train.standard_epochs and number not in self.known:
                score = rule(config).score(one["val_accuracy"], one["val_pgd"])
                self.trial.report(score, number)
                self.known.add(number)
        if epoch in self.known and self.trial.should_prune():
            raise Pruned


def check_spans(spans: Sequence[Span], make: Callable[[Sequence[str]], Config]) -> None:
    """Raise ConfigError where the config does not take a value that may be tried."""
    keys = [span.key for span in spans]
    if not spans or len(set(keys)) < len(keys):
        raise ConfigError(f"--search is {keys}; expected options to try, each once")
    for number in range(max(len(span.ends()) for span in spans)):
        config = make([f"{s.key}={s.ends()[min(number, len(s.ends()) - 1)]}" for s in spans])
        check_stop("train", config)


def open_study(folder: Path, config: Config, spans: Sequence[Span]) -> Any:
    """The study of a folder, begun where there is none.

    Raises ImportError without Optuna, ConfigError where the folder holds one of other settings.
    """
    need("tune")
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
        study_name=config.name,
        direction="maximize",
        load_if_exists=True,
        # Trials that other processes are at count as bad, so that not all try the same.
        sampler=optuna.samplers.TPESampler(constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=config.train.epochs // 5),
    )
    wanted = {"config": config.to_yaml(), "spans": [repr(span) for span in spans]}
    for name, value in wanted.items():
        if study.user_attrs.setdefault(name, value) != value:
            raise ConfigError(
                f"{folder} holds a study of other settings ({name}); name another with --out"
            )
        study.set_user_attr(name, value)
    return study


def make_trials(
    study: Any,
    folder: Path,
    make: Callable[[Sequence[str]], Config],
    spans: Sequence[Span],
    *,
    trials: int,
    device: str,
    budget: Budget | None,
    tell: Callable[[str], None],
) -> None:
    """Make trials until the study has so many; continue those that were stopped first.

    make: the config with some overrides. Raises OutOfTime when the budget is spent.
    """
    for trial in _trials(study, trials):
        place = folder / f"trial-{trial.number}"
        lock = Lock(place, "tune")
        try:
            lock.take()
        except RuntimeError:
            # Another process is at it.
            continue
        # Until its end is told: nobody else must take the trial in between.
        with lock:
            frozen = study.get_trials(deepcopy=False)[trial.number]
            if frozen.state.is_finished():
                continue
            values = {span.key: span.ask(trial) for span in spans}
            told = " ".join(overrides := _overrides(values))
            run = Run(place, trust=True)
            if not run.begun:
                run = Run.planned(place, make(overrides))
            judge = Judge(trial, run, frozen.intermediate_values)
            try:
                fit(run, watcher=judge, device=device, budget=budget)
            except Pruned:
                study.tell(trial, state=_state("PRUNED"))
                tell(f"trial {trial.number}: {told}: ended early, worse than others")
            except FloatingPointError:
                study.tell(trial, state=_state("FAIL"))
                tell(f"trial {trial.number}: {told}: diverged")
            else:
                row = run.picked()
                score = rule(run.config()).score(row["val_accuracy"], row["val_pgd"])
                study.tell(trial, score)
                tell(f"trial {trial.number}: {told}: {score:.3f}")


def best_of(study: Any, folder: Path) -> tuple[Path, float, list[str]]:
    """The run of the best trial, its score, and its values as overrides.

    Raises ValueError where no trial came to its end.
    """
    if not any(one.state == _state("COMPLETE") for one in study.get_trials(deepcopy=False)):
        raise ValueError("no trial came to its end: all diverged, or are still under way")
    best = study.best_trial
    return folder / f"trial-{best.number}", best.value, _overrides(best.params)


def _overrides(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]


def _trials(study: Any, most: int) -> Iterator[Any]:
    from optuna.trial import Trial

    for one in study.get_trials(deepcopy=False, states=(_state("RUNNING"),)):
        yield Trial(study, one._trial_id)
    while len(study.get_trials(deepcopy=False)) < most:
        yield study.ask()


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]
