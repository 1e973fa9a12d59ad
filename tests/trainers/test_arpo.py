"""ARPO as a method: when it has a plan, what it reports, what its presets mean."""

from agentgym.trainers.method import Need
from agentgym.trainers.registry import build_chain
from agentgym.types import Key


def chain(**settings: object):
    return build_chain({"name": "arpo", **settings}, steps=10)


def test_each_round_of_play_has_a_plan_of_its_own() -> None:
    method = chain()
    first, second = (method.collect(8, "0:1", 1) for _ in range(2))
    assert first is not None
    assert second is not first


def test_it_needs_entropies_and_snapshots_where_it_branches() -> None:
    assert chain().links[-1].needs == Need.TOP_K | Need.SNAPSHOTS
    assert chain(beam=1).links[-1].needs == Need.NOTHING


def test_where_nothing_can_branch_groups_are_flat() -> None:
    assert chain(initial=8).collect(8, "0:1", 1) is None
    assert chain(weight=0.0, alpha=0.0).collect(8, "0:1", 1) is None
    assert chain(beam=1).collect(8, "0:1", 1) is None


def test_the_report_is_of_all_rounds_of_one_step() -> None:
    method = chain(initial=1)
    for task in "ab":
        plan = method.collect(2, "0:1", 1)
        (key,) = plan.fresh(task)
        assert plan.branches(key, 0, [1.0]) == ()
        assert plan.branches(key, 1, [1.0 + 11.931214 / 2]) == [Key(task, 0, 1)]
    metrics = method.metrics(1)
    assert (metrics["tree/fresh"], metrics["tree/branches"]) == (2, 2)
    assert metrics["tree/decisions"] == 2
    assert round(metrics["tree/delta"], 6) == 0.5  # ln 151936 / 2 nats
    assert round(metrics["tree/probability"], 6) == 0.6
    method.collect(2, "0:2", 2)  # the next step is played ahead
    assert method.metrics(1) == metrics
    method.observe(None, 1)
    method.observe(None, 2)
    assert method.metrics(1) == {}
    assert method.metrics(2)["tree/branches"] == 0


def test_released_draws_by_the_turn_before() -> None:
    options = build_chain({"name": "arpo:released"}, steps=10).options()["arpo"]
    assert (options["decision"], options["timing"], options["top_k"]) == ("draw", "before", 10)
    assert (options["alpha"], options["weight"], options["beam"]) == (0.5, 0.2, 2)


def test_the_loss_and_the_credit_are_the_bases() -> None:
    method = chain()
    assert [link.name for link in method.links] == ["grpo", "arpo"]
    assert method.options()["grpo"] == build_chain({}, steps=10).options()["grpo"]
    batch = object()
    assert method.links[-1].advantages(batch, 1) is batch
