"""Loss, parameter gradient and new margins of every method against a slow twin of its own.

The numbers in the calls of the twins are those of the published codes; the twins have schedules
of their own, and rows with an epoch come there through `end_epoch`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
import torch
from nets import cnn, seeded
from torch import Generator, Tensor, nn
from twins import adaptive_twin, methods_twin

from ima.methods import METHODS
from ima.methods.ates import gap
from ima.methods.customized import dirichlet
from ima.methods.dat import threshold
from ima.methods.fat import dynamic_tau
from ima.norms import gaussian, get_norm

STEPS, SAMPLES, CLASSES = 6, 16, 4
RADIUS = {2: 0.12, math.inf: 0.02}


@dataclass
class Case:
    """One fixed batch, the noise radius, and the noise that a method will draw from its seed."""

    model: nn.Module
    x: Tensor
    y: Tensor
    norm: float
    bounds: tuple[float, float] | None
    epoch: int = 0
    seed: int = 3

    @property
    def eps(self) -> float:
        return RADIUS[self.norm]

    @property
    def shared(self) -> dict[str, Any]:
        return {"steps": STEPS, "norm": float(self.norm), "bounds": self.bounds}

    def generator(self) -> Generator:
        """Where a method's noise comes from in this epoch; see `Noisy`."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)

    def unit(self, generator: Generator) -> Tensor:
        return get_norm(self.norm).random(
            self.x, torch.ones(len(self.x), dtype=self.x.dtype), generator
        )


def make(norm: float, bounds: tuple[float, float] | None, *, seed: int, epoch: int) -> Case:
    model = cnn(channels=2, outputs=CLASSES, batch_norm=True, seed=seed, activation=nn.Tanh)
    x = torch.rand(SAMPLES, 2, 6, 6, generator=seeded(seed), dtype=torch.float64)
    model.double().train()
    # Two thirds are labelled as the model sees them, so that walks begin on both sides.
    with torch.no_grad():
        y = model.eval()(x).argmax(1)
        model.train()
    y[::3] = (y[::3] + 1) % CLASSES
    return Case(model, x, y, norm, bounds, epoch)


@dataclass(frozen=True)
class Row:
    """A method with one setting, its twin, and where both stand before the step.

    over: the last epoch that is over, and the length of the run; None before the first one is.
    visited: samples have margins of earlier visits; strength: of the curriculum.
    """

    name: str
    twin: Twin
    options: dict[str, Any] = field(default_factory=dict)
    over: tuple[int, int] | None = None
    visited: bool = False
    strength: int = 0

    @property
    def now(self) -> tuple[int, int]:
        """The number of this epoch, from 0, and the length of the run, long until it is known."""
        return (0, 10**6) if self.over is None else (self.over[0] + 1, self.over[1])

    def stored(self, eps: float) -> Tensor:
        """The margins before the step."""
        largest = 1.05 * eps if self.name == "mma" else eps
        spread = torch.linspace(0, 0.9, SAMPLES)[torch.randperm(SAMPLES, generator=seeded(5))]
        first = eps / 6 if self.name == "mma" else 0.0
        return (spread * largest if self.visited else torch.full((SAMPLES,), first)).float()


Twin: TypeAlias = "Callable[[Case, Row], tuple[Tensor, Tensor | None]]"
"""twin(case, row) -> (loss, new margins of the batch or None)."""


def _sat(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    return methods_twin.sat(case.model, case.x, case.y, eps=case.eps, **case.shared), None


def _trades(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    normal = gaussian(case.x, case.generator())
    loss = methods_twin.trades(
        case.model, case.x, case.y, eps=case.eps, beta=6.0, normal=normal, **case.shared
    )
    return loss, None


def _mart(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    normal = gaussian(case.x, case.generator())
    loss = methods_twin.mart(
        case.model, case.x, case.y, eps=case.eps, lam=5.0, normal=normal, **case.shared
    )
    return loss, None


def _fat(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    generator = case.generator()
    unit = case.unit(generator)
    jitter = [gaussian(case.x, generator) for _ in range(STEPS)]
    loss = methods_twin.fat(
        case.model, case.x, case.y, eps=case.eps,
        tau=row.options.get("tau", methods_twin.fat_tau(*row.now)), unit=unit,
        omega=row.options.get("omega", 0.001), jitter=jitter, **case.shared,
    )  # fmt: skip
    return loss, None


def _gairat(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    loss = methods_twin.gairat(
        case.model, case.x, case.y, eps=case.eps, lam=-1.0,
        weighted=methods_twin.gairat_weighted(*row.now, begin=row.options.get("begin")),
        unit=case.unit(case.generator()), **case.shared,
    )  # fmt: skip
    return loss, None


def _curriculum(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    shared = {key: value for key, value in case.shared.items() if key != "steps"}
    loss = methods_twin.curriculum(
        case.model, case.x, case.y, eps=case.eps, strength=row.strength,
        unit=case.unit(case.generator()), **shared,
    )  # fmt: skip
    return loss, None


def _ates(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    initial, final = row.options.get("initial", 0.0), row.options.get("final", 0.4)
    loss = adaptive_twin.ates(
        case.model, case.x, case.y, eps=case.eps,
        gap=adaptive_twin.ates_gap(*row.now, initial, final),
        unit=case.unit(case.generator()), **case.shared,
    )  # fmt: skip
    return loss, None


def _dat(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    loss = adaptive_twin.dat(
        case.model, case.x, case.y, eps=case.eps,
        threshold=adaptive_twin.dat_threshold(*row.now, row.options.get("c_max", 0.5)),
        unit=case.unit(case.generator()), **case.shared,
    )  # fmt: skip
    return loss, None


def _mma(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    unit = case.unit(case.generator()) if row.options.get("random_start", True) else None
    return adaptive_twin.mma(
        case.model, case.x, case.y, eps=case.eps, eps_min=case.eps / 6,
        stored=row.stored(case.eps).double(), unit=unit, **case.shared,
    )  # fmt: skip


def _iaat(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    generator = case.generator()
    warm = adaptive_twin.iaat_warm(*row.now)
    near = case.unit(generator)
    units = (near, near, near) if warm else (near, case.unit(generator), case.unit(generator))
    first = case.eps / 4
    return adaptive_twin.iaat(
        case.model, case.x, case.y, prev=row.stored(case.eps).double(), warm=warm, eps0=first,
        gamma=1.9 / 8 * first, alpha_min=2 / 8 * first, beta=0.1, cap=case.eps, units=units,
        **case.shared,
    )  # fmt: skip


def _customized(case: Case, row: Row) -> tuple[Tensor, Tensor | None]:
    generator = case.generator()
    like = torch.empty(len(case.x), CLASSES, dtype=case.x.dtype)
    draws = (dirichlet(like, generator), dirichlet(like, generator))
    # The published code's eps is 8 / 255, its eta 0.005 and its c 10.
    scale = case.eps / (8 / 255)
    return adaptive_twin.customized(
        case.model, case.x, case.y, eps_max=case.eps, eta=0.005 * scale, c=10 / scale,
        current=row.stored(case.eps).double(), loss=row.options.get("loss", "ce"), draws=draws,
        **case.shared,
    )  # fmt: skip


ROWS = {
    "sat": Row("sat", _sat),
    "trades": Row("trades", _trades),
    "mart": Row("mart", _mart),
    "mma": Row("mma", _mma, visited=True),
    "mma, first visit": Row("mma", _mma),
    "mma, from x": Row("mma", _mma, {"random_start": False}, visited=True),
    "fat, tau 0": Row("fat", _fat, {"tau": 0}),
    "fat, tau 2": Row("fat", _fat, {"tau": 2}),
    "fat, no noise": Row("fat", _fat, {"tau": 1, "omega": 0.0}),
    # Tau is 0 in epochs 0 to 4 of 12, 1 in 5 to 8, 2 in 9 to 11.
    "fat, first epoch": Row("fat", _fat),
    "fat, epoch 4": Row("fat", _fat, over=(3, 12)),
    "fat, epoch 5": Row("fat", _fat, over=(4, 12)),
    "fat, epoch 8": Row("fat", _fat, over=(7, 12)),
    "fat, epoch 9": Row("fat", _fat, over=(8, 12)),
    "gairat": Row("gairat", _gairat, {"begin": 0}),
    "gairat, not yet": Row("gairat", _gairat, {"begin": 1}),
    "gairat, epoch 3 of 4": Row("gairat", _gairat, {"begin": 4}, over=(2, 10)),
    "gairat, epoch 4 of 4": Row("gairat", _gairat, {"begin": 4}, over=(3, 10)),
    # Weighted from epoch 4 of 10 on, the fifth.
    "gairat, first epoch": Row("gairat", _gairat),
    "gairat, epoch 3": Row("gairat", _gairat, over=(2, 10)),
    "gairat, epoch 4": Row("gairat", _gairat, over=(3, 10)),
    # Warm in epochs 0 and 1 of 22.
    "iaat, first epoch": Row("iaat", _iaat),
    "iaat, epoch 1 of 22": Row("iaat", _iaat, over=(0, 22), visited=True),
    "iaat, epoch 2 of 22": Row("iaat", _iaat, over=(1, 22), visited=True),
    "iaat": Row("iaat", _iaat, over=(0, 11), visited=True),
    "curriculum, 0": Row("curriculum", _curriculum),
    "curriculum, 3": Row("curriculum", _curriculum, strength=3),
    "curriculum, 4": Row("curriculum", _curriculum, strength=4),
    # The gap grows in epochs 3 to 6 of 10.
    "ates": Row("ates", _ates),
    "ates, gap": Row("ates", _ates, {"initial": -0.1}),
    "ates, epoch 3": Row("ates", _ates, over=(2, 10)),
    "ates, epoch 5": Row("ates", _ates, over=(4, 10)),
    "ates, last epoch": Row("ates", _ates, over=(8, 10)),
    "ates, gap, epoch 4": Row("ates", _ates, {"initial": -0.6, "final": 0.2}, over=(3, 10)),
    # The threshold falls in epochs 1 to 9 of 12, and is 0 from 10 on.
    "dat": Row("dat", _dat, {"c_max": 0.05}),
    "dat, loose": Row("dat", _dat),
    "dat, epoch 5": Row("dat", _dat, over=(4, 12)),
    "dat, epoch 9": Row("dat", _dat, over=(8, 12)),
    "dat, last epoch": Row("dat", _dat, over=(10, 12)),
    "customized": Row("customized", _customized, visited=True),
    "customized, first visit": Row("customized", _customized),
    "customized, mix": Row("customized", _customized, {"loss": "mix"}, visited=True),
}


def test_every_method_but_those_with_a_twin_of_their_own_is_here() -> None:
    assert {row.name for row in ROWS.values()} == METHODS.keys() - {"standard", "ima"}


@pytest.mark.parametrize("epochs", [1, 7, 60, 100, 110, 120, 300])
def test_schedules_equal_the_twins_in_every_epoch(epochs: int) -> None:
    for e in range(epochs):
        assert dynamic_tau(e, epochs) == methods_twin.fat_tau(e, epochs)
        ates = adaptive_twin.ates_gap(e, epochs, 0.0, 0.4)
        assert gap(e, epochs, 0.0, 0.4, 0.3, 0.7) == pytest.approx(ates, abs=1e-12)
        dat = adaptive_twin.dat_threshold(e, epochs, 0.5)
        assert threshold(e, epochs, 0.5) == pytest.approx(dat, abs=1e-12)


def _twins(name: str, norm: float) -> dict[str, tuple[float, Tensor | None, Tensor]]:
    """What the twins of a method's rows compute: loss, new margins, and those before."""
    found: dict[str, tuple[float, Tensor | None, Tensor]] = {}
    for title, row in ROWS.items():
        if row.name == name:
            # One epoch's noise for all, so that only the setting differs.
            case = make(norm, (0.0, 1.0), seed=0, epoch=0)
            loss, margins = row.twin(case, row)
            found[title] = float(loss.detach()), margins, row.stored(case.eps).double()
    return found


SAME = {
    # Of each, the others that stand at the same tau or threshold, or are weighted or warm as it is.
    "fat": {"fat, tau 0": ("fat, first epoch", "fat, epoch 4"),
            "fat, tau 2": ("fat, epoch 9",), "fat, epoch 5": ("fat, epoch 8",)},
    "gairat": {"gairat": ("gairat, epoch 4 of 4", "gairat, epoch 4"),
               "gairat, not yet": ("gairat, epoch 3 of 4", "gairat, first epoch",
                                   "gairat, epoch 3")},
    "dat": {"dat": ("dat, epoch 9",)},
    "iaat": {"iaat, first epoch": ("iaat, epoch 1 of 22",), "iaat": ("iaat, epoch 2 of 22",)},
}  # fmt: skip


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("name", sorted({row.name for row in ROWS.values()}))
def test_the_fixed_batch_tells_the_settings_of_a_method_apart(name: str, norm: float) -> None:
    found = _twins(name, norm)
    for like, others in SAME.get(name, {}).items():
        for other in others:
            assert found.pop(other)[0] == pytest.approx(found[like][0], rel=1e-12)
    losses = sorted(loss for loss, _, _ in found.values())
    assert all(b - a > 1e-6 for a, b in itertools.pairwise(losses)), found


@pytest.mark.parametrize("norm", [2, math.inf])
def test_the_fixed_batch_holds_samples_of_every_kind(norm: float) -> None:
    eps = RADIUS[norm]
    _, margins, _ = _twins("mma", norm)["mma"]
    assert margins is not None
    # Wrong ones lose theirs; of the right ones some are at their boundary, others beyond reach.
    assert 0 < int((margins == 0).sum()) < int((margins < eps).sum()) < SAMPLES
    # Its margin grows, stays or shrinks by a tenth of gamma.
    _, margins, before = _twins("iaat", norm)["iaat"]
    assert margins is not None
    steps = {round(v, 6) for v in ((margins - before) / (0.1 * 1.9 / 8 * eps / 4)).tolist()}
    assert {1.0, 0.0, -1.0} <= steps
    _, margins, before = _twins("customized", norm)["customized"]
    assert margins is not None
    grown = margins > before + 1e-9
    assert 0 < int(grown.sum()) < SAMPLES


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)], ids=["free", "bounded"])
@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_loss_gradient_and_margins_equal_the_twin(
    row: Row, norm: float, bounds: tuple[float, float] | None
) -> None:
    for seed in range(2):
        case = make(norm, bounds, seed=seed, epoch=row.now[0])
        wanted: dict[str, Any] = {"norm": norm, "bounds": bounds, "steps": STEPS, "eps": case.eps}
        constructor = METHODS[row.name].method
        stateful = row.name in ("mma", "iaat", "customized")
        extra = {"num_samples": SAMPLES} if stateful else {}
        seeds = {} if row.name == "sat" else {"seed": case.seed}
        method = constructor(**wanted, **extra, **seeds, **row.options)
        if row.over is not None:
            method.end_epoch(*row.over)
        if stateful and row.visited:
            method.margins.values = row.stored(case.eps)
        if row.name == "curriculum":
            method.lesson.strength = row.strength

        start = {k: v.clone() for k, v in case.model.state_dict().items()}
        parameters = list(case.model.parameters())
        expected, margins = row.twin(case, row)
        wanted_grads = torch.autograd.grad(expected, parameters)
        after = {k: v.clone() for k, v in case.model.state_dict().items()}
        case.model.load_state_dict(start)

        step = method(case.model, case.x, case.y, torch.arange(SAMPLES))
        assert float(step.loss.detach()) == pytest.approx(
            float(expected.detach()), rel=1e-7, abs=1e-9
        )
        for mine, theirs in zip(
            torch.autograd.grad(step.loss, parameters), wanted_grads, strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)
        if margins is not None:
            torch.testing.assert_close(
                method.margins.values.double(), margins, rtol=1e-5, atol=1e-6
            )
        for name, value in case.model.state_dict().items():
            # Running statistics too: as many training passes, on the same samples.
            torch.testing.assert_close(value, after[name], rtol=1e-7, atol=1e-8)
