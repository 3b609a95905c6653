"""A run's folder may be a stranger's: code that its config names runs on the user's word only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from test_cli import Said, assert_refused, call
from test_compare import Commands
from test_locks import names
from test_training import new, train

import ima.training.children as children
from ima.training.config import load_config
from ima.training.run import Run
from ima.training.trust import UntrustedError

CODE = """
from pathlib import Path
from ima.networks.small_cnn import small_cnn

Path(__file__).with_name("ran").touch()


def net(channels: int, num_classes: int, *, width: int = 4):
    return small_cnn(channels, num_classes, width=width)
"""
NAME = "strangers_code:net"


class Stranger:
    """A trained run whose network is code of somebody else's, which tells when it runs."""

    def __init__(self, folder: Path, path: Callable[[str], None]) -> None:
        self.code = folder / "code"
        self.code.mkdir()
        (self.code / "strangers_code.py").write_text(CODE)
        path(str(self.code))
        self.run = new(folder / "run", f"network={{name: '{NAME}', width: 3}}", epochs=1)
        train(self.run)
        self.forget()

    def forget(self) -> None:
        sys.modules.pop("strangers_code", None)
        (self.code / "ran").unlink(missing_ok=True)

    @property
    def ran(self) -> bool:
        return (self.code / "ran").exists()


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stranger:
    return Stranger(tmp_path, monkeypatch.syspath_prepend)


ENTRANCES = {
    "train --resume": ("train", "--resume", "RUN"),
    "its config": ("train", "RUN/config.yaml", "--out", "OUT"),
    "its config compared": ("compare", "RUN/config.yaml", "--out", "OUT"),
    "evaluate": ("evaluate", "RUN"),
    "evaluate the last": ("evaluate", "RUN", "--checkpoint", "last", "--checks", "--distances"),
    "margins": ("margins", "RUN"),
}


def said(stranger: Stranger, words: tuple[str, ...], *more: str) -> Said:
    run = stranger.run.folder
    named = [w.replace("RUN", str(run)).replace("OUT", str(run.parent / "out")) for w in words]
    device = () if words[0] == "report" else ("--device", "cpu")
    return call(*named, *more, *device)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_strangers_code_does_not_run_and_the_error_says_which(
    entrance: str, stranger: Stranger
) -> None:
    before = names(stranger.run.folder)
    found = said(stranger, ENTRANCES[entrance])
    place = str(stranger.code / "strangers_code.py")
    assert_refused(
        found, [NAME, "width=3", place, "--trust", f"network.name={NAME}", "config.yaml"]
    )
    assert not stranger.ran
    assert (
        names(stranger.run.folder) == before and not (stranger.run.folder.parent / "out").exists()
    )


AGAIN = {
    "train --resume": (f"network.name={NAME}",),
    "its config": (f"network.name={NAME}",),
    "evaluate": ("--model", NAME),
    "margins": ("--model", NAME),
}


@pytest.mark.parametrize("word", ["--trust", "again"])
@pytest.mark.parametrize("entrance", AGAIN)
def test_it_runs_where_the_same_command_says_so(
    entrance: str, word: str, stranger: Stranger
) -> None:
    more = ("--trust",) if word == "--trust" else AGAIN[entrance]
    words = ENTRANCES[entrance]
    if entrance == "margins":
        more = (*more, "--samples", "3")
    assert said(stranger, words, *more).code == 0
    assert stranger.ran


def test_another_path_said_again_is_no_word_for_this_one(stranger: Stranger) -> None:
    for words, more, told in (
        (ENTRANCES["train --resume"], ("network.name=os:getcwd",), NAME),
        (ENTRANCES["train --resume"], ("network.width=3",), "no other settings"),
        (ENTRANCES["evaluate"], ("--model", "os:getcwd"), "names 'strangers_code:net'"),
        (ENTRANCES["margins"], ("--model", "small_cnn"), "names 'strangers_code:net'"),
    ):
        assert_refused(said(stranger, words, *more), [told])
    assert not stranger.ran


def test_the_run_whose_noise_is_tried_is_trusted_by_word_too(
    stranger: Stranger, tmp_path: Path
) -> None:
    own = train(new(tmp_path / "own", epochs=1))
    words = ("evaluate", str(own.folder), "--checks", "--transfer-from", "RUN")
    assert_refused(said(stranger, words), [NAME, "--trust"])
    assert not stranger.ran


@pytest.mark.parametrize(
    "name", ["torch.hub:load", "torch:load", "builtins:eval", "os:system", "strangers_code:net"]
)
def test_nothing_is_imported_to_tell_what_would_be(name: str, stranger: Stranger) -> None:
    path = stranger.run.folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["network"] = {"name": name, "repo_or_dir": "evil", "source": "local", "f": "x.pt"}
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(UntrustedError, match=f"would import {name.partition(':')[0]}"):
        Run.open(stranger.run.folder).config()
    assert not stranger.ran


def test_in_python_a_folder_is_opened_with_a_word_for_all_or_for_some(stranger: Stranger) -> None:
    folder = stranger.run.folder
    for trust in (False, (), ("os:system",)):
        with pytest.raises(UntrustedError):
            Run.open(folder, trust=trust).config()
    assert not stranger.ran
    for trust in (True, (NAME,)):
        assert Run.open(folder, trust=trust).config().network.name == NAME


def test_a_config_of_ones_own_names_what_it_likes(stranger: Stranger, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    shutil.copy(stranger.run.folder / "config.yaml", own)
    assert load_config(own).network.name == NAME
    assert stranger.ran


def test_a_report_runs_nothing(stranger: Stranger, tmp_path: Path) -> None:
    assert said(stranger, ("evaluate", "RUN"), "--trust").code == 0
    stranger.forget()
    assert call("report", str(stranger.run.folder), "--out", str(tmp_path / "r.html")).code == 0
    assert not stranger.ran


@pytest.mark.usefixtures("undrawn")
def test_a_comparison_trusts_its_own_runs_and_says_their_network_again(
    stranger: Stranger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands()
    monkeypatch.setattr(children, "run", commands.run)
    words = (
        "compare", "digits", f"network={{name: '{NAME}', width: 3}}",
        "train={epochs: 1, batch_size: 256}",
        "evaluate={attacks: [pgd-1], eps: [0.5], samples: 50}",
        "compare=[{label: A, method: {name: standard}}]",
        "--out", str(tmp_path / "table"), "--device", "cpu",
    )  # fmt: skip
    for _ in range(2):
        found = call(*words)
        assert found.code == 0, found
    assert [what for what, _ in commands.ran] == ["train", "evaluate"]
    # A stranger's run in its place is no run of this comparison.
    path = tmp_path / "table" / "standard" / "seed0" / "config.yaml"
    path.write_text(path.read_text().replace(NAME, "os:system"))
    assert_refused(call(*words), ["holds a run of other settings"])


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are empty files."""
    monkeypatch.setattr("ima.report.figures.save", lambda _, path: path.touch())


def test_commands_of_a_comparison_find_no_modules_in_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('a stranger was here')\n")
    script = (
        "import os, sys, threading\n"
        "from ima.training.processes import PROGRAM, run\n"
        "os.chdir(sys.argv[1])\n"
        "with open('log', 'w') as log:\n"
        "    sys.exit(run([*PROGRAM, 'list', 'configs'], stdout=log, env=os.environ,"
        " halt=threading.Event()))\n"
    )
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "script.py"
    file.write_text(script)
    assert subprocess.run([sys.executable, file, tmp_path], check=False).returncode == 0
    assert "digits" in (tmp_path / "log").read_text()
