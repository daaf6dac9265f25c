from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from atari_data import Tick
from atari_data.recorder import BLOCK, Recorder


class Rows:
    """Keeps what a shard's writer is given."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, np.ndarray]] = []

    def append(self, rows: dict[str, np.ndarray]) -> None:
        self.blocks.append({name: column.copy() for name, column in rows.items()})


def tick(picture: int, *, terminated: bool = False) -> Tick:
    zero = np.zeros(1, dtype=np.int32)
    return Tick(
        env_ids=np.array([0]),
        observations=np.full((1, 4, 84, 84), picture, dtype=np.uint8),
        rewards=zero,
        terminated=np.array([terminated]),
        truncated=np.array([False]),
        lives=zero,
        frame_numbers=zero,
        actions=np.array([3]),
    )


def recorded(ticks: Iterable[Tick], quota: int) -> dict[str, Any]:
    """The columns of one environment after the ticks, as lists; the RAM is full of its row's number."""
    rows = Rows()
    recorder = Recorder([rows], np.array([quota]), first_ids=np.array([0]), id_stride=1, ram=True)
    for number, each in enumerate(ticks):
        assert not recorder.done
        recorder.record(each, np.full((1, 128), number, dtype=np.uint8))
    assert recorder.done
    return {name: np.concatenate([block[name] for block in rows.blocks]).tolist() for name in rows.blocks[0]}


@pytest.mark.parametrize("terminated", [False, True])
def test_the_last_action_of_a_quota_cuts_an_episode_only_where_the_game_goes_on(terminated: bool) -> None:
    columns = recorded([tick(0), tick(1), tick(2, terminated=terminated)], quota=2)
    assert columns["actions"] == [3, 3, 0]
    assert columns["terminated"] == [False, terminated, False]
    assert columns["truncated"] == [False, not terminated, False]


@pytest.mark.parametrize("quota", [2, BLOCK - 1, BLOCK, BLOCK + 1])
def test_nothing_is_written_to_a_final_row_while_another_environment_takes_its_last_actions(
    quota: int,
) -> None:
    """Environment 1 loses a tick to a new game, in which environment 0, cut before, would go on and end."""
    rows = Rows(), Rows()
    recorder = Recorder(rows, np.array([quota] * 2), first_ids=np.array([0, 1]), id_stride=2, ram=False)
    for number in range(quota + 2):
        ended = np.array([number == quota + 1, number == quota - 1])
        both = Tick(*(np.repeat(column, 2, axis=0) for column in tick(number)))
        recorder.record(both._replace(terminated=ended, rewards=ended.astype(np.int32)), None)
        if recorder.done:
            break
    columns = {name: np.concatenate([block[name] for block in rows[0].blocks]) for name in rows[0].blocks[0]}
    assert len(columns["actions"]) == quota + 1
    assert np.flatnonzero(columns["truncated"]).tolist() == [quota - 1]
    assert not columns["terminated"].any()
    assert not columns["rewards"].any()


@pytest.mark.parametrize("end", [1, 2, BLOCK, BLOCK + 1])
def test_the_ram_of_a_last_picture_is_that_of_the_row_before_wherever_the_row_lies(end: int) -> None:
    """Row 1, where the first action ends the game, and the rows about the end of a block too."""
    ticks = [tick(number) for number in range(BLOCK + 4)]
    ticks[end] = tick(end - 1, terminated=True)
    ram = [row[0] for row in recorded(ticks, quota=BLOCK + 2)["ram"]]
    assert ram == [*range(end), end - 1, *range(end + 1, BLOCK + 4)]
