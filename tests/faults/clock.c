/* A clock that is set: what Python reads of CLOCK_REALTIME is moved by the seconds in the file $MIND_FAULT_CLOCK.
   Only calls from the interpreter itself are moved: deadlines that libraries hand to the kernel stay the kernel's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long moved(void) {
    long seconds = 0;
    const char *name = getenv("MIND_FAULT_CLOCK");
    FILE *file = name ? fopen(name, "r") : NULL;
    if (file != NULL) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

static int asked_by_python(void *caller) {
    Dl_info where;
    return dladdr(caller, &where) && where.dli_fname != NULL && strstr(where.dli_fname, "python3") != NULL &&
           strstr(where.dli_fname, "site-packages") == NULL;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *) = NULL;
    if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME && asked_by_python(__builtin_return_address(0))) now->tv_sec += moved();
    return failed;
}
