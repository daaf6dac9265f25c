"""Whether the sections of a configuration fit each other, so that no stage fails hours later."""

from typing import TYPE_CHECKING

from wm.checks import require

if TYPE_CHECKING:
    from wm.config import RunConfig

MOST_CODES = 2**15
"""Largest number of codes per level: files store tokens as int16, in which a higher code would overflow."""


def require_consistent(config: "RunConfig") -> None:
    """Raise ValueError for the first settings that do not fit each other, naming both."""
    weights = config.windows.game_weights
    require(
        len(weights) in (0, len(config.games)),
        f"windows.game_weights has {len(weights)} values and games has {len(config.games)}; give one per "
        "game, or none",
    )
    require(config.seed >= 0, f"seed is {config.seed}; give at least 0")
    _require_networks(config)
    pictures = config.train.decoder.batch_size
    require(pictures >= 2, f"train.decoder.batch_size is {pictures}; give at least 2")
    dreams, parts = config.train.agent.batch_size, config.agent.ppo_minibatches
    require(
        config.agent.algorithm != "ppo" or dreams >= parts,
        f"train.agent.batch_size is {dreams}; it must be at least agent.ppo_minibatches = {parts}",
    )
    transform = config.agent.reward_transform
    require(
        not config.predictor.knows_signs_only or transform != "symlog",
        f"agent.reward_transform is {transform}, but the predictor predicts only the signs of rewards; "
        "set predictor.reward_head=two_hot, or agent.reward_transform=clip",
    )
    if config.rounds.count > 1:
        _require_rounds(config)
    _require_windows(config)


def _require_networks(config: "RunConfig") -> None:
    for name in ("worldmodel", "actor", "predictor"):
        count = getattr(config, name).num_actions
        require(count == 18, f"{name}.num_actions is {count}; give 18, ALE's full set, for any game")
    most = max(config.worldmodel.codes)
    require(most <= MOST_CODES, f"hrvq.codes is {most}; give at most {MOST_CODES} per level")
    codes = [config.encoder.embedding_dim] * config.hrvq.levels
    state = [config.worldmodel.dim] if config.dream.hidden_state else []
    for name, widths in (("actor", codes + state), ("critic", codes + state), ("predictor", codes)):
        blocks = list(getattr(config, name).feature_blocks)
        require(
            blocks in ([], widths),
            f"{name}.feature_blocks is {blocks}; give the widths of the codes, {widths}, or []",
        )


def _require_rounds(config: "RunConfig") -> None:
    later, rest = config.rounds.count - 1, config.collect.num_steps - config.rounds.first_steps
    require(
        config.collect.policy != "imported",
        "rounds.count is above 1, but collect.policy is imported; a recording cannot be extended, so set "
        "rounds.count=1",
    )
    require(
        rest >= 100 * later,
        f"collect.num_steps = {config.collect.num_steps} less rounds.first_steps = "
        f"{config.rounds.first_steps} leaves {rest} for {later} later rounds; each needs at least 100",
    )


def _require_windows(config: "RunConfig") -> None:
    longest, dreamed = config.worldmodel.max_steps, config.dream.context + config.dream.horizon
    require(
        config.windows.length <= longest,
        f"windows.length is {config.windows.length}; it must be at most worldmodel.max_steps = {longest}",
    )
    # Each position in a window has an embedding; those beyond the training windows are never trained.
    require(
        dreamed <= config.windows.length,
        f"dream.context + dream.horizon is {dreamed}; it must be at most windows.length = "
        f"{config.windows.length}",
    )


def require_long_episodes(config: "RunConfig") -> None:
    """Raise ValueError if no episode of the first round can be as long as the windows of later stages."""
    if config.collect.policy == "imported":
        return
    steps = config.in_round(0).collect.num_steps
    name = "rounds.first_steps" if config.rounds.count > 1 else "collect.num_steps"
    most = -(-steps // config.collect.num_envs) + 1  # with the final observation
    for window in ("clip", "length"):
        asked = getattr(config.windows, window)
        require(
            asked <= most,
            f"windows.{window} is {asked}, and with {name} = {steps} and collect.num_envs = "
            f"{config.collect.num_envs} no episode has more than {most} rows; lower windows.{window} or "
            f"collect.num_envs, or raise {name}",
        )
