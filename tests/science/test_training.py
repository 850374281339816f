"""Algorithm 1: laws of randomness and resumption, hand-computed judgements, one golden curve.

The golden curve is written anew by ``python tests/science/test_training.py``; its diff belongs into the commit that
changed the arithmetic on purpose.
"""

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from dae import data, engine
from dae.config import ModelConfig, TrainConfig, default_training
from dae.data import Dataset
from dae.engine import CpuEngine
from dae.errors import UserError
from dae.model import DenoisingAutoencoder
from dae.testset import TestSet, psnr_db
from dae.training import (
    Diverged,
    EpochResult,
    Images,
    Stream,
    Training,
    is_collapsed,
    is_unconverged,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "dae_3_8_mnist-5k.json"
SMALL = ModelConfig(depth=2, latent=5, width=4)
OTHER = ModelConfig(depth=3, latent=8, width=4)
CONFIG = TrainConfig(epochs=3, batch_size=16, lr=1e-3)


@pytest.fixture(autouse=True, scope="module")
def _as_in_trials() -> Iterator[None]:
    """As the fixture `one_thread`, but in time for this file's other fixtures."""
    threads = torch.get_num_threads()
    work_as_trials_do()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def work_as_trials_do() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def strokes(count: int, seed: int) -> npt.NDArray[np.uint8]:
    """White bars on black, as sparse as digits are."""
    generator = np.random.default_rng(seed)
    images = np.zeros((count, 28, 28), np.uint8)
    for image in images:
        top, left = generator.integers(4, 14, size=2)
        height, width = generator.integers(3, 11, size=2)
        image[top : top + height, left : left + width] = generator.integers(128, 256)
    images[0, 14, 14] = 255
    return images


def labels(count: int) -> npt.NDArray[np.uint8]:
    return (np.arange(count) % 10).astype(np.uint8)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset(
        name="strokes",
        fingerprint="made up",
        train=strokes(106, 1),
        train_labels=labels(106),
        validation=strokes(40, 2),
        validation_labels=labels(40),
        test=strokes(33, 3),
        test_labels=labels(33),
        low=0,
        high=255,
    )


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> Images:
    return Images(dataset, CONFIG.alpha, "cpu")


def trained(images: Images, model: ModelConfig = SMALL, epochs: int | None = None, **changes: Any) -> Training:
    training = Training(model, dataclasses.replace(CONFIG, **changes), images)
    for _ in range(training.config.epochs if epochs is None else epochs):
        training.run_epoch()
    return training


def finish(training: Training) -> Training:
    while not training.is_finished:
        training.run_epoch()
    return training


def losses(training: Training) -> list[tuple[int, float, float]]:
    return [(epoch.epoch, epoch.train_loss, epoch.val_loss) for epoch in training.history]


def outcome(training: Training) -> dict[str, Any]:
    """Everything that a training leaves but its timings, comparable to the bit."""
    result = training.test()
    return {
        "losses": losses(training),
        "weights": {name: value.numpy().tobytes() for name, value in training.weights().items()},
        "state": {name: value.numpy().tobytes() for name, value in training.state()["engine"].items()},
        "test": {field.name: getattr(result, field.name).tobytes() for field in dataclasses.fields(result)},
    }


class Recorder(CpuEngine):
    """An engine that writes down what it is given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.orders: list[list[int]] = []
        self.train_noise: list[int] = []
        self.validation_noise: list[int] = []
        self.steps = 0

    def train_epoch(self, order: torch.Tensor, noise: torch.Generator) -> float:
        self.orders.append(order.tolist())
        self.train_noise.append(noise.initial_seed())
        return super().train_epoch(order, noise)

    def _step(self, *arguments: Any) -> None:
        self.steps += 1
        super()._step(*arguments)

    def validate(self, images: torch.Tensor, noise: torch.Generator, given: torch.Tensor | None = None) -> float:
        self.validation_noise.append(noise.initial_seed())
        return super().validate(images, noise, given)


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """The engines of all trainings begun in this test."""
    made: list[Recorder] = []

    def build(*arguments: Any) -> Recorder:
        made.append(Recorder(*arguments))
        return made[-1]

    monkeypatch.setattr(engine, "build", build)
    return made


# ---- randomness


def test_the_same_seed_gives_the_same_bits_whatever_the_global_seeds(images: Images) -> None:
    outcomes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        outcomes.append(outcome(trained(images)))
    assert outcomes[0] == outcomes[1]


def test_another_seed_gives_other_weights_order_and_noise(images: Images, recorders: list[Recorder]) -> None:
    starts = [trained(images, epochs=0, seed=seed).weights() for seed in (0, 1)]
    for name, weights in starts[0].items():
        if name.endswith("weight"):
            assert not torch.equal(weights, starts[1][name])
    recorders.clear()
    one, other = (trained(images, seed=seed) for seed in (0, 1))
    assert losses(one) != losses(other)
    first, second = recorders
    for epoch in range(3):
        assert first.orders[epoch] != second.orders[epoch]
        assert first.train_noise[epoch] != second.train_noise[epoch]
        assert first.validation_noise[epoch] != second.validation_noise[epoch]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=4, unique=True))
def test_no_two_streams_begin_alike(seeds: list[int]) -> None:
    begun = [
        Training._generator(_WithSeed(seed), stream, epoch, "cpu").initial_seed()  # type: ignore[arg-type]
        for seed in seeds
        for stream in Stream
        for epoch in range(20)
    ]
    assert len(set(begun)) == len(seeds) * len(Stream) * 20
    assert all(0 <= seed < 2**63 for seed in begun)


class _WithSeed:
    def __init__(self, seed: int) -> None:
        self.config = TrainConfig(seed=seed)


def test_one_streams_draws_shift_no_other(dataset: Dataset, recorders: list[Recorder]) -> None:
    # Fewer images need fewer draws of order and training noise, other architectures other draws of weights.
    fewer = dataclasses.replace(dataset, train=dataset.train[:64], train_labels=dataset.train_labels[:64])
    for given_set, model in ((dataset, SMALL), (fewer, SMALL), (dataset, OTHER)):
        trained(Images(given_set, 0.5, "cpu"), model)
    first, with_fewer, with_another_model = recorders
    assert first.validation_noise == with_fewer.validation_noise == with_another_model.validation_noise
    assert first.train_noise == with_fewer.train_noise == with_another_model.train_noise
    assert first.orders == with_another_model.orders


def test_noise_and_order_are_new_in_every_epoch(images: Images, recorders: list[Recorder]) -> None:
    trained(images)
    (recorder,) = recorders
    assert len({tuple(order) for order in recorder.orders}) == 3
    assert len({*recorder.train_noise, *recorder.validation_noise}) == 6


def test_validation_noise_is_redrawn_each_epoch_and_is_all_that_differs(dataset: Dataset) -> None:
    # With a learning rate of next to nothing the model stands still.
    noisy = trained(Images(dataset, 0.5, "cpu"), lr=1e-30)
    assert len({epoch.val_loss for epoch in noisy.history}) == 3
    assert np.ptp([epoch.val_loss for epoch in noisy.history]) < 0.01 * noisy.history[0].val_loss
    still = trained(Images(dataset, 0.0, "cpu"), lr=1e-30, alpha=0.0)
    assert len({epoch.val_loss for epoch in still.history}) == 1


def test_without_noise_the_losses_are_those_of_clean_images(dataset: Dataset) -> None:
    training = trained(Images(dataset, 0.0, "cpu"), epochs=1, alpha=0.0)
    model = DenoisingAutoencoder(SMALL)
    model.load_state_dict(training.weights())
    clean = torch.from_numpy(dataset.unit(dataset.validation)).unsqueeze(1)
    with torch.no_grad():
        due = F.mse_loss(model(clean), clean).item()
    assert training.history[0].val_loss == pytest.approx(due, rel=1e-5)
    assert training.test().mean_loss == pytest.approx(training.history[0].val_loss, rel=0.5)


# ---- batches


def test_the_last_partial_batch_is_dropped(images: Images, recorders: list[Recorder]) -> None:
    trained(images, batch_size=32)
    (recorder,) = recorders
    assert recorder.steps == 3 * 3  # 106 = 3 x 32 + 10
    for order in recorder.orders:
        assert len(order) == len(set(order)) == 96
        assert set(order) <= set(range(106))
    assert set().union(*recorder.orders) == set(range(106))  # other images are dropped each time


def test_a_batch_may_be_as_large_as_the_split_but_not_larger(images: Images, recorders: list[Recorder]) -> None:
    trained(images, batch_size=106, epochs=1)
    assert recorders[0].steps == 1
    message = "batch size 107 is larger than the 106 training images: lower --batch-size or raise --train-fraction"
    with pytest.raises(UserError, match=message):
        trained(images, batch_size=107, epochs=0)


def test_the_training_loss_is_the_mean_over_the_steps(dataset: Dataset, recorders: list[Recorder]) -> None:
    # A model that stands still has, on whole batches without noise, the loss of the images it was shown.
    training = trained(Images(dataset, 0.0, "cpu"), epochs=1, alpha=0.0, lr=1e-30)
    shown = dataset.unit(dataset.train)[recorders[0].orders[0]]
    answers = training._engine.denoise(torch.from_numpy(shown).unsqueeze(1)).squeeze(1).numpy()
    assert training.history[0].train_loss == pytest.approx(float(np.square(answers - shown).mean()), rel=1e-5)


def test_epochs_count_from_1_and_end(images: Images) -> None:
    training = trained(images, epochs=0)
    for epoch in (1, 2, 3):
        assert not training.is_finished
        result = training.run_epoch()
        assert result == training.history[-1]
        assert result.epoch == epoch
        assert result.seconds > 0
    assert training.is_finished


@pytest.mark.parametrize("lr", [1e30, 1e38], ids=str)
def test_a_loss_that_is_not_finite_is_divergence(images: Images, lr: float) -> None:
    training = trained(images, OTHER, epochs=0, lr=lr)
    with pytest.raises(Diverged, match=r"epoch \d: training loss .*nan"):
        finish(training)
    assert all(np.isfinite([epoch.train_loss, epoch.val_loss]).all() for epoch in training.history)


# ---- resumption


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("model", [SMALL, OTHER], ids=lambda model: model.name)
@pytest.mark.parametrize("interrupted_after", [0, 1, 2, 3])
def test_a_resumed_training_takes_the_same_steps(images: Images, model: ModelConfig, interrupted_after: int) -> None:
    uninterrupted = trained(images, model)
    state = through_a_file(trained(images, model, epochs=interrupted_after).state())
    resumed = Training(model, CONFIG, images)
    resumed.restore(state)
    assert len(resumed.history) == interrupted_after
    assert outcome(finish(resumed)) == outcome(uninterrupted)


def test_a_training_interrupted_after_every_epoch_takes_the_same_steps(images: Images) -> None:
    training = trained(images, epochs=0)
    while not training.is_finished:
        training.run_epoch()
        state = through_a_file(training.state())
        training = trained(images, epochs=0)
        training.restore(state)
    assert outcome(training) == outcome(trained(images))


def test_a_state_does_not_move_on_with_its_training(images: Images) -> None:
    training = trained(images, epochs=1)
    state, weights = training.state(), training.weights()
    before = {name: value.clone() for name, value in (state["engine"] | weights).items()}
    training.run_epoch()
    assert len(state["history"]) == 1
    assert all(torch.equal(value, before[name]) for name, value in (state["engine"] | weights).items())


# ---- weights and the test


@pytest.mark.parametrize("model", [SMALL, OTHER, ModelConfig(depth=1, latent=13)], ids=lambda model: model.name)
def test_the_weights_make_a_plain_module_that_answers_alike(images: Images, model: ModelConfig) -> None:
    training = trained(images, model)
    weights = training.weights()
    assert all(value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes for value in weights.values())
    plain = DenoisingAutoencoder(model)
    plain.load_state_dict(weights)
    noisy = torch.from_numpy(images.test_set.noisy).unsqueeze(1)
    with torch.no_grad():
        due = plain(noisy)
    torch.testing.assert_close(training._engine.denoise(noisy), due, rtol=1e-4, atol=1e-5)


def test_the_test_result_is_what_a_plain_module_computes(images: Images, dataset: Dataset) -> None:
    training = trained(images)
    result = training.test()
    plain = DenoisingAutoencoder(SMALL)
    plain.load_state_dict(training.weights())
    test_set = TestSet(dataset, CONFIG.alpha)
    with torch.no_grad():
        denoised = plain(torch.from_numpy(test_set.noisy).unsqueeze(1)).squeeze(1).double().numpy()
    clean = dataset.test / 255
    assert result.loss.shape == result.to_mean.shape == (33,)
    np.testing.assert_allclose(result.loss, ((denoised - clean) ** 2).mean(axis=(1, 2)), rtol=1e-4)
    assert result.mean_loss == pytest.approx(((denoised - clean) ** 2).mean(), rel=1e-4)
    mean_image = dataset.train.mean(axis=0) / 255
    np.testing.assert_allclose(result.to_mean, ((denoised - mean_image) ** 2).mean(axis=(1, 2)), rtol=1e-4)
    # Labels run 0 to 9 again and again: the first ten images are the samples, every tenth is of a class.
    np.testing.assert_allclose(result.samples, denoised[:10], rtol=1e-4, atol=1e-6)
    for label in range(10):
        np.testing.assert_allclose(result.class_means[label], denoised[label::10].mean(axis=0), rtol=1e-4, atol=1e-6)


def test_a_channel_that_died_is_counted(images: Images) -> None:
    training = trained(images, OTHER)
    alive = training.test()
    assert alive.latent_activity.shape == (4,)
    with torch.no_grad():
        training._engine.model.encoder[-2].bias[2] = -1e6  # type: ignore[operator]
    result = training.test()
    assert result.latent_activity[2] == 0
    assert result.dead_latent_channels == int((alive.latent_activity[[0, 1, 3]] == 0).sum()) + 1
    assert list(result.latent_activity[[0, 1, 3]]) == list(alive.latent_activity[[0, 1, 3]])


def test_all_models_are_judged_on_the_same_noisy_images(images: Images) -> None:
    training = trained(images, epochs=1)
    first = training.test()
    assert first.loss.tobytes() == training.test().loss.tobytes()
    before = images.test_set.noisy.tobytes()
    trained(images, OTHER, epochs=1, seed=5).test()
    assert images.test_set.noisy.tobytes() == before


def test_testing_leaves_no_trace_in_training(images: Images) -> None:
    training = trained(images, epochs=1)
    training.test()
    training.run_epoch()
    assert losses(training) == losses(trained(images, epochs=2))


def test_a_model_begins_at_the_grey_of_the_training_split(dataset: Dataset) -> None:
    training = trained(Images(dataset, 0.0, "cpu"), epochs=0, alpha=0.0, initialisation="he")
    black = training._engine.denoise(torch.zeros(1, 1, 28, 28))
    torch.testing.assert_close(black, torch.full_like(black, float(dataset.train.mean() / 255)), rtol=1e-4, atol=0)


def test_images_from_a_read_only_store_train_alike(dataset: Dataset, images: Images) -> None:
    def locked(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        copy = array.copy()
        copy.flags.writeable = False
        return copy

    parts: dict[str, Any] = {
        name: locked(getattr(dataset, name)) for name in ("train", "validation", "test", "test_labels")
    }
    read_only = Images(dataclasses.replace(dataset, **parts), CONFIG.alpha, "cpu")  # torch warns where it would write
    assert outcome(trained(read_only)) == outcome(trained(images))


# ---- judgements by hand


def history(*val_losses: float) -> list[EpochResult]:
    return [
        EpochResult(epoch=epoch, train_loss=9.0, val_loss=loss, seconds=1.0)
        for epoch, loss in enumerate(val_losses, start=1)
    ]


@pytest.mark.parametrize(
    ("val_losses", "collapsed"),
    [
        ((0.0671, 0.0670), True),
        ((0.0500, 0.0670), True),  # how it ends is what counts
        ((0.0900, 0.0669), False),
        ((0.0100,), False),
        ((0.1120,), True),
        ((), False),
    ],
    ids=str,
)
def test_collapsed_is_no_better_than_the_mean_image(val_losses: tuple[float, ...], collapsed: bool) -> None:
    assert is_collapsed(history(*val_losses), 0.0670) is collapsed


@pytest.mark.parametrize(
    ("val_losses", "unconverged"),
    [
        ((0.5,), True),  # one epoch shows nothing
        ((), True),
        ((1.0, 0.98), True),
        ((1.0, 0.995), False),
        ((1.0, 0.989, 0.989**2, 0.989**3), True),  # 1.1 % an epoch
        ((1.0, 0.991, 0.991**2, 0.991**3), False),  # 0.9 % an epoch
        ((1.0, 0.96, 0.96, 0.96), True),  # 4 % at once is 1.35 % an epoch
        ((1.0, 1.0, 1.0, 0.975), False),  # 2.5 % at last is 0.84 % an epoch
        ((9.0, 1.0, 1.0, 1.0, 1.0), False),  # only the last three falls count
        ((1.0, 1.1, 1.2, 1.3), False),  # rising is not falling
        ((1.0, 0.5, 0.4, 1.0), False),
    ],
    ids=str,
)
def test_unconverged_still_falls_by_over_1_percent_an_epoch(val_losses: tuple[float, ...], unconverged: bool) -> None:
    assert is_unconverged(history(*val_losses)) is unconverged


@pytest.mark.parametrize(
    ("loss", "decibels"), [(1.0, 0.0), (0.1, 10.0), (0.01, 20.0), (0.0001, 40.0), (0.5, 3.010299956639812)]
)
def test_psnr(loss: float, decibels: float) -> None:
    assert psnr_db(loss) == pytest.approx(decibels, abs=1e-12)


# ---- real digits


GOLDEN_CONFIGS = {
    "he": TrainConfig(epochs=3, batch_size=32, initialisation="he"),
    "lsuv": TrainConfig(**default_training("mnist-5k", epochs=3)),
}
"""As sweeps began before there was another start, and as they begin."""


def golden_run(config: TrainConfig) -> dict[str, Any]:
    digits = data.load("mnist-5k", Path("unused"), train_fraction=0.2)  # 640 images
    training = finish(Training(ModelConfig(depth=3, latent=8), config, Images(digits, config.alpha, "cpu")))
    return {
        "torch": torch.__version__,
        "train_loss": [epoch.train_loss for epoch in training.history],
        "val_loss": [epoch.val_loss for epoch in training.history],
        "test_loss": training.test().mean_loss,
        "baselines": training.images.test_set.baselines(),
    }


@pytest.fixture(scope="module", params=GOLDEN_CONFIGS)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    due = json.loads(GOLDEN.read_text())[request.param]
    return golden_run(GOLDEN_CONFIGS[request.param]) | {"due": due}


@pytest.mark.parametrize("curve", ["train_loss", "val_loss", "test_loss"])
def test_the_golden_curve(golden: dict[str, Any], curve: str) -> None:
    # Kernels of other CPU types round differently, and training amplifies it: SSE4 kernels in place of AVX-512 give
    # 2e-5 in the second epoch and 8e-5 in the third, no oneDNN at all 3e-4.
    due = golden["due"][curve]
    if curve != "test_loss":
        assert golden[curve][:2] == pytest.approx(due[:2], rel=1e-4)
    assert golden[curve] == pytest.approx(due, rel=1e-3)


def test_the_noise_of_the_golden_run_costs_what_it_did(golden: dict[str, Any]) -> None:
    assert golden["baselines"] == pytest.approx(golden["due"]["baselines"], rel=1e-5)


def test_sixty_steps_on_real_digits_beat_doing_nothing(golden: dict[str, Any]) -> None:
    assert golden["val_loss"] == sorted(golden["val_loss"], reverse=True)
    assert golden["test_loss"] < 0.7 * golden["baselines"]["identity"]


@pytest.mark.slow
def test_a_deep_narrow_cell_leaves_the_mean_image_behind() -> None:
    digits = data.load("mnist-5k", Path("unused"))
    config = TrainConfig(epochs=3, batch_size=32)
    training = finish(Training(ModelConfig(depth=5, latent=5), config, Images(digits, 0.5, "cpu")))
    test_set = training.images.test_set
    assert not is_collapsed(training.history, test_set.mean_image_validation_loss)
    assert training.test().mean_loss < 0.8 * test_set.baselines()["mean_image"]


if __name__ == "__main__":
    work_as_trials_do()
    GOLDEN.parent.mkdir(exist_ok=True)
    runs = {name: golden_run(config) for name, config in GOLDEN_CONFIGS.items()}
    GOLDEN.write_text(json.dumps(runs, indent=2) + "\n")
