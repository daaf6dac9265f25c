"""The world model's state in the real game, for a policy that was trained on it in dreams."""

import copy

import torch
from torch import Tensor

from .config import whole
from .model import WorldModel, check_range, for_inference


class StateTracker:
    """Follows a batch of plays (episodes in progress) and returns the state of each before its next action.

    The state is the one that a dream from ``context`` real steps begins with: that of a window of the last
    ``context`` steps. When the window slides, every position in it changes, so it is read anew at each step:
    the cost per step depends on the context, not on the length of the play.
    """

    @torch.inference_mode(False)
    def __init__(
        self, model: WorldModel, batch_size: int, context: int, dtype: torch.dtype | None = None
    ) -> None:
        """Prepare to follow ``batch_size`` plays.

        Args:
            model: copied as it is now; later training does not affect the tracker.
            batch_size: number of plays, B.
            context: steps of the window, including the observed one; 1 to ``max_steps``.
            dtype: of the matrix products, under autocast too; by default that of the matrices.

        Raises:
            ValueError: a context the model cannot read, or a batch size below 1.
        """
        config = model.config
        if not (whole(context) and context <= config.max_steps):
            raise ValueError(f"context is {context}; give 1 to max_steps = {config.max_steps}")
        if not whole(batch_size):
            raise ValueError(f"batch_size is {batch_size}; give 1 or more plays to follow")
        device = model.step_embedding.device
        self._model = copy.deepcopy(for_inference(model, dtype))
        self._tokens = torch.zeros(batch_size, context, config.num_levels, dtype=torch.int64, device=device)
        self._actions = torch.zeros(batch_size, context, dtype=torch.int64, device=device)
        self._lengths = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._seen = self._acted = False

    @property
    def batch_size(self) -> int:
        """Number of plays that are followed."""
        return len(self._lengths)

    @torch.inference_mode(False)  # what is kept must be writable in the next call, whatever its mode
    @torch.no_grad()
    def observe(self, tokens: Tensor, begins: Tensor) -> Tensor:
        """Observe the next step of every play.

        Args:
            tokens: int64 (B, L).
            begins: bool (B,), true for plays whose first step this is; their past is forgotten.

        Returns:
            float32 (B, D), the state: zeros for a play that begins.

        Raises:
            ValueError: wrong shapes or dtypes, tokens out of the model's range, or a play that continues
                although its last action was not given; nothing is changed then.
        """
        config, plays = self._model.config, self.batch_size
        _check("tokens are", tokens, torch.int64, (plays, config.num_levels))
        _check("begins is", begins, torch.bool, (plays,))
        for level, codes in enumerate(config.codes):
            check_range(tokens[:, level], codes, f"tokens of level {level}")
        if not self._acted and not bool(begins.all()):  # in this order, so as not to wait for a GPU
            missing = (
                "call act between two observes" if self._seen else "begins is true at a play's first step"
            )
            raise ValueError(f"a play goes on whose last action is not known; {missing}")
        self._seen, self._acted = True, False
        self._lengths.masked_fill_(begins, 0)
        context = self._tokens.shape[1]
        full = self._lengths == context
        self._tokens = torch.where(full[:, None, None], self._tokens.roll(-1, 1), self._tokens)
        self._actions = torch.where(full[:, None], self._actions.roll(-1, 1), self._actions)
        now = torch.where(full, context - 1, self._lengths)
        self._tokens[torch.arange(len(now), device=now.device), now] = tokens
        self._lengths = now + 1
        if context == 1:
            return torch.zeros(plays, config.dim, dtype=torch.float32, device=now.device)
        # What follows a shorter play's last step in the window is its future, and so not seen.
        with torch.autocast(now.device.type, enabled=False):  # The model has its types already.
            hidden = self._model(self._tokens[:, :-1], self._actions[:, :-1]).hidden.float()
        past = hidden[torch.arange(len(now), device=now.device), (now - 1).clamp(min=0)]
        return past.masked_fill((now == 0)[:, None], 0.0)

    @torch.inference_mode(False)
    @torch.no_grad()
    def act(self, actions: Tensor) -> None:
        """Take note of the actions, int64 (B,), chosen at the step last observed.

        Raises:
            ValueError: nothing has been observed yet, a wrong shape or dtype, or an action out of the model's
                range.
        """
        if not self._seen:
            raise ValueError("no step has been observed yet; call observe before act")
        _check("actions are", actions, torch.int64, (len(self._lengths),))
        check_range(actions, self._model.config.num_actions, "actions")
        self._actions[torch.arange(len(actions), device=actions.device), self._lengths - 1] = actions
        self._acted = True


def _check(what: str, given: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    wanted = f"{str(dtype).removeprefix('torch.')} {shape}"
    if not isinstance(given, Tensor):  # a NumPy array has a shape and a dtype too, and they may look right
        raise ValueError(f"{what} of type {type(given).__name__}; give a torch tensor, {wanted}")
    if given.shape != shape or given.dtype != dtype:
        raise ValueError(f"{what} {given.dtype} {tuple(given.shape)}; give {wanted}")
