"""The fixed set of samples on which the checks run every attack from scratch.

Samples that the model has right, the same for a seed; an attack at a radius knows nothing of other
attacks and radii, so that one can be held against another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ima.attacks import pgd
from ima.attacks.inputs import Bounds, check_samples, no_trace
from ima.attacks.walk import Attacked, forward, look
from ima.evaluation.attacks import ATTACKS, find_attack, worst
from ima.evaluation.checks_record import Record
from ima.evaluation.chosen import BATCH, Chosen
from ima.evaluation.noise import DRAWS, noise_in_ball
from ima.evaluation.setting import Setting
from ima.evaluation.square import square
from ima.norms import Norm
from ima.tasks import Task, Tree, leaves, objective_of
from ima.tasks.checked import check_standing

MORE = 5
"""So many times the steps, or the random starts, must find nothing new."""

QUERIES = 1000


@dataclass
class Bench:
    """A model, its samples, and what attacks have found on them.

    radii: ascending; steps: of the white-box attack; transfer: another model for the same samples,
    or None; attacks: those of the evaluation that is checked, by name; the white-box attack where
    there are none; record: of what attacks have found before.
    """

    model: nn.Module
    chosen: Chosen
    radii: Sequence[float]
    norm: Norm
    task: Task
    bounds: Bounds
    seed: int
    steps: int
    transfer: nn.Module | None = None
    attacks: Sequence[str] = ()
    record: Record = field(default_factory=lambda: Record(None, {}, None))
    found: dict[tuple[str, float], Tensor] = field(default_factory=dict[tuple[str, float], Tensor])

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.chosen.x)

    @property
    def huge(self) -> float:
        """A radius that reaches everywhere: the bounds' diameter, or ten times the largest."""
        x = self.chosen.x[:1]
        box = check_samples(x, self.bounds)
        width = float("inf") if box is None else float(self.norm.size((box[1] - box[0]) + 0 * x)[0])
        return width if width < float("inf") else 10 * max(self.radii)

    def title(self, attack: str) -> str:
        """What an attack is called in a sentence."""
        if attack == "reported":
            names = [self.title(name) for name in self._reported()]
            listed = " and ".join([*filter(None, [", ".join(names[:-1])]), names[-1]])
            return f"the worst case of {listed}" if len(names) > 1 else listed
        return {
            "white-box": f"PGD ({self.steps} steps)",
            "walk": f"PGD ({self.steps} steps) without random starts",
            "one step": "one step (FGSM)",
            "random noise": f"the worst of {DRAWS} random draws",
            "black-box": f"Square ({QUERIES} queries)",
            "more steps": f"PGD ({MORE * self.steps} steps)",
            "more restarts": f"PGD from {MORE} random starts",
            "transfer": "noise made for the other model",
        }.get(attack, attack)

    def setting(self, number: int) -> Setting:
        """For batch number `number`; the noise of a batch does not depend on the others."""
        source = Generator().manual_seed(self.seed * 1_000_003 + number)
        return Setting(self.norm, self.task, self.bounds, source)

    def parts(self) -> list[tuple[Setting, Tensor, Tensor]]:
        """The samples in batches, each with its setting."""
        pieces = zip(self.chosen.x.split(BATCH), self.chosen.y.split(BATCH), strict=True)
        return [(self.setting(number), x, y) for number, (x, y) in enumerate(pieces)]

    def broken(self, attack: str, eps: float) -> Tensor:
        """Which samples an attack of the table breaks within radius eps, (n,) bool."""
        if (attack, eps) not in self.found:
            results = [
                self.record.broken(
                    attack, f"{eps!r}, {number}", partial(self._broken, attack, eps, *part)
                )
                for number, part in enumerate(self.parts())
            ]
            self.found[attack, eps] = torch.cat(results)
        return self.found[attack, eps]

    def reported(self, eps: float) -> Tensor:
        """Which samples the evaluation's attacks break within radius eps, (n,) bool.

        As an evaluation reports it: the worst case, and broken at a smaller radius is broken.
        """
        radii = [radius for radius in self.radii if radius <= eps]
        found = [self.broken(attack, radius) for radius in radii for attack in self._reported()]
        return torch.stack(found).any(0)

    def _reported(self) -> list[str]:
        """The evaluation's attacks; PGD with the checks' own steps under its name here."""
        same = {"": "white-box", f"pgd-{self.steps}": "white-box"}
        return [same.get(name, name) for name in self.attacks or [""]]

    def _broken(self, attack: str, eps: float, setting: Setting, x: Tensor, y: Tensor) -> Tensor:
        run = _RUN.get(attack) or _named(attack)
        noisy = run(self, x, y, eps, setting).x
        output = look(self.model, noisy)
        everywhere = torch.arange(len(x), device=x.device)
        self.record.watcher.noisy(everywhere, output, self.task)
        right = self.task.correct(output, y)
        check_standing(self.task, output, y, right)
        return (~right).cpu()

    def outputs(self, passes: int = 1) -> list[list[Tensor]]:
        """For each batch what the model gives at the clean samples, in so many passes."""
        found: list[list[Tensor]] = []
        for _, x, _ in self.parts():
            # In one context: the global random state goes on from pass to pass.
            with no_trace(self.model, x) as inner:
                found.append([_flat(forward(inner, x)) for _ in range(passes)])
        return found


def _flat(output: Tree) -> Tensor:
    return torch.cat(
        [leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None] for leaf in leaves(output)], 1
    )


def _named(attack: str) -> Callable[[Bench, Tensor, Tree, float, Setting], Attacked]:
    row, steps = find_attack(attack)
    return lambda bench, x, y, eps, setting: row.run(bench.model, x, y, eps, steps, setting)


def _margin(bench: Bench) -> Callable[[Tree, Tree], Tensor]:
    return lambda output, target: -bench.task.score(output, target)


def _pgd(times: int) -> Callable[..., Attacked]:
    def run(bench: Bench, x: Tensor, y: Tree, eps: float, setting: Setting) -> Attacked:
        return ATTACKS["pgd"].run(bench.model, x, y, eps, times * bench.steps, setting)

    return run


def _walk(
    bench: Bench, x: Tensor, y: Tree, eps: float, setting: Setting, **options: Any
) -> Attacked:
    shared = {"norm": setting.norm, "task": setting.task, "bounds": setting.bounds}
    return pgd(options.pop("model", bench.model), x, y, eps, **shared, **options)


def _one_step(bench: Bench, x: Tensor, y: Tree, eps: float, setting: Setting) -> Attacked:
    return _walk(bench, x, y, eps, setting, steps=1, step_size=eps, stop="never")


def _from_x(bench: Bench, x: Tensor, y: Tree, eps: float, setting: Setting) -> Attacked:
    def attempt(objective: Any) -> Callable[[Tensor, Tree], Attacked]:
        return lambda x, y: _walk(bench, x, y, eps, setting, steps=bench.steps, objective=objective)

    return worst([attempt(o) for o in (objective_of(bench.task), _margin(bench))], x, y)


def _restarts(bench: Bench, x: Tensor, y: Tree, eps: float, setting: Setting) -> Attacked:
    # Seeded apart from the white-box attack, whose starts would otherwise come again.
    source = Generator().manual_seed(setting.generator.initial_seed() + 1)

    def attempt(objective: Any) -> Callable[[Tensor, Tree], Attacked]:
        return lambda x, y: _walk(
            bench,
            x,
            y,
            eps,
            setting,
            steps=bench.steps,
            step_size=10 * eps / bench.steps,
            random_start=True,
            objective=objective,
            generator=source,
        )

    tries = [attempt(o) for o in (objective_of(bench.task), _margin(bench)) for _ in range(MORE)]
    return worst(tries, x, y)


def _transferred(bench: Bench, x: Tensor, y: Tree, eps: float, setting: Setting) -> Attacked:
    assert bench.transfer is not None
    # All steps: noise that has just crossed the other model's boundary seldom crosses this one's.
    other = bench.transfer
    return _walk(bench, x, y, eps, setting, model=other, steps=bench.steps, stop="never")


def _random(bench: Bench, x: Tensor, y: Tree, eps: float, setting: Setting) -> Attacked:
    return noise_in_ball(bench.model, x, y, eps, DRAWS, setting)


def _square(bench: Bench, x: Tensor, y: Tree, eps: float, setting: Setting) -> Attacked:
    return square(bench.model, x, y, eps, QUERIES, setting)


_RUN: dict[str, Callable[[Bench, Tensor, Tree, float, Setting], Attacked]] = {
    "white-box": _pgd(1),
    "walk": _from_x,
    "one step": _one_step,
    "random noise": _random,
    "black-box": _square,
    "more steps": _pgd(MORE),
    "more restarts": _restarts,
    "transfer": _transferred,
}
