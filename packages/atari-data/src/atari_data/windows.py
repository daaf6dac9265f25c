"""Episodes in flat arrays: which rows are final, where windows may start, which episodes are for validation.

An episode is a run of rows with the same id. Ids need not be sorted, but must change from run to run.
"""

import numpy as np
from numpy.typing import NDArray

from atari_data._checks import whole


def final_rows(episode_ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Bool [N]: True at each episode's last row, its final observation, whose action is meaningless."""
    return np.roll(first_rows(episode_ids), -1)


def first_rows(episode_ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Bool [N]: True at each episode's first row."""
    ids = _checked(episode_ids)
    first = np.ones(len(ids), dtype=np.bool_)
    np.not_equal(ids[1:], ids[:-1], out=first[1:])
    return first


def lost_lives(episode_ids: NDArray[np.integer], lives: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Bool [N]: True where the action of this row cost a life, for learners that end an episode there."""
    ids, lives = _checked(episode_ids), np.asarray(lives)
    if lives.shape != ids.shape:
        raise ValueError(f"lives are {lives.shape}; give one for each of the {len(ids)} rows")
    lost = np.zeros(len(ids), dtype=np.bool_)
    lost[:-1] = (lives[1:] < lives[:-1]) & (ids[1:] == ids[:-1])
    return lost


def window_starts(episode_ids: NDArray[np.integer], length: int) -> NDArray[np.int64]:
    """Every row at which a window of ``length`` rows fits into its episode, ascending, int64.

    A window may end on its episode's final row.
    """
    ids, length = _checked(episode_ids), whole("length", length, least=1)
    if len(ids) < length:
        return np.empty(0, dtype=np.int64)
    # The number of each row's run: a window lies within one run if both its ends have the same number.
    run = np.cumsum(first_rows(ids), dtype=np.int32)
    return np.flatnonzero(run[: len(ids) - length + 1] == run[length - 1 :])


def split_episodes(
    episode_ids: NDArray[np.integer], validation_fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Bool [N]: True on the rows of validation episodes. Whole episodes, because windows overlap.

    Episodes are assigned in order, each from the rows before it alone, so the split of a longer store agrees
    with the split of its beginning: when play is added, nothing that a model was trained on becomes
    validation data. An episode is for validation with probability ``fraction * (1 + lacking / mean)``, where
    ``lacking`` is the number of rows that validation is short of so far and ``mean`` the mean length of the
    episodes so far. This keeps the share of rows close to the fraction and does not favour short episodes.
    The first episode is for training. If no other is drawn for validation, the second is used, until a later
    one is drawn.
    """
    if not 0.0 <= validation_fraction < 1.0:
        raise ValueError(f"validation_fraction is {validation_fraction}; give a number in [0, 1)")
    ids, seed = _checked(episode_ids), whole("seed", seed, least=0)
    starts = np.flatnonzero(first_rows(ids))
    validates = np.zeros(len(starts), dtype=np.bool_)
    if validation_fraction == 0.0 or len(starts) < 2:
        return np.zeros(len(ids), dtype=np.bool_)
    lengths = np.diff(starts, append=len(ids))
    chance = np.random.default_rng(seed).random(len(starts))
    lacking = validation_fraction * lengths[0]
    for episode in range(1, len(starts)):
        mean = starts[episode] / episode
        validates[episode] = chance[episode] < validation_fraction * (1 + lacking / mean)
        lacking += (validation_fraction - validates[episode]) * lengths[episode]
    validates[1] |= not validates.any()
    return np.repeat(validates, lengths)


def _checked(episode_ids: NDArray[np.integer]) -> NDArray[np.integer]:
    ids = np.asarray(episode_ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"episode_ids is {ids.dtype} {ids.shape}; give integers of shape (N,)")
    return ids
