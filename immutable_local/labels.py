"""Every label key that imm puts on an engine, once. Labels say what a thing is; names never do.

But labels are inherited, from images and by them: see `listed.by_role` and `Engine.gives_role`.
"""

from __future__ import annotations

ROLE = "imm.role"  # proxy, sidecar, instance, release, build, network, state, secrets, task
APP = "imm.app"  # the app's name
SERVICE = "imm.service"  # the service's name
RELEASE = "imm.release"  # the release's number
IDENTITY = "imm.identity"  # the release's identity: SHA-256 of what it is
SPEC = "imm.spec"  # what an instance was started from: SHA-256 of image, settings and secrets' versions
SLOT = "imm.slot"  # blue or green
REPLICA = "imm.replica"  # 1, 2, 3...
SEALED = "imm.sealed"  # the sealed settings, as canonical JSON
SOURCE = "imm.source"  # SHA-256 of what the image was built from
CONFIGURATION = "imm.configuration"  # how the proxy was asked to run, as JSON

PREFIX = "imm."
