"""Files appear whole or not at all, with nothing left beside them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ima import files
from ima.files import (
    make_folder,
    read_arrays,
    read_json,
    whole,
    write_arrays,
    write_text,
)
from ima.training.lock import Lock


def forbid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no folder be made at this place or in it, for root neither."""
    really = os.mkdir

    def mkdir(path: str | Path, *arguments: int) -> None:
        if folder in (Path(path), *Path(path).parents):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        really(path, *arguments)

    monkeypatch.setattr(os, "mkdir", mkdir)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_at_the_end_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "a.txt"
    with whole(path) as beside:
        beside.write_text("new")
        assert beside.parent == path.parent and not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def stop_half_way(path: Path, error: type[BaseException]) -> None:
    with whole(path) as beside:
        beside.write_text("ne")
        raise error("half way")


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_beside_it(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error, match="half way"):
        stop_half_way(path, error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_error_before_anything_is_written_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at once"), whole(tmp_path / "a.txt"):
        raise ValueError("at once")
    assert names(tmp_path) == []


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    write_text(tmp_path / "a.txt", "old")
    with monkeypatch.context() as patch:
        patch.setattr("ima.files.os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "ε ≤ 0.5\n")
    assert (tmp_path / "new" / "a.txt").read_bytes().decode("utf-8") == "ε ≤ 0.5\n"


@pytest.mark.parametrize("name", ["a.npz", "a", "a.part"])
def test_arrays_come_back_from_a_file_of_exactly_this_name(name: str, tmp_path: Path) -> None:
    arrays = {
        "image": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        "id": np.array([3, 1]),
        "attack": np.array(["pgd-2", "é"]),
        "empty": np.zeros((0, 4)),
        "one": np.array(float("nan")),
    }
    write_arrays(tmp_path / "new" / name, arrays)
    assert names(tmp_path / "new") == [name]
    with np.load(tmp_path / "new" / name, allow_pickle=False) as file:
        assert file.files == list(arrays)
        for key, array in arrays.items():
            assert file[key].dtype == array.dtype
            np.testing.assert_array_equal(file[key], array)


def test_objects_are_no_arrays_and_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, {"id": np.arange(3)})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(path, {"id": np.array([object()])})
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a.npz"]


# --- Places that cannot be written to -------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("mine")
    for folder in (tmp_path / "a.txt", tmp_path / "a.txt" / "sub"):
        with pytest.raises((FileExistsError, NotADirectoryError), match="a file is in the") as told:
            make_folder(folder)
        assert str(folder) in str(told.value)
    with pytest.raises(IsADirectoryError, match="a folder is in the way"):
        write_text(tmp_path, "new")
    forbid(tmp_path / "ro", monkeypatch)
    with pytest.raises(PermissionError, match=r"ro/x cannot be written \(Permission denied\)"):
        write_text(tmp_path / "ro" / "x" / "b.txt", "new")
    assert names(tmp_path) == ["a.txt"]


def fail(path: Path, number: int, *, about: str | None = None) -> None:
    with whole(path) as beside:
        beside.write_text("ne")
        raise OSError(number, os.strerror(number), str(beside) if about is None else about)


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (errno.EACCES, PermissionError, r"a.txt cannot be written \(Permission denied\); name a"),
        (errno.EROFS, OSError, r"a.txt cannot be written \(Read-only file system\); name a"),
        (errno.ENOSPC, OSError, r"a.txt cannot be written \(No space left on device\); make"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_with_what_to_do(
    number: int, kind: type[OSError], told: str, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(kind, match=told):
        fail(tmp_path / "a.txt", number)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_errors_about_other_files_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: 'other'$"):
        fail(tmp_path / "a.txt", errno.ENOENT, about="other")


def nobody() -> int:
    """The number of a process that does not run any more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_is_deleted_with_the_next_write(tmp_path: Path) -> None:
    path, dead = tmp_path / "a.txt", nobody()
    left = [f"a.txt.{dead}.part", f"a.txt.{files._HOST}.{dead}.part"]
    kept = [
        f"a.txt.{os.getppid()}.part",  # Of one that runs.
        f"a.txt.deadbeef.{dead}.part",  # Of another machine.
        f"b.txt.{dead}.part",  # Of another file: swept with it, or by its lock.
        "a.part",
        "a.txt.part",
        "a.txt.0.part",
    ]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    write_text(path, "whole")
    gone = {"a.txt.0.part"}
    assert set(names(tmp_path)) == {"a.txt", *kept} - gone


@pytest.mark.parametrize("run", [True, False])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_what_a_killed_command_left_is_deleted_when_a_command_starts(
    command: str, run: bool, tmp_path: Path
) -> None:
    dead = nobody()
    if run:
        (tmp_path / "config.yaml").touch()
    for place in (tmp_path, tmp_path / "evaluation", tmp_path / "margins"):
        place.mkdir(exist_ok=True)
        (place / f"x [1].safetensors.{dead}.part").touch()
        (place / f"x.{os.getppid()}.part").touch()
        (place / "best.part").touch()
    with Lock(tmp_path, command) as lock:
        lock.take()
    left = [path.parent for path in tmp_path.rglob(f"*.{dead}.part")]
    # Where weights from elsewhere are evaluated, the folder around is their owner's.
    assert left == ([] if run or command == "train" else [tmp_path])
    for kept in ("best.part", f"x.{os.getppid()}.part"):
        assert len(list(tmp_path.rglob(kept))) == 3


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[1]", r"it is \[1\]; input should be a valid dictionary"),
        ('{"a": ["x"]}', "a.0 is 'x'; input should be a valid integer"),
        ('{"a": [1.5]}', "a.0 is 1.5; input should be a valid integer"),
        ('{"a": [true]}', "a.0 is True; input should be a valid integer"),
    ],
)
def test_json_of_another_kind_is_refused_by_the_place_in_it(
    text: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^{path} is damaged: {what}[^_]*$"):
        read_json(path, dict[str, list[int]])
    with pytest.raises(ValueError, match=r"^the header is damaged"):
        read_json(path, dict[str, list[int]], shown="the header")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"^the header is damaged, or no text in JSON"):
        read_json(path, shown="the header")
    path.write_text('{"a": [1, 2], "b": []}')
    assert read_json(path, dict[str, list[int]]) == {"a": [1, 2], "b": []}


def test_a_write_that_is_killed_leaves_what_the_next_one_deletes(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from ima.files import whole\n"
        "with whole(Path(sys.argv[1])) as beside:\n"
        "    beside.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.txt"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", script, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2 and path.read_text() == "old"
    write_text(path, "new")
    assert names(tmp_path) == ["a.txt"]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content, read, told in (
        (b"\xff\xfe\x00", read_json, "no text"),
        (b"", read_json, "Expecting value"),
        (b'{"a": 1', read_json, "Expecting"),
        (b"[1]", read_json, "holds list, expected dict"),
        (b"[" * 100_000, read_json, "damaged"),
        (b"", read_arrays, "damaged"),
        (b"PK\x03\x04 and so on", read_arrays, "damaged"),
        (b"\x80\x04.", read_arrays, "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=told) as caught:
            read(path)
        assert str(path) in str(caught.value)
    path.unlink()
    path.mkdir()
    for read in (read_json, read_arrays):
        with pytest.raises(OSError, match=str(path)):
            read(path)


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"x\.npz is damaged"):
        read_arrays(tmp_path / "x.npz")


def test_a_name_of_a_folder_holds_on_any_system() -> None:
    assert files.folder_name("digits-my.code:Ramp-seed0") == "digits-my.code_Ramp-seed0"
    assert files.folder_name("a/b c") == "a_bc"
