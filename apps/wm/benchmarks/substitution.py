"""What limits the agent? The same actor-critic in the real game, on states other than a run's tokens.

    uv run python apps/wm/benchmarks/substitution.py RUN [--sources ram tokens] [--batches 150]

Each batch is like one of the run's dreams: `train.agent.batch_size` stretches of `dream.horizon` steps,
trained on with the run's own settings. Only its source differs: the real emulator instead of the world model,
true rewards and ends instead of predicted ones, and as the state one of

    ram        every annotated RAM variable and its change since the step before, scaled to about one
    embedding  the run's encoder
    tokens     the run's encoder and quantizer: what its agent sees
    supervised tokens of an encoder trained on the RAM labels of 100,000 steps, with its own quantizer

If `tokens` learns like `ram`, the tokens hold what is needed and the dream is the limit; if not, the tokens
are. Prints the mean reward per step over each tenth of the batches, and the mean return of the episodes that
ended during it.
"""

import argparse
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from atari_data import PROTOCOLS, action_mask, environment_seeds, labels
from atari_data.playing import play
from atari_data.twins import Twin
from cnn_encoder import Encoder, embed, load_encoder, resolve_precision
from hrvq import HRVQ
from latent_ac import Actor, ActorCriticObjective, Critic, ImaginedBatch, log_prob
from rich.console import Console
from torch import Tensor
from wm.artifacts import frozen_quantizer
from wm.config import RunConfig, load_config
from wm.device import frozen
from wm.measure.fresh import fresh_play
from wm.measure.supervised import train_supervised
from wm.opened import RunAtHand
from wm.reporter import Reporter
from wm.run import Layout

SOURCES = ("ram", "supervised", "embedding", "tokens")
LABELLED_STEPS = 100_000
ENVS = 16
CPU = torch.device("cpu")
Step = tuple[Tensor, Tensor, np.ndarray, np.ndarray]  # features, actions; rewards, ends of the last actions


class Player:
    """Draws actions from the actor as it is at each call."""

    def __init__(self, actor: Actor, mask: Tensor, seed: int) -> None:
        self.actor, self.mask = actor, mask
        self.rng = torch.Generator().manual_seed(seed)

    def act(self, features: Tensor) -> Tensor:
        """Actions (B,) for features (B, F)."""
        with torch.no_grad():
            return self.actor.act(features, self.mask, generator=self.rng)


def supervised(run: RunAtHand, game: str, background: Tensor, seed: int) -> tuple[Encoder, HRVQ]:
    """Encoder and quantizer with the run's settings, the encoder trained on labels."""
    with fresh_play(run, game, LABELLED_STEPS, seed=seed, name="train") as labelled:
        encoder = train_supervised(run, labelled, background, seed=seed)
        quantizer = HRVQ(run.config.hrvq)
        quantizer.fit(labelled.embed(encoder, background), **asdict(run.config.quantize), seed=seed)
    return encoder, frozen(quantizer)


def from_pixels(
    layout: Layout, config: RunConfig, game: str, player: Player, source: str, seed: int
) -> Iterator[Step]:
    """The real game through an encoder and, unless `embedding`, codes; half of the environments at a time."""
    encoder, backgrounds = load_encoder(layout.encoder)
    quantizer, background = frozen_quantizer(layout, CPU), backgrounds[game]
    if source == "supervised":
        run = RunAtHand(config, layout, CPU, Reporter(Console()))
        encoder, quantizer = supervised(run, game, background, seed)
    encoder = frozen(encoder).to(CPU, resolve_precision("auto", CPU))
    seen: deque[tuple[Tensor, Tensor]] = deque()

    def policy(observations: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        features = embed(encoder, observations, background)
        if source != "embedding":
            features = quantizer.level_embeddings(quantizer.encode(features)).flatten(1)
        actions = player.act(features)
        seen.append((features, actions))
        return actions.numpy()

    seeds = environment_seeds(config.seed, ENVS)
    ticks = play(game, policy, seeds=seeds, protocol=PROTOCOLS[config.collect.protocol])
    while True:
        halves = [next(ticks), next(ticks)]
        (f0, a0), (f1, a1) = seen.popleft(), seen.popleft()
        rewards = np.concatenate([tick.rewards for tick in halves]).astype(np.float32)
        yield torch.cat([f0, f1]), torch.cat([a0, a1]), rewards, np.concatenate([t.over for t in halves])


def from_ram(config: RunConfig, game: str, player: Player) -> Iterator[Step]:
    """The real game as its annotated variables; no pixels at all."""
    protocol = PROTOCOLS[config.collect.protocol]
    rng = np.random.default_rng(config.seed)
    emulators = [Twin(game, int(seed), protocol) for seed in environment_seeds(config.seed, ENVS)]
    over = np.ones(ENVS, dtype=bool)
    before: np.ndarray | None = None
    actions = torch.zeros(ENVS, dtype=torch.int64)
    while True:
        rewards = np.zeros(ENVS, dtype=np.float32)
        ended = np.zeros(ENVS, dtype=bool)
        for i, twin in enumerate(emulators):
            if over[i]:
                twin.reset(int(rng.integers(1, protocol.noop_max + 1)))
            else:
                rewards[i] = twin.step(int(actions[i]))
                ended[i] = twin.emulator.game_over()
        ram = np.stack([twin.emulator.getRAM() for twin in emulators])
        values = np.stack(list(labels(game, ram).values()), 1).astype(np.float32) / 64 - 2
        change = np.zeros_like(values) if before is None else 8 * (values - before)
        change[over] = 0
        features = torch.from_numpy(np.concatenate([values, change], 1))
        actions = player.act(features)
        yield features, actions, rewards, ended
        over, before = ended, values


def batches(
    steps: Iterator[Step], size: int, horizon: int, mask: Tensor
) -> Iterator[tuple[ImaginedBatch, list[float]]]:
    """Real play cut into stretches, like dreams; with the returns of episodes just ended."""
    score, returns = np.zeros(ENVS), []
    last = next(steps)
    over = last[3]
    while True:
        parts = []
        for _ in range(max(1, size // ENVS)):
            features, actions, rewards, continues = [last[0]], [], [], []
            for _ in range(horizon):
                following = next(steps)
                actions.append(last[1])
                rewards.append(torch.from_numpy(following[2]))
                # The step after an end starts another episode: nothing continues into it.
                continues.append(torch.from_numpy((~(following[3] | over)).astype(np.float32)))
                features.append(following[0])
                score += following[2]
                returns += score[following[3]].tolist()
                score[following[3]] = 0
                last, over = following, following[3]
            parts.append([torch.stack(column) for column in (features, actions, rewards, continues)])
        joined = [torch.cat(columns, 1) for columns in zip(*parts, strict=True)]
        yield ImaginedBatch(*joined, mask), returns
        returns = []


def learn(source: str, layout: Layout, config: RunConfig, game: str, count: int, seed: int) -> None:
    """Train an agent on one kind of state and print its progress."""
    torch.manual_seed(seed)
    mask = torch.from_numpy(action_mask(game))
    codes = config.predictor.feature_dim
    width = {"embedding": config.encoder.embedding_dim, "tokens": codes, "supervised": codes}.get(source)
    if width is None:
        width = 2 * len(labels(game, np.zeros((1, 128), np.uint8)))
    actor = Actor(replace(config.actor, feature_dim=width, feature_blocks=()))
    critic = Critic(replace(config.critic, feature_dim=width, feature_blocks=()))
    learner = ActorCriticObjective(actor, critic, config.agent)
    fit = config.train.agent
    optimizer = torch.optim.AdamW(learner.parameters(), fit.learning_rate, fused=True, weight_decay=0.0)
    player = Player(actor, mask, seed)
    steps = (
        from_ram(config, game, player)
        if source == "ram"
        else from_pixels(layout, config, game, player, source, seed)
    )
    size, horizon = fit.batch_size // ENVS * ENVS, config.dream.horizon
    shuffle = torch.Generator().manual_seed(seed)
    rewards, returns, began = [], [], time.monotonic()
    for index, (batch, ended) in zip(range(count), batches(steps, size, horizon, mask), strict=False):
        with torch.no_grad():
            chosen = log_prob(actor(batch.features[:-1], mask), batch.actions)
        for part in learner.minibatches(replace(batch, log_probs=chosen), generator=shuffle):
            loss, _ = learner(part)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learner.parameters(), fit.clip)
            optimizer.step()
            learner.after_step()
        rewards.append(float(batch.rewards.mean()))
        returns += ended
        if (index + 1) % max(1, count // 10) == 0:
            played = (index + 1) * size * horizon
            mean = np.mean(rewards[-max(1, count // 10) :])
            whole = f"{np.mean(returns):.2f} ({len(returns)} episodes)" if returns else "- (none ended)"
            seconds = time.monotonic() - began
            print(
                f"{source:9s} {played:8d} steps  reward per step {mean:+.4f}  return {whole}  "
                f"{seconds:.0f} s",
                flush=True,
            )
            returns = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES)
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the emulators need the rest
    layout = Layout(options.run)
    config = load_config(layout.config)
    for source in options.sources:
        learn(source, layout, config, config.games[0], options.batches, options.seed)


if __name__ == "__main__":
    main()
