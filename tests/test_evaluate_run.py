"""The evaluation of a trained run: what is asked for, what lies in its folder, how it goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import mlp
from subjects import evaluate_run
from test_evaluate import SHORT, Clock, Stop, labelled, same_rows, stop_at
from torch.utils.data import TensorDataset

from ima import Results, evaluate
from ima.cli import app, main
from ima.data import Part
from ima.evaluation.results import CLEAN, WORST
from ima.evaluation.subject import forget, record
from ima.networks.small_cnn import small_cnn
from ima.report.summary import tables_of
from ima.training.checkpoint import save_weights
from ima.training.config import load_config
from ima.training.run import Run
from ima.training.samples import choose

# --- A run's evaluation ---------------------------------------------------------------------------


def constant(folder: Path, says: int, *, labels: int, **evaluate_options: str) -> Run:
    """A run on images of one class, whose network always says another or the same."""
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    arrays: dict[str, np.ndarray] = {}
    for role, numbers in (
        ("train", np.arange(12) % 2),
        ("val", np.arange(12) % 2),
        ("test", np.full(12, labels)),
    ):
        arrays[f"{role}_images"] = np.roll(images, len(role), axis=2)
        arrays[f"{role}_labels"] = numbers
    np.savez(folder / "d.npz", allow_pickle=False, **arrays)
    overrides = [
        f"data={{name: arrays, path: '{folder / 'd.npz'}'}}",
        "network.width=4",
        "evaluate={attacks: [pgd-2, ifgsm-2], eps: [0.1, 0.5]}",
    ]
    run = Run.create(folder / "run", load_config("digits", overrides))
    model = small_cnn(1, 2, width=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[-1].bias[says] = 1.0
    for which in ("best", "last"):
        save_weights(run.weights(which), model.state_dict())
    return run


def test_a_run_that_is_always_right_on_constant_output_is_never_broken(tmp_path: Path) -> None:
    run = constant(tmp_path, 1, labels=1)
    results = evaluate_run(run, "best", device="cpu")
    assert same_rows(Results.from_csv(run.results("best")), results)
    assert results.accuracy("worst case", 0.5) == 1
    with np.load(run.examples, allow_pickle=False) as examples:
        assert len(examples["id"]) == 12 * 2 * 2
        assert examples["clean"].shape == examples["noisy"].shape == (48, 1, 8, 8)
        assert set(examples["attack"].tolist()) == {"pgd-2", "ifgsm-2"}


def test_a_run_whose_first_test_samples_are_all_wrong_is_evaluated_too(tmp_path: Path) -> None:
    run = constant(tmp_path, 0, labels=1)
    results = evaluate_run(run, "best", device="cpu")
    assert results.accuracy() == 0
    assert same_rows(Results.from_csv(run.results("best")), results)


def test_a_run_is_evaluated_without_attacks_too(tmp_path: Path) -> None:
    run = constant(tmp_path, 1, labels=1)
    assert evaluate_run(run, "best", attacks=[], device="cpu").accuracy() == 1


def test_a_run_that_has_no_weights_yet_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "fresh", load_config("digits"))
    with pytest.raises(FileNotFoundError, match=r"fresh holds no best weights.*--resume"):
        evaluate_run(run, "best", device="cpu")


def test_attacks_that_fail_leave_the_old_results(tmp_path: Path) -> None:
    run = constant(tmp_path, 1, labels=1)
    evaluate_run(run, "best", device="cpu")
    before = run.results("best").read_bytes()
    with pytest.raises(ValueError, match="above 0"):
        evaluate_run(run, "best", eps=[-1.0], device="cpu")
    assert run.results("best").read_bytes() == before


def small(folder: Path, *overrides: str) -> Run:
    """A run with fixed weights on the digits; its evaluation takes five batches."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = "evaluate={attacks: [pgd-2, ifgsm-2], eps: [0.5, 1.0], batch_size: 120}"
    config = load_config("digits", ["network.width=4", settings, *overrides])
    run = Run.create(folder / "run", config)
    torch.manual_seed(3)
    for which in ("best", "last"):
        save_weights(run.weights(which), small_cnn(1, 10, width=4).state_dict())
    return run


def pictures(run: Run) -> dict[str, np.ndarray]:
    with np.load(run.examples, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_run_whose_evaluation_was_stopped_gets_the_same_files(batch: int, tmp_path: Path) -> None:
    whole, half = small(tmp_path / "whole"), small(tmp_path / "half")
    expected = evaluate_run(whole, "best", device="cpu")
    with pytest.raises(Stop):
        evaluate_run(half, "best", device="cpu", progress=stop_at(batch))
    assert not half.results("best").exists() and not half.examples.exists()
    assert same_rows(evaluate_run(half, "best", device="cpu"), expected)
    assert same_rows(Results.from_csv(half.results("best")), expected)
    first, second = pictures(whole), pictures(half)
    assert len(first["id"]) > 20 and int(first["id"].max()) > 120
    assert len(set(first["id"].tolist())) <= 200
    assert list(first) == list(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    forget([half.results("best")])
    assert sorted(entry.name for entry in half.results("best").parent.iterdir()) == [
        "best.csv",
        "best.json",
        "examples.npz",
    ]


def test_what_another_command_left_unfinished_stays(tmp_path: Path) -> None:
    run = small(tmp_path)
    left = [record(run.results(name)) for name in ("distances", "checks")]
    left[0].parent.mkdir()
    for path in left:
        path.write_text("unfinished")
    words = ["evaluate", str(run.folder), "--checkpoint", "best", "--attacks", "pgd-1"]
    with pytest.raises(SystemExit) as ended:
        app([*words, "--eps", "0.5", "--device", "cpu"])
    assert ended.value.code in (0, None)
    assert run.results("best").exists() and not record(run.results("best")).exists()
    assert all(path.read_text() == "unfinished" for path in left)


def test_pictures_of_an_evaluation_with_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    run, fresh = small(tmp_path / "a"), small(tmp_path / "b")
    with pytest.raises(Stop):
        evaluate_run(run, "best", device="cpu", progress=stop_at(3))
    for one in (run, fresh):
        evaluate_run(one, "best", attacks=["ifgsm-3"], device="cpu")
    first, second = pictures(run), pictures(fresh)
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_the_command_stops_in_time_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small(tmp_path)
    command = ["ima", "evaluate", str(run.folder), "--device", "cpu", "--time-budget", "35"]
    monkeypatch.setattr("sys.argv", command)
    Clock(monkeypatch, batch=10.0)
    # Ten batches, five of the best and five of the last weights, three at a time.
    for which, done in (("best", 3), ("last", 1), ("last", 4)):
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 75
        said = capsys.readouterr()
        assert f"ima: {which} weights: the time is up after {done} of 5" in said.err
        assert "run the same again to continue" in said.err
        assert record(run.results(which)).exists() and not run.results("last").exists()
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)
    names = sorted(entry.name for entry in run.results("best").parent.iterdir())
    assert names == ["best.csv", "best.json", "examples.npz", "last.csv", "last.json"]


def test_a_part_of_the_test_samples_keeps_its_places(tmp_path: Path) -> None:
    whole = evaluate_run(small(tmp_path / "whole"), "best", device="cpu")
    run = small(tmp_path / "few", "evaluate.samples=50")
    few = evaluate_run(run, "best", device="cpu")
    assert (few.settings.samples, few.settings.total) == (50, 540)
    clean = {row.id: row for row in whole.rows if row.attack == CLEAN}
    rows = [row for row in few.rows if row.attack == CLEAN]
    assert len(rows) == 50 and all(repr(row) == repr(clean[row.id]) for row in rows)
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    assert max(row.id for row in rows) > 50
    # Every class in proportion: 540 samples in ten classes of 50 to 57.
    labels = [row.more["label"] for row in rows]
    assert all(labels.count(label) == 5 for label in range(10))
    assert set(pictures(run)["id"].tolist()) <= {row.id for row in rows}


@pytest.mark.parametrize(("samples", "count"), [(None, 6), (6, 6), (100, 6), (2, 2)])
def test_samples_beyond_the_test_part_are_all(samples: int | None, count: int) -> None:
    test = Part(torch.rand(6, 1, 2, 2), torch.arange(6) % 2)
    assert len(choose(test, samples)) == count


def test_the_last_weights_may_have_attacks_of_their_own(tmp_path: Path) -> None:
    run = small(tmp_path, "evaluate.last_attacks=[pgd-1]", "evaluate.samples=20")
    assert evaluate_run(run, "best", device="cpu").attacks == ("pgd-2", "ifgsm-2", WORST)
    assert evaluate_run(run, "last", device="cpu").attacks == ("pgd-1",)


def test_white_noise_without_a_number_of_draws_has_no_radius_either(tmp_path: Path) -> None:
    model, data = mlp((8,)), TensorDataset(*labelled(30))
    results = evaluate(model, data, [0.1], ["pgd-1", "white"], bounds=None)
    assert results.attacks == ("pgd-1",)
    assert results.eps == (0.1,)
    assert set(results.white) == {"white"}


def test_results_on_validation_are_not_said_to_be_on_test_samples(tmp_path: Path) -> None:
    run = small(tmp_path, "evaluate.samples=20")
    judged = evaluate_run(run, "validation", device="cpu")
    tested = evaluate_run(run, "best", device="cpu")
    captions = [tables_of([("A", [one])], "")[0].caption for one in (judged, tested)]
    assert "validation samples" in captions[0]
    assert "n = 20 of " in captions[1] and "test samples" in captions[1]


def test_an_evaluation_whose_disk_is_full_names_the_record_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, path = mlp((8,)), TensorDataset(*labelled(30)), tmp_path / "e.part"
    really, writes = Path.open, list[str]()

    def full(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if mode == "a":
            writes.append(self.name)
            if len(writes) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(self, mode, *more, **named)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"e\.part cannot be written .*make room"):
        evaluate(model, data, **SHORT, partial=path)
    assert same_rows(evaluate(model, data, **SHORT, partial=path), evaluate(model, data, **SHORT))
