import math

import numpy as np
import pytest
import torch
from hrvq import counts_by_group, jensen_shannon, mutual_information, shared_code_share, usage_by_group

# Level 0 is used alike by both groups; level 1 gives the group away.
TOKENS = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
GROUPS = torch.tensor([0, 0, 1, 1])


def test_by_hand():
    counts = [level.tolist() for level in counts_by_group(TOKENS, GROUPS, 4)]
    assert counts == [[[1, 1, 0, 0], [1, 1, 0, 0]], [[2, 0, 0, 0], [0, 2, 0, 0]]]
    assert usage_by_group(TOKENS, GROUPS, 4).tolist() == [[0.5, 0.5], [0.25, 0.25]]
    assert shared_code_share(TOKENS, GROUPS, 4).tolist() == [1.0, 0.0]
    divergence = jensen_shannon(TOKENS, GROUPS, 4)
    assert torch.allclose(divergence[0], torch.zeros(2, 2))
    assert torch.allclose(divergence[1], 1 - torch.eye(2))


def test_stray_vectors_do_not_make_a_code_shared():
    tokens = torch.tensor([[0]] * 999 + [[1]] + [[1]] * 1000)
    groups = torch.tensor([0] * 1000 + [1] * 1000)
    assert shared_code_share(tokens, groups, 2).tolist() == [0.5]
    assert shared_code_share(tokens, groups, 2, at_least=0.01).tolist() == [0.0]


def test_information_of_a_level_that_tells_everything_and_of_one_that_tells_nothing():
    tokens, groups = TOKENS.repeat(500, 1), GROUPS.repeat(500)
    found = mutual_information(tokens, groups, 4, resamples=200)
    assert found.estimate.tolist() == pytest.approx([0.0, 1.0], abs=1e-3)
    assert found.low[1] == pytest.approx(1.0, abs=1e-3)
    assert found.high[0] < 0.01


def test_information_of_a_noisy_channel():
    """A binary channel that errs with probability 0.1 carries 1 - H(0.1) = 0.531 bits."""
    random = torch.Generator().manual_seed(0)
    groups = torch.randint(2, (20_000,), generator=random)
    flips = torch.rand(20_000, generator=random) < 0.1
    found = mutual_information((groups ^ flips)[:, None], groups, 2)
    assert found.low < 0.531 < found.high
    assert found.high - found.low < 0.05


def test_bias_of_many_codes_is_taken_off():
    """256 codes drawn alike by 3 groups: the plug-in estimate is near 2 * 255 / (2 N ln 2) = 0.12 bits."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (3000, 1), generator=random)
    groups = torch.randint(3, (3000,), generator=random)
    assert mutual_information(tokens, groups, 256, resamples=50).estimate < 0.04


def independent(groups, codes, episodes, frames, seed=0):
    """Episodes that keep to 8 codes of their own, whatever their group: tokens (N, 1), groups, episodes."""
    random = torch.Generator().manual_seed(seed)
    favourites = torch.randint(codes, (episodes, 8), generator=random)
    tokens = favourites.gather(1, torch.randint(8, (episodes, frames), generator=random))
    episode = torch.arange(episodes)
    return tokens.reshape(-1, 1), *(e.repeat_interleave(frames) for e in (episode % groups, episode))


@pytest.mark.parametrize(("groups", "codes", "frames"), [(4, 256, 500), (2, 16, 200)])
def test_episodes_that_know_nothing_of_their_group_tell_nothing(groups, codes, frames):
    """Frames of one episode are alike, so 40 of them differ by group as 40 frames would, not as thousands."""
    estimates = []
    for seed in range(5):
        tokens, group, episodes = independent(groups, codes, 40, frames, seed)
        told = mutual_information(tokens, group, codes, blocks=episodes, resamples=100, seed=seed)
        assert told.low == 0
        estimates.append(float(told.estimate))
    assert sum(estimates) / 5 < 0.05 * math.log2(groups)


def test_fewer_vectors_than_cells_tell_nothing_either():
    """1000 vectors in 5 x 256 cells: the plug-in estimate is near 0.7 bits."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (1000, 1), generator=random)
    told = mutual_information(tokens, torch.randint(5, (1000,), generator=random), 256, resamples=100)
    assert told.estimate < 0.03
    assert told.low == 0


def test_what_episodes_do_tell_is_kept():
    """A binary channel that errs in one episode of five: 1 - H(0.2) = 0.278 bits."""
    found, hits = [], 0
    for seed in range(10):
        random = torch.Generator().manual_seed(seed)
        groups = torch.randint(2, (200,), generator=random)
        tokens = groups ^ (torch.rand(200, generator=random) < 0.2)
        tokens, groups, episodes = (t.repeat_interleave(20) for t in (tokens, groups, torch.arange(200)))
        told = mutual_information(tokens[:, None], groups, 2, blocks=episodes, resamples=100)
        found.append(float(told.estimate))
        hits += bool(told.low < 0.278 < told.high)
    assert sum(found) / 10 == pytest.approx(0.278, abs=0.03)
    assert hits >= 8


def partly_own(groups, codes, episodes, own, seed):
    """Episodes of 50 frames, each of 8 codes, of which a share ``own`` is of those only its group uses.

    Returns:
        Tokens (N, 1), groups, episodes, and the bits that a token tells.
    """
    random, width = torch.Generator().manual_seed(seed), codes // groups
    episode = torch.arange(groups * episodes)
    group = episode % groups
    of_group = group[:, None] * width + torch.randint(width, (len(group), 8), generator=random)
    anyones = torch.randint(codes, (len(group), 8), generator=random)
    favourites = torch.where(torch.rand(len(group), 8, generator=random) < own, of_group, anyones)
    tokens = favourites.gather(1, torch.randint(8, (len(group), 50), generator=random))
    p = torch.full((groups, codes), (1 - own) / codes, dtype=torch.float64)
    for index in range(groups):
        p[index, index * width : (index + 1) * width] += own / width
    truth = (torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean()) / math.log(2)
    repeated = (each.repeat_interleave(50) for each in (group, episode))
    return tokens.reshape(-1, 1), *repeated, float(truth)


@pytest.mark.parametrize(("groups", "codes", "episodes"), [(2, 64, 20), (4, 256, 10), (4, 256, 40)])
def test_episodes_that_tell_everything_are_heard_to(groups, codes, episodes):
    """Chance adds nothing here, and half to two thirds of a bit each where tokens tell nothing."""
    tokens, group, episode, truth = partly_own(groups, codes, episodes, 1.0, 0)
    told = mutual_information(tokens, group, codes, blocks=episode, resamples=50)
    assert truth == pytest.approx(math.log2(groups))
    assert float(told.estimate) == pytest.approx(truth, abs=1e-5)
    assert float(told.high) == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("episodes", [2, 3, 5])
def test_two_codes_tell_one_bit_of_eight_groups(episodes):
    """The most that can be told is what tokens hold, where that is less than what groups do."""
    episode = torch.arange(8 * episodes).repeat_interleave(20)
    group = episode % 8
    told = mutual_information(group[:, None] % 2, group, 2, blocks=episode, resamples=50)
    assert float(told.estimate) == pytest.approx(1, abs=1e-5)
    assert float(told.high) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("own", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize(("groups", "codes", "episodes"), [(2, 64, 20), (4, 256, 10)])
def test_the_interval_holds_what_few_episodes_tell(groups, codes, episodes, own):
    estimates = []
    for seed in range(4):
        tokens, group, episode, truth = partly_own(groups, codes, episodes, own, seed)
        told = mutual_information(tokens, group, codes, blocks=episode, resamples=50, seed=seed)
        assert told.low - 1e-5 <= truth <= told.high + 1e-5
        assert told.low <= told.estimate <= told.high
        estimates.append(float(told.estimate))
    assert sum(estimates) / 4 == pytest.approx(truth, abs=0.05 + 0.2 * truth)


def test_the_programs_device_changes_nothing():
    expected = mutual_information(TOKENS, GROUPS, 4, blocks=torch.arange(4), resamples=20)
    blocks = torch.arange(4)
    with torch.device("meta"):
        found = mutual_information(TOKENS, GROUPS, 4, blocks=blocks, resamples=20)
        alone = mutual_information(TOKENS, GROUPS, 4, resamples=20)
    assert all(map(torch.equal, found, expected))
    assert all(map(torch.equal, alone, expected))  # every vector is its own block


def test_the_interval_lies_about_the_estimate_and_narrows_with_less_confidence():
    """Also where resampling adds more bias than the interval is wide: 256 codes, 600 vectors."""
    random = torch.Generator().manual_seed(0)
    groups = torch.randint(3, (600,), generator=random)
    tokens = (torch.randint(128, (600,), generator=random) + 64 * groups)[:, None]
    wide, narrow = (
        mutual_information(tokens, groups, 256, resamples=200, confidence=confidence)
        for confidence in (0.95, 0.5)
    )
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high


def test_interval_covers_the_truth_as_often_as_it_says():
    random = torch.Generator().manual_seed(0)
    hits = 0
    for seed in range(200):
        groups = torch.randint(2, (400,), generator=random)
        flips = torch.rand(400, generator=random) < 0.2
        found = mutual_information((groups ^ flips)[:, None], groups, 2, resamples=200, seed=seed)
        hits += bool(found.low <= 1 - 0.7219 <= found.high)
    assert 180 <= hits <= 199


def test_blocks_widen_the_interval():
    """Episodes whose frames are all alike hold one frame's information each."""
    random = torch.Generator().manual_seed(0)
    groups = torch.randint(2, (60,), generator=random)
    tokens = groups ^ (torch.rand(60, generator=random) < 0.2)
    tokens, groups, episodes = (t.repeat_interleave(50) for t in (tokens, groups, torch.arange(60)))
    frames = mutual_information(tokens[:, None], groups, 2)
    blocks = mutual_information(tokens[:, None], groups, 2, blocks=episodes)
    assert (blocks.high - blocks.low) > 4 * (frames.high - frames.low)
    each = mutual_information(tokens[::50, None], groups[::50], 2, blocks=episodes[::50])
    assert torch.allclose(blocks.estimate, each.estimate)
    again = mutual_information(tokens[:, None], groups, 2, blocks=episodes)
    assert torch.equal(again.low, blocks.low)


def test_one_block_in_a_group_leaves_the_interval_unknown():
    told = mutual_information(TOKENS, GROUPS, 4, blocks=torch.tensor([0, 0, 1, 2]), resamples=20)
    assert told.estimate.isfinite().all()
    assert told.low.isnan().all()
    assert told.high.isnan().all()
    alone = torch.tensor([0, 1, 1, 1, 1])
    for blocks in (None, torch.arange(5)):
        told = mutual_information(alone[:, None], alone, 2, blocks=blocks, resamples=20)
        assert told.low.isnan().all()


def test_a_lone_token_of_one_level_leaves_the_other_levels_known():
    tokens = TOKENS.repeat(3, 1)
    tokens[2:, 1] = torch.where(GROUPS.repeat(3)[2:] == 1, -1, tokens[2:, 1])
    tokens[3, 1] = 1  # the second group's only token of level 1
    for blocks in (None, torch.arange(12)):
        told = mutual_information(tokens, GROUPS.repeat(3), 4, blocks=blocks, resamples=20)
        for bound in (told.low, told.high):
            assert bound.isnan().tolist() == [False, True]


def test_blocks_may_be_numbered_within_each_group():
    tokens, groups, episodes = independent(2, 16, 12, 30)
    within = mutual_information(tokens, groups, 16, blocks=episodes // 2, resamples=50)
    across = mutual_information(tokens, groups, 16, blocks=episodes, resamples=50)
    assert torch.equal(torch.stack(within).isfinite(), torch.ones(3, 1, dtype=torch.bool))
    assert torch.equal(torch.stack(within), torch.stack(across))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_arrays_and_small_integers_do_as_well(dtype):
    arrays = [tensor.numpy().astype(dtype) for tensor in (TOKENS, GROUPS, torch.arange(4))]
    expected = mutual_information(TOKENS, GROUPS, 4, blocks=torch.arange(4), resamples=20)
    for tokens, groups, blocks in (arrays, map(torch.from_numpy, arrays)):
        told = mutual_information(tokens, groups, np.array([4, 4]), blocks=blocks, resamples=20)
        assert torch.equal(torch.stack(told), torch.stack(expected))
        assert jensen_shannon(tokens, groups, 4)[1, 0, 1] == 1


def test_errors():
    for share in (-0.5, 1.0, float("nan"), None, True):
        with pytest.raises(ValueError, match=r"at_least is .*; give a share from 0 to below 1"):
            shared_code_share(torch.zeros(4, 1, dtype=torch.int64), torch.tensor([0, 0, 1, 1]), 4, share)
    with pytest.raises(ValueError, match=r"\(N, L\)"):
        usage_by_group(TOKENS, GROUPS[:3], 4)
    with pytest.raises(ValueError, match="from 0"):
        usage_by_group(TOKENS, GROUPS - 1, 4)
    with pytest.raises(ValueError, match="blocks"):
        mutual_information(TOKENS, GROUPS, 4, blocks=GROUPS[:2])
    for resamples in (0, 1.5):
        with pytest.raises(ValueError, match=f"resamples is {resamples}"):
            mutual_information(TOKENS, GROUPS, 4, resamples=resamples)
    with pytest.raises(ValueError, match="confidence 'a'"):
        mutual_information(TOKENS, GROUPS, 4, confidence="a")
    with pytest.raises(ValueError, match=r"groups are torch\.float32"):
        counts_by_group(TOKENS, GROUPS + 0.5, 4)


def test_a_group_without_tokens():
    """A number that no group has, or a level that a group has no token of."""
    groups = torch.tensor([0, 0, 2, 2])
    for blocks in (None, torch.arange(4)):
        told = mutual_information(TOKENS, groups, 4, blocks=blocks, resamples=20)
        assert told.estimate.tolist() == mutual_information(TOKENS, GROUPS, 4, resamples=20).estimate.tolist()
    assert shared_code_share(TOKENS, groups, 4).tolist() == [1.0, 0.0]
    dropped = torch.stack([TOKENS[:, 0], torch.full((4,), -1)], 1)
    share = shared_code_share(dropped, groups, 4)
    assert share[0] == 1.0
    assert share[1].isnan()
    divergence = jensen_shannon(TOKENS, groups, 4)
    assert divergence[:, 1].isnan().all()
    assert divergence[:, :, 1].isnan().all()
    assert divergence[1, 0, 2] == 1


def test_counts_by_hand_and_numbers_of_groups_that_stand_for_none():
    tokens = torch.tensor([[0, 1], [2, -1], [0, 0], [2, 1]])
    groups = torch.tensor([0, 3, 0, 3])
    first, second = counts_by_group(tokens, groups, (3, 2))
    assert first.tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 2]]
    assert second.tolist() == [[1, 1], [0, 0], [0, 0], [0, 1]]
    with pytest.raises(ValueError, match="groups go up to 1000000 for 4 vectors; number them from 0"):
        counts_by_group(tokens, torch.tensor([0, 1, 0, 1_000_000]), (3, 2))


def test_divergence_of_each_two_groups_by_hand():
    tokens, groups = torch.tensor([[0], [0], [0], [1], [1]]), torch.tensor([0, 0, 1, 1, 2])
    mixed = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5  # of (1, 0) and (1/2, 1/2)
    expected = torch.tensor([[0, mixed, 1], [mixed, 0, mixed], [1, mixed, 0]])
    torch.testing.assert_close(jensen_shannon(tokens, groups, 2)[0], expected)
