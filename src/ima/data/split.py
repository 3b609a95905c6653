"""Deciding which samples go where: pure functions of labels, sizes and fingerprints."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stratified(targets: NDArray[Any], count: int, seed: int) -> NDArray[np.bool_]:
    """Choose `count` samples with the classes in proportion; a mask (N,).

    Every class gives its proportional share rounded down or up (largest remainders), and which
    of its samples, `seed` decides. Targets that are no class numbers (N,) count as one class.
    Raises `ValueError` unless 0 < count < N.
    """
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        targets = np.zeros(len(targets), dtype=np.int64)
    if not 0 < count < len(targets):
        raise ValueError(f"cannot set {count} of {len(targets)} samples aside; expected fewer")
    classes, sizes = np.unique(targets, return_counts=True)
    # Whole numbers throughout, so that rounding is the same on every machine.
    quota, remainder = np.divmod(sizes * count, len(targets))
    largest_first = np.argsort(-remainder, kind="stable")
    quota[largest_first[: count - int(quota.sum())]] += 1
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(targets), dtype=np.bool_)
    for number, wanted in zip(classes, quota, strict=True):
        members = np.flatnonzero(targets == number)
        chosen[rng.permutation(members)[:wanted]] = True
    return chosen


def fingerprints(images: Iterable[NDArray[Any]]) -> list[bytes]:
    """One digest (16 bytes) an image; equal exactly for equal pixels, chance collisions aside."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def groups(tokens: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Join samples that share a token, directly or through others.

    `tokens` holds each sample's tokens. Returns groups of positions, each ascending, the groups
    ordered by their first position.
    """
    parent = list(range(len(tokens)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    seen: dict[Hashable, int] = {}
    for position, mine in enumerate(tokens):
        for token in mine:
            one, other = root(position), root(seen.setdefault(token, position))
            # The smaller position is the root, so a group is named by its first member.
            parent[max(one, other)] = min(one, other)
    joined: dict[int, list[int]] = {}
    for position in range(len(tokens)):
        joined.setdefault(root(position), []).append(position)
    return list(joined.values())


def choose_subset(sizes: Sequence[int], total: int) -> list[int] | None:
    """Positions of groups whose sizes sum to exactly `total`, early ones first; None if none do.

    The subset-sum table by group; groups of one need none.
    """
    if all(size == 1 for size in sizes):
        return list(range(total)) if total <= len(sizes) else None
    # For each sum that can be had: the group added last, and the sum before it.
    reached: dict[int, tuple[int, int]] = {0: (-1, 0)}
    for position, size in enumerate(sizes):
        if total in reached:
            break
        # A copy: this group extends the sums that could be had without it, never its own.
        for before in list(reached):
            if before + size <= total:
                reached.setdefault(before + size, (position, before))
    if total not in reached:
        return None
    chosen: list[int] = []
    rest = total
    while rest > 0:
        position, rest = reached[rest]
        chosen.append(position)
    return chosen[::-1]


def assign(
    labels: Sequence[int],
    names: Sequence[str],
    tokens: Sequence[Sequence[Hashable]],
    wanted: Mapping[str, Sequence[int]],
    *,
    classes: Sequence[str],
    seed: int,
) -> dict[str, list[int]]:
    """Positions of the parts `wanted` and of "train", which has the rest, each ascending.

    `labels`, `names` and `tokens` hold one entry a sample, `wanted` each part's number of samples
    of every class. Samples that share a token are never in two parts; those that share one with
    another class are in training. `seed`, class and name decide, not the position: one sample more
    moves at most those whose place it takes, one less those that take its place.

    Raises `ValueError`, naming part and class, when no such split exists.
    """

    def rank(group: list[int]) -> bytes:
        first = group[0]
        told = f"{seed}/{classes[labels[first]]}/{names[first]}"
        return hashlib.blake2b(told.encode()).digest()

    joined = groups(tokens)
    roles: dict[str, list[int]] = {"train": [], **{role: [] for role in wanted}}
    for label in range(len(classes)):
        # An image that is in two classes has no true label to test on: it stays in training.
        free = [group for group in joined if all(labels[at] == label for at in group)]
        free.sort(key=rank)
        for role, counts in wanted.items():
            chosen = choose_subset([len(group) for group in free], counts[label])
            if chosen is None:
                raise ValueError(
                    f"no {counts[label]} {classes[label]} images can be set aside for {role} "
                    "without having equal images in two parts; remove duplicates"
                )
            # From the back, so that the positions of the others stay.
            for at in reversed(chosen):
                roles[role] += free.pop(at)
    aside = {at for chosen in roles.values() for at in chosen}
    roles["train"] = [at for at in range(len(labels)) if at not in aside]
    return {role: sorted(chosen) for role, chosen in roles.items()}
