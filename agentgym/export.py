"""What a run made, for other programs: a checkpoint as a model, episodes as conversations."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from agentgym.envs.registry import env_of_suite
from agentgym.errors import AgentGymError, DataError, UsageError, unknown
from agentgym.files import fill_empty, make_folder, write_atomic
from agentgym.models import prompt_of
from agentgym.policies.prompt import Message, Past, Prompt, is_template_file, saved_prompt
from agentgym.run_files import Run, Source, trajectories
from agentgym.types import View

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


# A checkpoint -------------------------------------------------------------------------------------


def export_model(run: Path, out: Path, step: int | None = None) -> tuple[int, Path]:
    """Copy the model of a checkpoint as a plain Hugging Face folder, an adapter merged into it.

    Args:
        run: The run folder.
        out: Must not exist, or be empty.
        step: After which step; None takes the last checkpoint.

    Returns:
        The step, and ``out``.

    Raises:
        UsageError: There is no such checkpoint, or ``out`` holds something.
        DataError: The checkpoint lacks a part of a model, or ``out`` cannot be written.
    """
    folders = _checkpoints(run)
    if not folders:
        raise UsageError(
            f"{run} has no checkpoints; export takes the folder of a run, as runs/NAME"
        )
    chosen = max(folders) if step is None else step
    if chosen not in folders:
        raise unknown(f"checkpoint of {run}", str(chosen), map(str, folders))
    source = folders[chosen] / "hf"
    for names, what in ((("config.json",), "configuration"), (_WEIGHTS, "weights"),
                        (_TOKENIZERS, "tokenizer")):  # fmt: skip
        if not any((source / name).is_file() for name in names):
            raise DataError(
                f"the checkpoint {source} has no {what}: expected {' or '.join(names)}; choose"
                " another --step, or bring the file back"
            )
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; nothing was written, choose another --output")
    fill_empty(out, lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True))
    return chosen, out


def _checkpoints(run: Path) -> dict[int, Path]:
    """Return the folders of checkpoints by their step; one that was not finished is none."""
    named = ((p.name.removeprefix("step_"), p) for p in (run / "checkpoints").glob("step_*"))
    return {int(step): path for step, path in named if step.isdigit()}


# Conversations ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which episodes are exported.

    Attributes:
        source: ``train`` or ``eval`` takes all of a kind, ``train/10`` those of one step.
        won: Only those that were won.
        score: Only those that scored at least so much.
    """

    source: str = "train"
    won: bool = False
    score: float = 0.0

    def __str__(self) -> str:
        """Return it as words."""
        won = ", was won" if self.won else ""
        return f"of {self.source}{won} and scored {self.score:g} or more"

    def takes(self, trajectory: Mapping[str, Any]) -> bool:
        """Return whether an episode is wanted; one that a fault ended never is."""
        score = trajectory.get("score")
        enough = isinstance(score, int | float) and score >= self.score
        return enough and trajectory["stop"] != "error" and (trajectory["won"] or not self.won)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what is to be said of it."""

    conversations: int
    episodes: int
    notes: tuple[str, ...]


def export_messages(run: Run, out: Path, wanted: Wanted) -> Exported:
    """Write episodes as conversations, which trainers of supervised fine-tuning read.

    The prompts are the run's own: a context that grows gives a conversation an episode, one that is
    rebuilt a conversation a turn, whose last message is what the model said.

    Args:
        run: The run.
        out: A parquet file; its column ``messages`` has objects of ``role`` and ``content``.
        wanted: Which episodes.

    Raises:
        UsageError: pyarrow is not installed, or no episode is wanted.
        DataError: The run's configuration cannot be read, or ``out`` cannot be written.
    """
    parquet = _parquet()
    prompts: dict[str, Prompt] = {}
    problems: list[str] = []
    rows: list[dict[str, Any]] = []
    episodes = 0
    for source in _sources(run, wanted.source):
        for _, trajectory in trajectories(source, problems):
            if wanted.takes(trajectory):
                suite = str(trajectory.get("suite", ""))
                if suite not in prompts:
                    prompts[suite] = prompt_of_run(run, suite)
                rows += _rows(trajectory, source, prompts[suite])
                episodes += 1
    if not rows:
        unread = f"; {problems[0]}" if problems else ""
        raise UsageError(
            f"no episode of {run.path} that can be read is {wanted}; ask for others with --from,"
            f" --won and --score{unread}"
        )
    table = import_module("pyarrow").Table.from_pylist(rows)
    content = io.BytesIO()
    parquet.write_table(table, content)
    make_folder(out.parent)
    write_atomic(out, content.getvalue())
    return Exported(len(rows), episodes, (*problems, *_notes(prompts.values())))


def conversations(trajectory: Mapping[str, Any], prompt: Prompt) -> Iterator[list[Message]]:
    """Yield an episode as conversations; the last message of each is the model's."""
    grown: list[Message] = []
    past: list[Past] = []
    for k, turn in enumerate(trajectory["turns"]):
        view = View(turn["observation"], str(trajectory.get("goal", "")), k, None, None)
        answer = Message(role="assistant", content=turn["text"])
        if prompt.context.window is not None:
            yield [*prompt.retold(view, past), answer]
            past.append(Past(turn["observation"], turn["action"]))
        else:
            grown += [prompt.reply(view)] if grown else prompt.opening(view)
            grown.append(answer)
    if grown:
        yield grown


def prompt_of_run(run: Run, suite: str | None = None) -> Prompt:
    """Return the prompt that a run's model was told: its checkpoint's, or its configuration's.

    Args:
        run: The run.
        suite: Of the episode; of a run that mixes environments, it says in which.

    Raises:
        DataError: The configuration does not say, or it is an evaluation by itself.
    """
    if run.is_evaluation:
        raise DataError(
            f"{run.path} is an evaluation by itself, which does not keep the prompts as a run does;"
            " expected the folder of a run"
        )
    folders = sorted((run.path / "checkpoints").glob("step_*/hf"), reverse=True)
    saved = next(filter(None, map(saved_prompt, folders)), None)
    if saved is not None and not run.suites:
        return saved
    try:
        policy = run.config["policy"]
        if saved is not None and is_template_file(policy["template"]):
            return saved  # the file may have changed since
        env = env_of_suite(suite if suite and len(run.suites) > 1 else run.suites[0])
        context = None if saved else policy["context"]  # a model keeps to the one that it knows
        return prompt_of(run.name, saved, env, policy["template"], context)
    except (KeyError, TypeError, IndexError, AgentGymError) as error:
        raise DataError(
            f"{run.path / 'config.toml'} does not say what the model was told ({error!r}); bring"
            " it back, or a checkpoint"
        ) from error


def _rows(trajectory: Mapping[str, Any], source: Source, prompt: Prompt) -> list[dict[str, Any]]:
    about = {
        "task": trajectory["task"],
        "task_type": str(trajectory.get("task_type", "")),
        "suite": str(trajectory.get("suite", "")),
        "source": source.name,
        "member": trajectory["member"],
        "branch": trajectory["branch"],
        "won": trajectory["won"],
        "score": float(trajectory["score"]),
    }
    told = conversations(trajectory, prompt)
    return [{"messages": messages, "part": part, **about} for part, messages in enumerate(told)]


def _sources(run: Run, wanted: str) -> Sequence[Source]:
    found = [source for source in run.sources if wanted in (source.kind, source.name)]
    if not found:
        known = {source.name for source in run.sources} | {source.kind for source in run.sources}
        raise unknown("source of episodes", wanted, known)
    return found


def _notes(prompts: Iterable[Prompt]) -> tuple[str, ...]:
    """Return what the conversations lack of what the model was told."""
    told = [
        text
        for prompt in prompts
        for name, text in prompt.template.texts.items()
        if name.startswith(prompt.context.kind)
    ]
    if not any("{actions}" in text for text in told):
        return ()
    return (
        "the prompt lists admissible actions, which a run does not keep: the conversations are"
        " without them",
    )


def _parquet() -> Any:
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError(
            f"parquet needs pyarrow ({error}); install it with: pip install 'agentgym[export]'"
        ) from error
