"""Flipped labels, and what `ima margins` says about a run: numbers, pictures, files."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ima.cli import main
from ima.data import load
from ima.data.flip import flip_labels
from ima.evaluation.distances import Distance, Distances
from ima.evaluation.estimates import Estimate, Estimates
from ima.evaluation.settings import Settings
from ima.methods import METHODS
from ima.report import margin_figures
from ima.report.margin_numbers import MarginErrors, hits, precision
from ima.report.margins_page import atlas_images, margin_table, margins_told
from ima.training import measuring
from ima.training.build import load_splits
from ima.training.checkpoint import load_state, save_state
from ima.training.config import load_config
from ima.training.config_errors import ConfigError
from ima.training.loop import fit
from ima.training.measuring import SHOWN, keeps_margins, measure_margins
from ima.training.run import Run

# --- Flipped labels -------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("seed", [0, 3])
def test_so_many_training_labels_become_another_class(share: float, seed: int) -> None:
    clean = load("digits")
    flipped = flip_labels(clean, share, seed)
    before, after = clean.train.targets, flipped.train.targets
    changed = (before != after).nonzero()[:, 0].tolist()
    assert len(changed) == max(1, round(share * 897))
    assert flipped.flipped == {i: int(before[i]) for i in changed}
    assert int(after.min()) >= 0 and int(after.max()) <= 9
    assert f"{len(changed)} were flipped" in flipped.note and flipped.note.startswith(clean.note)
    assert flipped.val is clean.val and flipped.test is clean.test
    assert torch.equal(flipped.train.images, clean.train.images)
    assert not clean.flipped and torch.equal(load("digits").train.targets, before)
    again = flip_labels(clean, share, seed)
    assert again.flipped == flipped.flipped and torch.equal(again.train.targets, after)
    assert flip_labels(clean, share, seed + 1).flipped != flipped.flipped


def test_every_other_class_is_as_likely() -> None:
    clean = load("digits")
    flipped = flip_labels(clean, 0.9, 1)
    steps = (flipped.train.targets - clean.train.targets) % 10
    counts = torch.bincount(steps, minlength=10)[1:]
    # 807 in 9 shares of 90 on average; 3.5 standard deviations.
    assert (counts - 807 / 9).abs().max() < 3.5 * math.sqrt(807 / 9)


@pytest.mark.parametrize("share", [-0.1, 0.0, 1.0, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share of labels to flip is"):
        flip_labels(load("digits"), share, 0)


def test_labels_are_flipped_once() -> None:
    once = flip_labels(load("digits"), 0.1, 0)
    with pytest.raises(ValueError, match="90 flipped labels already"):
        flip_labels(once, 0.1, 0)


@pytest.mark.parametrize("value", ["1.0", "-0.1", "many"])
def test_the_config_checks_the_share(value: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.flip"):
        load_config("digits", [f"data.flip={value}"])


def test_the_config_decides_what_is_loaded() -> None:
    plain = load_splits(load_config("digits"))
    assert not plain.flipped
    config = load_config("digits", ["data.flip=0.2", "data.seed=5"])
    splits = load_splits(config)
    assert splits.flipped == flip_labels(load("digits", seed=5), 0.2, 5).flipped


# --- Numbers --------------------------------------------------------------------------------------


def estimates(rows: list[Estimate], cap: float = 3.0, names: tuple[str, ...] = ()) -> Estimates:
    classes = names or tuple("0123456789")
    about = {"method": "ima"}
    made = Settings(norm="L2", cap=cap, classes=classes, attacks={"ddn": ""}, about=about)
    return Estimates(tuple(rows), made)


def test_hits_count_equal_margins_by_their_mean() -> None:
    margins = np.array([0.5, 0.1, 0.3, 0.3, 0.3, 0.9])
    flipped = np.array([True, True, True, False, False, False])
    # 0.1 is flipped; of the three at 0.3 one is; then 0.5 is.
    expected = [0, 1, 1 + 1 / 3, 1 + 2 / 3, 2, 3, 3]
    np.testing.assert_allclose(hits(margins, flipped), expected)
    for order in itertools.permutations(range(6)):
        some = hits(margins[list(order)], flipped[list(order)])
        np.testing.assert_allclose(some, expected)


def test_precision_is_of_the_smallest_margins() -> None:
    rows = [Estimate(i, 1, 2 if i in (0, 3) else 1, 1, margin=float(i)) for i in range(4)]
    np.testing.assert_allclose(precision(estimates(rows)), [1, 1 / 2, 1 / 3, 2 / 4])


def test_errors_by_hand() -> None:
    rows = [
        Estimate(0, 1, 1, 1, 1.2, 1.0, "ddn"),
        Estimate(1, 1, 1, 1, 0.5, 1.0, "fab"),
        Estimate(2, 1, 1, 1, 3.0, 2.0, "ddn"),
        Estimate(3, 1, 1, 1, 1.005, 1.0, "ddn"),
        Estimate(4, 1, 1, 2, 0.1, 0.0, "clean"),
        Estimate(5, 1, 1, 1, 0.1, math.nan, "none"),
        Estimate(6, 1, 1, 1, 0.1),
    ]
    found = MarginErrors.of(estimates(rows))
    assert found is not None
    assert (found.count, found.wrong, found.missing) == (4, 1, 1)
    # The third is at the cap of 3, and its sample withstands 2 only.
    assert (found.capped, found.free, found.capped_over) == (1, 3, 1.0)
    assert found.ratio == pytest.approx(1.005)
    assert (found.over, found.under) == pytest.approx((1 / 3, 1 / 3))
    assert math.isnan(found.rank)
    told = " ".join(margins_told(estimates(rows)))
    assert "for 4 training samples" in told and "left out: wrong without noise 1" in told
    assert "of 3 margins below the cap the median of margin / noise is 1.005" in told
    assert "too large by more than 1%: 33.3%, too small: 33.3%. 1 margins are at the cap" in told
    assert "cannot grow; too large: 100.0%" in told
    # Below the cap margins rank 3, 1, 2, 4; distances 1.5, 1.5, 3, 4.
    other = [
        *rows[:2],
        Estimate(2, 1, 1, 1, 1.1, 1.5, "ddn"),
        Estimate(3, 1, 1, 1, 2.0, 2.0, "ddn"),
    ]
    known = MarginErrors.of(estimates(other))
    assert known is not None and known.capped == 0 and math.isnan(known.capped_over)
    assert known.rank == pytest.approx(np.corrcoef([3, 1, 2, 4], [1.5, 1.5, 3, 4])[0, 1])
    assert "at the cap and cannot" not in " ".join(margins_told(estimates(other)))
    capped = MarginErrors.of(estimates([rows[2], Estimate(7, 1, 1, 1, 3.0, 4.0, "ddn")]))
    assert capped is not None and (capped.free, capped.capped_over) == (0, 0.5)
    assert all(map(math.isnan, (capped.ratio, capped.over, capped.under, capped.rank)))
    assert "below the cap" not in " ".join(margins_told(estimates(rows[2:3])))
    # Distances of six samples, by hand: 0, three of 1 or less, one above, one never found.
    assert "Half of the 6 samples that were looked at are wrong with noise of 1." in told
    plain = estimates(rows)
    radii = dataclasses.replace(plain, settings=plain.settings.but(eps=(0.5, 1.0)))
    told = " ".join(margins_told(radii))
    assert "Wrong without noise, or with some: 16.7% at 0.5, 66.7% at 1." in told
    assert "looked at are not wrong with any found" in " ".join(margins_told(estimates(rows[5:])))
    assert MarginErrors.of(estimates(rows[4:])) is None
    assert "No distance is known" in " ".join(margins_told(estimates(rows[4:])))
    alone = MarginErrors.of(estimates(rows[:1]))
    assert alone is not None and math.isnan(alone.rank)


def test_the_table_by_class_by_hand() -> None:
    rows = [Estimate(i, 2, 2, i % 2 + 1, float(m)) for i, m in enumerate((1, 2, 3, 3))]
    table = margin_table(estimates([*rows, Estimate(4, 0, 0, 0, 0.5)]))
    assert table.rows == (
        ("0", "1", "0.5", "0.5", "0.5", "0.0", "100.0"),
        ("2", "4", "1.75", "2.5", "3", "50.0", "50.0"),
    )


def test_estimates_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [Estimate(0, 1, 2, 1, 0.1 + 0.2, 0.7, "ddn"), Estimate(1, 0, 0, 1, 3.0)]
    found = estimates(rows, names=("a, b", 'say "c"', "d"))
    found.to_csv(tmp_path / "m.csv")
    again = Estimates.from_csv(tmp_path / "m.csv")
    assert repr(again) == repr(found)
    assert again.flipped.tolist() == [True, False]
    text = (tmp_path / "m.csv").read_text()
    for damaged in (text[10:], text.replace("margin", "size"), text.replace("ddn", "ddn,1"), ""):
        (tmp_path / "m.csv").write_text(damaged)
        with pytest.raises(ValueError, match=r"m\.csv is no file of margins, or damaged"):
            Estimates.from_csv(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 2), None), ((4, 1, 6, 5), (6, 5)), ((4, 3, 6, 5), (6, 5, 3)), ((4, 2, 6, 5), (6, 5))],
)
def test_pictures_are_images_or_none(shape: tuple[int, ...], expected: Any) -> None:
    samples = np.random.default_rng(0).random(shape).astype(np.float32)
    found = atlas_images([7, 3, 9, 1], samples)
    if expected is None:
        assert found == {}
        return
    assert list(found) == [7, 3, 9, 1]
    assert {image.shape for image in found.values()} == {expected}
    first = np.moveaxis(samples[0], 0, -1) if shape[1] == 3 else samples[0, 0]
    np.testing.assert_array_equal(found[7], first)


def test_volumes_are_shown_by_their_middle_slice() -> None:
    volume = np.random.default_rng(0).random((1, 1, 5, 4, 3))
    np.testing.assert_array_equal(atlas_images([0], volume)[0], volume[0, 0, 2])


# --- Pictures -------------------------------------------------------------------------------------


def many(classes: int, name: str = "{}") -> Estimates:
    rng = np.random.default_rng(0)
    rows = [
        Estimate(
            i,
            i % classes,
            (i + int(i % 7 == 0)) % classes,
            (i + int(i % 5 == 0)) % classes,
            float(min(3, rng.gamma(4) / 3)),
            float(rng.gamma(4) / 3),
            "ddn",
        )
        for i in range(40 * classes)
    ]
    return estimates(rows, names=tuple(name.format(i) for i in range(classes)))


def draw_atlas(found: Estimates, shape: tuple[int, ...] = (8, 8)) -> Figure:
    order = np.argsort(found.margins)
    ids = [int(i) for i in (*order[:24], *order[-24:])]
    return margin_figures.atlas(found, ids, [np.full(shape, 0.5) for _ in ids])


FIGURES = {
    "by class": lambda: margin_figures.by_class(many(10)),
    "of many classes": lambda: margin_figures.by_class(many(45, "a class with a long name, {}")),
    "of one": lambda: margin_figures.by_class(estimates([Estimate(0, 3, 3, 3, 3.0)])),
    "distances": lambda: margin_figures.against_distances(many(3)),
    "flipped": lambda: margin_figures.flips_found(many(3)),
    "atlas": lambda: draw_atlas(many(10)),
    "atlas of wide images": lambda: draw_atlas(many(2, "COVID-19 case {}"), (16, 32, 3)),
    "atlas of one": lambda: margin_figures.atlas(many(2), [0], [np.zeros((4, 4))]),
}


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES.keys())
def test_text_is_neither_clipped_nor_overlapping(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, Any]] = []
    draw = Text.draw

    def record(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            seen.append((self.get_text(), self.get_window_extent(renderer)))
        draw(self, renderer)

    monkeypatch.setattr(Text, "draw", record)
    figure = make()
    FigureCanvasAgg(figure).draw()
    wide, high = figure.bbox.width, figure.bbox.height
    for text, box in seen:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= wide and box.y1 <= high, f"{text} clipped"
    for (one, a), (other, b) in itertools.combinations(seen, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 1 or down <= 1, f"{one!r} and {other!r} overlap"


def test_pictures_that_cannot_be_are_refused() -> None:
    bare = estimates([Estimate(0, 1, 1, 1, 0.5)])
    with pytest.raises(ValueError, match="no distance is known"):
        margin_figures.against_distances(bare)
    with pytest.raises(ValueError, match=r"no label .* was flipped"):
        margin_figures.flips_found(bare)
    with pytest.raises(ValueError, match="no images"):
        margin_figures.atlas(bare, [], [])


# --- A run ----------------------------------------------------------------------------------------


class Quiet:
    """Watches and says nothing."""

    def batch(self, *_: Any) -> None: ...

    def epoch(self, *_: Any) -> None: ...


SMALL = ["network.width=4", "method.steps=2", "train.epochs=2", "data.flip=0.1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("margins") / "run"
    run = Run.create(folder, load_config("digits", SMALL))
    fit(run, watcher=Quiet(), device="cpu")
    return run


def near(model: Any, data: Any, radii: Any, **_: Any) -> Distances:
    """Distances without a search: each sample's place."""
    rows = (Distance(i, int(y), 0, 0.1 + i / 100, "ddn") for i, (_, y) in enumerate(data))
    made = Settings(norm="L2", attacks={"ddn": ""}, samples=len(data), seconds=3.1)
    return Distances(tuple(rows), made)


@pytest.fixture
def run(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    shutil.copytree(trained.folder, tmp_path / "run")
    monkeypatch.setattr(measuring, "minimal", near)
    return Run.open(tmp_path / "run")


def test_a_run_trains_on_flipped_labels_and_says_which(trained: Run) -> None:
    clean = load("digits").train.targets
    with (trained.folder / "flipped.csv").open(newline="") as file:
        told = {int(row["id"]): int(row["class"]) for row in csv.DictReader(file)}
    assert told == load_splits(trained.config()).flipped
    assert len(told) == 90 and all(int(clean[i]) == true for i, true in told.items())


def test_what_is_measured_is_the_runs(run: Run) -> None:
    found = measure_margins(run, samples=30, device="cpu")
    splits = load_splits(run.config())
    kept = load_state(run.state)["method"]["margins"]["values"]
    assert [row.id for row in found.rows] == list(range(897))
    np.testing.assert_array_equal(found.margins, kept.double().numpy())
    assert [row.label for row in found.rows] == splits.train.targets.tolist()
    assert [row.true for row in found.rows] == load("digits").train.targets.tolist()
    assert found.cap == 3.0 and found.norm == "L2"
    assert (found.settings.samples, found.settings.total) == (30, 897)
    measured = [row for row in found.rows if row.attack]
    assert [row.distance for row in measured] == pytest.approx([0.1 + i / 100 for i in range(30)])
    # Ten classes of about 90, in proportion.
    labels = [row.label for row in measured]
    assert {labels.count(c) for c in range(10)} <= {2, 3, 4}
    other = measure_margins(run, samples=30, seed=1, device="cpu")
    assert [row.id for row in other.rows if row.attack] != [row.id for row in measured]
    every = measure_margins(run, samples=5000, device="cpu")
    assert all(row.attack for row in every.rows)
    with np.load(run.margins_folder / "atlas.npz", allow_pickle=False) as file:
        ids, images = file["id"], file["image"]
    assert len(ids) == 2 * SHOWN == len(set(ids.tolist()))
    smallest, largest = found.margins[ids[:SHOWN]], found.margins[ids[SHOWN:]]
    rest = np.delete(found.margins, ids)
    assert smallest.max() <= rest.min() and rest.max() <= largest.min()
    np.testing.assert_array_equal(images, splits.train[ids.tolist()][0].numpy())


def test_a_run_stopped_within_an_epoch_says_so(run: Run, tmp_path: Path) -> None:
    stopped = Run.open(Path(shutil.copytree(run.folder, tmp_path / "copy")))
    state = load_state(stopped.state)
    assert measure_margins(stopped, samples=2, device="cpu").settings.epoch == "2"
    save_state(stopped.state, {**state, "epoch": 0, "amid": [{"batches": 3}]})
    assert measure_margins(stopped, samples=2, device="cpu").settings.epoch == "1 and part of 2"
    # As states were before runs could stop within an epoch.
    save_state(stopped.state, {k: v for k, v in state.items() if k != "amid"})
    assert measure_margins(stopped, samples=2, device="cpu").settings.epoch == "2"
    save_state(stopped.state, {**state, "epoch": -1, "amid": [{"batches": 3}]})
    with pytest.raises(FileNotFoundError, match="no finished epoch"):
        measure_margins(stopped, samples=2, device="cpu")


def test_margins_at_a_cap_that_float32_rounds_down_are_at_it(run: Run, tmp_path: Path) -> None:
    rounded = Run.open(Path(shutil.copytree(run.folder, tmp_path / "copy")))
    config = rounded.folder / "config.yaml"
    config.write_text(config.read_text().replace("eps: 3.0", "eps: 3.3"))
    state = load_state(rounded.state)
    state["method"]["margins"]["values"][:] = 3.3
    state["origin"]["config"]["method.eps"] = 3.3
    save_state(rounded.state, state)
    found = measure_margins(rounded, samples=2, device="cpu")
    assert found.cap < 3.3 and (found.margins >= found.cap).all()
    assert "at the cap of 3.3: 100.0%" in margins_told(found)[0]
    assert "897 samples share the largest margin, 3.3; the atlas shows 24" in margins_told(found)[2]


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_the_command_writes_the_same_page_twice(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ima", "margins", str(run.folder), "--device", "cpu", "--samples", "20"]
    monkeypatch.setattr("sys.argv", command)
    seen: list[dict[str, bytes]] = []
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None)
        files = sorted(run.margins_folder.iterdir())
        seen.append({file.name: file.read_bytes() for file in files if file.suffix != ".npz"})
    assert seen[0] == seen[1]
    names = ("atlas", "by_class", "by_epoch", "distances", "flipped")
    drawn = {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
    assert seen[0].keys() == drawn | {"margins.csv", "margins.json", "margins.md"}
    page, out = seen[0]["margins.md"].decode(), capsys.readouterr().out
    found = Estimates.from_csv(run.margins_folder / "margins.csv")
    made = page.rstrip().splitlines()[-1]
    assert made.startswith("Made by `ima margins RUN --samples ")
    assert " at commit " in made and ", of the run that `" in made
    assert ": commit " in made and made.endswith(" cores.")
    assert "samples that were looked at are wrong with noise of" in page
    share = precision(found)[89]
    assert f"Among the 90 smallest margins {share:.1%} are flipped" in out
    assert all(f"({name}.png)" in page for name in names)
    assert "Among the 90 smallest margins" in page and "| class" in page


def test_runs_without_margins_are_refused(run: Run, tmp_path: Path) -> None:
    untrained = Run.create(tmp_path / "new", load_config("digits", SMALL))
    with pytest.raises(FileNotFoundError, match=r"no finished epoch with margins.*--resume"):
        measure_margins(untrained)
    sat = Run.create(tmp_path / "sat", load_config("digits", ["method={name: sat, eps: 1.0}"]))
    with pytest.raises(ValueError, match=r"'sat', which keeps no margins; those that do: ima"):
        measure_margins(sat)
    with pytest.raises(ValueError, match="samples is 0"):
        measure_margins(run, samples=0)
    assert not run.margins_folder.exists()


def test_methods_with_margins_are_those_that_keep_one_a_sample() -> None:
    known = {name for name in METHODS if keeps_margins(name)}
    assert known == {"ima", "mma", "iaat", "customized"}
