"""How long an evaluation takes at most is said before it begins, and on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import mlp, seeded
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import Classification
from ima.budget import how_long
from ima.cli import batches
from ima.evaluation import evaluate, foresee
from ima.evaluation.attacks import ATTACKS
from ima.evaluation.settings import Settings
from ima.evaluation.subject import Subject


class Counted(nn.Module):
    """Counts the samples that gradients are asked for, and half of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.passes = mlp((6,)), 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x) * (1 if x.requires_grad else 0.5)
        return self.net(x)


def subject(folder: Path, model: nn.Module, data: Any, **more: Any) -> Subject:
    options: dict[str, Any] = {"batch_size": 8, "pictures": False, **more}
    return Subject(
        model,
        data,
        Classification(),
        2,
        (0.0, 1.0),
        folder,
        "results",
        Settings(),
        (0.05,),
        ("pgd-4",),
        **options,
    )


def data(net: nn.Module, count: int = 20) -> TensorDataset:
    x = torch.rand(count, 6, generator=seeded(0))
    return TensorDataset(x, net(x).argmax(1).detach())


@pytest.mark.parametrize("attack", ["pgd-4", "ifgsm-3", "noise-6", "white-4"])
def test_no_attack_needs_more_passes_than_foreseen(attack: str) -> None:
    net = Counted()
    samples = data(net)
    name, _, steps = attack.partition("-")
    # So small a radius breaks nothing.
    evaluate.evaluate(net, samples, 1e-5, attack, bounds=(0, 1), batch_size=20)
    beside = net.passes
    evaluate.evaluate(net, samples, [1e-5, 2e-5], attack, bounds=(0, 1), batch_size=20)
    one = ATTACKS[name].passes(int(steps), 3) * len(samples)
    more = net.passes - 2 * beside
    if name != "white":
        # A second look at what was found, and at where each walk ended, comes with each radius.
        assert 0.5 * one <= more <= one + 8 * len(samples)
    assert beside >= one


def test_the_time_is_passes_times_batches_times_radii(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = mlp((6,))
    clock: Iterator[int] = iter(range(1000))
    monkeypatch.setattr(foresee.time, "perf_counter", lambda: float(next(clock)))
    one = subject(tmp_path, net, data(net))
    # 20 samples in batches of 8; each timed gradient takes one second of this clock.
    assert foresee.foresee(one, [0.1, 0.2], ["pgd-4", "ifgsm-10"]) == (4 * 4 + 10) * 2 * 3
    # 100 + 2 * 100 of APGD and FAB to each other class, or DLR for three; 5000 queries by two.
    assert foresee.foresee(one, [0.1], ["autoattack"]) == (100 + 100 + 200 + 2500) * 3


@pytest.mark.parametrize("what", ["stream", "broken", "unknown attack"])
def test_what_cannot_be_known_is_no_error(what: str, tmp_path: Path) -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("no")

    net = mlp((6,))
    known: Any = data(net)
    one = subject(tmp_path, net, known)
    if what == "stream":
        one = subject(tmp_path, net, (pair for pair in list(known)))
    if what == "broken":
        one = subject(tmp_path, Breaks(), known)
    attacks = ["nothing"] if what == "unknown attack" else ["pgd-4"]
    assert math.isnan(foresee.foresee(one, [0.1], attacks))


def test_lines_tell_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two were on record; the others take 100 s each.
    clock = iter([0.0, 0.0, 100.0, 200.0, 300.0])
    monkeypatch.setattr(batches.time, "monotonic", lambda: next(clock))
    line = batches.lines("best weights")
    for done in range(1, 6):
        line(done, 5)
    assert capsys.readouterr().err.splitlines() == [
        "best weights: batch 1 of 5",
        "best weights: batch 2 of 5",
        "best weights: batch 3 of 5, 2 min left",
        "best weights: batch 4 of 5, 67 s left",
        "best weights: batch 5 of 5",
    ]


def test_only_what_takes_long_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = mlp((6,))
    one = subject(tmp_path, net, data(net))
    for seconds in (29.0, math.nan, 4000.0):
        monkeypatch.setattr(foresee, "foresee", lambda *_, seconds=seconds: seconds)
        batches.announce("best weights", one, None, None)
    assert capsys.readouterr().err == "best weights: at most 67 min of attacks\n"


@pytest.mark.parametrize(("seconds", "said"), [(5, "5 s"), (130, "2 min"), (9000, "2.5 h")])
def test_times_in_words(seconds: float, said: str) -> None:
    assert how_long(seconds) == said


def test_every_walk_of_pgd_is_counted() -> None:
    """Each objective of labels from the sample, and from a random start."""
    assert len(Classification().climbs()) * 2 * 7 == ATTACKS["pgd"].passes(7, 3)
