"""Triton kernels of a training step of the autoencoder on a GPU; `dae.gpu_step` launches them.

The layers are so small that the cost of a step is the number of its kernels, so there are few: one for the batch and
its corruption, one for a layer forward (with bias, ReLU, sigmoid, loss and its gradient), one for a layer backward
(gradients of input, weights and bias side by side), one for Adam. Only the normal noise is drawn by torch.

A layer connects an image side with a smaller latent side; encoder and decoder differ only in direction. A convolution
goes down, from image to latent, a transposed one up, and each is the gradient of the other by its input. Activations
are float32 of shape (batch, size, size, channels), weights (latent channels, k, k, image channels), as
`dae.adam.flatten` lays out both kinds of layer. Every convolution is a matrix product over (tap, channel), gathered
while it is computed.
"""

# Arguments that a kernel is compiled for are in capitals, as constants are; Triton has no types to check.
# ruff: noqa: N803, N806
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

RELU, SIGMOID, LOSS, MASK = (tl.constexpr(i) for i in range(4))
"""What a convolution makes of its sums: their ReLU; their sigmoid; through a sigmoid the gradient of half the summed
squared error; zero where the ReLU before it was zero."""


@triton.jit
def _convolve(
    program, source, weight, bias, result, other, losses, batch, size_in, size_out, kernel, stride, padding, mode,
    CHANNELS_IN: tl.constexpr, CHANNELS_OUT: tl.constexpr, UP: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # Up, an output pixel gets only every stride-th tap: which ones depends on its phase, its position modulo the
    # stride. Here the phases are channels of a convolution of stride 1 (Shi et al. 2016, arXiv:1609.05158).
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
    # All images for one position before the next, so that the addresses of its pixels are computed once.
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
    # Rows of a fixed width for any number of channels: a row holds every channel equally often, in order.
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
def layer(
    image, latent, flat, result, other, losses, partial,
    batch, size_image, size_latent, kernel, stride, padding, mode, convolving,
    weight_start, bias_start, parameters,
    IMAGE: tl.constexpr, LATENT: tl.constexpr, UP: tl.constexpr, OUT_BLOCK: tl.constexpr,
    IMAGE_BLOCK: tl.constexpr, LATENT_BLOCK: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    SPLITS: tl.constexpr, GRADIENT_ROWS: tl.constexpr, GRADIENT_BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Convolve in the direction ``UP`` with the first ``convolving`` programs; add up gradients with the others."""
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
def corrupt(images, order, turn, step, noisy, clean, low, scale, alpha, size, batch_size, BLOCK: tl.constexpr):
    """Gather a batch, scale it and add the noise that is in ``noisy``."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < batch_size * size
    chosen = tl.load(order + tl.load(turn) * batch_size + place // size, mask=inside, other=0)
    pixel = (tl.load(images + chosen * size + place % size, mask=inside, other=0).to(tl.float32) - low) / scale
    corrupted = tl.load(noisy + place, mask=inside, other=0.0) * alpha + pixel
    tl.store(clean + place, pixel, mask=inside)
    tl.store(noisy + place, tl.minimum(tl.maximum(corrupted, 0.0), 1.0), mask=inside)
    if tl.program_id(0) == 0:
        tl.store(step, tl.load(step) + 1)  # not in Adam's kernel, whose programs all read it


@triton.jit(do_not_specialize=["num_losses", "num_steps", "parameters"])
def adam(
    flat, gradient, exp_avg, exp_avg_sq, step, partial, losses, total, turn,
    num_losses, num_steps, parameters, scale, lr, beta1, beta2, eps, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Take Adam's step with the partial gradients; add the mean loss of the batch to ``total``."""
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
