# SPDX-License-Identifier: GPL-2.0-only
"""Fields side by side on a disk, by name: for headers that are read in every start.

    PLACE = Record(">", size="Q", crypt_method="I")     # struct's byte order and letters
    PLACE.parse(data).size                              # 2**30
    PLACE.build({"size": 2**30, "crypt_method": 0})     # 12 bytes

Headers that repeat or depend on themselves (LUKS) are declared with `construct`, which does much
more and takes 40 ms to load: a third of what a whole `convert` of an image of 1 GiB may take.

Pure functions; any thread.
"""

from __future__ import annotations

from block.lean import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Fields:
    """The values of one or more records, as attributes."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, values: Mapping[str, object]) -> None:
        self.__dict__.update(values)

    def update(self, values: Mapping[str, object]) -> None:
        """Adds values, or changes them."""
        self.__dict__.update(values)

    def values(self) -> dict[str, Any]:
        """All values by name, for build()."""
        return self.__dict__


class Record:
    """A row of fields without gaps; `size` in bytes."""

    __slots__ = ("names", "size", "struct")

    def __init__(self, byte_order: str, **letters: str) -> None:
        self.struct = Struct(byte_order + "".join(letters.values()))
        self.names = tuple(letters)
        self.size = self.struct.size

    def parse(self, data: bytes | bytearray | memoryview, offset: int = 0) -> Fields:
        """Reads the fields at an offset. Raises struct.error where the data end before them."""
        return Fields(dict(zip(self.names, self.struct.unpack_from(data, offset), strict=True)))

    def build(self, values: Mapping[str, Any]) -> bytes:
        """Writes the fields; other values are passed over. Raises KeyError for one that lacks."""
        return self.struct.pack(*(values[name] for name in self.names))
