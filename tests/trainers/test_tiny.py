"""The tokenizer and the first weights of a tiny model."""

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from agentgym.envs.alfworld_rooms import LAMP, floor_plans
from agentgym.errors import UsageError
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.hf import HFPolicy
from agentgym.policies.prompt import load_prompt, saved_prompt
from agentgym.trainers.tiny import END, Shape, fresh_model, save_model, train_tokenizer
from agentgym.types import Request, Sample, View

TEXTS = [
    "You arrive at cabinet 8. The cabinet 8 is closed.\nYour task is to: put a mug in shelf.",
    "On the countertop 1, you see a mug 1, a knife 12, and a soapbar 2.",
    "take mug 1 from countertop 1",
    "go to cabinet 12",
]
PHRASES = (", a", ", and a", "You arrive at", "go to", " is closed.")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS * 3, 600, PHRASES)


@pytest.mark.parametrize(
    "text", [*TEXTS, "", "  two  spaces \n\n", "Grüße, 你好 🙂", "cabinet 8cabinet", "{}<b>%_\t"]
)
def test_any_text_round_trips(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_type_and_number_of_a_name_are_two_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("go to cabinet 12", add_special_tokens=False)
    assert [tokenizer.decode([one]) for one in ids] == ["go to", " cabinet", " 12"]


def test_a_phrase_is_split_off_only_at_the_end_of_a_word(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = tokenizer.encode(", apple 1", add_special_tokens=False)  # begins like ", a"
    assert tokenizer.decode([ids[0]]) == ","


def test_of_two_phrases_that_fit_the_longer_is_taken(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode(", and a soapbar 2", add_special_tokens=False)
    assert tokenizer.decode([ids[0]]) == ", and a"


@pytest.fixture(scope="module")
def named() -> PreTrainedTokenizerFast:
    texts = [
        "Who taught Carla Dornano?",
        "<search>Carla Dornano</search>",
        " She was taught by Ada.",
    ]
    return train_tokenizer(texts * 9, 400, ("<search>", "</search>"), names=True)


def test_a_name_is_the_same_tokens_wherever_it_stands(named: PreTrainedTokenizerFast) -> None:
    def tokens(text: str) -> list[str]:
        return [named.decode([one]) for one in named.encode(text, add_special_tokens=False)]

    name = ["Carla", " ", "Dornano"]
    assert tokens("Who taught Carla Dornano?") == ["Who", " taught ", *name, "?"]
    assert tokens("<search>Carla Dornano</search>") == ["<search>", *name, "</search>"]
    assert tokens(" Carla Dornano was taught by Ada.")[1:4] == name


@pytest.mark.parametrize(
    "text", [*TEXTS, "  Two  spaces \n\n", "Grüße, 你好 🙂", "DiX (1932) {}%_\t"]
)
def test_any_text_round_trips_with_names_cut_off(named: PreTrainedTokenizerFast, text: str) -> None:
    assert named.decode(named.encode(text, add_special_tokens=False)) == text


def test_a_growing_conversation_keeps_its_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    script = Script(load_prompt("alfworld", "plain", "full"), tokenizer)
    assert script.chat.end_of_turn == tokenizer.convert_tokens_to_ids(END)


def test_the_first_weights_are_a_function_of_the_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    shape = Shape(hidden=32, layers=1, intermediate=32)
    before = torch.random.get_rng_state()
    one, same, other = (fresh_model(tokenizer, shape, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's draws change
    assert torch.equal(one.model.embed_tokens.weight, same.model.embed_tokens.weight)
    assert not torch.equal(one.model.embed_tokens.weight, other.model.embed_tokens.weight)


@pytest.mark.parametrize(("hidden", "head"), [(96, 48), (80, 32)])
def test_a_head_that_servers_do_not_take_is_refused(hidden: int, head: int) -> None:
    with pytest.raises(UsageError, match="expected 32 or 64"):
        Shape(hidden=hidden, head=head)


def test_a_saved_folder_opens_with_weights_tokens_and_prompt(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = fresh_model(tokenizer, Shape(hidden=32, layers=1, intermediate=32), 0)
    prompt = load_prompt("alfworld", "plain", "full")
    save_model(tmp_path, model, tokenizer, prompt)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert again.dtype == torch.bfloat16
    assert model.dtype == torch.float32  # what is trained goes on in its own precision
    expected = model.model.embed_tokens.weight.to(torch.bfloat16)
    assert torch.equal(again.model.embed_tokens.weight, expected)
    reread = AutoTokenizer.from_pretrained(tmp_path)
    assert reread.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])
    saved = saved_prompt(tmp_path)
    assert saved is not None
    assert saved.digest == prompt.digest


def bundled() -> Path:
    return Path(resolve_model("alfworld-tiny"))


def test_the_bundled_model_is_small_and_plain() -> None:
    assert sum(path.stat().st_size for path in bundled().iterdir()) <= 8_000_000
    model = AutoModelForCausalLM.from_pretrained(bundled(), dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.config.model_type == "llama"
    assert model.config.head_dim in (32, 64)


def test_the_bundled_model_is_told_what_it_was_trained_on() -> None:
    # Raises where the code renders other words than those whose digest the folder carries.
    saved = saved_prompt(bundled())
    assert saved is not None
    assert saved.digest == load_prompt("alfworld", "plain", "full").digest


def test_every_name_in_a_room_is_two_tokens_to_the_bundled_model() -> None:
    tokenizer = AutoTokenizer.from_pretrained(bundled())
    rooms = floor_plans().rooms.values()
    kinds = {kind for room in rooms for kind in (*room.objects, *room.receptacle_types, LAMP)}
    for kind in kinds:
        ids = tokenizer.encode(f" {kind.lower()} 3", add_special_tokens=False)
        assert [tokenizer.decode([one]) for one in ids] == [f" {kind.lower()}", " 3"]


def test_the_bundled_model_opens_a_drawer_that_it_finds_closed() -> None:
    script = Script(
        load_prompt("alfworld", "plain", "full"), AutoTokenizer.from_pretrained(bundled())
    )
    policy = HFPolicy.from_pretrained(str(bundled()))
    conversation = script.begin()
    goal = "put a mug in shelf."
    opening = (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly"
        " around you, you see a bed 1, a drawer 2, a drawer 1, and a shelf 1.\n\n"
        f"Your task is to: {goal}"
    )
    conversation.observe(View(opening, goal, 0, None, None))
    said = script.chat.tokenizer.encode("go to drawer 1", add_special_tokens=False)
    ids = (*said, script.chat.end_of_turn)
    conversation.say(Sample(ids, (0.0,) * len(ids), None, "stop", 0))
    closed = "You arrive at drawer 1. The drawer 1 is closed."
    context = conversation.observe(View(closed, goal, 1, None, None))
    request = Request("session", context, max_tokens=16, temperature=0.0, seed="")
    (sample,) = asyncio.run(policy.sample([request]))
    assert conversation.say(sample).action == "open drawer 1"
