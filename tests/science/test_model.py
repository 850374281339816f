"""The plain module and its initialisation."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from dae.config import ModelConfig
from dae.initialisation import draw
from dae.model import DenoisingAutoencoder

CORNERS = [ModelConfig(depth=depth, latent=latent) for depth in (1, 2, 5, 9) for latent in (1, 5, 13, 14, 28)]
WIDE = [
    # Strides 2 and 2; 1 and 2; 5; 28. Wide, so that each layer has thousands of weights to count.
    ModelConfig(depth=3, latent=5, latent_channels=64, width=128),
    ModelConfig(depth=2, latent=14, latent_channels=64, width=128),
    ModelConfig(depth=1, latent=5, latent_channels=256),
    ModelConfig(depth=1, latent=1, latent_channels=64),
]

corners = pytest.mark.parametrize("config", CORNERS, ids=lambda config: config.name)


def initialised(
    config: ModelConfig, seed: int = 0, mean_pixel: float = 0.13, latent_bias: float = 0.0
) -> DenoisingAutoencoder:
    model = DenoisingAutoencoder(config)
    draw(model, torch.Generator().manual_seed(seed), mean_pixel, latent_bias)
    return model


def convolutions(model: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]


# ---- shape


@corners
@torch.no_grad()
def test_images_become_latents_and_images_again(config: ModelConfig) -> None:
    model, images = initialised(config), torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert model.encoder(images).shape == (2, 4, config.latent, config.latent)
    denoised = model(images)
    assert denoised.shape == images.shape
    assert denoised.min() > 0
    assert denoised.max() < 1
    assert torch.equal(denoised, model.decoder(model.encoder(images)))


@torch.no_grad()
def test_latent_channels_and_width_arrive() -> None:
    model = DenoisingAutoencoder(ModelConfig(depth=3, latent=8, latent_channels=7, width=5))
    assert model.encoder(torch.zeros(1, 1, 28, 28)).shape == (1, 7, 8, 8)
    assert [layer.out_channels for layer in convolutions(model)] == [5, 5, 7, 5, 5, 1]


@corners
def test_the_decoder_mirrors_the_encoder(config: ModelConfig) -> None:
    model = DenoisingAutoencoder(config)
    down, up = convolutions(model.encoder), convolutions(model.decoder)
    assert [type(layer) for layer in down] == [nn.Conv2d] * config.depth
    assert [type(layer) for layer in up] == [nn.ConvTranspose2d] * config.depth
    for one, other in zip(down, reversed(up), strict=True):
        assert (one.kernel_size, one.stride, one.padding) == (other.kernel_size, other.stride, other.padding)
        assert (one.in_channels, one.out_channels) == (other.out_channels, other.in_channels)
        assert other.output_padding == (0, 0)


@corners
def test_a_relu_follows_every_layer_but_the_last_which_a_sigmoid_follows(config: ModelConfig) -> None:
    layers = [*DenoisingAutoencoder(config).encoder, *DenoisingAutoencoder(config).decoder]
    followers = [
        type(after) for before, after in pairwise(layers) if isinstance(before, nn.Conv2d | nn.ConvTranspose2d)
    ]
    assert followers == [nn.ReLU] * (2 * config.depth - 1) + [nn.Sigmoid]
    assert len(layers) == 2 * len(followers)


# ---- initialisation


@pytest.mark.parametrize("config", WIDE, ids=lambda config: config.name)
def test_weights_are_normal_with_the_variance_that_keeps_activations_alive(config: ModelConfig) -> None:
    for layer in convolutions(initialised(config)):
        weights = layer.weight.detach().double().flatten()
        stride = layer.stride[0] if isinstance(layer, nn.ConvTranspose2d) else 1
        due = 2 * stride**2 / (layer.in_channels * layer.kernel_size[0] ** 2)
        n = len(weights)
        assert n > 1000
        # 4 standard errors of the mean, the variance and the fourth moment of a normal sample of this size
        assert weights.mean().item() == pytest.approx(0, abs=4 * math.sqrt(due / n))
        assert weights.var().item() == pytest.approx(due, rel=4 * math.sqrt(2 / n))
        assert (weights**4).mean().item() / due**2 == pytest.approx(3, abs=4 * math.sqrt(96 / n))


@corners
def test_biases_are_zero_but_the_latents_and_the_last_which_is_the_logit_of_the_mean_pixel(config: ModelConfig) -> None:
    *inner, last = convolutions(initialised(config, mean_pixel=0.2, latent_bias=0.75))
    for number, layer in enumerate(inner, start=1):
        assert layer.bias is not None
        assert (layer.bias == (0.75 if number == config.depth else 0)).all()
    assert last.bias is not None
    assert last.bias.tolist() == pytest.approx([math.log(0.25)])  # 0.2 / 0.8


@corners
@torch.no_grad()
def test_an_untrained_model_answers_black_with_the_mean_pixel(config: ModelConfig) -> None:
    denoised = initialised(config, mean_pixel=0.1307)(torch.zeros(1, 1, 28, 28))
    torch.testing.assert_close(denoised, torch.full_like(denoised, 0.1307))


@torch.no_grad()
def test_the_signal_of_deep_models_neither_dies_nor_explodes() -> None:
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    model = initialised(ModelConfig(depth=9, latent=13, width=64, latent_channels=64))
    before_sigmoid = model.decoder[:-1](model.encoder(images))
    assert 0.1 < before_sigmoid.std().item() < 10


def test_the_same_generator_gives_the_same_bits_whatever_the_global_seed() -> None:
    config, states = ModelConfig(depth=3, latent=8), []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        states.append(initialised(config, seed=5).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_another_generator_gives_other_weights_in_every_layer() -> None:
    config = ModelConfig(depth=3, latent=8)
    first, second = initialised(config, seed=5), initialised(config, seed=6)
    for one, other in zip(convolutions(first), convolutions(second), strict=True):
        assert not torch.isclose(one.weight, other.weight).any()
    # Nor do two layers of one model share their draws.
    body = [layer.weight.flatten()[:20] for layer in convolutions(first)]
    assert all(not torch.equal(one, other) for one, other in pairwise(body))
