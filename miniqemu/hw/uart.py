# SPDX-License-Identifier: GPL-2.0-only
"""The serial port: a 16550A with its FIFOs and interrupts (hw/char/serial.c).

What the guest sends goes to a character device at once: no time passes on the line, only in
the receiver's timeout (four characters), so that a guest which waits for "FIFO half full"
still gets the last key. A slow terminal holds the transmitter: THRE stays clear until the
character device takes bytes again.

Rules:
R1  All methods are called under the big lock: registers by a vCPU's thread, the character
    device's handlers by the main loop.
R2  The interrupt line is high exactly while IIR names a cause (IIR bit 0 clear).
R3  Nothing polls: an idle guest costs nothing.

Source: National Semiconductor PC16550D data sheet.
"""

from __future__ import annotations

from block.aio.world import ClockType
from block.lean import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext
    from block.aio.timer import Timer
    from miniqemu.chardev.base import Chardev, Event
    from miniqemu.machine.irq import IrqLine

FIFO_SIZE = 16
RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR = range(8)

IER_RDI, IER_THRI, IER_RLSI, IER_MSI = 1, 2, 4, 8
# IIR: the cause, in the order of the data sheet's priorities.
IIR_RLSI, IIR_RDI, IIR_CTI, IIR_THRI, IIR_MSI, IIR_NO_INT = 0x06, 0x04, 0x0C, 0x02, 0x00, 0x01
IIR_FIFO_ENABLED = 0xC0
FCR_ENABLE, FCR_CLEAR_RECEIVER, FCR_CLEAR_TRANSMITTER, FCR_KEPT = 1, 2, 4, 0xC9
TRIGGER_LEVELS = (1, 4, 8, 14)
LCR_DLAB = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 1, 2, 4, 8, 0x10
LSR_DR, LSR_OE, LSR_BI, LSR_THRE, LSR_TEMT = 1, 2, 0x10, 0x20, 0x40
LSR_ERRORS = 0x1E
MSR_DELTAS, MSR_CTS, MSR_DSR, MSR_DCD = 0x0F, 0x10, 0x20, 0x80
CLOCK_HZ = 115200
NS = 1_000_000_000
BYTES = tuple(bytes((value,)) for value in range(256))


class Uart16550:
    """One serial port of 8 I/O ports (SerialState)."""

    name, size = "serial", 8

    def __init__(self, base: int, irq: IrqLine, chardev: Chardev, context: AioContext) -> None:
        self.base, self._irq, self._chardev, self._context = base, irq, chardev, context
        self._timer: Timer = context.timer_new(ClockType.VIRTUAL, self._timed_out, owner=self)
        self._received: deque[int] = deque()
        self._sending = bytearray()  # what the character device would not take yet
        self.reset()
        chardev.set_handlers(self.can_receive, self.receive, self.event)

    def reset(self) -> None:
        """Power-on values (serial_reset)."""
        self._received.clear()
        self._sending.clear()
        self._timer.cancel()
        self.ier = self.lcr = self.scr = self.fcr = 0
        self.mcr, self.lsr, self.msr = MCR_OUT2, LSR_THRE | LSR_TEMT, MSR_DCD | MSR_DSR | MSR_CTS
        self.divider, self._trigger = 0x0C, 1
        self._thr_pending = self._timeout_pending = False
        self.iir = IIR_NO_INT
        self._irq.set_level(False)

    # -- interrupts -------------------------------------------------------------------------

    def _cause(self) -> int:
        """The highest cause that is enabled and pending (data sheet, table IV)."""
        ier, lsr = self.ier, self.lsr
        if ier & IER_RLSI and lsr & LSR_ERRORS:
            return IIR_RLSI
        if ier & IER_RDI and self._timeout_pending:
            return IIR_CTI
        full = not self.fcr & FCR_ENABLE or len(self._received) >= self._trigger
        if ier & IER_RDI and lsr & LSR_DR and full:
            return IIR_RDI
        if ier & IER_THRI and self._thr_pending:
            return IIR_THRI
        if ier & IER_MSI and self.msr & MSR_DELTAS:
            return IIR_MSI
        return IIR_NO_INT

    def _update_irq(self) -> None:
        """R2 (serial_update_irq)."""
        cause = self._cause()
        self.iir = cause | (IIR_FIFO_ENABLED if self.fcr & FCR_ENABLE else 0)
        self._irq.set_level(cause != IIR_NO_INT)

    # -- registers --------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """An `in` of one port; wider ones read the first (serial_ioport_read)."""
        if offset == LSR:
            return self._read_lsr()
        if offset == RBR_THR:
            return self.divider & 0xFF if self.lcr & LCR_DLAB else self._read_rbr()
        if offset == IER:
            return self.divider >> 8 if self.lcr & LCR_DLAB else self.ier
        if offset == IIR_FCR:
            return self._read_iir()
        if offset == MSR:
            return self._read_msr()
        return (self.lcr, self.mcr, self.scr)[(LCR, MCR, SCR).index(offset)]

    def write(self, offset: int, size: int, value: int) -> None:
        """An `out` to one port (serial_ioport_write)."""
        value &= 0xFF
        if offset == RBR_THR:
            if self.lcr & LCR_DLAB:
                self.divider = self.divider & 0xFF00 | value
            else:
                self._write_thr(value)
        elif offset == IER:
            if self.lcr & LCR_DLAB:
                self.divider = self.divider & 0x00FF | value << 8
            else:
                self._write_ier(value & 0x0F)
        elif offset == IIR_FCR:
            self._write_fcr(value)
        elif offset == LCR:
            self.lcr = value
        elif offset == MCR:
            self.mcr = value & 0x1F
        elif offset == SCR:
            self.scr = value

    def _read_lsr(self) -> int:
        """Overrun and break are told once."""
        value = self.lsr
        if value & (LSR_BI | LSR_OE):
            self.lsr &= ~(LSR_BI | LSR_OE)
            self._update_irq()
        return value

    def _read_iir(self) -> int:
        """Reading "transmitter empty" acknowledges it."""
        value = self.iir
        if value & 0x0F == IIR_THRI:
            self._thr_pending = False
            self._update_irq()
        return value

    def _read_msr(self) -> int:
        """In loop mode the outputs come back as inputs; else the deltas are told once."""
        mcr = self.mcr
        if mcr & MCR_LOOP:
            value = (mcr & (MCR_OUT1 | MCR_OUT2)) << 4
            return value | (mcr & MCR_RTS) << 3 | (mcr & MCR_DTR) << 5
        value = self.msr
        if value & MSR_DELTAS:
            self.msr &= ~MSR_DELTAS
            self._update_irq()
        return value

    def _write_ier(self, value: int) -> None:
        """Enabling "transmitter empty" while it is empty gives the interrupt at once; old
        drivers rely on it, although the data sheet does not say so.
        """
        if (value ^ self.ier) & IER_THRI:
            self._thr_pending = bool(value & IER_THRI and self.lsr & LSR_THRE)
        self.ier = value
        self._update_irq()

    def _write_fcr(self, value: int) -> None:
        """Turning FIFOs on or off empties both; the trigger level is in the upper bits."""
        if (value ^ self.fcr) & FCR_ENABLE:
            value |= FCR_CLEAR_RECEIVER | FCR_CLEAR_TRANSMITTER
        if value & FCR_CLEAR_RECEIVER:
            self._received.clear()
            self.lsr &= ~(LSR_DR | LSR_BI)
            self._timeout_pending = False
            self._chardev.accept_input()
        if value & FCR_CLEAR_TRANSMITTER:
            self._sending.clear()
            self._transmitter_empty()
        self.fcr = value & FCR_KEPT
        self._trigger = TRIGGER_LEVELS[value >> 6]
        self._update_irq()

    # -- transmitter ------------------------------------------------------------------------

    def _write_thr(self, value: int) -> None:
        """One byte to send (serial_xmit). The line drops in between: each byte is an edge."""
        self._thr_pending = False
        if self.ier & IER_THRI:
            self._update_irq()
        if self.mcr & MCR_LOOP:
            self.receive(BYTES[value])
            self._transmitter_empty()
        elif not self._sending and self._chardev.write(BYTES[value]):
            self._transmitter_empty()
        else:
            self._hold_back(value)
        self._update_irq()

    def _transmitter_empty(self) -> None:
        self.lsr |= LSR_THRE | LSR_TEMT
        self._thr_pending = True

    def _hold_back(self, value: int) -> None:
        """The character device is full: keep what the FIFO can keep, drop the oldest beyond."""
        self.lsr &= ~(LSR_THRE | LSR_TEMT)
        waits = bool(self._sending)
        self._sending.append(value)
        del self._sending[: -(FIFO_SIZE if self.fcr & FCR_ENABLE else 1)]
        if not waits:
            self._chardev.when_writable(self._send_rest)

    def _send_rest(self) -> None:
        """The character device takes bytes again (serial_watch_cb); main loop."""
        del self._sending[: self._chardev.write(self._sending)]
        if self._sending:
            self._chardev.when_writable(self._send_rest)
        else:
            self._transmitter_empty()
            self._update_irq()

    # -- receiver ---------------------------------------------------------------------------

    def can_receive(self) -> int:
        """How many bytes fit (serial_can_receive). Up to the trigger level in one go, then one
        by one, so that a guest which reads slowly sees a steady line and not an overrun.
        """
        if self.mcr & MCR_LOOP:
            return 0
        if not self.fcr & FCR_ENABLE:
            return 0 if self.lsr & LSR_DR else 1
        used = len(self._received)
        if used >= FIFO_SIZE:
            return 0
        return self._trigger - used if used < self._trigger else 1

    def receive(self, data: bytes) -> None:
        """Bytes from the line (serial_receive1); main loop, or the guest's own in loop mode."""
        room = FIFO_SIZE if self.fcr & FCR_ENABLE else 1
        for value in data:
            if len(self._received) >= room:
                self.lsr |= LSR_OE
                if room == 1:
                    self._received[0] = value
                continue
            self._received.append(value)
        self.lsr |= LSR_DR
        self._arm_timeout()
        self._update_irq()

    def event(self, event: Event) -> None:
        """A break on the line (serial_receive_break)."""
        if event.name == "BREAK":
            self.receive(b"\0")
            self.lsr |= LSR_BI
            self._update_irq()

    def _read_rbr(self) -> int:
        value = self._received.popleft() if self._received else 0
        self._timeout_pending = False
        if self._received:
            self._arm_timeout()
        else:
            self.lsr &= ~(LSR_DR | LSR_BI)
        self._update_irq()
        self._chardev.accept_input()
        return value

    def _arm_timeout(self) -> None:
        """Four characters without a read: the guest is told of what is below the trigger."""
        if not self.fcr & FCR_ENABLE or len(self._received) >= self._trigger:
            return
        if self._context.is_home():
            self._start_timer()
        else:
            self._context.bh_schedule_oneshot(self._start_timer, owner=self)

    def _start_timer(self) -> None:
        four_characters = 4 * 10 * (self.divider or 1) * NS // CLOCK_HZ
        self._timer.mod(self._context.clock_ns(ClockType.VIRTUAL) + four_characters)

    def _timed_out(self) -> None:
        """The receiver's timeout (fifo_timeout_int)."""
        if self._received and self.fcr & FCR_ENABLE:
            self._timeout_pending = True
            self._update_irq()

    def close(self) -> None:
        """Takes the device off its line."""
        self._chardev.set_handlers(None, None)
        self._timer.delete()
