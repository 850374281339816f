"""The layers of a `ModelConfig`, and what can be counted on them without torch.

One rule gives every resizing layer, so that any depth and any latent size is a valid model. From n to m <= n pixels
along an axis: stride s = n // m, and the smallest padding p whose kernel k = n - s(m - 1) + 2p is at least ``k_min``.
The lower bound on k keeps latent size apart from receptive field: without it a 13x13 latent would see less of the image
than an 8x8 one. The stem halves an axis: stride 2 to (n - 2) // 2 pixels, which gives it a kernel of 4, or 5 where n is
odd.
"""

from dataclasses import dataclass
from math import prod

from dae.config import ImageShape, ModelConfig


@dataclass(frozen=True, slots=True)
class Axis:
    """A convolution along one axis of an image; sizes are in pixels, in the encoder's direction."""

    kernel: int
    stride: int
    padding: int
    size_in: int
    size_out: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution of the encoder; the decoder mirrors it with a transposed one.

    The five numbers are those along the height. The pairs below are of height and width.

    Attributes:
        across: the numbers along the width where they are others.
    """

    channels_in: int
    channels_out: int
    kernel: int
    stride: int
    padding: int
    size_in: int
    size_out: int
    across: Axis | None = None

    @classmethod
    def of(cls, channels_in: int, channels_out: int, height: Axis, width: Axis) -> "Layer":
        """The layer with these axes."""
        numbers = height.kernel, height.stride, height.padding, height.size_in, height.size_out
        return cls(channels_in, channels_out, *numbers, across=None if width == height else width)

    @property
    def kernels(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return self.kernel, self.across.kernel if self.across else self.kernel

    @property
    def strides(self) -> tuple[int, int]:
        """The stride along height and width."""
        return self.stride, self.across.stride if self.across else self.stride

    @property
    def paddings(self) -> tuple[int, int]:
        """The padding along height and width."""
        return self.padding, self.across.padding if self.across else self.padding

    @property
    def sizes_in(self) -> tuple[int, int]:
        """Height and width of what comes in."""
        return self.size_in, self.across.size_in if self.across else self.size_in

    @property
    def sizes_out(self) -> tuple[int, int]:
        """Height and width of what goes out."""
        return self.size_out, self.across.size_out if self.across else self.size_out

    @property
    def weights(self) -> int:
        """Number of weights, biases not counted."""
        return self.channels_in * self.channels_out * prod(self.kernels)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image forward; the mirrored layer costs the same."""
        return self.weights * prod(self.sizes_out)


def encoder_layers(config: ModelConfig) -> tuple[Layer, ...]:
    """The layers from image to latent: stem, body, neck; a single one at depth 1."""
    image, latent = config.image, config.latent_sides
    colours, channels, width = image.channels, config.latent_channels, config.width
    if config.depth == 1:
        return (_resize(colours, channels, image.sides, latent, k_min=7),)
    if has_small_maps(config):
        sizes = stem_sizes(image)
        stem = Layer.of(colours, width, *map(_halve, image.sides, sizes))
    else:
        sizes = image.sides
        stem = Layer.of(colours, width, *map(_keep, sizes))
    body = Layer.of(width, width, *map(_keep, sizes))
    return (stem, *[body] * (config.depth - 2), _resize(width, channels, sizes, latent, k_min=5))


def stem_sizes(image: ImageShape) -> tuple[int, int]:
    """Height and width to which the first layer shrinks feature maps, where it does; 13x13 for 28x28."""
    return (image.height - 2) // 2, (image.width - 2) // 2


def has_small_maps(config: ModelConfig) -> bool:
    """Whether the latent fits into the maps of a stem that halves: else stem and body, if any, keep the full size."""
    return all(size <= largest for size, largest in zip(config.latent_sides, stem_sizes(config.image), strict=True))


def _resize(
    channels_in: int, channels_out: int, sizes_in: tuple[int, int], sizes_out: tuple[int, int], *, k_min: int
) -> Layer:
    def axis(size_in: int, size_out: int) -> Axis:
        stride = size_in // size_out
        kernel = size_in - stride * (size_out - 1)
        padding = max(0, -(-(k_min - kernel) // 2))
        return Axis(kernel + 2 * padding, stride, padding, size_in, size_out)

    return Layer.of(channels_in, channels_out, *map(axis, sizes_in, sizes_out))


def _halve(size_in: int, size_out: int) -> Axis:
    return Axis(size_in - 2 * (size_out - 1), 2, 0, size_in, size_out)


def _keep(size: int) -> Axis:
    return Axis(3, 1, 1, size, size)


def parameter_count(config: ModelConfig) -> int:
    """Trainable parameters of encoder and decoder, biases included."""
    return sum(2 * layer.weights + layer.channels_out + layer.channels_in for layer in encoder_layers(config))


def mac_count(config: ModelConfig) -> int:
    """Multiply-accumulates of one image forward, convolutions only."""
    return sum(2 * layer.macs for layer in encoder_layers(config))


def activation_count(config: ModelConfig) -> int:
    """Numbers that the layers put out for one image, the image itself included: what a training step keeps."""
    layers = encoder_layers(config)
    down = sum(layer.channels_out * prod(layer.sizes_out) for layer in layers)
    return config.image.numbers + down + sum(layer.channels_in * prod(layer.sizes_in) for layer in layers)


def step_bytes(config: ModelConfig, batch_size: int) -> int:
    """Memory of a training step: what the layers put out and its gradient; weights, gradient and moments; float32."""
    return 4 * (2 * batch_size * activation_count(config) + 4 * parameter_count(config))


def receptive_fields(config: ModelConfig) -> tuple[int, int]:
    """Height and width in pixels of the image patch that one latent element sees."""
    fields, jumps = [1, 1], [1, 1]
    for layer in encoder_layers(config):
        for axis in range(2):
            fields[axis] += (layer.kernels[axis] - 1) * jumps[axis]
            jumps[axis] *= layer.strides[axis]
    height, width = map(min, fields, config.image.sides)
    return height, width


def receptive_field(config: ModelConfig) -> int:
    """The larger of `receptive_fields`; of a square image and latent both are equal."""
    return max(receptive_fields(config))
