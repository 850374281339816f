"""URIs of buckets, ``s3://`` and ``gs://``, and pyarrow's file systems for them.

Credentials come from the environment of each process or from its machine's role, never from the URI, which is printed.
"""

import os
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pyarrow import fs

from dae.errors import UserError
from sweep.storage.requests import FIRST_PATIENCE_S, REFUSALS, REQUEST_TIMEOUT_S

Options = tuple[tuple[str, str], ...]
"""Arguments of pyarrow's file system, sorted; the same on every node."""

OPTIONS = {
    "s3": ("scheme", "endpoint_override", "region", "force_virtual_addressing", "tls_ca_file_path", "anonymous"),
    "gs": ("scheme", "endpoint_override", "project_id", "anonymous"),
}
"""What may follow the ``?`` of a URI, under pyarrow's names."""


def parse(uri: str) -> tuple[str, Path, Options]:
    """The scheme of a URI, its bucket and folder, and its options, with those of the environment.

    Raises:
        UserError: the URI is not valid.
    """
    parts = urlsplit(uri)
    scheme = {"gcs": "gs"}.get(parts.scheme, parts.scheme)
    if scheme not in OPTIONS:
        raise UserError(
            f"storage {scheme}:// is not known: give a folder (local or mounted), s3://BUCKET/FOLDER or "
            "gs://BUCKET/FOLDER."
        )
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in parts.netloc or {"access_key", "secret_key", "session_token", "access_token"} & given.keys():
        raise UserError(
            f"the storage {scheme}://... holds credentials: they would be seen wherever it is printed. Put them into "
            "the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS), or give "
            "the machine a role."
        )
    if unknown := sorted(given.keys() - set(OPTIONS[scheme])):
        raise UserError(f"storage option {', '.join(unknown)} is not known: {', '.join(OPTIONS[scheme])} are.")
    if not parts.netloc:
        raise UserError(f"storage {scheme}:// names no bucket: write {scheme}://BUCKET/FOLDER.")
    if scheme == "s3":
        given = _s3_environment() | given
    folder = Path(parts.netloc, *filter(None, unquote(parts.path).split("/")))
    return scheme, folder, tuple(sorted(given.items()))


def _s3_environment() -> dict[str, str]:
    """Endpoint and region from this process's environment, for nodes whose environment does not give them."""
    options = {}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        scheme, _, options["endpoint_override"] = endpoint.rstrip("/").rpartition("://")
        options["scheme"] = scheme or "https"
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        options["region"] = region
    return options


@cache
def filesystem(scheme: str, options: Options) -> fs.FileSystem:
    """Pyarrow's file system; it may ask for the region of the bucket."""
    given: dict[str, Any] = dict(options)
    for name in ("anonymous", "force_virtual_addressing"):
        if name in given:
            given[name] = given[name].lower() in ("true", "1", "")
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=FIRST_PATIENCE_S), **given)
    return fs.S3FileSystem(
        connect_timeout=REQUEST_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        allow_delayed_open=True,  # one request for a small object instead of three
        **given,
    )


def endpoint(scheme: str, options: Options) -> str:
    """Where the buckets are, as messages have it."""
    return dict(options).get("endpoint_override") or {"s3": "AWS", "gs": "Google Cloud"}[scheme]


def advice(scheme: str, options: Options, why: str) -> str:
    """What to look at where a bucket cannot be used for this reason."""
    if why not in REFUSALS.values():
        where = endpoint(scheme, options)
        return f"Is {where} the right endpoint, and within reach? See AWS_ENDPOINT_URL or endpoint_override."
    names = {
        "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or AWS_PROFILE, or the machine's role",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
    }
    return f"Check {names[scheme]}."
