"""Triton kernels that carry out a training step of the autoencoder on a GPU.

The layers are so small that what a step costs is the number of its kernels, so there are few: one for the batch and
its corruption, one a layer forward (bias, ReLU, sigmoid, loss and its gradient included), one a layer backward
(gradients of input, weights and bias side by side), one for Adam. Only the normal noise stays torch's. Autograd would
add a kernel for every parameter, so the backward pass is spelled out here.

A layer joins an image side to a smaller latent side; encoder and decoder differ in direction alone. A convolution
goes down, from image to latent, a transposed one up, and each is the other's gradient by its input. Activations are
float32 of shape (batch, size, size, channels). Weights are (latent channels, k, k, image channels), which is where
`dae.engine` puts both kinds of layer. Every convolution is a matrix product over (tap, channel), gathered on the fly.
"""

# What a kernel is compiled for is in capitals, as its constants are; Triton has no types of its own to check.
# ruff: noqa: N803, N806
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import nn

from dae.config import IMAGE_SIZE
from dae.model import DenoisingAutoencoder

PRECISION = "tf32"
"""How `tl.dot` multiplies float32: "tf32" rounds factors to 10 bits of mantissa and sums in float32; "ieee" does not
round, at twice the time."""

MAX_CHANNELS = 64
"""All output channels of a layer are one block of registers; wider layers are left to the plain module."""

SPLITS = 64
"""Into how many parts the sum over a batch is cut for a weight's gradient; Adam's kernel adds the parts up."""

ROWS, DEPTH, WARPS, STAGES = 64, 16, 4, 3
"""Output positions of one program, (column, channel) pairs it multiplies at a time, its warps, loads under way."""

GRADIENT_ROWS, GRADIENT_BLOCK = 64, 32
"""Positions that a program of the weights' gradient adds at a time, (column, channel) pairs it is for."""

FLAT_BLOCK = 64
"""Parameters of one program of Adam."""

PIXELS = 1024
"""Pixels of one program of the corruption."""

RELU, SIGMOID, LOSS, MASK = (tl.constexpr(i) for i in range(4))
"""What happens to a convolution's sums: ReLU; sigmoid; the gradient of half the summed squared error through a sigmoid;
zero where the ReLU before was."""


@triton.jit
def _convolve(
    program, source, weight, bias, result, other, losses, batch, size_in, size_out, kernel, stride, padding, mode,
    CHANNELS_IN: tl.constexpr, CHANNELS_OUT: tl.constexpr, UP: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # Up, an output pixel hears only every stride-th tap. Which ones depends on its phase, its place modulo the stride;
    # the phases are channels of a convolution of stride 1 here (Shi et al. 2016, arXiv:1609.05158).
    if UP:
        taps = (kernel + stride - 1) // stride
        first = padding // stride
        size = (size_out - 1 + padding) // stride - first + 1
        columns = CHANNELS_OUT * stride * stride
    else:
        taps = kernel
        first = 0
        size = size_out
        columns = CHANNELS_OUT
    blocks = tl.cdiv(columns, BLOCK)
    position = (program // blocks) * ROWS + tl.arange(0, ROWS)
    item = position // (size * size)
    row = position // size % size + first
    column = position % size + first
    j = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    channel = j % CHANNELS_OUT
    phase_row = j // CHANNELS_OUT // stride
    phase_column = j // CHANNELS_OUT % stride
    # The pixel under the kernel's corner; up, its last row comes first.
    top = row - (taps - 1) if UP else row * stride - padding
    left = column - (taps - 1) if UP else column * stride - padding

    # One row of the kernel after another: its pixels and their channels are neighbours in memory.
    width = size_in * CHANNELS_IN
    reach = taps * CHANNELS_IN
    chunks = tl.cdiv(reach, DEPTH)
    sums = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    for i in tl.range(0, taps * chunks):
        tap_row = i // chunks
        e = (i % chunks) * DEPTH + tl.arange(0, DEPTH)
        y = top + tap_row
        x = (left * CHANNELS_IN)[:, None] + e[None, :]
        inside = ((y >= 0) & (y < size_in) & (item < batch))[:, None] & (x >= 0) & (x < width) & (e < reach)[None, :]
        a = tl.load(source + ((item * size_in + y) * width)[:, None] + x, mask=inside, other=0.0)
        if UP:
            weight_row = phase_row + stride * (taps - 1 - tap_row)
            weight_column = phase_column[None, :] + (stride * (taps - 1 - e // CHANNELS_IN))[:, None]
            place = (e % CHANNELS_IN * (kernel * kernel * CHANNELS_OUT))[:, None] + weight_column * CHANNELS_OUT
            place += (weight_row * (kernel * CHANNELS_OUT) + channel)[None, :]
            known = ((j < columns) & (weight_row < kernel))[None, :] & (e < reach)[:, None] & (weight_column < kernel)
        else:
            place = (j * (kernel * reach))[None, :] + (tap_row * reach + e)[:, None]
            known = (j < columns)[None, :] & (e < reach)[:, None]
        b = tl.load(weight + place, mask=known, other=0.0)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)

    y = row[:, None] * stride + phase_row[None, :] - padding if UP else row[:, None]
    x = column[:, None] * stride + phase_column[None, :] - padding if UP else column[:, None]
    place = ((item[:, None] * size_out + y) * size_out + x) * CHANNELS_OUT + channel[None, :]
    inside = (y >= 0) & (y < size_out) & (x >= 0) & (x < size_out) & (item < batch)[:, None] & (j < columns)[None, :]
    if mode == MASK:
        sums = tl.where(tl.load(other + place, mask=inside, other=0.0) > 0, sums, 0.0)
    else:
        sums += tl.load(bias + channel)[None, :]
        if mode == RELU:
            sums = tl.maximum(sums, 0.0)
        else:
            sums = 1 / (1 + tl.exp(-sums))
            if mode == LOSS:
                error = tl.where(inside, sums - tl.load(other + place, mask=inside, other=0.0), 0.0)
                tl.store(losses + program, tl.sum(error * error))
                sums = error * sums * (1 - sums)
    tl.store(result + place, sums, mask=inside)


@triton.jit
def _add_weight_gradient(
    part, block, image, latent, partial, batch, size_image, size_latent, kernel, stride, padding,
    IMAGE: tl.constexpr, LATENT: tl.constexpr, LATENT_BLOCK: tl.constexpr,
    SPLITS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    reach = kernel * IMAGE
    width = size_image * IMAGE
    chunks = tl.cdiv(reach, BLOCK)
    tap_row = block // chunks
    e = (block % chunks) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, LATENT_BLOCK)
    share = tl.cdiv(batch, SPLITS)
    end = tl.minimum((part + 1) * share, batch)
    # One position of all images after another, so that where its pixels are is worked out once.
    sums = tl.zeros((LATENT_BLOCK, BLOCK), dtype=tl.float32)
    for start in tl.range(0, size_latent * size_latent, ROWS):
        position = start + tl.arange(0, ROWS)
        known = position < size_latent * size_latent
        y = position // size_latent * stride - padding + tap_row
        x = ((position % size_latent * stride - padding) * IMAGE)[:, None] + e[None, :]
        inside = (known & (y >= 0) & (y < size_image))[:, None] & (x >= 0) & (x < width) & (e < reach)[None, :]
        pixels = image + (y * width)[:, None] + x
        answers = latent + position[:, None] * LATENT + channel[None, :]
        known = known[:, None] & (channel < LATENT)[None, :]
        for item in tl.range(part * share, end, num_stages=1):  # pipelined copies of transposed tiles are 4 bytes wide
            a = tl.load(pixels + item * size_image * width, mask=inside, other=0.0)
            b = tl.load(answers + item * size_latent * size_latent * LATENT, mask=known, other=0.0)
            sums = tl.dot(tl.trans(b), a, sums, input_precision=PRECISION)
    place = (channel * kernel * reach)[:, None] + (tap_row * reach + e)[None, :]
    tl.store(partial + place, sums, mask=(channel < LATENT)[:, None] & (e < reach)[None, :])


@triton.jit
def _add_bias_gradient(
    part, gradient, partial, numel, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
    SPLITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    # Rows of a fixed width, whatever the channels: a row holds every channel equally often, in order.
    WIDTH: tl.constexpr = BLOCK // CHANNELS * CHANNELS
    column = tl.arange(0, BLOCK)
    rows = tl.cdiv(numel, WIDTH)
    share = tl.cdiv(rows, SPLITS)
    end = tl.minimum((part + 1) * share, rows)
    sums = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    for start in tl.range(part * share, end, ROWS):
        row = start + tl.arange(0, ROWS)
        place = row[:, None] * WIDTH + column[None, :]
        inside = (row < end)[:, None] & (column < WIDTH)[None, :] & (place < numel)
        sums += tl.load(gradient + place, mask=inside, other=0.0)
    by_column = tl.sum(sums, axis=0)
    same = (column % CHANNELS)[:, None] == column[None, :]
    tl.store(partial + column, tl.sum(tl.where(same, by_column[:, None], 0.0), axis=0), mask=column < CHANNELS)


GEOMETRY = ["batch", "size_image", "size_latent", "kernel", "stride", "padding"]


@triton.jit(
    do_not_specialize=[*GEOMETRY, "mode", "convolving", "weight_start", "bias_start", "parameters"],
)
def _layer(
    image, latent, flat, result, other, losses, partial,
    batch, size_image, size_latent, kernel, stride, padding, mode, convolving,
    weight_start, bias_start, parameters,
    IMAGE: tl.constexpr, LATENT: tl.constexpr, UP: tl.constexpr, OUT_BLOCK: tl.constexpr,
    IMAGE_BLOCK: tl.constexpr, LATENT_BLOCK: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    SPLITS: tl.constexpr, GRADIENT_ROWS: tl.constexpr, GRADIENT_BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    if program < convolving:
        if UP:
            _convolve(program, latent, flat + weight_start, flat + bias_start, result, other, losses,
                      batch, size_latent, size_image, kernel, stride, padding, mode,
                      LATENT, IMAGE, True, OUT_BLOCK, ROWS, DEPTH, PRECISION)  # fmt: skip
        else:
            _convolve(program, image, flat + weight_start, flat + bias_start, result, other, losses,
                      batch, size_image, size_latent, kernel, stride, padding, mode,
                      IMAGE, LATENT, False, OUT_BLOCK, ROWS, DEPTH, PRECISION)  # fmt: skip
    else:
        part = (program - convolving) % SPLITS
        block = (program - convolving) // SPLITS
        partial += part * parameters
        if block < kernel * tl.cdiv(kernel * IMAGE, GRADIENT_BLOCK):
            _add_weight_gradient(part, block, image, latent, partial + weight_start,
                                 batch, size_image, size_latent, kernel, stride, padding,
                                 IMAGE, LATENT, LATENT_BLOCK, SPLITS, GRADIENT_ROWS, GRADIENT_BLOCK,
                                 PRECISION)  # fmt: skip
        # A gradient that goes up is that of the latent side, the output of an encoder's layer.
        elif UP:
            _add_bias_gradient(part, latent, partial + bias_start, batch * size_latent * size_latent * LATENT,
                               LATENT, LATENT_BLOCK, SPLITS, GRADIENT_ROWS)  # fmt: skip
        else:
            _add_bias_gradient(part, image, partial + bias_start, batch * size_image * size_image * IMAGE,
                               IMAGE, IMAGE_BLOCK, SPLITS, GRADIENT_ROWS)  # fmt: skip


@triton.jit(do_not_specialize=["low", "size", "batch_size"])
def _corrupt(images, order, turn, step, noisy, clean, low, scale, alpha, size, batch_size, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < batch_size * size
    chosen = tl.load(order + tl.load(turn) * batch_size + place // size, mask=inside, other=0)
    pixel = (tl.load(images + chosen * size + place % size, mask=inside, other=0).to(tl.float32) - low) / scale
    corrupted = tl.load(noisy + place, mask=inside, other=0.0) * alpha + pixel
    tl.store(clean + place, pixel, mask=inside)
    tl.store(noisy + place, tl.minimum(tl.maximum(corrupted, 0.0), 1.0), mask=inside)
    if tl.program_id(0) == 0:
        tl.store(step, tl.load(step) + 1)  # here, since Adam's programs all read it


@triton.jit(do_not_specialize=["num_losses", "num_steps", "parameters"])
def _adam(
    flat, gradient, exp_avg, exp_avg_sq, step, partial, losses, total, turn,
    num_losses, num_steps, parameters, scale, lr, beta1, beta2, eps, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = i < parameters
    rows = tl.arange(0, SPLITS)[:, None] * parameters + i[None, :]
    g = tl.sum(tl.load(partial + rows, mask=known[None, :], other=0.0), axis=0) * (2 * scale)
    first = tl.load(exp_avg + i, mask=known, other=0.0)
    second = tl.load(exp_avg_sq + i, mask=known, other=0.0)
    first += (1 - beta1) * (g - first)
    second += (1 - beta2) * (g * g - second)
    count = tl.load(step)
    size = lr / (1 - tl.exp2(count * tl.log2(beta1)))
    spread = tl.sqrt(second / (1 - tl.exp2(count * tl.log2(beta2)))) + eps
    tl.store(gradient + i, g, mask=known)
    tl.store(exp_avg + i, first, mask=known)
    tl.store(exp_avg_sq + i, second, mask=known)
    tl.store(flat + i, tl.load(flat + i, mask=known, other=0.0) - size * first / spread, mask=known)
    if tl.program_id(0) == 0:
        loss = 0.0
        for start in tl.range(0, num_losses, 1024):
            place = start + tl.arange(0, 1024)
            loss += tl.sum(tl.load(losses + place, mask=place < num_losses, other=0.0))
        tl.store(total, tl.load(total) + loss * scale)
        tl.store(turn, (tl.load(turn) + 1) % num_steps)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer in the terms of the kernels; ``*_start`` are places in the flat parameter."""

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
        """Programs of a convolution in that direction."""
        size, columns = self.size_latent, self.latent
        if up:
            size = (self.size_image - 1 + self.padding) // self.stride - self.padding // self.stride + 1
            columns = self.image * self.stride**2
        return _blocks(batch * size**2, ROWS) * _blocks(columns, _width(self.image if up else self.latent))


class Unavailable(Exception):
    """Triton cannot compile here, for want of a C compiler, say, or of a GPU that it supports."""


class Step:
    """Forward, backward and Adam of one model at one batch size; nothing here waits for the host.

    Args:
        model: its parameters are views of ``flat``, weights channels last.
        flat: all parameters, with a gradient.
        batch_size: of training batches.

    Raises:
        Unavailable: the kernels do not compile here.
    """

    _compiling = threading.Lock()
    """Threads would else compile the same kernels side by side."""

    def __init__(self, model: DenoisingAutoencoder, flat: torch.Tensor, batch_size: int) -> None:
        self._flat = flat.detach()
        self._gradient = flat.grad
        self._layers = _layers(model)
        self._batch_size = batch_size
        new = self._flat.new_empty
        self._partial = new(SPLITS, flat.numel())
        self._clean, self._noisy = (new(batch_size, IMAGE_SIZE, IMAGE_SIZE) for _ in range(2))
        self._losses = new(self._layers[-1].programs(batch_size, up=True))
        self._activations = [self._noisy] + [new(batch_size, *layer.result_shape) for layer in self._layers]
        self._gradients = [new(batch_size, *layer.result_shape) for layer in self._layers[:-1]] + self._activations[-1:]
        if self._flat.is_cuda:
            self._compile()

    def denoise(self, noisy: torch.Tensor) -> torch.Tensor:
        """The model's answers to images of shape (n, 1, 28, 28)."""
        x = noisy.contiguous()
        for layer in self._layers:
            result = x.new_empty(len(noisy), *layer.result_shape)
            self._forward(layer, x, result, SIGMOID if layer is self._layers[-1] else RELU)
            x = result
        return x.view(noisy.shape)

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
        """Make batch number ``turn``, clean and corrupted.

        Args:
            images: uint8, shape (n, 784).
            order: image indices, shape (steps, batch size).
            turn: which row of ``order``, int64, one element.
            count: Adam's number of steps, a float; becomes one more.
            noise: where the noise is drawn from.
            low: pixel value that becomes 0.
            scale: how much larger the one is that becomes 1.
            alpha: as in `dae.noise.corrupt`.
        """
        self._noisy.normal_(generator=noise)
        size = IMAGE_SIZE**2
        _corrupt[(_blocks(self._noisy.numel(), PIXELS),)](
            images, order, turn, count, self._noisy, self._clean,
            low, float(scale), alpha, size, self._batch_size, BLOCK=PIXELS,
        )  # fmt: skip

    def differentiate(self) -> None:
        """From the batch that `load` made to the loss and to partial sums of all gradients."""
        *inner, last = self._layers
        for layer, (source, result) in zip(inner, pairwise(self._activations), strict=False):
            self._forward(layer, source, result, RELU)
        self._forward(last, self._activations[-2], self._gradients[-1], LOSS)
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
        """Adam's step with the gradients of `differentiate`, as ``torch.optim.Adam`` would take it.

        Args:
            state: Adam's, its step number already that of this step.
            total: the loss is added to it.
            turn: becomes one more, modulo ``steps``.
            steps: of an epoch.
            lr: as in ``torch.optim.Adam``.
            betas: likewise.
            eps: likewise.
        """
        _adam[(_blocks(self._flat.numel(), FLAT_BLOCK),)](
            self._flat, self._gradient, state["exp_avg"], state["exp_avg_sq"], state["step"],
            self._partial, self._losses, total, turn, self._losses.numel(), steps, self._flat.numel(),
            1 / self._clean.numel(), lr, *betas, eps, SPLITS=SPLITS, BLOCK=FLAT_BLOCK,
        )  # fmt: skip

    def _compile(self) -> None:
        # Triton compiles at a kernel's first launch, a second each; most of that runs side by side.
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
        """One launch, of no programs, of every kernel that this model needs."""
        x, batch = self._noisy, self._batch_size
        index = x.new_zeros(1, dtype=torch.int64)
        pixels = x.new_zeros(1, dtype=torch.uint8)
        kinds = {(layer.image, layer.latent): layer for layer in self._layers}.values()
        return [
            *[partial(self._launch, layer, x, x, x, x, RELU, 0, 0, up=up) for layer in kinds for up in (False, True)],
            partial(_corrupt[(0,)], pixels, index, index, x, x, x, 0, 1.0, 1.0, IMAGE_SIZE**2, batch, BLOCK=PIXELS),
            partial(
                _adam[(0,)], x, x, x, x, x, x, x, x, index, 1, 1, 1, 1.0, 1.0, 0.5, 0.5, 1.0,
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
        self._launch(layer, image, latent, result, source, MASK, convolving, convolving + summing, up=not layer.is_up)

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
        _layer[(programs,)](
            image, latent, self._flat, result, other, self._losses, self._partial,
            len(image), layer.size_image, layer.size_latent, layer.kernel, layer.stride, layer.padding,
            mode.value, convolving, layer.weight_start, layer.bias_start, self._flat.numel(),
            IMAGE=layer.image, LATENT=layer.latent, UP=up, OUT_BLOCK=_width(layer.image if up else layer.latent),
            IMAGE_BLOCK=_width(layer.image), LATENT_BLOCK=_width(layer.latent), ROWS=ROWS, DEPTH=DEPTH,
            SPLITS=SPLITS, GRADIENT_ROWS=GRADIENT_ROWS, GRADIENT_BLOCK=_gradient_block(layer.image),
            PRECISION=PRECISION, num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip


def supports(model: nn.Module) -> bool:
    """Whether the kernels can carry out this model: no layer has more than `MAX_CHANNELS` channels."""
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    return all(max(layer.in_channels, layer.out_channels) <= MAX_CHANNELS for layer in convolutions)


def _layers(model: DenoisingAutoencoder) -> list[_Layer]:
    layers = []
    size, start = IMAGE_SIZE, 0
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
    # tl.dot wants at least 16 columns on tensor cores.
    return max(16, 1 << (channels - 1).bit_length())


def _gradient_block(channels: int) -> int:
    # A row of a kernel on few channels is short; a wide block would sum zeros.
    return max(16, min(GRADIENT_BLOCK, 4 << (channels - 1).bit_length()))


def _blocks(n: int, block: int) -> int:
    return -(-n // block)
