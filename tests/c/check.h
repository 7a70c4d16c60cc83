/* What the C programs of the tests share. A failed check names itself on stderr and ends with status 1. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "webserver.h"

#define PEM_MAX 16384

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#define CHECK_CODE(call, expected)                                                                           \
    do {                                                                                                     \
        int check_code = (call);                                                                             \
        if (check_code != (expected)) {                                                                      \
            fprintf(stderr, "%s:%d: %s is %d, not %d\n", __FILE__, __LINE__, #call, check_code, (expected)); \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

/* Reads a whole file of less than `capacity` bytes. */
static inline size_t read_file(const char *path, char *content, size_t capacity) {
    FILE *file = fopen(path, "rb");
    size_t length;
    CHECK(file != NULL);
    length = fread(content, 1, capacity, file);
    CHECK(length < capacity);
    fclose(file);
    return length;
}

#endif
