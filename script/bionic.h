/* The part of Android's libc that the C core uses, from API level 21 on: the compiler of script/wheels has none of its
   headers. Stands for every header of the C library and of the system. */

#ifndef BIONIC_H
#define BIONIC_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct timespec {
    long tv_sec, tv_nsec;
};

struct stat { /* as the kernel has it: 64-bit sizes everywhere */
    uint64_t st_dev;
#if defined(__x86_64__)
    uint64_t st_ino, st_nlink;
    uint32_t st_mode, st_uid, st_gid, padding;
    uint64_t st_rdev;
#elif defined(__aarch64__)
    uint64_t st_ino;
    uint32_t st_mode, st_nlink, st_uid, st_gid;
    uint64_t st_rdev, padding;
#else
    uint32_t padding, truncated_ino, st_mode, st_nlink, st_uid, st_gid;
    uint64_t st_rdev;
    uint32_t more_padding;
#endif
    int64_t st_size;
    char rest[96]; /* the longest of them has 88 bytes more */
};

/* libc.so */
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *block, size_t size);
void free(void *block);
void *memchr(const void *in, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int strcmp(const char *a, const char *b);
size_t strlen(const char *text);
char *strerror(int number);
int snprintf(char *to, size_t size, const char *format, ...);
int vsnprintf(char *to, size_t size, const char *format, va_list arguments);
int *__errno(void);
int open(const char *path, int flags, ...);
int close(int file);
int fstat(int file, struct stat *about);
void *mmap(void *at, size_t size, int protection, int flags, int file, long offset);
int munmap(void *at, size_t size);
int madvise(void *at, size_t size, int advice);
int clock_gettime(int clock, struct timespec *time);
unsigned long getauxval(unsigned long type);

/* libm.so */
float sqrtf(float x);

#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))
#define isfinite(x) __builtin_isfinite(x)
#define isnan(x) __builtin_isnan(x)
#define errno (*__errno())
#define O_RDONLY 0
#define O_CLOEXEC 02000000
#define PROT_READ 1
#define MAP_PRIVATE 2
#define MAP_FAILED ((void *)-1)
#define MADV_DONTNEED 4
#define CLOCK_MONOTONIC 1
#define AT_HWCAP 16
#define AT_HWCAP2 26
#define S_ISREG(mode) (((mode) & 0170000) == 0100000)

#endif
