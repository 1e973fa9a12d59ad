"""Addresses of servers that people name: each is one, and none tells a secret."""

from __future__ import annotations

from urllib.parse import SplitResult

from agentgym.errors import UsageError
from agentgym.http_url import http_parts


def checked_url(url: str, example: str, key: str) -> SplitResult:
    """Return the parts of a server's URL.

    Args:
        url: As it was given.
        example: What one looks like.
        key: The environment variable that has the server's key.

    Raises:
        UsageError: It is no URL of HTTP, or carries a user, a password, a query or a fragment,
            which logs, run folders and results would keep.
    """
    if any(mark in url for mark in "@?#"):
        raise UsageError(
            "the URL of a server carries a user, a password, a query or a fragment, which would be"
            " written into logs, run folders and results; leave them out and set the environment"
            f" variable {key}; expected {example}"
        )
    parts = http_parts(url)
    if parts is None:
        raise UsageError(f"a server is given as {example}, got {url!r}")
    return parts
