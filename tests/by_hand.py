"""One row of the table of attacks on one batch; and files that whoever wrote them got wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from nets import seeded
from torch import Tensor

from ima import Classification
from ima.attacks.inputs import check_samples, no_trace
from ima.attacks.walk import forward
from ima.evaluation.attacks import AttackCall
from ima.evaluation.lowest import Lowest
from ima.evaluation.setting import Setting
from ima.norms import get_norm
from ima.tasks import given


def lowest_of(
    run: AttackCall,
    model: Any,
    x: Tensor,
    y: Any,
    eps: float,
    steps: int,
    *,
    norm: Any = 2,
    bounds: Any = None,
    task: Any = None,
) -> Lowest:
    """What the row's function finds; it starts at the samples as they are."""
    task = Classification() if task is None else task
    setting = Setting(get_norm(norm), task, check_samples(x, bounds), seeded(0))
    with no_trace(model, x) as inner:
        clean = given(task, "quality")(forward(inner, x), y)
        binary = given(task, "measure").binary
        lowest = Lowest(x, clean, given(task, "quality"), task.score, binary=binary)
        run(inner, x.clone(), y, lowest, eps, steps, setting)
    assert not torch.is_inference(lowest.noisy)
    return lowest


def sign(path: Path) -> None:
    """Make the digest beside a CSV that of its bytes as they are."""
    beside = path.with_suffix(".json")
    told = json.loads(beside.read_text(encoding="utf-8"))
    told["digest"] = hashlib.sha256(path.read_bytes()).hexdigest()
    beside.write_text(json.dumps(told), encoding="utf-8")
