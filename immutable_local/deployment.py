"""What every command that changes things shares: lock, look, sweep at the begin; the record when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from immutable_local import image, ledger, lock
from immutable_local.engine import Engine, connect
from immutable_local.errors import ImmError, NotFound, SessionLost, Superseded, UsageError
from immutable_local.events import Teller
from immutable_local.guard import guard
from immutable_local.host import Begun, Host, begin
from immutable_local.making import ensure
from immutable_local.observed import Observed, observe
from immutable_local.recovery import AWAY, RETURN_SECONDS, once_back, recover, swept
from immutable_local.sweep import record_live, sweep
from immutable_local.unbroken import unbroken
from immutable_local.undo import Undo
from immutable_local.who import who

# The command that a full disk is waiting for. What it leaves half done, it does when it comes again.
FREEING = "prune"


@dataclass
class Deployment:
    """What every step of a deployment needs: the host, the app as it was found, and whom to tell."""

    host: Host
    app: str
    command: str
    tell: Teller
    found: Observed
    # What is done at its end, whatever end it is.
    ending: ExitStack
    guarded: bool = False
    # Instances that aren't live, and that this command has a use for.
    spared: frozenset[str] = frozenset()

    @property
    def engine(self) -> Engine:
        return self.host.engine

    @property
    def still(self) -> str:
        """What is true whatever happens before the flip."""
        live = self.found.live
        return f"release {live.release} is still live" if live else f"nothing of {self.app} was live before"

    def be_guarded(self) -> None:
        """From here to its end requests depend on this command: should it be killed, it is swept at once."""
        if not self.guarded:
            self.guarded = True
            unbroken(self.ending.enter_context, guard(recover, self.app, report=self.tell.warn))


@dataclass(frozen=True)
class Options:
    """What the command line adds to imm.toml."""

    wait: float = 0.0
    fresh: bool = False
    take_over: bool = False


@contextmanager
def deployment(
    begun: Begun,
    app: str,
    command: str,
    options: Options,
    tell: Teller,
    first: Callable[[Deployment], None] = lambda at: None,
) -> Iterator[Deployment]:
    """Lock, look, sweep: how every command that changes things begins; and how it ends when it fails.

    `first` is done before the sweep, which writes.
    """
    with ExitStack() as ending:
        try:
            with tell.step("lock"):
                if begun.host is None:
                    # It is most of what this step takes, and nobody's lock.
                    tell.note("getting this host's proxy ready", "waiting")
                host = ensure(begun, tell.warn)
                ending.callback(host.close)
                lock.take(host.session, app, command, options.wait)
            at = Deployment(host, app, command, tell, observe(begun.engine, host.session, app), ending)
            if at.found.live is not None and at.found.live.held:
                # Requests wait already, for this sweep.
                at.be_guarded()
            first(at)
            with tell.step("sweep"):
                # Requests that wait must not be left by an interruption, with which its guard ends, too.
                asked = (host, at.found, command, tell, at.spared)
                at.found = unbroken(sweep, *asked) if at.guarded else sweep(*asked)
        except ImmError as failed:
            if isinstance(failed, AWAY):
                failed.still = failed.still or "what was live is still live"
            raise
        tell.previous = at.found.live.release if at.found.live else None
        tell.at_step = lambda step: doing(at, step)
        tell.stands = at.still
        try:
            yield at
        except Superseded:
            # History has both: that it went live, and what another command did since.
            raise
        except BaseException as failed:
            if _gone(at, failed):
                put_right(at, failed)
            else:
                with Undo(tell.warn) as recording:
                    recording.by(record_failure, at, failed)
                    recording.by(clear_images, at)
            if isinstance(failed, ImmError) and tell.stands != at.still:
                # It couldn't all be undone.
                failed.still = tell.stands
            if isinstance(failed, ImmError) and not failed.still and not isinstance(failed, UsageError):
                failed.still = tell.reached or at.still
            raise


def put_right(at: Deployment, failed: BaseException) -> None:
    """The host went away in the middle of a command: do what the next one would begin with.

    Nobody else would, and requests to a service with one writer would wait for it. A host that is restarted
    comes back in a few seconds; after some RETURN_SECONDS it is left to the next command.
    """
    at.host.close()
    at.tell.undone = False
    try:
        # Whoever reads it may be impatient at once.
        at.tell.note(f"waiting for the host to come back, about {RETURN_SECONDS:.0f} s at most", "waiting")
        found = once_back(lambda: swept(begin(connect()), at.app, at.command, at.tell))
    except (ImmError, KeyboardInterrupt) as stopped:
        why = f"{stopped.message}; " if isinstance(stopped, ImmError) else ""
        at.tell.warn(f"{why}what this command left is swept by the next one")
        return
    at.tell.undone = True
    was = at.found.live.release if at.found.live else None
    number = found.live.release if found.live else None
    at.tell.stands = f"release {number} is {'still ' if number == was else ''}live"
    if number is None:
        at.tell.stands = f"nothing of {at.app} is live"
    if isinstance(failed, ImmError):
        failed.still = at.tell.stands
    if isinstance(failed, AWAY):
        failed.hint = "run the command again: what this one left is swept"


def _gone(at: Deployment, failed: BaseException) -> bool:
    """Whether the session ended, with its engine or alone, or the proxy left the sidecar behind."""
    if isinstance(failed, SessionLost):
        return True
    try:
        return not at.host.session.ask("hello")["interfaces"]
    except ImmError:
        return True


def doing(at: Deployment, step: str, command: str = "") -> None:
    """Let the next command know where this one was, should it be interrupted; `command`: what it became."""
    told = {"command": command or at.command, "step": step, "release": at.tell.release, "by": who()}
    at.host.session.tell("doing_write", app=at.app, told=told, needed=at.command != FREEING)


def record_failure(at: Deployment, failed: BaseException) -> None:
    """History says why it failed; a mistake in the question, which touched nothing, isn't history."""
    if at.tell.reached:
        record_live(at.host, observe(at.engine, at.host.session, at.app), at.command)
    if not isinstance(failed, UsageError | NotFound):
        ledger.append(
            at.host.session,
            at.app,
            "unfinished" if at.tell.reached else "failed",
            release=at.tell.release,
            seconds=at.tell.seconds,
            step=at.tell.current,
            **reason_of(failed),
        )
    # What could not be undone the next command is to find.
    if at.tell.undone:
        at.host.session.ask("doing_clear", app=at.app)


def clear_images(at: Deployment) -> None:
    """A build that was cut in the middle leaves nothing; what a successor builds isn't this command's."""
    at.host.session.ask("still_locked", name=f"app-{at.app}")
    image.remove_leftovers(at.engine, at.app)


def reason_of(failed: BaseException) -> dict[str, Any]:
    """Why something failed, as a record has it: nothing of it was printed by an application."""
    if isinstance(failed, ImmError):
        return {"error": failed.message, "code": failed.code, "facts": failed.facts}
    if isinstance(failed, KeyboardInterrupt):
        return {"error": "interrupted", "code": "interrupted", "facts": []}
    return {"error": f"{type(failed).__name__}: {failed}", "code": "bug", "facts": []}
