"""Containers of modules and parameters."""

from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from rl_lab.engine.launch import changes
from rl_lab.engine.ops import Tensor
from rl_lab.nn.module import Module, Parameter

if TYPE_CHECKING:
    from typing_extensions import Self

Item = TypeVar("Item")


class Sequential(Module):
    """A chain of modules: each takes the output of the one before.

    The arguments are modules, or one OrderedDict of named modules. Type checkers take the input and the output for tensors.
    """

    def __init__(self, *modules: "Module | OrderedDict[str, Module]"):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for position, entry in enumerate(modules):
                self.add_module(str(position), entry)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        for module in self._modules.values():
            input = module(input)  # type: ignore[misc]
        return input

    def append(self, module: Module) -> "Self":
        """Add a module at the end; return this chain."""
        self.add_module(str(len(self)), module)
        return self

    @overload
    def __getitem__(self, position: int) -> Module: ...

    @overload
    def __getitem__(self, position: slice) -> "Sequential": ...

    def __getitem__(self, position: int | slice) -> Module:
        items: list[Any] = list(self._modules.items())
        if isinstance(position, slice):
            return Sequential(OrderedDict(items[position]))
        return items[position][1]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())  # type: ignore[arg-type]


class _List(Module, Generic[Item]):
    """Base of the lists of modules and of parameters. Entries are registered under their number."""

    table = "_modules"

    def __init__(self, items: Iterable[Item] | None = None):
        super().__init__()
        self.extend(items or ())

    def _items(self) -> "OrderedDict[str, Item]":
        return self.__dict__[self.table]

    def _put(self, name: str, item: Item) -> None:
        self.add_module(name, item)  # type: ignore[arg-type]

    def _position(self, position: int) -> str:
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is out of range: the list has {len(self)} entries")
        return str(position % len(self))

    def append(self, item: Item) -> "Self":
        """Add an entry at the end; return this list."""
        self._put(str(len(self)), item)
        return self

    def extend(self, items: Iterable[Item]) -> "Self":
        """Add several entries at the end; return this list."""
        for item in items:
            self.append(item)
        return self

    @overload
    def __getitem__(self, position: int) -> Item: ...

    @overload
    def __getitem__(self, position: slice) -> "Self": ...

    def __getitem__(self, position: int | slice) -> "Item | Self":
        if isinstance(position, slice):
            return type(self)(list(self)[position])
        return self._items()[self._position(position)]

    def __setitem__(self, position: int, item: Item) -> None:
        self._put(self._position(position), item)

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._items().values()))

    def __contains__(self, item: object) -> bool:
        return any(item is other for other in self)


class ModuleList(_List[Module]):
    """A list of modules. It has no ``forward``."""

    def insert(self, index: int, module: Module) -> None:
        """Insert a module before position ``index``; the modules behind it move up by one."""
        items = list(self)
        items.insert(index, module)
        self._modules.clear()
        self.extend(items)


class ParameterList(_List[Tensor]):
    """A list of parameters. A tensor that is not a `Parameter` is wrapped in one."""

    table = "_parameters"

    def _put(self, name: str, item: Tensor) -> None:
        self.register_parameter(name, item if isinstance(item, Parameter) else Parameter(item))


class _Dict(Module, Generic[Item]):
    """Base of the dictionaries of modules and of parameters."""

    table = "_modules"

    def __init__(self, items: Mapping[str, Item] | Iterable[tuple[str, Item]] | None = None):
        super().__init__()
        self.update(items or {})

    def _items(self) -> "OrderedDict[str, Item]":
        return self.__dict__[self.table]

    def _put(self, name: str, item: Item) -> None:
        self.add_module(name, item)  # type: ignore[arg-type]

    def update(self, items: Mapping[str, Item] | Iterable[tuple[str, Item]]) -> None:
        """Add or replace the entries of a mapping, or of (name, item) pairs."""
        pairs = items.items() if isinstance(items, Mapping) or hasattr(items, "items") else items
        for name, item in pairs:
            self._put(name, item)

    def __getitem__(self, name: str) -> Item:
        return self._items()[name]

    def __setitem__(self, name: str, item: Item) -> None:
        self._put(name, item)

    def __delitem__(self, name: str) -> None:
        del self._items()[name]
        changes.note(self)

    def pop(self, name: str) -> Item:
        """Remove and return an entry. Raises KeyError if there is none of this name."""
        item = self[name]
        del self[name]
        return item

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._items()))

    def __contains__(self, name: object) -> bool:
        return name in self._items()

    def keys(self) -> KeysView[str]:
        """Names of the entries."""
        return self._items().keys()

    def values(self) -> ValuesView[Item]:
        """The entries."""
        return self._items().values()

    def items(self) -> ItemsView[str, Item]:
        """(name, entry) pairs."""
        return self._items().items()


class ModuleDict(_Dict[Module]):
    """A dictionary of modules. It has no ``forward``."""


class ParameterDict(_Dict[Tensor]):
    """A dictionary of parameters. A tensor that is not a `Parameter` is wrapped in one."""

    table = "_parameters"

    def _put(self, name: str, item: Tensor) -> None:
        self.register_parameter(name, item if isinstance(item, Parameter) else Parameter(item))
