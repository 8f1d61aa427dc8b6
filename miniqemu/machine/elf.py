# SPDX-License-Identifier: GPL-2.0-only
"""Reads a kernel: ELF64 for x86-64 with a PVH note (QEMU's hw/core/loader.c, load_elfboot).

The note ("Xen", type 18, XEN_ELFNOTE_PHYS32_ENTRY) names the address at which the kernel wants
to be entered in 32-bit protected mode. Nothing in the file is believed: each offset and
length is checked against the file before it is used.

Discussion: the layout is two `struct`s and not a `construct` declaration. Importing construct
takes 50 ms, and QEMU has its first byte on the serial line 45 ms after its start.

Source: System V ABI, chapter 4 and 5; Xen's include/public/elfnote.h.
"""

from __future__ import annotations

import os

from block.lean import Struct

EHDR = Struct("<4sBBBBB7xHHIQQQIHHHHHH")  # Elf64_Ehdr
PHDR = Struct("<IIQQQQQQ")  # Elf64_Phdr
NHDR = Struct("<III")  # Elf64_Nhdr
ELFCLASS64, ELFDATA2LSB, ET_EXEC, ET_DYN, EM_X86_64 = 2, 1, 2, 3, 62
PT_LOAD, PT_NOTE = 1, 4
XEN_ELFNOTE_PHYS32_ENTRY = 18
MAX_HEADERS = 128
MAX_NOTES = 1 << 20


class KernelError(Exception):
    """A kernel that cannot be booted; str() names the option, the file and the cause."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"-kernel {path}: {cause}")


class LoadSegment:
    """What goes where: `data` at `paddr`, then zeroes up to `memsz` bytes."""

    __slots__ = ("data", "memsz", "paddr")

    def __init__(self, paddr: int, data: bytes, memsz: int) -> None:
        self.paddr, self.data, self.memsz = paddr, data, memsz


class Kernel:
    """A kernel file, read and checked."""

    __slots__ = ("entry", "path", "segments")

    def __init__(self, path: str, entry: int, segments: list[LoadSegment]) -> None:
        self.path, self.entry, self.segments = path, entry, segments


def load_kernel(path: str) -> Kernel:
    """Reads a kernel (load_elf). KernelError for whatever is wrong with it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(path, error.strerror or str(error)) from None
    try:
        return _Reader(path, fd).kernel()
    except OSError as error:
        raise KernelError(path, error.strerror or str(error)) from None
    finally:
        os.close(fd)


class _Reader:
    """One file, while it is read."""

    def __init__(self, path: str, fd: int) -> None:
        self.path, self.fd = path, fd
        self.size = os.fstat(fd).st_size

    def kernel(self) -> Kernel:
        segments: list[LoadSegment] = []
        entry = None
        for index, phdr in enumerate(self._program_headers()):
            kind, _, offset, _, paddr, filesz, memsz, align = phdr
            what = f"program header {index}"
            if kind == PT_LOAD and memsz:
                if filesz > memsz:
                    raise self._error(f"{what}: p_filesz 0x{filesz:x} > p_memsz 0x{memsz:x}")
                segments.append(LoadSegment(paddr, self._read(offset, filesz, what), memsz))
            elif kind == PT_NOTE and entry is None:
                if filesz > MAX_NOTES:
                    raise self._error(f"{what}: p_filesz 0x{filesz:x} of notes is too large")
                entry = self._pvh_entry(self._read(offset, filesz, what), align)
        if entry is None:
            raise self._error('no PVH note ("Xen", type 18): not a kernel that boots by PVH')
        if not segments:
            raise self._error("no PT_LOAD program header: nothing to load")
        return Kernel(self.path, entry, segments)

    def _program_headers(self) -> list[tuple[int, ...]]:
        head = os.pread(self.fd, EHDR.size, 0)
        if head[:4] != b"\x7fELF":
            raise self._error("not an ELF file")
        if len(head) < EHDR.size:
            raise self._error("the ELF header is cut off")
        _, elf_class, data, _, _, _, kind, machine, *rest = EHDR.unpack(head)
        if elf_class != ELFCLASS64 or data != ELFDATA2LSB or machine != EM_X86_64:
            raise self._error("not an ELF file for x86-64")
        if kind not in (ET_EXEC, ET_DYN):
            raise self._error(f"e_type {kind}: not an executable")
        phoff, phentsize, phnum = rest[2], rest[6], rest[7]
        if phentsize != PHDR.size:
            raise self._error(f"e_phentsize {phentsize} is not {PHDR.size}")
        if phnum > MAX_HEADERS:
            raise self._error(f"e_phnum {phnum} > {MAX_HEADERS}")
        table = self._read(phoff, phnum * PHDR.size, "program headers")
        return list(PHDR.iter_unpack(table))

    def _pvh_entry(self, notes: bytes, align: int) -> int | None:
        """Looks for the note (read_pvh_start_addr). Names and values are padded to `align`."""
        pad = 7 if align == 8 else 3
        at = 0
        while at + NHDR.size <= len(notes):
            namesz, descsz, kind = NHDR.unpack_from(notes, at)
            name_at = at + NHDR.size
            desc_at = at + (NHDR.size + namesz + pad & ~pad)
            at = desc_at + (descsz + pad & ~pad)
            if desc_at + descsz > len(notes):
                raise self._error(f"a note of 0x{namesz:x} + 0x{descsz:x} bytes is cut off")
            if kind == XEN_ELFNOTE_PHYS32_ENTRY and notes[name_at : name_at + namesz] == b"Xen\0":
                if descsz not in (4, 8):
                    raise self._error(f"PVH note: the entry has {descsz} bytes, not 4 or 8")
                entry = int.from_bytes(notes[desc_at : desc_at + descsz], "little")
                if entry >= 1 << 32:
                    raise self._error(f"PVH note: the entry 0x{entry:x} is above 4 GiB")
                return entry
        return None

    def _read(self, offset: int, length: int, what: str) -> bytes:
        if offset + length > self.size:
            end = f"0x{offset:x} + 0x{length:x} bytes"
            raise self._error(f"{what}: {end} is past the end of the file (0x{self.size:x})")
        data = os.pread(self.fd, length, offset)
        if len(data) != length:
            raise self._error(f"{what}: the file became shorter while it was read")
        return data

    def _error(self, cause: str) -> KernelError:
        return KernelError(self.path, cause)
