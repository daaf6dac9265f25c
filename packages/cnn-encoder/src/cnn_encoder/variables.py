"""The labelled state variables of a game: their categories, and the frames on which they count."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

AGENT = "agent"
SMALL_OBJECT = "small object"
OTHER = "other localisation"
SCORE = "score/clock/lives"
MISC = "misc"
CATEGORIES = (AGENT, SMALL_OBJECT, OTHER, SCORE, MISC)

_SCORE = re.compile(r"score|clock|lives|meter|display")
_NO_POSITION = re.compile(r"direction|angle|size|count|number|color|bit_map|existence|level|room|state")
_POSITION = re.compile(r"_(x|y|column|position)(_?\d+)?$")
_SMALL_OBJECT = re.compile(r"ball|missile")

# The values of ball_y at which a game draws its ball; 1 to 255 in other games. In Breakout a ball that has
# passed the paddle keeps falling in RAM for some frames but is not on the screen: among 12,000 raw frames it
# was drawn in all with ball_y up to 185, in a third of those with 186, and in none above.
_BALL_DRAWN = {"breakout": (1, 186)}

_MOTION = " motion"  # ends the name of a variable that gives how far another one moved
_TELEPORT = 32  # RAM pixels per step: nothing moves this far; what seems to was placed elsewhere


def category(variable: str) -> str:
    """The AtariARI category (Anand et al. 2019, table 2) of a variable, by its name.

    In this order: names with score, clock, lives, meter or display are "score/clock/lives"; directions,
    angles, counts, colours, levels, rooms and everything else that is not a position are "misc"; positions of
    balls and missiles are "small object"; of the player, "agent"; of all others, "other localisation". A
    motion has the category of its position.
    """
    variable = variable.removesuffix(_MOTION)
    if _SCORE.search(variable):
        return SCORE
    if _NO_POSITION.search(variable) or not _POSITION.search(variable):
        return MISC
    if _SMALL_OBJECT.search(variable):
        return SMALL_OBJECT
    return AGENT if variable.startswith("player") else OTHER


class StateLabels(NamedTuple):
    """V state variables on N frames, and where each of them counts."""

    names: tuple[str, ...]  # V
    values: Tensor  # (N, V) float32, in RAM pixels for positions
    in_play: Tensor  # (N, V) bool

    def columns(self, *, motion: bool) -> list[int]:
        """Indices of the variables that give how another one moved (``motion``), or of all the others."""
        return [v for v, name in enumerate(self.names) if name.endswith(_MOTION) == motion]


def state_labels(
    labels: Mapping[str, NDArray[np.uint8]],
    *,
    game: str | None = None,
    episode_ids: NDArray[np.integer] | None = None,
) -> StateLabels:
    """Put named labels, (N,) each, into one table, and choose the frames on which each variable counts.

    A position counts where its object is in play. If the game has a ball, all positions count only on frames
    where the ball is drawn (``ball_y`` is not 0, and in Breakout at most 186, where a lost ball vanishes). An
    object with both coordinates counts unless both are 0. Other variables count everywhere. Constant
    variables are kept, and score nan. A value that is not finite does not count.

    Args:
        labels: uint8 (N,) by variable name, as in RAM; other number types are converted to float32.
        game: its name. For "pong" the variable ``ball_y - player_y`` is added, which a player must know to
            meet the ball; it counts where the ball is in play and near (``ball_x`` > 120).
        episode_ids: (N,), for rows that are consecutive steps. With them every position gets a second
            variable, such as ``ball_x motion``: how far it moved since the previous row, in RAM pixels per
            step. It counts where the position is in play in both rows, both are in one episode, and it did
            not jump by 32 or more.
    """
    if not labels:
        raise ValueError("labels is empty; give at least one state variable")
    if game is not None and not re.fullmatch(r"[a-z0-9_]+", game):
        raise ValueError(f"game is {game!r}; give its name in snake_case, such as ms_pacman")
    for name, column in labels.items():
        if np.ndim(column) != 1:
            raise ValueError(f"{name} has shape {np.shape(column)}; give one value a frame, (N,)")
    lengths = {name: len(column) for name, column in labels.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the labels differ in length: {lengths}; give one value a frame for each")
    # Copies: PyTorch does not accept reversed arrays, and warns about read-only ones. What is masked becomes
    # NaN, which does not count.
    arrays = {
        name: np.array(np.ma.filled(np.asanyarray(column, np.float32), np.nan), order="C")
        for name, column in labels.items()
    }
    columns = {name: torch.from_numpy(array) for name, array in arrays.items()}
    everywhere = torch.ones(next(iter(lengths.values())), dtype=torch.bool)
    ball = everywhere
    if "ball_y" in columns:
        first, last = _BALL_DRAWN.get(game or "", (1, 255))
        ball = (columns["ball_y"] >= first) & (columns["ball_y"] <= last)
    positions = [name for name in labels if category(name) in (AGENT, SMALL_OBJECT, OTHER)]
    masks = {}
    for name in columns:
        mask = everywhere
        if name in positions:
            partner = _other_coordinate(name)
            other = None if partner == name else columns.get(partner)  # a position on one axis has none
            mask = ball if other is None else ball & ((columns[name] != 0) | (other != 0))
        masks[name] = mask
    if game == "pong" and {"ball_x", "ball_y", "player_y"} <= columns.keys():
        name = "ball_y - player_y"
        columns[name] = columns["ball_y"] - columns["player_y"]
        masks[name] = ball & (columns["ball_x"] > 120)
    if episode_ids is not None:
        ids = np.asarray(episode_ids)
        if len(ids) != len(everywhere):
            raise ValueError(
                f"there are {len(ids)} episode_ids for {len(everywhere)} rows of labels; give one a row"
            )
        if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
            raise ValueError(f"episode_ids are {ids.dtype} {ids.shape}; give whole numbers of shape (N,)")
        goes_on = torch.from_numpy(ids.astype(np.int64)).diff() == 0
        for name in positions:
            moved, here = columns[name].diff(), masks[name]
            counts = here[1:] & here[:-1] & goes_on & (moved.abs() < _TELEPORT)
            columns[name + _MOTION] = F.pad(moved, (1, 0))[: len(here)]  # no row, no motion
            masks[name + _MOTION] = F.pad(counts, (1, 0))[: len(here)]
    values, counted = torch.stack([*columns.values()], 1), torch.stack([*masks.values()], 1)
    return StateLabels(tuple(columns), values, counted & values.isfinite())


def _other_coordinate(name: str) -> str:
    swap = {"x": "y", "y": "x"}
    return re.sub(r"_([xy])(?=(_?\d+)?$)", lambda match: "_" + swap[match[1]], name)
