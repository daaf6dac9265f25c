"""Running the model one pass at a time, keeping only what later positions can see.

Shape legend: as in `model`.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attend, attend_few
from .code_reader import CodeReader
from .config import WorldModelConfig
from .masks import attention_plan, detail_reach, remembered, visibility
from .model import WorldModel

GROWTH = 32
"""Buffers grow to a multiple of this many entries, so that a row of scores fills whole CPU registers."""


class CachedReader:
    """Reads a batch of sequences with a world model made by `for_inference`.

    Keys and values live in one buffer per layer: room for the finer tokens of as many steps as any position
    looks back, and two entries per step for L0 and the action (`entry_table`). A pass attends to the whole
    buffer under a bias that hides what must not be seen: unlike its filled part, the buffer is one contiguous
    operand of a matrix product. On a CPU, which spends most of a dream reading the buffers, they grow by a
    few steps at a time; elsewhere they have room for the whole sequence from the start.
    """

    def __init__(self, model: WorldModel, batch_size: int, num_steps: int) -> None:
        """Make room for ``batch_size`` sequences of ``num_steps`` steps. `for_inference` makes ``model``."""
        config, weight = model.config, model.blocks[0].qkv.weight
        self.model = model
        self.num_steps = num_steps
        self.step = 0
        self._entries = entry_table(config, num_steps)
        self._codes: Tensor | None = None  # the sum of the current step's codes so far
        self._bias = cache_bias(config, num_steps, weight.dtype, weight.device)
        empty = weight.new_empty(batch_size, config.num_heads, 0, config.dim // config.num_heads)
        self._keys, self._values = ([empty] * config.num_layers for _ in range(2))
        if weight.device.type != "cpu":
            self._make_room(num_steps)

    def _make_room(self, num_steps: int) -> None:
        """Let the buffers hold this many steps, and up to `GROWTH` entries more."""
        needed, held = max(self._entries[num_steps - 1].tolist()) + 1, self._keys[0].shape[2]
        if needed <= held:
            return
        entries = min(-(-needed // GROWTH) * GROWTH, self._bias.shape[-1])
        for buffers in (self._keys, self._values):
            for layer, kept in enumerate(buffers):
                buffers[layer] = F.pad(kept, (0, 0, 0, entries - held))

    def read_steps(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """Read whole steps at once, from the sequence's beginning: tokens (B, T, L), actions (B, T).

        Returns:
            The output after the last action, (B, D); float32, or float64 for a float64 model.
        """
        model, num_steps = self.model, tokens.shape[1]
        num_positions = num_steps * model.config.step_size
        plan = attention_plan(model.config, num_steps, tokens.device)
        self._make_room(num_steps)
        entries, positions, seen = kept_positions(model.config, num_steps, self.num_steps, tokens.device)
        unbiased = self._bias.new_zeros(1, len(seen))
        hidden = []
        # A few sequences at a time, so that the activations stay small.
        rows_at_once = max(1, 2**14 // num_positions)
        for start in range(0, tokens.shape[0], rows_at_once):
            rows = slice(start, start + rows_at_once)
            x = model.embed(tokens[rows], actions[rows], model.read_codes(tokens[rows]))
            for block, keys, values in zip(model.blocks, self._keys, self._values, strict=True):
                qkv = block.project(x)
                q, k, v = qkv.permute(2, 0, 3, 1, 4)
                keys[rows].index_copy_(2, entries, k.index_select(2, positions))
                values[rows].index_copy_(2, entries, v.index_select(2, positions))
                if block is model.blocks[-1]:
                    attended = attend_few(q[:, :, -1:], k[:, :, seen], v[:, :, seen], unbiased)
                    x = block.update(x[:, -1:], attended)
                else:
                    x = block.update(x, attend(qkv, plan))
            hidden.append(model.norm(x[:, 0]))
        self.step = num_steps
        return torch.cat(hidden)

    def read(self, ids: list[Tensor], first_slot: int) -> Tensor:
        """Read the next positions of the current step in one pass; the action ends the step.

        Args:
            ids: one int64 (B,) for each slot from ``first_slot`` on: tokens and, if read too, the action.
            first_slot: 0 for L0, up to L for the action.

        Returns:
            The output at the last of the positions, (B, D) as in `read_steps`.
        """
        model, config = self.model, self.model.config
        end_slot = first_slot + len(ids)
        tables = [*model.token_embeddings, model.action_embedding]
        columns = [table(i) for table, i in zip(tables[first_slot:end_slot], ids, strict=True)]
        if model.code_reader is not None:
            for new, level in enumerate(range(first_slot, min(end_slot, config.num_levels))):
                columns[new] = columns[new] + self._read_code(model.code_reader, ids[new], level)
        x = torch.stack(columns, 1)
        x = x + (model.slot_embedding[first_slot:end_slot] + model.step_embedding[self.step])
        output = self._pass(x, slice(first_slot, end_slot))
        self.step += end_slot == config.step_size
        return output

    def _read_code(self, reader: CodeReader, tokens: Tensor, level: int) -> Tensor:
        """What the current step's codes up to this level's tokens (B,) say, (B, D)."""
        self._codes = reader.extend(self._codes if level else None, tokens, level)
        return reader(self._codes)

    def _pass(self, x: Tensor, slots: slice) -> Tensor:
        """Take the positions x (B, Q, D) of the current step through the transformer; see `read`."""
        model = self.model
        assert self.step < self.num_steps, self.num_steps
        self._make_room(self.step + 1)
        entries = self._entries[self.step, slots].tolist()
        bias = self._bias[self.step, slots, : self._keys[0].shape[2]]
        for block, keys, values in zip(model.blocks, self._keys, self._values, strict=True):
            q, k, v = block.project(x).permute(2, 0, 3, 1, 4)
            for new, entry in enumerate(entries):
                keys[:, :, entry] = k[:, :, new]
                values[:, :, entry] = v[:, :, new]
            last = -1 if block is model.blocks[-1] else 0
            x = block.update(x[:, last:], attend_few(q[:, :, last:], keys, values, bias[last:]))
        return model.norm(x[:, 0])


class StepReader(CachedReader):
    """The same for a model to which a step is one position: only its action takes a pass.

    Tokens before it are links of the chain, from the state before the step on.
    """

    def __init__(self, model: WorldModel, batch_size: int, num_steps: int) -> None:
        super().__init__(model, batch_size, num_steps)
        self._known = model.step_embedding.new_zeros(batch_size, model.config.dim)
        self._tokens: list[Tensor] = []  # of the current step so far
        self._read: Tensor | None = None  # what their codes say

    def read_steps(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """As `CachedReader.read_steps`."""
        self._known = super().read_steps(tokens, actions)
        return self._known

    def read(self, ids: list[Tensor], first_slot: int) -> Tensor:
        """As `CachedReader.read`; the output at a token is what its chain link makes of it."""
        model, num_levels = self.model, self.model.config.num_levels
        tokens, action = ids[: num_levels - first_slot], ids[num_levels - first_slot :]
        output = self._known
        for level, token in enumerate(tokens, first_slot):
            if model.code_reader is not None:
                self._read = self._read_code(model.code_reader, token, level)
            if level < num_levels - 1:
                link = model.chain[level]
                self._known = link(self._known, token, self._read)
                output = link.output_norm(self._known)
            self._tokens.append(token)
        if action:
            step = torch.stack(self._tokens, -1)[:, None]
            reads = [] if self._read is None else [self._read[:, None]]
            output = self._pass(model.embed(step, action[0][:, None], reads, self.step), slice(None))
            self._known, self._tokens = output, []
            self.step += 1
        return output


def reader_for(model: WorldModel, batch_size: int, num_steps: int) -> CachedReader:
    """The reader for a model's kind of positions."""
    kind = StepReader if model.config.position == "step" else CachedReader
    return kind(model, batch_size, num_steps)


# Cached without limit: the tensors are small, and a recorded dream keeps reading those of its recording.
@cache
def kept_positions(
    config: WorldModelConfig, num_steps: int, room: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """For a context of ``num_steps`` steps in a buffer for ``room`` steps: the entries it fills, the position
    kept in each of them, and the positions that its last position sees; int64 (E,), (E,) and (K,).
    """
    # Of the positions that share an entry, the latest is kept.
    latest = {e: p for p, e in enumerate(entry_table(config, room)[:num_steps].flatten().tolist())}
    seen = visibility(config, num_steps, torch.device("cpu"))[-1].nonzero()[:, 0]
    return (
        torch.tensor(list(latest), device=device),
        torch.tensor(list(latest.values()), device=device),
        seen.to(device),
    )


@cache
def entry_table(config: WorldModelConfig, num_steps: int) -> Tensor:
    """Where in the buffer each slot of each step is kept, int64 (num_steps, S) on the CPU.

    The finer tokens of the last few steps come first, the newest overwriting the oldest, then L0 and the
    action of every step. Where a step is one position, it has one entry.
    """
    if config.position == "step":
        return torch.arange(num_steps, device="cpu")[:, None]
    finer = config.num_levels - 1
    memory = min(detail_reach(config, num_steps) + 1, num_steps)
    steps = torch.arange(num_steps, device="cpu")[:, None]
    detail = steps % memory * finer + torch.arange(finer, device="cpu")
    lasting = memory * finer + 2 * steps
    return torch.cat([lasting, detail, lasting + 1], 1)


@remembered
def cache_bias(config: WorldModelConfig, num_steps: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bias on a pass's scores over the buffer, (num_steps, S, entries): 0 where visible, else -inf.

    Row (t, s) is slot s of step t.
    """
    entries = entry_table(config, num_steps)
    visible = visibility(config, num_steps, entries.device)
    holds = entries.new_full((int(entries.max()) + 1,), -1)  # the position in each entry
    bias = torch.full((num_steps, config.step_size, len(holds)), -torch.inf, device=entries.device)
    positions = torch.arange(visible.shape[0], device=entries.device).view(num_steps, config.step_size)
    for step, own in enumerate(positions):
        holds[entries[step]] = own
        bias[step].masked_fill_(visible[own][:, holds] & (holds >= 0), 0.0)
    return bias.to(device, dtype)
