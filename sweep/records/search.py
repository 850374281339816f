"""What a search declares, and what is known of each of its proposals. No Optuna, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from dae.errors import UserError
from sweep.records.space import Point, Space
from sweep.storage.sealing import Damaged, dump_json, load_json

SCHEMA = 1
SAMPLERS = ("random", "tpe", "gp", "cmaes", "nsga2", "grid")
SCHEDULERS = ("none", "asha", "median")
OBJECTIVES = ("val_loss", "macs")
FIXED = ("sampler", "scheduler", "objectives", "seed")
"""What a search cannot change once it has begun: its proposals so far follow from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A search: the space, and how it is gone through.

    Attributes:
        trials: configurations that are tried in all.
        sampler: one of `SAMPLERS`, with its ``seed``, which is the seed of every trial's cell too.
        scheduler: one of `SCHEDULERS`; what ends hopeless trials early.
        objectives: what is minimised: the validation loss of the last epoch, and maybe the cost.
        finalists: how many of the best configurations are trained anew, each with so many ``finalist_seeds``.
    """

    space: Space
    trials: int = 50
    sampler: str = "tpe"
    scheduler: str = "none"
    objectives: tuple[str, ...] = ("val_loss",)
    seed: int = 0
    finalists: int = 3
    finalist_seeds: int = 3

    def check(self, epochs: int) -> None:
        """Check that its parts go together.

        Raises:
            UserError: they do not.
        """
        for name, least in (("trials", 1), ("seed", 0), ("finalists", 0), ("finalist_seeds", 1)):
            if getattr(self, name) < least:
                option = {"finalist_seeds": "seeds"}.get(name, name)
                raise UserError(f"--{option} {getattr(self, name)} is out of range: it must be at least {least}.")
        if unknown := [name for name in self.objectives if name not in OBJECTIVES]:
            raise UserError(f"unknown objective {unknown[0]!r}. Known ones: {', '.join(OBJECTIVES)}.")
        if self.objectives[:1] != ("val_loss",) or len(set(self.objectives)) < len(self.objectives):
            raise UserError("--objective is val_loss, or val_loss,macs for the front of loss against cost.")
        if self.sampler == "grid" and (ranges := self.space.continuous):
            raise UserError(
                f"--sampler grid has no end on the range {ranges[0]}={self.space.parameters[ranges[0]]}: give a list, "
                f"such as {ranges[0]}=1e-3,3e-3, or another --sampler."
            )
        if self.scheduler != "none" and epochs < 2:
            raise UserError(
                f"--scheduler {self.scheduler} with --epochs {epochs} has nothing to stop early: give more epochs, or "
                "--scheduler none."
            )
        if len(self.objectives) > 1 and self.scheduler != "none":
            raise UserError(
                f"--scheduler {self.scheduler} orders trials by one number, and --objective "
                f"{','.join(self.objectives)} has two: a cheap model with a higher loss may be on the front and would "
                "be stopped. Give --scheduler none, or one objective."
            )
        if len(self.objectives) > 1 and self.sampler == "cmaes":
            raise UserError("--sampler cmaes knows one objective: give tpe, gp, nsga2, random or grid.")

    @property
    def origin(self) -> dict[str, Any]:
        """What a proposal follows from, beside what was tried: as ``proposal.json`` holds it."""
        return {name: _plain(getattr(self, name)) for name in FIXED} | {"space": self.space.texts}

    def check_continues(self, begun: Mapping[str, Any], name: str) -> None:
        """Check that this search can go on from the one that was begun, with that `origin`.

        Raises:
            UserError: they contradict each other.
        """
        for field_name in FIXED:
            before, now = begun.get(field_name), _plain(getattr(self, field_name))
            if field_name in begun and before != now:
                option = {"objectives": "objective"}.get(field_name, field_name)
                before, now = (",".join(value) if isinstance(value, list) else value for value in (before, now))
                raise UserError(
                    f"the search {name} was begun with --{option} {before}, this command asks for {now}: its proposals "
                    f"follow from that. Give another --name to begin a new one, or --{option} {before} to go on."
                )

    def to_document(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {name: getattr(self, name) for name in self.__slots__} | {"space": self.space.texts}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """What `to_document` gave.

        Raises:
            TypeError, ValueError: it is something else.
        """
        try:
            space = Space.parse([f"{name}={text}" for name, text in document["space"].items()])
        except UserError as error:
            raise ValueError(str(error)) from error
        known = {name: document[name] for name in cls.__slots__ if name in document}
        return cls(**known | {"space": space, "objectives": tuple(document["objectives"])})


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruning:
    """Why a trial was ended early: at ``epoch`` its ``loss`` was above the ``limit`` set by ``others`` trials."""

    epoch: int
    loss: float
    limit: float
    others: int

    def __str__(self) -> str:
        return f"pruned at epoch {self.epoch}: {self.loss:.5f} is above {self.limit:.5f}, of {self.others} others"


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A configuration that was proposed: the fields of ``proposal.json`` beside the record of its cell.

    Attributes:
        number: of the proposal, from 0.
        point: the value of every parameter, also of those without effect on the cell.
        attributes: what the sampler noted with it and needs to see again.
        arrivals: for each of its epochs the place in the order in which the epochs of all trials reached the driver.
        pruning: why it was ended early, if it was.
        revived: whether it goes on after it was pruned or stopped; it is not pruned again.
        origin: the `Search.origin` that it was made by; empty in searches of versions that did not note it.
    """

    number: int
    point: Point
    attributes: Mapping[str, Any] = field(default_factory=dict)
    arrivals: tuple[int, ...] = ()
    pruning: Pruning | None = None
    revived: bool = False
    origin: Mapping[str, Any] = field(default_factory=dict)

    def is_of(self, space: Space) -> bool:
        """Whether it was proposed in this very space."""
        return self.origin["space"] == space.texts if self.origin else self.point.keys() == space.parameters.keys()

    def arrived(self, places: Sequence[int]) -> "Proposal":
        """With more epochs that reached the driver."""
        return replace(self, arrivals=(*self.arrivals, *places))

    def to_bytes(self) -> bytes:
        """The content of ``proposal.json``."""
        document = {"schema": SCHEMA} | asdict(self)
        if not self.origin:
            del document["origin"]
        return dump_json(document)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The proposal that `to_bytes` wrote.

        Raises:
            Damaged: it is not that.
        """
        document: dict[str, Any] = load_json(data, schema=SCHEMA)
        document.pop("schema")
        try:
            document["arrivals"] = tuple(document["arrivals"])
            document["pruning"] = document["pruning"] and Pruning(**document["pruning"])
            return cls(**document)
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"it is not a proposal: {error}") from error
