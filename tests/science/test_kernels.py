"""The step on a GPU against the plain module in float64.

Where there is no GPU, Triton's interpreter runs them on the CPU. It must be chosen before Triton is first imported, so
this file then runs itself once more in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from dae.adam import flatten
from dae.config import ImageShape, ModelConfig
from dae.engine import channels_first
from dae.initialisation import draw
from dae.model import DenoisingAutoencoder
from dae.noise import corrupt

pytest.importorskip("triton", reason="Triton is there for GPUs alone")

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
BATCH, STEPS, LOW, SCALE, ALPHA = 3, 4, 10, 200, 0.5

# The layers of depth 5 are those of depth 3, one of them three times; each layer takes seconds in the interpreter.
STUDY = [
    ModelConfig(depth=depth, latent=latent)
    for depth in ((1, 3) if IS_INTERPRETED else (1, 3, 5))
    for latent in (13, 8, 5)
]
ODD = [
    ModelConfig(depth=1, latent=2 if IS_INTERPRETED else 1),  # a kernel as large as its stride
    ModelConfig(depth=1, latent=14),  # stride 2 with padding
    ModelConfig(depth=1, latent=28),
    ModelConfig(depth=2, latent=2),  # stride 6, kernel 7: phases with one tap and with two
    ModelConfig(depth=2, latent=14),  # a stem at full size
    *([] if IS_INTERPRETED else [ModelConfig(depth=2, latent=1, width=3)]),
    ModelConfig(depth=2, latent=7, width=5, latent_channels=3),  # channels that fill no block
    ModelConfig(depth=2, latent=9, width=33, latent_channels=20),
    ModelConfig(depth=4 if IS_INTERPRETED else 9, latent=6, width=4),
    ModelConfig(depth=2, latent=3, width=4, image=ImageShape(9, 9, 3)),
    ModelConfig(depth=1, latent=4, image=ImageShape(12, 12, 3)),
]
QUICK = (ModelConfig(depth=1, latent=5), ModelConfig(depth=2, latent=7, width=5, latent_channels=3))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available() or IS_INTERPRETED, reason="the tests below run in this very process")
def test_in_the_interpreter() -> None:
    """Two halves of about the same length, side by side."""
    half, environment = "DAE_1_ or DAE_2_", os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", which, __file__],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for which in (half, f"not ({half})")
    ]
    for output, process in [(process.communicate()[0], process) for process in processes]:
        assert process.returncode == 0, output
        assert " passed" in output


@pytest.fixture
def gpu_step(monkeypatch: pytest.MonkeyPatch):
    from dae import gpu_step

    monkeypatch.setattr(gpu_step, "PRECISION", "ieee")
    if IS_INTERPRETED:  # each program costs milliseconds there, however large
        for name, value in {
            "ROWS": 1024,
            "GRADIENT_ROWS": 256,
            "SPLITS": 2,
            "FLAT_BLOCK": 8192,
            "PIXELS": 4096,
        }.items():
            monkeypatch.setattr(gpu_step, name, value)
    return gpu_step


class Trainee:
    """A model with its step, batches to train on, and Adam's state."""

    def __init__(self, gpu_step, config: ModelConfig) -> None:
        seeded = torch.Generator().manual_seed(7)
        self.model = DenoisingAutoencoder(config)
        draw(self.model, seeded, 0.13, latent_bias=0.0)
        for parameter in self.model.parameters():  # biases that matter
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=seeded)
        self.plain = DenoisingAutoencoder(config).to(DEVICE, torch.float64)
        self.plain.load_state_dict(self.model.state_dict())
        self.model.to(DEVICE)
        self.flat = flatten(self.model)
        self.step = gpu_step.Step(self.model, self.flat, BATCH)
        buffers = (self.step._partial, self.step._losses, *self.step._activations, *self.step._gradients)
        for buffer in buffers:  # what is not written is seen
            buffer.fill_(float("nan"))
        self.images = torch.randint(LOW, LOW + SCALE + 1, (10, config.image.numbers), generator=seeded).to(
            DEVICE, torch.uint8
        )
        self.order = torch.randint(0, 10, (STEPS, BATCH), generator=seeded).to(DEVICE)
        self.turn = torch.tensor([STEPS - 2], device=DEVICE)
        self.total = torch.zeros((), device=DEVICE)
        zeros = torch.zeros(self.flat.numel(), device=DEVICE)
        self.adam = {"step": torch.zeros((), device=DEVICE), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        self.noise = torch.Generator(DEVICE).manual_seed(3)

    def load(self) -> None:
        self.step.load(
            self.images, self.order, self.turn, self.adam["step"], self.noise, low=LOW, scale=SCALE, alpha=ALPHA
        )

    def train(self, lr: float = 1e-3) -> None:
        self.load()
        self.step.differentiate()
        self.step.update(self.adam, self.total, self.turn, steps=STEPS, lr=lr, betas=(0.9, 0.999), eps=1e-8)

    @property
    def clean(self) -> torch.Tensor:
        return channels_first(self.step._clean)

    @property
    def noisy(self) -> torch.Tensor:
        return channels_first(self.step._noisy)


def cases(configs: list[ModelConfig]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "config", configs, ids=[f"{c.name}-{c.width}-{c.latent_channels}-{c.image}" for c in configs]
    )


class TestKernels:
    __test__ = torch.cuda.is_available() or IS_INTERPRETED

    @cases([*STUDY, *ODD])
    def test_answers_loss_and_gradients_are_those_of_the_plain_module(self, gpu_step, config: ModelConfig) -> None:
        trainee = Trainee(gpu_step, config)
        trainee.train(lr=0)
        due = trainee.plain(trainee.noisy.double())
        loss = F.mse_loss(due, trainee.clean.double())
        loss.backward()
        torch.testing.assert_close(trainee.step.denoise(trainee.noisy).double(), due.detach(), rtol=0, atol=1e-5)
        assert trainee.total.item() == pytest.approx(loss.item(), rel=1e-5)
        for (name, mine), theirs in zip(trainee.model.named_parameters(), trainee.plain.parameters(), strict=True):
            assert mine.grad is not None
            assert theirs.grad is not None
            error = (mine.grad - theirs.grad).norm() / theirs.grad.norm()
            assert error < 1e-5, f"{name}: {error}"

    @cases([QUICK[0]])
    def test_rounded_factors_cost_no_more_than_their_rounding(
        self, gpu_step, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu_step, "PRECISION", "tf32")
        trainee = Trainee(gpu_step, config)
        trainee.load()
        due = trainee.plain(trainee.noisy.double()).detach()
        torch.testing.assert_close(trainee.step.denoise(trainee.noisy).double(), due, rtol=0, atol=5e-3)

    @cases([QUICK[0]])
    def test_a_batch_is_gathered_scaled_and_corrupted(self, gpu_step, config: ModelConfig) -> None:
        trainee = Trainee(gpu_step, config)
        trainee.load()
        clean = (trainee.images[trainee.order[STEPS - 2]].float() - LOW) / SCALE
        noisy = corrupt(clean, ALPHA, torch.Generator(DEVICE).manual_seed(3))
        torch.testing.assert_close(trainee.clean.view_as(clean), clean)
        torch.testing.assert_close(trainee.noisy.view_as(noisy), noisy, rtol=0, atol=1e-6)

    @cases([QUICK[0]])
    def test_steps_are_those_of_adam_and_walk_through_the_epoch(self, gpu_step, config: ModelConfig) -> None:
        trainee = Trainee(gpu_step, config)
        flat = nn.Parameter(trainee.flat.detach().clone())
        adam = torch.optim.Adam([flat], lr=1e-3)
        turns, noisy = [], []
        for _ in range(3):
            turns.append(trainee.turn.item())
            trainee.train()
            noisy.append(trainee.noisy.clone())
            assert trainee.flat.grad is not None
            flat.grad = trainee.flat.grad.clone()
            adam.step()
            torch.testing.assert_close(trainee.flat, flat, rtol=0, atol=1e-6)
        assert turns == [STEPS - 2, STEPS - 1, 0]
        assert trainee.adam["step"].item() == 3
        assert not torch.equal(noisy[0], noisy[1])

    @cases([QUICK[1]])
    def test_the_same_step_gives_the_same_bits(self, gpu_step, config: ModelConfig) -> None:
        one, other = Trainee(gpu_step, config), Trainee(gpu_step, config)
        for trainee in (one, other):
            trainee.train()
        assert torch.equal(one.flat, other.flat)
        assert torch.equal(one.total, other.total)

    def test_layers_too_wide_are_left_to_the_plain_module(self, gpu_step) -> None:
        assert gpu_step.supports(DenoisingAutoencoder(ModelConfig(depth=3, latent=8, width=64)))
        assert not gpu_step.supports(DenoisingAutoencoder(ModelConfig(depth=3, latent=8, width=65)))
        assert not gpu_step.supports(DenoisingAutoencoder(ModelConfig(depth=1, latent=8, latent_channels=65)))
