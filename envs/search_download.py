"""Where published questions can be had that are small enough to fetch on the spot.

They are the questions that ARPO evaluates on: samples of 200 of HotpotQA, 2WikiMultihopQA and
MuSiQue, and the 125 of Bamboogle. What is searched for them is a matter of its own: the whole
Wikipedia that papers search is 21 million passages, served by a retriever.

Source: Dong et al., "Agentic Reinforced Policy Optimization", 2025; its repository.
"""

from __future__ import annotations

from agentgym.download import DataSet
from agentgym.envs.search_datasets import VARIABLE, questions_folder
from agentgym.fetch import RemoteFile

_ARPO = "https://raw.githubusercontent.com/RUC-NLPIR/ARPO/main/evaluation/data"


def _questions(name: str, size: int, sha256: str) -> RemoteFile:
    return RemoteFile(f"{name}.jsonl", (f"{_ARPO}/{name}/test.jsonl",), size, sha256)


QUESTIONS = DataSet(
    about="questions of HotpotQA, 2WikiMultihopQA, MuSiQue (200 each) and Bamboogle (125)",
    licence="that of each data set",
    files=(
        _questions(
            "hotpotqa", 28_176, "072c04637a2736f355e92ee77649d1de89112f873b21b97e50171ac33497ad98"
        ),
        _questions(
            "2wiki", 31_675, "f92e028caf038c0fd861111ce811f12a50fc17324933b9b723d169913dfa9884"
        ),
        _questions(
            "musique", 32_010, "d238f3c3b34347019bf84136eaca6fc34882d2263fbcd3dc352ad85eb80cf1dc"
        ),
        _questions(
            "bamboogle", 13_878, "e37b9c512f27f76f1bab1922972a0d7d48af8ac08dbdc41de56dcae45e5148c7"
        ),
    ),
    default_folder=questions_folder,
    variable=VARIABLE,
    suite="search/bamboogle",
    note="a corpus is needed too: --option corpus=FILE.jsonl, corpus=wiki-offline, or"
    " retriever=http://…",
)
