"""Configs: every refusal names the key, what was expected and the nearest valid name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ima.training.config import load_config, method_options, parse_config, warnings
from ima.training.config_errors import ConfigError, packaged
from ima.training.settings import Config


@pytest.mark.parametrize("name", packaged())
def test_packaged_configs_are_valid_and_survive_yaml(name: str) -> None:
    config = load_config(name)
    assert parse_config(yaml.safe_load(config.to_yaml())) == config
    assert config.name == name


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.detla=0.1", ["method.detla", "did you mean 'method.delta'"]),
        ("trian.epochs=2", ["trian", "did you mean 'train'"]),
        ("train.epoch=2", ["train.epoch", "did you mean 'train.epochs'"]),
        ("train.epochs=many", ["train.epochs", "'many'", "integer"]),
        ("train.epochs=0", ["train.epochs", "greater than or equal to 1"]),
        ("train.standard_epochs=1000", ["train.standard_epochs", "less than"]),
        ("method.eps=-1", ["method", "eps is -1", "above 0"]),
        ("method.eps=high", ["method.eps", "'high'", "number"]),
        ("method.side=outside", ["method.side", "'inside' or 'middle'"]),
        ("method.num_samples=3", ["method.num_samples", "unknown key"]),
        ("method.name=imaa", ["method.name", "did you mean 'ima'"]),
        ("data.name=digts", ["data.name", "did you mean 'digits'"]),
        ("data.size=4", ["data.size", "greater than or equal to 8"]),
        ("network.name=smal_cnn", ["network.name", "did you mean 'small_cnn'"]),
        ("network.name=no.such:net", ["network.name", "cannot be imported"]),
        ("network.widht=8", ["network.widht", "did you mean 'network.width'"]),
        ("norm=3", ["norm", "expected 2"]),
        ("evaluate.attacks=[pdg-100]", ["evaluate.attacks", "did you mean 'pgd-100'"]),
        ("evaluate.attacks=[pgd-10, white-10]", ["'white-10'", "one size", "leave it out"]),
        ("evaluate.eps=[]", ["evaluate.eps"]),
        ("evaluate.eps=[-1.0]", ["evaluate.eps.0", "greater than 0"]),
        ("optimizer.name=adamm", ["optimizer.name", "'adam'"]),
        ("compare=[{label: A}]", ["compare.0.method", "missing"]),
        ("compare=[{label: A, method: {name: sat}}]", ["compare.0.method.eps", "missing"]),
        (
            "compare=[{label: A, method: {name: sat}, tune: {esp: [1.0]}}]",
            ["compare.0.method.esp", "did you mean 'compare.0.method.eps'"],
        ),
        ("method", ["no override", "key=value"]),
        ("name.deeper=1", ["name.deeper", "not a group"]),
        ("train.epochs=[", ["not YAML"]),
    ],
)
def test_a_wrong_override_is_refused_by_name(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", [override])
    for word in words:
        assert word.lower() in str(caught.value).lower()


def test_overrides_reach_every_depth() -> None:
    config = load_config("digits", ["train.epochs=7", "norm=inf", "method.delta=0.2"])
    assert (config.train.epochs, config.norm) == (7, "Linf")
    assert method_options(config, norm=config.norm, bounds=(0, 1))["delta"] == 0.2


def test_all_errors_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", ["train.epochs=0", "train.batch_size=0"])
    assert "train.epochs" in str(caught.value)
    assert "train.batch_size" in str(caught.value)


def test_an_unknown_config_names_those_that_come_with_the_library() -> None:
    with pytest.raises(FileNotFoundError, match="Did you mean 'digits'"):
        load_config("digit")


def test_files_that_are_no_configs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(path)
    path.write_text("- 1")
    with pytest.raises(ConfigError, match="keys and values"):
        load_config(path)


def test_a_method_gets_only_what_it_takes() -> None:
    config = load_config("digits", ["method={name: standard}"])
    assert method_options(config, norm="L2", bounds=(0, 1), num_samples=3) == {}


def test_a_schedule_too_short_for_the_margins_is_told() -> None:
    short = load_config("digits", ["train.epochs=5"])
    assert "raise method.delta to 0.6" in warnings(short)[0]
    assert not warnings(load_config("digits"))
    assert "in 1 epoch a margin" in warnings(load_config("digits", ["train.epochs=1"]))[0]
    # YAML takes a number without a point for a text.
    assert "method.delta" in warnings(load_config("digits", ["method.delta=1e-2"]))[0]


def test_a_config_is_immutable() -> None:
    config: Config = load_config("digits")
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("method={name: sat, eps: 1e308}", "method.eps"),
        ("method={name: sat, eps: 1.0e+308}", "method.eps"),
        ("method={name: sat, eps: .nan}", "method.eps"),
        ("method={name: sat, eps: nan}", "method.eps"),
        ("method={name: sat, eps: .inf}", "method.eps"),
        ("method={name: ima, eps: 1.0, delta: -.inf}", "method.delta"),
        ("method={name: sat, eps: 1.0, steps: 99999999999}", "method.steps"),
        ("optimizer.lr=1e400", "optimizer.lr"),
        ("optimizer.weight_decay=.nan", "optimizer.weight_decay"),
        ("train.epochs=1" + "0" * 400, "train.epochs"),
        ("train.seed=18446744073709551616", "train.seed"),
        ("train.batch_size=4294967296", "train.batch_size"),
        ("train.ema=.nan", "train.ema"),
        ("data.seed=99999999999", "data.seed"),
        ("data.size=99999999999", "data.size"),
        ("data.flip=.nan", "data.flip"),
        ("evaluate.eps=[0.5, 1e39]", "evaluate.eps.1"),
        ("evaluate.eps=[.inf]", "evaluate.eps.0"),
        ("evaluate.batch_size=99999999999", "evaluate.batch_size"),
        ("network.width=-1", "network.width"),
        ("network.width=0", "network.width"),
        ("network.width=99999999999", "network.width"),
        ("network.width=.nan", "network.width"),
        ("compare=[{label: A, method: {name: sat}, sweep: {eps: [1.0, .inf]}}]", "compare.0.sweep"),
        ("method={name: ima, eps: 1e-320, delta: 1e-321}", "method.eps"),
        ("method={name: ima, eps: 1.0, delta: 1.0e-46}", "method.delta"),
        ("method={name: sat, eps: -1e-40}", "method.eps"),
        ("optimizer.lr=1e-50", "optimizer.lr"),
        ("evaluate.eps=[0.5, 1e-39]", "evaluate.eps.1"),
    ],
)
def test_a_number_that_cannot_be_computed_with_is_refused_with_its_key(
    override: str, key: str
) -> None:
    with pytest.raises(ConfigError, match=key):
        load_config("digits", [override])


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.epochs=yes", "train.epochs"),
        ("train.seed=on", "train.seed"),
        ("train.ema=true", "train.ema"),
        ("data.size=true", "data.size"),
        ("data.flip=no", "data.flip"),
        ("optimizer.lr=yes", "optimizer.lr"),
        ("optimizer.milestones=[yes]", "optimizer.milestones"),
        ("evaluate.eps=[yes, 2.0]", "evaluate.eps"),
        ("evaluate.samples=yes", "evaluate.samples"),
        ("network.width=yes", "network.width"),
        ("method.eps=yes", "method.eps"),
        ("method.steps=on", "method.steps"),
        ("norm=yes", "norm"),
        ("compare=[{label: A, method: {name: sat}, tune: {eps: [yes]}}]", "compare.0.tune"),
        ("compare=[{label: A, method: {name: sat, eps: yes}}]", "compare.0.method.eps"),
        ("compare=[{label: A, method: {name: standard}, train: {epochs: yes}}]", "train.epochs"),
    ],
)
def test_yes_and_no_are_no_numbers(override: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        load_config("digits", [override])
    assert "True" in str(caught.value) or "False" in str(caught.value)


def test_a_value_at_fault_in_a_list_is_told_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", ["evaluate.eps=[-1]"])
    assert str(caught.value).count("evaluate.eps") == 1
