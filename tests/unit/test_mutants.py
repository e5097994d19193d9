"""The catalogue of mutants is in line with the product: a place that has moved would break nothing."""

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_finds_its_place_and_its_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
    modules = [argument for argument in mutant.selection if "/" in argument]
    assert modules
    assert all((ROOT / module).exists() for module in modules)


def test_names_of_mutants_tell_them_apart() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
