"""Which models a GPU trains with the project's own kernels, and which with cuDNN. Without torch and Triton.

The kernels of `dae.kernels` have one size, kernel and stride for both axes of a layer, and 32-bit addresses. They were
made for 28x28 images, whose layers are too small to fill a GPU; larger ones do, and cuDNN is made for them.
"""

from dae.architecture import encoder_layers, parameter_count
from dae.config import GAUSSIAN, ModelConfig, TrainConfig

MAX_CHANNELS = 64
"""All output channels of a layer are one block of registers; models with wider layers use the plain module."""

MAX_SIZE = 32
"""Height and width of the largest images."""

SPLITS = 64
"""Number of parts in which the sum over a batch is taken for the gradient of a weight; Adam's kernel adds them."""

MAX_INDEX = 2**31 - 1

MARGIN = 64
"""Images by which the last program of a layer may reach beyond its batch; it reads and writes nothing there."""


def obstacle(
    model: ModelConfig,
    training: TrainConfig,
    *,
    largest_batch: int,
    is_8_bit: bool = True,
    is_noise_given: bool = False,
) -> str | None:
    """Why the kernels cannot train this model; None where they can.

    Args:
        model: the architecture.
        training: its settings.
        largest_batch: images of the largest batch, in training or evaluation.
        is_8_bit: whether images have 8 bits a pixel and not 16.
        is_noise_given: whether noisy images come with the dataset.
    """
    image, layers = model.image, encoder_layers(model)
    if is_noise_given or training.noise != GAUSSIAN:
        return "the noise is not Gaussian"
    if not is_8_bit:
        return "the images have 16 bits a pixel"
    if image.height != image.width or any(layer.across for layer in layers):
        return "images or latents are not square"
    if image.height > MAX_SIZE:
        return f"images are larger than {MAX_SIZE}x{MAX_SIZE}"
    if widest(model) > MAX_CHANNELS:
        return f"a layer has more than {MAX_CHANNELS} channels"
    sizes = [image.numbers, *(layer.channels_in * layer.size_in**2 for layer in layers)]
    sizes += [layer.channels_out * layer.size_out**2 for layer in layers]
    if (largest_batch + MARGIN) * max(sizes) > MAX_INDEX or SPLITS * parameter_count(model) > MAX_INDEX:
        return "addresses in a batch do not fit into 32 bits"
    return None


def widest(model: ModelConfig) -> int:
    """The most channels that a layer takes or gives."""
    return max(max(layer.channels_in, layer.channels_out) for layer in encoder_layers(model))


def method(obstacle: str | None) -> str:
    """How a GPU computes the steps, in words."""
    if obstacle is None:
        return "steps by the project's own kernels, in CUDA graphs"
    return f"steps by cuDNN in CUDA graphs, not by the project's own kernels: {obstacle}"
