"""The full-size configs hold the paper's settings, and every config has its small sibling."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ima.methods import METHODS
from ima.training.config import load_config, packaged, warnings
from ima.training.rows import rows

# Network, batch, epochs, IMA's own epochs, largest margin, expansion, noise levels.
PAPER: dict[str, tuple[str, int, int, int, float, float, tuple[float, ...]]] = {
    "table1": ("wide_resnet", 128, 300, 100, 3.0, 0.03, (0.1, 0.3, 0.5)),
    "table2": ("paper_cnn", 128, 60, 60, 3.0, 0.04, (0.3, 0.6, 0.9)),
    "table5": ("resnet18_in", 32, 100, 100, 12.0, 2.0, (1.0, 2.0, 3.0)),
}
ROWS = {"Standard", "SAT", "SAT tuned", "MMA", "FAT (tau 0)", "FAT", "GAIRAT", "TRADES", "IMA"}


@pytest.mark.parametrize("name", PAPER)
def test_tables_have_the_settings_of_the_paper(name: str) -> None:
    network, batch, epochs, own, eps, delta, levels = PAPER[name]
    config = load_config(name)
    assert (config.network.name, config.train.batch_size) == (network, batch)
    assert config.train.epochs == epochs
    assert config.evaluate.eps == levels
    assert config.evaluate.attacks == ("pgd-100", "ifgsm-10", "autoattack")
    assert config.norm == "L2"
    made = {row.label: row for row in rows(config)}
    assert made.keys() == ROWS
    ima = made["IMA"].candidates[0]
    assert ima.train.epochs - ima.train.standard_epochs == own
    assert ima.method.options == {"eps": eps, "delta": delta}
    for label, row in made.items():
        options = row.candidates[0].method.options
        # One training radius and 20 steps, the default, for all.
        assert "steps" not in options
        if label not in ("Standard", "SAT tuned"):
            assert options["eps"] == eps
        assert row.candidates[0].train.epochs == epochs
    assert bool(config.data.augment) == (name == "table1")


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
    assert bool(said) == (name in ("table2", "table4"))


def test_one_config_compares_every_method() -> None:
    compared: set[Any] = {row.method.name for row in load_config("all_methods").compare}
    assert compared == METHODS.keys()
