# SPDX-License-Identifier: GPL-2.0-only
"""libunicorn, as far as the accelerator needs it: QEMU's TCG as a library, over ctypes.

    engine = Engine()
    engine.map_ram(0, view); engine.map_mmio(0x8000000, size, read, write)
    error = engine.start(pc)          runs until HLT, an error, or `engine.cell.flag`

The `unicorn` package brings the library. Its own Python layer is left aside: importing that
takes 40 ms where loading the library takes 7, and each of its calls twice the time.

Rules:
R1  One thread at a time uses an engine. The exception is `cell.flag`: any thread may set it.
R2  `uc_emu_stop` is never called by us. Setting `cell.flag` ends the running or the next `start`
    at the beginning of a block of instructions: exactly between two instructions. A flag that is
    set before the start, or inside a callback, is not lost.
R3  Callbacks may not raise: ctypes would print the exception and drop it.

Discussion (R2). `uc_emu_stop` from another thread ends the guest behind the next load or store, and
goes back to the beginning of that instruction: one that reads, changes and writes memory is then
done twice. Measured with `inc dword [rdx]` in a loop: 14,214 stops left 10,627 increments too
many. And a stop that comes before `uc_emu_start` has begun is forgotten. So a hook stands in
front of each block and looks at the flag. In Python it would cost 0.5 us a block; it is five
instructions of machine code for the host (STUBS) at a cost of 1 to 2 ns, which call
`uc_emu_stop` where that is exact. On a host that STUBS does not know it is a Python function.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from ctypes import CFUNCTYPE, POINTER, c_char, c_int, c_size_t, c_uint32, c_uint64, c_void_p

from miniqemu.accel.base import AccelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NAMES = ("libunicorn.so.2", "libunicorn.2.dylib", "unicorn.dll")
ARCH_X86, MODE_64 = 4, 8
ALL_ACCESS = 7
HOOK_INTR, HOOK_INSN, HOOK_BLOCK = 1, 2, 8
INSN_IN, INSN_OUT = 218, 500
ERRORS = {
    6: "a read of memory that is not there", 7: "a write to memory that is not there",
    8: "the guest runs where there is no memory", 13: "a read that is not allowed",
    14: "the guest runs where there is no memory", 21: "an exception that nobody handles",
}  # fmt: skip
INSN_INVALID = 10
REGISTERS = {
    "rax": 35, "rbp": 36, "rbx": 37, "rcx": 38, "rdi": 39, "rdx": 40, "rip": 41, "rsi": 43,
    "rsp": 44, "r8": 106, "r9": 107, "r10": 108, "r11": 109, "r12": 110, "r13": 111, "r14": 112,
    "r15": 113, "rflags": 25, "cr0": 50, "cr2": 52, "cr3": 53, "cr4": 54, "cs": 11, "ds": 17,
    "es": 28, "fs": 32, "gs": 33, "ss": 49, "fs_base": 250, "gs_base": 251,
}  # fmt: skip
CPU_MODELS = {"qemu64": 0, "kvm64": 3}  # any other name: Haswell, the library's own choice
SET_USE_EXITS = 4 | 1 << 26 | 1 << 30  # uc_ctl: UC_CTL_UC_USE_EXITS, one argument, written
SET_CPU_MODEL = 7 | 1 << 26 | 1 << 30
IDTR, GDTR, LDTR, TR, MSR = 242, 243, 244, 245, 248

# cmp dword [rcx], 0; jne 1f; ret; 1: mov dword [rcx + 4], 1; jmp [rcx + 8]      (cell in RCX)
STUBS = {
    "x86_64": bytes.fromhex("833900 7501 c3 c7410401000000 ff6108"),
}

ReadCallback = CFUNCTYPE(c_uint64, c_void_p, c_uint64, c_uint32, c_void_p)
WriteCallback = CFUNCTYPE(None, c_void_p, c_uint64, c_uint32, c_uint64, c_void_p)
InCallback = CFUNCTYPE(c_uint32, c_void_p, c_uint32, c_int, c_void_p)
OutCallback = CFUNCTYPE(None, c_void_p, c_uint32, c_int, c_uint32, c_void_p)
IntrCallback = CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
BlockCallback = CFUNCTYPE(None, c_void_p, c_uint64, c_uint32, c_void_p)

PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "uc_open": (c_int, c_int, POINTER(c_void_p)),
    "uc_close": (c_void_p,),
    "uc_mem_map_ptr": (c_void_p, c_uint64, c_size_t, c_uint32, c_void_p),
    "uc_mmio_map": (c_void_p, c_uint64, c_size_t, c_void_p, c_void_p, c_void_p, c_void_p),
    "uc_reg_read": (c_void_p, c_int, c_void_p),
    "uc_reg_write": (c_void_p, c_int, c_void_p),
    "uc_reg_read_batch": (c_void_p, c_void_p, c_void_p, c_int),
    "uc_vmem_translate": (c_void_p, c_uint64, c_int, c_void_p),
    "uc_context_alloc": (c_void_p, POINTER(c_void_p)),
    "uc_context_size": (c_void_p,),
    "uc_context_save": (c_void_p, c_void_p),
    "uc_context_restore": (c_void_p, c_void_p),
    "uc_context_free": (c_void_p,),
    "uc_emu_start": (c_void_p, c_uint64, c_uint64, c_uint64, c_size_t),
}


class Cell(ctypes.Structure):
    """What the stub looks at: `flag` is set by who wants a stop, `stopped` by the stub."""

    _fields_ = (("flag", c_uint32), ("stopped", c_uint32), ("emu_stop", c_void_p))


class Table(ctypes.Structure):
    """A descriptor table's register (uc_x86_mmr)."""

    _fields_ = (
        ("selector", ctypes.c_uint16), ("base", c_uint64), ("limit", c_uint32),
        ("flags", c_uint32),
    )  # fmt: skip


class Msr(ctypes.Structure):
    """A model-specific register (uc_x86_msr)."""

    _fields_ = (("number", c_uint32), ("value", c_uint64))


class Library:
    """The loaded library. Short calls keep the interpreter's lock, `start` gives it away."""

    def __init__(self, path: str) -> None:
        short = ctypes.PyDLL(path)
        for name, arguments in PROTOTYPES.items():
            getattr(short, name).argtypes = arguments
        short.uc_context_size.restype = c_size_t
        self.hook_add = short.uc_hook_add  # takes a varying number of arguments
        self.short = short
        long = ctypes.CDLL(path)
        self.start = long.uc_emu_start
        self.start.argtypes = PROTOTYPES["uc_emu_start"]
        self.emu_stop_at = ctypes.cast(long.uc_emu_stop, c_void_p).value
        self.stub = _executable(STUBS.get(os.uname().machine if hasattr(os, "uname") else "", b""))


def _executable(code: bytes) -> Any:
    """The code in memory that may run, None where that cannot be had."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except (OSError, AttributeError, TypeError):
        return None
    page[: len(code)] = code
    return (c_char * len(page)).from_buffer(page) if code else None


_library: Library | None = None


def load() -> Library:
    """Loads the library, once. AccelError: it is not installed, or cannot be loaded."""
    global _library
    if _library is None:
        path = find()
        try:
            _library = Library(path)
        except (OSError, AttributeError) as error:
            raise AccelError(f"-accel tcg: {path}: {error}") from None
    return _library


def find(folders: list[str] | None = None) -> str:
    """Where the package has put the library. AccelError: it is not there."""
    for folder in sys.path if folders is None else folders:
        for name in NAMES:
            path = os.path.join(folder, "unicorn", "lib", name)
            if os.path.exists(path):
                return path
    raise AccelError(
        "-accel tcg: the package unicorn is missing: install it with `pip install 'unicorn>=2.1'`"
    )


class UnicornError(Exception):
    """A call that has to work did not."""


class Engine:
    """One processor with its translated code (uc_engine)."""

    def __init__(self, cpu_model: str = "max") -> None:
        self.library = load()
        self._short = self.library.short
        self._handle = c_void_p()
        self._kept: list[Any] = []  # what the library holds pointers to
        self._context = c_void_p()
        self._check("uc_open", ARCH_X86, MODE_64, ctypes.byref(self._handle))
        if cpu_model in CPU_MODELS:
            model = c_int(CPU_MODELS[cpu_model])
            self._check("uc_ctl", self._handle, c_int(SET_CPU_MODEL), model)
        # No address ends a run. (One that did would be looked up after each, and fault, and CR2
        # would be that address and no longer the guest's.)
        self._check("uc_ctl", self._handle, c_int(SET_USE_EXITS), c_int(1))
        self.cell = Cell(0, 0, self.library.emu_stop_at)
        self._value = c_uint64()
        self._value_at = ctypes.byref(self._value)
        self._start = self.library.start
        self._watch_blocks()

    def _check(self, name: str, *arguments: Any) -> None:
        error = getattr(self._short, name)(*arguments)
        if error:
            raise UnicornError(f"{name}: error {error}")

    def close(self) -> None:
        """Gives everything back, guest memory too."""
        if self._handle:
            if self._context:
                self._short.uc_context_free(self._context)
                self._context = c_void_p()
            self._check("uc_close", self._handle)
            self._handle = c_void_p()
            self._kept.clear()

    # -- Memory and hooks --------------------------------------------------------------------

    def map_ram(self, base: int, view: memoryview) -> None:
        """Lets the guest see memory of ours at `base`: no copy."""
        memory = (c_char * len(view)).from_buffer(view)
        self._kept.append(memory)
        at = ctypes.addressof(memory)
        self._check("uc_mem_map_ptr", self._handle, base, len(view), ALL_ACCESS, at)

    def map_mmio(
        self, base: int, size: int, read: Callable[..., int], write: Callable[..., None]
    ) -> None:
        """read(engine, offset, size, _), write(engine, offset, size, value, _)."""
        calls = ReadCallback(read), WriteCallback(write)
        self._kept += calls
        on_read, on_write = (ctypes.cast(call, c_void_p) for call in calls)
        self._check("uc_mmio_map", self._handle, base, size, on_read, None, on_write, None)

    def _hook(self, kind: int, call: Any, data: Any = None, *extra: Any) -> None:
        self._kept.append(call)
        where = c_size_t()
        everywhere = c_uint64(1), c_uint64(0)
        function = ctypes.cast(call, c_void_p)
        arguments = (ctypes.byref(where), c_int(kind), function, data, *everywhere, *extra)
        error = self.library.hook_add(self._handle, *arguments)
        if error:
            raise UnicornError(f"uc_hook_add: error {error}")

    def hook_ports(self, read: Callable[..., int], write: Callable[..., None]) -> None:
        """read(engine, port, size, _), write(engine, port, size, value, _): IN and OUT."""
        self._hook(HOOK_INSN, InCallback(read), None, c_int(INSN_IN))
        self._hook(HOOK_INSN, OutCallback(write), None, c_int(INSN_OUT))

    def hook_exceptions(self, call: Callable[..., None]) -> None:
        """call(engine, vector, _): a fault, a trap, or INT n."""
        self._hook(HOOK_INTR, IntrCallback(call))

    def _watch_blocks(self) -> None:
        """R2: a look at the cell in front of each block."""
        if self.library.stub is not None:
            data = c_void_p(ctypes.addressof(self.cell))
            self._kept.append(self.cell)
            self._hook(HOOK_BLOCK, self.library.stub, data)
        else:
            self._hook(HOOK_BLOCK, BlockCallback(self._look))

    def _look(self, engine: int, address: int, size: int, data: int) -> None:
        """What STUBS do, on a host that they do not know."""
        if self.cell.flag:
            self.cell.stopped = 1
            self._short.uc_emu_stop(self._handle)

    # -- Running -----------------------------------------------------------------------------

    def start(self, pc: int) -> int:
        """Runs the guest from `pc`, without the interpreter's lock; 0 or an error."""
        error: int = self._start(self._handle, pc, 0, 0, 0)
        return error

    # -- Registers ---------------------------------------------------------------------------

    def read(self, register: int) -> int:
        """One register."""
        self._value.value = 0
        self._short.uc_reg_read(self._handle, register, self._value_at)
        return self._value.value

    def write(self, register: int, value: int) -> None:
        """Sets one register; a segment register loads its descriptor as MOV would."""
        self._value.value = value
        self._check("uc_reg_write", self._handle, register, self._value_at)

    def read_table(self, register: int) -> Table:
        """IDTR, GDTR, LDTR or TR."""
        table = Table()
        self._check("uc_reg_read", self._handle, register, ctypes.byref(table))
        return table

    def write_table(self, register: int, table: Table) -> None:
        """Sets one of them."""
        self._check("uc_reg_write", self._handle, register, ctypes.byref(table))

    def read_msr(self, number: int) -> int:
        """RDMSR."""
        msr = Msr(number, 0)
        self._check("uc_reg_read", self._handle, MSR, ctypes.byref(msr))
        return int(msr.value)

    def write_msr(self, number: int, value: int) -> None:
        """WRMSR."""
        self._check("uc_reg_write", self._handle, MSR, ctypes.byref(Msr(number, value)))

    def batch(self, registers: list[int], cells: list[Any]) -> Callable[[], int]:
        """A call that reads several registers at once into `cells` (ctypes objects)."""
        ids = (c_int * len(registers))(*registers)
        places = (c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
        self._kept += [ids, places, cells]
        arguments = self._handle, ids, places, len(cells)
        function = self._short.uc_reg_read_batch
        return lambda: function(*arguments)

    def translate(self, linear: int, access: int = 1) -> int | None:
        """The physical address of a linear one, by the guest's page tables."""
        where = self._value_at
        if self._short.uc_vmem_translate(self._handle, linear, access, where):
            return None
        return self._value.value

    # -- The whole state, in the library's own form --------------------------------------------

    def save_context(self) -> bytes:
        """All that the processor holds (uc_context_save)."""
        if not self._context:
            self._check("uc_context_alloc", self._handle, ctypes.byref(self._context))
        self._check("uc_context_save", self._handle, self._context)
        assert self._context.value is not None
        return ctypes.string_at(self._context.value, self._context_size())

    def restore_context(self, state: bytes) -> None:
        """Puts it back; `state` was saved here, and is as long as then."""
        assert self._context.value is not None
        assert len(state) == self._context_size()
        ctypes.memmove(self._context.value, state, len(state))
        self._check("uc_context_restore", self._handle, self._context)

    def _context_size(self) -> int:
        size: int = self._short.uc_context_size(self._handle)
        return size
