"""A plan of another batch size under a name of its own, with the preprocessed data shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ima.files import read_json, write_text


def with_batch_size(
    folder: Path, batch_size: int, base: str = "nnUNetPlans", configuration: str = "2d"
) -> str:
    """Write a copy of the plans `base` with batches of `batch_size`; its name, for nnU-Net's -p.

    folder: of the dataset within nnUNet_preprocessed. The copy is named like nnUNetPlansB32 and
    differs in its name and in the batch size of `configuration` only; it uses the data that were
    preprocessed for `base`. The same call again writes the same file.

    Raises `FileNotFoundError` where there are no such plans, `ValueError` for a batch size below
    1 and where `base` has no such configuration of its own.
    """
    check_batch_size(batch_size)
    file = folder / f"{base}.json"
    if not file.exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*Plans*.json"))) or "none"
        raise FileNotFoundError(
            f"there are no plans {str(file)!r} (there are: {known}); plan the dataset first: "
            "ima nnunet plan -d ... -c 2d"
        )
    plans: dict[str, Any] = read_json(file)
    known = plans["configurations"]
    if "batch_size" not in known.get(configuration, {}):
        own = ", ".join(name for name, one in known.items() if "batch_size" in one)
        raise ValueError(
            f"{file} has no configuration {configuration!r} with a batch size of its own; "
            f"expected one of {own}"
        )
    name = f"{base}B{batch_size}"
    known[configuration]["batch_size"] = batch_size
    plans["plans_name"] = name
    write_text(folder / f"{name}.json", json.dumps(plans, indent=4))
    return name


def check_batch_size(batch_size: int) -> None:
    """Raise ValueError for a batch size that nnU-Net does not train with."""
    if batch_size < 1:
        raise ValueError(f"the batch size is {batch_size}; expected at least 1")
