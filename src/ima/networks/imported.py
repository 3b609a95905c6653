"""Networks of other libraries, named by their import path, called like those of this one.

A builder is a class or a function. It gets the numbers of channels and of classes by keyword where
its signature names either of them, else by position.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from ima.imported import types_of

_CHANNELS = ("in_chans", "in_channels", "n_input_channels", "channels")
"""What libraries call the number of channels; the first that a signature names is taken."""

_CLASSES = ("num_classes", "n_classes", "classes", "out_channels")
"""What libraries call the number of classes; the first that a signature names is taken."""

ARGUMENTS = ("channels", "num_classes")
"""What every builder of a network here is called with."""

_BY_KEYWORD = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def own_builder(name: str, target: Callable[..., Any]) -> Callable[..., nn.Module]:
    """The class or function of this name, to be called with (channels, num_classes, **options).

    Its signature names the options. Where `**kwargs` hide the keyword of a number, the options
    `channels_as` and `classes_as` say it. A builder without a number of channels is called without,
    and its network must take those of the data set. Raises ValueError for what cannot be called so;
    the builder raises it for options that do not fit, and for what is no network.
    """
    parameters = inspect.signature(target).parameters
    hints = types_of(target)
    channels_as, classes_as = (_named(table, parameters, hints) for table in (_CHANNELS, _CLASSES))
    if not channels_as and not classes_as and not _hides(parameters):
        places = [p for p in parameters.values() if p.kind in _BY_POSITION][:2]
        first = [p.name for p in places]
        # Where the first has a default, it is hardly a number that every network needs.
        if len(first) < 2 or places[0].default is not Parameter.empty:
            raise ValueError(_unfit(name, parameters))

        def by_position(channels: int, num_classes: int, **options: Any) -> nn.Module:
            return _call(name, target, channels, num_classes, **options)

        return _signed(by_position, _options(name, parameters, hints, first))
    if not classes_as and not _hides(parameters):
        raise ValueError(_unfit(name, parameters))
    hidden = {
        key: None
        for key, known in (("channels_as", channels_as), ("classes_as", classes_as))
        if _hides(parameters) and not known
    }

    def by_keyword(channels: int, num_classes: int, **options: Any) -> nn.Module:
        said = {key: options.pop(key, None) for key in hidden}
        keys = (channels_as or said.get("channels_as"), classes_as or said.get("classes_as"))
        if not keys[1]:
            raise ValueError(_unfit(name, parameters))
        numbers = {k: n for k, n in zip(keys, (channels, num_classes), strict=True) if k}
        if twice := numbers.keys() & options.keys():
            raise ValueError(
                f"network {name!r} got the option {min(twice)!r}; leave it out, it is set from the "
                "data set"
            )
        network = _call(name, target, **numbers, **options)
        if not keys[0]:
            _check_channels(name, network, channels)
        return network

    taken = [channels_as, classes_as]
    return _signed(by_keyword, _options(name, parameters, hints, taken, hidden))


def _named(
    table: Sequence[str], parameters: Mapping[str, Parameter], hints: Mapping[str, Any]
) -> str | None:
    """The first name of a table that the parameters hold as a number: MONAI has lists so named."""
    for name in table:
        if name in parameters and parameters[name].kind in _BY_KEYWORD:
            try:
                TypeAdapter(hints.get(name, Any)).validate_python(1)
            except ValidationError:
                continue
            return name
    return None


def _hides(parameters: Mapping[str, Parameter]) -> bool:
    return any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def _unfit(name: str, parameters: Mapping[str, Parameter]) -> str:
    takes = f"network {name!r} takes {', '.join(parameters) or 'nothing'}; expected "
    if _hides(parameters):
        return (
            f"{takes}a number of classes by name. If its **kwargs take one, say its keyword, and "
            "that of the number of channels, by the options classes_as and channels_as: "
            "classes_as: num_classes, channels_as: in_chans"
        )
    return (
        f"{takes}a number of channels ({', '.join(_CHANNELS)}) and of classes "
        f"({', '.join(_CLASSES)}), or both as its first two arguments; name a function of your own "
        "that takes both and calls it"
    )


def _call(name: str, target: Callable[..., Any], /, *numbers: int, **keywords: Any) -> nn.Module:
    try:
        network = target(*numbers, **keywords)
    except TypeError as error:
        raise ValueError(f"network {name!r} cannot be built: {error}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"network {name!r} made an object of type {type(network).__name__}; expected a "
            "torch.nn.Module"
        )
    return network


def _check_channels(name: str, network: nn.Module, channels: int) -> None:
    """ValueError where the first convolution takes another number of channels."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            if module.in_channels != channels:
                raise ValueError(
                    f"network {name!r} takes {module.in_channels} channels, the data set has "
                    f"{channels}; take a network that is told the number of channels"
                )
            return


def _options(
    name: str,
    parameters: Mapping[str, Parameter],
    hints: Mapping[str, Any],
    taken: Sequence[str | None],
    hidden: Mapping[str, None] | None = None,
) -> list[Parameter]:
    """The parameters that are left for a config to set."""
    left = [p for p in parameters.values() if p.kind in _BY_KEYWORD and p.name not in taken]
    for p in left:
        if p.name in ARGUMENTS and p.default is p.empty:
            raise ValueError(
                f"network {name!r} needs {p.name!r}, which here is a number from the data set and "
                "there something else; name a function of your own that calls it"
            )
    named = [
        Parameter(p.name, p.KEYWORD_ONLY, default=p.default, annotation=hints.get(p.name, Any))
        for p in left
        if p.name not in ARGUMENTS
    ]
    more = [
        Parameter(key, Parameter.KEYWORD_ONLY, default=None, annotation=str | None)
        for key in hidden or {}
    ]
    return [*named, *more]


def _signed(
    builder: Callable[..., nn.Module], options: Sequence[Parameter]
) -> Callable[..., nn.Module]:
    """The builder with a signature that names its options, for whoever checks them."""
    numbers = [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in ARGUMENTS]
    rest = Parameter("more", Parameter.VAR_KEYWORD)
    builder.__dict__["__signature__"] = inspect.Signature([*numbers, *options, rest])
    builder.__annotations__ = {p.name: p.annotation for p in options}
    return builder
