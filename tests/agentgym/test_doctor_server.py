"""Whether a server would do for a run, as what a run asks of it shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agentgym.config import Config, load
from agentgym.doctor_finding import Finding
from agentgym.doctor_server import context_findings, server_findings
from agentgym.policies.bundled import resolve_model

MODEL = "alfworld-tiny"
Serve = Callable[..., Any]


def a_run(**policy: Any) -> Config:
    small = {"max_tokens": 16, "max_context": 512}
    return load([{
        "env": {"suite": "alfworld/gen-train", "max_turns": 6},
        "eval": {"suite": "alfworld/gen-unseen", "temperature": 1.0},
        "policy": {"model": MODEL, "sampling": small},
    }, {"policy": policy}])  # fmt: skip


def of(about: str, findings: list[Finding]) -> Finding:
    (finding,) = [one for one in findings if one.about == f"server, {about}"]
    return finding


# Parity -------------------------------------------------------------------------------------------


def test_a_server_of_the_same_model_agrees_on_32_tokens(serve_fake: Serve) -> None:
    server = serve_fake(resolve_model(MODEL))
    finding = of("parity", list(server_findings(server.url, MODEL, None)))
    assert finding.level == "ok"
    assert "log-probabilities of 32 tokens differ by up to " in finding.said
    scored = [body["prompt"] for _, body in server.requests if "prompt_logprobs" in body]
    assert any(len(row) == 33 for row in scored)


def _shifted(server: Any, by: float) -> None:
    """Change what the served model says of one token, and of all others a little."""
    with torch.no_grad():
        server.model.get_input_embeddings().weight.mul_(1 + by)


@pytest.mark.parametrize(
    ("by", "level", "why"),
    [(3e-3, "FAIL", "another precision does that"), (3.0, "note", "other weights")],
    ids=["precision", "weights"],
)
def test_what_differs_is_told_by_how_much(
    serve_fake: Serve, by: float, level: str, why: str
) -> None:
    server = serve_fake(resolve_model(MODEL))
    _shifted(server, by)
    finding = of("parity", list(server_findings(server.url, MODEL, None)))
    assert (finding.level, finding.mend) == (level, f"agentgym serve {MODEL}")
    assert why in finding.said


def test_the_run_says_how_much_may_differ(serve_fake: Serve) -> None:
    server = serve_fake(resolve_model(MODEL))
    _shifted(server, 3e-3)
    config = a_run(server={"tolerance": 1.0})
    assert of("parity", list(server_findings(server.url, MODEL, config))).level == "ok"


def test_a_server_that_does_not_know_the_tokens_has_another_model(
    serve_fake: Serve, corridor_model: Path
) -> None:
    server = serve_fake(corridor_model)
    finding = of("parity", list(server_findings(server.url, MODEL, None)))
    assert finding.level == "FAIL"
    assert f"cannot be compared with {MODEL}: " in finding.said
    assert "vocabulary" in finding.said


def test_a_model_that_is_not_there_is_one_finding(serve_fake: Serve) -> None:
    server = serve_fake(resolve_model(MODEL))
    finding = of("parity", list(server_findings(server.url, "alfworld-tinny", None)))
    assert finding.level == "FAIL"
    assert "alfworld-tiny" in finding.said


# Of a run -----------------------------------------------------------------------------------------


def test_a_run_for_which_the_server_does_finds_nothing_wrong(serve_fake: Serve) -> None:
    server = serve_fake(resolve_model(MODEL))
    findings = list(server_findings(server.url, MODEL, a_run()))
    assert {finding.level for finding in findings} == {"ok"}


def test_a_context_that_the_server_does_not_read_stops_a_run(serve_fake: Serve) -> None:
    server = serve_fake(resolve_model(MODEL), max_model_len=256)
    finding = of("context", list(server_findings(server.url, MODEL, a_run())))
    assert finding.level == "FAIL"
    assert finding.said == "the run's contexts have up to 512 tokens, the server reads 256"
    assert finding.mend == f"agentgym serve {MODEL} --max-model-len 512"


def test_only_the_way_that_the_run_takes_must_be_there(serve_fake: Serve) -> None:
    server = serve_fake(resolve_model(MODEL), lora=False)
    whole = list(server_findings(server.url, MODEL, a_run()))
    assert of("weights by lora", whole).level == "note"
    adapter = of("weights by lora", list(server_findings(server.url, MODEL, a_run(lora={}))))
    assert adapter.level == "FAIL"
    assert adapter.mend == f"agentgym serve {MODEL} --lora-rank 16"


def test_log_probabilities_of_another_temperature_stop_a_run_that_samples_at_one(
    serve_fake: Serve,
) -> None:
    server = serve_fake(resolve_model(MODEL), processed=False)
    plain = list(server_findings(server.url, MODEL, a_run()))
    assert of("log-probabilities", plain).level == "note"
    small = {"max_tokens": 16, "max_context": 512, "temperature": 0.7}
    cooled = list(server_findings(server.url, MODEL, a_run(sampling=small)))
    assert of("log-probabilities", cooled).level == "FAIL"


def test_a_server_that_sleeps_is_left_asleep_since_a_run_may_have_its_gpu(
    serve_fake: Serve,
) -> None:
    server = serve_fake(resolve_model(MODEL))
    server.sleep({})
    (finding,) = server_findings(server.url, MODEL, a_run(server={"sleep": True}))
    assert (finding.level, finding.about) == ("note", "server")
    assert "is asleep; a run may be using its GPU" in finding.said
    assert server.sleeping
    assert server.asked_asleep == 0


def test_what_a_server_that_sleeps_lacks_is_told_all_the_same(
    serve_fake: Serve, fake_vllm: Any
) -> None:
    server = serve_fake(resolve_model(MODEL))

    def is_not_there(_body: Any) -> None:
        raise fake_vllm.Refusal(404, "Not Found")

    server.rpc = is_not_there
    server.sleep({})
    findings = list(server_findings(server.url, MODEL, a_run(server={"sleep": True})))
    assert [finding.level for finding in findings] == ["FAIL", "note"]


def test_a_server_that_could_sleep_and_is_awake_is_asked_as_any(serve_fake: Serve) -> None:
    server = serve_fake(resolve_model(MODEL))
    findings = list(server_findings(server.url, MODEL, a_run(server={"sleep": True})))
    assert {finding.level for finding in findings} == {"ok"}
    server.sleep_mode = False
    (finding,) = server_findings(server.url, MODEL, a_run(server={"sleep": True}))
    assert (finding.level, "started without sleep mode" in finding.said) == ("FAIL", True)


# The context budget -------------------------------------------------------------------------------


def test_episodes_that_fit_into_the_context_are_told_with_their_sizes() -> None:
    (finding,) = context_findings(a_run())
    assert finding.level == "ok"
    assert finding.said.startswith("alfworld: 6 turns of at most 16 tokens, a first prompt of ")


def test_episodes_that_may_not_fit_are_a_note_with_what_would_do() -> None:
    (finding,) = context_findings(a_run(sampling={"max_tokens": 100, "max_context": 300}))
    assert finding.level == "note"
    assert "ends with the reason tokens" in finding.said
    assert (finding.mend or "").startswith("agentgym train --set policy.sampling.max_context=")


def test_a_context_that_the_model_does_not_read_stops_a_run() -> None:
    (finding,) = context_findings(a_run(sampling={"max_context": 5000}))
    assert finding.level == "FAIL"
    assert "max_context is 5000 tokens, the model alfworld-tiny reads 2048" in finding.said


def test_a_suite_without_its_data_stops_a_run_and_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    config = load([a_run().model_dump(exclude_none=True), {"env": {"suite": "alfworld/train"}}])
    (finding,) = context_findings(config)
    assert (finding.level, finding.about) == ("FAIL", "alfworld/train")
    assert "needs the published games" in finding.said
    assert finding.mend == "agentgym envs download alfworld"


# The command --------------------------------------------------------------------------------------


def test_the_command_asks_a_server_for_a_recipe_and_says_that_the_run_would_start(
    agentgym: Any, serve_fake: Serve, tmp_path: Path
) -> None:
    server = serve_fake(resolve_model(MODEL), max_model_len=2048)
    asked = ("doctor", "--env", "alfworld", "--recipe", "laptop", "--server", server.url)
    code, out, err = agentgym(*asked, "-o", tmp_path)
    assert (code, err) == (0, "")
    assert "ok    context: alfworld: 30 turns of at most 16 tokens" in out
    assert "ok    server, parity: log-probabilities of 32 tokens differ by" in out
    assert "nothing here would stop a run" in out


def test_the_command_exits_1_where_the_server_is_too_small_for_the_recipe(
    agentgym: Any, serve_fake: Serve, tmp_path: Path
) -> None:
    server = serve_fake(resolve_model(MODEL), max_model_len=1024)
    asked = ("doctor", "--env", "alfworld", "--recipe", "laptop", "--server", server.url)
    code, out, _ = agentgym(*asked, "-m", MODEL, "-o", tmp_path)
    assert code == 1
    assert "FAIL  server, context: the run's contexts have up to 2,048 tokens" in out
    assert f"mend: agentgym serve {MODEL} --max-model-len 2048" in out


def test_sizes_of_gpus_are_refused_without_a_plan(agentgym: Any) -> None:
    code, _, err = agentgym("doctor", "--recipe", "laptop", "--env", "corridor", "--gpus", 2)
    assert (code, "add --plan" in err) == (2, True)


def test_a_setting_of_no_run_is_refused(agentgym: Any) -> None:
    code, _, err = agentgym("doctor", "--set", "steps=3")
    assert (code, "none is named" in err) == (2, True)
