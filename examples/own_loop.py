"""IMA in a training loop of your own: plain PyTorch, and two lines more than without IMA.

The 256 first handwritten digits train two copies of one network, one with IMA and one without; the
last lines compare them on test digits, with and without noise. Writes run.pt into the current
folder. Run it with `python own_loop.py`; it takes under a minute on one core.
"""

# ruff: noqa: B007, E402 - the part in the middle is for copying: complete, with its own import.
from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from ima import evaluate
from ima.data import load
from ima.networks.small_cnn import small_cnn

torch.manual_seed(0)
digits = load("digits")  # 8x8 pixels, in [0, 1]; any data set of (x, y) will do
train_set, test_set = Subset(digits.train, range(256)), Subset(digits.test, range(200))

model: nn.Module = small_cnn(channels=1, num_classes=10, width=8)  # any nn.Module will do
twin = deepcopy(model)  # trained without IMA, for comparison
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

# The loop with IMA. `bounds` are those of the pixels; the radius of the noise finds itself.
# fmt: off
from ima import IMA, Indexed

loader = DataLoader(Indexed(train_set), batch_size=128, shuffle=True)     # yields (x, y, id)
method = IMA(num_samples=len(train_set), bounds=(0, 1))

for epoch in range(100):
    for x, y, ids in loader:
        step = method(model, x, y, ids)      # finds noise, updates margins and radius
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()

torch.save({"model": model.state_dict(), "method": method.state_dict()}, "run.pt")
# fmt: on

# The same loop without IMA.
optimizer = torch.optim.Adam(twin.parameters(), lr=0.003)
for _ in range(100):
    for x, y in DataLoader(train_set, batch_size=128, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(x), y).backward()
        optimizer.step()

# Which share of the test digits is classified correctly, and stays so under attack?
with_ima, without = (
    evaluate(network, test_set, eps=0.7, attacks=["pgd-20"], norm=2, bounds=(0, 1))
    for network in (model, twin)
)
print(
    f"clean accuracy {without.accuracy():.1%} without IMA, {with_ima.accuracy():.1%} with; "
    f"under noise of size 0.7 {without.accuracy('pgd-20', 0.7):.1%} without IMA, "
    f"{with_ima.accuracy('pgd-20', 0.7):.1%} with"
)

# To go on later: build model and method as above, and load what was saved.
saved = torch.load("run.pt", weights_only=True)
model.load_state_dict(saved["model"])
method = IMA(num_samples=len(train_set), bounds=(0, 1))
method.load_state_dict(saved["method"])
margins = method.margins.values
print(f"loaded {len(margins)} margins, from {margins.min():.2f} to {margins.max():.2f}")
