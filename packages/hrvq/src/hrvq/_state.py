"""The state of a quantizer: its codes, their statistics, and how many steps made them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from hrvq._artifact import load_artifact, save_artifact
from hrvq._checks import check_tensors
from hrvq._config import HRVQConfig, spherical
from hrvq._gradients import normalize
from hrvq._statistics import Level


class Codes(nn.Module):
    """The codes of all levels in one table, in float32 whatever the model around them is converted to."""

    table: Tensor
    counts: Tensor
    sums: Tensor
    _weights: Tensor
    _progress: Tensor

    def __init__(self, config: HRVQConfig) -> None:
        super().__init__()
        if not isinstance(config, HRVQConfig):
            raise ValueError(f"config is {config!r}; give an HRVQConfig, such as HRVQConfig(dim=64)")
        self.config = config
        self._sizes = config.codes_per_level
        # All levels' codes in one table, so that decoding is one gather; its last row is "no code".
        total, dtype = sum(self._sizes), torch.float32  # whatever the program's default dtype is
        with torch.inference_mode(False):  # buffers made in it could not be updated later
            self.register_buffer("table", torch.zeros(total + 1, config.dim, dtype=dtype))
            self.register_buffer("counts", torch.zeros(total, dtype=dtype))
            self.register_buffer("sums", torch.zeros(total, config.dim, dtype=dtype))
            self.register_buffer("_weights", self._level_weights(), persistent=False)
            self.register_buffer("_progress", torch.zeros((), dtype=torch.int64), persistent=False)
        self._first_rows = self._made_first_rows()
        # A bool as well as the number: a compiled module guards what it reads, and this changes only once.
        self._initialized = False
        self._frozen = False
        self._steps = 0  # starts and updates done; read from the buffer on a CPU, elsewhere that would wait

    def _made_first_rows(self) -> Tensor:
        starts = list(accumulate(self._sizes, initial=0))[:-1]
        with torch.inference_mode(False):
            return torch.tensor(starts, device=self.table.device)

    @property
    def _starts(self) -> Tensor:
        """The table's first row of each level, int64 (levels,).

        Not a buffer: averaging of weights, which includes buffers, would round some of them down.
        """
        if self._first_rows.device != self.table.device:  # buffers may be moved without it
            self._first_rows = self._made_first_rows()
        return self._first_rows

    def _level_weights(self) -> Tensor:
        weights = self.config.weight_per_level
        return torch.tensor(weights, dtype=torch.float32, device=self.table.device)

    def extra_repr(self) -> str:
        """Shape, for print."""
        return f"dim={self.config.dim}, codes={' + '.join(map(str, self._sizes))}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move as ``to`` does, but keep every dtype: rounded codes would be different codes."""

        def moved(tensor: Tensor) -> Tensor:
            other = fn(tensor)
            return other if other.dtype == tensor.dtype else tensor.to(other.device)

        empty = self.table.is_meta
        super()._apply(moved, recurse)
        self._first_rows = self._made_first_rows()
        if empty and not self.table.is_meta:  # `to_empty` leaves in them whatever the memory held
            for buffer in (self.table, self.counts, self.sums, self._progress):
                buffer.zero_()
            self._weights = self._level_weights()
            self._steps, self._initialized = 0, False
        return self

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        """Each level's codes, float32 (K, dim): views, only for reading."""
        return tuple(self.table[:-1].split(self._sizes))

    @property
    def initialized(self) -> bool:
        """Whether the codes hold anything yet."""
        if not self._initialized and not self._progress.is_meta:
            # Anything that copies buffers (DDP to its ranks, an average of weights) copies this one too. It
            # is read only as long as there are no codes, because reading waits for a GPU.
            self._steps = int(self._progress)
            # Some averages of weights copy only the floating-point ones, so not the number of steps.
            self._initialized = self._steps > 0 or bool(self.counts.any())
        return self._initialized

    @property
    def frozen(self) -> bool:
        """Whether :meth:`freeze` was called."""
        return self._frozen

    def freeze(self) -> Self:
        """Keep the codes as they are: from now on :meth:`update` does nothing. Returns itself.

        Lasts as long as this object and its copies; it is not stored in files or state dicts.
        """
        self._frozen = True
        return self

    def get_extra_state(self) -> Tensor:
        """What a state dict needs besides the buffers: the numbers of steps and of codes of each level."""
        steps = self._progress.reshape(1)  # not self._steps, which may lag behind copied buffers
        return torch.cat((steps, steps.new_tensor(self._sizes)))

    def set_extra_state(self, state: Tensor) -> None:
        """Counterpart of :meth:`get_extra_state`."""
        self._steps = int(state[0])
        self._initialized = self._steps > 0
        # Created anew, not filled: after `to_empty` they may hold anything, and on "meta" they hold nothing.
        with torch.inference_mode(False):  # tensors made in it could not be updated later
            self._progress = torch.tensor(self._steps, device=self.table.device)
            self._weights = self._level_weights()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Refuse the codes of another quantizer before any is copied, even if their total number matches."""
        extra = state_dict.get(f"{prefix}_extra_state")
        sizes = self._sizes if extra is None or len(extra) == 1 else tuple(extra[1:].tolist())
        held = [f"codes {sizes}"] if sizes != self._sizes else []
        for name, own in self.named_buffers():
            shape = state_dict.get(f"{prefix}{name}", own).shape
            if shape != own.shape:
                held.append(f"{name} of {tuple(shape)}")
        if held:
            error_msgs.append(
                f"the state of {prefix or 'the quantizer'} holds {' and '.join(held)}; this quantizer has "
                f"codes {self._sizes} of {self.config.dim} numbers"
            )
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        for name in ("table", "counts", "sums"):  # with `assign` they are the given ones, in their dtype
            setattr(self, name, getattr(self, name).float())

    @torch.no_grad()
    def set_codebooks(self, codebooks: Sequence[Tensor], counts: Sequence[Tensor] | None = None) -> None:
        """Set the codes; with cosine distance those of level 0 are scaled to unit length.

        Args:
            codebooks: floating (K, dim) for each level.
            counts: (K,) for each level, how many vectors of a batch chose each code; all equal if omitted.
        """
        self._check_open("set_codebooks")
        if counts is None:
            counts = [self.table.new_ones(size) for size in self._sizes]
        for name, given, expected in (
            ("codebooks", codebooks, [(size, self.config.dim) for size in self._sizes]),
            ("counts", counts, [(size,) for size in self._sizes]),
        ):
            check_tensors(**{f"{name}[{level}]": tensor for level, tensor in enumerate(given)})
            for number, tensor in enumerate(given):
                if name == "codebooks" and not tensor.is_floating_point():
                    raise ValueError(f"codebooks[{number}] is {tensor.dtype}; give a floating-point tensor")
            shapes = [tuple(tensor.shape) for tensor in given]
            if shapes != expected:
                raise ValueError(f"{name} have shapes {shapes}; this quantizer's are {expected}")
            if not all(bool(tensor.float().isfinite().all()) for tensor in given):
                raise ValueError(f"{name} have NaN or infinite values in float32; give finite ones")
        if not all(bool((count >= 0).all()) and bool(count.float().any()) for count in counts):
            raise ValueError(
                "counts are negative or all zero at some level; give how often each code is chosen"
            )
        # Copies: the arguments may be views of what is written.
        copies = [(codes.clone(), count.clone()) for codes, count in zip(codebooks, counts, strict=True)]
        for index, (level, (codes, count)) in enumerate(zip(self._levels(), copies, strict=True)):
            directions = spherical(self.config, index)
            level.set(normalize(codes.float()) if directions else codes, count, self.config.smoothing)
        self._advance()

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file: `codebooks.l`, `counts.l` and `sums.l` of each level."""
        # Copies, because safetensors refuses views that share storage.
        tensors = {name: part.clone() for name, part in self._tensors().items()}
        save_artifact(path, tensors, kind="hrvq", config=asdict(self.config))

    @classmethod
    @torch.inference_mode(False)  # buffers made in it could not be updated later
    @torch.no_grad()
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Read what :meth:`save` wrote; the quantizer comes back in eval mode, where `update` does nothing.

        Raises:
            ValueError: the file is missing, damaged, of another kind, or its parts do not fit together.
        """
        tensors, config = load_artifact(path, kind="hrvq")
        try:
            with torch.device("cpu"):  # where the file's tensors are, whatever the program's default device
                quantizer = cls(HRVQConfig.from_dict(config))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold a quantizer's config: {error}") from error
        parts = quantizer._tensors()
        shapes, expected = (
            {name: (t.shape, t.is_floating_point()) for name, t in some.items()} for some in (tensors, parts)
        )
        wrong = sorted(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
        if wrong:
            raise ValueError(f"{path} is damaged: its tensors {wrong} do not fit its config; write it again")
        damaged = sorted(n for n, tensor in tensors.items() if not bool(tensor.float().isfinite().all()))
        if damaged:
            raise ValueError(
                f"{path} is damaged: {damaged} have NaN or infinite values in float32; write it again"
            )
        negative = sorted(
            name
            for name, tensor in tensors.items()
            if name.startswith(("counts", "steps")) and bool((tensor < 0).any())
        )
        if negative:
            raise ValueError(f"{path} is damaged: {negative} are negative; write it again")
        for name, part in parts.items():
            part.copy_(tensors[name])
        quantizer.set_extra_state(tensors["steps"])
        return quantizer.to(device).eval()

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that changes, by its name in files; all but the steps are views."""
        parts = zip(("codebooks", "counts", "sums"), self._parts(), strict=True)
        return {"steps": self._progress.reshape(1).clone()} | {
            f"{name}.{level}": part for name, levels in parts for level, part in enumerate(levels)
        }

    def _parts(self) -> tuple[Sequence[Tensor], ...]:
        """Codes, counts and sums, each a view for every level."""
        return self.codebooks, self.counts.split(self._sizes), self.sums.split(self._sizes)

    def _levels(self) -> list[Level]:
        return [Level(*level) for level in zip(*self._parts(), strict=True)]

    def _advance(self) -> None:
        self._steps += 1
        self._initialized = True
        self._progress += 1  # on the device, because copied buffers change it there

    def _generator(self) -> torch.Generator:
        """The generator of the next step: a function of the seed and the step, so resuming repeats it."""
        if self._progress.device.type == "cpu":
            self._steps = int(self._progress)
        seed = (self.config.seed * 1_000_003 + self._steps) % 2**63
        return torch.Generator(self.table.device).manual_seed(seed)

    def _check_open(self, action: str) -> None:
        if self._frozen:
            raise ValueError(f"the quantizer is frozen, so {action} may not change it; build or load another")

    def _check_initialized(self) -> None:
        if not self.initialized:
            raise ValueError("the codes are still empty; call initialize(x), update(x) or fit(x) first")
