"""The stories of testdata: each file is a sequence of the protocol, told and checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario import COMMANDS, Scenario

STORIES = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_story(story: Path, log_class: type, request: pytest.FixtureRequest) -> None:
    told = story.read_text(encoding="utf-8")
    given = Scenario(log_class).run(told)
    if request.config.getoption("--rewrite", default=False):
        story.write_text(given, encoding="utf-8")
    else:
        assert given == told, f"{story.name} went another way; look, then run pytest tests/consensus --rewrite"


def test_there_are_stories_and_they_assert_something() -> None:
    assert len(STORIES) >= 60
    for story in STORIES:
        assert story.read_text(encoding="utf-8").count("\n----\n") >= 2, story.name


def test_every_command_is_told_somewhere() -> None:
    """A command that no story uses is dead weight in the runner."""
    said = {line.split(" ")[0] for story in STORIES for line in story.read_text(encoding="utf-8").split("\n")}
    assert sorted(set(COMMANDS) - said) == []
