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
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from dae import gpu_rule
from dae.adam import BETAS, EPS, Adam, flatten
from dae.config import IMAGE_SIZE, TrainConfig
from dae.convolution import transposed_convolution
from dae.model import DenoisingAutoencoder
from dae.noise import Array, corrupt

if TYPE_CHECKING:
    from dae import gpu_step

EVALUATION_BATCH = {"cpu": 200, "cuda": 4000}
"""28x28 images of one forward pass without a backward one: what fits the cache of a core, or fills a GPU."""

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
        train: training images, uint8 or uint16, shape (n, height, width) or (n, height, width, 3); their device is
            the engine's. They are not written to.
        low, high: pixel values that become 0 and 1.
        noisy: noisy training images of the same shape and type, which are trained on as they are; None to draw noise.

    Attributes:
        method: how steps are computed, where there is a choice.
    """

    method = ""

    def __init__(
        self,
        model: DenoisingAutoencoder,
        config: TrainConfig,
        train: torch.Tensor,
        low: int,
        high: int,
        noisy: torch.Tensor | None = None,
    ) -> None:
        self.device = train.device
        self.model = model.to(self.device)
        self.config = config
        self.low, self.scale = low, high - low
        self.image_shape = train.shape[1:]
        self.train_images = _rows(train)
        self.train_noisy = None if noisy is None else _rows(noisy)
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
        given = None if self.train_noisy is None else self.train_noisy.index_select(0, batch)
        noisy = self._noisy(clean, given, noise)
        assert self.flat.grad is not None
        self.flat.grad.zero_()
        loss = F.mse_loss(self.forward(noisy), clean)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        self.adam.step()
        self._update_average()
        total += loss.detach()

    def _noisy(self, clean: torch.Tensor, given: torch.Tensor | None, noise: torch.Generator) -> torch.Tensor:
        """The noisy images that are given of clean ones, else the clean ones under a draw of noise."""
        return corrupt(clean, self.config.alpha, noise, self.config.noise) if given is None else self.unit(given)

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
        """The pixels of n images as float32 in [0, 1], shape (n, channels, height, width)."""
        if pixels.dtype == torch.int16:
            pixels = pixels.view(torch.uint16)
        unit = channels_first(pixels.view(-1, *self.image_shape)).to(torch.float32)
        return unit.sub_(self.low).div_(self.scale) if self.low else unit.div_(self.scale)

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        """Denoised images of the shape (n, channels, height, width) of ``noisy``."""
        denoised: torch.Tensor = self.model(noisy)
        return denoised

    @torch.inference_mode()
    def denoise(self, noisy: torch.Tensor) -> torch.Tensor:
        """Denoised images of the shape (n, channels, height, width) of ``noisy`` and on its device, batch by batch."""
        batches = torch.split(noisy, self._evaluation_batch)
        with self.averaged():
            return torch.cat([self.forward(batch.to(self.device)).to(noisy.device) for batch in batches])

    def denoise_array(self, noisy: Array) -> Array:
        """As `denoise`, from array to array: (n, height, width) or (n, height, width, 3)."""
        denoised = self.denoise(as_batch(noisy))
        return (denoised.squeeze(1) if noisy.ndim == 3 else denoised.permute(0, 2, 3, 1)).numpy()

    @property
    def _evaluation_batch(self) -> int:
        """Images of one forward pass: of larger ones fewer."""
        height, width = self.image_shape[:2]
        return max(1, EVALUATION_BATCH[self.device.type] * IMAGE_SIZE**2 // (height * width))

    @torch.inference_mode()
    def latent_activity(self, noisy: torch.Tensor) -> torch.Tensor:
        """Share of the elements of each latent channel that are not 0, shape (latent_channels,), on the CPU."""
        with self.averaged():
            latent: torch.Tensor = self.model.encoder(noisy.to(self.device))
        return (latent > 0).float().mean(dim=(0, 2, 3)).cpu()

    @torch.inference_mode()
    def validate(self, images: torch.Tensor, noise: torch.Generator, given: torch.Tensor | None = None) -> float:
        """The mean loss on ``images`` (n, ...) under a draw of noise from ``noise``, or as noisy as they are given."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        size = self._evaluation_batch
        with self.averaged():
            for start in range(0, len(images), size):
                clean = self.unit(images[start : start + size])
                noisy = self._noisy(clean, None if given is None else given[start : start + size], noise)
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
            x = transposed_convolution(x, layer) if isinstance(layer, nn.ConvTranspose2d) else layer(x)
        return x


class CudaEngine(Engine):
    """Replays steps, from batch gather to Adam, as a CUDA graph that never waits for the host.

    Every engine has its own stream, so that several trainings of one process use the GPU at the same time.
    """

    _capturing = threading.Lock()
    """CUDA allows one capture at a time in a process."""

    def __init__(
        self,
        model: DenoisingAutoencoder,
        config: TrainConfig,
        train: torch.Tensor,
        low: int,
        high: int,
        noisy: torch.Tensor | None = None,
    ) -> None:
        self._stream = torch.cuda.Stream(train.device)  # type: ignore[no-untyped-call]  # torch's
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        with self._on_stream():
            super().__init__(model, config, train, low, high, noisy)
            self._noise = torch.Generator(self.device)
            self._total = torch.zeros((), device=self.device)
            self._next = torch.zeros(1, dtype=torch.int64, device=self.device)
            steps = len(train) // config.batch_size
            self._order = torch.zeros(steps, config.batch_size, dtype=torch.int64, device=self.device)
            self._kernels = self._kernels_if_available()

    def _kernels_if_available(self) -> "gpu_step.Step | None":
        obstacle = gpu_rule.obstacle(
            self.model.config,
            self.config,
            largest_batch=max(self.config.batch_size, self._evaluation_batch),
            is_8_bit=self.train_images.dtype == torch.uint8,
            is_noise_given=self.train_noisy is not None,
        )
        self.method = gpu_rule.method(obstacle)
        if obstacle is not None:
            return None
        try:
            from dae import gpu_step  # needs Triton, which only torch for Linux and GPUs brings; its import is slow
        except ImportError:
            self.method = gpu_rule.method("Triton is not there")
            return None
        try:
            return gpu_step.Step(self.model, self.flat, self.config.batch_size)
        except gpu_step.Unavailable as problem:
            warnings.warn(f"{problem} Trainings go on without the project's own GPU kernels, slower.", stacklevel=2)
            self.method = gpu_rule.method("they do not compile here")
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

    def validate(self, images: torch.Tensor, noise: torch.Generator, given: torch.Tensor | None = None) -> float:
        """See `Engine`."""
        with self._on_stream():
            return super().validate(images, noise, given)

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


def build(
    model: DenoisingAutoencoder,
    config: TrainConfig,
    train: torch.Tensor,
    low: int,
    high: int,
    noisy: torch.Tensor | None = None,
) -> Engine:
    """The engine for the device that ``train`` is on; arguments as those of `Engine`."""
    kind = CudaEngine if train.device.type == "cuda" else CpuEngine
    return kind(model, config, train, low, high, noisy)


def as_batch(images: Array) -> torch.Tensor:
    """Images (n, height, width) or (n, height, width, 3) as the model takes them; they share their memory."""
    return channels_first(torch.from_numpy(images))


def channels_first(images: torch.Tensor) -> torch.Tensor:
    """Images (n, height, width) or (n, height, width, 3) as (n, channels, height, width)."""
    return images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)


def _rows(images: torch.Tensor) -> torch.Tensor:
    """One row an image. 16 bits are taken for signed ones meanwhile: torch gathers few unsigned types everywhere."""
    rows = images.view(len(images), -1)
    return rows.view(torch.int16) if rows.dtype == torch.uint16 else rows
