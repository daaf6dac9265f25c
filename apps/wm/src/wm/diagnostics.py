"""Signs of trouble in the loop of collecting and dreaming, each with a plain hint."""

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any, NamedTuple

from rich.table import Table

from wm.config import RunConfig
from wm.console import NumbersTable, shown, spans
from wm.rounds import chooses, round_suffix
from wm.run import Manifest
from wm.stage import Stage

# A share of fewer rewards says little: a round's held-out play may have one or two.
ENOUGH = 10


class Foreseen(NamedTuple):
    """How many of some rewards the predictor told: their number, and its recall, None where not known."""

    number: float = 0
    recall: float | None = None


class Hint(NamedTuple):
    """A sign of trouble: what is wrong, the numbers that say so, and what usually helps."""

    trouble: str
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"{self.trouble}: {self.seen}; {self.advice}"


class RoundDiagnostics(NamedTuple):
    """What one round's agent promised in its dreams, and what play brought. Absent numbers are None.

    Args:
        steps: real agent steps per game collected so far.
        collected_return: mean return of the whole episodes that the round collected, by game.
        collected_games: how many these were. Of few, the short ones alone may have come to an end.
        imagined_reward: mean reward of a dreamed step, all games together.
        real_reward: mean reward of a real step by this round's agent: of the next round's collecting, or of
            the whole games after the last round. In the unit of the dream: where that has only the signs of
            rewards, the mean sign, which whole games tell only if every reward is 1 or -1.
        entropy: of the policy, as a share of that of uniform play.
        value_error: mean error of the critic on imagined returns.
        return_spread: of the imagined returns, from the 5th to the 95th percentile.
        foreseen: the negative and the positive rewards of episodes held out.
        new_foreseen: those of the next round's play, before that was learned from; None where the codes moved
            in between, and without a next round.
        cross_entropy: of L0 in nats, on what the world model is trained on and on episodes held out.
        new_cross_entropy: of L0 on the next round's play; None as ``new_foreseen``.
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


def read_diagnostics(config: RunConfig, manifest: Manifest) -> list[RoundDiagnostics]:
    """Those of every round whose agent is trained, but for rounds of other games than the run's."""
    found = []
    for index in range(config.rounds.count):
        suffix, after = (round_suffix(each, config.rounds.count) for each in (index, index + 1))
        collected, model, agent = (
            manifest.stages.get(name + suffix) for name in ("collect", "worldmodel", "agent")
        )
        if collected is None or model is None or agent is None:
            break
        if collected.unseen(config.games) or model.unseen(config.games):
            continue  # the games were changed since
        last = index + 1 == config.rounds.count
        real = _whole_games(config, manifest, index) if last else _collected(config, manifest, after)
        train, predictors = agent.metrics["train"], agent.metrics["predictors"]
        new_codes, new_rewards = (_on_new_play(manifest, name + after) for name in ("worldmodel", "agent"))
        first = collected.metrics[config.games[0]]
        found.append(
            RoundDiagnostics(
                round=index,
                steps=first.get("steps_in_all", first["steps"]),
                collected_return={game: collected.metrics[game]["mean_return"] for game in config.games},
                collected_games={game: collected.metrics[game]["episodes"] for game in config.games},
                # Squashed rewards have a unit in which play is not counted.
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
            )
        )
    return found


def hints_by_round(found: Iterable[RoundDiagnostics]) -> Iterator[str]:
    """A line for each trouble with the rounds that have it, and the numbers of the last of these."""
    by_trouble: dict[str, dict[int, Hint]] = {}
    for diagnostics in found:
        for hint in hints(diagnostics):
            by_trouble.setdefault(hint.trouble, {})[diagnostics.round] = hint
    for of_rounds in by_trouble.values():
        last = list(of_rounds.values())[-1]
        yield f"round{'s' if len(of_rounds) > 1 else ''} {spans(of_rounds)}: {last}"


def hints(diagnostics: RoundDiagnostics) -> list[Hint]:
    """What is wrong, and what usually helps; empty if nothing is."""
    return [
        *_play_hints(diagnostics),
        *_training_hints(diagnostics),
        *_foresight_hints(diagnostics.new_foreseen),
    ]


def _play_hints(diagnostics: RoundDiagnostics) -> Iterator[Hint]:
    """What real play tells of the dream."""
    imagined, real = diagnostics.imagined_reward, diagnostics.real_reward
    # A tenth of a point in a hundred steps is noise in any game.
    if imagined is not None and real is not None and imagined - real > 0.5 * abs(real) + 0.001:
        yield Hint(
            "the dream is too optimistic",
            f"{imagined:+.4f} a step imagined, {real:+.4f} played",
            "train the world model longer or the agent less in a round, set dream.temperature nearer 1, "
            "shorten dream.horizon, or collect more",
        )


def _training_hints(diagnostics: RoundDiagnostics) -> Iterator[Hint]:
    """What training tells of the world model and the agent."""
    learned, held_out = diagnostics.cross_entropy
    if learned is not None and held_out is not None and held_out > 2 * learned:
        yield Hint(
            "the world model overfits its play",
            f"cross-entropy of L0 {learned:.2f} in training, {held_out:.2f} in episodes held out",
            "if games get no better, train it for fewer steps or on smaller batches, raise "
            "worldmodel.dropout or worldmodel.token_noise, or collect more",
        )
    if diagnostics.entropy is not None and diagnostics.entropy < 0.05:
        yield Hint(
            "the policy has collapsed",
            f"its entropy is {diagnostics.entropy:.0%} of uniform play's",
            "raise agent.entropy_coef, or train the agent less in a round",
        )
    if diagnostics.entropy is not None and diagnostics.entropy > 0.98:
        yield Hint(
            "the policy is still random",
            f"its entropy is {diagnostics.entropy:.0%} of uniform play's",
            "train the agent longer or lower agent.entropy_coef",
        )
    error, spread = diagnostics.value_error, diagnostics.return_spread
    # Returns of hardly any spread are those of dreams in which nothing happens: then a small error is none.
    if error is not None and spread is not None and error > max(spread, 0.05):
        yield Hint(
            "the critic is off",
            f"it errs by {error:.3f} where returns spread over {spread:.3f}",
            "train the agent longer or lower agent.gamma",
        )
    yield from _foresight_hints(diagnostics.foreseen)


def _foresight_hints(foreseen: tuple[Foreseen, Foreseen] | None) -> Iterator[Hint]:
    """What the rewards of some play tell of the predictor."""
    for name, (count, recall) in zip(("lost", "won"), foreseen or (), strict=False):
        if count >= ENOUGH and recall is not None and recall < 0.2:
            yield Hint(
                f"{name} points are rarely predicted",
                f"{recall:.0%} of {count:.0f}, and no dream holds them",
                "collect more play that scores, or keep more of the state (hrvq.levels, train.encoder.steps)",
            )


def remarks_after(stage: Stage, config: RunConfig, manifest: Manifest) -> list[str]:
    """The hints a finished stage gives rise to: an agent's of its training, play's of the agent before.

    An agent's stage also tells what the predictors before it foresaw of the play it learns from.
    """
    diagnostics = {found.round: found for found in read_diagnostics(config, manifest)}
    if stage.base == "agent" and stage.round in diagnostics:
        before = diagnostics.get(stage.round - 1)
        foreseen = _foresight_hints(before.new_foreseen if before else None)
        # Of its training only: play that there may be was the agent's that it replaced.
        return [str(hint) for hint in (*foreseen, *_training_hints(diagnostics[stage.round]))]
    last = _last_play(config)
    about = stage.round if stage.name == last else stage.round - 1
    if stage.base in ("collect", last) and about in diagnostics:
        return [str(hint) for hint in _play_hints(diagnostics[about])]
    return []


def diagnostics_table(config: RunConfig, found: Iterable[RoundDiagnostics]) -> Table:
    """A line for each round, its hints below."""
    reward = "reward sign" if config.dreams_in_signs else "reward"
    table = NumbersTable(
        "Round by round",
        "round",
        "real steps",
        "return collected (games)",
        f"{reward} a step: imagined",
        f"{reward} a step: played",
        "entropy",
        "value error (spread)",
        "foreseen: lost",
        "foreseen: won",
        "L0 learned (nats)",
        "L0 then new (nats)",
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
    """What a stage measured of its round's play before it learned from it; empty if it did not."""
    record = manifest.stages.get(name)
    found: dict[str, Any] = {} if record is None else record.metrics.get("new_play", {})
    return found


def _foreseen(predictors: dict[str, Any]) -> tuple[Foreseen, Foreseen]:
    """Of negative and of positive rewards, from what was measured of the predictors."""
    negative, positive = (
        Foreseen(predictors[f"reward_count_{sign}"], predictors[f"reward_recall_{sign}"])
        for sign in ("negative", "positive")
    )
    return negative, positive


def _collected(config: RunConfig, manifest: Manifest, suffix: str) -> float | None:
    """Mean reward of a collected step, in the unit of the dream."""
    record, key = manifest.stages.get("collect" + suffix), "mean_reward"
    if config.dreams_in_signs:
        key = "mean_reward_sign"
    if record is None or any(key not in record.metrics.get(game, {}) for game in config.games):
        return None
    return fmean([record.metrics[game][key] for game in config.games])


def _last_play(config: RunConfig) -> str:
    """The stage in which the last round's agent plays."""
    return "choose" if chooses(config) else "evaluate"


def _whole_games(config: RunConfig, manifest: Manifest, index: int) -> float | None:
    """Mean reward of a step of the last round's agent, in the unit of the dream, where returns tell it.

    Its games are those in which it was a candidate, else the evaluation.
    """
    record, collected = manifest.stages.get(_last_play(config)), manifest.stages.get("collect")
    if record is None or collected is None or collected.unseen(config.games):
        return None
    if chooses(config):
        games = {c["round"]: c["games"] for c in record.metrics["candidates"]}.get(index, {})
    else:
        games = {game: found["agent"] for game, found in record.metrics["games"].items()}
    if not games.keys() >= set(config.games):
        return None
    if config.dreams_in_signs and not all(
        collected.metrics[game].get("unit_rewards", False) for game in config.games
    ):
        return None
    scores = [games[game] for game in config.games]
    return fmean([score["mean"] * len(score["lengths"]) / max(1, sum(score["lengths"])) for score in scores])
