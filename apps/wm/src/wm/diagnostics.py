"""Signs of trouble in the loop of collecting and dreaming, each with a hint."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from wm.config import RunConfig
from wm.console import NumbersTable, shown, spans
from wm.rounds import chooses, round_suffix, split_name
from wm.run import Manifest
from wm.stage import Stage

# The recall of fewer rewards says little: a round's held-out play may have only one or two.
ENOUGH = 10


class Foreseen(NamedTuple):
    """Rewards of one sign: how many there are, and the predictor's recall of them, None if unknown."""

    number: float
    recall: float | None


class Hint(NamedTuple):
    """A sign of trouble: what is wrong, the numbers that say so, and what usually helps."""

    trouble: str
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"{self.trouble}: {self.seen}; {self.advice}"


class RoundDiagnostics(NamedTuple):
    """What one round's agent expected in its dreams, and what real play brought. Unknown numbers are None.

    Args:
        steps: real agent steps per game collected so far.
        collected_return: mean return of the whole episodes that the round collected, by game.
        collected_games: number of these episodes. If there are few, perhaps only short ones have ended.
        imagined_reward: mean reward per dreamed step, over all games.
        real_reward: mean reward per real step of this round's agent: in the next round's collected play, or,
            for the last round, in the whole games after it. In the unit of the dream: if the dream has only
            the signs of rewards, the mean sign, which whole games reveal only if every reward is 1 or -1.
        entropy: of the policy, as a share of the uniform policy's.
        value_error: mean error of the critic on imagined returns.
        return_spread: of the imagined returns, from the 5th to the 95th percentile.
        foreseen: the negative and the positive rewards in held-out episodes.
        new_foreseen: those in the next round's play, before training on it; None if the codes changed in
            between, or if there is no next round.
        cross_entropy: of L0 in nats, on the world model's training play and on held-out episodes.
        new_cross_entropy: of L0 on the next round's play; None in the same cases as ``new_foreseen``.
        rewarded: whether the play collected so far has any reward.
    """

    round: int
    steps: int
    collected_return: dict[str, float | None]
    collected_games: dict[str, int]
    imagined_reward: float | None
    real_reward: float | None
    entropy: float | None
    value_error: float | None
    return_spread: float | None
    foreseen: tuple[Foreseen, Foreseen]
    new_foreseen: tuple[Foreseen, Foreseen] | None
    cross_entropy: tuple[float | None, float | None]
    new_cross_entropy: float | None
    rewarded: bool = True


def read_diagnostics(config: RunConfig, manifest: Manifest) -> list[RoundDiagnostics]:
    """Diagnostics of every round with a trained agent, except rounds of other games than the run's."""
    found, rewarded = [], False
    for index in range(config.rounds.count):
        last = index + 1 == config.rounds.count
        suffix, after = (round_suffix(each, config.rounds.count) for each in (index, index + 1))
        collected, model, agent = (
            manifest.stages.get(name + suffix) for name in ("collect", "worldmodel", "agent")
        )
        if collected is None or model is None or agent is None:
            break
        if collected.unseen(config.games) or model.unseen(config.games):
            continue  # the games have been changed since
        real = _whole_games(config, manifest, index) if last else _collected(config, manifest, after)
        train, predictors = agent.metrics["train"], agent.metrics["predictors"]
        # A run that once had more rounds still has records of them.
        new_codes, new_rewards = (
            {} if last else _on_new_play(manifest, name + after) for name in ("worldmodel", "agent")
        )
        rewarded |= any(_rewarded(collected.metrics[game]) for game in config.games)
        first = collected.metrics[config.games[0]]
        found.append(
            RoundDiagnostics(
                round=index,
                steps=first.get("steps_in_all", first["steps"]),
                collected_return={game: collected.metrics[game]["mean_return"] for game in config.games},
                collected_games={game: collected.metrics[game]["episodes"] for game in config.games},
                # Squashed rewards are in a unit that real play is not measured in.
                imagined_reward=train.get("reward") if config.agent.reward_transform != "symlog" else None,
                real_reward=real,
                entropy=train.get("entropy_fraction"),
                value_error=train.get("value_error"),
                return_spread=train.get("return_spread"),
                foreseen=_foreseen(predictors),
                new_foreseen=_foreseen(new_rewards) if new_rewards else None,
                cross_entropy=(
                    model.metrics["train"].get("cross_entropy_0"),
                    model.metrics["validation"]["all"][0]["cross_entropy"],
                ),
                new_cross_entropy=new_codes["all"][0]["cross_entropy"] if new_codes else None,
                rewarded=rewarded,
            )
        )
    return found


def hints_by_round(found: Iterable[RoundDiagnostics]) -> Iterator[str]:
    """A line per kind of trouble: the rounds that have it, and the numbers of the last of these."""
    by_trouble: dict[str, dict[int, Hint]] = {}
    for diagnostics in found:
        for hint in hints(diagnostics):
            by_trouble.setdefault(hint.trouble, {})[diagnostics.round] = hint
    for of_rounds in by_trouble.values():
        last = list(of_rounds.values())[-1]
        yield f"round{'s' if len(of_rounds) > 1 else ''} {spans(of_rounds)}: {last}"


def hints(diagnostics: RoundDiagnostics) -> list[Hint]:
    """What is wrong, and what usually helps; empty if nothing is wrong."""
    return [
        *_play_hints(diagnostics),
        *_training_hints(diagnostics),
        *_foresight_hints(diagnostics.new_foreseen),
    ]


def _play_hints(diagnostics: RoundDiagnostics) -> Iterator[Hint]:
    """Hints from comparing the dream with real play."""
    imagined, real = diagnostics.imagined_reward, diagnostics.real_reward
    # A tenth of a point in a hundred steps is noise in any game.
    if imagined is not None and real is not None and imagined - real > 0.5 * abs(real) + 0.001:
        yield Hint(
            "the dream is too optimistic",
            f"{imagined:+.4f} per step imagined, {real:+.4f} played",
            "train the world model longer or the agent less per round, set dream.temperature closer to 1, "
            "shorten dream.horizon, or collect more",
        )


def _training_hints(diagnostics: RoundDiagnostics) -> Iterator[Hint]:
    """Hints from the training of world model and agent."""
    learned, held_out = diagnostics.cross_entropy
    if learned is not None and held_out is not None and held_out > 2 * learned:
        yield Hint(
            "the world model overfits its training play",
            f"cross-entropy of L0 {learned:.2f} in training, {held_out:.2f} in held-out episodes",
            "if scores do not improve, train it for fewer steps or on smaller batches, raise "
            "worldmodel.dropout or worldmodel.token_noise, or collect more",
        )
    if diagnostics.entropy is not None and diagnostics.entropy < 0.05:
        yield Hint(
            "the policy has collapsed",
            f"its entropy is {diagnostics.entropy:.0%} of the uniform policy's",
            "raise agent.entropy_coef, or train the agent less per round",
        )
    if not diagnostics.rewarded:
        yield Hint(
            "there is no reward to learn from",
            f"none in {diagnostics.steps} real steps",
            "dreams then have none either; collect more, or start from a run whose agent finds some (--from)",
        )
    elif diagnostics.entropy is not None and diagnostics.entropy > 0.98:
        yield Hint(
            "the policy is still random",
            f"its entropy is {diagnostics.entropy:.0%} of the uniform policy's",
            "train the agent longer or lower agent.entropy_coef",
        )
    error, spread = diagnostics.value_error, diagnostics.return_spread
    # Returns with hardly any spread come from dreams in which nothing happens: a small error is fine.
    if error is not None and spread is not None and error > max(spread, 0.05):
        yield Hint(
            "the critic is off",
            f"its mean error is {error:.3f}, the spread of returns {spread:.3f}",
            "train the agent longer or lower agent.gamma",
        )
    yield from _foresight_hints(diagnostics.foreseen)


def _foresight_hints(foreseen: tuple[Foreseen, Foreseen] | None) -> Iterator[Hint]:
    """Hints from the predictor's recall of the rewards in some play."""
    for name, (count, recall) in zip(("lost", "won"), foreseen or (), strict=False):
        if count >= ENOUGH and recall is not None and recall < 0.2:
            yield Hint(
                f"{name} points are rarely predicted",
                f"{recall:.0%} of {count:.0f}, so dreams rarely contain them",
                "collect more play that scores, or keep more of the state (hrvq.levels, train.encoder.steps)",
            )


def remarks_after(stage: Stage, config: RunConfig, manifest: Manifest) -> list[str]:
    """The hints to give after a stage: about the agent it trained, or about the agent that played in it.

    After training an agent, also how well the previous round's predictors did on the play it trained on.
    """
    diagnostics = {found.round: found for found in read_diagnostics(config, manifest)}
    if stage.base == "agent" and stage.round in diagnostics:
        before = diagnostics.get(stage.round - 1)
        foreseen = _foresight_hints(before.new_foreseen if before else None)
        # About its training only: any play recorded so far is by the agent that it replaces.
        return [str(hint) for hint in (*foreseen, *_training_hints(diagnostics[stage.round]))]
    last = _last_play(config)
    about = stage.round if stage.name == last else stage.round - 1
    if stage.base in ("collect", last) and about in diagnostics:
        return [str(hint) for hint in _play_hints(diagnostics[about])]
    return []


def diagnostics_table(config: RunConfig, found: Iterable[RoundDiagnostics]) -> Table:
    """A table with a row for each round."""
    reward = "reward sign" if config.dreams_in_signs else "reward"
    table = NumbersTable(
        "Round by round",
        "round",
        "real steps",
        "collected return (episodes)",
        f"{reward} per step: imagined",
        f"{reward} per step: played",
        "entropy",
        "value error (spread)",
        "lost points predicted",
        "won points predicted",
        "L0 in training (nats)",
        "L0 on new play (nats)",
    )
    for diagnostics in found:
        several = len(config.games) > 1
        returns = ", ".join(
            f"{game} " * several + f"{shown(value, '.2f')} ({diagnostics.collected_games[game]})"
            for game, value in diagnostics.collected_return.items()
        )
        table.add_row(
            str(diagnostics.round),
            str(diagnostics.steps),
            returns,
            shown(diagnostics.imagined_reward, ".4f"),
            shown(diagnostics.real_reward, ".4f"),
            shown(diagnostics.entropy, ".0%"),
            f"{shown(diagnostics.value_error, '.3f')} ({shown(diagnostics.return_spread, '.3f')})",
            *(
                f"{shown(recall, '.0%')} of {count:.0f}" if count else "none seen"
                for count, recall in diagnostics.new_foreseen or diagnostics.foreseen
            ),
            shown(diagnostics.cross_entropy[0], ".2f"),
            shown(diagnostics.new_cross_entropy, ".2f"),
        )
    return table


def _on_new_play(manifest: Manifest, name: str) -> dict[str, Any]:
    """What a stage measured on its round's play before training on it; empty if it measured nothing."""
    record = manifest.stages.get(name)
    found: dict[str, Any] = {} if record is None else record.metrics.get("new_play", {})
    return found


def _foreseen(predictors: dict[str, Any]) -> tuple[Foreseen, Foreseen]:
    """For negative and for positive rewards, from the predictors' metrics."""
    negative, positive = (
        Foreseen(predictors[f"reward_count_{sign}"], predictors[f"reward_recall_{sign}"])
        for sign in ("negative", "positive")
    )
    return negative, positive


def _collected(config: RunConfig, manifest: Manifest, suffix: str) -> float | None:
    """Mean reward per collected step, in the unit of the dream; None if unknown."""
    record, key = manifest.stages.get("collect" + suffix), "mean_reward"
    if config.dreams_in_signs:
        key = "mean_reward_sign"
    if record is None or any(key not in record.metrics.get(game, {}) for game in config.games):
        return None
    return _over_games(config, [record.metrics[game][key] for game in config.games])


def _in_units(plays: list[dict[str, Any]], game: str) -> bool:
    """Whether rewards of the game have been seen, all of them 1 or -1; without any, their size is unknown."""
    seen = [play.get(game, {}) for play in plays]
    return all(play.get("unit_rewards", False) for play in seen) and any(map(_rewarded, seen))


def _rewarded(play: dict[str, Any]) -> bool:
    """Whether a round's play of a game had any reward; True if that is unknown."""
    return bool(play.get("mean_reward", 1) or play.get("mean_reward_sign", 0))


def _over_games(config: RunConfig, values: list[float]) -> float:
    """Their mean, weighted as dreams draw the games."""
    return float(np.average(values, weights=config.windows.game_weights or None))


def _last_play(config: RunConfig) -> str:
    """The stage in which the last round's agent plays."""
    return "choose" if chooses(config) else "evaluate"


def _whole_games(config: RunConfig, manifest: Manifest, index: int) -> float | None:
    """Mean reward per step of the last round's agent, in the unit of the dream; None if returns do not tell.

    The games are those it played as a candidate, or else those of the evaluation.
    """
    record = manifest.stages.get(_last_play(config))
    if record is None:
        return None
    if chooses(config):
        games = {c["round"]: c["games"] for c in record.metrics["candidates"]}.get(index, {})
    else:
        games = {game: found["agent"] for game, found in record.metrics["games"].items()}
    if not games.keys() >= set(config.games):
        return None
    plays = [known.metrics for name, known in manifest.stages.items() if split_name(name)[0] == "collect"]
    if config.dreams_in_signs and not all(_in_units(plays, game) for game in config.games):
        return None
    scores = [games[game] for game in config.games]
    rates = [score["mean"] * len(score["lengths"]) / max(1, sum(score["lengths"])) for score in scores]
    return _over_games(config, rates)
