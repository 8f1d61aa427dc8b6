# SPDX-License-Identifier: GPL-2.0-only
"""A virtual machine: RAM, processors, devices, run states, and the main loop around them.

    machine = Machine(accel, ram)         main thread; it holds the big lock from here to close()
    machine.space.add_pio(device) ...     the board builds itself
    status = machine.run()                until somebody asks for the end
    machine.close()                       threads joined, descriptors closed, memory unmapped

Rules:
R1  Made, run and closed by one thread, the main thread (that of the main context).
R2  `request_shutdown`, `stop`, `cont` and `reset` may be called from any thread. In another thread,
    or in a callback of the main loop, they ask and return, and the main loop does it after the
    callback: a change waits for vCPUs and drains requests, and the callback may be part of one
    that they wait for. A vCPU's thread that asks executes no further instruction of the guest.
R3  While vCPUs come to rest the main loop goes on (MainLoop.wait_for). What is asked meanwhile is
    done afterwards: two changes of state never overlap.
R4  The order of a stop: vCPUs parked, state set, devices told, block layer drained. The order of
    a reset: vCPUs parked, devices in the order in which they came, interrupt controllers, vCPUs,
    and the board last, which loads the kernel again.

(softmmu/cpus.c, runstate.c, vl.c)
"""

from __future__ import annotations

import sys

from block.aio.switch_interval import restore_switch_interval, shorten_switch_interval
from block.aio.world import World, the_world
from block.lean import deque
from miniqemu.accel.base import Stop
from miniqemu.machine import debug
from miniqemu.machine.biglock import BigLock
from miniqemu.machine.irq import IrqLine
from miniqemu.machine.main_loop import MainLoop
from miniqemu.machine.memory import AddressSpace
from miniqemu.machine.runstate import RunState, RunStates
from miniqemu.machine.vcpu_thread import VcpuThread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from miniqemu.accel.base import Accelerator, Vcpu
    from miniqemu.machine.memory import GuestMemory

FAILED = 1  # exit status when the guest cannot go on


class Machine:
    """A machine without a board (MachineState); see machine/microvm.py for the board."""

    def __init__(
        self,
        accel: Accelerator,
        ram: GuestMemory,
        *,
        vcpus: int = 1,
        no_reboot: bool = False,
        world: World | None = None,
    ) -> None:
        self.world = world or the_world()
        self.main_context = self.world.main_context
        self._main_thread = self.world.current()
        self.big_lock = BigLock(self.world)
        self.big_lock.acquire()
        self.accel, self.ram, self.no_reboot = accel, ram, no_reboot
        self.space = AddressSpace(ram, accel)
        self.loop = MainLoop(self.main_context, self.big_lock)
        self.states = RunStates()
        self.report: Callable[[str], None] = _to_stderr
        self.power_off: int | None = None  # what the guest wrote to the power-off port
        self.boot: Callable[[], None] = _nothing  # loads the kernel; the last of a reset
        accel.map_ram(ram)
        self.vcpus = [accel.create_vcpu(i, self.space, self.big_lock) for i in range(vcpus)]
        self.threads: list[VcpuThread] = []
        self._resets: list[Callable[[], None]] = []
        self._closers: list[Callable[[], None]] = []
        self._stopped: deque[tuple[Vcpu, Stop]] = deque()
        self._later: deque[Callable[[], None]] = deque()  # R3
        self._changing = False
        self._outcome: tuple[int, str] | None = None
        self._failure: BaseException | None = None
        self._short_interval = False
        self._closed = False

    # -- building ---------------------------------------------------------------------------

    def irq(self, gsi: int) -> IrqLine:
        """A wire to pin `gsi` of the interrupt controllers."""
        return IrqLine(gsi, self.accel, self.world)

    def on_reset(self, callback: Callable[[], None]) -> None:
        """Called at power-on and at each reset, in order (qemu_register_reset)."""
        self._resets.append(callback)

    def on_state_change(self, callback: Callable[[bool, RunState], None]) -> None:
        """callback(running, state) at each start and stop (qemu_add_vm_change_state_handler)."""
        self.states.tell(callback)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Called by close(), last one first, while RAM and accelerator still exist."""
        self._closers.append(callback)

    # -- running ----------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the guest runs."""
        return self.states.running

    @property
    def run_state(self) -> RunState:
        """What the machine is doing (runstate_get)."""
        return self.states.now

    @property
    def outcome(self) -> tuple[int, str] | None:
        """(exit status, reason), once the end has been asked for."""
        return self._outcome

    def start(self, *, paused: bool = False) -> None:
        """Power-on: resets everything, starts the vCPU threads, and runs unless `paused`."""
        assert not self.threads, "the machine has been started"
        shorten_switch_interval()  # a vCPU that comes back from KVM waits no longer for the GIL
        self._short_interval = True
        self._system_reset()
        groups = [[vcpu] for vcpu in self.vcpus] if self.accel.runs_in_parallel else [self.vcpus]
        self.threads = [VcpuThread(group, self, self.world) for group in groups]
        if not paused:
            self.cont()

    def run(self, *, paused: bool = False) -> int:
        """Runs the main loop until the end is asked for; the exit status (qemu_main_loop).

        `paused` is `-S`. An exception of a device, in whatever thread, is raised here.
        """
        if not self.threads:
            self.start(paused=paused)
        while self._outcome is None:
            self.iterate()
        self._run_change(lambda: self._leave(RunState.SHUTDOWN))
        return self._outcome[0]

    def iterate(self) -> None:
        """One pass of the main loop, and whatever it was asked to do."""
        self.loop.iterate()
        self._handle_requests()

    def _handle_requests(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        while self._later and self._outcome is None:
            self._run_change(self._later.popleft())
        while self._stopped and self._outcome is None:
            self._handle_stopped(*self._stopped.popleft())

    # -- requests (R2) ----------------------------------------------------------------------

    def request_shutdown(self, status: int, reason: str = "") -> None:
        """Asks for the end with an exit status; the first one counts
        (qemu_system_shutdown_request).
        """
        if self._outcome is None:
            self._outcome = (status, reason)
        self._stop_current()
        self.main_context.notify()

    def stop(self, state: RunState = RunState.PAUSED) -> None:
        """Stops the guest (vm_stop). Nothing happens unless it runs."""
        self._change(lambda: self._leave(state))

    def cont(self) -> None:
        """Lets the guest run (vm_start). Nothing happens unless it can."""
        self._change(self._enter_running)

    def reset(self) -> None:
        """Resets the machine as its button does (qemu_system_reset_request)."""
        self._change(self._reset)

    def guest_reset(self) -> None:
        """The guest resets itself: the end with `-no-reboot`, else a reset."""
        if self.no_reboot:
            self.request_shutdown(0, "guest-reset")
        else:
            self.reset()

    def _change(self, change: Callable[[], None]) -> None:
        here = self.world.current() == self._main_thread  # a vCPU may hold the main context
        if here and not self._changing and not self.loop.depth:
            self._run_change(change)
            return
        self._later.append(change)
        self._stop_current()
        self.main_context.notify()

    def _stop_current(self) -> None:
        """Parks the vCPU whose thread this is, if it is one (cpu_stop_current)."""
        me = self.world.current()
        for thread in self.threads:
            if thread.identity == me:
                thread.park()

    # -- changes of state: main thread, one at a time (R3) ----------------------------------

    def _run_change(self, change: Callable[[], None]) -> None:
        self._changing = True
        try:
            change()
        finally:
            self._changing = False

    def _pause_vcpus(self) -> None:
        for thread in self.threads:
            thread.park()
        self.loop.wait_for(lambda: all(thread.parked for thread in self.threads))

    def _resume_vcpus(self) -> None:
        for thread in self.threads:
            thread.run()

    def _leave(self, state: RunState) -> None:
        """Running -> `state` (do_vm_stop)."""
        if self.running:
            self._pause_vcpus()
            self.states.set(state)
            self.states.notify(False)
            _drain_block_layer()
            if state is RunState.IO_ERROR:
                self.report("a disk's error has stopped the machine (io-error; see werror, rerror)")

    def _enter_running(self) -> None:
        """-> running (vm_start); a vCPU that only parked itself to ask goes on, too."""
        if not self.running:
            if not self.states.may_become(RunState.RUNNING):
                return
            self.states.set(RunState.RUNNING)
            self.states.notify(True)
        self._resume_vcpus()

    def _reset(self) -> None:
        """qemu_system_reset: the machine is as after power-on, and runs if it ran."""
        self._pause_vcpus()
        if debug.enabled:
            self._log_reset()
        self._stopped.clear()
        self._system_reset()
        if self.running:
            self._resume_vcpus()
        else:
            self.states.set(RunState.PRELAUNCH)

    def _system_reset(self) -> None:
        self.power_off = None
        for callback in self._resets:
            callback()
        self.accel.reset()
        for vcpu in self.vcpus:
            vcpu.reset()
        self.boot()

    def _log_reset(self) -> None:
        from miniqemu.machine.dump import registers_text

        for vcpu in self.vcpus:
            debug.log("cpu_reset", f"CPU {vcpu.index} reset\n{registers_text(vcpu.registers())}")

    # -- what vCPU threads tell (without the big lock) --------------------------------------

    def vcpu_parked(self) -> None:
        """A vCPU thread has come to rest."""
        self.main_context.notify()

    def vcpu_stopped(self, vcpu: Vcpu, stop: Stop) -> None:
        """A vCPU stopped by itself; the main loop finds out what that means."""
        self._stopped.append((vcpu, stop))
        self.main_context.notify()

    def vcpu_failed(self, error: BaseException) -> None:
        """A device raised in a vCPU's thread: the main loop raises it again."""
        self._failure = error
        self.main_context.notify()

    def _handle_stopped(self, vcpu: Vcpu, stop: Stop) -> None:
        if stop is Stop.SHUTDOWN and self.power_off is not None:
            self.request_shutdown(self.power_off, "guest-shutdown")
        elif stop is Stop.RESET:
            self.guest_reset()
        elif stop is Stop.DEBUG:
            self._run_change(lambda: self._leave(RunState.DEBUG))
        else:
            self._cannot_go_on(vcpu, stop)

    def _cannot_go_on(self, vcpu: Vcpu, stop: Stop) -> None:
        from miniqemu.machine.dump import vcpu_text

        triple = stop is Stop.SHUTDOWN
        state = RunState.GUEST_PANICKED if triple else RunState.INTERNAL_ERROR
        self._run_change(lambda: self._leave(state))
        what = "triple fault" if triple else vcpu.detail
        self.report(f"{self.accel.name}: {what}\n{vcpu_text(vcpu, self.ram)}")
        self.request_shutdown(FAILED, "guest-panic" if triple else "internal-error")

    # -- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Ends all that was begun; nothing is left behind. May be called twice.

        BufferError: somebody still holds a view of guest memory.
        """
        if self._closed:
            return
        self._closed = True
        for thread in self.threads:
            thread.end()
        self.loop.wait_for(lambda: all(thread.ended for thread in self.threads))
        for thread in self.threads:
            thread.join()
        self.threads.clear()
        while self._closers:
            self._closers.pop()()
        for vcpu in self.vcpus:
            vcpu.close()
        self.accel.close()
        self.loop.close()
        if self._short_interval:
            restore_switch_interval()
        self.big_lock.release()
        self.ram.close()


def _nothing() -> None:
    """A machine without a board boots nothing."""


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def _drain_block_layer() -> None:
    """bdrv_drain_all, if there is a block layer in this program at all."""
    drain = sys.modules.get("block.core.drain")
    if drain is not None:
        drain.drain_all()
