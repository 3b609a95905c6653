"""Downloads, from a server on this machine: what arrives whole is kept, nothing else."""

import errno
import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_cli import call
from test_data import elsewhere  # noqa: F401
from test_files import forbid

from ima.data import DATASETS
from ima.data.download import DOWNLOADS, DownloadRow, Original, fetch
from ima.training.config import load_config

CONTENT = {"/good.bin": b"whole and right" * 100_000, "/other.bin": b"another file"}


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, half of it under /cut, without a length under /chunks."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        how, _, name = self.path[1:].rpartition("/")
        body = CONTENT.get(f"/{name}")
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.close_connection = True
        if how.startswith("chunks"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            if how != "chunks-cut":
                self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if how == "cut" else body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def asked() -> list[str]:
    """The paths that the server was asked for."""
    return []


@pytest.fixture
def server(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Asked", (Handler,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def offer(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the table that are fetched from the server."""

    def original(path: str, content: bytes | None = None) -> Original:
        known = CONTENT[path[path.rindex("/") :]] if content is None else content
        return Original(server + path, hashlib.md5(known).hexdigest())

    for name, files in {
        "good": [original("/good.bin"), original("/other.bin")],
        "chunks": [original("/chunks/good.bin")],
        "wrong": [original("/good.bin"), original("/other.bin", b"as published")],
        "absent": [original("/nothing.bin", b"")],
        "cut": [original("/cut/good.bin")],
        "chunks-cut": [original("/chunks-cut/good.bin")],
    }.items():
        monkeypatch.setitem(DOWNLOADS, name, DownloadRow(name, tuple(files), "arrays"))


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()} if folder.exists() else {}


@pytest.mark.usefixtures("offer")
def test_files_arrive_whole_and_are_fetched_once(tmp_path: Path, asked: list[str]) -> None:
    told: list[tuple[str, int, int | None]] = []
    files = fetch("good", report=lambda file, done, total: told.append((file.name, done, total)))
    folder = tmp_path / "data" / "good"  # below IMA_DATA
    assert files == [folder / "good.bin", folder / "other.bin"]
    whole = {"good.bin": CONTENT["/good.bin"], "other.bin": CONTENT["/other.bin"]}
    assert contents(folder) == whole  # and nothing half-written beside them
    assert asked == ["/good.bin", "/other.bin"]
    assert told[-1] == ("other.bin", 12, 12)
    assert [done for name, done, _ in told if name == "good.bin"] == sorted(
        {done for name, done, _ in told if name == "good.bin"}
    )
    before = (folder / "good.bin").stat().st_mtime_ns
    (folder / "other.bin").unlink()
    assert fetch("good") == files
    assert asked[2:] == ["/other.bin"]
    assert (folder / "good.bin").stat().st_mtime_ns == before
    assert contents(folder) == whole
    assert fetch("chunks", tmp_path / "here") == [tmp_path / "here" / "good.bin"]
    assert contents(tmp_path / "here") == {"good.bin": CONTENT["/good.bin"]}


@pytest.mark.usefixtures("offer")
def test_a_row_can_name_the_folder_where_experiments_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = DOWNLOADS["pneumoniamnist"]
    assert load_config("pneumonia").data.path == f"{row.folder}/{row.files[0].name}"
    # As that row, but for its file, which is served here.
    monkeypatch.setitem(
        DOWNLOADS, "pneumoniamnist", replace(row, files=DOWNLOADS["good"].files[:1])
    )
    assert fetch("pneumoniamnist") == [tmp_path / "data" / "medmnist" / "good.bin"]
    here = fetch("pneumoniamnist", tmp_path / "here")
    assert here == [tmp_path / "here" / "good.bin"]


@pytest.mark.parametrize(
    ("name", "error", "message", "kept"),
    [
        ("wrong", ValueError, r"other.bin came with MD5 [0-9a-f]{32}, expected", ["good.bin"]),
        ("absent", OSError, r"nothing.bin could not be fetched \(HTTP Error 404", []),
        ("cut", OSError, r"good.bin was cut off after 750000 of 1500000 bytes", []),
        ("chunks-cut", OSError, r"good.bin could not be fetched \(.*Incomplete", []),
    ],
)
@pytest.mark.usefixtures("offer")
def test_what_does_not_arrive_whole_is_not_kept(
    name: str, error: type[Exception], message: str, kept: list[str], tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as raised:
        fetch(name, tmp_path / "to")
    assert sorted(contents(tmp_path / "to")) == kept
    last = DOWNLOADS[name].files[-1]
    for part in ("fetch it by hand", str(tmp_path / "to" / last.name), last.md5, last.url):
        assert part in str(raised.value)


@pytest.mark.usefixtures("offer")
def test_a_file_of_ones_own_is_never_overwritten(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "other.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"other.bin is there, but is not the published .* away"):
        fetch("good", tmp_path)
    assert (tmp_path / "other.bin").read_bytes() == b"mine"
    assert not (tmp_path / "good.bin").exists()
    assert asked == []
    with pytest.raises(ValueError, match="is a file; expected a folder"):
        fetch("good", tmp_path / "other.bin")


def test_without_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    row = DOWNLOADS["svhn"]
    nowhere = replace(row.files[0], url=f"http://127.0.0.1:{port}/train_32x32.mat")
    monkeypatch.setitem(DOWNLOADS, "svhn", replace(row, files=(nowhere,)))
    with pytest.raises(OSError, match=r"could not be fetched \(.*refused.*by hand") as raised:
        fetch("svhn", tmp_path)
    assert str(tmp_path / "train_32x32.mat") in str(raised.value)
    assert contents(tmp_path) == {}


def test_a_disk_that_is_full_leaves_nothing(
    server: str, offer: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("ima.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        fetch("good", tmp_path / "to")
    assert contents(tmp_path / "to") == {}


@pytest.mark.usefixtures("offer")
def test_a_disk_that_fills_up_is_not_taken_for_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, *_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", lambda *_: Full())
    full = r"good.bin cannot be written \(No space.*make room"
    with pytest.raises(OSError, match=full) as raised:
        fetch("good", tmp_path / "to")
    assert "fetched" not in str(raised.value)


@pytest.mark.usefixtures("offer")
def test_a_folder_made_for_nothing_is_removed_and_ones_own_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="could not be fetched"):
        fetch("absent")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(OSError, match="could not be fetched"):
        fetch("absent", tmp_path / "mine" / "new" / "er")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("urllib.request.urlopen", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch("good")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


@pytest.mark.parametrize(("asked_for", "nearest"), [("cifar-10", "cifar10"), ("SVHN", "svhn")])
def test_an_unknown_name_gets_the_nearest(asked_for: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"mean '{nearest}'\? There are: cifar10, svhn"):
        fetch(asked_for)


def test_checksums_are_the_published_ones() -> None:
    assert {file.name: file.md5 for row in DOWNLOADS.values() for file in row.files} == {
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        "pneumoniamnist.npz": "28209eda62fecd6e6a2d98b1501bb15f",
    }


def test_the_table_names_published_files_and_their_loaders() -> None:
    for name, row in DOWNLOADS.items():
        assert row.name == name
        assert row.loader in DATASETS
        for file in row.files:
            assert len(bytes.fromhex(file.md5)) == 16
            assert file.url.startswith(("https://", "http://"))
            assert file.name == Path(file.url).name
    for name in ("cifar10", "svhn"):
        assert f"ima data get {name}" in DATASETS[name].where
    # Where `fetch` puts them, the loaders look for them.
    from ima.data import cifar10, svhn

    assert DOWNLOADS["cifar10"].files[0].name in cifar10.ARCHIVES
    assert "cifar10" in cifar10.USUAL
    assert tuple(file.name for file in DOWNLOADS["svhn"].files) == svhn.FILES
    assert "svhn" in svhn.USUAL


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("offer")
def test_the_command_fetches_and_says_what_is_next(tmp_path: Path) -> None:
    said = call("data", "get", "good", "--folder", str(tmp_path / "to"))
    assert (said.code, said.err) == (0, "")
    assert sorted(contents(tmp_path / "to")) == ["good.bin", "other.bin"]
    assert str(tmp_path / "to" / "good.bin") in said.out
    assert f"next: data.name=arrays data.path={tmp_path / 'to'}" in said.out
    assert said.out.count("good.bin: ") <= 12
    said = call("data", "get", "cut")
    assert said.code == 1
    assert said.err.startswith("ima: http")
    assert "by hand" in said.err
    assert "Traceback" not in said.err
    assert contents(tmp_path / "data" / "cut") == {}
    said = call("data", "get", "goood")
    assert said.code == 1
    assert "did you mean 'good'" in said.err


@pytest.mark.usefixtures("offer")
def test_a_place_that_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file.txt").write_text("mine")
    said = call("data", "get", "good", "--folder", str(tmp_path / "file.txt" / "sub"))
    assert (said.code, said.out) == (1, "")
    assert f"ima: {tmp_path / 'file.txt' / 'sub'} cannot be written (Not a directory)" in said.err
    assert "a file is in the way" in said.err
    forbid(tmp_path / "ro", monkeypatch)
    said = call("data", "get", "good", "--folder", str(tmp_path / "ro" / "x"))
    assert said.code == 1
    assert f"ima: {tmp_path / 'ro' / 'x'} cannot be written (Permission denied); name" in said.err


def test_the_command_explains_itself() -> None:
    said = call("data", "get", "--help")
    assert (said.code, said.err) == (0, "")
    for name in DOWNLOADS:
        assert name in said.out
    assert "--folder" in said.out
    script = (
        "import sys\n"
        "from ima.cli import app\n"
        "try:\n"
        "    app(['data', 'get', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "sys.exit(' '.join({'torch', 'numpy', 'scipy'} & sys.modules.keys()) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, f"loaded: {done.stderr}"
