"""The tokenizer and the first weights of a tiny model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from agentgym.errors import UsageError
from agentgym.policies.conversation import Script
from agentgym.policies.prompt import load_prompt, saved_prompt
from agentgym.trainers.tiny import END, Shape, fresh_model, save_model, train_tokenizer

TEXTS = [
    "You arrive at cabinet 8. The cabinet 8 is closed.\nYour task is to: put a mug in shelf.",
    "On the countertop 1, you see a mug 1, a knife 12, and a soapbar 2.",
    "take mug 1 from countertop 1",
    "go to cabinet 12",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS * 3, 600)


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
