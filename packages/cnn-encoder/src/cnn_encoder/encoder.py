"""The encoder (four frames in, a unit vector out) and its file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._artifact import load_artifact, save_artifact
from ._checks import require_whole
from ._weights import plain_weights, with_weights
from .initialization import initialize

FRAME_SIZE = 84
STACK = 4

_BACKGROUND = "background."  # before a game's name: the name of its background in the file


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Sizes of an `Encoder`; the defaults give 1,881,120 parameters.

    Attributes:
        embedding_dim: length of an embedding.
        hidden_dim: width of the hidden layer between the convolutions and the embedding.
    """

    embedding_dim: int = 384
    hidden_dim: int = 512

    def __post_init__(self) -> None:
        require_whole(self, "embedding_dim", "hidden_dim")


class Encoder(nn.Module):
    """The convolutional network of DQN (Mnih et al. 2015), with a unit-norm embedding instead of Q-values.

    conv 4->32 8/4, 32->64 4/2, 64->64 3/1, then 3136->512->384, ReLU between.
    """

    def __init__(self, config: EncoderConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(STACK, 32, 8, 4)
        self.conv2 = nn.Conv2d(32, 64, 4, 2)
        self.conv3 = nn.Conv2d(64, 64, 3, 1)
        self.hidden = nn.Linear(64 * 7 * 7, config.hidden_dim)
        self.out = nn.Linear(config.hidden_dim, config.embedding_dim)
        initialize(self, generator)

    def forward(self, frames: Tensor, background: Tensor | None = None) -> Tensor:
        """Embed stacks of four frames: ``normalize(f((frames - background) / 255))``.

        Args:
            frames: uint8 or float (..., 4, 84, 84) gray levels 0..255, oldest first.
            background: the game's mean frame, float (84, 84), or one for each stack, (..., 84, 84) with as
                many dimensions as the stacks have, of size 1 where they share it. None subtracts nothing.

        Returns:
            float32 (..., embedding_dim) of norm 1.

        Raises:
            ValueError: a shape is not as above.
        """
        if frames.shape[-3:] != (STACK, FRAME_SIZE, FRAME_SIZE):
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; "
                f"expected (..., {STACK}, {FRAME_SIZE}, {FRAME_SIZE})"
            )
        return self._network(center_frames(frames, background, self._compute_dtype()))

    def embed_clips(self, clips: Tensor, background: Tensor | None = None) -> Tensor:
        """Embed every moment of clips of consecutive frames: ``self(stack_frames(clips), background)``.

        That holds for a single background; one per clip is ``background[:, None]`` there.

        Each frame is centred once instead of in each of the four stacks that contain it.

        Args:
            clips: uint8 or float (B, 3+T, 84, 84).
            background: float (84, 84), or one for each clip, (B, 84, 84). None subtracts nothing.

        Returns:
            float32 (B, T, embedding_dim) of norm 1.

        Raises:
            ValueError: a shape is not as above.
        """
        return self._network(stack_frames(center_frames(clips, background, self._compute_dtype())))

    def _network(self, stacks: Tensor) -> Tensor:
        """Centred stacks (..., 4, 84, 84) -> (..., embedding_dim)."""
        x = stacks.reshape(-1, STACK, FRAME_SIZE, FRAME_SIZE)
        x = F.relu(self.conv1(x), inplace=True)
        x = F.relu(self.conv2(x), inplace=True)
        x = F.relu(self.conv3(x), inplace=True)
        x = F.relu(self.hidden(x.flatten(1)), inplace=True)
        z = F.normalize(self.out(x).float(), dim=-1)
        return z.reshape(*stacks.shape[:-3], z.shape[-1])

    def _compute_dtype(self) -> torch.dtype:
        device = self.conv1.weight.device.type
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return self.conv1.weight.dtype


def center_frames(frames: Tensor, background: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(frames - background) / 255 in ``dtype``: small moving things, not the scenery, carry the signal.

    In bfloat16 gray levels are exact, and so is the difference wherever the background never changes.
    """
    x = frames.to(dtype)
    if background is not None:
        own, stacks = background.shape[:-2], frames.shape[:-3]
        fits = not own or (
            len(own) == len(stacks) and all(a in (1, b) for a, b in zip(own, stacks, strict=True))
        )
        if background.shape[-2:] != (FRAME_SIZE, FRAME_SIZE) or not fits:
            raise ValueError(
                f"background has shape {tuple(background.shape)} for frames of {tuple(frames.shape)}; give "
                f"the mean frame of the game, (84, 84), or one for each stack or clip, {(*stacks, 84, 84)}"
            )
        return (x - background.to(x.device, dtype).unsqueeze(-3)).mul_(1 / 255)
    return x * (1 / 255)


def as_tensor(frames: Tensor | np.ndarray) -> Tensor:
    """The same as a tensor, without a copy unless PyTorch needs one.

    It takes no negative strides, and warns about read-only arrays, such as those of mapped files.
    """
    if isinstance(frames, Tensor):  # as torch.as_tensor would not leave it, if the default device is another
        return frames
    return torch.from_numpy(np.require(frames, requirements=("C", "W")))


def stack_frames(clip: Tensor | np.ndarray) -> Tensor:
    """All stacks of four in clips of consecutive frames, as a view: (B, 3+T, 84, 84) -> (B, T, 4, 84, 84)."""
    clip = as_tensor(clip)
    if clip.ndim != 4 or clip.shape[1] < STACK or clip.shape[2:] != (FRAME_SIZE, FRAME_SIZE):
        raise ValueError(f"clip has shape {tuple(clip.shape)}; expected (B, 3+T, 84, 84) with T >= 1")
    return clip.unfold(1, STACK, 1).movedim(-1, 2)


def mean_frame(frames: Tensor | np.ndarray, *, chunk: int = 4096) -> Tensor:
    """The background of a game, the mean of its frames: uint8 (N, 84, 84) -> float32 (84, 84), no labels.

    Args:
        frames: a tensor, an array, or anything whose slices are arrays, such as frames on disk.
        chunk: rows read at a time.

    Raises:
        ValueError: there are no frames, or they are not uint8 (N, 84, 84).
    """
    if len(frames) == 0:
        raise ValueError("there are no frames; expected uint8 (N, 84, 84) with N >= 1")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; give how many rows are read at a time, 1 or more")
    total = torch.zeros(FRAME_SIZE, FRAME_SIZE, dtype=torch.float64, device="cpu")
    for start in range(0, len(frames), chunk):
        part = as_tensor(frames[start : start + chunk])
        if part.dtype != torch.uint8 or part.shape[1:] != (FRAME_SIZE, FRAME_SIZE):
            raise ValueError(
                f"frames are {part.dtype} {(len(frames), *part.shape[1:])}; expected uint8 (N, 84, 84)"
            )
        total = total.to(part.device) + part.sum(0, dtype=torch.int64)
    return (total / len(frames)).float()


def save_encoder(path: str | Path, encoder: Encoder, backgrounds: Mapping[str, Tensor | np.ndarray]) -> None:
    """Write one file, atomically: the weights, the configuration, and a background for each game seen.

    Args:
        path: of the file.
        encoder: to save.
        backgrounds: by game, float32 (84, 84), the mean frame (see `mean_frame`).

    Raises:
        ValueError: ``encoder`` is not an `Encoder`, or a background is not a frame of finite numbers.
    """
    tensors = plain_weights(encoder, Encoder)
    for game, background in backgrounds.items():
        # A copy: two games may share one tensor, which a file does not allow.
        frame = as_tensor(background).float().clone()
        if not _is_background(frame):
            raise ValueError(
                f"the background of {game} is {tuple(frame.shape)}, or not finite; give a mean frame (84, 84)"
            )
        tensors[_BACKGROUND + game] = frame
    save_artifact(path, tensors, kind="encoder", config=asdict(encoder.config))


def load_encoder(path: str | Path) -> tuple[Encoder, dict[str, Tensor]]:
    """Read an encoder (on CPU, in eval mode) and its backgrounds by game.

    Raises:
        ValueError: the file is missing, damaged or of another kind, or its weights do not fit its settings.
    """
    tensors, config = load_artifact(path, kind="encoder")
    backgrounds = {
        name.removeprefix(_BACKGROUND): tensors.pop(name)
        for name in sorted(tensors)
        if name.startswith(_BACKGROUND)
    }
    for game, frame in backgrounds.items():
        if not _is_background(frame):
            raise ValueError(
                f"{path} holds a background of {game} that is no mean frame (84, 84); write it again"
            )
    return with_weights(path, lambda: Encoder(EncoderConfig(**config)), tensors), backgrounds


def _is_background(frame: Tensor) -> bool:
    return frame.shape == (FRAME_SIZE, FRAME_SIZE) and bool(frame.isfinite().all())
