"""A trained model as one file for other programs, checked to compute the same, and a card that says what it is."""

from dataclasses import dataclass

import torch

from dae.errors import UserError
from sweep.models.card import card
from sweep.models.formats import FORMATS
from sweep.models.trained import TrainedModel
from sweep.records.sweep import Sweep

CHECKED_IMAGES = 5
TOLERANCE = 1e-5
"""Most that a pixel in [0, 1] may differ: what other orders of summation in float32 do."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A model in one file.

    Attributes:
        content: of the file.
        card: the model card, Markdown.
        difference: most that a pixel in [0, 1] differs from what the plain module gives.
    """

    content: bytes
    card: str
    difference: float


def export(sweep: Sweep, model: TrainedModel, format_name: str, file_name: str) -> Exported:
    """Export a model to one of `FORMATS`; ``file_name`` is what the card calls the file.

    Raises:
        UserError: something is not installed, or the file does not give what the model gives.
    """
    file_format = FORMATS[format_name]
    file_format.check()
    content = file_format.write(model)
    difference = _difference(model, content, format_name)
    if not difference <= TOLERANCE:  # not a number is no agreement
        raise UserError(
            f"the {format_name} file gives other images than {model.record.key}, by up to {difference:.2g}: nothing "
            f"is written. Try another format: {', '.join(name for name in FORMATS if name != format_name)}."
        )
    return Exported(content, card(sweep, model, file_format, content, file_name, difference), difference)


def _difference(model: TrainedModel, content: bytes, format_name: str) -> float:
    """The largest difference on noise, in batches of other sizes than the one it was written with."""
    image, generator = model.image, torch.Generator().manual_seed(0)
    noisy = torch.rand(CHECKED_IMAGES, image.channels, image.height, image.width, generator=generator)
    apply = FORMATS[format_name].read(content, model)
    with torch.inference_mode():
        pairs = [(apply(batch), model.module(batch)) for batch in (noisy, noisy[:1])]
        return max(float((theirs - plain).abs().max()) for theirs, plain in pairs)
