"""What is printed arrives on every output, and an output that is closed ends a command quietly."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import full

import ima.cli
from ima.cli import app, main
from ima.cli.streams import CLOSED, PLAIN, print_anywhere
from ima.evaluation.results import Results
from ima.report.summary import results_table
from ima.report.tables import to_text

TEXT = "accuracy ± 0.3 – L₂ and L∞, ε ≤ 1, 3 × 4, naïve 數"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
@pytest.mark.parametrize("errors", ["strict", "backslashreplace"])
def test_what_an_encoding_has_no_letter_for_is_written_plainly(
    encoding: str, errors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
    monkeypatch.setattr(sys, "stdout", out)
    print_anywhere()
    print(TEXT)
    out.flush()
    said = out.buffer.getvalue().decode(encoding)  # pyright: ignore[reportAttributeAccessIssue]
    assert said.isascii() or encoding != "ascii"
    if encoding == "utf-8":
        assert said == TEXT + "\n"
    else:
        assert "L2 and Linf, eps <= 1" in said and "\\u6578" in said
    monkeypatch.undo()


def test_every_letter_of_the_tables_has_a_plain_form() -> None:
    assert all(plain.isascii() for plain in PLAIN.values())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("words", [["list", "methods"], ["--help"], ["evaluate", "--help"]])
def test_a_command_prints_on_an_output_of_few_letters(words: list[str], encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ima", *words],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding)


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_a_report_and_its_tables_need_no_letters_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = full(tmp_path / "näive ₂")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    for form in ("html", "md", "json"):
        monkeypatch.setattr(
            sys, "argv", ["ima", "report", str(run), "--out", f"{tmp_path}/ä.{form}"]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        (tmp_path / f"ä.{form}").read_text(encoding="utf-8")
    results = Results.from_csv(run / "evaluation" / "best.csv")
    print(to_text(results_table([("best ±", [results])], "ε in L₂")))
    out.flush()
    monkeypatch.undo()


def test_an_output_that_is_closed_ends_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ima", "list", "methods"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(200) == CLOSED


def test_an_output_that_is_closed_while_it_is_printed_to_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise BrokenPipeError

    monkeypatch.setattr(ima.cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == CLOSED
    assert capsys.readouterr().err == ""
    assert app is not None


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_an_output_that_was_never_open_changes_nothing(closed: str) -> None:
    command = f'"$0" -m ima list methods {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("standard" in done.stdout) is (closed == "2>&-")


@pytest.mark.parametrize(
    ("word", "more", "advice"),
    [
        (os.fsencode("Käse"), {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "=1"),
        (b"K\xe4se", {"PYTHONUTF8": "1"}, "write it in UTF-8"),
    ],
)
def test_an_argument_that_is_no_text_is_refused_before_the_work(
    word: bytes, more: dict[str, str], advice: str, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "ima", "evaluate", "run", "--title", word]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, **more}, timeout=200, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "is no text in" in done.stderr and advice in done.stderr
    assert done.stderr.count("\n") == 1
    # The name of a file that is there may be any bytes.
    (tmp_path / os.fsdecode(word)).mkdir()
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, **more}, timeout=200, cwd=tmp_path
    )
    assert "is no text" not in done.stderr
