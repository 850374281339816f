"""What several processes share: a file that each maps into its memory, so that large arrays are there once."""

import mmap
import pickle
from pathlib import Path
from typing import Any

ALIGNMENT = 64
"""Bytes; of where an array begins."""


def write(value: object, file: Path) -> None:
    """Write an object; its contiguous arrays go into the file one after another, without a copy in memory."""
    arrays: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    places = []
    with file.open("wb") as out:
        for array in arrays:
            with array.raw() as memory:
                out.write(bytes(-out.tell() % ALIGNMENT))
                places.append((out.tell(), memory.nbytes))
                out.write(memory)
        end = out.tell()
        out.write(pickle.dumps((content, places)))
        out.write(end.to_bytes(8, "little"))


def read(file: Path) -> Any:
    """The object that `write` wrote, its arrays read-only views of the file, which may be removed meanwhile."""
    with file.open("rb") as opened:
        memory = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    end = int.from_bytes(memory[-8:], "little")
    content, places = pickle.loads(memory[end:-8])
    return pickle.loads(content, buffers=[memory[start : start + size] for start, size in places])
