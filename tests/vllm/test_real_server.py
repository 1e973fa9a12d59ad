"""Against a real vLLM server: the same tokens, the same probabilities, weights that follow.

What is measured is printed; the last result is in docs/serve.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
import urllib.request
from contextlib import closing

import pytest
import torch

from agentgym.config import load, read_recipe
from agentgym.console import say
from agentgym.errors import ServerError
from agentgym.policies import serve_many
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import ServerOptions
from agentgym.policies.vllm_replica import farthest
from agentgym.policies.vllm_sleep import Sleeper
from agentgym.train import Reporter, run_training
from agentgym.trainers.handover import HandOver
from agentgym.trainers.lora import LoraOptions, add_adapter
from agentgym.trainers.shared_gpu import SharedGpu
from agentgym.types import Request

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

TOLERANCE = 1e-3  # nats a token, in float32


def policy_of(server, trained, way="disk"):
    return closing(VLLMPolicy(ServerOptions(urls=(server.url,)), trained.tokenizer, way))


def contexts(trained, count):
    text = "You are in the middle of a room. You see a cabinet 2, a fridge 1, and a shelf 3. "
    ids = trained.tokenizer.encode(text * 4, add_special_tokens=False)
    return [tuple(ids[: 20 + 7 * n]) for n in range(count)]


def requests(trained, count, **changes):
    options = {"max_tokens": 32, "temperature": 1.0, **changes}
    return [
        Request(f"s{n}", ids, seed=f"seed {n}", **options)
        for n, ids in enumerate(contexts(trained, count))
    ]


def ask(policy, asked):
    return asyncio.run(policy.sample(asked))


def own(trained, ids, sample, temperature):
    """What the trainer's weights say of the sampled tokens."""
    row = torch.tensor([[*ids, *sample.ids]])
    with torch.inference_mode():
        logits = trained.model(input_ids=row).logits[0, len(ids) - 1 : -1].float()
    logprobs = (logits / (temperature or 1.0)).log_softmax(-1)
    return logprobs.gather(1, torch.tensor(sample.ids)[:, None])[:, 0].tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0, 2.0])
def test_trainer_and_server_agree_on_every_sampled_token(tiny, trained, temperature):
    with policy_of(tiny, trained) as policy:
        asked = requests(trained, 12, temperature=temperature)
        samples = ask(policy, asked)
        gaps = [
            abs(ours - theirs)
            for one, sample in zip(asked, samples, strict=True)
            for ours, theirs in zip(
                own(trained, one.ids, sample, temperature), sample.logprobs, strict=True
            )
        ]
    say(f"temperature {temperature}: {len(gaps)} tokens, at most {max(gaps):.1e} nats apart")
    assert max(gaps) < TOLERANCE


def test_scores_and_entropies_of_the_server_are_the_trainers(tiny, trained):
    with policy_of(tiny, trained) as policy:
        rows = contexts(trained, 4)
        starts = [1, 5, 9, 13]
        theirs = asyncio.run(policy.score(rows, starts))
        ours = asyncio.run(trained.score(rows, starts))
        assert farthest(ours, theirs) < TOLERANCE
        asked = requests(trained, 2, max_tokens=1, top_k=20)
        sampled = ask(policy, asked)
        for one, there in zip(asked, sampled, strict=True):
            with torch.inference_mode():
                logits = trained.model(input_ids=torch.tensor([one.ids])).logits[0, -1]
            top = logits.float().softmax(-1).topk(20).values
            tail = 1 - top.sum()
            here = float(-(top * top.log()).sum() - tail * tail.log())
            assert there.entropies[0] == pytest.approx(here, abs=TOLERANCE)


def test_a_turn_is_continued_forked_and_dropped(tiny, trained):
    with policy_of(tiny, trained) as policy:
        (one,) = requests(trained, 1, max_tokens=5)
        (first,) = ask(policy, [one])
        rest = Request("copy", one.ids + first.ids, 8, 1.0, one.seed, begun=len(first.ids))
        policy.fork("s0", "copy")
        (more,) = ask(policy, [rest])
        assert own(trained, rest.ids, more, 1.0) == pytest.approx(more.logprobs, abs=TOLERANCE)
        policy.drop("s0")
        policy.drop("copy")


def test_stop_strings_end_turns_as_they_do_in_this_process(tiny, trained):
    with policy_of(tiny, trained) as policy:
        asked = requests(trained, 6, stop=("a", "e"))
        for sample in ask(policy, asked):
            text = trained.tokenizer.decode(list(sample.ids))
            assert sample.finish == "stop"
            ended = sample.ids[-1] == trained.tokenizer.eos_token_id
            assert ended or "a" in text or "e" in text
            before = trained.tokenizer.decode(list(sample.ids[:-1]))
            assert "a" not in before
            assert "e" not in before


def greedy(policy, trained):
    return [sample.ids for sample in ask(policy, requests(trained, 6, temperature=0.0))]


def test_a_server_on_a_cpu_is_not_sent_to_sleep(tiny, trained):
    options = ServerOptions(urls=(tiny.url,), sleep=True)
    with pytest.raises(ServerError, match="is on a CPU, where vLLM does not sleep"):
        VLLMPolicy(options, trained.tokenizer)


@pytest.mark.parametrize("way", ["disk", "lora"])
def test_a_server_takes_weights_between_the_two_steps_of_its_waking(
    tiny, trained, way, tmp_path, monkeypatch
):
    # On a CPU it keeps its memory, but says and refuses what it would elsewhere.
    monkeypatch.setattr(Sleeper, "_refuse_sleepless", lambda *_: None)
    if way == "lora":
        with policy_of(tiny, trained) as policy:
            HandOver(trained, policy, tmp_path / "base", TOLERANCE, "disk")(0)
        add_adapter(trained.model, LoraOptions(rank=8), seed=0)
    options = ServerOptions(urls=(tiny.url,), sleep=True)
    with closing(VLLMPolicy(options, trained.tokenizer, way)) as policy:
        gpu = SharedGpu(policy)
        hand_over = HandOver(trained, policy, tmp_path / "sync", TOLERANCE, way, gpu=gpu)
        hand_over(0)
        before = greedy(policy, trained)
        for version in (1, 2):
            hand_over.rest()
            assert says_that_it_sleeps(tiny)
            with torch.no_grad():
                torch.manual_seed(version)
                for parameter in trained.model.parameters():
                    if parameter.requires_grad:
                        parameter += 0.02 * torch.randn_like(parameter)
            hand_over(version)  # compares the fixed tokens
            assert not says_that_it_sleeps(tiny)
        after = greedy(policy, trained)
        assert after != before
        assert after == greedy(trained, trained)
        hand_over.rest()
        hand_over.close()
    assert not says_that_it_sleeps(tiny)  # as it was left


def says_that_it_sleeps(server):
    with urllib.request.urlopen(f"{server.url}/is_sleeping", timeout=10) as answer:
        return json.load(answer)["is_sleeping"]


@pytest.mark.parametrize("way", ["disk", "lora"])
def test_a_hand_over_turns_the_servers_answers_into_the_trainers(tiny, trained, way, tmp_path):
    if way == "lora":
        with policy_of(tiny, trained) as policy:  # the base, whatever other tests left there
            HandOver(trained, policy, tmp_path / "base", TOLERANCE, "disk")(0)
        add_adapter(trained.model, LoraOptions(rank=8), seed=0)
    with policy_of(tiny, trained, way) as policy:
        hand_over = HandOver(trained, policy, tmp_path / "sync", TOLERANCE, way)
        hand_over(0)
        before = greedy(policy, trained)
        with torch.no_grad():
            torch.manual_seed(1)
            for parameter in trained.model.parameters():
                if parameter.requires_grad:
                    parameter += 0.02 * torch.randn_like(parameter)
        begun = time.monotonic()
        hand_over(1)
        seconds = time.monotonic() - begun
        after = greedy(policy, trained)
        assert after != before
        assert after == greedy(trained, trained)
        (theirs,) = policy.fingerprints().values()
        ours = asyncio.run(trained.score(policy.probe, [1, 1]))
        say(f"{way}: {seconds:.2f} s, at most {farthest(ours, theirs):.1e} nats apart")
        hand_over.close()


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def alfworld(**changes):
    """Two small steps of EPO on ALFWorld."""
    few = {
        "steps": 2,
        "env": {"max_turns": 8, "workers": 0},
        "rollout": {"tasks_per_step": 2, "group_size": 3},
        "method": {"name": "epo"},
        "eval": {"tasks": 2, "every": 0},
    }
    return load([read_recipe("alfworld", "laptop"), few, changes])


def train(config, folder):
    shown = []
    run_training(config, folder, Reporter(say, shown.append), resume=False)
    steps = metrics(folder)
    worst = max(step["rollout/logprob_abs_diff_max"] for step in steps)
    say(f"{folder.name}: {len(steps)} steps, sampler and learner at most {worst:.1e} nats apart")
    assert worst < TOLERANCE
    assert all(step["optim/grad_norm"] > 0 for step in steps)
    return steps


def test_two_steps_of_epo_on_alfworld_with_whole_weights(tiny, tmp_path, trained_turns):
    config = alfworld(policy={"server": {"urls": [tiny.url]}})
    steps = train(config, tmp_path / "epo-disk")
    assert [step["step"] for step in steps] == [1, 2]
    assert not (tmp_path / "epo-disk" / "sync").exists()
    turns = trained_turns()
    assert turns > 12  # of 12 episodes
    say(f"epo-disk: {turns} turns were trained on, each of the ids that the server sampled")


def completions(log):
    return log.read_text().count("POST /v1/completions")


@pytest.fixture
def killed(monkeypatch):
    """Makes a server be killed, with all its processes, while the second step is sampled.

    Returns a list of the servers that were.
    """
    found = []

    def kill_one(run, name, turns):
        log, metrics_of_run = run / "logs" / name, run / "metrics.jsonl"

        def kill_when_busy(server):
            while not (metrics_of_run.exists() and metrics_of_run.read_text()):
                time.sleep(0.02)
            seen = completions(log)
            while completions(log) < seen + turns:
                time.sleep(0.01)
            os.killpg(server.group, signal.SIGKILL)
            found.append(server)

        class Killed(serve_many.ModelServer):
            def wait_until_ready(self):
                super().wait_until_ready()
                if self._log == log:
                    threading.Thread(target=kill_when_busy, args=[self], daemon=True).start()

        monkeypatch.setattr(serve_many, "ModelServer", Killed)
        return found

    return kill_one


def test_a_run_whose_server_is_killed_in_the_middle_of_a_rollout_loses_nothing(tmp_path, killed):
    dead = killed(tmp_path / "epo-killed", "vllm.log", 8)
    steps = train(alfworld(policy={"serve": {}}), tmp_path / "epo-killed")
    assert len(dead) == 1
    assert [step["step"] for step in steps] == [1, 2]
    assert steps[1]["episode/faults"] > 0
    assert sum(steps[1][f"stop/{stop}"] for stop in ("terminated", "turns", "tokens")) == 1
    say(f"killed: {steps[1]['episode/faults']:.0f} turns sampled again, none lost")


def test_of_two_servers_one_is_killed_and_comes_back_with_the_last_weights(tmp_path, killed):
    run = tmp_path / "epo-pair"
    dead = killed(run, "vllm-1.log", 4)
    answered = []

    def wait_for_the_dead(step):
        say(f"step {step['step']}: {step['episode/faults']:.0f} turns were lost and sampled again")
        if step["step"] == 3:  # the third was taken without it; the fourth shall have it again
            begun = time.monotonic()
            while not dead[0]._answers():
                assert time.monotonic() - begun < 600
                time.sleep(0.5)
            time.sleep(10)  # it is looked for every five seconds, and given its weights
            answered.append(completions(run / "logs" / "vllm-1.log"))

    # Nobody waits for it: in so few seconds no vLLM is started.
    policy = {"serve": {"replicas": 2}, "server": {"patience": 5.0}}
    config = alfworld(steps=4, policy=policy)
    run_training(config, run, Reporter(say, wait_for_the_dead), resume=False)
    steps = metrics(run)
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert dead[0].restarts == 1
    assert steps[1]["episode/faults"] > 0
    assert [step["episode/faults"] for step in steps if step["step"] != 2] == [0, 0, 0]
    worst = max(step["rollout/logprob_abs_diff_max"] for step in steps)
    assert worst < TOLERANCE  # also of what the one that came back sampled
    again = completions(run / "logs" / "vllm-1.log") - answered[0]
    assert again > 6  # more than the fixed tokens are asked for
    say(f"pair: at most {worst:.1e} nats apart; back, it answered {again} requests more")


def test_one_step_of_an_adapter_on_smollm2(tmp_path):
    config = alfworld(
        steps=1,
        env={"max_turns": 3, "workers": 0},
        rollout={"tasks_per_step": 1, "group_size": 2},
        # Of so few episodes none need win: the format alone gives the group a signal.
        reward={"format_penalty": 0.5},
        eval={"tasks": 1, "every": 0},
        policy={
            "model": "smollm2",
            "context": "full",
            "serve": {},
            "lora": {"rank": 8},
            "sampling": {"max_tokens": 24, "max_context": 1536},
        },
    )
    train(config, tmp_path / "smollm2-lora")
