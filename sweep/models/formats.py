"""The file formats that a trained model is exported to; each is read again to see that it gives the same."""

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import safetensors.torch
import torch

from dae.errors import UserError
from dae.model import DenoisingAutoencoder
from sweep.models.trained import TrainedModel

Apply = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Format:
    """One file format.

    Attributes:
        suffix: of its files.
        write: the content of the file of a model.
        read: what such a content computes, on a batch of any size.
        usage: lines of Python that make ``denoised`` of ``noisy``, both NumPy arrays; ``{file}`` stands for the file's
            name, ``{config}`` for the model's `ModelConfig`.
        modules: what has to be installed beside torch.
    """

    suffix: str
    write: Callable[[TrainedModel], bytes]
    read: Callable[[bytes, TrainedModel], Apply]
    usage: str
    modules: tuple[str, ...] = ()

    def check(self) -> None:
        """Check that all is installed that it needs.

        Raises:
            UserError: something is not.
        """
        missing = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"{', '.join(missing)} not installed: pip install 'dae-sweep[export]' brings what it needs."
            )


def _example(model: TrainedModel) -> torch.Tensor:
    return torch.zeros(2, model.image.channels, model.image.height, model.image.width)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of exporters on themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_onnx(model: TrainedModel) -> bytes:
    with _quiet():
        program = torch.onnx.export(
            model.module, (_example(model),), input_names=["noisy"], output_names=["denoised"],
            dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def _read_onnx(content: bytes, _model: TrainedModel) -> Apply:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda noisy: torch.from_numpy(session.run(None, {"noisy": noisy.numpy()})[0])


def _write_torchscript(model: TrainedModel) -> bytes:
    file = io.BytesIO()
    with _quiet():  # deprecated by torch in favour of pt2, and what many programs in C++ still read
        torch.jit.save(torch.jit.trace(model.module, _example(model)), file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def _read_torchscript(content: bytes, _model: TrainedModel) -> Apply:
    with _quiet():
        loaded: Apply = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return loaded


def _write_pt2(model: TrainedModel) -> bytes:
    file = io.BytesIO()
    with _quiet():
        program = torch.export.export(
            model.module, (_example(model),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, file)
    return file.getvalue()


def _read_pt2(content: bytes, _model: TrainedModel) -> Apply:
    with _quiet():
        loaded: Apply = torch.export.load(io.BytesIO(content)).module()
    return loaded


def _write_safetensors(model: TrainedModel) -> bytes:
    about = {
        "cell": model.record.key,
        "config": json.dumps(asdict(model.config)),
        "scale": json.dumps(asdict(model.scale)),
    }
    content: bytes = safetensors.torch.save(model.module.state_dict(), metadata=about)
    return content


def _read_safetensors(content: bytes, model: TrainedModel) -> Apply:
    module = DenoisingAutoencoder(model.config).eval()
    module.load_state_dict(safetensors.torch.load(content))
    return module


FORMATS = {
    "onnx": Format(
        ".onnx",
        _write_onnx,
        _read_onnx,
        """import onnxruntime
session = onnxruntime.InferenceSession("{file}")
denoised = session.run(None, {"noisy": noisy})[0]""",
        modules=("onnx", "onnxscript", "onnxruntime"),
    ),
    "torchscript": Format(
        ".pt",
        _write_torchscript,
        _read_torchscript,
        """import torch
model = torch.jit.load("{file}")
with torch.inference_mode():
    denoised = model(torch.from_numpy(noisy)).numpy()""",
    ),
    "pt2": Format(
        ".pt2",
        _write_pt2,
        _read_pt2,
        """import torch
model = torch.export.load("{file}").module()
with torch.inference_mode():
    denoised = model(torch.from_numpy(noisy)).numpy()""",
    ),
    "safetensors": Format(
        ".safetensors",
        _write_safetensors,
        _read_safetensors,
        """import torch
from safetensors.torch import load_file
from dae.config import ImageShape, ModelConfig
from dae.model import DenoisingAutoencoder
model = DenoisingAutoencoder({config}).eval()
model.load_state_dict(load_file("{file}"))
with torch.inference_mode():
    denoised = model(torch.from_numpy(noisy)).numpy()""",
    ),
}
"""By the name that ``--format`` takes."""
