"""The captions of the figures: which cells are shown, how many, and what can be read off. No torch."""

from itertools import pairwise

from sweep.analysis.arrays import usable_records
from sweep.analysis.costs import Cost, front
from sweep.analysis.findings import Findings
from sweep.analysis.quality import accuracy, rank_correlation, worst_read
from sweep.records.record import Status
from sweep.records.words import counted
from sweep.report.images import shown_seeds, typical
from sweep.report.prose import depth_sentences
from sweep.report.words import SPACE, listed, mse, number_word, share


def curves(findings: Findings) -> str:
    """Caption of the training curves."""
    sweep = findings.sweep
    finals = {record.key: record.history[-1].val_loss for record in usable_records(sweep)}
    low, high = min(finals, key=lambda key: finals[key]), max(finals, key=lambda key: finals[key])
    ended = [key for key, record in sweep.records.items() if record.history and record.status is not Status.COMPLETED]
    text = (
        f"Solid lines are validation, dashed ones training; axes are shared. After "
        f"{counted(sweep.manifest.settings.epochs, 'epoch')} validation ends between {mse(finals[low])} ({low}) and "
        f"{mse(finals[high])} ({high})."
    )
    if len(sweep.manifest.grid.seeds) > 1:
        text += " Each seed is a line of its own."
    if ended:
        text += f" Crosses mark where cells that are not completed stopped: {listed(ended)}."
    return text


def test_loss(findings: Findings) -> str:
    """Caption of the bars of test loss."""
    results = findings.results
    means = [result.mean for result in results if result.mean is not None]
    text = f"Test MSE per pixel, {_over_seeds(findings)}"
    text += ", each seed a dot, bars of error 95 % intervals." if any(result.interval for result in results) else "."
    if findings.condition is not None:
        text += (
            " The black line over a bar is the best linear denoiser (PCA or reduced-rank regression) with as many "
            "latent elements, where it fits; the panel beside has what is done without a network, tuned on validation "
            "images."
        )
    if identity := findings.sweep.manifest.baselines.get("identity"):
        text += f" Doing nothing costs {mse(identity)}, "
        if identity < min(means):
            text += "less than any bar."
        else:
            lowest, highest = (identity / loss for loss in (min(means), max(means)))
            text += f"{lowest:.1f} times the lowest bar and {highest:.1f} times the highest."
    steps = [(a, b) for a, b in pairwise(sorted(means)) if a > 0]
    if len(steps) > 1:
        close = min(steps, key=lambda step: step[1] / step[0])
        text += f" The closest two bars differ by {100 * (close[1] / close[0] - 1):.1f}{SPACE}%."
    holes = [result.name for result in results if result.mean is None]
    if holes:
        text += f" Without a number: {listed(holes)}."
    return text


def effects(findings: Findings) -> str:
    """Caption of the effects."""
    text = "Differences in test loss between neighbouring levels, in the direction that the study claims"
    if any(result.interval for result in findings.results):
        text += (
            f", with 95{SPACE}% intervals (not corrected) over seeds and test images; the colour is the verdict after "
            "correction for the family"
        )
    text += "; last, how much more the smaller latent costs the shallower of two depths."
    shares = findings.effects.shares
    if shares is not None:
        text += (
            f" Of the variance among the architectures depth has {share(shares.depth)}, latent size "
            f"{share(shares.latent)}, the two together {share(shares.interaction)}."
        )
    return text


def cost(findings: Findings) -> str:
    """Caption of loss against cost."""
    fronts = {
        kind: listed((point.result.name for point in front(findings.results, kind) if point.on_front), limit=9)
        for kind in Cost
    }
    return (
        f"Test loss, {_over_seeds(findings)}, against what a model costs. Filled: no other architecture has as low a "
        f"loss at as low a cost (Pareto front, by mean loss). By "
        f"{'; by '.join(f'{kind}: {names}' for kind, names in fronts.items())}."
    )


def depth(findings: Findings) -> str:
    """Caption of what depth does."""
    return (
        f"Test loss, gap between validation and training at the last epoch, and training time, "
        f"{_over_seeds(findings)}, with 95{SPACE}% intervals where there are seeds. "
        + " ".join(depth_sentences(findings))
    )


def reader(findings: Findings) -> str:
    """Caption of how many images are read rightly."""
    references, condition = findings.references, findings.condition
    assert references is not None
    reader, noisy = references.reader, condition.accuracy_noisy if condition else None
    noun = findings.sweep.manifest.noun
    assert reader is not None  # nothing is read without one
    accuracies = {result.name: accuracy(findings, result) for result in findings.results}
    shares = {name: accuracy for name, accuracy in accuracies.items() if accuracy is not None}
    best, worst = max(shares, key=lambda name: shares[name].mean), min(shares, key=lambda name: shares[name].mean)
    text = (
        f"A classifier trained on clean {noun}s ({reader.parameters:,} parameters) reads "
        f"{share(reader.accuracy_clean)} of the {len(references.labels):,} clean test {noun}s"
        + (f", {share(noisy)} of the noisy ones" if noisy is not None else "")
        + f", and of those denoised {share(shares[worst].mean)} ({worst}) to {share(shares[best].mean)} ({best}). Bars "
        f"are 95{SPACE}% intervals over test images, and over seeds where there are several."
    )
    losses = [result.mean or 0.0 for result in findings.results if result.name in shares]
    rho = rank_correlation(losses, [shares[result.name].mean for result in findings.results if result.name in shares])
    if rho is not None:
        word = "A lower loss goes with" if rho < -0.5 else "A lower loss does not go with"
        text += f" {word} more readable {noun}s: rank correlation {rho:+.2f} over {len(losses)} architectures."
    return text.replace("-0.", "\N{MINUS SIGN}0.")


def classes(findings: Findings) -> str:
    """Caption of losses and misread images by class."""
    what = "digits" if findings.sweep.manifest.shows_digits else "classes"
    return f"Which {what} are hard: means over the test images of a class, {_over_seeds(findings)}."


def confusion(findings: Findings) -> str:
    """Caption of the confusion matrix."""
    record, noun = worst_read(findings), findings.sweep.manifest.noun
    assert record is not None
    what = "a digit" if findings.sweep.manifest.shows_digits else "a class"
    return (
        f"The cell of which the fewest {noun}s are read, {record.key}: in each row what {what} is taken for, in % of "
        "its test images; empty is never."
    )


def robustness(findings: Findings) -> str:
    """Caption of other strengths of noise."""
    settings = findings.sweep.manifest.settings
    return (
        f"Test loss of the models trained at strength {settings.alpha:g} of {settings.noise} noise, tested at others, "
        "mean over the evaluated seeds; the table below has the numbers."
    )


def facets(findings: Findings) -> str:
    """Caption of the panels, one a point on the further axes."""
    shown = [facet for facet in findings.facets if any(result.losses for result in facet.results)]
    seeds = len(findings.whole.manifest.grid.seeds)
    return (
        f"The grid at {counted(len(shown), 'point')} on the sweep's further axes; mean over up to "
        f"{counted(seeds, 'seed')}, 95{SPACE}% intervals where there are several. Losses under other noises are not "
        "comparable as such: each panel has its own task."
    )


def corruption(findings: Findings) -> str:
    """Caption of clean and corrupted images."""
    manifest, settings = findings.sweep.manifest, findings.sweep.manifest.settings
    how = {
        "gaussian": f"adding {settings.alpha:g} n, n ~ N(0, 1), and clipping to [0, 1]",
    }.get(settings.noise, f"{settings.noise} noise of strength {settings.alpha:g}")
    samples = findings.arrays.samples
    assert samples is not None
    classes = len(manifest.classes)
    which = "One test image of each class" if classes else f"{counted(len(samples.clean), 'test image')}, evenly spread"
    if classes > len(samples.clean):
        which = f"One test image of each of the first {len(samples.clean)} of {classes} classes"
    text = f"{which}, before and after {how}."
    if manifest.has_own_noise:
        text = f"{which}, clean and as noisy as the dataset has them."
    if identity := findings.sweep.manifest.baselines.get("identity"):
        text += f" Over the test set the corruption is an MSE of {mse(identity)}: what a cell has to remove."
    return text


def example(findings: Findings) -> str:
    """Caption of the one test image."""
    record, index = typical(findings)
    samples = findings.arrays.samples
    assert samples is not None
    classes = findings.sweep.manifest.classes
    what = f"Test image of class {classes[int(samples.labels[index])]}" if classes else "A test image"
    return (
        f"{what}: of the {number_word(len(samples.clean))} samples the one of median error under "
        f"{record.architecture} (seed {record.seed}), the architecture with the lowest test loss whose images can be "
        "read."
    )


def denoised(findings: Findings) -> str:
    """Caption of the sheet of denoised images and its holes."""
    results = findings.results
    ranked = sorted((result for result in results if result.losses), key=lambda result: result.mean or 0.0)
    holes = [result.name for result in results if not result.records]
    count = 10 if findings.arrays.samples is None else len(findings.arrays.samples.clean)
    shown = f"{number_word(count)} test image{'s' * (count != 1)}"
    text = (
        f"The same {shown} under every architecture, clean and corrupted on top; below each strip its MSE over "
        f"the whole test set (seed {listed(map(str, sorted(shown_seeds(findings))))}). Lowest on average: "
        f"{ranked[0].name}, highest: {ranked[-1].name}."
    )
    if holes:
        text += f" Holes: {listed(holes)}."
    return text


def extremes(findings: Findings) -> str:
    """Caption of the best, median and worst images."""
    return (
        "The test images that each architecture denoises best, at the median and worst, of all test images: clean, "
        "corrupted, denoised. Numbers are the MSE of the image; the first evaluated seed is shown."
    )


def _over_seeds(findings: Findings) -> str:
    """How many seeds a mean is over."""
    counts = sorted({len(result.losses) for result in findings.results if result.losses})
    if counts[-1] == 1:
        return "one seed (n = 1)"
    return f"mean over seeds (n = {counts[0] if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'})"
