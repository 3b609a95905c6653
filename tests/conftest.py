"""What all tests share: one thread, repeatable random numbers, quiet hypothesis."""

from __future__ import annotations

import signal
import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings
from nets import seeded
from torch import nn

from ima.data import load
from ima.networks.small_cnn import small_cnn

torch.set_num_threads(1)

# Started in the background of a shell, or by nohup, this process ignores signals that commands are
# to mind, and so would they.
if threading.current_thread() is threading.main_thread():
    for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(_number) is signal.SIG_IGN:
            _usual = signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
            signal.signal(_number, _usual)

settings.register_profile(
    "ima",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ima")


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and a GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def honest() -> nn.Module:
    """A small network, trained on the digits."""
    torch.manual_seed(0)
    train = load("digits").train
    model = small_cnn(1, 10, width=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    source = seeded(0)
    for _ in range(8):
        for index in torch.randperm(len(train), generator=source).split(64):
            x, y = train[index]
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.zero_grad()
    return model.eval()
