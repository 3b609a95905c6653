"""`ima data`: fetch a public data set, cut a small one of it, carry one elsewhere."""

from __future__ import annotations

from pathlib import Path


def get(name: str, /, *, folder: Path | None = None) -> None:
    """Fetch a public data set from its authors, and check that it is complete.

    Parameters
    ----------
    name:
        cifar10, svhn or pneumoniamnist.
    folder:
        Where to put it. Default: in the folder IMA_DATA, or else ./data, where it is looked for:
        medmnist for pneumoniamnist, NAME for the others.

    """
    from ima.data.download import DOWNLOADS, fetch

    shown: dict[Path, int] = {}

    def report(file: Path, done: int, total: int | None) -> None:
        # A line every ten per cent; without a total, every hundred megabytes.
        step = done * 10 // total if total else done // 100_000_000
        if shown.get(file) != step:
            shown[file] = step
            of = f" of {total / 1e6:.0f}" if total else ""
            print(f"{file.name}: {done / 1e6:.0f}{of} MB", flush=True)

    files = fetch(name, folder, report=report)
    for file in files:
        print(file)
    place = files[0] if len(files) == 1 else files[0].parent
    print(f"next: data.name={DOWNLOADS[name].loader} data.path={place.absolute()}")


def subset(name: str, /, *, path: Path | None = None) -> None:
    """Cut the small part of a public data set that the small experiments use.

    Parameters
    ----------
    name:
        cifar10 or svhn.
    path:
        The published files. Default: where `ima data get` puts them, in IMA_DATA.

    """
    from ima.data.subset import SUBSETS, make_subset

    made = make_subset(name, path)
    train, val, test = (made.counts[role] for role in ("train", "val", "test"))
    print(
        f"{made.file}: {train} images for training, {val} for validation, {test} for test"
        f"{' (it was there, and is kept)' if made.kept else ''}"
    )
    same = "the images and labels" if made.known else "NOT the images and labels"
    print(f"these are {same} that the published results were measured on")
    print(f"next: {', '.join(f'ima compare {config}' for config in SUBSETS[name].configs)}")


def pack(target: Path, /, *, path: Path | None = None, size: int = 224, quality: int = 95) -> None:
    """Pack the CT images (covid_ct) into one small .zip, to carry to another machine.

    Parameters
    ----------
    target:
        The file to write.
    path:
        The data set's folder or .zip. Default: looked for in IMA_DATA.
    size:
        Side of the images in pixels, at least 8.
    quality:
        JPEG quality of the training images, 1 to 100.

    """
    from ima.data.pack import pack_covid_ct

    count, change = pack_covid_ct(target, path=path, size=size, quality=quality, tell=print)
    print(
        f"{target}: {count} images, {target.stat().st_size / 2**20:.1f} MiB; JPEG changed "
        f"the training images by {change:.3f} in L2 on average"
    )
    # The loader's own size need not be said.
    sized = "" if size == 224 else f" data.size={size}"
    print(f"next: ima train table5 data.path={target.absolute()}{sized}")


def msd(
    task: str,
    path: Path | None = None,
    /,
    *,
    raw: Path | None = None,
    seed: int = 0,
    dataset_id: int | None = None,
    train_cases: int | None = None,
) -> None:
    """Prepare a task of the Medical Segmentation Decathlon for nnU-Net, with the paper's split.

    Parameters
    ----------
    task:
        Task02_Heart, Task04_Hippocampus or Task05_Prostate.
    path:
        The task's folder or its .tar. Default: looked for in IMA_DATA.
    raw:
        nnU-Net's folder for raw data. Default: the one in nnUNet_raw.
    seed:
        Seed of the split into training, validation and test cases.
    dataset_id:
        The data set's number in nnU-Net. Default: the Decathlon's own.
    train_cases:
        How many training cases to use, for a small experiment with the same test cases. Default:
        all.

    """
    import os

    from ima.data.find import row_of
    from ima.nnunet.commands import RAW
    from ima.nnunet.msd import locate_task, prepare_msd
    from ima.nnunet.paper import PAPER_TASKS

    row = row_of(PAPER_TASKS, task, "task")
    named = os.environ.get(RAW)
    if raw is None and not named:
        raise ValueError("no folder to write to; give --raw FOLDER, or set nnUNet_raw")
    folder = Path(named or ".") if raw is None else raw
    made = prepare_msd(
        row,
        locate_task(row, path),
        folder,
        seed=seed,
        number=dataset_id,
        train_cases=train_cases,
    )
    train, val, test = row.split
    train = train_cases or train
    print(f"{made}: {train} cases for training, {val} for validation, {test} for test")
    print(f"next: ima nnunet plan -d {int(made.name[7:10])} -c 2d")
