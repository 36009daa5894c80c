"""`recipes`."""

import argparse

from .parts import Commands, command, print_table


def add_commands(commands: Commands) -> None:
    """Declare it."""
    parser = command(commands, recipes, "list the recipes that come with convatlas, or print one")
    parser.add_argument(
        "name", nargs="?", help="the recipe to print, with what its head says about source and evidence"
    )


def recipes(args: argparse.Namespace) -> None:
    """The table, or the file."""
    from ..errors import ConfigError
    from ..train.builtin import about, builtin
    from ..train.recipe import Recipe

    if args.name is not None:
        if args.name not in builtin():
            raise ConfigError("L7", f"no recipe is called {args.name!r}", f"one of {', '.join(builtin())}")
        return print(builtin()[args.name].read_text("utf-8"), end="")
    rows = []
    for name in builtin():
        recipe, head = Recipe.load(name), about(name)
        numbers = (recipe.epochs, recipe.batch, recipe.optimizer, recipe.lr)
        rows.append((name, head["Networks"], *numbers, head["Source"], head["Evidence"]))
    columns = ("recipe", "for", "epochs #", "batch #", "optimizer", "lr #", "source", "evidence")
    return print_table(columns, rows)
