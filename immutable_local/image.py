"""Build the app's image, pin the others, seal a release.

Sealing is a second, tiny build: the built image and a few labels. It goes through the engine's API, so that
what is sealed stands in no argument list.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from immutable_local import labels as label
from immutable_local.app import App, Build, Service
from immutable_local.dockerfile import images_read, stage_names
from immutable_local.dockerignore import context_paths
from immutable_local.engine import Engine, Image, disk_is_full, pack_context
from immutable_local.errors import FREE_SPACE, BuildFailed, ConfigError, EngineRefused, ImmError
from immutable_local.events import Teller
from immutable_local.release import Pin, Release, content_of, declared_volumes, digest, unseal

REPOSITORY = "imm.local/app"
SHOWN_LINES = 25
KEPT_LINES = 2000
# Docker's reader of Dockerfiles takes lines of 64 KiB at most.
LINE_LIMIT = 8192
PLUGIN_FOLDERS = (
    "~/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
    "/opt/homebrew/lib/docker/cli-plugins",
)
# Docker's command line up to 22 has BuildKit built in; later ones need the buildx plugin.
LAST_BUILT_IN = 22
# A build argument that may be a secret, as far as its name says. What a program takes from its environment
# under such a name is a secret as well, never what to run or where.
LIKE_A_SECRET = re.compile(
    r".*(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|(?<!ASK)PASS|_PWD|AUTH|KEY)", re.IGNORECASE
)
SMALL_BYTES = 1 << 20
# How the engine's own builder names the image of each step.
STEP_MADE = re.compile(r" ---> ([0-9a-f]{12})")


def repository(app: str) -> str:
    return f"{REPOSITORY}/{app}"


def build(
    engine: Engine, app: App, folder: Path, tell: Teller, program: str | None, fresh: bool = False
) -> tuple[Pin, str | None]:
    """Build the app's own image; returns it, and the digest of what it was built from where that is known.

    `program` is the docker command line that builds with BuildKit, else the engine's own builder does it.
    `fresh` uses nothing of an earlier build. Raises BuildFailed with the last lines of the builder's output.
    """
    with ThreadPoolExecutor(1) as beside:
        source = beside.submit(source_digest, engine, folder, app.build)
        try:
            if program is not None:
                built = _build_by_cli(engine, program, app, folder, tell, fresh)
            else:
                built = _build_by_api(engine, app, folder, tell, fresh)
        except BuildFailed:
            # An engine that went away failed it, not the Dockerfile: then this raises instead.
            engine.version()
            _check_target(app.build, folder)
            raise
        image = _found(engine, built)
        pinned = Pin(
            "", image.id, content_of(image.layers, image.config), volumes=declared_volumes(image.config)
        )
        try:
            if image.config.get("OnBuild"):
                # It would run while the release is sealed: what runs wouldn't be what was built.
                raise BuildFailed(
                    "the image has ONBUILD instructions, which run when another image is built from it",
                    hint="write those instructions without ONBUILD in the Dockerfile's last stage",
                )
            for service in app.services:
                if service.image is None:
                    _check_command(service, image)
            return pinned, source.result()
        except (BuildFailed, ConfigError):
            discard(engine, pinned)
            raise


def pin(engine: Engine, service: Service, tell: Teller) -> Pin:
    """A service's own image, pulled if the engine doesn't have it, pinned by what it is."""
    assert service.image is not None
    image = engine.image(service.image)
    if image is None:
        tell.note(f"pulling {service.image}")
        try:
            image = engine.pull(service.image)
        except EngineRefused as refused:
            raise ImmError(
                f"services.{service.name}.image: {service.image} is not on the engine"
                " and could not be pulled",
                code="no_image",
                details=[refused.explanation],
                hint="correct the name, log in with docker login, or load the image with docker load",
            ) from refused
    _check_command(service, image)
    return Pin(
        service.image,
        image.id,
        content_of(image.layers, image.config),
        image.digests[0] if image.digests else None,
        declared_volumes(image.config),
    )


def _check_target(asked: Build, folder: Path) -> None:
    """Raises ConfigError where imm.toml asks for a stage that the Dockerfile hasn't."""
    dockerfile = (folder / asked.context / asked.dockerfile).read_text(errors="replace")
    names = stage_names(dockerfile)
    wanted = asked.target
    if wanted is None or wanted.isdigit() or wanted.lower() in [name.lower() for name in names]:
        return
    known = f"{asked.dockerfile} has the stages {', '.join(names)}" if names else "give a stage that name"
    raise ConfigError(
        f"build.target: there is no stage {wanted} in {asked.dockerfile}",
        key=("build", "target"),
        hint=f"correct it, or leave it out: {known}",
    )


def _check_command(service: Service, image: Image) -> None:
    if service.command is None and not (image.config.get("Cmd") or image.config.get("Entrypoint")):
        where = "the image's Dockerfile" if service.image else "the Dockerfile"
        raise ConfigError(
            f"services.{service.name}.command: is missing, and its image has none",
            key=("services", service.name, "command"),
            hint=f"add it, or CMD to {where}",
        )


def require(engine: Engine, release: Release, services: Sequence[Service], tell: Teller) -> None:
    """See that the images which these services name are there, as the release pinned them; else pull them.

    Nothing marks them as needed by a release that isn't live. Raises ImmError for the first one that is gone.
    """
    for service in services:
        if service.image is None or engine.image(release.pins[service.name].id) is not None:
            continue
        pin = release.pins[service.name]
        failed = ["it was never in a registry, as far as the engine knows"]
        if pin.digest is not None:
            tell.note(f"pulling {pin.digest}")
            try:
                engine.pull(pin.digest)
            except EngineRefused as refused:
                failed = [refused.explanation or refused.message]
        if engine.image(pin.id) is None:
            raise ImmError(
                f"{pin.reference}, as {service.name} of release {release.number} ran it, is not on the engine"
                " any more, and could not be pulled",
                code="no_image",
                details=[f"it was {pin.id}", *failed],
                hint="load it with docker load, where there is a copy, or go to another release: imm status"
                " lists them",
            )


def seal(engine: Engine, release: Release, number: int, source: str | None) -> Release:
    """Seal code and settings in one image, `imm.local/app/NAME:NUMBER`; returns the numbered release."""
    app = release.app.name
    labels = {
        label.ROLE: "release",
        label.APP: app,
        label.RELEASE: str(number),
        label.IDENTITY: release.identity,
        label.SEALED: release.sealed(),
    }
    if source is not None:
        labels[label.SOURCE] = source
    base = release.pins[""].id if "" in release.pins else "scratch"
    # One instruction: the builder makes an image of each.
    dockerfile = (
        f"FROM {base}\nLABEL " + " \\\n ".join(_quoted(key, value) for key, value in labels.items()) + "\n"
    )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile.encode())
        archive.addfile(entry, io.BytesIO(dockerfile.encode()))
    packed.seek(0)
    reference = f"{repository(app)}:{number}"
    sealed = ""
    for said in engine.build_of_what_is_there(packed, reference):
        if "error" in said:
            raise BuildFailed(
                f"release {number} of {app} could not be sealed",
                code="disk_full" if disk_is_full(str(said["error"])) else None,
                details=[str(said["error"])],
                hint=FREE_SPACE if disk_is_full(str(said["error"])) else "imm doctor looks closer",
            )
        sealed = said["aux"].get("ID", sealed) if isinstance(said.get("aux"), dict) else sealed
    return Release(release.app, release.pins, number, sealed or _found(engine, reference).id)


def discard(engine: Engine, built: Pin) -> None:
    """Remove a built image that no release was made of. One that a release or a tag uses stays."""
    image = engine.image(built.id)
    if image is not None and not image.tags and image.labels.get(label.ROLE) == "build":
        engine.remove_image(built.id)


def source_digest(engine: Engine, folder: Path, asked: Build) -> str | None:
    """SHA-256 of all that a build reads: the context's files, the Dockerfile, arguments, the base images.

    Times are left out, as BuildKit leaves them out. It tells that a rebuild without a cache, whose layers
    differ by their times alone, is of the same source. None when a base image, an address or a file can't be
    known. Raises BuildFailed for what may not be read.
    """
    dockerfile = (folder / asked.context / asked.dockerfile).read_text(errors="replace")
    bases = images_read(dockerfile, asked.args)
    if bases is None:
        return None
    ids = {}
    for base in bases:
        image = engine.image(base)
        if image is None:
            return None
        ids[base] = image.id
    root = folder / asked.context
    try:
        files = [_fingerprint(root, path) for path in sorted(context_paths(root, asked.dockerfile))]
    except PermissionError as refused:
        # BuildKit of Docker 20.10 would take it for an empty file, and say nothing.
        raise BuildFailed(
            f"{refused.filename} can't be read, and is in the build's context",
            hint="correct its permissions, or list it in .dockerignore",
        ) from refused
    except OSError:
        # It was there a moment ago.
        return None
    return digest(
        {
            "files": files,
            "dockerfile": dockerfile,
            "target": asked.target,
            "args": dict(asked.args),
            "bases": ids,
        }
    )


def _fingerprint(root: Path, path: str) -> list[str]:
    found = os.path.join(root, path)
    about = os.lstat(found)
    if stat.S_ISLNK(about.st_mode):
        return [path, "link", os.readlink(found)]
    if not stat.S_ISREG(about.st_mode):
        return [path, "folder", oct(stat.S_IMODE(about.st_mode))]
    with open(found, "rb", buffering=0) as file:
        # Most files are small, and file_digest clears a buffer of 256 KiB for each.
        small = about.st_size <= SMALL_BYTES
        content = hashlib.sha256(file.read()) if small else hashlib.file_digest(file, "sha256")
    return [path, oct(stat.S_IMODE(about.st_mode)), content.hexdigest()]


def buildkit_program() -> str | None:
    """A docker command line on the PATH that can build with BuildKit."""
    plugged = any((Path(folder).expanduser() / "docker-buildx").exists() for folder in PLUGIN_FOLDERS)
    for folder in os.get_exec_path():
        program = shutil.which("docker", path=folder)
        if program is None:
            continue
        if plugged:
            return program
        with suppress(OSError, subprocess.TimeoutExpired):
            # Even for this it would first connect to an engine behind ssh.
            nowhere = {**os.environ, "DOCKER_HOST": "unix:///dev/null"}
            told = subprocess.run(
                [program, "--version"], env=nowhere, capture_output=True, text=True, timeout=10, check=False
            ).stdout
            version = re.search(r"version (\d+)\.", told)
            if version and int(version[1]) <= LAST_BUILT_IN:
                return program
    return None


def _build_by_cli(engine: Engine, program: str, app: App, folder: Path, tell: Teller, fresh: bool) -> str:
    asked = app.build
    context = folder / asked.context
    with tempfile.TemporaryDirectory(prefix="imm-build-") as scratch:
        told = Path(scratch) / "image"
        command = [program, "build", "--iidfile", str(told), "--file", str(context / asked.dockerfile)]
        command += [
            word for key, value in _build_labels(app).items() for word in ("--label", f"{key}={value}")
        ]
        words, given = build_arguments(asked.args)
        command += words
        command += ["--target", asked.target] if asked.target else []
        command += ["--no-cache"] if fresh else []
        command.append(str(context))
        environment = {
            **os.environ,
            **given,
            "DOCKER_BUILDKIT": "1",
            "BUILDKIT_PROGRESS": "plain",
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
            # Else it asks git, which runs what a repository configures, for what only an attestation says.
            "BUILDX_GIT_INFO": "0",
            "BUILDX_BUILDER": "default",
        }
        if engine.local.startswith("unix://"):
            environment["DOCKER_HOST"] = engine.local
            environment.pop("DOCKER_CONTEXT", None)
        _follow(command, environment, tell)
        return told.read_text().strip()


def build_arguments(args: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The builder's arguments for a build's own, and what its environment says beside them.

    Any name in the environment may mean something to docker, to a credential helper that it starts, or to
    what that one calls, so an imm.toml of somebody else's could choose what runs on this machine. An argument
    list changes nothing here, but every user of this machine can read it: what is named like a secret,
    though no build argument should be one, comes from the environment, in place of what that has under its
    name.
    """
    given = {key: value for key, value in args.items() if LIKE_A_SECRET.fullmatch(key)}
    words = [key if key in given else f"{key}={value}" for key, value in args.items()]
    return [each for word in words for each in ("--build-arg", word)], given


def _follow(command: list[str], environment: Mapping[str, str], tell: Teller) -> None:
    # A session of its own: Ctrl-C reaches this process, which then ends the build and says what it did.
    builder = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert builder.stdout is not None
    lines: list[str] = []
    try:
        for raw in builder.stdout:
            line = raw.decode(errors="replace").rstrip()
            lines = [*lines[-KEPT_LINES:], line]
            tell.note(line, "output")
        code = builder.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(builder.pid, signal.SIGTERM)
        builder.wait()
        raise
    if code != 0:
        raise _build_failed(lines)


def _build_by_api(engine: Engine, app: App, folder: Path, tell: Teller, fresh: bool) -> str:
    asked = app.build
    lines: list[str] = []
    image = ""
    before = engine.image_ids()
    with pack_context(folder / asked.context, asked.dockerfile) as (packed, dockerfile):
        said_all = engine.build(
            packed,
            dockerfile=dockerfile,
            buildargs=dict(asked.args),
            target=asked.target or "",
            labels=_build_labels(app),
            nocache=fresh,
        )
        for said in said_all:
            if "error" in said:
                _discard_steps(engine, lines, before)
                raise _build_failed([*lines, str(said["error"])])
            if isinstance(said.get("aux"), dict):
                image = said["aux"].get("ID", image)
            for line in str(said.get("stream", "")).splitlines():
                if line.strip():
                    lines = [*lines[-KEPT_LINES:], line]
                    tell.note(line, "output")
    if not image:
        raise _build_failed(lines)
    return image


def _discard_steps(engine: Engine, lines: list[str], before: set[str]) -> None:
    """This builder leaves the images of a failed build's steps behind: those that it made go."""
    for line in reversed(lines):
        step = STEP_MADE.fullmatch(line)
        made = engine.image(step[1]) if step else None
        if made is not None and made.id not in before and not made.tags:
            engine.remove_image(made.id)


def _build_failed(lines: list[str]) -> BuildFailed:
    # BuildKit names each step's digest on a line of its own: nobody corrects a Dockerfile by it.
    lines = [
        line for line in lines if line.strip() and not re.fullmatch(r"#\d+ sha256:[0-9a-f]+", line.strip())
    ]
    full = disk_is_full("\n".join(lines[-SHOWN_LINES:]))
    return BuildFailed(
        "the image could not be built" + (": the engine's disk is full" if full else ""),
        code="disk_full" if full else None,
        details=["last lines of the builder's output:", *(f"  {line}" for line in lines[-SHOWN_LINES:])],
        hint=FREE_SPACE if full else "correct the Dockerfile or what it copies, then run imm up",
    )


def _build_labels(app: App) -> dict[str, str]:
    return {label.ROLE: "build", label.APP: app.name}


def _quoted(key: str, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'{key}="{"".join(_folded(quoted))}"'


def _folded(quoted: str) -> Iterator[str]:
    """A long value on several lines, cut where no escape is torn apart.

    No line may begin with a #, which would make it a comment even here, and none may be of backslashes alone:
    `Release.sealed` sees to both.
    """
    start = 0
    while len(quoted) - start > LINE_LIMIT:
        end = start + LINE_LIMIT
        while quoted[end - 1] == "\\":
            end -= 1
        yield quoted[start:end] + "\\\n"
        start = end
    yield quoted[start:]


def _found(engine: Engine, reference: str) -> Image:
    image = engine.image(reference)
    if image is None:
        raise BuildFailed(f"the image {reference} was built and is gone", hint="run imm up again")
    return image


def of_app(
    engine: Engine, app: str
) -> tuple[dict[int, tuple[str, Mapping[str, str]]], dict[str, Mapping[str, str]]]:
    """The sealed releases of an app that the engine holds, image id and labels by number; and what building
    and sealing left over: images of which no release was made, labels by id."""
    found, left = {}, {}
    for image, labels, tags in engine.images({label.APP: app}):
        role, told = labels.get(label.ROLE), labels.get(label.RELEASE, "0")
        if not told.isdecimal():
            # Nothing that imm wrote.
            continue
        number = int(told)
        # A label is inherited by what somebody builds from this image; the tag isn't.
        if role == "release" and f"{repository(app)}:{number}" in tags:
            found[number] = (image, labels)
        elif not tags and (role == "build" or (role == "release" and _is_as_sealed(engine, image, labels))):
            left[image] = labels
    return found, left


def _is_as_sealed(engine: Engine, image: str, labels: Mapping[str, str]) -> bool:
    """Whether an image is what its seal says; one that somebody built from a release inherits its seal."""
    try:
        own = unseal(labels, image).pins.get("")
    except (ValueError, LookupError, TypeError, AttributeError):
        # Nothing that imm wrote.
        return False
    found = engine.image(image)
    if found is None or own is None:
        return found is not None and not found.layers
    return content_of(found.layers, found.config) == own.content


def remove_leftovers(engine: Engine, app: str) -> None:
    for each in of_app(engine, app)[1]:
        engine.remove_image(each)
