"""Axes beside architecture and seed: laws of keys and grids, facets, older records, and the commands that take them."""

import json
import re
import shlex
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import SMALL, InProcess
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_sweep

from dae import data
from dae.architecture import parameter_count
from dae.config import NOISES, ModelConfig
from dae.errors import UserError
from sweep.analysis.arrays import load_arrays
from sweep.analysis.results import results
from sweep.cli import main
from sweep.cli.parsing import grid_of
from sweep.cli.run import run
from sweep.cli.settings import settings_of
from sweep.records.agreement import check_settings, check_sweep
from sweep.records.axes import AXES, Axes, axis_value, value_text
from sweep.records.facets import facets
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.matching import MATCHED, arm, nearest_width
from sweep.records.record import CellFiles, Record, Status, read_record, read_verified
from sweep.records.sweep import MANIFEST, SAMPLES, Manifest, gather, samples_file
from sweep.report import words
from sweep.storage.sealing import dump_json
from sweep.storage.store import Store

GOLDEN = Path(__file__).parents[1] / "golden"

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "alpha": st.floats(0, 1, allow_subnormal=False).map(abs),
    "batch_size": st.integers(1, 10**6),
    "lr": st.floats(0, 1e300, exclude_min=True, allow_subnormal=False),
    "noise": st.sampled_from(NOISES),
    "width": st.integers(1, 10**4),
}
points = st.fixed_dictionaries({}, optional=VALUES).map(lambda chosen: tuple(sorted(chosen.items())))
cells = st.builds(Cell, depth=st.integers(1, 12), latent=st.integers(1, 28), seed=st.integers(0, 2**40), axes=points)


# ---- keys


@pytest.mark.parametrize(
    ("axes", "key"),
    [
        ((("alpha", 0.25),), "DAE_5_13-alpha0.25-s2"),
        ((("width", 11),), "DAE_5_13-width11-s2"),
        ((("lr", 1e-05),), "DAE_5_13-lr1e-5-s2"),
        ((("alpha", 1.0), ("batch_size", 64)), "DAE_5_13-alpha1-batch_size64-s2"),
        ((("width", 8), ("noise", "salt-and-pepper")), "DAE_5_13-noisesalt-and-pepper-width8-s2"),
    ],
)
def test_keys_by_hand(axes: Axes, key: str) -> None:
    cell = Cell(depth=5, latent=13, seed=2, axes=axes)
    assert (cell.key, cell.architecture) == (key, "DAE_5_13")
    assert Cell.from_key(key) == cell


@given(cells)
def test_a_key_gives_its_cell_back_and_is_a_plain_file_name(cell: Cell) -> None:
    found = Cell.from_key(cell.key)
    assert found == cell
    assert [type(value) for _, value in found.axes] == [type(value) for _, value in cell.axes]
    assert set(cell.key) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
    assert Cell.from_key(json.loads(json.dumps(cell.key))) == cell


@given(cells, cells)
def test_different_cells_have_different_keys(one: Cell, other: Cell) -> None:
    assert (one == other) == (one.key == other.key)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_as_short_as_its_digits_allow_and_parses_back(value: float) -> None:
    text = value_text(value)
    assert float(text) == value
    assert len(text) <= len(repr(value))


@pytest.mark.parametrize(
    "key",
    [
        "DAE_5_13-alpha0.250-s0", "DAE_5_13-alpha-s0", "DAE_5_13-alpha0.5", "DAE_5_13-s0-alpha0.5",
        "DAE_5_13-width8-alpha0.5-s0", "DAE_5_13-lr1e-05-s0", "DAE_5_13-noisepink-s0", "DAE_5_13-epochs3-s0",
        "DAE_5_13-width8.5-s0", "DAE_05_13-s0", "DAE_5_13-alpha1.0-s0", "DAE_5_13-alpha0.5-alpha0.5-s0",
    ],
)  # fmt: skip
def test_another_spelling_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="is not a cell key"):
        Cell.from_key(key)


# ---- settings at a cell


@given(cells)
def test_what_is_trained_and_recorded_has_the_values_of_the_axes(cell: Cell) -> None:
    settings = Settings()
    config, model, training = settings.config(cell), settings.model(cell), settings.training(cell)
    for name in AXES:
        due = dict(cell.axes).get(name, getattr(settings, name))
        assert config[name] == due
        assert getattr(model if name in ("width", "latent_channels") else training, name) == due
    assert (config["depth"], config["latent"], config["seed"]) == (cell.depth, cell.latent, cell.seed)
    assert set(config) == {"depth", "latent", "seed", *Settings.__slots__}


@given(cells)
def test_the_plain_cell_trains_the_same(cell: Cell) -> None:
    settings = Settings()
    plain = settings.plain(cell)
    assert settings.plain(plain) == plain
    assert settings.training(plain) == settings.training(cell)
    assert parameter_count(settings.model(plain)) == parameter_count(settings.model(cell))
    for name, value in plain.axes:
        assert value != getattr(settings, name)


def test_a_value_that_the_sweep_has_anyway_adds_nothing() -> None:
    grid = Grid.product((1, 3), (5,), (0,), {"alpha": (0.25, 0.5), "width": (8, 16)})
    keys = [cell.key for cell in Grid.of(map(Settings().plain, grid.cells)).cells]
    assert keys == [
        "DAE_1_5-s0", "DAE_1_5-alpha0.25-s0",  # depth 1 has no width
        "DAE_3_5-s0", "DAE_3_5-alpha0.25-s0", "DAE_3_5-alpha0.25-width8-s0", "DAE_3_5-width8-s0",
    ]  # fmt: skip


# ---- grids


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    st.fixed_dictionaries(
        {}, optional={name: st.lists(values, min_size=1, max_size=3, unique=True) for name, values in VALUES.items()}
    ),
)
def test_axes_are_crossed_with_the_grid(depths: list[int], seeds: list[int], axes: dict[str, list[Any]]) -> None:
    grid = Grid.product(depths, (5,), seeds, axes)
    count = len(depths) * len(seeds)
    for values in axes.values():
        count *= len(values)
    assert len(grid.cells) == len({cell.key for cell in grid.cells}) == count
    assert {name: set(values) for name, values in grid.axes.items()} == {n: set(v) for n, v in axes.items()}
    assert grid == Grid.of(reversed(grid.cells)) == grid.union(grid)


def test_the_order_is_depth_latent_axes_seed() -> None:
    grid = Grid.product((3, 1), (5, 8), (1, 0), {"alpha": (0.75, 0.25)})
    assert [cell.key for cell in grid.cells][:5] == [
        "DAE_1_8-alpha0.25-s0", "DAE_1_8-alpha0.25-s1", "DAE_1_8-alpha0.75-s0", "DAE_1_8-alpha0.75-s1",
        "DAE_1_5-alpha0.25-s0",
    ]  # fmt: skip
    plain = Grid.product((1,), (8,), (0,))
    assert grid.union(plain).cells[0] == plain.cells[0]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("alpha", "1", 1.0),
        ("lr", "1e-3", 0.001),
        ("batch_size", "64", 64),
        ("noise", "blur", "blur"),
        ("alpha", "-0", 0),
    ],
)
def test_values_are_read_by_their_type(name: str, text: str, value: object) -> None:
    found = axis_value(name, text)
    assert found == value
    assert not str(found).startswith("-")


# ---- facets


def crossed(axes: dict[str, Sequence[Any]]) -> Grid:
    return Grid.of(map(Settings().plain, Grid.product((1, 3), (13, 5), (0, 1), axes).cells))


def test_facets_part_the_sweep_and_the_plain_one_comes_first(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path, crossed({"alpha": (0.25, 0.5), "lr": (0.001, 0.01)})))
    found = facets(sweep)
    assert [point for point, _ in found] == [
        (), (("alpha", 0.25),), (("alpha", 0.25), ("lr", 0.01)), (("lr", 0.01),)
    ]  # fmt: skip
    keys = [cell.key for _, part in found for cell in part.manifest.grid.cells]
    assert sorted(keys) == sorted(cell.key for cell in sweep.manifest.grid.cells)
    for point, part in found:
        own = part.manifest.settings
        assert own == replace(sweep.manifest.settings, **dict(point))
        assert set(part.records) == {cell.key for cell in part.manifest.grid.cells}
        for record in part.records.values():
            assert record.config == own.config(record.cell)
        assert [result.name for result in results(part)] == ["DAE_1_13", "DAE_1_5", "DAE_3_13", "DAE_3_5"]
        assert all(len(result.records) == 2 for result in results(part))


def test_a_sweep_without_axes_is_its_one_facet(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path))
    [(point, only)] = facets(sweep)
    assert point == ()
    assert (only.manifest, only.records) == (sweep.manifest, sweep.records)


def test_depth_1_belongs_to_every_width(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path, crossed({"width": (8, 16, 24)})))
    for _, part in facets(sweep):
        assert part.manifest.grid.depths == (1, 3)
        assert len(part.manifest.grid.cells) == 8


def test_facets_leave_out_what_is_damaged_elsewhere(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, crossed({"alpha": (0.25, 0.5)}))
    store.write(CellFiles("DAE_3_5-alpha0.25-s1").record, b"{}")
    (_, plain), (_, other) = facets(gather(store))
    assert (len(plain.damaged), list(other.damaged)) == (0, ["DAE_3_5-alpha0.25-s1"])


# ---- equal parameters

deep = st.builds(ModelConfig, depth=st.integers(2, 12), latent=st.integers(1, 28), latent_channels=st.integers(1, 8))


@given(deep, st.integers(1, 10**7))
def test_no_neighbouring_width_is_nearer(model: ModelConfig, target: int) -> None:
    width = nearest_width(model, target)

    def miss(width: int) -> int:
        return abs(parameter_count(replace(model, width=width)) - target)

    assert miss(width) <= miss(width + 1)
    assert width == 1 or miss(width) < miss(width - 1)


@given(deep, st.integers(1, 200))
def test_a_model_is_matched_by_its_own_width(model: ModelConfig, width: int) -> None:
    assert nearest_width(model, parameter_count(replace(model, width=width))) == width


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=5, unique=True).filter(lambda depths: sorted(depths)[-2] > 1),
    st.integers(1, 64),
    st.sampled_from([{}, {"alpha": (0.25, 0.5)}]),
)
def test_the_arm_has_the_references_parameters_at_every_depth(
    depths: list[int], width: int, axes: dict[str, Sequence[Any]]
) -> None:
    settings = Settings(width=width)
    grid = Grid.of(map(settings.plain, Grid.product(depths, (13, 5), (0, 1), axes).cells))
    found = arm(grid, settings)
    reference = min(depth for depth in depths if depth > 1)
    assert len(found.cells) == sum(cell.depth > 1 for cell in grid.cells)
    for cell in found.cells:
        if cell.depth == reference:
            assert "width" not in dict(cell.axes)  # it keeps the sweep's
        assert cell in [settings.plain(cell)]
        target = parameter_count(ModelConfig(depth=reference, latent=cell.latent, width=width))
        solved = nearest_width(ModelConfig(depth=cell.depth, latent=cell.latent), target)
        assert settings.at(cell).width == solved


def test_the_arm_is_the_last_facet(tmp_path: Path) -> None:
    plain = Grid.product((1, 2, 3, 5), (13, 5), (0,))
    grid = plain.union(arm(plain, Settings()))
    (own, first), (point, last) = facets(gather(make_sweep(tmp_path, grid)))
    assert (own, point) == ((), MATCHED)
    assert first.manifest.grid == plain
    assert [cell.key for cell in last.manifest.grid.cells] == [
        "DAE_2_13-s0", "DAE_2_5-s0", "DAE_3_13-width9-s0", "DAE_3_5-width9-s0", "DAE_5_13-width6-s0",
        "DAE_5_5-width6-s0",
    ]  # fmt: skip
    assert [result.parameters for result in results(last)] == [3749, 3749, 3587, 3587, 3389, 3389]


@pytest.mark.parametrize(
    ("depths", "axes", "message"),
    [
        ((1, 3), {}, r"--depths 1,3 has 1 of at least 2, and depth 1 has no width.*--depths 3,5"),
        ((1,), {}, "has 0 of at least 2"),
        ((3, 5), {"width": (8,)}, "leave out --axis width"),
    ],
)
def test_what_cannot_be_matched_is_refused(depths: Sequence[int], axes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        arm(Grid.product(depths, (5,), (0,), axes), Settings())


# ---- records


def test_a_record_says_where_it_is_off_its_sweep() -> None:
    cell = Cell(depth=3, latent=5, seed=1, axes=(("alpha", 1.0), ("noise", "blur"), ("width", 8)))
    record = Record.new(cell, Settings(), {"name": "mnist", "fingerprint": "f"})
    found = Record.from_bytes(record.to_bytes())
    assert found == record
    assert (found.cell, found.key) == (cell, cell.key)
    assert (found.config["alpha"], found.config["noise"], found.config["width"]) == (1.0, "blur", 8)
    assert found.parameters == parameter_count(ModelConfig(depth=3, latent=5, width=8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, r"^DAE_3_5-alpha0.25-s0 was made with epochs 15, this command asks for 3\..*--epochs 15 to go"),
        ({"lr": 0.01}, r"lr 0.001, .* 0.01\..* --lr 0.001 to go on with this one, and --axis lr=0.01 for new cells"),
        ({"noise": "blur"}, r"noise gaussian, .* blur\..*--noise gaussian .*--axis noise=blur"),
        ({"alpha": 0.75}, r"^sweep s was begun with alpha 0.5, this command asks for 0.75.*--axis alpha=0.75"),
        ({"alpha": 0.25}, r"^sweep s was begun with alpha 0.5, this command asks for 0.25"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_field_and_way_out(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    grid = Grid.product((3,), (5,), (0,), {"alpha": (0.25,)})
    sweep = gather(make_sweep(tmp_path, grid, name="s"))
    with pytest.raises(UserError, match=message):
        check_sweep(sweep.completed, replace(Settings(), **changes), sweep.manifest)


def test_a_lost_manifest_does_not_make_an_axis_the_sweeps_own(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path, Grid.product((3,), (5,), (0,), {"alpha": (0.25,)})))
    check_sweep(sweep.completed, Settings(), None)
    with pytest.raises(UserError, match=r"alpha0.25-s0 was made in a sweep whose alpha was not the 0.25.*--alpha"):
        check_sweep(sweep.completed, Settings(alpha=0.25), None)


# ---- sweeps of version 0.1.0


@pytest.fixture
def older(tmp_path: Path) -> Store:
    """One completed and one interrupted cell, as version 0.1.0 left them, before there were axes and kinds of noise."""
    with tarfile.open(GOLDEN / "sweep-0.1.0.tar.gz") as archive:
        archive.extractall(tmp_path / "sweeps", filter="data")
    return Store(tmp_path / "sweeps" / "mnist-5k")


OLDER = Settings(dataset="mnist-5k", train_fraction=0.1, epochs=2, batch_size=32, initialisation="he")


def test_an_older_record_was_gaussian(older: Store) -> None:
    assert b"noise" not in older.read(CellFiles("DAE_1_5-s0").record) + older.read(MANIFEST)
    sweep = gather(older)
    assert not sweep.damaged
    assert sweep.manifest.settings == OLDER
    for record in sweep.records.values():
        assert (record.config["noise"], record.cell.axes) == ("gaussian", ())
        check_settings(record, OLDER)
        with pytest.raises(UserError, match=r"with noise gaussian, this command asks for blur.*--noise gaussian"):
            check_settings(record, replace(OLDER, noise="blur"))


# ---- the commands


@pytest.fixture
def folder(tmp_path: Path, clean_environment: Path, own_signals: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="dae-sweep")


def go(command: str, *words: object) -> Result:
    given = ["--dataset", "mnist-5k", "--train-fraction", "0.1", "--epochs", "2", "--depths", "1", "--latents", "5"]
    ours = ["--gpus", "0", "--cpus", "1", "--wandb", "disabled", "--no-report"] if command == "run" else []
    return ask(command, *given, *ours, *words)


@pytest.mark.usefixtures("folder")
def test_an_older_sweep_goes_on_and_nothing_is_trained_twice(older: Store, in_process: InProcess) -> None:
    before = older.read(CellFiles("DAE_1_5-s0").record)
    result = go("run", "--seeds", "0,1", "--axis", "noise=gaussian,blur")
    assert result.exit_code == 0, result.output
    assert in_process.rounds == [["DAE_1_5-s1", "DAE_1_5-noiseblur-s0", "DAE_1_5-noiseblur-s1"]]
    assert older.read(CellFiles("DAE_1_5-s0").record) == before
    continued = read_record(older, Cell(depth=1, latent=5, seed=1))
    assert "continues" not in older.read(CellFiles("DAE_1_5-s1").log).decode()
    assert "begins after epoch 1" in older.read(CellFiles("DAE_1_5-s1").log).decode()
    assert continued.history[0].train_loss == pytest.approx(0.095765, abs=1e-6)  # as version 0.1.0 left it
    assert ask("verify", "--dataset", "mnist-5k").exit_code == 0


@pytest.mark.usefixtures("folder")
def test_axes_from_first_run_to_verify(tmp_path: Path, in_process: InProcess) -> None:
    store = Store(tmp_path / "sweeps" / "mnist-5k")
    assert go("run", "--axis", "alpha=0.25,0.5").exit_code == 0
    assert in_process.rounds == [["DAE_1_5-s0", "DAE_1_5-alpha0.25-s0"]]
    weak, strong = (read_record(store, cell) for cell in gather(store).manifest.grid.cells[::-1])
    assert (weak.config["alpha"], strong.config["alpha"]) == (0.25, 0.5)
    assert (weak.test_loss or 1) < (strong.test_loss or 0)

    # The other value is trained, those that are there are not; a killed epoch is not repeated.
    seen: list[str] = []

    def stop_after_one_epoch(key: str) -> None:
        seen.append(key)
        if len(seen) == 2:
            raise KeyboardInterrupt

    in_process.before = stop_after_one_epoch
    go("run", "--axis", "alpha=0.25,0.5,0.75")
    assert seen == ["DAE_1_5-alpha0.75-s0"] * 2
    in_process.before = lambda _key: None
    extended = go("run", "--axis", "alpha=0.25,0.5,0.75", "--axis", "batch_size=16,32")
    assert extended.exit_code == 0, extended.output
    assert in_process.rounds[-1][0] == "DAE_1_5-alpha0.25-batch_size16-s0"
    assert set(in_process.rounds[-1]) == {
        "DAE_1_5-alpha0.25-batch_size16-s0", "DAE_1_5-alpha0.75-batch_size16-s0", "DAE_1_5-alpha0.75-s0",
        "DAE_1_5-batch_size16-s0",
    }  # fmt: skip
    assert "begins after epoch 1" in store.read(CellFiles("DAE_1_5-alpha0.75-s0").log).decode()
    assert "test loss (MSE per pixel), alpha 0.25, batch size 16" in extended.stdout

    sweep = gather(store)
    assert len(sweep.completed) == 6
    assert sorted(sweep.manifest.digests) == ["samples-alpha0.25.npz", "samples-alpha0.75.npz", SAMPLES]
    noisy = {}
    for _, part in facets(sweep):
        arrays = load_arrays(part)
        assert not arrays.damaged
        assert arrays.samples is not None
        noisy[part.manifest.settings.alpha] = part.manifest.baselines["identity"]
    assert noisy[0.25] < noisy[0.5] < noisy[0.75]

    checked = ask("verify", "--dataset", "mnist-5k")
    assert checked.exit_code == 0, checked.output
    assert "6 of 6 completed" in checked.stdout
    again = go("run", "--axis", "alpha=0.75")
    assert again.exit_code == 0
    assert "to train" not in again.stdout

    planned = go("plan", "--axis", "alpha=0.5,1").stdout
    assert "alpha: 1, beside the sweep's 0.5" in planned
    assert "2 cells of mnist-5k: 1 completed, 0 to continue, 1 to train" in planned
    assert "DAE_1_5-alpha0.25-batch_size16-s0  completed" in ask("status").stdout


@pytest.mark.usefixtures("folder")
def test_verify_finds_what_is_wrong_under_another_noise(tmp_path: Path, in_process: InProcess) -> None:
    store = Store(tmp_path / "sweeps" / "mnist-5k")
    assert go("run", "--axis", "noise=salt-and-pepper").exit_code == 0
    name = samples_file((("noise", "salt-and-pepper"),))
    assert read_verified(store, name, gather(store).manifest.digests)
    key = "DAE_1_5-noisesalt-and-pepper-s0"
    document = json.loads(store.read(CellFiles(key).record))
    del document["sha256"]
    document["config"]["noise"] = "blur"
    store.write(CellFiles(key).record, dump_json(document))
    store.write(name, store.read(SAMPLES))
    checked = ask("verify", "--dataset", "mnist-5k")
    assert checked.exit_code == 1
    said = {" ".join(line.split()) for line in checked.stdout.splitlines()}
    assert f"{key} was made with noise blur, the sweep declares salt-and-pepper" in said
    assert f"{name} {name} does not match its digest" in said


BAD_AXES = [
    (
        ["--axis", "beta=1"],
        ["unknown axis 'beta'", "alpha, averaging, batch_size, latent_channels, lr, noise, warmup, width"],
    ),
    (["--axis", "alpha"], ["'alpha' has no values", "alpha=0.25,0.5,0.75"]),
    (["--axis", "alpha="], ["--axis alpha is empty", "--axis alpha=0.25,0.5,0.75"]),
    (["--axis", "alpha=low"], ["'low' is no value of the axis alpha", "a number"]),
    (["--axis", "batch-size=8.5"], ["'8.5' is no value of the axis batch_size", "a whole number"]),
    (["--axis", "noise=pink"], ["'pink' is no value", "gaussian, salt-and-pepper, blur"]),
    (["--axis", "alpha=0.25,-1"], ["alpha -1.0 is out of range", "at least 0"]),
    (["--axis", "lr=0"], ["lr 0.0 is out of range", "positive"]),
    (["--axis", "alpha=nan"], ["alpha nan is out of range"]),
    (["--axis", "width=0"], ["width 0 is out of range"]),
    (["--axis", "alpha=0.25,0.250"], ["--axis alpha repeats 0.25", "give each value once"]),
    (["--axis", "alpha=0.25", "--axis", "alpha=0.75"], ["--axis alpha is given twice", "--axis alpha=0.25,0.75"]),
    (
        ["--alpha", "0.3", "--axis", "alpha=0.25,0.75"],
        ["--alpha 0.3 is not among --axis alpha=0.25,0.75", "--axis alpha=0.3,0.25,0.75", "leave --alpha out"],
    ),
    (["--noise", "pink"], ["unknown noise 'pink'", "gaussian, salt-and-pepper, blur"]),
    (["--noise", "salt-and-pepper", "--alpha", "1.5"], ["alpha 1.5 is out of range", "share of pixels"]),
    (["--axis", "noise=gaussian,salt-and-pepper", "--axis", "alpha=1,2"], ["alpha 2.0 is out of range"]),
    (["--match-parameters"], ["nothing to match", "--depths 3,5"]),
    (["--depths", "2,3", "--match-parameters", "--axis", "width=8"], ["leave out --axis width"]),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("words", "phrases"), BAD_AXES, ids=[" ".join(words) for words, _ in BAD_AXES])
def test_axes_that_cannot_be(folder: Path, words: list[str], phrases: list[str]) -> None:
    for command in ("plan", "run"):
        result = go(command, *words)
        said = " ".join(result.stderr.split())
        assert result.exit_code == 2, result.output
        for phrase in phrases:
            assert phrase in said
    assert not (folder / "sweeps").exists()


@pytest.mark.usefixtures("folder")
def test_a_batch_of_an_axis_that_the_data_do_not_fill_is_refused(in_process: InProcess) -> None:
    result = go("run", "--axis", "batch_size=32,4096")
    assert result.exit_code == 2
    assert "batch size 4096 is larger than the 320 training images" in result.stderr
    assert in_process.rounds == []


@pytest.mark.usefixtures("folder")
def test_the_option_may_name_the_sweeps_own_value_beside_the_axis() -> None:
    planned = go("plan", "--alpha", "0.3", "--axis", "alpha=0.3,0.6").stdout
    assert "alpha: 0.6, beside the sweep's 0.3" in planned
    assert "2 cells" in planned


@pytest.mark.usefixtures("folder")
def test_plan_shows_the_parameters_that_the_arm_reaches() -> None:
    planned = ask("plan", "--depths", "1,3,5", "--latents", "13", "--match-parameters").stdout
    lines = {line.split()[0]: line for line in planned.splitlines() if re.match(r"DAE\S+ ", line) and ":" not in line}
    assert "8,389" in lines["DAE_3_13"]
    assert list(lines) == ["DAE_1_13", "DAE_3_13", "DAE_5_13", "DAE_5_13-width10"]
    assert f"{parameter_count(ModelConfig(depth=5, latent=13, width=10)):,}" in lines["DAE_5_13-width10"]
    assert "equal parameters: width solved to come nearest to depth 3 at width 16" in planned


def test_settings_of_an_undone_sweep_may_change_and_its_sample_digits_follow(tmp_path: Path) -> None:
    from conftest import SMALL_GRID, request_for

    from sweep.driver.declaration import declare

    store, digits = Store(tmp_path / "s"), data.load("mnist-5k", tmp_path, SMALL.train_fraction)
    grid = Grid.product((1,), (5,), (0,), {"alpha": (0.25,)})
    first = declare(replace(request_for(store, SMALL_GRID, SMALL), grid=grid), digits, warn=pytest.fail).manifest
    second = declare(request_for(store, SMALL_GRID, replace(SMALL, alpha=0.25)), digits, warn=pytest.fail).manifest
    assert second.digests[SAMPLES] == first.digests["samples-alpha0.25.npz"] != first.digests[SAMPLES]
    assert Cell(depth=1, latent=5, seed=0) in second.grid.cells
    assert not second.grid.axes


def test_the_status_of_a_cell_that_is_off_its_sweep(tmp_path: Path) -> None:
    grid = crossed({"alpha": (0.25, 0.5)})
    sweep = gather(make_sweep(tmp_path, grid, statuses={"DAE_3_5-alpha0.25-s1": Status.MISSING}))
    assert sweep.status(Cell(depth=3, latent=5, seed=1)) is Status.COMPLETED
    assert sweep.status(Cell(depth=3, latent=5, seed=1, axes=(("alpha", 0.25),))) is Status.MISSING


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--seeds", "0,1", "--depths", "1,3"),
        ("--axis", "alpha=0.25,0.5", "--axis", "noise=blur"),
        ("--axis", "batch_size=64", "--lr", "0.002"),
        ("--match-parameters", "--latents", "5,3"),
        ("--match-parameters", "--axis", "alpha=0.1,0.5"),
    ],
    ids=" ".join,
)
def test_the_command_that_a_page_recommends_asks_for_the_same_cells(options: tuple[str, ...]) -> None:
    def grid_and_settings(given: list[str], manifest: Manifest | None = None) -> tuple[Grid, Settings]:
        with run.make_context("run", given) as context:
            settings = settings_of(context.params, manifest)
            return grid_of(context.params, settings, manifest), settings

    grid, settings = grid_and_settings(["--dataset", "kmnist", *options])
    manifest = Manifest.new(name="kmnist", grid=grid, settings=settings, dataset={})
    program, name, *recommended = shlex.split(words.command(manifest))
    assert (program, name) == ("dae-sweep", "run")
    assert grid_and_settings(recommended, manifest) == (grid, settings)
    *_, last = shlex.split(words.command(manifest, "--seeds 0,1,2"))
    assert last == "0,1,2"
    seeded, _ = grid_and_settings(shlex.split(words.command(manifest, "--seeds 0,1,2"))[2:], manifest)
    assert seeded == Grid.of(replace(cell, seed=seed) for cell in grid.cells for seed in range(3))
