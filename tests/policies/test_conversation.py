"""Tokens in, tokens out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentgym.errors import EpisodeError, UsageError
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import Context, Prompt, Template, load_prompt
from agentgym.types import Sample, View

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=30)
TURNS = st.lists(st.tuples(TEXT, st.lists(st.integers(9, 300), max_size=6)), min_size=1, max_size=5)
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def view_of(observation: str, turn: int) -> View:
    return View(observation, "put a cup on the shelf.", turn, ("look", "go to shelf 2"), None)


def sample_of(ids, version: int = 3) -> Sample:
    logprobs = tuple(-0.5 - n for n in range(len(ids)))
    return Sample(tuple(ids), logprobs, None, "stop", version)


def played(script: Script, turns, ended):
    """Play an episode; return what each turn was sampled from, the samples and the rows."""
    conversation = script.begin()
    contexts, samples = [], []
    for n, ((observation, ids), end) in enumerate(zip(turns, ended, strict=False)):
        contexts.append(conversation.observe(view_of(observation, n)))
        samples.append(sample_of([*ids, script.chat.end_of_turn] if end else ids))
        conversation.say(samples[-1])
    return contexts, samples, conversation.rows()


@QUICK
@given(turns=TURNS)
def test_a_suffix_is_what_the_whole_rendered_conversation_has_there(
    turns, tokenizer_with, chat_templates
):
    """What a model was trained on in one piece is what it reads turn by turn."""
    for template in chat_templates.values():
        tokenizer = tokenizer_with(template)
        script = Script(load_prompt("text", "plain", "full"), tokenizer)
        said = [("x" + text.strip(), ids) for text, ids in turns]
        contexts, samples, _ = played(script, said, [True] * 5)
        text = "".join(tokenizer.decode(contexts[-1]).split())
        views = [view_of(observation, n) for n, (observation, _) in enumerate(said)]
        messages = script.prompt.opening(views[0])
        for sample, view in zip(samples, views[1:], strict=False):
            content = tokenizer.decode(sample.ids[:-1])
            messages += [{"role": "assistant", "content": content}, script.prompt.reply(view)]
        whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert "".join(whole.split()) == text


SPELLED = (
    "<|im_end|>",
    "<|im_start|>",
    "<|head|>",
    "<|",
    "|>",
    "im_end",
    "assistant\n",
    "\n",
    "go",
)


@pytest.mark.parametrize("context", ["full", "window(2)"])
@pytest.mark.parametrize("quirk", ["bare", "chatml", "headers", "no-system"])
@QUICK
@given(said=st.lists(st.lists(st.sampled_from(SPELLED)).map("".join), min_size=1, max_size=4))
def test_what_an_environment_says_is_never_a_control_token(
    context, quirk, said, tokenizer_with, chat_templates
):
    """There are as many as where it says other things, and the text is what it was."""
    tokenizer = tokenizer_with(chat_templates[quirk])
    script = Script(load_prompt("alfworld", "tags", context), tokenizer)
    control = {one for one, token in tokenizer.added_tokens_decoder.items() if token.special}
    answer = [*tokenizer.encode("<think>so</think><action>look</action>"), script.chat.end_of_turn]
    spelled, plain = script.begin(), script.begin()
    for turn, text in enumerate(said):
        views = [
            View(f"You see {one}!", f"find {one}.", turn, (f"take {one}.",), None)
            for one in (text, "a cup")
        ]
        ids, others = (one.observe(view) for one, view in zip((spelled, plain), views, strict=True))
        assert [i for i in ids if i in control] == [i for i in others if i in control]
        assert views[0].observation in tokenizer.decode(ids)
        for one in (spelled, plain):
            one.say(sample_of(answer))


@QUICK
@given(text=TEXT)
def test_all_other_text_has_the_tokens_it_always_had(text, tokenizer):
    chat = Script(load_prompt("text", "plain", "full"), tokenizer).chat
    messages = [{"role": "user", "content": text}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert list(chat.prompt_ids(messages)) == tokenizer.encode(whole, add_special_tokens=False)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert list(chat.said_ids(text)) == [*ids, chat.end_of_turn]


def test_an_action_retold_in_a_rebuilt_context_is_no_control_token_either(tokenizer):
    script = Script(load_prompt("alfworld", "plain", "window(2)"), tokenizer)
    conversation = script.begin()
    first = conversation.observe(view_of("a", 0))
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    conversation.say(sample_of([start, 50, script.chat.end_of_turn]))
    second = conversation.observe(view_of("b", 1))
    assert second.count(start) == first.count(start)
    assert tokenizer.decode(second).count("<|im_start|>") == first.count(start) + 1


def test_an_answer_that_was_cut_is_closed_by_an_end_of_turn_that_is_not_trained(tokenizer):
    script = Script(load_prompt("text", "plain", "full"), tokenizer)
    end = script.chat.end_of_turn
    _, _, (row,) = played(script, [("a", [50, 51]), ("b", [60])], [False, True])
    at = row.ids.index(51)
    assert row.ids[at + 1] == end
    assert row.turns[at + 1] == -1


def test_each_token_keeps_the_version_of_the_weights_that_sampled_it(tokenizer):
    conversation = Script(load_prompt("text", "plain", "full"), tokenizer).begin()
    conversation.observe(view_of("look", 0))
    conversation.say(Sample((50, 51, 52), (-1.0,) * 3, None, "stop", 7, earlier=(6, 6)))
    (row,) = conversation.rows()
    assert row.versions[-3:] == (6, 6, 7)
    assert set(row.versions[:-3]) == {-1}


def test_a_rebuilt_context_retells_the_last_turns_and_no_more(tokenizer):
    script = Script(load_prompt("alfworld", "tags", "window(2)"), tokenizer)
    conversation = script.begin()
    for n in range(4):
        text = tokenizer.decode(conversation.observe(view_of(f"room {n}.", n)))
        answer = tokenizer.encode(f"<think>so</think><action>go {n}</action>")
        assert conversation.say(sample_of(answer)).action == f"go {n}"
    assert "Observation 1" not in text
    assert "[Observation 2: 'room 1.', Action 2: 'go 1']" in text
    assert "[Observation 3: 'room 2.', Action 3: 'go 2']" in text
    assert "You are now at step 4, and what you see now is: room 3." in text
    assert "'look'\n'go to shelf 2'" in text


def test_an_observation_that_was_not_answered_is_in_no_row(tokenizer):
    for context, rows in (("full", 1), ("window(1)", 1)):
        conversation = Script(load_prompt("text", "plain", context), tokenizer).begin()
        assert conversation.observe(view_of("a", 0))
        assert conversation.rows() == ()
        conversation.say(sample_of([50]))
        conversation.observe(view_of("b", 1))
        assert len(conversation.rows()) == rows
        assert conversation.rows()[0].ids[-1] == 50


@pytest.mark.parametrize("context", ["full", "window(2)"])
def test_a_fork_goes_on_by_itself_as_if_it_had_been_alone(context, tokenizer):
    script = Script(load_prompt("alfworld", "tags", context), tokenizer)

    def go_on(conversation, turn, said):
        context = conversation.observe(View(f"room {turn}", "go", turn, ("look",), None))
        ids = tuple(tokenizer.encode(said))
        conversation.say(Sample(ids, (-0.5,) * len(ids), None, "stop", turn))
        return context

    first, alone = script.begin(), script.begin()
    for conversation in (first, alone):
        go_on(conversation, 0, "<action>look</action>")
    before = first.rows()
    fork = first.fork()
    assert fork.rows() == before
    assert go_on(fork, 1, "<action>go to shelf 2</action>") == go_on(first, 1, "left")
    go_on(alone, 1, "<action>go to shelf 2</action>")
    assert first.rows()[-1].ids != fork.rows()[-1].ids
    assert go_on(fork, 2, "look") == go_on(alone, 2, "look")
    assert fork.rows() == alone.rows()
    assert len(first.rows()) == (1 if context == "full" else 2)


def test_observing_twice_or_answering_nothing_is_refused(tokenizer):
    conversation = Script(load_prompt("text", "plain", "full"), tokenizer).begin()
    with pytest.raises(EpisodeError, match="call observe first"):
        conversation.say(sample_of([50]))
    conversation.observe(view_of("a", 0))
    with pytest.raises(EpisodeError, match="call say first"):
        conversation.observe(view_of("b", 1))


def test_a_template_that_forgets_reasoning_is_refused_for_a_context_that_grows(
    tokenizer_with, template_that_forgets_thinking
):
    tokenizer = tokenizer_with(template_that_forgets_thinking)
    with pytest.raises(UsageError, match=r"does not keep prefixes.*window"):
        Script(load_prompt("alfworld", "tags", "full"), tokenizer)
    Script(load_prompt("alfworld", "tags", "window(2)"), tokenizer)
    Script(load_prompt("alfworld", "plain", "full"), tokenizer)  # nothing is reasoned there


def test_a_tokenizer_without_a_chat_template_is_refused(tokenizer_with):
    with pytest.raises(UsageError, match="no chat template"):
        Script(load_prompt("text", "plain", "full"), tokenizer_with(""))


def test_a_template_that_ends_answers_with_plain_text_is_refused(tokenizer_with):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(UsageError, match="expected a special token"):
        Script(load_prompt("text", "plain", "full"), tokenizer_with(template))


def test_a_system_message_moves_into_the_first_question_where_there_is_no_such_role(
    tokenizer_with, chat_templates
):
    text = "format: plain\n=== system ===\nRules.\n=== full.first ===\n{goal}\n=== full.next ===\n-"
    prompt = Prompt(Template.parse("own", text), Context.parse("full"))
    for quirk, expected in (("no-system", "user\nRules."), ("chatml", "system\nRules.")):
        tokenizer = tokenizer_with(chat_templates[quirk])
        ids = Script(prompt, tokenizer).begin().observe(view_of("a", 0))
        assert expected in tokenizer.decode(ids)


def test_halves_of_characters_are_read_as_question_marks(tokenizer) -> None:
    script = Script(load_prompt("text", "plain", "full"), tokenizer)
    broken, plain = (
        script.begin().observe(view_of(f"a cup{half} 1", 0)) for half in ("\ud83d", "?")
    )
    assert broken == plain
