"""(c): AutoAttack at 80, 50 and 15 % robust accuracy, over the authors' code.

The parts are the authors' on both sides. Ours hands each the samples that stand, watches every
point on the way, and looks again at what was found.
"""

from __future__ import annotations

from torch import nn
from torch.utils.data import TensorDataset

from benchmarks import peers
from benchmarks.base import BOUNDS, Answer, Call, Target, World, interleaved
from benchmarks.pgd import AIMS
from ima import evaluate

AT_HALF = 1.3
"""How many times as fast as the authors' at 50 %."""


def run(world: World) -> Answer:
    """Time both at each radius."""
    on = world.small
    count = world.samples // 2
    x, y, net = on.x[:count], on.y[:count], on.frozen()
    data = TensorDataset(x, y)
    answer = Answer(
        "AutoAttack",
        f"{count} samples that {on.name} has right, in L2, the standard version with all budgets. "
        "Ours is `ima.evaluate`, the other pyautoattack's `AutoAttack`, both in one batch. All "
        "radii: one call of ours, in which a larger radius begins with what stands at the smaller "
        "ones, and one of theirs for each.",
        ("aim", "ima", "authors", "authors over ima", "seconds, ima", "seconds, authors"),
        unit="times the cost of ours",
    )
    radii, total = list[float](), 0.0
    # Where all samples fall to the first part, little is left to do.
    for aim in AIMS if not world.quick else (0.0,):
        eps = float(on.distances[:count].quantile(1 - aim))
        said: dict[str, float] = {}

        def ours(eps: float = eps, model: nn.Module = net, said: dict[str, float] = said) -> None:
            found = evaluate(model, data, eps, "autoattack", bounds=BOUNDS)
            said["ima"] = found.accuracy("autoattack", eps)

        def theirs(eps: float = eps, said: dict[str, float] = said) -> None:
            said["authors"] = float(peers.autoattack(net, x, y, eps).float().mean())

        taken = interleaved({"ima": Call(ours), "authors": Call(theirs)}, 1, warm=False)
        ratio = taken["authors"] / taken["ima"]
        radii, total = [*radii, eps], total + taken["authors"]
        answer.rows.append(
            [
                f"{aim:.0%}",
                f"{said['ima']:.1%}",
                f"{said['authors']:.1%}",
                f"{ratio:.2f}",
                f"{taken['ima']:.1f}",
                f"{taken['authors']:.1f}",
            ]
        )
        answer.bars[f"{aim:.0%} robust"] = ratio
        if aim == 0.5:
            text = "AutoAttack at 50% robust over the authors', times as fast"
            answer.targets.append(Target(text, AT_HALF, ratio, False))
    all_at_once = Call(lambda: evaluate(net, data, radii, "autoattack", bounds=BOUNDS))
    seconds = interleaved({"ima": all_at_once}, 1, warm=False)["ima"]
    ratio = total / seconds
    answer.rows.append(["all radii", "-", "-", f"{ratio:.2f}", f"{seconds:.1f}", f"{total:.1f}"])
    answer.bars["all radii"] = ratio
    text = "AutoAttack at all three radii over the authors', times as fast"
    answer.targets.append(Target(text, AT_HALF, ratio, False))
    return answer
