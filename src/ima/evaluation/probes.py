"""What each check measures: a function of the bench, which returns what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ima.attacks.inputs import no_trace
from ima.evaluation.bench import Bench
from ima.evaluation.checks_results import Evidence, in_words, percent, share
from ima.evaluation.chosen import LEAST
from ima.evaluation.mates import SIZE, meet
from ima.evaluation.remarks import capital
from ima.evaluation.square import why_not
from ima.evaluation.watch import sums_to_one
from ima.tasks import Classification
from ima.tasks.checked import one_each, task_name
from ima.tasks.pixels import wide

ANOTHER = 0.002
"""Share of samples by which an attack that knows less may beat the white-box attack."""

_SAME = 0.005
"""Share of samples by which an attack may miss what it should find."""

BLIND = 0.01
"""Share of samples that may have no usable gradient."""

_TINY = 1.2e-38
"""The L2 length under which float32 has no digits left for a gradient's entries."""

FLOOR = 1e-12
"""The L2 length under which attacks hardly move that add a floor to it; those here add none."""

NOISE = 1e-3
"""Share of the largest output by which two passes may differ; rounding is far below."""


class NotRun(Exception):  # noqa: N818  # it is no error: nothing went wrong
    """A check that cannot be run here; the text says why."""


@dataclass(frozen=True)
class Probed:
    """What a check found; see `ima.evaluation.checks_results.Check`."""

    tripped: bool
    sentence: str
    evidence: Evidence


def gradients(bench: Bench) -> Probed:
    """Lengths of the loss's gradient at the clean samples, as plain float32 arithmetic gives it."""
    lengths: list[Tensor] = []
    for _, x, y in bench.parts():
        with no_trace(bench.model, x) as inner:
            leaf = wide(x.detach().clone()).requires_grad_()
            name = f"{task_name(bench.task)}.loss"
            loss = one_each(bench.task.loss(inner(leaf), y), len(x), name).sum()
            gradient = torch.zeros_like(leaf)
            if loss.requires_grad:
                (gradient,) = torch.autograd.grad(
                    loss, leaf, allow_unused=True, materialize_grads=True
                )
        # Not every device has float64.
        length = torch.linalg.vector_norm(gradient.cpu().double().reshape(len(x), -1), dim=1)
        lengths.append(torch.where(torch.isfinite(length), length, 0))
    length = torch.cat(lengths)
    zero, tiny = int((length == 0).sum()), int((length < _TINY).sum())
    return Probed(
        _many(tiny, bench, BLIND),
        f"The loss's gradient is zero, or too small for float32, at {tiny} clean samples, "
        f"{in_words(tiny, bench.n)}; {percent(BLIND)} or two samples are tolerated.",
        {
            "exactly zero": share(zero, bench.n),
            "zero or tiny": share(tiny, bench.n),
            f"shorter than {FLOOR:g}": share(int((length < FLOOR).sum()), bench.n),
            "median length": float(length.median()),
        },
    )


def one_step(bench: Bench) -> Probed:
    """FGSM against PGD."""
    return _against(bench, ["one step"], _SAME)


def black_box(bench: Bench) -> Probed:
    """Square against PGD."""
    if reason := why_not(bench.chosen.x[:1], bench.setting(0)):
        raise NotRun(reason)
    return _against(bench, ["black-box"], ANOTHER)


def random_noise(bench: Bench) -> Probed:
    """Random points of the ball against PGD."""
    return _against(bench, ["random noise"], ANOTHER)


def converged(bench: Bench) -> Probed:
    """PGD with more steps and with more random starts against what the evaluation reports."""
    return _against(bench, ["more steps", "more restarts"], _SAME, "reported")


def transfer(bench: Bench) -> Probed:
    """Noise made for another model against PGD."""
    if bench.transfer is None:
        raise NotRun("no other model was given: `ima evaluate RUN --checks --transfer-from RUN2`")
    return _against(bench, ["transfer"], ANOTHER)


def monotone(bench: Bench) -> Probed:
    """PGD at every radius against PGD at every larger one."""
    if len(bench.radii) < 2:
        raise NotRun("there is one radius only; give several")
    broken = {eps: int(bench.broken("white-box", eps).sum()) for eps in bench.radii}
    drops = [(broken[a] - broken[b], a, b) for a in bench.radii for b in bench.radii if a < b]
    drop, small, large = max(drops, key=lambda found: found[0])
    title = bench.title("white-box")
    return Probed(
        _many(drop, bench, _SAME),
        f"{title} breaks {broken[small]} of {bench.n} samples at eps {small:g} and "
        f"{broken[large]} at {large:g}.",
        {f"{title} breaks, at {eps:g}": share(broken[eps], bench.n) for eps in bench.radii},
    )


def huge_noise(bench: Bench) -> Probed:
    """PGD at a radius that should break everything."""
    if not isinstance(bench.task, Classification):
        raise NotRun("this task has no classes among which one could guess")
    classes, eps = max(2, bench.outputs()[0][0].shape[1]), bench.huge
    # No random start: one that far away is wrong by itself, whatever the gradients are worth.
    stand = bench.n - int(bench.broken("walk", eps).sum())
    beyond = stand - bench.n / classes
    return Probed(
        _many(beyond, bench, _SAME),
        f"Under {bench.title('walk')}, with noise of size {eps:g}, "
        f"{in_words(stand, bench.n)} of the samples stand; guessing among {classes} classes gives "
        f"{percent(1 / classes)}.",
        {"eps": eps, "accuracy": share(stand, bench.n), "chance": 1 / classes},
    )


def probabilities(bench: Bench) -> Probed:
    """Whether the outputs are between 0 and 1 and sum to 1."""
    if not isinstance(bench.task, Classification):
        raise NotRun("this task has no logits of classes")
    output = torch.cat([first.cpu() for (first,) in bench.outputs()])
    inside = ((output >= -1e-6) & (output <= 1 + 1e-6)).all(1)
    alike = inside & sums_to_one(output) if output.shape[1] > 1 else inside
    # Logits of a linear layer may lie there by chance.
    count = 0 if bench.chosen.met.end == "linear" else int(alike.sum())
    return Probed(
        count == bench.n,
        f"Outputs are between {float(output.min()):.4g} and {float(output.max()):.4g}; those of "
        f"{count} of {bench.n} samples look like probabilities.",
        {
            "look like probabilities": share(count, bench.n),
            "smallest output": float(output.min()),
            "largest output": float(output.max()),
        },
    )


def deterministic(bench: Bench) -> Probed:
    """Two passes over the same samples."""
    differences: list[Tensor] = []
    for first, second in (map(wide, pair) for pair in bench.outputs(passes=2)):
        both, same = torch.maximum(first.abs(), second.abs()), first == second
        # Logits that are masked with -inf, in both passes, are the same.
        size = torch.where(same & both.isinf(), 0, both).amax(1).clamp_min(1e-30)
        apart = torch.where(same, 0, (first - second).abs()).amax(1) / size
        # What is not finite in one pass differs: no comparison with NaN is true.
        differences.append(torch.nan_to_num(apart, nan=1.0).cpu())
    difference = torch.cat(differences)
    count = int((difference > NOISE).sum())
    most = float(difference.max())
    told = f"differ by up to {most:.2g} of the largest output; by more than {NOISE:g} for {count}"
    return Probed(
        count >= LEAST,
        f"Two passes over the same {bench.n} samples {told if most else 'give the same outputs'}.",
        {"differ": share(count, bench.n), "largest difference": float(difference.max())},
    )


def batch_mates(bench: Bench) -> Probed:
    """The same samples in other batches."""
    met = meet(bench.model, bench.chosen.x[: 4 * SIZE])
    if met.random and not met.causes:
        raise NotRun("two passes over one batch differ, so company cannot be told from chance")
    n, most = len(met.apart), float(met.apart.max())
    count = int((met.apart > met.tolerated).sum())
    told = (
        f"differ by up to {most:.2g} of the largest output; by more than {met.tolerated:g} for "
        f"{count}"
        if most > met.tolerated
        else "give the same outputs, but for rounding"
    )
    alone = " A sample alone cannot pass." if met.refused else ""
    why = f" {capital(met.causes)}." if met.causes else ""
    return Probed(
        count >= LEAST or met.certain or met.refused,
        f"{n} samples alone, in a pair, in half a batch and in another order {told}.{alone}{why}",
        {"differ": share(count, n), "largest difference": most},
    )


def _against(
    bench: Bench, attacks: Sequence[str], tolerated: float, known: str = "white-box"
) -> Probed:
    """Attacks that must find nothing new, against the one that is `known`, at every radius."""
    base, evidence, most = bench.title(known), dict[str, object](), (-1, "", 0.0)
    for eps in bench.radii:
        old = bench.reported(eps) if known == "reported" else bench.broken(known, eps)
        evidence[f"accuracy under {base}, at {eps:g}"] = share(int((~old).sum()), bench.n)
        for attack in attacks:
            name, found = bench.title(attack), bench.broken(attack, eps)
            new = int((found & ~old).sum())
            evidence[f"accuracy under {name}, at {eps:g}"] = share(int((~found).sum()), bench.n)
            evidence[f"only {name} breaks, at {eps:g}"] = share(new, bench.n)
            most = max(most, (new, name, eps), key=lambda one: one[0])
    new, name, eps = most
    samples = "sample" if new == 1 else "samples"
    return Probed(
        _many(new, bench, tolerated),
        f"At eps {eps:g}, {name} breaks {new} {samples} that {base} leaves standing, "
        f"{in_words(new, bench.n)}; {percent(tolerated)} or two samples are tolerated.",
        evidence,
    )


def _many(count: float, bench: Bench, tolerated: float) -> bool:
    """Whether so many samples are above what is tolerated, and enough to be seen at all."""
    return count >= LEAST and count > tolerated * bench.n
