"""The baselines: the same network written plainly, with the same weights and none of the package's tricks.

It has a dense mask and PyTorch's attention over every position, and the usual key-value cache, which keeps
every position and reads one at a time.
"""

import argparse
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from token_worldmodel import WorldModel, WorldModelConfig, visibility
from torch import Tensor, nn


def add_size(parser: argparse.ArgumentParser) -> None:
    """Options for the size of both models; by default that of the reference model."""
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=6)


def sized(args: argparse.Namespace, max_steps: int) -> WorldModelConfig:
    """The configuration of that size."""
    return WorldModelConfig(
        max_steps=max_steps,
        dim=args.dim,
        ffn_dim=4 * args.dim,
        num_layers=args.layers,
        num_heads=args.heads,
    )


class PlainLayer(nn.Module):
    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, ffn_dim)
        self.contract = nn.Linear(ffn_dim, dim)

    def forward(
        self, x: Tensor, mask: Tensor | None, cache: tuple[Tensor, Tensor, int] | None = None
    ) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(b, n, 3, self.heads, d // self.heads).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            keys, values, start = cache
            keys[:, :, start : start + n] = k
            values[:, :, start : start + n] = v
            k, v = keys[:, :, : start + n], values[:, :, : start + n]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self._drop(self.projection(out.transpose(1, 2).reshape(b, n, d)))
        return x + self._drop(self.contract(F.gelu(self.expand(self.ffn_norm(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class PlainWorldModel(nn.Module):
    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        c = self.config = model.config
        self.token_embeddings = nn.ModuleList(nn.Embedding(k, c.dim) for k in c.codes)
        self.action_embedding = nn.Embedding(c.num_actions, c.dim)
        self.slot_embedding = nn.Parameter(torch.empty(c.step_size, c.dim))
        self.step_embedding = nn.Parameter(torch.empty(c.max_steps, c.dim))
        layers = [PlainLayer(c.dim, c.num_heads, c.ffn_dim, c.dropout) for _ in range(c.num_layers)]
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(c.dim)
        self.heads = nn.ModuleList(nn.Linear(c.dim, k) for k in c.codes)
        self.register_buffer("mask", visibility(c, c.max_steps), persistent=False)
        self.load_state_dict(model.state_dict())

    def embed(self, tokens: Tensor, actions: Tensor) -> Tensor:
        parts = [table(tokens[..., level]) for level, table in enumerate(self.token_embeddings)]
        x = torch.stack([*parts, self.action_embedding(actions)], 2)
        x = x + self.slot_embedding + self.step_embedding[: tokens.shape[1], None]
        return F.dropout(x, self.config.dropout, self.training).flatten(1, 2)

    def forward(self, tokens: Tensor, actions: Tensor) -> list[Tensor]:
        x = self.embed(tokens, actions)
        mask = self.mask[: x.shape[1], : x.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x).unflatten(1, (tokens.shape[1], -1))
        return [self.heads[level](x[:, :, level - 1]) for level in range(self.config.num_levels)]

    def loss(self, tokens: Tensor, actions: Tensor) -> Tensor:
        total = torch.zeros(())
        for level, logits in enumerate(self(tokens, actions)):
            target = tokens[..., level]
            if level == 0:
                logits, target = logits[:, :-1], target[:, 1:]
            cross_entropy = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten())
            total = total + self.config.loss_weights[level] * cross_entropy
        return total

    @torch.no_grad()
    def dream_cached(self, tokens: Tensor, horizon: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Dream one step per ``next``, with a cache of every position; for the context it holds noise."""
        c = self.config
        batch, context, levels = tokens.shape
        shape = (batch, c.num_heads, (context + horizon + 1) * c.step_size, c.dim // c.num_heads)
        device = self.mask.device
        caches = [tuple(torch.randn(shape, device=device) for _ in range(2)) for _ in self.blocks]
        position = context * c.step_size - 1
        ids = torch.zeros(batch, dtype=torch.int64, device=device)
        while True:
            step = []
            for level in range(levels):
                slot = position % c.step_size
                table = self.action_embedding if slot == levels else self.token_embeddings[slot]
                x = (
                    table(ids)[:, None]
                    + self.slot_embedding[slot]
                    + self.step_embedding[position // c.step_size]
                )
                x = self._one(x, caches, position)
                position += 1
                logits = self.heads[level](self.norm(x[:, 0])).float()
                ids = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)[:, 0]
                step.append(ids)
            x = self.token_embeddings[-1](ids)[:, None] + self.slot_embedding[levels - 1]
            self._one(x + self.step_embedding[position // c.step_size], caches, position)
            position += 1
            yield torch.stack(step, -1)
            ids = torch.zeros_like(ids)

    def _one(self, x: Tensor, caches: list[tuple[Tensor, Tensor]], position: int) -> Tensor:
        mask = self.mask[position : position + 1, : position + 1]
        for block, (keys, values) in zip(self.blocks, caches, strict=True):
            x = block(x, mask, (keys, values, position))
        return x

    @torch.no_grad()
    def dream_rerun(self, tokens: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Dream one step, reading the whole window again for each token; tokens (B, C, L), actions (B, C)."""
        tokens = F.pad(tokens, (0, 0, 0, 1))
        actions = F.pad(actions, (0, 1))
        for level in range(self.config.num_levels):
            index = -2 if level == 0 else -1
            logits = self(tokens, actions)[level][:, index].float()
            tokens[:, -1, level] = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)[:, 0]
        return tokens[:, -1]
