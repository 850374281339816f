"""Fast computation of one model's training steps on a CPU or GPU.

The results are those of the plain `DenoisingAutoencoder` to rounding. All parameters are in one flat tensor, of which
the module's parameters are views, so that Adam is one kernel. On a CPU transposed convolutions are computed as
convolutions in channels-last layout; on a GPU whole steps are replayed as a CUDA graph.
"""

import ctypes
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from dae.adam import BETAS, EPS, Adam, flatten
from dae.config import GAUSSIAN, IMAGE_SIZE, TrainConfig
from dae.model import DenoisingAutoencoder
from dae.noise import corrupt
from dae.torch_private import transposed_convolution_backward

if TYPE_CHECKING:
    from dae import gpu_step

EVALUATION_BATCH = {"cpu": 200, "cuda": 4000}
"""Images of one forward pass without a backward one: what fits the cache of a core, or fills a GPU."""

GRAPH_STEPS = 25
"""Steps of one CUDA graph: enough that its launch costs little, few enough to capture it fast."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's ``mallopt``, from its ``malloc.h``."""


def settle_process() -> None:
    """Set the process up for trainings on one core each: faster, with the same numbers."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal weights make convolutions many times slower
    # By default the C library returns large blocks to the system at once, and every step would request them again.
    with suppress(OSError, AttributeError):  # another C library than glibc
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value allowed
        set_option(M_TRIM_THRESHOLD, 512 * 2**20)


class Engine:
    """The training of one model on one device.

    Args:
        model: its parameters are moved to the device and become views of one tensor.
        config: gives batch size, learning rate and noise.
        train: training images, uint8, shape (n, 28, 28); their device is the engine's.
        low, high: pixel values that become 0 and 1.
    """

    def __init__(
        self, model: DenoisingAutoencoder, config: TrainConfig, train: torch.Tensor, low: int, high: int
    ) -> None:
        self.device = train.device
        self.model = model.to(self.device)
        self.config = config
        self.low, self.scale = low, high - low
        self.train_images = train.view(len(train), -1)
        self.flat = flatten(self.model)
        self.adam = Adam(self.flat, config.lr)
        self._average = self.flat.detach().clone() if config.averaging else None

    def set_lr(self, lr: float) -> None:
        """Take steps of this size from now on."""
        self.adam.lr = lr

    def train_epoch(self, order: torch.Tensor, noise: torch.Generator) -> float:
        """Train on the images in ``order``; returns the mean loss over the batches.

        Args:
            order: image indices, a whole number of batches, on the device.
            noise: generator of the noise, on the device.
        """
        total = torch.zeros((), device=self.device)
        for batch in order.view(-1, self.config.batch_size):
            self._step(batch, noise, total)
        return float(total) / (len(order) // self.config.batch_size)

    def _step(self, batch: torch.Tensor, noise: torch.Generator, total: torch.Tensor) -> None:
        clean = self.unit(self.train_images.index_select(0, batch))
        noisy = corrupt(clean, self.config.alpha, noise, self.config.noise)
        assert self.flat.grad is not None
        self.flat.grad.zero_()
        loss = F.mse_loss(self.forward(noisy), clean)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        self.adam.step()
        self._update_average()
        total += loss.detach()

    def _update_average(self) -> None:
        """Draw the average towards the weights; over fewer steps at first, so that it forgets where it began."""
        if self._average is not None:
            step = self.adam.moments["step"]
            kept = ((1 + step) / (10 + step)).clamp_max(self.config.averaging)
            self._average.lerp_(self.flat.detach(), 1 - kept)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Meanwhile the model's parameters are the average over the last steps, where one is kept."""
        if self._average is None:
            yield
            return
        with torch.no_grad():
            latest = self.flat.detach().clone()
            self.flat.copy_(self._average)  # in place: the module's parameters are views, CUDA graphs hold the address
            try:
                yield
            finally:
                self.flat.copy_(latest)

    def unit(self, pixels: torch.Tensor) -> torch.Tensor:
        """The uint8 pixels of n images as float32 in [0, 1], shape (n, 1, 28, 28)."""
        unit = pixels.view(-1, 1, IMAGE_SIZE, IMAGE_SIZE).to(torch.float32)
        return unit.sub_(self.low).div_(self.scale) if self.low else unit.div_(self.scale)

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        """Denoised images of the shape (n, 1, 28, 28) of ``noisy``."""
        denoised: torch.Tensor = self.model(noisy)
        return denoised

    @torch.inference_mode()
    def denoise(self, noisy: torch.Tensor) -> torch.Tensor:
        """Denoised images of the shape (n, 1, 28, 28) of ``noisy`` and on its device, batch by batch."""
        batches = torch.split(noisy, EVALUATION_BATCH[self.device.type])
        with self.averaged():
            return torch.cat([self.forward(batch.to(self.device)).to(noisy.device) for batch in batches])

    @torch.inference_mode()
    def latent_activity(self, noisy: torch.Tensor) -> torch.Tensor:
        """Share of the elements of each latent channel that are not 0, shape (latent_channels,), on the CPU."""
        with self.averaged():
            latent: torch.Tensor = self.model.encoder(noisy.to(self.device))
        return (latent > 0).float().mean(dim=(0, 2, 3)).cpu()

    @torch.inference_mode()
    def validate(self, images: torch.Tensor, noise: torch.Generator) -> float:
        """The mean loss on uint8 ``images`` (n, 28, 28) under a draw of noise from ``noise``."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        with self.averaged():
            for batch in torch.split(images, EVALUATION_BATCH[self.device.type]):
                clean = self.unit(batch)
                noisy = corrupt(clean, self.config.alpha, noise, self.config.noise)
                total += F.mse_loss(self.forward(noisy), clean, reduction="sum")
        return float(total) / images.numel()

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters and the optimiser's moments, on the CPU; the argument of `restore`."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._state().items()}

    @torch.no_grad()
    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a result of `state`."""
        for name, tensor in self._state().items():
            tensor.copy_(state[name])  # in place: CUDA graphs hold the addresses of these tensors

    def _state(self) -> dict[str, torch.Tensor]:
        average = {} if self._average is None else {"average": self._average}
        return {"flat": self.flat, **self.adam.moments, **average}


class CpuEngine(Engine):
    """Computes transposed convolutions as convolutions, channels last: the same to rounding in half the time."""

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        """Denoised images as the plain module gives them, to float tolerance."""
        x: torch.Tensor = self.model.encoder(noisy)
        for layer in self.model.decoder:
            x = _transposed_convolution(x, layer) if isinstance(layer, nn.ConvTranspose2d) else layer(x)
        return x


class CudaEngine(Engine):
    """Replays steps, from batch gather to Adam, as a CUDA graph that never waits for the host.

    Every engine has its own stream, so that several trainings of one process use the GPU at the same time.
    """

    _capturing = threading.Lock()
    """CUDA allows one capture at a time in a process."""

    def __init__(
        self, model: DenoisingAutoencoder, config: TrainConfig, train: torch.Tensor, low: int, high: int
    ) -> None:
        self._stream = torch.cuda.Stream(train.device)  # type: ignore[no-untyped-call]  # torch's
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        with self._on_stream():
            super().__init__(model, config, train, low, high)
            self._noise = torch.Generator(self.device)
            self._total = torch.zeros((), device=self.device)
            self._next = torch.zeros(1, dtype=torch.int64, device=self.device)
            steps = len(train) // config.batch_size
            self._order = torch.zeros(steps, config.batch_size, dtype=torch.int64, device=self.device)
            self._kernels = self._kernels_if_available()

    def _kernels_if_available(self) -> "gpu_step.Step | None":
        try:
            from dae import gpu_step  # needs Triton, which only torch for Linux and GPUs brings; its import is slow
        except ImportError:
            return None
        if self.config.noise != GAUSSIAN or not gpu_step.supports(self.model):  # the kernels know no other noise
            return None
        try:
            return gpu_step.Step(self.model, self.flat, self.config.batch_size)
        except gpu_step.Unavailable as problem:
            warnings.warn(f"{problem} Trainings go on without the project's own GPU kernels, slower.", stacklevel=2)
            return None

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        """Denoised images as the plain module gives them, to the precision of `dae.gpu_step`."""
        return self._kernels.denoise(noisy) if self._kernels else super().forward(noisy)

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()

    def set_lr(self, lr: float) -> None:
        """As on any device; a captured graph holds the step size it was captured with."""
        if lr != self.adam.lr:
            self._graphs.clear()
        super().set_lr(lr)

    def train_epoch(self, order: torch.Tensor, noise: torch.Generator) -> float:
        """See `Engine`; the graphs are captured at the first call."""
        with self._on_stream():
            if not self._graphs:
                self._capture()
            self._order.copy_(order.view_as(self._order))
            self._next.zero_()
            self._total.zero_()
            self._noise.manual_seed(noise.initial_seed())
            steps = len(self._order)
            for size, count in ((GRAPH_STEPS, steps // GRAPH_STEPS), (1, steps % GRAPH_STEPS)):
                for _ in range(count):
                    self._graphs[size].replay()
            return float(self._total) / steps

    def validate(self, images: torch.Tensor, noise: torch.Generator) -> float:
        """See `Engine`."""
        with self._on_stream():
            return super().validate(images, noise)

    def denoise(self, noisy: torch.Tensor) -> torch.Tensor:
        """See `Engine`."""
        with self._on_stream():
            return super().denoise(noisy)

    def latent_activity(self, noisy: torch.Tensor) -> torch.Tensor:
        """See `Engine`."""
        with self._on_stream():
            return super().latent_activity(noisy)

    def _capture(self) -> None:
        # Capture needs a warm-up, which changes weights and moments; they are restored afterwards.
        before = self.state()
        for _ in range(3):
            self._graph_step()
        with self._capturing:
            for size in (1, GRAPH_STEPS):
                graph = torch.cuda.CUDAGraph()
                graph.register_generator_state(self._noise)  # otherwise every replay has the same noise
                with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="relaxed"):
                    for _ in range(size):
                        self._graph_step()
                self._graphs[size] = graph
        super().restore(before)

    def _graph_step(self) -> None:
        if self._kernels:
            self._kernel_step(self._kernels)
            return
        self._step(self._order.index_select(0, self._next).view(-1), self._noise, self._total)
        self._next += 1
        self._next.remainder_(len(self._order))

    def _kernel_step(self, step: "gpu_step.Step") -> None:
        moments = self.adam.moments
        step.load(
            self.train_images,
            self._order,
            self._next,
            moments["step"],
            self._noise,
            low=self.low,
            scale=self.scale,
            alpha=self.config.alpha,
        )
        step.differentiate()
        step.update(
            moments,
            self._total,
            self._next,
            steps=len(self._order),
            lr=self.adam.lr,
            betas=BETAS,
            eps=EPS,
        )
        self._update_average()

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """See `Engine`."""
        with self._on_stream():
            super().restore(state)


def build(model: DenoisingAutoencoder, config: TrainConfig, train: torch.Tensor, low: int, high: int) -> Engine:
    """The engine for the device that ``train`` is on."""
    kind = CudaEngine if train.device.type == "cuda" else CpuEngine
    return kind(model, config, train, low, high)


def _transposed_convolution(x: torch.Tensor, layer: nn.ConvTranspose2d) -> torch.Tensor:
    """``layer(x)`` computed as a convolution, which is faster on CPUs.

    With stride 1 a transposed convolution is a convolution with the kernel flipped and its channels swapped.
    """
    stride, padding = layer.stride[0], int(layer.padding[0])
    if stride > 1:
        interleaved: torch.Tensor = _Interleaved.apply(x, layer.weight, layer.bias, stride, padding)
        return interleaved
    return F.conv2d(x, layer.weight.flip(2, 3).transpose(0, 1), layer.bias, padding=layer.kernel_size[0] - 1 - padding)


class _Interleaved(torch.autograd.Function):
    """A transposed convolution of stride s as one convolution.

    Every one of the s x s phases of the output is a convolution with every s-th tap of the kernel; all phases are
    computed at once as channels and interleaved (Shi et al. 2016, arXiv:1609.05158). The gradients of a transposed
    convolution are plain convolutions already.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, padding: int
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        inputs, outputs, kernel, _ = weight.shape
        taps = -(-kernel // stride)
        missing = taps * stride - kernel
        phases = F.pad(weight, (0, missing, 0, missing)).view(inputs, outputs, taps, stride, taps, stride)
        # (phase row, phase column, output) channels, last in memory as everything else.
        channels = phases.flip(2, 4).permute(3, 5, 1, 2, 4, 0).reshape(-1, taps, taps, inputs).permute(0, 3, 1, 2)
        computed = F.conv2d(x, channels, bias.repeat(stride**2), padding=taps - 1).permute(0, 2, 3, 1)
        n, rows, columns, _ = computed.shape
        full = computed.reshape(n, rows, columns, stride, stride, outputs).transpose(2, 3)
        full = full.reshape(n, rows * stride, columns * stride, outputs).permute(0, 3, 1, 2)
        size = (x.shape[-1] - 1) * stride - 2 * padding + kernel
        return full[:, :, padding : padding + size, padding : padding + size]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        return *transposed_convolution_backward(gradient, x, weight, ctx.stride, ctx.padding, needed), None, None
