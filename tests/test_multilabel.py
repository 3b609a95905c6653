"""Multi-label classification: one file in tasks; trained, attacked, measured, checked, shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import seeded
from test_cli import call
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import (
    IMA,
    SAT,
    TRADES,
    Distances,
    MultiLabel,
    Results,
    Standard,
    evaluate,
    minimal,
    run_checks,
)
from ima.tasks import check_fit

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-0.2, 3.0, -4.0], [1.0, 1.0, 1.0]])
TRUTH = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 0]])


def test_by_hand() -> None:
    task, share = MultiLabel(), MultiLabel("share")
    check_fit(task, LOGITS, TRUTH, 3)
    assert task.correct(LOGITS, TRUTH).tolist() == [True, False, False]
    torch.testing.assert_close(task.score(LOGITS, TRUTH), torch.tensor([0.5, -0.2, -1.0]))
    each = F.binary_cross_entropy_with_logits(LOGITS, TRUTH.float(), reduction="none").mean(1)
    torch.testing.assert_close(task.loss(LOGITS, TRUTH), each)
    torch.testing.assert_close(task.objective(LOGITS, TRUTH), each)
    assert task.quality(LOGITS, TRUTH).tolist() == [1, 0, 0]
    assert share.quality(LOGITS, TRUTH).tolist() == pytest.approx([1, 2 / 3, 0])
    assert task.parts(LOGITS, TRUTH).tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 0]]
    assert task.words([1, 0, 1], ("Effusion", "Mass", "Edema")) == "Effusion + Edema"
    assert task.words([0, 0], ("a", "b")) == "none"
    p, q = LOGITS.sigmoid(), (LOGITS + 1).sigmoid()
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(task.divergence(LOGITS, LOGITS + 1), kl.mean(1))


def test_outputs_without_a_decision_are_wrong() -> None:
    broken = LOGITS.clone()
    broken[0, 1], broken[1, 1] = torch.nan, torch.inf
    for task in (MultiLabel(), MultiLabel("share")):
        assert task.correct(broken, TRUTH).tolist() == [False] * 3
        assert task.quality(broken, TRUTH).tolist()[:2] == [0, 0]
        assert task.parts(broken, TRUTH)[:2].tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16])
def test_targets_and_logits_of_any_kind(dtype: torch.dtype, half: torch.dtype) -> None:
    task, y = MultiLabel(), TRUTH.to(dtype)
    task.check(LOGITS.to(half), y)
    assert task.correct(LOGITS.to(half), y).tolist() == [True, False, False]
    assert task.loss(LOGITS.to(half), y).dtype == torch.float32


@pytest.mark.parametrize(
    ("output", "target", "words"),
    [
        (LOGITS[:, 0], TRUTH[:, 0], r"expected \(batch, findings\)"),
        (LOGITS, TRUTH[:, :2], r"targets of shape \(3, 2\)"),
        (LOGITS, TRUTH * 2, "targets hold 2; expected 0 or 1"),
        (LOGITS.long(), TRUTH, "int64"),
        ({"a": LOGITS}, TRUTH, "with the keys a"),
        (LOGITS, [1, 2, 3], "expected a tensor of 0 and 1"),
    ],
)
def test_what_does_not_fit_is_refused(output: Any, target: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        MultiLabel().check(output, target)
    with pytest.raises(ValueError, match="expected 'all' or 'share'"):
        MultiLabel("most")  # pyright: ignore[reportArgumentType]


def problem(n: int = 48) -> tuple[nn.Module, TensorDataset]:
    """Four findings, a linear one each: how far each is from turning is known."""
    x = torch.rand(n, 1, 4, 4, generator=seeded(1))
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(4, 16, generator=seeded(2)))
        net[1].bias.copy_(-(x.flatten(1) @ net[1].weight.T).median(0).values)
        y = (net(x) > 0).long()
    y[0, 2] = 1 - y[0, 2]
    return net, TensorDataset(x, y)


def test_the_nearest_finding_is_what_breaks_a_sample() -> None:
    net, data = problem()
    x, y = data.tensors
    weight = net[1].weight.detach()
    with torch.no_grad():
        margins = (2 * y - 1) * net(x) / weight.norm(dim=1)
    nearest = margins.amin(1)
    right = nearest > 0
    found = minimal(net, data, [0.1, 0.5], task=MultiLabel())
    assert isinstance(found, Distances) and found.values[0] == 0
    # The least sure finding changes on the way: a kink, at which walks lose a little.
    ratio = found.values[right.numpy()] / nearest[right].numpy()
    assert ratio.min() > 0.999 and ratio.max() < 1.1 and np.median(ratio) < 1.005
    radii = [float(nearest[right].quantile(q)) * 1.001 for q in (0.3, 0.7)]
    results = evaluate(net, data, radii, ["pgd-40", "hopskipjump-20"], task=MultiLabel())
    for eps in radii:
        standing = float((right & (nearest > eps)).float().mean())
        assert results.accuracy("pgd-40", eps) == pytest.approx(standing)
        assert standing - 1e-6 <= results.accuracy("hopskipjump-20", eps) <= standing + 0.1


@pytest.mark.parametrize("count", ["all", "share"])
def test_every_part_is_counted(count: Any, tmp_path: Path) -> None:
    net, data = problem()
    names = ("Effusion", "Mass", "Edema", "Nodule")
    options: dict[str, Any] = {"task": MultiLabel(count), "classes": names, "bounds": (0, 1)}
    results = evaluate(net, data, [0.05, 0.2], ["pgd-10", "noise-5", "white-1"], **options)
    x, y = data.tensors
    with torch.no_grad():
        right = (net(x) > 0) == y.bool()
    wanted = right.all(1).float() if count == "all" else right.float().mean(1)
    assert results.mean() == pytest.approx(float(wanted.mean()))
    assert results.per_class() == pytest.approx(right.float().mean(0).tolist())
    assert results.classes == names and results.counts() == (48,) * 4
    low, high = results.interval("pgd-10", 0.05)
    assert 0 <= low <= results.mean("pgd-10", 0.05) <= high <= 1
    assert results.mean("pgd-10", 0.2) < results.mean("pgd-10", 0.05) < results.mean()
    results.to_csv(tmp_path / "r.csv")
    assert Results.from_csv(tmp_path / "r.csv") == results
    with pytest.raises(ValueError, match="AutoAttack attacks classifiers, but the task is Multi"):
        evaluate(net, data, [0.1], ["autoattack"], **options)
    with pytest.raises(ValueError, match="so expected as many different names"):
        evaluate(net, data, [0.1], ["pgd-2"], **(options | {"classes": ("a", "b")}))
    with pytest.raises(ValueError, match="probabilities of regions or findings"):
        evaluate(nn.Sequential(net, nn.Sigmoid()), data, [0.1], ["pgd-2"], **options)


def test_it_is_checked() -> None:
    net, data = problem()
    found = run_checks(net, data, [0.1, 0.2], ["pgd-20"], task=MultiLabel(), bounds=(0, 1))
    ran = {check.name: check.tripped for check in found.checks}
    assert ran["one-step"] is ran["random-noise"] is ran["monotone"] is False
    assert ran["black-box"] is ran["huge-noise"] is None and not found.tripped


@pytest.mark.parametrize("method", ["standard", "sat", "trades", "ima"])
def test_methods_train_on_it(method: str) -> None:
    net, data = problem(24)
    x, y = data.tensors
    task, ids = MultiLabel(), torch.arange(24)
    made = {
        "standard": lambda: Standard(task=task),
        "sat": lambda: SAT(eps=0.2, task=task),
        "trades": lambda: TRADES(eps=0.2, task=task),
        "ima": lambda: IMA(num_samples=24, eps=0.4, delta=0.1, task=task),
    }[method]()
    seen: list[Tensor] = []
    net.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    step = made(net, x, y, ids)
    step.loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    if method == "standard":
        with torch.no_grad():
            assert float(step.loss.detach()) == pytest.approx(float(task.loss(net(x), y).mean()))
    else:
        assert any(s.shape == x.shape and float((s - x).abs().max()) > 0.01 for s in seen)


DATA = """
import torch


def findings(path=None, seed=0):
    found = {}
    for at, (role, n) in enumerate((("train", 96), ("val", 32), ("test", 40))):
        x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(at))
        parts = [x[..., :4, :4], x[..., :4, 4:], x[..., 4:, :4]]
        # Brighter and darker quarters lie well apart.
        y = torch.stack([(p.flatten(1).mean(1) > 0.5) for p in parts], 1).long()
        for k, p in enumerate(parts):
            p += 0.3 * (2 * y[:, k] - 1)[:, None, None, None]
        found[role] = (x.clamp(0, 1), y)
    return found
"""

CONFIG = """
name: findings
data: {name: "my_findings:findings"}
task: {name: multilabel, count: share}
network: {name: small_cnn, width: 4}
method: {name: standard}
optimizer: {lr: 0.02}
train: {epochs: 2, batch_size: 32}
evaluate: {attacks: [pgd-5], eps: [0.2, 0.5]}
compare:
  - {label: Standard, method: {name: standard}}
  - {label: IMA, method: {name: ima, eps: 0.6, delta: 0.3, steps: 3}}
"""


def test_from_the_config_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_findings.py").write_text(DATA)
    (tmp_path / "findings.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    command = [sys.executable, "-m", "ima", "compare", "findings.yaml", "--device", "cpu"]
    done = subprocess.run([*command, "--out", "runs"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr + done.stdout
    table = (tmp_path / "runs" / "table.md").read_text()
    assert all(label in table for label in ("Standard", "IMA"))
    run = tmp_path / "runs" / "standard" / "seed0"
    results = Results.from_csv(run / "evaluation" / "best.csv")
    assert results.settings.measure.name == "share of findings right"
    assert len(results.per_class()) == 3 and 0 < results.mean("pgd-5", 0.5) <= results.mean()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("sat", "trades"):
        method = f"method={{name: {name}, eps: 0.3, steps: 3}}"
        assert call("train", "findings.yaml", method, "--device", "cpu").code == 0
    for form in ("html", "json", "md"):
        assert call("report", str(run), "--out", f"page.{form}").code == 0
    told = json.loads((tmp_path / "page.json").read_text())
    assert told["networks"] and "finding" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "method", [Standard(task=MultiLabel()), SAT(eps=0.3, steps=2, task=MultiLabel())]
)
def test_a_network_behind_a_sigmoid_is_said_in_ones_own_loop(method: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2), nn.Sigmoid())
    x, y = torch.rand(12, 4), torch.randint(0, 2, (12, 2))
    with pytest.warns(UserWarning, match="end in a sigmoid"):
        method(model, x, y, torch.arange(12))
