"""`from sweep import load`: a sweep in Python and notebooks."""

import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import add_evaluation, make_sweep

import sweep
from dae.errors import UserError
from sweep.analysis.tidy import CELL_COLUMNS, EPOCH_COLUMNS
from sweep.records.grid import Grid
from sweep.records.record import Status

GRID = Grid.product((1, 3), (13, 5), (0, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storage") / "study"
    add_evaluation(make_sweep(folder, GRID, statuses={"DAE_1_5-s1": Status.FAILED}))
    return folder


def test_cells_and_epochs_are_tidy(folder: Path) -> None:
    loaded = sweep.load(str(folder))
    cells, epochs = loaded.cells, loaded.epochs
    assert list(cells.columns[: len(CELL_COLUMNS)]) == list(CELL_COLUMNS)
    assert list(epochs.columns) == list(EPOCH_COLUMNS)
    assert list(cells.key) == [cell.key for cell in GRID.cells]
    assert len(epochs) == 7 * 15 + 6
    by_key = cells.set_index("key")
    assert by_key.test_loss["DAE_1_13-s0"] == 0.01532
    assert by_key.status["DAE_1_5-s1"] == "failed"
    assert by_key.loc["DAE_1_5-s1", ["test_loss", "accuracy", "ssim"]].isna().all()
    assert by_key.accuracy.dropna().between(0.8, 1).all()
    last = epochs.groupby("key").epoch.max()
    assert last["DAE_3_13-s0"] == 15


def test_a_name_and_a_storage_are_the_same_as_a_folder(folder: Path) -> None:
    loaded = sweep.load(folder.name, storage=str(folder.parent))
    assert loaded.cells.equals(sweep.load(str(folder)).cells)
    assert repr(loaded) == "<sweep study: 7 of 8 cells completed>"


def test_a_figure_is_one_that_a_notebook_shows(folder: Path) -> None:
    from sweep.report import figures

    loaded = sweep.load(str(folder))
    figure = loaded.figure("test_loss")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert figure.axes[0].get_ylabel() == figures.loss_bars(loaded).axes[0].get_ylabel() == "test MSE per pixel"


def test_a_figure_that_cannot_be_drawn_says_what_to_run(folder: Path) -> None:
    loaded = sweep.load(str(folder))
    with pytest.raises(UserError, match=r"depth cannot be drawn: .*--depths 1\.\.9"):
        loaded.figure("depth")
    with pytest.raises(UserError, match=r"no figure 'loss'. Figures: test_loss, effects"):
        loaded.figure("loss")


@pytest.mark.parametrize(
    ("statuses", "message"),
    [(None, "there is no sweep in"), (Status.MISSING, "sweep study has no completed cell: dae-sweep run")],
    ids=["no sweep", "nothing completed"],
)
def test_what_cannot_be_loaded_is_said(statuses: Status | None, message: str, tmp_path: Path) -> None:
    if statuses is not None:
        make_sweep(tmp_path / "study", GRID, statuses=dict.fromkeys((cell.key for cell in GRID.cells), statuses))
    with pytest.raises(UserError, match=message):
        sweep.load(str(tmp_path / "study"))


def test_importing_load_loads_nothing_heavy() -> None:
    program = "from sweep import load; import sys; print({'pandas', 'numpy', 'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_example_in_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (example,) = [block for block in readme.split("```python\n")[1:] if "from sweep import load" in block]
    make_sweep(tmp_path / "sweeps" / "mnist-5k", GRID)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example.split("```")[0], names)
    assert "study" in names
