"""The wm app: a command, and in Python what a run has learned (`load_policy`)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wm.trained import load_policy

__all__ = ["load_policy"]


def __getattr__(name: str) -> Any:
    """What ``__all__`` names, imported when it is asked for: it takes PyTorch, and `wm --help` should not."""
    if name in __all__:
        from wm import trained

        return getattr(trained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
