"""A run's policy for use in Python: from the run's directory to actions."""

from pathlib import Path

from wm.console import make_console
from wm.opening import open_to_read
from wm.policy import RunPolicy, policy_of


def load_policy(
    run: str | Path,
    game: str | None = None,
    *,
    index: int | None = None,
    temperature: float | None = None,
    epsilon: float | None = None,
    seed: int = 0,
    device: str = "auto",
) -> RunPolicy:
    """The policy that a run has learned, as a function from observations to actions.

    It is the policy that `wm eval` plays with: it takes observations uint8 (B, 4, 84, 84), the newest four
    frames, oldest first, black before an episode's first frame, and returns actions int64 (B,), ids of ALE's
    18 actions. So it fits ``atari_data.play_episodes`` and ``collect``, and a Gymnasium environment with
    ``full_action_space=True``, but for Skiing and Lost Luggage, whose actions ALE numbers in another way. On
    stderr, `load_policy` says what in the run is out of date.

    If the run sets ``dream.hidden_state``, the policy also has a memory: every call must then be about the
    same games, from their first frames on and once per step. It raises ValueError where it detects otherwise.

    Args:
        run: the directory, as made by `wm train`.
        game: one of the run's games; it may be left out if there is only one.
        index: number of the round whose agent to use, 0 the first; None for the run's final one.
        temperature: of action sampling, 0 is greedy; None for the run's ``evaluate.temperature``.
        epsilon: share of actions drawn uniformly at random instead; None for the run's ``evaluate.epsilon``.
        seed: of the policy's random choices.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: it is not a run or has no such game, round or device, a part is missing or damaged, or
            ``temperature`` or ``epsilon`` is out of range.
    """
    opened = open_to_read(Path(run), make_console(stderr=True), device_name=device, index=index)
    config = opened.config
    if game is None:
        if len(config.games) > 1:
            raise ValueError(f"the run has several games; give one of {', '.join(config.games)}")
        game = config.games[0]
    play = config.evaluate.changed(temperature=temperature, epsilon=epsilon)
    return policy_of(opened.layout, game, config.dream, play, seed=seed, device=opened.device)
