"""Images of any size from 8x8 up, square or not, grey or colour: layers, noise, steps and test sets."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dae import engine, gpu_rule
from dae.architecture import Axis, Layer, encoder_layers, parameter_count, receptive_fields, stem_sizes
from dae.config import GAUSSIAN, NOISES, ImageShape, ModelConfig, Size, TrainConfig, parse_latent, usual_latents
from dae.data import Dataset, Pairs
from dae.errors import UserError
from dae.initialisation import draw, to_unit_variance
from dae.model import DenoisingAutoencoder
from dae.noise import corrupt, corrupt_test, draw_test
from dae.testset import TestSet, image_losses
from dae.training import Images, Training

shapes = st.builds(ImageShape, st.integers(8, 70), st.integers(8, 70), st.sampled_from((1, 3)))


@st.composite
def configs(draw_from: st.DrawFn) -> ModelConfig:
    image = draw_from(shapes)
    number = st.integers(1, min(image.sides))
    pair = st.builds(Size, st.integers(1, image.height), st.integers(1, image.width))
    return ModelConfig(
        depth=draw_from(st.integers(1, 6)),
        latent=draw_from(st.one_of(number, pair)),
        latent_channels=draw_from(st.integers(1, 5)),
        width=draw_from(st.integers(1, 5)),
        image=image,
    )


def tiles(shape: ImageShape, count: int = 24, dtype: type = np.uint8, *, labelled: bool = False) -> Dataset:
    """Smooth random pictures."""
    generator = np.random.default_rng(5)
    coarse = generator.integers(0, np.iinfo(dtype).max, (2 * count, 3, 3, shape.channels))
    down, across = (np.arange(side) * 3 // side for side in shape.sides)
    images = np.ascontiguousarray(coarse[:, down][:, :, across].astype(dtype)).reshape(-1, *shape.array)
    labels = (np.arange(len(images)) % 3).astype(np.uint8) if labelled else np.zeros(0, np.uint8)
    train, validation, test = (slice(0, count), slice(count, count + 8), slice(count + 8, None))
    return Dataset(
        "tiles", "e" * 64, images[train], labels[train], images[validation], labels[validation], images[test],
        labels[test], int(images.min()), int(images.max()), classes=("a", "b", "c") if labelled else (),
    )  # fmt: skip


# ---- layers


@given(configs())
def test_every_model_gives_images_of_exactly_their_size(config: ModelConfig) -> None:
    layers, image = encoder_layers(config), config.image
    assert len(layers) == config.depth
    assert layers[0].sizes_in == image.sides
    assert layers[-1].sizes_out == config.latent_sides
    for before, after in pairwise(layers):
        assert (after.channels_in, after.sizes_in) == (before.channels_out, before.sizes_out)
    for layer in layers:
        for n, m, k, s, p in zip(
            layer.sizes_in, layer.sizes_out, layer.kernels, layer.strides, layer.paddings, strict=True
        ):
            assert (m - 1) * s - 2 * p + k == n
            assert k >= s  # no pixel is skipped
    with torch.device("meta"):
        model = DenoisingAutoencoder(config)
        noisy = torch.empty(2, image.channels, *image.sides)
        assert model.encoder(noisy).shape == (2, config.latent_channels, *config.latent_sides)
        assert model(noisy).shape == noisy.shape
    assert parameter_count(config) == sum(parameter.numel() for parameter in model.parameters())
    assert all(1 <= field <= side for field, side in zip(receptive_fields(config), image.sides, strict=True))


@given(configs())
def test_the_other_way_round_the_layers_are_turned_too(config: ModelConfig) -> None:
    image = config.image
    latent = config.latent if isinstance(config.latent, int) else Size(config.latent.width, config.latent.height)
    turned = dataclasses.replace(config, image=ImageShape(image.width, image.height, image.channels), latent=latent)
    for one, other in zip(encoder_layers(config), encoder_layers(turned), strict=True):
        for name in ("kernels", "strides", "paddings", "sizes_in", "sizes_out"):
            assert getattr(one, name) == getattr(other, name)[::-1]


@given(shapes, st.data())
def test_a_number_is_the_latent_of_the_shorter_side(image: ImageShape, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, min(image.sides)))
    sides = image.sides_of(number)
    assert min(sides) == number
    for side, of_image in zip(sides, image.sides, strict=True):
        assert abs(side - of_image * number / min(image.sides)) <= 0.5
        assert 1 <= side <= of_image
    assert ModelConfig(depth=1, latent=number, image=image).compression == pytest.approx(
        4 * math.prod(sides) / image.numbers
    )


def test_layers_of_40x24_by_hand() -> None:
    colour = ImageShape(40, 24, 3)
    assert colour.sides_of(5) == (8, 5)  # 5 x 40 / 24 = 8.33
    assert stem_sizes(colour) == (19, 11)
    # 40 -> 8: stride 5, kernel 40 - 35 = 5, raised to 7. 24 -> 5: stride 4, kernel 24 - 16 = 8.
    assert encoder_layers(ModelConfig(depth=1, latent=5, image=colour)) == (
        Layer(3, 4, 7, 5, 1, 40, 8, across=Axis(8, 4, 0, 24, 5)),
    )
    stem, body, neck = encoder_layers(ModelConfig(depth=3, latent=5, image=colour))
    assert stem == Layer(3, 16, 4, 2, 0, 40, 19, across=Axis(4, 2, 0, 24, 11))
    assert body == Layer(16, 16, 3, 1, 1, 19, 19, across=Axis(3, 1, 1, 11, 11))
    # 19 -> 8: stride 2, kernel 19 - 14 = 5. 11 -> 5: stride 2, kernel 11 - 8 = 3, raised to 5.
    assert neck == Layer(16, 4, 5, 2, 0, 19, 8, across=Axis(5, 2, 1, 11, 5))
    deep = ModelConfig(depth=5, latent=13, image=colour)  # 13 exceeds 11: the maps keep their size
    assert [layer.sizes_out for layer in encoder_layers(deep)] == [(40, 24)] * 4 + [(22, 13)]
    assert deep.name == "DAE_5_13"


def test_layers_of_96x96_by_hand() -> None:
    grey = ImageShape(96, 96)
    # 96 -> 13: stride 7, kernel 96 - 84 = 12.
    assert encoder_layers(ModelConfig(depth=1, latent=13, image=grey)) == (Layer(1, 4, 12, 7, 0, 96, 13),)
    for depth in (3, 5):
        stem, *body, neck = encoder_layers(ModelConfig(depth=depth, latent=13, image=grey))
        assert stem == Layer(1, 16, 4, 2, 0, 96, 47)
        assert body == [Layer(16, 16, 3, 1, 1, 47, 47)] * (depth - 2)
        assert neck == Layer(16, 4, 11, 3, 0, 47, 13)  # stride 3, kernel 47 - 36 = 11


def test_a_stem_halves_odd_sizes_too() -> None:
    stem = encoder_layers(ModelConfig(depth=2, latent=3, image=ImageShape(9, 29)))[0]
    assert (stem.sizes_out, stem.kernels, stem.strides, stem.paddings) == ((3, 13), (5, 5), (2, 2), (0, 0))


@pytest.mark.parametrize(
    ("latent", "message"),
    [
        (
            25,
            "latent size 25 is out of range: a latent is 1 to 24 pixels wide along the shorter side, the images being ",
        ),
        (Size(41, 2), "latent size 41x2 is out of range: a latent is 1x1 to 40x24 pixels large"),
        (Size(2, 0), "latent size 2x0 is out of range"),
    ],
)
def test_latents_that_do_not_fit_are_refused(latent: int | Size, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(depth=1, latent=latent, image=ImageShape(40, 24))


@pytest.mark.parametrize("shape", ["7x9", "9x7", "28x28x2", "8x8x4"])
def test_images_too_small_or_of_other_channels_are_refused(shape: str) -> None:
    with pytest.raises(UserError, match=f"images of {shape} are out of range"):
        ImageShape.parse(shape)


def test_sizes_are_read_as_they_are_written() -> None:
    for shape in (ImageShape(), ImageShape(8, 300, 3), ImageShape(40, 24)):
        assert ImageShape.parse(str(shape)) == shape
    assert parse_latent("13") == 13
    assert parse_latent(str(Size(13, 8))) == Size(13, 8)
    assert sorted([13, Size(8, 30), 8, Size(1, 2)]) == [Size(1, 2), 8, 13, Size(8, 30)]
    assert [usual_latents(ImageShape(side, 100)) for side in (8, 28, 32, 64)] == [
        (4, 2, 1), (13, 8, 5), (15, 9, 6), (30, 18, 11)]  # fmt: skip
    for side in range(8, 200):
        sizes = usual_latents(ImageShape(side, side))
        assert len({*sizes}) == 3, "three sizes, large to small"
        assert sorted(sizes, reverse=True) == [*sizes]


# ---- the engine


@settings(max_examples=30)
@given(configs())
def test_the_fast_steps_are_those_of_the_plain_module(config: ModelConfig) -> None:
    image = config.image
    seeded = torch.Generator().manual_seed(1)
    model = DenoisingAutoencoder(config)
    draw(model, seeded, [0.4] * image.channels)
    plain = DenoisingAutoencoder(config)
    plain.load_state_dict(model.state_dict())
    noisy = torch.rand(3, image.channels, *image.sides, generator=seeded)
    images = torch.zeros(4, *image.array, dtype=torch.uint8)
    fast = engine.build(model, TrainConfig(batch_size=2), images, 0, 255)
    due, denoised = plain(noisy), fast.forward(noisy)
    torch.testing.assert_close(denoised, due, rtol=1e-4, atol=1e-5)
    (due**2).mean().backward()
    (denoised**2).mean().backward()
    for mine, theirs in zip(fast.model.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [ImageShape(9, 12, 3), ImageShape(12, 9)], ids=str)
def test_pixels_are_scaled_in_their_place(shape: ImageShape, dtype: type) -> None:
    dataset = tiles(shape, dtype=dtype)
    model = DenoisingAutoencoder(ModelConfig(depth=1, latent=3, image=shape))
    images = Images(dataset, 0.5, "cpu")
    fast = engine.build(model, TrainConfig(batch_size=4), images.train, dataset.low, dataset.high)
    batch = fast.unit(fast.train_images.index_select(0, torch.tensor([5, 2])))
    due = dataset.unit(dataset.train[[5, 2]])
    assert torch.equal(batch, engine.as_batch(due))
    assert batch.shape == (2, shape.channels, *shape.sides)


def test_training_images_are_not_copied() -> None:
    dataset = tiles(ImageShape(9, 12, 3))
    dataset.train.flags.writeable = False  # as in the object store
    images = Images(dataset, 0.5, "cpu")
    assert images.train.data_ptr() == dataset.train.ctypes.data
    before = dataset.train.copy()
    training = Training(
        ModelConfig(depth=2, latent=3, image=dataset.shape), TrainConfig(epochs=1, batch_size=8), images
    )
    assert training._engine.train_images.data_ptr() == dataset.train.ctypes.data
    training.run_epoch()
    assert np.array_equal(dataset.train, before)


@pytest.mark.parametrize("noise", NOISES)
def test_a_colour_training_that_was_interrupted_gives_the_same_bits(noise: str, one_thread: None) -> None:
    dataset = tiles(ImageShape(20, 12, 3))
    config = TrainConfig(epochs=3, batch_size=8, noise=noise, averaging=0.9)
    model = ModelConfig(depth=3, latent=Size(5, 4), image=dataset.shape)

    def training() -> Training:
        return Training(model, config, Images(dataset, config.alpha, "cpu", noise))

    whole, first, second = training(), training(), training()
    for _ in range(3):
        whole.run_epoch()
    first.run_epoch()
    second.restore(first.state())
    for _ in range(2):
        second.run_epoch()
    weights = second.weights()
    assert all(torch.equal(value, weights[name]) for name, value in whole.weights().items())
    one, other = whole.test(), second.test()
    assert one.loss.tobytes() == other.loss.tobytes()
    assert one.samples.shape == (10, 20, 12, 3)
    assert one.class_means.shape == (0, 20, 12, 3)
    assert whole.history[-1].train_loss < whole.history[0].train_loss


def test_the_start_has_unit_variance_for_colour_images_without_blue() -> None:
    shape = ImageShape(20, 12, 3)
    model = DenoisingAutoencoder(ModelConfig(depth=3, latent=4, image=shape))
    seeded = torch.Generator().manual_seed(1)
    draw(model, seeded, [0.5, 0.25, 0.0])
    to_unit_variance(model, torch.rand(64, 3, 20, 12, generator=seeded), [0.5, 0.25, 0.0])
    last = [layer for layer in model.decoder if isinstance(layer, nn.ConvTranspose2d)][-1]
    assert last.bias is not None
    assert torch.sigmoid(last.bias).tolist() == pytest.approx([0.5, 0.25, 0.001], rel=1e-4)


# ---- noise and test sets


def test_blur_knows_both_sides() -> None:
    clean = np.zeros((1, 30, 12, 3), np.float32)
    clean[0, 15, 6, 1] = 1
    due = corrupt_test(clean, 0.5, "any", "blur")
    found = corrupt(engine.as_batch(clean), 0.5, torch.Generator(), "blur").permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, due, atol=2e-6)
    assert due[..., [0, 2]].max() == 0


def test_own_images_have_a_draw_by_their_content() -> None:
    dataset = tiles(ImageShape(9, 12))
    assert dataset.identity == dataset.fingerprint
    assert dataclasses.replace(dataset, name="mnist").identity == "mnist"
    renamed = dataclasses.replace(dataset, name="elsewhere")
    assert np.array_equal(TestSet(dataset, 0.5).noisy, TestSet(renamed, 0.5).noisy)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("labelled", [False, True])
def test_a_test_set_in_parts_is_the_whole(monkeypatch: pytest.MonkeyPatch, noise: str, labelled: bool) -> None:
    dataset = tiles(ImageShape(9, 12, 3), labelled=labelled)
    whole = TestSet(dataset, 0.4, noise)
    clean, noisy, baselines, shown = whole.clean, whole.noisy, whole.baselines(), whole.shown()
    monkeypatch.setattr("dae.testset.PART_NUMBERS", 3 * 9 * 12 * 5)
    parts = TestSet(dataset, 0.4, noise)
    assert len(list(parts.parts())) == 4
    for part, some_clean, some_noisy in parts.parts():
        assert np.array_equal(some_clean, clean[part])
        assert np.array_equal(some_noisy, noisy[part])
    assert parts.baselines() == pytest.approx(baselines, rel=1e-6)
    for one, other in zip(parts.shown(), shown, strict=True):
        assert np.array_equal(one, other)
    assert parts.mean_image_validation_loss == pytest.approx(whole.mean_image_validation_loss, rel=1e-6)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("part_numbers", [2**24, 3 * 9 * 12 * 5])
@pytest.mark.parametrize("drawn", [False, True])
def test_some_of_a_test_set_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, noise: str, part_numbers: int, drawn: bool
) -> None:
    dataset = tiles(ImageShape(9, 12, 3))
    whole, chosen = TestSet(dataset, 0.4, noise), np.array([15, 0, 4, 5, 4])
    monkeypatch.setattr("dae.testset.PART_NUMBERS", part_numbers)
    draw = (lambda kind: draw_test(dataset.test.shape, dataset.identity, kind)) if drawn else None
    test_set = TestSet(dataset, 0.4, noise, draw)
    for _ in range(2):
        for some in (chosen, chosen[:2], chosen[1:2]):
            clean, noisy = test_set.at(some)
            assert np.array_equal(clean, whole.clean[some])
            assert np.array_equal(noisy, whole.noisy[some])
        assert len(list(test_set.parts())) == (1 if part_numbers == 2**24 else 4), "what was drawn is known from now on"


def test_samples_without_labels_are_spread_over_the_test_set() -> None:
    assert TestSet(tiles(ImageShape(9, 12), count=83), 0.5).samples.tolist() == [0, 8, 16, 25, 33, 41, 49, 58, 66, 74]
    assert TestSet(tiles(ImageShape(9, 12), labelled=True), 0.5).samples.tolist() == [1, 2, 0]


def test_the_noise_of_pairs_is_taken_as_it_is(one_thread: None) -> None:
    dataset = tiles(ImageShape(12, 9, 3))
    pairs = Pairs(255 - dataset.train, 255 - dataset.validation, 255 - dataset.test)
    dataset = dataclasses.replace(dataset, noisy=pairs)
    images = Images(dataset, 0.5, "cpu")
    assert np.array_equal(images.test_set.noisy, dataset.unit(pairs.test))
    assert dataset.nbytes == 2 * sum(part.nbytes for part in (dataset.train, dataset.validation, dataset.test))
    training = Training(
        ModelConfig(depth=1, latent=9, image=dataset.shape), TrainConfig(epochs=40, batch_size=8, lr=1e-2), images
    )
    noisy = training._noisy_examples()
    assert {tuple(image.ravel().tolist()) for image in noisy} <= {
        tuple(image.ravel().tolist()) for image in engine.as_batch(dataset.unit(pairs.train))
    }
    first = training.run_epoch()
    for _ in range(39):
        last = training.run_epoch()
    assert last.val_loss < first.val_loss / 2
    assert training.test().mean_loss == pytest.approx(
        image_losses(training._engine.denoise_array(dataset.unit(pairs.test)), dataset.unit(dataset.test)).mean(),
        rel=1e-5,
    )


def test_draws_in_parts_are_the_draw() -> None:
    from dae.noise import DrawTest

    for kind in (GAUSSIAN, "salt-and-pepper"):
        draws = DrawTest("any", kind)
        parts = [draws.next((count, 5, 3)) for count in (1, 4, 2)]
        assert np.array_equal(np.concatenate(parts), draw_test((7, 5, 3), "any", kind))


# ---- which kernels a GPU uses


def rule(image: ImageShape = ImageShape(), *, batch: int = 4000, **options: object) -> str | None:  # noqa: B008
    training = TrainConfig(noise=str(options.pop("noise", GAUSSIAN)))
    config = ModelConfig(depth=3, image=image, **{"latent": 5, **options})  # type: ignore[arg-type]
    return gpu_rule.obstacle(config, training, largest_batch=batch)


def test_the_kernels_train_what_they_were_made_for() -> None:
    for latent in (13, 8, 5, 14, 28):
        assert rule(latent=latent, batch=4000) is None
    assert rule(ImageShape(32, 32, 3)) is None
    assert "own kernels, in CUDA graphs" in gpu_rule.method(None)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"image": ImageShape(28, 20)}, "not square"),
        ({"latent": Size(5, 4)}, "not square"),
        ({"image": ImageShape(64, 64, 3)}, "larger than 32x32"),
        ({"width": 65}, "more than 64 channels"),
        ({"noise": "blur"}, "not Gaussian"),
    ],
)
def test_what_the_kernels_do_not_know_is_left_to_cudnn(options: dict[str, object], reason: str) -> None:
    obstacle = rule(**options)  # type: ignore[arg-type]
    assert reason in str(obstacle)
    assert f"not by the project's own kernels: {obstacle}" in gpu_rule.method(obstacle)


def test_addresses_of_the_kernels_fit_into_32_bits() -> None:
    # The widest layer of a full-size stem: 28 x 28 x 64 numbers an image.
    most = (2**31 - 1) // (28 * 28 * 64) - gpu_rule.MARGIN
    assert rule(latent=28, width=64, batch=most) is None
    assert "32 bits" in str(rule(latent=28, width=64, batch=most + 1))


def test_16_bits_and_given_noise_are_left_to_cudnn() -> None:
    config, training = ModelConfig(depth=3, latent=5), TrainConfig()
    assert "16 bits" in str(gpu_rule.obstacle(config, training, largest_batch=4000, is_8_bit=False))
    assert "not Gaussian" in str(gpu_rule.obstacle(config, training, largest_batch=4000, is_noise_given=True))
