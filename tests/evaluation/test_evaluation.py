"""The evaluation: complete, computed once, from weights and data alone; its failures do not harm the sweep."""

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import InProcess
from threadpoolctl import threadpool_info

from dae import baselines
from dae import reader as readers
from dae.data import Dataset
from dae.testset import TestSet
from dae.training import Images
from sweep.cli import main
from sweep.driver.declaration import declare
from sweep.driver.request import Request
from sweep.evaluation import evaluation, tasks
from sweep.evaluation.verify import verify
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.quality import READER, REFERENCE_ARRAYS, REFERENCES, load_quality, load_references
from sweep.records.record import CellFiles
from sweep.records.search import Proposal, Search
from sweep.records.space import Space
from sweep.records.sweep import MANIFEST, Sweep, gather
from sweep.storage.store import Store
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
    assert verify(sweep, tiny) == [], "what is there is whole"
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
