import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from token_worldmodel import TokenTrajectories, load_tokens, save_tokens
from token_worldmodel._artifact import save_artifact


def columns(trajectories: TokenTrajectories) -> dict[str, np.ndarray]:
    names = ("tokens", "actions", "rewards", "terminated", "truncated", "episode_ids", "lives")
    return {name: getattr(trajectories, name) for name in names}


def test_round_trip_and_equal_bytes(make_trajectories, tmp_path) -> None:
    trajectories = make_trajectories(4, 1, 6)
    for name in ("a", "b"):
        save_tokens(tmp_path / f"{name}.safetensors", trajectories, {"game": "Pong"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = columns(load_tokens(tmp_path / "a.safetensors"))
    for name, column in columns(trajectories).items():
        assert loaded[name].dtype == column.dtype
        np.testing.assert_array_equal(loaded[name], column)
    assert [str(c.dtype) for c in loaded.values()] == [
        "int16",
        "uint8",
        "float32",
        "bool",
        "bool",
        "int32",
        "uint8",
    ]


def test_two_columns_may_be_one_array_that_cannot_be_written(make_trajectories, tmp_path) -> None:
    never = np.zeros(6, np.bool_)
    never.flags.writeable = False
    given = TokenTrajectories(
        **(columns(make_trajectories(4, 2)) | {"terminated": never, "truncated": never})
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_tokens(tmp_path / "tokens.safetensors", given)
    assert not load_tokens(tmp_path / "tokens.safetensors").truncated.any()


def test_alternatives_are_kept_if_there_are_any(make_trajectories, tmp_path) -> None:
    made = make_trajectories(3, 2)
    assert made.alternatives.shape == (5, 0, 3)
    save_tokens(tmp_path / "without.safetensors", made)
    with safe_open(tmp_path / "without.safetensors", "np") as file:
        assert "alternatives" not in file.keys()  # noqa: SIM118 - the file is no dict
    assert load_tokens(tmp_path / "without.safetensors").alternatives.shape == (5, 0, 3)
    others = np.arange(30).reshape(5, 2, 3)
    save_tokens(tmp_path / "with.safetensors", replace(made, alternatives=others))
    loaded = load_tokens(tmp_path / "with.safetensors").alternatives
    assert loaded.dtype == np.int16
    np.testing.assert_array_equal(loaded, others)


def test_final_rows_end_episodes(make_trajectories) -> None:
    np.testing.assert_array_equal(make_trajectories(3, 1, 2).final, [False, False, True, True, False, True])


def test_episodes_may_have_any_ids(make_trajectories) -> None:
    given = columns(make_trajectories(3, 2, 2)) | {"episode_ids": np.repeat([7, 2, 4], [3, 2, 2])}
    np.testing.assert_array_equal(
        TokenTrajectories(**given).final, [False, False, True, False, True, False, True]
    )


def test_accepts_rewards_as_numpy_makes_them(make_trajectories) -> None:
    rewards = np.array([0.1, 0.1, 0.0, 0.1, 0.0])
    given = columns(make_trajectories(3, 2)) | {"rewards": rewards}
    assert TokenTrajectories(**given).rewards.tolist() == rewards.astype(np.float32).tolist()


def test_accepts_tensors(make_trajectories) -> None:
    given = {name: torch.from_numpy(column) for name, column in columns(make_trajectories(3, 2)).items()}
    given["tokens"] = given["tokens"].long()
    assert len(TokenTrajectories(**given)) == 5
    assert TokenTrajectories(**given).num_levels == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": np.zeros(5)}, r"tokens have shape \(5,\); give \(rows, levels\)"),
        ({"tokens": np.zeros((5, 0))}, r"shape \(5, 0\); give \(rows, levels\), one level or more"),
        ({"tokens": np.full((5, 3), 40_000)}, "tokens hold values that int16 cannot"),
        ({"tokens": np.full((5, 3), -1)}, "tokens hold -1; codes count from 0"),
        ({"alternatives": np.zeros((5, 2))}, r"alternatives have shape \(5, 2\); give \(5, any number, 3\)"),
        ({"alternatives": np.zeros((4, 2, 3))}, r"shape \(4, 2, 3\); give \(5, any number, 3\)"),
        ({"alternatives": np.full((5, 1, 3), -1)}, "alternatives hold -1; codes count from 0"),
        ({"rewards": np.full(5, np.nan)}, "rewards hold NaN or infinity"),
        ({"actions": np.full(5, 0.5)}, "actions hold values that uint8 cannot"),
        (
            {"actions": np.zeros(4), "lives": np.zeros(6)},
            r"actions \(4,\), lives \(6,\) should have shape \(5,\)",
        ),
        ({"episode_ids": np.array([0, 0, 1, 1, 0])}, "episode_ids return to an earlier episode"),
        ({"rewards": np.ones(5)}, r"rewards\[2\] is set on the last row of its episode"),
        ({"terminated": np.arange(5) == 2}, r"terminated\[2\] is set on the last row of its episode"),
        ({"truncated": np.arange(5) == 4}, r"truncated\[4\] is set on the last row"),
        ({"terminated": np.arange(5) == 0}, r"terminated\[0\] is set before its episode's last action"),
    ],
)
def test_refuses(make_trajectories, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        TokenTrajectories(**(columns(make_trajectories(3, 2)) | changes))


def test_names_the_columns_a_file_lacks(tmp_path) -> None:
    save_artifact(tmp_path / "t.safetensors", {"tokens": torch.zeros(2, 3)}, kind="tokens", config={})
    with pytest.raises(
        ValueError, match="lacks actions, episode_ids, lives, rewards, terminated, truncated; write"
    ):
        load_tokens(tmp_path / "t.safetensors")


def test_columns_may_be_views_of_any_stride(make_trajectories, tmp_path) -> None:
    made = make_trajectories(4, 1, 6)
    turned = replace(made, tokens=made.tokens[:, ::-1])
    assert turned.tokens.strides[1] < 0
    save_tokens(tmp_path / "tokens.safetensors", turned)
    np.testing.assert_array_equal(load_tokens(tmp_path / "tokens.safetensors").tokens, turned.tokens)
