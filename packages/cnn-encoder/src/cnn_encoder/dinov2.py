"""DINOv2 (Oquab et al. 2023) as a baseline: a large pretrained encoder that has never seen the game.

Needs timm, the extra ``dinov2``. Weights are read from a local file, never downloaded.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import STACK

_MODEL = "vit_small_patch14_dinov2"
_PATCH = 14
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class DINOv2(nn.Module):
    """A frozen ViT-S/14: maps a stack's newest frame, resized, in three equal channels, to 384 numbers."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, image_size: int) -> None:
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor, background: Tensor | None = None) -> Tensor:
        """Embed frames.

        Args:
            frames: uint8 (B, 4, 84, 84) stacks, of which the newest frame is used, or (B, 84, 84) frames.
            background: ignored, since the network expects natural images; it is there to match `Encoder`.

        Returns:
            float32 (B, 384), the class token, not normalised.
        """
        if frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[1] != STACK):
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; expected (B, 4, 84, 84) or (B, 84, 84)"
            )
        newest = frames[:, -1] if frames.ndim == 4 else frames
        x = newest.unsqueeze(1).to(self.mean.dtype) / 255
        size = (self.image_size, self.image_size)
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        embedding: Tensor = self.network((x - self.mean) / self.std)
        return embedding.float()


def load_dinov2(path: str | Path, *, image_size: int = 224) -> DINOv2:
    """Read ViT-S/14 weights from a safetensors file (timm's names) or the published ``.pth``.

    Args:
        path: the weights; position embeddings of another image size are resampled by timm.
        image_size: side in pixels to which frames are resized, a multiple of 14.

    Raises:
        ValueError: timm is missing, the file is missing or does not fit, or the size is not a multiple of 14.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError("DINOv2 needs timm; pip install timm") from error
    if image_size < _PATCH or image_size % _PATCH:
        raise ValueError(f"image_size is {image_size}; it must be a multiple of {_PATCH}, such as 84 or 224")
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a local file of {_MODEL} weights")
    try:
        network = timm.create_model(
            _MODEL,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(path)},
            img_size=image_size,
            num_classes=0,
        )
    except Exception as error:  # timm, pickle and safetensors each raise their own
        reason = " ".join(str(error).split())[:200]  # a list of every missing weight helps nobody
        raise ValueError(
            f"{path} holds no {_MODEL} weights ({reason}); give the published file, or timm's safetensors"
        ) from error
    return DINOv2(network, image_size)
