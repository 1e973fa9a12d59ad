"""Models by name: which prompt they are told, and what they cannot read."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentgym import models
from agentgym.errors import UsageError
from agentgym.evaluate import Model
from agentgym.models import check_context, open_model, prompt_of, tokenizer_digest
from agentgym.policies.bundled import resolve_model
from agentgym.policies.hf import load_tokenizer
from agentgym.policies.prompt import load_prompt
from agentgym.policies.serve_command import ServeOptions
from agentgym.policies.vllm_http import ServerOptions
from agentgym.voices import SamplingOptions


class Reads:
    """A policy of which only the length of its context matters."""

    max_context = 100


def test_a_model_without_a_prompt_gets_the_environments_own() -> None:
    prompt = prompt_of("m", None, "alfworld", "plain", "window(2)")
    assert (prompt.template.name, str(prompt.context)) == ("alfworld.plain", "window(2)")
    assert str(prompt_of("m", None, "alfworld", "tags", None).context) == "full"


def test_a_model_keeps_the_prompt_it_was_trained_with() -> None:
    saved = load_prompt("alfworld", "plain", "full")
    assert prompt_of("m", saved, "alfworld", "tags", None) is saved
    assert prompt_of("m", saved, "alfworld", "tags", "full") is saved
    with pytest.raises(UsageError, match=r"trained with context full, not window\(2\)"):
        prompt_of("m", saved, "alfworld", "tags", "window(2)")


def test_a_context_longer_than_the_model_reads_is_refused() -> None:
    check_context("m", Reads(), SamplingOptions(max_tokens=10, max_context=100))
    with pytest.raises(UsageError, match="max_context is 101 tokens, the model m reads 100"):
        check_context("m", Reads(), SamplingOptions(max_tokens=10, max_context=101))


def test_a_turn_that_fills_the_context_is_refused() -> None:
    with pytest.raises(UsageError, match="a turn of 50 tokens does not fit"):
        check_context("m", Reads(), SamplingOptions(max_tokens=50, max_context=50))


def test_a_bundled_model_is_opened_with_its_own_prompt_and_whole_context() -> None:
    model = open_model("alfworld-tiny", "alfworld")
    assert model.script.prompt.template.name == "alfworld.plain"
    assert model.sampling.temperature == 0.4
    assert model.sampling.max_context == model.policy.max_context == 2048
    model.policy.close()


def test_the_digest_of_a_tokenizer_is_of_its_rules_and_its_chat_template() -> None:
    folder = resolve_model("alfworld-tiny")
    tokenizer, same = load_tokenizer(folder), load_tokenizer(folder)
    digest = tokenizer_digest(tokenizer)
    assert tokenizer_digest(same) == digest
    same.chat_template += " "
    assert tokenizer_digest(same) != digest
    tokenizer.add_tokens("another")
    assert tokenizer_digest(tokenizer) != digest


def test_a_training_run_is_refused_with_the_path_of_its_last_model(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text("step_000050\n")
    with pytest.raises(UsageError, match=r"training run, not a model; .*/step_000050/hf$"):
        open_model(str(tmp_path), "alfworld")


def test_the_digest_of_the_weights_changes_with_them(tmp_path: Path) -> None:
    bundled = open_model("alfworld-tiny", "alfworld")
    shutil.copytree(resolve_model("alfworld-tiny"), tmp_path / "copy")
    assert open_model(str(tmp_path / "copy"), "alfworld").weights == bundled.weights
    with (tmp_path / "copy" / "generation_config.json").open("a") as stream:
        stream.write("\n")
    assert open_model(str(tmp_path / "copy"), "alfworld").weights != bundled.weights


def test_a_server_that_is_started_is_waited_for_as_long_as_it_may_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waited = []

    @contextmanager
    def start(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(urls=("http://127.0.0.1:1",))

    @contextmanager
    def note(name: str, env: str, server: ServerOptions, *_: object) -> Iterator[Model]:
        waited.append(server.patience)
        yield Model(name, None, None, SamplingOptions())  # type: ignore[arg-type]

    monkeypatch.setattr(models, "ModelServers", start)
    monkeypatch.setattr(models, "open_served", note)
    serve = ServeOptions(patience=900)
    with models.open_own_server("alfworld-tiny", "alfworld", serve, tmp_path / "log", print):
        assert waited == [900]


def test_an_unknown_model_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UsageError, match="did you mean alfworld-tiny"):
        open_model("alfworld-tony", "alfworld")
