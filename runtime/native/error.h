/* How a function says what is wrong: a status, and a message for people. */

#ifndef MN_ERROR_H
#define MN_ERROR_H

#include <stdarg.h>
#include <stdio.h>

#include "mobilenmt.h"

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static inline mn_status mn_fail(mn_error *error, mn_status status, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        error->status = status;
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
    }
    return status;
}

#endif
