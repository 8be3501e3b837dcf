"""The activations of a training step in closed form, for machines that one cannot measure on.

The counting is that of Korthikanti et al. (2022), "Reducing Activation Recomputation in Large Transformer Models",
section 4.1, done anew for what transformers' GPT-2 and Llama save: master weights and residual stream in fp32, matrix
products in the training's precision, attention by a fused kernel that keeps no probabilities.
"""

from typing import Any

FLOAT32_BYTES = 4


def activation_bytes(
    config: Any, *, rows: int, block_size: int, precision: str, checkpointing: bool = False, gpu: bool = True
) -> int | None:
    """Return the bytes that a forward pass of `(rows, block_size)` saves for backward, the logits left out.

    `config` is a `GPT2Config` or a `LlamaConfig`; None for any other. With `checkpointing` every layer keeps its input,
    and one layer is computed anew at a time. On a GPU dropout keeps masks of a byte, and powers are taken in fp32.
    """
    if config.model_type not in LAYERS:
        return None
    width, half = config.hidden_size, precision != "fp32"
    layer, weights, end = LAYERS[config.model_type](config, half=half, gpu=gpu)
    tokens = rows * block_size
    copied = 2 * half  # bytes a weight: autocast saves its copy of every matrix
    one_layer = tokens * layer + copied * weights
    layers = config.num_hidden_layers * (tokens * FLOAT32_BYTES * width if checkpointing else one_layer)
    last = tokens * (end + _bytes(half) * width + 16) + copied * width * config.vocab_size  # 16: ids and labels
    return int(layers + (one_layer if checkpointing else 0) + last)


def logits_bytes(config: Any, *, rows: int, block_size: int) -> int:
    """Return the bytes of the fp32 log-probabilities of `(rows, block_size)` tokens and of their gradient."""
    return 2 * FLOAT32_BYTES * rows * block_size * int(config.vocab_size)


def _bytes(half: bool) -> int:
    return 2 if half else FLOAT32_BYTES


def _gpt2(config: Any, *, half: bool, gpu: bool) -> tuple[float, int, float]:
    """Return bytes a token and layer, matrix weights a layer, and bytes a token after the last layer."""
    width, inner = config.n_embd, config.n_inner or 4 * config.n_embd
    attention = 5 * width  # the inputs of the two products, and query, key, value, which are one tensor
    if config.activation_function != "gelu_new":
        activation = 2 * _bytes(half) * inner  # its input, and its output, the input of the next product
    elif half and gpu:
        activation = 16 * inner  # input, tanh and 1 + tanh in fp32 after the power; half the input and the output not
    else:
        activation = 5 * _bytes(half) * inner  # input, its half, tanh, 1 + tanh, output: it is no fused kernel
    masks = 2 * width * (config.resid_pdrop > 0) if gpu else 0
    norms = 2 * (FLOAT32_BYTES * width + 8)  # input, mean and deviation
    layer = norms + _bytes(half) * (attention + width) + 4 * config.n_head + activation + masks
    embedding_mask = width * (config.embd_pdrop > 0) if gpu else 0
    return layer, 4 * width**2 + 2 * width * inner, FLOAT32_BYTES * width + 8 + embedding_mask


def _llama(config: Any, *, half: bool, gpu: bool) -> tuple[float, int, float]:
    """Return the same of a Llama; its kernels save alike on CPU and GPU."""
    width, inner = config.hidden_size, config.intermediate_size
    queries, keys = (heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads))
    inputs = 5 if half else 2  # autocast copies the input of query, key, value, gate and up each; else two are shared
    attention = 2 * queries + 2 * keys  # query, key, value, output
    norms = 2 * (2 * FLOAT32_BYTES * width + 4)  # input and normalized input, and the root
    layer = norms + _bytes(half) * (inputs * width + attention + 4 * inner) + 4 * config.num_attention_heads
    weights = 2 * width * (queries + keys) + 3 * width * inner
    return layer, weights, norms / 2


# Type of a config -> bytes a token and layer, matrix weights a layer, and bytes a token after the last layer.
LAYERS = {"gpt2": _gpt2, "llama": _llama}
