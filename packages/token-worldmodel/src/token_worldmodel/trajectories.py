"""Token trajectories: a game's tokens, actions and rewards as columns, and their file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ._artifact import load_artifact, save_artifact

COLUMNS = {
    "tokens": np.int16,
    "actions": np.uint8,
    "rewards": np.float32,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "episode_ids": np.int32,
    "lives": np.uint8,
    "alternatives": np.int16,
}
"""Dtype of each column in a file, as documented in docs/artifacts.md."""

OPTIONAL = "alternatives"  # a file without any has no such column


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenTrajectories:
    """Episodes of one game, one after the other; row t is a step: what was seen, then what was done.

    An episode of T actions has T + 1 rows, the last being its final observation: its action is a filler,
    its reward 0 and its flags false.

    Raises:
        ValueError: the columns do not fit together, hold values that their dtypes cannot, have a reward in an
            episode's last row, or flag an end elsewhere than at its last action.
    """

    tokens: np.ndarray  # int16 (N, L)
    actions: np.ndarray  # uint8 (N,), chosen after seeing the row's tokens
    rewards: np.ndarray  # float32 (N,), raw, brought by the row's action
    terminated: np.ndarray  # bool (N,)
    truncated: np.ndarray  # bool (N,)
    episode_ids: np.ndarray  # int32 (N,)
    lives: np.ndarray  # uint8 (N,), when the row's tokens were seen
    # int16 (N, A, L), other tokens that a row may be read as in training; by default A = 0
    alternatives: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))

    def __post_init__(self) -> None:
        """Accept tensors and any integer type; check that the columns fit together."""
        for name, dtype in COLUMNS.items():
            column = np.asarray(getattr(self, name))
            if column.dtype != dtype:
                column = _converted(name, column)
            object.__setattr__(self, name, column)
        if self.tokens.ndim != 2 or not self.tokens.shape[1]:
            raise ValueError(f"tokens have shape {self.tokens.shape}; give (rows, levels), one level or more")
        rows, levels = self.tokens.shape
        if not self.alternatives.size:  # of any shape: `replace` may have changed the number of levels
            object.__setattr__(self, OPTIONAL, np.zeros((rows, 0, levels), np.int16))
        shape = self.alternatives.shape
        if len(shape) != 3 or (shape[0], shape[2]) != (rows, levels):
            raise ValueError(f"alternatives have shape {shape}; give ({rows}, any number, {levels})")
        wrong = [
            f"{name} {getattr(self, name).shape}"
            for name in COLUMNS
            if name not in ("tokens", OPTIONAL) and getattr(self, name).shape != (rows,)
        ]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} should have shape ({rows},), one value per token row")
        if not np.isfinite(self.rewards).all():
            raise ValueError("rewards hold NaN or infinity; give finite numbers")
        for name in ("tokens", OPTIONAL):
            if (least := getattr(self, name).min(initial=0)) < 0:
                raise ValueError(f"{name} hold {least}; codes count from 0")
        starts = np.flatnonzero(np.diff(self.episode_ids)) + 1
        if len(starts) + 1 != len(np.unique(self.episode_ids)) and len(self.tokens):
            raise ValueError("episode_ids return to an earlier episode; sort the rows so each is contiguous")
        final = self.final
        last_action = np.append(final[1:], False)
        for name in ("rewards", "terminated", "truncated"):
            # Nothing is learned from a final observation's action: what it brings would be lost.
            if (late := (getattr(self, name) != 0) & final).any():
                raise ValueError(
                    f"{name}[{int(late.argmax())}] is set on the last row of its episode, a final "
                    "observation that brings nothing; set it on the row before, whose action brought it"
                )
        for name in ("terminated", "truncated"):
            ends = getattr(self, name)
            # Windows would continue into what came after, as if the action had led there.
            if (early := ends & ~last_action).any():
                raise ValueError(
                    f"{name}[{int(early.argmax())}] is set before its episode's last action; give what comes "
                    "after its final observation another of episode_ids"
                )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tokens)

    @property
    def num_levels(self) -> int:
        """Tokens per row."""
        return self.tokens.shape[1]

    @property
    def final(self) -> np.ndarray:
        """bool (N,): the last row of each episode, whose action is a filler."""
        return np.append(np.diff(self.episode_ids) != 0, True) if len(self) else np.zeros(0, np.bool_)


def _converted(name: str, column: np.ndarray) -> np.ndarray:
    dtype = np.dtype(COLUMNS[name])
    converted: np.ndarray = column.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(converted, column):
        raise ValueError(f"{name} hold values that {dtype} cannot; give whole numbers in its range")
    return converted


def save_tokens(
    path: str | Path, trajectories: TokenTrajectories, config: dict[str, Any] | None = None
) -> None:
    """Write trajectories as a ``tokens`` artifact; ``config`` says how the tokens were made.

    It can be read without them: ``json.loads(safe_open(path, "np").metadata()["artifact"])["config"]``, with
    ``safe_open`` of safetensors.

    Raises:
        ValueError: ``config`` cannot be written as JSON.
    """
    # Copied: safetensors rejects columns that share memory, such as one array of False for both end flags.
    columns = {name: np.array(getattr(trajectories, name), order="C") for name in COLUMNS}
    if not columns[OPTIONAL].shape[1]:
        del columns[OPTIONAL]
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    save_artifact(path, tensors, kind="tokens", config=config or {})


def load_tokens(path: str | Path) -> TokenTrajectories:
    """Read a ``tokens`` artifact.

    Raises:
        ValueError: not a readable tokens file, or columns that are missing or do not fit together.
    """
    tensors, _ = load_artifact(path, kind="tokens")
    missing = sorted(COLUMNS.keys() - tensors.keys() - {OPTIONAL})
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; write it with save_tokens")
    return TokenTrajectories(**{name: tensors[name].numpy() for name in COLUMNS if name in tensors})
