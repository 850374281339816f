"""A training step on a GPU by the kernels of `dae.kernels`: which programs are launched, on what memory.

Autograd would add a kernel for every parameter, so the backward pass is launched here, layer by layer. Nothing waits
for the host, so that a CUDA graph can hold the whole step.
"""

# mypy: disable-error-code="import-untyped"

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import triton.language as tl
from torch import nn

from dae import kernels
from dae.gpu_rule import MAX_CHANNELS, SPLITS, widest
from dae.model import DenoisingAutoencoder

PRECISION = "tf32"
"""How `tl.dot` multiplies float32: "tf32" rounds factors to 10 bits of mantissa and sums in float32; "ieee" does not
round, and takes twice the time."""

ROWS, DEPTH, WARPS, STAGES = 64, 16, 4, 3
"""Of one program: its output positions, (column, channel) pairs multiplied at a time, warps, loads under way."""

GRADIENT_ROWS, GRADIENT_BLOCK = 64, 32
"""Of one program of the weights' gradient: positions added at a time, and its (column, channel) pairs."""

FLAT_BLOCK = 64
"""Parameters of one program of Adam."""

PIXELS = 1024
"""Pixels of one program of the corruption."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer as the kernels see it; ``*_start`` are indices in the flat parameter."""

    is_up: bool
    image: int
    latent: int
    kernel: int
    stride: int
    padding: int
    size_image: int
    size_latent: int
    weight_start: int
    bias_start: int

    @property
    def result_shape(self) -> tuple[int, int, int]:
        return _square(self.size_image, self.image) if self.is_up else _square(self.size_latent, self.latent)

    def programs(self, batch: int, *, up: bool) -> int:
        """Number of programs of a convolution in that direction."""
        size, columns = self.size_latent, self.latent
        if up:
            size = (self.size_image - 1 + self.padding) // self.stride - self.padding // self.stride + 1
            columns = self.image * self.stride**2
        return _blocks(batch * size**2, ROWS) * _blocks(columns, _width(self.image if up else self.latent))


class Unavailable(Exception):
    """Triton cannot compile on this machine: there is no C compiler, say, or no GPU that it supports."""


class Step:
    """Forward, backward and Adam of one model at one batch size.

    Args:
        model: its parameters are views of ``flat``, weights channels last.
        flat: all parameters, with a gradient.
        batch_size: of training batches.

    Raises:
        Unavailable: the kernels do not compile here.
    """

    _compiling = threading.Lock()
    """Held while kernels compile, so that threads do not compile the same ones."""

    def __init__(self, model: DenoisingAutoencoder, flat: torch.Tensor, batch_size: int) -> None:
        self._flat = flat.detach()
        self._gradient = flat.grad
        self._layers = _layers(model)
        self._batch_size = batch_size
        new = self._flat.new_empty
        self._partial = new(SPLITS, flat.numel())
        # Channels are last in memory here, as in the arrays that images come in.
        self._clean, self._noisy = (new(batch_size, *model.config.image.array) for _ in range(2))
        self._losses = new(self._layers[-1].programs(batch_size, up=True))
        self._activations = [self._noisy] + [new(batch_size, *layer.result_shape) for layer in self._layers]
        self._gradients = [new(batch_size, *layer.result_shape) for layer in self._layers[:-1]] + self._activations[-1:]
        if self._flat.is_cuda:
            self._compile()

    def denoise(self, noisy: torch.Tensor) -> torch.Tensor:
        """Denoised images, of the shape (n, channels, size, size) of ``noisy``."""
        x = noisy.permute(0, 2, 3, 1).contiguous()
        for layer in self._layers:
            result = x.new_empty(len(noisy), *layer.result_shape)
            self._forward(layer, x, result, kernels.SIGMOID if layer is self._layers[-1] else kernels.RELU)
            x = result
        return x.permute(0, 3, 1, 2)

    def load(
        self,
        images: torch.Tensor,
        order: torch.Tensor,
        turn: torch.Tensor,
        count: torch.Tensor,
        noise: torch.Generator,
        *,
        low: int,
        scale: int,
        alpha: float,
    ) -> None:
        """Make the batch of row ``turn`` of ``order``, clean and corrupted.

        Args:
            images: uint8, shape (n, numbers of an image).
            order: image indices, shape (steps, batch size).
            turn: index of the row, int64, one element.
            count: Adam's number of steps, a float; increased by one.
            noise: the generator of the noise.
            low: pixel value that becomes 0.
            scale: difference of the pixel value that becomes 1 from ``low``.
            alpha: as in `dae.noise.corrupt`.
        """
        self._noisy.normal_(generator=noise)
        size = self._clean[0].numel()
        kernels.corrupt[(_blocks(self._noisy.numel(), PIXELS),)](
            images, order, turn, count, self._noisy, self._clean,
            low, float(scale), alpha, size, self._batch_size, BLOCK=PIXELS,
        )  # fmt: skip

    def differentiate(self) -> None:
        """Compute the loss of the batch that `load` made, and partial sums of all gradients."""
        *inner, last = self._layers
        for layer, (source, result) in zip(inner, pairwise(self._activations), strict=False):
            self._forward(layer, source, result, kernels.RELU)
        self._forward(last, self._activations[-2], self._gradients[-1], kernels.LOSS)
        for i in reversed(range(len(self._layers))):
            self._backward(i)

    def update(
        self,
        state: dict[str, torch.Tensor],
        total: torch.Tensor,
        turn: torch.Tensor,
        *,
        steps: int,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """Take the step of ``torch.optim.Adam`` with the gradients of `differentiate`.

        Args:
            state: Adam's moments; the number of steps already counts this one.
            total: the loss is added to it.
            turn: increased by one, modulo ``steps``.
            steps: number of steps of an epoch.
            lr: as in ``torch.optim.Adam``.
            betas: as in ``torch.optim.Adam``.
            eps: as in ``torch.optim.Adam``.
        """
        kernels.adam[(_blocks(self._flat.numel(), FLAT_BLOCK),)](
            self._flat, self._gradient, state["exp_avg"], state["exp_avg_sq"], state["step"],
            self._partial, self._losses, total, turn, self._losses.numel(), steps, self._flat.numel(),
            1 / self._clean.numel(), lr, *betas, eps, SPLITS=SPLITS, BLOCK=FLAT_BLOCK,
        )  # fmt: skip

    def _compile(self) -> None:
        # Triton compiles a kernel at its first launch, in about a second; threads compile most of them side by side.
        with self._compiling, ThreadPoolExecutor() as pool:
            for launch in [pool.submit(self._on_device, empty) for empty in self._empty_launches()]:
                try:
                    launch.result()
                except Exception as error:
                    raise Unavailable(f"Triton cannot compile here: {error}") from error

    def _on_device(self, launch: Callable[[], None]) -> None:
        with torch.cuda.device(self._flat.device):
            launch()

    def _empty_launches(self) -> list[Callable[[], None]]:
        """A launch without programs of every kernel that this model needs."""
        x, batch = self._noisy, self._batch_size
        index = x.new_zeros(1, dtype=torch.int64)
        pixels = x.new_zeros(1, dtype=torch.uint8)
        kinds = {(layer.image, layer.latent): layer for layer in self._layers}.values()
        return [
            *[
                partial(self._launch, layer, x, x, x, x, kernels.RELU, 0, 0, up=up)
                for layer in kinds for up in (False, True)
            ],
            partial(
                kernels.corrupt[(0,)], pixels, index, index, x, x, x, 0, 1.0, 1.0, x[0].numel(), batch,
                BLOCK=PIXELS,
            ),
            partial(
                kernels.adam[(0,)], x, x, x, x, x, x, x, x, index, 1, 1, 1, 1.0, 1.0, 0.5, 0.5, 1.0,
                SPLITS=SPLITS, BLOCK=FLAT_BLOCK,
            ),
        ]  # fmt: skip

    def _forward(self, layer: _Layer, source: torch.Tensor, result: torch.Tensor, mode: tl.constexpr) -> None:
        image, latent = (result, source) if layer.is_up else (source, result)
        programs = layer.programs(len(source), up=layer.is_up)
        self._launch(layer, image, latent, result, self._clean, mode, programs, programs, up=layer.is_up)

    def _backward(self, i: int) -> None:
        layer, source, gradient = self._layers[i], self._activations[i], self._gradients[i]
        image, latent = (gradient, source) if layer.is_up else (source, gradient)
        convolving = layer.programs(self._batch_size, up=not layer.is_up) if i else 0  # images need no gradient
        summing = (layer.kernel * _blocks(layer.image * layer.kernel, _gradient_block(layer.image)) + 1) * SPLITS
        result = self._gradients[i - 1] if i else source
        self._launch(
            layer, image, latent, result, source, kernels.MASK, convolving, convolving + summing, up=not layer.is_up
        )

    def _launch(
        self,
        layer: _Layer,
        image: torch.Tensor,
        latent: torch.Tensor,
        result: torch.Tensor,
        other: torch.Tensor,
        mode: tl.constexpr,
        convolving: int,
        programs: int,
        *,
        up: bool,
    ) -> None:
        kernels.layer[(programs,)](
            image, latent, self._flat, result, other, self._losses, self._partial,
            len(image), layer.size_image, layer.size_latent, layer.kernel, layer.stride, layer.padding,
            mode.value, convolving, layer.weight_start, layer.bias_start, self._flat.numel(),
            IMAGE=layer.image, LATENT=layer.latent, UP=up, OUT_BLOCK=_width(layer.image if up else layer.latent),
            IMAGE_BLOCK=_width(layer.image), LATENT_BLOCK=_width(layer.latent), ROWS=ROWS, DEPTH=DEPTH,
            SPLITS=SPLITS, GRADIENT_ROWS=GRADIENT_ROWS, GRADIENT_BLOCK=_gradient_block(layer.image),
            PRECISION=PRECISION, num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip


def supports(model: DenoisingAutoencoder) -> bool:
    """Whether the kernels can compute this model: no layer has more than `MAX_CHANNELS` channels."""
    return widest(model.config) <= MAX_CHANNELS


def _layers(model: DenoisingAutoencoder) -> list[_Layer]:
    layers = []
    size, start = model.config.image.height, 0
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        is_up = isinstance(module, nn.ConvTranspose2d)
        (kernel, _), (stride, _), padding = module.kernel_size, module.stride, int(module.padding[0])
        after = (size - 1) * stride - 2 * padding + kernel if is_up else (size + 2 * padding - kernel) // stride + 1
        latent, image = module.weight.shape[:2]
        image_size, latent_size = (after, size) if is_up else (size, after)
        bias_start = start + module.weight.numel()
        layers.append(_Layer(is_up, image, latent, kernel, stride, padding, image_size, latent_size, start, bias_start))
        size, start = after, bias_start + module.out_channels
    return layers


def _square(size: int, channels: int) -> tuple[int, int, int]:
    return size, size, channels


def _width(channels: int) -> int:
    # tl.dot needs at least 16 columns on tensor cores.
    return max(16, 1 << (channels - 1).bit_length())


def _gradient_block(channels: int) -> int:
    # A row of a kernel on few channels is short; the rest of a wide block would be zeros.
    return max(16, min(GRADIENT_BLOCK, 4 << (channels - 1).bit_length()))


def _blocks(n: int, block: int) -> int:
    return -(-n // block)
