"""``agentgym doctor --plan``: what it says of a run, and what it refuses."""

import re
from pathlib import Path

import pytest

SIZES = {"--layers": 28, "--hidden": 3584, "--heads": 28, "--kv-heads": 4, "--vocab": 152064}
SEVEN_B = ["--parameters", "7B", *(str(word) for size in SIZES.items() for word in size)]
HALF = ["--set", "policy.dtype=bfloat16"]


def test_a_stated_model_with_an_adapter_fits_beside_its_server(agentgym) -> None:
    given = (*SEVEN_B, *HALF, "--set", "policy.lora.rank=16", "--context", 4096, "--share")
    code, out, _ = agentgym("doctor", "--plan", *given)
    assert code == 0
    assert "an adapter of 16 in bfloat16: rows of 4,096 tokens" in out
    needed = float(re.search(r"at most ([\d.]+) of 80 GiB at once: fits", out)[1])
    share = float(re.search(r"--gpu-memory-utilization ([\d.]+) gives", out)[1])
    assert share == int(100 * (80 - needed) / 80) / 100  # all that the learner leaves, rounded down
    assert out.endswith("this fits\n")


SLEEP = ("--set", "policy.server.sleep=true")


def test_a_server_that_sleeps_may_take_what_only_the_update_needs(agentgym) -> None:
    given = ("doctor", "--plan", *SEVEN_B, *HALF, "--set", "policy.lora.rank=16", *SLEEP)
    code, out, _ = agentgym(*given)
    assert code == 0
    rows = re.findall(r"^(\S.*?) +([\d.]+) +(always|update|rollout) ", out, re.M)
    learner, server = rows[:-3], rows[-3:]
    assert server[0][0] == "weights"
    held = {(name, when): float(size) for name, size, when in learner}
    assert held["a server asleep", "update"] == 2
    always = sum(size for (_, when), size in held.items() if when == "always")
    update = sum(held.values())
    assert float(re.search(r"at most ([\d.]+) of 80", out)[1]) == pytest.approx(update, abs=0.05)
    assert "1 vLLM, in turns with the learner" in out
    share = float(re.search(r"--gpu-memory-utilization ([\d.]+) gives", out)[1])
    assert share == pytest.approx((80 - always) / 80, abs=0.011)
    assert share > 1 - update / 80
    assert agentgym(*given, "--share") == (code, out, "")


def test_sleep_mends_a_server_that_has_no_room_beside_the_learner(agentgym) -> None:
    run = ("doctor", "--plan", *SEVEN_B, *HALF, "--set", "policy.lora.rank=16", "--share")
    run = (*run, "--gpu-memory", 72, "--context", 8192)
    code, out, _ = agentgym(*run)
    assert code == 1
    assert re.search(r"mend: policy.server.sleep=true: [\d.]+ GiB, fits", out)
    assert agentgym(*run, *SLEEP)[0] == 0


def test_what_does_not_fit_is_told_with_what_takes_most_and_what_mends_it(agentgym) -> None:
    run = ("--env", "scienceworld", "--recipe", "paper", "--serving-gpus", 2)
    code, out, err = agentgym("doctor", "--plan", *run)
    assert code == 1
    assert "Qwen/Qwen2.5-7B-Instruct: 7,615,616,512 parameters" in out
    assert "does not fit" in out
    assert "largest: optimiser" in out
    assert re.search(r"mend: policy.lora.rank=16: [\d.]+ GiB, fits", out)
    assert re.search(r"mend: method.kl_coef=0: [\d.]+ GiB, too much", out)
    assert re.search(r"mend: \d+ GPUs, parallel.weights=sharded, .*, fits", out)
    assert "this does not fit" in err


@pytest.mark.parametrize(
    "mend",
    [
        ["--set", "optim.gradient_checkpointing=true"],
        ["--set", "policy.lora.rank=16"],
        ["--gpus", "2", "--set", "parallel.weights=sharded", "--set", "parallel.reduce=each"],
    ],
)
def test_a_mend_that_is_said_to_fit_does(agentgym, mend: list[str]) -> None:
    run = ("doctor", "--plan", "--env", "alfworld", "--recipe", "paper", "--serving-gpus", 1)
    code, out, _ = agentgym(*run)
    assert code == 1
    said = {
        tuple(line.removeprefix("mend: ").split(": ")[0].replace(" GPUs", "").split(", ")): line
        for line in out.splitlines()
        if line.startswith("mend: ")
    }
    named = tuple(value for flag, value in zip(mend[::2], mend[1::2], strict=True) if flag)
    promised = re.search(r": ([\d.]+) GiB, fits", said[named])[1]
    code, out, _ = agentgym(*run, *mend)
    assert code == 0
    assert f"at most {promised} of 80 GiB at once: fits" in out


def test_more_servers_hold_more_episodes(agentgym) -> None:
    held = []
    for gpus in (1, 2):
        run = ("--env", "search", "--recipe", "aepo-14b", "--gpus", 8, "--serving-gpus", gpus)
        _, out, _ = agentgym("doctor", "--plan", *run)
        held.append(int(re.search(r"(\d+) episodes of full length at once, of 768 a step", out)[1]))
    assert held[1] == 2 * held[0] > 0


def test_a_server_without_room_is_told_what_would_give_it_some(agentgym) -> None:
    run = ("--env", "search", "--recipe", "igpo-7b", "--gpu-memory", 16, "--serving-gpus", 1)
    code, out, _ = agentgym("doctor", "--plan", *run)
    assert code == 1
    assert "no episode of full length fits: more GPUs a server" in out


def test_a_run_in_one_process_counts_the_keys_and_values_of_its_own_sampler(agentgym) -> None:
    code, out, _ = agentgym("doctor", "--plan", "--env", "alfworld", "--gpu-memory", 8)
    assert code == 0
    assert "alfworld-tiny: 1,059,328 parameters" in out
    assert re.search(r"keys and values +\d\.\d\d +rollout", out)
    assert "serving" not in out


def test_a_recipe_of_ones_own_is_planned(agentgym, tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        '[env]\nsuite = "corridor/train"\n[eval]\nsuite = "corridor/test"\n'
        '[policy]\nmodel = "smollm2"\n[policy.lora]\nrank = 4\n'
    )
    code, out, _ = agentgym("doctor", "--plan", "--recipe", recipe, "--group-size", 3)
    assert code == 0
    assert "smollm2: 134,515,008 parameters" in out
    assert "48 episodes a step" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "Qwen/Qwen2.5-7"], "did you mean Qwen2.5-7B"),
        (["--model", "Qwen2.5-7B", "--layers", "3"], "--model has its sizes"),
        (["--layers", "3"], "a stated model has at least"),
        (["--parameters", "many", *SEVEN_B[2:]], "expected a number of parameters"),
        (["--recipe", "paper"], "of which environment? add --env"),
        (["--env", "alfworld", "--env", "search"], "a run has one recipe"),
        (["--set", "policy.lora.rnak=1"], "did you mean"),
        (["--share", "--serving-gpus", "2"], "--share puts vLLM on the GPUs that train"),
        ([*SLEEP, "--serving-gpus", "2"], "for a server and a learner on one GPU"),
        ([*SLEEP, "--gpus", "2"], "for a server and a learner on one GPU"),
        (["--model", "Qwen2.5-7B", "--context", "40000"], "reads 32,768 tokens"),
        (
            ["--model", "Qwen2.5-7B", "--serving-gpus", "3", "--tensor-parallel", "2"],
            "no multiple of --tensor-parallel 2",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_bad_usage(
    agentgym, arguments: list[str], said: str
) -> None:
    code, _, err = agentgym("doctor", "--plan", *arguments)
    assert code == 2
    assert said in err


def test_what_is_for_a_plan_is_refused_without_one(agentgym) -> None:
    code, _, err = agentgym("doctor", "--gpus", 8)
    assert code == 2
    assert "add --plan" in err
