"""State retention: how much of the state is left after each stage, on episodes of another seed."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .encoder import FRAME_SIZE, center_frames
from .probes import MLPProbeConfig, ProbeData, linear_probe, mlp_probe
from .variables import StateLabels, category

_CHUNK = 256  # frames centred at a time


class Stage(NamedTuple):
    """One representation of the same frames."""

    name: str  # "embedding", "after L0", ...
    train: Tensor  # (N, F) features of the frames the probe is trained on
    test: Tensor  # (M, F) features of frames from episodes of another seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """How well one variable can be read at one stage."""

    stage: str
    variable: str
    category: str
    linear_r2: float
    mlp_r2: float
    mlp_error: float  # mean absolute error, RAM pixels for positions
    num_frames: int  # test frames on which the variable counts

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with nan turned into None."""
        row = asdict(self)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def retention(
    stages: Iterable[Stage], train: StateLabels, test: StateLabels, config: MLPProbeConfig | None = None
) -> list[Retention]:
    """Probe every stage for every variable: stages in order, and within a stage motions after all others.

    Motions have probes of their own, because at a stage that does not contain them they would only disturb
    the others.

    Args:
        stages: taken one at a time, so a generator need not hold them all.
        train: labels of the frames the probes are trained on.
        test: labels of the test frames, of the same variables.
        config: of the MLP probe.

    Raises:
        ValueError: two stages have the same name, the two sets of labels differ in their variables, or a
            stage does not have one row per label.
    """
    if train.names != test.names:
        raise ValueError(f"train labels are {train.names}, test labels {test.names}; they must be the same")
    groups = [columns for motion in (False, True) if (columns := train.columns(motion=motion))]
    rows: list[Retention] = []
    for stage in stages:
        if any(row.stage == stage.name for row in rows):
            raise ValueError(f"two stages are named {stage.name!r}; give each a name of its own")
        for columns in groups:
            data = ProbeData(stage.train, train.values[:, columns], train.in_play[:, columns])
            held_out = ProbeData(stage.test, test.values[:, columns], test.in_play[:, columns])
            linear, mlp = linear_probe(data, held_out), mlp_probe(data, held_out, config)
            rows += [
                Retention(
                    stage=stage.name,
                    variable=train.names[v],
                    category=category(train.names[v]),
                    linear_r2=linear.r2[i],
                    mlp_r2=mlp.r2[i],
                    mlp_error=mlp.mean_error[i],
                    num_frames=int(test.in_play[:, v].sum()),
                )
                for i, v in enumerate(columns)
            ]
    return rows


def pixel_features(frames: Tensor, background: Tensor) -> Tensor:
    """Frames as features for a probe: uint8 (N, 84, 84) -> float32 (N, 1764).

    The background is subtracted and 2x2 pixels are averaged, so that a linear probe stays affordable.
    """
    found = torch.empty(len(frames), (FRAME_SIZE // 2) ** 2, device=frames.device)
    # In parts: centred frames take four times the memory of frames.
    parts = frames.split(_CHUNK)
    own = background.shape[:-2] == frames.shape[:1]
    backgrounds = background.split(_CHUNK) if own else [background] * len(parts)
    for into, part, behind in zip(found.split(_CHUNK), parts, backgrounds, strict=True):
        centred = center_frames(part.unsqueeze(1), behind, torch.float32)
        into.copy_(F.avg_pool2d(centred, 2).flatten(1))
    return found


def retention_table(rows: list[Retention]) -> str:
    """Markdown: a line per variable, a column per stage, and in each cell the MLP probe's R2 and error.

    A cell is empty if its stage was not probed for its variable.
    """
    stages = list(dict.fromkeys(row.stage for row in rows))
    cells = {(row.variable, row.stage): row for row in rows}
    lines = [
        "| variable | frames | " + " | ".join(stages) + " |",
        "|---|---|" + "---|" * len(stages),
    ]
    for variable in dict.fromkeys(row.variable for row in rows):
        found = [cells.get((variable, stage)) for stage in stages]
        known = [row for row in found if row is not None]
        if all(math.isnan(row.mlp_r2) for row in known):
            continue
        texts = ["" if row is None else f"{row.mlp_r2:.3f} ({row.mlp_error:.1f})" for row in found]
        lines.append(f"| {variable} | {known[0].num_frames} | " + " | ".join(texts) + " |")
    return "\n".join(lines)
