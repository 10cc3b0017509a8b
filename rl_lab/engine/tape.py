"""The tape: what was computed from what, the modes that switch it off, and the walk back through it.

Nothing here knows of arrays. A value that takes part has ``needs_grad``, ``node`` (None for a leaf) and ``storage.version``;
gradients are added with ``+``.
"""

import functools
import heapq
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from rl_lab.engine.errors import AnomalyError, StateError
from rl_lab.engine.launch import recorder, user_line

Function = TypeVar("Function", bound=Callable)


class Modes(threading.local):
    """What this thread records on the tape."""

    grad = True


modes = Modes()
anomaly = ""  # "lines" if nodes remember the user's line, "nan" if backward also looks for NaN; of all threads
next_sequence = itertools.count(1).__next__
_deliver = threading.Lock()  # several threads may add to one leaf


class LossGuard(Protocol):
    """What is told of every walk back through a graph; see `rl_lab.optim.guard`."""

    def note(self, roots: Sequence[Any], leaves: Mapping[int, Any]) -> None:
        """Gradients of ``roots`` were computed for ``leaves``, which are found by their id."""
        ...

    def owns(self, parameters: Sequence[Any]) -> bool:
        """Whether one of these leaves is guarded."""
        ...


_guards: dict[int, "weakref.ref[Any]"] = {}


def add_guard(guard: LossGuard) -> None:
    """Tell ``guard`` of every walk back through a graph, as long as it lives."""
    key = id(guard)
    _guards[key] = weakref.ref(guard, lambda _: _guards.pop(key, None))


def guards() -> list[Any]:
    """The guards of this process."""
    return [guard for reference in list(_guards.values()) if (guard := reference()) is not None] if _guards else []


Rule = Callable[[Any, "Node"], Any]
"""A gradient rule: from the gradient of a node's value to that of its input, or a tuple of those of its inputs (None for none)."""


class Node:
    """One operation whose value needs a gradient.

    ``inputs`` are nodes, leaves, or None where no gradient goes. ``rule`` computes the inputs' gradients from that of the value,
    the saved values and the ``context`` (shapes, axes). Later nodes have higher ``sequence`` numbers, which is all the order that
    the walk back needs.
    """

    __slots__ = (
        "_saved",
        "context",
        "hooks",
        "inputs",
        "line",
        "own",
        "retained",
        "rule",
        "sequence",
        "shape",
        "versions",
        "wanted",
    )

    def __init__(self, rule: Rule, inputs: tuple, saved: tuple, context: Any, shape: tuple[int, ...]):
        self.sequence = next_sequence()
        self.rule, self.inputs, self.context, self.shape = rule, inputs, context, shape
        self._saved: tuple | None = saved
        self.versions = tuple([value.storage.version if value is not None else 0 for value in saved]) if saved else ()
        self.own = -1  # which saved value is the node's own
        self.hooks: dict[int, Callable] | None = None
        self.retained: Callable | None = None
        self.wanted: tuple[bool, ...] | None = None  # during a walk to chosen targets: the inputs that lead to one
        if anomaly:
            self.line = user_line()

    @property
    def name(self) -> str:
        return self.rule.__name__.strip("_").removesuffix("_rule")

    def wants(self, position: int) -> bool:
        """Whether a gradient goes to this input; rules skip what nobody wants."""
        return self.inputs[position] is not None and (self.wanted is None or self.wanted[position])

    @property
    def saved(self) -> tuple:
        """The saved values. StateError when they were freed by an earlier backward, or changed in place since."""
        saved = self._saved
        if saved is None:
            raise StateError(
                f"trying to run backward through the graph a second time: the saved values of {self.name} were freed; "
                "pass retain_graph=True to the first backward"
            )
        for value, version in zip(saved, self.versions, strict=True):
            if value is not None and value.storage.version != version:
                raise StateError(
                    f"a value that {self.name} saved for its gradient, of shape {tuple(value.shape)}, has been modified by an "
                    f"inplace operation: it is at version {value.storage.version}, expected {version}"
                )
        if self.own >= 0 and modes.grad:
            saved = (*saved[: self.own], saved[self.own].with_node(self), *saved[self.own + 1 :])
        return saved

    def move_own(self, place: Any) -> None:
        """The node's own value was written to ``place``: that is what it keeps, and whose later change is an error."""
        if self._saved:
            self._saved = (*self._saved[: self.own], place.with_node(None), *self._saved[self.own + 1 :])
            self.versions = (*self.versions[: self.own], place.storage.version, *self.versions[self.own + 1 :])

    def take_retained(self) -> Callable | None:
        """Who keeps the gradient of the value: when that is written to in place, it is the new content's that is kept."""
        retained, self.retained = self.retained, None
        return retained

    def free(self) -> None:
        if self._saved:
            self._saved = None

    def __repr__(self) -> str:
        return f"<{self.name} node>"


def _edge_of_view(x: Any) -> Any:
    node = x.grad_node()  # first: it looks at the base
    return (node or x) if x.needs_grad else None


def attach(value: Any, rule: Rule, inputs: tuple, saved: tuple = (), context: Any = None) -> Any:
    """Put ``value`` on the tape as computed from ``inputs``, if recording is on and one of them needs a gradient; return it.

    A value that saves itself stands in ``saved`` as ``value`` and is kept without its node, so that a graph has no cycles and is
    freed by reference counting.
    """
    if modes.grad:
        for x in inputs:
            if x.needs_grad or (x.base is not None and x.requires_grad):  # a view's flag is as old as its last look at its base
                break
        else:
            return value
        edges = tuple([(x.node or x if x.needs_grad else None) if x.base is None else _edge_of_view(x) for x in inputs])
        own = -1
        for i, x in enumerate(saved):
            if x is value:
                own, saved = i, (*saved[:i], value.with_node(None), *saved[i + 1 :])
        node = Node(rule, edges, saved, context, value.shape)
        node.own = own
        value.node = node
        value.needs_grad = True
    return value


# --- modes -----------------------------------------------------------------------------------------------------------


class _GradMode:
    """Base of `no_grad`, `enable_grad` and `set_grad_enabled`: a context manager, and a decorator of functions and generators."""

    __slots__ = ("_previous", "mode")

    def __init__(self, mode: bool):
        self.mode = mode
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(modes.grad)
        modes.grad = self.mode

    def __exit__(self, *exception: object) -> None:
        modes.grad = self._previous.pop()

    def __call__(self, function: Function) -> Function:
        mode = self.mode
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def resume(*args, **kwargs):
                # the mode holds while the generator runs and not while it waits at a yield
                generator, send = function(*args, **kwargs), None
                try:
                    while True:
                        with _GradMode(mode):
                            try:
                                item = generator.send(send)
                            except StopIteration as stop:
                                return stop.value
                        send = yield item
                finally:
                    generator.close()

            return resume  # type: ignore[return-value]

        @functools.wraps(function)
        def run(*args, **kwargs):
            with _GradMode(mode):
                return function(*args, **kwargs)

        return run  # type: ignore[return-value]


class no_grad(_GradMode):
    """Nothing computed under it needs a gradient. Context manager or decorator; the mode belongs to the thread."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(False)

    def __new__(cls, function: Callable | None = None):  # `@no_grad` without parentheses, as PyTorch allows
        return super().__new__(cls) if function is None else _GradMode(False)(function)


class enable_grad(_GradMode):
    """Gradients are recorded under it, also inside `no_grad`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(True)

    def __new__(cls, function: Callable | None = None):
        return super().__new__(cls) if function is None else _GradMode(True)(function)


class inference_mode(_GradMode):
    """`no_grad` by PyTorch's newer name; ``inference_mode(False)`` is `enable_grad`."""

    __slots__ = ()

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode)

    def __new__(cls, mode: Any = True):
        return _GradMode(False)(mode) if callable(mode) else super().__new__(cls)


class set_grad_enabled(_GradMode):
    """Set the mode at once; as a context manager, restore it at the end."""

    __slots__ = ()

    def __init__(self, mode: bool):
        super().__init__(bool(mode))
        self._previous.append(modes.grad)
        modes.grad = self.mode

    def __enter__(self) -> None:
        modes.grad = self.mode

    def __call__(self, function: Function) -> Function:
        modes.grad = self._previous.pop()
        return super().__call__(function)


def is_grad_enabled() -> bool:
    return modes.grad


# --- the walk back ---------------------------------------------------------------------------------------------------


def walk(
    roots: Sequence[Any],
    gradients: Sequence[Any],
    retain: bool,
    create_graph: bool,
    wanted: Sequence[Any] | None = None,
    shown: list | None = None,
) -> dict[int, tuple[Any, Any]]:
    """Carry ``gradients`` from ``roots`` back to the leaves and return ``{id(leaf): (leaf, gradient)}``.

    With ``wanted`` (nodes or leaves) the result holds those only. Gradients that code outside the walk has seen (hooks, retained
    ones) are appended to ``shown``. Gradients of interior values live in this walk alone. Nodes are taken in descending sequence,
    so a node is reached after everything computed from it.
    """
    pending: dict[Node, Any] = {}
    leaves: dict[int, tuple[Any, Any]] = {}
    captured: dict[int, tuple[Any, Any]] = {}
    targets = None if wanted is None else {id(w) for w in wanted}
    useful = None if wanted is None else _leading_to(roots, targets or set())
    heap: list[tuple[int, Node]] = []

    def send(target: Any, gradient: Any, sender: Node | None = None) -> None:
        if type(target) is Node:
            if useful is not None and target not in useful:
                return
            if target in pending:
                pending[target] = pending[target] + gradient
            else:
                pending[target] = gradient
                heapq.heappush(heap, (-target.sequence, target))
        elif targets is None or id(target) in targets:
            if sender is not None and sender.sequence < target.regrown:
                target.check_sender(sender)
            key = id(target)
            leaves[key] = (target, leaves[key][1] + gradient if key in leaves else gradient)

    with set_grad_enabled(create_graph):
        for root, gradient in zip(roots, gradients, strict=True):
            send(root.grad_node() or root, gradient)
        while heap:
            node = heapq.heappop(heap)[1]
            gradient = pending.pop(node)
            if node.hooks:
                gradient = run_hooks(node.hooks, gradient, shown)
            if node.retained is not None:
                node.retained(gradient)
                if shown is not None:
                    shown.append(gradient)
            if targets is not None and id(node) in targets:
                captured[id(node)] = (node, gradient)
                if useful is not None and not any(_is_useful(edge, useful, targets) for edge in node.inputs):
                    continue
            if useful is not None:
                node.wanted = tuple([_is_useful(edge, useful, targets or set()) for edge in node.inputs])
            try:
                results = node.rule(gradient, node)
            finally:
                node.wanted = None
            if anomaly == "nan":
                _look_for_nan(node, results)
            if not retain:
                node.free()
            if type(results) is not tuple:
                results = (results,)
            for edge, result in zip(node.inputs, results, strict=True):
                if edge is not None and result is not None:
                    send(edge, result, node)
        if (recording := recorder()) is not None:
            recording.ran_backward = True
        for key, (leaf, gradient) in leaves.items():
            if leaf.hooks:
                leaves[key] = (leaf, run_hooks(leaf.hooks, gradient, shown))
        if _guards:
            for guard in guards():
                guard.note(roots, leaves)
    return {**leaves, **captured}


def _look_for_nan(node: Node, results: Any) -> None:
    """Raise AnomalyError if a gradient that an operation computed holds a NaN."""
    for number, result in enumerate(results if type(results) is tuple else (results,)):
        values = getattr(result, "_array", None)
        if values is None or node.inputs[number] is None:
            continue
        array = values(lasting=False)
        if (array != array).any():
            line = getattr(node, "line", None)
            where = f"computed at {line}" if line else "computed before detect_anomaly was entered"
            raise AnomalyError(f"the gradient of {node.name}, {where}, is NaN for its input {number}")


def set_anomaly(mode: str) -> str:
    """Switch the search for NaN: "nan", "lines" (only remember lines) or "" (off). Returns the mode before."""
    global anomaly
    before, anomaly = anomaly, mode
    return before


def _is_useful(edge: Any, useful: set[Node], targets: set[int]) -> bool:
    return edge is not None and (edge in useful if type(edge) is Node else id(edge) in targets)


def _leading_to(roots: Sequence[Any], targets: set[int]) -> set[Node]:
    """The nodes from which a target can be reached: the others need not be visited."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [root.grad_node() for root in roots]
    while stack:
        node = stack.pop()
        if type(node) is Node and node not in seen:
            seen.add(node)
            order.append(node)
            stack.extend(node.inputs)
    useful: set[Node] = set()
    for node in sorted(order, key=lambda n: n.sequence):
        if id(node) in targets or any(_is_useful(edge, useful, targets) for edge in node.inputs):
            useful.add(node)
    return useful


def run_hooks(hooks: dict[int, Callable], gradient: Any, shown: list | None) -> Any:
    for hook in list(hooks.values()):
        replacement = hook(gradient)
        if shown is not None:
            shown.append(gradient)
        if replacement is not None:
            gradient = replacement
    if shown is not None:
        shown.append(gradient)
    return gradient


def backward(roots: Sequence[Any], gradients: Sequence[Any], retain_graph: bool | None, create_graph: bool) -> None:
    """Add to ``grad`` of every leaf. If anything raises on the way, no leaf has changed."""
    retain = create_graph if retain_graph is None else retain_graph
    shown = list(gradients)
    results = walk(roots, gradients, retain, create_graph, shown=shown)
    taken = {id(gradient.storage) for gradient in shown}
    with _deliver, set_grad_enabled(create_graph):
        for leaf, gradient in results.values():
            leaf.accumulate(gradient, taken, create_graph)


class RemovableHandle:
    """What ``register_hook`` returns: ``remove()`` takes the hook away; also usable in a ``with`` statement."""

    _numbers = itertools.count().__next__

    def __init__(self, hooks: dict[int, Callable], hook: Callable, changed: Callable[[], None]):
        """``changed`` is called after the hook has been added, and after it has been taken away."""
        self._hooks, self._number, self._changed = hooks, self._numbers(), changed
        hooks[self._number] = hook
        changed()

    def remove(self) -> None:
        self._hooks.pop(self._number, None)
        self._changed()

    def __enter__(self) -> "RemovableHandle":
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
