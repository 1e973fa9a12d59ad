"""Configurations: whose word is the last, what is refused, what is written is read back."""

import math
import tomllib
from pathlib import Path

import pytest

from agentgym.config import load, merge, override, read_recipe, read_toml, recipe_names
from agentgym.envs.registry import env_names
from agentgym.errors import DataError, UsageError
from agentgym.trainers.registry import build_chain

LEAST = {"env": {"suite": "alfworld/gen-train"}, "eval": {"suite": "alfworld/gen-unseen"}}


@pytest.mark.parametrize(
    ("setting", "table"),
    [
        ("steps=3", {"steps": 3}),
        ("optim.lr=1e-6", {"optim": {"lr": 1e-6}}),
        ("policy.sampling.max_tokens = 8", {"policy": {"sampling": {"max_tokens": 8}}}),
        ("policy.model=owner/model", {"policy": {"model": "owner/model"}}),
        ('env.task_types=["a", "b"]', {"env": {"task_types": ["a", "b"]}}),
        ("policy.context=window(2)", {"policy": {"context": "window(2)"}}),
    ],
)
def test_an_override_is_toml_and_a_string_where_it_is_none(
    setting: str, table: dict[str, object]
) -> None:
    assert override(setting) == table


@pytest.mark.parametrize("setting", ["steps", "=3", ""])
def test_an_override_without_key_or_value_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=r"section\.key=value"):
        override(setting)


@pytest.mark.parametrize(
    ("staleness", "said", "level"),
    [(0, {}, "off"), (1, {}, "token"), (1, {"limit": 3.0}, "token"), (1, {"level": "off"}, "off")],
)
def test_tokens_of_older_weights_are_weighed_unless_it_is_said_how(
    staleness: int, said: dict[str, object], level: str
) -> None:
    given = {"rollout": {"staleness": staleness}, "optim": {"correction": said}}
    config = load([LEAST, given])
    assert config.optim.correction.level == level
    assert config.optim.correction.limit == said.get("limit", 2.0)
    assert load([tomllib.loads(config.to_toml())]) == config


def test_tables_are_merged_and_values_replaced() -> None:
    low = {"a": {"x": 1, "y": 2}, "b": 3}
    assert merge(low, {"a": {"y": 4}, "b": {"z": 5}}) == {"a": {"x": 1, "y": 4}, "b": {"z": 5}}
    assert low == {"a": {"x": 1, "y": 2}, "b": 3}


def test_the_last_layer_has_the_last_word() -> None:
    config = load([LEAST, {"steps": 5, "optim": {"lr": 1e-3}}, override("steps=7")])
    assert (config.steps, config.optim.lr) == (7, 1e-3)


def test_every_recipe_reads_back_what_it_writes() -> None:
    assert {"laptop", "paper"} <= set(recipe_names("alfworld"))
    for env in env_names():
        for name in recipe_names(env):
            config = load([read_recipe(env, name)])
            assert load([tomllib.loads(config.to_toml())]) == config


def test_a_method_setting_of_none_is_refused_as_a_run_folder_could_not_keep_it() -> None:
    with pytest.raises(UsageError, match=r"setting method .*sum_norm is None.*leave it out"):
        load([LEAST, {"method": {"name": "drgrpo", "sum_norm": None}}])


@pytest.mark.parametrize(
    "method", [{"name": "igpo", "format_outcome": "keep"}, {"name": "grpo", "dual_clip": math.inf}]
)
def test_a_method_setting_that_switches_a_part_off_is_written_and_read_back(
    method: dict[str, object],
) -> None:
    config = load([LEAST, {"method": method}])
    assert load([tomllib.loads(config.to_toml())]) == config
    build_chain(config.method, 1)


def test_the_paper_recipe_has_the_published_sizes() -> None:
    config = load([read_recipe("alfworld", "paper")])
    assert (config.steps, config.env.max_turns, config.policy.context) == (150, 50, "window(2)")
    assert (config.rollout.tasks_per_step, config.rollout.group_size) == (16, 8)
    assert (config.optim.lr, config.optim.warmup, config.optim.floor) == (5e-6, 0.1, 0.2)
    assert (config.optim.mini_batch, config.optim.mini_batch_of) == (256, "row")
    assert (config.reward.scale, config.reward.format_penalty) == (10, 0.1)
    assert (config.policy.sampling.temperature, config.eval.temperature) == (1.0, 0.4)
    # A prompt of 2,048 tokens and an answer of 512.
    assert config.policy.sampling.max_context - config.policy.sampling.max_tokens == 2048


def test_no_recipe_trains_on_what_it_is_measured_on() -> None:
    for name in recipe_names("alfworld"):
        config = load([read_recipe("alfworld", name)])
        assert config.env.suite.endswith("train")
        assert config.eval.suite.endswith("unseen")


def test_an_unknown_setting_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UsageError, match=r"'optim\.lrr'; did you mean optim\.lr"):
        load([LEAST, override("optim.lrr=1")])


def test_a_value_that_does_not_fit_is_named() -> None:
    with pytest.raises(UsageError, match=r"setting steps = 0: "):
        load([LEAST, {"steps": 0}])


def test_a_setting_that_must_be_given_is_named() -> None:
    with pytest.raises(UsageError, match="the setting eval is missing"):
        load([{"env": {"suite": "alfworld/gen-train"}}])


def test_the_method_is_the_neutral_one_where_none_is_named() -> None:
    assert load([LEAST]).method_name == "grpo"
    assert load([LEAST, override("method.name=epo:released")]).method_name == "epo:released"


def test_unknown_environments_and_recipes_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean alfworld"):
        read_recipe("alfword", "paper")
    with pytest.raises(UsageError, match="did you mean laptop"):
        read_recipe("alfworld", "labtop")
    with pytest.raises(UsageError, match=r"corridor has no recipe; .* --recipe FILE.toml"):
        read_recipe("corridor", "laptop")


def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("steps = = 3")
    for name in ("bad.toml", "missing.toml"):
        with pytest.raises(DataError, match=f"cannot read .*{name}"):
            read_toml(tmp_path / name)


def test_a_number_of_too_many_digits_is_refused_in_a_file_and_a_text_in_a_setting(
    tmp_path: Path,
) -> None:
    path = tmp_path / "huge.toml"
    for content in (f"steps = {'9' * 5000}", "steps = " + "[" * 9000):
        path.write_text(content)
        with pytest.raises(DataError, match="cannot read"):
            read_toml(path)
        assert override(content.replace("steps = ", "steps="))["steps"] == content[8:]
