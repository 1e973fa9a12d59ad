"""Which addresses of servers are refused where they are named."""

import pytest

from agentgym.errors import UsageError
from agentgym.policies.server_url import checked_url


@pytest.mark.parametrize("url", ["http://h:8000", "https://h/v1", "http://[::1]:8000/", "HTTP://h"])
def test_the_address_of_a_server_is_taken_apart(url: str) -> None:
    assert checked_url(url, "http://HOST:PORT", "KEY").hostname in ("h", "::1")


@pytest.mark.parametrize("mark", ["\r", "\n", "\t", "\0", "\x7f", " ", "\xa0", "\u200b"])
@pytest.mark.parametrize("url", ["http://h:8000{}", "{}http://h", "http://h{}h", "http://h/v1{}/x"])
def test_an_address_with_what_no_request_can_carry_is_refused(url: str, mark: str) -> None:
    with pytest.raises(UsageError, match=r"^a server is given as http://HOST:PORT, got '"):
        checked_url(url.format(mark), "http://HOST:PORT", "KEY")


@pytest.mark.parametrize("url", ["h:8000", "ftp://h", "http://", "http://h:0", "http://h:abc"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="a server is given as http://HOST:PORT, got"):
        checked_url(url, "http://HOST:PORT", "KEY")
