"""`imm init` proposes an imm.toml that loads and says what the Dockerfile says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from immutable_local import dockerfile
from immutable_local.app import App, Mount
from immutable_local.config import read
from immutable_local.dockerfile import Instruction, final_stage, instructions
from immutable_local.errors import UsageError
from immutable_local.init import propose

Proposal = Callable[[str], App]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "My Shop_2"
    folder.mkdir()
    return folder


@pytest.fixture
def proposed(folder: Path) -> Proposal:
    """The app that is proposed for a Dockerfile, read back."""

    def proposal(dockerfile: str, name: str = "Dockerfile") -> App:
        (folder / name).write_text(dockerfile)
        (folder / "proposed.toml").write_text(propose(folder))
        return read(folder / "proposed.toml")

    return proposal


def test_a_plain_dockerfile_must_make_the_shortest_file(folder: Path, proposed: Proposal) -> None:
    app = proposed("FROM python:3.12\nEXPOSE 8080\nCMD python app.py\n")
    assert (app.name, app.service("web").port) == ("my-shop-2", 8080)
    assert propose(folder) == (
        'name = "my-shop-2"\n'
        "\n"
        "[services.web]\n"
        "port = 8080                       # EXPOSE in the Dockerfile\n"
        '# healthcheck = { path = "/up" }  # default: any answer under 500 on /\n'
        "# read_only = false               # if it must write outside of its volumes and /tmp\n"
    )


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        ("EXPOSE 3000", 3000),
        ("expose\t3000/tcp", 3000),
        ("EXPOSE 53/udp 8080-8090/tcp", 8080),
        ("ENV PORT=4000\nEXPOSE $PORT", 4000),
        ("ENV PORT 4000\nEXPOSE ${PORT}/tcp", 4000),
        ("ARG PORT=4000\nEXPOSE ${PORT}", 4000),
        ("EXPOSE ${PORT:-4000}", 4000),
        ("EXPOSE $UNKNOWN\nCMD serve -p 4000", 4000),
        ("EXPOSE 99999", 8000),
        ('CMD ["uvicorn", "app:app", "--host", "0.0.0.0", "--port", "5001"]', 5001),
        ("CMD gunicorn -b 0.0.0.0:5001 app:app", 5001),
        ("CMD gunicorn --bind=:5001 app:app", 5001),
        ("CMD python manage.py runserver 0.0.0.0:5001", 5001),
        ("CMD python -m http.server 5001", 5001),
        ("ENV PORT=5001\nCMD node server.js", 5001),
        ('ENTRYPOINT ["serve", "--port"]\nCMD ["5001"]', 5001),
        ("CMD flask run --host 0.0.0.0", 5000),
        ('CMD ["node", "server.js"]', 3000),
        ("CMD ./serve", 8000),
        ("CMD serve --port 99999999999999999999", 8000),
        ("CMD php -S 0.0.0.0:5001", 5001),
        ("CMD serve :5001 --db http://db:5432", 5001),
        ("CMD curl http://db:5432 && serve", 8000),
        ("CMD serve db:5432", 8000),
        ("CMD serve --since 12:30:45", 8000),
        ("EXPOSE \u0663", 8000),
        ("", 8000),
    ],
)
def test_the_port_must_be_the_one_that_the_dockerfile_tells(
    proposed: Proposal, lines: str, port: int
) -> None:
    assert proposed(f"FROM alpine\n{lines}\n").service("web").port == port


def test_the_usual_port_of_a_server_must_be_known_by_its_image(folder: Path, proposed: Proposal) -> None:
    assert proposed("FROM docker.io/library/nginx:1.27\nCOPY . /x\n").service("web").port == 80
    assert "# a guess" in propose(folder)


def test_only_the_final_stage_and_what_it_is_based_on_must_count(proposed: Proposal) -> None:
    app = proposed(
        "ARG BASE=alpine\n"
        "FROM node AS build\nEXPOSE 1\nVOLUME /build\n"
        "FROM --platform=linux/amd64 $BASE AS base\nEXPOSE 2\nVOLUME /data\n"
        "FROM Base\nCOPY --from=build /a /b\n"
    )
    assert app.service("web").port == 2
    assert app.service("web").volumes == (Mount("data", "/data"),)


def test_volumes_must_get_names_of_their_own(proposed: Proposal) -> None:
    app = proposed(
        "FROM alpine\n"
        'VOLUME ["/var/lib/data", "/srv/data-2"]\n'
        "VOLUME /other/data /tmp /var/lib/data\n"
        "VOLUME relative /proc/x /2024 /späť\n"
    )
    mounts = app.service("web").volumes
    assert [mount.path for mount in mounts] == [
        "/var/lib/data",
        "/srv/data-2",
        "/other/data",
        "/2024",
        "/späť",
    ]
    assert len({mount.volume for mount in mounts}) == 5
    assert all(volume.writers == "one" for volume in app.volumes)


def test_one_path_told_twice_must_be_mounted_once(proposed: Proposal) -> None:
    app = proposed('FROM alpine\nVOLUME ["/data", "/data/", "/var//data"]\nVOLUME /var/data\n')
    assert app.service("web").volumes == (Mount("data", "/data"), Mount("data-2", "/var/data"))


def test_no_more_volumes_than_an_app_may_have_must_be_proposed(proposed: Proposal) -> None:
    app = proposed("FROM alpine\nVOLUME " + " ".join(f"/d/{n}" for n in range(80)) + "\n")
    assert len(app.volumes) == len(app.service("web").volumes) == 50


def test_a_healthcheck_of_the_image_must_be_told(folder: Path, proposed: Proposal) -> None:
    proposed("FROM alpine\nHEALTHCHECK --interval=5s \\\n  # why\n  CMD true\n")
    assert "# default: the HEALTHCHECK in Dockerfile" in propose(folder)
    proposed("FROM alpine\nHEALTHCHECK NONE\n")
    assert "# default: any answer under 500 on /" in propose(folder)


def test_a_dockerfile_of_another_name_must_be_named(folder: Path, proposed: Proposal) -> None:
    (folder / "Containerfile.dockerignore").touch()
    app = proposed("FROM alpine\n", name="Containerfile")
    assert app.build.dockerfile == "Containerfile"


def test_of_several_dockerfiles_the_plain_one_or_the_one_for_production_must_be_taken(
    folder: Path, proposed: Proposal
) -> None:
    (folder / "dev.Dockerfile").touch()
    for left in ("Dockerfile.bak", "Dockerfile.swp", "Dockerfile.prod.orig", "Dockerfile~"):
        (folder / left).touch()
    assert proposed("FROM alpine\n", name="Dockerfile.prod").build.dockerfile == "Dockerfile.prod"
    assert "# also here: dev.Dockerfile" in propose(folder)
    assert proposed("FROM alpine\n").build.dockerfile == "Dockerfile"


def test_of_several_dockerfiles_none_must_be_guessed(folder: Path) -> None:
    (folder / "Dockerfile.a").touch()
    (folder / "Dockerfile.b").touch()
    with pytest.raises(UsageError, match=r"several Dockerfiles: Dockerfile.a, Dockerfile.b"):
        propose(folder)


def test_what_is_there_must_not_be_written_over(folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM alpine\n")
    (folder / "imm.toml").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"imm.toml is there already") as refused:
        propose(folder)
    assert (refused.value.code, refused.value.exit_code) == ("exists", 2)


@pytest.mark.parametrize("file", [".", "..", "/", ""])
def test_a_folder_must_not_be_taken_for_the_file(folder: Path, file: str) -> None:
    named = folder / file
    with pytest.raises(UsageError, match="is a folder") as refused:
        propose(named.parent, named.name)
    assert "name the file itself" in refused.value.hint


def test_a_folder_without_a_dockerfile_must_be_refused_with_what_to_do(folder: Path) -> None:
    (folder / "Dockerfile").mkdir()
    with pytest.raises(UsageError, match="there is no Dockerfile here") as refused:
        propose(folder)
    assert "write a Dockerfile" in refused.value.hint
    assert refused.value.code == "no_dockerfile"
    (folder / "compose.yaml").touch()
    with pytest.raises(UsageError, match=r"compose.yaml can't be read by imm") as refused:
        propose(folder)
    assert "[services.NAME]" in refused.value.hint
    with pytest.raises(UsageError, match="can't be read: No such file or directory"):
        propose(folder / "missing")


def test_a_compose_file_beside_the_dockerfile_must_be_told(folder: Path, proposed: Proposal) -> None:
    (folder / "docker-compose.yml").touch()
    proposed("FROM alpine\n")
    assert "# docker-compose.yml was not read." in propose(folder)


@pytest.mark.parametrize(
    ("name", "expected"), [("_", "app"), ("2048", "app-2048"), ("a" * 60, "a" * 40), ("Ünï", "n")]
)
def test_any_folder_must_give_a_name(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "Dockerfile").write_text("FROM alpine\n")
    assert f'name = "{expected}"' in propose(tmp_path / name)


def test_instructions_must_be_read_as_the_builder_reads_them() -> None:
    text = (
        "# escape=`\n"
        "from alpine\n"
        "RUN a `\n"
        "# a comment inside\n"
        "\n"
        "    b\n"
        "RUN <<EOF cat <<-'END'\n"
        "EXPOSE 1\n"
        "EOF\n"
        "EXPOSE 2\n"
        "\tEND\n"
        "RUN echo $((1<<FLAG))\n"
        "EXPOSE 3\n"
    )
    assert instructions(text) == [
        Instruction("FROM", "alpine"),
        Instruction("RUN", "a      b"),
        Instruction("RUN", "<<EOF cat <<-'END'"),
        Instruction("RUN", "echo $((1<<FLAG))"),
        Instruction("EXPOSE", "3"),
    ]


def test_values_that_double_with_each_line_must_not_fill_the_memory() -> None:
    doubling = "".join(f"ENV A{n + 1}=$A{n}$A{n}\n" for n in range(40))
    stage = final_stage(f"FROM alpine\nENV A0=x\n{doubling}")
    assert dockerfile.settings(stage, "ENV")["A4"] == "x" * 16
    assert sum(len(each.rest) for each in stage) < 2 * dockerfile.MOST_RESOLVED


def test_stages_on_stages_must_not_fill_the_memory() -> None:
    text = "FROM alpine AS s0\nEXPOSE 80\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(40_000))
    assert len(final_stage(text)) == 40_002


def test_a_dockerfile_without_a_stage_must_have_no_final_one() -> None:
    assert final_stage("# nothing\nEXPOSE 80\n") == []


LINES = st.lists(
    st.sampled_from(
        ["FROM ", "EXPOSE ", "VOLUME ", "CMD ", "ENV ", "ARG ", "RUN <<", "HEALTHCHECK ", "# ", "\\\n"]
    )
    | st.text(max_size=8)
    | st.sampled_from(
        ["[", '["/a"]', "$A ", "${A:-1}", "A=b ", "AS a\n", "a\n", "80\n", "\n", "[" * 5000, "9" * 5000]
    )
)


@settings(max_examples=150, deadline=None, suppress_health_check=[Check.function_scoped_fixture])
@given(LINES.map("".join))
def test_whatever_a_dockerfile_holds_the_proposal_must_load(proposed: Proposal, text: str) -> None:
    assert proposed(text.encode("utf-8", "replace").decode()).services
