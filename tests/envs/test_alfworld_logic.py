"""Queries find every way to bind their variables; facts stay found when they change."""

from __future__ import annotations

import pytest

from agentgym.envs.alfworld_logic import Facts, Literal, Query
from agentgym.envs.alfworld_pddl import read_domain, read_problem
from agentgym.errors import DataError

ON = Literal("on", ("?x", "?y"))
RED = Literal("red", ("?x",))


@pytest.fixture
def facts() -> Facts:
    found = {"on": {("a", "b"), ("b", "c"), ("d", "b")}, "red": {("b",), ("d",)}}
    return Facts(found, {"object": {"a", "b", "c", "d"}, "box": {"a", "b"}})


def answers(query: Query, facts: Facts, **given: str) -> set[tuple[tuple[str, str], ...]]:
    binding = {f"?{name}": value for name, value in given.items()}
    return {tuple(sorted(answer.items())) for answer in query.solutions(facts, binding)}


def test_a_conjunction_binds_its_variables_alike_in_all_literals(facts: Facts) -> None:
    assert answers(Query((ON, RED)), facts) == {
        (("?x", "b"), ("?y", "c")),
        (("?x", "d"), ("?y", "b")),
    }


def test_what_is_given_restricts_the_answers(facts: Facts) -> None:
    assert answers(Query((ON,)), facts, y="b") == {
        (("?x", "a"), ("?y", "b")),
        (("?x", "d"), ("?y", "b")),
    }
    assert answers(Query((ON,)), facts, x="a", y="b") == {(("?x", "a"), ("?y", "b"))}
    assert not answers(Query((ON,)), facts, x="a", y="c")


def test_a_negative_literal_must_not_hold(facts: Facts) -> None:
    assert answers(Query((ON,), negative=(RED,)), facts) == {(("?x", "a"), ("?y", "b"))}


def test_a_variable_of_a_type_stands_for_its_members_only(facts: Facts) -> None:
    assert answers(Query((RED,), types={"?x": "box"}), facts) == {(("?x", "b"),)}
    assert answers(Query((), types={"?x": "box"}), facts) == {(("?x", "a"),), (("?x", "b"),)}
    assert not answers(Query((RED,), types={"?x": "no such type"}), facts)


def test_equal_and_unequal_compare_terms(facts: Facts) -> None:
    two = (RED, Literal("red", ("?z",)))
    assert answers(Query(two, equal=(("?x", "?z"),)), facts) == {
        (("?x", "b"), ("?z", "b")),
        (("?x", "d"), ("?z", "d")),
    }
    assert answers(Query(two, unequal=(("?x", "?z"),)), facts) == {
        (("?x", "b"), ("?z", "d")),
        (("?x", "d"), ("?z", "b")),
    }


def test_distinct_variables_stand_for_different_things(facts: Facts) -> None:
    two = (RED, Literal("red", ("?z",)))
    assert len(answers(Query(two), facts)) == 4
    assert len(answers(Query(two, distinct=True), facts)) == 2


def test_in_order_answers_follow_the_literals_and_sorted_facts(facts: Facts) -> None:
    query = Query((RED, ON), in_order=True)
    assert [answer["?x"] for answer in query.solutions(facts, {})] == ["b", "d"]


def test_a_variable_twice_in_a_literal_stands_for_one_thing(facts: Facts) -> None:
    loop = Query((Literal("on", ("?x", "?x")),))
    assert not answers(loop, facts)
    facts.add("on", ("c", "c"))
    assert answers(loop, facts) == {(("?x", "c"),)}


def test_changed_facts_are_found_by_every_argument(facts: Facts) -> None:
    assert answers(Query((ON,)), facts, y="b")  # builds the index that must keep up
    facts.remove("on", ("a", "b"))
    facts.add("on", ("c", "b"))
    assert answers(Query((ON,)), facts, y="b") == {
        (("?x", "c"), ("?y", "b")),
        (("?x", "d"), ("?y", "b")),
    }


DOMAIN = """(define (domain toy) (:requirements :adl) (:types box - thing thing)
 (:predicates (in ?b - box) (on ?b - box) (lit))
 (:action switch :parameters (?b - box)
  :precondition (or (in ?b) (not (or (on ?b) (lit))))
  :effect (and (increase (total-cost) 1) (when (on ?b) (not (on ?b))) (when (not (on ?b)) (on ?b))))
 (:action move :parameters (?b - box ?c - box) :precondition (in ?b)
  :effect (and (not (in ?b)) (in ?c))))"""
PROBLEM = """(define (problem one) (:domain toy) (:objects a b - box c - thing)
 (:init (= (total-cost) 0) (in A)) ; names are of one case
 (:goal (exists (?b - thing) (in ?b))))"""


def test_a_domain_of_disjunctions_negations_and_conditional_effects_is_read() -> None:
    domain = read_domain(DOMAIN)
    problem = read_problem(PROBLEM, domain)
    facts = Facts(problem.facts, problem.members)
    switch, move = domain.actions
    assert problem.members["thing"] == {"a", "b", "c"}
    assert switch.possible(facts) == [("a",), ("b",)]
    assert switch.changes(facts, ("a",)) == [(Literal("on", ("a",)), True)]
    facts.add("on", ("a",))
    facts.add("on", ("b",))
    assert switch.possible(facts) == [("a",)]
    assert switch.changes(facts, ("a",)) == [(Literal("on", ("a",)), False)]
    assert move.possible(facts) == [("a", "b")]  # from a to a changes nothing: no action
    assert problem.goal[0].solutions(facts, {}) == [{"?b": "a"}]


def test_a_question_for_more_arguments_than_there_are_is_refused(facts: Facts) -> None:
    for query in (Query((Literal("red", ("?x", "?y")),)), Query((Literal("red", ("?x", "b")),))):
        with pytest.raises(DataError, match="asks for 2 arguments of red, and its facts have 1"):
            answers(query, facts)


def test_a_question_with_too_many_answers_is_refused_and_takes_no_time(facts: Facts) -> None:
    many = {f"?{n}": "object" for n in range(12)}  # 4^12 = 16,777,216
    with pytest.raises(DataError, match="more than 100,000 answers"):
        answers(Query((), types=many), facts)
    crowd = Facts({"on": {(str(n), "b") for n in range(400)}}, {})
    pairs = tuple(Literal("on", (f"?{n}", "b")) for n in range(3))  # 400^3
    with pytest.raises(DataError, match="more than 100,000 answers"):
        answers(Query(pairs), crowd)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("(exists (o - object) (on o b))", "expected a variable, as [?]o, got o"),
        ("(and" + " (or (on a b) (on b a))" * 14 + ")", "in more than 10,000 ways"),  # 2^14
    ],
)
def test_a_goal_that_is_a_trap_is_refused(goal: str, message: str) -> None:
    domain = read_domain("(define (domain d) (:predicates (on ?a ?b)))")
    problem = f"(define (problem p) (:objects a b - object) (:init (on a b)) (:goal {goal}))"
    with pytest.raises(DataError, match=message):
        read_problem(problem, domain)
