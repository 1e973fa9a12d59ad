"""Where WebShop's original data can be had.

The publishers keep it on Google Drive, which asks to confirm large files, and now and then asks to
sign in or refuses for the day. So each file has a second address, a copy on the Hugging Face hub:
size and hash, which several users of the original wrote down, decide whether it is the file.

Source: Yao et al., "WebShop: Towards Scalable Real-World Web Interaction with Grounded Language
Agents", NeurIPS 2022; its ``setup.sh``.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

from agentgym.download import DataSet
from agentgym.envs.webshop_original import check_preparation, prepare
from agentgym.fetch import RemoteFile
from agentgym.files import cache_folder, named_folder

VARIABLE = "WEBSHOP_DATA"
"""The environment variable that names another folder than the default."""

_DRIVE = "https://drive.google.com/uc?export=download&id="
_COPIES = "https://huggingface.co/datasets/YWZBrandon/webshop-data/resolve/main/"


def data_folder(data: str | None = None) -> Path:
    """Return where the original files lie: ``data``, else ``$WEBSHOP_DATA``, else the cache."""
    return named_folder(data, VARIABLE, lambda: cache_folder() / "webshop")


class _ConfirmationForm(HTMLParser):
    """Reads the form by which Google Drive asks whether a large file is wanted unscanned."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the form's address and its hidden fields."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._inside = given.get("id") == "download-form"
            if self._inside:
                self.action = given.get("action")
        elif tag == "input" and self._inside and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        """Note where the form ends."""
        self._inside = self._inside and tag != "form"


def confirmed(page: str) -> str | None:
    """Return the address behind Google Drive's confirmation page; None if it is another page."""
    form = _ConfirmationForm()
    form.feed(page)
    return f"{form.action}?{urlencode(form.fields)}" if form.action else None


def _file(name: str, drive_id: str, size: int, sha256: str) -> RemoteFile:
    urls = (_DRIVE + drive_id, _COPIES + name)
    return RemoteFile(name, urls, size, sha256, follow=confirmed)


_HUMAN = _file(
    "items_human_ins.json",
    "14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O",
    5_137_548,
    "cf78667548a71786e1d9049c24b802e48e1084ad4bb021cae56ce1f6d96954a3",
)

SMALL = DataSet(
    about="1,000 products",
    licence="academic and research use (LICENSE.md of princeton-nlp/WebShop)",
    files=(
        _file(
            "items_shuffle_1000.json",
            "1EgHdxQ_YxqIQlvvq5iKlCrkEKR6-j0Ib",
            4_467_013,
            "30a4765c3a327af72d9a9a95a6b2486d516f0fa1d3ecd83681901ce82a21b269",
        ),
        _file(
            "items_ins_v2_1000.json",
            "1IduG0xl544V_A_jv3tHXC0kyFi7PnyBu",
            147_099,
            "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f",
        ),
        _HUMAN,
    ),
    default_folder=data_folder,
    variable=VARIABLE,
    suite="webshop/small-test",
    prepare=lambda folder, _watch: prepare(folder, "small"),
    check=lambda folder: check_preparation(folder, "small"),
)

FULL = DataSet(
    about="1.18 million products",
    licence=SMALL.licence,
    files=(
        _file(
            "items_shuffle.json",
            "1A2whVgOO0euk5O13n2iYDM0bQRkkRduB",
            5_479_720_229,
            "2ef591d65df3af89e972ab72468eb82cbf124d876552d9f3678667edd620a6c8",
        ),
        _file(
            "items_ins_v2.json",
            "1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi",
            186_295_270,
            "1d36af476bdb8f82a5da62bd8acdabe54cd8de2fa84010d37da5c4890feb447e",
        ),
        _HUMAN,
    ),
    default_folder=data_folder,
    variable=VARIABLE,
    suite="webshop/full-test",
    prepare=lambda folder, _watch: prepare(folder, "full"),
    check=lambda folder: check_preparation(folder, "full"),
)
