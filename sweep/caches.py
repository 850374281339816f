"""Where libraries keep compiled code from sweep to sweep: beside Ray's files, in no folder of the user's."""

import os
import tempfile
from pathlib import Path


def keep_beside_ray() -> None:
    """Tell Triton and torch, which would use the home folder and a temporary folder each of its own."""
    beside = Path(tempfile.gettempdir()) / "ray"
    os.environ.setdefault("TRITON_CACHE_DIR", str(beside / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(beside / "torchinductor"))
