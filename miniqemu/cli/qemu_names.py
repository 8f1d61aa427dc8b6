# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU 7.2 for x86-64 knows, by name: so that we can tell "not here" from "nowhere".

Tables of facts, taken from the program's own help. Read only when something is refused, so
they cost a start nothing.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Options that take an argument.
OPTIONS_WITH_ARGUMENT = _names("""
    D L M accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev
    chroot compat cpu d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb
    fsdev fw_cfg g gdb global hda hdb hdc hdd icount incoming initrd iscsi k kernel loadvm m
    machine mem-path mon monitor msg mtdblock name net netdev nic numa object option-rom
    overcommit parallel pflash pidfile plugin prom-env qmp qmp-pretty qtest qtest-log readconfig
    rotate rtc runas sandbox sd seed semihosting-config serial set smbios smp spice tpmdev trace
    usbdevice uuid vga virtfs vnc watchdog-action xen-domid
""")

# Options that take none.
FLAGS = _names("""
    S async-teardown audio-help daemonize enable-kvm enable-sync-profile full-screen h help
    mem-prealloc no-acpi no-fd-bootchk no-hpet no-reboot no-shutdown no-user-config nodefaults
    nographic old-param only-migratable portrait preconfig s semihosting singlestep snapshot usb
    version win2k-hack xen-attach xen-domid-restrict
""")

# -machine
MACHINES = _names("""
    microvm pc pc-i440fx-7.2 pc-i440fx-7.1 pc-i440fx-7.0 pc-i440fx-6.2 pc-i440fx-6.1
    pc-i440fx-6.0 pc-i440fx-5.2 pc-i440fx-5.1 pc-i440fx-5.0 pc-i440fx-4.2 pc-i440fx-4.1
    pc-i440fx-4.0 pc-i440fx-3.1 pc-i440fx-3.0 pc-i440fx-2.9 pc-i440fx-2.8 pc-i440fx-2.7
    pc-i440fx-2.6 pc-i440fx-2.5 pc-i440fx-2.4 pc-i440fx-2.3 pc-i440fx-2.2 pc-i440fx-2.12
    pc-i440fx-2.11 pc-i440fx-2.10 pc-i440fx-2.1 pc-i440fx-2.0 pc-i440fx-1.7 pc-i440fx-1.6
    pc-i440fx-1.5 pc-i440fx-1.4 q35 pc-q35-7.2 pc-q35-7.1 pc-q35-7.0 pc-q35-6.2 pc-q35-6.1
    pc-q35-6.0 pc-q35-5.2 pc-q35-5.1 pc-q35-5.0 pc-q35-4.2 pc-q35-4.1 pc-q35-4.0.1 pc-q35-4.0
    pc-q35-3.1 pc-q35-3.0 pc-q35-2.9 pc-q35-2.8 pc-q35-2.7 pc-q35-2.6 pc-q35-2.5 pc-q35-2.4
    pc-q35-2.12 pc-q35-2.11 pc-q35-2.10 isapc none x-remote
""")

# -machine microvm,...
MACHINE_PROPERTIES = _names("""
    acpi append auto-kernel-cmdline boot bus-lock-ratelimit confidential-guest-support
    dt-compatible dtb dump-guest-core dumpdtb firmware graphics initrd ioapic2 isa-serial kernel
    mem-merge memory-backend memory-encryption memory pcie phandle-start pic pit rtc sgx-epc smm
    smp suppress-vmdesc usb x-oem-id x-oem-table-id x-option-roms accel type
""")

# -cpu, without the versions of a model (-v1, -v2).
CPUS = _names("""
    486 Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS Cascadelake-Server
    Cascadelake-Server-noTSX Conroe Cooperlake Denverton Dhyana EPYC EPYC-IBPB EPYC-Milan
    EPYC-Rome Haswell Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS Icelake-Server
    Icelake-Server-noTSX IvyBridge IvyBridge-IBRS KnightsMill Nehalem Nehalem-IBRS Opteron_G1
    Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5 Penryn SandyBridge SandyBridge-IBRS
    Skylake-Client Skylake-Client-IBRS Skylake-Client-noTSX-IBRS Skylake-Server
    Skylake-Server-IBRS Skylake-Server-noTSX-IBRS Snowridge Westmere Westmere-IBRS athlon
    core2duo coreduo kvm32 kvm64 n270 pentium pentium2 pentium3 phenom qemu32 qemu64 base
""")

# -accel
ACCELERATORS = _names("""
    hax hvf kvm nvmm qtest tcg whpx xen
""")

# -object
OBJECTS = _names("""
    authz-list authz-list-file authz-simple can-bus can-host-socketcan colo-compare
    cryptodev-backend cryptodev-backend-builtin cryptodev-vhost-user dbus-vmstate filter-buffer
    filter-dump filter-mirror filter-redirector filter-replay filter-rewriter input-barrier
    input-linux iothread main-loop memory-backend-file memory-backend-memfd memory-backend-ram
    pr-manager-helper qtest rng-builtin rng-egd rng-random secret secret_keyring sev-guest
    thread-context throttle-group tls-cipher-suites tls-creds-anon tls-creds-psk tls-creds-x509
    x-remote-object
""")

# -d
LOG_ITEMS = _names("""
    out_asm in_asm op op_opt op_ind int exec cpu fpu mmu pcall cpu_reset unimp guest_errors page
    nochain plugin strace tid
""")

# -device
DEVICES = _names("""
    AC97 AMDVI-PCI ES1370 VGA ac97 acpi-erst adlib ahci am53c974 amd-iommu ati-vga bochs-display
    ccid-card-emulated ccid-card-passthru cirrus-vga cs4231a ctucan_pci cxl-downstream cxl-rp
    cxl-type3 cxl-upstream dc390 e1000 e1000-82540em e1000-82544gc e1000-82545em e1000e edu
    es1370 floppy guest-loader gus hda-duplex hda-micro hda-output hv-syndbg hyperv-testdev
    i2c-ddc i6300esb i8042 i82550 i82551 i82557a i82557b i82557c i82558a i82558b i82559a i82559b
    i82559c i82559er i82562 i82801 i82801b11-bridge ib700 ich9-ahci ich9-intel-hda
    ich9-usb-ehci1 ich9-usb-ehci2 ich9-usb-uhci1 ich9-usb-uhci2 ich9-usb-uhci3 ich9-usb-uhci4
    ich9-usb-uhci5 ich9-usb-uhci6 ide-cd ide-hd intel-hda intel-iommu ioh3420 ipmi-bmc-extern
    ipmi-bmc-sim ipoctal232 isa-applesmc isa-cirrus-vga isa-debug-exit isa-debugcon isa-fdc
    isa-ide isa-ipmi-bt isa-ipmi-kcs isa-parallel isa-serial isa-vga ivshmem-doorbell
    ivshmem-plain kvaser_pci loader lsi lsi53c810 lsi53c895a mc146818rtc megasas megasas-gen2
    mioe3680_pci mptsas1068 ne2k_isa ne2k_pci nec-usb-xhci nvdimm nvme nvme-ns nvme-subsys
    pc-dimm pc-testdev pci-bridge pci-bridge-seat pci-ipmi-bt pci-ipmi-kcs pci-ohci pci-serial
    pci-serial-2x pci-serial-4x pci-testdev pcie-pci-bridge pcie-root-port pcm3680_pci pcnet
    piix3-ide piix3-usb-uhci piix4-ide piix4-usb-uhci pvpanic pvpanic-pci pvrdma pvscsi pxb
    pxb-cxl pxb-pcie qemu-xhci qxl qxl-vga ramfb rocker rtl8139 sb16 scsi-block scsi-cd
    scsi-generic scsi-hd sd-card sdhci-pci secondary-vga sga smbus-ipmi tpci200 tpm-crb tpm-tis
    tulip u2f-passthru usb-audio usb-bot usb-braille usb-ccid usb-ehci usb-host usb-hub usb-kbd
    usb-mouse usb-mtp usb-net usb-redir usb-serial usb-storage usb-tablet usb-uas
    usb-wacom-tablet vfio-pci vfio-pci-igd-lpc-bridge vfio-pci-nohotplug vhost-scsi
    vhost-scsi-pci vhost-scsi-pci-non-transitional vhost-scsi-pci-transitional vhost-user-blk
    vhost-user-blk-pci vhost-user-blk-pci-non-transitional vhost-user-blk-pci-transitional
    vhost-user-fs-device vhost-user-fs-pci vhost-user-gpio-device vhost-user-gpio-pci
    vhost-user-gpu vhost-user-gpu-pci vhost-user-i2c-device vhost-user-i2c-pci vhost-user-input
    vhost-user-input-pci vhost-user-rng vhost-user-rng-pci vhost-user-scsi vhost-user-scsi-pci
    vhost-user-scsi-pci-non-transitional vhost-user-scsi-pci-transitional vhost-user-vga
    vhost-user-vsock-device vhost-user-vsock-pci vhost-user-vsock-pci-non-transitional
    vhost-vsock-device vhost-vsock-pci vhost-vsock-pci-non-transitional virtconsole virtio-9p
    virtio-9p-device virtio-9p-pci virtio-9p-pci-non-transitional virtio-9p-pci-transitional
    virtio-balloon virtio-balloon-device virtio-balloon-pci virtio-balloon-pci-non-transitional
    virtio-balloon-pci-transitional virtio-blk virtio-blk-device virtio-blk-pci
    virtio-blk-pci-non-transitional virtio-blk-pci-transitional virtio-crypto-device
    virtio-crypto-pci virtio-gpu virtio-gpu-device virtio-gpu-gl virtio-gpu-gl-pci
    virtio-gpu-pci virtio-input-host virtio-input-host-device virtio-input-host-pci virtio-iommu
    virtio-iommu-device virtio-iommu-pci virtio-keyboard virtio-keyboard-device
    virtio-keyboard-pci virtio-mem virtio-mem-pci virtio-mouse virtio-mouse-device
    virtio-mouse-pci virtio-net virtio-net-device virtio-net-pci virtio-net-pci-non-transitional
    virtio-net-pci-transitional virtio-pmem virtio-pmem-pci virtio-rng virtio-rng-device
    virtio-rng-pci virtio-rng-pci-non-transitional virtio-rng-pci-transitional virtio-scsi
    virtio-scsi-device virtio-scsi-pci virtio-scsi-pci-non-transitional
    virtio-scsi-pci-transitional virtio-serial virtio-serial-device virtio-serial-pci
    virtio-serial-pci-non-transitional virtio-serial-pci-transitional virtio-tablet
    virtio-tablet-device virtio-tablet-pci virtio-vga virtio-vga-gl virtserialport vmbus-bridge
    vmcoreinfo vmgenid vmmouse vmware-svga vmxnet3 x-pci-proxy-dev x3130-upstream
    xio3130-downstream
""")
