"""The closed form of a step's activations against what torch saves for backward."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hindi_babylm.modeling import ARCHITECTURES
from hindi_babylm.training.memory import activation_bytes, logits_bytes
from tests.runs import environment

TOLERANCE = 0.02
ROWS, BLOCK, VOCABULARY = 3, 96, 700

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_layer": 3, "n_embd": 64, "n_head": 4}),
    "gpt2 deep": ("gpt2", {"n_layer": 8, "n_embd": 32, "n_head": 2}),
    "gpt2 narrow inside": ("gpt2", {"n_layer": 2, "n_embd": 128, "n_head": 4, "n_inner": 192}),
    "gpt2 fused gelu": ("gpt2", {"n_layer": 2, "n_embd": 64, "n_head": 4, "activation_function": "gelu"}),
    "llama": (
        "llama",
        {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4},
    ),
    "llama grouped": (
        "llama",
        {
            "num_hidden_layers": 2,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
        },
    ),
}


def build(name: str, *, device: str = "cpu", dropout: float = 0.0, layers: int | None = None) -> Any:
    """Return a model in training mode, its loss that of the trainer."""
    architecture, settings = CONFIGS[name]
    ids: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
    if layers is not None:
        settings = settings | {"n_layer" if architecture == "gpt2" else "num_hidden_layers": layers}
    config = ARCHITECTURES[architecture](
        block_size=BLOCK, dropout=dropout, vocab_size=VOCABULARY, tie_word_embeddings=True, **ids, **settings
    )
    model: Any = AutoModelForCausalLM.from_config(config)
    model.loss_type = "ForCausalLM"
    return model.to(device).train()


def saved_bytes(model: Any, precision: str, *, rows: int = ROWS) -> int:
    """Count the bytes of the distinct storages that a forward pass saves, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage  # held, so that no address is given away twice
        return tensor

    ids = torch.randint(0, VOCABULARY, (rows, BLOCK), device=model.device)
    half = torch.autocast(model.device.type, torch.bfloat16, enabled=precision != "fp32")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), half:
        model(input_ids=ids, labels=ids, use_cache=False)
    return sum(storage.nbytes() for storage in storages.values())


def expected_bytes(model: Any, precision: str, *, rows: int = ROWS, **settings: Any) -> float:
    """Return the closed form, with the logits as far as the forward pass has them: their gradient comes later."""
    found = activation_bytes(model.config, rows=rows, block_size=BLOCK, precision=precision, **settings)
    assert found is not None
    return found + logits_bytes(model.config, rows=rows, block_size=BLOCK) / 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_closed_form_is_what_torch_saves(name: str, precision: str) -> None:
    """Over sizes, inner widths, grouped heads and both precisions the formula is within 2 % of what is saved."""
    model = build(name)
    assert expected_bytes(model, precision, gpu=False) == pytest.approx(saved_bytes(model, precision), rel=TOLERANCE)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_activations_grow_with_rows_as_counted(name: str) -> None:
    """What is saved for four rows more than for one is what the formula says, without the part that does not grow."""
    model = build(name)
    grown = saved_bytes(model, "bf16", rows=5) - saved_bytes(model, "bf16", rows=1)
    formula = expected_bytes(model, "bf16", rows=5, gpu=False) - expected_bytes(model, "bf16", rows=1, gpu=False)
    assert formula == pytest.approx(grown, rel=TOLERANCE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["gpt2 deep", "llama"])
def test_checkpointing_keeps_inputs_and_one_layer(name: str, precision: str) -> None:
    """With gradient checkpointing the formula is what is kept, and what one layer saves when it is computed anew."""
    model = build(name)
    whole = saved_bytes(model, precision)
    fewer = build(name, layers=model.config.num_hidden_layers - 1)
    one_layer = whole - saved_bytes(fewer, precision)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()  # the trainer does it too
    kept = saved_bytes(model, precision)
    assert kept < whole / 2
    formula = expected_bytes(model, precision, gpu=False, checkpointing=True)
    assert formula == pytest.approx(kept + one_layer, rel=TOLERANCE)


def test_another_architecture_has_no_figure() -> None:
    """For an architecture that was not counted the answer is None, not a guess."""
    from transformers import OPTConfig

    assert activation_bytes(OPTConfig(), rows=1, block_size=8, precision="fp32") is None


def test_the_peak_of_a_process_counts_what_was_freed() -> None:
    """An allocation raises the peak by its size, and the peak stays when it is gone."""
    code = (
        "import torch\n"
        "from hindi_babylm.training.machine import peak_memory_bytes\n"
        "before = peak_memory_bytes()\n"
        "torch.ones(75_000_000).sum()\n"
        "print(peak_memory_bytes() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment(CUDA_VISIBLE_DEVICES=""),
    )
    assert int(done.stdout) == pytest.approx(300e6, rel=0.1)
