"""What counts as a step, an episode and a start: the evaluation protocols of the field, by name."""

from dataclasses import dataclass
from numbers import Real

import numpy as np

from atari_data._checks import whole

_LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How the emulator is driven. Scores and data are comparable only under the same protocol.

    Attributes:
        sticky: probability that the emulator repeats its previous action instead of the given one, drawn at
            every emulated frame (Machado et al. 2018, https://arxiv.org/abs/1709.06009).
        noop_max: an episode starts with a random number of no-ops in [0, noop_max); 0 for none
            (Mnih et al. 2015).
        frameskip: emulated frames per action.
        max_pool: an observation is the maximum of the last two emulated frames (because sprites flicker); an
            episode's first one, which follows no action, is a single frame.
        max_frames: an episode is truncated after this many emulated frames, no-ops not counted.
        fire_reset: press FIRE once when an episode starts.
    """

    sticky: float = 0.0
    noop_max: int = 30
    frameskip: int = 4
    max_pool: bool = True
    max_frames: int = 108_000
    fire_reset: bool = False

    def __post_init__(self) -> None:
        for name, least in (("noop_max", 0), ("frameskip", 1), ("max_frames", 1)):
            value = whole(name, getattr(self, name), least=least)
            if value > _LARGEST:
                raise ValueError(f"{name} is {value}; the emulator counts to {_LARGEST}")
            object.__setattr__(self, name, value)
        for name in ("max_pool", "fire_reset"):
            flag = getattr(self, name)
            if not isinstance(flag, bool | np.bool_):
                raise ValueError(f"{name} is {flag!r}; give True or False")
            object.__setattr__(self, name, bool(flag))
        if not isinstance(self.sticky, Real):
            raise ValueError(f"sticky is {self.sticky!r}; give a probability in [0, 1)")
        object.__setattr__(self, "sticky", float(self.sticky))
        if not 0.0 <= self.sticky < 1.0:
            raise ValueError(f"sticky is {self.sticky}; give a probability in [0, 1)")
        if self.max_frames < self.frameskip:
            raise ValueError(
                f"max_frames is {self.max_frames}, less than frameskip {self.frameskip}; "
                "give at least one action's worth of frames"
            )


PROTOCOLS: dict[str, Protocol] = {
    "atari100k": Protocol(),
    "ale_v5": Protocol(sticky=0.25, noop_max=0),
}
"""`atari100k`: deterministic emulator, random no-op starts. `ale_v5`: sticky actions, no no-ops."""


def check_protocol(protocol: Protocol) -> Protocol:
    """Return ``protocol`` if it is a :class:`Protocol`.

    Raises:
        ValueError: it is something else, such as a protocol's name.
    """
    if isinstance(protocol, Protocol):
        return protocol
    named = ", ".join(f"PROTOCOLS[{name!r}]" for name in PROTOCOLS)
    raise ValueError(f"protocol is {protocol!r}; give {named} or a Protocol of your own")
