"""The page and the chart of a bench: what was asked, what was found, on what machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.base import Answer, Target, World
from ima.files import whole, write_text
from ima.report.style import COLOURS, SMALL, SOFT, styled
from ima.training.run import environment

PAGE, CHART = "README.md", "chart.png"


def write(
    folder: Path, answers: Sequence[Answer], world: World, command: str, seconds: float
) -> None:
    """Write the page and the chart into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / CHART) as beside:
        _chart([answer for answer in answers if answer.bars], beside)
    write_text(folder / PAGE, text(answers, world, command, seconds))


def text(answers: Sequence[Answer], world: World, command: str, seconds: float) -> str:
    """The page, in Markdown."""
    here = environment("cpu")
    quick = (
        "\n\nA quick run on a tiny network: it shows that the bench runs, and none of its figures "
        "means anything."
        if world.quick
        else ""
    )
    parts = [
        "# How fast ima is",
        f"Made by `{command}` at commit {here['commit'] or 'unknown'}, torch {here['torch']}, "
        f"Python {here['python']}, on {here['processor'] or 'an unknown processor'} with "
        f"{here['cores']} cores, in {seconds / 60:.1f} minutes. Networks were trained on "
        f"scans of digits, {_size(world)}.{quick}",
        "All times are processor time of one process with one thread, so that others on the "
        "machine count less; what is compared takes turns in one run, and the figures of steps are "
        f"medians of {world.rounds} rounds. Attacks and evaluations, which take hundreds of passes "
        "each, run once.",
        f"![All ratios at a glance]({CHART})",
    ]
    targets = [target for answer in answers for target in answer.targets]
    if targets:
        parts += ["## Aims", _table(("aim", "wanted", "found", ""), [_row(one) for one in targets])]
    for answer in answers:
        parts += [f"## {answer.title}", answer.text, _table(answer.columns, answer.rows)]
    return "\n\n".join(parts) + "\n"


def _size(world: World) -> str:
    channels, high, wide = world.large.x.shape[1:]
    return f"{wide}x{high} pixels of {channels} channel{'s' if channels > 1 else ''}"


def _row(target: Target) -> list[str]:
    wanted = f"at {'most' if target.most else 'least'} {target.aim:g}"
    found = "-" if target.found is None else f"{target.found:.2f}"
    return [target.what, wanted, found, target.verdict]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = [":---", *["---:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))


def _chart(answers: Sequence[Answer], path: Path) -> None:
    from matplotlib.figure import Figure

    if not answers:
        return
    with styled():
        heights = [len(answer.bars) + 2 for answer in answers]
        figure = Figure(figsize=(8, 0.24 * sum(heights)), layout="constrained")
        panels: Any = figure.subplots(
            len(answers), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        for panel, answer in zip(panels[:, 0], answers, strict=True):
            labels, values = list(answer.bars), list(answer.bars.values())
            drawn = panel.barh(range(len(labels)), values, color=COLOURS[0], height=0.7)
            panel.bar_label(drawn, fmt="%.2f", padding=3, fontsize=SMALL, color=SOFT)
            panel.set_yticks(range(len(labels)), labels, fontsize=SMALL)
            panel.invert_yaxis()
            panel.set_title(f"{answer.title}: {answer.unit}", loc="left", fontsize=SMALL + 1)
            panel.margins(x=0.12)
            panel.tick_params(axis="x", labelsize=SMALL)
        figure.savefig(path, format="png", dpi=110, facecolor="white", metadata={"Software": None})
