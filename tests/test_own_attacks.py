"""Attacks of a user's own by `module:name`, in Python and on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nets import Linear2, seeded
from torch.utils.data import TensorDataset

from ima import Results, evaluate
from ima.evaluation.attacks import find_attack


def problem() -> tuple[Linear2, TensorDataset]:
    model = Linear2(4)
    x = 4 * torch.rand(40, 4, generator=seeded(1)) - 2
    return model, TensorDataset(x, model.labels(x))


def test_it_takes_part_beside_the_library_s_and_stays_in_the_ball() -> None:
    model, data = problem()
    found = evaluate(model, data, [0.3, 0.6], ["pgd-10", "own_attacks:corner-5"])
    name = "own_attacks:corner-5"
    assert found.attacks == ("pgd-10", name, "worst case")
    assert found.settings.attacks[name] == "The same noise on every entry, of either sign"
    assert found.accuracy("pgd-10", 0.6) <= found.accuracy(name, 0.6) < found.accuracy()
    assert (found.of_attack(name, 0.6)["size"] <= 0.6001).sum() > 0
    # What lies outside is pulled back before it counts.
    far = evaluate(model, data, [0.3], ["own_attacks:beyond"])
    size = far.of_attack("own_attacks:beyond", 0.3)["size"]
    assert not (size > 0.3001).any() and far.accuracy("own_attacks:beyond", 0.3) > 0.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_attacks:corner-0", "unknown attack"),
        ("own_attacks:beyond-3", "unknown attack"),
        ("own_attacks:NUMBER", r"is a int; expected a function"),
        ("own_attacks:missing", "cannot be imported"),
        ("nowhere:attack", "cannot be imported"),
        ("own_attacks:ROW", "it serves nobody"),
    ],
)
def test_what_is_no_attack_is_refused(name: str, words: str) -> None:
    model, data = problem()
    with pytest.raises(ValueError, match=words):
        evaluate(model, data, [0.3], [name])


def test_what_an_attack_gives_must_be_points() -> None:
    model, data = problem()
    with pytest.raises(TypeError, match=r"own_attacks:misshapen.*expected points of shape"):
        evaluate(model, data, [0.3], ["own_attacks:misshapen"])
    assert find_attack("own_attacks:corner")[1] == 3
    assert find_attack("ima:bpgd")[0].steps is not None


def test_on_the_command_line(tmp_path: Path) -> None:
    from ima.networks.small_cnn import small_cnn
    from ima.training.checkpoint import save_weights
    from ima.training.config import load_config
    from ima.training.run import Run

    settings = ["network.width=4", "evaluate={attacks: [pgd-2], eps: [0.5], samples: 20}"]
    run = Run.create(tmp_path / "run", load_config("digits", settings))
    save_weights(run.weights("best"), small_cnn(1, 10, width=4).state_dict())
    options = ["--checkpoint", "best", "--device", "cpu", "--attacks", "own_attacks:corner-2"]
    command = [sys.executable, "-m", "ima", "evaluate", str(run.folder), *options]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "own_attacks:corner-2" in Results.from_csv(run.results("best")).attacks
