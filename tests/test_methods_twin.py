"""Loss, parameter gradient and new margins of every method against a slow twin of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from nets import cnn, seeded
from torch import Generator, Tensor, nn
from twins import adaptive_twin, methods_twin

from ima.methods import METHODS
from ima.methods.customized import SOFTEST, dirichlet
from ima.methods.iaat import LEAST
from ima.norms import gaussian, get_norm

STEPS, SAMPLES, CLASSES = 6, 12, 4
RADIUS = {2: 0.4, math.inf: 0.06}


@dataclass
class Case:
    """One fixed batch, the noise radius, and the noise that a method will draw from its seed."""

    model: nn.Module
    x: Tensor
    y: Tensor
    norm: float
    bounds: tuple[float, float] | None
    seed: int = 3

    @property
    def eps(self) -> float:
        return RADIUS[self.norm]

    @property
    def shared(self) -> dict[str, Any]:
        return {"steps": STEPS, "norm": float(self.norm), "bounds": self.bounds}

    def generator(self) -> Generator:
        """Where a method's noise comes from in its first epoch; see `Noisy`."""
        return torch.Generator().manual_seed(self.seed * 1_000_003)

    def unit(self, generator: Generator) -> Tensor:
        return get_norm(self.norm).random(
            self.x, torch.ones(len(self.x), dtype=self.x.dtype), generator
        )


def make(norm: float, bounds: tuple[float, float] | None, *, batch_norm: bool, seed: int) -> Case:
    model = cnn(channels=2, outputs=CLASSES, batch_norm=batch_norm, seed=seed, activation=nn.Tanh)
    x = torch.rand(SAMPLES, 2, 6, 6, generator=seeded(seed), dtype=torch.float64)
    model.double().train()
    # Two thirds are labelled as the model sees them, so that walks begin on both sides.
    with torch.no_grad():
        y = model.eval()(x).argmax(1)
        model.train()
    y[::3] = (y[::3] + 1) % CLASSES
    return Case(model, x, y, norm, bounds)


Twin = Callable[[Case, Any], tuple[Tensor, Tensor | None]]
"""twin(case, method) -> (loss, new margins of the batch or None)."""


def _sat(case: Case, _: Any) -> tuple[Tensor, Tensor | None]:
    return methods_twin.sat(case.model, case.x, case.y, eps=case.eps, **case.shared), None


def _trades(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    normal = gaussian(case.x, case.generator())
    loss = methods_twin.trades(
        case.model, case.x, case.y, eps=case.eps, beta=6.0, normal=normal, **case.shared
    )
    return loss, None


def _mart(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    normal = gaussian(case.x, case.generator())
    loss = methods_twin.mart(
        case.model, case.x, case.y, eps=case.eps, lam=5.0, normal=normal, **case.shared
    )
    return loss, None


def _fat(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    generator = case.generator()
    unit = case.unit(generator)
    jitter = [gaussian(case.x, generator) for _ in range(STEPS)]
    loss = methods_twin.fat(
        case.model, case.x, case.y, eps=case.eps, tau=method.tau, unit=unit, omega=method.omega,
        jitter=jitter, **case.shared,
    )  # fmt: skip
    return loss, None


def _gairat(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    loss = methods_twin.gairat(
        case.model, case.x, case.y, eps=case.eps, lam=-1.0, weighted=method.begin == 0,
        unit=case.unit(case.generator()), **case.shared,
    )  # fmt: skip
    return loss, None


def _curriculum(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    shared = {key: value for key, value in case.shared.items() if key != "steps"}
    loss = methods_twin.curriculum(
        case.model, case.x, case.y, eps=case.eps, strength=method.lesson.strength,
        unit=case.unit(case.generator()), **shared,
    )  # fmt: skip
    return loss, None


def _ates(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    loss = adaptive_twin.ates(
        case.model, case.x, case.y, eps=case.eps, gap=method.initial,
        unit=case.unit(case.generator()), **case.shared,
    )  # fmt: skip
    return loss, None


def _dat(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    loss = adaptive_twin.dat(
        case.model, case.x, case.y, eps=case.eps, threshold=method.c_max,
        unit=case.unit(case.generator()), **case.shared,
    )  # fmt: skip
    return loss, None


def _mma(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    unit = case.unit(case.generator()) if method.random_start else None
    stored = method.margins.values[: len(case.x)].double()
    return adaptive_twin.mma(
        case.model, case.x, case.y, eps=case.eps, eps_min=method.eps_min, stored=stored,
        unit=unit, **case.shared,
    )  # fmt: skip


def _iaat(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    generator = case.generator()
    previous = method.margins.values[: len(case.x)].double()
    warm = method.epoch == 0
    near = case.unit(generator)
    units = (near, near, near) if warm else (near, case.unit(generator), case.unit(generator))
    return adaptive_twin.iaat(
        case.model, case.x, case.y, prev=previous, warm=warm, eps0=method.initial,
        gamma=method.gamma, alpha_min=LEAST * method.initial, beta=method.beta, cap=case.eps,
        units=units, **case.shared,
    )  # fmt: skip


def _customized(case: Case, method: Any) -> tuple[Tensor, Tensor | None]:
    generator = case.generator()
    like = torch.empty(len(case.x), CLASSES, dtype=case.x.dtype)
    draws = (dirichlet(like, generator), dirichlet(like, generator))
    current = method.margins.values[: len(case.x)].double()
    return adaptive_twin.customized(
        case.model, case.x, case.y, eps_max=case.eps, eta=method.eta, c=SOFTEST / case.eps,
        current=current, loss=method.loss, draws=draws, **case.shared,
    )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A method with one setting, its twin, and what is done to it before the step."""

    name: str
    twin: Twin
    options: dict[str, Any]
    prepare: Callable[[Any], None] = lambda _: None


def _margins(method: Any) -> None:
    count = len(method.margins)
    spread = torch.linspace(0, 0.9, count)[torch.randperm(count, generator=seeded(5))]
    method.margins.values = (spread * method.margins.cap).float()


def _second_epoch(method: Any) -> None:
    method.epoch, method.epochs = 1, 11
    _margins(method)


def _strength(strength: int) -> Callable[[Any], None]:
    def prepare(method: Any) -> None:
        method.lesson.strength = strength

    return prepare


ROWS = {
    "sat": Row("sat", _sat, {}),
    "trades": Row("trades", _trades, {}),
    "mart": Row("mart", _mart, {}),
    "mma": Row("mma", _mma, {}, _margins),
    "mma, from x": Row("mma", _mma, {"random_start": False}, _margins),
    "fat, tau 0": Row("fat", _fat, {"tau": 0}),
    "fat, tau 2": Row("fat", _fat, {"tau": 2}),
    "fat, no noise": Row("fat", _fat, {"tau": 1, "omega": 0.0}),
    "gairat": Row("gairat", _gairat, {"begin": 0}),
    "gairat, not yet": Row("gairat", _gairat, {"begin": 1}),
    "iaat, first epoch": Row("iaat", _iaat, {}),
    "iaat": Row("iaat", _iaat, {}, _second_epoch),
    "curriculum, 0": Row("curriculum", _curriculum, {}),
    "curriculum, 3": Row("curriculum", _curriculum, {}, _strength(3)),
    "curriculum, 4": Row("curriculum", _curriculum, {}, _strength(4)),
    "ates": Row("ates", _ates, {}),
    "ates, gap": Row("ates", _ates, {"initial": -0.1}),
    "dat": Row("dat", _dat, {"c_max": 0.05}),
    "dat, loose": Row("dat", _dat, {"c_max": 0.5}),
    "customized": Row("customized", _customized, {}, _margins),
    "customized, mix": Row("customized", _customized, {"loss": "mix"}, _margins),
}


def test_every_method_but_those_with_a_twin_of_their_own_is_here() -> None:
    assert {row.name for row in ROWS.values()} == METHODS.keys() - {"standard", "ima"}


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)], ids=["free", "bounded"])
@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_loss_gradient_and_margins_equal_the_twin(
    row: Row, norm: float, bounds: tuple[float, float] | None
) -> None:
    for seed in range(2):
        # SAT, as IMA, looks at the clean sample first; its twin attacks first. The order shows in
        # the running statistics alone.
        case = make(norm, bounds, batch_norm=row.name != "sat", seed=seed)
        wanted: dict[str, Any] = {"norm": norm, "bounds": bounds, "steps": STEPS, "eps": case.eps}
        constructor = METHODS[row.name].method
        stateful = row.name in ("mma", "iaat", "customized")
        extra = {"num_samples": SAMPLES} if stateful else {}
        seeds = {} if row.name == "sat" else {"seed": case.seed}
        method = constructor(**wanted, **extra, **seeds, **row.options)
        row.prepare(method)

        start = {k: v.clone() for k, v in case.model.state_dict().items()}
        parameters = list(case.model.parameters())
        expected, margins = row.twin(case, method)
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
