"""Sweeps, recipes of a row's own, time budgets of a comparison, times, and wide tables."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from subjects import evaluate_run
from test_compare import QUIET, TINY, Commands

import ima.training.children as children
import ima.training.compare as planning
from ima import Results
from ima.budget import OUT_OF_TIME, Budget, OutOfTime
from ima.cli import main
from ima.cli.compare import compare
from ima.evaluation.results import CLEAN, Row
from ima.evaluation.settings import Settings
from ima.report import Average, Table, to_csv, to_latex, to_markdown, to_text
from ima.report.comparison import Compared, Frame, _level, _pictures, _swept
from ima.report.fold import fold
from ima.report.series import sweep_lines
from ima.report.summary import counts, results_table, times_table
from ima.training.compare import RunPlan, make_runs, plan_runs, slug
from ima.training.config import load_config
from ima.training.config_errors import ConfigError
from ima.training.origin import comparable, made_by, recipes, seconds, untimed
from ima.training.rows import rows
from ima.training.run import JOBS, Run
from ima.training.settings import Config


def configured(compared: str, *more: str) -> Config:
    return load_config("digits", [*TINY, *more, f"compare={compared}"])


# --- Rows -----------------------------------------------------------------------------------------


def test_a_sweep_becomes_a_row_for_every_value_and_tuning_works_within() -> None:
    config = configured(
        "[{label: Plain, method: {name: standard}},"
        " {label: IMA, method: {name: ima, steps: 2}, sweep: {eps: [1, 3]},"
        "  tune: {delta: [0.5, 0.25]}}]"
    )
    found = rows(config)
    assert [row.title() for row in found] == ["Plain", "IMA (eps 1)", "IMA (eps 3)"]
    assert found[2].title({"delta": 0.25}) == "IMA (eps 3, delta 0.25)"
    options = [[c.method.options for c in row.candidates] for row in found]
    assert options[0] == [{}]
    for eps, tried in zip((1, 3), options[1:], strict=True):
        assert tried == [{"steps": 2, "eps": eps, "delta": delta} for delta in (0.5, 0.25)]


def test_two_swept_options_give_every_pair_a_row() -> None:
    config = configured(
        "[{label: I, method: {name: ima}, sweep: {eps: [1, 2], delta: [0.5, 0.25, 0.1]}}]"
    )
    assert [tuple(row.swept.values()) for row in rows(config)] == [
        (eps, delta) for eps in (1, 2) for delta in (0.5, 0.25, 0.1)
    ]


SAT = "{label: SAT, method: {name: sat, eps: 1.0}"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (f"{SAT}, sweep: {{eps: []}}}}", ["compare.0.sweep.eps", "empty"]),
        (f"{SAT}, sweep: {{eps: [1, 1.0]}}}}", ["compare.0.sweep.eps", "once"]),
        (f"{SAT}, sweep: {{esp: [1]}}}}", ["compare.0.method.esp", "compare.0.method.eps"]),
        (f"{SAT}, sweep: {{eps: [1, -1]}}}}", ["compare.0.method", "eps is -1"]),
        (f"{SAT}, sweep: {{eps: [1]}}, tune: {{eps: [2]}}}}", ["compare.0", "'eps'", "either"]),
        (f"{SAT}, sweep: {{eps: [1, 2]}}}}, {SAT}}}", ["'SAT'", "distinct"]),
        (
            f"{SAT}, sweep: {{eps: [1]}}}}, {SAT.replace('SAT', 'SAT (eps 1)')}}}",
            ["'SAT (eps 1)'", "distinct"],
        ),
        (f"{SAT}, train: {{epoch: 5}}}}", ["compare.0.train.epoch:", "compare.0.train.epochs"]),
        (f"{SAT}, train: {{epochs: 0}}}}", ["compare.0.train.epochs", "greater"]),
        (f"{SAT}, train: {{seed: 1}}}}", ["compare.0.train.seed", "--seeds"]),
        (f"{SAT}, train: {{standard_epochs: 9}}}}", ["compare.0.train.standard_epochs", "9", "2"]),
        (f"{SAT}, optimizer: {{name: adamm}}}}", ["compare.0.optimizer.name", "'adam'"]),
    ],
)
def test_a_row_that_cannot_be_is_refused_by_name(row: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(f"[{row}]")
    for word in words:
        assert word in str(caught.value)


def test_a_row_may_leave_the_shared_recipe_and_says_so(tmp_path: Path) -> None:
    config = configured(
        "[{label: A, method: {name: standard}},"
        " {label: B, method: {name: standard}, train: {epochs: 3, batch_size: 256},"
        "  optimizer: {milestones: [1, 2], schedule: steps}}]"
    )
    shared, own = plan_runs(config, [0], tmp_path)
    assert [p.candidates[0].runs[0].config().train.epochs for p in (shared, own)] == [2, 3]
    assert own.candidates[0].runs[0].config().optimizer.milestones == (1, 2)
    assert own.candidates[0].runs[0].config().optimizer.lr == config.optimizer.lr
    # batch_size is as shared, so it is no difference.
    folder = own.candidates[0].runs[0].folder.relative_to(tmp_path).parts[0]
    assert folder.startswith("standard-train.epochs=3-optimizer.")
    assert "batch_size" not in folder
    assert recipes([shared, own]) == [
        "B: train.epochs 3, optimizer.schedule steps, optimizer.milestones 1, 2"
    ]
    assert "unless named above" in made_by([shared, own], config, [0])
    assert "unless" not in made_by([shared], config, [0])
    seldom = config.train.model_copy(
        update={"standard_epochs": 1, "ema": 0.99, "precision": "bf16-mixed"}
    )
    told = made_by([shared], config.model_copy(update={"train": seldom}), [0])
    assert "2 epochs (the first 1 without noise), batches of 256" in told
    assert "averaged weights (decay 0.99), precision bf16-mixed, no augmentation" in told
    told = made_by([shared], config, [0, 1], ["evaluate.attacks=[pgd-1, ifgsm-1]"])
    assert "'evaluate.attacks=[pgd-1, ifgsm-1]' --seeds 0 1`" in told


def test_rows_of_one_recipe_share_their_runs_and_a_recipe_of_its_own_does_not(
    tmp_path: Path,
) -> None:
    compared = (
        "[{label: A, method: {name: sat, steps: 2}, sweep: {eps: [0.5, 1]}},"
        " {label: B, method: {name: sat, steps: 2, eps: 1.0}, train: {epochs: 2}},"
        " {label: C, method: {name: sat, steps: 2, eps: 1.0}, train: {epochs: 3}}]"
    )
    half, one, same, other = plan_runs(configured(compared), [0, 1], tmp_path)
    assert one.candidates[0].runs == same.candidates[0].runs
    folders = {p.candidates[0].runs[0].folder for p in (half, one, other)}
    assert len(folders) == 3
    assert slug(one.candidates[0].method) == "sat-eps=1-steps=2"


# --- A comparison with sweeps, from end to end ----------------------------------------------------

SWEPT = (
    "[{label: Plain, method: {name: standard}},"
    " {label: SAT, method: {name: sat, steps: 2}, sweep: {eps: [0.5, 1.0]}},"
    " {label: IMA, method: {name: ima, eps: 1.0, steps: 2}, sweep: {delta: [0.25, 0.5]},"
    "  train: {epochs: 1}}]"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config, list[Path]]:
    """A comparison with sweeps of two options, and the pictures that it drew."""
    folder, drawn = tmp_path_factory.mktemp("sweeps") / "out", list[Path]()
    evaluated = "evaluate={attacks: [pgd-1, ifgsm-1], last_attacks: [], eps: [0.5], samples: 100}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children, "run", Commands().run)
        patch.setattr("ima.report.figures.save", lambda _, path: drawn.append(path))
        with redirect_stdout(StringIO()):
            more = [*TINY, evaluated, f"compare={SWEPT}"]
            compare("digits", *more, seeds=[0, 1], out=folder, device="cpu")
    return folder, load_config("digits", more), drawn


Made = tuple[Path, Config, list[Path]]


def test_the_page_of_a_sweep_has_its_rows_pictures_sample_count_and_remarks(made: Made) -> None:
    folder, _, drawn = made
    with (folder / "table-best.csv").open(newline="") as file:
        best = {row["method"]: row for row in csv.DictReader(file)}
    labels = ["Plain", "SAT (eps 0.5)", "SAT (eps 1)", "IMA (delta 0.25)", "IMA (delta 0.5)"]
    assert list(best) == labels
    assert {path.name for path in drawn} >= {"sweep-eps.png", "sweep-delta.svg", "accuracy.png"}
    text = (folder / "table.md").read_text()
    # Both tables, and every picture that shows accuracies.
    pictures = len(re.findall(r"^!\[[^]]+\]\((?!margins)", text, re.MULTILINE))
    assert pictures >= 3
    assert len(re.findall("n = 100 of 540 test samples", text)) == 2 + pictures
    assert "IMA: train.epochs 1\n" in text
    with (folder / "times.csv").open(newline="") as file:
        times = list(csv.DictReader(file))
    assert [row["method"] for row in times] == labels
    assert times[0]["times Plain"] == "1.0"
    assert all(float(row["seconds per epoch"]) > 0 for row in times)
    assert "one run at a time" in text


def test_the_last_weights_meet_their_own_attacks_only(made: Made) -> None:
    folder, config, _ = made
    with (folder / "table-last.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["method", "clean mean", "clean std"]
    assert config.evaluate.attacks_on("best") == ("pgd-1", "ifgsm-1")
    assert config.evaluate.attacks_on("last") == ()
    run = Run.open(folder / "standard" / "seed0")
    assert Results.from_csv(run.results("last")).attacks == ()
    assert len(Results.from_csv(run.results("last")).rows) == 100
    assert planning.tested(run, "best") and planning.tested(run, "last")
    for lacking in ("best", "last"):
        table = run.results(lacking)
        kept = {path: path.read_bytes() for path in (table, table.with_suffix(".json"))}
        evaluate_run(run, lacking, attacks=["pgd-2"], eps=[0.1], device="cpu")
        assert not planning.tested(run, lacking)
        for path, content in kept.items():
            path.write_bytes(content)
        assert planning.tested(run, lacking)


def test_attacks_on_the_last_weights_are_those_on_the_best_unless_named() -> None:
    plain = configured("[]").evaluate
    assert plain.attacks_on("last") == plain.attacks_on("best") == plain.attacks
    with pytest.raises(ConfigError, match="pdg-1"):
        configured("[]", "evaluate.last_attacks=[pdg-1]")


def test_only_the_checkpoint_that_is_missing_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands()
    monkeypatch.setattr(children, "run", commands.run)
    plans = plan_runs(configured("[{label: A, method: {name: standard}}]"), [0], tmp_path)
    make_runs(plans, **QUIET)
    (run,) = plans[0].candidates[0].runs
    before = run.results("best").stat().st_mtime_ns
    run.results("last").unlink()
    commands.ran.clear()
    make_runs(plans, **QUIET)
    assert [what for what, _ in commands.ran] == ["evaluate"]
    assert run.results("last").exists()
    assert run.results("best").stat().st_mtime_ns == before


# --- Times ----------------------------------------------------------------------------------------


def timed(folder: Path, times: Sequence[Sequence[float]], **environment: Any) -> list[RunPlan]:
    """Plans of one row a sequence of epoch times, and where their runs were made."""
    entries = [
        "{label: A, method: {name: standard}}",
        "{label: B, method: {name: sat, eps: 1.0}, train: {standard_epochs: 1}}",
    ]
    plans = plan_runs(configured(f"[{', '.join(entries[: len(times)])}]"), [0], folder)
    for p, epochs in zip(plans, times, strict=True):
        (run,) = p.candidates[0].runs
        for epoch, took in enumerate(epochs):
            run.add_epoch({"epoch": epoch, "val_score": 0.5, "seconds": took})
        run.write_environment("cpu")
        if environment:
            path = run.folder / "environment.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **environment}))
    return plans


def test_times_are_of_the_methods_own_epochs(tmp_path: Path) -> None:
    plain, sat = timed(tmp_path, [[1.0, 3.0], [1.0, 9.0]])
    assert seconds(plain.chosen()) == [1.0, 3.0]
    assert seconds(sat.chosen()) == [9.0]


def test_times_of_runs_that_were_not_timed_are_unknown(tmp_path: Path) -> None:
    (plain,) = timed(tmp_path, [[1.0]])
    plain.candidates[0].runs[0].add_epoch({"epoch": 1, "val_score": 0.5})
    assert seconds(plain.chosen()) == []


def test_the_times_table_holds_medians_and_their_ratio_to_standard() -> None:
    found = times_table([("A", [1.0, 2.0, 9.0]), ("B", [28.0])], "A", "c")
    assert found.columns == ("method", "seconds per epoch", "times A")
    assert found.rows == (("A", "2.00", "1.0"), ("B", "28.0", "14.0"))
    alone = times_table([("B", [1234.0]), ("C", [0.01234])], "", "c")
    assert alone.rows == (("B", "1234"), ("C", "0.0123"))


def test_times_are_compared_on_one_machine_with_as_many_threads_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv(JOBS, "3")
    plans = timed(tmp_path, [[1.0], [2.0, 2.0]])
    said = comparable(plans)
    assert said is not None
    assert "OMP_NUM_THREADS 2" in said
    assert "up to 3 runs at a time" in said
    # The second run goes on with other threads: that is written down, and its times are mixed.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (run,) = plans[1].candidates[0].runs
    run.write_environment("cpu")
    assert [one["threads"] for one in run.environment()["resumed"]] == ["1"]
    assert run.environment()["threads"] == "2"
    assert comparable(plans) is None
    assert "different" in untimed(plans)[0]
    assert untimed(plans[:1]) == []
    assert comparable(plans[:1]) is not None
    before = (run.folder / "environment.json").read_bytes()
    run.write_environment("cpu")
    assert (run.folder / "environment.json").read_bytes() == before
    (plans[0].candidates[0].runs[0].folder / "environment.json").unlink()
    assert comparable(plans[:1]) is None


# --- Time budgets ---------------------------------------------------------------------------------


class Left(Budget):
    """A budget with a clock of its own: `take` uses it up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.remaining = seconds

    def left(self) -> float:
        return self.remaining


def test_runs_get_the_time_that_is_left_and_none_is_started_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget, ran = Left(100.0), list[list[str]]()

    def run(command: list[str], **options: Any) -> int:
        ran.append(command)
        budget.remaining -= 60.5
        return OUT_OF_TIME if len(ran) == 2 else 0

    monkeypatch.setattr(children, "run", run)
    plans = plan_runs(configured("[{label: A, method: {name: standard}}]"), [0, 1, 2], tmp_path)
    told: list[tuple[int, int]] = []
    with pytest.raises(OutOfTime, match="1 of 3 are done"):
        make_runs(
            plans,
            jobs=1,
            device="cpu",
            report=lambda _, done, total: told.append((done, total)),
            budget=budget,
        )
    assert [command[command.index("--time-budget") + 1] for command in ran] == ["100s", "39s"]
    assert told == [(1, 3)]


def test_runs_are_told_as_they_end_and_not_as_they_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = threading.Event()

    def run(command: list[str], **options: Any) -> int:
        if "seed0" in " ".join(command):
            assert short.wait(60)
        return 0

    def report(folder: str, done: int, total: int) -> None:
        told.append((Path(folder).name, done, total))
        short.set()

    monkeypatch.setattr(children, "run", run)
    told: list[tuple[str, int, int]] = []
    plans = plan_runs(configured("[{label: A, method: {name: standard}}]"), [0, 1], tmp_path)
    work = [
        [children.Work(str(run.folder), ("train", str(run.folder)), run.folder / "train.log")]
        for run in plans[0].candidates[0].runs
    ]
    children.work_off(work, jobs=2, environ=os.environ, budget=None, report=report)
    assert told == [("seed1", 1, 2), ("seed0", 2, 2)]


def test_a_run_that_fails_is_told_although_others_ran_out_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = iter([OUT_OF_TIME, 1])

    def run(command: list[str], **options: Any) -> int:
        options["stdout"].write("why\n")
        return next(codes)

    monkeypatch.setattr(children, "run", run)
    plans = plan_runs(configured("[{label: A, method: {name: standard}}]"), [0, 1], tmp_path)
    with pytest.raises(RuntimeError, match=r"seed1 failed[\s\S]*why") as caught:
        make_runs(plans, **QUIET, budget=Left(100.0))
    assert "seed0" not in str(caught.value)


def called(*words: str) -> tuple[int, str]:
    """Exit code and stderr of a command in this process."""
    text, code = StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens")
        patch.setattr(sys, "argv", ["ima", *words])
        with redirect_stdout(StringIO()), redirect_stderr(text):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
    return code, text.getvalue()


def test_a_comparison_that_is_out_of_time_says_how_to_continue_and_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["compare", "digits", *TINY, "compare=[{label: A, method: {name: standard}}]"]
    words += ["--out", str(tmp_path / "out"), "--device", "cpu"]

    def stop(command: list[str], **options: Any) -> int:
        return OUT_OF_TIME

    monkeypatch.setattr(children, "run", stop)
    code, said = called(*words, "--time-budget", "9m")
    assert code == OUT_OF_TIME == 75
    assert "same command continues" in said
    assert not (tmp_path / "out" / "table.md").exists()
    monkeypatch.setattr(children, "run", Commands().run)
    monkeypatch.setattr("ima.report.figures.save", lambda _, path: path.touch())
    with monkeypatch.context() as patch:
        patch.setattr(Budget, "over", lambda _: True)
        code, said = called(*words, "--time-budget", "9m")
    assert code == OUT_OF_TIME
    assert "all runs are done" in said
    assert not (tmp_path / "out" / "table.md").exists()
    assert called(*words, "--time-budget", "9m") == (0, "")
    assert (tmp_path / "out" / "table.md").exists()
    assert called(*words, "--time-budget", "soon")[0] == 1


# --- Lines over a swept option --------------------------------------------------------------------


def results(clean: int, noisy: Sequence[int], of: int = 10) -> Results:
    """Results of `of` samples, of which so many stand without noise, and at radii 1, 2, ..."""
    found: list[Row] = []
    for attack, eps, right in [(CLEAN, 0.0, clean), *(("a", i + 1.0, n) for i, n in _each(noisy))]:
        kind = "clean" if attack == CLEAN else "chosen"
        quality = [float(k < right) for k in range(of)]
        found += [Row(k, attack, eps, q, kind=kind) for k, q in enumerate(quality)]
    return Results.of(found, Settings(norm="L2", samples=of, total=of))


def _each(values: Sequence[int]) -> list[tuple[int, int]]:
    return list(enumerate(values))


def test_lines_over_an_option_are_means_over_seeds_at_its_values_in_order() -> None:
    seeds = {3.0: [results(8, [4, 1]), results(6, [2, 1])], 1.0: [results(9, [3, 0])] * 2}
    found = sweep_lines(list(seeds.items()), "a", mean=True)
    assert [one.label for one in found] == ["clean", "at 1", "at 2", "geometric mean"]
    for one in found:
        assert one.x.tolist() == [1.0, 3.0]
    clean, first, second, mean = (one.accuracy.tolist() for one in found)
    assert clean == pytest.approx([0.9, 0.7])
    assert first == pytest.approx([0.3, 0.3])
    assert second == pytest.approx([0.0, 0.1])
    # 0 at one radius makes the mean 0; else the cube roots of .8 * .4 * .1 and .6 * .2 * .1.
    assert mean == pytest.approx([0.0, (0.032 ** (1 / 3) + 0.012 ** (1 / 3)) / 2])
    assert found[0].std is not None
    assert found[0].std.tolist() == pytest.approx([0.0, 0.1 * np.sqrt(2)])
    assert len(sweep_lines(list(seeds.items()), "a", mean=False)) == 3


def entry(label: str, method: str, **swept: float) -> Compared:
    return Compared(label, [results(9, [5])], method=method, swept=swept)


@pytest.mark.parametrize("cap", [3.0, float("inf")])
def test_a_cap_is_drawn_where_there_is_one(cap: float) -> None:
    row = {"epoch": 0.0, "cap": cap, "median": 1.0, "0": 2.0, "1": 5.0, "2": 1.0}
    one = Compared("IMA", [results(9, [5])], margins=[row])
    figure = _pictures([one], Frame("x"))["margins"][0]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("cap" in text for text in texts) == np.isfinite(cap), texts


def test_a_picture_for_each_option_that_rows_sweep_alone() -> None:
    entries = [
        entry("Plain", "Plain"),
        *(entry(f"SAT {e}", "SAT", eps=e) for e in (1.0, 2.0)),
        *(entry(f"IMA {e}", "IMA", eps=e) for e in (1.0, 2.0, 3.0)),
        *(entry(f"I {d}", "I", delta=d) for d in (0.1, 0.2)),
        *(entry(f"both {d}", "both", delta=d, eps=1.0) for d in (0.1, 0.2)),
        entry("once", "once", beta=1.0),
    ]
    found = _swept(entries, "a")
    assert {option: list(methods) for option, methods in found.items()} == {
        "eps": ["SAT", "IMA"],
        "delta": ["I"],
    }
    assert [len(s.x) for s in found["eps"]["IMA"]] == [3, 3]
    assert [s.label for s in found["delta"]["I"]] == ["clean", "at 1", "geometric mean"]
    assert all(np.isnan(s.level) for s in found["eps"]["IMA"])
    # The last row without a sweep stands beside them, at its own values.
    level = _level(entries)
    assert level is not None
    assert level.label == "Plain"
    beside = _swept(entries, "a", level)["eps"]["IMA"]
    plain = results(9, [5])
    assert [s.level for s in beside] == pytest.approx([plain.mean(), plain.mean("a", 1.0)])
    assert _level([one for one in entries if one.swept]) is None


# --- Wide tables ----------------------------------------------------------------------------------


def wide(attacks: int, radii: int, seeds: int = 2) -> Table:
    """A table of results: three methods under so many attacks and radii."""
    names = [f"attack{a}-100" for a in range(attacks)]
    columns = ["method", "clean", *(f"{n} at {e}" for n in names for e in range(1, radii + 1))]
    measures = [
        [Average((7 * m + 3 * c) % 97 / 100, 0.011, seeds) for c in range(len(columns) - 1)]
        for m in range(3)
    ]
    body = tuple((f"method {m}", *cells) for m, cells in enumerate(measures))
    blocks = ("", *(n for n in names for _ in range(radii)))
    return Table(tuple(columns), body, "Caption.", blocks)


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+\.\d ± \d+\.\d", text)


@pytest.mark.parametrize(("attacks", "radii"), [(1, 3), (2, 3), (4, 3), (3, 7), (1, 12)])
def test_wide_tables_are_folded_and_lose_nothing(attacks: int, radii: int) -> None:
    table = wide(attacks, radii)
    text = to_text(table)
    assert max(map(cell_len, text.splitlines())) <= 100
    expected = [str(cell) for row in table.rows for cell in row[1:]]
    assert sorted(numbers(text)) == sorted(expected)
    for name in table.columns[1:]:
        assert len(re.findall(rf"{name}(?!\d)", text)) == 1
    assert text.count("Caption.") == 1
    heads = [line for line in text.splitlines() if line.startswith("method ")]
    shown = [line for line in heads if " at " in line]
    # A block a line: attacks never share one, and clean stands with the first.
    if len(shown) > 1:
        assert all(len(set(re.findall(r"attack\d", line))) == 1 for line in shown)
    assert "clean" in shown[0]

    markdown = to_markdown(table)
    widths = [line.count("|") - 2 for line in markdown.splitlines() if line.startswith("|")]
    assert max(widths) <= 8
    assert sorted(numbers(markdown)) == sorted(expected)
    for one in (to_csv(table), to_latex(table)):
        assert one.count("attack0-100 at 1 " if one.startswith("method") else "at 1 ") >= 1
    assert len(to_csv(table).splitlines()) == 4


def test_a_table_that_fits_is_not_folded() -> None:
    assert to_text(wide(1, 3)).count("method 0") == 1
    assert to_markdown(wide(2, 3)).count("method 0") == 1
    assert to_markdown(wide(3, 3)).count("method 0") == 3
    narrow = Table(("a", "b"), (("x", "y" * 300),), "")
    assert fold(narrow, lambda _: False) == [narrow]


def test_a_folded_table_keeps_its_best_values() -> None:
    table = wide(3, 3)
    assert to_markdown(table).count("**") // 2 == len(table.best())


def test_blocks_are_named_for_every_column_of_values() -> None:
    with pytest.raises(ValueError, match="blocks has 1 names, expected 2"):
        Table(("m", "a", "b"), (("x", "1", "2"),), "", ("a",))


def test_columns_of_numbers_as_text_stand_to_the_right() -> None:
    table = times_table([("A", [1.0]), ("10", [123.4])], "A", "c")
    lines = to_text(table).splitlines()
    assert len({len(line) for line in lines[4:]}) == 1
    assert to_markdown(table).splitlines()[3] == "|:---|---:|---:|"
    assert r"\begin{tabular}{lrr}" in to_latex(table)


def test_the_number_of_test_samples_stands_in_the_caption() -> None:
    plain = [("A", [results(5, [3])])]
    assert counts(plain) == "10 test samples"
    caption = results_table(plain, "Caption.").caption
    assert caption == "Noise in L₂, n = 10 test samples. Caption."

    def of(samples: int, total: int) -> tuple[str, list[Results]]:
        found = results(5, [3], samples)
        return str(samples), [Results(found.columns, found.settings.but(total=total))]

    assert counts([of(54, 54)]) == "54 test samples"
    assert counts([of(10, 54)]) == "10 of 54 test samples"
    both = [of(10, 54), of(54, 54)]
    assert counts(both) == "10 of 54 test samples or 54 test samples"
