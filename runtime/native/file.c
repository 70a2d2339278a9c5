/* A pack's folder: its files are mapped, and the system reads what is used.

   `map` returns what went wrong, or NULL. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_CLOEXEC and madvise, which -std=c11 hides */
#endif

#include "error.h"
#include "layout.h"

#if defined(MN_NO_FILES) /* a browser has none */

static const char *map(const char *path, void **data, size_t *bytes)
{
    (void)path;
    (void)data;
    (void)bytes;
    return "this library reads no files: mn_open_memory";
}

static void unmap(void *data, size_t bytes)
{
    (void)data;
    (void)bytes;
}

#define GIVE_BACK NULL

#elif defined(_WIN32)

#include <windows.h>

static const char *map(const char *path, void **data, size_t *bytes)
{
    const int count = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    if (count <= 0) return "its path is no UTF-8";
    wchar_t *wide = malloc((size_t)count * sizeof *wide);
    if (!wide) return "no memory for its path";
    MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, count);
    HANDLE file = CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, 0, NULL);
    free(wide);
    if (file == INVALID_HANDLE_VALUE) return "it cannot be opened";
    LARGE_INTEGER size;
    HANDLE mapping = NULL;
    if (GetFileSizeEx(file, &size) && size.QuadPart > 0 && (uint64_t)size.QuadPart <= SIZE_MAX)
        mapping = CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
    CloseHandle(file);
    if (!mapping) return "it cannot be mapped";
    *data = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
    CloseHandle(mapping);
    *bytes = (size_t)size.QuadPart;
    return *data ? NULL : "it cannot be mapped";
}

static void unmap(void *data, size_t bytes)
{
    (void)bytes;
    if (data) UnmapViewOfFile(data);
}

#define GIVE_BACK give_back

/* The documented way to take pages out of the working set: to unlock what is not locked. */
static void give_back_pages(const uint8_t *data, size_t bytes) { VirtualUnlock((void *)(uintptr_t)data, bytes); }

#elif defined(__wasi__) /* no mmap there */

static const char *map(const char *path, void **data, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file) return "it cannot be opened";
    const long size = fseek(file, 0, SEEK_END) ? -1 : ftell(file);
    rewind(file);
    *bytes = size > 0 ? (size_t)size : 0;
    *data = *bytes ? malloc(*bytes) : NULL;
    const int read = *data && fread(*data, 1, *bytes, file) == *bytes;
    fclose(file);
    return read ? NULL : "it cannot be read";
}

static void unmap(void *data, size_t bytes)
{
    (void)bytes;
    free(data);
}

#define GIVE_BACK NULL

#else

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *map(const char *path, void **data, size_t *bytes)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return strerror(errno);
    struct stat about;
    if (fstat(file, &about) || !S_ISREG(about.st_mode) || about.st_size <= 0) {
        close(file);
        return "no file, or an empty one";
    }
    *bytes = (size_t)about.st_size;
    void *at = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (at == MAP_FAILED) return strerror(errno);
    *data = at;
    return NULL;
}

static void unmap(void *data, size_t bytes)
{
    if (data) munmap(data, bytes);
}

#define GIVE_BACK give_back

static void give_back_pages(const uint8_t *data, size_t bytes)
{
#if defined(MADV_DONTNEED)
    madvise((void *)(uintptr_t)data, bytes, MADV_DONTNEED);
#else
    (void)data;
    (void)bytes;
#endif
}

#endif

/* What went wrong with a file: the end of a long path only, so that the reason is always told. */
static mn_status fail_file(const char *path, const char *reason, mn_error *error)
{
    enum { MOST = 150 };
    size_t length = strlen(path), cut = length > MOST ? length - MOST : 0;
    while (cut && (path[cut] & 0xC0) == 0x80) cut++; /* no half characters */
    return mn_fail(error, MN_ERROR_FILE, "%s%s: %s", cut ? "..." : "", path + cut, reason);
}

#if !defined(MN_NO_FILES) && !defined(__wasi__)

#define AROUND 65536u /* a page that is read brings its neighbours along: Linux takes sixteen, and pages have 64 KB at most */

static void give_back(mn_span whole, uint64_t offset, uint64_t bytes)
{
    const uint64_t first = offset > AROUND ? (offset - AROUND) / AROUND * AROUND : 0;
    const uint64_t rest = whole.bytes - first, wanted = offset - first + bytes + AROUND;
    give_back_pages(whole.data + first, (size_t)(wanted < rest ? wanted : rest));
}

#endif

mn_status mn_open(const char *folder, const mn_open_options *options, mn_model **model, mn_error *error)
{
    static const char *const names[] = {"native.bin", "weights.bin"};
    if (!folder || !model) return mn_fail(error, MN_ERROR_ARGUMENT, "no folder, or no place for the model");
    *model = NULL;
    const size_t room = strlen(folder) + sizeof "/weights.bin";
    char *path = malloc(room);
    if (!path) return mn_fail(error, MN_ERROR_MEMORY, "no memory for a path");
    void *data[2] = {NULL, NULL};
    size_t bytes[2] = {0, 0};
    mn_status status = MN_OK;
    for (int i = 0; i < 2 && status == MN_OK; i++) {
        snprintf(path, room, "%s/%s", folder, names[i]);
        const char *reason = map(path, data + i, bytes + i);
        if (reason) status = fail_file(path, reason, error);
    }
    free(path);
    if (status == MN_OK)
        status = mn_open_spans((mn_span){data[0], bytes[0]}, (mn_span){data[1], bytes[1]}, GIVE_BACK, options, model, error);
    for (int i = 0; i < 2; i++) {
        if (status != MN_OK) {
            unmap(data[i], bytes[i]);
        } else {
            (*model)->mapping[i] = data[i];
            (*model)->mapped[i] = bytes[i];
        }
    }
    return status;
}

void mn_close(mn_model *model)
{
    if (!model) return;
    for (int i = 0; i < 2; i++) unmap(model->mapping[i], model->mapped[i]);
    mn_pages_free(model->block, model->bytes);
    free(model);
}
