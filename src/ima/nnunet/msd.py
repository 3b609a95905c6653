"""Medical Segmentation Decathlon data as the paper divides it, in nnU-Net's raw format.

A. L. Simpson et al., "A large annotated medical image dataset for the development and evaluation of
segmentation algorithms", arXiv:1902.09063; M. Antonelli et al., "The Medical Segmentation
Decathlon", Nature Communications 13, 4128 (2022). http://medicaldecathlon.com

    names = sorted(labelled cases)
    train, val, test = the paper's counts of default_rng(seed).permutation(names)
    imagesTr, labelsTr = train and val     (fold 0 of splits_final.json tells them apart)
    imagesTs, labelsTs = test
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ima.data.find import data_root
from ima.files import read_json, write_text
from ima.nnunet.decathlon import ENDING, Case, CaseSource, at_source, cases, copy_case
from ima.nnunet.paper import PAPER_TASKS, PaperTask

_WHERE = (
    "Get it from http://medicaldecathlon.com (CC BY-SA 4.0), as a .tar or unpacked; the folder "
    "holds dataset.json, imagesTr and labelsTr."
)


def locate_task(task: PaperTask, path: Path | None) -> Path:
    """`path`, else the task's folder or .tar in IMA_DATA; FileNotFoundError that says where."""
    if path is not None:
        return path
    names = (task.name, f"{task.name}.tar", f"msd-{task.title.lower()}", "msd", "MSD")
    places = [data_root() / name for name in names]
    for place in places:
        if place.is_file() or (place / "dataset.json").exists() or (place / task.name).is_dir():
            return place
    raise FileNotFoundError(
        f"{task.name} was not found. Looked for: {', '.join(str(p.absolute()) for p in places)}. "
        f"{_WHERE} Then name it, or put it into the folder that IMA_DATA names"
    )


def prepare_msd(
    task: PaperTask,
    source: Path,
    raw: Path,
    *,
    seed: int = 0,
    number: int | None = None,
    train_cases: int | None = None,
) -> Path:
    """Write a Decathlon task as a data set of nnU-Net's raw format; its folder.

    source: the task's folder, a folder that holds it, or its .tar; raw: nnU-Net's folder for such
    data; number: of the data set, the task's own if None; train_cases: only so many of the training
    cases, for a small experiment with the same test cases. The seed divides the cases: imagesTr and
    labelsTr hold training and validation, imagesTs and labelsTs the test cases; splits_final.json
    has one fold, and ima_split.json all three lists. Images of one channel and all labels are
    copied byte by byte. A data set that is there already, of the same split, is kept as it is.

    Raises `FileNotFoundError` for missing files, `ValueError` for another archive, damaged or
    contradictory files, and where the folder or the number is taken; nothing is left behind then.
    """
    if seed < 0:
        raise ValueError(f"the seed is {seed}; expected 0 or more")
    if train_cases is not None and not 1 <= train_cases <= task.split[0]:
        raise ValueError(
            f"{train_cases} training cases were asked for; {task.name} has {task.split[0]}: "
            f"expected 1 to {task.split[0]}"
        )
    target = raw / task.dataset(number)
    _number_is_free(target)
    with at_source(source, task.name) as opened:
        _is_the_task(task, opened)
        found = cases(opened, channels=len(task.channels))
        if len(found) != sum(task.split):
            raise ValueError(
                f"{source} has {len(found)} labelled cases; {task.name} has {sum(task.split)}, "
                "which the paper divides into {} for training, {} for validation and {} for "
                "test".format(*task.split)
            )
        roles = divide(sorted(found), task.split, seed, train_cases)
        told = {"task": task.name, "seed": seed, **roles}
        if target.exists():
            _same(target, told)
            return target
        raw.mkdir(parents=True, exist_ok=True)
        # With a leading dot nnU-Net does not take it for a data set.
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=raw))
        try:
            beside.chmod(0o755)
            _fill(beside, task, opened, found, roles)
            _json(beside / "ima_split.json", told)
            beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return target


def divide(
    names: Sequence[str], split: tuple[int, int, int], seed: int, train_cases: int | None = None
) -> dict[str, list[str]]:
    """The names, in an order that the seed draws, as sorted lists `train`, `val` and `test`.

    train_cases: only so many of the first.
    """
    drawn = [names[int(at)] for at in np.random.default_rng(seed).permutation(len(names))]
    train, val, _ = split
    return {
        "train": sorted(drawn[:train][:train_cases]),
        "val": sorted(drawn[train : train + val]),
        "test": sorted(drawn[train + val :]),
    }


def _fill(
    folder: Path,
    task: PaperTask,
    source: CaseSource,
    found: Mapping[str, Case],
    roles: Mapping[str, list[str]],
) -> None:
    for role, part in (("train", "Tr"), ("val", "Tr"), ("test", "Ts")):
        images, labels = folder / f"images{part}", folder / f"labels{part}"
        images.mkdir(exist_ok=True)
        labels.mkdir(exist_ok=True)
        for name in roles[role]:
            copy_case(found[name], images, labels, len(task.channels), len(task.labels))
    _json(folder / "splits_final.json", [{"train": roles["train"], "val": roles["val"]}])
    about = {
        key: source.header[key]
        for key in ("description", "reference", "licence")
        if key in source.header
    }
    _json(
        folder / "dataset.json",
        {
            "channel_names": dict(
                zip(map(str, range(len(task.channels))), task.channels, strict=True)
            ),
            "labels": dict(zip(task.labels, range(len(task.labels)), strict=True)),
            "numTraining": len(roles["train"]) + len(roles["val"]),
            "file_ending": ENDING,
            "name": task.title,
            **about,
        },
    )


def _is_the_task(task: PaperTask, source: CaseSource) -> None:
    """Raise ValueError where dataset.json describes other data."""
    header = source.header
    said = str(header.get("name", ""))
    others = [row.title for row in PAPER_TASKS.values() if row.title != task.title]
    if said.casefold() in map(str.casefold, others):
        raise ValueError(f"{source.shown} is the Decathlon's {said!r}; expected {task.name}")
    for key, kind, expected in (
        ("modality", "channels", task.channels),
        ("labels", "labels, background included", task.labels),
    ):
        came = header.get(key)
        if not isinstance(came, dict) or sorted(came) != [str(n) for n in range(len(expected))]:
            raise ValueError(
                f"{source.shown}: `{key}` in dataset.json is {came!r}; {task.name} has "
                f"{len(expected)} {kind}: {', '.join(expected)}, numbered from 0"
            )


def _number_is_free(target: Path) -> None:
    prefix = target.name.split("_", 1)[0]
    taken = [p.name for p in target.parent.glob(f"{prefix}_*/") if p.name != target.name]
    if taken:
        raise ValueError(
            f"number {int(prefix[7:])} is taken in {target.parent} by {', '.join(sorted(taken))}; "
            "choose another one with --dataset-id"
        )


def _same(target: Path, told: Mapping[str, Any]) -> None:
    """Raise ValueError unless the data set that is there has the same cases in the same parts."""
    file = target / "ima_split.json"
    there = read_json(file) if file.exists() else None
    if there != told:
        known = "" if there is None else f" (its seed is {there.get('seed')})"
        raise ValueError(
            f"{target} is there already, with another split{known} or from elsewhere; move it "
            "away, or choose another folder (--raw) or number (--dataset-id)"
        )


def _json(file: Path, content: Any) -> None:
    write_text(file, json.dumps(content, indent=2) + "\n")
