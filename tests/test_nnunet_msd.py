"""Decathlon archives become nnU-Net data sets with the paper's split; damaged ones, errors."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ima.cli.data import msd
from ima.nnunet import msd as module
from ima.nnunet.msd import divide, locate_task, prepare_msd
from ima.nnunet.paper import PAPER_TASKS, PaperTask

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK comes with nnU-Net, ima[nnunet]")

REAL = Path(os.environ.get("IMA_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data")
HEART = PAPER_TASKS["Task02_Heart"]
PROSTATE = PAPER_TASKS["Task05_Prostate"]
SHAPE = (3, 4, 5)


def write(file: Path, volume: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(volume, isVector=False)
    image.SetSpacing((0.5, 0.75, 2.0, 1.0)[: volume.ndim])
    image.SetOrigin((1.0, 2.0, 3.0, 0.0)[: volume.ndim])
    sitk.WriteImage(image, str(file))


def make(folder: Path, task: PaperTask) -> Path:
    """A Decathlon folder of tiny volumes, with what real ones hold beside the labelled cases."""
    generator = np.random.default_rng(0)
    home = folder / task.name
    names = [f"case_{number:03d}" for number in range(sum(task.split))]
    shape = SHAPE if len(task.channels) == 1 else (len(task.channels), *SHAPE)
    for name in names:
        write(home / "imagesTr" / f"{name}.nii.gz", generator.normal(size=shape).astype("f4"))
        labels = generator.integers(0, len(task.labels), SHAPE).astype("u1")
        write(home / "labelsTr" / f"{name}.nii.gz", labels)
        (home / "imagesTr" / f"._{name}.nii.gz").write_bytes(b"Mac OS X")
    (home / "imagesTs").mkdir()
    shutil.copy(home / "imagesTr" / "case_000.nii.gz", home / "imagesTs" / "case_900.nii.gz")
    header = {
        "name": task.title.upper(),
        "licence": "CC-BY-SA 4.0",
        "modality": {str(n): name for n, name in enumerate(task.channels)},
        "labels": {str(n): name for n, name in enumerate(task.labels)},
        "numTraining": len(names),
        "numTest": 1,
        # In another order than by name, as the real ones.
        "training": [
            {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
            for n in reversed(names)
        ],
        "test": ["./imagesTs/case_900.nii.gz"],
    }
    (home / "dataset.json").write_text(json.dumps(header))
    return home


def packed(home: Path, file: Path) -> Path:
    with tarfile.open(file, "w") as tar:
        tar.add(home, home.name)
    return file


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("heart"), HEART)


@pytest.fixture
def damaged(heart: Path, tmp_path: Path) -> Path:
    """A copy of the heart's folder, for a test to damage."""
    return Path(shutil.copytree(heart, tmp_path / "damaged" / heart.name))


# --- What is written --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_a_task_becomes_a_data_set_that_nnunet_takes(name: str, tmp_path: Path) -> None:
    utils = pytest.importorskip("nnunetv2.utilities.utils")
    verify = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    reader = pytest.importorskip("nnunetv2.imageio.simpleitk_reader_writer").SimpleITKIO
    task = PAPER_TASKS[name]
    home = make(tmp_path, task)
    made = prepare_msd(task, home, tmp_path / "raw")
    assert made == tmp_path / "raw" / f"Dataset00{task.number}_{task.title}"
    train, val, test = task.split
    about = json.loads((made / "dataset.json").read_text())
    assert about["channel_names"] == {str(n): c for n, c in enumerate(task.channels)}
    assert about["labels"] == {c: n for n, c in enumerate(task.labels)}
    assert (about["numTraining"], about["file_ending"]) == (train + val, ".nii.gz")
    cases = utils.get_filenames_of_train_images_and_targets(str(made), about)
    assert len(cases) == train + val
    for case in list(cases.values())[:12]:
        assert len(case["images"]) == len(task.channels)
        assert verify.check_cases(case["images"], case["label"], len(task.channels), reader)
        assert verify.verify_labels(case["label"], reader, list(range(len(task.labels))))
    assert len(list((made / "imagesTs").iterdir())) == test * len(task.channels)
    assert len(list((made / "labelsTs").iterdir())) == test
    # A copy that was unpacked from the .tar is the same to the byte, whatever else that holds.
    tar = packed(home, tmp_path / "any-name.tar")
    assert tree(prepare_msd(task, tar, tmp_path / "from-tar")) == tree(made)
    # And so is one whose folder was given one level up.
    assert tree(prepare_msd(task, tmp_path, tmp_path / "above")) == tree(made)


def test_files_of_one_channel_are_copied_byte_by_byte(heart: Path, tmp_path: Path) -> None:
    made = prepare_msd(HEART, heart, tmp_path)
    split = json.loads((made / "ima_split.json").read_text())
    for role, part in (("train", "Tr"), ("val", "Tr"), ("test", "Ts")):
        for name in split[role]:
            for there, here in (("imagesTr", f"images{part}"), ("labelsTr", f"labels{part}")):
                end = "_0000" if there == "imagesTr" else ""
                copy = made / here / f"{name}{end}.nii.gz"
                assert copy.read_bytes() == (heart / there / f"{name}.nii.gz").read_bytes()


def test_channels_of_one_file_become_files_in_the_same_place(tmp_path: Path) -> None:
    home = make(tmp_path, PROSTATE)
    made = prepare_msd(PROSTATE, home, tmp_path / "raw")
    name = json.loads((made / "ima_split.json").read_text())["test"][0]
    both = sitk.GetArrayFromImage(sitk.ReadImage(str(home / "imagesTr" / f"{name}.nii.gz")))
    label = sitk.ReadImage(str(made / "labelsTs" / f"{name}.nii.gz"))
    for channel in (0, 1):
        one = sitk.ReadImage(str(made / "imagesTs" / f"{name}_000{channel}.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(one), both[channel])
        assert one.GetSpacing() == label.GetSpacing() == (0.5, 0.75, 2.0)
        assert one.GetOrigin() == label.GetOrigin() == (1.0, 2.0, 3.0)
        assert one.GetDirection() == label.GetDirection()


def test_the_seed_decides_the_split(heart: Path, tmp_path: Path) -> None:
    split = {
        seed: json.loads(
            (prepare_msd(HEART, heart, tmp_path / str(n), seed=seed) / "ima_split.json").read_text()
        )
        for n, seed in enumerate((0, 1, 0))
    }
    again = json.loads((tmp_path / "2" / "Dataset002_Heart" / "ima_split.json").read_text())
    assert split[0] == again
    assert split[0]["seed"] == 0 and split[1]["seed"] == 1
    assert split[0]["test"] != split[1]["test"]
    for one in split.values():
        assert [len(one[role]) for role in ("train", "val", "test")] == [16, 1, 3]
        assert sorted(one["train"] + one["val"] + one["test"]) == [
            f"case_{number:03d}" for number in range(20)
        ]
    folds = json.loads((tmp_path / "0" / "Dataset002_Heart" / "splits_final.json").read_text())
    assert folds == [{"train": split[0]["train"], "val": split[0]["val"]}]


def test_the_split_follows_from_the_names_and_numpys_generator_alone() -> None:
    names = [f"{letter}" for letter in "abcdefgh"]
    order = [names[at] for at in np.random.default_rng(5).permutation(8)]
    found = divide(names, (5, 1, 2), 5)
    assert found["train"] == sorted(order[:5])
    assert found["val"] == order[5:6]
    assert found["test"] == sorted(order[6:])


def test_fewer_training_cases_leave_validation_and_test_as_they_are(
    heart: Path, tmp_path: Path
) -> None:
    few, whole = (
        json.loads(
            (
                prepare_msd(HEART, heart, tmp_path / str(n), train_cases=n) / "ima_split.json"
            ).read_text()
        )
        for n in (5, None)
    )
    assert len(few["train"]) == 5 and set(few["train"]) < set(whole["train"])
    assert (few["val"], few["test"]) == (whole["val"], whole["test"])
    made = tmp_path / "5" / "Dataset002_Heart"
    assert len(list((made / "imagesTr").iterdir())) == len(list((made / "labelsTr").iterdir())) == 6
    assert json.loads((made / "dataset.json").read_text())["numTraining"] == 6
    with pytest.raises(ValueError, match="another split"):
        prepare_msd(HEART, heart, tmp_path / "5")
    for count in (0, 17):
        with pytest.raises(ValueError, match=f"{count} training cases were asked for"):
            prepare_msd(HEART, heart, tmp_path / "none", train_cases=count)


def test_what_is_there_is_kept_and_another_split_is_refused(heart: Path, tmp_path: Path) -> None:
    made = prepare_msd(HEART, heart, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert prepare_msd(HEART, heart, tmp_path) == made
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    with pytest.raises(ValueError, match=r"another split \(its seed is 0\).*--dataset-id"):
        prepare_msd(HEART, heart, tmp_path, seed=1)
    (made / "ima_split.json").unlink()
    with pytest.raises(ValueError, match="from elsewhere"):
        prepare_msd(HEART, heart, tmp_path)
    with pytest.raises(ValueError, match=r"number 2 is taken .* by Dataset002_Heart"):
        prepare_msd(PROSTATE, heart, tmp_path, number=2)
    assert prepare_msd(HEART, heart, tmp_path, seed=1, number=77).name == "Dataset077_Heart"


# --- What is refused --------------------------------------------------------------------------


def volume(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def edit_header(home: Path, **changes: object) -> None:
    file = home / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def wrong_label(home: Path) -> None:
    file = home / "labelsTr" / "case_003.nii.gz"
    labels = volume(file)
    labels[0, 0, 0] = 2
    write(file, labels)


def half_label(home: Path) -> None:
    file = home / "labelsTr" / "case_003.nii.gz"
    labels = volume(file).astype("f4")
    labels[0, 0, 0] = 0.5
    write(file, labels)


def other_shape(home: Path) -> None:
    write(home / "labelsTr" / "case_003.nii.gz", np.zeros((3, 4, 6), "u1"))


def two_channels(home: Path) -> None:
    write(home / "imagesTr" / "case_003.nii.gz", np.zeros((2, *SHAPE), "f4"))


def truncated(home: Path) -> None:
    file = home / "imagesTr" / "case_003.nii.gz"
    noise = np.random.default_rng(1).normal(size=(30, 40, 50)).astype("f4")
    write(file, noise)
    write(home / "labelsTr" / "case_003.nii.gz", np.zeros(noise.shape, "u1"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def no_nifti(home: Path) -> None:
    (home / "imagesTr" / "case_003.nii.gz").write_bytes(gzip.compress(b"not a volume" * 50))


def one_missing(home: Path) -> None:
    (home / "labelsTr" / "case_003.nii.gz").unlink()


def many_missing(home: Path) -> None:
    shutil.rmtree(home / "imagesTr")


def fewer(home: Path) -> None:
    cases = json.loads((home / "dataset.json").read_text())["training"]
    edit_header(home, training=cases[:-1])


def twice(home: Path) -> None:
    cases = json.loads((home / "dataset.json").read_text())["training"]
    edit_header(home, training=[*cases[:-1], cases[0]])


def outside(home: Path) -> None:
    cases = json.loads((home / "dataset.json").read_text())["training"]
    name = "../../case_000/..nii.gz"
    edit_header(home, training=[*cases[:-1], {"image": name, "label": name}])


def two_names(home: Path) -> None:
    cases = json.loads((home / "dataset.json").read_text())["training"]
    mixed = {"image": cases[0]["image"], "label": cases[1]["label"]}
    edit_header(home, training=[*cases[:-1], mixed])


def no_header(home: Path) -> None:
    (home / "dataset.json").unlink()


def half_a_header(home: Path) -> None:
    (home / "dataset.json").write_text("{")


def no_object(home: Path) -> None:
    (home / "dataset.json").write_text("[]")


def flipped_bit(home: Path) -> None:
    file = home / "labelsTr" / "case_003.nii.gz"
    content = bytearray(file.read_bytes())
    content[-6] ^= 1
    file.write_bytes(content)


DAMAGE: dict[Callable[[Path], None], str] = {
    wrong_label: r"case_003.nii.gz holds the labels 0, 1, 2; expected only 0 to 1",
    half_label: r"case_003.nii.gz holds the labels 0, 0.5, 1; expected only 0 to 1",
    other_shape: r"case_003.nii.gz has the shape \(3, 4, 6\), but its image \(3, 4, 5\)",
    two_channels: r"case_003.nii.gz has the shape \(2, 3, 4, 5\); expected three axes",
    truncated: r"case_003.nii.gz cannot be read",
    flipped_bit: r"labelsTr/case_003.nii.gz cannot be read",
    no_nifti: r"case_003.nii.gz cannot be read",
    one_missing: r"lacks labelsTr/case_003.nii.gz, which dataset.json lists",
    many_missing: r"lacks imagesTr/case_019.nii.gz.* and 17 more",
    fewer: r"has 19 labelled cases; Task02_Heart has 20.*16 for training, 1 for validation and 3",
    twice: r"lists case_019 twice",
    outside: r"lists .*; expected the image and the label of one case",
    two_names: r"lists .*; expected the image and the label of one case",
    lambda home: edit_header(home, training=[]): r"lists no cases",
    lambda home: edit_header(home, training={"image": 1}): r"lists no cases",
    lambda home: edit_header(home, training=[7]): r"lists 7; expected",
    lambda home: edit_header(home, name="Prostate"): r"is the Decathlon's 'Prostate'; expected",
    lambda home: edit_header(home, modality={"0": "T2", "1": "ADC"}): r"has 1 channels: MRI",
    lambda home: edit_header(home, labels={"0": "a", "2": "b"}): r"has 2 labels, background",
    lambda home: edit_header(home, labels=None): r"has 2 labels, background",
    no_header: r"holds no dataset.json of Task02_Heart",
    half_a_header: r"dataset.json is damaged, or no text in JSON: Expecting",
    no_object: r"dataset.json is damaged: it holds list, expected dict",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_copy_is_refused_and_leaves_nothing(
    damage: Callable[[Path], None], damaged: Path, tmp_path: Path
) -> None:
    damage(damaged)
    raw = tmp_path / "raw"
    for source in (damaged, packed(damaged, tmp_path / "damaged.tar")):
        with pytest.raises((ValueError, FileNotFoundError), match=DAMAGE[damage]):
            prepare_msd(HEART, source, raw)
        assert not raw.exists() or not list(raw.iterdir())


def member(name: str, **about: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in about.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("hostile", "match"),
    [
        (member("../evil.txt"), "outside its own folder"),
        (member("Task02_Heart/imagesTr/../../../evil.txt"), "outside its own folder"),
        (member("/tmp/ima-evil.txt"), "outside its own folder"),
        (
            member(
                "Task02_Heart/imagesTr/case_000.nii.gz",
                type=tarfile.SYMTYPE,
                linkname="/etc/passwd",
            ),
            "a link or a device",
        ),
        (
            member(
                "Task02_Heart/imagesTr/case_000.nii.gz", type=tarfile.LNKTYPE, linkname="../../x"
            ),
            "a link or a device",
        ),
        (member("Task02_Heart/labelsTr/pipe", type=tarfile.FIFOTYPE), "a link or a device"),
        (
            member("Task02_Heart/imagesTr", type=tarfile.SYMTYPE, linkname="/tmp"),
            "a link or a device",
        ),
    ],
)
def test_a_hostile_archive_is_refused(
    hostile: tarfile.TarInfo, match: str, heart: Path, tmp_path: Path
) -> None:
    file = tmp_path / "inner" / "hostile.tar"
    file.parent.mkdir()
    with tarfile.open(file, "w") as tar:
        hostile.size = 4 if hostile.isreg() else 0
        tar.addfile(hostile, io.BytesIO(b"evil"))
        tar.add(heart, heart.name)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=match):
        prepare_msd(HEART, file, tmp_path / "inner" / "raw")
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/tmp/ima-evil.txt").exists()


def test_archives_that_are_none_or_hold_another_task(heart: Path, tmp_path: Path) -> None:
    whole = packed(heart, tmp_path / "whole.tar").read_bytes()
    for name, content in (("cut.tar", whole[: len(whole) // 2 + 100]), ("text.tar", b"no archive")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=name):
            prepare_msd(HEART, tmp_path / name, tmp_path / "raw")
    with pytest.raises(FileNotFoundError, match="holds no Task05_Prostate, but Task02_Heart"):
        prepare_msd(PROSTATE, tmp_path / "whole.tar", tmp_path / "raw")
    with pytest.raises(ValueError, match="is the Decathlon's 'HEART'; expected Task05_Prostate"):
        prepare_msd(PROSTATE, heart, tmp_path / "raw")
    with pytest.raises(FileNotFoundError, match="there is no"):
        prepare_msd(HEART, tmp_path / "nowhere", tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_stopped_half_way_nothing_is_left(
    heart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []

    def stop(*arguments: object) -> None:
        copied.append(1)
        if len(copied) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "copy_case", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_msd(HEART, heart, tmp_path / "raw")
    assert len(copied) == 7 and not list((tmp_path / "raw").iterdir())


def test_killed_half_way_no_data_set_is_there_and_the_next_call_makes_it(
    heart: Path, tmp_path: Path
) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from ima.nnunet import msd\n"
        "whole, copied = msd.copy_case, []\n"
        "def copy(*arguments):\n"
        "    copied.append(whole(*arguments))\n"
        "    if len(copied) == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "msd.copy_case = copy\n"
        "msd.prepare_msd(msd.PAPER_TASKS['Task02_Heart'], Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    raw = tmp_path / "raw"
    done = subprocess.run([sys.executable, "-c", script, heart, raw], timeout=100)
    assert done.returncode == -signal.SIGKILL
    assert not list(raw.glob("Dataset*"))
    made = prepare_msd(HEART, heart, raw)
    assert len(list((made / "labelsTr").iterdir())) == 17


# --- Finding, and the command -----------------------------------------------------------------


def test_a_task_is_found_in_the_data_folder(
    heart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMA_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"Looked for: .*medicaldecathlon\.com"):
        locate_task(HEART, None)
    (tmp_path / "msd-heart").mkdir()
    shutil.copytree(heart, tmp_path / "msd-heart" / heart.name)
    assert locate_task(HEART, None) == tmp_path / "msd-heart"
    tar = packed(heart, tmp_path / "Task02_Heart.tar")
    assert locate_task(HEART, None) == tar
    assert locate_task(HEART, Path("mine")) == Path("mine")


def test_the_command_says_what_it_made(
    heart: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(ValueError, match="--raw FOLDER, or set nnUNet_raw"):
        msd("Task02_Heart", heart)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    msd("Task02_Heart", heart, dataset_id=12)
    said = capsys.readouterr().out
    assert "Dataset012_Heart: 16 cases for training, 1 for validation, 3 for test" in said
    assert "ima nnunet plan -d 12 -c 2d" in said
    with pytest.raises(ValueError, match="did you mean 'Task04_Hippocampus'"):
        msd("Task04_Hipocampus", heart)
    with pytest.raises(ValueError, match="the seed is -1"):
        prepare_msd(HEART, heart, tmp_path, seed=-1)


def test_the_real_hippocampus(tmp_path: Path) -> None:
    source = REAL / "msd-hippocampus"
    if not source.is_dir():
        pytest.skip(f"real data looked for at {source.absolute()} (IMA_DATA) and not found")
    task = PAPER_TASKS["Task04_Hippocampus"]
    made = prepare_msd(task, source, tmp_path)
    split = json.loads((made / "ima_split.json").read_text())
    assert [len(split[role]) for role in ("train", "val", "test")] == [208, 17, 35]
    assert len(list((made / "imagesTr").iterdir())) == 225
    assert len(list((made / "labelsTs").iterdir())) == 35
    for name in split["test"]:
        copy = made / "imagesTs" / f"{name}_0000.nii.gz"
        whole = source / task.name / "imagesTr" / f"{name}.nii.gz"
        assert copy.read_bytes() == whole.read_bytes()
