"""`wm play`: play in the world model, or watch the agent do so, in a terminal."""

import time
from pathlib import Path

from atari_data import ACTION_NAMES
from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from wm.interrupt import deferred_interrupt
from wm.opened import OpenedRun
from wm.view.album import drawer_of
from wm.view.controls import Controls
from wm.view.dream_film import write_dream
from wm.view.films import require_film
from wm.view.images import Pixels, coarse, enlarge
from wm.view.terminal import HalfBlocks, keyboard, require_terminal
from wm.view.viewer import Drawer
from wm.view.watching import DreamedGame, one_more, unit_of_rewards

HOLD = 3  # steps for which a key press counts
SIDE, LINES = 84, 3  # pixels of a frame's side, and lines of text below it
MOVES = {"w": "UP", "a": "LEFT", "s": "DOWN", "d": "RIGHT", " ": "FIRE"} | {
    way: way.upper() for way in ("up", "down", "left", "right")
}
HELP = "arrows move, space fires, tab: agent, r: restart, digits: levels, q: quit"


def play_run(
    opened: OpenedRun,
    *,
    game: str | None,
    out: Path | None,
    agent: bool,
    steps_per_second: float,
    recorded: bool,
    seed: int,
) -> None:
    """What `wm play` does: dream, show, and read keys until told to stop.

    Raises:
        ValueError: there is no terminal or it is too small, the run has no such game, agent or decoder, or an
            artifact is missing or damaged.
    """
    require_film(out)
    require_terminal()  # checked before any weights are read
    console = opened.console
    if console.no_color or console.color_system is None:
        raise ValueError(
            "the picture needs colours, and this terminal is set to show none; unset NO_COLOR, set another "
            "TERM, or film a dream with `wm dream`"
        )
    dreamed = DreamedGame.load(opened, game, seed=seed)
    session = Session(dreamed, drawer_of(opened, dreamed.game, recorded=recorded), agent_plays=agent)
    session.view(console)  # a terminal too small is reported before the screen is taken
    with (
        deferred_interrupt() as stopped,  # SIGTERM, too, restores the screen and keeps what was played
        keyboard() as read,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while not (session.over or stopped()):
            due, shown = time.monotonic() + 1 / steps_per_second, session.dream
            try:
                live.update(session.view(console), refresh=True)
                fits = True
            except TooSmallError as error:  # resized meanwhile: the dream waits
                live.update(Text(str(error)), refresh=True)
                fits = False
            for key in read(due):
                session.press(key)
            if fits and not session.over and session.dream is shown:  # a new dream's start is shown first
                session.step()
    dream = session.dream
    console.print(
        f"{len(dream.rewards)} dreamed steps of {dreamed.game}: predicted return {dream.rewards.sum():z.2f}"
        f"{unit_of_rewards(opened.config)}",
    )
    if out is not None:
        write_dream(out, dream, session.drawer, dreamed.game, opened.reporter)
        console.print(f"written to {out}")


class TooSmallError(ValueError):
    """The terminal has no room for a frame."""


class Session:
    """The player at the keyboard, and the dream.

    Args:
        dreamed: the game.
        drawer: draws it.
        agent_plays: whether the agent has the first move.
    """

    def __init__(self, dreamed: DreamedGame, drawer: Drawer, *, agent_plays: bool) -> None:
        self.dreamed, self.drawer, self.agent_plays = dreamed, drawer, agent_plays
        self.levels = self._all_levels = dreamed.imagination.quantizer.config.levels
        self.over = False
        self._beginnings = dreamed.beginnings()
        self._begin()

    def _begin(self) -> None:
        self.dream = next(self._beginnings)
        self._controls = Controls(self.dreamed.mask.cpu().numpy(), HOLD)

    def press(self, key: str) -> None:
        """Do what a key asks for; unknown keys are ignored. A move takes over from the agent."""
        if key in MOVES:
            self._controls.press(MOVES[key])
            self.agent_plays = False
        elif key == "\t":
            self.agent_plays = not self.agent_plays
        elif key == "r":
            self._begin()
        elif key == "q":
            self.over = True
        elif key.isdigit() and 1 <= int(key) <= self._all_levels:
            self.levels = int(key)

    def step(self) -> None:
        """One step of the dream."""
        action = None if self.agent_plays else self._controls.next_action()
        if action is None or self.dreamed.mask[action]:  # a game without NOOP waits for a key
            self.dream = one_more(self.dreamed, self.dream, action)

    def view(self, console: Console) -> Group:
        """The last step as the terminal shows it, drawn from the first levels."""
        frames = self.drawer.draw(self.dream.tokens[-1:], self.dreamed.game)
        frame = fitting(coarse(frames[0, self.levels].numpy()), console.size)
        return Group(HalfBlocks(frame), self._said())

    def _said(self) -> Text:
        """Who plays, the last action and what is predicted for it."""
        dream, who = self.dream, "the agent plays" if self.agent_plays else "you play"
        text = Text(f"{self.dreamed.game}, step {len(dream.rewards)}, {who}\n", no_wrap=True)
        action = ACTION_NAMES[int(dream.actions[-1])] if len(dream.actions) else "-"
        lasting = float(dream.continues[-1]) if len(dream.continues) else 1.0
        text.append(f"{action:<14} predicted return {dream.rewards.sum():+z.2f}   continues ")
        text.append(f"{lasting:.0%}\n", "red" if lasting < 0.5 else "")
        return text.append(HELP, "dim")


def fitting(frame: Pixels, terminal: ConsoleDimensions) -> Pixels:
    """The frame in the largest size that the terminal has room for: doubled, unchanged or halved.

    Raises:
        TooSmallError: it has no room even for the smallest.
    """
    width, height = terminal.width, 2 * (terminal.height - LINES)
    if width >= 2 * SIDE and height >= 2 * SIDE:
        return enlarge(frame, 2)
    if width >= SIDE and height >= SIDE:
        return frame
    if width >= SIDE // 2 and height >= SIDE // 2:
        return coarse(frame.reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3)))
    raise TooSmallError(
        f"the terminal has {terminal.width} x {terminal.height} characters; enlarge it to "
        f"{SIDE // 2} x {SIDE // 4 + LINES} or more"
    )
