"""Which tokens of a written answer are the answer's own."""

from types import SimpleNamespace

import pytest

from agentgym.errors import UsageError
from agentgym.policies.action_format import action_format
from agentgym.policies.gold_answer import AnswerForm
from agentgym.trainers.tiny import train_tokenizer

TEXTS = ["<answer>\nNew York\n</answer> red blue <think> <action> Now there is enough"] * 10
PLAIN = action_format("plain")
TAGS = action_format("tags")
BLOCKS = action_format("blocks", tags=("search", "answer"))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


def read(form, tokenizer, answer):
    """Return what stands before the answer, and the text of its own tokens."""
    written = form.write(answer)
    assert written.length == len(written.ids) - written.start
    return tokenizer.decode(written.ids[: written.start]), tokenizer.decode(
        written.ids[written.start :]
    )


def test_a_plain_answer_is_nothing_but_the_answer(tokenizer):
    assert read(AnswerForm(PLAIN, tokenizer), tokenizer, "New York") == ("", "New York")


@pytest.mark.parametrize(
    ("format_", "opened"), [(TAGS, "</think>\n<action>"), (BLOCKS, "</think>\n<answer>\n")]
)
def test_an_answer_in_tags_follows_a_thought_and_ends_before_the_closing_tag(
    tokenizer, format_, opened
):
    before, own = read(AnswerForm(format_, tokenizer), tokenizer, "New York")
    assert before.startswith("<think>\nNow there is enough")
    assert before.endswith(opened)
    assert own == "New York"


@pytest.mark.parametrize("format_", [TAGS, BLOCKS])
def test_what_is_written_is_an_answer_to_the_parser_of_the_format(tokenizer, format_):
    written = AnswerForm(format_, tokenizer).write("New York")
    closing = "</action>" if format_ is TAGS else "\n</answer>"
    parsed = format_.parse(tokenizer.decode(written.ids) + closing)
    assert parsed.error is None
    assert "New York" in parsed.action


def test_a_token_that_reaches_over_the_border_of_the_answer_is_the_answers():
    phrases = ["> New", " York <"]
    tokenizer = train_tokenizer(["<answer> New York </answer>"] * 10, 400, phrases)
    form = AnswerForm(BLOCKS, tokenizer, "<answer> {answer} </answer>")
    assert read(form, tokenizer, "New York") == ("<answer", "> New York <")


def test_a_template_of_ones_own_takes_the_place_of_the_formats(tokenizer):
    form = AnswerForm(PLAIN, tokenizer, "<answer>{answer}</answer>")
    assert read(form, tokenizer, " red ") == ("<answer>", "red")


def test_an_empty_answer_has_no_tokens(tokenizer):
    assert AnswerForm(TAGS, tokenizer).write(" \n") is None


@pytest.mark.parametrize("template", ["", "the answer", "{answer} or {answer}"])
def test_a_template_has_one_place_for_the_answer(tokenizer, template):
    with pytest.raises(UsageError, match=r"expected \{answer\} in it, once"):
        AnswerForm(PLAIN, tokenizer, template)


def test_a_format_without_a_tag_for_answers_needs_a_template(tokenizer):
    form = action_format("blocks", tags=("search", "reply"))
    with pytest.raises(UsageError, match="answer_template"):
        AnswerForm(form, tokenizer)
    AnswerForm(form, tokenizer, "<reply>{answer}</reply>")


def test_a_tokenizer_that_knows_no_offsets_is_refused():
    with pytest.raises(UsageError, match="where in the text"):
        AnswerForm(PLAIN, SimpleNamespace(is_fast=False))
