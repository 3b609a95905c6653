"""Recurrent layers under attack: cuDNN is left where it has no backward pass, and nowhere else.

cuDNN's flag can be seen without a GPU; what the layers give on one stands in `test_cuda.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from nets import recurrent, seeded
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import IMA, bpgd, evaluate, minimal, pgd
from ima.attacks.recurrent import passable

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

Seen = list[tuple[bool, bool]]
"""Of every pass: whether its gradient is asked for, and whether cuDNN may be used."""


class Watched(nn.Module):
    """Remembers what every pass was."""

    def __init__(self, inner: nn.Module, seen: Seen, *, breaks: bool = False) -> None:
        super().__init__()
        self.inner, self.seen, self.breaks = inner, seen, breaks

    def forward(self, x: Tensor) -> Tensor:
        asked = torch.is_grad_enabled() and x.requires_grad
        self.seen.append((asked, torch.backends.cudnn.enabled))
        if asked and self.breaks:
            raise KeyError("the model broke")
        return self.inner(x)


def samples() -> tuple[Tensor, Tensor]:
    x = torch.rand(8, 6, 4, generator=seeded(0))
    with torch.no_grad():
        return x, recurrent().eval()(x).argmax(1)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    assert torch.backends.cudnn.enabled
    kept = torch.backends.cudnn.deterministic = True
    yield
    assert torch.backends.cudnn.enabled and torch.backends.cudnn.deterministic is kept
    torch.backends.cudnn.deterministic = False


Entrance = Callable[[nn.Module, Tensor, Tensor], object]

ENTRANCES: dict[str, Entrance] = {
    "pgd": lambda model, x, y: pgd(model, x, y, 0.5, steps=3),
    "evaluate": lambda model, x, y: evaluate(model, TensorDataset(x, y), [0.3], ["pgd-3"]),
    "minimal": lambda model, x, y: minimal(model, TensorDataset(x, y), [0.3]),
    "ima": lambda model, x, y: IMA(num_samples=8)(model.train(), x, y, torch.arange(8)),
}


@pytest.mark.parametrize("entrance", ENTRANCES.values(), ids=ENTRANCES.keys())
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_gradients_alone_do_without_cudnn(entrance: Entrance, kind: type[nn.RNNBase]) -> None:
    seen: Seen = []
    entrance(Watched(recurrent(kind), seen), *samples())
    assert {asked for asked, _ in seen} == {True, False}
    assert all(allowed is not asked for asked, allowed in seen)


def test_a_scripted_layer_is_known_too() -> None:
    seen: Seen = []
    pgd(Watched(torch.jit.script(recurrent()), seen), *samples(), 0.5, steps=2)
    assert all(allowed is not asked for asked, allowed in seen)


def test_other_networks_keep_it() -> None:
    x, y = samples()
    seen: Seen = []
    pgd(Watched(nn.Sequential(nn.Flatten(), nn.Linear(24, 3)), seen), x, y, 0.5, steps=2)
    assert {allowed for _, allowed in seen} == {True}


def test_an_attack_in_training_mode_keeps_it() -> None:
    seen: Seen = []
    bpgd(Watched(recurrent(), seen).train(), *samples(), 0.5, steps=2, mode="train")
    assert {allowed for _, allowed in seen} == {True}


def test_it_is_back_when_the_model_raises() -> None:
    seen: Seen = []
    with pytest.raises(KeyError, match="the model broke"):
        pgd(Watched(recurrent(), seen, breaks=True), *samples(), 0.5, steps=4)
    assert (True, False) in seen


def test_a_pass_is_what_it_was() -> None:
    x, _ = samples()
    model = recurrent().eval()
    torch.testing.assert_close(passable(model, model)(x.requires_grad_()), model(x))
