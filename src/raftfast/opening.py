"""A node's folder as it is opened: what is stored there becomes sessions and a state machine's state.

Floor 4, a part of the node. Blocking: it runs in worker threads. What becomes of it then is `node`'s affair.
"""

from __future__ import annotations

from .cluster.sessions import Sessions
from .cluster.snapshot import split_sessions
from .config import Config
from .errors import SnapshotError, StorageError
from .member import Origin
from .records import Address, NodesConf
from .statemachine import StateMachine
from .storage import AppFile, Loaded, Storage

__all__ = ["open_folder", "restore_state"]


def open_folder(directory: str, state_machine: StateMachine | None, config: Config) -> tuple[Storage, Loaded, Sessions]:
    """Locks and loads a folder, and restores what it holds. Blocking.

    Raises StorageError: the folder is locked, damaged or not writable, or the state machine refuses what is stored.
    Nothing has changed then, and the folder is free again.
    """
    storage, loaded = Storage.open(directory, check=lambda conf: _check(directory, conf))
    try:
        return storage, loaded, _restored(storage, loaded, state_machine, config)
    except BaseException:
        storage.close()
        raise


def _check(directory: str, conf: NodesConf) -> None:
    """Raises StorageError for a file that says what no node can be: nothing of it has been rewritten yet."""
    try:
        Origin.of_file(conf, Address("", 0, 0, "", {}))  # what it announces plays no part
    except StorageError as error:
        raise StorageError(f"{directory}: {error}; the file was left as it is") from error


def _restored(storage: Storage, loaded: Loaded, state_machine: StateMachine | None, config: Config) -> Sessions:
    empty = Sessions(config.session_window, config.session_result_bytes, config.max_sessions)
    if loaded.app is None:
        return empty
    try:
        return restore_state(storage, loaded.app, state_machine, empty, config)
    except SnapshotError as error:
        raise StorageError(f"{storage.app_path(loaded.app)} is not taken: {error}") from error


def restore_state(
    storage: Storage, app: AppFile | None, state_machine: StateMachine | None, empty: Sessions, config: Config
) -> Sessions:
    """Restores the state machine from an app state file (None: an empty state). Returns the session table. Blocking.

    Raises SnapshotError where the bytes, or the state machine, refuse; then the state machine's old state stands.
    StorageError and MemoryError pass through.
    """
    try:
        if app is None:
            if state_machine is not None:
                state_machine.restore(())
            return empty
        if state_machine is None:
            raise SnapshotError("it holds a state machine's state, and this node embeds none")
        table, rest = split_sessions(storage.read_app(app))
        sessions = Sessions.decode(table, config.session_window, config.session_result_bytes, config.max_sessions)
        state_machine.restore(rest)
        return sessions
    except (SnapshotError, StorageError, MemoryError):
        raise
    except Exception as error:
        raise SnapshotError(f"the state machine refuses it: {error!r}") from error
