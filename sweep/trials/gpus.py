"""Which GPUs of this machine the process may use, by CUDA's rules."""

import os
import re
from collections.abc import Sequence
from importlib.metadata import version

import pynvml

VISIBLE = "CUDA_VISIBLE_DEVICES"
UUID = re.compile(r"(GPU|MIG)-")


def visible() -> list[str]:
    """Their names, as Ray calls those that it gives to trials; none where torch was built without CUDA."""
    if "+cpu" in version("torch"):
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        uuids = [_text(pynvml.nvmlDeviceGetUUID(_handle(number))) for number in range(_count())]
        parts = [part for number in range(len(uuids)) for part in _mig(_handle(number))]
    finally:
        pynvml.nvmlShutdown()
    return chosen(os.environ.get(VISIBLE), uuids, parts)


def chosen(given: str | None, uuids: Sequence[str], parts: Sequence[str] = ()) -> list[str]:
    """Those that ``CUDA_VISIBLE_DEVICES`` names, among all that are there.

    An entry that names no GPU, such as -1 or NoDevFiles, ends the list; a GPU that is named twice empties it.

    Args:
        given: the variable; None where it is not set.
        uuids: of all GPUs, in their order.
        parts: UUIDs of the MIG devices that they are cut into.
    """
    if given is None:
        return [str(number) for number in range(len(uuids))]
    names: list[str] = []
    meant: list[str] = []
    kind = ""
    for entry in map(str.strip, given.split(",")):
        prefix = match[1] if (match := UUID.match(entry)) else "number"
        target = _target(entry, uuids, parts)
        if target is None or kind not in ("", prefix):
            break
        if target in meant:
            return []
        kind = prefix
        meant.append(target)
        names.append(entry)
    return names[:1] if kind == "MIG" else names  # CUDA uses one MIG device a process


def _target(entry: str, uuids: Sequence[str], parts: Sequence[str]) -> str | None:
    """The UUID of what an entry names; None for nothing."""
    if UUID.match(entry):
        known = parts if entry.startswith("MIG-") else uuids
        alike = [uuid for uuid in known if uuid.startswith(entry)]
        return alike[0] if len(alike) == 1 else None
    if re.fullmatch(r"\+?\d+", entry) and int(entry) < len(uuids):
        return uuids[int(entry)]
    return None


def _count() -> int:
    return int(pynvml.nvmlDeviceGetCount())


def _handle(number: int) -> object:
    return pynvml.nvmlDeviceGetHandleByIndex(number)


def _mig(handle: object) -> list[str]:
    """UUIDs of the MIG devices of a GPU; none where it is whole."""
    try:
        if pynvml.nvmlDeviceGetMigMode(handle)[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
            return []
        most = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError:
        return []
    uuids = []
    for number in range(most):
        try:
            part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            uuids.append(_text(pynvml.nvmlDeviceGetUUID(part)))
        except pynvml.NVMLError:
            continue
    return uuids


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
