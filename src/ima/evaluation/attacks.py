"""The attacks of an evaluation: a table of names such as `pgd-100`, with their settings fixed.

A row's function looks at points in the ball around every sample whose quality can still fall, and
keeps the lowest, see `lowest`. A row says whom it serves. An attack of one's own is a row too, by
`module:name`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ima.attacks.inputs import Bounds, Model
from ima.attacks.walk import forward
from ima.evaluation.autoattack import autoattack, count_passes, describe_parts, lacks_autoattack
from ima.evaluation.hopskipjump import hopskipjump
from ima.evaluation.lowest import Lowest, climb, walk_from
from ima.evaluation.noise import AMPLITUDE, noise_in_ball, white_noise
from ima.evaluation.setting import Setting
from ima.imported import import_named
from ima.norms import Norm
from ima.tasks import Segmentation, Task, Tree, given, objective_of, take
from ima.tasks.checked import describe

AttackCall = Callable[[Model, Tensor, Tree, Lowest, float, int, Setting], None]
"""run(model, x, y, lowest, eps, steps, setting): looks at points in the ball around x."""

Lacks = Callable[[Task, Norm, Bounds], str]
"""lacks(task, norm, bounds): why the attack cannot run, or nothing."""


@dataclass(frozen=True)
class AttackRow:
    """One attack: name, function, default steps, what its figure means in one sentence.

    steps: None where the attack has no such number. lacks: whom it does not serve; kind: of noise,
    see `ima.evaluation.results.KINDS`; amplitude: of white noise, which has a size of its own in
    place of eps; walks: its gradients may be short, see `ima.evaluation.short`; parts: the parts
    that run, for the record, of an attack that is made of some; passes(steps, classes): gradients
    of the input that it needs at most, of forward passes two for one.
    """

    name: str
    run: AttackCall
    steps: int | None
    paper: str
    summary: str
    lacks: Lacks = lambda *_: ""
    kind: str = "chosen"
    amplitude: float | None = None
    walks: bool = False
    passes: Callable[[int, int], float] = lambda steps, _: steps
    parts: Callable[[int, Sequence[int], Norm], str] | None = None

    @property
    def label(self) -> str:
        """The name as a person writes it, with the default steps: `pgd-100`, `autoattack`."""
        return self.name if self.steps is None else f"{self.name}-{self.steps}"

    def describe(
        self, steps: int, shape: Sequence[int], classes: int, norm: Norm, *, short: bool = False
    ) -> str:
        """What it does, its N being `steps`, or the parts that ran; for the record."""
        if self.parts is not None:
            return self.parts(classes, shape, norm)
        more = "; gradients in bfloat16" if short and self.walks else ""
        return re.sub(r"\bN\b", str(steps), self.summary).rstrip(".") + more


def _pgd(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, steps: int, setting: Setting
) -> None:
    climb(model, x, y, lowest, eps, steps, setting, given(setting.task, "climbs")())


def _ensemble(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, steps: int, setting: Setting
) -> None:
    task = setting.task
    assert isinstance(task, Segmentation)
    objectives = [replace(task, walk=w).objective for w in ("dice", "cross_entropy", "loss")]
    climb(model, x, y, lowest, eps, steps, setting, objectives)


def _ifgsm(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, steps: int, setting: Setting
) -> None:
    objective = objective_of(setting.task)
    walk_from(model, x, y, lowest, None, eps, steps, eps / 4, objective, setting, last=True)


def _lacks_masks(task: Task, norm: Norm, bounds: Bounds) -> str:
    return "" if isinstance(task, Segmentation) else "it follows the Dice, and labels pixels alone"


ATTACKS = {
    row.name: row
    for row in (
        AttackRow(
            "pgd",
            _pgd,
            100,
            "Madry et al., ICLR 2018",
            "N steps of 10 eps / N, with the loss and for labels also with the margin to the next "
            "class, each from the sample and from a random start; the worst iterate counts.",
            walks=True,
            passes=lambda steps, _: 4 * steps,
        ),
        AttackRow(
            "ifgsm",
            _ifgsm,
            10,
            "Kurakin et al., ICLR 2017, as in Ma & Liang's tables",
            "N steps of eps / 4 from the sample; the last iterate counts.",
            walks=True,
        ),
        AttackRow(
            "autoattack",
            autoattack("autoattack"),
            None,
            "Croce & Hein, ICML 2020",
            "APGD, FAB and Square with standard budgets, as far as the number of classes permits: "
            "for two classes APGD and Square, as in the IMA paper. For classifiers with bounds.",
            lacks_autoattack,
            passes=lambda _, classes: count_passes("autoattack", classes),
            parts=partial(describe_parts, "autoattack"),
        ),
        AttackRow(
            "autoattack+",
            autoattack("autoattack+"),
            None,
            "Croce & Hein, ICML 2020",
            "AutoAttack, then APGD on the margin, and FAB for two classes too.",
            lacks_autoattack,
            passes=lambda _, classes: count_passes("autoattack+", classes),
            parts=partial(describe_parts, "autoattack+"),
        ),
        AttackRow(
            "ensemble",
            _ensemble,
            100,
            "-",
            "pgd-N with Dice, with cross-entropy and with both; the point of lowest Dice counts. "
            "For segmentation.",
            _lacks_masks,
            passes=lambda steps, _: 6 * steps,
        ),
        AttackRow(
            "hopskipjump",
            hopskipjump,
            20,
            "Chen et al., S&P 2020",
            "N steps along the boundary from a wrong point, by decisions alone: it tells whether "
            "gradients mislead. Some 150 passes a step.",
            passes=lambda steps, _: 75 * steps,
        ),
        AttackRow(
            "noise",
            noise_in_ball,
            100,
            "-",
            "The worst of N random points, uniform in the ball: what noise does without any aim.",
            kind="drawn",
            passes=lambda steps, _: steps / 2,
        ),
        AttackRow(
            "white",
            white_noise,
            100,
            "Ma & Liang, introduction",
            f"White noise: the worst of N draws, uniform in ±{AMPLITUDE:g} of the bounds' width "
            "(in x's units without bounds) on every entry, whatever eps is; ima evaluate runs "
            "white-1 and white-100.",
            kind="white",
            amplitude=AMPLITUDE,
            passes=lambda steps, _: steps / 2,
        ),
    )
}


def find_attack(name: str) -> tuple[AttackRow, int]:
    """The row and the steps of an attack named `pgd`, `pgd-100`, `autoattack`, `mine:attack-20`.

    The steps are 0 for an attack that has no such number. `module:name` is a row of one's own, or a
    function attack(model, x, y, ...) that returns points like x; it gets by name what it takes of
    eps, steps, norm, task, bounds and generator. Raises ValueError for an unknown name, naming the
    nearest, and for what cannot be imported.
    """
    match = re.fullmatch(r"([\w.]+:\w+|[a-z+]+)(?:-(\d+))?", name)
    if match and match[2] != "0" and (match[1] in ATTACKS or ":" in match[1]):
        row = ATTACKS.get(match[1]) or _own(match[1])
        if row.steps is not None or match[2] is None:
            return row, int(match[2] or row.steps or 0)
    near = get_close_matches(name.partition("-")[0], ATTACKS, 1)
    hint = f"; did you mean {ATTACKS[near[0]].label!r}?" if near else ";"
    known = ", ".join(row.label for row in ATTACKS.values())
    raise ValueError(
        f"unknown attack {name!r}{hint} Known: {known}, or one of your own by 'module:name' (where "
        "there is a number of steps, any)"
    )


def _own(name: str) -> AttackRow:
    """The row of an attack of a user's own."""
    found = import_named("attack", name)
    if isinstance(found, AttackRow):
        return replace(found, name=name)
    if not callable(found):
        raise ValueError(
            f"attack {name!r} is a {type(found).__name__}; expected a function attack(model, x, y, "
            "...) that returns points like x, or an AttackRow"
        )
    told = inspect.signature(found).parameters
    first = (inspect.getdoc(found) or name).splitlines()[0]
    default = told["steps"].default if "steps" in told else None
    steps = default if isinstance(default, int) else 100

    def run(
        model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, steps: int, setting: Setting
    ) -> None:
        left = lowest.left
        x, y = x[left], take(y, left)
        known = {"eps": eps, "steps": steps, "norm": setting.norm, "task": setting.task}
        known |= {"bounds": setting.box, "generator": setting.generator}
        points: Any = found(model, x, y, **{key: known[key] for key in known if key in told})
        points = getattr(points, "x", points)
        if not isinstance(points, Tensor) or points.shape != x.shape:
            raise TypeError(
                f"attack {name!r} gave {describe(points)}; expected points of shape "
                f"{tuple(x.shape)}"
            )
        points = points.detach().to(x.dtype)
        lowest.look(left, points, forward(model, points), y)

    return AttackRow(name, run, steps if "steps" in told else None, "one's own", first)


def find_attacks(
    names: Sequence[str] | str, task: Task, norm: Norm, bounds: Bounds
) -> list[tuple[str, AttackRow, int]]:
    """Names, rows and steps of attacks; ValueError for one that does not serve this task."""
    names = [names] if isinstance(names, str) else list(names)
    found = [(name, *find_attack(name)) for name in dict.fromkeys(names)]
    for name, row, _ in found:
        if reason := row.lacks(task, norm, bounds):
            raise ValueError(f"{name} cannot run here: {reason}; use pgd-100, which takes any task")
    return found


def default_attacks(task: Task) -> tuple[str, ...]:
    """The attacks where none are asked for."""
    if isinstance(task, Segmentation):
        return ("pgd-100", "ifgsm-10", "ensemble-100", "noise-100")
    return ("pgd-100", "ifgsm-10")


def check_radii(eps: float | Sequence[float], what: str = "eps") -> list[float]:
    """Noise radii, each once, ascending; ValueError for one that is not finite and above 0."""
    radii = sorted(set(torch.as_tensor(eps, dtype=torch.float64).flatten().tolist()))
    if not all(0 < one < float("inf") for one in radii):
        raise ValueError(f"{what} are {radii}; expected finite noise radii above 0")
    return radii
