from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from sae_verify.errors import FileFormatError, InputError
from sae_verify.study.store import NAME, Store, write_json, write_table

HEADER = {"seed": 1, "budgets": (0.1, 0.2)}


def test_finished_units_survive(tmp_path):
    Store(tmp_path, HEADER).append("a", [{"x": np.float64(1.5), "y": float("inf"), "z": np.bool_(True)}])
    again = Store(tmp_path, HEADER)
    assert "a" in again
    assert again.rows == [{"x": 1.5, "y": None, "z": True}]


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_a_line_that_was_cut_off_is_dropped_and_the_rest_goes_on(tmp_path, cut):
    store = Store(tmp_path, HEADER)
    store.append("a", [{"x": 1}])
    store.append("b", [{"x": 2}])
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-cut])
    again = Store(tmp_path, HEADER)
    assert list(again.units) == ["a"]
    again.append("b", [{"x": 3}])
    assert [row["x"] for row in Store(tmp_path, HEADER).rows] == [1, 3]


def test_another_study_is_refused_and_named(tmp_path):
    Store(tmp_path, HEADER)
    with pytest.raises(InputError, match="seed was 1 and is 2"):
        Store(tmp_path, HEADER | {"seed": 2})


@pytest.mark.parametrize("text", ["no json\n", '{"x": 1}\n', '{"header": {"seed": 1}}\n[1]\n', "[]\n"])
def test_a_foreign_file_is_left_alone(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(FileFormatError):
        Store(tmp_path, {"seed": 1})
    assert (tmp_path / NAME).read_text() == text


def test_tables_are_tidy_and_whole(tmp_path):
    write_table([{"a": 1}, {"a": 2, "b": "x, y"}], tmp_path)
    with (tmp_path / "table.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": ""}, {"a": "2", "b": "x, y"}]
    assert json.loads((tmp_path / "table.json").read_text()) == [{"a": 1}, {"a": 2, "b": "x, y"}]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"x": float("nan")}, tmp_path / "summary.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.json"]


def test_the_output_must_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path / "file", HEADER)
