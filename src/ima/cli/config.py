"""`ima config`: whole configs, defaults included, and every key that there is."""

from __future__ import annotations

import textwrap
from typing import Annotated

from cyclopts import Parameter

NNUNET = "nnunet"
"""What `ima config keys` calls the keys of experiments of segmentation."""


def show(
    config: str, /, *overrides: str, trust: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Print a whole config as YAML, defaults included; a file with it is a config of your own.

    Parameters
    ----------
    config:
        A YAML file, or the name of a config of the library (see `ima list configs`).
    overrides:
        Changes to the config, such as `train.epochs=20`.
    trust:
        Run the code of what a config in a run's folder names as module:name.

    """
    from pathlib import Path

    from ima.nnunet.experiment import load_experiment
    from ima.training.config import load_config
    from ima.training.config_errors import packaged

    if config in packaged(NNUNET) and not overrides and not Path(config).exists():
        found = load_experiment(config)
    else:
        found = load_config(config, overrides, trust)
    print(found.to_yaml(), end="")


def keys(what: str = "", /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the keys that a config may have: what values they take, by default, and what they mean.

    Parameters
    ----------
    what:
        A group of keys such as train, one key, or the options of a method, network or task by its
        name. nnunet: the keys of a config of `ima nnunet compare`. Default: all.
    json:
        Print a list of objects for programs: name, of (whose option), kind, default, about.

    """
    from dataclasses import asdict

    from ima.cli.streams import as_json
    from ima.nnunet.experiment import Experiment
    from ima.training.keys import REQUIRED, find_keys

    found = find_keys(model=Experiment) if what == NNUNET else find_keys(what)
    if json:
        print(as_json([asdict(key) for key in found]))
        return
    for key in found:
        default = key.default if key.default == REQUIRED else f"default {key.default}"
        print(f"{key.name}{key.of and f' of {key.of}'}: {key.kind} ({default})")
        print(textwrap.indent(textwrap.fill(key.about, 90), "    "))
