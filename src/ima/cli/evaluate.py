"""`ima evaluate`: what noise breaks a trained run, a network from elsewhere, or an nnU-Net."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ima.cli.limits import STATED
from ima.cli.streams import as_json, aside
from ima.evaluation.stated import NOTHING, Stated

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
    ELSEWHERE: "give --model too",
    NNUNET: "give --nnunet FOLDER too",
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
    precision: Literal["float32", "bfloat16", "auto"] = "float32",
    time_budget: str | None = None,
    trust: Annotated[bool, Parameter(negative="")] = False,
    plan: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    stated: Annotated[Stated, STATED] = NOTHING,
) -> None:
    """Attack a trained network on test data, and write what was found.

    Processes that torchrun or srun starts share the batches out; the rows are those of one.

    Parameters
    ----------
    run:
        The run's folder, or a folder of runs such as a comparison's: each of them. With --model: a
        file of weights, .safetensors or .pt, in any usual layout; no code in it is run.
    nnunet:
        The folder of a trained nnU-Net, such as
        nnUNet_results/Dataset004_Hippocampus/nnUNetTrainerIMA__nnUNetPlans__2d. Its test cases are
        imagesTs and labelsTs of its data set in nnUNet_raw.
    attacks:
        Names such as pgd-100 (see `ima list attacks`). Default: the config's; without a config
        pgd-100 ifgsm-10, for segmentation ensemble-100 noise-100 too.
    eps:
        Noise radii. Default: the config's. For a trained nnU-Net in units of normalised images;
        default: the paper's for its data sets.
    checkpoint:
        Which weights: best (of the epoch that validation picked), last, both; or validation: the
        best weights on the validation part, as comparisons use to pick tuned options. Default:
        both.
    distances:
        Also find the smallest noise that breaks each test sample, for a run's best weights.
    checks:
        Also look for signs that the attacks were weak, not the network robust (see `ima list
        checks`). Uses a run's best weights, unless --checkpoint is last.
    strict:
        Run the checks, and end with exit code 3 if one trips.
    transfer_from:
        Another run on the same data: the checks try its noise on this network.
    model:
        The network from elsewhere: module:function that builds it (or module:name of the network),
        or a name of `ima list networks`. With a run's folder: repeats its network, see --trust.
    data:
        For a network from elsewhere: module:function that returns a data set of (x, y), or a name
        of `ima list data`, whose test part is used. Class names come from its attribute `classes`.
    task:
        For a network from elsewhere: a name of `ima list tasks` (with several findings a sample:
        multilabel), or module:name of a task of your own. Default: what the network's answer shows.
    norm:
        For a network from elsewhere: 2 or linf. Default: 2.
    bounds:
        For a network from elsewhere: lowest and highest value of its inputs, such as 0 1. Default:
        no bounds; 0 1 for data by name.
    channels:
        For a network from elsewhere: the number of input channels to build it with. Default: the
        data's.
    num_classes:
        For a network from elsewhere: the number of classes to build it with. If you give neither
        number, a module:function is called without arguments, or with both numbers for data by
        name.
    ignore_label:
        For a segmentation network from elsewhere: pixels with this label do not count.
    regions:
        For a segmentation network from elsewhere: each channel is a region through a sigmoid
        (--regions), or a class through softmax (--no-regions). Default: what the masks show;
        one-hot masks with every pixel in one channel mean classes.
    cases:
        For a network from elsewhere: the case (patient) of each sample, which intervals need:
        module:name of a list or of a function that returns one, a key of the data's dicts, or a
        place in its tuples such as 2. Default: the data's attribute `cases`.
    images:
        For a trained nnU-Net: a folder of other test images, with nnU-Net's file names.
    labels:
        For a trained nnU-Net: the folder of the labels of --images.
    samples:
        For a trained nnU-Net: how many slices to attack, spread evenly over all cases. Default:
        all.
    fold:
        For a trained nnU-Net: which fold's weights. Default: the fold's, if there is only one.
    weights:
        For a trained nnU-Net: final (last epoch) or best (nnU-Net's choice). Default: final.
    out:
        For a trained nnU-Net: folder for the results. Default: ima in the fold's folder.
    device:
        cpu, cuda, mps or auto.
    seed:
        Seed of the attacks' random starts.
    precision:
        Of the gradients that pgd and ifgsm follow, for labels: bfloat16 may be faster, auto tries.
        What is broken is decided in float32.
    time_budget:
        Such as 540s, 9m or 1h30m. Stop, with exit code 75, before a batch that may take too long;
        the same command continues. Each call does at least one batch.
    trust:
        Run the code of a network that a run's config names as module:function. Without it such a
        run is refused, unless --model repeats the same path.
    plan:
        Such as 0.02: print how many samples make 95 % intervals of ± 0.02, and attack nothing. With
        a run that is evaluated, or a results file: at its accuracies, its cases counted.
    json:
        Print the page of `ima report` as JSON, for programs, and nothing else.
    stated:
        What the page says of it, as of `ima report`.

    """
    # First, before there are other names.
    given = dict(locals())
    from ima.budget import Budget

    if plan is not None:
        if json:
            raise ValueError("--plan prints text; leave --json out")
        from ima.cli.planning import tell_plan

        tell_plan(plan, run)
        return

    # Before the imports below, so that what they take counts too.
    budget = None if time_budget is None else Budget.parse(time_budget)
    kind = subject_kind(given)
    if kind == RUN and run is not None and run.is_file():
        raise ValueError(
            f"{run} is a file and no run; give a run's folder, or say how to build the network of "
            "these weights: --model module:function --data ... --eps ..."
        )
    if transfer_from is not None and not (checks or strict):
        raise ValueError("--transfer-from belongs to the checks; give --checks too")
    from ima.cli import evaluate_subjects as subjects
    from ima.cli.processes import joined

    make = {RUN: subjects.of_run, ELSEWHERE: subjects.of_foreign, NNUNET: subjects.of_nnunet}
    each = [given]
    if kind == RUN and run is not None and run.is_dir() and not (run / "config.yaml").is_file():
        each = [{**given, "run": one} for one in subjects.runs_in(run)]
    with joined() as first:
        with aside(json):
            worked = [subjects.work(make[kind](one), one, budget, first=first) for one in each]
        ends = [end for end in worked if end is not None]
        if json and first:
            from ima.report.entries import group
            from ima.report.html.jsonform import page_data

            print(as_json(page_data(group([end.source for end in ends]))))
    # A missed limit goes before a check that tripped: no stronger attack would mend it.
    if code := max((end.code for end in ends), default=0):
        sys.exit(code)


def subject_kind(given: Mapping[str, Any]) -> str:
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
            "there is nothing to evaluate; give a run's folder, weights with --model, or a trained "
            "nnU-Net with --nnunet"
        )
    return kind
