"""What a study has finished, on disk: append-only JSON lines, so that a killed run loses no finished prompt.

The first line says which study it is: settings, seeds and digests of the weights. A run that finds a file with the same
first line goes on where it ended; with another one it refuses. A last line that was cut off is dropped.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sae_verify.errors import FileFormatError, InputError

NAME = "units.jsonl"
Row = dict[str, Any]


class Store:
    """Finished units of one study by key, in the order in which they were finished."""

    def __init__(self, out: Path, header: Mapping[str, Any]) -> None:
        """Open or begin `out/units.jsonl`.

        Args:
            out: directory; made if missing.
            header: JSON-ready; what tells this study from another.

        Raises:
            InputError: the directory holds another study, or cannot be written to.
            FileFormatError: the file is no study's.

        """
        self.path = out / NAME
        self.units: dict[str, list[Row]] = {}
        text = json.dumps({"header": dict(header)}, sort_keys=True)
        try:
            out.mkdir(parents=True, exist_ok=True)
            known = self.path.read_bytes() if self.path.exists() else b""
            complete = known[: known.rfind(b"\n") + 1]
            if not complete:
                _replace(self.path, text + "\n")
            else:
                self._read(complete.decode("utf-8").splitlines(), json.loads(text)["header"])
                if len(complete) < len(known):
                    os.truncate(self.path, len(complete))
        except OSError as error:
            raise InputError(f"{out} cannot be written: {error}", rule="the output is a directory") from error
        except UnicodeDecodeError:
            raise self._foreign("it is no UTF-8 text") from None

    def _read(self, lines: list[str], header: Any) -> None:
        try:
            parsed = [json.loads(line) for line in lines]
        except ValueError as error:
            raise self._foreign(str(error)) from None
        if not isinstance(parsed[0], dict) or "header" not in parsed[0]:
            raise self._foreign("its first line is no header")
        before = parsed[0]["header"]
        if before != header:
            keys = sorted(key for key in {*before, *header} if before.get(key) != header.get(key))
            changed = "; ".join(f"{key} was {before.get(key)!r} and is {header.get(key)!r}" for key in keys)
            raise InputError(
                f"{self.path} belongs to another study: {changed[:400]}",
                rule="a directory holds one study",
                remedy="give another directory with -o, or remove this one",
            )
        for unit in parsed[1:]:
            if not isinstance(unit, dict) or set(unit) != {"key", "rows"}:
                raise self._foreign("a line is no finished unit")
            self.units[unit["key"]] = unit["rows"]

    def _foreign(self, why: str) -> FileFormatError:
        return FileFormatError(f"{self.path}: {why}", rule="it holds a study's finished units", remedy="remove it")

    def __contains__(self, key: str) -> bool:
        return key in self.units

    def append(self, key: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep a finished unit: on disk when this returns."""
        kept = [_plain(row) for row in rows]
        line = json.dumps({"key": key, "rows": kept}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.units[key] = kept

    @property
    def rows(self) -> list[Row]:
        """All rows of all finished units."""
        return [row for rows in self.units.values() for row in rows]


def _plain(row: Mapping[str, Any]) -> Row:
    """Numbers and strings that JSON knows; what is not finite becomes None."""

    def value(given: Any) -> Any:
        given = given.item() if hasattr(given, "item") else given
        if isinstance(given, float) and not -1e300 < given < 1e300:
            return None
        return given

    return {key: value(given) for key, given in row.items()}


def write_table(rows: list[Row], out: Path) -> tuple[Path, Path]:
    """Write the tidy table as table.csv and table.json; either a whole file is there or none."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _replace(out / "table.csv", text.getvalue()), write_json(rows, out / "table.json")


def write_json(content: Any, path: Path) -> Path:
    """Write JSON atomically; numbers that are not finite are refused."""
    return _replace(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _replace(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
