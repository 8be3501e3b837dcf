"""Architectures from the libraries' own classes, sized by a recipe."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hindi_babylm.storage import UserError, suggestion

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

LAYERS, WIDTH, HEADS = 12, 768, 12  # the specification's base size
CAUSAL, MASKED = "causal", "masked"  # objectives: predict the next token, or tokens that are masked


def gpt2_config(*, block_size: int, dropout: float, **settings: Any) -> "PreTrainedConfig":
    """Return a GPT-2 of the specification's base size, 12 layers of 768 (85M parameters + embeddings)."""
    from transformers import GPT2Config

    defaults: dict[str, Any] = {
        "n_positions": block_size,
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "embd_pdrop": dropout,
        "resid_pdrop": dropout,
        "attn_pdrop": dropout,
    }
    return GPT2Config(**defaults | settings)


def llama_config(*, block_size: int, dropout: float, **settings: Any) -> "PreTrainedConfig":
    """Return a Llama of 12 layers of 768; the class has dropout in attention only."""
    from transformers import LlamaConfig

    defaults: dict[str, Any] = {
        "max_position_embeddings": block_size,
        "hidden_size": WIDTH,
        "intermediate_size": 2048,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "attention_dropout": dropout,
    }
    return LlamaConfig(**defaults | settings)


def deberta_v2_config(*, block_size: int, dropout: float, **settings: Any) -> "PreTrainedConfig":
    """Return a DeBERTa of 12 layers of 768 with the relative positions of DeBERTa-v3 (He et al. 2021, 2023).

    Distances are told apart one by one up to a quarter of `block_size`, and by their logarithm beyond, in half as many
    buckets as there are positions and at most v3's 256.
    """
    from transformers import DebertaV2Config

    defaults: dict[str, Any] = {
        "max_position_embeddings": block_size,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "position_buckets": min(256, max(2, block_size // 2)),
        **DEBERTA_POSITIONS,
        **DEBERTA_CONVOLUTION,
    }
    return DebertaV2Config(**defaults | settings)


def build_model(
    *,
    architecture: str,
    tokenizer: "PreTrainedTokenizerFast",
    block_size: int,
    dropout: float = 0.1,
    model_config: Mapping[str, Any] | None = None,
    seed: int = 42,
) -> "PreTrainedModel":
    """Build a language model with fresh weights for `tokenizer`, embeddings tied to the output.

    Its class is that of `AutoModelForCausalLM`, or of `AutoModelForMaskedLM` where `OBJECTIVES` says so.

    `model_config` overrides fields of the architecture's own config class. The special-token ids are the
    tokenizer's, and EOS is the beginning of a text too. Weights hang on `seed` alone.

    Raises UserError for a field that the config class does not have or a value that it refuses, and for positions
    shorter than `block_size`.

    >>> from hindi_babylm.tokenization.training import train_tokenizer
    >>> tokenizer = train_tokenizer(["राम घर गया"], vocab_size=512)
    >>> size = {"n_layer": 2, "n_embd": 64, "n_head": 2}
    >>> model = build_model(architecture="gpt2", tokenizer=tokenizer, block_size=32, model_config=size)
    >>> print(type(model).__name__, model.config.n_positions, model.config.vocab_size == len(tokenizer))
    GPT2LMHeadModel 32 True
    """
    from transformers import set_seed

    eos = tokenizer.eos_token_id
    config = _config(
        architecture,
        {
            "vocab_size": len(tokenizer),
            "bos_token_id": eos,
            "eos_token_id": eos,
            "pad_token_id": tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos,
            **(model_config or {}),
        },
        block_size=block_size,
        dropout=dropout,
    )
    if config.vocab_size < len(tokenizer):
        raise UserError(
            f"vocab_size {config.vocab_size} is smaller than the tokenizer's {len(tokenizer)} tokens: leave it out"
        )
    set_seed(seed)
    return _from_config(config, objective_of(architecture))


def check_settings(
    *, architecture: str, block_size: int, dropout: float = 0.1, model_config: Mapping[str, Any] | None = None
) -> None:
    """Raise UserError for what `build_model` would refuse or what cannot run, without a tokenizer or weights."""
    import torch

    with torch.device("meta"):
        config = _config(architecture, dict(model_config or {}), block_size=block_size, dropout=dropout)
        model = _from_config(config, objective_of(architecture))
        with _refusal_told(type(config).__name__):
            model.config.pad_token_id = None  # with one, the model looks for padding, which meta tensors cannot answer
            try:
                model(input_ids=torch.zeros(1, 2, dtype=torch.long))
            except RuntimeError as error:
                if "meta tensors" not in str(error):  # a model that reads values cannot be tried: no fault of its sizes
                    raise


def _config(architecture: str, settings: Mapping[str, Any], *, block_size: int, dropout: float) -> "PreTrainedConfig":
    from transformers import PreTrainedConfig

    make = ARCHITECTURES[architecture]
    known = make(block_size=block_size, dropout=dropout)
    names = set(known.to_dict()) | set(known.attribute_map)
    hints = {field.name: field.type for field in dataclasses.fields(known)}
    for name, value in settings.items():
        if name not in names:
            fields = sorted(set(known.to_dict()) - set(PreTrainedConfig().to_dict()))
            raise UserError(f"{type(known).__name__} has no field {name!r}; {suggestion(name, fields)}")
        # What the class declares as a whole number counts layers, heads or widths, but for the ids of tokens and what
        # is below 1 by default.
        own = known.attribute_map.get(name, name)
        counts = hints.get(own) in (int, int | None) and not name.endswith("_id") and own not in BELOW_ONE
        if counts and isinstance(value, int) and value < 1:
            raise UserError(f"{name} = {value}: expected at least 1")
    with _refusal_told(type(known).__name__):
        config = make(block_size=block_size, dropout=dropout, **{"tie_word_embeddings": True, **settings})
    if config.max_position_embeddings < block_size:
        raise UserError(
            f"block_size {block_size} is longer than the model's {config.max_position_embeddings} positions: "
            "lower block_size or raise the positions in model_config"
        )
    return config


def objective_of(architecture: str) -> str:
    """Return what an architecture is trained for, `causal` unless `OBJECTIVES` says otherwise.

    >>> objective_of("gpt2"), objective_of("deberta-v2")
    ('causal', 'masked')
    """
    return OBJECTIVES.get(architecture, CAUSAL)


def _from_config(config: "PreTrainedConfig", objective: str) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    with _refusal_told(type(config).__name__):
        make: Any = AutoModelForMaskedLM if objective == MASKED else AutoModelForCausalLM
        model: PreTrainedModel = make.from_config(config)
    return model


@contextmanager
def _refusal_told(config_class: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the libraries raise many types: all are told, none is swallowed
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{config_class} refuses a value: {reason}") from error


def count_parameters(model: "nn.Module") -> int:
    """Count the parameters of `model`, tied ones once.

    >>> from torch import nn
    >>> embedding, output = nn.Embedding(100, 8), nn.Linear(8, 100, bias=False)
    >>> output.weight = embedding.weight
    >>> count_parameters(nn.Sequential(embedding, output))
    800
    """
    return sum(parameter.numel() for parameter in model.parameters())


ARCHITECTURES: dict[str, "Callable[..., PreTrainedConfig]"] = {
    "gpt2": gpt2_config,
    "llama": llama_config,
    "deberta-v2": deberta_v2_config,
}

# Those whose classes take positions that begin again in a block for several documents, and keep them apart.
KEEP_DOCUMENTS_APART = ("gpt2", "llama")

# Architecture -> what it is trained for; causal where none is given.
OBJECTIVES = {"gpt2": CAUSAL, "llama": CAUSAL, "deberta-v2": MASKED}

# Architecture -> the class of its config, whose fields a recipe is checked against before anything is imported.
CONFIG_CLASSES = {"gpt2": "GPT2Config", "llama": "LlamaConfig", "deberta-v2": "DebertaV2Config"}

# How a DeBERTa tells positions: those of DeBERTa-v3.
DEBERTA_POSITIONS: dict[str, Any] = {
    "relative_attention": True,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
# A DeBERTa without the convolution beside its first layer: the class reads these, though it declares none.
DEBERTA_CONVOLUTION: dict[str, Any] = {"conv_kernel_size": 0, "conv_groups": 1, "conv_act": "tanh"}

# Whole numbers of a config class that may be below 1: no types of rows, positions as many as there are, no convolution.
BELOW_ONE = {"type_vocab_size", "max_relative_positions", "position_buckets", "conv_kernel_size"}
