"""The checks that catch a flattering number: a row each, with what it means and what to do.

Raised when, means, do: after the flags of AutoAttack (Croce & Hein, ICML 2020), and the advice of
Carlini et al., "On Evaluating Adversarial Robustness", 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ima.evaluation import probes
from ima.evaluation.bench import Bench
from ima.evaluation.probes import Probed


@dataclass(frozen=True)
class CheckRow:
    """One check; its title is a clause, to follow "no sign that".

    probe(bench): what it finds; raises `NotRun` with the reason where it cannot be run.
    raised: when it trips; means: for the accuracies; do: about it.
    """

    name: str
    title: str
    probe: Callable[[Bench], Probed]
    raised: str
    means: str
    do: str


CHECKS = {
    row.name: row
    for row in (
        CheckRow(
            "gradients",
            "Gradients are zero or tiny",
            probes.gradients,
            "The loss's gradient is exactly zero, or too small for float32, at more than 1 % of "
            "the clean samples.",
            "A gradient attack cannot find its way there, so it leaves the sample unbroken. The "
            "cause may be rounding or thresholds inside the model, quantised inputs, or logits so "
            "large that cross-entropy saturates. High accuracy under such attacks does not mean "
            "that the model is robust.",
            "Look at the black-box check. Attack the model without the step that has no gradient, "
            "or replace that step by a smooth one in the backward pass. If the logits are only "
            "large, use attacks that follow more than cross-entropy: for classifiers pgd and, "
            "with bounds, autoattack+; for segmentation ensemble.",
        ),
        CheckRow(
            "one-step",
            "One step beats many",
            probes.one_step,
            "One step of full length (FGSM) breaks more than 0.5 points of the samples that the "
            "iterative attack (PGD) does not break.",
            "PGD can go wherever one step goes, so it should break whatever one step breaks. It "
            "does not, because the gradient near the sample points the wrong way: accuracy under "
            "PGD is too high.",
            "Attack with larger steps, from many random starts, and with an attack that needs no "
            "gradient. Report the accuracy under all of them together.",
        ),
        CheckRow(
            "black-box",
            "A black-box attack beats the white-box attack",
            probes.black_box,
            "Square, which reads only outputs, breaks more than 0.2 points of the samples that PGD "
            "does not break.",
            "An attack that knows the gradients should not do worse than one that does not, unless "
            "the gradients hide the way. Accuracy under PGD is too high, and accuracy under other "
            "gradient attacks may be too high as well.",
            "Report accuracy under autoattack, which contains Square with more queries, and find "
            "out which part of the model hides its gradients.",
        ),
        CheckRow(
            "random-noise",
            "Random noise beats the attack",
            probes.random_noise,
            "The worst of 100 random points in the ball is wrong for more than 0.2 points of the "
            "samples that PGD does not break.",
            "Random noise is the weakest attack there is. An attack that finds less than random "
            "noise does not work on this model, and accuracy under it says nothing.",
            "Do not report the attack. Look at the gradients, the step size, the bounds and the "
            "scaling of the inputs.",
        ),
        CheckRow(
            "monotone",
            "More noise breaks fewer samples",
            probes.monotone,
            "At a larger radius PGD breaks fewer samples than at a smaller one, by more than 0.5 "
            "points.",
            "Every point of the smaller ball also lies in the larger one. The attack misses what "
            "it found before, so the accuracies at larger radii are too high.",
            "Attack with more steps and more random starts. If a sample breaks at one radius, "
            "count it as broken at every larger radius too, as ima evaluate does.",
        ),
        CheckRow(
            "huge-noise",
            "Unlimited noise leaves accuracy above chance",
            probes.huge_noise,
            "At a radius that spans the bounds (ten times the largest radius, where there are "
            "none), accuracy under PGD without random starts stays more than 0.5 points above that "
            "of guessing.",
            "So much noise can turn every image into any other. If an attack still fails, it does "
            "not work on this model, and the model need not be robust; this holds for small noise "
            "too. Without bounds, even ten times the radius may be small.",
            "Look at the gradients and the step size; without bounds, try larger radii.",
        ),
        CheckRow(
            "converged",
            "The attack has not converged",
            probes.converged,
            "PGD with five times the steps, or from five more random starts, breaks more than 0.5 "
            "points of the samples that no attack of the evaluation breaks.",
            "The attacks stop too early. The accuracies are too high, by at least what the longer "
            "attack finds.",
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
            "The losses expect logits. If the model ends in a softmax or sigmoid, the loss applies "
            "it a second time: gradients become small, and attacks weak. With one output, all "
            "values from 0 to 1 mean the second class.",
            "Evaluate the model without its last softmax or sigmoid.",
        ),
        CheckRow(
            "deterministic",
            "Outputs differ between two passes",
            probes.deterministic,
            "The same samples give outputs that differ by more than 0.1 % of their largest entry.",
            "The model draws random numbers, or keeps something from batch to batch. An attack "
            "follows the gradients of one draw and is judged by another, so it is luck whether a "
            "sample counts as broken.",
            "Switch the randomness off. If it is a defence, attack the average over many draws, "
            "and report the average accuracy too.",
        ),
        CheckRow(
            "batch-mates",
            "Samples depend on their batch mates",
            probes.batch_mates,
            "The outputs of at least three of 16 samples change with the other samples of the "
            "batch, by more than 0.1 % of the largest output (0.8 % and 6 % in float16 and "
            "bfloat16), or the model refuses a single sample.",
            "The model takes statistics from the batch in evaluation too, as BatchNorm does "
            "without running statistics. Accuracy changes with the batch size and the order of "
            "samples, and an attack follows the gradients of one batch and is judged in another.",
            "Give BatchNorm layers running statistics (track_running_stats=True) and check that "
            "the whole model is in evaluation mode, or use GroupNorm or LayerNorm. Until then, "
            "state the batch size beside every number.",
        ),
        CheckRow(
            "transfer",
            "Noise made for another model beats the attack",
            probes.transfer,
            "Noise made for another model of the same data breaks more than 0.2 points of the "
            "samples that PGD on this model does not break.",
            "An attack on the model itself should not do worse than one on another model, unless "
            "the gradients hide the way. Accuracy under PGD is too high.",
            "Report the accuracy under both together, and find out which part of the model hides "
            "its gradients.",
        ),
    )
}
