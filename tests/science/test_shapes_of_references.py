"""Baselines, reader and similarity of images of other sizes, in colour, without labels, with their own noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dae import baselines, linear
from dae import reader as readers
from dae.config import ImageShape
from dae.data import Dataset, Pairs
from dae.linear import Moments, Subspace, principal_components
from dae.similarity import ssim

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(8, 8), (11, 30), (28, 28, 3), (40, 36)]


def pictures(shape: tuple[int, ...], classes: int = 3) -> Dataset:
    """Blocks of different places by class, 16 for each split."""
    generator = np.random.default_rng(5)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % max(classes, 1)
        images = generator.integers(0, 60, (count, *shape)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            top = label * (shape[0] - 4) // max(classes, 1)
            image[top : top + 4, 2:6] += 150
        return images, labels.astype(np.uint8) if classes else np.empty(0, np.uint8)

    (train, train_labels), (validation, validation_labels), (test, test_labels) = map(split, (64, 16, 16))
    return Dataset(
        name="pictures",
        fingerprint="e" * 64,
        train=train,
        train_labels=train_labels,
        validation=validation,
        validation_labels=validation_labels,
        test=test,
        test_labels=test_labels,
        low=0,
        high=255,
        classes=tuple(map(str, range(classes))),
    )


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SLOW_TUNING_IMAGES", 2)
    monkeypatch.setattr(baselines, "FITTING_IMAGES", 64)
    monkeypatch.setattr(baselines, "RIDGES", (1e-2,))
    monkeypatch.setattr(readers, "STEPS", 40)
    for module in (linear, baselines):  # so that small images are treated as large ones are
        monkeypatch.setattr(module, "EXACT_NUMBERS", 32)


def test_linear_maps_are_fitted_to_as_many_noisy_as_clean_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "STUDY_NUMBERS", 16)
    monkeypatch.setattr(baselines, "FITTING_IMAGES", 40)
    dataset = pictures((11, 30))
    monkeypatch.setattr(baselines, "EXACT_NUMBERS", 8)  # so that it takes 32 of the 64 images
    noisy = Pairs(dataset.train // 2, dataset.validation // 2, dataset.test // 2)
    first = replace(dataset, train=dataset.train[:32], noisy=replace(noisy, train=noisy.train[:32]))
    maps = [baselines.linear(one, "pairs", 0.0, [4]) for one in (replace(dataset, noisy=noisy), first)]
    assert [one.validation_loss for one in maps[0]] == [one.validation_loss for one in maps[1]]


@pytest.mark.parametrize("shape", SHAPES)
def test_images_with_their_own_noise_have_baselines(shape: tuple[int, ...]) -> None:
    dataset = pictures(shape)
    generator = np.random.default_rng(1)
    noisy = [
        np.clip(images + generator.normal(0, 40, images.shape), 0, 255).astype(np.uint8)
        for images in (dataset.train, dataset.validation, dataset.test)
    ]
    dataset = replace(dataset, noisy=Pairs(*noisy))
    test, clean = dataset.unit(noisy[2]), dataset.unit(dataset.test)
    denoisers = baselines.filters(dataset, "gaussian", 0.5) + baselines.linear(dataset, "gaussian", 0.5, [4])
    losses = {denoiser.name: float(np.square(denoiser(test) - clean).mean()) for denoiser in denoisers}
    for denoiser in denoisers:
        assert denoiser(test).shape == test.shape
        assert denoiser(test).dtype == np.float32
    assert losses["reduced-rank regression 4"] < losses["mean image"] * 1.05
    assert min(losses.values()) < losses["doing nothing"]
    known = next(denoiser for denoiser in denoisers if denoiser.name.startswith("reduced"))
    assert known.parameters["components"] == 32


def test_colours_are_filtered_channel_by_channel() -> None:
    colour = pictures((28, 28, 3))
    noisy = colour.unit(colour.test)
    for denoiser in baselines.filters(colour, "gaussian", 0.2):
        if denoiser.family != "filter" or "rescaled" in denoiser.name:
            continue
        channels = np.stack([denoiser(noisy[..., channel]) for channel in range(3)], axis=-1)
        np.testing.assert_allclose(denoiser(noisy), channels, atol=1e-6, err_msg=denoiser.name)


def test_a_subspace_holds_the_leading_components() -> None:
    generator = np.random.default_rng(2)
    images = generator.standard_normal((300, 6)) @ (generator.standard_normal((6, 90)) * 2 + 1)
    images = (images + 0.05 * generator.standard_normal(images.shape) + 3).astype(np.float32)
    subspace = Subspace.of(lambda: iter((images[:100], images[100:])), 12)
    np.testing.assert_allclose(subspace.basis.T @ subspace.basis, np.eye(12), atol=1e-5)
    double = images.astype(np.float64)
    full = principal_components(Moments.of([(double, [double])]), [6])[6](images)
    inside = subspace.coordinates(images)
    lifted = subspace.lift(principal_components(Moments.of([(inside, [inside])]), [6])[6])(images)
    assert np.abs(lifted - full).max() < 0.02, "of values of about ten"


def test_a_lifted_map_is_that_of_the_coordinates() -> None:
    generator = np.random.default_rng(4)
    images = generator.random((50, 6, 5)).astype(np.float32)
    flat = images.reshape(50, -1)
    subspace = Subspace.of(lambda: iter((flat[:20], flat[20:])), 4)
    inside = subspace.coordinates(flat)
    inner = principal_components(Moments.of([(inside, [inside])]), [2])[2]
    lifted = subspace.lift(inner)
    assert lifted(images).shape == images.shape
    assert lifted(images).dtype == np.float32
    np.testing.assert_allclose(lifted(images).reshape(50, -1), inner(inside) @ subspace.basis.T + subspace.mean)
    np.testing.assert_allclose(lifted(lifted(images)), lifted(images), atol=1e-5, err_msg="a projection")


@pytest.mark.parametrize(("most", "left_out"), [(None, []), (20, [30]), (4, [30, 8])])
def test_maps_whose_components_take_too_much_are_left_out(
    monkeypatch: pytest.MonkeyPatch, most: int | None, left_out: list[int]
) -> None:
    dataset = pictures((40, 36))
    if most is not None:
        monkeypatch.setattr(baselines, "BASIS_BYTES", 4 * 40 * 36 * most)
    reasons = {latent: baselines.reason_without_linear(dataset, latent) for latent in (30, 8, 4)}
    assert [latent for latent, reason in reasons.items() if reason is not None] == left_out
    if left_out:
        assert "30 principal components of 40x36 images take" in (reasons[30] or "")
    kept = [latent for latent in reasons if latent not in left_out]
    for denoiser in baselines.linear(dataset, "gaussian", 0.3, kept):
        assert denoiser.parameters["rank"] == denoiser.latent
        if denoiser.name.startswith("reduced"):
            assert denoiser.parameters["components"] == min(32, most or 32)


def test_few_images_have_few_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large they are and whatever is asked for: nothing is left out, and little is computed."""
    dataset = pictures((40, 36))
    few = replace(dataset, train=dataset.train[:11], train_labels=dataset.train_labels[:11])
    monkeypatch.setattr(baselines, "BASIS_BYTES", 4 * 40 * 36 * 12)
    assert baselines.reason_without_linear(few, 900) is None
    pca, regression = baselines.linear(few, "gaussian", 0.3, [900])
    assert pca.parameters["rank"] == regression.parameters["rank"] == regression.parameters["components"] == 10
    images = few.unit(few.train)
    np.testing.assert_allclose(pca(images), images, atol=1e-4, err_msg="all of them differ in ten directions")


def test_baselines_of_own_images_do_not_depend_on_their_name() -> None:
    own = replace(pictures((11, 30)), source="/one")
    other = replace(own, name="elsewhere", source="/other")
    noisy = own.unit(own.test)
    found, again = (
        baselines.filters(dataset, "gaussian", 0.3) + baselines.linear(dataset, "gaussian", 0.3, [4])
        for dataset in (own, other)
    )
    for one, same in zip(found, again, strict=True):
        assert (one.parameters, one.validation_loss) == (same.parameters, same.validation_loss)
        assert np.array_equal(one(noisy), same(noisy)), one.name


def test_large_colour_images_take_little_memory() -> None:
    """12,288 numbers an image: a covariance of them would be 1.2 GB."""
    import tracemalloc

    dataset = pictures((64, 64, 3))
    tracemalloc.start()
    pca, regression = baselines.linear(dataset, "gaussian", 0.3, [8])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    assert pca.parameters["rank"] == regression.parameters["rank"] == 8


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_reader_of_any_size_and_number_of_classes(shape: tuple[int, ...], classes: int) -> None:
    dataset = pictures(shape, classes)
    reader, _ = readers.train(dataset)
    images = dataset.unit(dataset.test)
    read = readers.read(reader, images)
    assert set(read) <= set(range(classes))
    again = readers.Reader.of({name: value.contiguous() for name, value in reader.state_dict().items()}, dataset.shape)
    assert np.array_equal(readers.read(again, images), read)


def test_a_reader_of_large_images_learns_from_a_part_of_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pictures((28, 28, 3))
    whole, _ = readers.train(dataset)
    monkeypatch.setattr(readers, "TOGETHER_NUMBERS", 28 * 28 * 3 * 20)
    monkeypatch.setattr(readers, "DROPOUT", 0.0)
    monkeypatch.setattr(readers, "_shifted", lambda images: images)
    in_parts, _ = readers.train(dataset)
    monkeypatch.setattr(readers, "TOGETHER_NUMBERS", 28 * 28 * 3 * 64)
    at_once, _ = readers.train(dataset)
    for one, other in zip(in_parts.parameters(), at_once.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-2)
    images = dataset.unit(dataset.test)
    monkeypatch.setattr("dae.testset.PART_NUMBERS", 28 * 28 * 3 * 5)
    assert np.array_equal(readers.read_pixels(whole, dataset, dataset.test), readers.read(whole, images))


def test_a_reader_of_an_earlier_version_still_reads(tiny: Dataset) -> None:
    """Its weights have the names and shapes of today's."""
    shapes = {
        "features.1.weight": (24, 4, 3, 3), "features.1.bias": (24,), "features.3.weight": (48, 24, 3, 3),
        "features.3.bias": (48,), "features.5.weight": (64, 48, 3, 3), "features.5.bias": (64,),
        "classify.weight": (10, 1024), "classify.bias": (10,),
    }  # fmt: skip
    reader = readers.Reader.of({name: torch.ones(shape) for name, shape in shapes.items()}, ImageShape())
    assert readers.read(reader, tiny.unit(tiny.test)).shape == (40,)
    assert {name: tuple(value.shape) for name, value in reader.state_dict().items()} == shapes


@pytest.mark.parametrize("shape", SHAPES)
def test_similarity_of_any_size_and_colour(shape: tuple[int, ...]) -> None:
    from skimage.metrics import structural_similarity

    generator = np.random.default_rng(3)
    clean = generator.random((5, *shape)).astype(np.float32)
    images = np.clip(clean + 0.2 * generator.standard_normal(clean.shape), 0, 1).astype(np.float32)
    similarity = ssim(images, clean)
    assert similarity.shape == (5,)
    assert np.all(ssim(clean, clean) == 1)
    if min(shape[:2]) >= 11:  # scikit-image refuses smaller images
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        axis = -1 if len(shape) == 3 else None
        expected = [
            structural_similarity(one.astype(float), other.astype(float), channel_axis=axis, **options)
            for one, other in zip(images, clean, strict=True)
        ]
        np.testing.assert_allclose(similarity, expected, rtol=1e-5)
