"""The base images: on the engine already, else loaded from the cache, else pulled, else built."""

from __future__ import annotations

import hashlib
import selectors
import subprocess
from contextlib import suppress
from pathlib import Path

from setup import engine, packages, recipes
from setup.layer import save
from setup.step import CACHE, StopError, run, scratch, step, warn

LOCAL = "imm.local"
PUBLIC = {
    "python": "python:3.11-slim",
    "nginx": "nginx:1.29-alpine",
    "traefik": "traefik:v3.7.15",
    "busybox": "busybox:1.37",
}
FIRST = "busybox"  # the smallest, so the one that shows whether a registry answers
BASE_LABEL = "imm.base"
RECIPE_LABEL = "imm.base.recipe"

DOCKER_SECONDS = 120
PULL_SECONDS = 900
ANSWER_SECONDS = 5


def ready() -> None:
    """Make sure that the engine has every base image. Raises StopError."""
    key = recipe_key()
    present = found(key)
    missing = [name for name in recipes.RECIPES if name not in present]
    missing = [name for name in missing if not _load_cached(name, key)]
    if not missing:
        return
    if _registry_answers():
        for name in (name for name in missing if name != FIRST):
            with step(f"pulling {PUBLIC[name]}"):
                _docker("pull", "--quiet", PUBLIC[name], timeout=PULL_SECONDS)
        return
    architecture = _same_architecture()
    for name in missing:
        with step(f"building {LOCAL}/{name} from packages"):
            _build(name, key, architecture)
            _load(name, _archive(name, key))


def ref(name: str) -> str:
    """The reference to use for a base image: the one on the engine, else the public one. Raises StopError."""
    if name not in PUBLIC:
        raise StopError(f"no base image is called {name}: there are {', '.join(PUBLIC)}", 2)
    # An image of an older recipe is still better than one that might not be pullable.
    return found(recipe_key()).get(name) or _listed(f"{LOCAL}/{name}").get(name) or PUBLIC[name]


def found(key: str) -> dict[str, str]:
    """Which base images the engine has, built by the recipe of this key or pulled, by name."""
    local = _listed(f"{LOCAL}/*", label=f"{RECIPE_LABEL}={key}")
    if len(local) == len(PUBLIC):
        return local
    return _listed(*PUBLIC.values()) | local


def recipe_key() -> str:
    """Changes with whatever an image is made from, but for the versions that Debian has at the moment."""
    sources = (Path(recipes.__file__), Path(__file__).with_name("layer.py"), recipes.CERTIFICATES)
    whole = hashlib.sha256()
    for source in sources:
        whole.update(source.read_bytes() if source.exists() else b"")
        whole.update(b"\0")
    return whole.hexdigest()[:16]


def architecture() -> str:
    """The engine's, in Docker's words: amd64, arm64..."""
    return _docker("version", "--format", "{{.Server.Arch}}").strip()


def _listed(*references: str, label: str | None = None) -> dict[str, str]:
    words = [word for reference in references for word in ("--filter", f"reference={reference}")]
    words += ["--filter", f"label={label}"] if label else []
    lines = _docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *words).splitlines()
    known = {line.rsplit("/", 1)[-1].split(":")[0]: line for line in lines if not line.endswith("<none>")}
    return {name: line for name, line in known.items() if name in PUBLIC}


def _registry_answers() -> bool:
    """Whether a pull gets as far as its first line within a few seconds; if so, it is let finish."""
    program = engine.docker() or "docker"
    with (
        step(f"pulling {PUBLIC[FIRST]}, if a registry answers"),
        subprocess.Popen(
            [program, "pull", PUBLIC[FIRST]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as pull,
        selectors.DefaultSelector() as selector,
    ):
        assert pull.stdout is not None
        selector.register(pull.stdout, selectors.EVENT_READ)
        try:
            if not selector.select(ANSWER_SECONDS) or not pull.stdout.readline():
                return False
            pull.communicate(timeout=PULL_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        finally:
            pull.kill()
    return pull.returncode == 0


def _same_architecture() -> str:
    """The engine's architecture, if this machine's packages are for it too."""
    if not packages.has_apt():
        raise StopError(
            "no registry answers, so the base images cannot be pulled, and without Debian's or Ubuntu's apt "
            "they cannot be built from packages: check the engine's network and its registry settings"
        )
    wanted, here = architecture(), run(["dpkg", "--print-architecture"], timeout=20).strip()
    if {"armhf": "arm", "i386": "386"}.get(here, here) != wanted:
        raise StopError(
            f"no registry answers, and this machine's packages are for {here}, the engine's for {wanted}"
        )
    return wanted


def _archive(name: str, key: str) -> Path:
    return CACHE / "images" / f"{name}-{key}.tar"


def _build(name: str, key: str, architecture: str) -> None:
    archive = _archive(name, key)
    with scratch() as folder:
        image = recipes.RECIPES[name](f"{LOCAL}/{name}", {BASE_LABEL: name, RECIPE_LABEL: key}, folder)
        save(image, architecture, archive)
    for older in archive.parent.glob(f"{name}-*.tar"):
        if older != archive:
            older.unlink()


def _load_cached(name: str, key: str) -> bool:
    archive = _archive(name, key)
    if not archive.exists():
        return False
    with step(f"loading {LOCAL}/{name} from {archive.parent}"):
        try:
            _load(name, archive)
        except StopError as refused:
            warn(f"built anew, since it cannot be loaded: {refused}")
            archive.unlink(missing_ok=True)
            return False
    return True


def _load(name: str, archive: Path) -> None:
    before = _image_ids(name)
    _docker("load", "--quiet", "--input", str(archive))
    for replaced in before - _image_ids(name):
        # What still runs from it, or was built from it, keeps it: then the engine refuses.
        with suppress(StopError):
            _docker("image", "rm", replaced)


def _image_ids(name: str) -> set[str]:
    return set(_docker("image", "ls", "--quiet", "--no-trunc", f"{LOCAL}/{name}").split())


def _docker(*words: str, timeout: float = DOCKER_SECONDS) -> str:
    return run([engine.docker() or "docker", *words], timeout=timeout)
