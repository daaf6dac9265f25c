"""The wm app: a command, and a function to use a trained policy from Python (`load_policy`)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wm.trained import load_policy

__all__ = ["load_policy"]


def __getattr__(name: str) -> Any:
    """Import what ``__all__`` names on first use: it needs PyTorch, which `wm --help` should not load."""
    if name in __all__:
        from wm import trained

        return getattr(trained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
