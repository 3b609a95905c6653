"""A trained run as the subject of an evaluation: its weights, on its test or validation part."""

from __future__ import annotations

from dataclasses import replace

from ima.data.stored import bytes_or_digests, chosen_of
from ima.evaluation.partial import batch_mark
from ima.evaluation.settings import TEST, VALIDATION, Settings
from ima.evaluation.subject import Subject
from ima.files import file_digest
from ima.tasks import check_task
from ima.training.build import BOUNDS, build_fabric, build_model
from ima.training.config import build_task
from ima.training.picking import picked
from ima.training.run import Run
from ima.training.same import check_weights
from ima.training.samples import choose, splits_of
from ima.training.tensor_file import CheckpointError
from ima.training.weights import load_file


def run_subject(run: Run, which: str = "best", device: str = "auto") -> Subject:
    """Weights of a run, and the samples that its config asks for.

    which: `"best"` or `"last"` weights, on the test part; `"validation"`: the best weights on the
    whole validation part, by which tuned options are picked, under the config's first attack at
    the middle radius. Raises FileNotFoundError before the run's first epoch is done.
    """
    config, fabric, tuning = run.config(), build_fabric(device), which == VALIDATION
    splits, asked = splits_of(run), config.evaluate
    weights = run.weights("best" if tuning else which)
    if not weights.exists():
        raise FileNotFoundError(
            f"{run.folder} holds no {weights.stem} weights yet ({weights.name}); train it first: "
            f"ima train --resume {run.folder}"
        )
    model = build_model(config, splits)
    # Before it is read: results of weights that are replaced meanwhile count as old.
    file = file_digest(weights)
    check_weights(weights, config, splits)
    try:
        load_file(model, weights)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Put the run's own weights and config back, or train again"
        ) from error
    whole = splits.val if tuning else splits.test
    chosen = choose(whole, None if tuning else asked.samples)
    part = whole
    if len(chosen) < len(whole):
        images, targets = chosen_of(whole.images, chosen), whole.targets[chosen]
        part = replace(whole, images=images, targets=targets)
    settings = Settings(
        part=VALIDATION if tuning else TEST,
        weights=weights.stem,
        file=file,
        total=len(whole),
        data_digest=batch_mark(bytes_or_digests(part.images), part.targets),
    )
    return Subject(
        fabric.to_device(model),
        part,
        check_task(build_task(config)),
        config.norm,
        BOUNDS,
        run.results(which).parent,
        which,
        settings if which == "last" else settings.but(**picked(run)),
        eps=(asked.middle,) if tuning else tuple(asked.eps),
        attacks=tuple(asked.attacks[:1] if tuning else asked.attacks_on(which)),
        ids=chosen.tolist(),
        classes=splits.classes,
        batch_size=asked.batch_size,
        pictures=which == "best",
    )
