"""The app's own settings: one dataclass per table of a run's TOML that no package defines."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

from wm.checks import require, require_temperature, require_value, require_within
from wm.device import Precision


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Collecting real play, per game.

    Args:
        num_steps: agent steps (actions; four frames each).
        num_envs: emulators stepped together.
        policy: ``random`` draws from the game's own actions; ``sticky_random`` repeats its last action with
            probability ``repeat``, and so gets further from the start; ``imported`` plays nothing, because
            `wm import` has already put the play there, and the game need not be one of ALE's.
        repeat: probability with which ``sticky_random`` repeats its last action.
        protocol: name of the emulator's protocol.
        validation_fraction: share of the rows, in whole episodes, held out from all training; nothing is held
            out if there is only one episode.
    """

    num_steps: int = 20_000
    num_envs: int = 16
    policy: Literal["random", "sticky_random", "imported"] = "random"
    repeat: float = 0.75
    protocol: Literal["atari100k", "ale_v5"] = "atari100k"
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        require_within(self, 100, "num_steps", most=10**9)
        require_within(self, 1, "num_envs", most=512)
        require_value(0 <= self.repeat < 1, "repeat", self.repeat, "at least 0 and below 1")
        share = self.validation_fraction
        require_value(0 < share < 1, "validation_fraction", share, "a share between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """Fitting the quantizer to frozen embeddings.

    Args:
        epochs: passes over the embeddings, per level.
        refine: further passes that move all levels together (`HRVQ.fit`): the error with all levels falls,
            that with the first ones alone rises. Codes that continue from another round are not refined
            again; `hrvq.joint` keeps them refined.
        batch_size: vectors in a batch.
        alternatives: other tokens that are kept for each frame (`hrvq.alternative_tokens`). In training the
            world model, the predictors and the dreams' beginnings read each frame as its own tokens or one of
            these, so that they learn which codes mean the same.
    """

    epochs: int = 5
    refine: int = 0
    batch_size: int = 4096
    alternatives: int = 0

    def __post_init__(self) -> None:
        require_within(self, 1, "epochs", "batch_size")
        require_within(self, 0, "refine", "alternatives")


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Lengths of the stretches of real play that make up a batch, in steps.

    Args:
        clip: consecutive steps in a clip, whose moments the encoder learns to tell apart; at least 4.
        length: steps in a world model window.
        game_weights: relative weights with which the world model, the predictors and the dreams sample the
            run's games, in the order of ``games``; equal by default.
    """

    clip: int = 40
    length: int = 64
    game_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_within(self, 4, "clip")
        require_within(self, 2, "length")
        positive = all(weight > 0 for weight in self.game_weights) and sum(self.game_weights) < math.inf
        require_value(positive, "game_weights", list(self.game_weights), "finite numbers above 0")


@dataclass(frozen=True, kw_only=True)
class DreamConfig:
    """The dreams that the agent practises in.

    Args:
        context: real steps before a dream starts.
        horizon: imagined steps per dream.
        temperature: of sampling the dreamed tokens; 0 is greedy.
        life_loss_ends: whether losing a life counts as the end, so that the agent learns to keep its lives.
        hidden_state: whether actor and critic see not only the tokens but also the world model's state, its
            summary of earlier steps. In the real game the world model then has to run alongside the agent.
    """

    context: int = 8
    horizon: int = 15
    temperature: float = 1.0
    life_loss_ends: bool = True
    hidden_state: bool = False

    def __post_init__(self) -> None:
        require_within(self, 1, "context", "horizon")
        require_temperature(self.temperature)

    @property
    def memory(self) -> int:
        """How many steps back the world model sees in the real game: as many as in the middle of a dream."""
        return self.context + self.horizon // 2


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Play in the real game at the end of training.

    Args:
        episodes: whole episodes per game, for the agent and the random agent each.
        num_envs: emulators stepped together.
        temperature: of the agent's action sampling; 0 is greedy.
        epsilon: share of the agent's actions replaced by uniformly random ones. Without these, a policy that
            is certain of a move that changes nothing is stuck forever: in Breakout it may never serve.
            Dopamine and SPR use 0.001.
        max_frames: emulated frames after which an episode is cut off; 108000 (30 minutes) is the standard.
    """

    episodes: int = 30
    num_envs: int = 16
    temperature: float = 1.0
    epsilon: float = 0.0
    max_frames: int = 108_000

    def __post_init__(self) -> None:
        require_within(self, 1, "episodes")
        require_within(self, 1, "num_envs", most=512)
        require_temperature(self.temperature)
        require_within(self, 0, "epsilon", most=1)
        require_within(self, 100, "max_frames")

    def changed(self, **asked: Any) -> Self:
        """A copy with the values asked for; None leaves a value as it is."""
        return replace(self, **{name: value for name, value in asked.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class ChooseConfig:
    """Which round's agent becomes the run's agent, in a run of several rounds.

    Args:
        rounds: number of rounds, counted back from the last, whose agents play so that the best one is
            chosen and evaluated (at most all rounds); 1 takes the last agent without any such play.
        episodes: whole games that each of them plays, at ``evaluate.temperature`` and ``evaluate.epsilon``,
            from seeds that neither training nor evaluation uses. They are real play in addition to
            ``collect.num_steps``, and are counted as such.
        max_frames: emulated frames after which a game is cut off.
    """

    rounds: int = 1
    episodes: int = 32
    max_frames: int = 108_000

    def __post_init__(self) -> None:
        require_within(self, 1, "rounds", "episodes")
        require_within(self, 100, "max_frames")


Part = Literal["encoder", "hrvq", "worldmodel", "agent"]
PARTS: tuple[Part, ...] = get_args(Part)
"""The parts that an agent's play depends on, in the order in which they are trained."""


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """Which trained parts a run takes over from another run, for example one of other games.

    Args:
        run: directory of that run; empty to start from scratch.
        parts: the last part taken, along the pipeline (``hrvq``: encoder and codes); the later parts are
            trained from scratch. Codes fitted to other games suit a new one badly, so by default only the
            encoder is taken.
        encoder_steps: optimiser steps for which the encoder taken is trained further; any codes taken then
            follow it. 0 keeps encoder and codes as they are. World model and agent, if taken, are always
            trained further.
    """

    run: str = ""
    parts: Part = "encoder"
    encoder_steps: int = 500

    def __post_init__(self) -> None:
        require_within(self, 0, "encoder_steps")

    @property
    def taken(self) -> tuple[Part, ...]:
        """The parts taken, in order."""
        return PARTS[: PARTS.index(self.parts) + 1] if self.run else ()


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a stage is optimised.

    Args:
        steps: optimiser steps; with 0 their number follows from ``epochs``.
        epochs: passes over the training rows; only used if ``steps`` is 0.
        batch_size: stretches, windows or dreams in a batch.
        accumulation: batches whose gradients are averaged for one optimiser step.
        learning_rate: peak learning rate, reached after ``warmup`` steps.
        warmup: optimiser steps over which the learning rate rises linearly from 0.
        schedule: after the warm-up, a cosine decay to a tenth of the peak, or constant at the peak.
        weight_decay: only on matrices in stages that tell them apart.
        betas: decay rates of AdamW's moments.
        clip: gradient norm above which the gradient is clipped; 0 for no clipping.
        precision: arithmetic of the forward pass; ``auto`` is bfloat16 where the hardware supports it.
        log_every: steps between lines of metrics.
        compile: run the step through torch.compile. Compiling takes a minute or two, and on a CPU it gains
            nothing (0.98 of the uncompiled speed, for the 11M world model in bfloat16).
    """

    steps: int = 1000
    epochs: float = 0.0
    batch_size: int = 32
    accumulation: int = 1
    learning_rate: float = 3e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    precision: Precision = "auto"
    log_every: int = 20
    compile: bool = False

    def __post_init__(self) -> None:
        require_within(self, 0, "steps", "epochs", "warmup", "weight_decay", "clip")
        require_within(self, 1, "batch_size", "accumulation", "log_every")
        require_value(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")
        require(self.steps != 0 or self.epochs != 0, "steps and epochs are both 0; give one of them")
        decays = all(0 <= beta < 1 for beta in self.betas)
        require_value(decays, "betas", list(self.betas), "numbers of at least 0 and below 1")

    def resolve_steps(self, epoch_size: int) -> int:
        """Number of optimiser steps, if an epoch has ``epoch_size`` batch items (rows, windows)."""
        if self.steps:
            return self.steps
        return max(1, math.ceil(self.epochs * epoch_size / (self.batch_size * self.accumulation)))

    def rate(self, step: int, total: int) -> float:
        """Learning rate of 0-based ``step`` of ``total``: linear warm-up, then the schedule."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        progress = (step - self.warmup) / max(1, total - self.warmup)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True, kw_only=True)
class WorldModelFitConfig(FitConfig):
    """How the world model is optimised: the same settings, and one of its own.

    Args:
        optimizer: ``adamw``, or ``muon`` for the matrices inside the blocks, which predicts better after the
            same number of steps, each of them a little slower (docs/decisions/0017-muon.md). Both use the
            same learning rate.
    """

    optimizer: Literal["adamw", "muon"] = "adamw"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How each stage that takes gradient steps is optimised."""

    encoder: FitConfig = field(default_factory=FitConfig)
    decoder: FitConfig = field(default_factory=FitConfig)
    worldmodel: WorldModelFitConfig = field(default_factory=WorldModelFitConfig)
    predictors: FitConfig = field(default_factory=FitConfig)
    agent: FitConfig = field(default_factory=FitConfig)


@dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    """Rounds of collecting with the policy learned so far and of training further.

    ``collect.num_steps`` is the budget of the whole run: round 0 plays ``first_steps`` of it with
    ``collect.policy``; the later rounds share the rest equally and play with the agent.

    Args:
        count: rounds of collecting and training; 1 means no loop; of the settings below only
            temperature and epsilon then matter, to `wm probe --by-agent`.
        first_steps: agent steps of round 0, per game.
        temperature: of the agent's action sampling when it collects; 0 is greedy.
        epsilon: share of its actions replaced by random ones, so that it sees what it would not seek out.
        encoder_steps: optimiser steps for which a later round trains the encoder further; the quantizer then
            follows the new embeddings and all play is tokenised again. 0 keeps both as they are after round
            0, and only new play is tokenised: cheaper, and right where random play has seen all there is.
        encoder_rounds: how many of the later rounds, from the first of them on, do so. When tokens change,
            the world model and the agent lose much of what they know, so tokens should settle early.
        worldmodel_steps: optimiser steps of the world model in each later round, continuing from its weights.
        predictor_steps: likewise of the reward and continue predictors.
        agent_steps: likewise of actor and critic.
        finish: the last round takes this many times these steps. Nothing is collected after it and its agent
            is the one that is scored, whereas earlier agents only have to collect the next play.
        anneal: whether the learning rate of actor and critic decays in the last round, as a cosine to a
            tenth, whatever ``train.agent.schedule`` is in earlier rounds (a stable phase, then a decay: Hu et
            al. 2024, MiniCPM). Their updates are noisy: at a constant rate the final policy is just one of
            many that they pass through.
        newest_share: share of the training data of encoder, codes, world model and predictors, and of the
            dreams' contexts, drawn from the newest round; the rest is drawn from all play.
    """

    count: int = 1
    first_steps: int = 10_000
    temperature: float = 1.0
    epsilon: float = 0.05
    encoder_steps: int = 0
    encoder_rounds: int = 1
    worldmodel_steps: int = 500
    predictor_steps: int = 200
    agent_steps: int = 1000
    finish: int = 1
    anneal: bool = False
    newest_share: float = 0.5

    def __post_init__(self) -> None:
        require_within(self, 1, "count", most=1000)
        require_within(self, 100, "first_steps")
        require_temperature(self.temperature)
        require_within(self, 0, "encoder_steps", "encoder_rounds")
        require_within(self, 0, "epsilon", "newest_share", most=1)
        require_within(self, 1, "worldmodel_steps", "predictor_steps", "agent_steps", "finish")
