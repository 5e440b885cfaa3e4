"""A real PostgreSQL for tests: started when first asked for, in a temporary folder, as a user without rights.

`server()` gives the one of this process; it ends with it. Each store gets a database of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from headrace.clock import Clock
    from headrace.queue.store.postgres.store import PostgresStore

from headrace.testing.ports import free_port

START_S: Final = 60.0
STANDBY: Final = "headrace_standby"
_PR_SET_PDEATHSIG: Final = 1
_PLACES: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
_CONFIG: Final = """
fsync = off
full_page_writes = off
shared_buffers = 64MB
max_connections = 100
autovacuum_naptime = 5s
max_wal_size = 4GB
log_min_messages = warning
"""


@functools.cache  # each module of tests asks, and each answer is a process
def find_programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs on this machine (15 or later), or None."""
    places = [place for pattern in _PLACES for place in Path("/").glob(pattern.lstrip("/"))]
    known = [(version_of(place), place) for place in places if (place / "pg_isready").exists()]
    return max(((version, place) for version, place in known if version >= 15), default=(0, None))[1]


def version_of(programs: Path) -> int:
    """The major version of the PostgreSQL in a folder of programs."""
    text = subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    return int("".join(c if c.isdigit() else " " for c in text).split()[0])


class Server:
    """A PostgreSQL server of one's own. Context manager.

    Args:
        folder: an existing, empty folder; it is removed by who made it.
        durable: whether it syncs as in production; tests that kill the machine in thought need not.
        settings: more lines of postgresql.conf.
        copy_of: a running server; the new one will be its standby, and its copy until then.
        port: where to listen; None: anywhere.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = False,
        settings: Sequence[str] = (),
        copy_of: Server | None = None,
        port: int | None = None,
    ) -> None:
        programs = find_programs()
        if programs is None:
            raise FileNotFoundError("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
        self.programs = programs
        self.data = folder / "data"
        self.port = port or free_port()
        self._user = "postgres" if os.geteuid() == 0 else None
        self._log = folder / "log"
        self._process: subprocess.Popen[Any] | None = None
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        if copy_of is None:
            self.run(
                "initdb", "-D", str(self.data), "-U", "headrace", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
            )
        else:
            self.run("pg_basebackup", "-D", str(self.data), "-d", copy_of.url(), "-c", "fast", "--no-sync")
            (self.data / "standby.signal").touch()  # the server reads it, and removes it when it is promoted
            # Another name than that of the copying, which would count as a standby, and is none when it ends.
            settings = [*settings, f"primary_conninfo = '{copy_of.url()}?application_name={STANDBY}'"]
        lines = [_CONFIG.replace("fsync = off\nfull_page_writes = off", "") if durable else _CONFIG, *settings]
        lines += [f"unix_socket_directories = '{folder}'", f"port = {self.port}", "listen_addresses = '127.0.0.1'"]
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("\n".join(["", *lines]))  # of two lines about the same, the last one holds

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        command = [str(self.programs / "postgres"), "-D", str(self.data)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                user=self._user,
                group=self._user,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call into libc, no lock
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        until = time.monotonic() + START_S
        while not self._ready():
            if (self._process is not None and self._process.poll() is not None) or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL does not start: {self._log.read_text()[-2_000:]}")
            time.sleep(0.02)

    def _ready(self) -> bool:
        command = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: SIGQUIT at once (it recovers when started again), SIGINT in order, SIGKILL as a crash. Idempotent."""
        if self._process is not None:
            if how == signal.SIGKILL:
                self._kill_children()
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def _kill_children(self) -> None:
        """As when the machine fails: first all that work. If they saw their parent die, commits that wait for a standby would
        wait no longer, and be seen by those that are still there."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self.send(signal.SIGKILL)

    def send(self, what: signal.Signals) -> None:
        """Send a signal to all that work for it, not to the one that takes connections: SIGSTOP makes them hang, SIGCONT go on."""
        assert self._process is not None
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), what)

    def promote(self) -> None:
        """A standby becomes a primary; returns when it is one."""
        self.run("pg_ctl", "promote", "-D", str(self.data), "-w", "-t", str(int(START_S)))

    @property
    def pid(self) -> int:
        """Of the running server's first process."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://headrace@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the server's user."""
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd="/", user=self._user, group=self._user
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Pair:
    """A primary and its synchronous standby: what the one has answered the other has, too. Context manager.

    Both keep their ports, whichever of them is the primary. As long as there is no standby, no commit is answered.
    """

    def __init__(self, folder: Path, *, settings: Sequence[str] = ()) -> None:
        self._folder = folder
        self._settings = settings
        self._made = 0
        self.primary = self._make(None)
        self.standby: Server | None = None

    @property
    def url(self) -> str:
        """Of both: whoever connects finds the primary."""
        assert self.standby is not None
        first, second = sorted([self.primary.port, self.standby.port])
        return f"postgresql://headrace@127.0.0.1:{first},127.0.0.1:{second}/postgres?target_session_attrs=read-write"

    def build_standby(self, *, port: int | None = None) -> None:
        """Make a standby from the primary's copy, in a folder of its own, and wait until commits wait for it."""
        self.standby = self._make(self.primary, port)
        self.standby.start()

    def fail_over(self) -> None:
        """The primary crashes, for good; the standby takes its place, and a new one is built."""
        old, new = self.primary, self.standby
        assert new is not None
        old.stop(signal.SIGKILL)
        self.promote()
        shutil.rmtree(old.data.parent)
        self.build_standby(port=old.port)

    def promote(self) -> Server:
        """The standby becomes the primary; returns the old one, as it is."""
        assert self.standby is not None
        old, self.primary, self.standby = self.primary, self.standby, None
        self.primary.promote()
        return old

    def _make(self, copy_of: Server | None, port: int | None = None) -> Server:
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        return Server(
            folder, settings=[*self._settings, f"synchronous_standby_names = '{STANDBY}'"], copy_of=copy_of, port=port
        )

    def __enter__(self) -> Self:
        self.primary.start()
        self.build_standby()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self.standby, self.primary):
            if one is not None:
                one.stop()


class Databases:
    """Databases with a store's tables, one a folder. Those whose stores are gone are used again, emptied.

    Attributes:
        made: how many there are.
        keeper: of the connections to them.
    """

    def __init__(self, server: Server, *, prefix: str = "store") -> None:
        from headrace.testing.kept import Keeper  # noqa: PLC0415 - needs an extra

        self.server = server
        self.keeper = Keeper()
        self.made = 0
        self._prefix = prefix
        self._emptying = ""
        self._of: dict[Path, str] = {}
        self._stores: Counter[Path] = Counter()  # how many live objects use a folder's database

    def of(self, folder: Path) -> str:
        """The URL of a folder's database; a new folder gets an empty one."""
        name = self._of.get(folder)
        if name is None:
            name = self._of[folder] = self._used_again() or self._make()
        return self.server.url(name)

    def open(self, folder: Path, clock: Clock | None, *, cooldowns: bool) -> PostgresStore:
        """A store in a folder's database, on connections that others had before; `clock` None: the database's. It must not be
        attached to a broker: those may be closed by one thread while another waits at them."""
        from headrace.queue.store.postgres.opening import open_store  # noqa: PLC0415 - needs an extra

        store, _ = open_store(self.of(folder), clock=clock, cooldowns=cooldowns, connects=self.keeper.connect)
        self.keep_for(store, folder)
        return store

    def keep_for(self, store: object, folder: Path) -> None:
        """While `store` lives, the folder's database is not given to another."""
        self._stores[folder] += 1
        weakref.finalize(store, self._stores.subtract, [folder])

    def _used_again(self) -> str | None:
        folder = self._unused()
        if folder is None and self._of:
            gc.collect()  # a fifth of what a new database costs; but most stores go as soon as nobody refers to them
            folder = self._unused()
        if folder is None:
            return None
        name = self._of.pop(folder)
        return name if self._empty(name) else None

    def _unused(self) -> Path | None:
        return next((folder for folder in self._of if not self._stores[folder]), None)

    def _make(self) -> str:
        """A copy of one that is made first: as files, which takes 20 ms of the machine; to make tables takes 200."""
        import psycopg  # noqa: PLC0415 - an extra

        template = f"{self._prefix}_template"
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            if not self.made:
                connection.execute(f"CREATE DATABASE {template}")
                self._emptying = _prepared(self.server.url(template))
            self.made += 1
            name = f"{self._prefix}_{self.made}"
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        with psycopg.connect(self.server.url(name), autocommit=True) as connection:
            connection.execute("UPDATE headrace.meta SET secret = %s", (os.urandom(32),))
        return name

    def _empty(self, name: str) -> bool:
        """Whether it could be done: a test may have left a table locked, or none."""
        import psycopg  # noqa: PLC0415 - an extra

        try:
            with self.keeper.connect(self.server.url(name)) as connection:
                # A test may have set what connections begin with.
                connection.execute(f"ALTER DATABASE {name} RESET ALL")
                with connection.statements.together():
                    connection.statements.execute(self._emptying)
        except psycopg.Error:
            return False
        return True


def _prepared(url: str) -> str:
    """Make the tables. Returns the statement that empties them."""
    import psycopg  # noqa: PLC0415 - an extra

    from headrace.queue.store.postgres.schema import migrate  # noqa: PLC0415 - as above

    with psycopg.connect(url, autocommit=True) as connection:
        migrate(connection)
        ((text,),) = connection.execute(_EMPTYING).fetchall()
        return str(text)


# One statement that is planned once: what empties all tables, but for those that hold a row always.
_EMPTYING: Final = """
SELECT 'WITH ' || string_agg(format('%1$I AS (DELETE FROM headrace.%1$I)', tablename), ', ')
    || ' UPDATE headrace.directory SET version = version + 1'
FROM pg_tables WHERE schemaname = 'headrace' AND tablename NOT IN ('meta', 'directory', 'clock')
"""


@functools.cache
def server() -> Server:
    """The server of this process, started when first asked for; it ends with the process."""
    folder = tempfile.mkdtemp(prefix="headrace-pg-")  # on a disk: without syncs it is as fast, and takes no memory
    made = Server(Path(folder))
    made.start()

    def end() -> None:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return made


@functools.cache
def databases() -> Databases:
    """The databases of `server()`."""
    made = Databases(server())
    atexit.register(made.keeper.close)
    return made


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
