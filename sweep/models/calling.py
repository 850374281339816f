"""The program on a model card: it reads a picture, lets the exported model denoise it, and writes it."""

from dataclasses import dataclass

from sweep.models.formats import Format
from sweep.models.trained import TrainedModel

PROGRAM = """\
import numpy as np
{library}
pixels = np.asarray({read}, float)  # {what}
scaled = ((pixels - {low}) / {range}).clip(0, 1).astype(np.float32)
noisy = scaled.reshape(1, {height}, {width}, {channels}).transpose(0, 3, 1, 2)

{usage}

clean = (denoised[0].transpose(1, 2, 0) * {range} + {low}){kind}
{write}
"""


@dataclass(frozen=True, slots=True)
class _Files:
    """How pictures of a kind are read and written; in ``{...}`` the sizes of the model's images.

    Attributes:
        library: the line that imports what reads and writes.
        read: gives an image or array (height, width) or (height, width, 3).
        what: says what is read.
        kind: makes the type of a file of the values.
        write: writes ``clean``, an array (height, width) or (height, width, 3).
    """

    library: str
    read: str
    what: str
    kind: str
    write: str


def program(model: TrainedModel, file_format: Format, file_name: str) -> str:
    """Lines of Python that denoise a picture."""
    image = model.image
    files, (low, high) = _files(model)
    squeezed = "" if image.channels > 1 else "[..., 0]"
    sizes = {"height": image.height, "width": image.width, "channels": image.channels}
    return PROGRAM.format(
        library=files.library,
        read=files.read.format(**sizes),
        what=files.what.format(**sizes),
        low=low if low >= 0 else f"({low})",
        range=high - low,
        usage=file_format.usage.replace("{file}", file_name).replace("{config}", repr(model.config)),
        kind=files.kind + squeezed,
        write=files.write,
        **sizes,
    )


def _files(model: TrainedModel) -> tuple[_Files, tuple[float, float]]:
    """How pictures such as those of the training are read, and which of their values are 0 and 1 to the model."""
    scale, is_colour = model.scale, model.image.channels > 1
    if scale.factor is not None:
        what = "of the numbers that the model was trained on, top left {height}x{width}"
        read, write = 'np.load("picture.npy")[:{height}, :{width}]', 'np.save("denoised.npy", clean)'
        return _Files("", read, what, "", write), scale.of_type(float)
    limits = (scale.low, scale.high)
    if scale.pixel_type().itemsize == 1:
        mode = "RGB" if is_colour else "L"
        read = f'Image.open("picture.png").convert("{mode}").crop((0, 0, {{width}}, {{height}}))'
        kind, what = ".round().astype(np.uint8)", "the top left {height}x{width} of it"
    elif is_colour:  # of which Pillow would read the upper 8 bits
        what = "of 16 bits a channel; the top left {height}x{width} of it"
        read = 'tifffile.imread("picture.tif")[:{height}, :{width}]'
        write = 'tifffile.imwrite("denoised.tif", clean, photometric="rgb")'
        return _Files("import tifffile\n", read, what, ".round().astype(np.uint16)", write), limits
    else:
        read = 'Image.open("picture.png").crop((0, 0, {width}, {height}))'
        kind, what = ".round().astype(np.uint16)", "of 16 bits; the top left {height}x{width} of it"
    write = 'Image.fromarray(clean).save("denoised.png")'
    return _Files("from PIL import Image\n", read, what, kind, write), limits
