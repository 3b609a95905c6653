"""`ima data get NAME` and `ima data pack FILE`: fetch a public data set, carry one elsewhere."""

from __future__ import annotations

from pathlib import Path


def get(name: str, /, *, folder: Path | None = None) -> None:
    """Fetch a public data set from where its authors keep it, and check that it came whole.

    Parameters
    ----------
    name:
        cifar10, svhn or pneumoniamnist.
    folder:
        Where to; the folder NAME in IMA_DATA, else in ./data, if not given.

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


def pack(target: Path, /, *, path: Path | None = None, size: int = 224, quality: int = 95) -> None:
    """Pack the CT images (covid_ct) into one small .zip, to carry to another machine.

    Validation and test images of split 0 stay as they are; training images become JPEG.

    Parameters
    ----------
    target:
        The file to write.
    path:
        The data set's folder or .zip; looked for in IMA_DATA if not given.
    size:
        Side of the images in pixels.
    quality:
        Of the training images' JPEG, 1 to 100.

    """
    from ima.data.pack import pack_covid_ct

    count, change = pack_covid_ct(target, path=path, size=size, quality=quality)
    print(
        f"{target}: {count} images, {target.stat().st_size / 2**20:.1f} MiB; JPEG changed "
        f"the training images by {change:.3f} in L2 on average"
    )
    print(f"next: ima train table5 data.path={target.absolute()}")
