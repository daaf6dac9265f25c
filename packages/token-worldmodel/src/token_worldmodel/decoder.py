"""Reading the model one pass at a time, remembering only what later positions can read.

Shape legend: as in `model`; n new positions, M remembered ones.
"""

import torch
from torch import Tensor

from .attention import attend, attend_few
from .masks import attention_plan, visibility
from .model import WorldModel


class Decoder:
    """A batch of plays being read by a frozen world model.

    Keys and values live in one buffer per layer, sized for the whole play when the decoder is built. Where
    no later step reads the finer tokens (``detail="none"``) a finished step leaves two entries, L0 and the
    action; otherwise all its positions. The step being read stands in order behind the finished ones.
    """

    def __init__(self, model: WorldModel, batch_size: int, num_steps: int) -> None:
        """Make room for ``num_steps`` steps of ``batch_size`` plays; ``model`` is what `frozen` returned."""
        config, weight = model.config, model.blocks[0].qkv.weight
        self.model = model
        self.step = 0
        forgets = config.mask == "hierarchical" and config.detail == "none"
        step_size = config.step_size
        self._kept_slots = [0, step_size - 1] if forgets else list(range(step_size))
        entries = len(self._kept_slots) * (num_steps - 1) + step_size
        shape = (batch_size, config.num_heads, entries, config.dim // config.num_heads)
        self._keys = [weight.new_empty(shape) for _ in model.blocks]
        self._values = [weight.new_empty(shape) for _ in model.blocks]
        # Bookkeeping of positions stays on the CPU, where looking at it never waits for a device.
        self._visible = visibility(config, num_steps)
        steps = torch.arange(num_steps)[:, None]
        self._kept = (steps * step_size + torch.tensor(self._kept_slots)).flatten()

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
        kept = self._kept[: num_steps * len(self._kept_slots)].to(tokens.device)
        seen = self._visible[num_positions - 1, :num_positions].nonzero()[:, 0].to(tokens.device)
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
                    x = block.update(x[:, -1:], attend_few(q[:, :, -1:], k[:, :, seen], v[:, :, seen], None))
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
        end_slot = first_slot + len(ids)
        finished = self.step * len(self._kept_slots)
        start, end = finished + first_slot, finished + end_slot
        bias = self._bias(first_slot, end_slot)
        tables = [*model.token_embeddings, model.action_embedding]
        x = torch.stack([table(i) for table, i in zip(tables[first_slot:end_slot], ids, strict=True)], 1)
        assert end <= self._keys[0].shape[2], (end, self._keys[0].shape)
        x = x + (model.slot_embedding[first_slot:end_slot] + model.step_embedding[self.step])
        for block, keys, values in zip(model.blocks, self._keys, self._values, strict=True):
            q, k, v = block.project(x).permute(2, 0, 3, 1, 4)
            keys[:, :, start:end] = k
            values[:, :, start:end] = v
            mask = bias
            if block is model.blocks[-1]:
                x, q, mask = x[:, -1:], q[:, :, -1:], None if bias is None else bias[-1:]
            x = block.update(x, attend_few(q, keys[:, :, :end], values[:, :, :end], mask))
            if end_slot == config.step_size and len(self._kept_slots) == 2:
                keys[:, :, finished + 1] = k[:, :, -1]
                values[:, :, finished + 1] = v[:, :, -1]
        if end_slot == config.step_size:
            self.step += 1
        return model.norm(x[:, 0])

    def _bias(self, first_slot: int, end_slot: int) -> Tensor | None:
        """What to add to the scores of these slots (n, M), or None where they see everything remembered."""
        base = self.step * self.model.config.step_size
        positions = self._kept[: self.step * len(self._kept_slots)]
        columns = torch.cat([positions, torch.arange(base, base + end_slot)])
        visible = self._visible[base + first_slot : base + end_slot, columns]
        if visible.all():
            return None
        buffer = self._keys[0]
        bias = torch.zeros(visible.shape, dtype=buffer.dtype).masked_fill_(~visible, -torch.inf)
        return bias.to(buffer.device, non_blocking=True)
