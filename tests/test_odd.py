"""Odd images, odd folders, odd values: they work, or the error says why not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.utils.build import exclude_paths
from hypothesis import given, settings
from hypothesis import strategies as st

from immutable_local.dockerignore import context_paths
from immutable_local.errors import BuildFailed
from tests.host import Host, Project

# Every process of an image gets its whole environment at once, 2 MB at most with its arguments.
ODD = {
    "LINES": "first\nsecond\n\n  third\n",
    "QUOTES": """'single' "double" `back` \\slash\\ """,
    "DOLLAR": "$HOME ${HOME} $(id) $$ %s {0} {{.ID}}",
    "LETTERS": "é ß 漢字 🎉 \u202e \ufeff",
    "CONTROL": "\x01\x1b[31m\x7f\t\r",
    "EQUALS": "a=b=c",
    "EMPTY": "",
    "HASH": "# no comment",
    "JSON": '{"a": ["b", null]}',
    "LABEL": '" LABEL imm.app="other',
    "INSTRUCTION": "\nRUN touch /broken\nUSER root\n",
    "LONG": "x" * 60_000,
    "RULER": "#" * 20_000,
    "SLASHES": "\\" * 9_000,
    "BLANKS": " " * 9_000 + "# no comment",
}


def image(app: Project, *instructions: str, user: str = "") -> Project:
    """The tests' app in an image that has been changed by these instructions."""
    lines = (app.folder / "Dockerfile").read_text().splitlines()
    plain = [line for line in lines if not line.startswith(("USER", "CMD"))]
    own = [f"USER {user}"] if user else []
    return app.dockerfile("\n".join([*plain, *instructions, *own, lines[-1]]) + "\n")


def without(*paths: str) -> str:
    """An instruction that needs no shell, as it may be the shell that goes."""
    remove = (
        "import os, shutil\n"
        f"for path in {list(paths)!r}:\n"
        "    shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)\n"
    )
    return "RUN " + json.dumps(["python3", "-c", remove])


class TestImages:
    """What an image may be like, and a release of it goes live and gets data and secrets all the same."""

    @pytest.mark.parametrize(
        ("instructions", "user", "owner"),
        [
            pytest.param(
                [without("/bin/sh", "/tmp", "/etc/passwd", "/etc/group")],
                "54321:54322",
                "54321:54322",
                id="without a shell, /tmp and passwd",
            ),
            pytest.param([], "", "0:0", id="root"),
            pytest.param([], "54321", "54321:0", id="a number without a passwd entry"),
        ],
    )
    def test_a_release_goes_live_with_its_data_and_its_secrets(
        self, host: Host, instructions: list[str], user: str, owner: str
    ):
        app = image(host.project(), *instructions, user=user)
        app.version("1", volumes=["data:/var/lib/data"], secrets=["TOKEN"])
        host.imm(app, "secret", "set", "TOKEN", told="hidden")
        host.up(app)
        assert host.get("/read?/run/secrets/TOKEN").split()[0] == owner
        assert host.get("/write?/tmp/x=1") == "written"
        assert host.get("/write?/var/lib/data/log=1") == "written"
        host.up(app.version("2"))
        assert host.get("/read?/var/lib/data/log").endswith(" 1")
        assert host.revert(app).result["release"] == 1

    def test_an_image_for_building_others_is_refused_before_anything_changes(self, host: Host):
        """A release is sealed by a build from that image, in which they would run."""
        app = host.project()
        host.up(app.version("1"))
        error = host.up(image(app.version("2"), "ONBUILD RUN touch /sealed"), expect=1).error
        assert error["code"] == "build_failed"
        assert "ONBUILD" in error["message"]
        assert host.status(app)["live"]["release"] == 1

    def test_a_health_command_in_shell_form_without_a_shell_is_told(self, host: Host):
        """The image's own HEALTHCHECK names a shell that it hasn't."""
        app = image(host.project(), without("/bin/sh"), "HEALTHCHECK CMD exit 0")
        app.version("1", healthcheck={"start_period": "2s", "interval": "100ms"})
        error = host.up(app, expect=1).error
        assert error["code"] == "unhealthy"
        assert "/bin/sh" in str(error["details"])


class TestContext:
    """What the builder gets, and what a release is made of."""

    def test_what_dockerignore_leaves_out_is_neither_in_the_image_nor_in_the_release(self, host: Host):
        app = host.project()
        dockerfile = (app.folder / "Dockerfile").read_text()
        app.dockerfile(dockerfile.replace("COPY server.py VERSION /app/", "COPY . /app/"))
        (app.folder / ".dockerignore").write_text("# what is private\n*.env\n!public.env\nimm.toml\n")
        (app.folder / "private.env").write_text("hidden")
        (app.folder / "public.env").write_text("shown")
        host.up(app)
        assert host.ask("/read?/app/private.env").status == 403
        assert host.get("/read?/app/public.env").endswith(" shown")
        (app.folder / "private.env").write_text("hidden as well")
        assert host.up(app).result["outcome"] == "unchanged"
        (app.folder / "public.env").write_text("shown as well")
        assert host.up(app).result["outcome"] == "live"

    def test_a_dockerignore_that_makes_no_sense_is_told_before_anything_changes(self, host: Host):
        app = host.project()
        (app.folder / ".dockerignore").write_text("[z-a]\n")
        error = host.up(app, expect=1).error
        assert error["code"] == "build_failed"
        assert error["hint"]

    def test_a_byte_order_mark_hides_no_pattern(self, tmp_path: Path):
        """Editors write one, and the builder leaves it out."""
        for name in ("Dockerfile", "private.env"):
            (tmp_path / name).touch()
        (tmp_path / ".dockerignore").write_bytes(b"\xef\xbb\xbf*.env\n")
        assert "private.env" not in context_paths(tmp_path, "Dockerfile")

    @pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
    def test_a_dockerignore_that_is_no_file_is_refused(self, tmp_path: Path, make: Callable[[Path], None]):
        make(tmp_path / ".dockerignore")
        with pytest.raises(BuildFailed, match="is not a file"):
            context_paths(tmp_path, "Dockerfile")

    def test_without_a_dockerignore_all_paths_are_those_that_the_builder_gets(self, tmp_path: Path):
        """By another, shorter way than with one."""
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "empty").mkdir()
        (tmp_path / "Dockerfile").touch()
        (tmp_path / ".hidden").touch()
        (tmp_path / "a" / "b" / "file").touch()
        (tmp_path / "to-a-folder").symlink_to("a")
        (tmp_path / "a" / "round").symlink_to("..")
        (tmp_path / "a" / "nowhere").symlink_to("/nonexistent")
        os.mkfifo(tmp_path / "fifo")
        known = context_paths(tmp_path, "Dockerfile")
        assert known == set(exclude_paths(str(tmp_path), [], dockerfile="Dockerfile"))
        assert len(known) == 10
        with pytest.raises(OSError):
            context_paths(tmp_path / "gone", "Dockerfile")

    @settings(max_examples=300)
    @given(text=st.text("!*?[]\\/ab.#- \n^{}()|+$\t\r\0é", max_size=14))
    def test_any_dockerignore_is_read_or_refused(self, tmp_path_factory: pytest.TempPathFactory, text: str):
        folder = tmp_path_factory.getbasetemp() / "ignored"
        folder.mkdir(exist_ok=True)
        (folder / "Dockerfile").touch()
        (folder / ".dockerignore").write_text(text)
        try:
            assert "Dockerfile" in context_paths(folder, "Dockerfile")
        except BuildFailed as refused:
            assert ".dockerignore" in refused.message


class TestValues:
    """A value of the environment reaches the process as it stands, and comes back with a revert."""

    def test_any_value_reaches_the_process_and_comes_back(self, host: Host):
        app = host.project().version("1", environment=ODD)
        host.up(app)
        told = environment(host, app)
        assert {name: told.get(name) for name in ODD} == ODD
        assert host.imm(app, "plan").result["nothing_to_do"] is True
        host.up(app.version("2", environment={}))
        host.revert(app)
        told = environment(host, app)
        assert {name: told.get(name) for name in ODD} == ODD

    def test_what_no_process_could_start_with_is_told_and_the_old_one_stays(self, host: Host):
        """Linux takes 2 MB of environment and arguments in all."""
        app = host.project()
        host.up(app)
        for part in range(3):
            lines = (f"V{part}_{at}={'x' * 99_000}" for at in range(10))
            (app.folder / f"{part}.env").write_text("\n".join(lines))
        with host.nothing_left_over():
            error = host.up(app.version("2", env_file=[f"{part}.env" for part in range(3)]), expect=2).error
        assert error["code"] == "config"
        assert "services.web" in error["message"] and error["hint"]
        assert host.get("/version") == "1"

    @pytest.mark.parametrize(
        "hostile",
        [
            "a.localhost;}",
            "a.localhost {",
            'a.localhost"',
            "$host",
            "`id`.localhost",
            "a.localhost\n  evil: 1",
        ],
    )
    @pytest.mark.parametrize("key", ["domains", "path", "healthcheck"])
    def test_what_would_break_out_of_a_proxys_configuration_touches_nothing(
        self, host: Host, key: str, hostile: str
    ):
        values: dict[str, Any] = {
            "domains": {"domains": [hostile]},
            "path": {"path": f"/{hostile}"},
            "healthcheck": {"healthcheck": {"path": f"/{hostile}"}},
        }
        app = host.project().version("1", **values[key])
        outcome = host.up(app, expect=2)
        assert outcome.error["code"] == "config"
        assert f"services.web.{key}" in outcome.error["message"]
        host.projects.clear()


def environment(host: Host, app: Project) -> dict[str, str]:
    """What the process itself was started with."""
    read = "import json; print(json.dumps(open('/proc/1/environ', 'rb').read().decode().split(chr(0))))"
    printed = host.printed(host.running(app)[0], "python3", "-c", read)
    return dict(each.split("=", 1) for each in json.loads(printed) if each)
