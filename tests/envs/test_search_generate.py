"""The generated worlds: consistent, the same everywhere, fair and hard to answer at once."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from statistics import mean

import pytest

from agentgym.envs.search_articles import read_article, write_articles
from agentgym.envs.search_compose import KINDS, Composer
from agentgym.envs.search_data import World
from agentgym.envs.search_facts import Facts
from agentgym.envs.search_generate import SETS, articles_of, facts_of, generate
from agentgym.envs.search_metrics import normalise
from agentgym.envs.search_names import Namer
from agentgym.envs.search_population import SMALLEST, draw_facts
from agentgym.envs.search_questions import (
    Both,
    Clause,
    Compared,
    Expression,
    Named,
    Of,
    evaluate,
    inside,
    read_question,
    write_question,
)
from agentgym.envs.search_relations import AGES, RELATIONS, WORKS, YEAR
from agentgym.envs.search_retrieval import retriever_over
from agentgym.errors import UsageError

Known = Mapping[tuple[str, str], set[str]]

DIGESTS = {
    "gen-train": "11f89bab63f12d16",
    "gen-test": "cc6ee8a18add5900",
    "gen-easy-train": "2396079b48d1638e",
    "gen-easy-test": "f624d69bd486f714",
    "gen-plain-train": "e79e780055cf1423",
}
"""Of the worlds of all sets."""

WORLDS = sorted({one.corpus for one in SETS.values()}, key=lambda one: one.articles)


def triples(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """Yield every fact as subject, relation and object."""
    for subject in facts.entities:
        for relation, value in facts.about(subject).items():
            yield subject, relation, value


def digest(world: World) -> str:
    """Return what changes when any article or question does."""
    return hashlib.sha256(repr(world).encode()).hexdigest()[:16]


# What holds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", WORLDS, ids=lambda one: one.name)
def test_what_holds_is_consistent(corpus) -> None:
    facts = facts_of(corpus)
    year: dict[str, int] = {}
    for subject, relation, value in triples(facts):
        if RELATIONS[relation].to == YEAR:
            year[subject] = int(value)
    for subject, relation, value in triples(facts):
        kind, meant = facts.entities[subject].kind, RELATIONS[relation]
        assert kind in meant.of
        if value in facts.entities:
            assert facts.entities[value].kind == meant.to
        if relation in ("mother", "father"):
            assert 20 <= year[subject] - year[value] <= 55
        if relation == "teacher":
            assert 15 <= year[subject] - year[value] <= 50
        if relation in ("university", "academy", "company"):
            assert year[value] <= year[subject] + 60
        if relation in ("publisher", "studio", "stage", "source"):
            assert year[value] <= year[subject]
        if kind in WORKS and relation == WORKS[kind][1]:
            assert 25 <= year[subject] - year[value] <= 60
            assert facts.entities[value].role == WORKS[kind][0]
        if relation in ("spouse", "twin"):
            assert value != subject
            assert facts.value(value, relation) == subject
        if relation == "father":
            assert value.split()[1] == subject.split()[1]
            assert facts.value(value, "spouse") == facts.value(subject, "mother")
        if relation == "capital":
            assert facts.value(value, "country") == subject


@pytest.mark.parametrize("corpus", WORLDS, ids=lambda one: one.name)
def test_families_and_teachers_are_of_one_side(corpus) -> None:
    facts = facts_of(corpus)
    for subject, relation, value in triples(facts):
        if relation in ("mother", "father", "spouse", "teacher"):
            assert facts.entities[subject].held_out == facts.entities[value].held_out


@pytest.mark.parametrize("corpus", WORLDS, ids=lambda one: one.name)
def test_no_two_things_have_names_that_a_metric_takes_for_the_same(corpus) -> None:
    facts = facts_of(corpus)
    assert len(facts.entities) == corpus.articles
    assert len({normalise(name) for name in facts.entities}) == corpus.articles


def test_names_never_repeat_and_run_out_with_a_reason() -> None:
    namer = Namer(random.Random(0))
    names = {namer.country() for _ in range(40)}
    assert len(names) == 40
    with pytest.raises(UsageError, match="no new name was found in 1000 draws after"):
        [namer.country() for _ in range(100)]


def test_a_world_that_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="a world of 99 articles; it needs at least 100"):
        draw_facts("seed", SMALLEST - 1)
    assert len(draw_facts("seed", SMALLEST).entities) == SMALLEST


# Articles -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def read() -> Mapping[str, Known]:
    """What the articles of each world say, read from their texts: by subject and relation."""
    worlds: dict[str, Known] = {}
    for corpus in WORLDS:
        known: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for article in articles_of(corpus):
            for relation, value in read_article(article.title, article.text):
                known[article.title, relation].add(value)
        worlds[corpus.name] = known
    return worlds


@pytest.mark.parametrize("corpus", WORLDS, ids=lambda one: one.name)
def test_articles_say_everything_that_holds_and_nothing_else(corpus, read) -> None:
    holds = {(subject, relation): {value} for subject, relation, value in triples(facts_of(corpus))}
    assert read[corpus.name] == holds


@pytest.mark.parametrize("corpus", WORLDS, ids=lambda one: one.name)
def test_there_is_one_article_about_each_thing(corpus) -> None:
    articles = articles_of(corpus)
    assert [one.id for one in articles] == [str(number) for number in range(corpus.articles)]
    assert {one.title for one in articles} == set(facts_of(corpus).entities)
    assert all(one.text.startswith(one.title) or "." in one.text for one in articles)


@pytest.mark.parametrize("corpus", WORLDS, ids=lambda one: one.name)
def test_plain_articles_are_short(corpus) -> None:
    words = mean(len(one.text.split()) for one in articles_of(corpus))
    assert (words < 40) if corpus.plain else (words > 55)


def test_a_sentence_that_was_cut_off_states_nothing() -> None:
    text = "Ada Venberg (born 1900) was a painter. She was born in Halith. She died in Cor"
    assert list(read_article("Ada Venberg", text)) == [("born", "1900"), ("birthplace", "Halith")]


def test_a_sentence_about_something_else_states_nothing() -> None:
    assert not list(read_article("Ada Venberg", "Ida Venberg was born in Halith."))


def test_ten_thousand_articles_are_made_in_seconds() -> None:
    begun = time.process_time()
    articles = write_articles(draw_facts("time", 10_000), "time")
    assert len(articles) == 10_000
    assert time.process_time() - begun < 10  # measured: 0.5 s


# Questions ------------------------------------------------------------------------------------


def join(one: Expression, known: Known, subjects: Known) -> set[str]:
    """Answer by joining sets of facts: no code is shared with what made the question."""
    if isinstance(one, Named):
        assert any((one.name, relation) in known for relation in RELATIONS), one.name
        return {one.name}
    if isinstance(one, Of):
        inner = join(one.subject, known, subjects)
        return {value for subject in inner for value in known.get((subject, one.relation), ())}
    if isinstance(one, Both):
        first, second = (
            {s for v in join(c.object, known, subjects) for s in subjects[c.relation, v]}
            for c in (one.one, one.two)
        )
        return first & second
    both = join(one.one, known, subjects) | join(one.two, known, subjects)
    (smaller, elder), (greater, younger) = sorted((min(known[s, one.year]), s) for s in both)
    assert smaller < greater  # years of four digits sort as text
    return {younger if one.later else elder}


@pytest.mark.parametrize("name", SETS)
def test_every_question_has_one_answer_proven_from_the_articles(name, read) -> None:
    known = dict(read[SETS[name].corpus.name])
    subjects: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for (subject, relation), values in known.items():
        for value in values:
            subjects[relation, value].add(subject)
    for question in generate(name).questions:
        assert join(read_question(question.text), known, subjects) == set(question.answers)
        assert len(question.answers) == 1


@pytest.mark.parametrize("name", SETS)
def test_a_question_needs_as_many_articles_as_its_kind_says(name) -> None:
    world = generate(name)
    for question in world.questions:
        form, _, hops = question.kind.rpartition("-")
        assert question.kind in KINDS
        assert len({hop.article for hop in question.hops}) == int(hops)
        forms = {type(one) for one in inside(read_question(question.text))}
        assert (Compared in forms, Both in forms) == (form == "comparison", form == "intersection")


@pytest.mark.parametrize("name", SETS)
def test_only_the_last_article_tells_the_answer(name) -> None:
    """The names in other articles are no answer; that of a comparison is in one of two."""
    world = generate(name)
    for question in world.questions:
        shown = [world.articles[int(hop.article)] for hop in question.hops]
        answer = re.compile(rf"\b{question.answers[0]}\b")
        telling = [one for one in shown if answer.search(one.contents)]
        assert len(telling) == 1, question
        assert question.answers[0] not in question.text
        if "comparison" not in question.kind:
            assert telling == shown[-1:]


@pytest.mark.parametrize("name", SETS)
def test_both_conditions_of_an_intersection_are_needed(name) -> None:
    facts = facts_of(SETS[name].corpus)
    for question in generate(name).questions:
        expression = read_question(question.text)
        if isinstance(expression, Both):
            for clause in (expression.one, expression.two):
                (value,) = evaluate(clause.object, facts)
                assert len(facts.subjects(clause.relation, value)) > 1


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_its_kinds_in_turn_and_no_question_twice(name) -> None:
    wanted, questions = SETS[name], generate(name).questions
    assert tuple(one.id for one in questions) == wanted.task_ids
    assert len({one.text for one in questions}) == len(questions)
    assert Counter(one.kind for one in questions) == dict.fromkeys(wanted.kinds, wanted.each)


@pytest.mark.parametrize("pair", [("gen-train", "gen-test"), ("gen-easy-train", "gen-easy-test")])
def test_held_out_people_are_never_asked_about_in_training(pair) -> None:
    ways = []
    for name in pair:
        facts = facts_of(SETS[name].corpus)
        people = [one for one in facts.entities.values() if one.kind == "person"]
        met = {
            value
            for question in generate(name).questions
            for one in inside(read_question(question.text))
            for value in evaluate(one, facts)
        }
        ways.append({one.name for one in people if one.name in met})
        assert {one.held_out for one in people if one.name in met} == {name == pair[1]}
        assert 0.27 < mean(one.held_out for one in people) < 0.33
    assert ways[0].isdisjoint(ways[1])
    titles = {one.title for one in generate(pair[0]).articles}
    assert ways[1] <= titles  # the articles about them can be found in training, too
    assert generate(pair[0]).articles is generate(pair[1]).articles


def test_training_in_another_world_asks_no_question_that_is_held_out() -> None:
    """Some of its people have the names of held-out ones, for names are drawn from one list."""
    wide, easy = generate("gen-plain-train"), generate("gen-easy-test")
    assert not {one.text for one in wide.questions} & {one.text for one in easy.questions}
    texts = {one.text for one in easy.articles}
    assert not any(one.text in texts for one in wide.articles)


@pytest.mark.parametrize("name", SETS)
def test_every_question_is_about_somebody(name) -> None:
    facts = facts_of(SETS[name].corpus)
    for question in generate(name).questions:
        met = {v for one in inside(read_question(question.text)) for v in evaluate(one, facts)}
        assert any(v in facts.entities and facts.entities[v].kind == "person" for v in met)


def test_one_search_rarely_finds_the_answer() -> None:
    """The question itself as a query, the answer anywhere in the first three articles."""
    world = generate("gen-test")
    retriever = retriever_over(world.articles)
    seen: defaultdict[bool, list[bool]] = defaultdict(list)
    for question in world.questions:
        top = retriever.search(question.text, 3)
        one_hop = question.kind == "bridge-1"
        seen[one_hop].append(any(question.answers[0] in hit.article.contents for hit in top))
    assert mean(seen[True]) >= 0.95
    assert mean(seen[False]) <= 0.06  # measured: 0.03


def test_a_world_is_the_same_whatever_python_hashes() -> None:
    code = (
        "import hashlib; from agentgym.envs.search_generate import generate;"
        "print(hashlib.sha256(repr(generate('gen-easy-test')).encode()).hexdigest()[:16])"
    )
    made = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "77"},  # this process has another one
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.strip() == digest(generate("gen-easy-test"))


def test_the_suites_stay_what_they_are() -> None:
    """Results are comparable as long as these hold; whoever changes them renames the suites."""
    assert {name: digest(generate(name)) for name in SETS} == DIGESTS


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean gen-test"):
        generate("gen-tests")


def test_a_kind_of_questions_that_there_is_not_is_refused() -> None:
    composer = Composer(draw_facts("seed", 200), held_out=False)
    with pytest.raises(UsageError, match="no questions are called 'bridge-9'"):
        composer.draw("bridge-9", random.Random(0))


def test_a_world_without_further_questions_says_so() -> None:
    composer = Composer(draw_facts("seed", SMALLEST), held_out=True, plain=True)
    rng = random.Random(0)
    with pytest.raises(UsageError, match="found no further bridge-1 question in 3000 draws after"):
        [composer.draw("bridge-1", rng) for _ in range(500)]


# Words of questions ---------------------------------------------------------------------------


@pytest.mark.parametrize("relation", [one for one in RELATIONS if RELATIONS[one].asks])
def test_every_wording_of_a_question_is_read_as_it_was_meant(relation) -> None:
    meant = Of(relation, Named("Silent Harbour"))
    said = {write_question(meant, random.Random(seed)) for seed in range(30)}
    assert said == {wording.format(x="Silent Harbour") for wording in RELATIONS[relation].asks}
    assert {read_question(one) for one in said} == {meant}


def test_a_question_with_everything_in_it_is_read_as_it_was_meant() -> None:
    author = Of("author", Named("Silent Harbour"))
    both = Both(
        Clause("birthplace", Of("place of death", author)),
        Clause("university", Named("Elmgate College")),
    )
    question = Of("seat", Of("company", Compared("born", True, Of("teacher", both), author)))
    assert write_question(question) == (
        "In which city is the company of the younger of the teacher of the person who was born in"
        " the place of death of the author of Silent Harbour and studied at Elmgate College and"
        " the author of Silent Harbour based?"
    )
    for seed in range(50):
        assert read_question(write_question(question, random.Random(seed))) == question


def test_words_for_smaller_and_greater_years() -> None:
    for year, (smaller, greater) in AGES.items():
        for later, words in ((False, smaller), (True, greater)):
            question = Of("seat", Compared(year, later, Named("Ax"), Named("By")))
            text = f"In which city is {words.format(x='Ax', y='By')} based?"
            assert write_question(question) == text
            assert read_question(text) == question


def test_comparisons_go_by_the_year() -> None:
    facts = draw_facts("seed", 200)
    one, two, *_ = (n for n, e in facts.entities.items() if e.kind == "person")
    assert int(facts.about(one)["born"]) < int(facts.about(two)["born"])  # drawn by year of birth
    for later, wanted in ((False, one), (True, two)):
        compared = Compared("born", later, Named(two), Named(one))
        assert evaluate(compared, facts) == {wanted}


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(UsageError, match="'river' has no wording for this place"):
        write_question(Of("country", Of("river", Named("Halith"))))


def test_a_question_of_another_world_is_refused() -> None:
    with pytest.raises(UsageError, match="such as 'Who wrote Silent Harbour\\?'"):
        read_question("Were Scott Derrickson and Ed Wood of the same nationality?")
