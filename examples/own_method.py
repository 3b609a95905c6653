"""A training method of your own: in a loop of your own, and in `ima compare` beside the others.

`Ramp` trains on noisy samples whose radius grows over the first half of the run. As a script, this
file trains it on 256 handwritten digits; run it with `python own_method.py`, it takes half a minute
on one core. A config names the class by `module:name`, wherever the file lies:

    PYTHONPATH=folder/of/this/file ima compare digits --out ramp "compare=[
        {label: Ramp, method: {name: own_method:Ramp, eps: 1.0}},
        {label: SAT, method: {name: sat, eps: 1.0}}]"
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from ima import Indexed, Noisy, Step, Task, evaluate
from ima.data import load
from ima.networks.small_cnn import small_cnn


class Ramp(Noisy):
    """Train on noisy samples, within `first * eps` at the start and within eps from the middle on.

    eps: the largest radius, in x's units and `norm`; first: 0 to 1. What a config does not set,
    `ima train` and `ima compare` set themselves: norm, bounds, task and seed.
    """

    def __init__(
        self,
        *,
        eps: float,
        first: float = 0.1,
        steps: int = 10,
        norm: float | str = 2,
        bounds: tuple[float, float] | None = None,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(eps=eps, norm=norm, bounds=bounds, steps=steps, task=task, seed=seed)
        if not 0 <= first <= 1:
            raise ValueError(f"first is {first}; expected a share, 0 to 1")
        self.first = first

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ids: Tensor) -> Step:
        """The step's loss; x: (B, *dims), y: the task's targets; ids are not used."""
        x, y, box = self.prepare(x, y, ids)
        right = self.right(model, x, y)  # without noise, for the record
        # `end_epoch` counts: epoch 0 is the first, and the run's length is known after it.
        radius = min(1.0, self.first + 2 * self.epoch / self.epochs) * self.full_radius(x)
        start = self.uniform_start(x, radius, box)
        walked = self.walk(model, x, y, radius, 2.5 * radius / self.steps, box, start=start)
        return self.train_on(model, walked.x, y, right, walked.stuck)


def main(epochs: int = 40) -> None:
    """Train, and evaluate with noise."""
    torch.manual_seed(0)
    digits = load("digits")
    train_set, test_set = Subset(digits.train, range(256)), Subset(digits.test, range(200))
    model = small_cnn(channels=1, num_classes=10, width=8)
    method = Ramp(eps=1.0, bounds=(0, 1), steps=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for epoch in range(epochs):
        for x, y, ids in DataLoader(Indexed(train_set), batch_size=128, shuffle=True):
            step = method(model, x, y, ids)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
        method.end_epoch(epoch, epochs)
    found = evaluate(model, test_set, eps=0.7, attacks=["pgd-20"], norm=2, bounds=(0, 1))
    print(
        f"clean accuracy {found.accuracy():.1%}, "
        f"under noise of size 0.7 {found.accuracy('pgd-20', 0.7):.1%}"
    )


if __name__ == "__main__":
    main()
