"""docs/clients.md shows the very recipes that the tests run."""

from tests.clients.page import PAGE, RECIPES_HEADING, page, recipes
from tests.clients.program import CHECKS, PROGRAMS
from tests.clients.run import Result


def test_recipes_of_the_page_are_those_that_are_run():
    assert PAGE.read_text().partition(RECIPES_HEADING)[2] == recipes().removeprefix(RECIPES_HEADING)


def test_every_recipe_checks_what_came_back_and_pins_its_versions():
    for program in PROGRAMS:
        shown, checks = CHECKS.split(program.recipe_file.read_text())[::2]
        assert shown.strip() and ("assert" in checks or "test " in checks), program.folder
        assert program.pinned.exists(), program.pinned


def test_a_run_replaces_its_row_and_keeps_the_others():
    old = PAGE.read_text()
    nothing = [None] * len(PROGRAMS)
    assert page(old, nothing) == old
    program = PROGRAMS[0]
    failed = Result(program.title, "0", program.done, "failed: a | b", 1.5, "2026-01-02")
    new = page(old, [failed, *nothing[1:]])
    assert f"| {program.done} | failed: a \\| b | 1.5 | 2026-01-02 |" in new
    assert len(set(new.splitlines()) - set(old.splitlines())) == 1
