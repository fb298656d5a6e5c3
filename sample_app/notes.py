"""Notes in an SQLite file that several processes write at the same time: the old release and the new one."""

import sqlite3
import threading
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Self

BUSY_TIMEOUT = 5000
"""How long a statement waits for another process's write, in milliseconds."""

TABLE = """
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL,
    version TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
)
"""


@dataclass(frozen=True)
class Note:
    """One row: what was written, by which version of the app, when (UTC)."""

    id: int
    text: str
    version: str
    at: str

    def as_json(self) -> dict[str, int | str]:
        """The note as a JSON object."""
        return asdict(self)


class Notes:
    """The notes of one database file. Its methods may be called from any thread."""

    def __init__(self, file: Path) -> None:
        """Open the file, and make it when it isn't there. `sqlite3.Error` when it can't be."""
        self._file = file
        self._of_thread = threading.local()
        # Of two processes that turn a new file to WAL together, one is told 'database is locked' without any
        # wait, so they take turns here.
        with file.with_suffix(".lock").open("w") as turn:
            flock(turn, LOCK_EX)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(TABLE)

    @classmethod
    def beneath(cls, folder: Path) -> Self:
        """The notes of a data folder."""
        return cls(folder / "notes.sqlite3")

    @property
    def _connection(self) -> sqlite3.Connection:
        # One for each thread: a write that waits for its turn must not hold up a health check.
        connection = getattr(self._of_thread, "connection", None)
        if not isinstance(connection, sqlite3.Connection):
            connection = sqlite3.connect(self._file, isolation_level=None)
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
            self._of_thread.connection = connection
        return connection

    def check(self) -> None:
        """Ask the database for something. `sqlite3.Error` when it doesn't answer."""
        self._connection.execute("SELECT id FROM notes LIMIT 1").fetchone()

    def add(self, text: str, *, version: str) -> Note:
        """Write a note. It is on the disk when this returns."""
        written = self._connection.execute(
            "INSERT INTO notes (text, version) VALUES (?, ?) RETURNING id, text, version, at", (text, version)
        )
        # All of them: a statement with RETURNING is committed when its last row was fetched.
        (row,) = written.fetchall()
        return Note(*row)

    def count(self, containing: str = "") -> int:
        """How many notes there are whose text contains this."""
        (number,) = self._connection.execute(
            "SELECT count(*) FROM notes WHERE instr(text, ?) OR ? = ''", (containing, containing)
        ).fetchone()
        return int(number)

    def latest(self, most: int, containing: str = "") -> list[Note]:
        """The newest notes whose text contains this, newest first."""
        rows = self._connection.execute(
            "SELECT id, text, version, at FROM notes WHERE instr(text, ?) OR ? = '' ORDER BY id DESC LIMIT ?",
            (containing, containing, most),
        )
        return [Note(*row) for row in rows]
