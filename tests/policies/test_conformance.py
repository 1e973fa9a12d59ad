"""What every policy in tokens does alike, whether it is in this process or behind a server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import torch

from agentgym.errors import UsageError
from agentgym.policies.hf import HFPolicy
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import ServerOptions
from agentgym.types import Request

IDS = tuple(range(20, 45))


@pytest.fixture(params=["hf", "vllm"])
def policy(request, model_of, tokenizer, tmp_path, serve_fake):
    """The same model, in this process or behind HTTP."""
    here = HFPolicy(model_of("llama"), tokenizer)
    if request.param == "hf":
        yield here
        here.close()
        return
    here.save(tmp_path / "served")
    server = serve_fake(tmp_path / "served")
    served = VLLMPolicy(ServerOptions(urls=(server.url,)), tokenizer)
    yield served
    served.close()


@pytest.fixture
def model(model_of):
    return model_of("llama")


def ask(policy, *requests):
    return asyncio.run(policy.sample(requests))


def turn(session="a", ids=IDS, **changes):
    base = Request(session, tuple(ids), max_tokens=6, temperature=1.0, seed=f"seed of {session}")
    return replace(base, **changes)


def logprobs_BV(model, ids, start, temperature=1.0):
    """What one pass without any cache says of the tokens from ``start`` on."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
    return (logits / temperature).log_softmax(-1)


def assert_true(model, ids, sample, temperature=1.0):
    rows = logprobs_BV(model, [*ids, *sample.ids], len(ids), temperature)
    told = [float(row[token]) for row, token in zip(rows, sample.ids, strict=True)]
    assert sample.logprobs == pytest.approx(told, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_log_probabilities_are_those_of_logits_over_temperature(policy, model, temperature):
    (sample,) = ask(policy, turn(temperature=temperature))
    assert_true(model, IDS, sample, temperature)


def test_greedy_takes_the_likeliest_token_and_tells_its_probability_at_temperature_1(policy, model):
    (sample,) = ask(policy, turn(temperature=0.0))
    rows = logprobs_BV(model, [*IDS, *sample.ids], len(IDS))
    assert list(sample.ids) == rows.argmax(-1).tolist()
    assert_true(model, IDS, sample)


def test_the_same_seed_says_the_same_and_another_one_something_else(policy):
    first, again, other = (
        ask(policy, turn(seed=seed, max_tokens=12))[0] for seed in ("one", "one", "two")
    )
    assert first.ids == again.ids
    assert first.ids != other.ids


def test_samples_come_in_the_order_of_the_requests(policy, model):
    contexts = {name: tuple(range(20 + n, 30 + 3 * n)) for n, name in enumerate("cab")}
    asked = [turn(name, ids) for name, ids in contexts.items()]
    for one, sample in zip(asked, ask(policy, *asked), strict=True):
        assert_true(model, one.ids, sample)


def test_samples_of_one_prompt_in_one_call_differ(policy, model):
    samples = ask(policy, *(turn(f"s{n}", max_tokens=12) for n in range(3)))
    assert len({sample.ids for sample in samples}) == 3
    for sample in samples:
        assert_true(model, IDS, sample)


def test_a_turn_that_was_cut_goes_on_where_it_was_cut(policy, model):
    whole = turn(max_tokens=9)
    (first,) = ask(policy, replace(whole, max_tokens=3))
    assert (first.finish, len(first.ids)) == ("length", 3)
    rest = replace(whole, ids=IDS + first.ids, max_tokens=6, begun=3)
    (second,) = ask(policy, rest)
    assert_true(model, rest.ids, second)


def test_a_stop_string_ends_a_turn_and_stays_in_it(policy, tokenizer):
    (free,) = ask(policy, turn(max_tokens=20))
    text = tokenizer.decode(list(free.ids[:5]))
    (cut,) = ask(policy, turn(max_tokens=20, stop=("never said", text[-2:])))
    assert cut.finish == "stop"
    assert cut.ids == free.ids[: len(cut.ids)]
    assert text[-2:] in tokenizer.decode(list(cut.ids))
    assert text[-2:] not in tokenizer.decode(list(cut.ids[:-1]))


def test_a_stop_string_over_the_seam_of_two_pieces_ends_the_turn(policy, tokenizer):
    (first,) = ask(policy, turn(max_tokens=3))
    rest = turn(ids=IDS + first.ids, max_tokens=12, begun=3)
    (free,) = ask(policy, rest)
    seam = tokenizer.decode(list(first.ids))[-1] + tokenizer.decode(list(free.ids[:1]))[:1]
    (cut,) = ask(policy, replace(rest, stop=(seam,)))
    assert (cut.finish, cut.ids) == ("stop", free.ids[:1])
    assert len(cut.logprobs) == 1


def test_a_turn_ends_with_the_end_of_turn_token(policy, tokenizer):
    ends = tokenizer.eos_token_id
    samples = [
        ask(policy, turn(f"{n}", [20 + n], max_tokens=120, temperature=2.0))[0] for n in range(6)
    ]
    assert {sample.finish for sample in samples} >= {"stop"}
    for sample in samples:
        assert (sample.ids[-1] == ends) == (sample.finish == "stop")
        assert ends not in sample.ids[:-1]


def test_top_k_entropies_lump_the_tail(policy, model):
    (sample,) = ask(policy, turn(max_tokens=4, top_k=20))
    for row, entropy in zip(
        logprobs_BV(model, [*IDS, *sample.ids], len(IDS)), sample.entropies, strict=True
    ):
        top = row.exp().topk(20).values
        tail = 1 - top.sum()
        expected = float(-(top * top.log()).sum() - tail * tail.log())
        assert entropy == pytest.approx(expected, abs=1e-4)


def test_scores_are_those_of_a_plain_pass(policy, model):
    rows, start = [list(range(20, 33)), [40, 41], [50, 51, 52]], [5, 1, 3]
    scores = asyncio.run(policy.score(rows, start))
    for row, first, score in zip(rows, start, scores, strict=True):
        told = logprobs_BV(model, row, first)
        expected = [float(p[t]) for p, t in zip(told, row[first:], strict=True)]
        assert score == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UsageError, match="starts at token 0"):
        asyncio.run(policy.score([[1, 2]], [0]))


def test_a_fork_goes_on_by_itself_and_dropping_is_forgiving(policy, model):
    (first,) = ask(policy, turn("a"))
    policy.fork("a", "b")
    longer = (*IDS, *first.ids, 60, 61)
    for session, ids in (("b", longer), ("a", (*longer, 62)), ("b", (*longer, 63, 64))):
        assert_true(model, ids, ask(policy, turn(session, ids))[0])
    for session in ("a", "b", "b", "nobody"):
        policy.drop(session)
    policy.fork("nobody", "c")
    assert_true(model, IDS, ask(policy, turn("c"))[0])


def test_loaded_weights_are_those_that_answer(policy, model, tokenizer, tmp_path):
    (old,) = ask(policy, turn(max_tokens=12))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05
    HFPolicy(model, tokenizer).save(tmp_path / "new")
    policy.load(str(tmp_path / "new"), 7)
    (new,) = ask(policy, turn(max_tokens=12))  # the very prompt that was asked before
    assert (old.version, new.version, policy.version) == (0, 7, 7)
    assert old.ids != new.ids
    assert_true(model, IDS, new)


def test_a_session_acts_once_a_call(policy):
    with pytest.raises(UsageError, match="same session"):
        ask(policy, turn("a"), turn("a", [2]))


@pytest.mark.parametrize(
    ("ids", "most"), [([], 5), ([20] * 510, 5), ([20], 0)], ids=["empty", "long", "none"]
)
def test_what_does_not_fit_is_refused_before_it_is_asked(policy, ids, most):
    with pytest.raises(UsageError, match="up to 512 together"):
        ask(policy, turn(ids=ids, max_tokens=most))


def test_closing_twice_is_closing_once(policy):
    policy.close()
    policy.close()
