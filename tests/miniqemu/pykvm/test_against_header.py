# SPDX-License-Identifier: GPL-2.0-only
"""Numbers, sizes and offsets of pykvm are those of <linux/kvm.h>, asked of the C compiler."""

from __future__ import annotations

import subprocess
from ctypes import Structure, sizeof

import pytest

from miniqemu.pykvm import exits, ioctls, structs, vcpu
from tests.support import needs

C_STRUCTS = {
    name: value
    for name, value in (vars(structs) | vars(exits)).items()
    if isinstance(value, type) and issubclass(value, Structure) and name.startswith("kvm_")
}
# Ours that have no name of their own in C: members of unions and of other structures.
ANONYMOUS = {
    "kvm_run_fail_entry": "((struct kvm_run *)0)->fail_entry",
    "kvm_run_io": "((struct kvm_run *)0)->io",
    "kvm_run_debug": "((struct kvm_run *)0)->debug",
    "kvm_run_mmio": "((struct kvm_run *)0)->mmio",
    "kvm_run_internal": "((struct kvm_run *)0)->internal",
    "kvm_run_emulation_failure": None,  # older headers lack it
    "kvm_run_system_event": None,  # its union grew from 8 to 128 bytes
    "kvm_vcpu_events_exception": "((struct kvm_vcpu_events *)0)->exception",
    "kvm_vcpu_events_interrupt": "((struct kvm_vcpu_events *)0)->interrupt",
    "kvm_vcpu_events_nmi": "((struct kvm_vcpu_events *)0)->nmi",
    "kvm_vcpu_events_smi": "((struct kvm_vcpu_events *)0)->smi",
}
RENAMED = {
    ("kvm_vcpu_events", "triple_fault_pending"): "triple_fault.pending",
    ("kvm_run", "exit"): "hw",
}
NOT_THE_WHOLE = {"kvm_run"}  # ours ends before the copy of the registers


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the C compiler says about each number, size and offset that we use."""
    compiler = needs.c_compiler()
    source = ["#include <stdio.h>", "#include <stddef.h>", "#include <linux/kvm.h>"]
    source += ["int main(void) {"]
    for name in constants():
        source.append(f"#ifdef {name}")
        source.append(f'printf("{name} %llu\\n", (unsigned long long){name});')
        source.append("#endif")
    for name, structure in C_STRUCTS.items():
        expression = ANONYMOUS.get(name, f"struct {name}")
        if expression is not None:
            source.append(f'printf("sizeof:{name} %zu\\n", sizeof({expression}));')
        if name not in ANONYMOUS:
            for field, *_ in structure._fields_:
                member = RENAMED.get((name, field), field)
                source.append(
                    f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {member}));'
                )
    source.append("return 0; }")
    where = tmp_path_factory.mktemp("header")
    (where / "ask.c").write_text("\n".join(source))
    subprocess.run([*compiler, "-o", str(where / "ask"), str(where / "ask.c")], check=True)
    said = subprocess.run([where / "ask"], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in said.splitlines())}


def constants() -> dict[str, int]:
    """All of ours that <linux/kvm.h> defines, too."""
    return {
        name: value
        for name, value in vars(ioctls).items()
        if name.startswith("KVM") and isinstance(value, int)
    }


def test_every_ioctl_number_is_the_headers(header: dict[str, int]) -> None:
    ours = ioctls.IOCTL_NAMES
    assert {name: header[name] for name in ours} == ours


def test_every_constant_is_the_headers(header: dict[str, int]) -> None:
    differ = {
        name: (value, header[name])
        for name, value in constants().items()
        if name in header and header[name] != value
    }
    assert differ == {}


@pytest.mark.parametrize("name", sorted(set(C_STRUCTS) - NOT_THE_WHOLE))
def test_a_structure_has_the_headers_size(name: str, header: dict[str, int]) -> None:
    if f"sizeof:{name}" in header:
        assert sizeof(C_STRUCTS[name]) == header[f"sizeof:{name}"]


@pytest.mark.parametrize("name", sorted(set(C_STRUCTS) - set(ANONYMOUS)))
def test_a_structures_fields_are_where_the_header_has_them(
    name: str, header: dict[str, int]
) -> None:
    structure = C_STRUCTS[name]
    ours = {field: getattr(structure, field).offset for field, *_ in structure._fields_}
    assert ours == {field: header[f"{name}.{field}"] for field in ours}


def test_the_shared_page_is_large_enough_for_our_kvm_run(header: dict[str, int]) -> None:
    assert sizeof(exits.kvm_run) <= header["sizeof:kvm_run"]


def test_a_vcpu_reads_the_shared_page_where_its_fields_are() -> None:
    page = exits.kvm_run
    assert page.immediate_exit.offset == vcpu.IMMEDIATE_EXIT
    assert page.exit_reason.offset == vcpu.EXIT_REASON
    assert page.io.offset == page.mmio.offset == vcpu.EXIT


def test_an_ioctl_number_carries_direction_size_type_and_sequence() -> None:
    assert ioctls.KVM_RUN == 0xAE80
    assert ioctls.KVM_SET_USER_MEMORY_REGION == 0x4020AE46
    assert ioctls.KVM_GET_SUPPORTED_CPUID == 0xC008AE05
