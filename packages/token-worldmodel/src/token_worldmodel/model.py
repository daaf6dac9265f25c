"""The transformer over tokens and actions, and how it is saved.

Shape legend: B batch, T steps, L levels, S positions per step (L + 1, or 1), N = T * S positions, D width,
H heads, E = D / H, K_l codes of level l.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._artifact import load_artifact, save_artifact
from ._weights import plain_weights, with_weights
from .attention import attend
from .chain import ChainLink
from .code_reader import CodeReader
from .config import WorldModelConfig
from .dropout import dropout
from .masks import attention_plan


@dataclass(frozen=True, slots=True)
class WorldModelOutput:
    """The output of the world model for a window.

    ``logits[0][:, t]`` predicts ``tokens[:, t + 1, 0]``, at the action of step t. For a finer level l,
    ``logits[l][:, t]`` predicts ``tokens[:, t, l]``, given the coarser tokens of the same step.
    """

    logits: tuple[Tensor, ...]  # per level (B, T, K_l)
    hidden: Tensor  # (B, T, D): output after the action of step t, from which L0 of the next is predicted

    @property
    def state(self) -> Tensor:
        """(B, T, D): what the model remembers before the action of step t is chosen.

        It is ``hidden`` of the step before, and zeros at the window's first step. Together with the step's
        tokens it is all a policy may know: the pair (h, z) of Dreamer (https://arxiv.org/abs/2301.04104).
        """
        return state_before(self.hidden)


def state_before(hidden: Tensor) -> Tensor:
    """`WorldModelOutput.state` of the hidden outputs (B, T, D)."""
    return F.pad(hidden[:, :-1], (0, 0, 1, 0))


def after_first(logits: Tensor, level: int) -> Tensor:
    """The part of a level's logits (B, T, K) that predicts ``tokens[:, 1:, level]``, (B, T - 1, K).

    L0 is predicted at the action of the step before, which is where its logits are; a finer token is
    predicted within its own step. The window's first step is left out: nothing predicts its L0, and there is
    no step before it to compare with.
    """
    return logits[:, :-1] if level == 0 else logits[:, 1:]


class TransformerBlock(nn.Module):
    """A pre-norm transformer layer in two halves, so that any form of attention fits between them."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.attention_norm = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.projection = nn.Linear(config.dim, config.dim)
        self.ffn_norm = nn.LayerNorm(config.dim)
        self.expand = nn.Linear(config.dim, config.ffn_dim)
        self.contract = nn.Linear(config.ffn_dim, config.dim)

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values of x (B, N, D), as (B, N, 3, H, E)."""
        # The cast does nothing in training; a model from `for_inference` may have narrower matrices than x.
        normed = self.attention_norm(x).to(self.qkv.weight.dtype)
        return self.qkv(normed).unflatten(-1, (3, self.num_heads, -1))

    def update(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add to x (B, N, D) the projected attention output (B, N, D), then the feed-forward branch."""
        x = x + dropout(self.projection(attended), self.dropout, self.training)
        normed = self.ffn_norm(x).to(self.expand.weight.dtype)
        return x + dropout(self.contract(F.gelu(self.expand(normed))), self.dropout, self.training)


class WorldModel(nn.Module):
    """Predicts the next step's tokens, coarse to fine, from the play so far."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        tables = [nn.Embedding(codes, config.dim) for codes in config.codes]
        self.token_embeddings = cast(Sequence[nn.Embedding], nn.ModuleList(tables))
        self.code_reader = CodeReader(config) if config.code_dim else None
        self.action_embedding = nn.Embedding(config.num_actions, config.dim)
        if config.position == "token":
            self.slot_embedding = nn.Parameter(torch.empty(config.step_size, config.dim))
        self.step_embedding = nn.Parameter(torch.empty(config.max_steps, config.dim))
        layers = [TransformerBlock(config) for _ in range(config.num_layers)]
        self.blocks = cast(Sequence[TransformerBlock], nn.ModuleList(layers))
        self.norm = nn.LayerNorm(config.dim)
        links = config.codes[:-1] if config.position == "step" else ()
        self.chain = cast(Sequence[ChainLink], nn.ModuleList(ChainLink(config, codes) for codes in links))
        heads = [nn.Linear(config.dim, codes) for codes in config.codes]
        self.heads = cast(Sequence[nn.Linear], nn.ModuleList(heads))
        self._initialise()

    def _initialise(self) -> None:
        """GPT-2's scheme: normal of deviation 0.02, on residual branches divided by sqrt(2 * layers).

        The embeddings of the chain have a deviation of 1, like the normalised state that they are added to.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                branch = name.endswith(("projection.weight", "contract.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * len(self.blocks)) if branch else 0.02)
        for link in self.chain:
            nn.init.normal_(link.embedding.weight)

    def set_codebooks(self, codebooks: Sequence[Tensor]) -> None:
        """Read tokens as these codes too, from now on; they are saved with the model.

        Args:
            codebooks: (K_l, ``code_dim``) for each level, coarse to fine, as `hrvq.HRVQ.codebooks`; copied.

        Raises:
            ValueError: the model reads none (``code_dim`` is 0) or codes of other shapes, or they are not
                finite.
        """
        if self.code_reader is None:
            raise ValueError(
                "this model reads tokens as names only; set code_dim to the width of the codes' vectors"
            )
        self.code_reader.set_codebooks(codebooks)

    def forward(self, tokens: Tensor, actions: Tensor) -> WorldModelOutput:
        """Read a window of play; in training mode with the configuration's dropout and token noise.

        Args:
            tokens: int64 (B, T, L), T at most ``max_steps``.
            actions: int64 (B, T), the action chosen after seeing the tokens of its step.

        Raises:
            ValueError: a shape, token or action that does not fit this model.
        """
        check_window(self.config, tokens, actions)
        num_steps = tokens.shape[1]
        plan = attention_plan(self.config, num_steps, tokens.device)
        if self.training and self.config.token_noise:
            tokens = add_noise(tokens, self.config.codes, self.config.token_noise)
        reads = self.read_codes(tokens)
        x = self.embed(tokens, actions, reads)
        for block in self.blocks:
            attended = attend(block.project(x), plan)
            if block is self.blocks[-1]:
                x, attended = self._read_out(x), self._read_out(attended)
            x = block.update(x, attended)
        *slots, hidden = self.norm(x).unflatten(1, (num_steps, -1)).unbind(2)
        before = [hidden, *slots]
        x = state_before(hidden)
        for level, link in enumerate(self.chain):
            x = link(x, tokens[..., level], reads[level] if reads else None)
            before.append(link.output_norm(x))
        return WorldModelOutput(
            logits=tuple(self.predict(x, level) for level, x in enumerate(before)), hidden=hidden
        )

    def _read_out(self, x: Tensor) -> Tensor:
        """Drop from (B, N, D) the finest tokens' positions: nothing is predicted from them."""
        if self.config.position == "step":
            return x
        x = x.unflatten(1, (-1, self.config.step_size))
        finest = self.config.num_levels - 1
        return torch.cat([x[:, :, :finest], x[:, :, finest + 1 :]], 2).flatten(1, 2)

    def read_codes(self, tokens: Tensor) -> list[Tensor]:
        """What `CodeReader.read` says of tokens (..., L), (..., D) per level; nothing without a reader."""
        return [] if self.code_reader is None else self.code_reader.read(tokens)

    def embed(self, tokens: Tensor, actions: Tensor, reads: Sequence[Tensor] = (), first: int = 0) -> Tensor:
        """The transformer's input (B, N, D) for tokens (B, T, L) and actions (B, T) from step ``first`` on.

        ``reads`` is that of `read_codes`; where a step is one position, the last of it is enough.
        """
        columns = [table(tokens[..., level]) for level, table in enumerate(self.token_embeddings)]
        steps = self.step_embedding[first : first + tokens.shape[1]]
        if self.config.position == "step":  # the last sum of codes holds the others
            x = sum([*columns, *reads[-1:]], self.action_embedding(actions)) + steps
        else:
            columns = [x + read for x, read in zip(columns, reads, strict=True)] if reads else columns
            x = torch.stack([*columns, self.action_embedding(actions)], 2)
            x = (x + self.slot_embedding + steps[:, None]).flatten(1, 2)
        return dropout(x, self.config.dropout, self.training)

    def predict(self, x: Tensor, level: int) -> Tensor:
        """Logits (..., K_level) from the normalised output (..., D) of the slot before that level."""
        head = self.heads[level]
        return head(x.to(head.weight.dtype))


def add_noise(tokens: Tensor, codes: Sequence[int], share: float) -> Tensor:
    """Tokens int64 (B, T, L), some of them replaced by random codes of their level.

    Each window has its own rate, drawn uniformly from 0 to twice ``share``, so that some windows stay nearly
    clean. A model trained on true tokens alone has never seen a mistake, and in a dream takes its first one
    for the truth; Bengio et al. (2015, https://arxiv.org/abs/1506.03099) mix in the model's own predictions
    instead, at the cost of sampling them.
    """
    rate = 2 * share * torch.rand(len(tokens), 1, 1, device=tokens.device)
    chance = torch.stack([torch.randint(k, tokens.shape[:2], device=tokens.device) for k in codes], -1)
    return torch.where(torch.rand(tokens.shape, device=tokens.device) < rate, chance, tokens)


def check_window(config: WorldModelConfig, tokens: Tensor, actions: Tensor) -> None:
    """Raise ValueError unless tokens (B, T, L) and actions (B, T) form a window that fits this model."""
    if tokens.ndim != 3 or tokens.shape[2] != config.num_levels:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}; "
            f"this model takes (batch, steps, {config.num_levels} levels)"
        )
    if tokens.dtype != torch.int64 or actions.dtype != torch.int64:
        raise ValueError(f"tokens are {tokens.dtype}, actions {actions.dtype}; give both as torch.int64")
    if actions.shape != tokens.shape[:2]:
        raise ValueError(
            f"actions have shape {tuple(actions.shape)}; "
            f"give one action for each of the {tuple(tokens.shape[:2])} steps"
        )
    if not 1 <= tokens.shape[1] <= config.max_steps:
        raise ValueError(
            f"the window has {tokens.shape[1]} steps; this model takes 1 to max_steps = {config.max_steps}"
        )
    for level, codes in enumerate(config.codes):
        check_range(tokens[..., level], codes, f"tokens of level {level}")
    check_range(actions, config.num_actions, "actions")


def check_range(ids: Tensor, count: int, name: str) -> None:
    """Raise ValueError unless all ids are in 0..count-1.

    Checked on a CPU only: on a GPU the check would wait for the device, and the embedding itself rejects an
    id out of range. It is left out of a compiled model too, which must not look at values.
    """
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in torch.aminmax(ids))
        if low < 0 or high >= count:
            raise ValueError(f"{name} range from {low} to {high}; this model knows 0 to {count - 1}")


def for_inference(model: WorldModel, dtype: torch.dtype | None = None) -> WorldModel:
    """The model for inference: no dropout, no gradients, its matrices in ``dtype``, by default as they are.

    Embeddings, norms and the residual stream are float32, or float64 if ``dtype`` is. What needs no cast is
    shared with the model, not copied, and changes if the model is trained further: copy the model first to
    prevent that. A model that is already in this form is returned unchanged.
    """
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper gives weights other names
    dtype = dtype or model.blocks[0].qkv.weight.dtype
    rest = torch.promote_types(dtype, torch.float32)
    linear = (module for module in model.modules() if isinstance(module, nn.Linear))
    narrow = {id(parameter) for module in linear for parameter in module.parameters()}
    kinds = {name: dtype if id(p) in narrow else rest for name, p in model.named_parameters()}
    held = model.named_parameters()
    if not model.training and all(p.dtype == kinds[name] and not p.requires_grad for name, p in held):
        return model
    copies: dict[int, Any] = {id(model.config): model.config}
    for name, parameter in model.named_parameters():
        copies[id(parameter)] = nn.Parameter(parameter.detach().to(kinds[name]), requires_grad=False)
    copies |= {id(buffer): buffer for buffer in model.buffers()}
    # This copies the modules and finds every parameter already copied: nothing is initialised twice.
    return copy.deepcopy(model, copies).eval()


def save_worldmodel(path: str | Path, model: WorldModel) -> None:
    """Write all that `load_worldmodel` needs to one file: the weights in float32, and the configuration.

    Raises:
        ValueError: the model is not a plain `WorldModel`, so `load_worldmodel` could not rebuild it.
    """
    save_artifact(path, plain_weights(model, WorldModel), kind="worldmodel", config=asdict(model.config))


def load_worldmodel(path: str | Path) -> WorldModel:
    """The model a `save_worldmodel` file holds, on the CPU, in evaluation mode.

    Raises:
        ValueError: not a readable world model file, or weights that do not fit its configuration.
    """
    tensors, config = load_artifact(path, kind="worldmodel")
    return with_weights(path, lambda: WorldModel(WorldModelConfig(**config)), tensors)
