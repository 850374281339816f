"""The engines against the plain module and plain Adam: another way to compute, the same numbers."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from dae import engine
from dae.adam import Adam
from dae.config import ModelConfig, TrainConfig
from dae.engine import CpuEngine, CudaEngine, Engine
from dae.initialisation import draw
from dae.model import DenoisingAutoencoder
from dae.noise import corrupt

pytestmark = pytest.mark.usefixtures("one_thread")

NINE = [ModelConfig(depth=depth, latent=latent) for depth in (5, 3, 1) for latent in (13, 8, 5)]
CONFIG = TrainConfig(batch_size=8, lr=1e-3)

nine_cells = pytest.mark.parametrize("config", NINE, ids=lambda config: config.name)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def plain_model(config: ModelConfig, seed: int = 0) -> DenoisingAutoencoder:
    model = DenoisingAutoencoder(config)
    draw(model, generator(seed), mean_pixel=0.2, latent_bias=0.0)
    with torch.no_grad():  # so that a lost bias would show
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(torch.randn(parameter.shape, generator=generator(7)), alpha=0.1)
    return model


def pixels(count: int = 40, low: int = 0, high: int = 255) -> torch.Tensor:
    return torch.randint(low, high + 1, (count, 28, 28), generator=generator(3), dtype=torch.uint8)


def engine_of(
    config: ModelConfig,
    training: TrainConfig = CONFIG,
    train: torch.Tensor | None = None,
    low: int = 0,
    high: int = 255,
) -> Engine:
    return engine.build(plain_model(config), training, pixels() if train is None else train, low, high)


def bits(state: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.detach().cpu().contiguous().numpy().tobytes() for name, tensor in state.items()}


# ---- forward and backward


def check_forward_and_backward(config: ModelConfig, dtype: torch.dtype, tolerance: float) -> None:
    built = engine_of(config)
    assert type(built) is CpuEngine
    plain, built.model = plain_model(config).to(dtype), built.model.to(dtype)
    noisy = torch.rand(3, 1, 28, 28, generator=generator(1)).to(dtype)
    target = torch.rand(3, 1, 28, 28, generator=generator(2)).to(dtype)
    denoised, due = built.forward(noisy), plain(noisy)
    torch.testing.assert_close(denoised, due, rtol=tolerance, atol=tolerance)
    for parameter in built.model.parameters():
        assert parameter.grad is not None
        parameter.grad = torch.zeros_like(parameter)
    F.mse_loss(denoised, target).backward()  # type: ignore[no-untyped-call]
    F.mse_loss(due, target).backward()  # type: ignore[no-untyped-call]
    for (name, one), other in zip(built.model.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        scale = other.grad.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(one.grad, other.grad, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("latent", range(1, 29))
def test_values_and_gradients_are_the_plain_modules_in_double_precision(depth: int, latent: int) -> None:
    check_forward_and_backward(ModelConfig(depth=depth, latent=latent), torch.float64, 1e-11)


@pytest.mark.parametrize(("channels", "width"), [(2, 16), (7, 3), (4, 1)])
def test_values_and_gradients_at_other_widths(channels: int, width: int) -> None:
    config = ModelConfig(depth=3, latent=5, latent_channels=channels, width=width)
    check_forward_and_backward(config, torch.float64, 1e-11)


@nine_cells
def test_values_and_gradients_are_the_plain_modules_in_single_precision(config: ModelConfig) -> None:
    check_forward_and_backward(config, torch.float32, 1e-4)


# ---- training steps


def plain_steps(
    model: DenoisingAutoencoder, config: TrainConfig, clean: torch.Tensor, order: torch.Tensor, noise: torch.Generator
) -> float:
    """Algorithm 1's inner loop as one would write it down; the mean loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    losses = []
    for batch in torch.split(order, config.batch_size):
        noisy = corrupt(clean[batch], config.alpha, noise)
        optimizer.zero_grad()
        loss = F.mse_loss(model(noisy), clean[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def test_adam_takes_the_steps_of_torchs_own_to_the_last_bit() -> None:
    ours, theirs = (torch.nn.Parameter(torch.randn(1000, generator=generator(1))) for _ in range(2))
    ours.grad, theirs.grad = torch.empty(1000), torch.empty(1000)
    adam, reference = Adam(ours, 1e-3), torch.optim.Adam([theirs], lr=1e-3, fused=True)
    for seed in range(50):
        for parameter in (ours, theirs):
            parameter.grad.normal_(generator=generator(seed))  # type: ignore[union-attr]
        adam.step()
        reference.step()
    assert torch.equal(ours, theirs)
    assert all(torch.equal(adam.moments[name], value) for name, value in reference.state[theirs].items())


@nine_cells
def test_steps_are_those_of_the_plain_module_with_adam(config: ModelConfig) -> None:
    built, plain = engine_of(config), plain_model(config)
    order = torch.randperm(40, generator=generator(5))[:24]
    loss = built.train_epoch(order, generator(6))
    due = plain_steps(plain, CONFIG, pixels().unsqueeze(1) / 255, order, generator(6))
    assert loss == pytest.approx(due, rel=1e-5)
    before = plain_model(config).state_dict()
    for name, parameter in plain.state_dict().items():
        # Three steps of Adam move a weight by up to 0.003. Agreement is asked to a hundredth of one step.
        torch.testing.assert_close(built.model.state_dict()[name], parameter, rtol=0, atol=1e-5)
        assert not torch.allclose(before[name], parameter, rtol=0, atol=1e-4)


def test_learning_rate_noise_level_and_batch_size_arrive() -> None:
    config = ModelConfig(depth=2, latent=5)
    order = torch.arange(24)
    for training in (
        TrainConfig(batch_size=24, lr=1e-3),
        TrainConfig(batch_size=6, lr=1e-2),
        TrainConfig(batch_size=6, alpha=0.1),
    ):
        built, plain = engine_of(config, training), plain_model(config)
        loss = built.train_epoch(order, generator(6))
        due = plain_steps(plain, training, pixels().unsqueeze(1) / 255, order, generator(6))
        assert loss == pytest.approx(due, rel=1e-5)
        for one, other in zip(built.model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=training.lr / 50)


def test_a_learning_rate_of_next_to_nothing_moves_nothing() -> None:
    built = engine_of(ModelConfig(depth=2, latent=5), TrainConfig(batch_size=8, lr=1e-30))
    before = bits(built.model.state_dict())
    built.train_epoch(torch.arange(24), generator())
    assert bits(built.model.state_dict()) == before


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 200), (10, 210)])
def test_pixels_are_scaled_as_the_datasets_are(low: int, high: int) -> None:
    levels = torch.arange(low, high + 1, dtype=torch.uint8)[:, None, None].expand(-1, 28, 28).contiguous()
    built = engine_of(ModelConfig(depth=1, latent=5), train=levels, low=low, high=high)
    unit = built.unit(levels)
    assert (unit.shape, unit.dtype) == ((high - low + 1, 1, 28, 28), torch.float32)
    due = (levels.numpy().astype(np.float32) - np.float32(low)) / np.float32(high - low)
    assert np.array_equal(unit.squeeze(1).numpy(), due)
    assert unit.min() == 0
    assert unit.max() == 1
    assert np.array_equal(levels.numpy()[:, 0, 0], np.arange(low, high + 1))  # the images themselves are left alone


# ---- evaluation


def test_denoising_in_parts_is_denoising_at_once() -> None:
    built = engine_of(ModelConfig(depth=3, latent=8))
    noisy = torch.rand(450, 1, 28, 28, generator=generator(1))  # two whole batches and a part
    denoised = built.denoise(noisy)
    assert not denoised.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(denoised, built.model(noisy), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 200, 250, 401])
def test_the_validation_loss_is_the_mean_over_all_pixels(count: int) -> None:
    built = engine_of(ModelConfig(depth=1, latent=13))
    images = pixels(count)
    loss, noise, squares = built.validate(images, generator(4)), generator(4), 0.0
    for part in torch.split(images.unsqueeze(1) / 255, 200):
        with torch.no_grad():
            squares += (built.model(corrupt(part, 0.5, noise)) - part).double().square().sum().item()
    assert loss == pytest.approx(squares / (count * 784), rel=1e-5)


def test_validation_without_noise_needs_no_luck() -> None:
    built = engine_of(ModelConfig(depth=1, latent=13), TrainConfig(batch_size=8, alpha=0.0))
    images = pixels(30)
    clean = images.unsqueeze(1) / 255
    losses = {built.validate(images, generator(seed)) for seed in range(3)}
    with torch.no_grad():
        due = F.mse_loss(built.model(clean), clean).item()
    assert len(losses) == 1
    assert losses.pop() == pytest.approx(due, rel=1e-5)


def test_evaluation_leaves_no_trace_in_training() -> None:
    order, states = torch.arange(24), []
    for peeks in (0, 2):
        built = engine_of(ModelConfig(depth=3, latent=8))
        built.train_epoch(order, generator(1))
        for _ in range(peeks):
            built.validate(pixels(10), generator(9))
            built.denoise(torch.rand(3, 1, 28, 28))
        built.train_epoch(order, generator(2))
        states.append(bits(built.state()))
    assert states[0] == states[1]


def test_latent_activity_is_the_share_of_elements_that_are_not_zero() -> None:
    built = engine_of(ModelConfig(depth=2, latent=8))
    noisy = torch.rand(20, 1, 28, 28, generator=generator(1))
    with torch.no_grad():
        latents = built.model.encoder(noisy)
        activity = built.latent_activity(noisy)
        assert activity.shape == (4,)
        for channel in range(4):
            share = (latents[:, channel] != 0).sum().item() / (20 * 64)
            assert activity[channel].item() == pytest.approx(share, abs=1e-3)
        assert len(set(activity.tolist())) == 4
        built.model.encoder[-2].bias[1] = -1e6  # type: ignore[operator]
        assert [share == 0 for share in built.latent_activity(noisy).tolist()] == [False, True, False, False]


# ---- state


@nine_cells
def test_the_same_run_twice_gives_the_same_bits(config: ModelConfig) -> None:
    runs = []
    for _ in range(2):
        built = engine_of(config)
        loss = built.train_epoch(torch.arange(40), generator(1))
        runs.append((loss, built.validate(pixels(20), generator(2)), bits(built.state())))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_restore_of_state_is_identity(epochs: int) -> None:
    config = ModelConfig(depth=3, latent=8)
    built = engine_of(config)
    for epoch in range(epochs):
        built.train_epoch(torch.arange(40), generator(epoch))
    state = built.state()
    other = engine.build(plain_model(config, seed=99), CONFIG, pixels(), 0, 255)
    assert bits(other.model.state_dict()) != bits(built.model.state_dict())
    other.restore(copy.deepcopy(state))
    assert bits(other.state()) == bits(state)
    assert bits(other.model.state_dict()) == bits(built.model.state_dict())
    # And they walk on together: moments and step count came along.
    losses = [engine.train_epoch(torch.arange(40), generator(50)) for engine in (built, other)]
    assert losses[0] == losses[1]
    assert bits(other.state()) == bits(built.state())


def test_a_state_is_a_copy_and_holds_adams_moments() -> None:
    built = engine_of(ModelConfig(depth=2, latent=5))
    assert float(built.state()["step"]) == 0
    built.train_epoch(torch.arange(16), generator())
    state = built.state()
    assert set(state) == {"flat", "step", "exp_avg", "exp_avg_sq"}
    assert float(state["step"]) == 2
    before = bits(state)
    built.train_epoch(torch.arange(16), generator())
    assert bits(state) == before
    assert bits(built.state()) != before


def test_parameters_live_in_one_tensor() -> None:
    built = engine_of(ModelConfig(depth=3, latent=8))
    built.train_epoch(torch.arange(16), generator())
    start, end = built.flat.data_ptr(), built.flat.data_ptr() + built.flat.nbytes
    parameters = list(built.model.parameters())
    assert sum(parameter.numel() for parameter in parameters) == built.flat.numel()
    assert all(start <= parameter.data_ptr() < end for parameter in parameters)


# ---- a GPU, where there is one


@needs_cuda
@nine_cells
def test_steps_on_a_gpu_are_those_of_the_plain_module(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without noise, whose bits are a GPU's own. 32 steps: a graph of 25 and seven of one. In float32: where a gradient
    # is near zero, Adam makes whole steps of what TF32 rounds.
    monkeypatch.setattr("dae.gpu_step.PRECISION", "ieee")
    training = TrainConfig(batch_size=8, alpha=0.0)
    built, plain = engine_of(config, training, pixels(264).cuda()), plain_model(config)
    assert type(built) is CudaEngine
    order = torch.randperm(264, generator=generator(5))
    due = plain_steps(plain, training, pixels(264).unsqueeze(1) / 255, order, generator())
    assert built.train_epoch(order.cuda(), generator(device="cuda")) == pytest.approx(due, rel=2e-3)
    for one, other in zip(built.model.parameters(), plain.parameters(), strict=True):
        assert float((one.detach().cpu() - other.detach()).abs().median()) < 1e-3
    clean = pixels(100).unsqueeze(1) / 255
    with torch.no_grad():
        due = float(F.mse_loss(plain(clean), clean))
    assert built.validate(pixels(100).cuda(), generator(device="cuda")) == pytest.approx(due, rel=0.01)
    noisy = torch.rand(50, 1, 28, 28, generator=generator(1))
    with torch.no_grad():
        torch.testing.assert_close(built.denoise(noisy), plain(noisy), rtol=0.02, atol=0.02)


@needs_cuda
def test_every_step_on_a_gpu_draws_its_own_noise() -> None:
    # One image throughout and weights that stay: losses differ by their noise alone.
    training = TrainConfig(batch_size=8, lr=1e-30)
    built = engine_of(ModelConfig(depth=1, latent=5), training, pixels(1).expand(240, -1, -1).contiguous().cuda())
    order = torch.arange(240).cuda()
    losses = [built.train_epoch(order, generator(seed, "cuda")) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    # A graph that repeated its noise would give one loss 25 times: the mean of 30 steps would scatter as one step does.
    means = np.array([built.train_epoch(order, generator(seed, "cuda")) for seed in range(40)])
    one = engine_of(ModelConfig(depth=1, latent=5), training, pixels(1).expand(8, -1, -1).contiguous().cuda())
    singles = np.array([one.train_epoch(order[:8], generator(seed, "cuda")) for seed in range(40)])
    assert means.std() == pytest.approx(singles.std() / 30**0.5, rel=0.5)


@needs_cuda
def test_a_restored_gpu_engine_walks_on_with_the_other() -> None:
    config, order = ModelConfig(depth=3, latent=8), torch.arange(640).cuda()
    built = engine_of(config, train=pixels(640).cuda())
    for epoch in range(2):
        built.train_epoch(order, generator(epoch, "cuda"))
    state = built.state()
    assert float(state["step"]) == 160  # warming up and capturing left no trace
    fresh, used = (engine_of(config, train=pixels(640).cuda()) for _ in range(2))
    used.train_epoch(order, generator(8, "cuda"))
    losses = [built.train_epoch(order, generator(50, "cuda"))]
    for other in (fresh, used):
        other.restore(copy.deepcopy(state))
        assert bits(other.state()) == bits(state)
        losses.append(other.train_epoch(order, generator(50, "cuda")))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


# ---- the process around the engines

THREE_LARGE_BLOCKS = """
import resource, torch
from dae.engine import settle_process
settle_process()
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(16 * 2**20, dtype=torch.uint8) for _ in range(3)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about glibc")
def test_a_settled_process_asks_the_system_for_its_memory_once() -> None:
    """How many pages it would take otherwise is the system's affair: 12,288 on many, none where it keeps them."""
    command = [sys.executable, "-c", THREE_LARGE_BLOCKS]
    faults = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults < 1000, f"{faults} pages in the last of ten rounds"
