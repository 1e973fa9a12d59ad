"""Templates, contexts, digests."""

from __future__ import annotations

import dataclasses
import json

import pytest

from agentgym.errors import DataError, UsageError
from agentgym.policies.prompt import (
    Context,
    Past,
    Prompt,
    Template,
    load_prompt,
    load_template,
    saved_prompt,
    template_names,
)
from agentgym.types import View

VIEW = View("You see {a} cup 1.", "find a cup.", 4, ("look", "take cup 1"), None)
OWN = "format: plain\n=== full.first ===\n{goal}\n=== full.next ===\n{observation} {{x}}\n"


def test_every_template_of_the_package_loads_and_renders_in_every_context_it_has():
    assert {"alfworld.plain", "alfworld.tags", "text.plain", "text.tags"} <= set(template_names())
    for name in template_names():
        template = load_template(name)
        for context in ("full", "window(2)"):
            prompt = Prompt(template, Context.parse(context))
            past = [Past(f"room {n}", f"go {n}") for n in range(4)]
            assert VIEW.observation in prompt.retold(VIEW, past)[-1]["content"] or context == "full"
            assert VIEW.observation in prompt.opening(VIEW)[-1]["content"]


def test_braces_in_what_an_environment_says_stay_as_they_are():
    prompt = Prompt(Template.parse("own", OWN), Context.parse("full"))
    assert prompt.reply(VIEW)["content"] == "You see {a} cup 1. {x}"


def test_the_plain_household_prompt_repeats_the_task_at_each_turn():
    prompt = load_prompt("alfworld", "plain", "full")
    assert prompt.opening(VIEW) == [{"role": "user", "content": "You see {a} cup 1."}]
    assert prompt.reply(VIEW)["content"] == "You see {a} cup 1.\nYour task is to: find a cup."


def test_an_environment_without_a_template_gets_the_general_one():
    assert load_prompt("somebodys-own", "tags", "window(1)").template.name == "text.tags"


def test_admissible_actions_are_left_out_where_an_environment_names_none():
    prompt = load_prompt("corridor", "tags", "full")
    named = prompt.reply(VIEW)["content"]
    none = prompt.reply(dataclasses.replace(VIEW, admissible_actions=None))["content"]
    assert "'look'\n'take cup 1'" in named
    assert "admissible" in named
    assert "admissible" not in none


def test_templates_of_actions_and_objects_stand_where_actions_are_too_many_to_list():
    prompt = load_prompt("scienceworld", "tags", "window(2)")
    shown = dataclasses.replace(
        VIEW, admissible_actions=None, templates=("eat OBJ", "wait"), objects=("apple", "red cup")
    )
    said = prompt.opening(shown)[0]["content"]
    assert "The actions are: eat OBJ, wait\n" in said
    assert (
        "OBJ stands for one of these objects, written without an article: apple, red cup\n" in said
    )
    none = prompt.opening(dataclasses.replace(shown, templates=(), objects=()))[0]["content"]
    assert "OBJ" not in none


@pytest.mark.parametrize("text", ["window", "window(-1)", "window(two)", "Full", ""])
def test_an_unknown_context_is_refused(text):
    with pytest.raises(UsageError, match=r"full or window\(k\)"):
        Context.parse(text)


def test_contexts_are_written_as_they_are_read():
    for text in ("full", "window(0)", "window(12)"):
        assert str(Context.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=== full.first ===\n{goal}", "needs 'format"),
        ("format: tag\n=== full.first ===\n{goal}", "did you mean tags"),
        ("format: tags\nlower: yes\n=== full.first ===\nx", "cannot read 'lower: yes'"),
        ("format: tags\n=== full.frist ===\nx", "did you mean full.first"),
        ("format: tags\n=== full.first ===\n{gaol}", r"\{gaol\} means nothing here; allowed:"),
        ("format: tags\n=== full.first ===\n{goal.x}", "means nothing here"),
        ("format: tags\n=== full.first ===\n{goal!r}", "means nothing here"),
        ("format: tags\n=== full.first ===\n{goal", "write {{ and }}"),
        ("format: tags\n=== system ===\nx\n=== system ===\ny", "twice"),
    ],
)
def test_a_broken_template_says_what_is_wrong(text, message):
    with pytest.raises((DataError, UsageError), match=message):
        Template.parse("own", text)


def test_a_template_that_lacks_a_section_of_the_context_is_refused():
    with pytest.raises(UsageError, match=r"no section window\.first and no section window\.next"):
        Prompt(Template.parse("own", OWN), Context.parse("window(2)"))


def test_a_user_replaces_a_template_by_the_path_of_a_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(OWN, encoding="utf-8")
    assert load_template(path).name == "mine.txt"
    assert load_template(str(path)).texts["full.first"] == "{goal}"
    with pytest.raises(DataError, match="cannot read the template"):
        load_template(tmp_path / "absent.txt")
    with pytest.raises(UsageError, match="did you mean"):
        load_template("alfworld.tag")


def test_a_prompt_comes_back_from_a_model_folder_as_it_was(tmp_path):
    prompt = load_prompt("alfworld", "tags", "window(2)")
    assert saved_prompt(tmp_path) is None
    prompt.save(tmp_path)
    assert saved_prompt(tmp_path) == prompt


def test_the_digest_tells_words_format_and_context_apart():
    base = Template.parse("own", OWN)
    words = Template.parse("own", OWN.replace("{goal}", "{goal} now"))
    tags = Template.parse("own", OWN.replace("plain", "tags"))
    lower = Template.parse("own", OWN.replace("plain", "plain\nlowercase: yes"))
    full = Context.parse("full")
    digests = [Prompt(t, full).digest for t in (base, words, tags, lower)]
    digests += [load_prompt("text", "tags", f"window({k})").digest for k in (1, 2)]
    assert len(set(digests)) == 6
    assert Prompt(Template.parse("renamed", OWN), full).digest == digests[0]


def test_the_digest_changes_when_code_renders_other_messages(monkeypatch):
    prompt = load_prompt("text", "plain", "full")
    before = prompt.digest
    monkeypatch.setattr(Prompt, "reply", lambda self, view: {"role": "user", "content": "other"})
    assert prompt.digest != before


def test_a_model_folder_whose_words_and_digest_part_is_refused(tmp_path):
    load_prompt("alfworld", "plain", "full").save(tmp_path)
    path = tmp_path / "prompt.json"
    content = json.loads(path.read_text())
    content["texts"]["full.next"] = "{observation}"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="other words than it was trained on"):
        saved_prompt(tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match="cannot read the prompt"):
        saved_prompt(tmp_path)


@pytest.mark.parametrize(
    "words", ["{observation:>999999999}", "{observation.__class__}", "{observation!r}", "{0}", "{"]
)
def test_a_model_folder_cannot_name_in_braces_what_a_template_cannot(tmp_path, words):
    load_prompt("corridor", "plain", "full").save(tmp_path)
    path = tmp_path / "prompt.json"
    content = json.loads(path.read_text())
    content["texts"]["full.next"] = words  # rendered, the first takes a gigabyte
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"section full\.next"):
        saved_prompt(tmp_path)
