"""The paper's networks: their size, what they compute and refuse; networks from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ima.networks import NETWORKS, build, find_builder
from ima.networks.normalize import Normalize, Standardize
from ima.networks.small_cnn import small_cnn
from ima.training.config import parse_config
from ima.training.config_errors import ConfigError

SMALL = [
    ("small_cnn", 3, 12, {"width": 4}),
    ("small_resnet", 1, 32, {"width": 4}),
    ("paper_cnn", 3, 32, {}),
    ("wide_resnet", 3, 32, {"depth": 10, "width": 1}),
    ("resnet18_in", 1, 40, {}),
    ("mlp", 3, 0, {"width": 8, "depth": 2}),
]
"""Of every network: name, channels, side in pixels (0 for vectors), options that keep it small."""


def images(count: int, channels: int, side: int) -> Tensor:
    return torch.rand(count, channels, side, side) if side else torch.rand(count, channels)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def kinds(model: nn.Module, *wanted: type[nn.Module]) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, wanted)]


# --- Normalisation --------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [(3,), (3, 7), (3, 4, 5), (3, 2, 4, 5)])
def test_normalize_by_channel_at_any_rank(dims: tuple[int, ...]) -> None:
    x = torch.rand(2, *dims)
    mean, std = [0.1, 0.2, 0.3], [1.0, 2.0, 4.0]
    made = Normalize(mean, std)(x)
    for channel in range(3):
        expected = (x[:, channel] - mean[channel]) / std[channel]
        torch.testing.assert_close(made[:, channel], expected)


def test_normalize_by_numbers_is_saved_with_the_weights() -> None:
    layer = Normalize(0.5, 0.25)
    torch.testing.assert_close(layer(torch.tensor([[0.0], [1.0]])), torch.tensor([[-2.0], [2.0]]))
    mixed = Normalize([0.5, 0.0], 0.25)
    torch.testing.assert_close(mixed(torch.ones(1, 2)), torch.tensor([[2.0, 4.0]]))
    assert {k: float(v) for k, v in layer.state_dict().items()} == {"mean": 0.5, "std": 0.25}
    assert size(layer) == 0


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        (0.5, 0.0, "std is 0.0; expected numbers above 0"),
        ([0.1, 0.2], [1.0, -1.0], "expected numbers above 0"),
        ([0.1, 0.2], [1.0, 1.0, 1.0], "as many numbers"),
        (float("nan"), 1.0, "mean is nan; expected a finite number"),
        ([], 1.0, "one for each channel"),
        ([[0.1]], 1.0, "one for each channel"),
    ],
)
def test_normalize_refuses(mean: Any, std: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Normalize(mean, std)


def test_normalize_refuses_another_number_of_channels() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\); expected \(B, 3, \.\.\.\)"):
        Normalize([0.1, 0.2, 0.3], 1.0)(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize("dims", [(9,), (3, 32, 32), (1, 4, 5, 6)])
def test_standardize_is_what_numpy_computes(dims: tuple[int, ...]) -> None:
    x = torch.rand(4, *dims) * torch.tensor([1.0, 5.0, 0.1, 1e-4]).view(-1, *[1] * len(dims))
    expected = np.empty(x.shape)
    for i, image in enumerate(x.double().numpy()):
        expected[i] = (image - image.mean()) / max(image.std(), 1 / np.sqrt(image.size))
    np.testing.assert_allclose(Standardize()(x).numpy(), expected, rtol=1e-4, atol=1e-4)
    # The floor is met: the last sample's deviation is below it for every one of these sizes.
    assert Standardize()(x)[3].std() < 0.9


def test_standardize_makes_a_constant_image_zero_with_a_finite_gradient() -> None:
    x = torch.full((2, 3, 32, 32), 0.3, requires_grad=True)
    made = Standardize()(x)
    torch.testing.assert_close(made, torch.zeros_like(x), rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(made[:, 0, 0, 0].sum(), x)
    # d out / d in = (1 - 1/3072) / floor, and the floor is 1/sqrt(3072).
    assert float(gradient[0, 0, 0, 0]) == pytest.approx((1 - 1 / 3072) * 3072**0.5, rel=1e-4)
    assert bool(gradient.isfinite().all())


def test_standardize_has_the_right_gradient() -> None:
    x = torch.rand(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Standardize(), (x,))


def test_standardize_refuses_samples_without_dims() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, \*dims\)"):
        Standardize()(torch.zeros(4))


# --- Every network --------------------------------------------------------------------------------


def test_the_small_ones_are_all() -> None:
    assert {row[0] for row in SMALL} == set(NETWORKS)


@pytest.mark.parametrize(("name", "channels", "side", "options"), SMALL)
def test_two_steps_lower_the_loss_and_gradients_are_finite(
    name: str, channels: int, side: int, options: dict[str, Any]
) -> None:
    model = build(name, channels, 4, **options)
    x = images(6, channels, side)
    x[0] = 0.5
    x.requires_grad_()
    y = torch.arange(6) % 4
    assert model(x).shape == (6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses: list[float] = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for gradient in (x.grad, *(p.grad for p in model.parameters())):
            assert gradient is not None and bool(gradient.isfinite().all())
    assert losses[2] < losses[0]


@pytest.mark.parametrize(("name", "channels", "side", "options"), SMALL)
def test_batch_mates_do_not_matter_in_evaluation_mode(
    name: str, channels: int, side: int, options: dict[str, Any]
) -> None:
    model = build(name, channels, 4, **options)
    model(images(4, channels, side))  # moves BatchNorm's statistics off their start
    model.eval()
    x = images(3, channels, side)
    mates = torch.cat([x[:1], 0.01 * images(2, channels, side)])
    with torch.no_grad():
        alone, here, there = model(x[:1]), model(x)[:1], model(mates)[:1]
    torch.testing.assert_close(here, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(there, alone, rtol=1e-4, atol=1e-4)


# --- WRN ------------------------------------------------------------------------------------------


def test_wrn_28_4_has_the_papers_number_of_parameters() -> None:
    model = build("wide_resnet", 3, 10)
    assert size(model) == 5_849_050
    assert size(build("wide_resnet", 3, 10, depth=28, width=10)) == 36_479_194  # WRN-28-10: 36.5 M
    convolutions = kinds(model, nn.Conv2d)
    assert len(convolutions) == 1 + 24 + 3
    assert all(c.bias is None for c in convolutions)
    assert not kinds(model, nn.Dropout)


def test_wrn_convolutions_start_by_fan_out() -> None:
    model = build("wide_resnet", 3, 10)
    for module in kinds(model, nn.Conv2d):
        fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
        assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)


def test_wrn_is_the_slow_twin() -> None:
    model = build("wide_resnet", 3, 5, depth=16, width=2)
    for module in kinds(model, nn.BatchNorm2d):
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias, 0, 0.3)
    model(torch.rand(8, 3, 16, 16))
    w = model.eval().state_dict()
    x = torch.rand(2, 3, 16, 16)

    def active(x: Tensor, at: str) -> Tensor:
        mean, var = w[f"{at}.running_mean"], w[f"{at}.running_var"]
        scale = w[f"{at}.weight"] / (var + 1e-5).sqrt()
        made = (x - mean[:, None, None]) * scale[:, None, None] + w[f"{at}.bias"][:, None, None]
        return made.clamp(min=0)

    z = (x - x.mean((1, 2, 3), True)) / x.std((1, 2, 3), unbiased=False, keepdim=True)
    z = F.conv2d(z, w["stem.weight"], padding=1)
    for i, (stride, convolved) in enumerate(
        [(1, True), (1, False), (2, True), (1, False), (2, True), (1, False)]
    ):
        at = f"blocks.{i}"
        first = active(z, f"{at}.norm1")
        inner = F.conv2d(first, w[f"{at}.conv1.weight"], stride=stride, padding=1)
        inner = F.conv2d(active(inner, f"{at}.norm2"), w[f"{at}.conv2.weight"], padding=1)
        if convolved:
            inner = inner + F.conv2d(first, w[f"{at}.shortcut.weight"], stride=stride)
        else:
            inner = inner + z
        z = inner
    assert z.shape == (2, 128, 4, 4)
    z = active(z, "norm").mean((2, 3)) @ w["head.weight"].T + w["head.bias"]
    torch.testing.assert_close(model(x), z, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("depth", [4, 12, 27, -2, 0])
def test_wrn_refuses_other_depths(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth is {depth}; expected 6n \\+ 4"):
        build("wide_resnet", 3, 10, depth=depth)


def test_wrn_refuses_a_width_of_nothing() -> None:
    with pytest.raises(ValueError, match="width is 0; expected at least 1"):
        build("wide_resnet", 3, 10, width=0)


# --- The CNN of 3.3 -------------------------------------------------------------------------------

LAYERS = (
    "Conv(3,32,3,1,1) LR Conv(32,32,3,2,1) IN LR Conv(32,64,3,1,1) IN LR Conv(64,64,3,2,1) IN LR "
    "Conv(64,128,3,1,1) IN LR Conv(128,128,3,2,1) IN LR Conv(128,256,4,1,0) Flatten LN LR "
    "Linear(256,10)"
)
"""As the paper prints it."""


def test_the_papers_cnn_has_the_papers_layers() -> None:
    model = build("paper_cnn", 3, 10)
    names = {nn.LeakyReLU: "LR", nn.InstanceNorm2d: "IN", nn.LayerNorm: "LN", nn.Flatten: "Flatten"}
    said: list[str] = []
    for m in kinds(model, *names, nn.Conv2d, nn.Linear):
        if isinstance(m, nn.Conv2d):
            numbers = (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0])
            said.append(f"Conv({','.join(map(str, numbers))})")
        elif isinstance(m, nn.Linear):
            said.append(f"Linear({m.in_features},{m.out_features})")
        else:
            said.append(names[type(m)])
    assert said == LAYERS.split()
    assert size(model) == 815_466
    assert all(m.affine for m in kinds(model, nn.InstanceNorm2d))
    assert {m.negative_slope for m in kinds(model, nn.LeakyReLU)} == {0.01}


@pytest.mark.parametrize("shape", [(1, 3, 28, 28), (1, 3, 64, 64), (1, 3, 32, 33), (3, 32, 32)])
def test_the_papers_cnn_refuses_other_sizes(shape: tuple[int, ...]) -> None:
    words = f"{shape}; paper_cnn expects (B, channels, 32, 32)"
    with pytest.raises(ValueError, match=re.escape(words)):
        build("paper_cnn", 3, 10)(torch.zeros(shape))


# --- ResNet-18 with InstanceNorm ------------------------------------------------------------------


def test_resnet18_in_has_the_parameters_of_resnet18() -> None:
    model = build("resnet18_in", 1, 2)
    convolutions = [(1, 64, 7)]
    for before, width in ((64, 64), (64, 128), (128, 256), (256, 512)):
        convolutions += [(before, width, 3), *[(width, width, 3)] * 3]
        convolutions += [(before, width, 1)] if before != width else []
    # Every convolution is followed by a norm with a weight and a bias for each channel.
    expected = sum(c * w * k * k + 2 * w for c, w, k in convolutions) + 512 * 2 + 2
    # 11,689,512: ResNet-18 for three channels and 1000 classes.
    assert expected == 11_689_512 - 2 * 64 * 49 - 513 * 1000 + 513 * 2
    assert size(model) == expected
    assert sorted(
        (m.in_channels, m.out_channels, m.kernel_size[0]) for m in kinds(model, nn.Conv2d)
    ) == sorted(convolutions)
    norms = kinds(model, nn.InstanceNorm2d)
    assert len(norms) == 20 and all(m.affine for m in norms)
    assert not kinds(model, nn.BatchNorm2d)


def test_resnet18_in_at_224_pixels() -> None:
    model = build("resnet18_in", 1, 2).eval()
    seen: list[Tensor] = []
    model.get_submodule("blocks.0").register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    model.get_submodule("blocks").register_forward_hook(lambda *call: seen.append(call[2]))
    model.get_submodule("stem").register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    x = torch.rand(1, 1, 224, 224)
    with torch.no_grad():
        assert model(x).shape == (1, 2)
    torch.testing.assert_close(seen[0], 2 * x - 1)
    assert seen[1].shape == (1, 64, 56, 56)
    assert seen[2].shape == (1, 512, 7, 7)


def test_resnet18_in_is_a_plain_function_of_its_weights() -> None:
    model = build("resnet18_in", 1, 2).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.copy_(torch.rand(parameter.shape, generator=generator).double() + 0.5)
    weights = dict(model.named_parameters())

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return (x - mean) / (var + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]

    x = torch.rand(2, 1, 70, 66, generator=generator).double()
    h = F.relu(norm(F.conv2d(2 * x - 1, weights["stem.weight"], stride=2, padding=3), "norm"))
    h = F.max_pool2d(h, 3, 2, 1)
    for i in range(8):
        at, stride = f"blocks.{i}", 2 if i in (2, 4, 6) else 1
        inner = F.conv2d(h, weights[f"{at}.conv1.weight"], stride=stride, padding=1)
        inner = F.relu(norm(inner, f"{at}.norm1"))
        inner = norm(F.conv2d(inner, weights[f"{at}.conv2.weight"], padding=1), f"{at}.norm2")
        if stride == 2:
            h = F.conv2d(h, weights[f"{at}.shortcut.0.weight"], stride=2)
            h = norm(h, f"{at}.shortcut.1")
        h = F.relu(inner + h)
    expected = F.linear(h.mean((2, 3)), weights["head.weight"], weights["head.bias"])
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "least"), [("resnet18_in", 33), ("small_resnet", 17)])
def test_images_that_instance_norm_would_erase_are_refused(name: str, least: int) -> None:
    model = build(name, 1, 2)
    assert model(torch.rand(1, 1, least, least)).shape == (1, 2)
    with pytest.raises(ValueError, match=f"{name} expects .* H, W of at least {least}"):
        model.eval()(torch.rand(1, 1, least - 1, 64))


def test_small_resnet_still_reads_its_trained_weights() -> None:
    norm = ("weight", "bias")
    names = ["stem.weight", *(f"norm.{n}" for n in norm), "head.weight", "head.bias"]
    for block in range(3):
        for i in (1, 2):
            names += [f"blocks.{block}.conv{i}.weight"]
            names += [f"blocks.{block}.norm{i}.{n}" for n in norm]
        if block:
            names += [f"blocks.{block}.shortcut.0.weight"]
            names += [f"blocks.{block}.shortcut.1.{n}" for n in norm]
    assert sorted(build("small_resnet", 1, 2).state_dict()) == sorted(names)


# --- Networks from elsewhere ----------------------------------------------------------------------

MODULE = """
from __future__ import annotations
from typing import TYPE_CHECKING
from torch import nn
if TYPE_CHECKING:
    from nowhere import Unknown

COUNT = 3

def by_place(inputs: int, outputs: int, hidden: int = 4):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Linear(hidden, outputs))

def usual(channels: int, num_classes: int, *, hidden: int = 4, target: str = ""):
    return by_place(channels, num_classes, hidden)

def swapped(num_classes: int, in_chans: int, act: type[nn.Module] | nn.Module = nn.ReLU):
    return nn.Linear(in_chans, num_classes)

def gray(num_classes: int = 1000):
    return nn.Conv2d(1, num_classes, 1)

def lists(in_channels: int, out_channels: int, channels: list[int] | None = None):
    return nn.Linear(in_channels, out_channels)

def needs_lists(in_channels: int, out_channels: int, channels: list[int]):
    return nn.Linear(in_channels, out_channels)

def hides(depth: int = 1, **kwargs):
    return swapped(**kwargs)

def unknown(in_channels, classes, kind: Unknown = None):
    return nn.Linear(in_channels, classes)

def no_classes(in_chans: int, hidden: int = 3): ...

def no_numbers(): ...

def flags(pretrained: bool = False, progress: bool = True): ...

def no_network(channels: int, num_classes: int):
    return channels
"""


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "local_networks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "local_networks"


def config(**network: Any) -> Any:
    method = {"name": "standard"}
    data, evaluate = {"name": "digits"}, {"eps": [1.0]}
    return parse_config(
        {"name": "t", "data": data, "network": network, "method": method, "evaluate": evaluate}
    )


def test_monai_networks_by_their_import_path() -> None:
    name = "monai.networks.nets:DenseNet121"
    options = config(name=name, spatial_dims=2, block_config=[1, 1], growth_rate=8).network.options
    model = build(name, 3, 5, **options)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    deeper = build(name, 3, 5, spatial_dims=3, block_config=[1, 1], growth_rate=8)
    assert deeper(torch.rand(2, 3, 32, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "network.spatial_dims: missing"),
        ({"spatial_dims": "flat"}, "network.spatial_dims: is 'flat'"),
        ({"spatial_dims": 2, "grow_rate": 8}, "Did you mean 'network.growth_rate'"),
        ({"spatial_dims": 2, "in_channels": 3}, "network.in_channels: unknown key"),
    ],
)
def test_options_of_monai_networks_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        config(name="monai.networks.nets:DenseNet121", **options)


def test_keywords_that_monai_hides() -> None:
    name = "monai.networks.nets:resnet18"
    with pytest.raises(ValueError, match="by the options classes_as and channels_as"):
        build(name, 1, 2)
    keys = {"classes_as": "num_classes", "channels_as": "n_input_channels"}
    assert config(name=name, **keys).network.options == keys
    model = build(name, 1, 2, spatial_dims=2, **keys)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize(
    ("function", "options", "hidden"),
    [
        ("by_place", {}, 4),
        ("by_place", {"hidden": 6}, 6),
        ("usual", {"hidden": 6, "target": "a"}, 6),
    ],
)
def test_local_networks(local: str, function: str, options: dict[str, Any], hidden: int) -> None:
    name = f"{local}:{function}"
    assert config(name=name, **options).network.options == options
    model = build(name, 3, 2, **options)
    assert [tuple(p.shape) for p in model.parameters()][::2] == [(hidden, 3), (2, hidden)]
    # As every builder is called.
    assert find_builder(name)(3, 2, **options)(torch.rand(5, 3)).shape == (5, 2)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        ("swapped", {}),
        ("lists", {}),
        ("unknown", {"kind": "any"}),
        ("hides", {"classes_as": "num_classes", "channels_as": "in_chans"}),
    ],
)
def test_numbers_go_by_name(local: str, function: str, options: dict[str, Any]) -> None:
    name = f"{local}:{function}"
    assert config(name=name, **options).network.options == options
    assert build(name, 3, 2, **options)(torch.rand(5, 3)).shape == (5, 2)


def test_a_network_that_is_told_no_channels_must_fit(local: str) -> None:
    assert build(f"{local}:gray", 1, 7)(torch.rand(1, 1, 2, 2)).shape == (1, 7, 2, 2)
    with pytest.raises(ValueError, match="takes 1 channels, the data set has 3"):
        build(f"{local}:gray", 3, 7)


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        ("COUNT", {}, "not a callable object"),
        ("absent", {}, "has no attribute 'absent'"),
        ("no_classes", {}, "takes in_chans, hidden; expected"),
        ("no_numbers", {}, "takes nothing; expected"),
        ("needs_lists", {}, "needs 'channels'"),
        ("no_network", {}, "made an object of type int"),
        ("flags", {}, "takes pretrained, progress; expected"),
        ("swapped", {"in_chans": 3}, "got the option 'in_chans'; leave it out"),
        ("swapped", {"wide": 3}, "cannot be built: .* unexpected keyword argument 'wide'"),
        ("hides", {"classes_as": "number"}, "cannot be built"),
        ("hides", {"depth": 2}, "takes depth, kwargs; expected a number of classes by name"),
    ],
)
def test_what_cannot_be_called_so_is_refused(
    local: str, function: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        build(f"{local}:{function}", 3, 2, **options)
    assert f"network '{local}:{function}'" in str(caught.value)


def test_names_of_the_table_come_first() -> None:
    assert find_builder("small_cnn") is small_cnn
    with pytest.raises(ValueError, match="Did you mean 'wide_resnet'"):
        find_builder("wide_resnt")
    with pytest.raises(ValueError, match="PYTHONPATH"):
        find_builder("no.such:network")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("RuntimeError('operator a::b does not exist')", "RuntimeError: operator a::b does not"),
        ("KeyError('HOME_OF_NETS')", "KeyError: 'HOME_OF_NETS'"),
        ("OSError('no libnets.so')", "OSError: no libnets.so"),
    ],
)
def test_a_module_that_fails_while_it_is_imported_is_named(
    raised: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_networks.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        find_builder("failing_networks:resnet")
    assert "network 'failing_networks:resnet' cannot be imported" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchvision.models:resnet18", {"classes_as": "num_classes"}),
        ("timm.models:resnet18", {"classes_as": "num_classes", "channels_as": "in_chans"}),
    ],
)
def test_torchvision_need_not_be_built_for_this_torch(name: str, options: dict[str, str]) -> None:
    if find_spec(name.split(".")[0]) is None:
        pytest.skip(f"{name} is not installed")
    # In a process of its own, that torchvision is not mended in by another test.
    script = (
        "import torch\n"
        "from ima.networks import build\n"
        f"model = build({name!r}, 3, 5, **{options})\n"
        "assert model.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 5)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
