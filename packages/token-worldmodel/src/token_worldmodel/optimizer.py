"""Optimizers: AdamW, or Muon for the matrices inside and AdamW for the rest."""

from collections.abc import Callable
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
    decays = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
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
        ValueError: an unknown kind, or whatever these two reject.
    """
    if kind not in ("adamw", "muon"):
        raise ValueError(f"kind is {kind!r}; choose adamw or muon")
    if kind == "muon":
        return MuonAdamW(model, lr=lr, weight_decay=weight_decay, betas=betas)
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=betas, fused=True)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the matrices inside a world model's blocks and chain, AdamW for all else, as one optimizer.

    Muon steps along the orthogonal matrix nearest to the gradient's momentum, so that no direction is learned
    slowly because others have larger gradients (Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon). Its steps are scaled to the root mean square of AdamW's (Liu
    et al., 2025, https://arxiv.org/abs/2502.16982, eq. 4), so one learning rate serves both. It treats
    a block's queries, keys and values as one matrix, as the model does.

    Args:
        model: its parameters; all but the matrices of its blocks and its chain are AdamW's, in the groups
            of `parameter_groups`.
        lr: learning rate of every group; each has its own ``"lr"`` for a schedule to set.
        weight_decay: of the matrices, in both optimizers.
        betas: AdamW's.

    Raises:
        ValueError: a negative decay, or no matrix inside requires a gradient.
    """

    def __init__(
        self,
        model: WorldModel,
        *,
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        within = {id(p) for part in (*model.blocks, *model.chain) for p in part.parameters()}
        groups = parameter_groups(model, weight_decay)
        matrices = groups[0]["params"]
        inside = [matrix for matrix in matrices if id(matrix) in within]
        if not inside:
            raise ValueError("no matrix inside the model requires a gradient; use AdamW for the rest")
        groups[0]["params"] = [matrix for matrix in matrices if id(matrix) not in within]
        self.adamw = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
        self.muon = torch.optim.Muon(inside, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [*self.adamw.param_groups, *self.muon.param_groups]

    def __getstate__(self) -> dict[str, Any]:
        """All attributes, for a copy; PyTorch's own optimizers keep only groups and state.

        All but the ``step`` that a scheduler puts on the instance: in a copy it would step the original.
        """
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Only the model's own groups are accepted.

        Raises:
            ValueError: it is any other group.
        """
        if not any(param_group is own for own in self._groups()):
            raise ValueError("MuonAdamW learns the parameters of one model; give those of others to AdamW")
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Step both, on the present gradients or those ``closure`` computes; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.adamw.step()
        self.muon.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' state, by name."""
        return {"adamw": self.adamw.state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is another optimizer's state. Nothing is changed then, nor by any other error.
        """
        if state_dict.keys() != {"adamw", "muon"}:
            raise ValueError(f"the state holds {', '.join(state_dict)}; give the state of a MuonAdamW")
        before = self.adamw.state_dict()
        self.adamw.load_state_dict(state_dict["adamw"])
        try:
            self.muon.load_state_dict(state_dict["muon"])
        except Exception:  # PyTorch's own for a damaged part is a KeyError
            self.adamw.load_state_dict(before)
            raise
        finally:
            self.param_groups = self._groups()  # loading makes new ones
