"""The weights that a training begins with, chosen so that every depth and latent size learns."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from dae.model import DenoisingAutoencoder

IMAGES = 256
"""Noisy training images that `to_unit_variance` looks at."""

LATENT_MEAN = 1.0
"""Mean of a latent channel before its ReLU, in units of its standard deviation: about five of six elements are open."""

OUTPUT_DEVIATION = 0.5
"""Standard deviation before the sigmoid: an untrained model answers near the mean pixel, where the slope is large."""

LEAST_DEVIATION = 1e-6
"""A channel that varies less over all images and pixels is constant, and is left as it was drawn."""

LEAST_MEAN = 1e-3
"""A mean pixel is taken to lie at least so far from 0 and 1, whose logits are infinite: a colour may be missing."""


@torch.no_grad()
def draw(
    model: DenoisingAutoencoder,
    generator: torch.Generator,
    mean_pixel: float | Sequence[float],
    latent_bias: float = 0.0,
) -> None:
    """Draw the weights so that every depth trains.

    PyTorch's defaults leave deep cells stuck at the all-black image. He et al. (2015, arXiv:1502.01852) ask for a
    variance of 2 over the number of inputs that reach an output: C_in k^2 for a convolution, but only C_in k^2 / s^2
    for a transposed one of stride s, which torch's own fan-in does not know.

    Biases begin at zero but for the output's, with which an untrained model answers about the mean pixel, and the
    latent's, which are given. Left at that, how many of the latent's ReLUs close for good in the first steps depends
    on the seed: see `to_unit_variance`.

    Args:
        model: on the CPU; its parameters are overwritten.
        generator: on the CPU.
        mean_pixel: mean of the training images in [0, 1], of each channel where there are several.
        latent_bias: in units of the latent's activations, whose standard deviation is about 1 at the start.
    """
    last = None
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            spread = math.prod(layer.stride) if isinstance(layer, nn.ConvTranspose2d) else 1
            inputs = layer.in_channels * math.prod(layer.kernel_size) / spread
            layer.weight.normal_(0, math.sqrt(2 / inputs), generator=generator)
            assert layer.bias is not None
            layer.bias.zero_()
            last = layer
    assert last is not None
    assert last.bias is not None
    last.bias.copy_(_logits(mean_pixel))
    latent = model.encoder[-2]
    assert isinstance(latent, nn.Conv2d)
    assert latent.bias is not None
    latent.bias.fill_(latent_bias)


@torch.no_grad()
def to_unit_variance(model: DenoisingAutoencoder, noisy: torch.Tensor, mean_pixel: float | Sequence[float]) -> None:
    """Scale and shift the weights that were drawn, layer by layer, so that every channel has something to say.

    Layer-sequential unit variance (Mishkin and Matas 2016, arXiv:1511.06422), here channel by channel and centred:
    before its ReLU each channel has mean 0 and standard deviation 1 over images and pixels, in the latent mean
    `LATENT_MEAN`, so that none of its few channels is closed from the start or closes in the first steps. The output
    has `OUTPUT_DEVIATION` and keeps the logit of the mean pixel as its bias.

    It works on the CPU, so that the numbers do not depend on the device of the training. Figures, and what was tried
    besides: tests/benchmarks/README.md.

    Args:
        model: on the CPU, its weights drawn; they are changed in place.
        noisy: corrupted training images as the model will see them, shape (n, channels, height, width), on the CPU.
        mean_pixel: as in `draw`.
    """
    layers = [*model.encoder, *model.decoder]
    latent, output = model.encoder[-2], model.decoder[-2]
    activations = noisy
    for layer in layers:
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            activations = layer(activations)
            continue
        assert layer.bias is not None
        is_transposed = isinstance(layer, nn.ConvTranspose2d)
        convolve = F.conv_transpose2d if is_transposed else F.conv2d
        padding = [int(pixels) for pixels in layer.padding]
        activations = convolve(activations, layer.weight, stride=layer.stride, padding=padding)
        deviation, mean = torch.std_mean(activations.double(), dim=(0, 2, 3), correction=0)
        varies = deviation > LEAST_DEVIATION
        scale = torch.where(varies, (OUTPUT_DEVIATION if layer is output else 1.0) / deviation, 1.0)
        if layer is output:
            bias = _logits(mean_pixel).expand_as(mean)
        else:
            bias = (LATENT_MEAN if layer is latent else 0.0) - mean * scale
        layer.weight.mul_(scale.view(1, -1, 1, 1) if is_transposed else scale.view(-1, 1, 1, 1))
        layer.bias.copy_(bias)
        activations = activations * scale.float().view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)


def _logits(means: float | Sequence[float]) -> torch.Tensor:
    inner = (min(max(mean, LEAST_MEAN), 1 - LEAST_MEAN) for mean in ([means] if isinstance(means, float) else means))
    return torch.tensor([math.log(mean / (1 - mean)) for mean in inner], dtype=torch.float64)
