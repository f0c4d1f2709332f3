"""What other packages add to a registry: by entry points, which every process finds, or by a call, for one process."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, Protocol, TypeVar

from imgrec_lib.errors import InputError, one_line


class _Card(Protocol):
    """What a registry holds: anything with a name."""

    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=_Card)


class Additions(Generic[C]):
    """The cards that other packages add to a registry of imgrec's.

    Args:
        group: the entry points' group; each names a card.
        kind: the class of the cards.
        taken: the names of imgrec's own cards.
    """

    def __init__(self, group: str, kind: type[C], taken: list[str]) -> None:
        self.group, self.kind, self.taken = group, kind, frozenset(taken)
        self._announced: dict[str, C] | None = None
        self._registered: dict[str, C] = {}

    def register(self, card: C) -> None:
        """Add a card for this process; one of the same name that was added so before is replaced.

        Raises:
            InputError: the name is that of a card of imgrec's, or this is no card.
        """
        self._registered[self._checked(card, "what is registered").name] = card

    def by_name(self) -> dict[str, C]:
        """The cards of installed packages, and those that were registered.

        Raises:
            InputError: an installed package announces something that cannot be imported or is no such card.
        """
        if self._announced is None:
            cards = [self._loaded(entry.name, entry.load) for entry in entry_points(group=self.group)]
            self._announced = {card.name: card for card in cards}
        return self._announced | self._registered

    def _loaded(self, name: str, load: Callable[[], C]) -> C:
        try:
            card = load()
        except Exception as error:  # whatever another package's import may raise
            raise InputError(
                f"the entry point {name!r} of {self.group} cannot be imported ({one_line(error)}): mend or uninstall "
                "its package."
            ) from error
        return self._checked(card, f"the entry point {name!r} of {self.group}")

    def _checked(self, card: C, what: str) -> C:
        if not isinstance(card, self.kind):
            raise InputError(f"{what} must be a {self.kind.__name__}, not {type(card).__name__}.")
        if card.name in self.taken:
            raise InputError(f"{what} is called {card.name!r}, as one of imgrec's own is: choose another name.")
        return card
