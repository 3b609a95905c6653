"""Attacks that follow gradients in bfloat16: faster where it pays, decided in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nets import mlp, seeded
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import Budget, OutOfTime, Segmentation, evaluate
from ima.attacks.inputs import no_trace
from ima.evaluation import by_batch
from ima.evaluation.results import Results
from ima.evaluation.short import pays, shortened
from ima.tasks import Classification


class Other(nn.Module):
    """A linear network that says something else where it computes in bfloat16."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.sign = sign
        self.seen = set[torch.dtype]()
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        self.seen.add(z.dtype)
        shift = torch.tensor([-8.0, 8.0], dtype=z.dtype)
        return z if z.dtype == torch.float32 else z + self.sign * shift


def on_a_line() -> TensorDataset:
    """Samples of class 1, at distances .1 to .8 from the boundary."""
    x = torch.zeros(8, 2)
    x[:, 0] = torch.arange(1, 9) / 10
    return TensorDataset(x, torch.ones(8, dtype=torch.long))


def broken(found: Results, attack: str = "pgd-10") -> list[bool]:
    return [row.broken for row in found.rows if row.attack == attack]


@pytest.mark.parametrize("sign", [-1.0, 1.0], ids=["all wrong", "all right"])
def test_what_is_broken_is_decided_in_float32(sign: float) -> None:
    net = Other(sign)
    found = evaluate(net, on_a_line(), 0.45, "pgd-10", precision="bfloat16")
    assert net.seen == {torch.float32, torch.bfloat16}
    # Wrong in bfloat16 everywhere, or nowhere: in truth the first four can be broken.
    wrong = broken(found)
    assert wrong == [True] * 4 + [False] * 4


def test_rows_say_so_and_hardly_differ() -> None:
    torch.manual_seed(0)
    net, x = mlp((6,)), torch.rand(64, 6, generator=seeded(0))
    with torch.no_grad():
        data = TensorDataset(x, net(x).argmax(1))
    for attack in ("pgd-10", "ifgsm-10", "noise-5"):
        plain = evaluate(net, data, [0.1, 0.3], attack)
        short = evaluate(net, data, [0.1, 0.3], attack, precision="bfloat16")
        said = short.settings.attacks[attack].endswith("; gradients in bfloat16")
        assert said == (attack != "noise-5")
        assert "bfloat16" not in plain.settings.attacks[attack]
        pairs = zip(broken(plain, attack), broken(short, attack), strict=True)
        assert sum(a == b for a, b in pairs) >= 125
        if attack == "noise-5":
            assert [r.quality for r in plain.rows] == [r.quality for r in short.rows]


def test_masks_keep_float32() -> None:
    x = torch.rand(4, 1, 6, 6, generator=seeded(1))
    data, net = TensorDataset(x, (x[:, 0] > 0.5).long()), nn.Conv2d(1, 2, 1)
    both = [
        evaluate(net, data, 0.2, "pgd-3", task=Segmentation(), precision=precision)
        for precision in ("float32", "bfloat16", "auto")
    ]
    assert len({repr(one.rows) for one in both}) == 1
    assert all(one.settings.attacks == both[0].settings.attacks for one in both)


def test_other_networks_than_those_in_float32_stay() -> None:
    net = mlp((6,)).double()
    x = torch.rand(3, 6, dtype=torch.float64)
    with no_trace(net, x) as inner:
        assert shortened(inner) is inner
        assert not pays(inner, x, torch.zeros(3, dtype=torch.long), Classification())


@pytest.mark.parametrize("faster", [True, False])
def test_a_stopped_call_goes_on_as_it_began(
    faster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = mlp((6,)), torch.rand(40, 6, generator=seeded(0))
    with torch.no_grad():
        data = TensorDataset(x, net(x).argmax(1))

    def run(**options: Any) -> Results:
        return evaluate(net, data, 0.3, "pgd-5", precision="auto", batch_size=10, **options)

    trials = iter([faster, faster])
    monkeypatch.setattr(by_batch, "pays", lambda *_: next(trials))
    whole = run()
    with pytest.raises(OutOfTime):
        run(partial=tmp_path / "r.part", budget=Budget(1e-9))
    # A third trial would stop here.
    assert repr(run(partial=tmp_path / "r.part").rows) == repr(whole.rows)
    again = run(partial=tmp_path / "r.part")
    assert again.settings.attacks == whole.settings.attacks
    assert ("bfloat16" in whole.settings.attacks["pgd-5"]) == faster


def test_a_trial_takes_what_is_faster() -> None:
    """On a network where one of both is slow by far."""

    class Slow(nn.Module):
        def __init__(self, slow: torch.dtype) -> None:
            super().__init__()
            self.linear, self.slow = nn.Linear(6, 3), slow

        def forward(self, x: Tensor) -> Tensor:
            z = self.linear(x)
            for _ in range(2000 if z.dtype == self.slow else 1):
                z = z + 0 * z
            return z

    x, y = torch.rand(5, 6), torch.zeros(5, dtype=torch.long)
    for slow, wanted in ((torch.float32, True), (torch.bfloat16, False)):
        with no_trace(Slow(slow), x) as inner:
            assert pays(inner, x, y, Classification()) is wanted


def test_gradients_that_point_elsewhere_are_not_taken() -> None:
    class Lies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            z = self.linear(x)
            if z.dtype == torch.bfloat16:
                return -z
            for _ in range(2000):
                z = z + 0 * z
            return z

    x, y = torch.rand(5, 6), torch.zeros(5, dtype=torch.long)
    with no_trace(Lies(), x) as inner:
        assert not pays(inner, x, y, Classification())


def test_an_unknown_precision_is_refused() -> None:
    precision: Any = "float8"
    with pytest.raises(ValueError, match="expected one of float32, bfloat16, auto"):
        evaluate(mlp((6,)), on_a_line(), 0.1, precision=precision)
