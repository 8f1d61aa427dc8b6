# SPDX-License-Identifier: GPL-2.0-only
"""One interface, two accelerators (docs/images/accelerators.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture


def picture() -> Picture:
    """Draws what lies below the machine: in the kernel with kvm, in our process with tcg."""
    made = Picture("accelerators", 860, 452, "One interface, and who does what under kvm and tcg")
    made.box(20, 14, 820, 44, "machine: threads, run states, devices, the board", "`Machine`")
    top = made.box(20, 84, 820, 40, "`accel/base.py: Accelerator, Vcpu`", kind="amber")
    made.arrow((430, 58), top.top())
    kvm(made, 20)
    tcg(made, 440)
    return made


def kvm(made: Picture, x: float) -> None:
    """The left half: most of it belongs to the kernel."""
    made.arrow((x + 200, 124), (x + 200, 146))
    made.region(x, 146, 400, 90, "our process: kvm.py", kind="blue")
    made.box(x + 16, 182, 176, 40, "one thread for each vCPU", "`ioctl(KVM_RUN)`")
    made.box(x + 208, 182, 176, 40, "ports and registers", "~that hit no RAM")
    made.region(x, 256, 400, 182, "the kernel", kind="plain")
    made.box(x + 16, 292, 368, 36, "~instructions, page tables, faults, HLT: the processor")
    made.box(x + 16, 338, 176, 40, "local APIC, IOAPIC,", "~PICs, i8254")
    made.box(x + 208, 338, 176, 40, "doorbells, edges", "~ioeventfd, irqfd")
    made.arrow((x + 150, 222), (x + 150, 292))
    made.arrow((x + 296, 292), (x + 296, 222))
    made.text(x + 16, 404, "~fast instructions, dear exits: each one leaves the guest,")
    made.text(x + 16, 421, "~the kernel, and comes back")


def tcg(made: Picture, x: float) -> None:
    """The right half: all of it is ours."""
    made.arrow((x + 200, 124), (x + 200, 146))
    made.region(x, 146, 400, 292, "our process: tcg.py", kind="green")
    made.box(x + 16, 182, 176, 40, "one thread for all vCPUs", "~turns of 2 ms")
    made.box(x + 208, 182, 176, 40, "ports and registers", "~that hit no RAM")
    made.box(x + 16, 246, 368, 36, "~libunicorn: instructions, page tables, faults")
    made.box(x + 16, 302, 176, 40, "interrupts by hand,", "`x86_events.py`")
    made.box(x + 208, 302, 176, 40, "`lapic.py, ioapic.py`", "`pit.py, alarm.py`")
    made.arrow((x + 104, 222), (x + 104, 246))
    made.arrow((x + 296, 246), (x + 296, 222))
    made.text(x + 306, 238, "~a function call")
    made.arrow((x + 208, 322), (x + 192, 322))
    made.arrow((x + 104, 302), (x + 104, 282))
    made.text(x + 16, 404, "~slow instructions, cheap exits: a register access costs less")
    made.text(x + 16, 421, "~than a microsecond")
