"""The start of the weights: what holds of every channel, and what averaging and warm-up leave as it is."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dae import data
from dae.config import ModelConfig, TrainConfig, default_training
from dae.errors import UserError
from dae.initialisation import LATENT_MEAN, OUTPUT_DEVIATION, draw, to_unit_variance
from dae.model import DenoisingAutoencoder
from dae.training import Images, Training

CONFIGS = [ModelConfig(depth=depth, latent=latent) for depth, latent in ((1, 5), (2, 13), (3, 8), (5, 5), (9, 20))]


def noisy(count: int = 64) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(2))


def drawn(config: ModelConfig, seed: int = 0) -> DenoisingAutoencoder:
    model = DenoisingAutoencoder(config)
    draw(model, torch.Generator().manual_seed(seed), mean_pixel=0.13)
    return model


def channels(model: DenoisingAutoencoder, images: torch.Tensor) -> list[tuple[nn.Module, torch.Tensor, torch.Tensor]]:
    """Every convolution with mean and standard deviation of its channels before what follows it."""
    rows, x = [], images
    for layer in [*model.encoder, *model.decoder]:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            rows.append((layer, x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3), correction=0)))
    return rows


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_every_channel_begins_with_unit_variance(config: ModelConfig) -> None:
    model, images = drawn(config), noisy()
    to_unit_variance(model, images, mean_pixel=0.13)
    *inner, (output, _, deviation) = channels(model, images)
    for layer, mean, spread in inner:
        assert spread.tolist() == pytest.approx([1.0] * len(spread), abs=1e-3)
        middle = LATENT_MEAN if layer is model.encoder[-2] else 0.0
        assert mean.tolist() == pytest.approx([middle] * len(mean), abs=1e-3)
    assert deviation.tolist() == pytest.approx([OUTPUT_DEVIATION], abs=1e-3)
    assert output.bias.tolist() == pytest.approx([math.log(0.13 / 0.87)])  # type: ignore[union-attr,operator]


def test_it_does_not_depend_on_the_scale_of_the_draw() -> None:
    one, other = drawn(CONFIGS[2]), drawn(CONFIGS[2])
    with torch.no_grad():
        for layer in [*other.encoder, *other.decoder]:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.mul_(7)
    for model in (one, other):
        to_unit_variance(model, noisy(), mean_pixel=0.13)
    assert torch.allclose(one(noisy(4)), other(noisy(4)), atol=1e-5)


def test_done_twice_is_done_once() -> None:
    model = drawn(CONFIGS[3])
    to_unit_variance(model, noisy(), mean_pixel=0.13)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    to_unit_variance(model, noisy(), mean_pixel=0.13)
    for name, value in model.state_dict().items():
        assert torch.allclose(value, before[name], atol=1e-4), name


def test_channels_that_never_vary_are_left_as_they_were_drawn() -> None:
    model, same = drawn(CONFIGS[2]), torch.zeros(64, 1, 28, 28)
    before = model.state_dict()["encoder.0.weight"].clone()
    to_unit_variance(model, same, mean_pixel=0.13)
    assert torch.equal(model.state_dict()["encoder.0.weight"], before)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


@pytest.fixture(scope="module")
def digits() -> Images:
    return Images(data.load("mnist-5k", Path("unused"), train_fraction=0.05), 0.5, "cpu")


DEFAULTS = TrainConfig(epochs=4, batch_size=32, lr=4e-3, warmup=2, averaging=0.9)


def finished(training: Training, epochs: int = 4) -> Training:
    while len(training.history) < epochs:
        training.run_epoch()
    return training


def bits(training: Training) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in training.weights().items()}


def test_the_same_seed_has_the_same_bits_and_another_has_others(digits: Images) -> None:
    model = ModelConfig(depth=3, latent=8)
    one, same, other = (bits(Training(model, replace(DEFAULTS, seed=seed), digits)) for seed in (1, 1, 2))
    assert one == same != other


def test_a_resumed_training_has_the_bits_of_one_that_was_never_interrupted(digits: Images) -> None:
    model = ModelConfig(depth=3, latent=8)
    whole = finished(Training(model, DEFAULTS, digits))
    half = finished(Training(model, DEFAULTS, digits), epochs=2)
    resumed = Training(model, DEFAULTS, digits)
    resumed.restore(half.state())
    finished(resumed)
    assert bits(resumed) == bits(whole)
    assert [epoch.val_loss for epoch in resumed.history] == [epoch.val_loss for epoch in whole.history]


def test_what_is_averaged_is_what_is_validated_tested_and_kept(digits: Images) -> None:
    model = ModelConfig(depth=1, latent=8)
    averaged = finished(Training(model, DEFAULTS, digits))
    plain = finished(Training(model, replace(DEFAULTS, averaging=0.0), digits))
    assert [epoch.train_loss for epoch in averaged.history] == [epoch.train_loss for epoch in plain.history]
    assert bits(averaged) != bits(plain)
    module = DenoisingAutoencoder(model)
    module.load_state_dict(averaged.weights())
    images = torch.from_numpy(digits.test_set.noisy).unsqueeze(1)
    with torch.no_grad():
        loss = float((module(images).squeeze(1) - torch.from_numpy(digits.test_set.clean)).square().mean())
    assert averaged.test().mean_loss == pytest.approx(loss, rel=1e-5)


def test_the_learning_rate_rises_in_equal_steps() -> None:
    config = TrainConfig(lr=0.4, warmup=3)
    assert [config.lr_at(epoch) for epoch in range(1, 7)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert TrainConfig(lr=0.4).lr_at(1) == 0.4


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 1), (2, 2), (3, 3), (15, 3), (100, 3)])
def test_a_short_training_warms_up_for_all_of_it(epochs: int, warmup: int) -> None:
    config = TrainConfig(**default_training("mnist-5k", epochs))
    assert config.warmup == warmup


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"initialisation": "zeros"}, r"unknown initialisation 'zeros'.*lsuv, he"),
        ({"latent_bias": 0.5}, "belongs to --initialisation he"),
        ({"averaging": 1.0}, "averaging 1.0 is out of range"),
        ({"warmup": -1}, "warmup -1 is out of range"),
        ({"warmup": 16}, r"warmup 16 is out of range.*0 to 15"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig(**values)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "latent"), [(3, 5), (5, 8)])
def test_no_channel_of_the_latent_closes_on_real_digits(depth: int, latent: int) -> None:
    """Of seed 0: with the plain draw three of the four channels of the deeper one do (at this rate, in one epoch)."""
    images = Images(data.load("mnist-5k", Path("unused")), 0.5, "cpu")
    config = TrainConfig(batch_size=32, lr=4e-3, warmup=3)
    training = finished(Training(ModelConfig(depth=depth, latent=latent), config, images), epochs=2)
    assert training.test().dead_latent_channels == 0
