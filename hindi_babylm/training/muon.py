"""Muon for the hidden matrices and AdamW for the rest, as one optimizer."""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hindi_babylm.training.arguments import HindiTrainingArguments


class MuonWithAdamW(torch.optim.Optimizer):
    """Step torch's AdamW and Muon over parameter groups and a state that all three share.

    So schedules, clipping, `state_dict` and `load_state_dict` are those of any optimizer. The groups of AdamW come
    first: the Trainer reports the learning rate of the first group.
    """

    def __init__(self, adamw: torch.optim.AdamW, muon: torch.optim.Muon) -> None:
        self.parts: tuple[torch.optim.Optimizer, ...] = (adamw, muon)
        super().__init__([group for part in self.parts for group in part.param_groups], {"lr": adamw.defaults["lr"]})
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step both parts; a closure is not supported."""
        if closure is not None:
            raise ValueError("MuonWithAdamW does not take a closure")
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load both parts' state from one dict."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let the parts see this optimizer's groups and state, which loading replaces."""
        first = 0
        for part in self.parts:
            last = first + len(part.param_groups)
            part.param_groups = self.param_groups[first:last]
            part.state = self.state
            first = last


def build_muon(model: "PreTrainedModel", *, args: "HindiTrainingArguments", decayed: list[str]) -> MuonWithAdamW:
    """Give the matrices between embedding and output to Muon (Jordan et al. 2024) and everything else to AdamW.

    `decayed` names the parameters with weight decay. Muon's update is scaled to the size of AdamW's (Liu et al.
    2025), so that both rates are of one kind and the transposed matrices of GPT-2 are treated like any other.
    """
    outer = {id(p) for module in model.modules() if isinstance(module, torch.nn.Embedding) for p in module.parameters()}
    head = model.get_output_embeddings()
    if head is not None:
        outer |= {id(p) for p in head.parameters()}
    hidden, matrices, rest = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and id(parameter) not in outer:
            hidden.append(parameter)
        elif name in decayed:
            matrices.append(parameter)
        else:
            rest.append(parameter)
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": args.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=True,
    )
    assert args.muon_learning_rate is not None
    muon = torch.optim.Muon(
        hidden, lr=args.muon_learning_rate, weight_decay=args.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return MuonWithAdamW(adamw, muon)
