"""The policy in this process: what is kept changes nothing, and nothing is left to chance."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace

import pytest
import torch

from agentgym.errors import AgentGymError, DataError, UsageError
from agentgym.policies import ragged
from agentgym.policies.engine import RaggedEngine, SingleEngine
from agentgym.policies.hf import HFPolicy
from agentgym.policies.prompt import load_prompt
from agentgym.types import Request

KINDS = ("llama", "qwen2", "gpt2")


def ask(policy, *requests):
    return asyncio.run(policy.sample(requests))


def request(session, ids, **changes):
    base = Request(session, tuple(ids), max_tokens=6, temperature=1.0, seed=f"seed {session}")
    return replace(base, **changes)


def plain_logprobs(model, ids, start, temperature=1.0):
    """What one forward pass without any cache says."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
    logprobs = (logits / temperature).log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(ids[start:])[:, None])[:, 0]
    return chosen.tolist(), (-(logprobs.exp() * logprobs).sum(-1)).tolist()


def assert_exact(model, ids, sample, temperature=1.0):
    whole = [*ids, *sample.ids]
    logprobs, entropies = plain_logprobs(model, whole, len(ids), temperature)
    assert sample.logprobs == pytest.approx(logprobs, abs=1e-5)
    assert sample.entropies == pytest.approx(entropies, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_plain_attention_takes_all_sessions_in_one_pass(kind, model_of, tokenizer):
    assert isinstance(HFPolicy(model_of(kind), tokenizer)._engine, RaggedEngine)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefill_tokens", [7, 4096])
def test_log_probabilities_are_those_of_an_uncached_pass_over_many_ragged_turns(
    kind, prefill_tokens, model_of, tokenizer
):
    model = model_of(kind)
    policy = HFPolicy(model, tokenizer, prefill_tokens=prefill_tokens)
    draw = random.Random(0)
    ids = {f"s{n}": [draw.randrange(9, 300) for _ in range(3 + 5 * n)] for n in range(5)}
    for turn in range(4):
        acting = [name for name in ids if turn < 2 or name != "s2"]  # one episode ends early
        draw.shuffle(acting)
        asked = [
            request(s, ids[s], seed=f"{s}{turn}", max_tokens=draw.randrange(1, 9)) for s in acting
        ]
        for one, sample in zip(asked, ask(policy, *asked), strict=True):
            assert_exact(model, one.ids, sample)
            ids[one.session] += [*sample.ids, *(draw.randrange(9, 300) for _ in range(turn))]
        if turn == 1:
            policy.drop("s2")


def test_only_what_is_new_is_read(model_of, tokenizer):
    policy = HFPolicy(model_of("llama"), tokenizer)
    ids = list(range(20, 60))
    (sample,) = ask(policy, request("a", ids))
    assert (policy.spent.prompt_tokens, policy.spent.kept_tokens) == (40, 0)
    longer = [*ids, *sample.ids, 70, 71]
    ask(policy, request("a", longer))
    # The last sampled token was never fed: it is read with the two new ones.
    assert policy.spent.prompt_tokens == 40 + 3
    assert policy.spent.kept_tokens == len(longer) - 3


def test_a_context_that_changed_is_cut_back_to_what_it_has_in_common(model_of, tokenizer):
    model = model_of("llama")
    policy = HFPolicy(model, tokenizer)
    ask(policy, request("a", range(20, 60)))
    for changed in ([*range(20, 40), 99, 98], list(range(20, 30)), list(range(50, 90))):
        (sample,) = ask(policy, request("a", changed))
        assert_exact(model, changed, sample)
    assert policy.spent.kept_tokens == 20 + 9 + 0  # the last token of a context is always read


def test_a_turn_that_was_cut_is_continued_exactly(model_of, tokenizer):
    model = model_of("llama")
    policy = HFPolicy(model, tokenizer)
    ids = list(range(20, 50))
    (first,) = ask(policy, request("a", ids, max_tokens=3))
    assert first.finish == "length"
    ids += first.ids
    (rest,) = ask(policy, request("a", ids, seed="more", max_tokens=5))
    assert_exact(model, ids, rest)
    assert policy.spent.prompt_tokens == 30 + 1


def test_a_turn_sampled_in_pieces_is_the_turn_sampled_at_once(model_of, tokenizer):
    policy = HFPolicy(model_of("llama"), tokenizer)
    whole_request = request("a", range(20, 50), max_tokens=9)
    (whole,) = ask(policy, whole_request)
    for cut in range(1, len(whole.ids)):
        (first,) = ask(policy, replace(whole_request, session=f"b{cut}", max_tokens=cut))
        more = replace(
            whole_request,
            session=f"b{cut}",
            ids=whole_request.ids + first.ids,
            max_tokens=9 - cut,
            begun=cut,
        )
        (rest,) = ask(policy, more)
        assert first.ids + rest.ids == whole.ids
        assert (first.finish, rest.finish) == ("length", whole.finish)


def test_a_stop_string_is_found_though_a_turn_was_cut_inside_it(model_of, tokenizer):
    policy = HFPolicy(model_of("llama"), tokenizer)
    asked = request("a", range(20, 50), max_tokens=6)
    (whole,) = ask(policy, asked)
    stop = tokenizer.decode(whole.ids[:3])
    cut = replace(asked, session="b", stop=(stop,))
    (first,) = ask(policy, replace(cut, max_tokens=2))
    (rest,) = ask(policy, replace(cut, ids=cut.ids + first.ids, max_tokens=4, begun=2))
    assert (len(first.ids), len(rest.ids), rest.finish) == (2, 1, "stop")


def test_a_fork_goes_its_own_way_from_what_both_have_read(model_of, tokenizer):
    model = model_of("llama")
    policy = HFPolicy(model, tokenizer)
    ids = list(range(20, 320))  # longer than the memory is at first
    ask(policy, request("a", ids))
    policy.fork("a", "b")
    policy.fork("nobody", "c")
    policy.drop("a")
    before = policy.spent.prompt_tokens
    requests = [request("b", [*ids, 50]), request("c", [30, 31]), request("a", [*ids, 60])]
    for one, sample in zip(requests, ask(policy, *requests), strict=True):
        assert_exact(model, one.ids, sample)
    assert policy.spent.prompt_tokens - before < len(ids) + 10  # only "a" was read again


def test_dropping_and_closing_twice_or_for_nothing_does_nothing(model_of, tokenizer):
    policy = HFPolicy(model_of("llama"), tokenizer)
    (before,) = ask(policy, request("a", [20, 21]))
    for _ in range(2):
        policy.drop("a")
        policy.drop("never seen")
        policy.close()
    assert ask(policy, request("a", [20, 21])) == [before]


def test_the_same_requests_give_the_same_samples_bit_for_bit(model_of, tokenizer):
    def play(policy):
        ids = {f"s{n}": list(range(20, 25 + 7 * n)) for n in range(6)}
        said = []
        for turn in range(3):
            asked = [request(s, ids[s], seed=f"{s}:{turn}") for s in ids]
            said.append(ask(policy, *asked))
            for one, sample in zip(asked, said[-1], strict=True):
                ids[one.session] += sample.ids
        for session in ids:
            policy.drop(session)
        return said

    used = HFPolicy(model_of("llama"), tokenizer)
    ask(used, request("long", range(20, 300)))  # its memory is larger and was written
    used.refresh(0)
    assert play(used) == play(HFPolicy(model_of("llama"), tokenizer)) == play(used)


def test_a_turn_depends_on_its_seed_and_not_on_its_neighbours(model_of, tokenizer):
    policy = HFPolicy(model_of("llama"), tokenizer)
    alone = ask(policy, request("a", [20, 21, 22], seed="x"))[0]
    policy.refresh(0)
    beside = ask(policy, request("b", range(30, 50)), request("a", [20, 21, 22], seed="x"))[1]
    assert beside.ids == alone.ids
    policy.refresh(0)
    others = {ask(policy, request(f"{n}", [20, 21, 22], seed=f"{n}"))[0].ids for n in range(8)}
    assert len(others) > 1


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7])
def test_log_probabilities_and_entropies_are_of_logits_over_temperature(
    temperature, model_of, tokenizer
):
    model = model_of("llama")
    ids = [20, 21, 22]
    (sample,) = ask(
        HFPolicy(model, tokenizer), request("a", ids, temperature=temperature, max_tokens=20)
    )
    assert_exact(model, ids, sample, temperature)


def test_temperature_0_takes_the_likeliest_token(model_of, tokenizer):
    model = model_of("llama")
    ids = [20, 21, 22]
    asked = [request("a", ids, temperature=0.0), request("b", ids)]  # mixed in one batch
    greedy, sampled = ask(HFPolicy(model, tokenizer), *asked)
    for n, token in enumerate(greedy.ids):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*ids, *greedy.ids[:n]]])).logits
        assert token == int(logits[0, -1].argmax())
    assert_exact(model, ids, sampled)


def test_a_turn_ends_with_the_end_of_turn_token(model_of, tokenizer):
    model = model_of("llama")
    with torch.no_grad():  # the end of turn is likely, and then nothing else
        model.lm_head.weight[tokenizer.eos_token_id] *= 4
    policy = HFPolicy(model, tokenizer)
    samples = ask(policy, *(request(f"{n}", [20 + n], max_tokens=40) for n in range(12)))
    assert {sample.finish for sample in samples} >= {"stop"}
    for sample in samples:
        assert (tokenizer.eos_token_id in sample.ids) == (sample.finish == "stop")
        assert tokenizer.eos_token_id not in sample.ids[:-1]


def test_a_stop_string_ends_a_turn_and_stays_in_it(model_of, tokenizer):
    policy = HFPolicy(model_of("llama"), tokenizer)
    (whole,) = ask(policy, request("a", [20, 21], max_tokens=30))
    text = tokenizer.decode(whole.ids[:4])
    policy.refresh(0)
    (cut,) = ask(policy, request("a", [20, 21], max_tokens=30, stop=(text[-2:], "never said")))
    assert cut.finish == "stop"
    assert cut.ids == whole.ids[: len(cut.ids)]
    assert text[-2:] in tokenizer.decode(cut.ids)
    assert text[-2:] not in tokenizer.decode(cut.ids[:-1])


def test_top_k_entropies_lump_the_tail(model_of, tokenizer):
    model = model_of("llama")
    ids = [20, 21, 22]
    (sample,) = ask(HFPolicy(model, tokenizer), request("a", ids, max_tokens=1, top_k=3))
    with torch.inference_mode():
        prob = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    top = prob.topk(3).values
    tail = 1 - top.sum()
    assert sample.entropies[0] == pytest.approx(
        float(-(top * top.log()).sum() - tail * tail.log()), abs=1e-5
    )


@pytest.mark.parametrize("prefill_tokens", [4, 4096])
def test_scores_are_those_of_a_plain_pass(prefill_tokens, model_of, tokenizer):
    model = model_of("llama")
    policy = HFPolicy(model, tokenizer, prefill_tokens=prefill_tokens)
    rows, start = [list(range(20, 33)), [40, 41], [50, 51, 52]], [5, 1, 3]
    scores = asyncio.run(policy.score(rows, start))
    for row, first, score in zip(rows, start, scores, strict=True):
        assert len(score) == len(row) - first
        if score:
            assert score == pytest.approx(plain_logprobs(model, row, first)[0], abs=1e-5)
    with pytest.raises(UsageError, match="starts at token 0"):
        asyncio.run(policy.score([[1, 2]], [0]))


def test_the_learner_finds_the_shared_model_as_it_left_it(model_of, tokenizer):
    model = model_of("llama").train()
    before = model.config._attn_implementation
    policy = HFPolicy(model, tokenizer)
    ask(policy, request("a", [20, 21]))
    assert model.training
    assert model.config._attn_implementation == before
    model(input_ids=torch.tensor([[20, 21]]), labels=torch.tensor([[20, 21]])).loss.backward()


def test_after_a_refresh_nothing_of_the_old_weights_is_used(model_of, tokenizer):
    model = model_of("llama")
    policy = HFPolicy(model, tokenizer)
    ids = list(range(20, 40))
    (old,) = ask(policy, request("a", ids))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05
    policy.refresh(7)
    (new,) = ask(policy, request("a", ids))
    assert (old.version, new.version) == (0, 7)
    assert_exact(model, ids, new)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([request("a", [1]), request("a", [2])], "same session"),
        ([request("a", [])], "a request of 0 tokens"),
        ([request("a", [1] * 510)], "up to 512 together"),
    ],
)
def test_requests_that_cannot_be_sampled_are_refused(bad, message, model_of, tokenizer):
    with pytest.raises(UsageError, match=message):
        ask(HFPolicy(model_of("llama"), tokenizer), *bad)


def test_broken_weights_are_noticed(model_of, tokenizer):
    model = model_of("llama")
    policy = HFPolicy(model, tokenizer)
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    with pytest.raises(AgentGymError, match="not finite"):
        ask(policy, request("a", [20]))


def test_weights_of_other_shapes_than_the_configuration_are_refused(model_of, tokenizer, tmp_path):
    HFPolicy(model_of("llama"), tokenizer).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["intermediate_size"] *= 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="weights have other shapes than its"):
        HFPolicy.from_pretrained(tmp_path)


# Models whose past is more than plain attention ------------------------------------------------


@pytest.mark.parametrize("kind", ["mistral", "mamba"])
def test_a_model_with_a_past_of_its_own_kind_is_sampled_exactly_one_by_one(
    kind, model_with_own_past, tokenizer
):
    model = model_with_own_past(kind)
    policy = HFPolicy(model, tokenizer)
    assert isinstance(policy._engine, SingleEngine)
    ids = {"a": list(range(20, 45)), "b": [30, 31]}
    for turn in range(3):
        asked = [request(s, ids[s], seed=f"{s}{turn}") for s in ids]
        for one, sample in zip(asked, ask(policy, *asked), strict=True):
            assert_exact(model, one.ids, sample)
            ids[one.session] += [*sample.ids, 60]
    assert policy.spent.kept_tokens > 0
    policy.fork("a", "c")
    for session, context in (("c", [*ids["a"], 61]), ("a", ids["a"][:9])):
        (sample,) = ask(policy, request(session, context))
        assert_exact(model, context, sample)
    scores = asyncio.run(policy.score([ids["a"]], [4]))[0]
    assert scores == pytest.approx(plain_logprobs(model, ids["a"], 4)[0], abs=1e-5)


# Folders ----------------------------------------------------------------------------------------


def test_a_policy_comes_back_from_its_folder_with_its_prompt(model_of, tokenizer, tmp_path):
    prompt = load_prompt("alfworld", "plain", "full")
    policy = HFPolicy(model_of("llama"), tokenizer, prompt)
    policy.save(tmp_path)
    again = HFPolicy.from_pretrained(tmp_path, device="cpu")
    assert again.prompt == prompt
    assert ask(again, request("a", [20, 21])) == ask(policy, request("a", [20, 21]))


def test_loading_weights_replaces_those_of_the_shared_model(model_of, tokenizer, tmp_path):
    model, other = model_of("llama"), model_of("llama")
    with torch.no_grad():
        other.lm_head.weight *= 0.5
    HFPolicy(other, tokenizer).save(tmp_path)
    policy = HFPolicy(model, tokenizer)
    policy.load(str(tmp_path), version=4)
    assert policy.version == 4
    assert torch.equal(model.lm_head.weight, other.lm_head.weight)


def test_a_folder_that_is_no_whole_model_says_what_is_missing(model_of, tokenizer, tmp_path):
    def message():
        with pytest.raises(DataError) as caught:
            HFPolicy.from_pretrained(tmp_path, device="cpu")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "has no config.json" in message()
    model = model_of("llama")
    model.config.save_pretrained(tmp_path)
    assert "has no weights" in message()
    model.save_pretrained(tmp_path)
    assert "has no tokenizer" in message()
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    assert "cannot load the model" in message()


def test_weights_that_were_cut_off_are_one_clear_error(model_of, tokenizer, tmp_path):
    HFPolicy(model_of("llama"), tokenizer).save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot load the model"):
        HFPolicy.from_pretrained(tmp_path, device="cpu")


def test_a_tokenizer_that_names_no_end_is_refused(model_of, tokenizer_with):
    tokenizer = tokenizer_with("")
    tokenizer.eos_token = None
    model = model_of("gpt2")
    model.generation_config.eos_token_id = None
    with pytest.raises(UsageError, match="set eos_token"):
        HFPolicy(model, tokenizer)


def test_long_spans_attend_as_short_ones_do(monkeypatch, model_of, tokenizer):
    """Above a size, attention goes through the fused kernel, which never holds all scores."""
    monkeypatch.setattr(ragged, "_SCORES_AT_ONCE", 0)
    model = model_of("llama")  # its heads share keys in pairs
    policy = HFPolicy(model, tokenizer)
    ids = list(range(20, 60))
    for _ in range(2):
        (sample,) = ask(policy, request("a", ids))
        assert_exact(model, ids, sample)
        ids += [*sample.ids, 70, 71]
