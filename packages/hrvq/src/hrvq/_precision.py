"""The widest floating-point type of a device."""

import torch

_WITHOUT_FLOAT64 = {"mps"}  # Apple's GPUs


def widest(device: torch.device) -> torch.dtype:
    """float64 where the device has it, else float32: sums are then off in the fifth digit, ties arbitrary."""
    return torch.float32 if device.type in _WITHOUT_FLOAT64 else torch.float64
