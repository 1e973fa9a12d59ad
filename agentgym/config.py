"""The configuration of a training run: composed from each storey's own options.

Read from a recipe, a TOML file and dotted overrides, in that order; the last word wins. An
unknown key is an error that names the nearest known one. TOML has no null: None is left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from agentgym.envs.registry import env_names
from agentgym.errors import DataError, UsageError, unknown
from agentgym.policies.precision import Compute
from agentgym.policies.prompt import findable
from agentgym.policies.serve_command import ServeOptions
from agentgym.policies.vllm_http import ServerOptions
from agentgym.rollout import EnvOptions, RolloutOptions
from agentgym.tracking import TrackerName
from agentgym.trainers.guard import GuardOptions
from agentgym.trainers.loop import HeldOutOptions
from agentgym.trainers.lora import LoraOptions
from agentgym.trainers.method import RewardOptions
from agentgym.trainers.optim import OptimOptions
from agentgym.trainers.run_folder import SaveOptions
from agentgym.trainers.sharding import ParallelOptions
from agentgym.voices import SamplingOptions

RECIPES = files("agentgym") / "recipes"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class PolicyOptions(_Section):
    """The model that acts, and how it is asked.

    Attributes:
        model: A Hugging Face folder or hub id, or the name of a bundled model.
        template: ``tags`` or ``plain``; a model folder that carries its own prompt uses that. Or
            the path of a template file (``mine.txt``), which every model is told.
        context: ``full`` (the conversation grows) or ``window(k)`` (the prompt is rebuilt at
            each turn with the last k observations and actions).
        sampling: How turns are sampled in training.
        dtype: What products are computed in, in training and by its sampler. Weights that are
            trained stay in float32; those frozen under an adapter are kept in this.
        lora: The adapter that is trained in place of the weights; None trains the weights.
        server: vLLM servers that sample; where no URL is named the model samples in this process.
        serve: Starts a vLLM server for the run, in place of a named one; None starts none.
    """

    model: str = "alfworld-tiny"
    template: Annotated[str, AfterValidator(findable)] = "tags"
    context: str = "full"
    sampling: SamplingOptions = SamplingOptions()
    dtype: Compute = "float32"
    lora: LoraOptions | None = None
    server: ServerOptions = ServerOptions()
    serve: ServeOptions | None = None


class MixedEnvOptions(EnvOptions):
    """One of several environments of a run.

    Attributes:
        share: How many tasks are drawn here beside the shares of the others; 2 is twice as many
            as 1.
    """

    share: float = Field(default=1.0, gt=0)


class Config(_Section):
    """A training run, whole.

    ``env`` is its one environment; ``mix`` has several, by their names. A run has either.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")  # TOML has an inf, and no null

    steps: int = Field(default=100, ge=1)
    seed: int = 0
    env: EnvOptions | None = None
    mix: dict[str, MixedEnvOptions] | None = None
    policy: PolicyOptions = PolicyOptions()
    rollout: RolloutOptions = RolloutOptions()
    reward: RewardOptions = RewardOptions()
    method: dict[str, Any] = {}
    optim: OptimOptions = OptimOptions()
    parallel: ParallelOptions = ParallelOptions()
    guard: GuardOptions = GuardOptions()
    eval: HeldOutOptions
    save: SaveOptions = SaveOptions()
    trackers: tuple[TrackerName, ...] = ()  # who else is told the metrics

    @field_validator("method")
    @classmethod
    def _has_no_none(cls, value: dict[str, Any]) -> dict[str, Any]:
        # A run folder could not keep it, and a resumed run would have the default in its place.
        for key, setting in value.items():
            if setting is None:
                raise ValueError(f"{key} is None, which TOML cannot say; leave it out")
        return value

    @model_validator(mode="after")
    def _has_one_or_several_environments(self) -> Self:
        if self.env is None and self.mix is None:
            raise ValueError("env.suite is missing: say which tasks are trained on")
        if self.env is not None and self.mix is not None:
            raise ValueError(
                "there are env and mix; a run has one environment, or a mix of several"
            )
        for name, env in (self.mix or {}).items():
            if not env.suite.startswith(f"{name}/"):
                raise ValueError(f"mix.{name} has the suite {env.suite}, which is not of {name}")
        if self.mix is not None and len(self.mix) < 2:
            raise ValueError("a mix has at least two environments; name one alone as env")
        return self

    @model_validator(mode="after")
    def _corrects_what_is_stale(self) -> Self:
        """Weigh the tokens of older weights, unless it was said how."""
        correction = self.optim.correction
        if not self.rollout.staleness or "level" in correction.model_fields_set:
            return self
        correction = correction.model_copy(update={"level": "token"})
        optim = self.optim.model_copy(update={"correction": correction})
        return self.model_copy(update={"optim": optim})

    @property
    def envs(self) -> dict[str, EnvOptions]:
        """The environments that are trained in, by name."""
        if self.env is not None:
            return {self.env.suite.partition("/")[0]: self.env}
        return dict(self.mix or {})

    def share(self, name: str) -> float:
        """Return the share of an environment in the tasks of a step."""
        return 1.0 if self.mix is None else self.mix[name].share

    @property
    def method_name(self) -> str:
        """The method, as ``epo`` or ``epo:released``; the neutral base where none is named."""
        return str(self.method.get("name", "grpo"))

    def to_toml(self) -> str:
        """Return the configuration as TOML that :func:`load` reads back."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def recipe_names(env: str) -> tuple[str, ...]:
    """Return the names of the recipes that come with the package for an environment."""
    found = (path.name for path in RECIPES.iterdir())
    return tuple(
        sorted(
            name.removeprefix(f"{env}-").removesuffix(".toml")
            for name in found
            if name.startswith(f"{env}-") and name.endswith(".toml")
        )
    )


def read_recipe(env: str, name: str) -> dict[str, Any]:
    """Return the recipe of an environment by name, unvalidated.

    Raises:
        UsageError: There is no such environment, or it has no such recipe.
    """
    if env not in env_names():
        raise unknown("environment", env, env_names())
    if not recipe_names(env):
        raise UsageError(
            f"{env} has no recipe; write one (docs/train.md tells what is in it) and give it:"
            " --recipe FILE.toml"
        )
    if name not in recipe_names(env):
        raise unknown(f"recipe for {env} (or path of a .toml file)", name, recipe_names(env))
    return tomllib.loads((RECIPES / f"{env}-{name}.toml").read_text(encoding="utf-8"))


def mixed(recipes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one recipe whose environments are those of several; a single one is as it was.

    Each brings its environment and its held-out suite, and the room for tokens is that of whoever
    needs most. All else is the first one's.

    Raises:
        UsageError: Two are of the same environment.
    """
    first = dict(recipes[0])
    if len(recipes) == 1:
        return first
    envs = {recipe["env"]["suite"].partition("/")[0]: recipe["env"] for recipe in recipes}
    if len(envs) < len(recipes):
        raise UsageError("a mix has each environment once; leave out what comes again")
    del first["env"]
    sampling = [recipe["policy"]["sampling"] for recipe in recipes]
    room = {name: max(one[name] for one in sampling) for name in ("max_tokens", "max_context")}
    beside = {
        "mix": envs,
        "policy": {"sampling": room},
        "eval": {"suite": [recipe["eval"]["suite"] for recipe in recipes]},
    }
    return merge(first, beside)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        DataError: It is not there or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a TOML error is a ValueError
        raise DataError(f"cannot read {path}: {error}") from error


def override(setting: str) -> dict[str, Any]:
    """Parse ``a.b=value`` into nested tables. The value is TOML; what is none is a string.

    Raises:
        UsageError: There is no key or no equals sign.
    """
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes section.key=value, got {setting!r}")
    try:
        parsed: Any = tomllib.loads(f"v = {value}")["v"]
    except (ValueError, RecursionError):  # no TOML, or a number of too many digits
        parsed = value
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``low`` with the values of ``high``, table by table."""
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def load(layers: Sequence[Mapping[str, Any]]) -> Config:
    """Merge the layers, lowest first, and validate them.

    Raises:
        UsageError: An unknown key or a value that does not fit; the message names the key and,
            for an unknown one, the nearest known.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise _usage_error(error) from None


def _usage_error(error: ValidationError) -> UsageError:
    first = error.errors(include_url=False)[0]
    where = tuple(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown("setting", ".".join(where), _known_settings(Config))
    if first["type"] == "missing":
        return UsageError(f"the setting {'.'.join(where)} is missing and has no default")
    if not where:  # of the whole
        return UsageError(first["msg"].removeprefix("Value error, "))
    return UsageError(f"setting {'.'.join(where)} = {first['input']!r}: {first['msg']}")


def _known_settings(model: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, field in model.model_fields.items():
        sections = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        for section in sections:
            names += _known_settings(section, f"{prefix}{name}.")
        names += [] if sections else [prefix + name]
    return names
