"""``agentgym doctor --plan``: whether a run would fit on given GPUs, before there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentgym.console import say, say_table
from agentgym.errors import AgentGymError, UsageError

if TYPE_CHECKING:
    from agentgym.config import Config
    from agentgym.memory_plan import Item
    from agentgym.model_shape import ModelShape
    from agentgym.run_plan import Plan

_PLAN, _RUN = "With --plan", "Of a run"
_GIB = 2**30


def _option(*names: str, text: str, panel: str = _PLAN, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


Recipe = Annotated[
    str | None,
    _option("--recipe", text="Of --env, as paper; or the path of a TOML file.", panel=_RUN),
]
Set = Annotated[
    list[str] | None,
    _option("--set", metavar="KEY=VALUE", text="Any setting, as policy.lora.rank=16.", panel=_RUN),
]
Model = Annotated[
    str | None,
    _option(
        "-m",
        "--model",
        text="What trains, and what --server should have. A plan takes a config.json or the name of"
        " a public model, too, as Qwen2.5-7B.",
        panel=_RUN,
    ),
]
Parameters = Annotated[str | None, _option("--parameters", text="Of a stated model, as 7B.")]
Layers = Annotated[int | None, _option("--layers", min=1, text="Of a stated model.")]
Hidden = Annotated[int | None, _option("--hidden", min=1, text="Its hidden size.")]
Heads = Annotated[int | None, _option("--heads", min=1, text="Its heads.")]
KvHeads = Annotated[int | None, _option("--kv-heads", min=1, text="Its heads of keys and values.")]
Vocab = Annotated[int | None, _option("--vocab", min=1, text="Its vocabulary.")]
Intermediate = Annotated[
    int | None, _option("--intermediate", min=1, text="Its feed-forward size, if known.")
]
Tied = Annotated[
    bool, _option("--tied", text="Its output has the embedding's matrix and none of its own.")
]
Context = Annotated[int | None, _option("--context", min=2, text="Tokens of the longest row.")]
GroupSize = Annotated[int | None, _option("--group-size", min=1, text="Episodes of a task.")]
Gpus = Annotated[int, _option("--gpus", min=1, text="That train.")]
GpuMemory = Annotated[float, _option("--gpu-memory", min=1, text="GiB of each GPU.")]
ServingGpus = Annotated[int | None, _option("--serving-gpus", min=1, text="More, for vLLM alone.")]
Share = Annotated[bool, _option("--share", text="vLLM is on the GPUs that train.")]
TensorParallel = Annotated[
    int, _option("--tensor-parallel", min=1, text="GPUs that share a server's weights.")
]


@dataclass(frozen=True, slots=True)
class Stated:
    """The sizes of a model that has no name here."""

    parameters: str | None = None
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    vocab: int | None = None
    intermediate: int | None = None
    tied: bool = False

    def shape(self) -> ModelShape:
        """Return them as a shape.

        Raises:
            UsageError: One is missing, or they do not fit together.
        """
        from agentgym.model_shape import read_count, stated_shape

        if self.layers is None or self.hidden is None or self.heads is None or self.vocab is None:
            raise UsageError(
                "a stated model has at least --parameters, --layers, --hidden, --heads and --vocab"
            )
        return stated_shape(
            self.layers,
            self.hidden,
            self.heads,
            self.vocab,
            kv_heads=self.kv_heads,
            intermediate=self.intermediate,
            parameters=None if self.parameters is None else read_count(self.parameters),
            tied=self.tied,
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """Which run."""

    recipe: str | None = None
    settings: tuple[str, ...] = ()
    model: str | None = None
    stated: Stated = Stated()
    context: int | None = None
    group_size: int | None = None


@dataclass(frozen=True, slots=True)
class Gear:
    """Which GPUs."""

    gpus: int = 1
    memory: float = 80.0  # GiB of each
    serving: int | None = None
    share: bool = False
    tensor_parallel: int = 1


def refuse_without_plan(asked: Asked, gear: Gear) -> None:
    """Refuse what only a plan takes.

    Raises:
        UsageError: Some of it was given.
    """
    of_a_run = Asked(asked.recipe, asked.settings, asked.model)
    if asked != of_a_run or gear != Gear():
        raise UsageError("what is said of a model's sizes and of GPUs is for a plan; add --plan")


def show_plan(env: Sequence[str], asked: Asked, gear: Gear) -> None:
    """Say what each GPU would hold, whether it fits, and what would mend it.

    Raises:
        AgentGymError: It does not fit.
        UsageError: What was asked for does not fit together.
    """
    config = configuration(env, asked)
    name = asked.model or config.policy.model
    if asked.stated == Stated():
        shape = _known_shape(name)
    elif asked.model is not None:
        raise UsageError("--model has its sizes; leave out --parameters, --layers and the like")
    else:
        name, shape = "a stated model", asked.stated.shape()
    plan = _plan(config, shape, gear)
    _introduce(name, config, plan)
    _show_trainers(plan)
    _show_servers(plan)
    if not plan.fits:
        raise AgentGymError("this does not fit; what takes most, and what would mend it, is above")
    say("this fits")


def configuration(env: Sequence[str], asked: Asked) -> Config:
    """Return the configuration of a run; its model stays the recipe's.

    Raises:
        UsageError: There is no such recipe or setting, or several environments are named.
        DataError: The recipe's file cannot be read.
    """
    from agentgym.config import load, override, read_recipe, read_toml

    if len(env) > 1:
        raise UsageError("a run has one recipe; give one --env")
    recipe = asked.recipe
    if recipe is not None and recipe.endswith(".toml"):
        low = read_toml(Path(recipe))
    elif env:
        low = read_recipe(env[0], recipe or "laptop")
    elif recipe is not None:
        raise UsageError(f"the recipe {recipe} of which environment? add --env")
    else:  # a run's defaults; which tasks are played changes nothing
        low = {"env": {"suite": "corridor/train"}, "eval": {"suite": "corridor/test"}}
    sizes = {
        "policy.sampling.max_context": asked.context,
        "rollout.group_size": asked.group_size,
    }
    given = [f"{key}={value}" for key, value in sizes.items() if value is not None]
    return load([low, *(override(setting) for setting in (*given, *asked.settings))])


def _known_shape(name: str) -> ModelShape:
    from agentgym.model_shape import shape_of
    from agentgym.policies.bundled import bundled_models, resolve_model
    from agentgym.policies.smollm2 import SMOLLM2

    if name == SMOLLM2:
        return shape_of("SmolLM2-135M")
    return shape_of(resolve_model(name) if name in bundled_models() else name)


def _plan(config: Config, shape: ModelShape, gear: Gear) -> Plan:
    from agentgym.memory_plan import Serving
    from agentgym.run_plan import Plan, trainers_of, training_of

    if gear.share and gear.serving is not None:
        raise UsageError("--share puts vLLM on the GPUs that train, --serving-gpus on others")
    sleeps = config.policy.server.sleep
    if sleeps and (gear.serving is not None or gear.gpus > 1):
        raise UsageError(
            "policy.server.sleep is for a server and a learner on one GPU; leave out --gpus and"
            " --serving-gpus, or it"
        )
    shared = gear.share or sleeps
    training = training_of(config, in_process=not shared and gear.serving is None)
    trainers = trainers_of(config, gear.gpus, gear.memory * _GIB)
    if training.in_process:
        return Plan(shape, training, trainers)
    gpus = gear.gpus if gear.serving is None else gear.serving
    serving = Serving(gpus, gear.memory * _GIB, gear.tensor_parallel, half=training.half)
    return Plan(shape, training, trainers, serving, shared, sleeps)


def _introduce(name: str, config: Config, plan: Plan) -> None:
    shape, training = plan.shape, plan.training
    say(
        f"{name}: {shape.parameters:,} parameters; {shape.layers} layers of {shape.hidden},"
        f" {shape.heads} heads, {shape.kv_heads} of keys and values, {shape.intermediate} inside,"
        f" vocabulary {shape.vocabulary:,}"
    )
    what = "all weights" if training.lora_rank is None else f"an adapter of {training.lora_rank}"
    say(
        f"{config.method_name} trains {what} in {config.policy.dtype}: rows of"
        f" {training.context:,} tokens, {training.tokens:,} at once,"
        f" {training.episodes} episodes a step"
    )


def _show_trainers(plan: Plan) -> None:
    from agentgym.memory_plan import host_memory
    from agentgym.run_plan import mends

    trainers = plan.trainers
    way = "" if trainers.gpus == 1 else ", in shards" if trainers.sharded else ", each with all"
    say(f"\ntraining on {trainers.gpus} x {trainers.bytes / _GIB:g} GiB{way}; on each of them:")
    _show_items(plan.items)
    verdict = "fits" if plan.trains else "does not fit"
    say(f"at most {_gib(plan.needed)} of {trainers.bytes / _GIB:g} GiB at once: {verdict}")
    say(f"largest: {plan.largest.name}, {_gib(plan.largest.bytes)} GiB")
    host = host_memory(plan.shape, plan.training, trainers)
    say(
        f"memory of the hosts: {_gib(host.beginning)} GiB a process while a run is resumed, then"
        f" {_gib(host.first)} of the first one, which saves, and {_gib(host.others)} of each other"
    )
    if plan.trains and plan.serves:
        return
    for said, other in mends(plan):
        say(f"mend: {said}: {_gib(other.needed)} GiB, {'fits' if other.trains else 'too much'}")


def _show_servers(plan: Plan) -> None:
    serving, found = plan.servers, plan.served
    if serving is None or found is None or (plan.shared and not plan.trains):
        return
    each = serving.bytes * serving.utilization
    turns = "in turns with the learner" if plan.sleeps else "beside the learner"
    where = turns if plan.shared else f"on {serving.gpus} GPUs of their own"
    say(f"\nserving, {serving.replicas} vLLM, {where}; on each GPU:")
    _show_items(found.items)
    say(
        f"--gpu-memory-utilization {serving.utilization:.2f} gives vLLM {_gib(each)} GiB, and"
        f" leaves {_gib(max(0.0, found.room))} for keys and values of {found.token:,.0f} bytes a"
        " token"
    )
    if not found.at_once:
        say("no episode of full length fits: more GPUs a server (--tensor-parallel), or --context")
        return
    say(
        f"{found.at_once} episodes of full length at once, of {plan.training.episodes} a step;"
        " more wait their turn"
    )


def _show_items(items: Sequence[Item]) -> None:
    rows = [(item.name, _gib(item.bytes), item.phase, item.how) for item in items]
    say_table(("what", "GiB", "when", "how"), rows)


def _gib(count: float) -> str:
    return f"{count / _GIB:.2f}"
