"""The space of a search: what it takes, and what it refuses."""

import math
from dataclasses import replace

import pytest

from dae.errors import UserError
from sweep.records.grid import Cell, Settings
from sweep.records.search import Proposal, Pruning, Search
from sweep.records.space import Choice, Range, Space, default_space

SETTINGS = Settings.usual("mnist-5k")
LEAST = ("depth=1..3", "latent=4..8")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lr=log:1e-4..1e-2", Range(1e-4, 1e-2, is_log=True)),
        ("lr=0.001,0.01", Choice((0.001, 0.01))),
        ("width=8..64", Range(8, 64)),
        ("batch-size=32, 64", Choice((32, 64))),
        ("latent_channels=4", Choice((4,))),
        ("averaging=0..0.99", Range(0.0, 0.99)),
    ],
)
def test_a_range_is_read_and_written(text: str, values: Range | Choice) -> None:
    space = Space.parse([*LEAST, text])
    (name,) = space.parameters.keys() - {"depth", "latent"}
    assert space.parameters[name] == values
    assert Space.parse([f"{name}={text}" for name, text in space.texts.items()]) == space


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["speed=1..3"], "unknown parameter 'speed'"),
        (["lr="], "has no values"),
        (["lr"], "has no values"),
        (["width=64..8"], "runs backwards: give width=8..64"),
        (["width=8..big"], "'big' is not a whole number"),
        (["width=8.5..16"], "'8.5' is not a whole number"),
        (["width=8.."], "'' is not a whole number"),
        (["lr=log:0..1e-2"], "begins above 0"),
        (["lr=log:1e-3,1e-2"], "belongs to a range"),
        (["lr=1e-3,1e-3"], "repeats a value"),
        (["lr=1e-3..inf"], "is not finite"),
        (["lr=1e-3..1e-2", "lr=1"], "is given twice"),
        (["latent=4..40"], "1 to 28 pixels wide"),
        (["averaging=0.5..1"], "below 1"),
        (["lr=0..1"], "positive number"),
    ],
)
def test_what_is_no_space_is_refused(texts: list[str], complaint: str) -> None:
    least = [text for text in LEAST if not texts[0].startswith(text[:6])]
    with pytest.raises(UserError, match=complaint):
        Space.parse([*least, *texts]).check(SETTINGS)


def test_depth_and_latent_have_to_be_said() -> None:
    with pytest.raises(UserError, match="nothing of latent: add --space latent=4"):
        Space.parse(["depth=1..3"])


@pytest.mark.parametrize(
    ("changes", "epochs", "complaint"),
    [
        ({"trials": 0}, 5, "--trials 0"),
        ({"finalist_seeds": 0}, 5, "--seeds 0"),
        ({"sampler": "grid"}, 5, "no end on the range lr=log:0.0001..0.01"),
        ({"scheduler": "asha"}, 1, "nothing to stop early"),
        ({"scheduler": "asha", "objectives": ("val_loss", "macs")}, 5, "has two"),
        ({"sampler": "cmaes", "objectives": ("val_loss", "macs")}, 5, "one objective"),
        ({"objectives": ("test_loss",)}, 5, "unknown objective"),
        ({"objectives": ("macs", "val_loss")}, 5, "--objective is val_loss"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes: dict[str, object], epochs: int, complaint: str) -> None:
    space = Space.parse([*LEAST, "lr=log:1e-4..1e-2"])
    with pytest.raises(UserError, match=complaint):
        Search(**{"space": space, **changes}).check(epochs)  # type: ignore[arg-type]


def test_a_search_goes_on_only_as_what_it_is() -> None:
    begun = Search(space=Space.parse(LEAST))
    Search(space=Space.parse([*LEAST, "width=8..16"]), trials=99).check_continues(begun.origin, "s")
    with pytest.raises(UserError, match="begun with --sampler tpe, this command asks for gp"):
        Search(space=begun.space, sampler="gp").check_continues(begun.origin, "s")


def test_a_search_and_a_proposal_are_read_as_written() -> None:
    search = Search(space=Space.parse([*LEAST, "lr=log:1e-4..1e-2"]), trials=7, objectives=("val_loss", "macs"))
    assert Search.from_document(search.to_document()) == search
    pruning = Pruning(epoch=1, loss=0.2, limit=0.1, others=3)
    proposal = Proposal(number=3, point={"depth": 1, "latent": 4}, arrivals=(5, 6), pruning=pruning)
    assert Proposal.from_bytes(proposal.to_bytes()) == proposal


def test_a_point_is_a_cell_whose_name_holds_it() -> None:
    space = Space.parse([*LEAST, "lr=log:1e-4..1e-2", "width=8..64", "warmup=0..3"])
    cell = space.cell({"depth": 2, "latent": 5, "lr": 0.001234, "width": 16, "warmup": 1}, SETTINGS, seed=4)
    assert cell.key == "DAE_2_5-lr0.001234-warmup1-s4"
    assert Cell.from_key(cell.key) == cell


def test_a_point_moves_to_another_space_where_it_lies_inside() -> None:
    space = Space.parse(["depth=1..3", "latent=4..8", "width=8..32"])
    inside = space.point_of({"depth": 2, "latent": 5, "lr": SETTINGS.lr}, SETTINGS)
    assert inside == {"depth": 2, "latent": 5, "width": SETTINGS.width}
    assert space.point_of({"depth": 2, "latent": 9}, SETTINGS) is None
    assert space.point_of({"depth": 2, "latent": 5, "lr": 1.0}, SETTINGS) is None


@pytest.mark.parametrize(("image", "latent"), [("28x28", "4..14"), ("8x8", "4..8"), ("40x10x3", "4..10")])
def test_the_usual_space_is_one_that_the_images_allow(image: str, latent: str) -> None:
    settings = replace(SETTINGS, image=image)
    space = Space.parse(default_space(settings.shape))
    space.check(settings)
    assert str(space.parameters["latent"]) == latent


def test_sizes_and_rounding() -> None:
    assert Space.parse(["depth=1..3", "latent=4,8", "width=8..9"]).size == 12
    assert math.isinf(Space.parse([*LEAST, "lr=1e-3..1e-2"]).size)
    assert Range(1e-4, 1e-2, is_log=True).rounded(0.00123456) == 0.001235
    assert Range(0.00012345, 1.0).rounded(0.00012345) == 0.00012345  # not out of the range
