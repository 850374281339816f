import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dae.architecture import mac_count
from dae.config import ImageShape, Latent, Size
from dae.errors import UserError
from sweep.records.grid import STUDY_DEPTHS, STUDY_LATENTS, Cell, Grid, Settings, longest_first, written

cells = st.builds(Cell, depth=st.integers(1, 60), latent=st.integers(1, 28), seed=st.integers(0, 2**40))
grids = st.lists(cells, max_size=12).map(Grid.of)


def unique(low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=1, max_size=5, unique=True)


def test_names_by_hand() -> None:
    cell = Cell(depth=5, latent=13, seed=2)
    assert (cell.architecture, cell.key) == ("DAE_5_13", "DAE_5_13-s2")


@given(cells)
def test_a_key_gives_its_cell_back(cell: Cell) -> None:
    assert Cell.from_key(cell.key) == cell


@given(cells, cells)
def test_different_cells_have_different_keys(one: Cell, other: Cell) -> None:
    assert (one == other) == (one.key == other.key)


@pytest.mark.parametrize(
    "key",
    ["", "DAE_5_13", "DAE_5_13-s", "DAE_5_13-s0 ", "xDAE_5_13-s0", "DAE_-1_13-s0", "DAE_5_13-s0/..", "dae_5_13-s0"],
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is not a cell key"):
        Cell.from_key(key)


@given(unique(1, 40), unique(1, 28), unique(0, 99))
def test_a_product_has_every_combination_once(depths: list[int], latents: list[int], seeds: list[int]) -> None:
    grid = Grid.product(depths, latents, seeds)
    expected = {(depth, latent, seed) for depth in depths for latent in latents for seed in seeds}
    assert {(cell.depth, cell.latent, cell.seed) for cell in grid.cells} == expected
    assert len(grid.cells) == len(depths) * len(latents) * len(seeds)
    assert (set(grid.depths), set(grid.latents), set(grid.seeds)) == (set(depths), set(latents), set(seeds))
    assert len(grid.architectures) == len(depths) * len(latents)


def test_the_study_is_nine_cells_in_the_order_of_its_table() -> None:
    grid = Grid.product(STUDY_DEPTHS, STUDY_LATENTS, (0,))
    assert [cell.key for cell in grid.cells] == [
        f"DAE_{depth}_{latent}-s0" for depth in (1, 3, 5) for latent in (13, 8, 5)
    ]
    assert (grid.depths, grid.latents, grid.seeds) == ((1, 3, 5), (13, 8, 5), (0,))


@pytest.mark.parametrize("image", [ImageShape(13, 21), ImageShape(28, 28), ImageShape(40, 12)])
@given(st.data())
def test_latents_are_in_the_order_of_their_size(image: ImageShape, data: st.DataObject) -> None:
    number = st.integers(1, min(image.sides))
    pair = st.builds(Size, st.integers(1, image.height), st.integers(1, image.width))
    chosen = data.draw(st.lists(number | pair, min_size=1, max_size=6, unique_by=str))
    grid = Grid.product((3, 1), chosen, (0, 1), image=image)

    def area(latent: Latent) -> int:
        height, width = image.sides_of(latent)
        return height * width

    areas = [area(latent) for latent in grid.latents]
    assert areas == sorted(areas, reverse=True)
    assert list(dict.fromkeys(cell.latent for cell in grid.cells)) == list(grid.latents)
    assert Grid.product((1, 3), chosen[::-1], (1, 0), image=image).latents == grid.latents
    assert Grid.of(grid.cells, image).union(grid).cells == grid.cells


@given(st.lists(cells, max_size=12), st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(chosen: list[Cell], shuffler: random.Random) -> None:
    shuffled = [*chosen, *chosen]
    shuffler.shuffle(shuffled)
    assert Grid.of(shuffled) == Grid.of(chosen)
    assert len(Grid.of(shuffled).cells) == len(set(chosen))


@given(grids, grids, grids)
def test_union_is_that_of_sets(one: Grid, two: Grid, three: Grid) -> None:
    assert set(one.union(two).cells) == set(one.cells) | set(two.cells)
    assert one.union(two) == two.union(one)
    assert one.union(two).union(three) == one.union(two.union(three))
    assert one.union(one) == one
    assert one.union(Grid(())) == one


def test_architectures_are_named_once_over_seeds() -> None:
    grid = Grid.product((3, 1), (5,), (4, 2))
    assert [cell.key for cell in grid.architectures] == ["DAE_1_5-s0", "DAE_3_5-s0"]


@pytest.mark.parametrize(
    ("depths", "latents", "seeds", "message"),
    [
        ([], [5], [0], r"^--depths is empty: give at least one value"),
        ([1], [], [0], r"^--latents is empty"),
        ([1], [5], [], r"^--seeds is empty"),
        ([1, 3, 1, 3], [5], [0], r"^--depths repeats 1, 3: give each value once"),
        ([1], [5, 5], [0], r"^--latents repeats 5"),
        ([1], [5], [7, 7], r"^--seeds repeats 7"),
        ([0], [5], [0], r"^depth 0 is out of range: it must be at least 1"),
        ([1, -2], [5], [0], r"^depth -2 is out of range"),
        ([1], [0], [0], r"^latent size 0 is out of range: a latent is 1 to 28"),
        ([1], [13, 29], [0], r"^latent size 29 is out of range: a latent is 1 to 28"),
        ([1], [5], [-1], r"^seed -1 is out of range: it must be at least 0"),
    ],
)
def test_what_is_no_grid_is_refused(depths: list[int], latents: list[int], seeds: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Grid.product(depths, latents, seeds)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("train_fraction", value) for value in (0, -0.1, 1.01, float("nan"))),
        *(("epochs", value) for value in (0, -3)),
        *(("batch_size", value) for value in (0, -1)),
        *(("lr", value) for value in (0, -1e-3, float("nan"), float("inf"))),
        *(("alpha", value) for value in (-0.5, float("nan"), float("inf"))),
        *(("width", value) for value in (0, -16)),
        *(("latent_channels", value) for value in (0, -4)),
        *(("latent_bias", value) for value in (-0.5, float("nan"))),
    ],
)
def test_settings_name_the_value_that_is_out_of_range(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"{name.replace('_', ' ')} {value} is out of range: it must be"):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_every_setting_arrives_in_what_is_trained_and_recorded() -> None:
    settings = Settings(
        dataset="kmnist",
        train_fraction=0.25,
        epochs=7,
        batch_size=64,
        lr=0.01,
        alpha=0.3,
        width=6,
        latent_channels=3,
        latent_bias=0.5,
        initialisation="he",
        warmup=2,
        averaging=0.9,
    )
    cell = Cell(depth=4, latent=9, seed=11)
    model, training = settings.model(cell), settings.training(cell)
    assert (model.depth, model.latent, model.width, model.latent_channels) == (4, 9, 6, 3)
    assert (training.epochs, training.batch_size, training.lr, training.alpha, training.seed) == (7, 64, 0.01, 0.3, 11)
    assert (training.latent_bias, training.initialisation) == (0.5, "he")
    assert (training.warmup, training.averaging) == (2, 0.9)
    assert written(settings.config(cell)) == {
        "depth": 4, "latent": 9, "seed": 11, "dataset": "kmnist", "train_fraction": 0.25, "epochs": 7,
        "batch_size": 64, "lr": 0.01, "alpha": 0.3, "noise": "gaussian", "width": 6, "latent_channels": 3,
        "latent_bias": 0.5, "initialisation": "he", "warmup": 2, "averaging": 0.9,
    }  # fmt: skip


@given(grids.filter(lambda grid: bool(grid.cells)))
def test_the_costly_cells_come_first(grid: Grid) -> None:
    settings = Settings()
    order = longest_first(grid.cells, settings)
    costs = [mac_count(settings.model(cell)) for cell in order]
    assert sorted(order) == sorted(grid.cells)
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("value", [1e-320, 5e-324, 2.2e-308])
@pytest.mark.parametrize("name", ["lr", "alpha", "averaging", "latent_bias", "train_fraction"])
def test_a_number_that_trials_would_take_for_zero_is_refused(name: str, value: float) -> None:
    # They flush denormal numbers to zero: the key of the cell would name another one there.
    with pytest.raises(UserError, match=rf"^{name.replace('_', ' ')} {value} is out of range: .* it would be 0"):
        Settings(**{name: value})


def test_an_axis_value_that_a_key_cannot_carry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="lr 1e-320 is out of range"):
        Grid.product((1,), (5,), (0,), {"lr": (1e-3, 1e-320)})
    monkeypatch.setattr("sweep.records.axes.value_text", lambda value: f"{value:.1f}")  # which loses digits
    with pytest.raises(UserError, match=r"alpha 0.2 is out of range: the name of a cell, DAE_1_1-alpha0.2-s0, cannot"):
        Grid.product((1,), (5,), (0,), {"alpha": (0.25,)})


def test_many_seeds_are_checked_in_the_time_of_their_number() -> None:
    start = time.process_time()
    grid = Grid.product((1,), (5,), range(1, 100_001))
    assert len(grid.cells) == 100_000
    assert len(grid.architectures) == 1
    assert time.process_time() - start < 10, "it took minutes"
    with pytest.raises(UserError, match="--seeds repeats 7: give each value once"):
        Grid.product((1,), (5,), (*range(1, 100_000), 7))
