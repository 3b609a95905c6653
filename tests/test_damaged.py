"""Every file of a run's folder, damaged in every way, given to every command that reads it.

A command works where it does not need the file, and else ends with a message that names it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from small_runs import CHECKS
from subjects import evaluate_run
from test_cli import Said, call
from test_training import Watch, new, npz, train

from ima.evaluation import minimal
from ima.evaluation.finders import FINDERS
from ima.report import figures

RUN = ("resume", "evaluate", "margins")

FILES = {
    "config.yaml": (*RUN, "report"),
    "environment.json": (*RUN, "report"),
    "metrics.csv": ("resume",),
    "margins.csv": ("resume", "margins", "report"),
    "best.safetensors": ("evaluate",),
    "last.safetensors": ("evaluate",),
    "state.safetensors": RUN,
    "init.safetensors": ("resume",),
    "diverged.txt": ("resume",),
    "flipped.csv": ("resume",),
    "evaluation/best.csv": ("report",),
    "evaluation/best.json": ("report",),
    "evaluation/last.csv": ("report",),
    "evaluation/last.json": ("report",),
    "evaluation/examples.npz": ("report",),
    "evaluation/distances.csv": ("report",),
    "evaluation/distances.json": ("report",),
    "evaluation/checks.json": ("report",),
    "evaluation/best.part": ("evaluate",),
    "evaluation/best.part.npz": ("evaluate",),
    "margins/margins.csv": ("margins",),
    "margins/atlas.npz": ("margins",),
}
"""By which commands a file is read, or written."""


def missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def torn(path: Path) -> None:
    """Its end is cut off, in the middle of a line."""
    path.write_bytes(path.read_bytes()[:-7])


def halved(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").touch()


def other_kind(path: Path) -> None:
    """What it holds is of another type."""
    kinds = {
        ".json": '{"resumed": 3, "trace": "x", "samples": [1], "checks": 4, "settings": "x"}',
        ".yaml": "name: [1]\nmethod: 3\ndata: x\n",
        ".csv": "epoch,cap\nx,y\n",
    }
    path.write_text(kinds.get(path.suffix, "3"))


def _lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    try:
        lines = path.read_text().splitlines(keepends=True)
    except UnicodeDecodeError:
        binary(path)
        return
    path.write_text("".join(change(lines)))


def last_row_twice(path: Path) -> None:
    _lines(path, lambda lines: [*lines, *lines[-1:]])


def a_row_missing(path: Path) -> None:
    _lines(path, lambda lines: lines[:-2] + lines[-1:])


def only_the_first_line(path: Path) -> None:
    _lines(path, lambda lines: lines[:1])


def rows_of_others(path: Path) -> None:
    """The last row is of a sample, or an epoch, that there is none of."""
    _lines(path, lambda lines: [*lines[:-1], "99999" + lines[-1][lines[-1].find(",") :]])


DAMAGES = (
    missing,
    empty,
    torn,
    halved,
    binary,
    folder,
    other_kind,
    last_row_twice,
    a_row_missing,
    only_the_first_line,
    rows_of_others,
)

COMMANDS = {
    "resume": ("train", "--resume", "RUN"),
    "evaluate": ("evaluate", "RUN"),
    "margins": ("margins", "RUN", "--samples", "3"),
    "report": ("report", "RUN", "--out", "OUT/report.md"),
}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """What is read and refused is tried, neither the attacks nor how pictures look."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minimal, "FINDERS", FINDERS[:1])
        patch.setattr(figures, "save", lambda _, path: Image.new("L", (8, 8)).save(path, "png"))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that a run can leave, two epochs of three trained."""
    place = tmp_path_factory.mktemp("made")
    data = f"data={{name: arrays, path: '{npz(place / 'data.npz', 60)}', flip: 0.02}}"
    start = train(new(place / "start", data, epochs=1))
    small = (data, "evaluate={attacks: [pgd-1], eps: [0.2, 0.4], batch_size: 10}")
    run = new(place / "run", *small, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=1), init=start.weights("best"))
    assert call("evaluate", str(run.folder), "--distances", "--device", "cpu").code == 0
    assert said("margins", run.folder).code == 0
    CHECKS.to_json(run.folder / "evaluation" / "checks.json")
    # What is under way stays, as after a kill.
    for which in ("best", "last"):
        evaluate_run(run, which, device="cpu")
    run.diverged.write_text("in epoch 3: its loss\n")
    return run.folder


CHANGED = ("its bytes are not those that best.json tells of", "evaluate the model again")

WORDS: dict[tuple[str, Callable[[Path], None], str], tuple[str, ...]] = {
    ("environment.json", torn, "report"): ("damaged", "Put back a whole one, or delete it"),
    ("environment.json", other_kind, "report"): ("damaged", "Put back a whole one, or delete it"),
    ("metrics.csv", empty, "resume"): ("holds no table: it is empty", "Put back a whole one"),
    ("metrics.csv", binary, "resume"): ("no text in UTF-8", "Put back a whole one"),
    ("margins.csv", empty, "report"): ("holds no table: it is empty", "Put back a whole one"),
    ("margins.csv", binary, "margins"): ("no text in UTF-8", "Put back a whole one"),
    **{
        ("evaluation/best.csv", damage, "report"): CHANGED for damage in (empty, binary, other_kind)
    },
    ("evaluation/best.csv", a_row_missing, "report"): CHANGED,
    ("evaluation/distances.csv", empty, "report"): (
        "not those that distances.json tells of",
        "measure the distances again",
    ),
}


@pytest.mark.parametrize("case", WORDS, ids=lambda case: f"{case[0]}-{case[1].__name__}-{case[2]}")
def test_a_damaged_file_is_told_in_plain_words_and_with_what_to_do(
    case: tuple[str, Callable[[Path], None], str], made: Path, tmp_path: Path
) -> None:
    name, damage, command = case
    shutil.copytree(made, tmp_path / "run")
    damage(tmp_path / "run" / name)
    end = said(command, tmp_path / "run")
    assert end.code == 1
    for word in (str(tmp_path / "run" / name), *WORDS[case]):
        assert word in end.err
    assert "codec" not in end.err and "unpack" not in end.err


def said(command: str, folder: Path) -> Said:
    words = [w.replace("RUN", str(folder)).replace("OUT", str(folder)) for w in COMMANDS[command]]
    return call(*words, *(() if command == "report" else ("--device", "cpu")))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_or_not_needed(
    name: str, damage: Callable[[Path], None], made: Path, tmp_path: Path
) -> None:
    for command in FILES[name]:
        place = tmp_path / command
        shutil.copytree(made, place)
        (place / name).touch()
        damage(place / name)
        end = said(command, place)
        assert "Traceback" not in end.err, end.err
        # What is not there may be told by what does not fit without it.
        named = str(place) if damage in (missing, folder) else Path(name).name
        assert end.code == 0 or named in end.err, (command, end)
