"""Which of the 18 actions a game allows."""

import numpy as np
from atari_data import NUM_ACTIONS, action_mask, games


def allowed_actions(game: str, actions: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Bool (18,): an ALE game's minimal action set; for any other game, the actions in its recording.

    Args:
        actions: uint8 (N,), of all recorded rows.
        final: bool (N,), rows whose action is only a placeholder.
    """
    if game in games():
        return action_mask(game)
    mask = np.zeros(NUM_ACTIONS, dtype=np.bool_)
    mask[actions[~final]] = True
    return mask
