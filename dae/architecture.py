"""The layers of a `ModelConfig`, and what can be counted on them without torch.

One rule gives every resizing layer, so that any depth and any latent size is a valid model. From n to m <= n pixels:
stride s = n // m, and the smallest padding p whose kernel k = n - s(m - 1) + 2p is at least ``k_min``. The lower bound
on k keeps latent size apart from receptive field: without it a 13x13 latent would see less of the image than an 8x8
one.
"""

from dataclasses import dataclass

from dae.config import IMAGE_SIZE, ModelConfig

STEM_SIZE = 13
"""Feature maps of models with latent <= 13 shrink to this size in the first layer."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution of the encoder; the decoder mirrors it with a transposed one.

    Sizes are in pixels; ``size_in`` and ``size_out`` are those of the encoder's direction.
    """

    channels_in: int
    channels_out: int
    kernel: int
    stride: int
    padding: int
    size_in: int
    size_out: int

    @property
    def weights(self) -> int:
        """Number of weights, biases not counted."""
        return self.channels_in * self.channels_out * self.kernel**2

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image forward; the mirrored layer costs the same."""
        return self.weights * self.size_out**2


def encoder_layers(config: ModelConfig) -> tuple[Layer, ...]:
    """The layers from image to latent: stem, body, neck; a single one at depth 1."""
    channels, latent, width = config.latent_channels, config.latent, config.width
    if config.depth == 1:
        return (_resize(1, channels, IMAGE_SIZE, latent, k_min=7),)
    if latent <= STEM_SIZE:
        size = STEM_SIZE
        stem = Layer(1, width, kernel=4, stride=2, padding=0, size_in=IMAGE_SIZE, size_out=size)
    else:
        size = IMAGE_SIZE
        stem = Layer(1, width, kernel=3, stride=1, padding=1, size_in=size, size_out=size)
    body = Layer(width, width, kernel=3, stride=1, padding=1, size_in=size, size_out=size)
    return (stem, *[body] * (config.depth - 2), _resize(width, channels, size, latent, k_min=5))


def _resize(channels_in: int, channels_out: int, size_in: int, size_out: int, *, k_min: int) -> Layer:
    stride = size_in // size_out
    kernel = size_in - stride * (size_out - 1)
    padding = max(0, -(-(k_min - kernel) // 2))
    return Layer(channels_in, channels_out, kernel + 2 * padding, stride, padding, size_in, size_out)


def parameter_count(config: ModelConfig) -> int:
    """Trainable parameters of encoder and decoder, biases included."""
    return sum(2 * layer.weights + layer.channels_out + layer.channels_in for layer in encoder_layers(config))


def mac_count(config: ModelConfig) -> int:
    """Multiply-accumulates of one image forward, convolutions only."""
    return sum(2 * layer.macs for layer in encoder_layers(config))


def receptive_field(config: ModelConfig) -> int:
    """Width in pixels of the image patch that one latent element sees."""
    field, jump = 1, 1
    for layer in encoder_layers(config):
        field += (layer.kernel - 1) * jump
        jump *= layer.stride
    return min(field, IMAGE_SIZE)
