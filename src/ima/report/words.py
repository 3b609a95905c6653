"""Names, numbers and settings as people write them, whatever was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ima.evaluation.distances import NONE, Distances
from ima.evaluation.remarks import united
from ima.evaluation.results import CLEAN, WORST, Results
from ima.evaluation.settings import TEST, Settings
from ima.measures import Measure
from ima.norm_names import known_norm
from ima.report.scrub import scrub
from ima.report.style import norm_name

ABBREVIATIONS = ("pgd", "ifgsm", "ddn", "alma", "fab")

DRAWS = 100
"""So many are made where the noise's name holds no number."""

OWN_CASES = (
    "Every sample is taken for a case of its own; where several are from one patient, the "
    "intervals are too narrow."
)

CONVENTION = "empty slices"
"""What an evaluation calls its convention for samples without foreground."""


def listed(names: Sequence[str]) -> str:
    """Names in a row, as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def attack_name(attack: str) -> str:
    """An attack as people write it."""
    if attack == CLEAN:
        return "without noise"
    known = {"autoattack": "AutoAttack", "square": "Square", "ddn-margin": "DDN on the margin"}
    short = attack.partition("-")[0] in ABBREVIATIONS
    return known.get(attack, attack.upper() if short else attack)


def under(attack: str) -> str:
    """An attack behind "under"."""
    return "the worst of all attacks" if attack == WORST else attack_name(attack)


def norm_told(norm: str) -> str:
    """The norm, and what it means."""
    known = known_norm(norm)
    if known is None:
        return f"{norm} (a norm of the user's own; sizes in it are those of the evaluation)"
    return f"{known.label} ({known.about})"


def called(measure: Measure) -> str:
    """The quality with its abbreviation, where it has one."""
    return measure.name + (f" ({measure.short})" if measure.short else "")


def convention(results: Results) -> str:
    """When a part of a sample counts; empty where all of them do."""
    part, measure = results.settings.measure.part, results.settings.measure
    if measure.over != "parts":
        return ""
    return results.settings.about.get(CONVENTION, "") or (
        f"a {part} counts for a sample where it occurs in the truth or in the prediction; a sample "
        f"without foreground in both counts for no {part}, one with predicted foreground only "
        f"counts with 0 for every {part} predicted"
    )


def counted(results: Results) -> str:
    """How many samples were tested: `540 test samples`, `840 slices of 35 cases`."""
    clean = results.of_attack()
    n, total, cases = len(clean["id"]), results.settings.total, len(results.cases)
    unit = unit_of(results)
    of_total = "" if total in (None, n) else f" of {total}"
    several = cases and (unit == "slices" or cases < n)
    of_cases = f" of {cases} case{'s' if cases > 1 else ''}" if several else ""
    empty = int((clean["pixels"] == 0).sum()) if "pixels" in clean else 0
    bare = f", {empty} without foreground" if empty else ""
    return f"{n}{of_total} {unit}{of_cases}{bare}"


def unit_of(results: Results) -> str:
    """What samples are, in the plural: such as `test samples`, `slices`."""
    part = results.settings.part
    if "pixels" not in results.columns:
        return f"{part} samples"
    if in_volumes(results):
        unit = "cases or central patches" if in_patches(results) else "volumes"
    else:
        unit = "slices" if (results.columns["slice"] >= 0).any() else "images"
    return unit if part == TEST else f"{part} {unit}"


def in_volumes(results: Results) -> bool:
    """Whether samples are volumes, whole or a part of a case, rather than slices or images."""
    dimensions = results.settings.dimensions
    # Several volumes of one case are counted like slices.
    none = bool((results.columns["slice"] < 0).all())
    return dimensions == 3 or (dimensions != 2 and none)


def in_patches(results: Results) -> bool:
    """Whether a volume may be the central patch of a larger case."""
    return in_volumes(results) and "central patch" in results.settings.about.get("samples are", "")


def of_whole(results: Results) -> str:
    """What is said of a number beside a picture of one slice; nothing where that is the sample."""
    kind = " (a case, or its central patch)" if in_patches(results) else ""
    name = results.settings.measure.name
    return f"; the {name} is that of the whole samples{kind}" if in_volumes(results) else ""


def within_told(results: Results) -> str:
    """What a slice's number counts in, behind it, where that may be another than the case."""
    return " of the sample" if in_volumes(results) else ""


def told_cases(results: Sequence[Results]) -> str:
    """The sentence beside intervals: whether samples are known to be of one case."""
    counts = [len(one.cases) for one in results]
    if not counts or 0 in counts:
        return OWN_CASES
    numbers = " or ".join(map(str, dict.fromkeys(counts)))
    plural = "" if numbers == "1" else "s"
    return f"Intervals are over {numbers} case{plural}, as the samples of one are alike."


def draws(name: str) -> str:
    """What `"white-1"`, `"white-100"` and `"white"` are in a sentence."""
    number = name.partition("-")[2] or str(DRAWS)
    return "one draw" if number == "1" else f"the worst of {number} draws"


def sized(size: float, settings: Settings) -> str:
    """White noise's size such as `±0.05`; what it is a share of where bounds are not one wide."""
    plain, width = f"±{size:g}", settings.width
    if settings.bounds in (None, "none") or (width is not None and math.isclose(width, 1)):
        return plain
    exactly = "" if width is None else f" (±{size * width:g})"
    return f"{plain} of the bounds' width{exactly}"


def white_told(found: Results) -> str:
    """A line for each kind of white noise: what it leaves, or flips; empty where none was tried."""
    lines: list[str] = []
    measure = found.settings.measure
    for name in found.white:
        flips = found.flips(name)
        what = (
            f"flips {int(found.broken_rows[flips].sum())} of {len(flips)} samples that are right "
            "without it in"
            if measure.binary
            else f"takes the {measure.name} from {measure.write(found.mean())} to "
            f"{measure.write(found.mean(name))}, with"
        )
        size = sized(found.amplitude(name), found.settings)
        lines.append(f"white noise of {size} {what} {draws(name)}")
    return "\n".join(lines)


def distances_told(found: Distances, levels: Sequence[float]) -> str:
    """The median distance, accuracy at the levels, and what is in doubt, as lines of text."""
    norm, right = norm_name(found.norm), sum(row.attack != CLEAN for row in found.rows)
    median, settings = found.median(), found.settings
    middle = "none found for half of them" if math.isinf(median) else f"{median:.4g}"
    lines = [
        f"smallest noise found ({norm}), upper bounds, {', '.join(settings.attacks)}",
        f"median of the {right} samples that are right without noise: {middle}",
        f"right without noise: {found.accuracy():.1%} of {len(found.rows)}",
        *(
            f"right, and no noise up to {level:g} found: {found.accuracy(level):.1%}"
            for level in levels
        ),
    ]
    missing = sum(row.attack == NONE for row in found.rows)
    if missing:
        lines.append(f"no noise found for {missing} samples: gradients may be of no use here")
    if settings.left_out:
        lines.append(f"left out: {'; '.join(settings.left_out)}")
    return "\n".join([*lines, *united([("", found.remarks)])])


def about(settings: Settings) -> dict[str, str]:
    """What an evaluation says of itself beside its counts, norm and attacks, by name."""
    told = {
        "label": settings.label,
        "data": settings.data,
        "test cases": settings.cases,
        "task": settings.task,
        "left out": "; ".join(settings.left_out),
        **{key: text for key, text in settings.about.items() if key != CONVENTION},
    }
    return {key: str(scrub(text)) for key, text in told.items() if text}


def settings_told(rows: Sequence[tuple[str, Settings]]) -> list[str]:
    """How evaluations were made: what they share in one sentence, then what they do not."""
    each = [
        {
            **({} if one.seed is None else {"seed": str(one.seed)}),
            **({"bounds": one.bounds_told} if one.bounds else {}),
            **{attack: text for attack, text in one.attacks.items() if text},
            **about(one),
        }
        for _, one in rows
    ]
    same: list[str] = []
    apart: list[str] = []
    for key in dict.fromkeys(key for one in each for key in one):
        values = [one.get(key, "–") for one in each]
        if len(set(values)) == 1:
            same.append(f"{key} {values[0]}")
        else:
            named = zip(rows, values, strict=True)
            apart.append(f"{key} {', '.join(f'{label} {value}' for (label, _), value in named)}")
    lines = (("Evaluated with", same), ("Different between the networks:", apart))
    return [f"{what} {'; '.join(said)}." for what, said in lines if said]


def epoch_told(results: Results) -> str:
    """Of which epoch the weights are and what picked it, in a sentence; empty where unknown."""
    epoch, picked = results.settings.epoch, results.settings.picked
    return f"Epoch {epoch}, picked on validation by {picked}." if epoch and picked else ""
