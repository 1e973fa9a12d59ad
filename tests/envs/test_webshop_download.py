"""Where WebShop's data is looked for, and Google Drive's page before a large file."""

from pathlib import Path

import pytest

from agentgym.download import DataSet, download
from agentgym.envs.webshop_download import FULL, SMALL, confirmed, data_folder
from agentgym.errors import DataError

PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form action="/search"><input type="text" name="q" value="no"></form>
<p>items.json (5.1G) is too large for Google to scan for viruses.</p>
<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">
<input type="submit" id="uc-download-link" value="Download anyway"/>
<input type="hidden" name="id" value="1A2w"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="a-b&amp;c">
</form><form><input name="later" value="no"></form></body></html>"""


def test_the_form_of_the_confirmation_page_is_filled_in() -> None:
    assert confirmed(PAGE) == (
        "https://drive.usercontent.google.com/download"
        "?id=1A2w&export=download&confirm=t&uuid=a-b%26c"
    )


@pytest.mark.parametrize(
    "page",
    [
        "<html><title>Google Drive - Quota exceeded</title><p>Try again later.</p></html>",
        '<form action="https://accounts.google.com/signin"><input name="email"></form>',
        "not even HTML < <<",
        "",
    ],
)
def test_other_pages_ask_for_no_confirmation(page: str) -> None:
    assert confirmed(page) is None


def test_every_file_has_a_hash_that_decides_which_address_has_it() -> None:
    for file in (*SMALL.files, *FULL.files):
        assert file.sha256 is not None
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.size
        assert len(file.urls) == 2
        assert file.urls[1].endswith(file.name)


@pytest.mark.parametrize("data", [SMALL, FULL])
def test_without_spacy_nothing_is_fetched_unless_the_nouns_are_there(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AskedError(Exception):
        pass

    def ask(*_: object) -> None:
        raise AskedError

    monkeypatch.setattr("agentgym.download.fetch", ask)
    monkeypatch.setattr("agentgym.envs.webshop_nouns._MODELS", ("no_such_model",))
    with pytest.raises(DataError, match=r"pip install 'agentgym\[webshop\]'"):
        download(data, tmp_path)
    assert list(tmp_path.iterdir()) == []
    for size in ("small", "full"):
        (tmp_path / f"title_nouns_{size}.json").write_text("{}")
    with pytest.raises(AskedError):
        download(data, tmp_path)


def test_the_variable_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEBSHOP_DATA", str(tmp_path))
    assert SMALL.default_folder() == tmp_path
    monkeypatch.delenv("WEBSHOP_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert SMALL.default_folder() == tmp_path / "agentgym" / "webshop"
    assert data_folder("given") == Path("given")
