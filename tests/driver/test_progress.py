import heapq
import io
import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from sweep.driver.progress import LIVE_ROWS, STEP_OVERHEAD_MACS, Progress
from sweep.records.grid import Cell, Grid, Settings, longest_first
from sweep.records.record import Epoch, Record, Status, duration

SETTINGS = Settings(epochs=4)
GRID = Grid.product((1, 3, 5), (13, 8, 5), (0,))


def record(
    cell: Cell, num_epochs: int, status: Status = Status.RUNNING, epoch_s: float = 2.0, error: str | None = None
) -> Record:
    return replace(
        Record.new(cell, SETTINGS, {"name": "mnist", "fingerprint": "f"}),
        status=status,
        history=tuple(
            Epoch(epoch=n, train_loss=0.1 / n, val_loss=0.2 / n, seconds=epoch_s) for n in range(1, num_epochs + 1)
        ),
        test_loss=0.01234 if status is Status.COMPLETED else None,
        error=error,
    )


class Screen:
    """A console that keeps what was printed; as a terminal it is 100 columns wide."""

    def __init__(self, *, terminal: bool) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=terminal, width=100 if terminal else None, height=40)

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.file.getvalue())

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def follow(screen: Screen, grid: Grid = GRID, slots: int = 2, **options: object) -> Progress:
    return Progress(screen.console, grid.cells, {}, SETTINGS, slots, **options)  # type: ignore[arg-type]


# ---- how long it will take


def simulate(grid: Grid, slots: int, settings: Settings, seconds: Callable[[Cell], float]) -> list[tuple[float, float]]:
    """Run a made-up schedule through a display; its estimates and what was true, after each epoch of any cell."""
    now = 0.0
    progress = Progress(Screen(terminal=False).console, grid.cells, {}, settings, slots, quiet=True, clock=lambda: now)
    assert progress.eta_s() is None, "nothing was measured"
    waiting = longest_first(grid.cells, settings)
    running: list[tuple[float, int, Cell]] = []
    estimates = []

    def start() -> None:
        cell = waiting.pop(0)
        progress.started(cell.key)
        heapq.heappush(running, (now + seconds(cell), 1, cell))

    for _ in range(min(slots, len(waiting))):
        start()
    while running:
        now, epoch, cell = heapq.heappop(running)
        is_done = epoch == settings.epochs
        status = Status.COMPLETED if is_done else Status.RUNNING
        progress.progressed(record(cell, epoch, status, epoch_s=seconds(cell)), 1000)
        if not is_done:
            heapq.heappush(running, (now + seconds(cell), epoch + 1, cell))
        elif waiting:
            start()
        eta = progress.eta_s()
        assert eta is not None
        estimates.append((now, eta))
    return [(eta, now - then) for then, eta in estimates]


@pytest.mark.parametrize("slots", [1, 2, 3, 8, 40])
@pytest.mark.parametrize(
    "grid",
    [
        pytest.param(GRID, id="study"),
        pytest.param(Grid.product((1, 2, 3, 4, 5, 6, 7, 8, 9), (5,), (0,)), id="depths"),
        pytest.param(Grid.product((1, 5), (13,), tuple(range(10))), id="seeds"),
        pytest.param(Grid.product((3,), (8,), (0,)), id="one cell"),
    ],
)
def test_the_estimate_is_within_a_factor_of_two(grid: Grid, slots: int) -> None:
    settings = Settings(epochs=10)
    generator = random.Random(5)
    jitter = {cell: generator.uniform(0.75, 1.33) for cell in grid.cells}

    def seconds(cell: Cell) -> float:
        from dae.architecture import mac_count

        return 1e-6 * (mac_count(settings.model(cell)) + STEP_OVERHEAD_MACS) * jitter[cell]

    for eta, truth in simulate(grid, slots, settings, seconds):
        # The epochs at work are counted as a whole, so an estimate may be one of the slowest too long.
        slack = max(map(seconds, grid.cells))
        assert truth / 2 - 1e-9 <= eta <= 2 * truth + slack


def test_the_estimate_by_hand() -> None:
    cell = Cell(depth=3, latent=8, seed=0)
    grid = Grid.of([cell, replace(cell, seed=1), replace(cell, seed=2)])
    progress = follow(Screen(terminal=False), grid, slots=2)
    for each in grid.cells[:2]:
        progress.started(each.key)
    progress.progressed(record(grid.cells[0], 1, epoch_s=2.0), 100)
    # Both have 3 and 4 epochs of 2 s to go; the third one takes the slot that is free after 6 s for its 8 s.
    assert progress.eta_s() == pytest.approx(14)


def test_cells_that_ended_badly_cost_no_more_time() -> None:
    progress = follow(Screen(terminal=False), slots=1)
    for cell in GRID.cells[1:]:
        progress.progressed(record(cell, 0, Status.DIVERGED, error="epoch 1: nan"), 0)
    progress.started(GRID.cells[0].key)
    progress.progressed(record(GRID.cells[0], 3, epoch_s=5.0), 100)
    assert progress.eta_s() == pytest.approx(5)


def test_cells_of_an_earlier_run_wait_for_a_slot_too() -> None:
    """A run that was killed leaves cells whose records say running; nobody is at them until they are started."""
    cell = Cell(depth=3, latent=8, seed=0)
    grid = Grid.of(replace(cell, seed=seed) for seed in range(7))
    left = {each.key: record(each, 2) for each in grid.cells}
    progress = Progress(Screen(terminal=False).console, grid.cells, left, SETTINGS, slots=1)
    progress.started(grid.cells[0].key)
    progress.progressed(record(grid.cells[0], 3, epoch_s=2.0), 100)
    assert progress.eta_s() == pytest.approx(1 * 2 + 6 * 2 * 2)


# ---- where there is no terminal


def test_each_epoch_is_one_line_once() -> None:
    screen, cell = Screen(terminal=False), GRID.cells[0]
    with follow(screen) as progress:
        progress.started(cell.key)
        for count, status in ((1, Status.RUNNING), (1, Status.RUNNING), (3, Status.RUNNING), (4, Status.COMPLETED)):
            progress.progressed(record(cell, count, status), 1000)
    assert screen.lines == [
        "DAE_1_13-s0  epoch 1/4  train 0.10000  validation 0.20000  2.00 s",
        "DAE_1_13-s0  epoch 2/4  train 0.05000  validation 0.10000  2.00 s",
        "DAE_1_13-s0  epoch 3/4  train 0.03333  validation 0.06667  2.00 s",
        "DAE_1_13-s0  epoch 4/4  train 0.02500  validation 0.05000  2.00 s",
        "DAE_1_13-s0  completed, test loss 0.01234",
    ]


def test_epochs_of_an_earlier_run_are_not_told_again() -> None:
    screen, cell = Screen(terminal=False), GRID.cells[0]
    left = {cell.key: record(cell, 2, Status.INTERRUPTED)}
    with Progress(screen.console, GRID.cells, left, SETTINGS, slots=1) as progress:
        progress.progressed(record(cell, 3), 1000)
    assert [line.split("  ")[1] for line in screen.lines] == ["epoch 3/4"]


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.FAILED])
@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_bad_end_is_always_told(status: Status, quiet: bool, terminal: bool) -> None:
    screen = Screen(terminal=terminal)
    with follow(screen, quiet=quiet) as progress:
        progress.progressed(record(GRID.cells[0], 0, status, error="[bold]why[/bold] not"), 0)
    assert f"DAE_1_13-s0  {status}: [bold]why[/bold] not" in screen.text


def test_a_lost_process_is_told_with_what_becomes_of_its_cell() -> None:
    screen = Screen(terminal=False)
    with follow(screen) as progress:
        progress.started("DAE_1_13-s0")
        progress.lost("DAE_1_13-s0", "SIGKILL", is_final=False)
        progress.lost("DAE_1_13-s0", "SIGKILL", is_final=True)
    assert screen.lines == [
        "DAE_1_13-s0  its process was lost (SIGKILL); continued by another",
        "DAE_1_13-s0  its process was lost (SIGKILL); given up",
    ]


def test_quiet_means_no_word_of_what_goes_well() -> None:
    for terminal in (False, True):
        screen = Screen(terminal=terminal)
        with follow(screen, quiet=True) as progress:
            progress.started(GRID.cells[0].key)
            progress.progressed(record(GRID.cells[0], 4, Status.COMPLETED), 1000)
        assert screen.text == ""


def test_no_line_of_a_plain_log_is_wrapped_or_cut() -> None:
    screen = Screen(terminal=False)
    with follow(screen) as progress:
        progress.note("x" * 300)
    assert screen.lines == ["x" * 300]


# ---- on a terminal


def rendered(progress: Progress) -> list[list[str]]:
    """The rows of the table, and last the line below it, each as the words between gaps."""
    screen = Screen(terminal=True)
    screen.console.print(progress._render())
    return [re.split(r"\s{2,}", line.strip()) for line in screen.lines if line.strip()]


def test_the_table_shows_every_cell_and_the_line_below_it_counts() -> None:
    now = 100.0
    progress = follow(Screen(terminal=True), clock=lambda: now)
    one, two, three, four = GRID.cells[:4]
    now = 225.0
    progress.started(one.key)
    progress.progressed(record(one, 2), 12345.6)
    progress.progressed(record(two, 4, Status.COMPLETED), 1000)
    progress.progressed(record(three, 1, Status.DIVERGED, error="nan"), 0)
    progress.started(four.key)
    heading, *table, below = rendered(progress)
    assert heading == ["cell", "status", "epoch", "train loss", "val loss", "images/s"]
    rows = {row[0]: row[1:] for row in table}
    assert list(rows) == [cell.key for cell in GRID.cells]
    assert rows[one.key] == ["running", "2/4", "0.05000", "0.10000", "12,346"]
    assert rows[two.key] == ["completed", "4/4", "0.02500", "0.05000"]
    assert rows[three.key] == ["diverged", "1/4", "0.10000", "0.20000"]
    assert rows[four.key] == ["running"]
    assert rows[GRID.cells[8].key] == ["waiting"]
    assert below[1:3] == ["1 of 9 completed", "elapsed 2:05 min"]
    assert re.fullmatch(r"about .* to go", below[3])


def test_a_large_sweep_shows_what_is_at_work() -> None:
    grid = Grid.product((1,), (5,), tuple(range(LIVE_ROWS + 1)))
    progress = follow(Screen(terminal=True), grid)
    progress.started("DAE_1_5-s7")
    _, *table, below = rendered(progress)
    assert [row[0] for row in table] == ["DAE_1_5-s7"]
    assert f"0 of {LIVE_ROWS + 1} completed" in below


def test_the_table_is_gone_at_the_end_and_notes_stay() -> None:
    screen = Screen(terminal=True)
    with follow(screen) as progress:
        progress.started(GRID.cells[0].key)
        progress.progressed(record(GRID.cells[0], 1), 1000)
        progress.note("this stays")
    assert "waiting" in screen.text, "the table was shown"
    assert "this stays" in screen.text
    erased = screen.file.getvalue().rsplit("\x1b[2K", 1)[-1]
    assert "DAE" not in erased
    assert screen.file.getvalue().rstrip().endswith("\x1b[2K") or "\x1b[?25h" in erased, "the cursor is back"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.4, "0 s"), (7.6, "8 s"), (59.4, "59 s"), (59.6, "1:00 min"), (60, "1:00 min"),
        (125, "2:05 min"), (3599.4, "59:59 min"), (3599.6, "1:00:00 h"), (3723, "1:02:03 h"), (360_000, "100:00:00 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
