"""The batches of an evaluation that are finished, on disk, so that a killed one continues.

JSON lines: the settings, then one line a batch. Every batch has noise of its own, so the batches
that are left come out as if nothing had happened. Of several processes each writes a file of its
own and reads all, so that another number of them can go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ima.evaluation.share import ALONE, Share, all_files
from ima.evaluation.watch import Counts
from ima.files import read_arrays, unwritable, write_text
from ima.tasks import Tree, leaves

T = TypeVar("T")

_FORMAT = "evaluation under way, 5"

PICTURES = ".npz"
"""What the name of a file of pictures beside a record ends in."""

EARLIER = tuple(f"evaluation under way, {number}" for number in (1, 2, 3, 4))
"""Formats whose batches lack what is recorded now; they are done again."""


@dataclass(frozen=True)
class Finished:
    """What came out of one batch. mark: of its samples; seconds: that it took.

    columns: its rows; counts: of what the model gave on the way.
    """

    mark: str
    seconds: float
    columns: Mapping[str, list[Any]]
    counts: Counts = field(default_factory=Counts)


class Partial:
    """The record in the file `path` of an evaluation with these settings.

    share: of the process that writes. batches: by number; those of other settings are dropped, and
    so are those after a line that was cut. Raises ValueError for a file that is no such record.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], share: Share = ALONE) -> None:
        self.first, self.share = Path(path), share
        self.path = share.file(self.first)
        self.batches = dict[int, Finished]()
        self.header = json.dumps({"format": _FORMAT, **settings})
        for file in all_files(self.first):
            lines = _lines(file)
            for line in lines[1:] if lines[:1] == [self.header] else ():
                batch = _batch(line)
                if batch is None:
                    break
                self.batches.setdefault(*batch)
        self._rewrite()

    def find(self, number: int, mark: str) -> Finished | None:
        """Batch number `number`, where it is there; without it and all later ones if it differs."""
        known = self.batches.get(number)
        if known is not None and known.mark != mark:
            self.batches = {at: one for at, one in self.batches.items() if at < number}
            self._rewrite()
        return self.batches.get(number)

    def add(self, number: int, batch: Finished) -> None:
        """Write one more batch; a line that is cut by a kill is not read again."""
        self.batches[number] = batch
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(number, batch))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def end(self, batches: Mapping[int, Finished]) -> None:
        """Leave one file with the batches of all processes; all of them must come here."""
        if self.share.leads and self.share.world > 1:
            self.batches = dict(batches)
            self._rewrite()
        self.share.gather(None)
        if self.share.leads:
            for file in all_files(self.first)[1:]:
                file.unlink(missing_ok=True)
        self.share.gather(None)

    def _rewrite(self) -> None:
        lines = (_line(number, self.batches[number]) for number in sorted(self.batches))
        write_text(self.path, self.header + "\n" + "".join(lines))


def key_of(path: Path) -> str:
    """The settings' line of the record at `path`; empty where there is none."""
    return (_lines(path) or [""])[0] if path.exists() else ""


def kept(record: str | Path | None) -> str:
    """What is left of an evaluation that ran out of time, in words."""
    if record is None:
        return "nothing is kept: pass partial=FILE next time"
    return f"what is finished is in {record}: run the same again to continue"


def read_beside(
    path: Path, kept_in: Callable[[Mapping[str, Any]], tuple[str, list[T]]]
) -> tuple[str, list[T]]:
    """Samples for pictures beside a record, and the record's key; none where there is no file.

    kept_in: makes both of the file's arrays. Raises ValueError for a damaged file.
    """
    if not path.exists():
        return "", []
    try:
        return kept_in(read_arrays(path))
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete it and the record beside it, "
            f"{path.with_suffix('').name}, and evaluate again"
        ) from error


def discard(record: Path) -> None:
    """Delete a record, and the samples for pictures beside it."""
    for path in (*all_files(record), *all_files(record, PICTURES)):
        path.unlink(missing_ok=True)


def batch_mark(x: Any, y: Tree) -> str:
    """A digest of two tensors or numbers, such as a batch's samples and labels.

    y: also a list of tensors, or a dict.
    """
    if isinstance(y, list | tuple | dict):
        return _digest({"x": x, **{f"y{i}": leaf for i, leaf in enumerate(leaves(y))}})
    return _digest({"x": x, "y": y})


def fingerprint(model: nn.Module) -> str:
    """A digest of a model's kind and weights."""
    if isinstance(model, torch.jit.ScriptModule) and not model.state_dict():
        # Frozen: its weights are constants of its code.
        code: Any = model.code_with_constants
        return _digest(dict(code[1].const_mapping), code[0])
    found = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    return _digest(found, type(model).__qualname__)


def _digest(tensors: Mapping[str, Any], more: str = "") -> str:
    digest = hashlib.blake2b(more.encode(), digest_size=16)
    for name, tensor in tensors.items():
        # Of a sharded model, whose processes must all come here.
        if hasattr(tensor, "full_tensor"):
            tensor = tensor.full_tensor()
        tensor = torch.as_tensor(tensor).detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        ours = json.loads(lines[0])["format"] in (_FORMAT, *EARLIER)
    except (ValueError, TypeError, LookupError):
        ours, lines = False, []
    if not ours:
        raise ValueError(
            f"{path} is no record of an evaluation that is under way; delete it, or name another "
            "file"
        )
    return lines[:-1]  # What follows the last line break was cut.


def _line(number: int, batch: Finished) -> str:
    return json.dumps({"number": number, **asdict(batch)}) + "\n"


def _batch(line: str) -> tuple[int, Finished] | None:
    try:
        found = json.loads(line)
        columns = {str(name): list(cells) for name, cells in found["columns"].items()}
        counts = Counts.of(found["counts"])
        batch = Finished(str(found["mark"]), float(found["seconds"]), columns, counts)
        return int(found["number"]), batch
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
