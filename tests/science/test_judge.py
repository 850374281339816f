"""The reader of digits: learns, repeats itself, and never looks at test images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dae import judge as judges
from dae.data import Dataset, load
from dae.testset import TestSet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "BATCH_SIZE", 16)
    monkeypatch.setattr(judges, "STEPS", 100)


def test_it_learns_to_read(tiny: Dataset) -> None:
    judge, result = judges.train(tiny)
    read = judges.read(judge, TestSet(tiny, 0.0).clean)
    assert read.dtype == np.uint8
    assert (read == tiny.test_labels).mean() > 0.6, "chance is 0.1"
    assert 0.7 < result.accuracy_validation <= 1
    assert result.epochs == judges.MAX_EPOCHS, "of four steps each, less than it would take"


def test_its_validation_accuracy_is_that_of_all_validation_images(tiny: Dataset) -> None:
    judge, result = judges.train(tiny)
    read = judges.read(judge, tiny.unit(tiny.validation))
    assert (read == tiny.validation_labels).mean() == result.accuracy_validation


def test_the_same_seed_gives_the_same_bits_whatever_torch_drew_before(tiny: Dataset) -> None:
    first, _ = judges.train(tiny, seed=3)
    torch.rand(7)
    before = torch.random.get_rng_state()
    second, _ = judges.train(tiny, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before), "and leaves torch's own stream alone"
    other, _ = judges.train(tiny, seed=4)
    states = [judge.state_dict() for judge in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["classify.weight"], states[2]["classify.weight"])


def test_it_never_sees_a_test_image(tiny: Dataset) -> None:
    other = replace(tiny, test=255 - tiny.test, test_labels=9 - tiny.test_labels)
    one, two = (judges.train(data)[0].state_dict() for data in (tiny, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_image_is_read_alone_as_among_others(tiny: Dataset) -> None:
    judge, _ = judges.train(tiny)
    images = TestSet(tiny, 0.3).noisy
    alone = np.concatenate([judges.read(judge, image[None]) for image in images])
    assert np.array_equal(judges.read(judge, images), alone)


def test_the_learning_rate_goes_up_and_down_once() -> None:
    rates = list(judges._one_cycle(50))
    peak = rates.index(max(rates))
    assert len(rates) == 50
    assert peak == pytest.approx(50 * judges.RISE, abs=1)
    assert max(rates) == pytest.approx(judges.PEAK_LR, rel=0.01)
    assert max(rates[0], rates[-1]) < judges.PEAK_LR / 100
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)


@pytest.mark.slow
def test_3200_real_digits_make_a_reader_of_97_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    dataset = load("mnist-5k", Path("nowhere"))
    judge, _ = judges.train(dataset)
    assert (judges.read(judge, dataset.unit(dataset.test)) == dataset.test_labels).mean() >= 0.965
