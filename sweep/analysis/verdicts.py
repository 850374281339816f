"""Effects with their intervals, and the verdicts of a family of them. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from sweep.analysis.statistics import LEVEL, Estimate, Needed, holm, needed


class Verdict(StrEnum):
    """What paired differences over seeds come to, after correction for the family and for the looks taken."""

    SUPPORTED = "supported"
    NOT_RESOLVED = "not resolved"
    WITHHELD = "no verdict"
    CONTRADICTED = "contradicted"
    ONE_SEED = "one seed: no verdict"


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference of losses that the claim says is positive, over ``seeds``.

    Attributes:
        difference: mean over seeds, MSE per pixel.
        relative: the same as a part of the loss that is claimed to be lower; None where that has no meaning.
        low, high: 95 % interval of ``difference`` alone, not corrected; None with one seed.
        p: two-sided p value of the paired t test, not corrected; None with one seed.
        valid_p: the same, corrected for the looks taken (`dae-sweep run --resolve`); ``p`` where there was one.
        adjusted_p: ``valid_p`` after Holm's correction for the family: below `LEVEL` there is a verdict.
        wide: interval that holds with 95 % for all of the family and all looks together (Bonferroni); Holm's step-down
            is sharper, so that it may reach across zero where there is a verdict.
        estimate: mean, variances and degrees of freedom behind the interval; None with one seed.
        open_level: what is left of `LEVEL` for this one; only where the verdict is *not resolved* for want of seeds.
        seconds_a_seed: training time of one more seed, for all cells of the comparison one after the other.
        withheld: why there is no verdict whatever the p value; empty where there is one.
        share: which part of `LEVEL` the latest look may spend; 1 where the number of seeds was fixed in advance.
    """

    difference: float
    relative: float | None
    seeds: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    p: float | None = None
    verdict: Verdict = Verdict.ONE_SEED
    valid_p: float | None = None
    adjusted_p: float | None = None
    wide: tuple[float, float] | None = None
    estimate: Estimate | None = None
    open_level: float | None = None
    seconds_a_seed: float | None = None
    withheld: str = ""
    share: float = 1.0

    @property
    def holds(self) -> bool:
        """Whether the sign is the claimed one."""
        return self.difference > 0

    @property
    def needed(self) -> Needed | None:
        """What would resolve it; None where the verdict is another than *not resolved*."""
        if self.open_level is None or self.estimate is None:
            return None
        plan = needed(self.estimate, self.open_level, looked=self.share < 1)
        if plan.more is None or self.seconds_a_seed is None:
            return plan
        return replace(plan, seconds=plan.more * self.seconds_a_seed)


def with_verdicts(effects: Iterable[Effect]) -> list[Effect]:
    """The effects of one family with their verdicts, after Holm's correction; those of one seed are not tested."""
    effects = list(effects)
    family = [effect for effect in effects if effect.p is not None]
    valid = [effect.p if effect.valid_p is None else effect.valid_p for effect in family]
    adjusted = holm([p for p in valid if p is not None])
    num_open = sum(p >= LEVEL or bool(effect.withheld) for p, effect in zip(adjusted, family, strict=True))
    tested = iter(_tested(effect, p, len(family), num_open) for effect, p in zip(family, adjusted, strict=True))
    return [_alone(effect) if effect.p is None else next(tested) for effect in effects]


def _alone(effect: Effect) -> Effect:
    """The effect of one seed, without a test."""
    return replace(effect, verdict=Verdict.WITHHELD if effect.withheld else Verdict.ONE_SEED)


def _tested(effect: Effect, adjusted_p: float, num_family: int, num_open: int) -> Effect:
    estimate = effect.estimate
    wide = None if estimate is None else estimate.interval(LEVEL * effect.share / num_family)
    effect = replace(effect, adjusted_p=adjusted_p, wide=wide)
    if effect.withheld:
        return replace(effect, verdict=Verdict.WITHHELD)
    if adjusted_p >= LEVEL:
        return replace(effect, verdict=Verdict.NOT_RESOLVED, open_level=LEVEL / num_open)
    return replace(effect, verdict=Verdict.SUPPORTED if effect.holds else Verdict.CONTRADICTED)
