"""`dae-sweep verify` on tiny real sweeps whose files were changed, with matching digests."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import SMALL, SMALL_GRID, make_undisturbed

from dae import data
from dae.testset import psnr_db
from sweep.cli import main
from sweep.evaluation.verify import verify
from sweep.records.grid import Grid
from sweep.records.quality import unpack
from sweep.records.record import CellFiles, Record, Status, read_record
from sweep.records.sweep import gather
from sweep.storage.sealing import digest
from sweep.storage.store import Store

CELL, OTHER = SMALL_GRID.cells[0], SMALL_GRID.cells[1]
FILES = CellFiles(CELL.key)

pytestmark = pytest.mark.usefixtures("own_signals")


def check(store: Store) -> Result:
    return CliRunner().invoke(main, ["verify", "--storage", str(store.root.parent), "--dataset", "mnist-5k"])


def change(store: Store, edit: Callable[[Record], Record]) -> None:
    """Edit a record and write it with a matching digest."""
    store.write(FILES.record, edit(read_record(store, CELL)).to_bytes())


def test_an_untouched_sweep_agrees(sweep_copy: Store) -> None:
    result = check(sweep_copy)
    assert result.exit_code == 0, result.output
    assert "4 of 4 completed: every test loss, file and number agrees" in result.output


def test_verifying_changes_nothing(sweep_copy: Store) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sweep_copy.root.rglob("*") if path.is_file()}

    before = files()
    check(sweep_copy)
    assert files() == before


@pytest.mark.parametrize("factor", [0.5, 1 + 1e-6], ids=["gross", "in the seventh digit"])
def test_a_planted_loss_is_found(sweep_copy: Store, factor: float) -> None:
    change(sweep_copy, lambda record: replace(record, test_loss=(record.test_loss or 0) * factor))
    result = check(sweep_copy)
    assert result.exit_code == 1
    assert CELL.key in result.output
    assert "its weights give" in result.output


@pytest.mark.parametrize(("factor", "is_sound"), [(1 + 2**-23, True), (1.0001, False)])
def test_a_processor_of_the_same_name_may_round_otherwise(sweep_copy: Store, factor: float, is_sound: bool) -> None:
    arrays = unpack(sweep_copy.read(FILES.test))
    arrays["loss"] = arrays["loss"] * np.float32(factor)
    content = io.BytesIO()
    np.savez(content, **arrays)
    sweep_copy.write(FILES.test, content.getvalue())
    loss = float(arrays["loss"].mean(dtype=np.float64))

    def made_by(record: Record, instructions: str) -> Record:
        return replace(
            record,
            test_loss=loss,
            test_psnr_db=psnr_db(loss),
            environment={**record.environment, "instructions": instructions},
            digests={**record.digests, "test.npz": digest(content.getvalue())},
        )

    own = str(read_record(sweep_copy, CELL).environment["instructions"])
    change(sweep_copy, lambda record: made_by(record, "others"))
    assert (check(sweep_copy).exit_code == 0) is is_sound
    change(sweep_copy, lambda record: made_by(record, own))
    assert check(sweep_copy).exit_code == 1, "of the same one every bit counts"


def test_a_planted_loss_with_psnr_is_found_on_another_machine_too(sweep_copy: Store) -> None:
    def plant(record: Record) -> Record:
        return replace(record, test_loss=(record.test_loss or 0) * 0.99, environment={"torch": "1.0", "device": "x"})

    change(sweep_copy, plant)
    assert "its weights give" in check(sweep_copy).output


@pytest.mark.usefixtures("one_thread")
def test_swapped_weights_are_found(tmp_path: Path) -> None:
    """Two seeds of one architecture, so that the shapes fit; digests are computed again."""
    store = Store(tmp_path / "mnist-5k")
    grid = Grid.product((1,), (5,), (0, 1))
    make_undisturbed(store, grid, SMALL)
    weights = [store.read(CellFiles(cell.key).weights) for cell in grid.cells]
    for cell, swapped in zip(grid.cells, reversed(weights), strict=True):
        record = read_record(store, cell)
        record = replace(record, digests={**record.digests, "model.safetensors": digest(swapped)})
        store.write(CellFiles(cell.key).weights, swapped)
        store.write(CellFiles(cell.key).record, record.to_bytes())
    result = check(store)
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.output.splitlines() if "record says test loss" in line] == [
        cell.key for cell in grid.cells
    ]


def test_weights_of_another_architecture_are_found(sweep_copy: Store) -> None:
    theirs = sweep_copy.read(CellFiles(OTHER.key).weights)
    sweep_copy.write(FILES.weights, theirs)
    assert "does not match its digest" in check(sweep_copy).output
    change(sweep_copy, lambda record: replace(record, digests={**record.digests, "model.safetensors": digest(theirs)}))
    result = check(sweep_copy)
    assert result.exit_code == 1
    assert f"its weights do not fit {CELL.architecture}" in result.output


def test_a_changed_dataset_is_found(sweep_copy: Store) -> None:
    dataset = data.load("mnist-5k", Path("nowhere"), SMALL.train_fraction)
    test = dataset.test.copy()
    test[3, 10, 10] ^= 255
    disagreements = verify(gather(sweep_copy), replace(dataset, test=test, fingerprint="0" * 64))
    where = {disagreement.where for disagreement in disagreements}
    assert {"sweep.json", *(cell.key for cell in SMALL_GRID.cells)} <= where
    assert any("other data" in disagreement.what for disagreement in disagreements)
    assert any("its weights give" in disagreement.what for disagreement in disagreements)


def test_what_is_missing_and_what_is_too_much_are_found(sweep_copy: Store) -> None:
    sweep_copy.delete(FILES.record)
    sweep_copy.write("cells/DAE_9_9-s0/record.json", b"{}")
    sweep_copy.write("notes.txt", b"mine")
    sweep_copy.write(f"cells/{OTHER.key}/old.pt", b"")
    sweep_copy.write("report/index.html", b"")
    result = check(sweep_copy)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert any(line.startswith(CELL.key) and "is missing" in line for line in lines)
    orphans = [line.split()[0] for line in lines if "is no file of this sweep" in line]
    assert sorted(orphans) == sorted(["cells/DAE_9_9-s0", f"cells/{OTHER.key}/old.pt", "notes.txt"])
    assert lines[-1].startswith("3 disagreements in "), "what is still to be trained is none"


def test_a_diverged_cell_disagrees_with_nothing(sweep_copy: Store) -> None:
    change(sweep_copy, lambda record: replace(record, status=Status.DIVERGED, test_loss=None, error="loss is nan"))
    result = check(sweep_copy)
    assert result.exit_code == 0, result.output
    assert "3 of 4 completed, 1 diverged" in result.output


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda record: replace(record, parameters=1), "parameters"),
        (lambda record: replace(record, collapsed=not record.collapsed), "marked collapsed"),
        (lambda record: replace(record, history=record.history[:-1]), "2 epochs, not 3"),
        (lambda record: replace(record, config={**record.config, "alpha": 0.1}), "made with alpha 0.1"),
        (lambda record: replace(record, dataset={"name": "mnist-5k", "fingerprint": "0"}), "other data"),
        (lambda record: replace(record, test_psnr_db=99.0), "PSNR of 99.0"),
    ],
    ids=["parameters", "flag", "history", "config", "fingerprint", "psnr"],
)
def test_a_record_that_contradicts_itself_is_found(
    sweep_copy: Store, edit: Callable[[Record], Record], words: str
) -> None:
    change(sweep_copy, edit)
    result = check(sweep_copy)
    assert result.exit_code == 1
    assert words in result.output


def test_no_sweep_is_a_matter_for_the_user(tmp_path: Path) -> None:
    result = check(Store(tmp_path / "none" / "mnist-5k"))
    assert result.exit_code == 2
    assert "there is no sweep in" in result.output
