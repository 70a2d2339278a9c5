/* Which kernels there are, and which of them run here. */

#include "kernels.h"

#include <string.h>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#if defined(__x86_64__) || defined(_M_X64)
extern const mn_kernel_set mn_kernels_avx512vnni, mn_kernels_avxvnni, mn_kernels_avx2;
#elif defined(__aarch64__)
extern const mn_kernel_set mn_kernels_neoni8mm, mn_kernels_neondot, mn_kernels_neon;
#elif defined(__arm__) && defined(__ARM_NEON)
extern const mn_kernel_set mn_kernels_neon;
#elif defined(__wasm_relaxed_simd__)
extern const mn_kernel_set mn_kernels_wasmrelaxed, mn_kernels_wasm;
#elif defined(__wasm_simd128__)
extern const mn_kernel_set mn_kernels_wasm;
#endif
extern const mn_kernel_set mn_kernels_scalar;

const mn_kernel_set *const mn_kernel_sets[] = {
#if defined(__x86_64__) || defined(_M_X64)
    &mn_kernels_avx512vnni,
#if MN_NEW_COMPILER
    &mn_kernels_avxvnni,
#endif
    &mn_kernels_avx2,
#elif defined(__aarch64__)
#if MN_NEW_COMPILER
    &mn_kernels_neoni8mm,
#endif
    &mn_kernels_neondot, &mn_kernels_neon,
#elif defined(__arm__) && defined(__ARM_NEON)
    &mn_kernels_neon,
#elif defined(__wasm_relaxed_simd__)
    &mn_kernels_wasmrelaxed, &mn_kernels_wasm,
#elif defined(__wasm_simd128__)
    &mn_kernels_wasm,
#endif
    &mn_kernels_scalar,
};
const size_t mn_kernel_set_count = sizeof mn_kernel_sets / sizeof *mn_kernel_sets;

#if defined(__x86_64__) || defined(_M_X64)

#include <cpuid.h>

/* The state of wide registers the system saves: bits of XCR0. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

int mn_kernel_set_runs(const mn_kernel_set *set)
{
    unsigned a, b, c, d;
    if (set == &mn_kernels_scalar) return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return 0; /* OSXSAVE */
    const uint64_t saved = saved_state();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const int avx2 = (b & 1u << 5) && (saved & 0x6) == 0x6;
    if (set == &mn_kernels_avx512vnni) {
        const unsigned needed = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
        return avx2 && (b & needed) == needed && (c & 1u << 11) && (saved & 0xE6) == 0xE6;
    }
    if (!strcmp(set->name, "avxvnni")) return avx2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
    return avx2;
}

#elif defined(__aarch64__)

int mn_kernel_set_runs(const mn_kernel_set *set)
{
    if (set == &mn_kernels_scalar || set == &mn_kernels_neon) return 1;
#if defined(__linux__)
    if (!strcmp(set->name, "neoni8mm")) return (getauxval(AT_HWCAP2) & 1ul << 13) != 0; /* HWCAP2_I8MM */
    return (getauxval(AT_HWCAP) & 1ul << 20) != 0;                                   /* HWCAP_ASIMDDP */
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    const char *name = !strcmp(set->name, "neoni8mm") ? "hw.optional.arm.FEAT_I8MM" : "hw.optional.arm.FEAT_DotProd";
    return sysctlbyname(name, &has, &size, NULL, 0) == 0 && has;
#else
    return 0;
#endif
}

#else

int mn_kernel_set_runs(const mn_kernel_set *set)
{
    (void)set;
    return 1;
}

#endif
