"""Files of the versions before the format had a number: the settings as a first line of text.

# {"samples": "540 of 540", ...}          every value a text
id,label,attack,eps,prediction,...
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ima.evaluation.settings import EVERY_ENTRY, Settings
from ima.evaluation.values import check_kind, from_cell
from ima.measures import DICE

ColumnLists = dict[str, list[Any]]

CLASSES, SEGMENTS, DISTANCES, MARGINS = (
    ("id", "label", "attack", "eps", "prediction", "broken", "distance"),
    ("id", "case", "slice", "attack", "eps", "dice", "noise", "pixels", "present"),
    ("id", "label", "prediction", "distance", "attack"),
    ("id", "label", "true", "prediction", "margin", "distance", "attack"),
)
"""How the heads of such files begin."""


def is_earlier(path: Path) -> bool:
    """Whether a file is of a version before; False where there is none."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        first = file.readline(100_000)
        head = tuple((file.readline(10_000) if first.startswith("#") else first).strip().split(","))
    return first.startswith("#") or (head[: len(CLASSES)] == CLASSES and head[-1] == "norm")


def read_earlier(path: Path) -> tuple[ColumnLists, Settings]:
    """Columns and settings; ValueError for any other file."""
    with path.open(newline="", encoding="utf-8") as file:
        first = file.readline()
        told: dict[str, Any] = {}
        if first.startswith("#"):
            told = json.loads(first[1:])
        else:
            file.seek(0)
        header, *records = list(csv.reader(file)) or [[]]
    if not isinstance(told, dict):
        raise ValueError(f"its first line is {first[:60]!r}")
    head = tuple(header)
    for names, make in _READERS.items():
        if head[: len(names)] == names:
            if any(len(record) != len(head) for record in records):
                raise ValueError("a row has another number of cells than the head")
            cells = {name: [record[i] for record in records] for i, name in enumerate(head)}
            norms = dict.fromkeys(cells.get("norm", []))
            if len(norms) > 1:
                raise ValueError(f"its rows are of several norms: {', '.join(norms)}")
            return make(cells, told, next(iter(norms), ""))
    raise ValueError(
        f"its columns are {', '.join(header)[:80]!r}" if header else "it holds no table"
    )


def attack_kind(attack: str) -> str:
    """The kind of noise of an attack by its name; files did not say."""
    known = {"clean": "clean", "white": "white", "noise": "drawn", "worst case": "worst"}
    return known.get(attack, known.get(attack.partition("-")[0], "chosen"))


def earlier_settings(told: Mapping[str, Any], norm: str, attacks: Sequence[str] = ()) -> Settings:
    """Typed settings of those that were text."""
    left = {str(key): str(value) for key, value in told.items()}

    def take(key: str) -> str:
        return left.pop(key, "")

    had, _, total = take("samples").partition(" of ")
    number: Callable[[str], int | None] = lambda text: int(text) if text.isdecimal() else None  # noqa: E731
    low, _, high = (bounds := take("bounds")).partition(" to ")
    try:
        box: Any = (float(low), float(high)) if high else None
    except ValueError:
        box = None
    ran = {name: take(name) for name in attacks if name in left}
    # Of distances and checks they were named in one text.
    listed = [] if ran else [name for name in take("attacks").split(", ") if name]
    clean = take("clean accuracy")
    return Settings(
        norm=norm or take("norm"),
        bounds=bounds if bounds in ("none", EVERY_ENTRY) else box,  # pyright: ignore[reportArgumentType]
        attacks=ran or dict.fromkeys(listed, ""),
        eps=tuple(float(one) for one in (take("radii") or take("eps")).split(", ") if one),
        left_out=tuple(filter(None, [take("left out")])),
        samples=number(had),
        total=number(total.split(" ")[0]) if total else None,
        # Of checks: `3 of the 5 that the model has right`.
        right=number(total.removeprefix("the ").split(" ")[0]) if total[:4] == "the " else None,
        part=take("part") or "test",
        seed=number(take("seed")),
        seconds=float(take("seconds") or "nan") if "seconds" in left else None,
        classes=_listed(take("classes")),
        dimensions=number(take("dimensions")),
        network=take("network"),
        file=take("weights file"),
        label=take("trainer"),
        epoch=take("epoch"),
        picked=take("picked by"),
        data=take("dataset") or take("data"),
        data_digest=take("digest of the cases"),
        cases=take("test cases"),
        remarks=_listed(take("remarks")),
        weights=left["weights"] if left.get("weights") in ("best", "last") else "",
        about={**left, **({"clean accuracy": clean} if clean else {})},
    )


def _listed(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    try:
        found = json.loads(text)
    except ValueError:
        return (text,)
    return tuple(map(str, found)) if isinstance(found, list) else (text,)


def _classes(
    cells: dict[str, list[str]], told: dict[str, Any], norm: str
) -> tuple[ColumnLists, Settings]:
    if any(cell not in ("0", "1") for cell in cells["broken"]):
        raise ValueError("a cell of `broken` is neither 0 nor 1")
    found: ColumnLists = _rows(
        cells, [1.0 - int(cell) for cell in cells["broken"]], cells["distance"]
    )
    found["case"] = cells.get("case", [""] * len(found["id"]))
    return found | _said(cells), earlier_settings(told, norm, cells["attack"])


def _said(cells: Mapping[str, list[str]]) -> ColumnLists:
    """Labels and predictions, each of one kind."""
    found = {name: list(map(from_cell, cells[name])) for name in ("label", "prediction")}
    for name, values in found.items():
        check_kind(name, values)
    return found


def _segments(
    cells: dict[str, list[str]], told: dict[str, Any], norm: str
) -> tuple[ColumnLists, Settings]:
    found = _rows(cells, list(map(float, cells["dice"])), cells["noise"])
    found |= {"case": cells["case"], "slice": list(map(int, cells["slice"]))}
    # Noise that lowered nothing had a size too.
    rows = list(zip(*(found[name] for name in ("id", "kind", "quality", "size")), strict=True))
    clean = {id_: quality for id_, kind, quality, _ in rows if kind == "clean"}
    found["size"] = [
        math.nan if kind not in ("clean", "white") and quality >= clean.get(id_, 0) > 0 else size
        for id_, kind, quality, size in rows
    ]
    if max(found["slice"], default=-1) < 0 and cells["case"] == cells["id"]:
        # Nobody said the cases: each was called as its sample.
        found["case"] = [""] * len(cells["id"])
    found |= {name: list(map(int, cells[name])) for name in ("pixels", "present")}
    parts = [name for name in cells if name.startswith(DICE.column)]
    for name in parts:
        found[name] = [float(cell) if cell else math.nan for cell in cells[name]]
    classes = [name.removeprefix(DICE.column) for name in parts]
    return found, earlier_settings(
        {**told, "classes": json.dumps(classes)}, norm, cells["attack"]
    ).but(measure=DICE)


def _rows(cells: dict[str, list[str]], quality: list[float], size: list[str]) -> ColumnLists:
    return {
        "id": list(map(int, cells["id"])),
        "attack": cells["attack"],
        "kind": list(map(attack_kind, cells["attack"])),
        "eps": list(map(float, cells["eps"])),
        "quality": quality,
        "size": [
            0.0 if attack == "clean" else float(cell)
            for attack, cell in zip(cells["attack"], size, strict=True)
        ],
    }


def _distances(
    cells: dict[str, list[str]], told: dict[str, Any], norm: str
) -> tuple[ColumnLists, Settings]:
    found: ColumnLists = {
        "id": list(map(int, cells["id"])),
        **_said(cells),
        "distance": list(map(float, cells["distance"])),
        "attack": cells["attack"],
    }
    return found, earlier_settings(told, norm)


def _margins(
    cells: dict[str, list[str]], told: dict[str, Any], norm: str
) -> tuple[ColumnLists, Settings]:
    whole = {name: list(map(int, cells[name])) for name in ("id", "label", "true", "prediction")}
    numbers = {name: list(map(float, cells[name])) for name in ("margin", "distance")}
    known = earlier_settings(dict(told["settings"]), str(told["norm"]))
    classes = tuple(map(str, told["classes"]))
    known = known.but(cap=float(told["cap"]), classes=classes)
    return {**whole, **numbers, "attack": cells["attack"]}, known


_READERS: Mapping[tuple[str, ...], Callable[..., tuple[ColumnLists, Settings]]] = {
    CLASSES: _classes,
    SEGMENTS: _segments,
    MARGINS: _margins,
    DISTANCES: _distances,
}
