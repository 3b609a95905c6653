"""IMA: increasing-margin adversarial training.

Ma & Liang, "Increasing-Margin Adversarial (IMA) Training to Improve Adversarial Robustness of
Neural Networks", Computer Methods and Programs in Biomedicine, 2023, Algorithm 1.

z = f(x), L0 = Loss(z, y)                           # training mode
where z is right: x~, crossed = BPGD(x, y, E(i)), L1 = Loss(f(x~), y);  elsewhere L1 = L0
loss = mean of (L0 + L1) / 2
where z is right: E(i) += delta if not crossed, else E(i) = (|x~ - x| + E(i)) / 2
E is clipped to [0, eps]

BPGD runs in evaluation mode; a sample that it finds wrong at x is treated as one where z is wrong.
`Choices` says what the paper leaves open and where the authors' released code differs;
`variant="released"` makes the choices of that code. `ima.methods.measured` is the default, with
margins that are measured, not grown.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ima.attacks.bpgd import bpgd
from ima.attacks.inputs import Bounds, no_trace
from ima.margins import Margins
from ima.methods.absent import or_absent
from ima.methods.adaptive import Adaptive
from ima.methods.base import Step, batch_size, count, finite, one_of, positive
from ima.methods.measured import Measured
from ima.norms import Norm
from ima.tasks import Classification, Task, Tree, take
from ima.tasks.pixels import wide


@dataclass(frozen=True)
class Choices:
    """What the paper leaves open, or its released code does in another way.

    side: the noisy sample is the right end of the bracket around the boundary, or its middle.
    misclassified: "keep" or "halve" the margin of a sample that is wrong without noise.
    noisy_loss: "all" right samples train with noise, or only the "crossed" ones; then the clean
        loss of a wrong sample counts half.
    random_start: radius of a uniform start, as a share of the margin. (The released code starts on
        the sphere; in many dimensions that is the same.)
    attack_mode: attack with the statistics of evaluation ("eval"), or with the batch statistics of
        the attacked samples ("train"; BatchNorm with one value a channel refuses a single sample).
    crossing: Algorithm 3 counts a sample as crossed if the "last" point is wrong, or if "any" is.
    update: margins change after each "step", or at the end of the "epoch".
    walk: what the attack raises, "loss" or "margin"; see `Classification`.
    augmented_walk: Algorithm 3 for "augmented" data only, "always", or "never".
    """

    side: Literal["inside", "middle"] = "inside"
    misclassified: Literal["keep", "halve"] = "keep"
    noisy_loss: Literal["all", "crossed"] = "all"
    random_start: float = 0.0
    attack_mode: Literal["eval", "train"] = "eval"
    crossing: Literal["last", "any"] = "last"
    update: Literal["step", "epoch"] = "step"
    walk: Literal["loss", "margin"] = "loss"
    augmented_walk: Literal["augmented", "always", "never"] = "augmented"


PAPER_STEPS = 20
"""Steps of the paper's walk."""

VARIANTS = {
    "paper": Choices(),
    "released": Choices(
        side="middle",
        noisy_loss="crossed",
        random_start=1.0,
        attack_mode="train",
        crossing="any",
        update="epoch",
        walk="margin",
        augmented_walk="always",
    ),
}
"""The paper, made precise, and the authors' code for CIFAR-10. Their code for CT images differs
from the latter by `side="inside"`, and walks on the loss, here the same walk."""

SEGMENTATION = {
    "paper": VARIANTS["paper"],
    "released": replace(VARIANTS["released"], noisy_loss="all", augmented_walk="never"),
}
"""The same for segmentation."""


class Unreached(UserWarning):
    """Margins cannot grow to their cap in the epochs that there are."""


def unreached(eps: float | None, delta: float | None, epochs: int, place: str = "") -> str:
    """What to say where margins cannot grow to `eps` in so many epochs; "" elsewhere.

    place: what stands before the names of both, such as "method." in a config.
    """
    # Sums of floats: 10 times 0.3 may lie below 3.
    if eps is None or delta is None or delta * epochs >= eps * (1 - 1e-6):
        return ""
    return (
        f"in {epochs} epoch{'s' * (epochs > 1)} a margin grows to {delta * epochs:g} at most, "
        f"below {place}eps = {eps:g}: raise {place}delta to {eps / epochs:.3g}, or train longer"
    )


class IMA(Adaptive):
    """Train on clean samples, and on noisy ones, with a margin for every sample.

    With nothing set the radius of the noise finds itself and margins are measured; with `eps` and
    `delta` the noise of a sample is its own margin, which grows up to the boundary (the paper).

    num_samples: size of the training set, 1 or more; ids are 0 to num_samples - 1.
    eps: largest margin and radius (the paper's epsilon_train), in x's units and `norm`, above 0;
        None: "measured" finds its own.
    delta: how much a margin grows a visit in "paper" and "released", in x's units and `norm`,
        above 0, at most eps; None where margins are measured.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).
    steps: gradient steps of the walk, 1 or more; None: 20, where margins are measured 2, and 1 more
        to find a direction where x changes.
    augmented: True if a sample's x differs from visit to visit: margins are measured in a direction
        found anew, and Algorithm 3 takes the place of 2.
    task: what outputs and targets mean; None: classification.
    variant: "measured", see `ima.methods.measured`; "paper"; "released" for the choices of the
        authors' code, see `Choices`. None: "paper" where delta is given, else "measured".
    clean_drop: how much clean accuracy noise may cost, 0 to 1, such as 0.01: the radius shrinks
        where it costs more, beyond the standard error, on one training sample in ten (2000 at
        most), which are held out of training for that. 0 ends near standard training; None: no
        limit, and none held out. Only for "measured".
    side: "inside" or "middle", see `Choices`; None: as `variant` has it. This and the next three
        are not for "measured".
    misclassified: "keep" or "halve", see `Choices`; None: as `variant` has it.
    noisy_loss: "all" or "crossed", see `Choices`; None: as `variant` has it.
    random_start: share of the margin, 0 to 1, see `Choices`; None: as `variant` has it.
    seed: seed of a random start's noise, and of the choice of samples that are held out.

    Raises ValueError for values outside these ranges, TypeError for a task that is none.
    Source: Ma & Liang, IMA training, 2023, Algorithms 1 to 3.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method = ima.IMA(num_samples=8, bounds=(0, 1))
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> len(method.margins)
    8
    """

    def __init__(
        self,
        *,
        num_samples: int,
        eps: float | None = None,
        delta: float | None = None,
        norm: Norm | float | str = 2,
        bounds: Bounds = None,
        steps: int | None = None,
        augmented: bool = False,
        task: Task | None = None,
        variant: Literal["measured", "paper", "released"] | None = None,
        clean_drop: float | None = None,
        side: Literal["inside", "middle"] | None = None,
        misclassified: Literal["keep", "halve"] | None = None,
        noisy_loss: Literal["all", "crossed"] | None = None,
        random_start: float | None = None,
        seed: int = 0,
    ) -> None:
        variant = variant or _meant(delta)
        one_of("variant", variant, ("measured", *VARIANTS))
        one_of("side", side, (None, "inside", "middle"))
        one_of("misclassified", misclassified, (None, "keep", "halve"))
        one_of("noisy_loss", noisy_loss, (None, "all", "crossed"))
        if random_start is not None and (
            not isinstance(random_start, int | float) or not 0 <= random_start <= 1
        ):
            raise ValueError(f"random_start is {random_start!r}; expected a share, 0 to 1")
        measured = variant == "measured"
        if clean_drop is not None and (
            not isinstance(clean_drop, int | float) or not 0 <= clean_drop <= 1
        ):
            raise ValueError(f"clean_drop is {clean_drop!r}; expected a share, 0 to 1")
        if clean_drop is not None and not measured:
            raise ValueError(
                f"clean_drop is {clean_drop}, which needs margins that are measured, and variant "
                f"is {variant!r}: leave out delta and variant, or clean_drop"
            )
        single = {
            "side": side,
            "misclassified": misclassified,
            "noisy_loss": noisy_loss,
            "random_start": random_start,
        }
        single = {name: value for name, value in single.items() if value is not None}
        if measured:
            _refuse("measured", single if delta is None else {"delta": delta, **single})
        segments = not (task is None or isinstance(task, Classification))
        rows = SEGMENTATION if segments else VARIANTS
        choices = replace(rows["paper" if measured else variant], **single)
        own = (1 if augmented else 2) if measured else PAPER_STEPS
        super().__init__(
            eps=1.0 if measured and eps is None else _needed("eps", eps),
            norm=norm,
            bounds=bounds,
            steps=own if steps is None else steps,
            task=Classification(choices.walk) if task is None else task,
            seed=seed,
        )
        self.eps = math.inf if eps is None else self.eps
        self.variant, self.choices = variant, choices
        self.delta = 0.0 if measured else _growth(delta, self.eps)
        self.margins = Margins(num_samples, initial=self.delta, cap=self.eps)
        # Where margins change at the end of an epoch: what they change to.
        self.next = Margins(num_samples, initial=self.delta, cap=self.eps)
        whole = {"augmented": augmented, "always": True, "never": False}
        self.algorithm: Literal[2, 3] = 3 if whole[choices.augmented_walk] else 2
        self.measured = (
            Measured(num_samples, self.eps, augmented=augmented, clean_drop=clean_drop, seed=seed)
            if measured
            else None
        )

    @staticmethod
    def meant(options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with what stands for None, as far as it does not depend on the data."""
        variant = options.get("variant") or _meant(options.get("delta"))
        steps = options.get("steps") or (None if variant == "measured" else PAPER_STEPS)
        return {**options, "variant": variant, "steps": steps}

    @property
    def scheduled(self) -> bool:
        """True: margins change at the end of an epoch (released variant), so call end_epoch()."""
        return self.choices.update == "epoch"

    @or_absent
    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch; see `Method`. Updates the margins."""
        if self.measured is not None:
            return self.measured.step(self, model, x, y, ids)
        task, norm, choices = self.setting.task, self.setting.norm, self.choices
        x, y, _ = self.prepare(x, y, ids)
        margins = self.margins.of(ids, x)

        output = self.outputs(model, x, y)
        clean = task.loss(output, y)
        right = task.correct(output, y)

        noisy, attacked = x.detach().clone(), torch.zeros_like(right)
        crossed, stuck = torch.zeros_like(right), torch.zeros_like(right)
        (index,) = right.nonzero(as_tuple=True)
        # Also where there is none to attack: other processes may wait for this one's passes.
        with self.outputs.reach.seen(model), no_trace(model, x, choices.attack_mode):
            if len(index):
                result = bpgd(
                    model,
                    x[index],
                    take(y, index),
                    margins[index],
                    norm=norm,
                    task=task,
                    bounds=self.setting.bounds,
                    steps=self.steps,
                    algorithm=self.algorithm,
                    side=choices.side,
                    random_start=choices.random_start,
                    generator=self.generator,
                    crossing=choices.crossing,
                    mode=choices.attack_mode,
                )
                noisy[index], attacked[index] = result.x, result.correct
                crossed[index], stuck[index] = result.crossed, result.stuck

        # One pass over the whole batch: batch statistics need company, and processes must agree
        # on the number of passes.
        noisy_output = self.outputs(model, noisy)
        at_noise = task.loss(noisy_output, y)
        if choices.noisy_loss == "all":
            second = torch.where(attacked, at_noise, clean)
        else:
            second = torch.where(crossed, at_noise, torch.zeros_like(at_noise))
        loss = ((clean + second) / 2).mean()
        # Of samples that do not count too, in one exchange between processes.
        total = at_noise.sum()
        finite(torch.where(torch.isfinite(loss), total, loss), everywhere=self._everywhere(model))

        table = self.margins if choices.update == "step" else self.next
        # At the end of an epoch the updates of several visits add up.
        kept = table.of(ids, x)
        reached = (norm.size(wide(noisy) - wide(x)).to(kept.dtype) + kept) / 2
        missed = kept / 2 if choices.misclassified == "halve" else kept
        moved = torch.where(crossed, reached, kept + self.delta)
        proposed = torch.where(attacked, moved, missed).clamp_max(self.eps)
        self.update(table, ids, proposed)

        metrics = {
            "samples": batch_size(x),
            "correct": count(right),
            "loss": loss.detach(),
            "noisy_samples": count(attacked),
            "noisy_correct": count(task.correct(noisy_output, y) & attacked),
            "crossed": count(crossed),
            "stuck": count(stuck),
            "margin": margins.mean(),
            "growing": count(proposed > kept),
        }
        return Step(loss, metrics)

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Tell the method that an epoch is over; see `Method`. Margins may change here.

        Warns, after the first, where margins cannot grow to `eps` in so many epochs.
        """
        super().end_epoch(epoch, epochs)
        low = "" if self.measured is not None else unreached(self.eps, self.delta, epochs)
        if low and epoch == 0:
            warnings.warn(low, Unreached, stacklevel=2)
        if self.choices.update == "epoch":
            self.margins.load_state_dict(self.next.state_dict())

    @property
    def kind(self) -> str:
        """The name in a saved state; it differs where there is more to keep."""
        if self.measured is not None:
            return f"{super().kind} (measured)"
        return super().kind + (" (updates by epoch)" if self.choices.update == "epoch" else "")

    def state_dict(self) -> dict[str, Any]:
        """What to save: the margins, and the state of the noise."""
        state = super().state_dict()
        if self.choices.update == "epoch":
            state["next"] = self.next.state_dict()
        return state if self.measured is None else state | self.measured.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; ValueError for another method's or training set's."""
        super().load_state_dict(state)
        if self.choices.update == "epoch":
            self.next.load_state_dict(state["next"])
        if self.measured is not None:
            self.measured.load_state_dict(state)


def _meant(delta: object) -> Literal["measured", "paper"]:
    return "measured" if delta is None else "paper"


def _refuse(variant: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        raise ValueError(
            f"{name} is {value!r}, and variant={variant!r} has no use for it; leave it out, or "
            "pass variant='paper' with eps and delta"
        )


def _needed(name: str, value: float | None) -> float:
    if value is None:
        raise ValueError(
            f"{name} is None; expected a number above 0: the paper's algorithm needs eps and "
            "delta. Leave out variant and delta for margins that are measured"
        )
    return value


def _growth(delta: float | None, eps: float) -> float:
    delta = _needed("delta", delta)
    positive(delta=delta)
    if delta > eps:
        raise ValueError(f"delta is {delta}, above eps, {eps}; expected at most eps")
    return float(delta)
