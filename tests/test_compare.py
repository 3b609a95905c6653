"""A comparison: every run made once, continued where it stopped, the tuned row picked fairly."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from subjects import evaluate_run
from torch import nn

import ima.training.children as module
from ima import Results
from ima.cli import app, main
from ima.cli.compare import compare
from ima.cores import cores, threads
from ima.evaluation.results import Row as ResultRow
from ima.evaluation.settings import Settings
from ima.networks.small_cnn import small_cnn
from ima.training.checkpoint import load_state, save_state
from ima.training.compare import finished, make_runs, plan_runs, slug, validation_score
from ima.training.compare import tested as is_tested
from ima.training.config import load_config
from ima.training.config_errors import ConfigError
from ima.training.run import Run
from ima.training.settings import Config

ROWS = (
    "[{label: Plain, method: {name: standard}},"
    " {label: SAT, method: {name: sat, eps: 1.0, steps: 2}},"
    " {label: Tuned, method: {name: sat, steps: 2}, tune: {eps: [0.5, 1.0]}},"
    " {label: IMA, method: {name: ima, eps: 1.0, delta: 0.5, steps: 2}}]"
)
PLAIN = "[{label: A, method: {name: standard}}]"
TWO = "[{label: A, method: {name: standard}}, {label: B, method: {name: sat, eps: 1.0, steps: 2}}]"
TINY = (
    "network.width=4",
    "optimizer.lr=0.01",
    "train={epochs: 2, batch_size: 256}",
    "evaluate={attacks: [pgd-1, ifgsm-1], eps: [0.25, 0.5]}",
)


def small(rows: str = ROWS) -> list[str]:
    return [*TINY, f"compare={rows}"]


@dataclass
class Commands:
    """The commands that a comparison ran, each in this process instead of one of its own."""

    ran: list[tuple[str, str]] = field(default_factory=list)
    stop_at: int | None = None
    """Fail from this command on, as where the machine was switched off."""

    def run(self, command: Sequence[str], **options: Any) -> int:
        words = [*command[3:]]
        what = "judge" if "validation" in words else words[0]
        self.ran.append((what, next(w for w in words if "seed" in w)))
        if self.stop_at is not None and len(self.ran) > self.stop_at:
            raise KeyboardInterrupt
        # Into memory, because what the main thread prints meanwhile would end in the log.
        text, code = io.StringIO(), 0
        with redirect_stdout(text), redirect_stderr(text):
            try:
                app(words)
            except SystemExit as ended:
                code = int(ended.code or 0)
            except Exception as error:
                # As `main` ends: a message of this library, or Python's traceback.
                ours = isinstance(error, ValueError | OSError | FloatingPointError)
                text.write(f"ima: {error}\n" if ours else traceback.format_exc())
                code = 1
        options["stdout"].write(text.getvalue())
        return code


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    found = Commands()
    monkeypatch.setattr(module, "run", found.run)
    return found


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are empty files: drawing them takes longer than all runs."""

    def save(figure: Any, path: Path) -> None:
        path.touch()

    monkeypatch.setattr("ima.report.figures.save", save)


def silent(what: str, done: int, total: int) -> None:
    """No report."""


QUIET: dict[str, Any] = {"jobs": 1, "device": "cpu", "report": silent}


def stamps(folder: Path) -> dict[str, int]:
    """When each file of the runs was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("seed*/**/*")
        if path.is_file() and path.suffix != ".log"
    }


@dataclass(frozen=True)
class Made:
    folder: Path
    config: Config
    ran: list[tuple[str, str]]
    printed: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A comparison of four rows and two seeds that the tests below look at."""
    folder, printed = tmp_path_factory.mktemp("compare") / "out", io.StringIO()
    commands = Commands()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run", commands.run)
        with redirect_stdout(printed):
            compare("digits", *small(), seeds=[0, 1], out=folder, device="cpu")
    config = load_config("digits", small())
    return Made(folder, config, list(commands.ran), printed.getvalue())


def test_a_comparison_leaves_tables_and_pictures(made: Made) -> None:
    for name in (
        "table.md",
        "table-best.csv",
        "table-last.csv",
        "table-best.tex",
        "table-last.tex",
        "accuracy.png",
        "accuracy.svg",
        "margins.png",
        "margins.svg",
    ):
        assert (made.folder / name).stat().st_size > 100, name
    text = (made.folder / "table.md").read_text()
    for label in ("Plain", "SAT", "Tuned", "IMA"):
        assert label in text
        assert label in made.printed
    assert str(made.folder / "table.md") in made.printed


def test_the_page_says_which_rule_picked_whose_epochs(made: Made) -> None:
    noisy = "the geometric mean of clean accuracy and accuracy under PGD-10 at 0.25"
    said = f"picked the epochs by clean accuracy (Plain); by {noisy} (SAT, Tuned, IMA)."
    assert said in (made.folder / "table.md").read_text().replace("\\", "")


def test_the_table_holds_the_means_of_the_runs(made: Made) -> None:
    for which in ("best", "last"):
        with (made.folder / f"table-{which}.csv").open(newline="") as file:
            rows = {row["method"].split(" (")[0]: row for row in csv.DictReader(file)}
        assert list(rows) == ["Plain", "SAT", "Tuned", "IMA"]
        for seeds, label in (("standard", "Plain"), ("sat-eps=1-steps=2", "SAT")):
            results = [
                Results.from_csv(Run.open(made.folder / seeds / f"seed{seed}").results(which))
                for seed in (0, 1)
            ]
            for attack, eps in (("pgd-1", 0.25), ("ifgsm-1", 0.5), ("worst case", 0.5)):
                one, other = (r.accuracy(attack, eps) for r in results)
                found = {c: float(rows[label][f"{attack} at {eps} {c}"]) for c in ("mean", "std")}
                # Of two values the deviation is their distance over the root of 2.
                expected = {"mean": (one + other) / 2, "std": abs(one - other) / math.sqrt(2)}
                assert found == pytest.approx(expected, abs=1e-9)


def test_runs_that_rows_share_are_made_once(made: Made) -> None:
    folders = {f"{p}/seed{s}" for p in ("standard", "sat-eps=1-steps=2") for s in (0, 1)}
    trained = [Path(folder) for what, folder in made.ran if what == "train"]
    assert len(trained) == len(set(trained)) == 4 * 2
    assert folders <= {str(path.relative_to(made.folder)) for path in trained}
    evaluated = [folder for what, folder in made.ran if what == "evaluate"]
    assert len(evaluated) == len(set(evaluated))


def test_only_the_picked_candidate_meets_the_test_part(made: Made) -> None:
    plans = {p.label: p for p in plan_runs(made.config, [0, 1], made.folder)}
    means = {
        slug(c.method): sum(validation_score(run) for run in c.runs) / 2
        for c in plans["Tuned"].candidates
    }
    chosen = plans["Tuned"].chosen()
    assert means[slug(chosen.method)] == max(means.values())
    shown = {run.folder for p in plans.values() for run in p.chosen().runs}
    for run_folder in {run.folder for p in plans.values() for c in p.candidates for run in c.runs}:
        assert Run.open(run_folder).results("best").exists() == (run_folder in shown)
    text = (made.folder / "table.md").read_text()
    titles = set(re.findall(r"Tuned \\?\(([^)]*)\)", text))
    assert len(titles) == 1
    assert f"{chosen.method.options['eps']:g}" in titles.pop()
    for score in means.values():
        assert f"{score:.3f}" in text
    assert "validation (n = 360) picked the best of eps " in text
    assert "n = 540 test samples" in text


@pytest.mark.usefixtures("undrawn")
def test_a_second_call_trains_and_tests_nothing(
    made: Made, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    before, tables = stamps(made.folder), (made.folder / "table.md").read_text()
    compare("digits", *small(), seeds=[0, 1], out=made.folder, device="cpu")
    assert commands.ran == []
    assert stamps(made.folder) == before
    assert (made.folder / "table.md").read_text() == tables
    assert "Tuned" in capsys.readouterr().out


def test_further_seeds_keep_the_runs_that_are_there(made: Made, commands: Commands) -> None:
    before = stamps(made.folder)
    plans = plan_runs(made.config, [0, 1, 2], made.folder)
    make_runs(plans[:1], **QUIET)
    assert [(what, Path(f).name) for what, f in commands.ran] == [
        ("train", "seed2"),
        ("evaluate", "seed2"),
    ]
    after = stamps(made.folder)
    assert {name: after[name] for name in before} == before


def test_two_jobs_run_at_the_same_time_and_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, given = threading.Barrier(2, timeout=60), set[str]()

    def meet(command: Sequence[str], **options: Any) -> int:
        together.wait()
        given.add(options["env"]["OMP_NUM_THREADS"])
        return 0

    told: list[tuple[int, int]] = []
    plans = plan_runs(load_config("digits", small(PLAIN)), [0, 1], tmp_path)
    monkeypatch.setattr(module, "run", meet)
    monkeypatch.setattr("ima.cores.cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    make_runs(plans, jobs=2, device="cpu", report=lambda _, done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)] * 2
    assert given == {"3"}


def test_a_process_takes_no_more_threads_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = cores()
    assert 1 <= allowed <= (os.cpu_count() or 1)
    for asked, jobs, given in [("", 2, 3), ("2", 2, 2), ("8", 2, 3), ("1", 1, 1), ("", 9, 1)]:
        monkeypatch.setattr("ima.cores.cores", lambda: 6)
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert threads(jobs) == given


@pytest.mark.usefixtures("undrawn")
def test_a_table_shows_the_attacks_of_its_config_whatever_was_evaluated_since(
    tmp_path: Path, commands: Commands
) -> None:
    make_runs(plan_runs(load_config("digits", small(PLAIN)), [0], tmp_path), **QUIET)
    run = Run.open(tmp_path / "standard" / "seed0")
    for which in ("best", "last"):
        evaluate_run(run, which, attacks=["pgd-2"], eps=[0.1], device="cpu")
    compare("digits", *small(PLAIN), out=tmp_path, device="cpu")
    with (tmp_path / "table-best.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    for column in ("pgd-1 at 0.25", "ifgsm-1 at 0.5"):
        assert row[next((name for name in row if name.startswith(column)), column)]
    assert not [name for name in row if name.startswith("pgd-2 ")]


def test_results_count_for_the_weights_that_they_were_measured_on(
    tmp_path: Path, commands: Commands
) -> None:
    make_runs(plan_runs(load_config("digits", small(PLAIN)), [0], tmp_path), **QUIET)
    run = Run.open(tmp_path / "standard" / "seed0")
    results, weights = run.results("best"), run.weights("best")
    # Copied folders have any times.
    os.utime(results, (0, 0))
    assert is_tested(run, "best")
    evaluate_run(run, "best", device="cpu", seed=7)
    assert not is_tested(run, "best")
    evaluate_run(run, "best", device="cpu")
    assert is_tested(run, "best")
    weights.write_bytes(weights.read_bytes() + b" ")
    os.utime(weights, (0, 0))
    assert not is_tested(run, "best")
    assert is_tested(run, "last")
    run.weights("last").unlink()
    assert not is_tested(run, "last")


def test_a_run_is_finished_when_its_state_says_so(tmp_path: Path, commands: Commands) -> None:
    make_runs(plan_runs(load_config("digits", small(PLAIN)), [0], tmp_path), **QUIET)
    run = Run.open(tmp_path / "standard" / "seed0")
    assert finished(run)
    # Killed after the last epoch's metrics were written, and before its state was.
    save_state(run.state, {**load_state(run.state), "epoch": 0})
    assert len(run.epochs()) == 2 and not finished(run)
    run.state.unlink()
    assert not finished(run)


@pytest.mark.usefixtures("undrawn")
def test_a_comparison_without_examples_is_drawn_all_the_same(
    tmp_path: Path, commands: Commands
) -> None:
    make_runs(plan_runs(load_config("digits", small(TWO)), [0], tmp_path), **QUIET)
    Run.open(tmp_path / "standard" / "seed0").examples.unlink()
    compare("digits", *small(TWO), out=tmp_path, device="cpu")
    assert (tmp_path / "accuracy.png").exists()


def test_a_comparison_that_was_stopped_continues_where_it_was(
    tmp_path: Path, commands: Commands
) -> None:
    config = load_config("digits", small(TWO))
    commands.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        make_runs(plan_runs(config, [0, 1], tmp_path), **QUIET)
    done = stamps(tmp_path)
    commands.stop_at = None
    commands.ran.clear()
    make_runs(plan_runs(config, [0, 1], tmp_path), **QUIET)
    assert [what for what, _ in commands.ran] == ["train"] * 3 + ["evaluate"] * 4
    kept = [name for name in done if name.startswith("standard/seed0/")]
    after = stamps(tmp_path)
    assert {name: after[name] for name in kept} == {name: done[name] for name in kept}


def test_a_killed_comparison_continues_where_it_was(tmp_path: Path, commands: Commands) -> None:
    words = ["compare", "digits", *small(TWO), "--out", "out", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ima", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("[1/2]"):
                break
        assert lines[-1].startswith("[1/2]"), lines
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    folder = tmp_path / "out"
    first = folder / "standard" / "seed0"
    assert load_state(Run(first).state)["epoch"] == 1
    done = {name: t for name, t in stamps(folder).items() if name.startswith("standard/")}

    make_runs(plan_runs(load_config("digits", small(TWO)), [0], folder), **QUIET)
    assert ("train", str(first)) not in commands.ran
    after = stamps(folder)
    assert {name: after[name] for name in done} == done


def test_a_folder_with_runs_of_other_settings_is_refused(made: Made, commands: Commands) -> None:
    before = stamps(made.folder)
    with pytest.raises(ConfigError, match=r"seed0 holds a run of other settings.*--out"):
        compare("digits", *small(), "train.epochs=3", seeds=[0], out=made.folder, device="cpu")
    assert commands.ran == []
    assert stamps(made.folder) == before


@pytest.mark.usefixtures("undrawn")
def test_other_attacks_on_the_test_part_train_nothing_again(
    tmp_path: Path, commands: Commands
) -> None:
    rows = small("[{label: A, method: {name: standard}}]")
    other = "evaluate={attacks: [pgd-1], eps: [0.25, 1.0], samples: 100}"
    compare("digits", *rows, out=tmp_path, device="cpu")
    commands.ran.clear()
    compare("digits", *rows, other, out=tmp_path, device="cpu")
    assert [what for what, _ in commands.ran] == ["evaluate"]
    run = Run.open(tmp_path / "standard" / "seed0")
    found = Results.from_csv(run.results("best"))
    assert (found.attacks, found.eps) == (("pgd-1",), (0.25, 1.0))
    assert (found.settings.samples, found.settings.total) == (100, 540)
    assert run.config().evaluate.samples == 100
    commands.ran.clear()
    compare("digits", *rows, other, out=tmp_path, device="cpu")
    assert commands.ran == []
    # The middle radius has picked the epoch.
    with pytest.raises(ConfigError, match="other settings"):
        compare("digits", *rows, "evaluate.eps=[0.5]", out=tmp_path, device="cpu")


def unbuildable(channels: int, num_classes: int) -> nn.Module:
    raise ValueError("this network cannot be built\n" + "\n".join(f"line {n}" for n in range(9)))


def divided(channels: int, num_classes: int, *, width: int = 4) -> nn.Module:
    return small_cnn(channels, num_classes, width=width // 0)


@pytest.mark.parametrize("network", ["unbuildable", "divided"])
def test_a_failing_run_is_told_with_the_end_of_its_log(
    network: str,
    tmp_path: Path,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*small(PLAIN), f"network={{name: '{__name__}:{network}'}}"]
    monkeypatch.setattr(
        sys, "argv", ["ima", "compare", "digits", *words, "--out", str(tmp_path / "out")]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens")
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "standard/seed0" in said
    log = (tmp_path / "out" / "standard" / "seed0" / "train.log").read_text().splitlines()
    assert log[-1].strip() in said
    assert "train.log" in said
    assert said.startswith("ima: ")
    assert not (tmp_path / "out" / "table.md").exists()


def test_the_other_runs_are_made_before_a_failure_is_told(
    tmp_path: Path, commands: Commands
) -> None:
    plans = plan_runs(load_config("digits", small(TWO)), [0], tmp_path)
    broken = plans[0].candidates[0].runs[0]
    broken.state.write_bytes(b"damaged")
    with pytest.raises(Exception, match=r"standard/seed0 failed[\s\S]*damaged"):
        make_runs(plans, **QUIET)
    assert plans[1].candidates[0].runs[0].state.exists()
    broken.state.unlink()
    commands.ran.clear()
    make_runs(plan_runs(load_config("digits", small(TWO)), [0], tmp_path), **QUIET)
    assert [what for what, _ in commands.ran] == ["train", "evaluate", "evaluate"]


# --- Plans ----------------------------------------------------------------------------------------


def scored(run: Run, clean: int, noisy: int) -> None:
    """Results on ten validation samples, of which so many stand."""
    marks = (("clean", "clean", 0.0, clean), ("pgd-1", "chosen", 0.25, noisy))
    rows = [
        ResultRow(i, attack, eps, float(i < standing), kind=kind)
        for attack, kind, eps, standing in marks
        for i in range(10)
    ]
    run.results("validation").parent.mkdir(parents=True)
    settings = Settings(norm="L2", samples=10, total=10)
    Results.of(rows, settings).to_csv(run.results("validation"))


def test_the_tuned_row_is_picked_by_the_mean_of_the_validation_scores(tmp_path: Path) -> None:
    rows = "[{label: T, method: {name: sat}, tune: {eps: [0.5, 1.0, 2.0]}}]"
    (tuned,) = plan_runs(load_config("digits", small(rows)), [0, 1], tmp_path)
    assert [c.method.options["eps"] for c in tuned.candidates] == [0.5, 1.0, 2.0]
    clean_only, steady, one_good_seed = tuned.candidates
    scored(clean_only.runs[0], 10, 3)
    scored(clean_only.runs[1], 10, 3)
    scored(steady.runs[0], 7, 7)
    scored(steady.runs[1], 7, 7)
    scored(one_good_seed.runs[0], 9, 9)
    scored(one_good_seed.runs[1], 3, 3)
    assert tuned.chosen() is steady
    assert [c.score() for c in tuned.candidates] == pytest.approx([math.sqrt(0.3), 0.7, 0.6])
    assert "may lie beyond" not in tuned.remark()
    for run in one_good_seed.runs:
        shutil.rmtree(run.results("validation").parent)
        scored(run, 9, 9)
    assert tuned.remark().endswith(
        "The best eps is the last one tried: a better one may lie beyond."
    )


def test_missing_data_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMA_DATA", str(tmp_path))
    config = load_config("pneumonia", [])
    with pytest.raises(FileNotFoundError, match=r"pneumoniamnist\.npz"):
        make_runs(plan_runs(config, [0], tmp_path / "runs"), jobs=2, device="cpu", report=print)
    assert not list(tmp_path.rglob("*.log"))


def test_a_setting_that_cannot_reach_its_cap_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ima.training.compare.work_off", lambda *_, **__: None)
    short = small("[{label: Ours, method: {name: ima, eps: 3.0, delta: 0.1}}]")
    with pytest.raises(FileNotFoundError):
        compare("digits", *short, out=tmp_path, device="cpu")
    assert "note: Ours: in 2 epochs a margin grows to 0.2 at most" in capsys.readouterr().out


def test_every_combination_of_tuned_options_is_a_candidate(tmp_path: Path) -> None:
    rows = "[{label: T, method: {name: ima}, tune: {eps: [1.0, 2.0], delta: [0.5, 0.25, 0.1]}}]"
    (tuned,) = plan_runs(load_config("digits", small(rows)), [0], tmp_path)
    pairs = [(c.method.options["eps"], c.method.options["delta"]) for c in tuned.candidates]
    assert pairs == [(e, d) for e in (1.0, 2.0) for d in (0.5, 0.25, 0.1)]
    assert len({slug(c.method) for c in tuned.candidates}) == 6


def test_a_value_to_try_that_is_none_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    rows = "[{label: T, method: {name: sat}, tune: {eps: [0.5, -1.0]}}]"
    with pytest.raises(ConfigError, match=r"eps is -1"):
        plan_runs(load_config("digits", small(rows)), [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_whole_numbers_and_floats_name_the_same_run(tmp_path: Path) -> None:
    rows = (
        "[{label: A, method: {name: sat, eps: 1}},"
        " {label: B, method: {name: sat}, tune: {eps: [1.0, 2]}}]"
    )
    one, tuned = plan_runs(load_config("digits", small(rows)), [0], tmp_path)
    assert one.candidates[0].runs == tuned.candidates[0].runs
    assert len(list(tmp_path.rglob("config.yaml"))) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_seed_that_is_named_twice_counts_once(tmp_path: Path, commands: Commands) -> None:
    compare("digits", *small(PLAIN), seeds=[0, 0], out=tmp_path, device="cpu")
    assert "±" not in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("method.delta=0.2", "change the rows"),
        ("method={name: sat, eps: 1.0}", "change the rows"),
        ("train.seed=5", "--seeds"),
    ],
)
def test_an_override_that_no_row_would_follow_is_refused(
    override: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        compare("digits", *small(PLAIN), override, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match=r"file is a file; .*--out"):
        compare("digits", *small(PLAIN), out=tmp_path / "file", device="cpu")


@pytest.mark.usefixtures("undrawn")
def test_a_note_is_followed_by_what_was_changed(tmp_path: Path, commands: Commands) -> None:
    note = "note=Two epochs."
    compare("digits", *small(PLAIN), note, "train.epochs=1", out=tmp_path, device="cpu")
    table = (tmp_path / "table.md").read_text()
    changed = table.partition("Two epochs. Changed here: ")[2].partition("\n")[0]
    assert "train.epochs=1." in changed and "note=" not in changed.partition("train.epochs=1.")[2]


def test_two_rows_of_one_label_are_refused() -> None:
    with pytest.raises(ConfigError, match="label"):
        load_config("digits", small(TWO.replace("label: B", "label: A")))


# --- Rows that come to no end ---------------------------------------------------------------------

WILD = "optimizer: {name: adam, lr: 1.0e+30}"
DIVERGING = (
    "[{label: Plain, method: {name: standard}},"
    f" {{label: Wild, method: {{name: standard}}, {WILD}}},"
    " {label: SAT, method: {name: sat, eps: 1.0, steps: 2}}]"
)


@pytest.mark.usefixtures("undrawn")
def test_a_row_that_diverges_is_said_and_keeps_no_other_from_the_table(
    tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    for again in (False, True):
        compare("digits", *small(DIVERGING), seeds=[3], out=tmp_path / "out", device="cpu")
        said, table = capsys.readouterr().out, (tmp_path / "out" / "table.md").read_text()
        assert table.count("| Wild ") == 2 and table.count("| SAT ") == 3
        assert re.search(r"\| Wild +\|(?: +– \|)+\n", table)
        assert re.search(
            r"Wild diverged \(seed 3, in epoch 1: the training loss is (nan|inf)", table
        )
        assert "– not measured" in said
        # It would diverge again.
        trained = [what for what, _ in commands.ran].count("train")
        assert trained == 3, again
    wild = Run.open(next((tmp_path / "out").glob("standard-*lr=*/seed3")))
    assert wild.diverged.exists() and not finished(wild)


@pytest.mark.usefixtures("undrawn")
def test_times_are_not_compared_to_a_standard_row_that_diverged(
    tmp_path: Path, commands: Commands
) -> None:
    rows = DIVERGING.replace("{label: Plain, method: {name: standard}},", "")
    compare("digits", *small(rows), out=tmp_path, device="cpu")
    table = (tmp_path / "table.md").read_text()
    assert "| method | seconds per epoch |\n" in table
    assert "Wild diverged" in table


def test_a_tuned_value_that_diverges_is_not_picked(tmp_path: Path, commands: Commands) -> None:
    rows = "[{label: T, method: {name: sat, steps: 2}, tune: {eps: [0.5, 1.0]}}]"
    (tuned,) = plan_runs(load_config("digits", small(rows)), [0], tmp_path)
    lost = tuned.candidates[0].runs[0]
    lost.diverged.write_text("in epoch 2: the training loss is nan\n")
    make_runs([tuned], **QUIET)
    assert [what for what, _ in commands.ran] == ["train", "judge", "evaluate"]
    assert tuned.chosen() is tuned.candidates[1]
    assert "eps 0.5 (diverged) and eps 1 (0." in tuned.remark()
    for candidate in tuned.candidates:
        candidate.runs[0].diverged.write_text("in epoch 1: the training loss is nan\n")
    assert tuned.title() == "T"
    remark = tuned.remark()
    assert remark.startswith("T diverged with every value that was tried (eps 0.5, seed 0, in ")
    assert "eps 1, seed 0, in epoch 1" in remark
    assert remark.endswith("delete sat-eps=0.5-steps=2 and sat-eps=1-steps=2.")
    make_runs([tuned], **QUIET)
    assert len(commands.ran) == 3


def test_a_comparison_of_which_every_row_diverges_says_so(
    tmp_path: Path, commands: Commands
) -> None:
    rows = f"[{{label: Wild, method: {{name: standard}}, {WILD}}}]"
    with pytest.raises(ValueError, match=r"no row has results: .*diverged\.txt"):
        compare("digits", *small(rows), out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / "table.md").exists()
    run = Run.open(next((tmp_path / "out").glob("*/seed0")))
    # A training that goes on forgets it.
    run.rewrite(load_config("digits", [*TINY, "method={name: standard}"]))
    commands.run(["", "", "", "train", "--resume", str(run.folder)], stdout=io.StringIO())
    assert finished(run) and not run.diverged.exists()


@pytest.mark.usefixtures("undrawn")
def test_one_value_to_tune_is_judged_too(
    tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "[{label: T, method: {name: sat, steps: 2}, tune: {eps: [0.5]}}]"
    compare("digits", *small(rows), out=tmp_path / "out", device="cpu")
    assert "picked the best of eps 0.5 (0." in (tmp_path / "out" / "table.md").read_text()
    assert "T (eps 0.5)" in capsys.readouterr().out
