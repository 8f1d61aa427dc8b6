# SPDX-License-Identifier: GPL-2.0-only
"""Which images the interoperability matrix makes: every format with its options.

A Kind is one way to make an image, and what is done with it besides writing. All values of all
options together would be thousands of images; `pairs` chooses few in which every value of an option
still meets every value of every other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

ODD = 7 * 512  # no disk is a whole number of clusters
PLAIN = frozenset({"no", "off", "none"})  # values of an option that is not used

Options = dict[str, str]
Axes = Mapping[str, tuple[str, ...]]


class Kind(NamedTuple):
    """One way to make an image. Options are qemu-img's, spelled as there. What comes besides:

    backing    it stands over a raw file half as long
    packed     some compressed clusters come first
    snapshot   whoever begins takes one half-way; the other goes back to it in the end
    bitmap     whoever begins adds one, and it notes what both write
    resize     whoever begins makes the disk longer, the other shorter, and the first longer again
    once       it is written in one go, by convert
    """

    fmt: str
    options: Options
    backing: bool = False
    packed: bool = False
    snapshot: bool = False
    bitmap: bool = False
    resize: bool = False
    once: bool = False

    def __str__(self) -> str:
        return "-".join([self.fmt, *(f"{k}={v}" for k, v in self.options.items()), *self.extras])

    @property
    def extras(self) -> list[str]:
        """What comes besides the options, by name."""
        names = ("backing", "packed", "snapshot", "bitmap", "resize")
        return [name for name in names if getattr(self, name)]

    @property
    def unit(self) -> int:
        """What is allocated together: a cluster or a grain."""
        size = self.options.get("cluster_size", "65536")
        return int(size.removesuffix("M")) << 20 if size.endswith("M") else int(size)

    @property
    def size(self) -> int:
        """The disk's length at first: some dozens of clusters."""
        return min(max(64 * self.unit, 1 << 18), 6 << 20) * (2 if self.unit > 1 << 20 else 1) + ODD

    @property
    def encryption(self) -> str:
        """ "luks" or "aes", or "" where nothing is encrypted."""
        return "luks" if self.fmt == "luks" else self.options.get("encrypt.format", "")

    @property
    def shrinks(self) -> bool:
        """Whether the format can make this disk shorter."""
        return self.fmt != "qed" and not self.snapshot


# What qcow2 has. `data`: none, a data file, one that is raw.
QCOW2: Axes = {
    "cluster_size": ("512", "4096", "16384", "65536", "2M"),
    "refcount_bits": ("1", "2", "4", "8", "16", "32", "64"),
    "extended_l2": ("off", "on"),
    "data": ("no", "file", "raw"),
    "lazy_refcounts": ("off", "on"),
    "preallocation": ("off", "metadata", "falloc", "full"),
    "compression_type": ("none", "zlib", "zstd"),
    "snapshot": ("no", "yes"),
    "backing": ("no", "yes"),
}
# What else a qcow2 image lives through. Apart from the first, or there would be millions.
QCOW2_LIFE: Axes = {
    "cluster_size": ("512", "16384", "65536"),
    "extended_l2": ("off", "on"),
    "data": ("no", "file", "raw"),
    "encrypt.format": ("none", "luks", "aes"),
    "bitmap": ("no", "yes"),
    "resize": ("no", "yes"),
    "snapshot": ("no", "yes"),
    "backing": ("no", "yes"),
}
QED: Axes = {
    "cluster_size": ("4096", "65536", "1M"),
    "table_size": ("2", "4", "16"),  # with 1 QEMU makes images that it cannot open
    "backing": ("no", "yes"),
    "resize": ("no", "yes"),
}
VMDK: Axes = {
    "subformat": (
        "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
    ),
    "zeroed_grain": ("off", "on"),
    "compat6": ("off", "on"),
    "adapter_type": ("ide", "lsilogic"),
    "backing": ("no", "yes"),
}  # fmt: skip
RAW: Axes = {
    "offset": ("0", "1048576", "66048"),
    "rest": ("0", "131072"),
    "resize": ("no", "yes"),
}
LUKS: Axes = {
    "cipher-alg": ("aes-128", "aes-256"),  # of aes-192 QEMU's tools die: half a sector of keys
    "cipher-mode": ("xts", "cbc", "ctr", "ecb"),
    "ivgen-alg": ("plain64", "plain", "essiv"),
    "hash-alg": ("sha256", "sha1", "sha512"),
    "resize": ("no", "yes"),
}
OTHER_HASHES = ("md5", "sha224", "sha384", "ripemd160")
OTHER_CIPHERS = ("serpent-128", "serpent-192", "serpent-256", "twofish-128", "twofish-192",
                 "twofish-256")  # fmt: skip
LUKS_CAST5 = ("cbc", "ctr", "ecb")  # xts takes blocks of 16 bytes


def can_be(fmt: str, row: Options) -> bool:
    """Whether an image can be made with these values."""
    backing = row.get("backing") == "yes"
    if fmt == "vmdk":
        flat = row["subformat"].endswith("Flat")
        return not (flat and (backing or row["zeroed_grain"] == "on"))
    if fmt == "raw":  # with an offset or a size it is a window, which nobody moves
        return row["resize"] == "no" or row["offset"] == row["rest"] == "0"
    return fmt != "qcow2" or qcow2_can_be(row)


def qcow2_can_be(row: Options) -> bool:
    """As can_be, of qcow2.

    A raw data file has every cluster from the beginning; encrypted, a new disk would read as noise.
    """
    has = {name for name, value in row.items() if value not in PLAIN}
    return not (
        (row["extended_l2"] == "on" and row["cluster_size"] in ("512", "4096"))
        or (row["data"] == "raw" and {"backing", "encrypt.format"} & has)
        or ({"backing", "preallocation"} <= has and "extended_l2" not in has)
        or {"compression_type", "data"} <= has
        or {"compression_type", "preallocation"} <= has
        or {"snapshot", "data"} <= has
        or ("snapshot" in has and row.get("refcount_bits") == "1")
    )


def rows(fmt: str, axes: Axes) -> list[Options]:
    """All combinations that can be."""
    names = list(axes)
    every = (dict(zip(names, values, strict=True)) for values in itertools.product(*axes.values()))
    return [row for row in every if can_be(fmt, row)]


def pairs(every: list[Options]) -> list[Options]:
    """Few rows, in which each two values of two options that can meet do so (greedy).

    Each pair of values has a bit, and each row a number with the bits of its pairs.
    """
    bits: dict[tuple[tuple[str, str], tuple[str, str]], int] = {}
    meets = []
    for row in every:
        met = itertools.combinations(row.items(), 2)
        meets.append(sum(bits.setdefault(pair, 1 << len(bits)) for pair in met))
    left = (1 << len(bits)) - 1
    chosen = []
    while left:
        news = [(met & left).bit_count() for met in meets]
        best = news.index(max(news))
        chosen.append(every[best])
        left &= ~meets[best]
    return chosen


def kind_of(fmt: str, row: Options) -> Kind:
    """The kind that a row of a format's table stands for."""
    packed = row.get("compression_type", "none") != "none"
    flags = {name: row.get(name) == "yes" for name in ("backing", "snapshot", "bitmap", "resize")}
    left_out = {"data", *flags, *(name for name, value in row.items() if value == "none")}
    options = {name: value for name, value in row.items() if name not in left_out}
    if row.get("data", "no") != "no":
        options["data_file"] = "data.raw"
    if row.get("data") == "raw":
        options["data_file_raw"] = "on"
    if options.get("ivgen-alg") == "essiv":
        options["ivgen-hash-alg"] = "sha256"
    return Kind(fmt, options, packed=packed, **flags)


def kinds(every: bool = False) -> list[Kind]:
    """All kinds of the matrix; with `every`, each combination instead of each pair."""
    choose = (lambda table: table) if every else pairs
    found = [
        Kind("qcow2", {"compat": "0.10", "cluster_size": size}, backing)
        for size in QCOW2["cluster_size"]
        for backing in (False, True)
    ]
    tables = (
        *(("qcow2", QCOW2), ("qcow2", QCOW2_LIFE), ("qed", QED), ("vmdk", VMDK), ("raw", RAW)),
        ("luks", LUKS),
    )
    for fmt, axes in tables:
        found += [kind_of(fmt, row) for row in choose(rows(fmt, axes))]
    found += [Kind("luks", {"hash-alg": name}) for name in OTHER_HASHES]
    found += [Kind("luks", {"cipher-alg": name}) for name in OTHER_CIPHERS]
    found += [Kind("luks", {"cipher-alg": "cast5-128", "cipher-mode": mode}) for mode in LUKS_CAST5]
    return [*found, Kind("vmdk", {"subformat": "streamOptimized"}, once=True)]
