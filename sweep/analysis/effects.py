"""Main effects and interaction of depth and latent size on the test loss. No torch."""

from dataclasses import dataclass

import numpy as np

from sweep.analysis.arrays import Arrays
from sweep.analysis.claims import Claim, Contrast, Factor
from sweep.analysis.comparer import Comparer
from sweep.analysis.results import results
from sweep.records.sweep import Sweep


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """How the variance among the architectures' mean test losses divides; parts of 1."""

    depth: float
    latent: float
    interaction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """Main effects and interaction on the test loss (study, section 5.1).

    Attributes:
        depth, latent: the claims; their ``averages`` are the main effects, adjacent levels and others.
        interaction: for adjacent levels of both, how much larger the increase is at the shallower depth; one family.
        corners: the same from the largest to the smallest latent, of the shallowest against the deepest: one number.
        shares: None where an architecture has no result.
    """

    depth: Claim
    latent: Claim
    interaction: tuple[Contrast, ...]
    corners: Contrast | None
    shares: Shares | None


def effects(sweep: Sweep, arrays: Arrays) -> Effects:
    """Main effects and interaction of one facet."""
    comparer = Comparer(sweep, arrays)
    return Effects(
        depth=comparer.claim(Factor.DEPTH),
        latent=comparer.claim(Factor.LATENT),
        interaction=comparer.interaction(),
        corners=comparer.corners(),
        shares=_shares(sweep),
    )


def _shares(sweep: Sweep) -> Shares | None:
    grid = sweep.manifest.grid
    means = {(result.config.depth, result.config.latent): result.mean for result in results(sweep)}
    table = np.array([[means.get((depth, size)) or np.nan for size in grid.latents] for depth in grid.depths])
    if np.isnan(table).any() or min(table.shape) < 2 or not np.ptp(table):
        return None
    centred = table - table.mean()
    by_depth, by_latent = centred.mean(axis=1, keepdims=True), centred.mean(axis=0, keepdims=True)
    total = float((centred**2).mean())
    rest = centred - by_depth - by_latent
    depth, latent, interaction = (float((part**2).mean()) / total for part in (by_depth, by_latent, rest))
    return Shares(depth=depth, latent=latent, interaction=interaction)
