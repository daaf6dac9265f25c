"""The objective of the encoder: temporal InfoNCE, inverse dynamics, layout and picture of a frame, reward."""

from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import require_number, require_whole
from .augmentation import random_shift
from .encoder import FRAME_SIZE, STACK, Encoder
from .initialization import initialize
from .layout import banded_layout, layout, loudness
from .picture import PICTURE_SIZE, picture
from .running import RunningScale, RunningWhitening

NUM_ACTIONS = 18
NUM_SIGNS = 3  # of a reward: below, at and above zero
_PICTURE_GAIN = 100.0
_LAYOUT_FLOOR = 0.05  # on a scale of -1 to 1: keeps what is hardly ever visible from being scaled up fully


def info_nce(
    anchors: Tensor, positives: Tensor, temperature: float, *, ignore: Tensor | None = None
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, eq. 4), in nats, averaged over all anchors.

        loss_i = -log( exp(a_i . p_i / temperature) / sum_j exp(a_i . p_j / temperature) )

    Args:
        anchors: (..., N, D).
        positives: (..., N, D); row i is the positive of anchor i, the other rows of the same N its negatives.
        temperature: divides the dot products.
        ignore: bool, broadcast to (..., N, N); true where row j must not count as a negative of anchor i.

    Returns:
        A float32 scalar; log N at chance.
    """
    if anchors.shape != positives.shape or anchors.ndim < 2:
        raise ValueError(
            f"anchors are {tuple(anchors.shape)}, positives {tuple(positives.shape)}; "
            "both must have one shape (..., N, D)"
        )
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; give a number above 0")
    with torch.autocast(anchors.device.type, enabled=False):
        logits = anchors.float() @ positives.float().mT / temperature
    if ignore is not None:
        logits = logits.masked_fill(ignore, -torch.inf)
    return (logits.logsumexp(-1) - logits.diagonal(dim1=-2, dim2=-1)).mean()


def balanced_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy in nats, averaged within each class that occurs, then over those classes.

    Args:
        logits: (N, K).
        classes: int64 (N,).
    """
    # Not bincount, which waits for a GPU to return the highest class.
    counts = (classes[:, None] == torch.arange(logits.shape[-1], device=classes.device)).sum(0)
    share = 1 / (counts[classes] * (counts > 0).sum())
    return (share * F.cross_entropy(logits, classes, reduction="none")).sum()


class ClipBatch(NamedTuple):
    """S stretches of T consecutive steps, each inside one episode; they may come from several games."""

    frames: Tensor  # (S, 3+T, 84, 84) uint8: the last T are the stretch, the first 3 its history
    actions: Tensor  # (S, T) integer ids of the 18 actions; actions[:, t] is chosen after frame 3+t
    background: Tensor  # (S, 84, 84) float32, the mean frame of each stretch's game; (1, 84, 84) for all
    rewards: Tensor | None = None  # (S, T) float32, rewards[:, t] is the result of actions[:, t], if known


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastiveConfig:
    """What a `ContrastiveObjective` asks of the embedding, and with which weights.

    Layout and picture far outweigh contrast and inverse dynamics, because an encoder takes longest to learn
    where everything is. With the default settings probes read most of the state; the best agents were trained
    on tokens of ``layout_bands=0, layout_weight=10, layout_lag=3, picture_weight=0, reward_weight=0.5``.

    Attributes:
        temperature: of InfoNCE.
        contrastive_weight: weight of InfoNCE; the weights below are those of the other terms.
        inverse_weight: of inverse dynamics: which action led from one moment to the next.
        inverse_start_step: training step from which inverse dynamics counts.
        inverse_hidden_dim: width of its head's hidden layer.
        layout_weight: of the layout: where the moving things are.
        layout_frequencies: spatial frequencies per axis in which the layout describes positions.
        layout_lag: with 1 to 3, the layout this many frames before is asked for as well, and so is motion.
        layout_bands: bands of brightness (`banded_layout`), for each of which the layout describes positions
            separately; with 0 there is one layout of everything that moves (`layout`).
        picture_weight: of the picture: how much of each brightness every row and column holds.
        reward_weight: of the reward: the sign of the reward on the way to a moment.
        head_start_steps: for an encoder whose training continues under new heads: for this many steps only
            the heads are trained, because the gradients of random heads would undo what the encoder has
            learned. At least one head must then have a weight above 0.
        shift: shifts every stretch by up to this many pixels in training (`random_shift`), and its targets
            with it; drawn from PyTorch's global random numbers, as dropout is.
    """

    temperature: float = 0.1
    contrastive_weight: float = 0.2
    inverse_weight: float = 1.0
    inverse_start_step: int = 150
    inverse_hidden_dim: int = 256
    layout_weight: float = 100.0
    layout_frequencies: int = 4
    layout_lag: int = 0
    layout_bands: int = 12
    picture_weight: float = 10.0
    reward_weight: float = 5.0
    head_start_steps: int = 0
    shift: int = 0

    def __post_init__(self) -> None:
        require_whole(self, "inverse_hidden_dim", "layout_frequencies")
        require_whole(self, "inverse_start_step", "head_start_steps", least=0)
        require_whole(self, "layout_bands", "shift", least=0)
        require_number(self, "temperature", zero=False)
        require_number(self, "contrastive_weight", "inverse_weight", "layout_weight")
        require_number(self, "picture_weight", "reward_weight")
        if not (self.contrastive_weight or self.has_heads):
            raise ValueError("every weight is 0, so nothing would be learned; give one a weight")
        if self.head_start_steps and not self.has_heads:
            raise ValueError(
                f"head_start_steps is {self.head_start_steps} and every head's weight is 0; "
                "give one a weight, or no head start"
            )
        if self.layout_bands == 1:
            raise ValueError(
                "layout_bands is 1; give 2 or more, or 0 for a layout of all brightnesses together"
            )
        if not isinstance(self.layout_lag, Integral) or self.layout_lag not in range(STACK):
            raise ValueError(
                f"layout_lag is {self.layout_lag}; it must be 0 to {STACK - 1}, "
                "the frames that an encoder sees before the newest"
            )
        require_whole(self, "layout_lag", least=0)
        most = {"layout_frequencies": FRAME_SIZE, "layout_bands": 256, "shift": FRAME_SIZE // 2}
        for name, limit in most.items():
            if (value := getattr(self, name)) > limit:
                raise ValueError(f"{name} is {value}; frames of {FRAME_SIZE} x {FRAME_SIZE} allow {limit}")

    @property
    def has_heads(self) -> bool:
        """Whether any head beside the contrast has a weight."""
        weights = self.inverse_weight, self.layout_weight, self.picture_weight, self.reward_weight
        return any(weights)


class ContrastiveObjective(nn.Module):
    """Five objectives for an embedding; none uses labels.

    *Contrast*: a moment must be nearer to the next moment than to any other of the same stretch. Negatives
    from elsewhere could be told apart by the score or the scene; these differ only in what moves.

    *Inverse dynamics*: predict which action led from one moment to the next. It starts late, because from the
    first step on it would keep InfoNCE at chance.

    *Layout*: the positions of what moves in the newest frame, as its lowest spatial frequencies and
    separately for each band of brightness (`cnn_encoder.layout`), must be linear in the embedding. A contrast
    is satisfied by any code that tells moments apart, however convoluted; a quantizer needs the state to lie
    where the variance is, along few and straight directions. Every frequency is in units of its standard
    deviation, with lower ones weighted higher; without bands they are whitened. With ``layout_lag`` the
    layout of the frame that many steps before must be linear, too: then the embedding holds where objects are
    going as well as where they are. What differs between the two moments counts as much as what they share:
    without bands through the whitening, with them as sum and difference.

    *Reward*: whether what led to a moment brought a reward, and of which sign, must be linearly readable from
    the moment's embedding. A point is a small object on the screen, or merely the disappearance of one, and
    rare: no other objective preserves it, and without it no dream shows what is worth doing. Left out where a
    batch has no rewards.

    *Picture*: how much of each brightness every row and column of the newest frame holds
    (`cnn_encoder.picture`) must be linear in a hundred times the embedding, so that directions of little
    variance are enough for it. It preserves what the others do not need, such as the score, and what linear
    probes need: each position on its own.

    The heads are discarded after training. Some steps leave some parameters without a gradient (the head
    start, a batch without rewards, a head whose weight is 0), so ``DistributedDataParallel`` needs
    ``find_unused_parameters=True``.
    """

    step: Tensor

    def __init__(
        self, encoder: Encoder, config: ContrastiveConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        dim = encoder.config.embedding_dim
        num_maps = (config.layout_bands or 2) * (2 if config.layout_lag else 1)
        num_layout = num_maps * config.layout_frequencies**2
        self.inverse = nn.Sequential(
            nn.Linear(2 * dim, config.inverse_hidden_dim),
            nn.ReLU(),
            nn.Linear(config.inverse_hidden_dim, NUM_ACTIONS),
        )
        self.layout = nn.Linear(dim, num_layout)
        initialize(self.inverse, generator)
        initialize(self.layout, generator)
        self.reward = nn.Linear(dim, NUM_SIGNS)
        initialize(self.reward, generator)
        self.whiten: RunningScale | RunningWhitening
        if config.layout_bands:
            self.whiten = RunningScale(num_layout, floor=_LAYOUT_FLOOR)
            self.register_buffer("loudness", loudness(config.layout_frequencies).repeat(num_maps), False)
        else:
            self.whiten = RunningWhitening(num_layout)
        if config.picture_weight > 0:
            self.picture = nn.Linear(dim, PICTURE_SIZE)
            nn.init.zeros_(self.picture.weight)
            nn.init.zeros_(self.picture.bias)
            self.scale = RunningScale(PICTURE_SIZE)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        # Follows from the step, but the forward pass needs it at once, and reading the step waits for a GPU.
        self._head_start_left = config.head_start_steps
        self._head_start = config.head_start_steps > 0  # separate: a compiler makes a graph for each number
        self.register_load_state_dict_post_hook(_find_head_start)

    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of one batch; in training mode the running statistics include the batch."""
        _check(batch)
        if self.training and self.config.shift:
            frames, background = random_shift(batch.frames, batch.background, self.config.shift)
            batch = batch._replace(frames=frames, background=background)
        # During the head start no gradient at all: with one of zeros an optimiser would still move weights.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._head_start):
            z = self.encoder.embed_clips(batch.frames, batch.background)  # (S, T, D)
        now, following = z[:, :-1], z[:, 1:]
        ignore = _not_negatives(now.shape[1], z.device)
        contrast = info_nce(now, following, self.config.temperature, ignore=ignore)
        loss = self.config.contrastive_weight * contrast
        metrics = {"info_nce": contrast.detach()}
        if self.config.inverse_weight > 0:
            logits = self.inverse(torch.cat([now, following], -1)).float().flatten(0, 1)
            actions = batch.actions[:, :-1].flatten().long()
            inverse = F.cross_entropy(logits, actions)
            # A tensor, not an `if`: reading the step would wait for a GPU.
            started = (self.step >= self.config.inverse_start_step).to(inverse.dtype)
            loss = loss + self.config.inverse_weight * started * inverse
            metrics["inverse_dynamics"] = inverse.detach()
            metrics["inverse_accuracy"] = (logits.argmax(-1) == actions).float().mean()
        if self.config.layout_weight > 0:
            error = F.smooth_l1_loss(self.layout(z).float(), self._layout_target(batch.frames))
            loss = loss + self.config.layout_weight * error
            metrics["layout"] = error.detach()
        if self.config.picture_weight > 0:
            newest = batch.frames[:, STACK - 1 :]
            target = self.scale(picture(newest, batch.background.unsqueeze(1)))
            missing = F.mse_loss(self.picture(_PICTURE_GAIN * z).float(), target)
            loss = loss + self.config.picture_weight * missing
            metrics["picture"] = missing.detach()
        if self.config.reward_weight > 0 and batch.rewards is not None:
            signs = batch.rewards[:, :-1].sign().long() + 1
            balanced = balanced_cross_entropy(self.reward(following).float().flatten(0, 1), signs.flatten())
            loss = loss + self.config.reward_weight * balanced
            metrics["reward"] = balanced.detach()
        metrics["loss"] = loss.detach()
        return loss, metrics

    def _layout_target(self, frames: Tensor) -> Tensor:
        """What the layout's head is asked for, in units of its deviation, (S, T, F)."""
        found = self._layouts(frames)
        if not self.config.layout_bands:
            return self.whiten(found)
        if self.config.layout_lag:
            # As whitening does: what differs between the moments counts as much as what they share.
            now, before = found.chunk(2, -1)
            found = torch.cat([now + before, now - before], -1)
        return self.whiten(found) * self.loudness

    def _layouts(self, frames: Tensor) -> Tensor:
        """The layout of every newest frame, followed by that of the frame ``layout_lag`` before, if any."""
        lag = self.config.layout_lag
        seen, frequencies = _filled(frames[:, STACK - 1 - lag :], lag), self.config.layout_frequencies
        if self.config.layout_bands:
            found = banded_layout(seen, frequencies, self.config.layout_bands)
        else:
            found = layout(seen, frequencies)
        return torch.cat([found[:, lag:], found[:, :-lag]], -1) if lag else found

    def after_step(self) -> None:
        """Count the optimiser step just made."""
        self.step += 1
        self._head_start_left = max(0, self._head_start_left - 1)
        self._head_start = self._head_start_left > 0


def _find_head_start(objective: ContrastiveObjective, *_: object) -> None:
    """Set what is left of the head start from a state that was loaded."""
    objective._head_start_left = max(0, objective.config.head_start_steps - int(objective.step))
    objective._head_start = objective._head_start_left > 0


def _filled(frames: Tensor, history: int) -> Tensor:
    """The frames (S, R, 84, 84), each black one among the first ``history`` replaced by the one after it.

    Black frames pad the stacks before an episode's first frame. The layout would take them for one huge
    moving object.
    """
    frames = frames.clone() if history else frames
    for row in reversed(range(history)):
        black = frames[:, row].flatten(1).amax(1) == 0
        frames[:, row] = torch.where(black[:, None, None], frames[:, row + 1], frames[:, row])
    return frames


def _check(batch: ClipBatch) -> None:
    frames, actions, background = batch.frames, batch.actions, batch.background
    expected = (frames.shape[0], frames.shape[1] - STACK + 1) if frames.ndim == 4 else ()
    if (
        frames.dtype != torch.uint8
        or frames.shape[2:] != (FRAME_SIZE, FRAME_SIZE)
        or actions.shape != expected
        or actions.is_floating_point()
        or expected[0] < 1
        or expected[1] < 4
    ):
        raise ValueError(
            f"frames are {frames.dtype} {tuple(frames.shape)}, actions {actions.dtype} "
            f"{tuple(actions.shape)}; expected uint8 (S, 3+T, 84, 84) and integers (S, T) with S >= 1, T >= 4"
        )
    if background.shape not in ((expected[0], FRAME_SIZE, FRAME_SIZE), (1, FRAME_SIZE, FRAME_SIZE)):
        raise ValueError(
            f"background is {tuple(background.shape)}; expected a mean frame for each of the {expected[0]} "
            f"stretches, ({expected[0]}, 84, 84), or (1, 84, 84) for all"
        )
    rewards = batch.rewards
    if rewards is not None and rewards.shape != expected:
        raise ValueError(f"rewards are {tuple(rewards.shape)}; expected {expected}, as the actions")
    if batch.actions.device.type == "cpu" and not torch.compiler.is_compiling():
        # On a GPU these checks would wait for the device.
        if not 0 <= int(batch.actions.min()) <= int(batch.actions.max()) < NUM_ACTIONS:
            raise ValueError(f"actions are not all ids of the full action set, 0 to {NUM_ACTIONS - 1}")
        if not background.isfinite().all():
            raise ValueError("the background holds NaN or infinity; give a mean frame of finite numbers")
        if rewards is not None and not rewards.isfinite().all():
            raise ValueError(
                "rewards hold NaN or infinity; give finite numbers, or None if they are not known"
            )


def _not_negatives(n: int, device: torch.device) -> Tensor:
    """Bool (n, n) for anchors z[:-1] and positives z[1:]: true for the anchor and the moment before it.

    Column j is moment j + 1. The moment before an anchor has the anchor as its own positive, and similarity
    is symmetric, so as a negative it would be pushed away and pulled closer at once.
    """
    moment = torch.arange(n, device=device)
    behind = moment[:, None] - (moment + 1)[None, :]
    return (behind == 0) | (behind == 1)
