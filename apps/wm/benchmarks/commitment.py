"""What commitment weights do if the encoder is trained through the quantizer, next to the frozen pipeline.

    uv run python apps/wm/benchmarks/commitment.py [--data DIR] [--frames 20000] [--seeds 0 1]

One encoder over three games. All settings share data, batches and a warm start without a quantizer. `frozen`
continues without one and gets its codes by k-means at the end; the others apply the same objective to the
quantized embedding, with straight-through gradients and EMA codes. Prints a Markdown table for each seed, and
their mean.
"""

import argparse
import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from atari_data import FrameStore, RandomPolicy, collect, labels
from cnn_encoder import (
    ClipBatch,
    ContrastiveConfig,
    ContrastiveObjective,
    Encoder,
    EncoderConfig,
    MLPProbeConfig,
    Stage,
    StateLabels,
    embed,
    retention,
    stack_frames,
    state_labels,
)
from hrvq import HRVQ, HRVQConfig, metrics, sharing
from rich.console import Console
from torch import Tensor, nn
from wm.clips import ClipSampler
from wm.device import frozen
from wm.fit import fit
from wm.reporter import Reporter
from wm.sections import FitConfig

NUM_ENVS, CLIP, STRETCHES, CODES = 8, 40, 8, 256
VARIABLES = {
    "pong": ("ball_x", "ball_y", "player_y", "enemy_y"),
    "breakout": ("ball_x", "ball_y", "player_x"),
    "ms_pacman": ("player_x", "player_y", "enemy_blinky_x", "enemy_blinky_y"),
}
SCHEDULE, UNIFORM = (0.05, 0.25, 0.60), (0.30, 0.30, 0.30)
# The loss is a mean over the 384 dimensions of a unit vector; times 384 it is the squared distance itself.
SETTINGS: dict[str, tuple[float, ...] | None] = {
    "frozen": None,
    "none": (0.0, 0.0, 0.0),
    "schedule": SCHEDULE,
    "uniform": UNIFORM,
    "schedule x384": tuple(384 * w for w in SCHEDULE),
    "uniform x384": tuple(384 * w for w in UNIFORM),
}
# The weights with which docs/results/quantizer.md was measured.
OBJECTIVE = ContrastiveConfig(layout_bands=0, layout_weight=3.0, picture_weight=0.0, reward_weight=0.5)
WARM_START = FitConfig(steps=250, learning_rate=1e-3, warmup=50, weight_decay=1e-2, schedule="constant")
Measured = dict[str, Tensor]  # a row of the table and its numbers
Games = dict[str, Tensor]  # embeddings by game


@dataclass(frozen=True)
class Play:
    store: FrameStore
    state: StateLabels

    def embed(self, encoder: Encoder, background: Tensor) -> Tensor:
        rows = np.array_split(np.arange(len(self.store)), -(-len(self.store) // 256))
        return embed(encoder, map(self.store.stacks, rows), background)


def open_plays(directory: Path, seed: int, steps: int) -> dict[str, Play]:
    """Every game's play, collected first if it is missing."""
    plays = {}
    for game, variables in VARIABLES.items():
        path = directory / f"{game}_{seed}"
        if not path.exists():
            policy = RandomPolicy(game, seed, NUM_ENVS)
            collect(path, game, steps, policy, seed=seed, num_envs=NUM_ENVS, ram=True)
        store = FrameStore.open(path)
        found = labels(game, np.asarray(store.ram))
        plays[game] = Play(store, state_labels({name: found[name] for name in variables}, game=game))
    return plays


class QuantizedEncoder(nn.Module):
    """An encoder, as the objective sees it, that returns the quantized embedding; remembers the last."""

    def __init__(self, encoder: Encoder, quantizer: HRVQ) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.config = encoder, quantizer, encoder.config

    def embed_clips(self, clips: Tensor, background: Tensor | None = None) -> Tensor:
        embeddings = self.encoder.embed_clips(clips, background)
        self.embeddings, self.found = embeddings.detach(), self.quantizer(embeddings)
        return self.found.quantized


class ThroughQuantizer(nn.Module):
    """The encoder's objective, applied to the quantized embedding, plus the commitment loss."""

    def __init__(self, objective: ContrastiveObjective, quantizer: HRVQ) -> None:
        super().__init__()
        self.objective, self.quantized = objective, QuantizedEncoder(objective.encoder, quantizer)
        objective.encoder = self.quantized  # type: ignore[assignment]

    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, values = self.objective(batch)
        return loss + self.quantized.found.commitment_loss.sum(), values

    def after_step(self) -> None:
        self.objective.after_step()
        self.quantized.quantizer.update(self.quantized.embeddings, self.quantized.found.tokens)


class Experiment:
    """All settings of one seed: a shared warm start, then each by itself."""

    def __init__(self, options: argparse.Namespace, seed: int, data: Path, folder: Path) -> None:
        self.options, self.seed, self.folder = options, seed, folder
        self.train = open_plays(data, seed=1, steps=options.frames)
        self.test = open_plays(data, seed=2, steps=options.frames // 2)
        stores = {game: play.store for game, play in self.train.items()}
        self.backgrounds = {game: torch.from_numpy(store.mean_frame()) for game, store in stores.items()}
        self.sampler = ClipSampler(
            stores,
            self.backgrounds,
            length=CLIP,
            batch_size=STRETCHES,
            seed=seed,
            validates=lambda ids: np.zeros(len(ids), bool),  # the test uses other play
            device=torch.device("cpu"),
        )
        rng = torch.Generator().manual_seed(seed)
        encoder = Encoder(EncoderConfig(), generator=rng)
        self.start = ContrastiveObjective(encoder, OBJECTIVE, generator=rng)
        self._fit(self.start, "warm start", 0, replace(WARM_START, steps=options.warm_start))

    def _fit(self, objective: nn.Module, name: str, first: int, config: FitConfig) -> None:
        fit(
            objective,
            lambda step: self.sampler.batch(first + step),
            config,
            stage=name,
            seed=self.seed,
            device=torch.device("cpu"),
            reporter=Reporter(Console(stderr=True)),
            checkpoint=self.folder / f"{self.seed} {name}.pt",
            epoch_size=self.sampler.num_clips,
        )

    @torch.no_grad()
    def _some_embeddings(self) -> Tensor:
        batches = map(self.sampler.batch, range(20))
        parts = [self.start.encoder(stack_frames(b.frames), b.background.unsqueeze(1)) for b in batches]
        return torch.cat(parts).flatten(0, 1)

    def run(self, name: str, weights: tuple[float, ...] | None) -> Measured:
        objective, quantizer = copy.deepcopy(self.start), None
        encoder = objective.encoder
        config = replace(WARM_START, steps=self.options.steps, schedule="cosine")
        if weights is None:
            self._fit(objective, name, self.options.warm_start, config)
        else:
            quantizer = HRVQ(HRVQConfig(dim=384, decay=0.99, commitment_weights=weights, seed=self.seed))
            quantizer.initialize(self._some_embeddings())
            self._fit(ThroughQuantizer(objective, quantizer), name, self.options.warm_start, config)
        encoder, sides = frozen(encoder), (self.train, self.test)
        train, test = ({g: p.embed(encoder, self.backgrounds[g]) for g, p in s.items()} for s in sides)
        refitted = HRVQ(HRVQConfig(dim=384, seed=self.seed))
        refitted.fit(learned := torch.cat(list(train.values())))
        if quantizer is None:
            print(frozen_encoder_ignores_weights(learned, self.seed) + "\n", flush=True)
        codes = {"the quantizer": frozen(quantizer or refitted), "codes fitted anew": frozen(refitted)}
        return self._retained(train, test, codes) | self._described(train, test, codes)

    def _retained(self, train: Games, test: Games, codes: dict[str, HRVQ]) -> Measured:
        """What probes read from the embedding and from the sum of the codes."""
        found = []
        for game, play in self.train.items():
            sides = train[game], test[game]
            decoded = {name: [q.decode(q.encode(z)) for z in sides] for name, q in codes.items()}
            stages = [Stage("the embedding", *sides), *(Stage(name, *pair) for name, pair in decoded.items())]
            config = MLPProbeConfig(num_steps=500)
            found += [(game, r) for r in retention(stages, play.state, self.test[game].state, config)]
        rows = Measured()
        for game, r in found:
            if r.stage == "the quantizer":
                rows[f"{game} {r.variable}: R2, pixels"] = torch.tensor([r.mlp_r2, r.mlp_error])
        for stage in ("the embedding", *codes):
            r2 = [r.mlp_r2 for _, r in found if r.stage == stage]
            rows[f"mean R2, {stage}"] = torch.tensor([r2]).mean(1)
        return rows

    def _described(self, train: Games, test: Games, codes: dict[str, HRVQ]) -> Measured:
        """How well codes represent embeddings, how evenly they are used, which games share them; by level."""
        rows, z = Measured(), torch.cat(list(test.values()))
        for name, quantizer in codes.items():
            error = metrics.distortion(z, quantizer.level_embeddings(quantizer.encode(z)))
            rows[f"explained variance, {name}"] = 1 - error / z.var(0, correction=0).sum()
        learned, tokens = (codes["the quantizer"].encode(x) for x in (torch.cat(list(train.values())), z))
        rows["usage"] = metrics.usage(learned, CODES)
        rows["perplexity"] = metrics.perplexity(learned, CODES)
        games = torch.cat([torch.full((len(x),), index) for index, x in enumerate(test.values())])
        ids = torch.from_numpy(np.concatenate([play.store.episode_ids for play in self.test.values()]))
        episodes = ids.long() + games * 1_000_000
        rows["persistence"] = metrics.persistence(tokens, episodes)
        rows["shared by all games"] = sharing.shared_code_share(tokens, games, CODES, at_least=1e-4)
        divergence = sharing.jensen_shannon(tokens, games, CODES).sum((1, 2))
        rows["Jensen-Shannon, bits"] = divergence / (len(test) * (len(test) - 1))
        information = torch.stack(sharing.mutual_information(tokens, games, CODES, blocks=episodes), 1)
        for level, interval in enumerate(information):
            rows[f"information of L{level} about the game, bits; 95 %"] = interval
        return rows


def frozen_encoder_ignores_weights(embeddings: Tensor, seed: int) -> str:
    """Train codes on fixed embeddings with each setting's weights, and count the tokens that differ."""
    outputs = []
    for weights in filter(None, SETTINGS.values()):
        quantizer = HRVQ(HRVQConfig(dim=384, decay=0.99, commitment_weights=weights, seed=seed)).train()
        rng = torch.Generator().manual_seed(seed)
        for _ in range(50):
            quantizer.update(embeddings[torch.randint(len(embeddings), (320,), generator=rng)])
        outputs.append(quantizer(embeddings[::10]))
    first = outputs[0].tokens
    differ = [f"{int((x.tokens != first).sum())} (loss {x.commitment_loss.sum():.2g})" for x in outputs]
    return f"frozen encoder, seed {seed}: tokens that differ, of {first.numel()}: {', '.join(differ)}"


def table(runs: dict[str, list[Measured]]) -> str:
    """Markdown: a row per measure, a column per setting, in each cell the mean over its runs."""
    lines = ["| | " + " | ".join(runs) + " |", "|---" * (len(runs) + 1) + "|"]
    for row in next(iter(runs.values()))[0]:
        cells = [torch.stack([found[row] for found in seeds]).mean(0).tolist() for seeds in runs.values()]
        lines.append(f"| {row} | " + " | ".join(" / ".join(f"{v:.3g}" for v in c) for c in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of GAME_1 and GAME_2 (test), played if missing")
    parser.add_argument("--frames", type=int, default=20_000, help="steps per game, and half as many to test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--warm-start", type=int, default=250, help="steps that all settings share")
    parser.add_argument("--steps", type=int, default=350, help="steps after the warm start")
    options = parser.parse_args()
    runs: dict[str, list[Measured]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            experiment = Experiment(options, seed, options.data or Path(folder), Path(folder))
            for name, weights in SETTINGS.items():
                runs[name].append(experiment.run(name, weights))
            print(f"seed {seed}\n\n{table({name: found[-1:] for name, found in runs.items()})}\n", flush=True)
    print(f"mean of {len(options.seeds)} seeds\n\n{table(runs)}", flush=True)


if __name__ == "__main__":
    main()
