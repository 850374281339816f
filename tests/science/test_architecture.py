"""From dials to layers. The counts made without torch are held against the torch module itself."""

import dataclasses
import math
import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dae.architecture import Layer, encoder_layers, mac_count, parameter_count, receptive_field
from dae.config import DATASETS, ModelConfig, TrainConfig, check_dataset, default_training
from dae.errors import UserError
from dae.model import DenoisingAutoencoder

each_depth = pytest.mark.parametrize("depth", range(1, 10))
configs = st.builds(
    ModelConfig,
    depth=st.integers(1, 40),
    latent=st.integers(1, 28),
    latent_channels=st.integers(1, 64),
    width=st.integers(1, 128),
)


def cells(depth: int) -> list[ModelConfig]:
    return [ModelConfig(depth=depth, latent=latent) for latent in range(1, 29)]


# ---- the rule that makes every depth and latent size a valid model


@each_depth
def test_sizes_and_channels_chain_from_image_to_latent(depth: int) -> None:
    for config in cells(depth):
        layers = encoder_layers(config)
        assert len(layers) == depth
        assert (layers[0].channels_in, layers[0].size_in) == (1, 28)
        assert (layers[-1].channels_out, layers[-1].size_out) == (4, config.latent)
        for before, after in pairwise(layers):
            assert (after.channels_in, after.size_in) == (before.channels_out, before.size_out)
            assert before.channels_out == 16


@each_depth
def test_sizes_are_those_of_the_convolution_and_of_its_inverse(depth: int) -> None:
    for config in cells(depth):
        for layer in encoder_layers(config):
            left = layer.size_in + 2 * layer.padding - layer.kernel
            assert left // layer.stride + 1 == layer.size_out
            assert (layer.size_out - 1) * layer.stride - 2 * layer.padding + layer.kernel == layer.size_in
            assert left % layer.stride == 0  # the last column of the image is seen, too
            assert layer.kernel >= layer.stride  # no column is skipped


@each_depth
def test_resizing_layers_take_the_smallest_padding_that_reaches_the_least_kernel(depth: int) -> None:
    least = 7 if depth == 1 else 5
    for config in cells(depth):
        layer = encoder_layers(config)[-1]
        assert layer.stride == layer.size_in // layer.size_out
        assert layer.kernel >= least
        assert layer.padding == 0 or layer.kernel - 2 < least


@pytest.mark.parametrize("latent", [1, 5, 13])
def test_up_to_latent_13_a_stem_shrinks_the_image_to_13(latent: int) -> None:
    stem, *body, _ = encoder_layers(ModelConfig(depth=4, latent=latent, width=6))
    assert stem == Layer(1, 6, kernel=4, stride=2, padding=0, size_in=28, size_out=13)
    assert body == [Layer(6, 6, kernel=3, stride=1, padding=1, size_in=13, size_out=13)] * 2


@pytest.mark.parametrize("latent", [14, 20, 28])
def test_above_latent_13_the_stem_keeps_the_image_size(latent: int) -> None:
    stem, *body, _ = encoder_layers(ModelConfig(depth=4, latent=latent, width=6))
    assert stem == Layer(1, 6, kernel=3, stride=1, padding=1, size_in=28, size_out=28)
    assert body == [Layer(6, 6, kernel=3, stride=1, padding=1, size_in=28, size_out=28)] * 2


@pytest.mark.parametrize(
    ("depth", "latent", "neck"),
    [
        # 28 -> 13: stride 2, kernel 28 - 24 = 4, raised to 8 by padding 2. 28 -> 5: stride 5, kernel 28 - 20 = 8.
        (1, 13, Layer(1, 4, kernel=8, stride=2, padding=2, size_in=28, size_out=13)),
        (1, 8, Layer(1, 4, kernel=7, stride=3, padding=0, size_in=28, size_out=8)),
        (1, 5, Layer(1, 4, kernel=8, stride=5, padding=0, size_in=28, size_out=5)),
        (1, 1, Layer(1, 4, kernel=28, stride=28, padding=0, size_in=28, size_out=1)),
        (1, 28, Layer(1, 4, kernel=7, stride=1, padding=3, size_in=28, size_out=28)),
        (2, 13, Layer(16, 4, kernel=5, stride=1, padding=2, size_in=13, size_out=13)),
        (3, 8, Layer(16, 4, kernel=6, stride=1, padding=0, size_in=13, size_out=8)),
        (5, 5, Layer(16, 4, kernel=5, stride=2, padding=0, size_in=13, size_out=5)),
        (2, 14, Layer(16, 4, kernel=6, stride=2, padding=2, size_in=28, size_out=14)),
    ],
    ids=lambda value: f"to-{value.size_out}-k{value.kernel}" if isinstance(value, Layer) else None,
)
def test_resizing_layers_by_hand(depth: int, latent: int, neck: Layer) -> None:
    assert encoder_layers(ModelConfig(depth=depth, latent=latent))[-1] == neck


# ---- the study's Table 1


@pytest.mark.parametrize("depth", [5, 3, 1])
@pytest.mark.parametrize(("latent", "rate"), [(13, "86.22%"), (8, "32.65%"), (5, "12.76%")])
def test_table_1(depth: int, latent: int, rate: str) -> None:
    config = ModelConfig(depth=depth, latent=latent)
    assert config.name == f"DAE_{depth}_{latent}"
    assert f"{config.compression:.2%}" == rate
    assert len(encoder_layers(config)) == depth


def test_compression_counts_channels() -> None:
    assert ModelConfig(depth=2, latent=14, latent_channels=4).compression == 1.0
    assert ModelConfig(depth=2, latent=14, latent_channels=1).compression == 0.25


# ---- counts


@pytest.mark.parametrize(
    ("latent", "parameters", "field"),
    [
        # Weights, twice: stem 16 x 4^2, body 16 x 16 x 3^2, neck 16 x 4 x k^2; biases 16 + 16 + 4 and 16 + 16 + 1.
        # Field: 4, then 2 x 2 and 2 (k - 1) more, the stem having a stride of 2; the necks have k = 5, 6, 5.
        (13, 2 * (256 + 2304 + 1600) + 69, 4 + 4 + 8),
        (8, 2 * (256 + 2304 + 2304) + 69, 4 + 4 + 10),
        (5, 2 * (256 + 2304 + 1600) + 69, 4 + 4 + 8),
    ],
)
def test_depth_3_by_hand(latent: int, parameters: int, field: int) -> None:
    config = ModelConfig(depth=3, latent=latent)
    assert parameter_count(config) == parameters == {13: 8389, 8: 9797, 5: 8389}[latent]
    assert receptive_field(config) == field == {13: 16, 8: 18, 5: 16}[latent]


def test_macs_by_hand() -> None:
    # Kernel 8, 4 channels, 5 x 5 positions; the same again for the way up.
    assert mac_count(ModelConfig(depth=1, latent=5)) == 2 * 4 * 64 * 25
    # 13 x 13 positions in stem, body and neck of DAE_3_13.
    assert mac_count(ModelConfig(depth=3, latent=13)) == 2 * 169 * (256 + 2304 + 1600)


def check_counts(config: ModelConfig) -> None:
    """Parameters and MACs against those of the module, the latter counted while it runs (on no device)."""
    macs: list[int] = []

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        # A convolution uses every weight once an output position, a transposed one once an input position.
        positions = output if isinstance(layer, nn.Conv2d) else inputs[0]
        macs.append(layer.weight.numel() * positions.shape[-1] * positions.shape[-2])

    with torch.device("meta"):
        model = DenoisingAutoencoder(config)
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(count)
        model(torch.empty(1, 1, 28, 28))
    assert len(macs) == 2 * config.depth
    assert (config, mac_count(config)) == (config, sum(macs))
    assert (config, parameter_count(config)) == (config, sum(parameter.numel() for parameter in model.parameters()))


@each_depth
def test_counts_are_those_of_the_module(depth: int) -> None:
    for config in cells(depth):
        check_counts(config)


@pytest.mark.parametrize(("depth", "latent", "channels", "width"), [(1, 5, 7, 3), (3, 8, 1, 32), (4, 20, 9, 5)])
def test_counts_know_channels_and_width(depth: int, latent: int, channels: int, width: int) -> None:
    check_counts(ModelConfig(depth=depth, latent=latent, latent_channels=channels, width=width))


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("latent", [13, 8, 5, 14, 28])
def test_the_receptive_field_is_as_wide_as_the_gradient_of_one_latent_element(depth: int, latent: int) -> None:
    config = ModelConfig(depth=depth, latent=latent)
    encoder = DenoisingAutoencoder(config).encoder
    for layer in encoder:
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    image = torch.ones(1, 1, 80, 80, requires_grad=True)  # far larger than any field: nothing is cut off
    latents = encoder(image)
    middle = latents.shape[-1] // 2
    latents[0, 0, middle, middle].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].nonzero()
    height, width = (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist()
    assert height == width
    assert receptive_field(config) == min(width, 28)


@given(configs)
def test_laws_hold_far_beyond_the_grid(config: ModelConfig) -> None:
    layers = encoder_layers(config)
    assert len(layers) == config.depth
    assert (layers[0].size_in, layers[-1].size_out) == (28, config.latent)
    for layer in layers:
        assert (layer.size_out - 1) * layer.stride - 2 * layer.padding + layer.kernel == layer.size_in
    assert 1 <= receptive_field(config) <= 28
    deeper = dataclasses.replace(config, depth=config.depth + 1)
    assert receptive_field(deeper) >= receptive_field(config) or config.depth == 1
    if config.depth > 1:
        size, width = layers[0].size_out, config.width
        assert parameter_count(deeper) - parameter_count(config) == 2 * (9 * width**2 + width)
        assert mac_count(deeper) - mac_count(config) == 2 * 9 * width**2 * size**2


# ---- values out of range


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 0}, "depth 0 is out of range: it must be at least 1"),
        ({"depth": -3}, "depth -3 is out of range: it must be at least 1"),
        ({"depth": math.nan}, "depth nan is out of range: it must be at least 1"),
        ({"latent": 0}, "latent size 0 is out of range: a latent is 1 to 28 pixels wide"),
        ({"latent": 29}, "latent size 29 is out of range: a latent is 1 to 28 pixels wide"),
        ({"latent": -5}, "latent size -5 is out of range: a latent is 1 to 28 pixels wide"),
        ({"width": 0}, "width 0 is out of range: it must be at least 1"),
        ({"latent_channels": 0}, "latent channels 0 is out of range: it must be at least 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items()),
)
def test_a_model_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        ModelConfig(**({"depth": 3, "latent": 8} | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs 0 is out of range: it must be at least 1"),
        ({"batch_size": 0}, "batch size 0 is out of range: it must be at least 1"),
        ({"alpha": -0.1}, "alpha -0.1 is out of range: it must be at least 0"),
        ({"alpha": math.nan}, "alpha nan is out of range: it must be at least 0"),
        ({"alpha": math.inf}, "alpha inf is out of range: it must be at least 0"),
        ({"seed": -1}, "seed -1 is out of range: it must be at least 0"),
        ({"lr": 0.0}, "lr 0.0 is out of range: it must be a positive number"),
        ({"lr": -1e-3}, "lr -0.001 is out of range: it must be a positive number"),
        ({"lr": math.nan}, "lr nan is out of range: it must be a positive number"),
        ({"lr": math.inf}, "lr inf is out of range: it must be a positive number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items()),
)
def test_a_training_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        TrainConfig(**values)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    ModelConfig(depth=1, latent=1, latent_channels=1, width=1)
    ModelConfig(depth=1, latent=28)
    TrainConfig(epochs=1, batch_size=1, lr=1e-300, alpha=0.0, seed=0)


def test_the_defaults_are_the_studys() -> None:
    assert dataclasses.asdict(TrainConfig()) == {
        "epochs": 15, "batch_size": 128, "lr": 1e-3, "alpha": 0.5, "noise": "gaussian", "seed": 0, "latent_bias": 0.0,
        "initialisation": "lsuv", "warmup": 0, "averaging": 0.0,
    }  # fmt: skip
    model = ModelConfig(depth=3, latent=8)
    assert (model.width, model.latent_channels) == (16, 4)
    assert {name: default_training(name)["batch_size"] for name in DATASETS} == {
        "mnist": 128,
        "fashion-mnist": 128,
        "kmnist": 128,
        "mnist-5k": 32,
    }


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs", "warmup"),
    [
        (3_200, 32, 15, 3),  # as the embedded set: 100 steps an epoch
        (1_150, 32, 43, 9),  # 35 steps
        (26, 8, 150, 100),  # 3 steps
        (1, 1, 150, 150),
        (6_399, 32, 15, 3),
        (6_400, 128, 15, 0),
    ],
)
def test_few_images_are_passed_over_more_often(images: int, batch_size: int, epochs: int, warmup: int) -> None:
    training = default_training("mine", images=images)
    assert (training["batch_size"], training["epochs"], training["warmup"]) == (batch_size, epochs, warmup)
    assert training["batch_size"] <= images
    assert default_training("mine", 4, images)["epochs"] == 4, "a length that is asked for stands"


def test_an_unknown_dataset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown dataset 'imagenet'.*mnist, fashion-mnist, kmnist, mnist-5k"):
        check_dataset("imagenet")
    for name in DATASETS:
        check_dataset(name)
