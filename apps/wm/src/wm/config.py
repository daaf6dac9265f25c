"""Everything a run is made from: the packages' own configurations, and the app's beside them."""

import os
import re
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import tomli_w
from atari_data import check_game
from cnn_encoder import ContrastiveConfig, EncoderConfig
from hrvq import HRVQConfig
from latent_ac import ActorConfig, AgentConfig, CriticConfig, PredictorConfig
from token_worldmodel import WorldModelConfig

from wm.fit import FitConfig
from wm.run import write_text
from wm.settings import merge, structure, unstructure

PRESETS = ("tiny", "reference", "atari100k")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Real play, per game.

    Args:
        num_steps: agent steps (actions; four frames each).
        num_envs: emulators stepped together.
        policy: ``random`` draws from the game's own actions; ``sticky_random`` repeats its last action with
            probability ``repeat``, and so gets further from the start; ``imported`` plays nothing, because
            `wm import` has put recordings there, of games that need not be ALE's.
        protocol: of the emulator, by name.
        validation_fraction: share of the episodes that nothing is trained on.
    """

    num_steps: int = 20_000
    num_envs: int = 16
    policy: Literal["random", "sticky_random", "imported"] = "random"
    repeat: float = 0.75
    protocol: Literal["atari100k", "ale_v5"] = "atari100k"
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        _require(self.num_steps >= 100, f"num_steps must be at least 100; got {self.num_steps}")
        _require(1 <= self.num_envs <= 512, f"num_envs must be 1 to 512; got {self.num_envs}")
        _require(0 <= self.repeat < 1, f"repeat must lie in [0, 1); got {self.repeat}")
        _require(
            0 < self.validation_fraction < 1,
            f"validation_fraction must lie between 0 and 1; got {self.validation_fraction}",
        )


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """Fitting the quantizer to frozen embeddings: passes over them, and vectors in a batch."""

    epochs: int = 5
    batch_size: int = 4096

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1; got {self.epochs}")
        _require(self.batch_size >= 1, f"batch_size must be at least 1; got {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Stretches of real play that a batch is made of, in steps.

    Args:
        clip: consecutive steps whose moments the encoder learns to tell apart.
        length: steps of a world model window.
    """

    clip: int = 40
    length: int = 64

    def __post_init__(self) -> None:
        for name in ("clip", "length"):
            _require(getattr(self, name) >= 2, f"{name} must be at least 2; got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class DreamConfig:
    """What the agent practises in.

    Args:
        context: real steps before a dream starts.
        horizon: imagined steps of a dream.
        temperature: of the dreamed tokens.
        life_loss_ends: whether a lost life counts as the end, so that the agent learns to keep its lives.
    """

    context: int = 8
    horizon: int = 15
    temperature: float = 1.0
    life_loss_ends: bool = True

    def __post_init__(self) -> None:
        for name in ("context", "horizon"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1; got {getattr(self, name)}")
        _require(self.temperature > 0, f"temperature must be above 0; got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Play in the real game at the end of training.

    Args:
        episodes: whole episodes per game, for the agent and for the random agent.
        num_envs: emulators stepped together.
        temperature: of the agent's choice among actions; 0 is greedy.
        max_frames: emulated frames after which an episode is cut; 108000 (30 minutes) is the standard.
    """

    episodes: int = 30
    num_envs: int = 16
    temperature: float = 1.0
    max_frames: int = 108_000

    def __post_init__(self) -> None:
        _require(self.episodes >= 1, f"episodes must be at least 1; got {self.episodes}")
        _require(1 <= self.num_envs <= 512, f"num_envs must be 1 to 512; got {self.num_envs}")
        _require(self.temperature >= 0, f"temperature must not be negative; got {self.temperature}")
        _require(self.max_frames >= 100, f"max_frames must be at least 100; got {self.max_frames}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How each stage that takes gradient steps is optimised."""

    encoder: FitConfig = field(default_factory=FitConfig)
    decoder: FitConfig = field(default_factory=FitConfig)
    worldmodel: FitConfig = field(default_factory=FitConfig)
    predictors: FitConfig = field(default_factory=FitConfig)
    agent: FitConfig = field(default_factory=FitConfig)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, whole.

    Args:
        games: ALE names, in this order everywhere.
        seed: everything random in the run follows from it.
    """

    games: tuple[str, ...] = ("pong",)
    seed: int = 0
    collect: CollectConfig = field(default_factory=CollectConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    dream: DreamConfig = field(default_factory=DreamConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    hrvq: HRVQConfig = field(default_factory=HRVQConfig)
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    worldmodel: WorldModelConfig = field(default_factory=WorldModelConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _require(len(self.games) > 0, "games is empty; give at least one ALE game, such as pong")
        for game in self.games:
            if self.collect.policy != "imported":
                check_game(game)
            _require(
                re.fullmatch(r"[a-z0-9][a-z0-9_]*", game) is not None,
                f"game {game!r} must be lower-case letters, digits and underscores",
            )
        _require(len(set(self.games)) == len(self.games), f"games has a name twice: {', '.join(self.games)}")
        _require(self.seed >= 0, f"seed must not be negative; got {self.seed}")
        dreams, parts = self.train.agent.batch_size, self.agent.ppo_minibatches
        _require(
            self.agent.algorithm != "ppo" or dreams >= parts,
            f"train.agent.batch_size is {dreams}; it must be at least agent.ppo_minibatches = {parts}",
        )
        longest, dreamed = self.worldmodel.max_steps, self.dream.context + self.dream.horizon
        _require(
            self.windows.length <= longest,
            f"windows.length is {self.windows.length}; it must be at most worldmodel.max_steps = {longest}",
        )
        # Each place in a window has its embedding: those beyond the training windows are never trained.
        _require(
            dreamed <= self.windows.length,
            f"dream.context + dream.horizon is {dreamed}; it must be at most windows.length = "
            f"{self.windows.length}",
        )


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset that ships with the app, or of a TOML file.

    Raises:
        ValueError: there is no such preset or file, or it is no TOML.
    """
    if name in PRESETS:
        return tomllib.loads((files("wm") / "presets" / f"{name}.toml").read_text())
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"unknown preset {name!r}; allowed: {', '.join(PRESETS)}, or the path of a TOML file"
        )
    return read_toml(path)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary."""
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML ({error}); mend it or delete it") from error


def build_config(base: dict[str, Any], *changes: dict[str, Any]) -> RunConfig:
    """The configuration that ``base`` with each of ``changes`` laid over it describes.

    Sizes that follow from others (the quantizer's width from the encoder's, the world model's levels from the
    quantizer's, the agent's features from both) are derived here, so that one setting changes them all.
    """
    asked: dict[str, Any] = {}
    for change in changes:
        asked = merge(asked, change)
    data = merge(base, asked)
    for section, key, source, value in _derived(data):
        given = asked.get(section, {})
        if isinstance(given, dict) and given.get(key, value) != value:
            raise ValueError(f"{section}.{key} follows from {source} and is {value!r}; set {source} instead")
        data = merge(data, {section: {key: value}})
    return structure(RunConfig, data)


def _derived(data: dict[str, Any]) -> list[tuple[str, str, str, Any]]:
    """(section, key, what it follows from, value) of every size that is not free."""
    encoder = structure(EncoderConfig, data.get("encoder", {}), "encoder")
    sizes = merge(data.get("hrvq", {}), {"dim": encoder.embedding_dim})
    quantizer = structure(HRVQConfig, sizes, "hrvq")
    width = quantizer.levels * quantizer.dim
    codes = list(quantizer.codes) if isinstance(quantizer.codes, tuple) else quantizer.codes
    return [
        ("hrvq", "dim", "encoder.embedding_dim", quantizer.dim),
        ("worldmodel", "num_levels", "hrvq.levels", quantizer.levels),
        ("worldmodel", "num_codes", "hrvq.codes", codes),
        *(
            (section, "feature_dim", "hrvq.levels and encoder.embedding_dim", width)
            for section in ("actor", "critic", "predictor")
        ),
    ]


def load_config(path: Path) -> RunConfig:
    """The resolved configuration of a run.

    Raises:
        ValueError: the file is missing (then this is no run) or does not describe a run.
    """
    if not path.is_file():
        raise ValueError(
            f"{path.parent} holds no run (it has no {path.name}); give a directory made by `wm train`, "
            "or list them with `wm runs`"
        )
    return structure(RunConfig, read_toml(path))


def save_config(path: Path, config: RunConfig) -> None:
    """Write the resolved configuration."""
    write_text(path, tomli_w.dumps(unstructure(config)))


def default_directory(config: RunConfig, preset: str) -> Path:
    """``runs/<games>-<preset>-<seed>``."""
    return Path("runs") / f"{'+'.join(config.games)}-{Path(os.path.basename(preset)).stem}-{config.seed}"
