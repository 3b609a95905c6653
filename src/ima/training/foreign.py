"""Evaluate a network that was trained elsewhere: its weights, code that builds it, and data.

The results lie beside the weights, in a folder of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ima.attacks.inputs import Bounds, no_trace
from ima.budget import Budget
from ima.data import Splits, load
from ima.evaluation.batches import batches, pair
from ima.evaluation.checks import run_checks
from ima.evaluation.checks_results import Checks
from ima.evaluation.evaluate import evaluate
from ima.evaluation.noise import WHITE_NOISE
from ima.evaluation.results import Results
from ima.networks import build
from ima.training.build import BOUNDS, build_fabric, load_into
from ima.training.checkpoint import load_weights
from ima.training.evaluating import load_subject
from ima.training.run import Run


@dataclass(frozen=True)
class Foreign:
    """A network with its weights on the device, and the data that it is judged by."""

    checkpoint: Path
    model: nn.Module
    data: Any
    bounds: Bounds
    norm: str

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.checkpoint.with_name(self.checkpoint.name + "-evaluation")

    @property
    def results(self) -> Path:
        """The rows of the evaluation."""
        return self.folder / "results.csv"

    @property
    def record(self) -> Path:
        """The finished batches of an evaluation under way."""
        return self.folder / "results.part"

    @property
    def checks(self) -> Path:
        """What the checks found."""
        return self.folder / "checks.json"


def load_foreign(
    checkpoint: Path,
    model: str,
    data: str,
    *,
    norm: str = "2",
    bounds: tuple[float, float] | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    device: str = "auto",
) -> Foreign:
    """The network and its data.

    checkpoint: a state_dict, `.safetensors` or a `.pt` that holds tensors only; nothing in it is
    executed. model: `module:function`, called without arguments, or with numbers of channels and
    classes where these are given or known; or a name of `ima list networks`. data:
    `module:function`, which returns a data set of (x, y) or a list of batches; or a name of
    `ima list data`, of which the test part is taken. bounds: (0, 1) for data by name, none else.

    Raises FileNotFoundError or ValueError that says what cannot be loaded, and for weights that do
    not fit the network, and for a network that does not take the data.
    """
    weights = load_weights(checkpoint)
    splits = None if ":" in data else load(data)
    samples = _imported(data) if splits is None else splits.test
    x, _ = pair(next(iter(batches(samples, 1)), None), ("image", "label"))
    network = _network(model, tuple(x.shape[1:]), splits, channels, num_classes)
    load_into(network, weights, checkpoint)
    network = build_fabric(device).to_device(network).eval()
    place = next((p.device for p in network.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad(), no_trace(network, x.to(place)) as inner:
            inner(x.to(place))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"network {model!r} does not take samples of shape {tuple(x.shape[1:])} and dtype "
            f"{x.dtype}, as {data!r} gives them: {error}"
        ) from error
    if bounds is None and splits is not None:
        bounds = BOUNDS
    return Foreign(checkpoint, network, samples, bounds, norm)


def evaluate_foreign(
    foreign: Foreign,
    eps: Sequence[float],
    attacks: Sequence[str],
    *,
    seed: int = 0,
    budget: Budget | None = None,
) -> Results:
    """Attack the network, as `ima.evaluate` does, with white noise too, and write the rows."""
    results = evaluate(
        foreign.model,
        foreign.data,
        eps,
        [*attacks, *WHITE_NOISE],
        norm=foreign.norm,
        bounds=foreign.bounds,
        seed=seed,
        partial=foreign.record,
        budget=budget,
    )
    results.to_csv(foreign.results)
    foreign.record.unlink(missing_ok=True)
    return results


def check_foreign(
    foreign: Foreign,
    eps: Sequence[float],
    attacks: Sequence[str],
    *,
    transfer_from: Run | None = None,
    seed: int = 0,
) -> Checks:
    """Run the checks on the network and on an evaluation with these attacks, and write them."""
    device = next((p.device.type for p in foreign.model.parameters()), "cpu")
    other = None if transfer_from is None else load_subject(transfer_from, "best", device).model
    found = run_checks(
        foreign.model,
        foreign.data,
        eps,
        attacks,
        norm=foreign.norm,
        bounds=foreign.bounds,
        transfer=other,
        seed=seed,
    )
    found.to_json(foreign.checks)
    return found


def _network(
    name: str,
    shape: tuple[int, ...],
    splits: Splits | None,
    channels: int | None,
    num_classes: int | None,
) -> nn.Module:
    if num_classes is None and splits is not None:
        num_classes = splits.num_classes
    plain = ":" in name and not inspect.signature(_found(name)).parameters
    if plain or (":" in name and num_classes is None and channels is None):
        return _called(name)
    if num_classes is None:
        raise ValueError(f"network {name!r} needs a number of classes; say it with --num-classes")
    return build(name, shape[0] if channels is None else channels, num_classes)


def _called(name: str) -> nn.Module:
    function = _found(name)
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ValueError(
            f"network {name!r} cannot be built without arguments ({error}); say --channels and "
            "--num-classes, or name a function of your own that needs none"
        ) from error
    network = function()
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"network {name!r} made an object of type {type(network).__name__}; expected a "
            "torch.nn.Module"
        )
    return network


def _imported(name: str) -> Any:
    """The data at an import path: what the function returns, or the object itself."""
    found = _found(name)
    data = found() if inspect.isroutine(found) or inspect.isclass(found) else found
    again = hasattr(data, "__iter__") and not hasattr(data, "__next__")
    if not again and not hasattr(data, "__getitem__"):
        raise ValueError(
            f"{name!r} gave {type(data).__name__}; expected a data set of (x, y), or a list of "
            "batches (x, y), which can be read more than once"
        )
    return data


def _found(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{name!r} cannot be imported: {error}; expected 'module:function', the module "
            "installed or its folder in PYTHONPATH"
        ) from error
