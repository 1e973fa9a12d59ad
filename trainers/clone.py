"""A run of behaviour cloning: from a fresh model, or one that is there, to a model folder.

Reads like the training loop, with demonstrations in place of rollouts. The run folder is the same
too; a run that was ended goes on when :func:`clone` is called again.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tomli_w
import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from agentgym import __version__
from agentgym.envs.registry import make_env
from agentgym.errors import DataError, UsageError, unknown
from agentgym.evaluate import tasks_of
from agentgym.policies.bundled import resolve_model
from agentgym.policies.conversation import Script
from agentgym.policies.hf import load_model, load_tokenizer
from agentgym.policies.prompt import Prompt, load_prompt, saved_prompt
from agentgym.rollout import EnvOptions
from agentgym.trainers.checkpoint import MODEL, UNREADABLE, as_data_errors
from agentgym.trainers.demonstrations import (
    Demonstration,
    Demonstrations,
    Player,
    row_of,
    texts_of,
)
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.recorded import FromFile, Recorded
from agentgym.trainers.run_folder import RunFolder, SaveOptions
from agentgym.trainers.sft import Cloner, CloningOptions
from agentgym.trainers.tiny import Shape, fresh_model, save_model, train_tokenizer
from agentgym.types import EnvSpec, Row

DEMONSTRATORS = {
    "alfworld": "agentgym.envs.alfworld_demonstrator:Demonstrator",
    "scienceworld": "agentgym.envs.scienceworld_demonstrator:Demonstrator",
    "search": "agentgym.envs.search_demonstrator:Demonstrator",
    "webshop": "agentgym.envs.webshop_demonstrator:Demonstrator",
}
"""Who plays for each environment that has a demonstrator."""

STATE = "trainer/state.pt"
DEMONSTRATIONS = "demonstrations.jsonl"


class _Parts(NamedTuple):
    model: PreTrainedModel
    tokenizer: Any
    prompt: Prompt


class CloneOptions(BaseModel):
    """A run of behaviour cloning, whole.

    Attributes:
        steps: Optimiser steps.
        seed: Where the first weights and all draws come from.
        env: What is demonstrated; never a held-out suite.
        model: A model folder or the name of a bundled model to begin with; None begins with a
            fresh model.
        shape: Of a fresh model.
        vocabulary: Tokens of a fresh tokenizer, at most.
        phrases: What the environment says again and again; one token each in a fresh tokenizer.
        names: Whether a fresh tokenizer cuts names from the space before them, so that they can
            be copied from wherever they stand.
        slips: Chances of an action being a slip, of which each episode draws one.
        max_tokens: Longer demonstrations are left out.
        demonstrations: A file of demonstrations, as ``agentgym play`` saves them or as an
            evaluation keeps its trajectories; None plays the environment's demonstrator.
        recorded: So many demonstrations are played, kept in the run folder and learnt again and
            again; None plays a new one each time.
        sft: How demonstrations are learnt.
        optim: How weights are updated.
        save: What is kept on disk.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    steps: int = Field(default=1500, ge=1)
    seed: int = 0
    env: EnvOptions
    model: str | None = None
    shape: Shape = Shape()
    vocabulary: int = Field(default=1536, ge=300)
    phrases: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    names: bool = False
    slips: tuple[float, ...] = Field(default=(0.0, 0.1, 0.25), min_length=1)
    max_tokens: int = Field(default=1200, ge=2)
    demonstrations: str | None = None
    recorded: int | None = Field(default=None, ge=1)
    sft: CloningOptions = CloningOptions()
    optim: OptimOptions = OptimOptions()
    save: SaveOptions = SaveOptions()


def clone(
    options: CloneOptions,
    run: RunFolder,
    report: Callable[[dict[str, float]], None],
    interrupted: Callable[[], bool],
    say: Callable[[str], None],
) -> Path:
    """Learn a demonstrator's actions; go on where the run folder's last checkpoint stands.

    Only demonstrations that were won are learnt.

    Args:
        options: What to learn and how.
        run: Where metrics and checkpoints go.
        report: Is told the metrics of each step.
        interrupted: Asked after each step; True saves and ends the run.
        say: Told what people should know beside the metrics.

    Returns:
        The folder of the last model.

    Raises:
        UsageError: The environment has no demonstrator or no such tasks, or the suite is held out.
        DataError: A checkpoint is broken.
        KeyboardInterrupt: ``interrupted`` said so; the run is saved.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    checkpoint = run.sound_checkpoint(say)
    played, name = demonstrations(options)
    shown = _kept(played, options.recorded, run.path)
    once = range(min(len(played.tasks), options.recorded or len(played.tasks)))
    parts = _parts(options, checkpoint, (shown[number] for number in once), name)
    row = _rows(shown, Script(parts.prompt, parts.tokenizer), options.max_tokens)
    if isinstance(shown, FromFile) and not any(row(number) for number in once):
        raise UsageError(
            f"no demonstration of {options.demonstrations} has at most {options.max_tokens} tokens;"
            " raise max_tokens"
        )
    cloner = Cloner(parts.model, options.sft, options.optim, options.steps, row)
    write = partial(_write, cloner, parts)
    if checkpoint:
        cloner.load_state(_read_state(checkpoint[1] / STATE))
    run.cut(cloner.step)
    while cloner.step < options.steps:
        metrics = cloner.take_step()
        run.append_metrics(metrics)
        stop = interrupted()
        if stop or cloner.step % options.save.every == 0 or cloner.step == options.steps:
            run.save_checkpoint(cloner.step, write, options.save.keep)
        report(metrics)
        if stop and cloner.step < options.steps:
            raise KeyboardInterrupt
    latest = run.latest_checkpoint()
    assert latest is not None, "the last step saves"
    return latest[1] / MODEL


def new_run(options: CloneOptions, folder: Path) -> RunFolder:
    """Make the folder of a new run and write down what it is.

    Raises:
        UsageError: It holds a run already, or other files.
        DataError: It cannot be written.
    """
    about = {
        "agentgym": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
    config = tomli_w.dumps(options.model_dump(mode="json", exclude_none=True))
    return RunFolder.create(folder, config, about)


def demonstrations(options: CloneOptions) -> tuple[Demonstrations | FromFile, str]:
    """Return what is there to learn and the name of its environment.

    Raises:
        UsageError: The environment has no demonstrator, no task is of the types that were asked
            for, or the suite is held out.
        DataError: The file of demonstrations holds none.
    """
    if options.demonstrations is not None:
        found = FromFile(Path(options.demonstrations).expanduser())
        if found.env != options.env.suite.partition("/")[0]:
            raise UsageError(
                f"{options.demonstrations} is of {found.env}, and the suite is {options.env.suite};"
                " set env.suite to one of the same environment"
            )
        return found, found.env
    name = options.env.suite.partition("/")[0]
    settings: dict[str, object] = {"suite": options.env.suite, **options.env.options}
    if options.env.max_turns is not None:
        settings["max_turns"] = options.env.max_turns
    env = make_env(EnvSpec(name, settings))
    if name not in DEMONSTRATORS:
        raise unknown("environment with a demonstrator", name, DEMONSTRATORS)
    return Demonstrations(
        env, _demonstrator(name), tasks_of(env, options.env.task_types), options.seed, options.slips
    ), name


def _demonstrator(name: str) -> Callable[..., Player]:
    module, _, attribute = DEMONSTRATORS[name].partition(":")
    made: Callable[..., Player] = getattr(importlib.import_module(module), attribute)
    return made


def _kept(
    played: Demonstrations | FromFile, count: int | None, folder: Path
) -> Demonstrations | FromFile | Recorded:
    if count is None or isinstance(played, FromFile):
        return played
    return Recorded(played, count, folder / DEMONSTRATIONS)


def _rows(
    shown: Demonstrations | FromFile | Recorded, script: Script, max_tokens: int
) -> Callable[[int], Row | None]:
    """Return what gives the row of a demonstration: None of one that was lost or is too long."""

    def row(number: int) -> Row | None:
        demonstration = shown[number]
        if not demonstration.won:
            return None
        found = row_of(demonstration, script)
        return found if len(found.ids) <= max_tokens else None

    return row


def _write(cloner: Cloner, parts: _Parts, folder: Path) -> None:
    """Write a checkpoint."""
    with as_data_errors():
        save_model(folder / MODEL, *parts, dtype=torch.float32)
        (folder / "trainer").mkdir()
        torch.save(cloner.state(), folder / STATE)


def _parts(
    options: CloneOptions,
    checkpoint: tuple[int, Path] | None,
    shown: Iterable[Demonstration],
    env: str,
) -> _Parts:
    """Return the model of a checkpoint, the one to begin with, or a fresh one for what is shown."""
    if checkpoint:
        return _existing(checkpoint[1] / MODEL, env)
    if options.model:
        return _existing(Path(resolve_model(options.model)), env)
    return _fresh(options, shown, env)


def _existing(folder: Path, env: str) -> _Parts:
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    return _Parts(model, tokenizer, saved_prompt(folder) or _plain(env))


def _fresh(options: CloneOptions, shown: Iterable[Demonstration], env: str) -> _Parts:
    """Train a tokenizer on demonstrations, and draw the first weights."""
    prompt = _plain(env)
    texts = (text for demonstration in shown for text in texts_of(demonstration, prompt))
    tokenizer = train_tokenizer(texts, options.vocabulary, options.phrases, options.names)
    return _Parts(fresh_model(tokenizer, options.shape, options.seed), tokenizer, prompt)


def _plain(env: str) -> Prompt:
    return load_prompt(env, "plain", "full")


def _read_state(path: Path) -> dict[str, object]:
    try:
        state: dict[str, object] = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise DataError(f"cannot read the checkpoint {path}: {error!r}") from error
    return state
