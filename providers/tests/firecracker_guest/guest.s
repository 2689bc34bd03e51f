# A guest for real Firecracker on a host whose /dev/kvm emulates the guest's kernel mode.
#
# It is entered by the Linux 64-bit boot protocol (long mode, flat segments, interrupts off) and
# keeps to instructions that such an emulator has: plain integer ones, in/out, rdtsc. On the
# serial port it writes "READY" once and then "count N" about every 100 ms, N from 1. The count
# is in memory, in a page of its own: a restored guest goes on where it stood, and a diff
# snapshot that was not laid over its base lacks the code.

    .intel_syntax noprefix
    .set SERIAL_PORT, 0x3f8
    # About 100 ms at the 2 to 3 GHz of a usual time-stamp counter.
    .set TICKS_BETWEEN_COUNTS, 0x10000000

    .section .text
    .globl _start
_start:
    lea rsp, [rip + stack_end]
    lea rsi, [rip + ready_text]
    call print

next_count:
    lea rbx, [rip + counter]
    inc qword ptr [rbx]
    lea rsi, [rip + count_text]
    call print

    # The digits are written from the last one to the first, before a newline that is there.
    mov rax, [rbx]
    lea rdi, [rip + digits_end]
    mov ecx, 10
next_digit:
    xor edx, edx
    div rcx
    add dl, '0'
    dec rdi
    mov [rdi], dl
    test rax, rax
    jnz next_digit
    mov rsi, rdi
    call print

    call read_ticks
    mov r8, rax
    add r8, TICKS_BETWEEN_COUNTS
wait:
    pause
    call read_ticks
    cmp rax, r8
    jb wait
    jmp next_count

# Leaves the time-stamp counter in rax.
read_ticks:
    rdtsc
    shl rdx, 32
    or rax, rdx
    ret

# Writes the text at rsi, which ends with a zero byte.
print:
    mov al, [rsi]
    test al, al
    jz printed
    mov dx, SERIAL_PORT
    out dx, al
    inc rsi
    jmp print
printed:
    ret

ready_text:
    .asciz "READY\n"
count_text:
    .asciz "count "

    .section .data
counter:
    .quad 0
    .skip 20
digits_end:
    .asciz "\n"
    .balign 16
    .skip 1024
stack_end:
