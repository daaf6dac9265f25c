"""`wm play`: keys, pixels, continuing the dream, and the command in a terminal of its own."""

import io
import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from atari_data import ACTION_NAMES, action_mask
from command import at_hand, wm
from PIL import Image
from rich.console import Console, ConsoleDimensions
from token_worldmodel import imagine
from wm.opening import open_to_read
from wm.run import Layout
from wm.view import playing
from wm.view.controls import Controls, action_for
from wm.view.images import to_bytes
from wm.view.playing import Session, fitting
from wm.view.terminal import HalfBlocks, pressed
from wm.view.viewer import Viewer
from wm.view.watching import DreamedGame, one_more

CPU = torch.device("cpu")


def names(game):
    return {name for name, allowed in zip(ACTION_NAMES, action_mask(game), strict=True) if allowed}


@pytest.mark.parametrize(
    ("game", "held", "action"),
    [
        ("ms_pacman", [], "NOOP"),
        ("ms_pacman", ["LEFT"], "LEFT"),
        ("ms_pacman", ["LEFT", "UP"], "UPLEFT"),
        ("ms_pacman", ["DOWN", "RIGHT"], "DOWNRIGHT"),
        ("ms_pacman", ["FIRE", "DOWN"], "DOWN"),  # nothing to fire
        ("ms_pacman", ["FIRE"], "NOOP"),
        ("seaquest", ["FIRE", "LEFT", "UP"], "UPLEFTFIRE"),
        ("breakout", ["FIRE"], "FIRE"),
        ("breakout", ["FIRE", "RIGHT"], "RIGHT"),  # it has no RIGHTFIRE
        ("pong", ["UP"], "RIGHT"),  # which is up on the screen
        ("pong", ["DOWN"], "LEFT"),
        ("pong", ["LEFT", "UP"], "RIGHT"),  # one axis: the newest key
        ("pong", ["DOWN", "FIRE"], "LEFTFIRE"),
        ("enduro", ["LEFT", "UP"], "LEFT"),  # the newest is no action of it
        ("beam_rider", ["LEFT", "DOWN"], "LEFT"),
        ("phoenix", ["LEFT", "UP", "FIRE"], "LEFTFIRE"),
        ("assault", ["LEFT", "UP", "FIRE"], "LEFTFIRE"),  # not UP, which it has, but without the fire
        ("tutankham", ["LEFT", "DOWN", "FIRE"], "LEFTFIRE"),
    ],
)
def test_keys_mean_the_action_that_says_most_of_them(game, held, action):
    assert action_for(held, names(game)) == action


def test_every_key_of_every_game_means_an_allowed_action():
    for game in ("pong", "breakout", "ms_pacman", "seaquest", "space_invaders", "skiing"):
        for held in ([], ["UP"], ["DOWN", "LEFT"], ["RIGHT", "UP", "FIRE"], ["FIRE"]):
            assert action_for(held, names(game)) in names(game)


def test_a_key_counts_for_some_steps_and_ends_its_opposite():
    controls = Controls(action_mask("ms_pacman"), hold=3)
    actions = []
    for keys in (["LEFT"], [], ["UP"], [], [], [], ["UP"], ["DOWN"]):
        for key in keys:
            controls.press(key)
        actions.append(ACTION_NAMES[controls.next_action()])
    assert actions == ["LEFT", "LEFT", "UPLEFT", "UP", "UP", "NOOP", "UP", "DOWN"]


def test_bytes_of_a_terminal_are_keys():
    assert pressed(b"\x1b[A\x1bOBw\t Q") == ["up", "down", "w", "\t", " ", "q"]
    assert pressed(b"\x1b[3~\x1b[1;5Cx\xc3\xa4") == ["x"]  # what is not known is no key
    assert pressed(b"\x1bOP\x1bOQ\x1bOR\x1bOS\x1b[[B\x1b[200~") == []  # F1 to F4, F2 of a console, a paste
    assert pressed(b"\x03") == ["q"]  # Ctrl-C
    assert pressed(b"") == []


def test_a_character_shows_two_pixels():
    frame = np.array([[0, 0, 255], [8, 8, 16], [1, 2, 2], [3, 3, 3]], np.uint8)
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=10)
    segments = [segment for segment in console.render(HalfBlocks(frame)) if segment.text != "\n"]
    shown = [
        (segment.text, segment.style.color.triplet.red, segment.style.bgcolor.triplet.red)
        for segment in segments
    ]
    assert shown == [("▀▀", 0, 8), ("▀", 255, 16), ("▀", 1, 3), ("▀▀", 2, 3)]


def test_a_frame_is_as_large_as_the_terminal_allows():
    frame = np.zeros((84, 84), np.uint8)
    frame[:2, :2] = [[255, 0], [0, 255]]
    assert fitting(frame, ConsoleDimensions(168, 87)).shape == (168, 168)
    assert fitting(frame, ConsoleDimensions(167, 87)).shape == (84, 84)
    small = fitting(frame, ConsoleDimensions(80, 24))  # as terminals have been since there are any
    assert small.shape == (42, 42)
    assert abs(int(small[0, 0]) - 128) <= 4  # to 32 gray levels
    assert not small[1:].any()
    with pytest.raises(ValueError, match="41 x 24 characters; enlarge it to 42 x 24 or more"):
        fitting(frame, ConsoleDimensions(41, 24))


def dreamed_game(run, seed=0):
    return DreamedGame.load(at_hand(run), "pong", seed=seed)


def test_a_played_step_is_the_world_models_and_the_dream_has_no_end(run):
    dreamed = dreamed_game(run)
    begin = next(dreamed.beginnings())
    action = ACTION_NAMES.index("LEFT")
    dreamed.rng.manual_seed(5)
    dream = one_more(dreamed, begin, action)
    expected = imagine(
        dreamed.imagination.model,
        begin.tokens[None],
        begin.actions[None],
        lambda tokens, state: torch.tensor([action]),
        1,
        generator=torch.Generator().manual_seed(5),
        temperature=dreamed.imagination.config.dream.temperature,
    )
    assert torch.equal(dream.tokens, torch.cat([begin.tokens, expected.tokens[0, 1:]]))
    assert dream.actions.tolist() == [*begin.actions.tolist(), action]
    steps = 2 * dreamed.imagination.config.worldmodel.max_steps
    for _ in range(steps):
        dream = one_more(dreamed, dream)
    assert len(dream.tokens) == len(begin.tokens) + 1 + steps
    assert len(dream.rewards) == len(dream.continues) == 1 + steps
    assert {ACTION_NAMES[action] for action in dream.actions[-steps:].tolist()} <= names("pong")
    assert torch.equal(dream.tokens[: len(begin.tokens)], begin.tokens)


def test_the_last_step_is_judged_as_the_whole_dream_is(run):
    dreamed = dreamed_game(run)
    dream = next(dreamed.beginnings())
    last = len(dream.real) - 1
    for _ in range(5):
        dream = one_more(dreamed, dream)
    rewards, continues = dreamed.imagination.judge(dream.tokens[None, last:], dream.actions[None, last:])
    torch.testing.assert_close(dream.rewards, rewards)
    torch.testing.assert_close(dream.continues, continues)


def test_keys_play_hand_over_begin_anew_and_end(run):
    layout = Layout(run)
    session = Session(dreamed_game(run), Viewer.load(layout, CPU), agent_plays=True)
    session.step()
    assert session.agent_plays
    session.press("up")
    assert not session.agent_plays
    session.step()
    assert ACTION_NAMES[int(session.dream.actions[-1])] == "RIGHT"
    session.press("\t")
    assert session.agent_plays
    first = session.dream.tokens[0]
    drawn = session.drawer.draw(session.dream.tokens[-1:], "pong")[0]
    for key, level in (("1", 1), ("2", 2), ("9", 2), ("3", 3)):
        session.press(key)
        assert session.levels == level
        shown = session.view(Console(width=100, height=50)).renderables[0].frame
        assert np.abs(shown.astype(int) - to_bytes(drawn[level].numpy())).max() <= 5  # 32 gray levels
    session.press("r")
    assert len(session.dream.rewards) == 0
    assert len(session.dream.tokens) == len(session.dream.real)
    assert not torch.equal(session.dream.tokens[0], first)
    session.press("z")
    assert not session.over
    session.press("q")
    assert session.over


def in_a_terminal(keys, *arguments, size=(50, 100), **variables):
    """Run `wm` in a pseudo-terminal; at each step shown a key or signal is sent, or the terminal resized.

    Returns exit code, output, and whether the terminal is as before.
    """
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    before = termios.tcgetattr(theirs)
    unset = ("COLUMNS", "LINES", "NO_COLOR")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"TERM": "xterm-256color"} | variables
    command = [sys.executable, "-m", "wm", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    output, deadline, left = b"", time.monotonic() + 120, list(keys)
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        assert time.monotonic() < deadline, output[-2000:]
        if select.select([ours], [], [], 0.1)[0]:
            output += os.read(ours, 65536)
        if left and len(re.findall(b", step |enlarge it to", output)) > len(keys) - len(left):
            key = left.pop(0)
            if isinstance(key, tuple):
                termios.tcsetwinsize(ours, key)
            else:
                os.write(ours, key) if isinstance(key, bytes) else process.send_signal(key)
    kept = termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
    return process.returncode, output.decode(errors="replace"), kept


def test_a_game_without_noop_waits_for_a_key(run):
    dreamed = dreamed_game(run)
    without = replace(dreamed, mask=dreamed.mask & (torch.arange(18) != 0))
    session = Session(without, Viewer.load(Layout(run), CPU), agent_plays=False)
    begun = session.dream
    session.step()
    assert session.dream is begun
    session.press("up")
    session.step()
    assert ACTION_NAMES[int(session.dream.actions[-1])] == "RIGHT"


def test_the_command_plays_in_a_terminal_and_films_it(run, tmp_path):
    film = tmp_path / "played.gif"
    keys = [b"\x1b[A", b" ", b"\t", b"2", b"q"]
    code, output, kept = in_a_terminal(keys, "play", run, "--out", film, "--device", "cpu", "--speed", 60)
    assert code == 0, output
    assert "you play" in output
    assert "the agent plays" in output
    assert kept
    steps = int(re.search(r"(\d+) dreamed steps of pong", output)[1])
    assert steps >= len(keys) - 1
    with Image.open(film) as picture:
        assert picture.n_frames == len(next(dreamed_game(run).beginnings()).real) + steps


@pytest.mark.parametrize("stop", [b"\x03", signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_it_in_order(run, stop):
    code, output, kept = in_a_terminal([stop], "play", run, "--agent", "--device", "cpu")
    assert code == 0, output
    assert "\x1b[?1049l" in output  # the screen is given back
    assert "dreamed steps of pong" in output
    assert kept


def test_a_terminal_made_too_small_holds_the_dream(run, tmp_path):
    keys, film = [b" ", (20, 40), (50, 100), b" ", b"q"], tmp_path / "played.gif"
    code, output, kept = in_a_terminal(keys, "play", run, "--out", film, "--device", "cpu", "--speed", 60)
    assert code == 0, output
    assert "40 x 20 characters" in output
    assert kept
    shown = [int(step) for step in re.findall(r", step (\d+)", output)]
    assert sorted(set(shown)) == list(range(shown[-1] + 1))  # none went by unseen
    assert film.exists()


def test_a_small_terminal_is_refused(run):
    code, output, kept = in_a_terminal([], "play", run, "--device", "cpu", size=(20, 80))
    assert code == 2
    assert "80 x 20 characters" in output
    assert kept


def test_a_terminal_without_colours_is_refused(run):
    code, output, kept = in_a_terminal([], "play", run, "--device", "cpu", NO_COLOR="1")
    assert code == 2
    assert "unset NO_COLOR" in " ".join(output.split())
    assert kept


def test_without_a_terminal_it_says_what_to_do(run):
    done = wm("play", run)
    assert done.code == 2
    assert "there is no terminal to play in" in done.output
    assert "wm dream" in done.output


@pytest.mark.parametrize(
    ("pressed", "shown", "dreamed"),
    [([["q"]], [0], 0), ([[], [], ["q"]], [0, 1, 2], 2), ([[], ["r"], [], ["q"]], [0, 1, 0, 1], 1)],
)
def test_every_dreamed_step_is_shown(run, monkeypatch, pressed, shown, dreamed):
    """After q there is no step, and a dream begun anew is shown from its start."""
    seen, keys = [], iter(pressed)
    monkeypatch.setattr(playing, "require_terminal", lambda: None)
    monkeypatch.setattr(playing, "keyboard", lambda: nullcontext(lambda due: next(keys)))
    view = Session.view

    def watched(session, console):
        seen.append(len(session.dream.rewards))
        return view(session, console)

    monkeypatch.setattr(Session, "view", watched)
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=100,
        height=50,
        color_system="truecolor",
        no_color=False,
    )
    opened = open_to_read(run, console, device_name="cpu")
    options = {"game": None, "out": None, "agent": True, "recorded": False, "seed": 0}
    playing.play_run(opened, steps_per_second=60, **options)
    assert seen[1:] == shown  # the first is whether there is room
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    assert f"{dreamed} dreamed steps of pong" in said
