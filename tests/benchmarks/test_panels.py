"""The panels are played by models as runs that begin with them are."""


def test_a_model_plays_every_task_with_the_options_and_turns_of_its_laptop_recipe(load) -> None:
    asked = {(suite, who): words for suite, who, words in load("panels").cells()}
    assert asked["alfworld/gen-unseen", "alfworld-tiny"] == [
        "--model", "alfworld-tiny", "--max-turns", "30", "--workers", "0",
    ]  # fmt: skip
    assert asked["webshop/gen-easy-test", "webshop-tiny"] == [
        "--model", "webshop-tiny", "--option", "observation=bare", "--max-turns", "10",
        "--workers", "0",
    ]  # fmt: skip
