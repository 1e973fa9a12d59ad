"""Addresses of HTTP servers, as people type or paste them."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def http_parts(url: str) -> SplitResult | None:
    """Return the parts of the address of an HTTP server; None where it is not one.

    ``urlsplit`` takes more than clients do: it drops line ends and tabs, and leaves other
    characters in that no request line can carry.
    """
    if not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, half an address of IPv6
        return None
    return parts if is_one else None
