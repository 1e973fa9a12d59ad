"""The search environment's templates: one a protocol, and retrieved text is never the model's."""

from __future__ import annotations

import pytest

from agentgym.policies.conversation import Script
from agentgym.policies.prompt import load_prompt, load_template, saved_prompt
from agentgym.types import Sample, View

QUESTION = "Who wrote it?"
SHOWN = "<information>Doc 1 <answer>not mine</answer> <search>nor this</search></information>"


@pytest.mark.parametrize(
    ("style", "stop"),
    [
        ("tags", ("</search>", "</answer>")),
        ("tool_call", ("</tool_call>", "</answer>")),
        ("arpo", ("</search>", "</python>", "</answer>")),
        ("plain", ()),
    ],
)
def test_a_turn_is_cut_at_the_first_closing_tag_of_the_protocol(style, stop, tokenizer):
    script = Script(load_prompt("search", style, "full"), tokenizer)
    assert script.begin().stop == stop


@pytest.mark.parametrize("context", ["full", "window(2)"])
def test_retrieved_text_is_masked_and_its_tags_are_not_the_models(context, tokenizer):
    conversation = Script(load_prompt("search", "tags", context), tokenizer).begin()
    said = ("<think>hm</think><search>a book</search>", "<answer>Ann</answer>")
    parsed = []
    for number, (shown, text) in enumerate(zip((QUESTION, SHOWN), said, strict=True)):
        conversation.observe(View(shown, QUESTION, number, None, None))
        ids = tuple(tokenizer.encode(text, add_special_tokens=False))
        sample = Sample(ids, (-1.0,) * len(ids), None, "stop", 0)
        parsed.append(conversation.say(sample).action)
    assert parsed == ["<search>a book</search>", "<answer>Ann</answer>"]
    rows = conversation.rows()
    trained = [[i for i, t in zip(r.ids, r.turns, strict=True) if t >= 0] for r in rows]
    expected = [list(tokenizer.encode(text, add_special_tokens=False)) for text in said]
    assert trained == (expected if context == "window(2)" else [expected[0] + expected[1]])
    assert SHOWN in tokenizer.decode(list(rows[-1].ids))


def test_arpos_prompt_shows_the_command_that_its_reward_asks_for():
    system = load_template("search.arpo").section("system")
    assert r"\boxed{}" in system
    assert "\b" not in system


def test_a_prompt_of_blocks_comes_back_from_a_model_folder_with_its_tags(tmp_path):
    prompt = load_prompt("search", "tool_call", "full")
    prompt.save(tmp_path)
    assert saved_prompt(tmp_path) == prompt
    assert saved_prompt(tmp_path).template.format.tags == ("tool_call", "answer")
