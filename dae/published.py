"""The files of the datasets with a name: located in a folder or downloaded into it, and checked. Without torch."""

import errno
import gzip
import hashlib
import math
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from dae.config import EMBEDDED, IMAGE_SIZE
from dae.errors import UserError

CLASSES = 10
STALL_S = 12.0
"""A download that receives no byte for this time is stopped."""

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset of four IDX files.

    Attributes:
        folder: torchvision's name of the dataset's class and folder.
        sha256: of each of `FILES` uncompressed, where known.
    """

    folder: str
    sha256: tuple[str, str, str, str] | None = None


SOURCES = {
    "mnist": Source(
        "MNIST",
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": Source(
        "FashionMNIST",
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    "kmnist": Source("KMNIST"),
}


def find(name: str, data_dir: Path) -> Path | None:
    """The folder with all four files, in one of the usual layouts; None where there is none.

    Raises:
        UserError: it cannot be looked into.
    """
    try:
        for folder in (data_dir, data_dir / "raw", data_dir / SOURCES[name].folder / "raw"):
            if all((folder / file).is_file() or (folder / f"{file}.gz").is_file() for file in FILES):
                return folder
    except OSError as error:
        raise _unreadable(data_dir, error) from error
    return None


def read(name: str, folder: Path, index: int) -> npt.NDArray[np.uint8]:
    """Number ``index`` of the dataset's `FILES` in the folder: images (n, 28, 28) or labels (n,).

    Raises:
        UserError: it cannot be read, is corrupt, or of another dataset.
    """
    path = folder / FILES[index]
    try:
        if path.is_file():
            content = path.read_bytes()
        else:
            path = path.with_name(f"{path.name}.gz")
            content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _corrupt(path, str(error)) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    known = _dataset_of(content, index)
    if known not in (None, name):
        raise UserError(f"{path} is a file of {known}, not of {name}. Give --dataset {known} or another --data-dir.")
    if known is None and SOURCES[name].sha256 is not None:
        raise _corrupt(path, f"its content is not that of {name}")
    array = _parse_idx(path, content, count=60_000 if index < 2 else 10_000, is_image=index % 2 == 0)
    _check_values(path, array)
    return array


def _dataset_of(content: bytes, index: int) -> str | None:
    """The dataset whose file number ``index`` has this content, however it was packed; None for an unknown one."""
    digest = hashlib.sha256(content).hexdigest()
    known = {source.sha256[index]: name for name, source in SOURCES.items() if source.sha256 is not None}
    return known.get(digest)


def _check_values(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """Refuse images that are all of one grey, which cannot be scaled, and labels other than the ten classes.

    Raises:
        UserError: it is such a file.
    """
    if array.ndim > 1:
        if array.min() == array.max():
            raise _corrupt(path, f"every pixel of every image is {array.min()}")
        return
    if array.max() >= CLASSES:
        first = int(np.argmax(array >= CLASSES))
        raise _corrupt(path, f"label {array[first]} of image {first} is none of the classes 0 to {CLASSES - 1}")
    if missing := sorted(set(range(CLASSES)) - set(array.tolist())):
        raise _corrupt(path, f"no image is of class {', '.join(map(str, missing))}")


def _parse_idx(path: Path, content: bytes, *, count: int, is_image: bool) -> npt.NDArray[np.uint8]:
    """An IDX file: two zero bytes, the type (8: unsigned byte), the rank, the sizes (big-endian), the elements."""
    shape = (count, IMAGE_SIZE, IMAGE_SIZE) if is_image else (count,)
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
    if not content.startswith(header):
        raise _corrupt(path, f"it does not begin as an IDX file of shape {shape} does")
    if len(content) != len(header) + math.prod(shape):
        raise _corrupt(path, f"it has {len(content)} bytes where {len(header) + math.prod(shape)} are due")
    return np.frombuffer(content, dtype=np.uint8, offset=len(header)).reshape(shape)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {path}: {error.strerror}. Give a --data-dir that can be read.")


def _corrupt(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is truncated or corrupt: {reason}. Remove it to have it downloaded again, or put the right file there."
    )


DOWNLOADER = "import sys, torchvision.datasets as d; getattr(d, sys.argv[1])(sys.argv[2], download=True)"


def download(name: str, data_dir: Path) -> Path:
    """Let torchvision download into ``data_dir``, in one process at a time; files appear there only when complete.

    Raises:
        UserError: it could not.
    """
    folder = SOURCES[name].folder
    target, lock = data_dir / folder / "raw", data_dir / f".{folder}.lock"
    missing = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _alone(lock):
            if downloaded := find(name, data_dir):
                return downloaded
            with tempfile.TemporaryDirectory(prefix=f".{folder}-", dir=data_dir) as aside:
                problem = _run_downloader(folder, Path(aside))
                if problem is None:
                    target.mkdir(parents=True, exist_ok=True)
                    for file in (Path(aside) / folder / "raw").iterdir():
                        file.replace(target / file.name)
                    return target
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}"
    finally:
        with suppress(OSError):
            lock.unlink()
    with suppress(OSError):
        for path in missing:
            path.rmdir()  # only empty ones
    raise UserError(
        f"the files of {name} are not in {data_dir} and could not be downloaded ({problem}).\n"
        f"Put {', '.join(FILES)} (raw or .gz) into {target} or name their folder with --data-dir,\n"
        f"or use the digits that need no download: --dataset {EMBEDDED}."
    )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Meanwhile no other process that does the same; where the file system has no locks, several may download."""
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(lock))
        except (OSError, NotImplementedError) as error:  # filelock has either of a file system without locks
            if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        yield


def _run_downloader(folder: str, aside: Path) -> str | None:
    """What went wrong, or None. In a separate process, so that a stalled download can be stopped."""
    log = aside / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", DOWNLOADER, folder, aside], stdout=output, stderr=output
        )
    size, last_gain = -1, time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(0.2)
            new_size = sum(file.stat().st_size for file in aside.rglob("*") if file.is_file())
            if new_size != size:
                size, last_gain = new_size, time.monotonic()
            elif time.monotonic() - last_gain > STALL_S:
                return f"no byte arrived for {STALL_S:.0f} s"
    finally:
        process.kill()
        process.wait()
    if process.returncode == 0:
        return None
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the downloader ended with {process.returncode}"
