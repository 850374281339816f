"""Where libraries keep what they make once, from sweep to sweep: beside Ray's files, in no folder of the user's."""

import os
import tempfile
from pathlib import Path


def keep_beside_ray() -> None:
    """Tell Triton and torch (compiled code) and matplotlib (the list of fonts), which would use the home folder."""
    beside = Path(tempfile.gettempdir()) / "ray"
    os.environ.setdefault("TRITON_CACHE_DIR", str(beside / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(beside / "torchinductor"))
    os.environ.setdefault("MPLCONFIGDIR", str(beside / "matplotlib"))
