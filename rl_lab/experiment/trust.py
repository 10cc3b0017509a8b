"""Which run directories this user made: a file in them is signed with a key that never leaves the machine.

The signature covers the agent, the environment, and the place of the modules that they name. A run directory from somebody else has no
valid signature, so its modules are not imported.
"""

import hashlib
import hmac
import importlib.util
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from rl_lab.experiment.faults import Fault
from rl_lab.experiment.files import read_file
from rl_lab.native import cache
from rl_lab.serialization import create_file

SIGNATURE = "origin"
"""Name of the signature's file in a run directory."""
_KEY_BYTES = 32


def foreign_modules(config: dict[str, Any]) -> list[str]:
    """The modules outside this package that ``module:Class`` of an agent and ``module:id`` of an environment name."""
    agent, env = str(config.get("agent", "")), str(config.get("env", ""))
    named = [*([agent.partition(":")[0]] if ":" in agent else []), *([env.rpartition(":")[0]] if ":" in env else [])]
    return [module for module in named if module.partition(".")[0] != "rl_lab"]


def require_harmless(config: dict[str, Any], source: Path) -> None:
    """Raise Fault if a configuration file of somebody else names a module that would have to be imported.

    Importing a module runs its code. Modules that the program has imported already, and those of this user's own runs, do no harm.
    """
    unknown = [module for module in foreign_modules(config) if module not in sys.modules]
    if unknown and not _is_signed(config, source.with_name(SIGNATURE)):
        raise Fault(
            f"{source} names the module {unknown[0]!r}, and importing it runs its code: add --trust if you trust this file"
        )


def sign(config: dict[str, Any], folder: Path) -> None:
    """Note in a run directory that this user made it, if its files name modules. Raises OSError."""
    key = _key(create=True) if foreign_modules(config) else None
    if key is not None:
        create_file(folder / SIGNATURE, [_signature(config, key)])


def _is_signed(config: dict[str, Any], file: Path) -> bool:
    key = _key(create=False)
    try:
        return key is not None and hmac.compare_digest(read_file(file, 100), _signature(config, key))
    except OSError:
        return False


def _signature(config: dict[str, Any], key: bytes) -> bytes:
    """The signature of the names in a configuration and of the places where Python finds their modules."""
    places = [_place_of(module) for module in foreign_modules(config)]
    content = json.dumps([config.get("agent"), config.get("env"), places])
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest().encode()


def _place_of(module: str) -> str:
    """The file of the package that holds a module; it is found without importing anything."""
    top = module.partition(".")[0]
    if "" not in sys.path:
        sys.path.insert(0, "")  # as the import will
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        found = None
    return "" if found is None else os.path.realpath(found.origin or "")


def _key(create: bool) -> bytes | None:
    """This user's key, in the private directory of the cache; None if there is none."""
    place = cache.directory()
    if place is None or place.parent != Path(os.path.realpath(cache.base_directory())):
        return None  # a temporary directory keeps nothing
    file = place.parent / "key"
    try:
        if create and not file.exists():
            try:
                create_file(file, [secrets.token_bytes(_KEY_BYTES)])
                file.chmod(0o600)
            except FileExistsError:
                pass  # another process made it just now
        key = read_file(file, _KEY_BYTES)
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None
