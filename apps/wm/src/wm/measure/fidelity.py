"""Dream fidelity: the same actions in the game and in the dream, compared step by step.

Shape legend: B windows, C context steps, H horizon, L levels, V state variables.
"""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from atari_data import games as ale_games
from atari_data import labelled_games, lost_lives, window_starts
from cnn_encoder import MLPProbe, MLPProbeConfig, ProbeData, train_mlp_probe
from latent_ac import Agent, CodeFeatures
from token_worldmodel import (
    WorldModel,
    event_fidelity,
    replay,
    token_fidelity,
    useful_horizon,
    value_fidelity,
)
from torch import Tensor

from wm.artifacts import (
    encoded_games,
    frozen_agent,
    frozen_encoder,
    frozen_quantizer,
    frozen_worldmodel,
    require_known,
    require_parts,
)
from wm.checks import require_temperature
from wm.device import autocast_dtype, generator
from wm.measure.fidelity_report import print_fidelity
from wm.measure.fresh import FreshPlay, fresh_play, require_ale_game
from wm.measure.results import write_result
from wm.opened import OpenedRun
from wm.rounds import round_of


@dataclass(frozen=True, kw_only=True, slots=True)
class FidelityOptions:
    """What to dream and how much of it.

    Args:
        horizon: steps to dream; what does not fit in the model's window is cut.
        context: real steps before a dream.
        windows: dreams per game.
        frames: steps of labelled play that the state reader is trained on; as many, of other episodes, are
            replayed.
        reader_steps: training steps of the reader, an MLP probe.
        temperature: of sampling the dreamed tokens; 0 is greedy.
        by_agent: replay the agent's own play instead of random play.
        seed: of the play, the reader and the dreams.
    """

    horizon: int
    context: int
    windows: int
    frames: int
    reader_steps: int
    temperature: float
    by_agent: bool
    seed: int

    def __post_init__(self) -> None:
        require_temperature(self.temperature)


def fidelity_run(opened: OpenedRun, options: FidelityOptions, *, json_file: Path | None) -> None:
    """What `wm fidelity` does: play, dream the same actions, compare, print, write JSON if asked.

    Raises:
        ValueError: no game of ALE, artifacts missing, or no step fits in the model's window.
    """
    config, layout, console = opened.config, opened.layout, opened.console
    require_parts(layout, "encoder", "hrvq", "worldmodel", *(["agent"] if options.by_agent else []))
    known = [game for game in config.games if game in ale_games()]
    require_ale_game(config, layout.root)
    if others := [game for game in config.games if game not in known]:
        console.print(f"not in ALE, so skipped: {', '.join(others)}")
    model = frozen_worldmodel(layout, opened.device)
    most = model.config.max_steps  # the settings may have been changed since it was trained
    context, asked = options.context, options.horizon
    horizon = min(asked, most - context)
    if horizon < 1:
        raise ValueError(
            f"a context of {context} steps leaves no step to dream within worldmodel.max_steps = {most}; "
            "give a shorter --context"
        )
    if horizon < asked:
        console.print(
            f"horizon {horizon}, not {asked}: context and horizon together must fit in the model's {most} "
            "steps",
        )
    trained = config.windows.length - context
    if horizon > trained:
        console.print(
            f"from step {max(0, trained) + 1} on, a dream is longer than the windows the model was trained "
            f"on (windows.length = {config.windows.length})",
        )
    known = encoded_games(layout, known, console.print)
    options = replace(options, horizon=horizon)
    compared = _Fidelity(opened, model, options)
    result = {
        "protocol": asdict(options)
        | {
            "round": round_of(layout, config),
            "trained_horizon": trained,
            "emulator": config.collect.protocol,
        },
        "games": {game: compared.game(game) for game in known},
    }
    write_result(json_file, result, console)
    for game in known:
        print_fidelity(game, result, console)


@dataclass(frozen=True, slots=True)
class Windows:
    """Real windows of C + H steps, and the rows they were cut from."""

    tokens: Tensor  # int64 (B, C + H, L)
    actions: Tensor  # int64 (B, C + H)
    rewards: Tensor  # float32 (B, C + H)
    continues: Tensor  # float32 (B, C + H): 1 while the episode continues
    rows: Tensor  # int64 (B, C + H)


class _Fidelity:
    """The comparison for one run."""

    def __init__(self, opened: OpenedRun, model: WorldModel, options: FidelityOptions) -> None:
        self.opened, self.options = opened, options
        self.config, self.device, self.reporter = opened.config, opened.device, opened.reporter
        self.context, self.horizon = options.context, options.horizon
        layout, device = opened.layout, opened.device
        self.encoder, self.backgrounds = frozen_encoder(layout, device)
        self.quantizer = frozen_quantizer(layout, device)
        self.model = model
        require_known(self.model, [len(table) for table in self.quantizer.codebooks], layout.hrvq)
        self.agent = frozen_agent(layout, device) if layout.agent.exists() else None

    def game(self, game: str) -> dict[str, Any]:
        """All numbers of one game, per horizon."""
        reader = None
        if game in labelled_games():
            with self._play(game, "learn") as play:
                assert play.state is not None
                reader = train_mlp_probe(
                    ProbeData(self._codes(self._tokens(play, game)), play.state.values, play.state.in_play),
                    MLPProbeConfig(num_steps=self.options.reader_steps, seed=self.options.seed),
                )
        with self._play(game, "test") as play:
            windows = self._windows(play, game)
            dreamed = self._dream(windows, game)
            real = windows.tokens[:, self.context - 1 :]
            tokens = token_fidelity(dreamed, real)
            found: dict[str, Any] = {
                "windows": len(real),
                "tokens": {
                    "agreement": tokens.agreement.tolist(),
                    "copy_agreement": tokens.copy_agreement.tolist(),
                    "changed_agreement": tokens.changed_agreement.tolist(),
                    "useful_horizon": list(tokens.useful_horizon),
                },
            }
            if self.agent is not None:
                found |= self._values(self.agent, windows, dreamed)
            if reader is not None:
                found["state"] = self._state(reader, play, windows, dreamed)
        return found

    def _play(self, game: str, name: str) -> AbstractContextManager[FreshPlay]:
        return fresh_play(
            self.opened,
            game,
            self.options.frames,
            agent=self.config.evaluate if self.options.by_agent else None,
            seed=self.options.seed,
            name=name,
        )

    @torch.inference_mode()
    def _tokens(self, play: FreshPlay, game: str) -> Tensor:
        return self.quantizer.encode(play.embed(self.encoder, self.backgrounds[game]))

    def _windows(self, play: FreshPlay, game: str) -> Windows:
        store, length = play.store, self.context + self.horizon
        starts = window_starts(store.episode_ids, length)
        if not len(starts):
            raise ValueError(
                f"{game}: no episode of the fresh play has {length} steps; give more --frames or a shorter "
                "--horizon"
            )
        rng = np.random.default_rng([self.options.seed, 0xF1DE])
        chosen = np.sort(rng.choice(starts, size=min(self.options.windows, len(starts)), replace=False))
        rows = chosen[:, None] + np.arange(length)
        ended = store.terminated.copy()
        if self.config.dream.life_loss_ends:
            ended |= lost_lives(store.episode_ids, store.lives)
        where = torch.from_numpy(rows).to(self.device)

        def column(values: np.ndarray, dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, dtype)[where]

        return Windows(
            tokens=self._tokens(play, game)[where],
            actions=column(store.actions, torch.int64),
            rewards=column(store.rewards, torch.float32),
            continues=column(~ended, torch.float32),
            rows=where,
        )

    @torch.inference_mode()
    def _dream(self, windows: Windows, game: str) -> Tensor:
        """Dreamed tokens, int64 (B, H + 1, L); index 0 is the last real step."""
        rng = generator(self.options.seed, "replay", game, device=self.device)
        parts = []
        with self.reporter.task(f"dream {game}", len(windows.tokens)) as task:
            for tokens, actions in zip(windows.tokens.split(256), windows.actions.split(256), strict=True):
                dream = replay(
                    self.model,
                    tokens,
                    actions,
                    self.context,
                    generator=rng,
                    temperature=self.options.temperature,
                    dtype=autocast_dtype("auto", self.device) if self.device.type == "cuda" else None,
                )
                parts.append(dream.tokens)
                task.advance(len(tokens))
        return torch.cat(parts)

    @torch.inference_mode()
    def _values(self, agent: Agent, windows: Windows, dreamed: Tensor) -> dict[str, Any]:
        """Rewards and continuation, predicted by the run's predictors on the dream, against the game's."""
        first = self.context - 1  # its action is the first that is played in the dream
        features = CodeFeatures(dreamed.transpose(0, 1), self.quantizer.codebooks)
        actions = windows.actions[:, first:-1]
        rewards, continues = (values.T for values in agent.predict(features, actions.T.contiguous()))
        real_rewards = agent.reward.targets(windows.rewards)
        came = real_rewards[:, first:-1]
        found: dict[str, Any] = {
            "foreseen": {
                # Half of the smallest reward there is.
                name: asdict(event_fidelity(sign * rewards >= 0.5, sign * came >= 0.5))
                for name, sign in (("above zero", 1), ("below zero", -1))
            }
        }
        for name, predicted, real, last in (
            ("reward", rewards, real_rewards, 0.0),
            ("continue", continues, windows.continues, 1.0),
        ):
            before = real[:, first - 1] if first else torch.full_like(real[:, 0], last)
            target = real[:, first:-1]
            compared = value_fidelity(predicted[..., None], target[..., None], before[:, None])
            found[name] = {
                "error": compared.error[:, 0].tolist(),
                "copy_error": compared.copy_error[:, 0].tolist(),
                "constant_error": (target - last).abs().mean(0).tolist(),
                "real_mean": target.mean(0).tolist(),
                "dreamed_mean": predicted.mean(0).tolist(),
                "useful_horizon": compared.useful_horizon[0],
            }
        return found

    def _codes(self, tokens: Tensor) -> Tensor:
        """Code embeddings of all levels side by side, as the agent sees them: (..., L) -> (..., L * D)."""
        return self.quantizer.level_embeddings(tokens).flatten(-2)

    def _state(self, reader: MLPProbe, play: FreshPlay, windows: Windows, dreamed: Tensor) -> dict[str, Any]:
        """Mean error of each variable as read from the dream, the copied last step, and the real tokens.

        A variable counts in the windows where it is in play both at the last real step and at the horizon.
        """
        assert play.state is not None
        rows = windows.rows[:, self.context - 1 :]
        real, in_play = play.state.values[rows], play.state.in_play[rows]
        counts = in_play[:, :1] & in_play[:, 1:]  # (B, H, V)
        read = {
            "error": reader.read(self._codes(dreamed[:, 1:])),
            "copy_error": reader.read(self._codes(dreamed[:, :1])),
            "read_error": reader.read(self._codes(windows.tokens[:, self.context :])),
        }
        errors = {name: masked_error(values, real[:, 1:], counts) for name, values in read.items()}
        useful = useful_horizon(errors["error"] < errors["copy_error"])
        return {
            name: {key: error[:, v].tolist() for key, error in errors.items()}
            | {"count": counts[..., v].sum(0).tolist(), "useful_horizon": useful[v]}
            for v, name in enumerate(play.state.names)
            if float(real[..., v].std()) > 0
        }


def masked_error(read: Tensor, real: Tensor, counts: Tensor) -> Tensor:
    """Mean absolute error (H, V) over the windows that count; NaN where none does. Arguments: (B, H, V)."""
    return ((read - real).abs() * counts).sum(0) / counts.sum(0)
