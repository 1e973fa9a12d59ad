import json
from collections.abc import Sequence
from dataclasses import replace

from agentgym.trainers.batch import Batch
from agentgym.trainers.trajectory_lines import trajectory_lines
from agentgym.trajectory_line import trajectory_line
from agentgym.types import Key


def test_every_trajectory_is_a_line_and_the_first_ones_have_their_tokens(
    two_groups: Batch,
) -> None:
    lines = trajectory_lines(two_groups, token_fields=2)
    assert [(line["task"], line["member"]) for line in lines] == [
        (t.key.task, t.key.member) for t in two_groups.trajectories
    ]
    assert [line["return"] for line in lines] == two_groups.return_N.tolist()
    assert [n for n, line in enumerate(lines) if "rows" in line] == [0, 1]
    assert json.loads(json.dumps(lines)) == lines


def test_a_line_tells_where_a_trajectory_branched_off(make_trajectory) -> None:
    fresh = make_trajectory("t", 1, (2, 2))
    branch = replace(fresh, key=Key("t", 1, 2), parent=Key("t", 1, 0), shared=1)
    told = [
        [trajectory_line(t)[name] for name in ("branch", "parent", "shared_turns")]
        for t in (fresh, branch)
    ]
    assert told == [[0, None, 0], [2, [1, 0], 1]]


def test_token_fields_have_one_entry_a_token_without_padding(two_groups: Batch) -> None:
    scored = two_groups.with_(advantage_BT=two_groups.mask_BT * 0.5)
    for line, trajectory in zip(
        trajectory_lines(scored, token_fields=8), scored.trajectories, strict=True
    ):
        (row,), (told,) = trajectory.rows, line["rows"]
        assert told["ids"] == list(row.ids)
        assert told["turn"] == list(row.turns)
        assert told["behaviour_logprob"] == list(row.logprobs)
        assert told["advantage"] == [0.5 if turn >= 0 else 0.0 for turn in row.turns]
        assert "entropy" not in told


def test_sampled_tokens_carry_their_text_and_others_none(two_groups: Batch) -> None:
    def decode(ids: Sequence[int]) -> str:
        return "".join(f"<{i}>" for i in ids)

    for line, trajectory in zip(
        trajectory_lines(two_groups, 8, decode), two_groups.trajectories, strict=True
    ):
        (row,), (told,) = trajectory.rows, line["rows"]
        assert told["text"] == [
            f"<{i}>" if turn >= 0 else "" for i, turn in zip(row.ids, row.turns, strict=True)
        ]
