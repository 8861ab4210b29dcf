"""gpubp recipes: the recipes there are."""

from __future__ import annotations

from gpubp.cli.app import app


@app.command("recipes")
def list_recipes() -> None:
    """List the recipes and what each must reach."""
    from rich.console import Console
    from rich.table import Table

    from gpubp.experiments.recipe import load_recipe, recipe_names

    table = Table("recipe", "layers", "what", "must reach", box=None, header_style="bold", pad_edge=False)
    for name in recipe_names():
        recipe = load_recipe(name)
        reach = "" if recipe.reach is None else f"{recipe.reach:g}"
        table.add_row(name, "-".join(map(str, recipe.layers)), recipe.title, reach)
    Console().print(table)
