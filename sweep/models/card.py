"""The model card beside an exported model: what it was trained on, its losses, how to call it."""

from sweep.models.formats import Format
from sweep.models.trained import TrainedModel
from sweep.records.record import Record
from sweep.records.sweep import SAMPLES, Sweep, samples_file
from sweep.storage.sealing import digest

CARD = """\
# {key}

A denoising autoencoder: it takes noisy images and gives denoised ones.
Cell {key} of sweep {sweep}, trained by dae-sweep.

| | |
|---|---|
{facts}

## How to call it

`noisy` is {takes} of float32, shape (n, {channels}, {height}, {width}), any n; pixel values {low} to {high} become 0
to 1: `noisy = (pixels - {low}) / {range}`. So is `denoised`; `denoised * {range} + {low}` gives pixels.

```python
{usage}
```

`dae-sweep denoise` takes pictures of any size through it in overlapping tiles.

## What to expect

{expectations}
"""


def card(
    sweep: Sweep, model: TrainedModel, file_format: Format, content: bytes, file_name: str, difference: float
) -> str:
    """The card, Markdown."""
    record, image, scale = model.record, model.image, model.scale
    facts = {
        "file": f"`{file_name}`, SHA-256 `{digest(content)}`",
        "checked": f"read again, its images differ from the plain module's by at most {difference:.2g}",
        **_facts(sweep, record),
    }
    return CARD.format(
        key=record.key,
        sweep=sweep.manifest.name,
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        takes=file_format.takes,
        channels=image.channels,
        height=image.height,
        width=image.width,
        low=scale.low,
        high=scale.high,
        range=scale.high - scale.low,
        usage=file_format.usage.replace("{file}", file_name).replace("{config}", repr(model.config)),
        expectations="\n".join(f"- {line}" for line in _expectations(sweep, record)),
    )


def _facts(sweep: Sweep, record: Record) -> dict[str, str]:
    """What it was trained on, how, and its losses."""
    config, dataset, environment = record.config, sweep.manifest.dataset, record.environment
    last = record.history[-1] if record.history else None
    lossless = "" if record.test_psnr_db is None else f" (PSNR {record.test_psnr_db:.2f} dB)"
    facts = {
        "trained on": f"{dataset['name']}: {dataset['train']:,} training, {dataset['validation']:,} validation and "
        f"{dataset['test']:,} test images; fingerprint `{dataset['fingerprint']}`",
        "noise": sweep.manifest.noise_of(record.cell),
        "architecture": f"depth {record.depth}, latent {record.latent}, {record.parameters:,} parameters, "
        f"{record.macs:,} multiply-accumulates an image",
        "training": f"{config['epochs']} epochs, batches of {config['batch_size']}, Adam at {config['lr']:g}, "
        f"seed {record.seed}",
        "test loss": f"{record.test_loss:.6f}{lossless}, mean squared error per pixel",
    }
    if last is not None:
        facts["last epoch"] = f"training loss {last.train_loss:.6f}, validation loss {last.val_loss:.6f}"
    baselines = _baselines(sweep, record)
    if baselines:
        facts["without a model"] = ", ".join(f"{name.replace('_', ' ')} {loss:.6f}" for name, loss in baselines.items())
    facts["made with"] = ", ".join(
        f"{name} {environment[name]}" for name in ("python", "torch", "device") if environment.get(name)
    )
    facts["finished"] = str(record.finished_at)
    return facts


def _baselines(sweep: Sweep, record: Record) -> dict[str, float]:
    """Test losses of doing nothing and of the mean image, under the noise of the cell."""
    file = samples_file(record.cell.axes)
    return dict(sweep.manifest.baselines if file == SAMPLES else sweep.manifest.conditions.get(file, {}))


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
