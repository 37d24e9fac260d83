/* The processor's time stamp counter beside a clock that nobody adjusts, so that the rate of
 * the one is found by the other. /proc/cpuinfo tells what the processor runs at just now, which
 * is another number where its frequency is scaled. */
#include "addon.h"

#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>

#define TRIES 8

static bool read_clock(double *nanoseconds)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC_RAW, &now) < 0)
        return false;
    *nanoseconds = (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
    return true;
}

/* Of several readings that in which the least time went by around the clock's: the others were interrupted. */
static bool read_both(double *ticks, double *nanoseconds)
{
    unsigned long long before, after, shortest = ~0ULL;
    double now;
    int i;

    for (i = 0; i < TRIES; i++) {
        before = __rdtsc();
        if (!read_clock(&now))
            return false;
        after = __rdtsc();
        if (after - before >= shortest)
            continue;
        shortest = after - before;
        *ticks = (double)before + (double)shortest / 2;
        *nanoseconds = now;
    }
    return true;
}
#endif

/* readTicks(): {ticks, nanoseconds}; null where there is no such counter */
napi_value read_ticks(napi_env env, napi_callback_info info)
{
    (void)info;
#if defined(__x86_64__)
    struct failure failure;
    double ticks = 0, nanoseconds = 0;
    napi_value reading;

    if (!read_both(&ticks, &nanoseconds)) {
        failed(&failure, "clock_gettime");
        return throw_failure(env, &failure, "CLOCK_MONOTONIC_RAW");
    }
    if (!succeeded(env, napi_create_object(env, &reading)) || !set_number(env, reading, "ticks", ticks) ||
        !set_number(env, reading, "nanoseconds", nanoseconds))
        return NULL;
    return reading;
#else
    return null_value(env);
#endif
}
