"""Weights as people have them: every usual layout loads, exactly what was meant, or is refused."""

from __future__ import annotations

import argparse
import datetime
import functools
import io
import json
import os
import pathlib
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import load_weights
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel

from ima.training.checkpoint import load_state, peek_state, save_state, save_weights
from ima.training.tensor_file import CheckpointError
from ima.training.weights import load_file


def net(seed: int, outputs: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), fc=nn.Linear(8, outputs))
    )


def weights(seed: int = 1) -> dict[str, Tensor]:
    model = net(seed)
    torch.nn.init.uniform_(model.get_buffer("norm.running_mean"))
    return model.state_dict()


def under(prefix: str, seed: int = 1) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights(seed).items()}


def adam() -> dict[str, Any]:
    model = net(1)
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


RAW = weights(1)
MODEL = net(0)


def lightning(**more: Any) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**under("model."), **more},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_score": torch.tensor(0.5)}},
        "optimizer_states": [adam()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "net": argparse.Namespace(width=3), "path": Path("/x")},
    }


def swa() -> dict[str, Tensor]:
    model = net(0)
    model.load_state_dict(RAW)
    return dict(AveragedModel(model).state_dict())


BESIDE: dict[str, Any] = {
    "namespace": argparse.Namespace(lr=0.1, nested=argparse.Namespace(a=[1])),
    "numpy scalar": np.float64(0.5),
    "numpy integer": np.int64(5),
    "numpy bool": np.bool_(True),
    "numpy array": np.arange(6.0).reshape(2, 3),
    "objects": np.array(["a", None], dtype=object),
    "random state": np.random.RandomState(0).get_state(),
    "time": datetime.datetime(2024, 1, 2),
    "delta": datetime.timedelta(1),
    "path": pathlib.PurePosixPath("/a/b"),
    "ordered": OrderedDict(a=1),
    "default": defaultdict(list, a=[1]),
    "dtype": torch.float16,
    "device": torch.device("cpu"),
    "size": torch.Size([1, 2]),
    "set": {1, 2},
    "frozen": frozenset((1, 2)),
    "complex": 1j,
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "slice": slice(1, 2),
    "range": range(3),
    "generator": torch.get_rng_state(),
    "function": torch.nn.functional.relu,
    "module class": nn.Linear,
    "criterion": nn.CrossEntropyLoss(),
    "metrics": {"val": [np.float32(1), None, float("nan")]},
}

LAYOUTS: dict[str, tuple[Any, str]] = {
    "plain": (RAW, "the top of the file, 9 tensors"),
    "ordered": (OrderedDict(RAW), "the top of the file"),
    **{
        key: ({key: RAW, "epoch": 3, "optimizer": adam()}, f"^{key}, 9 tensors$")
        for key in (
            *("model_state_dict", "net", "model", "state_dict", "network", "weights", "params"),
            *("network_weights", "module", "net_state_dict", "my_own_name"),
        )
    },
    **{
        f"prefix {prefix}": ({"state_dict": under(prefix)}, f"prefix {prefix!r} removed, 9")
        for prefix in (
            *("model.", "module.", "net.", "network.", "backbone.", "encoder.", "module.model."),
            *("model.net.module.", "anything.", "student."),
        )
    },
    "compiled": (under("_orig_mod."), "prefix '_orig_mod.' removed"),
    "compiled in parallel": (under("module._orig_mod."), "'module.' removed.*'_orig_mod.' removed"),
    "parallel compiled": (under("_orig_mod.module."), "'module.' removed.*'_orig_mod.' removed"),
    "compiled within": (
        {k.replace("conv.", "conv._orig_mod."): v for k, v in RAW.items()},
        "'_orig_mod.' removed",
    ),
    "fsdp": (under("_fsdp_wrapped_module."), "'_fsdp_wrapped_module.' removed"),
    "prefix at the top": (under("module."), "the top of the file, prefix 'module.' removed"),
    "deep": ({"state": {"agent": {"net": under("module.")}}}, "state.agent.net, prefix"),
    "lightning": (lightning(), "state_dict, prefix 'model.' removed, 9 tensors"),
    "lightning with a loss": (
        lightning(**{"loss_fn.weight": torch.ones(3), "criterion.ce.weight": torch.ones(3)}),
        "left out: loss_fn.weight, criterion.ce.weight",
    ),
    "a loss at the top": ({**RAW, "loss_fn.weight": torch.ones(3)}, "left out: loss_fn.weight"),
    "numbers among them": ({**RAW, "epoch": 3, "acc": 0.5}, "9 tensors"),
    "swa": (swa(), "prefix 'module.' removed, 9 tensors; these are averaged weights"),
    "swa beside": (
        {"model": RAW, "swa_model": under("module.", 2)},
        r"^model, .* averaged weights are in the file too \(swa_model",
    ),
    "ema beside": (
        {"state_dict": RAW, "state_dict_ema": weights(2)},
        r"^state_dict, .*too \(state_dict_ema\) and are not used",
    ),
    "ema first": ({"ema": weights(2), "model": RAW}, r"^model, .* too \(ema\)"),
    "ema alone": ({"ema_state_dict": RAW, "epoch": 1}, "^ema_state_dict, .*these are averaged"),
    "ema within": (
        lightning(**under("model_ema.", 2), **{"model_ema.decay": torch.tensor(0.9)}),
        r"^state_dict, prefix 'model.'.*averaged weights are in the file too",
    ),
    "ema with counters": (
        {"online_model.step": torch.tensor(3), **under("ema_model.", 2), **under("net.", 1)},
        "prefix 'net.' removed",
    ),
    "lightning's averages": (
        {
            "state_dict": under("model.", 2),
            "current_model_state": under("model."),
            "averaging_state": {"n_averaged": torch.tensor(3)},
        },
        "^current_model_state, .*too .state_dict",
    ),
    "twice the same": ({"model": RAW, "best_model": RAW}, "^model, "),
    "in parts": (
        {
            part: {k.removeprefix(f"{part}."): v for k, v in RAW.items() if k.startswith(part)}
            for part in ("conv", "norm", "fc")
        },
        "the top of the file, 9 tensors",
    ),
    "arrays": ({k: v.numpy() for k, v in RAW.items()}, "9 tensors"),
    "fortran arrays": ({k: v.numpy().copy("F") for k, v in RAW.items()}, "9 tensors"),
    "parameters": (
        {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in RAW.items()},
        "9 tensors",
    ),
    "no counts": ({k: v for k, v in RAW.items() if "num_batches" not in k}, "8 tensors"),
    "half": ({k: v.half() if v.is_floating_point() else v for k, v in RAW.items()}, "as float16"),
    "double": ({k: v.double() if v.is_floating_point() else v for k, v in RAW.items()}, "float64"),
    **{
        f"beside {name}": ({"model": RAW, "beside": value}, "^model, ")
        for name, value in BESIDE.items()
    },
}


def close(model: nn.Module, tolerance: float = 1e-3) -> bool:
    mine = model.state_dict()
    return all(torch.allclose(mine[k], v, atol=tolerance) for k, v in RAW.items())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_usual_layout_loads(layout: str, form: str, tmp_path: Path) -> None:
    content, words = LAYOUTS[layout]
    path, model = tmp_path / "my weights ä.pt", net(0)
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    told = load_file(model, path)
    assert close(model, 1e-3 if layout == "half" else 0), told
    assert re.search(words, told), told


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_pickles_of_tensors_and_arrays_load(protocol: int, tmp_path: Path) -> None:
    for number, content in enumerate((RAW, {k: v.numpy() for k, v in RAW.items()})):
        path, model = tmp_path / f"{number}.pkl", net(0)
        path.write_bytes(pickle.dumps({"model": content, "at": Path("/x")}, protocol=protocol))
        load_file(model, path)
        assert close(model, 0)


def test_arrays_that_python_2_wrote_load(tmp_path: Path) -> None:
    # Opcode by opcode, as no Python 3 writes it: the numbers are in a text.
    path = tmp_path / "w.pkl"
    path.write_bytes(
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"
        + np.float32([1, -2]).tobytes()
        + b"tbs."
    )
    assert load_weights(path)["w"].tolist() == [1, -2]


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_safetensors_load_with_a_prefix_and_under_any_name(prefix: str, tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.bin"):
        model = net(0)
        save_file(under(prefix), tmp_path / name, {"format": "pt", "digest": "of another kind"})
        load_file(model, tmp_path / name)
        assert close(model, 0)


def test_our_own_states_load(tmp_path: Path) -> None:
    path, model = tmp_path / "state.safetensors", net(0)
    average = under("module.", 2) | {"n_averaged": torch.tensor(2)}
    save_state(path, {"epoch": 1, "model": RAW, "average": average, "optimizer": adam()})
    told = load_file(model, path)
    assert close(model, 0)
    assert told.startswith("model, 9 tensors; averaged weights are in the file too (average")


def test_a_wrapped_network_takes_plain_weights(tmp_path: Path) -> None:
    torch.save(RAW, tmp_path / "w.pt")
    for model in (nn.Sequential(net(0)), nn.DataParallel(net(0))):
        told = load_file(model, tmp_path / "w.pt")
        assert all(torch.equal(v, RAW[k.partition(".")[2]]) for k, v in model.state_dict().items())
        assert "added" in told


def test_names_that_the_network_itself_translates_load(tmp_path: Path) -> None:
    old = torch.nn.utils.weight_norm
    with pytest.warns(FutureWarning):
        before = old(nn.Linear(2, 3))
    torch.save({"model": before.state_dict()}, tmp_path / "w.pt")
    model = weight_norm(nn.Linear(2, 3))
    load_file(model, tmp_path / "w.pt")
    name = "parametrizations.weight.original1"
    assert torch.equal(model.state_dict()[name], before.state_dict()["weight_v"])


def less(key: str) -> dict[str, Tensor]:
    return {k: v for k, v in RAW.items() if k != key}


UNFIT: dict[str, tuple[Any, list[str]]] = {
    "one is missing": (
        {"model": less("norm.running_var")},
        ["9 tensors it has 8 by name", "not in the file: norm.running_var"],
    ),
    "one is missing behind a prefix": (
        {"state_dict": {f"module.{k}": v for k, v in less("fc.bias").items()}},
        ["not in the file: fc.bias", "state_dict, prefix 'module.' removed"],
    ),
    "another shape": (
        {"model": net(1, outputs=5).state_dict()},
        ["fc.weight (float32 (5, 8) in the file, float32 (3, 8) in the network)"],
    ),
    "codes": (
        {k: (v * 9).to(torch.int8) if k == "fc.weight" else v for k, v in RAW.items()},
        ["fc.weight (int8 (3, 8) in the file"],
    ),
    "one more": ({**RAW, "head.weight": torch.ones(2)}, ["head.weight", "does not have"]),
    "one more behind the prefix": (
        {**under("model."), "model.head.weight": torch.ones(2)},
        ["head.weight", "does not have"],
    ),
    "one more beside the prefix": (
        {**under("model."), "mean": torch.ones(2)},
        ["mean", "does not have"],
    ),
    "two that fit": (
        {"student": RAW, "teacher": weights(2)},
        ["several sets", "student", "teacher"],
    ),
    "two prefixes that fit": (
        {**under("a.", 1), **under("b.", 2)},
        ["several sets", "'a.'", "'b.'"],
    ),
    "two averages": ({"ema_1": RAW, "ema_2": weights(2)}, ["several sets", "ema_1", "ema_2"]),
    "only the optimiser's": (
        {"optimizer": {"exp_avg": RAW}, "epoch": 1},
        ["does not fit this network"],
    ),
    "nothing alike": ({"a": torch.ones(2)}, ["none of the network's 9 names", "such as a"]),
    "no tensors": ({"lr": 0.1}, ["none of the network's", "lr (float)"]),
    "a list": ([1, 2], ["none of the network's"]),
    "a number": (3, ["none of the network's"]),
    "a tensor": (torch.ones(3), ["none of the network's"]),
    "a part of the names": ({"fc.weight": RAW["fc.weight"]}, ["has 1 by name"]),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_told(case: str, tmp_path: Path) -> None:
    content, words = UNFIT[case]
    path = tmp_path / "their weights.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        load_file(net(0), path)
    for word in ("their weights.pt does not fit this network", *words):
        assert word in str(caught.value), str(caught.value)


# --- What is no file of weights -------------------------------------------------------------------


def packed(name: str, content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content)

    return write


def compressed(path: Path) -> None:
    whole = io.BytesIO()
    torch.save({"w": torch.zeros(1 << 20)}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def written(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


OTHERS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "empty": (lambda path: path.touch(), "w.pt", "is damaged: it is empty"),
    "folder": (lambda path: path.mkdir(), "w.pt", "is a folder"),
    "whole network": (
        lambda path: torch.save(net(1), path),
        "w.pt",
        r"Sequential.*Save model.state_dict\(\)",
    ),
    "whole network under a key": (
        lambda path: torch.save({"model": net(1), "epoch": 1}, path),
        "w.pt",
        r"whole network.*Save model.state_dict\(\)",
    ),
    "keras": (written(b"\x89HDF\r\n\x1a\n" + bytes(99)), "w.h5", "an HDF5 file, as Keras"),
    "keras zip": (packed("model.weights.h5", b"x"), "w.keras", "Keras"),
    "onnx": (written(b"\x08\x07\x12\x07pytorch"), "w.onnx", "an ONNX file"),
    "tensorflow": (written(b"\x08\x01\x12"), "saved_model.pb", "TensorFlow"),
    "index": (
        written(b'{"metadata": {}, "weight_map": {}}'),
        "m.safetensors.index.json",
        "several",
    ),
    "gzip": (written(b"\x1f\x8b\x08" + bytes(99)), "w.pt.gz", "packed; unpack it"),
    "lfs": (written(b"version https://git-lfs.github.com/spec/v1\n"), "w.pt", "Git LFS"),
    "web page": (written(b"<!DOCTYPE html><html>"), "w.pt", "a web page"),
    "text": (written(b"hello there"), "w.pt", "is damaged"),
    "npz": (packed("w.npy", b"x"), "w.npz", "numpy"),
    "other zip": (packed("a.txt", b"x"), "w.pt", "a .zip without data.pkl"),
    "compressed": (compressed, "w.pt", "is compressed"),
    "json": (written(b'{"a": 1}'), "w.pt", "is damaged"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_no_file_of_weights_says_what_it_is(case: str, tmp_path: Path) -> None:
    write, name, words = OTHERS[case]
    write(tmp_path / name)
    with pytest.raises(CheckpointError, match=f"(?s){name}.*{words}"):
        load_file(net(0), tmp_path / name)


def test_torchscript_is_refused_and_not_run(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced: Any = torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))
        traced.save(str(tmp_path / "w.pt"))
    with pytest.raises(CheckpointError, match=r"w\.pt is a TorchScript archive"):
        load_file(nn.Linear(2, 2), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "new\nline.pt"])
def test_a_name_without_a_file_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_file(net(0), tmp_path / name)


def test_one_part_of_several_is_told(tmp_path: Path) -> None:
    save_file(less("fc.bias"), tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="one part of several"):
        load_file(net(0), tmp_path / "model-00001-of-00002.safetensors")


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_truncated_files_are_refused_by_name(form: str, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "cut.pt"
    torch.save({"model": RAW}, whole, _use_new_zipfile_serialization=form == "zip")
    content = whole.read_bytes()
    for length in range(1, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pt"):
            load_file(net(0), path)


def test_damaged_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for form in (True, False):
        torch.save(
            {"model": RAW, "a": [np.ones(3), Path("x")]},
            tmp_path / "w",
            _use_new_zipfile_serialization=form,
        )
        content = (tmp_path / "w").read_bytes()
        head = content.find(b"norm")
        for _ in range(60):
            damaged = bytearray(content)
            damaged[int(rng.integers(0, min(len(content), head + 2000)))] = int(rng.integers(256))
            (tmp_path / "d.pt").write_bytes(damaged)
            try:
                load_file(net(0), tmp_path / "d.pt")
            except CheckpointError as error:
                assert "d.pt" in str(error)


# --- Nothing executes -----------------------------------------------------------------------------


class Hostile:
    """Makes a folder when it is unpickled, by one of several ways."""

    def __init__(self, mark: Path, way: str) -> None:
        self.mark, self.way = mark, way

    def __reduce__(self) -> Any:
        mark = str(self.mark)
        return {
            "os": (os.mkdir, (mark,)),
            "eval": (eval, (f"__import__('os').mkdir({mark!r})",)),
            "path": (Path.mkdir, (Path(mark),)),
            "numpy": (np.save, (mark, np.ones(1))),
            "torch": (torch.save, (1, mark)),
            "partial": (functools.partial(os.mkdir, mark), ()),
            "getattr": (getattr(Path(mark), "mkdir"), ()),  # noqa: B009
            "state": (Target, (), {"mark": mark}),
            "items": (Target, (), None, None, iter([(mark, 1)])),
            "elements": (Target, (), None, iter([mark])),
        }[self.way]


class Target:
    """Acts on whatever a pickle can do to an object."""

    def __init__(self, *arguments: Any) -> None:
        self.act(arguments)

    def act(self, value: Any) -> None:
        raise SystemExit(f"executed: {value}")

    __setstate__ = __setitem__ = append = extend = act  # type: ignore[assignment]


WAYS = ("os", "eval", "path", "numpy", "torch", "partial", "getattr", "state", "items", "elements")

PLACES: dict[str, Callable[[Any], Any]] = {
    "top": lambda evil: evil,
    "first": lambda evil: {"evil": evil, **RAW},
    "last": lambda evil: {**RAW, "evil": evil},
    "beside": lambda evil: {"model": RAW, "args": evil},
    "deep": lambda evil: {"model": RAW, "args": [({"a": evil},)]},
    "key": lambda evil: {"model": RAW, evil: 1},
    "in a list": lambda evil: [RAW, evil],
    "in a set": lambda evil: {"model": RAW, "s": {evil}},
    "in a namespace": lambda evil: {"model": RAW, "args": argparse.Namespace(a=evil)},
    "in an array": lambda evil: {"model": RAW, "a": np.array([evil, 1], dtype=object)},
    "in an ordered dict": lambda evil: {"model": OrderedDict([*RAW.items(), ("evil", evil)])},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 0", "pickle 2", "pickle 5"])
def test_nothing_executes_wherever_it_stands(way: str, form: str, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for place, put in PLACES.items():
        path, content = tmp_path / "w.pt", put(Hostile(mark, way))
        if form.startswith("pickle"):
            path.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
        model = net(0)
        try:
            load_file(model, path)
        except CheckpointError as error:
            assert "w.pt" in str(error)
        else:
            # Objects beside the weights do no harm: the weights are those that were meant.
            assert close(model, 0), place
        assert not mark.exists(), (place, way)
        assert not mark.with_suffix(".npy").exists(), (place, way)


INSTRUCTIONS: dict[str, bytes] = {
    "INST": b"(S'x'\nios\nmkdir\n.",
    "OBJ": b"(cos\nmkdir\nS'x'\no.",
    "NEWOBJ": b"cos\nmkdir\n(S'x'\ntR.",
    "BUILD on a class": b"ctorch.nn\nModule\n}(S'forward'\nS'x'\nub.",
    "BUILD on a function": b"ccollections\nOrderedDict\n}(S'x'\nS'x'\nub.",
    "EXT": b"\x82\x01.",
    "deep tuple as a key": b"\x80\x02}" + b")" + b"\x85" * 20_000 + b"K\x01s.",
    "deep list": b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
    "list of itself": b"\x80\x02]q\x00(" + b"h\x00" * 9 + b"e.",
    "far memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "long text": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "no stack": b"\x80\x02R.",
    "nothing": b"\x80\x02.",
    "persistent": b"Pmodule\n.",
    "no end": b"\x80\x02N",
    "storage without numbers": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nNNNtQ.",
    "numbers in bytes": b"ctorch.storage\n_load_from_bytes\n(S'x'\ntR.",
}


@pytest.mark.parametrize("case", INSTRUCTIONS)
def test_instructions_made_by_hand_do_nothing(case: str, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(INSTRUCTIONS[case])
    with pytest.raises(CheckpointError, match=r"w\.pt"):
        load_file(net(0), tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("archive/data.pkl", INSTRUCTIONS[case])
    with pytest.raises(CheckpointError, match=r"w\.pt"):
        load_file(net(0), tmp_path / "w.pt")


def test_what_acts_is_named(tmp_path: Path) -> None:
    torch.save({"model": RAW, "evil": Hostile(tmp_path / "x", "os")}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"w\.pt asks for (posix|nt)\.mkdir, which no file"):
        load_file(net(0), tmp_path / "w.pt")


def test_a_tensor_that_ends_behind_its_numbers_is_refused(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save({"model": RAW}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / "w.pt", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:4] if "/data/" in name else content)
    with pytest.raises(CheckpointError, match=r"w\.pt is damaged: 4 bytes stand where"):
        load_file(net(0), tmp_path / "w.pt")


# --- Checksums ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["weights", "state"])
def test_a_flipped_bit_anywhere_is_noticed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    small = {"w": torch.arange(6.0), "n": torch.tensor(3)}
    if kind == "weights":
        save_weights(path, small, "Started from the weights w.pt.")
    else:
        save_state(path, {"epoch": 3, "model": small, "method": {"margins": [torch.ones(2)]}})
    content = path.read_bytes()
    read = load_weights if kind == "weights" else load_state
    assert_equal(read(path), read(path))
    unnoticed: list[int] = []
    numbers = 8 * (len(content) - 24)
    # Some bits of what stands before the numbers, and all of theirs.
    for at in (*range(0, numbers, 29), *range(numbers, 8 * len(content))):
        damaged = bytearray(content)
        damaged[at // 8] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        try:
            read(path)
        except CheckpointError as error:
            assert "f.safetensors" in str(error)
        else:
            unnoticed.append(at // 8)
    # What is left is the checksum's own name: a file without one counts as old.
    for at in unnoticed:
        assert b"ima_" in content[max(0, at - 20) : at + 20], content[max(0, at - 20) : at + 20]


def assert_equal(one: Any, other: Any) -> None:
    assert repr(one) == repr(other)


def test_the_error_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_weights(path, RAW)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for read in (load_weights, lambda path: load_file(net(0), path)):
        with pytest.raises(CheckpointError, match=r"best\.safetensors is damaged: .*Put a copy"):
            read(path)


def test_the_epoch_of_a_state_has_a_checksum_too(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, {"epoch": 3, "model": RAW})
    content = path.read_bytes().replace(b'[\\"epoch\\", 3]', b'[\\"epoch\\", 2]')
    assert content != path.read_bytes()
    path.write_bytes(content)
    for read in (load_state, lambda path: peek_state(path, "epoch")):
        with pytest.raises(CheckpointError, match="checksum"):
            read(path)


def test_files_of_before_have_no_checksum_and_load(tmp_path: Path) -> None:
    save_file(RAW, tmp_path / "best.safetensors")
    assert load_weights(tmp_path / "best.safetensors").keys() == RAW.keys()
    tree = json.dumps({"dict": [["epoch", 3], ["model", {"dict": [["w", {"tensor": "0"}]]}]]})
    save_file({"0": torch.ones(2)}, tmp_path / "state.safetensors", {"tree": tree})
    assert load_state(tmp_path / "state.safetensors")["epoch"] == 3
    assert peek_state(tmp_path / "state.safetensors", "epoch") == 3


@pytest.mark.parametrize(
    "tree",
    [
        "[" * 5000,
        "{",
        "3",
        '{"dict": 3}',
        '{"dict": [["a", {"tensor": "absent"}]]}',
        '{"list": []}',
    ],
)
def test_odd_trees_are_refused_by_name(tree: str, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_file({"0": torch.ones(2)}, path, {"tree": tree})
    for read in (load_state, load_weights, lambda path: peek_state(path, "epoch")):
        with pytest.raises(CheckpointError, match=r"s\.safetensors"):
            read(path)
