/*
 * Linux takes the 8254's counter 0 to calibrate the processor's own timer by, and leaves it counting: nobody listens to
 * it, but QEMU wakes for each of its rounds, 60 times a second in a guest that does nothing.
 */
#include "interval-timer.h"

#include "files.h"

#include <stdbool.h>
#include <string.h>
#include <sys/io.h>

#define CLOCK_EVENT_SOURCE "/sys/devices/system/clockevents/clockevent0/current_device"
#define COUNTER_0 0x40
#define CONTROL 0x43
/* Counter 0, low byte then high byte, mode 0: it counts once, and waits to be told again. */
#define COUNT_ONCE 0x30

static bool keeps_time_by_processor(void)
{
    char name[32];

    return read_small_file(CLOCK_EVENT_SOURCE, name, sizeof name) && strncmp(name, "lapic", strlen("lapic")) == 0;
}

void rest_interval_timer(void)
{
    if (!keeps_time_by_processor() || ioperm(COUNTER_0, CONTROL - COUNTER_0 + 1, 1) < 0)
        return;
    outb(COUNT_ONCE, CONTROL);
    outb(0, COUNTER_0);
    outb(0, COUNTER_0);
    (void)ioperm(COUNTER_0, CONTROL - COUNTER_0 + 1, 0);
}
