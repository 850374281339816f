"""Bytes and JSON that carry their digest, so that damage is noticed."""

import hashlib
import json

from dae.errors import UserError


class Damaged(Exception):
    """A file is there but is not what was written."""


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def seal(data: bytes) -> bytes:
    """``data`` after a line with its digest, for files whose digest no record holds."""
    return digest(data).encode() + b"\n" + data


def unseal(data: bytes) -> bytes:
    """The bytes that `seal` was given.

    Raises:
        Damaged: they are not those.
    """
    seal_line, _, payload = data.partition(b"\n")
    if seal_line != digest(payload).encode():
        raise Damaged("its content does not match its digest")
    return payload


def dump_json(document: dict[str, object]) -> bytes:
    """The document as readable JSON that carries its own digest."""
    return _dump(document | {"sha256": digest(_dump(document))})


def load_json(data: bytes, *, schema: int) -> dict[str, object]:
    """The document that `dump_json` wrote.

    Raises:
        Damaged: it was truncated or changed since.
        UserError: it has another schema.
    """
    try:
        document: dict[str, object] = json.loads(data)
        claimed = document.pop("sha256")
        content = _without_digest(data, claimed)
        if claimed != digest(content):
            content = _dump(document)  # the same document in another layout
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged("it is not the JSON that was written") from error
    if claimed != digest(content):
        raise Damaged("its content does not match its digest")
    if document.get("schema") != schema:
        raise UserError(
            f"this sweep was written with schema {document.get('schema')}, this version reads schema {schema}: "
            "use the version of dae-sweep that wrote it, or another --name."
        )
    return document


def _without_digest(data: bytes, claimed: object) -> bytes:
    """What `dump_json` took the digest of, cut out of what it wrote: dumping anew takes ten times as long."""
    return data.removesuffix(b',\n "sha256": "%s"\n}\n' % str(claimed).encode()) + b"\n}\n"


def _dump(document: dict[str, object]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
