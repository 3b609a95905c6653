"""The checks that catch a flattering number: a row each, with what it means and what to do.

Raised when, means, do: after the flags of AutoAttack (Croce & Hein, ICML 2020), and the advice of
Carlini et al., "On Evaluating Adversarial Robustness", 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ima.evaluation import probes
from ima.evaluation.bench import Bench
from ima.evaluation.probes import Found


@dataclass(frozen=True)
class CheckRow:
    """One check.

    probe(bench): what it finds; raises `NotRun` with the reason where it cannot be run.
    raised: when it trips; means: for the accuracies; do: about it.
    """

    name: str
    title: str
    probe: Callable[[Bench], Found]
    raised: str
    means: str
    do: str


CHECKS = {
    row.name: row
    for row in (
        CheckRow(
            "gradients",
            "Zero or tiny gradients",
            probes.gradients,
            "The loss's gradient is exactly zero, or so small that float32 has no digits left for "
            "it, at more than 1 % of the clean samples.",
            "A gradient attack has nothing to follow there, or loses what there is to rounding, "
            "and leaves the sample standing. The cause may be rounding or thresholds inside the "
            "model, inputs that are quantised, or logits so large that cross-entropy saturates. "
            "High accuracy under such attacks is then no robustness.",
            "Look at the black-box check. Attack the model without the step that has no gradient, "
            "or with a smooth step in its place in the backward pass. Where the logits are only "
            "large, trust attacks that follow more than cross-entropy: for classifiers pgd and, "
            "with bounds, autoattack+; for segmentation ensemble.",
        ),
        CheckRow(
            "one-step",
            "One step beats many",
            probes.one_step,
            "One step of full length (FGSM) breaks more than 0.5 points of the samples that the "
            "iterative attack (PGD) leaves standing.",
            "PGD may go wherever one step goes, and should break whatever one step breaks. It "
            "does not, because the gradient near the sample leads astray: accuracy under PGD is "
            "too high.",
            "Attack with larger steps, from many random starts, and with an attack that needs no "
            "gradient. Report the accuracy that stands under all of them.",
        ),
        CheckRow(
            "black-box",
            "A black-box attack beats the white-box attack",
            probes.black_box,
            "Square, which reads only outputs, breaks more than 0.2 points of the samples that PGD "
            "leaves standing.",
            "Whoever knows the gradients cannot do worse than who does not, unless the gradients "
            "hide the way. Accuracy under PGD is too high, and so may be that under every other "
            "gradient attack.",
            "Report accuracy under autoattack, which contains Square with more queries, and find "
            "out which part of the model hides its gradients.",
        ),
        CheckRow(
            "random-noise",
            "Random noise beats an attack",
            probes.random_noise,
            "The worst of 100 random points in the ball is wrong for more than 0.2 points of the "
            "samples that PGD leaves standing.",
            "Noise without any aim is the weakest attack there is. An attack that does not equal "
            "it does not work on this model, and its accuracy says nothing.",
            "Do not report the attack. Look at the gradients, the step size, the bounds and the "
            "scaling of the inputs.",
        ),
        CheckRow(
            "monotone",
            "More noise breaks fewer samples",
            probes.monotone,
            "At a larger radius PGD breaks fewer samples than at a smaller one, by more than 0.5 "
            "points.",
            "Every point of the smaller ball lies in the larger one. The attack misses what it "
            "has found before, so the accuracies at larger radii are too high.",
            "Attack with more steps and more random starts, and count a sample as broken at every "
            "radius above one at which it was broken, as ima evaluate does.",
        ),
        CheckRow(
            "huge-noise",
            "Noise without limit does not reach chance",
            probes.huge_noise,
            "At a radius that spans the bounds (ten times the largest radius, where there are "
            "none), accuracy under PGD without random starts stays more than 0.5 points above that "
            "of guessing.",
            "With so much noise every image can be made into any other. An attack that fails then "
            "fails because it does not work, not because the model is robust; this also holds for "
            "small noise. Without bounds it may be that even ten times the radius is small.",
            "Look at the gradients and the step size; without bounds, try larger radii.",
        ),
        CheckRow(
            "converged",
            "The attack has not converged",
            probes.converged,
            "PGD with five times the steps, or from five more random starts, breaks more than 0.5 "
            "points of the samples that stand under every attack of the evaluation.",
            "The attacks stop before they have found what is there. The accuracies are too high, "
            "by at least what is found.",
            "Evaluate a classifier with bounds under autoattack+ too, which follows other losses, "
            "the margin among them for any number of classes, and report the worst case: `ima "
            "evaluate RUN --attacks pgd-100 autoattack+ --checks` looks at the worst case of both. "
            "For segmentation, without bounds, or where it trips again, add pgd-500.",
        ),
        CheckRow(
            "probabilities",
            "Outputs look like probabilities",
            probes.probabilities,
            "The outputs of all samples are between 0 and 1 and sum to 1 (for one output: are all "
            "between 0 and 1).",
            "The losses expect logits. A softmax or a sigmoid in the model is applied a second "
            "time in the loss: gradients become small, and attacks weak. With one output, values "
            "from 0 to 1 all mean the second class.",
            "Evaluate the model without its last softmax or sigmoid.",
        ),
        CheckRow(
            "deterministic",
            "Outputs differ between two passes",
            probes.deterministic,
            "The same samples give outputs that differ by more than 0.1 % of their largest entry.",
            "The model draws random numbers, or carries something from batch to batch. Attacks "
            "follow gradients of one draw and are judged by another; samples count as standing or "
            "as broken by luck.",
            "Switch the randomness off. If it is a defence, attack the average over many draws, "
            "and report accuracy as an average too.",
        ),
        CheckRow(
            "batch-mates",
            "Samples depend on their batch mates",
            probes.batch_mates,
            "The outputs of at least three of 16 samples change with the samples that are beside "
            "them in the batch, by more than 0.1 % of the largest output (0.8 % and 6 % in float16 "
            "and bfloat16), or a sample alone cannot pass.",
            "Statistics are taken from the batch in evaluation too, as by BatchNorm without "
            "running statistics. Accuracy changes with the batch size and the order of samples, "
            "and an attack follows gradients of one batch and is judged in another.",
            "Give BatchNorm layers running statistics (track_running_stats=True) and see that all "
            "of the model is in evaluation mode, or use GroupNorm or LayerNorm. Until then state "
            "the batch size beside every number.",
        ),
        CheckRow(
            "transfer",
            "Noise made for another model beats the attack",
            probes.transfer,
            "Noise made for another model of the same data breaks more than 0.2 points of the "
            "samples that PGD on this model leaves standing.",
            "An attack on the model itself cannot do worse than one on another, unless its "
            "gradients hide the way. Accuracy under PGD is too high.",
            "Report the accuracy that stands under both, and find out which part of the model "
            "hides its gradients.",
        ),
    )
}
