"""Containers of modules and parameters."""

import operator
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Generic, TypeVar, overload

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

    def extend(self, sequential: Iterable[Module]) -> "Self":
        """Add several modules, such as those of another chain, at the end; return this chain."""
        for module in sequential:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> "Self":
        """Insert a module before position ``index``, so that the following modules move up by one; return this chain."""
        if not -len(self) <= index <= len(self):
            raise IndexError(f"index {index} is out of range: the chain has {len(self)} modules")
        modules = list(self)
        modules.insert(index, module)
        self._fill(modules)
        return self

    def pop(self, key: int | slice) -> Module:
        """Remove and return a module, or the chain of a slice."""
        module = self[key]
        del self[key]
        return module

    def _fill(self, modules: Iterable[Module]) -> None:
        """Replace the content by these modules, named by their positions."""
        kept = list(modules)
        self._modules.clear()
        changes.note(self)
        self.extend(kept)

    def _name(self, position: int) -> str:
        position = operator.index(position)
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is out of range: the chain has {len(self)} modules")
        return list(self._modules)[position]

    def __setitem__(self, position: int, module: Module) -> None:
        self.add_module(self._name(position), module)

    def __delitem__(self, position: int | slice) -> None:
        names = list(self._modules)
        for name in names[position] if isinstance(position, slice) else [self._name(position)]:
            del self._modules[name]
        if all(name.isdecimal() for name in names):
            self._fill(self)
        else:
            changes.note(self)

    def __add__(self, other: "Sequential") -> "Sequential":
        return Sequential(*self, *other) if isinstance(other, Sequential) else NotImplemented

    def __iadd__(self, other: "Sequential") -> "Self":
        return self.extend(other)

    @overload
    def __getitem__(self, position: int) -> Module: ...

    @overload
    def __getitem__(self, position: slice) -> "Sequential": ...

    def __getitem__(self, position: int | slice) -> Module:
        items = list(self._modules.items())
        if isinstance(position, slice):
            return Sequential(OrderedDict(items[position]))  # type: ignore[arg-type]
        return self._modules[self._name(position)]  # type: ignore[return-value]

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
        position = operator.index(position)
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

    def __setitem__(self, position: int | slice, item: "Item | Iterable[Item]") -> None:
        if isinstance(position, slice):
            for place, part in zip(range(len(self))[position], item, strict=True):  # type: ignore[arg-type]
                self._put(str(place), part)
        else:
            self._put(self._position(position), item)  # type: ignore[arg-type]

    def __delitem__(self, position: int | slice) -> None:
        items = list(self)
        if isinstance(position, slice):
            del items[position]
        else:
            del items[int(self._position(position))]
        self._fill(items)

    def _fill(self, items: Iterable[Item]) -> None:
        """Replace the content by these entries, named by their positions."""
        kept = list(items)
        self._items().clear()
        changes.note(self)
        self.extend(kept)

    def pop(self, key: int | slice) -> "Item | Self":
        """Remove and return an entry, or the list of a slice."""
        item = self[key]
        del self[key]
        return item

    def __add__(self, other: Iterable[Item]) -> "Self":
        return type(self)([*self, *other])

    def __iadd__(self, other: Iterable[Item]) -> "Self":
        return self.extend(other)

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._items().values()))

    def __contains__(self, item: object) -> bool:
        return any(item is other for other in self)


class ModuleList(_List[Module]):
    """A list of modules. It has no ``forward``."""

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__(modules)

    def append(self, module: Module) -> "Self":
        """Add a module at the end; return this list."""
        return super().append(module)

    def extend(self, modules: Iterable[Module]) -> "Self":
        """Add several modules at the end; return this list."""
        return super().extend(modules)

    def insert(self, index: int, module: Module) -> None:
        """Insert a module before position ``index``, so that the following modules move up by one."""
        items = list(self)
        items.insert(index, module)
        self._fill(items)


class ParameterList(_List[Tensor]):
    """A list of parameters. A tensor that is not a `Parameter` is wrapped in one."""

    table = "_parameters"

    def __init__(self, values: Iterable[Tensor] | None = None):
        super().__init__(values)

    def append(self, value: Tensor) -> "Self":
        """Add a parameter at the end; return this list."""
        return super().append(value)

    def extend(self, values: Iterable[Tensor]) -> "Self":
        """Add several parameters at the end; return this list."""
        return super().extend(values)

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
        pairs = items.items() if isinstance(items, (Mapping, _Dict)) else items
        for name, item in pairs:
            self._put(name, item)

    def __getitem__(self, name: str) -> Item:
        return self._items()[name]

    def __setitem__(self, name: str, item: Item) -> None:
        self._put(name, item)

    def __delitem__(self, name: str) -> None:
        del self._items()[name]
        changes.note(self)

    def pop(self, key: str) -> Item:
        """Remove and return an entry. Raises KeyError if there is no entry of this name."""
        item = self[key]
        del self[key]
        return item

    def clear(self) -> None:
        """Remove all entries."""
        self._items().clear()
        changes.note(self)

    def get(self, key: str, default: Item | None = None) -> Item | None:
        """The entry of this name, or ``default``."""
        return self._items().get(key, default)

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

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None):
        super().__init__(modules)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace the modules of a mapping, or of (name, module) pairs."""
        super().update(modules)


class ParameterDict(_Dict[Tensor]):
    """A dictionary of parameters. A tensor that is not a `Parameter` is wrapped in one."""

    table = "_parameters"

    def __init__(self, parameters: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | None = None):
        super().__init__(parameters)

    def update(self, parameters: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> None:
        """Add or replace the parameters of a mapping, or of (name, parameter) pairs."""
        super().update(parameters)

    def setdefault(self, key: str, default: Tensor | None = None) -> Tensor:
        """The parameter of this name; if there is none, ``default`` becomes it. Raises TypeError if that is None."""
        if key not in self:
            if default is None:
                raise TypeError(f"there is no parameter {key!r}: give a default")
            self._put(key, default)
        return self[key]

    def popitem(self) -> tuple[str, Tensor]:
        """Remove and return the last (name, parameter) pair. Raises KeyError if there is none."""
        if not len(self):
            raise KeyError("the dictionary is empty")
        name = next(reversed(self._items()))
        return name, self.pop(name)

    def copy(self) -> "ParameterDict":
        """A dictionary of the same parameters."""
        return ParameterDict(self._items())

    def _put(self, name: str, item: Tensor) -> None:
        self.register_parameter(name, item if isinstance(item, Parameter) else Parameter(item))
