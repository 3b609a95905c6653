"""What an installed wheel must do, without pytest and with the core alone: `python tests/smoke.py`.

Where extras are missing, what needs them says how to get them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

import ima
from ima.extras import EXTRAS, lacking


def said(extra: str, call: Callable[[], object]) -> None:
    """The call works where the extra is installed, and else says how to get it."""
    try:
        call()
    except (ImportError, ValueError) as error:
        assert lacking(extra), f"{extra} is installed, and yet: {error!r}"
        assert f"pip install 'ima[{extra}]'" in str(error), error
    else:
        assert not lacking(extra), f"without {extra} this was expected to fail"


def main() -> None:
    """Train, attack, evaluate and harden something tiny; look at every entrance to an extra."""
    assert ima.__version__ == version("ima")
    names: dict[str, object] = {}
    exec("from ima import *", names)
    torch.manual_seed(0)
    ids = torch.arange(60)
    x, y = 0.4 * torch.rand(60, 1, 8, 8), ids % 3
    x[ids, 0, y] += 0.3  # a bright row tells the class
    data = TensorDataset(x, y)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    method, optimizer = ima.IMA(num_samples=60, bounds=(0, 1)), torch.optim.Adam(model.parameters())
    for _ in range(40):
        optimizer.zero_grad()
        method(model, x, y, ids).loss.backward()
        optimizer.step()
    results = ima.evaluate(model.eval(), data, 0.1, "pgd-2", bounds=(0, 1))
    assert 0 < results.accuracy("pgd-2", 0.1) <= results.accuracy()
    hardened = ima.harden(model, data, bounds=(0, 1), time_budget="2s")
    assert isinstance(hardened.better, bool)
    with tempfile.TemporaryDirectory() as folder:
        results.to_csv(Path(folder) / "results.csv")
        assert len(ima.Results.from_csv(Path(folder) / "results.csv")) == len(results)
        said("cli", lambda: results.to_html(Path(folder) / "page.html"))
    said("autoattack", lambda: ima.evaluate(model, data, 0.1, "autoattack", bounds=(0, 1)))
    from ima.data import load

    said("data", lambda: load("digits"))
    told = subprocess.run([sys.executable, "-m", "ima", "--help"], capture_output=True, text=True)
    if lacking("cli"):
        assert (told.returncode, told.stdout) == (1, ""), told
        assert "pip install 'ima[cli]'" in told.stderr and "Traceback" not in told.stderr
    else:
        assert told.returncode == 0 and "Usage: ima COMMAND" in told.stdout, told
    print(f"ima {ima.__version__} works; missing: {[e for e in EXTRAS if lacking(e)] or 'nothing'}")


if __name__ == "__main__":
    main()
