from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hindi_babylm.modeling import (
    ARCHITECTURES,
    CAUSAL,
    KEEP_DOCUMENTS_APART,
    OBJECTIVES,
    build_model,
    check_settings,
    count_parameters,
)
from hindi_babylm.packing import document_positions
from hindi_babylm.recipe.parsing import parse_recipe
from hindi_babylm.storage import UserError

RECIPES = Path(__file__).parent.parent / "recipes"
TINY: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2},
    "llama": {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
    "deberta-v2": {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
}
VOCABULARY, BLOCK = 600, 16


class Tokenizer:
    """What `build_model` asks of a tokenizer: a length and two ids."""

    def __init__(self, size: int = VOCABULARY, pad: int | None = 7) -> None:
        self.size, self.eos_token_id, self.pad_token_id = size, 5, pad

    def __len__(self) -> int:
        return self.size


def build(architecture: str, *, tokenizer: Any = None, model_config: Any = None, **settings: Any) -> Any:
    """Build a tiny model; `model_config` lies over the tiny one."""
    tokenizer = tokenizer or Tokenizer()
    return build_model(
        architecture=architecture,
        tokenizer=tokenizer,
        **{
            "block_size": BLOCK,
            "model_config": TINY[architecture] | (model_config or {}),
            **settings,
        },
    )


def closed_form(architecture: str, *, vocabulary: int, positions: int, layers: int, width: int, inner: int) -> int:
    """Return the parameters of an architecture with tied embeddings, added up layer by layer on paper."""
    if architecture == "gpt2":
        attention = width * 3 * width + 3 * width + width * width + width
        feed_forward = width * inner + inner + inner * width + width
        norms = 2 * 2 * width
        return vocabulary * width + positions * width + layers * (attention + feed_forward + norms) + 2 * width
    if architecture == "deberta-v2":
        attention = 4 * (width * width + width)
        feed_forward = width * inner + inner + inner * width + width
        norms = 2 * 2 * width
        distances = 2 * min(256, positions // 2) * width + 2 * width  # either side, and their norm
        head = width * width + width + 2 * width + vocabulary  # and a bias for every token
        return vocabulary * width + 2 * width + distances + layers * (attention + feed_forward + norms) + head
    attention = 4 * width * width
    feed_forward = 3 * width * inner
    return vocabulary * width + layers * (attention + feed_forward + 2 * width) + width


def test_the_registry_is_covered() -> None:
    """Every architecture of the registry is tested here."""
    assert set(ARCHITECTURES) == set(TINY)


@pytest.mark.parametrize("architecture", sorted(TINY))
def test_the_special_ids_are_the_tokenizers(architecture: str) -> None:
    """EOS and padding are the tokenizer's, and EOS begins a text, in the model's and the generation's configuration."""
    model = build(architecture)
    for config in (model.config, *([model.generation_config] if model.can_generate() else [])):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (5, 5, 7)
    assert model.config.vocab_size == VOCABULARY
    assert model.config.max_position_embeddings == BLOCK
    assert build(architecture, tokenizer=Tokenizer(pad=None)).config.pad_token_id == 5


@pytest.mark.parametrize("architecture", sorted(TINY))
def test_the_embeddings_are_tied_and_counted_once(architecture: str) -> None:
    """Input and output embedding are one tensor, and the count is that of the distinct tensors."""
    model = build(architecture)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    distinct = {tensor.data_ptr(): tensor.numel() for tensor in model.state_dict(keep_vars=True).values()}
    expected = closed_form(
        architecture,
        vocabulary=VOCABULARY,
        positions=BLOCK,
        layers=2,
        width=32,
        inner=128 if architecture == "gpt2" else 64,
    )
    assert count_parameters(model) == sum(distinct.values()) == expected
    untied = build(architecture, model_config={"tie_word_embeddings": False})
    biases = VOCABULARY if architecture == "deberta-v2" else 0  # its output has a second one then, without a use
    assert count_parameters(untied) == expected + VOCABULARY * 32 + biases


@pytest.mark.parametrize("architecture", sorted(TINY))
def test_settings_that_can_be_built_are_not_refused(architecture: str) -> None:
    """The check without weights lets the ids of tokens and rates of zero pass, as the building does."""
    settings = TINY[architecture] | {"pad_token_id": 0, "bos_token_id": 0, "initializer_range": 0.0}
    check_settings(architecture=architecture, block_size=BLOCK, model_config=settings)


def test_count_parameters_of_plain_modules() -> None:
    """A shared parameter counts once, a buffer not at all."""
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3, bias=False))
    assert count_parameters(module) == 3 * 4 + 4 + 2 * 4 + 4 * 3
    tied = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    tied[1].weight = tied[0].weight
    assert count_parameters(tied) == 9


def test_gpt2_has_dropout_at_embedding_attention_and_residual() -> None:
    """A GPT-2 drops at its embeddings, and in each layer at attention weights, attention and feed-forward output."""
    model = build("gpt2", dropout=0.3)
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    layers = range(model.config.n_layer)
    places = ("attn.attn_dropout", "attn.resid_dropout", "mlp.dropout")
    expected = ["transformer.drop", *(f"transformer.h.{layer}.{place}" for layer in layers for place in places)]
    assert rates == dict.fromkeys(expected, 0.3)


def test_llama_has_dropout_in_attention_only() -> None:
    """A Llama drops attention weights and nothing else: it has no other dropout."""
    model = build("llama", dropout=0.3)
    assert model.config.attention_dropout == 0.3
    assert [layer.self_attn.attention_dropout for layer in model.model.layers] == [0.3, 0.3]
    assert not any(isinstance(module, nn.Dropout) and module.p for module in model.modules())


@pytest.mark.parametrize("architecture", sorted(TINY))
def test_dropout_acts_in_training_alone(architecture: str) -> None:
    """With dropout two training passes differ; without it, or in evaluation, they do not."""
    inputs = torch.arange(BLOCK)[None]
    for dropout, train, equal in ((0.5, True, False), (0.5, False, True), (0.0, True, True)):
        model = build(architecture, dropout=dropout).train(train)
        with torch.no_grad():
            first, second = (model(input_ids=inputs).logits for _ in range(2))
        assert torch.equal(first, second) == equal


@pytest.mark.parametrize("architecture", sorted(TINY))
def test_weights_hang_on_the_seed_alone(architecture: str) -> None:
    """One seed gives the same weights whatever was drawn before, another seed others."""
    first = build(architecture, seed=1).state_dict()
    torch.rand(17)
    again = build(architecture, seed=1).state_dict()
    other = build(architecture, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_deberta_has_dropout_at_embedding_attention_and_residual() -> None:
    """A DeBERTa drops at its embeddings and their distances, attention weights and residual branches."""
    model = build("deberta-v2", dropout=0.3)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.3] * (1 + 2 * 4)


def test_a_masked_model_reads_both_sides_and_begins_near_chance() -> None:
    """A later token changes earlier predictions, and a fresh model's loss is about that of a uniform guess."""
    model = build("deberta-v2", dropout=0.0).eval()
    inputs = torch.randint(0, VOCABULARY, (1, BLOCK), generator=torch.Generator().manual_seed(0))
    changed = inputs.clone()
    changed[0, -1] = (inputs[0, -1] + 1) % VOCABULARY
    with torch.no_grad():
        one, two = model(input_ids=inputs).logits, model(input_ids=changed).logits
    assert not torch.isclose(one, two).all(dim=-1).any()
    loss = nn.functional.cross_entropy(one[0], inputs[0])
    assert abs(loss.item() - torch.log(torch.tensor(float(VOCABULARY))).item()) < 0.2


def test_the_convolution_of_a_deberta_mixes_neighbours() -> None:
    """With a kernel of 3 there are weights of a convolution, which change the output; by default there are none."""
    assert not any("conv" in name for name, _ in build("deberta-v2").named_parameters())
    model = build("deberta-v2", dropout=0.0, model_config={"conv_kernel_size": 3}).eval()
    inputs = torch.randint(0, VOCABULARY, (1, BLOCK), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits
        (weight,) = (value for name, value in model.named_parameters() if name.endswith("conv.conv.weight"))
        weight.zero_()
        after = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits
    assert weight.shape[-1] == 3
    assert not torch.equal(before, after)


def test_deberta_tells_the_distance_of_tokens() -> None:
    """A text turned round is another one, though no position is added to its embeddings."""
    model = build("deberta-v2", dropout=0.0, model_config={"initializer_range": 0.3}).eval()
    assert not any("position_embeddings" in name for name, _ in model.named_parameters())
    inputs = torch.arange(10, 10 + BLOCK)[None]
    with torch.no_grad():
        forward, backward = model(input_ids=inputs).logits, model(input_ids=inputs.flip(1)).logits.flip(1)
    assert not torch.isclose(forward, backward, atol=1e-3).all(dim=-1).any()


@pytest.mark.parametrize("architecture", sorted(name for name, objective in OBJECTIVES.items() if objective == CAUSAL))
def test_the_model_is_causal_and_begins_near_chance(architecture: str) -> None:
    """A later token changes no earlier prediction, and a fresh model's loss is about that of a uniform guess."""
    model = build(architecture, dropout=0.0).eval()
    inputs = torch.randint(0, VOCABULARY, (1, BLOCK), generator=torch.Generator().manual_seed(0))
    changed = inputs.clone()
    changed[0, -1] = (inputs[0, -1] + 1) % VOCABULARY
    with torch.no_grad():
        one, two = model(input_ids=inputs).logits, model(input_ids=changed).logits
    assert torch.equal(one[:, :-1], two[:, :-1])
    assert not torch.equal(one[:, -1], two[:, -1])
    loss = nn.functional.cross_entropy(one[0, :-1], inputs[0, 1:])
    assert abs(loss.item() - torch.log(torch.tensor(float(VOCABULARY))).item()) < 0.2


def test_llama_blocks_have_rms_norm_swiglu_and_rotary_positions() -> None:
    """Norm and feed-forward part are their formulas, and attention knows distances of tokens, not their places."""
    model = build("llama", dropout=0.0).eval()
    layer = model.model.layers[0]
    x = torch.randn(2, 5, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
    swish = x @ gate.T * torch.sigmoid(x @ gate.T)
    torch.testing.assert_close(layer.mlp(x), (swish * (x @ up.T)) @ down.T)
    root = (x.square().mean(-1, keepdim=True) + model.config.rms_norm_eps).sqrt()
    torch.testing.assert_close(layer.input_layernorm(x), x / root)
    inputs, places = torch.arange(8)[None], torch.arange(8)[None]
    with torch.no_grad():
        plain, moved, stretched = (
            model(input_ids=inputs, position_ids=given).logits for given in (places, places + 3, 3 * places)
        )
    torch.testing.assert_close(plain, moved)
    assert not torch.allclose(plain, stretched, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "field", "value", "read"),
    [
        ("gpt2", "n_layer", 3, "n_layer"),
        ("gpt2", "hidden_size", 48, "n_embd"),  # the name of other classes, which GPT-2 knows too
        ("gpt2", "activation_function", "relu", "activation_function"),
        ("gpt2", "embd_pdrop", 0.0, "embd_pdrop"),
        ("llama", "rms_norm_eps", 1e-5, "rms_norm_eps"),
        ("llama", "num_key_value_heads", 1, "num_key_value_heads"),
        ("llama", "max_position_embeddings", 64, "max_position_embeddings"),
        ("llama", "vocab_size", 640, "vocab_size"),
        ("deberta-v2", "position_buckets", 4, "position_buckets"),  # a field that the class does not declare
        ("deberta-v2", "type_vocab_size", 0, "type_vocab_size"),
        ("deberta-v2", "max_relative_positions", -1, "max_relative_positions"),
        ("deberta-v2", "conv_kernel_size", 3, "conv_kernel_size"),
    ],
)
def test_fields_of_the_config_class_reach_the_model(architecture: str, field: str, value: Any, read: str) -> None:
    """A field of `model_config` overrides the default and the key that would set it."""
    assert getattr(build(architecture, model_config={field: value}).config, read) == value


@pytest.mark.parametrize(
    ("architecture", "model_config", "message"),
    [
        ("gpt2", {"n_layers": 4}, "GPT2Config has no field 'n_layers'; did you mean 'n_layer'?"),
        ("llama", {"n_layer": 4}, "LlamaConfig has no field 'n_layer'; there are "),
        ("gpt2", {"n_positions": 8}, "block_size 16 is longer than the model's 8 positions: lower block_size"),
        ("llama", {"max_position_embeddings": 8}, "block_size 16 is longer than the model's 8 positions"),
        ("gpt2", {"vocab_size": 100}, "vocab_size 100 is smaller than the tokenizer's 600 tokens"),
        ("gpt2", {"n_layer": "two"}, "GPT2Config refuses a value: "),
        ("gpt2", {"n_head": 3}, "GPT2Config refuses a value: ValueError"),
        ("gpt2", {"activation_function": "reluu"}, "GPT2Config refuses a value: KeyError: 'reluu'"),
        ("llama", {"num_attention_heads": 3}, "LlamaConfig refuses a value: "),
        ("deberta-v2", {"n_layer": 4}, "DebertaV2Config has no field 'n_layer'; there are "),
        ("deberta-v2", {"num_attention_heads": 3}, "DebertaV2Config refuses a value: ValueError"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(architecture: str, model_config: dict[str, Any], message: str) -> None:
    """An unknown field, a value that the class refuses and sizes that do not fit are refused in one line."""
    with pytest.raises(UserError) as caught:
        build(architecture, model_config=model_config)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_the_message_of_an_unknown_field_lists_the_known_ones() -> None:
    """The way out of an unknown field is the list of known ones."""
    with pytest.raises(UserError, match=r"n_embd, n_head, n_inner, n_layer, n_positions"):
        build("gpt2", model_config={"depth": 4})


@pytest.mark.parametrize(
    ("recipe", "millions", "sizes"),
    [
        ("small", 40, {"vocabulary": 16_384, "layers": 10, "width": 512}),
        ("base", 110, {"vocabulary": 32_000, "layers": 12, "width": 768}),
        ("large", 220, {"vocabulary": 32_000, "layers": 20, "width": 896}),
        ("masked", 110, {"vocabulary": 32_000, "layers": 12, "width": 768}),
        ("efficient", 110, {"vocabulary": 32_000, "layers": 12, "width": 768}),
    ],
)
def test_the_recipes_have_the_sizes_of_the_specification(recipe: str, millions: int, sizes: dict[str, int]) -> None:
    """Small, base, large and those of base size have 40, 110 and 220 million parameters within 5 %, as on paper."""
    parsed = parse_recipe(RECIPES / f"{recipe}.json")
    tokenizer: Any = Tokenizer(parsed.tokenizer.vocab_size)
    with torch.device("meta"):
        model = build_model(
            architecture=parsed.model.architecture,
            tokenizer=tokenizer,
            block_size=parsed.model.block_size,
            dropout=parsed.model.dropout,
            model_config=parsed.model.model_config,
        )
    count = count_parameters(model)
    inner = parsed.model.model_config.get("intermediate_size", 4 * sizes["width"])
    assert count == closed_form(parsed.model.architecture, positions=512, inner=inner, **sizes)
    assert abs(count / 1e6 - millions) < 0.05 * millions


# A block that begins in the middle of a document and ends in the middle of another; 5 is the EOS.
PACKED = [11, 12, 13, 5, 21, 22, 5, 5, 31, 32, 33, 34, 35, 5, 41, 42]
SEGMENTS = [(0, 3), (3, 6), (6, 7), (7, 13), (13, 16)]  # an EOS is the context of the document after it


def packed_logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the logits of a block beside another one, as the training gives it: no mask, no cache."""
    rows = np.asarray([ids, list(range(100, 100 + len(ids)))])
    positions = np.stack([document_positions(row, 5) for row in rows])
    found: torch.Tensor = model(
        input_ids=torch.from_numpy(rows), position_ids=torch.from_numpy(positions), use_cache=False
    ).logits[0]
    return found


@pytest.mark.parametrize("architecture", KEEP_DOCUMENTS_APART)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("training", [False, True])
def test_documents_of_a_block_do_not_see_each_other(architecture: str, attention: str, training: bool) -> None:
    """A token changes no logit outside of its document, and a document has the logits that it has alone."""
    model = build(architecture, dropout=0.0).train(training)
    assert model.config._attn_implementation == "sdpa", "what a recipe trains with"
    model.set_attn_implementation(attention)
    with torch.no_grad():
        together = packed_logits(model, PACKED)
        for start, end in SEGMENTS:
            alone = model(input_ids=torch.tensor([PACKED[start:end]]), use_cache=False).logits[0]
            assert torch.allclose(together[start:end], alone, rtol=0, atol=1e-6)
            outside = [place for place in range(len(PACKED)) if not start <= place < end]
            for place in range(start, end):
                if PACKED[place] != 5:
                    changed = packed_logits(model, [*PACKED[:place], 99, *PACKED[place + 1 :]])
                    assert torch.equal(changed[outside], together[outside])
                    assert not torch.equal(changed[place], together[place])


@pytest.mark.parametrize("architecture", KEEP_DOCUMENTS_APART)
def test_a_cache_or_a_mask_would_let_documents_see_each_other(architecture: str) -> None:
    """The same positions with a cache or an attention mask are not kept apart: why the training has neither."""
    model = build(architecture, dropout=0.0).eval()
    ids = torch.tensor([PACKED])
    positions = torch.from_numpy(document_positions(np.asarray(PACKED), 5))[None]
    with torch.no_grad():
        apart = packed_logits(model, PACKED)
        for settings in ({"use_cache": True}, {"use_cache": False, "attention_mask": torch.ones_like(ids)}):
            found = model(input_ids=ids, position_ids=positions, **settings).logits[0]
            assert not torch.allclose(found, apart, atol=1e-3)
