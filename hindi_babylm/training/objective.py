"""The loss of a batch by what a model predicts: the next token, or the tokens that are masked."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from hindi_babylm.masking import is_masked


def token_nll(model: nn.Module, inputs: dict[str, Any], *, causal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed NLL of each row in nats, and its predicted tokens: `(batch_size,)` both.

    `inputs` are `input_ids, labels (batch_size, block_size)` and what else the model takes. A causal model predicts
    the label after each token, a masked one that of the token itself.
    """
    inputs = dict(inputs)
    labels = inputs.pop("labels")
    logits = model(**inputs).logits
    if causal:
        labels, logits = labels[:, 1:], logits[:, :-1]
    nll = functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return nll.sum(dim=1), labels.ne(-100).sum(dim=1)


def loss_of(model: PreTrainedModel, *, label_smoothing: float) -> Callable[..., torch.Tensor] | None:
    """Return the loss for the Trainer of a masked model; None for a causal one, whose own is right.

    The masked models' own loss is the mean over a forward pass, which weighs the tokens of short rows more.
    """
    return partial(_masked_loss, label_smoothing=label_smoothing) if is_masked(type(model).__name__) else None


def _masked_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None, *, label_smoothing: float
) -> torch.Tensor:
    """Return the NLL of the masked tokens over their number in the whole batch of all processes."""
    logits = outputs.logits.float().flatten(0, 1)
    nll = functional.cross_entropy(logits, labels.flatten(), reduction="sum", label_smoothing=label_smoothing)
    items = labels.ne(-100).sum() if num_items_in_batch is None else num_items_in_batch
    return nll / items.clamp(min=1)
