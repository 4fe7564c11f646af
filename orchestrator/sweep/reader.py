"""Typed access to the values of a sweep file. Errors name the place of the value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import UserError
from orchestrator.sweep.document import Document, YamlPath
from trainers.parts import nearest


class Reader:
    """Typed access to a document. Errors name the place of the value."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def get(self, place: YamlPath, default: Any = None) -> Any:
        value = self.document.data
        for piece in place:
            if isinstance(value, Mapping) and piece not in value:
                return default
            value = value[piece]
        return value

    def fail(self, place: YamlPath, problem: str) -> UserError:
        return self.document.error(place, problem)

    def mapping(
        self, place: YamlPath, known: tuple[str, ...] | None = None, *, empty: bool = False
    ) -> Mapping[str, Any]:
        value = self.get(place, {})
        if value is None and empty:
            return {}
        if not isinstance(value, Mapping):
            raise self.fail(place, f"expected a mapping, got {value!r}")
        for key in value:
            if not isinstance(key, str):
                raise self.fail((*place, str(key)), f"expected text as key, got {key!r}")
            if known is not None and key not in known and not (place == () and key.startswith("x-")):
                raise self.fail((*place, key), f"unknown key{nearest(key, known)}")
        return value

    def text(self, place: YamlPath, default: str) -> str:
        value = self.get(place, default)
        if not isinstance(value, str):
            raise self.fail(place, f"expected text, got {value!r}")
        return value

    def whole(self, place: YamlPath, default: int, *, at_least: int) -> int:
        value = self.get(place, default)
        if type(value) is not int or value < at_least:
            raise self.fail(place, f"expected a whole number of at least {at_least}, got {value!r}")
        return value

    def words(self, place: YamlPath) -> tuple[str, ...]:
        value = self.get(place, [])
        if not isinstance(value, list):
            raise self.fail(place, f"expected a list of overrides such as [trainer=wgan_gp], got {value!r}")
        for index, item in enumerate(value):
            if not isinstance(item, str) or "=" not in item:
                raise self.fail((*place, index), f"expected an override such as trainer=wgan_gp, got {item!r}")
        return tuple(value)

    def amount(self, place: YamlPath, default: float, *, zero: bool = False) -> float:
        value = self.get(place, default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0 or not (value or zero):
            raise self.fail(place, f"expected a number above 0, got {value!r}")
        return float(value)
