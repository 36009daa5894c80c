"""The packaged tables are well formed."""

import fnmatch
import re

from convatlas.papers import CONVENTIONS
from convatlas.papers.audit import ROUNDING, SCALE
from convatlas.papers.conventions import REPORTED
from convatlas.papers.tables import citations, figures, remarks
from convatlas.zoo import list_networks, spec


def test_all_families_are_there():
    assert len([f for f in figures() if f.where != "derived"]) == 1089
    assert {f.paper for f in figures()} == {c.paper for c in citations()} - {"ResNeXt"}  # a carrier of SE only


def test_every_figure_names_an_existing_convention():
    assert {f.convention for f in figures()} <= {"", *CONVENTIONS, *REPORTED}


def test_a_figure_with_a_convention_can_be_computed():
    for f in figures():
        if f.convention in CONVENTIONS:
            assert f.arch or f.where == "derived", f
            assert f.quantity.split(":")[0] == CONVENTIONS[f.convention].quantity, f
            assert f.rounding == "" or (f.rounding in ROUNDING and f.unit in SCALE), f
            assert bool(f.rounding) == bool(re.fullmatch(r"[\d.]+", f.printed)), f
        elif not f.convention:
            assert not f.arch, f


def test_a_resolution_is_one_sentence_that_ends():
    assert all(re.fullmatch(r"\S.*\.", f.resolution) for f in figures() if f.resolution)


def test_no_figure_appears_twice_in_one_place():
    places = [(f.paper, f.network, f.dataset, f.input, f.quantity, f.where, f.printed) for f in figures() if f.where]
    printed = [place for place in places if place[5] not in ("derived", "Table 6/7")]  # these two tables are merged
    assert len(printed) == len(set(printed))


def test_every_registered_network_has_a_citation():
    assert {spec(name).paper for name in list_networks()} <= {c.key for c in citations()}


def test_every_pattern_of_a_remark_matches_a_network():
    for remark in remarks():
        for pattern in remark.networks:
            assert fnmatch.filter(list_networks(), pattern), pattern
        assert remark.source
