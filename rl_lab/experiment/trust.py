"""Import the modules that a run directory names only if this user made the directory: importing a module runs its code.

A run directory that names modules holds a signature, made with a key that never leaves this machine. The signature covers the agent,
the environment with its arguments and wrappers, and the files of the modules. A run directory from somebody else has no valid
signature, so its modules are not imported.
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

import gymnasium as gym
from gymnasium.vector import VectorEnv

from rl_lab.experiment.faults import Fault
from rl_lab.experiment.files import read_file
from rl_lab.experiment.finding import attribute, full_id, module_of_namespace
from rl_lab.experiment.suggestions import package_of
from rl_lab.native import cache
from rl_lab.serialization import create_file

SIGNATURE = "origin"
"""Name of the file in a run directory that holds the signature."""
_KEY_BYTES = 32


def foreign_modules(config: dict[str, Any]) -> list[str]:
    """Modules of other authors whose code a configuration would run.

    A configuration names a module by ``module:Class`` for an agent, by ``module:id`` or ``module:Class`` for an environment, by the
    namespace of an id that is not registered, or by a wrapper. Agents of this package, registered environments, environments of known
    packages and harmless wrappers of Gymnasium are not included.
    """
    agent = str(config.get("agent", ""))
    env = str(config.get("env", ""))
    named: list[str] = []
    if ":" in agent and agent.partition(".")[0].partition(":")[0] != "rl_lab":
        named.append(agent.partition(":")[0])
    module, _, name = env.rpartition(":")
    if module and not (module.partition(".")[0] == "rl_lab" and _is_class(module, name, gym.Env, VectorEnv)):
        named.append(module)
    if not module and "/" in env and env not in gym.registry and package_of(env) is None:
        named += [found for found in [module_of_namespace(env.partition("/")[0])] if found]
    return named + [text.partition(":")[0] for text in wrappers_of(config) if not _only_wraps(text)]


def wrappers_of(config: dict[str, Any]) -> list[str]:
    """Wrappers in a configuration. Leaves out values for which `wrapping.as_wrappers` raises Fault before it imports a module."""
    given = config.get("wrapper", [])
    listed = given if isinstance(given, (list, tuple)) else [given]
    return [text for text in listed if isinstance(text, str) and text.isprintable()]


def _only_wraps(text: str) -> bool:
    """Whether a wrapper is Gymnasium's and neither writes files nor opens windows."""
    module, _, rest = text.partition(":")
    name = rest.partition(":")[0]
    writes = ("Record", "Render", "Human")
    return module == "gymnasium.wrappers" and _is_class(module, name, gym.Wrapper) and not any(word in name for word in writes)


def _is_class(module: str, name: str, *bases: type) -> bool:
    """Whether an already imported module has a class of this name that is derived from one of ``bases``."""
    found = attribute(sys.modules.get(module), name)
    return isinstance(found, type) and issubclass(found, bases)


def require_harmless(config: dict[str, Any], source: Path) -> None:
    """Raise Fault if the configuration in the file ``source`` would run code of unknown origin.

    Code is known if the file's run directory is signed by this user, or if it is an environment or a wrapper in a module that the program
    has imported already.
    """
    unknown = unknown_modules(config)
    if unknown and not _is_signed(config, source.with_name(SIGNATURE)):
        raise Fault(
            f"{source} names the module {unknown[0]!r}, and importing it runs its code: add --trust if you trust this file"
        )


def unknown_modules(config: dict[str, Any]) -> list[str]:
    """Modules of `foreign_modules` that are not imported yet, or whose object that would be called is no environment and no wrapper."""
    env = str(config.get("env", ""))
    module, _, name = env.rpartition(":")
    imported = set(sys.modules)
    if module in imported and name not in gym.registry and full_id(name) not in gym.registry:
        imported -= set() if _is_class(module, name, gym.Env, VectorEnv) else {module}
    for text in wrappers_of(config):
        own, _, rest = text.partition(":")
        if own in imported and not (_only_wraps(text) or _is_class(own, rest.partition(":")[0], gym.Wrapper)):
            imported.discard(own)
        if own.partition(".")[0] == "gymnasium" and not _only_wraps(text):
            imported.discard(own)
    named = [module for module in foreign_modules(config) if module not in imported]
    # names that are not identifiers cannot be imported
    return [module for module in named if all(part.isidentifier() for part in module.split("."))]


def sign(config: dict[str, Any], folder: Path) -> None:
    """Write the signature of this user into a run directory, if its configuration names modules. Raises OSError."""
    key = _key(create=True) if foreign_modules(config) else None
    if key is not None:
        create_file(folder / SIGNATURE, [_signature(config, key)])


def _is_signed(config: dict[str, Any], file: Path) -> bool:
    """Whether ``file`` holds this user's signature of a configuration."""
    key = _key(create=False)
    try:
        return key is not None and hmac.compare_digest(read_file(file, 100), _signature(config, key))
    except OSError:
        return False


def _signature(config: dict[str, Any], key: bytes) -> bytes:
    """Sign the names in a configuration and the files in which Python finds their modules."""
    places = [_place_of(module) for module in foreign_modules(config)]
    wrappers = wrappers_of(config)
    called = [wrappers, [str(text) for text in config.get("env_kwargs", [])]] if wrappers or config.get("env_kwargs") else []
    content = json.dumps([config.get("agent"), config.get("env"), places, *called])
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest().encode()


def _place_of(module: str) -> str:
    """Path of the file of a module's top-level package, found without importing it; empty if there is none."""
    top = module.partition(".")[0]
    if "" not in sys.path:
        sys.path.insert(0, "")  # as the import will
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        found = None
    return "" if found is None else os.path.realpath(found.origin or "")


def _key(create: bool) -> bytes | None:
    """Read this user's key from the private directory of the cache; None if there is none. ``create`` makes a missing key."""
    place = cache.directory()
    if place is None or place.parent != Path(os.path.realpath(cache.base_directory())):
        return None  # the cache is in a temporary directory, so a key would be lost
    file = place.parent / "key"
    try:
        if create and not file.exists():
            try:
                create_file(file, [secrets.token_bytes(_KEY_BYTES)])
                file.chmod(0o600)
            except FileExistsError:
                pass  # another process has made the key since
        key = read_file(file, _KEY_BYTES)
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None
