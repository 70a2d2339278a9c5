/* What the C core takes from MinGW's own library, made of what Windows 10 brings itself: zig's library for Windows, linked
   whole, has 100 kB. Compiled into the library by script/wheels alone. */

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <windows.h>

/* The system's C library is a DLL, and begins and ends by itself. */
BOOL WINAPI DllMainCRTStartup(HINSTANCE library, DWORD reason, LPVOID reserved)
{
    (void)library, (void)reason, (void)reserved;
    return TRUE;
}

int vsnprintf(char *to, size_t size, const char *format, va_list arguments)
{
    const uint64_t standard = 2; /* ends what it cuts, and says how long all would be */
    return __stdio_common_vsprintf(standard, to, size, format, NULL, arguments);
}

int snprintf(char *to, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(to, size, format, arguments);
    va_end(arguments);
    return length;
}

/* CLOCK_MONOTONIC, the one clock that is asked for. */
int clock_gettime64(clockid_t clock, struct _timespec64 *time)
{
    LARGE_INTEGER frequency, count;
    (void)clock;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&count);
    time->tv_sec = count.QuadPart / frequency.QuadPart;
    time->tv_nsec = (int32_t)(count.QuadPart % frequency.QuadPart * 1000000000 / frequency.QuadPart);
    return 0;
}
