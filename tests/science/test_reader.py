"""The reader of digits: learns, repeats itself, and never looks at test images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dae import reader as readers
from dae.config import ImageShape
from dae.data import Dataset, load
from dae.testset import TestSet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "BATCH_SIZE", 16)
    monkeypatch.setattr(readers, "STEPS", 100)


def test_it_learns_to_read(tiny: Dataset) -> None:
    reader, result = readers.train(tiny)
    read = readers.read(reader, TestSet(tiny, 0.0).clean)
    assert read.dtype == np.uint8
    assert (read == tiny.test_labels).mean() > 0.6, "chance is 0.1"
    assert 0.7 < result.accuracy_validation <= 1
    assert result.epochs == readers.MAX_EPOCHS, "of four steps each, less than it would take"


def test_its_validation_accuracy_is_that_of_all_validation_images(tiny: Dataset) -> None:
    reader, result = readers.train(tiny)
    read = readers.read(reader, tiny.unit(tiny.validation))
    assert (read == tiny.validation_labels).mean() == result.accuracy_validation


def test_the_same_seed_gives_the_same_bits_whatever_torch_drew_before(tiny: Dataset) -> None:
    first, _ = readers.train(tiny, seed=3)
    torch.rand(7)
    before = torch.random.get_rng_state()
    second, _ = readers.train(tiny, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before), "and leaves torch's own stream alone"
    other, _ = readers.train(tiny, seed=4)
    states = [reader.state_dict() for reader in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["classify.weight"], states[2]["classify.weight"])


def test_it_never_sees_a_test_image(tiny: Dataset) -> None:
    other = replace(tiny, test=255 - tiny.test, test_labels=9 - tiny.test_labels)
    one, two = (readers.train(data)[0].state_dict() for data in (tiny, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_image_is_read_alone_as_among_others(tiny: Dataset) -> None:
    reader, _ = readers.train(tiny)
    images = TestSet(tiny, 0.3).noisy
    alone = np.concatenate([readers.read(reader, image[None]) for image in images])
    assert np.array_equal(readers.read(reader, images), alone)


def test_the_learning_rate_goes_up_and_down_once() -> None:
    rates = list(readers._one_cycle(50))
    peak = rates.index(max(rates))
    assert len(rates) == 50
    assert peak == pytest.approx(50 * readers.RISE, abs=1)
    assert max(rates) == pytest.approx(readers.PEAK_LR, rel=0.01)
    assert max(rates[0], rates[-1]) < readers.PEAK_LR / 100
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)


@pytest.mark.slow
def test_3200_real_digits_make_a_reader_of_97_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    dataset = load("mnist-5k", Path("nowhere"))
    reader, _ = readers.train(dataset)
    assert (readers.read(reader, dataset.unit(dataset.test)) == dataset.test_labels).mean() >= 0.965


def test_classes_beyond_256_are_counted_on() -> None:
    reader = readers.Reader(ImageShape(8, 8, 1), classes=300)
    with torch.no_grad():
        reader.classify.weight.zero_()
        reader.classify.bias.copy_(torch.arange(300.0))
    assert readers.read(reader, np.zeros((2, 8, 8), np.float32)).tolist() == [299, 299]


@pytest.mark.parametrize(("size", "smaller"), [((7, 7), (4, 4)), ((4, 4), (4, 4)), ((9, 5), (4, 2)), ((16, 3), (4, 3))])
def test_averages_are_those_of_torch(size: tuple[int, int], smaller: tuple[int, int]) -> None:
    maps = torch.randn(3, 6, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = nn.functional.adaptive_avg_pool2d(maps, smaller)
    averages = readers.Averages(size, smaller)(maps)
    torch.testing.assert_close(averages, expected)
    direction = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(averages, maps, direction), torch.autograd.grad(expected, maps, direction), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
