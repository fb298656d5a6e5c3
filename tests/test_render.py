"""What people and programs are told."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from immutable_local.errors import ConfigError, EngineError, ImmError, Locked, UsageError
from immutable_local.events import Note, Result, StepEvent
from immutable_local.render import JsonLines, Terminal, ago, history_table, result_json, result_text, table
from tests.values import record

UNHEALTHY = ImmError(
    "release 8 of shop did not become healthy within 60 s",
    code="unhealthy",
    details=["GET /up answered 301 to /login 12 times", "last lines of its log:", "  Listening"],
    still="release 7 is still live",
    hint="correct services.web.port in imm.toml, then run imm up",
)


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_an_error_says_what_failed_what_is_still_true_the_facts_and_what_to_do_next():
    screen = io.StringIO()
    Terminal(stream=screen).error(UNHEALTHY)
    assert screen.getvalue() == (
        "error: release 8 of shop did not become healthy within 60 s; release 7 is still live\n"
        "  GET /up answered 301 to /login 12 times\n"
        "  last lines of its log:\n"
        "    Listening\n"
        "  next: correct services.web.port in imm.toml, then run imm up\n"
    )


def test_what_an_application_said_reaches_no_terminal_as_a_command():
    """Its log, its health command's output and where it redirects to: anybody may have written that."""
    said = "\x1b[1;31mred\x1b[0m\x1b]0;owned\x07 \x1b[2J\r\x9b1A\u202e\x00 é ✓\tend"
    seen = r"red\x1b]0;owned\x07 \x1b[2J\r\x9b1A\u202e\x00 é ✓" + "\tend"
    screen = Screen()
    terminal = Terminal(stream=screen, color=False)
    terminal.error(ImmError(said, code="unhealthy", details=[said], hint=said))
    terminal.hear(Note(said, "warning"))
    assert screen.getvalue().count(seen) == 4
    assert table([[said]], ["ERROR"]).count(seen) == 1
    assert "\x1b" not in screen.getvalue()
    assert ImmError("", code="unhealthy", details=[said]).as_json()["details"] == [said]


def test_an_error_as_json_leaves_out_what_there_is_not():
    told = UNHEALTHY.as_json()
    assert told.keys() == {"code", "message", "hint", "details", "still"}
    told = {"code": "bug", "message": "it failed", "hint": "", "still": "what was live is still live"}
    assert ImmError("it failed").as_json() == told


def test_an_error_whose_message_says_what_is_still_true_says_it_once():
    assert "still" not in UsageError("apps are live; nothing was touched").as_json()


@pytest.mark.parametrize(
    ("error", "code"),
    [(ImmError, 1), (UsageError, 2), (ConfigError, 2), (Locked, 3), (EngineError, 4)],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_exit_codes_are_the_contracts(error: type[ImmError], code: int):
    assert error("").exit_code == code


class TestColours:
    """Only on a terminal that wants them."""

    def painted(self, stream: io.StringIO, **how: bool) -> bool:
        Terminal(stream=stream, **how).error(UNHEALTHY)
        return "\x1b[" in stream.getvalue()

    def test_a_terminal_gets_colours_and_a_file_does_not(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        assert self.painted(Screen())
        assert not self.painted(io.StringIO())
        assert not self.painted(Screen(), color=False)

    @pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("NO_COLOR", ""), ("TERM", "dumb")])
    def test_who_wants_none_gets_none(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv(name, value)
        assert not self.painted(Screen())


class TestProgress:
    """A line for each step that took time; the builder's output only when it takes long."""

    def heard(self, *events: StepEvent | Note, quiet: bool = False) -> list[str]:
        screen = io.StringIO()
        terminal = Terminal(stream=screen, quiet=quiet)
        for each in events:
            terminal.hear(each)
        return screen.getvalue().splitlines()

    def test_a_step_that_ended_has_a_line(self):
        lines = self.heard(
            StepEvent("start", "begun"), StepEvent("start", "done", 0.4), StepEvent("flip", "failed", 2.0)
        )
        assert [line.split() for line in lines] == [
            ["✓", "start", "the", "new", "instances", "0.40", "s"],
            ["✗", "flip", "2.00", "s"],
        ]

    def test_quick_and_skipped_steps_have_none(self):
        quick = StepEvent("lock", "done", 0.1)
        assert self.heard(quick, StepEvent("hold", "skipped"), StepEvent("record", "done", 9.0)) == []
        assert len(self.heard(StepEvent("lock", "done", 5.0))) == 1

    def test_a_failed_step_is_never_too_quick(self):
        assert len(self.heard(StepEvent("lock", "failed", 0.0))) == 1

    def test_a_quick_builds_output_is_not_shown_and_a_warning_is(self):
        begun, output = StepEvent("build", "begun"), Note("Step 1", "output")
        assert self.heard(begun, output, Note("look out", "warning")) == ["warning: look out"]
        assert self.heard(output) == ["  | Step 1"]

    def test_quiet_is_quiet(self):
        assert self.heard(StepEvent("start", "done", 9.0), Note("look out", "warning"), quiet=True) == []


def test_json_lines_tell_steps_on_standard_output_and_notes_elsewhere(capsys: pytest.CaptureFixture[str]):
    notes = io.StringIO()
    lines = JsonLines("shop", Terminal(stream=notes))
    lines.hear(StepEvent("build", "begun"))
    lines.hear(Note("Step 1", "output"))
    lines.hear(Note("look out", "warning"))
    lines.hear(StepEvent("seal", "done", 0.25, release=8))
    begun, done = map(json.loads, capsys.readouterr().out.splitlines())
    assert {key: begun[key] for key in begun if key != "at"} == {
        "app": "shop", "event": "step", "step": "build", "state": "begun", "release": None,
    }  # fmt: skip
    assert (done["step"], done["state"], done["seconds"], done["release"]) == ("seal", "done", 0.25, 8)
    assert notes.getvalue() == "warning: look out\n"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (
            Result("live", 8, 7, 3.21, "http://a"),
            "release 8 of shop is live at http://a, in place of release 7 (3.2 s)",
        ),
        (Result("live", 1, None, 3.0), "release 1 of shop is live (3.0 s)"),
        (
            Result("live", 4, 4, 1.0, causes=("api: secret changed: API_KEY", "web: instance gone: w-1")),
            "release 4 of shop is live, with new instances"
            " (api: secret changed: API_KEY; web: instance gone: w-1) (1.0 s)",
        ),
        (
            Result("unchanged", 8, 8, 0.3, "http://a"),
            "nothing to do: release 8 of shop is live at http://a (0.3 s)",
        ),
        (Result("unchanged"), "nothing to do: shop is not deployed (0.0 s)"),
        (Result("down", None, 8, 1.0, remarks=("kept",)), "shop is off this host (1.0 s)\n  kept"),
    ],
    ids=["next", "first", "made anew", "unchanged", "not deployed", "down"],
)
def test_a_result_is_one_sentence_for_people(result: Result, text: str):
    assert result_text(result, "shop") == text


def test_a_result_for_programs_has_the_contracts_keys():
    told = result_json(Result("failed", 8, None, 1.5, error=UNHEALTHY), "shop")
    assert told.pop("at")
    assert told == {
        "app": "shop", "event": "result", "outcome": "failed", "release": 8, "previous": None,
        "seconds": 1.5, "url": None, "error": UNHEALTHY.as_json(),
    }  # fmt: skip
    assert result_json(Result("failed"), "")["app"] is None


def test_a_table_is_as_wide_as_its_content():
    assert table([["a", "bb"], ["ccc", ""]], ["X", "Y"]) == "X    Y\na    bb\nccc"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.7, "59 s"),
        (60, "1 min"),
        (59 * 60 + 50, "59 min"),
        (5400, "1 h"),
        (7200, "2 h"),
        (23 * 3600 + 2700, "23 h"),
        (36 * 3600, "1 d"),
        (4 * 86400, "4 d"),
    ],
)
def test_how_long_ago_is_told_in_the_largest_unit_that_has_passed(seconds: float, words: str):
    then = datetime.now(UTC) - timedelta(seconds=seconds)
    assert ago(then.isoformat().replace("+00:00", "Z")) == words


def test_a_moment_in_the_future_is_now_and_what_is_no_moment_stays_as_it_is():
    """Clocks of two machines differ."""
    assert ago("2999-01-01T00:00:00Z") == "0 s"
    assert ago("") == ""


AT = "2026-11-21T09:00:00.123Z"
FAILED = record(
    "failed",
    3,
    number=4,
    at=AT,
    error="release 3 of shop did not become healthy within 10 s",
    code="unhealthy",
    facts=[
        "nothing accepted a connection to port 8000",
        "the container listens on 8001;\nimm.toml says 8000",
    ],
)


def test_history_begins_with_the_release_and_leaves_out_seals_and_what_is_not_known():
    """`imm revert N` wants a release: no other number stands before it."""
    told = history_table(
        [
            record("sealed", 1, number=1, at=AT),
            record(
                "went_live",
                1,
                number=2,
                at=AT,
                by="me@here",
                seconds=3.21,
                git="3f9c2e1",
                dirty=True,
                error=None,
                causes=["web: image changed", "api: secret changed: API_KEY"],
            ),
            record("down", None, number=3, at=AT),
            record("failed", 2, number=4, at=AT, error="as it was written once"),
        ]
    )
    assert [line.split("  ") for line in re.sub("  +", "  ", told).splitlines()] == [
        ["RELEASE", "EVENT", "AT (UTC)", "BY", "TOOK", "COMMIT", "WHY"],
        [
            *("1", "went_live", "2026-11-21 09:00:00", "me@here", "3.2 s", "3f9c2e1 (dirty)"),
            "web: image changed; api: secret changed: API_KEY",
        ],
        ["", "down", "2026-11-21 09:00:00"],
        ["2", "failed", "2026-11-21 09:00:00", "as it was written once"],
    ]


def test_history_says_the_most_telling_fact_of_a_failure():
    """App and release stand elsewhere; that it wasn't healthy says less than why."""
    [_, line] = history_table([FAILED]).splitlines()
    assert line.endswith("  unhealthy: the container listens on 8001; imm.toml says 8000")


@pytest.mark.parametrize("width", [30, 90])
def test_history_is_cut_at_the_terminals_width_where_that_leaves_something_to_read(width: int):
    [head, line] = history_table([FAILED], width).splitlines()
    assert len(line) == max(width, head.index("WHY") + 40)
    assert line.endswith("…")
    assert "unhealthy: the container" in line
