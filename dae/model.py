"""The denoising autoencoder as a plain module: convolutions down, transposed convolutions up."""

import torch
from torch import nn

from dae.architecture import encoder_layers
from dae.config import ModelConfig


class DenoisingAutoencoder(nn.Module):
    """A symmetric convolutional autoencoder (study, sections 1.3 and 3.2).

    The encoder maps images (batch, channels, height, width) to latents (batch, latent_channels, height, width), the
    decoder maps these to images. A ReLU follows every layer but the last, which a sigmoid follows.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        layers = encoder_layers(config)
        encoder: list[nn.Module] = []
        for layer in layers:
            encoder += [
                nn.Conv2d(layer.channels_in, layer.channels_out, layer.kernels, layer.strides, layer.paddings),
                nn.ReLU(),
            ]
        decoder: list[nn.Module] = []
        for layer in reversed(layers):
            decoder += [
                nn.ConvTranspose2d(layer.channels_out, layer.channels_in, layer.kernels, layer.strides, layer.paddings),
                nn.ReLU(),
            ]
        decoder[-1] = nn.Sigmoid()
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder)

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        """Denoised images of the shape of ``noisy``."""
        denoised: torch.Tensor = self.decoder(self.encoder(noisy))
        return denoised
