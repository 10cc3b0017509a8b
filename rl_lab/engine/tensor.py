"""The tensor: memory, shape, strides, dtype, and its place on the tape. `rl_lab.engine.ops` adds the operations as methods."""

import functools
import math
import weakref
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, SupportsIndex, overload

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import DType, float32, uint8
from rl_lab.engine.errors import ShapeError, StateError
from rl_lab.engine.html import html_table
from rl_lab.engine.kernels.elementwise import add_into
from rl_lab.engine.launch import changes, launch, recorder, version_before
from rl_lab.engine.memory import Storage
from rl_lab.engine.operations import Operations

Shape = tuple[int, ...]


class Size(tuple[int, ...]):
    """A shape as users see it: a tuple with `numel`. Slices, sums and repetitions of a Size are Sizes."""

    __slots__ = ()

    def numel(self) -> int:
        """Number of elements of a tensor of this shape."""
        return math.prod(self)

    @overload
    def __getitem__(self, place: SupportsIndex) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> "Size": ...

    def __getitem__(self, place: SupportsIndex | slice) -> "int | Size":
        part = tuple.__getitem__(self, place)
        return Size(part) if isinstance(part, tuple) else part

    def __add__(self, other: tuple[int, ...]) -> "Size":  # type: ignore[override]
        return Size(tuple.__add__(self, other))

    def __radd__(self, other: tuple[int, ...]) -> "Size":
        return Size((*other, *self)) if isinstance(other, tuple) else NotImplemented

    def __mul__(self, count: SupportsIndex) -> "Size":
        return Size(tuple.__mul__(self, count))

    __rmul__ = __mul__


_size = functools.lru_cache(maxsize=4096)(Size)
_READS_A_VALUE = "it reads a tensor's value"


@functools.lru_cache(maxsize=4096)
def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides in elements."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


class TensorCore:
    """The memory, layout and autograd state of a tensor, without its operations.

    ``strides`` is None for a contiguous tensor in row-major order. ``sizes`` is the shape as a plain tuple, which the library reads;
    ``shape`` is the same as a `Size`, for users.
    """

    __slots__ = (
        "__weakref__",
        "_grad",
        "address",
        "base",
        "dtype",
        "epoch",
        "hooks",
        "needs_grad",
        "node",
        "offset",
        "sizes",
        "storage",
        "strides",
    )

    storage: Storage
    sizes: Shape
    strides: Shape | None
    offset: int
    dtype: DType
    address: int
    node: tape.Node | None
    needs_grad: bool
    base: "Tensor | None"
    epoch: int
    hooks: dict[int, Callable] | None
    _grad: "Tensor | None"

    regrown = 0
    """Sequence number of nodes at which a leaf last gained or lost elements. Gradients of earlier nodes belong to other elements."""

    __array_ufunc__ = None  # so that array + tensor calls the tensor's method, not NumPy's

    # --- autograd ----------------------------------------------------------------------------------------------------

    def grad_node(self) -> tape.Node | None:
        """The node that computed this value; None for a leaf. A view gets a new node after a write to its base."""
        base = self.base
        if base is not None and base.epoch != self.epoch:
            self.epoch = base.epoch
            before = self.node
            retained = None if before is None else before.take_retained()
            self.node = None
            self.needs_grad = False
            context = (base.sizes, region_of(self))
            if base.needs_grad:
                with tape.enable_grad():
                    tape.attach(self, _region_rule, (base,), context=context)
            elif before is not None:  # the base was detached: the view stays on the tape, but its gradient goes nowhere
                self.node = tape.Node(_region_rule, (None,), (), context, self.sizes)
                self.needs_grad = True
            if self.node is not None:
                self.node.retained = retained
        return self.node

    def with_node(self, node: tape.Node | None) -> "Tensor":
        """A tensor over the same memory with another node, so that an operation can save its own output without a reference cycle."""
        value = placed(self, self.sizes, self.strides)
        value.base = None
        value.node = node
        value.needs_grad = node is not None
        return value

    def accumulate(self, gradient: "Tensor", taken: set[int], create_graph: bool) -> None:
        """Add a gradient to ``grad``.

        The first gradient itself becomes ``grad``, or a copy if the id of its storage is in ``taken``: then its memory is already
        in use elsewhere.
        """
        if not self.needs_grad:  # frozen after the graph was built
            return
        if (recording := recorder()) is not None:
            recording.grad_read(self)
        if self._grad is not None:
            if create_graph:
                self._grad = self._grad + gradient
            else:
                self._grad.add_(gradient)
            return
        whole = gradient.strides is None and gradient.storage.nbytes == gradient.numel() * gradient.dtype.itemsize
        if create_graph or (whole and id(gradient.storage) not in taken):
            self._grad = gradient
        else:
            self._grad = gradient.clone()
        taken.add(id(self._grad.storage))

    def add_gradient(self, other: "TensorCore") -> "TensorCore":
        """Add a gradient of the same shape to this one, which nothing but the walk back knows; returns this one."""
        if self.strides is None and other.strides is None and self.sizes == other.sizes:
            launch(add_into, (self, other), (1, math.prod(self.sizes), 0, 1))
            return self
        return self.add_(other)  # type: ignore[attr-defined, no-any-return]

    def backward(
        self,
        gradient: "Tensor | None" = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: "TensorCore | Sequence[TensorCore] | None" = None,
    ) -> None:
        """Add the gradients of this value to ``grad`` of the leaves from which it was computed, or only of ``inputs`` if given.

        ``gradient`` has this tensor's shape; it may be omitted if the tensor has a single element. Saved values are freed unless
        ``retain_graph``. With ``create_graph`` the gradients are differentiable. Raises StateError (a RuntimeError) if this value
        does not require a gradient or its saved values were freed, and ShapeError if ``gradient`` has another shape.
        """
        gradient = root_gradient(self, gradient)
        if inputs is None:
            tape.backward((self,), (gradient,), retain_graph, create_graph)
        else:
            leaves = [inputs] if isinstance(inputs, TensorCore) else list(inputs)
            for leaf, value in zip(
                leaves, gradients_of((self,), leaves, (gradient,), retain_graph, create_graph, True), strict=True
            ):
                if value is not None:
                    leaf.accumulate(value, {id(gradient.storage)}, create_graph)

    @property
    def requires_grad(self) -> bool:
        if (recording := recorder()) is not None:
            recording.uses_tensor(self)
        if self.base is not None:
            self.grad_node()
        return self.needs_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> "Tensor":
        if self.node is not None and not requires_grad:
            raise StateError("only leaf tensors can drop requires_grad; use detach() to take a computed value off the tape")
        if requires_grad and not self.dtype.is_floating_point:
            raise StateError(f"only float32 tensors can require gradients, this one is {self.dtype.name}")
        if self.node is None:
            if (recording := recorder()) is not None:
                recording.uses_tensor(self)
                recording.sets(self, "requires_grad")
            before = self.needs_grad
            self.needs_grad = bool(requires_grad)
            if before != self.needs_grad:
                changes.note()  # recorded programs that use it are out of date
        return self  # type: ignore[return-value]

    @property
    def is_leaf(self) -> bool:
        return self.grad_node() is None

    @property
    def grad_fn(self) -> tape.Node | None:
        return self.grad_node()

    @property
    def grad(self) -> "Tensor | None":
        if (recording := recorder()) is not None:
            recording.grad_read(self)
        changes.grads_seen += 1
        return self._grad

    @grad.setter
    def grad(self, value: "Tensor | None") -> None:
        if value is not None:
            if not isinstance(value, TensorCore):
                raise TypeError(f"grad takes a tensor or None, not {type(value).__name__}")
            if value.sizes != self.sizes:
                raise ShapeError(f"assigned grad has shape {value.sizes}, the tensor has shape {self.sizes}")
            if value.dtype is not self.dtype:
                raise StateError(f"assigned grad is {value.dtype.name}, the tensor is {self.dtype.name}")
        if (recording := recorder()) is not None:
            recording.grad_written(self, value)
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    def retain_grad(self) -> None:
        """Keep the gradient of this interior value in ``grad`` in every backward pass."""
        node = self.grad_node()
        if node is None:
            if not self.needs_grad:
                raise StateError("can't retain_grad on a tensor that does not require grad")
            return
        if node.retained is None:
            reference = weakref.ref(self)

            def keep(gradient: Tensor) -> None:
                tensor = reference()
                if tensor is not None:
                    # a copy, because the gradient itself may be a result of autograd.grad
                    tensor._grad = gradient.clone() if tensor._grad is None else tensor._grad + gradient

            node.retained = keep

    def register_hook(self, hook: "Callable[[Tensor], Tensor | None]") -> tape.RemovableHandle:
        """Call ``hook(gradient)`` whenever the gradient of this value is computed.

        A tensor that the hook returns replaces the gradient. Raises StateError if the tensor does not require a gradient.
        """
        if not self.requires_grad:
            raise StateError("cannot register a hook on a tensor that doesn't require gradient")
        owner = self.node or self
        if owner.hooks is None:
            owner.hooks = {}
        return tape.RemovableHandle(owner.hooks, hook, changes.note)

    def detach(self) -> "Tensor":
        """A tensor over the same memory without a history. The two share one version counter, so backward notices a write to either."""
        if (recording := recorder()) is not None:
            recording.uses_tensor(self)
        value = placed(self, self.sizes, self.strides)
        value.base = None
        return value

    def detach_(self) -> "Tensor":
        """`detach` in place. Raises StateError for a view, whose base may have a history."""
        if self.base is not None:
            raise StateError("detach_() must not be called on a view: use x = x.detach()")
        if self.needs_grad:
            if (recording := recorder()) is not None:
                recording.uses_tensor(self)
                recording.sets(self, "requires_grad")
            self.node = None
            self.needs_grad = False
            changes.note()  # recorded programs that use it are out of date
        return self  # type: ignore[return-value]

    @property
    def data(self) -> "Tensor":
        """A tensor over the same memory with a version counter of its own: backward does not notice a write to it."""
        value = self.detach()
        value.storage = self.storage.alias()
        return value

    @data.setter
    def data(self, value: "TensorCore") -> None:
        if not isinstance(value, TensorCore) or value.dtype is not self.dtype:
            raise StateError("data takes a tensor of the same dtype")
        if (recording := recorder()) is not None:
            recording.uses_tensor(self)
            recording.sets(self, "data")
        self.storage = value.storage
        self.sizes = value.sizes
        self.strides = value.strides
        self.offset = value.offset
        self.address = value.address
        changes.note()

    @property
    def _version(self) -> int:
        if (recording := recorder()) is not None:
            recording.give_up("it reads how often a tensor was written to")
        return self.storage.version + version_before(self.storage)

    # --- shape and layout --------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """Sizes of the dimensions."""
        return _size(self.sizes)

    def numel(self) -> int:
        return math.prod(self.sizes)

    nelement = numel

    def dim(self) -> int:
        return len(self.sizes)

    @property
    def ndim(self) -> int:
        return len(self.sizes)

    @overload
    def size(self, dim: None = None) -> Size: ...

    @overload
    def size(self, dim: int) -> int: ...

    def size(self, dim: int | None = None) -> Size | int:
        """Size of dimension ``dim``, or the shape if ``dim`` is None. Raises IndexError if there is no such dimension."""
        if dim is None:
            return _size(self.sizes)
        if not -len(self.sizes) <= dim < len(self.sizes):
            raise IndexError(f"dimension {dim} is out of range for a tensor of shape {list(self.sizes)}")
        return self.sizes[dim]

    @overload
    def stride(self, dim: None = None) -> Shape: ...

    @overload
    def stride(self, dim: int) -> int: ...

    def stride(self, dim: int | None = None) -> Shape | int:
        """Distance between neighbouring elements along each dimension, or along dimension ``dim``, in elements."""
        strides = contiguous_strides(self.sizes) if self.strides is None else self.strides
        return strides if dim is None else strides[dim]

    def storage_offset(self) -> int:
        return self.offset

    def is_contiguous(self, memory_format: object = None) -> bool:
        return self.strides is None

    def element_size(self) -> int:
        return self.dtype.itemsize

    def data_ptr(self) -> int:
        return self.address

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def __len__(self) -> int:
        if not self.sizes:
            raise TypeError("len() of a 0-d tensor")
        return self.sizes[0]

    def __hash__(self) -> int:
        return id(self)

    # --- values as NumPy arrays and Python objects -------------------------------------------------------------------

    def _array(self, lasting: bool = True) -> np.ndarray:
        """A NumPy view of the memory. Stops a recording, because a replay could not repeat what is done with the values.

        A view that is not ``lasting`` must not outlive the tensor; it does not take the memory out of its pool.
        """
        if (recording := recorder()) is not None:
            recording.give_up(_READS_A_VALUE)
        dtype = self.dtype
        if self.strides is None and not self.offset:
            return np.ndarray(self.sizes, dtype.numpy, self.storage.buffer(lasting))
        steps = None if self.strides is None else tuple([s * dtype.itemsize for s in self.strides])
        # a view without elements may begin outside of the memory
        begin = 0 if 0 in self.sizes else self.offset * dtype.itemsize
        return np.ndarray(self.sizes, dtype.numpy, self.storage.buffer(lasting), begin, steps)

    def _holds_nan(self) -> bool:
        """Whether an element is NaN."""
        array = self._array(lasting=False)
        return bool((array != array).any())

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The same memory as a NumPy array. Raises StateError if the tensor requires a gradient, unless ``force``."""
        if self.requires_grad and not force:
            raise StateError("can't call numpy() on a tensor that requires grad; use tensor.detach().numpy()")
        return self._array()

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def item(self) -> float | int | bool:
        """The single element as a Python number. Raises ShapeError if the tensor does not have exactly one element."""
        if self.sizes and self.numel() != 1:
            raise ShapeError(f"a tensor of shape {self.sizes} has {self.numel()} elements, item() needs exactly one")
        if (recording := recorder()) is not None:
            recording.give_up(_READS_A_VALUE)
        return self.dtype.at(self.address).value

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self._array(lasting=False).tolist()

    def copy_to(self, array: np.ndarray) -> None:
        """Write the values into a NumPy array of the same shape."""
        array[...] = self._array(lasting=False)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.is_floating_point or self.numel() != 1:
            raise TypeError("only integer tensors of a single element can be used as an index")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise ShapeError(f"the truth value of a tensor of shape {self.sizes} is ambiguous; use any() or all()")
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        if self.sizes == () and (spec or type(self) is Tensor):
            return format(self.item(), spec)
        return object.__format__(self, spec)

    def __repr__(self) -> str:
        if (recording := recorder()) is not None:
            recording.give_up("it writes a tensor as text")
        array = self._array()
        text = np.array2string(array, separator=", ", precision=4, prefix="tensor(", floatmode="maxprec_equal")
        parts = [text if array.size else f"[], shape={self.sizes}"]
        if self.dtype is not float32 and not (self.dtype is not uint8 and array.size):
            parts.append(f"dtype={self.dtype}")
        if self.grad_node() is not None:
            parts.append(f"grad_fn=<{self.node.name}>")  # type: ignore[union-attr]
        elif self.needs_grad:
            parts.append("requires_grad=True")
        return f"tensor({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: shape, dtype, the state of the gradient, and the values, shortened."""
        if recorder() is not None:  # a notebook shows the tensor, and the function does not get this text
            return f"<pre>tensor(&lt;recording&gt;, shape={self.sizes})</pre>"
        if self.grad_node() is not None:
            gradient = f"computed by {self.node.name}"  # type: ignore[union-attr]
        elif self.needs_grad:
            gradient = "leaf, no gradient yet" if self._grad is None else "leaf with a gradient"
        else:
            gradient = "not required"
        shape = " x ".join(map(str, self.sizes)) or "scalar"
        table = html_table(("shape", "dtype", "gradient"), [(shape, self.dtype.name, gradient)], type(self).__name__)
        with np.printoptions(threshold=60, edgeitems=3, linewidth=90):
            values = np.array2string(self._array(), separator=", ", precision=4, floatmode="maxprec_equal")
        return f"{table}<pre>{escape(values)}</pre>"

    def __deepcopy__(self, memo: dict) -> "Tensor":
        """A leaf over a copy of the memory, with a copy of the gradient.

        Tensors that share memory still share it if they are copied by one call of `copy.deepcopy`. Raises StateError if the tensor
        is not a leaf.
        """
        if self.grad_node() is not None:
            raise StateError("only leaf tensors can be deep-copied; clone() or detach() first")
        root = self.storage
        recording = recorder()
        while isinstance(root.owner, Storage) and not (recording is not None and recording.stands_in(root)):
            root = root.owner
        if id(root) not in memo:
            whole = new(root, (root.nbytes // self.dtype.itemsize,), None, 0, self.dtype)
            memo[id(root)] = whole.clone().storage
            memo.setdefault(id(memo), []).append(root)  # keeps the storage alive, so that no other object gets its id
        copy = new(memo[id(root)], self.sizes, self.strides, self.offset, self.dtype)
        copy.needs_grad = self.needs_grad
        if self._grad is not None:
            copy._grad = self._grad.detach().__deepcopy__(memo)
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple:
        """Pickle the memory and the layout, as a leaf without gradient and hooks, as in PyTorch. ``copy.copy`` shares the memory."""
        if (recording := recorder()) is not None:
            recording.give_up("it pickles a tensor")
        return unpickled, (self.storage, self.sizes, self.strides, self.offset, self.dtype, self.requires_grad)


class Tensor(Operations, TensorCore):
    """An array of float32, int64, uint8 or bool that can record its history for gradients. Create one with `rl_lab.tensor`."""

    __slots__ = ()
    __hash__ = TensorCore.__hash__


# --- making tensors --------------------------------------------------------------------------------------------------


def new(storage: Storage, shape: Shape, strides: Shape | None, offset: int, dtype: DType) -> Tensor:
    """A tensor over existing memory."""
    tensor = object.__new__(Tensor)
    tensor.storage = storage
    tensor.sizes = shape
    tensor.strides = strides
    tensor.offset = offset
    tensor.dtype = dtype
    tensor.address = storage.address + offset * dtype.itemsize
    tensor.node = tensor._grad = tensor.base = tensor.hooks = None
    tensor.needs_grad = False
    tensor.epoch = 0
    return tensor


def unpickled(storage: Storage, shape: Shape, strides: Shape | None, offset: int, dtype: DType, requires_grad: bool) -> Tensor:
    """Rebuild a pickled tensor. Raises ShapeError if its elements do not lie inside the storage."""
    steps = contiguous_strides(shape) if strides is None else strides
    last = offset + sum([(size - 1) * step for size, step in zip(shape, steps, strict=True)])
    if 0 not in shape and not (0 <= offset <= last < storage.nbytes // dtype.itemsize and min(steps, default=0) >= 0):
        raise ShapeError(f"a pickled tensor of shape {list(shape)} does not fit into its {storage.nbytes} bytes of memory")
    tensor = new(storage, shape, strides, offset, dtype)
    tensor.needs_grad = requires_grad
    return tensor


def empty(shape: Shape, dtype: DType = float32) -> Tensor:
    """A tensor over new memory with arbitrary content."""
    tensor = object.__new__(Tensor)  # the body of `new`, to save a call: every operation makes its result here
    tensor.storage = storage = Storage(math.prod(shape) * dtype.itemsize)
    tensor.address = storage.address
    tensor.sizes = shape
    tensor.dtype = dtype
    tensor.strides = tensor.node = tensor._grad = tensor.base = tensor.hooks = None
    tensor.needs_grad = False
    tensor.offset = tensor.epoch = 0
    return tensor


def view(source: TensorCore, shape: Shape, strides: Shape | None, offset: int) -> Tensor:
    """A view of the memory of ``source``. Contiguous ``strides`` are stored as None. The caller records the view on the tape."""
    if strides is not None and is_row_major(shape, strides):
        strides = None
    return placed(source, shape, strides, offset - source.offset)


def placed(source: TensorCore, shape: Shape, strides: Shape | None, distance: int = 0) -> Tensor:
    """`view` that begins ``distance`` elements after ``source``. Its strides are None if they are contiguous: nothing is checked."""
    tensor = object.__new__(Tensor)
    tensor.storage = source.storage
    tensor.sizes = shape
    tensor.strides = strides
    tensor.dtype = dtype = source.dtype
    tensor.offset = source.offset + distance
    tensor.address = source.address + distance * dtype.itemsize
    tensor.node = tensor._grad = tensor.hooks = None
    tensor.needs_grad = False
    base: Tensor = source if source.base is None else source.base  # type: ignore[assignment]
    tensor.base = base
    tensor.epoch = base.epoch
    return tensor


def needs_gradient(x: TensorCore) -> bool:
    """`TensorCore.requires_grad`, but faster: the recorder does not see the read, so the caller must launch something with ``x``."""
    return x.needs_grad or (x.base is not None and x.requires_grad)


def owned(result: Tensor, *sources: TensorCore) -> Tensor:
    """Make a result an ordinary tensor, not a view, if its memory is new; it stays a view if it shares the memory of a source."""
    if result.base is not None and all(result.storage is not source.storage for source in sources):
        result.base = None
    return result


@functools.lru_cache(maxsize=4096)
def is_row_major(shape: Shape, strides: Shape) -> bool:
    if 0 in shape:
        return True
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def region_of(tensor: TensorCore) -> tuple[Shape, Shape, int]:
    """The part of its base that a view covers: shape, strides and offset in elements."""
    assert tensor.base is not None
    return tensor.sizes, tensor.stride(), tensor.offset - tensor.base.offset


def _region_rule(g: Tensor, node: tape.Node) -> Tensor:
    shape, region = node.context
    return g._embed(shape, region)


# --- gradients by call -----------------------------------------------------------------------------------------------


def root_gradient(root: TensorCore, gradient: Tensor | None) -> Tensor:
    """The gradient with which a walk back begins at ``root``: ``gradient``, or 1 if it is None and ``root`` has one element.

    Raises StateError if ``root`` does not require a gradient, ShapeError if ``gradient`` has another shape or is needed.
    """
    if not isinstance(root, TensorCore) or not root.requires_grad:
        raise StateError("this value does not require grad and has no grad_fn: nothing to run backward through")
    if gradient is None:
        if root.numel() != 1:
            raise ShapeError(f"grad can be implicitly created only for scalar outputs, this one has shape {root.sizes}")
        gradient = empty(root.sizes)
        gradient.fill_(1.0)
        return gradient
    if not isinstance(gradient, TensorCore):
        raise TypeError(f"gradient must be a tensor or None, not {type(gradient).__name__}")
    if gradient.sizes != root.sizes:
        raise ShapeError(f"mismatch in shape: the gradient has shape {gradient.sizes}, the output has shape {root.sizes}")
    return gradient


def gradients_of(
    outputs: TensorCore | Sequence[TensorCore],
    inputs: TensorCore | Sequence[TensorCore],
    gradients: Tensor | Sequence[Tensor | None] | None,
    retain_graph: bool | None,
    create_graph: bool,
    allow_unused: bool | None,
) -> list[Tensor | None]:
    """The gradients of the outputs with respect to each input, summed over the outputs; no leaf's ``grad`` changes.

    Raises StateError if an input does not require a gradient, or was not used and ``allow_unused`` is false.
    """
    outputs = [outputs] if isinstance(outputs, TensorCore) else list(outputs)
    inputs = [inputs] if isinstance(inputs, TensorCore) else list(inputs)
    gradients = [gradients] * len(outputs) if gradients is None or isinstance(gradients, TensorCore) else list(gradients)
    for position, tensor in enumerate(inputs):
        if not tensor.requires_grad:
            raise StateError(f"input {position} of shape {tensor.sizes} does not require grad")
    roots = [root_gradient(output, gradient) for output, gradient in zip(outputs, gradients, strict=True)]
    targets = [tensor.node or tensor for tensor in inputs]
    retain = create_graph if retain_graph is None else retain_graph
    found = tape.walk(outputs, roots, retain, create_graph, targets)
    results = [found[id(target)][1] if id(target) in found else None for target in targets]
    if not allow_unused and any(result is None for result in results):
        raise StateError("one of the inputs was not used in the graph; pass allow_unused=True to get None for it")
    return results


class LeafStateError(StateError):
    """An in-place write that the tape cannot follow."""


def check_writable(tensor: TensorCore, overlap: bool = False) -> None:
    """Raise StateError if an in-place write would break the tape or, unless ``overlap``, write to one memory cell several times."""
    if tape.modes.grad:
        root = tensor if tensor.base is None else tensor.base
        if (root.needs_grad and root.node is None) or (needs_gradient(tensor) and tensor.node is None):
            what = "a leaf tensor that requires grad" if root is tensor else "a view of a leaf tensor that requires grad"
            raise LeafStateError(f"{what} is being written to in place; wrap it in no_grad() or compute a new tensor")
        if root is not tensor and root.needs_grad and tensor.node is None and tensor.epoch == root.epoch:
            raise StateError(  # the tape has no record of how this view was made from its base
                "a view that was made under no_grad() is being written to in place outside of no_grad(), and the gradient of its "
                "base would miss the write: make the view outside of no_grad(), or write inside of it"
            )
    if tensor.strides is not None and not overlap:
        for size, stride in zip(tensor.sizes, tensor.strides, strict=True):
            if stride == 0 and size > 1:
                raise StateError(
                    "an expanded tensor is being written to, but several of its elements share one memory cell; clone() it first"
                )
