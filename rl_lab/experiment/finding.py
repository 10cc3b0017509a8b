"""Find the specification of an environment: by id, by ``module:Id`` or ``module:Class``, or in a package that registers it on request."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import VectorEnv

from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.experiment.faults import Fault, first_line
from rl_lab.experiment.suggestions import nearest, nearest_environment, package_of

PLUGINS = "gymnasium.envs"
"""Group of entry points in which packages announce their environments. Gymnasium itself ignores the group since version 1.0."""
_loaded: set[str] = set()  # values of the entry points that were called already


def own_id(env_id: str) -> str:
    """Return the id that the lab's twin of an environment has, or would have: ``rl_lab/MinAtar-Breakout-v1`` for MinAtar/Breakout-v1."""
    return env_id if env_id.startswith("rl_lab/") else f"rl_lab/{env_id.replace('/', '-')}"


def full_id(env_id: str) -> str:
    """Return ``rl_lab/<env_id>`` if only that id is registered, else ``env_id``: the lab's environments may be named without prefix.

    An id with a namespace is returned as it is: its package may register it later. Raises Fault if it is not a str.
    """
    if not isinstance(env_id, str):
        raise Fault(
            f"a run names its environment, by an id such as CartPole-v1 or by module:Class, got {env_id!r}: give it to the agent itself, "
            "as in PPO(env).learn(50_000)"
        )
    own = own_id(env_id)
    return own if env_id not in gym.registry and "/" not in env_id and own in gym.registry else env_id


def find_environment(env_id: str) -> EnvSpec:
    """Return the specification of a registered environment, or make one for the class or function ``module:Class``.

    If the id is not registered yet, the package that its namespace or prefix names is imported and asked to register it. If that
    package is missing and the lab has a twin of the environment, the specification of the twin is returned. Raises Fault if the id is
    unknown, naming the nearest id or the command that installs its package; if a module cannot be imported; or if a package that the
    environment needs is missing.
    """
    if not isinstance(env_id, str) or not env_id:
        raise Fault(f"an environment is named by its id, such as CartPole-v1, not {env_id!r}")
    module, _, name = env_id.rpartition(":")
    if module:
        return _find_in_module(module, name, env_id)
    try:
        if _is_out_of_reach(name) and own_id(name) in gym.registry:
            return gym.registry[own_id(name)]
        if name not in gym.registry:
            _ask_packages(name)
        return gym.spec(name)
    except gym.error.Error as error:
        detail = nearest_environment(env_id, gym.registry) or f": {first_line(error).partition(': ')[2]}"
        raise Fault(f"unknown environment {env_id!r}{detail}") from None
    except ImportError as error:
        raise Fault(f"environment {env_id!r} needs a package that is not installed: {error}") from None


def _is_out_of_reach(name: str) -> bool:
    """Whether an environment needs a package that is not installed: the one that registers it, or Box2D for some of Gymnasium's own."""
    spec = gym.registry.get(name)
    if spec is None:
        package = package_of(name)
        return package is not None and not package.is_installed()
    return str(spec.entry_point).startswith("gymnasium.envs.box2d") and importlib.util.find_spec("Box2D") is None


def _find_in_module(module: str, name: str, env_id: str) -> EnvSpec:
    """Import a module and return its environment ``name``: an id that the module registers, or a class or function in it."""
    source = import_beside(module, f"environment {env_id!r}")
    if name not in gym.registry:
        found = attribute(source, name)
        if found is not None:
            return spec_of_class(found, name, env_id)
        _call_registration(source)
    own = full_id(name)
    if own in gym.registry:
        return gym.registry[own]
    classes = [key for key, value in vars(source).items() if _is_environment(value)]
    detail = (
        nearest_environment(env_id, [known for known, spec in gym.registry.items() if _is_of_module(spec, module)])
        or nearest(name, classes)
        or nearest_environment(env_id, gym.registry)
        or f": {module} has no class or function {name!r} and registers no such id"
    )
    raise Fault(f"unknown environment {env_id!r}{detail}")


def _is_of_module(spec: EnvSpec, module: str) -> bool:
    """Whether the code that makes the environment is in this module or in a module below it."""
    maker = spec.entry_point
    place = maker.partition(":")[0] if isinstance(maker, str) else getattr(maker, "__module__", "")  # a partial has no module
    return place == module or place.startswith(f"{module}.")


def attribute(source: object, path: str) -> Any:
    """Look up ``Class`` or ``Outer.Inner`` in a module; None if there is no such attribute.

    Raises Fault if the module imports the attribute only now, from a package that is not installed.
    """
    for part in path.split("."):
        try:
            source = getattr(source, part, None)
        except ImportError as error:
            raise Fault(f"{path} needs a package that is not installed: {first_line(error)}") from None
    return source


def _is_environment(value: object) -> bool:
    """Whether a value is a class of environments, single or vector, that is not Gymnasium's own and not a wrapper."""
    if not isinstance(value, type) or value.__module__.startswith("gymnasium"):
        return False
    return issubclass(value, (gym.Env, VectorEnv)) and not issubclass(value, gym.Wrapper)


def _needs_arguments(function: Callable[..., Any]) -> bool:
    """Whether a call of a function or a class needs arguments."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(p.default is p.empty and p.kind in kinds for p in inspect.signature(function).parameters.values())


def spec_of_class(found: object, name: str, shown: str) -> EnvSpec:
    """Make a specification with the id ``name``, without registering it, for a class or function that makes environments.

    A class of vector environments becomes a vector entry point. Raises Fault, beginning with ``shown``, if ``found`` is not callable or
    is a wrapper.
    """
    if not callable(found):
        raise Fault(f"{shown} is {found!r}, not a class of environments or a function that makes one")
    if isinstance(found, type) and issubclass(found, gym.Wrapper) and _needs_arguments(found):
        raise Fault(f"{shown} is a wrapper: name the environment with --env and the wrapper with --wrapper {shown}")
    if isinstance(found, type) and issubclass(found, VectorEnv):
        return EnvSpec(id=name, vector_entry_point=found)  # type: ignore[arg-type]
    return EnvSpec(id=name, entry_point=found)  # type: ignore[arg-type]


def import_beside(module: str, asked_by: str) -> ModuleType:
    """Import a module, which may be a file in the working directory, as ``python -m`` would.

    Raises Fault, beginning with ``asked_by``, if the module does not exist, raises an exception or calls `sys.exit`.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise Fault(f"{asked_by} cannot be imported: {module!r} is not the name of a module")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:  # whatever the module's own code raises
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        detail = f"there is no module {module!r} here or among the installed ones" if missing else first_line(error)
        raise Fault(f"{asked_by} cannot be imported: {detail}") from error


# --- packages that register their environments late --------------------------------------------------------------------


def plugins_for(env_id: str) -> list[EntryPoint]:
    """Entry points that may register an id: those with the name of its namespace, or all of them if none has that name."""
    namespace = env_id.partition("/")[0] if "/" in env_id else ""
    found = [entry for entry in entry_points(group=PLUGINS) if entry.value != "rl_lab.envs:register"]
    named = [entry for entry in found if namespace and entry.name.lower() == namespace.lower()]
    return named or found


def _ask_packages(env_id: str) -> None:
    """Let installed packages register their environments until ``env_id`` is registered.

    Asks the entry points of `plugins_for`, then the package of `suggestions.PACKAGES` that matches the id, then the module with the name
    of the id's namespace. Raises Fault if a package that the id names fails.
    """
    for entry in plugins_for(env_id):
        if entry.value in _loaded:
            continue
        _loaded.add(entry.value)
        before = set(gym.registry)
        try:
            register = entry.load()
            if callable(register):
                register()
        except (Exception, SystemExit) as error:
            if entry.name.lower() == env_id.partition("/")[0].lower():
                raise Fault(
                    f"environment {env_id!r}: the package that announces it cannot register it: {first_line(error)}"
                ) from error
            continue  # the id does not name this package, so its failure must not stop the search
        if not entry.name.startswith("__"):  # as in Gymnasium 0.29, ids without a namespace get the name of the entry point
            for new in set(gym.registry) - before:
                if "/" not in new:
                    gym.registry.setdefault(
                        f"{entry.name}/{new}",
                        replace(gym.registry[new], id=f"{entry.name}/{new}", kwargs=gym.registry[new].kwargs),
                    )
        if env_id in gym.registry:
            return
    if env_id not in gym.registry:
        package = package_of(env_id)
        if package is not None and package.is_installed():
            _call_registration(import_beside(package.module, f"environment {env_id!r}"), env_id)
    namespace = env_id.partition("/")[0]
    if env_id not in gym.registry and "/" in env_id and module_of_namespace(namespace):
        _call_registration(import_beside(module_of_namespace(namespace), f"environment {env_id!r}"), env_id)


def module_of_namespace(namespace: str) -> str:
    """Name of the module that a namespace of ids names, such as tinyworlds for TinyWorlds or tiny_worlds for tiny-worlds; else empty."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    for name in (namespace, namespace.lower(), namespace.replace("-", "_"), namespace.lower().replace("-", "_")):
        if not name.isidentifier():
            continue
        try:
            if name in sys.modules or find_spec(name) is not None:
                return name
        except (ImportError, ValueError):
            continue  # a finder of modules failed, so the module cannot be imported
    return ""


def _call_registration(source: ModuleType, env_id: str = "") -> None:
    """Call the functions of a module that register environments and need no arguments, such as ``register_envs``.

    Does nothing if ``env_id`` is registered already: many packages register their environments when they are imported.
    """
    if env_id and env_id in gym.registry:
        return
    for name, function in list(vars(source).items()):
        plain = name.strip("_").lower()
        if not (plain.startswith("register") and plain.rstrip("s").endswith(("env", "environment"))):
            continue
        if not inspect.isfunction(function) or _needs_arguments(function):
            continue
        if function.__module__.partition(".")[0] == source.__name__.partition(".")[0]:
            function()


# --- native twins ------------------------------------------------------------------------------------------------------


def native_class(env_id: str) -> type[NativeVectorEnv] | None:
    """Class of the native vector environment of an id: the lab's own environment, or the twin of another; None without one."""
    spec = gym.registry.get(own_id(env_id))
    entry = spec and spec.vector_entry_point
    found = load_env_creator(entry) if isinstance(entry, str) else entry
    return found if isinstance(found, type) and issubclass(found, NativeVectorEnv) else None


def creator_of(spec: EnvSpec, vector: bool = False) -> Callable[..., Any]:
    """Class or function that makes the environments of a specification. Raises Fault if it cannot be imported.

    ``vector`` asks for the vector entry point, which is also used if there is no other.
    """
    entry = spec.vector_entry_point if vector or spec.entry_point is None else spec.entry_point
    if callable(entry):
        return entry
    module, _, _ = str(entry).partition(":")
    try:
        return load_env_creator(str(entry))
    except AttributeError as error:
        raise Fault(f"environment {spec.id!r} is registered with {entry}, which does not exist: {first_line(error)}") from None
    except gym.error.DependencyNotInstalled as error:
        raise Fault(f"environment {spec.id!r} needs a package that is not installed: {error}") from None
    except ImportError as error:
        hint = f"environment {spec.id!r} needs a package that is not installed"
        raise Fault(f"{hint}: {first_line(error)}" if error.name != module else f"{hint}: {module}") from None


def parameters_of(function: Callable[..., object]) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of a function or class by name; None for one without a signature, which checks its arguments when it is called."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # it may be written in C
        return None


def require_switches(parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any], asked_by: str) -> None:
    """Raise Fault if a parameter that is True or False by default gets a text: any text counts as True, also "no"."""
    for name, value in arguments.items():
        default = parameters[name].default if name in parameters else None
        if isinstance(default, bool) and isinstance(value, str):
            raise Fault(f"{asked_by} {name} takes true or false, not {value!r}")


def check_arguments(spec: EnvSpec, arguments: Mapping[str, Any]) -> None:
    """Raise Fault if the environment's class does not take one of the arguments, or takes true or false where a text is given."""
    if not arguments:
        return
    parameters = parameters_of(creator_of(spec))
    if parameters is None:
        return
    require_switches(parameters, arguments, "--env-kwargs")
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known += ["max_episode_steps", "disable_env_checker"]  # arguments of gymnasium.make itself
    for name in arguments:
        if name not in known:
            raise Fault(f"--env-kwargs: {spec.id} takes no argument {name!r}{nearest(name, known)}")
