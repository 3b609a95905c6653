"""`ima evaluate`: what noise breaks a trained run, a network from elsewhere, or an nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

RUN, ELSEWHERE, NNUNET = "a run", "a network from elsewhere", "a trained nnU-Net"

WHOSE: Mapping[str, tuple[str, ...]] = {
    "run": (RUN, ELSEWHERE),
    "transfer_from": (RUN, ELSEWHERE),
    "model": (RUN, ELSEWHERE),
    "checkpoint": (RUN,),
    **dict.fromkeys(("task", "data", "norm", "bounds", "channels", "num_classes"), (ELSEWHERE,)),
    **dict.fromkeys(("ignore_label", "regions", "cases"), (ELSEWHERE,)),
    **dict.fromkeys(("images", "labels", "samples", "fold", "weights", "out"), (NNUNET,)),
}
"""The options that not every subject has, and whose they are."""

OTHERS: Mapping[str, str] = {
    RUN: "leave it out with --model",
    ELSEWHERE: "say --model too",
    NNUNET: "say --nnunet FOLDER too",
}
"""What to do about an option of another subject."""


def evaluate(
    run: Path | None = None,
    /,
    *,
    nnunet: Path | None = None,
    attacks: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    eps: Annotated[list[float] | None, Parameter(consume_multiple=True, negative="")] = None,
    checkpoint: Literal["best", "last", "both", "validation"] | None = None,
    distances: Annotated[bool, Parameter(negative="")] = False,
    checks: Annotated[bool, Parameter(negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
    transfer_from: Path | None = None,
    model: str | None = None,
    data: str | None = None,
    task: str | None = None,
    norm: str | None = None,
    bounds: tuple[float, float] | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    ignore_label: int | None = None,
    regions: bool | None = None,
    cases: str | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    samples: int | None = None,
    fold: str | None = None,
    weights: Literal["final", "best"] | None = None,
    out: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    time_budget: str | None = None,
    trust: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Attack a trained run on its test part and write the results into its folder.

    Or a network from elsewhere: its weights in place of the run, and --model, --data and --eps.
    Or a trained nnU-Net, slice by slice: --nnunet FOLDER in place of the run.
    Finished batches are kept: after a stop, the same command continues.

    Parameters
    ----------
    run:
        The run's folder; or, with --model, a file of weights: .safetensors or .pt, of any usual
        layout. Nothing in it is executed.
    nnunet:
        A trained nnU-Net's folder, such as
        nnUNet_results/Dataset004_Hippocampus/nnUNetTrainerIMA__nnUNetPlans__2d; its test cases are
        imagesTs and labelsTs of the data set in nnUNet_raw.
    attacks:
        Such as pgd-100 (see `ima list attacks`). If not given: a run's are the config's; others'
        pgd-100 ifgsm-10, and for segmentation ensemble-100 noise-100 too.
    eps:
        Noise radii; the config's if not given. For a trained nnU-Net in units of normalised images,
        the paper's for its data sets if not given.
    checkpoint:
        The weights of the epoch that validation picked, of the last one, or both, if not given; or
        the picked weights on the validation part, by which comparisons pick tuned options.
    distances:
        Also look for the smallest noise that breaks each test sample, for a run's best weights.
    checks:
        Also look for signs that these attacks were weak rather than the network robust (see
        `ima list checks`), on a run's best weights unless --checkpoint is last.
    strict:
        Run the checks, and end with exit code 3 where one trips.
    transfer_from:
        Another run on the same data: the checks try its noise on this network.
    model:
        Of a network from elsewhere: module:function that builds it, or that is it, or a name of
        `ima list networks`. With a run's folder: its network said again, see --trust.
    data:
        For a network from elsewhere: module:function that gives a data set of (x, y), or a name
        of `ima list data`, whose test part is taken. Its attribute `classes` names the classes.
    task:
        Of a network from elsewhere: classification, segmentation, or module:name of a task of your
        own; if not given, the network's answer tells.
    norm:
        For a network from elsewhere: 2 or linf; 2 if not given.
    bounds:
        For a network from elsewhere: lowest and highest value of its inputs, such as 0 1; none if
        not given, 0 1 for data by name.
    channels:
        For a network from elsewhere: what its function is called with; from the data if not given.
    num_classes:
        For a network from elsewhere: what its function is called with; if neither is given, a
        module:function is called without arguments, for data by name with both numbers.
    ignore_label:
        For a segmentation network from elsewhere: the label of pixels that count nowhere.
    regions:
        For a segmentation network from elsewhere: each channel is a region through a sigmoid
        (--regions), or a class through softmax (--no-regions); as the masks have it if not given,
        where one-hot masks, every pixel in one channel, mean classes.
    cases:
        For a network from elsewhere: from which case (patient) each sample is, as intervals need
        it: module:name of a list or of a function that gives one, a key of the data's dicts, or a
        place in its tuples such as 2; the data's attribute `cases` if not given.
    images:
        For a trained nnU-Net: a folder of other test images, in nnU-Net's file names.
    labels:
        For a trained nnU-Net: the folder of their labels.
    samples:
        For a trained nnU-Net: so many slices only, spread evenly over all cases.
    fold:
        For a trained nnU-Net: which fold's weights; the only one's if not given.
    weights:
        For a trained nnU-Net: of the last epoch (final, if not given), or nnU-Net's best ones.
    out:
        For a trained nnU-Net: where results go; ima in the fold's folder if not given.
    device:
        cpu, cuda, mps or auto.
    seed:
        Of the attacks' random starts.
    time_budget:
        Such as 540s, 9m or 1h30m: stop, with exit code 75, before a batch that may not fit in; the
        same command continues. But each call does at least one batch.
    trust:
        Import the network that a run's config names by module:function, which runs its code;
        without, such a run is refused, unless --model says the same path again.

    """
    # First, before there are other names.
    given = dict(locals())
    from ima.budget import Budget

    # Before the imports below, so that what they take counts too.
    budget = None if time_budget is None else Budget.parse(time_budget)
    kind = kind_of(given)
    if kind == RUN and run is not None and run.is_file():
        raise ValueError(
            f"{run} is a file and no run; name a run's folder, or say how to build the network "
            "that it holds the weights of: --model module:function --data ... --eps ..."
        )
    if transfer_from is not None and not (checks or strict):
        raise ValueError("--transfer-from belongs to the checks; say --checks too")
    from ima.cli import evaluate_subjects as subjects

    make = {RUN: subjects.of_run, ELSEWHERE: subjects.of_foreign, NNUNET: subjects.of_nnunet}
    subjects.work(make[kind](given), given, budget)


def kind_of(given: Mapping[str, Any]) -> str:
    """What is to be evaluated; ValueError for options that do not belong to it."""
    run, model = given["run"], given["model"]
    again = model is not None and run is not None and (run / "config.yaml").is_file()
    kind = RUN if model is None or again else ELSEWHERE
    kind = kind if given["nnunet"] is None else NNUNET
    for name, whose in WHOSE.items():
        if given[name] is None or kind in whose:
            continue
        option = RUN if name == "run" else f"--{name.replace('_', '-')}"
        if kind == NNUNET:
            raise ValueError(
                f"{option} does not go with --nnunet, which names the network and its data; leave "
                "it out"
            )
        raise ValueError(f"{option} belongs to {whose[0]}; {OTHERS[whose[0]]}")
    if run is None and kind != NNUNET:
        raise ValueError(
            "there is nothing to evaluate; name a run's folder, weights with --model, or a trained "
            "nnU-Net with --nnunet"
        )
    return kind
