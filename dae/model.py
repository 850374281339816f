"""The denoising autoencoder as a plain module: convolutions down, transposed convolutions up."""

import math

import torch
from torch import nn

from dae.architecture import encoder_layers
from dae.config import ModelConfig


class DenoisingAutoencoder(nn.Module):
    """A symmetric convolutional autoencoder (study, sections 1.3 and 3.2).

    Images of shape (batch, 1, 28, 28) become latents of shape (batch, latent_channels, latent, latent) and images
    again. A ReLU follows every layer but the last, which a sigmoid follows.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layers = encoder_layers(config)
        encoder: list[nn.Module] = []
        for layer in layers:
            encoder += [
                nn.Conv2d(layer.channels_in, layer.channels_out, layer.kernel, layer.stride, layer.padding),
                nn.ReLU(),
            ]
        decoder: list[nn.Module] = []
        for layer in reversed(layers):
            decoder += [
                nn.ConvTranspose2d(layer.channels_out, layer.channels_in, layer.kernel, layer.stride, layer.padding),
                nn.ReLU(),
            ]
        decoder[-1] = nn.Sigmoid()
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder)

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        """Denoised images of the shape of ``noisy``."""
        denoised: torch.Tensor = self.decoder(self.encoder(noisy))
        return denoised


@torch.no_grad()
def initialise(model: DenoisingAutoencoder, generator: torch.Generator, mean_pixel: float, latent_bias: float) -> None:
    """Draw the weights so that every depth trains.

    PyTorch's defaults leave deep cells stuck at the all-black image. He et al. (2015, arXiv:1502.01852) ask for a
    variance of 2 over the number of inputs that reach an output: C_in k^2 for a convolution, but only C_in k^2 / s^2
    for a transposed one of stride s, which torch's own fan-in does not know.

    Biases begin at zero but for the output's, with which an untrained model answers about the mean pixel, and the
    latent's, which are given: its few ReLUs may close for good in the first steps, and how many do is left to the
    seed. Begun at 0.5 they mostly stay open (measured: tests/benchmarks/README.md).

    Args:
        model: on the CPU; its parameters are overwritten.
        generator: on the CPU.
        mean_pixel: mean of the training images in (0, 1).
        latent_bias: in units of the latent's activations, whose standard deviation is about 1 at the start.
    """
    last = None
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            spread = layer.stride[0] ** 2 if isinstance(layer, nn.ConvTranspose2d) else 1
            inputs = layer.in_channels * layer.kernel_size[0] ** 2 / spread
            layer.weight.normal_(0, math.sqrt(2 / inputs), generator=generator)
            assert layer.bias is not None
            layer.bias.zero_()
            last = layer
    assert last is not None
    assert last.bias is not None
    last.bias.fill_(math.log(mean_pixel / (1 - mean_pixel)))
    latent = model.encoder[-2]
    assert isinstance(latent, nn.Conv2d)
    assert latent.bias is not None
    latent.bias.fill_(latent_bias)
