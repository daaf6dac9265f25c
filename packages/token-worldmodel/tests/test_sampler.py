from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_worldmodel import TokenSampler, split_episodes
from token_worldmodel.sampler import window_starts


@given(st.lists(st.integers(1, 6), max_size=8), st.integers(1, 5))
def test_window_starts_are_those_a_search_finds(lengths: list[int], length: int) -> None:
    ids = np.repeat(np.arange(len(lengths)), lengths)
    found = [s for s in range(len(ids) - length + 1) if len(set(ids[s : s + length])) == 1]
    assert window_starts(ids, length).tolist() == found


def test_windows_are_consecutive_rows_of_one_episode(make_trajectories) -> None:
    trajectories = make_trajectories(9, 3, 14, 7)
    sampler = TokenSampler({"Pong": trajectories}, length=5, batch_size=64, seed=1, split="all")
    batch = sampler.batch(0)
    rows = batch.tokens[..., 0]  # L0 is the row's number
    assert torch.equal(rows, rows[:, :1] + torch.arange(5))
    assert (batch.tokens[..., 1] == batch.tokens[:, :1, 1]).all()
    for name, dtype in (("actions", torch.int64), ("rewards", torch.float32), ("lives", torch.int64)):
        column = getattr(batch, name)
        assert column.dtype == dtype
        np.testing.assert_array_equal(column.numpy(), getattr(trajectories, name)[rows])
    np.testing.assert_array_equal(batch.final.numpy(), trajectories.final[rows])
    np.testing.assert_array_equal(batch.terminated.numpy(), trajectories.terminated[rows])
    assert batch.final.any()
    assert not batch.final[:, :-1].any()
    assert sampler.num_windows == {"Pong": 5 + 0 + 10 + 3}
    drawn = {int(row) for step in range(20) for row in sampler.batch(step).tokens[:, 0, 0]}
    assert len(drawn) == 18


def test_a_batch_is_a_function_of_seed_and_step(make_trajectories) -> None:
    def sampler(seed: int) -> TokenSampler:
        return TokenSampler(
            {"Pong": make_trajectories(40, 40)}, length=8, batch_size=16, seed=seed, split="all"
        )

    used, fresh = sampler(1), sampler(1)
    for step in range(5):
        used.batch(step)
    assert torch.equal(used.batch(7).tokens, fresh.batch(7).tokens)
    assert not torch.equal(fresh.batch(7).tokens, fresh.batch(8).tokens)
    assert not torch.equal(fresh.batch(7).tokens, sampler(2).batch(7).tokens)


def test_splits_share_no_episode_and_cover_all(make_trajectories) -> None:
    trajectories = make_trajectories(*[6] * 10)
    episodes = {}
    for split in ("train", "validation", "all"):
        sampler = TokenSampler(
            {"Pong": trajectories}, length=4, batch_size=8, seed=3, split=split, validation_fraction=0.3
        )
        episodes[split] = {int(e) for batch in sampler.sweep() for e in batch.tokens[..., 1].flatten()}
    held_out = split_episodes(trajectories.episode_ids, 0.3, 3)
    assert episodes["validation"] == set(trajectories.episode_ids[held_out])
    assert 2 <= len(episodes["validation"]) <= 4
    assert episodes["train"] | episodes["validation"] == episodes["all"] == set(range(5, 15))
    assert not episodes["train"] & episodes["validation"]


def test_split_follows_the_rule_of_the_project() -> None:
    """The same few lines stand in the package that collects; the numbers pin both."""
    ids = np.repeat([3, 5, 8], [10, 20, 10])  # chances .086, .237, .801: below .75, above .33
    np.testing.assert_array_equal(split_episodes(ids, 0.5, 3), ids == 5)
    np.testing.assert_array_equal(split_episodes(ids, 0.001, 3), ids == 5)  # one must validate
    assert not split_episodes(np.array([7, 7]), 0.5, 0).any()
    # .5 alone would leave out the second and take the third; what validation lacks and has decides: .75, .33.
    np.testing.assert_array_equal(split_episodes(ids, 0.5, 181), ids == 5)
    np.testing.assert_array_equal(split_episodes(ids, 0.5, 1), ids == 8)  # then the second need not


def test_the_newest_play_has_its_share_of_the_windows(make_trajectories) -> None:
    trajectories = make_trajectories(*[50] * 10)
    arguments = {"length": 4, "batch_size": 64, "seed": 0, "split": "all"}
    sampler = TokenSampler({"Pong": trajectories}, newest={"Pong": 450}, newest_share=0.5, **arguments)
    newest = trajectories.episode_ids[450]
    drawn = np.concatenate([sampler.batch(i).tokens[:, 0, 1].numpy() for i in range(40)])
    assert 0.5 < (drawn == newest).mean() < 0.6  # a half, and a tenth of the other half
    alone = TokenSampler({"Pong": trajectories}, newest={"Pong": 450}, newest_share=1.0, **arguments)
    assert {int(row) for i in range(20) for row in alone.batch(i).tokens[:, 0, 0]} == set(range(450, 497))
    everything = TokenSampler({"Pong": trajectories}, **arguments)
    beyond = TokenSampler({"Pong": trajectories}, newest={"Pong": 10**6}, newest_share=1.0, **arguments)
    assert {int(e) for i in range(20) for e in beyond.batch(i).tokens[:, 0, 1]} == set(range(5, 15))
    assert 0.05 < np.mean([(everything.batch(i).tokens[:, 0, 1] == newest).numpy() for i in range(40)]) < 0.15
    with pytest.raises(ValueError, match=r"newest_share is 1\.5"):
        TokenSampler({"Pong": trajectories}, newest_share=1.5, **arguments)


def test_each_game_has_its_own_newest_play(make_trajectories) -> None:
    games = {
        "Pong": make_trajectories(20, 10),
        "Breakout": make_trajectories(20, 30),
        "Seaquest": make_trajectories(9),
    }
    sampler = TokenSampler(
        games, length=4, batch_size=400, seed=0, split="all",
        newest={"Pong": 20, "Breakout": 40}, newest_share=1.0,
    )  # fmt: skip
    batch = sampler.batch(0)
    drawn = [set(batch.tokens[batch.game_index == game, 0, 0].tolist()) for game in range(3)]
    assert drawn == [
        set(range(20, 27)),
        set(range(40, 47)),
        set(range(6)),
    ]  # what is not named is new throughout


def test_batches_read_rows_as_their_alternatives_too(make_trajectories) -> None:
    plain, games = make_trajectories(20, 20), {}
    for game, count in (("Pong", 3), ("Breakout", 0)):
        # Token 100 a + row at every level, a = 1 ... count.
        others = np.arange(1, 1 + count)[:, None] * 100 + np.arange(40)[:, None, None] + np.zeros(3, int)
        games[game] = replace(plain, alternatives=others)
    sampler, without = (
        TokenSampler(each, length=5, batch_size=400, seed=1, split="all")
        for each in (games, dict.fromkeys(games, plain))
    )
    batch, own = sampler.batch(0), without.batch(0)
    rows = own.tokens[..., 0]
    for name in ("actions", "rewards", "lives", "game_index"):
        assert torch.equal(getattr(batch, name), getattr(own, name))
    pong = batch.game_index == 0
    assert torch.equal(batch.tokens[~pong], own.tokens[~pong])
    read = batch.tokens[pong]
    which = torch.where(read[..., 2] >= 100, read[..., 2] // 100, 0)
    expected = torch.where(which[..., None] > 0, (100 * which + rows[pong])[..., None], own.tokens[pong])
    assert torch.equal(read, expected)  # all levels from one reading
    assert which.flatten().bincount() / which.numel() == pytest.approx([0.25] * 4, abs=0.05)
    assert torch.equal(sampler.batch(0).tokens, batch.tokens)
    swept = [{int(t) for b in s.sweep() for t in b.tokens.flatten()} for s in (sampler, without)]
    assert swept[0] == swept[1]


def test_games_come_in_the_stated_proportions(make_trajectories) -> None:
    games = {
        "Pong": make_trajectories(30),
        "Breakout": make_trajectories(300),
        "Seaquest": make_trajectories(9),
    }

    def shares(weights: dict[str, float] | None) -> list[float]:
        sampler = TokenSampler(games, length=4, batch_size=3000, weights=weights, seed=0, split="all")
        assert sampler.games == ("Pong", "Breakout", "Seaquest")
        return (torch.bincount(sampler.batch(0).game_index, minlength=3) / 3000).tolist()

    assert shares(None) == pytest.approx([1 / 3] * 3, abs=0.03)
    assert shares({"Seaquest": 0, "Pong": 3, "Breakout": 1}) == pytest.approx([0.75, 0.25, 0.0], abs=0.03)


def test_sweep_covers_each_episode_without_overlap(make_trajectories) -> None:
    games = {"Pong": make_trajectories(9, 3, 14), "Breakout": make_trajectories(8)}
    sampler = TokenSampler(games, length=4, batch_size=2, seed=0, split="all")
    batches = list(sampler.sweep())
    firsts = [(int(g), int(r)) for b in batches for g, r in zip(b.game_index, b.tokens[:, 0, 0], strict=True)]
    assert firsts == [(0, 0), (0, 4), (0, 12), (0, 16), (0, 20), (1, 0), (1, 4)]
    assert [len(b.tokens) for b in batches] == [2, 2, 1, 2]
    every = [int(row) for b in sampler.sweep(stride=1) for row in b.tokens[:, 0, 0]]
    assert every == [*range(6), *range(12, 23), *range(5)]
    single = TokenSampler(games, length=1, batch_size=99, seed=0, split="all")
    apart = [int(row) for b in single.sweep(stride=4) for row in b.tokens[:, 0, 0]]
    assert apart == [0, 4, 8, 9, 12, 16, 20, 24, 0, 4]  # from each episode's first row, at any length
    with pytest.raises(ValueError, match="stride is 0"):
        next(sampler.sweep(stride=0))


def test_a_limited_sweep_is_spread_from_each_games_first_batch_to_its_last(make_trajectories) -> None:
    games = {"Pong": make_trajectories(40), "Breakout": make_trajectories(8)}
    sampler = TokenSampler(games, length=2, batch_size=2, seed=0, split="all")

    def firsts(limit: int | None) -> list[tuple[int, int]]:
        return [(int(b.game_index[0]), int(b.tokens[0, 0, 0])) for b in sampler.sweep(limit=limit)]

    assert firsts(None) == firsts(10) == [*((0, 4 * i) for i in range(10)), (1, 0), (1, 4)]
    assert firsts(4) == [(0, 0), (0, 12), (0, 24), (0, 36), (1, 0), (1, 4)]
    assert firsts(6)[:6] == [(0, 4 * i) for i in (0, 2, 4, 5, 7, 9)]  # nearest to 0, 1.8, 3.6, 5.4, 7.2 and 9
    assert firsts(1) == [(0, 0), (1, 0)]
    with pytest.raises(ValueError, match="limit is 0"):
        next(sampler.sweep(limit=0))


def test_the_newest_rows_are_swept_alone(make_trajectories) -> None:
    games = {"Pong": make_trajectories(9, 3, 14), "Breakout": make_trajectories(8)}
    sampler = TokenSampler(games, length=4, batch_size=2, seed=0, split="all", newest={"Pong": 12})

    def firsts(**options: int) -> list[tuple[int, int]]:
        batches = sampler.sweep(newest_only=True, **options)
        return [
            (int(g), int(r)) for b in batches for g, r in zip(b.game_index, b.tokens[:, 0, 0], strict=True)
        ]

    assert firsts() == [(0, 12), (0, 16), (0, 20), (1, 0), (1, 4)]  # of Breakout nothing is called new
    assert firsts(stride=1)[:11] == [(0, row) for row in range(12, 23)]
    assert firsts(stride=1, limit=1) == [(0, 12), (0, 13), (1, 0), (1, 1)]
    late = TokenSampler(
        games, length=4, batch_size=2, seed=0, split="all", newest={"Pong": 23, "Breakout": 8}
    )
    assert list(late.sweep(newest_only=True)) == []  # no window fits there


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"length": 7},
            r"Pong has no window of 7 steps in its all episodes \(the longest of all has 6 rows\)",
        ),
        ({"trajectories": {}}, r"the games' levels are \{\}; give one game or more"),
        ({"batch_size": 0}, "batch_size 0; give at least 1"),
        ({"seed": None}, "seed is None; give a whole number of at least 0"),
        ({"length": 2.0}, r"length is 2\.0 and .* whole numbers"),
        ({"split": "test"}, "split is 'test'; choose train, validation or all"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0; give one between 0 and 1"),
        (
            {"weights": {"Breakout": 1.0}},
            "weights are .*; give one of at least 0, finite and not all 0, for each of Pong",
        ),
        ({"weights": {"Pong": 0.0}}, "weights are"),
        ({"weights": {"Pong": float("nan")}}, "weights are"),
        ({"trajectories": []}, r"trajectories are a list; give them by name, as in \{'pong': ...\}"),
        ({"newest": {"Pogn": 3}, "newest_share": 0.5}, "newest names Pogn; the games are Pong"),
    ],
)
def test_refuses(make_trajectories, changes, message) -> None:
    arguments = {"trajectories": {"Pong": make_trajectories(6, 5)}, "length": 4, "batch_size": 2, "seed": 0}
    with pytest.raises(ValueError, match=message):
        TokenSampler(**(arguments | {"split": "all"} | changes))


@pytest.mark.parametrize("start", [3, -4, 8, 20])
def test_a_window_that_leaves_its_episode_is_not_gathered(make_trajectories, start) -> None:
    sampler = TokenSampler({"Pong": make_trajectories(6, 5)}, length=4, batch_size=2, seed=0, split="all")
    assert sampler.gather(np.array([0]), np.array([2])).tokens.shape == (1, 4, 3)
    with pytest.raises(ValueError, match="a window of 4 steps leaves its episode"):
        sampler.gather(np.array([0]), np.array([start]))
    for game in (-1, 1):
        with pytest.raises(ValueError, match=f"games go from {game} to {game}; give 0 to 0"):
            sampler.gather(np.array([game]), np.array([2]))


def test_where_chance_spares_all_the_second_episode_validates() -> None:
    ids = np.repeat(np.arange(4), 5)
    assert np.unique(ids[split_episodes(ids, 1e-9, 0)]).tolist() == [1]


def test_a_split_is_by_a_fraction() -> None:
    with pytest.raises(ValueError, match=r"validation_fraction is 5\.0"):
        split_episodes(np.zeros(4, np.int32), 5.0, 0)
    with pytest.raises(ValueError, match="seed is None"):
        split_episodes(np.zeros(4, np.int32), 0.5, None)


def test_a_batch_goes_where_it_is_sent(make_trajectories) -> None:
    sampler = TokenSampler({"Pong": make_trajectories(6, 5)}, length=4, batch_size=2, seed=0, split="all")
    there = sampler.batch(0).to("meta")
    assert there.tokens.device.type == "meta"
    assert there.to(None) is there
    with pytest.raises(NotImplementedError):  # and it is really asked to come back, which meta cannot
        there.to("cpu")


def test_one_episode_cannot_validate(make_trajectories) -> None:
    with pytest.raises(ValueError, match="Pong has one episode, which trains, and no validation episode"):
        TokenSampler({"Pong": make_trajectories(9)}, length=4, batch_size=2, seed=0, split="validation")
