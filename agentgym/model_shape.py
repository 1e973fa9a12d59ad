"""The sizes of a decoder: from its config.json, from a table of public models, or as stated.

Known is the architecture that Llama began and Qwen, SmolLM2 and Mistral share: grouped heads, three
matrices in the feed-forward part, norms without a bias. Its parameters are counted exactly:

    layer  2 h q + 2 h k + 3 h i + 2 h     q = heads x head size, k = kv heads x head size
    whole  layers x layer + h + V h        once more V h where the output has a matrix of its own

and q + 2 k more a layer where projections have a bias, 2 head sizes where heads have norms.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from agentgym.errors import DataError, UsageError, unknown

_TABLE = files("agentgym") / "data" / "model_shapes.toml"
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_VARIANT = re.compile(r"-(?:instruct|base|it|hf|\d{4})$", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a decoder.

    Attributes:
        layers: How many.
        hidden: h, of the residual stream.
        intermediate: i, of the feed-forward part.
        heads: That ask.
        kv_heads: That hold keys and values.
        head_dim: The size of one.
        vocabulary: V, rows of the embedding.
        tied: Whether the embedding is also the output's matrix.
        qkv_bias: Whether the three projections of the attention have a bias.
        head_norms: Whether questions and keys are normed, head by head.
        positions: Tokens that it reads; None is not known.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    qkv_bias: bool = False
    head_norms: bool = False
    positions: int | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"a model has {name} of 1 or more, got {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise UsageError(
                f"{self.heads} heads cannot share {self.kv_heads} heads of keys and values evenly"
            )

    @property
    def queries(self) -> int:
        """Numbers of a token's questions: q."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Numbers of a token's keys, and of its values: k."""
        return self.kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> int:
        """Parameters in the seven matrices of a layer."""
        return self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.intermediate)

    @property
    def layer(self) -> int:
        """Parameters of a layer."""
        biases = self.queries + 2 * self.keys if self.qkv_bias else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.head_norms else 0)
        return self.layer_matrices + biases + norms

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the output's matrix where it has one of its own."""
        return self.vocabulary * self.hidden

    @property
    def ends(self) -> int:
        """Parameters outside of the layers."""
        return self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        """Parameters in all."""
        return self.layers * self.layer + self.ends

    def adapter(self, rank: int) -> int:
        """Parameters of a low-rank adapter on the seven matrices of every layer."""
        widths = (
            2 * (self.hidden + self.queries)
            + 2 * (self.hidden + self.keys)
            + 3 * (self.hidden + self.intermediate)
        )
        return self.layers * rank * widths


@cache
def _public() -> dict[str, ModelShape]:
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    shapes = {}
    for name, sizes in table["models"].items():
        family = table["families"][sizes.pop("family")]
        shapes[name] = ModelShape(**family, **sizes)
    return shapes


def public_models() -> tuple[str, ...]:
    """Return the names of the public models whose sizes are known."""
    return tuple(_public())


def shape_of(model: str) -> ModelShape:
    """Return the sizes of a model.

    Args:
        model: A folder with a config.json, or that file; or a hub id or name of a public model
            whose sizes are known, as ``Qwen/Qwen2.5-7B-Instruct`` or ``llama-3.1-8b``.

    Raises:
        UsageError: It is none of these, or of an architecture that is not known.
        DataError: The file cannot be read, or misses a size.
    """
    path = Path(model)
    if path.is_dir() or path.suffix == ".json":
        return read_config(path / "config.json" if path.is_dir() else path)
    wanted = model.rpartition("/")[2]
    while (shorter := _VARIANT.sub("", wanted)) != wanted:
        wanted = shorter
    for name, shape in _public().items():
        if name.lower() == wanted.lower():
            return shape
    raise unknown(
        "model (or folder, or config.json; or state --parameters, --layers, --hidden, …)",
        model,
        _public(),
    )


def read_config(path: Path) -> ModelShape:
    """Return the sizes that a config.json of Hugging Face states.

    Raises:
        UsageError: The architecture is not known.
        DataError: The file cannot be read, or misses a size.
    """
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the model's sizes from {path}: {error}") from error
    if not isinstance(config, dict):
        raise DataError(f"{path} holds no JSON object; expected the config.json of a model")
    family = config.get("model_type")
    if family not in _FAMILIES:
        raise UsageError(
            f"{path} is of architecture {family!r}, and known are {', '.join(_FAMILIES)}; state the"
            " sizes instead: --parameters, --layers, --hidden, --heads, --kv-heads, --vocab"
        )
    return _of_config(path, family, config)


def _of_config(path: Path, family: str, config: Mapping[str, Any]) -> ModelShape:
    def size(key: str, default: int | None = None) -> int:
        value = config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool):
            raise DataError(f"{path}: {key} is {value!r}, expected a whole number")
        return value

    hidden, heads = size("hidden_size"), size("num_attention_heads")
    if config.get("mlp_bias") or (family == "llama" and config.get("attention_bias")):
        raise UsageError(f"{path}: biases of Llama's matrices are not counted; state the sizes")
    return ModelShape(
        layers=size("num_hidden_layers"),
        hidden=hidden,
        intermediate=size("intermediate_size"),
        heads=heads,
        kv_heads=size("num_key_value_heads", heads),
        head_dim=size("head_dim", hidden // max(1, heads)),
        vocabulary=size("vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=family == "qwen2",
        head_norms=family == "qwen3",
        positions=config.get("max_position_embeddings"),
    )


def stated_shape(
    layers: int,
    hidden: int,
    heads: int,
    vocabulary: int,
    *,
    kv_heads: int | None = None,
    intermediate: int | None = None,
    parameters: int | None = None,
    tied: bool = False,
) -> ModelShape:
    """Return stated sizes as a shape.

    Args:
        layers: See :class:`ModelShape`, as the others.
        hidden: A multiple of ``heads``.
        heads: That ask.
        vocabulary: Rows of the embedding.
        kv_heads: None takes ``heads``.
        intermediate: None takes what makes the parameters as many as stated.
        parameters: In all; needed where ``intermediate`` is not given.
        tied: Whether the embedding is also the output's matrix.

    Raises:
        UsageError: They do not make a model.
    """
    if hidden % heads:
        raise UsageError(f"a hidden size of {hidden} is not shared evenly by {heads} heads")
    kv_heads = heads if kv_heads is None else kv_heads
    head_dim = hidden // heads
    if intermediate is None:
        if parameters is None:
            raise UsageError("state --parameters or --intermediate: one follows from the other")
        least = ModelShape(layers, hidden, 1, heads, kv_heads, head_dim, vocabulary, tied)
        intermediate = 1 + round((parameters - least.parameters) / (3 * hidden * layers))
        if intermediate < 1:
            raise UsageError(
                f"{parameters:,} parameters are fewer than the other sizes need:"
                f" {least.parameters:,}; check --layers, --hidden and --vocab, or give --tied"
            )
    return ModelShape(layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary, tied)


def read_count(text: str) -> int:
    """Read a number such as ``7B``, ``1.5B``, ``135M`` or ``7,615,616,512``.

    Raises:
        UsageError: It is none.
    """
    match = re.fullmatch(r"([0-9][0-9_,]*(?:\.[0-9]+)?)([KMB]?)", text.strip().upper())
    if match is None:
        raise UsageError(f"expected a number of parameters, as 7B or 135M; got {text!r}")
    return round(float(re.sub("[_,]", "", match[1])) * _UNITS[match[2]])
