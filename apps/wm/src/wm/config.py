"""A run's whole configuration: the packages' own configuration classes together with the app's."""

from dataclasses import dataclass, field, is_dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import tomli_w
from atari_data import check_game, check_own_name, split_episodes
from cnn_encoder import ContrastiveConfig, EncoderConfig
from hrvq import HRVQConfig
from latent_ac import ActorConfig, AgentConfig, CriticConfig, PredictorConfig
from numpy.typing import NDArray
from token_worldmodel import WorldModelConfig

from wm.checks import require
from wm.consistency import require_consistent
from wm.files import write_text
from wm.sections import (
    ChooseConfig,
    CollectConfig,
    DreamConfig,
    EvaluateConfig,
    FitConfig,
    QuantizeConfig,
    RoundsConfig,
    StartConfig,
    TrainConfig,
    WindowConfig,
    WorldModelFitConfig,
)
from wm.settings import merge, read_toml, structure, unstructure

# Settings added when runs already existed, at the values that reproduce those runs. A stage's fingerprint
# omits a setting at this value, so that a new version of the software makes no finished run stale.
YOUNGER: dict[type, dict[str, Any]] = {
    ContrastiveConfig: {"layout_bands": 0, "shift": 0},
    EvaluateConfig: {"epsilon": 0.0},
    HRVQConfig: {"joint": False},
    QuantizeConfig: {"refine": 0, "alternatives": 0},
    WorldModelConfig: {"code_dim": 0, "position": "token"},
    WorldModelFitConfig: {"optimizer": "adamw"},
}

# Settings that are gone, with their value in every run that this version still reproduces.
RETIRED: dict[str, Any] = {
    "agent.uniform_coef": 0.0,
    "agent.anchor_coef": 0.0,
    "agent.center_advantages": False,
    "rounds.agent_decay": 1.0,
    "rounds.renew": [],
    "rounds.renew_encoder_steps": 1500,
    "rounds.renew_worldmodel_steps": 3200,
    "rounds.renew_agent_steps": 3600,
    "train.worldmodel.alike_codes": False,
}

RESERVED = ("all", "train", "validation", "peak_memory_gib")
"""Keys that appear next to the games' names in a stage's metrics."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The complete configuration of one run.

    Args:
        games: ALE names, or the names that recordings were imported under; this order is used everywhere.
        seed: seed of everything random in the run.
    """

    games: tuple[str, ...] = ("pong",)
    seed: int = 0
    start: StartConfig = field(default_factory=StartConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    dream: DreamConfig = field(default_factory=DreamConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    hrvq: HRVQConfig = field(default_factory=lambda: HRVQConfig(dim=EncoderConfig().embedding_dim))
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    worldmodel: WorldModelConfig = field(default_factory=WorldModelConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    choose: ChooseConfig = field(default_factory=ChooseConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)

    def __post_init__(self) -> None:
        require(len(self.games) > 0, "games is empty; give at least one ALE game, such as pong")
        for game in self.games:
            check_own_name(game) if self.collect.policy == "imported" else check_game(game)
            require(game not in RESERVED, f"game {game!r} is a reserved name; give another name")
        require(
            len(set(self.games)) == len(self.games),
            f"games repeats a name: {', '.join(self.games)}; give each once",
        )
        require_consistent(self)

    @property
    def dreams_in_signs(self) -> bool:
        """Whether a dream's rewards are signs; clipping does this too, as ALE's rewards are whole numbers."""
        return self.predictor.knows_signs_only or self.agent.reward_transform == "clip"

    def validates(self, episode_ids: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which rows belong to the validation episodes: bool (N,), the same in every stage."""
        return split_episodes(episode_ids, self.collect.validation_fraction, self.seed)

    def in_round(self, index: int) -> "RunConfig":
        """The settings of one round's stages, as for a run of its own that plays its share of the steps.

        In its ``rounds``, ``encoder_steps`` is the round's own number, 0 if encoder and codes are kept.

        Settings that only matter in later rounds have their defaults in round 0, so that changing them leaves
        that round's artifacts valid.
        """
        rounds, train = self.rounds, self.train
        if index == 0:
            encoder_steps = self.start.encoder_steps if self.start.run else 0
            num_steps = rounds.first_steps if rounds.count > 1 else self.collect.num_steps
            return replace(
                self,
                collect=replace(self.collect, num_steps=num_steps),
                train=replace(train, encoder=_with_steps(train.encoder, encoder_steps)),
                rounds=RoundsConfig(encoder_steps=encoder_steps),
            )
        last = index == rounds.count - 1
        schedule = "cosine" if rounds.anneal and last else train.agent.schedule
        encoder_steps = rounds.encoder_steps if index <= rounds.encoder_rounds else 0
        times = rounds.finish if last else 1
        share, extra = divmod(self.collect.num_steps - rounds.first_steps, rounds.count - 1)
        return replace(
            self,
            collect=replace(self.collect, num_steps=share + (index <= extra)),
            train=replace(
                train,
                encoder=_with_steps(train.encoder, encoder_steps),
                worldmodel=replace(train.worldmodel, steps=times * rounds.worldmodel_steps),
                predictors=replace(train.predictors, steps=times * rounds.predictor_steps),
                agent=replace(train.agent, steps=times * rounds.agent_steps, schedule=schedule),
            ),
            rounds=replace(rounds, count=1, encoder_steps=encoder_steps),
        )


def _with_steps(fit: FitConfig, steps: int) -> FitConfig:
    """``fit`` with this many steps; unchanged if 0."""
    return replace(fit, steps=steps or fit.steps)


def read_run(path: Path) -> dict[str, Any]:
    """The configuration of a run as a dictionary.

    A setting added after the file was written gets the value that reproduces the run, not today's default.

    Raises:
        ValueError: it is not valid TOML, or has another value of a setting that is gone.
    """
    data = read_toml(path)
    for key, value in RETIRED.items():
        *sections, name = key.split(".")
        found = reduce(section_of, sections, data).pop(name, value)
        require(
            found == value,
            f"{key} is {found!r} in {path}, and this version has no such setting; use the version that made "
            "the run, or delete the line to read the run without it",
        )
    return merge(_before_younger(RunConfig), data)


def _before_younger(section: type) -> dict[str, Any]:
    """The settings of `YOUNGER`, nested by section as in a file."""
    settings = dict(YOUNGER.get(section, {}))
    for name, kind in get_type_hints(section).items():
        if isinstance(kind, type) and is_dataclass(kind) and (inner := _before_younger(kind)):
            settings[name] = inner
    return settings


def build_config(base: dict[str, Any], *changes: dict[str, Any], file: Path | None = None) -> RunConfig:
    """The configuration given by ``base`` (read from ``file``, if given) with ``changes`` laid over it.

    Sizes that follow from others (the quantizer's width from the encoder's, the world model's levels from the
    quantizer's, the agent's features from both) are derived here, so that one setting changes them all.
    """
    asked: dict[str, Any] = {}
    for change in changes:
        asked = merge(asked, change)
    try:
        return _built(base, asked)
    except ValueError as error:
        if file is not None and _refused(base) == str(error):  # with or without the changes
            raise ValueError(f"{error} (in {file})") from error
        raise


def _built(base: dict[str, Any], asked: dict[str, Any]) -> RunConfig:
    data = merge(base, asked)
    if "loss_weights" not in section_of(asked, "worldmodel"):
        data = merge(data, {"worldmodel": _weights_of_any_levels(data)})
    for section, key, source, value in derived_sizes(data):
        if section_of(asked, section).get(key, value) != value:
            raise ValueError(f"{section}.{key} follows from {source} and is {value!r}; set {source} instead")
        data = merge(data, {section: {key: value}})
    return structure(RunConfig, data)


def _refused(data: dict[str, Any]) -> str | None:
    """Why these settings are invalid by themselves; None if they are valid."""
    try:
        _built(data, {})
    except ValueError as error:
        return str(error)
    return None


def _weights_of_any_levels(data: dict[str, Any]) -> dict[str, Any]:
    """``loss_weights`` in a form for any number of levels, where those of a run are for another number."""
    weights = section_of(data, "worldmodel").get("loss_weights", [])
    levels = section_of(data, "hrvq").get("levels", HRVQConfig(dim=1).levels)
    if not isinstance(weights, list) or len(weights) in (0, 1, levels):
        return {}
    if all(weight == weights[0] for weight in weights):
        return {"loss_weights": weights[:1]}
    by_default = list(WorldModelConfig(num_levels=len(weights)).loss_weights)
    return {"loss_weights": []} if weights == by_default else {}


def section_of(data: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of the settings, empty if there is none.

    Raises:
        ValueError: there is a value of this name instead of a section.
    """
    section = data.get(name, {})
    if not isinstance(section, dict):
        raise ValueError(f"{name} is {section!r}; it is a section, so set {name}.KEY=VALUE")
    return section


def derived_sizes(data: dict[str, Any]) -> list[tuple[str, str, str, Any]]:
    """(section, key, what it follows from, value) of every size that is derived from others."""
    encoder = structure(EncoderConfig, section_of(data, "encoder"), "encoder")
    sizes = merge(section_of(data, "hrvq"), {"dim": encoder.embedding_dim})
    quantizer = structure(HRVQConfig, sizes, "hrvq")
    codes = list(quantizer.codes) if isinstance(quantizer.codes, tuple) else quantizer.codes
    least = min(codes) if isinstance(codes, list) else codes
    require(least >= 2, f"hrvq.codes is {codes}; give at least 2 for every level")
    sizes = merge(section_of(data, "worldmodel"), {"num_levels": quantizer.levels, "num_codes": codes})
    model = structure(WorldModelConfig, sizes, "worldmodel")
    dream = structure(DreamConfig, section_of(data, "dream"), "dream")
    width, origin = quantizer.levels * quantizer.dim, "hrvq.levels and encoder.embedding_dim"
    seen = (
        ("dream.hidden_state, worldmodel.dim, " + origin, width + model.dim)
        if dream.hidden_state
        else (origin, width)
    )
    # Codes that are not read have no width; whether they are is a setting of its own.
    read = [("worldmodel", "code_dim", "encoder.embedding_dim", quantizer.dim)] if model.code_dim else []
    return [
        ("hrvq", "dim", "encoder.embedding_dim", quantizer.dim),
        ("worldmodel", "num_levels", "hrvq.levels", quantizer.levels),
        ("worldmodel", "num_codes", "hrvq.codes", codes),
        *read,
        ("actor", "feature_dim", *seen),
        ("critic", "feature_dim", *seen),
        ("predictor", "feature_dim", origin, width),
    ]


def load_config(path: Path) -> RunConfig:
    """The resolved configuration of a run.

    Raises:
        ValueError: the file is missing (so the directory holds no run) or does not describe a run.
    """
    if not path.is_file():
        raise ValueError(
            f"{path.parent} holds no run (it has no {path.name}); give a directory made by `wm train`, "
            "or list them with `wm runs`"
        )
    return build_config(read_run(path), file=path)


def save_config(path: Path, config: RunConfig) -> None:
    """Write the resolved configuration."""
    write_text(path, tomli_w.dumps(unstructure(config)))
