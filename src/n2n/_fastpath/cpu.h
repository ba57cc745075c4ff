/* What this processor, and the kernel that keeps its registers, offer to code of ours.

   Asked by cpuid itself, because the answer of __builtin_cpu_supports depends on the compiler's run-time library: with
   zig (0.17), which builds our wheels, it is no for everything. Bits: Intel SDM volume 2, CPUID and XGETBV. */
#ifndef N2N_CPU_H
#define N2N_CPU_H

enum {
    N2N_CPU_PLAIN = 0,
    N2N_CPU_AVX2 = 1,
    N2N_CPU_AVX2_AES = 2,       /* and AES-NI, PCLMULQDQ */
    N2N_CPU_AVX512_VAES = 3     /* and AVX-512 F, BW, DQ, VL, VAES, VPCLMULQDQ */
};

#if defined(__x86_64__)
#include <cpuid.h>

static inline int n2n_cpu_level(void)
{
    unsigned a, b, c, d, basic, low, high;
    if (!__get_cpuid(1, &a, &b, &basic, &d) || !(basic & (1u << 27))) return N2N_CPU_PLAIN;  /* OSXSAVE */
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0x06) != 0x06) return N2N_CPU_PLAIN;                 /* the kernel keeps XMM and YMM */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & (1u << 5))) return N2N_CPU_PLAIN;
    if (!(basic & (1u << 25)) || !(basic & (1u << 1))) return N2N_CPU_AVX2;
    if ((low & 0xe6) != 0xe6) return N2N_CPU_AVX2_AES;              /* and the mask and ZMM registers */
    if (!(b & (1u << 16)) || !(b & (1u << 30)) || !(b & (1u << 17)) || !(b & (1u << 31))) return N2N_CPU_AVX2_AES;
    return (c & 0x600) == 0x600 ? N2N_CPU_AVX512_VAES : N2N_CPU_AVX2_AES;
}
#else
static inline int n2n_cpu_level(void) { return N2N_CPU_PLAIN; }
#endif
#endif
