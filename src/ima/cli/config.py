"""`ima config ...`: a config as it is run, and what a config can say."""

from __future__ import annotations


def show(config: str, /, *overrides: str) -> None:
    """Print a config whole, with what it leaves to the defaults.

    Parameters
    ----------
    config:
        A YAML file, or the name of a config of the library (see `ima list configs`).
    overrides:
        Changes to it, such as `train.epochs=20`.

    """
    from ima.training.config import load_config

    print(load_config(config, overrides).to_yaml(), end="")


def keys(name: str | None = None, /) -> None:
    """Print every key of a config: what it takes, its default, what it means.

    Parameters
    ----------
    name:
        A method, network or task: its options, which stand beside `name` in the config.

    """
    from ima.training.keys import config_keys, option_keys

    found = config_keys() if name is None else option_keys(_found(name))
    for key in found:
        print(f"{key.name}: {key.kind}; default {key.default}")
        if key.meaning:
            print(f"    {key.meaning}")


def _found(name: str) -> object:
    """The method, network or task of this name; ValueError that names the nearest."""
    from ima.imported import nearest
    from ima.methods import METHODS
    from ima.networks import NETWORKS
    from ima.tasks import TASKS

    rows = {one.name: one.method for one in METHODS.values()}
    rows |= {one.name: one.build for one in NETWORKS.values()}
    rows |= {one.name: one.task for one in TASKS.values()}
    if name not in rows:
        raise ValueError(f"{name!r} is no method, network or task.{nearest(name, rows)}")
    return rows[name]
