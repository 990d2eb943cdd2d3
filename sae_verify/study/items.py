"""Prompt files of the studies: JSON lines, one question a line, for the bundled models and for users' own.

Keys of a line:

    text       the prompt; for unlearning with {options} where the answers go
    positive   the token whose logit speaks for the behaviour (for unlearning the right answer, for probe the label)
    negative   the token that speaks against it; without it the readout is `positive` against all other tokens
    options    unlearning: the answers; every order of them is a row of its own
    role       test (default), find (features are chosen on these) or contrast (shows no behaviour)
    group      rows that share a question; default: the line
    closing    what stays at the end of the prompt when a suffix is put in before it
    name       identifier in tables; default: the line's number
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sae_verify.errors import FileFormatError, PromptError
from sae_verify.problem import LogitDifference, Readout, TokenAgainstAll

Role = Literal["test", "find", "contrast"]
KEYS = frozenset({"text", "positive", "negative", "options", "role", "group", "closing", "name"})
MOST_OPTIONS = 5
"""Answers whose orders are all tried: 120 rows a question."""
PLACE = "{options}"
LARGEST_FILE = 1 << 26
"""Bytes of a prompt file that are read."""


@dataclass(frozen=True)
class Item:
    """One row: a prompt and what it is asked about.

    Attributes:
        name: identifier; unique among the items.
        text: the prompt.
        positive, negative: tokens of the readout; negative None means against all others. A label for probes.
        role: what the row is for.
        group: rows with the same one share a question, and are resampled together.
        closing: the end of `text` that stays last when a suffix is put in.

    """

    name: str
    text: str
    positive: str
    negative: str | None
    role: Role
    group: str
    closing: str

    @property
    def readout(self) -> Readout:
        """The readout by its tokens."""
        return (
            TokenAgainstAll(self.positive) if self.negative is None else LogitDifference(self.positive, self.negative)
        )


@dataclass(frozen=True)
class Items:
    """The rows of a prompt file by their role; `find` is never empty: without such rows the test rows serve."""

    test: tuple[Item, ...]
    find: tuple[Item, ...]
    contrast: tuple[Item, ...]

    @property
    def found_on_test(self) -> bool:
        """Whether the features are chosen on the very rows that are tested, which biases rates upwards."""
        return self.find == self.test


def read_items(path: Path | str) -> Items:
    """Read a prompt file.

    Raises:
        FileFormatError: it cannot be read, or a line is no JSON object with these keys; the message has the line.
        PromptError: no test rows, or two rows of one name.

    """
    path = Path(path)
    items: list[Item] = []
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            items += _expanded(line, number, path)
    names = [item.name for item in items]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PromptError(f"{path}: the name {twice!r} occurs twice", rule="names tell rows apart")
    by_role = {role: tuple(item for item in items if item.role == role) for role in get_args(Role)}
    if not by_role["test"]:
        raise PromptError(f"{path} has no test rows", rule="a study needs prompts to test", remedy='use "role": "test"')
    return Items(by_role["test"], by_role["find"] or by_role["test"], by_role["contrast"])


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise FileFormatError(f"{path} has {path.stat().st_size} bytes", rule=f"at most {LARGEST_FILE} are read")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(
            f"{path} cannot be read ({error})", rule="prompts are a UTF-8 file of JSON lines", remedy="check the path"
        ) from error


def _expanded(line: str, number: int, path: Path) -> Iterator[Item]:
    """The rows of one line: one, or one for every order of its options."""

    def fail(problem: str, rule: str) -> FileFormatError:
        return FileFormatError(f"{path}, line {number}: {problem}", rule=rule, remedy="see `sae-verify study --help`")

    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise fail(f"no JSON ({error})", "a line is one JSON object") from None
    if not isinstance(row, dict) or not set(row) <= KEYS:
        unknown = sorted(set(row) - KEYS) if isinstance(row, dict) else type(row).__name__
        raise fail(f"{unknown}", f"a line is an object with keys among {', '.join(sorted(KEYS))}")
    for key in KEYS - {"options"}:
        if key in row and (not isinstance(row[key], str) or not (row[key] or key == "closing")):
            raise fail(f"{key} is {row[key]!r}", "it is a non-empty string")
    for key in ("text", "positive"):
        if key not in row:
            raise fail(f"{key} is missing", "a line has text and positive")
    if row.get("role", "test") not in get_args(Role):
        raise fail(f"role is {row['role']!r}", f"it is one of {', '.join(get_args(Role))}")
    name = row.get("name", f"{number:04d}")
    closing = row.get("closing", "")
    common = (row["positive"], row.get("negative"), row.get("role", "test"), row.get("group", name))
    if "options" not in row:
        if not row["text"].endswith(closing):
            raise fail(f"closing is {closing!r}", "the text ends with it")
        yield Item(name, row["text"], *common, closing)
        return
    options = row["options"]
    good = isinstance(options, list) and all(isinstance(option, str) and option for option in options)
    if not good or not 2 <= len(options) <= MOST_OPTIONS or len(set(options)) != len(options):
        raise fail(f"options is {options!r}", f"it is a list of 2 to {MOST_OPTIONS} different answers")
    if row["text"].count(PLACE) != 1 or row["positive"] not in options:
        raise fail("options without a place or the right answer", f"text has {PLACE} once; positive is an option")
    for order, chosen in enumerate(itertools.permutations(options)):
        text = row["text"].replace(PLACE, " , ".join(chosen))
        if not text.endswith(closing):
            raise fail(f"closing is {closing!r}", "the text ends with it")
        yield Item(f"{name}.{order:03d}", text, *common, closing)
