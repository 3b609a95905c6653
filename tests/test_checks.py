"""Checks that catch a flattering number: each is tripped by a network that flatters in its way."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand import lowest_of
from nets import Linear2, Pixels, cnn, seeded
from own_norms import summed
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import Classification, Segmentation, evaluate
from ima.budget import Budget, OutOfTime
from ima.data import load
from ima.evaluation import bench as benches
from ima.evaluation import checks as checking
from ima.evaluation.autoattack import attack_parts
from ima.evaluation.bench import Bench
from ima.evaluation.checks import run_checks
from ima.evaluation.checks_results import Check, Checks, in_words, share
from ima.evaluation.checks_table import CHECKS
from ima.evaluation.chosen import choose_samples
from ima.evaluation.noise import WHITE_NOISE, white_noise
from ima.evaluation.probes import NotRun, Probed
from ima.evaluation.results import Results
from ima.evaluation.settings import Settings
from ima.networks.small_cnn import small_cnn
from ima.norms import L2, LINF, get_norm

EPS = (0.3, 0.6)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "QUERIES", 300)


@pytest.fixture(scope="module")
def digits() -> TensorDataset:
    test = load("digits").test
    return TensorDataset(*test[list(range(120))])


def bench(model: nn.Module, data: Any, eps: Any = EPS, **options: Any) -> Bench:
    options = {"norm": L2, "bounds": (0, 1), "task": Classification(), "steps": 20, **options}
    task, bounds = options["task"], options["bounds"]
    chosen = choose_samples(model, data, task, bounds, 60, 0, ("image", "label"))
    return Bench(model, chosen, list(eps), seed=0, **options)


def probe(name: str, on: Bench) -> Probed:
    return CHECKS[name].probe(on)


# --- An honest network trips nothing --------------------------------------------------------------


def test_an_honest_network_trips_no_check(honest: nn.Module, digits: TensorDataset) -> None:
    other = small_cnn(1, 10, width=8)
    state = torch.random.get_rng_state()
    flags = [m.training for m in honest.modules()]
    found = run_checks(
        honest, digits, EPS, bounds=(0, 1), transfer=other, samples=60, steps=20, seed=1
    )
    assert [c.name for c in found.checks] == list(CHECKS)
    assert {c.name: c.sentence for c in found.checks if c.tripped is not False} == {}
    assert (found.settings.samples, found.settings.total) == (60, 120)
    assert 100 < (found.settings.right or 0) <= 120
    assert found.settings.eps == EPS
    assert list(found.settings.attacks) == ["pgd-20"]
    # It is attacked in earnest: noise breaks some and not all.
    evidence = {c.name: c.evidence for c in found.checks}
    accuracy = [evidence["converged"][f"accuracy under PGD (20 steps), at {e}"] for e in EPS]
    assert 1 > accuracy[0]["share"] > accuracy[1]["share"]
    assert [a["n"] for a in accuracy] == [60, 60]
    # And nothing of it is left behind.
    assert torch.equal(state, torch.random.get_rng_state())
    assert [m.training for m in honest.modules()] == flags
    assert all(p.grad is None for p in honest.parameters())


# --- Networks that flatter ------------------------------------------------------------------------


class Around(nn.Module):
    """The honest network behind and before something that flatters it."""

    def __init__(
        self,
        inner: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.inner, self.before, self.after = inner, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.before(x)))


def quantised(x: Tensor) -> Tensor:
    return (x * 16).round() / 16


def scaled(z: Tensor) -> Tensor:
    return 1e4 * z


def shaken(z: Tensor) -> Tensor:
    return z + 0.3 * torch.randn_like(z)


def tenths(z: Tensor) -> Tensor:
    # Rounded forwards, no gradient backwards.
    return (z * 10).round() / 10


def only_on_the_grid(x: Tensor) -> Tensor:
    """A gradient at clean digits, whose entries are sixteenths, and none beside them."""
    clean = (x * 16 == (x * 16).round()).flatten(1).all(1)
    return torch.where(clean.reshape(-1, 1, 1, 1), x, x.detach())


FLATTERED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no gradient": ({"after": tenths}, ("gradients", "black-box", "huge-noise")),
    "quantised inputs": ({"before": quantised}, ("gradients", "black-box")),
    "logits times 10000": ({"after": scaled}, ("gradients",)),
    "a random layer": ({"after": shaken}, ("deterministic",)),
    "probabilities": ({"after": lambda z: z.softmax(1)}, ("probabilities",)),
    "gradients for one step": ({"before": only_on_the_grid}, ("one-step", "black-box")),
}


@pytest.mark.parametrize("case", FLATTERED)
def test_a_network_that_flatters_trips_its_check(
    case: str, honest: nn.Module, digits: TensorDataset
) -> None:
    how, names = FLATTERED[case]
    on = bench(Around(honest, **how), digits, eps=(0.4, 1.2))
    for name in names:
        found = probe(name, on)
        assert found.tripped, f"{name}: {found.sentence}"
        assert not probe(name, bench(honest, digits, eps=(0.4, 1.2))).tripped


def test_every_check_that_trips_says_how_many(honest: nn.Module, digits: TensorDataset) -> None:
    found = probe("gradients", bench(Around(honest, after=tenths), digits))
    assert found.evidence["exactly zero"] == share(60, 60)
    assert "at 60 clean samples, 100.0 % of 60" in found.sentence


class Ring(nn.Module):
    """Label 0, wrong only at distances around 0.15; far outside, no gradient leads back."""

    def forward(self, x: Tensor) -> Tensor:
        bump = torch.exp(-(((x[:, 0].abs() - 0.15) / 0.05) ** 2)) - 0.5
        return torch.stack((torch.zeros_like(bump), bump), 1)


def test_an_attack_that_overshoots_is_not_monotone() -> None:
    x = torch.linspace(0.005, 0.02, 30)[:, None]
    data = TensorDataset(x, torch.zeros(30, dtype=torch.long))
    on = bench(Ring(), data, eps=(0.2, 1000.0), bounds=None)
    assert int(on.broken("white-box", 0.2).sum()) == 30
    found = probe("monotone", on)
    assert found.tripped
    assert found.evidence["PGD (20 steps) breaks, at 0.2"]["share"] == 1
    assert not probe("monotone", bench(Ring(), data, eps=(0.02, 0.2), bounds=None)).tripped


def test_an_attack_that_steps_over_the_ring_has_not_converged() -> None:
    x = torch.linspace(0.005, 0.02, 30)[:, None]
    data = TensorDataset(x, torch.zeros(30, dtype=torch.long))
    # Steps of 0.6 jump from one end of the ball to the other; steps of 0.125 land in the ring.
    found = probe("converged", bench(Ring(), data, eps=(0.25,), bounds=None, steps=4))
    assert found.tripped
    assert found.evidence["accuracy under PGD (20 steps), at 0.25"]["share"] == 0
    assert found.evidence["accuracy under PGD (4 steps), at 0.25"]["share"] > 0.2
    assert not probe("converged", bench(Ring(), data, eps=(0.25,), bounds=None)).tripped


def test_the_worst_case_of_all_attacks_is_what_must_have_converged() -> None:
    x = torch.linspace(0.005, 0.02, 30)[:, None]
    data = TensorDataset(x, torch.zeros(30, dtype=torch.long))
    # PGD with few steps misses the ring, random noise finds it: nothing is missed by both.
    alone, both = (
        probe("converged", bench(Ring(), data, (0.25,), bounds=None, steps=4, attacks=attacks))
        for attacks in (["pgd-4"], ["pgd-4", "noise-100"])
    )
    assert alone.tripped and "leave" in alone.sentence and "PGD (4 steps)" in alone.sentence
    assert not both.tripped
    key = "accuracy under the worst case of PGD (4 steps) and noise-100, at 0.25"
    assert both.evidence[key]["share"] == 0
    # Weaker attacks than the checks' own: what is reported is held against them.
    weak = probe("converged", bench(Ring(), data, (0.25,), bounds=None, attacks=["pgd-4"]))
    assert weak.tripped and weak.evidence["accuracy under pgd-4, at 0.25"]["share"] > 0.2


def test_what_is_broken_at_a_smaller_radius_is_reported_as_broken() -> None:
    x = torch.linspace(0.005, 0.02, 30)[:, None]
    data = TensorDataset(x, torch.zeros(30, dtype=torch.long))
    on = bench(Ring(), data, eps=(0.2, 1000.0), bounds=None)
    assert int(on.broken("white-box", 1000.0).sum()) < 30
    assert [int(on.reported(eps).sum()) for eps in on.radii] == [30, 30]
    assert not probe("converged", on).tripped


def test_the_checks_attack_as_the_evaluation_did(honest: nn.Module, digits: TensorDataset) -> None:
    options: dict[str, Any] = {"bounds": (0, 1), "samples": 20, "steps": 5}
    found = run_checks(honest, digits, 0.4, ["pgd-5", "ifgsm-3", "white-100"], **options)
    assert list(found.settings.attacks) == ["pgd-5", "ifgsm-3"]
    (check,) = (c for c in found.checks if c.name == "converged")
    assert "accuracy under the worst case of PGD (5 steps) and ifgsm-3, at 0.4" in check.evidence
    with pytest.raises(ValueError, match="unknown attack 'pdg-5'"):
        run_checks(honest, digits, 0.4, ["pdg-5"], **options)
    with pytest.raises(ValueError, match="autoattack cannot run here: AutoAttack needs bounds"):
        run_checks(honest, digits, 0.4, ["autoattack"], **{**options, "bounds": None})


def test_random_noise_beats_an_attack_without_gradient() -> None:
    class Steps(nn.Module):
        """Right below 0.5, wrong above; no gradient anywhere."""

        def forward(self, x: Tensor) -> Tensor:
            high = (x[:, 0] > 0.5).float()
            return torch.stack((1 - high, high), 1)

    data = TensorDataset(torch.full((40, 1), 0.45), torch.zeros(40, dtype=torch.long))
    found = probe("random-noise", bench(Steps(), data, eps=(0.06,), norm=LINF))
    # 100 draws, of which each is wrong with 1/12, miss 1 in 6000.
    assert found.evidence["accuracy under the worst of 100 random draws, at 0.06"]["share"] < 0.1
    assert found.tripped


def test_noise_for_another_network_beats_one_that_hides_its_gradient(
    honest: nn.Module, digits: TensorDataset
) -> None:
    hidden = Around(honest, before=quantised)
    assert probe("transfer", bench(hidden, digits, eps=(1.0,), transfer=honest)).tripped
    assert not probe("transfer", bench(honest, digits, eps=(1.0,), transfer=hidden)).tripped
    with pytest.raises(NotRun, match="--transfer-from"):
        probe("transfer", bench(honest, digits))


def test_one_probability_looks_like_one() -> None:
    x = torch.rand(50, 8, generator=seeded(0))
    model = Linear2(8, one_logit=True)
    data = TensorDataset(x, model.labels(x))
    assert not probe("probabilities", bench(model, data)).tripped
    # Logits of a linear layer may lie between 0 and 1 too.
    small = nn.Linear(8, 1)
    with torch.no_grad():
        small.weight.mul_(0.01)
        small.bias.fill_(0.4)
    ones = TensorDataset(x, torch.ones(50, dtype=torch.long))
    assert not probe("probabilities", bench(small, ones)).tripped
    # A sigmoid's output is above 0, so that every sample counts as class 1: it is refused.
    squashed = nn.Sequential(model, nn.Sigmoid())
    data = TensorDataset(x, torch.ones(50, dtype=torch.long))
    with pytest.raises(ValueError, match="a probability and no logit"):
        bench(squashed, data)


def test_two_odd_samples_trip_nothing() -> None:
    class Odd(nn.Module):
        """No gradient for the first samples, whose first entry is 0."""

        def forward(self, x: Tensor) -> Tensor:
            open_ = (x[:, :1] > 0).float()
            return torch.cat((0 * x[:, :1] + 1, 1 - open_ * x[:, 1:2]), 1)

    def found(odd: int) -> Probed:
        x = 0.1 + 0.8 * torch.rand(20, 4, generator=seeded(0))
        x[:odd, 0] = 0
        x[:odd, 1] = 0.5
        return probe("gradients", bench(Odd(), TensorDataset(x, torch.zeros(20).long())))

    assert [found(n).evidence["exactly zero"]["count"] for n in (0, 2, 3)] == [0, 2, 3]
    assert [found(n).tripped for n in (0, 2, 3)] == [False, False, True]


# --- Radii, samples, tasks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "bounds", "size"),
    [
        (2, (0, 1), 8.0),
        (2, (-1, 1), 16.0),
        ("linf", (-1, 1), 2.0),
        (2, None, 12.0),
        (2, (0, float("inf")), 12.0),
    ],
)
def test_huge_noise_spans_the_bounds(norm: Any, bounds: Any, size: float) -> None:
    x = torch.rand(10, 1, 8, 8, generator=seeded(0))
    model = cnn(outputs=2)
    data = TensorDataset(x, model(x).argmax(1).detach())
    on = bench(model, data, eps=(0.3, 1.2), norm=get_norm(norm), bounds=bounds)
    assert on.huge == pytest.approx(size)


def test_the_samples_are_right_and_the_same_for_a_seed() -> None:
    x = torch.rand(200, 8, generator=seeded(0))
    model = Linear2(8)
    y = model.labels(x)
    y[:50] = 1 - y[:50]
    data = TensorDataset(x, y)
    first, again, other = (
        choose_samples(model, data, Classification(), (0, 1), 40, seed, ("image", "label"))
        for seed in (0, 0, 1)
    )
    assert (first.correct, first.total, len(first.x)) == (150, 200, 40)
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, other.x)
    assert torch.equal(model.labels(first.x), first.y)
    batches = [(x[i : i + 30], y[i : i + 30]) for i in range(0, 200, 30)]
    apart = choose_samples(model, batches, Classification(), (0, 1), 40, 0, ("image", "label"))
    assert torch.equal(apart.x, first.x)


def test_tasks_without_classes_run_what_they_can() -> None:
    class Painter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    model, x = Painter(), torch.rand(12, 1, 6, 6, generator=seeded(0))
    y = model(x).argmax(1).detach()
    found = run_checks(model, TensorDataset(x, y), 0.1, bounds=(0, 1), task=Pixels(), steps=5)
    skipped = {c.name: c.sentence for c in found.checks if c.tripped is None}
    assert set(skipped) == {"black-box", "huge-noise", "probabilities", "monotone", "transfer"}
    assert all(sentence.startswith("Not run: ") for sentence in skipped.values())
    assert "one radius only" in skipped["monotone"] and "classes" in skipped["huge-noise"]


class Line(nn.Module):
    """Two logits of samples that are single numbers, (B,)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x), 3 * x], 1)


@pytest.mark.parametrize("norm", ["2", "linf"])
@pytest.mark.parametrize("bounds", [None, (-2, 2)])
def test_samples_may_be_single_numbers(norm: str, bounds: Any) -> None:
    x = torch.linspace(-1, 1, 20)
    data = TensorDataset(x, (x > 0).long())
    found = run_checks(Line(), data, [0.1, 0.2], norm=norm, bounds=bounds, steps=3)
    assert not any(check.tripped for check in found.checks)
    (gradients,) = (check for check in found.checks if "median length" in check.evidence)
    # By hand: 3 sigmoid(-3 |x|).
    middle = (3 * torch.sigmoid(-3 * x.abs())).double().median()
    assert gradients.evidence["median length"] == pytest.approx(float(middle))


def test_square_says_why_it_is_not_run() -> None:
    x = torch.rand(10, 1, 8, 8, generator=seeded(0))
    model = cnn(outputs=2)
    data = TensorDataset(x, model(x).argmax(1).detach())
    with pytest.raises(NotRun, match="Square needs bounds"):
        probe("black-box", bench(model, data, bounds=None))


def test_square_is_not_run_in_a_norm_of_a_users_own() -> None:
    x = torch.rand(10, 1, 8, 8, generator=seeded(0))
    model = cnn(outputs=2)
    data = TensorDataset(x, model(x).argmax(1).detach())
    asked = {"norm": summed("mine"), "bounds": (0, 1), "steps": 2, "samples": 10}
    checks = {c.name: c for c in run_checks(model, data, [0.5], **asked).checks}
    assert checks["black-box"].tripped is None
    assert "not in the norm 'mine'" in checks["black-box"].sentence


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": []}, "at least one finite noise radius"),
        ({"eps": [0.1, -1]}, "above 0"),
        ({"samples": 2}, "samples is 2"),
        ({"steps": 0}, "steps is 0"),
        ({"wrong": True}, "right on 0 of 20 samples"),
    ],
)
def test_what_cannot_be_checked_is_refused(options: dict[str, Any], words: str) -> None:
    x = torch.rand(20, 8, generator=seeded(0))
    model = Linear2(8)
    y = model.labels(x)
    y = 1 - y if options.pop("wrong", False) else y
    with pytest.raises(ValueError, match=words):
        run_checks(model, TensorDataset(x, y), **{"eps": 0.1, "bounds": (0, 1), **options})


def test_a_model_for_other_data_cannot_lend_its_noise(honest: nn.Module) -> None:
    x = torch.rand(20, 8, generator=seeded(0))
    model = Linear2(8)
    for other, words in ((honest, "shape .8,."), (nn.Linear(8, 1), "labels")):
        data = TensorDataset(x, model.labels(x))
        if other is not honest:
            model, data = nn.Linear(8, 3), TensorDataset(x, torch.full((20,), 2))
            model.bias.data[:] = torch.tensor([0.0, 0, 9])
        with pytest.raises(ValueError, match=f"to transfer from .*{words}.* same data"):
            run_checks(model, data, 0.1, bounds=(0, 1), transfer=other)


def test_outputs_that_are_not_finite_are_refused() -> None:
    x = torch.rand(20, 8, generator=seeded(0))
    model = nn.Sequential(Linear2(8), nn.Threshold(-1e9, 0))
    data = TensorDataset(x, torch.zeros(20, dtype=torch.long))
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite on batch of samples 0 to 19"):
        run_checks(model, data, 0.1, bounds=(0, 1))


# --- White noise ----------------------------------------------------------------------------------


class Above(nn.Module):
    """Class 1 where the only entry is above 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((torch.full_like(x, 0.5), x), 1)


def test_white_noise_flips_as_often_as_a_uniform_number_does() -> None:
    # 0.02 below the boundary: 3 of 10 draws of +-0.05 cross it; 0.06 below, none can.
    x = torch.cat((torch.full((4000, 1), 0.48), torch.full((10, 1), 0.44), torch.ones(10, 1)))
    y = torch.zeros(4020, dtype=torch.long)
    once, ever = (
        lowest_of(white_noise, Above(), x, y, 0.05, draws, bounds=(0, 1)) for draws in (1, 4)
    )
    # What is wrong without noise is not tried.
    assert torch.equal(x[ever.start, 0] < 0.5, torch.ones(4010, dtype=torch.bool))
    assert torch.equal(once.noisy[4010:], x[4010:])
    # The samples that are wrong without noise count, and no others, beyond the first 4000.
    first, any_ = once.quality == 0, ever.quality == 0
    assert torch.equal(first[4000:], x[4000:, 0] > 0.5)
    assert int(first[:4000].sum()) / 4000 == pytest.approx(0.3, abs=0.03)
    assert int(any_[:4000].sum()) / 4000 == pytest.approx(1 - 0.7**4, abs=0.03)
    # The only draw of one is the first of four, and what is returned is wrong.
    assert bool((any_ | ~first).all())
    assert bool((ever.noisy[any_] > 0.5).all())


def test_white_noise_is_a_share_of_the_bounds_and_stays_inside() -> None:
    seen: list[Tensor] = []

    class Sees(nn.Module):
        """Class 1 everywhere."""

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.cat((0 * x, 0 * x + 1), 1)

    x = torch.tensor([[0.0], [255.0], [128.0]])
    y = torch.ones(3, dtype=torch.long)
    lowest_of(white_noise, Sees(), x, y, 0.05, 100, bounds=(0, 255))
    drawn = torch.stack(seen[1:])
    assert len(drawn) == 100 and drawn.min() == 0 and drawn.max() == 255
    noise = (drawn - x)[:, 2]
    assert 11 < noise.abs().max() <= 12.75 and noise.min() < -11
    for amplitude in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"white noise of {amplitude} has no size"):
            lowest_of(white_noise, Above(), x, y, amplitude, 100, bounds=(0, 255))


@pytest.mark.parametrize("norm", [2, "linf"])
def test_white_noise_is_measured_beside_the_attacks(norm: Any, tmp_path: Path) -> None:
    # Right and flipped by white noise, right and too far away for it, wrong.
    x = torch.cat((torch.full((300, 1), 0.48), torch.full((60, 1), 0.42), torch.ones(40, 1)))
    data = TensorDataset(x, torch.zeros(400, dtype=torch.long))
    eps, attacks = (0.01, 0.1), ("pgd-3", "ifgsm-3")
    alone = evaluate(Above(), data, eps, attacks, norm=norm, bounds=(0, 1))
    found = evaluate(Above(), data, eps, (*attacks, *WHITE_NOISE), norm=norm, bounds=(0, 1))
    assert found.white == WHITE_NOISE == ("white-1", "white-100")
    assert [found.amplitude(name) for name in found.white] == [0.05, 0.05]
    assert [len(found.flips(name)) for name in found.white] == [360, 360]
    once, ever = (int(found.broken_rows[found.flips(name)].sum()) for name in found.white)
    assert (ever, once / 300) == (300, pytest.approx(0.3, abs=0.08))
    # What is wrong without noise stays as it is.
    still = [row for row in found.rows if row.attack in WHITE_NOISE and row.id >= 360]
    assert {(row.broken, row.size) for row in still} == {(True, 0.0)}
    # It is no attack with a radius: nothing else changes, nor does the worst case.
    assert (found.attacks, found.eps) == ((*attacks, "worst case"), eps)
    kept = [r for r in found.rows if not r.attack.startswith("white")]
    assert repr(kept) == repr(list(alone.rows))  # As text: no NaN equals another.
    assert found.accuracy("worst case", 0.1) == 0 and alone.white == ()
    found.to_csv(tmp_path / "results.csv")
    again = Results.from_csv(tmp_path / "results.csv")
    assert again.white == found.white
    assert all(again.flips(name).tolist() == found.flips(name).tolist() for name in found.white)
    only = evaluate(Above(), data, eps, WHITE_NOISE, norm=norm, bounds=(0, 1))
    assert (only.white, only.attacks, only.eps) == (found.white, (), ())
    broken = [int(only.broken_rows[only.flips(name)].sum()) for name in only.white]
    assert broken == [once, ever]


def test_noise_is_an_attack_of_the_table() -> None:
    x = torch.cat((torch.full((30, 1), 0.46), torch.full((30, 1), 0.44)))
    data = TensorDataset(x, torch.zeros(60, dtype=torch.long))
    results = evaluate(Above(), data, 0.05, ["noise-100", "noise-1"], norm="linf", bounds=(0, 1))
    # One draw in ten crosses for the first half, none for the second.
    assert results.accuracy("noise-100", 0.05) == 0.5
    assert 0.5 < results.accuracy("noise-1", 0.05) < 1


def test_samples_of_several_shapes_are_refused() -> None:
    batches = [(torch.rand(4, 1, side, side), torch.zeros(4).long()) for side in (6, 8)]
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([1.0, 0.0]))
        model[2].weight.zero_()
    with pytest.raises(ValueError, match=r"4 to 7 have shape \(1, 8, 8\), earlier.*one shape"):
        run_checks(model, batches, 0.3)


def test_targets_of_several_scales_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scales(nn.Module):
        """Full resolution, and every second pixel."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x: Tensor) -> list[Tensor]:
            z = self.inner(x)
            return [z, z[..., ::2, ::2]]

    monkeypatch.setattr(benches, "BATCH", 4)
    torch.manual_seed(2)
    model, x = Scales(), torch.rand(10, 1, 6, 6, generator=seeded(0))
    y = model.inner(x).argmax(1).detach()
    y[0] = 1 - y[0]
    data = [(x[i : i + 5], [y[i : i + 5], y[i : i + 5, ::2, ::2]]) for i in (0, 5)]
    options: dict[str, Any] = {"task": Segmentation(), "steps": 3}
    found = run_checks(model, data, [0.1, 0.3], ["pgd-3", "ensemble-2"], **options)
    assert (found.settings.samples, found.settings.total) == (9, 10)
    # Objectives are of full resolution alone, and so are the figures.
    full = run_checks(
        model.inner, TensorDataset(x, y), [0.1, 0.3], ["pgd-3", "ensemble-2"], **options
    )
    assert [check.tripped for check in found.checks] == [check.tripped for check in full.checks]
    each = {check.name: check.evidence for check in full.checks}
    attacked = [c for c in found.checks if c.name in ("one-step", "converged", "random-noise")]
    assert [check.evidence for check in attacked] == [each[check.name] for check in attacked]


# --- Stopped and continued ------------------------------------------------------------------------


class KilledError(Exception):
    """The process ends here."""


SOME = ("one-step", "monotone", "converged", "transfer")
AGAIN: dict[str, Any] = {"bounds": (0, 1), "samples": 20, "steps": 4, "seed": 1}


@pytest.fixture
def some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some checks, whose samples come in three batches."""
    monkeypatch.setattr(checking, "CHECKS", {name: CHECKS[name] for name in SOME})
    monkeypatch.setattr(benches, "BATCH", 8)


class Work:
    """Counts what attacks do, ends the process after so many batches, and tells the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.done, self.until, self.now = list[tuple[str, float]](), -1, 1000.0
        inner = Bench._broken

        def broken(bench: Bench, attack: str, eps: float, *rest: Any) -> Tensor:
            if len(self.done) == self.until:
                raise KilledError
            self.done.append((attack, eps))
            self.now += seconds * (5 if attack.startswith("more") else 1)
            return inner(bench, attack, eps, *rest)

        monkeypatch.setattr(Bench, "_broken", broken)
        if seconds:
            monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize("until", [0, 1, 4, 13])
def test_checks_that_were_killed_go_on(
    until: int,
    honest: nn.Module,
    digits: TensorDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record, options = tmp_path / "r", {**AGAIN, "transfer": small_cnn(1, 10, width=8)}
    work = Work(monkeypatch)
    whole = run_checks(honest, digits, EPS, **options)
    total = len(work.done)
    work.done.clear()
    work.until = until
    with pytest.raises(KilledError):
        run_checks(honest, digits, EPS, partial=record, **options)
    # As if killed within a line.
    with record.open("a") as file:
        file.write('{"mark": "ab')
    work.until = -1
    found = run_checks(honest, digits, EPS, partial=record, **options)
    assert found == whole
    # Nothing is done twice, and all of it is there for the next time.
    assert len(work.done) == total == 3 * 2 * len({attack for attack, _ in work.done})
    assert run_checks(honest, digits, EPS, partial=record, **options) == whole
    assert len(work.done) == total
    # Of another setting, network or model to transfer from nothing is taken.
    other = {**options, "transfer": small_cnn(1, 10, width=8)}
    almost = deepcopy(honest)
    with torch.no_grad():
        next(almost.parameters()).mul_(1.001)
    for model, more in ((honest, {**options, "seed": 2}), (honest, other), (almost, options)):
        work.done.clear()
        run_checks(model, digits, EPS, partial=record, **more)
        assert len(work.done) == total


@pytest.mark.usefixtures("some")
def test_no_attack_is_begun_that_may_not_fit_into_the_budget(
    honest: nn.Module, digits: TensorDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "r"
    whole = run_checks(honest, digits, EPS, **AGAIN)
    work = Work(monkeypatch, seconds=10.0)
    # One step, ten seconds, is known; what PGD takes is not: up to fifty seconds are left to it.
    with pytest.raises(OutOfTime, match=r"after 3 batches .*\(45 s .*50 s.*r: run the same again"):
        run_checks(honest, digits, EPS, partial=record, budget=Budget(75), **AGAIN)
    # With nothing done yet in a call, a guess does not keep it from beginning.
    with pytest.raises(OutOfTime, match=r"after 6 batches .*\(5 s .*10 s"):
        run_checks(honest, digits, EPS, partial=record, budget=Budget(35), **AGAIN)
    # Nor does one that is known to take longer than there is.
    with pytest.raises(OutOfTime, match=r"after 7 batches .*\(0 s .*10 s"):
        run_checks(honest, digits, EPS, partial=record, budget=Budget(9), **AGAIN)
    for _ in range(20):
        before = len(work.done)
        try:
            found = run_checks(honest, digits, EPS, partial=record, budget=Budget(60), **AGAIN)
        except OutOfTime:
            assert len(work.done) > before
        else:
            break
    assert found == whole
    with pytest.raises(OutOfTime, match="nothing is kept"):
        run_checks(honest, digits, EPS, budget=Budget(15), **AGAIN)


# --- Files ----------------------------------------------------------------------------------------


def test_checks_survive_their_file(tmp_path: Path) -> None:
    rows = [
        Check("a", "A", True, "Much.", {"broken": share(3, 8), "length": 1e-30}, "Bad.", "Stop."),
        Check("b", "B", None, "Not run: no é.", {}, "Bad.", "Stop."),
        Check("c", "C", False, "None.", {}, "Bad.", "Stop."),
    ]
    settings = Settings(seed=0, norm="L2", eps=(0.5, 1.0), samples=8, right=9, total=10)
    checks = Checks(settings, tuple(rows))
    path = tmp_path / "new" / "checks.json"
    checks.to_json(path)
    assert Checks.from_json(path) == checks
    assert checks.tripped == ("a",)
    assert [p.name for p in path.parent.iterdir()] == ["checks.json"]
    values = json.loads(path.read_text())
    assert list(values) == ["format", "settings", "checks"]
    keys = ["name", "title", "tripped", "sentence", "evidence", "means", "do"]
    assert list(values["checks"][0]) == keys
    # Before, settings were text, and there was no format.
    old = {"seed": "0", "samples": "8 of the 9 that the model has right of 10", "eps": "0.5, 1.0"}
    old |= {"norm": "L2", "attacks": "pgd-3, ifgsm-3"}
    path.write_text(json.dumps({"settings": old, "checks": values["checks"]}))
    again = Checks.from_json(path)
    assert again.checks == checks.checks
    assert (again.settings.seed, again.settings.eps, again.settings.norm) == (0, (0.5, 1.0), "L2")
    assert list(again.settings.attacks) == ["pgd-3", "ifgsm-3"]


WHOLE: dict[str, Any] = {
    **dict.fromkeys(("name", "title", "sentence", "means", "do"), "a"),
    "tripped": True,
    "evidence": {},
}


def of_check(**changes: Any) -> str:
    return json.dumps({"settings": {}, "checks": [{**WHOLE, **changes}]})


def test_a_whole_check_is_read(tmp_path: Path) -> None:
    (tmp_path / "checks.json").write_text(of_check())
    assert Checks.from_json(tmp_path / "checks.json").checks == (Check(**WHOLE),)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", '{"settings": {}, "checks": [{"name": "a"}]}'),
        *(of_check(title=3), of_check(tripped="no"), of_check(evidence=[]), of_check(other=1)),
        *(of_check(tripped=1), '{"format": 3, "settings": {"sampels": 1}, "checks": []}'),
    ],
)
def test_other_files_are_no_checks(text: str, tmp_path: Path) -> None:
    path = tmp_path / "checks.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="holds no checks"):
        Checks.from_json(path)


def test_checks_are_read_without_torch() -> None:
    script = "import ima.evaluation.checks_results, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_shares_carry_their_interval() -> None:
    # By hand: (0.1 + 3.8415/20) / 1.38415 -+ 1.96 / 1.38415 * sqrt(0.09/10 + 3.8415/400).
    assert share(1, 10) == pytest.approx(
        {"share": 0.1, "count": 1, "n": 10, "low": 0.0179, "high": 0.4042}, abs=1e-4
    )
    assert in_words(1, 10) == "10.0 % of 10 (95 % interval 1.8 to 40.4)"


@pytest.mark.parametrize("row", CHECKS.values(), ids=CHECKS)
def test_every_row_explains_itself(row: Any) -> None:
    for text in (row.raised, row.means, row.do):
        assert text.endswith(".") and len(text) > 40


@pytest.mark.parametrize("name", ["gradients", "converged"])
def test_advice_holds_for_two_classes_too(name: str) -> None:
    # Of two classes AutoAttack's gradient part follows cross-entropy alone.
    assert "apgd-margin" not in attack_parts("autoattack", 2)
    for classes in (2, 3, 10):
        assert "apgd-margin" in attack_parts("autoattack+", classes)
    advice = CHECKS[name].do.lower()
    assert "autoattack+" in advice and not re.search(r"autoattack(?!\+)", advice)
    assert "with bounds" in advice and "segmentation" in advice


# --- The command line -----------------------------------------------------------------------------

TINY = (
    "network.width=4",
    "method={name: standard}",
    "train={epochs: 4, batch_size: 64}",
    "evaluate={attacks: [pgd-3], eps: [0.3, 0.6], samples: 30}",
)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_checked_and_strict_decides_the_exit_code(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_cli import call

    from ima.evaluation import checks_table

    for name in ("one", "two"):
        said = call("train", "digits", *TINY, "--out", name, "--device", "cpu")
        assert said.code == 0, said.err
    rows = {k: v for k, v in CHECKS.items() if k in ("gradients", "monotone", "transfer")}
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", rows)
    said = call("evaluate", "one", "--strict", "--transfer-from", "two", "--device", "cpu")
    assert said.code == 0, said.out + said.err
    path = work / "one" / "evaluation" / "checks.json"
    found = Checks.from_json(path)
    assert {c.name: c.tripped for c in found.checks} == dict.fromkeys(rows, False)
    assert (found.settings.weights, found.settings.eps) == ("best", (0.3, 0.6))
    assert (found.settings.norm, found.settings.bounds) == ("L2", (0, 1))
    assert "ok: no sign that gradients are zero or tiny. " in said.out
    assert "evaluation/checks.json" in said.out
    # A check that trips: exit code 3 with --strict, 0 without.
    bad = checks_table.CheckRow(
        "bad", "Bad", lambda _: Probed(True, "Seen.", {}), "Always.", "Much.", "Nothing."
    )
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", {"bad": bad})
    for words, code in ((["--strict"], 3), (["--checks"], 0)):
        said = call("evaluate", "one", *words, "--eps", "0.2", "--device", "cpu")
        assert said.code == code, said.err
        assert "TRIPPED: bad. Seen.\n  Much.\n  Nothing." in said.out
    assert Checks.from_json(path).tripped == ("bad",)


def test_the_list_has_a_line_for_every_check() -> None:
    from test_cli import call

    said = call("list", "checks")
    lines = said.out.rstrip("\n").split("\n")
    assert [line.split()[0] for line in lines] == list(CHECKS)
