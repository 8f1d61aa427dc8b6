# SPDX-License-Identifier: GPL-2.0-only
"""One processor of `-accel tcg`: an engine, a local APIC, and what lies between the two.

The engine knows instructions, page tables and faults. It knows no interrupts: between two runs
we deliver them by hand (accel/x86_events.py), and the exceptions that it reports, too.

    a reason to leave?  INIT, STARTUP?  halted?  an interrupt?  ->  engine.start  ->  why back?

Rules:
R1  The engine is made when the first register is loaded, and anew for each reset: with it goes
    the code that was translated before.
R2  In a callback of the engine nothing may be raised: `_failed` keeps it for `run`.
R3  `engine_cell.flag` is lowered first, then the reasons are looked at, then the engine starts.
    Whoever has a reason writes it first, and then raises the flag: it cannot be missed.
R4  An interrupt right behind STI would come between STI and HLT, and HLT would sleep through
    what the interrupt brought. After PATIENCE tries at one place it was no STI.
R5  An interrupt that cannot be taken yet is tried again after RETRY, then after twice as long each
    time, up to RETRY_MAX. So it is late by no more than the guest has kept it waiting itself.

What went wrong here once: it was tried every 200 us. Each try stops the guest and changes threads,
which costs 90 us, and a guest that polls its disk with interrupts off lost a third of its speed.
"""

from __future__ import annotations

from ctypes import c_uint64

from miniqemu.accel import fault_state, x86_events, x86_rom
from miniqemu.accel.base import AccelError, Registers, Segment, Stop
from miniqemu.accel.libunicorn import (
    ERRORS,
    IDTR,
    INSN_INVALID,
    REGISTERS,
    Cell,
    Engine,
    Table,
    UnicornError,
)
from miniqemu.hw import lapic
from miniqemu.hw.lapic import LocalApic
from miniqemu.machine import debug
from miniqemu.machine.memory import ALL_ONES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from miniqemu.accel.tcg import TcgAccel
    from miniqemu.machine.biglock import BigLock
    from miniqemu.machine.memory import AddressSpace

IF, STI, PATIENCE = 1 << 9, b"\xfb", 3
RETRY, RETRY_MAX = 200_000, 10_000_000  # ns
RIP, RFLAGS = REGISTERS["rip"], REGISTERS["rflags"]
PHYSICAL_END = 1 << 40
POWER_ON_CR0 = 0x6000_0010
INVALID_OPCODE, DOUBLE_FAULT = 6, 8


def power_on_registers() -> Registers:
    """What a processor has after power-on (x86_cpu_reset)."""
    out = Registers()
    out.rip, out.rflags, out.rdx, out.cr0 = 0xFFF0, 2, 0x600, POWER_ON_CR0
    out.cs = Segment(0xF000, 0xFFFF_0000, 0xFFFF, 0x9B00)
    for name in ("ds", "es", "ss", "fs", "gs"):
        setattr(out, name, Segment(0, 0, 0xFFFF, 0x9300))
    out.gdt_limit = out.idt_limit = 0xFFFF
    return out


class TcgVcpu:
    """One processor (CPUState)."""

    def __init__(self, index: int, accel: TcgAccel, space: AddressSpace, big_lock: BigLock) -> None:
        self.index, self.detail = index, ""
        self.accel, self._space, self._lock = accel, space, big_lock
        self.lapic = LocalApic(index, accel.bus)
        self.engine: Engine | None = None
        self.engine_cell = Cell()
        self.turn_over = False
        self._kicked = False
        self._failure: BaseException | None = None
        self._pc, self._flags = c_uint64(), c_uint64()
        self._rom = bytearray(x86_rom.SIZE)
        self.reset()

    # -- What others do with it --------------------------------------------------------------

    def prepare_thread(self) -> None:
        """Any thread will do."""

    def leave_thread(self) -> None:
        """Any thread would do."""

    def kick(self) -> None:
        """Ends the running or the next `run`; any thread."""
        self._kicked = True
        self.accel.wake(self.index)

    def has_work(self) -> bool:
        """Whether it would do something if it had the thread."""
        if self._kicked or self.lapic.startup:
            return True
        if self._waits_for_startup:
            return False
        return not self._halted or (bool(self._flags.value & IF) and self.lapic.pending() >= 0)

    def reset(self) -> None:
        """Power-on state again; others than vCPU 0 then wait for INIT and STARTUP."""
        self._drop_engine()
        self.lapic.reset()
        self._registers = power_on_registers()
        self._halted = False
        self._waits_for_startup = self.index > 0
        self._exception = -1
        self._stop: Stop | None = None
        self._shadow = 0, 0  # R4: where, how often
        self._retry_ns = RETRY  # R5: how long until the next try

    def close(self) -> None:
        """Gives the engine back."""
        self._drop_engine()

    def _drop_engine(self) -> None:
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    # -- The engine ----------------------------------------------------------------------------

    def _make_engine(self) -> Engine:
        engine = Engine(self.accel.cpu_model)
        assert self.accel.ram is not None
        pieces = [(region.base, region.view) for region in self.accel.ram.regions]
        pieces.append((x86_rom.BASE, memoryview(self._rom)))
        end = 0
        for base, view in sorted(pieces, key=lambda piece: piece[0]):
            self._map_registers(engine, end, base)
            engine.map_ram(base, view)
            end = base + len(view)
        self._map_registers(engine, end, PHYSICAL_END)
        engine.hook_ports(self._port_read, self._port_write)
        engine.hook_exceptions(self._on_exception)
        x86_events.leave_long_mode(engine)
        self._read_state = engine.batch([RIP, RFLAGS], [self._pc, self._flags])
        self.engine, self.engine_cell = engine, engine.cell
        return engine

    def _map_registers(self, engine: Engine, start: int, end: int) -> None:
        """All that is not RAM goes to the address space."""
        if start < end:
            read, write = self._mmio_callbacks(start)
            engine.map_mmio(start, end - start, read, write)

    def _mmio_callbacks(self, start: int):  # type: ignore[no-untyped-def]  # two functions
        """Functions for a piece of the physical addresses that begins at `start`."""
        apic, apic_at, big_lock = self.lapic, lapic.BASE - start, self._lock
        mmio_read, mmio_write = self._space.mmio_read, self._space.mmio_write
        apic_read, apic_write = apic.read, apic.write

        def read(engine: int, offset: int, size: int, data: int) -> int:
            try:
                if 0 <= offset - apic_at < lapic.SIZE:
                    return apic_read(offset - apic_at, size)
                with big_lock:
                    value = mmio_read(start + offset, size)
                if debug.enabled:
                    self._log("mmio read", start + offset, size)
                return value
            except BaseException as error:
                return self._failed(error)

        def write(engine: int, offset: int, size: int, value: int, data: int) -> None:
            try:
                if 0 <= offset - apic_at < lapic.SIZE:
                    apic_write(offset - apic_at, size, value)
                    return
                with big_lock:
                    mmio_write(start + offset, size, value & ALL_ONES[size])
                if debug.enabled:
                    self._log("mmio write", start + offset, size)
            except BaseException as error:
                self._failed(error)

        return read, write

    def _port_read(self, engine: int, port: int, size: int, data: int) -> int:
        try:
            with self._lock:
                value = self._space.pio_read(port, size)
            if debug.enabled:
                self._log("in", port, size)
            return value
        except BaseException as error:
            return self._failed(error)

    def _port_write(self, engine: int, port: int, size: int, value: int, data: int) -> None:
        try:
            with self._lock:
                self._space.pio_write(port, size, value & ALL_ONES[size])
            if debug.enabled:
                self._log("out", port, size)
        except BaseException as error:
            self._failed(error)

    def _on_exception(self, engine: int, vector: int, data: int) -> None:
        self._exception = vector
        self.engine_cell.flag = 1

    def _failed(self, error: BaseException) -> int:
        self._failure = error
        self.engine_cell.flag = 1
        return 0

    def _log(self, what: str, addr: int, size: int) -> None:
        debug.log("exits", f"cpu {self.index}: {what} 0x{addr:x} {size} bytes")

    # -- Running ---------------------------------------------------------------------------------

    def run(self) -> Stop:
        """Runs the guest until something needs the machine, or another vCPU the thread."""
        self.turn_over = False
        self.accel.begin(self)
        try:
            while True:
                self.engine_cell.flag = 0
                if self._kicked or self.turn_over:
                    self._kicked = False
                    return Stop.KICKED
                if self.lapic.startup:
                    self._start_up()
                if self._waits_for_startup or self._halted:
                    if not self._may_go_on():
                        return Stop.HALTED
                else:
                    self._enter()
                if self._stop is not None:
                    stop, self._stop = self._stop, None
                    return stop
        finally:
            self.accel.end()

    def _may_go_on(self) -> bool:
        """Halted: waits until there is an interrupt to take; False: another vCPU wants to run."""
        if not self._waits_for_startup and self._interrupt():
            return True
        return self.accel.rest(self)

    def _enter(self) -> None:
        """Runs the engine once, and finds out why it came back."""
        if self.lapic.irr:
            self._interrupt()
        engine = self.engine
        assert engine is not None
        error = engine.start(self._pc.value)
        self._read_state()
        cell = engine.cell
        if cell.stopped:
            cell.stopped = 0
            if self._exception >= 0 or self._failure is not None:
                self._after_callback()
        elif not error:
            self._halted = True
        elif error == INSN_INVALID:
            self._deliver(INVALID_OPCODE)
        else:
            self.detail = f"libunicorn: {ERRORS.get(error, f'error {error}')}"
            self._stop = Stop.INTERNAL_ERROR

    def _after_callback(self) -> None:
        """Stopped because of what a callback left."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        vector, self._exception = self._exception, -1
        assert self.engine is not None
        error = fault_state.take(self.engine)
        if vector == DOUBLE_FAULT and fault_state.offsets() is not None:
            return  # the library's mistake, see there: the instruction faults again
        self._deliver(vector, error)

    def _interrupt(self) -> bool:
        """Delivers the interrupt that is pending; False: there is none, or not now (R4)."""
        if self.lapic.pending() < 0:
            return False
        if not self._flags.value & IF or (not self._halted and self._in_shadow()):
            if not self._halted and self.accel.retry_in(self._retry_ns):
                self._retry_ns = min(2 * self._retry_ns, RETRY_MAX)  # R5
            return False
        self._halted, self._retry_ns = False, RETRY
        self._deliver(self.lapic.take(), external=True)
        return True

    def _in_shadow(self) -> bool:
        """R4."""
        at = self._pc.value
        if self._code_before(at) != STI:
            return False
        count = self._shadow[1] + 1 if self._shadow[0] == at else 1
        self._shadow = at, count
        return count <= PATIENCE

    def _code_before(self, linear: int) -> bytes:
        where = self.translate(linear - 1) if linear else None
        assert self.accel.ram is not None
        return b"" if where is None else x86_events.peek(self.accel.ram, where, 1)

    def _deliver(self, vector: int, error: int = 0, external: bool = False) -> None:
        engine, ram = self.engine, self.accel.ram
        assert engine is not None
        assert ram is not None
        if debug.enabled:
            debug.log("int", f"cpu {self.index}: vector {vector} at 0x{self._pc.value:x}")
        try:
            if not x86_events.deliver(engine, ram, vector, error, external):
                self._stop = Stop.SHUTDOWN
        except x86_events.NotModelled as what:
            self.detail = f"not modelled by -accel tcg: {what}"
            self._stop = Stop.INTERNAL_ERROR
        self._read_state()

    # -- INIT and STARTUP ------------------------------------------------------------------------

    def _start_up(self) -> None:
        """The message that another processor sent (do_cpu_init, do_cpu_sipi)."""
        with self.accel.lock:
            mode, page = self.lapic.startup.pop(0)
        if mode == lapic.INIT:
            self._registers = power_on_registers()
            self._drop_engine()
            self.lapic.reset(keep=True)
            self._waits_for_startup, self._halted = True, False
        elif self._waits_for_startup:
            self._waits_for_startup = False
            registers = power_on_registers()
            registers.rip, registers.cs = 0, Segment(page << 8, page << 12, 0xFFFF, 0x9B00)
            self.load(registers)

    # -- Registers -------------------------------------------------------------------------------

    def registers(self) -> Registers:
        """A copy of the registers."""
        engine = self.engine
        if engine is None:
            self._registers.halted = self._halted or self._waits_for_startup
            return self._registers
        assert self.accel.ram is not None
        out = x86_events.read_registers(engine, self.accel.ram)
        out.halted = self._halted
        return out

    def translate(self, linear: int) -> int | None:
        """The physical address of a linear one, by the guest's page tables."""
        if self.engine is None:
            return linear
        return self.engine.translate(linear)

    def load(self, registers: Registers) -> None:
        """Sets all registers; for real mode: CS, RIP and IDTR, on a new engine (x86_rom.py)."""
        try:
            engine = self.engine or self._make_engine()
            if registers.cr0 & x86_events.PE:
                x86_events.write_registers(engine, registers)
            else:
                self._rom[:] = x86_rom.page(registers.cs.selector, registers.rip & 0xFFFF)
                engine.write(RIP, x86_rom.BASE)
                engine.write_table(IDTR, Table(0, registers.idt_base, registers.idt_limit, 0))
        except UnicornError as error:
            raise AccelError(f"-accel tcg: {error}") from None
        self._halted = registers.halted
        self._read_state()
