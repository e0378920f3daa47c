//! The guest that tries an accelerator: one boot sector that does, in a few milliseconds, what a 64-bit
//! operating system cannot do without.
//!
//! 1. real mode, as the firmware leaves it: page tables for 32 MiB, an interrupt table, the interrupt
//!    controller and the timer at 1000 Hz;
//! 2. long mode: paging, EFER, a 64-bit code segment, SSE switched on;
//! 3. a different SSE2 value into each of 6144 pages, all of them read back and compared;
//! 4. HLT until the timer has woken it twenty times;
//! 5. [`DONE`] to the exit port. A comparison that fails says [`WRONG`]; an exception is a triple fault,
//!    which resets the machine, and `-no-reboot` makes that QEMU's end.
//!
//! A KVM that runs real-mode code and hangs in long mode was seen: that is what this is for.
//! Machine code, so that nothing but QEMU is needed to try; the mnemonics are beside the bytes.

/// Port of the exit device.
pub const EXIT_PORT: u8 = 0xf4;
/// Written to it when everything was as it should be.
pub const DONE: u8 = 0x2a;
/// Written to it when memory did not hold what was put there.
pub const WRONG: u8 = 0x2b;

/// Where the firmware puts the sector.
const ORIGIN: u16 = 0x7c00;

/// Bytes of a 16-bit number, lowest first.
const fn low(n: u16) -> u8 {
    n as u8
}
const fn high(n: u16) -> u8 {
    (n >> 8) as u8
}

const LONG_MODE_AT: u16 = ORIGIN + 0xa2;
const TIMER_AT: u16 = ORIGIN + 0x118;
const GDT_AT: u16 = ORIGIN + 0x128;
const GDT_POINTER_AT: u16 = ORIGIN + 0x138;
const IDT_POINTER_AT: u16 = ORIGIN + 0x13e;

/// 16-bit code. Tables: PML4 at 0x1000, PDPT at 0x2000, page directory at 0x3000, IDT at 0x4000; the
/// timer's count is at 0x5000, the stack below 0x7c00.
#[rustfmt::skip]
const REAL_MODE: [u8; 0xa2] = [
    0xfa,                                     // cli
    0xfc,                                     // cld
    0x66, 0x31, 0xc0,                         // xor eax, eax
    0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0,       // mov ds, ax; mov es, ax; mov ss, ax
    0xbc, 0x00, 0x7c,                         // mov sp, 0x7c00
    0xbf, 0x00, 0x10,                         // mov di, 0x1000
    0xb9, 0x02, 0x20,                         // mov cx, 0x2002
    0xf3, 0xab,                               // rep stosw: tables and count are zero
    0xc7, 0x06, 0x00, 0x10, 0x03, 0x20,       // mov word [0x1000], 0x2003
    0xc7, 0x06, 0x00, 0x20, 0x03, 0x30,       // mov word [0x2000], 0x3003
    0xbf, 0x00, 0x30,                         // mov di, 0x3000
    0xb0, 0x83,                               // mov al, 0x83: present, writable, 2 MiB
    0xb1, 0x10,                               // mov cl, 16
    0x66, 0x89, 0x05,                         // 1: mov [di], eax
    0x66, 0x05, 0x00, 0x00, 0x20, 0x00,       // add eax, 0x200000
    0x83, 0xc7, 0x08,                         // add di, 8
    0xe2, 0xf2,                               // loop 1b
    0xc7, 0x06, 0x00, 0x42,                   // mov word [0x4200], timer: vector 0x20
    low(TIMER_AT), high(TIMER_AT),
    0xc6, 0x06, 0x02, 0x42, 0x08,             // mov byte [0x4202], 0x08: the code segment
    0xc6, 0x06, 0x05, 0x42, 0x8e,             // mov byte [0x4205], 0x8e: interrupt gate
    0xb0, 0x11, 0xe6, 0x20,                   // out 0x20, 0x11: interrupt controller, from the start
    0xb0, 0x20, 0xe6, 0x21,                   // out 0x21, 0x20: vectors from 0x20
    0xb0, 0x04, 0xe6, 0x21,                   // out 0x21, 0x04
    0xb0, 0x01, 0xe6, 0x21,                   // out 0x21, 0x01
    0xb0, 0xfe, 0xe6, 0x21,                   // out 0x21, 0xfe: the timer alone
    0xb0, 0xff, 0xe6, 0xa1,                   // out 0xa1, 0xff
    0xb0, 0x34, 0xe6, 0x43,                   // out 0x43, 0x34: the timer, periodic
    0xb0, 0xa9, 0xe6, 0x40,                   // out 0x40, 0xa9: 1193182 Hz / 0x04a9
    0xb0, 0x04, 0xe6, 0x40,                   // out 0x40, 0x04
    0x66, 0xb8, 0x20, 0x06, 0x00, 0x00,       // mov eax, 0x620: PAE, OSFXSR, OSXMMEXCPT
    0x0f, 0x22, 0xe0,                         // mov cr4, eax
    0x66, 0xb8, 0x00, 0x10, 0x00, 0x00,       // mov eax, 0x1000
    0x0f, 0x22, 0xd8,                         // mov cr3, eax
    0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0,       // mov ecx, 0xc0000080: EFER
    0x0f, 0x32,                               // rdmsr
    0x80, 0xcc, 0x01,                         // or ah, 1: LME
    0x0f, 0x30,                               // wrmsr
    0x0f, 0x20, 0xc0,                         // mov eax, cr0
    0x24, 0xfb,                               // and al, 0xfb: no emulated FPU
    0x66, 0x0d, 0x03, 0x00, 0x00, 0x80,       // or eax, 0x80000003: paging, MP, protection
    0x0f, 0x22, 0xc0,                         // mov cr0, eax
    0x0f, 0x01, 0x16,                         // lgdt [gdt_pointer]
    low(GDT_POINTER_AT), high(GDT_POINTER_AT),
    0xea, low(LONG_MODE_AT), high(LONG_MODE_AT), 0x08, 0x00, // jmp 0x08:long_mode
];

/// 64-bit code.
#[rustfmt::skip]
const LONG_MODE: [u8; 0x76] = [
    0xbc, 0x00, 0x7c, 0x00, 0x00,             // mov esp, 0x7c00
    0x0f, 0x01, 0x1c, 0x25,                   // lidt [idt_pointer]
    low(IDT_POINTER_AT), high(IDT_POINTER_AT), 0x00, 0x00,
    0xb8, 0x01, 0x00, 0x00, 0x00,             // mov eax, 1
    0x66, 0x0f, 0x6e, 0xc8,                   // movd xmm1, eax
    0x66, 0x0f, 0x70, 0xc9, 0x00,             // pshufd xmm1, xmm1, 0
    0x66, 0x0f, 0xef, 0xc0,                   // pxor xmm0, xmm0
    0xbf, 0x00, 0x00, 0x40, 0x00,             // mov edi, 0x400000
    0x66, 0x0f, 0xfe, 0xc1,                   // 2: paddd xmm0, xmm1
    0x66, 0x0f, 0x7f, 0x07,                   // movdqa [rdi], xmm0
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00,       // add edi, 0x1000
    0x81, 0xff, 0x00, 0x00, 0xc0, 0x01,       // cmp edi, 0x1c00000
    0x72, 0xea,                               // jb 2b
    0x81, 0xef, 0x00, 0x10, 0x00, 0x00,       // 3: sub edi, 0x1000
    0x66, 0x0f, 0x6f, 0x17,                   // movdqa xmm2, [rdi]
    0x66, 0x0f, 0x76, 0xd0,                   // pcmpeqd xmm2, xmm0
    0x66, 0x0f, 0xd7, 0xc2,                   // pmovmskb eax, xmm2
    0x3d, 0xff, 0xff, 0x00, 0x00,             // cmp eax, 0xffff
    0x75, 0x1c,                               // jne wrong
    0x66, 0x0f, 0xfa, 0xc1,                   // psubd xmm0, xmm1
    0x81, 0xff, 0x00, 0x00, 0x40, 0x00,       // cmp edi, 0x400000
    0x77, 0xdb,                               // ja 3b
    0xfb,                                     // sti
    0xf4,                                     // 4: hlt
    0x83, 0x3c, 0x25, 0x00, 0x50, 0x00, 0x00, 0x14, // cmp dword [0x5000], 20
    0x72, 0xf5,                               // jb 4b
    0xb0, DONE,                               // mov al, DONE
    0xeb, 0x02,                               // jmp 5f
    0xb0, WRONG,                              // wrong: mov al, WRONG
    0xe6, EXIT_PORT,                          // 5: out EXIT_PORT, al
    0xf4,                                     // 6: hlt
    0xeb, 0xfd,                               // jmp 6b
];

/// The timer's interrupt, in 64-bit code.
#[rustfmt::skip]
const TIMER: [u8; 0x10] = [
    0x50,                                     // push rax
    0xff, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00, // inc dword [0x5000]
    0xb0, 0x20, 0xe6, 0x20,                   // out 0x20, 0x20: end of interrupt
    0x58,                                     // pop rax
    0x48, 0xcf,                               // iretq
    0x90,                                     // nop, so that what follows is aligned
];

/// Descriptors: none, 64-bit code; then the pointers to them and to the interrupt table.
#[rustfmt::skip]
const TABLES: [u8; 0x20] = [
    0, 0, 0, 0, 0, 0, 0, 0,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,
    0x0f, 0x00, low(GDT_AT), high(GDT_AT), 0x00, 0x00,
    0xff, 0x02, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// The whole sector.
pub fn boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    let parts: [&[u8]; 4] = [&REAL_MODE, &LONG_MODE, &TIMER, &TABLES];
    for (place, byte) in sector.iter_mut().zip(parts.concat()) {
        *place = byte;
    }
    (sector[510], sector[511]) = (0x55, 0xaa);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_where_the_code_says() {
        let at = |parts: &[&[u8]]| ORIGIN + parts.concat().len() as u16;
        assert_eq!(at(&[&REAL_MODE]), LONG_MODE_AT);
        assert_eq!(at(&[&REAL_MODE, &LONG_MODE]), TIMER_AT);
        let before = [&REAL_MODE[..], &LONG_MODE, &TIMER];
        assert_eq!(at(&before), GDT_AT);
        assert_eq!(GDT_POINTER_AT, GDT_AT + 16);
        assert_eq!(IDT_POINTER_AT, GDT_POINTER_AT + 6);
        assert!(before.concat().len() + TABLES.len() <= 440);
    }
}
