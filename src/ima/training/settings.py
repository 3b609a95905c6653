"""What a config holds: one model a group of keys, immutable, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from ima.data.augment import Augmentation as Augmentation
from ima.norms import get_norm


class Strict(BaseModel):
    """Immutable; refuses unknown keys, and yes or no where a number is wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truths(cls, value: Any, info: ValidationInfo) -> Any:
        # To Python True is the number 1, and YAML takes yes, on and true for it.
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        number, open_ = (any(k in some for k in kinds) for some in ((int, float), (bool, Any)))
        if number and not open_ and _has_truth(value):
            raise PydanticCustomError("number", "Expected numbers, not yes or no (on, off, ...)")
        return value

    def to_yaml(self) -> str:
        """All of it, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _kinds(annotation: Any) -> list[Any]:
    """A type, and all that stand within it."""
    return [annotation, *(kind for within in get_args(annotation) for kind in _kinds(within))]


def _has_truth(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_truth, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_truth, value))
    return isinstance(value, bool)


class Named(BaseModel):
    """A row of a table by its name, or what is imported from `module:name`; options beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What stands beside the name."""
        return dict(self.model_extra or {})


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("expected each name once")
    return names


class Data(Strict):
    """Which data set.

    name: of `ima list data`, or module:name of your own.
    path: its folder or file; null: it is looked for.
    size: side of the images in pixels; null: the data's own.
    seed: of the split into parts.
    augment: random changes of the training images, in this order; none if empty.
    flip: share of the training labels that become another class, chosen by the seed; to see what
    margins make of them.
    """

    name: str
    path: str | None = None
    size: int | None = Field(None, ge=8)
    seed: int = Field(0, ge=0)
    augment: Annotated[tuple[Augmentation, ...], AfterValidator(_distinct)] = ()
    flip: float = Field(0.0, ge=0, lt=1)


class Optimizer(Strict):
    """The optimiser, and how its learning rate falls.

    name: of the optimiser.
    lr: learning rate at the start.
    weight_decay, momentum: PyTorch's; sgd alone has momentum.
    schedule: of the learning rate; cosine ends at 0.
    milestones, gamma: with steps, after which epochs the rate drops, and to this share of it.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = Field(0.1, gt=0, le=1)


class Train(Strict):
    """The loop.

    epochs: how often the training part is gone through.
    batch_size: samples a step, over all processes.
    standard_epochs: of the epochs, how many at the start train by the clean loss only.
    seed: of first weights, order and noise.
    ema: decay per step of averaged weights, none if null.
    precision: of the computation; mixed ones are for devices that are faster so.
    stop: end before the last epoch where the mean margin stands still; never if null.
    """

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=1)
    standard_epochs: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)
    ema: float | None = Field(None, gt=0, lt=1)
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    stop: Literal["equilibrium"] | None = None


class Evaluate(Strict):
    """The attacks on the test part, and the noise radii.

    attacks: names of `ima list attacks`, for the weights of the best epoch.
    last_attacks: those on the weights of the last epoch; as on the best ones if null, none but the
    clean pass if empty.
    eps: noise radii, in the units of the inputs; the middle one selects epochs.
    batch_size: samples that are attacked together.
    samples: so many of the test part only; all if null.
    """

    attacks: tuple[str, ...] = Field(("pgd-100", "ifgsm-10"), min_length=1)
    last_attacks: tuple[str, ...] | None = None
    eps: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    batch_size: int = Field(256, ge=1)
    samples: int | None = Field(None, ge=1)

    def attacks_on(self, which: str) -> tuple[str, ...]:
        """The attacks on the `"best"` or the `"last"` weights."""
        last = which == "last" and self.last_attacks is not None
        return self.last_attacks or () if last else self.attacks

    @property
    def middle(self) -> float:
        """The middle noise radius (the lower of two)."""
        return sorted(self.eps)[(len(self.eps) - 1) // 2]


class Comparison(Strict):
    """One row of `ima compare`, or with `sweep` a row for each of its values.

    label: of the row.
    method: its name, with its options beside it.
    tune: values to try for options of the method, by validation.
    sweep: values for options of the method, each in a row of its own.
    train, optimizer: where this row leaves the shared recipe.
    """

    label: str
    method: Named
    tune: dict[str, tuple[float, ...]] = {}
    sweep: dict[str, tuple[float, ...]] = {}
    train: dict[str, Any] = {}
    optimizer: dict[str, Any] = {}


def _norm_name(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    return get_norm(value).name


class Config(Strict):
    """One run, or with `compare` several that differ in the method only.

    name: of the experiment, and of its folder.
    note: on the data, under the table.
    norm: of all noise; 2 and inf are taken too.
    log: who else is told the figures of every epoch; TensorBoard is where it is installed.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    note: str = ""
    norm: Annotated[Literal["L2", "Linf"], BeforeValidator(_norm_name)] = "L2"
    data: Data
    task: Named = Named(name="classification")
    network: Named
    method: Named
    optimizer: Optimizer = Field(default_factory=Optimizer.model_validate({}).model_copy)
    train: Train = Field(default_factory=Train.model_validate({}).model_copy)
    evaluate: Evaluate
    log: Annotated[tuple[Literal["mlflow", "wandb"], ...], AfterValidator(_distinct)] = ()
    compare: Annotated[tuple[Comparison, ...], AfterValidator(tuple)] = ()
