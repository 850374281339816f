"""The denoising autoencoder as a plain module, and its initial weights."""

import math

import torch
from torch import nn

from dae.architecture import encoder_layers
from dae.config import ModelConfig


class DenoisingAutoencoder(nn.Module):
    """A symmetric convolutional autoencoder (study, sections 1.3 and 3.2).

    The encoder maps images (batch, 1, 28, 28) to latents (batch, latent_channels, latent, latent), the decoder maps
    these to images. A ReLU follows every layer but the last, which a sigmoid follows.
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

    With PyTorch's defaults deep models do not get past the all-black image. The variance of He et al. (2015,
    arXiv:1502.01852) is 2 over the number of inputs that reach an output: C_in k^2 for a convolution, but only
    C_in k^2 / s^2 for a transposed one of stride s, where torch takes another number.

    Biases are zero but for two layers. With the output's the untrained model answers about the mean pixel. The
    latent's are ``latent_bias``: a ReLU of the few latent channels may become 0 for every image in the first steps and
    stay so, for some seeds and not for others. With 0.5 most do not (measured: tests/benchmarks/README.md).

    Args:
        model: on the CPU; its parameters are overwritten.
        generator: on the CPU.
        mean_pixel: mean of the training images in (0, 1).
        latent_bias: in units of the latent's activations, whose standard deviation is about 1 at first.
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
