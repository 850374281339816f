"""The model card beside an exported model: what it was trained on, its losses, how to call it."""

import shlex

from sweep.analysis.without_model import Alternative, alternatives, warning
from sweep.models.calling import program
from sweep.models.formats import Format
from sweep.models.trained import TrainedModel
from sweep.records.record import Record
from sweep.records.sweep import Sweep
from sweep.records.words import counted
from sweep.storage.sealing import digest

CARD = """\
# {key}

{warning}A denoising autoencoder: it takes noisy images and gives denoised ones.
Cell {key} of sweep {sweep}, trained by dae-sweep.

| | |
|---|---|
{facts}

## How to call it

It takes and gives float32 of shape (n, {channels}, {height}, {width}), any n, in which {meaning}.
This denoises one picture, in the folder of the file:

```python
{program}```

The file knows images of {height}x{width} pixels alone, and so does this. `dae-sweep denoise` takes pictures of any
size, in overlapping tiles, but it works from the sweep and not from this file:
`dae-sweep denoise PICTURE --sweep {argument} --cell {key} --out FOLDER`.

## What to expect

{expectations}
"""


def card(
    sweep: Sweep, model: TrainedModel, file_format: Format, content: bytes, file_name: str, difference: float
) -> str:
    """The card, Markdown."""
    record, image = model.record, model.image
    without = alternatives(sweep, record)
    facts = {
        "file": f"`{file_name}`, SHA-256 `{digest(content)}`",
        "checked": f"read again, its images differ from the plain module's by at most {difference:.2g}",
        **_facts(sweep, record, without),
    }
    warned = warning(record, without)
    return CARD.format(
        key=record.key,
        sweep=sweep.manifest.name,
        warning=f"**{warned}**\n\n" if warned else "",
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        channels=image.channels,
        height=image.height,
        width=image.width,
        meaning=_meaning(model),
        argument=shlex.quote(sweep.store.name),
        program=program(model, file_format, file_name),
        expectations="\n".join(f"- {line}" for line in _expectations(sweep, record)),
    )


def _meaning(model: TrainedModel) -> str:
    """Which values of a picture are 0 and 1 to the model."""
    scale = model.scale
    if scale.factor is not None:
        low, high = scale.of_type(float)
        return f"0 and 1 are {low:g} and {high:g} of the numbers that it was trained on"
    bits = 8 if scale.pixel_type().itemsize == 1 else 16
    return f"0 and 1 are the values {scale.low} and {scale.high} of pixels of {bits} bits"


def _facts(sweep: Sweep, record: Record, without: list[Alternative]) -> dict[str, str]:
    """What it was trained on, how, and its losses."""
    config, dataset, environment = record.config, sweep.manifest.dataset, record.environment
    last = record.history[-1] if record.history else None
    facts = {
        "trained on": f"{dataset['name']}: {dataset['train']:,} training, {dataset['validation']:,} validation and "
        f"{dataset['test']:,} test images; fingerprint `{dataset['fingerprint']}`",
        "noise": sweep.manifest.noise_of(record.cell),
        "architecture": f"depth {record.depth}, latent {record.latent}, {record.parameters:,} parameters, "
        f"{record.macs:,} multiply-accumulates an image",
        "training": f"{counted(config['epochs'], 'epoch')}, batches of {config['batch_size']}, "
        f"Adam at {config['lr']:g}, seed {record.seed}",
        "test loss": _test_loss(record),
    }
    if last is not None:
        facts["last epoch"] = f"training loss {last.train_loss:.6f}, validation loss {last.val_loss:.6f}"
    if without:
        facts["without a model"] = ", ".join(
            f"{one.name}{f' ({one.rank})' * bool(one.rank)} {one.test_loss:.6f}"
            + (f" on {one.images:,} test images" if one.images is not None else "")
            for one in without
        )
    facts["made with"] = ", ".join(
        f"{name} {environment[name]}" for name in ("python", "torch", "device") if environment.get(name)
    )
    facts["finished"] = str(record.finished_at)
    return facts


def _test_loss(record: Record) -> str:
    if record.test_loss is None:
        return "not tested: a trial of a search"
    lossless = "" if record.test_psnr_db is None else f" (PSNR {record.test_psnr_db:.2f} dB)"
    return f"{record.test_loss:.6f}{lossless}, mean squared error per pixel"


def _expectations(sweep: Sweep, record: Record) -> list[str]:
    lines = [
        f"It was trained to remove {sweep.manifest.noise_of(record.cell)} from images such as those of "
        f"{sweep.manifest.dataset['name']}; of other images and other noise its losses say nothing."
    ]
    if record.collapsed:
        lines.append("Collapsed: it is no better than the mean training image.")
    if record.unconverged:
        lines.append("Unconverged: its validation loss still fell by more than 1 % an epoch.")
    if record.dead_latent_channels:
        lines.append(f"{record.dead_latent_channels} of its latent channels are 0 for every image.")
    return lines
