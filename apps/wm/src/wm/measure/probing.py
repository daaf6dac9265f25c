"""State retention: how much of the game's true state can be read at each stage, next to baselines.

Labels enter no training but the supervised encoder's, which is never used for anything else.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from atari_data import games as ale_games
from atari_data import labelled_games, split_episodes
from cnn_encoder import (
    AtariARIConfig,
    DINOv2,
    Encoder,
    LabelledFeatures,
    MLPProbeConfig,
    Stage,
    atariari_probe,
    diversity,
    embedding_norm,
    load_dinov2,
    pixel_features,
    retention,
    state_correlation,
    temporal_consistency,
    unseen_frames,
)
from hrvq import HRVQ
from torch import Tensor

from wm.artifacts import encoded_games, frozen_encoder, frozen_quantizer, require_parts
from wm.config import RunConfig
from wm.console import depth_name
from wm.device import frozen, generator
from wm.files import write_json
from wm.measure.fresh import FreshPlay, fresh_play
from wm.measure.probe_report import print_probe
from wm.measure.supervised import train_supervised
from wm.opened import OpenedRun
from wm.rounds import round_of

NUM_PAIRS = 20_000
VALIDATION_FRACTION = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeOptions:
    """What to measure, and on how much play.

    Args:
        frames: steps of play that the probes are trained on; half as many, of other episodes, are the test.
        steps: training steps of the MLP probe.
        seed: of the play, the random encoder and the probes.
        supervised: also train the same encoder on the labels, to compare with.
        f1: also follow the AtariARI protocol.
        by_agent: probe on the agent's own play, as it collects, instead of random play.
        dinov2: local weights of DINOv2 to measure as well.
        dinov2_size: pixels that frames are enlarged to for it, a multiple of 14.
    """

    frames: int
    steps: int
    seed: int
    supervised: bool
    f1: bool
    by_agent: bool
    dinov2: Path | None
    dinov2_size: int


def probe_run(opened: OpenedRun, options: ProbeOptions, *, json_file: Path | None) -> None:
    """What `wm probe` does: play, probe every stage, print, write JSON if asked.

    Raises:
        ValueError: artifacts are missing, or none of the run's games is annotated.
    """
    config, layout, console = opened.config, opened.layout, opened.console
    known = [game for game in config.games if game in ale_games() and game in labelled_games()]
    if not known:
        raise ValueError(
            f"none of the run's games ({', '.join(config.games)}) has annotated RAM to probe; "
            f"these have: {', '.join(labelled_games())}"
        )
    require_parts(layout, "encoder", "hrvq", *(["worldmodel", "agent"] if options.by_agent else []))
    skipped = [game for game in config.games if game not in known]
    if skipped:
        console.print(f"no annotated RAM, so skipped: {', '.join(skipped)}")
    known = encoded_games(layout, known, console.print)
    measured = _Probe(opened, options)
    games: dict[str, Any] = {}
    result = {
        "protocol": asdict(options)
        | {
            "round": round_of(layout, config),
            "dinov2": str(options.dinov2) if options.dinov2 else None,
            "test_frames": options.frames // 2,
            "policy": _policy_name(config, options),
            "emulator": config.collect.protocol,
            "in_play": "positions count on frames where their object is in play (no ball_y of 0, in Breakout "
            "none above 186, not both coordinates 0); ball_y - player_y only where ball_x > 120; motion is "
            "the change since the row before, where the object was in play too",
            "after_levels": "code embeddings of these levels side by side, as the agent sees them",
        },
        "games": games,
    }
    for game in known:
        games[game] = measured.game(game)
        if json_file is not None:  # before the table, whose reader (`head`, say) may be gone by its end
            write_json(json_file, result)
        print_probe(game, games[game], console)
    if json_file is not None:
        console.print(f"written to {json_file}")


def _policy_name(config: RunConfig, options: ProbeOptions) -> str:
    if options.by_agent:
        return "agent"
    return "random" if config.collect.policy == "random" else "sticky_random"


class _Probe:
    """The measurement of one run."""

    def __init__(self, opened: OpenedRun, options: ProbeOptions) -> None:
        self.opened, self.options = opened, options
        self.config, self.device, self.reporter = opened.config, opened.device, opened.reporter
        self.encoder, self.backgrounds = frozen_encoder(opened.layout, self.device)
        self.quantizer = frozen_quantizer(opened.layout, self.device)
        rng = generator(options.seed, "random encoder")
        self.untrained = frozen(Encoder(self.config.encoder, generator=rng)).to(self.device)
        self.dinov2 = None
        if options.dinov2 is not None:
            self.dinov2 = load_dinov2(options.dinov2, image_size=options.dinov2_size).to(self.device)

    def game(self, game: str) -> dict[str, Any]:
        """All numbers of one game."""
        steps = self.options.frames
        with (
            self._play(game, steps, "learn") as train,
            self._play(game, steps // 2, "test") as test,
        ):
            assert train.state is not None
            assert test.state is not None
            config = MLPProbeConfig(num_steps=self.options.steps, seed=self.options.seed)
            rows, learned = [], []
            for stage in self._stages(game, train, test):
                self.opened.console.print(f"probe {game}: {stage.name}")
                rows += retention([stage], train.state, test.state, config)
                if stage.name != "pixels":
                    learned.append(stage)
            found: dict[str, Any] = {
                "test_frames": len(test.store),
                "retention": [row.as_dict() for row in rows],
                "geometry": {stage.name: self._geometry(stage.test, test) for stage in learned},
            }
            if self.options.f1:
                try:
                    found["atariari"] = atariari_scores(learned, train, test, self.options.seed)
                except ValueError as error:  # too little play; what has been measured is kept
                    self.opened.console.print(f"probe {game}: no F1 scores: {error}")
            return found

    def _play(self, game: str, steps: int, name: str) -> AbstractContextManager[FreshPlay]:
        return fresh_play(
            self.opened,
            game,
            steps,
            agent=self.config.rounds if self.options.by_agent else None,
            seed=self.options.seed,
            name=name,
            motion=True,
        )

    def _stages(self, game: str, train: FreshPlay, test: FreshPlay) -> Iterator[Stage]:
        background = self.backgrounds[game]
        plays = (train, test)
        yield Stage("pixels", *(self._pixels(play, background) for play in plays))
        yield Stage("random encoder", *(play.embed(self.untrained, background) for play in plays))
        embedded = [play.embed(self.encoder, background) for play in plays]
        yield Stage("embedding", *embedded)
        for level in range(self.quantizer.config.levels):
            yield Stage(_after(level), *(after_levels(self.quantizer, z, level) for z in embedded))
        if self.options.supervised:
            encoder = train_supervised(self.opened, train, background, seed=self.options.seed)
            embedded = [play.embed(encoder, background) for play in plays]
            yield Stage("supervised", *embedded)
            quantizer = HRVQ(self.config.hrvq).to(self.device)
            fit = self.config.quantize
            quantizer.fit(
                embedded[0],
                epochs=fit.epochs,
                refine=fit.refine,
                batch_size=fit.batch_size,
                seed=self.options.seed,
            )
            last = quantizer.config.levels - 1
            features = (after_levels(frozen(quantizer), z, last) for z in embedded)
            yield Stage(f"supervised {_after(last)}", *features)
        if self.dinov2 is not None:
            yield Stage("DINOv2", *(self._dinov2(self.dinov2, play) for play in plays))

    @torch.inference_mode()
    def _pixels(self, play: FreshPlay, background: Tensor) -> Tensor:
        return pixel_features(torch.from_numpy(play.frames()).to(self.device), background)

    @torch.inference_mode()
    def _dinov2(self, network: DINOv2, play: FreshPlay) -> Tensor:
        parts = np.array_split(play.frames(), -(-len(play.store) // 64))
        with self.reporter.task("embed (DINOv2)", len(parts)) as task:
            found = []
            for part in parts:
                found.append(network(torch.from_numpy(part).to(self.device)))
                task.advance()
        return torch.cat(found)

    def _geometry(self, features: Tensor, play: FreshPlay) -> dict[str, float]:
        assert play.state is not None
        rng = generator(self.options.seed, "pairs")
        places = play.state.values[:, play.state.columns(motion=False)]
        ids = torch.from_numpy(np.ascontiguousarray(play.store.episode_ids)).to(features.device)
        return {
            "temporal_consistency": temporal_consistency(features, ids, num_pairs=NUM_PAIRS, generator=rng),
            "diversity": diversity(features, num_pairs=NUM_PAIRS, generator=rng),
            "norm": embedding_norm(features),
            "state_correlation": state_correlation(features, places, num_pairs=NUM_PAIRS, generator=rng),
        }


def atariari_scores(stages: list[Stage], train: FreshPlay, test: FreshPlay, seed: int) -> dict[str, Any]:
    """Weighted F1; validation episodes are taken from the training play, test episodes from other seeds."""
    assert train.raw is not None
    assert test.raw is not None
    assert train.state is not None
    device = train.raw.device
    held_out = split_episodes(train.store.episode_ids, VALIDATION_FRACTION, seed)
    validates = torch.from_numpy(held_out).to(device)
    # Validation frames stop the probes and have trained the supervised encoder: they are not unseen either.
    unseen = torch.from_numpy(unseen_frames(train.frames(), test.frames())).to(device)
    names = train.state.names[: train.raw.shape[1]]
    scores = {}
    for stage in stages:
        score = atariari_probe(
            LabelledFeatures(stage.train[~validates], train.raw[~validates]),
            LabelledFeatures(stage.train[validates], train.raw[validates]),
            LabelledFeatures(stage.test[unseen], test.raw[unseen]),
            names,
            AtariARIConfig(seed=seed),
        )
        scores[stage.name] = asdict(score)
    return {"unseen_test_frames": int(unseen.sum()), "stages": scores}


def after_levels(quantizer: HRVQ, embeddings: Tensor, last: int) -> Tensor:
    """Code embeddings of levels 0 to ``last`` side by side: float32 (N, (last + 1) * D)."""
    with torch.inference_mode():
        return quantizer.level_embeddings(quantizer.encode(embeddings, levels=last + 1)).flatten(1)


def _after(level: int) -> str:
    return f"after {depth_name(level)}"
