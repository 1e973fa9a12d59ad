import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import CohereConfig, Gemma2Config, GPT2Config, GraniteConfig

from agentgym.errors import UsageError
from agentgym.trainers.causal_lm import CausalLM

SMALL = {
    "vocab_size": 23,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
IDS = torch.tensor([[3, 7, 1, 9, 22, 4], [5, 5, 8, 0, 0, 0]])
MASK = torch.tensor([[0, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 0]]).float()

CONFIGS = [
    pytest.param(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0), id="soft cap"),
    pytest.param(CohereConfig(**SMALL, logit_scale=0.0625), id="scale"),
    pytest.param(GraniteConfig(**SMALL, logits_scaling=8.0), id="divisor"),
    pytest.param(GPT2Config(vocab_size=23, n_embd=16, n_layer=2, n_head=2), id="gpt2"),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_scores_are_those_of_the_models_own_logits(config) -> None:
    torch.manual_seed(0)
    model = Auto.from_config(config, attn_implementation="eager").double()
    logprob, entropy = CausalLM(model).score(IDS, MASK, temperature=0.7)
    for row, length in ((0, 6), (1, 3)):  # without padding
        logits = model(input_ids=IDS[row : row + 1, :length]).logits[0] / 0.7
        logp = logits.log_softmax(-1)[:-1]
        own = logp.gather(1, IDS[row, 1:length, None])[:, 0]
        mask = MASK[row, :length][1:]
        torch.testing.assert_close(logprob[row, 1:length], own * mask, rtol=0, atol=1e-12)
        own_entropy = -(logp.exp() * logp).sum(-1) * mask
        torch.testing.assert_close(entropy[row, 1:length], own_entropy, rtol=0, atol=1e-12)
    assert not logprob[MASK == 0].any()
    assert not entropy[MASK == 0].any()


def test_a_model_whose_logits_are_something_else_is_refused(make_model) -> None:
    model = make_model()
    plain = model.forward
    model.forward = lambda **inputs: _doubled(plain(**inputs))
    with pytest.raises(UsageError, match="LlamaForCausalLM"):
        CausalLM(model)


def _doubled(output):
    output.logits = output.logits * 2
    return output


def test_dropout_is_off_so_that_scores_repeat(make_model) -> None:
    model = make_model(attention_dropout=0.5).train()
    lm = CausalLM(model)
    assert torch.equal(lm.score(IDS, MASK, 1.0)[0], lm.score(IDS, MASK, 1.0)[0])
