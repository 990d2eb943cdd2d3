from __future__ import annotations

import json

import pytest

from examples.training.study_prompts import write
from sae_verify.errors import FileFormatError, PromptError
from sae_verify.problem import LogitDifference, TokenAgainstAll
from sae_verify.study import read_items
from tests.study.conftest import EXAMPLES


def file_of(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_every_order_of_the_options_is_a_row_of_the_question(tmp_path):
    row = {"text": "q {options} a", "positive": "x", "options": ["x", "y", "z"], "name": "one"}
    items = read_items(file_of(tmp_path / "p.jsonl", row)).test
    assert sorted(item.text for item in items) == sorted(
        f"q {a} , {b} , {c} a" for a, b, c in ["xyz", "xzy", "yxz", "yzx", "zxy", "zyx"]
    )
    assert {item.group for item in items} == {"one"}
    assert len({item.name for item in items}) == 6
    assert items[0].readout == TokenAgainstAll("x")


def test_roles_and_defaults(tmp_path):
    common = {"positive": "a", "negative": "b"}
    path = file_of(tmp_path / "p.jsonl", {"text": "one", **common}, {"text": "two", "role": "contrast", **common}, "")
    items = read_items(path)
    assert items.test[0].readout == LogitDifference("a", "b")
    assert items.found_on_test
    assert [item.text for item in items.contrast] == ["two"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "no JSON"),
        ("[1]", "list"),
        ({"text": "a"}, "positive is missing"),
        ({"text": "a", "positive": "b", "colour": "c"}, "colour"),
        ({"text": "a", "positive": 3}, "positive is 3"),
        ({"text": "a", "positive": "b", "role": "x"}, "role is 'x'"),
        ({"text": "a", "positive": "b", "closing": "z"}, "closing is 'z'"),
        ({"text": "a {options}", "positive": "b", "options": ["b"]}, "options is"),
        ({"text": "a {options}", "positive": "b", "options": ["c", "d"]}, "right answer"),
        ({"text": "a", "positive": "b", "options": ["b", "c"]}, "place"),
    ],
)
def test_a_bad_line_is_named_with_its_rule(tmp_path, row, said):
    path = file_of(tmp_path / "p.jsonl", {"text": "fine", "positive": "b"}, row)
    with pytest.raises(FileFormatError, match="line 2") as caught:
        read_items(path)
    assert said in str(caught.value)


def test_names_are_unique_and_something_is_tested(tmp_path):
    same = {"text": "a", "positive": "b", "name": "n"}
    with pytest.raises(PromptError, match="twice"):
        read_items(file_of(tmp_path / "p.jsonl", same, same))
    with pytest.raises(PromptError, match="no test rows"):
        read_items(file_of(tmp_path / "q.jsonl", {"text": "a", "positive": "b", "role": "find"}))
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_items(tmp_path / "missing.jsonl")


def test_shipped_files_are_what_the_script_writes(tmp_path):
    write(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_text() == (EXAMPLES / "studies" / path.name).read_text()
        assert read_items(path).test
