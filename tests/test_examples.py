"""The examples: each runs as a user would run it, prints what it promises and warns of nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"

# What the documentation promises that a user has to write; the example must hold exactly this.
PROMISED = """\
from ima import IMA, Indexed

loader = DataLoader(Indexed(train_set), batch_size=128, shuffle=True)     # yields (x, y, id)
method = IMA(num_samples=len(train_set), bounds=(0, 1))

for epoch in range(100):
    for x, y, ids in loader:
        step = method(model, x, y, ids)      # finds noise, updates margins and radius
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()

torch.save({"model": model.state_dict(), "method": method.state_dict()}, "run.pt")
"""

# A warning of this library, or of torch about it, is an error; these are not about it.
LIGHTNING = (
    # Lightning 2.6 builds its containers with a class that torch has renamed.
    "ignore:`isinstance(treespec, LeafSpec)` is deprecated:FutureWarning",
    # On machines with several cores: data in memory need no worker processes.
    "ignore:The 'train_dataloader' does not have many workers:UserWarning",
    # On machines with a GPU: the example is for the CPU.
    "ignore:GPU available but not used:UserWarning",
    # On machines of a Slurm cluster.
    "ignore:The `srun` command is available",
)
# Lightning imports torchvision where it is installed, as it is beside nnU-Net; the registry's does
# not fit a PyTorch without CUDA.
MENDED = """\
import runpy, sys
from ima.nnunet.environment import mend_torchvision

mend_torchvision()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PERCENT = r"(\d+\.\d)%"


def run(script: str, *arguments: str, folder: Path, ignored: tuple[str, ...] = ()) -> str:
    """What the example prints, run in `folder` with warnings as errors."""
    filters = [part for rule in ("error", *ignored) for part in ("-W", rule)]
    done = subprocess.run(
        [sys.executable, *filters, "-c", MENDED, str(EXAMPLES / script), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern: str, printed: str) -> list[float]:
    """The groups of the one place that looks like `pattern`, as numbers."""
    (found,) = re.finditer(pattern, printed)
    return [float(group) for group in found.groups()]


def test_own_loop_holds_the_promised_lines() -> None:
    text = (EXAMPLES / "own_loop.py").read_text(encoding="utf-8")
    assert text.count("\n" + PROMISED) == 1
    above = text[: text.index(PROMISED)]
    for name in ("train_set, ", "model: nn.Module =", "optimizer =", "import torch\n"):
        assert "\n" + name in above
    assert "import DataLoader" in above


def test_own_loop(tmp_path: Path) -> None:
    printed = run("own_loop.py", folder=tmp_path)
    clean, clean_ima, noisy, noisy_ima = numbers(
        rf"^clean accuracy {PERCENT} without IMA, {PERCENT} with; "
        rf"under noise of size 0\.7 {PERCENT} without IMA, {PERCENT} with\n",
        printed,
    )
    assert min(clean, clean_ima) > 80  # 87.5 and 90.5 when written, on 200 digits
    assert noisy_ima > noisy + 10  # 45.5 and 13
    loaded, smallest, largest = numbers(
        r"loaded (\d+) margins, from (\d\.\d+) to (\d\.\d+)\n", printed
    )
    assert (loaded, [file.name for file in tmp_path.iterdir()]) == (256, ["run.pt"])
    assert 0 <= smallest < 0.3 < largest <= 3
    margins = torch.load(tmp_path / "run.pt", weights_only=True)["method"]["margins"]["values"]
    assert float(margins.max()) == pytest.approx(largest, abs=0.006)


def test_lightning_goes_on_from_the_margins_in_its_checkpoint(tmp_path: Path) -> None:
    printed = run("lightning_module.py", "--epochs", "2", folder=tmp_path, ignored=LIGHTNING)
    assert [file.name for file in tmp_path.iterdir()] == ["digits.ckpt"]
    number = r"\d+\.\d+"
    first, second = re.findall(
        rf"^(\d) epochs: train/loss {number}, train/accuracy {number}, train/crossed {number}, "
        rf"train/margin ({number})$",
        printed,
        re.MULTILINE,
    )
    assert (first[0], second[0]) == ("2", "4")
    assert float(second[1]) > float(first[1])
    new, saved, after = numbers(
        rf"largest margin: new ({number}), saved ({number}), 2 epochs later ({number})\n", printed
    )
    assert new == 0 < saved
    # It went on from what was saved, and did not begin anew.
    assert 0.5 * saved < after
    saved_values = torch.load(tmp_path / "digits.ckpt", weights_only=False)["method"]["margins"]
    assert float(saved_values["values"].max()) == pytest.approx(saved, abs=0.0006)
    assert re.search(
        rf"test digits: clean accuracy {PERCENT}, under noise of size 0\.5 {PERCENT}\n$", printed
    )


def test_monai_dicts(tmp_path: Path) -> None:
    printed = run("monai_dicts.py", "--epochs", "3", folder=tmp_path)
    epochs = re.findall(
        rf"^epoch (\d): correct {PERCENT}, crossed {PERCENT}, mean margin (\d\.\d+)$",
        printed,
        re.MULTILINE,
    )
    assert [epoch for epoch, *_ in epochs] == ["1", "2", "3"]
    for _, correct, crossed, margin in epochs:
        assert 0 <= float(crossed) <= float(correct) <= 100
        assert 0 <= float(margin) < 3
    clean, noisy = numbers(
        rf"test volumes: clean accuracy {PERCENT}, under noise of size 0\.5 {PERCENT}\n$", printed
    )
    assert noisy <= clean
    assert not list(tmp_path.iterdir())


def test_segmentation(tmp_path: Path) -> None:
    printed = run("segmentation.py", folder=tmp_path)
    epochs = re.findall(
        rf"^(\w+), epoch (\d+): {PERCENT} of the images correct$", printed, re.MULTILINE
    )
    assert [tuple(epoch[:2]) for epoch in epochs] == [
        (method, str(number)) for method in ("IMA", "Standard") for number in range(1, 11)
    ]
    assert min(float(epochs[last][2]) for last in (9, 19)) > 90  # 100 and 100 when written
    smallest, largest = numbers(r"margins from (\d+\.\d) to (\d+\.\d)\n", printed)
    # They start at 1.5 and grow by as much an epoch; ten epochs could bring them to 15.
    assert 1.5 < smallest < largest < 15
    dice = r"(\d\.\d{3})"
    clean, clean_ima, noisy, noisy_ima = numbers(
        rf"mean Dice \(ADI\) {dice} without IMA, {dice} with; "
        rf"under noise of size 3 {dice} without IMA, {dice} with\n$",
        printed,
    )
    assert min(clean, clean_ima) > 0.85  # 0.931 and 0.925
    assert noisy_ima > noisy + 0.1  # 0.745 and 0.525
    assert not list(tmp_path.iterdir())


def test_own_method(tmp_path: Path) -> None:
    printed = run("own_method.py", folder=tmp_path)
    clean, noisy = numbers(
        rf"^clean accuracy {PERCENT}, under noise of size 0\.7 {PERCENT}\n$", printed
    )
    assert clean > 70
    assert noisy > 25
    assert not list(tmp_path.iterdir())


def test_own_method_takes_part_in_a_comparison_from_a_folder_of_its_own(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(EXAMPLES / "own_method.py", elsewhere)
    path = os.pathsep.join([str(elsewhere), *filter(None, [os.environ.get("PYTHONPATH")])])
    rows = "compare=[{label: Ramp, method: {name: own_method:Ramp, eps: 1.0, steps: 2}}]"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ima", "compare", "digits", rows),
            "train={epochs: 2, batch_size: 256}",
            "evaluate={attacks: [pgd-2], eps: [0.5], samples: 40}",
            *("--out", "table", "--device", "cpu"),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table" / "table.md").read_text(encoding="utf-8")
    assert re.search(r"^\| Ramp +\|.*\d", table, re.MULTILINE)
    folder = tmp_path / "table" / "own_method_Ramp-eps=1-steps=2" / "seed0"
    assert (folder / "evaluation" / "best.csv").is_file()
    # The folder alone, as a stranger's, is not trusted.
    again = subprocess.run(
        [sys.executable, "-m", "ima", "evaluate", str(folder), "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert again.returncode == 1
    assert "method.name is 'own_method:Ramp'" in again.stderr
    assert "--trust" in again.stderr
