"""Containers of modules and parameters."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rl_lab.engine.launch import structure
from rl_lab.nn.module import Module, Parameter


class Sequential(Module):
    """Modules one after the other; takes modules or one OrderedDict of them."""

    def __init__(self, *modules: Any):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for position, module in enumerate(modules):
                self.add_module(str(position), module)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input

    def append(self, module: Module) -> "Sequential":
        self.add_module(str(len(self)), module)
        return self

    def __getitem__(self, position: Any) -> Any:
        items = list(self._modules.items())
        if isinstance(position, slice):
            return Sequential(OrderedDict(items[position]))
        return items[position][1]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())


class _List(Module):
    """What a list of modules and a list of parameters share: numbered names."""

    table = "_modules"

    def __init__(self, items: Iterable[Any] | None = None):
        super().__init__()
        self.extend(items or ())

    def _items(self) -> "OrderedDict[str, Any]":
        return self.__dict__[self.table]

    def _put(self, name: str, item: Any) -> None:
        self.add_module(name, item)

    def _position(self, position: int) -> str:
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is out of range for {len(self)} entries")
        return str(position % len(self))

    def append(self, item: Any) -> Any:
        self._put(str(len(self)), item)
        return self

    def extend(self, items: Iterable[Any]) -> Any:
        for item in items:
            self.append(item)
        return self

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return type(self)(list(self)[position])
        return self._items()[self._position(position)]

    def __setitem__(self, position: int, item: Any) -> None:
        self._put(self._position(position), item)

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._items().values()))

    def __contains__(self, item: Any) -> bool:
        return any(item is other for other in self)


class ModuleList(_List):
    """Modules by number. It has no forward."""

    def insert(self, index: int, module: Module) -> None:
        items = list(self)
        items.insert(index, module)
        self._modules.clear()
        self.extend(items)


class ParameterList(_List):
    """Parameters by number; tensors become parameters."""

    table = "_parameters"

    def _put(self, name: str, item: Any) -> None:
        self.register_parameter(name, item if isinstance(item, Parameter) else Parameter(item))


class _Dict(Module):
    """What a dictionary of modules and one of parameters share."""

    table = "_modules"

    def __init__(self, items: Any = None):
        super().__init__()
        self.update(items or {})

    def _items(self) -> "OrderedDict[str, Any]":
        return self.__dict__[self.table]

    def _put(self, name: str, item: Any) -> None:
        self.add_module(name, item)

    def update(self, items: Any) -> None:
        for name, item in items.items() if isinstance(items, Mapping) or hasattr(items, "items") else items:
            self._put(name, item)

    def __getitem__(self, name: str) -> Any:
        return self._items()[name]

    def __setitem__(self, name: str, item: Any) -> None:
        self._put(name, item)

    def __delitem__(self, name: str) -> None:
        del self._items()[name]
        structure.changed()

    def pop(self, name: str) -> Any:
        item = self[name]
        del self[name]
        return item

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._items()))

    def __contains__(self, name: object) -> bool:
        return name in self._items()

    def keys(self) -> Any:
        return self._items().keys()

    def values(self) -> Any:
        return self._items().values()

    def items(self) -> Any:
        return self._items().items()


class ModuleDict(_Dict):
    """Modules by name. It has no forward."""


class ParameterDict(_Dict):
    """Parameters by name; tensors become parameters."""

    table = "_parameters"

    def _put(self, name: str, item: Any) -> None:
        self.register_parameter(name, item if isinstance(item, Parameter) else Parameter(item))
