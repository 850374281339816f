"""What an image is, as a digest: the same wherever and however it is stored."""

import hashlib

import numpy as np

from dae.images.rows import Pixels


def digest_of(image: Pixels) -> bytes:
    """SHA-256 of size and pixels; of 16 bits and of 8 the same where the pixels are the same."""
    if image.dtype == np.uint16:
        image = image.astype(np.uint8) if image.max() <= 0xFF else image.astype("<u2", copy=False)
    content = hashlib.sha256(f"{image.shape}".encode())
    content.update(np.ascontiguousarray(image).data)
    return content.digest()
