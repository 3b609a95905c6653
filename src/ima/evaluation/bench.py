"""The fixed set of samples on which the checks run every attack from scratch.

Samples that the model has right, the same for a seed; an attack at a radius knows nothing of other
attacks and radii, so that one can be held against another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Generator, Tensor, nn

from ima.attacks import pgd
from ima.attacks.inputs import Bounds, Model, check_samples, no_trace
from ima.attacks.walk import forward
from ima.evaluation.attacks import find_attack
from ima.evaluation.checks_record import Record
from ima.evaluation.chosen import BATCH, Chosen
from ima.evaluation.decisions import copied
from ima.evaluation.finders import both
from ima.evaluation.lowest import Lowest, climb, radius, walk_from
from ima.evaluation.noise import DRAWS, noise_in_ball
from ima.evaluation.setting import Setting
from ima.evaluation.square import square
from ima.norms import Norm
from ima.tasks import Task, Tree, leaves, objective_of, take
from ima.tasks.checked import check_standing
from ima.tasks.pixels import wide

_MORE = 5
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
            "more steps": f"PGD ({_MORE * self.steps} steps)",
            "more restarts": f"PGD from {_MORE} random starts",
            "transfer": "noise made for the other model",
        }.get(attack, attack)

    def setting(self, number: int) -> Setting:
        """For batch number `number`; the noise of a batch does not depend on the others."""
        source = Generator().manual_seed(self.seed * 1_000_003 + number)
        box = check_samples(self.chosen.x[:1], self.bounds)
        return Setting(self.norm, self.task, box, source)

    def parts(self) -> list[tuple[Setting, Tensor, Tree]]:
        """The samples in batches, each with its setting."""
        pieces = enumerate(torch.arange(self.n, device=self.chosen.x.device).split(BATCH))
        return [(self.setting(i), self.chosen.x[at], take(self.chosen.y, at)) for i, at in pieces]

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

    def _broken(self, attack: str, eps: float, setting: Setting, x: Tensor, y: Tree) -> Tensor:
        run, task = _RUN.get(attack) or _named(attack), self.task
        # Broken is all that is asked: a mask is so at its threshold.
        lowest = Lowest(x, x.new_ones(len(x)), task.correct, task.score, binary=True)
        with no_trace(self.model, x) as inner:
            # Copies, because tensors of inference mode cannot take part in gradients.
            run(self, inner, x.detach().clone(), copied(y), lowest, eps, setting)
            output = forward(inner, lowest.noisy)
        self.record.watcher.noisy(torch.arange(len(x), device=x.device), output, task)
        right = task.correct(output, y)
        check_standing(task, output, y, right)
        return (~right).cpu()

    def outputs(self, passes: int = 1) -> list[list[Tensor]]:
        """For each batch what the model gives at the clean samples, as it is, in so many passes."""
        found: list[list[Tensor]] = []
        for _, x, _ in self.parts():
            # In one context: the global random state goes on from pass to pass.
            with no_trace(self.model, x) as inner, torch.no_grad():
                found.append([_flat(inner(x)) for _ in range(passes)])
        return found


def _flat(output: Tree) -> Tensor:
    return torch.cat(
        [leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None] for leaf in leaves(output)], 1
    )


CheckCall = Callable[[Bench, Model, Tensor, Tree, Lowest, float, Setting], None]
"""run(bench, model, x, y, lowest, eps, setting): looks at points in the ball around x."""


def _named(attack: str) -> CheckCall:
    row, steps = find_attack(attack)
    return lambda _, model, x, y, lowest, eps, setting: row.run(
        model, x, y, lowest, eps, steps, setting
    )


def _pgd(times: int) -> CheckCall:
    return lambda bench, model, x, y, lowest, eps, setting: climb(
        model, x, y, lowest, eps, times * bench.steps, setting, both(bench.task)
    )


def _one_step(
    bench: Bench, model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, setting: Setting
) -> None:
    objective = objective_of(bench.task)
    walk_from(model, x, y, lowest, None, eps, 1, eps, objective, setting, last=True)


def _from_x(
    bench: Bench, model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, setting: Setting
) -> None:
    step = 2.5 * eps / bench.steps
    for objective in both(bench.task):
        walk_from(model, x, y, lowest, None, eps, bench.steps, step, objective, setting)


def _restarts(
    bench: Bench, model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, setting: Setting
) -> None:
    # Seeded apart from the white-box attack, whose starts would otherwise come again.
    source, far = Generator().manual_seed(setting.generator.initial_seed() + 1), radius(eps, x)
    step = 10 * eps / bench.steps
    for objective in both(bench.task):
        for _ in range(_MORE):
            noise = bench.norm.random(wide(x), far, source)
            walk_from(model, x, y, lowest, noise, eps, bench.steps, step, objective, setting)


def _transferred(
    bench: Bench, model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, setting: Setting
) -> None:
    assert bench.transfer is not None
    # All steps: noise that has just crossed the other model's boundary seldom crosses this one's.
    found = pgd(
        bench.transfer,
        x,
        y,
        eps,
        steps=bench.steps,
        stop="never",
        norm=setting.norm,
        task=setting.task,
        bounds=setting.box,
    )
    everyone = torch.arange(len(x), device=x.device)
    lowest.look(everyone, found.x, forward(model, found.x), y)


_RUN: dict[str, CheckCall] = {
    "white-box": _pgd(1),
    "walk": _from_x,
    "one step": _one_step,
    "random noise": lambda _, model, x, y, lowest, eps, setting: noise_in_ball(
        model, x, y, lowest, eps, DRAWS, setting
    ),
    "black-box": lambda _, model, x, y, lowest, eps, setting: square(
        model, x, y, lowest, eps, QUERIES, setting
    ),
    "more steps": _pgd(_MORE),
    "more restarts": _restarts,
    "transfer": _transferred,
}
