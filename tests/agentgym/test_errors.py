from agentgym.errors import unknown


def test_an_unknown_name_is_answered_with_each_near_one_once() -> None:
    found = str(unknown("option", "wieght", ["weight", "height", "weight", "seed"]))
    assert found == "unknown option 'wieght'; did you mean weight or height?"


def test_where_none_is_near_each_known_one_is_named_once() -> None:
    assert str(unknown("option", "x", ["b", "a", "b"])) == "unknown option 'x'; known: a, b"
