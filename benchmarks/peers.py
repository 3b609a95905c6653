"""Other libraries, each imported where it is installed and named where it is not.

torchattacks, foolbox, adversarial-library (adv-lib), pyautoattack (the authors' AutoAttack), and a
checkout of the IMA authors' code.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.base import World
from ima.torchvision_compat import mend_torchvision

INSTALL = "not installed: make bench"


@dataclass(frozen=True)
class Peer:
    """What another library does; run is None where it cannot, and lacks says why."""

    name: str
    run: Callable[..., Any] | None
    lacks: str = ""


def library(name: str) -> Any:
    """A library, or None where it is not installed."""
    if find_spec(name.partition(".")[0]) is None:
        return None
    mend_torchvision()
    if name.startswith("adv_lib") and "visdom" not in sys.modules and find_spec("visdom") is None:
        # Its curves are drawn by visdom, which cannot be built any more and is not used here.
        sys.modules["visdom"] = ModuleType("visdom")
        vars(sys.modules["visdom"])["Visdom"] = object
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)


def authors(world: World, module: str) -> Any:
    """A module of the IMA authors' code for classification, or None without a checkout."""
    if world.authors is None:
        return None
    folder = world.authors / "classification" / "core"
    if not folder.is_dir():
        raise SystemExit(
            f"{world.authors} has no classification/core; expected a checkout of "
            "SarielMa/Increasing-Margin-Adversarial-Training"
        )
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return import_module(module)


def attack(name: str, module: str, run: Callable[..., Any]) -> Peer:
    """run(library, ...), where the library is installed."""
    found = library(module)
    return Peer(name, None, INSTALL) if found is None else Peer(name, partial(run, found))


def training_peers(world: World, eps: float) -> list[Peer]:
    """SAT and TRADES of others: run(model, x, y) gives the loss."""
    ours = {"norm_type": 2, "max_iter": world.steps}

    def sat_torchattacks(library: Any, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        clean = nn.functional.cross_entropy(model(x), y)
        model.eval()
        size = 4 * eps / world.steps
        found = library.PGDL2(model, eps=eps, alpha=size, steps=world.steps, random_start=False)
        noisy = found(x, y)
        model.train()
        return (clean + nn.functional.cross_entropy(model(noisy), y)) / 2

    def trades_authors(library: Any, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        options = {**ours, "max_norm": eps, "step": 2 * eps / world.steps, "beta": 6.0}
        return library.TRADES_loss(model, x, y, model_eval_attack=True, **options)[0]

    trades = authors(world, "RobustDNN_TRADES")
    none = "no checkout: --authors"
    return [
        attack("sat, torchattacks", "torchattacks", sat_torchattacks),
        Peer("trades, authors' code", None, none)
        if trades is None
        else Peer("trades, authors' code", partial(trades_authors, trades)),
    ]


def released(world: World, algorithm: int) -> Callable[..., Tensor] | None:
    """The authors' step: run(model, x, y, margins, delta) gives the loss; None without."""
    code = authors(world, "RobustDNN_IMA_bn")
    if code is None:
        return None

    def run(model: nn.Module, x: Tensor, y: Tensor, margins: Tensor, delta: float) -> Tensor:
        return code.IMA_loss(
            model,
            x,
            y,
            margins,
            2,
            world.steps,
            4 * margins / world.steps,
            rand_init_norm=(margins - delta).clamp_min(1e-3),
            Xn1_equal_X=algorithm == 3,
            Xn2_equal_Xn=algorithm == 3,
            stop_near_boundary=True,
            beta_position=1,
            pgd_loss_fn="slm",
            model_Xn_advc_p=True,
        )[0]

    return run


def pgd_peers(steps: int, eps: float) -> list[Peer]:
    """PGD of others, four runs as ours: run(model, x, y) gives noisy samples of each run.

    Ours begins twice at the sample and twice at random. Peers know one loss, with which a second
    run from the sample would be the first again: theirs begins once there and three times at
    random.
    """
    size, starts = 10 * eps / steps, (False, True, True, True)

    def torchattacks(
        library: Any, model: nn.Module, x: Tensor, y: Tensor, *, standing: bool
    ) -> list[Tensor]:
        runs = [
            library.PGDL2(model, eps=eps, alpha=size, steps=steps, random_start=start)
            for start in starts
        ]
        if standing:
            return [library.MultiAttack(runs)(x, y)]
        return [one(x, y) for one in runs]

    def foolbox(library: Any, model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
        wrapped = library.PyTorchModel(model, bounds=(0, 1), device=x.device)
        wanted = library.criteria.Misclassification(y)
        found: list[Tensor] = []
        for start in starts:
            one = library.attacks.L2ProjectedGradientDescentAttack(
                abs_stepsize=size, steps=steps, random_start=start
            )
            found.append(one.run(wrapped, x, wanted, epsilon=eps))
        return found

    return [
        attack("torchattacks", "torchattacks", partial(torchattacks, standing=False)),
        attack("torchattacks, MultiAttack", "torchattacks", partial(torchattacks, standing=True)),
        attack("foolbox", "foolbox", foolbox),
    ]


def nearest_peers(steps: int, radius: float) -> list[Peer]:
    """Minimal-norm attacks of others: run(model, x, y) gives noisy samples."""

    def foolbox(library: Any, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wrapped = library.PyTorchModel(model, bounds=(0, 1), device=x.device)
        wanted = library.criteria.Misclassification(y)
        return library.attacks.DDNAttack(steps=steps, init_epsilon=radius).run(wrapped, x, wanted)

    def adv_ddn(library: Any, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return library.ddn(model, x, y, steps=steps, init_norm=radius, levels=None)

    def adv_alma(library: Any, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return library.alma(model, x, y, num_steps=steps, init_lr_distance=radius)

    def adv_fmn(library: Any, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return library.fmn(model, x, y, norm=2, steps=steps)

    return [
        attack("DDN, foolbox", "foolbox", foolbox),
        attack("DDN, adversarial-library", "adv_lib.attacks", adv_ddn),
        attack("ALMA, adversarial-library", "adv_lib.attacks", adv_alma),
        attack("FMN, adversarial-library", "adv_lib.attacks", adv_fmn),
    ]


def autoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Which samples stand after the authors' AutoAttack, (N,) bool."""
    code: Any = import_module("pyautoattack")
    one: Any = code.AutoAttack(model, norm="L2", eps=eps, seed=0, version="standard")
    _, prediction = one.run_standard_evaluation(x, y, batch_size=len(x))
    with torch.no_grad():
        return prediction == y
