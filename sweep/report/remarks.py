"""The study's side remarks, tested: convergence, gap, interaction, painting the average image. No torch."""

from collections.abc import Sequence

import numpy as np

from sweep.analysis.arrays import Arrays, usable_records
from sweep.analysis.claims import Claim, Contrast, Split
from sweep.analysis.results import Result
from sweep.analysis.statistics import Array
from sweep.records.sweep import Sweep
from sweep.records.words import counted
from sweep.report.words import (
    effect_size,
    interval,
    listed,
    percent,
)


def convergence(sweep: Sweep) -> str:
    """Whether the epochs given were enough (study, section 4.2)."""
    records = usable_records(sweep)
    epochs = sweep.manifest.settings.epochs
    unconverged = [record.key for record in records if record.unconverged]
    collapsed = [record.key for record in records if record.collapsed]
    if epochs == 1:
        text = "After one epoch nothing can be said of convergence."
    elif unconverged:
        text = (
            f"{len(unconverged)} of {counted(len(records), 'completed cell')} had not converged "
            f"after {counted(epochs, 'epoch')}, "
            "the validation loss still falling by over 1\N{NO-BREAK SPACE}% an epoch in the last three: "
            f"{listed(unconverged)}."
        )
    else:
        text = (
            f"All {counted(len(records), 'completed cell')} had converged after {counted(epochs, 'epoch')}: "
            "no validation loss still fell by over 1\N{NO-BREAK SPACE}% an epoch in the last three."
        )
    if collapsed:
        text += f" Collapsed, no better than predicting the mean image: {listed(collapsed)}."
    return text


def gap(sweep: Sweep) -> str:
    """How far validation lies from training at the last epoch (study, section 4.2)."""
    gaps = {
        record.key: (last.val_loss - last.train_loss) / last.train_loss
        for record in usable_records(sweep)
        if (last := record.history[-1]).train_loss > 0
    }
    if not gaps:
        return "No training loss to hold validation against."
    low, high = min(gaps, key=lambda key: gaps[key]), max(gaps, key=lambda key: gaps[key])
    spread = (
        f"by {percent(gaps[low])} ({low})"
        if low == high
        else f"by {percent(gaps[low])} ({low}) to {percent(gaps[high])} ({high})"
    )
    return (
        f"At the last epoch the validation loss differs from the training loss {spread}. The training loss is a "
        "running mean within the epoch, under weights that are still improving, so that validation can lie below it."
    )


def interaction(contrasts: Sequence[Contrast], latents: Claim) -> list[str]:
    """Whether a smaller latent costs a shallower model more, on the test loss (study, section 5.1).

    ``latents`` is the claim (*), whose pairs give the two increases.
    """
    increases = {(pair.other_levels, pair.higher, pair.lower): pair.effects.get(Split.TEST) for pair in latents.pairs}
    lines = []
    for contrast in contrasts:
        if Split.TEST not in contrast.effects:
            continue
        effect = contrast.effects[Split.TEST]
        shallow, deep = contrast.other_levels
        one, other = (increases.get(((depth,), contrast.higher, contrast.lower)) for depth in (shallow, deep))
        same_seeds = one is not None and other is not None and one.seeds == other.seeds == effect.seeds
        both = f" ({effect_size(one)} against {effect_size(other)})" if one and other and same_seeds else ""
        small, large = contrast.higher.removeprefix("latent "), contrast.lower.removeprefix("latent ")
        lines.append(
            f"From latent {large} to {small}, the increase at depth {shallow} is {abs(effect.difference):.5f} "
            f"{'larger' if effect.holds else 'smaller'} than at depth {deep}{both}: the study's "
            f"sign {'holds' if effect.holds else 'fails'}"
            + (
                f", 95\N{NO-BREAK SPACE}% interval {interval(effect)}: {effect.verdict}"
                if effect.p is not None
                else f" ({effect.verdict})"
            )
            + "."
        )
    return lines


def spread_ratios(sweep: Sweep, result: Result, arrays: Arrays) -> tuple[float, ...] | None:
    """Two answers to "does it paint the average image?", mean over seeds: 0 if it does, 1 if as varied as clean images.

    The first is the mean squared distance of the reconstructions to the mean training image, the second that
    between the mean reconstructions of the classes; both over the same of clean test images. Of images without labels
    there is only the first.
    """
    baseline = sweep.manifest.baselines.get("mean_image", 0.0)
    outputs = [arrays.outputs[record.key] for record in result.records if record.key in arrays.outputs]
    if not outputs or arrays.samples is None or not baseline:
        return None
    clean = _class_spread(arrays.samples.class_means)
    to_mean = float(np.mean([output.to_mean.mean(dtype=np.float64) for output in outputs])) / baseline
    if not clean:
        return (to_mean,)
    return to_mean, float(np.mean([_class_spread(output.class_means) for output in outputs])) / clean


def _class_spread(means: Array) -> float:
    """Mean squared distance per pixel over all pairs of different images; 0 of fewer than two."""
    if len(means) < 2:
        return 0.0
    axes = tuple(range(1, means.ndim))
    distances = np.array([((mean.astype(np.float64) - means) ** 2).mean(axis=axes) for mean in means])
    return float(distances.sum() / (len(means) * (len(means) - 1)))


def average_image(sweep: Sweep, results: Sequence[Result], arrays: Arrays) -> str:
    """Whether the smallest latent merely paints the average image (study, section 5.2)."""
    least = min(result.config.latent_numbers for result in results)
    smallest = [result for result in results if result.config.latent_numbers == least]
    ratios = [(result, pair) for result in smallest if (pair := spread_ratios(sweep, result, arrays)) is not None]
    if not ratios:
        return "The images of the smallest latent size cannot be read or are not there: nothing can be said."
    lowest = min(min(pair) for _, pair in ratios)
    verdict = (
        "comes close to painting the average"
        if lowest < 0.1
        else "is pulled strongly towards the average"
        if lowest < 0.5
        else "does not merely paint the average"
    )
    numbers = listed(
        (f"{result.name} {' and '.join(f'{ratio:.2f}' for ratio in pair)}" for result, pair in ratios), limit=9
    )
    subject = "Both ratios are" if len(ratios[0][1]) > 1 else "The ratio is"
    return (
        f"{subject} 0 for a model that always paints the average image and 1 for one whose reconstructions are as "
        f"varied as clean images. The smallest latent {verdict}: {numbers}."
    )
