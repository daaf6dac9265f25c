"""Loads a run's trained parts, frozen and on a device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from atari_data import FrameStore
from cnn_encoder import Decoder, Encoder, load_decoder, load_embeddings, load_encoder, resolve_precision
from hrvq import HRVQ
from latent_ac import Agent, load_agent
from token_worldmodel import TokenTrajectories, WorldModel, load_tokens, load_worldmodel
from torch import Tensor

from wm.config import load_config
from wm.console import train_command
from wm.device import frozen
from wm.run import Layout
from wm.sections import PARTS

Part = TypeVar("Part")

_CALLED = {"hrvq": "quantizer", "worldmodel": "world model"}


def require_parts(layout: Layout, *parts: str) -> None:
    """Raise ValueError unless the run has made these parts: ``encoder``, ``hrvq``, ``agent`` and so on."""
    missing = [part for part in parts if not getattr(layout, part).exists()]
    if missing:
        names = " and no ".join(_CALLED.get(part, part) for part in missing)
        does_it = train_command(layout.root)
        made = _whole_rounds(layout.root)
        commands = "eval, probe, fidelity, dream and play"
        instead = f"; {commands} can use an earlier round: --round {made[-1]}" if made else ""
        raise ValueError(f"{layout.root} has no {names} yet; run {does_it} first{instead}")


def _whole_rounds(root: Path) -> list[int]:
    """Numbers of the earlier rounds that have everything that any command reads, in order."""
    numbers = range(load_config(Layout(root).config).rounds.count - 1)
    return [n for n in numbers if all(getattr(Layout(root, n), part).exists() for part in PARTS)]


def _loaded(layout: Layout, part: str, load: Callable[[Path], Part]) -> Part:
    """The part, as its package loads it.

    Raises:
        ValueError: the run has not made it yet, or its file is damaged.
    """
    require_parts(layout, part)
    with _remedy(layout):
        return load(getattr(layout, part))


def _loaded_of_game(layout: Layout, game: str, name: str, load: Callable[[Path], Part]) -> Part:
    """The same for what is stored as one file per game: ``tokens`` or ``embeddings``."""
    path: Path = getattr(layout, name)(game)
    if not path.is_file():
        raise ValueError(f"there are no {name} of {game} yet; run {train_command(layout.root)} to make them")
    with _remedy(layout):
        return load(path)


@contextmanager
def _remedy(layout: Layout) -> Iterator[None]:
    """Adds to an error what to do about a damaged file of the run."""
    try:
        yield
    except ValueError as error:
        again = train_command(layout.root)
        raise ValueError(f"{error}; if you have no copy, delete it and {again} makes it again") from error


def encoded_games(layout: Layout, games: Sequence[str], say: Callable[[str], object]) -> list[str]:
    """Those of the games that the run's encoder has seen; ``say`` is told of the others.

    Raises:
        ValueError: the encoder has seen none of them, or its file is missing or damaged.
    """
    backgrounds = known_backgrounds(layout)
    unseen = [game for game in games if game not in backgrounds]
    does_it = train_command(layout.root)
    advice = f"not trained on yet: {', '.join(unseen)}; run {does_it} first"
    if unseen and len(unseen) == len(games):
        raise ValueError(advice)
    if unseen:
        say(f"skipped, {advice}")
    return [game for game in games if game in backgrounds]


def known_backgrounds(layout: Layout) -> dict[str, Tensor]:
    """The background of each game that the run's encoder has seen, on the CPU; float32 (84, 84).

    Raises:
        ValueError: the encoder's file is missing or damaged.
    """
    _, backgrounds = _loaded(layout, "encoder", load_encoder)
    return backgrounds


def frozen_encoder(layout: Layout, device: torch.device) -> tuple[Encoder, dict[str, Tensor]]:
    """The run's encoder, in the precision that embeds fastest, and the background of each game it has seen.

    Raises:
        ValueError: the run has none yet, or its file is damaged; the same goes for the functions below.
    """
    encoder, backgrounds = _loaded(layout, "encoder", load_encoder)
    encoder = frozen(encoder).to(device, resolve_precision("auto", device))
    return encoder, {game: background.to(device) for game, background in backgrounds.items()}


def frozen_quantizer(layout: Layout, device: torch.device) -> HRVQ:
    """The run's codes."""
    return frozen(_loaded(layout, "hrvq", HRVQ.load)).to(device)


def frozen_worldmodel(layout: Layout, device: torch.device) -> WorldModel:
    """The run's world model."""
    return frozen(_loaded(layout, "worldmodel", load_worldmodel)).to(device)


def frozen_agent(layout: Layout, device: torch.device) -> Agent:
    """The run's actor, critic and predictors."""
    return frozen(_loaded(layout, "agent", load_agent)).to(device)


def frozen_decoder(layout: Layout, device: torch.device) -> Decoder:
    """The run's decoder, for drawing frames."""
    return frozen(_loaded(layout, "decoder", load_decoder)).to(device)


def tokens_of(layout: Layout, game: str) -> TokenTrajectories:
    """The game's tokens.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return _loaded_of_game(layout, game, "tokens", load_tokens)


def embeddings_of(layout: Layout, game: str) -> Tensor:
    """The game's embeddings, float32 (N, D), row for row with its frames.

    Raises:
        ValueError: the file is missing or damaged.
    """
    embeddings, _ = _loaded_of_game(layout, game, "embeddings", load_embeddings)
    return embeddings


def known_tokens(layout: Layout, game: str, model: WorldModel) -> TokenTrajectories:
    """The game's tokens, checked to be ones that a world model can read.

    Raises:
        ValueError: the file is missing or damaged, or its tokens do not fit the model.
    """
    trajectories = tokens_of(layout, game)
    highest = trajectories.tokens.max(0, initial=-1)
    require_known(model, [int(code) + 1 for code in highest], layout.tokens(game))
    return trajectories


def frames_of(layout: Layout, game: str, tokens: TokenTrajectories) -> FrameStore:
    """The frames that the tokens were made from, row for row.

    Raises:
        ValueError: they were made from other frames than the run has now.
    """
    store = layout.frames(game)
    same = len(store) == len(tokens) and all(
        np.array_equal(getattr(store, name), getattr(tokens, name)) for name in ("episode_ids", "actions")
    )
    if not same:
        raise ValueError(
            f"the tokens of {game} were not made from the frames that {layout.root} has now; "
            f"run {train_command(layout.root)} first"
        )
    return store


def require_known(model: WorldModel, codes: Sequence[int], path: Path) -> None:
    """Check that a world model can read tokens; on a GPU, no later error would explain it in words.

    Args:
        model: the world model that will read them.
        codes: how many codes the tokens may have, by level.
        path: the tokens' file.

    Raises:
        ValueError: the model has another number of levels, or fewer codes.
    """
    known = model.config.codes
    if len(codes) != len(known) or any(of > to for of, to in zip(codes, known, strict=True)):
        raise ValueError(
            f"{path} has tokens of {_listed(codes)} codes (L0, L1 ...), but the world model knows "
            f"{_listed(known)}, so they are not from one run; put the originals back, or delete them and "
            "`wm train` makes them again"
        )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
