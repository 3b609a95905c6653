"""Which image of a folder or .zip is of which class, and of which part if the folders say so.

    cats/1.png  dogs/1.png                      classes only
    train/cats/1.png  test/dogs/1.png  ...      parts, the same classes in each; val is optional

Both also one folder deeper, as .zip files often are.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ima.data import aside
from ima.data.find import missing
from ima.data.folders import FolderTree, ImageFile, Parts, is_hidden, is_image, opened_folder

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of the parts' folders, in any letter case."""


@dataclass(frozen=True)
class Layout:
    """Images by part, class and name; the part of each (None: not said); the classes.

    aside: a sentence on the files beside the images, "" where there are none.
    """

    files: list[ImageFile]
    roles: list[str | None]
    classes: tuple[str, ...]
    aside: str


@contextmanager
def class_layout(
    root: Path, *, where: str, classes: Sequence[str] | None = None
) -> Generator[Layout, None, None]:
    """The images of the class folders in `root`, a folder or a .zip, while it is open.

    Hidden files are left out; images in hidden folders and files without an image's suffix are
    left out and told.
    Without `classes` they are the folders' names, sorted, and every other layout than the two above
    raises `ValueError`, down to one image in the wrong place: one that is silently left out would
    change the data set. With `classes` their folders, named in any letter case, lie in the root or
    in one folder below, without parts, and other folders are not looked at; `FileNotFoundError`
    where one has none, `ValueError` where there are several such places, and for images in a folder
    within a class's. Images in hidden files or without an image's suffix raise `ValueError` too.
    """
    with opened_folder(root, where=where) as tree:
        yield _any(root, tree, where) if classes is None else _known(root, tree, classes, where)


def _any(root: Path, tree: FolderTree, where: str) -> Layout:
    files = set(tree.files)
    shown = {parts for parts in tree.paths if parts and not _hidden(parts)}
    images = {parts for parts in shown & files if is_image(parts[-1])}
    # A .zip need not list its folders: every path tells those above it.
    folders = {parts[:i] for parts in shown for i in range(1, len(parts))} | (shown - files)
    known = {parts for parts in files if parts and not _hidden(parts[:-1])}
    hidden = _in_hidden(tree)
    others = aside.describe_aside(
        root, [tree.read(parts, 0) for parts in sorted(known - images)], hidden
    )
    try:
        placed, classes = class_of_each(images, folders)
    except ValueError as error:
        beside = f" {others}" if others else ""
        raise ValueError(f"{root} {error}.{beside} {where}") from error
    ordered = sorted(placed, key=lambda parts: (*placed[parts], parts))
    return Layout(
        files=[tree.read(parts, placed[parts][1]) for parts in ordered],
        roles=[placed[parts][0] or None for parts in ordered],
        classes=classes,
        aside=others,
    )


def _known(root: Path, tree: FolderTree, classes: Sequence[str], where: str) -> Layout:
    labels = {_plain(name): label for label, name in enumerate(classes)}
    # By the folder that the class folders lie in: their files.
    found: dict[Parts, list[Parts]] = {}
    for parts in tree.files:
        if len(parts) in (2, 3) and _plain(parts[-2]) in labels and not _hidden(parts[:-1]):
            found.setdefault(parts[:-2], []).append(parts)
    # Of each, the class folders with images.
    folders = {
        around: {parts[:-1] for parts in files if is_image(parts[-1])}
        for around, files in found.items()
    }
    whole = [a for a, inside in folders.items() if {_plain(f[-1]) for f in inside} == labels.keys()]
    # Folders directly in the root come before those of a folder below.
    places = [()] if () in whole else sorted(whole)
    if not places:
        raise missing(f"folders {' and '.join(classes)}", [root, root / "*"], where=where)
    inside = sorted(folders[places[0]])
    if len(places) > 1 or len(inside) > len(classes):
        names = ", ".join(str(root.joinpath(*f)) for around in places for f in folders[around])
        raise ValueError(
            f"{root} has the folders of the {len(classes)} classes more than once ({names}); "
            "expected one folder a class: point data.path at the right ones"
        )
    for parts in tree.files:
        below = any(parts[: len(f)] == f and len(parts) > len(f) + 1 for f in inside)
        if below and is_image(parts[-1]) and not _hidden(parts):
            raise ValueError(
                f"{root} has the image {'/'.join(parts)} in a folder inside a class folder; "
                "expected the images directly in it"
            )
    files = [tree.read(parts, labels[_plain(parts[-2])]) for parts in found[places[0]]]
    images = sorted(
        (file for file in files if is_image(file.name)), key=lambda one: (one.label, one.name)
    )
    hidden = [parts for parts in _in_hidden(tree) if parts[: len(places[0])] == places[0]]
    others = aside.describe_aside(root, [file for file in files if not is_image(file.name)], hidden)
    return Layout(images, [None] * len(images), tuple(classes), others)


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")


def _in_hidden(tree: FolderTree) -> list[Parts]:
    """What has the name of an image and lies in a hidden folder."""
    return [parts for parts in tree.files if is_image(parts[-1]) and _hidden(parts[:-1])]


def _hidden(parts: Parts) -> bool:
    return any(map(is_hidden, parts))


def class_of_each(
    images: set[Parts], folders: set[Parts]
) -> tuple[dict[Parts, tuple[str, int]], tuple[str, ...]]:
    """The part ("" without parts) and class number of every image, and the classes.

    Raises `ValueError` that tells what the root holds instead.
    """
    around = _around(images, folders)
    tops = sorted({parts[len(around)] for parts in folders if len(parts) > len(around)})
    inner = {parts[: len(around) + 1] for parts in folders if len(parts) == len(around) + 2}
    named = [top for top in tops if top.casefold() in _PARTS and (*around, top) in inner]
    roles: dict[Parts, str] = {(*around, top): _PARTS[top.casefold()] for top in named}
    roles = roles or {around: ""}
    if named:
        twice = sorted(roles.values())
        if not {"train", "test"} <= set(twice) or len(set(twice)) < len(twice):
            raise ValueError(
                f"has the folders {', '.join(named)}; expected train and test, perhaps val, once"
            )
    classes = {
        base: {parts[-1] for parts in folders if parts[:-1] == base and len(parts) == len(base) + 1}
        for base in roles
    }
    known = tuple(sorted(set().union(*classes.values())))
    if len(known) < 2:
        below = f" in {around[0]}" if around else ""
        raise ValueError(
            f"has class folders {list(known)}{below}; expected at least two, with images"
        )
    placed: dict[Parts, tuple[str, int]] = {}
    for parts in images:
        base = parts[:-2]
        if len(parts) < 2 or base not in roles:
            raise ValueError(
                f"has the image {'/'.join(parts)} outside the class folders; expected "
                f"{'train/CLASS/' if named else 'CLASS/'}FILE for every image"
            )
        placed[parts] = (roles[base], known.index(parts[-2]))
    for parts in sorted(folders):
        if any(parts[:-2] == base and len(parts) == len(base) + 2 for base in roles):
            raise ValueError(
                f"has the folder {'/'.join(parts)} inside a class folder; expected the images "
                "directly in it"
            )
    for base, role in roles.items():
        present = {label for where, label in placed.values() if where == role}
        absent = [name for number, name in enumerate(known) if number not in present]
        if absent:
            raise ValueError(
                f"has no image of class {', '.join(absent)}{f' in {base[-1]}' if role else ''}; "
                f"expected some of each of the classes {', '.join(known)}"
            )
    return placed, known


def _around(images: set[Parts], folders: set[Parts]) -> Parts:
    """The one folder around all, () where there is none."""
    tops = {parts[0] for parts in folders}
    if len(tops) != 1 or any(len(parts) == 1 for parts in images):
        return ()
    (top,) = tops
    return () if top.casefold() in _PARTS else (top,)
