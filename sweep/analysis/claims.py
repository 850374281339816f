"""The study's two claims (section 4.2) and the contrasts of architectures that test them. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dae.config import Latent
from sweep.analysis.verdicts import Effect, Verdict
from sweep.records.grid import Cell


class Split(StrEnum):
    """Which loss a comparison is made on; training and validation are those of the last epoch."""

    TRAINING = "training"
    VALIDATION = "validation"
    TEST = "test"


class Factor(StrEnum):
    """What a claim varies, the other being held fixed."""

    LATENT = "latent"
    DEPTH = "depth"

    @property
    def other(self) -> "Factor":
        """The one that is held fixed."""
        return Factor.DEPTH if self is Factor.LATENT else Factor.LATENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """A weighted sum of losses that a claim says is positive: a pair, an average of pairs, a difference of pairs.

    Attributes:
        higher, lower: what the claim says has the higher and the lower loss.
        other_levels: levels of the other factor that it covers.
        cells: one cell of each architecture in it; of a pair, the one with the higher loss first.
        adjacent: no level between the two is in the grid.
        counted: False where the two are not comparable, the maps behind the stem being of different size.
        effects: by split; empty where no seed has all the cells.
        share: part of the test images on which ``higher`` has the higher loss, mean over seeds; pairs only.
        caveats: collapsed and unconverged cells and dead latent channels that this rests on.
    """

    higher: str
    lower: str
    other_levels: tuple[Latent, ...]
    cells: tuple[Cell, ...]
    adjacent: bool = True
    counted: bool = True
    effects: Mapping[Split, Effect]
    share: float | None = None
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What the records say of one claim.

    Each split is a family of its own, and the one of the test loss answers the claim; training and validation are
    for comparison with the study's figures. Their intervals are over seeds alone, those of the test loss over seeds
    and test images.

    Attributes:
        pairs: every ordered pair of levels at each level of the other factor: one family for Holm's correction.
        averages: every ordered pair of levels, averaged over the other factor: another family.
        overall: mean over the adjacent pairs; None where there are none.
    """

    factor: Factor
    pairs: tuple[Contrast, ...]
    averages: tuple[Contrast, ...]
    overall: Contrast | None

    @property
    def answers(self) -> tuple[Contrast, ...]:
        """The contrasts that decide the claim as it is worded.

        (*) is said of every depth: all pairs. (**) is said "on average": the averages over latent sizes.
        """
        return tuple(self.comparable_pairs()) if self.factor is Factor.LATENT else self.averages

    @property
    def verdict(self) -> Verdict | None:
        """Of the whole claim, on the test loss: supported if all of its `answers` are, contradicted if one is.

        None where there is nothing to compare.
        """
        verdicts = {contrast.effects[Split.TEST].verdict for contrast in self.answers if contrast.effects}
        order = (
            Verdict.CONTRADICTED,
            Verdict.WITHHELD,
            Verdict.NOT_RESOLVED,
            Verdict.ONE_SEED,
            Verdict.SUPPORTED,
        )
        return next((verdict for verdict in order if verdict in verdicts), None)

    def comparable_pairs(self, *, adjacent: bool = False) -> list[Contrast]:
        """The pairs that are comparable and of which a seed has both cells; only those of adjacent levels if asked."""
        return [pair for pair in self.pairs if pair.counted and pair.effects and (pair.adjacent or not adjacent)]
