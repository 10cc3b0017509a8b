"""The tape: the record of operations, the modes that switch it off, and the walk back that computes gradients.

This module knows nothing of arrays. Its values have the attributes of `Value`, and gradients are added with ``+``.
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
from rl_lab.engine.launch import changes, recorder, user_line
from rl_lab.engine.memory import Storage
from rl_lab.native.threads import renew_after_fork

Function = TypeVar("Function", bound=Callable)


class Modes(threading.local):
    """Whether this thread records operations on the tape."""

    grad = True


modes = Modes()
anomaly = ""  # for all threads: "lines" if nodes keep the user's line, "nan" if backward also searches for NaN
next_sequence = itertools.count(1).__next__
_deliver = threading.Lock()  # several threads may add to one leaf
renew_after_fork(globals(), "_deliver")


class LossGuard(Protocol):
    """Observer that is notified of every backward walk; see `rl_lab.optim.guard`."""

    def note(self, roots: Sequence[Any], leaves: Mapping[int, Any]) -> None:
        """Gradients of ``roots`` were computed for ``leaves``, which are found by their id."""
        ...

    def owns(self, parameters: Sequence[Any]) -> bool:
        """Whether one of these leaves is guarded."""
        ...


_guards: dict[int, "weakref.ref[LossGuard]"] = {}


def add_guard(guard: LossGuard) -> None:
    """Notify ``guard`` of every backward walk for as long as the guard exists."""
    key = id(guard)
    _guards[key] = weakref.ref(guard, lambda _: _guards.pop(key, None))


def guards() -> list[LossGuard]:
    """The guards of this process."""
    return [guard for reference in list(_guards.values()) if (guard := reference()) is not None] if _guards else []


Rule = Callable[[Any, "Node"], Any]
"""A gradient rule: maps the gradient of a node's value to the gradient of its input, or to a tuple with one gradient per input.

None stands for an input without a gradient.
"""


class Value(Protocol):
    """The part of a tensor that the tape needs; the class itself stands above this module."""

    storage: Storage
    node: "Node | None"
    needs_grad: bool
    hooks: dict[int, Callable] | None
    regrown: int
    sizes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def requires_grad(self) -> bool: ...

    @property
    def base(self) -> "Value | None": ...

    def grad_node(self) -> "Node | None": ...

    def with_node(self, node: "Node | None") -> "Value": ...


V = TypeVar("V", bound=Value)
Edge = Any  # a Node, a leaf (a Value), or None for an input that gets no gradient


_NONE: list[int] = []


class Node:
    """One recorded operation.

    ``inputs`` are nodes, leaves, or None for an input that gets no gradient. ``rule`` computes the gradients of the inputs from the
    gradient of the value, the saved values and the ``context`` (shapes, axes). Later nodes have higher ``sequence`` numbers, and the
    walk back takes nodes in descending order.
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

    hooks: dict[int, Callable] | None
    retained: Callable | None
    wanted: tuple[bool, ...] | None
    """During a walk to chosen targets: which inputs lead to a target."""

    def __init__(self, rule: Rule, inputs: tuple[Edge, ...], saved: tuple, context: Any, shape: tuple[int, ...], own: int = -1):
        self.sequence = next_sequence()
        self.rule = rule
        self.inputs = inputs
        self.context = context
        self.shape = shape
        self._saved: tuple | None = saved
        self.versions = [0 if value is None else value.storage.version for value in saved] if saved else _NONE
        self.own = own  # index of the node's own value among the saved values; -1 if it is not saved
        self.hooks = self.retained = self.wanted = None
        if anomaly:
            self.line = user_line()

    @property
    def name(self) -> str:
        return self.rule.__name__.strip("_").removesuffix("_rule")

    def wants(self, position: int) -> bool:
        """Whether the gradient of this input is needed; rules skip the others."""
        return self.inputs[position] is not None and (self.wanted is None or self.wanted[position])

    @property
    def saved(self) -> tuple:
        """The saved values. Raises StateError if an earlier backward freed them, or if one was modified in place."""
        saved = self._saved
        if saved is None:
            raise StateError(
                f"trying to run backward through the graph a second time: the saved values of {self.name} were freed; "
                "pass retain_graph=True to the first backward"
            )
        if saved and [0 if value is None else value.storage.version for value in saved] != self.versions:
            for value, version in zip(saved, self.versions, strict=True):
                if value is not None and value.storage.version != version:
                    raise StateError(
                        f"a value that {self.name} saved for its gradient, of shape {tuple(value.shape)}, has been modified by an "
                        f"inplace operation: it is at version {value.storage.version}, expected {version}"
                    )
        if self.own >= 0 and modes.grad:
            saved = (*saved[: self.own], saved[self.own].with_node(self), *saved[self.own + 1 :])
        return saved

    def move_own(self, place: Value) -> None:
        """Save ``place`` instead of the node's own value, because an in-place operation has written the value there."""
        if self._saved:
            self._saved = (*self._saved[: self.own], place.with_node(None), *self._saved[self.own + 1 :])
            self.versions[self.own] = place.storage.version

    def take_retained(self) -> Callable | None:
        """Remove and return the function that keeps the gradient of the value.

        After an in-place write the tensor has another node, and the gradient of the new content is kept.
        """
        retained = self.retained
        self.retained = None
        return retained

    def free(self) -> None:
        if self._saved:
            self._saved = None

    def __repr__(self) -> str:
        return f"<{self.name} node>"


def _edge_of_view(x: Value) -> Edge:
    node = x.grad_node()  # before needs_grad is read, because it brings needs_grad up to date with the base
    return (node or x) if x.needs_grad else None


def attach(value: V, rule: Rule, inputs: tuple[Value, ...], saved: tuple = (), context: Any = None) -> V:
    """Record ``value`` on the tape as computed from ``inputs``, if recording is on and an input needs a gradient; return it.

    An operation that saves its own result puts ``value`` into ``saved``. The node then keeps the value without its node, so that the
    graph has no reference cycles and is freed by reference counting.
    """
    if not modes.grad:
        return value
    edges: list[Edge] = []
    on_tape = False
    for x in inputs:
        if x.base is None:
            if x.needs_grad:
                on_tape = True
                edges.append(x.node or x)
                continue
        elif x.needs_grad or x.requires_grad:  # needs_grad of a view may be out of date
            on_tape = True
            edges.append(_edge_of_view(x))
            continue
        edges.append(None)
    if on_tape:
        own = -1
        if saved:
            for i, x in enumerate(saved):
                if x is value:
                    own = i
                    saved = (*saved[:i], value.with_node(None), *saved[i + 1 :])
        value.node = Node(rule, tuple(edges), saved, context, value.sizes, own)
        value.needs_grad = True
    return value


# --- modes -----------------------------------------------------------------------------------------------------------


class _GradMode:
    """Base of `no_grad`, `enable_grad` and `set_grad_enabled`: a context manager, and a decorator for functions and generators."""

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
                # the mode holds while the generator runs, but not while it waits at a yield
                generator = function(*args, **kwargs)
                send = None
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
    """Context manager or decorator that stops recording on the tape in this thread: results do not require gradients."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(False)

    def __new__(cls, function: Callable | None = None):  # `@no_grad` without parentheses, as in PyTorch
        return super().__new__(cls) if function is None else _GradMode(False)(function)


class enable_grad(_GradMode):
    """Context manager or decorator that records operations on the tape, also inside `no_grad`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(True)

    def __new__(cls, function: Callable | None = None):
        return super().__new__(cls) if function is None else _GradMode(True)(function)


class inference_mode(_GradMode):
    """The same as `no_grad`; ``inference_mode(False)`` is the same as `enable_grad`."""

    __slots__ = ()

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode)

    def __new__(cls, mode: bool | Callable = True):
        return _GradMode(False)(mode) if callable(mode) else super().__new__(cls)


class set_grad_enabled(_GradMode):
    """Switch recording on or off at once; as a context manager, restore the previous mode at the end."""

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
    """Whether this thread records operations on the tape."""
    return modes.grad


# --- the walk back ---------------------------------------------------------------------------------------------------


def walk(
    roots: Sequence[Value],
    gradients: Sequence[Any],
    retain: bool,
    create_graph: bool,
    wanted: Sequence[Edge] | None = None,
    shown: list | None = None,
) -> dict[int, tuple[Any, Any]]:
    """Propagate ``gradients`` from ``roots`` back to the leaves; return ``{id(leaf): (leaf, gradient)}``.

    If ``wanted`` (nodes or leaves) is given, the result holds only these. Saved values are freed unless ``retain``. Gradients that
    code outside of the walk has seen, such as hooks, are appended to ``shown``. Gradients of interior values exist only during the
    walk. Nodes are visited in descending sequence, so every node that used a value is visited before the node that computed it.
    """
    pending: dict[int, tuple[Node, Any]] = {}  # by the negative sequence number, of which the heap gives the smallest
    leaves: dict[int, tuple[Any, Any]] = {}
    captured: dict[int, tuple[Any, Any]] = {}
    targets = None if wanted is None else {id(w) for w in wanted}
    useful = None if wanted is None else _leading_to(roots, targets or set())
    heap: list[int] = []
    sums: set[int] = set()  # the places of gradients that nothing but the walk knows, so that more can be added in place

    def total(place: int, earlier: Any, gradient: Any) -> Any:
        """The sum of two gradients that arrive at the same place."""
        if place in sums:
            return earlier.add_gradient(gradient)
        if not create_graph:
            sums.add(place)
        return earlier + gradient

    def send(target: Edge, gradient: Any, sender: Node | None = None) -> None:
        if type(target) is Node:
            if useful is not None and target not in useful:
                return
            place = -target.sequence
            if place in pending:
                pending[place] = target, total(place, pending[place][1], gradient)
            else:
                pending[place] = target, gradient
                heapq.heappush(heap, place)
        elif targets is None or id(target) in targets:
            if sender is not None and sender.sequence < target.regrown:
                target.check_sender(sender)
            key = id(target)
            leaves[key] = (target, total(key, leaves[key][1], gradient) if key in leaves else gradient)

    with set_grad_enabled(create_graph):
        for root, gradient in zip(roots, gradients, strict=True):
            send(root.grad_node() or root, gradient)
        while heap:
            node, gradient = pending.pop(heapq.heappop(heap))
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
                if results is not None and node.inputs[0] is not None:
                    send(node.inputs[0], results, node)
                continue
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
    """Raise AnomalyError if a gradient computed by an operation holds NaN."""
    for number, result in enumerate(results if type(results) is tuple else (results,)):
        if result is not None and node.inputs[number] is not None and result._holds_nan():
            line = getattr(node, "line", None)
            where = f"computed at {line}" if line else "computed before detect_anomaly was entered"
            raise AnomalyError(f"the gradient of {node.name}, {where}, is NaN for its input {number}")


def set_anomaly(mode: str) -> str:
    """Set the search for NaN to "nan", "lines" (nodes keep the user's line only) or "" (off). Returns the previous mode."""
    global anomaly
    before = anomaly
    anomaly = mode
    changes.note()  # compiled functions look at the mode again
    return before


def _is_useful(edge: Edge, useful: set[Node], targets: set[int]) -> bool:
    return edge is not None and (edge in useful if type(edge) is Node else id(edge) in targets)


def _leading_to(roots: Sequence[Value], targets: set[int]) -> set[Node]:
    """The nodes from which a target can be reached; a walk visits only these."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[Edge] = [root.grad_node() for root in roots]
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
    """The gradient after all hooks; every gradient that a hook has seen or returned is appended to ``shown``."""
    for hook in list(hooks.values()):
        replacement = hook(gradient)
        if shown is not None:
            shown.append(gradient)
        if replacement is not None:
            wanted = f"a hook must return a gradient of shape {tuple(gradient.sizes)} in the same dtype, got"
            if not isinstance(replacement, type(gradient)):
                raise StateError(f"{wanted} {type(replacement).__name__}")
            if replacement.sizes != gradient.sizes or replacement.dtype is not gradient.dtype:
                raise StateError(f"{wanted} {replacement.dtype.name} of shape {tuple(replacement.sizes)}")
            gradient = replacement
    if shown is not None:
        shown.append(gradient)
    return gradient


def backward(roots: Sequence[Value], gradients: Sequence[Any], retain_graph: bool | None, create_graph: bool) -> None:
    """Add the gradients of the roots to ``grad`` of every leaf. If a rule or a hook raises, no leaf has changed."""
    retain = create_graph if retain_graph is None else retain_graph
    shown = list(gradients)
    results = walk(roots, gradients, retain, create_graph, shown=shown)
    taken = {id(gradient.storage) for gradient in shown}
    with _deliver, set_grad_enabled(create_graph):
        for leaf, gradient in results.values():
            leaf.accumulate(gradient, taken, create_graph)


class RemovableHandle:
    """A registered hook: ``remove()`` removes it, and so does the end of a ``with`` statement."""

    _numbers = itertools.count().__next__

    def __init__(self, hooks: dict[int, Callable], hook: Callable, changed: Callable[[], None]):
        """Add ``hook`` to ``hooks``. ``changed`` is called after the hook is added, and after it is removed."""
        self._hooks = hooks
        self._number = self._numbers()
        self._changed = changed
        hooks[self._number] = hook
        changed()

    def remove(self) -> None:
        """Remove the hook."""
        self._hooks.pop(self._number, None)
        self._changed()

    def __enter__(self) -> "RemovableHandle":
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
