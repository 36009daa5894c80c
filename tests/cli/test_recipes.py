"""`convatlas recipes`: the table of all, and one as it is."""

import pytest

from convatlas.cli import main
from convatlas.train.builtin import about, builtin
from convatlas.train.recipe import Recipe


def test_the_table_has_a_row_for_each_recipe(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in builtin():
        (row,) = (line.split() for line in lines if line.startswith(f" {name} "))
        recipe = Recipe.load(name)
        for value in (recipe.epochs, recipe.batch, recipe.optimizer, recipe.lr, about(name)["Source"].split()[0]):
            assert str(value) in row, (name, value)


@pytest.mark.parametrize("name", ["alexnet", "digits"])
def test_one_is_printed_whole_and_can_be_trained_from(capsys, tmp_path, name):
    assert main(["recipes", name]) == 0
    printed = capsys.readouterr().out
    assert printed == builtin()[name].read_text()
    (tmp_path / "mine.yaml").write_text(printed)
    assert Recipe.load(tmp_path / "mine.yaml") == Recipe.load(name)


def test_an_unknown_name_is_refused_with_the_known_ones(capsys):
    assert main(["recipes", "alexnett"]) == 2
    assert "error[L7]: no recipe is called 'alexnett'. Remedy: one of alexnet, " in capsys.readouterr().err


def test_every_field_of_a_recipe_is_a_flag_of_train():
    from convatlas.cli import build_parser

    words = ["train", "--freeze", "stem*", "--mixup", "0.2", "--no-decay-depthwise", "--milestones", "0.3", "0.6"]
    args = vars(build_parser().parse_args(words))
    assert {key for key in args if key.startswith("recipe_")} == {f"recipe_{name}" for name in Recipe.__annotations__}
    assert args["recipe_freeze"] == "stem*"
    assert args["recipe_decay_depthwise"] is False
    assert args["recipe_milestones"] == [0.3, 0.6]
    assert args["recipe_policy"] is None
