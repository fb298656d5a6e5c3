"""An image of one layer, put together file by file: the same content gives the same image id."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from setup.step import StopError, run, scratch, whole_file

# Every file and the image itself carry this date: 2026-01-01, as a number of seconds and as text.
EPOCH = 1767225600
CREATED = "2026-01-01T00:00:00Z"

MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
LEFT_OUT = tuple(f"usr/share/{name}/" for name in ("bug", "doc-base", "info", "lintian", "locale", "man"))


@dataclass(frozen=True)
class Image:
    """What an image archive is made of. `config` is the inner part of an OCI one: Env, Cmd, User..."""

    ref: str
    layer: Layer
    config: dict[str, object]


@dataclass
class Layer:
    """A file system in memory; paths have no leading slash."""

    entries: dict[str, tuple[tarfile.TarInfo, bytes]] = field(default_factory=dict)

    def file(self, path: str, data: bytes | str, mode: int = 0o644, owner: int = 0) -> None:
        self._put(path, tarfile.REGTYPE, mode, owner, data.encode() if isinstance(data, str) else data)

    def folder(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        self._put(path, tarfile.DIRTYPE, mode, owner)

    def link(self, path: str, target: str) -> None:
        self._put(path, tarfile.SYMTYPE, 0o777, 0, target=target)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with what is in it; nothing to remove is no error."""
        for gone in [known for known in self.entries if known == path or known.startswith(f"{path}/")]:
            del self.entries[gone]

    def read(self, path: str) -> bytes:
        return self.entries[path][1]

    def paths(self, start: str) -> list[str]:
        return sorted(path for path in self.entries if path.startswith(start))

    def merge_usr(self) -> None:
        """The links /bin -> usr/bin and so on, which no package carries: the installer makes them."""
        for name in MERGED:
            if self.paths(f"usr/{name}/"):
                self.link(name, f"usr/{name}")

    def add_deb(self, deb: Path) -> None:
        """The files of a Debian package, without its documentation (licences stay)."""
        stream = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
            for member in archive:
                path = _merged(member.name)
                if not path or _left_out(path) or (member.isdir() and path in self.entries):
                    continue
                body = archive.extractfile(member) if member.isreg() else None
                target = _merged(member.linkname) if member.islnk() else member.linkname
                self._put(
                    path,
                    member.type,
                    member.mode,
                    member.uid,
                    body.read() if body else b"",
                    target,
                    member.gid,
                )

    def add_wheel(self, wheel: Path, packages: str, scripts: str) -> None:
        """The files of a Python wheel: modules to the folder `packages`, scripts to the folder `scripts`."""
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                first, _, rest = name.partition("/")
                if first.endswith(".data"):
                    kind, _, rest = rest.partition("/")
                    folder, mode = (scripts, 0o755) if kind == "scripts" else (packages, 0o644)
                else:
                    folder, mode, rest = packages, 0o644, name
                self.file(f"{folder}/{rest}", archive.read(name), mode)

    def write(self, path: Path) -> str:
        """Write the layer as a tar archive and return its digest, `sha256:...`."""
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            # A hard link must come after the file it names.
            for name in sorted(self._with_parents(), key=lambda name: (self._is_hard_link(name), name)):
                entry, data = self.entries[name]
                archive.addfile(entry, io.BytesIO(data))
        with open(path, "rb") as written:
            return f"sha256:{hashlib.file_digest(written, 'sha256').hexdigest()}"

    def _is_hard_link(self, name: str) -> bool:
        return self.entries[name][0].islnk()

    def _with_parents(self) -> list[str]:
        for name in list(self.entries):
            for parent in Path(name).parents:
                if str(parent) != "." and str(parent) not in self.entries:
                    self.folder(str(parent))
        return list(self.entries)

    def _put(
        self,
        path: str,
        kind: bytes,
        mode: int,
        owner: int,
        data: bytes = b"",
        target: str = "",
        group: int | None = None,
    ) -> None:
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.linkname = kind, mode, target
        entry.uid, entry.gid = owner, owner if group is None else group
        entry.mtime, entry.size = EPOCH, len(data)
        self.entries[path] = (entry, data)


def save(image: Image, architecture: str, archive: Path) -> None:
    """Write an archive that `docker load` reads."""
    with scratch() as folder, whole_file(archive) as unfinished:
        diff_id = image.layer.write(folder / "layer.tar")
        config = _json(
            {
                "architecture": architecture,
                "os": "linux",
                "created": CREATED,
                "config": image.config,
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                "history": [{"created": CREATED, "created_by": "python3 -m setup images"}],
            }
        )
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = _json([{"Config": name, "RepoTags": [image.ref], "Layers": ["layer.tar"]}])
        with tarfile.open(unfinished, "w") as outer:
            for member, data in ((name, config), ("manifest.json", manifest)):
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                outer.addfile(entry, io.BytesIO(data))
            entry = outer.gettarinfo(folder / "layer.tar", "layer.tar")
            entry.mtime = EPOCH
            with open(folder / "layer.tar", "rb") as layer:
                outer.addfile(entry, layer)


def compile_python(layer: Layer, python: str, folders: list[str]) -> None:
    """Add the byte code of the layer's Python modules: a container with a read-only root could never keep it.

    Compiled by the layer's own interpreter, through its own loader, so that the version fits whatever Python
    runs this; checked by nothing at run time, since the files never change; without hash randomisation, which
    would change the order of constants and with it the image's id.
    """
    with scratch() as folder:
        layer.write(folder / "layer.tar")
        root = folder / "root"
        root.mkdir()
        run(["tar", "-xf", folder / "layer.tar", "-C", root, "--no-same-owner"], timeout=120)
        # Not the one in lib64, which may be an absolute link and so lead to this machine's own.
        loaders = sorted(root.glob("usr/lib/*-linux-gnu*/ld-linux*.so.*"))
        if not loaders:
            raise StopError("the Python image has no dynamic loader")
        loader = loaders[0]
        run(
            [
                *(
                    loader,
                    "--library-path",
                    loader.parent,
                    root / python,
                    "-s",
                    "-S",
                    "-m",
                    "compileall",
                    "-q",
                ),
                *("--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/"),
                *(root / name for name in folders),
            ],
            timeout=300,
            env={
                "PYTHONHASHSEED": "0",
                "PYTHONHOME": str(root / "usr"),
                "PYTHONPATH": "",
                # Else what the compiler itself imports is written first, with dates and this folder's name.
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )
        for made in sorted(root.rglob("*.pyc")):
            layer.file(str(made.relative_to(root)), made.read_bytes())


def _merged(name: str) -> str:
    path = name.removeprefix("./").strip("/")
    path = "" if path == "." else path
    return f"usr/{path}" if path.split("/")[0] in MERGED else path


def _left_out(path: str) -> bool:
    inside = f"{path}/"
    if inside.startswith("usr/share/doc/"):
        return not path.endswith("/copyright")
    return inside.startswith(LEFT_OUT)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
