"""The proxy's configuration: every app's routes, and nothing that a value of imm.toml could add to them."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from immutable_local import lock
from immutable_local.config import values
from immutable_local.config.findings import Wrong
from immutable_local.config.kinds import Kind
from immutable_local.engine import connect
from immutable_local.host import attach
from immutable_local.making import image_for
from immutable_local.proxy.nginx import Nginx
from immutable_local.routes import SLOTS, Side, Slot, Structure
from immutable_local.wait import until
from tests.host import Host, Project

# As many as nginx needs a second or so for.
SLOW_UPSTREAMS = 20_000
SLOW_SECONDS = 4.0

TOKEN = re.compile(r"""\s+|\#[^\n]*\n|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[{};]|[^\s{};"']+""", re.DOTALL)


def accepted(kind: Kind[str], most: int) -> st.SearchStrategy[str]:
    """What imm.toml may hold there, as it is read."""
    pattern = re.compile(kind.schema["pattern"], re.ASCII)
    return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= most).map(kind.read)


APPS, SERVICES = accepted(values.name(40), 40), accepted(values.name(30), 30)
DOMAINS, PREFIXES = accepted(values.DOMAIN, 253), accepted(values.PREFIX, 200)
HOSTILE = [
    " ",
    "\n",
    "\r",
    "\t",
    ";",
    "{",
    "}",
    "'",
    '"',
    "\\",
    "$",
    "#",
    "`",
    "(",
    ")",
    "*",
    "%",
    "|",
    "<",
    "\0",
    "é",
]


def structure(app: str, *services: str, domain: str = "", path: str = "/", arrived: int = 1) -> Structure:
    """An app whose services answer on one domain, both slots alike; each on a path of its own."""
    sides = {}
    for position, service in enumerate(services or ("web",)):
        own = path if not position else f"/{service}"
        side = Side(8000, ("10.201.1.3",), (domain or f"{app}.localhost",), own, bool(position))
        sides[service] = dict.fromkeys(SLOTS, side)
    return Structure(app, arrived, sides, {})


def directives(text: str) -> list[Any]:
    """A configuration as nginx reads it: each directive's words, and the block's directives as the last."""
    tokens = (each[0] for each in TOKEN.finditer(text))
    words = (each for each in tokens if not each.isspace() and not each.startswith("#"))
    assert "".join(each[0] for each in TOKEN.finditer(text)) == text, "not every character belongs to a word"

    def block() -> Iterator[list[Any]]:
        directive: list[Any] = []
        for word in words:
            if word == "}":
                assert not directive, directive
                return
            if word == "{":
                directive.append(list(block()))
            else:
                directive.append(word)
            if word in ";{":
                yield directive[:-1] if word == ";" else directive
                directive = []

    return list(block())


def every(told: list[Any], name: str) -> Iterator[list[Any]]:
    """The directives of that name, at any depth."""
    for each in told:
        if each[0] == name:
            yield each[1:]
        if isinstance(each[-1], list):
            yield from every(each[-1], name)


def names(told: list[Any]) -> set[str]:
    """Every directive's name; what a map holds are values."""
    return {each[0] for each in told} | {
        name for each in told if isinstance(each[-1], list) and each[0] != "map" for name in names(each[-1])
    }


def servers(told: list[Any]) -> list[tuple[list[str], list[Any]]]:
    """Each server block with its names; an upstream's servers are no blocks."""
    blocks = [each[-1] for each in every(told, "server") if isinstance(each[-1], list)]
    return [([name for words in every(block, "server_name") for name in words], block) for block in blocks]


PLAIN = directives(Nginx().configuration([structure("shop", "web", "api")]))
ROUTES = st.tuples(APPS, SERVICES, DOMAINS, PREFIXES, st.booleans())


@given(st.lists(ROUTES, max_size=4, unique_by=lambda route: route[0]))
def test_values_that_imm_toml_may_hold_add_no_directive(routes: list[tuple[str, str, str, str, bool]]):
    """One server for each domain, one place for each path, and no directive that others haven't."""
    structures = [
        Structure(
            app, n, {service: dict.fromkeys(SLOTS, Side(80, ("10.201.1.3",), (domain,), path, strip))}, {}
        )
        for n, (app, service, domain, path, strip) in enumerate(routes)
    ]
    read = directives(Nginx().configuration(structures))
    assert names(read) <= names(PLAIN)
    _, *for_domains, _, _ = servers(read)
    assert [words for words, _ in for_domains] == [[each] for each in sorted({route[2] for route in routes})]
    prefixes = {word for each in every(read, "location") for word in each[:-1] if word.startswith("/")}
    paths = {route[3] for route in routes}
    assert prefixes == {"/", "/generation", "/passed", *paths, *(f"{path}/" for path in paths - {"/"})}


@given(st.sampled_from([values.DOMAIN, values.PREFIX, values.name(40)]), st.data(), st.sampled_from(HOSTILE))
def test_a_character_that_could_end_a_word_is_refused(kind: Any, data: st.DataObject, hostile: str):
    """Wherever it stands, in a domain, a path prefix or a name."""
    good = data.draw(st.from_regex(re.compile(kind.schema["pattern"], re.ASCII), fullmatch=True))
    at = data.draw(st.integers(0, len(good)))
    with pytest.raises(Wrong):
        kind.read(good[:at] + hostile + good[at:])


NAMED = st.tuples(APPS, SERVICES, st.sampled_from(SLOTS))


@given(NAMED, NAMED)
@example(("a--b", "c", "blue"), ("a", "b--c", "blue"))
@example(("a-b", "c", "blue"), ("a", "b-c", "blue"))
@example(("hold-x", "web", "blue"), ("x", "web--blue", "blue"))
@example(("hold-x", "web", "blue"), ("dx", "web", "blue"))
def test_no_two_services_share_an_upstream_a_variable_or_a_count(
    one: tuple[str, str, str], other: tuple[str, str, str]
):
    """Else one app's requests would be another's."""

    def own(app: str, service: str) -> set[str]:
        read = directives(Nginx().configuration([structure(app, service)]))
        found = {each[0] for name in ("upstream", "set") for each in every(read, name)}
        # What is in flight is counted by slot, each slot's name at the end.
        keys = {each[1].partition("$")[0] for each in every(read, "set") if each[0] == "$imm_key"}
        found |= {f"key {key}{slot}" for key in keys for slot in SLOTS}
        return {name for name in found if "__" in name}

    assert len(own(*one[:2])) == 9
    if one[:2] != other[:2]:
        assert not own(*one[:2]) & own(*other[:2])


def test_the_same_routes_are_the_same_text_in_whatever_order_they_come():
    """So a command that changes nothing loads nothing."""
    one, two = structure("one", "web", "api"), structure("two", arrived=2)
    assert Nginx().configuration([one, two]) == Nginx().configuration([two, one])


def test_a_path_that_only_one_release_serves_leads_to_what_the_other_serves_above_it():
    """Nginx takes the longest path, whichever slot is live: there both slots must have their place."""

    def side(path: str) -> Side:
        return Side(8000, ("10.201.1.3",), ("shop.localhost",), path, True)

    moved = Structure("shop", 1, {"web": {"blue": side("/a"), "green": side("/a/b")}}, {})
    read = directives(Nginx().configuration([moved]))
    routes = [dict(told) for *words, told in every(read, "map") if words[1].startswith("$imm_route")]
    # Twice: as the first app it answers for the host itself too. What neither serves above stays nobody's.
    assert routes == [{"default": "''", '"~^blue$"': "imm_shop__web__blue"}] * 2
    led = [each[1] for each in every(read, "set") if each[0] == "$imm_key" and "__" in each[1]]
    assert led.count("imm_shop__web__$imm_shop__web") == 4
    cut = [dict(told) for *words, told in every(read, "map") if words[1].startswith("$imm_path")]
    told = {"default": "'$imm_whole'", '"~^green$"': "/$imm_rest", '"~^blue$"': "/b$imm_below"}
    assert cut == [told] * 2


def test_one_side_alone_is_live_by_its_own_flag_and_none_without_it():
    """A service comes or goes with a flip. Which one it is costs no look more where both sides are there."""
    side = Side(8000, ("10.201.1.3",), ("shop.localhost",), "/", False)

    def looks(*slots: Slot) -> list[list[str]]:
        """What the first look at the flags does, in the server of the app's own domain."""
        of_service = dict.fromkeys(slots, side)
        read = directives(Nginx().configuration([Structure("shop", 1, {"web": of_service}, {})]))
        block = next(block for names, block in servers(read) if names == ["shop.localhost"])
        ended = next(n for n, each in enumerate(block) if each[:2] == ["if", "($imm_looks"])
        return [each for each in block[:ended] if "$imm_shop__web" in str(each) and "__held" not in each[1]]

    def live(slot: Slot) -> list[Any]:
        flag = f"apps/shop/live/web.{slot})"
        return ["if", "(-f", flag, [["set", "$imm_shop__web", slot]]]

    assert looks("blue", "green") == [["set", "$imm_shop__web", "blue"], live("green")]
    for slot in SLOTS:
        # Twice: its successor may have been looked at before the flip, and it after.
        assert looks(slot) == [["set", "$imm_shop__web", "none"], live(slot), live(slot)]


def test_a_request_is_over_with_the_first_instance_that_says_nothing():
    """Yet within the time that it may take, one that is just gone is given up and the next one tried."""

    def patience(replicas: int, seconds: float) -> list[dict[str, float]]:
        addresses = tuple(f"10.201.1.{at}" for at in range(3, 3 + replicas))
        side = Side(8000, addresses, ("shop.localhost",), "/", False, response_timeout=seconds)
        told = Structure("shop", 1, {"web": dict.fromkeys(SLOTS, side)}, {})
        locations = [each[-1] for each in every(directives(Nginx().configuration([told])), "location")]
        return [
            {
                words[0]: float(words[1].removesuffix("ms"))
                for words in block
                if words[1:] and "ms" in words[1]
            }
            for block in locations
            if any(words[0] == "proxy_read_timeout" for words in block)
        ]

    for seconds in (0.1, 3.0, 300.0):
        assert patience(1, seconds) == [{"proxy_read_timeout": seconds * 1000}] * 2
        for each in patience(3, seconds):
            assert each["proxy_next_upstream_timeout"] == each["proxy_read_timeout"] == seconds * 1000
            assert 0 < each["proxy_connect_timeout"] < seconds * 1000
    assert patience(3, 300.0)[0]["proxy_connect_timeout"] == 2500


def test_what_waits_is_sent_on_with_the_path_that_it_would_have_had():
    """Where a path is cut off, in both places or in neither."""
    read = directives(Nginx().configuration([structure("shop", "web", "cut")]))
    for each in every(read, "location"):
        passed = next((words[1] for words in each[-1] if words[0] == "proxy_pass"), None)
        if passed is not None:
            assert passed.endswith("$imm_uri") == ("rewrite" in names(each[-1])), each
    assert sum(words[0].endswith("$imm_uri") for words in every(read, "proxy_pass")) == 6


def test_another_app_costs_no_map_where_each_path_is_one_services():
    """Each map would cost nginx a megabyte whenever it reads its configuration."""
    one, many = [structure("a0")], [structure(f"a{each}", "web", "api", arrived=each) for each in range(100)]
    maps = [len(list(every(directives(Nginx().configuration(each)), "map"))) for each in (one, many)]
    assert maps[0] == maps[1]


def test_another_configuration_has_another_generation():
    """It is asked for until it answers: the proof that it is in force."""
    texts = [Nginx().configuration(each) for each in ([], [structure("one")], [structure("two")])]
    generations = [re.search(r'return 200 "([0-9a-f]{16})"', each) for each in texts]
    assert len({each[1] for each in generations if each}) == 3


def test_the_first_app_that_arrived_is_the_default_site():
    """For whoever asks for localhost or an address; not for a domain that nobody owns."""
    read = directives(Nginx().configuration([structure("late", arrived=2), structure("early", arrived=1)]))
    local = next(block for words, block in servers(read) if "localhost" in words)
    variables = {each[0] for each in every(local, "set") if "__" in each[0]}
    assert variables == {"$imm_early__web", "$imm_early__web__held"}
    for words, block in servers(read):
        assert "_" not in words or "proxy_pass" not in names(block)


def test_at_a_path_of_two_services_only_who_would_go_on_to_the_held_one_waits():
    """The first app's services may each have a domain: who names no site is answered by one of them, and
    doesn't wait for the other."""
    sides = {
        name: dict.fromkeys(SLOTS, Side(8000, ("10.201.1.3",), (f"{name}.localhost",), "/", False))
        for name in ("admin", "web")
    }
    text = Nginx().configuration([Structure("shop", 1, sides, {})])
    location = re.search(r"server_name localhost.*?location / \{(.*?)proxy_pass", text, re.DOTALL)
    assert location is not None
    chosen, *waits = re.findall(r"set (\$imm_key|\$imm_whom) ([^;]+);", location[1])
    assert chosen[0] == "$imm_key"
    assert waits == [("$imm_whom", f"$imm_shop__{name}__held$imm_key") for name in ("admin", "web")]
    patterns = re.findall(r"if \(\$imm_whom ~ (\S+)\) \{ return", location[1])
    assert [each for each in patterns if re.match(each, "1imm_shop__web__blue")] == ["^1imm_shop__web__"]
    assert not [each for each in patterns if re.match(each, "imm_shop__web__blue")]


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    """Any app: with it the proxy's image is there."""
    return shared.project()


def test_nginx_accepts_the_longest_and_the_strangest_values(shared: Host, app: Project):
    """Asked of the real one: names, domains and paths of full length, and every character that is allowed."""
    addresses = tuple(f"10.201.1.{at}" for at in range(3, 33))
    long = Structure(
        "a" + "-b" * 19 + "c",
        1,
        {
            f"s{'-t' * 14}{n}": dict.fromkeys(
                SLOTS,
                Side(65535, addresses, (".".join(["x" * 61] * 4), f"d{n}.example"), f"/{n}{'p' * 198}", True),
            )
            for n in range(2)
        },
        {},
    )
    strange = [
        structure(f"app{n}", domain=domain, path=path, arrived=n + 2)
        for n, (domain, path) in enumerate(
            product(["localhost", "10.0.0.1", "1", "a--b.example"], ["/.well-known", "/~u", "/v1.0_a"])
        )
    ]
    text = Nginx().configuration([long, *strange])
    folders = "/imm/proxy/data"
    check = (
        f"mkdir -p {folders}/run {folders}/park {folders}/tmp && exec nginx -t -q -e stderr -c /nginx.conf"
    )
    image = image_for(connect(), Nginx.images)
    code, said = checked(shared, image, check, text)
    assert code == 0 and "[emerg]" not in said, said
    code, said = checked(shared, image, check, text.replace("proxy_pass", "proxy_pas", 1))
    assert code != 0 and "proxy_pas" in said


def checked(host: Host, image: str, check: str, text: str) -> tuple[int, str]:
    """The exit code of a command in a container with this configuration, and what it said."""
    settings = host.engine.create_host_config(tmpfs={"/imm": "mode=1777", "/tmp": "mode=1777"})
    entrypoint = ["/bin/sh", "-c", check]
    made = host.engine.create_container(
        image, [], entrypoint=entrypoint, user="101:101", host_config=settings
    )["Id"]
    try:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo("nginx.conf")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
        host.engine.put_archive(made, "/", packed.getvalue())
        host.engine.start(made)
        return host.engine.wait(made, timeout=30)["StatusCode"], host.engine.logs(made).decode()
    finally:
        host.engine.remove_container(made, force=True)


def test_what_a_newer_imm_changed_at_the_head_is_loaded_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is asked for the name of what it serves: another head must have another name."""
    name = re.compile(r'/generation .* return 200 "([0-9a-f]{16})"')
    before = name.findall(Nginx().configuration([]))
    monkeypatch.setattr("immutable_local.proxy.nginx.KEEPALIVE_MIN_SECONDS", 3.0)
    after = name.findall(Nginx().configuration([]))
    assert len(before) == len(after) == 1
    assert before != after


@pytest.mark.engine
def test_a_reload_that_is_still_under_way_does_not_win_over_the_one_that_was_asked_for_last(
    host: Host, app: Project
):
    """A withdrawal that is interrupted while nginx reads is undone by what nginx still serves."""
    ready = attach(connect())
    assert ready is not None
    if ready.asked.kind != "nginx":
        pytest.skip("this host's proxy is another one")
    host.up(app)
    nginx, structures = Nginx("imm-proxy"), ready.structures()
    withdrawn = nginx.configuration([each for each in structures if each.app != app.name])
    # nginx looks for each name among all before it.
    slow = "".join(f"  upstream slow-{n} {{ server 127.0.0.1:9; }}\n" for n in range(SLOW_UPSTREAMS))
    with ready.session as session, lock.host(session, "test"):
        session.ask("proxy_write", name="nginx.conf", content=withdrawn.removesuffix("}\n") + slow + "}\n")
        ready.engine.execute("imm-proxy", ["sh", "-c", "kill -HUP 1"])
        nginx.load(ready.engine, session, structures, settle=False)
        before = ready.engine.processes("imm-proxy", "worker process")
        assert host.ask("/version", app).status == 200

        def replaced() -> bool:
            return not before & ready.engine.processes("imm-proxy", "worker process")

        # Whoever is asked for later is there by then: nobody comes after the workers that there are now.
        assert until(replaced, SLOW_SECONDS, pause=0.1) is None
        assert host.ask("/version", app).status == 200
