"""`dae-sweep remove` and `report --output`: what they change, and what they leave as it was."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import SMALL, InProcess, request_for
from synthetic import STUDY_GRID, make_sweep

from dae.data import Dataset
from dae.errors import UserError
from sweep.cli import main
from sweep.driver.declaration import declare
from sweep.records.grid import Grid
from sweep.records.sweep import MANIFEST, Manifest, gather
from sweep.storage.store import Store

KEYS = ("DAE_1_5-s0", "DAE_3_8-s0")


@pytest.fixture
def study(tmp_path: Path, own_signals: None, clean_environment: Path) -> Store:
    return make_sweep(tmp_path / "sweeps" / "study")


def ask(*words: str, store: Store) -> Result:
    return CliRunner().invoke(main, [words[0], "--storage", str(store.root.parent), *words[1:]])


def contents(store: Store) -> dict[str, bytes]:
    names = [name for name in store.names() if not name.endswith(("/", ".lock"))]
    return store.read_all(names)


def page(store: Store) -> str:
    assert ask("report", "--name", "study", store=store).exit_code == 0
    return store.read("report/index.html").decode()


def test_removed_cells_are_out_of_the_sweep_and_the_report_says_so(study: Store) -> None:
    before, files = page(study), contents(study)
    done = ask("remove", "study", *KEYS, store=study)
    assert done.exit_code == 0, done.output
    assert "study: 7 cells, 2 removed (DAE_1_5-s0, DAE_3_8-s0)" in done.output
    sweep = gather(study)
    assert not {cell.key for cell in sweep.manifest.grid.cells} & set(KEYS)
    assert sweep.tally == "7 of 7 completed, 2 removed"
    for key in KEYS:
        assert not study.path(f"cells/{key}").exists()
        assert study.read(f"removed/{key}/record.json") == files[f"cells/{key}/record.json"]
    after = page(study)
    said = "2 cells of this sweep were removed: DAE_1_5-s0, DAE_3_8-s0."
    assert after.count(said) == 2, "at the top and beside the verdicts"
    assert said not in before
    assert "DAE_1_5-s0" not in study.read("report/results.csv").decode()
    assert ask("remove", "study", *KEYS, store=study).exit_code == 0, "once more changes nothing"

    assert ask("remove", "study", "--restore", store=study).exit_code == 0
    assert page(study) == before
    assert contents(study) == files
    assert not study.path("removed").exists() or not list(study.path("removed").iterdir())


def test_one_removed_cell_is_taken_back(study: Store) -> None:
    ask("remove", "study", *KEYS, store=study)
    done = ask("remove", "study", KEYS[0], "--restore", store=study)
    assert "study: 8 cells, 1 removed (DAE_3_8-s0)" in done.output
    assert gather(study).manifest.removed == (KEYS[1],)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("study",), r"which cells\? dae-sweep status lists"),
        (("study", "DAE_9_9-s0"), r"DAE_9_9-s0 cannot be taken from study: there are DAE_1_13-s0, "),
        (("study", "--restore", "DAE_1_5-s0"), r"DAE_1_5-s0 cannot be taken from study: there are none"),
        (("study", *(cell.key for cell in STUDY_GRID.cells)), r"study would have no cell left: delete the folder"),
        (("nope", "DAE_1_5-s0"), "there is no sweep in"),
    ],
    ids=["none", "unknown", "not-removed", "all", "no-sweep"],
)
def test_what_cannot_be_removed_is_refused_and_nothing_changes(
    study: Store, words: tuple[str, ...], message: str
) -> None:
    before = contents(study)
    refusal = ask("remove", *words, store=study)
    assert refusal.exit_code == 2
    assert re.search(message, refusal.output)
    assert contents(study) == before


def test_nothing_is_removed_while_a_run_holds_the_sweep(study: Store) -> None:
    before = contents(study)
    with study.lock():
        refusal = ask("remove", "study", KEYS[0], store=study)
    assert refusal.exit_code == 2
    assert "is already at the sweep" in refusal.output
    assert contents(study) == before


def test_a_removed_cell_is_not_trained_as_if_it_were_new(in_process: InProcess, tmp_path: Path, tiny: object) -> None:
    store = Store(tmp_path / "small")
    grid = Grid.product((1,), (5, 8), (0,))
    declare(request_for(store, grid, SMALL), tiny, print)  # type: ignore[arg-type]
    store.write("cells/DAE_1_8-s0/log.txt", b"begun")
    assert ask("remove", "small", "DAE_1_8-s0", store=store).exit_code == 0
    store.write("cells/DAE_1_8-s0/log.txt", b"what a kill amid the removal leaves")
    with pytest.raises(UserError, match=r"^DAE_1_8-s0 was removed .*: dae-sweep remove small DAE_1_8-s0 --restore"):
        declare(request_for(store, grid, SMALL), tiny, print)  # type: ignore[arg-type]
    left = Grid.product((1,), (5,), (0,))
    assert declare(request_for(store, left, SMALL), tiny, print).manifest.grid == left  # type: ignore[arg-type]
    store.delete(MANIFEST)
    anew = declare(request_for(store, left, SMALL), tiny, print).manifest  # type: ignore[arg-type]
    assert (anew.grid, anew.removed) == (left, ("DAE_1_8-s0",)), "the folder tells what the lost manifest knew"


def test_a_manifest_without_removed_cells_is_as_it_was(study: Store) -> None:
    content = study.read(MANIFEST)
    assert b"removed" not in content
    assert Manifest.from_bytes(content).removed == ()
    assert Manifest.from_bytes(content).to_bytes() == content


def test_a_report_may_be_written_outside_the_sweep(study: Store, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [study.root, *study.root.rglob("*")]}
    elsewhere = tmp_path / "else" / "where"
    done = ask("report", "--name", "study", "--output", str(elsewhere), store=study)
    assert done.exit_code == 0, done.output
    assert f"Report: {elsewhere / 'index.html'}" in done.output
    assert {path: path.stat().st_mtime_ns for path in [study.root, *study.root.rglob("*")]} == before
    outside = Store(elsewhere)
    page(study)
    assert contents(outside) == contents(study.below("report"))


def test_a_report_that_cannot_be_written_names_the_option(study: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    done = ask("report", "--name", "study", store=study)
    assert done.exit_code == 2
    assert "Give a folder that can be written: dae-sweep report --output DIR." in done.output


@pytest.mark.parametrize("kind", ["a file", "no place"])
def test_an_output_that_is_no_folder_is_a_slip_of_the_command(study: Store, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "file" if kind == "a file" else Path("/proc/nowhere")
    (tmp_path / "file").write_text("no folder")
    done = ask("report", "--name", "study", "--output", str(output), store=study)
    assert done.exit_code == 2
    assert f"--output {output}: cannot write" in done.output
    assert "Give a folder that can be made and written." in done.output


def test_plan_refuses_removed_cells_as_run_does_and_says_the_way_back(study: Store) -> None:
    ask("remove", "study", *KEYS, store=study)
    said = ask("plan", "--name", "study", "--depths", "1", "--latents", "5", store=study)
    assert said.exit_code == 2, said.output
    assert f"dae-sweep remove study DAE_1_5-s0 --restore --storage {study.root.parent}" in said.output
    assert ask("plan", "--name", "study", store=study).exit_code == 0


def test_a_folder_that_is_no_cells_is_not_declared(study: Store, tiny: Dataset) -> None:
    study.write("cells/DAE_7_9-s0/record.json", b"{}")
    grid = gather(study).manifest.grid
    settings, fingerprint = gather(study).manifest.settings, gather(study).manifest.dataset["fingerprint"]
    sweep = declare(request_for(study, grid, settings), replace(tiny, fingerprint=fingerprint), print)
    assert sweep.manifest.grid == grid
    assert not sweep.damaged


def test_best_names_the_damage_that_it_leaves_out(study: Store) -> None:
    first = ask("best", "study", store=study)
    winner = first.output.split()[0]
    study.write(f"cells/{winner}/model.safetensors", b"other")
    study.write("cells/DAE_1_5-s0/record.json", b"other")
    said = ask("best", "study", store=study).output
    assert f"cells/{winner}/model.safetensors does not match its digest; dae-sweep run trains the cell again" in said
    assert "DAE_1_5-s0 is left out, damaged: record.json: " in said


def test_cells_without_a_manifest_are_not_called_nothing(study: Store) -> None:
    study.delete(MANIFEST)
    for words in (("best", "study"), ("verify", "--name", "study"), ("status",)):
        said = ask(*words, store=study)
        assert said.exit_code == 2
        assert f"{study.uri(MANIFEST)} is not there, though cells are: dae-sweep run writes it anew." in said.output
