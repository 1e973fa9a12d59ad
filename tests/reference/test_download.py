"""Sizes and hashes of what is downloaded, against real files; run by `make test-reference`.

``AGENTGYM_REFERENCE_DATA`` names a folder with ``items_ins_v2_1000.json`` of WebShop and
``qa_<data set>.jsonl`` as ARPO publishes them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from agentgym.envs.search_download import QUESTIONS
from agentgym.envs.webshop_download import SMALL
from agentgym.fetch import RemoteFile

pytestmark = pytest.mark.reference

KNOWN = {f"qa_{file.name}": file for file in QUESTIONS.files} | {
    file.name: file for file in SMALL.files if file.name == "items_ins_v2_1000.json"
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_real_file_has_the_size_and_hash_that_is_demanded(name: str) -> None:
    named = os.environ.get("AGENTGYM_REFERENCE_DATA")
    if named is None:
        pytest.fail("AGENTGYM_REFERENCE_DATA is not set; it names the folder of reference data")
    file: RemoteFile = KNOWN[name]
    content = (Path(named) / name).read_bytes()
    assert len(content) == file.size
    assert hashlib.sha256(content).hexdigest() == file.sha256
