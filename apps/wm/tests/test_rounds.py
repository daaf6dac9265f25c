import json

import pytest
from wm.config import RunConfig, build_config
from wm.rounds import candidate_rounds, final_layout
from wm.run import Layout


def rounds(count: int, candidates: int) -> RunConfig:
    return build_config(
        {"collect": {"num_steps": 20_000}, "dream": {"context": 4}},
        {"rounds": {"count": count, "first_steps": 10_000}, "choose": {"rounds": candidates}},
    )


@pytest.mark.parametrize(
    ("count", "candidates", "expected"), [(6, 3, [3, 4, 5]), (2, 3, [0, 1]), (6, 1, [5]), (1, 3, [0])]
)
def test_candidates_are_the_last_rounds(count, candidates, expected):
    assert candidate_rounds(rounds(count, candidates)) == expected


def test_a_runs_final_round_is_the_chosen_one(tmp_path):
    config = rounds(6, 3)
    assert final_layout(tmp_path, config) == Layout(tmp_path)  # nothing chosen yet: the last
    for index, layout in ((4, Layout(tmp_path, 4)), (5, Layout(tmp_path))):
        (tmp_path / "choice.json").write_text(json.dumps({"round": index, "agent_steps": 9}))
        assert final_layout(tmp_path, config) == layout
    (tmp_path / "choice.json").write_text(json.dumps({"round": 4, "agent_steps": 9}))
    assert final_layout(tmp_path, rounds(6, 1)) == Layout(tmp_path)  # the run no longer chooses
    assert final_layout(tmp_path, rounds(3, 2)) == Layout(tmp_path)  # a choice of other rounds
    for damaged in ("{", "[]", '{"round": 4}', '{"agent_steps": 9}'):
        (tmp_path / "choice.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"choice\.json is damaged"):
            final_layout(tmp_path, config)
