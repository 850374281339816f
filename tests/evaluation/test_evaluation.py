"""The evaluation: complete, computed once, from weights and data alone; its failures do not harm the sweep."""

import multiprocessing
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import InProcess
from threadpoolctl import threadpool_info

from dae import baselines, linear, testset
from dae import reader as readers
from dae.data import Dataset, Pairs
from dae.testset import TestSet
from dae.training import Images
from sweep.cli import main
from sweep.driver.declaration import declare
from sweep.driver.request import Request
from sweep.evaluation import evaluation, mapped, tasks
from sweep.evaluation.verify import verify
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.quality import READER, REFERENCE_ARRAYS, REFERENCES, load_quality, load_references
from sweep.records.record import CellFiles
from sweep.records.search import Proposal, Search
from sweep.records.space import Space
from sweep.records.sweep import MANIFEST, Sweep, gather
from sweep.report import page
from sweep.storage.store import Store
from sweep.trials import machine
from sweep.trials.job import Job
from sweep.trials.trial import Trial

KEY = "DAE_1_8-s0"

pytestmark = pytest.mark.usefixtures("one_thread", "own_signals")


class Here(Executor):
    """Runs tasks at once in this process and records them."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fail = ""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        self.done.append(fn.__name__)
        try:
            if fn.__name__ == self.fail:
                raise ArithmeticError("made to fail")
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Few images for tuning and fitting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "STEPS", 4)
        patch.setattr(baselines, "SLOW_TUNING_IMAGES", 2)
        patch.setattr(baselines, "FITTING_IMAGES", 64)
        patch.setattr(baselines, "RIDGES", (1e-3,))
        yield


@pytest.fixture(scope="module")
def trained(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A sweep of the tiny digits, one of its cells under other noise; never evaluated. Not to be changed."""
    store = Store(tmp_path_factory.mktemp("trained") / "mnist-5k")
    settings = Settings.usual("mnist-5k", epochs=2, batch_size=16)
    cells = [Cell.from_key(key) for key in (KEY, "DAE_1_5-s0", "DAE_1_5-alpha0.25-s0")]
    request = Request(
        store=store,
        grid=Grid.of(cells),
        settings=settings,
        data_dir=Path("nowhere"),
        cpus=1,
        gpus=0,
        trials_per_gpu=1,
        wandb_mode="disabled",
        project="",
    )
    declare(request, tiny, warn=pytest.fail)
    job = Job(store=store, settings=settings, device="cpu", memory_share=1.0, git_commit=None)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for cell in cells:
        Trial(job, cell, Images(tiny, settings.alpha, "cpu")).advance(float("inf"))
    return store


@pytest.fixture(scope="module")
def evaluated(small: None, trained: Store, tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same sweep, evaluated. Not to be changed."""
    store = copy(trained, tmp_path_factory.mktemp("evaluated"))
    evaluate(store, tiny)
    return store


@pytest.fixture
def store(evaluated: Store, tmp_path: Path) -> Store:
    return copy(evaluated, tmp_path)


def copy(store: Store, folder: Path) -> Store:
    shutil.copytree(store.root, folder / "sweeps" / store.root.name)
    return Store(folder / "sweeps" / store.root.name)


def evaluate(store: Store, dataset: Dataset, *, fail: str = "") -> tuple[list[str], list[str]]:
    """The tasks that were computed, and the warnings."""
    here, warnings = Here(), []
    here.fail = fail
    evaluation.evaluate(gather(store), dataset, workers=1, warn=warnings.append, tell=lambda _line: None, executor=here)
    return here.done, warnings


def test_references_may_be_computed_before_the_cells_are_trained(
    trained: Store, evaluated: Store, tiny: Dataset, tmp_path: Path
) -> None:
    store = copy(trained, tmp_path)
    for name in store.names("cells"):
        if name.endswith("record.json"):
            store.delete(name)
    sweep, here = gather(store), Here()
    arguments: dict[str, Any] = {"warn": pytest.fail, "tell": lambda _line: None}
    evaluation.prepare(sweep, sweep.manifest.grid.cells, tiny, here, **arguments)
    assert "evaluate_cell" not in here.done
    for name in (REFERENCES, REFERENCE_ARRAYS, READER):
        assert store.read(name) == evaluated.read(name), name
    for name, content in contents(trained).items():
        if name.endswith("record.json"):
            store.write(name, content)
    assert set(evaluate(store, tiny)[0]) == {"evaluate_cell"}, "nothing twice"
    assert contents(store) == contents(evaluated)


@pytest.mark.parametrize("lost", [REFERENCES, CellFiles(KEY).quality])
def test_verify_names_what_of_an_evaluation_is_gone(store: Store, tiny: Dataset, lost: str) -> None:
    assert verify(gather(store), tiny) == []
    store.delete(lost)
    [missing] = verify(gather(store), tiny)
    assert missing.where in (lost, KEY)
    assert "is not there" in missing.what


def contents(sweep: Sweep | Store) -> dict[str, bytes]:
    root = (sweep.store if isinstance(sweep, Sweep) else sweep).root
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_everything_is_there_and_agrees_with_the_records(evaluated: Store, tiny: Dataset) -> None:
    sweep = gather(evaluated)
    references, qualities = load_references(sweep), load_quality(sweep)
    assert references is not None
    assert not qualities.damaged
    assert set(qualities.by_key) == {record.key for record in sweep.completed}
    condition = references.condition("gaussian", 0.5)
    assert condition is not None
    names = [baseline.name for baseline in condition.baselines]
    assert names[:3] == ["doing nothing", "mean image", "mean filter"]
    assert names[-4:] == ["PCA 256", "PCA 100", "reduced-rank regression 256", "reduced-rank regression 100"]
    for name, declared in (("doing nothing", "identity"), ("mean image", "mean_image")):
        baseline = condition.baseline(name)
        assert baseline is not None
        assert baseline.test_loss == pytest.approx(sweep.manifest.baselines[declared], rel=1e-6)
        assert baseline.loss.mean(dtype=float) == pytest.approx(baseline.test_loss, rel=1e-6)
    assert references.reader.accuracy_clean == (references.read_clean == tiny.test_labels).mean()
    assert condition.accuracy_noisy == (condition.read_noisy == tiny.test_labels).mean()
    for record in sweep.completed:
        quality = qualities.by_key[record.key]
        alpha = record.config["alpha"]
        at_alpha = list(quality.robust_alpha).index(alpha)
        assert quality.robust_loss[at_alpha] == record.test_loss, "the same images, model and arithmetic"
        assert list(quality.robust_alpha) == [0, 0.25, 0.5, 0.75, 1]
        assert quality.ssim.shape == quality.read.shape == (40,)
        with np.load(evaluated.path(CellFiles(record.key).test)) as test:
            losses = test["loss"]
        assert losses[quality.shown_index[0]] == losses.min()
        assert losses[quality.shown_index[2]] == losses.max()
        shown = np.square(quality.shown[:, 2] - quality.shown[:, 0]).mean(axis=(1, 2))
        np.testing.assert_allclose(shown, losses[quality.shown_index], rtol=1e-6)
        test_set = TestSet(tiny, alpha)
        assert np.array_equal(quality.shown[:, 1], test_set.noisy[quality.shown_index])


def test_records_and_test_results_are_not_touched(evaluated: Store, trained: Store) -> None:
    before, after = contents(trained), contents(evaluated)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {REFERENCES, REFERENCE_ARRAYS, READER} | {
        CellFiles(record.key).quality for record in gather(evaluated).completed
    }


def test_again_computes_nothing(store: Store, tiny: Dataset) -> None:
    before = contents(store)
    assert evaluate(store, tiny) == ([], [])
    assert contents(store) == before


EVERYTHING = {"train_reader", "fit", "read_noisy", "denoise", "evaluate_cell"}


@pytest.mark.parametrize(
    ("name", "harm", "computed"),
    [
        (CellFiles(KEY).quality, "lost", {"evaluate_cell"}),
        (CellFiles(KEY).quality, "truncated", {"evaluate_cell"}),
        (CellFiles(KEY).quality, "changed", {"evaluate_cell"}),
        (REFERENCES, "truncated", EVERYTHING),
        (REFERENCE_ARRAYS, "changed", EVERYTHING),
        (READER, "lost", EVERYTHING),
        (READER, "changed", EVERYTHING),
    ],
)
def test_what_is_lost_or_damaged_is_made_anew(
    store: Store, tiny: Dataset, name: str, harm: str, computed: set[str]
) -> None:
    before, content = contents(store), store.read(name)
    if harm == "lost":
        store.delete(name)
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        store.write(name, content[:-20] if harm == "truncated" else changed)
    done, warnings = evaluate(store, tiny)
    assert set(done) == computed
    assert (harm == "lost" and name != READER) or any(name in warning for warning in warnings)
    assert contents(store) == before, "the same bits"


def test_a_cell_that_was_trained_again_is_evaluated_again(store: Store, tiny: Dataset) -> None:
    quality = load_quality(gather(store)).by_key[KEY]
    before = contents(store)
    store.write(CellFiles(KEY).quality, replace(quality, weights="f" * 64).to_bytes())
    done, warnings = evaluate(store, tiny)
    assert done == ["evaluate_cell"]
    assert "other weights" in warnings[0]
    assert contents(store) == before


def test_a_new_latent_costs_its_linear_baselines_only(store: Store, tiny: Dataset) -> None:
    references = load_references(gather(store))
    assert references is not None
    plain = references.condition("gaussian", 0.5)
    assert plain is not None
    older = replace(plain, baselines=tuple(baseline for baseline in plain.baselines if baseline.latent != 256))
    conditions = tuple(older if condition is plain else condition for condition in references.conditions)
    for name, content in replace(references, conditions=conditions).to_files().items():
        store.write(name, content)
    done, _ = evaluate(store, tiny)
    assert done == ["fit", "denoise", "denoise", "read_noisy"]
    again = load_references(gather(store))
    assert again is not None
    names = [[baseline.name for baseline in one.baselines] for one in again.conditions]
    assert sorted(names) == sorted([baseline.name for baseline in one.baselines] for one in references.conditions)


@pytest.mark.parametrize("fail", ["train_reader", "fit", "denoise", "read_noisy", "evaluate_cell"])
def test_a_failure_costs_its_part_and_is_said(trained: Store, tiny: Dataset, tmp_path: Path, fail: str) -> None:
    store = copy(trained, tmp_path)
    _, warnings = evaluate(store, tiny, fail=fail)
    assert any("made to fail" in warning for warning in warnings)
    sweep = gather(store)
    assert len(sweep.completed) == 3
    assert bool(load_quality(sweep).by_key) is (fail not in {"train_reader", "evaluate_cell"})
    wrong = [one for one in verify(sweep, tiny) if "is not evaluated" not in one.what]
    assert not wrong, "what is there is whole"
    assert not evaluate(store, tiny)[1]
    assert len(load_quality(gather(store)).by_key) == 3, "the next evaluation takes it up"
    assert evaluate(store, tiny) == ([], [])


def test_a_part_of_the_test_images_is_recorded_as_such(
    trained: Store, evaluated: Store, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "SLOW_TEST_IMAGES", 8)
    monkeypatch.setattr(tasks, "STRENGTH_IMAGES", 10)
    store = copy(trained, tmp_path)
    evaluate(store, tiny)
    few, full = (load_references(gather(one)) for one in (store, evaluated))
    assert few is not None
    assert full is not None
    for one, other in zip(few.conditions, full.conditions, strict=True):
        for part, whole in zip(one.baselines, other.baselines, strict=True):
            if not part.name.startswith(baselines.SLOW):
                assert replace(part, loss=whole.loss) == part or part.test_loss == whole.test_loss
                continue
            assert part.parameters == dict(whole.parameters) | {"test_images": 8}
            chosen = np.flatnonzero(~np.isnan(part.loss))
            assert list(chosen) == list(range(0, 40, 5))
            np.testing.assert_array_equal(part.loss[chosen], whole.loss[chosen])
            assert part.test_loss == pytest.approx(whole.loss[chosen].mean(dtype=float), rel=1e-6)
    parts, wholes = (load_quality(gather(one)).by_key for one in (store, evaluated))
    for key, part in parts.items():
        assert np.array_equal(part.ssim, wholes[key].ssim), "of all test images"
        np.testing.assert_allclose(part.robust_loss, wholes[key].robust_loss, rtol=0.25)
        at = list(part.robust_alpha).index(gather(store).records[key].config["alpha"])
        assert part.robust_loss[at] == wholes[key].robust_loss[at]


def test_a_test_set_in_parts_is_evaluated_as_the_whole(
    trained: Store, evaluated: Store, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testset, "PART_NUMBERS", 784 * 7)
    store = copy(trained, tmp_path)
    assert evaluate(store, tiny)[1] == []
    parts, whole = gather(store), gather(evaluated)
    one, other = load_references(parts), load_references(whole)
    assert one is not None
    assert other is not None
    assert np.array_equal(one.read_clean, other.read_clean)
    for condition, due in zip(one.conditions, other.conditions, strict=True):
        assert np.array_equal(condition.read_noisy, due.read_noisy)
        for baseline, expected in zip(condition.baselines, due.baselines, strict=True):
            assert (baseline.name, baseline.parameters) == (expected.name, expected.parameters)
            # Images of total variation settle a step earlier or later beside others: sums are rounded otherwise.
            tolerance = 5e-3 if baseline.name.startswith("total variation") else 1e-5
            np.testing.assert_allclose(baseline.loss, expected.loss, rtol=tolerance)
            assert baseline.ssim == pytest.approx(expected.ssim, rel=tolerance)
    found, expected = load_quality(parts).by_key, load_quality(whole).by_key
    assert set(found) == set(expected)
    for key, quality in found.items():
        for name in ("ssim", "read", "shown_index", "shown", "robust_alpha", "robust_loss"):
            due = getattr(expected[key], name)
            np.testing.assert_allclose(getattr(quality, name), due, rtol=1e-5, atol=1e-6, err_msg=f"{key} {name}")


def test_memory_does_not_grow_with_the_test_set(trained: Store, tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the pixels of all images, and some numbers for each."""
    monkeypatch.setattr(testset, "PART_NUMBERS", 784 * 100)
    monkeypatch.setattr(tasks, "STRENGTH_NUMBERS", 784 * 100)
    sweep = gather(trained)
    settings, cell = sweep.manifest.settings, sweep.records[KEY].cell
    weights = trained.read(CellFiles(KEY).weights)
    peaks = []
    for times in (10, 100):
        test = np.tile(tiny.test, (times, 1, 1))
        with tasks.prepared(Here(), replace(tiny, test=test, test_labels=np.tile(tiny.test_labels, times))):
            tracemalloc.start()
            tasks.evaluate_cell(KEY, settings.model(cell), settings.training(cell), weights, b"")
            tasks.denoise(baselines.filters(tiny, "gaussian", 0.5)[0], tasks.Noise("gaussian", 0.5), b"", None)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 36 * 100 * 784, "as float32 the other images would take four times that"


def test_no_more_processes_than_the_memory_holds(
    trained: Store, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    @contextmanager
    def processes(dataset: Dataset, workers: int) -> Iterator[Executor]:
        asked.append(workers)
        with tasks.prepared(Here(), dataset) as here:
            yield here

    monkeypatch.setattr(tasks, "processes", processes)
    for gib, number in ((1, 1), (1.7, 2), (64, 8)):
        monkeypatch.setattr(machine, "memory_bytes", lambda gib=gib: int(gib * 2**30))
        store, told = copy(trained, tmp_path / str(number)), []
        evaluation.evaluate(gather(store), tiny, workers=8, warn=pytest.fail, tell=told.append)
        assert asked[-1] == number
        assert f"on {number} CPU core" in told[0]
        assert ("holds no more" in told[0]) == (number < 8)


def test_linear_maps_that_take_too_much_are_left_out_and_the_page_says_why(
    trained: Store, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under each noise the maps of latent 8, which has 256 elements."""
    for module in (linear, baselines):
        monkeypatch.setattr(module, "EXACT_NUMBERS", 200)
    large = replace(tiny, train=np.tile(tiny.train, (4, 1, 1)), train_labels=np.tile(tiny.train_labels, 4))
    monkeypatch.setattr(baselines, "BASIS_BYTES", 4 * 784 * 150)
    store = copy(trained, tmp_path)
    manifest = gather(store).manifest
    manifest = replace(manifest, dataset={**manifest.dataset, "train": len(large.train)})
    store.write(MANIFEST, manifest.to_bytes())
    done, warnings = evaluate(store, large)
    assert (set(done), warnings) == (EVERYTHING, [])
    references = load_references(gather(store))
    assert references is not None
    condition = references.condition("gaussian", 0.5)
    assert condition is not None
    assert {one.latent for one in condition.left_out} == {256}
    assert condition.latents == {256, 100}
    assert {baseline.latent for baseline in condition.baselines} == {None, 100}
    assert evaluate(store, large) == ([], []), "it is known"
    text = page.build(gather(store)).read_text()
    assert "<b>PCA 256, reduced-rank regression 256.</b> Left out: 200 principal components of 28x28 images" in text
    others = Store(store.root.parent / "second")
    for name, content in contents(trained).items():
        others.write(name, content)
    others.write(MANIFEST, manifest.to_bytes())
    assert set(evaluate(others, large)[0]) == {"evaluate_cell"}, "and shared"
    again = load_references(gather(others))
    assert again is not None
    assert again.condition("gaussian", 0.5).left_out == condition.left_out  # type: ignore[union-attr]


def test_processes_share_one_copy_of_the_images(tiny: Dataset) -> None:
    deep = replace(tiny, train=tiny.train.astype(np.uint16) * 257, noisy=Pairs(tiny.train, tiny.validation, tiny.test))
    with tasks.processes(deep, 1) as executor:
        is_shared, same = executor.submit(seen, deep).result()
        fitted = executor.submit(tasks.fit, tasks.Noise("gaussian", 0.5), False, [8]).result()
        answers = [executor.submit(tasks.denoise, one, tasks.Noise("gaussian", 0.5), b"", None) for one in fitted]
        losses = [answer.result().loss for answer in answers]
    assert is_shared
    assert same
    assert all(len(pickle.dumps(one)) < 2000 for one in fitted), "maps do not come here"
    due = baselines.linear(deep, "gaussian", 0.5, [8])
    test_set = TestSet(deep, 0.5)
    for one, loss in zip(due, losses, strict=True):
        np.testing.assert_allclose(testset.image_losses(one(test_set.noisy), test_set.clean), loss, rtol=1e-3)


def seen(sent: Dataset) -> tuple[bool, bool]:
    """Whether the images of this process are views of what cannot be written, and whether they are those sent."""
    mine = tasks._dataset[0]
    assert mine.noisy is not None
    assert sent.noisy is not None
    pairs = [(mine.train, sent.train), (mine.test, sent.test), (mine.noisy.test, sent.noisy.test)]
    pairs.append((mine.train_labels, sent.train_labels))
    is_shared = all(not one.flags.owndata and not one.flags.writeable for one, _ in pairs)
    return is_shared, all(np.array_equal(one, other) and one.dtype == other.dtype for one, other in pairs)


def test_what_is_mapped_outlives_its_file(tmp_path: Path) -> None:
    arrays = [np.arange(7, dtype=np.uint16), np.empty(0, np.uint8), np.eye(3)[::2], np.ones((2, 3, 4), np.float32)]
    file = tmp_path / "file"
    mapped.write({"arrays": arrays, "again": arrays[3], "text": "x"}, file)
    value = mapped.read(file)
    file.unlink()
    assert value["text"] == "x"
    assert value["again"] is value["arrays"][3], "written once"
    for one, other in zip(value["arrays"], arrays, strict=True):
        assert one.dtype == other.dtype
        assert one.flags.aligned
        assert np.array_equal(one, other)


def test_processes_that_die_cost_the_evaluation_and_no_more(
    trained: Store, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process of the pool ends at its start, while more images than a pipe holds are sent to it."""
    large = replace(tiny, test=np.tile(tiny.test, (10, 1, 1)), test_labels=np.tile(tiny.test_labels, 10))
    store, warnings = copy(trained, tmp_path), []
    monkeypatch.setattr(tasks, "_prepare_process", os._exit)
    evaluation.evaluate(gather(store), large, workers=2, warn=warnings.append, tell=lambda _line: None)
    assert "BrokenProcessPool" in warnings[-1]
    assert contents(store) == contents(trained)
    assert not multiprocessing.active_children()


def test_each_process_has_one_thread(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with tasks.processes(tiny, 1) as executor:
        pools = executor.submit(threadpool_info).result()
    assert {pool["user_api"] for pool in pools} >= {"blas", "openmp"}
    assert {pool["num_threads"] for pool in pools} == {1}


def test_of_a_search_only_finalists_are_evaluated(trained: Store, tiny: Dataset, tmp_path: Path) -> None:
    store = copy(trained, tmp_path)
    sweep = gather(store)
    search = Search(space=Space.parse(["depth=1", "latent=5..8"]), seed=0)
    store.write(MANIFEST, replace(sweep.manifest, search=search).to_bytes())
    for key in (KEY, "DAE_1_5-s0", "DAE_1_5-alpha0.25-s0"):
        point = {"depth": 1, "latent": 5}
        store.write(CellFiles(key).proposal, Proposal(number=0, point=point).to_bytes())
    assert evaluate(store, tiny) == ([], [])
    store.write(MANIFEST, replace(sweep.manifest, search=replace(search, seed=7)).to_bytes())  # no cell is a trial
    assert evaluate(store, tiny)[0].count("evaluate_cell") == 3


def test_verify_finds_a_damaged_evaluation(store: Store, tiny: Dataset) -> None:
    assert verify(gather(store), tiny) == []
    for name in (CellFiles(KEY).quality, REFERENCE_ARRAYS):
        store.write(name, store.read(name)[:-1])
    assert {disagreement.where for disagreement in verify(gather(store), tiny)} == {KEY, REFERENCES}


@pytest.mark.parametrize("option", ["--no-evaluation", "--no-report"])
def test_it_can_be_left_out(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.delenv("DAE_SWEEP_NO_EVALUATION")
    words = ["run", "--dataset", "mnist-5k", "--train-fraction", "0.1", "--depths", "1", "--latents", "5"]
    words += ["--epochs", "1", "--wandb", "disabled", "--storage", str(tmp_path), option]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert not (tmp_path / "mnist-5k" / REFERENCES).exists()


@pytest.mark.slow
def test_a_run_evaluates_older_sweeps_in_processes_of_its_own(
    in_process: InProcess, sweep_copy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real processes, on a sweep in which nothing is left to train."""
    monkeypatch.delenv("DAE_SWEEP_NO_EVALUATION")
    words = ["run", "--dataset", "mnist-5k", "--train-fraction", "0.1", "--depths", "1,3", "--latents", "5,8"]
    words += ["--epochs", "3", "--wandb", "disabled", "--storage", str(sweep_copy.root.parent), "--cpus", "2"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "evaluating 4 cells, baselines, a reader on 2 CPU cores" in result.output
    assert not in_process.rounds
    sweep = gather(sweep_copy)
    references = load_references(sweep)
    assert references is not None
    assert len(references.conditions[0].baselines) == 20
    assert len(load_quality(sweep).by_key) == 4
