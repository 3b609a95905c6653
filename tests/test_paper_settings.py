"""Configs and defaults hold the settings of the papers, and IMA's variants their choices."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import pytest
import torch
from nets import Strip
from torch import Tensor, nn

from ima import IMA, Segmentation
from ima.methods import METHODS
from ima.methods.ima import VARIANTS
from ima.training.config import load_config, warnings
from ima.training.config_errors import packaged
from ima.training.rows import rows

# Two or three epochs are too few for margins to reach their cap, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::ima.methods.ima.Unreached")

SGD = {
    "name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "steps",
    "milestones": (150, 225), "gamma": 0.1,
}  # fmt: skip
"""The authors' code but for its steps, which it does not name."""
ADAM = {"name": "adam", "lr": 0.001, "weight_decay": 0.0, "schedule": "constant"}


@dataclasses.dataclass(frozen=True)
class Paper:
    """What a table of the paper fixes: algorithm, section 4; own: epochs of IMA's own."""

    network: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    batch: int
    epochs: int
    own: int
    eps: float
    delta: float
    levels: tuple[float, ...]
    tried: tuple[float, ...]


CIFAR = Paper(
    network={"name": "wide_resnet", "depth": 28, "width": 4},
    data={"name": "cifar10", "augment": ("crop", "flip"), "size": None},
    optimizer=SGD,
    batch=128, epochs=300, own=100, eps=3.0, delta=0.03, levels=(0.1, 0.3, 0.5),
    tried=(0.3, 0.5, 1.0),
)  # fmt: skip
SVHN = Paper(
    network={"name": "paper_cnn"},
    data={"name": "svhn", "augment": (), "size": None},
    optimizer=ADAM,
    batch=128, epochs=60, own=60, eps=3.0, delta=0.04, levels=(0.3, 0.6, 0.9),
    tried=(0.6, 0.9, 1.5),
)  # fmt: skip
CT = Paper(
    network={"name": "resnet18_in"},
    data={"name": "covid_ct", "augment": (), "size": 224},
    optimizer=ADAM,
    batch=32, epochs=100, own=100, eps=12.0, delta=2.0, levels=(1.0, 2.0, 3.0),
    tried=(2.0, 3.0, 6.0),
)  # fmt: skip
PAPER = {"table1": CIFAR, "table2": SVHN, "table5": CT}
SAME = {"table4": CIFAR, "fig6": SVHN, "fig7": CIFAR, "fig8": CT}
"""Experiments with the recipe of a table."""
NOTHING_SET = "IMA, nothing set"
RADII = (1.0, 2.0, 3.0)
SWEPT: dict[str, dict[str, tuple[str, tuple[float, ...]]]] = {
    "table4": {"IMA": ("eps", RADII), "MMA": ("eps", RADII), "SAT": ("eps", RADII)},
    "fig6": {"SAT": ("eps", (0.1, 0.3, 0.6, 0.9, 1.2, 1.5, 2.0, 3.0))},
    "fig7": {"IMA": ("delta", (0.005, 0.01, 0.02, 0.03, 0.06, 0.1, 0.2, 0.3))},
    "fig8": {"SAT": ("eps", (0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 9.0, 12.0))},
}
"""The option that a row goes over, and its values: Table 4's are the paper's, of the figures the
ends and what their text names."""
LEVELS = {"table4": (0.5,), "fig7": (0.5,)}
"""The noise of the accuracies, where it is not that of the table with the recipe."""


def has(model: Any, wanted: dict[str, Any]) -> None:
    """Assert that the group of keys holds these values."""
    found = model.model_dump()
    assert {key: found[key] for key in wanted} == wanted


def check_recipe(name: str, paper: Paper, levels: tuple[float, ...] | None = None) -> None:
    config = load_config(name)
    assert config.norm == "L2"
    assert config.network.model_dump() == paper.network
    has(config.data, paper.data)
    has(config.optimizer, paper.optimizer)
    assert (config.train.batch_size, config.train.epochs) == (paper.batch, paper.epochs)
    assert config.evaluate.eps == (paper.levels if levels is None else levels)
    assert config.evaluate.samples is None


def methods(eps: float, delta: float, **steps: int) -> dict[str, dict[str, Any]]:
    """The rows of Tables 1, 2 and 5 but SAT tuned, at one training radius."""
    shared = {"eps": eps, **steps}
    return {
        "Standard": {"name": "standard"},
        "SAT": {"name": "sat", **shared},
        "MMA": {"name": "mma", **shared},
        "FAT (tau 0)": {"name": "fat", "tau": 0, **shared},
        "FAT": {"name": "fat", **shared},
        "GAIRAT": {"name": "gairat", **shared},
        "TRADES": {"name": "trades", **shared},
        "IMA": {"name": "ima", "delta": delta, **shared},
    }


def check_rows(name: str, eps: float, delta: float, tried: tuple[float, ...], **steps: int) -> None:
    """Assert that the config has these rows, and SAT at the best of several radii."""
    made = {row.label: row for row in rows(load_config(name))}
    tuned = made.pop("SAT tuned")
    assert tuned.tuned == ("eps",)
    assert [one.method.model_dump() for one in tuned.candidates] == [
        {"name": "sat", **steps, "eps": radius} for radius in tried
    ]
    assert {
        label: [one.method.model_dump() for one in row.candidates] for label, row in made.items()
    } == {label: [method] for label, method in methods(eps, delta, **steps).items()}


@pytest.mark.parametrize("name", PAPER)
def test_tables_have_the_settings_of_the_paper(name: str) -> None:
    paper = PAPER[name]
    check_recipe(name, paper)
    # Twenty steps, the default, for all.
    check_rows(name, paper.eps, paper.delta, paper.tried)
    assert load_config(name).evaluate.attacks == ("pgd-100", "ifgsm-10", "autoattack")
    made = {row.label: row for row in rows(load_config(name))}
    ima = made["IMA"].candidates[0].train
    assert ima.epochs - ima.standard_epochs == paper.own
    # One recipe for all, but for what the paper demands.
    differs = {
        "table1": {"IMA": {"train.standard_epochs": 200}},
        "table2": {},
        "table5": {"Standard": {"optimizer.name": "adamw", "optimizer.weight_decay": 0.01}},
    }
    assert {label: row.differs for label, row in made.items() if row.differs} == differs[name]


@pytest.mark.parametrize("name", SAME)
def test_sweeps_have_the_recipe_of_their_table(name: str) -> None:
    paper = SAME[name]
    check_recipe(name, paper, LEVELS.get(name))
    config = load_config(name)
    made = {row.label: row for row in rows(config)}
    for title, row in made.items():
        train = row.candidates[0].train
        if title.startswith("IMA") and title != NOTHING_SET:
            assert train.epochs - train.standard_epochs == paper.own
    found = {row.label: row for row in config.compare if row.sweep}
    assert {label: tuple(row.sweep.items()) for label, row in found.items()} == {
        label: (swept,) for label, swept in SWEPT[name].items()
    }
    for label, row in found.items():
        fixed = {"eps": paper.eps, "delta": paper.delta} if label == "IMA" else {"eps": paper.eps}
        wanted = {key: value for key, value in fixed.items() if key not in row.sweep}
        assert row.method.model_dump() == {"name": label.lower(), **wanted}
    others = {row.label: row for row in config.compare if not row.sweep}
    # The library's default, from the first epoch on: a level line, because it has no such knob.
    default = others.pop(NOTHING_SET)
    assert default.method.model_dump() == {"name": "ima"}
    assert config.compare[-1] == default
    assert made[NOTHING_SET].candidates[0].train.standard_epochs == 0
    assert others.keys() == ({"SAT tuned"} if name == "table4" else set())
    if others:
        assert others["SAT tuned"].tune == {"eps": paper.tried}


@pytest.mark.parametrize(
    ("name", "scale"), [("table4", 1.0), ("fig6", 1.0), ("fig7", 100 / 30), ("fig8", 64 / 224)]
)
def test_small_sweeps_go_over_the_same_values_scaled(name: str, scale: float) -> None:
    # Radii to the size of the images, expansions to the number of IMA's epochs.
    big, small = load_config(name), load_config(f"{name}_small")
    for one, other in zip(big.compare, small.compare, strict=True):
        for key, values in one.sweep.items():
            assert other.sweep[key] == pytest.approx([scale * v for v in values], rel=0.03)
    resized = 1.0 if name == "fig7" else scale
    assert small.evaluate.eps == pytest.approx([resized * e for e in big.evaluate.eps], rel=0.02)


SMALL: dict[str, tuple[float, float, tuple[float, ...], float]] = {
    # Largest margin, expansion, radii tried for SAT tuned, and by what radii are scaled.
    "table1_small": (3.0, 0.1, (0.15, 0.3, 0.5, 1.0), 1.0),
    "table2_small": (3.0, 0.075, (0.3, 0.6, 0.9), 1.0),
    "table5_small": (3.43, 0.57, (0.57, 0.86, 1.71), 64 / 224),
    "pneumonia": (1.5, 0.1, (0.25, 0.5, 1.0), math.sqrt(28 * 28 / 3072)),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_tables_have_the_same_rows_at_radii_scaled_to_their_images(name: str) -> None:
    eps, delta, tried, scale = SMALL[name]
    check_rows(name, eps, delta, tried, steps=10)
    paper = PAPER.get(name.removesuffix("_small"), CIFAR)
    assert eps == pytest.approx(scale * paper.eps, rel=0.02)
    levels = load_config(name).evaluate.eps
    assert levels == pytest.approx([scale * level for level in paper.levels], rel=0.02)


@pytest.mark.parametrize("name", [n for n in packaged() if n.startswith("table")])
def test_every_table_has_sat_at_its_best_radius_on_validation(name: str) -> None:
    (tuned,) = [row for row in rows(load_config(name)) if row.label == "SAT tuned"]
    assert tuned.tuned == ("eps",)
    assert len(tuned.candidates) >= 3


def test_the_training_radius_follows_equation_13() -> None:
    # eps = sqrt(numel * 9 / 3072)
    for name, numel in (("table1", 3072), ("table2", 3072), ("table5", 224 * 224)):
        eps = load_config(name).method.options["eps"]
        assert eps == pytest.approx(math.sqrt(numel * 9 / 3072), rel=0.02)


def test_every_experiment_has_a_small_sibling_with_the_same_rows() -> None:
    full = {n for n in packaged() if n.startswith(("table", "fig")) and not n.endswith("_small")}
    assert full == {"table1", "table2", "table4", "table5", "fig6", "fig7", "fig8"}
    for name in full:
        big, small = load_config(name), load_config(f"{name}_small")
        assert [row.label for row in big.compare] == [row.label for row in small.compare]
        for one, other in zip(big.compare, small.compare, strict=True):
            assert one.method.name == other.method.name
            assert one.sweep.keys() == other.sweep.keys()
        assert "small sibling" in small.note


@pytest.mark.parametrize("name", packaged())
def test_margins_can_reach_their_cap(name: str) -> None:
    # The paper's own schedule for SVHN is the exception, and the config check says so.
    said = warnings(load_config(name))
    assert bool(said) == (name == "table2")


def test_one_config_compares_every_method() -> None:
    compared: set[Any] = {row.method.name for row in load_config("all_methods").compare}
    assert compared == METHODS.keys()


# ------------------------------------------------------------------------------------- defaults

# What a method made with eps = 3 (and samples to keep margins of) has, beyond what all share.
DEFAULTS: dict[str, dict[str, Any]] = {
    "sat": {},
    # The weight 1 / lambda of the published code for CIFAR-10.
    "trades": {"beta": 6.0},
    # The published code's value for ResNet-18; 6 for the wide network.
    "mart": {"lam": 5.0},
    # In L2 on CIFAR-10 the search begins at 0.5, and the largest margin is 3.
    "mma": {"eps_min": 0.5, "random_start": True},
    "fat": {"tau": "dynamic", "omega": 0.001},
    # Weighted from the middle of the run on: epoch 60 of 120.
    "gairat": {"lam": -1.0, "begin": None},
    # Growth and initial radius are 1.9 and 8 of 255; a quarter of eps is a choice of this library.
    "iaat": {"initial": 0.75, "gamma": 0.75 * 1.9 / 8, "beta": 0.1},
    # 10 of 300 epochs without progress, or an accuracy above 0.95.
    "curriculum": {"threshold": 0.95, "patience": None},
    # CIFAR-10: from 0 to 0.4 between epochs 30 and 70 of 100.
    "ates": {"initial": 0.0, "final": 0.4, "begin": 0.3, "end": 0.7},
    "dat": {"c_max": 0.5},
    # 0.005 at a largest radius of 8 / 255.
    "customized": {"eta": 3 * 0.005 * 255 / 8, "loss": "ce"},
}
FIRST = {"mma": (0.5, 3.15), "iaat": (0.0, 3.0), "customized": (0.0, 3.0)}
"""The margin that a sample has before its first visit, and the largest one."""
COMMON = {"eps", "norm", "bounds", "steps", "task", "seed", "num_samples"}


def test_every_method_with_a_default_is_in_the_table() -> None:
    assert DEFAULTS.keys() == METHODS.keys() - {"standard", "ima"}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_those_of_the_published_codes(name: str) -> None:
    constructor = METHODS[name].method
    own = inspect.signature(constructor).parameters.keys() - COMMON
    assert own == DEFAULTS[name].keys()
    method = constructor(eps=3.0, **({"num_samples": 2} if name in FIRST else {}))
    # Twenty steps and L2 for all: Ma & Liang.
    assert (method.eps, method.steps, method.setting.norm.name) == (3.0, 20, "L2")
    assert method.setting.bounds is None
    for option, value in DEFAULTS[name].items():
        expected = value if isinstance(value, str | bool | None) else pytest.approx(value)
        assert getattr(method, option) == expected, option
    if name in FIRST:
        first, largest = FIRST[name]
        assert method.margins.values.tolist() == pytest.approx([first, first])
        assert method.margins.cap == pytest.approx(largest)


def test_the_softness_of_customized_labels_scales_with_the_radius() -> None:
    # With c = 10, a tenth of the label is random at a radius of 0.01; 8 / 255 is 3 here.
    method = METHODS["customized"].method(num_samples=2, eps=3.0)
    assert method.softness * 0.01 * 3 * 255 / 8 == pytest.approx(0.1)


@pytest.mark.parametrize(("epochs", "patience"), [(300, 10), (60, 2), (10, 1)])
def test_the_curriculum_waits_a_thirtieth_of_the_run_by_default(epochs: int, patience: int) -> None:
    method = METHODS["curriculum"].method(eps=3.0)
    strengths = []
    for epoch in range(patience + 2):
        # The first epoch is progress, those after it are not; the last one is good enough.
        method.lesson.right, method.lesson.seen = 950 if epoch <= patience else 951, 1000
        method.end_epoch(epoch, epochs)
        strengths.append(method.lesson.strength)
    assert strengths == [0] * patience + [1, 2]


# ------------------------------------------------------------------------------- IMA's variants


def test_the_choices_of_the_paper_and_of_the_released_code() -> None:
    assert {name: dataclasses.asdict(choices) for name, choices in VARIANTS.items()} == {
        "paper": {
            "side": "inside",
            "misclassified": "keep",
            "noisy_loss": "all",
            "random_start": 0.0,
            "attack_mode": "eval",
            "crossing": "last",
            "update": "step",
            "walk": "loss",
            "augmented_walk": "augmented",
        },
        "released": {
            "side": "middle",
            "misclassified": "keep",
            "noisy_loss": "crossed",
            "random_start": 1.0,
            "attack_mode": "train",
            "crossing": "any",
            "update": "epoch",
            "walk": "margin",
            "augmented_walk": "always",
        },
    }
    for name, choices in VARIANTS.items():
        method = IMA(num_samples=1, eps=1.0, delta=0.1, variant=name)
        assert method.choices == choices
        # Of segmentation the released code has another noisy loss, and Algorithm 2 always.
        segments = IMA(num_samples=1, eps=1.0, delta=0.1, variant=name, task=Segmentation())
        other = {"noisy_loss": "all", "augmented_walk": "never"} if name == "released" else {}
        assert segments.choices == dataclasses.replace(choices, **other)


class Ridge(nn.Module):
    """Right as 0 for |x| < 1, with 1 - |x| between the logits, and no slope at x = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([1 - x.abs(), torch.zeros_like(x)], 1) + self.shift.to(x.dtype)


def loss_at(lead: float) -> float:
    """Cross-entropy where the true one of two logits leads by `lead`."""
    return math.log(1 + math.exp(-lead))


# Steps of a whole margin, so that four of them end on the ball, wherever they begin. Of the 1024
# cells of a search, cell 744 holds the boundary of the second sample, cell 682 that of the first
# where a random start shows it a way down.
CELL_OF_SECOND, CELL_OF_FIRST = 0.55 / 1024, 1.5 / 1024
CLEAN = [loss_at(1.0), loss_at(0.4), loss_at(0.7), loss_at(-0.2)]
RIDGE = {
    # The first sample has no direction; the third does not reach the boundary; the last is wrong.
    "paper": (
        [CLEAN[0], loss_at(0.4 - 744 * CELL_OF_SECOND), loss_at(0.45), CLEAN[3]],
        [1.6, (744 * CELL_OF_SECOND + 0.55) / 2, 0.35, 0.7],
        [True, False, False, False],
    ),
    # The middle of a cell; only samples that crossed have a noisy loss.
    "released": (
        [loss_at(1 - 682.5 * CELL_OF_FIRST), loss_at(0.4 - 744.5 * CELL_OF_SECOND), 0.0, 0.0],
        [(682.5 * CELL_OF_FIRST + 1.5) / 2, (744.5 * CELL_OF_SECOND + 0.55) / 2, 0.35, 0.7],
        [False, False, False, False],
    ),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("variant", RIDGE)
def test_one_step_of_both_variants_by_hand(variant: Any, seed: int) -> None:
    noisy, margins, stuck = RIDGE[variant]
    method = IMA(num_samples=4, eps=2.0, delta=0.1, steps=4, variant=variant, seed=seed)
    before = torch.tensor([1.5, 0.55, 0.25, 0.7])
    method.margins.values, method.next.values = before.clone(), before.clone()
    x = torch.tensor([[0.0], [0.6], [0.3], [1.2]], dtype=torch.float64)
    step = method(Ridge(), x, torch.zeros(4, dtype=torch.long), torch.arange(4))

    expected = (sum(CLEAN) + sum(noisy)) / 2 / 4
    assert float(step.loss.detach()) == pytest.approx(expected, rel=1e-7)
    assert int(step.metrics["crossed"]) == (1 if variant == "paper" else 2)
    assert int(step.metrics["stuck"]) == sum(stuck)
    # The released code sets its margins at the end of the epoch.
    during = margins if variant == "paper" else before.tolist()
    assert method.margins.values.tolist() == pytest.approx(during, rel=1e-6)
    method.end_epoch(0, 10)
    assert method.margins.values.tolist() == pytest.approx(margins, rel=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_released_walk_alone_starts_anywhere_in_the_ball(variant: Any) -> None:
    seen: list[Tensor] = []
    model = Strip().double()
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    method = IMA(num_samples=400, eps=2.0, delta=0.3, variant=variant)
    x = torch.zeros(400, 1, dtype=torch.float64)
    method(model, x, torch.zeros(400, dtype=torch.long), torch.arange(400))
    # The clean pass of training; with a random start the clean pass of the walk; its start.
    start = seen[1 if variant == "paper" else 2]
    if variant == "paper":
        assert torch.equal(start, x)
    else:
        assert float(start.min()) < -0.28
        assert float(start.max()) > 0.28
        assert float(start.abs().max()) <= 0.3 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("options", "noisy", "margin"),
    [
        # Right at the last point, 0.8: not crossed; the margin grows, all noisy losses count.
        ({"variant": "paper", "augmented": True}, loss_at(1 - 0.2 * 0.8), 0.9),
        # Wrong at 0.64, on the way: crossed, at the walk's end; the mean of 0.8 and 0.8.
        ({"variant": "released", "random_start": 0.0}, loss_at(1 - 0.2 * 0.8), 0.8),
    ],
    ids=["paper", "released"],
)
def test_a_walk_that_comes_out_right_again_has_crossed_in_the_released_code(
    options: dict[str, Any], noisy: float, margin: float
) -> None:
    method = IMA(num_samples=1, eps=1.0, delta=0.1, steps=10, **options)
    method.margins.values[:] = method.next.values[:] = 0.8
    x = torch.zeros(1, 1, dtype=torch.float64)
    step = method(Strip(), x, torch.zeros(1, dtype=torch.long), torch.arange(1))
    assert float(step.loss.detach()) == pytest.approx((loss_at(1.0) + noisy) / 2, rel=1e-7)
    assert int(step.metrics["crossed"]) == (options["variant"] == "released")
    method.end_epoch(0, 10)
    assert method.margins.values.tolist() == pytest.approx([margin], rel=1e-6)
