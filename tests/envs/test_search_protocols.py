"""How actions are read and results shown, in each protocol; and how results are cut."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from agentgym.envs.search_cut import cut_by_estimate, cut_by_tokenizer
from agentgym.envs.search_data import Article
from agentgym.envs.search_protocols import (
    PROTOCOLS,
    Answer,
    Misread,
    Search,
    boxed,
    protocol_of,
)
from agentgym.errors import DataError, UsageError

TOWER = Article("1", "Eiffel Tower", "It stands in Paris.")
BARE = Article("2", "", "No title here.")


def whole(text: str) -> str:
    return text


@pytest.mark.parametrize("protocol", list(PROTOCOLS.values()), ids=list(PROTOCOLS))
def test_a_protocol_reads_what_it_writes(protocol):
    assert protocol.read(protocol.write_search("who built it")) == Search(("who built it",))
    assert protocol.read(protocol.write_answer("Paris {France}")) == Answer("Paris {France}")


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("<think>hm</think>\n<search>\n who\n  built </search>", Search(("who built",))),
        ("<answer> New York </answer> <search>x</search>", Answer("New York")),
        ("<search>x</search><information><answer>y</answer></information>", Search(("x",))),
        ("<search> </search>", Misread("there is nothing inside <search>")),
        ("<search>x", Misread("that is no action")),
        ("<search>x</answer>", Misread("that is no action")),
        ("<information><answer></information>", Misread("that is no action")),
    ],
)
def test_tags_are_read_up_to_the_first_whole_block(action, expected):
    assert PROTOCOLS["search_r1"].read(action) == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"name": "search", "arguments": {"query_list": ["a", "b c"]}}, Search(("a", "b c"))),
        ({"name": "web_search", "arguments": {"query": "a"}}, Search(("a",))),
        ({"name": "browse", "arguments": {}}, "names no tool"),
        (["search"], "names no tool"),
        ({"name": "search", "arguments": {"query": "half \ud83d"}}, Search(("half ?",))),
        (
            {"name": "search", "arguments": {"query_list": ["a"] * 9}},
            "the tool call has 9 queries, at most 8",
        ),
        ({"name": "search", "arguments": {"query_list": [1]}}, "no query_list of strings"),
        ({"name": "search", "arguments": "a"}, "no query_list of strings"),
        ({"name": "search"}, "no query_list of strings"),
        ({"name": "search", "arguments": {"query_list": [" "]}}, "has no query"),
    ],
)
def test_tool_calls_are_read_as_json(call, expected):
    read = PROTOCOLS["tool_call"].read(f"<tool_call>\n{json.dumps(call)}\n</tool_call>")
    if isinstance(expected, str):
        assert isinstance(read, Misread)
        assert expected in read.why
    else:
        assert read == expected


@pytest.mark.parametrize("content", ["{", "search(x)", "[" * 5000])
def test_a_tool_call_that_is_no_json_is_misread(content):
    read = PROTOCOLS["tool_call"].read(f"<tool_call>{content}</tool_call>")
    assert read == Misread("the tool call is no JSON")


def test_boxed_counts_braces_and_takes_the_last():
    assert boxed(r"\boxed{a} and \boxed{\frac{1}{2}} end") == r"\frac{1}{2}"
    assert boxed(r"\boxed{never closed") is None
    assert boxed("nothing") is None


def test_arpo_answers_with_what_is_boxed_and_has_no_python():
    arpo = PROTOCOLS["arpo"]
    assert arpo.read(r"<answer>It is \boxed{Paris}.</answer>") == Answer("Paris")
    assert arpo.read("<answer>Paris</answer>") == Answer("")
    assert arpo.read("<python>1</python>") == Misread("there is no Python here")


def test_search_r1_shows_titles_with_the_quotes_that_corpora_store_them_in():
    shown = PROTOCOLS["search_r1"].show([[TOWER, TOWER]], whole)
    assert shown == (
        '<information>Doc 1(Title: "Eiffel Tower") It stands in Paris.\n'
        'Doc 2(Title: "Eiffel Tower") It stands in Paris.</information>'
    )


def test_tool_results_are_json_with_one_part_a_query():
    shown = PROTOCOLS["tool_call"].show([[TOWER], [BARE], []], whole)
    content = shown.removeprefix("<tool_response>").removesuffix("</tool_response>")
    assert json.loads(content) == {
        "result": 'Doc 1 (Title: "Eiffel Tower")\nIt stands in Paris.\n---\n'
        "Doc 1 (Title: No title here.)\n---\nNothing was found."
    }


def test_arpo_shows_pages_of_a_thousand_characters():
    long = Article("3", "", "x" * 2000)
    shown = PROTOCOLS["arpo"].show([[TOWER, long]], whole)
    assert shown == (
        f"<result>\nPage 1: Eiffel Tower\nIt stands in Paris.\nPage 2: {'x' * 1000}\n</result>"
    )


@pytest.mark.parametrize("protocol", list(PROTOCOLS.values()), ids=list(PROTOCOLS))
def test_a_cut_never_takes_the_closing_tag(protocol):
    ends = {protocol.show([[TOWER]], cut)[-9:] for cut in (whole, lambda text: text[:5])}
    assert len(ends) == 1


def test_the_defaults_are_the_papers():
    sizes = {name: (one.topk, one.result_tokens) for name, one in PROTOCOLS.items()}
    assert sizes == {"search_r1": (3, 500), "tool_call": (3, 500), "arpo": (10, 2500)}


def test_an_unknown_protocol_is_one_clear_line():
    with pytest.raises(UsageError, match="unknown protocol of search 'search-r1'; did you mean"):
        protocol_of("search-r1")


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("one two three", 4, "one two three"),  # 13 characters, room for 16
        ("one two three", 2, "one two"),  # room for 8: "one two "
        ("one two three", 3, "one two"),  # room for 12 would cut a word
        ("abcdefghijkl", 2, "abcdefgh"),  # one word that is too long
        ("one two  three", 2, "one two"),
    ],
)
def test_the_estimate_cuts_at_four_characters_a_token_and_between_words(text, tokens, expected):
    assert cut_by_estimate(text, tokens) == expected


def test_a_tokenizer_cuts_at_its_own_tokens(tmp_path):
    words = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    text = "one  two three four"
    assert cut_by_tokenizer(text, 3, str(tmp_path)) == "one  two three"
    assert cut_by_tokenizer(text, 1, str(tmp_path / "tokenizer.json")) == "one"
    assert cut_by_tokenizer(text, 4, str(tmp_path)) == text


def test_a_tokenizer_that_is_not_there_or_none_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"there is no tokenizer .*tokenizer\.json; name a"):
        cut_by_tokenizer("x", 1, str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot read the tokenizer"):
        cut_by_tokenizer("x", 1, str(tmp_path))
