"""Reading the model one pass at a time, remembering only what later positions can read.

Shape legend: as in `model`; n new positions, M remembered ones.
"""

from functools import lru_cache

import torch
from torch import Tensor

from .attention import attend, attend_few
from .config import WorldModelConfig
from .masks import attention_plan, visibility
from .model import WorldModel


class Decoder:
    """A batch of plays being read by a frozen world model.

    Keys and values live in one buffer per layer, sized for the whole play when the decoder is built. Where
    no later step reads the finer tokens (``detail="none"``) a finished step leaves two entries, L0 and the
    action; otherwise all its positions. The step being read stands in order behind the finished ones.

    Every pass attends to the whole buffer under a bias that hides what is not there yet: a buffer is
    one contiguous operand of a matrix product, its filled part is not, and shapes never change.
    """

    def __init__(self, model: WorldModel, batch_size: int, num_steps: int) -> None:
        """Make room for ``num_steps`` steps of ``batch_size`` plays; ``model`` is what `frozen` returned."""
        config, weight = model.config, model.blocks[0].qkv.weight
        self.model = model
        self.num_steps = num_steps
        self.step = 0
        self._kept = kept_slots(config)
        self._bias = cache_bias(config, num_steps, weight.dtype, weight.device)
        shape = (batch_size, config.num_heads, self._bias.shape[-1], config.dim // config.num_heads)
        self._keys = [weight.new_zeros(shape) for _ in model.blocks]
        self._values = [weight.new_zeros(shape) for _ in model.blocks]

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values."""
        return 2 * sum(keys.nbytes for keys in self._keys)

    def read_steps(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """Read whole steps at once, from the play's beginning: tokens (B, T, L), actions (B, T).

        Returns:
            The output after the last action, float32 (B, D).
        """
        model, num_steps = self.model, tokens.shape[1]
        num_positions = num_steps * model.config.step_size
        plan = attention_plan(model.config, num_steps, tokens.device)
        positions = torch.arange(num_positions, device=tokens.device).view(num_steps, -1)
        kept = positions[:, list(self._kept)].flatten()
        seen = plan.visible[-1].nonzero()[:, 0]
        unbiased = self._bias.new_zeros(1, len(seen))
        hidden = []
        # A few plays at a time, so that the activations stay small.
        rows_at_once = max(1, 2**14 // num_positions)
        for start in range(0, tokens.shape[0], rows_at_once):
            rows = slice(start, start + rows_at_once)
            x = model.embed(tokens[rows], actions[rows])
            for block, keys, values in zip(model.blocks, self._keys, self._values, strict=True):
                qkv = block.project(x)
                q, k, v = qkv.permute(2, 0, 3, 1, 4)
                keys[rows, :, : len(kept)] = k[:, :, kept]
                values[rows, :, : len(kept)] = v[:, :, kept]
                if block is model.blocks[-1]:
                    attended = attend_few(q[:, :, -1:], k[:, :, seen], v[:, :, seen], unbiased)
                    x = block.update(x[:, -1:], attended)
                else:
                    x = block.update(x, attend(qkv, plan))
            hidden.append(model.norm(x[:, 0]))
        self.step = num_steps
        return torch.cat(hidden)

    def read(self, ids: list[Tensor], first_slot: int) -> Tensor:
        """Read the next positions of the current step in one pass; the action's ends the step.

        Args:
            ids: one int64 (B,) for each slot from ``first_slot`` on: tokens, and last of all the action.
            first_slot: 0 for L0, up to L for the action.

        Returns:
            The output at the last of the positions, float32 (B, D).
        """
        model, config = self.model, self.model.config
        assert self.step < self.num_steps, self.num_steps
        end_slot = first_slot + len(ids)
        ends_step = end_slot == config.step_size
        finished = len(self._kept) * self.step
        start, end = finished + first_slot, finished + end_slot
        bias = self._bias[self.step, first_slot:end_slot]
        tables = [*model.token_embeddings, model.action_embedding]
        x = torch.stack([table(i) for table, i in zip(tables[first_slot:end_slot], ids, strict=True)], 1)
        x = x + (model.slot_embedding[first_slot:end_slot] + model.step_embedding[self.step])
        for block, keys, values in zip(model.blocks, self._keys, self._values, strict=True):
            q, k, v = block.project(x).permute(2, 0, 3, 1, 4)
            keys[:, :, start:end] = k
            values[:, :, start:end] = v
            last = -1 if block is model.blocks[-1] else 0
            x = block.update(x[:, last:], attend_few(q[:, :, last:], keys, values, bias[last:]))
            if ends_step:  # The entries of what is forgotten are free again: the action's moves up.
                action_entry = finished + len(self._kept) - 1
                keys[:, :, action_entry] = k[:, :, -1]
                values[:, :, action_entry] = v[:, :, -1]
        self.step += ends_step
        return model.norm(x[:, 0])


def kept_slots(config: WorldModelConfig) -> tuple[int, ...]:
    """Slots of a finished step that later steps read."""
    forgets = config.mask == "hierarchical" and config.detail == "none"
    return (0, config.num_levels) if forgets else tuple(range(config.step_size))


@lru_cache(maxsize=16)
def cache_bias(config: WorldModelConfig, num_steps: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What a pass adds to its scores over the buffer, (num_steps, S, entries): 0 where it sees, else -inf.

    Row (t, s) is slot s of step t. It meets the kept entries of t finished steps, then those of its own.
    """
    step_size, kept = config.step_size, kept_slots(config)
    visible = visibility(config, num_steps)
    bias = torch.full((num_steps, step_size, len(kept) * (num_steps - 1) + step_size), -torch.inf)
    positions = torch.arange(num_steps * step_size).view(num_steps, step_size)
    for step, own in enumerate(positions):
        held = torch.cat([positions[:step, list(kept)].flatten(), own])
        bias[step, :, : len(held)].masked_fill_(visible[own][:, held], 0.0)
    return bias.to(device, dtype)
