"""References that the sweeps of a storage share: computed once, checked, and no sweep's concern."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from test_evaluation import EVERYTHING, contents, copy, evaluate, evaluated, small, trained

from dae.data import Dataset
from sweep.cli import main
from sweep.evaluation.shared import FOLDER
from sweep.records.quality import READER, REFERENCE_ARRAYS, REFERENCES, load_references
from sweep.records.sweep import gather
from sweep.storage.store import Store

__all__ = ["evaluated", "small", "trained"]  # fixtures

pytestmark = pytest.mark.usefixtures("one_thread", "own_signals", "small")

SHARED = (REFERENCES, REFERENCE_ARRAYS, READER)


@pytest.fixture
def first(trained: Store, tiny: Dataset, tmp_path: Path) -> Store:
    """An evaluated sweep in a storage of its own."""
    store = copy(trained, tmp_path)
    evaluate(store, tiny)
    return store


def second(first: Store, trained: Store) -> Store:
    """Another sweep in the same storage, not evaluated."""
    store = Store(first.root.parent / "second")
    for name, content in contents(trained).items():
        store.write(name, content)
    return store


def shared_files(store: Store) -> list[Path]:
    return sorted(path for path in (store.root.parent / FOLDER).rglob("*") if path.is_file())


def test_a_second_sweep_computes_its_cells_alone(first: Store, trained: Store, tiny: Dataset) -> None:
    before = [path.read_bytes() for path in shared_files(first)]
    assert len(before) == 3, "the reader and two conditions"
    store = second(first, trained)
    done, warnings = evaluate(store, tiny)
    assert (set(done), warnings) == ({"evaluate_cell"}, [])
    for name, content in contents(first).items():
        if name.split("/")[-1] in {*SHARED, "quality.npz"}:
            assert store.read(name) == content, name
    assert [path.read_bytes() for path in shared_files(first)] == before


@pytest.mark.parametrize("harm", ["lost", "truncated", "changed", "empty"])
def test_what_is_damaged_is_computed_anew_with_a_word(first: Store, trained: Store, tiny: Dataset, harm: str) -> None:
    before = {path: path.read_bytes() for path in shared_files(first)}
    for path, content in before.items():
        if harm == "lost":
            path.unlink()
        elif harm == "changed":
            path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
        else:
            path.write_bytes(content[: -20 if harm == "truncated" else 0])
    store = second(first, trained)
    done, warnings = evaluate(store, tiny)
    assert set(done) == EVERYTHING
    assert bool(warnings) is (harm != "lost")
    assert all("computed anew" in warning and FOLDER in warning for warning in warnings)
    assert {path: path.read_bytes() for path in shared_files(first)} == before
    assert all(store.read(name) == first.read(name) for name in SHARED)


def test_a_sweep_takes_the_baselines_of_its_latents_and_adds_others(
    first: Store, trained: Store, tiny: Dataset
) -> None:
    """Cells of latent 8 alone need PCA and regression of 256 elements; those of 100 are there all the same."""
    store = second(first, trained)
    for key in ("DAE_1_5-s0", "DAE_1_5-alpha0.25-s0"):
        for name in contents(store):
            if f"cells/{key}/" in name:
                store.delete(name)
    done, _ = evaluate(store, tiny)
    assert set(done) == {"evaluate_cell"}
    references = load_references(gather(store))
    assert references is not None
    [condition] = references.conditions
    assert {baseline.latent for baseline in condition.baselines} == {None, 256}


def test_an_older_sweep_keeps_its_own_and_gives_nothing_away(first: Store, trained: Store, tiny: Dataset) -> None:
    """A sweep that has a reader of its own goes on with it, whatever the storage holds."""
    for path in shared_files(first):
        path.unlink()
    before = contents(first)
    assert evaluate(first, tiny) == ([], [])
    assert contents(first) == before
    assert not shared_files(first)


def test_it_is_no_sweep(first: Store) -> None:
    result = CliRunner().invoke(main, ["status", "--storage", str(first.root.parent)])
    assert result.exit_code == 0
    assert FOLDER not in result.output
    assert first.below("..").folders() == [first.name]


def test_a_storage_that_cannot_be_written_costs_the_sharing_alone(
    trained: Store, tiny: Dataset, tmp_path: Path
) -> None:
    store = copy(trained, tmp_path)
    (store.root.parent / FOLDER).write_text("in the way")
    done, warnings = evaluate(store, tiny)
    assert set(done) == EVERYTHING
    assert warnings
    assert load_references(gather(store)) is not None
