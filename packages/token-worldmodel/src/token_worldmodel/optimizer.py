"""What learns the weights: AdamW, or Muon for the matrices inside the blocks and AdamW for the rest."""

from typing import Any, Literal

import torch
from torch import nn

from .model import WorldModel


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices of linear layers decay; embeddings, norms and biases do not.

    Raises:
        ValueError: a negative decay.
    """
    if weight_decay < 0:
        raise ValueError(f"weight_decay is {weight_decay}; give 0 or more")
    decays = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Linear)
        for name, parameter in module.named_parameters()  # several where the weight is a sum (`likeness`)
        if name != "bias"
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) in decays], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decays], "weight_decay": 0.0},
    ]


def make_optimizer(
    model: WorldModel,
    kind: Literal["adamw", "muon"],
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
) -> torch.optim.Optimizer:
    """AdamW in the groups of `parameter_groups`, or `MuonAdamW`.

    Raises:
        ValueError: as these two do.
    """
    if kind == "muon":
        return MuonAdamW(model, lr=lr, weight_decay=weight_decay, betas=betas)
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=betas, fused=True)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the matrices inside a world model's blocks, AdamW for all else, as one optimizer.

    Muon steps along the orthogonal matrix nearest to the gradient's momentum, so that no direction is learned
    slowly because others have larger gradients (Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon). Its steps are scaled to the root mean square of AdamW's (Liu
    et al., 2025, https://arxiv.org/abs/2502.16982, eq. 4), so one learning rate serves both.

    Args:
        model: its parameters; embeddings, heads, norms and biases are AdamW's, in the groups of
            `parameter_groups`.
        lr: of every group; each has its own ``"lr"`` for a schedule to set.
        weight_decay: of matrices, in both.
        betas: AdamW's.

    Raises:
        ValueError: a negative decay.
    """

    def __init__(
        self,
        model: WorldModel,
        *,
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        inside = [p for b in model.blocks for p in b.parameters() if p.ndim == 2 and p.requires_grad]
        taken = {id(parameter) for parameter in inside}
        groups = parameter_groups(model, weight_decay)
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in taken]
        self.adamw = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
        self.muon = torch.optim.Muon(inside, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [*self.adamw.param_groups, *self.muon.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step both, on gradients that are there."""
        self.adamw.step()
        self.muon.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both, by name."""
        return {"adamw": self.adamw.state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        self.adamw.load_state_dict(state_dict["adamw"])
        self.muon.load_state_dict(state_dict["muon"])
        self.param_groups = self._groups()
