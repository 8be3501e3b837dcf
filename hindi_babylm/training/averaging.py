"""An exponential moving average of the weights, which is evaluated and exported in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback

KEY = "ema_state_dict"


def warmed_decay(decay: float, step: int) -> float:
    """Return the decay after `step` earlier steps: min(decay, (1 + step) / (10 + step)).

    So a short run averages its last tenth or so, and the share of the first weights after n steps is below
    n! 9! / (n + 9)!, one in ten million after 20. Source: `tf.train.ExponentialMovingAverage`, `num_updates`.

    >>> [round(warmed_decay(0.999, step), 3) for step in (0, 90, 10_000)]
    [0.1, 0.91, 0.999]
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage(TrainerCallback):
    """Keep w_ema = d * w_ema + (1 - d) * w of the trained parameters in fp32, d being `warmed_decay` of each step.

    With `decay` None it does nothing. It follows from the step, so only the averages themselves must be stored:
    tied parameters once, on the model's device. When a training ends, the model is left with them.
    """

    def __init__(self, decay: float | None) -> None:
        self.decay = decay
        self._averages: list[torch.Tensor] = []
        self._restored: Mapping[str, torch.Tensor] | None = None

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Let the next training begin with the averages of a checkpoint."""
        self._restored = checkpoint.get(KEY)

    def state_dict(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Return `model.state_dict()` with the averages in place of the parameters."""
        averages = {id(own): average for own, average in zip(model.parameters(), self._averages, strict=True)}
        named = dict(model.named_parameters(remove_duplicate=False))
        return {name: averages[id(named[name])] if name in named else v for name, v in model.state_dict().items()}

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averages within the block, and its own weights back after it, bit for bit."""
        if not self._averages:
            yield
            return
        parameters = _detached(model)
        own = [parameter.clone() for parameter in parameters]
        try:
            torch._foreach_copy_(parameters, self._averages)
            yield
        finally:
            torch._foreach_copy_(parameters, own)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin with the weights of the model, or with the averages of the checkpoint that it goes on from."""
        if self.decay is None:
            return
        names = {id(own): name for name, own in kwargs["model"].named_parameters()}
        stored, self._restored = self._restored, None
        self._averages = [
            own.detach().float().clone() if stored is None else stored[names[id(own)]].to(own.device, copy=True)
            for own in kwargs["model"].parameters()
        ]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the weights of the step into the averages."""
        if self.decay is not None:
            update: Any = get_ema_multi_avg_fn(warmed_decay(self.decay, state.global_step))
            update(self._averages, [parameter.float() for parameter in _detached(kwargs["model"])], None)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the averages in the model, unless it has got those of the best evaluation."""
        if self._averages and not (args.load_best_model_at_end and state.best_model_checkpoint is not None):
            torch._foreach_copy_(_detached(kwargs["model"]), self._averages)
        self._averages = []


def evaluated_weights(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights that a checkpoint's evaluation was of: the averages where the run kept some."""
    weights: dict[str, torch.Tensor] = checkpoint.get(KEY) or checkpoint["model_state_dict"]
    return weights


def _detached(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in model.parameters()]
