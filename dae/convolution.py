"""A transposed convolution computed as a convolution, which is faster on CPUs; the same to rounding."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from dae.torch_private import transposed_convolution_backward


def transposed_convolution(x: torch.Tensor, layer: nn.ConvTranspose2d) -> torch.Tensor:
    """``layer(x)`` computed as a convolution.

    With stride 1 a transposed convolution is a convolution with the kernel flipped and its channels swapped.
    """
    stride, (down, across), (height, width) = layer.stride, _pair(layer.padding), layer.kernel_size
    if max(stride) > 1:
        interleaved: torch.Tensor = _Interleaved.apply(x, layer.weight, layer.bias, stride, (down, across))
        return interleaved
    padding = height - 1 - down, width - 1 - across
    return F.conv2d(x, layer.weight.flip(2, 3).transpose(0, 1), layer.bias, padding=padding)


def _pair(padding: str | tuple[int, ...]) -> tuple[int, int]:
    down, across = map(int, padding)  # torch's type allows for words, which no layer here has
    return down, across


class _Interleaved(torch.autograd.Function):
    """A transposed convolution of stride (s, t) as one convolution.

    Every one of the s x t phases of the output is a convolution with every s-th row and t-th column of the kernel; all
    phases are computed at once as channels and interleaved (Shi et al. 2016, arXiv:1609.05158). The gradients of a
    transposed convolution are plain convolutions already.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        inputs, outputs, *kernel = weight.shape
        (s, t), (top, left) = stride, padding
        high, wide = (-(-size // step) for size, step in zip(kernel, stride, strict=True))  # taps of a phase
        padded = F.pad(weight, (0, wide * t - kernel[1], 0, high * s - kernel[0]))
        phases = padded.view(inputs, outputs, high, s, wide, t)
        # (phase row, phase column, output) channels, last in memory as everything else.
        channels = phases.flip(2, 4).permute(3, 5, 1, 2, 4, 0).reshape(-1, high, wide, inputs).permute(0, 3, 1, 2)
        computed = F.conv2d(x, channels, bias.repeat(s * t), padding=(high - 1, wide - 1)).permute(0, 2, 3, 1)
        n, rows, columns, _ = computed.shape
        full = computed.reshape(n, rows, columns, s, t, outputs).transpose(2, 3)
        full = full.reshape(n, rows * s, columns * t, outputs).permute(0, 3, 1, 2)
        height, width = (
            (size - 1) * step - 2 * gap + reach
            for size, step, gap, reach in zip(x.shape[-2:], stride, padding, kernel, strict=True)
        )
        return full[:, :, top : top + height, left : left + width]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        return *transposed_convolution_backward(gradient, x, weight, ctx.stride, ctx.padding, needed), None, None
